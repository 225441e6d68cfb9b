//! Objects of users.

use crate::monitors::MonitorCx;
use crate::qapi_struct;
use crate::types::{branch_type, Describe, Members, Raw, Schema};
use rqemu_machine::objects::{find_type, TYPES};
use rqemu_machine::spec::visit::Mode;
use rqemu_machine::spec::{Dict, Value as SpecValue};
use rqemu_machine::{qerr, QResult};
use serde_json::{json, Value};

qapi_struct! {
    /// Arguments of `object-del`.
    pub struct ObjectDel {
        /// Id.
        id: String,
    }
}

/// Arguments of `object-add`: described from the types that there are.
#[derive(Clone, Debug)]
pub struct ObjectOptions;

impl Describe for ObjectOptions {
    fn describe(schema: &mut Schema) -> String {
        schema.object("object-add", |schema| {
            let names: Vec<&str> = TYPES.iter().map(|t| t.name).collect();
            let (kind, text) = (schema.enumeration("object types", &names), schema.builtin("str", "string"));
            let mut members = Members::default();
            members.members.push(json!({"name": "qom-type", "type": kind}));
            members.members.push(json!({"name": "id", "type": text}));
            for t in TYPES {
                let ty = branch_type(schema, t.schema.fields);
                members.branch("qom-type", t.name, ty);
            }
            members
        })
    }
}

pub(super) fn object_add(cx: &mut MonitorCx<'_, '_>, args: Raw<ObjectOptions>) -> QResult<()> {
    let mut map = args.map;
    let mut word = |name: &str| match map.swap_remove(name) {
        Some(Value::String(s)) => Ok(s),
        Some(_) => Err(qerr!("Invalid parameter type for '{name}', expected: string")),
        None => Err(qerr!("Parameter '{name}' is missing")),
    };
    let ty = word("qom-type")?;
    if find_type(&ty).is_none() {
        return Err(qerr!("Parameter 'qom-type' does not accept value '{ty}'"));
    }
    let id = word("id")?;
    let props: Dict = map.into_iter().map(|(k, v)| (k, SpecValue::from_json(v))).collect();
    add(cx, &ty, &id, &props, Mode::Json)
}

/// Creates an object from either monitor.
pub(crate) fn add(cx: &mut MonitorCx<'_, '_>, ty: &str, id: &str, props: &Dict, mode: Mode) -> QResult<()> {
    cx.m.object_add(ty, id, props, mode)
}

pub(crate) fn object_del(cx: &mut MonitorCx<'_, '_>, args: ObjectDel) -> QResult<()> {
    cx.m.object_del(&args.id)
}
