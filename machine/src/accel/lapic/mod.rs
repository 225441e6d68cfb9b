//! Local APICs in user space, and the bus between them: for the software CPU and for KVM without its own.
//!
//! Any thread may send messages; each APIC has a lock of its own, and what a running processor looks at is one atomic
//! word. No lock here is held while another is taken, so the machine lock may be held by callers.
//!
//! Specification: Intel SDM volume 3, chapter "Advanced Programmable Interrupt Controller". One tick of the timer's
//! undivided clock is a nanosecond. Left out: thermal and performance interrupts (nothing raises them).
//! Tested: unit tests here; guests on both accelerators.

mod regs;
mod timer;
mod vector;

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};

use self::regs::{base, delivery, Action};
use super::MsiMessage;
use crate::clock::VirtualClock;
use crate::{qerr, QResult};

pub use regs::Lapic;
use timer::Deadlines;

/// First MSR of the x2APIC registers.
pub const MSR_X2APIC: u32 = 0x800;
/// The last one.
pub const MSR_X2APIC_LAST: u32 = 0x8ff;

/// What waits for a processor.
pub mod pending {
    /// The APIC has a vector to serve.
    pub const APIC: u32 = 1;
    /// The 8259 has one.
    pub const PIC: u32 = 2;
    /// Non-maskable interrupt.
    pub const NMI: u32 = 4;
    /// System management interrupt.
    pub const SMI: u32 = 8;
    /// INIT.
    pub const INIT: u32 = 0x10;
    /// Start-up message; the vector is in bits 8-15.
    pub const SIPI: u32 = 0x20;
    /// Where the start-up vector is.
    pub const SIPI_VECTOR: u32 = 8;
    /// What ends a HLT with interrupts off.
    pub const UNMASKABLE: u32 = NMI | SMI | INIT | SIPI;
}

/// Makes a running processor look at its pending word, in which these bits are new.
pub type Kick = Box<dyn Fn(u32) + Send + Sync>;

struct Cell {
    apic: Mutex<Lapic>,
    pending: AtomicU32,
    /// Physical page of the registers; `u64::MAX` if they are not in memory.
    page: AtomicU64,
    halted: AtomicBool,
    park: Mutex<()>,
    wake: Condvar,
    kick: OnceLock<Kick>,
}

impl Cell {
    fn new(id: u32, boot: bool) -> Self {
        Self {
            apic: Mutex::new(Lapic::new(id, boot)),
            pending: AtomicU32::new(0),
            page: AtomicU64::new(base::RESET & base::ADDR),
            halted: AtomicBool::new(false),
            park: Mutex::new(()),
            wake: Condvar::new(),
            kick: OnceLock::new(),
        }
    }

    /// Sets and clears pending bits; wakes the processor if there is something new.
    fn change(&self, set: u32, clear: u32) {
        if clear != 0 {
            self.pending.fetch_and(!clear, Ordering::SeqCst);
        }
        if set != 0 && self.pending.fetch_or(set, Ordering::SeqCst) & set != set {
            let asleep = self.wake();
            if let Some(kick) = self.kick.get().filter(|_| !asleep) {
                kick(set);
            }
        }
    }

    /// Wakes the processor if it sleeps.
    fn wake(&self) -> bool {
        let asleep = self.halted.load(Ordering::SeqCst);
        if asleep {
            let _guard = self.park.lock();
            self.wake.notify_all();
        }
        asleep
    }
}

/// All local APICs of a machine.
pub struct ApicBus {
    cells: Vec<Cell>,
    /// Request line of the 8259.
    pic: AtomicBool,
    /// The boot processor's A20 line.
    a20: AtomicBool,
    /// Who got the last lowest-priority message.
    last: AtomicUsize,
    clock: Arc<VirtualClock>,
    deadlines: Deadlines,
}

impl ApicBus {
    /// APICs with these ids; the first is the boot processor's.
    pub fn new(ids: &[u32], clock: Arc<VirtualClock>) -> Arc<Self> {
        Arc::new(Self {
            cells: ids.iter().enumerate().map(|(i, id)| Cell::new(*id, i == 0)).collect(),
            pic: AtomicBool::new(false),
            a20: AtomicBool::new(true),
            last: AtomicUsize::new(0),
            clock,
            deadlines: Deadlines::new(ids.len()),
        })
    }

    /// How to make processor `index` look at its pending word while it runs.
    pub fn set_kick(&self, index: usize, kick: Kick) {
        if let Some(c) = self.cells.get(index) {
            // A second one has no effect: there is one thread a processor.
            let _ = c.kick.set(kick);
        }
    }

    /// Power-on state of all of them.
    pub fn reset(&self) {
        for (i, c) in self.cells.iter().enumerate() {
            {
                let mut a = c.apic.lock();
                *a = Lapic::new(a.id, i == 0);
                c.page.store(a.base & base::ADDR, Ordering::SeqCst);
            }
            c.pending.store(0, Ordering::SeqCst);
            self.set_a20(true);
            self.rearm(i);
            self.refresh(i);
        }
    }

    /// What an INIT does to the APIC of processor `index`.
    pub fn init(&self, index: usize) {
        if let Some(c) = self.cells.get(index) {
            c.apic.lock().init();
            c.change(0, pending::INIT | pending::NMI | pending::SMI);
            self.rearm(index);
            self.refresh(index);
        }
    }

    /// The pending word of a processor.
    pub fn pending(&self, index: usize) -> u32 {
        self.cells.get(index).map_or(0, |c| c.pending.load(Ordering::SeqCst))
    }

    /// Takes pending bits; what was there is returned.
    pub fn take(&self, index: usize, bits: u32) -> u32 {
        self.cells.get(index).map_or(0, |c| c.pending.fetch_and(!bits, Ordering::SeqCst) & bits)
    }

    /// Recomputes what waits for a processor.
    fn refresh(&self, index: usize) {
        let Some(c) = self.cells.get(index) else { return };
        let a = c.apic.lock();
        let apic = a.deliverable().is_some();
        let pic = index == 0 && self.pic.load(Ordering::SeqCst) && a.accepts_pic();
        // Still under the lock: a later state must not be overwritten by an earlier one.
        let set = if apic { pending::APIC } else { 0 } | if pic { pending::PIC } else { 0 };
        c.change(set, (pending::APIC | pending::PIC) & !set);
    }

    /// The 8259's request line.
    pub fn set_pic(&self, level: bool) {
        if self.pic.swap(level, Ordering::SeqCst) != level {
            self.refresh(0);
        }
    }

    /// Whether the boot processor drives address line 20.
    pub fn a20(&self) -> bool {
        self.a20.load(Ordering::Relaxed)
    }

    /// Masks or unmasks address line 20 of the boot processor.
    pub fn set_a20(&self, on: bool) {
        self.a20.store(on, Ordering::SeqCst);
    }

    /// Vector that the processor takes now; `None` if none is left (then it is spurious or the 8259's).
    pub fn acknowledge(&self, index: usize) -> Option<u8> {
        let v = self.cells.get(index)?.apic.lock().acknowledge();
        self.refresh(index);
        v
    }

    // ---- messages --------------------------------------------------------------------------------------------

    /// A device or the I/O APIC sends a message.
    pub fn msi(&self, m: MsiMessage) {
        let (dest, logical) = ((m.addr >> 12 & 0xff) as u32, m.addr & 4 != 0);
        let (mode, level) = (m.data >> 8 & 7, m.data & 1 << 15 != 0);
        self.deliver(|i| self.matches(i, dest, logical, false), mode, m.data as u8, level);
    }

    /// Whether a message to `dest` is for processor `index`.
    fn matches(&self, index: usize, dest: u32, logical: bool, x2: bool) -> bool {
        let a = self.cells[index].apic.lock();
        a.enabled() && a.matches(dest, logical, x2)
    }

    fn ipi(&self, from: usize, icr: u64) {
        let (x2, id) = {
            let a = self.cells[from].apic.lock();
            (a.x2apic(), a.id)
        };
        let low = icr as u32;
        let (mode, level, assert) = (low >> 8 & 7, low & 1 << 15 != 0, low & 1 << 14 != 0);
        if mode == delivery::INIT && level && !assert {
            // Only synchronises arbitration ids, which nothing uses any more.
            return;
        }
        let (dest, logical) = (if x2 { icr >> 32 } else { icr >> 56 }, low & 1 << 11 != 0);
        let shorthand = low >> 18 & 3;
        let wanted = |i: usize| match shorthand {
            0 => self.matches(i, dest as u32, logical, x2),
            1 => self.matches(i, id, false, x2),
            2 => true,
            _ => i != from,
        };
        self.deliver(wanted, mode, low as u8, level);
    }

    /// Delivers to the processors that `wanted` names.
    fn deliver(&self, wanted: impl Fn(usize) -> bool, mode: u32, vector: u8, level: bool) {
        let targets = || (0..self.cells.len()).filter(|i| wanted(*i));
        let (set, clear) = match mode {
            delivery::LOWEST => {
                if let Some(i) = self.least_busy(targets()) {
                    self.accept(i, vector, level);
                }
                return;
            }
            delivery::FIXED => return targets().for_each(|i| self.accept(i, vector, level)),
            delivery::SMI => (pending::SMI, 0),
            delivery::NMI => (pending::NMI, 0),
            delivery::INIT => (pending::INIT, 0),
            delivery::SIPI => {
                let bits = pending::SIPI | u32::from(vector) << pending::SIPI_VECTOR;
                (bits, 0xff << pending::SIPI_VECTOR & !bits)
            }
            // An external interrupt comes over the 8259's own line; the last mode is reserved.
            _ => return,
        };
        targets().for_each(|i| self.cells[i].change(set, clear));
    }

    fn accept(&self, index: usize, vector: u8, level: bool) {
        self.cells[index].apic.lock().accept(vector, level);
        self.refresh(index);
    }

    /// The target of lowest priority, in turn among equals.
    fn least_busy(&self, targets: impl Iterator<Item = usize>) -> Option<usize> {
        let last = self.last.load(Ordering::Relaxed);
        let n = self.cells.len();
        let best = targets
            .min_by_key(|i| (self.cells[*i].apic.lock().ppr() >> 4, (*i + n - last - 1) % n.max(1)))?;
        self.last.store(best, Ordering::Relaxed);
        Some(best)
    }

    /// The non-maskable interrupt line of PCs: LINT1 of every processor.
    pub fn nmi(&self, index: usize) -> bool {
        let Some(c) = self.cells.get(index) else { return false };
        if c.apic.lock().accepts_nmi() {
            c.change(pending::NMI, 0);
        }
        true
    }

    /// A system management interrupt from the board.
    pub fn smi(&self, index: usize) {
        if let Some(c) = self.cells.get(index) {
            c.change(pending::SMI, 0);
        }
    }

    // ---- registers -------------------------------------------------------------------------------------------

    /// Physical page of a processor's registers (`u64::MAX`: not in memory).
    pub fn page(&self, index: usize) -> u64 {
        self.cells.get(index).map_or(u64::MAX, |c| c.page.load(Ordering::Relaxed))
    }

    /// The processor reads its register page. Only aligned 32-bit accesses are defined.
    pub fn read(&self, index: usize, offset: u32) -> u32 {
        let now = self.clock.now();
        self.cells.get(index).map_or(0, |c| c.apic.lock().read(offset & 0xff0, now))
    }

    /// The processor writes its register page. Returns the vector whose level interrupt ended, for the I/O APIC.
    #[must_use]
    pub fn write(&self, index: usize, offset: u32, value: u32) -> Option<u8> {
        let now = self.clock.now();
        let action = self.cells.get(index)?.apic.lock().write(offset & 0xff0, value, now);
        self.act(index, action)
    }

    /// An access of any size to the register page; only aligned ones of 32 bits have an effect. Returns what
    /// [`Self::write`] does.
    #[must_use]
    pub fn access(&self, index: usize, offset: u32, data: &mut [u8], write: bool) -> Option<u8> {
        let aligned = offset & 15 == 0;
        match (<[u8; 4]>::try_from(&*data), write) {
            (Ok(bytes), true) if aligned => self.write(index, offset, u32::from_le_bytes(bytes)),
            (_, true) => None,
            _ => {
                // Parts of a register can be read, which is what loads of a byte do.
                let value = self.read(index, offset & !15).to_le_bytes();
                for (i, b) in data.iter_mut().enumerate() {
                    *b = value.get((offset & 15) as usize + i).copied().unwrap_or(0);
                }
                None
            }
        }
    }

    fn act(&self, index: usize, action: Action) -> Option<u8> {
        let mut ended = None;
        match action {
            Action::None => {}
            Action::Ipi(icr) => self.ipi(index, icr),
            Action::Eoi(v) => ended = Some(v),
            Action::Timer => self.rearm(index),
        }
        self.refresh(index);
        ended
    }

    fn rearm(&self, index: usize) {
        // Under the lock: an expiry read before the processor set its timer anew must not replace the later one.
        let a = self.cells[index].apic.lock();
        self.deadlines.set(index, a.expiry);
    }

    /// `IA32_APIC_BASE`.
    pub fn base(&self, index: usize) -> u64 {
        self.cells.get(index).map_or(0, |c| c.apic.lock().base)
    }

    /// Writes `IA32_APIC_BASE`; `false` if the transition is not allowed (#GP).
    pub fn set_base(&self, index: usize, value: u64, x2apic: bool) -> bool {
        let Some(c) = self.cells.get(index) else { return false };
        {
            let mut a = c.apic.lock();
            let (was, is) = (a.base & (base::ENABLE | base::X2APIC), value & (base::ENABLE | base::X2APIC));
            let bad = is == base::X2APIC
                || is & base::X2APIC != 0 && (!x2apic || was == 0)
                || is == base::ENABLE && was & base::X2APIC != 0;
            let known = base::ADDR | base::BSP | base::ENABLE | base::X2APIC;
            if value & !known != 0 || bad {
                return false;
            }
            if is & base::ENABLE == 0 && was & base::ENABLE != 0 {
                a.init();
            }
            a.base = value & !base::BSP | a.base & base::BSP;
            let in_memory = is == base::ENABLE;
            c.page.store(if in_memory { value & base::ADDR } else { u64::MAX }, Ordering::SeqCst);
        }
        self.rearm(index);
        self.refresh(index);
        true
    }

    /// Task priority class, as CR8 shows it.
    pub fn cr8(&self, index: usize) -> u64 {
        self.cells.get(index).map_or(0, |c| u64::from(c.apic.lock().tpr >> 4))
    }

    /// Writes CR8.
    pub fn set_cr8(&self, index: usize, value: u64) {
        if let Some(c) = self.cells.get(index) {
            c.apic.lock().tpr = (value as u32 & 0xf) << 4;
            self.refresh(index);
        }
    }

    /// Reads an x2APIC register; `None`: #GP.
    pub fn msr_read(&self, index: usize, msr: u32) -> Option<u64> {
        let offset = x2apic_offset(msr)?;
        let now = self.clock.now();
        let mut a = self.cells.get(index)?.apic.lock();
        if !a.x2apic() || offset == regs::reg::DFR || offset == regs::reg::ICR_HIGH {
            return None;
        }
        Some(if offset == regs::reg::ICR { a.icr() } else { u64::from(a.read(offset, now)) })
    }

    /// Writes an x2APIC register; `None`: #GP, else what [`Self::write`] returns.
    pub fn msr_write(&self, index: usize, msr: u32, value: u64) -> Option<Option<u8>> {
        let offset = x2apic_offset(msr)?;
        let now = self.clock.now();
        let action = {
            let mut a = self.cells.get(index)?.apic.lock();
            let read_only = [regs::reg::ID, regs::reg::LDR, regs::reg::DFR, regs::reg::ICR_HIGH];
            let is_icr = offset == regs::reg::ICR;
            if !a.x2apic() || read_only.contains(&offset) || !is_icr && value >> 32 != 0 {
                return None;
            }
            if is_icr {
                a.write_icr(value)
            } else {
                a.write(offset, value as u32, now)
            }
        };
        Some(self.act(index, action))
    }

    /// `IA32_TSC_DEADLINE`.
    pub fn tsc_deadline(&self, index: usize) -> u64 {
        self.cells.get(index).map_or(0, |c| c.apic.lock().tsc_deadline())
    }

    /// Writes `IA32_TSC_DEADLINE`; `in_ns` is how far away that time stamp is.
    pub fn set_tsc_deadline(&self, index: usize, tsc: u64, in_ns: i64) {
        let at = self.clock.now().saturating_add(in_ns);
        let Some(c) = self.cells.get(index) else { return };
        let action = c.apic.lock().set_tsc_deadline(tsc, at);
        let _ = self.act(index, action);
    }

    /// A copy of one APIC's state.
    pub fn snapshot(&self, index: usize) -> Option<Lapic> {
        self.cells.get(index).map(|c| c.apic.lock().clone())
    }

    // ---- sleeping --------------------------------------------------------------------------------------------

    /// Sleeps until one of the `mask` bits is pending or `stop` says so ([`Self::wake`] makes it look).
    pub fn halt(&self, index: usize, mask: u32, stop: impl Fn() -> bool) {
        let Some(c) = self.cells.get(index) else { return };
        let mut guard = c.park.lock();
        c.halted.store(true, Ordering::SeqCst);
        while c.pending.load(Ordering::SeqCst) & mask == 0 && !stop() {
            c.wake.wait(&mut guard);
        }
        c.halted.store(false, Ordering::SeqCst);
    }

    /// Makes a sleeping processor look at `stop` again.
    pub fn wake(&self, index: usize) {
        if let Some(c) = self.cells.get(index) {
            c.wake();
        }
    }

    // ---- timers ----------------------------------------------------------------------------------------------

    /// The virtual clock was stopped or goes on.
    pub fn clock_changed(&self) {
        self.deadlines.look();
    }

    /// Starts the thread that serves the timers until [`Self::stop_timers`].
    ///
    /// # Errors
    /// No thread can be made.
    pub fn spawn_timers(self: &Arc<Self>) -> QResult<JoinHandle<()>> {
        let bus = self.clone();
        std::thread::Builder::new()
            .name("APIC timers".into())
            .stack_size(64 << 10)
            .spawn(move || bus.run_timers())
            .map_err(|e| qerr!("cannot start thread: {}", crate::error::strerror(&e)))
    }

    /// Serves the timers until [`Self::stop_timers`].
    fn run_timers(&self) {
        while let Some(due) = self.deadlines.wait(&self.clock) {
            for i in due {
                let now = self.clock.now();
                self.cells[i].apic.lock().expire(now);
                self.rearm(i);
                self.refresh(i);
            }
        }
    }

    /// Ends [`Self::run_timers`].
    pub fn stop_timers(&self) {
        self.deadlines.close();
    }
}

fn x2apic_offset(msr: u32) -> Option<u32> {
    (MSR_X2APIC..=MSR_X2APIC_LAST).contains(&msr).then(|| (msr - MSR_X2APIC) << 4)
}
