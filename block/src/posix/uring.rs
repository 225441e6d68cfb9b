//! io_uring engine: `aio=io_uring`, and `aio=native`, which asks for the same thing (asynchronous direct I/O without a
//! thread per request) and is served by the same ring.
//!
//! One ring per image file. Whoever submits fills the submission queue under a short lock; one thread, started by the
//! first request, waits for completions. A request that the ring answers short or with an error is run again with
//! blocking calls, which either finish it or report the true error.

use super::{Aio, FileDriver, Progress};
use crate::driver::Op;
use crate::error::{BlockError, Errno, Result};
use crate::request::Completion;
use io_uring::{cqueue, opcode, squeue, types, IoUring};
use parking_lot::Mutex;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU32, Ordering::*};
use std::sync::Arc;

const ENTRIES: u32 = 256;
const STOP: u64 = u64::MAX;

struct Pending {
    c: Completion,
    /// End of a write on the host file, for its length.
    end: u64,
    /// Writes that a flush covers.
    generation: u64,
}

#[derive(Default)]
struct Sq {
    slots: Vec<Option<Pending>>,
    free: Vec<usize>,
    running: bool,
    stopped: bool,
}

struct Ring {
    ring: IoUring<squeue::Entry, cqueue::Entry>,
    sq: Mutex<Sq>,
    plugged: AtomicU32,
    progress: Arc<Progress>,
}

/// The engine of one file.
pub(crate) struct Engine(Arc<Ring>);

impl Engine {
    pub(crate) fn new(aio: Aio, progress: Arc<Progress>) -> Result<Engine> {
        let ring = IoUring::builder().build(ENTRIES).map_err(|e| {
            let what = if aio == Aio::IoUring {
                "failed to init linux io_uring ring"
            } else {
                "Unable to use native AIO"
            };
            BlockError::io(what, e)
        })?;
        Ok(Engine(Arc::new(Ring { ring, sq: Mutex::default(), plugged: AtomicU32::new(0), progress })))
    }

    /// Takes the request, or gives it back if the ring cannot serve it.
    pub(crate) fn queue(
        &self,
        f: &FileDriver,
        fd: RawFd,
        off: u64,
        c: Completion,
    ) -> std::result::Result<(), Completion> {
        if c.iov.len() > libc::UIO_MAXIOV as usize {
            return Err(c);
        }
        let fd = types::Fd(fd);
        let n = c.iov.len() as u32;
        // The boxed list does not move when the completion does.
        let list: *const libc::iovec = c.iov.as_ptr().cast();
        let (mut end, mut generation) = (0, 0);
        let entry = match c.op {
            Op::Read => opcode::Readv::new(fd, list, n).offset(off).build(),
            Op::Write { fua } => {
                end = off + c.len;
                let flags = if fua && !f.no_flush { libc::RWF_DSYNC } else { 0 };
                opcode::Writev::new(fd, list, n).offset(off).rw_flags(flags).build()
            }
            Op::Flush => {
                generation = f.progress.write_gen.load(Acquire);
                opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build()
            }
            _ => return Err(c),
        };
        self.0.push(entry, Pending { c, end, generation })
    }

    pub(crate) fn plug(&self, on: bool) {
        if on {
            self.0.plugged.fetch_add(1, AcqRel);
        } else if self.0.plugged.fetch_update(AcqRel, Acquire, |n| n.checked_sub(1)) == Ok(1) {
            let _sq = self.0.sq.lock();
            // A failure leaves the entries queued; the next submission takes them along.
            let _ = self.0.ring.submit();
        }
    }

    /// No more requests; the thread ends when those under way have.
    pub(crate) fn stop(&self) {
        let mut sq = self.0.sq.lock();
        if std::mem::replace(&mut sq.stopped, true) || !sq.running {
            return;
        }
        self.0.place(&opcode::Nop::new().build().user_data(STOP));
        let _ = self.0.ring.submit();
    }
}

impl Ring {
    fn push(self: &Arc<Self>, entry: squeue::Entry, p: Pending) -> std::result::Result<(), Completion> {
        let mut sq = self.sq.lock();
        if sq.stopped {
            return Err(p.c);
        }
        if !sq.running {
            let me = self.clone();
            let spawned = std::thread::Builder::new()
                .name("io_uring".into())
                .stack_size(crate::pool::STACK)
                .spawn(move || me.reap());
            if spawned.is_err() {
                return Err(p.c);
            }
            sq.running = true;
        }
        let slot = sq.free.pop().unwrap_or_else(|| {
            sq.slots.push(None);
            sq.slots.len() - 1
        });
        sq.slots[slot] = Some(p);
        if !self.place(&entry.user_data(slot as u64)) {
            sq.free.push(slot);
            return match sq.slots[slot].take() {
                Some(p) => Err(p.c),
                None => Ok(()),
            };
        }
        if self.plugged.load(Acquire) == 0 {
            // On failure (EAGAIN, EBUSY) the entry stays queued and goes out with the next call or by the reaper.
            let _ = self.ring.submit();
        }
        Ok(())
    }

    /// Puts an entry into the submission queue; the caller holds `sq`.
    fn place(&self, entry: &squeue::Entry) -> bool {
        for _ in 0..3 {
            // SAFETY: the `sq` lock makes us the only user of the submission queue. What the entry points to (the
            // segment list, guest memory, the descriptor) lives in the `Pending` of its slot until it completes.
            if unsafe { self.ring.submission_shared().push(entry) }.is_ok() {
                return true;
            }
            let _ = self.ring.submit();
        }
        false
    }

    fn reap(self: Arc<Self>) {
        crate::pool::block_signals();
        let mut stop = false;
        let mut done: Vec<(u64, i32)> = Vec::new();
        loop {
            // SAFETY: no argument block is passed; waiting does not touch the submission queue.
            let r = unsafe { self.ring.submitter().enter::<libc::sigset_t>(0, 1, libc_getevents(), None) };
            if let Err(e) = r {
                if !matches!(e.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EBUSY)) {
                    return self.give_up(Errno::from(e));
                }
            }
            // SAFETY: this thread is the only user of the completion queue.
            done.extend(unsafe { self.ring.completion_shared() }.map(|c| (c.user_data(), c.result())));
            for (slot, result) in done.drain(..) {
                if slot == STOP {
                    stop = true;
                } else {
                    self.finish(slot as usize, result);
                }
            }
            let sq = self.sq.lock();
            if self.plugged.load(Acquire) == 0 {
                let _ = self.ring.submit();
            }
            if stop && sq.free.len() == sq.slots.len() {
                return;
            }
        }
    }

    fn finish(&self, slot: usize, result: i32) {
        let taken = {
            let mut sq = self.sq.lock();
            let p = sq.slots.get_mut(slot).and_then(Option::take);
            if p.is_some() {
                sq.free.push(slot);
            }
            p
        };
        let Some(p) = taken else { return };
        match p.c.op {
            Op::Flush if result == 0 => {
                self.progress.flushed_gen.fetch_max(p.generation, AcqRel);
                p.c.finish(Ok(()));
            }
            Op::Read if result >= 0 && result as u64 == p.c.len => p.c.finish(Ok(())),
            Op::Write { .. } if result >= 0 && result as u64 == p.c.len => {
                self.progress.wrote(p.end);
                p.c.finish(Ok(()));
            }
            _ => p.c.run(),
        }
    }

    /// The ring is unusable: everything in it fails, and nothing more is taken.
    fn give_up(&self, e: Errno) {
        let mut sq = self.sq.lock();
        sq.stopped = true;
        let all: Vec<Pending> = sq.slots.iter_mut().filter_map(Option::take).collect();
        drop(sq);
        all.into_iter().for_each(|p| p.c.finish(Err(e)));
    }
}

/// `IORING_ENTER_GETEVENTS`.
fn libc_getevents() -> u32 {
    1
}
