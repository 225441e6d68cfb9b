//! The block loop, single step, and events between blocks.

use crate::block::Block;
use crate::bus::{Bus, Request, RunControl};
use crate::cpu::{mode, Cpu, Exit};
use crate::exec::Next;
use crate::fault::{Exception, Fault};
use crate::seg::intr::Source;
use crate::state::rflags;

/// How many blocks may follow each other by tail calls before the loop gets control again: bounds the stack should a
/// compiler not turn those calls into jumps.
const CHAIN_BUDGET: u32 = 64;

impl Cpu {
    /// Runs until something is to be done outside. Re-enter to continue; the state is consistent in between.
    pub fn run(&mut self, bus: &dyn Bus) -> Exit {
        // SAFETY: the reference is dropped from `self` before this function returns, so it never outlives `bus`.
        self.bus = Some(unsafe { std::mem::transmute::<&dyn Bus, &'static dyn Bus>(bus) });
        crate::fp::clean_host();
        let r = self.run_inner();
        let _ = self.mxcsr_now();
        self.bus = None;
        r
    }

    /// Runs `f` with the bus attached, for state changes outside of [`Cpu::run`] that access memory.
    pub fn with_bus<T>(&mut self, bus: &dyn Bus, f: impl FnOnce(&mut Self) -> T) -> T {
        // SAFETY: as in `run`.
        self.bus = Some(unsafe { std::mem::transmute::<&dyn Bus, &'static dyn Bus>(bus) });
        let r = f(self);
        self.bus = None;
        r
    }

    /// Executes one instruction (after pending events), whatever is requested: for gdbstub and for helping KVM out.
    /// `None` when it completed normally.
    pub fn step_one(&mut self, bus: &dyn Bus) -> Option<Exit> {
        self.with_bus(bus, |cpu| {
            crate::fp::clean_host();
            if !cpu.step() {
                return Some(Exit::Shutdown);
            }
            cpu.exit.take()
        })
    }

    fn run_inner(&mut self) -> Exit {
        let ctl = self.ctl.clone();
        loop {
            if let Some(e) = self.events(&ctl) {
                return e;
            }
            let inhibit = std::mem::take(&mut self.inhibit);
            if self.rf & rflags::TF != 0 || self.breaks_on_code() {
                if !self.step() {
                    return Exit::Shutdown;
                }
                continue;
            }
            let fine = if inhibit { self.one_instruction() } else { self.blocks(&ctl) };
            if !fine {
                return Exit::Shutdown;
            }
        }
    }

    /// Runs blocks until something needs a look. False: triple fault.
    fn blocks(&mut self, ctl: &RunControl) -> bool {
        self.rf &= !rflags::RF;
        let mut found = self.find_block();
        loop {
            let b = match found {
                Ok(b) => b,
                Err(Fault) => {
                    self.blk = std::ptr::null();
                    return self.deliver_fault();
                }
            };
            // SAFETY: blocks live until the cache is cleared, which only happens while looking up.
            let block: &Block = unsafe { &*b };
            self.blk = b;
            self.icount += block.count as u64;
            self.budget = CHAIN_BUDGET;
            // SAFETY: a block has at least one operation and its last one ends the block.
            let op = unsafe { &*block.ops };
            let r = (op.f)(self, op);
            match r {
                Next::Taken | Next::Through => {
                    if ctl.any() || self.icount >= self.stop_at {
                        return true;
                    }
                    found = self.chained(r as usize);
                }
                Next::Indirect => {
                    if ctl.any() || self.icount >= self.stop_at {
                        return true;
                    }
                    found = self.find_block();
                }
                Next::Recheck => return true,
                Next::Fault => {
                    if self.exc.vector == Exception::RETRY {
                        return self.step();
                    }
                    return self.deliver_fault();
                }
            }
        }
    }

    /// Executes one instruction from the cache, after which events are looked at again. False: triple fault.
    fn one_instruction(&mut self) -> bool {
        self.rf &= !rflags::RF;
        self.mode |= mode::SINGLE;
        let found = self.find_block();
        self.mode &= !mode::SINGLE;
        let Ok(b) = found else {
            self.blk = std::ptr::null();
            return self.deliver_fault();
        };
        self.blk = b;
        // No other block may follow.
        self.budget = 0;
        // SAFETY: as in `blocks`.
        let (count, op) = unsafe { ((*b).count, &*(*b).ops) };
        self.icount += u64::from(count);
        if (op.f)(self, op) != Next::Fault {
            return true;
        }
        if self.exc.vector == Exception::RETRY {
            return self.step();
        }
        self.deliver_fault()
    }

    /// Executes exactly one instruction. False: triple fault.
    pub(crate) fn step(&mut self) -> bool {
        let tf = self.rf & rflags::TF != 0;
        if self.rf & rflags::RF == 0 && self.code_breakpoint() {
            self.exc = Exception::new(Exception::DB);
            return self.deliver_fault();
        }
        // It covers one instruction; IRET may set it for the next.
        self.rf &= !rflags::RF;
        self.skip_trap = false;
        self.stepping = true;
        self.budget = 0;
        let r = match self.decode_single() {
            Ok(b) => {
                self.blk = b;
                self.icount += 1;
                // SAFETY: the scratch block is valid until the next `decode_single`.
                let op = unsafe { &*(*b).ops };
                (op.f)(self, op)
            }
            Err(Fault) => {
                self.blk = std::ptr::null();
                Next::Fault
            }
        };
        self.stepping = false;
        if r == Next::Fault {
            // The instruction will be tried again.
            self.watch_hits = 0;
            return self.deliver_fault();
        }
        if tf && self.exit.is_none() && !self.skip_trap {
            self.dr[6] |= 1 << 14 | u64::from(std::mem::take(&mut self.watch_hits));
            return self.deliver(Source::Trap, Exception::new(Exception::DB));
        }
        true
    }

    /// Delivers `self.exc` as a fault. False: triple fault.
    fn deliver_fault(&mut self) -> bool {
        if matches!(self.exc.vector, Exception::LEAVE | Exception::STOP) {
            self.blk = std::ptr::null();
            self.exit = Some(if self.exc.vector == Exception::LEAVE { Exit::Leave } else { Exit::Debug });
            return true;
        }
        self.deliver(Source::Fault, self.exc)
    }

    /// Handles requests; `Some` leaves `run`.
    fn events(&mut self, ctl: &RunControl) -> Option<Exit> {
        if let Some(e) = self.exit.take() {
            return Some(e);
        }
        if self.icount >= self.stop_at {
            return Some(Exit::Interrupted);
        }
        if ctl.any() {
            let bits = ctl.take();
            if bits & Request::FLUSH_TLB != 0 {
                self.flush_tlb_all();
            }
            if bits & Request::FLUSH_WRITES != 0 {
                self.xlat.protect_coded(&self.code);
            }
            if bits & Request::CODE_CHANGED != 0 {
                self.bump();
            }
            self.nmi_pending |= bits & Request::NMI != 0;
            self.smi_pending |= bits & Request::SMI != 0;
            self.intr |= bits & Request::INTR != 0;
            if bits & Request::EXIT != 0 {
                return Some(Exit::Interrupted);
            }
        }
        if self.inhibit {
            return None;
        }
        if self.watch_hits != 0 {
            self.dr[6] |= u64::from(std::mem::take(&mut self.watch_hits));
            if !self.deliver(Source::Trap, Exception::new(Exception::DB)) {
                return Some(Exit::Shutdown);
            }
        }
        if self.smi_pending && !self.smm {
            self.smi_pending = false;
            self.halted = false;
            self.enter_smm();
            return None;
        }
        if self.nmi_pending && !self.nmi_masked {
            self.nmi_pending = false;
            self.nmi_masked = true;
            self.halted = false;
            if !self.deliver(Source::Interrupt, Exception::new(2)) {
                return Some(Exit::Shutdown);
            }
            return None;
        }
        if self.intr && self.rf & rflags::IF != 0 {
            match self.bus().take_interrupt(self.id) {
                Some(v) => {
                    self.halted = false;
                    if !self.deliver(Source::Interrupt, Exception::new(v)) {
                        return Some(Exit::Shutdown);
                    }
                }
                None => self.intr = false,
            }
        }
        self.halted.then_some(Exit::Hlt)
    }
}
