//! `-smbios`: fields and binary structures that the user gives.

use std::collections::BTreeMap;

use crate::error::{strerror, QResult};
use crate::qerr;

/// A port connector (type 8).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Port {
    /// Internal reference designator.
    pub internal_reference: Option<String>,
    /// External reference designator.
    pub external_reference: Option<String>,
    /// External connector type.
    pub connector_type: u8,
    /// Port type.
    pub port_type: u8,
}

/// An onboard device (type 41).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OnboardDevice {
    /// Reference designation.
    pub designation: Option<String>,
    /// Device type 1 to 10.
    pub kind: u8,
    /// Instance.
    pub instance: u8,
    /// Id of the PCI device that it is.
    pub pcidev: Option<String>,
    /// Bus and devfn of that device; the board fills it in before the structures are built.
    pub address: Option<(u8, u8)>,
}

/// All `-smbios` options together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SmbiosOptions {
    /// Binary structures in the order given.
    blobs: Vec<Vec<u8>>,
    /// Types that got fields, and their text fields; a later option wins field by field.
    fields: BTreeMap<u8, BTreeMap<&'static str, String>>,
    /// Release of type 0 (major, minor).
    pub bios_release: (u8, u8),
    /// `uefi=on` of type 0.
    pub bios_uefi: bool,
    /// UUID of type 1 in text order.
    pub system_uuid: Option<[u8; 16]>,
    /// MHz.
    pub cpu_max_speed: u16,
    /// MHz.
    pub cpu_current_speed: u16,
    /// Processor id in place of CPUID's.
    pub processor_id: Option<u64>,
    /// MT/s of type 17.
    pub memory_speed: u16,
    /// Type 8.
    pub ports: Vec<Port>,
    /// Type 11.
    pub oem_strings: Vec<Vec<u8>>,
    /// Type 41.
    pub onboard: Vec<OnboardDevice>,
}

impl Default for SmbiosOptions {
    fn default() -> Self {
        Self {
            blobs: Vec::new(),
            fields: BTreeMap::new(),
            bios_release: (0, 0),
            bios_uefi: false,
            system_uuid: None,
            cpu_max_speed: 2000,
            cpu_current_speed: 2000,
            processor_id: None,
            memory_speed: 0,
            ports: Vec::new(),
            oem_strings: Vec::new(),
            onboard: Vec::new(),
        }
    }
}

/// Kinds of onboard devices, from type 1 up.
const ONBOARD_KINDS: [&str; 10] =
    ["other", "unknown", "video", "scsi", "ethernet", "tokenring", "sound", "pata", "sata", "sas"];

/// Text fields of a type.
fn text_fields(typ: u8) -> Option<&'static [&'static str]> {
    Some(match typ {
        0 => &["vendor", "version", "date"],
        1 => &["manufacturer", "product", "version", "serial", "sku", "family"],
        2 => &["manufacturer", "product", "version", "serial", "asset", "location"],
        3 => &["manufacturer", "version", "serial", "asset", "sku"],
        4 => &["sock_pfx", "manufacturer", "version", "serial", "asset", "part"],
        17 => &["loc_pfx", "bank", "manufacturer", "serial", "asset", "part"],
        8 | 11 | 41 => &[],
        _ => return None,
    })
}

impl SmbiosOptions {
    /// Binary structures.
    pub fn blobs(&self) -> impl Iterator<Item = &[u8]> {
        self.blobs.iter().map(Vec::as_slice)
    }

    /// Whether a binary structure of this type was given.
    pub fn has_blob(&self, typ: u8) -> bool {
        self.blobs.iter().any(|blob| blob.first() == Some(&typ))
    }

    /// Gives the BIOS structure (type 0) these text fields, unless the user described it.
    pub fn default_bios(&mut self, texts: &[(&'static str, &str)]) {
        if !self.has_blob(0) && !self.has_fields(0) {
            self.fields.insert(0, texts.iter().map(|(k, v)| (*k, (*v).to_owned())).collect());
        }
    }

    /// Whether the type was named with `type=`.
    pub fn has_fields(&self, typ: u8) -> bool {
        self.fields.contains_key(&typ)
    }

    /// A text field.
    pub fn get(&self, typ: u8, name: &str) -> Option<&str> {
        self.fields.get(&typ)?.get(name).map(String::as_str)
    }

    /// A text field or its default.
    pub fn get_or<'a>(&'a self, typ: u8, name: &str, default: &'a str) -> Option<&'a str> {
        Some(self.get(typ, name).unwrap_or(default))
    }

    /// Adds one `-smbios` option, given as its key and value pairs in order.
    ///
    /// # Errors
    /// QEMU's texts, without the `-smbios …:` in front.
    pub fn add(&mut self, pairs: &[(String, String)]) -> QResult<()> {
        let find = |key: &str| pairs.iter().rev().find(|(k, _)| k == key).map(|(_, v)| v.as_str());
        if let Some(path) = find("file") {
            if let Some((key, _)) = pairs.iter().find(|(k, _)| k != "file") {
                return Err(qerr!("Invalid parameter '{key}'"));
            }
            return self.add_file(path);
        }
        let Some(typ) = find("type") else { return Err(qerr!("Must specify type= or file=")) };
        let typ = number("type", typ)?;
        let typ = u8::try_from(typ).ok().filter(|t| *t <= 127).ok_or_else(|| qerr!("out of range!"))?;
        if self.has_blob(typ) {
            return Err(qerr!("can't add fields, binary file already loaded!"));
        }
        let Some(texts) = text_fields(typ) else {
            return Err(qerr!("Don't know how to build fields for SMBIOS type {typ}"));
        };
        self.fields.entry(typ).or_default();
        match typ {
            8 => self.ports.push(Port::default()),
            41 => self.onboard.push(OnboardDevice { instance: 1, ..OnboardDevice::default() }),
            _ => {}
        }
        for (key, value) in pairs.iter().filter(|(k, _)| k != "type") {
            match texts.iter().find(|name| *name == key) {
                Some(name) => {
                    self.fields.entry(typ).or_default().insert(name, value.clone());
                }
                None => self.special(typ, key, value)?,
            }
        }
        Ok(())
    }

    /// Finds the PCI devices that onboard entries name: `lookup` gives bus number and devfn of a device id.
    ///
    /// # Errors
    /// An entry names a device that does not exist.
    pub fn resolve_onboard(&mut self, lookup: impl Fn(&str) -> Option<(u8, u8)>) -> QResult<()> {
        for device in &mut self.onboard {
            let Some(id) = &device.pcidev else { continue };
            let name = device.designation.as_deref().unwrap_or("(null)");
            let found = lookup(id);
            device.address =
                Some(found.ok_or_else(|| qerr!("No PCI device {id} for SMBIOS type 41 entry {name}"))?);
        }
        Ok(())
    }

    /// A field that is more than text.
    fn special(&mut self, typ: u8, key: &str, value: &str) -> QResult<()> {
        match (typ, key) {
            (0, "release") => self.bios_release = release(value).ok_or_else(|| qerr!("Invalid release"))?,
            (0, "uefi") => self.bios_uefi = switch(key, value)?,
            (1, "uuid") => self.system_uuid = Some(uuid(value).ok_or_else(|| qerr!("Invalid UUID"))?),
            (4, "max-speed") => self.cpu_max_speed = cpu_speed(key, value)?,
            (4, "current-speed") => self.cpu_current_speed = cpu_speed(key, value)?,
            (4, "processor-id") => self.processor_id = Some(number(key, value)?),
            (17, "speed") => self.memory_speed = number(key, value)? as u16,
            (8, _) => return self.port_field(key, value),
            (11, "value") => self.oem_strings.push(value.as_bytes().to_vec()),
            (11, "path") => {
                let text =
                    std::fs::read(value).map_err(|e| qerr!("Could not open '{value}': {}", strerror(&e)))?;
                self.oem_strings.push(text);
            }
            (41, _) => return self.onboard_field(key, value),
            _ => return Err(qerr!("Invalid parameter '{key}'")),
        }
        Ok(())
    }

    fn port_field(&mut self, key: &str, value: &str) -> QResult<()> {
        let Some(port) = self.ports.last_mut() else { return Ok(()) };
        match key {
            "internal_reference" => port.internal_reference = Some(value.into()),
            "external_reference" => port.external_reference = Some(value.into()),
            "connector_type" => port.connector_type = number(key, value)? as u8,
            "port_type" => port.port_type = number(key, value)? as u8,
            _ => return Err(qerr!("Invalid parameter '{key}'")),
        }
        Ok(())
    }

    fn onboard_field(&mut self, key: &str, value: &str) -> QResult<()> {
        let Some(device) = self.onboard.last_mut() else { return Ok(()) };
        match key {
            "designation" => device.designation = Some(value.into()),
            "kind" => {
                let at = ONBOARD_KINDS.iter().position(|k| *k == value);
                device.kind = at.ok_or_else(|| qerr!("invalid parameter value: {value}"))? as u8 + 1;
            }
            "instance" => device.instance = number(key, value)? as u8,
            "pcidev" => device.pcidev = Some(value.into()),
            _ => return Err(qerr!("Invalid parameter '{key}'")),
        }
        Ok(())
    }

    /// A binary structure with its strings and their terminator.
    fn add_file(&mut self, path: &str) -> QResult<()> {
        const HEADER: usize = 4;
        let blob = std::fs::read(path).ok().filter(|b| b.len() >= HEADER);
        let blob = blob.ok_or_else(|| qerr!("Cannot read SMBIOS file {path}"))?;
        let typ = blob[0];
        if self.has_fields(typ) {
            return Err(qerr!("can't load type {typ} struct, fields already specified!"));
        }
        self.blobs.push(blob);
        Ok(())
    }
}

/// A number as options have them: decimal, or hex with `0x`, or octal with `0`.
fn number(key: &str, text: &str) -> QResult<u64> {
    crate::spec::size::parse_u64(text).ok_or_else(|| qerr!("Parameter '{key}' expects a number"))
}

fn cpu_speed(key: &str, text: &str) -> QResult<u16> {
    u16::try_from(number(key, text)?).map_err(|_| qerr!("SMBIOS CPU speed is too large (> 65535)"))
}

fn switch(key: &str, text: &str) -> QResult<bool> {
    match text {
        "on" | "yes" | "true" | "y" => Ok(true),
        "off" | "no" | "false" | "n" => Ok(false),
        _ => Err(qerr!("Parameter '{key}' expects 'on' or 'off'")),
    }
}

/// Two numbers, `major.minor`; they are cut to bytes, and nothing behind them counts.
fn release(text: &str) -> Option<(u8, u8)> {
    let (major, rest) = text.split_once('.')?;
    let minor = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    let byte = |t: &str| t.parse::<u64>().ok().filter(|_| !t.starts_with('+')).map(|v| v as u8);
    Some((byte(major)?, byte(minor)?))
}

/// Canonical UUID text to bytes in text order.
fn uuid(text: &str) -> Option<[u8; 16]> {
    let b = text.as_bytes();
    if b.len() != 36 || [8, 13, 18, 23].iter().any(|at| b[*at] != b'-') {
        return None;
    }
    let mut out = [0u8; 16];
    let mut digits = b.iter().filter(|c| **c != b'-').map(|c| char::from(*c).to_digit(16));
    for byte in &mut out {
        *byte = (digits.next()?? << 4 | digits.next()??) as u8;
    }
    digits.next().is_none().then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(options: &mut SmbiosOptions, text: &str) -> Result<(), String> {
        let pairs: Vec<_> =
            text.split(',').filter_map(|p| p.split_once('=')).map(|(k, v)| (k.into(), v.into())).collect();
        options.add(&pairs).map_err(|e| e.desc)
    }

    #[test]
    fn fields_are_kept_and_a_later_one_wins() {
        let mut o = SmbiosOptions::default();
        add(&mut o, "type=1,serial=a,uuid=00112233-4455-6677-8899-aabbccddeeff").unwrap();
        add(&mut o, "type=1,serial=b,product=p").unwrap();
        assert_eq!(o.get(1, "serial"), Some("b"));
        assert_eq!(o.get(1, "product"), Some("p"));
        assert_eq!(o.system_uuid.unwrap()[..4], [0x00, 0x11, 0x22, 0x33]);
        assert!(o.has_fields(1) && !o.has_fields(2));
    }

    #[test]
    fn refusals() {
        let mut o = SmbiosOptions::default();
        for (text, error) in [
            ("type=99", "Don't know how to build fields for SMBIOS type 99"),
            ("type=1,foo=bar", "Invalid parameter 'foo'"),
            ("type=1,uuid=zz", "Invalid UUID"),
            ("type=0,release=3", "Invalid release"),
            ("file=/nonexistent/x", "Cannot read SMBIOS file /nonexistent/x"),
            ("file=x,type=1", "Invalid parameter 'type'"),
            ("type=200", "out of range!"),
            ("foo=bar", "Must specify type= or file="),
            ("type=4,max-speed=100000", "SMBIOS CPU speed is too large (> 65535)"),
            ("type=4,max-speed=abc", "Parameter 'max-speed' expects a number"),
            ("type=41,kind=foo", "invalid parameter value: foo"),
            ("type=11,path=/nonexistent/x", "Could not open '/nonexistent/x': No such file or directory"),
        ] {
            assert_eq!(add(&mut o, text).unwrap_err(), error, "{text}");
        }
    }

    #[test]
    fn files_and_fields_of_one_type_exclude_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t1");
        std::fs::write(&path, [1, 4, 0, 0, 0, 0]).unwrap();
        let file = format!("file={}", path.display());
        let mut o = SmbiosOptions::default();
        add(&mut o, &file).unwrap();
        assert_eq!(
            add(&mut o, "type=1,serial=x").unwrap_err(),
            "can't add fields, binary file already loaded!"
        );
        let mut o = SmbiosOptions::default();
        add(&mut o, "type=1").unwrap();
        assert_eq!(add(&mut o, &file).unwrap_err(), "can't load type 1 struct, fields already specified!");
    }
}
