//! The hot path: takes requests from a queue, runs them, gives them back. No machine lock, and no allocation for
//! requests that the host can serve at once.
//!
//! Lock order: `take`, then one of the queue's halves or `flight` at a time.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::{Condvar, Mutex};
use rqemu_block::{BlockBackend, CompletionSink, Errno, IoResult, Op, Request, Seg, Submitted};

use super::super::iothread::Source;
use super::super::queue::{Chain, Queue, QueueError, Span, MAX_BURST};
use super::super::shared::Shared;
use super::request::{self, Limits, Status, Task, HEADER};
use crate::memory::FlatMaps;

/// Completions after which the guest is told while more requests wait.
const BATCH: u32 = 16;

/// A request in flight.
struct Slot {
    head: u16,
    /// Writable bytes, as the used ring reports them.
    written: u32,
    status: Span,
    op: Op,
    /// Keeps the guest memory of the request mapped.
    _memory: Option<Arc<FlatMaps>>,
}

impl Slot {
    fn new(chain: &Chain, op: Op) -> Option<Self> {
        Some(Self {
            head: chain.head,
            written: u32::try_from(chain.writable.total()).unwrap_or(u32::MAX),
            status: chain.writable.last_byte()?,
            op,
            _memory: chain.snapshot.clone(),
        })
    }
}

/// A request that failed and waits for a decision.
pub struct Failed {
    slot: Slot,
    /// Why.
    pub error: Errno,
}

impl Failed {
    /// For the error policy.
    pub fn is_read(&self) -> bool {
        self.slot.op == Op::Read
    }
}

#[derive(Default)]
struct Flight {
    slots: Vec<Option<Slot>>,
    free: Vec<u16>,
    busy: u32,
    failed: Vec<Failed>,
}

impl Flight {
    fn insert(&mut self, slot: Slot) -> u16 {
        self.busy += 1;
        if let Some(i) = self.free.pop() {
            self.slots[usize::from(i)] = Some(slot);
            return i;
        }
        self.slots.push(Some(slot));
        (self.slots.len() - 1) as u16
    }

    fn take(&mut self, i: u16) -> Option<Slot> {
        let s = self.slots.get_mut(usize::from(i))?.take();
        if s.is_some() {
            self.free.push(i);
        }
        s
    }
}

/// Buffers of the thread that takes requests.
#[derive(Default)]
struct Take {
    chain: Chain,
    segs: Vec<Seg>,
}

/// A queue of a disk, in service from [`BlkQueue::new`] to [`BlkQueue::quiesce`].
pub struct BlkQueue {
    me: Weak<Self>,
    queue: Arc<Queue>,
    backend: BlockBackend,
    limits: Limits,
    serial: Arc<[u8]>,
    shared: Arc<Shared>,
    live: AtomicBool,
    /// Copy of `Flight::busy` for a look without the lock.
    busy: AtomicU32,
    take: Mutex<Take>,
    flight: Mutex<Flight>,
    idle: Condvar,
}

impl BlkQueue {
    /// Puts a queue into service.
    pub fn new(
        queue: Arc<Queue>,
        backend: BlockBackend,
        limits: Limits,
        serial: Arc<[u8]>,
        shared: Arc<Shared>,
    ) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            queue,
            backend,
            limits,
            serial,
            shared,
            live: AtomicBool::new(true),
            busy: AtomicU32::new(0),
            take: Mutex::default(),
            flight: Mutex::default(),
            idle: Condvar::new(),
        })
    }

    /// Its number.
    pub fn index(&self) -> u16 {
        self.queue.index
    }

    fn is_live(&self) -> bool {
        self.live.load(Ordering::Acquire)
    }

    /// Serves what waits, notifications off. Returns whether there was anything; the guest is interrupted if it wants.
    fn serve(&self) -> bool {
        let mut t = self.take.lock();
        if !self.is_live() {
            return false;
        }
        let Some(me) = self.me.upgrade() else { return false };
        let sink: Arc<dyn CompletionSink> = me;
        let (mut any, mut finished, mut plugged) = (false, 0, false);
        self.queue.avail.lock().set_notify(false);
        // Whoever called looks again; other queues get their turn in between.
        for _ in 0..MAX_BURST {
            if !self.is_live() {
                break;
            }
            let (popped, more) = {
                let mut a = self.queue.avail.lock();
                (a.pop(&mut t.chain), a.seen() > 0)
            };
            match popped {
                Ok(true) => {}
                Ok(false) => break,
                Err(e) => {
                    self.fail(e);
                    break;
                }
            }
            any = true;
            if more && !plugged {
                self.backend.plug();
                plugged = true;
            }
            finished += u32::from(self.request(&mut t, &sink));
            if finished >= BATCH {
                finished = 0;
                self.interrupt();
            }
        }
        if plugged {
            self.backend.unplug();
        }
        drop(t);
        if finished > 0 {
            self.interrupt();
        }
        any
    }

    /// Serves until nothing waits and leaves notifications on (service without an I/O thread).
    pub fn serve_all(&self) {
        // The guest can keep adding requests from another processor: give the caller its turn after a while.
        for _ in 0..64 {
            self.serve();
            if !self.arm() {
                return;
            }
        }
    }

    /// Runs the request in `t.chain`; `true` if it is finished.
    fn request(&self, t: &mut Take, sink: &Arc<dyn CompletionSink>) -> bool {
        let chain = &t.chain;
        let Some(task) = request::parse(chain, &self.limits, self.backend.len()) else {
            self.fail(QueueError::Header);
            return false;
        };
        let (op, offset, len) = match task {
            Task::Io { op, offset, len } => (op, offset, len),
            Task::GetId => {
                request::write_id(chain, &self.serial);
                return self.done(chain, Status::Ok);
            }
            Task::Done(s) => return self.done(chain, s),
        };
        t.segs.clear();
        let (spans, from) = match op {
            Op::Read => (Some(&chain.writable), 0),
            Op::Write { .. } => (Some(&chain.readable), HEADER),
            _ => (None, 0),
        };
        let segs = &mut t.segs;
        if let Some(s) = spans {
            s.pieces(from, len as usize, |ptr, n| {
                // SAFETY: guest RAM, kept mapped by the snapshot in the request's slot until it has completed.
                segs.push(unsafe { Seg::new(ptr, n) });
            });
        }
        let Some(slot) = Slot::new(chain, op) else { return false };
        let tag = {
            let mut f = self.flight.lock();
            if f.busy >= u32::from(self.queue.layout.size) {
                drop(f);
                self.fail(QueueError::InUse);
                return false;
            }
            let tag = f.insert(slot);
            self.busy.store(f.busy, Ordering::Relaxed);
            tag
        };
        let req = Request { op, offset, len, iov: &t.segs, tag: u64::from(tag) };
        match self.backend.submit(req, sink) {
            Submitted::Done(r) => self.ended(tag, r),
            Submitted::Pending => false,
        }
    }

    /// Gives a request back that never was in flight.
    fn done(&self, chain: &Chain, status: Status) -> bool {
        match Slot::new(chain, Op::Flush) {
            Some(s) => {
                self.push(&s, status);
                true
            }
            None => false,
        }
    }

    /// The block layer is done with request `tag`. `true` if it was given back.
    fn ended(&self, tag: u16, result: IoResult) -> bool {
        let Some(slot) = self.flight.lock().take(tag) else { return false };
        match result {
            Ok(()) => {
                self.push(&slot, Status::Ok);
                self.retire();
                true
            }
            Err(error) => {
                {
                    let mut f = self.flight.lock();
                    f.failed.push(Failed { slot, error });
                }
                self.retire();
                self.shared.attention();
                false
            }
        }
    }

    /// One request fewer in flight. Nothing of it touches guest memory after this.
    fn retire(&self) {
        let mut f = self.flight.lock();
        f.busy -= 1;
        self.busy.store(f.busy, Ordering::Relaxed);
        if f.busy == 0 && !self.is_live() {
            self.idle.notify_all();
        }
    }

    fn push(&self, slot: &Slot, status: Status) {
        slot.status.write_u8(status as u8);
        let pushed = self.queue.used.lock().push(slot.head, slot.written);
        if let Err(e) = pushed {
            self.fail(e);
        }
    }

    /// Gives a failed request back.
    pub fn finish(&self, f: Failed, status: Status) {
        self.push(&f.slot, status);
        self.interrupt();
    }

    /// Takes the requests that failed since the last call.
    pub fn take_failed(&self) -> Vec<Failed> {
        std::mem::take(&mut self.flight.lock().failed)
    }

    /// Runs a request again that failed before a stop.
    pub fn retry(&self, f: &Failed) {
        let Some(me) = self.me.upgrade() else { return };
        let sink: Arc<dyn CompletionSink> = me;
        let mut t = self.take.lock();
        let read = self.queue.avail.lock().again(f.slot.head, &mut t.chain);
        match read {
            Ok(()) => {
                if self.request(&mut t, &sink) {
                    self.interrupt();
                }
            }
            Err(e) => self.fail(e),
        }
    }

    /// Interrupts the guest if it wants to hear of what was given back.
    fn interrupt(&self) {
        let drained = self.queue.used.lock().features().notify_on_empty
            && self.flight.lock().busy == 0
            && !self.queue.avail.lock().has_work();
        if self.queue.used.lock().should_interrupt(drained) {
            self.shared.interrupt(self.index());
        }
    }

    fn fail(&self, e: QueueError) {
        self.live.store(false, Ordering::Release);
        self.shared.fail(e);
    }

    /// Ends service: on return nothing is in flight and nobody touches guest memory for this queue.
    pub fn quiesce(&self) {
        self.live.store(false, Ordering::Release);
        // Whoever is serving has finished when the lock is free.
        drop(self.take.lock());
        let mut f = self.flight.lock();
        while f.busy != 0 {
            self.idle.wait(&mut f);
        }
    }

    /// Lets guest memory go (after [`Self::quiesce`]).
    pub fn close(&self) {
        let mut t = self.take.lock();
        *t = Take::default();
    }
}

impl CompletionSink for BlkQueue {
    fn complete(&self, tag: u64, result: IoResult) {
        if self.ended(tag as u16, result) {
            self.interrupt();
        }
    }
}

impl Source for BlkQueue {
    fn poll(&self) -> bool {
        self.is_live() && self.queue.avail.lock().has_work()
    }

    fn run(&self) -> bool {
        self.serve()
    }

    fn in_flight(&self) -> u32 {
        self.busy.load(Ordering::Relaxed)
    }

    fn arm(&self) -> bool {
        if !self.is_live() {
            return false;
        }
        let mut a = self.queue.avail.lock();
        a.set_notify(true);
        a.has_work()
    }
}
