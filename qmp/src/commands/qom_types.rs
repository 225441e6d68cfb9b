//! Classes of the object tree as QMP lists them: those of devices, and those that are described in tables of their own
//! (machines, accelerators, objects of users, character devices, buses).

use super::qom::{ObjectPropertyInfo, ObjectTypeInfo, QomListTypes, TypeName};
use crate::monitors::MonitorCx;
use crate::qom_tree::{info, DEVICE_PROPS};
use rqemu_machine::accel::BUILT;
use rqemu_machine::boards::MACHINES;
use rqemu_machine::chardev::BackendInfo;
use rqemu_machine::device::BusKind;
use rqemu_machine::objects::{self, ABSTRACT_TYPES, TYPES};
use rqemu_machine::qom::{self, ClassInfo, PropTable};
use rqemu_machine::{qerr, ErrorClass, QError, QResult};

/// A class that is not a device's.
struct Other {
    name: String,
    parent: &'static str,
    is_abstract: bool,
}

/// Classes of which there are always objects, and bases of the tables below.
const FIXED: &[(&str, &str, bool)] = &[
    ("accel", "object", false),
    ("bus", "object", true),
    ("chardev", "object", true),
    ("chardev-fd", "chardev", true),
    ("chardev-memory", "chardev-ringbuf", false),
    ("container", "object", false),
    ("generic-pc-machine", "x86-machine", true),
    ("irq", "object", false),
    ("machine", "object", true),
    ("memory-region", "object", false),
    ("x86-machine", "machine", true),
];

fn machine_parent(name: &str) -> &'static str {
    match name {
        "none" => "machine",
        n if n.starts_with("pc-") => "generic-pc-machine",
        _ => "x86-machine",
    }
}

fn chardev_parent(name: &str) -> &'static str {
    match name {
        "file" | "pipe" | "serial" | "stdio" => "chardev-fd",
        _ => "chardev",
    }
}

/// Every class that is not a device's.
fn others() -> impl Iterator<Item = Other> {
    let other = |name: String, parent, is_abstract| Other { name, parent, is_abstract };
    let fixed = FIXED.iter().map(move |(n, p, a)| other((*n).into(), p, *a));
    let accels = BUILT.iter().map(move |n| other(format!("{n}-accel"), "accel", false));
    let machines = MACHINES.iter().map(move |m| other(m.type_name(), machine_parent(m.name), false));
    let chardevs = BackendInfo::ALL
        .iter()
        .map(move |b| other(format!("chardev-{}", b.name), chardev_parent(b.name), false));
    let buses = BusKind::ALL.iter().map(move |b| {
        let name = b.type_name();
        other(name.into(), "bus", name == "virtio-bus")
    });
    let objects = TYPES.iter().map(move |t| other(t.name.into(), t.parent, false));
    let bases = ABSTRACT_TYPES.iter().map(move |(n, p)| other((*n).into(), p, true));
    fixed.chain(accels).chain(machines).chain(chardevs).chain(buses).chain(objects).chain(bases)
}

/// Whether a class that is not a device's derives from `ancestor`.
fn other_is_a(all: &[Other], class: &Other, ancestor: &str) -> bool {
    let mut at = Some(class);
    // No line of descent is longer than the list.
    for _ in 0..all.len() {
        match at {
            Some(c) if c.name == ancestor || c.parent == ancestor => return true,
            Some(c) => at = all.iter().find(|o| o.name == c.parent),
            None => break,
        }
    }
    false
}

/// Interfaces: the devices and other classes that have them.
fn implements(interface: &str, device: Option<&'static ClassInfo>, other: Option<&str>) -> bool {
    let is_device = device.is_some_and(|c| qom::is_a(c, "device"));
    match interface {
        "user-creatable" => other.is_some_and(|n| objects::find_type(n).is_some()),
        "vmstate-if" => is_device,
        "resettable" => is_device || other.is_some_and(|n| BusKind::ALL.iter().any(|b| b.type_name() == n)),
        "conventional-pci-device" => device.is_some_and(|c| qom::is_a(c, "pci-device") && !c.is_abstract),
        _ => false,
    }
}

pub(super) fn qom_list_types(_: &mut MonitorCx<'_, '_>, args: QomListTypes) -> QResult<Vec<ObjectTypeInfo>> {
    let abstracts = args.abstract_ == Some(true);
    let wanted = args.implements.as_deref();
    let one = |name: String, parent: Option<&str>, is_abstract: bool| ObjectTypeInfo {
        name,
        abstract_: is_abstract.then_some(true),
        parent: parent.map(Into::into),
    };
    let mut list: Vec<ObjectTypeInfo> = qom::classes()
        .filter(|c| abstracts || !c.is_abstract)
        .filter(|c| wanted.is_none_or(|i| qom::is_a(c, i) || implements(i, Some(c), None)))
        .map(|c| one(c.name.into(), c.parent, c.is_abstract))
        .collect();
    let others: Vec<Other> = others().collect();
    let fits =
        |o: &&Other| wanted.is_none_or(|i| other_is_a(&others, o, i) || implements(i, None, Some(&o.name)));
    let rest = others.iter().filter(|o| abstracts || !o.is_abstract).filter(fits);
    list.extend(rest.map(|o| one(o.name.clone(), Some(o.parent), o.is_abstract)));
    Ok(list)
}

/// Properties of a table as introspection of classes shows them, without defaults.
fn table(props: &'static PropTable) -> impl Iterator<Item = ObjectPropertyInfo> {
    props.iter().map(|p| ObjectPropertyInfo {
        description: (!p.desc.is_empty()).then(|| p.desc.into()),
        ..info(p.name, p.ty)
    })
}

pub(super) fn device_list_properties(
    _: &mut MonitorCx<'_, '_>,
    args: TypeName,
) -> QResult<Vec<ObjectPropertyInfo>> {
    let expected = || qerr!("Parameter 'typename' expects a non-abstract device type");
    let Some(class) = qom::class_by_name(&args.typename) else {
        let known = others().any(|o| o.name == args.typename);
        return Err(if known { expected() } else { QError::device_not_found(&args.typename) });
    };
    if class.is_abstract || !qom::is_a(class, "device") {
        return Err(expected());
    }
    let with_default = |p: &qom::PropInfo| ObjectPropertyInfo {
        description: (!p.desc.is_empty()).then(|| p.desc.into()),
        default_value: (p.default)(),
        ..info(p.name, p.ty)
    };
    Ok(class.props.iter().map(with_default).collect())
}

pub(super) fn qom_list_properties(
    _: &mut MonitorCx<'_, '_>,
    args: TypeName,
) -> QResult<Vec<ObjectPropertyInfo>> {
    let name = args.typename.as_str();
    let mut list = vec![info("type", "string")];
    if let Some(class) = qom::class_by_name(name) {
        if qom::is_a(class, "device") {
            list.extend(DEVICE_PROPS.map(|(n, t)| info(n, t)));
        }
        list.extend(table(class.props));
        return Ok(list);
    }
    let known = others().find(|o| o.name == name);
    let known =
        known.ok_or_else(|| QError::new(ErrorClass::DeviceNotFound, format!("Class '{name}' not found")))?;
    if let Some(t) = objects::find_type(name) {
        list.extend(table(t.props));
    } else if let Some(m) = MACHINES.iter().find(|m| m.type_name() == name) {
        list.extend(table((m.props)().table()));
    } else if known.parent == "bus" {
        list.extend([info("hotplug-handler", "link<hotplug-handler>"), info("realized", "bool")]);
    } else if name == "memory-region" {
        list.extend(crate::qom_tree::REGION_PROPS.map(|(n, t)| info(n, t)));
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_parent_is_a_class() {
        let all: Vec<Other> = others().collect();
        for o in &all {
            let known = all.iter().any(|p| p.name == o.parent) || qom::class_by_name(o.parent).is_some();
            assert!(known, "{} derives from {}, which is no class", o.name, o.parent);
            assert!(qom::class_by_name(&o.name).is_none(), "{} is there twice", o.name);
        }
        let pc = all.iter().find(|o| o.name == "pc-i440fx-7.2-machine").unwrap();
        assert!(other_is_a(&all, pc, "machine") && !other_is_a(&all, pc, "accel"));
        assert!(other_is_a(&all, pc, "object"));
    }
}
