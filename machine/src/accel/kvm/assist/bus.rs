//! The machine as the software CPU sees it while it helps KVM out.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rqemu_x86::bus::{Bus, Page, Request, RunControl};

use crate::accel::tcg::memory_page;
use crate::memory::{access, FlatMaps, Space};
use crate::shared::Shared;

/// What belongs to KVM's local APIC stays with KVM.
pub(super) struct AssistBus {
    shared: Arc<Shared>,
    maps: ArcSwap<FlatMaps>,
    /// Makes the processor look up.
    word: Arc<RunControl>,
    /// Page of the local APIC.
    pub apic: AtomicU64,
    /// Task priority.
    pub cr8: AtomicU64,
    /// KVM has all the interrupt controllers, and the timer.
    kernel_chips: bool,
    /// KVM's vCPU, whose other MSRs are used; its own thread runs this processor.
    vcpu: RawFd,
    /// One of those was written: the state is to be loaded anew.
    pub reload: AtomicBool,
}

/// `struct kvm_msrs` with one entry.
#[repr(C)]
struct OneMsr {
    count: u32,
    pad: u32,
    index: u32,
    reserved: u32,
    data: u64,
}

const KVM_GET_MSRS: libc::c_ulong = 0xc008_ae88;
const KVM_SET_MSRS: libc::c_ulong = 0x4008_ae89;

impl AssistBus {
    pub fn new(shared: Arc<Shared>, word: Arc<RunControl>, vcpu: RawFd, kernel_chips: bool) -> Self {
        let maps = ArcSwap::new(shared.maps.load_full());
        let (apic, cr8) = (AtomicU64::new(u64::MAX), AtomicU64::new(0));
        Self { shared, maps, word, apic, cr8, kernel_chips, vcpu, reload: AtomicBool::new(false) }
    }

    fn msr(&self, request: libc::c_ulong, index: u32, data: u64) -> Option<u64> {
        let mut m = OneMsr { count: 1, pad: 0, index, reserved: 0, data };
        // SAFETY: both requests read and write this structure, which has the one entry that it says.
        let done = unsafe { libc::ioctl(self.vcpu, request, &raw mut m) };
        (done == 1).then_some(m.data)
    }

    /// Takes the newest map. `true` if it is another one: then all translations must go.
    pub fn refresh(&self) -> bool {
        let newest = self.shared.maps.load();
        let stale = !Arc::ptr_eq(&newest, &self.maps.load());
        if stale {
            self.maps.store(newest.clone());
        }
        stale
    }

    /// After a device was accessed: it may have moved memory, or written code.
    fn accessed(&self) {
        let moved = !Arc::ptr_eq(&self.shared.maps.load(), &self.maps.load());
        self.word.request(if moved { Request::EXIT } else { Request::CODE_CHANGED });
    }
}

impl Bus for AssistBus {
    fn page(&self, addr: u64, _write: bool) -> Page {
        memory_page(&self.maps.load(), addr)
    }

    fn mmio_read(&self, addr: u64, size: u8) -> u64 {
        let mut buf = [0u8; 8];
        let data = &mut buf[..usize::from(size.min(8))];
        access::read(&self.maps.load(), Space::Memory, addr, data, &mut &*self.shared);
        self.accessed();
        u64::from_le_bytes(buf)
    }

    fn mmio_write(&self, addr: u64, size: u8, value: u64) {
        let data = &value.to_le_bytes()[..usize::from(size.min(8))];
        access::write(&self.maps.load(), Space::Memory, addr, data, &mut &*self.shared);
        self.accessed();
    }

    fn port_in(&self, port: u16, size: u8) -> u32 {
        let mut buf = [0u8; 4];
        let data = &mut buf[..usize::from(size.min(4))];
        access::read(&self.maps.load(), Space::Io, u64::from(port), data, &mut &*self.shared);
        self.accessed();
        u32::from_le_bytes(buf)
    }

    fn port_out(&self, port: u16, size: u8, value: u32) {
        let data = &value.to_le_bytes()[..usize::from(size.min(4))];
        access::write(&self.maps.load(), Space::Io, u64::from(port), data, &mut &*self.shared);
        self.accessed();
    }

    fn take_interrupt(&self, _cpu: u32) -> Option<u8> {
        None
    }

    fn map_changed(&self) -> bool {
        self.refresh()
    }

    fn elsewhere(&self, addr: u64) -> bool {
        const IOAPIC: u64 = 0xfec0_0000;
        addr == self.apic.load(Ordering::Relaxed) || self.kernel_chips && addr == IOAPIC
    }

    fn port_elsewhere(&self, port: u16) -> bool {
        // The two 8259, the 8254 and its gate, and the triggers of interrupts.
        self.kernel_chips && matches!(port, 0x20 | 0x21 | 0xa0 | 0xa1 | 0x40..=0x43 | 0x61 | 0x4d0 | 0x4d1)
    }

    fn tsc(&self) -> u64 {
        // SAFETY: every x86-64 processor has the instruction.
        unsafe { core::arch::x86_64::_rdtsc() }
    }

    fn msr_read(&self, _cpu: u32, index: u32) -> Option<u64> {
        self.msr(KVM_GET_MSRS, index, 0)
    }

    fn msr_write(&self, _cpu: u32, index: u32, value: u64) -> bool {
        let done = self.msr(KVM_SET_MSRS, index, value).is_some();
        // Those of the x2APIC and its timer change nothing that is carried.
        if !matches!(index, 0x6e0 | 0x800..=0x8ff) {
            self.reload.store(true, Ordering::Relaxed);
        }
        self.word.request(Request::EXIT);
        done
    }

    fn cr8(&self, _cpu: u32) -> u64 {
        self.cr8.load(Ordering::Relaxed)
    }

    fn set_cr8(&self, _cpu: u32, value: u64) {
        self.cr8.store(value, Ordering::Relaxed);
        // KVM may have an interrupt that this lets in.
        self.word.request(Request::EXIT);
    }
}
