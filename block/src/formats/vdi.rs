//! VirtualBox disk images: a map of 1 MiB blocks.

use super::{le32, le32s, le64, read, Layout, Place};
use crate::error::{BlockError, Errno, Result};
use crate::node::{Edge, Node};

pub(super) struct Vdi {
    size: u64,
    block: u64,
    data: u64,
    map: Vec<u32>,
}

const FREE: u32 = 0xffff_fffe;

impl Vdi {
    pub(super) fn open(node: &Node) -> Result<Vdi> {
        let h = read(node, 0, 512, "VDI header")?;
        let bad = |what: String| Err(BlockError::text(format!("unsupported VDI image ({what})")));
        if le32(&h, 0x40) != 0xbeda_107f {
            return Err(BlockError::NotInFormat("vdi"));
        }
        if le32(&h, 0x44) != 0x0001_0001 {
            let v = le32(&h, 0x44);
            return bad(format!("version {}.{}", v >> 16, v & 0xffff));
        }
        let (map, data, sector) = (le32(&h, 0x154), le32(&h, 0x158), le32(&h, 0x168));
        let (size, block, blocks) = (le64(&h, 0x170), le32(&h, 0x178), le32(&h, 0x180));
        if map % 512 != 0 {
            return bad(format!("unaligned block map offset {map:#x}"));
        }
        if data % 512 != 0 {
            return bad(format!("unaligned data offset {data:#x}"));
        }
        if sector != 512 {
            return bad(format!("sector size {sector} is not 512"));
        }
        if block != 1 << 20 {
            return bad(format!("block size {block} is not 1048576"));
        }
        let size = size.div_ceil(512) * 512;
        if size > u64::from(blocks) * u64::from(block) {
            return bad(format!("disk size {size}, image bitmap has room for {}", u64::from(blocks) << 20));
        }
        // A link to a parent image would show its data where this one has none.
        if h[0x1a8..0x1c8].iter().any(|b| *b != 0) {
            return bad("non-NULL link UUID".into());
        }
        let map = le32s(&read(node, u64::from(map), u64::from(blocks) * 4, "VDI block map")?);
        Ok(Vdi { size, block: u64::from(block), data: u64::from(data), map })
    }
}

impl Layout for Vdi {
    fn name(&self) -> &'static str {
        "vdi"
    }
    fn size(&self) -> u64 {
        self.size
    }
    fn cluster(&self) -> Option<u64> {
        Some(self.block)
    }
    fn place(&self, _: &[Edge], off: u64) -> Result<(Place, u64), Errno> {
        let (i, inside) = (off / self.block, off % self.block);
        let e = *self.map.get(i as usize).ok_or(Errno::EIO)?;
        let n = self.block - inside;
        if e >= FREE {
            return Ok((Place::Zero, n));
        }
        Ok((Place::Plain(0, self.data + u64::from(e) * self.block + inside), n))
    }
}
