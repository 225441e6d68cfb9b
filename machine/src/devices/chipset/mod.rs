//! Host bridge, PIIX3, PIIX4 power management, ISA DMA, fw_cfg.
