//! Numbers of the wire: 64-bit integers of either sign, else doubles.

use serde_json::{Number, Value};

/// Value of an integer token; one beyond 64 bits becomes a double.
pub(super) fn integer(text: &str) -> Value {
    if let Ok(v) = text.parse::<i64>() {
        return v.into();
    }
    if let Ok(v) = text.parse::<u64>() {
        return v.into();
    }
    float(text)
}

/// Value of a token with a fraction or an exponent, clamped to what a double can hold.
pub(super) fn float(text: &str) -> Value {
    let v = text.parse::<f64>().unwrap_or(0.0).clamp(f64::MIN, f64::MAX);
    Number::from_f64(v).map_or(Value::Null, Value::Number)
}

/// Writes a double with 17 significant digits as C's `%.17g` does.
pub(super) fn write_double(out: &mut Vec<u8>, v: f64) {
    const DIGITS: i32 = 17;
    let text = format!("{:.*e}", DIGITS as usize - 1, v);
    let Some((mantissa, exp)) = text.split_once('e') else {
        out.extend_from_slice(text.as_bytes());
        return;
    };
    let exp: i32 = exp.parse().unwrap_or(0);
    if (-4..DIGITS).contains(&exp) {
        let fixed = format!("{:.*}", (DIGITS - 1 - exp).max(0) as usize, v);
        out.extend_from_slice(trim_zeros(&fixed).as_bytes());
    } else {
        let sign = if exp < 0 { '-' } else { '+' };
        out.extend_from_slice(format!("{}e{sign}{:02}", trim_zeros(mantissa), exp.abs()).as_bytes());
    }
}

fn trim_zeros(text: &str) -> &str {
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.')
    } else {
        text
    }
}
