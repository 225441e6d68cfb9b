//! Intel 440FX host bridge (82441FX, datasheet 290549) in the form QEMU's `pc` machine has it: the host side with
//! the configuration ports and bus `pci.0`, and function 00.0 with PAM and SMRAM.
//!
//! Left out, as in QEMU: DRAM row boundaries, error reporting, the SMRAM lock bit.
//! Tested by unit tests and by comparing configuration space with a real QEMU (`chipset::tests`).

mod func;

pub use func::{I440fx, I440fxProps};

use rqemu_derive::Device;

use super::confmech::ConfigMech;
use super::piix3;
use crate::device::{BusId, BusKind, Cx, DevId, Device, DeviceTree, IoHandler, Place, RealizeCx};
use crate::irq::{IrqLine, IrqSink};
use crate::machine::Machine;
use crate::memory::{IoSpec, RegionId};
use crate::qom::{DeviceClass, PropInput, Size};
use crate::{qerr, QResult};

/// Properties of every PCI host bridge.
#[derive(Device, Debug)]
pub struct PciHostProps {
    /// Devices on the root bus bypass the IOMMU
    #[prop(name = "bypass-iommu")]
    pub bypass_iommu: bool,
}

/// Host side of the 440FX.
#[derive(Device)]
#[class(name = "i440FX-pcihost", parent = "pci-host-bridge", bus = System, category = Bridge, internal)]
pub struct I440fxHostProps {
    /// Size of the window for 64-bit BARs above RAM
    #[prop(default = 1u64 << 31)]
    pub pci_hole64_size: Size,
    /// Short name of the root bus
    #[prop(name = "short_root_bus")]
    pub short_root_bus: u32,
    /// Round the 64-bit window up to its size
    #[prop(name = "x-pci-hole64-fix", default = true)]
    pub x_pci_hole64_fix: bool,
    /// Save the address register of the configuration ports
    #[prop(name = "x-config-reg-migration-enabled", default = true)]
    pub x_config_reg_migration_enabled: bool,
    /// Base properties
    #[base]
    pub host: PciHostProps,
}

impl DeviceClass for I440fxHostProps {
    fn realize(&mut self, cx: &mut RealizeCx<'_>) -> QResult<Box<dyn Device>> {
        cx.map_ports("pci-conf-idx", 0xcf8, 4, TAG_ADDR, IoSpec::ANY);
        cx.map_ports("pci-conf-data", 0xcfc, 4, TAG_DATA, IoSpec::ANY);
        let bus = cx.add_bus("pci.0".into(), BusKind::Pci);
        Ok(Box::new(I440fxHost { mech: ConfigMech::default(), bus }))
    }
}

const TAG_ADDR: u32 = 0;
const TAG_DATA: u32 = 1;

/// Host side at run time.
pub struct I440fxHost {
    mech: ConfigMech,
    bus: BusId,
}

impl I440fxHost {
    /// The root bus.
    pub fn bus(&self) -> BusId {
        self.bus
    }
}

impl Device for I440fxHost {
    fn reset(&mut self, _cx: &mut Cx<'_>) {
        // The address register has no reset value; firmware writes it before use.
    }
    fn io(&mut self) -> Option<&mut dyn IoHandler> {
        Some(self)
    }
    fn as_any(&mut self) -> &mut dyn std::any::Any {
        self
    }
}

impl IoHandler for I440fxHost {
    fn read(&mut self, cx: &mut Cx<'_>, region: u32, offset: u64, size: u8) -> u64 {
        match region {
            TAG_ADDR => self.mech.read_addr(size),
            _ => self.mech.read_data(cx.m, self.bus, offset, size),
        }
    }
    fn write(&mut self, cx: &mut Cx<'_>, region: u32, offset: u64, size: u8, value: u64) {
        match region {
            TAG_ADDR => self.mech.write_addr(offset, size, value),
            _ => self.mech.write_data(cx.m, self.bus, offset, size, value),
        }
    }
}

/// What the board gives the host bridge.
#[derive(Clone, Copy, Debug)]
pub struct PcMemory {
    /// System RAM, a RAM region or a container whose offset 0 is guest address 0.
    pub ram: RegionId,
    /// The PCI address space (container `pci`, mapped by the board at priority -1).
    pub pci: RegionId,
    /// All of the guest's RAM in bytes.
    pub ram_size: u64,
    /// `pci-hole64-size` in bytes, if not the default.
    pub pci_hole64_size: Option<u64>,
}

/// What came into being.
#[derive(Clone, Copy, Debug)]
pub struct I440fxParts {
    /// The host side (`/machine/i440fx`).
    pub host: DevId,
    /// `pci.0`.
    pub bus: BusId,
    /// Function 00.0.
    pub func: DevId,
    /// Interrupt lines PIRQA-PIRQD of the root bus, not connected yet.
    pub pirqs: [IrqLine; 4],
    /// Container `smram`: what a processor in system management mode sees on top of memory.
    pub smram: RegionId,
}

/// Makes the host bridge, its bus and function 00.0.
///
/// # Errors
/// Only those of device creation.
pub fn create(m: &mut Machine, mem: &PcMemory) -> QResult<I440fxParts> {
    let hole = mem.pci_hole64_size.map(|v| v.to_string());
    let props: Vec<_> = hole.iter().map(|v| ("pci-hole64-size", PropInput::Str(v))).collect();
    let host =
        m.add_board_device_at("i440FX-pcihost", Some(DeviceTree::SYSTEM), Place::Machine("i440fx"), &props)?;
    let bus = m.with::<I440fxHost, _>(host, |h, _| h.bus).ok_or_else(|| qerr!("no PCI host"))?;
    let pirqs: [IrqLine; 4] = std::array::from_fn(|_| m.irqs.add(IrqSink::None));
    let io = m.mem.io;
    m.pci.add(bus, mem.pci, io, pirqs.to_vec(), piix3::route);
    let func = m.add_board_device("i440FX", Some(bus), &[("addr", PropInput::Str("0"))])?;
    let smram = m
        .with::<I440fx, _>(func, |f, cx| f.connect(cx, host, mem))
        .ok_or_else(|| qerr!("no host bridge function"))?;
    Ok(I440fxParts { host, bus, func, pirqs, smram })
}
