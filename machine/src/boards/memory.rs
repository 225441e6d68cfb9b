//! Where RAM lies in a PC's physical memory.

pub use crate::firmware::acpi::RamLayout;
use crate::machine::Machine;
use crate::memory::{RegionId, RegionKind};

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
