//! Firmware tables and fw_cfg contents: pure functions from plain configuration to bytes.

pub mod acpi;
pub mod smbios;
