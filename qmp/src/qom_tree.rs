//! The object tree: what stands where, of which type, with which properties.
//!
//! Nothing is kept for introspection alone: each object is found in the table that owns it (devices, buses, memory
//! regions, interrupt inputs, objects of users) when somebody asks.

use crate::commands::qom::ObjectPropertyInfo;
use crate::monitors::MonitorCx;
use rqemu_machine::device::{BusId, DevId, Place};
use rqemu_machine::memory::{Region, RegionId, RegionKind};
use rqemu_machine::qom::{self, ClassInfo};
use rqemu_machine::{qerr, ErrorClass, Machine, QError, QResult};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;

/// An object of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Object {
    /// A container, by its path.
    Container(&'static str),
    /// `/machine`.
    Machine,
    /// A device.
    Device(DevId),
    /// A bus.
    Bus(BusId),
    /// A memory region.
    Region(RegionId),
    /// An interrupt input of a device: which of its groups, and number in it.
    Irq(DevId, u32, u32),
    /// An interrupt line of the board.
    BoardIrq(u32),
    /// An object of the user, by its place in the table.
    User(usize),
    /// A character device, by its place in the table.
    Chardev(usize),
    /// The source of random bytes that a device made for itself.
    DefaultRng(DevId),
}

const ROOT: Object = Object::Container("/");
const OBJECTS: Object = Object::Container("/objects");
const PERIPHERAL: Object = Object::Container("/machine/peripheral");
const ANON: Object = Object::Container("/machine/peripheral-anon");
const UNATTACHED: Object = Object::Container("/machine/unattached");
const CHARDEVS: Object = Object::Container("/chardevs");

/// Named children of an object.
pub(crate) type Children = Vec<(String, Object)>;

impl Object {
    /// Its class name.
    pub(crate) fn type_name(self, m: &Machine) -> String {
        match self {
            Self::Container(_) => "container".into(),
            Self::Machine => m.board.as_ref().map_or("machine".into(), |b| b.kind.type_name()),
            Self::Device(id) => m.tree.get(id).map_or("", |d| d.class.name).into(),
            Self::Bus(id) => m.tree.bus(id).map_or("", |b| b.type_name).into(),
            Self::Region(_) => "memory-region".into(),
            Self::Irq(..) | Self::BoardIrq(_) => "irq".into(),
            Self::User(n) => m.objects.iter().nth(n).map_or("", |o| o.ty.name).into(),
            Self::Chardev(_) => "chardev".into(),
            Self::DefaultRng(_) => "rng-builtin".into(),
        }
    }

    /// Its path.
    pub(crate) fn path(self, m: &Machine) -> String {
        match self {
            Self::Container(path) => path.into(),
            Self::Machine => "/machine".into(),
            Self::Device(id) => m.tree.path(id),
            other => match other.parent(m) {
                Some(parent) => {
                    let name = parent.children(m).into_iter().find(|(_, c)| *c == other).map(|(n, _)| n);
                    format!("{}/{}", parent.path(m), name.unwrap_or_default())
                }
                None => String::new(),
            },
        }
    }

    /// What it hangs under (not for devices, which know their path).
    fn parent(self, m: &Machine) -> Option<Object> {
        match self {
            Self::Container(_) | Self::Machine => Some(ROOT),
            Self::Bus(id) => Some(m.tree.bus(id)?.owner.map_or(UNATTACHED, Self::Device)),
            Self::Region(id) => Some(region_parent(m, m.mem.get(id)?)),
            Self::Irq(dev, ..) | Self::DefaultRng(dev) => Some(Self::Device(dev)),
            Self::BoardIrq(_) => Some(UNATTACHED),
            Self::User(_) => Some(OBJECTS),
            Self::Chardev(_) => Some(CHARDEVS),
            Self::Device(_) => None,
        }
    }

    /// Objects below it by name, in order of creation.
    pub(crate) fn children(self, m: &Machine) -> Children {
        let tree = &m.tree;
        let devices = |pick: &dyn Fn(&Place) -> Option<String>| {
            tree.iter().filter_map(|d| Some((pick(&d.place)?, Self::Device(d.id)))).collect::<Children>()
        };
        let mut list = match self {
            ROOT => vec![
                ("objects".into(), OBJECTS),
                ("machine".into(), Self::Machine),
                ("chardevs".into(), CHARDEVS),
            ],
            OBJECTS => m.objects.iter().enumerate().map(|(n, o)| (o.id.clone(), Self::User(n))).collect(),
            CHARDEVS => {
                m.chardevs.info().into_iter().enumerate().map(|(n, c)| (c.label, Self::Chardev(n))).collect()
            }
            PERIPHERAL => devices(&|p| match p {
                Place::Peripheral(id) => Some(id.clone()),
                _ => None,
            }),
            ANON => devices(&|p| match p {
                Place::Anon(n) => Some(format!("device[{n}]")),
                _ => None,
            }),
            UNATTACHED => {
                let mut list = devices(&|p| match p {
                    Place::Unattached(n) => Some(format!("device[{n}]")),
                    _ => None,
                });
                let buses = tree.buses().filter(|b| b.owner.is_none());
                list.extend(buses.map(|b| ("sysbus".into(), Self::Bus(b.id))));
                let irqs = 0..tree.board_irqs;
                list.extend(irqs.map(|n| (format!("non-qdev-gpio[{n}]"), Self::BoardIrq(n))));
                list
            }
            Self::Machine => {
                let mut list = vec![
                    ("unattached".into(), UNATTACHED),
                    ("peripheral".into(), PERIPHERAL),
                    ("peripheral-anon".into(), ANON),
                ];
                list.extend(devices(&|p| match p {
                    Place::Machine(name) => Some((*name).into()),
                    _ => None,
                }));
                list
            }
            Self::Device(id) => {
                let mut list = devices(&|p| match p {
                    Place::Child(parent, name) if *parent == id => Some((*name).into()),
                    _ => None,
                });
                let buses = tree.buses().filter(|b| b.owner == Some(id));
                list.extend(buses.map(|b| (b.name.clone(), Self::Bus(b.id))));
                list.extend(irq_inputs(m, id));
                if has_default_rng(m, id) {
                    list.push(("default-backend".into(), Self::DefaultRng(id)));
                }
                list
            }
            _ => return Vec::new(),
        };
        if matches!(self, Self::Device(_) | Self::User(_) | UNATTACHED) {
            list.extend(self.regions(m));
        }
        list
    }

    /// Memory regions that belong to it. Regions of one name are numbered.
    fn regions(self, m: &Machine) -> Children {
        let mut seen: HashMap<&str, u32> = HashMap::new();
        let mine = m.mem.iter().filter(|(_, r)| region_parent(m, r) == self);
        mine.map(|(id, r)| {
            let n = seen.entry(&r.name).or_default();
            *n += 1;
            (format!("{}[{}]", escaped(&r.name), *n - 1), Self::Region(id))
        })
        .collect()
    }
}

/// Whether a device takes random bytes without naming an object for them.
fn has_default_rng(m: &Machine, id: DevId) -> bool {
    let Some(node) = m.tree.get(id).filter(|n| n.class.name == "virtio-rng-device") else { return false };
    node.props.get_prop("rng").is_some_and(|p| p.value == "")
}

fn irq_inputs(m: &Machine, dev: DevId) -> Children {
    let mut list = Vec::new();
    for (group, (name, input, count)) in m.tree.get(dev).iter().flat_map(|d| d.gpios.iter().enumerate()) {
        let name = if name.is_empty() { "unnamed-gpio-in" } else { name };
        let group = group as u32;
        let inputs = (0..*count).filter(|_| *input);
        list.extend(inputs.map(|n| (format!("{name}[{n}]"), Object::Irq(dev, group, n))));
    }
    list
}

/// What a region hangs under: the device that made it, the memory backend that holds the RAM, or nobody.
fn region_parent(m: &Machine, r: &Region) -> Object {
    if let Some(dev) = r.device {
        return Object::Device(dev);
    }
    if let RegionKind::Ram { block, .. } = &r.kind {
        if m.main_ram.iter().any(|b| Arc::ptr_eq(b, block)) {
            if let Some(n) = m.objects.iter().position(|o| o.id == block.name()) {
                return Object::User(n);
            }
        }
    }
    UNATTACHED
}

/// Characters with a meaning in paths are written as `\xNN`.
fn escaped(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            '/' | '[' | ']' | '\\' => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}

/// The object at an absolute path, or at a partial path that only one object ends in.
pub(crate) fn resolve(cx: &MonitorCx<'_, '_>, path: &str) -> QResult<Object> {
    let missing = || QError::new(ErrorClass::DeviceNotFound, format!("Device '{path}' not found"));
    let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
    if path.starts_with('/') {
        return descend(cx.m, ROOT, &parts).ok_or_else(missing);
    }
    let mut found = Vec::new();
    search(cx.m, ROOT, &parts, &mut found);
    match found.as_slice() {
        [only] => Ok(*only),
        [] => Err(missing()),
        _ => Err(qerr!("Path '{path}' does not uniquely identify an object")),
    }
}

fn descend(m: &Machine, from: Object, parts: &[&str]) -> Option<Object> {
    parts.iter().try_fold(from, |at, part| {
        at.children(m).into_iter().find(|(name, _)| name == part).map(|(_, child)| child)
    })
}

/// Collects the objects from which the partial path leads on.
fn search(m: &Machine, at: Object, parts: &[&str], found: &mut Vec<Object>) {
    if let Some(object) = descend(m, at, parts) {
        found.push(object);
    }
    for (_, child) in at.children(m) {
        search(m, child, parts, found);
    }
}

/// A property without description and default.
pub(crate) fn info(name: &str, ty: &str) -> ObjectPropertyInfo {
    ObjectPropertyInfo { name: name.into(), type_: ty.into(), description: None, default_value: None }
}

/// Properties of every device that do not come from its class.
pub(crate) const DEVICE_PROPS: [(&str, &str); 4] =
    [("parent_bus", "link<bus>"), ("realized", "bool"), ("hotplugged", "bool"), ("hotpluggable", "bool")];

pub const REGION_PROPS: [(&str, &str); 4] =
    [("container", "link<memory-region>"), ("addr", "uint64"), ("size", "uint64"), ("priority", "uint32")];

/// Properties of an object, without its type and its children.
pub(crate) fn properties(m: &Machine, object: Object) -> Vec<ObjectPropertyInfo> {
    match object {
        Object::Device(id) => {
            let mut list = DEVICE_PROPS.map(|(n, t)| info(n, t)).to_vec();
            if let Some(d) = m.tree.get(id) {
                list.extend(d.class.props.iter().map(|p| info(p.name, p.ty)));
                if is_pci(d.class) {
                    list.push(info("legacy-addr", "str"));
                }
            }
            list
        }
        Object::Machine => {
            let props = m.board.as_ref().map(|b| b.props.table());
            let props = props.into_iter().flat_map(|t| t.iter());
            props.filter(|p| shown(m, p.name)).map(|p| info(p.name, p.ty)).collect()
        }
        Object::Bus(id) => {
            let mut list = vec![info("hotplug-handler", "link<hotplug-handler>"), info("realized", "bool")];
            list.extend(
                bus_children(m, id)
                    .map(|(name, dev)| info(&name, &format!("link<{}>", Object::Device(dev).type_name(m)))),
            );
            list
        }
        Object::Region(_) => REGION_PROPS.map(|(n, t)| info(n, t)).to_vec(),
        Object::User(n) => {
            let node = m.objects.iter().nth(n);
            node.into_iter().flat_map(|o| o.ty.props.iter()).map(|p| info(p.name, p.ty)).collect()
        }
        Object::DefaultRng(_) => vec![info("opened", "bool")],
        Object::Container(_) | Object::Irq(..) | Object::BoardIrq(_) | Object::Chardev(_) => Vec::new(),
    }
}

/// Whether a property of the machine is there: those of its flash chips go with them.
fn shown(m: &Machine, name: &str) -> bool {
    let chip = match name {
        "pflash0" => "system.flash0",
        "pflash1" => "system.flash1",
        _ => return true,
    };
    m.tree.iter().any(|n| n.place == rqemu_machine::device::Place::Machine(chip))
}

fn is_pci(class: &'static ClassInfo) -> bool {
    qom::is_a(class, "pci-device")
}

fn bus_children(m: &Machine, id: BusId) -> impl Iterator<Item = (String, DevId)> + '_ {
    let children = m.tree.bus(id).map(|b| b.children.as_slice()).unwrap_or_default();
    children.iter().enumerate().map(|(n, dev)| (format!("child[{n}]"), *dev))
}

/// Value of a property of an object; `None` if it has none of that name.
pub(crate) fn property(m: &Machine, object: Object, name: &str) -> Option<Value> {
    if name == "type" {
        return Some(object.type_name(m).into());
    }
    let value = match object {
        Object::Device(id) => device_property(m, id, name),
        Object::Machine => m.board.as_ref().and_then(|b| b.get(name)).map(|p| p.value),
        Object::Bus(id) => bus_property(m, id, name),
        Object::Region(id) => region_property(m, id, name),
        Object::User(n) => m.objects.iter().nth(n)?.get(name).map(|p| p.value),
        Object::DefaultRng(_) => (name == "opened").then_some(true.into()),
        Object::Container(_) | Object::Irq(..) | Object::BoardIrq(_) | Object::Chardev(_) => None,
    };
    value.or_else(|| {
        object.children(m).into_iter().find(|(n, _)| n == name).map(|(_, child)| child.path(m).into())
    })
}

fn device_property(m: &Machine, id: DevId, name: &str) -> Option<Value> {
    let node = m.tree.get(id)?;
    match name {
        "parent_bus" => Some(node.parent_bus.map_or(String::new(), |b| Object::Bus(b).path(m)).into()),
        "realized" => Some(node.realized.into()),
        "hotplugged" => Some(node.hotplugged.into()),
        "hotpluggable" => Some(node.class.hotpluggable.into()),
        "legacy-addr" if is_pci(node.class) => node.props.get_prop("addr").map(|p| p.text.into()),
        _ => node.props.get_prop(name).map(|p| p.value),
    }
}

fn bus_property(m: &Machine, id: BusId, name: &str) -> Option<Value> {
    match name {
        // The system bus has no controller that would realize it.
        "realized" => Some(m.tree.bus(id)?.owner.is_some().into()),
        "hotplug-handler" => {
            let handler = m.tree.bus(id)?.hotplug_handler;
            Some(handler.map_or(String::new(), |d| m.tree.path(d)).into())
        }
        _ => {
            let dev = bus_children(m, id).find(|(n, _)| n == name)?.1;
            Some(m.tree.path(dev).into())
        }
    }
}

fn region_property(m: &Machine, id: RegionId, name: &str) -> Option<Value> {
    let r = m.mem.get(id)?;
    match name {
        "container" => Some(r.parent.map_or(String::new(), |p| Object::Region(p).path(m)).into()),
        "addr" => Some(r.addr.into()),
        // All of the address space is one byte more than fits.
        "size" => Some(u64::try_from(r.size).unwrap_or(u64::MAX).into()),
        "priority" => Some((r.priority as u32).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_slashes_are_escaped() {
        assert_eq!(escaped("/rom@etc/acpi/rsdp"), "\\x2from@etc\\x2facpi\\x2frsdp");
        assert_eq!(escaped("a[0]\\"), "a\\x5b0\\x5d\\x5c");
        assert_eq!(escaped("bus master"), "bus master");
    }

    #[test]
    fn an_empty_machine_has_its_containers_and_roots() {
        let m = Machine::new();
        let names = |o: Object| {
            let mut n: Vec<String> = o.children(&m).into_iter().map(|c| c.0).collect();
            n.sort();
            n
        };
        assert_eq!(names(Object::Machine), ["peripheral", "peripheral-anon", "unattached"]);
        assert_eq!(names(UNATTACHED), ["io[0]", "sysbus", "system[0]"]);
        let sysbus = descend(&m, ROOT, &["machine", "unattached", "sysbus"]).expect("exists");
        assert_eq!(sysbus.path(&m), "/machine/unattached/sysbus");
        let system = Object::Region(m.mem.system);
        assert_eq!(system.path(&m), "/machine/unattached/system[0]");
        assert_eq!(property(&m, system, "size"), Some(u64::MAX.into()));
        assert_eq!(property(&m, system, "nope"), None);
    }
}
