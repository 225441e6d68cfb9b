//! Checks a dictionary against a schema and gives every value its type.
//!
//! The command line's text (`QemuOpts` or keyval) and QMP's JSON describe the same structures, with different
//! rules for scalars and different error texts. After [`check`] the result no longer shows where it came from.

use super::schema::{Field, Kind, Struct};
use super::size;
use super::value::{bad_type, bad_value, parse_bool, Dict, Value};
use crate::error::QResult;
use crate::qerr;

/// The notation that a dictionary was written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Flat `a=b` options; a list is a key given several times.
    Opts,
    /// Dotted keys; every scalar is text.
    Keyval,
    /// JSON; scalars have types.
    Json,
}

/// Checks `dict` and returns it typed: members in schema order, absent ones left out.
///
/// Errors: a member missing, unknown or of the wrong type, in the words of QEMU for that notation.
pub fn check(dict: Dict, schema: &Struct, mode: Mode) -> QResult<Dict> {
    check_at(dict, schema, mode, "")
}

fn check_at(mut dict: Dict, schema: &Struct, mode: Mode, path: &str) -> QResult<Dict> {
    let mut out = Dict::new();
    let mut visit = Visit { dict: &mut dict, out: &mut out, mode, path };
    for field in schema.fields {
        visit.field(field)?;
    }
    if let Some(tag) = schema.tag {
        let case = out.get_str(tag.name).unwrap_or_default().to_string();
        if let Some((_, fields)) = tag.branches.iter().find(|(name, _)| *name == case) {
            let mut visit = Visit { dict: &mut dict, out: &mut out, mode, path };
            for field in *fields {
                visit.field(field)?;
            }
        }
    }
    match dict.iter().next() {
        None => Ok(out),
        Some((key, _)) if mode == Mode::Opts => Err(qerr!("Invalid parameter '{key}'")),
        Some((key, _)) => Err(qerr!("Parameter '{path}{key}' is unexpected")),
    }
}

/// One structure under way.
struct Visit<'a> {
    /// What has not been looked at.
    dict: &'a mut Dict,
    out: &'a mut Dict,
    mode: Mode,
    /// Prefix of names in messages: empty, or ends in a dot.
    path: &'a str,
}

impl Visit<'_> {
    fn field(&mut self, field: &Field) -> QResult<()> {
        let full = format!("{}{}", self.path, field.name);
        if let (Mode::Opts, Kind::List(item)) = (self.mode, &field.kind) {
            return self.repeated(field, item);
        }
        match self.dict.remove(field.name) {
            Some(value) => {
                let value = convert(value, &field.kind, self.mode, field.name, &full)?;
                self.out.push(field.name, value);
                Ok(())
            }
            None if field.required => Err(qerr!("Parameter '{full}' is missing")),
            None => Ok(()),
        }
    }

    /// A list in flat options: each occurrence is an item, a range of numbers several.
    fn repeated(&mut self, field: &Field, item: &Kind) -> QResult<()> {
        let mut list = Vec::new();
        let mut rest = Dict::new();
        for (key, value) in std::mem::take(self.dict) {
            if key != field.name {
                rest.push(key, value);
                continue;
            }
            match item {
                Kind::Int(_) => extend_range(&mut list, &value, field.name)?,
                Kind::Struct(_) => {
                    list.push(Value::Dict(Dict::from_iter([("str".to_string(), to_str(value))])))
                }
                _ => list.push(to_str(value)),
            }
        }
        *self.dict = rest;
        if !list.is_empty() {
            self.out.push(field.name, Value::List(list));
        } else if field.required {
            return Err(qerr!("Parameter '{}' is missing", field.name));
        }
        Ok(())
    }
}

/// Numbers a range may stand for.
const MAX_RANGE: u64 = 65_536;

fn extend_range(list: &mut Vec<Value>, value: &Value, name: &str) -> QResult<()> {
    let text = value.as_str().unwrap_or_default();
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (size::parse_u64(first), size::parse_u64(last)) {
        (Some(a), Some(b)) if a <= b && b - a < MAX_RANGE && list.len() as u64 <= MAX_RANGE => {
            list.extend((a..=b).map(|v| i64::try_from(v).map_or(Value::UInt(v), Value::Int)));
            Ok(())
        }
        _ => Err(bad_value(name, "a uint64 value or range")),
    }
}

fn to_str(value: Value) -> Value {
    match value {
        Value::Text(s) => Value::Str(s),
        other => other,
    }
}

fn convert(value: Value, kind: &Kind, mode: Mode, name: &str, full: &str) -> QResult<Value> {
    let nested = matches!(value, Value::Dict(_) | Value::List(_));
    if mode == Mode::Keyval && nested && !matches!(kind, Kind::Any | Kind::Struct(_) | Kind::List(_)) {
        return Err(qerr!("Parameters '{full}.*' are unexpected"));
    }
    match kind {
        Kind::Any => Ok(value),
        Kind::Str => match value {
            Value::Text(s) | Value::Str(s) => Ok(Value::Str(s)),
            _ => Err(bad_type(full, "string")),
        },
        Kind::Bool => match (&value, mode) {
            (Value::Text(s), Mode::Opts | Mode::Keyval) => parse_bool(full, s).map(Value::Bool),
            (Value::Bool(_), _) => Ok(value),
            _ => Err(bad_type(full, "boolean")),
        },
        Kind::Int(int) => convert_int(&value, int, mode, name, full),
        Kind::Size => convert_size(&value, mode, full),
        Kind::Enum(names) => match value.as_str() {
            Some(s) if names.contains(&s) => Ok(Value::Str(s.to_string())),
            Some(s) => Err(qerr!("Parameter '{name}' does not accept value '{s}'")),
            None => Err(bad_type(full, "string")),
        },
        Kind::Struct(schema) => match value {
            Value::Dict(dict) => Ok(Value::Dict(check_at(dict, schema, mode, &format!("{full}."))?)),
            _ => Err(bad_type(full, "object")),
        },
        Kind::List(item) => match value {
            Value::List(list) => {
                let items = list.into_iter().enumerate().map(|(i, v)| {
                    let at = if mode == Mode::Json { format!("{full}[{i}]") } else { format!("{full}.{i}") };
                    convert(v, item, mode, name, &at)
                });
                Ok(Value::List(items.collect::<QResult<_>>()?))
            }
            _ => Err(bad_type(full, "array")),
        },
    }
}

/// Bounds of an integer type.
#[derive(Clone, Copy, Debug)]
pub struct Int {
    /// Name in messages, as in C.
    pub name: &'static str,
    /// Least value.
    pub min: i64,
    /// Greatest value.
    pub max: u64,
}

impl Int {
    fn signed(&self) -> bool {
        self.min < 0
    }
}

fn convert_int(value: &Value, int: &Int, mode: Mode, name: &str, full: &str) -> QResult<Value> {
    let wide = match value {
        Value::Text(s) if int.signed() => size::parse_i64(s).map(i128::from),
        Value::Text(s) if mode == Mode::Opts && s.contains('-') => None,
        Value::Text(s) => size::parse_u64(s).map(i128::from),
        Value::Int(v) if int.signed() => Some(i128::from(*v)),
        // As in C: a negative number is taken for a huge one, which the bounds then refuse.
        Value::Int(v) => Some(i128::from(*v as u64)),
        Value::UInt(v) if !int.signed() => Some(i128::from(*v)),
        _ => None,
    };
    let Some(wide) = wide else {
        return Err(match (mode, int.signed()) {
            (Mode::Keyval, _) => bad_value(full, "integer"),
            (Mode::Opts, true) => bad_value(full, "an int64 value"),
            (Mode::Opts, false) => bad_value(full, "a uint64 value"),
            (Mode::Json, true) => bad_type(full, "integer"),
            (Mode::Json, false) => bad_value(full, "uint64"),
        });
    };
    if wide < i128::from(int.min) || wide > i128::from(int.max) {
        return Err(bad_value(name, int.name));
    }
    Ok(i64::try_from(wide).map_or(Value::UInt(wide as u64), Value::Int))
}

fn convert_size(value: &Value, mode: Mode, full: &str) -> QResult<Value> {
    let bytes = match value {
        Value::Text(s) => size::parse_size(s, size::Unit::Bytes).ok(),
        Value::Int(v) => Some(*v as u64),
        Value::UInt(v) => Some(*v),
        _ => None,
    };
    match (bytes, mode) {
        (Some(v), _) => Ok(i64::try_from(v).map_or(Value::UInt(v), Value::Int)),
        (None, Mode::Keyval) => Err(bad_value(full, "size")),
        (None, Mode::Opts) => Err(bad_value(full, "a size value")),
        (None, Mode::Json) => Err(bad_value(full, "uint64")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::schema;
    use super::*;

    fn dict(json: &str) -> Dict {
        match Value::from_json(serde_json::from_str(json).unwrap()) {
            Value::Dict(d) => d,
            _ => panic!("not an object"),
        }
    }

    /// The same with every scalar as text.
    fn text(value: Value) -> Value {
        match value {
            Value::Dict(d) => Value::Dict(d.into_iter().map(|(k, v)| (k, text(v))).collect()),
            Value::List(l) => Value::List(l.into_iter().map(text).collect()),
            Value::Str(s) => Value::Text(s),
            other => Value::Text(other.to_json().to_string()),
        }
    }

    fn run(json: &str, mode: Mode) -> Result<String, String> {
        let mut d = dict(json);
        if mode != Mode::Json {
            d = match text(Value::Dict(d)) {
                Value::Dict(d) => d,
                _ => unreachable!(),
            };
        }
        check(d, &schema::NETDEV, mode).map(|d| Value::Dict(d).to_json().to_string()).map_err(|e| e.desc)
    }

    #[test]
    fn json_and_text_come_to_the_same() {
        let json =
            r#"{"type":"stream","id":"a","addr":{"type":"inet","host":"h","port":"1","to":5},"server":true}"#;
        let a = run(json, Mode::Json).unwrap();
        assert_eq!(a, run(json, Mode::Keyval).unwrap());
        assert!(a.contains("\"to\":5"));
    }

    #[test]
    fn messages_per_notation() {
        let err = |json: &str, mode| run(json, mode).unwrap_err();
        let json = r#"{"type":"user","id":"a","x":1}"#;
        assert_eq!(err(json, Mode::Json), "Parameter 'x' is unexpected");
        assert_eq!(err(json, Mode::Opts), "Invalid parameter 'x'");
        let json = r#"{"type":"user","id":"a","restrict":"x"}"#;
        assert_eq!(err(json, Mode::Json), "Invalid parameter type for 'restrict', expected: boolean");
        assert_eq!(err(json, Mode::Opts), "Parameter 'restrict' expects 'on' or 'off'");
        let json = r#"{"type":"hubport","id":"a","hubid":"x"}"#;
        assert_eq!(err(json, Mode::Json), "Invalid parameter type for 'hubid', expected: integer");
        assert_eq!(err(json, Mode::Opts), "Parameter 'hubid' expects an int64 value");
        let json = r#"{"type":"hubport","id":"a","hubid":70000000000}"#;
        assert_eq!(err(json, Mode::Json), "Parameter 'hubid' expects int32_t");
        let json = r#"{"type":"stream","id":"a","addr":{"type":"unix"}}"#;
        assert_eq!(err(json, Mode::Keyval), "Parameter 'addr.path' is missing");
        let json = r#"{"type":"stream","id":"a","addr":{"type":"foo"}}"#;
        assert_eq!(err(json, Mode::Keyval), "Parameter 'type' does not accept value 'foo'");
        let json = r#"{"type":"user","id":"a","hostfwd":[{"str":5}]}"#;
        assert_eq!(err(json, Mode::Json), "Invalid parameter type for 'hostfwd[0].str', expected: string");
        assert_eq!(err("{}", Mode::Json), "Parameter 'id' is missing");
    }

    #[test]
    fn lists_from_flat_options() {
        let mut d = Dict::new();
        for (k, v) in [("type", "node"), ("cpus", "0-2"), ("mem", "1k"), ("cpus", "7")] {
            d.push(k, Value::text(v));
        }
        let d = check(d, &schema::NUMA, Mode::Opts).unwrap();
        assert_eq!(Value::Dict(d).to_json().to_string(), r#"{"type":"node","cpus":[0,1,2,7],"mem":1024}"#);
        let bad =
            Dict::from_iter([("type".into(), Value::text("node")), ("cpus".into(), Value::text("3-1"))]);
        let err = check(bad, &schema::NUMA, Mode::Opts).unwrap_err();
        assert_eq!(err.desc, "Parameter 'cpus' expects a uint64 value or range");
    }
}
