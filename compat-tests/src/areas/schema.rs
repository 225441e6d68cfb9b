//! Introspection: commands and events with their argument types, command-line options with theirs.
//!
//! Type names in `query-qmp-schema` are arbitrary, so each command is compared with its types written out.

use super::Sides;
use crate::bins::Bin;
use crate::compare;
use crate::score::{keyed, Row};
use crate::vm::Vm;
use crate::Res;
use serde_json::{json, Map, Value};
use std::collections::BTreeMap;

type Set = BTreeMap<String, Value>;

/// All rows.
pub fn run(sides: &Sides) -> Vec<Row> {
    let get = |b: &Bin| -> Res<Set> {
        let mut vm = Vm::start(b, "-machine none -nodefaults -display none")?;
        let mut out = Set::new();
        let mut ask = |c: &str| vm.query(c).map_err(|e| format!("{c}: {e}"));
        for c in ask("query-commands")?.as_array().into_iter().flatten() {
            out.insert(format!("query-commands: {}", c["name"].as_str().unwrap_or("?")), c.clone());
        }
        for o in ask("query-command-line-options")?.as_array().into_iter().flatten() {
            out.insert(format!("option: {}", o["option"].as_str().unwrap_or("?")), option(o));
        }
        out.extend(schema(&ask("query-qmp-schema")?));
        Ok(out)
    };
    let (ours, qemu) = sides.both(get);
    let qemu = match qemu {
        Ok(q) => q,
        Err(e) => return vec![Row::of("schema", Ok(()), Err(e), |_, _| None)],
    };
    keyed("", &ours.unwrap_or_default(), &qemu, |_, a, b| compare::first("schema", a, b))
}

/// Names and types of an option's parameters; the help texts are prose.
fn option(o: &Value) -> Value {
    let mut m = Map::new();
    for p in o["parameters"].as_array().into_iter().flatten() {
        m.insert(p["name"].as_str().unwrap_or("?").to_owned(), json!([p["type"], p.get("default")]));
    }
    Value::Object(m)
}

fn schema(v: &Value) -> Set {
    let entries: Vec<&Value> = v.as_array().into_iter().flatten().collect();
    let by_name: BTreeMap<&str, &Value> =
        entries.iter().filter_map(|e| Some((e["name"].as_str()?, *e))).collect();
    let mut out = Set::new();
    for e in &entries {
        let (Some(name), Some(meta)) = (e["name"].as_str(), e["meta-type"].as_str()) else { continue };
        let mut open = vec![];
        let text = match meta {
            "command" => json!({
                "arg": written_out(&e["arg-type"], &by_name, &mut open),
                "ret": written_out(&e["ret-type"], &by_name, &mut open),
                "oob": e.get("allow-oob"),
                "features": e.get("features"),
            }),
            "event" => json!({ "arg": written_out(&e["arg-type"], &by_name, &mut open) }),
            _ => continue,
        };
        out.insert(format!("{meta}: {name}"), text);
    }
    out
}

/// How deep types are written out; deeper ones are shown by their kind only. Recursive types end where they recur.
const DEPTH: usize = 7;

fn written_out(name: &Value, all: &BTreeMap<&str, &Value>, open: &mut Vec<String>) -> Value {
    let Some(name) = name.as_str() else { return Value::Null };
    let Some(t) = all.get(name) else { return json!(format!("unknown {name}")) };
    let kind = t["meta-type"].as_str().unwrap_or("?");
    if open.len() >= DEPTH || open.iter().any(|o| o == name) {
        return json!(kind);
    }
    open.push(name.to_owned());
    let v = match kind {
        "builtin" => t["json-type"].clone(),
        "enum" => {
            let mut names: Vec<Value> = t["values"].as_array().cloned().unwrap_or_default();
            names.sort_by_key(Value::to_string);
            json!(names)
        }
        "array" => json!([written_out(&t["element-type"], all, open)]),
        "alternate" => {
            let m = t["members"].as_array().into_iter().flatten();
            let mut list: Vec<Value> = m.map(|m| written_out(&m["type"], all, open)).collect();
            list.sort_by_key(Value::to_string);
            json!({ "alternate": list })
        }
        "object" => {
            let mut o = Map::new();
            for m in t["members"].as_array().into_iter().flatten() {
                let optional = if m.get("default").is_some() { "?" } else { "" };
                let key = format!("{}{optional}", m["name"].as_str().unwrap_or("?"));
                o.insert(key, written_out(&m["type"], all, open));
            }
            for c in t["variants"].as_array().into_iter().flatten() {
                let key =
                    format!("{}={}", t["tag"].as_str().unwrap_or("?"), c["case"].as_str().unwrap_or("?"));
                o.insert(key, written_out(&c["type"], all, open));
            }
            Value::Object(o)
        }
        _ => json!(kind),
    };
    open.pop();
    v
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn type_names_do_not_matter() {
        let s = |a: &str, b: &str| {
            schema(&json!([
                {"name": "quit", "meta-type": "command", "arg-type": a, "ret-type": a},
                {"name": a, "meta-type": "object", "members": [{"name": "x", "type": b, "default": null}]},
                {"name": b, "meta-type": "array", "element-type": "str"},
                {"name": "str", "meta-type": "builtin", "json-type": "string"}
            ]))
        };
        assert_eq!(s("0", "1"), s("7", "9"));
        assert_eq!(s("0", "1")["command: quit"]["arg"], json!({"x?": ["string"]}));
    }
}
