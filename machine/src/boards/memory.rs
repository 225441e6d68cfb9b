//! Where RAM lies in a PC's physical memory.

use crate::machine::Machine;
use crate::memory::{RegionId, RegionKind};

/// RAM below and above 4 GiB, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RamLayout {
    /// From address 0.
    pub below_4g: u64,
    /// From 4 GiB.
    pub above_4g: u64,
}

impl RamLayout {
    /// Layout of `pc`: up to 3.5 GiB stay below 4 GiB; with more, 3 GiB do. `max_below` (0 = default) lowers the limit.
    pub fn pc(size: u64, max_below: u64) -> Self {
        let limit = if max_below > 0 { max_below } else { 0xe000_0000 };
        let low = if size < limit {
            size
        } else if max_below == 0 || limit > 0xc000_0000 {
            // Gigabyte alignment makes large pages possible.
            0xc000_0000.min(size)
        } else {
            limit
        };
        Self { below_4g: low, above_4g: size - low }
    }
}

/// Maps aliases of the RAM region as `layout` says.
pub fn map_ram(m: &mut Machine, ram: RegionId, layout: RamLayout) {
    let system = m.mem.system;
    let alias = |offset| RegionKind::Alias { target: ram, offset, readonly: false };
    let below = m.mem.add("ram-below-4g", u128::from(layout.below_4g), alias(0), None);
    m.mem.map(system, below, 0, 0);
    if layout.above_4g > 0 {
        let above = m.mem.add("ram-above-4g", u128::from(layout.above_4g), alias(layout.below_4g), None);
        m.mem.map(system, above, 1 << 32, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pc_split() {
        let l = |s| RamLayout::pc(s, 0);
        assert_eq!(l(1 << 30), RamLayout { below_4g: 1 << 30, above_4g: 0 });
        assert_eq!(l(0xdfff_ffff), RamLayout { below_4g: 0xdfff_ffff, above_4g: 0 });
        assert_eq!(l(0xe000_0000), RamLayout { below_4g: 0xc000_0000, above_4g: 0x2000_0000 });
        assert_eq!(l(4 << 30), RamLayout { below_4g: 0xc000_0000, above_4g: 0x4000_0000 });
        assert_eq!(RamLayout::pc(2 << 30, 1 << 30), RamLayout { below_4g: 1 << 30, above_4g: 1 << 30 });
    }
}
