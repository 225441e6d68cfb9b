//! Data that packet commands return.

use super::super::Identity;
use super::asc;
use super::command::Packet;

/// Sectors of an 80-minute CD; a larger medium is a DVD.
const CD_MAX: u64 = 80 * 60 * 75;

/// Whether the medium is a CD.
pub fn is_cd(sectors: u64) -> bool {
    (1..=CD_MAX).contains(&sectors)
}

/// Whether the medium is a DVD.
pub fn is_dvd(sectors: u64) -> bool {
    sectors > CD_MAX
}

fn padded(out: &mut Vec<u8>, s: &str, len: usize) {
    out.extend(s.bytes().chain(std::iter::repeat(b' ')).take(len));
}

/// Minute, second, frame of a sector, with the two seconds of lead-in.
fn msf(lba: u32) -> [u8; 3] {
    let f = u64::from(lba) + 150;
    [(f / 75 / 60) as u8, (f / 75 % 60) as u8, (f % 75) as u8]
}

/// INQUIRY: standard data, or the vital product data pages 00h and 83h.
pub fn inquiry(id: &Identity, p: &Packet) -> Option<Vec<u8>> {
    if p.0[1] & 1 == 0 {
        // CD-ROM, removable, MMC, 31 more bytes.
        let mut d = vec![5, 0x80, 0, 0x21, 31, 0, 0, 0];
        padded(&mut d, "QEMU", 8);
        padded(&mut d, &id.model, 16);
        padded(&mut d, &id.version, 4);
        return Some(d);
    }
    match p.0[2] {
        0x00 => Some(vec![5, 0, 0, 2, 0x00, 0x83]),
        0x83 => {
            // One designator: ASCII, vendor specific.
            let mut d = vec![5, 0x83, 0, 0, 2, 0, 0, 20];
            padded(&mut d, &id.serial, 20);
            if id.wwn != 0 {
                d.extend_from_slice(&[1, 3, 0, 8]);
                d.extend_from_slice(&id.wwn.to_be_bytes());
            }
            d[3] = (d.len() - 4) as u8;
            Some(d)
        }
        _ => None,
    }
}

/// READ TOC: one data track and the lead-out.
pub fn toc(sectors: u64, p: &Packet) -> Option<Vec<u8>> {
    let as_msf = p.0[1] & 2 != 0;
    let total = sectors as u32;
    let address = |d: &mut Vec<u8>, lba: u32| {
        if as_msf {
            let m = msf(lba);
            d.extend_from_slice(&[0, m[0], m[1], m[2]]);
        } else {
            d.extend_from_slice(&lba.to_be_bytes());
        }
    };
    let mut d = vec![0, 0, 1, 1];
    match p.0[9] >> 6 {
        0 => {
            let start = p.0[6];
            if start > 1 && start != 0xaa {
                return None;
            }
            if start <= 1 {
                d.extend_from_slice(&[0, 0x14, 1, 0]);
                address(&mut d, 0);
            }
            d.extend_from_slice(&[0, 0x16, 0xaa, 0]);
            address(&mut d, total);
        }
        // Session information: one session.
        1 => d.extend_from_slice(&[0; 8]),
        // Raw TOC: first track, last track, lead-out, track 1.
        2 => {
            for point in [0xa0, 0xa1, 0xa2, 1] {
                d.extend_from_slice(&[1, 0x14, 0, point, 0, 0, 0]);
                match point {
                    0xa2 => address(&mut d, total),
                    1 => address(&mut d, 0),
                    _ => d.extend_from_slice(&[0, 1, 0, 0]),
                }
            }
        }
        _ => return None,
    }
    let len = (d.len() - 2) as u16;
    d[..2].copy_from_slice(&len.to_be_bytes());
    Some(d)
}

/// GET CONFIGURATION: the profile list. `sectors` is 0 without a medium.
pub fn configuration(sectors: u64, p: &Packet) -> Option<Vec<u8>> {
    // Only the whole list is there.
    if p.be16(2) != 0 {
        return None;
    }
    const DVD_ROM: u8 = 0x10;
    const CD_ROM: u8 = 0x08;
    let current = if is_dvd(sectors) {
        DVD_ROM
    } else if is_cd(sectors) {
        CD_ROM
    } else {
        0
    };
    let on = |profile| u8::from(current == profile);
    let mut d = vec![0, 0, 0, 16, 0, 0, 0, current];
    d.extend_from_slice(&[0, 0, 3, 8]);
    d.extend_from_slice(&[0, DVD_ROM, on(DVD_ROM), 0]);
    d.extend_from_slice(&[0, CD_ROM, on(CD_ROM), 0]);
    Some(d)
}

/// READ DISC INFORMATION, standard type: a finished disc with one session and track.
pub fn disc_information(p: &Packet) -> Option<Vec<u8>> {
    if p.0[1] & 7 != 0 {
        return None;
    }
    let mut d = vec![0; 34];
    d[..8].copy_from_slice(&[0, 32, 0xe, 1, 1, 1, 1, 0x20]);
    Some(d)
}

/// Current values of a mode page, with the header of MODE SENSE (10).
pub fn mode_page(page: u8, locked: bool) -> Option<Vec<u8>> {
    let body: &[u8] = match page {
        // Read error recovery.
        0x01 => &[0x01, 6, 0, 5, 0, 0, 0, 0],
        // Audio control.
        0x0e => &[0x0e, 14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        // Capabilities.
        0x2a => &[0x2a, 20, 0x3b, 0, 0x71, 0x60, 0x29, 0, 0x02, 0xc0, 0, 2, 2, 0, 2, 0xc0, 0, 0, 0, 0, 0, 0],
        _ => return None,
    };
    let mut d = vec![0, (body.len() + 6) as u8, 0x70, 0, 0, 0, 0, 0];
    d.extend_from_slice(body);
    if let (0x2a, Some(b)) = (page, d.get_mut(14)) {
        *b |= u8::from(locked) << 1;
    }
    Some(d)
}

/// READ DVD STRUCTURE; the error is an additional sense code.
pub fn dvd_structure(sectors: u64, p: &Packet) -> Result<Vec<u8>, u8> {
    let (media, format) = (p.0[1], p.0[7]);
    if media != 0 {
        return Err(asc::INVALID_FIELD);
    }
    match format {
        // Physical format: DVD-ROM, 120 mm, one layer of data.
        0x00 => {
            let last = (sectors.saturating_sub(1) as u32).to_be_bytes();
            let mut d = vec![0; 2048 + 4];
            d[..2].copy_from_slice(&(2048u16 + 2).to_be_bytes());
            d[4..8].copy_from_slice(&[1, 0xf, 1, 0]);
            d[12..16].copy_from_slice(&last);
            d[16..20].copy_from_slice(&last);
            Ok(d)
        }
        // Copyright: none.
        0x01 => Ok(vec![0, 6, 0, 0, 0, 0, 0, 0]),
        // Burst cutting area: there is none.
        0x03 => Err(asc::INVALID_FIELD),
        // Disc manufacturing information.
        0x04 => {
            let mut d = vec![0; 2048 + 4];
            d[..2].copy_from_slice(&(2048u16 + 2).to_be_bytes());
            Ok(d)
        }
        // The list of structures.
        0xff => Ok([
            &[0, 18, 0, 0][..],
            &[0x00, 0x40, 0x08, 0x04],
            &[0x01, 0x40, 0x00, 0x08],
            &[0x03, 0x40, 0x00, 0xc0],
            &[0x04, 0x40, 0x08, 0x04],
        ]
        .concat()),
        _ => Err(asc::INVALID_FIELD),
    }
}

/// Appends a mode 1 sector of 2352 bytes: sync, header, user data, and zeroes for EDC and ECC.
pub fn raw_sector(out: &mut Vec<u8>, lba: u32, user: &[u8]) {
    let end = out.len() + 2352;
    out.push(0);
    out.extend_from_slice(&[0xff; 10]);
    out.push(0);
    out.extend_from_slice(&msf(lba));
    out.push(1);
    out.extend_from_slice(user);
    out.resize(end, 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minutes() {
        assert_eq!(msf(0), [0, 2, 0]);
        assert_eq!(msf(0x1400), [1, 10, 20]);
    }

    #[test]
    fn raw() {
        let mut v = Vec::new();
        raw_sector(&mut v, 3, &[7; 2048]);
        assert_eq!((v.len(), v[0], v[11], v[12..16].to_vec()), (2352, 0, 0, vec![0, 2, 3, 1]));
    }
}
