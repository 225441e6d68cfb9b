//! virtio 1.x and transitional devices (VIRTIO 1.2) over PCI and MMIO.
//!
//! A *device* ([`VirtioDevice`]: blk, rng, ...) knows its features, configuration space and what its queues carry. A
//! *transport* ([`pci`], [`mmio`]) knows registers and interrupts. What both share (features, status, queue set-up)
//! is [`core::Core`]. In the QOM tree the transport has a child `virtio-backend` on a `virtio-bus`, as users and
//! libvirt expect; the child forwards to the transport ([`part`]).
//!
//! Queues are [`queue::Queue`]s. A device may serve them on an I/O thread ([`iothread`]) that a kick wakes through an
//! eventfd, without the machine lock; completions reach the guest through eventfds too, where the accelerator can do
//! that, else through the main loop ([`shared::Shared`]). Without eventfds (qtest) a kick is served where it arrives.
//!
//! A stop (VM stop, reset, unplug) is a handshake: [`VirtioDevice::stop`] returns when no request is in flight and no
//! other thread will touch guest memory for it.
//!
//! Left out: packed rings (not offered), `VIRTIO_F_ACCESS_PLATFORM` with a real IOMMU.

pub mod balloon;
pub mod blk;
pub mod core;
pub mod iothread;
pub mod mmio;
pub mod net;
pub mod part;
pub mod pci;
pub mod queue;
pub mod rng;
pub mod scsi;
pub mod serial;
pub mod served;
pub mod shared;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::sync::Arc;

use rqemu_derive::Device as DeriveDevice;
use vmm_sys_util::eventfd::EventFd;

use self::queue::{Queue, QueueError};
use self::shared::Shared;
use crate::device::{BlockFrontend, Cx};
use crate::qom::{PropAccess, PropStruct};
use crate::{qerr, QResult};

/// Feature bits that are not a device's own.
#[allow(missing_docs)]
pub const F_NOTIFY_ON_EMPTY: u32 = 24;
#[allow(missing_docs)]
pub const F_ANY_LAYOUT: u32 = 27;
#[allow(missing_docs)]
pub const F_INDIRECT_DESC: u32 = 28;
#[allow(missing_docs)]
pub const F_EVENT_IDX: u32 = 29;
/// Legacy PCI: a driver that acknowledges everything acknowledges this, too.
pub const F_BAD_FEATURE: u32 = 30;
#[allow(missing_docs)]
pub const F_VERSION_1: u32 = 32;
#[allow(missing_docs)]
pub const F_ACCESS_PLATFORM: u32 = 33;
#[allow(missing_docs)]
pub const F_RING_RESET: u32 = 40;

/// Device status bits.
#[allow(missing_docs)]
pub mod status {
    pub const ACKNOWLEDGE: u8 = 1;
    pub const DRIVER: u8 = 2;
    pub const DRIVER_OK: u8 = 4;
    pub const FEATURES_OK: u8 = 8;
    pub const NEEDS_RESET: u8 = 0x40;
    pub const FAILED: u8 = 0x80;
}

/// No MSI-X vector.
pub const NO_VECTOR: u16 = 0xffff;
/// Largest number of queues of a device.
pub const MAX_QUEUES: usize = 1024;

/// Interrupts that a device call asks for; the transport delivers them after the call.
#[derive(Default)]
pub struct Raise {
    queues: Vec<u16>,
    config: bool,
    broken: Option<QueueError>,
}

impl Raise {
    /// The guest should look at queue `q`.
    pub fn queue(&mut self, q: u16) {
        if !self.queues.contains(&q) {
            self.queues.push(q);
        }
    }

    /// The configuration space changed.
    pub fn config(&mut self) {
        self.config = true;
    }

    /// The guest broke a queue.
    pub fn broken(&mut self, e: QueueError) {
        self.broken.get_or_insert(e);
    }
}

/// What a device gets when its driver is ready.
pub struct Start<'a> {
    /// Negotiated features.
    pub features: u64,
    /// Live queues by number.
    pub queues: &'a [Option<Arc<Queue>>],
    /// Kick eventfds by number, if kicks come that way; then the device serves its queues on an I/O thread.
    pub kicks: Option<&'a [Arc<EventFd>]>,
    /// Interrupts and errors from other threads.
    pub shared: &'a Arc<Shared>,
}

/// A bus that a device provides.
pub struct ChildBus {
    /// Kind.
    pub kind: crate::device::BusKind,
    /// Most children.
    pub max: u32,
}

/// A virtio device, without its transport.
pub trait VirtioDevice: Send {
    /// Device type (VIRTIO 1.2, section 5).
    fn id(&self) -> u16;
    /// Its own feature bits; `modern` tells whether `VIRTIO_F_VERSION_1` is offered.
    fn features(&self, modern: bool) -> u64;
    /// Feature bits that only the legacy interface shows.
    fn legacy_only(&self) -> u64 {
        0
    }
    /// Sizes of its queues; 0 for a gap.
    fn queue_sizes(&self) -> Vec<u16>;
    /// Sizes of its queues when the driver accepted these features; as many as in [`Self::queue_sizes`].
    fn queue_sizes_with(&self, _accepted: u64) -> Vec<u16> {
        self.queue_sizes()
    }
    /// Length of the configuration space in bytes, at most 256.
    fn config_len(&self) -> usize;
    /// Fills in the configuration space (`out` has its length and is zeroed).
    fn config(&self, out: &mut [u8]);
    /// The guest wrote `data` at `offset` (inside the length).
    fn set_config(&mut self, _cx: &mut Cx<'_>, _raise: &mut Raise, _offset: usize, _data: &[u8]) {}
    /// Wants kicks through eventfds and has an I/O thread to serve them.
    fn wants_eventfds(&self) -> bool {
        false
    }
    /// The driver is ready, or the machine goes on after a stop: serve the queues.
    fn start(&mut self, cx: &mut Cx<'_>, raise: &mut Raise, start: &Start<'_>);
    /// Stop serving; nothing may be in flight on return. [`Self::start`] may follow.
    fn stop(&mut self, cx: &mut Cx<'_>);
    /// Back to power-on (stopped before).
    fn reset(&mut self, cx: &mut Cx<'_>);
    /// The guest kicked queue `q` (only between start and stop).
    fn kick(&mut self, cx: &mut Cx<'_>, raise: &mut Raise, q: u16);
    /// Other threads left something for the main loop ([`Shared::attention`]).
    fn attend(&mut self, _cx: &mut Cx<'_>, _raise: &mut Raise) {}
    /// A timer armed with [`Cx::timer_set`] expired.
    fn timer(&mut self, _cx: &mut Cx<'_>, _raise: &mut Raise, _id: u32) {}
    /// Called once before the device goes away (stopped before).
    fn unrealize(&mut self, _cx: &mut Cx<'_>) {}
    /// The bus for its own children, if it has one.
    fn child_bus(&self) -> Option<ChildBus> {
        None
    }
    /// Front end of block devices.
    fn block(&mut self) -> Option<&mut dyn BlockFrontend> {
        None
    }
    /// Front end of network back ends.
    fn net(&mut self) -> Option<&mut dyn VirtioNic> {
        None
    }
    /// For callers that know its type.
    fn as_any(&mut self) -> &mut dyn Any;
}

/// The side of a network card that its back end sees ([`crate::net::NetFrontend`], with interrupts).
pub trait VirtioNic {
    /// Takes a frame; `false` if it cannot now.
    fn receive(&mut self, cx: &mut Cx<'_>, raise: &mut Raise, queue: u32, frame: &[u8]) -> bool;
    /// A frame that the back end had waiting is gone.
    fn sent(&mut self, cx: &mut Cx<'_>, raise: &mut Raise, queue: u32);
    /// The link went up or down.
    fn link_changed(&mut self, raise: &mut Raise, up: bool);
    /// The guest is to announce itself.
    fn announce(&mut self, raise: &mut Raise);
    /// What it lets in.
    fn rx_filter(&mut self) -> crate::net::RxFilter;
}

/// Properties of every virtio device.
#[derive(DeriveDevice, Clone, Debug)]
pub struct VirtioProps {
    /// Offer indirect descriptors
    #[prop(name = "indirect_desc", default = true)]
    pub indirect_desc: bool,
    /// Offer event indices
    #[prop(name = "event_idx", default = true)]
    pub event_idx: bool,
    /// Offer an interrupt when a queue runs empty (legacy)
    #[prop(name = "notify_on_empty", default = true)]
    pub notify_on_empty: bool,
    /// Take any message framing (legacy)
    #[prop(name = "any_layout", default = true)]
    pub any_layout: bool,
    /// Addresses are translated by the platform
    #[prop(name = "iommu_platform")]
    pub iommu_platform: bool,
    /// Offer packed rings
    #[prop]
    pub packed: bool,
    /// Offer resets of single queues
    #[prop(name = "queue_reset", default = true)]
    pub queue_reset: bool,
    /// Track whether the driver started the device
    #[prop(default = true)]
    pub use_started: bool,
    /// Track whether the device is disabled
    #[prop(default = true)]
    pub use_disabled_flag: bool,
    /// Allow a legacy interface where the specification has none
    #[prop(default = false)]
    pub x_disable_legacy_check: bool,
}

impl VirtioProps {
    /// Feature bits that these properties switch on.
    ///
    /// # Errors
    /// Something is asked for that does not exist here.
    pub fn features(&self) -> QResult<u64> {
        if self.packed {
            return Err(qerr!("packed virtqueues are not supported"));
        }
        let mut f = 0;
        for (on, bit) in [
            (self.indirect_desc, F_INDIRECT_DESC),
            (self.event_idx, F_EVENT_IDX),
            (self.notify_on_empty, F_NOTIFY_ON_EMPTY),
            (self.any_layout, F_ANY_LAYOUT),
            (self.iommu_platform, F_ACCESS_PLATFORM),
            (self.queue_reset, F_RING_RESET),
        ] {
            f |= u64::from(on) << bit;
        }
        Ok(f)
    }
}

/// Facts that a device's properties need to build the device.
pub struct BuildEnv {
    /// QOM path of the device (not of its transport).
    pub who: String,
    /// Virtual CPUs, for `num-queues=auto`; 1 on transports that do not scale.
    pub cpus: u32,
}

/// Properties of a virtio device class that can sit on any transport.
pub trait VirtioClass: PropStruct + PropAccess + Default + Clone + Send + 'static {
    /// Makes the device; resolved values stay in `self`.
    ///
    /// # Errors
    /// Bad properties or backends.
    fn build(
        &mut self,
        cx: &mut crate::device::RealizeCx<'_>,
        env: &BuildEnv,
    ) -> QResult<Box<dyn VirtioDevice>>;
    /// The properties of every virtio device.
    fn common(&self) -> &VirtioProps;
}
