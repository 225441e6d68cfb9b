//! From a specification to a running VM, and to the end of the process.

use std::io::Write;
use std::process::ExitCode;

use rqemu_machine::builder::{build, Built, Messages};
use rqemu_machine::event_loop::ExitStatus;
use rqemu_machine::process::{self, Daemon, PidFile};
use rqemu_machine::shared::MachineLock;
use rqemu_machine::spec::{Loc, MonitorMode, MonitorSpec, VmSpec};
use rqemu_machine::{qerr, Machine, QError, QResult};
use rqemu_qmp::monitors::Monitors;

use crate::report::{Printer, Report};

/// Builds the VM, runs it until it ends, and says with which status.
pub fn run(mut spec: VmSpec, printer: &Printer) -> ExitCode {
    match start(&mut spec, printer) {
        Ok(status) => ExitCode::from(status.0 as u8),
        Err(e) => {
            // The accelerator's errors were printed as they came.
            if !e.desc.is_empty() {
                printer.print(&Report::error(Loc::NONE, e));
            }
            ExitCode::FAILURE
        }
    }
}

/// Messages of the builder on the process's own streams, and the machine protocol monitors.
struct Console<'a> {
    printer: &'a Printer,
    monitors: &'a mut Monitors,
    wanted: Vec<MonitorSpec>,
}

impl Messages for Console<'_> {
    fn warning(&mut self, text: &str) {
        self.printer.print(&Report::warning(Loc::NONE, text));
    }

    fn warning_at(&mut self, loc: &Loc, text: &str) {
        self.printer.print(&Report::warning(loc.clone(), text));
    }

    fn info(&mut self, text: &str) {
        self.printer.print(&Report::error(Loc::NONE, QError::generic(text)));
    }

    fn out(&mut self, text: &str) {
        // A reader that went away is no reason to stop.
        let _ = writeln!(std::io::stdout(), "{text}");
    }

    fn plain(&mut self, text: &str) {
        let _ = writeln!(std::io::stderr(), "{text}");
    }

    fn backends_ready(&mut self, m: &mut Machine) -> QResult<()> {
        let wanted = std::mem::take(&mut self.wanted);
        connect_monitors(m, self.monitors, &wanted, MonitorMode::Control)?;
        self.monitors.greet(m);
        Ok(())
    }
}

fn start(spec: &mut VmSpec, printer: &Printer) -> QResult<ExitStatus> {
    refuse_unsupported(spec)?;
    process::one_heap();
    let daemon = spec.run.daemonize.then(Daemon::start).transpose()?;
    if let Some(name) = &spec.name.process {
        process::set_name(name);
    }
    let pidfile = spec.run.pidfile.as_deref().map(PidFile::create).transpose()?;
    if let Some(sandbox) = &spec.run.sandbox {
        rqemu_machine::sandbox::enter(sandbox)?;
    }
    if spec.run.mem_lock {
        process::lock_memory()?;
    }
    let mut monitors = Monitors::new(Box::new(crate::introspect::CommandLine));
    let mut console = Console { printer, monitors: &mut monitors, wanted: spec.monitors.clone() };
    let Built { shared, mut event_loop } = build(spec, &mut console)?;
    if let Err(e) = refuse_late(spec) {
        shared.lock().shut_down();
        return Err(e);
    }
    {
        let mut m = shared.lock();
        connect_monitors(&mut m, &mut monitors, &spec.monitors, MonitorMode::Readline)?;
        connect_gdb(&mut m, spec)?;
        connect_qtest(&mut m, spec)?;
        if let Some(dir) = &spec.run.chroot {
            process::chroot(dir)?;
        }
        if let Some(user) = &spec.run.runas {
            process::run_as(&user.text).map_err(|e| user.loc.locate(e))?;
        }
        m.ready = true;
        if !spec.run.start_stopped {
            m.vm_start();
        }
    }
    if let Some(d) = daemon {
        d.ready()?;
    }
    process::forget_start();
    let status = event_loop
        .run(&shared, &mut monitors)
        .map_err(|e| qerr!("main loop failed: {}", rqemu_machine::error::strerror(&e)))?;
    let mut m = shared.lock();
    finish(&mut m, printer, pidfile, status)
}

/// Connects the monitors of one kind to their character devices.
fn connect_monitors(
    m: &mut Machine,
    monitors: &mut Monitors,
    list: &[MonitorSpec],
    mode: MonitorMode,
) -> QResult<()> {
    for mon in list.iter().filter(|mon| mon.mode == mode) {
        let chr = m
            .chardevs
            .find(&mon.chardev)
            .ok_or_else(|| mon.loc.locate(qerr!("chardev \"{}\" not found", mon.chardev)))?;
        let made = match mon.mode {
            MonitorMode::Control => monitors.add_qmp(m, chr, mon.pretty),
            MonitorMode::Readline => monitors.add_hmp(m, chr),
        };
        made.map_err(|e| mon.loc.locate(e))?;
    }
    Ok(())
}

fn connect_gdb(m: &mut Machine, spec: &VmSpec) -> QResult<()> {
    if let Some(port) = &spec.run.gdb {
        if let Some(chr) = port.chardev.as_deref().and_then(|c| m.chardevs.find(c)) {
            m.start_gdb(chr).map_err(|e| port.loc.locate(e))?;
        }
    }
    Ok(())
}

fn connect_qtest(m: &mut Machine, spec: &VmSpec) -> QResult<()> {
    if let Some(port) = &spec.run.qtest {
        if let Some(chr) = port.chardev.as_deref().and_then(|c| m.chardevs.find(c)) {
            m.start_qtest(chr, spec.run.qtest_log.as_deref()).map_err(|e| port.loc.locate(e))?;
        }
    }
    Ok(())
}

/// Puts everything away that outlives the process: terminals, sockets, image locks, the pid file.
fn finish(
    m: &mut MachineLock<'_>,
    printer: &Printer,
    pidfile: Option<PidFile>,
    status: ExitStatus,
) -> QResult<ExitStatus> {
    m.pause_vcpus();
    if let Some((signal, pid)) = m.run.killed_by {
        let text = match pid {
            0 => format!("terminating on signal {signal}"),
            pid => format!("terminating on signal {signal} from pid {pid} ({})", process::command_of(pid)),
        };
        printer.print(&Report::error(Loc::NONE, QError::generic(text)));
    }
    m.gdb_exit(status.0);
    m.shut_down();
    drop(pidfile);
    Ok(status)
}

/// What the parser takes but nothing stands behind yet is refused by name; here before anything is made.
fn refuse_unsupported(spec: &VmSpec) -> QResult<()> {
    let run = &spec.run;
    let audio = |a: &rqemu_machine::spec::OptsSpec| a.props.get_str("driver") != Some("none");
    first_refused(&[
        (run.preconfig, "--preconfig: not supported yet"),
        (run.win2k_hack, "-win2k-hack: not supported"),
        (run.only_migratable, "-only-migratable: migration is not supported yet"),
        (run.seed.is_some(), "-seed: not supported yet"),
        (run.async_teardown, "-async-teardown: not supported yet"),
        (!spec.iscsi.is_empty(), "-iscsi: iSCSI is not supported"),
        (spec.audiodevs.iter().any(audio), "-audiodev: only the driver 'none' is available"),
        (spec.firmware.dtb.is_some(), "-dtb: device trees are not supported"),
        (spec.display.full_screen, "-full-screen: there is no display"),
    ])?;
    match spec.display.kind.as_deref() {
        None | Some("none") => Ok(()),
        Some(kind) => Err(qerr!("Display '{kind}' is not available.")),
    }
}

/// The same for what QEMU looks at when the machine is there, so that its earlier errors come first here too.
fn refuse_late(spec: &VmSpec) -> QResult<()> {
    let run = &spec.run;
    first_refused(&[
        (!spec.fsdevs.is_empty(), "-fsdev: file systems are not supported yet"),
        (spec.display.spice.is_some(), "-spice: SPICE is not supported"),
        (!spec.tpmdevs.is_empty(), "-tpmdev: TPM is not supported yet"),
        (!spec.display.vnc.is_empty(), "-vnc: VNC is not supported yet"),
        (run.loadvm.is_some(), "-loadvm: snapshots of the machine are not supported yet"),
        (run.dump_vmstate.is_some(), "-dump-vmstate: not supported yet"),
    ])?;
    let Some(uri) = &run.incoming else { return Ok(()) };
    let known = ["tcp:", "unix:", "vsock:", "fd:", "exec:", "rdma:"];
    if uri.text != "defer" && !known.iter().any(|k| uri.text.starts_with(k)) {
        return Err(uri.loc.locate(qerr!("unknown migration protocol: {}", uri.text)));
    }
    Err(qerr!("-incoming: migration is not supported yet"))
}

fn first_refused(checks: &[(bool, &'static str)]) -> QResult<()> {
    match checks.iter().find(|(bad, _)| *bad) {
        Some((_, text)) => Err(QError::generic(*text)),
        None => Ok(()),
    }
}
