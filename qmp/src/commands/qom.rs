//! The object tree and the class registry, as QMP shows them.

use crate::monitors::MonitorCx;
use crate::qapi_struct;
use rqemu_machine::device::{BusId, DevId, Place};
use rqemu_machine::qom::{self, ClassInfo};
use rqemu_machine::{qerr, ErrorClass, QError, QResult};
use serde_json::Value;

qapi_struct! {
    /// Arguments of `qom-list`.
    pub struct QomPath {
        /// Path.
        path: String,
    }
    /// Arguments of `qom-get`.
    pub struct QomGet {
        /// Path.
        path: String,
        /// Property.
        property: String,
    }
    /// Arguments of `qom-set`.
    pub struct QomSet {
        /// Path.
        path: String,
        /// Property.
        property: String,
        /// New value.
        value: Value,
    }
    /// A property of an object or class.
    pub struct ObjectPropertyInfo {
        /// Name.
        name: String,
        /// Type.
        type_ as "type": String,
        /// One line about it.
        description: Option<String>,
        /// Default.
        default_value: Option<Value>,
    }
    /// Arguments of `qom-list-types`.
    pub struct QomListTypes {
        /// Only what derives from this.
        implements: Option<String>,
        /// Abstract classes too.
        abstract_ as "abstract": Option<bool>,
    }
    /// A class.
    pub struct ObjectTypeInfo {
        /// Name.
        name: String,
        /// It cannot be instantiated.
        abstract_ as "abstract": Option<bool>,
        /// What it derives from.
        parent: Option<String>,
    }
    /// Arguments of `device-list-properties` and `qom-list-properties`.
    pub struct TypeName {
        /// Class.
        typename: String,
    }
}

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
}

const ROOT: Object = Object::Container("/");
const PERIPHERAL: Object = Object::Container("/machine/peripheral");
const ANON: Object = Object::Container("/machine/peripheral-anon");
const UNATTACHED: Object = Object::Container("/machine/unattached");
const CHARDEVS: Object = Object::Container("/chardevs");

impl Object {
    /// Its class name.
    pub(crate) fn type_name(self, cx: &MonitorCx<'_, '_>) -> String {
        match self {
            Self::Container(_) => "container".into(),
            Self::Machine => cx.m.board.as_ref().map_or("machine".into(), |b| b.kind.type_name()),
            Self::Device(id) => cx.m.tree.get(id).map_or("", |d| d.class.name).into(),
            Self::Bus(id) => cx.m.tree.bus(id).map_or("", |b| b.type_name).into(),
        }
    }

    /// Its path.
    pub(crate) fn path(self, cx: &MonitorCx<'_, '_>) -> String {
        match self {
            Self::Container(path) => path.into(),
            Self::Machine => "/machine".into(),
            Self::Device(id) => cx.m.tree.path(id),
            Self::Bus(id) => bus_path(cx, id),
        }
    }

    /// Objects below it by name, in order of creation.
    pub(crate) fn children(self, cx: &MonitorCx<'_, '_>) -> Vec<(String, Object)> {
        let tree = &cx.m.tree;
        let devices = |pick: &dyn Fn(&Place) -> Option<String>| {
            tree.iter().filter_map(|d| Some((pick(&d.place)?, Object::Device(d.id)))).collect::<Vec<_>>()
        };
        match self {
            ROOT => vec![
                ("objects".into(), Object::Container("/objects")),
                ("machine".into(), Object::Machine),
                ("chardevs".into(), CHARDEVS),
            ],
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
                list.extend(buses.map(|b| ("sysbus".into(), Object::Bus(b.id))));
                list
            }
            Self::Container(_) => Vec::new(),
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
                list.extend(buses.map(|b| (b.name.clone(), Object::Bus(b.id))));
                list
            }
            Self::Bus(_) => Vec::new(),
        }
    }
}

fn bus_path(cx: &MonitorCx<'_, '_>, id: BusId) -> String {
    let Some(bus) = cx.m.tree.bus(id) else { return String::new() };
    match bus.owner {
        Some(owner) => format!("{}/{}", cx.m.tree.path(owner), bus.name),
        None => "/machine/unattached/sysbus".into(),
    }
}

/// The object at an absolute path, or at a partial path that only one object ends in.
pub(crate) fn resolve(cx: &MonitorCx<'_, '_>, path: &str) -> QResult<Object> {
    let missing = || QError::new(ErrorClass::DeviceNotFound, format!("Device '{path}' not found"));
    let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
    if path.starts_with('/') {
        return descend(cx, ROOT, &parts).ok_or_else(missing);
    }
    let mut found = Vec::new();
    search(cx, ROOT, &parts, &mut found);
    match found.as_slice() {
        [only] => Ok(*only),
        [] => Err(missing()),
        _ => Err(qerr!("Path '{path}' does not uniquely identify an object")),
    }
}

fn descend(cx: &MonitorCx<'_, '_>, from: Object, parts: &[&str]) -> Option<Object> {
    parts.iter().try_fold(from, |at, part| {
        at.children(cx).into_iter().find(|(name, _)| name == part).map(|(_, child)| child)
    })
}

/// Collects the objects from which the partial path leads on.
fn search(cx: &MonitorCx<'_, '_>, at: Object, parts: &[&str], found: &mut Vec<Object>) {
    if let Some(object) = descend(cx, at, parts) {
        found.push(object);
    }
    for (_, child) in at.children(cx) {
        search(cx, child, parts, found);
    }
}

fn info(name: &str, ty: &str) -> ObjectPropertyInfo {
    ObjectPropertyInfo { name: name.into(), type_: ty.into(), description: None, default_value: None }
}

/// Properties of every device that do not come from its class.
const DEVICE_PROPS: [(&str, &str); 4] =
    [("parent_bus", "link<bus>"), ("realized", "bool"), ("hotplugged", "bool"), ("hotpluggable", "bool")];

/// Properties of a class as introspection shows them.
fn class_props(class: &'static ClassInfo) -> impl Iterator<Item = ObjectPropertyInfo> {
    class.props.iter().map(|p| ObjectPropertyInfo {
        name: p.name.into(),
        type_: p.ty.into(),
        description: (!p.desc.is_empty()).then(|| p.desc.into()),
        default_value: (p.default)(),
    })
}

pub(crate) fn qom_list(cx: &mut MonitorCx<'_, '_>, args: QomPath) -> QResult<Vec<ObjectPropertyInfo>> {
    let object = resolve(cx, &args.path)?;
    let mut list = vec![info("type", "string")];
    match object {
        Object::Device(id) => {
            list.extend(DEVICE_PROPS.map(|(n, t)| info(n, t)));
            if let Some(d) = cx.m.tree.get(id) {
                list.extend(class_props(d.class).map(|p| info(&p.name, &p.type_)));
            }
        }
        Object::Machine => {
            let props = cx.m.board.as_ref().map(|b| b.props.table());
            list.extend(props.into_iter().flat_map(|t| t.iter()).map(|p| info(p.name, p.ty)));
        }
        CHARDEVS => {
            let ids = cx.m.chardevs.info().into_iter();
            list.extend(ids.map(|c| info(&c.label, "child<chardev>")));
        }
        Object::Bus(_) => {
            list.extend([info("hotplug-handler", "link<hotplug-handler>"), info("realized", "bool")])
        }
        Object::Container(_) => {}
    }
    for (name, child) in object.children(cx) {
        list.push(info(&name, &format!("child<{}>", child.type_name(cx))));
    }
    Ok(list)
}

pub(crate) fn qom_get(cx: &mut MonitorCx<'_, '_>, args: QomGet) -> QResult<Value> {
    let object = resolve(cx, &args.path)?;
    let name = args.property.as_str();
    let owner = object.type_name(cx);
    if name == "type" {
        return Ok(owner.into());
    }
    let value = match object {
        Object::Device(id) => device_prop(cx, id, name),
        Object::Machine => cx.m.board.as_ref().and_then(|b| b.get(name)).map(|p| p.value),
        Object::Bus(_) if name == "realized" => Some(true.into()),
        _ => None,
    };
    let child = || object.children(cx).into_iter().find(|(n, _)| n == name).map(|(_, c)| c.path(cx).into());
    value.or_else(child).ok_or_else(|| qerr!("Property '{owner}.{name}' not found"))
}

fn device_prop(cx: &MonitorCx<'_, '_>, id: DevId, name: &str) -> Option<Value> {
    let node = cx.m.tree.get(id)?;
    match name {
        "parent_bus" => Some(node.parent_bus.map_or(String::new(), |b| bus_path(cx, b)).into()),
        "realized" => Some(node.realized.into()),
        "hotplugged" => Some(node.hotplugged.into()),
        "hotpluggable" => Some(node.class.hotpluggable.into()),
        _ => node.props.get_prop(name).map(|p| p.value),
    }
}

pub(crate) fn qom_set(cx: &mut MonitorCx<'_, '_>, args: QomSet) -> QResult<()> {
    let object = resolve(cx, &args.path)?;
    let (name, owner) = (args.property.as_str(), object.type_name(cx));
    let fixed = || qerr!("Property '{owner}.{name}' is not writable");
    match object {
        _ if name == "type" => Err(fixed()),
        Object::Device(id) => {
            let node = cx.m.tree.get(id).ok_or_else(|| QError::device_not_found(&args.path))?;
            if DEVICE_PROPS.iter().any(|(n, _)| *n == name) {
                return Err(fixed());
            }
            if node.class.props.find(name).is_none() {
                return Err(qerr!("Property '{owner}.{name}' not found"));
            }
            let who = node.user_id().map_or(String::new(), |id| format!(" '{id}'"));
            Err(qerr!(
                "Attempt to set property '{name}' on device{who} (type '{owner}') after it was realized"
            ))
        }
        Object::Machine => match cx.m.board.as_ref().map(|b| b.props.table().find(name)) {
            // The properties of the machine were read when it was built.
            Some(Some(_)) => Err(qerr!("Property '{owner}.{name}' cannot be changed after start")),
            _ => Err(qerr!("Property '{owner}.{name}' not found")),
        },
        _ => Err(qerr!("Property '{owner}.{name}' not found")),
    }
}

pub(super) fn qom_list_types(_: &mut MonitorCx<'_, '_>, args: QomListTypes) -> QResult<Vec<ObjectTypeInfo>> {
    let wanted = |c: &&'static ClassInfo| {
        (args.abstract_ == Some(true) || !c.is_abstract)
            && args.implements.as_deref().is_none_or(|i| qom::is_a(c, i))
    };
    let one = |c: &'static ClassInfo| ObjectTypeInfo {
        name: c.name.into(),
        abstract_: c.is_abstract.then_some(true),
        parent: c.parent.map(Into::into),
    };
    Ok(qom::classes().filter(wanted).map(one).collect())
}

pub(super) fn device_list_properties(
    _: &mut MonitorCx<'_, '_>,
    args: TypeName,
) -> QResult<Vec<ObjectPropertyInfo>> {
    let class = qom::class_by_name(&args.typename).ok_or_else(|| QError::device_not_found(&args.typename))?;
    if class.is_abstract || !qom::is_a(class, "device") {
        return Err(qerr!("Parameter 'typename' expects a non-abstract device type"));
    }
    Ok(class_props(class).collect())
}

pub(super) fn qom_list_properties(
    _: &mut MonitorCx<'_, '_>,
    args: TypeName,
) -> QResult<Vec<ObjectPropertyInfo>> {
    let missing = || QError::new(ErrorClass::DeviceNotFound, format!("Class '{}' not found", args.typename));
    let class = qom::class_by_name(&args.typename).ok_or_else(missing)?;
    let mut list = vec![info("type", "string")];
    if qom::is_a(class, "device") {
        list.extend(DEVICE_PROPS.map(|(n, t)| info(n, t)));
    }
    list.extend(class_props(class).map(|p| ObjectPropertyInfo { default_value: None, ..p }));
    Ok(list)
}

/// Text form of a property of a device, as `info qtree` prints it.
pub(crate) fn prop_text(cx: &MonitorCx<'_, '_>, id: DevId, name: &str) -> Option<String> {
    cx.m.tree.get(id)?.props.get_prop(name).map(|p| p.text)
}

/// A value for a property from text, as HMP's `qom-set` takes it: JSON if it is, else a string.
pub(crate) fn value_from_text(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| text.into())
}
