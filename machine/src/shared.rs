//! The machine as threads share it.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use crate::log::Log;
use crate::machine::Machine;
use crate::memory::access::IoTarget;
use crate::memory::{IoSpec, Maps, Owner};
use crate::run::{Cause, RunState};
use crate::vcpu::VcpuControl;

/// The machine, its lock, and what may be used without it.
pub struct Shared {
    machine: Mutex<Machine>,
    /// Published memory maps.
    pub maps: Maps,
    /// vCPU threads.
    pub vcpus: Arc<VcpuControl>,
    log: Arc<Log>,
}

impl Shared {
    /// Wraps a machine.
    pub fn new(m: Machine) -> Arc<Self> {
        let (maps, vcpus, log) = (m.maps.clone(), m.run.vcpus.clone(), m.log.clone());
        Arc::new(Self { machine: Mutex::new(m), maps, vcpus, log })
    }

    /// Takes the machine lock.
    pub fn lock(&self) -> MachineLock<'_> {
        MachineLock { guard: self.machine.lock(), vcpus: &self.vcpus }
    }
}

impl Shared {
    /// A processor's way to devices; `smm`: it is in system management mode.
    pub fn caller(&self, smm: bool) -> Caller<'_> {
        Caller { shared: self, smm }
    }
}

/// A processor that accesses devices.
pub struct Caller<'a> {
    shared: &'a Shared,
    smm: bool,
}

impl IoTarget for Caller<'_> {
    fn io_read(&mut self, owner: Owner, spec: IoSpec, offset: u64, size: u8) -> u64 {
        let mut m = self.shared.lock();
        m.smm_access = self.smm;
        let v = m.io_read(owner, spec, offset, size);
        m.smm_access = false;
        v
    }
    fn io_write(&mut self, owner: Owner, spec: IoSpec, offset: u64, size: u8, value: u64) {
        let mut m = self.shared.lock();
        m.smm_access = self.smm;
        m.io_write(owner, spec, offset, size, value);
        m.smm_access = false;
    }
    fn unassigned(&mut self, write: bool, addr: u64, size: usize) {
        self.shared.log.unassigned(write, addr, size);
    }
}

/// Takes the lock for each device call; RAM goes without.
impl IoTarget for &Shared {
    fn io_read(&mut self, owner: Owner, spec: IoSpec, offset: u64, size: u8) -> u64 {
        self.lock().io_read(owner, spec, offset, size)
    }
    fn io_write(&mut self, owner: Owner, spec: IoSpec, offset: u64, size: u8, value: u64) {
        self.lock().io_write(owner, spec, offset, size, value);
    }
    fn unassigned(&mut self, write: bool, addr: u64, size: usize) {
        self.log.unassigned(write, addr, size);
    }
}

/// The held machine lock. It can be let go for a moment to wait for vCPUs, so it is what top-level code (main loop,
/// monitor commands) passes around.
pub struct MachineLock<'a> {
    guard: MutexGuard<'a, Machine>,
    vcpus: &'a VcpuControl,
}

impl Deref for MachineLock<'_> {
    type Target = Machine;
    fn deref(&self) -> &Machine {
        &self.guard
    }
}

impl DerefMut for MachineLock<'_> {
    fn deref_mut(&mut self) -> &mut Machine {
        &mut self.guard
    }
}

impl MachineLock<'_> {
    /// Runs `f` without the lock.
    pub fn unlocked<R>(&mut self, f: impl FnOnce() -> R) -> R {
        MutexGuard::unlocked(&mut self.guard, f)
    }

    /// Stops all vCPUs and waits until they are parked (they run jobs then). Pair with [`Self::resume_vcpus`].
    pub fn pause_vcpus(&mut self) {
        self.vcpus.request_pause();
        if !self.vcpus.all_parked() {
            let vcpus = self.vcpus;
            self.unlocked(|| vcpus.wait_parked());
        }
    }

    /// Lets vCPUs run if the machine is running.
    pub fn resume_vcpus(&mut self) {
        if self.run.state() == RunState::Running {
            self.vcpus.resume();
        }
    }

    /// Stops the guest in `state`; emits `STOP` if it was running.
    pub fn vm_stop(&mut self, state: RunState) {
        let was = self.run.state();
        if was != RunState::Running && was != RunState::Suspended {
            // Only the name of the state may change.
            if was != RunState::Shutdown && was != RunState::Prelaunch && was != RunState::InMigrate {
                self.run.set_state(state);
            }
            return;
        }
        self.pause_vcpus();
        self.clock.stop();
        self.accel.clock_changed();
        self.run.set_state(state);
        self.notify_run_state(false);
        self.emit("STOP", None);
    }

    /// Lets the guest run; emits `RESUME`. No effect if it runs.
    pub fn vm_start(&mut self) {
        if self.run.state() == RunState::Running {
            return;
        }
        self.emit("RESUME", None);
        self.run.set_state(RunState::Running);
        self.clock.resume();
        self.accel.clock_changed();
        self.notify_run_state(true);
        self.vcpus.resume();
        self.wake_loop();
    }

    fn notify_run_state(&mut self, running: bool) {
        for id in self.tree.ids() {
            self.with_dev(id, |d, cx| d.run_state_changed(cx, running));
        }
    }

    /// Resets the machine. The guest goes on if it was running.
    pub fn system_reset(&mut self, cause: Cause) {
        self.pause_vcpus();
        self.reset_devices();
        self.reset_cpus();
        if cause != Cause::SubsystemReset && cause != Cause::None {
            let data = serde_json::json!({"guest": cause.by_guest(), "reason": cause.as_str()});
            self.emit("RESET", Some(data));
        }
        let state = self.run.state();
        if state.needs_reset() {
            self.run.set_state(RunState::Paused);
        }
        self.resume_vcpus();
    }
}
