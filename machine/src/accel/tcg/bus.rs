//! The machine as one software processor sees it.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rqemu_x86::bus::{Bus, Page};

use crate::accel::lapic::{pending, ApicBus, MSR_X2APIC, MSR_X2APIC_LAST};
use crate::memory::{access, FlatMaps, FlatView, Space};
use crate::shared::Shared;

const PAGE: u64 = 4096;

const MSR_APIC_BASE: u32 = 0x1b;
const MSR_TSC_DEADLINE: u32 = 0x6e0;

/// The time stamp counters: the host's own, less the time that the guest was stopped. One word: the offset while they
/// run, the value while they stand.
pub struct Tsc {
    offset: AtomicI64,
    stopped_at: AtomicI64,
}

/// Value of `stopped_at` while the counters run.
const RUNS: i64 = i64::MIN;

impl Tsc {
    /// Counters at zero, standing.
    pub fn new() -> Self {
        Self { offset: AtomicI64::new(0), stopped_at: AtomicI64::new(0) }
    }

    fn host() -> i64 {
        // SAFETY: every x86-64 processor has the instruction.
        unsafe { core::arch::x86_64::_rdtsc() as i64 }
    }

    /// Ticks.
    #[inline]
    pub fn now(&self) -> u64 {
        match self.stopped_at.load(Ordering::Relaxed) {
            RUNS => Self::host().wrapping_add(self.offset.load(Ordering::Relaxed)) as u64,
            at => at as u64,
        }
    }

    /// Lets them run or stand (with the machine lock held).
    pub fn set_running(&self, run: bool) {
        let at = self.stopped_at.load(Ordering::SeqCst);
        if run && at != RUNS {
            self.offset.store(at.wrapping_sub(Self::host()), Ordering::SeqCst);
            self.stopped_at.store(RUNS, Ordering::SeqCst);
        } else if !run && at == RUNS {
            self.stopped_at.store(self.now() as i64, Ordering::SeqCst);
        }
    }
}

/// The bus of one processor.
pub struct GuestBus {
    index: usize,
    shared: Arc<Shared>,
    apics: Arc<ApicBus>,
    tsc: Arc<Tsc>,
    /// The map that this processor's translations point into; keeps its memory alive.
    maps: ArcSwap<FlatMaps>,
    /// Registers of the CPU model that never change.
    msrs: Vec<(u32, u64)>,
    /// In system management mode.
    smm: AtomicBool,
}

impl GuestBus {
    /// The bus of processor `index`.
    pub fn new(
        index: usize,
        shared: Arc<Shared>,
        apics: Arc<ApicBus>,
        tsc: Arc<Tsc>,
        msrs: Vec<(u32, u64)>,
    ) -> Self {
        let maps = ArcSwap::new(shared.maps.load_full());
        Self { index, shared, apics, tsc, maps, msrs, smm: AtomicBool::new(false) }
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

    fn in_smm(&self) -> bool {
        self.smm.load(Ordering::Relaxed)
    }

    fn ended(&self, vector: Option<u8>) {
        if let Some(v) = vector {
            self.shared.lock().end_of_interrupt(v);
        }
    }
}

/// What lies behind a page of guest memory.
pub fn memory_page(maps: &FlatMaps, addr: u64) -> Page {
    page_of(&maps.mem, addr)
}

fn page_of(mem: &FlatView, addr: u64) -> Page {
    let Some(r) = mem.find(addr) else { return Page::Mmio };
    let Some((block, readonly)) = r.kind.memory() else { return Page::Mmio };
    let offset = r.offset + (addr - r.start);
    // A part of a page, or one that the host's pages do not match, goes the slow way.
    if r.last - addr < PAGE - 1 || !offset.is_multiple_of(PAGE) || offset + PAGE > block.len() {
        return Page::Mmio;
    }
    // SAFETY: the whole page lies inside the block, as just checked.
    let host = unsafe { block.host().add(offset as usize) };
    if readonly {
        Page::Rom(host)
    } else {
        Page::Ram(host)
    }
}

impl Bus for GuestBus {
    fn page(&self, addr: u64, _write: bool) -> Page {
        if addr == self.apics.page(self.index) {
            return Page::Mmio;
        }
        page_of(self.maps.load().memory(self.in_smm()), addr)
    }

    fn mmio_read(&self, addr: u64, size: u8) -> u64 {
        let mut buf = [0u8; 8];
        let data = &mut buf[..usize::from(size.min(8))];
        if addr & !(PAGE - 1) == self.apics.page(self.index) {
            let _ = self.apics.access(self.index, (addr & (PAGE - 1)) as u32, data, false);
        } else {
            let (maps, smm) = (self.maps.load(), self.in_smm());
            access::read_view(maps.memory(smm), Space::Memory, addr, data, &mut self.shared.caller(smm));
        }
        u64::from_le_bytes(buf)
    }

    fn mmio_write(&self, addr: u64, size: u8, value: u64) {
        let mut buf = value.to_le_bytes();
        let data = &mut buf[..usize::from(size.min(8))];
        if addr & !(PAGE - 1) == self.apics.page(self.index) {
            let ended = self.apics.access(self.index, (addr & (PAGE - 1)) as u32, data, true);
            self.ended(ended);
        } else {
            let (maps, smm) = (self.maps.load(), self.in_smm());
            access::write_view(maps.memory(smm), Space::Memory, addr, data, &mut self.shared.caller(smm));
        }
    }

    fn port_in(&self, port: u16, size: u8) -> u32 {
        let mut buf = [0u8; 4];
        let data = &mut buf[..usize::from(size.min(4))];
        access::read(&self.maps.load(), Space::Io, u64::from(port), data, &mut &*self.shared);
        u32::from_le_bytes(buf)
    }

    fn port_out(&self, port: u16, size: u8, value: u32) {
        let data = &value.to_le_bytes()[..usize::from(size.min(4))];
        access::write(&self.maps.load(), Space::Io, u64::from(port), data, &mut &*self.shared);
    }

    fn take_interrupt(&self, _cpu: u32) -> Option<u8> {
        if let Some(v) = self.apics.acknowledge(self.index) {
            return Some(v);
        }
        let pic = self.apics.pending(self.index) & pending::PIC != 0;
        pic.then(|| self.shared.lock().acknowledge_pic())
    }

    fn a20_mask(&self) -> u64 {
        if self.index != 0 || self.apics.a20() {
            u64::MAX
        } else {
            !(1 << 20)
        }
    }

    fn tsc(&self) -> u64 {
        self.tsc.now()
    }

    fn msr_read(&self, _cpu: u32, index: u32) -> Option<u64> {
        match index {
            MSR_APIC_BASE => Some(self.apics.base(self.index)),
            MSR_X2APIC..=MSR_X2APIC_LAST => self.apics.msr_read(self.index, index),
            MSR_TSC_DEADLINE => Some(self.apics.tsc_deadline(self.index)),
            _ => self.msrs.iter().find(|m| m.0 == index).map(|m| m.1),
        }
    }

    fn msr_write(&self, _cpu: u32, index: u32, value: u64) -> bool {
        match index {
            // No model of this engine has x2APIC.
            MSR_APIC_BASE => self.apics.set_base(self.index, value, false),
            MSR_X2APIC..=MSR_X2APIC_LAST => match self.apics.msr_write(self.index, index, value) {
                Some(ended) => {
                    self.ended(ended);
                    true
                }
                None => false,
            },
            _ => self.msrs.iter().any(|m| m.0 == index),
        }
    }

    fn cr8(&self, _cpu: u32) -> u64 {
        self.apics.cr8(self.index)
    }

    fn set_cr8(&self, _cpu: u32, value: u64) {
        self.apics.set_cr8(self.index, value);
    }

    fn map_changed(&self) -> bool {
        self.refresh()
    }

    fn smm(&self, _cpu: u32, enter: bool) {
        self.smm.store(enter, Ordering::Relaxed);
    }

    fn ferr(&self) {
        let mut m = self.shared.lock();
        let line = m.isa_irq(13);
        m.set_irq(line, true);
        m.settle_if_idle();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_stamps_stand_while_stopped() {
        let t = Tsc::new();
        assert_eq!((t.now(), t.now()), (0, 0));
        t.set_running(true);
        let a = t.now();
        assert!(t.now() >= a && a < 1 << 40);
        t.set_running(false);
        let b = t.now();
        assert_eq!(t.now(), b);
        t.set_running(true);
        assert!(t.now() >= b);
    }
}
