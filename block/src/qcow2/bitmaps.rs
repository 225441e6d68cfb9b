//! Persistent dirty bitmaps.
//!
//! While an image is open for writing its bitmaps live in memory and are marked "in use" on the host: after a crash they
//! are known to be stale. They are written when the image is closed: data and tables, directory, barrier, header.

use super::header::{self, be64, Header};
use super::tables::OFFSET_MASK;
use super::Qcow2;
use crate::bitmap::DirtyBitmap;
use crate::error::{BlockError, Errno, IoResult, Result};
use crate::node::Node;
use serde_json::{json, Value};
use std::sync::Arc;

pub(crate) const EXT_BITMAPS: u32 = 0x2385_2875;
pub(crate) const AUTOCLEAR_BITMAPS: u64 = 1;
const MAX_BITMAPS: u32 = 65535;
const MAX_DIRECTORY: u64 = 64 << 20;
const MAX_TABLE: u32 = 1 << 24;
const IN_USE: u32 = 1;
const AUTO: u32 = 2;

/// An entry of the directory.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    table: u64,
    entries: u32,
    flags: u32,
    granularity_bits: u8,
    name: String,
}

impl Entry {
    fn bytes(&self) -> Vec<u8> {
        let mut b = Vec::with_capacity(24 + self.name.len() + 8);
        b.extend(self.table.to_be_bytes());
        b.extend(self.entries.to_be_bytes());
        b.extend(self.flags.to_be_bytes());
        b.extend([1, self.granularity_bits]);
        b.extend((self.name.len() as u16).to_be_bytes());
        b.extend(0u32.to_be_bytes());
        b.extend(self.name.as_bytes());
        b.resize(b.len().div_ceil(8) * 8, 0);
        b
    }
}

/// Where the directory is: offset, bytes, entries.
pub(crate) type Place = (u64, u64, u32);

/// Reads the extension's data.
pub(crate) fn place(data: &[u8]) -> Result<Place> {
    let bad = || BlockError::text("bitmaps_ext: Invalid extension length");
    if data.len() != 24 {
        return Err(bad());
    }
    let n = (be64(data, 0) >> 32) as u32;
    let (size, at) = (be64(data, 8), be64(data, 16));
    if n == 0 || n > MAX_BITMAPS {
        return Err(BlockError::text("bitmaps_ext: invalid number of bitmaps"));
    }
    if size == 0 || size > MAX_DIRECTORY || at % 512 != 0 || at.checked_add(size).is_none() {
        return Err(BlockError::text("bitmaps_ext: invalid directory"));
    }
    Ok((at, size, n))
}

/// Reads and checks the directory.
pub(super) fn directory(node: &Node, hdr: &Header, (at, size, n): Place) -> Result<Vec<Entry>> {
    let bad = || BlockError::text("Broken bitmap directory");
    if hdr.geo.in_cluster(at) != 0 {
        return Err(bad());
    }
    let d = super::open::read_at(node, at, size, "bitmap directory")?;
    let (mut list, mut i) = (Vec::new(), 0usize);
    while i < d.len() {
        let h = d.get(i..i + 24).ok_or_else(bad)?;
        let be32 = |k: usize| u32::from_be_bytes([h[k], h[k + 1], h[k + 2], h[k + 3]]);
        let (name_len, extra) = (usize::from(u16::from_be_bytes([h[18], h[19]])), be32(20));
        let e = Entry {
            table: be64(h, 0),
            entries: be32(8),
            flags: be32(12),
            granularity_bits: h[17],
            name: String::from_utf8_lossy(d.get(i + 24..i + 24 + name_len).ok_or_else(bad)?).into_owned(),
        };
        let known = h[16] == 1 && e.flags & !(IN_USE | AUTO) == 0 && extra == 0;
        let sane = (9..=31).contains(&e.granularity_bits)
            && e.entries <= MAX_TABLE
            && hdr.geo.in_cluster(e.table) == 0
            && (1..=1023).contains(&name_len);
        if !known || !sane {
            return Err(bad());
        }
        list.push(e);
        i += (24 + name_len).div_ceil(8) * 8;
    }
    if list.len() as u32 != n {
        return Err(bad());
    }
    Ok(list)
}

impl Qcow2 {
    fn table_of(&self, e: &Entry) -> Result<Vec<u64>, Errno> {
        let mut buf = vec![0u8; e.entries as usize * 8];
        self.file_read(e.table, &mut buf)?;
        Ok(super::open::be64s(&buf))
    }

    /// Host ranges of everything that belongs to the bitmaps.
    fn bitmap_ranges(&self, place: Place, list: &[Entry]) -> Result<Vec<(u64, u64)>, Errno> {
        let c = self.cluster();
        let mut r = vec![(place.0, place.0 + place.1)];
        for e in list {
            if e.entries > 0 {
                r.push((e.table, e.table + u64::from(e.entries) * 8));
            }
            for v in self.table_of(e)? {
                let at = v & OFFSET_MASK;
                if self.hdr.geo.in_cluster(at) != 0 {
                    return Err(Errno::EIO);
                }
                if at != 0 {
                    r.push((at, at + c));
                }
            }
        }
        Ok(r)
    }

    fn load_bits(&self, e: &Entry, b: &DirtyBitmap) -> IoResult {
        let c = self.cluster();
        let mut buf = vec![0u8; c as usize];
        for (i, v) in self.table_of(e)?.into_iter().enumerate() {
            let first = i as u64 * c * 8;
            match (v & OFFSET_MASK, v & 1) {
                (0, 0) => {}
                (0, _) => b.set(first << b.shift, (c * 8) << b.shift, true),
                (at, _) => {
                    self.file_read(at, &mut buf)?;
                    b.load(first, &buf);
                }
            }
        }
        Ok(())
    }

    /// Loads the bitmaps of an image that is opened. For writing they are marked in use.
    pub(super) fn load_bitmaps(&self, write: bool) -> Result<()> {
        let fail = |e: Errno| BlockError::io("Could not load bitmaps", e);
        let (Some(place), true) = (self.hdr.bitmaps, self.state.lock().autoclear & AUTOCLEAR_BITMAPS != 0)
        else {
            return Ok(());
        };
        let mut list = directory(self.file.node(), &self.hdr, place)?;
        let ranges = self.bitmap_ranges(place, &list).map_err(fail)?;
        let mut bitmaps = Vec::new();
        let size = self.size.load(std::sync::atomic::Ordering::Acquire);
        for e in &mut list {
            let b = DirtyBitmap::new(Some(e.name.clone()), size, 1 << e.granularity_bits);
            let bad = e.flags & IN_USE != 0;
            if !bad {
                self.load_bits(e, &b).map_err(fail)?;
            }
            let on = e.flags & AUTO != 0;
            b.set_flags(|enabled, persistent, _, inconsistent| {
                (*enabled, *persistent, *inconsistent) = (on && !bad && write, true, bad);
            });
            e.flags |= IN_USE;
            bitmaps.push((Arc::new(b), on));
        }
        if write {
            let bytes: Vec<u8> = list.iter().flat_map(Entry::bytes).collect();
            self.file_write(place.0, &bytes).and_then(|()| self.barrier()).map_err(fail)?;
            let bits = self.hdr.geo.cluster_bits;
            let mut t = self.tables.write();
            for (a, b) in &ranges {
                t.metadata.extend(a >> bits..b.div_ceil(1 << bits));
            }
        }
        let mut st = self.state.lock();
        st.other = ranges;
        st.bitmaps = bitmaps.into_iter().map(|(b, _)| b).collect();
        Ok(())
    }

    /// Writes the persistent bitmaps; called when the image is about to be closed.
    pub(super) fn store_bitmaps(&self) -> IoResult {
        let (list, old) = {
            let st = self.state.lock();
            (st.bitmaps.clone(), st.other.clone())
        };
        if list.is_empty() && old.is_empty() {
            return Ok(());
        }
        let c = self.cluster();
        let mut meta = self.meta.lock();
        let mut new: Vec<(u64, u64)> = Vec::new();
        let mut take = |rc: &mut super::refcount::Refcounts, bytes: u64| -> Result<u64, Errno> {
            let n = bytes.div_ceil(c);
            let first = self.allocate_contiguous(rc, n)?;
            let at = first * c;
            new.push((at, at + bytes));
            Ok(at)
        };
        let mut directory = Vec::new();
        for b in &list {
            let bytes = b.to_bytes();
            let mut table = Vec::new();
            for part in bytes.chunks(c as usize) {
                if part.iter().all(|b| *b == 0) {
                    table.push(0u64);
                    continue;
                }
                let at = take(&mut meta.rc, c)?;
                let mut whole = part.to_vec();
                whole.resize(c as usize, 0);
                self.file_write(at, &whole)?;
                table.push(at);
            }
            let raw: Vec<u8> = table.iter().flat_map(|v| v.to_be_bytes()).collect();
            let at = if raw.is_empty() { 0 } else { take(&mut meta.rc, raw.len() as u64)? };
            if !raw.is_empty() {
                self.file_write(at, &raw)?;
            }
            let f = b.facts();
            let flags = if f.inconsistent { IN_USE } else { 0 } | if f.recording { AUTO } else { 0 };
            let e = Entry {
                table: at,
                entries: table.len() as u32,
                flags,
                granularity_bits: b.shift as u8,
                name: b.name.clone().unwrap_or_default(),
            };
            directory.extend(e.bytes());
        }
        let mut extension = None;
        if !list.is_empty() {
            let at = take(&mut meta.rc, directory.len() as u64)?;
            self.file_write(at, &directory)?;
            let mut d = (list.len() as u32).to_be_bytes().to_vec();
            d.extend(0u32.to_be_bytes());
            d.extend((directory.len() as u64).to_be_bytes());
            d.extend(at.to_be_bytes());
            extension = Some(d);
        }
        self.write_refcounts(&mut meta.rc)?;
        self.barrier()?;
        let mut head = vec![0u8; c as usize];
        self.file_read(0, &mut head)?;
        let mut head = header::with_extension(&head, self.hdr.version, EXT_BITMAPS, extension.as_deref())
            .map_err(|_| Errno::EINVAL)?;
        let autoclear = if extension.is_some() { AUTOCLEAR_BITMAPS } else { 0 };
        head[88..96].copy_from_slice(&autoclear.to_be_bytes());
        self.file_write(0, &head)?;
        self.barrier()?;
        for (a, b) in &old {
            let first = a / c;
            self.release(&mut meta.rc, first, b.div_ceil(c) - first, false)?;
        }
        self.write_refcounts(&mut meta.rc)?;
        self.barrier()?;
        let mut t = self.tables.write();
        for (a, b) in &new {
            t.metadata.extend(a / c..b.div_ceil(c));
        }
        drop(t);
        let mut st = self.state.lock();
        st.other = new;
        st.autoclear = autoclear;
        Ok(())
    }

    /// The bitmaps as `ImageInfo` shows them.
    pub(super) fn bitmap_info(&self) -> Vec<Value> {
        let st = self.state.lock();
        st.bitmaps
            .iter()
            .map(|b| {
                let f = b.facts();
                let mut flags = Vec::new();
                if f.inconsistent {
                    flags.push("in-use");
                }
                if f.recording || (self.is_read_only() && !f.inconsistent) {
                    flags.push("auto");
                }
                json!({"flags": flags, "name": b.name, "granularity": f.granularity})
            })
            .collect()
    }
}
