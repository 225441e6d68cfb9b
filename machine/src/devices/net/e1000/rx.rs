//! Frames to the guest (section 3.2 of the manual).

use super::irq::{ICR_RXDMT0, ICR_RXO, ICR_RXT0};
use super::regs::{reg, ADDRESSES, CTRL_VME, STATUS_LU};
use super::E1000;
use crate::device::Cx;

/// RCTL bits.
mod rctl {
    pub const EN: u32 = 1 << 1;
    pub const SBP: u32 = 1 << 2;
    pub const UPE: u32 = 1 << 3;
    pub const MPE: u32 = 1 << 4;
    pub const LPE: u32 = 1 << 5;
    pub const BAM: u32 = 1 << 15;
    pub const VFE: u32 = 1 << 18;
    pub const BSEX: u32 = 1 << 25;
    pub const SECRC: u32 = 1 << 26;
}

/// Descriptor status: done, last of its frame, checksum not looked at, VLAN tag taken out.
const DD: u8 = 1;
const EOP: u8 = 2;
const IXSM: u8 = 4;
const VP: u8 = 8;

const MIN_FRAME: usize = 60;
const FCS: usize = 4;
/// Largest frame with a VLAN tag, without and with LPE.
const MAX_STANDARD: usize = 1522;
const MAX_LONG: usize = 16384;

impl E1000 {
    /// Receiver and link are on.
    pub(super) fn rx_ready(&self) -> bool {
        self.regs.get(reg::STATUS) & STATUS_LU != 0
            && self.regs.get(reg::RCTL) & rctl::EN != 0
            && self.pci.bus_master()
    }

    fn buffer_size(&self) -> usize {
        let r = self.regs.get(reg::RCTL);
        let shift = r >> 16 & 3;
        match (r & rctl::BSEX != 0, shift) {
            (true, 1..) => 32768 >> shift,
            _ => 2048 >> shift,
        }
    }

    /// Whether `size` bytes fit into the buffers that the driver offers.
    pub(super) fn has_buffers(&self, size: usize) -> bool {
        let (_, entries) = self.regs.ring(reg::RDBAL, reg::RDLEN);
        let (head, tail) = (self.regs.get(reg::RDH), self.regs.get(reg::RDT));
        let free = match tail.cmp(&head) {
            std::cmp::Ordering::Equal => return false,
            std::cmp::Ordering::Greater => tail - head,
            std::cmp::Ordering::Less => (entries + tail).saturating_sub(head),
        };
        entries > 0 && size <= free as usize * self.buffer_size()
    }

    /// Whether the VLAN and address filters let a frame in.
    fn lets_in(&self, frame: &[u8]) -> bool {
        let r = self.regs.get(reg::RCTL);
        if r & rctl::VFE != 0 {
            if let Some(tag) = self.tag(frame) {
                let id = u32::from(tag & 0xfff);
                if self.regs.get(reg::VFTA + 4 * (id >> 5)) >> (id & 31) & 1 == 0 {
                    return false;
                }
            }
        }
        let Some(dst) = frame.first_chunk::<6>() else { return false };
        let (group, broadcast) = (dst[0] & 1 != 0, *dst == [0xff; 6]);
        if (!group && r & rctl::UPE != 0)
            || (group && r & rctl::MPE != 0)
            || (broadcast && r & rctl::BAM != 0)
        {
            return true;
        }
        let known = |i| self.regs.address_valid(i) && self.regs.address(i) == *dst;
        if (0..ADDRESSES).any(known) {
            return true;
        }
        let shift = [4, 3, 2, 0][(r >> 12 & 3) as usize];
        let hash = u32::from(u16::from_le_bytes([dst[4], dst[5]])) >> shift & 0xfff;
        group && self.regs.get(reg::MTA + 4 * (hash >> 5)) >> (hash & 31) & 1 != 0
    }

    /// The VLAN tag of a frame.
    fn tag(&self, frame: &[u8]) -> Option<u16> {
        let ty = u16::from_be_bytes([*frame.get(12)?, *frame.get(13)?]);
        let tag = u16::from_be_bytes([*frame.get(14)?, *frame.get(15)?]);
        (u32::from(ty) == self.regs.get(reg::VET) & 0xffff).then_some(tag)
    }

    /// A frame came in. It is taken or lost.
    pub(super) fn take_frame(&mut self, cx: &mut Cx<'_>, frame: &[u8]) {
        if !self.rx_ready() {
            return;
        }
        let r = self.regs.get(reg::RCTL);
        if frame.len() > MAX_LONG || (frame.len() > MAX_STANDARD && r & (rctl::LPE | rctl::SBP) == 0) {
            self.regs.count(reg::ROC);
            return;
        }
        let mut buf = std::mem::take(&mut self.buf);
        buf.clear();
        buf.extend_from_slice(frame);
        if buf.len() < MIN_FRAME {
            buf.resize(MIN_FRAME, 0);
        }
        if self.lets_in(&buf) {
            self.store(cx, &mut buf, r);
        }
        self.buf = buf;
    }

    fn store(&mut self, cx: &mut Cx<'_>, buf: &mut Vec<u8>, r: u32) {
        let tag = self.tag(buf).filter(|_| self.regs.get(reg::CTRL) & CTRL_VME != 0);
        if tag.is_some() {
            buf.drain(12..16);
        }
        let fcs = if r & rctl::SECRC != 0 { 0 } else { FCS };
        let total = buf.len() + fcs;
        if !self.has_buffers(total) {
            self.regs.count(reg::RNBC);
            self.regs.count(reg::MPC);
            return self.raise(cx, ICR_RXO);
        }
        let (base, entries) = self.regs.ring(reg::RDBAL, reg::RDLEN);
        let start = self.regs.get(reg::RDH);
        let size = self.buffer_size();
        let mut done = 0;
        let mut causes = ICR_RXT0;
        while done < total {
            let head = self.regs.get(reg::RDH);
            let at = base.wrapping_add(16 * u64::from(head));
            let n = (total - done).min(size);
            let last = done + n == total;
            if !store_part(cx, at, buf.get(done..).unwrap_or_default(), n, last, tag) {
                break;
            }
            done += n;
            let next = if head + 1 >= entries { 0 } else { head + 1 };
            self.regs.set(reg::RDH, next);
            if next == start && done < total {
                causes |= ICR_RXO;
                break;
            }
        }
        self.count_received(buf, buf.len() + FCS);
        let (head, mut tail) = (self.regs.get(reg::RDH), self.regs.get(reg::RDT));
        if tail < head {
            tail += entries;
        }
        // The threshold is a half, a quarter or an eighth of the ring.
        if tail.saturating_sub(head) <= entries >> ((r >> 8 & 3) + 1) {
            causes |= ICR_RXDMT0;
        }
        self.raise(cx, causes);
    }

    fn count_received(&mut self, buf: &[u8], size: usize) {
        let regs = &mut self.regs;
        regs.count_size(reg::PRC64, size);
        regs.count(reg::TPR);
        regs.count(reg::GPRC);
        regs.add(reg::TORL, size as u64);
        regs.add(reg::GORCL, size as u64);
        match buf.first_chunk::<6>() {
            Some([0xff, 0xff, 0xff, 0xff, 0xff, 0xff]) => regs.count(reg::BPRC),
            Some([first, ..]) if first & 1 != 0 => regs.count(reg::MPRC),
            _ => {}
        }
    }
}

/// Puts `n` bytes of a frame (`data` and, at its end, room for the checksum) into the buffer of the descriptor at `at`.
fn store_part(cx: &mut Cx<'_>, at: u64, data: &[u8], n: usize, last: bool, tag: Option<u16>) -> bool {
    let mut d = [0; 16];
    if cx.dma_read(at, &mut d).is_err() {
        return false;
    }
    let (addr, rest) = d.split_at(8);
    let addr = addr.iter().rev().fold(0u64, |v, b| v << 8 | u64::from(*b));
    let special = tag.map_or([rest[6], rest[7]], u16::to_le_bytes);
    if addr != 0 {
        // A buffer outside memory loses its part.
        let _ = cx.dma_write(addr, &data[..n.min(data.len())]);
    }
    let mut status = DD;
    if last {
        status |= EOP | IXSM;
    }
    if tag.is_some() {
        status |= VP;
    }
    let [l0, l1] = (n as u16).to_le_bytes();
    let new = [l0, l1, rest[2], rest[3], status, rest[5], special[0], special[1]];
    cx.dma_write(at.wrapping_add(8), &new).is_ok()
}
