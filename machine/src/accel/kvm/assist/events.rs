//! Interrupts of KVM's controllers for a vCPU that the software CPU runs.

use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;

use kvm_ioctls::VcpuFd;
use rqemu_x86::state::{rflags, sreg};
use rqemu_x86::Cpu;

use super::bus::AssistBus;
use super::state::{event, Event};
use crate::accel::kvm::user_irq::UserIrqs;
use crate::accel::lapic::pending;
use crate::shared::Shared;
use crate::vcpu::kick_signal;

/// `_IOW(KVMIO, 0x8b, struct kvm_signal_mask)`.
const KVM_SET_SIGNAL_MASK: libc::c_ulong = 0x4004_ae8b;

/// `struct kvm_signal_mask` with the kernel's set of 64 signals.
#[repr(C)]
struct SignalMask {
    len: u32,
    set: [u8; 8],
}

/// Changes whether the kick signal is blocked in this thread.
fn block_kick(how: i32) -> libc::sigset_t {
    // SAFETY: a signal set is plain data, which the calls fill in.
    unsafe {
        let (mut set, mut old) = (std::mem::zeroed(), std::mem::zeroed());
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, kick_signal());
        libc::pthread_sigmask(how, &raw const set, &raw mut old);
        old
    }
}

/// Lets the kick signal end `KVM_RUN` even while the thread has it blocked.
pub(super) fn let_kicks_through(fd: &VcpuFd) {
    let old = block_kick(libc::SIG_UNBLOCK);
    let mut mask = SignalMask { len: 8, set: [0; 8] };
    for signal in 1..=64 {
        // SAFETY: reads the set that the call above filled in.
        let blocked = unsafe { libc::sigismember(&raw const old, signal) } == 1;
        if blocked && signal != kick_signal() {
            let n = signal as usize - 1;
            mask.set[n / 8] |= 1 << (n % 8);
        }
    }
    // Where it fails, interrupts are delivered by KVM.
    // SAFETY: the request reads the structure and the set of the length that it names.
    let _ = unsafe { libc::ioctl(fd.as_raw_fd(), KVM_SET_SIGNAL_MASK, &raw const mask) };
}

/// Takes the interrupt that the guest (whose state was stored) can take now from its controller. `None`: there is none, or
/// only KVM can deliver it.
pub(super) fn take(
    cpu: &mut Cpu,
    fd: &mut VcpuFd,
    irqs: &UserIrqs,
    index: usize,
    shared: &Shared,
) -> Option<Event> {
    if let UserIrqs::User(bus) = irqs {
        let outer = |vector| Some(Event { vector, error: None, interrupt: true });
        if bus.take(index, pending::NMI) != 0 {
            cpu.nmi_masked = true;
            return outer(2);
        }
        return match bus.acknowledge(index) {
            Some(v) => outer(v),
            None if bus.pending(index) & pending::PIC != 0 => outer(shared.lock().acknowledge_pic()),
            None => None,
        };
    }
    // With a signal waiting, KVM chooses the event and acknowledges it, but does not enter the guest: the event is to be
    // delivered at the next entry, and shows in the state.
    block_kick(libc::SIG_BLOCK);
    // SAFETY: signals this very thread.
    unsafe { libc::pthread_kill(libc::pthread_self(), kick_signal()) };
    let interrupted = fd.run().is_err();
    // SAFETY: the sets and times are plain data, valid during the calls.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, kick_signal());
        let now: libc::timespec = std::mem::zeroed();
        libc::sigtimedwait(&raw const set, std::ptr::null_mut(), &raw const now);
    }
    block_kick(libc::SIG_UNBLOCK);
    if !interrupted {
        return None;
    }
    // An exception would be the #DB of a step.
    event(cpu, &fd.get_vcpu_events().ok()?).filter(|e| e.interrupt)
}

/// Where KVM was entered, to execute one instruction or to wait for an interrupt.
#[derive(Clone, Copy)]
pub(super) struct Entered {
    rip: u64,
    rsp: u64,
    cs: u16,
    rflags: u64,
}

impl Entered {
    pub fn at(c: &Cpu) -> Self {
        Self { rip: c.rip, rsp: c.regs[4], cs: c.segs[sreg::CS].sel, rflags: c.rflags() }
    }

    /// KVM makes the processor trap after an instruction by the trap flag, which an interrupt pushes with the others:
    /// takes it out of the frame again.
    pub fn clean_frame(&self, c: &mut Cpu, bus: &AssistBus) {
        if self.rflags & rflags::TF != 0 || self.rflags & rflags::IF == 0 {
            return;
        }
        let prot = c.protected();
        let size: u64 = if c.lma() {
            8
        } else if prot {
            4
        } else {
            2
        };
        // SS and RSP come first in long mode, where the frame is aligned.
        let top = if size == 8 { (self.rsp & !15) - 16 } else { self.rsp };
        let mask = match size {
            8 => u64::MAX,
            4 => 0xffff_ffff,
            _ => 0xffff,
        };
        let base = if size == 8 { 0 } else { c.segs[sreg::SS].base };
        let at = |n: u64| base.wrapping_add(top.wrapping_sub(size * n) & mask);
        let (flags, cs, ip) = (at(1), at(2), at(3));
        let read = |c: &mut Cpu, a| c.peek(bus, a, size as usize);
        let pushed = read(c, flags);
        let trap = pushed.is_some_and(|f| f & rflags::TF != 0);
        let ours = read(c, cs).map(|v| v & 0xffff) == Some(u64::from(self.cs))
            && read(c, ip) == Some(self.rip & mask);
        if let (true, true, Some(f)) = (trap, ours, pushed) {
            c.poke(bus, flags, size as usize, f & !rflags::TF);
        }
    }
}

impl AssistBus {
    /// Remembers what the vCPU's registers say of its APIC.
    pub(super) fn set_apic(&self, page: u64, cr8: u64) {
        self.apic.store(page, Ordering::Relaxed);
        self.cr8.store(cr8, Ordering::Relaxed);
    }
}
