//! Programmable attribute map: where the 13 areas between 0xc0000 and 0xfffff lead, as on the 440FX (datasheet
//! 290549, registers PAM0-PAM6) and later Intel host bridges.
//!
//! Each area has a read-enable and a write-enable bit. Like QEMU, "write only" behaves as "neither": all accesses go
//! to PCI, and in "read only" writes are dropped.

use crate::device::DevId;
use crate::machine::Machine;
use crate::memory::{RegionId, RegionKind};

/// Number of PAM registers.
pub const PAM_REGS: usize = 7;

/// Start and size of area `i`: area 0 is the upper 64 KiB, the others are 16 KiB each from 0xc0000 up.
fn area(i: usize) -> (u64, u64) {
    match i {
        0 => (0xf0000, 0x10000),
        _ => (0xc0000 + 0x4000 * (i as u64 - 1), 0x4000),
    }
}

/// The areas, each with one alias per mode of which one is switched on.
pub struct Pam {
    /// By area; by mode: PCI, RAM read-only, PCI, RAM.
    aliases: Vec<[RegionId; 4]>,
}

impl Pam {
    /// Makes the areas, all leading to PCI. `ram` is the system RAM (offset = address), `pci` the PCI address space.
    pub fn new(m: &mut Machine, owner: DevId, ram: RegionId, pci: RegionId) -> Self {
        let mut aliases = Vec::with_capacity(2 * PAM_REGS - 1);
        for i in 0..2 * PAM_REGS - 1 {
            let (start, size) = area(i);
            let mut alias = |name: &'static str, target, readonly| {
                let kind = RegionKind::Alias { target, offset: start, readonly };
                let r = m.mem.add(name, u128::from(size), kind, Some(owner));
                let system = m.mem.system;
                m.mem.set_enabled(r, false);
                m.mem.map(system, r, start, 1);
                r
            };
            let set = [
                alias("pam-pci", pci, false),
                alias("pam-rom", ram, true),
                alias("pam-pci", pci, false),
                alias("pam-ram", ram, false),
            ];
            m.mem.set_enabled(set[0], true);
            aliases.push(set);
        }
        Self { aliases }
    }

    /// Applies PAM0-PAM6.
    pub fn update(&self, m: &mut Machine, regs: [u8; PAM_REGS]) {
        for (i, set) in self.aliases.iter().enumerate() {
            // PAM0 has its one area in the high nibble; PAM1-6 have the lower area in the low nibble.
            let nibble = if i % 2 == 0 { regs[i.div_ceil(2)] >> 4 } else { regs[i.div_ceil(2)] };
            for (mode, region) in set.iter().enumerate() {
                m.mem.set_enabled(*region, mode == usize::from(nibble & 3));
            }
        }
    }
}
