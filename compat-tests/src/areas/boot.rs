//! Firmware and boot loader: SeaBIOS's debug and serial text, GRUB's prompt on the serial line, the screen.

use super::Sides;
use crate::bins::Bin;
use crate::compare::first_line;
use crate::ppm::{self, Picture};
use crate::score::Row;
use crate::vm::{Vm, VmOpts};
use crate::Res;
use serde_json::json;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Firmware runs at a few million instructions a second on the slowest KVM that is used.
const BOOT: Duration = Duration::from_secs(120);
const GRUB: Duration = Duration::from_secs(240);

/// GRUB's rescue images (Debian package grub-rescue-pc).
pub const GRUB_ISO: &str = "/usr/lib/grub-rescue/grub-rescue-cdrom.iso";

/// All rows.
pub fn run(sides: &Sides) -> Vec<Row> {
    let lines = |a: &String, b: &String| first_line(a, b);
    let mut rows = vec![];
    for (name, args) in FIRMWARE {
        let (a, b) = sides.both(|bin| firmware(bin, args));
        rows.push(Row::of(format!("SeaBIOS debug text, {name}"), a, b, lines));
    }
    let (a, b) = sides.both(serial_console);
    rows.push(Row::of("SeaBIOS on the serial line", a, b, lines));
    let (a, b) = sides.both(screen);
    rows.push(Row::of("screen without a boot disk", a, b, |a, b| match a.differing(b) {
        // The cursor blinks: one character cell may differ.
        Ok(n) if n <= 9 * 16 => None,
        Ok(n) => Some(format!("{n} pixels of {}x{}", b.width, b.height)),
        Err(e) => Some(e),
    }));
    for (name, args) in GRUBS {
        let (a, b) = sides.both(|bin| grub(bin, args));
        rows.push(Row::of(format!("GRUB, {name}"), a, b, lines));
    }
    rows
}

const FIRMWARE: &[(&str, &str)] = &[
    ("pc", "-machine pc,accel=kvm -m 128"),
    ("pc -nodefaults", "-machine pc,accel=kvm -m 128 -nodefaults"),
    (
        "pc smp, 512 MiB, virtio",
        "-machine pc,accel=kvm -m 512 -smp 2 -nodefaults -device virtio-rng-pci -device virtio-serial-pci",
    ),
];

/// The text on port 0x402 up to the end of the search for a boot device.
fn firmware(bin: &Bin, args: &str) -> Res<String> {
    let dir = tempfile::Builder::new().prefix("rqc").tempdir().map_err(|e| e.to_string())?;
    let listener = std::os::unix::net::UnixListener::bind(dir.path().join("d")).map_err(|e| e.to_string())?;
    let mut list: Vec<String> = args.split_whitespace().map(str::to_owned).collect();
    list.extend(
        [
            "-display",
            "none",
            "-serial",
            "null",
            "-net",
            "none",
            "-global",
            "isa-debugcon.iobase=0x402",
            "-debugcon",
        ]
        .map(str::to_owned),
    );
    list.push(format!("unix:{}", dir.path().join("d").display()));
    let vm = VmOpts::default().start(bin, &list)?;
    listener.set_nonblocking(true).map_err(|e| e.to_string())?;
    let (sock, _) = listener.accept().map_err(|e| format!("debugcon was not connected: {e}"))?;
    sock.set_nonblocking(false).map_err(|e| e.to_string())?;
    let text = crate::stream::Stream::reading(sock);
    let seen = text.expect("No bootable device.", BOOT)?;
    drop(vm);
    Ok(stable(&seen))
}

/// Without what differs between two boots: the measured clock rate, and how an empty floppy drive fails (a busy machine makes
/// the firmware time out).
fn stable(text: &str) -> String {
    let fixed = |l: &str| {
        if l.contains("MHz") || l.contains("Mhz") {
            l.split_inclusive(|c: char| !c.is_ascii_digit())
                .map(|p| p.trim_start_matches(|c: char| c.is_ascii_digit()))
                .collect()
        } else {
            l.to_owned()
        }
    };
    text.replace('\r', "")
        .lines()
        .filter(|l| !l.contains("floppy"))
        .map(fixed)
        .collect::<Vec<String>>()
        .join("\n")
}

fn serial_console(bin: &Bin) -> Res<String> {
    let args = "-machine pc,accel=kvm,graphics=off -m 128 -vga none -display none -net none -monitor none";
    let list: Vec<String> = args.split_whitespace().map(str::to_owned).collect();
    let mut vm = VmOpts::default().serial().start(bin, &list)?;
    let text = vm.serial()?.expect("No bootable device.", BOOT)?;
    Ok(text.replace('\r', ""))
}

/// Waits by the debug text, then dumps the screen.
fn screen(bin: &Bin) -> Res<Picture> {
    let dir = tempfile::Builder::new().prefix("rqc").tempdir().map_err(|e| e.to_string())?;
    let listener = std::os::unix::net::UnixListener::bind(dir.path().join("d")).map_err(|e| e.to_string())?;
    let args = "-machine pc,accel=kvm -m 128 -display none -net none -serial null -global isa-debugcon.iobase=0x402 -debugcon";
    let mut list: Vec<String> = args.split_whitespace().map(str::to_owned).collect();
    list.push(format!("unix:{}", dir.path().join("d").display()));
    let mut vm = VmOpts::default().start(bin, &list)?;
    listener.set_nonblocking(true).map_err(|e| e.to_string())?;
    let (sock, _) = listener.accept().map_err(|e| format!("debugcon was not connected: {e}"))?;
    sock.set_nonblocking(false).map_err(|e| e.to_string())?;
    crate::stream::Stream::reading(sock).expect("No bootable device.", BOOT)?;
    dump(&mut vm)
}

/// `screendump` as a picture.
pub fn dump(vm: &mut Vm) -> Res<Picture> {
    let file = vm.dir().join("screen.ppm");
    vm.qmp.cmd("screendump", json!({ "filename": file })).map_err(|e| format!("screendump: {e}"))?;
    ppm::parse(&std::fs::read(&file).map_err(|e| format!("{}: {e}", file.display()))?)
}

const GRUBS: &[(&str, &str)] =
    &[("ISO on IDE", "-cdrom {iso}"), ("qcow2 on virtio-blk", "-drive file={qcow2},format=qcow2,if=virtio")];

/// Boots GRUB with its console on the serial line, lets it list its disks; returns what the command printed.
fn grub(bin: &Bin, args: &str) -> Res<String> {
    let dir = tempfile::Builder::new().prefix("rqc").tempdir().map_err(|e| e.to_string())?;
    let qcow2 = dir.path().join("grub.qcow2");
    if args.contains("{qcow2}") {
        grub_qcow2(&qcow2)?;
    }
    // Without the default floppy drive, which GRUB would probe for long.
    let base = "-machine pc,accel=kvm,graphics=off -m 128 -nodefaults -display none -no-reboot";
    let text =
        format!("{base} {args}").replace("{iso}", GRUB_ISO).replace("{qcow2}", &qcow2.to_string_lossy());
    let list: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    let mut vm = VmOpts::default().serial().start(bin, &list)?;
    let answer = grub_session(&mut vm, |_| {})?;
    vm.quit()?;
    if args.contains("{qcow2}") {
        let out =
            Command::new("qemu-img").args(["check", "-q"]).arg(&qcow2).output().map_err(|e| e.to_string())?;
        if !out.status.success() {
            return Err(format!("qemu-img check: {}", String::from_utf8_lossy(&out.stderr)));
        }
    }
    Ok(answer)
}

/// GRUB's rescue disk as a qcow2 image.
pub fn grub_qcow2(to: &Path) -> Res<()> {
    let out = Command::new("qemu-img")
        .args(["convert", "-f", "raw", "-O", "qcow2", GRUB_ISO])
        .arg(to)
        .output()
        .map_err(|e| format!("qemu-img: {e}"))?;
    if out.status.success() {
        Ok(())
    } else {
        Err(format!("qemu-img convert: {}; run scripts/setup.sh", String::from_utf8_lossy(&out.stderr)))
    }
}

/// Waits for GRUB's menu on the serial line, goes to its command line, types `ls`, and returns the devices it lists. `show`
/// sees all text.
pub fn grub_session(vm: &mut Vm, mut show: impl FnMut(&str)) -> Res<String> {
    let line = vm.serial()?;
    // The menu counts down; a key stops it.
    show(&line.expect("executed automatically", GRUB)?);
    line.send("c")?;
    show(&line.expect("grub>", BOOT)?);
    line.send("ls\r")?;
    let echo = line.expect("ls", BOOT)?;
    let answer = line.expect("grub>", BOOT)?;
    show(&echo);
    show(&answer);
    // Devices only: cursor movements around them depend on timing.
    let mut names: Vec<&str> = answer.split(['(', ')']).skip(1).step_by(2).collect();
    names.sort_unstable();
    names.dedup();
    Ok(names.join("\n"))
}
