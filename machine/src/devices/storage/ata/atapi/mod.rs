//! Packet commands of a CD/DVD drive: sense, media and tray state, and moving data by PIO and DMA.
//!
//! Follows ATA/ATAPI-6 chapter 9 for the protocol and MMC-4/SPC-2 for the commands, whose replies are in
//! [`reply`].

mod command;
pub(in crate::devices::storage) mod reply;

pub(in crate::devices::storage) use command::Packet;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use rqemu_block::Errno;

use super::io::Next;
use super::{status, AfterPio, AtaPort, Dma, Drive, IoOp, DMA_CHUNK};
use crate::device::Cx;

/// Sense keys.
#[allow(missing_docs)]
pub(super) mod key {
    pub const NONE: u8 = 0;
    pub const NOT_READY: u8 = 2;
    pub const ILLEGAL_REQUEST: u8 = 5;
    pub const UNIT_ATTENTION: u8 = 6;
}

/// Additional sense codes.
#[allow(missing_docs)]
pub(in crate::devices::storage) mod asc {
    pub const ILLEGAL_OPCODE: u8 = 0x20;
    pub const OUT_OF_RANGE: u8 = 0x21;
    pub const INVALID_FIELD: u8 = 0x24;
    pub const MEDIUM_CHANGED: u8 = 0x28;
    pub const INCOMPATIBLE_FORMAT: u8 = 0x30;
    pub const SAVING_UNSUPPORTED: u8 = 0x39;
    pub const NO_MEDIUM: u8 = 0x3a;
    pub const REMOVAL_PREVENTED: u8 = 0x53;
}

/// Interrupt reason (sector count register) bits.
const REASON_CD: u32 = 1;
const REASON_IO: u32 = 2;

/// Largest reply that is not sectors, bytes.
const MAX_REPLY: usize = 4096;

/// Tray state, shared with the device through which the machine sees it.
#[derive(Debug, Default)]
pub struct Tray {
    /// Open.
    pub open: AtomicBool,
    /// The guest has locked it.
    pub locked: AtomicBool,
}

impl Tray {
    fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }
}

/// How a medium change is made known: first as "no medium", then as "changed", so that all guests notice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Change {
    #[default]
    None,
    ReportGone,
    ReportChanged,
}

/// State of the CD part.
#[derive(Default)]
pub struct Cd {
    /// Tray.
    pub tray: Arc<Tray>,
    sense: u8,
    asc: u8,
    change: Change,
    event_new_media: bool,
    event_eject: bool,
    /// Data of the present command move by DMA.
    dma: bool,
    /// Reply of a command that reads no sectors.
    reply: Vec<u8>,
    /// Bytes of the reply or sectors sent, and their number.
    sent: u64,
    total: u64,
    /// First sector and size of sectors (2048 or 2352) of a reading command.
    sectors: Option<(u32, u32)>,
}

impl Cd {
    /// Power-on state, also after a software reset: the tray is in and unlocked.
    pub(super) fn reset(&mut self) {
        let tray = self.tray.clone();
        *self = Self { tray, ..Self::default() };
        self.tray.open.store(false, Ordering::Relaxed);
        self.tray.locked.store(false, Ordering::Relaxed);
    }

    /// A packet command is about to come.
    pub(super) fn begin(&mut self, dma: bool) {
        self.dma = dma;
        self.sent = 0;
        self.total = 0;
        self.sectors = None;
    }
}

impl Drive {
    fn has_medium(&self) -> bool {
        self.disk.as_ref().is_some_and(|d| d.backend.has_medium())
    }

    fn medium_ready(&self) -> bool {
        self.has_medium() && !self.cd.tray.is_open()
    }

    /// Size of the medium in 2048-byte sectors.
    fn cd_sectors(&self) -> u64 {
        self.sectors() / 4
    }

    /// The tray was opened or closed by the machine's user (`loaded`: closed with a medium to look at).
    pub fn media_changed(&mut self, cx: &mut Cx<'_>, port: &mut dyn AtaPort, loaded: bool) {
        self.cd.tray.open.store(!loaded, Ordering::Relaxed);
        self.identify = None;
        self.cd.change = Change::ReportGone;
        self.cd.event_new_media = true;
        self.cd.event_eject = false;
        port.irq(cx);
    }

    /// The user asks the guest to give the medium up; `force` also takes the lock away.
    pub fn eject_requested(&mut self, cx: &mut Cx<'_>, port: &mut dyn AtaPort, force: bool) {
        self.cd.event_eject = true;
        if force {
            self.cd.tray.locked.store(false, Ordering::Relaxed);
        }
        port.irq(cx);
    }

    // ---- ends of a command -------------------------------------------------------------------------------------

    /// Good end.
    fn packet_ok(&mut self, cx: &mut Cx<'_>, port: &mut dyn AtaPort) {
        self.stop_pio();
        self.tf.error = 0;
        self.tf.status = status::DRDY | status::DSC;
        self.packet_end(cx, port);
    }

    /// CHECK CONDITION.
    fn packet_error(&mut self, cx: &mut Cx<'_>, port: &mut dyn AtaPort, sense: u8, asc: u8) {
        self.cd.sense = sense;
        self.cd.asc = asc;
        self.packet_check(cx, port);
    }

    /// CHECK CONDITION with the sense that is already there.
    fn packet_check(&mut self, cx: &mut Cx<'_>, port: &mut dyn AtaPort) {
        self.stop_pio();
        self.tf.error = self.cd.sense << 4;
        self.tf.status = status::DRDY | status::ERR;
        self.packet_end(cx, port);
    }

    fn packet_end(&mut self, cx: &mut Cx<'_>, port: &mut dyn AtaPort) {
        self.tf.nsector = (self.tf.nsector & !7) | REASON_CD | REASON_IO;
        if self.dma.take().is_some() {
            let more = port.dma_len() > self.dma_pos;
            port.dma_end(cx, self.dma_pos, more);
        }
        port.irq(cx);
    }

    /// The host's disk failed under a reading command.
    pub(super) fn packet_io_error(&mut self, cx: &mut Cx<'_>, port: &mut dyn AtaPort, e: Errno) {
        if e == Errno::ENOMEDIUM {
            self.packet_error(cx, port, key::NOT_READY, asc::NO_MEDIUM);
        } else {
            self.packet_error(cx, port, key::ILLEGAL_REQUEST, asc::OUT_OF_RANGE);
        }
    }

    // ---- data --------------------------------------------------------------------------------------------------

    /// Sends `data`, cut to the allocation length `max`.
    fn packet_reply(&mut self, cx: &mut Cx<'_>, port: &mut dyn AtaPort, mut data: Vec<u8>, max: usize) {
        data.truncate(max.min(MAX_REPLY));
        self.cd.total = data.len() as u64;
        self.cd.reply = data;
        self.packet_start(cx, port);
    }

    /// Sends `n` sectors of `size` bytes from `lba`.
    fn packet_read(&mut self, cx: &mut Cx<'_>, port: &mut dyn AtaPort, lba: u32, n: u32, size: u32) {
        self.cd.sectors = Some((lba, size));
        self.cd.total = u64::from(n) * u64::from(size);
        self.packet_start(cx, port);
    }

    fn packet_start(&mut self, cx: &mut Cx<'_>, port: &mut dyn AtaPort) {
        if self.cd.total == 0 {
            return self.packet_ok(cx, port);
        }
        self.tf.status = status::DRDY | status::DSC;
        if self.cd.dma {
            self.start_dma(cx, port, Dma::Packet);
        } else {
            self.packet_block(cx, port);
        }
    }

    /// Largest DRQ block that the host allows: the byte count it wrote, made even.
    fn byte_limit(&self) -> u64 {
        let limit = u64::from(self.tf.lcyl) | u64::from(self.tf.hcyl) << 8;
        if limit == 0xffff {
            0xfffe
        } else {
            limit
        }
    }

    /// Prepares the next DRQ block, or ends the command.
    pub(super) fn packet_block(&mut self, cx: &mut Cx<'_>, port: &mut dyn AtaPort) {
        let left = self.cd.total.saturating_sub(self.cd.sent);
        if left == 0 {
            return self.packet_ok(cx, port);
        }
        let mut len = left;
        let limit = self.byte_limit();
        if len > limit {
            // Only the last block may be odd. A limit of 1 is taken as 2 to get anywhere.
            len = (limit & !1).max(2).min(left);
        }
        let len = len as usize;
        if self.cd.sectors.is_none() {
            let from = self.cd.sent as usize;
            self.buf.clear();
            self.buf.extend_from_slice(self.cd.reply.get(from..from + len).unwrap_or_default());
            return self.packet_offer(cx, port, len);
        }
        self.tf.status = status::DRDY | status::DSC | status::BSY;
        self.queue_sectors(len, Next::Packet(len));
    }

    /// Sectors needed for the next `len` bytes: first sector, number, bytes of the first to skip, sector size.
    fn sector_window(&self, len: usize) -> (u64, usize, usize, usize) {
        let (lba, size) = self.cd.sectors.unwrap_or((0, 2048));
        let size = u64::from(size.max(1));
        let first = self.cd.sent / size;
        let skip = (self.cd.sent % size) as usize;
        let count = (skip + len).div_ceil(size as usize);
        (u64::from(lba) + first, count, skip, size as usize)
    }

    fn queue_sectors(&mut self, len: usize, next: Next) {
        let (lba, count, _, _) = self.sector_window(len);
        self.queue(IoOp::Read, lba * 2048, count * 2048, next);
    }

    /// User data are in the buffer: adds sync, header and the rest for raw sectors, drops what was sent already.
    fn shape_sectors(&mut self, len: usize) {
        let (lba, count, skip, size) = self.sector_window(len);
        if size == 2352 {
            let user = std::mem::take(&mut self.buf);
            for (i, s) in user.chunks(2048).take(count).enumerate() {
                reply::raw_sector(&mut self.buf, (lba + i as u64) as u32, s);
            }
        }
        self.buf.drain(..skip.min(self.buf.len()));
    }

    /// The sectors of a PIO block have been read.
    pub(super) fn packet_sectors_read(&mut self, cx: &mut Cx<'_>, port: &mut dyn AtaPort, len: usize) {
        self.tf.status = status::DRDY | status::DSC;
        self.shape_sectors(len);
        self.packet_offer(cx, port, len);
    }

    fn packet_offer(&mut self, cx: &mut Cx<'_>, port: &mut dyn AtaPort, len: usize) {
        self.cd.sent += len as u64;
        self.tf.lcyl = len as u8;
        self.tf.hcyl = (len >> 8) as u8;
        self.tf.nsector = (self.tf.nsector & !7) | REASON_IO;
        self.offer(len, AfterPio::PacketData);
        port.irq(cx);
    }

    /// The adapter is ready for the data of a command by DMA.
    pub(super) fn packet_dma_go(&mut self, cx: &mut Cx<'_>, port: &mut dyn AtaPort) {
        // The table may be shorter than the data: then what fits is moved.
        self.cd.total = self.cd.total.min(port.dma_len());
        if self.cd.sectors.is_none() {
            let n = self.cd.total as usize;
            let data = std::mem::take(&mut self.cd.reply);
            port.dma_to_memory(cx, 0, data.get(..n).unwrap_or(&data));
            self.dma_pos = n as u64;
            return self.packet_ok(cx, port);
        }
        self.packet_dma_piece(cx, port);
    }

    fn packet_dma_piece(&mut self, cx: &mut Cx<'_>, port: &mut dyn AtaPort) {
        let size = self.cd.sectors.map_or(2048, |s| s.1.max(1)) as usize;
        let left = self.cd.total.saturating_sub(self.cd.sent);
        if left == 0 {
            return self.packet_ok(cx, port);
        }
        let len = left.min((DMA_CHUNK / size * size) as u64) as usize;
        self.queue_sectors(len, Next::PacketDma(len));
    }

    /// The sectors of a piece by DMA have been read.
    pub(super) fn packet_dma_read(&mut self, cx: &mut Cx<'_>, port: &mut dyn AtaPort, len: usize) {
        self.shape_sectors(len);
        port.dma_to_memory(cx, self.dma_pos, self.buf.get(..len).unwrap_or(&self.buf));
        self.dma_pos += len as u64;
        self.cd.sent += len as u64;
        self.packet_dma_piece(cx, port);
    }
}
