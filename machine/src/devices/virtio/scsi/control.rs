//! The control queue: task management, and asynchronous notifications, of which there are none.

use super::super::queue::{Chain, QueueError, MAX_BURST};
use super::super::Raise;
use super::hba::{Hba, CONTROL};
use super::requests::address;
use crate::device::Cx;

/// Requests.
mod kind {
    pub const TASK_MANAGEMENT: u32 = 0;
    pub const QUERY: u32 = 1;
    pub const SUBSCRIBE: u32 = 2;
}

/// Task management functions.
mod function {
    pub const ABORT_TASK: u32 = 0;
    pub const ABORT_TASK_SET: u32 = 1;
    pub const CLEAR_TASK_SET: u32 = 3;
    pub const NEXUS_RESET: u32 = 4;
    pub const UNIT_RESET: u32 = 5;
    pub const QUERY_TASK: u32 = 6;
    pub const QUERY_TASK_SET: u32 = 7;
}

/// Response codes.
mod response {
    pub const COMPLETE: u8 = 0;
    pub const BAD_TARGET: u8 = 3;
    pub const REJECTED: u8 = 11;
    pub const INCORRECT_LUN: u8 = 12;
}

impl Hba {
    /// Takes requests until there are none.
    pub(super) fn serve_control(&mut self, cx: &mut Cx<'_>, raise: &mut Raise) {
        let mut chain = Chain::default();
        let mut any = false;
        for _ in 0..MAX_BURST {
            if !self.queues.pop(raise, CONTROL, &mut chain) {
                break;
            }
            match self.control(cx, raise, &chain) {
                Some(reply) => {
                    chain.writable.write(0, &reply);
                    self.queues.push(raise, CONTROL, chain.head, reply.len());
                    any = true;
                }
                None => return raise.broken(QueueError::Header),
            }
        }
        if any {
            self.queues.notify(raise, CONTROL);
        }
    }

    /// The reply; `None` if the buffers are too small for the request.
    fn control(&mut self, cx: &mut Cx<'_>, raise: &mut Raise, chain: &Chain) -> Option<Vec<u8>> {
        let d = chain.readable.to_vec(24);
        let word = |at: usize| d.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
        let room = |n: usize| (chain.writable.total() >= n).then_some(());
        match word(0)? {
            kind::TASK_MANAGEMENT => {
                let (function, lun) = (word(4)?, d.get(8..16)?);
                d.get(16..24)?;
                room(1)?;
                Some(vec![self.task_management(cx, raise, function, lun)])
            }
            kind::QUERY | kind::SUBSCRIBE => {
                d.get(4..16)?;
                room(5)?;
                // No unit sends any.
                Some(vec![0, 0, 0, 0, response::COMPLETE])
            }
            _ => Some(Vec::new()),
        }
    }

    fn task_management(&mut self, cx: &mut Cx<'_>, raise: &mut Raise, function: u32, lun: &[u8]) -> u8 {
        let known = matches!(
            function,
            function::ABORT_TASK
                | function::ABORT_TASK_SET
                | function::CLEAR_TASK_SET
                | function::NEXUS_RESET
                | function::UNIT_RESET
                | function::QUERY_TASK
                | function::QUERY_TASK_SET
        );
        if !known {
            return response::REJECTED;
        }
        let place = address(lun).filter(|(id, _)| self.slots.iter().any(|s| s.id == *id));
        let Some((id, lun)) = place else { return response::BAD_TARGET };
        if function == function::NEXUS_RESET {
            self.settle(cx, raise, |s| s.0 == id);
            self.slots.iter_mut().filter(|s| s.id == id).for_each(|s| s.unit.reset());
            return response::COMPLETE;
        }
        if self.at(id, lun).is_none() {
            return response::INCORRECT_LUN;
        }
        // Requests are not taken back half done: they are waited for, and none is left to be queried.
        self.settle(cx, raise, |s| s == (id, lun));
        if function == function::UNIT_RESET {
            if let Some(s) = self.at(id, lun) {
                s.unit.reset();
            }
        }
        response::COMPLETE
    }

    /// Waits for the requests of some units and gives them back.
    fn settle(&mut self, cx: &mut Cx<'_>, raise: &mut Raise, which: impl Fn((u32, u32)) -> bool) {
        for s in self.slots.iter().filter(|s| which((s.id, s.lun))) {
            s.unit.disk.backend.drain();
        }
        self.finish_arrived(cx, raise);
    }
}
