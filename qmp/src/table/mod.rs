//! The table of QMP commands and events. An entry is its handler: argument type, reply type and schema come from the
//! handler's signature, so a command that is listed cannot be without one.

mod introspect;

pub use introspect::{command_names, schema};

use crate::monitors::MonitorCx;
use crate::types::{Describe, FromQapi, Path, Schema, ToQapi};
use rqemu_machine::{qerr, ErrorClass, QError, QResult};
use serde_json::{Map, Value};

/// A QMP command.
pub struct Command {
    /// Name.
    pub name: &'static str,
    /// Checks the arguments and runs the handler.
    pub run: fn(&mut MonitorCx<'_, '_>, Map<String, Value>) -> QResult<Value>,
    /// Describes the arguments.
    pub arguments: fn(&mut Schema) -> String,
    /// Describes the reply.
    pub reply: fn(&mut Schema) -> String,
    /// May be given with `exec-oob`.
    pub oob: bool,
    /// Feature flags in the schema.
    pub features: &'static [&'static str],
}

/// An event that may be sent.
pub struct EventInfo {
    /// Name.
    pub name: &'static str,
    /// Describes the data.
    pub data: fn(&mut Schema) -> String,
}

/// Reads arguments, runs a handler, writes its reply.
#[doc(hidden)]
pub fn call<A: FromQapi, R: ToQapi>(
    handler: impl FnOnce(&mut MonitorCx<'_, '_>, A) -> QResult<R>,
    cx: &mut MonitorCx<'_, '_>,
    arguments: Map<String, Value>,
) -> QResult<Value> {
    let arguments = A::from_qapi(Value::Object(arguments), &Path::Root)?;
    Ok(handler(cx, arguments)?.to_qapi().unwrap_or(Value::Null))
}

/// Schema name of a handler's arguments.
#[doc(hidden)]
pub fn arguments_of<A: Describe, R>(
    _: fn(&mut MonitorCx<'_, '_>, A) -> QResult<R>,
    schema: &mut Schema,
) -> String {
    A::describe(schema)
}

/// Schema name of a handler's reply.
#[doc(hidden)]
pub fn reply_of<A, R: Describe>(
    _: fn(&mut MonitorCx<'_, '_>, A) -> QResult<R>,
    schema: &mut Schema,
) -> String {
    R::describe(schema)
}

/// Makes the command table; names must be sorted (a test checks it).
macro_rules! commands {
    ($($name:literal => $handler:path $({ $($field:ident: $value:expr),* $(,)? })?;)*) => {
        /// All commands, sorted by name.
        pub static COMMANDS: &[$crate::table::Command] = &[$(
            #[allow(clippy::needless_update)]
            $crate::table::Command {
                $($($field: $value,)*)?
                ..$crate::table::Command {
                    name: $name,
                    run: |cx, arguments| $crate::table::call($handler, cx, arguments),
                    arguments: |schema| $crate::table::arguments_of($handler, schema),
                    reply: |schema| $crate::table::reply_of($handler, schema),
                    oob: false,
                    features: &[],
                }
            },
        )*];
    };
}
pub(crate) use commands;

/// Makes the event table; names must be sorted (a test checks it).
macro_rules! events {
    ($($name:literal => $data:ty;)*) => {
        /// All events, sorted by name.
        pub static EVENTS: &[$crate::table::EventInfo] = &[$(
            $crate::table::EventInfo { name: $name, data: |s| <$data as $crate::types::Describe>::describe(s) },
        )*];
    };
}
pub(crate) use events;

/// Looks a command up.
pub fn find(name: &str) -> Option<&'static Command> {
    let table = crate::commands::COMMANDS;
    table.binary_search_by(|c| c.name.cmp(name)).ok().and_then(|i| table.get(i))
}

/// Runs a command by name.
///
/// # Errors
/// `CommandNotFound`, errors in the arguments, and whatever the command reports.
pub fn dispatch(
    cx: &mut MonitorCx<'_, '_>,
    name: &str,
    arguments: Map<String, Value>,
    oob: bool,
) -> QResult<Value> {
    let command = find(name).ok_or_else(|| {
        QError::new(ErrorClass::CommandNotFound, format!("The command {name} has not been found"))
    })?;
    if oob && !command.oob {
        return Err(qerr!("The command {name} does not support OOB"));
    }
    (command.run)(cx, arguments)
}

#[cfg(test)]
mod tests {
    use crate::commands::{COMMANDS, EVENTS};

    #[test]
    fn sorted() {
        assert!(COMMANDS.windows(2).all(|w| w[0].name < w[1].name), "command table is not sorted");
        assert!(EVENTS.windows(2).all(|w| w[0].name < w[1].name), "event table is not sorted");
    }

    #[test]
    fn schema_is_closed() {
        let entries = super::schema();
        let names: std::collections::HashSet<_> =
            entries.iter().map(|e| e["name"].as_str().unwrap()).collect();
        assert_eq!(names.len(), entries.len(), "a name occurs twice");
        let mut used = Vec::new();
        for e in &entries {
            used.extend(["arg-type", "ret-type", "element-type"].iter().filter_map(|k| e[k].as_str()));
            for list in ["members", "variants"] {
                used.extend(e[list].as_array().into_iter().flatten().filter_map(|m| m["type"].as_str()));
            }
        }
        for name in used {
            assert!(names.contains(name), "{name} is not in the schema");
        }
    }
}
