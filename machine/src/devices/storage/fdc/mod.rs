//! The floppy controller of a PC (Intel 82078, datasheet 290468) with its drives.
//!
//! The registers, the command phases and DMA; commands are in [`command`]. Left out: MFM timing, tape, the status
//! register A port (a PC/AT decodes only 3F1h-3F5h and 3F7h); FORMAT TRACK fills the track without looking at the
//! sector identifiers that the host supplies. Tested here and against a real QEMU over qtest.

mod command;
mod media;
mod props;
#[cfg(test)]
mod tests;

pub use media::{DriveType, FloppyDrive, Format};
pub use props::{FloppyProps, IsaFdcProps};

use crate::device::{Attach, BusHost, BusId, Cx, DevId, Device, IoHandler, TimerHandler};
use crate::devices::chipset::dma::{self, DmaClient};
use crate::irq::IrqLine;
use crate::{qerr, QResult};

/// Digital output register bits.
mod dor {
    pub const NOT_RESET: u8 = 4;
    pub const DMA_EN: u8 = 8;
}

/// Main status register bits.
mod msr {
    pub const BUSY: u8 = 0x10;
    pub const NON_DMA: u8 = 0x20;
    pub const DIO: u8 = 0x40;
    pub const RQM: u8 = 0x80;
}

/// Data rate select register bits.
mod dsr {
    pub const RATE: u8 = 3;
    pub const POWER_DOWN: u8 = 0x40;
    pub const RESET: u8 = 0x80;
}

/// Status registers 0 to 2.
mod st {
    pub const RELATIVE_SEEK: u8 = 0x20;
    pub const SEEK_END: u8 = 0x20;
    pub const ABNORMAL: u8 = 0x40;
    pub const INVALID: u8 = 0x80;
    pub const READY_CHANGED: u8 = 0xc0;
    pub const ST1_MISSING_ADDRESS: u8 = 1;
    pub const ST1_NOT_WRITABLE: u8 = 2;
    pub const ST1_END_OF_CYLINDER: u8 = 0x80;
    pub const ST2_SCAN_NOT_SATISFIED: u8 = 4;
    pub const ST2_SCAN_HIT: u8 = 8;
}

const SECTOR: usize = 512;

/// Delay until READ ID has its result, ns.
const READ_ID_DELAY: i64 = 20_000_000;

/// What the controller does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Takes command bytes.
    Command,
    /// Data move by DMA, or byte by byte.
    Execution,
    /// Hands result bytes out.
    Result,
}

/// Data command in execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transfer {
    Read,
    Write,
    Verify,
    ScanEqual,
    ScanLow,
    ScanHigh,
}

/// Controller at run time.
pub struct Fdc {
    irq: IrqLine,
    irq_level: bool,
    dma_channel: u8,
    drives: [FloppyDrive; 2],
    devices: [Option<DevId>; 2],
    bus: BusId,
    current: u8,
    dor: u8,
    srb: u8,
    dsr: u8,
    tdr: u8,
    msr: u8,
    st0: u8,
    /// Pending "ready changed" results after a reset.
    reset_sense: u8,
    phase: Phase,
    /// Command and result bytes, or a sector.
    fifo: Vec<u8>,
    pos: usize,
    len: usize,
    transfer: Transfer,
    multi_track: bool,
    implied_seek_done: bool,
    /// Last sector of the command.
    eot: u8,
    /// Bytes of the transfer and how far it is.
    total: u32,
    done: u32,
    config: u8,
    precompensation: u8,
    locked: bool,
    perpendicular: u8,
    power: u8,
    timers: [u8; 2],
}

impl Fdc {
    fn new(irq: IrqLine, dma_channel: u8, bus: BusId) -> Self {
        Self {
            irq,
            irq_level: false,
            dma_channel,
            drives: Default::default(),
            devices: [None; 2],
            bus,
            current: 0,
            dor: dor::NOT_RESET | dor::DMA_EN,
            srb: 0xc0,
            dsr: 0,
            tdr: 0,
            msr: msr::RQM,
            st0: 0,
            reset_sense: 0,
            phase: Phase::Command,
            fifo: vec![0; SECTOR],
            pos: 0,
            len: 0,
            transfer: Transfer::Read,
            multi_track: false,
            implied_seek_done: false,
            eot: 0,
            total: 0,
            done: 0,
            config: 0x60, // implied seeks, FIFO off
            precompensation: 0,
            locked: false,
            perpendicular: 0,
            power: 0,
            timers: [0; 2],
        }
    }

    /// Type of a drive, for CMOS.
    pub fn drive_type(&self, unit: usize) -> DriveType {
        self.drives.get(unit).filter(|d| d.disk.is_some()).map_or(DriveType::None, |d| d.kind)
    }

    /// Largest track, last head and last sector of a drive's format, for firmware tables.
    pub fn format(&self, unit: usize) -> Option<Format> {
        self.drives.get(unit)?.format
    }

    fn drive(&mut self) -> &mut FloppyDrive {
        // Positions 2 and 3 can be selected but hold no drive: they share the second one's place. The boot select bit
        // swaps the first two.
        let swap = self.tdr >> 2 & 1;
        &mut self.drives[usize::from((self.current.min(1) ^ swap) & 1)]
    }

    fn raise(&mut self, cx: &mut Cx<'_>) {
        self.irq_level = true;
        cx.set_irq(self.irq, true);
        self.reset_sense = 0;
    }

    fn lower(&mut self, cx: &mut Cx<'_>) {
        self.irq_level = false;
        self.st0 = 0;
        cx.set_irq(self.irq, false);
    }

    /// Reset by register (`announce`: each drive then reports a change of its ready line).
    fn controller_reset(&mut self, cx: &mut Cx<'_>, announce: bool) {
        self.lower(cx);
        cx.timer_set(0, None);
        if self.phase == Phase::Execution {
            dma::release(cx.m, self.dma_channel);
        }
        self.current = 0;
        self.dor = dor::NOT_RESET | dor::DMA_EN;
        self.srb = 0xc0;
        self.msr = 0;
        self.total = 0;
        self.done = 0;
        for d in &mut self.drives {
            (d.head, d.track, d.sector) = (0, 0, 1);
            d.revalidate();
        }
        self.command_phase();
        if announce {
            self.st0 = st::READY_CHANGED;
            self.raise(cx);
            self.reset_sense = 4;
        }
    }

    fn command_phase(&mut self) {
        self.phase = Phase::Command;
        self.pos = 0;
        self.len = 1;
        self.msr &= !(msr::BUSY | msr::DIO | msr::NON_DMA);
        self.msr |= msr::RQM;
    }

    /// Hands the first `n` bytes of the buffer out.
    fn result_phase(&mut self, n: usize) {
        self.phase = Phase::Result;
        self.pos = 0;
        self.len = n;
        self.msr |= msr::BUSY | msr::RQM | msr::DIO;
    }

    fn read_data(&mut self, cx: &mut Cx<'_>) -> u8 {
        self.dsr &= !dsr::POWER_DOWN;
        if self.msr & (msr::RQM | msr::DIO) != msr::RQM | msr::DIO {
            return 0;
        }
        if self.phase == Phase::Execution {
            return self.pio_read(cx);
        }
        let v = self.fifo.get(self.pos).copied().unwrap_or(0);
        self.pos += 1;
        self.msr &= !msr::RQM;
        if self.pos >= self.len {
            self.command_phase();
            self.lower(cx);
        } else {
            self.msr |= msr::RQM;
        }
        v
    }

    fn write_data(&mut self, cx: &mut Cx<'_>, v: u8) {
        if self.dor & dor::NOT_RESET == 0 || self.msr & msr::RQM == 0 || self.msr & msr::DIO != 0 {
            return;
        }
        self.dsr &= !dsr::POWER_DOWN;
        if self.phase == Phase::Execution {
            return self.pio_write(cx, v);
        }
        if self.pos == 0 {
            self.len = command::parameters(v) + 1;
            self.msr |= msr::BUSY;
        }
        if let Some(b) = self.fifo.get_mut(self.pos) {
            *b = v;
        }
        self.pos += 1;
        if self.pos >= self.len {
            self.execute(cx);
        }
    }

    fn write_dor(&mut self, cx: &mut Cx<'_>, v: u8) {
        self.srb = (self.srb & 0xdc) | (v >> 4 & 3) | (v & 1) << 5;
        let leaves_reset = self.dor & dor::NOT_RESET == 0 && v & dor::NOT_RESET != 0;
        if leaves_reset {
            self.controller_reset(cx, true);
            self.dsr &= !dsr::POWER_DOWN;
        }
        self.current = v & 3;
        self.dor = v & 0xfc;
    }

    fn write_dsr(&mut self, cx: &mut Cx<'_>, v: u8) {
        if self.dor & dor::NOT_RESET == 0 {
            return;
        }
        if v & dsr::RESET != 0 {
            self.dor &= !dor::NOT_RESET;
            self.controller_reset(cx, true);
        }
        self.dsr = v & !dsr::RESET;
    }
}

impl Device for Fdc {
    fn reset(&mut self, cx: &mut Cx<'_>) {
        self.locked = false;
        self.config = 0x60;
        self.timers = [0; 2];
        self.dor = dor::NOT_RESET | dor::DMA_EN;
        self.tdr = 0;
        self.dsr = 0;
        self.controller_reset(cx, false);
    }
    fn io(&mut self) -> Option<&mut dyn IoHandler> {
        Some(self)
    }
    fn timers(&mut self) -> Option<&mut dyn TimerHandler> {
        Some(self)
    }
    fn bus_host(&mut self) -> Option<&mut dyn BusHost> {
        Some(self)
    }
    fn dma_client(&mut self) -> Option<&mut dyn DmaClient> {
        Some(self)
    }
    fn as_any(&mut self) -> &mut dyn std::any::Any {
        self
    }
}

impl IoHandler for Fdc {
    fn read(&mut self, cx: &mut Cx<'_>, region: u32, offset: u64, _size: u8) -> u64 {
        u64::from(match u64::from(region) + offset {
            1 => self.srb,
            2 => self.dor | self.current,
            3 => self.tdr,
            4 => {
                self.dsr &= !dsr::POWER_DOWN;
                self.dor |= dor::NOT_RESET;
                self.msr
            }
            5 => self.read_data(cx),
            7 => u8::from(self.drive().changed) << 7,
            _ => 0xff,
        })
    }

    fn write(&mut self, cx: &mut Cx<'_>, region: u32, offset: u64, _size: u8, value: u64) {
        let v = value as u8;
        match u64::from(region) + offset {
            2 => self.write_dor(cx, v),
            3 if self.dor & dor::NOT_RESET != 0 => self.tdr = v & 4,
            4 => self.write_dsr(cx, v),
            5 => self.write_data(cx, v),
            7 if self.dor & dor::NOT_RESET != 0 => self.dsr = (self.dsr & !dsr::RATE) | (v & dsr::RATE),
            _ => {}
        }
    }
}

impl TimerHandler for Fdc {
    fn expired(&mut self, cx: &mut Cx<'_>, _id: u32) {
        self.read_id_done(cx);
    }
}

/// What a `floppy` hands to the controller.
pub struct NewFloppy {
    /// Position; `None` takes the first free one.
    pub unit: Option<u32>,
    /// Drive.
    pub drive: FloppyDrive,
}

impl BusHost for Fdc {
    fn attach(&mut self, _cx: &mut Cx<'_>, _bus: BusId, child: DevId, what: Attach) -> QResult<()> {
        let new = what.downcast::<NewFloppy>().map_err(|_| qerr!("not a floppy drive"))?;
        let free = |u: &usize| self.devices[*u].is_none();
        let unit = match new.unit {
            None => (0..2).find(free).unwrap_or(2),
            Some(u) => u as usize,
        };
        if unit >= 2 {
            return Err(qerr!("Can't create floppy unit {unit}, bus supports only 2 units"));
        }
        if !free(&unit) {
            return Err(qerr!("Floppy unit {unit} is in use"));
        }
        self.devices[unit] = Some(child);
        self.drives[unit] = new.drive;
        self.drives[unit].changed = true;
        self.drives[unit].sector = 1;
        self.drives[unit].revalidate();
        Ok(())
    }

    fn detach(&mut self, _cx: &mut Cx<'_>, _bus: BusId, child: DevId) {
        if let Some(u) = self.devices.iter().position(|d| *d == Some(child)) {
            self.devices[u] = None;
            self.drives[u] = FloppyDrive::default();
        }
    }
}
