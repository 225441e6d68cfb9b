//! Commands of CD drives (MMC-4).

use std::sync::atomic::Ordering;

use super::super::ata::atapi::{asc, reply, Packet};
use super::cdb::op;
use super::{Cdb, Sense, Unit};

const DVD_ROM: u8 = 0x10;
const CD_ROM: u8 = 0x08;

impl Unit {
    fn packet(c: &Cdb) -> Packet {
        let mut p = [0; 12];
        p.copy_from_slice(&c.0[..12]);
        Packet(p)
    }

    /// Commands that only CD drives have, and that return data.
    pub(super) fn disc_command(&mut self, c: &Cdb) -> Result<Vec<u8>, Sense> {
        let p = Self::packet(c);
        match c.op() {
            op::READ_TOC => self.toc(c),
            op::GET_CONFIGURATION => Ok(self.configuration()),
            op::GET_EVENT_STATUS => self.event_status(c),
            op::READ_DISC_INFO => reply::disc_information(&p).ok_or(Sense::INVALID_FIELD),
            op::READ_DVD_STRUCTURE => self.dvd_structure(&p),
            op::MECHANISM_STATUS => Ok(vec![0, 0, 0, 0, 0, 1, 0, 0]),
            _ => Err(Sense::INVALID_OPCODE),
        }
    }

    fn toc(&self, c: &Cdb) -> Result<Vec<u8>, Sense> {
        // The format is where SCSI has it, not where the oldest packet devices do.
        let mut p = Self::packet(c);
        let format = c.at(2) & 0xf;
        if format > 2 {
            return Err(Sense::INVALID_FIELD);
        }
        p.0[9] = format << 6;
        reply::toc(self.blocks(), &p).ok_or(Sense::INVALID_FIELD)
    }

    /// Features: profile list, core, removable medium.
    fn configuration(&self) -> Vec<u8> {
        let n = if self.ready() { self.blocks() } else { 0 };
        let current = match n {
            n if reply::is_dvd(n) => DVD_ROM,
            n if reply::is_cd(n) => CD_ROM,
            _ => 0,
        };
        let on = |profile| u8::from(current == profile);
        let mut d = vec![0, 0, 0, 36, 0, 0, 0, current];
        d.extend([0, 0, 3, 8, 0, DVD_ROM, on(DVD_ROM), 0, 0, CD_ROM, on(CD_ROM), 0]);
        d.extend([0, 1, 0x0b, 8, 0, 0, 0, 1, 1, 0, 0, 0]);
        d.extend([0, 3, 0x0b, 4, 0x39, 0, 0, 0]);
        d
    }

    fn event_status(&mut self, c: &Cdb) -> Result<Vec<u8>, Sense> {
        const MEDIA: u8 = 4;
        // Asynchronous notification is not there.
        if c.at(1) & 1 == 0 {
            return Err(Sense::INVALID_FIELD);
        }
        if c.at(4) & 1 << MEDIA == 0 {
            return Ok(vec![0, 0, 0x80, 1 << MEDIA]);
        }
        let open = self.tray.open.load(Ordering::Relaxed);
        let state = if open { 1 } else { u8::from(self.disk.backend.has_medium()) << 1 };
        let mut event = 0;
        if self.media_event {
            self.media_event = false;
            event = if state & 2 != 0 { 2 } else { 3 };
        } else if self.eject_request {
            self.eject_request = false;
            event = 1;
        }
        Ok(vec![0, 4, MEDIA, 1 << MEDIA, event, state, 0, 0])
    }

    fn dvd_structure(&self, p: &Packet) -> Result<Vec<u8>, Sense> {
        let n = self.blocks();
        if p.0[7] < 0xff {
            if reply::is_cd(n) {
                return Err(Sense::INCOMPATIBLE_FORMAT);
            }
            if !reply::is_dvd(n) {
                return Err(Sense::INVALID_FIELD);
            }
        }
        reply::dvd_structure(n, p).map_err(|code| match code {
            asc::INCOMPATIBLE_FORMAT => Sense::INCOMPATIBLE_FORMAT,
            _ => Sense::INVALID_FIELD,
        })
    }
}
