//! The harness itself, driving real QEMU on both sides: equal where it must be, and able to see a difference.

use rqemu_compat::areas::{machines, Sides};
use rqemu_compat::bins::{require_qemu, Bin};
use rqemu_compat::proc::{Cmd, Exit};
use rqemu_compat::score::{Report, Verdict};
use rqemu_compat::vm::{Vm, VmOpts, SOON};
use std::time::Duration;

fn shell(script: &str) -> Cmd {
    Cmd::new(&Bin { path: "/bin/sh".into(), side: "ours" }).args(["-c", script])
}

#[test]
fn processes_are_bounded_and_measured() {
    let out = shell("echo out; echo err >&2; exit 3").run(SOON).unwrap();
    assert_eq!((out.exit, out.stdout.as_str(), out.stderr.as_str()), (Exit::Code(3), "out\n", "err\n"));
    let e = shell("echo busy >&2; exec sleep 100").run(Duration::from_millis(300)).unwrap_err();
    assert!(e.contains("still running"), "{e}");
    let out = shell("kill -9 $$").run(SOON).unwrap();
    assert_eq!(out.exit, Exit::Signal(9));
    let out = shell("i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done").run(SOON).unwrap();
    assert!(out.usage.cpu_us() > 1000, "{:?}", out.usage);
    assert!(Cmd::new(&Bin { path: "/nonexistent".into(), side: "ours" }).run(SOON).is_err());
}

#[test]
fn dropping_a_process_kills_it() {
    let p = shell("exec sleep 1000").spawn().unwrap();
    let path = format!("/proc/{}", p.pid());
    assert!(std::path::Path::new(&path).exists());
    drop(p);
    assert!(!std::path::Path::new(&path).exists());
}

#[test]
fn qmp_session_with_qemu() {
    require_qemu();
    let mut vm = Vm::start(&Bin::qemu(), "-machine none -nodefaults -display none").unwrap();
    assert_eq!(vm.query("query-status").unwrap()["status"], "running");
    assert!(vm.query("nope").unwrap_err().to_string().starts_with("CommandNotFound"));
    assert!(vm.qmp.hmp("info version").unwrap().starts_with("7.2."));
    assert_eq!(vm.qmp.bad_lines(), 0);
    assert!(vm.proc.pss_kib().unwrap() > 1000);
    vm.qmp.cmd("stop", serde_json::Value::Null).unwrap();
    vm.qmp.event("STOP", SOON).unwrap();
    assert_eq!(vm.quit().unwrap().0, Exit::Code(0));
}

#[test]
fn a_failing_start_is_told_with_its_message() {
    require_qemu();
    let e = Vm::start(&Bin::qemu(), "-machine none -device nope").err().unwrap();
    assert!(e.contains("Code(1)") && e.contains("'nope' is not a valid device model name"), "{e}");
}

#[test]
fn serial_line_is_connected() {
    require_qemu();
    let args = ["-machine", "none", "-nodefaults"].map(str::to_owned);
    let vm = VmOpts::default().serial().start(&Bin::qemu(), &args).unwrap();
    assert!(vm.serial.is_some());
}

/// With the reference on both sides all PCI functions are equal; with a binary that is not there all are missing.
#[test]
fn an_area_sees_equality_and_absence() {
    require_qemu();
    let same = Sides { ours: Bin::qemu(), qemu: Bin::qemu() };
    let report = Report::new("pci", machines::pci(&same));
    let (equal, different, missing) = report.counts();
    assert!(
        equal > 50 && different == 0 && missing == 0,
        "{:?}",
        report.rows.iter().filter(|r| !r.is_equal()).collect::<Vec<_>>()
    );
    let none = Sides { ours: Bin { path: "/bin/false".into(), side: "ours" }, qemu: Bin::qemu() };
    let report = Report::new("pci", machines::pci(&none));
    assert!(report.rows.iter().all(|r| matches!(r.verdict, Verdict::Missing(_))));
}
