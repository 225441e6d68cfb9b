//! Numbers and sizes in option text, by QEMU's rules.

/// What a size without a suffix counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes: the rule nearly everywhere.
    Bytes,
    /// MiB: `-m 512`.
    Mebibytes,
}

/// Why a size was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SizeError {
    /// Not a number with at most one suffix letter.
    Syntax,
    /// 2^64 or more.
    Range,
}

/// Reads `[0x]digits[.digits][b|k|M|G|T|P|E]`, the suffix in either case. A fraction needs a unit larger than
/// a byte and is cut to whole bytes; hexadecimal takes no fraction. Exponents, signs and leading blanks are refused,
/// save that a `+` and blanks are let through in front as C's `strtoull` does.
pub fn parse_size(text: &str, unit: Unit) -> Result<u64, SizeError> {
    let text = skip_blanks(text);
    let text = text.strip_prefix('+').unwrap_or(text);
    let hex = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let (digits, radix) = match hex {
        Some(rest) if rest.starts_with(|c: char| c.is_ascii_hexdigit()) => (rest, 16),
        _ => (text, 10),
    };
    let end = digits.find(|c: char| !c.is_digit(radix)).unwrap_or(digits.len());
    let (whole, rest) = digits.split_at(end);
    if whole.is_empty() {
        return Err(SizeError::Syntax);
    }
    let (fraction, rest) = split_fraction(rest, radix)?;
    let multiplier: u64 = match rest {
        "" => match unit {
            Unit::Bytes => 1,
            Unit::Mebibytes => 1 << 20,
        },
        _ => suffix(rest).ok_or(SizeError::Syntax)?,
    };
    let whole = u64::from_str_radix(whole, radix).map_err(|_| SizeError::Range)?;
    if fraction > 0.0 && multiplier == 1 {
        return Err(SizeError::Syntax);
    }
    let extra = (fraction * multiplier as f64) as u64;
    whole.checked_mul(multiplier).and_then(|v| v.checked_add(extra)).ok_or(SizeError::Range)
}

/// True for the deprecated mix of hexadecimal digits and a suffix letter (QEMU warns of it).
pub fn is_hex_with_suffix(text: &str) -> bool {
    let text = skip_blanks(text);
    text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).is_some_and(|rest| {
        rest.starts_with(|c: char| c.is_ascii_hexdigit())
            && rest.ends_with(|c: char| matches!(c.to_ascii_lowercase(), 'k' | 'm' | 'g' | 't' | 'p'))
    })
}

fn split_fraction(rest: &str, radix: u32) -> Result<(f64, &str), SizeError> {
    let Some(tail) = rest.strip_prefix('.') else { return Ok((0.0, rest)) };
    if radix == 16 {
        return Err(SizeError::Syntax);
    }
    let end = tail.find(|c: char| !c.is_ascii_digit()).unwrap_or(tail.len());
    let value = if end == 0 { 0.0 } else { rest[..=end].parse().map_err(|_| SizeError::Syntax)? };
    Ok((value, &tail[end..]))
}

fn suffix(text: &str) -> Option<u64> {
    let mut chars = text.chars();
    let shift = match chars.next()?.to_ascii_lowercase() {
        'b' => 0,
        'k' => 10,
        'm' => 20,
        'g' => 30,
        't' => 40,
        'p' => 50,
        'e' => 60,
        _ => return None,
    };
    chars.next().is_none().then_some(1 << shift)
}

fn skip_blanks(text: &str) -> &str {
    text.trim_start_matches([' ', '\t', '\n', '\r', '\x0b', '\x0c'])
}

/// Sign and magnitude of an integer in C notation (`0x` hexadecimal, leading `0` octal).
fn parse_magnitude(text: &str) -> Option<(bool, u64)> {
    let text = skip_blanks(text);
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(rest) => (rest, 16),
        None if text.len() > 1 && text.starts_with('0') => (&text[1..], 8),
        None => (text, 10),
    };
    if !digits.starts_with(|c: char| c.is_digit(radix)) {
        return None;
    }
    Some((negative, u64::from_str_radix(digits, radix).ok()?))
}

/// A signed integer in C notation.
pub fn parse_i64(text: &str) -> Option<i64> {
    let (negative, magnitude) = parse_magnitude(text)?;
    let value = if negative { -i128::from(magnitude) } else { i128::from(magnitude) };
    i64::try_from(value).ok()
}

/// An unsigned integer in C notation; a negative one wraps, as in C.
pub fn parse_u64(text: &str) -> Option<u64> {
    let (negative, magnitude) = parse_magnitude(text)?;
    Some(if negative { magnitude.wrapping_neg() } else { magnitude })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let b = |s| parse_size(s, Unit::Bytes);
        assert_eq!(b("4096"), Ok(4096));
        assert_eq!(b("4k"), Ok(4096));
        assert_eq!(b("1.5K"), Ok(1536));
        assert_eq!(b("1.M"), Ok(1 << 20));
        assert_eq!(b("0x10"), Ok(16));
        assert_eq!(b("0x10k"), Ok(16384));
        assert_eq!(b("010"), Ok(10));
        assert_eq!(b("7b"), Ok(7));
        assert_eq!(b("15E"), Ok(15 << 60));
        assert_eq!(b("16E"), Err(SizeError::Range));
        assert_eq!(b("18446744073709551616"), Err(SizeError::Range));
        for bad in ["", "k", "1.5", "-1", "1x", "1kb", "1e3", "0x1.8k", "1 k", "\u{e9}"] {
            assert_eq!(b(bad), Err(SizeError::Syntax), "{bad}");
        }
        assert_eq!(parse_size("512", Unit::Mebibytes), Ok(512 << 20));
        assert_eq!(parse_size("1.5", Unit::Mebibytes), Ok(3 << 19));
    }

    #[test]
    fn integers() {
        assert_eq!(parse_i64(" -0x10"), Some(-16));
        assert_eq!(parse_i64("010"), Some(8));
        assert_eq!(parse_i64("9223372036854775808"), None);
        assert_eq!(parse_i64("-9223372036854775808"), Some(i64::MIN));
        assert_eq!(parse_u64("-1"), Some(u64::MAX));
        for bad in ["", "-", "0x", "08", "1a", "--1"] {
            assert_eq!(parse_i64(bad), None, "{bad}");
        }
        assert_eq!(parse_u64("0"), Some(0));
    }
}
