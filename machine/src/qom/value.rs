//! Property value types: parsing from text or JSON, and printing.

use serde_json::Value;

use crate::{qerr, QResult};

/// A value on its way into a property: text from a command line, or typed JSON.
#[derive(Clone, Copy, Debug)]
pub enum PropInput<'a> {
    /// From `key=value`.
    Str(&'a str),
    /// From JSON (`-device '{..}'`, `device_add`, `qom-set`).
    Json(&'a Value),
}

/// A Rust type that a property can have.
pub trait PropValue: Sized {
    /// Type name in introspection.
    const TYPE: &'static str;
    /// Parses; `owner` is the class name and `name` the property's, for messages.
    fn from_input(owner: &str, name: &str, input: &PropInput<'_>) -> QResult<Self>;
    /// Value for `qom-get`.
    fn to_value(&self) -> Value;
    /// Text for `info qtree`.
    fn to_qtree(&self) -> String;
    /// What help shows as default.
    fn default_value(&self) -> Option<Value> {
        Some(self.to_value())
    }
}

fn json_type_error<T>(name: &str, expected: &str) -> QResult<T> {
    Err(qerr!("Invalid parameter type for '{name}', expected: {expected}"))
}

/// Parses an integer as C's `strtoll`/`strtoull` with base 0 do (decimal, `0x` hex, leading `0` octal).
pub fn parse_int(text: &str) -> Option<i128> {
    let t = text.trim_start();
    let (neg, t) = match t.as_bytes().first()? {
        b'-' => (true, &t[1..]),
        b'+' => (false, &t[1..]),
        _ => (false, t),
    };
    let (radix, digits) = if let Some(h) = t.strip_prefix("0x").or_else(|| t.strip_prefix("0X")) {
        (16, h)
    } else if t.len() > 1 && t.starts_with('0') {
        (8, &t[1..])
    } else {
        (10, t)
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return None;
    }
    let v = i128::from(u64::from_str_radix(digits, radix).ok()?);
    Some(if neg { -v } else { v })
}

fn int_input(name: &str, input: &PropInput<'_>, min: i128, max: i128, cty: &str) -> QResult<i128> {
    let v = match input {
        PropInput::Str(s) => match parse_int(s) {
            // Unsigned 64-bit accepts negative text by wrapping, as strtoull does.
            Some(v) if v < 0 && min == 0 && max == i128::from(u64::MAX) => v + (1i128 << 64),
            Some(v) => v,
            None => return Err(qerr!("Parameter '{name}' expects integer")),
        },
        PropInput::Json(Value::Number(n)) => match (n.as_i64(), n.as_u64()) {
            (Some(i), _) => i128::from(i),
            (None, Some(u)) => i128::from(u),
            _ => return json_type_error(name, "integer"),
        },
        PropInput::Json(_) => return json_type_error(name, "integer"),
    };
    if v < min || v > max {
        return Err(qerr!("Parameter '{name}' expects {cty}"));
    }
    Ok(v)
}

macro_rules! int_prop {
    ($($t:ty, $name:literal, $c:literal);* $(;)?) => {$(
        impl PropValue for $t {
            const TYPE: &'static str = $name;
            fn from_input(_owner: &str, name: &str, input: &PropInput<'_>) -> QResult<Self> {
                let v = int_input(name, input, <$t>::MIN as i128, <$t>::MAX as i128, $c)?;
                Ok(v as $t)
            }
            fn to_value(&self) -> Value { Value::from(*self) }
            fn to_qtree(&self) -> String {
                // Negative values print their 64-bit two's complement, as QEMU does.
                format!("{} (0x{:x})", self, i128::from(*self) as u64)
            }
        }
    )*};
}

int_prop! {
    u8, "uint8", "uint8_t";
    u16, "uint16", "uint16_t";
    u32, "uint32", "uint32_t";
    u64, "uint64", "uint64";
    i32, "int32", "int32_t";
    i64, "int64", "int64";
}

/// Parses `on`/`off` (also `yes`/`no`, `true`/`false`, `y`/`n`).
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "on" | "yes" | "true" | "y" => Some(true),
        "off" | "no" | "false" | "n" => Some(false),
        _ => None,
    }
}

impl PropValue for bool {
    const TYPE: &'static str = "bool";
    fn from_input(_owner: &str, name: &str, input: &PropInput<'_>) -> QResult<Self> {
        match input {
            PropInput::Str(s) => {
                parse_bool(s).ok_or_else(|| qerr!("Parameter '{name}' expects 'on' or 'off'"))
            }
            PropInput::Json(Value::Bool(b)) => Ok(*b),
            PropInput::Json(_) => json_type_error(name, "boolean"),
        }
    }
    fn to_value(&self) -> Value {
        Value::Bool(*self)
    }
    fn to_qtree(&self) -> String {
        self.to_string()
    }
}

fn str_input<'a>(name: &str, input: &PropInput<'a>) -> QResult<&'a str> {
    match input {
        PropInput::Str(s) => Ok(s),
        PropInput::Json(Value::String(s)) => Ok(s),
        PropInput::Json(_) => json_type_error(name, "string"),
    }
}

impl PropValue for Option<String> {
    const TYPE: &'static str = "str";
    fn from_input(_owner: &str, name: &str, input: &PropInput<'_>) -> QResult<Self> {
        Ok(Some(str_input(name, input)?.to_string()))
    }
    fn to_value(&self) -> Value {
        Value::String(self.clone().unwrap_or_default())
    }
    fn to_qtree(&self) -> String {
        format!("\"{}\"", self.as_deref().unwrap_or(""))
    }
    fn default_value(&self) -> Option<Value> {
        self.clone().map(Value::String)
    }
}

/// A three-state switch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnOffAuto {
    /// The device decides.
    #[default]
    Auto,
    /// On.
    On,
    /// Off.
    Off,
}

impl OnOffAuto {
    /// Resolves `Auto` to the given value.
    pub fn or(self, auto: bool) -> bool {
        match self {
            Self::Auto => auto,
            Self::On => true,
            Self::Off => false,
        }
    }
}

/// Implements [`PropValue`] for a C-like enum with names.
#[macro_export]
macro_rules! enum_prop {
    ($t:ty, $ty_name:literal, $($text:literal => $v:path),+ $(,)?) => {
        impl $crate::qom::PropValue for $t {
            const TYPE: &'static str = $ty_name;
            fn from_input(_owner: &str, name: &str, input: &$crate::qom::PropInput<'_>) -> $crate::QResult<Self> {
                let s = match input {
                    $crate::qom::PropInput::Str(s) => *s,
                    $crate::qom::PropInput::Json(serde_json::Value::String(s)) => s.as_str(),
                    $crate::qom::PropInput::Json(_) =>
                        return Err($crate::qerr!("Invalid parameter type for '{name}', expected: string")),
                };
                match s { $($text => Ok($v),)+
                    _ => Err($crate::qerr!("Parameter '{name}' does not accept value '{s}'")) }
            }
            fn to_value(&self) -> serde_json::Value {
                #[allow(unreachable_patterns)]
                match self { $($v => serde_json::Value::from($text),)+ }
            }
            fn to_qtree(&self) -> String {
                #[allow(unreachable_patterns)]
                match self { $($v => concat!("\"", $text, "\"").to_string(),)+ }
            }
        }
    };
}

enum_prop!(OnOffAuto, "OnOffAuto", "auto" => OnOffAuto::Auto, "on" => OnOffAuto::On, "off" => OnOffAuto::Off);

/// A size in bytes; text may carry a suffix (`K`, `M`, `G`, ...).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size(pub u64);

impl From<u64> for Size {
    fn from(v: u64) -> Self {
        Self(v)
    }
}

/// Parses a size with an optional binary suffix; the default unit is bytes.
pub fn parse_size(text: &str) -> Option<u64> {
    let (num, shift) = match text.as_bytes().last()? {
        b'b' | b'B' => (&text[..text.len() - 1], 0),
        b'k' | b'K' => (&text[..text.len() - 1], 10),
        b'm' | b'M' => (&text[..text.len() - 1], 20),
        b'g' | b'G' => (&text[..text.len() - 1], 30),
        b't' | b'T' => (&text[..text.len() - 1], 40),
        b'p' | b'P' => (&text[..text.len() - 1], 50),
        b'e' | b'E' => (&text[..text.len() - 1], 60),
        _ => (text, 0),
    };
    // A hex number may end in a letter that looks like a suffix.
    if let Some(v) = text.strip_prefix("0x").and_then(|h| u64::from_str_radix(h, 16).ok()) {
        return Some(v);
    }
    if let Some((int, frac)) = num.split_once('.') {
        let f: f64 = format!("0.{frac}").parse().ok()?;
        let i: u64 = int.parse().ok()?;
        let scaled = i.checked_mul(1 << shift)?;
        return scaled.checked_add((f * (1u64 << shift) as f64) as u64);
    }
    num.parse::<u64>().ok()?.checked_mul(1u64 << shift)
}

/// Prints a size as `16 MiB` does: three significant digits and a binary unit.
pub fn human_size(v: u64) -> String {
    const UNITS: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    let mut shift = 0;
    while shift < 6 && (v >> (10 * shift)) as f64 >= 1000.0 {
        shift += 1;
    }
    let x = v as f64 / (1u64 << (10 * shift)) as f64;
    let text = if x >= 100.0 {
        format!("{x:.0}")
    } else if x >= 10.0 {
        format!("{x:.1}")
    } else {
        format!("{x:.2}")
    };
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text} {}B", UNITS[shift as usize])
}

impl PropValue for Size {
    const TYPE: &'static str = "size";
    fn from_input(_owner: &str, name: &str, input: &PropInput<'_>) -> QResult<Self> {
        match input {
            PropInput::Str(s) => parse_size(s).map(Self).ok_or_else(|| {
                qerr!("Parameter '{name}' expects a non-negative number below 2^64")
                    .with_hint("Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\nand exabytes, respectively.")
            }),
            PropInput::Json(_) => {
                int_input(name, input, 0, i128::from(u64::MAX), "uint64").map(|v| Self(v as u64))
            }
        }
    }
    fn to_value(&self) -> Value {
        Value::from(self.0)
    }
    fn to_qtree(&self) -> String {
        format!("{} ({})", self.0, human_size(self.0))
    }
}

/// A 32-bit size (block sizes).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size32(pub u32);

impl From<u32> for Size32 {
    fn from(v: u32) -> Self {
        Self(v)
    }
}

impl PropValue for Size32 {
    const TYPE: &'static str = "size";
    fn from_input(owner: &str, name: &str, input: &PropInput<'_>) -> QResult<Self> {
        let v = Size::from_input(owner, name, input)?.0;
        u32::try_from(v)
            .map(Self)
            .map_err(|_| qerr!("Property {owner}.{name} doesn't take value {v} (maximum: {})", u32::MAX))
    }
    fn to_value(&self) -> Value {
        Value::from(self.0)
    }
    fn to_qtree(&self) -> String {
        format!("{} ({})", self.0, human_size(u64::from(self.0)))
    }
}

/// A MAC address; all zero means "choose one".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MacAddr(pub [u8; 6]);

impl std::fmt::Display for MacAddr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let m = self.0;
        write!(f, "{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", m[0], m[1], m[2], m[3], m[4], m[5])
    }
}

/// Parses `aa:bb:cc:dd:ee:ff` or with dashes.
pub fn parse_mac(s: &str) -> Option<MacAddr> {
    let sep = *s.as_bytes().get(2)? as char;
    if s.len() != 17 || !(sep == ':' || sep == '-') {
        return None;
    }
    let mut out = [0; 6];
    let mut parts = s.split(sep);
    for b in &mut out {
        let p = parts.next()?;
        if p.len() != 2 {
            return None;
        }
        *b = u8::from_str_radix(p, 16).ok()?;
    }
    parts.next().is_none().then_some(MacAddr(out))
}

impl PropValue for MacAddr {
    const TYPE: &'static str = "str";
    fn from_input(owner: &str, name: &str, input: &PropInput<'_>) -> QResult<Self> {
        let s = str_input(name, input)?;
        parse_mac(s).ok_or_else(|| qerr!("Property '{owner}.{name}' doesn't take value '{s}'"))
    }
    fn to_value(&self) -> Value {
        Value::String(self.to_string())
    }
    fn to_qtree(&self) -> String {
        format!("\"{self}\"")
    }
    fn default_value(&self) -> Option<Value> {
        None
    }
}

/// Slot and function on a PCI bus; -1 means the first free slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PciAddr(pub i32);

impl Default for PciAddr {
    fn default() -> Self {
        Self(-1)
    }
}

impl PropValue for PciAddr {
    const TYPE: &'static str = "int32";
    fn from_input(owner: &str, name: &str, input: &PropInput<'_>) -> QResult<Self> {
        let s = match input {
            PropInput::Json(Value::Number(_)) => {
                let v = int_input(name, input, -1, 255, "int32_t")?;
                return Ok(Self(v as i32));
            }
            _ => str_input(name, input)?,
        };
        let bad = || qerr!("Property '{owner}.{name}' doesn't take value '{s}'");
        let (slot, func) = s.split_once('.').unwrap_or((s, "0"));
        let hex = |t: &str| u8::from_str_radix(t.strip_prefix("0x").unwrap_or(t), 16).map_err(|_| bad());
        let (slot, func) = (hex(slot)?, hex(func)?);
        if slot > 31 || func > 7 {
            return Err(bad());
        }
        Ok(Self(i32::from(slot) << 3 | i32::from(func)))
    }
    fn to_value(&self) -> Value {
        Value::from(self.0)
    }
    fn to_qtree(&self) -> String {
        if self.0 < 0 {
            "<unset>".to_string()
        } else {
            format!("{:02x}.{:x}", self.0 >> 3, self.0 & 7)
        }
    }
}

/// Declares a property type that names another object.
macro_rules! ref_prop {
    ($(#[$m:meta])* $t:ident, $ty:literal) => {
        $(#[$m])*
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct $t(pub Option<String>);
        impl PropValue for $t {
            const TYPE: &'static str = $ty;
            fn from_input(_owner: &str, name: &str, input: &PropInput<'_>) -> QResult<Self> {
                Ok(Self(Some(str_input(name, input)?.to_string())))
            }
            fn to_value(&self) -> Value { Value::String(self.0.clone().unwrap_or_default()) }
            fn to_qtree(&self) -> String { format!("\"{}\"", self.0.as_deref().unwrap_or("")) }
            fn default_value(&self) -> Option<Value> { None }
        }
    };
}

ref_prop!(
    /// A block backend: drive id or node name.
    DriveRef, "str"
);
ref_prop!(
    /// A character device.
    ChardevRef, "str"
);
ref_prop!(
    /// A network backend.
    NetdevRef, "str"
);
ref_prop!(
    /// An I/O thread object.
    IothreadRef, "link<iothread>"
);
ref_prop!(
    /// A random number backend.
    RngRef, "link<rng-backend>"
);
ref_prop!(
    /// An audio backend.
    AudiodevRef, "str"
);
ref_prop!(
    /// A memory backend.
    MemdevRef, "link<memory-backend>"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers() {
        assert_eq!(parse_int("0x10"), Some(16));
        assert_eq!(parse_int("010"), Some(8));
        assert_eq!(parse_int("-1"), Some(-1));
        assert_eq!(parse_int("1x"), None);
        assert_eq!(parse_int(""), None);
        let e = u32::from_input("d", "vectors", &PropInput::Str("-1")).unwrap_err();
        assert_eq!(e.desc, "Parameter 'vectors' expects uint32_t");
    }

    #[test]
    fn sizes() {
        assert_eq!(parse_size("1.5G"), Some(3 << 29));
        assert_eq!(parse_size("16M"), Some(16 << 20));
        assert_eq!(parse_size("x"), None);
        assert_eq!(human_size(2147483648), "2 GiB");
        assert_eq!(human_size(512), "512 B");
        assert_eq!(human_size(u64::from(u32::MAX)), "4 GiB");
    }

    #[test]
    fn pci_addresses() {
        let p = |s| PciAddr::from_input("e1000", "addr", &PropInput::Str(s));
        assert_eq!(p("1.3").unwrap().0, 11);
        assert_eq!(p("0x1f").unwrap().0, 0xf8);
        assert!(p("40").is_err());
        assert!(p("1.8").is_err());
        assert_eq!(PciAddr(11).to_qtree(), "01.3");
    }

    #[test]
    fn macs() {
        assert_eq!(parse_mac("52:54:00:12:34:56").unwrap().to_string(), "52:54:00:12:34:56");
        assert!(parse_mac("zz").is_none());
        assert!(parse_mac("").is_none());
    }
}
