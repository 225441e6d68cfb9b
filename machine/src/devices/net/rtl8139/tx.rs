//! Frames from the guest.

use super::regs::{isr, CPCR_TX, CR_TE, TSD_OWN, TSD_TABT, TSD_TOK, TSD_TUN};
use super::rx::RING;
use super::Rtl8139;
use crate::device::Cx;
use crate::net::checksum::{add, finish};

/// First word of a C+ descriptor.
const OWN: u32 = 1 << 31;
const EOR: u32 = 1 << 30;
const FIRST: u32 = 1 << 29;
const LAST: u32 = 1 << 28;
const SEGMENT: u32 = 1 << 27;
const IP_SUM: u32 = 1 << 18;
const UDP_SUM: u32 = 1 << 17;
const TCP_SUM: u32 = 1 << 16;
/// Error bits that the card writes.
const ERRORS: u32 = 0x02f0_0000;
/// Second word: insert a tag.
const TAG: u32 = 1 << 17;

const ETH: usize = 14;
const MAX_FRAME: usize = 0x1_0000;
const TCP: u8 = 6;
const UDP: u8 = 17;

impl Rtl8139 {
    /// Sends the slot whose turn it is, if it is ready. Each write to a slot's status sends one at most.
    pub(super) fn send_slot(&mut self, cx: &mut Cx<'_>) {
        let i = self.s.slot;
        let (status, addr) = self.s.slots[i];
        if status & TSD_OWN != 0 || self.s.command & CR_TE == 0 || !self.pci.bus_master() {
            return;
        }
        let mut data = vec![0; (status & 0x1fff) as usize];
        // What cannot be read is sent as zeros.
        let _ = cx.dma_read(u64::from(addr), &mut data);
        self.s.slots[i].0 = status & !(TSD_TUN | TSD_TABT) | TSD_OWN | TSD_TOK;
        self.s.slot = (i + 1) % 4;
        self.send(cx, &data);
        self.raise(cx, isr::TOK);
    }

    fn send(&mut self, cx: &mut Cx<'_>, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        if self.s.loopback() {
            self.take_frame(cx, data);
        } else {
            cx.m.net_send(self.nic, data);
        }
    }

    /// Sends from the C+ ring.
    pub(super) fn poll_ring(&mut self, cx: &mut Cx<'_>) {
        if !self.s.cplus_on(CPCR_TX) || self.s.command & CR_TE == 0 || !self.pci.bus_master() {
            return;
        }
        let mut sent = false;
        // Twice around is more than one frame in every descriptor.
        for _ in 0..2 * RING {
            if !self.next_descriptor(cx) {
                break;
            }
            sent = true;
        }
        if sent {
            self.raise(cx, isr::TOK);
        }
    }

    fn next_descriptor(&mut self, cx: &mut Cx<'_>) -> bool {
        let ring = u64::from(self.s.slots[1].1) << 32 | u64::from(self.s.slots[0].1);
        let at = ring.wrapping_add(16 * u64::from(self.s.tx_next));
        let mut d = [0; 16];
        if cx.dma_read(at, &mut d).is_err() {
            return false;
        }
        let word = |i: usize| u32::from_le_bytes([d[i], d[i + 1], d[i + 2], d[i + 3]]);
        let (w0, w1) = (word(0), word(4));
        if w0 & OWN == 0 {
            return false;
        }
        let addr = u64::from(word(8)) | u64::from(word(12)) << 32;
        let mut frame = std::mem::take(&mut self.frame);
        if w0 & FIRST != 0 {
            frame.clear();
        }
        let have = frame.len();
        let len = ((w0 & 0xffff) as usize).min(MAX_FRAME - have.min(MAX_FRAME));
        frame.resize(have + len, 0);
        // What cannot be read is sent as zeros.
        let _ = cx.dma_read(addr, &mut frame[have..]);
        self.s.tx_next = if w0 & EOR != 0 { 0 } else { (self.s.tx_next + 1) % RING };
        // A ring outside memory gets nothing.
        let _ = cx.dma_write(at, &(w0 & !(OWN | ERRORS)).to_le_bytes());
        if w0 & LAST != 0 {
            let tag = (w1 & TAG != 0).then_some((w1 as u16).to_le_bytes());
            self.send_offloaded(cx, &mut frame, w0, tag);
            self.s.tally.tx_ok += 1;
            frame.clear();
        }
        self.frame = frame;
        true
    }

    /// Does the work that the descriptor leaves to the card.
    fn send_offloaded(&mut self, cx: &mut Cx<'_>, frame: &mut Vec<u8>, w0: u32, tag: Option<[u8; 2]>) {
        let ip = if w0 & (SEGMENT | IP_SUM | UDP_SUM | TCP_SUM) != 0 { Ip::find(frame) } else { None };
        if let Some(ip) = &ip {
            if w0 & SEGMENT != 0 && ip.protocol == TCP {
                let mss = (w0 >> 16 & 0x7ff) as usize;
                return self.send_segments(cx, frame, ip, mss, tag);
            }
            if w0 & (UDP_SUM | TCP_SUM) != 0 {
                ip.fill_transport(frame);
            }
            if w0 & IP_SUM != 0 {
                ip.fill_header(frame);
            }
        }
        self.send_tagged(cx, frame, tag);
    }

    fn send_tagged(&mut self, cx: &mut Cx<'_>, frame: &mut Vec<u8>, tag: Option<[u8; 2]>) {
        if let (Some([a, b]), true) = (tag, frame.len() >= 12) {
            frame.splice(12..12, [0x81, 0, a, b]);
        }
        self.send(cx, frame);
    }

    fn send_segments(&mut self, cx: &mut Cx<'_>, frame: &[u8], ip: &Ip, mss: usize, tag: Option<[u8; 2]>) {
        let Some(offset) = frame.get(ip.payload + 12).map(|b| usize::from(b >> 4) * 4) else { return };
        let headers = ip.payload + offset.max(20);
        if mss == 0 || headers >= ip.end {
            return;
        }
        let payload = &frame[headers..ip.end];
        let count = payload.len().div_ceil(mss);
        for (i, part) in payload.chunks(mss).enumerate() {
            let mut s = frame[..headers].to_vec();
            s.extend_from_slice(part);
            let total = (s.len() - ETH) as u16;
            s[ETH + 2..ETH + 4].copy_from_slice(&total.to_be_bytes());
            let id = u16::from_be_bytes([s[ETH + 4], s[ETH + 5]]).wrapping_add(i as u16);
            s[ETH + 4..ETH + 6].copy_from_slice(&id.to_be_bytes());
            let tcp = ip.payload;
            let seq = u32::from_be_bytes([s[tcp + 4], s[tcp + 5], s[tcp + 6], s[tcp + 7]]);
            let seq = seq.wrapping_add((i * mss) as u32);
            s[tcp + 4..tcp + 8].copy_from_slice(&seq.to_be_bytes());
            if i + 1 < count {
                // Neither PSH nor FIN.
                s[tcp + 13] &= !9;
            }
            let part = Ip { end: s.len(), ..*ip };
            part.fill_transport(&mut s);
            part.fill_header(&mut s);
            self.send_tagged(cx, &mut s, tag);
        }
    }
}

/// Where an IPv4 packet lies in a frame.
#[derive(Clone, Copy)]
struct Ip {
    protocol: u8,
    /// Offset of what it carries.
    payload: usize,
    /// Its end.
    end: usize,
}

impl Ip {
    /// The packet in a frame, if it is one whose lengths are right.
    fn find(frame: &[u8]) -> Option<Self> {
        if frame.get(12..14)? != [8, 0] {
            return None;
        }
        let first = *frame.get(ETH)?;
        let header = usize::from(first & 15) * 4;
        let total = usize::from(u16::from_be_bytes([*frame.get(ETH + 2)?, *frame.get(ETH + 3)?]));
        let (payload, end) = (ETH + header, ETH + total);
        let good = first >> 4 == 4 && header >= 20 && total >= header && end <= frame.len();
        good.then_some(Self { protocol: *frame.get(ETH + 9)?, payload, end })
    }

    fn fill_header(&self, frame: &mut [u8]) {
        let Some(h) = frame.get_mut(ETH..self.payload) else { return };
        h[10..12].fill(0);
        let sum = finish(add(0, h));
        h[10..12].copy_from_slice(&sum.to_be_bytes());
    }

    /// Fills in the checksum of TCP or UDP.
    fn fill_transport(&self, frame: &mut [u8]) {
        let at = match self.protocol {
            TCP => 16,
            UDP => 6,
            _ => return,
        };
        let Some(data) = frame.get_mut(..self.end) else { return };
        let (head, body) = data.split_at_mut(self.payload);
        let Some(field) = body.get_mut(at..at + 2) else { return };
        field.fill(0);
        let len = body.len() as u16;
        let mut sum = add(0, &head[ETH + 12..ETH + 20]);
        sum = add(sum, &[0, self.protocol]);
        sum = add(sum, &len.to_be_bytes());
        let sum = match finish(add(sum, body)) {
            0 if self.protocol == UDP => 0xffff,
            s => s,
        };
        body[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }
}
