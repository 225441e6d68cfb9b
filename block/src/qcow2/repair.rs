//! Rebuilding refcounts of an image that was not closed after writing with `lazy_refcounts=on`.
//!
//! L1 and L2 tables of such an image are right; only refcounts are stale. They are counted anew from the tables and
//! corrected before the dirty bit is cleared. An image where that is not enough is left untouched and refused.

use super::header::{INCOMPAT_DIRTY, MAX_L1_BYTES};
use super::tables::{decode, Kind, OFFSET_MASK};
use super::{Meta, Qcow2};
use crate::error::{BlockError, Errno, Result};

/// Most clusters that are counted: bounds memory at 256 MiB.
const MAX_CLUSTERS: u64 = 64 << 20;

struct Counts(Vec<u32>);

impl Counts {
    fn add(&mut self, first: u64, n: u64) -> Result<(), Errno> {
        for c in first..first.checked_add(n).ok_or(Errno::EIO)? {
            let slot = usize::try_from(c).ok().and_then(|c| self.0.get_mut(c)).ok_or(Errno::EIO)?;
            *slot = slot.checked_add(1).ok_or(Errno::EIO)?;
        }
        Ok(())
    }
}

impl Qcow2 {
    /// Repairs a dirty image that is being opened for writing.
    pub(super) fn repair(&self) -> Result<()> {
        let incompatible = self.state.lock().incompatible;
        if incompatible & INCOMPAT_DIRTY == 0 {
            return Ok(());
        }
        let fail = |e: Errno| BlockError::io("Could not repair dirty image", e);
        if self.hdr.bitmaps.is_some() {
            // Their clusters would look like leaks.
            return Err(fail(Errno::ENOTSUP));
        }
        let (snapshot_l1, table) = {
            let st = self.state.lock();
            (st.snapshots.iter().map(super::snapshot::Snap::l1_range).collect::<Vec<_>>(), st.snapshot_table)
        };
        let counts = self.count(&snapshot_l1, table).map_err(fail)?;
        let mut meta = self.meta.lock();
        self.correct(&mut meta, &counts).map_err(fail)?;
        let bits = incompatible & !INCOMPAT_DIRTY;
        self.file_write(72, &bits.to_be_bytes()).and_then(|()| self.barrier()).map_err(fail)
    }

    fn count(&self, snapshot_l1: &[(u64, u64)], table: (u64, u64)) -> Result<Counts, Errno> {
        let geo = self.hdr.geo;
        let clusters = self.file().len().div_ceil(geo.cluster());
        if clusters > MAX_CLUSTERS {
            return Err(Errno(libc::EFBIG));
        }
        let mut n = Counts(vec![0; clusters as usize]);
        let range =
            |a: u64, b: u64| (a >> geo.cluster_bits, b.div_ceil(geo.cluster()) - (a >> geo.cluster_bits));
        let (fixed, l1, l1_bytes) = {
            let t = self.tables.read();
            (t.fixed.clone(), t.l1.clone(), t.l1.len() as u64 * 8)
        };
        debug_assert!(l1_bytes <= MAX_L1_BYTES);
        for (a, b) in fixed {
            let (first, count) = range(a, b);
            n.add(first, count)?;
        }
        if table.1 > table.0 {
            let (first, count) = range(table.0, table.1);
            n.add(first, count)?;
        }
        for e in self.meta.lock().rc.table.iter().filter(|e| **e != 0) {
            n.add(*e >> geo.cluster_bits, 1)?;
        }
        self.count_l1(&l1, &mut n)?;
        for (a, b) in snapshot_l1 {
            let (first, count) = range(*a, *b);
            n.add(first, count)?;
            let mut bytes = vec![0u8; (b - a) as usize];
            self.file_read(*a, &mut bytes)?;
            let l1: Vec<u64> = bytes.chunks_exact(8).map(|c| super::header::be64(c, 0)).collect();
            self.count_l1(&l1, &mut n)?;
        }
        Ok(n)
    }

    fn count_l1(&self, l1: &[u64], n: &mut Counts) -> Result<(), Errno> {
        let snapshots = self.state.lock().snapshots.len() as u64;
        let geo = self.hdr.geo;
        let mut buf = vec![0u8; geo.cluster() as usize];
        for e in l1 {
            let table = e & OFFSET_MASK;
            if table == 0 {
                continue;
            }
            if geo.in_cluster(table) != 0 {
                return Err(Errno::EIO);
            }
            n.add(table >> geo.cluster_bits, 1)?;
            // A table is in each L1 at most once; more would also make the counting endless.
            if u64::from(n.0[(table >> geo.cluster_bits) as usize]) > snapshots + 1 {
                return Err(Errno::EIO);
            }
            self.file_read(table, &mut buf)?;
            for c in buf.chunks_exact(8) {
                match decode(&geo, self.hdr.version, super::header::be64(c, 0)) {
                    Some(Kind::Data { host, .. } | Kind::Zero { host, .. }) if host != 0 => {
                        n.add(host >> geo.cluster_bits, 1)?;
                    }
                    Some(Kind::Compressed(e)) => {
                        let (host, len) = self.compressed_range(e);
                        let first = host >> geo.cluster_bits;
                        n.add(first, ((host + len - 1) >> geo.cluster_bits) - first + 1)?;
                    }
                    Some(_) => {}
                    None => return Err(Errno::EIO),
                }
            }
        }
        Ok(())
    }

    /// Writes the counts where they differ: all rises first, so that a cut in between leaks and never loses.
    fn correct(&self, meta: &mut Meta, counts: &Counts) -> Result<(), Errno> {
        for rise in [true, false] {
            for (c, want) in counts.0.iter().enumerate() {
                let have = self.refcount(&mut meta.rc, c as u64)?;
                let want = u64::from(*want);
                if (rise && have < want) || (!rise && have > want) {
                    self.set_refcount(&mut meta.rc, c as u64, want)?;
                }
            }
            self.write_refcounts(&mut meta.rc)?;
            self.barrier()?;
        }
        Ok(())
    }
}
