//! Devices, descriptors, input.

use crate::commands::{chardev, device, fd, input, keys};
use crate::hmp::{Args, HmpCx};
use crate::monitors::MonitorCx;
use rqemu_machine::qerr;
use rqemu_machine::qom;
use rqemu_machine::spec::{Dict, Value};
use rqemu_machine::ui::InputEvent;

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

/// Number of a key by name or as `0x..`.
fn key(text: &str) -> Option<u16> {
    // The short form of the name of the most used key.
    let name = if text == "<" { "less" } else { text };
    keys::number(name).or_else(|| u16::from_str_radix(text.strip_prefix("0x")?, 16).ok())
}

pub(super) fn sendkey(h: &mut HmpCx<'_, '_, '_>, args: &Args) {
    let mut codes = Vec::new();
    for name in args.str("keys").split('-') {
        match key(name) {
            Some(code) => codes.push(code),
            None => {
                h.line(format!("invalid parameter: {name}"));
                return;
            }
        }
    }
    input::press(h.cx, &codes, args.opt_int("hold-time").unwrap_or(100));
}

pub(super) fn complete_key(_: &mut MonitorCx<'_, '_>, words: &[&str]) -> (usize, Vec<String>) {
    let [typed] = words else { return (0, Vec::new()) };
    let last = typed.rsplit('-').next().unwrap_or_default();
    let names = keys::KEYS.iter().map(|k| k.0).filter(|n| n.starts_with(last));
    (last.len(), names.map(String::from).collect())
}

pub(super) fn mouse_move(h: &mut HmpCx<'_, '_, '_>, args: &Args) {
    let Some(dev) = input::sink(h.cx.m, |k| k.rel) else { return };
    let value = |name| args.str(name).trim().parse::<i32>().unwrap_or(0);
    input::deliver(h.cx.m, dev, InputEvent::Rel { axis: 0, value: value("dx") }, false);
    input::deliver(h.cx.m, dev, InputEvent::Rel { axis: 1, value: value("dy") }, true);
    let dz = value("dz");
    if dz != 0 {
        let button = if dz > 0 { 3 } else { 4 };
        for down in [true, false] {
            input::deliver(h.cx.m, dev, InputEvent::Button { button, down }, true);
        }
    }
}

pub(super) fn mouse_button(h: &mut HmpCx<'_, '_, '_>, args: &Args) {
    let state = args.int("state");
    let changed = state ^ h.cx.mon.buttons;
    h.cx.mon.buttons = state;
    let Some(dev) = input::sink(h.cx.m, |k| k.rel || k.abs) else { return };
    for (button, bit) in [(0, 1), (1, 2), (2, 4)] {
        if changed & bit != 0 {
            input::deliver(h.cx.m, dev, InputEvent::Button { button, down: state & bit != 0 }, true);
        }
    }
}

pub(super) fn screendump(h: &mut HmpCx<'_, '_, '_>, args: &Args) {
    let format = match args.opt_str("format").filter(|_| args.flag("-f")) {
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
