//! Hyper-V VHDX images: regions, metadata items and a block allocation table.

use super::{le32, le64, read, Layout, Place};
use crate::error::{BlockError, Errno, Result};
use crate::node::{Edge, Node};

pub(super) struct Vhdx {
    size: u64,
    block: u64,
    /// Payload blocks between two sector bitmap entries.
    ratio: u64,
    bat: Vec<u64>,
}

const fn guid(a: u32, b: u16, c: u16, d: [u8; 8]) -> [u8; 16] {
    let (a, b, c) = (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes());
    [a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7]]
}

const BAT: [u8; 16] = guid(0x2dc2_7766, 0xf623, 0x4200, [0x9d, 0x64, 0x11, 0x5e, 0x9b, 0xfd, 0x4a, 0x08]);
const METADATA: [u8; 16] =
    guid(0x8b7c_a206, 0x4790, 0x4b9a, [0xb8, 0xfe, 0x57, 0x5f, 0x05, 0x0f, 0x88, 0x6e]);
const PARAMETERS: [u8; 16] =
    guid(0xcaa1_6737, 0xfa36, 0x4d43, [0xb3, 0xb6, 0x33, 0xf0, 0xaa, 0x44, 0xe7, 0x6b]);
const DISK_SIZE: [u8; 16] =
    guid(0x2fa5_4224, 0xcd1b, 0x4876, [0xb2, 0x11, 0x5d, 0xbe, 0xd8, 0x3b, 0xf4, 0xb8]);
const SECTOR_SIZE: [u8; 16] =
    guid(0x8141_bf1d, 0xa96f, 0x4709, [0xba, 0x47, 0xf2, 0x33, 0xa8, 0xfa, 0xab, 0x5f]);

fn bad<T>(what: &str) -> Result<T> {
    Err(BlockError::text(format!("VHDX: {what}")))
}

fn entries(table: &[u8], from: usize, count: u32) -> impl Iterator<Item = &[u8]> {
    table.get(from..).unwrap_or(&[]).chunks_exact(32).take(count as usize)
}

impl Vhdx {
    pub(super) fn open(node: &Node) -> Result<Vhdx> {
        if !read(node, 0, 8, "VHDX header")?.starts_with(b"vhdxfile") {
            return Err(BlockError::NotInFormat("vhdx"));
        }
        let head = |at| read(node, at, 4096, "VHDX header").map(|h| (h.starts_with(b"head"), le64(&h, 8), h));
        let (a, b) = (head(64 << 10)?, head(128 << 10)?);
        let h = match (a.0, b.0) {
            (true, true) => {
                if a.1 >= b.1 {
                    a.2
                } else {
                    b.2
                }
            }
            (true, false) => a.2,
            (false, true) => b.2,
            _ => return bad("No valid header found"),
        };
        if h[48..64].iter().any(|b| *b != 0) {
            return bad("the image contains a log that needs to be replayed");
        }
        let regions = read(node, 192 << 10, 64 << 10, "VHDX region table")?;
        if !regions.starts_with(b"regi") {
            return bad("Region table not found");
        }
        let region = |g: [u8; 16]| {
            entries(&regions, 16, le32(&regions, 8).min(2047))
                .find(|e| e[..16] == g)
                .map(|e| (le64(e, 16), u64::from(le32(e, 24))))
        };
        let (Some((bat_at, bat_len)), Some((meta_at, meta_len))) = (region(BAT), region(METADATA)) else {
            return bad("a required region is missing");
        };
        let meta = read(node, meta_at, meta_len.min(1 << 20), "VHDX metadata")?;
        if !meta.starts_with(b"metadata") {
            return bad("Metadata table not found");
        }
        let item = |g: [u8; 16]| {
            let count = le32(&meta, 8) >> 16;
            let e = entries(&meta, 32, count.min(2047)).find(|e| e[..16] == g)?;
            meta.get(le32(e, 16) as usize..)
        };
        let (Some(p), Some(size), Some(sector)) = (item(PARAMETERS), item(DISK_SIZE), item(SECTOR_SIZE))
        else {
            return bad("a required metadata item is missing");
        };
        let (block, flags, size, sector) =
            (u64::from(le32(p, 0)), le32(p, 4), le64(size, 0), u64::from(le32(sector, 0)));
        if flags & 2 != 0 {
            return Err(BlockError::Unsupported("A differencing VHDX image".into()));
        }
        if !block.is_power_of_two()
            || !(1 << 20..=256 << 20).contains(&block)
            || !matches!(sector, 512 | 4096)
        {
            return bad("invalid block or sector size");
        }
        if size % 512 != 0 || size > 64 << 40 {
            return bad("invalid disk size");
        }
        let ratio = (sector << 23) / block;
        let blocks = size.div_ceil(block);
        let need = blocks + blocks.saturating_sub(1) / ratio;
        if need * 8 > bat_len {
            return bad("the block allocation table is too small");
        }
        let raw = read(node, bat_at, need * 8, "VHDX block allocation table")?;
        let bat = raw.chunks_exact(8).map(|c| le64(c, 0)).collect();
        Ok(Vhdx { size, block, ratio, bat })
    }
}

impl Layout for Vhdx {
    fn name(&self) -> &'static str {
        "vhdx"
    }
    fn size(&self) -> u64 {
        self.size
    }
    fn cluster(&self) -> Option<u64> {
        Some(self.block)
    }
    fn place(&self, _: &[Edge], off: u64) -> Result<(Place, u64), Errno> {
        let (i, inside) = (off / self.block, off % self.block);
        let e = *self.bat.get((i + i / self.ratio) as usize).ok_or(Errno::EIO)?;
        let n = self.block - inside;
        match e & 7 {
            0..=3 => Ok((Place::Zero, n)),
            6 => Ok((Place::Plain(0, (e >> 20 << 20) + inside), n)),
            _ => Err(Errno::EIO),
        }
    }
}
