//! ICMP (RFC 792): answers echo requests to the gateway, sends others on by a ping socket of the host, and tells the guest
//! about packets that cannot be delivered.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

use super::packet::{be16, Packet};
use super::{sock, Source, Target, User};

const ECHO_REPLY: u8 = 0;
pub(super) const UNREACHABLE: u8 = 3;
pub(super) const TIME_EXCEEDED: u8 = 11;
const ECHO: u8 = 8;
pub(super) const NET: u8 = 0;
pub(super) const HOST: u8 = 1;
pub(super) const PORT: u8 = 3;
/// Type of service of error messages (internetwork control).
const CONTROL: u8 = 0xc0;
/// Most bytes of the packet in question that an error message quotes.
const QUOTE: usize = 548;

/// Guests' pings under way.
const MAX_PINGS: usize = 64;
/// Milliseconds without a packet after which a ping socket is closed.
const IDLE: u64 = 60_000;

/// One running ping.
struct Ping {
    guest: IpAddr,
    /// As the guest sees it.
    dst: IpAddr,
    id: u16,
    /// Where it really goes.
    real: IpAddr,
    sock: UdpSocket,
    /// The socket is raw: replies come with their IP header, also those to others.
    raw: bool,
    used: u64,
}

/// Pings.
#[derive(Default)]
pub(super) struct Pings {
    list: Vec<Option<Ping>>,
}

impl Pings {
    /// Descriptor, guest, destination and seconds left of each.
    pub fn list(&self, now: u64) -> impl Iterator<Item = (i32, IpAddr, IpAddr, u64)> + '_ {
        let left = move |p: &Ping| (p.used + IDLE).saturating_sub(now) / 1000;
        self.list.iter().flatten().map(move |p| (p.sock.as_raw_fd(), p.guest, p.dst, left(p)))
    }
}

/// What the guest hears of an error of the host.
pub(super) fn unreachable_code(e: &std::io::Error) -> u8 {
    match e.raw_os_error() {
        Some(libc::EHOSTUNREACH) => HOST,
        _ => NET,
    }
}

/// An error of IPv4 in the words of IPv6.
pub(super) fn translate((kind, code): (u8, u8)) -> (u8, u8) {
    match (kind, code) {
        (UNREACHABLE, PORT) => (1, 4),
        (UNREACHABLE, HOST) => (1, 3),
        (TIME_EXCEEDED, _) => (3, 0),
        _ => (1, 0),
    }
}

fn socket() -> std::io::Result<(UdpSocket, bool)> {
    let open = |kind| sock::new(false, kind, libc::IPPROTO_ICMP);
    match open(libc::SOCK_DGRAM) {
        Ok(fd) => Ok((fd.into(), false)),
        Err(e) if matches!(e.raw_os_error(), Some(libc::EACCES | libc::EPERM | libc::EPROTONOSUPPORT)) => {
            let fd = open(libc::SOCK_RAW).map_err(|_| e)?;
            sock::only_echo_replies(&fd);
            Ok((fd.into(), true))
        }
        Err(e) => Err(e),
    }
}

impl User {
    /// An ICMP message of the guest.
    pub(super) fn icmp_input(&mut self, p: &Packet<'_>) {
        let [ECHO, 0, ..] = p.body else { return };
        let whole = Packet { trusted: false, ..*p };
        if p.body.len() < 8 || crate::net::checksum::finish(crate::net::checksum::add(0, whole.body)) != 0 {
            return;
        }
        let local = self.cfg.v4.as_ref().is_some_and(|n| p.dst == n.host || p.dst == n.dns);
        if local {
            let mut reply = p.body.to_vec();
            reply[0] = ECHO_REPLY;
            reply[2..4].fill(0);
            return self.link.send_icmp(p.dst, p.src, 0, reply);
        }
        if self.cfg.restrict {
            return;
        }
        match self.target(p.to(0)) {
            _ if p.ttl <= 1 => self.icmp_error(p, TIME_EXCEEDED, 0),
            Target::Host(to) => {
                if let Err(e) = self.ping(p, to) {
                    self.icmp_refuse(p, UNREACHABLE, unreachable_code(&e), p.dst);
                }
            }
            _ => self.icmp_refuse(p, UNREACHABLE, NET, p.dst),
        }
    }

    fn ping(&mut self, p: &Packet<'_>, to: SocketAddr) -> std::io::Result<()> {
        let id = be16(p.body, 4).unwrap_or(0);
        let same =
            |q: &Option<Ping>| q.as_ref().is_some_and(|q| (q.guest, q.dst, q.id) == (p.src, p.dst, id));
        let slot = match self.ping.list.iter().position(same) {
            Some(i) => i,
            None => self.ping_new(p, id, to.ip())?,
        };
        let now = self.now;
        let Some(Some(q)) = self.ping.list.get_mut(slot) else { return Ok(()) };
        q.used = now;
        q.sock.send_to(p.body, to).map(|_| ())
    }

    fn ping_new(&mut self, p: &Packet<'_>, id: u16, real: IpAddr) -> std::io::Result<usize> {
        let (sock, raw) = socket()?;
        let list = &mut self.ping.list;
        let free = list.iter().position(Option::is_none);
        let slot = match free {
            Some(i) => i,
            None if list.len() < MAX_PINGS => {
                list.push(None);
                list.len() - 1
            }
            None => {
                let used = |i: &usize| list.get(*i).and_then(|q| Some(q.as_ref()?.used));
                (0..list.len()).min_by_key(used).unwrap_or(0)
            }
        };
        self.watch.add(sock.as_raw_fd(), Source::Ping, slot)?;
        if let Some(q) = list.get_mut(slot) {
            *q = Some(Ping { guest: p.src, dst: p.dst, id, real, sock, raw, used: self.now });
        }
        self.due(self.now + IDLE);
        Ok(slot)
    }

    /// A ping socket has something.
    pub(super) fn ping_event(&mut self, slot: usize) {
        let mut buf = vec![0; 65536];
        while let Some(Some(q)) = self.ping.list.get(slot) {
            let Ok((n, from)) = q.sock.recv_from(&mut buf) else { return };
            let at = if q.raw { usize::from(buf[0] & 15) * 4 } else { 0 };
            let Some(b) = buf.get(at..n).filter(|b| b.len() >= 8 && b[0] == ECHO_REPLY) else { continue };
            if q.raw && (be16(b, 4) != Some(q.id) || from.ip() != q.real) {
                continue;
            }
            let mut reply = b.to_vec();
            // A ping socket has a number of its own.
            reply[4..6].copy_from_slice(&q.id.to_be_bytes());
            reply[2..4].fill(0);
            let (from, to) = (q.dst, q.guest);
            self.link.send_icmp(from, to, 0, reply);
        }
    }

    pub(super) fn ping_tick(&mut self) -> Option<u64> {
        let now = self.now;
        for q in &mut self.ping.list {
            if q.as_ref().is_some_and(|q| now >= q.used + IDLE) {
                *q = None;
            }
        }
        self.ping.list.iter().flatten().map(|q| q.used + IDLE).min()
    }

    /// Tells the guest that a packet of its was not delivered.
    pub(super) fn icmp_error(&mut self, p: &Packet<'_>, kind: u8, code: u8) {
        if let Some(host) = self.cfg.v4.as_ref().map(|n| n.host) {
            self.icmp_refuse(p, kind, code, host.into());
        }
    }

    fn icmp_refuse(&mut self, p: &Packet<'_>, kind: u8, code: u8, from: IpAddr) {
        self.icmp_quote(from, p.src, (kind, code), p.whole);
    }

    /// An error message that quotes a packet.
    pub(super) fn icmp_quote(&mut self, from: IpAddr, to: IpAddr, what: (u8, u8), packet: &[u8]) {
        let mut body = vec![what.0, what.1, 0, 0, 0, 0, 0, 0];
        body.extend(packet.get(..packet.len().min(QUOTE)).unwrap_or_default());
        self.link.send_icmp(from, to, CONTROL, body);
    }

    /// "Unreachable" in the words of the packet's protocol: `code` is one of [`NET`], [`HOST`] and [`PORT`].
    pub(super) fn unreachable(&mut self, p: &Packet<'_>, code: u8) {
        match p.src {
            IpAddr::V4(_) => self.icmp_error(p, UNREACHABLE, code),
            IpAddr::V6(_) => self.icmp6_unreachable(p, code),
        }
    }
}
