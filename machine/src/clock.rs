//! Clocks and timers.
//!
//! The virtual clock counts nanoseconds while the guest runs and stands still while it is stopped. Device timers
//! are deadlines on it (or on the host's real-time clock), kept in one queue that the main loop serves.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::device::DevId;

/// Which clock a timer runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ClockKind {
    /// Time as the guest lives it.
    Virtual,
    /// Monotonic time of the host, also while stopped.
    Realtime,
}

/// Virtual time as any thread may read it, without a lock.
///
/// One word holds it all: twice the offset to host time, plus one while it runs; twice the time itself while it stands.
pub struct VirtualClock {
    base: Instant,
    word: AtomicI64,
}

impl Default for VirtualClock {
    fn default() -> Self {
        Self { base: Instant::now(), word: AtomicI64::new(0) }
    }
}

impl VirtualClock {
    fn host(&self) -> i64 {
        self.base.elapsed().as_nanos() as i64
    }

    /// Nanoseconds of virtual time.
    pub fn now(&self) -> i64 {
        let w = self.word.load(Ordering::SeqCst);
        (w >> 1) + if w & 1 != 0 { self.host() } else { 0 }
    }

    /// Whether it runs.
    pub fn running(&self) -> bool {
        self.word.load(Ordering::SeqCst) & 1 != 0
    }

    /// Lets it run.
    pub fn start(&self) {
        if !self.running() {
            let offset = self.now() - self.host();
            self.word.store(offset << 1 | 1, Ordering::SeqCst);
        }
    }

    /// Stops it.
    pub fn stop(&self) {
        self.word.store(self.now() << 1, Ordering::SeqCst);
    }

    /// Sets the time.
    pub fn set(&self, ns: i64) {
        let w = if self.running() { (ns - self.host()) << 1 | 1 } else { ns << 1 };
        self.word.store(w, Ordering::SeqCst);
    }
}

/// The clocks.
#[derive(Default)]
pub struct Clock {
    shared: Arc<VirtualClock>,
    manual: bool,
}

impl Clock {
    /// Virtual time in nanoseconds.
    pub fn virtual_ns(&self) -> i64 {
        self.shared.now()
    }

    /// The virtual clock, for threads without the machine lock.
    pub fn shared(&self) -> Arc<VirtualClock> {
        self.shared.clone()
    }

    /// Monotonic host time in nanoseconds since the machine was made.
    pub fn realtime_ns(&self) -> i64 {
        self.shared.host()
    }

    /// Time of the given clock.
    pub fn now(&self, kind: ClockKind) -> i64 {
        match kind {
            ClockKind::Virtual => self.virtual_ns(),
            ClockKind::Realtime => self.realtime_ns(),
        }
    }

    /// Host wall-clock time in nanoseconds since 1970.
    pub fn host_ns(&self) -> i64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as i64)
    }

    /// Lets virtual time run.
    pub fn resume(&mut self) {
        if !self.manual {
            self.shared.start();
        }
    }

    /// Stops virtual time.
    pub fn stop(&mut self) {
        self.shared.stop();
    }

    /// Virtual time advances only by [`Self::set_virtual`] from now on (qtest).
    pub fn set_manual(&mut self) {
        self.shared.stop();
        self.manual = true;
    }

    /// Whether virtual time is driven by hand.
    pub fn is_manual(&self) -> bool {
        self.manual
    }

    /// Sets virtual time (qtest, loading state).
    pub fn set_virtual(&mut self, ns: i64) {
        self.shared.set(ns);
    }
}

/// Names a timer: its device and the device's number for it.
pub type TimerKey = (DevId, u32);

/// Pending timers.
#[derive(Default)]
pub struct Timers {
    queue: BTreeMap<(ClockKind, i64, u64), TimerKey>,
    armed: HashMap<TimerKey, (ClockKind, i64, u64)>,
    seq: u64,
}

impl Timers {
    /// Arms, re-arms or (with `None`) disarms a timer. `true` if it is now the next one on its clock.
    pub fn set(&mut self, key: TimerKey, at: Option<(ClockKind, i64)>) -> bool {
        if let Some(old) = self.armed.remove(&key) {
            self.queue.remove(&old);
        }
        let Some((kind, ns)) = at else { return false };
        self.seq += 1;
        let k = (kind, ns, self.seq);
        self.armed.insert(key, k);
        self.queue.insert(k, key);
        self.next(kind) == Some(ns)
    }

    /// Deadline of a timer.
    pub fn deadline(&self, key: TimerKey) -> Option<i64> {
        self.armed.get(&key).map(|k| k.1)
    }

    /// Earliest deadline on a clock.
    pub fn next(&self, kind: ClockKind) -> Option<i64> {
        self.queue.range((kind, i64::MIN, 0)..=(kind, i64::MAX, u64::MAX)).next().map(|(k, _)| k.1)
    }

    /// Takes one timer of a clock that expired at or before `now`.
    pub fn pop(&mut self, kind: ClockKind, now: i64) -> Option<TimerKey> {
        let (k, key) =
            self.queue.range((kind, i64::MIN, 0)..=(kind, now, u64::MAX)).next().map(|(k, v)| (*k, *v))?;
        self.queue.remove(&k);
        self.armed.remove(&key);
        Some(key)
    }

    /// Forgets all timers of a device.
    pub fn remove_device(&mut self, dev: DevId) {
        let keys: Vec<_> = self.armed.keys().filter(|k| k.0 == dev).copied().collect();
        for k in keys {
            self.set(k, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_rearm() {
        let mut t = Timers::default();
        let (a, b) = ((DevId(1), 0), (DevId(1), 1));
        assert!(t.set(a, Some((ClockKind::Virtual, 100))));
        assert!(t.set(b, Some((ClockKind::Virtual, 50))));
        assert!(!t.set(a, Some((ClockKind::Virtual, 60))));
        assert_eq!(t.pop(ClockKind::Virtual, 49), None);
        assert_eq!(t.pop(ClockKind::Virtual, 70), Some(b));
        assert_eq!(t.pop(ClockKind::Virtual, 70), Some(a));
        assert_eq!(t.next(ClockKind::Virtual), None);
    }

    #[test]
    fn manual_clock_stands_still() {
        let mut c = Clock::default();
        c.set_manual();
        c.resume();
        assert_eq!(c.virtual_ns(), 0);
        c.set_virtual(5);
        assert_eq!(c.virtual_ns(), 5);
    }
}
