//! IDENTIFY DEVICE and IDENTIFY PACKET DEVICE data (ATA/ATAPI-6 8.15, 8.16).

use super::super::blk::Disk;
use super::{Drive, Kind, MAX_MULTIPLE};

/// A data structure of 256 little-endian words.
struct Words(Box<[u8; 512]>);

impl Words {
    fn new() -> Self {
        Self(Box::new([0; 512]))
    }

    fn set(&mut self, word: usize, v: u16) {
        if let Some(w) = self.0.get_mut(word * 2..word * 2 + 2) {
            w.copy_from_slice(&v.to_le_bytes());
        }
    }

    fn set_all(&mut self, words: &[(usize, u16)]) {
        for (w, v) in words {
            self.set(*w, *v);
        }
    }

    /// Text with the bytes of each word swapped, padded with spaces.
    fn text(&mut self, word: usize, words: usize, s: &str) {
        let mut bytes = s.bytes().chain(std::iter::repeat(b' '));
        for w in word..word + words {
            let (hi, lo) = (bytes.next().unwrap_or(b' '), bytes.next().unwrap_or(b' '));
            self.set(w, u16::from(hi) << 8 | u16::from(lo));
        }
    }

    /// A 64-bit value, least significant word first.
    fn quad(&mut self, word: usize, v: u64) {
        for i in 0..4 {
            self.set(word + i, (v >> (16 * i)) as u16);
        }
    }
}

/// Word numbers that SET FEATURES changes.
pub(super) const WORD_SINGLE_DMA: usize = 62;
pub(super) const WORD_MULTIWORD_DMA: usize = 63;
pub(super) const WORD_ENABLED: usize = 85;
pub(super) const WORD_ULTRA_DMA: usize = 88;

impl Drive {
    /// The identify data, made at the first use after creation.
    pub(super) fn identify_data(&mut self) -> &[u8; 512] {
        if self.identify.is_none() {
            let w = if self.kind == Kind::Cd { self.packet_words() } else { self.disk_words() };
            self.identify = Some(w.0);
        }
        const EMPTY: &[u8; 512] = &[0; 512];
        self.identify.as_deref().unwrap_or(EMPTY)
    }

    /// Replaces a word of identify data already made.
    pub(super) fn identify_patch(&mut self, word: usize, f: impl FnOnce(u16) -> u16) {
        if let Some(w) = self.identify.as_mut().and_then(|d| d.get_mut(word * 2..word * 2 + 2)) {
            let v = f(u16::from_le_bytes([w[0], w[1]]));
            w.copy_from_slice(&v.to_le_bytes());
        }
    }

    fn identity_words(&self, w: &mut Words) {
        w.text(10, 10, &self.id.serial);
        w.set_all(&[(20, 3), (21, 512), (22, 4)]);
        w.text(23, 4, &self.id.version);
        w.text(27, 20, &self.id.model);
        w.set(48, 1);
    }

    fn wwn_words(&self, w: &mut Words) {
        if self.id.wwn != 0 {
            for i in 0..4 {
                w.set(108 + i, (self.id.wwn >> (48 - 16 * i)) as u16);
            }
        }
    }

    fn disk_words(&self) -> Words {
        let mut w = Words::new();
        let chs = self.chs;
        let total = self.sectors();
        let cyls = self.id.chs.cyls as u16;
        w.set_all(&[
            (0, 0x0040), // fixed disk
            (1, cyls),
            (3, chs.heads as u16),
            (4, chs.secs.wrapping_mul(512) as u16),
            (5, 512),
            (6, chs.secs as u16),
        ]);
        self.identity_words(&mut w);
        w.set_all(&[
            (47, 0x8000 | MAX_MULTIPLE as u16),
            (49, 0x0b00), // IORDY, LBA, DMA
            (51, 0x0200),
            (52, 0x0200),
            (53, 7),
            (54, cyls),
            (55, chs.heads as u16),
            (56, chs.secs as u16),
        ]);
        let by_chs = self.id.chs.cyls.wrapping_mul(chs.heads).wrapping_mul(chs.secs);
        w.set_all(&[(57, by_chs as u16), (58, (by_chs >> 16) as u16)]);
        if self.mult > 0 {
            w.set(59, 0x0100 | self.mult as u16);
        }
        // The 28-bit count cannot say more than this.
        let lba28 = total.min((1 << 28) - 1) as u32;
        w.set_all(&[(60, lba28 as u16), (61, (lba28 >> 16) as u16), (62, 7), (63, 7), (64, 3)]);
        for i in 65..69 {
            w.set(i, 120); // cycle times, ns
        }
        if let Some(deepest) = self.queue_depth.checked_sub(1) {
            w.set_all(&[(75, deepest.into()), (76, 1 << 8)]);
        }
        w.set(69, 1 << 14); // trimmed blocks read back the same
        let wwn = if self.id.wwn == 0 { 0 } else { 1 << 8 };
        let cache = self.disk.as_ref().is_some_and(|d: &Disk| d.backend.write_cache());
        w.set_all(&[
            (80, 0xf0),
            (81, 0x16),
            (82, 0x4021), // NOP, write cache, SMART
            (83, 0x7400), // FLUSH EXT, FLUSH, 48-bit
            (84, 0x4000 | wwn),
            (WORD_ENABLED, if cache { 0x4021 } else { 0x4001 }),
            (86, 0x3400),
            (87, 0x4000 | wwn),
            (WORD_ULTRA_DMA, 0x3f | 1 << 13),
            (93, 0x6001),
        ]);
        w.quad(100, total);
        let ratio = (self.id.physical.max(512) / 512).trailing_zeros();
        w.set(106, 0x6000 | (ratio & 15) as u16);
        self.wwn_words(&mut w);
        w.set_all(&[(169, 1), (217, self.id.rotation)]);
        w
    }

    fn packet_words(&self) -> Words {
        let mut w = Words::new();
        // Packet device, CD-ROM, removable, DRQ within 50 us, 12-byte packets.
        w.set(0, 2 << 14 | 5 << 8 | 1 << 7 | 2 << 5);
        self.identity_words(&mut w);
        let wwn = if self.id.wwn == 0 { 0 } else { 1 << 8 };
        w.set_all(&[
            (49, 0x0300), // LBA, DMA
            (53, 7),
            (62, 7),
            (63, 7),
            (64, 3),
            (65, 0xb4),
            (66, 0xb4),
            (67, 0x12c),
            (68, 0xb4),
            (71, 30),
            (72, 30),
            (75, self.queue_depth.saturating_sub(1).into()),
            (76, u16::from(self.queue_depth > 0) << 8),
            (80, 0x1e),
            (84, wwn),
            (87, wwn),
            (WORD_ULTRA_DMA, 0x3f | 1 << 13),
        ]);
        self.wwn_words(&mut w);
        w
    }
}
