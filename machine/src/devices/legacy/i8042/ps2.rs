//! What PS/2 keyboard and mouse share: the output queue.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Bytes that a device keeps for the controller, at most.
const LEN: usize = 16;

/// Output queue of a PS/2 device. Replies to commands overtake what the user typed.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Queue {
    /// Rest of the reply to the last command.
    reply: VecDeque<u8>,
    data: VecDeque<u8>,
    /// The last byte that was read.
    last: u8,
}

impl Queue {
    pub fn len(&self) -> usize {
        self.reply.len() + self.data.len()
    }

    pub fn room(&self) -> usize {
        LEN.saturating_sub(self.len())
    }

    /// Adds a byte; dropped when the queue is full.
    pub fn push(&mut self, b: u8) {
        if self.room() > 0 {
            self.data.push_back(b);
        }
    }

    /// Replaces what is left of the previous reply.
    pub fn reply(&mut self, bytes: &[u8]) {
        self.reply.clear();
        self.reply.extend(bytes);
    }

    /// A reply is being read.
    pub fn replying(&self) -> bool {
        !self.reply.is_empty()
    }

    /// Next byte, or the last one again.
    pub fn pop(&mut self) -> u8 {
        if let Some(b) = self.reply.pop_front().or_else(|| self.data.pop_front()) {
            self.last = b;
        }
        self.last
    }

    pub fn clear(&mut self) {
        self.reply.clear();
        self.data.clear();
    }

    /// Whether a loaded queue is within the limits.
    pub fn is_sane(&self) -> bool {
        self.reply.len() <= LEN && self.data.len() <= LEN
    }
}
