//! Properties that every PCI device has.

use rqemu_derive::Device;

use crate::qom::PciAddr;

/// Embed this as `#[base]` in a PCI device's properties.
#[derive(Device, Debug)]
pub struct PciProps {
    /// Slot and optional function, for example 06.0 or 06
    #[prop]
    pub addr: PciAddr,
    /// Option ROM file
    #[prop]
    pub romfile: Option<String>,
    /// Size of the option ROM BAR
    #[prop(default = u32::MAX)]
    pub romsize: u32,
    /// Show the option ROM in a BAR
    #[prop(default = 1u32)]
    pub rombar: u32,
    /// Function 0 of a device with several functions
    #[prop]
    pub multifunction: bool,
    /// Link active reporting
    #[prop(name = "x-pcie-lnksta-dllla", default = true)]
    pub x_pcie_lnksta_dllla: bool,
    /// Extended capability list
    #[prop(name = "x-pcie-extcap-init", default = true)]
    pub x_pcie_extcap_init: bool,
    /// Id of the primary device of a failover pair
    #[prop(name = "failover_pair_id")]
    pub failover_pair_id: Option<String>,
    /// Index for predictable names in the guest
    #[prop(name = "acpi-index")]
    pub acpi_index: u32,
}
