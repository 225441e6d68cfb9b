//! The checksum of Ethernet frames (IEEE 802.3, section 3.2.9).

const TABLE: [u32; 256] = table();

const fn table() -> [u32; 256] {
    let mut t = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut c = i as u32;
        let mut bit = 0;
        while bit < 8 {
            c = if c & 1 != 0 { c >> 1 ^ 0xedb8_8320 } else { c >> 1 };
            bit += 1;
        }
        t[i] = c;
        i += 1;
    }
    t
}

/// CRC-32 of a frame; little-endian behind the frame it is the frame check sequence.
pub fn crc32(data: &[u8]) -> u32 {
    !data.iter().fold(u32::MAX, |c, b| TABLE[((c ^ u32::from(*b)) & 0xff) as usize] ^ c >> 8)
}

/// The number (0 to 63) under which cards keep a multicast address in a table of 64 bits.
pub fn hash6(mac: &[u8; 6]) -> u32 {
    (!crc32(mac)).reverse_bits() >> 26
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_value() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        // All hosts, as in the data sheets' example for 01:00:5e:00:00:01.
        assert!(hash6(&[1, 0, 0x5e, 0, 0, 1]) < 64);
    }
}
