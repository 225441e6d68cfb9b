//! The software CPU as an accelerator (QEMU's name for its own is `tcg`, which command lines use).
//!
//! One host thread runs each vCPU. The processors see guest memory through the published flat map, devices through
//! the machine lock, and each other and the interrupt controllers through the APIC bus, which has locks of its own.

mod bus;
mod regs;
mod turn;
mod vcpu;

use std::any::Any;
use std::sync::Arc;
use std::thread::JoinHandle;

use rqemu_x86::bus::{Request, RunControl};
use rqemu_x86::code::CodeMap;
use rqemu_x86::cpuid::Model;
use rqemu_x86::Cpu;

pub use self::bus::memory_page;
use self::bus::{GuestBus, Tsc};
use self::turn::Turns;
use self::vcpu::TcgVcpu;
use super::lapic::{pending, ApicBus};
use super::{Accel, GuestDebug, MsiMessage};
use crate::clock::VirtualClock;
use crate::cpu::{BootRegs, CpuRegs, Leaf};
use crate::memory::{FlatMaps, WriteObserver};
use crate::shared::Shared;
use crate::vcpu::VcpuControl;
use crate::{qerr, QResult};

/// One vCPU to create.
pub struct TcgCpuConfig {
    /// Local APIC id.
    pub apic_id: u32,
    /// CPUID as the guest sees it.
    pub leaves: Vec<Leaf>,
    /// Model-specific registers that depend on the model: (index, value).
    pub msrs: Vec<(u32, u64)>,
}

/// Settings of `-accel tcg`.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcgOptions {
    /// One vCPU executes at a time (`thread=single`).
    pub single: bool,
    /// Decoded code that is kept, all vCPUs together, in MiB (`tb-size`); 0: the engine's own choice.
    pub code_mib: u32,
}

/// The accelerator.
#[derive(Default)]
pub struct TcgAccel {
    options: TcgOptions,
    code: Arc<CodeMap>,
    run: Option<Running>,
    boot: Option<BootRegs>,
    threads: Vec<JoinHandle<()>>,
}

/// What exists once the vCPUs do.
struct Running {
    apics: Arc<ApicBus>,
    tsc: Arc<Tsc>,
    control: Arc<VcpuControl>,
    /// Words that make a vCPU look up, by index.
    words: Vec<Arc<RunControl>>,
    clock: Arc<VirtualClock>,
}

/// Tells the code cache what devices write.
struct CodeWatch(Arc<CodeMap>);

impl WriteObserver for CodeWatch {
    fn written(&self, host: *mut u8, len: usize) {
        self.0.note_write(host, len);
    }
}

impl TcgAccel {
    /// With settings.
    pub fn new(options: TcgOptions) -> Self {
        let mut a = Self::default();
        a.options = options;
        a
    }

    /// Starts the vCPU threads (parked).
    ///
    /// # Errors
    /// A thread cannot be made.
    pub fn start(
        &mut self,
        shared: &Arc<Shared>,
        cpus: Vec<TcgCpuConfig>,
        boot: Option<BootRegs>,
        clock: Arc<VirtualClock>,
    ) -> QResult<()> {
        self.boot = boot;
        let ids: Vec<u32> = cpus.iter().map(|c| c.apic_id).collect();
        let apics = ApicBus::new(&ids, clock.clone());
        self.threads.push(apics.spawn_timers()?);
        let control = shared.vcpus.clone();
        control.request_pause();
        let mut run =
            Running { apics, tsc: Arc::new(Tsc::new()), control: control.clone(), words: Vec::new(), clock };
        let n = cpus.len();
        let turns = self.options.single.then(|| Arc::new(Turns::default()));
        for (index, c) in cpus.into_iter().enumerate() {
            let mut cpu = self.new_cpu(index, &c)?;
            if self.options.code_mib != 0 {
                cpu.set_code_limit(((self.options.code_mib as usize) << 20) / n);
            }
            let word = cpu.control();
            run.words.push(word.clone());
            let for_apic = word.clone();
            run.apics.set_kick(
                index,
                Box::new(move |bits| {
                    // INIT and start-up messages are ours to handle; the rest the processor takes as it goes.
                    let direct = bits & (pending::INIT | pending::SIPI | pending::NMI | pending::SMI) != 0;
                    for_apic.request(if direct { Request::EXIT } else { Request::INTR });
                }),
            );
            let bus = GuestBus::new(index, shared.clone(), run.apics.clone(), run.tsc.clone(), c.msrs);
            let turn = turns.as_ref().map(|t| t.join(word.clone()));
            let mut v = TcgVcpu::new(index, cpu, bus, shared.clone(), run.apics.clone(), turn);
            v.reset(boot.as_ref());
            let t = std::thread::Builder::new()
                .name(format!("CPU {index}/TCG"))
                .stack_size(1 << 20)
                .spawn(move || v.run())
                .map_err(|e| qerr!("cannot start vCPU thread: {}", crate::error::strerror(&e)))?;
            self.threads.push(t);
        }
        control.wait_started(n);
        self.run = Some(run);
        Ok(())
    }

    fn new_cpu(&self, index: usize, c: &TcgCpuConfig) -> QResult<Cpu> {
        let leaves = c.leaves.iter().map(|l| rqemu_x86::cpuid::Leaf {
            leaf: l.function,
            sub: (l.flags & 1 != 0).then_some(l.index),
            regs: l.regs,
        });
        let index = u32::try_from(index).map_err(|_| qerr!("too many CPUs"))?;
        Ok(Cpu::new(index, Model::new(leaves.collect()), self.code.clone()))
    }

    /// Runs `f` on a parked vCPU.
    fn on<R: Send + 'static>(
        &self,
        index: usize,
        f: impl FnOnce(&mut TcgVcpu) -> R + Send + 'static,
    ) -> Option<R> {
        let control = self.run.as_ref()?.control.clone();
        control.run_on(index, move |v| v.downcast_mut::<TcgVcpu>().map(f))?
    }

    fn stop_threads(&mut self) {
        if let Some(r) = &self.run {
            r.control.quit();
            r.apics.stop_timers();
        }
        for t in self.threads.drain(..) {
            // A vCPU thread does not panic; if it did, the message was printed already.
            let _ = t.join();
        }
    }
}

impl Accel for TcgAccel {
    fn name(&self) -> &'static str {
        "tcg"
    }

    fn write_observer(&self) -> Option<Arc<dyn WriteObserver>> {
        Some(Arc::new(CodeWatch(self.code.clone())))
    }

    fn clock_changed(&mut self) {
        if let Some(r) = &self.run {
            r.tsc.set_running(r.clock.running());
            r.apics.clock_changed();
        }
    }

    fn msi(&mut self, msg: MsiMessage) {
        if let Some(r) = &self.run {
            r.apics.msi(msg);
        }
    }

    fn set_intr(&mut self, level: bool) {
        if let Some(r) = &self.run {
            r.apics.set_pic(level);
        }
    }

    fn smi(&mut self) {
        if let Some(r) = &self.run {
            r.apics.smi(0);
        }
    }

    fn set_a20(&mut self, on: bool) {
        // As on QEMU's PC: the gate is the boot processor's.
        if let Some(r) = &self.run {
            r.apics.set_a20(on);
            r.words.iter().for_each(|w| w.request(Request::EXIT | Request::FLUSH_TLB));
        }
    }

    fn memory_changed(&mut self, _old: &FlatMaps, _new: &FlatMaps) -> QResult<()> {
        // Each processor keeps the map that its translations point into until it comes out and takes the new one.
        if let Some(r) = &self.run {
            r.words.iter().for_each(|w| w.request(Request::EXIT));
        }
        Ok(())
    }

    fn set_boot(&mut self, boot: Option<BootRegs>) {
        self.boot = boot;
    }

    fn reset_cpus(&mut self) {
        let Some(r) = &self.run else { return };
        r.apics.reset();
        self.code.forget_all();
        for index in 0..r.words.len() {
            let boot = self.boot;
            self.on(index, move |v| v.reset(boot.as_ref()));
        }
    }

    fn cpu_regs(&mut self, index: usize) -> Option<CpuRegs> {
        self.on(index, |v| regs::read(&v.cpu, v.cr8(), v.halted()))
    }

    fn set_cpu_regs(&mut self, index: usize, r: &CpuRegs) -> bool {
        let r = r.clone();
        self.on(index, move |v| regs::set_general(&mut v.cpu, &r)).is_some()
    }

    fn set_debug(&mut self, index: usize, debug: &GuestDebug) -> bool {
        // The debugger writes code without telling.
        self.code.forget_all();
        let debug = *debug;
        self.on(index, move |v| v.set_debug(&debug)).is_some()
    }

    fn nmi(&mut self, index: usize) -> bool {
        self.run.as_ref().is_some_and(|r| r.apics.nmi(index))
    }

    fn translate(&mut self, index: usize, addr: u64) -> Option<u64> {
        self.on(index, move |v| v.translate(addr))?
    }

    fn stop(&mut self) {
        self.stop_threads();
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

impl Drop for TcgAccel {
    fn drop(&mut self) {
        self.stop_threads();
    }
}
