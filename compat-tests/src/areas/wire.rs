//! Ethernet frames as a guest on a user-mode network sends them, and readable descriptions of the answers.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

/// The guest's hardware address.
pub const GUEST: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
/// The gateway's.
const GATEWAY: [u8; 6] = [0x52, 0x55, 10, 0, 2, 2];

/// Internet checksum.
fn sum(parts: &[&[u8]]) -> u16 {
    let all: Vec<u8> = parts.concat();
    let mut s: u32 =
        all.chunks(2).map(|c| u32::from(c[0]) << 8 | c.get(1).map_or(0, |b| u32::from(*b))).sum();
    while s >> 16 != 0 {
        s = (s & 0xffff) + (s >> 16);
    }
    !(s as u16)
}

fn bytes(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

fn pseudo(src: IpAddr, dst: IpAddr, protocol: u8, len: usize) -> Vec<u8> {
    [bytes(src), bytes(dst), (len as u32).to_be_bytes().to_vec(), vec![0, 0, 0, protocol]].concat()
}

fn eth(dst: [u8; 6], kind: u16, body: &[u8]) -> Vec<u8> {
    [&dst[..], &GUEST, &kind.to_be_bytes(), body].concat()
}

/// An IP packet; `fragment` are flags and offset.
pub fn ip(protocol: u8, src: IpAddr, dst: IpAddr, ttl: u8, fragment: u16, body: &[u8]) -> Vec<u8> {
    if src.is_ipv6() {
        let mut h = vec![0x60, 0, 0, 0];
        h.extend((body.len() as u16).to_be_bytes());
        h.extend([protocol, ttl]);
        h.extend([bytes(src), bytes(dst)].concat());
        let d = bytes(dst);
        let mac =
            if d[0] == 0xff { [0x33, 0x33, d[12], d[13], d[14], d[15]] } else { [0x52, 0x56, 0, 0, 0, 2] };
        return eth(mac, 0x86dd, &[&h[..], body].concat());
    }
    let mut h = vec![0x45, 0];
    h.extend((20 + body.len() as u16).to_be_bytes());
    h.extend([0, 77]);
    h.extend(fragment.to_be_bytes());
    h.extend([ttl, protocol, 0, 0]);
    h.extend([bytes(src), bytes(dst)].concat());
    let s = sum(&[&h]);
    h[10..12].copy_from_slice(&s.to_be_bytes());
    let mac = if bytes(dst) == [255; 4] { [0xff; 6] } else { GATEWAY };
    eth(mac, 0x800, &[&h[..], body].concat())
}

/// Fills in a checksum at `at`.
fn summed(src: IpAddr, dst: IpAddr, protocol: u8, at: usize, mut b: Vec<u8>) -> Vec<u8> {
    let p = if protocol == 1 { Vec::new() } else { pseudo(src, dst, protocol, b.len()) };
    let s = sum(&[&p, &b]);
    b[at..at + 2].copy_from_slice(&s.to_be_bytes());
    b
}

/// A UDP datagram without IP header.
pub fn udp_body(from: SocketAddr, to: SocketAddr, data: &[u8]) -> Vec<u8> {
    let mut b = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
    b.extend((8 + data.len() as u16).to_be_bytes());
    b.extend([0, 0]);
    b.extend(data);
    summed(from.ip(), to.ip(), 17, 6, b)
}

/// A UDP datagram.
pub fn udp(from: SocketAddr, to: SocketAddr, data: &[u8]) -> Vec<u8> {
    ip(17, from.ip(), to.ip(), 64, 0, &udp_body(from, to, data))
}

/// A TCP segment: numbers, flags, options, data.
pub fn tcp(
    from: SocketAddr,
    to: SocketAddr,
    (seq, ack, flags): (u32, u32, u8),
    options: &[u8],
    data: &[u8],
) -> Vec<u8> {
    let mut b = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
    b.extend([seq.to_be_bytes(), ack.to_be_bytes()].concat());
    b.extend([(5 + options.len() as u8 / 4) << 4, flags, 0xfa, 0xf0, 0, 0, 0, 0]);
    b.extend(options);
    b.extend(data);
    ip(6, from.ip(), to.ip(), 64, 0, &summed(from.ip(), to.ip(), 6, 16, b))
}

/// An ICMP or ICMPv6 message.
pub fn icmp(src: IpAddr, dst: IpAddr, ttl: u8, kind: u8, rest: &[u8]) -> Vec<u8> {
    let protocol = if src.is_ipv4() { 1 } else { 58 };
    let b = [&[kind, 0, 0, 0], rest].concat();
    ip(protocol, src, dst, ttl, 0, &summed(src, dst, protocol, 2, b))
}

/// An ARP question.
pub fn arp(from: IpAddr, target: IpAddr) -> Vec<u8> {
    let head = [0, 1, 8, 0, 6, 4, 0, 1];
    eth([0xff; 6], 0x806, &[&head[..], &GUEST, &bytes(from), &[0; 6], &bytes(target)].concat())
}

/// A DHCP message with options behind its type (0: none, as BOOTP).
pub fn dhcp(kind: u8, ciaddr: IpAddr, options: &[u8]) -> Vec<u8> {
    let mut b = vec![1, 1, 6, 0, 0, 0, 0x12, 0x34, 0, 0, 0, 0];
    b.extend(bytes(ciaddr));
    b.resize(28, 0);
    b.extend(GUEST);
    b.resize(236, 0);
    b.extend([0x63, 0x82, 0x53, 0x63]);
    if kind != 0 {
        b.extend([53, 1, kind]);
    }
    b.extend(options);
    b.push(255);
    let any = |port| SocketAddr::new([0, 0, 0, 0].into(), port);
    udp(any(68), SocketAddr::new([255, 255, 255, 255].into(), 67), &b)
}

fn hex(b: &[u8]) -> String {
    b.iter().fold(String::new(), |mut s, x| {
        let _ = write!(s, "{x:02x}");
        s
    })
}

fn be(b: &[u8], at: usize) -> u16 {
    b.get(at..at + 2).map_or(0, |x| u16::from_be_bytes([x[0], x[1]]))
}

/// A TCP segment's numbers: sequence, acknowledgement.
pub fn numbers(f: &[u8]) -> Option<(u32, u32)> {
    let at = if be(f, 12) == 0x800 { 34 } else { 54 };
    let n = |a: usize| Some(u32::from_be_bytes(f.get(a..a + 4)?.try_into().ok()?));
    Some((n(at + 4)?, n(at + 8)?))
}

/// A question of the network where the guest is: who asks when is not compared.
pub fn is_solicitation(f: &[u8]) -> bool {
    be(f, 12) == 0x86dd && f.get(20) == Some(&58) && f.get(54) == Some(&135)
}

/// A frame in words. Left out: what must differ (packet numbers, first sequence numbers, ports of the host) and what this
/// program does on purpose (window scaling, who sends an error message).
pub fn describe(f: &[u8], host_port: u16, first: u32) -> String {
    let port = |p: u16| if p == host_port { "HOST".to_string() } else { p.to_string() };
    let kind = be(f, 12);
    if kind == 0x806 {
        return format!("arp {}", hex(f.get(..42).unwrap_or(f)));
    }
    let (protocol, body, head, src, dst) = if kind == 0x800 {
        let total = usize::from(be(f, 16));
        let ip = f.get(14..14 + total).unwrap_or_default();
        if sum(&[ip.get(..20).unwrap_or_default()]) != 0 {
            return "wrong IP checksum".into();
        }
        let a = |at: usize| IpAddr::from([ip[at], ip[at + 1], ip[at + 2], ip[at + 3]]);
        let fragment = be(ip, 6);
        let head = format!("tos {} ttl {} fragment {fragment:x} {}", ip[1], ip[8], hex(&f[..12]));
        if fragment != 0 {
            return format!("ip {head} {}", hex(&ip[28..]));
        }
        (ip[9], &ip[20..], head, a(12), a(16))
    } else if kind == 0x86dd {
        let len = usize::from(be(f, 18));
        let ip = f.get(14..54 + len).unwrap_or_default();
        let a = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&ip[at..at + 16]).unwrap_or_default());
        (ip[6], &ip[40..], format!("hops {} to {}", ip[7], hex(&f[..6])), a(8), a(24))
    } else {
        return hex(f);
    };
    let p = if protocol == 1 { Vec::new() } else { pseudo(src, dst, protocol, body.len()) };
    let good = if sum(&[&p, body]) == 0 { "" } else { " wrong checksum" };
    match protocol {
        17 => format!(
            "udp {src}:{} > {dst}:{} {head}{good} {}",
            port(be(body, 0)),
            port(be(body, 2)),
            hex(&body[8..])
        ),
        6 => {
            let (seq, ack) = numbers(f).unwrap_or_default();
            let offset = usize::from(body[12] >> 4) * 4;
            let options = &body[20..offset];
            let mss = options.get(..4).unwrap_or_default();
            let seq = if body[13] & 2 != 0 { 0 } else { seq.wrapping_sub(first) };
            format!(
                "tcp {src}:{} > {dst}:{} {head}{good} seq {seq} ack {ack} flags {:02x} window {} mss {} data {}",
                port(be(body, 0)),
                port(be(body, 2)),
                body[13],
                be(body, 14),
                hex(mss),
                hex(&body[offset..])
            )
        }
        1 if body[0] != 0 => format!("icmp error {} {} {head}{good}", body[0], body[1]),
        58 if body[0] < 128 => format!("icmp6 error {} {}{good}", body[0], body[1]),
        _ => format!("protocol {protocol} {src} > {dst} {head}{good} {}", hex(body)),
    }
}
