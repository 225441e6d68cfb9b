//! PCI configuration mechanism #1 (PCI Local Bus Specification 3.0, 3.2.2.3.2), shared by the host bridges.

use crate::device::BusId;
use crate::machine::{mask, Machine};

/// Bit of the address register that switches the data window on.
const ENABLE: u32 = 1 << 31;

/// The address register; the data window is derived from it.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConfigMech {
    /// Address register (port 0xcf8).
    pub addr: u32,
}

impl ConfigMech {
    /// Read of the address register. Narrow reads give the low bytes wherever they start, as QEMU's do.
    pub fn read_addr(&self, size: u8) -> u64 {
        u64::from(self.addr) & mask(size)
    }

    /// Write of the address register: only a full aligned double word counts.
    pub fn write_addr(&mut self, offset: u64, size: u8, value: u64) {
        if offset == 0 && size == 4 {
            self.addr = value as u32;
        }
    }

    /// Bus, slot/function and register that the data window shows at `offset`; `None` while it is off.
    fn target(&self, offset: u64) -> Option<(u8, u8, u16)> {
        if self.addr & ENABLE == 0 {
            return None;
        }
        let a = self.addr | (offset as u32 & 3);
        Some(((a >> 16) as u8, (a >> 8) as u8, (a & 0xff) as u16))
    }

    /// Read of the data window on the hierarchy below `root`.
    pub fn read_data(&self, m: &mut Machine, root: BusId, offset: u64, size: u8) -> u64 {
        let Some((bus, devfn, at)) = self.target(offset) else { return mask(size) };
        let dev = m.pci_find(root, bus, devfn);
        u64::from(m.pci_config_read(dev, at, size)) & mask(size)
    }

    /// Write of the data window.
    pub fn write_data(&self, m: &mut Machine, root: BusId, offset: u64, size: u8, value: u64) {
        let Some((bus, devfn, at)) = self.target(offset) else { return };
        let dev = m.pci_find(root, bus, devfn);
        m.pci_config_write(dev, at, size, value as u32);
    }
}
