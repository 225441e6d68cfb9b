//! The object tree and the class registry, as QMP shows them.

use crate::monitors::MonitorCx;
use crate::qapi_struct;
use crate::qom_tree::{self, info, resolve, Object, DEVICE_PROPS};
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
    list.extend(qom_tree::properties(cx.m, object));
    for (name, child) in object.children(cx.m) {
        list.push(info(&name, &format!("child<{}>", child.type_name(cx.m))));
    }
    Ok(list)
}

pub(crate) fn qom_get(cx: &mut MonitorCx<'_, '_>, args: QomGet) -> QResult<Value> {
    let object = resolve(cx, &args.path)?;
    qom_tree::property(cx.m, object, &args.property)
        .ok_or_else(|| qerr!("Property '{}.{}' not found", object.type_name(cx.m), args.property))
}

pub(crate) fn qom_set(cx: &mut MonitorCx<'_, '_>, args: QomSet) -> QResult<()> {
    let object = resolve(cx, &args.path)?;
    let (name, owner) = (args.property.as_str(), object.type_name(cx.m));
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
        Object::User(n) => {
            let id = cx.m.objects.iter().nth(n).map(|o| o.id.clone()).unwrap_or_default();
            cx.m.object_set(&id, name, &args.value)
        }
        other if qom_tree::property(cx.m, other, name).is_some() => Err(fixed()),
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

/// A value for a property from text, as HMP's `qom-set` takes it: JSON if it is, else a string.
pub(crate) fn value_from_text(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| text.into())
}
