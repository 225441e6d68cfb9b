//! Option ROMs of PCI devices: file, size, BAR 6 (PCI Firmware Specification 3.0, section 5.1).

use std::sync::Arc;

use super::config::{BarKind, PciState};
use super::props::PciProps;
use super::reg;
use crate::device::RealizeCx;
use crate::memory::{RamBlock, RamSource, RegionKind};
use crate::{qerr, QResult};

/// Largest option ROM, which is what a BAR of half the 32-bit space holds.
const MAX_ROM: u64 = 2 << 30;

/// Loads the option ROM of a device into BAR 6. Call it after all other BARs exist and before the function is attached.
///
/// `name` names the memory (`NAME.rom`); `romfile` defaults to `default_file` (empty: none), `romfile=""` means no ROM, `rombar=0` puts none into a BAR.
/// On return the properties hold what applies (`romsize` is the BAR's size).
///
/// # Errors
/// With QEMU's texts: `romsize` is not a power of two or too small, the file is missing, empty or unreadable.
pub fn load_rom(
    cx: &mut RealizeCx<'_>,
    pci: &mut PciState,
    props: &mut PciProps,
    name: &str,
    default_file: &str,
) -> QResult<()> {
    if props.romsize != u32::MAX && !props.romsize.is_power_of_two() {
        return Err(qerr!("ROM size {} is not a power of two", props.romsize));
    }
    let is_default = props.romfile.is_none() && !default_file.is_empty();
    if is_default {
        props.romfile = Some(default_file.to_string());
    }
    let Some(file) = props.romfile.clone().filter(|f| !f.is_empty()) else { return Ok(()) };
    if props.rombar == 0 {
        return Ok(());
    }
    let path = match cx.m().find_firmware(&file) {
        Some(path) => path,
        None if is_default && cx.m().roms_optional => return Ok(()),
        None => return Err(qerr!("failed to find romfile \"{file}\"")),
    };
    let len = std::fs::metadata(&path).map_or(0, |m| m.len());
    if len == 0 {
        return Err(qerr!("romfile \"{file}\" is empty"));
    }
    if len > MAX_ROM {
        return Err(qerr!("romfile \"{file}\" too large (size cannot exceed 2 GiB)"));
    }
    if props.romsize == u32::MAX {
        props.romsize = len.next_power_of_two() as u32;
    } else if len > u64::from(props.romsize) {
        return Err(qerr!("romfile \"{file}\" ({len} bytes) is too large for ROM size {}", props.romsize));
    }
    let mut data = std::fs::read(&path).map_err(|_| qerr!("failed to load romfile \"{file}\""))?;
    if is_default {
        patch_ids(&mut data, pci);
    }
    let name = format!("{name}.rom");
    let block = RamBlock::new(&name, u64::from(props.romsize), RamSource::Anonymous);
    let block = Arc::new(block.map_err(|e| qerr!("{e}"))?);
    block.write(0, &data);
    let dev = cx.id();
    let m = cx.m();
    m.rams.push(block.clone());
    let kind = RegionKind::Ram { block, readonly: true };
    let region = m.mem.add(name, u128::from(props.romsize), kind, Some(dev));
    pci.add_bar(6, region, u64::from(props.romsize), BarKind::Rom);
    Ok(())
}

/// Makes the ROM's ids those of the function, if they differ, and keeps its checksum (its byte 6 gives way).
fn patch_ids(rom: &mut [u8], pci: &PciState) {
    if rom.len() < 0x1a || rom[..2] != [0x55, 0xaa] {
        return;
    }
    let at = usize::from(u16::from_le_bytes([rom[0x18], rom[0x19]]));
    if rom.get(at..at + 4) != Some(b"PCIR") || at + 8 > rom.len() {
        return;
    }
    let ids = &pci.config()[reg::VENDOR_ID..reg::VENDOR_ID + 4];
    for (i, new) in ids.iter().enumerate() {
        let old = rom[at + 4 + i];
        rom[6] = rom[6].wrapping_add(old).wrapping_sub(*new);
        rom[at + 4 + i] = *new;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pci::PciIds;

    #[test]
    fn ids_are_patched_and_the_checksum_kept() {
        let mut rom = vec![0u8; 512];
        rom[..3].copy_from_slice(&[0x55, 0xaa, 1]);
        rom[0x18] = 0x40;
        rom[0x40..0x44].copy_from_slice(b"PCIR");
        rom[0x44..0x48].copy_from_slice(&[0x34, 0x12, 0x11, 0x11]);
        let sum = |r: &[u8]| r.iter().fold(0u8, |s, v| s.wrapping_add(*v));
        let before = sum(&rom);
        let pci = PciState::new(PciIds { vendor: 0x1af4, device: 0x1050, ..PciIds::default() });
        patch_ids(&mut rom, &pci);
        assert_eq!(rom[0x44..0x48], [0xf4, 0x1a, 0x50, 0x10]);
        assert_eq!(sum(&rom), before);
        // Garbage is left alone.
        let mut short = vec![0x55, 0xaa];
        patch_ids(&mut short, &pci);
        let mut far = vec![0xff; 64];
        far[..2].copy_from_slice(&[0x55, 0xaa]);
        patch_ids(&mut far, &pci);
        assert_eq!(far[6], 0xff);
    }
}
