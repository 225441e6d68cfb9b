//! Objects being read, and the description of their members.

use super::{wrong_type, Describe, FromQapi, Path, QapiObject, Schema};
use rqemu_machine::{qerr, QResult};
use serde_json::{json, Map, Value};

/// An object whose members are being taken out one by one.
pub struct ObjectIn<'a> {
    map: Map<String, Value>,
    at: &'a Path<'a>,
}

impl<'a> ObjectIn<'a> {
    /// Reads a whole object as `T`; what `T` leaves over is an error.
    pub fn read_all<T: QapiObject>(value: Value, at: &'a Path<'a>) -> QResult<T> {
        let Value::Object(map) = value else { return Err(wrong_type(at, "object")) };
        let mut this = Self { map, at };
        let object = T::read(&mut this)?;
        match this.map.keys().next() {
            None => Ok(object),
            Some(name) => Err(qerr!("Parameter '{}' is unexpected", Path::Member(at, name))),
        }
    }

    /// Takes the member `name`.
    pub fn take<T: FromQapi>(&mut self, name: &str) -> QResult<T> {
        let at = Path::Member(self.at, name);
        match self.map.swap_remove(name) {
            Some(value) => T::from_qapi(value, &at),
            None => T::absent(&at),
        }
    }
}

/// Members of an object type, as the schema shows them.
#[derive(Debug, Default)]
pub struct Members {
    /// `members`.
    pub members: Vec<Value>,
    /// `tag` and `variants` of a union.
    pub union: Option<(&'static str, Vec<Value>)>,
}

impl Members {
    /// Adds a member of type `T`.
    pub fn add<T: Describe>(&mut self, schema: &mut Schema, name: &str) {
        let ty = T::describe(schema);
        self.members.push(if T::OPTIONAL {
            json!({"name": name, "default": null, "type": ty})
        } else {
            json!({"name": name, "type": ty})
        });
    }

    /// Adds a branch of a union.
    pub fn branch(&mut self, tag: &'static str, case: &str, ty: String) {
        self.union.get_or_insert_with(|| (tag, Vec::new())).1.push(json!({"case": case, "type": ty}));
    }

    /// Adds the members of `T`.
    pub fn flatten<T: QapiObject>(&mut self, schema: &mut Schema) {
        let inner = T::members(schema);
        self.members.extend(inner.members);
        if inner.union.is_some() {
            self.union = inner.union;
        }
    }
}
