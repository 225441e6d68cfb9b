//! The bounded worker pool for blocking host calls. No thread exists until the first request needs one, and threads
//! that find nothing to do for a while end.

use crate::error::Errno;
use crate::request::Completion;
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// Most threads at a time: as many requests as a disk usefully overlaps.
const MAX_WORKERS: usize = 64;
/// How long an idle worker lives.
const IDLE: Duration = Duration::from_secs(10);

/// Address space of a worker's stack; a read may descend a long backing chain.
pub(crate) const STACK: usize = 2 << 20;

struct State {
    queue: VecDeque<Completion>,
    workers: usize,
    idle: usize,
}

/// Handle to a pool; clones share it.
#[derive(Clone)]
pub(crate) struct Pool(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

impl Pool {
    pub(crate) fn new() -> Pool {
        Pool(Arc::new(Shared {
            state: Mutex::new(State { queue: VecDeque::new(), workers: 0, idle: 0 }),
            wake: Condvar::new(),
        }))
    }

    /// Runs `job` on a worker. If the host refuses a first thread, the request fails with `EAGAIN`.
    pub(crate) fn push(&self, job: Completion) {
        let mut st = self.0.state.lock();
        st.queue.push_back(job);
        if st.idle >= st.queue.len() {
            self.0.wake.notify_one();
            return;
        }
        if st.workers >= MAX_WORKERS {
            return;
        }
        st.workers += 1;
        drop(st);
        let shared = self.0.clone();
        let spawned =
            std::thread::Builder::new().name("worker".into()).stack_size(STACK).spawn(move || shared.work());
        if spawned.is_err() {
            let mut st = self.0.state.lock();
            st.workers -= 1;
            // Another worker will come round to the queue; with none at all nobody would.
            let orphans = if st.workers == 0 { std::mem::take(&mut st.queue) } else { VecDeque::new() };
            drop(st);
            orphans.into_iter().for_each(|c| c.finish(Err(Errno(libc::EAGAIN))));
        }
    }
}

impl Shared {
    fn work(&self) {
        block_signals();
        let mut st = self.state.lock();
        loop {
            if let Some(job) = st.queue.pop_front() {
                drop(st);
                job.run();
                st = self.state.lock();
                continue;
            }
            st.idle += 1;
            let timed_out = self.wake.wait_for(&mut st, IDLE).timed_out();
            st.idle -= 1;
            if timed_out && st.queue.is_empty() {
                st.workers -= 1;
                return;
            }
        }
    }
}

/// Signals belong to the main loop, not to helper threads.
pub(crate) fn block_signals() {
    // SAFETY: `set` is initialised by sigfillset before use; the call changes this thread's mask only.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigfillset(&mut set);
        libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
    }
}
