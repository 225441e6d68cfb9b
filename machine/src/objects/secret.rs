//! `secret`: a password or key, given in place or in a file.
//!
//! Left out: encrypted secrets (`keyid`, `iv`), which are refused.

use std::any::Any;

use rqemu_derive::Device;

use super::props::{SecretFormat, Str};
use super::UserObject;
use crate::machine::Machine;
use crate::{qerr, QResult};

/// Properties and the secret.
#[derive(Device)]
pub struct Secret {
    /// The decoded bytes.
    bytes: Vec<u8>,
    #[prop]
    loaded: bool,
    #[prop]
    format: SecretFormat,
    #[prop]
    keyid: Str,
    #[prop]
    iv: Str,
    #[prop]
    data: Str,
    #[prop]
    file: Str,
}

impl Secret {
    /// The secret itself.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl UserObject for Secret {
    fn complete(&mut self, m: &mut Machine, _id: &str) -> QResult<()> {
        let raw = match (&self.data.0, &self.file.0) {
            (Some(_), Some(_)) => return Err(qerr!("'file' and 'data' are mutually exclusive")),
            (None, None) => return Err(qerr!("Either 'file' or 'data' must be provided")),
            (Some(d), None) => d.clone().into_bytes(),
            (None, Some(f)) => std::fs::read(f).map_err(|e| {
                let why = crate::error::strerror(&e);
                qerr!("Unable to read {f}: Failed to open file “{f}”: {why}")
            })?,
        };
        if let Some(id) = &self.keyid.0 {
            if m.objects.with::<Secret, _>(id, |_| ()).is_none() {
                return Err(qerr!("No secret with id '{id}'"));
            }
            return Err(qerr!("Encrypted secrets are not supported"));
        }
        if self.iv.0.is_some() {
            return Err(qerr!("Encrypted secrets are not supported"));
        }
        self.bytes = match self.format {
            SecretFormat::Raw => raw,
            SecretFormat::Base64
                if !raw.iter().all(|b| b.is_ascii_alphanumeric() || b"+/= \r\n".contains(b)) =>
            {
                return Err(qerr!("Base64 data contains invalid characters"));
            }
            SecretFormat::Base64 => base64(&raw)
                .ok_or_else(|| qerr!("Base64 data '{}' is not valid", String::from_utf8_lossy(&raw)))?,
        };
        self.loaded = true;
        Ok(())
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

/// Decodes Base64 (RFC 4648); blanks and line ends are skipped.
fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut acc, mut bits, mut pad) = (0u32, 0, 0);
    let mut digits = 0;
    for &c in text.iter().filter(|c| !c.is_ascii_whitespace()) {
        let v = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' => {
                pad += 1;
                continue;
            }
            _ => return None,
        };
        if pad > 0 {
            return None;
        }
        digits += 1;
        acc = acc << 6 | u32::from(v);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push((acc >> bits) as u8);
            acc &= (1 << bits) - 1;
        }
    }
    ((digits + pad) % 4 == 0 && pad <= 2).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::base64;

    #[test]
    fn decodes_base64() {
        assert_eq!(base64(b"aGVsbG8=").unwrap(), b"hello");
        assert_eq!(base64(b"aGVs\nbG8h\n").unwrap(), b"hello!");
        assert_eq!(base64(b"").unwrap(), b"");
        for bad in [&b"x"[..], b"ab=c", b"a===", b"ab*="] {
            assert!(base64(bad).is_none(), "{bad:?}");
        }
    }
}
