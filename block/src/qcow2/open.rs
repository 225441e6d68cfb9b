//! Opening an image: header, tables, checks.

use super::header::{self, Header};
use super::refcount::Refcounts;
use super::tables::{Tables, OFFSET_MASK};
use super::{corrupt, HdrState, Meta, Qcow2};
use crate::error::{BlockError, Result};
use crate::node::{Edge, Node};
use parking_lot::{Condvar, Mutex, RwLock};
use std::sync::atomic::Ordering::Release;
use std::sync::Arc;

/// How the user wants it.
pub(crate) struct OpenOpts {
    pub read_only: bool,
    /// `l2-cache-size`.
    pub l2_cache: u64,
    /// `lazy-refcounts`.
    pub lazy: bool,
    /// `pass-discard-request`, `-snapshot`, `-other`.
    pub pass: [bool; 3],
}

/// Default bound of the L2 cache, as QEMU's.
pub(crate) const DEFAULT_L2_CACHE: u64 = 32 << 20;

pub(super) fn read_at(node: &Node, off: u64, len: u64, what: &str) -> Result<Vec<u8>> {
    let mut buf = vec![0u8; len as usize];
    node.driver()
        .readv(off, &[crate::iov::own(&mut buf)])
        .map_err(|e| BlockError::io(format!("Could not read {what}"), e))?;
    Ok(buf)
}

pub(super) fn be64s(bytes: &[u8]) -> Vec<u64> {
    bytes.chunks_exact(8).map(|c| header::be64(c, 0)).collect()
}

/// Reads and checks the header of the image in `node`.
pub(crate) fn read_header(node: &Node) -> Result<Header> {
    let head = read_at(node, 0, 512, "qcow2 header")?;
    let bits = header::cluster_bits_of(&head)?;
    Header::parse(&read_at(node, 0, 1 << bits, "qcow2 header")?)
}

/// Opens the image whose header was read; takes over the edges to its file and backing image.
pub(crate) fn open(hdr: Header, file: Edge, backing: Option<Edge>, o: &OpenOpts) -> Result<Arc<Qcow2>> {
    let node = file.node().clone();
    if !o.read_only && hdr.incompatible & header::INCOMPAT_CORRUPT != 0 {
        return Err(corrupt("Image is corrupt; cannot be opened read/write"));
    }
    let geo = hdr.geo;
    let l1 = be64s(&read_at(&node, hdr.l1_offset, u64::from(hdr.l1_size) * 8, "L1 table")?);
    let (snapshots, end) = super::snapshot::read_table(&node, &hdr)?;
    let mut tables = Tables::new(geo, hdr.version, l1, o.l2_cache);
    let l1_bytes = (u64::from(hdr.l1_size) * 8).div_ceil(geo.cluster()) * geo.cluster();
    let rt_bytes = u64::from(hdr.reftable_clusters) * geo.cluster();
    tables.fixed = vec![
        (0, geo.cluster()),
        (hdr.l1_offset, hdr.l1_offset + l1_bytes),
        (hdr.reftable_offset, hdr.reftable_offset + rt_bytes),
    ];
    let q = Qcow2 {
        size: hdr.size.into(),
        file,
        backing: arc_swap::ArcSwapOption::new(backing.map(Arc::new)),
        read_only: true.into(),
        tables: RwLock::new(tables),
        meta: Mutex::new(Meta {
            rc: Refcounts::new(geo, Vec::new(), hdr.reftable_offset, u64::from(hdr.reftable_clusters)),
            dirty_l1: Vec::new(),
            l1_offset: hdr.l1_offset,
            reserved: Vec::new(),
            freed: Vec::new(),
            draining: Vec::new(),
        }),
        unreserved: Condvar::new(),
        inflight: Default::default(),
        epoch: Default::default(),
        dirty: false.into(),
        broken: false.into(),
        closed: false.into(),
        pass: o.pass,
        state: Mutex::new(HdrState {
            incompatible: hdr.incompatible,
            autoclear: hdr.autoclear,
            backing_file: hdr.backing_file.clone(),
            backing_format: hdr.backing_format.clone(),
            snapshots,
            snapshot_table: (hdr.snapshots_offset, end),
            other: Vec::new(),
            bitmaps: Vec::new(),
        }),
        hdr,
    };
    if o.read_only {
        q.load_bitmaps(false)?;
    } else {
        q.start_writing()?;
    }
    Ok(Arc::new(q))
}

impl Qcow2 {
    /// Loads what only writers need, repairs an image that was not closed properly, and clears the bits that say
    /// "nothing has changed behind the back of this feature".
    fn start_writing(&self) -> Result<()> {
        let hdr = &self.hdr;
        if self.state.lock().incompatible & header::INCOMPAT_CORRUPT != 0 {
            return Err(corrupt("Image is corrupt; cannot be opened read/write"));
        }
        let geo = hdr.geo;
        let (at, clusters) = {
            let meta = self.meta.lock();
            (meta.rc.table_offset, meta.rc.table_clusters)
        };
        let node = self.file.node();
        let reftable = be64s(&read_at(node, at, clusters * geo.cluster(), "reference count table")?);
        let mut metadata = Qcow2::block_clusters(&geo, &reftable)?;
        let mut ranges = self.tables.read().fixed.clone();
        {
            let st = self.state.lock();
            ranges.extend(st.snapshots.iter().map(super::snapshot::Snap::l1_range));
            if !st.snapshots.is_empty() {
                ranges.push(st.snapshot_table);
            }
        }
        for (a, b) in ranges {
            metadata.extend(a >> geo.cluster_bits..b.div_ceil(geo.cluster()));
        }
        {
            let mut t = self.tables.write();
            metadata.extend(t.l1.iter().map(|e| (e & OFFSET_MASK) >> geo.cluster_bits).filter(|c| *c != 0));
            t.metadata = metadata;
            self.meta.lock().rc = Refcounts::new(geo, reftable, at, clusters);
        }
        self.repair()?;
        self.load_bitmaps(true)?;
        let mut st = self.state.lock();
        st.incompatible &= !header::INCOMPAT_DIRTY;
        let keep = st.autoclear & super::bitmaps::AUTOCLEAR_BITMAPS;
        if hdr.version >= 3 && st.autoclear != keep {
            self.file_write(88, &keep.to_be_bytes())
                .and_then(|()| self.barrier())
                .map_err(|e| BlockError::io("Could not update qcow2 header", e))?;
            st.autoclear = keep;
        }
        self.read_only.store(false, Release);
        Ok(())
    }

    /// Switches between read-only and writable. No transfers are under way.
    pub(super) fn reopen(&self, read_only: bool) -> Result<()> {
        let perms = |ro| {
            let (want, shared) = crate::raw::format_perms(ro);
            self.file.set(want, shared)
        };
        if !read_only {
            perms(false)?;
            return self.start_writing().inspect_err(|_| {
                // Giving permissions up cannot conflict.
                let _ = perms(true);
            });
        }
        self.settle()
            .and_then(|()| self.store_bitmaps())
            .map_err(|e| BlockError::io("Failed to flush the image", e))?;
        self.read_only.store(true, Release);
        perms(true)
    }
}
