//! A vCPU thread of the software CPU.

use std::sync::Arc;

use rqemu_x86::bus::{Bus, Request};
use rqemu_x86::cpu::Exit;
use rqemu_x86::points::{Points, Watch};
use rqemu_x86::Cpu;

use super::bus::GuestBus;
use super::regs;
use super::turn::Turn;
use crate::accel::lapic::{pending, ApicBus};
use crate::accel::{Activity, DebugStop, GuestDebug, HardwarePoint};
use crate::cpu::BootRegs;
use crate::run::{Cause, RunState};
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
    /// With `thread=single`.
    turn: Option<Turn>,
    /// What the debugger wants to be told of.
    debug: GuestDebug,
}

impl TcgVcpu {
    /// Wraps a processor.
    pub fn new(
        index: usize,
        cpu: Cpu,
        bus: GuestBus,
        shared: Arc<Shared>,
        apics: Arc<ApicBus>,
        turn: Option<Turn>,
    ) -> Self {
        let activity = Activity::at_reset(index);
        let (cpu, bus) = (Box::new(cpu), Arc::new(bus));
        Self { index, cpu, bus, shared, apics, activity, turn, debug: GuestDebug::default() }
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
        let turn = self.turn.clone();
        let exit = {
            let _mine = turn.as_ref().map(Turn::take);
            self.execute()
        };
        match exit {
            Exit::Debug => self.stop_at_point(),
            Exit::Hlt => self.activity = Activity::Halted,
            Exit::Interrupted | Exit::Leave => {}
            Exit::Shutdown => {
                self.shared.lock().request_reset(Cause::GuestReset);
                // The main loop stops everything before it resets.
                let shared = &self.shared;
                self.apics.halt(self.index, 0, || shared.vcpus.pausing());
            }
        }
    }

    /// Runs, or executes one instruction for the debugger (with interrupts held back).
    fn execute(&mut self) -> Exit {
        let bus = self.bus.clone();
        if self.debug.inject_breakpoint {
            // The guest's own INT3 is executed as such.
            self.debug.inject_breakpoint = false;
            self.cpu.stop_at_int3(false);
            let exit = self.cpu.step_one(&*bus);
            self.cpu.stop_at_int3(self.debug.software);
            return exit.unwrap_or(Exit::Interrupted);
        }
        if !self.debug.single_step {
            return self.cpu.run(&*bus);
        }
        let exit = self.cpu.step_one(&*bus);
        if exit == Some(Exit::Debug) {
            return Exit::Debug;
        }
        self.debug_stop(1, 1 << 14);
        exit.unwrap_or(Exit::Interrupted)
    }

    fn stop_at_point(&mut self) {
        let pc = self.cpu.linear_pc();
        let at = |p: &Option<HardwarePoint>| p.is_some_and(|p| p.access == 0 && p.addr == pc);
        match self.cpu.take_hit().or_else(|| self.debug.hardware.iter().position(at)) {
            Some(n) => self.debug_stop(1, 1 << n),
            None => self.debug_stop(3, 0),
        }
    }

    /// Stops the machine for the debugger.
    fn debug_stop(&self, exception: u32, dr6: u64) {
        let mut m = self.shared.lock();
        m.debug_stop = Some(DebugStop { cpu: self.index, exception, pc: self.cpu.linear_pc(), dr6 });
        m.run.request_stop(RunState::Debug);
    }

    /// Says what to stop at.
    pub fn set_debug(&mut self, debug: &GuestDebug) {
        let mut points = Points { int3: debug.software, ..Points::default() };
        for (id, p) in debug.hardware.iter().enumerate() {
            let Some(p) = p else { continue };
            if p.access == 0 {
                points.code.push(p.addr);
            } else {
                points.data.push(Watch { addr: p.addr, len: p.len.into(), read: p.access == 3, id });
            }
        }
        self.cpu.set_points(points);
        self.debug = *debug;
    }

    /// Handles what is pending; `false` if the processor does not run now.
    fn ready(&mut self) -> bool {
        let index = self.index;
        if self.apics.pending(index) & pending::INIT != 0 {
            self.apics.init(index);
            self.cpu.reset(false);
            self.bus.smm(index as u32, false);
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
        self.bus.smm(self.index as u32, false);
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
