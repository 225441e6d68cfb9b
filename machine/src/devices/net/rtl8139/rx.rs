//! Frames to the guest.

use super::regs::{isr, CPCR_RX, CR_RE, RCR_ALL, RCR_BROADCAST, RCR_MATCH, RCR_MULTICAST, RCR_WRAP};
use super::Rtl8139;
use crate::device::Cx;
use crate::net::crc;

const MIN_FRAME: usize = 60;
const FCS: usize = 4;
/// Room that a frame of the usual size needs.
const USUAL: u32 = 1514;

/// Status in the header of the receive ring.
const ROK: u16 = 1;
const BROADCAST: u16 = 1 << 13;
const MATCH: u16 = 1 << 14;
const MULTICAST: u16 = 1 << 15;

/// First word of a C+ descriptor.
const OWN: u32 = 1 << 31;
const EOR: u32 = 1 << 30;
const FIRST_LAST: u32 = 3 << 28;
const SIZE: u32 = 0x1fff;
/// Second word: a tag was taken out.
const TAVA: u32 = 1 << 16;
/// Descriptors of a C+ ring.
pub const RING: u32 = 64;

impl Rtl8139 {
    /// Whether a frame should be offered now: one that cannot come in at all is offered, and dropped.
    pub(super) fn has_room(&self) -> bool {
        let s = &self.s;
        if s.command & CR_RE == 0 || s.cplus_on(CPCR_RX) {
            return true;
        }
        let room = self.room();
        room == 0 || room >= USUAL || s.imr & isr::RX_OVERFLOW != 0
    }

    /// Free bytes of the ring; 0: all.
    fn room(&self) -> u32 {
        let s = &self.s;
        s.ring_size.wrapping_add(s.read_at).wrapping_sub(s.write_at) % s.ring_size.max(1)
    }

    /// The status bits of a frame that may come in.
    fn admit(&mut self, frame: &[u8]) -> Option<u16> {
        let rcr = self.s.rcr;
        let dst = frame.first_chunk::<6>()?;
        if rcr & RCR_ALL != 0 {
            return Some(0);
        }
        if *dst == [0xff; 6] {
            self.s.tally.rx_ok_broadcast += u64::from(rcr & RCR_BROADCAST != 0);
            return (rcr & RCR_BROADCAST != 0).then_some(BROADCAST);
        }
        if dst[0] & 1 != 0 {
            let i = crc::hash6(dst);
            let known = self.s.multicast[i as usize / 8] >> (i % 8) & 1 != 0;
            let ok = rcr & RCR_MULTICAST != 0 && known;
            self.s.tally.rx_ok_multicast += u32::from(ok);
            return ok.then_some(MULTICAST);
        }
        let ok = rcr & RCR_MATCH != 0 && *dst == self.s.id;
        self.s.tally.rx_ok_phys += u64::from(ok);
        ok.then_some(MATCH)
    }

    /// A frame came in; `false` if it must wait.
    pub(super) fn take_frame(&mut self, cx: &mut Cx<'_>, frame: &[u8]) -> bool {
        if self.s.command & CR_RE == 0 || !self.pci.bus_master() {
            return true;
        }
        let Some(status) = self.admit(frame) else { return true };
        let mut padded = [0; MIN_FRAME];
        let frame = if frame.len() < MIN_FRAME {
            padded[..frame.len()].copy_from_slice(frame);
            &padded[..]
        } else {
            frame
        };
        if self.s.cplus_on(CPCR_RX) {
            self.store_in_descriptor(cx, frame, status);
            return true;
        }
        self.store_in_ring(cx, frame, status)
    }

    fn overflow(&mut self, cx: &mut Cx<'_>) {
        self.s.missed = (self.s.missed + 1) & 0xff_ffff;
        self.s.tally.missed = self.s.tally.missed.wrapping_add(1);
        self.raise(cx, isr::RX_OVERFLOW);
    }

    fn store_in_ring(&mut self, cx: &mut Cx<'_>, frame: &[u8], status: u16) -> bool {
        let len = frame.len() + FCS;
        let need = (len as u32 + 4 + 3) & !3;
        let room = self.room();
        if need >= self.s.ring_size || len > usize::from(u16::MAX) {
            return true;
        }
        if room != 0 && need >= room {
            self.overflow(cx);
            return false;
        }
        let [s0, s1] = (status | ROK).to_le_bytes();
        let [l0, l1] = (len as u16).to_le_bytes();
        self.put(cx, &[s0, s1, l0, l1]);
        self.put(cx, frame);
        self.put(cx, &crc::crc32(frame).to_le_bytes());
        self.s.write_at = ((self.s.write_at + 3) & !3) % self.s.ring_size;
        self.s.tally.rx_ok += 1;
        self.raise(cx, isr::ROK);
        true
    }

    /// Writes into the ring.
    fn put(&mut self, cx: &mut Cx<'_>, data: &[u8]) {
        let s = &mut self.s;
        let (base, at, size) = (u64::from(s.ring), s.write_at, s.ring_size);
        let until_end = size.saturating_sub(at) as usize;
        // With this switch the driver has room behind the ring, except behind the largest.
        let linear = s.rcr & RCR_WRAP != 0 && size < 65536;
        s.write_at = (at + data.len() as u32) % size.max(1);
        let (first, rest) = if linear { (data, &[][..]) } else { data.split_at(until_end.min(data.len())) };
        // A ring outside memory loses frames.
        let _ = cx.dma_write(base + u64::from(at), first);
        let _ = cx.dma_write(base, rest);
    }

    fn store_in_descriptor(&mut self, cx: &mut Cx<'_>, frame: &[u8], status: u16) {
        let s = &self.s;
        let ring = u64::from(s.rx_ring[1]) << 32 | u64::from(s.rx_ring[0]);
        let at = ring.wrapping_add(16 * u64::from(s.rx_next));
        let mut d = [0; 16];
        if cx.dma_read(at, &mut d).is_err() {
            return self.overflow(cx);
        }
        let word = |i: usize| u32::from_le_bytes([d[i], d[i + 1], d[i + 2], d[i + 3]]);
        let (w0, mut w1) = (word(0), word(4));
        let addr = u64::from(word(8)) | u64::from(word(12)) << 32;
        if w0 & OWN == 0 {
            return self.overflow(cx);
        }
        let tag = match frame.get(12..16) {
            Some([0x81, 0, a, b]) if s.strips_tags() => Some([*a, *b]),
            _ => None,
        };
        let mut body = frame[..12.min(frame.len())].to_vec();
        body.extend_from_slice(&frame[if tag.is_some() { 16 } else { 12 }.min(frame.len())..]);
        let crc = crc::crc32(frame);
        body.extend(crc.to_le_bytes());
        if body.len() > (w0 & SIZE) as usize {
            return self.overflow(cx);
        }
        w1 = match tag {
            Some(t) => TAVA | u32::from(u16::from_le_bytes(t)),
            None => w1 & !TAVA,
        };
        // Data and descriptors outside memory are lost.
        let _ = cx.dma_write(addr, &body);
        let kind = match status {
            BROADCAST => 1 << 25,
            MATCH => 1 << 26,
            MULTICAST => 1 << 27,
            _ => 0,
        };
        let new = w0 & EOR | FIRST_LAST | kind | body.len() as u32;
        let mut words = [0; 8];
        words[..4].copy_from_slice(&new.to_le_bytes());
        words[4..].copy_from_slice(&w1.to_le_bytes());
        let _ = cx.dma_write(at, &words);
        self.s.rx_next = if w0 & EOR != 0 { 0 } else { (self.s.rx_next + 1) % RING };
        self.s.tally.rx_ok += 1;
        self.raise(cx, isr::ROK);
    }
}
