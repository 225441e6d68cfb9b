//! Types of object properties. They differ from those of devices in their names and messages.

use serde_json::Value;

use crate::qom::{PropInput, PropValue};
use crate::{qerr, QResult};

fn bad_type<T>(name: &str, expected: &str) -> QResult<T> {
    Err(qerr!("Invalid parameter type for '{name}', expected: {expected}"))
}

/// A signed number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Int64(pub i64);

/// A number of bytes, nodes, threads: unsigned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl From<i64> for Int64 {
    fn from(v: i64) -> Self {
        Self(v)
    }
}

impl From<u64> for Bytes {
    fn from(v: u64) -> Self {
        Self(v)
    }
}

impl PropValue for Int64 {
    const TYPE: &'static str = "int";
    fn from_input(_owner: &str, name: &str, input: &PropInput<'_>) -> QResult<Self> {
        let v = match input {
            PropInput::Str(s) => s.parse().ok(),
            PropInput::Json(v) => v.as_i64(),
        };
        v.map(Self).map_or_else(|| bad_type(name, "integer"), Ok)
    }
    fn to_value(&self) -> Value {
        self.0.into()
    }
    fn to_qtree(&self) -> String {
        self.0.to_string()
    }
}

impl PropValue for Bytes {
    const TYPE: &'static str = "int";
    fn from_input(_owner: &str, name: &str, input: &PropInput<'_>) -> QResult<Self> {
        let v = match input {
            PropInput::Str(s) => crate::qom::parse_size(s),
            // As in C, a negative number is a huge one.
            PropInput::Json(v) => v.as_u64().or_else(|| v.as_i64().map(|v| v as u64)),
        };
        v.map(Self).map_or_else(|| bad_type(name, "integer"), Ok)
    }
    fn to_value(&self) -> Value {
        self.0.into()
    }
    fn to_qtree(&self) -> String {
        self.0.to_string()
    }
}

/// Text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Str(pub Option<String>);

impl From<&str> for Str {
    fn from(s: &str) -> Self {
        Self(Some(s.to_string()))
    }
}

impl PropValue for Str {
    const TYPE: &'static str = "string";
    fn from_input(_owner: &str, name: &str, input: &PropInput<'_>) -> QResult<Self> {
        match input {
            PropInput::Str(s) => Ok(Self(Some((*s).to_string()))),
            PropInput::Json(Value::String(s)) => Ok(Self(Some(s.clone()))),
            PropInput::Json(_) => bad_type(name, "string"),
        }
    }
    fn to_value(&self) -> Value {
        self.0.clone().unwrap_or_default().into()
    }
    fn to_qtree(&self) -> String {
        format!("\"{}\"", self.0.as_deref().unwrap_or(""))
    }
}

/// Host NUMA nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeList(pub Vec<u64>);

impl PropValue for NodeList {
    const TYPE: &'static str = "int";
    fn from_input(_owner: &str, name: &str, input: &PropInput<'_>) -> QResult<Self> {
        let list = match input {
            PropInput::Json(Value::Array(list)) => list.iter().map(Value::as_u64).collect(),
            PropInput::Json(_) => return bad_type(name, "array"),
            PropInput::Str(s) => s.parse().ok().map(|v| vec![v]),
        };
        list.map(Self).map_or_else(|| bad_type(name, "integer"), Ok)
    }
    fn to_value(&self) -> Value {
        self.0.clone().into()
    }
    fn to_qtree(&self) -> String {
        self.0.iter().map(u64::to_string).collect::<Vec<_>>().join(",")
    }
}

/// A reference to a thread that cannot be made here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ThreadContextRef(pub Option<String>);

impl PropValue for ThreadContextRef {
    const TYPE: &'static str = "link<thread-context>";
    fn from_input(owner: &str, name: &str, input: &PropInput<'_>) -> QResult<Self> {
        Str::from_input(owner, name, input).map(|s| Self(s.0))
    }
    fn to_value(&self) -> Value {
        self.0.clone().unwrap_or_default().into()
    }
    fn to_qtree(&self) -> String {
        String::new()
    }
}

/// Where on the host memory may lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HostMemPolicy {
    /// As the process does.
    #[default]
    Default,
    /// On the given nodes first.
    Preferred,
    /// Only on the given nodes.
    Bind,
    /// Spread over the given nodes.
    Interleave,
}

crate::enum_prop!(HostMemPolicy, "HostMemPolicy",
    "default" => HostMemPolicy::Default, "preferred" => HostMemPolicy::Preferred,
    "bind" => HostMemPolicy::Bind, "interleave" => HostMemPolicy::Interleave);

/// How a secret is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SecretFormat {
    /// As it is.
    #[default]
    Raw,
    /// Base64.
    Base64,
}

crate::enum_prop!(SecretFormat, "QCryptoSecretFormat",
    "raw" => SecretFormat::Raw, "base64" => SecretFormat::Base64);
