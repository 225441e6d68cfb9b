//! Builds a machine from a [`VmSpec`], in QEMU's phases: machine, accelerator, back ends, board and devices, ready.

mod accel;
mod bootorder;
mod chardevs;
mod cpus;
mod devices;
mod drives;
mod firmware;
mod memory;
mod net;
mod numa;
mod objects;
mod roms;
#[cfg(test)]
mod tests;

pub use bootorder::fw_path;
pub use cpus::cpu_caps;
pub use devices::{create_device, unplug_device, DeviceArgs};
pub use drives::{block_error, drive_opts};
pub use firmware::{acpi_blobs, acpi_config, isa_devices};
pub use net::{nic_help, nic_models};
pub use numa::{NumaNode, NumaState};
pub use objects::check_objects;

use std::sync::Arc;

use crate::boards::{self, MachineObject, MachineType, RamLayout};
use crate::device::{BusId, DevId};
use crate::devices::chipset::piix4_pm;
use crate::event_loop::EventLoop;
use crate::machine::Machine;
use crate::memory::RegionId;
use crate::qom::PropInput;
use crate::run::{Actions, PanicAction, RebootAction, ShutdownAction, WatchdogAction};
use crate::shared::Shared;
use crate::spec::{self, DrivePlace, Topology, VmSpec};
use crate::{qerr, QResult};

/// Facts about the machine that queries report.
#[derive(Clone, Debug, Default)]
pub struct MachineInfo {
    /// Guest name.
    pub name: Option<String>,
    /// UUID.
    pub uuid: Option<[u8; 16]>,
    /// RAM in bytes.
    pub ram_size: u64,
    /// Upper limit of RAM in bytes.
    pub max_ram_size: u64,
    /// Slots for memory modules.
    pub ram_slots: u64,
    /// CPU topology.
    pub topology: Option<Topology>,
    /// CPU model.
    pub cpu_model: String,
    /// Name of the RAM block's backend.
    pub ram_id: String,
    /// What firmware tables say of the CPUs.
    pub cpu: crate::cpu::CpuFacts,
    /// CPU devices by index.
    pub cpus: Vec<DevId>,
    /// ACPI tables of the user (`-acpitable`).
    pub acpi_tables: Vec<Vec<u8>>,
}

/// A machine under construction.
pub struct Build<'a> {
    /// The machine.
    pub m: &'a mut Machine,
    /// What it is built from.
    pub spec: &'a VmSpec,
    /// Type.
    pub kind: &'static MachineType,
    /// CPU counts.
    pub topo: Topology,
    /// RAM in bytes.
    pub ram_size: u64,
    /// Where RAM lies.
    pub layout: RamLayout,
    /// Places of drives, in the order of `spec.drives`.
    pub places: Vec<DrivePlace>,
    /// fw_cfg device, if the board has one.
    pub fw_cfg: Option<DevId>,
    /// Root PCI bus.
    pub pci_root: Option<BusId>,
    /// ISA bus.
    pub isa_bus: Option<BusId>,
    /// Device with the power button.
    pub power_device: Option<DevId>,
    /// System firmware: region and size.
    pub firmware: Option<(RegionId, u64)>,
    /// The firmware is in flash chips.
    pub flash: bool,
    /// Names of back ends, in the order of `spec.netdevs`; `None`: not made.
    pub netdev_names: Vec<Option<String>>,
    /// Hub ports of cards (`-net nic`), by index into `spec.nics`.
    pub nic_ports: Vec<Option<String>>,
    /// Option ROMs for the firmware.
    pub option_roms: Vec<roms::OptionRom>,
    /// Cards that the board made, as indexes into `spec.nics`.
    pub created_nics: Vec<usize>,
    /// Lines for standard error or output that creation produced.
    pub messages: &'a mut dyn Messages,
}

/// Where warnings and informational lines go.
pub trait Messages {
    /// `program: warning: text`.
    fn warning(&mut self, text: &str);
    /// `program: option: warning: text`.
    fn warning_at(&mut self, loc: &spec::Loc, text: &str);
    /// `program: text` (informational).
    fn info(&mut self, text: &str);
    /// A plain line on standard output.
    fn out(&mut self, text: &str);
    /// A plain line on standard error.
    fn plain(&mut self, text: &str);
    /// Back ends exist, the board does not yet: the moment to connect monitors.
    ///
    /// # Errors
    /// Ends the construction.
    fn backends_ready(&mut self, _m: &mut Machine) -> QResult<()> {
        Ok(())
    }
}

/// What `build` made.
pub struct Built {
    /// The machine.
    pub shared: Arc<Shared>,
    /// Its main loop.
    pub event_loop: EventLoop,
}

/// Shows in the machine's properties what other options (`-kernel`, `-smp`, `-boot`, `-m`) set.
fn show_settings(m: &mut Machine, spec: &VmSpec, topo: Topology, memory: spec::MemorySize) -> QResult<()> {
    use serde_json::json;
    let Some(board) = &mut m.board else { return Ok(()) };
    let f = &spec.firmware;
    for (name, value) in
        [("kernel", &f.kernel), ("initrd", &f.initrd), ("append", &f.append), ("dtb", &f.dtb)]
    {
        if let Some(v) = value {
            board.set(name, &PropInput::Str(v))?;
        }
    }
    let smp = json!({
        "cpus": topo.cpus, "maxcpus": topo.maxcpus, "sockets": topo.sockets, "dies": topo.dies,
        "clusters": topo.clusters, "cores": topo.cores, "threads": topo.threads,
    });
    let mut sizes = json!({ "size": memory.ram });
    if memory.max > memory.ram {
        sizes["max-size"] = memory.max.into();
        sizes["slots"] = memory.slots.into();
    }
    let b = &spec.boot;
    let order = if board.kind.default_cpu.is_some() { "cad" } else { "" };
    let mut boot = json!({ "order": b.order.as_deref().unwrap_or(order) });
    let given = [
        ("once", b.once.as_deref().map(serde_json::Value::from)),
        ("menu", b.menu.map(Into::into)),
        ("splash", b.splash.as_deref().map(Into::into)),
        ("splash-time", b.splash_time.map(Into::into)),
        ("reboot-timeout", b.reboot_timeout.map(Into::into)),
        ("strict", b.strict.map(Into::into)),
    ];
    for (name, value) in given {
        if let Some(v) = value {
            boot[name] = v;
        }
    }
    for (name, value) in [("smp", smp), ("memory", sizes), ("boot", boot)] {
        board.set(name, &PropInput::Json(&value))?;
    }
    Ok(())
}

/// Builds everything. The machine is stopped, its vCPUs are parked; [`start`] lets it go.
///
/// # Errors
/// The message for the user, with the option's location in front.
pub fn build(spec: &mut VmSpec, messages: &mut dyn Messages) -> QResult<Built> {
    check_objects(spec)?;
    let kind = machine_type(spec)?;
    let defaults = (kind.defaults)();
    spec::defaults::apply(spec, &defaults)?;
    let spec = &*spec;
    let log = crate::log::Log::open(&spec.run.log)?;
    let mut m = Machine::new();
    add_fds(&mut m, spec)?;
    m.log = Arc::new(log);
    m.assembling = true;
    let event_loop = EventLoop::new(&mut m)
        .map_err(|e| qerr!("cannot create event loop: {}", crate::error::strerror(&e)))?;
    m.firmware_dirs.splice(0..0, spec.firmware.data_dirs.iter().map(std::path::PathBuf::from));
    m.board = Some(machine_object(spec, kind)?);
    apply_run_options(&mut m, spec);
    let topo = spec.smp.resolve(&kind.smp_traits())?;
    accel::select(&mut m, spec, topo, messages)?;
    check_software_cpu(&m, spec)?;
    globals(&mut m, spec, kind);
    let memory = memory::ram_size(spec, kind)?;
    let (places, placed) = spec::place::place_drives(&spec.drives, &defaults);
    let mut b = Build {
        m: &mut m,
        spec,
        kind,
        topo,
        ram_size: memory.ram,
        layout: RamLayout::default(),
        places,
        fw_cfg: None,
        pci_root: None,
        isa_bus: None,
        power_device: None,
        firmware: None,
        flash: false,
        netdev_names: Vec::new(),
        nic_ports: Vec::new(),
        created_nics: Vec::new(),
        option_roms: Vec::new(),
        messages,
    };
    b.info(memory);
    show_settings(b.m, spec, topo, memory)?;
    b.m.roms_optional = b.boots_directly();
    b.create_chardevs()?;
    b.create_objects()?;
    b.open_block_devices()?;
    placed?;
    b.configure_numa()?;
    b.create_netdevs()?;
    b.messages.backends_ready(b.m)?;
    (kind.init)(&mut b)?;
    b.create_user_devices()?;
    b.check_orphans()?;
    b.warn_net();
    b.m.assembling = false;
    b.m.settle();
    b.m.power_device = b.power_device;
    if let Some(pm) = b.power_device {
        piix4_pm::machine_ready(b.m, pm);
    }
    b.finish_firmware()?;
    b.open_direct_boot()?;
    m.settle();
    if let Some(e) = m.take_fault() {
        return Err(e);
    }
    m.reset_devices();
    let boot = m.prepare_direct_boot()?;
    let shared = Shared::new(m);
    accel::start(&shared, boot)?;
    shared.lock().log_cpu_reset();
    Ok(Built { shared, event_loop })
}

/// Refuses what only the software CPU could do and does not yet.
fn check_software_cpu(m: &Machine, spec: &VmSpec) -> QResult<()> {
    const LOGGED: [&str; 4] = ["cpu_reset", "guest_errors", "unimp", "all"];
    if m.accel.name() != "tcg" {
        return Ok(());
    }
    if spec.run.icount.is_some() {
        return Err(qerr!("-icount: not supported yet"));
    }
    match spec.run.log.items.iter().find(|i| !LOGGED.contains(&i.as_str())) {
        Some(item) => Err(qerr!("-d {item}: not supported by this accelerator yet")),
        None => Ok(()),
    }
}

fn machine_type(spec: &VmSpec) -> QResult<&'static MachineType> {
    match &spec.machine.kind {
        None => Ok(boards::default_type()),
        Some(name) => boards::find(name).ok_or_else(|| {
            qerr!("unsupported machine type").with_hint("Use -machine help to list supported machines")
        }),
    }
}

fn machine_object(spec: &VmSpec, kind: &'static MachineType) -> QResult<MachineObject> {
    let mut o = MachineObject { kind, props: (kind.props)() };
    for (k, v) in spec.machine.props.iter() {
        match v.as_str() {
            // The accelerator's property, which QEMU sets there.
            Some(text) if matches!(k, "kernel-irqchip" | "kernel_irqchip") => {
                o.set(k, &PropInput::Str(text)).map_err(|e| {
                    e.prepend(&format!("can't apply global kvm-accel.kernel-irqchip={text}: "))
                })?;
            }
            Some(text) => o.set(k, &PropInput::Str(text))?,
            None => o.set(k, &PropInput::Json(&v.to_json()))?,
        }
    }
    Ok(o)
}

/// `-add-fd`, and files named `/dev/fdset/N`.
fn add_fds(m: &mut Machine, spec: &VmSpec) -> QResult<()> {
    m.block.set_fd_opener(Arc::new(m.fdsets.clone()));
    for f in &spec.run.fds {
        let added = m.fdsets.add_inherited(f.set, f.fd, f.opaque.clone());
        added.map_err(|e| f.loc.locate(qerr!("error duplicating fd: {}", crate::error::strerror(&e))))?;
    }
    // One descriptor may have been added to several sets.
    let mut numbers: Vec<i32> = spec.run.fds.iter().map(|f| f.fd).collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers.into_iter().for_each(crate::fdsets::close_inherited);
    Ok(())
}

fn apply_run_options(m: &mut Machine, spec: &VmSpec) {
    let a = &spec.run.action;
    m.run.actions = Actions {
        reboot: if a.reboot_is_shutdown { RebootAction::Shutdown } else { RebootAction::Reset },
        shutdown: if a.shutdown_pauses { ShutdownAction::Pause } else { ShutdownAction::Poweroff },
        panic: match a.panic {
            spec::PanicAction::Pause => PanicAction::Pause,
            spec::PanicAction::Shutdown => PanicAction::Shutdown,
            spec::PanicAction::ExitFailure => PanicAction::ExitFailure,
            spec::PanicAction::None => PanicAction::None,
        },
        watchdog: match a.watchdog {
            spec::WatchdogAction::Reset => WatchdogAction::Reset,
            spec::WatchdogAction::Shutdown => WatchdogAction::Shutdown,
            spec::WatchdogAction::Poweroff => WatchdogAction::Poweroff,
            spec::WatchdogAction::Pause => WatchdogAction::Pause,
            spec::WatchdogAction::Debug => WatchdogAction::Debug,
            spec::WatchdogAction::None => WatchdogAction::None,
            spec::WatchdogAction::InjectNmi => WatchdogAction::InjectNmi,
        },
    };
    m.chardevs.escape_char = spec.run.escape_char;
}

fn globals(m: &mut Machine, spec: &VmSpec, kind: &MachineType) {
    let compat = kind.compat.iter().copied().flatten().map(|(d, p, v)| crate::device::GlobalProp {
        driver: (*d).into(),
        property: (*p).into(),
        value: (*v).into(),
        strict: false,
    });
    let user = spec.globals.iter().map(|g| crate::device::GlobalProp {
        driver: g.driver.clone(),
        property: g.property.clone(),
        value: g.value.clone(),
        strict: true,
    });
    m.globals = compat.chain(user).collect();
}

impl Build<'_> {
    /// The machine's properties, if they are of type `T`.
    pub fn props<T: 'static>(&self) -> Option<&T> {
        self.m.board.as_ref()?.props.as_any().downcast_ref()
    }

    fn info(&mut self, memory: spec::MemorySize) {
        let s = self.spec;
        self.m.info = MachineInfo {
            name: s.name.guest.clone(),
            uuid: s.uuid,
            ram_size: self.ram_size,
            max_ram_size: memory.max,
            ram_slots: memory.slots,
            topology: Some(self.topo),
            cpu_model: String::new(),
            cpu: Default::default(),
            ram_id: self.kind.default_ram_id.unwrap_or("").to_string(),
            cpus: Vec::new(),
            acpi_tables: s.acpi_tables.clone(),
        };
    }

    /// The properties of an x86 board.
    pub fn x86_props(&self) -> Option<&crate::boards::X86Props> {
        let pc = self.props::<crate::boards::PcProps>().map(|p| &p.x86);
        pc.or_else(|| self.props::<crate::boards::MicrovmProps>().map(|p| &p.x86))
    }

    /// Whether the board is a `microvm`.
    pub fn is_microvm(&self) -> bool {
        self.props::<crate::boards::MicrovmProps>().is_some()
    }

    /// Whether ACPI is on.
    pub fn acpi_enabled(&self) -> bool {
        self.x86_props().is_some_and(|p| p.acpi.or(true))
    }

    /// Whether a kernel is to be started without going through firmware: unless the user names a firmware.
    pub fn boots_directly(&self) -> bool {
        self.spec.firmware.kernel.is_some() && !self.flash && self.wanted_firmware().is_none()
    }

    /// Firmware that the user names: `-bios`, or the machine's `firmware` property.
    pub fn wanted_firmware(&self) -> Option<String> {
        let prop = || self.props::<crate::boards::PcProps>().and_then(|p| p.x86.common.firmware.0.clone());
        self.spec.firmware.bios.clone().or_else(prop)
    }
}
