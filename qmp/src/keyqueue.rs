//! Keys that are sent over time.

use crate::commands::input::{deliver, sink};
use rqemu_machine::ui::InputEvent;
use rqemu_machine::Machine;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Most steps that wait; more are dropped, as a keyboard drops keys when its buffer is full.
const MAX_STEPS: usize = 1024;

/// A key event, or a wait in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Key(u16, bool),
    Wait(u64),
}

/// Steps not yet done.
#[derive(Debug, Default)]
pub struct KeyQueue {
    steps: VecDeque<Step>,
    until: Option<Instant>,
}

impl KeyQueue {
    pub(crate) fn push(&mut self, steps: impl Iterator<Item = Step>) {
        let room = MAX_STEPS.saturating_sub(self.steps.len());
        self.steps.extend(steps.take(room));
    }

    /// When there is something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.until
    }

    /// Does what is due.
    pub(crate) fn run(&mut self, m: &mut Machine) {
        let now = Instant::now();
        if self.until.is_some_and(|t| t > now) {
            return;
        }
        self.until = None;
        while let Some(step) = self.steps.pop_front() {
            match step {
                Step::Key(code, down) => {
                    if let Some(dev) = sink(m, |k| k.keys) {
                        deliver(m, dev, InputEvent::Key { code, down }, true);
                    }
                }
                Step::Wait(ms) => {
                    self.until = Some(now + Duration::from_millis(ms));
                    return;
                }
            }
        }
    }
}
