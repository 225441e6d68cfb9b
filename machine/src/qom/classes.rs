//! The explicit, sorted list of classes.

use super::ClassInfo;
#[allow(unused_imports)]
use super::Classed;

/// Registers classes; keep the list sorted by class name (a test checks it).
macro_rules! register_classes {
    (types { $($t:path),* $(,)? } abstracts { $($name:literal : $parent:expr),* $(,)? }) => {
        static CONCRETE: &[&ClassInfo] = &[$(<$t as Classed>::CLASS),*];
        static ABSTRACT: &[ClassInfo] = &[$(ClassInfo::abstract_($name, $parent)),*];
    };
}

register_classes! {
    types {
        crate::devices::chipset::piix3::Piix3Props,
        crate::devices::chipset::piix4_pm::Piix4PmProps,
        crate::devices::display::vga::pci::VgaPciProps,
        crate::devices::misc::ged::GedProps,
        crate::cpu::UserApicProps,
        crate::devices::storage::pflash::PflashProps,
        crate::devices::net::e1000::E1000Props,
        crate::devices::net::e1000::E1000Gc82544Props,
        crate::devices::net::e1000::E1000Em82545Props,
        crate::devices::storage::fdc::FloppyProps,
        crate::devices::chipset::fw_cfg::FwCfgIoProps,
        crate::devices::legacy::hpet::HpetProps,
        crate::devices::chipset::i440fx::I440fxProps,
        crate::devices::chipset::i440fx::I440fxHostProps,
        crate::devices::watchdog::i6300esb::I6300esbProps,
        crate::devices::legacy::i8042::I8042Props,
        crate::devices::chipset::dma::I8257Props,
        crate::devices::watchdog::ib700::Ib700Props,
        crate::devices::storage::ahci::Ich9AhciProps,
        crate::devices::storage::ide::IdeCdProps,
        crate::devices::storage::ide::IdeHdProps,
        crate::devices::legacy::ioapic::IoapicProps,
        crate::devices::misc::debug_exit::DebugExitProps,
        crate::devices::misc::debugcon::DebugconProps,
        crate::devices::storage::fdc::IsaFdcProps,
        crate::devices::legacy::i8259::IsaPicProps,
        crate::devices::legacy::parallel::IsaParallelProps,
        crate::devices::legacy::pit::pcspk::PcspkProps,
        crate::devices::legacy::pit::IsaPitProps,
        crate::devices::legacy::serial::IsaSerialProps,
        crate::devices::misc::isabus_bridge::IsaBridgeProps,
        crate::cpu::KvmApicProps,
        crate::devices::legacy::kvm::KvmPicProps,
        crate::devices::legacy::kvm::KvmIoapicProps,
        crate::devices::legacy::kvm::KvmPitProps,
        crate::devices::legacy::kvm_clock::KvmClockProps,
        crate::devices::legacy::vapic::KvmVapicProps,
        crate::devices::legacy::rtc::Mc146818Props,
        crate::devices::net::ne2000::Ne2kPciProps,
        crate::devices::misc::pc_testdev::PcTestdevProps,
        crate::devices::pci_bridge::PciBridgeProps,
        crate::devices::legacy::serial::PciSerialProps,
        crate::devices::storage::ide::Piix3IdeProps,
        crate::devices::storage::ide::Piix4IdeProps,
        crate::devices::misc::port92::Port92Props,
        crate::devices::legacy::i8042::Ps2KbdProps,
        crate::devices::legacy::i8042::Ps2MouseProps,
        crate::devices::misc::pvpanic::PvpanicProps,
        crate::devices::misc::pvpanic::PvpanicPciProps,
        crate::devices::net::rtl8139::Rtl8139Props,
        crate::devices::storage::scsi::ScsiCdProps,
        crate::devices::storage::scsi::ScsiHdProps,
        crate::devices::display::vga::secondary::SecondaryVgaProps,
        crate::devices::legacy::serial::SerialProps,
        crate::devices::chipset::smbus::SmbusEepromProps,
        crate::devices::virtio::serial::port::VirtConsoleProps,
        crate::devices::virtio::balloon::VirtioBalloonProps,
        crate::devices::virtio::pci::PciDeviceProps<crate::devices::virtio::balloon::VirtioBalloonProps, 0>,
        crate::devices::virtio::pci::PciDeviceProps<crate::devices::virtio::balloon::VirtioBalloonProps, 2>,
        crate::devices::virtio::pci::PciDeviceProps<crate::devices::virtio::balloon::VirtioBalloonProps, 1>,
        crate::devices::virtio::blk::VirtioBlkProps,
        crate::devices::virtio::pci::PciDeviceProps<crate::devices::virtio::blk::VirtioBlkProps, 0>,
        crate::devices::virtio::pci::PciDeviceProps<crate::devices::virtio::blk::VirtioBlkProps, 2>,
        crate::devices::virtio::pci::PciDeviceProps<crate::devices::virtio::blk::VirtioBlkProps, 1>,
        crate::devices::virtio::mmio::VirtioMmioProps,
        crate::devices::virtio::net::VirtioNetProps,
        crate::devices::virtio::pci::PciDeviceProps<crate::devices::virtio::net::VirtioNetProps, 0>,
        crate::devices::virtio::pci::PciDeviceProps<crate::devices::virtio::net::VirtioNetProps, 2>,
        crate::devices::virtio::pci::PciDeviceProps<crate::devices::virtio::net::VirtioNetProps, 1>,
        crate::devices::virtio::rng::VirtioRngProps,
        crate::devices::virtio::pci::PciDeviceProps<crate::devices::virtio::rng::VirtioRngProps, 0>,
        crate::devices::virtio::pci::PciDeviceProps<crate::devices::virtio::rng::VirtioRngProps, 2>,
        crate::devices::virtio::pci::PciDeviceProps<crate::devices::virtio::rng::VirtioRngProps, 1>,
        crate::devices::virtio::scsi::VirtioScsiProps,
        crate::devices::virtio::pci::PciDeviceProps<crate::devices::virtio::scsi::VirtioScsiProps, 0>,
        crate::devices::virtio::pci::PciDeviceProps<crate::devices::virtio::scsi::VirtioScsiProps, 2>,
        crate::devices::virtio::pci::PciDeviceProps<crate::devices::virtio::scsi::VirtioScsiProps, 1>,
        crate::devices::virtio::serial::VirtioSerialProps,
        crate::devices::virtio::pci::PciDeviceProps<crate::devices::virtio::serial::VirtioSerialProps, 0>,
        crate::devices::virtio::pci::PciDeviceProps<crate::devices::virtio::serial::VirtioSerialProps, 2>,
        crate::devices::virtio::pci::PciDeviceProps<crate::devices::virtio::serial::VirtioSerialProps, 1>,
        crate::devices::virtio::serial::port::VirtSerialPortProps,
        crate::devices::misc::vmcoreinfo::VmcoreinfoProps,
        crate::devices::misc::vmgenid::VmgenidProps,
        crate::devices::misc::vmport::VmMouseProps,
        crate::devices::misc::vmport::VmportProps,
    }
    abstracts {
        "acpi-ged": Some("sys-bus-device"),
        "apic-common": Some("device"),
        "base-pci-bridge": Some("pci-device"),
        "cpu": Some("device"),
        "device": Some("object"),
        "e1000-base": Some("pci-device"),
        "fw_cfg": Some("sys-bus-device"),
        "i2c-slave": Some("device"),
        "ide-device": Some("device"),
        "ioapic-common": Some("sys-bus-device"),
        "isa-device": Some("device"),
        "object": None,
        "pci-device": Some("device"),
        "pci-host-bridge": Some("sys-bus-device"),
        "pci-ide": Some("pci-device"),
        "pci-piix3": Some("pci-device"),
        "pci-vga": Some("pci-device"),
        "pic-common": Some("isa-device"),
        "pit-common": Some("isa-device"),
        "ps2-device": Some("sys-bus-device"),
        "scsi-device": Some("device"),
        "scsi-disk-base": Some("scsi-device"),
        "smbus-device": Some("i2c-slave"),
        "sys-bus-device": Some("device"),
        "virtio-balloon-pci-base": Some("virtio-pci"),
        "virtio-blk-pci-base": Some("virtio-pci"),
        "virtio-device": Some("device"),
        "virtio-net-pci-base": Some("virtio-pci"),
        "virtio-pci": Some("pci-device"),
        "virtio-rng-pci-base": Some("virtio-pci"),
        "virtio-scsi-common": Some("virtio-device"),
        "virtio-scsi-pci-base": Some("virtio-pci"),
        "virtio-serial-pci-base": Some("virtio-pci"),
        "virtio-serial-port": Some("device"),
        "x86_64-cpu": Some("cpu"),
    }
}

/// Concrete classes, sorted by name, without the CPU models.
pub static ALL_CLASSES: &[&ClassInfo] = CONCRETE;

/// All classes, concrete and abstract.
pub fn classes() -> impl Iterator<Item = &'static ClassInfo> {
    CONCRETE.iter().copied().chain(crate::cpu::classes()).chain(ABSTRACT.iter())
}

/// Class by exact name.
pub fn class_by_name(name: &str) -> Option<&'static ClassInfo> {
    if let Ok(i) = CONCRETE.binary_search_by(|c| c.name.cmp(name)) {
        return CONCRETE.get(i).copied();
    }
    crate::cpu::class_by_name(name).or_else(|| ABSTRACT.iter().find(|c| c.name == name))
}

/// Class by name or alias, as `-device` takes it.
pub fn resolve_device_class(name: &str) -> Option<&'static ClassInfo> {
    class_by_name(name).or_else(|| CONCRETE.iter().copied().find(|c| c.aliases.contains(&name)))
}

/// Whether `class` is `ancestor` or derives from it.
pub fn is_a(class: &ClassInfo, ancestor: &str) -> bool {
    let mut c = Some(class);
    while let Some(k) = c {
        if k.name == ancestor {
            return true;
        }
        c = k.parent.and_then(class_by_name);
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorted_and_rooted() {
        assert!(CONCRETE.windows(2).all(|w| w[0].name < w[1].name), "class list is not sorted");
        assert!(ABSTRACT.windows(2).all(|w| w[0].name < w[1].name), "abstract list is not sorted");
        for c in classes() {
            assert!(c.name == "object" || is_a(c, "object"), "{} has an unknown ancestor", c.name);
        }
    }
}
