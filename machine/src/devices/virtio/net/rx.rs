//! Frames to the guest.

use super::{feature, Net, LONG_HEADER, SHORT_HEADER};
use crate::device::Cx;
use crate::devices::virtio::queue::{Avail, Chain, QueueError, Used};
use crate::devices::virtio::Raise;
use crate::net::checksum;

/// Flag in the virtio-net header: the checksum is not filled in.
const NEEDS_CSUM: u8 = 1;

/// Buffers that one frame may be spread over: what a frame of 64 KiB needs when they have 64 bytes each.
const MAX_BUFFERS: usize = 1024;

/// What came of filling buffers.
enum Filled {
    Done,
    /// Not enough room; the driver was asked for kicks.
    NoRoom,
    /// The frame does not fit and never will.
    Drop,
}

impl Net {
    /// Hands a frame to the guest; `false` if there is no room for it now.
    pub(super) fn take_frame(
        &mut self,
        _cx: &mut Cx<'_>,
        raise: &mut Raise,
        pair: usize,
        frame: &[u8],
    ) -> bool {
        let q = pair as u16 * 2;
        if pair >= usize::from(self.pairs) {
            return false;
        }
        let Some(queue) = self.queues.queue(q) else { return false };
        let mut header = [0; LONG_HEADER];
        let mut body = frame;
        if self.offloads.is_some() {
            let len = self.header();
            let Some((h, b)) = frame.split_at_checked(len) else { return true };
            header[..len].copy_from_slice(h);
            body = b;
        }
        if !self.filter.lets_in(&self.mac, body) {
            return true;
        }
        let mut patched = Vec::new();
        if header[0] & NEEDS_CSUM != 0 && checksum::is_dhcp_reply(body) {
            // Old DHCP clients look at the raw packet and want a checksum.
            patched.extend_from_slice(body);
            checksum::fill(&mut patched, usize::from(u16::from_le_bytes([header[6], header[7]])), 6);
            header[0] &= !NEEDS_CSUM;
            body = &patched;
        }
        let mut avail = queue.avail.lock();
        let mut used = queue.used.lock();
        let fill = Fill {
            header: &mut header,
            header_len: self.header(),
            body,
            mergeable: self.has(feature::MRG_RXBUF),
            chain: &mut self.chain,
        };
        let was = avail.next();
        let filled = fill.run(&mut avail, &mut used);
        match &filled {
            Ok(Filled::Done) => {
                if std::mem::take(&mut self.rx_kicks[pair]) {
                    avail.set_notify(false);
                }
            }
            _ => avail.set_next(was),
        }
        if matches!(filled, Ok(Filled::NoRoom)) {
            self.rx_kicks[pair] = true;
        }
        drop((avail, used));
        match filled {
            Ok(Filled::Done) => self.queues.notify(raise, q),
            Ok(Filled::NoRoom) => return false,
            Ok(Filled::Drop) => {}
            Err(e) => raise.broken(e),
        }
        true
    }
}

struct Fill<'a> {
    header: &'a mut [u8; LONG_HEADER],
    header_len: usize,
    body: &'a [u8],
    mergeable: bool,
    chain: &'a mut Chain,
}

impl Fill<'_> {
    /// Takes buffers until the frame is in them.
    fn run(self, avail: &mut Avail, used: &mut Used) -> Result<Filled, QueueError> {
        let mut first: Option<Chain> = None;
        let mut list: Vec<(u16, u32)> = Vec::new();
        let mut rest = self.body;
        loop {
            if !pop(avail, self.chain)? {
                return Ok(Filled::NoRoom);
            }
            let room = self.chain.writable.total();
            if room == 0 {
                return Err(QueueError::Header);
            }
            let mut at = 0;
            if first.is_none() {
                if room < self.header_len {
                    return Err(QueueError::Header);
                }
                at = self.header_len;
            }
            let n = self.chain.writable.write(at, rest);
            rest = &rest[n..];
            list.push((self.chain.head, (at + n) as u32));
            if first.is_none() {
                first = Some(std::mem::take(self.chain));
            }
            if rest.is_empty() {
                break;
            }
            if !self.mergeable || list.len() >= MAX_BUFFERS {
                return Ok(Filled::Drop);
            }
        }
        if let Some(c) = first {
            if self.header_len > SHORT_HEADER {
                self.header[SHORT_HEADER..].copy_from_slice(&(list.len() as u16).to_le_bytes());
            }
            c.writable.write(0, &self.header[..self.header_len]);
            *self.chain = c;
        }
        used.push_many(&list)?;
        Ok(Filled::Done)
    }
}

/// Takes a buffer; when there is none, asks the driver for a kick and looks once more.
fn pop(avail: &mut Avail, chain: &mut Chain) -> Result<bool, QueueError> {
    if avail.pop(chain)? {
        return Ok(true);
    }
    avail.set_notify(true);
    avail.pop(chain)
}
