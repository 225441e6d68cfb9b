//! Per-backend accounting, the numbers of `query-blockstats`.

use crate::driver::Op;
use crate::error::IoResult;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// Counters of one kind of operation.
#[derive(Default, Debug)]
pub struct Counter {
    /// Bytes moved by successful operations.
    pub bytes: AtomicU64,
    /// Successful operations.
    pub ops: AtomicU64,
    /// Failed operations.
    pub failed: AtomicU64,
    /// Operations refused because their parameters were wrong.
    pub invalid: AtomicU64,
    /// Nanoseconds spent in all of them.
    pub time_ns: AtomicU64,
}

/// All counters of a backend.
#[derive(Debug)]
pub struct Stats {
    /// Reads.
    pub rd: Counter,
    /// Writes.
    pub wr: Counter,
    /// Flushes.
    pub flush: Counter,
    /// Discards.
    pub unmap: Counter,
    /// Nanoseconds from `epoch` to the end of the last operation plus one; 0 = none yet (`idle_time_ns`).
    last: AtomicU64,
    epoch: Instant,
}

impl Default for Stats {
    fn default() -> Stats {
        Stats {
            rd: Counter::default(),
            wr: Counter::default(),
            flush: Counter::default(),
            unmap: Counter::default(),
            last: AtomicU64::new(0),
            epoch: Instant::now(),
        }
    }
}

/// When an operation started.
#[derive(Clone, Copy)]
pub(crate) struct Started(u64);

impl Stats {
    pub(crate) fn start(&self) -> Started {
        Started(self.epoch.elapsed().as_nanos() as u64)
    }

    fn counter(&self, op: Op) -> &Counter {
        match op {
            Op::Read => &self.rd,
            Op::Write { .. } | Op::WriteZeroes { .. } => &self.wr,
            Op::Flush => &self.flush,
            Op::Discard => &self.unmap,
        }
    }

    pub(crate) fn done(&self, op: Op, len: u64, started: Started, result: IoResult) {
        let c = self.counter(op);
        let now = self.epoch.elapsed().as_nanos() as u64;
        c.time_ns.fetch_add(now.saturating_sub(started.0), Relaxed);
        self.last.store(now + 1, Relaxed);
        if result.is_ok() {
            c.ops.fetch_add(1, Relaxed);
            if op != Op::Flush {
                c.bytes.fetch_add(len, Relaxed);
            }
        } else {
            c.failed.fetch_add(1, Relaxed);
        }
    }

    /// Counts a request that a device refused by itself (out of range, bad alignment).
    pub fn invalid(&self, op: Op) {
        self.counter(op).invalid.fetch_add(1, Relaxed);
        self.last.store(self.epoch.elapsed().as_nanos() as u64 + 1, Relaxed);
    }

    /// Nanoseconds since the last operation ended; `None` before the first.
    pub fn idle_ns(&self) -> Option<u64> {
        let last = self.last.load(Relaxed);
        (last != 0).then(|| (self.epoch.elapsed().as_nanos() as u64 + 1).saturating_sub(last))
    }
}
