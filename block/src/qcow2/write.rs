//! Writing: in place, with allocation and copy-on-write, zeroing, discarding.

use super::tables::{decode, Kind, Run, OFLAG_COPIED, OFLAG_ZERO};
use super::{Flight, Freed, Meta, Qcow2};
use crate::error::{Errno, IoResult};
use crate::iov::{self, Iov, Seg};
use parking_lot::MutexGuard;

/// Largest piece that is allocated at a time.
const MAX_ALLOC: u64 = 16 << 20;
/// Largest allocating write that is done on the calling thread.
const MAX_INLINE: u64 = 256 << 10;
/// So many released ranges are kept in memory before metadata is written to let them go.
const MAX_FREED: usize = 1024;

pub(super) enum Step<'a> {
    InPlace { host: u64, n: u64, _flight: Flight<'a> },
    Alloc(Alloc),
}

/// Guest clusters `first..first+n` get the host clusters at `host`.
pub(super) struct Alloc {
    pub(super) first: u64,
    pub(super) n: u64,
    host: u64,
    /// What the first cluster was; the others continue it.
    old: Kind,
    /// The host clusters were allocated for this (and are given back if it fails).
    fresh: bool,
    /// Length of the file at that time: what lies behind reads as zeroes.
    eof: u64,
}

impl Alloc {
    /// End of the host clusters.
    pub(super) fn end(&self, bits: u32) -> u64 {
        self.host + (self.n << bits)
    }
}

/// How clusters are made to read as zeroes.
#[derive(Clone, Copy, PartialEq)]
enum ZeroMode {
    Discard,
    Zero {
        unmap: bool,
    },
    /// As if never written.
    Empty,
}

impl Qcow2 {
    pub(super) fn writev(&self, off: u64, iov: Iov<'_>) -> IoResult {
        let len = iov::total(iov).ok_or(Errno::EINVAL)? as u64;
        let mut done = 0;
        while done < len {
            self.writable()?;
            let n = match self.plan(off + done, len - done)? {
                Step::InPlace { host, n, _flight } => {
                    let part = iov::slice(iov, done as usize, n as usize);
                    self.file.node().wrote(crate::Op::Write { fua: false }, host, n);
                    self.file().writev(host, &part, false)?;
                    n
                }
                Step::Alloc(a) => {
                    let at = off + done;
                    let n = (len - done).min(((a.first + a.n) << self.hdr.geo.cluster_bits) - at);
                    let part = iov::slice(iov, done as usize, n as usize);
                    let written = self.fill(&a, at, &part, n);
                    self.commit(&a, written)?;
                    n
                }
            };
            done += n;
        }
        Ok(())
    }

    /// Decides what happens to the bytes at `at`, reserving clusters if they must be allocated.
    fn plan(&self, at: u64, len: u64) -> Result<Step<'_>, Errno> {
        self.plan_locked(&mut self.meta.lock(), at, len)
    }

    pub(super) fn plan_locked(
        &self,
        meta: &mut MutexGuard<'_, Meta>,
        at: u64,
        len: u64,
    ) -> Result<Step<'_>, Errno> {
        let geo = self.hdr.geo;
        let first = at >> geo.cluster_bits;
        loop {
            self.wait_free(meta, first, first + 1);
            self.writable_table(meta, first)?;
            let (kind, n) = {
                let t = self.tables.read();
                match t.run(at, len.min(MAX_ALLOC)) {
                    Run::Is(kind, n) => {
                        if let Kind::Data { host, copied: true } = kind {
                            let host = host + geo.in_cluster(at);
                            if !t.is_data(host, n) {
                                drop(t);
                                return Err(self.mark_corrupt());
                            }
                            return Ok(Step::InPlace { host, n, _flight: Flight(self, self.enter()) });
                        }
                        (kind, n)
                    }
                    Run::Corrupt => {
                        drop(t);
                        return Err(self.mark_corrupt());
                    }
                    Run::Load(slice) => {
                        drop(t);
                        self.load_slice(meta, slice)?;
                        continue;
                    }
                }
            };
            let last = (at + n - 1) >> geo.cluster_bits;
            let mut want = last - first + 1;
            for (a, _) in meta.reserved.iter().filter(|(a, _)| *a > first) {
                want = want.min(a - first);
            }
            let eof = self.file().len();
            let (host, got, fresh) = match kind {
                Kind::Zero { host, copied: true } if host != 0 => (host, want, false),
                _ => {
                    let (c, n) = self.allocate(&mut meta.rc, want)?;
                    (c << geo.cluster_bits, n, true)
                }
            };
            if !self.tables.read().is_data(host, got << geo.cluster_bits) {
                return Err(self.mark_corrupt());
            }
            meta.reserved.push((first, first + got));
            return Ok(Step::Alloc(Alloc { first, n: got, host, old: kind, fresh, eof }));
        }
    }

    /// Waits until no allocation of clusters in `[a, b)` is under way.
    pub(super) fn wait_free(&self, meta: &mut MutexGuard<'_, Meta>, a: u64, b: u64) {
        while meta.reserved.iter().any(|(x, y)| *x < b && a < *y) {
            self.unreserved.wait(meta);
        }
    }

    /// Writes the data into the new clusters, with what was around them before.
    pub(super) fn fill(&self, a: &Alloc, at: u64, part: Iov<'_>, n: u64) -> IoResult {
        let bits = self.hdr.geo.cluster_bits;
        let start = a.first << bits;
        let end = (a.first + a.n) << bits;
        let (mut head, mut tail) = (vec![0u8; (at - start) as usize], vec![0u8; (end - at - n) as usize]);
        let zero_head = self.read_old(a, start, &mut head)?;
        let zero_tail = self.read_old(a, at + n, &mut tail)?;
        // Fresh clusters behind the end of the file are zero already.
        let blank = a.fresh && a.host >= a.eof;
        let mut list: Vec<Seg> = Vec::with_capacity(part.len() + 2);
        let mut host = a.host;
        if blank && zero_head {
            host += head.len() as u64;
        } else if !head.is_empty() {
            list.push(iov::own(&mut head));
        }
        list.extend_from_slice(part);
        if !(tail.is_empty() || blank && zero_tail) {
            list.push(iov::own(&mut tail));
        }
        let total = iov::total(&list).unwrap_or(0) as u64;
        self.file.node().wrote(crate::Op::Write { fua: false }, host, total);
        self.file().writev(host, &list, false)
    }

    /// Fills `buf` with what a guest reads at `pos` before the change; true if that is known to be zero.
    fn read_old(&self, a: &Alloc, pos: u64, buf: &mut [u8]) -> Result<bool, Errno> {
        if buf.is_empty() {
            return Ok(true);
        }
        let bits = self.hdr.geo.cluster_bits;
        let nth = (pos >> bits) - a.first;
        let kind = match a.old {
            Kind::Data { host, copied } => Kind::Data { host: host + (nth << bits), copied },
            k => k,
        };
        let zero = match kind {
            Kind::Zero { .. } => true,
            Kind::Unallocated => match &*self.backing.load() {
                None => true,
                Some(b) => {
                    let node = b.node();
                    let have = node.len().saturating_sub(pos).min(buf.len() as u64);
                    have == 0 || node.driver().is_zero(pos, have)
                }
            },
            _ => false,
        };
        if !zero {
            let len = buf.len() as u64;
            self.read_kind(kind, pos, &[iov::own(buf)], len)?;
        }
        Ok(zero)
    }

    /// Makes the new clusters visible (or gives them back) and ends the reservation.
    pub(super) fn commit(&self, a: &Alloc, written: IoResult) -> IoResult {
        self.commit_locked(&mut self.meta.lock(), a, written)
    }

    pub(super) fn commit_locked(&self, meta: &mut Meta, a: &Alloc, written: IoResult) -> IoResult {
        let r = written.and_then(|()| self.link(meta, a));
        if r.is_err() && a.fresh && !self.broken.load(std::sync::atomic::Ordering::Acquire) {
            let bits = self.hdr.geo.cluster_bits;
            // Whatever goes wrong here leaks clusters and nothing more.
            let _ = self.release(&mut meta.rc, a.host >> bits, a.n, false);
        }
        let mine = (a.first, a.first + a.n);
        if let Some(i) = meta.reserved.iter().position(|r| *r == mine) {
            meta.reserved.swap_remove(i);
        }
        self.unreserved.notify_all();
        r?;
        self.relieve(meta)
    }

    /// Writes to clusters that are not allocated yet on the calling thread, if that takes nothing but copies into the
    /// page cache: the metadata is at hand and free, and there is nothing to read or to give back. `None`: leave it
    /// to a worker.
    pub(super) fn try_allocate(&self, at: u64, len: u64, iov: Iov<'_>) -> Option<IoResult> {
        if self.file.node().info.cache.direct || len > MAX_INLINE {
            return None;
        }
        let mut meta = self.meta.try_lock()?;
        let bits = self.hdr.geo.cluster_bits;
        let (first, last) = (at >> bits, (at + len - 1) >> bits);
        if meta.reserved.iter().any(|(a, b)| *a <= last && first < *b) || !self.allocates_blindly(at, len) {
            return None;
        }
        let mut done = 0;
        while done < len {
            // Usually once; a fragmented image may take more.
            let a = match self.plan_locked(&mut meta, at + done, len - done) {
                Ok(Step::Alloc(a)) => a,
                Ok(Step::InPlace { .. }) => return Some(Err(Errno::EIO)),
                Err(e) => return Some(Err(e)),
            };
            let n = (len - done).min(((a.first + a.n) << bits) - (at + done));
            let written = self.fill(&a, at + done, &iov::slice(iov, done as usize, n as usize), n);
            if let Err(e) = self.commit_locked(&mut meta, &a, written) {
                return Some(Err(e));
            }
            done += n;
        }
        Some(Ok(()))
    }

    /// True if the range is unallocated, in one loaded slice of a table that is ours alone, and shows zeroes.
    fn allocates_blindly(&self, at: u64, len: u64) -> bool {
        let t = self.tables.read();
        let cluster = at >> self.hdr.geo.cluster_bits;
        let own = t.l1.get(t.split(cluster).0).is_some_and(|e| e & OFLAG_COPIED != 0);
        if !own || t.is_full() || matches!(t.slice_of(cluster), None | Some(0)) {
            return false;
        }
        match t.run(at, len) {
            Run::Is(Kind::Unallocated, n) => n == len && self.no_backing(),
            Run::Is(Kind::Zero { host: 0, .. }, n) => n == len,
            _ => false,
        }
    }

    fn link(&self, meta: &mut Meta, a: &Alloc) -> IoResult {
        let bits = self.hdr.geo.cluster_bits;
        self.need_slice(meta, a.first)?;
        self.dirty.store(true, std::sync::atomic::Ordering::Release);
        let mut t = self.tables.write();
        for i in 0..a.n {
            let value = (a.host + (i << bits)) | OFLAG_COPIED;
            // All clusters of a step are in one slice, which was just made sure of.
            let Some(old) = t.set(a.first + i, value) else { return Err(Errno::EIO) };
            if a.fresh {
                self.let_go(meta, old, false);
            }
        }
        Ok(())
    }

    /// Loads the slice of `cluster` if it is not in the cache.
    pub(super) fn need_slice(&self, meta: &mut Meta, cluster: u64) -> IoResult {
        let at = self.tables.read().slice_of(cluster).ok_or(Errno::EIO)?;
        if at != 0 && self.tables.read().slice(at).is_none() {
            self.load_slice(meta, at)?;
        }
        Ok(())
    }

    /// Notes that an L2 entry no longer refers to its host clusters.
    pub(super) fn let_go(&self, meta: &mut Meta, old: u64, punch: bool) {
        let bits = self.hdr.geo.cluster_bits;
        let punch = if punch { self.pass[0] } else { self.pass[2] };
        let (first, count) = match decode(&self.hdr.geo, self.hdr.version, old) {
            Some(Kind::Data { host, .. } | Kind::Zero { host, .. }) if host != 0 => (host >> bits, 1),
            Some(Kind::Compressed(e)) => {
                let (host, len) = self.compressed_range(e);
                (host >> bits, ((host + len - 1) >> bits) - (host >> bits) + 1)
            }
            _ => return,
        };
        match meta.freed.last_mut() {
            Some(f) if f.first + f.count == first && f.punch == punch && count == 1 => f.count += 1,
            _ => meta.freed.push(Freed { first, count, punch }),
        }
    }

    pub(super) fn relieve(&self, meta: &mut Meta) -> IoResult {
        if meta.freed.len() > MAX_FREED {
            self.write_metadata(meta)?;
        }
        Ok(())
    }

    /// Makes sure that the L2 table of `cluster` exists and belongs to the active image alone.
    pub(super) fn writable_table(&self, meta: &mut Meta, cluster: u64) -> IoResult {
        let bits = self.hdr.geo.cluster_bits;
        let (i1, entry, table) = {
            let t = self.tables.read();
            let (i1, _) = t.split(cluster);
            (i1, t.l1.get(i1).copied().unwrap_or(0), t.table_of(i1))
        };
        let Some(table) = table else { return Err(self.mark_corrupt()) };
        if table != 0 && entry & OFLAG_COPIED != 0 {
            return Ok(());
        }
        let new = self.allocate_contiguous(&mut meta.rc, 1)? << bits;
        let made = if table == 0 {
            self.file().write_zeroes(new, self.cluster(), false)
        } else {
            self.copy_table(table, new)
        };
        if let Err(e) = made {
            self.release(&mut meta.rc, new >> bits, 1, false)?;
            return Err(e);
        }
        self.dirty.store(true, std::sync::atomic::Ordering::Release);
        if table != 0 {
            meta.freed.push(Freed { first: table >> bits, count: 1, punch: false });
        }
        meta.dirty_l1.push(i1);
        let mut t = self.tables.write();
        t.forget(new);
        t.metadata.insert(new >> bits);
        t.l1[i1] = new | OFLAG_COPIED;
        Ok(())
    }

    fn copy_table(&self, from: u64, to: u64) -> IoResult {
        let mut buf = vec![0u8; self.cluster() as usize];
        self.file_read(from, &mut buf)?;
        {
            let t = self.tables.read();
            let step = t.slice_bytes() as usize;
            for at in (0..buf.len()).step_by(step) {
                if let Some(s) = t.slice(from + at as u64) {
                    buf[at..at + step].copy_from_slice(&s.bytes());
                }
            }
        }
        self.file_write(to, &buf)
    }

    pub(super) fn discard(&self, off: u64, len: u64) -> IoResult {
        self.writable()?;
        if self.hdr.version < 3 && !self.no_backing() {
            // Without a zero flag the backing image would show through.
            return Ok(());
        }
        let (a, b) = self.whole_clusters(off, len);
        self.zero_clusters(a, b, ZeroMode::Discard)
    }

    /// Clusters entirely inside the range; the last, partial cluster of the image counts as whole.
    fn whole_clusters(&self, off: u64, len: u64) -> (u64, u64) {
        let bits = self.hdr.geo.cluster_bits;
        let end = off + len;
        let a = off.div_ceil(self.cluster());
        let size = self.size.load(std::sync::atomic::Ordering::Acquire);
        let b = if end == size { end.div_ceil(self.cluster()) } else { end >> bits };
        (a, b.max(a))
    }

    pub(super) fn write_zeroes(&self, off: u64, len: u64, unmap: bool) -> IoResult {
        self.writable()?;
        if len == 0 || self.reads_zero(off, len) && !unmap {
            return Ok(());
        }
        let bits = self.hdr.geo.cluster_bits;
        let (a, b) = self.whole_clusters(off, len);
        if self.hdr.version < 3 || a >= b {
            return self.write_zero_bytes(off, len);
        }
        let (start, end) = (a << bits, (b << bits).min(off + len));
        self.write_zero_bytes(off, start - off)?;
        self.write_zero_bytes(end, off + len - end)?;
        self.zero_clusters(a, b, ZeroMode::Zero { unmap })
    }

    fn write_zero_bytes(&self, off: u64, len: u64) -> IoResult {
        let buf = vec![0u8; len.min(1 << 20) as usize];
        let mut at = 0;
        while at < len {
            let n = (len - at).min(buf.len() as u64);
            if !self.reads_zero(off + at, n) {
                self.writev(off + at, &[iov::own_ro(&buf[..n as usize])])?;
            }
            at += n;
        }
        Ok(())
    }

    fn zero_clusters(&self, mut at: u64, end: u64, mode: ZeroMode) -> IoResult {
        let bits = self.hdr.geo.cluster_bits;
        let per_slice = self.tables.read().slice_entries();
        while at < end {
            let stop = end.min((at | (per_slice - 1)) + 1);
            let mut meta = self.meta.lock();
            self.wait_free(&mut meta, at, stop);
            self.writable()?;
            if self.no_backing() && self.no_table(at) {
                // Nothing is there. Step over all that the missing table would map.
                at = end.min(((at >> self.hdr.geo.l2_bits()) + 1) << self.hdr.geo.l2_bits());
                continue;
            }
            self.writable_table(&mut meta, at)?;
            self.need_slice(&mut meta, at)?;
            self.dirty.store(true, std::sync::atomic::Ordering::Release);
            let mut bad = false;
            {
                let mut t = self.tables.write();
                for c in at..stop {
                    let super::tables::Find::Entry(e) = t.find(c) else { return Err(Errno::EIO) };
                    let Some(kind) = decode(&self.hdr.geo, self.hdr.version, e) else {
                        bad = true;
                        break;
                    };
                    let new = self.zeroed(e, kind, mode);
                    if new == e {
                        continue;
                    }
                    t.set(c, new);
                    if new & super::tables::OFFSET_MASK == 0 {
                        self.let_go(&mut meta, e, mode != ZeroMode::Zero { unmap: false });
                    }
                }
            }
            if bad {
                return Err(self.mark_corrupt());
            }
            self.relieve(&mut meta)?;
            at = stop;
        }
        let _ = bits;
        Ok(())
    }

    /// Lets the clusters of `[start, end)` go, whatever they held: they read as zeroes.
    pub(super) fn zero_range(&self, start: u64, end: u64) -> IoResult {
        let bits = self.hdr.geo.cluster_bits;
        self.zero_clusters(start >> bits, end >> bits, ZeroMode::Discard)
    }

    /// Lets everything go.
    pub(super) fn make_empty(&self) -> IoResult {
        self.writable()?;
        let end = self.size.load(std::sync::atomic::Ordering::Acquire).div_ceil(self.cluster());
        let l2 = 1u64 << self.hdr.geo.l2_bits();
        let mut at = 0;
        while at < end {
            let next = ((at / l2) + 1) * l2;
            if !self.no_table(at) {
                self.zero_clusters(at, next.min(end), ZeroMode::Empty)?;
            }
            at = next;
        }
        self.flush()
    }

    fn no_backing(&self) -> bool {
        self.backing.load().is_none()
    }

    fn no_table(&self, cluster: u64) -> bool {
        self.tables.read().slice_of(cluster) == Some(0)
    }

    /// The entry that makes a cluster read as zeroes.
    fn zeroed(&self, e: u64, kind: Kind, mode: ZeroMode) -> u64 {
        let zero = if self.hdr.version >= 3 { OFLAG_ZERO } else { 0 };
        match (kind, mode) {
            (_, ZeroMode::Empty) => 0,
            (Kind::Unallocated, _) if self.no_backing() => e,
            (Kind::Unallocated | Kind::Compressed(_), _) => zero,
            (Kind::Zero { .. }, ZeroMode::Zero { unmap: false }) => e,
            (Kind::Data { .. }, ZeroMode::Zero { unmap: false }) => e | zero,
            _ => zero,
        }
    }
}
