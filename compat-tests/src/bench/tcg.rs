//! The software CPU against QEMU's TCG: Debian's cloud kernel boots, then a static program (`guests/linux/bench.c`) runs
//! one loop after another on request. What counts is the CPU time of the emulator while a loop runs; both emulators stay
//! up, idle, between their turns.

use super::{case, Case};
use crate::bins::{crate_dir, out_dir, Bin};
use crate::proc::{Cmd, Exit, Proc};
use crate::Res;
use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

/// A kernel to use instead of Debian's newest (a path).
const KERNEL: &str = "RQEMU_BENCH_KERNEL";

const BOOT: Duration = Duration::from_secs(120);
const LOOP: Duration = Duration::from_secs(60);

const MACHINE: &str = "-machine pc -accel tcg -m 256 -nodefaults -display none -no-reboot -serial stdio";

/// (group, name, loop, count, ratio to be reached)
const LOOPS: &[(&str, &str, &str, u64, f64)] = &[
    (INTEGER, "ALU", "alu", 20_000_000, 0.4),
    (INTEGER, "loads and stores", "ldst", 12_000_000, 0.4),
    (INTEGER, "SHA-256", "sha256", 60_000, 0.4),
    (INTEGER, "qsort", "sort", 300, 0.4),
    (INTEGER, "recursive calls", "calls", 6_000, 0.4),
    (INTEGER, "calls through a table", "indirect", 10_000_000, 0.4),
    (INTEGER, "hash table", "hash", 10_000_000, 0.4),
    (INTEGER, "division", "divide", 20_000_000, 0.4),
    (FLOAT, "SSE matrix product", "matmul", 200, 1.5),
    (FLOAT, "SSE2 scalar", "scalar", 2_000_000, 1.5),
    (FLOAT, "x87", "x87", 1_500_000, 1.5),
    (SYSTEM, "rep movsb, 64 KiB", "repmovs", 400, 20.0),
    (SYSTEM, "system call", "syscall", 500_000, 0.7),
    (SYSTEM, "page fault", "fault", 150, 0.7),
    (SYSTEM, "pipe ping-pong", "pingpong", 4_000, 2.0),
    (SYSTEM, "fork, exit, wait", "fork", 400, 0.7),
    (SYSTEM, "port input", "portin", 3_000_000, 1.0),
    (SYSTEM, "port output", "portout", 3_000_000, 1.0),
    (SYSTEM, "patch an instruction and run it", "patch", 50_000, 1.0),
];

const INTEGER: &str = "software CPU: integer loops";
const FLOAT: &str = "software CPU: floating point loops";
const SYSTEM: &str = "software CPU: system";

/// All cases. `dir` is a folder for the initrd that lives as long as the cases.
pub fn cases(v: &mut Vec<Case>, dir: &Path) {
    let files = Rc::new(Files { dir: dir.to_owned(), args: OnceCell::new() });
    let f = files.clone();
    v.push(case(SYSTEM, "Debian cloud kernel, boot to poweroff", "CPU ms, user", 0.77, move |b| {
        let out = command(b, f.args()?, "rqc_off=1").run(BOOT)?;
        if out.exit != Exit::Code(0) {
            return Err(format!("{:?}: {}", out.exit, out.stderr.trim()));
        }
        Ok(out.usage.user_us as f64 / 1000.0)
    }));
    let guests: Rc<RefCell<HashMap<PathBuf, Proc>>> = Rc::default();
    for (group, name, what, count, goal) in LOOPS {
        let (guests, files) = (guests.clone(), files.clone());
        v.push(case(group, *name, "CPU ms", *goal, move |b| {
            let mut guests = guests.borrow_mut();
            if !guests.contains_key(&b.path) {
                guests.insert(b.path.clone(), start(b, files.args()?)?);
            }
            let p = guests.get_mut(&b.path).ok_or("no guest")?;
            let us = measure(p, what, *count);
            if us.is_err() {
                guests.remove(&b.path);
            }
            Ok(us? as f64 / 1000.0)
        }));
    }
}

/// What the guest boots from, made when a case wants it.
struct Files {
    dir: PathBuf,
    args: OnceCell<Res<String>>,
}

impl Files {
    fn args(&self) -> Res<&str> {
        let make = || Ok(format!("-kernel {} -initrd {}", kernel()?.display(), initrd(&self.dir)?.display()));
        self.args.get_or_init(make).as_deref().map_err(Clone::clone)
    }
}

fn command(bin: &Bin, files: &str, append: &str) -> Cmd {
    Cmd::new(bin)
        .words(MACHINE)
        .words(files)
        .arg("-append")
        .arg(format!("console=ttyS0 quiet panic=-1 {append}"))
}

fn start(bin: &Bin, files: &str) -> Res<Proc> {
    let p = command(bin, files, "").pipe_stdin().spawn()?;
    p.stdout.expect("ready", BOOT).map_err(|e| format!("{e}; stderr {:?}", p.stderr.text()))?;
    Ok(p)
}

/// CPU time of the emulator while the guest runs the loop, microseconds.
fn measure(p: &mut Proc, what: &str, count: u64) -> Res<u64> {
    let before = p.cpu_us_now()?;
    p.write(format!("{what} {count}\n").as_bytes())?;
    p.stdout.expect(&format!("done {what} "), LOOP)?;
    Ok(p.cpu_us_now()? - before)
}

/// Debian's newest cloud kernel, downloaded at the first call.
fn kernel() -> Res<PathBuf> {
    if let Some(p) = std::env::var_os(KERNEL) {
        return Ok(p.into());
    }
    let dir = out_dir().join("kernel");
    let file = dir.join("vmlinuz");
    if file.exists() {
        return Ok(file);
    }
    let temp = tempfile::Builder::new().prefix("kernel-").tempdir_in(out_dir()).map_err(|e| e.to_string())?;
    let script = "set -e; chmod 755 .; \
        p=$(apt-cache depends linux-image-cloud-amd64 | grep -o 'linux-image-[0-9][^ ]*' | head -n1); \
        apt-get -q download \"$p\" >&2; dpkg-deb -x linux-image-*.deb x; mv x/boot/vmlinuz-* vmlinuz; rm -r x *.deb";
    let out = Command::new("sh").args(["-c", script]).current_dir(temp.path()).output();
    let out = out.map_err(|e| e.to_string())?;
    if !out.status.success() {
        return Err(format!(
            "no kernel to boot ({KERNEL} may name one): {}",
            String::from_utf8_lossy(&out.stderr)
        ));
    }
    std::fs::create_dir_all(&dir).map_err(|e| e.to_string())?;
    std::fs::rename(temp.path().join("vmlinuz"), &file).map_err(|e| e.to_string())?;
    Ok(file)
}

/// An initrd whose init is the benchmark program.
fn initrd(dir: &Path) -> Res<PathBuf> {
    let program = dir.join("bench");
    let source = crate_dir().join("guests/linux/bench.c");
    let out = Command::new("gcc")
        .args(["-O2", "-static", "-Wall", "-Werror", "-o"])
        .args([&program, &source])
        .output()
        .map_err(|e| format!("gcc: {e}"))?;
    if !out.status.success() {
        return Err(format!("gcc: {}", String::from_utf8_lossy(&out.stderr)));
    }
    let init = std::fs::read(&program).map_err(|e| e.to_string())?;
    let mut image = Vec::new();
    entry(&mut image, "dev", 0o40755, &[]);
    entry(&mut image, "init", 0o100755, &init);
    entry(&mut image, "TRAILER!!!", 0, &[]);
    let file = dir.join("bench.cpio");
    std::fs::write(&file, image).map_err(|e| e.to_string())?;
    Ok(file)
}

/// Adds a file to a cpio archive of the "newc" form (`Documentation/driver-api/early-userspace/buffer-format.rst`).
fn entry(image: &mut Vec<u8>, name: &str, mode: u32, data: &[u8]) {
    let pad = |v: &mut Vec<u8>| v.resize(v.len().next_multiple_of(4), 0);
    let number = image.len() as u32 + 1;
    let fields = [number, mode, 0, 0, 1, 0, data.len() as u32, 0, 0, 0, 0, name.len() as u32 + 1, 0]
        .map(|f| format!("{f:08x}"));
    image.extend(b"070701");
    image.extend(fields.concat().bytes());
    image.extend(name.bytes());
    image.push(0);
    pad(image);
    image.extend(data);
    pad(image);
}
