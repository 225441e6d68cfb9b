//! Devices: what a device can do (capability traits), where it sits (tree of devices and buses), and the context
//! through which it reaches the world.
//!
//! # Life cycle
//! `create` (default properties) -> properties set -> `realize` (claims resources, returns the run-time device) ->
//! `reset` -> running -> (unplug) dropped. All calls happen under the machine lock, and no device is ever entered
//! twice: while it runs it is out of its slot; line changes that would lead back to it are queued and applied after
//! the handler returned.

mod create;
mod cx;
#[cfg(test)]
pub mod testing;
mod tree;

pub use create::GlobalProp;
pub use cx::{Cx, RealizeCx};
pub use tree::{Bus, BusId, DeviceNode, DeviceTree, Place};

use std::any::Any;

use crate::pci::PciState;
use crate::QResult;

/// Handle of a device. Handles are not reused within a machine's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DevId(pub u32);

/// Names for timers that belong to no device. All stand here, so that no two are the same.
impl DevId {
    /// Character devices; the timer's number is theirs.
    pub const CHARDEV_TIMERS: Self = Self(u32::MAX);
    /// Monitors: wakes the main loop for events that are held back.
    pub const MONITOR_TIMERS: Self = Self(u32::MAX - 1);
    /// Keys that wait to be sent.
    pub const KEY_TIMERS: Self = Self(u32::MAX - 2);
    /// Announcements of network cards; the timer's number is theirs.
    pub const ANNOUNCE_TIMERS: Self = Self(u32::MAX - 3);
}

/// Kinds of bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BusKind {
    /// Devices wired to the board.
    System,
    /// ISA.
    Isa,
    /// PCI and PCI Express.
    Pci,
    /// IDE channel.
    Ide,
    /// Floppy controller.
    Floppy,
    /// SCSI.
    Scsi,
    /// Between a virtio transport and its device.
    Virtio,
    /// Ports of a virtio-serial device.
    VirtioSerial,
    /// USB.
    Usb,
    /// I2C / SMBus.
    I2c,
}

impl BusKind {
    /// All kinds.
    pub const ALL: &'static [Self] = &[
        Self::System,
        Self::Isa,
        Self::Pci,
        Self::Ide,
        Self::Floppy,
        Self::Scsi,
        Self::Virtio,
        Self::VirtioSerial,
        Self::Usb,
        Self::I2c,
    ];

    /// QOM type name.
    pub fn type_name(self) -> &'static str {
        match self {
            Self::System => "System",
            Self::Isa => "ISA",
            Self::Pci => "PCI",
            Self::Ide => "IDE",
            Self::Floppy => "floppy-bus",
            Self::Scsi => "SCSI",
            Self::Virtio => "virtio-bus",
            Self::VirtioSerial => "virtio-serial-bus",
            Self::Usb => "usb-bus",
            Self::I2c => "i2c-bus",
        }
    }
}

/// A device at run time. Only `reset` must exist; everything else is a capability that it may have.
pub trait Device: Any + Send {
    /// Brings the device into its power-on state (system reset).
    fn reset(&mut self, cx: &mut Cx<'_>);
    /// Port and memory-mapped I/O.
    fn io(&mut self) -> Option<&mut dyn IoHandler> {
        None
    }
    /// PCI function.
    fn pci(&mut self) -> Option<&mut dyn PciFunction> {
        None
    }
    /// Interrupt (GPIO) inputs.
    fn irq_inputs(&mut self) -> Option<&mut dyn IrqInputs> {
        None
    }
    /// Timers.
    fn timers(&mut self) -> Option<&mut dyn TimerHandler> {
        None
    }
    /// Event descriptors that the main loop watches for it.
    fn event_fds(&mut self) -> Option<&mut dyn EventFds> {
        None
    }
    /// The power button was pressed (the machine's power device only).
    fn power_button(&mut self, _cx: &mut Cx<'_>) {}
    /// The machine left suspend to RAM and was reset for it (only the device behind the power button is told).
    fn woken(&mut self, _cx: &mut Cx<'_>) {}
    /// Front end of character devices.
    fn chardev(&mut self) -> Option<&mut dyn crate::chardev::CharFrontend> {
        None
    }
    /// Front end of block devices.
    fn block(&mut self) -> Option<&mut dyn BlockFrontend> {
        None
    }
    /// Front end of network backends.
    fn net(&mut self) -> Option<&mut dyn crate::net::NetFrontend> {
        None
    }
    /// Keyboard, mouse and tablet input.
    fn input(&mut self) -> Option<&mut dyn crate::ui::InputSink> {
        None
    }
    /// A picture to show.
    fn display(&mut self) -> Option<&mut dyn crate::ui::DisplaySource> {
        None
    }
    /// Bus side of a controller: children attach and detach here.
    fn bus_host(&mut self) -> Option<&mut dyn BusHost> {
        None
    }
    /// Client of an ISA DMA channel.
    fn dma_client(&mut self) -> Option<&mut dyn crate::devices::chipset::dma::DmaClient> {
        None
    }
    /// Hot-plug controller: told of plugs, asked for unplugs of devices on its buses.
    fn hotplug(&mut self) -> Option<&mut dyn HotplugHandler> {
        None
    }
    /// Saved state.
    fn state(&mut self) -> Option<&mut dyn crate::state::SaveState> {
        None
    }
    /// Undoes what dropping does not (called before an unplugged device is dropped, and at exit).
    fn unrealize(&mut self, _cx: &mut Cx<'_>) {}
    /// The machine starts or stops running the guest (stop worker activity here).
    fn run_state_changed(&mut self, _cx: &mut Cx<'_>, _running: bool) {}
    /// Extra lines for `info qtree`.
    fn qtree_lines(&self, _out: &mut Vec<String>) {}
    /// For calls between devices that know each other's type.
    fn as_any(&mut self) -> &mut dyn Any;
}

/// Port and memory-mapped I/O. `region` is the tag given when the region was made, `offset` is within the region,
/// `size` is 1, 2, 4 or 8 within the region's `imp` sizes; values are little-endian in the low bits.
pub trait IoHandler {
    /// A guest read.
    fn read(&mut self, cx: &mut Cx<'_>, region: u32, offset: u64, size: u8) -> u64;
    /// A guest write.
    fn write(&mut self, cx: &mut Cx<'_>, region: u32, offset: u64, size: u8, value: u64);
}

/// Interrupt inputs.
pub trait IrqInputs {
    /// Input `pin` changed to `level`.
    fn set_input(&mut self, cx: &mut Cx<'_>, pin: u32, level: bool);
}

/// Timer expiry.
pub trait TimerHandler {
    /// Timer `id`, armed with [`Cx::timer_set`], expired (it is disarmed now).
    fn expired(&mut self, cx: &mut Cx<'_>, id: u32);
}

/// Event descriptors.
pub trait EventFds {
    /// Descriptor `id`, registered with [`crate::Machine::watch_device_fd`], was signalled (and is drained).
    fn signalled(&mut self, cx: &mut Cx<'_>, id: u32);
}

/// A PCI function.
pub trait PciFunction {
    /// Its configuration space.
    fn state(&mut self) -> &mut PciState;
    /// Called after a write to configuration space was applied (default registers, BARs and MSI-X are already done).
    fn config_written(&mut self, _cx: &mut Cx<'_>, _addr: u16, _len: u8) {}
    /// Called before a read of configuration space, for registers that change by themselves.
    fn config_reading(&mut self, _cx: &mut Cx<'_>, _addr: u16) {}
}

/// Block completions and media changes.
pub trait BlockFrontend {
    /// Request `tag`, submitted with the machine's completion sink for this device, is done.
    fn completed(&mut self, _cx: &mut Cx<'_>, _tag: u64, _result: rqemu_block::IoResult) {}
    /// The medium was inserted (`true`) or removed; removable drives only.
    fn media_changed(&mut self, _cx: &mut Cx<'_>, _loaded: bool) {}
    /// Whether the medium can be removed (CD, floppy).
    fn removable(&self) -> bool {
        false
    }
    /// Tray state: `None` if the drive has no tray.
    fn tray_open(&self) -> Option<bool> {
        None
    }
    /// Errors that stopped the VM are shown as the drive's state.
    fn io_status(&self) -> bool {
        true
    }
    /// The guest has locked the medium.
    fn locked(&self) -> bool {
        false
    }
    /// The drive behind the device.
    fn backend(&self) -> Option<rqemu_block::BlockBackend> {
        None
    }
    /// Tells the guest that the user wants the medium; `force` takes the lock away.
    fn eject_request(&mut self, _cx: &mut Cx<'_>, _force: bool) {}
    /// The backend's size changed.
    fn resized(&mut self, _cx: &mut Cx<'_>) {}
}

/// Children of a controller's bus.
pub trait BusHost {
    /// `child` (still being realized) wants to sit on `bus`; checks its place and takes what it brings.
    fn attach(&mut self, cx: &mut Cx<'_>, bus: BusId, child: DevId, what: Attach) -> QResult<()>;
    /// `child` goes away.
    fn detach(&mut self, cx: &mut Cx<'_>, bus: BusId, child: DevId);
}

/// What a child brings to its controller: a value of a type that both know (for example an IDE drive).
pub type Attach = Box<dyn Any + Send>;

/// Hot-plug controllers.
pub trait HotplugHandler {
    /// `dev` was plugged into a bus of this controller while the machine runs.
    fn plugged(&mut self, cx: &mut Cx<'_>, dev: DevId);
    /// Ask the guest to release `dev`; when it has, the controller calls [`Cx::unplug`].
    fn unplug_request(&mut self, cx: &mut Cx<'_>, dev: DevId) -> QResult<()>;
}
