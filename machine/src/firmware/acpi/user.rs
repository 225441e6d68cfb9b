//! `-acpitable`: tables that the user gives.

use crate::error::{strerror, QResult};
use crate::qerr;

/// Length of the table header.
const HEADER_LEN: usize = 36;

/// Header of a table that comes without one (`data=`), apart from its length and checksum.
const DEFAULT_HEADER: [u8; HEADER_LEN] = *b"QEMU\0\0\0\0\x01\0QEMUQEQEMUQEMU\x01\0\0\0QEMU\x01\0\0\0";

/// A table and what QEMU warns about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserTable {
    /// The whole table with a right length and checksum.
    pub table: Vec<u8>,
    /// Warning for the user.
    pub warning: Option<String>,
}

/// Makes a table from the option's key and value pairs.
///
/// # Errors
/// QEMU's texts, without the `-acpitable …:` in front.
pub fn user_table(pairs: &[(String, String)]) -> QResult<UserTable> {
    let find = |key: &str| pairs.iter().rev().find(|(k, _)| k == key).map(|(_, v)| v.as_str());
    let mut header = Fields::default();
    for (key, value) in pairs {
        header.set(key, value)?;
    }
    let (paths, has_header) = match (find("file"), find("data")) {
        (Some(file), None) => (file, true),
        (None, Some(data)) => (data, false),
        _ => return Err(qerr!("'-acpitable' requires one of 'data' or 'file'")),
    };
    if paths.is_empty() {
        return Err(qerr!("'-acpitable' requires at least one pathname"));
    }
    let mut table = if has_header { Vec::new() } else { DEFAULT_HEADER.to_vec() };
    for path in paths.split(':') {
        let data = std::fs::read(path).map_err(|e| qerr!("can't open file {path}: {}", strerror(&e)))?;
        table.extend(data);
    }
    if table.len() < HEADER_LEN {
        let len = table.len();
        return Err(qerr!(
            "ACPI table claiming to have header is too short, available: {len}, expected: {HEADER_LEN}"
        ));
    }
    let len = u16::try_from(table.len());
    let len =
        len.map_err(|_| qerr!("ACPI table too large, requested: {}, max: {}", table.len(), u16::MAX))?;
    let mut warning = None;
    let claimed = u32::from_le_bytes([table[4], table[5], table[6], table[7]]);
    if has_header && claimed != u32::from(len) {
        warning =
            Some(format!("ACPI table has wrong length, header says {claimed}, actual size {len} bytes"));
    }
    if !has_header && header == Fields::default() {
        warning = Some("ACPI table: no headers are specified".into());
    }
    header.apply(&mut table);
    table[4..8].copy_from_slice(&u32::from(len).to_le_bytes());
    table[9] = 0;
    table[9] = table.iter().fold(0u8, |sum, b| sum.wrapping_sub(*b));
    Ok(UserTable { table, warning })
}

/// Header fields that replace those of the file.
#[derive(Debug, Default, PartialEq, Eq)]
struct Fields {
    signature: Option<String>,
    revision: Option<u8>,
    oem_id: Option<String>,
    oem_table_id: Option<String>,
    oem_revision: Option<u32>,
    compiler: Option<String>,
    compiler_revision: Option<u32>,
}

impl Fields {
    fn set(&mut self, key: &str, value: &str) -> QResult<()> {
        let text = || Some(value.to_string());
        match key {
            "file" | "data" => {}
            "sig" => self.signature = text(),
            "rev" => {
                let rev = number(key, value)?;
                let rev = u8::try_from(rev).map_err(|_| qerr!("Parameter '{key}' expects uint8_t"))?;
                self.revision = Some(rev);
            }
            "oem_id" => self.oem_id = text(),
            "oem_table_id" => self.oem_table_id = text(),
            "oem_rev" => self.oem_revision = Some(number32(key, value)?),
            "asl_compiler_id" => self.compiler = text(),
            "asl_compiler_rev" => self.compiler_revision = Some(number32(key, value)?),
            _ => return Err(qerr!("Invalid parameter '{key}'")),
        }
        Ok(())
    }

    fn apply(&self, table: &mut [u8]) {
        text(&mut table[0..4], &self.signature);
        if let Some(rev) = self.revision {
            table[8] = rev;
        }
        text(&mut table[10..16], &self.oem_id);
        text(&mut table[16..24], &self.oem_table_id);
        dword(&mut table[24..28], self.oem_revision);
        text(&mut table[28..32], &self.compiler);
        dword(&mut table[32..36], self.compiler_revision);
    }
}

/// Replaces a text field, cut to its size and padded with zeros.
fn text(field: &mut [u8], value: &Option<String>) {
    if let Some(value) = value {
        let bytes = value.bytes().chain(std::iter::repeat(0));
        field.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    }
}

fn dword(field: &mut [u8], value: Option<u32>) {
    if let Some(value) = value {
        field.copy_from_slice(&value.to_le_bytes());
    }
}

/// Unsigned number in C notation.
fn number(key: &str, text: &str) -> QResult<u64> {
    let parsed = crate::spec::size::parse_u64(text).filter(|_| !text.contains('-'));
    parsed.ok_or_else(|| qerr!("Parameter '{key}' expects a uint64 value"))
}

fn number32(key: &str, text: &str) -> QResult<u32> {
    u32::try_from(number(key, text)?).map_err(|_| qerr!("Parameter '{key}' expects uint32_t"))
}

/// The fw_cfg item (selector 0x8000) that old firmware reads: count, then each table with its length.
pub fn legacy_item(tables: &[Vec<u8>]) -> Vec<u8> {
    let mut item = (tables.len() as u16).to_le_bytes().to_vec();
    for table in tables {
        item.extend((table.len() as u16).to_le_bytes());
        item.extend_from_slice(table);
    }
    item
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<UserTable, String> {
        let pairs: Vec<_> =
            text.split(',').filter_map(|p| p.split_once('=')).map(|(k, v)| (k.into(), v.into())).collect();
        user_table(&pairs).map_err(|e| e.desc)
    }

    #[test]
    fn refusals() {
        let dir = tempfile::tempdir().unwrap();
        let short = dir.path().join("short");
        std::fs::write(&short, b"x").unwrap();
        let short = format!("file={}", short.display());
        for (text, error) in [
            ("sig=ABCD", "'-acpitable' requires one of 'data' or 'file'"),
            ("file=a,data=b", "'-acpitable' requires one of 'data' or 'file'"),
            ("data=", "'-acpitable' requires at least one pathname"),
            ("file=/nonexistent/x", "can't open file /nonexistent/x: No such file or directory"),
            ("rev=300,data=x", "Parameter 'rev' expects uint8_t"),
            ("oem_rev=zz,data=x", "Parameter 'oem_rev' expects a uint64 value"),
            ("foo=1,data=x", "Invalid parameter 'foo'"),
            (&short, "ACPI table claiming to have header is too short, available: 1, expected: 36"),
        ] {
            assert_eq!(parse(text).unwrap_err(), error, "{text}");
        }
    }

    #[test]
    fn lengths_and_checksums_are_set_right() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t");
        std::fs::write(&path, [0x55; 50]).unwrap();
        let got = parse(&format!("file={},sig=ABCDEF", path.display())).unwrap();
        assert_eq!(&got.table[..8], b"ABCD\x32\0\0\0");
        assert_eq!(got.table.iter().fold(0u8, |s, b| s.wrapping_add(*b)), 0);
        assert!(got.warning.is_some());
        let got = parse(&format!("data={},sig=ABCD", path.display())).unwrap();
        assert_eq!((got.table.len(), got.warning), (86, None));
    }
}
