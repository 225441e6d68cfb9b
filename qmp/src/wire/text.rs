//! The inside of string tokens.

/// Why a string token has no value; the text is what follows "JSON parse error, ".
pub(super) type TextError = String;

/// Decodes a string token (with its quotes).
pub(super) fn decode(token: &[u8]) -> Result<String, TextError> {
    let inner = token.get(1..token.len().saturating_sub(1)).unwrap_or_default();
    if inner.iter().all(|&b| b != b'\\' && b.is_ascii()) {
        return Ok(String::from_utf8_lossy(inner).into_owned());
    }
    let mut out = String::with_capacity(inner.len());
    let mut at = 0;
    while at < inner.len() {
        if inner[at] == b'\\' {
            at += 1;
            // `token` still has the closing quote behind `inner`, which the message may show.
            at += escape(&inner[at..], &token[at + 1..], &mut out)?;
        } else {
            let run = inner[at..].iter().position(|&b| b == b'\\').unwrap_or(inner.len() - at);
            utf8(&inner[at..at + run], &mut out)?;
            at += run;
        }
    }
    Ok(out)
}

/// Decodes the escape whose text after the backslash is `rest`; returns how many bytes it took.
fn escape(rest: &[u8], shown: &[u8], out: &mut String) -> Result<usize, TextError> {
    let c = match rest.first() {
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b't') => '\t',
        Some(&b @ (b'"' | b'\'' | b'\\' | b'/')) => b as char,
        Some(b'u') => {
            let (c, used) = unicode(&rest[1..]).ok_or_else(|| {
                let hex = &shown[1..shown.len().min(5)];
                format!("\\u{} is not a valid Unicode character", String::from_utf8_lossy(hex))
            })?;
            out.push(c);
            return Ok(1 + used);
        }
        _ => return Err("invalid escape sequence in string".into()),
    };
    out.push(c);
    Ok(1)
}

/// The character of `XXXX`, or of a surrogate pair `XXXX\uXXXX`, and its length.
fn unicode(rest: &[u8]) -> Option<(char, usize)> {
    let high = hex4(rest)?;
    let (code, used) = if (0xD800..0xDC00).contains(&high) {
        let low = rest.get(4..6).filter(|e| *e == b"\\u").and_then(|_| hex4(&rest[6..]))?;
        if !(0xDC00..0xE000).contains(&low) {
            return None;
        }
        (0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00), 10)
    } else {
        (high, 4)
    };
    char::from_u32(code).filter(|&c| !is_noncharacter(c)).map(|c| (c, used))
}

fn hex4(text: &[u8]) -> Option<u32> {
    text.get(..4)?.iter().try_fold(0, |acc, &b| Some(acc * 16 + (b as char).to_digit(16)?))
}

/// Appends raw bytes: UTF-8 in which NUL may also be written as `C0 80`, without noncharacters.
fn utf8(mut bytes: &[u8], out: &mut String) -> Result<(), TextError> {
    const BAD: &str = "invalid UTF-8 sequence in string";
    while !bytes.is_empty() {
        let (good, rest) = match std::str::from_utf8(bytes) {
            Ok(all) => (all, &[][..]),
            Err(e) => {
                let (good, rest) = bytes.split_at(e.valid_up_to());
                let rest = rest.strip_prefix(b"\xC0\x80").ok_or(BAD)?;
                (std::str::from_utf8(good).map_err(|_| BAD)?, rest)
            }
        };
        if good.chars().any(is_noncharacter) {
            return Err(BAD.into());
        }
        out.push_str(good);
        if good.len() < bytes.len() {
            out.push('\0');
        }
        bytes = rest;
    }
    Ok(())
}

fn is_noncharacter(c: char) -> bool {
    let c = c as u32;
    (0xFDD0..=0xFDEF).contains(&c) || c & 0xFFFE == 0xFFFE
}
