//! The chip's description of itself (CFI query).

/// Bytes of the query structure.
const LEN: usize = 0x52;

/// Size of the buffer for buffered programs, as a power of two.
pub const BUFFER_BITS: u8 = 8;

/// The query structure of a chip of `blocks` erase blocks of `sector` bytes (a multiple of 256).
pub fn table(blocks: u64, sector: u64) -> [u8; LEN] {
    let mut t = [0; LEN];
    let mut put = |at: usize, bytes: &[u8]| t[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x10, b"QRY");
    // Intel's extended command set; its table follows at 0x31.
    put(0x13, &[0x01, 0x00, 0x31, 0x00]);
    // Supply 4.5 to 5.5 V, no programming voltage; typical times: program, buffer, block erase; factors to the longest.
    put(0x1b, &[0x45, 0x55, 0x00, 0x00, 0x07, 0x07, 0x0a, 0x00, 0x04, 0x04, 0x04, 0x00]);
    let size = blocks * sector;
    let bits = if size == 0 { 0 } else { size.ilog2() };
    // Size, x8/x16 interface, buffer, one region of equal blocks.
    put(0x27, &[bits as u8, 0x02, 0x00, BUFFER_BITS, 0x00, 0x01]);
    let (n, unit) = ((blocks.wrapping_sub(1) as u16).to_le_bytes(), ((sector >> 8) as u16).to_le_bytes());
    put(0x2d, &[n[0], n[1], unit[0], unit[1]]);
    put(0x31, b"PRI10");
    // One protection register field.
    put(0x3f, &[0x01]);
    t
}
