//! Bus master of one channel: command, status, and the table of physical regions.

use super::super::ata::AtaPort;
use crate::device::Cx;
use crate::irq::IrqLine;
use crate::pci::PciState;

/// Longest table: it must not be larger than a page. 512 entries of up to 64 KiB.
const MAX_ENTRIES: usize = 512;

const CMD_START: u8 = 1;
const CMD_READ: u8 = 8;
const STATUS_ACTIVE: u8 = 1;
const STATUS_ERROR: u8 = 2;
const STATUS_INT: u8 = 4;
/// "Drive can do DMA", for the BIOS to tell the driver.
const STATUS_DRIVES: u8 = 0x60;

/// What a write to the command register did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The start bit stayed as it was.
    None,
    /// It was set.
    Started,
    /// It was cleared.
    Stopped,
}

/// Bus master of one channel, with its interrupt line.
pub struct BusMaster {
    line: IrqLine,
    /// nIEN: the drive's interrupt is kept from the line.
    pub masked: bool,
    command: u8,
    status: u8,
    table: u32,
    /// The function may access memory.
    master: bool,
    regions: Vec<(u64, u32)>,
    total: u64,
}

impl BusMaster {
    /// With its interrupt line.
    pub fn new(line: IrqLine) -> Self {
        Self {
            line,
            masked: false,
            command: 0,
            status: 0,
            table: 0,
            master: false,
            regions: Vec::new(),
            total: 0,
        }
    }

    /// Power-on state.
    pub fn reset(&mut self, cx: &mut Cx<'_>) {
        (self.command, self.status, self.table) = (0, 0, 0);
        self.regions.clear();
        self.total = 0;
        self.lower(cx);
    }

    /// Lowers the interrupt line.
    pub fn lower(&mut self, cx: &mut Cx<'_>) {
        cx.set_irq(self.line, false);
    }

    /// Reads a register: 0 command, 2 status, 4-7 table. Only bytes of the first two can be read.
    pub fn read(&self, at: u64, size: u8) -> u32 {
        match (at, size) {
            (0, 1) => u32::from(self.command),
            (2, 1) => u32::from(self.status),
            (4, _) => self.table & crate::machine::mask(size) as u32,
            (5..=7, _) => (self.table >> ((at - 4) * 8)) & crate::machine::mask(size) as u32,
            _ => crate::machine::mask(size) as u32,
        }
    }

    /// Writes status or table; the command register goes through [`Self::command`].
    pub fn write(&mut self, at: u64, size: u8, v: u32) {
        match (at, size) {
            (2, 1) => {
                let v = v as u8;
                self.status = (v & STATUS_DRIVES)
                    | (self.status & STATUS_ACTIVE)
                    | (self.status & !v & (STATUS_ERROR | STATUS_INT));
            }
            (4..=7, _) => {
                let shift = (at - 4) * 8;
                let mask = (crate::machine::mask(size) as u32) << shift;
                self.table = ((self.table & !mask) | ((v << shift) & mask)) & !3;
            }
            _ => {}
        }
    }

    /// Writes the command register. `master`: the function may access memory.
    pub fn command(&mut self, _cx: &mut Cx<'_>, v: u8, master: bool) -> Change {
        self.master = master;
        let change = match (self.command & CMD_START != 0, v & CMD_START != 0) {
            (false, true) => {
                self.status |= STATUS_ACTIVE;
                Change::Started
            }
            (true, false) => {
                self.status &= !STATUS_ACTIVE;
                Change::Stopped
            }
            _ => Change::None,
        };
        self.command = v & (CMD_START | CMD_READ);
        change
    }

    fn load_table(&mut self, cx: &Cx<'_>) {
        let mut raw = [0; MAX_ENTRIES * 8];
        if self.master {
            // Read entry by entry: a table near the end of memory is fine as long as its end mark comes first.
            for (i, e) in raw.chunks_exact_mut(8).enumerate() {
                let at = u64::from(self.table.wrapping_add(i as u32 * 8));
                if cx.dma_read(at, e).is_err() || e[7] & 0x80 != 0 {
                    break;
                }
            }
        }
        self.regions.clear();
        self.total = 0;
        for e in raw.chunks_exact(8) {
            let addr = u32::from_le_bytes([e[0], e[1], e[2], e[3]]);
            let len = match u32::from(u16::from_le_bytes([e[4], e[5]]) & 0xfffe) {
                0 => 0x1_0000,
                n => n,
            };
            self.regions.push((u64::from(addr & !1), len));
            self.total += u64::from(len);
            if e[7] & 0x80 != 0 {
                break;
            }
        }
    }

    /// Calls `f(address, range of data)` for each piece of memory that `len` bytes at `pos` of the table touch.
    fn pieces(&self, mut pos: u64, len: usize, mut f: impl FnMut(u64, std::ops::Range<usize>)) {
        let mut done = 0;
        for (addr, size) in &self.regions {
            let size = u64::from(*size);
            if pos >= size {
                pos -= size;
                continue;
            }
            let n = (size - pos).min((len - done) as u64) as usize;
            f(addr + pos, done..done + n);
            done += n;
            pos = 0;
            if done == len {
                return;
            }
        }
    }
}

impl AtaPort for BusMaster {
    fn irq(&mut self, cx: &mut Cx<'_>) {
        if !self.masked {
            self.status |= STATUS_INT;
            cx.set_irq(self.line, true);
        }
    }

    fn dma_ready(&mut self, cx: &mut Cx<'_>) -> bool {
        if self.status & STATUS_ACTIVE == 0 {
            return false;
        }
        self.load_table(cx);
        true
    }

    fn dma_len(&self) -> u64 {
        self.total
    }

    fn dma_to_memory(&mut self, cx: &mut Cx<'_>, pos: u64, data: &[u8]) {
        if self.master {
            self.pieces(pos, data.len(), |addr, r| {
                // Memory that is not there swallows the data, as on the bus.
                let _ = cx.dma_write(addr, data.get(r).unwrap_or_default());
            });
        }
    }

    fn dma_from_memory(&mut self, cx: &mut Cx<'_>, pos: u64, data: &mut [u8]) {
        data.fill(0);
        if self.master {
            self.pieces(pos, data.len(), |addr, r| {
                if let Some(d) = data.get_mut(r) {
                    let _ = cx.dma_read(addr, d);
                }
            });
        }
    }

    fn dma_end(&mut self, _cx: &mut Cx<'_>, _moved: u64, more: bool) {
        if more {
            self.status |= STATUS_ACTIVE;
        } else {
            self.status &= !STATUS_ACTIVE;
        }
    }
}

/// Whether the function may master the bus.
pub fn may_master(pci: &PciState) -> bool {
    pci.bus_master()
}
