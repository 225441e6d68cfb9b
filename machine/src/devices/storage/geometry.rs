//! Cylinders, heads and sectors of a disk whose size alone is known.

use rqemu_block::BlockBackend;

/// A disk's geometry as its firmware would report it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chs {
    /// Cylinders, 1 to 65535 (2 to 16383 when guessed).
    pub cyls: u32,
    /// Heads, 1 to 16.
    pub heads: u32,
    /// Sectors per track, 1 to 255.
    pub secs: u32,
}

/// How a BIOS turns the geometry into the one it shows to programs (`bios-chs-trans`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Translation {
    #[default]
    Auto,
    None,
    Lba,
    Large,
    Rechs,
}

crate::enum_prop!(Translation, "BiosAtaTranslation",
    "auto" => Translation::Auto, "none" => Translation::None, "lba" => Translation::Lba,
    "large" => Translation::Large, "rechs" => Translation::Rechs);

/// The usual geometry for a size: 16 heads, 63 sectors, as many cylinders as there are (2 to 16383).
fn from_size(sectors: u64) -> Chs {
    let cyls = (sectors / (16 * 63)).clamp(2, 16383) as u32;
    Chs { cyls, heads: 16, secs: 63 }
}

/// Heads and sectors per track that an existing partition table was made for, with the cylinders that result.
fn from_partitions(sectors: u64, mbr: &[u8; 512]) -> Option<Chs> {
    if mbr[510..] != [0x55, 0xaa] {
        return None;
    }
    for p in mbr[0x1be..0x1fe].chunks_exact(16) {
        let len = u32::from_le_bytes([p[12], p[13], p[14], p[15]]);
        // Partitions end on a cylinder boundary, so that the last head and sector give the sizes.
        let heads = u32::from(p[5]) + 1;
        let secs = u32::from(p[6] & 63);
        if len == 0 || p[5] == 0 || secs == 0 {
            continue;
        }
        let cyls = sectors / u64::from(heads * secs);
        if (1..=16383).contains(&cyls) {
            return Some(Chs { cyls: cyls as u32, heads, secs });
        }
    }
    None
}

/// Geometry and translation for a disk whose user gave none.
pub fn guess(disk: &BlockBackend) -> (Chs, Translation) {
    let sectors = disk.len() / 512;
    let mut mbr = [0; 512];
    let table =
        if sectors > 0 && disk.peek(0, &mut mbr).is_ok() { from_partitions(sectors, &mbr) } else { None };
    match table {
        None => {
            let g = from_size(sectors);
            (g, default_translation(g))
        }
        // More heads than ATA can express: the table shows a translated geometry.
        Some(g) if g.heads > 16 => {
            let g2 = from_size(sectors);
            let t = if g2.cyls * g2.heads <= 131_072 { Translation::Large } else { Translation::Lba };
            (g2, t)
        }
        Some(g) => (g, Translation::None),
    }
}

/// Translation that fits a geometry.
pub fn default_translation(g: Chs) -> Translation {
    if g.cyls <= 1024 && g.heads <= 16 && g.secs <= 63 {
        Translation::None
    } else {
        Translation::Lba
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_size() {
        assert_eq!(from_size(131_072), Chs { cyls: 130, heads: 16, secs: 63 });
        assert_eq!(from_size(1).cyls, 2);
        assert_eq!(from_size(u64::MAX / 512).cyls, 16383);
    }

    #[test]
    fn by_partition_table() {
        let mut mbr = [0u8; 512];
        mbr[510] = 0x55;
        mbr[511] = 0xaa;
        assert_eq!(from_partitions(131_072, &mbr), None);
        mbr[0x1be + 5] = 7;
        mbr[0x1be + 6] = 32;
        mbr[0x1be + 12] = 1;
        assert_eq!(from_partitions(131_072, &mbr), Some(Chs { cyls: 512, heads: 8, secs: 32 }));
        mbr[0x1be + 6] = 0;
        assert_eq!(from_partitions(131_072, &mbr), None);
    }
}
