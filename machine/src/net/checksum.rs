//! The Internet checksum (RFC 1071), and what cards need of it.

/// Adds the 16-bit big-endian words of `data` to `sum`; an odd last byte counts as the high half of a word.
pub fn add(sum: u32, data: &[u8]) -> u32 {
    let mut s = u64::from(sum);
    let words = data.chunks_exact(2);
    if let [last] = words.remainder() {
        s += u64::from(*last) << 8;
    }
    s += words.map(|w| u64::from(u16::from_be_bytes([w[0], w[1]]))).sum::<u64>();
    while s >> 32 != 0 {
        s = (s & 0xffff_ffff) + (s >> 32);
    }
    s as u32
}

/// The complement of a sum, folded to 16 bits.
pub fn finish(mut sum: u32) -> u16 {
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Computes the checksum of `frame[start..]` and writes it at `start + offset`. The field holds the sum of the
/// pseudo header so far.
pub fn fill(frame: &mut [u8], start: usize, offset: usize) {
    let Some(data) = frame.get(start..) else { return };
    let sum = finish(add(0, data));
    if let Some(field) = frame.get_mut(start + offset..start + offset + 2) {
        field.copy_from_slice(&sum.to_be_bytes());
    }
}

/// Whether an Ethernet frame is a DHCP server's answer (UDP over IPv4 from port 67).
pub fn is_dhcp_reply(frame: &[u8]) -> bool {
    const ETH: usize = 14;
    frame.len() < 1500
        && frame.get(12..14) == Some(&[8, 0])
        && frame.get(ETH + 9) == Some(&17)
        && frame.get(34..36) == Some(&[0, 67])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn example_of_the_rfc() {
        let data = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(finish(add(0, &data)), !0xddf2);
        assert_eq!(finish(add(add(0, &data[..4]), &data[4..])), !0xddf2);
        assert_eq!(finish(add(0, &[1])), !0x0100);
    }

    #[test]
    fn fill_stays_inside() {
        let mut f = vec![0; 20];
        fill(&mut f, 19, 6);
        fill(&mut f, 50, 6);
        assert_eq!(f, vec![0; 20]);
    }
}
