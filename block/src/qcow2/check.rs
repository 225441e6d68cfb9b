//! Consistency check: counts every reference and compares with the refcounts and COPIED flags; repairs if asked.

use super::header::be64;
use super::tables::{decode, Kind, OFFSET_MASK, OFLAG_COMPRESSED, OFLAG_COPIED};
use super::{Meta, Qcow2};
use crate::driver::{CheckReport, Repair};
use crate::error::{BlockError, Errno, Result};

/// Most clusters that are counted: bounds memory at 256 MiB.
const MAX_CLUSTERS: u64 = 64 << 20;

struct Counter<'a> {
    q: &'a Qcow2,
    counts: Vec<u32>,
    r: CheckReport,
}

impl Counter<'_> {
    fn add(&mut self, first: u64, n: u64) {
        for c in first..first.saturating_add(n) {
            match usize::try_from(c).ok().and_then(|c| self.counts.get_mut(c)) {
                Some(v) => *v = v.saturating_add(1),
                None => {
                    self.r.say(format!("ERROR: cluster {c} is behind the end of the image"));
                    self.r.check_errors += 1;
                    return;
                }
            }
        }
    }

    fn range(&mut self, a: u64, b: u64) {
        let bits = self.q.hdr.geo.cluster_bits;
        self.add(a >> bits, b.div_ceil(1 << bits) - (a >> bits));
    }

    /// Counts what an L1 table refers to; `active` tables are also described in the report.
    fn l1(&mut self, l1: &[u64], active: bool) -> Result<(), Errno> {
        let geo = self.q.hdr.geo;
        let bits = geo.cluster_bits;
        let mut buf = vec![0u8; geo.cluster() as usize];
        let mut next = 0;
        for e in l1 {
            let table = e & OFFSET_MASK;
            if table == 0 {
                continue;
            }
            if geo.in_cluster(table) != 0 {
                self.r.say(format!(
                    "ERROR l2_offset={table:x}: Table is not cluster aligned; L1 entry corrupted"
                ));
                self.r.corruptions += 1;
                continue;
            }
            self.add(table >> bits, 1);
            self.q.file_read(table, &mut buf)?;
            for c in buf.chunks_exact(8) {
                let v = be64(c, 0);
                match decode(&geo, self.q.hdr.version, v) {
                    Some(Kind::Data { host, .. } | Kind::Zero { host, .. }) if host != 0 => {
                        self.add(host >> bits, 1);
                        if active {
                            self.r.allocated += 1;
                            self.r.fragmented += u64::from(next != 0 && host != next);
                            next = host + geo.cluster();
                        }
                    }
                    Some(Kind::Compressed(e)) => {
                        let (host, len) = self.q.compressed_range(e);
                        let first = host >> bits;
                        self.add(first, ((host + len - 1) >> bits) - first + 1);
                        if active {
                            self.r.allocated += 1;
                            self.r.compressed += 1;
                            self.r.fragmented += 1;
                        }
                    }
                    Some(_) => {}
                    None => {
                        self.r.say(format!(
                            "ERROR offset={:x}: Cluster is not properly aligned; L2 entry corrupted.",
                            v & OFFSET_MASK
                        ));
                        self.r.corruptions += 1;
                    }
                }
            }
        }
        Ok(())
    }
}

impl Qcow2 {
    /// Checks the image. It must be open for writing to be repaired, and no requests may be under way.
    pub(super) fn check(&self, fix: Repair) -> Result<CheckReport> {
        let fail = |e: Errno| BlockError::text(format!("Check failed: {e}"));
        let clusters = self.file().len().div_ceil(self.cluster());
        if clusters > MAX_CLUSTERS {
            return Err(fail(Errno(libc::EFBIG)));
        }
        let mut c = Counter { q: self, counts: vec![0; clusters as usize], r: CheckReport::default() };
        c.r.total = self.size.load(std::sync::atomic::Ordering::Acquire).div_ceil(self.cluster());
        self.count_all(&mut c).map_err(fail)?;
        let Counter { counts, mut r, .. } = c;
        let mut meta = self.meta.lock();
        self.load_for_check(&mut meta)?;
        self.compare(&mut meta, &counts, &mut r, fix).map_err(fail)?;
        self.flags(&mut meta, &mut r, fix).map_err(fail)?;
        if fix != Repair::None {
            self.write_refcounts(&mut meta.rc).and_then(|()| self.barrier()).map_err(fail)?;
        }
        let last = counts.iter().rposition(|v| *v > 0).map_or(0, |i| i as u64 + 1);
        r.image_end = last * self.cluster();
        Ok(r)
    }

    fn load_for_check(&self, meta: &mut Meta) -> Result<()> {
        if !meta.rc.table.is_empty() {
            return Ok(());
        }
        let (at, n) = (meta.rc.table_offset, meta.rc.table_clusters * self.cluster());
        let bytes = super::open::read_at(self.file.node(), at, n, "reference count table")?;
        meta.rc.table = super::open::be64s(&bytes);
        Ok(())
    }

    fn count_all(&self, c: &mut Counter<'_>) -> Result<(), Errno> {
        let (fixed, l1) = {
            let t = self.tables.read();
            (t.fixed.clone(), t.l1.clone())
        };
        fixed.iter().for_each(|(a, b)| c.range(*a, *b));
        let (snaps, table, other) = {
            let st = self.state.lock();
            (st.snapshots.clone(), st.snapshot_table, st.other.clone())
        };
        if table.1 > table.0 {
            c.range(table.0, table.1);
        }
        other.iter().for_each(|(a, b)| c.range(*a, *b));
        let (at, n) = {
            let meta = self.meta.lock();
            (meta.rc.table_offset, meta.rc.table_clusters * self.cluster())
        };
        let mut buf = vec![0u8; n as usize];
        self.file_read(at, &mut buf)?;
        for e in super::open::be64s(&buf) {
            if e != 0 {
                c.add(e >> self.hdr.geo.cluster_bits, 1);
            }
        }
        c.l1(&l1, true)?;
        for s in &snaps {
            let (a, b) = s.l1_range();
            c.range(a, b);
            let mut bytes = vec![0u8; (b - a) as usize];
            self.file_read(a, &mut bytes)?;
            c.l1(&super::open::be64s(&bytes), false)?;
        }
        Ok(())
    }

    fn compare(
        &self,
        meta: &mut Meta,
        counts: &[u32],
        r: &mut CheckReport,
        fix: Repair,
    ) -> Result<(), Errno> {
        // All rises before all falls: a cut in between leaks and never loses.
        for rise in [true, false] {
            for (i, want) in counts.iter().enumerate() {
                let (have, want) = (self.refcount(&mut meta.rc, i as u64)?, u64::from(*want));
                let (repair, what) = match have.cmp(&want) {
                    std::cmp::Ordering::Less if rise => (fix == Repair::All, "ERROR"),
                    std::cmp::Ordering::Greater if !rise => (fix != Repair::None, "Leaked"),
                    _ => continue,
                };
                let verb = if repair { "Repairing" } else { what };
                r.say(format!("{verb} cluster {i} refcount={have} reference={want}"));
                let (found, fixed) = match rise {
                    true => (&mut r.corruptions, &mut r.corruptions_fixed),
                    false => (&mut r.leaks, &mut r.leaks_fixed),
                };
                if repair {
                    self.set_refcount(&mut meta.rc, i as u64, want)?;
                    *fixed += 1;
                } else {
                    *found += 1;
                }
            }
            if fix != Repair::None {
                self.write_refcounts(&mut meta.rc)?;
                self.barrier()?;
            }
        }
        Ok(())
    }

    fn flags(&self, meta: &mut Meta, r: &mut CheckReport, fix: Repair) -> Result<(), Errno> {
        let bits = self.hdr.geo.cluster_bits;
        let l1 = self.tables.read().l1.clone();
        let before = r.corruptions;
        let repair = fix == Repair::All;
        let verb = if repair { "Repairing" } else { "ERROR" };
        let mut buf = vec![0u8; self.cluster() as usize];
        for (i, e) in l1.iter().enumerate() {
            let at = e & OFFSET_MASK;
            if at == 0 || self.hdr.geo.in_cluster(at) != 0 {
                continue;
            }
            let n = self.refcount(&mut meta.rc, at >> bits)?;
            if (n == 1) != (e & OFLAG_COPIED != 0) {
                r.say(format!("{verb} OFLAG_COPIED L2 cluster: l1_index={i} l1_entry={e:x} refcount={n}"));
                r.corruptions += 1;
            }
            self.file_read(at, &mut buf)?;
            for c in buf.chunks_exact(8) {
                let v = be64(c, 0);
                if v & OFLAG_COMPRESSED != 0 {
                    if v & OFLAG_COPIED != 0 {
                        r.say(format!("{verb} OFLAG_COPIED data cluster: l2_entry={v:x} refcount=0"));
                        r.corruptions += 1;
                    }
                    continue;
                }
                if v & OFFSET_MASK == 0 {
                    continue;
                }
                let n = self.refcount(&mut meta.rc, (v & OFFSET_MASK) >> bits)?;
                if (n == 1) != (v & OFLAG_COPIED != 0) {
                    r.say(format!("{verb} OFLAG_COPIED data cluster: l2_entry={v:x} refcount={n}"));
                    r.corruptions += 1;
                }
            }
        }
        if repair && r.corruptions > before {
            self.fix_copied(meta)?;
            r.corruptions_fixed += r.corruptions - before;
            r.corruptions = before;
        }
        Ok(())
    }
}
