//! Run control.

use crate::commands::run;
use crate::hmp::{Args, HmpCx};
use crate::monitors::MonitorCx;
use crate::types::Empty;
use rqemu_machine::devices::legacy::rtc::{boot_order_bytes, Mc146818};
use rqemu_machine::{qerr, QResult};

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

pub(super) fn boot_set(h: &mut HmpCx<'_, '_, '_>, args: &Args) {
    let order = args.str("bootdevice");
    let result = set_boot_order(h.cx, order);
    match result {
        Ok(()) => h.line(format!("boot device list now set to {order}")),
        Err(e) => h.line(e.desc),
    }
}

/// Writes a boot order where the firmware of a PC looks for it.
fn set_boot_order(cx: &mut MonitorCx<'_, '_>, order: &str) -> QResult<()> {
    let board = cx.m.board.as_ref().filter(|b| b.kind.name.starts_with("pc-"));
    let Some(board) = board else {
        return Err(qerr!("no function defined to set boot device list for this architecture"));
    };
    let fd_bootchk = board.get("fd-bootchk").is_none_or(|p| p.value.as_bool() != Some(false));
    for (i, c) in order.char_indices() {
        if !('a'..='p').contains(&c) {
            return Err(qerr!("Invalid boot device '{c}'"));
        }
        if order[..i].contains(c) {
            return Err(qerr!("Boot device '{c}' was given twice"));
        }
    }
    let bytes = boot_order_bytes(order, fd_bootchk)?;
    if let Some(dev) = cx.m.tree.by_class("mc146818rtc").map(|d| d.id) {
        cx.m.with(dev, |rtc: &mut Mc146818, _| rtc.set_cmos(&bytes));
    }
    Ok(())
}
