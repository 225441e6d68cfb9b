//! Opening an image: header, tables, checks.

use super::header::{self, Header};
use super::refcount::Refcounts;
use super::tables::{Tables, OFFSET_MASK};
use super::{corrupt, Meta, Qcow2};
use crate::driver::SnapshotInfo;
use crate::error::{BlockError, Result};
use crate::node::{Edge, Node};
use parking_lot::{Condvar, Mutex, RwLock};
use std::sync::Arc;

const MAX_SNAPSHOT_BYTES: u64 = 64 << 20;
const MAX_SNAPSHOT_EXTRA: u32 = 1024;

/// How the user wants it.
pub(crate) struct OpenOpts {
    pub read_only: bool,
    /// `l2-cache-size`.
    pub l2_cache: u64,
}

/// Default bound of the L2 cache, as QEMU's.
pub(crate) const DEFAULT_L2_CACHE: u64 = 32 << 20;

fn read_at(node: &Node, off: u64, len: u64, what: &str) -> Result<Vec<u8>> {
    let mut buf = vec![0u8; len as usize];
    node.driver()
        .readv(off, &[crate::iov::own(&mut buf)])
        .map_err(|e| BlockError::io(format!("Could not read {what}"), e))?;
    Ok(buf)
}

fn be64s(bytes: &[u8]) -> Vec<u64> {
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
    let (snapshots, snapshot_l1, snapshot_end) = read_snapshots(&node, &hdr)?;
    let rt_bytes = u64::from(hdr.reftable_clusters) * geo.cluster();
    let reftable = if o.read_only {
        Vec::new()
    } else {
        be64s(&read_at(&node, hdr.reftable_offset, rt_bytes, "reference count table")?)
    };
    let mut tables = Tables::new(geo, hdr.version, l1, o.l2_cache);
    let l1_bytes = (u64::from(hdr.l1_size) * 8).div_ceil(geo.cluster()) * geo.cluster();
    tables.fixed = vec![
        (0, geo.cluster()),
        (hdr.l1_offset, hdr.l1_offset + l1_bytes),
        (hdr.reftable_offset, hdr.reftable_offset + rt_bytes),
    ];
    if !o.read_only {
        tables.metadata = Qcow2::block_clusters(&geo, &reftable)?;
        let mut ranges = tables.fixed.clone();
        ranges.extend(&snapshot_l1);
        if hdr.nb_snapshots > 0 {
            ranges.push((hdr.snapshots_offset, snapshot_end));
        }
        for (a, b) in ranges {
            tables.metadata.extend(a >> geo.cluster_bits..b.div_ceil(geo.cluster()));
        }
        let l2: Vec<u64> =
            tables.l1.iter().map(|e| (e & OFFSET_MASK) >> geo.cluster_bits).filter(|c| *c != 0).collect();
        tables.metadata.extend(l2);
    }
    let mut q = Qcow2 {
        size: hdr.size.into(),
        file,
        backing,
        read_only: o.read_only,
        tables: RwLock::new(tables),
        meta: Mutex::new(Meta {
            rc: Refcounts::new(geo, reftable, hdr.reftable_offset, u64::from(hdr.reftable_clusters)),
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
        snapshots,
        hdr,
    };
    if !q.read_only {
        q.repair(&snapshot_l1, snapshot_end)?;
        q.hdr.incompatible &= !header::INCOMPAT_DIRTY;
    }
    q.begin_writing()?;
    Ok(Arc::new(q))
}

impl Qcow2 {
    /// Clears the bits that say "nothing has changed behind the back of this feature": we are about to.
    fn begin_writing(&self) -> Result<()> {
        if self.read_only || self.hdr.version < 3 || self.hdr.autoclear == 0 {
            return Ok(());
        }
        self.file_write(88, &0u64.to_be_bytes())
            .and_then(|()| self.barrier())
            .map_err(|e| BlockError::io("Could not update qcow2 header", e))
    }
}

type Ranges = Vec<(u64, u64)>;

/// Reads the snapshot table: what to show, host ranges of the snapshots' L1 tables, end of the table.
fn read_snapshots(node: &Node, hdr: &Header) -> Result<(Vec<SnapshotInfo>, Ranges, u64)> {
    let (mut list, mut ranges, mut at) = (Vec::new(), Vec::new(), hdr.snapshots_offset);
    let mut l1_total = 0;
    for _ in 0..hdr.nb_snapshots {
        at = at.div_ceil(8) * 8;
        if at - hdr.snapshots_offset > MAX_SNAPSHOT_BYTES {
            return Err(BlockError::text("Snapshot table is too big"));
        }
        let h = read_at(node, at, 40, "snapshots")?;
        let be32 = |i: usize| u32::from_be_bytes([h[i], h[i + 1], h[i + 2], h[i + 3]]);
        let be16 = |i: usize| u64::from(u16::from_be_bytes([h[i], h[i + 1]]));
        let (l1_offset, l1_size, extra) = (header::be64(&h, 0), be32(8), be32(36));
        if extra > MAX_SNAPSHOT_EXTRA {
            return Err(BlockError::text("Too much extra metadata in snapshot table entry"));
        }
        let l1_bytes = u64::from(l1_size) * 8;
        let l1_end = l1_offset.checked_add(l1_bytes).filter(|e| i64::try_from(*e).is_ok());
        let (true, true, Some(l1_end)) =
            (l1_bytes <= header::MAX_L1_BYTES, hdr.geo.in_cluster(l1_offset) == 0, l1_end)
        else {
            return Err(BlockError::text("Snapshot L1 table offset invalid"));
        };
        l1_total += l1_bytes;
        if l1_total > MAX_SNAPSHOT_BYTES {
            return Err(BlockError::text("Snapshot L1 tables are too big"));
        }
        ranges.push((l1_offset, l1_end));
        let (id_len, name_len) = (be16(12), be16(14));
        let rest = read_at(node, at + 40, u64::from(extra) + id_len + name_len, "snapshots")?;
        let (x, names) = rest.split_at(extra as usize);
        let (id, name) = names.split_at(id_len as usize);
        let wide = |i: usize| (x.len() >= i + 8).then(|| header::be64(x, i));
        list.push(SnapshotInfo {
            id: String::from_utf8_lossy(id).into_owned(),
            name: String::from_utf8_lossy(name).into_owned(),
            vm_state_size: wide(0).unwrap_or(u64::from(be32(32))),
            date_sec: be32(16),
            date_nsec: be32(20),
            vm_clock_ns: header::be64(&h, 24),
            icount: wide(16).filter(|v| *v != u64::MAX),
        });
        at += 40 + u64::from(extra) + id_len + name_len;
    }
    Ok((list, ranges, at))
}
