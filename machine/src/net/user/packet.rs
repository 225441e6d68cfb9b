//! Frames and headers: taking apart what the guest sends, and putting answers together.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::net::checksum;

/// Length of an Ethernet header.
pub(super) const ETH: usize = 14;
/// Length of an IPv4 header without options.
pub(super) const IP4: usize = 20;
/// Length of an IPv6 header.
pub(super) const IP6: usize = 40;
/// Largest packet that is sent without segmentation offload.
pub(super) const MTU: usize = 1500;
/// Shortest frame.
const MIN_FRAME: usize = 60;

pub(super) const ETHERTYPE_IP4: u16 = 0x0800;
pub(super) const ETHERTYPE_ARP: u16 = 0x0806;
pub(super) const ETHERTYPE_IP6: u16 = 0x86dd;

pub(super) const ICMP: u8 = 1;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
pub(super) const ICMP6: u8 = 58;

pub(super) type Mac = [u8; 6];
pub(super) const BROADCAST: Mac = [0xff; 6];

/// Two bytes at `at`, big-endian.
pub(super) fn be16(b: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(b.get(at..at + 2)?.try_into().ok()?))
}

/// Four bytes at `at`, big-endian.
pub(super) fn be32(b: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(b.get(at..at + 4)?.try_into().ok()?))
}

/// An IPv4 address at `at`.
pub(super) fn ip4_at(b: &[u8], at: usize) -> Option<Ipv4Addr> {
    be32(b, at).map(Ipv4Addr::from)
}

/// An IPv6 address at `at`.
pub(super) fn ip6_at(b: &[u8], at: usize) -> Option<Ipv6Addr> {
    let bytes: [u8; 16] = b.get(at..at + 16)?.try_into().ok()?;
    Some(bytes.into())
}

/// What an IP packet of the guest says, without its headers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet<'a> {
    pub src: IpAddr,
    pub dst: IpAddr,
    pub protocol: u8,
    /// Time to live or hop limit.
    pub ttl: u8,
    /// The whole packet from its IP header on, for error messages.
    pub whole: &'a [u8],
    pub body: &'a [u8],
    /// The checksum inside was left to the receiver (offload).
    pub trusted: bool,
}

impl Packet<'_> {
    /// Whether the checksum over pseudo header and contents is right.
    pub fn checksum_ok(&self) -> bool {
        self.trusted || checksum::finish(checksum::add(self.pseudo(), self.body)) == 0
    }

    fn pseudo(&self) -> u32 {
        pseudo(self.src, self.dst, self.protocol, self.body.len())
    }

    /// Source address with a port.
    pub fn from(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.src, port)
    }

    /// Destination address with a port.
    pub fn to(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.dst, port)
    }
}

/// Sum of the pseudo header of UDP, TCP and ICMPv6.
pub(super) fn pseudo(src: IpAddr, dst: IpAddr, protocol: u8, len: usize) -> u32 {
    let sum = u32::from(protocol) + (len as u32 >> 16) + (len as u32 & 0xffff);
    match (src, dst) {
        (IpAddr::V4(s), IpAddr::V4(d)) => checksum::add(checksum::add(sum, &s.octets()), &d.octets()),
        (IpAddr::V6(s), IpAddr::V6(d)) => checksum::add(checksum::add(sum, &s.octets()), &d.octets()),
        _ => sum,
    }
}

/// Length of Ethernet and IP headers in front of a packet to `dst`.
pub(super) fn head_len(dst: IpAddr) -> usize {
    ETH + if dst.is_ipv4() { IP4 } else { IP6 }
}

/// Header fields of a packet to the guest.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub src: IpAddr,
    pub dst: IpAddr,
    pub protocol: u8,
    pub tos: u8,
    pub ttl: u8,
    pub id: u16,
    /// Flags and offset of a fragment (IPv4).
    pub fragment: u16,
}

/// Writes an Ethernet header.
pub(super) fn put_eth(b: &mut [u8], dst: Mac, src: Mac, kind: u16) {
    let Some(b) = b.get_mut(..ETH) else { return };
    b[..6].copy_from_slice(&dst);
    b[6..12].copy_from_slice(&src);
    b[12..].copy_from_slice(&kind.to_be_bytes());
}

/// Writes an IP header in front of `len` bytes.
pub(super) fn put_ip(b: &mut [u8], h: &Head, len: usize) {
    match (h.src, h.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let Some(b) = b.get_mut(..IP4) else { return };
            b[0] = 0x45;
            b[1] = h.tos;
            b[2..4].copy_from_slice(&((IP4 + len) as u16).to_be_bytes());
            b[4..6].copy_from_slice(&h.id.to_be_bytes());
            b[6..8].copy_from_slice(&h.fragment.to_be_bytes());
            b[8] = h.ttl;
            b[9] = h.protocol;
            b[10..12].fill(0);
            b[12..16].copy_from_slice(&src.octets());
            b[16..20].copy_from_slice(&dst.octets());
            let sum = checksum::finish(checksum::add(0, b));
            b[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let Some(b) = b.get_mut(..IP6) else { return };
            b[..4].copy_from_slice(&[0x60, 0, 0, 0]);
            b[4..6].copy_from_slice(&(len as u16).to_be_bytes());
            b[6] = h.protocol;
            b[7] = h.ttl;
            b[8..24].copy_from_slice(&src.octets());
            b[24..40].copy_from_slice(&dst.octets());
        }
        _ => {}
    }
}

/// Puts a whole frame together; pads it to the shortest length.
pub(super) fn frame(dst: Mac, src: Mac, h: &Head, body: &[u8]) -> Vec<u8> {
    let head = head_len(h.dst);
    let mut f = vec![0; (head + body.len()).max(MIN_FRAME)];
    let kind = if h.dst.is_ipv4() { ETHERTYPE_IP4 } else { ETHERTYPE_IP6 };
    put_eth(&mut f, dst, src, kind);
    if let Some(ip) = f.get_mut(ETH..) {
        put_ip(ip, h, body.len());
    }
    if let Some(b) = f.get_mut(head..head + body.len()) {
        b.copy_from_slice(body);
    }
    f
}

/// A UDP datagram with its checksum.
pub(super) fn udp(from: SocketAddr, to: SocketAddr, data: &[u8]) -> Vec<u8> {
    let mut u = Vec::with_capacity(8 + data.len());
    u.extend(from.port().to_be_bytes());
    u.extend(to.port().to_be_bytes());
    u.extend(((8 + data.len()) as u16).to_be_bytes());
    u.extend([0, 0]);
    u.extend(data);
    let sum = checksum::finish(checksum::add(pseudo(from.ip(), to.ip(), UDP, u.len()), &u));
    // Zero would say that there is no checksum.
    let sum = if sum == 0 { 0xffff } else { sum };
    u[6..8].copy_from_slice(&sum.to_be_bytes());
    u
}

/// The UDP datagram in a packet: ports and data.
pub(super) fn parse_udp<'a>(p: &Packet<'a>) -> Option<(u16, u16, &'a [u8])> {
    let b = p.body;
    let (from, to, len, sum) = (be16(b, 0)?, be16(b, 2)?, usize::from(be16(b, 4)?), be16(b, 6)?);
    let data = b.get(8..len)?;
    let whole = Packet { body: b.get(..len)?, ..*p };
    let unsummed = sum == 0 && p.src.is_ipv4();
    (unsummed || whole.checksum_ok()).then_some((from, to, data))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn udp_both_ways() {
        let (a, b) = ("10.0.2.2:53".parse().unwrap(), "10.0.2.15:1024".parse().unwrap());
        let body = udp(a, b, b"data");
        let mut p = Packet {
            src: a.ip(),
            dst: b.ip(),
            protocol: UDP,
            ttl: 64,
            whole: &[],
            body: &body,
            trusted: false,
        };
        assert_eq!(parse_udp(&p), Some((53, 1024, &b"data"[..])));
        let mut bad = body.clone();
        bad[9] ^= 1;
        p.body = &bad;
        assert_eq!(parse_udp(&p), None);
        p.body = &body[..11];
        assert_eq!(parse_udp(&p), None);
    }

    #[test]
    fn frames_are_padded() {
        let h = Head {
            src: Ipv4Addr::new(10, 0, 2, 2).into(),
            dst: Ipv4Addr::new(10, 0, 2, 15).into(),
            protocol: ICMP,
            tos: 0,
            ttl: 255,
            id: 7,
            fragment: 0,
        };
        let f = frame(BROADCAST, [2; 6], &h, &[1, 2, 3]);
        assert_eq!(f.len(), 60);
        assert_eq!(&f[ETH..ETH + 4], &[0x45, 0, 0, 23]);
        assert_eq!(checksum::finish(checksum::add(0, &f[ETH..ETH + IP4])), 0);
    }
}
