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

fn header_bytes(o: &CreateOpts, geo: &Geo, l1_size: u32, l1: u64, rt: u32) -> Result<Vec<u8>> {
    let mut h = vec![0u8; geo.cluster() as usize];
    let mut p32 = |at: usize, v: u32| h[at..at + 4].copy_from_slice(&v.to_be_bytes());
    p32(0, MAGIC);
    p32(4, o.version);
    p32(20, o.cluster_bits);
    p32(36, l1_size);
    p32(56, rt);
    let mut ext = 72usize;
    if o.version >= 3 {
        p32(84, if o.lazy_refcounts { COMPAT_LAZY_REFCOUNTS as u32 } else { 0 });
        p32(96, o.refcount_order);
        p32(100, 104);
        ext = 104;
    }
    let mut p64 = |at: usize, v: u64| h[at..at + 8].copy_from_slice(&v.to_be_bytes());
    p64(24, o.size);
    p64(40, l1);
    p64(48, geo.cluster());
    if let Some((name, format)) = &o.backing {
        let f = format.as_bytes();
        let room = f.len().div_ceil(8) * 8;
        let name_at = ext + 8 + room + 8;
        if name.len() > 1023 || name_at + name.len() > h.len() {
            return Err(BlockError::text("Backing file name too long"));
        }
        h[ext..ext + 4].copy_from_slice(&0xe279_2acau32.to_be_bytes());
        h[ext + 4..ext + 8].copy_from_slice(&(f.len() as u32).to_be_bytes());
        h[ext + 8..ext + 8 + f.len()].copy_from_slice(f);
        h[8..16].copy_from_slice(&(name_at as u64).to_be_bytes());
        h[16..20].copy_from_slice(&(name.len() as u32).to_be_bytes());
        h[name_at..name_at + name.len()].copy_from_slice(name.as_bytes());
    }
    Ok(h)
}
