//! Trees of objects and devices.

use crate::commands::{pci, qom};
use crate::hmp::{Args, HmpCx};
use crate::qom_tree::{self, Object};
use crate::wire::{to_string, Style};
use rqemu_machine::device::{BusId, DevId, DeviceTree};
use rqemu_machine::pci::{BarKind, PciState};
use rqemu_machine::Machine;

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
    let result = qom_tree::resolve(h.cx, path);
    let Some(object) = h.report(result) else { return };
    let path = object.path(h.cx.m);
    branch(h, &path, object, 0);
}

fn branch(h: &mut HmpCx<'_, '_, '_>, name: &str, object: Object, level: usize) {
    let ty = object.type_name(h.cx.m);
    let slash = if name.starts_with('/') { "" } else { "/" };
    h.line(format!("{:1$}{slash}{name} ({ty})", "", level * 2));
    let mut children = object.children(h.cx.m);
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
    let (class, id_text) = (node.class.name, node.user_id().unwrap_or_default());
    let head = format!("{:indent$}dev: {class}, id \"{id_text}\"", "");
    let inner = indent + 2;
    let buses = node.buses.clone();
    h.line(head);
    for line in facts(h.cx.m, id) {
        h.line(format!("{:inner$}{line}", ""));
    }
    for b in buses.into_iter().rev() {
        bus(h, b, inner);
    }
}

/// Lines about one device, without those of its buses.
fn facts(m: &mut Machine, id: DevId) -> Vec<String> {
    let Some(node) = m.tree.get(id) else { return Vec::new() };
    let mut lines = Vec::new();
    for (name, input, count) in &node.gpios {
        let way = if *input { "in" } else { "out" };
        lines.push(format!("gpio-{way} \"{name}\" {count}"));
    }
    for p in node.class.props.iter().filter(|p| p.qdev) {
        if let Some(v) = node.props.get_prop(p.name) {
            lines.push(format!("{} = {}", p.name, v.text));
        }
    }
    for region in node.mmio.iter().filter_map(|r| m.mem.get(*r)) {
        let at = if region.parent.is_some() { region.addr } else { u64::MAX };
        lines.push(format!("mmio {at:016x}/{:016x}", region.size));
    }
    if let Some(dev) = &node.dev {
        dev.qtree_lines(&mut lines);
    }
    lines
        .extend(m.with_dev(id, |d, cx| Some(function(cx.m, d.pci()?.state()))).flatten().unwrap_or_default());
    lines
}

/// Lines about a PCI function: class and ids, and where its registers point.
fn function(m: &mut Machine, state: &PciState) -> Vec<String> {
    let class = state.word(0x0A);
    let name = pci::class_name(class).map_or(format!("Class {class:04x}"), str::to_string);
    let bus = m.pci_bus_number(state.bus);
    let (slot, func) = (state.devfn >> 3, state.devfn & 7);
    let (vendor, device) = (state.word(0), state.word(2));
    let (sub_vendor, sub_device) = (state.word(0x2C), state.word(0x2E));
    let mut lines = vec![format!(
        "class {name}, addr {bus:02x}:{slot:02x}.{func:x}, pci id {vendor:04x}:{device:04x} \
         (sub {sub_vendor:04x}:{sub_device:04x})"
    )];
    for (i, bar) in state.bars().iter().enumerate() {
        let Some(bar) = bar else { continue };
        let kind = if bar.kind == BarKind::Io { "i/o" } else { "mem" };
        let at = bar.mapped.unwrap_or(u64::MAX);
        lines.push(format!("bar {i}: {kind} at 0x{at:x} [0x{:x}]", at.wrapping_add(bar.size - 1)));
    }
    lines
}
