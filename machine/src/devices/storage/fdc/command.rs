//! Commands of the floppy controller.

use super::super::blk::Direction;
use super::media::Seek;
use super::{dma, dor, dsr, msr, st, Fdc, Phase, Transfer, READ_ID_DELAY, SECTOR};
use crate::device::Cx;
use crate::devices::chipset::dma::DmaClient;

/// Commands by their code; option bits are masked out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
    Read,
    Write,
    Seek,
    SenseInterrupt,
    Recalibrate,
    FormatTrack,
    ReadTrack,
    Restore,
    Save,
    ReadDeleted,
    ScanEqual,
    Verify,
    ScanLow,
    ScanHigh,
    WriteDeleted,
    ReadId,
    Specify,
    SenseDrive,
    Perpendicular,
    Configure,
    PowerDown,
    Option,
    DriveSpecification,
    SeekOut,
    FormatAndWrite,
    SeekIn,
    Lock,
    DumpRegisters,
    Version,
    PartId,
    Invalid,
}

/// Code, mask, number of parameter bytes.
const TABLE: &[(u8, u8, usize, Command)] = &[
    (0x06, 0x1f, 8, Command::Read),
    (0x05, 0x3f, 8, Command::Write),
    (0x0f, 0xff, 2, Command::Seek),
    (0x08, 0xff, 0, Command::SenseInterrupt),
    (0x07, 0xff, 1, Command::Recalibrate),
    (0x0d, 0xbf, 5, Command::FormatTrack),
    (0x02, 0xbf, 8, Command::ReadTrack),
    (0x4e, 0xff, 17, Command::Restore),
    (0x2e, 0xff, 0, Command::Save),
    (0x0c, 0x1f, 8, Command::ReadDeleted),
    (0x11, 0x1f, 8, Command::ScanEqual),
    (0x16, 0x1f, 8, Command::Verify),
    (0x19, 0x1f, 8, Command::ScanLow),
    (0x1d, 0x1f, 8, Command::ScanHigh),
    (0x09, 0x3f, 8, Command::WriteDeleted),
    (0x0a, 0xbf, 1, Command::ReadId),
    (0x03, 0xff, 2, Command::Specify),
    (0x04, 0xff, 1, Command::SenseDrive),
    (0x12, 0xff, 1, Command::Perpendicular),
    (0x13, 0xff, 3, Command::Configure),
    (0x17, 0xff, 2, Command::PowerDown),
    (0x33, 0xff, 1, Command::Option),
    (0x8e, 0xff, 5, Command::DriveSpecification),
    (0x8f, 0xff, 2, Command::SeekOut),
    (0xcd, 0xff, 10, Command::FormatAndWrite),
    (0xcf, 0xff, 2, Command::SeekIn),
    (0x14, 0x7f, 0, Command::Lock),
    (0x0e, 0xff, 0, Command::DumpRegisters),
    (0x10, 0xff, 0, Command::Version),
    (0x18, 0xff, 0, Command::PartId),
];

fn decode(code: u8) -> (usize, Command) {
    TABLE
        .iter()
        .find(|(c, mask, _, _)| code & mask == *c)
        .map_or((0, Command::Invalid), |(_, _, n, cmd)| (*n, *cmd))
}

/// Parameter bytes of a command.
pub(super) fn parameters(code: u8) -> usize {
    decode(code).0
}

const CONFIG_IMPLIED_SEEK: u8 = 0x40;

impl Fdc {
    fn arg(&self, i: usize) -> u8 {
        self.fifo.get(i).copied().unwrap_or(0)
    }

    fn reply(&mut self, bytes: &[u8]) {
        if let Some(f) = self.fifo.get_mut(..bytes.len()) {
            f.copy_from_slice(bytes);
        }
        self.result_phase(bytes.len());
    }

    fn select(&mut self) {
        self.current = self.arg(1) & 3;
    }

    /// All bytes of a command are there.
    pub(super) fn execute(&mut self, cx: &mut Cx<'_>) {
        match decode(self.arg(0)).1 {
            Command::Read => self.start(cx, Transfer::Read),
            Command::ReadTrack => self.start(cx, Transfer::Read),
            Command::Write => self.start(cx, Transfer::Write),
            Command::Verify => self.start(cx, Transfer::Verify),
            Command::ScanEqual => self.start(cx, Transfer::ScanEqual),
            Command::ScanLow => self.start(cx, Transfer::ScanLow),
            Command::ScanHigh => self.start(cx, Transfer::ScanHigh),
            // There are no sectors with deleted data.
            Command::ReadDeleted | Command::WriteDeleted => {
                self.select();
                self.stop(cx, st::ABNORMAL | st::SEEK_END, 0, 0);
            }
            Command::FormatTrack => self.format_track(cx),
            Command::FormatAndWrite => self.reply(&[st::INVALID]),
            Command::ReadId => {
                self.select();
                let head = self.arg(1) >> 2 & 1;
                self.drive().head = head;
                self.msr &= !msr::RQM;
                let at = cx.now() + READ_ID_DELAY;
                cx.timer_set(0, Some(at));
            }
            Command::Seek => {
                let track = self.arg(2);
                self.seek_command(cx, track);
            }
            Command::Recalibrate => {
                self.select();
                self.command_phase();
                let head = self.drive().head;
                let sector = self.drive().sector;
                let _ = self.drive().seek(head, 0, sector, true);
                self.seek_interrupt(cx);
            }
            Command::SeekOut => {
                self.select();
                let track = self.drive().track.saturating_sub(self.arg(2));
                self.seek_command(cx, track);
            }
            Command::SeekIn => {
                self.select();
                let track = self.drive().track.saturating_add(self.arg(2)).min(self.drive().max_track());
                self.seek_command(cx, track);
            }
            Command::SenseInterrupt => self.sense_interrupt(cx),
            Command::SenseDrive => {
                self.select();
                let head = self.arg(1) >> 2 & 1;
                let current = self.current;
                let d = self.drive();
                d.head = head;
                let v =
                    0x28 | u8::from(d.read_only()) << 6 | u8::from(d.track == 0) << 4 | head << 2 | current;
                self.reply(&[v]);
            }
            _ => self.execute_setup(),
        }
    }

    /// Commands that only set or show the controller's own state.
    fn execute_setup(&mut self) {
        match decode(self.arg(0)).1 {
            Command::Specify => {
                self.timers = [self.arg(1) >> 4, self.arg(2) >> 1];
                if self.arg(2) & 1 != 0 {
                    self.dor &= !dor::DMA_EN;
                } else {
                    self.dor |= dor::DMA_EN;
                }
                self.command_phase();
            }
            Command::Perpendicular => {
                if self.arg(1) & 0x80 != 0 {
                    self.perpendicular = self.arg(1) & 7;
                }
                self.command_phase();
            }
            Command::Configure => {
                (self.config, self.precompensation) = (self.arg(2), self.arg(3));
                self.command_phase();
            }
            Command::PowerDown => {
                self.power = self.arg(1);
                let v = self.power;
                self.reply(&[v]);
            }
            Command::Option => self.command_phase(),
            Command::DriveSpecification => {
                if self.fifo[..6].iter().any(|b| b & 0xc0 == 0xc0) {
                    let v = self.arg(1);
                    self.reply(&[v, v, 0, 0]);
                } else {
                    self.command_phase();
                }
            }
            Command::Lock => {
                self.locked = self.arg(0) & 0x80 != 0;
                let v = u8::from(self.locked) << 4;
                self.reply(&[v]);
            }
            Command::Version => self.reply(&[0x90]),
            Command::PartId => self.reply(&[0x41]),
            Command::DumpRegisters => {
                let v = [
                    self.drives[0].track,
                    self.drives[1].track,
                    0,
                    0,
                    self.timers[0],
                    self.timers[1] << 1 | u8::from(self.dor & dor::DMA_EN != 0),
                    self.drive().last_sector(),
                    u8::from(self.locked) << 7 | self.perpendicular << 2,
                    self.config,
                    self.precompensation,
                ];
                self.reply(&v);
            }
            Command::Save => {
                let mut v = [0; 15];
                (v[2], v[3]) = (self.drives[0].track, self.drives[1].track);
                (v[6], v[7]) = (self.timers[0], self.timers[1]);
                v[8] = self.drive().last_sector();
                v[9] = u8::from(self.locked) << 7 | self.perpendicular << 2;
                (v[10], v[11], v[12]) = (self.config, self.precompensation, self.power);
                self.reply(&v);
            }
            Command::Restore => {
                (self.drives[0].track, self.drives[1].track) = (self.arg(3), self.arg(4));
                self.timers = [self.arg(7), self.arg(8)];
                self.locked = self.arg(10) & 0x80 != 0;
                self.perpendicular = self.arg(10) >> 2 & 15;
                (self.config, self.precompensation, self.power) = (self.arg(11), self.arg(12), self.arg(13));
                self.command_phase();
            }
            _ => self.reply(&[st::INVALID]),
        }
    }

    fn seek_command(&mut self, cx: &mut Cx<'_>, track: u8) {
        self.select();
        self.command_phase();
        let sector = self.drive().sector;
        let head = self.arg(1) >> 2 & 1;
        let _ = self.drive().seek(head, track, sector, true);
        self.seek_interrupt(cx);
    }

    fn seek_interrupt(&mut self, cx: &mut Cx<'_>) {
        self.raise(cx);
        self.st0 = st::RELATIVE_SEEK;
    }

    fn sense_interrupt(&mut self, cx: &mut Cx<'_>) {
        let v = if self.reset_sense > 0 {
            let drive = 4 - self.reset_sense;
            self.reset_sense -= 1;
            st::READY_CHANGED | drive
        } else if !self.irq_level {
            return self.reply(&[st::INVALID]);
        } else {
            (self.st0 & !7) | self.current
        };
        let track = self.drive().track;
        let pending = self.reset_sense;
        self.reply(&[v, track]);
        self.lower(cx);
        self.reset_sense = pending;
    }

    // ---- data commands -----------------------------------------------------------------------------------------

    /// Ends a data command with the seven result bytes.
    fn stop(&mut self, cx: &mut Cx<'_>, st0: u8, st1: u8, st2: u8) {
        let current = self.current;
        let seek = if self.implied_seek_done { st::SEEK_END } else { 0 };
        self.implied_seek_done = false;
        let d = self.drive();
        let v = [st0 | seek | d.head << 2 | current, st1, st2, d.track, d.head, d.sector, 2];
        if self.phase == Phase::Execution {
            dma::release(cx.m, self.dma_channel);
        }
        self.msr &= !msr::NON_DMA;
        self.reply(&v);
        self.raise(cx);
        self.st0 = v[0];
    }

    /// Moves the head to where a data command wants it; `false` if the command has ended.
    fn position(&mut self, cx: &mut Cx<'_>) -> bool {
        self.select();
        let (track, head, sector) = (self.arg(2), self.arg(3), self.arg(4));
        let implied = self.config & CONFIG_IMPLIED_SEEK != 0;
        self.implied_seek_done = false;
        let fail = match self.drive().seek(head, track, sector, implied) {
            Seek::Same => None,
            Seek::Moved => {
                self.implied_seek_done = true;
                None
            }
            Seek::BadTrack => Some(0),
            Seek::BadSector => Some(st::ST1_END_OF_CYLINDER),
            Seek::NotAllowed => Some(0),
        };
        if let Some(st1) = fail {
            // The result shows what was asked for.
            let current = self.current;
            self.reply(&[st::ABNORMAL | self.arg(1) & 4 | current, st1, 0, track, head, sector, 2]);
            self.raise(cx);
            self.st0 = self.arg(0);
            return false;
        }
        let rate = self.dsr & dsr::RATE;
        if self.drive().format.is_some_and(|f| f.rate != rate) {
            self.stop(cx, st::ABNORMAL, st::ST1_MISSING_ADDRESS, 0);
            return false;
        }
        true
    }

    fn start(&mut self, cx: &mut Cx<'_>, what: Transfer) {
        if !self.position(cx) {
            return;
        }
        self.multi_track = self.arg(0) & 0x80 != 0;
        self.eot = self.arg(6);
        let sectors = u32::from(self.eot.saturating_sub(self.arg(4).saturating_sub(1)));
        self.total = if self.arg(5) == 0 {
            u32::from(self.arg(8))
        } else {
            let size = 128u32 << self.arg(5).min(7);
            let both = if self.multi_track { u32::from(self.eot) } else { 0 };
            size * (sectors + both)
        };
        self.done = 0;
        self.transfer = what;
        if what == Transfer::Write && self.drive().read_only() {
            return self.stop(cx, st::ABNORMAL | st::SEEK_END, st::ST1_NOT_WRITABLE, 0);
        }
        if self.total == 0 {
            return self.stop(cx, st::ABNORMAL, st::ST1_MISSING_ADDRESS, 0);
        }
        self.phase = Phase::Execution;
        self.pos = 0;
        if what == Transfer::Verify {
            return self.verify(cx);
        }
        if self.dor & dor::DMA_EN != 0 {
            self.msr &= !msr::RQM;
            dma::hold(cx.m, self.dma_channel);
            return;
        }
        self.msr |= msr::NON_DMA | msr::RQM | if what == Transfer::Read { msr::DIO } else { 0 };
        self.raise(cx);
    }

    /// Steps to the next sector of the command; `false` at its end.
    fn next_sector(&mut self) -> bool {
        let (multi, eot) = (self.multi_track, self.eot);
        let d = self.drive();
        let (mut head, mut track, mut sector, mut more) = (d.head, d.track, d.sector.saturating_add(1), true);
        let two_sided = d.two_sided();
        let mut seek = false;
        if d.sector >= d.last_sector() || d.sector == eot {
            sector = 1;
            if multi && head == 0 && two_sided {
                head = 1;
            } else {
                if multi {
                    head = 0;
                }
                track = track.saturating_add(1);
                seek = true;
                more = multi && two_sided;
            }
        }
        let moved = d.seek(head, track, sector, true);
        if !matches!(moved, Seek::Same | Seek::Moved) {
            more = false;
        }
        self.implied_seek_done |= seek;
        more
    }

    fn read_sector(&mut self, cx: &mut Cx<'_>) {
        let at = self.drive().lba() * SECTOR as u64;
        let mut data = std::mem::take(&mut self.fifo);
        data.resize(SECTOR, 0);
        let d = self.drive();
        let r = d.disk.as_ref().map(|k| k.backend.read_at(at, &mut data));
        if let (Some(Err(e)), Some(k)) = (r, &d.disk) {
            k.failed(cx, Direction::Read, e);
            data.fill(0);
        }
        self.fifo = data;
    }

    fn write_sector(&mut self, cx: &mut Cx<'_>) -> bool {
        let at = self.drive().lba() * SECTOR as u64;
        let data = std::mem::take(&mut self.fifo);
        let d = self.drive();
        let r = d.disk.as_ref().map(|k| k.backend.write_at(at, &data));
        let ok = match (r, &d.disk) {
            (Some(Err(e)), Some(k)) => k.failed(cx, Direction::Write, e) == rqemu_block::ErrorAction::Ignore,
            _ => true,
        };
        self.fifo = data;
        ok
    }

    /// Byte-by-byte read by the host.
    pub(super) fn pio_read(&mut self, cx: &mut Cx<'_>) -> u8 {
        let at = self.done as usize % SECTOR;
        if at == 0 {
            if self.done != 0 && !self.next_sector() {
                self.stop(cx, 0, 0, 0);
                return 0;
            }
            self.read_sector(cx);
        }
        let v = self.fifo.get(at).copied().unwrap_or(0);
        self.done += 1;
        if self.done >= self.total {
            self.stop(cx, 0, 0, 0);
        }
        v
    }

    /// Byte-by-byte write by the host.
    pub(super) fn pio_write(&mut self, cx: &mut Cx<'_>, v: u8) {
        let at = self.done as usize % SECTOR;
        if let Some(b) = self.fifo.get_mut(at) {
            *b = v;
        }
        self.done += 1;
        if at == SECTOR - 1 || self.done >= self.total {
            if !self.write_sector(cx) {
                return self.stop(cx, st::ABNORMAL | st::SEEK_END, 0, 0);
            }
            if !self.next_sector() || self.done >= self.total {
                self.stop(cx, 0, 0, 0);
            }
        }
    }

    fn verify(&mut self, cx: &mut Cx<'_>) {
        while self.done < self.total {
            self.read_sector(cx);
            self.done += SECTOR as u32;
            if !self.next_sector() {
                break;
            }
        }
        self.stop(cx, 0, 0, 0);
    }

    /// Fills all sectors of the track under the head.
    fn format_track(&mut self, cx: &mut Cx<'_>) {
        self.select();
        let (head, fill) = (self.arg(1) >> 2 & 1, self.arg(5));
        if self.drive().read_only() {
            return self.stop(cx, st::ABNORMAL | st::SEEK_END, st::ST1_NOT_WRITABLE, 0);
        }
        let d = self.drive();
        let (track, last, keep) = (d.track, d.last_sector(), d.sector);
        if !matches!(d.seek(head, track, 1, true), Seek::Same | Seek::Moved) {
            return self.stop(cx, st::ABNORMAL, st::ST1_MISSING_ADDRESS, 0);
        }
        self.fifo.clear();
        self.fifo.resize(SECTOR, fill);
        for s in 1..=last {
            self.drive().sector = s;
            if !self.write_sector(cx) {
                return self.stop(cx, st::ABNORMAL, 0, 0);
            }
        }
        self.drive().sector = keep;
        self.stop(cx, 0, 0, 0);
    }

    pub(super) fn read_id_done(&mut self, cx: &mut Cx<'_>) {
        let rate = self.dsr & dsr::RATE;
        let d = self.drive();
        let last = d.last_sector();
        if last != 0 {
            d.sector = (d.sector % last) + 1;
        }
        if d.format.is_none_or(|f| f.rate != rate) {
            self.stop(cx, st::ABNORMAL, st::ST1_MISSING_ADDRESS, 0);
        } else {
            self.stop(cx, 0, 0, 0);
        }
    }

    /// Compares a piece of a scan; the end of the command if it decides.
    fn scan(&self, disk: &[u8], host: &[u8]) -> Option<u8> {
        match (host.cmp(disk), self.transfer) {
            (std::cmp::Ordering::Equal, _) => Some(st::ST2_SCAN_HIT),
            (std::cmp::Ordering::Less, Transfer::ScanLow)
            | (std::cmp::Ordering::Greater, Transfer::ScanHigh) => Some(0),
            _ => None,
        }
    }
}

impl DmaClient for Fdc {
    fn run(&mut self, cx: &mut Cx<'_>, channel: u8, _pos: u32, len: u32) -> u32 {
        if self.phase != Phase::Execution || self.msr & msr::RQM != 0 {
            return 0;
        }
        let len = len.min(self.total);
        let mut st2 = match self.transfer {
            Transfer::ScanEqual | Transfer::ScanLow | Transfer::ScanHigh => st::ST2_SCAN_NOT_SATISFIED,
            _ => 0,
        };
        let mut failed = false;
        while self.done < len {
            let at = self.done as usize % SECTOR;
            let n = (len - self.done).min((SECTOR - at) as u32);
            let range = at..at + n as usize;
            if self.transfer != Transfer::Write || (n as usize) < SECTOR {
                self.read_sector(cx);
            }
            match self.transfer {
                Transfer::Read => {
                    dma::write_memory(cx, channel, self.fifo.get(range).unwrap_or_default(), self.done);
                }
                Transfer::Write => {
                    if let Some(b) = self.fifo.get_mut(range) {
                        dma::read_memory(cx, channel, b, self.done);
                    }
                    if !self.write_sector(cx) {
                        failed = true;
                        break;
                    }
                }
                _ => {
                    let mut host = [0; SECTOR];
                    dma::read_memory(cx, channel, &mut host[..n as usize], self.done);
                    let disk = self.fifo.get(range).unwrap_or_default();
                    if let Some(bits) = self.scan(disk, &host[..n as usize]) {
                        st2 = bits;
                        break;
                    }
                }
            }
            self.done += n;
            if (self.done as usize).is_multiple_of(SECTOR) && !self.next_sector() {
                break;
            }
        }
        let done = self.done;
        if failed {
            self.stop(cx, st::ABNORMAL | st::SEEK_END, 0, 0);
        } else {
            self.stop(cx, 0, 0, st2);
        }
        done
    }
}
