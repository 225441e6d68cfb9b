//! Default devices: what a machine gets when nobody said otherwise.

use super::block::{DriveInterface, DriveSpec, Media, OnError, ThrottleSpec};
use super::chardev::{CharPort, ChardevBackend, ChardevSpec, MonitorMode, MonitorSpec};
use super::loc::Loc;
use super::net::{NetPeer, NetdevSpec, NicSpec};
use super::value::Dict;
use super::VmSpec;
use crate::error::QResult;
use crate::qerr;

/// Which default devices are still wanted. All are at first; options and devices of the same class take them away
/// (`-serial`, `-device isa-serial`, `-device VGA`, `-nodefaults`, …).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DefaultDevices {
    /// COM1.
    pub serial: bool,
    /// LPT1.
    pub parallel: bool,
    /// An HMP monitor.
    pub monitor: bool,
    /// A NIC and a user-mode network.
    pub net: bool,
    /// A video card.
    pub vga: bool,
    /// Floppy drive (without a medium).
    pub floppy: bool,
    /// CD-ROM drive (without a medium).
    pub cdrom: bool,
    /// SD card slot.
    pub sdcard: bool,
}

impl DefaultDevices {
    /// `-nodefaults`.
    pub const NONE: Self = Self {
        serial: false,
        parallel: false,
        monitor: false,
        net: false,
        vga: false,
        floppy: false,
        cdrom: false,
        sdcard: false,
    };
}

impl Default for DefaultDevices {
    fn default() -> Self {
        Self {
            serial: true,
            parallel: true,
            monitor: true,
            net: true,
            vga: true,
            floppy: true,
            cdrom: true,
            sdcard: true,
        }
    }
}

/// What a machine class says about default devices.
#[derive(Clone, Copy, Debug, Default)]
pub struct MachineDefaults {
    /// Has no serial port by default.
    pub no_serial: bool,
    /// Has no parallel port by default.
    pub no_parallel: bool,
    /// Has no floppy drive by default.
    pub no_floppy: bool,
    /// Has no CD-ROM drive by default.
    pub no_cdrom: bool,
    /// Has no SD card slot by default.
    pub no_sdcard: bool,
    /// Where the default CD-ROM goes and `-drive` without `if=`.
    pub drive_interface: Option<DriveInterface>,
}

/// Adds the default devices to `spec` once the machine class is known, and clears `spec.defaults` except `vga`,
/// which the board reads together with `spec.vga`.
///
/// Errors: `-nographic` with `-daemonize`.
pub fn apply(spec: &mut VmSpec, machine: &MachineDefaults) -> QResult<()> {
    let d = &mut spec.defaults;
    d.serial &= !machine.no_serial;
    d.parallel &= !machine.no_parallel;
    d.floppy &= !machine.no_floppy;
    d.cdrom &= !machine.no_cdrom;
    d.sdcard &= !machine.no_sdcard;
    let d = *d;
    if spec.run.daemonize {
        if spec.display.nographic {
            return Err(qerr!("-nographic cannot be used with -daemonize"));
        }
        if spec.display.kind.as_deref() == Some("curses") {
            return Err(qerr!("curses display cannot be used with -daemonize"));
        }
    }
    if spec.display.nographic {
        nographic_ports(spec, d);
    } else {
        graphic_ports(spec, d);
    }
    if d.net {
        default_net(spec);
    }
    if d.cdrom {
        let interface = machine.drive_interface.unwrap_or(DriveInterface::Ide);
        spec.drives.push(empty_drive(interface, 2, Media::Cdrom));
    }
    if d.floppy {
        spec.drives.push(empty_drive(DriveInterface::Floppy, 0, Media::Disk));
    }
    if d.sdcard {
        spec.drives.push(empty_drive(DriveInterface::Sd, 0, Media::Disk));
    }
    spec.defaults = DefaultDevices { vga: d.vga, ..DefaultDevices::NONE };
    Ok(())
}

fn nographic_ports(spec: &mut VmSpec, d: DefaultDevices) {
    if d.parallel {
        add_port(spec, Port::Parallel, ChardevBackend::Null);
    }
    let stdio = || ChardevBackend::Stdio { signal: None };
    if d.serial && d.monitor {
        // One terminal for both: Ctrl-A c switches, and Ctrl-C goes to the guest.
        let n = spec.serials.len();
        let (id, base) = (format!("serial{n}"), format!("serial{n}-base"));
        spec.chardevs.push(plain(&base, ChardevBackend::Stdio { signal: Some(false) }));
        spec.chardevs.push(plain(&id, ChardevBackend::Mux { chardev: base }));
        spec.serials.push(CharPort { chardev: Some(id.clone()), loc: Loc::NONE });
        spec.monitors.push(readline(&id, None));
    } else if d.serial {
        add_port(spec, Port::Serial, stdio());
    } else if d.monitor {
        add_monitor(spec, stdio());
    }
}

fn graphic_ports(spec: &mut VmSpec, d: DefaultDevices) {
    let vc = || ChardevBackend::Vc { width: None, height: None, cols: Some(80), rows: Some(24) };
    if d.serial {
        add_port(spec, Port::Serial, vc());
    }
    if d.parallel {
        add_port(spec, Port::Parallel, vc());
    }
    if d.monitor {
        add_monitor(spec, vc());
    }
}

enum Port {
    Serial,
    Parallel,
}

fn add_port(spec: &mut VmSpec, port: Port, backend: ChardevBackend) {
    let (list, label) = match port {
        Port::Serial => (&mut spec.serials, "serial"),
        Port::Parallel => (&mut spec.parallels, "parallel"),
    };
    let id = format!("{label}{}", list.len());
    list.push(CharPort { chardev: Some(id.clone()), loc: Loc::NONE });
    spec.chardevs.push(plain(&id, backend));
}

fn add_monitor(spec: &mut VmSpec, backend: ChardevBackend) {
    let id = format!("compat_monitor{}", count_compat(spec));
    spec.chardevs.push(plain(&id, backend));
    spec.monitors.push(readline(&id, Some(id.clone())));
}

/// Monitors made by the short options so far, which number the next one.
pub fn count_compat(spec: &VmSpec) -> usize {
    spec.monitors
        .iter()
        .filter(|m| m.id.as_deref().is_some_and(|id| id.starts_with("compat_monitor")))
        .count()
}

fn plain(id: &str, backend: ChardevBackend) -> ChardevSpec {
    ChardevSpec { id: id.to_string(), backend, logfile: None, logappend: false, loc: Loc::NONE }
}

fn readline(chardev: &str, id: Option<String>) -> MonitorSpec {
    MonitorSpec {
        id,
        chardev: chardev.to_string(),
        mode: MonitorMode::Readline,
        pretty: false,
        loc: Loc::NONE,
    }
}

fn default_net(spec: &mut VmSpec) {
    spec.nics.push(NicSpec {
        model: None,
        mac: None,
        name: None,
        addr: None,
        vectors: None,
        peer: NetPeer::Hub(0),
        loc: Loc::NONE,
    });
    spec.netdevs.push(NetdevSpec {
        kind: "user".to_string(),
        id: None,
        props: Dict::new(),
        peer: NetPeer::Hub(0),
        loc: Loc::NONE,
    });
}

/// A drive without a medium at an index.
fn empty_drive(interface: DriveInterface, index: u32, media: Media) -> DriveSpec {
    DriveSpec {
        id: None,
        interface: Some(interface),
        bus: None,
        unit: None,
        index: Some(index),
        media,
        file: None,
        read_only: media == Media::Cdrom,
        snapshot: false,
        copy_on_read: false,
        rerror: OnError::Auto,
        werror: OnError::Auto,
        writeback: true,
        account_invalid: None,
        account_failed: None,
        throttle: ThrottleSpec::default(),
        options: Dict::new(),
        loc: Loc::NONE,
    }
}
