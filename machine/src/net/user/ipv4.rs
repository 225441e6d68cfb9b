//! IPv4 (RFC 791): checks packets of the guest, puts fragments together.

use std::net::{IpAddr, Ipv4Addr};

use super::packet::{be16, ip4_at, Mac, Packet, ICMP, IP4, TCP, UDP};
use super::User;
use crate::net::checksum;

/// Datagrams of which pieces are there.
const MAX_PARTIAL: usize = 16;
/// Milliseconds that a piece waits for the others.
const PATIENCE: u64 = 30_000;
const MORE: u16 = 0x2000;
const OFFSET: u16 = 0x1fff;

/// A datagram in pieces.
struct Partial {
    key: (Ipv4Addr, Ipv4Addr, u8, u16),
    since: u64,
    /// Header of the first piece, then the contents so far.
    data: Vec<u8>,
    header: Vec<u8>,
    /// Bytes present, as sorted ranges that do not touch.
    have: Vec<(usize, usize)>,
    /// Length, once the last piece is there.
    total: Option<usize>,
}

/// Pieces that wait for others.
#[derive(Default)]
pub(super) struct Fragments {
    list: Vec<Partial>,
}

/// Adds a range; `false` if it overlaps one that is there (no honest sender does that).
fn cover(have: &mut Vec<(usize, usize)>, from: usize, to: usize) -> bool {
    if have.iter().any(|(a, b)| from < *b && *a < to) {
        return false;
    }
    have.push((from, to));
    have.sort_unstable();
    have.dedup_by(|next, prev| {
        let touch = prev.1 == next.0;
        if touch {
            prev.1 = next.1;
        }
        touch
    });
    true
}

impl Fragments {
    /// Takes a piece; the whole packet, if it is complete now.
    fn add(&mut self, now: u64, key: (Ipv4Addr, Ipv4Addr, u8, u16), p: &[u8], ihl: usize) -> Option<Vec<u8>> {
        let bits = be16(p, 6)?;
        let (at, more) = (usize::from(bits & OFFSET) * 8, bits & MORE != 0);
        let body = p.get(ihl..)?;
        let end = at + body.len();
        self.list.retain(|f| now.saturating_sub(f.since) < PATIENCE);
        if body.is_empty() || end > 65535 - IP4 || more && body.len() % 8 != 0 {
            return None;
        }
        let i = match self.list.iter().position(|f| f.key == key) {
            Some(i) => i,
            None => {
                if self.list.len() >= MAX_PARTIAL {
                    self.list.remove(0);
                }
                let (data, header, have) = (Vec::new(), Vec::new(), Vec::new());
                self.list.push(Partial { key, since: now, data, header, have, total: None });
                self.list.len() - 1
            }
        };
        let f = self.list.get_mut(i)?;
        let longest = f.have.last().map_or(0, |h| h.1);
        let wrong_end = match f.total {
            Some(t) => end > t || !more && end != t,
            None => !more && end < longest,
        };
        if wrong_end || !cover(&mut f.have, at, end) {
            self.list.remove(i);
            return None;
        }
        if f.data.len() < end {
            f.data.resize(end, 0);
        }
        f.data.get_mut(at..end)?.copy_from_slice(body);
        if at == 0 {
            f.header = p.get(..IP4)?.to_vec();
        }
        if !more {
            f.total = Some(end);
        }
        if f.have.first() != Some(&(0, f.total?)) || f.header.len() != IP4 {
            return None;
        }
        let f = self.list.remove(i);
        let mut whole = f.header;
        whole[0] = 0x45;
        whole[2..4].copy_from_slice(&((IP4 + f.data.len()) as u16).to_be_bytes());
        whole[6..8].fill(0);
        whole.extend(f.data);
        Some(whole)
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.list.len()
    }
}

impl User {
    /// An IPv4 packet of the guest.
    pub(super) fn ip4_input(&mut self, mac: Mac, b: &[u8], trusted: bool) {
        let Some(&first) = b.first() else { return };
        let ihl = usize::from(first & 15) * 4;
        let Some(total) = be16(b, 2).map(usize::from) else { return };
        if first >> 4 != 4 || ihl < IP4 || total < ihl {
            return;
        }
        let (Some(head), Some(p)) = (b.get(..ihl), b.get(..total)) else { return };
        if checksum::finish(checksum::add(0, head)) != 0 {
            return;
        }
        let (Some(src), Some(dst), Some(bits), Some(id)) =
            (ip4_at(p, 12), ip4_at(p, 16), be16(p, 6), be16(p, 4))
        else {
            return;
        };
        if src.is_multicast() || src.is_broadcast() || src.is_loopback() {
            return;
        }
        let ours = self.cfg.v4.as_ref().is_none_or(|n| src == n.host || src == n.dns);
        if ours {
            return;
        }
        self.guest_is_at(src.into(), mac);
        if bits & (MORE | OFFSET) == 0 {
            self.ip4_packet(p, ihl, trusted);
        } else {
            let protocol = head[9];
            if let Some(whole) = self.fragments.add(self.now, (src, dst, protocol, id), p, ihl) {
                self.ip4_packet(&whole, IP4, false);
            }
        }
    }

    fn ip4_packet(&mut self, whole: &[u8], ihl: usize, trusted: bool) {
        let (Some(src), Some(dst), Some(body)) = (ip4_at(whole, 12), ip4_at(whole, 16), whole.get(ihl..))
        else {
            return;
        };
        let [.., ttl, protocol] = whole.get(..10).unwrap_or(&[0; 10]) else { return };
        let p = Packet {
            src: IpAddr::V4(src),
            dst: IpAddr::V4(dst),
            protocol: *protocol,
            ttl: *ttl,
            whole,
            body,
            trusted,
        };
        match p.protocol {
            ICMP => self.icmp_input(&p),
            TCP => self.tcp_input(&p),
            UDP => self.udp_input(&p),
            _ => {}
        }
    }

    /// A guest showed its hardware address.
    pub(super) fn guest_is_at(&mut self, ip: IpAddr, mac: Mac) {
        if self.link.learn(ip, mac) {
            self.tcp_found(ip);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(at: usize, more: bool, body: &[u8]) -> Vec<u8> {
        let mut p = vec![0; IP4];
        p[6..8].copy_from_slice(&((at / 8) as u16 | if more { MORE } else { 0 }).to_be_bytes());
        p.extend(body);
        p
    }

    #[test]
    fn fragments_in_any_order() {
        let key = (Ipv4Addr::LOCALHOST, Ipv4Addr::LOCALHOST, 17, 1);
        let parts = [piece(0, true, &[1; 16]), piece(16, true, &[2; 8]), piece(24, false, &[3; 5])];
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [2, 0, 1]] {
            let mut f = Fragments::default();
            assert_eq!(f.add(0, key, &parts[order[0]], IP4), None);
            assert_eq!(f.add(0, key, &parts[order[1]], IP4), None);
            let whole = f.add(0, key, &parts[order[2]], IP4).unwrap();
            assert_eq!(whole[IP4..], [&[1; 16][..], &[2; 8], &[3; 5]].concat());
            assert_eq!(f.len(), 0);
        }
    }

    #[test]
    fn overlaps_and_floods_are_dropped() {
        let key = |id| (Ipv4Addr::LOCALHOST, Ipv4Addr::LOCALHOST, 17, id);
        let mut f = Fragments::default();
        f.add(0, key(1), &piece(0, true, &[1; 16]), IP4);
        assert_eq!(f.add(0, key(1), &piece(8, false, &[2; 16]), IP4), None);
        assert_eq!(f.len(), 0);
        for id in 0..100 {
            f.add(0, key(id), &piece(8, true, &[1; 16]), IP4);
        }
        assert_eq!(f.len(), MAX_PARTIAL);
        f.add(PATIENCE, key(1), &piece(8, true, &[1; 16]), IP4);
        assert_eq!(f.len(), 1);
        assert_eq!(f.add(0, key(7), &piece(65528, false, &[1; 16]), IP4), None);
    }
}
