//! JSON objects as option values.

use rqemu_machine::spec::{Dict, Value};
use rqemu_machine::{qerr, QError, QResult};
use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// True when an option's value is JSON.
pub fn is_json(text: &str) -> bool {
    text.starts_with('{')
}

/// Parses one JSON object. Strings may be in single quotes too.
pub fn parse_object(text: &str) -> QResult<Dict> {
    let plain = double_quotes(text);
    let mut reader = serde_json::Deserializer::from_str(&plain);
    let value = Seed.deserialize(&mut reader).and_then(|v| reader.end().map(|()| v)).map_err(syntax)?;
    match value {
        Value::Dict(dict) => Ok(dict),
        _ => Err(qerr!("Invalid parameter type, expected: object")),
    }
}

fn syntax(err: serde_json::Error) -> QError {
    if err.is_eof() {
        return qerr!("JSON parse error, premature EOI");
    }
    let text = err.to_string();
    match text.split(" at line ").next().unwrap_or_default() {
        "duplicate key" => qerr!("JSON parse error, duplicate key"),
        "trailing characters" => qerr!("Expecting at most one JSON value"),
        "trailing comma" | "expected value" => qerr!("JSON parse error, expecting value"),
        other => qerr!("JSON parse error, {other}"),
    }
}

/// Turns `'…'` strings into `"…"` ones; borrowed when there is none.
fn double_quotes(text: &str) -> std::borrow::Cow<'_, str> {
    if !text.contains('\'') {
        return text.into();
    }
    let mut out = String::with_capacity(text.len() + 8);
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (None, '\'' | '"') => {
                quote = Some(c);
                out.push('"');
            }
            (Some(q), c) if c == q => {
                quote = None;
                out.push('"');
            }
            (Some('\''), '"') => out.push_str("\\\""),
            (Some(_), '\\') => match chars.next() {
                Some('\'') => out.push('\''),
                Some(next) => out.extend(['\\', next]),
                None => out.push('\\'),
            },
            _ => out.push(c),
        }
    }
    out.into()
}

/// Reads any JSON value into a [`Value`], refusing an object key given twice.
struct Seed;

impl<'de> DeserializeSeed<'de> for Seed {
    type Value = Value;

    fn deserialize<D: de::Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }

    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(Value::Int(v))
    }

    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(i64::try_from(v).map_or(Value::UInt(v), Value::Int))
    }

    fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
        Ok(Value::Float(v))
    }

    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(Value::Str(v.to_string()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = seq.next_element_seed(Seed)? {
            list.push(item);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut dict = Dict::new();
        let mut keys = std::collections::HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            if !keys.insert(key.clone()) {
                return Err(de::Error::custom("duplicate key"));
            }
            dict.push(key, map.next_value_seed(Seed)?);
        }
        Ok(Value::Dict(dict))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects() {
        let dict = parse_object(r#"{'driver':"e1000",'n':1,'s':'it\'s "x"','l':[true,null,1.5]}"#).unwrap();
        assert_eq!(dict.get_str("driver"), Some("e1000"));
        assert_eq!(dict.get("n"), Some(&Value::Int(1)));
        assert_eq!(dict.get_str("s"), Some("it's \"x\""));
        let list = Value::List(vec![Value::Bool(true), Value::Null, Value::Float(1.5)]);
        assert_eq!(dict.get("l"), Some(&list));
    }

    #[test]
    fn refusals() {
        let err = |s| parse_object(s).unwrap_err().desc;
        assert_eq!(err("{'a':1,'a':2}"), "JSON parse error, duplicate key");
        assert_eq!(err("{\"a\":1"), "JSON parse error, premature EOI");
        assert_eq!(err("{"), "JSON parse error, premature EOI");
        assert!(err("{x").starts_with("JSON parse error"));
    }
}
