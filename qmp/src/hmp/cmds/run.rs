//! Run control.

use crate::commands::run;
use crate::hmp::{Args, HmpCx};
use crate::monitors::MonitorCx;
use crate::types::Empty;
use rqemu_machine::qerr;

pub(super) fn cont(h: &mut HmpCx<'_, '_, '_>, _: &Args) {
    let result = run::cont(h.cx, Empty);
    h.report(result);
}

pub(super) fn stop(h: &mut HmpCx<'_, '_, '_>, _: &Args) {
    let result = run::stop(h.cx, Empty);
    h.report(result);
}

pub(super) fn quit(h: &mut HmpCx<'_, '_, '_>, _: &Args) {
    let result = run::quit(h.cx, Empty);
    h.report(result);
}

pub(super) fn system_reset(h: &mut HmpCx<'_, '_, '_>, _: &Args) {
    let result = run::system_reset(h.cx, Empty);
    h.report(result);
}

pub(super) fn system_powerdown(h: &mut HmpCx<'_, '_, '_>, _: &Args) {
    let result = run::system_powerdown(h.cx, Empty);
    h.report(result);
}

pub(super) fn system_wakeup(h: &mut HmpCx<'_, '_, '_>, _: &Args) {
    let result = run::system_wakeup(h.cx, Empty);
    h.report(result);
}

/// For entries whose work their sub-commands do.
pub(super) fn never(_: &mut HmpCx<'_, '_, '_>, _: &Args) {}

pub(super) fn cpu(h: &mut HmpCx<'_, '_, '_>, args: &Args) {
    let count = h.cx.m.run.vcpus.tids().len();
    match usize::try_from(args.int("index")).ok().filter(|i| *i < count) {
        Some(index) => h.cx.mon.cpu = index,
        None => h.line("invalid CPU index"),
    }
}

pub(super) fn watchdog_action(h: &mut HmpCx<'_, '_, '_>, args: &Args) {
    let name = args.str("action");
    match run::WatchdogAction::by_name(name) {
        Some(action) => run::set_watchdog_action(h.cx, action),
        None => {
            h.report::<()>(Err(qerr!("invalid parameter value: {name}")));
        }
    }
}

pub(super) fn complete_watchdog(_: &mut MonitorCx<'_, '_>, words: &[&str]) -> (usize, Vec<String>) {
    let [typed] = words else { return (0, Vec::new()) };
    let all = run::WatchdogAction::ALL.iter().map(|a| a.as_str());
    (typed.len(), all.filter(|a| a.starts_with(typed)).map(String::from).collect())
}
