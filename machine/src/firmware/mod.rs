//! Firmware tables and fw_cfg contents: pure functions from plain configuration to bytes.
//!
//! [`acpi`] and [`smbios`] build the tables, [`fw_cfg_files`] the other fw_cfg items, [`linux_boot`] the items of
//! a Linux kernel. [`direct_boot`] puts tables into guest memory when there is no firmware to do it; [`boot_params`]
//! and [`mp_table`] are what such a guest gets besides.

pub mod acpi;
pub mod boot_params;
pub mod direct_boot;
pub mod fdt;
pub mod fw_cfg_files;
pub mod linux_boot;
pub mod mp_table;
pub mod smbios;
