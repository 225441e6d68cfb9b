//! UDP: each port of a guest has a socket of the host, which sends to all addresses that the guest sends to.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

use super::packet::{parse_udp, put_ip, Head, Packet, IP4, IP6, UDP};
use super::{dhcp, dhcpv6, icmp, sock, tftp, Source, Target, User};

/// Most sockets; a new one closes the one that was quiet for longest.
const MAX_FLOWS: usize = 1024;
/// Milliseconds without a datagram after which a socket is closed.
const IDLE: u64 = 240_000;
/// The same for questions to a name server.
const IDLE_DNS: u64 = 10_000;
const DNS_PORT: u16 = 53;
/// Addresses whose name for the guest is not their own.
const MAX_ALIASES: usize = 8;
/// Datagrams read from one socket before the next has its turn.
const BURST: usize = 16;

/// A guest's port.
pub(super) struct Flow {
    pub guest: SocketAddr,
    pub sock: UdpSocket,
    /// The host address that is forwarded, for sockets of `hostfwd`.
    pub forward: Option<SocketAddr>,
    /// Last destination, as the guest sees it.
    pub last: SocketAddr,
    /// Destinations that the guest knows by another address: real, seen.
    aliases: Vec<(SocketAddr, SocketAddr)>,
    used: u64,
    idle: u64,
    queued: bool,
    /// Order of creation.
    pub serial: u64,
}

impl Flow {
    /// Milliseconds until it is closed.
    pub fn left(&self, now: u64) -> u64 {
        (self.used + self.idle).saturating_sub(now)
    }

    fn alias(&mut self, real: SocketAddr, seen: SocketAddr) {
        self.aliases.retain(|a| a.0 != real);
        if real != seen || real.ip().is_loopback() {
            if self.aliases.len() >= MAX_ALIASES {
                self.aliases.remove(0);
            }
            self.aliases.push((real, seen));
        }
    }
}

/// All flows.
#[derive(Default)]
pub(super) struct Udp {
    pub flows: Vec<Option<Flow>>,
    /// By guest address and whether the socket is an IPv6 one.
    index: HashMap<(SocketAddr, bool), usize>,
    /// Flows that may have something to read.
    ready: VecDeque<usize>,
    buf: Vec<u8>,
    serial: u64,
}

impl Udp {
    /// A socket may have something to read.
    pub fn wake(&mut self, slot: usize) {
        if let Some(Some(f)) = self.flows.get_mut(slot) {
            if !f.queued {
                f.queued = true;
                self.ready.push_back(slot);
            }
        }
    }

    fn free_slot(&mut self) -> usize {
        if let Some(i) = self.flows.iter().position(Option::is_none) {
            return i;
        }
        if self.flows.len() < MAX_FLOWS {
            self.flows.push(None);
            return self.flows.len() - 1;
        }
        let age = |i: &usize| match self.flows.get(*i) {
            Some(Some(f)) if f.forward.is_none() => f.used,
            _ => u64::MAX,
        };
        let oldest = (0..self.flows.len()).min_by_key(age).unwrap_or(0);
        self.remove(oldest);
        oldest
    }

    /// Closes a flow.
    pub fn remove(&mut self, slot: usize) {
        if let Some(f) = self.flows.get_mut(slot).and_then(Option::take) {
            for v6 in [false, true] {
                if self.index.get(&(f.guest, v6)) == Some(&slot) {
                    self.index.remove(&(f.guest, v6));
                }
            }
        }
    }
}

impl User {
    /// A UDP packet of the guest.
    pub(super) fn udp_input(&mut self, p: &Packet<'_>) {
        let Some((from, to, data)) = parse_udp(p) else { return };
        if self.udp_service(p, from, to, data) || self.cfg.restrict {
            return;
        }
        if p.ttl <= 1 {
            return self.time_exceeded(p);
        }
        let (guest, seen) = (p.from(from), p.to(to));
        match self.target(seen) {
            Target::Host(real) => {
                if let Err(e) = self.udp_send(guest, seen, real, data) {
                    // A full buffer loses datagrams, as networks do.
                    if e.kind() != io::ErrorKind::WouldBlock {
                        self.unreachable(p, icmp::unreachable_code(&e));
                    }
                }
            }
            Target::Nobody if p.dst.is_multicast() => {}
            Target::Nobody => self.unreachable(p, icmp::PORT),
            Target::NoNameServer => self.unreachable(p, icmp::NET),
        }
    }

    fn time_exceeded(&mut self, p: &Packet<'_>) {
        match p.src {
            IpAddr::V4(_) => self.icmp_error(p, icmp::TIME_EXCEEDED, 0),
            IpAddr::V6(_) => self.icmp6_time_exceeded(p),
        }
    }

    /// Services of the gateway itself; `true`: the datagram was for one of them.
    fn udp_service(&mut self, p: &Packet<'_>, from: u16, to: u16, data: &[u8]) -> bool {
        match p.dst {
            IpAddr::V4(dst) => {
                let Some(net) = &self.cfg.v4 else { return true };
                let gateway = dst == net.host;
                if to == dhcp::SERVER_PORT && (gateway || dst.is_broadcast()) {
                    self.dhcp_input(data);
                    return true;
                }
                if p.src.is_unspecified() {
                    return true;
                }
                if to == tftp::PORT && gateway {
                    self.tftp_input(p.from(from), p.to(to), data);
                    return true;
                }
                false
            }
            IpAddr::V6(dst) => {
                let Some(net) = &self.cfg.v6 else { return true };
                if to == dhcpv6::SERVER_PORT && dst == dhcpv6::ALL_SERVERS {
                    self.dhcpv6_input(p.from(from), data);
                    return true;
                }
                if to == tftp::PORT && dst == net.host {
                    self.tftp_input(p.from(from), p.to(to), data);
                    return true;
                }
                false
            }
        }
    }

    fn udp_send(
        &mut self,
        guest: SocketAddr,
        seen: SocketAddr,
        real: SocketAddr,
        data: &[u8],
    ) -> io::Result<()> {
        let slot = match self.udp.index.get(&(guest, real.is_ipv6())) {
            Some(slot) => *slot,
            None => {
                let sock = UdpSocket::from(sock::new(real.is_ipv6(), libc::SOCK_DGRAM, 0)?);
                self.udp_open(guest, sock, real.is_ipv6(), None)?
            }
        };
        // Nobody answers from the broadcast address.
        let answerer = match seen.ip() {
            IpAddr::V4(ip) if ip.is_broadcast() => self.seen_as(real),
            _ => seen,
        };
        let now = self.now;
        let Some(Some(f)) = self.udp.flows.get_mut(slot) else { return Ok(()) };
        f.used = now;
        f.last = seen;
        f.idle = if seen.port() == DNS_PORT { IDLE_DNS } else { IDLE };
        f.alias(real, answerer);
        // An error of an earlier datagram is reported first; it does not concern this one.
        match f.sock.send_to(data, real) {
            Err(e) if e.kind() != io::ErrorKind::WouldBlock => f.sock.send_to(data, real).map(|_| ()),
            r => r.map(|_| ()),
        }
    }

    /// Adds a flow.
    pub(super) fn udp_open(
        &mut self,
        guest: SocketAddr,
        sock: UdpSocket,
        v6: bool,
        forward: Option<SocketAddr>,
    ) -> io::Result<usize> {
        sock::report_errors(&sock, v6);
        let slot = self.udp.free_slot();
        self.watch.add(sock.as_raw_fd(), Source::Udp, slot)?;
        let (used, aliases) = (self.now, Vec::new());
        self.udp.serial += 1;
        let serial = self.udp.serial;
        let f = Flow { guest, sock, forward, last: guest, aliases, used, idle: IDLE, queued: false, serial };
        if let Some(s) = self.udp.flows.get_mut(slot) {
            *s = Some(f);
        }
        self.udp.index.insert((guest, v6), slot);
        self.due(self.now + IDLE_DNS);
        Ok(slot)
    }

    /// Reads from sockets that have something; `false`: none has.
    pub(super) fn udp_output(&mut self) -> bool {
        let Some(slot) = self.udp.ready.pop_front() else { return false };
        let mut buf = std::mem::take(&mut self.udp.buf);
        buf.resize(65536, 0);
        if let Some(Some(f)) = self.udp.flows.get_mut(slot) {
            f.queued = false;
        }
        let mut more = true;
        for _ in 0..BURST {
            more = self.udp_read(slot, &mut buf);
            if !more {
                break;
            }
        }
        self.udp.buf = buf;
        if more {
            self.udp.wake(slot);
        }
        true
    }

    fn udp_read(&mut self, slot: usize, buf: &mut [u8]) -> bool {
        let now = self.now;
        let Some(Some(f)) = self.udp.flows.get_mut(slot) else { return false };
        match f.sock.recv_from(buf) {
            Ok((n, from)) => {
                f.used = now;
                let guest = f.guest;
                let seen = match f.aliases.iter().find(|a| a.0 == from) {
                    Some((_, seen)) => *seen,
                    None => self.seen_as(from),
                };
                // An answer in another protocol than the guest's has no way to it.
                if seen.is_ipv4() == guest.is_ipv4() {
                    self.link.send_udp(seen, guest, 0, buf.get(..n).unwrap_or_default());
                }
                true
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => false,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => true,
            Err(_) => self.udp_error(slot, buf),
        }
    }

    /// The network reported an error: the guest hears of it.
    fn udp_error(&mut self, slot: usize, buf: &mut [u8]) -> bool {
        let Some(Some(f)) = self.udp.flows.get(slot) else { return false };
        let Some(e) = sock::take_error(&f.sock, buf) else { return true };
        let guest = f.guest;
        let (Some(icmp), Some(real)) = (e.icmp, e.to) else { return true };
        let seen = f.aliases.iter().find(|a| a.0 == real).map_or(real, |a| a.1);
        if seen.is_ipv4() != guest.is_ipv4() {
            return true;
        }
        // The datagram as the guest sent it.
        let data = buf.get(..e.len.min(512)).unwrap_or_default();
        let udp = super::packet::udp(guest, seen, data);
        let head =
            Head { src: guest.ip(), dst: seen.ip(), protocol: UDP, tos: 0, ttl: 64, id: 0, fragment: 0 };
        let mut packet = vec![0; if seen.is_ipv4() { IP4 } else { IP6 }];
        put_ip(&mut packet, &head, udp.len());
        packet.extend(udp);
        match seen.ip() {
            IpAddr::V4(_) => self.icmp_quote(seen.ip(), guest.ip(), icmp, &packet),
            IpAddr::V6(_) => {
                let icmp = if real.is_ipv4() { icmp::translate(icmp) } else { icmp };
                self.icmp6_quote(seen.ip(), guest.ip(), icmp, &packet);
            }
        }
        true
    }

    /// Closes sockets that were quiet; when the next one may be.
    pub(super) fn udp_tick(&mut self) -> Option<u64> {
        let now = self.now;
        for slot in 0..self.udp.flows.len() {
            if let Some(Some(f)) = self.udp.flows.get(slot) {
                if f.forward.is_none() && f.left(now) == 0 {
                    self.udp.remove(slot);
                }
            }
        }
        let flows = self.udp.flows.iter().flatten().filter(|f| f.forward.is_none());
        flows.map(|f| f.used + f.idle).min()
    }
}
