//! Format driver `qcow2`: our own engine for version 2 and 3 images.
//!
//! Lock order: [`Meta`] mutex, then [`Tables`] lock. `Tables` is never held across I/O; `Meta` is held across metadata
//! I/O but not across guest data I/O. A look-up that finds its entry in the cache takes `Tables` shared and nothing
//! else.
//!
//! **Write order** (a cut at any instant leaves an image that `check` finds clean or leaking, never corrupt): data and
//! refcount blocks, barrier, refcount table entries, barrier, L2 entries, barrier, L1 entries. Clusters that an L2
//! change let go are released only when that change is stable and no transfer that might still use them is under way.
//!
//! **Concurrency.** A transfer to a cluster that is already allocated runs without locks under an in-flight count.
//! Allocating writes reserve their guest clusters; others that need the same clusters wait.

mod bitmaps;
mod check;
mod close;
mod compress;
mod create;
mod header;
mod open;
mod read;
mod refcount;
mod repair;
mod resize;
mod rewrite;
mod snapshot;
mod tables;
mod write;

#[cfg(test)]
mod powercut;

pub(crate) use create::{create, CreateOpts};
pub(crate) use open::{open, read_header, OpenOpts, DEFAULT_L2_CACHE};
pub(crate) use rewrite::preallocate;

use crate::bitmap::DirtyBitmap;
use crate::driver::{perm, DataGuard, Driver, GuardRef, ImageFacts, Inline, Op, Snapshots, Status};
use crate::error::{BlockError, Errno, IoResult, Result};
use crate::iov::{self, Iov};
use crate::node::Edge;
use crate::request::Completion;
use arc_swap::ArcSwapOption;
use header::Header;
use parking_lot::{Condvar, Mutex, RwLock};
use refcount::Refcounts;
use serde_json::{json, Value};
use snapshot::Snap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::*};
use std::sync::Arc;
use tables::{Kind, Run, Tables};

fn corrupt(s: &str) -> BlockError {
    BlockError::text(format!("qcow2: {s}"))
}

/// Clusters an L2 change let go.
#[derive(Clone, Copy)]
pub(crate) struct Freed {
    first: u64,
    count: u64,
    /// Give the host space back too.
    punch: bool,
}

/// Everything that only writers need, under one mutex.
pub(crate) struct Meta {
    rc: Refcounts,
    /// L1 entries that were changed in memory only.
    dirty_l1: Vec<usize>,
    l1_offset: u64,
    /// Guest cluster ranges whose allocation is under way.
    reserved: Vec<(u64, u64)>,
    /// Let go since the last metadata write.
    freed: Vec<Freed>,
    /// Let go, stable, waiting for transfers of the epoch before.
    draining: Vec<Freed>,
}

/// An open image.
pub(crate) struct Qcow2 {
    hdr: Header,
    file: Edge,
    backing: ArcSwapOption<Edge>,
    read_only: AtomicBool,
    size: AtomicU64,
    tables: RwLock<Tables>,
    meta: Mutex<Meta>,
    /// A reservation ended.
    unreserved: Condvar,
    /// Transfers under way, by parity of the epoch they began in.
    inflight: [AtomicUsize; 2],
    epoch: AtomicUsize,
    /// Metadata in memory differs from the file.
    dirty: AtomicBool,
    broken: AtomicBool,
    closed: AtomicBool,
    /// Whether freed space goes back to the host: on guest discards, with snapshots, otherwise.
    pass: [bool; 3],
    state: Mutex<HdrState>,
}

/// What of the header changes while the image is open.
pub(crate) struct HdrState {
    incompatible: u64,
    autoclear: u64,
    backing_file: Option<String>,
    backing_format: Option<String>,
    snapshots: Vec<Snap>,
    /// Host range of the snapshot table.
    snapshot_table: (u64, u64),
    /// Host ranges of bitmaps.
    other: Vec<(u64, u64)>,
    /// Persistent bitmaps.
    bitmaps: Vec<Arc<DirtyBitmap>>,
}

/// The driver around the shared image.
pub(crate) struct Qcow2Driver(pub(crate) Arc<Qcow2>);

impl DataGuard for Qcow2 {
    fn release(&self, token: u32) {
        self.inflight[token as usize & 1].fetch_sub(1, AcqRel);
    }
}

/// In-flight registration of a blocking transfer.
pub(crate) struct Flight<'a>(&'a Qcow2, usize);

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        self.0.inflight[self.1].fetch_sub(1, AcqRel);
    }
}

impl Qcow2 {
    fn file(&self) -> &dyn Driver {
        self.file.node().driver()
    }

    fn cluster(&self) -> u64 {
        self.hdr.geo.cluster()
    }

    fn file_read(&self, off: u64, buf: &mut [u8]) -> IoResult {
        self.file().readv(off, &[iov::own(buf)])
    }

    fn file_write(&self, off: u64, buf: &[u8]) -> IoResult {
        self.file.node().pwrite(off, buf)
    }

    /// Everything written before is stable before anything after.
    fn barrier(&self) -> IoResult {
        self.file().flush()
    }

    /// Registers a transfer. Must be called while holding `tables` (shared is enough), so that an epoch change, which
    /// holds it exclusively, is ordered before or after.
    fn enter(&self) -> usize {
        let e = self.epoch.load(Relaxed) & 1;
        self.inflight[e].fetch_add(1, AcqRel);
        e
    }

    /// The image contradicts itself: no more writing, and say so in the header.
    fn mark_corrupt(&self) -> Errno {
        if !self.broken.swap(true, AcqRel) && !self.is_read_only() && self.hdr.version >= 3 {
            let bits = self.state.lock().incompatible | header::INCOMPAT_CORRUPT;
            // Best effort: the refusal to write counts, the mark only informs.
            let _ = self.file_write(72, &bits.to_be_bytes());
            let _ = self.barrier();
        }
        Errno::EIO
    }

    fn is_read_only(&self) -> bool {
        self.read_only.load(Acquire)
    }

    fn writable(&self) -> IoResult {
        if self.is_read_only() {
            return Err(Errno::EPERM);
        }
        if self.broken.load(Acquire) || self.closed.load(Acquire) {
            return Err(Errno::EIO);
        }
        Ok(())
    }

    /// Where a request that needs no metadata I/O and no allocation goes: a host offset with an in-flight token.
    fn direct(&self, op: Op, off: u64, len: u64) -> Option<(u64, usize)> {
        let t = self.tables.read();
        let Run::Is(kind, n) = t.run(off, len) else { return None };
        if n < len {
            return None;
        }
        let inside = self.hdr.geo.in_cluster(off);
        match (op, kind) {
            (Op::Read, Kind::Data { host, .. }) => Some((host + inside, self.enter())),
            (Op::Write { .. }, Kind::Data { host, copied: true }) if t.is_data(host + inside, len) => {
                Some((host + inside, self.enter()))
            }
            _ => None,
        }
    }

    /// The backing image, if it serves the whole range.
    fn falls_through(&self, off: u64, len: u64) -> Option<Arc<Edge>> {
        let b = self.backing.load_full().filter(|b| off + len <= b.node().len())?;
        match self.tables.read().run(off, len) {
            Run::Is(Kind::Unallocated, n) if n == len => Some(b),
            _ => None,
        }
    }

    /// A read that is all zeroes by its mapping alone.
    fn reads_zero(&self, off: u64, len: u64) -> bool {
        let mut at = off;
        let t = self.tables.read();
        while at < off + len {
            match t.run(at, off + len - at) {
                Run::Is(Kind::Zero { .. }, n) => at += n,
                Run::Is(Kind::Unallocated, n) => {
                    if let Some(b) = &*self.backing.load() {
                        let node = b.node();
                        if at < node.len() && !node.driver().is_zero(at, n.min(node.len() - at)) {
                            return false;
                        }
                    }
                    at += n;
                }
                _ => return false,
            }
        }
        true
    }
}

impl Driver for Qcow2Driver {
    fn name(&self) -> &'static str {
        "qcow2"
    }

    fn len(&self) -> u64 {
        self.0.size.load(Acquire)
    }

    fn readv(&self, off: u64, iov: Iov<'_>) -> IoResult {
        self.0.readv(off, iov)
    }

    fn writev(&self, off: u64, iov: Iov<'_>, fua: bool) -> IoResult {
        self.0.writev(off, iov)?;
        if fua {
            self.0.flush()?;
        }
        Ok(())
    }

    fn flush(&self) -> IoResult {
        self.0.flush()
    }

    fn discard(&self, off: u64, len: u64) -> IoResult {
        self.0.discard(off, len)
    }

    fn write_zeroes(&self, off: u64, len: u64, unmap: bool) -> IoResult {
        self.0.write_zeroes(off, len, unmap)
    }

    fn truncate(&self, len: u64) -> Result<()> {
        self.0.resize(len)
    }

    fn try_inline(&self, op: Op, off: u64, iov: Iov<'_>) -> Inline {
        let q = &*self.0;
        match op {
            Op::Flush if !q.dirty.load(Acquire) => q.file().try_inline(op, off, iov),
            Op::Read | Op::Write { fua: false } => {
                let Some(len) = iov::total(iov).map(|n| n as u64) else { return Inline::Punt };
                if op != Op::Read && q.writable().is_err() {
                    return Inline::Punt;
                }
                if let Some((host, e)) = q.direct(op, off, len) {
                    let _flight = Flight(q, e);
                    let r = q.file().try_inline(op, host, iov);
                    if let (Op::Write { .. }, Inline::Done(Ok(()))) = (op, &r) {
                        q.file.node().wrote(op, host, len);
                    }
                    return r;
                }
                if len == 0 {
                    return Inline::Punt;
                }
                if op != Op::Read {
                    return q.try_allocate(off, len, iov).map_or(Inline::Punt, Inline::Done);
                }
                if let Some(b) = q.falls_through(off, len) {
                    return b.node().driver().try_inline(op, off, iov);
                }
                if q.reads_zero(off, len) {
                    iov::zero(iov, 0, len as usize);
                    return Inline::Done(Ok(()));
                }
                Inline::Punt
            }
            _ => Inline::Punt,
        }
    }

    fn try_queue(&self, off: u64, mut c: Completion) -> std::result::Result<(), Completion> {
        let q = &self.0;
        if !matches!(c.op, Op::Read | Op::Write { fua: false }) || (c.op != Op::Read && q.writable().is_err())
        {
            return Err(c);
        }
        match q.direct(c.op, off, c.len) {
            Some((host, e)) => {
                c.guard = Some(GuardRef { guard: q.clone(), token: e as u32 });
                if c.op != Op::Read {
                    q.file.node().wrote(c.op, host, c.len);
                }
                q.file().try_queue(host, c)
            }
            None => Err(c),
        }
    }

    fn plug(&self, on: bool) {
        self.0.file().plug(on);
    }

    fn is_zero(&self, off: u64, len: u64) -> bool {
        self.0.reads_zero(off, len)
    }

    fn close(&self) -> IoResult {
        self.0.close()
    }

    fn set_backing(&self, edge: Option<Edge>) -> Result<()> {
        self.0.backing.store(edge.map(Arc::new));
        Ok(())
    }

    fn share_backing(&self, on: bool) -> Result<()> {
        let shared = if on { perm::ALL } else { perm::ALL & !(perm::WRITE | perm::RESIZE) };
        self.0.backing.load().as_ref().map_or(Ok(()), |b| b.set(perm::READ, shared))
    }

    fn reopen(&self, read_only: bool) -> Result<()> {
        self.0.reopen(read_only)
    }

    fn block_status(&self, off: u64, len: u64) -> Result<(Status, u64), Errno> {
        self.0.block_status(off, len)
    }

    fn preallocate_range(&self, from: u64, to: u64) -> IoResult {
        self.0.preallocate_range(from, to)
    }

    fn populate(&self, off: u64, len: u64) -> IoResult {
        self.0.populate(off, len)
    }

    fn write_compressed(&self, off: u64, buf: &[u8]) -> IoResult {
        self.0.write_compressed(off, buf)
    }

    fn pack(&self, plain: &[u8]) -> Option<Vec<u8>> {
        compress::pack(self.0.hdr.compression == 1, plain)
    }

    fn write_packed(&self, off: u64, packed: &[u8]) -> IoResult {
        self.0.writable()?;
        if self.0.hdr.geo.in_cluster(off) != 0 || packed.len() as u64 >= self.0.cluster() {
            return Err(Errno::EINVAL);
        }
        self.0.write_packed(off, packed)
    }

    fn bitmaps(&self) -> Vec<Arc<DirtyBitmap>> {
        self.0.state.lock().bitmaps.clone()
    }

    fn keep_bitmap(&self, b: &Arc<DirtyBitmap>, keep: bool) -> Result<()> {
        if self.0.hdr.version < 3 {
            return Err(BlockError::text("Cannot store dirty bitmaps in qcow2 v2 files"));
        }
        self.0.writable().map_err(|_| BlockError::text("Bitmap can not be stored in a read-only image"))?;
        let mut st = self.0.state.lock();
        st.bitmaps.retain(|x| !Arc::ptr_eq(x, b));
        if keep {
            st.bitmaps.push(b.clone());
        }
        Ok(())
    }

    fn make_empty(&self) -> IoResult {
        self.0.make_empty()
    }

    fn check(&self, fix: crate::driver::Repair) -> Result<crate::driver::CheckReport> {
        self.0.check(fix)
    }

    fn change_backing_name(&self, name: Option<(&str, &str)>) -> Result<()> {
        self.0.change_backing_name(name)
    }

    fn snapshots(&self) -> Option<&dyn Snapshots> {
        Some(&*self.0)
    }

    fn format_specific(&self) -> Option<Value> {
        let h = &self.0.hdr;
        let mut data = json!({ "compat": if h.version == 2 { "0.10" } else { "1.1" } });
        if let Some(m) = data.as_object_mut() {
            m.insert("compression-type".into(), if h.compression == 1 { "zstd" } else { "zlib" }.into());
            if h.version >= 3 {
                m.insert("lazy-refcounts".into(), (h.compatible & header::COMPAT_LAZY_REFCOUNTS != 0).into());
                m.insert("refcount-bits".into(), (1u32 << h.geo.refcount_order).into());
                let broken = self.0.broken.load(Acquire)
                    || self.0.state.lock().incompatible & header::INCOMPAT_CORRUPT != 0;
                m.insert("corrupt".into(), broken.into());
                m.insert("extended-l2".into(), false.into());
                let list = self.0.bitmap_info();
                if !list.is_empty() {
                    m.insert("bitmaps".into(), list.into());
                }
            } else {
                m.insert("refcount-bits".into(), 16.into());
            }
        }
        Some(json!({"type": "qcow2", "data": data}))
    }

    fn image_facts(&self) -> ImageFacts {
        let h = &self.0.hdr;
        let st = self.0.state.lock();
        ImageFacts {
            cluster_size: Some(h.geo.cluster()),
            dirty: st.incompatible & header::INCOMPAT_DIRTY != 0,
            backing_file: st.backing_file.clone(),
            backing_format: st.backing_format.clone(),
            encrypted: false,
            snapshots: st.snapshots.iter().map(|s| s.info.clone()).collect(),
        }
    }
}
