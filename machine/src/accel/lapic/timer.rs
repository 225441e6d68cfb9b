//! When the APICs' timers expire.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::clock::VirtualClock;

#[derive(Default)]
struct Queue {
    /// Virtual nanoseconds, by processor.
    at: Vec<Option<i64>>,
    closed: bool,
}

/// Deadlines of all processors, served by one thread.
pub struct Deadlines {
    queue: Mutex<Queue>,
    changed: Condvar,
}

impl Deadlines {
    pub fn new(n: usize) -> Self {
        Self { queue: Mutex::new(Queue { at: vec![None; n], closed: false }), changed: Condvar::new() }
    }

    /// Sets or clears one; wakes the thread only if it must wake earlier than it would.
    pub fn set(&self, index: usize, at: Option<i64>) {
        let mut q = self.queue.lock();
        let first = q.at.iter().flatten().min().copied();
        let Some(slot) = q.at.get_mut(index) else { return };
        *slot = at;
        if at.is_some_and(|t| first.is_none_or(|f| t < f)) {
            self.changed.notify_one();
        }
    }

    /// Makes the thread look at the clock again.
    pub fn look(&self) {
        let _q = self.queue.lock();
        self.changed.notify_one();
    }

    /// Ends [`Self::wait`].
    pub fn close(&self) {
        self.queue.lock().closed = true;
        self.changed.notify_all();
    }

    /// Waits for the next deadlines; they are taken out. `None`: closed.
    pub fn wait(&self, clock: &VirtualClock) -> Option<Vec<usize>> {
        let mut q = self.queue.lock();
        loop {
            if q.closed {
                return None;
            }
            let now = clock.now();
            match q.at.iter().flatten().min().copied() {
                Some(t) if t <= now => {
                    let due = |at: &Option<i64>| at.is_some_and(|t| t <= now);
                    let list: Vec<usize> = (0..q.at.len()).filter(|i| due(&q.at[*i])).collect();
                    for i in &list {
                        q.at[*i] = None;
                    }
                    return Some(list);
                }
                Some(t) if clock.running() => {
                    self.changed.wait_for(&mut q, Duration::from_nanos(t.abs_diff(now)));
                }
                _ => self.changed.wait(&mut q),
            }
        }
    }
}
