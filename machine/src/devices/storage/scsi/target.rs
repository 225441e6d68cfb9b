//! What a target answers itself: the list of its units, and commands to units that it does not have.

use super::cdb::op;
use super::{Cdb, Outcome, Sense};

/// REPORT LUNS: `luns` are the units of the target.
fn report_luns(c: &Cdb, lun: u32, luns: &[u32]) -> Result<Vec<u8>, Sense> {
    if lun != 0 {
        return Err(Sense::NO_UNIT);
    }
    // A buffer without room for one entry, or a selection that does not exist.
    if c.len_field() < 16 || c.at(2) > 2 {
        return Err(Sense::INVALID_FIELD);
    }
    // Unit 0 always answers.
    let mut list: Vec<u32> = luns.iter().copied().filter(|l| *l != 0).collect();
    list.sort_unstable();
    list.insert(0, 0);
    let mut d = (list.len() as u32 * 8).to_be_bytes().to_vec();
    d.extend([0; 4]);
    for l in list {
        let high = if l < 256 { 0 } else { 0x40 | (l >> 8) as u8 };
        d.extend([high, l as u8, 0, 0, 0, 0, 0, 0]);
    }
    Ok(d)
}

fn inquiry(c: &Cdb, lun: u32) -> Result<Vec<u8>, Sense> {
    if c.at(1) & 1 != 0 {
        return if c.at(2) == 0 { Ok(vec![0, 0, 1, 0]) } else { Err(Sense::INVALID_FIELD) };
    }
    if c.at(2) != 0 {
        return Err(Sense::INVALID_FIELD);
    }
    let mut d = vec![0; 36];
    if lun != 0 {
        // No device of any type can be there.
        d[0] = 0x7f;
        return Ok(d);
    }
    d[..8].copy_from_slice(&[0x3f, 0, 5, 0x12, 31, 0, 0, 0x12]);
    d[8..32].copy_from_slice(b"QEMU    QEMU TARGET     ");
    d[32..35].copy_from_slice(b"2.5");
    Ok(d)
}

/// Whether the target answers a command to unit `lun` itself; `exists`: it has that unit.
pub fn answers(c: &Cdb, exists: bool) -> bool {
    c.op() == op::REPORT_LUNS || !exists
}

/// Executes such a command.
pub fn execute(c: &Cdb, lun: u32, luns: &[u32]) -> Outcome {
    let done = match c.op() {
        op::REPORT_LUNS => report_luns(c, lun, luns).map(Outcome::Exactly),
        op::INQUIRY => inquiry(c, lun).map(Outcome::Exactly),
        op::REQUEST_SENSE => {
            let s = if lun != 0 { Sense::NO_UNIT } else { Sense::NONE };
            Ok(Outcome::Exactly(if c.at(1) & 1 != 0 { s.descriptor().to_vec() } else { s.fixed().to_vec() }))
        }
        _ if lun != 0 => Err(Sense::NO_UNIT),
        op::TEST_UNIT_READY => Ok(Outcome::Good),
        _ => Err(Sense::INVALID_OPCODE),
    };
    done.unwrap_or_else(Outcome::Check)
}
