//! Older versions of `pc`: what a guest of an older QEMU saw, as far as it differs from `pc-i440fx-7.2`.
//!
//! The values were measured: `info qtree`, the properties of processors, fw_cfg files and `query-machines` of QEMU 7.2 for
//! each version against the one after it, with every device that has values of its own there.

use super::pc::PC;
use super::{Compat, MachineType};

/// What all virtio devices got in some version.
macro_rules! virtio {
    ($prop:literal, $value:literal $(, $more:expr)* $(,)?) => {
        &[("virtio-device", $prop, $value) $(, $more)*]
    };
}

const BEFORE_7_2: &[Compat] = virtio!("queue_reset", "false", ("virtio-rng-pci", "vectors", "0"));
const BEFORE_7_0: &[Compat] = &[("PIIX4_PM", "x-not-migrate-acpi-index", "on")];
const BEFORE_6_2: &[Compat] = &[
    ("x86_64-cpu", "hv-version-id-build", "7100"),
    ("x86_64-cpu", "hv-version-id-major", "6"),
    ("x86_64-cpu", "hv-version-id-minor", "1"),
];
const BEFORE_6_1: &[Compat] = &[
    ("e1000", "init-vet", "off"),
    ("e1000e", "init-vet", "off"),
    ("i8042", "extended-state", "off"),
    ("qemu64-x86_64-cpu", "family", "6"),
    ("qemu64-x86_64-cpu", "model", "6"),
    ("qemu64-x86_64-cpu", "stepping", "3"),
    ("x86_64-cpu", "x-vendor-cpuid-only", "off"),
];
const BEFORE_6_0: &[Compat] = &[
    ("nvme", "msix-exclusive-bar", "on"),
    ("virtio-net-pci", "vectors", "3"),
    ("virtio-blk-device", "report-discard-granularity", "off"),
    ("PIIX4_PM", "smm-compat", "on"),
];
const BEFORE_5_2: &[Compat] = &[
    ("nvme", "use-intel-id", "on"),
    ("virtio-pci", "x-ats-page-aligned", "off"),
    ("virtio-blk-device", "num-queues", "1"),
    ("virtio-scsi-device", "num_queues", "1"),
    ("pvpanic", "events", "1"),
];
const BEFORE_5_1: &[Compat] = virtio!(
    "x-disable-legacy-check",
    "true",
    ("i440FX-pcihost", "x-config-reg-migration-enabled", "off"),
    ("virtio-balloon-device", "page-poison", "false"),
    ("vmport", "x-read-set-eax", "off"),
    ("vmport", "x-signal-unsupported-cmd", "off"),
    ("vmport", "x-report-vmx-type", "off"),
    ("vmport", "x-cmds-v2", "off"),
);
const BEFORE_5_0: &[Compat] = virtio!(
    "use-disabled-flag",
    "false",
    ("virtio-blk-device", "queue-size", "128"),
    ("virtio-blk-device", "seg-max-adjust", "off"),
    ("virtio-blk-device", "x-enable-wce-if-config-wce", "off"),
    ("virtio-scsi-device", "virtqueue_size", "128"),
    ("virtio-scsi-device", "seg_max_adjust", "off"),
    ("fw_cfg_io", "acpi-mr-restore", "false"),
);

const BEFORE_4_2: &[Compat] = &[("virtio-pci", "x-pcie-flr-init", "off")];

/// A version older than [`PC`].
const fn older(name: &'static str, compat: &'static [&'static [Compat]]) -> MachineType {
    MachineType { name, alias: None, is_default: false, compat, ..PC }
}

/// `pc-i440fx-7.1`.
pub static PC_7_1: MachineType = older("pc-i440fx-7.1", &[BEFORE_7_2]);
/// `pc-i440fx-7.0`.
pub static PC_7_0: MachineType =
    MachineType { keeps_amd_hole: false, ..older("pc-i440fx-7.0", &[BEFORE_7_2]) };
/// `pc-i440fx-6.2`.
pub static PC_6_2: MachineType =
    MachineType { keeps_amd_hole: false, ..older("pc-i440fx-6.2", &[BEFORE_7_2, BEFORE_7_0]) };
/// `pc-i440fx-6.1`.
pub static PC_6_1: MachineType = MachineType {
    keeps_amd_hole: false,
    prefer_sockets: true,
    ..older("pc-i440fx-6.1", &[BEFORE_7_2, BEFORE_7_0, BEFORE_6_2])
};
/// `pc-i440fx-6.0`.
pub static PC_6_0: MachineType = MachineType {
    keeps_amd_hole: false,
    prefer_sockets: true,
    ..older("pc-i440fx-6.0", &[BEFORE_7_2, BEFORE_7_0, BEFORE_6_2, BEFORE_6_1])
};
/// `pc-i440fx-5.2`.
pub static PC_5_2: MachineType = MachineType {
    keeps_amd_hole: false,
    prefer_sockets: true,
    ..older("pc-i440fx-5.2", &[BEFORE_7_2, BEFORE_7_0, BEFORE_6_2, BEFORE_6_1, BEFORE_6_0])
};
/// `pc-i440fx-5.1`.
pub static PC_5_1: MachineType = MachineType {
    keeps_amd_hole: false,
    prefer_sockets: true,
    pci_root_uid: 1,
    ..older("pc-i440fx-5.1", &[BEFORE_7_2, BEFORE_7_0, BEFORE_6_2, BEFORE_6_1, BEFORE_6_0, BEFORE_5_2])
};
/// `pc-i440fx-5.0`.
pub static PC_5_0: MachineType = MachineType {
    keeps_amd_hole: false,
    prefer_sockets: true,
    pci_root_uid: 1,
    numa_mem_supported: true,
    ..older(
        "pc-i440fx-5.0",
        &[BEFORE_7_2, BEFORE_7_0, BEFORE_6_2, BEFORE_6_1, BEFORE_6_0, BEFORE_5_2, BEFORE_5_1],
    )
};
/// `pc-i440fx-4.2`.
pub static PC_4_2: MachineType = MachineType {
    keeps_amd_hole: false,
    prefer_sockets: true,
    pci_root_uid: 1,
    numa_mem_supported: true,
    ..older(
        "pc-i440fx-4.2",
        &[BEFORE_7_2, BEFORE_7_0, BEFORE_6_2, BEFORE_6_1, BEFORE_6_0, BEFORE_5_2, BEFORE_5_1, BEFORE_5_0],
    )
};
/// `pc-i440fx-4.1`.
pub static PC_4_1: MachineType = MachineType {
    keeps_amd_hole: false,
    prefer_sockets: true,
    pci_root_uid: 1,
    numa_mem_supported: true,
    ..older(
        "pc-i440fx-4.1",
        &[
            BEFORE_7_2, BEFORE_7_0, BEFORE_6_2, BEFORE_6_1, BEFORE_6_0, BEFORE_5_2, BEFORE_5_1, BEFORE_5_0,
            BEFORE_4_2,
        ],
    )
};
