//! What the tables say about themselves.

use crate::commands::{COMMANDS, EVENTS};
use crate::types::Schema;
use serde_json::{json, Map, Value};

/// Entries of `query-qmp-schema`.
pub fn schema() -> Vec<Value> {
    let mut schema = Schema::new();
    for c in COMMANDS {
        let mut entry = Map::new();
        entry.insert("name".into(), c.name.into());
        entry.insert("ret-type".into(), (c.reply)(&mut schema).into());
        if c.oob {
            entry.insert("allow-oob".into(), true.into());
        }
        entry.insert("meta-type".into(), "command".into());
        entry.insert("arg-type".into(), (c.arguments)(&mut schema).into());
        if !c.features.is_empty() {
            entry.insert("features".into(), c.features.iter().map(|&f| Value::from(f)).collect());
        }
        schema.push(entry.into());
    }
    for e in EVENTS {
        let data = (e.data)(&mut schema);
        schema.push(json!({"name": e.name, "meta-type": "event", "arg-type": data}));
    }
    schema.into_entries()
}

/// Names of all commands.
pub fn command_names() -> impl Iterator<Item = &'static str> {
    COMMANDS.iter().map(|c| c.name)
}
