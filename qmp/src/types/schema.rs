//! `query-qmp-schema`, put together from the definitions when somebody asks for it.

use super::Members;
use serde_json::{json, Map, Value};
use std::collections::HashMap;

/// The schema under construction. Types are numbered as they are met; names in the result mean nothing.
#[derive(Debug)]
pub struct Schema {
    entries: Vec<Value>,
    names: HashMap<String, String>,
    next: usize,
}

impl Default for Schema {
    fn default() -> Self {
        Self::new()
    }
}

impl Schema {
    /// Name of the object type without members.
    pub const EMPTY: &'static str = "0";

    /// A schema with the empty object only.
    pub fn new() -> Self {
        let empty = json!({"name": Self::EMPTY, "members": [], "meta-type": "object"});
        Self { entries: vec![empty], names: HashMap::new(), next: 1 }
    }

    /// The finished list of entries.
    pub fn into_entries(self) -> Vec<Value> {
        self.entries
    }

    /// Adds an entry that is no type (command or event).
    pub fn push(&mut self, entry: Value) {
        self.entries.push(entry);
    }

    /// A built-in type.
    pub fn builtin(&mut self, name: &str, json_type: &str) -> String {
        if self.names.insert(name.into(), name.into()).is_none() {
            self.entries.push(json!({"name": name, "json-type": json_type, "meta-type": "builtin"}));
        }
        name.into()
    }

    /// A list type.
    pub fn array(&mut self, element: String) -> String {
        let name = format!("[{element}]");
        if self.names.insert(name.clone(), name.clone()).is_none() {
            self.entries.push(json!({"name": name, "element-type": element, "meta-type": "array"}));
        }
        name
    }

    /// The type known to the program as `key`, made by `make` when it is met first. It has its number before `make`
    /// runs, so that it may contain itself.
    fn define(&mut self, key: &str, make: impl FnOnce(&mut Self) -> Map<String, Value>) -> String {
        if let Some(name) = self.names.get(key) {
            return name.clone();
        }
        let name = self.next.to_string();
        self.next += 1;
        self.names.insert(key.into(), name.clone());
        let mut entry = Map::new();
        entry.insert("name".into(), name.as_str().into());
        entry.extend(make(self));
        self.entries.push(entry.into());
        name
    }

    /// An object type.
    pub fn object(&mut self, key: &str, members: impl FnOnce(&mut Self) -> Members) -> String {
        self.define(key, |schema| {
            let Members { members, union } = members(schema);
            let mut entry = Map::new();
            if let Some((tag, variants)) = union {
                entry.insert("tag".into(), tag.into());
                entry.insert("variants".into(), variants.into());
            }
            entry.insert("members".into(), members.into());
            entry.insert("meta-type".into(), "object".into());
            entry
        })
    }

    /// An enumeration.
    pub fn enumeration(&mut self, key: &str, values: &[&str]) -> String {
        self.define(key, |_| {
            let mut entry = Map::new();
            entry.insert("members".into(), values.iter().map(|v| json!({"name": v})).collect());
            entry.insert("meta-type".into(), "enum".into());
            entry.insert("values".into(), values.iter().map(|&v| Value::from(v)).collect());
            entry
        })
    }

    /// An alternate: one of several types that JSON can tell apart.
    pub fn alternate(&mut self, key: &str, types: impl FnOnce(&mut Self) -> Vec<String>) -> String {
        self.define(key, |schema| {
            let members = types(schema).into_iter().map(|t| json!({"type": t})).collect();
            let mut entry = Map::new();
            entry.insert("members".into(), members);
            entry.insert("meta-type".into(), "alternate".into());
            entry
        })
    }
}
