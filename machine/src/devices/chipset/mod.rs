//! Host bridge, PIIX3, PIIX4 power management, ISA DMA, fw_cfg.

pub mod acpi;
pub mod confmech;
pub mod dma;
pub mod fw_cfg;
pub mod i440fx;
pub mod pam;
pub mod piix3;
pub mod piix4_pm;
pub mod smbus;

#[cfg(test)]
mod tests;
