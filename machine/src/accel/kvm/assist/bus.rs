//! The machine as the software CPU sees it while it helps KVM out.

use std::sync::atomic::{AtomicU64, Ordering};
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
}

impl AssistBus {
    pub fn new(shared: Arc<Shared>, word: Arc<RunControl>) -> Self {
        let maps = ArcSwap::new(shared.maps.load_full());
        Self { shared, maps, word, apic: AtomicU64::new(u64::MAX), cr8: AtomicU64::new(0) }
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

    fn elsewhere(&self, addr: u64) -> bool {
        addr == self.apic.load(Ordering::Relaxed)
    }

    fn tsc(&self) -> u64 {
        // SAFETY: every x86-64 processor has the instruction.
        unsafe { core::arch::x86_64::_rdtsc() }
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
