//! Frames from the guest (section 3.3 of the manual): legacy, context and data descriptors, segmentation, checksums.

use super::irq::{ICR_TXDW, ICR_TXQE};
use super::regs::{reg, CTRL_VME};
use super::E1000;
use crate::device::Cx;
use crate::net::checksum;

const TCTL_EN: u32 = 1 << 1;

/// Bits of a descriptor's second word.
mod cmd {
    pub const EOP: u32 = 1 << 24;
    /// Legacy: insert a checksum.
    pub const IC: u32 = 1 << 26;
    /// Data and context: segmentation.
    pub const TSE: u32 = 1 << 26;
    pub const RS: u32 = 1 << 27;
    pub const RPS: u32 = 1 << 28;
    pub const DEXT: u32 = 1 << 29;
    pub const VLE: u32 = 1 << 30;
    pub const IDE: u32 = 1 << 31;
    /// Context: TCP, else UDP; IPv4, else IPv6.
    pub const TCP: u32 = 1 << 24;
    pub const IP: u32 = 1 << 25;
    pub const TYPE_DATA: u32 = 1 << 20;
    pub const TYPE_MASK: u32 = 0xf << 20;
}

/// Checksums that a data descriptor asks for.
const IXSM: u8 = 1;
const TXSM: u8 = 2;

const STATUS_DD: u32 = 1;
/// Collision bits that the write-back clears.
const STATUS_ERRORS: u32 = 0xe;

/// Largest frame, and largest sum of a segmented frame's pieces between two segments.
const MAX_FRAME: usize = 0x10000;

/// A context descriptor.
#[derive(Clone, Copy, Default)]
struct Context {
    ip_start: u8,
    ip_offset: u8,
    ip_end: u16,
    tcp_start: u8,
    tcp_offset: u8,
    tcp_end: u16,
    payload: u32,
    header: u8,
    mss: u16,
    ip4: bool,
    tcp: bool,
}

impl Context {
    fn new(addr: u64, low: u32, high: u32) -> Self {
        let b = addr.to_le_bytes();
        Self {
            ip_start: b[0],
            ip_offset: b[1],
            ip_end: u16::from_le_bytes([b[2], b[3]]),
            tcp_start: b[4],
            tcp_offset: b[5],
            tcp_end: u16::from_le_bytes([b[6], b[7]]),
            payload: low & 0xf_ffff,
            header: (high >> 8) as u8,
            mss: (high >> 16) as u16,
            ip4: low & cmd::IP != 0,
            tcp: low & cmd::TCP != 0,
        }
    }
}

/// The frame that descriptors build up.
#[derive(Default)]
pub struct Transmitter {
    /// Of segmented and of other frames.
    segmented: Context,
    plain: Context,
    data: Vec<u8>,
    header: Vec<u8>,
    /// Checksums asked for by the frame's first descriptor.
    sums: u8,
    /// A legacy checksum: start and place.
    legacy_sum: Option<(u8, u8)>,
    tag: Option<u16>,
    /// Segments of the frame that went out.
    segments: u32,
    tse: bool,
}

struct Descriptor {
    addr: u64,
    low: u32,
    high: u32,
}

impl E1000 {
    /// Sends what is between head and tail.
    pub(super) fn transmit(&mut self, cx: &mut Cx<'_>) {
        if self.regs.get(reg::TCTL) & TCTL_EN == 0 || !self.pci.bus_master() {
            return;
        }
        let (base, entries) = self.regs.ring(reg::TDBAL, reg::TDLEN);
        let start = self.regs.get(reg::TDH);
        let mut causes = ICR_TXQE;
        while self.regs.get(reg::TDH) != self.regs.get(reg::TDT) {
            let head = self.regs.get(reg::TDH);
            let at = base.wrapping_add(16 * u64::from(head));
            let mut d = [0; 16];
            if cx.dma_read(at, &mut d).is_err() {
                d = [0; 16];
            }
            let word = |i: usize| u32::from_le_bytes([d[i], d[i + 1], d[i + 2], d[i + 3]]);
            let d = Descriptor {
                addr: u64::from(word(0)) | u64::from(word(4)) << 32,
                low: word(8),
                high: word(12),
            };
            self.process(cx, &d);
            causes |= self.write_back(cx, at, &d);
            let next = if head + 1 >= entries { 0 } else { head + 1 };
            self.regs.set(reg::TDH, next);
            // A tail outside the ring is never reached: once around is enough.
            if next == start || start >= entries {
                break;
            }
        }
        self.raise(cx, causes);
    }

    /// Reports a descriptor as done, if it asks for that.
    fn write_back(&mut self, cx: &mut Cx<'_>, at: u64, d: &Descriptor) -> u32 {
        if d.low & (cmd::RS | cmd::RPS) == 0 {
            return 0;
        }
        if d.low & cmd::IDE != 0 {
            self.irq.delay_tx = true;
        }
        let high = (d.high | STATUS_DD) & !STATUS_ERRORS;
        // A ring outside memory gets nothing.
        let _ = cx.dma_write(at.wrapping_add(12), &high.to_le_bytes());
        ICR_TXDW
    }

    fn process(&mut self, cx: &mut Cx<'_>, d: &Descriptor) {
        let t = &mut self.tx;
        let extended = d.low & cmd::DEXT != 0;
        if extended && d.low & cmd::TYPE_MASK == 0 {
            let c = Context::new(d.addr, d.low, d.high);
            if d.low & cmd::TSE != 0 {
                t.segmented = c;
                t.segments = 0;
            } else {
                t.plain = c;
            }
            return;
        }
        let data_type = extended && d.low & cmd::TYPE_MASK == cmd::TYPE_DATA;
        let mut len = (d.low & 0xffff) as usize;
        if t.data.is_empty() {
            t.sums = if data_type { (d.high >> 8) as u8 } else { 0 };
        }
        t.tse = data_type && d.low & cmd::TSE != 0;
        if data_type {
            len = (d.low & 0xf_ffff) as usize;
        } else if !extended && d.low & cmd::IC != 0 {
            t.legacy_sum = Some(((d.high >> 8) as u8, (d.low >> 16) as u8));
        }
        if d.low & cmd::VLE != 0
            && (data_type || d.low & cmd::EOP != 0)
            && self.regs.get(reg::CTRL) & CTRL_VME != 0
        {
            t.tag = Some((d.high >> 16) as u16);
        }
        self.gather(cx, d.addr, len);
        if d.low & cmd::EOP == 0 {
            return;
        }
        let short = self.tx.tse && self.tx.data.len() < usize::from(self.tx.segmented.header);
        if !short {
            self.send_segment(cx);
        }
        let t = &mut self.tx;
        (t.segments, t.sums, t.tag, t.tse, t.legacy_sum) = (0, 0, None, false, None);
        t.data.clear();
    }

    /// Takes a descriptor's data; full segments go out.
    fn gather(&mut self, cx: &mut Cx<'_>, mut addr: u64, mut len: usize) {
        let c = self.tx.segmented;
        let header = usize::from(c.header);
        let full = if self.tx.tse { header + usize::from(c.mss) } else { MAX_FRAME };
        // A segment without payload would never end.
        let full = if full > header { full.min(MAX_FRAME) } else { MAX_FRAME };
        while len > 0 {
            let have = self.tx.data.len();
            let n = len.min(full.saturating_sub(have));
            if n == 0 {
                // More than any frame holds: the rest is lost.
                return;
            }
            self.tx.data.resize(have + n, 0);
            // What cannot be read is sent as zeros.
            let _ = cx.dma_read(addr, &mut self.tx.data[have..]);
            if self.tx.tse && have < header && have + n >= header {
                self.tx.header.clear();
                let (data, keep) = (&self.tx.data, &mut self.tx.header);
                keep.extend_from_slice(&data[..header]);
            }
            addr = addr.wrapping_add(n as u64);
            len -= n;
            if self.tx.tse && have + n == full && self.tx.header.len() == header && full > header {
                self.send_segment(cx);
                let t = &mut self.tx;
                t.data.clear();
                let (data, keep) = (&mut t.data, &t.header);
                data.extend_from_slice(keep);
            }
        }
    }

    /// Sends what was gathered as one frame.
    fn send_segment(&mut self, cx: &mut Cx<'_>) {
        let mut data = std::mem::take(&mut self.tx.data);
        let t = &mut self.tx;
        let c = if t.tse { t.segmented } else { t.plain };
        if t.tse {
            patch_headers(&mut data, &c, t.segments, t.sums & TXSM != 0);
            if t.segments == 0 {
                self.regs.count(reg::TSCTC);
            }
            self.tx.segments += 1;
        }
        let t = &mut self.tx;
        if t.sums & TXSM != 0 {
            put_sum(&mut data, c.tcp_offset, c.tcp_start, c.tcp_end);
        }
        if t.sums & IXSM != 0 {
            put_sum(&mut data, c.ip_offset, c.ip_start, c.ip_end);
        }
        if let Some((start, place)) = t.legacy_sum {
            put_sum(&mut data, place, start, 0);
        }
        // A tag that is added here does not count.
        self.regs.count_sent(&data);
        if let (Some(tag), true) = (self.tx.tag, data.len() >= 12) {
            let mut four = [0; 4];
            four[..2].copy_from_slice(&(self.regs.get(reg::VET) as u16).to_be_bytes());
            four[2..].copy_from_slice(&tag.to_be_bytes());
            data.splice(12..12, four);
        }
        if self.phy.loopback() {
            self.take_frame(cx, &data);
        } else {
            cx.m.net_send(self.nic, &data);
        }
        data.clear();
        self.tx.data = data;
    }
}

fn get16(data: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*data.get(at)?, *data.get(at + 1)?]))
}

fn put16(data: &mut [u8], at: usize, v: u16) {
    if let Some(d) = data.get_mut(at..at + 2) {
        d.copy_from_slice(&v.to_be_bytes());
    }
}

/// Makes the headers of a segmented frame fit segment number `n`.
fn patch_headers(data: &mut [u8], c: &Context, n: u32, sum: bool) {
    let (ip, tcp) = (usize::from(c.ip_start), usize::from(c.tcp_start));
    let size = data.len();
    let len = |from: usize| size.saturating_sub(from) as u16;
    if c.ip4 {
        put16(data, ip + 2, len(ip));
        if let Some(id) = get16(data, ip + 4) {
            put16(data, ip + 4, id.wrapping_add(n as u16));
        }
    } else {
        put16(data, ip + 4, len(ip + 40));
    }
    if c.tcp {
        let before = n.wrapping_mul(u32::from(c.mss));
        if let Some(seq) = data.get_mut(tcp + 4..tcp + 8) {
            let old = seq.iter().fold(0u32, |v, b| v << 8 | u32::from(*b));
            seq.copy_from_slice(&old.wrapping_add(before).to_be_bytes());
        }
        if c.payload.saturating_sub(before) > u32::from(c.mss) {
            // Not the last one: neither PSH nor FIN.
            if let Some(flags) = data.get_mut(tcp + 13) {
                *flags &= !9;
            }
        }
    } else {
        put16(data, tcp + 4, len(tcp));
    }
    if sum {
        // The driver left the sum of the pseudo header without the length, which differs from segment to segment.
        let at = usize::from(c.tcp_offset);
        if let Some(partial) = get16(data, at) {
            let folded = !checksum::finish(u32::from(partial) + u32::from(len(tcp)));
            put16(data, at, folded);
        }
    }
}

/// Writes the checksum of the bytes from `start` to `end` (0: the last one) at `place`.
fn put_sum(data: &mut [u8], place: u8, start: u8, end: u16) {
    let (place, start) = (usize::from(place), usize::from(start));
    let end = match usize::from(end) {
        0 => data.len(),
        e => data.len().min(e + 1),
    };
    let Some(range) = data.get(start..end) else { return };
    if place + 1 >= end {
        return;
    }
    let sum = checksum::finish(checksum::add(0, range));
    put16(data, place, sum);
}
