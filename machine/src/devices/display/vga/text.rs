//! The picture: text modes.

use super::draw::Rgb;
use super::regs::{cr, sr, AR_MODE};
use super::VgaCore;
use crate::ui::Picture;

/// Most characters on a screen; more come from modes that are half programmed.
const MAX_CELLS: u32 = 160 * 100;
/// The cursor changes between shown and hidden after this long.
const CURSOR_NS: i64 = 1_000_000_000 * 2 * 16 / 70;
/// Attribute controller mode: line graphics characters fill the ninth dot.
const LINE_GRAPHICS: u8 = 4;

/// Sizes of a text screen.
struct Cells {
    columns: u32,
    rows: u32,
    width: u32,
    height: u32,
}

impl VgaCore {
    fn cells(&self) -> Cells {
        let r = &self.regs;
        let clocking = self.sr(sr::CLOCKING);
        let width = match (clocking & sr::HALF_CLOCK, clocking & sr::DOTS_8) {
            (0, 0) => 9,
            (0, _) => 8,
            _ => 16,
        };
        let height = u32::from(r.cr[cr::MAX_SCAN] & 0x1f) + 1;
        // A vertical total of 100 is the 160x100 trick of the CGA.
        let rows = if r.cr[cr::V_TOTAL] == 100 { 100 } else { r.lines() / height };
        Cells { columns: u32::from(r.cr[cr::H_DISPLAY_END]) + 1, rows, width, height }
    }

    /// Draws the text screen; `None` for sizes that no text mode has.
    pub(super) fn draw_text(&mut self, now: i64) -> Option<Picture> {
        let c = self.cells();
        if c.columns * c.rows <= 1 || c.columns * c.rows > MAX_CELLS {
            return None;
        }
        if now >= self.cursor_toggle_ns {
            self.cursor_shown = !self.cursor_shown;
            self.cursor_toggle_ns = now + CURSOR_NS / 2;
        }
        let mut picture = Picture::black(c.columns * c.width, c.rows * c.height);
        let palette = self.palette16();
        let fonts = self.fonts();
        let line_graphics = self.regs.ar[AR_MODE] & LINE_GRAPHICS != 0;
        let line_offset = u64::from(self.regs.cr[cr::OFFSET]) << 3;
        let mut addr = u64::from(self.text_start()) * 4;
        let split = self.regs.line_compare();
        let cursor = self.cursor();
        let mut line = Vec::new();
        for row in 0..c.rows {
            // The split takes effect at the first row that begins at or below it.
            if row > 0 && (row - 1) * c.height < split && row * c.height >= split {
                addr = 0;
            }
            self.fetch(addr, c.columns as usize * 4, &mut line);
            for (column, cell) in line.chunks_exact(4).enumerate() {
                let (ch, attr) = (cell[0], cell[1]);
                let font = &fonts[usize::from(attr >> 3 & 1)];
                let glyph = &font[usize::from(ch) * 32..][..32];
                let colors = (palette[usize::from(attr & 15)], palette[usize::from(attr >> 4)]);
                let ninth = line_graphics && (0xb0..=0xdf).contains(&ch);
                let at = Cell { picture: &mut picture, cells: &c, row, column: column as u32, ninth };
                let here = cursor.filter(|p| p.at == addr + column as u64 * 4);
                at.paint(glyph, colors, here.map(|p| p.lines));
            }
            addr += line_offset;
        }
        Some(picture)
    }

    /// Both fonts: 256 glyphs of 32 rows, from plane 2.
    fn fonts(&self) -> [Vec<u8>; 2] {
        let v = u64::from(self.sr(sr::CHAR_MAP));
        [(v >> 4 & 1) | (v << 1 & 6), (v >> 5 & 1) | (v >> 1 & 6)].map(|block| {
            let mut all = Vec::new();
            self.fetch(block * 8192 * 4, 8192 * 4, &mut all);
            all.iter().skip(2).step_by(4).copied().collect()
        })
    }

    fn cursor(&self) -> Option<Cursor> {
        let r = &self.regs.cr;
        if r[cr::CURSOR_START] & 0x20 != 0 || !self.cursor_shown {
            return None;
        }
        let at = (u64::from(r[cr::CURSOR_HIGH]) << 8 | u64::from(r[cr::CURSOR_LOW])) * 4;
        Some(Cursor {
            at,
            lines: (u32::from(r[cr::CURSOR_START] & 0x1f), u32::from(r[cr::CURSOR_END] & 0x1f)),
        })
    }
}

#[derive(Clone, Copy)]
struct Cursor {
    /// Where its character lies in video memory.
    at: u64,
    /// First and last line of the block.
    lines: (u32, u32),
}

/// One character on the picture.
struct Cell<'a> {
    picture: &'a mut Picture,
    cells: &'a Cells,
    row: u32,
    column: u32,
    /// The ninth dot repeats the eighth.
    ninth: bool,
}

impl Cell<'_> {
    fn paint(self, glyph: &[u8], (fg, bg): (Rgb, Rgb), cursor: Option<(u32, u32)>) {
        let (w, h) = (self.cells.width, self.cells.height);
        for y in 0..h {
            let bits = glyph.get(y as usize).copied().unwrap_or(0);
            let in_cursor = cursor.is_some_and(|(first, last)| y >= first && y <= last);
            let line = (self.row * h + y) * self.picture.width + self.column * w;
            let at = line as usize * 3;
            let Some(pixels) = self.picture.rgb.get_mut(at..at + w as usize * 3) else { return };
            for (x, p) in pixels.chunks_exact_mut(3).enumerate() {
                let on = match (x, w) {
                    _ if in_cursor => true,
                    (8, 9) => self.ninth && bits & 1 != 0,
                    (x, 16) => bits >> (7 - x / 2) & 1 != 0,
                    (x, _) => bits >> (7 - x) & 1 != 0,
                };
                p.copy_from_slice(if on { &fg } else { &bg });
            }
        }
    }
}
