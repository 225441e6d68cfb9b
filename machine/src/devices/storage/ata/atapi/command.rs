//! Dispatch of packet commands.

use std::sync::atomic::Ordering;

use super::super::{AtaPort, Drive};
use super::{asc, key, reply, Change};
use crate::device::Cx;

/// Operation codes.
#[allow(missing_docs)]
pub mod op {
    pub const TEST_UNIT_READY: u8 = 0x00;
    pub const REQUEST_SENSE: u8 = 0x03;
    pub const INQUIRY: u8 = 0x12;
    pub const START_STOP: u8 = 0x1b;
    pub const PREVENT_ALLOW: u8 = 0x1e;
    pub const READ_CAPACITY: u8 = 0x25;
    pub const READ_10: u8 = 0x28;
    pub const SEEK: u8 = 0x2b;
    pub const READ_TOC: u8 = 0x43;
    pub const GET_CONFIGURATION: u8 = 0x46;
    pub const GET_EVENT_STATUS: u8 = 0x4a;
    pub const READ_DISC_INFO: u8 = 0x51;
    pub const MODE_SENSE_10: u8 = 0x5a;
    pub const READ_12: u8 = 0xa8;
    pub const READ_DVD_STRUCTURE: u8 = 0xad;
    pub const SET_SPEED: u8 = 0xbb;
    pub const MECHANISM_STATUS: u8 = 0xbd;
    pub const READ_CD: u8 = 0xbe;
}

/// Works while a unit attention is pending, and does not report a medium change.
fn allows_attention(code: u8) -> bool {
    matches!(code, op::REQUEST_SENSE | op::INQUIRY | op::GET_CONFIGURATION | op::GET_EVENT_STATUS)
}

/// Needs a medium.
fn needs_medium(code: u8) -> bool {
    matches!(
        code,
        op::TEST_UNIT_READY
            | op::READ_CAPACITY
            | op::READ_10
            | op::SEEK
            | op::READ_TOC
            | op::READ_DISC_INFO
            | op::READ_12
            | op::READ_DVD_STRUCTURE
            | op::READ_CD
    )
}

/// Never has data.
fn without_data(code: u8) -> bool {
    matches!(code, op::TEST_UNIT_READY | op::START_STOP | op::PREVENT_ALLOW | op::SEEK | op::SET_SPEED)
}

/// Whether the command exists.
fn known(code: u8) -> bool {
    allows_attention(code)
        || needs_medium(code)
        || without_data(code)
        || matches!(code, op::MODE_SENSE_10 | op::MECHANISM_STATUS)
}

/// Big-endian fields of a packet.
pub(in crate::devices::storage) struct Packet(pub [u8; 12]);

impl Packet {
    pub fn be16(&self, at: usize) -> u16 {
        self.0.get(at..at + 2).map_or(0, |b| u16::from_be_bytes([b[0], b[1]]))
    }
    pub fn be24(&self, at: usize) -> u32 {
        self.0.get(at..at + 3).map_or(0, |b| u32::from_be_bytes([0, b[0], b[1], b[2]]))
    }
    pub fn be32(&self, at: usize) -> u32 {
        self.0.get(at..at + 4).map_or(0, |b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
    }
}

impl Drive {
    /// The packet is in the buffer.
    pub(in super::super) fn packet_arrived(&mut self, cx: &mut Cx<'_>, port: &mut dyn AtaPort) {
        let mut p = Packet([0; 12]);
        for (d, s) in p.0.iter_mut().zip(&self.buf) {
            *d = *s;
        }
        let code = p.0[0];
        if !allows_attention(code) {
            if self.cd.sense == key::UNIT_ATTENTION {
                return self.packet_check(cx, port);
            }
            if self.cd.change != Change::None && self.medium_ready() {
                return self.report_change(cx, port);
            }
        }
        if !known(code) {
            return self.packet_error(cx, port, key::ILLEGAL_REQUEST, asc::ILLEGAL_OPCODE);
        }
        if needs_medium(code) && !self.medium_ready() {
            return self.packet_error(cx, port, key::NOT_READY, asc::NO_MEDIUM);
        }
        // By PIO, a command with data needs a byte count that lets data pass.
        // READ CD looks at its range and its flags first.
        if !without_data(code) && code != op::READ_CD && self.no_room() {
            return self.abort(cx, port);
        }
        self.packet_dispatch(cx, port, &p);
    }

    /// The host's byte count lets no data pass.
    fn no_room(&self) -> bool {
        !self.cd.dma && self.tf.lcyl == 0 && self.tf.hcyl == 0
    }

    fn report_change(&mut self, cx: &mut Cx<'_>, port: &mut dyn AtaPort) {
        if self.cd.change == Change::ReportGone {
            self.cd.change = Change::ReportChanged;
            self.packet_error(cx, port, key::NOT_READY, asc::NO_MEDIUM);
        } else {
            self.cd.change = Change::None;
            self.packet_error(cx, port, key::UNIT_ATTENTION, asc::MEDIUM_CHANGED);
        }
    }

    fn packet_dispatch(&mut self, cx: &mut Cx<'_>, port: &mut dyn AtaPort, p: &Packet) {
        let len16 = usize::from(p.be16(7));
        match p.0[0] {
            op::TEST_UNIT_READY | op::SET_SPEED => self.packet_ok(cx, port),
            op::REQUEST_SENSE => self.request_sense(cx, port, p),
            op::INQUIRY => {
                let data = reply::inquiry(&self.id, p);
                self.reply_or_invalid(cx, port, data, usize::from(p.0[4]));
            }
            op::START_STOP => self.start_stop(cx, port, p.0[4]),
            op::PREVENT_ALLOW => {
                self.cd.tray.locked.store(p.0[4] & 1 != 0, Ordering::Relaxed);
                self.packet_ok(cx, port);
            }
            op::READ_CAPACITY => {
                let last = self.cd_sectors().saturating_sub(1) as u32;
                let mut d = last.to_be_bytes().to_vec();
                d.extend_from_slice(&2048u32.to_be_bytes());
                self.packet_reply(cx, port, d, 8);
            }
            op::READ_10 => self.read_user_data(cx, port, p.be32(2), u32::from(p.be16(7))),
            op::READ_12 => self.read_user_data(cx, port, p.be32(2), p.be32(6)),
            op::READ_CD => self.read_cd(cx, port, p),
            op::SEEK => {
                if u64::from(p.be32(2)) >= self.cd_sectors() {
                    self.packet_error(cx, port, key::ILLEGAL_REQUEST, asc::OUT_OF_RANGE);
                } else {
                    self.packet_ok(cx, port);
                }
            }
            op::READ_TOC => {
                let data = reply::toc(self.cd_sectors(), p);
                self.reply_or_invalid(cx, port, data, len16);
            }
            op::GET_CONFIGURATION => {
                let medium = if self.medium_ready() { self.cd_sectors() } else { 0 };
                let data = reply::configuration(medium, p);
                self.reply_or_invalid(cx, port, data, len16);
            }
            op::GET_EVENT_STATUS => self.event_status(cx, port, p),
            op::READ_DISC_INFO => {
                let data = reply::disc_information(p);
                self.reply_or_invalid(cx, port, data, len16);
            }
            op::MODE_SENSE_10 => self.mode_sense(cx, port, p),
            op::READ_DVD_STRUCTURE => self.read_dvd_structure(cx, port, p),
            op::MECHANISM_STATUS => {
                self.packet_reply(cx, port, vec![0, 0, 0, 0, 0, 1, 0, 0], usize::from(p.be16(8)));
            }
            _ => self.packet_error(cx, port, key::ILLEGAL_REQUEST, asc::ILLEGAL_OPCODE),
        }
    }

    fn reply_or_invalid(
        &mut self,
        cx: &mut Cx<'_>,
        port: &mut dyn AtaPort,
        data: Option<Vec<u8>>,
        max: usize,
    ) {
        match data {
            Some(d) => self.packet_reply(cx, port, d, max),
            None => self.packet_error(cx, port, key::ILLEGAL_REQUEST, asc::INVALID_FIELD),
        }
    }

    fn request_sense(&mut self, cx: &mut Cx<'_>, port: &mut dyn AtaPort, p: &Packet) {
        let mut d = vec![0; 18];
        d[0] = 0xf0; // current error, valid
        d[2] = self.cd.sense;
        d[7] = 10;
        d[12] = self.cd.asc;
        if self.cd.sense == key::UNIT_ATTENTION {
            self.cd.sense = key::NONE;
        }
        self.packet_reply(cx, port, d, usize::from(p.0[4]));
    }

    fn read_user_data(&mut self, cx: &mut Cx<'_>, port: &mut dyn AtaPort, lba: u32, n: u32) {
        if n == 0 {
            return self.packet_ok(cx, port);
        }
        if u64::from(lba) + u64::from(n) > self.cd_sectors() {
            return self.packet_error(cx, port, key::ILLEGAL_REQUEST, asc::OUT_OF_RANGE);
        }
        self.packet_read(cx, port, lba, n, 2048);
    }

    fn read_cd(&mut self, cx: &mut Cx<'_>, port: &mut dyn AtaPort, p: &Packet) {
        let (lba, n) = (p.be32(2), p.be24(6));
        if n == 0 {
            return self.packet_ok(cx, port);
        }
        if u64::from(lba) + u64::from(n) > self.cd_sectors() {
            return self.packet_error(cx, port, key::ILLEGAL_REQUEST, asc::OUT_OF_RANGE);
        }
        match p.0[9] & 0xf8 {
            0 => self.packet_ok(cx, port),
            0x10 | 0xf8 if self.no_room() => self.abort(cx, port),
            0x10 => self.packet_read(cx, port, lba, n, 2048),
            0xf8 => self.packet_read(cx, port, lba, n, 2352),
            _ => self.packet_error(cx, port, key::ILLEGAL_REQUEST, asc::INVALID_FIELD),
        }
    }

    /// LoEj (bit 1) with Start (bit 0): load; without: eject.
    fn start_stop(&mut self, cx: &mut Cx<'_>, port: &mut dyn AtaPort, flags: u8) {
        // A power condition field makes it a power command.
        if flags & 0xf0 != 0 || flags & 2 == 0 {
            return self.packet_ok(cx, port);
        }
        let open = flags & 1 == 0;
        if open != self.cd.tray.is_open() {
            if open && self.cd.tray.locked.load(Ordering::Relaxed) {
                let sense = if self.has_medium() { key::NOT_READY } else { key::ILLEGAL_REQUEST };
                return self.packet_error(cx, port, sense, asc::REMOVAL_PREVENTED);
            }
            self.cd.tray.open.store(open, Ordering::Relaxed);
            if let Some(d) = &self.disk {
                d.tray_moved(cx, open);
            }
        }
        self.packet_ok(cx, port);
    }

    fn event_status(&mut self, cx: &mut Cx<'_>, port: &mut dyn AtaPort, p: &Packet) {
        // Asynchronous notification is not there.
        if p.0[1] & 1 == 0 {
            return self.packet_error(cx, port, key::ILLEGAL_REQUEST, asc::INVALID_FIELD);
        }
        const MEDIA: u8 = 4;
        let mut d = vec![0, 0, 0x80, 1 << MEDIA];
        if p.0[4] & (1 << MEDIA) != 0 {
            let event = if self.cd.event_new_media {
                2
            } else if self.cd.event_eject {
                1
            } else {
                0
            };
            self.cd.event_new_media &= event != 2;
            self.cd.event_eject &= event != 1;
            let state = if self.cd.tray.is_open() { 1 } else { u8::from(self.has_medium()) << 1 };
            d = vec![0, 4, MEDIA, 1 << MEDIA, event, state, 0, 0];
        }
        self.packet_reply(cx, port, d, usize::from(p.be16(7)));
    }

    fn mode_sense(&mut self, cx: &mut Cx<'_>, port: &mut dyn AtaPort, p: &Packet) {
        let max = usize::from(p.be16(7));
        let locked = self.cd.tray.locked.load(Ordering::Relaxed);
        match p.0[2] >> 6 {
            0 => {
                let data = reply::mode_page(p.0[2] & 0x3f, locked);
                self.reply_or_invalid(cx, port, data, max);
            }
            3 => self.packet_error(cx, port, key::ILLEGAL_REQUEST, asc::SAVING_UNSUPPORTED),
            _ => self.packet_error(cx, port, key::ILLEGAL_REQUEST, asc::INVALID_FIELD),
        }
    }

    fn read_dvd_structure(&mut self, cx: &mut Cx<'_>, port: &mut dyn AtaPort, p: &Packet) {
        let sectors = self.cd_sectors();
        let format = p.0[7];
        if format < 0xff {
            if reply::is_cd(sectors) {
                return self.packet_error(cx, port, key::ILLEGAL_REQUEST, asc::INCOMPATIBLE_FORMAT);
            }
            if !reply::is_dvd(sectors) {
                return self.packet_error(cx, port, key::ILLEGAL_REQUEST, asc::INVALID_FIELD);
            }
        }
        match reply::dvd_structure(sectors, p) {
            Ok(d) => self.packet_reply(cx, port, d, usize::from(p.be16(8))),
            Err(code) => self.packet_error(cx, port, key::ILLEGAL_REQUEST, code),
        }
    }
}
