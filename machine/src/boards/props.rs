//! Properties of the x86 machine types.

use rqemu_derive::Device;

use super::values::{
    BootConfiguration, BusLockLimit, MemoryConfiguration, NoGuard, NoPhandle, NoText, SgxEpc,
    SmpConfiguration,
};
use super::MachineProps;
use crate::objects::Str;
use crate::qom::{AudiodevRef, DriveRef, MemdevRef, OnOffAuto, PropStruct, PropTable, Size};

/// Properties that every machine has.
#[derive(Device, Debug)]
pub struct CommonProps {
    /// Include guest memory in a core dump
    #[prop(name = "dump-guest-core", default = true)]
    pub dump_guest_core: bool,
    /// Enable or disable memory merge support
    #[prop(name = "mem-merge", default = true)]
    pub mem_merge: bool,
    /// Set on to use graphical output
    #[prop(default = true)]
    pub graphics: bool,
    /// Set on to create the USB controller
    #[prop]
    pub usb: bool,
    /// Firmware image
    #[prop]
    pub firmware: Str,
    /// Linux kernel image file
    #[prop]
    pub kernel: Str,
    /// Linux initial ramdisk file
    #[prop]
    pub initrd: Str,
    /// Linux kernel command line
    #[prop]
    pub append: Str,
    /// Linux kernel device tree file
    #[prop]
    pub dtb: Str,
    /// Dump current dtb to a file and quit
    #[prop]
    pub dumpdtb: NoText,
    /// Overrides the "compatible" property of the dt root node
    #[prop(name = "dt-compatible")]
    pub dt_compatible: NoText,
    /// The first phandle ID we may generate dynamically
    #[prop(name = "phandle-start")]
    pub phandle_start: NoPhandle,
    /// Object that encrypts memory
    #[prop(name = "memory-encryption")]
    pub memory_encryption: NoText,
    /// Object that guards the guest's memory
    #[prop(name = "confidential-guest-support")]
    pub confidential_guest_support: NoGuard,
    /// Processors
    #[prop]
    pub smp: SmpConfiguration,
    /// Boot configuration
    #[prop]
    pub boot: BootConfiguration,
    /// Memory size configuration
    #[prop]
    pub memory: MemoryConfiguration,
    /// Backend that provides all of RAM
    #[prop(name = "memory-backend")]
    pub memory_backend: MemdevRef,
    /// Suppress devices that describe themselves to the guest
    #[prop(name = "suppress-vmdesc")]
    pub suppress_vmdesc: bool,
}

/// Properties of all x86 machines.
#[derive(Device, Debug)]
pub struct X86Props {
    /// Everything that is not x86's own
    #[base]
    pub common: CommonProps,
    /// ACPI tables
    #[prop]
    pub acpi: OnOffAuto,
    /// System management mode
    #[prop]
    pub smm: OnOffAuto,
    /// Interrupt controllers: on, off, split
    #[prop(object, name = "kernel-irqchip")]
    pub kernel_irqchip: KernelIrqchip,
    /// Same as kernel-irqchip
    #[prop(object, name = "kernel_irqchip")]
    pub kernel_irqchip_old: KernelIrqchip,
    /// PIT
    #[prop]
    pub pit: OnOffAuto,
    /// PIC
    #[prop]
    pub pic: OnOffAuto,
    /// Id of the OEM in ACPI tables
    #[prop(name = "x-oem-id")]
    pub oem_id: Str,
    /// Id of the OEM's table in ACPI tables
    #[prop(name = "x-oem-table-id")]
    pub oem_table_id: Str,
    /// Limit of bus locks
    #[prop(name = "bus-lock-ratelimit")]
    pub bus_lock_ratelimit: BusLockLimit,
    /// SGX memory
    #[prop(name = "sgx-epc")]
    pub sgx_epc: SgxEpc,
}

/// Where the interrupt controllers live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KernelIrqchip {
    /// As the accelerator likes.
    #[default]
    Auto,
    /// In the kernel.
    On,
    /// In this process.
    Off,
    /// Local APICs in the kernel, the rest here.
    Split,
}

crate::enum_prop!(KernelIrqchip, "on|off|split",
    "on" => KernelIrqchip::On, "off" => KernelIrqchip::Off, "split" => KernelIrqchip::Split,
    "auto" => KernelIrqchip::Auto);

/// Entry point of the SMBIOS tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SmbiosEntryPoint {
    /// 32-bit (2.1) anchor.
    #[default]
    Bits32,
    /// 64-bit (3.0) anchor.
    Bits64,
}

crate::enum_prop!(SmbiosEntryPoint, "str",
    "32" => SmbiosEntryPoint::Bits32, "64" => SmbiosEntryPoint::Bits64);

/// Properties of `pc`.
#[derive(Device, Debug)]
pub struct PcProps {
    /// All x86 machines'
    #[base]
    pub x86: X86Props,
    /// HPET
    #[prop(default = true)]
    pub hpet: bool,
    /// VMware port
    #[prop]
    pub vmport: OnOffAuto,
    /// i8042
    #[prop(default = true)]
    pub i8042: bool,
    /// SMBus controller
    #[prop(default = true)]
    pub smbus: bool,
    /// Default bus of SATA drives (q35)
    #[prop(default = true)]
    pub sata: bool,
    /// End of RAM below 4 GiB
    #[prop(name = "max-ram-below-4g")]
    pub max_ram_below_4g: Size,
    /// Largest firmware image
    #[prop(name = "max-fw-size", default = 8u64 << 20)]
    pub max_fw_size: Size,
    /// SMBIOS entry point type
    #[prop(name = "smbios-entry-point-type")]
    pub smbios_entry_point_type: SmbiosEntryPoint,
    /// Devices on the root bus bypass an IOMMU
    #[prop(name = "default-bus-bypass-iommu")]
    pub default_bus_bypass_iommu: bool,
    /// Audio backend of the PC speaker
    #[prop(object, name = "pcspk-audiodev")]
    pub pcspk_audiodev: AudiodevRef,
    /// Node name or ID of a block device to use as a backend
    #[prop(object)]
    pub pflash0: DriveRef,
    /// Node name or ID of a block device to use as a backend
    #[prop(object)]
    pub pflash1: DriveRef,
}

impl MachineProps for PcProps {
    fn table(&self) -> &'static PropTable {
        Self::PROPS
    }
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

impl MachineProps for CommonProps {
    fn table(&self) -> &'static PropTable {
        Self::PROPS
    }
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}
