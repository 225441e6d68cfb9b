//! The picture: graphics modes.

use super::regs::{cr, gr, six_to_eight, sr, AR_COLOR_SELECT, AR_MODE, AR_PLANE_ENABLE, AR_VIDEO_ENABLE};
use super::window::planes;
use super::VgaCore;
use crate::ui::Picture;

/// A colour.
pub(super) type Rgb = [u8; 3];

/// How a line of pixels lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// Four planes.
    Planar,
    /// CGA's four colours, two bits a pixel.
    TwoBits,
    /// One byte a pixel.
    Byte,
    /// One byte for two pixels.
    ByteTwice,
    /// 1:5:5:5.
    Rgb15,
    /// 5:6:5.
    Rgb16,
    /// Three bytes a pixel.
    Rgb24,
    /// Four bytes a pixel.
    Rgb32,
}

impl VgaCore {
    /// Draws the screen at virtual time `now`; `None` if there was never anything on it.
    pub(super) fn draw(&mut self, now: i64) -> Option<Picture> {
        let text = self.regs.gr[gr::MISC] & gr::GRAPHICS == 0;
        let shows_text = text && self.regs.ar_index & AR_VIDEO_ENABLE != 0;
        if shows_text && !self.showed_text {
            self.cursor_toggle_ns = now;
        }
        self.showed_text = shows_text;
        if self.regs.ar_index & AR_VIDEO_ENABLE == 0 {
            return self.blank();
        }
        let picture = if text { self.draw_text(now) } else { Some(self.draw_graphics()) };
        let Some(picture) = picture else { return self.blank() };
        self.last_size = Some((picture.width, picture.height));
        Some(picture)
    }

    /// What a switched-off screen shows.
    fn blank(&self) -> Option<Picture> {
        self.last_size.map(|(w, h)| Picture::black(w, h))
    }

    /// The 16 colours of text and planar modes, through the attribute controller's palette.
    pub(super) fn palette16(&self) -> [Rgb; 16] {
        let r = &self.regs;
        std::array::from_fn(|i| {
            let v = r.ar[i];
            let select = r.ar[AR_COLOR_SELECT];
            let v = if r.ar[AR_MODE] & 0x80 != 0 {
                (select & 0x0f) << 4 | (v & 0x0f)
            } else {
                (select & 0x0c) << 4 | (v & 0x3f)
            };
            let at = usize::from(v) * 3;
            [r.palette[at], r.palette[at + 1], r.palette[at + 2]].map(six_to_eight)
        })
    }

    fn format(&self) -> Format {
        match self.regs.gr[gr::MODE] >> 5 & 3 {
            0 => Format::Planar,
            1 => Format::TwoBits,
            _ if !self.dispi.enabled() => Format::ByteTwice,
            _ => match self.dispi.mode().2 {
                8 => Format::Byte,
                15 => Format::Rgb15,
                16 => Format::Rgb16,
                24 => Format::Rgb24,
                32 => Format::Rgb32,
                _ => Format::ByteTwice,
            },
        }
    }

    fn draw_graphics(&mut self) -> Picture {
        let dispi = self.dispi.enabled();
        let (width, height) = if dispi {
            let (w, h, _) = self.dispi.mode();
            (w, h)
        } else {
            ((u32::from(self.regs.cr[cr::H_DISPLAY_END]) + 1) * 8, self.regs.lines())
        };
        let format = self.format();
        let doubled =
            matches!(format, Format::Planar | Format::TwoBits) && self.sr(sr::CLOCKING) & sr::HALF_CLOCK != 0;
        let shown = if doubled { width * 2 } else { width };
        let mut painter = Painter {
            format,
            width: width as usize,
            doubled,
            big_endian: self.big_endian,
            plane_mask: planes(self.regs.ar[AR_PLANE_ENABLE] & 0x0f),
            palette16: self.palette16(),
            dac: match format {
                Format::Byte | Format::ByteTwice => (0..=255).map(|i| self.regs.dac_rgb(i)).collect(),
                _ => Vec::new(),
            },
            line: Vec::new(),
        };
        let mut rgb = Vec::with_capacity(shown as usize * height as usize * 3);
        for addr in self.line_addresses(height) {
            self.fetch(addr, painter.bytes(), &mut painter.line);
            painter.paint(&mut rgb);
        }
        Picture { width: shown, height, rgb }
    }

    /// Where in video memory each picture line begins.
    fn line_addresses(&self, height: u32) -> Vec<u64> {
        let r = &self.regs;
        let scan = u32::from(r.cr[cr::MAX_SCAN]);
        let double = scan >> 7;
        let mode = u32::from(r.cr[cr::MODE]);
        let repeat = if mode & 1 == 0 { double } else { (((scan & 0x1f) + 1) << double) - 1 };
        let (start, offset, split) = if self.dispi.enabled() {
            (self.dispi.start, self.dispi.line_offset, u32::from(u16::MAX))
        } else {
            (self.text_start(), u32::from(r.cr[cr::OFFSET]) << 3, r.line_compare())
        };
        let mut out = Vec::with_capacity(height as usize);
        let (mut base, mut row, mut run) = (u64::from(start) * 4, 0u32, repeat);
        for y in 0..height {
            let mut addr = base;
            // CGA and Hercules compatibility: row bits replace address bits 13 or 15 (in bytes of all planes).
            if mode & 1 == 0 {
                let shift = 14 + (mode >> 6 & 1);
                addr = (addr & !(1 << shift)) | u64::from(row & 1) << shift;
            }
            if mode & 2 == 0 {
                addr = (addr & !0x8000) | u64::from(row & 2) << 14;
            }
            out.push(addr);
            if run == 0 {
                let mask = (mode & 3) ^ 3;
                if row & mask == mask {
                    base += u64::from(offset);
                }
                row += 1;
                run = repeat;
            } else {
                run -= 1;
            }
            if y == split {
                base = 0;
            }
        }
        out
    }

    /// Start address of the picture in units of 4 bytes.
    pub(super) fn text_start(&self) -> u32 {
        u32::from(self.regs.cr[cr::START_LOW]) | u32::from(self.regs.cr[cr::START_HIGH]) << 8
    }

    /// Reads `len` bytes of video memory, which wraps at its end.
    pub(super) fn fetch(&self, addr: u64, len: usize, out: &mut Vec<u8>) {
        out.resize(len, 0);
        let at = addr & (self.vram_size - 1);
        let first = len.min((self.vram_size - at) as usize);
        self.vram.read(at, &mut out[..first]);
        // A line is always shorter than video memory.
        self.vram.read(0, &mut out[first..]);
    }
}

/// Turns lines of memory into RGB.
struct Painter {
    format: Format,
    /// Pixels before doubling.
    width: usize,
    doubled: bool,
    big_endian: bool,
    plane_mask: u32,
    palette16: [Rgb; 16],
    dac: Vec<Rgb>,
    line: Vec<u8>,
}

impl Painter {
    /// Bytes of memory that a line takes.
    fn bytes(&self) -> usize {
        match self.format {
            Format::Planar | Format::TwoBits | Format::ByteTwice => self.width / 2,
            Format::Byte => self.width,
            Format::Rgb15 | Format::Rgb16 => self.width * 2,
            Format::Rgb24 => self.width * 3,
            Format::Rgb32 => self.width * 4,
        }
    }

    fn paint(&self, out: &mut Vec<u8>) {
        match self.format {
            Format::Planar => {
                for group in self.line.chunks_exact(4) {
                    let data = self.masked(group);
                    for bit in (0..8).rev() {
                        let i = (0..4).fold(0, |v, p| v | (data >> (8 * p + bit) & 1) << p);
                        self.pixel16(out, i);
                    }
                }
            }
            Format::TwoBits => {
                for group in self.line.chunks_exact(4) {
                    let b = self.masked(group).to_le_bytes();
                    for (low, high) in [(b[0], b[2]), (b[1], b[3])] {
                        for shift in [6, 4, 2, 0] {
                            self.pixel16(out, u32::from(low >> shift & 3 | (high >> shift & 3) << 2));
                        }
                    }
                }
            }
            Format::Byte => self.line.iter().for_each(|b| out.extend(self.dac[usize::from(*b)])),
            Format::ByteTwice => {
                for b in &self.line {
                    let c = self.dac[usize::from(*b)];
                    out.extend(c);
                    out.extend(c);
                }
            }
            Format::Rgb15 | Format::Rgb16 => self.line.chunks_exact(2).for_each(|p| self.pixel_word(out, p)),
            Format::Rgb24 => self.line.chunks_exact(3).for_each(|p| self.pixel_bytes(out, p[0], p[1], p[2])),
            Format::Rgb32 if self.big_endian => {
                self.line.chunks_exact(4).for_each(|p| out.extend([p[1], p[2], p[3]]));
            }
            Format::Rgb32 => self.line.chunks_exact(4).for_each(|p| out.extend([p[2], p[1], p[0]])),
        }
    }

    fn masked(&self, group: &[u8]) -> u32 {
        u32::from_le_bytes([group[0], group[1], group[2], group[3]]) & self.plane_mask
    }

    fn pixel16(&self, out: &mut Vec<u8>, i: u32) {
        let c = self.palette16[(i & 15) as usize];
        out.extend(c);
        if self.doubled {
            out.extend(c);
        }
    }

    fn pixel_word(&self, out: &mut Vec<u8>, p: &[u8]) {
        let v = if self.big_endian { [p[1], p[0]] } else { [p[0], p[1]] };
        let v = u16::from_le_bytes(v);
        // Without fractions of the lowest step, as QEMU has it, except in the native 5:6:5 form.
        let native = self.format == Format::Rgb16 && !self.big_endian;
        let five = |v: u16| ((v & 31) << 3 | if native { (v & 31) >> 2 } else { 0 }) as u8;
        let six = |v: u16| ((v & 63) << 2 | if native { (v & 63) >> 4 } else { 0 }) as u8;
        match self.format {
            Format::Rgb15 => out.extend([five(v >> 10), five(v >> 5), five(v)]),
            _ => out.extend([five(v >> 11), six(v >> 5), five(v)]),
        }
    }

    fn pixel_bytes(&self, out: &mut Vec<u8>, a: u8, b: u8, c: u8) {
        out.extend(if self.big_endian { [a, b, c] } else { [c, b, a] });
    }
}
