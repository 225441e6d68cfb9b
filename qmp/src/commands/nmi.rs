//! Commands that act on CPUs and clocks.

use crate::monitors::MonitorCx;
use crate::qapi_struct;
use crate::types::Empty;
use rqemu_machine::devices::legacy::rtc::Mc146818;
use rqemu_machine::{qerr, QResult};

use super::run::{set_watchdog_action, WatchdogAction};

qapi_struct! {
    /// Arguments of `watchdog-set-action`, data of `WATCHDOG`.
    pub struct WatchdogSetAction {
        /// What an expired watchdog does.
        action: WatchdogAction,
    }
    /// Data of `RTC_CHANGE`.
    pub struct RtcChange {
        /// Seconds between the guest's clock and the host's.
        offset: i64,
        /// The clock.
        qom_path: String,
    }
}

pub(crate) fn inject_nmi(cx: &mut MonitorCx<'_, '_>, _: Empty) -> QResult<()> {
    let count = cx.m.run.vcpus.tids().len();
    if count == 0 {
        return Err(qerr!("this feature or command is not currently supported"));
    }
    cx.m.pause_vcpus();
    let sent = (0..count).all(|i| cx.m.accel.nmi(i));
    cx.m.resume_vcpus();
    if sent {
        Ok(())
    } else {
        Err(qerr!("this feature or command is not currently supported"))
    }
}

pub(super) fn watchdog_set_action(cx: &mut MonitorCx<'_, '_>, args: WatchdogSetAction) -> QResult<()> {
    set_watchdog_action(cx, args.action);
    Ok(())
}

pub(super) fn rtc_reset_reinjection(cx: &mut MonitorCx<'_, '_>, _: Empty) -> QResult<()> {
    if let Some(dev) = cx.m.tree.by_class("mc146818rtc").map(|d| d.id) {
        cx.m.with(dev, |rtc: &mut Mc146818, _| rtc.reset_reinjection());
    }
    Ok(())
}
