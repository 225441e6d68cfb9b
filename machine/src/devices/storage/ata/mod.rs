//! ATA and ATAPI drives as their host adapter sees them: task file, commands, data transfers.
//!
//! Follows ATA/ATAPI-6 (T13/1410D) with the 48-bit feature set, DATA SET MANAGEMENT and rotation rate of ACS, and
//! MMC-4 for CD and DVD. One [`Drive`] is one position on a cable (it exists even if nothing is plugged in: the task
//! file then still takes writes). The adapter implements [`AtaPort`] and feeds register accesses in; it never needs to
//! know commands. Left out: security, host protected area changes, CFA, queued DMA, tape.

pub mod atapi;
mod command;
mod identify;
mod io;
mod smart;

use rqemu_block::Errno;

use super::blk::Disk;
use super::geometry::Chs;
use crate::device::Cx;

pub use command::cmd;
pub use io::{IoOp, IoRequest};

/// Status register bits.
#[allow(missing_docs)]
pub mod status {
    pub const ERR: u8 = 0x01;
    pub const DRQ: u8 = 0x08;
    /// Seek complete.
    pub const DSC: u8 = 0x10;
    /// Drive fault.
    pub const DF: u8 = 0x20;
    pub const DRDY: u8 = 0x40;
    pub const BSY: u8 = 0x80;
}

/// Error register: command aborted.
pub const ABRT: u8 = 0x04;

/// Device register: LBA addressing.
pub const SEL_LBA: u8 = 0x40;

/// Largest DRQ block of READ/WRITE MULTIPLE, sectors.
pub const MAX_MULTIPLE: u32 = 16;

/// Largest piece of a DMA transfer that is in memory at a time, bytes.
pub const DMA_CHUNK: usize = 128 << 10;

/// What a drive needs from its host adapter.
pub trait AtaPort {
    /// The drive asserts its interrupt.
    fn irq(&mut self, cx: &mut Cx<'_>);
    /// The adapter is ready to move data by DMA; `false` leaves the drive waiting until it is.
    fn dma_ready(&mut self, cx: &mut Cx<'_>) -> bool;
    /// Bytes that the adapter's scatter/gather table holds, counted from the beginning.
    fn dma_len(&self) -> u64;
    /// Moves data from the drive to memory at `pos` of the table; what does not fit is dropped.
    fn dma_to_memory(&mut self, cx: &mut Cx<'_>, pos: u64, data: &[u8]);
    /// Moves data from memory at `pos` of the table to the drive; what is not there reads as zero.
    fn dma_from_memory(&mut self, cx: &mut Cx<'_>, pos: u64, data: &mut [u8]);
    /// The drive's DMA has ended after `moved` bytes. `more`: the table describes more memory than was used.
    fn dma_end(&mut self, cx: &mut Cx<'_>, moved: u64, more: bool);
}

/// What is plugged in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing.
    None,
    /// Hard disk.
    Disk,
    /// CD/DVD drive.
    Cd,
}

/// How a drive presents itself.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    /// Serial number, up to 20 characters.
    pub serial: String,
    /// Model, up to 40 characters.
    pub model: String,
    /// Firmware revision, up to 8 characters.
    pub version: String,
    /// World-wide name; 0 for none.
    pub wwn: u64,
    /// Rotation rate in 1/min; 1 for solid state, 0 for unknown.
    pub rotation: u16,
    /// Physical block size in bytes, a power of two of at least 512.
    pub physical: u32,
    /// Logical sectors are reported as always.
    pub chs: Chs,
}

/// The task file. `hob_` fields hold the previous content of each register (48-bit feature set).
#[derive(Clone, Debug, Default)]
pub struct TaskFile {
    /// Features.
    pub feature: u8,
    /// Error.
    pub error: u8,
    /// Sector count; widened to the count it stands for (0 means 256 or 65536) while a command runs.
    pub nsector: u32,
    /// LBA 0-7.
    pub sector: u8,
    /// LBA 8-15.
    pub lcyl: u8,
    /// LBA 16-23.
    pub hcyl: u8,
    /// Previous features.
    pub hob_feature: u8,
    /// Previous sector count.
    pub hob_nsector: u8,
    /// Previous LBA low.
    pub hob_sector: u8,
    /// Previous LBA mid.
    pub hob_lcyl: u8,
    /// Previous LBA high.
    pub hob_hcyl: u8,
    /// Device register.
    pub select: u8,
    /// Status.
    pub status: u8,
}

/// What comes when the host has moved the last word of a PIO data block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum AfterPio {
    /// Nothing more: the command ends.
    #[default]
    Done,
    /// Next block of READ SECTORS / MULTIPLE.
    Read,
    /// The block goes to the disk.
    Write,
    /// A packet command has arrived.
    Packet,
    /// Next block of a packet command's data.
    PacketData,
}

/// Direction of a PIO data block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum PioDir {
    #[default]
    None,
    ToHost,
    FromHost,
}

/// A DMA command that waits for the adapter or runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dma {
    Read,
    Write,
    Trim,
    /// Reply or sectors of a packet command.
    Packet,
}

/// One drive position.
pub struct Drive {
    /// What is plugged in.
    pub kind: Kind,
    /// Its backend.
    pub disk: Option<Disk>,
    /// How it presents itself.
    pub id: Identity,
    /// Task file.
    pub tf: TaskFile,
    /// The present command uses 48-bit addresses.
    lba48: bool,
    /// Sectors per DRQ block of READ/WRITE MULTIPLE; 0 when disabled.
    mult: u32,
    /// Sectors per DRQ block of the present command.
    block: u32,
    /// Translation set by INITIALIZE DEVICE PARAMETERS.
    chs: Chs,
    /// Identify data, made at first use.
    identify: Option<Box<[u8; 512]>>,
    smart: smart::Smart,
    /// Data on the way; never longer than a DMA chunk.
    buf: Vec<u8>,
    /// Next byte that the host moves, and the end of the block.
    pos: usize,
    end: usize,
    dir: PioDir,
    after: AfterPio,
    dma: Option<Dma>,
    /// Bytes of the DMA table used.
    dma_pos: u64,
    job: io::JobState,
    /// CD part.
    pub cd: atapi::Cd,
    /// Commands that can be queued; 0 where the adapter has no queueing.
    pub queue_depth: u8,
    /// Number of the latest queued command (the adapter's).
    pub queued_serial: u32,
}

impl Drive {
    /// A position with nothing plugged in.
    pub fn empty() -> Self {
        let mut d = Self {
            kind: Kind::None,
            disk: None,
            id: Identity::default(),
            tf: TaskFile::default(),
            lba48: false,
            mult: MAX_MULTIPLE,
            block: 1,
            chs: Chs::default(),
            identify: None,
            smart: smart::Smart::default(),
            buf: Vec::new(),
            pos: 0,
            end: 0,
            dir: PioDir::None,
            after: AfterPio::Done,
            dma: None,
            dma_pos: 0,
            job: io::JobState::default(),
            cd: atapi::Cd::default(),
            queue_depth: 0,
            queued_serial: 0,
        };
        d.power_on();
        d
    }

    /// A drive.
    pub fn new(kind: Kind, disk: Disk, id: Identity) -> Self {
        let mut d = Self::empty();
        d.kind = kind;
        d.chs = id.chs;
        d.disk = Some(disk);
        d.id = id;
        d.power_on();
        d
    }

    /// Whether something is plugged in.
    pub fn present(&self) -> bool {
        self.kind != Kind::None
    }

    /// Size in sectors.
    fn sectors(&self) -> u64 {
        self.disk.as_ref().map_or(0, Disk::sectors)
    }

    /// Power-on state. Requests under way are waited for and forgotten.
    pub fn power_on(&mut self) {
        self.cancel();
        self.mult = MAX_MULTIPLE;
        self.tf = TaskFile { select: 0xa0, status: status::DRDY | status::DSC, ..TaskFile::default() };
        self.lba48 = false;
        self.cd.reset();
        self.set_signature();
    }

    /// Ends whatever the drive is doing without telling the host.
    pub fn cancel(&mut self) {
        self.drop_requests();
        self.stop_pio();
        self.dma = None;
    }

    /// What SRST and EXECUTE DEVICE DIAGNOSTIC do to each drive.
    pub fn diagnose(&mut self) {
        self.cancel();
        self.set_signature();
        self.tf.status = if self.kind == Kind::Cd { 0 } else { status::DRDY | status::DSC };
        self.tf.error = 1;
        self.tf.select = 0xa0;
    }

    /// The register contents by which hosts tell disks from packet devices.
    fn set_signature(&mut self) {
        self.tf.select &= 0xf0;
        self.tf.nsector = 1;
        self.tf.sector = 1;
        (self.tf.lcyl, self.tf.hcyl) = match self.kind {
            Kind::Cd => (0x14, 0xeb),
            Kind::Disk => (0, 0),
            Kind::None => (0xff, 0xff),
        };
    }

    /// Whether register writes are ignored now.
    pub fn busy(&self) -> bool {
        self.tf.status & (status::BSY | status::DRQ) != 0
    }

    /// The block of PIO data that the drive wants to be moved: whether it goes to the host, and its bytes.
    pub fn pio(&self) -> Option<(bool, usize)> {
        let wanted = self.tf.status & status::DRQ != 0 && self.dir != PioDir::None;
        wanted.then(|| (self.dir == PioDir::ToHost, self.end.saturating_sub(self.pos)))
    }

    /// The block is a packet.
    pub fn wants_packet(&self) -> bool {
        self.after == AfterPio::Packet
    }

    /// A command is under way that waits for the host's disk.
    pub fn working(&self) -> bool {
        self.job.busy() || self.dma.is_some()
    }

    /// Its number among the drives of its adapter.
    pub fn number(&self) -> u32 {
        self.job.number()
    }

    /// Whether a DMA command waits for the adapter.
    pub fn dma_waiting(&self) -> bool {
        self.dma.is_some() && !self.job.busy()
    }

    /// Sector address in the task file. May be any value; the user checks it.
    fn lba(&self) -> u64 {
        let t = &self.tf;
        let low = u64::from(t.sector) | u64::from(t.lcyl) << 8 | u64::from(t.hcyl) << 16;
        if t.select & SEL_LBA == 0 {
            let cyl = u64::from(t.lcyl) | u64::from(t.hcyl) << 8;
            let track = cyl * u64::from(self.chs.heads) + u64::from(t.select & 15);
            // Sector numbers start at 1; sector 0 wraps to an address that no disk has.
            return (track * u64::from(self.chs.secs) + u64::from(t.sector)).wrapping_sub(1);
        }
        if self.lba48 {
            let high = u64::from(t.hob_sector) | u64::from(t.hob_lcyl) << 8 | u64::from(t.hob_hcyl) << 16;
            return low | high << 24;
        }
        low | u64::from(t.select & 15) << 24
    }

    /// Puts a sector address into the task file.
    fn set_lba(&mut self, lba: u64) {
        let b = lba.to_le_bytes();
        let t = &mut self.tf;
        if t.select & SEL_LBA != 0 {
            (t.sector, t.lcyl, t.hcyl) = (b[0], b[1], b[2]);
            if self.lba48 {
                (t.hob_sector, t.hob_lcyl, t.hob_hcyl) = (b[3], b[4], b[5]);
            } else {
                t.select = (t.select & 0xf0) | (b[3] & 15);
            }
            return;
        }
        let (heads, secs) = (u64::from(self.chs.heads), u64::from(self.chs.secs));
        if heads * secs == 0 {
            // A translation without sectors (INITIALIZE DEVICE PARAMETERS takes it) has no addresses.
            (t.hcyl, t.lcyl, t.sector) = (0, 0, 0);
            t.select &= 0xf0;
            return;
        }
        let cyl = lba / (heads * secs);
        let r = lba % (heads * secs);
        t.hcyl = (cyl >> 8) as u8;
        t.lcyl = cyl as u8;
        t.select = (t.select & 0xf0) | (r / secs) as u8 & 15;
        t.sector = (r % secs + 1) as u8;
    }

    /// Widens the sector count to what it stands for.
    fn widen_count(&mut self, lba48: bool) {
        self.lba48 = lba48;
        // A host that does not write the register again finds the count where the last command left it, with the part
        // above the register (as QEMU has it).
        let low = self.tf.nsector;
        self.tf.nsector = match (lba48, u32::from(self.tf.hob_nsector) << 8 | low) {
            (true, 0) => 65536,
            (true, n) => n,
            (false, _) if low == 0 => 256,
            (false, _) => low,
        };
    }

    /// Whether `n` sectors from `lba` are on the disk.
    fn in_range(&self, lba: u64, n: u64) -> bool {
        lba.checked_add(n).is_some_and(|end| end <= self.sectors())
    }

    /// Ends a command with ABRT (the caller raises the interrupt).
    fn set_aborted(&mut self) {
        self.stop_pio();
        self.tf.status = status::DRDY | status::ERR;
        self.tf.error = ABRT;
    }

    /// Ends a command with ABRT and an interrupt.
    fn abort(&mut self, cx: &mut Cx<'_>, port: &mut dyn AtaPort) {
        self.set_aborted();
        port.irq(cx);
    }

    // ---- PIO data ----------------------------------------------------------------------------------------------

    /// Offers `len` bytes of the buffer to the host.
    fn offer(&mut self, len: usize, after: AfterPio) {
        self.start_pio(len, PioDir::ToHost, after);
    }

    /// Asks the host for `len` bytes.
    fn request(&mut self, len: usize, after: AfterPio) {
        if self.buf.len() < len {
            self.buf.resize(len, 0);
        }
        self.start_pio(len, PioDir::FromHost, after);
    }

    fn start_pio(&mut self, len: usize, dir: PioDir, after: AfterPio) {
        self.pos = 0;
        self.end = len.min(self.buf.len());
        self.dir = dir;
        self.after = after;
        self.tf.status |= status::DRQ;
    }

    fn stop_pio(&mut self) {
        self.pos = 0;
        self.end = 0;
        self.dir = PioDir::None;
        self.after = AfterPio::Done;
        self.tf.status &= !status::DRQ;
    }

    /// Host reads one 16-bit word of data; 0 when there is none.
    pub fn data_read(&mut self, cx: &mut Cx<'_>, port: &mut dyn AtaPort) -> u16 {
        if self.dir != PioDir::ToHost || self.tf.status & status::DRQ == 0 || self.pos >= self.end {
            return 0;
        }
        let v = u16::from_le_bytes([
            self.buf.get(self.pos).copied().unwrap_or(0),
            // The last word of an odd block has one byte of padding.
            if self.pos + 1 < self.end { self.buf.get(self.pos + 1).copied().unwrap_or(0) } else { 0 },
        ]);
        self.advance(cx, port);
        v
    }

    /// Host writes one 16-bit word of data; ignored when none is wanted.
    pub fn data_write(&mut self, cx: &mut Cx<'_>, port: &mut dyn AtaPort, value: u16) {
        if self.dir != PioDir::FromHost || self.tf.status & status::DRQ == 0 || self.pos >= self.end {
            return;
        }
        for (i, b) in value.to_le_bytes().into_iter().enumerate() {
            if let Some(p) = self.buf.get_mut(self.pos + i).filter(|_| self.pos + i < self.end) {
                *p = b;
            }
        }
        self.advance(cx, port);
    }

    fn advance(&mut self, cx: &mut Cx<'_>, port: &mut dyn AtaPort) {
        self.pos += 2;
        if self.pos >= self.end {
            self.block_done(cx, port);
        }
    }

    /// The host has moved the last word of a block.
    fn block_done(&mut self, cx: &mut Cx<'_>, port: &mut dyn AtaPort) {
        let after = self.after;
        self.tf.status &= !status::DRQ;
        self.dir = PioDir::None;
        match after {
            AfterPio::Done => self.stop_pio(),
            AfterPio::Read => self.read_block(cx, port),
            AfterPio::Write => self.write_block(cx, port),
            AfterPio::Packet => self.packet_arrived(cx, port),
            AfterPio::PacketData => self.packet_block(cx, port),
        }
        self.pump(cx, port);
    }

    /// Tells a failed request apart from a good one; `true` if the command may go on.
    fn check(
        &mut self,
        cx: &mut Cx<'_>,
        dir: super::blk::Direction,
        result: rqemu_block::IoResult,
    ) -> io::Verdict {
        let Err(e) = result else { return io::Verdict::Good };
        let action = match &self.disk {
            Some(d) if e != Errno::ENOMEDIUM => d.failed(cx, dir, e),
            _ => rqemu_block::ErrorAction::Report,
        };
        match action {
            rqemu_block::ErrorAction::Ignore => io::Verdict::Good,
            rqemu_block::ErrorAction::Report => io::Verdict::Failed(e),
            rqemu_block::ErrorAction::Stop => io::Verdict::Retry,
        }
    }
}
