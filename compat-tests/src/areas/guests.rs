//! Our bare-metal guests under `-enable-kvm` on both sides: boot protocols, processors, clocks, disks, and everything
//! that a guest can see of its machine (CPUID, MSRs, PCI configuration space, fw_cfg, ACPI tables).

use super::Sides;
use crate::bins::Bin;
use crate::compare::first_line;
use crate::guests::{images, rom_args, Images};
use crate::proc::{Cmd, Exit};
use crate::score::{keyed, Row};
use crate::Res;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// A run that takes longer hangs (firmware costs 2 s of CPU, more on a busy machine).
const LIMIT: Duration = Duration::from_secs(40);

/// What a guest run shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    pub exit: Exit,
    pub serial: String,
}

/// Runs `bin` with KVM, the serial line on standard output and isa-debug-exit at 0xf4.
pub fn run_guest(bin: &Bin, args: &[String], dir: &Path) -> Res<Ran> {
    let base = "-enable-kvm -m 128 -display none -serial stdio -device isa-debug-exit,iobase=0xf4,iosize=4";
    let out = Cmd::new(bin).words(base).args(args).dir(dir).run(LIMIT)?;
    if out.exit == Exit::Code(1) {
        return Err(out.stderr.trim().to_owned());
    }
    Ok(Ran { exit: out.exit, serial: out.stdout.replace('\r', "") })
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn temp() -> Res<tempfile::TempDir> {
    tempfile::Builder::new().prefix("rqc").tempdir().map_err(|e| e.to_string())
}

/// First difference of two runs; which entry of a boot protocol is used is not compared.
fn difference(a: &Ran, b: &Ran) -> Option<String> {
    if a.exit != b.exit {
        return Some(format!("{:?} | qemu {:?}", a.exit, b.exit));
    }
    let text =
        |r: &Ran| r.serial.lines().filter(|l| !l.starts_with("entry: ")).collect::<Vec<_>>().join("\n");
    first_line(&text(a), &text(b))
}

/// (row, package of the guest, arguments of the emulator, arguments of the guest)
const PROGRAMS: &[(&str, Package, &str, &str)] = &[
    ("pvh pc", Package::Pvh, "-nodefaults -initrd initrd", "where=0 a=b"),
    ("pvh microvm", Package::Pvh, "-M microvm -nodefaults -initrd initrd", "where=0"),
    ("multiboot pc", Package::Multiboot, "-nodefaults -initrd initrd", "where=0 x"),
    ("bzImage pc", Package::BzImage, "-nodefaults -initrd initrd", "where=0 console=ttyS0"),
    ("bzImage pc, no initrd, 4 GiB", Package::BzImage, "-nodefaults -m 4G", "where=0"),
    ("bzImage microvm", Package::BzImage, "-M microvm -nodefaults -initrd initrd", "where=0"),
    ("soft-off pc", Package::Pvh, "-nodefaults", "where=0 off=1"),
    ("rom", Package::Rom, "-nodefaults", "where=0"),
    ("smp 4", Package::Rom, "-nodefaults -smp 4", "prog=smp cpus=4"),
    ("smp 2 microvm", Package::Rom, "-M microvm -nodefaults -smp 2", "prog=smp cpus=2"),
    ("smp 4 split irqchip", Package::Rom, "-nodefaults -machine kernel-irqchip=split -smp 4", "prog=smp cpus=4"),
    ("timers", Package::Rom, "-nodefaults", "prog=timer"),
    ("timers, user-space irqchip", Package::Rom, "-nodefaults -machine kernel-irqchip=off", "prog=timer"),
    ("timers, split irqchip", Package::Rom, "-nodefaults -machine kernel-irqchip=split", "prog=timer"),
    ("blk pci write", Package::Rom, "-nodefaults -drive file=d.img,format=raw,if=virtio", "prog=blk op=write verify=1 depth=8 count=3000"),
    ("blk legacy write", Package::Rom, "-nodefaults -drive file=d.img,format=raw,if=virtio", "prog=blk dev=legacy op=write verify=1 depth=8 count=3000"),
    ("blk pci flush", Package::Rom, "-nodefaults -drive file=d.img,format=raw,if=virtio", "prog=blk op=flush depth=4 count=100"),
    ("blk pci qcow2 write", Package::Rom, "-nodefaults -drive file=d.qcow2,format=qcow2,if=virtio", "prog=blk op=write verify=1 depth=8 count=3000"),
    ("blk pci qcow2 read", Package::Rom, "-nodefaults -drive file=d.qcow2,format=qcow2,if=virtio", "prog=blk op=read depth=8 count=3000"),
    ("blk mmio write", Package::Rom, "-M microvm -nodefaults -drive file=d.img,format=raw,if=none,id=d -device virtio-blk-device,drive=d", "prog=blk dev=mmio op=write verify=1 depth=8 count=3000"),
    ("blk mmio modern read", Package::Rom, "-M microvm -nodefaults -global virtio-mmio.force-legacy=false -drive file=d.img,format=raw,if=none,id=d -device virtio-blk-device,drive=d", "prog=blk dev=mmio op=read depth=8 count=3000"),
    ("exits", Package::Rom, "-nodefaults", "prog=exits op=out count=500"),
    ("exits mmio ring 3", Package::Rom, "-nodefaults", "prog=exits op=mmior ring=3 count=200"),
];

#[derive(Clone, Copy)]
enum Package {
    Pvh,
    Multiboot,
    BzImage,
    Rom,
}

fn command(images: &Images, package: Package, args: &str, guest: &str) -> Vec<String> {
    let mut v = words(args);
    let kernel = match package {
        Package::Rom => {
            v.extend(["-bios".into(), images.rom.to_string_lossy().into_owned()]);
            v.extend(rom_args(guest));
            return v;
        }
        Package::Pvh => &images.pvh,
        Package::Multiboot => &images.multiboot,
        Package::BzImage => &images.bzimage,
    };
    v.extend(["-kernel".into(), kernel.to_string_lossy().into_owned(), "-append".into(), guest.into()]);
    v
}

/// Rows of the `guests` area.
pub fn run(sides: &Sides) -> Vec<Row> {
    let images = match images() {
        Ok(i) => i,
        Err(e) => return vec![Row::of("guests", Ok(()), Err(e), |_, _| None)],
    };
    let mut rows = vec![];
    for (name, package, args, guest) in PROGRAMS {
        let (a, b) = sides.both(|bin| program(bin, &command(images, *package, args, guest)));
        rows.push(Row::of(*name, a, b, difference));
    }
    for (i, how) in ["debug exit", "soft-off", "reset"].iter().enumerate() {
        for (place, args) in BOOT_DISKS {
            let image = images.boot[i].to_string_lossy();
            let args = words(&args.replace("{image}", &image));
            let (a, b) = sides.both(|bin| program(bin, &args));
            rows.push(Row::of(format!("boot sector, {place}, {how}"), a, b, difference));
        }
    }
    rows
}

const BOOT_DISKS: &[(&str, &str)] = &[
    ("ide", "-no-reboot -nodefaults -snapshot -hda {image}"),
    ("virtio-blk", "-no-reboot -nodefaults -snapshot -drive file={image},format=raw,if=virtio"),
];

/// One run in a folder with an initrd and disks; what varies from run to run is cut out. After a run that wrote to the
/// qcow2 image, `qemu-img check` must find nothing.
fn program(bin: &Bin, args: &[String]) -> Res<Ran> {
    let dir = temp()?;
    std::fs::write(dir.path().join("initrd"), b"initrd for the test guest\n").map_err(|e| e.to_string())?;
    super::rewrite::make_image(&dir.path().join("d.img"), "raw", 64 << 20)?;
    let qcow2 = args.iter().any(|a| a.contains("d.qcow2"));
    if qcow2 {
        super::rewrite::make_image(&dir.path().join("d.qcow2"), "qcow2", 64 << 20)?;
    }
    let mut ran = run_guest(bin, args, dir.path())?;
    if qcow2 {
        let out = std::process::Command::new("qemu-img")
            .args(["check", "-q"])
            .arg(dir.path().join("d.qcow2"))
            .output();
        let out = out.map_err(|e| format!("qemu-img: {e}"))?;
        if !out.status.success() {
            return Err(format!("qemu-img check: {}", String::from_utf8_lossy(&out.stderr)));
        }
    }
    let word = |w: &&str| !["tsc=", "best1024=", "kicks="].iter().any(|t| w.starts_with(t));
    let keep = |l: &str| l.split(' ').filter(word).collect::<Vec<_>>().join(" ");
    ran.serial = ran.serial.lines().map(keep).collect::<Vec<_>>().join("\n");
    Ok(ran)
}

/// What the probe is asked, on which configuration: (name, emulator arguments, sections, with firmware)
const PROBES: &[(&str, &str, &str, bool)] = &[
    ("cpu qemu64", "-nodefaults", "cpuid,msr", false),
    ("cpu host", "-nodefaults -cpu host", "cpuid,msr", false),
    ("cpu max", "-nodefaults -cpu max", "cpuid", false),
    ("cpu kvm64", "-nodefaults -cpu kvm64", "cpuid", false),
    ("cpu Nehalem", "-nodefaults -cpu Nehalem", "cpuid", false),
    ("cpu Skylake-Client", "-nodefaults -cpu Skylake-Client", "cpuid", false),
    ("cpu EPYC", "-nodefaults -cpu EPYC", "cpuid", false),
    ("cpu flags", "-nodefaults -cpu qemu64,+ssse3,-cx16,vendor=AuthenticAMD,model=3,kvm=off", "cpuid", false),
    ("cpu topology", "-nodefaults -cpu host -smp 4,sockets=2,cores=1,threads=2", "cpuid", false),
    ("pc", "", "pci,fw_cfg", false),
    ("pc -nodefaults", "-nodefaults", "pci,fw_cfg", false),
    ("pc options", "-nodefaults -smp 4,maxcpus=8 -m 512,slots=2,maxmem=1G -uuid 11223344-5566-7788-99aa-bbccddeeff00 -boot menu=on,splash-time=5 -smbios type=1,manufacturer=m,product=p -fw_cfg name=opt/x,string=y", "fw_cfg", false),
    ("pc 4 GiB", "-nodefaults -m 4G", "fw_cfg", false),
    ("pc virtio", "-nodefaults -device virtio-net-pci -device virtio-rng-pci -device virtio-serial-pci -device virtio-balloon-pci", "pci", false),
    ("q35 -nodefaults", "-M q35 -nodefaults", "pci,fw_cfg", false),
    ("microvm", "-M microvm -nodefaults", "fw_cfg", false),
    ("acpi pc", "", "acpi", true),
    ("acpi pc smp", "-nodefaults -smp 4", "acpi", true),
    ("acpi microvm", "-M microvm -nodefaults", "acpi", true),
    ("left pc", "", "msr,left,pci", true),
    ("left pc -nodefaults", "-nodefaults", "msr,left,pci", true),
    ("left microvm", "-M microvm -nodefaults", "msr,left", true),
    ("acpi microvm acpi=off", "-M microvm,acpi=off -nodefaults", "acpi", true),
];

/// Rows of the `hardware` area: one a line that the probe prints.
pub fn hardware(sides: &Sides) -> Vec<Row> {
    let images = match images() {
        Ok(i) => i,
        Err(e) => return vec![Row::of("guests", Ok(()), Err(e), |_, _| None)],
    };
    let mut rows = vec![];
    for (name, args, what, firmware) in PROBES {
        let guest = format!("prog=probe what={what}");
        let package = if *firmware { Package::Pvh } else { Package::Rom };
        let command = command(images, package, args, &guest);
        let get = |bin: &Bin| temp().and_then(|d| run_guest(bin, &command, d.path())).and_then(|r| facts(&r));
        let (ours, qemu) = sides.both(get);
        let prefix = format!("{name}: ");
        match (ours, qemu) {
            (_, Err(e)) => rows.push(Row::of(prefix, Ok(()), Err(e), |_, _| None)),
            (Err(e), Ok(q)) => rows.extend(
                q.keys()
                    .map(|k| Row::of(format!("{prefix}{k}"), Err::<(), _>(e.clone()), Ok(()), |_, _| None)),
            ),
            (Ok(o), Ok(q)) => {
                rows.extend(keyed(&prefix, &o, &q, |_, a, b| (a != b).then(|| format!("{a} | qemu {b}"))))
            }
        }
    }
    rows
}

/// The probe's lines by what they are about.
fn facts(ran: &Ran) -> Res<BTreeMap<String, String>> {
    if !ran.serial.ends_with("done\n") {
        return Err(format!(
            "the probe broke off: {:?} {:?}",
            ran.exit,
            crate::stream::tail(&ran.serial, 200)
        ));
    }
    let mut out = BTreeMap::new();
    for line in ran.serial.lines() {
        let mut w = line.split(' ');
        let key = match line.split_once(": ") {
            Some((k, _)) => k.to_owned(),
            None => [w.next(), w.next()].into_iter().flatten().collect::<Vec<_>>().join(" "),
        };
        let mut k = key.clone();
        let mut n = 1;
        while out.contains_key(&k) {
            n += 1;
            k = format!("{key}#{n}");
        }
        out.insert(k, line.to_owned());
    }
    Ok(out)
}
