//! PCI: configuration space, BARs, INTx, MSI-X, buses. Follows the PCI Local Bus Specification 3.0.

mod bus;
mod config;
mod msi;
mod msix;
mod props;
mod rom;

pub use bus::{PciBus, PciBuses};
pub use config::{Bar, BarKind, PciIds, PciState};
pub use msi::Msi;
pub use msix::Msix;
pub use props::PciProps;
pub use rom::load_rom;

/// Offsets in configuration space.
#[allow(missing_docs)]
pub mod reg {
    pub const VENDOR_ID: usize = 0x00;
    pub const DEVICE_ID: usize = 0x02;
    pub const COMMAND: usize = 0x04;
    pub const STATUS: usize = 0x06;
    pub const REVISION: usize = 0x08;
    pub const CLASS_PROG: usize = 0x09;
    pub const CLASS_DEVICE: usize = 0x0a;
    pub const CACHE_LINE: usize = 0x0c;
    pub const LATENCY: usize = 0x0d;
    pub const HEADER_TYPE: usize = 0x0e;
    pub const BAR0: usize = 0x10;
    pub const SECONDARY_BUS: usize = 0x19;
    pub const SUBORDINATE_BUS: usize = 0x1a;
    pub const SUBSYSTEM_VENDOR_ID: usize = 0x2c;
    pub const SUBSYSTEM_ID: usize = 0x2e;
    pub const ROM: usize = 0x30;
    pub const CAP_LIST: usize = 0x34;
    pub const INTERRUPT_LINE: usize = 0x3c;
    pub const INTERRUPT_PIN: usize = 0x3d;
    /// Command register bits.
    pub const CMD_IO: u16 = 1;
    pub const CMD_MEMORY: u16 = 2;
    pub const CMD_MASTER: u16 = 4;
    pub const CMD_SERR: u16 = 0x100;
    pub const CMD_INTX_DISABLE: u16 = 0x400;
    pub const STATUS_INTERRUPT: u16 = 8;
    pub const STATUS_CAP_LIST: u16 = 0x10;
}

#[cfg(test)]
mod tests;
