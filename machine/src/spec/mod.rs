//! Plain description of a VM and of the process that runs it.
//!
//! The command line (`rqemu-frontend`) lowers all of its sugar to a [`VmSpec`]; the builder makes a machine of it.
//! Everything here is data: it opens nothing, allocates no ids and can be compared. Lists keep the order of the
//! command line. Text may hold bytes that are not UTF-8, see [`text`].
//!
//! Two steps need the machine class, which the parser does not know, and are pure functions here:
//! [`defaults::apply`] adds default devices, and [`place::place_drives`] gives drives their bus and unit.

pub mod block;
pub mod chardev;
pub mod defaults;
pub mod display;
pub mod firmware;
pub mod loc;
pub mod machine;
pub mod memory;
pub mod net;
pub mod place;
pub mod run;
pub mod schema;
pub mod size;
pub mod smp;
pub mod text;
pub mod value;
pub mod visit;

use crate::firmware::smbios::SmbiosOptions;
pub use block::{BlockdevSpec, DriveInterface, DriveSpec, Media, OnError, ThrottleSpec};
pub use chardev::{
    CharPort, ChardevBackend, ChardevSpec, InetAddress, MonitorMode, MonitorSpec, SocketAddress,
    SocketChardev,
};
pub use defaults::{DefaultDevices, MachineDefaults};
pub use display::{DisplaySpec, OptsSpec, VgaKind};
pub use firmware::{
    BootSpec, FirmwareSpec, FwCfgSource, FwCfgSpec, OptionRomSpec, RtcBase, RtcClock, RtcSpec,
};
pub use loc::{Loc, Word};
pub use machine::{
    AccelOrigin, AccelSpec, CpuFeature, CpuSpec, DeviceSpec, GlobalSpec, MachineSpec, ObjectSpec,
};
pub use memory::{MemorySize, MemorySpec, NumaKind, NumaSpec};
pub use net::{NetPeer, NetdevSpec, NicSpec};
pub use place::DrivePlace;
pub use run::{
    ActionSpec, AddFdSpec, Elevate, IcountSpec, LogSpec, NameSpec, PanicAction, RunSpec, SandboxSpec,
    WatchdogAction,
};
pub use smp::{SmpSpec, SmpTraits, Topology};
pub use value::{Dict, Value};

/// Everything a VM is built from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VmSpec {
    /// Machine type and properties.
    pub machine: MachineSpec,
    /// Accelerators to try in order; never empty after parsing.
    pub accels: Vec<AccelSpec>,
    /// CPU model; `None` = the machine's default.
    pub cpu: Option<CpuSpec>,
    /// CPU counts.
    pub smp: SmpSpec,
    /// RAM.
    pub memory: MemorySpec,
    /// NUMA steps.
    pub numa: Vec<NumaSpec>,
    /// User-created objects.
    pub objects: Vec<ObjectSpec>,
    /// Character devices, those made by `-serial` and so on included.
    pub chardevs: Vec<ChardevSpec>,
    /// Block nodes.
    pub blockdevs: Vec<BlockdevSpec>,
    /// Drives.
    pub drives: Vec<DriveSpec>,
    /// Network backends.
    pub netdevs: Vec<NetdevSpec>,
    /// NICs of the board.
    pub nics: Vec<NicSpec>,
    /// Devices in the order they are created: `-usbdevice`, then `-device` (options before JSON), `-virtfs`, `-debugcon`.
    pub devices: Vec<DeviceSpec>,
    /// Global property values.
    pub globals: Vec<GlobalSpec>,
    /// Serial ports by number.
    pub serials: Vec<CharPort>,
    /// Parallel ports by number.
    pub parallels: Vec<CharPort>,
    /// Monitors.
    pub monitors: Vec<MonitorSpec>,
    /// fw_cfg items.
    pub fw_cfg: Vec<FwCfgSpec>,
    /// SMBIOS additions.
    pub smbios: SmbiosOptions,
    /// ACPI tables.
    pub acpi_tables: Vec<Vec<u8>>,
    /// `-fsdev` (and the backend half of `-virtfs`).
    pub fsdevs: Vec<OptsSpec>,
    /// `-tpmdev`.
    pub tpmdevs: Vec<OptsSpec>,
    /// `-audiodev`.
    pub audiodevs: Vec<OptsSpec>,
    /// `-iscsi`.
    pub iscsi: Vec<OptsSpec>,
    /// Boot order and menu.
    pub boot: BootSpec,
    /// Clock.
    pub rtc: RtcSpec,
    /// Video card; `None` = the machine's default, if `defaults.vga` still holds.
    pub vga: Option<VgaKind>,
    /// Displays.
    pub display: DisplaySpec,
    /// Kernel and firmware files.
    pub firmware: FirmwareSpec,
    /// Guest UUID.
    pub uuid: Option<[u8; 16]>,
    /// Names.
    pub name: NameSpec,
    /// Process-wide switches.
    pub run: RunSpec,
    /// Default devices that are still wanted.
    pub defaults: DefaultDevices,
}
