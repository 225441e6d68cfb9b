//! The active L1 table and the cache of L2 slices, as readers see them.
//!
//! Readers hold the lock shared and only for a look-up; whoever changes an entry holds the metadata mutex of
//! [`super::Qcow2`] and takes this lock exclusively for the few instructions of the change, never across I/O.

use super::header::Geo;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

pub(crate) const OFLAG_COPIED: u64 = 1 << 63;
pub(crate) const OFLAG_COMPRESSED: u64 = 1 << 62;
pub(crate) const OFLAG_ZERO: u64 = 1;
pub(crate) const OFFSET_MASK: u64 = 0x00ff_ffff_ffff_fe00;
const L2_RESERVED: u64 = 0x3f00_0000_0000_01fe;

/// Multiplicative hashing of cluster numbers; keys come from the image, and a flood of collisions costs only its owner.
#[derive(Default)]
pub(crate) struct IntHash(u64);

impl Hasher for IntHash {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for b in bytes {
            self.write_u64(u64::from(*b));
        }
    }
    fn write_u64(&mut self, v: u64) {
        let x = (self.0 ^ v).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = x ^ (x >> 29);
    }
}

pub(crate) type IntMap<V> = HashMap<u64, V, BuildHasherDefault<IntHash>>;
pub(crate) type IntSet = HashSet<u64, BuildHasherDefault<IntHash>>;

/// What an L2 entry says about its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Comes from the backing image, or zero.
    Unallocated,
    /// Reads as zeroes; `host` is a preallocated cluster or 0.
    Zero { host: u64, copied: bool },
    /// Data at `host`; `copied`: nobody else refers to it, so it may be changed in place.
    Data { host: u64, copied: bool },
    /// Compressed; the raw entry.
    Compressed(u64),
}

/// Decodes an entry; `None` if it is malformed.
pub(crate) fn decode(geo: &Geo, version: u32, e: u64) -> Option<Kind> {
    if e & OFLAG_COMPRESSED != 0 {
        return Some(Kind::Compressed(e));
    }
    let host = e & OFFSET_MASK;
    let copied = e & OFLAG_COPIED != 0;
    let zero = version >= 3 && e & OFLAG_ZERO != 0;
    if geo.in_cluster(host) != 0 || (version >= 3 && e & L2_RESERVED != 0) {
        return None;
    }
    Some(match (zero, host) {
        (true, _) => Kind::Zero { host, copied },
        (false, 0) => Kind::Unallocated,
        (false, _) => Kind::Data { host, copied },
    })
}

/// A piece of an L2 table in memory.
pub(crate) struct Slice {
    pub entries: Box<[u64]>,
    pub dirty: bool,
    used: AtomicBool,
}

/// Where an entry is.
pub(crate) enum Find {
    /// Its value.
    Entry(u64),
    /// There is no L2 table.
    NoTable,
    /// The slice at this host offset must be loaded.
    Load(u64),
    /// The L1 entry is malformed.
    Corrupt,
}

pub(crate) struct Tables {
    pub geo: Geo,
    pub version: u32,
    pub l1: Vec<u64>,
    slices: IntMap<Slice>,
    clock: Vec<u64>,
    hand: usize,
    /// Host clusters that hold metadata: never to be written as data.
    pub metadata: IntSet,
    /// Host byte ranges of header, L1 table and refcount table.
    pub fixed: Vec<(u64, u64)>,
    slice_bits: u32,
    max_slices: usize,
}

impl Tables {
    pub(crate) fn new(geo: Geo, version: u32, l1: Vec<u64>, cache_bytes: u64) -> Tables {
        // log2 of entries: at most 4 KiB a slice.
        let slice_bits = geo.l2_bits().min(9);
        let max_slices = (cache_bytes >> (slice_bits + 3)).max(4) as usize;
        Tables {
            geo,
            version,
            l1,
            slices: IntMap::default(),
            clock: Vec::new(),
            hand: 0,
            metadata: IntSet::default(),
            fixed: Vec::new(),
            slice_bits,
            max_slices,
        }
    }

    pub(crate) fn slice_bytes(&self) -> u64 {
        8 << self.slice_bits
    }

    /// Entries per slice.
    pub(crate) fn slice_entries(&self) -> u64 {
        1 << self.slice_bits
    }

    /// L1 index and position in the L2 table.
    pub(crate) fn split(&self, cluster: u64) -> (usize, u64) {
        ((cluster >> self.geo.l2_bits()) as usize, cluster & ((1 << self.geo.l2_bits()) - 1))
    }

    /// Host offset of the L2 table for `l1` entry, or `None` if malformed. 0 = no table.
    pub(crate) fn table_of(&self, l1: usize) -> Option<u64> {
        let off = self.l1.get(l1)? & OFFSET_MASK;
        (self.geo.in_cluster(off) == 0).then_some(off)
    }

    /// Host offset of the slice that holds `cluster`'s entry.
    pub(crate) fn slice_of(&self, cluster: u64) -> Option<u64> {
        let (i1, i2) = self.split(cluster);
        match self.table_of(i1)? {
            0 => Some(0),
            t => Some(t + (i2 >> self.slice_bits) * self.slice_bytes()),
        }
    }

    pub(crate) fn find(&self, cluster: u64) -> Find {
        let at = match self.slice_of(cluster) {
            None => return Find::Corrupt,
            Some(0) => return Find::NoTable,
            Some(at) => at,
        };
        match self.slices.get(&at) {
            None => Find::Load(at),
            Some(s) => {
                if !s.used.load(Relaxed) {
                    s.used.store(true, Relaxed);
                }
                Find::Entry(s.entries[(cluster & (self.slice_entries() - 1)) as usize])
            }
        }
    }

    pub(crate) fn clean(&mut self, at: u64) {
        if let Some(s) = self.slices.get_mut(&at) {
            s.dirty = false;
        }
    }

    pub(crate) fn slice(&self, at: u64) -> Option<&Slice> {
        self.slices.get(&at)
    }

    /// Changes an entry whose slice is loaded; returns the old value.
    pub(crate) fn set(&mut self, cluster: u64, value: u64) -> Option<u64> {
        let at = self.slice_of(cluster).filter(|a| *a != 0)?;
        let i = (cluster & (self.slice_entries() - 1)) as usize;
        let s = self.slices.get_mut(&at)?;
        s.dirty = true;
        Some(std::mem::replace(&mut s.entries[i], value))
    }

    pub(crate) fn insert(&mut self, at: u64, entries: Box<[u64]>) {
        if self.slices.insert(at, Slice { entries, dirty: false, used: AtomicBool::new(true) }).is_none() {
            self.clock.push(at);
        }
    }

    /// Forgets the slices of a table at `table` (it was freed or made anew).
    pub(crate) fn forget(&mut self, table: u64) {
        let end = table + self.geo.cluster();
        if self.slices.is_empty() {
            return;
        }
        let step = self.slice_bytes();
        let mut at = table;
        let mut any = false;
        while at < end {
            any |= self.slices.remove(&at).is_some();
            at += step;
        }
        if any {
            self.clock.retain(|k| *k < table || *k >= end);
            self.hand = 0;
        }
    }

    /// Forgets everything that was read; nothing of it is dirty.
    pub(crate) fn forget_all(&mut self) {
        self.slices.clear();
        self.clock.clear();
        self.hand = 0;
    }

    pub(crate) fn is_full(&self) -> bool {
        self.slices.len() >= self.max_slices
    }

    /// Drops one clean slice that was not used lately; false if all are dirty.
    pub(crate) fn evict(&mut self) -> bool {
        for _ in 0..2 * self.clock.len() {
            if self.hand >= self.clock.len() {
                self.hand = 0;
            }
            let key = self.clock[self.hand];
            match self.slices.get(&key) {
                Some(s) if s.dirty || s.used.swap(false, Relaxed) => self.hand += 1,
                _ => {
                    self.slices.remove(&key);
                    self.clock.swap_remove(self.hand);
                    return true;
                }
            }
        }
        false
    }

    /// Host offsets of the slices that must be written, in order.
    pub(crate) fn dirty(&self) -> Vec<u64> {
        let mut v: Vec<u64> = self.slices.iter().filter(|(_, s)| s.dirty).map(|(k, _)| *k).collect();
        v.sort_unstable();
        v
    }

    /// The mapping at byte `off` and for how many bytes (at most `len`) it continues: the same kind, and contiguous
    /// on the host.
    pub(crate) fn run(&self, off: u64, len: u64) -> Run {
        let first = off >> self.geo.cluster_bits;
        let inside = self.geo.in_cluster(off);
        let mut have = (self.geo.cluster() - inside).min(len);
        let kind = match self.find(first) {
            Find::Load(at) => return Run::Load(at),
            Find::Corrupt => return Run::Corrupt,
            Find::NoTable => {
                // All clusters of this L1 entry.
                let span = 1u64 << self.geo.l1_span_bits();
                return Run::Is(Kind::Unallocated, (span - (off & (span - 1))).min(len));
            }
            Find::Entry(e) => match decode(&self.geo, self.version, e) {
                None => return Run::Corrupt,
                Some(k) => k,
            },
        };
        let mut n = 1;
        while have < len && !matches!(kind, Kind::Compressed(_)) {
            let c = first + n;
            if c & (self.slice_entries() - 1) == 0 {
                break;
            }
            let Find::Entry(e) = self.find(c) else { break };
            let step = n << self.geo.cluster_bits;
            let same = match (kind, decode(&self.geo, self.version, e)) {
                (Kind::Unallocated, Some(Kind::Unallocated)) => true,
                (Kind::Zero { host: 0, .. }, Some(Kind::Zero { host: 0, .. })) => true,
                (Kind::Zero { host: a, copied: x }, Some(Kind::Zero { host: b, copied: y })) => {
                    a != 0 && b == a + step && x == y
                }
                (Kind::Data { host: a, copied: x }, Some(Kind::Data { host: b, copied: y })) => {
                    b == a + step && x == y
                }
                _ => false,
            };
            if !same {
                break;
            }
            have = (have + self.geo.cluster()).min(len);
            n += 1;
        }
        Run::Is(kind, have)
    }

    /// True if no host cluster of the range holds metadata.
    pub(crate) fn is_data(&self, host: u64, len: u64) -> bool {
        let bits = self.geo.cluster_bits;
        let last = (host + len.max(1) - 1) >> bits;
        ((host >> bits)..=last).all(|c| !self.metadata.contains(&c))
    }
}

/// Result of [`Tables::run`].
pub(crate) enum Run {
    Is(Kind, u64),
    Load(u64),
    Corrupt,
}
