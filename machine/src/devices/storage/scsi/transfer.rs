//! Commands that move or change blocks.

use rqemu_block::Op;

use super::cdb::op;
use super::{Cdb, Data, Outcome, Sense, Step, Unit};

/// Most bytes of a pattern that are written with one request.
const PATTERN: u64 = 512 << 10;

impl Unit {
    /// READ and WRITE in all their forms.
    pub(super) fn transfer(&mut self, c: &Cdb) -> Result<Outcome, Sense> {
        let write = match c.op() {
            op::READ_6 | op::READ_10 | op::READ_12 | op::READ_16 => false,
            op::WRITE_6
            | op::WRITE_10
            | op::WRITE_12
            | op::WRITE_16
            | op::WRITE_VERIFY_10
            | op::WRITE_VERIFY_12
            | op::WRITE_VERIFY_16 => true,
            _ => return Err(Sense::INVALID_OPCODE),
        };
        if write && !self.writable() {
            return Err(Sense::WRITE_PROTECTED);
        }
        let long = c.op() >> 5 != 0;
        // Protection information is not there.
        if long && c.at(1) & 0xe0 != 0 {
            return Err(Sense::INVALID_FIELD);
        }
        let (lba, n) = (c.lba(), c.blocks());
        if !self.in_range(lba, n) {
            return Err(Sense::OUT_OF_RANGE);
        }
        if n == 0 {
            return Ok(Outcome::Good);
        }
        let verify = matches!(c.op(), op::WRITE_VERIFY_10 | op::WRITE_VERIFY_12 | op::WRITE_VERIFY_16);
        let fua = write && (verify || (long && c.at(1) & 8 != 0));
        let what = if write { Op::Write { fua } } else { Op::Read };
        Ok(Outcome::io(what, lba * self.block(), n * self.block()))
    }

    /// UNMAP: a list of ranges.
    pub(super) fn unmap(&mut self, c: &Cdb, parameters: &dyn Fn(usize) -> Vec<u8>) -> Result<Outcome, Sense> {
        // Anchored blocks are not there.
        if c.at(1) & 1 != 0 {
            return Err(Sense::INVALID_FIELD);
        }
        let len = usize::from(c.be16(7));
        if len == 0 {
            return Ok(Outcome::Good);
        }
        let p = parameters(len);
        let be16 = |at: usize| p.get(at..at + 2).map_or(0, |b| usize::from(u16::from_be_bytes([b[0], b[1]])));
        if p.len() < 8 || len < be16(0) + 2 || len < be16(2) + 8 || be16(2) & 15 != 0 {
            return Err(Sense::INVALID_PARAM_LEN);
        }
        if !self.writable() {
            return Err(Sense::WRITE_PROTECTED);
        }
        let mut steps = Vec::new();
        for e in p.get(8..8 + be16(2)).unwrap_or_default().chunks_exact(16) {
            let lba = u64::from_be_bytes([e[0], e[1], e[2], e[3], e[4], e[5], e[6], e[7]]);
            let n = u64::from(u32::from_be_bytes([e[8], e[9], e[10], e[11]]));
            if !self.in_range(lba, n) {
                return Err(Sense::OUT_OF_RANGE);
            }
            if n > 0 {
                let (offset, len) = (lba * self.block(), n * self.block());
                steps.push(Step { op: Op::Discard, offset, len, data: Data::None });
            }
        }
        Ok(if steps.is_empty() { Outcome::Good } else { Outcome::Io { steps, pattern: Vec::new() } })
    }

    /// WRITE SAME: one block again and again.
    pub(super) fn write_same(
        &mut self,
        c: &Cdb,
        parameters: &dyn Fn(usize) -> Vec<u8>,
    ) -> Result<Outcome, Sense> {
        let (lba, n, block) = (c.lba(), c.len_field(), self.block());
        if !self.writable() {
            return Err(Sense::WRITE_PROTECTED);
        }
        // "Until the end of the medium" is not there, nor are protection information and anchors.
        if n == 0 || c.at(1) & 0x10 != 0 {
            return Err(Sense::INVALID_FIELD);
        }
        if !self.in_range(lba, n) {
            return Err(Sense::OUT_OF_RANGE);
        }
        let (offset, len) = (lba * block, n * block);
        let unmap = c.at(1) & 8 != 0;
        let one = if c.at(1) & 1 != 0 { Vec::new() } else { parameters(block as usize) };
        if unmap || one.iter().all(|b| *b == 0) {
            let op = Op::WriteZeroes { unmap, fua: false };
            let step = Step { op, offset, len, data: Data::None };
            return Ok(Outcome::Io { steps: vec![step], pattern: Vec::new() });
        }
        let chunk = (PATTERN.max(block) / block * block).min(len);
        let pattern = one.repeat((chunk / block) as usize);
        let steps = (0..len)
            .step_by(chunk as usize)
            .map(|at| Step {
                op: Op::Write { fua: false },
                offset: offset + at,
                len: chunk.min(len - at),
                data: Data::Pattern,
            })
            .collect();
        Ok(Outcome::Io { steps, pattern })
    }
}
