//! TCP segments (RFC 9293): taken apart, and headers put together.

use crate::net::user::packet::{be16, be32, Packet};

pub(super) const FIN: u8 = 0x01;
pub(super) const SYN: u8 = 0x02;
pub(super) const RST: u8 = 0x04;
pub(super) const PSH: u8 = 0x08;
pub(super) const ACK: u8 = 0x10;
/// Length of a header without options.
pub(super) const HEADER: usize = 20;
/// Largest shift of a window (RFC 7323).
const MAX_SHIFT: u8 = 14;

/// `a` comes before `b` in the circle of sequence numbers.
pub(super) fn before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

/// A segment of the guest.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment<'a> {
    pub from: u16,
    pub to: u16,
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    pub window: u16,
    /// Largest segment that the guest takes, if it says so.
    pub mss: Option<u16>,
    /// Shift of its windows, if it says so.
    pub shift: Option<u8>,
    pub data: &'a [u8],
}

impl<'a> Segment<'a> {
    /// Reads a segment whose checksum is right.
    pub fn parse(p: &Packet<'a>) -> Option<Self> {
        let b = p.body;
        let offset = usize::from(b.get(12)? >> 4) * 4;
        let options = b.get(HEADER..offset)?;
        if !p.checksum_ok() {
            return None;
        }
        let mut s = Self {
            from: be16(b, 0)?,
            to: be16(b, 2)?,
            seq: be32(b, 4)?,
            ack: be32(b, 8)?,
            flags: b[13],
            window: be16(b, 14)?,
            mss: None,
            shift: None,
            data: b.get(offset..)?,
        };
        if s.has(SYN) {
            s.options(options);
        }
        Some(s)
    }

    fn options(&mut self, mut b: &[u8]) {
        while let [kind, rest @ ..] = b {
            match kind {
                0 => return,
                1 => b = rest,
                _ => {
                    let Some(len) = rest.first().map(|n| usize::from(*n)).filter(|n| *n >= 2) else { return };
                    let Some((option, rest)) = b.split_at_checked(len) else { return };
                    match option {
                        [2, 4, hi, lo] => self.mss = Some(u16::from_be_bytes([*hi, *lo])),
                        [3, 3, shift] => self.shift = Some((*shift).min(MAX_SHIFT)),
                        _ => {}
                    }
                    b = rest;
                }
            }
        }
    }

    /// Whether one of the flags is set.
    pub fn has(&self, flags: u8) -> bool {
        self.flags & flags != 0
    }

    /// Room that it takes in the circle of sequence numbers.
    pub fn len(&self) -> u32 {
        self.data.len() as u32 + u32::from(self.has(SYN)) + u32::from(self.has(FIN))
    }
}

/// Fields of a header to the guest.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields {
    pub from: u16,
    pub to: u16,
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    pub window: u16,
}

/// Writes a header; `len` is its length with options, which are the caller's to write.
pub(super) fn put(b: &mut [u8], f: &Fields, len: usize) {
    let Some(b) = b.get_mut(..HEADER) else { return };
    b[..2].copy_from_slice(&f.from.to_be_bytes());
    b[2..4].copy_from_slice(&f.to.to_be_bytes());
    b[4..8].copy_from_slice(&f.seq.to_be_bytes());
    b[8..12].copy_from_slice(&f.ack.to_be_bytes());
    b[12] = ((len / 4) << 4) as u8;
    b[13] = f.flags;
    b[14..16].copy_from_slice(&f.window.to_be_bytes());
    b[16..20].fill(0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn parse(b: &[u8]) -> Option<(Option<u16>, Option<u8>)> {
        let ip = Ipv4Addr::LOCALHOST.into();
        let p = Packet { src: ip, dst: ip, protocol: 6, ttl: 9, whole: &[], body: b, trusted: true };
        Segment::parse(&p).map(|s| (s.mss, s.shift))
    }

    #[test]
    fn options_of_a_syn() {
        let f = Fields { from: 1, to: 2, seq: 3, ack: 0, flags: SYN, window: 5 };
        let mut b = vec![0; 32];
        put(&mut b, &f, 32);
        b[20..32].copy_from_slice(&[1, 2, 4, 5, 0xb4, 3, 3, 200, 0, 9, 9, 9]);
        assert_eq!(parse(&b), Some((Some(1460), Some(14))));
        b[20] = 2;
        b[21] = 0;
        assert_eq!(parse(&b), Some((None, None)));
        b[21] = 40;
        assert_eq!(parse(&b), Some((None, None)));
        b[12] = 0xf0;
        assert_eq!(parse(&b), None);
        b[12] = 0x40;
        assert_eq!(parse(&b), None);
    }

    #[test]
    fn the_circle() {
        assert!(before(u32::MAX, 0));
        assert!(!before(0, u32::MAX));
        assert!(!before(7, 7));
    }
}
