//! What users and clients can ask about CPU models: `-cpu help`, `query-cpu-definitions`,
//! `query-cpu-model-expansion`.

use std::fmt::Write;

use serde_json::{Map, Value};

use super::caps::{Caps, CapsKind};
use super::features::{self, WORDS};
use super::models::{self, Model};
use super::names::{self, Kind, Name, NAMES};
use super::props::CpuProps;
use super::resolve::Board;
use super::table::{MAX_TABLE, TABLE};
use crate::qom::{PropAccess, PropInput};
use crate::{qerr, QResult};

/// Text of `-cpu help`.
pub fn help() -> String {
    let mut out = String::from("Available CPUs:\n");
    // The three that are no models come last.
    let special = |n: &&Name| matches!(n.kind, Kind::Base | Kind::Host | Kind::Max);
    for n in NAMES.iter().filter(|n| !special(n)).chain(NAMES.iter().filter(special)) {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "x86 {:<20}  {}", n.name, description(n));
    }
    out.push_str("\nRecognized CPUID flags:\n");
    let mut line = String::new();
    let mut all: Vec<&str> = WORDS.iter().flat_map(|x| x.names.iter().map(|(_, n)| *n)).collect();
    all.sort_unstable();
    for name in all {
        if !line.is_empty() && line.len() + name.len() + 3 > 75 {
            let _ = writeln!(out, "  {line}");
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(name);
    }
    let _ = writeln!(out, "  {line}\n");
    out
}

fn description(n: &Name) -> String {
    match n.kind {
        Kind::Max => "every feature that the accelerator offers on this host".into(),
        Kind::Host => "the host's processor, with all features that can be passed on".into(),
        Kind::Base => "no features at all, to build upon".into(),
        Kind::Plain(_) => "(alias configured by machine type)".into(),
        Kind::Alias(model, v) => format!("(alias of {model}-v{v})"),
        Kind::Version(model, v) => models::find(model).map_or(String::new(), |m| title(m, v)),
    }
}

fn title(m: &Model, version: usize) -> String {
    let versions = m.versions.iter().take(version);
    let id = versions.map(|v| v.id).rfind(|id| !id.is_empty()).unwrap_or(m.id);
    match m.versions.get(version.wrapping_sub(1)) {
        Some(v) if !v.note.is_empty() => format!("{id} [{}]", v.note),
        _ => id.to_string(),
    }
}

/// One entry of `query-cpu-definitions`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuDefinition {
    /// Name.
    pub name: &'static str,
    /// Class.
    pub typename: &'static str,
    /// The model that this is another name of.
    pub alias_of: Option<String>,
    /// Features that this host lacks for it.
    pub unavailable_features: Vec<&'static str>,
    /// Never changes.
    pub is_static: bool,
    /// Means the same on every host.
    pub migration_safe: bool,
    /// Not for new machines.
    pub deprecated: bool,
}

/// All models, in the order of `query-cpu-definitions`.
pub fn definitions(caps: &Caps) -> Vec<CpuDefinition> {
    let special = |n: &&Name| matches!(n.kind, Kind::Base | Kind::Host | Kind::Max);
    let last = NAMES.iter().rev();
    last.clone().filter(special).chain(last.filter(|n| !special(n))).map(|n| definition(n, caps)).collect()
}

fn definition(n: &'static Name, caps: &Caps) -> CpuDefinition {
    CpuDefinition {
        name: n.name,
        typename: n.type_name,
        alias_of: match n.kind {
            Kind::Alias(model, v) => Some(format!("{model}-v{v}")),
            Kind::Plain(model) => Some(format!("{model}-v1")),
            _ => None,
        },
        unavailable_features: unavailable(n, caps),
        is_static: n.kind == Kind::Base,
        migration_safe: !matches!(n.kind, Kind::Max | Kind::Host),
        deprecated: false,
    }
}

fn unavailable(n: &'static Name, caps: &Caps) -> Vec<&'static str> {
    if n.kind == Kind::Host && caps.kind != CapsKind::Kvm {
        return vec!["kvm"];
    }
    let mut p = CpuProps::new(n);
    p.set_int("check", 0);
    let Ok(mut r) = p.expand(caps, Board::default()) else { return Vec::new() };
    // Properties that this program refuses are off by default.
    let _ = p.finish(caps, Board::default(), &mut r);
    r.filtered.to_names()
}

/// How far `query-cpu-model-expansion` goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expansion {
    /// `base` plus everything that makes the model.
    Static,
    /// The same name plus every property.
    Full,
}

/// Properties that are no part of an expansion.
const NOT_EXPANDED: [&str; 5] =
    ["crash-information", "feature-words", "filtered-features", "legacy-memory", "unavailable-features"];

/// Properties, besides features, that a static expansion has.
const STATIC: [&str; 8] =
    ["family", "lmce", "min-level", "min-xlevel", "model", "model-id", "stepping", "vendor"];

/// Expands a model: returns name and properties.
///
/// # Errors
/// Unknown model or property, wrong type.
pub fn expand(
    kind: Expansion,
    name: &str,
    props: Option<&Map<String, Value>>,
    caps: &Caps,
) -> QResult<(String, Map<String, Value>)> {
    let n = names::find(name).ok_or_else(|| qerr!("CPU model '{name}' not found"))?;
    let mut p = CpuProps::new(n);
    for (key, value) in props.into_iter().flatten() {
        if !p.set_prop(n.type_name, key, &PropInput::Json(value))? {
            return Err(qerr!("Property '{}.{key}' not found", n.type_name));
        }
    }
    let r = p.expand(caps, Board::default())?;
    p.resolved = Some(Box::new(r));
    let mut out = Map::new();
    let mut put = |name: &str| {
        if let Some(g) = p.get_prop(name) {
            out.insert(name.to_string(), g.value);
        }
    };
    if kind == Expansion::Static {
        features::names().for_each(&mut put);
        STATIC.iter().for_each(|n| put(n));
        return Ok(("base".into(), out));
    }
    let table = if matches!(n.kind, Kind::Max | Kind::Host) { &MAX_TABLE } else { &TABLE };
    table.iter().map(|i| i.name).filter(|n| !NOT_EXPANDED.contains(n)).for_each(&mut put);
    out.insert("realized".into(), Value::Bool(false));
    Ok((n.name.into(), out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list() {
        let text = help();
        assert!(text
            .starts_with("Available CPUs:\nx86 486                   (alias configured by machine type)\n"));
        assert!(text.contains("\nx86 486-v1                \n"));
        assert!(text.contains("x86 Haswell-noTSX-IBRS    (alias of Haswell-v4)\n"));
        assert!(text.contains(
            "x86 Cascadelake-Server-v3  Intel Xeon Processor (Cascadelake) [ARCH_CAPABILITIES, no TSX]\n"
        ));
        assert!(text.lines().all(|l| l.len() <= 120));
        assert_eq!(text.matches("\nx86 ").count(), NAMES.len());
    }

    #[test]
    fn every_definition_expands() {
        let caps = Caps::any();
        for n in &NAMES {
            let (name, props) = expand(Expansion::Static, n.name, None, &caps).unwrap();
            assert_eq!((name.as_str(), props.len()), ("base", 327), "{}", n.name);
        }
        let defs = definitions(&caps);
        assert_eq!(defs[0].name, "max");
        assert!(defs.iter().all(|d| d.unavailable_features.is_empty() || d.name == "host"));
    }

    #[test]
    fn versions_build_on_each_other() {
        let get = |name| expand(Expansion::Static, name, None, &Caps::any()).unwrap().1;
        let (v3, v4) = (get("Haswell-v3"), get("Haswell-noTSX-IBRS"));
        assert_eq!((&v3["rtm"], &v4["rtm"]), (&Value::from(true), &Value::from(false)));
        assert_eq!((&v3["stepping"], &v4["stepping"]), (&Value::from(4), &Value::from(1)));
        assert_eq!(v4["model-id"], "Intel Core Processor (Haswell, no TSX, IBRS)");
        assert_eq!(v4["spec-ctrl"], true);
    }

    #[test]
    fn errors() {
        let go = |name, props: Value| {
            expand(Expansion::Full, name, props.as_object(), &Caps::any()).unwrap_err().desc
        };
        assert_eq!(go("foo", Value::Null), "CPU model 'foo' not found");
        let text = go("qemu64", serde_json::json!({"foo": true}));
        assert_eq!(text, "Property 'qemu64-x86_64-cpu.foo' not found");
        let text = go("qemu64", serde_json::json!({"avx": "on"}));
        assert_eq!(text, "Invalid parameter type for 'avx', expected: boolean");
    }
}
