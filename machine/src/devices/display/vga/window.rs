//! The CPU's view of the four planes at 0xa0000.
//!
//! Video memory holds the four planes interleaved: byte `4 * n + p` is byte `n` of plane `p`.

use super::regs::{gr, sr};
use super::VgaCore;

/// Spreads a 4-bit plane mask into a byte per plane.
pub(super) fn planes(mask: u8) -> u32 {
    (0..4).fold(0, |v, p| v | if mask >> p & 1 != 0 { 0xff << (8 * p) } else { 0 })
}

impl VgaCore {
    /// Offset in video memory units of an access at `offset` from 0xa0000; `None` outside the selected window.
    fn window_offset(&self, offset: u64) -> Option<u32> {
        let offset = (offset & 0x1_ffff) as u32;
        match self.regs.gr[gr::MISC] >> 2 & 3 {
            0 => Some(offset),
            1 if offset < 0x1_0000 => Some(offset + self.dispi.bank_offset),
            2 => offset.checked_sub(0x1_0000).filter(|o| *o < 0x8000),
            3 => offset.checked_sub(0x1_8000).filter(|o| *o < 0x8000),
            _ => None,
        }
    }

    /// The part of the window that chain 4 makes linear, as (offset from 0xa0000, size, offset in video memory).
    pub(super) fn linear_window(&self) -> Option<(u64, u64, u64)> {
        if self.sr(sr::MAP_MASK) & 0x0f != 0x0f || self.sr(sr::MEMORY) & sr::CHAIN4 == 0 {
            return None;
        }
        Some(match self.regs.gr[gr::MISC] >> 2 & 3 {
            0 => (0, 0x2_0000, 0),
            1 => (0, 0x1_0000, u64::from(self.dispi.bank_offset)),
            2 => (0x1_0000, 0x8000, 0),
            _ => (0x1_8000, 0x8000, 0),
        })
    }

    fn vram_u8(&self, at: u64) -> u8 {
        let mut b = [0];
        if self.vram.read(at, &mut b) {
            b[0]
        } else {
            0xff
        }
    }

    fn vram_u32(&self, at: u64) -> Option<u32> {
        let mut b = [0; 4];
        self.vram.read(at, &mut b).then(|| u32::from_le_bytes(b))
    }

    /// Byte read at `offset` from 0xa0000.
    pub(super) fn window_read(&mut self, offset: u64) -> u8 {
        let Some(at) = self.window_offset(offset) else { return 0xff };
        if self.sr(sr::MEMORY) & sr::CHAIN4 != 0 {
            return self.vram_u8(u64::from(at));
        }
        if self.regs.gr[gr::MODE] & gr::ODD_EVEN != 0 {
            let plane = u64::from(self.regs.gr[gr::READ_PLANE] & 2) | u64::from(at & 1);
            return self.vram_u8(u64::from(at & !1) * 2 + plane);
        }
        let Some(latch) = self.vram_u32(u64::from(at) * 4) else { return 0xff };
        self.regs.latch = latch;
        if self.regs.gr[gr::MODE] & 8 == 0 {
            let plane = self.regs.gr[gr::READ_PLANE] & 3;
            return (latch >> (8 * plane)) as u8;
        }
        // Read mode 1: ones where all planes that count have the compare colour.
        let differs = (latch ^ planes(self.regs.gr[gr::COLOR_COMPARE])) & planes(self.regs.gr[gr::DONT_CARE]);
        let differs = differs | differs >> 16;
        !(differs | differs >> 8) as u8
    }

    /// Byte write at `offset` from 0xa0000.
    pub(super) fn window_write(&mut self, offset: u64, value: u8) {
        let Some(at) = self.window_offset(offset) else { return };
        let map_mask = self.sr(sr::MAP_MASK);
        if self.sr(sr::MEMORY) & sr::CHAIN4 != 0 {
            if map_mask >> (at & 3) & 1 != 0 {
                self.vram.write(u64::from(at), &[value]);
            }
            return;
        }
        if self.regs.gr[gr::MODE] & gr::ODD_EVEN != 0 {
            let plane = (self.regs.gr[gr::READ_PLANE] & 2) | (at & 1) as u8;
            if map_mask >> plane & 1 != 0 {
                self.vram.write(u64::from(at & !1) * 2 + u64::from(plane), &[value]);
            }
            return;
        }
        self.planar_write(u64::from(at) * 4, value);
    }

    /// The four write modes.
    fn planar_write(&mut self, at: u64, value: u8) {
        let g = &self.regs.gr;
        let rotated = value.rotate_right(u32::from(g[gr::ROTATE] & 7));
        let all = |v: u8| u32::from(v) * 0x0101_0101;
        let mut bits = g[gr::BIT_MASK];
        let set = planes(g[gr::SET_RESET]);
        let data = match g[gr::MODE] & 3 {
            0 => {
                let enable = planes(g[gr::ENABLE_SET_RESET]);
                (all(rotated) & !enable) | (set & enable)
            }
            1 => return self.write_planes(at, self.regs.latch),
            2 => planes(value & 0x0f),
            _ => {
                bits &= rotated;
                set
            }
        };
        let latch = self.regs.latch;
        let data = match g[gr::ROTATE] >> 3 & 3 {
            0 => data,
            1 => data & latch,
            2 => data | latch,
            _ => data ^ latch,
        };
        let bits = all(bits);
        self.write_planes(at, (data & bits) | (latch & !bits));
    }

    fn write_planes(&mut self, at: u64, data: u32) {
        let mask = planes(self.sr(sr::MAP_MASK));
        let Some(old) = self.vram_u32(at) else { return };
        self.vram.write(at, &((old & !mask) | (data & mask)).to_le_bytes());
    }
}
