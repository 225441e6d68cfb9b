//! Device models, by area.

pub mod chipset;
pub mod display;
pub mod legacy;
pub mod misc;
pub mod net;
pub mod pci_bridge;
pub mod storage;
pub mod virtio;
pub mod watchdog;
