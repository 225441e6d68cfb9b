//! KVM assist: instructions that KVM stops at because its emulator lacks them run on the software CPU.
//!
//! KVM emulates guests in places: real mode on old processors, device accesses, and on some hosts all kernel code. Where its
//! emulator gives up (`KVM_EXIT_INTERNAL_ERROR`, suberror 1) the guest's state is intact, so another engine can execute the
//! instruction and KVM goes on behind it. `-accel kvm,x-assist=off` turns it off; the guest stops then, as under QEMU.
//!
//! How long the software CPU stays depends on KVM. Usually it is for one instruction, more if failures follow each other
//! closely. Where KVM has to emulate everything (its statistics say so), the software CPU is far faster: then it *takes over*,
//! and KVM is entered for what only KVM can do: delivering interrupts of its local APIC, accesses to that, MSRs. It is made
//! to stop again after one instruction.
//!
//! Limits: KVM is not told of pages that the software CPU writes, so a KVM that shadows page tables must not run user code
//! of a guest that was taken over; it does not.

mod bus;
mod events;
mod state;

use std::fs::File;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use kvm_bindings::{
    kvm_mp_state, KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_SINGLESTEP, KVM_MP_STATE_HALTED, KVM_MP_STATE_RUNNABLE,
};
use kvm_ioctls::{VcpuFd, VmFd};
use rqemu_x86::bus::{Request, RunControl};
use rqemu_x86::code::CodeMap;
use rqemu_x86::state::rflags;
use rqemu_x86::{Cpu, Exit, Model};

use self::bus::AssistBus;
use self::events::Taken;
use self::state::TscOffset;
use super::user_irq::UserIrqs;
use super::vcpu::KvmVcpu;
use super::{irq, stats};
use crate::accel::{lapic, Activity};
use crate::run::Cause;
use crate::shared::Shared;

/// Instructions that the software CPU has executed for KVM, of all guests of this process.
static HELPED: AtomicU64 = AtomicU64::new(0);

/// How many instructions the software CPU has executed for KVM.
pub fn helped() -> u64 {
    HELPED.load(Ordering::Relaxed)
}

/// Longest run of instructions before KVM is tried again, where KVM does not emulate everything.
const LONGEST: u64 = 20_000;
/// Failures closer together than this belong to the same code.
const CLOSE: Duration = Duration::from_millis(1);
/// Instructions between two looks at KVM's interrupts while the software CPU has taken over.
const SLICE: u64 = 50_000;

/// What the software CPUs of a guest need from the accelerator.
#[derive(Clone)]
pub struct Helper {
    /// The VM, for the state of its interrupt controllers.
    pub vm: Arc<VmFd>,
    /// Which pages have decoded code.
    pub code: Arc<CodeMap>,
    /// All interrupt controllers and the timer are KVM's.
    pub kernel_chips: bool,
    /// CPUID table of this vCPU.
    pub leaves: Vec<kvm_bindings::kvm_cpuid_entry2>,
    /// Makes the software CPU leave its run, once it exists.
    pub word: Arc<OnceLock<Arc<RunControl>>>,
}

/// The software CPU beside a vCPU.
pub struct Assist {
    cpu: Box<Cpu>,
    bus: Arc<AssistBus>,
    vm: Arc<VmFd>,
    tsc: TscOffset,
    /// Instructions of the next run.
    run: u64,
    last: Option<Instant>,
    /// KVM emulates everything: it gets only what it must.
    taken_over: bool,
    /// KVM was told to stop after one instruction.
    stepping: bool,
    /// Interrupts were turned off for KVM's one instruction, lest it deliver one with the trap flag of the step.
    masked: bool,
    /// Where an instruction was left to KVM.
    left: Option<([u64; 16], u64)>,
}

impl Assist {
    /// A software CPU for a vCPU. It executes whatever this engine can: KVM may show the guest more than the CPUID table
    /// does.
    fn new(index: usize, helper: &Helper, shared: Arc<Shared>, fd: RawFd) -> Self {
        let leaves = helper.leaves.iter().map(|e| rqemu_x86::cpuid::Leaf {
            leaf: e.function,
            sub: (e.flags & 1 != 0).then_some(e.index),
            regs: [e.eax, e.ebx, e.ecx, e.edx],
        });
        let model = Model::new(leaves.collect()).permissive();
        let mut cpu = Box::new(Cpu::new(index as u32, model, helper.code.clone()));
        cpu.assist();
        let word = cpu.control();
        let _ = helper.word.set(word.clone());
        Self {
            cpu,
            bus: Arc::new(AssistBus::new(shared, word, fd, helper.kernel_chips)),
            vm: helper.vm.clone(),
            tsc: TscOffset::default(),
            run: 1,
            last: None,
            taken_over: false,
            stepping: false,
            masked: false,
            left: None,
        }
    }

    /// KVM has emulated far more instructions than it had reasons to leave the guest.
    fn kvm_emulates_all(fd: &VcpuFd) -> bool {
        let Ok(all) = stats::open(fd.as_raw_fd()).and_then(|f: File| stats::read(&f)) else { return false };
        let get = |name: &str| all.iter().find(|s| s.name == name).and_then(|s| s.values.first().copied());
        match (get("insn_emulation"), get("exits")) {
            (Some(emulated), Some(exits)) => emulated > 1000 && emulated / 16 > exits,
            _ => false,
        }
    }

    /// Chooses how far to go after a failure.
    fn plan(&mut self, fd: &VcpuFd, debugged: bool) {
        let close = self.last.is_some_and(|t| t.elapsed() < CLOSE);
        self.run = if close { (self.run * 4).min(LONGEST) } else { 1 };
        if !self.taken_over && (self.last.is_none() || self.run >= 64) {
            self.taken_over = Self::kvm_emulates_all(fd);
        }
        if debugged {
            // Breakpoints are KVM's.
            (self.run, self.taken_over) = (1, false);
        }
    }

    /// Runs until KVM has something to do.
    fn go(&mut self, pausing: impl Fn() -> bool, wanted: impl Fn(&Self) -> bool) -> Exit {
        let cpu = &mut self.cpu;
        if !self.taken_over && self.run == 1 {
            HELPED.fetch_add(1, Ordering::Relaxed);
            return cpu.step_one(&*self.bus).unwrap_or(Exit::Interrupted);
        }
        loop {
            let n = if self.taken_over { SLICE } else { self.run };
            self.cpu.stop_at = self.cpu.icount.saturating_add(n);
            let before = self.cpu.icount;
            let exit = self.cpu.run(&*self.bus.clone());
            HELPED.fetch_add(self.cpu.icount - before, Ordering::Relaxed);
            if exit != Exit::Interrupted || !self.taken_over || pausing() {
                return exit;
            }
            if self.bus.refresh() {
                self.cpu.flush_tlb_all();
            }
            if wanted(self) || self.bus.reload.load(Ordering::Relaxed) {
                return exit;
            }
            self.cpu.recheck_code();
        }
    }

    /// Whether KVM has an event that the guest can take now.
    fn kvm_wanted(&self, fd: &VcpuFd, irqs: &UserIrqs, index: usize) -> bool {
        if fd.get_vcpu_events().is_ok_and(|e| e.nmi.pending != 0) {
            return true;
        }
        let open = self.cpu.rf & rflags::IF != 0 && !self.cpu.inhibit;
        match irqs {
            UserIrqs::User(bus) => {
                let ints = if open { lapic::pending::APIC | lapic::pending::PIC } else { 0 };
                bus.pending(index) & (ints | lapic::pending::UNMASKABLE) != 0
            }
            // INIT shows in the state.
            _ if fd.get_mp_state().is_ok_and(|m| m.mp_state != KVM_MP_STATE_RUNNABLE) => true,
            _ if !open => false,
            UserIrqs::Split(line) => index == 0 && line.load(Ordering::SeqCst) || irq::apic_pending(fd),
            UserIrqs::Kernel => irq::apic_pending(fd) || index == 0 && irq::pic_pending(&self.vm),
        }
    }

    /// Makes KVM stop after one instruction, or no longer.
    fn step_kvm(&mut self, fd: &VcpuFd, on: bool) {
        if on != self.stepping {
            let mut d = kvm_bindings::kvm_guest_debug::default();
            if on {
                d.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP;
            }
            self.stepping = fd.set_guest_debug(&d).is_ok() && on;
        }
    }
}

impl KvmVcpu {
    /// Gets past an instruction that KVM cannot emulate (`failed`), or goes on after KVM executed one. `false`: it cannot.
    pub(super) fn assist(&mut self, failed: bool) -> bool {
        let Some(helper) = &self.helper else { return false };
        let (index, shared, fd) = (self.index, self.shared.clone(), self.fd.as_raw_fd());
        let mut a =
            self.assist.take().unwrap_or_else(|| Box::new(Assist::new(index, helper, shared.clone(), fd)));
        let exit = self.assist_with(&mut a, failed);
        let debugged = self.debug.single_step;
        if exit.is_none() {
            a.step_kvm(&self.fd, false);
        }
        let pc = a.cpu.linear_pc();
        self.assist = Some(a);
        match exit {
            None => return false,
            Some(Exit::Interrupted | Exit::Leave | Exit::Debug) => {}
            Some(Exit::Hlt) => {
                self.activity = Activity::Halted;
                // Where KVM keeps track of it; where it does not, the call fails and the line above counts.
                let _ = self.fd.set_mp_state(kvm_mp_state { mp_state: KVM_MP_STATE_HALTED });
            }
            Some(Exit::Shutdown) => shared.lock().request_reset(Cause::GuestReset),
        }
        if debugged && exit != Some(Exit::Leave) {
            self.debug_stop(1, pc, 1 << 14);
        }
        true
    }

    fn assist_with(&mut self, a: &mut Assist, failed: bool) -> Option<Exit> {
        let fd = &mut self.fd;
        let kernel_apic = !matches!(self.irqs, UserIrqs::User(_));
        if kernel_apic && fd.get_mp_state().is_ok_and(|m| m.mp_state != KVM_MP_STATE_RUNNABLE) {
            // It sleeps, or waits for its start.
            return Some(Exit::Interrupted);
        }
        a.bus.refresh();
        a.cpu.resync();
        let event = state::load(&mut a.cpu, &a.bus, fd, &mut a.tsc)?;
        if failed && !Self::plan(a, fd, self.debug != Default::default()) {
            return None;
        }
        if std::mem::take(&mut a.masked) {
            a.cpu.rf |= rflags::IF;
        }
        // Exceptions that KVM adds to its exits are none of the guest's: #UD to a failure, #DB to a step.
        let stepped = a.stepping;
        let own = |e: &state::Event| !e.interrupt && (failed && e.vector == 6 || stepped && e.vector == 1);
        let delivered = match event.filter(|e| !own(e)) {
            Some(e) => a.cpu.inject(&*a.bus.clone(), e.vector, e.error, e.interrupt),
            None => true,
        };
        let exit = if delivered { self.session(a)? } else { Exit::Shutdown };
        self.hand_back(a, exit)?;
        Some(exit)
    }

    /// KVM failed at an instruction: how much the software CPU is to execute. `false`: it failed there before, and the
    /// software CPU could not help.
    fn plan(a: &mut Assist, fd: &mut VcpuFd, debugged: bool) -> bool {
        if a.left.take() == Some(state::place(&a.cpu)) {
            return false;
        }
        let before = a.taken_over;
        a.plan(fd, debugged);
        if a.taken_over && !before {
            events::let_kicks_through(fd);
        }
        if helped() == 0 {
            eprintln!(
                "rqemu-system-x86_64: warning: KVM cannot execute all of the guest's instructions; \
                 the software CPU helps"
            );
        }
        true
    }

    /// Executes until KVM can go on, or must.
    fn session(&mut self, a: &mut Assist) -> Option<Exit> {
        let kernel_apic = !matches!(self.irqs, UserIrqs::User(_));
        let fd = &mut self.fd;
        let (irqs, index, shared) = (&self.irqs, self.index, &self.shared);
        let pausing = || shared.vcpus.pausing();
        loop {
            let mut exit = a.go(pausing, |a| a.kvm_wanted(fd, irqs, index));
            if exit == Exit::Hlt && a.taken_over {
                Self::halt(a, fd, irqs, index, pausing);
                if !pausing() {
                    (exit, a.cpu.halted) = (Exit::Interrupted, false);
                }
            }
            state::store(&mut a.cpu, &a.bus, fd)?;
            if exit != Exit::Interrupted || !a.taken_over || pausing() {
                return Some(exit);
            }
            if a.bus.reload.swap(false, Ordering::Relaxed) {
                state::load(&mut a.cpu, &a.bus, fd, &mut a.tsc)?;
            }
            if !a.kvm_wanted(fd, irqs, index) {
                continue;
            }
            a.step_kvm(fd, false);
            let event = match events::take(&mut a.cpu, fd, irqs, index, shared) {
                Taken::Event(e) => Some(e),
                Taken::Moved => {
                    a.cpu.resync();
                    state::load(&mut a.cpu, &a.bus, fd, &mut a.tsc)?.filter(|e| e.interrupt)
                }
                Taken::Nothing => None,
            };
            if fd.get_mp_state().is_ok_and(|m| m.mp_state != KVM_MP_STATE_RUNNABLE) && kernel_apic {
                return Some(exit);
            }
            // What KVM has there is either taken now, or its own.
            state::store(&mut a.cpu, &a.bus, fd)?;
            let Some(e) = event else { continue };
            if !a.cpu.inject(&*a.bus.clone(), e.vector, e.error, e.interrupt) {
                state::store(&mut a.cpu, &a.bus, fd)?;
                return Some(Exit::Shutdown);
            }
        }
    }

    /// The guest sleeps until an interrupt can wake it.
    fn halt(a: &mut Assist, fd: &VcpuFd, irqs: &UserIrqs, index: usize, pausing: impl Fn() -> bool + Copy) {
        match irqs {
            UserIrqs::User(bus) => {
                let ints = lapic::pending::APIC | lapic::pending::PIC;
                let open = if a.cpu.rf & rflags::IF != 0 { ints } else { 0 };
                bus.halt(index, open | lapic::pending::UNMASKABLE, pausing);
            }
            _ => events::wait(|| a.kvm_wanted(fd, irqs, index), pausing),
        }
    }

    /// The rest is KVM's.
    fn hand_back(&mut self, a: &mut Assist, exit: Exit) -> Option<()> {
        let fd = &mut self.fd;
        a.left = (exit == Exit::Leave).then(|| state::place(&a.cpu));
        // User code would see the trap; nothing of it is left to KVM, as a rule.
        let step = a.taken_over && a.cpu.cpl == 0;
        a.step_kvm(fd, step);
        if step && exit == Exit::Leave && a.cpu.rf & rflags::IF != 0 {
            a.masked = true;
            a.cpu.rf &= !rflags::IF;
            state::store(&mut a.cpu, &a.bus, fd)?;
        }
        a.last = Some(Instant::now());
        if matches!(self.irqs, UserIrqs::User(_) | UserIrqs::Split(_)) {
            // What KVM would have said at an exit.
            let open = a.cpu.rf & rflags::IF != 0;
            let run = self.fd.get_kvm_run();
            run.if_flag = u8::from(open);
            run.ready_for_interrupt_injection = u8::from(open && !a.cpu.inhibit);
            if let UserIrqs::User(bus) = &self.irqs {
                bus.set_cr8(self.index, a.bus.cr8.load(Ordering::Relaxed));
            }
        }
        Some(())
    }

    /// Whether KVM stopped because it was to execute one instruction only.
    pub(super) fn assist_stepped(&self) -> bool {
        self.assist.as_ref().is_some_and(|a| a.stepping)
    }

    /// The debugger has changed what KVM stops at.
    pub(super) fn assist_debugged(&mut self) {
        if let Some(a) = &mut self.assist {
            a.stepping = false;
            a.taken_over &= self.debug == Default::default();
            if a.taken_over {
                a.step_kvm(&self.fd, true);
            }
        }
    }

    /// The vCPU parks: its state is to be the guest's.
    pub(super) fn assist_parks(&mut self) {
        let Some(a) = &mut self.assist else { return };
        a.bus.refresh();
        let masked = std::mem::take(&mut a.masked);
        if let (true, Ok(mut r)) = (masked, self.fd.get_regs()) {
            r.rflags |= rflags::IF;
            let _ = self.fd.set_regs(&r);
        }
    }

    /// The vCPU was reset: KVM starts afresh.
    pub(super) fn assist_reset(&mut self) {
        if let Some(a) = &mut self.assist {
            a.step_kvm(&self.fd, false);
            (a.taken_over, a.masked, a.left, a.last) = (false, false, None, None);
        }
    }
}

/// Makes a software CPU leave its run.
pub(super) fn kick(word: &OnceLock<Arc<RunControl>>) {
    if let Some(w) = word.get() {
        w.request(Request::EXIT);
    }
}
