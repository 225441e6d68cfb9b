//! I/O threads: one OS thread that serves queues as their kicks arrive.
//!
//! After work was done the thread may look at its queues for a short while before it sleeps, with notifications
//! switched off: a guest that sends its next request within that time pays neither for a kick nor for waking a
//! thread. Whether that is worth it is learned from how long the waits turn out to be, so that an idle or slow guest
//! costs nothing.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token, Waker};
use parking_lot::Mutex;
use vmm_sys_util::eventfd::EventFd;

/// Something that an I/O thread serves.
pub trait Source: Send + Sync {
    /// Whether there is work (cheap, called in a loop).
    fn poll(&self) -> bool;
    /// Does all work there is, notifications off. Returns whether there was any.
    fn run(&self) -> bool;
    /// Requests in flight on other threads.
    fn in_flight(&self) -> u32 {
        0
    }
    /// Switches notifications on before a sleep. Returns whether work came in meanwhile.
    fn arm(&self) -> bool;
}

const WAKE: Token = Token(usize::MAX);
/// Longest time that the thread for everybody looks before sleeping.
const DEFAULT_LOOK_NS: u64 = 64_000;
/// A wait shorter than this might have been caught by looking (a kick and a wake-up take most of it).
const SHORT: Duration = Duration::from_micros(250);
/// Without credit one look in so many wake-ups finds out whether looking pays after all: on a busy host the time that a
/// wake-up takes hides how soon the guest sends its next request.
const PROBE: u32 = 16;
const MAX_CREDIT: i32 = 8;
const MIN_CREDIT: i32 = -8;

struct Sources {
    map: BTreeMap<usize, Arc<dyn Source>>,
    next: usize,
    stop: bool,
}

/// A running I/O thread.
pub struct IoThread {
    sources: Mutex<Sources>,
    /// Counts changes of `sources`.
    version: AtomicU64,
    registry: Registry,
    waker: Waker,
    /// Longest look before sleeping, in nanoseconds; 0: none.
    look_ns: AtomicU64,
    /// Thread id of the host, 0 until the thread runs.
    tid: AtomicI32,
}

/// Handle of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceId(usize);

impl IoThread {
    /// Starts a thread called `name`, which looks at queues for up to `look_ns` nanoseconds before it sleeps.
    pub fn spawn(name: &str, look_ns: u64) -> io::Result<Arc<Self>> {
        let epoll = Poll::new()?;
        let registry = epoll.registry().try_clone()?;
        let waker = Waker::new(&registry, WAKE)?;
        let t = Arc::new(Self {
            sources: Mutex::new(Sources { map: BTreeMap::new(), next: 0, stop: false }),
            version: AtomicU64::new(0),
            registry,
            waker,
            look_ns: AtomicU64::new(if looking_pays() { look_ns } else { 0 }),
            tid: AtomicI32::new(0),
        });
        let me = t.clone();
        std::thread::Builder::new().name(name.to_string()).spawn(move || me.main(epoll))?;
        Ok(t)
    }

    /// Serves `source` whenever `kick` is signalled (and once soon).
    pub fn add(&self, kick: &EventFd, source: Arc<dyn Source>) -> io::Result<SourceId> {
        let id = {
            let mut s = self.sources.lock();
            let id = s.next;
            s.next += 1;
            s.map.insert(id, source);
            id
        };
        // Edge-triggered: every signal wakes the thread and the counter need not be drained.
        self.registry.register(&mut SourceFd(&kick.as_raw_fd()), Token(id), Interest::READABLE)?;
        self.changed();
        Ok(SourceId(id))
    }

    /// Stops serving a source. It may still be running on return; a source that must not has its own lock.
    pub fn remove(&self, kick: &EventFd, id: SourceId) {
        // Fails only if it was never registered.
        let _ = self.registry.deregister(&mut SourceFd(&kick.as_raw_fd()));
        self.sources.lock().map.remove(&id.0);
        self.changed();
    }

    /// Whether the thread may look at queues before it sleeps.
    pub fn set_look_ns(&self, look_ns: u64) {
        self.look_ns.store(if looking_pays() { look_ns } else { 0 }, Ordering::Relaxed);
    }

    /// Thread id of the host (waits for the thread to start).
    pub fn thread_id(&self) -> i32 {
        loop {
            match self.tid.load(Ordering::Acquire) {
                0 => std::thread::yield_now(),
                id => return id,
            }
        }
    }

    /// Ends the thread after its present round.
    pub fn stop(&self) {
        self.sources.lock().stop = true;
        self.changed();
    }

    fn changed(&self) {
        self.version.fetch_add(1, Ordering::AcqRel);
        // An error would mean that the descriptor is gone, and the thread with it.
        let _ = self.waker.wake();
    }

    fn main(&self, mut epoll: Poll) {
        // SAFETY: no arguments, cannot fail.
        self.tid.store(unsafe { libc::gettid() }, Ordering::Release);
        let mut events = Events::with_capacity(64);
        let mut list: Vec<Arc<dyn Source>> = Vec::new();
        let mut version = u64::MAX;
        let mut credit = 0;
        let mut wakes = 0u32;
        let mut last_work = Instant::now();
        loop {
            let now = self.version.load(Ordering::Acquire);
            if now != version {
                version = now;
                let s = self.sources.lock();
                if s.stop {
                    return;
                }
                list = s.map.values().cloned().collect();
            }
            if list.iter().filter(|s| s.run()).count() > 0 {
                last_work = Instant::now();
            }
            // A guest that waits for its only request sends none meanwhile, and the thread that serves it needs a
            // processor more than a look does.
            let alone = || list.iter().map(|s| s.in_flight()).sum::<u32>() == 1;
            let window = Duration::from_nanos(self.look_ns.load(Ordering::Relaxed));
            let probe = credit <= 0 && wakes % PROBE == PROBE - 1;
            if (credit > 0 || probe) && last_work.elapsed() < window && !alone() {
                if self.look(&list, version, window) {
                    credit = (credit.max(0) + 1).min(MAX_CREDIT);
                    continue;
                }
                credit -= if probe { 0 } else { 2 };
            }
            if list.iter().filter(|s| s.arm()).count() > 0 {
                continue;
            }
            match epoll.poll(&mut events, None) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
                Ok(()) => {}
            }
            wakes = wakes.wrapping_add(1);
            let step = if last_work.elapsed() < SHORT { 1 } else { -1 };
            credit = (credit + step).clamp(MIN_CREDIT, MAX_CREDIT);
        }
    }

    /// Looks for work until some comes (`true`) or the time is over.
    fn look(&self, list: &[Arc<dyn Source>], version: u64, window: Duration) -> bool {
        let end = Instant::now() + window;
        loop {
            for _ in 0..8 {
                if list.iter().any(|s| s.poll()) {
                    return true;
                }
                std::hint::spin_loop();
            }
            if self.version.load(Ordering::Relaxed) != version || Instant::now() >= end {
                return false;
            }
        }
    }
}

/// With a single processor looking only keeps the guest from running.
fn looking_pays() -> bool {
    std::thread::available_parallelism().is_ok_and(|n| n.get() > 1)
}

/// The I/O threads of a machine: those made by `-object iothread`, and one for devices without `iothread=`.
#[derive(Default)]
pub struct IoThreads {
    named: BTreeMap<String, Arc<IoThread>>,
    default: Option<Arc<IoThread>>,
}

impl IoThreads {
    /// Makes a thread for an object.
    pub fn add(&mut self, id: &str, look_ns: u64) -> io::Result<Arc<IoThread>> {
        let t = IoThread::spawn(&format!("IO {id}"), look_ns)?;
        self.named.insert(id.to_string(), t.clone());
        Ok(t)
    }

    /// The thread of an object.
    pub fn get(&self, id: &str) -> Option<Arc<IoThread>> {
        self.named.get(id).cloned()
    }

    /// Forgets the thread of an object that was deleted. A device that still uses it keeps it running.
    pub fn remove(&mut self, id: &str) {
        // One reference is `t`, the other the thread's own.
        if let Some(t) = self.named.remove(id).filter(|t| Arc::strong_count(t) <= 2) {
            t.stop();
        }
    }

    /// The thread for everybody else, started on first use.
    pub fn default_thread(&mut self) -> io::Result<Arc<IoThread>> {
        match &self.default {
            Some(t) => Ok(t.clone()),
            None => Ok(self.default.insert(IoThread::spawn("virtio", DEFAULT_LOOK_NS)?).clone()),
        }
    }
}

impl Drop for IoThreads {
    fn drop(&mut self) {
        self.named.values().chain(&self.default).for_each(|t| t.stop());
    }
}
