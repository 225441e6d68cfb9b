//! Segments to the guest.

use std::io;

use super::segment::{self, before, Fields, ACK, FIN, HEADER, PSH, SYN};
use super::{ip_head, own_mss, Conn, State, MAX_OFFLOAD, RTO, SYN_RTO};
use crate::net::checksum;
use crate::net::user::packet::{self, head_len, ETH, ETHERTYPE_IP4, ETHERTYPE_IP6, TCP};
use crate::net::user::{sock, User};

/// Bytes read ahead at a time for a guest without segmentation offload.
const AHEAD: usize = 64 * 1024;
/// Flag in the virtio-net header: the receiver fills in the checksum.
const NEEDS_CSUM: u8 = 1;
/// Kinds of segmentation in the virtio-net header.
const GSO_TCP4: u8 = 1;
const GSO_TCP6: u8 = 4;

/// What to send on a connection.
enum Next {
    Nothing,
    /// A segment without data.
    Bare(u8),
    /// So many bytes of data, which lie in the buffer.
    Data(usize),
    /// The host socket is broken.
    Broken,
}

/// How data reaches the buffer of a frame.
struct Reader<'a> {
    waste: &'a mut Vec<u8>,
    no_offset: bool,
}

impl Reader<'_> {
    /// Reads what comes after the bytes on their way.
    fn peek(&mut self, c: &mut Conn, buf: &mut [u8]) -> io::Result<usize> {
        let ahead = c.taken + c.nxt.wrapping_sub(c.una);
        if self.no_offset {
            if self.waste.len() < ahead as usize {
                self.waste.resize(ahead as usize, 0);
            }
            let skip = self.waste.get_mut(..ahead as usize).unwrap_or_default();
            return match sock::peek_behind(&c.host.fd, skip, buf) {
                // Nothing behind what is there already: the end, or not yet.
                Ok(0) if !c.hangup => Err(io::ErrorKind::WouldBlock.into()),
                r => r,
            };
        }
        if c.peek_at != Some(c.nxt) {
            sock::set_peek_offset(&c.host.fd, ahead);
        }
        let r = sock::peek(&c.host.fd, buf);
        let n = r.as_ref().map_or(0, |n| *n);
        c.peek_at = Some(c.nxt.wrapping_add(n as u32));
        r
    }
}

impl Conn {
    /// Bytes that may be sent now.
    fn room(&self) -> u32 {
        self.window.min(self.flight).saturating_sub(self.nxt.wrapping_sub(self.una))
    }

    /// Whether sending waits for a larger window (small pieces waste frames).
    fn silly(&self) -> bool {
        let room = self.room();
        room == 0 || room < u32::from(self.mss) && self.nxt != self.una
    }

    fn wants_data(&self) -> bool {
        self.state == State::Open && self.fin.is_none() && self.readable && !self.eof
    }

    /// Records that bytes from `nxt` on were sent.
    fn sent(&mut self, len: u32, now: u64) {
        self.nxt = self.nxt.wrapping_add(len);
        if before(self.max, self.nxt) {
            self.max = self.nxt;
        }
        if self.deadline.is_none() {
            self.deadline = Some(now + RTO);
        }
        self.ack_due = false;
    }
}

impl User {
    /// Makes the next frame of any connection in `buf`.
    pub(in crate::net::user) fn tcp_output(&mut self, buf: &mut [u8]) -> Option<usize> {
        if let Some(n) = self.tcp_from_chunk(buf) {
            return Some(n);
        }
        // Frames that were made on the way (questions for an address) come first in the next call.
        while let Some(slot) = self.tcp.ready.pop_front() {
            if let Some(n) = self.tcp_serve(slot, buf) {
                return Some(n);
            }
            if self.link.has_frames() {
                return None;
            }
        }
        None
    }

    /// Makes a frame of one connection.
    fn tcp_serve(&mut self, slot: usize, buf: &mut [u8]) -> Option<usize> {
        let Some(Some(c)) = self.tcp.conns.get_mut(slot) else { return None };
        c.queued = false;
        if self.link.mac(c.guest.ip()).is_none() {
            return self.tcp_unknown_guest(slot);
        }
        if std::mem::take(&mut c.send_syn) {
            return self.tcp_syn(slot, buf);
        }
        let large = match c.guest.is_ipv4() {
            true => self.link.guest.tso4,
            false => self.link.guest.tso6,
        };
        match self.tcp_next(slot, buf, large) {
            Next::Nothing => None,
            Next::Bare(flags) => self.tcp_frame(slot, buf, flags, 0),
            Next::Data(len) => {
                let n = self.tcp_frame(slot, buf, ACK | PSH, len);
                self.tcp.wake(slot);
                n
            }
            Next::Broken => {
                self.tcp_abort(slot);
                None
            }
        }
    }

    /// Finds out what to send; data is read into its place in `buf`, or ahead into the chunk.
    fn tcp_next(&mut self, slot: usize, buf: &mut [u8], large: bool) -> Next {
        let at = self.link.header;
        let Some(Some(c)) = self.tcp.conns.get_mut(slot) else { return Next::Nothing };
        let mut reader = Reader { waste: &mut self.tcp.waste, no_offset: self.tcp.no_peek_offset };
        if c.wants_data() && !c.silly() {
            let head = at + head_len(c.guest.ip()) + HEADER;
            let mut room = c.room() as usize;
            let read = if large {
                // Whole segments but for the last.
                let most = MAX_OFFLOAD / usize::from(c.mss) * usize::from(c.mss);
                room = room.min(most);
                let Some(b) = buf.get_mut(head..head + room) else { return Next::Nothing };
                reader.peek(c, b)
            } else {
                let chunk = &mut self.tcp.chunk;
                room = room.min(AHEAD);
                chunk.buf.resize(AHEAD, 0);
                let Some(b) = chunk.buf.get_mut(..room) else { return Next::Nothing };
                reader.peek(c, b)
            };
            match read {
                Ok(0) => c.eof = true,
                Ok(n) if large => return Next::Data(n),
                Ok(n) => {
                    let chunk = &mut self.tcp.chunk;
                    (chunk.slot, chunk.serial, chunk.seq) = (slot, c.serial, c.nxt);
                    (chunk.start, chunk.end) = (0, n);
                    return match self.tcp_cut(buf) {
                        Some(n) => Next::Data(n),
                        None => Next::Nothing,
                    };
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => c.readable = false,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {
                    self.tcp.wake(slot);
                    return Next::Nothing;
                }
                Err(_) => return Next::Broken,
            }
        }
        self.tcp_bare_next(slot)
    }

    /// An end or an acknowledgement that is due.
    fn tcp_bare_next(&mut self, slot: usize) -> Next {
        let now = self.now;
        let Some(Some(c)) = self.tcp.conns.get_mut(slot) else { return Next::Nothing };
        if c.state != State::Open {
            return Next::Nothing;
        }
        if c.eof && c.fin.is_none() {
            c.fin = Some(c.nxt);
            return Next::Bare(FIN | ACK);
        }
        if c.wants_data() && c.window == 0 && c.deadline.is_none() {
            // Asks again when the window should have opened.
            c.deadline = Some(now + RTO);
            self.due(now + RTO);
        }
        let Some(Some(c)) = self.tcp.conns.get_mut(slot) else { return Next::Nothing };
        if std::mem::take(&mut c.ack_due) {
            return Next::Bare(ACK);
        }
        Next::Nothing
    }

    /// A piece of the chunk, copied to its place in `buf`.
    fn tcp_cut(&mut self, buf: &mut [u8]) -> Option<usize> {
        let chunk = &mut self.tcp.chunk;
        let c = self.tcp.conns.get(chunk.slot)?.as_ref()?;
        let len = (chunk.end - chunk.start).min(usize::from(c.mss));
        let head = self.link.header + head_len(c.guest.ip()) + HEADER;
        let from = chunk.buf.get(chunk.start..chunk.start + len)?;
        buf.get_mut(head..head + len)?.copy_from_slice(from);
        chunk.start += len;
        chunk.seq = chunk.seq.wrapping_add(len as u32);
        Some(len)
    }

    fn tcp_from_chunk(&mut self, buf: &mut [u8]) -> Option<usize> {
        let chunk = &mut self.tcp.chunk;
        if chunk.start >= chunk.end {
            return None;
        }
        let slot = chunk.slot;
        let same = matches!(self.tcp.conns.get(slot), Some(Some(c))
            if c.serial == chunk.serial && c.nxt == chunk.seq && c.fin.is_none());
        if !same {
            chunk.start = chunk.end;
            return None;
        }
        let len = self.tcp_cut(buf)?;
        self.tcp_frame(slot, buf, ACK | PSH, len)
    }

    /// Completes a frame whose data is in place, and counts it as sent.
    fn tcp_frame(&mut self, slot: usize, buf: &mut [u8], flags: u8, len: usize) -> Option<usize> {
        let now = self.now;
        let allowed = self.tcp.allowance();
        let id = self.link.next_id();
        let c = self.tcp.conns.get_mut(slot)?.as_mut()?;
        // A question without data uses a number that the guest has acknowledged, so that it answers.
        let probe = flags == ACK && c.retries > 0 && c.una == c.max && c.state == State::Open;
        let f = Fields {
            from: c.remote.port(),
            to: c.guest.port(),
            seq: if probe { c.nxt.wrapping_sub(1) } else { c.nxt },
            ack: c.rcv,
            flags,
            window: c.offer(allowed),
        };
        let takes = len as u32 + u32::from(flags & FIN != 0);
        let (ip, mss, guest) = (ip_head(c, id), c.mss, c.guest.ip());
        if takes > 0 {
            c.sent(takes, now);
            self.due(now + RTO);
        } else if let Some(c) = self.tcp.conns.get_mut(slot)?.as_mut() {
            c.ack_due = false;
        }
        let ip_at = self.link.header + ETH;
        let tcp_at = self.link.header + head_len(guest);
        segment::put(buf.get_mut(tcp_at..)?, &f, HEADER);
        let total = tcp_at + HEADER + len;
        self.finish_frame(buf, &ip, ip_at, tcp_at, total, usize::from(mss))
    }

    /// Fills in everything around a TCP segment: checksum or offload, IP and Ethernet headers, padding.
    fn finish_frame(
        &mut self,
        buf: &mut [u8],
        ip: &packet::Head,
        ip_at: usize,
        tcp_at: usize,
        total: usize,
        mss: usize,
    ) -> Option<usize> {
        const FIELD: usize = 16;
        let header = self.link.header;
        let (dst, src) = (self.link.mac(ip.dst)?, self.link.source_mac(ip.dst));
        let body = total - tcp_at;
        let sum = packet::pseudo(ip.src, ip.dst, TCP, body);
        let offload = self.link.guest.csum;
        let segment = buf.get_mut(tcp_at..total)?;
        // With offload the field holds the sum of the pseudo header, not its complement.
        let sum =
            if offload { !checksum::finish(sum) } else { checksum::finish(checksum::add(sum, segment)) };
        segment.get_mut(FIELD..FIELD + 2)?.copy_from_slice(&sum.to_be_bytes());
        packet::put_ip(buf.get_mut(ip_at..)?, ip, body);
        let kind = if ip.dst.is_ipv4() { ETHERTYPE_IP4 } else { ETHERTYPE_IP6 };
        packet::put_eth(buf.get_mut(header..)?, dst, src, kind);
        let vnet = buf.get_mut(..header)?;
        vnet.fill(0);
        if offload && header > 0 {
            vnet[0] = NEEDS_CSUM;
            let large = body > mss + HEADER;
            if large {
                vnet[1] = if ip.dst.is_ipv4() { GSO_TCP4 } else { GSO_TCP6 };
                vnet[4..6].copy_from_slice(&(mss as u16).to_le_bytes());
            }
            vnet[2..4].copy_from_slice(&((tcp_at - header + HEADER) as u16).to_le_bytes());
            vnet[6..8].copy_from_slice(&((tcp_at - header) as u16).to_le_bytes());
            vnet[8..10].copy_from_slice(&(FIELD as u16).to_le_bytes());
        }
        let least = header + 60;
        if total < least {
            buf.get_mut(total..least)?.fill(0);
            return Some(least);
        }
        Some(total)
    }

    /// A SYN, or the answer to one.
    fn tcp_syn(&mut self, slot: usize, buf: &mut [u8]) -> Option<usize> {
        let now = self.now;
        let id = self.link.next_id();
        let allowed = self.tcp.allowance();
        let c = self.tcp.conns.get_mut(slot)?.as_mut()?;
        let answer = c.state == State::SynReceived;
        let window = c.offer(allowed);
        let f = Fields {
            from: c.remote.port(),
            to: c.guest.port(),
            seq: c.iss,
            ack: if answer { c.rcv } else { 0 },
            flags: if answer { SYN | ACK } else { SYN },
            // Not shifted in a SYN.
            window: if c.scaled { ((c.edge.wrapping_sub(c.rcv)).min(0xffff)) as u16 } else { window },
        };
        let mss = own_mss(c.guest.ip()).to_be_bytes();
        let mut options = vec![2, 4, mss[0], mss[1]];
        if let Some(shift) = c.shift_offered() {
            options.extend([1, 3, 3, shift]);
        }
        c.max = c.iss.wrapping_add(1);
        c.nxt = c.max;
        if c.deadline.is_none() {
            c.deadline = Some(now + SYN_RTO);
        }
        let (ip, guest, own) = (ip_head(c, id), c.guest.ip(), usize::from(c.mss));
        self.due(now + SYN_RTO);
        let ip_at = self.link.header + ETH;
        let tcp_at = self.link.header + head_len(guest);
        let len = HEADER + options.len();
        segment::put(buf.get_mut(tcp_at..)?, &f, len);
        buf.get_mut(tcp_at + HEADER..tcp_at + len)?.copy_from_slice(&options);
        self.finish_frame(buf, &ip, ip_at, tcp_at, tcp_at + len, own)
    }

    /// The guest must be asked where it is first.
    fn tcp_unknown_guest(&mut self, slot: usize) -> Option<usize> {
        let now = self.now;
        let c = self.tcp.conns.get_mut(slot)?.as_mut()?;
        let ip = c.guest.ip();
        if c.deadline.is_none() {
            c.deadline = Some(now + SYN_RTO);
        }
        self.due(now + SYN_RTO);
        self.link.ask(ip);
        None
    }

    /// The last acknowledgement of a connection, before it is forgotten.
    pub(super) fn tcp_last_ack(&mut self, slot: usize) {
        let allowed = self.tcp.allowance();
        let Some(Some(c)) = self.tcp.conns.get_mut(slot) else { return };
        if !c.ack_due {
            return;
        }
        let window = c.offer(allowed);
        let (src, dst) = (c.remote, c.guest);
        let f = Fields { from: src.port(), to: dst.port(), seq: c.nxt, ack: c.rcv, flags: ACK, window };
        self.tcp_bare(src.ip(), dst.ip(), &f);
    }
}
