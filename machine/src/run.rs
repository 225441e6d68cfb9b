//! Run state of the machine, and requests that the main loop carries out.

use std::sync::Arc;

use crate::vcpu::VcpuControl;

/// Run states, with QMP's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum RunState {
    Debug,
    InMigrate,
    InternalError,
    IoError,
    Paused,
    PostMigrate,
    #[default]
    Prelaunch,
    FinishMigrate,
    RestoreVm,
    Running,
    SaveVm,
    Shutdown,
    Suspended,
    Watchdog,
    GuestPanicked,
}

impl RunState {
    /// Name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::InMigrate => "inmigrate",
            Self::InternalError => "internal-error",
            Self::IoError => "io-error",
            Self::Paused => "paused",
            Self::PostMigrate => "postmigrate",
            Self::Prelaunch => "prelaunch",
            Self::FinishMigrate => "finish-migrate",
            Self::RestoreVm => "restore-vm",
            Self::Running => "running",
            Self::SaveVm => "save-vm",
            Self::Shutdown => "shutdown",
            Self::Suspended => "suspended",
            Self::Watchdog => "watchdog",
            Self::GuestPanicked => "guest-panicked",
        }
    }

    /// The guest cannot go on without a reset.
    pub fn needs_reset(self) -> bool {
        matches!(self, Self::InternalError | Self::Shutdown)
    }
}

/// Why a reset or shutdown happens, with QMP's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Cause {
    None,
    HostError,
    HostQmpQuit,
    HostQmpSystemReset,
    HostSignal,
    HostUi,
    GuestShutdown,
    GuestReset,
    GuestPanic,
    SubsystemReset,
    SnapshotLoad,
}

impl Cause {
    /// Name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::HostError => "host-error",
            Self::HostQmpQuit => "host-qmp-quit",
            Self::HostQmpSystemReset => "host-qmp-system-reset",
            Self::HostSignal => "host-signal",
            Self::HostUi => "host-ui",
            Self::GuestShutdown => "guest-shutdown",
            Self::GuestReset => "guest-reset",
            Self::GuestPanic => "guest-panic",
            Self::SubsystemReset => "subsystem-reset",
            Self::SnapshotLoad => "snapshot-load",
        }
    }

    /// Whether the guest did it.
    pub fn by_guest(self) -> bool {
        matches!(self, Self::GuestShutdown | Self::GuestReset | Self::GuestPanic)
    }
}

/// What to do when the guest reboots (`-no-reboot`, `-action reboot=`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RebootAction {
    /// Reset the machine.
    #[default]
    Reset,
    /// Shut down instead.
    Shutdown,
}

/// What to do when the guest shuts down (`-no-shutdown`, `-action shutdown=`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ShutdownAction {
    /// Exit.
    #[default]
    Poweroff,
    /// Stay, stopped.
    Pause,
}

/// What to do when the guest panics (`-action panic=`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PanicAction {
    /// Stop.
    Pause,
    /// Shut down.
    #[default]
    Shutdown,
    /// Exit with failure.
    ExitFailure,
    /// Nothing.
    None,
}

/// What a watchdog does when it fires.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum WatchdogAction {
    #[default]
    Reset,
    Shutdown,
    Poweroff,
    Pause,
    Debug,
    None,
    InjectNmi,
}

/// The four configurable actions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Actions {
    pub reboot: RebootAction,
    pub shutdown: ShutdownAction,
    pub panic: PanicAction,
    pub watchdog: WatchdogAction,
}

/// Requests that the main loop carries out at its top level.
#[derive(Debug, Default)]
pub struct Requests {
    /// Reset the machine.
    pub reset: Option<Cause>,
    /// Switch off.
    pub shutdown: Option<Cause>,
    /// Press the power button.
    pub powerdown: bool,
    /// Stop in this state.
    pub stop: Option<RunState>,
    /// Suspend to RAM.
    pub suspend: bool,
    /// Wake up from suspend.
    pub wakeup: bool,
    /// Leave the process with this status at once (isa-debug-exit).
    pub exit: Option<i32>,
}

impl Requests {
    /// Whether anything is asked for.
    pub fn any(&self) -> bool {
        self.reset.is_some()
            || self.shutdown.is_some()
            || self.stop.is_some()
            || self.exit.is_some()
            || self.powerdown
            || self.suspend
            || self.wakeup
    }
}

/// Run state and requests.
#[derive(Default)]
pub struct RunControl {
    state: RunState,
    /// What is asked for.
    pub requests: Requests,
    /// Configured actions.
    pub actions: Actions,
    /// vCPU threads.
    pub vcpus: Arc<VcpuControl>,
    waker: Option<Arc<mio::Waker>>,
    /// Exit status of a shutdown.
    pub exit_code: i32,
    /// Signal number and sender's pid when a signal ends the process.
    pub killed_by: Option<(i32, i32)>,
}

impl RunControl {
    /// Current state.
    pub fn state(&self) -> RunState {
        self.state
    }

    /// Changes the state without any side effect (the main loop and the builder only).
    pub fn set_state(&mut self, state: RunState) {
        self.state = state;
    }

    /// Connects the main loop's waker.
    pub fn set_waker(&mut self, waker: Arc<mio::Waker>) {
        self.waker = Some(waker);
    }

    /// Wakes the main loop.
    pub fn wake(&self) {
        if let Some(w) = &self.waker {
            // Failure means the loop has ended; then there is nobody to wake.
            let _ = w.wake();
        }
    }

    /// Asks for a reset. The vCPUs stop at once, the main loop does the rest.
    pub fn request_reset(&mut self, cause: Cause) {
        if self.actions.reboot == RebootAction::Shutdown && cause != Cause::SubsystemReset {
            self.request_shutdown(cause);
            return;
        }
        self.requests.reset = Some(cause);
        self.interrupt();
    }

    /// Asks for power off.
    pub fn request_shutdown(&mut self, cause: Cause) {
        self.requests.shutdown = Some(cause);
        self.interrupt();
    }

    /// Asks for suspend to RAM.
    pub fn request_suspend(&mut self) {
        self.requests.suspend = true;
        self.interrupt();
    }

    /// Asks to leave suspend to RAM.
    pub fn request_wakeup(&mut self) {
        self.requests.wakeup = true;
        self.interrupt();
    }

    /// Asks for a stop in `state`.
    pub fn request_stop(&mut self, state: RunState) {
        self.requests.stop = Some(state);
        self.interrupt();
    }

    /// Asks for the process to end with `status` without further ado.
    pub fn request_exit(&mut self, status: i32) {
        self.requests.exit.get_or_insert(status);
        self.interrupt();
    }

    fn interrupt(&self) {
        self.vcpus.request_pause();
        self.wake();
    }
}
