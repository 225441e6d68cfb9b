//! A vCPU thread of the software CPU.

use std::sync::Arc;

use rqemu_x86::bus::Request;
use rqemu_x86::cpu::Exit;
use rqemu_x86::Cpu;

use super::bus::GuestBus;
use super::regs;
use crate::accel::lapic::{pending, ApicBus};
use crate::accel::Activity;
use crate::cpu::BootRegs;
use crate::run::Cause;
use crate::shared::Shared;

/// A vCPU as its thread owns it.
pub struct TcgVcpu {
    index: usize,
    /// The processor.
    pub cpu: Box<Cpu>,
    bus: Arc<GuestBus>,
    shared: Arc<Shared>,
    apics: Arc<ApicBus>,
    activity: Activity,
}

impl TcgVcpu {
    /// Wraps a processor.
    pub fn new(index: usize, cpu: Cpu, bus: GuestBus, shared: Arc<Shared>, apics: Arc<ApicBus>) -> Self {
        let activity = Activity::at_reset(index);
        Self { index, cpu: Box::new(cpu), bus: Arc::new(bus), shared, apics, activity }
    }

    /// The thread: parks until resumed, runs the guest.
    pub fn run(mut self) {
        let (shared, apics, index) = (self.shared.clone(), self.apics.clone(), self.index);
        let word = self.cpu.control();
        let kick = move || {
            word.request(Request::EXIT);
            apics.wake(index);
        };
        shared.vcpus.enter(index, Arc::new(kick));
        while shared.vcpus.park(index, &mut self) {
            while !shared.vcpus.pausing() {
                self.step();
            }
        }
        shared.vcpus.leave(index);
    }

    /// Runs until something is to be done outside the processor.
    fn step(&mut self) {
        if self.bus.refresh() {
            self.cpu.flush_tlb_all();
        }
        if !self.ready() {
            return;
        }
        match self.cpu.run(&*self.bus.clone()) {
            Exit::Hlt => self.activity = Activity::Halted,
            Exit::Interrupted => {}
            Exit::Shutdown => {
                self.shared.lock().request_reset(Cause::GuestReset);
                // The main loop stops everything before it resets.
                let shared = &self.shared;
                self.apics.halt(self.index, 0, || shared.vcpus.pausing());
            }
        }
    }

    /// Handles what is pending; `false` if the processor does not run now.
    fn ready(&mut self) -> bool {
        let index = self.index;
        if self.apics.pending(index) & pending::INIT != 0 {
            self.apics.init(index);
            self.cpu.reset(false);
            self.activity = Activity::at_reset(index);
        }
        let ints = pending::APIC | pending::PIC;
        let open = if self.cpu.rf & rqemu_x86::state::rflags::IF != 0 { ints } else { 0 };
        let wanted = match self.activity {
            Activity::Running => 0,
            Activity::Halted => open | pending::UNMASKABLE,
            Activity::WaitForSipi => pending::INIT | pending::SIPI,
        };
        if wanted != 0 && self.apics.pending(index) & wanted == 0 {
            let shared = &self.shared;
            self.apics.halt(index, wanted, || shared.vcpus.pausing());
            return false;
        }
        let sipi = self.apics.take(index, pending::SIPI | 0xff << pending::SIPI_VECTOR);
        if self.activity == Activity::WaitForSipi {
            if sipi & pending::SIPI == 0 {
                return false;
            }
            self.cpu.sipi((sipi >> pending::SIPI_VECTOR) as u8);
        }
        self.activity = Activity::Running;
        self.cpu.halted = false;
        let word = self.cpu.control();
        let taken = self.apics.take(index, pending::NMI | pending::SMI);
        for (bit, request) in [(pending::NMI, Request::NMI), (pending::SMI, Request::SMI)] {
            if taken & bit != 0 {
                word.request(request);
            }
        }
        if self.apics.pending(index) & ints != 0 {
            word.request(Request::INTR);
        }
        true
    }

    /// Back to the power-on state (or the direct boot entry).
    pub fn reset(&mut self, boot: Option<&BootRegs>) {
        self.cpu.reset(true);
        self.activity = Activity::at_reset(self.index);
        let Some(b) = boot else { return };
        regs::set_handover_msrs(&mut self.cpu, &b.handover);
        if self.index == 0 {
            for (offset, value) in b.handover.lapic {
                // None of these registers ends an interrupt.
                let _ = self.apics.write(0, *offset, *value);
            }
            regs::set_boot_regs(&mut self.cpu, b);
        }
    }

    /// Task priority class.
    pub fn cr8(&self) -> u64 {
        self.apics.cr8(self.index)
    }

    /// In HLT.
    pub fn halted(&self) -> bool {
        self.activity != Activity::Running
    }

    /// Physical address of a virtual one, by the page tables in use.
    pub fn translate(&mut self, addr: u64) -> Option<u64> {
        self.bus.refresh();
        self.cpu.translate(&*self.bus.clone(), addr)
    }
}
