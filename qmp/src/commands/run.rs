//! Run control.

use crate::monitors::MonitorCx;
use crate::types::Empty;
use crate::{qapi_enum, qapi_struct, qapi_union};
use rqemu_machine::run::{self, Cause};
use rqemu_machine::{qerr, QResult};

qapi_enum! {
    /// States of the machine.
    pub enum RunState {
        Debug = "debug",
        InMigrate = "inmigrate",
        InternalError = "internal-error",
        IoError = "io-error",
        Paused = "paused",
        PostMigrate = "postmigrate",
        Prelaunch = "prelaunch",
        FinishMigrate = "finish-migrate",
        RestoreVm = "restore-vm",
        Running = "running",
        SaveVm = "save-vm",
        Shutdown = "shutdown",
        Suspended = "suspended",
        Watchdog = "watchdog",
        GuestPanicked = "guest-panicked",
        Colo = "colo",
    }
    /// Why the machine shuts down or is reset.
    pub enum ShutdownCause {
        None = "none",
        HostError = "host-error",
        HostQmpQuit = "host-qmp-quit",
        HostQmpSystemReset = "host-qmp-system-reset",
        HostSignal = "host-signal",
        HostUi = "host-ui",
        GuestShutdown = "guest-shutdown",
        GuestReset = "guest-reset",
        GuestPanic = "guest-panic",
        SubsystemReset = "subsystem-reset",
        SnapshotLoad = "snapshot-load",
    }
    /// What a reboot of the guest does.
    pub enum RebootAction {
        Reset = "reset",
        Shutdown = "shutdown",
    }
    /// What a shutdown of the guest does.
    pub enum ShutdownAction {
        Poweroff = "poweroff",
        Pause = "pause",
    }
    /// What a panic of the guest does.
    pub enum PanicAction {
        Pause = "pause",
        Shutdown = "shutdown",
        ExitFailure = "exit-failure",
        None = "none",
    }
    /// What a watchdog does.
    pub enum WatchdogAction {
        Reset = "reset",
        Shutdown = "shutdown",
        Poweroff = "poweroff",
        Pause = "pause",
        Debug = "debug",
        None = "none",
        InjectNmi = "inject-nmi",
    }
}

qapi_enum! {
    /// What follows a panic of the guest.
    pub enum GuestPanicAction {
        Pause = "pause",
        Poweroff = "poweroff",
        Run = "run",
    }
    /// Why a mainframe's processor stopped.
    pub enum S390CrashReason {
        Unknown = "unknown",
        DisabledWait = "disabled-wait",
        ExtintLoop = "extint-loop",
        PgmintLoop = "pgmint-loop",
        OpintLoop = "opint-loop",
    }
}

qapi_struct! {
    /// What a guest of Hyper-V says about its crash.
    pub struct HyperVPanic {
        /// First word.
        arg1: u64,
        /// Second word.
        arg2: u64,
        /// Third word.
        arg3: u64,
        /// Fourth word.
        arg4: u64,
        /// Fifth word.
        arg5: u64,
    }
    /// What is known of a mainframe's crash.
    pub struct S390Panic {
        /// Processor.
        core: u32,
        /// Its state.
        psw_mask: u64,
        /// Its instruction.
        psw_addr: u64,
        /// Why it stopped.
        reason: S390CrashReason,
    }
    /// Data of `GUEST_PANICKED` and `GUEST_CRASHLOADED`.
    pub struct GuestPanicked {
        /// What follows.
        action: GuestPanicAction,
        /// More about it.
        info: Option<GuestPanicInformation>,
    }
}

qapi_union! {
    /// What is known of a guest's crash.
    pub union GuestPanicInformation("type") {
        "hyper-v" => HyperV(HyperVPanic),
        "s390" => S390(S390Panic),
    }
}

qapi_struct! {
    /// Reply of `query-status`.
    pub struct StatusInfo {
        /// The guest runs.
        running: bool,
        /// It runs one instruction at a time.
        singlestep: bool,
        /// State.
        status: RunState,
    }
    /// Data of `SHUTDOWN` and `RESET`.
    pub struct ResetEvent {
        /// The guest did it.
        guest: bool,
        /// Why.
        reason: ShutdownCause,
    }
    /// Arguments of `set-action`.
    pub struct SetAction {
        /// On reboot.
        reboot: Option<RebootAction>,
        /// On shutdown.
        shutdown: Option<ShutdownAction>,
        /// On panic.
        panic: Option<PanicAction>,
        /// On a watchdog's expiry.
        watchdog: Option<WatchdogAction>,
    }
}

pub(super) fn query_status(cx: &mut MonitorCx<'_, '_>, _: Empty) -> QResult<StatusInfo> {
    let state = cx.m.run.state();
    let status = RunState::by_name(state.as_str()).ok_or_else(|| qerr!("unknown run state"))?;
    Ok(StatusInfo { running: state == run::RunState::Running, singlestep: false, status })
}

pub(crate) fn stop(cx: &mut MonitorCx<'_, '_>, _: Empty) -> QResult<()> {
    cx.m.vm_stop(run::RunState::Paused);
    Ok(())
}

pub(crate) fn cont(cx: &mut MonitorCx<'_, '_>, _: Empty) -> QResult<()> {
    cx.m.block.reset_io_status();
    match cx.m.run.state() {
        state if state.needs_reset() => Err(qerr!("Resetting the Virtual Machine is required")),
        run::RunState::Suspended => Ok(()),
        _ => {
            cx.m.vm_start();
            Ok(())
        }
    }
}

pub(crate) fn quit(cx: &mut MonitorCx<'_, '_>, _: Empty) -> QResult<()> {
    cx.after.defer = true;
    cx.after.last = true;
    cx.m.request_shutdown(Cause::HostQmpQuit);
    Ok(())
}

pub(crate) fn system_reset(cx: &mut MonitorCx<'_, '_>, _: Empty) -> QResult<()> {
    cx.after.defer = true;
    cx.m.request_reset(Cause::HostQmpSystemReset);
    Ok(())
}

pub(crate) fn system_powerdown(cx: &mut MonitorCx<'_, '_>, _: Empty) -> QResult<()> {
    cx.after.defer = true;
    cx.m.run.requests.powerdown = true;
    cx.m.wake_loop();
    Ok(())
}

pub(crate) fn system_wakeup(cx: &mut MonitorCx<'_, '_>, _: Empty) -> QResult<()> {
    if !super::machine::can_suspend(cx) {
        return Err(qerr!("wake-up from suspend is not supported by this guest"));
    }
    if cx.m.run.state() != run::RunState::Suspended {
        return Err(qerr!("Unable to wake up: guest is not in suspended state"));
    }
    cx.after.defer = true;
    cx.m.run.requests.wakeup = true;
    cx.m.wake_loop();
    Ok(())
}

pub(super) fn set_action(cx: &mut MonitorCx<'_, '_>, args: SetAction) -> QResult<()> {
    let actions = &mut cx.m.run.actions;
    if let Some(a) = args.reboot {
        actions.reboot = match a {
            RebootAction::Reset => run::RebootAction::Reset,
            RebootAction::Shutdown => run::RebootAction::Shutdown,
        };
    }
    if let Some(a) = args.shutdown {
        actions.shutdown = match a {
            ShutdownAction::Poweroff => run::ShutdownAction::Poweroff,
            ShutdownAction::Pause => run::ShutdownAction::Pause,
        };
    }
    if let Some(a) = args.panic {
        actions.panic = match a {
            PanicAction::Pause => run::PanicAction::Pause,
            PanicAction::Shutdown => run::PanicAction::Shutdown,
            PanicAction::ExitFailure => run::PanicAction::ExitFailure,
            PanicAction::None => run::PanicAction::None,
        };
    }
    if let Some(a) = args.watchdog {
        set_watchdog_action(cx, a);
    }
    Ok(())
}

pub(crate) fn set_watchdog_action(cx: &mut MonitorCx<'_, '_>, action: WatchdogAction) {
    cx.m.run.actions.watchdog = match action {
        WatchdogAction::Reset => run::WatchdogAction::Reset,
        WatchdogAction::Shutdown => run::WatchdogAction::Shutdown,
        WatchdogAction::Poweroff => run::WatchdogAction::Poweroff,
        WatchdogAction::Pause => run::WatchdogAction::Pause,
        WatchdogAction::Debug => run::WatchdogAction::Debug,
        WatchdogAction::None => run::WatchdogAction::None,
        WatchdogAction::InjectNmi => run::WatchdogAction::InjectNmi,
    };
}
