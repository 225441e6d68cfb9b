//! The object tree and the class registry, as QMP shows them.

use crate::monitors::MonitorCx;
use crate::qapi_struct;
use crate::qom_tree::{self, info, resolve, Object, DEVICE_PROPS};
use rqemu_machine::{qerr, QError, QResult};
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

pub(crate) fn qom_list(cx: &mut MonitorCx<'_, '_>, args: QomPath) -> QResult<Vec<ObjectPropertyInfo>> {
    let object = resolve(cx, &args.path)?;
    let mut list = vec![info("type", "string")];
    list.extend(qom_tree::properties(cx.m, object));
    if is_balloon(cx, object) {
        list.push(info("guest-stats", "guest statistics"));
        list.push(info("guest-stats-polling-interval", "int"));
    }
    for (name, child) in object.children(cx.m) {
        list.push(info(&name, &format!("child<{}>", child.type_name(cx.m))));
    }
    Ok(list)
}

pub(crate) fn qom_get(cx: &mut MonitorCx<'_, '_>, args: QomGet) -> QResult<Value> {
    let object = resolve(cx, &args.path)?;
    if let Some(value) = balloon_property(cx, object, &args.property)? {
        return Ok(value);
    }
    qom_tree::property(cx.m, object, &args.property)
        .ok_or_else(|| qerr!("Property '{}.{}' not found", object.type_name(cx.m), args.property))
}

/// Whether `object` is the balloon that the guest sees.
fn is_balloon(cx: &MonitorCx<'_, '_>, object: Object) -> bool {
    matches!(object, Object::Device(id)
        if cx.m.tree.get(id).is_some_and(|d| d.class.name.starts_with("virtio-balloon")))
}

/// Properties of the balloon that only its run-time half knows.
fn balloon_property(cx: &mut MonitorCx<'_, '_>, object: Object, name: &str) -> QResult<Option<Value>> {
    if !is_balloon(cx, object) {
        return Ok(None);
    }
    match name {
        "guest-stats" => cx.m.balloon_stats().map(Some),
        "guest-stats-polling-interval" => cx.m.balloon_polling_interval().map(|v| Some(v.into())),
        _ => Ok(None),
    }
}

pub(crate) fn qom_set(cx: &mut MonitorCx<'_, '_>, args: QomSet) -> QResult<()> {
    let object = resolve(cx, &args.path)?;
    let (name, owner) = (args.property.as_str(), object.type_name(cx.m));
    let fixed = || qerr!("Property '{owner}.{name}' is not writable");
    match object {
        _ if name == "type" => Err(fixed()),
        _ if name == "guest-stats" && is_balloon(cx, object) => {
            Err(qerr!("Property 'virtio-balloon-device.guest-stats' is not writable"))
        }
        _ if name == "guest-stats-polling-interval" && is_balloon(cx, object) => {
            let seconds = args.value.as_i64();
            let seconds =
                seconds.ok_or_else(|| qerr!("Invalid parameter type for '{name}', expected: integer"))?;
            cx.m.balloon_set_polling_interval(seconds)
        }
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
            Some(Some(p)) => Err(match (p.ty, &args.value) {
                ("bool", v) if !v.is_boolean() => {
                    qerr!("Invalid parameter type for '{name}', expected: boolean")
                }
                ("string", v) if !v.is_string() => {
                    qerr!("Invalid parameter type for '{name}', expected: string")
                }
                _ => qerr!("Property '{owner}.{name}' cannot be changed after start"),
            }),
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

/// A value for a property from text, as HMP's `qom-set` takes it: JSON if it is, else a string.
pub(crate) fn value_from_text(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| text.into())
}
