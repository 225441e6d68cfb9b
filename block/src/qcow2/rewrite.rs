//! What jobs ask for: where data come from, filling from the backing image, changing the header's backing name.

use super::tables::{Kind, Run, OFLAG_ZERO};
use super::write::Step;
use super::Qcow2;
use crate::driver::Status;
use crate::error::{BlockError, Errno, IoResult, Result};
use crate::iov;
use std::sync::atomic::Ordering::Release;

/// Most bytes that are filled at a time.
const MAX_FILL: u64 = 1 << 20;

impl Qcow2 {
    pub(super) fn block_status(&self, off: u64, len: u64) -> Result<(Status, u64), Errno> {
        let (kind, n, _flight) = self.locate(off, len)?;
        let inside = self.hdr.geo.in_cluster(off);
        let none = Status::default();
        Ok((
            match kind {
                Kind::Unallocated => Status { zero: self.backing.load().is_none(), ..none },
                Kind::Zero { host, .. } => {
                    let host = (host != 0).then_some(host + inside);
                    Status { zero: true, allocated: true, host, ..none }
                }
                Kind::Data { host, .. } => {
                    Status { data: true, allocated: true, host: Some(host + inside), ..none }
                }
                Kind::Compressed(_) => Status { data: true, allocated: true, compressed: true, ..none },
            },
            n,
        ))
    }

    /// Copies what the backing image shows into clusters that are not allocated. Guest writes at the same time are
    /// safe: each cluster is looked at again under the lock that decides who allocates it.
    pub(super) fn populate(&self, off: u64, len: u64) -> IoResult {
        self.writable()?;
        let bits = self.hdr.geo.cluster_bits;
        let size = self.size.load(std::sync::atomic::Ordering::Acquire);
        let (mut at, end) = (off >> bits << bits, (off + len).min(size));
        while at < end {
            let (kind, n) = {
                let (kind, n, _flight) = self.locate(at, (end - at).min(MAX_FILL))?;
                (kind, n)
            };
            if kind == Kind::Unallocated {
                // Whole clusters, except at the end of the medium.
                let n = n.div_ceil(self.cluster()) * self.cluster();
                self.fill_from_backing(at, n.min(size - at))?;
                at += n;
            } else {
                at = ((at + n) >> bits << bits).max(at + 1).max((at + n).min(end));
            }
        }
        Ok(())
    }

    pub(super) fn preallocate_range(&self, from: u64, to: u64) -> IoResult {
        self.writable()?;
        let mut at = from;
        while at < to {
            let mut meta = self.meta.lock();
            match self.plan_locked(&mut meta, at, (to - at).min(16 << 20))? {
                Step::InPlace { n, .. } => at += n,
                Step::Alloc(a) => {
                    at = (a.first + a.n) << self.hdr.geo.cluster_bits;
                    let end = a.end(self.hdr.geo.cluster_bits);
                    // The file must reach the last cluster's end.
                    if self.file().len() < end {
                        self.file().truncate(end).map_err(|_| Errno::EIO)?;
                    }
                    self.commit_locked(&mut meta, &a, Ok(()))?;
                }
            }
        }
        self.flush()
    }

    fn fill_from_backing(&self, at: u64, len: u64) -> IoResult {
        let Some(backing) = self.backing.load_full() else { return Ok(()) };
        let mut buf = vec![0u8; len as usize];
        backing.node().read_padded(at, &[iov::own(&mut buf)])?;
        let zero = self.hdr.version >= 3 && buf.iter().all(|b| *b == 0);
        let bits = self.hdr.geo.cluster_bits;
        let mut done = 0;
        while done < len {
            let pos = at + done;
            let cluster = pos >> bits;
            let mut meta = self.meta.lock();
            self.wait_free(&mut meta, cluster, cluster + 1);
            self.writable_table(&mut meta, cluster)?;
            self.need_slice(&mut meta, cluster)?;
            let run = self.tables.read().run(pos, len - done);
            let n = match run {
                Run::Is(Kind::Unallocated, n) => n,
                Run::Is(_, n) => {
                    done += n;
                    continue;
                }
                Run::Load(_) => continue,
                Run::Corrupt => return Err(self.mark_corrupt()),
            };
            if zero {
                let clusters = n.div_ceil(self.cluster());
                let mut t = self.tables.write();
                self.dirty.store(true, Release);
                let free = (0..clusters)
                    .take_while(|i| !meta.reserved.iter().any(|(a, b)| (*a..*b).contains(&(cluster + i))));
                let count = free.filter_map(|i| t.set(cluster + i, OFLAG_ZERO)).count() as u64;
                done += (count << bits).min(n).max(1);
                continue;
            }
            let Step::Alloc(a) = self.plan_locked(&mut meta, pos, n)? else { continue };
            drop(meta);
            let n = n.min(((a.first + a.n) << bits) - pos);
            let part = &buf[done as usize..(done + n) as usize];
            let written = self.fill(&a, pos, &[iov::own_ro(part)], n);
            self.commit(&a, written)?;
            done += n;
        }
        Ok(())
    }

    /// Rewrites the header with another backing image's name and format.
    pub(super) fn change_backing_name(&self, name: Option<(&str, &str)>) -> Result<()> {
        let fail = |e| BlockError::io("Could not update qcow2 header", e);
        self.writable().map_err(fail)?;
        let c = self.cluster() as usize;
        let mut old = vec![0u8; c];
        self.file_read(0, &mut old).map_err(fail)?;
        let new = super::header::with_backing(&old, self.hdr.version, name)?;
        let _meta = self.meta.lock();
        self.file_write(0, &new).and_then(|()| self.barrier()).map_err(fail)?;
        let mut st = self.state.lock();
        st.backing_file = name.map(|n| n.0.to_owned());
        st.backing_format = name.map(|n| n.1.to_owned()).filter(|f| !f.is_empty());
        Ok(())
    }
}

/// Allocates host clusters for everything in `[from, to)` of a new image, without writing data.
pub(crate) fn preallocate(node: &crate::Node, from: u64, to: u64) -> IoResult {
    node.driver().preallocate_range(from, to)
}
