//! Default devices: what a machine gets when nobody said otherwise.

use super::block::{DriveInterface, DriveSpec, Media};
use super::chardev::{CharPort, ChardevBackend, ChardevSpec, MonitorMode, MonitorSpec};
use super::loc::Loc;
use super::net::{NetPeer, NetdevSpec, NicSpec};
use super::place;
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
#[derive(Clone, Copy, Debug)]
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
    /// Where the default CD-ROM goes, and `-drive` without `if=`: IDE on pc and q35, none on microvm.
    pub drive_interface: DriveInterface,
    /// Units on a bus of that interface when not the usual number: 1 on q35 and microvm; 0 = usual.
    pub units_per_default_bus: u32,
}

impl Default for MachineDefaults {
    /// Those of `pc`.
    fn default() -> Self {
        Self {
            no_serial: false,
            no_parallel: false,
            no_floppy: false,
            no_cdrom: false,
            no_sdcard: false,
            drive_interface: DriveInterface::Ide,
            units_per_default_bus: 0,
        }
    }
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
        // It is no more than a wish when all ports are directed elsewhere.
        if spec.display.nographic && (d.serial || d.parallel || d.monitor) {
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
        default_drive(spec, machine, machine.drive_interface, 2, Media::Cdrom);
    }
    if d.floppy {
        default_drive(spec, machine, DriveInterface::Floppy, 0, Media::Disk);
    }
    if d.sdcard {
        default_drive(spec, machine, DriveInterface::Sd, 0, Media::Disk);
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

/// Adds a drive without a medium at an index, unless there is one.
fn default_drive(
    spec: &mut VmSpec,
    machine: &MachineDefaults,
    interface: DriveInterface,
    index: u32,
    media: Media,
) {
    if place::taken(&spec.drives, machine, interface, index) {
        return;
    }
    spec.drives.push(DriveSpec {
        interface: Some(interface),
        index: Some(index),
        media,
        read_only: media == Media::Cdrom,
        ..DriveSpec::default()
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(spec: &VmSpec) -> Vec<&str> {
        spec.chardevs.iter().map(|c| c.id.as_str()).collect()
    }

    #[test]
    fn pc_with_nothing_said() {
        let mut spec = VmSpec::default();
        apply(&mut spec, &MachineDefaults::default()).unwrap();
        assert_eq!(labels(&spec), ["serial0", "parallel0", "compat_monitor0"]);
        assert_eq!(spec.drives.len(), 3);
        assert_eq!(spec.nics[0].peer, NetPeer::Hub(0));
        assert!(spec.defaults.vga);
    }

    #[test]
    fn a_daemon_has_no_terminal_to_share() {
        let mut spec = VmSpec::default();
        spec.display.nographic = true;
        spec.run.daemonize = true;
        let error = apply(&mut spec.clone(), &MachineDefaults::default()).unwrap_err();
        assert_eq!(error.desc, "-nographic cannot be used with -daemonize");
        spec.defaults = DefaultDevices::NONE;
        apply(&mut spec, &MachineDefaults::default()).unwrap();
    }

    #[test]
    fn nographic_shares_the_terminal() {
        let mut spec = VmSpec::default();
        spec.display.nographic = true;
        apply(&mut spec, &MachineDefaults::default()).unwrap();
        assert_eq!(labels(&spec), ["parallel0", "serial0-base", "serial0"]);
        assert_eq!(spec.monitors[0].chardev, "serial0");

        let mut spec = VmSpec::default();
        spec.display.nographic = true;
        let none = MachineDefaults { no_serial: true, no_parallel: true, ..MachineDefaults::default() };
        apply(&mut spec, &none).unwrap();
        assert_eq!(labels(&spec), ["compat_monitor0"]);
        assert_eq!(spec.chardevs[0].backend, ChardevBackend::Stdio { signal: None });
    }

    #[test]
    fn a_drive_in_the_place_of_the_default_cdrom_keeps_it_away() {
        let mut spec = VmSpec::default();
        spec.drives.push(DriveSpec { index: Some(2), ..DriveSpec::default() });
        apply(&mut spec, &MachineDefaults::default()).unwrap();
        assert_eq!(spec.drives.iter().filter(|d| d.interface == Some(DriveInterface::Ide)).count(), 0);
    }
}
