//! Completions of block requests: worker threads hand them in, the main loop gives them to the devices.

use std::os::fd::AsRawFd;
use std::sync::Arc;

use parking_lot::Mutex;
use rqemu_block::{CompletionSink, IoResult};
use vmm_sys_util::eventfd::{EventFd, EFD_CLOEXEC, EFD_NONBLOCK};

use crate::device::DevId;
use crate::event_loop::{FdHandler, Ready};
use crate::machine::Machine;

#[derive(Default)]
struct Queue {
    done: Mutex<Vec<(DevId, u64, IoResult)>>,
    event: Mutex<Option<EventFd>>,
}

/// The queue, made when the first device asks for it.
#[derive(Default)]
pub struct Completions {
    queue: Option<Arc<Queue>>,
    /// Block jobs are looked after.
    jobs: bool,
}

struct JobEvents(Arc<EventFd>);

impl FdHandler for JobEvents {
    fn ready(&mut self, m: &mut Machine, _ready: Ready) {
        crate::event_loop::drain(self.0.as_raw_fd());
        m.poll_block_jobs();
    }
}

struct Sink {
    queue: Arc<Queue>,
    dev: DevId,
}

impl CompletionSink for Sink {
    fn complete(&self, tag: u64, result: IoResult) {
        let mut done = self.queue.done.lock();
        done.push((self.dev, tag, result));
        if done.len() == 1 {
            if let Some(e) = &*self.queue.event.lock() {
                // The counter cannot overflow: it is drained before the queue is.
                let _ = e.write(1);
            }
        }
    }
}

struct Drain(Arc<Queue>);

impl FdHandler for Drain {
    fn ready(&mut self, m: &mut Machine, _ready: Ready) {
        if let Some(e) = &*self.0.event.lock() {
            crate::event_loop::drain(e.as_raw_fd());
        }
        m.deliver_completions();
    }
}

impl Machine {
    /// Where block requests of `dev` report; [`crate::device::BlockFrontend::completed`] is called from the main loop.
    pub fn block_sink(&mut self, dev: DevId) -> Arc<dyn CompletionSink> {
        let queue = match &self.completions.queue {
            Some(q) => q.clone(),
            None => {
                let q = Arc::new(Queue::default());
                if let Ok(e) = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC) {
                    // Without a main loop (unit tests) the caller delivers by hand.
                    let _ = self.fds.add(e.as_raw_fd(), false, Box::new(Drain(q.clone())));
                    *q.event.lock() = Some(e);
                }
                self.completions.queue = Some(q.clone());
                q
            }
        };
        Arc::new(Sink { queue, dev })
    }

    /// Gives all arrived completions to their devices.
    pub fn deliver_completions(&mut self) {
        let Some(q) = self.completions.queue.clone() else { return };
        let done = std::mem::take(&mut *q.done.lock());
        for (dev, tag, result) in done {
            self.with_dev(dev, |d, cx| {
                if let Some(b) = d.block() {
                    b.completed(cx, tag, result);
                }
            });
        }
    }

    /// Has the main loop look after block jobs from now on.
    pub fn watch_block_jobs(&mut self) {
        if self.completions.jobs {
            return;
        }
        self.completions.jobs = true;
        let Ok(event) = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC) else { return };
        let event = Arc::new(event);
        let _ = self.fds.add(event.as_raw_fd(), false, Box::new(JobEvents(event.clone())));
        self.block.set_job_notify(Arc::new(move || {
            // Full means that the main loop has not come round yet; it will.
            let _ = event.write(1);
        }));
    }

    /// Carries out what block jobs ask for, and sends their events.
    pub fn poll_block_jobs(&mut self) {
        for (name, data) in self.block.poll_jobs() {
            self.emit(name, Some(data));
        }
    }

    /// Writes the temporary overlays of `snapshot=on` drives back (Ctrl-A s).
    pub fn block_commit_all(&mut self) {
        eprintln!("commit of snapshot drives is not supported");
    }
}
