//! I/O limits: leaky buckets of bytes and of operations, each in total, for reads and for writes.
//!
//! A request waits while a bucket that counts it is over-full. Waiting requests go out in order, reads and writes apart,
//! from a thread that exists only while requests wait. Drives of one group share the buckets.

use crate::backend::{BlockBackend, Parked};
use crate::error::{BlockError, Result};
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Limit of one bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limit {
    /// Units per second in the long run; 0 = no limit.
    pub avg: u64,
    /// Units per second in a burst; 0 = a tenth of a second's worth may be ahead.
    pub max: u64,
    /// Seconds a burst may last.
    pub length: u64,
}

/// Limits of a drive: `[bps, bps-read, bps-write, iops, iops-read, iops-write]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// The buckets.
    pub buckets: [Limit; 6],
    /// Bytes that count as one operation; 0 = each request is one.
    pub iops_size: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { buckets: [Limit { length: 1, ..Limit::default() }; 6], iops_size: 0 }
    }
}

/// Largest value of a limit.
const VALUE_MAX: u64 = 1_000_000_000_000_000;

impl Limits {
    /// True if anything is limited.
    pub fn any(&self) -> bool {
        self.buckets.iter().any(|b| b.avg != 0)
    }

    /// Checks that the limits make sense together.
    ///
    /// # Errors
    /// As QEMU words them.
    pub fn check(&self) -> Result<()> {
        let text = |s: &str| Err(BlockError::text(s));
        let b = &self.buckets;
        let both = |t: fn(&Limit) -> u64, i: usize| t(&b[i]) != 0 && (t(&b[i + 1]) != 0 || t(&b[i + 2]) != 0);
        if both(|l| l.avg, 0) || both(|l| l.avg, 3) || both(|l| l.max, 0) || both(|l| l.max, 3) {
            return text("bps/iops/max total values and read/write values cannot be used at the same time");
        }
        if self.iops_size != 0 && b[3..].iter().all(|l| l.avg == 0) {
            return text("iops size requires an iops value to be set");
        }
        for l in b {
            if l.avg > VALUE_MAX || l.max > VALUE_MAX {
                return Err(BlockError::text(format!("bps/iops/max values must be within [0, {VALUE_MAX}]")));
            }
            if l.length == 0 {
                return text("the burst length cannot be 0");
            }
            if l.length > 1 && l.max == 0 {
                return text("burst length set without burst rate");
            }
            if l.max != 0 && l.length > VALUE_MAX / l.max {
                return text("burst length too high for this burst rate");
            }
            if l.max != 0 && l.avg == 0 {
                return text("bps_max/iops_max require corresponding bps/iops values");
            }
            if l.max != 0 && l.max < l.avg {
                return text("bps_max/iops_max cannot be lower than bps/iops");
            }
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Default)]
struct Bucket {
    level: f64,
    burst: f64,
}

struct State {
    limits: Limits,
    buckets: [Bucket; 6],
    at: Instant,
    /// Reads and writes that wait.
    queues: [VecDeque<(BlockBackend, Parked)>; 2],
    running: bool,
    /// So many drains are under way: nothing waits.
    open: u32,
}

/// The limits of a group of drives.
pub struct Throttle {
    /// Name of the group.
    pub group: String,
    state: Mutex<State>,
    wake: Condvar,
}

impl Throttle {
    pub(crate) fn new(group: &str) -> Arc<Throttle> {
        Arc::new(Throttle {
            group: group.into(),
            state: Mutex::new(State {
                limits: Limits::default(),
                buckets: Default::default(),
                at: Instant::now(),
                queues: Default::default(),
                running: false,
                open: 0,
            }),
            wake: Condvar::new(),
        })
    }

    pub(crate) fn set(&self, limits: Limits) {
        let mut s = self.state.lock();
        s.limits = limits;
        s.buckets = Default::default();
        self.wake.notify_all();
    }

    /// The limits in force.
    pub fn limits(&self) -> Limits {
        self.state.lock().limits
    }

    /// Lets everything through (`true`) while a drive is drained.
    pub(crate) fn open(&self, on: bool) {
        let mut s = self.state.lock();
        s.open = if on { s.open + 1 } else { s.open.saturating_sub(1) };
        self.wake.notify_all();
    }

    /// True if a request may start now (it is counted then); otherwise it must be queued.
    pub(crate) fn pass(&self, write: bool, len: u64) -> bool {
        let mut s = self.state.lock();
        s.leak();
        if s.open > 0 {
            return true;
        }
        if !s.queues[usize::from(write)].is_empty() || s.wait(write) > Duration::ZERO {
            return false;
        }
        s.count(write, len);
        true
    }

    pub(crate) fn queue(self: &Arc<Self>, b: BlockBackend, write: bool, p: Parked) {
        let mut s = self.state.lock();
        s.queues[usize::from(write)].push_back((b, p));
        if s.running {
            self.wake.notify_all();
            return;
        }
        s.running = true;
        let me = self.clone();
        drop(s);
        let spawned = std::thread::Builder::new()
            .name("throttle".into())
            .stack_size(crate::pool::STACK)
            .spawn(move || me.work());
        if spawned.is_err() {
            // Without a thread there are no limits, rather than no disk.
            let mut s = self.state.lock();
            s.running = false;
            let all: Vec<_> = s.queues.iter_mut().flat_map(std::mem::take).collect();
            drop(s);
            all.into_iter().for_each(|(b, p)| b.submit_parked(p));
        }
    }

    fn work(&self) {
        crate::pool::block_signals();
        let mut s = self.state.lock();
        let mut turn = 0;
        loop {
            s.leak();
            let mut next: Option<Duration> = None;
            let mut ready = None;
            for i in [turn, 1 - turn] {
                let Some((_, p)) = s.queues[i].front() else { continue };
                let len = p.len;
                let wait = if s.open > 0 { Duration::ZERO } else { s.wait(i == 1) };
                if wait.is_zero() {
                    s.count(i == 1, len);
                    ready = s.queues[i].pop_front();
                    turn = 1 - i;
                    break;
                }
                next = Some(next.map_or(wait, |n| n.min(wait)));
            }
            if let Some((b, p)) = ready {
                drop(s);
                b.submit_parked(p);
                s = self.state.lock();
                continue;
            }
            let Some(wait) = next else {
                s.running = false;
                return;
            };
            self.wake.wait_for(&mut s, wait);
        }
    }
}

impl State {
    fn leak(&mut self) {
        let now = Instant::now();
        let dt = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        for (b, l) in self.buckets.iter_mut().zip(&self.limits.buckets) {
            b.level = (b.level - l.avg as f64 * dt).max(0.0);
            if l.length > 1 {
                b.burst = (b.burst - l.max as f64 * dt).max(0.0);
            }
        }
    }

    fn concerned(write: bool) -> [usize; 4] {
        let own = if write { 2 } else { 1 };
        [0, own, 3, 3 + own]
    }

    fn wait(&self, write: bool) -> Duration {
        let mut most = 0.0f64;
        for i in Self::concerned(write) {
            let (b, l) = (&self.buckets[i], &self.limits.buckets[i]);
            if l.avg == 0 {
                continue;
            }
            let size = match l.max {
                0 => l.avg as f64 / 10.0,
                m => m as f64 * l.length as f64,
            };
            most = most.max((b.level - size) / l.avg as f64);
            if l.length > 1 {
                most = most.max((b.burst - l.max as f64 / 10.0) / l.max as f64);
            }
        }
        if most <= 0.0 {
            Duration::ZERO
        } else {
            Duration::from_secs_f64(most.clamp(1e-5, 60.0))
        }
    }

    fn count(&mut self, write: bool, len: u64) {
        let ops = match self.limits.iops_size {
            0 => 1.0,
            n => (len as f64 / n as f64).max(1.0),
        };
        for i in Self::concerned(write) {
            let units = if i < 3 { len as f64 } else { ops };
            self.buckets[i].level += units;
            if self.limits.buckets[i].length > 1 {
                self.buckets[i].burst += units;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(i: usize, avg: u64, max: u64) -> Limits {
        let mut l = Limits::default();
        (l.buckets[i].avg, l.buckets[i].max) = (avg, max);
        l
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(limits(0, 100, 0).check().is_ok());
        assert!(limits(0, 100, 50).check().is_err());
        assert!(limits(0, 0, 50).check().is_err());
        let mut l = limits(0, 100, 0);
        l.buckets[1].avg = 1;
        assert!(l.check().is_err());
    }

    #[test]
    fn buckets_fill_and_leak() {
        let t = Throttle::new("g");
        t.set(limits(3, 100, 0));
        // A tenth of a second's worth, and one more that overflows the bucket.
        let n = (0..50).filter(|_| t.pass(true, 512)).count();
        assert!((10..=12).contains(&n), "{n}");
        assert!(!t.pass(false, 512), "total limits concern reads too");
        t.open(true);
        assert!(t.pass(false, 512));
    }
}
