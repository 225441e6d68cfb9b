//! A unit: its state, and the commands that all units share.

use std::sync::atomic::Ordering;
use std::sync::Arc;

use rqemu_block::Op;

use super::super::ata::atapi::Tray;
use super::super::blk::Disk;
use super::super::geometry::Chs;
use super::cdb::op;
use super::{Cdb, Data, Outcome, Sense, Step};
use crate::device::Cx;

/// Kind of unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnitKind {
    /// Hard disk.
    Disk,
    /// CD/DVD drive.
    Cd,
}

/// How a unit presents itself.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    /// Serial number; empty for none.
    pub serial: String,
    /// Vendor, up to 8 characters.
    pub vendor: String,
    /// Product, up to 16 characters.
    pub product: String,
    /// Revision, up to 4 characters.
    pub version: String,
    /// Identifier of the device, up to 255 characters.
    pub device_id: String,
    /// World-wide name; 0 for none.
    pub wwn: u64,
    /// World-wide name of the port; 0 for none.
    pub port_wwn: u64,
    /// Number of the port; 0 for none.
    pub port_index: u16,
    /// Version of the standard that it claims.
    pub scsi_version: u8,
    /// The medium of a disk can be taken out.
    pub removable: bool,
    /// DPO and FUA bits are announced.
    pub dpofua: bool,
    /// Rotation rate in 1/min; 1 for solid state, 0 for unknown.
    pub rotation: u16,
    /// Geometry.
    pub chs: Chs,
    /// Logical block size in bytes.
    pub block: u32,
    /// Physical block size in bytes.
    pub physical: u32,
    /// Preferred transfers in bytes; 0 for none.
    pub min_io: u32,
    /// See `min_io`.
    pub opt_io: u32,
    /// Granularity of discards in bytes; 0: there are none.
    pub discard_granularity: u32,
    /// Largest discard in bytes.
    pub max_unmap: u64,
    /// Largest transfer in bytes.
    pub max_io: u64,
    /// Apple's vendor page is sent in the form without page code.
    pub apple_vendor_page: bool,
}

/// A unit.
pub struct Unit {
    /// Kind.
    pub kind: UnitKind,
    /// Its backend.
    pub disk: Disk,
    /// How it presents itself.
    pub id: Identity,
    /// Tray of a CD drive.
    pub tray: Arc<Tray>,
    attention: Option<Sense>,
    pub(super) media_changed: bool,
    pub(super) media_event: bool,
    pub(super) eject_request: bool,
}

impl Unit {
    /// A unit after power-on.
    pub fn new(kind: UnitKind, disk: Disk, id: Identity) -> Self {
        Self {
            kind,
            disk,
            id,
            tray: Arc::default(),
            attention: Some(Sense::RESET),
            media_changed: false,
            media_event: false,
            eject_request: false,
        }
    }

    /// Power-on state.
    pub fn reset(&mut self) {
        self.attention = Some(Sense::RESET);
        self.tray.locked.store(false, Ordering::Relaxed);
        self.tray.open.store(false, Ordering::Relaxed);
    }

    /// The host is to hear of something with its next command.
    pub fn attention(&mut self, s: Sense) {
        // What is more important is told first.
        if self.attention != Some(Sense::RESET) {
            self.attention = Some(s);
        }
    }

    /// The medium was put in or taken out.
    pub fn media_changed(&mut self, loaded: bool) {
        self.media_changed = loaded;
        self.tray.open.store(!loaded, Ordering::Relaxed);
        self.attention = Some(Sense::ATTENTION_NO_MEDIUM);
        self.media_event = true;
        self.eject_request = false;
    }

    /// The user wants the medium.
    pub fn eject_requested(&mut self, force: bool) {
        self.eject_request = true;
        if force {
            self.tray.locked.store(false, Ordering::Relaxed);
        }
    }

    pub(super) fn is_cd(&self) -> bool {
        self.kind == UnitKind::Cd
    }

    pub(super) fn writable(&self) -> bool {
        !self.is_cd() && !self.disk.backend.read_only()
    }

    pub(super) fn ready(&self) -> bool {
        self.disk.backend.has_medium() && !self.tray.open.load(Ordering::Relaxed)
    }

    pub(super) fn block(&self) -> u64 {
        self.id.block.max(1).into()
    }

    /// Blocks of the medium.
    pub(super) fn blocks(&self) -> u64 {
        self.disk.backend.len() / self.block()
    }

    /// Whether `n` blocks from `lba` on exist.
    pub(super) fn in_range(&self, lba: u64, n: u64) -> bool {
        lba.checked_add(n).is_some_and(|end| end <= self.blocks())
    }

    /// Takes the pending unit attention, unless the command may pass it.
    pub fn take_attention(&mut self, code: u8) -> Option<Sense> {
        let passes = matches!(
            code,
            op::INQUIRY | op::REPORT_LUNS | op::GET_CONFIGURATION | op::GET_EVENT_STATUS | op::REQUEST_SENSE
        );
        if passes {
            return None;
        }
        let s = self.attention.take()?;
        if s == Sense::ATTENTION_NO_MEDIUM && self.media_changed {
            self.media_changed = false;
            self.attention = Some(Sense::MEDIUM_CHANGED);
        }
        Some(s)
    }

    /// Executes a command. `parameters` gives what the host sent with it, at most as many bytes as it is asked for.
    pub fn execute(&mut self, cx: &mut Cx<'_>, c: &Cdb, parameters: &dyn Fn(usize) -> Vec<u8>) -> Outcome {
        if let Some(s) = self.take_attention(c.op()) {
            return Outcome::Check(s);
        }
        self.command(cx, c, parameters).unwrap_or_else(Outcome::Check)
    }

    fn command(
        &mut self,
        cx: &mut Cx<'_>,
        c: &Cdb,
        parameters: &dyn Fn(usize) -> Vec<u8>,
    ) -> Result<Outcome, Sense> {
        // A disk is the same without a medium only if that can be taken out.
        let anytime = matches!(
            c.op(),
            op::INQUIRY
                | op::MODE_SENSE_6
                | op::MODE_SENSE_10
                | op::RESERVE
                | op::RESERVE_10
                | op::RELEASE
                | op::RELEASE_10
                | op::START_STOP
                | op::PREVENT_ALLOW
                | op::GET_CONFIGURATION
                | op::GET_EVENT_STATUS
                | op::MECHANISM_STATUS
                | op::REQUEST_SENSE
        );
        if !anytime && !self.ready() {
            return Err(Sense::NO_MEDIUM);
        }
        Ok(match c.op() {
            op::TEST_UNIT_READY | op::RESERVE | op::RESERVE_10 | op::RELEASE | op::RELEASE_10 => {
                Outcome::Good
            }
            op::FORMAT_UNIT => Outcome::Good,
            op::REQUEST_SENSE => self.request_sense(c),
            op::INQUIRY => Outcome::Data(self.inquiry(c)?),
            op::MODE_SENSE_6 | op::MODE_SENSE_10 => Outcome::Data(self.mode_sense(c)?),
            op::MODE_SELECT_6 | op::MODE_SELECT_10 => self.mode_select(c, parameters)?,
            op::START_STOP => self.start_stop(cx, c)?,
            op::PREVENT_ALLOW => {
                self.tray.locked.store(c.at(4) & 1 != 0, Ordering::Relaxed);
                Outcome::Good
            }
            op::READ_CAPACITY => Outcome::Data(self.read_capacity(c)?),
            op::SERVICE_ACTION_IN_16 => Outcome::Data(self.read_capacity_16(c)?),
            op::SYNC_CACHE_10 => {
                let flush = Step { op: Op::Flush, offset: 0, len: 0, data: Data::None };
                Outcome::Io { steps: vec![flush], pattern: Vec::new() }
            }
            op::SEEK_10 if c.lba() >= self.blocks() => return Err(Sense::OUT_OF_RANGE),
            op::SEEK_10 => Outcome::Good,
            op::VERIFY_10 | op::VERIFY_12 | op::VERIFY_16 => {
                // Comparing with what the host sends is not there.
                if c.at(1) & 6 != 0 {
                    return Err(Sense::INVALID_FIELD);
                }
                Outcome::Good
            }
            op::UNMAP => self.unmap(c, parameters)?,
            op::WRITE_SAME_10 | op::WRITE_SAME_16 => self.write_same(c, parameters)?,
            op::READ_TOC
            | op::GET_CONFIGURATION
            | op::GET_EVENT_STATUS
            | op::READ_DISC_INFO
            | op::READ_DVD_STRUCTURE
            | op::MECHANISM_STATUS => {
                if !self.is_cd() {
                    return Err(Sense::INVALID_FIELD);
                }
                Outcome::Data(self.disc_command(c)?)
            }
            _ => self.transfer(c)?,
        })
    }

    fn request_sense(&mut self, c: &Cdb) -> Outcome {
        let s = self.attention.take().unwrap_or(Sense::NONE);
        if c.at(1) & 1 != 0 {
            Outcome::Data(s.descriptor().to_vec())
        } else {
            Outcome::Data(s.fixed().to_vec())
        }
    }

    fn start_stop(&mut self, cx: &mut Cx<'_>, c: &Cdb) -> Result<Outcome, Sense> {
        let (start, loej) = (c.at(4) & 1 != 0, c.at(4) & 2 != 0);
        // A power condition field makes it a power command.
        if c.at(4) >> 4 != 0 || !self.is_cd() || !loej {
            return Ok(Outcome::Good);
        }
        let open = self.tray.open.load(Ordering::Relaxed);
        if !start && !open && self.tray.locked.load(Ordering::Relaxed) {
            return Err(if self.disk.backend.has_medium() { Sense::LOCKED } else { Sense::NOT_READY_LOCKED });
        }
        if open == start {
            self.tray.open.store(!start, Ordering::Relaxed);
            self.disk.tray_moved(cx, !start);
        }
        Ok(Outcome::Good)
    }

    fn read_capacity(&self, c: &Cdb) -> Result<Vec<u8>, Sense> {
        if c.at(8) & 1 == 0 && c.be32(2) != 0 {
            return Err(Sense::INVALID_FIELD);
        }
        let last = self.blocks().checked_sub(1).ok_or(Sense::NO_MEDIUM)?;
        let mut d = u32::try_from(last).unwrap_or(u32::MAX).to_be_bytes().to_vec();
        d.extend(self.id.block.to_be_bytes());
        Ok(d)
    }

    fn read_capacity_16(&self, c: &Cdb) -> Result<Vec<u8>, Sense> {
        const READ_CAPACITY: u8 = 0x10;
        if c.at(1) & 0x1f != READ_CAPACITY || (c.at(14) & 1 == 0 && c.be64(2) != 0) {
            return Err(Sense::INVALID_FIELD);
        }
        let last = self.blocks().checked_sub(1).ok_or(Sense::NO_MEDIUM)?;
        let mut d = last.to_be_bytes().to_vec();
        d.extend(self.id.block.to_be_bytes());
        let exponent = (self.id.physical.max(1) / self.id.block.max(1)).max(1).ilog2() as u8;
        // Thin provisioning, if there are discards.
        d.extend([0, exponent, if self.id.discard_granularity != 0 { 0x80 } else { 0 }]);
        d.resize(32, 0);
        Ok(d)
    }
}
