//! Kernels start directly on a machine where no firmware file is installed, and find there what they find otherwise.

use rqemu_compat::areas::Sides;
use rqemu_compat::bins::{have_kvm, Bin};
use rqemu_compat::guests::images;
use rqemu_compat::proc::{Cmd, Exit, Output};
use std::path::Path;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);
/// Where firmware is looked for.
const FOLDERS: [&str; 4] =
    ["/usr/share/qemu", "/usr/share/seabios", "/usr/lib/ipxe/qemu", "/usr/share/rqemu"];

/// Runs `args` of `bin`; `hidden`: in a mount namespace where the firmware folders are empty.
fn run(bin: &Path, args: &[String], hidden: bool) -> Output {
    let hide = FOLDERS.map(|d| format!("[ ! -d {d} ] || mount -t tmpfs none {d} || exit 77; ")).concat();
    let script = format!("{}exec \"$0\" \"$@\"", if hidden { &hide } else { "" });
    Cmd::new(&Bin { path: "unshare".into(), side: "ours" })
        .args(["-r", "-m", "sh", "-c", &script])
        .arg(bin)
        .args(args)
        .run(LIMIT)
        .unwrap()
}

/// Whether mount namespaces can be made here.
fn can_hide() -> bool {
    let ok = run(Path::new("/bin/true"), &[], true).exit == Exit::Code(0);
    if !ok {
        eprintln!("skipped: this user cannot make mount namespaces");
    }
    ok
}

/// What the probe says about the machine that a kernel finds.
fn probe(bin: &Path, machine: &str, kernel: &Path, hidden: bool) -> String {
    let accel = if have_kvm() { "kvm" } else { "tcg" };
    let text = format!("-accel {accel} -m 128 {machine} -display none -serial stdio -device isa-debug-exit,iobase=0xf4,iosize=4");
    let mut args: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    args.extend(["-kernel".into(), kernel.to_string_lossy().into_owned()]);
    args.extend(["-append".into(), "prog=probe what=msr,left,pci,acpi console=ttyS0".into()]);
    let out = run(bin, &args, hidden);
    assert!(out.stdout.ends_with("done\r\n"), "{args:?}: {:?} {} {}", out.exit, out.stderr, out.stdout);
    assert!(!out.stderr.contains("rom"), "{}", out.stderr);
    out.stdout
}

#[test]
fn direct_boots_need_no_firmware_files() {
    let bin = Sides::from_env().ours.path;
    if !bin.exists() || !can_hide() {
        return;
    }
    let images = images().unwrap();
    // The default devices have option ROMs, which are not there either.
    for (machine, kernel) in [
        ("-M pc", &images.pvh),
        ("-M pc -nodefaults", &images.bzimage),
        ("-M pc -nodefaults", &images.multiboot),
        ("-M microvm", &images.pvh),
        ("-M microvm -nodefaults", &images.bzimage),
    ] {
        let without = probe(&bin, machine, kernel, true);
        // Expansion ROM registers tell of the missing files; nothing else differs.
        let fixed = |t: &str| {
            let rom = |l: &&str| !(l.starts_with("pci ") && (l.contains(" 20:") || l.contains("sizes:")));
            t.lines().filter(rom).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(fixed(&without), fixed(&probe(&bin, machine, kernel, false)), "{machine} {kernel:?}");
        assert!(without.contains("acpi "), "{without}");
    }
}

#[test]
fn what_needs_firmware_says_so() {
    let bin = Sides::from_env().ours.path;
    if !bin.exists() || !can_hide() {
        return;
    }
    let kernel = images().unwrap().bzimage.to_string_lossy().into_owned();
    for (args, text) in [
        ("-M pc".to_owned(), "qemu: could not load PC BIOS 'bios-256k.bin'"),
        ("-M microvm".to_owned(), "qemu: could not load PC BIOS 'bios-microvm.bin'"),
        (format!("-M pc -bios bios.bin -kernel {kernel}"), "qemu: could not load PC BIOS 'bios.bin'"),
    ] {
        let list: Vec<String> = format!("-accel tcg -display none -vga none -net none {args}")
            .split(' ')
            .map(str::to_owned)
            .collect();
        let out = run(&bin, &list, true);
        assert_eq!((out.exit, out.stderr.contains(text)), (Exit::Code(1), true), "{args}: {}", out.stderr);
    }
}
