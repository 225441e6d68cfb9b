//! Where RAM lies in a PC's physical memory, and the memory that holds the firmware.

use std::fs::File;
use std::path::Path;

pub use crate::firmware::acpi::RamLayout;
use crate::machine::Machine;
use crate::memory::{RegionId, RegionKind};
use crate::{qerr, QResult};

/// Maps aliases of the RAM region as `layout` says.
pub fn map_ram(m: &mut Machine, ram: RegionId, layout: RamLayout) {
    let system = m.mem.system;
    let alias = |offset| RegionKind::Alias { target: ram, offset, readonly: false };
    let below = m.mem.add("ram-below-4g", u128::from(layout.below_4g), alias(0), None);
    m.mem.map(system, below, 0, 0);
    if layout.above_4g > 0 {
        let above = m.mem.add("ram-above-4g", u128::from(layout.above_4g), alias(layout.below_4g), None);
        m.mem.map(system, above, layout.above_4g_start, 0);
    }
}

/// Memory with the firmware image at `path` in it, not mapped yet, and its size. The image is called `name` in errors.
///
/// # Errors
/// There is no such file, or its size is not a multiple of 64 KiB.
pub fn load_bios(
    m: &mut Machine,
    path: Option<&Path>,
    name: &str,
    readonly: bool,
) -> QResult<(RegionId, u64)> {
    let fail = || qerr!("qemu: could not load PC BIOS '{name}'").bare();
    let file = path.and_then(|p| File::open(p).ok()).ok_or_else(fail)?;
    let size = file.metadata().map_or(0, |meta| meta.len());
    if size == 0 || size % 65536 != 0 || size > MAX_BIOS {
        return Err(fail());
    }
    let bios = m.new_ram("pc.bios", size, readonly, None)?;
    let block = m.ram_of(bios).ok_or_else(fail)?;
    block.load(0, &file, 0, size as usize).map_err(|_| fail())?;
    Ok((bios, size))
}

/// More does not fit below 4 GiB.
const MAX_BIOS: u64 = 16 << 20;
