//! Command line bytes that are not UTF-8, carried in ordinary strings.
//!
//! argv and paths are bytes; everything else in the program wants `str`. [`from_bytes`] maps each byte that
//! is not part of valid UTF-8 to one private-use code point (`U+10FF00 + byte`), and [`to_bytes`] maps it back,
//! so that a path survives unchanged. Valid text that itself holds one of these code points is mapped byte
//! by byte, which keeps the mapping reversible.

use std::borrow::Cow;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// First code point of the block: byte `b` is `BASE + b`; only bytes 0x80..=0xff occur.
const BASE: u32 = 0x10_ff00;
/// Leading bytes that every escaped code point shares in UTF-8.
const LEAD: [u8; 2] = [0xf4, 0x8f];

fn escape(byte: u8) -> char {
    char::from_u32(BASE + u32::from(byte)).unwrap_or(char::REPLACEMENT_CHARACTER)
}

fn unescape(c: char) -> Option<u8> {
    u32::from(c).checked_sub(BASE).and_then(|v| u8::try_from(v).ok()).filter(|b| *b >= 0x80)
}

/// Text for arbitrary bytes; see the module comment.
pub fn from_bytes(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.as_bytes().windows(2).any(|w| w == LEAD) => text.to_string(),
        _ => from_bytes_slow(bytes),
    }
}

fn from_bytes_slow(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() + 16);
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if unescape(c).is_some() {
                let mut buf = [0; 4];
                out.extend(c.encode_utf8(&mut buf).bytes().map(escape));
            } else {
                out.push(c);
            }
        }
        out.extend(chunk.invalid().iter().copied().map(escape));
    }
    out
}

/// The bytes that [`from_bytes`] was given.
pub fn to_bytes(text: &str) -> Cow<'_, [u8]> {
    if !text.as_bytes().windows(2).any(|w| w == LEAD) {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut out = Vec::with_capacity(text.len());
    for c in text.chars() {
        match unescape(c) {
            Some(byte) => out.push(byte),
            None => {
                let mut buf = [0; 4];
                out.extend_from_slice(c.encode_utf8(&mut buf).as_bytes());
            }
        }
    }
    Cow::Owned(out)
}

/// File name for a string of the specification: use this, not `Path::new`, wherever a file is opened.
pub fn to_path(text: &str) -> PathBuf {
    PathBuf::from(OsString::from_vec(to_bytes(text).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips() {
        for bytes in [
            &b"plain"[..],
            "caf\u{e9}".as_bytes(),
            b"\xff\xfe/x\x80",
            "\u{10ff80}x".as_bytes(),
            b"\xf4\x8f",
            b"a\xc3",
        ] {
            let text = from_bytes(bytes);
            assert_eq!(&*to_bytes(&text), bytes, "{text:?}");
        }
        assert_eq!(from_bytes(b"plain"), "plain");
    }

    #[test]
    fn valid_text_and_raw_bytes_stay_apart() {
        assert_ne!(from_bytes(b"\x80"), from_bytes("\u{10ff80}".as_bytes()));
    }
}
