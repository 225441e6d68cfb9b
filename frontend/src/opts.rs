//! Sets of options (`a=b,c=d`) checked against their group.

use rqemu_machine::spec::size::{self, SizeError, Unit};
use rqemu_machine::spec::value::parse_bool;
use rqemu_machine::spec::{Dict, Loc, Value};
use rqemu_machine::{qerr, QError, QResult};

use crate::grammar::{self, Item};
use crate::groups::{OptGroup, Type};
use crate::report::Report;

/// Second line of every complaint about an identifier.
const ID_HINT: &str = "Identifiers consist of letters, digits, '-', '.', '_', starting with a letter.";
/// Second line of complaints about sizes.
const SIZE_HINT: &str = "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\n\
                         and exabytes, respectively.";

/// Warnings about flags without a value that one option may give.
const MAX_FLAG_WARNINGS: usize = 64;

/// One parsed occurrence of an option (or the merged set of all).
#[derive(Clone, Debug)]
pub struct Opts {
    /// Its group.
    pub group: &'static OptGroup,
    /// `id=`.
    pub id: Option<String>,
    /// Keys and values in order; later ones win.
    pub items: Vec<(String, String)>,
    /// Error prefix.
    pub loc: Loc,
}

/// What parsing came to.
pub enum Parsed {
    /// Options.
    Opts(Opts),
    /// `help` was among them: print the keys of the group, exit with status 1.
    Help,
}

impl Opts {
    /// An empty set.
    pub fn new(group: &'static OptGroup, loc: Loc) -> Self {
        Self { group, id: None, items: Vec::new(), loc }
    }

    /// Parses `text` for `group`. Warnings about flags without a value go to `warnings`.
    pub fn parse(
        group: &'static OptGroup,
        text: &str,
        loc: &Loc,
        warnings: &mut Vec<Report>,
    ) -> QResult<Parsed> {
        let items = grammar::items(text, group.implied.is_some());
        let mut opts = Opts::new(group, loc.clone());
        if let Some(id) = items.iter().find_map(|i| match i {
            Item::Pair(k, v) if k == "id" => Some(v),
            _ => None,
        }) {
            check_id(id)?;
            if group.merge {
                return Err(qerr!("Invalid parameter 'id'"));
            }
            opts.id = Some(id.clone());
        }
        let mut flags = 0;
        for item in items {
            let (key, value) = match item {
                Item::Pair(key, _) if key == "id" => continue,
                Item::Pair(key, value) => (key, value),
                Item::Bare(value) => (group.implied.unwrap_or_default().to_string(), value),
                Item::Flag(flag) if flag == "help" || flag == "?" => {
                    if !group.params.is_empty() {
                        return Ok(Parsed::Help);
                    }
                    (flag, "on".to_string())
                }
                Item::Flag(flag) => {
                    let (key, value) = match flag.strip_prefix("no") {
                        Some(rest) => (rest, "off"),
                        None => (flag.as_str(), "on"),
                    };
                    let text = format!(
                        "short-form boolean option '{flag}' deprecated\nPlease use {key}={value} instead"
                    );
                    // Each warning quotes the whole option: a huge one must not give huge output.
                    flags += 1;
                    if flags <= MAX_FLAG_WARNINGS {
                        warnings.push(Report::warning(loc.clone(), text));
                    }
                    (key.to_string(), value.to_string())
                }
            };
            opts.push(key, value, loc, warnings)?;
        }
        Ok(Parsed::Opts(opts))
    }

    /// Adds one key after checking it against the group.
    pub fn push(&mut self, key: String, value: String, loc: &Loc, warnings: &mut Vec<Report>) -> QResult<()> {
        let Some(ty) = self.group.type_of(&key) else { return Err(qerr!("Invalid parameter '{key}'")) };
        check_type(ty, &key, &value)?;
        if ty == Type::Size && size::is_hex_with_suffix(&value) {
            let text = format!("Using a multiplier suffix on hex numbers is deprecated: {value}");
            warnings.push(Report::warning(loc.clone(), text));
        }
        self.items.push((key, value));
        Ok(())
    }

    /// The last value of `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.items.iter().rev().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// As an owned string.
    pub fn string(&self, key: &str) -> Option<String> {
        self.get(key).map(str::to_string)
    }

    /// Takes `key` out; returns the last value.
    pub fn take(&mut self, key: &str) -> Option<String> {
        let value = self.string(key)?;
        self.items.retain(|(k, _)| k != key);
        Some(value)
    }

    /// A boolean (checked when it was parsed, if the group knows the key).
    pub fn bool(&self, key: &str) -> QResult<Option<bool>> {
        self.get(key).map(|v| parse_bool(key, v)).transpose()
    }

    /// Takes a boolean out.
    pub fn take_bool(&mut self, key: &str) -> QResult<Option<bool>> {
        self.take(key).map(|v| parse_bool(key, &v)).transpose()
    }

    /// A number.
    pub fn number(&self, key: &str) -> QResult<Option<u64>> {
        self.get(key).map(|v| number(key, v)).transpose()
    }

    /// Takes a number out.
    pub fn take_number(&mut self, key: &str) -> QResult<Option<u64>> {
        self.take(key).map(|v| number(key, &v)).transpose()
    }

    /// A size in bytes unless the text has a unit.
    pub fn size(&self, key: &str) -> QResult<Option<u64>> {
        self.get(key).map(|v| parse_size(key, v, Unit::Bytes)).transpose()
    }

    /// Items as an ordered dictionary of untyped text; a repeated key keeps all its entries.
    pub fn into_dict(self) -> Dict {
        self.items.into_iter().map(|(k, v)| (k, Value::Text(v))).collect()
    }
}

/// Letters, digits, `-`, `.`, `_`, a letter first.
pub fn id_wellformed(id: &str) -> bool {
    id.starts_with(|c: char| c.is_ascii_alphabetic())
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
}

/// Error for an id that is not well-formed.
pub fn check_id(id: &str) -> QResult<()> {
    if id_wellformed(id) {
        return Ok(());
    }
    Err(bad_id("id"))
}

/// "Parameter 'id' expects an identifier", with the rule below it.
pub fn bad_id(key: &str) -> QError {
    qerr!("Parameter '{key}' expects an identifier").with_hint(ID_HINT)
}

fn check_type(ty: Type, key: &str, value: &str) -> QResult<()> {
    match ty {
        Type::Str => Ok(()),
        Type::Bool => parse_bool(key, value).map(drop),
        Type::Number => number(key, value).map(drop),
        Type::Size => parse_size(key, value, Unit::Bytes).map(drop),
    }
}

/// A number in C notation below 2^64; a negative one wraps.
pub fn number(key: &str, value: &str) -> QResult<u64> {
    match size::parse_u64(value) {
        Some(v) => Ok(v),
        None if out_of_range(value) => Err(qerr!("Value '{value}' is too large for parameter '{key}'")),
        None => Err(qerr!("Parameter '{key}' expects a number")),
    }
}

fn out_of_range(value: &str) -> bool {
    value.len() > 16 && value.trim_start_matches(['-', '+']).bytes().all(|b| b.is_ascii_digit())
}

/// A size with QEMU's two complaints.
pub fn parse_size(key: &str, value: &str, unit: Unit) -> QResult<u64> {
    size::parse_size(value, unit).map_err(|e| match e {
        SizeError::Range => qerr!("Value '{value}' is out of range for parameter '{key}'"),
        SizeError::Syntax => {
            qerr!("Parameter '{key}' expects a non-negative number below 2^64").with_hint(SIZE_HINT)
        }
    })
}
