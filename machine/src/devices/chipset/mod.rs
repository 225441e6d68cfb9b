//! Host bridge, PIIX3, PIIX4 power management, ISA DMA, fw_cfg.

pub mod confmech;
pub mod fw_cfg;
pub mod i440fx;
pub mod pam;
pub mod piix3;

#[cfg(test)]
mod tests;
