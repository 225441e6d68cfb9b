//! Values to text in QEMU's style.

use super::number::write_double;
use serde_json::Value;

/// Lay-out of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Style {
    /// One line: `{"a": [1, 2]}`.
    #[default]
    Compact,
    /// Each element on its own line, four blanks a level, lines ending in CR LF
    /// (`pretty=on`).
    Pretty,
}

/// Appends a value. Strings come out as ASCII only.
pub fn write_value(out: &mut Vec<u8>, value: &Value, style: Style) {
    write_at(out, value, style, 0);
}

/// A value as a string.
pub fn to_string(value: &Value, style: Style) -> String {
    let mut out = Vec::new();
    write_value(&mut out, value, style);
    String::from_utf8_lossy(&out).into_owned()
}

fn write_at(out: &mut Vec<u8>, value: &Value, style: Style, level: usize) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Number(n) => match (n.as_i64(), n.as_u64()) {
            (Some(v), _) => write_int(out, v < 0, v.unsigned_abs()),
            (_, Some(v)) => write_int(out, false, v),
            _ => write_double(out, n.as_f64().unwrap_or(0.0)),
        },
        Value::String(s) => write_string(out, s),
        Value::Array(items) => {
            out.push(b'[');
            for (i, item) in items.iter().enumerate() {
                separate(out, style, level + 1, i == 0);
                write_at(out, item, style, level + 1);
            }
            end(out, style, level, b']');
        }
        Value::Object(map) => {
            out.push(b'{');
            for (i, (key, item)) in map.iter().enumerate() {
                separate(out, style, level + 1, i == 0);
                write_string(out, key);
                out.extend_from_slice(b": ");
                write_at(out, item, style, level + 1);
            }
            end(out, style, level, b'}');
        }
    }
}

fn separate(out: &mut Vec<u8>, style: Style, level: usize, first: bool) {
    match style {
        Style::Compact if first => {}
        Style::Compact => out.extend_from_slice(b", "),
        Style::Pretty => {
            if !first {
                out.push(b',');
            }
            newline(out, level);
        }
    }
}

fn end(out: &mut Vec<u8>, style: Style, level: usize, close: u8) {
    if style == Style::Pretty {
        newline(out, level);
    }
    out.push(close);
}

fn newline(out: &mut Vec<u8>, level: usize) {
    out.extend_from_slice(b"\r\n");
    out.resize(out.len() + 4 * level, b' ');
}

fn write_int(out: &mut Vec<u8>, negative: bool, mut v: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (v % 10) as u8;
        v /= 10;
        if v == 0 {
            break;
        }
    }
    if negative {
        out.push(b'-');
    }
    out.extend_from_slice(&digits[at..]);
}

/// Appends a string in quotes.
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let plain = bytes[at..].iter().position(|&b| !(0x20..0x7F).contains(&b) || b == b'"' || b == b'\\');
        let run = plain.unwrap_or(bytes.len() - at);
        out.extend_from_slice(&bytes[at..at + run]);
        at += run;
        if let Some(c) = text.get(at..).and_then(|rest| rest.chars().next()) {
            escape(out, c);
            at += c.len_utf8();
        }
    }
    out.push(b'"');
}

fn escape(out: &mut Vec<u8>, c: char) {
    let short = match c {
        '"' => b'"',
        '\\' => b'\\',
        '\u{8}' => b'b',
        '\u{c}' => b'f',
        '\n' => b'n',
        '\r' => b'r',
        '\t' => b't',
        _ => {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                out.extend_from_slice(b"\\u");
                for shift in [12, 8, 4, 0] {
                    out.push(b"0123456789ABCDEF"[usize::from(*unit >> shift & 15)]);
                }
            }
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}
