//! The side of the block layer that devices see.

use crate::driver::{perm, Inline, Op};
use crate::error::{BlockError, Errno, IoResult, Result};
use crate::iov;
use crate::node::{Edge, Node};
use crate::pool::Pool;
use crate::request::{Completion, CompletionSink, Request, Submitted};
use crate::stats::Stats;
use crate::throttle::Throttle;
use arc_swap::ArcSwapOption;
use parking_lot::{Condvar, Mutex};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;

/// What to do about a failed request (`rerror=`, `werror=`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnError {
    /// Tell the guest.
    Report,
    /// Pretend it worked.
    Ignore,
    /// Stop on ENOSPC, else tell the guest.
    #[default]
    Enospc,
    /// Stop the VM; the request is repeated on `cont`.
    Stop,
    /// Device's default (`auto`).
    Auto,
}

impl OnError {
    /// What this policy says about a failed request. A device whose own `rerror`/`werror` property is set uses that,
    /// else the drive's ([`BlockBackend::error_action`]).
    pub fn action(self, is_read: bool, error: Errno) -> ErrorAction {
        match self {
            OnError::Ignore => ErrorAction::Ignore,
            OnError::Stop => ErrorAction::Stop,
            OnError::Report => ErrorAction::Report,
            OnError::Auto if is_read => ErrorAction::Report,
            OnError::Enospc | OnError::Auto if error == Errno::ENOSPC => ErrorAction::Stop,
            OnError::Enospc | OnError::Auto => ErrorAction::Report,
        }
    }
}

/// The decision for one failed request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorAction {
    /// Complete the request as good.
    Ignore,
    /// Complete it as failed.
    Report,
    /// Keep it and stop the VM.
    Stop,
}

/// How a device wants to use the medium; decides permissions and host locks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attach {
    /// The device only reads (CD-ROM, `readonly=on`).
    pub read_only: bool,
    /// `share-rw=on`: others may write at the same time.
    pub share_rw: bool,
    /// The device copes with the medium changing its size (disks do, CD-ROM and floppy do not).
    pub resizable: bool,
}

/// Settings that belong to the drive, not to the node.
#[derive(Clone, Copy, Debug)]
pub struct BackendOpts {
    /// Volatile write cache offered to the guest (`cache.writeback`).
    pub writeback: bool,
    /// `rerror`.
    pub rerror: OnError,
    /// `werror`.
    pub werror: OnError,
    /// The user asked for `readonly=on`.
    pub read_only: bool,
}

impl Default for BackendOpts {
    fn default() -> Self {
        BackendOpts { writeback: true, rerror: OnError::Report, werror: OnError::Enospc, read_only: false }
    }
}

struct Medium {
    node: Arc<Node>,
    edge: Arc<Edge>,
    /// Requests that wait for the graph to change; `None` inside: no longer.
    parked: Option<Mutex<Option<Vec<Parked>>>>,
}

impl Medium {
    fn new(node: Arc<Node>, edge: Edge) -> Medium {
        Medium { node, edge: Arc::new(edge), parked: None }
    }
}

/// A request that has not started.
pub(crate) struct Parked {
    op: Op,
    offset: u64,
    pub(crate) len: u64,
    iov: Box<[iov::Seg]>,
    tag: u64,
    sink: Arc<dyn CompletionSink>,
}

pub(crate) struct Inner {
    name: String,
    medium: ArcSwapOption<Medium>,
    attach: Mutex<Option<(String, Attach)>>,
    wce: AtomicBool,
    opts: BackendOpts,
    pool: Pool,
    pub(crate) stats: Stats,
    throttle: ArcSwapOption<Throttle>,
    unnamed: AtomicBool,
    io_status: std::sync::atomic::AtomicU8,
    in_flight: AtomicUsize,
    drained: (Mutex<()>, Condvar),
}

impl Inner {
    pub(crate) fn begin(&self) {
        self.in_flight.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn end(&self) {
        if self.in_flight.fetch_sub(1, Ordering::AcqRel) == 1 {
            let _g = self.drained.0.lock();
            self.drained.1.notify_all();
        }
    }
}

/// A drive as a device sees it: a medium that may be absent, a write-cache switch, and counters.
///
/// Clones are cheap and share everything. All methods may be called from any thread at any time. `submit` serves
/// what it can on the calling thread without waiting for the host's disk; no lock is held and nothing is allocated for
/// a raw image whose data are in the page cache.
#[derive(Clone)]
pub struct BlockBackend(Arc<Inner>);

impl std::fmt::Debug for BlockBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BlockBackend({:?})", self.0.name)
    }
}

impl BlockBackend {
    pub(crate) fn weak(&self) -> std::sync::Weak<Inner> {
        Arc::downgrade(&self.0)
    }

    pub(crate) fn upgrade(weak: &std::sync::Weak<Inner>) -> Option<BlockBackend> {
        weak.upgrade().map(BlockBackend)
    }

    /// A drive with a name (`-drive id=`; empty for one made for `-device drive=NODE`) and no medium.
    pub(crate) fn new(name: &str, opts: BackendOpts, pool: &Pool) -> BlockBackend {
        BlockBackend(Arc::new(Inner {
            name: name.into(),
            medium: ArcSwapOption::empty(),
            attach: Mutex::new(None),
            wce: AtomicBool::new(opts.writeback),
            opts,
            pool: pool.clone(),
            stats: Stats::default(),
            throttle: ArcSwapOption::empty(),
            unnamed: AtomicBool::new(false),
            io_status: 0.into(),
            in_flight: AtomicUsize::new(0),
            drained: (Mutex::new(()), Condvar::new()),
        }))
    }

    /// `-drive` id, or empty.
    pub fn name(&self) -> &str {
        if self.0.unnamed.load(Ordering::Relaxed) {
            ""
        } else {
            &self.0.name
        }
    }

    /// The drive was deleted, but a device still holds it.
    pub(crate) fn unname(&self) {
        self.0.unnamed.store(true, Ordering::Relaxed);
    }

    /// State after an error that stopped the VM (`io-status`).
    pub fn io_status(&self) -> &'static str {
        ["ok", "failed", "nospace"][usize::from(self.0.io_status.load(Ordering::Relaxed)) % 3]
    }

    /// An error stopped the VM; the first one counts until [`Self::reset_io_status`].
    pub fn set_io_status(&self, error: Errno) {
        let v = if error == Errno::ENOSPC { 2 } else { 1 };
        let _ = self.0.io_status.compare_exchange(0, v, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// The VM continues.
    pub fn reset_io_status(&self) {
        self.0.io_status.store(0, Ordering::Relaxed);
    }

    /// Reads for the program itself: not counted.
    pub fn peek(&self, off: u64, buf: &mut [u8]) -> IoResult {
        let node = self.root().ok_or(Errno::ENOMEDIUM)?;
        let iov = [iov::own(buf)];
        let op = node.admit(Op::Read, off, iov[0].len() as u64, &iov)?;
        node.run(op, off, iov[0].len() as u64, &iov)
    }

    /// True if both handles are the same drive.
    pub fn same(&self, other: &BlockBackend) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Settings of the drive.
    pub fn opts(&self) -> &BackendOpts {
        &self.0.opts
    }

    /// The node that holds the medium.
    pub fn root(&self) -> Option<Arc<Node>> {
        self.0.medium.load().as_ref().map(|m| m.node.clone())
    }

    /// True if there is a medium.
    pub fn has_medium(&self) -> bool {
        self.0.medium.load().is_some()
    }

    /// Size in bytes; 0 without a medium.
    pub fn len(&self) -> u64 {
        self.0.medium.load().as_ref().map_or(0, |m| m.node.len())
    }

    /// True if there is nothing to read.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// True if the medium cannot be written, or the drive was declared read-only.
    pub fn read_only(&self) -> bool {
        self.0.opts.read_only || self.0.medium.load().as_ref().is_some_and(|m| m.node.read_only())
    }

    /// Counters.
    pub fn stats(&self) -> &Stats {
        &self.0.stats
    }

    /// True if the guest sees a volatile write cache.
    pub fn write_cache(&self) -> bool {
        self.0.wce.load(Ordering::Relaxed)
    }

    /// Switches the volatile write cache; off means that each write is stable when it completes. The device must
    /// flush itself before it switches the cache off.
    pub fn enable_write_cache(&self, on: bool) {
        self.0.wce.store(on, Ordering::Relaxed);
    }

    /// A device starts to use the drive. `who` is its id or QOM path, for error texts. Without a medium the wish is
    /// remembered and applied at [`insert`](Self::insert).
    pub fn attach(&self, who: &str, a: Attach) -> Result<()> {
        let mut slot = self.0.attach.lock();
        if slot.is_some() {
            return Err(BlockError::text(format!(
                "Drive '{}' is already in use by another device",
                self.0.name
            )));
        }
        if let Some(m) = &*self.0.medium.load() {
            let (want, shared) = Self::perms(&a);
            m.edge.rename(Self::user(who));
            m.edge.set(want, shared)?;
        }
        *slot = Some((who.into(), a));
        Ok(())
    }

    /// The device is gone.
    pub fn detach(&self) {
        self.drain();
        *self.0.attach.lock() = None;
        if let Some(m) = &*self.0.medium.load() {
            // Giving up cannot conflict.
            let _ = m.edge.set(self.idle_perm(), perm::ALL);
        }
    }

    /// Who uses the drive.
    pub fn attached_to(&self) -> Option<String> {
        self.0.attach.lock().as_ref().map(|(w, _)| w.clone())
    }

    fn user(who: &str) -> String {
        format!("block device '{who}'")
    }

    fn idle_perm(&self) -> u8 {
        // A -drive holds its image open for reading even before a device takes it; an anonymous one has no claim.
        if self.0.name.is_empty() {
            0
        } else {
            perm::READ
        }
    }

    fn perms(a: &Attach) -> (u8, u8) {
        let want = if a.read_only { perm::READ } else { perm::READ | perm::WRITE };
        let mut shared = perm::ALL;
        if !a.share_rw {
            shared &= !perm::WRITE;
        }
        if !a.resizable {
            shared &= !perm::RESIZE;
        }
        (want, shared)
    }

    /// Puts a medium in. Fails if there is one, or if its other users do not allow it.
    pub fn insert(&self, node: &Arc<Node>) -> Result<()> {
        if self.has_medium() {
            return Err(BlockError::text(format!("There already is a medium in device '{}'", self.0.name)));
        }
        let slot = self.0.attach.lock();
        let user = Self::user(slot.as_ref().map_or(self.name(), |(who, _)| who));
        let (want, shared) = match &*slot {
            Some((_, a)) => {
                // A read-only medium in a writable drive is fine (floppy): ask only for what it can give.
                let a = Attach { read_only: a.read_only || node.read_only(), ..*a };
                Self::perms(&a)
            }
            None => (self.idle_perm(), perm::ALL),
        };
        let edge = Edge::new(node, &user, "root", want, shared)?;
        self.0.medium.store(Some(Arc::new(Medium::new(node.clone(), edge))));
        Ok(())
    }

    /// Holds new requests back and waits until none is under way. Ended by [`Self::resume`]; called by the thread that
    /// owns the graph, which also makes all blocking calls.
    pub(crate) fn pause(&self) {
        let Some(m) = self.0.medium.load_full() else { return self.drain() };
        let parked =
            Medium { node: m.node.clone(), edge: m.edge.clone(), parked: Some(Mutex::new(Some(Vec::new()))) };
        drop(m);
        if let Some(old) = self.0.medium.swap(Some(Arc::new(parked))) {
            // Whoever still looks at the old medium may be about to start a request.
            while Arc::strong_count(&old) > 1 {
                std::thread::yield_now();
            }
        }
        self.drain();
    }

    /// Lets requests go on, those held back first, on whatever node is the medium now.
    pub(crate) fn resume(&self) {
        let Some(m) = self.0.medium.load_full() else { return };
        let Some(p) = &m.parked else { return };
        let open = Medium { node: m.node.clone(), edge: m.edge.clone(), parked: None };
        self.0.medium.store(Some(Arc::new(open)));
        let waiting = p.lock().take();
        waiting.into_iter().flatten().for_each(|r| self.start_parked(r));
    }

    /// Exchanges the node under a paused backend. On failure the old one stays.
    pub(crate) fn replace_root(&self, new: &Arc<Node>) -> Result<()> {
        let Some(m) = self.0.medium.load_full() else { return Ok(()) };
        let slot = self.0.attach.lock();
        let user = Self::user(slot.as_ref().map_or(self.name(), |(who, _)| who));
        let (want, shared) = match &*slot {
            Some((_, a)) => Self::perms(&Attach { read_only: a.read_only || new.read_only(), ..*a }),
            None => (self.idle_perm(), perm::ALL),
        };
        let edge = Edge::new(new, &user, "root", want, shared)?;
        if let Some(waiting) = &m.parked {
            let list = waiting.lock().take().unwrap_or_default();
            let next =
                Medium { node: new.clone(), edge: Arc::new(edge), parked: Some(Mutex::new(Some(list))) };
            self.0.medium.store(Some(Arc::new(next)));
        } else {
            self.0.medium.store(Some(Arc::new(Medium::new(new.clone(), edge))));
        }
        Ok(())
    }

    /// Gives up (`true`) or takes back what the device's use of the medium asks of its node, so that the graph can be
    /// changed in between.
    pub(crate) fn relax(&self, on: bool) -> Result<()> {
        let Some(m) = self.0.medium.load_full() else { return Ok(()) };
        if on {
            return m.edge.set(0, perm::ALL);
        }
        match &*self.0.attach.lock() {
            Some((_, a)) => {
                let (want, shared) =
                    Self::perms(&Attach { read_only: a.read_only || m.node.read_only(), ..*a });
                m.edge.set(want, shared)
            }
            None => m.edge.set(self.idle_perm(), perm::ALL),
        }
    }

    /// Takes the medium out, after all requests on it have ended; returns its node.
    pub fn eject(&self) -> Option<Arc<Node>> {
        let m = self.0.medium.swap(None);
        if let Some(old) = &m {
            // Whoever still looks at it may be about to start a request.
            while Arc::strong_count(old) > 1 {
                std::thread::yield_now();
            }
        }
        self.drain();
        m.map(|m| m.node.clone())
    }

    /// Waits until no pending request is left. The caller must have stopped submitting.
    pub fn drain(&self) {
        let throttle = self.throttle();
        if let Some(t) = &throttle {
            t.open(true);
        }
        self.wait_idle();
        if let Some(t) = &throttle {
            t.open(false);
        }
    }

    fn wait_idle(&self) {
        let mut g = self.0.drained.0.lock();
        while self.0.in_flight.load(Ordering::Acquire) != 0 {
            self.0.drained.1.wait(&mut g);
        }
    }

    /// Pending requests.
    pub fn in_flight(&self) -> usize {
        self.0.in_flight.load(Ordering::Acquire)
    }

    /// Starts a request. See [`Submitted`]; the segments' memory must live as [`crate::Seg::new`] says.
    pub fn submit(&self, req: Request<'_>, sink: &Arc<dyn CompletionSink>) -> Submitted {
        if let Some(t) = &*self.0.throttle.load() {
            let write = req.op != Op::Read;
            if req.op != Op::Flush && !t.pass(write, req.len) {
                let Request { op, offset, len, iov, tag } = req;
                self.0.begin();
                t.queue(
                    self.clone(),
                    write,
                    Parked { op, offset, len, iov: iov.into(), tag, sink: sink.clone() },
                );
                return Submitted::Pending;
            }
        }
        self.submit_now(req, sink)
    }

    /// Runs a request to its end from a thread that is not the graph's.
    pub(crate) fn wait(&self, op: Op, offset: u64, len: u64, iov: iov::Iov<'_>) -> IoResult {
        struct Waiter(Mutex<Option<IoResult>>, Condvar);
        impl CompletionSink for Waiter {
            fn complete(&self, _tag: u64, result: IoResult) {
                *self.0.lock() = Some(result);
                self.1.notify_all();
            }
        }
        let waiter = Arc::new(Waiter(Mutex::new(None), Condvar::new()));
        let sink: Arc<dyn CompletionSink> = waiter.clone();
        match self.submit(Request { op, offset, len, iov, tag: 0 }, &sink) {
            Submitted::Done(r) => r,
            Submitted::Pending => {
                let mut slot = waiter.0.lock();
                loop {
                    if let Some(r) = slot.take() {
                        return r;
                    }
                    waiter.1.wait(&mut slot);
                }
            }
        }
    }

    /// Starts a request that has waited for its turn.
    pub(crate) fn submit_parked(&self, r: Parked) {
        self.start_parked(r);
        self.0.end();
    }

    fn start_parked(&self, r: Parked) {
        let req = Request { op: r.op, offset: r.offset, len: r.len, iov: &r.iov, tag: r.tag };
        if let Submitted::Done(result) = self.submit_now(req, &r.sink) {
            r.sink.complete(r.tag, result);
        }
    }

    /// Limits of the drive.
    pub fn throttle(&self) -> Option<Arc<Throttle>> {
        self.0.throttle.load_full()
    }

    /// Puts the drive under limits, or frees it.
    pub(crate) fn set_throttle(&self, t: Option<Arc<Throttle>>) {
        if let Some(old) = self.0.throttle.swap(t) {
            // What waits there goes out.
            old.open(true);
            self.drain();
            old.open(false);
        }
    }

    fn submit_now(&self, req: Request<'_>, sink: &Arc<dyn CompletionSink>) -> Submitted {
        let started = self.0.stats.start();
        let medium = self.0.medium.load();
        let Some(m) = &*medium else { return self.fail(req, started, Errno::ENOMEDIUM) };
        if let Some(p) = &m.parked {
            if let Some(list) = &mut *p.lock() {
                let Request { op, offset, len, iov, tag } = req;
                list.push(Parked { op, offset, len, iov: iov.into(), tag, sink: sink.clone() });
                return Submitted::Pending;
            }
            drop(medium);
            return self.submit_now(req, sink);
        }
        let wanted = self.effective(req.op);
        let op = match m.node.admit(wanted, req.offset, req.len, req.iov) {
            Ok(op) if op == Op::Read || !self.0.opts.read_only || op == Op::Flush => op,
            Ok(_) => return self.fail(req, started, Errno::EPERM),
            Err(e) => return self.fail(req, started, e),
        };
        if let Inline::Done(r) = m.node.try_inline(op, req.offset, req.len, req.iov) {
            self.0.stats.done(op, req.len, started, r);
            return Submitted::Done(r);
        }
        let c = Completion::new(m.node.clone(), &req, op, sink, &self.0, started);
        if let Err(c) = m.node.try_queue(req.offset, c) {
            self.0.pool.push(c);
        }
        Submitted::Pending
    }

    fn fail(&self, req: Request<'_>, started: crate::stats::Started, e: Errno) -> Submitted {
        self.0.stats.done(req.op, req.len, started, Err(e));
        Submitted::Done(Err(e))
    }

    /// Adds FUA when the write cache is off.
    fn effective(&self, op: Op) -> Op {
        let through = !self.write_cache();
        match op {
            Op::Write { fua } => Op::Write { fua: fua || through },
            Op::WriteZeroes { unmap, fua } => Op::WriteZeroes { unmap, fua: fua || through },
            other => other,
        }
    }

    /// Holds submissions to an asynchronous engine back until [`unplug`](Self::unplug): a device calls the pair around
    /// a batch of `submit`s, so that the batch costs one system call.
    pub fn plug(&self) {
        if let Some(m) = &*self.0.medium.load() {
            m.node.driver().plug(true);
        }
    }

    /// Ends a batch.
    pub fn unplug(&self) {
        if let Some(m) = &*self.0.medium.load() {
            m.node.driver().plug(false);
        }
    }

    fn blocking(&self, op: Op, off: u64, len: u64, iov: iov::Iov<'_>) -> IoResult {
        let started = self.0.stats.start();
        let run = || {
            let node = self.root().ok_or(Errno::ENOMEDIUM)?;
            let op = node.admit(self.effective(op), off, len, iov)?;
            if self.0.opts.read_only && !matches!(op, Op::Read | Op::Flush) {
                return Err(Errno::EPERM);
            }
            node.run(op, off, len, iov)
        };
        let r = run();
        self.0.stats.done(op, len, started, r);
        r
    }

    /// Reads on this thread, waiting for the host.
    pub fn read_at(&self, off: u64, buf: &mut [u8]) -> IoResult {
        self.blocking(Op::Read, off, buf.len() as u64, &[iov::own(buf)])
    }

    /// Writes on this thread, waiting for the host.
    pub fn write_at(&self, off: u64, buf: &[u8]) -> IoResult {
        self.blocking(Op::Write { fua: false }, off, buf.len() as u64, &[iov::own_ro(buf)])
    }

    /// Makes all completed writes stable.
    pub fn flush(&self) -> IoResult {
        self.blocking(Op::Flush, 0, 0, &[])
    }

    /// Gives a range back (advisory).
    pub fn discard(&self, off: u64, len: u64) -> IoResult {
        self.blocking(Op::Discard, off, len, &[])
    }

    /// Makes a range read as zeroes.
    pub fn write_zeroes(&self, off: u64, len: u64, unmap: bool) -> IoResult {
        self.blocking(Op::WriteZeroes { unmap, fua: false }, off, len, &[])
    }

    /// True if discards have an effect (`discard=unmap`).
    pub fn discard_enabled(&self) -> bool {
        self.0.medium.load().as_ref().is_some_and(|m| m.node.info.unmap)
    }

    /// Changes the size of the medium (`block_resize`).
    pub fn resize(&self, len: u64) -> Result<()> {
        let node =
            self.root().ok_or_else(|| BlockError::text(format!("Device '{}' has no medium", self.0.name)))?;
        node.truncate(len)
    }

    /// What `rerror`/`werror` say about a failed request.
    pub fn error_action(&self, is_read: bool, error: Errno) -> ErrorAction {
        if is_read { self.0.opts.rerror } else { self.0.opts.werror }.action(is_read, error)
    }
}
