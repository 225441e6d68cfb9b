//! Our own bare-metal guests (`guests/`), built with gcc, ld and objcopy into `out/guests/` when a source is newer.
//!
//! One program in several packages: an ELF with a PVH note, a multiboot image, a bzImage, a firmware image that
//! enters it from the reset vector; besides it boot sectors and a firmware image of two instructions. What the program
//! does is chosen by `prog=` in its arguments ([`rom_args`] or `-append`).

use crate::bins::{crate_dir, out_dir};
use crate::Res;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Paths of the built images.
#[derive(Clone, Debug)]
pub struct Images {
    /// ELF64 with a PVH entry note, for `-kernel`.
    pub pvh: PathBuf,
    /// Flat multiboot image with load addresses in its header, for `-kernel`.
    pub multiboot: PathBuf,
    /// Linux boot protocol 2.12, with 16-, 32- and 64-bit entry, for `-kernel`.
    pub bzimage: PathBuf,
    /// 64 KiB firmware, for `-bios`: needs no other firmware.
    pub rom: PathBuf,
    /// 64 KiB firmware whose first instructions write 0x10 to port 0xf4.
    pub tiny: PathBuf,
    /// 64 KiB firmware that tries the corners of 32-bit protected mode and prints what happens.
    pub sys32: PathBuf,
    /// 64 KiB firmware that halts at once.
    pub halt: PathBuf,
    /// Boot sector disks of 2 MiB: leave by isa-debug-exit, by soft-off, by keyboard controller reset.
    pub boot: [PathBuf; 3],
}

const CFLAGS: &[&str] = &[
    "-m64",
    "-ffreestanding",
    "-nostdlib",
    // Ring 0 of some KVMs is emulated without SSE.
    "-mgeneral-regs-only",
    "-mno-red-zone",
    "-fno-pic",
    "-fno-pie",
    "-mcmodel=small",
    "-fno-stack-protector",
    "-fcf-protection=none",
    "-O2",
    "-fno-asynchronous-unwind-tables",
    "-fno-tree-loop-distribute-patterns",
    "-Wall",
    "-Werror",
];

const C_FILES: &[&str] = &["lib", "probe", "smp", "timer", "exits", "blk", "assist"];

/// The images; built at the first call.
pub fn images() -> Res<&'static Images> {
    static BUILT: OnceLock<Res<Images>> = OnceLock::new();
    BUILT
        .get_or_init(|| build().map_err(|e| format!("building the guests: {e}")))
        .as_ref()
        .map_err(Clone::clone)
}

/// The bzImage, as a kernel that command lines can name.
pub fn bzimage_for_parsing() -> Res<Vec<u8>> {
    let p = &images()?.bzimage;
    std::fs::read(p).map_err(|e| format!("{}: {e}", p.display()))
}

/// Arguments for the firmware package of the program: commas are doubled for `-fw_cfg`.
pub fn rom_args(args: &str) -> [String; 2] {
    ["-fw_cfg".into(), format!("name=opt/rqc/args,string={}", args.replace(',', ",,"))]
}

fn sources() -> PathBuf {
    crate_dir().join("guests")
}

fn build() -> Res<Images> {
    let dir = out_dir().join("guests");
    let p = |n: &str| dir.join(n);
    let images = Images {
        pvh: p("guest.elf"),
        multiboot: p("guest.multiboot"),
        bzimage: p("guest.bzimage"),
        rom: p("guest.rom"),
        tiny: p("tiny.rom"),
        sys32: p("sys32.rom"),
        halt: p("halt.rom"),
        boot: [p("boot-exit.img"), p("boot-off.img"), p("boot-reset.img")],
    };
    if fresh(&dir.join("stamp")) {
        return Ok(images);
    }
    // Tests run as several processes: build aside, then swap the whole folder in.
    let parent = out_dir();
    let temp = tempfile::Builder::new().prefix("guests-").tempdir_in(&parent).map_err(|e| e.to_string())?;
    build_in(temp.path())?;
    std::fs::write(temp.path().join("stamp"), newest().to_string()).map_err(|e| e.to_string())?;
    std::fs::create_dir_all(&dir).map_err(|e| e.to_string())?;
    let mut names: Vec<_> = std::fs::read_dir(temp.path()).map_err(|e| e.to_string())?.flatten().collect();
    names.sort_by_key(|e| e.file_name() == "stamp");
    for e in names {
        std::fs::rename(e.path(), dir.join(e.file_name())).map_err(|e| e.to_string())?;
    }
    Ok(images)
}

/// Newest change of any source, in nanoseconds; this file's flags count too.
fn newest() -> u128 {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(sources()).into_iter().flatten().flatten().map(|e| e.path()).collect();
    files.push(crate_dir().join("src/guests.rs"));
    let time = |p: &PathBuf| {
        let t = std::fs::metadata(p).and_then(|m| m.modified()).ok()?;
        Some(t.duration_since(std::time::UNIX_EPOCH).ok()?.as_nanos())
    };
    files.iter().filter_map(time).max().unwrap_or(0)
}

fn fresh(stamp: &Path) -> bool {
    std::fs::read_to_string(stamp).is_ok_and(|s| s == newest().to_string())
}

fn build_in(dir: &Path) -> Res<()> {
    let src = sources();
    let s = |n: &str| src.join(n).to_string_lossy().into_owned();
    let d = |n: &str| dir.join(n).to_string_lossy().into_owned();
    let mut objects = vec![];
    for f in C_FILES {
        let o = d(&format!("{f}.o"));
        let mut a: Vec<String> = CFLAGS.iter().map(|s| s.to_string()).collect();
        a.extend(["-c".into(), s(&format!("{f}.c")), "-o".into(), o.clone()]);
        run("gcc", &a)?;
        objects.push(o);
    }
    // A file with a multiboot header is never taken for PVH: two links.
    for (flag, out) in [("-DPLAIN", "guest.elf"), ("-DMULTIBOOT", "multiboot.elf")] {
        run("gcc", &[flag.into(), "-c".into(), s("crt.S"), "-o".into(), d("crt.o")])?;
        let mut a: Vec<String> = ["-static", "-nostdlib", "--build-id=none", "--no-warn-rwx-segments", "-T"]
            .map(str::to_owned)
            .into();
        a.extend([s("link.ld"), "-o".into(), d(out), d("crt.o")]);
        a.extend(objects.iter().cloned());
        run("ld", &a)?;
    }
    run("objcopy", &["-O".into(), "binary".into(), d("guest.elf"), d("guest.bin")])?;
    run("objcopy", &["-O".into(), "binary".into(), d("multiboot.elf"), d("guest.multiboot")])?;
    let payload = format!("-DPAYLOAD=\"{}\"", d("guest.bin"));
    flat(dir, &s("rom.S"), "guest.rom", ".rom", &[&payload])?;
    flat(dir, &s("setup.S"), "guest.bzimage", ".setup", &[&payload])?;
    flat(dir, &s("tiny.S"), "tiny.rom", ".rom", &[])?;
    flat(dir, &s("tiny.S"), "halt.rom", ".rom", &["-DHALT"])?;
    sys32(dir, &s)?;
    for (end, name) in
        [("-DEND=1", "boot-exit.img"), ("-DEND=2", "boot-off.img"), ("-DEND=3", "boot-reset.img")]
    {
        flat(dir, &s("bootsect.S"), name, ".boot", &[end])?;
    }
    Ok(())
}

/// The 32-bit firmware.
fn sys32(dir: &Path, s: &dyn Fn(&str) -> String) -> Res<()> {
    let flags = "-m32 -ffreestanding -nostdlib -static -mgeneral-regs-only -fno-pic -fno-pie -O1 -fno-stack-protector \
        -fcf-protection=none -fno-asynchronous-unwind-tables -fno-tree-loop-distribute-patterns -fno-builtin -Wall -Werror \
        -Wl,--build-id=none,-z,noexecstack,--no-warn-rwx-segments";
    let elf = dir.join("sys32.elf").to_string_lossy().into_owned();
    let mut a: Vec<String> = flags.split_whitespace().map(str::to_owned).collect();
    a.extend([format!("-Wl,-T,{}", s("sys32.ld")), "-o".into(), elf.clone(), s("sys32.S"), s("sys32.c")]);
    run("gcc", &a)?;
    let image = dir.join("sys32.rom").to_string_lossy().into_owned();
    let keep = "-O binary -j .text -j .reset --gap-fill 0xff --pad-to 0x100000";
    let mut a: Vec<String> = keep.split_whitespace().map(str::to_owned).collect();
    a.extend([elf, image]);
    run("objcopy", &a)
}

/// Assembles one file and keeps one section of it as a flat image.
fn flat(dir: &Path, source: &str, out: &str, section: &str, flags: &[&str]) -> Res<()> {
    let o = dir.join("flat.o").to_string_lossy().into_owned();
    let mut a: Vec<String> = flags.iter().map(|f| f.to_string()).collect();
    a.extend(["-c".into(), source.into(), "-o".into(), o.clone()]);
    run("gcc", &a)?;
    // Linked at 0, so that references between labels are resolved.
    let linked = format!("{o}.elf");
    let list = ["-static", "-nostdlib", "--build-id=none", "-Ttext=0", "-e", "0", "-o", &linked, &o]
        .map(str::to_owned);
    run("ld", &list)?;
    let image = dir.join(out).to_string_lossy().into_owned();
    run("objcopy", &["-O".into(), "binary".into(), "-j".into(), section.into(), linked, image])
}

fn run(tool: &str, args: &[String]) -> Res<()> {
    let out =
        Command::new(tool).args(args).output().map_err(|e| format!("{tool}: {e}; run scripts/setup.sh"))?;
    if out.status.success() {
        return Ok(());
    }
    Err(format!("{tool} {}: {}", args.join(" "), String::from_utf8_lossy(&out.stderr)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_have_their_marks() {
        let i = images().unwrap();
        let read = |p: &PathBuf| std::fs::read(p).unwrap();
        let boot = read(&i.boot[0]);
        assert_eq!((boot.len(), boot[510], boot[511]), (2 << 20, 0x55, 0xaa));
        let bz = read(&i.bzimage);
        assert_eq!((&bz[0x202..0x206], bz[0x1f1], bz[0x200]), (b"HdrS".as_slice(), 3, 0xeb));
        let start = &bz[0x800..0x808];
        assert_eq!(start, &read(&i.rom)[..8], "both packages hold the same program");
        for rom in [&i.rom, &i.tiny, &i.halt, &i.sys32] {
            assert_eq!(read(rom).len(), 65536, "{rom:?}");
        }
        assert!(read(&i.pvh).starts_with(b"\x7fELF"));
        let mb = read(&i.multiboot);
        assert!(mb[..8192].chunks(4).any(|w| w == 0x1bad_b002u32.to_le_bytes()));
    }
}
