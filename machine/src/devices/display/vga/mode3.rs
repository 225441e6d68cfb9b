//! Text mode for guests that start without firmware.

use super::VgaCore;
use crate::device::Cx;
use crate::ui::font::font;

/// Register values of the IBM VGA's mode 3 (80x25, 9x16 cells).
mod values {
    pub const MISC: u8 = 0x67;
    pub const SEQUENCER: [u8; 5] = [3, 0, 3, 0, 2];
    pub const CRTC: [u8; 25] = [
        0x5f, 0x4f, 0x50, 0x82, 0x55, 0x81, 0xbf, 0x1f, 0, 0x4f, 0x0d, 0x0e, 0, 0, 0, 0, 0x9c, 0x8e, 0x8f,
        0x28, 0x1f, 0x96, 0xb9, 0xa3, 0xff,
    ];
    pub const GRAPHICS: [u8; 9] = [0, 0, 0, 0, 0, 0x10, 0x0e, 0x0f, 0xff];
    pub const ATTRIBUTE: [u8; 21] =
        [0, 1, 2, 3, 4, 5, 0x14, 7, 0x38, 0x39, 0x3a, 0x3b, 0x3c, 0x3d, 0x3e, 0x3f, 0x0c, 0, 0x0f, 8, 0];
}

/// Characters on the screen.
const CELLS: u64 = 80 * 25;

impl VgaCore {
    /// Programs mode 3 (80x25, 16 colours, text at 0xb8000) as a BIOS does: registers, palette, font and an empty screen.
    pub fn firmware_text_mode(&mut self, cx: &mut Cx<'_>) {
        self.reset(cx);
        let r = &mut self.regs;
        let mut out = |port: u16, v: u8| {
            r.write(port, v);
        };
        out(0x3c2, values::MISC);
        for (i, v) in (0..).zip(values::SEQUENCER) {
            out(0x3c4, i);
            out(0x3c5, v);
        }
        for (i, v) in (0..).zip(values::CRTC) {
            out(0x3d4, i);
            out(0x3d5, v);
        }
        for (i, v) in (0..).zip(values::GRAPHICS) {
            out(0x3ce, i);
            out(0x3cf, v);
        }
        for (i, v) in (0..).zip(values::ATTRIBUTE) {
            out(0x3c0, i);
            out(0x3c0, v);
        }
        out(0x3c0, super::regs::AR_VIDEO_ENABLE);
        out(0x3c6, 0xff);
        out(0x3c8, 0);
        for color in 0..64u8 {
            for bit in [2, 1, 0] {
                // EGA colours: two thirds from the primary bits, one third from the secondary ones.
                out(0x3c9, (color >> bit & 1) * 0x2a + (color >> (bit + 3) & 1) * 0x15);
            }
        }
        let font = font(cx.m);
        for (ch, glyph) in (0u64..).zip(font.chunks_exact(16)) {
            for (row, bits) in (0u64..).zip(glyph) {
                self.vram.write((ch * 32 + row) * 4 + 2, &[*bits]);
            }
        }
        for cell in 0..CELLS {
            self.vram.write(cell * 4, b" \x07");
        }
        self.update_window(cx);
    }
}
