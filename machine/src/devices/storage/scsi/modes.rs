//! MODE SENSE and MODE SELECT.

use std::sync::atomic::Ordering;

use rqemu_block::Op;

use super::cdb::op;
use super::{Cdb, Data, Outcome, Sense, Step, Unit};

/// Read-write error recovery.
const ERROR_RECOVERY: u8 = 0x01;
const RIGID_GEOMETRY: u8 = 0x04;
const FLEXIBLE_GEOMETRY: u8 = 0x05;
const CACHING: u8 = 0x08;
const AUDIO: u8 = 0x0e;
const CAPABILITIES: u8 = 0x2a;
const ALL: u8 = 0x3f;

impl Unit {
    /// A mode page without its first two bytes; with `changeable`, a mask of what MODE SELECT can change.
    fn mode_page(&self, page: u8, changeable: bool) -> Option<Vec<u8>> {
        let (id, cd) = (&self.id, self.is_cd());
        let cyls = id.chs.cyls.to_be_bytes();
        let mut d = match page {
            RIGID_GEOMETRY if !cd => {
                let mut d = vec![cyls[1], cyls[2], cyls[3], id.chs.heads as u8];
                // Write precompensation and reduced current from the end on.
                d.extend([cyls[1], cyls[2], cyls[3], cyls[1], cyls[2], cyls[3]]);
                d.extend([0, 200, 0xff, 0xff, 0xff, 0, 0, 0]);
                d.extend(5400u16.to_be_bytes());
                d.extend([0, 0]);
                d
            }
            FLEXIBLE_GEOMETRY if !cd => {
                let mut d = 5000u16.to_be_bytes().to_vec();
                d.extend([id.chs.heads as u8, id.chs.secs as u8]);
                d.extend((self.block() as u16).to_be_bytes());
                for _ in 0..3 {
                    d.extend([cyls[2], cyls[3]]);
                }
                d.extend([0, 1, 1, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0]);
                d.extend(5400u16.to_be_bytes());
                d.extend([0, 0]);
                d
            }
            CACHING => {
                let wce = changeable || self.disk.backend.write_cache();
                let mut d = vec![u8::from(wce) << 2];
                d.resize(0x12, 0);
                return Some(d);
            }
            ERROR_RECOVERY => {
                let mut d = vec![0x80, if cd { 0x20 } else { 0 }];
                d.resize(0x0a, 0);
                if changeable && cd {
                    d[1] = 0;
                    return Some(d);
                }
                d
            }
            AUDIO if cd => vec![0; 0x0e],
            CAPABILITIES if cd => {
                let locked = self.tray.locked.load(Ordering::Relaxed);
                let speed = |x: u16| (x * 176).to_be_bytes();
                let mut d = vec![0x3b, 0, 0x7f, 0xff, 0x2d | u8::from(locked) << 1, 0];
                d.extend(speed(50));
                d.extend([0, 2]);
                d.extend(2048u16.to_be_bytes());
                d.extend(speed(16));
                d.extend([0, 0]);
                d.extend(speed(16));
                d.extend(speed(16));
                d
            }
            _ => return None,
        };
        if changeable {
            d.fill(0);
        }
        Some(d)
    }

    pub(super) fn mode_sense(&self, c: &Cdb) -> Result<Vec<u8>, Sense> {
        let (page, control) = (c.at(2) & 0x3f, c.at(2) >> 6);
        if control == 3 {
            return Err(Sense::NO_SAVING);
        }
        let short = c.op() == op::MODE_SENSE_6;
        let mut d = self.mode_header(short, c.at(1) & 8 != 0);
        let wanted = if page == ALL { 0..=ALL - 1 } else { page..=page };
        let mut any = page == ALL;
        for p in wanted {
            let Some(body) = self.mode_page(p, control == 1) else { continue };
            d.extend([p, body.len() as u8]);
            d.extend(body);
            any = true;
        }
        if !any {
            return Err(Sense::INVALID_FIELD);
        }
        if short {
            d[0] = (d.len() - 1) as u8;
        } else {
            let len = (d.len() - 2) as u16;
            d[..2].copy_from_slice(&len.to_be_bytes());
        }
        Ok(d)
    }

    /// Header and block descriptor.
    fn mode_header(&self, short: bool, no_descriptor: bool) -> Vec<u8> {
        let mut specific = 0;
        let mut descriptor = Vec::new();
        if !self.is_cd() {
            specific |= if self.id.dpofua { 0x10 } else { 0 };
            specific |= if self.disk.backend.read_only() { 0x80 } else { 0 };
            if !no_descriptor && self.disk.backend.has_medium() {
                let n =
                    u32::try_from(self.blocks()).ok().filter(|n| *n <= 0xff_ffff).unwrap_or(0).to_be_bytes();
                let b = self.id.block.to_be_bytes();
                descriptor = vec![0, n[1], n[2], n[3], 0, b[1], b[2], b[3]];
            }
        }
        let len = descriptor.len() as u8;
        let mut d = if short { vec![0, 0, specific, len] } else { vec![0, 0, 0, specific, 0, 0, 0, len] };
        d.extend(descriptor);
        d
    }

    pub(super) fn mode_select(
        &mut self,
        c: &Cdb,
        parameters: &dyn Fn(usize) -> Vec<u8>,
    ) -> Result<Outcome, Sense> {
        let len = c.len_field() as usize;
        // Pages cannot be saved, and must have the form of the standard.
        if c.at(1) & 0x11 != 0x10 {
            return Err(Sense::INVALID_FIELD);
        }
        if len == 0 {
            return Ok(Outcome::Good);
        }
        let p = parameters(len);
        let (header, descriptor) = if c.op() == op::MODE_SELECT_6 {
            (4, p.get(3).copied().unwrap_or(0).into())
        } else {
            (8, p.get(6..8).map_or(0, |b| usize::from(u16::from_be_bytes([b[0], b[1]]))))
        };
        if p.len() < header {
            return Err(Sense::INVALID_PARAM_LEN);
        }
        if descriptor != 0 && descriptor != 8 {
            return Err(Sense::INVALID_PARAM);
        }
        let pages = p.get(header + descriptor..).ok_or(Sense::INVALID_PARAM_LEN)?;
        let cache = self.check_pages(pages)?;
        let Some(on) = cache else { return Ok(Outcome::Good) };
        let was = self.disk.backend.write_cache();
        self.disk.backend.enable_write_cache(on);
        if was && !on {
            let flush = Step { op: Op::Flush, offset: 0, len: 0, data: Data::None };
            return Ok(Outcome::Io { steps: vec![flush], pattern: Vec::new() });
        }
        Ok(Outcome::Good)
    }

    /// Checks all pages of a MODE SELECT; the wish for the write cache, if it is among them.
    fn check_pages(&self, mut rest: &[u8]) -> Result<Option<bool>, Sense> {
        let mut cache = None;
        while !rest.is_empty() {
            let (page, len) = match rest {
                // Sub-pages are not there.
                [page, _, _, _, ..] if page & 0x40 != 0 => return Err(Sense::INVALID_PARAM),
                [page, len, ..] => (page & 0x3f, usize::from(*len)),
                _ => return Err(Sense::INVALID_PARAM_LEN),
            };
            let body = rest.get(2..2 + len).ok_or(Sense::INVALID_PARAM_LEN)?;
            let (now, mask) = match (self.mode_page(page, false), self.mode_page(page, true)) {
                (Some(n), Some(m)) => (n, m),
                _ => return Err(Sense::INVALID_PARAM),
            };
            if now.len() != len {
                return Err(Sense::INVALID_PARAM_LEN);
            }
            if body.iter().zip(&now).zip(&mask).any(|((new, old), mask)| (new ^ old) & !mask != 0) {
                return Err(Sense::INVALID_PARAM);
            }
            if page == CACHING {
                cache = body.first().map(|b| b & 4 != 0);
            }
            rest = rest.get(2 + len..).unwrap_or_default();
        }
        Ok(cache)
    }
}
