//! An 8x16 font for screens that the program draws itself.
//!
//! The font of the installed VGA firmware is used when there is one (read at run time); otherwise a plain ASCII font
//! drawn for this program.

use crate::machine::Machine;

/// Bytes of a font: 256 characters of 16 rows.
pub const FONT_SIZE: usize = 256 * 16;

/// Firmware files that carry the standard font.
const FIRMWARE: [&str; 2] = ["vgabios-stdvga.bin", "vgabios.bin"];
/// Character 1 (a face) of the standard font, by which it is found.
const FACE: [u8; 16] = [0, 0, 0x7e, 0x81, 0xa5, 0x81, 0x81, 0xbd, 0x99, 0x81, 0x81, 0x7e, 0, 0, 0, 0];

/// The characters from space to tilde, 5 dots by 7 rows, top row in the highest bits.
#[rustfmt::skip]
static ASCII: [u64; 95] = [
    0x000000000, 0x108421004, 0x294a00000, 0x295f57d4a, 0x11f4717c4, 0x672222273, 0x32544564d, 0x108800000,
    0x088842082, 0x208210888, 0x009575480, 0x0084f9080, 0x000001888, 0x0000f8000, 0x0000000c6, 0x042222210,
    0x3a33ae62e, 0x11842108e, 0x3a213221f, 0x3a213062e, 0x08ca97c42, 0x7e1e0862e, 0x1910f462e, 0x7c2221108,
    0x3a317462e, 0x3a317844c, 0x00c6018c0, 0x00c601888, 0x088882082, 0x001f07c00, 0x208208888, 0x3a2111004,
    0x3a37ade0f, 0x3a31fc631, 0x7a31f463e, 0x3a308422e, 0x7a318c63e, 0x7e10f421f, 0x7e10f4210, 0x3a30bc62f,
    0x4631fc631, 0x38842108e, 0x1c4210a4c, 0x4654c5251, 0x42108421f, 0x4775ac631, 0x47359c631, 0x3a318c62e,
    0x7a31f4210, 0x3a318d64d, 0x7a31f5251, 0x3e107043e, 0x7c8421084, 0x46318c62e, 0x46318c544, 0x4631ad771,
    0x462a22a31, 0x462a21084, 0x7c222221f, 0x39084210e, 0x420820821, 0x38421084e, 0x115100000, 0x00000001f,
    0x208000000, 0x000e0be2f, 0x421e8c63e, 0x000f8420f, 0x042f8c62f, 0x000e8fe0e, 0x1928e2108, 0x01f18bc2e,
    0x421e8c631, 0x100c2108e, 0x080610a4c, 0x4212a6292, 0x30842108e, 0x001aad6b5, 0x001e8c631, 0x000e8c62e,
    0x03d18fa10, 0x01f18bc21, 0x0016cc210, 0x000f8383e, 0x211c42126, 0x00118c62f, 0x00118c544, 0x0011ad6aa,
    0x001151151, 0x02318bc2e, 0x001f1111f, 0x088441082, 0x108421084, 0x208411088, 0x0008a8800,
];

/// The font: 16 bytes a character, the leftmost dot in the highest bit.
pub fn font(m: &Machine) -> Vec<u8> {
    FIRMWARE
        .iter()
        .filter_map(|name| std::fs::read(m.find_firmware(name)?).ok())
        .find_map(|rom| in_rom(&rom))
        .unwrap_or_else(builtin)
}

/// The standard font in a ROM.
fn in_rom(rom: &[u8]) -> Option<Vec<u8>> {
    let face = rom.windows(FACE.len()).position(|w| w == FACE)?;
    let start = face.checked_sub(16)?;
    rom.get(start..start + FONT_SIZE).map(<[u8]>::to_vec)
}

/// The font of this program.
fn builtin() -> Vec<u8> {
    let mut out = vec![0; FONT_SIZE];
    for (i, glyph) in ASCII.iter().enumerate() {
        for row in 0..7 {
            let dots = (glyph >> (5 * (6 - row)) & 31) as u8;
            // Rows are not doubled: 7 rows in the middle of 16, every dot one pixel wide.
            out[(0x20 + i) * 16 + 4 + row] = dots << 2;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fonts_have_letters() {
        let b = builtin();
        assert_eq!(b.len(), FONT_SIZE);
        // The middle bar of an H.
        assert_eq!(b[usize::from(b'H') * 16 + 7], 0b0111_1100);
        assert!(b[0x21 * 16..0x7f * 16].chunks(16).all(|g| g.iter().any(|r| *r != 0)));
        let mut rom = vec![0xaa; 100];
        rom.extend([0; 16]);
        rom.extend(FACE);
        assert_eq!(in_rom(&rom), None);
        rom.resize(100 + FONT_SIZE, 7);
        assert_eq!(in_rom(&rom).unwrap().len(), FONT_SIZE);
    }
}
