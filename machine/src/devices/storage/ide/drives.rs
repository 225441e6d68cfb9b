//! `ide-hd` and `ide-cd`: properties, checks, and the side of a drive that the machine sees. The drive itself lives in
//! its controller.

use std::sync::atomic::Ordering;
use std::sync::Arc;

use super::super::ahci::Ahci;
use super::super::ata::{atapi::Tray, AtaPort, Drive, Identity, Kind};
use super::super::blk::{self, BlockSize, BootIndex, Disk, ErrorPolicy};
use super::super::geometry::{self, Chs, Translation};
use super::piix::PiixIde;
use super::NewDrive;
use crate::device::{BlockFrontend, Cx, DevId, Device, RealizeCx};
use crate::qom::DeviceClass;
use crate::{qerr, QResult};
use rqemu_block::BlockBackend;
use rqemu_derive::Device as DeviceProps;

/// What all devices on an IDE bus have.
#[derive(DeviceProps, Debug)]
pub struct IdeUnit {
    /// Position on the bus
    #[prop(default = u32::MAX)]
    pub unit: u32,
}

crate::block_device_props! {
    /// IDE disk
    #[derive(DeviceProps)]
    #[class(name = "ide-hd", parent = "ide-device", bus = Ide, category = Storage, desc = "virtual IDE disk")]
    pub struct IdeHdProps {
        before {}
        after {
            /// What to do about read errors
            #[prop]
            pub rerror: ErrorPolicy,
            /// What to do about write errors
            #[prop]
            pub werror: ErrorPolicy,
            /// Firmware revision
            #[prop]
            pub ver: Option<String>,
            /// World-wide name
            #[prop]
            pub wwn: u64,
            /// Serial number
            #[prop]
            pub serial: Option<String>,
            /// Model
            #[prop]
            pub model: Option<String>,
            /// Cylinders
            #[prop]
            pub cyls: u32,
            /// Heads
            #[prop]
            pub heads: u32,
            /// Sectors per track
            #[prop]
            pub secs: u32,
            /// Cylinders of the logical geometry
            #[prop]
            pub lcyls: u32,
            /// Heads of the logical geometry
            #[prop]
            pub lheads: u32,
            /// Sectors of the logical geometry
            #[prop]
            pub lsecs: u32,
            /// Logical CHS translation algorithm, auto/none/lba/large/rechs
            #[prop]
            pub bios_chs_trans: Translation,
            /// Rotation rate in 1/min, 1 for solid state
            #[prop(name = "rotation_rate")]
            pub rotation_rate: u16,
            /// Boot order
            #[prop(object)]
            pub bootindex: BootIndex,
            /// Position on the bus.
            #[base]
            pub ide: IdeUnit,
        }
    }
}

crate::block_device_props! {
    /// IDE CD-ROM drive
    #[derive(DeviceProps)]
    #[class(name = "ide-cd", parent = "ide-device", bus = Ide, category = Storage, desc = "virtual IDE CD-ROM")]
    pub struct IdeCdProps {
        before {}
        after {
            /// What to do about read errors
            #[prop]
            pub rerror: ErrorPolicy,
            /// What to do about write errors
            #[prop]
            pub werror: ErrorPolicy,
            /// Firmware revision
            #[prop]
            pub ver: Option<String>,
            /// World-wide name
            #[prop]
            pub wwn: u64,
            /// Serial number
            #[prop]
            pub serial: Option<String>,
            /// Model
            #[prop]
            pub model: Option<String>,
            /// Boot order
            #[prop(object)]
            pub bootindex: BootIndex,
            /// Position on the bus.
            #[base]
            pub ide: IdeUnit,
        }
    }
}

impl IdeHdProps {
    fn chs(&mut self, backend: &BlockBackend) -> QResult<Chs> {
        let given = Chs { cyls: self.cyls, heads: self.heads, secs: self.secs };
        if given == Chs::default() {
            let (g, t) = geometry::guess(backend);
            (self.cyls, self.heads, self.secs) = (g.cyls, g.heads, g.secs);
            if self.bios_chs_trans == Translation::Auto {
                self.bios_chs_trans = t;
            }
        } else if self.bios_chs_trans == Translation::Auto {
            self.bios_chs_trans = geometry::default_translation(given);
        }
        let g = Chs { cyls: self.cyls, heads: self.heads, secs: self.secs };
        blk::check_geometry(g)?;
        Ok(g)
    }
}

impl DeviceClass for IdeHdProps {
    fn realize(&mut self, cx: &mut RealizeCx<'_>) -> QResult<Box<dyn Device>> {
        let Some(backend) = blk::resolve(cx, &self.drive)? else {
            return Err(qerr!("No drive specified"));
        };
        if !matches!(self.discard_granularity.0, 512 | u32::MAX) {
            return Err(qerr!("discard_granularity must be 512 for ide"));
        }
        self.discard_granularity = 512.into();
        blk::default_block_sizes(&mut self.logical_block_size, &mut self.physical_block_size)?;
        if self.logical_block_size != BlockSize(512) {
            return Err(qerr!("logical_block_size must be 512 for IDE"));
        }
        if !backend.has_medium() {
            return Err(qerr!("Device needs media, but drive is empty"));
        }
        let chs = self.chs(&backend)?;
        let who = blk::device_name(cx);
        let how = rqemu_block::Attach { read_only: false, share_rw: self.share_rw, resizable: true };
        blk::attach(&backend, &who, how)?;
        blk::write_cache(&backend, self.write_cache);
        let id = Identity {
            // An empty one is made from the position on the cable.
            serial: self.serial.clone().unwrap_or_default(),
            model: self.model.clone().unwrap_or_else(|| "QEMU HARDDISK".into()),
            version: self.ver.get_or_insert_with(|| "2.5+".into()).clone(),
            wwn: self.wwn,
            rotation: self.rotation_rate,
            physical: self.physical_block_size.0,
            chs,
        };
        let disk = Disk { backend: backend.clone(), rerror: self.rerror, werror: self.werror, who };
        let drive = Box::new(Drive::new(Kind::Disk, disk, id));
        plug(cx, (&mut self.ide, &mut self.serial), drive, &backend, None)
    }
}

impl DeviceClass for IdeCdProps {
    fn realize(&mut self, cx: &mut RealizeCx<'_>) -> QResult<Box<dyn Device>> {
        let backend = match blk::resolve(cx, &self.drive)? {
            Some(b) => b,
            None => cx.m().block.anonymous_backend(),
        };
        if !matches!(self.discard_granularity.0, 512 | u32::MAX) {
            return Err(qerr!("discard_granularity must be 512 for ide"));
        }
        self.discard_granularity = 512.into();
        blk::default_block_sizes(&mut self.logical_block_size, &mut self.physical_block_size)?;
        let who = blk::device_name(cx);
        let how = rqemu_block::Attach { read_only: true, share_rw: self.share_rw, resizable: false };
        blk::attach(&backend, &who, how)?;
        let id = Identity {
            // An empty one is made from the position on the cable.
            serial: self.serial.clone().unwrap_or_default(),
            model: self.model.clone().unwrap_or_else(|| "QEMU DVD-ROM".into()),
            version: self.ver.get_or_insert_with(|| "2.5+".into()).clone(),
            wwn: self.wwn,
            physical: self.physical_block_size.0,
            ..Identity::default()
        };
        let disk = Disk { backend: backend.clone(), rerror: self.rerror, werror: self.werror, who };
        let drive = Box::new(Drive::new(Kind::Cd, disk, id));
        let tray = drive.cd.tray.clone();
        plug(cx, (&mut self.ide, &mut self.serial), drive, &backend, Some(tray))
    }
}

/// Hands the drive to the controller; gives the backend back if that fails.
fn plug(
    cx: &mut RealizeCx<'_>,
    (ide, serial): (&mut IdeUnit, &mut Option<String>),
    drive: Box<Drive>,
    backend: &BlockBackend,
    tray: Option<Arc<Tray>>,
) -> QResult<Box<dyn Device>> {
    let unit = (ide.unit != u32::MAX).then_some(ide.unit);
    let (dev, parent) = (cx.id(), cx.parent_dev());
    cx.attach_to_parent(Box::new(NewDrive { unit, drive })).inspect_err(|_| backend.detach())?;
    let parent = parent.ok_or_else(|| qerr!("device has no parent bus"))?;
    let placed = cx.cx.call(parent, |d, _| {
        if let Some(a) = d.as_any().downcast_mut::<Ahci>() {
            return a.serial_of(dev).map(|s| (0, s));
        }
        let (c, u) = d.as_any().downcast_mut::<PiixIde>().and_then(|p| p.find(dev))?;
        Some((u, c.drive(u).0.id.serial.clone()))
    });
    if let Some((u, s)) = placed.flatten() {
        ide.unit = u as u32;
        *serial = Some(s);
    }
    Ok(Box::new(IdeDrive { parent, backend: backend.clone(), tray }))
}

/// A drive as the machine sees it.
pub struct IdeDrive {
    parent: DevId,
    backend: BlockBackend,
    tray: Option<Arc<Tray>>,
}

impl IdeDrive {
    fn with_drive(&self, cx: &mut Cx<'_>, f: impl FnOnce(&mut Drive, &mut Cx<'_>, &mut dyn AtaPort)) {
        let dev = cx.dev;
        cx.call(self.parent, |d, cx| {
            if let Some(a) = d.as_any().downcast_mut::<Ahci>() {
                a.with_drive(cx, dev, f);
            } else if let Some((c, u)) = d.as_any().downcast_mut::<PiixIde>().and_then(|p| p.find(dev)) {
                let (drive, port) = c.drive(u);
                f(drive, cx, port);
            }
        });
    }
}

impl Device for IdeDrive {
    // The controller resets its drives.
    fn reset(&mut self, _cx: &mut Cx<'_>) {}
    fn block(&mut self) -> Option<&mut dyn BlockFrontend> {
        Some(self)
    }
    fn unrealize(&mut self, cx: &mut Cx<'_>) {
        let (dev, bus) = (cx.dev, cx.m.tree.get(cx.dev).and_then(|n| n.parent_bus));
        cx.call(self.parent, |d, cx| {
            if let (Some(h), Some(bus)) = (d.bus_host(), bus) {
                h.detach(cx, bus, dev);
            }
        });
        self.backend.detach();
    }
    fn as_any(&mut self) -> &mut dyn std::any::Any {
        self
    }
}

impl BlockFrontend for IdeDrive {
    fn media_changed(&mut self, cx: &mut Cx<'_>, loaded: bool) {
        if self.tray.is_some() {
            self.with_drive(cx, |d, cx, port| d.media_changed(cx, port, loaded));
        }
    }
    fn removable(&self) -> bool {
        self.tray.is_some()
    }
    fn tray_open(&self) -> Option<bool> {
        self.tray.as_ref().map(|t| t.open.load(Ordering::Relaxed))
    }
    fn locked(&self) -> bool {
        self.tray.as_ref().is_some_and(|t| t.locked.load(Ordering::Relaxed))
    }
    fn backend(&self) -> Option<BlockBackend> {
        Some(self.backend.clone())
    }
    fn eject_request(&mut self, cx: &mut Cx<'_>, force: bool) {
        if self.tray.is_some() {
            self.with_drive(cx, |d, cx, port| d.eject_requested(cx, port, force));
        }
    }
    fn resized(&mut self, cx: &mut Cx<'_>) {
        self.with_drive(cx, |d, _, _| d.resized());
    }
}
