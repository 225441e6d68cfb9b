//! Base64 (RFC 4648, with padding).

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Text for bytes.
pub(super) fn encode(data: &[u8]) -> String {
    let mut out = String::with_capacity(data.len().div_ceil(3) * 4);
    for chunk in data.chunks(3) {
        let mut three = [0; 3];
        three[..chunk.len()].copy_from_slice(chunk);
        let bits = u32::from(three[0]) << 16 | u32::from(three[1]) << 8 | u32::from(three[2]);
        for i in 0..4 {
            out.push(match i <= chunk.len() {
                true => ALPHABET[(bits >> (18 - 6 * i) & 63) as usize] as char,
                false => '=',
            });
        }
    }
    out
}

/// Bytes for text; `None` if it holds anything else.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=');
    let padding = text.len() - digits.len();
    if padding > 2 || (text.len() & 3 != 0) || digits.len() & 3 == 1 {
        return None;
    }
    let (mut out, mut bits, mut count) = (Vec::with_capacity(digits.len() / 4 * 3 + 2), 0u32, 0);
    for b in digits.bytes() {
        let v = ALPHABET.iter().position(|a| *a == b)? as u32;
        bits = bits << 6 | v;
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways() {
        // The examples of RFC 4648, section 10.
        let examples = ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"];
        for (n, text) in examples.iter().enumerate() {
            let data = &b"foobar"[..n];
            assert_eq!(encode(data), *text);
            assert_eq!(decode(text).as_deref(), Some(data));
        }
        assert_eq!(decode("AAD/"), Some(vec![0, 0, 255]));
        for bad in ["###", "Zg=", "Z", "Zg==Zg==", "===="] {
            assert_eq!(decode(bad), None, "{bad}");
        }
    }
}
