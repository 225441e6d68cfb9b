//! `isa-fdc` and `floppy`.

use super::super::blk::{self, BootIndex, Disk, ErrorPolicy};
use super::media::{DriveType, FloppyDrive, Format};
use super::{Fdc, NewFloppy};
use crate::device::{BlockFrontend, BusKind, Cx, DevId, Device, RealizeCx};
use crate::devices::chipset::dma;
use crate::memory::IoSpec;
use crate::qom::DeviceClass;
use crate::{qerr, QResult};
use rqemu_block::BlockBackend;
use rqemu_derive::Device as DeviceProps;

/// Floppy controller
#[derive(DeviceProps)]
#[class(name = "isa-fdc", parent = "isa-device", bus = Isa, category = Storage, desc = "virtual floppy controller")]
pub struct IsaFdcProps {
    /// First I/O port
    #[prop(default = 0x3f0u32)]
    pub iobase: u32,
    /// Interrupt
    #[prop(default = 6u32)]
    pub irq: u32,
    /// DMA channel
    #[prop(default = 2u32)]
    pub dma: u32,
    /// FDC drive type, 144/288/120/none/auto
    #[prop(name = "fdtypeA")]
    pub fdtype_a: DriveType,
    /// FDC drive type, 144/288/120/none/auto
    #[prop(name = "fdtypeB")]
    pub fdtype_b: DriveType,
    /// FDC drive type, 144/288/120/none/auto
    #[prop(default = DriveType::D288)]
    pub fallback: DriveType,
    /// Boot order of the first drive
    #[prop(object, name = "bootindexA")]
    pub bootindex_a: BootIndex,
    /// Boot order of the second drive
    #[prop(object, name = "bootindexB")]
    pub bootindex_b: BootIndex,
}

impl DeviceClass for IsaFdcProps {
    fn realize(&mut self, cx: &mut RealizeCx<'_>) -> QResult<Box<dyn Device>> {
        if self.fallback == DriveType::Auto {
            return Err(qerr!("Cannot choose a fallback FDrive type of 'auto'"));
        }
        if self.dma > 7 {
            return Err(qerr!("isa-fdc: DMA channel {} does not exist", self.dma));
        }
        let base = self.iobase as u16;
        cx.map_ports("fdc", base.wrapping_add(1), 5, 1, IoSpec::BYTES);
        cx.map_ports("fdc", base.wrapping_add(7), 1, 7, IoSpec::BYTES);
        let irq = cx.isa_irq(self.irq);
        let dev = cx.id();
        let bus = cx.add_bus("floppy-bus.0".into(), BusKind::Floppy);
        if let Some(b) = cx.m().tree.bus_mut(bus) {
            b.max_devices = Some(2);
        }
        dma::register(cx.m(), self.dma as u8, dev);
        Ok(Box::new(Fdc::new(irq, self.dma as u8, bus)))
    }
}

/// Position on the bus: first of its own properties.
type Unit = u32;

crate::block_device_props! {
    /// Floppy drive
    #[derive(DeviceProps)]
    #[class(name = "floppy", parent = "device", bus = Floppy, category = Storage, desc = "virtual floppy drive")]
    pub struct FloppyProps {
        before {
            /// Position on the bus
            #[prop(default = u32::MAX)]
            pub unit: Unit,
        }
        after {
            /// FDC drive type, 144/288/120/none/auto
            #[prop]
            pub drive_type: DriveType,
        }
    }
}

impl FloppyProps {
    /// Type of the drive: its own, else the controller's for its position, else by the medium.
    fn choose_type(&mut self, cx: &mut RealizeCx<'_>, unit: u32, backend: &BlockBackend) -> DriveType {
        let parent = cx.parent_dev();
        let get = |cx: &mut RealizeCx<'_>, name: &str| -> Option<DriveType> {
            let v = cx.m().tree.get(parent?)?.props.get_prop(name)?;
            let text = v.value.as_str()?.to_string();
            crate::qom::PropValue::from_input("isa-fdc", name, &crate::qom::PropInput::Str(&text)).ok()
        };
        let mut kind = self.drive_type;
        if kind == DriveType::Auto {
            kind = get(cx, if unit == 0 { "fdtypeA" } else { "fdtypeB" }).unwrap_or_default();
        }
        if kind != DriveType::Auto {
            return kind;
        }
        let fallback = get(cx, "fallback").unwrap_or(DriveType::D288);
        Format::drive_for(backend.has_medium().then(|| backend.len() / 512), fallback)
    }
}

impl DeviceClass for FloppyProps {
    fn realize(&mut self, cx: &mut RealizeCx<'_>) -> QResult<Box<dyn Device>> {
        let parent = cx.parent_dev().ok_or_else(|| qerr!("No 'floppy-bus' bus found for device 'floppy'"))?;
        let wish = (self.unit != u32::MAX).then_some(self.unit);
        let unit = wish.unwrap_or_else(|| {
            let taken = cx.cx.call(parent, |d, _| {
                d.as_any().downcast_mut::<Fdc>().map(|f| f.devices.map(|d| d.is_some()))
            });
            taken.flatten().and_then(|t| t.iter().position(|t| !t)).unwrap_or(2) as u32
        });
        let backend = match blk::resolve(cx, &self.drive)? {
            Some(b) => b,
            None => cx.m().block.anonymous_backend(),
        };
        blk::default_block_sizes(&mut self.logical_block_size, &mut self.physical_block_size)?;
        if self.logical_block_size.0 != 512 || self.physical_block_size.0 != 512 {
            return Err(qerr!("Physical and logical block size must be 512 for floppy"));
        }
        let who = blk::device_name(cx);
        let how =
            rqemu_block::Attach { read_only: backend.read_only(), share_rw: self.share_rw, resizable: false };
        blk::attach(&backend, &who, how)?;
        blk::write_cache(&backend, self.write_cache);
        self.drive_type = self.choose_type(cx, unit, &backend);
        let policy = ErrorPolicy::Auto;
        let disk = Disk { backend: backend.clone(), rerror: policy, werror: policy, who };
        let drive = FloppyDrive { disk: Some(disk), kind: self.drive_type, ..FloppyDrive::default() };
        let new = NewFloppy { unit: Some(unit), drive };
        cx.attach_to_parent(Box::new(new)).inspect_err(|_| backend.detach())?;
        self.unit = unit;
        Ok(Box::new(Floppy { parent, backend }))
    }
}

/// A floppy drive as the machine sees it.
pub struct Floppy {
    parent: DevId,
    backend: BlockBackend,
}

impl Device for Floppy {
    // The controller resets its drives.
    fn reset(&mut self, _cx: &mut Cx<'_>) {}
    fn block(&mut self) -> Option<&mut dyn BlockFrontend> {
        Some(self)
    }
    fn unrealize(&mut self, cx: &mut Cx<'_>) {
        let dev = cx.dev;
        cx.call(self.parent, |d, cx| {
            if let Some(f) = d.as_any().downcast_mut::<Fdc>() {
                let bus = f.bus;
                crate::device::BusHost::detach(f, cx, bus, dev);
            }
        });
        self.backend.detach();
    }
    fn as_any(&mut self) -> &mut dyn std::any::Any {
        self
    }
}

impl BlockFrontend for Floppy {
    fn media_changed(&mut self, cx: &mut Cx<'_>, _loaded: bool) {
        let dev = cx.dev;
        cx.call(self.parent, |d, _| {
            let Some(f) = d.as_any().downcast_mut::<Fdc>() else { return };
            if let Some(u) = f.devices.iter().position(|d| *d == Some(dev)) {
                f.drives[u].changed = true;
                f.drives[u].revalidate();
            }
        });
    }
    fn removable(&self) -> bool {
        true
    }
    fn io_status(&self) -> bool {
        false
    }
    fn backend(&self) -> Option<BlockBackend> {
        Some(self.backend.clone())
    }
}
