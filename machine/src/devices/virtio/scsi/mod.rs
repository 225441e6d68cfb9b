//! virtio-scsi (VIRTIO 1.2, section 5.6): a host adapter for the units on its SCSI bus.
//!
//! Requests are understood under the machine lock; block requests run on the block layer's threads straight into guest
//! memory, and what they finish is given back from the main loop ([`requests`]). The control queue's functions act
//! between requests: a unit has none in flight when one of them is done.
//! Left out: I/O threads, requests with data in both directions, asynchronous notifications.

mod control;
mod hba;
mod requests;

pub use hba::Hba;

use rqemu_derive::Device as DeriveDevice;

use super::pci::{OwnProps, PciClass};
use super::{core, part, BuildEnv, Raise, VirtioClass, VirtioDevice, VirtioProps};
use crate::device::{Cx, DevId, Device, RealizeCx};
use crate::devices::storage::scsi::ScsiAdapter;
use crate::qom::{ClassInfo, Classed, DeviceClass, IothreadRef};
use crate::{qerr, QResult};

/// Queues besides those for requests: control and events.
const FIXED_QUEUES: u32 = 2;
/// Most queues for requests.
const MAX_REQUEST_QUEUES: u32 = super::MAX_QUEUES as u32 - FIXED_QUEUES;

/// Properties of `virtio-scsi-device`.
#[derive(DeriveDevice, Clone, Debug)]
#[class(name = "virtio-scsi-device", parent = "virtio-scsi-common", bus = Virtio, category = Storage)]
pub struct VirtioScsiProps {
    #[prop(name = "num_queues", default = u32::MAX)]
    pub num_queues: u32,
    #[prop(name = "virtqueue_size", default = 256u32)]
    pub virtqueue_size: u32,
    #[prop(name = "seg_max_adjust", default = true)]
    pub seg_max_adjust: bool,
    #[prop(name = "max_sectors", default = 0xffffu32)]
    pub max_sectors: u32,
    #[prop(name = "cmd_per_lun", default = 128u32)]
    pub cmd_per_lun: u32,
    /// on/off
    #[prop(default = true)]
    pub hotplug: bool,
    /// on/off
    #[prop(name = "param_change", default = true)]
    pub param_change: bool,
    #[prop(object)]
    pub iothread: IothreadRef,
    /// Those of every virtio device.
    #[base]
    pub virtio: VirtioProps,
}

/// Transport properties on PCI.
#[derive(DeriveDevice)]
pub struct ScsiPciProps {
    /// on/off
    #[prop(default = true)]
    pub ioeventfd: bool,
    #[prop(default = u32::MAX)]
    pub vectors: u32,
}

impl OwnProps for ScsiPciProps {
    fn ioeventfd(&self) -> bool {
        self.ioeventfd
    }
    fn vectors(&mut self) -> Option<&mut u32> {
        Some(&mut self.vectors)
    }
}

impl PciClass for VirtioScsiProps {
    type Own = ScsiPciProps;
    const LEGACY_ID: u16 = 0x1004;
    const PCI_CLASS: u16 = 0x0100;
    fn class_info() -> &'static ClassInfo {
        Self::CLASS
    }
}

crate::virtio_pci_classes! {
    device: super::scsi::VirtioScsiProps, own: super::scsi::ScsiPciProps, category: Storage,
    parent: "virtio-scsi-pci-base", alias: "virtio-scsi", backend: "virtio-scsi-device",
    generic: "virtio-scsi-pci", transitional: "virtio-scsi-pci-transitional",
    non_transitional: "virtio-scsi-pci-non-transitional",
}

impl DeviceClass for VirtioScsiProps {
    fn realize(&mut self, cx: &mut RealizeCx<'_>) -> QResult<Box<dyn Device>> {
        part::realize_on_bus(self, cx, false)
    }
}

impl VirtioClass for VirtioScsiProps {
    fn build(&mut self, _cx: &mut RealizeCx<'_>, env: &BuildEnv) -> QResult<Box<dyn VirtioDevice>> {
        if self.num_queues == u32::MAX {
            self.num_queues = env.cpus.clamp(1, MAX_REQUEST_QUEUES);
        }
        if self.num_queues == 0 || self.num_queues > MAX_REQUEST_QUEUES {
            return Err(qerr!(
                "Invalid number of queues (= {}), must be a positive integer less than {MAX_REQUEST_QUEUES}.",
                self.num_queues
            ));
        }
        if self.virtqueue_size <= 2 {
            return Err(qerr!("invalid virtqueue_size property (= {}), must be > 2", self.virtqueue_size));
        }
        if !self.virtqueue_size.is_power_of_two() || self.virtqueue_size > 1024 {
            return Err(qerr!(
                "invalid virtqueue_size property (= {}), must be a power of 2 (max 1024)",
                self.virtqueue_size
            ));
        }
        if self.iothread.0.is_some() {
            return Err(qerr!("virtio-scsi: iothread is not supported"));
        }
        Ok(Box::new(Hba::new(self)))
    }

    fn common(&self) -> &VirtioProps {
        &self.virtio
    }
}

/// Calls the adapter whose SCSI bus `parent` provides.
pub fn with_adapter<R>(
    cx: &mut Cx<'_>,
    parent: DevId,
    f: impl FnOnce(&mut dyn ScsiAdapter, &mut Cx<'_>) -> R,
) -> Option<R> {
    let transport = part::transport_of(cx.m, parent)?;
    cx.call(transport, |d, cx| {
        let t = part::transport(d)?;
        let hba = t.core().dev.as_any().downcast_mut::<Hba>()?;
        let r = f(hba, cx);
        let mut raise = Raise::default();
        hba.send_events(&mut raise);
        core::deliver(t, cx, raise);
        Some(r)
    })
    .flatten()
}
