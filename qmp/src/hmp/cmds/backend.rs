//! Back ends: character devices, objects, the balloon.

use super::dev::split_opts;
use crate::commands::{balloon, chardev, machine, object};
use crate::hmp::{Args, HmpCx};
use crate::monitors::MonitorCx;
use crate::types::Empty;
use rqemu_machine::qerr;
use rqemu_machine::spec::visit::Mode;
use rqemu_machine::spec::{ChardevSpec, Dict, Value};
use rqemu_machine::QResult;

fn add_all(h: &mut HmpCx<'_, '_, '_>, specs: Vec<ChardevSpec>) -> QResult<()> {
    for spec in specs {
        if h.cx.m.chardevs.find(&spec.id).is_some() {
            return Err(qerr!(
                "attempt to add duplicate property '{}' to object (type 'container')",
                spec.id
            ));
        }
        let id = spec.id.clone();
        let made = h.cx.m.add_chardev(&spec, &mut |_| {})?;
        if let Some(path) = h.cx.m.chardevs.pty_path(made) {
            h.line(format!("char device redirected to {path} (label {id})"));
        }
    }
    Ok(())
}

pub(super) fn chardev_add(h: &mut HmpCx<'_, '_, '_>, args: &Args) {
    let specs = h.cx.env.chardevs(args.str("args"), None);
    let result = specs.and_then(|specs| add_all(h, specs));
    h.report(result);
}

pub(super) fn chardev_change(h: &mut HmpCx<'_, '_, '_>, args: &Args) {
    let specs = h.cx.env.chardevs(args.str("args"), Some(args.str("id")));
    let result = specs.and_then(|specs| match <[ChardevSpec; 1]>::try_from(specs) {
        Ok([spec]) => chardev::change(h.cx, spec).map(drop),
        Err(_) => Err(qerr!("Mux device hotswap not supported yet")),
    });
    h.report(result);
}

pub(super) fn ringbuf_write(h: &mut HmpCx<'_, '_, '_>, args: &Args) {
    let write = chardev::RingbufWrite {
        device: args.str("device").into(),
        data: args.str("data").into(),
        format: None,
    };
    let result = chardev::ringbuf_write(h.cx, write);
    h.report(result);
}

pub(super) fn ringbuf_read(h: &mut HmpCx<'_, '_, '_>, args: &Args) {
    let read =
        chardev::RingbufRead { device: args.str("device").into(), size: args.int("size"), format: None };
    let result = chardev::ringbuf_read(h.cx, read);
    let Some(data) = h.report(result) else { return };
    for c in data.chars() {
        match c {
            '\\' => h.out.push_str("\\\\"),
            c if (c < ' ' && !matches!(c, '\n' | '\t')) || c == '\u{7f}' => {
                h.out.push_str(&format!("\\u{:04X}", u32::from(c)));
            }
            c => h.out.push(c),
        }
    }
    h.line("");
}

pub(super) fn object_add(h: &mut HmpCx<'_, '_, '_>, args: &Args) {
    if args.str("object").is_empty() {
        h.line("object_add: string expected\nTry \"help object_add\" for more information");
        return;
    }
    let (mut ty, mut id, mut props) = (None, None, Dict::new());
    for (i, (key, value)) in split_opts(args.str("object")).into_iter().enumerate() {
        match key.as_deref() {
            None if i == 0 => ty = Some(value),
            Some("qom-type") => ty = Some(value),
            Some("id") => id = Some(value),
            Some(key) => props.push(key, Value::text(value)),
            None => props.push(value, Value::text("on")),
        }
    }
    let result = match (ty, id) {
        (None, _) => Err(qerr!("Parameter 'qom-type' is missing")),
        (Some(ty), _) if rqemu_machine::objects::find_type(&ty).is_none() => {
            Err(qerr!("Parameter 'qom-type' does not accept value '{ty}'"))
        }
        (_, None) => Err(qerr!("Parameter 'id' is missing")),
        (Some(ty), Some(id)) => object::add(h.cx, &ty, &id, &props, Mode::Keyval),
    };
    h.report(result);
}

pub(super) fn object_del(h: &mut HmpCx<'_, '_, '_>, args: &Args) {
    let result = object::object_del(h.cx, object::ObjectDel { id: args.str("id").into() });
    h.report(result);
}

pub(super) fn balloon(h: &mut HmpCx<'_, '_, '_>, args: &Args) {
    let result = balloon::balloon(h.cx, balloon::Balloon { value: args.int("value") });
    h.report(result);
}

pub(super) fn info_balloon(h: &mut HmpCx<'_, '_, '_>, _: &Args) {
    let result = balloon::query_balloon(h.cx, Empty);
    if let Some(info) = h.report(result) {
        h.line(format!("balloon: actual={}", info.actual >> 20));
    }
}

pub(super) fn info_iothreads(h: &mut HmpCx<'_, '_, '_>, _: &Args) {
    for t in machine::query_iothreads(h.cx, Empty).unwrap_or_default() {
        h.line(format!("{}:", t.id));
        h.line(format!("  thread_id={}", t.thread_id));
        h.line(format!("  poll-max-ns={}", t.poll_max_ns));
        h.line(format!("  poll-grow={}", t.poll_grow));
        h.line(format!("  poll-shrink={}", t.poll_shrink));
        h.line(format!("  aio-max-batch={}", t.aio_max_batch));
    }
}

pub(super) fn complete_object(cx: &mut MonitorCx<'_, '_>, words: &[&str]) -> (usize, Vec<String>) {
    let [typed] = words else { return (0, Vec::new()) };
    let ids = cx.m.objects.iter().map(|o| o.id.clone());
    (typed.len(), ids.filter(|id| id.starts_with(typed)).collect())
}
