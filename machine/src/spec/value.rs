//! Ordered dictionaries of option values, as `keyval` text or JSON gave them.

use crate::error::{QError, QResult};
use crate::qerr;
use crate::spec::size;

/// One value. `Text` is what a command line or `keyval` string gives: its type is not yet known, so that
/// `size=4`, `size=4k` and `on=yes` are decided by whoever reads it. The other variants come from JSON and
/// are strict.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Untyped text.
    Text(String),
    /// JSON null.
    Null,
    /// JSON true or false.
    Bool(bool),
    /// A JSON integer in the signed range.
    Int(i64),
    /// A JSON integer above `i64::MAX`.
    UInt(u64),
    /// Any other JSON number.
    Float(f64),
    /// A JSON string.
    Str(String),
    /// A JSON array, or `key.0=…,key.1=…`.
    List(Vec<Value>),
    /// A JSON object, or dotted keys.
    Dict(Dict),
}

impl Value {
    /// Untyped text.
    pub fn text(s: impl Into<String>) -> Self {
        Self::Text(s.into())
    }

    /// The string in a `Text` or `Str`.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Text(s) | Self::Str(s) => Some(s),
            _ => None,
        }
    }

    /// Name of the JSON type, for messages.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Text(_) | Self::Str(_) => "string",
            Self::Null => "null",
            Self::Bool(_) => "boolean",
            Self::Int(_) | Self::UInt(_) | Self::Float(_) => "number",
            Self::List(_) => "array",
            Self::Dict(_) => "object",
        }
    }

    /// A boolean: JSON `true`/`false`, or text `on/off`, `yes/no`, `true/false`, `y/n`.
    pub fn to_bool(&self, name: &str) -> QResult<bool> {
        match self {
            Self::Bool(b) => Ok(*b),
            Self::Text(s) => parse_bool(name, s),
            _ => Err(bad_type(name, "boolean")),
        }
    }

    /// A signed integer: a JSON number, or text in decimal, `0x` or octal notation.
    pub fn to_i64(&self, name: &str) -> QResult<i64> {
        match self {
            Self::Int(v) => Ok(*v),
            Self::Text(s) => size::parse_i64(s).ok_or_else(|| bad_value(name, "integer")),
            _ => Err(bad_type(name, "integer")),
        }
    }

    /// An unsigned 64-bit integer: a JSON number (negative ones wrap, as in QEMU), or text.
    pub fn to_u64(&self, name: &str) -> QResult<u64> {
        match self {
            Self::Int(v) => Ok(*v as u64),
            Self::UInt(v) => Ok(*v),
            Self::Text(s) => size::parse_u64(s).ok_or_else(|| bad_value(name, "a uint64 value")),
            _ => Err(bad_value(name, "uint64")),
        }
    }

    /// A size in bytes: a JSON number, or text with an optional suffix (bytes when there is none).
    pub fn to_size(&self, name: &str) -> QResult<u64> {
        match self {
            Self::Text(s) => {
                size::parse_size(s, size::Unit::Bytes).map_err(|_| bad_value(name, "a size value"))
            }
            other => other.to_u64(name),
        }
    }

    /// From `serde_json`; numbers keep their class.
    pub fn from_json(json: serde_json::Value) -> Self {
        use serde_json::Value as J;
        match json {
            J::Null => Self::Null,
            J::Bool(b) => Self::Bool(b),
            J::Number(n) => match (n.as_i64(), n.as_u64()) {
                (Some(i), _) => Self::Int(i),
                (_, Some(u)) => Self::UInt(u),
                _ => Self::Float(n.as_f64().unwrap_or(f64::NAN)),
            },
            J::String(s) => Self::Str(s),
            J::Array(a) => Self::List(a.into_iter().map(Self::from_json).collect()),
            J::Object(o) => Self::Dict(o.into_iter().map(|(k, v)| (k, Self::from_json(v))).collect()),
        }
    }

    /// To `serde_json`; `Text` becomes a string.
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as J;
        match self {
            Self::Null => J::Null,
            Self::Bool(b) => J::Bool(*b),
            Self::Int(i) => J::from(*i),
            Self::UInt(u) => J::from(*u),
            Self::Float(f) => J::from(*f),
            Self::Text(s) | Self::Str(s) => J::String(s.clone()),
            Self::List(l) => J::Array(l.iter().map(Self::to_json).collect()),
            Self::Dict(d) => J::Object(d.iter().map(|(k, v)| (k.to_string(), v.to_json())).collect()),
        }
    }
}

/// Error for a value of the wrong JSON type.
pub fn bad_type(name: &str, expected: &str) -> QError {
    qerr!("Invalid parameter type for '{name}', expected: {expected}")
}

/// Error for text that does not parse as `expected` ("boolean" or a phrase such as "a size value").
pub fn bad_value(name: &str, expected: &str) -> QError {
    match expected {
        "boolean" => qerr!("Parameter '{name}' expects 'on' or 'off'"),
        other => qerr!("Parameter '{name}' expects {other}"),
    }
}

/// Reads the words QEMU takes for a boolean.
pub fn parse_bool(name: &str, text: &str) -> QResult<bool> {
    match text {
        "on" | "yes" | "true" | "y" => Ok(true),
        "off" | "no" | "false" | "n" => Ok(false),
        _ => Err(bad_value(name, "boolean")),
    }
}

/// A dictionary that keeps the order of its keys and may be compared. Lookup is linear: these are short.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dict(Vec<(String, Value)>);

impl Dict {
    /// An empty one.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True when there is no entry.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Entries in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&str, &Value)> {
        self.0.iter().map(|(k, v)| (k.as_str(), v))
    }

    /// The last value of `key`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.iter().rev().find(|(k, _)| k == key).map(|(_, v)| v)
    }

    /// As [`get`](Self::get), mutable.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Value> {
        self.0.iter_mut().rev().find(|(k, _)| k == key).map(|(_, v)| v)
    }

    /// The string under `key`, when it is one.
    pub fn get_str(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Value::as_str)
    }

    /// True when `key` is there.
    pub fn contains(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// A boolean under `key`, if any.
    pub fn get_bool(&self, key: &str) -> QResult<Option<bool>> {
        self.get(key).map(|v| v.to_bool(key)).transpose()
    }

    /// A signed integer under `key`, if any.
    pub fn get_i64(&self, key: &str) -> QResult<Option<i64>> {
        self.get(key).map(|v| v.to_i64(key)).transpose()
    }

    /// An unsigned integer under `key`, if any.
    pub fn get_u64(&self, key: &str) -> QResult<Option<u64>> {
        self.get(key).map(|v| v.to_u64(key)).transpose()
    }

    /// A size under `key`, if any.
    pub fn get_size(&self, key: &str) -> QResult<Option<u64>> {
        self.get(key).map(|v| v.to_size(key)).transpose()
    }

    /// Adds an entry at the end without looking for an earlier one of that name.
    pub fn push(&mut self, key: impl Into<String>, value: Value) {
        self.0.push((key.into(), value));
    }

    /// Replaces the value of `key`, or adds it at the end.
    pub fn set(&mut self, key: &str, value: Value) {
        match self.get_mut(key) {
            Some(slot) => *slot = value,
            None => self.push(key, value),
        }
    }

    /// Takes every entry called `key` out; returns the last.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        if !self.contains(key) {
            return None;
        }
        let mut last = None;
        let mut i = 0;
        while i < self.0.len() {
            if self.0[i].0 == key {
                last = Some(self.0.remove(i).1);
            } else {
                i += 1;
            }
        }
        last
    }

    /// Takes a string out; `None` when absent or not a string.
    pub fn remove_str(&mut self, key: &str) -> Option<String> {
        match self.remove(key) {
            Some(Value::Text(s) | Value::Str(s)) => Some(s),
            _ => None,
        }
    }
}

impl FromIterator<(String, Value)> for Dict {
    fn from_iter<I: IntoIterator<Item = (String, Value)>>(iter: I) -> Self {
        Self(iter.into_iter().collect())
    }
}

impl IntoIterator for Dict {
    type Item = (String, Value);
    type IntoIter = std::vec::IntoIter<(String, Value)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
