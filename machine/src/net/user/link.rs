//! The wire to the guest: who is on it, and frames on their way.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use super::config::Config;
use super::packet::{self, Head, Mac, BROADCAST, ICMP, ICMP6, IP4, MTU, UDP};
use crate::net::Offloads;

/// Most frames that wait for the main loop to fetch them; more are lost, as on a real wire.
const MAX_FRAMES: usize = 4096;
/// Guests whose hardware address is known, for each protocol.
const MAX_NEIGHBOURS: usize = 16;
/// Packets that wait until an address is known.
const MAX_WAITING: usize = 64;

/// The wire.
pub(super) struct Link {
    /// Length of the virtio-net header in front of each frame; 0: none.
    pub header: usize,
    /// What the guest takes.
    pub guest: Offloads,
    /// Address of the gateway.
    pub mac4: Mac,
    frames: VecDeque<Vec<u8>>,
    neighbours: Vec<(IpAddr, Mac)>,
    /// The entry that a new one replaces.
    oldest: usize,
    /// Packets (with room for the address) for guests whose hardware address is asked for.
    waiting: VecDeque<(IpAddr, Vec<u8>)>,
    id: u16,
    /// Source address of questions for hardware addresses.
    ask4: Option<std::net::Ipv4Addr>,
}

/// Hardware address of the IPv6 router.
pub(super) const MAC6: Mac = [0x52, 0x56, 0, 0, 0, 2];

/// Whether a frame to this hardware address concerns us.
pub(super) fn is_for_us(dst: Mac) -> bool {
    dst[0] & 1 != 0 || dst[..2] == [0x52, 0x55] || dst[..2] == [0x52, 0x56]
}

/// Hardware address of a host of the virtual network.
pub(super) fn mac_of(ip: IpAddr) -> Mac {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            [0x52, 0x55, a, b, c, d]
        }
        IpAddr::V6(ip) => {
            let o = ip.octets();
            [0x52, 0x56, o[12], o[13], o[14], o[15]]
        }
    }
}

impl Link {
    pub fn new(cfg: &Config) -> Self {
        let host = cfg.v4.as_ref().map(|n| n.host);
        Self {
            header: 0,
            guest: Offloads::default(),
            mac4: host.map_or([0x52, 0x55, 0, 0, 0, 0], |h| mac_of(h.into())),
            frames: VecDeque::new(),
            neighbours: Vec::new(),
            oldest: 0,
            waiting: VecDeque::new(),
            id: 0,
            ask4: host,
        }
    }

    pub fn set_header(&mut self, len: Option<usize>, guest: Offloads) {
        self.header = len.filter(|l| (10..=12).contains(l)).unwrap_or(0);
        self.guest = if self.header == 0 { Offloads::default() } else { guest };
    }

    /// Frames wait to be fetched.
    pub fn has_frames(&self) -> bool {
        !self.frames.is_empty()
    }

    /// Fetches the next frame.
    pub fn take(&mut self, buf: &mut [u8]) -> Option<usize> {
        let f = self.frames.pop_front()?;
        let (head, body) = buf.split_at_mut_checked(self.header)?;
        head.fill(0);
        body.get_mut(..f.len())?.copy_from_slice(&f);
        Some(self.header + f.len())
    }

    /// Sends a frame.
    pub fn push(&mut self, frame: Vec<u8>) {
        if self.frames.len() < MAX_FRAMES {
            self.frames.push_back(frame);
        }
    }

    /// A guest showed where it is. `true`: it is news.
    pub fn learn(&mut self, ip: IpAddr, mac: Mac) -> bool {
        if mac[0] & 1 != 0 || ip.is_unspecified() || ip.is_multicast() {
            return false;
        }
        let known = self.neighbours.len();
        match self.neighbours.iter_mut().find(|n| n.0 == ip) {
            Some(n) if n.1 == mac => return false,
            Some(n) => n.1 = mac,
            None if known < MAX_NEIGHBOURS => self.neighbours.push((ip, mac)),
            None => {
                if let Some(n) = self.neighbours.get_mut(self.oldest) {
                    *n = (ip, mac);
                }
                self.oldest = (self.oldest + 1) % MAX_NEIGHBOURS;
            }
        }
        for (to, mut frame) in std::mem::take(&mut self.waiting) {
            if to != ip {
                self.waiting.push_back((to, frame));
            } else if let Some(dst) = frame.get_mut(..6) {
                dst.copy_from_slice(&mac);
                self.push(frame);
            }
        }
        true
    }

    /// Hardware address of a guest.
    pub fn mac(&self, ip: IpAddr) -> Option<Mac> {
        if ip == IpAddr::V4(std::net::Ipv4Addr::BROADCAST) {
            return Some(BROADCAST);
        }
        if let IpAddr::V6(ip) = ip {
            if ip.is_multicast() {
                let o = ip.octets();
                return Some([0x33, 0x33, o[12], o[13], o[14], o[15]]);
            }
        }
        self.neighbours.iter().find(|n| n.0 == ip).map(|n| n.1)
    }

    /// Hardware address that packets to `dst` come from.
    pub fn source_mac(&self, dst: IpAddr) -> Mac {
        if dst.is_ipv4() {
            self.mac4
        } else {
            MAC6
        }
    }

    /// The next packet's number.
    pub fn next_id(&mut self) -> u16 {
        let id = self.id;
        self.id = id.wrapping_add(1);
        id
    }

    /// Asks where a guest is.
    pub fn ask(&mut self, ip: IpAddr) {
        match ip {
            IpAddr::V4(ip) => {
                let from = self.ask4.unwrap_or(std::net::Ipv4Addr::UNSPECIFIED);
                let f = super::arp::request(self.mac4, from, ip);
                self.push(f);
            }
            IpAddr::V6(ip) => {
                let f = super::ipv6::solicitation(ip);
                self.push(f);
            }
        }
    }

    /// Sends an IP packet, in fragments if it is too long for one.
    pub fn send_ip(&mut self, src: IpAddr, dst: IpAddr, protocol: u8, tos: u8, ttl: u8, body: &[u8]) {
        let id = self.next_id();
        let mut h = Head { src, dst, protocol, tos, ttl, id, fragment: 0 };
        if !dst.is_ipv4() || IP4 + body.len() <= MTU {
            self.send_packet(&h, body);
            return;
        }
        // Offsets count eight bytes.
        let piece = (MTU - IP4) & !7;
        let mut at = 0;
        for part in body.chunks(piece) {
            let more = if at + part.len() < body.len() { 0x2000 } else { 0 };
            h.fragment = more | (at / 8) as u16;
            self.send_packet(&h, part);
            at += part.len();
        }
    }

    fn send_packet(&mut self, h: &Head, body: &[u8]) {
        let src = self.source_mac(h.dst);
        match self.mac(h.dst) {
            Some(mac) => self.push(packet::frame(mac, src, h, body)),
            None => {
                if self.waiting.len() >= MAX_WAITING {
                    self.waiting.pop_front();
                }
                self.waiting.push_back((h.dst, packet::frame([0; 6], src, h, body)));
                self.ask(h.dst);
            }
        }
    }

    /// Sends a UDP datagram.
    pub fn send_udp(&mut self, from: SocketAddr, to: SocketAddr, tos: u8, data: &[u8]) {
        let body = packet::udp(from, to, data);
        let ttl = if to.is_ipv4() { 64 } else { 255 };
        self.send_ip(from.ip(), to.ip(), UDP, tos, ttl, &body);
    }

    /// Sends an ICMP message whose checksum is not filled in.
    pub fn send_icmp(&mut self, src: IpAddr, dst: IpAddr, tos: u8, mut body: Vec<u8>) {
        let (protocol, sum) = match dst {
            IpAddr::V4(_) => (ICMP, 0),
            IpAddr::V6(_) => (ICMP6, packet::pseudo(src, dst, ICMP6, body.len())),
        };
        let sum = crate::net::checksum::finish(crate::net::checksum::add(sum, &body));
        if let Some(field) = body.get_mut(2..4) {
            field.copy_from_slice(&sum.to_be_bytes());
        }
        self.send_ip(src, dst, protocol, tos, 255, &body);
    }
}
