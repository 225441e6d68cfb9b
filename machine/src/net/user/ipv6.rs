//! IPv6 (RFC 8200) with ICMPv6 (RFC 4443) and neighbour discovery (RFC 4861): the router announces its prefix, answers for
//! its addresses, and passes UDP and TCP on. Packets with extension headers are dropped, echo requests to the outside too.

use std::net::{IpAddr, Ipv6Addr};

use super::link::{mac_of, MAC6};
use super::packet::{
    self, be16, ip6_at, put_eth, put_ip, Head, Mac, Packet, ETH, ETHERTYPE_IP6, ICMP6, IP6, TCP, UDP,
};
use super::{icmp, User};
use crate::net::checksum;

const UNREACHABLE: u8 = 1;
const TIME_EXCEEDED: u8 = 3;
const ECHO: u8 = 128;
const ECHO_REPLY: u8 = 129;
const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// Link-local addresses of the router and the name server.
pub(super) const LINK_HOST: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);
const LINK_DNS: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 3);
/// Most bytes of a packet that an error message quotes: it fits into the smallest packet that everybody takes.
const QUOTE: usize = 1280 - IP6 - 8;
/// What an announcement says of DHCP: nothing is to be had there.
const FLAGS: u8 = 0;
/// Seconds that the router and addresses from its prefix are good for.
const ROUTER_LIFETIME: u16 = 1800;
const VALID: u32 = 86400;
const PREFERRED: u32 = 14400;
/// Milliseconds between announcements, well before the router's lifetime is over.
pub(super) const ANNOUNCE: u64 = 400_000;

/// A question for the hardware address of a guest.
pub(super) fn solicitation(ip: Ipv6Addr) -> Vec<u8> {
    let o = ip.octets();
    let dst =
        Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(o[13]), u16::from_be_bytes([o[14], o[15]]));
    let mut b = vec![SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
    b.extend(o);
    b.extend([1, 1]);
    b.extend(MAC6);
    let sum = packet::pseudo(LINK_HOST.into(), dst.into(), ICMP6, b.len());
    let sum = checksum::finish(checksum::add(sum, &b));
    b[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut f = vec![0; ETH + IP6];
    let d = dst.octets();
    put_eth(&mut f, [0x33, 0x33, d[12], d[13], d[14], d[15]], MAC6, ETHERTYPE_IP6);
    let h = Head {
        src: LINK_HOST.into(),
        dst: dst.into(),
        protocol: ICMP6,
        tos: 0,
        ttl: 255,
        id: 0,
        fragment: 0,
    };
    put_ip(&mut f[ETH..], &h, b.len());
    f.extend(b);
    f
}

impl User {
    /// An IPv6 packet of the guest.
    pub(super) fn ip6_input(&mut self, mac: Mac, b: &[u8], trusted: bool) {
        let (Some(len), Some(src), Some(dst)) = (be16(b, 4), ip6_at(b, 8), ip6_at(b, 24)) else { return };
        let [first, _, _, _, _, _, protocol, ttl, ..] = b else { return };
        let (Some(body), Some(whole)) = (b.get(IP6..IP6 + usize::from(len)), b.get(..IP6 + usize::from(len)))
        else {
            return;
        };
        if first >> 4 != 6 || src.is_multicast() || src.is_loopback() {
            return;
        }
        let ours = self.cfg.v6.as_ref().is_none_or(|n| src == n.host || src == n.dns);
        if ours || src == LINK_HOST || src == LINK_DNS {
            return;
        }
        self.guest_is_at(src.into(), mac);
        let p =
            Packet { src: src.into(), dst: dst.into(), protocol: *protocol, ttl: *ttl, whole, body, trusted };
        match p.protocol {
            ICMP6 => self.icmp6_input(&p, dst),
            TCP if !src.is_unspecified() => self.tcp_input(&p),
            UDP if !src.is_unspecified() => self.udp_input(&p),
            _ => {}
        }
    }

    /// An address of the gateway or the name server.
    fn is_our_ip6(&self, ip: Ipv6Addr) -> bool {
        let named = self.cfg.v6.as_ref().is_some_and(|n| ip == n.host || ip == n.dns);
        named || ip == LINK_HOST || ip == LINK_DNS
    }

    fn icmp6_input(&mut self, p: &Packet<'_>, dst: Ipv6Addr) {
        if p.body.len() < 8 || !p.checksum_ok() {
            return;
        }
        let src_known = !matches!(p.src, IpAddr::V6(s) if s.is_unspecified());
        match p.body[0] {
            ECHO if self.is_our_ip6(dst) && src_known => {
                let mut reply = p.body.to_vec();
                reply[0] = ECHO_REPLY;
                reply[2..4].fill(0);
                self.link.send_icmp(p.dst, p.src, 0, reply);
            }
            // Discovery counts only if it was not routed here.
            ROUTER_SOLICITATION if p.ttl == 255 => self.router_advertisement(),
            SOLICITATION if p.ttl == 255 => {
                let Some(target) = ip6_at(p.body, 8).filter(|t| self.is_our_ip6(*t)) else { return };
                let mut b = vec![ADVERTISEMENT, 0, 0, 0, 0xe0, 0, 0, 0];
                b.extend(target.octets());
                b.extend([2, 1]);
                b.extend(mac_of(target.into()));
                let to = if src_known { p.src } else { ALL_NODES.into() };
                self.link.send_icmp(target.into(), to, 0, b);
            }
            _ => {}
        }
    }

    /// Announces router and prefix.
    pub(super) fn router_advertisement(&mut self) {
        let Some(net) = self.cfg.v6.clone() else { return };
        let mut b = vec![ROUTER_ADVERTISEMENT, 0, 0, 0, 64, FLAGS];
        b.extend(ROUTER_LIFETIME.to_be_bytes());
        b.extend([0; 8]);
        b.extend([1, 1]);
        b.extend(MAC6);
        b.extend([3, 4, net.len, 0xc0]);
        b.extend(VALID.to_be_bytes());
        b.extend(PREFERRED.to_be_bytes());
        b.extend([0; 4]);
        b.extend(net.prefix.octets());
        if self.dns.server(self.now, true).is_some_and(|s| s.is_ipv6()) {
            b.extend([25, 3, 0, 0]);
            b.extend(VALID.to_be_bytes());
            b.extend(net.dns.octets());
        }
        self.link.send_icmp(LINK_HOST.into(), ALL_NODES.into(), 0, b);
        self.announce_at = Some(self.now + ANNOUNCE);
        self.due(self.now + ANNOUNCE);
    }

    /// Announces the router again when it is time; when the next time is.
    pub(super) fn router_tick(&mut self) -> Option<u64> {
        if self.announce_at.is_some_and(|at| at <= self.now) {
            self.router_advertisement();
        }
        self.announce_at
    }

    /// "Unreachable" for one of the reasons in [`icmp`].
    pub(super) fn icmp6_unreachable(&mut self, p: &Packet<'_>, reason: u8) {
        let code = match reason {
            icmp::PORT => 4,
            icmp::HOST => 3,
            _ => 0,
        };
        self.icmp6_quote(LINK_HOST.into(), p.src, (UNREACHABLE, code), p.whole);
    }

    pub(super) fn icmp6_time_exceeded(&mut self, p: &Packet<'_>) {
        self.icmp6_quote(LINK_HOST.into(), p.src, (TIME_EXCEEDED, 0), p.whole);
    }

    /// An error message that quotes a packet.
    pub(super) fn icmp6_quote(&mut self, from: IpAddr, to: IpAddr, what: (u8, u8), packet: &[u8]) {
        let mut body = vec![what.0, what.1, 0, 0, 0, 0, 0, 0];
        body.extend(packet.get(..packet.len().min(QUOTE)).unwrap_or_default());
        self.link.send_icmp(from, to, 0, body);
    }
}
