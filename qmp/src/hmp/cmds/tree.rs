//! Trees: devices, objects, memory.

use crate::commands::qom::{self, Object};
use crate::hmp::{Args, HmpCx};
use crate::wire::{to_string, Style};
use rqemu_machine::device::{BusId, DevId, DeviceTree};
use rqemu_machine::memory::{FlatKind, FlatView, RegionId, RegionKind};

pub(super) fn qom_list(h: &mut HmpCx<'_, '_, '_>, args: &Args) {
    let Some(path) = args.opt_str("path") else {
        h.line("/");
        return;
    };
    let result = qom::qom_list(h.cx, qom::QomPath { path: path.into() });
    for p in h.report(result).unwrap_or_default() {
        h.line(format!("{} ({})", p.name, p.type_));
    }
}

pub(super) fn qom_get(h: &mut HmpCx<'_, '_, '_>, args: &Args) {
    let a = qom::QomGet { path: args.str("path").into(), property: args.str("property").into() };
    let result = qom::qom_get(h.cx, a);
    if let Some(value) = h.report(result) {
        h.line(to_string(&value, Style::Pretty).replace("\r\n", "\n"));
    }
}

pub(super) fn qom_set(h: &mut HmpCx<'_, '_, '_>, args: &Args) {
    let a = qom::QomSet {
        path: args.str("path").into(),
        property: args.str("property").into(),
        value: qom::value_from_text(args.str("value")),
    };
    let result = qom::qom_set(h.cx, a);
    h.report(result);
}

pub(super) fn qom_tree(h: &mut HmpCx<'_, '_, '_>, args: &Args) {
    let path = args.opt_str("path").unwrap_or("/machine");
    let result = qom::resolve(h.cx, path);
    let Some(object) = h.report(result) else { return };
    let path = object.path(h.cx);
    branch(h, &path, object, 0);
}

fn branch(h: &mut HmpCx<'_, '_, '_>, name: &str, object: Object, level: usize) {
    let ty = object.type_name(h.cx);
    let slash = if name.starts_with('/') { "" } else { "/" };
    h.line(format!("{:1$}{slash}{name} ({ty})", "", level * 2));
    let mut children = object.children(h.cx);
    children.sort_by(|a, b| a.0.cmp(&b.0));
    for (name, child) in children {
        branch(h, &name, child, level + 1);
    }
}

pub(super) fn qtree(h: &mut HmpCx<'_, '_, '_>, _: &Args) {
    bus(h, DeviceTree::SYSTEM, 0);
}

fn bus(h: &mut HmpCx<'_, '_, '_>, id: BusId, indent: usize) {
    let Some(b) = h.cx.m.tree.bus(id) else { return };
    let (name, ty, children) = (b.name.clone(), b.type_name, b.children.clone());
    h.line(format!("{:indent$}bus: {name}", ""));
    h.line(format!("{:1$}type {ty}", "", indent + 2));
    // Youngest first, as QEMU lists them.
    for dev in children.into_iter().rev() {
        device(h, dev, indent + 2);
    }
}

fn device(h: &mut HmpCx<'_, '_, '_>, id: DevId, indent: usize) {
    let Some(node) = h.cx.m.tree.get(id) else { return };
    let inner = indent + 2;
    let mut lines = vec![format!(
        "{:indent$}dev: {}, id \"{}\"",
        "",
        node.class.name,
        node.user_id().unwrap_or_default()
    )];
    for (name, input, count) in &node.gpios {
        let way = if *input { "in" } else { "out" };
        lines.push(format!("{:inner$}gpio-{way} \"{name}\" {count}", ""));
    }
    for p in node.class.props.iter() {
        if let Some(text) = qom::prop_text(h.cx, id, p.name) {
            lines.push(format!("{:inner$}{} = {text}", "", p.name));
        }
    }
    let mut extra = Vec::new();
    let buses = node.buses.clone();
    if let Some(dev) = &node.dev {
        dev.qtree_lines(&mut extra);
    }
    lines.extend(extra.into_iter().map(|l| format!("{:inner$}{l}", "")));
    for line in lines {
        h.line(line);
    }
    for b in buses {
        bus(h, b, inner);
    }
}

pub(super) fn mtree(h: &mut HmpCx<'_, '_, '_>, args: &Args) {
    if args.flag("-f") {
        flat_views(h);
        return;
    }
    let (memory, io) = (h.cx.m.mem.system, h.cx.m.mem.io);
    let mut aliases = Vec::new();
    for (name, root) in [("memory", memory), ("I/O", io)] {
        h.line(format!("address-space: {name}"));
        region(h, root, 0, 1, &mut aliases);
        h.line("");
    }
    let mut done: Vec<RegionId> = Vec::new();
    while let Some(root) = aliases.pop() {
        if done.contains(&root) || root == memory || root == io {
            continue;
        }
        done.push(root);
        let name = h.cx.m.mem.get(root).map_or(String::new(), |r| r.name.to_string());
        h.line(format!("memory-region: {name}"));
        region(h, root, 0, 1, &mut aliases);
        h.line("");
    }
}

/// Kind of a region in the words of the memory tree.
fn kind(k: &RegionKind) -> &'static str {
    match k {
        RegionKind::Ram { readonly: false, .. } => "ram",
        RegionKind::Ram { .. } => "rom",
        _ => "i/o",
    }
}

fn region(h: &mut HmpCx<'_, '_, '_>, id: RegionId, base: u64, level: usize, aliases: &mut Vec<RegionId>) {
    let Some(r) = h.cx.m.mem.get(id) else { return };
    let first = base.wrapping_add(r.addr);
    let last = first.wrapping_add((r.size.saturating_sub(1)) as u64);
    let off = if r.enabled { "" } else { " [disabled]" };
    let indent = level * 2;
    let line = match &r.kind {
        RegionKind::Alias { target, offset, .. } => {
            aliases.push(*target);
            let to = h.cx.m.mem.get(*target).map_or("", |t| &t.name);
            let to_last = offset.wrapping_add((r.size.saturating_sub(1)) as u64);
            format!(
                "{:indent$}{first:016x}-{last:016x} (prio {}, i/o): alias {} @{to} {offset:016x}-{to_last:016x}{off}",
                "", r.priority, r.name
            )
        }
        other => format!(
            "{:indent$}{first:016x}-{last:016x} (prio {}, {}): {}{off}",
            "",
            r.priority,
            kind(other),
            r.name
        ),
    };
    let mut children = r.children.clone();
    h.line(line);
    children.sort_by_key(|c| h.cx.m.mem.get(*c).map_or((0, 0), |c| (c.addr, -i64::from(c.priority))));
    for child in children {
        region(h, child, first, level + 1, aliases);
    }
}

fn flat_views(h: &mut HmpCx<'_, '_, '_>) {
    let maps = h.cx.m.maps.load_full();
    for (i, (name, root, view)) in
        [("memory", "system", &maps.mem), ("I/O", "io", &maps.io)].into_iter().enumerate()
    {
        h.line(format!("FlatView #{i}"));
        h.line(format!(" AS \"{name}\", root: {root}"));
        h.line(format!(" Root memory region: {root}"));
        flat_view(h, view);
        h.line("");
    }
}

fn flat_view(h: &mut HmpCx<'_, '_, '_>, view: &FlatView) {
    for r in view.ranges() {
        let what = match &r.kind {
            FlatKind::Io { .. } => "i/o",
            FlatKind::Ram { readonly: true, .. } => "rom",
            FlatKind::Ram { .. } => "ram",
        };
        let name = h.cx.m.mem.get(r.region).map_or(String::new(), |r| r.name.to_string());
        let offset = if r.offset == 0 { String::new() } else { format!(" @{:016x}", r.offset) };
        h.line(format!("  {:016x}-{:016x} (prio 0, {what}): {name}{offset}", r.start, r.last));
    }
}
