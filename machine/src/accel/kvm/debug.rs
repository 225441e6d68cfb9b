//! Guest debugging: breakpoints and single steps.

use kvm_bindings::{
    kvm_guest_debug, KVM_GUESTDBG_BLOCKIRQ, KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_INJECT_BP,
    KVM_GUESTDBG_SINGLESTEP, KVM_GUESTDBG_USE_HW_BP, KVM_GUESTDBG_USE_SW_BP,
};
use kvm_ioctls::VcpuFd;

use crate::accel::{GuestDebug, HardwarePoint};

/// DR7: local and global exact breakpoints, and the bit that is always one.
const DR7_BASE: u64 = 0x700;

/// Tells KVM what to stop at; `false` if it refuses.
pub fn set(fd: &VcpuFd, debug: &GuestDebug) -> bool {
    let mut d = kvm_guest_debug::default();
    let mut flag = |on: bool, bits: u32| d.control |= if on { bits | KVM_GUESTDBG_ENABLE } else { 0 };
    flag(debug.software, KVM_GUESTDBG_USE_SW_BP);
    flag(debug.hardware.iter().any(Option::is_some), KVM_GUESTDBG_USE_HW_BP);
    flag(debug.inject_breakpoint, KVM_GUESTDBG_INJECT_BP);
    flag(debug.single_step, KVM_GUESTDBG_SINGLESTEP | KVM_GUESTDBG_BLOCKIRQ);
    let mut dr7 = DR7_BASE;
    for (i, p) in debug.hardware.iter().enumerate() {
        if let Some(p) = p {
            d.arch.debugreg[i] = p.addr;
            dr7 |= control_bits(i, p);
        }
    }
    d.arch.debugreg[7] = dr7;
    if fd.set_guest_debug(&d).is_ok() {
        return true;
    }
    // Older kernels cannot hold interrupts back.
    let blocked = d.control & KVM_GUESTDBG_BLOCKIRQ != 0;
    d.control &= !KVM_GUESTDBG_BLOCKIRQ;
    blocked && fd.set_guest_debug(&d).is_ok()
}

/// Enable, length and access bits of point `i` in DR7.
fn control_bits(i: usize, p: &HardwarePoint) -> u64 {
    let len: u64 = match p.len {
        1 => 0,
        2 => 1,
        8 => 2,
        _ => 3,
    };
    2 << (2 * i) | u64::from(p.access) << (16 + 4 * i) | len << (18 + 4 * i)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dr7_bits() {
        let p = HardwarePoint { addr: 0, len: 1, access: 0 };
        assert_eq!(control_bits(0, &p), 0x2);
        let p = HardwarePoint { addr: 0, len: 4, access: 1 };
        assert_eq!(control_bits(1, &p), 0x8 | 0xd << 20);
    }
}
