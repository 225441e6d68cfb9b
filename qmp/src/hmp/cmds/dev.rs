//! Devices, descriptors, input.

use crate::commands::{chardev, device, fd, input};
use crate::hmp::{Args, HmpCx};
use crate::monitors::MonitorCx;
use rqemu_machine::devices::legacy::keys;
use rqemu_machine::qerr;
use rqemu_machine::qom;
use rqemu_machine::spec::{Dict, Value};

pub(super) fn chardev_remove(h: &mut HmpCx<'_, '_, '_>, args: &Args) {
    let result = chardev::chardev_remove(h.cx, chardev::ChardevId { id: args.str("id").into() });
    h.report(result);
}

pub(super) fn chardev_send_break(h: &mut HmpCx<'_, '_, '_>, args: &Args) {
    let result = chardev::chardev_send_break(h.cx, chardev::ChardevId { id: args.str("id").into() });
    h.report(result);
}

pub(super) fn getfd(h: &mut HmpCx<'_, '_, '_>, args: &Args) {
    let result = fd::getfd(h.cx, fd::FdName { fdname: args.str("fdname").into() });
    h.report(result);
}

pub(super) fn closefd(h: &mut HmpCx<'_, '_, '_>, args: &Args) {
    let result = fd::closefd(h.cx, fd::FdName { fdname: args.str("fdname").into() });
    h.report(result);
}

/// Splits `driver,key=value,...` where a doubled comma stands for one.
pub(super) fn split_opts(text: &str) -> Vec<(Option<String>, String)> {
    let mut items = vec![String::new()];
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            ',' if chars.next_if_eq(&',').is_some() => items.last_mut().into_iter().for_each(|i| i.push(',')),
            ',' => items.push(String::new()),
            c => items.last_mut().into_iter().for_each(|i| i.push(c)),
        }
    }
    let split = |item: String| match item.split_once('=') {
        Some((key, value)) => (Some(key.to_string()), value.to_string()),
        None => (None, item),
    };
    items.into_iter().filter(|i| !i.is_empty()).map(split).collect()
}

pub(super) fn device_add(h: &mut HmpCx<'_, '_, '_>, args: &Args) {
    let (mut driver, mut id, mut bus, mut props) = (None, None, None, Dict::new());
    for (i, (key, value)) in split_opts(args.str("device")).into_iter().enumerate() {
        match key.as_deref() {
            None if i == 0 => driver = Some(value),
            Some("driver") => driver = Some(value),
            Some("id") => id = Some(value),
            Some("bus") => bus = Some(value),
            Some(key) => props.push(key, Value::text(value)),
            // A name alone switches something on, or off with "no" in front.
            None => match value.strip_prefix("no").filter(|rest| !rest.is_empty()) {
                Some(rest) => props.push(rest, Value::text("off")),
                None => props.push(value, Value::text("on")),
            },
        }
    }
    let result = match &driver {
        None => Err(qerr!("Parameter 'driver' is missing")),
        Some(driver) => device::add(h.cx, driver, id.as_deref(), bus.as_deref(), &props),
    };
    h.report(result);
}

pub(super) fn device_del(h: &mut HmpCx<'_, '_, '_>, args: &Args) {
    let result = device::device_del(h.cx, device::DeviceDel { id: args.str("id").into() });
    h.report(result);
}

pub(super) fn complete_driver(_: &mut MonitorCx<'_, '_>, words: &[&str]) -> (usize, Vec<String>) {
    let [typed] = words else { return (0, Vec::new()) };
    let usable = qom::classes().filter(|c| c.user_creatable && !c.is_abstract);
    (typed.len(), usable.map(|c| c.name).filter(|n| n.starts_with(typed)).map(String::from).collect())
}

pub(super) fn complete_device(cx: &mut MonitorCx<'_, '_>, words: &[&str]) -> (usize, Vec<String>) {
    let [typed] = words else { return (0, Vec::new()) };
    let ids = cx.m.tree.iter().filter_map(|d| d.user_id());
    (typed.len(), ids.filter(|id| id.starts_with(typed)).map(String::from).collect())
}

pub(super) fn sendkey(h: &mut HmpCx<'_, '_, '_>, args: &Args) {
    if let Err(e) = h.cx.m.sendkey(args.str("keys"), args.opt_int("hold-time")) {
        h.line(e.desc);
    }
}

pub(super) fn complete_key(_: &mut MonitorCx<'_, '_>, words: &[&str]) -> (usize, Vec<String>) {
    let [typed] = words else { return (0, Vec::new()) };
    let last = typed.rsplit('-').next().unwrap_or_default();
    let names = keys::KEYS.iter().map(|k| k.0).filter(|n| n.starts_with(last));
    (last.len(), names.map(String::from).collect())
}

pub(super) fn mouse_move(h: &mut HmpCx<'_, '_, '_>, args: &Args) {
    let value = |name| args.str(name).trim().parse::<i32>().unwrap_or(0);
    h.cx.m.mouse_move(value("dx"), value("dy"), value("dz"));
}

pub(super) fn mouse_button(h: &mut HmpCx<'_, '_, '_>, args: &Args) {
    // The three low bits are the buttons.
    h.cx.m.mouse_button((args.int("state") & 7) as u8);
}

pub(super) fn mouse_set(h: &mut HmpCx<'_, '_, '_>, args: &Args) {
    if let Err(e) = h.cx.m.mouse_set(args.int("index")) {
        h.line(e.desc);
    }
}

pub(super) fn screendump(h: &mut HmpCx<'_, '_, '_>, args: &Args) {
    let format = match args.opt_str("-f") {
        None => None,
        Some(name) => match input::ImageFormat::by_name(name) {
            Some(f) => Some(f),
            None => {
                h.report::<()>(Err(qerr!("invalid parameter value: {name}")));
                return;
            }
        },
    };
    let dump = input::Screendump {
        filename: args.str("filename").into(),
        device: args.opt_str("device").map(Into::into),
        head: args.opt_int("head"),
        format,
    };
    let result = input::screendump(h.cx, dump);
    h.report(result);
}
