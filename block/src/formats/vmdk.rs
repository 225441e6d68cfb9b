//! VMware images: sparse extents (also compressed ones, as in OVA files), flat extents, and descriptor files.

use super::{le32, le32s, le64, read, Layout, Place};
use crate::error::{BlockError, Errno, Result};
use crate::iov;
use crate::node::{Edge, Node};
use parking_lot::Mutex;
use serde_json::{json, Value};
use std::collections::HashMap;

/// An extent that a descriptor file names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Sectors.
    pub sectors: u64,
    /// `FLAT`, `SPARSE`, `ZERO`, `VMFS` …
    pub kind: String,
    /// File, relative to the descriptor.
    pub file: Option<String>,
    /// First sector in a flat file.
    pub offset: u64,
}

/// Reads a descriptor: extents and the kind of image.
pub(crate) fn descriptor(text: &str) -> Result<(Vec<Extent>, String)> {
    let mut list = Vec::new();
    let mut kind = String::new();
    for line in text.lines().map(str::trim) {
        if let Some((k, v)) = line.split_once('=') {
            match k.trim() {
                "createType" => kind = v.trim().trim_matches('"').to_owned(),
                "parentCID" if !v.trim().eq_ignore_ascii_case("ffffffff") => {
                    return Err(BlockError::Unsupported("A VMDK image with a parent".into()));
                }
                _ => {}
            }
        }
        let Some(rest) = ["RW ", "RDONLY ", "NOACCESS "].iter().find_map(|a| line.strip_prefix(a)) else {
            continue;
        };
        let (head, tail) = rest.split_once('"').unwrap_or((rest, ""));
        let mut words = head.split_whitespace();
        let sectors = words.next().and_then(|w| w.parse().ok());
        let (Some(sectors), Some(type_)) = (sectors, words.next()) else {
            return Err(BlockError::text(format!("Invalid extent line: {line}")));
        };
        let (file, after) = match tail.split_once('"') {
            Some((f, a)) => (Some(f.to_owned()), a),
            None => (None, ""),
        };
        let offset = after.trim().parse().unwrap_or(0);
        list.push(Extent { sectors, kind: type_.to_owned(), file, offset });
    }
    Ok((list, kind))
}

struct Sparse {
    grain: u64,
    /// Entries of a grain table.
    per_table: u64,
    directory: Vec<u32>,
    packed: bool,
    /// Entry 1 means zeroes.
    zeroed: bool,
    tables: Mutex<HashMap<u32, std::sync::Arc<Vec<u32>>>>,
}

enum Kind {
    Flat(u64),
    Zero,
    Sparse(Sparse),
}

struct Part {
    start: u64,
    len: u64,
    file: usize,
    kind: Kind,
}

pub(super) struct Vmdk {
    parts: Vec<Part>,
    size: u64,
    create_type: String,
}

/// Grain tables kept in memory.
const MAX_TABLES: usize = 4096;

impl Sparse {
    fn open(node: &Node) -> Result<(Sparse, u64, Vec<u8>)> {
        let mut h = read(node, 0, 512, "VMDK header")?;
        if h.starts_with(b"COWD") {
            return Err(BlockError::Unsupported("A VMDK image of type vmfsSparse".into()));
        }
        if !h.starts_with(b"KDMV") {
            return Err(BlockError::text("Could not open image: not a VMDK extent"));
        }
        let text =
            read(node, le64(&h, 28).saturating_mul(512), le64(&h, 36).min(128) * 512, "VMDK descriptor")?;
        if le64(&h, 56) == u64::MAX {
            // Written in one go: the true header stands at the end.
            let end =
                node.len().checked_sub(1024).ok_or_else(|| BlockError::text("VMDK image is too short"))?;
            h = read(node, end, 512, "VMDK footer")?;
            if !h.starts_with(b"KDMV") {
                return Err(BlockError::text("VMDK footer not found"));
            }
        }
        let (version, flags) = (le32(&h, 4), le32(&h, 8));
        let (capacity, grain, per) = (le64(&h, 12), le64(&h, 20), u64::from(le32(&h, 44)));
        let gd = if flags & 2 != 0 { le64(&h, 48) } else { le64(&h, 56) };
        let compress = u16::from_le_bytes([h[77], h[78]]);
        if version > 3 {
            return Err(BlockError::text(format!("Unsupported VMDK version {version}")));
        }
        if !grain.is_power_of_two() || !(1..=4096).contains(&grain) || per == 0 || per > 512 {
            return Err(BlockError::text("Invalid granularity, image may be corrupt"));
        }
        let packed = flags & 0x1_0000 != 0;
        if packed && compress != 1 {
            return Err(BlockError::text("Unsupported VMDK compression"));
        }
        let entries = capacity.div_ceil(grain * per);
        if entries > 512 << 20 >> 2 || gd > 1 << 46 {
            return Err(BlockError::text("L1 size too big"));
        }
        let directory = le32s(&read(node, gd * 512, entries * 4, "VMDK grain directory")?);
        let s = Sparse {
            grain: grain * 512,
            per_table: per,
            directory,
            packed,
            zeroed: flags & 4 != 0,
            tables: Mutex::default(),
        };
        Ok((s, capacity * 512, text))
    }

    fn table(&self, node: &Node, at: u32) -> Result<std::sync::Arc<Vec<u32>>, Errno> {
        if let Some(t) = self.tables.lock().get(&at) {
            return Ok(t.clone());
        }
        let mut buf = vec![0; self.per_table as usize * 4];
        node.read_padded(u64::from(at) * 512, &[iov::own(&mut buf)])?;
        let t = std::sync::Arc::new(le32s(&buf));
        let mut all = self.tables.lock();
        if all.len() >= MAX_TABLES {
            all.clear();
        }
        all.insert(at, t.clone());
        Ok(t)
    }

    fn place(&self, node: &Node, file: usize, off: u64) -> Result<(Place, u64), Errno> {
        let (g, inside) = (off / self.grain, off % self.grain);
        let n = self.grain - inside;
        let table = *self.directory.get((g / self.per_table) as usize).ok_or(Errno::EIO)?;
        if table == 0 {
            let span = self.grain * self.per_table;
            return Ok((Place::Zero, span - off % span));
        }
        let e = *self.table(node, table)?.get((g % self.per_table) as usize).ok_or(Errno::EIO)?;
        if e == 0 || (e == 1 && self.zeroed) {
            return Ok((Place::Zero, n));
        }
        let at = u64::from(e) * 512;
        if !self.packed {
            return Ok((Place::Plain(file, at + inside), n));
        }
        let mut head = [0u8; 12];
        node.read_padded(at, &[iov::own(&mut head)])?;
        Ok((Place::Packed { file, at: at + 12, len: le32(&head, 8), grain: self.grain, inside }, n))
    }
}

impl Vmdk {
    /// `files`: the image, and then the file of each extent that has one.
    pub(super) fn open(files: &[Edge], extents: Vec<Extent>) -> Result<Vmdk> {
        let main = files.first().map(Edge::node).ok_or_else(|| BlockError::text("no file"))?;
        if extents.is_empty() {
            let (s, size, text) = Sparse::open(main)?;
            let text = String::from_utf8_lossy(&text).into_owned();
            let (_, create_type) = descriptor(text.trim_end_matches('\0'))?;
            let parts = vec![Part { start: 0, len: size, file: 0, kind: Kind::Sparse(s) }];
            return Ok(Vmdk { parts, size, create_type });
        }
        let (mut parts, mut start, mut next) = (Vec::new(), 0u64, 1);
        for e in extents {
            let len =
                e.sectors.checked_mul(512).ok_or_else(|| BlockError::text("VMDK extent is too large"))?;
            let file = next;
            let kind = match (e.kind.as_str(), &e.file) {
                ("ZERO", _) => Kind::Zero,
                ("FLAT" | "VMFS", Some(_)) => Kind::Flat(e.offset.saturating_mul(512)),
                ("SPARSE", Some(_)) => {
                    let node = files.get(file).map(Edge::node).ok_or_else(|| BlockError::text("no file"))?;
                    Kind::Sparse(Sparse::open(node)?.0)
                }
                (k, _) => return Err(BlockError::text(format!("Unsupported extent type '{k}'"))),
            };
            next += usize::from(e.file.is_some());
            parts.push(Part { start, len, file, kind });
            start = start.checked_add(len).ok_or_else(|| BlockError::text("VMDK image is too large"))?;
        }
        Ok(Vmdk { parts, size: start, create_type: String::new() })
    }
}

impl Layout for Vmdk {
    fn name(&self) -> &'static str {
        "vmdk"
    }
    fn size(&self) -> u64 {
        self.size
    }
    fn cluster(&self) -> Option<u64> {
        self.parts.iter().find_map(|p| match &p.kind {
            Kind::Sparse(s) => Some(s.grain),
            _ => None,
        })
    }
    fn specific(&self) -> Option<Value> {
        (!self.create_type.is_empty())
            .then(|| json!({"type": "vmdk", "data": {"create-type": self.create_type}}))
    }
    fn place(&self, files: &[Edge], off: u64) -> Result<(Place, u64), Errno> {
        let i = self.parts.partition_point(|p| p.start + p.len <= off);
        let p = self.parts.get(i).ok_or(Errno::EIO)?;
        let (inside, left) = (off - p.start, p.start + p.len - off);
        let (place, n) = match &p.kind {
            Kind::Zero => (Place::Zero, left),
            Kind::Flat(at) => (Place::Plain(p.file, at + inside), left),
            Kind::Sparse(s) => {
                let node = files.get(p.file).ok_or(Errno::EIO)?.node();
                s.place(node, p.file, inside)?
            }
        };
        Ok((place, n.min(left)))
    }
}
