//! Interrupts of KVM's controllers for a vCPU that the software CPU runs.

use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;
use std::time::Duration;

use kvm_ioctls::VcpuFd;
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

/// What [`take`] found.
pub(super) enum Taken {
    /// To be delivered.
    Event(Event),
    /// Nothing that the guest can take now.
    Nothing,
    /// KVM has executed some of the guest: its state is to be loaded anew.
    Moved,
}

/// Takes the interrupt that the guest (whose state was stored) can take now from its controller.
pub(super) fn take(cpu: &mut Cpu, fd: &mut VcpuFd, irqs: &UserIrqs, index: usize, shared: &Shared) -> Taken {
    if let UserIrqs::User(bus) = irqs {
        let outer = |vector| Taken::Event(Event { vector, error: None, interrupt: true });
        if bus.take(index, pending::NMI) != 0 {
            cpu.nmi_masked = true;
            return outer(2);
        }
        return match bus.acknowledge(index) {
            Some(v) => outer(v),
            None if bus.pending(index) & pending::PIC != 0 => outer(shared.lock().acknowledge_pic()),
            None => Taken::Nothing,
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
    if !interrupted || fd.get_regs().is_ok_and(|r| r.rip != cpu.rip) {
        return Taken::Moved;
    }
    let found = fd.get_vcpu_events().ok().and_then(|e| event(cpu, &e));
    match found.filter(|e| e.interrupt) {
        Some(e) => Taken::Event(e),
        None => Taken::Nothing,
    }
}

/// Waits, as HLT does, until `wanted` or a pause. KVM does not tell of its interrupts while the guest is not in it, so it is
/// asked again and again.
pub(super) fn wait(wanted: impl Fn() -> bool, pausing: impl Fn() -> bool) {
    const FIRST: Duration = Duration::from_micros(20);
    const LAST: Duration = Duration::from_micros(500);
    let mut nap = FIRST;
    while !wanted() && !pausing() {
        std::thread::sleep(nap);
        nap = (nap * 5 / 4).min(LAST);
    }
}

impl AssistBus {
    /// Remembers what the vCPU's registers say of its APIC.
    pub(super) fn set_apic(&self, page: u64, cr8: u64) {
        self.apic.store(page, Ordering::Relaxed);
        self.cr8.store(cr8, Ordering::Relaxed);
    }
}
