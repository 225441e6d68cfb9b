//! Segments of the guest on a connection.

use std::io;

use super::segment::{before, Segment, ACK, FIN, RST, SYN};
use super::{own_mss, Conn, State, BUFFER, MAX_BACKLOG, MAX_FLIGHT, MIN_FLIGHT, RTO};
use crate::net::user::packet::Packet;
use crate::net::user::{sock, User};

/// Acknowledgements of the same number after which data counts as lost.
const DUPLICATES: u8 = 3;
/// Acknowledged bytes are taken out of the host socket when so many came together.
const TAKE: u32 = 128 * 1024;
/// Smallest segment that a guest may ask for.
const MIN_MSS: u16 = 64;

impl Conn {
    /// What the guest's SYN says.
    pub(super) fn guest_says(&mut self, s: &Segment<'_>) {
        self.mss = s.mss.unwrap_or(536).clamp(MIN_MSS, own_mss(self.guest.ip()));
        self.scaled = s.shift.is_some();
        self.shift = s.shift.unwrap_or(0);
        // The window of a SYN is never shifted.
        self.window = u32::from(s.window);
    }

    /// Sends everything again that was not acknowledged.
    pub(super) fn send_again(&mut self) {
        match self.state {
            State::Connecting => {}
            State::SynReceived | State::SynSent => self.send_syn = true,
            State::Open => {
                if self.una == self.max {
                    // A closed window: something that the guest must answer.
                    self.ack_due = true;
                } else {
                    self.flight = (self.flight / 2).max(MIN_FLIGHT);
                }
                self.nxt = self.una;
                if self.fin.is_some_and(|f| !before(f, self.nxt)) {
                    self.fin = None;
                }
                self.eof = false;
                self.readable = true;
            }
        }
    }

    /// An acknowledgement; `false`: it acknowledges what was never sent.
    fn acknowledged(&mut self, s: &Segment<'_>, now: u64) -> bool {
        if before(self.max, s.ack) {
            return false;
        }
        let window = u32::from(s.window) << self.shift;
        if !before(self.una, s.ack) {
            let repeated = s.ack == self.una && self.max != self.una && s.len() == 0 && window == self.window;
            self.duplicates = if repeated { self.duplicates.saturating_add(1) } else { 0 };
            if self.duplicates == DUPLICATES {
                self.send_again();
            }
            if s.ack == self.una {
                self.window = window;
                if self.una == self.max {
                    // It answers: a closed window is no reason to give up.
                    self.retries = 0;
                    self.deadline = self.deadline.filter(|_| window == 0);
                }
            }
            return true;
        }
        let mut bytes = s.ack.wrapping_sub(self.una);
        if self.fin.is_some_and(|f| s.ack == f.wrapping_add(1)) {
            bytes -= 1;
            self.fin_acked = true;
        }
        // One segment more for each flight that arrived (RFC 5681).
        let more =
            u64::from(self.mss) * u64::from(s.ack.wrapping_sub(self.una)) / u64::from(self.flight.max(1));
        self.flight = (self.flight + (more as u32).max(1)).min(MAX_FLIGHT);
        self.una = s.ack;
        if before(self.nxt, self.una) {
            self.nxt = self.una;
        }
        self.window = window;
        self.duplicates = 0;
        self.retries = 0;
        self.deadline = (self.una != self.max).then_some(now + RTO);
        self.taken += bytes;
        if self.taken >= TAKE || self.una == self.max {
            self.take();
        }
        true
    }

    /// Takes acknowledged bytes out of the host socket.
    fn take(&mut self) {
        if self.taken > 0 {
            sock::discard(&self.host.fd, self.taken as usize, self.host.tcp);
            self.taken = 0;
        }
    }
}

impl User {
    /// A segment on a connection.
    pub(super) fn tcp_segment(&mut self, slot: usize, p: &Packet<'_>, s: &Segment<'_>) {
        let now = self.now;
        let Some(Some(c)) = self.tcp.conns.get_mut(slot) else { return };
        if c.state == State::SynSent {
            return self.tcp_answer(slot, p, s);
        }
        if s.has(SYN) {
            if s.seq == c.irs {
                // The same SYN again: our answer was lost, or is not ready yet.
                c.send_syn = c.state == State::SynReceived;
                return self.tcp.wake(slot);
            }
            if s.has(ACK) {
                return;
            }
            // The guest forgot the connection and starts a new one.
            self.tcp.remove(slot, true);
            return self.tcp_input(p);
        }
        if s.has(RST) {
            // Only one that fits: others are late, or forged.
            let fits = !before(s.seq, c.rcv) && !before(c.edge, s.seq);
            if fits || c.state == State::Connecting {
                self.tcp.remove(slot, true);
            }
            return;
        }
        if !s.has(ACK) || c.state == State::Connecting {
            return;
        }
        if c.state == State::SynReceived {
            if s.ack != c.iss.wrapping_add(1) {
                return self.tcp_refuse(p, s);
            }
            c.open();
            c.readable = true;
        }
        if !c.acknowledged(s, now) {
            c.ack_due = true;
            return self.tcp.wake(slot);
        }
        if (s.len() > 0 || s.seq != c.rcv) && !self.tcp_data(slot, s) {
            return self.tcp_abort(slot);
        }
        self.tcp.wake(slot);
        self.tcp_close_if_done(slot);
    }

    /// The guest answers our SYN.
    fn tcp_answer(&mut self, slot: usize, p: &Packet<'_>, s: &Segment<'_>) {
        let Some(Some(c)) = self.tcp.conns.get_mut(slot) else { return };
        if s.has(ACK) && s.ack != c.iss.wrapping_add(1) {
            if !s.has(RST) {
                self.tcp_refuse(p, s);
            }
            return;
        }
        if s.has(RST) {
            if s.has(ACK) {
                self.tcp.remove(slot, true);
            }
            return;
        }
        if s.flags & (SYN | ACK) != SYN | ACK {
            return;
        }
        c.irs = s.seq;
        c.rcv = s.seq.wrapping_add(1);
        // Our SYN offered this much.
        c.edge = c.rcv.wrapping_add(0xffff);
        c.guest_says(s);
        c.open();
        c.readable = true;
        c.ack_due = true;
        self.tcp.wake(slot);
    }

    /// Data or the end of it; `false`: the host socket is broken.
    fn tcp_data(&mut self, slot: usize, s: &Segment<'_>) -> bool {
        let full = self.tcp.backlog >= MAX_BACKLOG;
        let Some(Some(c)) = self.tcp.conns.get_mut(slot) else { return true };
        c.ack_due = true;
        let skip = c.rcv.wrapping_sub(s.seq);
        // Old data, a gap, or data after the end.
        if skip as i32 > s.len() as i32 || before(c.rcv, s.seq) || c.guest_fin {
            return true;
        }
        let data = s.data.get(skip as usize..).unwrap_or_default();
        let room = c.edge.wrapping_sub(c.rcv) as usize;
        let (data, cut) = match data.get(..room) {
            Some(fits) => (fits, fits.len() < data.len()),
            None => (data, false),
        };
        if !data.is_empty() {
            let sent = match c.backlog.is_empty() && !c.ended {
                true => match sock::send(&c.host.fd, data) {
                    Ok(n) => n,
                    Err(e) if retry(&e) => 0,
                    Err(_) => return false,
                },
                false => 0,
            };
            let rest = data.get(sent..).unwrap_or_default();
            // What there is no room for is as good as lost on the way; the guest sends it again.
            let kept =
                if full { 0 } else { rest.len().min((BUFFER as usize).saturating_sub(c.backlog.len())) };
            c.backlog.extend(rest.get(..kept).unwrap_or_default());
            self.tcp.backlog += kept;
            c.rcv = c.rcv.wrapping_add((sent + kept) as u32);
            if kept < rest.len() {
                return true;
            }
        }
        if s.has(FIN) && !cut {
            c.rcv = c.rcv.wrapping_add(1);
            c.edge = if before(c.edge, c.rcv) { c.rcv } else { c.edge };
            c.guest_fin = true;
            c.end_host();
        }
        true
    }

    /// The host socket takes data again; `false`: it is broken.
    pub(super) fn tcp_drain(&mut self, slot: usize) -> bool {
        let Some(Some(c)) = self.tcp.conns.get_mut(slot) else { return true };
        match sock::send(&c.host.fd, &c.backlog) {
            Ok(n) => {
                self.tcp.backlog -= n.min(self.tcp.backlog);
                c.backlog.drain(..n);
                if c.backlog.is_empty() {
                    c.backlog = Vec::new();
                }
            }
            Err(e) if retry(&e) => {}
            Err(_) => return false,
        }
        c.end_host();
        // The window opened a good bit: the guest is told.
        let open = c.edge.wrapping_sub(c.rcv);
        if BUFFER - c.backlog.len() as u32 >= open + BUFFER / 4 {
            c.ack_due = true;
        }
        self.tcp_close_if_done(slot);
        true
    }

    fn tcp_close_if_done(&mut self, slot: usize) {
        if self.tcp.conns.get(slot).is_some_and(|c| c.as_ref().is_some_and(Conn::finished)) {
            self.tcp_last_ack(slot);
            self.tcp.remove(slot, false);
        }
    }
}

impl Conn {
    /// Both sides agreed.
    fn open(&mut self) {
        self.state = State::Open;
        self.una = self.iss.wrapping_add(1);
        self.nxt = self.una;
        self.max = self.una;
        self.send_syn = false;
        self.retries = 0;
        self.deadline = None;
    }

    /// Tells the host that the guest has ended, when everything before is out.
    fn end_host(&mut self) {
        if self.guest_fin && self.backlog.is_empty() && !self.ended {
            self.ended = true;
            if !self.host.shared {
                sock::end_of_output(&self.host.fd);
            }
        }
    }
}

fn retry(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
