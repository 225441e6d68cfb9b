//! Properties of virtio disks and the checks at start.

use rqemu_block::BlockBackend;
use rqemu_derive::Device as DeviceProps;

use super::request::Limits;
use super::{Blk, Geometry};
use crate::device::{Device, RealizeCx};
use crate::devices::storage::blk::{self, BootIndex, Disk, ErrorPolicy};
use crate::devices::storage::geometry::{self, Chs};
use crate::devices::virtio::pci::{OwnProps, PciClass};
use crate::devices::virtio::{BuildEnv, VirtioClass, VirtioDevice, VirtioProps};
use crate::qom::{ClassInfo, Classed, DeviceClass, IothreadRef};
use crate::{qerr, QResult};

crate::block_device_props! {
    /// virtio disk
    #[derive(DeviceProps, Clone)]
    #[class(name = "virtio-blk-device", parent = "virtio-device", bus = Virtio, category = Storage)]
    pub struct VirtioBlkProps {
        before {}
        after {
            /// Error handling policy, report/ignore/enospc/stop/auto
            #[prop]
            pub rerror: ErrorPolicy,
            /// Error handling policy, report/ignore/enospc/stop/auto
            #[prop]
            pub werror: ErrorPolicy,
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
            #[prop]
            pub serial: Option<String>,
            /// on/off
            #[prop(default = true)]
            pub config_wce: bool,
            /// on/off
            #[prop]
            pub scsi: bool,
            /// on/off
            #[prop(default = true)]
            pub request_merging: bool,
            #[prop(default = u16::MAX)]
            pub num_queues: u16,
            #[prop(default = 256u16)]
            pub queue_size: u16,
            #[prop(default = true)]
            pub seg_max_adjust: bool,
            /// on/off
            #[prop(default = true)]
            pub discard: bool,
            #[prop(default = true)]
            pub report_discard_granularity: bool,
            /// on/off
            #[prop(default = true)]
            pub write_zeroes: bool,
            #[prop(default = MAX_SECTORS)]
            pub max_discard_sectors: u32,
            #[prop(default = MAX_SECTORS)]
            pub max_write_zeroes_sectors: u32,
            #[prop(default = true)]
            pub x_enable_wce_if_config_wce: bool,
            #[prop(object)]
            pub bootindex: BootIndex,
            #[prop(object)]
            pub iothread: IothreadRef,
            /// Those of every virtio device.
            #[base]
            pub virtio: VirtioProps,
        }
    }
}

/// Largest range of a discard: what fits in a signed 32-bit number of bytes.
const MAX_SECTORS: u32 = 0x3f_ffff;
const MAX_QUEUES: u32 = 1023;

/// Transport properties of virtio disks on PCI.
#[derive(DeviceProps)]
pub struct BlkPciProps {
    #[prop]
    pub class: u32,
    /// on/off
    #[prop(default = true)]
    pub ioeventfd: bool,
    #[prop(default = u32::MAX)]
    pub vectors: u32,
}

impl OwnProps for BlkPciProps {
    fn class(&self) -> u32 {
        self.class
    }
    fn ioeventfd(&self) -> bool {
        self.ioeventfd
    }
    fn vectors(&mut self) -> Option<&mut u32> {
        Some(&mut self.vectors)
    }
}

impl PciClass for VirtioBlkProps {
    type Own = BlkPciProps;
    const LEGACY_ID: u16 = 0x1001;
    const PCI_CLASS: u16 = 0x0100;
    fn class_info() -> &'static ClassInfo {
        Self::CLASS
    }
}

crate::virtio_pci_classes! {
    device: super::VirtioBlkProps, own: super::BlkPciProps, category: Storage,
    parent: "virtio-blk-pci-base", alias: "virtio-blk", backend: "virtio-blk-device",
    generic: "virtio-blk-pci", transitional: "virtio-blk-pci-transitional",
    non_transitional: "virtio-blk-pci-non-transitional",
}

impl DeviceClass for VirtioBlkProps {
    fn realize(&mut self, cx: &mut RealizeCx<'_>) -> QResult<Box<dyn Device>> {
        crate::devices::virtio::part::realize_on_bus(self, cx, true)
    }
}

impl VirtioBlkProps {
    fn check_queues(&mut self, cpus: u32) -> QResult<()> {
        if self.num_queues == u16::MAX {
            self.num_queues = cpus.clamp(1, MAX_QUEUES) as u16;
        }
        if self.num_queues == 0 {
            return Err(qerr!("num-queues property must be larger than 0"));
        }
        if u32::from(self.num_queues) > MAX_QUEUES {
            return Err(qerr!("num-queues property must not be larger than {MAX_QUEUES}"));
        }
        if self.queue_size <= 2 {
            return Err(qerr!("invalid queue-size property ({}), must be > 2", self.queue_size));
        }
        if !self.queue_size.is_power_of_two() || self.queue_size > 1024 {
            return Err(qerr!(
                "invalid queue-size property ({}), must be a power of 2 (max 1024)",
                self.queue_size
            ));
        }
        Ok(())
    }

    fn chs(&mut self, backend: &BlockBackend) -> QResult<Chs> {
        let given = Chs { cyls: self.cyls, heads: self.heads, secs: self.secs };
        if given == Chs::default() {
            let (g, _) = geometry::guess(backend);
            (self.cyls, self.heads, self.secs) = (g.cyls, g.heads, g.secs);
        }
        let g = Chs { cyls: self.cyls, heads: self.heads, secs: self.secs };
        blk::check_geometry(g)?;
        Ok(g)
    }

    fn check_ranges(&self) -> QResult<()> {
        for (on, v, name) in [
            (self.discard, self.max_discard_sectors, "max-discard-sectors"),
            (self.write_zeroes, self.max_write_zeroes_sectors, "max-write-zeroes-sectors"),
        ] {
            if on && !(1..=MAX_SECTORS).contains(&v) {
                return Err(qerr!("invalid {name} property ({v}), must be between 1 and {MAX_SECTORS}"));
            }
        }
        Ok(())
    }
}

impl VirtioClass for VirtioBlkProps {
    fn build(&mut self, cx: &mut RealizeCx<'_>, env: &BuildEnv) -> QResult<Box<dyn VirtioDevice>> {
        let Some(backend) = blk::resolve_for(cx, Self::CLASS.name, &self.drive)? else {
            return Err(qerr!("drive property not set"));
        };
        if !backend.has_medium() {
            return Err(qerr!("Device needs media, but drive is empty"));
        }
        self.check_queues(env.cpus)?;
        if self.scsi {
            return Err(qerr!("scsi passthrough is not supported"));
        }
        if let Some(t) = self.iothread.0.as_deref() {
            if cx.m().iothreads.get(t).is_none() {
                return Err(qerr!("Device '{t}' not found"));
            }
        }
        blk::default_block_sizes(&mut self.logical_block_size, &mut self.physical_block_size)?;
        self.check_ranges()?;
        let chs = self.chs(&backend)?;
        let read_only = backend.read_only();
        let how = rqemu_block::Attach { read_only, share_rw: self.share_rw, resizable: true };
        blk::attach(&backend, &env.who, how)?;
        blk::write_cache(&backend, self.write_cache);
        let logical = self.logical_block_size.0;
        let granularity = match self.discard_granularity.0 {
            u32::MAX | 0 => logical,
            _ if !self.report_discard_granularity => logical,
            g => g,
        };
        let geometry = Geometry {
            chs,
            logical,
            physical: self.physical_block_size.0,
            min_io: self.min_io_size.0,
            opt_io: self.opt_io_size.0,
            discard_granularity: granularity,
            seg_max: if self.seg_max_adjust { u32::from(self.queue_size) - 2 } else { 126 },
        };
        let limits = Limits {
            logical,
            discard: self.discard,
            write_zeroes: self.write_zeroes,
            max_discard: self.max_discard_sectors,
            max_write_zeroes: self.max_write_zeroes_sectors,
        };
        let disk = Disk { backend, rerror: self.rerror, werror: self.werror, who: env.who.clone() };
        Ok(Box::new(Blk::new(self, disk, geometry, limits)))
    }

    fn common(&self) -> &VirtioProps {
        &self.virtio
    }
}
