//! Reading option dictionaries: each member is taken once, and what is left over is an error.

use crate::error::{BlockError, Result};
use serde_json::{Map, Value};

/// A dictionary of options being consumed.
pub(crate) struct Opts {
    map: Map<String, Value>,
    /// Prefix for error texts (`file.`).
    path: String,
    /// From QMP or `-blockdev`: types must match and defaults are QAPI's. Otherwise (`-drive`, `json:`) strings stand
    /// for all types.
    pub strict: bool,
    /// From `-blockdev` in its short form: text stands for other types, as far as it can be read so.
    pub text: bool,
}

impl Opts {
    pub(crate) fn new(map: Map<String, Value>, path: &str, strict: bool) -> Opts {
        let map = if strict { map } else { nest(map) };
        Opts { map, path: path.into(), strict, text: !strict }
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.map.contains_key(key)
    }

    pub(crate) fn set_default(&mut self, key: &str, v: impl Into<Value>) {
        if !self.map.contains_key(key) {
            self.map.insert(key.into(), v.into());
        }
    }

    pub(crate) fn take(&mut self, key: &str) -> Option<Value> {
        self.map.shift_remove(key)
    }

    pub(crate) fn peek(&self, key: &str) -> Option<&Value> {
        self.map.get(key)
    }

    pub(crate) fn peek_str(&self, key: &str) -> Option<&str> {
        self.map.get(key).and_then(Value::as_str)
    }

    pub(crate) fn into_map(self) -> Map<String, Value> {
        self.map
    }

    /// Full name of a member.
    pub(crate) fn full(&self, key: &str) -> String {
        format!("{}{key}", self.path)
    }

    fn bad_type<T>(&self, key: &str, expected: &'static str) -> Result<T> {
        Err(BlockError::BadType { name: self.full(key), expected })
    }

    pub(crate) fn string(&mut self, key: &str) -> Result<Option<String>> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(s)) => Ok(Some(s)),
            Some(_) => self.bad_type(key, "string"),
        }
    }

    pub(crate) fn need_string(&mut self, key: &str) -> Result<String> {
        let name = self.full(key);
        self.string(key)?.ok_or(BlockError::Missing(name))
    }

    pub(crate) fn boolean(&mut self, key: &str) -> Result<Option<bool>> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Bool(b)) => Ok(Some(b)),
            Some(Value::String(s)) if self.text => match s.as_str() {
                "on" | "yes" | "true" | "y" => Ok(Some(true)),
                "off" | "no" | "false" | "n" => Ok(Some(false)),
                _ => Err(BlockError::BadBool(self.full(key))),
            },
            Some(_) => self.bad_type(key, "boolean"),
        }
    }

    /// A whole number; strings may carry a size suffix (`10M`).
    pub(crate) fn number(&mut self, key: &str) -> Result<Option<u64>> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Number(n)) => match n.as_u64() {
                Some(v) => Ok(Some(v)),
                None if n.is_i64() => Err(BlockError::BadSize(self.full(key))),
                None => self.bad_type(key, "integer"),
            },
            Some(Value::String(s)) if self.text => match parse_size(&s) {
                Some(v) => Ok(Some(v)),
                None => Err(BlockError::text(format!("Parameter '{}' expects a size", self.full(key)))),
            },
            Some(_) => self.bad_type(key, "integer"),
        }
    }

    /// One of an enumeration.
    pub(crate) fn choice<T: Copy>(&mut self, key: &str, table: &[(&str, T)]) -> Result<Option<T>> {
        let Some(s) = self.string(key)? else { return Ok(None) };
        match table.iter().find(|(n, _)| *n == s) {
            Some((_, v)) => Ok(Some(*v)),
            None if self.strict => Err(BlockError::BadEnum { name: self.full(key), value: s }),
            None if key == "aio" => Err(BlockError::text("invalid aio option")),
            None if key == "discard" => Err(BlockError::text("Invalid discard option")),
            None => Err(BlockError::text(format!("invalid parameter value: {s}"))),
        }
    }

    /// A nested dictionary.
    pub(crate) fn dict(&mut self, key: &str) -> Result<Opts> {
        let path = format!("{}{key}.", self.path);
        match self.take(key) {
            None => Ok(Opts { map: Map::new(), path, strict: self.strict, text: self.text }),
            Some(Value::Object(map)) => Ok(Opts { map, path, strict: self.strict, text: self.text }),
            Some(_) => self.bad_type(key, "object"),
        }
    }

    /// Fails if a member was not taken.
    pub(crate) fn finish(self, kind: &'static str, driver: &str) -> Result<()> {
        match self.map.keys().next() {
            None => Ok(()),
            Some(k) if self.strict => Err(BlockError::Unexpected(format!("{}{k}", self.path))),
            Some(k) => {
                let option = leaf(k, &self.map[k]);
                Err(BlockError::UnknownOption { kind, driver: driver.into(), option })
            }
        }
    }
}

fn leaf(key: &str, v: &Value) -> String {
    match v.as_object().and_then(|m| m.iter().next()) {
        Some((k, v)) => format!("{key}.{}", leaf(k, v)),
        None => key.into(),
    }
}

/// Turns dotted keys (`file.driver`) into nested dictionaries.
pub(crate) fn nest(map: Map<String, Value>) -> Map<String, Value> {
    let mut out = Map::new();
    for (k, v) in map {
        let v = match v {
            Value::Object(m) => Value::Object(nest(m)),
            other => other,
        };
        place(&mut out, &k, v);
    }
    out
}

fn place(out: &mut Map<String, Value>, key: &str, v: Value) {
    match key.split_once('.') {
        Some((head, rest)) if !head.is_empty() => {
            let slot = out.entry(head).or_insert_with(|| Value::Object(Map::new()));
            match slot {
                Value::Object(m) => place(m, rest, v),
                // `file=x,file.driver=y`: the name becomes a member of the dictionary.
                other => {
                    let name = other.take();
                    let mut m = Map::new();
                    m.insert("filename".into(), name);
                    place(&mut m, rest, v);
                    *other = Value::Object(m);
                }
            }
        }
        _ => match (out.get_mut(key), v) {
            (Some(Value::Object(m)), Value::Object(new)) => m.extend(new),
            (Some(Value::Object(m)), v @ Value::String(_)) => {
                m.insert("filename".into(), v);
            }
            (_, v) => {
                out.insert(key.into(), v);
            }
        },
    }
}

/// `512`, `64k`, `10M`, `1.5G`, `0x200`: QEMU's size syntax (bytes without a suffix).
pub fn parse_size(s: &str) -> Option<u64> {
    if let Some(hex) = s.strip_prefix("0x").or_else(|| s.strip_prefix("0X")) {
        return u64::from_str_radix(hex, 16).ok();
    }
    let (num, mul) = match s.as_bytes().last()? {
        b'b' | b'B' => (&s[..s.len() - 1], 1u64),
        b'k' | b'K' => (&s[..s.len() - 1], 1 << 10),
        b'm' | b'M' => (&s[..s.len() - 1], 1 << 20),
        b'g' | b'G' => (&s[..s.len() - 1], 1 << 30),
        b't' | b'T' => (&s[..s.len() - 1], 1 << 40),
        b'p' | b'P' => (&s[..s.len() - 1], 1 << 50),
        b'e' | b'E' => (&s[..s.len() - 1], 1 << 60),
        _ => (s, 1),
    };
    match num.split_once('.') {
        None => num.parse::<u64>().ok()?.checked_mul(mul),
        Some((whole, frac)) if frac.bytes().all(|b| b.is_ascii_digit()) => {
            let whole = whole.parse::<u64>().ok()?.checked_mul(mul)?;
            let part = format!("0.{frac}0").parse::<f64>().ok()? * mul as f64;
            whole.checked_add(part as u64)
        }
        Some(_) => None,
    }
}
