//! Queues of devices that are served under the machine lock, where a kick arrives.

use std::sync::Arc;

use super::queue::{Chain, Queue};
use super::{Raise, Start};

/// The live queues of such a device.
#[derive(Default)]
pub struct MainQueues {
    queues: Vec<Option<Arc<Queue>>>,
}

impl MainQueues {
    /// Takes the queues over.
    pub fn start(&mut self, s: &Start<'_>) {
        self.queues = s.queues.to_vec();
    }

    /// Lets them go.
    pub fn stop(&mut self) {
        self.queues.clear();
    }

    /// A handle of queue `q`.
    pub fn queue(&self, q: u16) -> Option<Arc<Queue>> {
        self.queues.get(usize::from(q))?.clone()
    }

    fn get(&self, q: u16) -> Option<&Queue> {
        self.queues.get(usize::from(q))?.as_deref()
    }

    /// Takes the next request of queue `q`; `false` if there is none (the guest will kick then) or the queue is bad.
    pub fn pop(&self, raise: &mut Raise, q: u16, chain: &mut Chain) -> bool {
        let Some(queue) = self.get(q) else { return false };
        let mut a = queue.avail.lock();
        let mut last_look = false;
        loop {
            match a.pop(chain) {
                Ok(true) => return true,
                Ok(false) if last_look => return false,
                Ok(false) => {
                    a.set_notify(true);
                    last_look = true;
                }
                Err(e) => {
                    raise.broken(e);
                    return false;
                }
            }
        }
    }

    /// Whether a request waits in queue `q`.
    pub fn has_work(&self, q: u16) -> bool {
        self.get(q).is_some_and(|q| q.avail.lock().has_work())
    }

    /// Gives a request back; `len` bytes of it were written.
    pub fn push(&self, raise: &mut Raise, q: u16, head: u16, len: usize) {
        let Some(queue) = self.get(q) else { return };
        if let Err(e) = queue.used.lock().push(head, u32::try_from(len).unwrap_or(u32::MAX)) {
            raise.broken(e);
        }
    }

    /// Asks for the interrupt of queue `q` if the guest wants one.
    pub fn notify(&self, raise: &mut Raise, q: u16) {
        let Some(queue) = self.get(q) else { return };
        let drained = !queue.avail.lock().has_work();
        if queue.used.lock().should_interrupt(drained) {
            raise.queue(q);
        }
    }
}
