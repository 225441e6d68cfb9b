//! Flash chips of a PC: firmware that can keep variables.

use rqemu_block::BlockBackend;

use super::props::PcProps;
use crate::builder::Build;
use crate::device::{DevId, DeviceTree, Place};
use crate::devices::storage::pflash::Pflash;
use crate::memory::{RamSource, RegionId};
use crate::qom::PropInput;
use crate::spec::DriveInterface;
use crate::{qerr, QError, QResult};

/// Size of an erase block.
const SECTOR: u64 = 4096;
/// QOM names of the chips, which their memory has, too.
const NAMES: [&str; 2] = ["system.flash0", "system.flash1"];

/// Puts the chips below 4 GiB, the first one at the top. `false`: there are none, firmware comes from elsewhere.
///
/// # Errors
/// An image has a bad size or does not exist, or only the second chip has one.
pub(super) fn create(b: &mut Build<'_>, pci_mem: RegionId) -> QResult<bool> {
    let drives = drives(b)?;
    let max = b.props::<PcProps>().map_or(8 << 20, |p| p.max_fw_size.0);
    let [first, second] = &drives;
    let Some(first) = first else {
        return if second.is_some() { Err(qerr!("pflash1 requires pflash0")) } else { Ok(false) };
    };
    let mut end = 1u64 << 32;
    for (name, drive) in NAMES.into_iter().zip([Some(first), second.as_ref()]) {
        let Some(drive) = drive else { continue };
        let size = size_of(&backend(b, drive)?)?;
        if (1 << 32) - end + size > max {
            return Err(qerr!("combined size of system firmware exceeds {max} bytes"));
        }
        end -= size;
        let chip = plug(b, name, drive, end, size)?;
        if name == NAMES[0] {
            b.firmware = Some((chip, size));
            b.flash = true;
            low_copy(b, pci_mem, chip, size)?;
        }
    }
    Ok(true)
}

/// Drives for the chips: `-machine pflashN=` or `if=pflash`, not both.
fn drives(b: &mut Build<'_>) -> QResult<[Option<String>; 2]> {
    let props = b.props::<PcProps>();
    let mut out = props.map(|p| [p.pflash0.0.clone(), p.pflash1.0.clone()]).unwrap_or_default();
    out.iter_mut().for_each(|d| *d = d.take().filter(|n| !n.is_empty()));
    for (unit, slot) in out.iter_mut().enumerate() {
        let Some(i) = b.drive_at(DriveInterface::Pflash, 0, unit as u32) else { continue };
        if slot.is_some() {
            return Err(b.spec.drives[i].loc.locate(qerr!("clashes with -machine")));
        }
        let id = b.places[i].id.clone();
        if let Some(board) = &mut b.m.board {
            board.set(&format!("pflash{unit}"), &PropInput::Str(&id))?;
        }
        *slot = Some(id);
    }
    Ok(out)
}

fn backend(b: &mut Build<'_>, drive: &str) -> QResult<BlockBackend> {
    let missing = |_| qerr!("Property 'cfi.pflash01.drive' can't find value '{drive}'");
    b.m.block.backend_for(drive).map_err(missing)
}

/// Size of an image, with QEMU's checks.
fn size_of(b: &BlockBackend) -> QResult<u64> {
    let name = b.name();
    if !b.has_medium() {
        return Err(qerr!("can't get size of block device {name}: No medium found"));
    }
    let size = b.len();
    if size == 0 || !size.is_multiple_of(SECTOR) {
        return Err(bad_size(name, size));
    }
    Ok(size)
}

fn bad_size(name: &str, size: u64) -> QError {
    qerr!("system firmware block device {name} has invalid size {size}")
        .with_hint(format!("rqemu-system-x86_64: info: its size must be a non-zero multiple of {SECTOR:#x}"))
}

fn plug(b: &mut Build<'_>, name: &'static str, drive: &str, at: u64, size: u64) -> QResult<RegionId> {
    let (blocks, sector) = ((size / SECTOR).to_string(), SECTOR.to_string());
    let props = [
        ("drive", drive),
        ("num-blocks", &blocks),
        ("sector-length", &sector),
        ("width", "1"),
        ("name", name),
    ]
    .map(|(k, v)| (k, PropInput::Str(v)));
    let dev: DevId =
        b.m.add_board_device_at("cfi.pflash01", Some(DeviceTree::SYSTEM), Place::Machine(name), &props)?;
    let region = b.m.with::<Pflash, _>(dev, |p, _| p.region()).ok_or_else(|| qerr!("no flash"))?;
    let system = b.m.mem.system;
    b.m.mem.map(system, region, at, 0);
    Ok(region)
}

/// Real mode starts in a copy of the last 128 KiB, made once.
fn low_copy(b: &mut Build<'_>, pci_mem: RegionId, chip: RegionId, size: u64) -> QResult<()> {
    let len = size.min(128 << 10);
    let flash = b.m.ram_of(chip).ok_or_else(|| qerr!("flash has no memory"))?;
    let copy = b.m.new_ram_from("isa-bios", len, true, None, RamSource::Anonymous)?;
    let block = b.m.ram_of(copy).ok_or_else(|| qerr!("no memory"))?;
    let mut data = vec![0; len as usize];
    flash.read(size - len, &mut data);
    block.write(0, &data);
    b.m.mem.map(pci_mem, copy, 0x10_0000 - len, 1);
    Ok(())
}
