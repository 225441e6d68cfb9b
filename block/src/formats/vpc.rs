//! Virtual PC / Hyper-V VHD images: fixed, and dynamic with a table of blocks.

use super::{read, Layout, Place};
use crate::error::{BlockError, Errno, Result};
use crate::node::{Edge, Node};

pub(super) struct Vpc {
    size: u64,
    /// Block size and bytes of the bitmap before each block's data; none for a fixed disk.
    blocks: Option<(u64, u64)>,
    table: Vec<u32>,
}

fn be32(b: &[u8], at: usize) -> u32 {
    b.get(at..at + 4).map_or(0, |s| u32::from_be_bytes([s[0], s[1], s[2], s[3]]))
}

fn be64(b: &[u8], at: usize) -> u64 {
    u64::from(be32(b, at)) << 32 | u64::from(be32(b, at + 4))
}

/// Programs whose size field counts, rather than the geometry.
const BY_SIZE: [&[u8; 4]; 6] = [b"win ", b"qem2", b"d2v ", b"tap\0", b"vs  ", b"wa\0\0"];

impl Vpc {
    pub(super) fn open(node: &Node) -> Result<Vpc> {
        let mut f = read(node, 0, 512, "VHD header")?;
        let mut fixed = false;
        if !f.starts_with(b"conectix") {
            let end = node.len();
            if end < 512 {
                return Err(BlockError::NotInFormat("vpc"));
            }
            f = read(node, end - 512, 512, "VHD footer")?;
            fixed = true;
            if !f.starts_with(b"conectix") {
                return Err(BlockError::text("invalid VPC image"));
            }
        }
        let (cyls, heads, secs) = (u64::from(be32(&f, 56) >> 16), u64::from(f[58]), u64::from(f[59]));
        let chs = cyls * heads * secs * 512;
        let by_size = BY_SIZE.iter().any(|c| f[28..32] == **c) || (cyls, heads, secs) == (65535, 16, 255);
        let size = if by_size { be64(&f, 48) } else { chs };
        if size > 2040 << 30 {
            return Err(BlockError::text("VHD image is too large"));
        }
        match (be32(&f, 60), fixed) {
            (2, _) => return Ok(Vpc { size, blocks: None, table: Vec::new() }),
            (3, false) => {}
            (4, _) => return Err(BlockError::Unsupported("A differencing VHD image".into())),
            _ => return Err(BlockError::text("invalid VPC image")),
        }
        let d = read(node, be64(&f, 16), 1024, "VHD dynamic header")?;
        if !d.starts_with(b"cxsparse") {
            return Err(BlockError::text("invalid VPC image"));
        }
        let (at, entries, block) = (be64(&d, 16), be32(&d, 28), u64::from(be32(&d, 32)));
        if !block.is_power_of_two() || block < 512 {
            return Err(BlockError::text(format!("Invalid block size {block}")));
        }
        if u64::from(entries) * block < size {
            return Err(BlockError::text("Page Allocation Table too small"));
        }
        let t = read(node, at, u64::from(entries) * 4, "VHD block table")?;
        let table = t.chunks_exact(4).map(|c| be32(c, 0)).collect();
        let bitmap = (block / (512 * 8)).div_ceil(512) * 512;
        Ok(Vpc { size, blocks: Some((block, bitmap)), table })
    }
}

impl Layout for Vpc {
    fn name(&self) -> &'static str {
        "vpc"
    }
    fn size(&self) -> u64 {
        self.size
    }
    fn cluster(&self) -> Option<u64> {
        self.blocks.map(|b| b.0)
    }
    fn place(&self, _: &[Edge], off: u64) -> Result<(Place, u64), Errno> {
        let Some((block, bitmap)) = self.blocks else {
            return Ok((Place::Plain(0, off), self.size.saturating_sub(off)));
        };
        let (i, inside) = (off / block, off % block);
        let e = *self.table.get(i as usize).ok_or(Errno::EIO)?;
        let n = block - inside;
        if e == u32::MAX {
            return Ok((Place::Zero, n));
        }
        Ok((Place::Plain(0, u64::from(e) * 512 + bitmap + inside), n))
    }
}
