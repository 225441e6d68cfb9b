//! User-mode network: the guest is on a small virtual network whose gateway is this program, which does with ordinary
//! sockets what the guest asks for. No privileges, no threads.
//!
//! Connections of the guest end here: [`tcp`] speaks TCP with the guest and copies to and from a host socket, whose
//! kernel does the work of congestion control, buffering and pacing. Data for the guest stays in the host socket until
//! the guest acknowledged it, so a connection needs no buffer here. Everything that waits is on one `epoll` descriptor,
//! which the main loop watches ([`NetBackend::fd`]); frames for the guest are made when the main loop asks for them.
//!
//! Addresses (changed by options): 10.0.2.2 is the gateway and the host's loopback interface, 10.0.2.3 a name server that
//! passes on to the host's, 10.0.2.15 the first address for the guest; fec0::2 and fec0::3 in IPv6.
//!
//! Bounds: connections, datagram flows, fragments, waiting frames, and bytes that wait for host sockets all have upper
//! limits, see the constants beside each table.

mod arp;
mod config;
mod dhcp;
mod dhcpv6;
mod dns;
mod guestfwd;
mod hostfwd;
mod icmp;
mod info;
mod ipv4;
mod ipv6;
mod link;
mod packet;
mod sock;
mod tcp;
#[cfg(test)]
mod tests;
mod tftp;
mod timer;
mod udp;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};
use std::time::Instant;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use super::{NetBackend, Offloads, Received};
use crate::error::strerror;
use crate::spec::Dict;
use crate::{qerr, QResult};
use config::Config;
use link::Link;
use packet::{be16, ETH, ETHERTYPE_ARP, ETHERTYPE_IP4, ETHERTYPE_IP6};

/// Events taken from the kernel at a time.
const EVENTS: usize = 128;

/// Kinds of descriptors, in the low bits of a token.
#[derive(Clone, Copy)]
enum Source {
    Timer,
    Tcp,
    Udp,
    Ping,
    Forward,
}

const SOURCE_BITS: usize = 3;

/// What the descriptors of this network hang on.
struct Watch {
    poll: Poll,
}

impl Watch {
    fn add(&self, fd: RawFd, source: Source, index: usize) -> io::Result<()> {
        let interest = match source {
            Source::Tcp => Interest::READABLE | Interest::WRITABLE,
            _ => Interest::READABLE,
        };
        self.poll.registry().register(
            &mut SourceFd(&fd),
            Token(index << SOURCE_BITS | source as usize),
            interest,
        )
    }

    /// Stops watching a descriptor that stays open elsewhere.
    fn remove(&self, fd: RawFd) {
        // One that was never added needs no removal.
        let _ = self.poll.registry().deregister(&mut SourceFd(&fd));
    }
}

/// A user-mode network.
pub(crate) struct User {
    id: String,
    cfg: Config,
    link: Link,
    watch: Watch,
    events: Events,
    /// Nothing more is ready.
    drained: bool,
    tcp: tcp::Tcp,
    udp: udp::Udp,
    ping: icmp::Pings,
    fragments: ipv4::Fragments,
    leases: dhcp::Leases,
    tftp: tftp::Tftp,
    dns: dns::Dns,
    /// What was odd about the options.
    pub warnings: Vec<String>,
    host_forwards: Vec<Option<hostfwd::HostForward>>,
    guest_forwards: Vec<guestfwd::GuestForward>,
    /// When the IPv6 router announces itself again.
    announce_at: Option<u64>,
    timer: timer::Timer,
    start: Instant,
    /// Milliseconds since `start`, as of the last call.
    now: u64,
}

/// Where a packet of the guest really goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    /// To this host address.
    Host(SocketAddr),
    /// Nowhere: an address of the virtual network that nobody has.
    Nobody,
    /// Nowhere: there is no name server.
    NoNameServer,
}

impl User {
    /// Makes the network from checked options.
    ///
    /// # Errors
    /// Options that contradict each other, ports that cannot be bound.
    pub fn new(id: &str, p: &Dict) -> QResult<Self> {
        let mut warnings = Vec::new();
        let cfg = Config::new(p, &mut warnings)?;
        guestfwd::check_smb(p)?;
        let poll = Poll::new().map_err(|e| qerr!("user network: {}", strerror(&e)))?;
        let mut user = Self {
            id: id.to_string(),
            link: Link::new(&cfg),
            cfg,
            watch: Watch { poll },
            events: Events::with_capacity(EVENTS),
            drained: false,
            tcp: tcp::Tcp::default(),
            udp: udp::Udp::default(),
            ping: icmp::Pings::default(),
            fragments: ipv4::Fragments::default(),
            leases: dhcp::Leases::default(),
            tftp: tftp::Tftp::default(),
            dns: dns::Dns::default(),
            warnings,
            host_forwards: Vec::new(),
            guest_forwards: Vec::new(),
            announce_at: None,
            timer: timer::Timer::default(),
            start: Instant::now(),
            now: 0,
        };
        // The last rule of a list comes first, as in QEMU; it decides which of two conflicting ones is at fault.
        for rule in config::strings(p, "hostfwd").iter().rev() {
            user.add_host_forward(rule)?;
        }
        for rule in config::strings(p, "guestfwd").iter().rev() {
            user.add_guest_forward(rule)?;
        }
        Ok(user)
    }

    /// Id of the back end.
    pub fn id(&self) -> &str {
        &self.id
    }

    fn touch(&mut self) {
        self.now = self.start.elapsed().as_millis() as u64;
    }

    /// The host address behind an address that the guest sees.
    fn target(&mut self, to: SocketAddr) -> Target {
        match to.ip() {
            IpAddr::V4(ip) => self.target4(ip, to.port()),
            IpAddr::V6(ip) => self.target6(ip, to.port()),
        }
    }

    fn target4(&mut self, ip: Ipv4Addr, port: u16) -> Target {
        let Some(net) = &self.cfg.v4 else { return Target::Nobody };
        if ip == net.dns {
            return match self.dns.server(self.now, false) {
                Some(s) => Target::Host(SocketAddr::new(s, port)),
                None => Target::NoNameServer,
            };
        }
        if ip == net.host || ip == Ipv4Addr::BROADCAST {
            return Target::Host(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port));
        }
        if net.contains(ip) || ip.is_multicast() || ip.is_unspecified() {
            return Target::Nobody;
        }
        Target::Host(SocketAddr::new(ip.into(), port))
    }

    fn target6(&mut self, ip: Ipv6Addr, port: u16) -> Target {
        let Some(net) = &self.cfg.v6 else { return Target::Nobody };
        if ip == net.dns {
            return match self.dns.server(self.now, true) {
                Some(s) => Target::Host(SocketAddr::new(s, port)),
                None => Target::NoNameServer,
            };
        }
        if net.contains(ip) {
            return Target::Host(SocketAddr::new(Ipv6Addr::LOCALHOST.into(), port));
        }
        if ip.is_multicast() || ip.is_unspecified() || ip.is_unicast_link_local() {
            return Target::Nobody;
        }
        Target::Host(SocketAddr::new(ip.into(), port))
    }

    /// How the guest sees a host address from which something comes unasked.
    fn seen_as(&self, from: SocketAddr) -> SocketAddr {
        let ip = match from.ip() {
            IpAddr::V4(ip) if ip.is_loopback() => self.cfg.v4.as_ref().map(|n| n.host.into()),
            IpAddr::V6(ip) if ip.is_loopback() => self.cfg.v6.as_ref().map(|n| n.host.into()),
            _ => None,
        };
        SocketAddr::new(ip.unwrap_or(from.ip()), from.port())
    }

    /// A frame of the guest, with the virtio-net header that was agreed on in front.
    fn input(&mut self, frame: &[u8]) {
        let vh = self.link.header;
        // The driver left a checksum to us: memory does not garble packets, so there is nothing to check.
        let trusted = vh > 0 && frame.first().is_some_and(|f| f & 1 != 0);
        let Some(frame) = frame.get(vh..) else { return };
        let (Some(head), Some(kind), Some(body)) = (frame.get(..12), be16(frame, 12), frame.get(ETH..))
        else {
            return;
        };
        let (Ok(dst), Ok(src)) = (head[..6].try_into(), head[6..].try_into()) else { return };
        if !link::is_for_us(dst) {
            return;
        }
        match kind {
            ETHERTYPE_ARP => self.arp_input(body),
            ETHERTYPE_IP4 if self.cfg.v4.is_some() => self.ip4_input(src, body, trusted),
            ETHERTYPE_IP6 if self.cfg.v6.is_some() => self.ip6_input(src, body, trusted),
            _ => {}
        }
    }

    /// Takes what is ready from the kernel.
    fn poll_events(&mut self) {
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        let polled = self.watch.poll.poll(&mut events, Some(std::time::Duration::ZERO));
        let mut n = 0;
        if polled.is_ok() {
            for ev in &events {
                n += 1;
                let Token(t) = ev.token();
                let index = t >> SOURCE_BITS;
                match t & ((1 << SOURCE_BITS) - 1) {
                    k if k == Source::Timer as usize => self.tick(),
                    k if k == Source::Tcp as usize => {
                        let closed = ev.is_read_closed() || ev.is_error();
                        self.tcp_event(index, ev.is_readable() || closed, closed, ev.is_writable());
                    }
                    k if k == Source::Udp as usize => self.udp.wake(index),
                    k if k == Source::Ping as usize => self.ping_event(index),
                    k if k == Source::Forward as usize => self.accept_forward(index),
                    _ => {}
                }
            }
        }
        self.drained = n < EVENTS;
        self.events = events;
    }

    /// Something was due.
    fn tick(&mut self) {
        self.timer.drain();
        let mut next: Option<u64> = None;
        let ticks =
            [self.tcp_tick(), self.udp_tick(), self.ping_tick(), self.tftp_tick(), self.router_tick()];
        for at in ticks.into_iter().flatten() {
            next = Some(next.map_or(at, |n| n.min(at)));
        }
        if let Some(at) = next {
            self.due(at);
        }
        self.reap_children();
    }

    /// Asks for a [`Self::tick`] at a time.
    fn due(&mut self, at: u64) {
        self.timer.at_most(at);
    }
}

impl NetBackend for User {
    fn kind(&self) -> &'static str {
        "user"
    }
    fn info(&self) -> String {
        self.cfg.describe()
    }
    fn fd(&self) -> Option<RawFd> {
        Some(self.watch.poll.as_raw_fd())
    }
    fn read(&mut self, buf: &mut [u8]) -> Received {
        self.touch();
        loop {
            if let Some(n) = self.link.take(buf) {
                return Received::Frame(n);
            }
            if let Some(n) = self.tcp_output(buf) {
                return Received::Frame(n);
            }
            if self.link.has_frames() || self.udp_output() {
                continue;
            }
            if std::mem::take(&mut self.drained) {
                self.timer.arm(self.now, &self.watch);
                return Received::Nothing;
            }
            self.poll_events();
        }
    }
    fn write(&mut self, frame: &[u8]) -> bool {
        self.touch();
        self.input(frame);
        true
    }
    fn pending(&self) -> bool {
        self.link.has_frames() || self.tcp.has_work() || self.timer.must_arm()
    }
    fn header(&self) -> usize {
        self.link.header
    }
    fn offloads(&mut self) -> Option<Offloads> {
        Some(Offloads { csum: true, tso4: true, tso6: true, ecn: true, ufo: false })
    }
    fn set_header(&mut self, len: Option<usize>, guest: Offloads) {
        self.link.set_header(len, guest);
    }
    fn user(&mut self) -> Option<&mut User> {
        Some(self)
    }
}
