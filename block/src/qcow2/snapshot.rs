//! Internal snapshots: the table of them, and making, applying and deleting one.
//!
//! A snapshot is a copy of the L1 table; all clusters below it gain a reference. Order on the host, so that a cut
//! leaves at worst leaked clusters:
//! * create: refcounts up, barrier, COPIED flags off and the new L1 and table written, barrier, header;
//! * apply: refcounts up, new L1 written, barrier, header, barrier, refcounts of the old state down, flags;
//! * delete: new table, barrier, header, barrier, refcounts down, barrier, flags.

use super::header::{self, Header};
use super::open::{be64s, read_at};
use super::tables::{decode, Kind, OFFSET_MASK, OFLAG_COMPRESSED, OFLAG_COPIED};
use super::{Meta, Qcow2};
use crate::driver::{SnapshotInfo, Snapshots};
use crate::error::{BlockError, Errno, IoResult, Result};
use crate::iov;
use crate::node::Node;
use std::sync::atomic::Ordering::Acquire;

const MAX_TABLE_BYTES: u64 = 64 << 20;
const MAX_EXTRA: u32 = 1024;
const MAX_SNAPSHOTS: usize = 65536;

/// An entry of the snapshot table.
#[derive(Clone, Debug)]
pub(crate) struct Snap {
    pub info: SnapshotInfo,
    l1_offset: u64,
    l1_size: u32,
    /// Size of the medium at that time, where the image says.
    disk_size: Option<u64>,
    /// Extra data behind what is known.
    more: Vec<u8>,
}

impl Snap {
    /// Host range of its L1 table.
    pub(crate) fn l1_range(&self) -> (u64, u64) {
        (self.l1_offset, self.l1_offset + u64::from(self.l1_size) * 8)
    }

    fn bytes(&self) -> Vec<u8> {
        let (id, name) = (self.info.id.as_bytes(), self.info.name.as_bytes());
        let mut b = Vec::with_capacity(64 + id.len() + name.len());
        b.extend(self.l1_offset.to_be_bytes());
        b.extend(self.l1_size.to_be_bytes());
        b.extend((id.len() as u16).to_be_bytes());
        b.extend((name.len() as u16).to_be_bytes());
        b.extend(self.info.date_sec.to_be_bytes());
        b.extend(self.info.date_nsec.to_be_bytes());
        b.extend(self.info.vm_clock_ns.to_be_bytes());
        // Readers that know only 32 bits must not see a truncated size as a right one.
        b.extend(u32::try_from(self.info.vm_state_size).unwrap_or(0).to_be_bytes());
        b.extend((24 + self.more.len() as u32).to_be_bytes());
        b.extend(self.info.vm_state_size.to_be_bytes());
        b.extend(self.disk_size.unwrap_or(0).to_be_bytes());
        b.extend(self.info.icount.unwrap_or(u64::MAX).to_be_bytes());
        b.extend(&self.more);
        b.extend(id);
        b.extend(name);
        b.resize(b.len().div_ceil(8) * 8, 0);
        b
    }
}

/// Reads the snapshot table: entries, and its end.
pub(super) fn read_table(node: &Node, hdr: &Header) -> Result<(Vec<Snap>, u64)> {
    let (mut list, mut at, mut l1_total) = (Vec::new(), hdr.snapshots_offset, 0);
    for _ in 0..hdr.nb_snapshots {
        at = at.div_ceil(8) * 8;
        if at - hdr.snapshots_offset > MAX_TABLE_BYTES {
            return Err(BlockError::text("Snapshot table is too big"));
        }
        let h = read_at(node, at, 40, "snapshots")?;
        let be32 = |i: usize| u32::from_be_bytes([h[i], h[i + 1], h[i + 2], h[i + 3]]);
        let be16 = |i: usize| u64::from(u16::from_be_bytes([h[i], h[i + 1]]));
        let (l1_offset, l1_size, extra) = (header::be64(&h, 0), be32(8), be32(36));
        if extra > MAX_EXTRA {
            return Err(BlockError::text("Too much extra metadata in snapshot table entry"));
        }
        let l1_bytes = u64::from(l1_size) * 8;
        let l1_end = l1_offset.checked_add(l1_bytes).filter(|e| i64::try_from(*e).is_ok());
        if l1_bytes > header::MAX_L1_BYTES || hdr.geo.in_cluster(l1_offset) != 0 || l1_end.is_none() {
            return Err(BlockError::text("Snapshot L1 table offset invalid"));
        }
        l1_total += l1_bytes;
        if l1_total > MAX_TABLE_BYTES {
            return Err(BlockError::text("Snapshot L1 tables are too big"));
        }
        let (id_len, name_len) = (be16(12), be16(14));
        let rest = read_at(node, at + 40, u64::from(extra) + id_len + name_len, "snapshots")?;
        let (x, names) = rest.split_at(extra as usize);
        let (id, name) = names.split_at(id_len as usize);
        let wide = |i: usize| (x.len() >= i + 8).then(|| header::be64(x, i));
        list.push(Snap {
            info: SnapshotInfo {
                id: String::from_utf8_lossy(id).into_owned(),
                name: String::from_utf8_lossy(name).into_owned(),
                vm_state_size: wide(0).unwrap_or(u64::from(be32(32))),
                date_sec: be32(16),
                date_nsec: be32(20),
                vm_clock_ns: header::be64(&h, 24),
                icount: wide(16).filter(|v| *v != u64::MAX),
            },
            l1_offset,
            l1_size,
            disk_size: wide(8),
            more: x.get(24..).unwrap_or(&[]).to_vec(),
        });
        at += 40 + u64::from(extra) + id_len + name_len;
    }
    Ok((list, at))
}

fn io(what: &str) -> impl Fn(Errno) -> BlockError + '_ {
    move |e| BlockError::io(what, e)
}

/// What an L2 entry refers to: first host cluster and count.
fn target(q: &Qcow2, e: u64) -> std::result::Result<Option<(u64, u64)>, Errno> {
    let bits = q.hdr.geo.cluster_bits;
    Ok(match decode(&q.hdr.geo, q.hdr.version, e).ok_or(Errno::EIO)? {
        Kind::Data { host, .. } | Kind::Zero { host, .. } if host != 0 => Some((host >> bits, 1)),
        Kind::Compressed(e) => {
            let (host, len) = q.compressed_range(e);
            Some((host >> bits, ((host + len - 1) >> bits) - (host >> bits) + 1))
        }
        _ => None,
    })
}

impl Qcow2 {
    fn read_l2(&self, e: u64) -> std::result::Result<Vec<u64>, Errno> {
        let at = e & OFFSET_MASK;
        if self.hdr.geo.in_cluster(at) != 0 || self.overlaps_fixed(at) {
            return Err(self.mark_corrupt());
        }
        let mut buf = vec![0u8; self.cluster() as usize];
        self.file_read(at, &mut buf)?;
        Ok(be64s(&buf))
    }

    /// Adds a reference to everything below an L1 table, or takes one off. On failure of an addition the ones made
    /// before are taken off again.
    fn refer(&self, meta: &mut Meta, l1: &[u64], up: bool) -> IoResult {
        for (i, e) in l1.iter().enumerate() {
            let Err(error) = self.refer_table(meta, *e, up) else { continue };
            if up {
                // Best effort: what remains is a leak.
                let _ = self.refer(meta, &l1[..i], false);
            }
            return Err(error);
        }
        Ok(())
    }

    fn refer_table(&self, meta: &mut Meta, e: u64, up: bool) -> IoResult {
        if e & OFFSET_MASK == 0 {
            return Ok(());
        }
        for entry in self.read_l2(e)? {
            let Some((first, n)) = target(self, entry)? else { continue };
            if up {
                (first..first + n).try_for_each(|c| self.retain(&mut meta.rc, c))?;
            } else {
                self.release(&mut meta.rc, first, n, self.pass[1])?;
            }
        }
        let table = (e & OFFSET_MASK) >> self.hdr.geo.cluster_bits;
        if up {
            self.retain(&mut meta.rc, table)
        } else {
            self.release(&mut meta.rc, table, 1, false)
        }
    }

    /// Sets the COPIED flags of the active tables to what the refcounts say.
    pub(super) fn fix_copied(&self, meta: &mut Meta) -> IoResult {
        let bits = self.hdr.geo.cluster_bits;
        let l1 = self.tables.read().l1.clone();
        let mut changed = false;
        for (i, e) in l1.iter().enumerate() {
            let at = e & OFFSET_MASK;
            if at == 0 {
                continue;
            }
            let own = self.refcount(&mut meta.rc, at >> bits)? == 1;
            let mut table = self.read_l2(*e)?;
            let mut dirty = false;
            for v in table.iter_mut().filter(|v| **v & OFLAG_COMPRESSED == 0 && **v & OFFSET_MASK != 0) {
                let alone = self.refcount(&mut meta.rc, (*v & OFFSET_MASK) >> bits)? == 1;
                let new = if alone { *v | OFLAG_COPIED } else { *v & !OFLAG_COPIED };
                dirty |= new != *v;
                *v = new;
            }
            if dirty {
                let bytes: Vec<u8> = table.iter().flat_map(|v| v.to_be_bytes()).collect();
                self.file_write(at, &bytes)?;
                self.tables.write().forget(at);
            }
            let new = if own { e | OFLAG_COPIED } else { e & !OFLAG_COPIED };
            if new != *e {
                changed = true;
                self.tables.write().l1[i] = new;
            }
        }
        if changed {
            let bytes: Vec<u8> = self.tables.read().l1.iter().flat_map(|v| v.to_be_bytes()).collect();
            self.file_write(meta.l1_offset, &bytes)?;
        }
        self.barrier()
    }

    /// Writes a new snapshot table and switches the header to it. The old table's clusters are released.
    fn write_table(&self, meta: &mut Meta, list: &[Snap]) -> IoResult {
        let geo = self.hdr.geo;
        let bytes: Vec<u8> = list.iter().flat_map(Snap::bytes).collect();
        if bytes.len() as u64 > MAX_TABLE_BYTES {
            return Err(Errno(libc::EFBIG));
        }
        let n = (bytes.len() as u64).div_ceil(geo.cluster());
        let at = if n == 0 { 0 } else { self.allocate_contiguous(&mut meta.rc, n)? << geo.cluster_bits };
        let put = |meta: &mut Meta| {
            self.write_refcounts(&mut meta.rc)?;
            if n > 0 {
                self.file_write(at, &bytes)?;
            }
            self.barrier()?;
            let mut head = [0u8; 12];
            head[..4].copy_from_slice(&(list.len() as u32).to_be_bytes());
            head[4..].copy_from_slice(&at.to_be_bytes());
            self.file_write(60, &head)?;
            self.barrier()
        };
        if let Err(e) = put(meta) {
            if n > 0 {
                let _ = self.release(&mut meta.rc, at >> geo.cluster_bits, n, false);
            }
            return Err(e);
        }
        let old = {
            let mut st = self.state.lock();
            st.snapshots = list.to_vec();
            std::mem::replace(&mut st.snapshot_table, (at, at + bytes.len() as u64))
        };
        self.tables.write().metadata.extend(at >> geo.cluster_bits..(at >> geo.cluster_bits) + n);
        if old.1 > old.0 && old.0 != 0 {
            let first = old.0 >> geo.cluster_bits;
            self.release(&mut meta.rc, first, old.1.div_ceil(geo.cluster()) - first, false)?;
            self.write_refcounts(&mut meta.rc)?;
        }
        Ok(())
    }

    /// First byte behind the medium where VM state stands: the span of the first L1 entry that the medium does not
    /// need.
    fn vmstate_at(&self) -> u64 {
        self.hdr.geo.l1_entries(self.size.load(Acquire)) << self.hdr.geo.l1_span_bits()
    }

    fn make(&self, mut info: SnapshotInfo) -> Result<()> {
        self.writable().map_err(io("Failed to create snapshot"))?;
        self.settle().map_err(io("Failed to flush the image"))?;
        let mut meta = self.meta.lock();
        let mut list = self.state.lock().snapshots.clone();
        if list.len() >= MAX_SNAPSHOTS {
            return Err(io("Failed to create snapshot")(Errno(libc::EFBIG)));
        }
        let next = list.iter().filter_map(|s| s.info.id.parse::<u64>().ok()).max().unwrap_or(0) + 1;
        info.id = next.to_string();
        let geo = self.hdr.geo;
        let l1: Vec<u64> = self.tables.read().l1.iter().map(|e| e & !OFLAG_COPIED).collect();
        let fail = io("Failed to create snapshot");
        let n = (l1.len() as u64 * 8).div_ceil(geo.cluster()).max(1);
        let first = self.allocate_contiguous(&mut meta.rc, n).map_err(&fail)?;
        let at = first << geo.cluster_bits;
        let mut bytes: Vec<u8> = l1.iter().flat_map(|e| e.to_be_bytes()).collect();
        bytes.resize((n * geo.cluster()) as usize, 0);
        if let Err(e) = self.refer(&mut meta, &l1, true) {
            self.release(&mut meta.rc, first, n, false).map_err(&fail)?;
            return Err(fail(e));
        }
        list.push(Snap {
            info,
            l1_offset: at,
            l1_size: l1.len() as u32,
            disk_size: Some(self.size.load(Acquire)),
            more: Vec::new(),
        });
        let done = self
            .write_refcounts(&mut meta.rc)
            .and_then(|()| self.barrier())
            .and_then(|()| self.file_write(at, &bytes))
            .and_then(|()| self.fix_copied(&mut meta))
            .and_then(|()| self.write_table(&mut meta, &list));
        if let Err(e) = done {
            // Back to the state before; what fails here is leaked.
            let _ = self.refer(&mut meta, &l1, false);
            let _ = self.release(&mut meta.rc, first, n, false);
            let _ = self.write_refcounts(&mut meta.rc).and_then(|()| self.fix_copied(&mut meta));
            return Err(fail(e));
        }
        self.tables.write().metadata.extend(first..first + n);
        drop(meta);
        self.drop_vmstate().map_err(fail)
    }

    /// The snapshot has the VM state; the active image does not need it.
    fn drop_vmstate(&self) -> IoResult {
        let start = self.vmstate_at();
        let end = (self.tables.read().l1.len() as u64) << self.hdr.geo.l1_span_bits();
        if end > start {
            self.zero_range(start, end)?;
            self.settle()?;
        }
        Ok(())
    }

    fn snapshot_l1(&self, s: &Snap) -> std::result::Result<Vec<u64>, Errno> {
        let mut buf = vec![0u8; s.l1_size as usize * 8];
        self.file_read(s.l1_offset, &mut buf)?;
        Ok(be64s(&buf).into_iter().map(|e| e & !OFLAG_COPIED).collect())
    }

    fn revert(&self, nth: usize) -> Result<()> {
        let fail = io("Failed to load snapshot");
        self.writable().map_err(&fail)?;
        self.settle().map_err(&fail)?;
        let Some(snap) = self.state.lock().snapshots.get(nth).cloned() else {
            return Err(fail(Errno(libc::ENOENT)));
        };
        let size = snap.disk_size.filter(|s| *s != 0).unwrap_or_else(|| self.size.load(Acquire));
        let geo = self.hdr.geo;
        if geo.l1_entries(size) * 8 > header::MAX_L1_BYTES {
            return Err(fail(Errno(libc::EFBIG)));
        }
        let mut meta = self.meta.lock();
        let mut l1 = self.snapshot_l1(&snap).map_err(&fail)?;
        self.refer(&mut meta, &l1, true).map_err(&fail)?;
        l1.resize(l1.len().max(geo.l1_entries(size) as usize), 0);
        self.switch(&mut meta, l1, size).map_err(&fail)?;
        self.fix_copied(&mut meta).map_err(&fail)
    }

    /// Makes `l1` (whose references are counted already) the active table, and lets the old one go.
    fn switch(&self, meta: &mut Meta, l1: Vec<u64>, size: u64) -> IoResult {
        let geo = self.hdr.geo;
        let n = (l1.len() as u64 * 8).div_ceil(geo.cluster()).max(1);
        let first = self.allocate_contiguous(&mut meta.rc, n)?;
        let at = first << geo.cluster_bits;
        let mut bytes: Vec<u8> = l1.iter().flat_map(|e| e.to_be_bytes()).collect();
        bytes.resize((n * geo.cluster()) as usize, 0);
        self.write_refcounts(&mut meta.rc)?;
        self.file_write(at, &bytes)?;
        self.barrier()?;
        let mut head = [0u8; 24];
        head[..8].copy_from_slice(&size.to_be_bytes());
        head[12..16].copy_from_slice(&(l1.len() as u32).to_be_bytes());
        head[16..].copy_from_slice(&at.to_be_bytes());
        self.file_write(24, &head)?;
        self.barrier()?;
        let bits = geo.cluster_bits;
        let old = {
            let mut t = self.tables.write();
            let old_at = meta.l1_offset;
            t.fixed.retain(|r| r.0 != old_at);
            t.fixed.push((at, at + n * geo.cluster()));
            t.metadata.extend(first..first + n);
            t.metadata.extend(l1.iter().map(|e| (e & OFFSET_MASK) >> bits).filter(|c| *c != 0));
            t.forget_all();
            std::mem::replace(&mut t.l1, l1)
        };
        let old_first = meta.l1_offset >> bits;
        meta.l1_offset = at;
        self.size.store(size, std::sync::atomic::Ordering::Release);
        self.refer(meta, &old, false)?;
        self.release(&mut meta.rc, old_first, (old.len() as u64 * 8).div_ceil(geo.cluster()).max(1), false)?;
        self.write_refcounts(&mut meta.rc)?;
        self.barrier()
    }

    fn remove(&self, nth: usize) -> Result<()> {
        let fail = io("Failed to remove snapshot");
        self.writable().map_err(&fail)?;
        self.settle().map_err(&fail)?;
        let mut meta = self.meta.lock();
        let mut list = self.state.lock().snapshots.clone();
        if nth >= list.len() {
            return Err(fail(Errno(libc::ENOENT)));
        }
        let snap = list.remove(nth);
        let l1 = self.snapshot_l1(&snap).map_err(&fail)?;
        self.write_table(&mut meta, &list).map_err(&fail)?;
        let (a, b) = snap.l1_range();
        let first = a >> self.hdr.geo.cluster_bits;
        let n = b.div_ceil(self.cluster()).saturating_sub(first).max(1);
        self.refer(&mut meta, &l1, false)
            .and_then(|()| self.release(&mut meta.rc, first, n, false))
            .and_then(|()| self.write_refcounts(&mut meta.rc))
            .and_then(|()| self.barrier())
            .and_then(|()| self.fix_copied(&mut meta))
            .map_err(fail)
    }
}

impl Snapshots for Qcow2 {
    fn list(&self) -> Vec<SnapshotInfo> {
        self.state.lock().snapshots.iter().map(|s| s.info.clone()).collect()
    }

    fn create(&self, info: SnapshotInfo) -> Result<()> {
        self.make(info)
    }

    fn apply(&self, nth: usize) -> Result<()> {
        self.revert(nth)
    }

    fn view(&self, nth: usize) -> Result<()> {
        let fail = io("Failed to load snapshot");
        if !self.is_read_only() {
            return Err(fail(Errno::EINVAL));
        }
        let snap = self.state.lock().snapshots.get(nth).cloned();
        let snap = snap.ok_or_else(|| fail(Errno(libc::ENOENT)))?;
        let mut l1 = self.snapshot_l1(&snap).map_err(&fail)?;
        let size = snap.disk_size.filter(|s| *s != 0).unwrap_or_else(|| self.size.load(Acquire));
        if self.hdr.geo.l1_entries(size) * 8 > header::MAX_L1_BYTES {
            return Err(fail(Errno(libc::EFBIG)));
        }
        l1.resize(l1.len().max(self.hdr.geo.l1_entries(size) as usize), 0);
        let mut t = self.tables.write();
        t.forget_all();
        t.l1 = l1;
        self.size.store(size, std::sync::atomic::Ordering::Release);
        Ok(())
    }

    fn delete(&self, nth: usize) -> Result<()> {
        self.remove(nth)
    }

    fn write_vmstate(&self, off: u64, buf: &[u8]) -> IoResult {
        let at = self.vmstate_at().checked_add(off).ok_or(Errno::EINVAL)?;
        let end = at.checked_add(buf.len() as u64).ok_or(Errno::EINVAL)?;
        let entries = self.hdr.geo.l1_entries(end);
        if entries * 8 > header::MAX_L1_BYTES {
            return Err(Errno(libc::EFBIG));
        }
        self.writable()?;
        if entries > self.tables.read().l1.len() as u64 {
            // Room for more than this piece, so that the table does not move each time.
            let entries = (entries + entries / 2).min(header::MAX_L1_BYTES / 8);
            let size = self.size.load(Acquire);
            self.set_size(&mut self.meta.lock(), size, entries)?;
        }
        self.writev(at, &[iov::own_ro(buf)])
    }

    fn read_vmstate(&self, off: u64, buf: &mut [u8]) -> IoResult {
        let at = self.vmstate_at().checked_add(off).ok_or(Errno::EINVAL)?;
        self.readv(at, &[iov::own(buf)])
    }
}
