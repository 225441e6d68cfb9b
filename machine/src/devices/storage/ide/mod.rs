//! IDE channels and the host adapters that carry them.
//!
//! A [`Channel`] is a cable with two drive positions, its task file ports and its bus master. Register behaviour is
//! that of ATA/ATAPI-6; the bus master is the one of "Programming Interface for Bus Master IDE Controller" 1.0.

mod busmaster;
mod drives;
mod piix;
#[cfg(test)]
mod tests;

pub use busmaster::BusMaster;
pub use drives::{IdeCdProps, IdeHdProps};
pub use piix::{Piix3IdeProps, Piix4IdeProps};

use super::ata::{cmd, AtaPort, Drive, Kind};
use crate::device::{BusId, Cx, DevId};

/// Device control register bits.
mod control {
    pub const NIEN: u8 = 2;
    pub const SRST: u8 = 4;
    pub const HOB: u8 = 0x80;
}

/// What an `ide-hd` or `ide-cd` hands to its controller.
pub struct NewDrive {
    /// Position wished for; `None` takes the first free one.
    pub unit: Option<u32>,
    /// The drive.
    pub drive: Box<Drive>,
}

/// A cable with two drive positions.
pub struct Channel {
    drives: [Box<Drive>; 2],
    /// Devices in the positions.
    pub devices: [Option<DevId>; 2],
    /// The bus in the device tree.
    pub bus: BusId,
    unit: usize,
    control: u8,
    /// Bus master and interrupt line.
    pub bm: BusMaster,
}

impl Channel {
    /// A cable without drives.
    pub fn new(bus: BusId, bm: BusMaster) -> Self {
        let drives = [Box::new(Drive::empty()), Box::new(Drive::empty())];
        Self { drives, devices: [None; 2], bus, unit: 0, control: 0, bm }
    }

    /// Position of a device.
    pub fn unit_of(&self, dev: DevId) -> Option<usize> {
        self.devices.iter().position(|d| *d == Some(dev))
    }

    /// Drive and port, for a call from the side of the drive's device.
    pub fn drive(&mut self, unit: usize) -> (&mut Drive, &mut dyn AtaPort) {
        let nien = self.control & control::NIEN != 0;
        self.bm.masked = nien;
        (&mut self.drives[unit & 1], &mut self.bm)
    }

    /// Plugs a drive in.
    pub fn plug(&mut self, unit: usize, dev: DevId, drive: Box<Drive>) {
        self.devices[unit & 1] = Some(dev);
        self.drives[unit & 1] = drive;
    }

    /// Takes a drive out.
    pub fn unplug(&mut self, unit: usize) {
        self.devices[unit & 1] = None;
        self.drives[unit & 1].cancel();
        *self.drives[unit & 1] = Drive::empty();
    }

    /// Power-on state.
    pub fn reset(&mut self, cx: &mut Cx<'_>) {
        self.unit = 0;
        self.control = 0;
        for d in &mut self.drives {
            d.power_on();
        }
        self.bm.reset(cx);
    }

    fn active(&mut self) -> (&mut Drive, &mut dyn AtaPort) {
        self.drive(self.unit)
    }

    fn nobody(&self) -> bool {
        self.drives.iter().all(|d| !d.present())
    }

    /// The selected position is empty and does not answer for itself.
    fn silent(&self) -> bool {
        self.nobody() || (self.unit == 1 && !self.drives[1].present())
    }

    /// Reads a byte of the command block (`reg` 1-7; 0 reads the low half of a data word).
    pub fn read(&mut self, cx: &mut Cx<'_>, reg: u8) -> u8 {
        let hob = self.control & control::HOB != 0;
        let (nobody, silent) = (self.nobody(), self.silent());
        if reg == 0 {
            return self.data_read(cx) as u8;
        }
        if reg == 7 {
            self.bm.lower(cx);
        }
        if nobody || (silent && matches!(reg, 1 | 7)) {
            return 0;
        }
        let t = &self.drives[self.unit].tf;
        match (reg, hob) {
            (1, false) => t.error,
            (1, true) => t.hob_feature,
            (2, false) => t.nsector as u8,
            (2, true) => t.hob_nsector,
            (3, false) => t.sector,
            (3, true) => t.hob_sector,
            (4, false) => t.lcyl,
            (4, true) => t.hob_lcyl,
            (5, false) => t.hcyl,
            (5, true) => t.hob_hcyl,
            (6, _) => t.select,
            _ => t.status,
        }
    }

    /// Reads alternate status.
    pub fn alt_status(&self) -> u8 {
        if self.silent() {
            0
        } else {
            self.drives[self.unit].tf.status
        }
    }

    /// Writes a byte of the command block (1-7). Both drives see every write but the command.
    pub fn write(&mut self, cx: &mut Cx<'_>, reg: u8, v: u8) {
        if reg == 7 {
            self.control &= !control::HOB;
            return self.command(cx, v);
        }
        if self.drives[self.unit].busy() {
            return;
        }
        self.control &= !control::HOB;
        for (i, d) in self.drives.iter_mut().enumerate() {
            let t = &mut d.tf;
            match reg {
                1 => (t.hob_feature, t.feature) = (t.feature, v),
                2 => (t.hob_nsector, t.nsector) = (t.nsector as u8, u32::from(v)),
                3 => (t.hob_sector, t.sector) = (t.sector, v),
                4 => (t.hob_lcyl, t.lcyl) = (t.lcyl, v),
                5 => (t.hob_hcyl, t.hcyl) = (t.hcyl, v),
                6 => t.select = (v & !0x10) | 0xa0 | (i as u8) << 4,
                _ => {}
            }
        }
        if reg == 6 {
            self.unit = usize::from(v >> 4 & 1);
        }
    }

    fn command(&mut self, cx: &mut Cx<'_>, code: u8) {
        self.bm.lower(cx);
        if self.unit == 1 && !self.drives[1].present() {
            return;
        }
        if code == cmd::DIAGNOSE && !self.drives[self.unit].busy() {
            self.diagnose();
            // Packet devices end this command without an interrupt.
            if self.drives.iter().any(|d| d.kind == Kind::Disk) {
                self.interrupt(cx);
            }
            return;
        }
        let (d, port) = self.active();
        d.command(cx, port, code);
    }

    fn diagnose(&mut self) {
        for d in self.drives.iter_mut().filter(|d| d.present()) {
            d.diagnose();
        }
    }

    fn interrupt(&mut self, cx: &mut Cx<'_>) {
        self.bm.masked = self.control & control::NIEN != 0;
        self.bm.irq(cx);
    }

    /// Writes device control.
    pub fn write_control(&mut self, cx: &mut Cx<'_>, v: u8) {
        let reset = v & control::SRST != 0 && self.control & control::SRST == 0;
        self.control = v;
        if reset {
            for d in &mut self.drives {
                d.power_on();
            }
            self.diagnose();
            self.interrupt(cx);
        }
    }

    /// Reads a word of data.
    pub fn data_read(&mut self, cx: &mut Cx<'_>) -> u16 {
        let (d, port) = self.active();
        d.data_read(cx, port)
    }

    /// Writes a word of data.
    pub fn data_write(&mut self, cx: &mut Cx<'_>, v: u16) {
        let (d, port) = self.active();
        d.data_write(cx, port, v);
    }

    /// Writes the bus master's command register.
    pub fn bm_command(&mut self, cx: &mut Cx<'_>, v: u8, master: bool) {
        match self.bm.command(cx, v, master) {
            busmaster::Change::None => {}
            busmaster::Change::Started => {
                let unit = self.drives.iter().position(|d| d.dma_waiting());
                if let Some(unit) = unit {
                    let (d, port) = self.drive(unit);
                    d.dma_go(cx, port);
                }
            }
            busmaster::Change::Stopped => {
                for d in &mut self.drives {
                    d.stop_dma();
                }
            }
        }
    }

    /// The machine runs again.
    pub fn resume(&mut self, cx: &mut Cx<'_>) {
        for unit in 0..2 {
            let (d, port) = self.drive(unit);
            d.resume(cx, port);
        }
    }
}
