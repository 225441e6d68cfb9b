//! The display interface of Bochs ("VBE dispi", ID 0xb0c5): linear modes up to 32 bits a pixel.

use serde::{Deserialize, Serialize};

use super::regs::{cr, gr, sr, Regs};

/// Register numbers.
pub(super) mod index {
    pub const ID: u16 = 0;
    pub const XRES: u16 = 1;
    pub const YRES: u16 = 2;
    pub const BPP: u16 = 3;
    pub const ENABLE: u16 = 4;
    pub const BANK: u16 = 5;
    pub const VIRT_WIDTH: u16 = 6;
    pub const VIRT_HEIGHT: u16 = 7;
    pub const X_OFFSET: u16 = 8;
    pub const Y_OFFSET: u16 = 9;
    pub const MEMORY_64K: u16 = 10;
}

const ENABLED: u16 = 0x01;
const GET_CAPS: u16 = 0x02;
const DAC_8BIT: u16 = 0x20;
const NO_CLEAR: u16 = 0x80;
const MAX_X: u16 = 16000;
const MAX_Y: u16 = 12000;
const MAX_BPP: u16 = 32;
const NEWEST_ID: u16 = 0xb0c5;
const OLDEST_ID: u16 = 0xb0c0;

/// What a write asks the device to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Todo {
    /// Clear this many bytes at the start of video memory.
    pub clear: u64,
    /// The memory window may have moved.
    pub window: bool,
}

/// Register contents and what follows from them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dispi {
    index: u16,
    regs: [u16; 10],
    /// First byte shown, in units of 4 bytes.
    pub(super) start: u32,
    /// Bytes from line to line.
    pub(super) line_offset: u32,
    /// The sequencer registers that apply while the interface is on; the guest sees the others.
    sr: [u8; 8],
    /// Where the window's 64 KiB begin in video memory.
    pub(super) bank_offset: u32,
}

impl Default for Dispi {
    fn default() -> Self {
        let mut regs = [0; 10];
        regs[0] = NEWEST_ID;
        Self { index: 0, regs, start: 0, line_offset: 0, sr: [0; 8], bank_offset: 0 }
    }
}

impl Dispi {
    fn reg(&self, i: u16) -> u16 {
        self.regs.get(usize::from(i)).copied().unwrap_or(0)
    }

    fn set(&mut self, i: u16, v: u16) {
        if let Some(r) = self.regs.get_mut(usize::from(i)) {
            *r = v;
        }
    }

    /// Whether a mode of this interface is on.
    pub(super) fn enabled(&self) -> bool {
        self.reg(index::ENABLE) & ENABLED != 0
    }

    /// The sequencer registers in force.
    pub(super) fn sequencer<'a>(&'a self, vga: &'a Regs) -> &'a [u8] {
        if self.enabled() {
            &self.sr
        } else {
            &vga.sr
        }
    }

    /// Width, height and bits a pixel of the mode.
    pub(super) fn mode(&self) -> (u32, u32, u16) {
        (u32::from(self.reg(index::XRES)), u32::from(self.reg(index::YRES)), self.reg(index::BPP))
    }

    /// The index port.
    pub(super) fn read_index(&self) -> u16 {
        self.index
    }

    /// The index port.
    pub(super) fn write_index(&mut self, v: u16) {
        self.index = v;
    }

    /// The data port.
    pub(super) fn read_data(&self, vram: u64) -> u16 {
        self.read(self.index, vram)
    }

    /// Register `i`; `vram` is the size of video memory in bytes.
    pub(super) fn read(&self, i: u16, vram: u64) -> u16 {
        if self.reg(index::ENABLE) & GET_CAPS != 0 {
            match i {
                index::XRES => return MAX_X,
                index::YRES => return MAX_Y,
                index::BPP => return MAX_BPP,
                _ => {}
            }
        }
        match i {
            index::MEMORY_64K => (vram >> 16) as u16,
            _ => self.reg(i),
        }
    }

    /// The data port.
    pub(super) fn write_data(&mut self, v: u16, vram: u64, vga: &mut Regs) -> Todo {
        self.write(self.index, v, vram, vga)
    }

    /// Register `i`.
    pub(super) fn write(&mut self, i: u16, v: u16, vram: u64, vga: &mut Regs) -> Todo {
        let mut todo = Todo::default();
        match i {
            index::ID if (OLDEST_ID..=NEWEST_ID).contains(&v) => self.set(i, v),
            index::XRES
            | index::YRES
            | index::BPP
            | index::VIRT_WIDTH
            | index::X_OFFSET
            | index::Y_OFFSET => {
                self.set(i, v);
                self.fix_up(vram, vga);
            }
            index::BANK => {
                let mask = (vram >> 16).saturating_sub(1) as u16;
                self.set(i, v & mask);
                self.bank_offset = u32::from(v & mask) << 16;
                todo.window = true;
            }
            index::ENABLE => {
                if v & ENABLED != 0 && !self.enabled() {
                    self.set(index::VIRT_WIDTH, 0);
                    self.set(index::X_OFFSET, 0);
                    self.set(index::Y_OFFSET, 0);
                    self.set(i, self.reg(i) | ENABLED);
                    self.fix_up(vram, vga);
                    if v & NO_CLEAR == 0 {
                        todo.clear = u64::from(self.reg(index::YRES)) * u64::from(self.line_offset);
                    }
                } else if v & ENABLED == 0 {
                    self.bank_offset = 0;
                }
                vga.dac_8bit = v & DAC_8BIT != 0;
                self.set(i, v);
                self.program_vga(vga);
                todo.window = true;
            }
            _ => {}
        }
        todo
    }

    /// Brings the mode into what video memory can hold, and computes where the picture begins.
    fn fix_up(&mut self, vram: u64, vga: &mut Regs) {
        if !self.enabled() {
            return;
        }
        let bpp = match self.reg(index::BPP) {
            b @ (4 | 8 | 15 | 16 | 24 | 32) => b,
            _ => 8,
        };
        self.set(index::BPP, bpp);
        let bits = if bpp == 15 { 16 } else { u64::from(bpp) };
        let xres = match self.reg(index::XRES).min(MAX_X) & !7 {
            0 => 8,
            x => x,
        };
        self.set(index::XRES, xres);
        let virt = (self.reg(index::VIRT_WIDTH) & !7).clamp(xres, MAX_X);
        self.set(index::VIRT_WIDTH, virt);
        let line = u64::from(virt) * bits / 8;
        let max_y = vram / line;
        let yres = self.reg(index::YRES).clamp(1, MAX_Y);
        let yres = u64::from(yres).min(max_y) as u16;
        self.set(index::YRES, yres);
        let (mut x, mut y) = (self.reg(index::X_OFFSET).min(MAX_X), self.reg(index::Y_OFFSET).min(MAX_Y));
        let mut offset = u64::from(x) * bits / 8 + u64::from(y) * line;
        if offset + u64::from(yres) * line > vram {
            y = 0;
            offset = u64::from(x) * bits / 8;
            if offset + u64::from(yres) * line > vram {
                x = 0;
                offset = 0;
            }
        }
        self.set(index::X_OFFSET, x);
        self.set(index::Y_OFFSET, y);
        // Wraps in small modes, where more lines fit than the register can say.
        self.set(index::VIRT_HEIGHT, max_y as u16);
        self.line_offset = line as u32;
        self.start = (offset / 4) as u32;
        self.program_vga(vga);
    }

    /// Sets the VGA registers that the mode implies, for programs that look at them.
    fn program_vga(&mut self, vga: &mut Regs) {
        if !self.enabled() {
            return;
        }
        let (x, y, bpp) = self.mode();
        vga.gr[gr::MISC] = (vga.gr[gr::MISC] & !0x0c) | 0x04 | gr::GRAPHICS;
        vga.cr[cr::MODE] |= 3;
        vga.cr[cr::OFFSET] = (self.line_offset >> 3) as u8;
        vga.cr[cr::H_DISPLAY_END] = ((x >> 3).wrapping_sub(1)) as u8;
        let h = y.wrapping_sub(1);
        vga.cr[cr::V_DISPLAY_END] = h as u8;
        vga.cr[cr::OVERFLOW] =
            (vga.cr[cr::OVERFLOW] & !0x42) | ((h >> 7) & 2) as u8 | ((h >> 3) & 0x40) as u8 | 0x10;
        vga.cr[cr::MAX_SCAN] = (vga.cr[cr::MAX_SCAN] & !0x9f) | 0x40;
        vga.cr[cr::LINE_COMPARE] = 0xff;
        let shift = if bpp == 4 {
            self.sr[sr::CLOCKING] &= !sr::HALF_CLOCK;
            0
        } else {
            self.sr[sr::MEMORY] |= sr::CHAIN4;
            self.sr[sr::MAP_MASK] |= 0x0f;
            2
        };
        vga.gr[gr::MODE] = (vga.gr[gr::MODE] & !0x60) | shift << 5;
    }
}

impl Dispi {
    /// Whether a state from a file fits `vram` bytes of video memory.
    pub(super) fn is_sane(&self, vram: u64) -> bool {
        u64::from(self.bank_offset) < vram
            && self.mode().0 <= u32::from(MAX_X)
            && self.mode().1 <= u32::from(MAX_Y)
    }
}
