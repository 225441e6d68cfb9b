//! Types that only properties of machines have.

use serde_json::Value;

use crate::qom::{PropInput, PropValue};
use crate::{qerr, QResult};

/// Declares a group of settings: command lines reach its parts (`-smp cores=2`), and introspection shows all of them.
macro_rules! group {
    ($(#[$m:meta])* $t:ident, $ty:literal) => {
        $(#[$m])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $t(pub Value);
        impl Default for $t {
            fn default() -> Self {
                Self(Value::Object(serde_json::Map::new()))
            }
        }
        impl PropValue for $t {
            const TYPE: &'static str = $ty;
            fn from_input(_owner: &str, name: &str, input: &PropInput<'_>) -> QResult<Self> {
                match input {
                    PropInput::Json(v @ Value::Object(_)) => Ok(Self((*v).clone())),
                    _ => Err(qerr!("Invalid parameter type for '{name}', expected: object")),
                }
            }
            fn to_value(&self) -> Value {
                self.0.clone()
            }
            fn to_qtree(&self) -> String {
                self.0.to_string()
            }
        }
    };
}

group!(
    /// Counts of processors.
    SmpConfiguration, "SMPConfiguration"
);
group!(
    /// What is booted from.
    BootConfiguration, "BootConfiguration"
);
group!(
    /// Sizes of memory.
    MemoryConfiguration, "MemorySizeConfiguration"
);

/// Sections of SGX memory; there are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SgxEpc;

impl PropValue for SgxEpc {
    const TYPE: &'static str = "SgxEPC";
    fn from_input(_owner: &str, name: &str, _input: &PropInput<'_>) -> QResult<Self> {
        Err(qerr!("machine property '{name}' is not supported"))
    }
    fn to_value(&self) -> Value {
        Value::Array(Vec::new())
    }
    fn to_qtree(&self) -> String {
        String::new()
    }
}

/// Bus locks of the guest in a second; there is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BusLockLimit;

impl PropValue for BusLockLimit {
    const TYPE: &'static str = "uint64_t";
    fn from_input(owner: &str, name: &str, input: &PropInput<'_>) -> QResult<Self> {
        match u64::from_input(owner, name, input)? {
            0 => Ok(Self),
            _ => Err(qerr!("machine property '{name}' only supports the value 0")),
        }
    }
    fn to_value(&self) -> Value {
        0.into()
    }
    fn to_qtree(&self) -> String {
        "0 (0x0)".into()
    }
}

/// Declares a property that has no other value than "none".
macro_rules! never {
    ($(#[$m:meta])* $t:ident, $ty:literal) => {
        $(#[$m])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $t;
        impl PropValue for $t {
            const TYPE: &'static str = $ty;
            fn from_input(_owner: &str, name: &str, input: &PropInput<'_>) -> QResult<Self> {
                match input {
                    PropInput::Str("") => Ok(Self),
                    _ => Err(qerr!("machine property '{name}' is not supported")),
                }
            }
            fn to_value(&self) -> Value {
                "".into()
            }
            fn to_qtree(&self) -> String {
                "\"\"".into()
            }
        }
    };
}

never!(
    /// Text for something that no machine here has.
    NoText, "string"
);
never!(
    /// An object that encrypts the guest's memory.
    NoGuard, "link<confidential-guest-support>"
);

/// First number for nodes of a device tree; there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NoPhandle;

impl PropValue for NoPhandle {
    const TYPE: &'static str = "int";
    fn from_input(owner: &str, name: &str, input: &PropInput<'_>) -> QResult<Self> {
        match i64::from_input(owner, name, input)? {
            0 => Ok(Self),
            _ => Err(qerr!("machine property '{name}' is not supported")),
        }
    }
    fn to_value(&self) -> Value {
        0.into()
    }
    fn to_qtree(&self) -> String {
        "0".into()
    }
}
