//! Breakpoints and watchpoints.

use crate::accel::{GuestDebug, HardwarePoint};

/// The processor's debug registers.
const HARDWARE_POINTS: usize = 4;

/// A breakpoint in code: the byte that it replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Software {
    /// Virtual address.
    pub addr: u64,
    /// What was there.
    pub old: u8,
}

/// All points that gdb has set.
#[derive(Debug, Default)]
pub struct Points {
    /// Breakpoints in code.
    pub software: Vec<Software>,
    /// In debug registers, with gdb's kind (1 to 4).
    pub hardware: Vec<(u8, HardwarePoint)>,
}

impl Points {
    /// Whether a breakpoint instruction of ours is there.
    pub fn breaks_at(&self, addr: u64) -> bool {
        self.software.iter().any(|p| p.addr == addr)
    }

    /// Adds a hardware point of gdb's kind 1 (execute), 2 (write), 3 (read) or 4 (access); a processor cannot watch reads
    /// alone, so 3 is the same as 4. `false`: bad length or alignment, or no register is free.
    pub fn add_hardware(&mut self, kind: u8, addr: u64, len: u64) -> bool {
        // R/W bits of DR7.
        let access = match kind {
            1 => 0,
            2 => 1,
            _ => 3,
        };
        let len = if kind == 1 { 1 } else { len };
        let fits = matches!(len, 1 | 2 | 4 | 8) && addr.is_multiple_of(len);
        let point = HardwarePoint { addr, len: len as u8, access };
        if !fits || self.hardware.len() >= HARDWARE_POINTS || self.hardware.contains(&(kind, point)) {
            return false;
        }
        self.hardware.push((kind, point));
        true
    }

    /// Removes one; `false`: there is none.
    pub fn remove_hardware(&mut self, kind: u8, addr: u64) -> bool {
        let Some(i) = self.hardware.iter().position(|(k, p)| *k == kind && p.addr == addr) else {
            return false;
        };
        self.hardware.remove(i);
        true
    }

    /// The watchpoint that these bits of DR6 name, as gdb's word and address.
    pub fn watch_hit(&self, dr6: u64) -> Option<(&'static str, u64)> {
        let (kind, p) = self.hardware.get((dr6 & 0xf).trailing_zeros() as usize)?;
        let word = match kind {
            2 => "watch",
            3 => "rwatch",
            4 => "awatch",
            _ => return None,
        };
        Some((word, p.addr))
    }

    /// What the accelerator must watch for.
    pub fn guest_debug(&self, single_step: bool) -> GuestDebug {
        let mut hardware = [None; HARDWARE_POINTS];
        for (slot, (_, p)) in hardware.iter_mut().zip(&self.hardware) {
            *slot = Some(*p);
        }
        GuestDebug { single_step, software: !self.software.is_empty(), hardware, inject_breakpoint: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_points() {
        let mut p = Points::default();
        assert!(!p.add_hardware(2, 0x1001, 4), "not aligned");
        assert!(!p.add_hardware(2, 0x1000, 3), "no such length");
        for i in 0..4 {
            assert!(p.add_hardware(2, 0x1000 + 8 * i, 8));
        }
        assert!(!p.add_hardware(1, 0x2000, 1), "no register is free");
        assert_eq!(p.watch_hit(0b100), Some(("watch", 0x1010)));
        assert_eq!(p.watch_hit(0), None);
        assert!(p.remove_hardware(2, 0x1000) && !p.remove_hardware(2, 0x1000));
        assert!(p.add_hardware(1, 0x2000, 1));
        assert_eq!(p.watch_hit(0b1000), None, "a breakpoint is no watchpoint");
    }
}
