//! `scsi-hd` and `scsi-cd`: properties, checks, and the side of a unit that the machine sees.

use std::sync::atomic::Ordering;
use std::sync::Arc;

use rqemu_block::BlockBackend;
use rqemu_derive::Device as DeviceProps;

use super::super::ata::atapi::Tray;
use super::super::blk::{self, BootIndex, Disk, ErrorPolicy};
use super::super::geometry::{self, Chs};
use super::{Identity, NewUnit, ScsiAdapter, Sense, Unit, UnitKind};
use crate::device::{BlockFrontend, Cx, DevId, Device, RealizeCx};
use crate::devices::virtio;
use crate::qom::DeviceClass;
use crate::{qerr, QResult};

/// Place on a SCSI bus.
#[derive(DeviceProps, Debug)]
pub struct ScsiPlace {
    #[prop]
    pub channel: u32,
    #[prop(name = "scsi-id", default = u32::MAX)]
    pub scsi_id: u32,
    #[prop(default = u32::MAX)]
    pub lun: u32,
}

crate::block_device_props! {
    /// virtual SCSI disk
    #[derive(DeviceProps)]
    #[class(name = "scsi-hd", parent = "scsi-disk-base", bus = Scsi, category = Storage, desc = "virtual SCSI disk", hotplug)]
    pub struct ScsiHdProps {
        before {}
        after {
            /// Error handling policy, report/ignore/enospc/stop/auto
            #[prop]
            pub rerror: ErrorPolicy,
            /// Error handling policy, report/ignore/enospc/stop/auto
            #[prop]
            pub werror: ErrorPolicy,
            #[prop]
            pub ver: Option<String>,
            #[prop]
            pub serial: Option<String>,
            #[prop]
            pub vendor: Option<String>,
            #[prop]
            pub product: Option<String>,
            #[prop(name = "device_id")]
            pub device_id: Option<String>,
            /// on/off
            #[prop]
            pub removable: bool,
            /// on/off
            #[prop]
            pub dpofua: bool,
            #[prop]
            pub wwn: u64,
            #[prop(name = "port_wwn")]
            pub port_wwn: u64,
            #[prop(name = "port_index")]
            pub port_index: u16,
            #[prop(name = "max_unmap_size", default = 1u64 << 30)]
            pub max_unmap_size: u64,
            #[prop(name = "max_io_size", default = 0x7fff_ffffu64)]
            pub max_io_size: u64,
            #[prop(name = "rotation_rate")]
            pub rotation_rate: u16,
            #[prop(name = "scsi_version", default = 5i32)]
            pub scsi_version: i32,
            /// on/off
            #[prop(name = "quirk_mode_page_vendor_specific_apple")]
            pub quirk_vendor_specific_apple: bool,
            #[prop]
            pub cyls: u32,
            #[prop]
            pub heads: u32,
            #[prop]
            pub secs: u32,
            #[prop]
            pub lcyls: u32,
            #[prop]
            pub lheads: u32,
            #[prop]
            pub lsecs: u32,
            #[prop(object)]
            pub bootindex: BootIndex,
            /// Place.
            #[base]
            pub place: ScsiPlace,
        }
    }
}

crate::block_device_props! {
    /// virtual SCSI CD-ROM
    #[derive(DeviceProps)]
    #[class(name = "scsi-cd", parent = "scsi-disk-base", bus = Scsi, category = Storage, desc = "virtual SCSI CD-ROM", hotplug)]
    pub struct ScsiCdProps {
        before {}
        after {
            /// Error handling policy, report/ignore/enospc/stop/auto
            #[prop]
            pub rerror: ErrorPolicy,
            /// Error handling policy, report/ignore/enospc/stop/auto
            #[prop]
            pub werror: ErrorPolicy,
            #[prop]
            pub ver: Option<String>,
            #[prop]
            pub serial: Option<String>,
            #[prop]
            pub vendor: Option<String>,
            #[prop]
            pub product: Option<String>,
            #[prop(name = "device_id")]
            pub device_id: Option<String>,
            #[prop]
            pub wwn: u64,
            #[prop(name = "port_wwn")]
            pub port_wwn: u64,
            #[prop(name = "port_index")]
            pub port_index: u16,
            #[prop(name = "max_io_size", default = 0x7fff_ffffu64)]
            pub max_io_size: u64,
            #[prop(name = "scsi_version", default = 5i32)]
            pub scsi_version: i32,
            /// on/off
            #[prop(name = "quirk_mode_page_apple_vendor")]
            pub quirk_apple_vendor: bool,
            /// on/off
            #[prop(name = "quirk_mode_sense_rom_use_dbd")]
            pub quirk_rom_use_dbd: bool,
            /// on/off
            #[prop(name = "quirk_mode_page_vendor_specific_apple")]
            pub quirk_vendor_specific_apple: bool,
            /// on/off
            #[prop(name = "quirk_mode_page_truncated")]
            pub quirk_truncated: bool,
            #[prop(object)]
            pub bootindex: BootIndex,
            /// Place.
            #[base]
            pub place: ScsiPlace,
        }
    }
}

/// Properties that both classes fill in from the backend.
struct Names<'a> {
    ver: &'a mut Option<String>,
    vendor: &'a mut Option<String>,
    product: &'a mut Option<String>,
    serial: &'a Option<String>,
    device_id: &'a mut Option<String>,
}

impl Names<'_> {
    fn fill(self, product: &str, backend: &BlockBackend, id: &mut Identity) -> QResult<()> {
        let or = |o: &mut Option<String>, v: &str| o.get_or_insert_with(|| v.to_string()).clone();
        id.version = or(self.ver, "2.5+");
        id.vendor = or(self.vendor, "QEMU");
        id.product = or(self.product, product);
        id.serial = self.serial.clone().unwrap_or_default();
        // The serial number identifies the device; without one the backend's name does.
        let own = if id.serial.is_empty() { backend.name() } else { &id.serial };
        if self.device_id.is_none() && !own.is_empty() {
            *self.device_id = Some(own.to_string());
        }
        id.device_id = self.device_id.clone().unwrap_or_default();
        const LONGEST: usize = 255 - 8;
        if id.device_id.len() > LONGEST {
            return Err(qerr!("device_id can't be longer than {LONGEST} characters"));
        }
        Ok(())
    }
}

fn version(v: i32) -> QResult<u8> {
    u8::try_from(v).map_err(|_| qerr!("scsi_version {v} is not supported"))
}

/// Granularity of discards when the user does not say: a page, or a block if that is larger.
fn granularity(wanted: &mut crate::qom::Size32, block: u32) -> u32 {
    const PAGE: u32 = 4096;
    if wanted.0 == u32::MAX {
        *wanted = PAGE.max(block).into();
    }
    wanted.0
}

impl DeviceClass for ScsiHdProps {
    fn realize(&mut self, cx: &mut RealizeCx<'_>) -> QResult<Box<dyn Device>> {
        let Some(backend) = blk::resolve(cx, &self.drive)? else {
            return Err(qerr!("drive property not set"));
        };
        if !self.removable && !backend.has_medium() {
            return Err(qerr!("Device needs media, but drive is empty"));
        }
        if self.quirk_vendor_specific_apple {
            return Err(qerr!("quirk_mode_page_vendor_specific_apple is not supported"));
        }
        blk::default_block_sizes(&mut self.logical_block_size, &mut self.physical_block_size)?;
        let mut chs = Chs { cyls: self.cyls, heads: self.heads, secs: self.secs };
        if backend.has_medium() {
            if chs == Chs::default() {
                chs = geometry::guess(&backend).0;
                (self.cyls, self.heads, self.secs) = (chs.cyls, chs.heads, chs.secs);
            }
            blk::check_geometry(chs)?;
        }
        let mut id = Identity {
            wwn: self.wwn,
            port_wwn: self.port_wwn,
            port_index: self.port_index,
            scsi_version: version(self.scsi_version)?,
            removable: self.removable,
            dpofua: self.dpofua,
            rotation: self.rotation_rate,
            chs,
            block: self.logical_block_size.0,
            physical: self.physical_block_size.0,
            min_io: self.min_io_size.0,
            opt_io: self.opt_io_size.0,
            discard_granularity: granularity(&mut self.discard_granularity, self.logical_block_size.0),
            max_unmap: self.max_unmap_size,
            max_io: self.max_io_size,
            ..Identity::default()
        };
        let names = Names {
            ver: &mut self.ver,
            vendor: &mut self.vendor,
            product: &mut self.product,
            serial: &self.serial,
            device_id: &mut self.device_id,
        };
        names.fill("QEMU HARDDISK", &backend, &mut id)?;
        let read_only = backend.read_only();
        let how = rqemu_block::Attach { read_only, share_rw: self.share_rw, resizable: true };
        let who = blk::device_name(cx);
        blk::attach(&backend, &who, how)?;
        blk::write_cache(&backend, self.write_cache);
        let disk = Disk { backend: backend.clone(), rerror: self.rerror, werror: self.werror, who };
        plug(cx, &mut self.place, Unit::new(UnitKind::Disk, disk, id), backend)
    }
}

impl DeviceClass for ScsiCdProps {
    fn realize(&mut self, cx: &mut RealizeCx<'_>) -> QResult<Box<dyn Device>> {
        let backend = match blk::resolve(cx, &self.drive)? {
            Some(b) => b,
            None => cx.m().block.anonymous_backend(),
        };
        let quirks = [
            self.quirk_apple_vendor,
            self.quirk_rom_use_dbd,
            self.quirk_vendor_specific_apple,
            self.quirk_truncated,
        ];
        if quirks.contains(&true) {
            return Err(qerr!("quirks of scsi-cd are not supported"));
        }
        blk::default_block_sizes(&mut self.logical_block_size, &mut self.physical_block_size)?;
        const SECTOR: u32 = 2048;
        let mut id = Identity {
            wwn: self.wwn,
            port_wwn: self.port_wwn,
            port_index: self.port_index,
            scsi_version: version(self.scsi_version)?,
            removable: true,
            block: SECTOR,
            physical: SECTOR,
            min_io: self.min_io_size.0,
            opt_io: self.opt_io_size.0,
            discard_granularity: granularity(&mut self.discard_granularity, self.logical_block_size.0),
            max_io: self.max_io_size,
            ..Identity::default()
        };
        let names = Names {
            ver: &mut self.ver,
            vendor: &mut self.vendor,
            product: &mut self.product,
            serial: &self.serial,
            device_id: &mut self.device_id,
        };
        names.fill("QEMU CD-ROM", &backend, &mut id)?;
        let how = rqemu_block::Attach { read_only: true, share_rw: self.share_rw, resizable: false };
        let who = blk::device_name(cx);
        blk::attach(&backend, &who, how)?;
        let disk = Disk { backend: backend.clone(), rerror: self.rerror, werror: self.werror, who };
        plug(cx, &mut self.place, Unit::new(UnitKind::Cd, disk, id), backend)
    }
}

/// Hands the unit to the host adapter; gives the backend back if that fails.
fn plug(
    cx: &mut RealizeCx<'_>,
    place: &mut ScsiPlace,
    unit: Unit,
    backend: BlockBackend,
) -> QResult<Box<dyn Device>> {
    let give_back = |e| {
        backend.detach();
        e
    };
    if place.channel != 0 {
        return Err(give_back(qerr!("bad scsi channel id: {}", place.channel)));
    }
    let removable = unit.id.removable;
    let tray = unit.tray.clone();
    let is_cd = unit.kind == UnitKind::Cd;
    let wanted = |v: u32| (v != u32::MAX).then_some(v);
    let new = NewUnit { id: wanted(place.scsi_id), lun: wanted(place.lun), unit: Box::new(unit) };
    let (dev, parent) = (cx.id(), cx.parent_dev());
    let parent = parent.ok_or_else(|| give_back(qerr!("device has no parent bus")))?;
    let placed = with_adapter(&mut cx.cx, parent, |a, cx| a.attach(cx, dev, new));
    let placed = placed.unwrap_or_else(|| Err(qerr!("bus controller is busy")));
    (place.scsi_id, place.lun) = placed.map_err(give_back)?;
    Ok(Box::new(ScsiDevice { parent, backend, tray, removable, has_tray: is_cd }))
}

/// Calls the host adapter of the bus that `parent` provides.
fn with_adapter<R>(
    cx: &mut Cx<'_>,
    parent: DevId,
    f: impl FnOnce(&mut dyn ScsiAdapter, &mut Cx<'_>) -> R,
) -> Option<R> {
    virtio::scsi::with_adapter(cx, parent, f)
}

/// A unit as the machine sees it.
struct ScsiDevice {
    parent: DevId,
    backend: BlockBackend,
    tray: Arc<Tray>,
    removable: bool,
    has_tray: bool,
}

impl ScsiDevice {
    fn with_unit(&self, cx: &mut Cx<'_>, f: impl FnOnce(&mut Unit)) {
        let dev = cx.dev;
        with_adapter(cx, self.parent, |a, _| a.unit(dev).map(f));
    }
}

impl Device for ScsiDevice {
    fn reset(&mut self, cx: &mut Cx<'_>) {
        self.with_unit(cx, Unit::reset);
    }
    fn block(&mut self) -> Option<&mut dyn BlockFrontend> {
        Some(self)
    }
    fn unrealize(&mut self, cx: &mut Cx<'_>) {
        let dev = cx.dev;
        with_adapter(cx, self.parent, |a, cx| a.detach(cx, dev));
        self.backend.detach();
    }
    fn as_any(&mut self) -> &mut dyn std::any::Any {
        self
    }
}

impl BlockFrontend for ScsiDevice {
    fn media_changed(&mut self, cx: &mut Cx<'_>, loaded: bool) {
        if self.removable {
            let dev = cx.dev;
            with_adapter(cx, self.parent, |a, cx| {
                if let Some(u) = a.unit(dev) {
                    u.media_changed(loaded);
                }
                a.changed(cx, dev, Sense::MEDIUM_CHANGED);
            });
        }
    }
    fn removable(&self) -> bool {
        self.removable
    }
    fn tray_open(&self) -> Option<bool> {
        self.has_tray.then(|| self.tray.open.load(Ordering::Relaxed))
    }
    fn locked(&self) -> bool {
        self.removable && self.tray.locked.load(Ordering::Relaxed)
    }
    fn backend(&self) -> Option<BlockBackend> {
        Some(self.backend.clone())
    }
    fn eject_request(&mut self, cx: &mut Cx<'_>, force: bool) {
        if self.removable {
            self.with_unit(cx, |u| u.eject_requested(force));
        }
    }
    fn resized(&mut self, cx: &mut Cx<'_>) {
        let dev = cx.dev;
        with_adapter(cx, self.parent, |a, cx| a.changed(cx, dev, Sense::CAPACITY_CHANGED));
    }
}
