//! The qcow2 header and its extensions (docs/interop/qcow2 of the QEMU project describes the format).
//! Every number in it is attacker-controlled: sizes are bounded and offsets checked before anything is allocated.

use crate::error::{BlockError, Result};

pub(crate) const MAGIC: u32 = 0x5146_49fb;
/// Incompatible features.
pub(crate) const INCOMPAT_DIRTY: u64 = 1;
pub(crate) const INCOMPAT_CORRUPT: u64 = 2;
pub(crate) const INCOMPAT_DATA_FILE: u64 = 4;
pub(crate) const INCOMPAT_COMPRESSION: u64 = 8;
pub(crate) const INCOMPAT_EXTL2: u64 = 16;
const INCOMPAT_KNOWN: u64 = 31;
/// Compatible features.
pub(crate) const COMPAT_LAZY_REFCOUNTS: u64 = 1;

pub(crate) const MAX_L1_BYTES: u64 = 32 << 20;
pub(crate) const MAX_REFTABLE_BYTES: u64 = 8 << 20;
const MAX_SNAPSHOTS: u32 = 65536;
const MAX_BACKING_NAME: u32 = 1023;

/// Sizes that follow from the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geo {
    pub cluster_bits: u32,
    pub refcount_order: u32,
}

impl Geo {
    pub(crate) fn cluster(&self) -> u64 {
        1 << self.cluster_bits
    }
    /// log2 of the entries of an L2 table.
    pub(crate) fn l2_bits(&self) -> u32 {
        self.cluster_bits - 3
    }
    /// log2 of the entries of a refcount block.
    pub(crate) fn rb_bits(&self) -> u32 {
        self.cluster_bits + 3 - self.refcount_order
    }
    /// Bytes of guest data that one L1 entry covers.
    pub(crate) fn l1_span_bits(&self) -> u32 {
        self.cluster_bits + self.l2_bits()
    }
    pub(crate) fn l1_entries(&self, size: u64) -> u64 {
        size.div_ceil(1 << self.l1_span_bits())
    }
    pub(crate) fn in_cluster(&self, off: u64) -> u64 {
        off & (self.cluster() - 1)
    }
}

/// A parsed header.
#[derive(Clone, Debug)]
pub(crate) struct Header {
    pub version: u32,
    pub geo: Geo,
    pub size: u64,
    pub crypt_method: u32,
    pub l1_size: u32,
    pub l1_offset: u64,
    pub reftable_offset: u64,
    pub reftable_clusters: u32,
    pub nb_snapshots: u32,
    pub snapshots_offset: u64,
    pub incompatible: u64,
    pub compatible: u64,
    pub autoclear: u64,
    pub compression: u8,
    pub backing_file: Option<String>,
    pub backing_format: Option<String>,
    /// Directory of persistent bitmaps.
    pub bitmaps: Option<super::bitmaps::Place>,
}

fn be32(b: &[u8], at: usize) -> u32 {
    b.get(at..at + 4).map_or(0, |s| u32::from_be_bytes([s[0], s[1], s[2], s[3]]))
}

pub(crate) fn be64(b: &[u8], at: usize) -> u64 {
    (u64::from(be32(b, at)) << 32) | u64::from(be32(b, at + 4))
}

fn err<T>(s: impl Into<String>) -> Result<T> {
    Err(BlockError::text(s))
}

/// `head` holds the first cluster at least (or as much of the file as there is, zero-padded to `head.len()`).
pub(crate) fn cluster_bits_of(head: &[u8]) -> Result<u32> {
    if be32(head, 0) != MAGIC {
        return Err(BlockError::NotInFormat("qcow2"));
    }
    let version = be32(head, 4);
    if !(2..=3).contains(&version) {
        return err(format!("Unsupported qcow2 version {version}"));
    }
    let bits = be32(head, 20);
    if !(9..=21).contains(&bits) {
        return err(format!("Unsupported cluster size: 2^{bits}"));
    }
    Ok(bits)
}

impl Header {
    /// Parses the first cluster, whose length is the cluster size.
    pub(crate) fn parse(b: &[u8]) -> Result<Header> {
        let cluster_bits = cluster_bits_of(b)?;
        let version = be32(b, 4);
        let cluster = 1u64 << cluster_bits;
        let (mut incompatible, mut compatible, mut autoclear, mut order, mut hlen) = (0, 0, 0, 4, 72u32);
        if version >= 3 {
            (incompatible, compatible, autoclear) = (be64(b, 72), be64(b, 80), be64(b, 88));
            (order, hlen) = (be32(b, 96), be32(b, 100));
            if hlen < 104 {
                return err("qcow2 header too short");
            }
        }
        if u64::from(hlen) > cluster {
            return err("qcow2 header exceeds cluster size");
        }
        let backing_offset = be64(b, 8);
        if backing_offset > cluster {
            return err("Invalid backing file offset");
        }
        let ext_end = if backing_offset != 0 { backing_offset } else { cluster };
        let ext = Extensions::parse(b, u64::from(hlen), ext_end)?;
        if incompatible & !INCOMPAT_KNOWN != 0 {
            return err(format!("Unsupported qcow2 feature(s): {}", ext.feature_names(incompatible)));
        }
        if order > 6 {
            return err("Reference count entry width too large; may not exceed 64 bits");
        }
        let compression = if version >= 3 && hlen > 104 { b.get(104).copied().unwrap_or(0) } else { 0 };
        let mut h = Header {
            version,
            geo: Geo { cluster_bits, refcount_order: order },
            size: be64(b, 24),
            crypt_method: be32(b, 32),
            l1_size: be32(b, 36),
            l1_offset: be64(b, 40),
            reftable_offset: be64(b, 48),
            reftable_clusters: be32(b, 56),
            nb_snapshots: be32(b, 60),
            snapshots_offset: be64(b, 64),
            incompatible,
            compatible,
            autoclear,
            compression,
            backing_file: None,
            backing_format: ext.backing_format,
            bitmaps: ext.bitmaps,
        };
        h.check()?;
        h.backing_file = backing_name(b, backing_offset, cluster)?;
        h.refuse_what_we_lack()?;
        Ok(h)
    }

    fn check(&self) -> Result<()> {
        let cluster = self.geo.cluster();
        if self.crypt_method > 2 {
            return err(format!("Unsupported encryption method {}", self.crypt_method));
        }
        let rt_bytes = u64::from(self.reftable_clusters) * cluster;
        if rt_bytes > MAX_REFTABLE_BYTES {
            return err("Image does not contain a reference count table")
                .or(err("Reference count table too large"));
        }
        if self.reftable_clusters == 0 {
            return err("Image does not contain a reference count table");
        }
        self.table(self.reftable_offset, rt_bytes, "Reference count")?;
        if self.nb_snapshots > MAX_SNAPSHOTS {
            return err("Snapshot table too large");
        }
        if self.nb_snapshots > 0 {
            self.table(self.snapshots_offset, u64::from(self.nb_snapshots) * 40, "Snapshot")?;
        }
        let l1_bytes = u64::from(self.l1_size) * 8;
        if l1_bytes > MAX_L1_BYTES {
            return err("Active L1 table too large");
        }
        self.table(self.l1_offset, l1_bytes, "Active L1")?;
        if i64::try_from(self.size).is_err() {
            return err("Could not refresh total sector count: File too large");
        }
        if self.geo.l1_entries(self.size) * 8 > MAX_L1_BYTES {
            return err("Image is too big");
        }
        if self.geo.l1_entries(self.size) > u64::from(self.l1_size) {
            return err("L1 table is too small");
        }
        self.disjoint(rt_bytes, l1_bytes)
    }

    fn table(&self, off: u64, bytes: u64, what: &str) -> Result<()> {
        let end = off.checked_add(bytes).filter(|e| i64::try_from(*e).is_ok());
        if self.geo.in_cluster(off) != 0 || end.is_none() {
            return err(format!("{what} table offset invalid"));
        }
        Ok(())
    }

    /// The header cluster, the L1 table and the refcount table must not lie on each other: a write to one would
    /// change the other.
    fn disjoint(&self, rt_bytes: u64, l1_bytes: u64) -> Result<()> {
        let c = self.geo.cluster();
        let l1 = (self.l1_offset, l1_bytes.div_ceil(c) * c);
        let rt = (self.reftable_offset, rt_bytes);
        let clash = |a: (u64, u64), b: (u64, u64)| a.1 > 0 && b.1 > 0 && a.0 < b.0 + b.1 && b.0 < a.0 + a.1;
        if clash((0, c), rt) {
            return err("Reference count table offset invalid");
        }
        if clash((0, c), l1) || clash(l1, rt) {
            return err("Active L1 table offset invalid");
        }
        Ok(())
    }

    fn refuse_what_we_lack(&self) -> Result<()> {
        let lack = |what: &str| Err(BlockError::Unsupported(format!("qcow2 with {what}")));
        if self.crypt_method != 0 {
            return lack("encryption");
        }
        if self.incompatible & INCOMPAT_DATA_FILE != 0 {
            return lack("an external data file");
        }
        if self.incompatible & INCOMPAT_EXTL2 != 0 {
            return lack("extended L2 entries");
        }
        match (self.incompatible & INCOMPAT_COMPRESSION != 0, self.compression) {
            (false, 0) => Ok(()),
            (true, 1) => Ok(()),
            (true, 0) => err("qcow2: Compression type incompatible feature bit must not be set"),
            (false, _) => err("qcow2: Compression type incompatible feature bit must be set"),
            (true, n) => err(format!("qcow2: unknown compression type: {n}")),
        }
    }
}

const EXT_BACKING_FORMAT: u32 = 0xe279_2aca;

/// The header cluster `old` with another backing image (name, format; an empty format is left out).
pub(crate) fn with_backing(old: &[u8], version: u32, name: Option<(&str, &str)>) -> Result<Vec<u8>> {
    let format = name.map(|n| n.1.as_bytes()).filter(|f| !f.is_empty());
    rebuild(old, version, (EXT_BACKING_FORMAT, format), name.map_or(&[], |n| n.0.as_bytes()))
}

/// The header cluster `old` with an extension replaced, added or removed.
pub(crate) fn with_extension(old: &[u8], version: u32, kind: u32, data: Option<&[u8]>) -> Result<Vec<u8>> {
    let (at, len) = (be64(old, 8) as usize, be32(old, 16) as usize);
    let name = if at == 0 { Some(&[][..]) } else { old.get(at..at.saturating_add(len)) };
    rebuild(old, version, (kind, data), name.unwrap_or(&[]))
}

fn rebuild(old: &[u8], version: u32, (kind, data): (u32, Option<&[u8]>), name: &[u8]) -> Result<Vec<u8>> {
    let mut new = vec![0u8; old.len()];
    let head = if version >= 3 { be32(old, 100) as usize } else { 72 };
    let fixed = old.get(..head).ok_or_else(|| BlockError::text("qcow2 header too short"))?;
    let mut out = fixed.to_vec();
    let mut ext = |kind: u32, data: &[u8]| {
        out.extend(kind.to_be_bytes());
        out.extend((data.len() as u32).to_be_bytes());
        out.extend(data);
        out.resize(out.len().div_ceil(8) * 8, 0);
    };
    if let Some(d) = data {
        ext(kind, d);
    }
    let end = match be64(old, 8) as usize {
        0 => old.len(),
        n => n.min(old.len()),
    };
    let mut at = head;
    while at + 8 <= end {
        let (k, len) = (be32(old, at), be32(old, at + 4) as usize);
        let Some(d) = old.get(at + 8..at + 8 + len).filter(|_| k != 0) else { break };
        if k != kind {
            ext(k, d);
        }
        at += 8 + len.div_ceil(8) * 8;
    }
    ext(0, &[]);
    let name_at = if name.is_empty() { 0 } else { out.len() as u64 };
    if name.len() > MAX_BACKING_NAME as usize || out.len() + name.len() > new.len() {
        return err("Backing file name too long");
    }
    out.extend(name);
    out[8..16].copy_from_slice(&name_at.to_be_bytes());
    out[16..20].copy_from_slice(&(name.len() as u32).to_be_bytes());
    new[..out.len()].copy_from_slice(&out);
    Ok(new)
}

fn backing_name(b: &[u8], off: u64, cluster: u64) -> Result<Option<String>> {
    if off == 0 {
        return Ok(None);
    }
    let len = be32(b, 16);
    if u64::from(len) > (cluster - off).min(u64::from(MAX_BACKING_NAME)) {
        return err("Backing file name too long");
    }
    let at = off as usize;
    let Some(raw) = b.get(at..at + len as usize) else { return err("Backing file name too long") };
    let raw = raw.split(|c| *c == 0).next().unwrap_or(&[]);
    if raw.is_empty() {
        return Ok(None);
    }
    match std::str::from_utf8(raw) {
        Ok(s) => Ok(Some(s.to_owned())),
        Err(_) => err("Backing file name is not valid UTF-8"),
    }
}

#[derive(Default)]
struct Extensions {
    backing_format: Option<String>,
    bitmaps: Option<super::bitmaps::Place>,
    features: Vec<(u8, u8, String)>,
}

impl Extensions {
    fn parse(b: &[u8], from: u64, end: u64) -> Result<Extensions> {
        let mut e = Extensions::default();
        let mut at = from;
        while at + 8 <= end {
            let (kind, len) = (be32(b, at as usize), u64::from(be32(b, at as usize + 4)));
            at += 8;
            if kind == 0 {
                break;
            }
            if len > end - at {
                return err("Header extension too large");
            }
            let data = b.get(at as usize..(at + len) as usize).unwrap_or(&[]);
            match kind {
                0xe279_2aca => {
                    if len >= 16 {
                        return err(format!("ERROR: ext_backing_format: len={len} too large (>=16)"));
                    }
                    e.backing_format = Some(String::from_utf8_lossy(data).trim_end_matches('\0').to_owned());
                }
                0x6803_f857 => {
                    for f in data.chunks_exact(48).take(256) {
                        let name = f[2..].split(|c| *c == 0).next().unwrap_or(&[]);
                        e.features.push((f[0], f[1], String::from_utf8_lossy(name).into_owned()));
                    }
                }
                super::bitmaps::EXT_BITMAPS => e.bitmaps = Some(super::bitmaps::place(data)?),
                // Unknown extensions are kept where they are: the header is only ever patched in place.
                _ => {}
            }
            at += len.div_ceil(8) * 8;
        }
        Ok(e)
    }

    fn feature_names(&self, incompatible: u64) -> String {
        let mut unknown = incompatible & !INCOMPAT_KNOWN;
        let mut names: Vec<String> = Vec::new();
        for (kind, bit, name) in &self.features {
            if *kind == 0 && *bit < 64 && unknown & (1 << bit) != 0 {
                names.push(name.clone());
                unknown &= !(1 << bit);
            }
        }
        if unknown != 0 {
            names.push(format!("Unknown incompatible feature: {unknown:x}"));
        }
        names.join(", ")
    }
}
