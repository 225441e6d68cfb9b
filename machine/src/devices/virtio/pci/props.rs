//! Properties of the PCI transport, and the classes `virtio-X-pci`, `virtio-X-pci-transitional` and
//! `virtio-X-pci-non-transitional` made from a device's own properties.

use rqemu_derive::Device as DeriveDevice;

use crate::pci::PciProps;
use crate::qom::{OnOffAuto, PropAccess, PropGet, PropInfo, PropInput};
use crate::QResult;

use super::super::VirtioClass;

/// Which interfaces a class offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// As `disable-legacy` and `disable-modern` say.
    Generic,
    /// Both.
    Transitional,
    /// Modern only.
    NonTransitional,
}

/// Interface switches of generic classes.
#[derive(DeriveDevice, Clone, Debug)]
pub struct GenericProps {
    #[prop]
    pub disable_legacy: OnOffAuto,
    #[prop]
    pub disable_modern: bool,
}

/// Properties of every virtio PCI device.
#[derive(DeriveDevice, Debug)]
pub struct VirtioPciProps {
    /// on/off
    #[prop]
    pub virtio_pci_bus_master_bug_migration: bool,
    /// on/off
    #[prop(default = true)]
    pub migrate_extra: bool,
    /// on/off
    #[prop]
    pub modern_pio_notify: bool,
    /// on/off
    #[prop]
    pub x_disable_pcie: bool,
    /// on/off
    #[prop]
    pub page_per_vq: bool,
    #[prop]
    pub x_ignore_backend_features: bool,
    /// on/off
    #[prop]
    pub ats: bool,
    /// on/off
    #[prop(default = true)]
    pub x_ats_page_aligned: bool,
    /// on/off
    #[prop(default = true)]
    pub x_pcie_deverr_init: bool,
    /// on/off
    #[prop(default = true)]
    pub x_pcie_lnkctl_init: bool,
    /// on/off
    #[prop(default = true)]
    pub x_pcie_pm_init: bool,
    /// on/off
    #[prop(default = true)]
    pub x_pcie_flr_init: bool,
    /// on/off
    #[prop]
    pub aer: bool,
    /// Properties of every PCI device.
    #[base]
    pub pci: PciProps,
}

/// The transport properties that only some devices have.
pub trait OwnProps: PropAccess + Default + Send + 'static {
    /// PCI class that the user wants; 0 for the device's own.
    fn class(&self) -> u32 {
        0
    }
    /// Keeps the class that was chosen, where it is shown.
    fn resolve_class(&mut self, _class: u16) {}
    /// Kicks through eventfds.
    fn ioeventfd(&self) -> bool {
        true
    }
    /// MSI-X vectors; `u32::MAX` for the device's choice.
    fn vectors(&mut self) -> Option<&mut u32> {
        None
    }
}

/// What a device class says about its PCI form.
pub trait PciClass: VirtioClass {
    /// Own properties of the transport.
    type Own: OwnProps;
    /// Transitional PCI device id (0x1000..).
    const LEGACY_ID: u16;
    /// PCI class code.
    const PCI_CLASS: u16;
    /// File of its option ROM; empty: none.
    const ROM: &'static str = "";
    /// Name of the ROM's memory.
    const ROM_MEMORY: &'static str = "virtio-pci";
    /// Number of vectors when the user does not say, for `queues` queues.
    fn default_vectors(queues: usize) -> u32 {
        queues as u32 + 1
    }
    /// Its class record.
    fn class_info() -> &'static crate::qom::ClassInfo;
}

/// Properties of one PCI class: `MODE` is a [`Mode`] as a number (0 generic, 1 transitional, 2 non-transitional).
pub struct PciDeviceProps<D: PciClass, const MODE: u8> {
    /// Interface switches.
    pub generic: GenericProps,
    /// Those of the transport that only some devices have.
    pub own: D::Own,
    /// Those of every virtio PCI device.
    pub base: VirtioPciProps,
    /// Those of the device behind the transport.
    pub device: D,
    /// Names of device properties that were set.
    pub(super) set: Vec<String>,
}

impl<D: PciClass, const MODE: u8> Default for PciDeviceProps<D, MODE> {
    fn default() -> Self {
        Self {
            generic: Default::default(),
            own: Default::default(),
            base: Default::default(),
            device: Default::default(),
            set: Vec::new(),
        }
    }
}

impl<D: PciClass, const MODE: u8> PciDeviceProps<D, MODE> {
    /// Which interfaces the class offers.
    pub fn mode(&self) -> Mode {
        match MODE {
            0 => Mode::Generic,
            1 => Mode::Transitional,
            _ => Mode::NonTransitional,
        }
    }
}

impl<D: PciClass, const MODE: u8> PropAccess for PciDeviceProps<D, MODE> {
    fn set_prop(&mut self, owner: &str, name: &str, input: &PropInput<'_>) -> QResult<bool> {
        if (MODE == 0 && self.generic.set_prop(owner, name, input)?)
            || self.own.set_prop(owner, name, input)?
            || self.base.set_prop(owner, name, input)?
        {
            return Ok(true);
        }
        let known = self.device.set_prop(D::class_info().name, name, input)?;
        if known {
            self.set.push(name.to_string());
        }
        Ok(known)
    }

    fn get_prop(&self, name: &str) -> Option<PropGet> {
        let generic = if MODE == 0 { self.generic.get_prop(name) } else { None };
        generic
            .or_else(|| self.own.get_prop(name))
            .or_else(|| self.base.get_prop(name))
            .or_else(|| self.device.get_prop(name))
    }
}

/// Copies properties for a class that forwards them: `info qtree` shows them at the child only.
pub const fn forwarded<const N: usize>(src: &'static [PropInfo]) -> [PropInfo; N] {
    const fn nothing() -> Option<serde_json::Value> {
        None
    }
    let mut out = [const { PropInfo { name: "", ty: "", desc: "", qdev: false, default: nothing } }; N];
    let mut i = 0;
    while i < N {
        let p = &src[i];
        out[i] = PropInfo { name: p.name, ty: p.ty, desc: p.desc, qdev: false, default: p.default };
        i += 1;
    }
    out
}

/// Makes the three PCI classes of a device: class records, property tables and construction.
#[macro_export]
macro_rules! virtio_pci_classes {
    (
        device: $dev:ty, own: $own:ty, category: $cat:ident,
        parent: $parent:literal, alias: $alias:literal, backend: $backend:literal,
        generic: $gname:literal, transitional: $tname:literal, non_transitional: $nname:literal $(, extra: ($ename:literal, $ety:literal))* $(,)?
    ) => {
        const _: () = {
            use $crate::devices::virtio::pci::props::{forwarded, GenericProps, VirtioPciProps};
            use $crate::devices::virtio::pci::PciDeviceProps;
            use $crate::devices::virtio::VirtioProps;
            use $crate::pci::PciProps;
            use $crate::qom::{Category, ClassInfo, Classed, PropInfo, PropStruct, PropTable};

            const OWN_N: usize = <$dev as PropStruct>::PROPS.own.len();
            const COMMON_N: usize = <VirtioProps as PropStruct>::PROPS.own.len();
            static DEVICE: [PropInfo; OWN_N] = forwarded(<$dev as PropStruct>::PROPS.own);
            static COMMON: [PropInfo; COMMON_N] = forwarded(<VirtioProps as PropStruct>::PROPS.own);
            static T_COMMON: PropTable = PropTable { own: &COMMON, base: None };
            static T_DEVICE: PropTable = PropTable { own: &DEVICE, base: Some(&T_COMMON) };
            static T_PCI: PropTable =
                PropTable { own: <PciProps as PropStruct>::PROPS.own, base: Some(&T_DEVICE) };
            static T_BASE: PropTable =
                PropTable { own: <VirtioPciProps as PropStruct>::PROPS.own, base: Some(&T_PCI) };
            static T_OWN: PropTable = PropTable { own: <$own as PropStruct>::PROPS.own, base: Some(&T_BASE) };
            static T_GENERIC: PropTable =
                PropTable { own: <GenericProps as PropStruct>::PROPS.own, base: Some(&T_OWN) };

            const fn class(
                name: &'static str,
                aliases: &'static [&'static str],
                props: &'static PropTable,
                create: fn() -> Box<dyn $crate::qom::DeviceClass>,
            ) -> ClassInfo {
                ClassInfo {
                    name,
                    parent: Some($parent),
                    is_abstract: false,
                    desc: "",
                    category: Category::$cat,
                    bus: Some($crate::device::BusKind::Pci),
                    aliases,
                    user_creatable: true,
                    hotpluggable: true,
                    props,
                    extra: &[("virtio-backend", concat!("child<", $backend, ">")), $(($ename, $ety)),*],
                    create: Some(create),
                }
            }

            impl Classed for PciDeviceProps<$dev, 0> {
                const CLASS: &'static ClassInfo =
                    &class($gname, &[$alias], &T_GENERIC, || Box::new(PciDeviceProps::<$dev, 0>::default()));
            }
            impl Classed for PciDeviceProps<$dev, 1> {
                const CLASS: &'static ClassInfo =
                    &class($tname, &[], &T_OWN, || Box::new(PciDeviceProps::<$dev, 1>::default()));
            }
            impl Classed for PciDeviceProps<$dev, 2> {
                const CLASS: &'static ClassInfo =
                    &class($nname, &[], &T_OWN, || Box::new(PciDeviceProps::<$dev, 2>::default()));
            }
        };
    };
}
