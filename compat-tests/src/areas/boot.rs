//! Firmware and boot loader: SeaBIOS's debug and serial text, GRUB's prompt on the serial line, the screen.

use super::Sides;
use crate::bins::Bin;
use crate::compare::first_line;
use crate::ppm::{self, Picture};
use crate::score::Row;
use crate::stream::Stream;
use crate::vm::{Terminal, Vm, VmOpts};
use crate::Res;
use serde_json::json;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Firmware runs at a few million instructions a second on the slowest KVM that is used.
const BOOT: Duration = Duration::from_secs(240);
const GRUB: Duration = Duration::from_secs(300);

/// GRUB's rescue images (Debian package grub-rescue-pc).
pub const GRUB_ISO: &str = "/usr/lib/grub-rescue/grub-rescue-cdrom.iso";
const GRUB_FLOPPY: &str = "/usr/lib/grub-rescue/grub-rescue-floppy.img";

/// Restricts the area to rows whose name contains this: a boot takes long.
const ONLY: &str = "RQEMU_BOOT_ROWS";

/// All rows.
pub fn run(sides: &Sides) -> Vec<Row> {
    let only = std::env::var(ONLY).unwrap_or_default();
    let wanted = |name: &str| name.contains(&only);
    let lines = |a: &String, b: &String| first_line(a, b);
    let mut rows = vec![];
    let mut text = |name: String, f: &dyn Fn(&Bin) -> Res<String>| {
        if wanted(&name) {
            let (a, b) = sides.both(f);
            rows.push(Row::of(name, a, b, lines));
        }
    };
    for (name, args) in FIRMWARE {
        text(format!("SeaBIOS debug text, {name}"), &|bin| firmware(bin, args));
    }
    text("SeaBIOS on the serial line".into(), &serial_console);
    text("keys in SeaBIOS's buffer".into(), &keys_in_firmware);
    for args in LOADERS {
        text(format!("GRUB starts, {args}"), &|bin| loader(bin, args));
    }
    for args in GRUBS {
        text(format!("GRUB, {args}"), &|bin| grub(bin, args));
    }
    let mut picture = |name: &str, f: &dyn Fn(&Bin) -> Res<(String, Picture)>| {
        if wanted(name) {
            let (a, b) = sides.both(f);
            rows.push(Row::of(name, a, b, same_screen));
        }
    };
    picture("screen without a boot disk", &|bin| screen(bin).map(|p| (String::new(), p)));
    picture("GRUB by keys, on the screen", &grub_by_keys);
    rows
}

/// Compares text, then pictures.
fn same_screen(a: &(String, Picture), b: &(String, Picture)) -> Option<String> {
    first_line(&a.0, &b.0).or_else(|| match a.1.differing(&b.1) {
        // The cursor blinks: one character cell may differ.
        Ok(n) if n <= 9 * 16 => None,
        Ok(n) => Some(format!("{n} pixels of {}x{}", b.1.width, b.1.height)),
        Err(e) => Some(e),
    })
}

const FIRMWARE: &[(&str, &str)] = &[
    ("pc", "-machine pc,accel=kvm -m 128"),
    ("pc -nodefaults", "-machine pc,accel=kvm -m 128 -nodefaults"),
    (
        "pc smp, 512 MiB, virtio",
        "-machine pc,accel=kvm -m 512 -smp 2 -nodefaults -device virtio-rng-pci -device virtio-serial-pci",
    ),
];

/// Starts with the firmware's debug text (port 0x402) on a stream.
fn with_debug_text(bin: &Bin, args: &str) -> Res<(Vm, Stream)> {
    let dir = tempfile::Builder::new().prefix("rqc").tempdir().map_err(|e| e.to_string())?;
    let path = dir.path().join("d");
    let listener = UnixListener::bind(&path).map_err(|e| e.to_string())?;
    let rest = "-display none -global isa-debugcon.iobase=0x402 -debugcon";
    let mut list: Vec<String> = args.split_whitespace().chain(rest.split(' ')).map(str::to_owned).collect();
    list.push(format!("unix:{}", path.display()));
    let vm = VmOpts::default().start(bin, &list)?;
    listener.set_nonblocking(true).map_err(|e| e.to_string())?;
    let (sock, _) = listener.accept().map_err(|e| format!("debugcon was not connected: {e}"))?;
    sock.set_nonblocking(false).map_err(|e| e.to_string())?;
    Ok((vm, Stream::reading(sock)))
}

/// The debug text up to the end of the search for a boot device.
fn firmware(bin: &Bin, args: &str) -> Res<String> {
    let (_vm, text) = with_debug_text(bin, &format!("{args} -serial null -net none"))?;
    Ok(stable(&text.expect("No bootable device.", BOOT)?))
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
    let (mut vm, text) = with_debug_text(bin, "-machine pc,accel=kvm -m 128 -net none -serial null")?;
    text.expect("No bootable device.", BOOT)?;
    dump(&mut vm)
}

/// `screendump` as a picture.
pub fn dump(vm: &mut Vm) -> Res<Picture> {
    let file = vm.dir().join("screen.ppm");
    vm.qmp.cmd("screendump", json!({ "filename": file })).map_err(|e| format!("screendump: {e}"))?;
    ppm::parse(&std::fs::read(&file).map_err(|e| format!("{}: {e}", file.display()))?)
}

/// Keys typed while the firmware waits are in the BIOS keyboard buffer (0x41a: head, tail, sixteen words).
fn keys_in_firmware(bin: &Bin) -> Res<String> {
    let (mut vm, text) = with_debug_text(bin, "-machine pc,accel=kvm -m 64 -nodefaults -vga std")?;
    text.expect("No bootable device.", BOOT)?;
    type_keys(&mut vm, "a b shift-c ctrl-d alt-e ret f1 f12 up delete kp_5 0x1e shift-less")?;
    // Thirteen words behind the first (0x1e).
    until(BOOT, || {
        let text = vm.qmp.hmp("xp /24xh 0x41a").map_err(|e| format!("xp: {e}"))?;
        let all = text.split_whitespace().nth(2) == Some("0x0038");
        Ok(if all { Ok(text) } else { Err(text) })
    })
}

/// Asks again until there is an answer; at the end of time the last thing seen is the error.
fn until(timeout: Duration, mut ask: impl FnMut() -> Res<Result<String, String>>) -> Res<String> {
    let end = Instant::now() + timeout;
    loop {
        match ask()? {
            Ok(text) => return Ok(text),
            Err(seen) if Instant::now() > end => return Err(format!("time out; last seen {seen:?}")),
            // Asking stops the guest's only CPU for a moment; it needs time in between.
            Err(_) => std::thread::sleep(Duration::from_millis(200)),
        }
    }
}

/// Command lines as users type them: `{iso}`, `{qcow2}`, `{raw}` and `{floppy}` are images of GRUB.
const LOADERS: &[&str] = &[
    "-hda {raw}",
    "{raw}",
    "-drive file={raw},format=raw,if=virtio",
    "-fda {floppy} -boot a",
    "-cdrom {iso} -boot d",
];

/// The same, for boots up to the prompt.
const GRUBS: &[&str] = &["-cdrom {iso} -boot d", "-drive file={qcow2}", "-drive file={qcow2},if=virtio"];

/// Everything on the terminal up to GRUB's welcome, with `-nographic`.
fn loader(bin: &Bin, args: &str) -> Res<String> {
    with_images(args, |args| {
        let vm = nographic(bin, args)?;
        let text = vm.proc.output().expect_shown("Welcome to GRUB!", BOOT)?;
        Ok(text.replace('\r', ""))
    })
}

fn nographic(bin: &Bin, args: &str) -> Res<Vm> {
    // Without the network boot ROM, which takes as long as the rest of the firmware.
    let text = format!("-enable-kvm -m 256 -nographic -net none -no-reboot {args}");
    let list: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    VmOpts::default().start(bin, &list)
}

/// Puts file names into a command line, and checks afterwards that a qcow2 image is sound.
fn with_images<T>(args: &str, f: impl FnOnce(&str) -> Res<T>) -> Res<T> {
    let dir = tempfile::Builder::new().prefix("rqc").tempdir().map_err(|e| e.to_string())?;
    let [qcow2, raw, floppy] = ["grub.qcow2", "grub.img", "floppy.img"].map(|n| dir.path().join(n));
    let copy = |from: &str, to: &Path| {
        std::fs::copy(from, to).map_err(|e| format!("{from}: {e}; run scripts/setup.sh"))
    };
    if args.contains("{qcow2}") {
        grub_qcow2(&qcow2)?;
    }
    if args.contains("{raw}") {
        copy(GRUB_ISO, &raw)?;
    }
    if args.contains("{floppy}") {
        copy(GRUB_FLOPPY, &floppy)?;
    }
    let names = [("{iso}", Path::new(GRUB_ISO)), ("{qcow2}", &qcow2), ("{raw}", &raw), ("{floppy}", &floppy)];
    let text = names.iter().fold(args.to_owned(), |t, (k, p)| t.replace(k, &p.to_string_lossy()));
    let result = f(&text)?;
    if args.contains("{qcow2}") {
        let out =
            Command::new("qemu-img").args(["check", "-q"]).arg(&qcow2).output().map_err(|e| e.to_string())?;
        if !out.status.success() {
            return Err(format!("qemu-img check: {}", String::from_utf8_lossy(&out.stderr)));
        }
    }
    Ok(result)
}

/// Boots GRUB with its console on the terminal and looks around on the disk; returns what the commands printed.
fn grub(bin: &Bin, args: &str) -> Res<String> {
    with_images(args, |args| {
        let mut vm = nographic(bin, args)?;
        grub_prompt(&mut vm.proc, &mut |_| {})?;
        // Not `ls` alone, which probes the floppy drive for minutes.
        let mut answers = String::new();
        for command in ["echo $root", "ls /", "cat /boot/grub/grub.cfg"] {
            // Where the firmware moves the cursor, also inside a word, depends on the time it has.
            let answer = grub_command(&mut vm.proc, command, &mut |_| {})?;
            answers.extend(answer.split_whitespace());
            answers.push('\n');
        }
        vm.quit()?;
        Ok(answers)
    })
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

/// Waits for GRUB's menu and goes to its command line. `show` sees all text.
pub fn grub_prompt(tty: &mut impl Terminal, show: &mut dyn FnMut(&str)) -> Res<()> {
    // The menu counts down; a key stops it.
    show(&tty.output().expect_shown("executed automatically", GRUB)?);
    tty.send("c")?;
    show(&tty.output().expect_shown("grub>", BOOT)?);
    Ok(())
}

/// Types a command at GRUB's prompt; returns the words that it printed, a line each.
pub fn grub_command(tty: &mut impl Terminal, command: &str, show: &mut dyn FnMut(&str)) -> Res<String> {
    // The BIOS keyboard buffer holds fifteen keys and drops more: type on when the echo shows that it was read.
    let keys: Vec<char> = command.chars().collect();
    for piece in keys.chunks(8) {
        let piece: String = piece.iter().collect();
        tty.send(&piece)?;
        show(&tty.output().expect_shown(&piece, BOOT)?);
    }
    tty.send("\r")?;
    show(&tty.output().expect_shown("\n", BOOT)?);
    let answer = tty.output().expect_shown("grub>", BOOT)?;
    show(&answer);
    let words: Vec<&str> = answer.trim_end_matches("grub>").split_whitespace().collect();
    Ok(words.join("\n"))
}

/// Boots GRUB with its console on the screen, types by `sendkey` and `send-key`; returns the screen as text (from the
/// video memory) and as a picture.
fn grub_by_keys(bin: &Bin) -> Res<(String, Picture)> {
    let args = format!("-machine pc,accel=kvm -m 128 -nodefaults -vga std -display none -cdrom {GRUB_ISO}");
    let mut vm = Vm::start(bin, &args)?;
    wait_screen(&mut vm, "Change the colors", GRUB)?;
    vm.qmp
        .cmd("send-key", json!({ "keys": [{ "type": "qcode", "data": "c" }] }))
        .map_err(|e| format!("send-key: {e}"))?;
    wait_screen(&mut vm, "grub>", BOOT)?;
    // No more keys at once than the BIOS keyboard buffer holds.
    type_keys(&mut vm, "l s ret")?;
    wait_screen(&mut vm, "(cd,msdos1)", BOOT)?;
    // Shifted ones; no command, which would read disks for long.
    type_keys(&mut vm, "shift-9 x shift-0 shift-minus")?;
    let text = wait_screen(&mut vm, "grub> (x)_", BOOT)?;
    Ok((text, dump(&mut vm)?))
}

/// HMP's `sendkey` for each word.
fn type_keys(vm: &mut Vm, keys: &str) -> Res<()> {
    for key in keys.split(' ') {
        let said = vm.qmp.hmp(&format!("sendkey {key} 20")).map_err(|e| format!("sendkey: {e}"))?;
        if !said.is_empty() {
            return Err(format!("sendkey {key}: {said}"));
        }
    }
    Ok(())
}

/// Waits for text on the screen.
fn wait_screen(vm: &mut Vm, pattern: &str, timeout: Duration) -> Res<String> {
    until(timeout, || {
        let now = screen_text(vm)?;
        Ok(if now.contains(pattern) { Ok(now) } else { Err(now) })
    })
    .map_err(|e| format!("{pattern:?}: {e}"))
}

/// The characters in video memory in text mode; others than ASCII as question marks.
fn screen_text(vm: &mut Vm) -> Res<String> {
    let file = vm.dir().join("text");
    vm.qmp
        .cmd("pmemsave", json!({ "val": 0xb8000, "size": 80 * 25 * 2, "filename": file }))
        .map_err(|e| format!("pmemsave: {e}"))?;
    let cells = std::fs::read(&file).map_err(|e| format!("{}: {e}", file.display()))?;
    let char = |c: &[u8]| if (0x20..0x7f).contains(&c[0]) { char::from(c[0]) } else { '?' };
    let line = |l: &[u8]| l.chunks_exact(2).map(char).collect::<String>().trim_end().to_owned();
    Ok(cells.chunks_exact(160).map(line).collect::<Vec<_>>().join("\n"))
}
