//! What users add to the firmware: ACPI tables, SMBIOS structures, option ROMs, a boot splash.

use std::path::Path;

use super::Build;
use crate::boards::MicrovmProps;
use crate::devices::chipset::fw_cfg::FwCfgData;
use crate::error::strerror;
use crate::{qerr, QResult};

/// An option ROM: the firmware finds it in fw_cfg as `genroms/NAME`.
pub struct OptionRom {
    /// File name without folders.
    pub name: String,
    /// Contents.
    pub data: Vec<u8>,
    /// Place in the boot order; negative: none.
    pub bootindex: i32,
}

impl Build<'_> {
    /// Loads an option ROM from the firmware's folders. One that is missing is only told of, as in QEMU.
    pub fn add_option_rom(&mut self, file: &str, bootindex: i32) {
        let path = self.m.find_firmware(file);
        match std::fs::read(path.as_deref().unwrap_or(Path::new(file))) {
            Ok(data) => {
                let name = file.rsplit('/').next().unwrap_or(file).to_string();
                self.option_roms.push(OptionRom { name, data, bootindex });
            }
            Err(e) => {
                self.messages.plain(&format!("Could not open option rom '{file}': {}", strerror(&e)));
            }
        }
    }

    /// Option ROMs of the user and of devices.
    pub fn load_option_roms(&mut self) {
        let micro = self.props::<MicrovmProps>().map(|p| p.option_roms);
        if micro == Some(false) {
            return;
        }
        const VAPIC: &str = "kvmvapic.bin";
        let needed = !self.boots_directly() || self.m.find_firmware(VAPIC).is_some();
        if micro.is_none() && needed && self.m.tree.by_class("kvmvapic").is_some() {
            self.add_option_rom(VAPIC, -1);
        }
        for rom in &self.spec.firmware.option_roms {
            self.add_option_rom(&rom.romfile, rom.bootindex.unwrap_or(-1));
        }
    }

    /// Boot order lines of option ROMs, to be merged with those of devices.
    pub fn rom_boot_lines(&self) -> Vec<(i64, String)> {
        let wanted = self.option_roms.iter().filter(|r| r.bootindex >= 0);
        wanted.map(|r| (i64::from(r.bootindex), format!("/rom@genroms/{}", r.name))).collect()
    }

    /// fw_cfg files of the option ROMs.
    pub fn rom_files(&mut self) -> Vec<(String, FwCfgData)> {
        let roms = std::mem::take(&mut self.option_roms);
        roms.into_iter().map(|r| (format!("genroms/{}", r.name), r.data.into())).collect()
    }

    /// `-boot splash=`: a JPEG or 24-bit BMP picture under a name that tells which it is.
    pub fn splash_file(&mut self) -> Option<(String, FwCfgData)> {
        let wanted = self.spec.boot.splash.as_deref()?;
        let Some(path) = self.m.find_firmware(wanted) else {
            self.messages.info(&format!("failed to find file '{wanted}'"));
            return None;
        };
        let data = match std::fs::read(&path) {
            Ok(data) => data,
            Err(e) => {
                let path = path.display();
                self.messages.info(&format!("failed to read splash file '{path}': {}", strerror(&e)));
                return None;
            }
        };
        let Some(name) = splash_name(&data) else {
            self.messages.info(&format!(
                "splash file '{}' format not recognized; must be JPEG or 24 bit BMP",
                path.display()
            ));
            return None;
        };
        Some((name.into(), data.into()))
    }

    /// Checks that there is a machine that takes the user's firmware additions.
    ///
    /// # Errors
    /// Something was asked for that this board has no place for.
    pub fn check_firmware_options(&self) -> QResult<()> {
        if self.fw_cfg.is_some() {
            return Ok(());
        }
        match self.spec.fw_cfg.first() {
            Some(f) => Err(f.loc.locate(qerr!("fw_cfg device not available"))),
            None => Ok(()),
        }
    }
}

/// Name that firmware looks for; `None` for a picture of another kind.
fn splash_name(data: &[u8]) -> Option<&'static str> {
    const BITS_AT: usize = 28;
    if data.starts_with(&[0xff, 0xd8]) {
        return Some("bootsplash.jpg");
    }
    let bits = data.get(BITS_AT..BITS_AT + 2)?;
    (data.starts_with(b"BM") && bits == [24, 0]).then_some("bootsplash.bmp")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures() {
        let mut bmp = vec![0; 60];
        bmp[..2].copy_from_slice(b"BM");
        assert_eq!(splash_name(&bmp), None);
        bmp[28] = 24;
        assert_eq!(splash_name(&bmp), Some("bootsplash.bmp"));
        assert_eq!(splash_name(&[0xff, 0xd8, 0xff]), Some("bootsplash.jpg"));
        assert_eq!(splash_name(b""), None);
        assert_eq!(splash_name(b"BM"), None);
    }
}
