//! SMBus host controller of the PIIX4 (82371AB datasheet 290562, 11.3) and the EEPROMs on it.
//!
//! Transactions run when the guest first reads the status after starting one, so that it sees "busy" once, as with
//! QEMU. Left out: I2C block and process calls (end with a device error), byte-by-byte block transfers, the slave
//! side, interrupts (QEMU's PIIX4 has none either).

use rqemu_derive::Device;

use crate::device::{BusId, Cx, Device, RealizeCx};
use crate::machine::Machine;
use crate::qom::DeviceClass;
use crate::QResult;

/// Size of the register window.
pub const LEN: u32 = 64;

const HSTSTAT: u64 = 0;
const HSTCNT: u64 = 2;
const HSTCMD: u64 = 3;
const HSTADD: u64 = 4;
const HSTDAT0: u64 = 5;
const HSTDAT1: u64 = 6;
const BLKDAT: u64 = 7;
const AUXCTL: u64 = 0xd;

const STS_BUSY: u8 = 0x01;
const STS_INTR: u8 = 0x02;
const STS_DEV_ERR: u8 = 0x04;
const STS_FAILED: u8 = 0x10;

const CNT_KILL: u8 = 0x02;
const CNT_START: u8 = 0x40;
const CNT_KEPT: u8 = 0x1f;

/// Largest block.
const BLOCK: usize = 32;

/// The controller's registers.
pub struct SmbusHost {
    status: u8,
    control: u8,
    command: u8,
    address: u8,
    data0: u8,
    data1: u8,
    auxctl: u8,
    block: [u8; BLOCK],
    index: usize,
    /// The last transaction filled the buffer.
    block_read: bool,
}

impl Default for SmbusHost {
    fn default() -> Self {
        Self {
            status: 0,
            control: 0,
            command: 0,
            address: 0,
            data0: 0,
            data1: 0,
            auxctl: 2,
            block: [0; BLOCK],
            index: 0,
            block_read: false,
        }
    }
}

impl SmbusHost {
    /// Byte read.
    pub fn read(&mut self, m: &mut Machine, bus: BusId, offset: u64) -> u8 {
        match offset {
            HSTSTAT => {
                let v = self.status;
                if v & STS_BUSY != 0 {
                    let done = self.transact(m, bus).is_some();
                    self.status = if done { STS_INTR } else { STS_DEV_ERR };
                }
                v
            }
            HSTCNT => self.control & CNT_KEPT,
            HSTCMD => self.command,
            HSTADD => self.address,
            HSTDAT0 => self.data0,
            HSTDAT1 => self.data1,
            BLKDAT => {
                let v = self.block[self.index % BLOCK];
                self.index += 1;
                let end = if self.block_read { usize::from(self.data0) } else { BLOCK };
                if self.index == end || self.index >= BLOCK {
                    self.index = 0;
                }
                v
            }
            AUXCTL => self.auxctl,
            _ => 0,
        }
    }

    /// Byte write.
    pub fn write(&mut self, offset: u64, v: u8) {
        match offset {
            HSTSTAT => self.status &= !(v & !STS_BUSY),
            HSTCNT => {
                self.control = v & !CNT_START;
                if v & CNT_KILL != 0 {
                    self.status = (self.status & !STS_BUSY) | STS_FAILED;
                } else if v & CNT_START != 0 {
                    self.status = STS_BUSY;
                }
            }
            HSTCMD => self.command = v,
            HSTADD => self.address = v,
            HSTDAT0 => self.data0 = v,
            HSTDAT1 => self.data1 = v,
            BLKDAT => {
                self.block[self.index % BLOCK] = v;
                self.index = (self.index + 1) % BLOCK;
            }
            AUXCTL => self.auxctl = v & 3,
            _ => {}
        }
    }

    /// Carries the transaction out; `None` if nobody answers or it is of an unknown kind.
    fn transact(&mut self, m: &mut Machine, bus: BusId) -> Option<()> {
        let (protocol, read) = (self.control >> 2 & 7, self.address & 1 != 0);
        let target = find(m, bus, self.address >> 1)?;
        let me = self;
        me.block_read = protocol == 5 && read;
        m.with::<SmbusEeprom, _>(target, |e, _| {
            match (protocol, read) {
                (0, _) => {}
                (1, false) => e.offset = me.command,
                (1, true) => me.data0 = e.next(),
                (2, false) => e.store(me.command, &[me.data0]),
                (2, true) => {
                    e.offset = me.command;
                    me.data0 = e.next();
                }
                (3, false) => e.store(me.command, &[me.data0, me.data1]),
                (3, true) => {
                    e.offset = me.command;
                    (me.data0, me.data1) = (e.next(), e.next());
                }
                (5, false) => {
                    // As many bytes must have been put into the buffer as are to be sent.
                    let n = usize::from(me.data0);
                    if std::mem::take(&mut me.index) != n || n > BLOCK {
                        return None;
                    }
                    e.store(me.command, &[me.data0]);
                    let at = e.offset;
                    e.store(at, &me.block[..n]);
                }
                (5, true) => {
                    e.offset = me.command;
                    let n = usize::from(e.next());
                    // A length that does not fit ends the transfer.
                    let n = if n > BLOCK { 0 } else { n };
                    me.block[..n].fill_with(|| e.next());
                    me.data0 = n as u8;
                }
                _ => return None,
            }
            Some(())
        })?
    }
}

/// Device with an address on the bus.
fn find(m: &mut Machine, bus: BusId, address: u8) -> Option<crate::device::DevId> {
    let children = m.tree.bus(bus)?.children.clone();
    children.into_iter().find(|c| m.with::<SmbusEeprom, _>(*c, |e, _| e.address == address) == Some(true))
}

/// EEPROM with 256 bytes.
#[derive(Device)]
#[class(name = "smbus-eeprom", parent = "smbus-device", bus = I2c, category = Misc, internal)]
pub struct SmbusEepromProps {
    /// Address on the bus
    #[prop]
    pub address: u8,
}

impl DeviceClass for SmbusEepromProps {
    fn realize(&mut self, _cx: &mut RealizeCx<'_>) -> QResult<Box<dyn Device>> {
        Ok(Box::new(SmbusEeprom { address: self.address, offset: 0, data: [0; 256] }))
    }
}

/// EEPROM at run time. The `pc` machine leaves all of them empty (zero).
pub struct SmbusEeprom {
    address: u8,
    offset: u8,
    data: [u8; 256],
}

impl SmbusEeprom {
    fn next(&mut self) -> u8 {
        let v = self.data[usize::from(self.offset)];
        self.offset = self.offset.wrapping_add(1);
        v
    }

    fn store(&mut self, at: u8, bytes: &[u8]) {
        self.offset = at;
        for b in bytes {
            self.data[usize::from(self.offset)] = *b;
            self.offset = self.offset.wrapping_add(1);
        }
    }
}

impl Device for SmbusEeprom {
    fn reset(&mut self, _cx: &mut Cx<'_>) {
        self.data = [0; 256];
        self.offset = 0;
    }
    fn as_any(&mut self) -> &mut dyn std::any::Any {
        self
    }
}
