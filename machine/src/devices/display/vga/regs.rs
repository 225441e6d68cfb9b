//! Registers behind ports 0x3b0 to 0x3df.

use serde::{Deserialize, Serialize};

/// Bits of the sequencer's registers.
pub(super) mod sr {
    /// Clocking mode.
    pub const CLOCKING: usize = 1;
    /// Planes that the CPU writes.
    pub const MAP_MASK: usize = 2;
    /// Character map select.
    pub const CHAR_MAP: usize = 3;
    /// Memory mode.
    pub const MEMORY: usize = 4;
    /// `CLOCKING`: characters are 8 dots wide, not 9.
    pub const DOTS_8: u8 = 1;
    /// `CLOCKING`: dot clock halved.
    pub const HALF_CLOCK: u8 = 8;
    /// `MEMORY`: chain 4.
    pub const CHAIN4: u8 = 8;
}

/// Bits of the graphics controller's registers.
pub(super) mod gr {
    pub const SET_RESET: usize = 0;
    pub const ENABLE_SET_RESET: usize = 1;
    pub const COLOR_COMPARE: usize = 2;
    /// Rotate count and logical operation.
    pub const ROTATE: usize = 3;
    pub const READ_PLANE: usize = 4;
    pub const MODE: usize = 5;
    pub const MISC: usize = 6;
    pub const DONT_CARE: usize = 7;
    pub const BIT_MASK: usize = 8;
    /// `MODE`: odd/even addressing.
    pub const ODD_EVEN: u8 = 0x10;
    /// `MISC`: graphics, not text.
    pub const GRAPHICS: u8 = 1;
}

/// Bits of the CRT controller's registers.
pub(super) mod cr {
    pub const H_DISPLAY_END: usize = 0x01;
    pub const V_TOTAL: usize = 0x06;
    pub const OVERFLOW: usize = 0x07;
    pub const MAX_SCAN: usize = 0x09;
    pub const CURSOR_START: usize = 0x0a;
    pub const CURSOR_END: usize = 0x0b;
    pub const START_HIGH: usize = 0x0c;
    pub const START_LOW: usize = 0x0d;
    pub const CURSOR_HIGH: usize = 0x0e;
    pub const CURSOR_LOW: usize = 0x0f;
    /// Vertical retrace end; bit 7 protects registers 0 to 7.
    pub const V_SYNC_END: usize = 0x11;
    pub const V_DISPLAY_END: usize = 0x12;
    pub const OFFSET: usize = 0x13;
    pub const MODE: usize = 0x17;
    pub const LINE_COMPARE: usize = 0x18;
}

/// Attribute controller: mode control.
pub(super) const AR_MODE: usize = 0x10;
/// Attribute controller: colour plane enable.
pub(super) const AR_PLANE_ENABLE: usize = 0x12;
/// Attribute controller: colour select.
pub(super) const AR_COLOR_SELECT: usize = 0x14;
/// `ar_index`: the display takes its colours from the palette registers, not the CPU.
pub(super) const AR_VIDEO_ENABLE: u8 = 0x20;

const SR_MASK: [u8; 8] = [0x03, 0x3d, 0x0f, 0x3f, 0x0e, 0, 0, 0xff];
const GR_MASK: [u8; 16] = [0x0f, 0x0f, 0x0f, 0x1f, 0x03, 0x7b, 0x0f, 0x0f, 0xff, 0, 0, 0, 0, 0, 0, 0];
/// Registers of the attribute controller.
const AR_COUNT: usize = 21;
const MSR_COLOR: u8 = 1;
/// Input status 1: vertical retrace, and display disabled.
const ST01_RETRACE: u8 = 0x09;

/// Register contents; also the part of the saved state that has names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Regs {
    pub(super) latch: u32,
    pub(super) sr_index: u8,
    pub(super) sr: Vec<u8>,
    pub(super) gr_index: u8,
    pub(super) gr: Vec<u8>,
    pub(super) ar_index: u8,
    pub(super) ar: Vec<u8>,
    ar_flip_flop: bool,
    pub(super) cr_index: u8,
    pub(super) cr: Vec<u8>,
    pub(super) msr: u8,
    fcr: u8,
    st00: u8,
    st01: u8,
    dac_state: u8,
    dac_sub_index: u8,
    dac_read_index: u8,
    dac_write_index: u8,
    dac_cache: [u8; 3],
    /// DAC entries are 8 bits a colour, not 6.
    pub(super) dac_8bit: bool,
    pub(super) palette: Vec<u8>,
}

impl Default for Regs {
    fn default() -> Self {
        Self {
            latch: 0,
            sr_index: 0,
            sr: vec![0; 8],
            gr_index: 0,
            gr: vec![0; 16],
            ar_index: 0,
            ar: vec![0; AR_COUNT],
            ar_flip_flop: false,
            cr_index: 0,
            cr: vec![0; 256],
            msr: 0,
            fcr: 0,
            st00: 0,
            st01: 0,
            dac_state: 0,
            dac_sub_index: 0,
            dac_read_index: 0,
            dac_write_index: 0,
            dac_cache: [0; 3],
            dac_8bit: false,
            palette: vec![0; 768],
        }
    }
}

impl Regs {
    /// Whether all tables have their sizes and all indices are in range (state from a file).
    pub(super) fn is_sane(&self) -> bool {
        self.sr.len() == 8
            && self.gr.len() == 16
            && self.ar.len() == AR_COUNT
            && self.cr.len() == 256
            && self.palette.len() == 768
            && self.sr_index < 8
            && self.gr_index < 16
            && self.dac_sub_index < 3
    }

    /// The monochrome addresses answer in monochrome mode and the colour ones in colour mode.
    fn silent(&self, port: u16) -> bool {
        let color = self.msr & MSR_COLOR != 0;
        match port {
            0x3b0..=0x3bf => color,
            0x3d0..=0x3df => !color,
            _ => false,
        }
    }

    /// Byte read of `port`.
    pub(super) fn read(&mut self, port: u16) -> u8 {
        if self.silent(port) {
            return 0xff;
        }
        match port {
            0x3c0 if self.ar_flip_flop => 0,
            0x3c0 => self.ar_index,
            0x3c1 => self.ar.get(usize::from(self.ar_index & 0x1f)).copied().unwrap_or(0),
            0x3c2 => self.st00,
            0x3c4 => self.sr_index,
            0x3c5 => self.sr[usize::from(self.sr_index & 7)],
            0x3c7 => self.dac_state,
            0x3c8 => self.dac_write_index,
            0x3c9 => self.dac_read(),
            0x3ca => self.fcr,
            0x3cc => self.msr,
            0x3ce => self.gr_index,
            0x3cf => self.gr[usize::from(self.gr_index & 15)],
            0x3b4 | 0x3d4 => self.cr_index,
            0x3b5 | 0x3d5 => self.cr[usize::from(self.cr_index)],
            0x3ba | 0x3da => {
                // Programs that poll for retrace see every phase after at most two reads.
                self.st01 ^= ST01_RETRACE;
                self.ar_flip_flop = false;
                self.st01
            }
            _ => 0,
        }
    }

    fn dac_read(&mut self) -> u8 {
        let at = usize::from(self.dac_read_index) * 3 + usize::from(self.dac_sub_index);
        let v = self.palette[at];
        self.dac_sub_index += 1;
        if self.dac_sub_index == 3 {
            self.dac_sub_index = 0;
            self.dac_read_index = self.dac_read_index.wrapping_add(1);
        }
        v
    }

    /// Byte write; `true` if the memory window may have changed.
    pub(super) fn write(&mut self, port: u16, v: u8) -> bool {
        if self.silent(port) {
            return false;
        }
        match port {
            0x3c0 => self.attribute_write(v),
            0x3c2 => self.msr = v & !0x10,
            0x3c4 => self.sr_index = v & 7,
            0x3c5 => {
                let i = usize::from(self.sr_index & 7);
                self.sr[i] = v & SR_MASK[i];
                return true;
            }
            0x3c7 => {
                self.dac_read_index = v;
                self.dac_sub_index = 0;
                self.dac_state = 3;
            }
            0x3c8 => {
                self.dac_write_index = v;
                self.dac_sub_index = 0;
                self.dac_state = 0;
            }
            0x3c9 => self.dac_write(v),
            0x3ce => self.gr_index = v & 15,
            0x3cf => {
                let i = usize::from(self.gr_index & 15);
                self.gr[i] = v & GR_MASK[i];
                return true;
            }
            0x3b4 | 0x3d4 => self.cr_index = v,
            0x3b5 | 0x3d5 => self.crtc_write(v),
            0x3ba | 0x3da => self.fcr = v & 0x10,
            _ => {}
        }
        false
    }

    fn attribute_write(&mut self, v: u8) {
        self.ar_flip_flop = !self.ar_flip_flop;
        if self.ar_flip_flop {
            self.ar_index = v & 0x3f;
            return;
        }
        let i = usize::from(self.ar_index & 0x1f);
        let mask = match i {
            0x00..=0x0f | 0x12 => 0x3f,
            0x10 => !0x10,
            0x11 => 0xff,
            0x13 | 0x14 => 0x0f,
            _ => return,
        };
        self.ar[i] = v & mask;
    }

    fn dac_write(&mut self, v: u8) {
        self.dac_cache[usize::from(self.dac_sub_index)] = v;
        self.dac_sub_index += 1;
        if self.dac_sub_index == 3 {
            let at = usize::from(self.dac_write_index) * 3;
            self.palette[at..at + 3].copy_from_slice(&self.dac_cache);
            self.dac_sub_index = 0;
            self.dac_write_index = self.dac_write_index.wrapping_add(1);
        }
    }

    fn crtc_write(&mut self, v: u8) {
        let i = usize::from(self.cr_index);
        if self.cr[cr::V_SYNC_END] & 0x80 != 0 && i <= cr::OVERFLOW {
            // Of the protected registers only the line compare bit can be changed.
            if i == cr::OVERFLOW {
                self.cr[i] = (self.cr[i] & !0x10) | (v & 0x10);
            }
            return;
        }
        self.cr[i] = v;
    }

    /// Colour `i` of the DAC as 8-bit RGB.
    pub(super) fn dac_rgb(&self, i: u8) -> [u8; 3] {
        let at = usize::from(i) * 3;
        let c = [self.palette[at], self.palette[at + 1], self.palette[at + 2]];
        if self.dac_8bit {
            c
        } else {
            c.map(six_to_eight)
        }
    }

    /// Number of picture lines that the CRT controller shows.
    pub(super) fn lines(&self) -> u32 {
        let over = u32::from(self.cr[cr::OVERFLOW]);
        (u32::from(self.cr[cr::V_DISPLAY_END]) | (over & 2) << 7 | (over & 0x40) << 3) + 1
    }

    /// Line at which the screen splits.
    pub(super) fn line_compare(&self) -> u32 {
        let c = |i: usize| u32::from(self.cr[i]);
        c(cr::LINE_COMPARE) | (c(cr::OVERFLOW) & 0x10) << 4 | (c(cr::MAX_SCAN) & 0x40) << 3
    }
}

/// A 6-bit colour as an 8-bit one; the lowest bit fills the gap.
pub(super) fn six_to_eight(v: u8) -> u8 {
    let v = v & 0x3f;
    let low = v & 1;
    v << 2 | low << 1 | low
}
