//! Frames from the guest.

use super::{Net, MAX_FRAME};
use crate::device::Cx;
use crate::devices::virtio::queue::QueueError;
use crate::devices::virtio::Raise;

impl Net {
    /// The driver kicked a transmit queue: frames go at once, or gather until a timer runs out.
    pub(super) fn transmit(&mut self, cx: &mut Cx<'_>, raise: &mut Raise, pair: usize) {
        let Some(delay) = self.config.tx_delay else { return self.send(cx, raise, pair) };
        let Some(q) = self.tx.get_mut(pair) else { return };
        if q.timer {
            // The second kick does not wait.
            q.timer = false;
            cx.timer_set(pair as u32, None);
            return self.send(cx, raise, pair);
        }
        q.timer = true;
        let at = cx.now().saturating_add(delay);
        cx.timer_set(pair as u32, Some(at));
    }

    /// Sends what waits in a transmit queue.
    pub(super) fn send(&mut self, cx: &mut Cx<'_>, raise: &mut Raise, pair: usize) {
        let q = pair as u16 * 2 + 1;
        let Some(queue) = self.queues.queue(q) else { return };
        if pair >= usize::from(self.pairs) || self.tx[pair].blocked || self.tx[pair].timer {
            return;
        }
        queue.avail.lock().set_notify(false);
        let mut chain = std::mem::take(&mut self.chain);
        let mut done = 0;
        while !self.tx[pair].blocked && self.queues.pop(raise, q, &mut chain) {
            let header = self.header();
            if chain.readable.total() < header {
                raise.broken(QueueError::Header);
                break;
            }
            // A back end without headers gets the bare frame.
            let skip = if self.offloads.is_some() { 0 } else { header };
            let len = chain.readable.total() - skip;
            if len <= MAX_FRAME {
                self.scratch.resize(len, 0);
                let n = chain.readable.read(skip, &mut self.scratch);
                // The receiver may be a card of this machine, whose answer must find this one's buffers in place.
                let frame = std::mem::take(&mut self.scratch);
                self.tx[pair].blocked = !cx.m.net_send(self.nics[pair], &frame[..n]);
                self.scratch = frame;
            }
            self.queues.push(raise, q, chain.head, 0);
            done += 1;
            if done >= self.config.tx_burst {
                self.tx[pair].more = true;
                if let Some(s) = &self.shared {
                    s.attention();
                }
                break;
            }
        }
        self.chain = chain;
        if done > 0 {
            self.queues.notify(raise, q);
        }
    }
}
