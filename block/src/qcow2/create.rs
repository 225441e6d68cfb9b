//! Making a new, empty image.

use super::header::{Geo, COMPAT_LAZY_REFCOUNTS, MAGIC, MAX_L1_BYTES};
use crate::error::{BlockError, Result};
use crate::node::Node;

/// What the image shall be.
#[derive(Clone, Debug)]
pub(crate) struct CreateOpts {
    pub size: u64,
    pub version: u32,
    pub cluster_bits: u32,
    pub refcount_order: u32,
    pub lazy_refcounts: bool,
    /// Name and format of the backing image.
    pub backing: Option<(String, String)>,
    /// Clusters are compressed with zstd rather than zlib.
    pub zstd: bool,
}

impl CreateOpts {
    pub(crate) fn new(size: u64) -> CreateOpts {
        CreateOpts {
            size,
            version: 3,
            cluster_bits: 16,
            refcount_order: 4,
            lazy_refcounts: false,
            backing: None,
            zstd: false,
        }
    }
}

/// Writes an empty image into `file`, which should be empty. Layout: header, refcount table, refcount blocks, L1.
pub(crate) fn create(file: &Node, o: &CreateOpts) -> Result<()> {
    let geo = Geo { cluster_bits: o.cluster_bits, refcount_order: o.refcount_order };
    let c = geo.cluster();
    let l1_entries = geo.l1_entries(o.size);
    if l1_entries * 8 > MAX_L1_BYTES {
        return Err(BlockError::text("Image size too large for this cluster size"));
    }
    let l1_clusters = (l1_entries * 8).div_ceil(c);
    let (mut rt, mut blocks) = (1u64, 1u64);
    loop {
        let b = (1 + rt + blocks + l1_clusters).div_ceil(1 << geo.rb_bits());
        let t = (b * 8).div_ceil(c);
        if (b, t) == (blocks, rt) {
            break;
        }
        (blocks, rt) = (b, t);
    }
    let used = 1 + rt + blocks + l1_clusters;
    let put = |off: u64, data: &[u8]| {
        file.pwrite(off, data).map_err(|e| BlockError::io("Could not write qcow2 metadata", e))
    };
    let mut table = vec![0u8; (rt * c) as usize];
    for b in 0..blocks {
        let at = (1 + rt + b) * c;
        table[8 * b as usize..8 * b as usize + 8].copy_from_slice(&at.to_be_bytes());
        let mut block = vec![0u8; c as usize];
        let per = 1u64 << geo.rb_bits();
        let n = used.saturating_sub(b * per).min(per);
        super::refcount::fill_ones(&geo, &mut block, n as usize);
        put(at, &block)?;
    }
    put(c, &table)?;
    let l1 = (1 + rt + blocks) * c;
    file.driver()
        .write_zeroes(l1, l1_clusters * c, false)
        .map_err(|e| BlockError::io("Could not write qcow2 metadata", e))?;
    put(0, &header_bytes(o, &geo, l1_entries as u32, l1, rt as u32)?)
}

/// Names of the feature bits, for programs that do not know them: kind, bit, name.
const FEATURES: [(u8, u8, &str); 8] = [
    (0, 0, "dirty bit"),
    (0, 1, "corrupt bit"),
    (0, 2, "external data file"),
    (0, 3, "compression type"),
    (0, 4, "extended L2 entries"),
    (1, 0, "lazy refcounts"),
    (2, 0, "bitmaps"),
    (2, 1, "raw external data"),
];

fn header_bytes(o: &CreateOpts, geo: &Geo, l1_size: u32, l1: u64, rt: u32) -> Result<Vec<u8>> {
    let mut h = vec![0u8; if o.version >= 3 { 112 } else { 72 }];
    let mut p32 = |at: usize, v: u32| h[at..at + 4].copy_from_slice(&v.to_be_bytes());
    p32(0, MAGIC);
    p32(4, o.version);
    p32(20, o.cluster_bits);
    p32(36, l1_size);
    p32(56, rt);
    if o.version >= 3 {
        p32(76, if o.zstd { super::header::INCOMPAT_COMPRESSION as u32 } else { 0 });
        p32(84, if o.lazy_refcounts { COMPAT_LAZY_REFCOUNTS as u32 } else { 0 });
        p32(96, o.refcount_order);
        p32(100, 112);
        h[104] = u8::from(o.zstd);
    }
    let mut p64 = |at: usize, v: u64| h[at..at + 8].copy_from_slice(&v.to_be_bytes());
    p64(24, o.size);
    p64(40, l1);
    p64(48, geo.cluster());
    let mut ext = |kind: u32, data: &[u8]| {
        h.extend(kind.to_be_bytes());
        h.extend((data.len() as u32).to_be_bytes());
        h.extend(data);
        h.resize(h.len().div_ceil(8) * 8, 0);
    };
    if let Some((_, format)) = o.backing.as_ref().filter(|b| !b.1.is_empty()) {
        ext(0xe279_2aca, format.as_bytes());
    }
    if o.version >= 3 && geo.cluster() > 512 {
        let mut table = Vec::with_capacity(48 * FEATURES.len());
        for (kind, bit, name) in FEATURES {
            table.extend([kind, bit]);
            table.extend(name.as_bytes());
            table.resize(table.len().div_ceil(48) * 48, 0);
        }
        ext(0x6803_f857, &table);
    }
    ext(0, &[]);
    if let Some((name, _)) = &o.backing {
        let at = h.len() as u64;
        h[8..16].copy_from_slice(&at.to_be_bytes());
        h[16..20].copy_from_slice(&(name.len() as u32).to_be_bytes());
        h.extend(name.as_bytes());
        if name.len() > 1023 || h.len() as u64 > geo.cluster() {
            return Err(BlockError::text("Backing file name too long"));
        }
    }
    // The rest of the cluster is a hole.
    h.resize((h.len().div_ceil(4096) * 4096).min(geo.cluster() as usize), 0);
    Ok(h)
}
