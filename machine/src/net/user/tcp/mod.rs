//! TCP connections of the guest, each spliced to a host socket.
//!
//! To the guest: data is read from the host socket with `MSG_PEEK` straight into the frame, and taken out of the socket when
//! the guest acknowledged it. The socket's buffer is thus the retransmission buffer, and its window is closed to the far
//! end when the guest does not read. The wire to the guest loses nothing but in accidents: after a
//! loss everything not acknowledged is sent again, and less is under way for a while.
//!
//! From the guest: data goes to the host socket at once. What the socket does not take waits in a buffer as large as the
//! window that was offered. Segments out of order are dropped (the guest sends them again).
//!
//! Options: largest segment and window shift; no SACK or timestamps.

mod input;
mod output;
mod segment;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use super::packet::{self, head_len, Head, Packet, MTU, TCP};
use super::{icmp, sock, Source, Target, User};
use crate::net::checksum;
use segment::{Fields, Segment, ACK, HEADER, RST, SYN};

/// Most connections.
const MAX_CONNS: usize = 8192;
/// Room for data that the host socket does not take, which is also the largest window offered.
const BUFFER: u32 = 256 * 1024;
/// The same for all connections together.
const MAX_BACKLOG: usize = 64 << 20;
/// Most bytes on their way to the guest.
const MAX_FLIGHT: u32 = 512 * 1024;
/// The same after losses, at the least.
const MIN_FLIGHT: u32 = 32 * 1024;
/// Shift of windows offered.
const SHIFT: u8 = 7;
/// First wait before something is sent again, in milliseconds; doubles each time.
const RTO: u64 = 250;
/// The same for a connection that the guest has not answered yet.
const SYN_RTO: u64 = 1000;
/// The longest.
const MAX_RTO: u64 = 60_000;
/// Times that data is sent again before the guest is given up.
const MAX_RETRIES: u32 = 20;
/// Times that a connection from outside is offered to the guest (75 seconds in all).
const MAX_SYN_RETRIES: u32 = 5;
/// Largest segment with offload, below what an IP packet can carry.
const MAX_OFFLOAD: usize = 65535 - 60 - 60;

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The host socket is not connected yet; the guest waits for an answer to its SYN.
    Connecting,
    /// Our answer to the guest's SYN is under way.
    SynReceived,
    /// Our SYN to the guest is under way.
    SynSent,
    /// Both know.
    Open,
}

/// The host's end.
pub(super) struct HostEnd {
    pub fd: OwnedFd,
    /// A TCP socket (else a stream socket of another kind).
    pub tcp: bool,
    /// Others use it too: closing the connection leaves it open.
    pub shared: bool,
}

/// One connection.
pub(super) struct Conn {
    pub guest: SocketAddr,
    /// The far end as the guest sees it.
    pub remote: SocketAddr,
    /// Host port that is forwarded, for connections from outside.
    pub forwarded: bool,
    pub host: HostEnd,
    pub state: State,

    // To the guest. Numbers of bytes from `iss` on: una <= nxt <= max.
    iss: u32,
    una: u32,
    nxt: u32,
    /// The highest number sent so far.
    max: u32,
    window: u32,
    shift: u8,
    mss: u16,
    /// Most bytes on their way now: fewer after a loss, growing with each acknowledgement.
    flight: u32,
    /// Acknowledged bytes that are still in the host socket.
    taken: u32,
    /// Number that the next peek reads, if the kernel keeps it.
    peek_at: Option<u32>,
    /// The host socket may have data.
    readable: bool,
    /// The far end closed its side.
    hangup: bool,
    /// No more data comes from the host.
    eof: bool,
    /// Number of our FIN, once sent.
    fin: Option<u32>,
    fin_acked: bool,
    duplicates: u8,
    retries: u32,
    /// When to send again.
    deadline: Option<u64>,
    /// A SYN or an answer to one is to be sent.
    send_syn: bool,

    // From the guest.
    irs: u32,
    rcv: u32,
    /// End of the window that was offered.
    edge: u32,
    scaled: bool,
    backlog: Vec<u8>,
    guest_fin: bool,
    /// The host was told that no more comes.
    ended: bool,
    ack_due: bool,

    /// It is in the list of those with something to do.
    queued: bool,
    /// Tells connections in the same slot apart.
    serial: u64,
}

/// Data that was read ahead for a guest that takes no large segments.
#[derive(Default)]
struct Chunk {
    slot: usize,
    serial: u64,
    seq: u32,
    buf: Vec<u8>,
    start: usize,
    end: usize,
}

/// All connections.
#[derive(Default)]
pub(super) struct Tcp {
    pub conns: Vec<Option<Conn>>,
    free: Vec<usize>,
    index: HashMap<(SocketAddr, SocketAddr), usize>,
    /// Connections with something to do.
    ready: VecDeque<usize>,
    chunk: Chunk,
    /// For kernels without peek offsets.
    waste: Vec<u8>,
    no_peek_offset: bool,
    /// Bytes in all backlogs.
    backlog: usize,
    serial: u64,
}

impl Conn {
    fn key(&self) -> (SocketAddr, SocketAddr) {
        (self.guest, self.remote)
    }

    /// Bytes waiting for the host socket, and for the guest as far as known (for `info usernet`).
    pub fn queues(&self) -> (usize, usize) {
        (self.max.wrapping_sub(self.una) as usize, self.backlog.len())
    }

    /// Order of creation.
    pub fn serial(&self) -> u64 {
        self.serial
    }

    /// Name of the state (for `info usernet`).
    pub fn state_name(&self) -> &'static str {
        match self.state {
            State::Connecting | State::SynReceived => "SYN_RCVD",
            State::SynSent => "SYN_SENT",
            State::Open => match (self.fin, self.fin_acked, self.guest_fin) {
                (None, _, false) => "ESTABLISHED",
                (None, _, true) => "CLOSE_WAIT",
                (Some(_), true, false) => "FIN_WAIT_2",
                (Some(_), false, false) => "FIN_WAIT_1",
                (Some(_), true, true) => "TIME_WAIT",
                (Some(_), false, true) => "LAST_ACK",
            },
        }
    }

    /// The window to offer now; moves the edge.
    fn offer(&mut self, allowed: u32) -> u16 {
        let room = BUFFER.min(allowed).saturating_sub(self.backlog.len() as u32);
        let room = if self.scaled { room } else { room.min(0xffff) };
        let edge = self.rcv.wrapping_add(room);
        if segment::before(self.edge, edge) {
            self.edge = edge;
        }
        let open = self.edge.wrapping_sub(self.rcv);
        let open = if self.scaled { open >> SHIFT } else { open };
        open.min(0xffff) as u16
    }

    fn shift_offered(&self) -> Option<u8> {
        self.scaled.then_some(SHIFT)
    }

    /// Everything is said on both sides.
    fn finished(&self) -> bool {
        self.guest_fin && self.backlog.is_empty() && self.fin_acked
    }
}

impl Tcp {
    /// A connection has something to do.
    fn wake(&mut self, slot: usize) {
        if let Some(Some(c)) = self.conns.get_mut(slot) {
            if !c.queued {
                c.queued = true;
                self.ready.push_back(slot);
            }
        }
    }

    /// A number for something new (later ones are larger).
    pub fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    /// Frames may be made.
    pub fn has_work(&self) -> bool {
        !self.ready.is_empty() || self.chunk.start < self.chunk.end
    }

    fn remove(&mut self, slot: usize, reset_host: bool) {
        let Some(c) = self.conns.get_mut(slot).and_then(Option::take) else { return };
        self.index.remove(&c.key());
        self.backlog -= c.backlog.len().min(self.backlog);
        self.free.push(slot);
        if reset_host && !c.host.shared {
            sock::reset_on_close(&c.host.fd);
        }
    }

    /// Bytes that may wait for host sockets, still.
    fn allowance(&self) -> u32 {
        if self.backlog < MAX_BACKLOG {
            BUFFER
        } else {
            0
        }
    }
}

/// A first number that others cannot guess.
fn first_number() -> u32 {
    let mut b = [0; 4];
    // SAFETY: writes at most four bytes into `b`.
    unsafe { libc::getrandom(b.as_mut_ptr().cast(), 4, libc::GRND_NONBLOCK) };
    u32::from_ne_bytes(b)
}

/// Largest segment on the virtual wire.
fn own_mss(ip: IpAddr) -> u16 {
    (MTU + packet::ETH - head_len(ip) - HEADER) as u16
}

impl User {
    /// Adds a connection; `None`: there are too many.
    fn tcp_add(
        &mut self,
        guest: SocketAddr,
        remote: SocketAddr,
        host: HostEnd,
        state: State,
    ) -> Option<usize> {
        let slot = match self.tcp.free.pop() {
            Some(slot) => slot,
            None if self.tcp.conns.len() < MAX_CONNS => {
                self.tcp.conns.push(None);
                self.tcp.conns.len() - 1
            }
            None => return None,
        };
        if self.watch.add(host.fd.as_raw_fd(), Source::Tcp, slot).is_err() {
            self.tcp.free.push(slot);
            return None;
        }
        if !self.tcp.no_peek_offset && !sock::set_peek_offset(&host.fd, 0) {
            self.tcp.no_peek_offset = true;
        }
        let iss = first_number();
        let serial = self.tcp.next_serial();
        let conn = Conn {
            guest,
            remote,
            forwarded: state == State::SynSent,
            host,
            state,
            iss,
            una: iss,
            nxt: iss,
            max: iss,
            window: 0,
            shift: 0,
            mss: 536,
            flight: MAX_FLIGHT,
            taken: 0,
            peek_at: Some(iss.wrapping_add(1)),
            readable: false,
            hangup: false,
            eof: false,
            fin: None,
            fin_acked: false,
            duplicates: 0,
            retries: 0,
            deadline: None,
            send_syn: state == State::SynSent,
            irs: 0,
            rcv: 0,
            edge: 0,
            scaled: true,
            backlog: Vec::new(),
            guest_fin: false,
            ended: false,
            ack_due: false,
            queued: false,
            serial,
        };
        self.tcp.index.insert(conn.key(), slot);
        if let Some(s) = self.tcp.conns.get_mut(slot) {
            *s = Some(conn);
        }
        if state == State::SynSent {
            self.tcp.wake(slot);
        }
        Some(slot)
    }

    /// A segment of the guest.
    pub(super) fn tcp_input(&mut self, p: &Packet<'_>) {
        let Some(s) = Segment::parse(p) else { return };
        match self.tcp.index.get(&(p.from(s.from), p.to(s.to))).copied() {
            Some(slot) => self.tcp_segment(slot, p, &s),
            None if s.has(RST) => {}
            None if s.flags & (SYN | ACK) == SYN => self.tcp_open(p, &s),
            None => self.tcp_refuse(p, &s),
        }
    }

    /// The guest wants a connection.
    fn tcp_open(&mut self, p: &Packet<'_>, s: &Segment<'_>) {
        let seen = p.to(s.to);
        if let Some(host) = self.guest_forward(seen) {
            return match host {
                Some(host) => self.tcp_begin(p, s, host, true),
                None => self.tcp_refuse(p, s),
            };
        }
        if self.cfg.restrict {
            return self.tcp_reset(p, s, 0);
        }
        if p.ttl <= 1 {
            return self.icmp_error(p, icmp::TIME_EXCEEDED, 0);
        }
        let real = match self.target(seen) {
            Target::Host(real) => real,
            Target::Nobody if p.dst.is_multicast() => return,
            Target::Nobody if p.dst.is_ipv4() => return self.tcp_refuse(p, s),
            _ => return self.unreachable(p, icmp::NET),
        };
        match connect(real) {
            Ok((fd, connected)) => {
                let host = HostEnd { fd, tcp: true, shared: false };
                self.tcp_begin(p, s, host, connected);
            }
            Err(e) if e.raw_os_error() == Some(libc::ECONNREFUSED) => self.tcp_refuse(p, s),
            Err(e) => self.unreachable(p, icmp::unreachable_code(&e)),
        }
    }

    fn tcp_begin(&mut self, p: &Packet<'_>, s: &Segment<'_>, host: HostEnd, connected: bool) {
        let Some(slot) = self.tcp_add(p.from(s.from), p.to(s.to), host, State::Connecting) else {
            return self.tcp_refuse(p, s);
        };
        if let Some(Some(c)) = self.tcp.conns.get_mut(slot) {
            c.irs = s.seq;
            c.rcv = s.seq.wrapping_add(1);
            c.edge = c.rcv;
            c.guest_says(s);
        }
        if connected {
            self.tcp_connected(slot);
        }
    }

    /// The host socket is connected.
    fn tcp_connected(&mut self, slot: usize) {
        if let Some(Some(c)) = self.tcp.conns.get_mut(slot) {
            c.state = State::SynReceived;
            c.send_syn = true;
        }
        self.tcp.wake(slot);
    }

    /// A connection from outside to a forwarded port.
    pub(super) fn tcp_forward(&mut self, fd: OwnedFd, guest: SocketAddr, from: SocketAddr) {
        let remote = self.seen_as(from);
        // An old connection of the same name is over: its port was given to a new one.
        if let Some(old) = self.tcp.index.get(&(guest, remote)).copied() {
            self.tcp_abort(old);
        }
        // Dropping the socket closes it.
        self.tcp_add(guest, remote, HostEnd { fd, tcp: true, shared: false }, State::SynSent);
    }

    /// Answers a segment that belongs to no connection.
    fn tcp_refuse(&mut self, p: &Packet<'_>, s: &Segment<'_>) {
        self.tcp_reset(p, s, if s.has(ACK) { 0 } else { 0xffff });
    }

    fn tcp_reset(&mut self, p: &Packet<'_>, s: &Segment<'_>, window: u16) {
        let (seq, ack, flags) = match s.has(ACK) {
            true => (s.ack, 0, RST),
            false => (0, s.seq.wrapping_add(s.len()), RST | ACK),
        };
        let f = Fields { from: s.to, to: s.from, seq, ack, flags, window };
        self.tcp_bare(p.dst, p.src, &f);
    }

    /// Sends a segment without data or options.
    fn tcp_bare(&mut self, src: IpAddr, dst: IpAddr, f: &Fields) {
        let mut b = [0; HEADER];
        segment::put(&mut b, f, HEADER);
        let sum = checksum::finish(checksum::add(packet::pseudo(src, dst, TCP, HEADER), &b));
        b[16..18].copy_from_slice(&sum.to_be_bytes());
        // As QEMU: what belongs to no connection travels as far as it can.
        let ttl = if dst.is_ipv4() && f.window != 0 { 64 } else { 255 };
        self.link.send_ip(src, dst, TCP, 0, ttl, &b);
    }

    /// Ends a connection on both sides.
    fn tcp_abort(&mut self, slot: usize) {
        let Some(Some(c)) = self.tcp.conns.get(slot) else { return };
        let (src, dst) = (c.remote, c.guest);
        let (flags, ack) = if c.state == State::SynSent { (RST, 0) } else { (RST | ACK, c.rcv) };
        let seq = if c.state == State::Connecting { 0 } else { c.nxt };
        let f = Fields { from: src.port(), to: dst.port(), seq, ack, flags, window: 0xffff };
        self.tcp.remove(slot, true);
        self.tcp_bare(src.ip(), dst.ip(), &f);
    }

    /// Something happened on a host socket.
    pub(super) fn tcp_event(&mut self, slot: usize, readable: bool, closed: bool, writable: bool) {
        let Some(Some(c)) = self.tcp.conns.get_mut(slot) else { return };
        c.readable |= readable;
        c.hangup |= closed;
        if c.state == State::Connecting {
            match sock::failed(&c.host.fd) {
                true => self.tcp_abort(slot),
                false if writable => self.tcp_connected(slot),
                false => {}
            }
            return;
        }
        if writable && !c.backlog.is_empty() && !self.tcp_drain(slot) {
            return self.tcp_abort(slot);
        }
        self.tcp.wake(slot);
    }

    /// It is known now where a guest is: what waits for it goes out at once.
    pub(super) fn tcp_found(&mut self, ip: IpAddr) {
        for slot in 0..self.tcp.conns.len() {
            match self.tcp.conns.get_mut(slot) {
                Some(Some(c)) if c.guest.ip() == ip && c.state == State::SynSent => c.send_syn = true,
                _ => continue,
            }
            self.tcp.wake(slot);
        }
    }

    /// Sends again what was not acknowledged in time; when the next one is due.
    pub(super) fn tcp_tick(&mut self) -> Option<u64> {
        let now = self.now;
        let mut next: Option<u64> = None;
        for slot in 0..self.tcp.conns.len() {
            let Some(Some(c)) = self.tcp.conns.get_mut(slot) else { continue };
            let Some(at) = c.deadline else { continue };
            if at <= now {
                c.retries += 1;
                let most = if c.state == State::SynSent { MAX_SYN_RETRIES } else { MAX_RETRIES };
                if c.retries > most {
                    self.tcp_abort(slot);
                    continue;
                }
                let first = if c.state == State::Open { RTO } else { SYN_RTO };
                c.deadline = Some(now + (first << c.retries.min(8)).min(MAX_RTO));
                c.send_again();
                self.tcp.wake(slot);
            }
            let at = self.tcp.conns.get(slot).and_then(|c| c.as_ref()?.deadline);
            next = [next, at].into_iter().flatten().min();
        }
        next
    }
}

/// Starts a connection to a host address.
fn connect(to: SocketAddr) -> io::Result<(OwnedFd, bool)> {
    let fd = sock::new(to.is_ipv6(), libc::SOCK_STREAM, 0)?;
    let connected = sock::connect(&fd, to)?;
    Ok((no_delay(fd), connected))
}

/// Small segments go out at once: the guest has decided already what to send together.
pub(super) fn no_delay(fd: OwnedFd) -> OwnedFd {
    let s = std::net::TcpStream::from(fd);
    let _ = s.set_nodelay(true);
    s.into()
}

/// A header for a segment of a connection.
fn ip_head(c: &Conn, id: u16) -> Head {
    let (src, dst) = (c.remote.ip(), c.guest.ip());
    Head { src, dst, protocol: TCP, tos: 0, ttl: if dst.is_ipv4() { 64 } else { 255 }, id, fragment: 0 }
}
