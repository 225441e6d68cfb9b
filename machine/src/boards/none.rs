//! The empty machine: no devices, no CPU unless asked for; used by tools that only probe.

use super::props::CommonProps;
use super::MachineType;
use crate::spec::MachineDefaults;

/// `none`.
pub static NONE: MachineType = MachineType {
    name: "none",
    alias: None,
    desc: "empty machine",
    is_default: false,
    max_cpus: 1,
    hotpluggable_cpus: false,
    default_cpu: None,
    default_ram_id: Some("ram"),
    default_ram: 0,
    numa_mem_supported: false,
    acpi: false,
    defaults: || MachineDefaults {
        no_serial: true,
        no_parallel: true,
        no_floppy: true,
        no_cdrom: true,
        no_sdcard: true,
        ..MachineDefaults::default()
    },
    compat: &[],
    prefer_sockets: false,
    keeps_amd_hole: false,
    pci_root_uid: 0,
    props: || Box::new(CommonProps::default()),
    init: |_| Ok(()),
};
