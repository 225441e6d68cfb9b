//! Refcounts: the table, a bounded cache of blocks, allocation and release of clusters.
//!
//! Everything here runs under the metadata mutex.

use super::header::{be64, Geo, MAX_REFTABLE_BYTES};
use super::tables::{IntMap, IntSet};
use super::{corrupt, Qcow2};
use crate::error::Errno;
use std::collections::BTreeSet;

type Res<T> = Result<T, Errno>;

/// Bytes of refcount blocks kept in memory (at least four blocks).
const CACHE_BYTES: u64 = 4 << 20;

struct Block {
    data: Box<[u8]>,
    dirty: bool,
    stamp: u64,
}

/// Refcount state of an image.
pub(crate) struct Refcounts {
    geo: Geo,
    /// Host offsets of the blocks; 0 = none.
    pub(super) table: Vec<u64>,
    /// Entries of `table` not yet written.
    dirty_table: BTreeSet<usize>,
    pub(super) table_offset: u64,
    pub(super) table_clusters: u64,
    blocks: IntMap<Block>,
    clock: u64,
    /// No cluster below is free.
    hint: u64,
    /// End of the last compressed cluster: what follows in its host cluster is free. 0 = none.
    pub(super) packed_end: u64,
}

fn get(geo: &Geo, data: &[u8], i: usize) -> u64 {
    match geo.refcount_order {
        0 => u64::from(data[i / 8] >> (i % 8) & 1),
        1 => u64::from(data[i / 4] >> (2 * (i % 4)) & 3),
        2 => u64::from(data[i / 2] >> (4 * (i % 2)) & 15),
        3 => u64::from(data[i]),
        4 => u64::from(u16::from_be_bytes([data[2 * i], data[2 * i + 1]])),
        5 => u64::from(u32::from_be_bytes([data[4 * i], data[4 * i + 1], data[4 * i + 2], data[4 * i + 3]])),
        _ => be64(data, 8 * i),
    }
}

fn put(geo: &Geo, data: &mut [u8], i: usize, v: u64) {
    let small = |byte: &mut u8, shift: usize, mask: u8| {
        *byte = *byte & !(mask << shift) | ((v as u8) & mask) << shift
    };
    match geo.refcount_order {
        0 => small(&mut data[i / 8], i % 8, 1),
        1 => small(&mut data[i / 4], 2 * (i % 4), 3),
        2 => small(&mut data[i / 2], 4 * (i % 2), 15),
        3 => data[i] = v as u8,
        4 => data[2 * i..2 * i + 2].copy_from_slice(&(v as u16).to_be_bytes()),
        5 => data[4 * i..4 * i + 4].copy_from_slice(&(v as u32).to_be_bytes()),
        _ => data[8 * i..8 * i + 8].copy_from_slice(&v.to_be_bytes()),
    }
}

impl Refcounts {
    pub(crate) fn new(geo: Geo, table: Vec<u64>, table_offset: u64, table_clusters: u64) -> Refcounts {
        Refcounts {
            geo,
            table,
            dirty_table: BTreeSet::new(),
            table_offset,
            table_clusters,
            blocks: IntMap::default(),
            clock: 0,
            hint: 0,
            packed_end: 0,
        }
    }

    fn split(&self, cluster: u64) -> (usize, usize) {
        let bits = self.geo.rb_bits();
        ((cluster >> bits) as usize, (cluster & ((1 << bits) - 1)) as usize)
    }

    pub(super) fn is_dirty(&self) -> bool {
        !self.dirty_table.is_empty() || self.blocks.values().any(|b| b.dirty)
    }
}

impl Qcow2 {
    fn rb_load(&self, rc: &mut Refcounts, block: usize) -> Res<bool> {
        let off = rc.table.get(block).copied().unwrap_or(0);
        if off == 0 {
            return Ok(false);
        }
        rc.clock += 1;
        let stamp = rc.clock;
        if let Some(b) = rc.blocks.get_mut(&(block as u64)) {
            b.stamp = stamp;
            return Ok(true);
        }
        if rc.geo.in_cluster(off) != 0 {
            return Err(self.mark_corrupt());
        }
        self.rb_room(rc)?;
        let mut data = vec![0u8; rc.geo.cluster() as usize].into_boxed_slice();
        self.file_read(off, &mut data)?;
        rc.blocks.insert(block as u64, Block { data, dirty: false, stamp });
        Ok(true)
    }

    /// Makes room for one more block.
    fn rb_room(&self, rc: &mut Refcounts) -> Res<()> {
        let max = (CACHE_BYTES / rc.geo.cluster()).max(4) as usize;
        while rc.blocks.len() >= max {
            let oldest =
                rc.blocks.iter().filter(|(_, b)| !b.dirty).min_by_key(|(_, b)| b.stamp).map(|(k, _)| *k);
            match oldest {
                Some(k) => drop(rc.blocks.remove(&k)),
                None => self.write_refcounts(rc)?,
            }
        }
        Ok(())
    }

    pub(super) fn refcount(&self, rc: &mut Refcounts, cluster: u64) -> Res<u64> {
        let (b, i) = rc.split(cluster);
        if !self.rb_load(rc, b)? {
            return Ok(0);
        }
        Ok(rc.blocks.get(&(b as u64)).map_or(0, |blk| get(&rc.geo, &blk.data, i)))
    }

    pub(super) fn set_refcount(&self, rc: &mut Refcounts, cluster: u64, v: u64) -> Res<()> {
        let (b, i) = rc.split(cluster);
        if !self.rb_load(rc, b)? {
            return Err(Errno::EIO);
        }
        let geo = rc.geo;
        if let Some(blk) = rc.blocks.get_mut(&(b as u64)) {
            put(&geo, &mut blk.data, i, v);
            blk.dirty = true;
        }
        if v == 0 {
            rc.hint = rc.hint.min(cluster);
        }
        Ok(())
    }

    /// Adds a reference to a cluster that has one.
    pub(super) fn retain(&self, rc: &mut Refcounts, cluster: u64) -> Res<()> {
        let max = if rc.geo.refcount_order == 6 { u64::MAX } else { (1 << (1 << rc.geo.refcount_order)) - 1 };
        match self.refcount(rc, cluster)? {
            0 => Err(self.mark_corrupt()),
            v if v >= max => Err(Errno::EINVAL),
            v => self.set_refcount(rc, cluster, v + 1),
        }
    }

    /// Takes one reference off each cluster; a cluster that reaches zero may be handed out again.
    pub(super) fn release(&self, rc: &mut Refcounts, first: u64, n: u64, punch: bool) -> Res<()> {
        for c in first..first + n {
            match self.refcount(rc, c)? {
                0 => return Err(self.mark_corrupt()),
                1 => {
                    if punch {
                        // Before anyone can be given the cluster.
                        let at = c << rc.geo.cluster_bits;
                        let _ = self.file.node().run(crate::Op::Discard, at, rc.geo.cluster(), &[]);
                    }
                    if rc.packed_end >> rc.geo.cluster_bits == c {
                        rc.packed_end = 0;
                    }
                    self.set_refcount(rc, c, 0)?;
                    self.tables.write().metadata.remove(&c);
                }
                v => self.set_refcount(rc, c, v - 1)?,
            }
        }
        Ok(())
    }

    /// Allocates up to `want` contiguous clusters, at least one: (first, count).
    pub(super) fn allocate(&self, rc: &mut Refcounts, want: u64) -> Res<(u64, u64)> {
        loop {
            let first = self.find_free(rc)?;
            if first >= OFFSET_LIMIT >> rc.geo.cluster_bits {
                return Err(Errno(libc::EFBIG));
            }
            let (b, _) = rc.split(first);
            if !self.rb_load(rc, b)? {
                // The range has no block yet: make one, then look again.
                self.new_block(rc, first)?;
                continue;
            }
            let block_end = ((b as u64) + 1) << rc.geo.rb_bits();
            let mut n = 0;
            while n < want && first + n < block_end && self.refcount(rc, first + n)? == 0 {
                n += 1;
            }
            for c in first..first + n {
                self.set_refcount(rc, c, 1)?;
            }
            rc.hint = first + n;
            let bits = rc.geo.cluster_bits;
            if !self.tables.read().is_data(first << bits, n << bits) {
                // A refcount of zero on something that is in use: the image is damaged, do not make it worse.
                return Err(self.mark_corrupt());
            }
            return Ok((first, n));
        }
    }

    /// Allocates exactly `n` contiguous clusters (for tables).
    pub(super) fn allocate_contiguous(&self, rc: &mut Refcounts, n: u64) -> Res<u64> {
        let mut parts: Vec<(u64, u64)> = Vec::new();
        let result = loop {
            match self.allocate(rc, n) {
                Err(e) => break Err(e),
                Ok((first, got)) => {
                    match parts.last_mut() {
                        Some((f, m)) if *f + *m == first => *m += got,
                        _ => parts.push((first, got)),
                    }
                    // Parts may straddle refcount blocks, but then a block may sit in between: only a run counts.
                    if let Some((f, m)) = parts.last().copied().filter(|(_, m)| *m >= n) {
                        parts.pop();
                        if m > n {
                            parts.push((f + n, m - n));
                        }
                        break Ok(f);
                    }
                }
            }
        };
        for (f, m) in parts {
            self.release(rc, f, m, false)?;
        }
        result
    }

    fn find_free(&self, rc: &mut Refcounts) -> Res<u64> {
        let mut c = rc.hint;
        loop {
            let (b, i) = rc.split(c);
            if !self.rb_load(rc, b)? {
                return Ok(c);
            }
            let per = 1usize << rc.geo.rb_bits();
            let Some(blk) = rc.blocks.get(&(b as u64)) else { return Err(Errno::EIO) };
            if let Some(k) = (i..per).find(|k| get(&rc.geo, &blk.data, *k) == 0) {
                return Ok(((b as u64) << rc.geo.rb_bits()) + k as u64);
            }
            c = ((b as u64) + 1) << rc.geo.rb_bits();
            rc.hint = c;
        }
    }

    /// Makes the refcount block that covers `cluster` (which is free), placing it in that very cluster.
    fn new_block(&self, rc: &mut Refcounts, cluster: u64) -> Res<()> {
        let (b, i) = rc.split(cluster);
        if b >= rc.table.len() {
            return self.grow_table(rc, cluster);
        }
        if !self.tables.read().is_data(cluster << rc.geo.cluster_bits, 1) {
            return Err(self.mark_corrupt());
        }
        self.rb_room(rc)?;
        let mut data = vec![0u8; rc.geo.cluster() as usize].into_boxed_slice();
        put(&rc.geo, &mut data, i, 1);
        rc.clock += 1;
        let stamp = rc.clock;
        rc.blocks.insert(b as u64, Block { data, dirty: true, stamp });
        rc.table[b] = cluster << rc.geo.cluster_bits;
        rc.dirty_table.insert(b);
        self.tables.write().metadata.insert(cluster);
        Ok(())
    }

    /// Replaces the refcount table by a larger one. Old and new are never both needed for consistency: the header is
    /// switched in one write after everything it will point to is stable.
    fn grow_table(&self, rc: &mut Refcounts, start: u64) -> Res<()> {
        self.write_refcounts(rc)?;
        let geo = rc.geo;
        let per_table = geo.cluster() / 8;
        let (first_block, _) = rc.split(start);
        let start = (first_block as u64) << geo.rb_bits();
        let (mut blocks, mut clusters) = (1u64, rc.table_clusters + rc.table_clusters / 2 + 1);
        loop {
            let need_blocks = (blocks + clusters).div_ceil(1 << geo.rb_bits());
            let need_clusters = (first_block as u64 + need_blocks).div_ceil(per_table).max(clusters);
            if need_blocks == blocks && need_clusters == clusters {
                break;
            }
            (blocks, clusters) = (need_blocks.max(blocks), need_clusters);
        }
        if clusters * geo.cluster() > MAX_REFTABLE_BYTES {
            return Err(Errno(libc::EFBIG));
        }
        let used = blocks + clusters;
        if !self.tables.read().is_data(start << geo.cluster_bits, used << geo.cluster_bits) {
            return Err(self.mark_corrupt());
        }
        let mut table = rc.table.clone();
        table.resize((clusters * per_table) as usize, 0);
        for k in 0..blocks {
            let mut data = vec![0u8; geo.cluster() as usize];
            let per = 1u64 << geo.rb_bits();
            for i in (k * per..used.min((k + 1) * per)).map(|c| c - k * per) {
                put(&geo, &mut data, i as usize, 1);
            }
            let at = (start + k) << geo.cluster_bits;
            self.file_write(at, &data)?;
            table[first_block + k as usize] = at;
        }
        let at = (start + blocks) << geo.cluster_bits;
        let bytes: Vec<u8> = table.iter().flat_map(|e| e.to_be_bytes()).collect();
        self.file_write(at, &bytes)?;
        self.barrier()?;
        let mut head = [0u8; 12];
        head[..8].copy_from_slice(&at.to_be_bytes());
        head[8..].copy_from_slice(&(clusters as u32).to_be_bytes());
        self.file_write(48, &head)?;
        self.barrier()?;
        let old = (rc.table_offset >> geo.cluster_bits, rc.table_clusters);
        {
            let mut t = self.tables.write();
            t.metadata.extend(start..start + used);
            let range = |a: u64, n: u64| (a << geo.cluster_bits, (a + n) << geo.cluster_bits);
            let was = range(old.0, old.1);
            t.fixed.retain(|r| *r != was);
            t.fixed.push(range(start + blocks, clusters));
        }
        (rc.table, rc.table_offset, rc.table_clusters) = (table, at, clusters);
        self.release(rc, old.0, old.1, false)
    }

    /// Writes changed blocks, and after a barrier the table entries that point to new ones.
    pub(super) fn write_refcounts(&self, rc: &mut Refcounts) -> Res<()> {
        let mut dirty: Vec<u64> = rc.blocks.iter().filter(|(_, b)| b.dirty).map(|(k, _)| *k).collect();
        dirty.sort_unstable();
        for k in dirty {
            let Some(off) = rc.table.get(k as usize).copied() else { return Err(Errno::EIO) };
            if let Some(b) = rc.blocks.get_mut(&k) {
                self.file_write(off, &b.data)?;
                b.dirty = false;
            }
        }
        if !rc.dirty_table.is_empty() {
            self.barrier()?;
            while let Some(i) = rc.dirty_table.first().copied() {
                self.file_write(rc.table_offset + 8 * i as u64, &rc.table[i].to_be_bytes())?;
                rc.dirty_table.remove(&i);
            }
        }
        Ok(())
    }

    /// Checks that the blocks named by the table are aligned and distinct, and collects their clusters.
    pub(super) fn block_clusters(geo: &Geo, table: &[u64]) -> Result<IntSet, crate::BlockError> {
        let mut set = IntSet::default();
        for e in table.iter().filter(|e| **e != 0) {
            if geo.in_cluster(*e) != 0 || !set.insert(*e >> geo.cluster_bits) {
                return Err(corrupt("Reference count table entry invalid"));
            }
        }
        Ok(set)
    }
}

/// Host offsets end here: 56 bits in the tables.
const OFFSET_LIMIT: u64 = 1 << 55;

/// Sets the first `n` refcounts of a new block to one.
pub(super) fn fill_ones(geo: &Geo, block: &mut [u8], n: usize) {
    (0..n).for_each(|i| put(geo, block, i, 1));
}
