//! Measurements: pairs of runs, the binary under test and QEMU in turn, CPU time rather than wall time.
//!
//! A figure of CPU time or memory is the median over the repeats, one of wall time, of a single exit or of the greeting the smallest (the
//! median would measure what else the machine does). The ratio is QEMU's figure divided by ours: above 1 we are cheaper.

pub mod floor;
mod tcg;

use crate::bins::Bin;
use crate::guests::{images, rom_args};
use crate::proc::{Cmd, Exit};
use crate::vm::{connect, Vm, SOON};
use crate::Res;
use serde_json::Value;
use std::path::Path;
use std::time::{Duration, Instant};

/// One run of a binary -> a figure.
type Measure = Box<dyn Fn(&Bin) -> Res<f64>>;

/// One line of the table.
pub struct Case {
    pub group: &'static str,
    pub name: String,
    pub unit: &'static str,
    /// The ratio to be reached, when there is a goal.
    pub goal: Option<f64>,
    /// Measures one run.
    pub measure: Measure,
    /// Measured with a bare KVM program: what no emulator can avoid. Subtracted on both sides for the ratio.
    pub floor: Option<f64>,
}

/// A measured case.
pub struct Measured {
    pub group: &'static str,
    pub name: String,
    pub unit: &'static str,
    pub goal: Option<f64>,
    pub floor: Option<f64>,
    pub ours: Res<f64>,
    pub qemu: Res<f64>,
}

impl Measured {
    /// QEMU's figure over ours, after the floor is taken off.
    pub fn ratio(&self) -> Option<f64> {
        let (o, q) = (self.ours.as_ref().ok()?, self.qemu.as_ref().ok()?);
        let f = self.floor.unwrap_or(0.0);
        // Noise can put a figure below the floor.
        let o = if self.floor.is_some() { (o - f).max(q * 0.001) } else { *o };
        (o > 0.0).then(|| (q - f) / o)
    }
}

/// Runs a case `repeats` times on each side, in turn.
pub fn run(case: &Case, ours: &Bin, qemu: &Bin, repeats: usize) -> Measured {
    let (mut a, mut b) = (vec![], vec![]);
    let (mut a_err, mut b_err) = (None, None);
    for i in 0..repeats {
        // Alternate who goes first.
        let order = if i % 2 == 0 { [true, false] } else { [false, true] };
        for is_ours in order {
            let (bin, list, err) =
                if is_ours { (ours, &mut a, &mut a_err) } else { (qemu, &mut b, &mut b_err) };
            if err.is_some() {
                continue;
            }
            match (case.measure)(bin) {
                Ok(v) => list.push(v),
                Err(e) => *err = Some(e),
            }
        }
    }
    // After its greeting a program works on until the figure is read.
    let smallest = matches!(case.unit, "us" | "ns") || case.group == GREETING;
    let figure = |v: Vec<f64>| if smallest { v.into_iter().fold(f64::INFINITY, f64::min) } else { median(v) };
    let result = |v: Vec<f64>, e: Option<String>| e.map_or_else(|| Ok(figure(v)), Err);
    Measured {
        group: case.group,
        name: case.name.clone(),
        unit: case.unit,
        goal: case.goal,
        floor: case.floor,
        ours: result(a, a_err),
        qemu: result(b, b_err),
    }
}

/// Middle value; 0 of nothing.
pub fn median(mut v: Vec<f64>) -> f64 {
    v.sort_by(f64::total_cmp);
    let n = v.len();
    match n {
        0 => 0.0,
        _ if n % 2 == 1 => v[n / 2],
        _ => (v[n / 2 - 1] + v[n / 2]) / 2.0,
    }
}

const DEBUG_EXIT: &str = "-device isa-debug-exit,iobase=0xf4,iosize=4";

const GREETING: &str = "exec to QMP greeting";

/// All cases. `dir` is a folder for disk images that lives as long as the cases.
pub fn cases(dir: &Path) -> Res<Vec<Case>> {
    let mut v = vec![];
    starts(&mut v)?;
    help(&mut v);
    idle(&mut v)?;
    exits(&mut v)?;
    qmp(&mut v);
    blk(&mut v, dir)?;
    tcg::cases(&mut v, dir);
    Ok(v)
}

fn case(
    group: &'static str,
    name: impl Into<String>,
    unit: &'static str,
    goal: f64,
    measure: impl Fn(&Bin) -> Res<f64> + 'static,
) -> Case {
    let goal = (goal > 0.0).then_some(goal);
    Case { group, name: name.into(), unit, goal, measure: Box::new(measure), floor: None }
}

fn starts(v: &mut Vec<Case>) -> Res<()> {
    for (name, args) in [
        ("none", "-machine none -nodefaults -display none"),
        ("microvm", "-machine microvm,accel=kvm -m 128 -S -nodefaults -display none"),
        ("pc", "-machine pc,accel=kvm -m 128 -S -display none -serial null -monitor none"),
    ] {
        v.push(case(GREETING, name, "CPU ms", 8.0, move |b| answer(b, args, false)));
        v.push(case("exec to the first QMP answer, machine built", name, "CPU ms", 8.0, move |b| {
            answer(b, args, true)
        }));
    }
    let tiny = images()?.tiny.to_string_lossy().into_owned();
    for (name, args) in [
        ("microvm -nodefaults", "-machine microvm,accel=kvm -nodefaults"),
        ("pc -nodefaults", "-machine pc,accel=kvm -nodefaults"),
        ("pc, default devices", "-machine pc,accel=kvm -serial null -monitor none"),
    ] {
        let args = format!("{args} -m 128 -display none {DEBUG_EXIT} -bios {tiny}");
        v.push(case("exec to the guest's first instruction, to exit", name, "CPU ms", 6.0, move |b| {
            Ok(whole(b, &args, Exit::Code(33))? / 1000.0)
        }));
    }
    Ok(())
}

/// CPU time to the greeting, or to the first answer, which only a built machine gives.
fn answer(bin: &Bin, args: &str, negotiate: bool) -> Res<f64> {
    let mut p = Cmd::new(bin).words(args).args(["-qmp", "stdio"]).pipe_stdin().spawn()?;
    p.stdout.expect("\"QMP\"", SOON).map_err(|e| format!("{e}; stderr {:?}", p.stderr.text()))?;
    p.stdout.expect("\n", SOON)?;
    if negotiate {
        p.write(b"{\"execute\":\"qmp_capabilities\"}\n")?;
        p.stdout.expect("\"return\"", SOON)?;
    }
    // Exact only once it has ended; what it does until the signal reaches it counts, too.
    Ok(p.kill().1.cpu_us() as f64 / 1000.0)
}

/// CPU time of a whole run, microseconds.
fn whole(bin: &Bin, args: &str, want: Exit) -> Res<f64> {
    let out = Cmd::new(bin).words(args).run(Duration::from_secs(60))?;
    if out.exit != want {
        return Err(format!("{:?}: {}", out.exit, out.stderr.trim()));
    }
    Ok(out.usage.cpu_us() as f64)
}

fn help(v: &mut Vec<Case>) {
    for args in
        ["--version", "-help", "-machine help", "-device help", "-cpu help", "-device virtio-blk-pci,help"]
    {
        v.push(case("help texts", args, "CPU ms", 8.0, move |b| Ok(whole(b, args, Exit::Code(0))? / 1000.0)));
    }
}

fn idle(v: &mut Vec<Case>) -> Res<()> {
    let halt = images()?.halt.to_string_lossy().into_owned();
    for (name, args) in [
        ("microvm", "-machine microvm,accel=kvm -nodefaults"),
        ("pc", "-machine pc,accel=kvm -serial null -monitor none"),
    ] {
        let args = format!("{args} -m 128 -display none -bios {halt}");
        let a = args.clone();
        v.push(case("idle guest (HLT), 128 MiB", format!("{name}: PSS after 1 s"), "KiB", 6.0, move |b| {
            let p = Cmd::new(b).words(&a).spawn()?;
            std::thread::sleep(Duration::from_secs(1));
            p.pss_alone_kib().map(|k| k as f64).map_err(|e| format!("{e}; stderr {:?}", p.stderr.text()))
        }));
        v.push(case(
            "idle guest (HLT), 128 MiB",
            format!("{name}: CPU per second"),
            "CPU ms",
            0.0,
            move |b| {
                let p = Cmd::new(b).words(&args).spawn()?;
                std::thread::sleep(Duration::from_secs(1));
                let before = p.cpu_us_now()?;
                std::thread::sleep(Duration::from_secs(1));
                Ok((p.cpu_us_now()? - before) as f64 / 1000.0)
            },
        ));
    }
    Ok(())
}

fn exits(v: &mut Vec<Case>) -> Res<()> {
    let rom = images()?.rom.to_string_lossy().into_owned();
    let tsc_per_us = tsc_per_us();
    for (op, name) in [
        ("out", "port out (UART scratch)"),
        ("in", "port in (UART scratch)"),
        ("mmior", "MMIO read (HPET)"),
        ("mmiow", "MMIO write (HPET)"),
    ] {
        let rom = rom.clone();
        let mut c = case("exit round trip, ring 0, own part", name, "ns", 3.0, move |b| {
            let args = format!("-machine pc,accel=kvm -nodefaults -m 128 -display none {DEBUG_EXIT} -serial stdio -bios {rom}");
            let ticks =
                guest_best(b, &args, &format!("prog=exits op={op} count={}", floor::EXITS), "exits ")?;
            Ok(ticks * 1000.0 / tsc_per_us)
        });
        c.floor = Some(floor::exit_ticks(op)? * 1000.0 / tsc_per_us);
        v.push(c);
    }
    Ok(())
}

fn qmp(v: &mut Vec<Case>) {
    const N: usize = 3000;
    let session = |b: &Bin| Vm::start(b, "-machine none -nodefaults -display none");
    v.push(case("QMP (query-status)", "round trip, wall", "us", 2.0, move |b| {
        let mut vm = session(b)?;
        let t = Instant::now();
        for _ in 0..N {
            vm.query("query-status").map_err(|e| e.to_string())?;
        }
        Ok(t.elapsed().as_secs_f64() * 1e6 / N as f64)
    }));
    v.push(case("QMP (query-status)", "per command", "CPU us", 2.0, move |b| {
        let mut vm = session(b)?;
        let before = vm.proc.cpu_us_now()?;
        for _ in 0..N {
            vm.query("query-status").map_err(|e| e.to_string())?;
        }
        Ok((vm.proc.cpu_us_now()? - before) as f64 / N as f64)
    }));
    v.push(case("QMP (query-status)", "50 commands in one write, per command, wall", "us", 2.0, move |b| {
        let mut vm = session(b)?;
        let batch = vec!["{\"execute\":\"query-status\"}"; 50].join("\n");
        let t = Instant::now();
        for _ in 0..N / 50 {
            vm.qmp.send(&batch).map_err(|e| e.to_string())?;
            for _ in 0..50 {
                vm.qmp.answer().map_err(|e| e.to_string())?;
            }
        }
        Ok(t.elapsed().as_secs_f64() * 1e6 / N as f64)
    }));
    v.push(case("QMP (query-status)", "connect to quit, whole process", "CPU ms", 0.0, |b| {
        let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
        let sock = dir.path().join("q");
        let arg = format!("unix:{},server=on,wait=off", sock.display());
        let mut p = Cmd::new(b).words("-machine none -nodefaults -display none -qmp").arg(arg).spawn()?;
        let mut q = connect(&sock, &mut p)?;
        q.cmd("quit", Value::Null).map_err(|e| e.to_string())?;
        let (_, usage) = p.wait(SOON).ok_or("still running after quit")?;
        Ok(usage.cpu_us() as f64 / 1000.0)
    }));
}

/// Image size and the part of it that is used, MiB: all in the page cache.
const SPAN: u64 = 64;

fn blk(v: &mut Vec<Case>, dir: &Path) -> Res<()> {
    let raw = dir.join("disk.raw");
    let qcow2 = dir.join("disk.qcow2");
    // Data that does not compress to zero clusters.
    let data: Vec<u8> = (0..SPAN << 20).map(|i| (i.wrapping_mul(2654435761) >> 13) as u8 | 1).collect();
    std::fs::write(&raw, data).map_err(|e| e.to_string())?;
    let out = std::process::Command::new("qemu-img")
        .args(["convert", "-f", "raw", "-O", "qcow2"])
        .args([&raw, &qcow2])
        .output()
        .map_err(|e| format!("qemu-img: {e}"))?;
    if !out.status.success() {
        return Err(String::from_utf8_lossy(&out.stderr).into_owned());
    }
    let tsc_per_us = tsc_per_us();
    for (format, file) in [("raw", &raw), ("qcow2", &qcow2)] {
        for (op, bs, depth, count) in [
            ("read", 4096, 1, 2000),
            ("read", 4096, 32, 10000),
            ("read", 65536, 1, 2000),
            ("read", 65536, 32, 5000),
            ("write", 4096, 1, 2000),
            ("write", 4096, 32, 10000),
            ("write", 65536, 32, 5000),
        ] {
            let args = blk_args("pc", &format!("-drive file={},format={format},if=virtio", file.display()))?;
            let guest = format!("prog=blk op={op} bs={bs} depth={depth} span={SPAN} count={count}");
            let goal = if depth == 1 { 1.2 } else { 1.0 };
            v.push(case(
                "virtio-blk-pci, one request, driver polls in ring 3",
                format!("{format} {op} {}k depth {depth}", bs / 1024),
                "us",
                goal,
                move |b| Ok(guest_best(b, &args, &guest, "blk ")? / tsc_per_us),
            ));
        }
    }
    let drive =
        format!("-drive file={},format=raw,if=none,id=d -device virtio-blk-device,drive=d", raw.display());
    for (depth, count, goal) in [(1, 2000, 1.2), (32, 10000, 1.0)] {
        let args = blk_args("microvm", &drive)?;
        let guest = format!("prog=blk dev=mmio op=read bs=4096 depth={depth} span={SPAN} count={count}");
        v.push(case(
            "virtio-blk-device (mmio), one request",
            format!("raw read 4k depth {depth}"),
            "us",
            goal,
            move |b| Ok(guest_best(b, &args, &guest, "blk ")? / tsc_per_us),
        ));
    }
    Ok(())
}

fn blk_args(machine: &str, drive: &str) -> Res<String> {
    let rom = images()?.rom.to_string_lossy();
    Ok(format!("-machine {machine},accel=kvm -nodefaults -m 128 -display none -serial stdio {DEBUG_EXIT} -bios {rom} {drive}"))
}

/// Runs the guest; time stamp counter ticks per operation in its best stretch, from the line that starts with `head`.
fn guest_best(bin: &Bin, args: &str, guest: &str, head: &str) -> Res<f64> {
    let out = Cmd::new(bin).words(args).args(rom_args(guest)).run(Duration::from_secs(60))?;
    best_of(&out.stdout, head).ok_or_else(|| format!("{:?} {:?} {}", out.exit, out.stdout, out.stderr))
}

/// Ticks per operation from what the guest printed; `None` also if an operation failed.
fn best_of(text: &str, head: &str) -> Option<f64> {
    // What programming the port left before it does not matter.
    let line = &text[text.find(head)?..];
    let line = line.lines().next()?;
    let get = |key: &str| -> Option<f64> {
        let word = line.split(' ').find_map(|w| w.strip_prefix(key)?.strip_prefix('='));
        word?.trim().parse().ok()
    };
    (get("errors").unwrap_or(0.0) == 0.0).then_some(get("best1024")? / 1024.0)
}

/// Time stamp counter ticks in a microsecond, measured.
fn tsc_per_us() -> f64 {
    // SAFETY: RDTSC has no memory effect and exists on every x86-64.
    let now = || unsafe { core::arch::x86_64::_rdtsc() };
    let (t, c) = (Instant::now(), now());
    std::thread::sleep(Duration::from_millis(50));
    (now() - c) as f64 / (t.elapsed().as_secs_f64() * 1e6)
}

/// Where the time goes, as far as no figure of the tables says it.
const EXPLANATION: &str = include_str!("bench/explanation.md");

/// The table as Markdown.
pub fn render(rows: &[Measured]) -> String {
    let mut s = String::from(
        "# Performance against QEMU 7.2\n\n\
         Written by `make bench`: pairs of runs on one machine, the two binaries in turn; medians of CPU time (user + system of\n\
         the process) and memory, minima of wall time (us) and of the cost of an exit. PSS counts pages that other programs map too (the\n\
         C library) by their share, those of the program itself in full, whoever else runs it. The ratio is QEMU's figure over ours (above 1: we are cheaper), after the floor, which a bare KVM program takes for\n\
         the same guest code, is taken off both.\n",
    );
    let mut group = "";
    let mut groups: Vec<&str> = Vec::new();
    rows.iter().for_each(|r| {
        if !groups.contains(&r.group) {
            groups.push(r.group);
        }
    });
    for r in groups.iter().flat_map(|g| rows.iter().filter(move |r| r.group == *g)) {
        if r.group != group {
            group = r.group;
            s.push_str(&format!("\n## {group}\n\n| what | unit | rqemu | QEMU | floor | ratio | goal |\n|---|---|---:|---:|---:|---:|---:|\n"));
        }
        let num = |v: &Res<f64>| v.as_ref().map_or("–".to_owned(), |v| figure(*v));
        let opt = |v: Option<f64>, f: fn(f64) -> String| v.map_or("–".to_owned(), f);
        s.push_str(&format!(
            "| {} | {} | {} | {} | {} | {} | {} |\n",
            r.name,
            r.unit,
            num(&r.ours),
            num(&r.qemu),
            opt(r.floor, figure),
            opt(r.ratio(), |v| format!("{v:.2}")),
            opt(r.goal, |v| format!("{v}")),
        ));
    }
    s.push('\n');
    s.push_str(EXPLANATION);
    s
}

/// Three significant digits or whole numbers.
fn figure(v: f64) -> String {
    match v.abs() {
        a if a >= 100.0 => format!("{v:.0}"),
        a if a >= 10.0 => format!("{v:.1}"),
        _ => format!("{v:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_ratios() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0]), 2.5);
        let m = |o: Res<f64>, f| Measured {
            group: "g",
            name: "n".into(),
            unit: "u",
            goal: Some(3.0),
            floor: f,
            ours: o,
            qemu: Ok(10.0),
        };
        assert_eq!(m(Ok(5.0), None).ratio(), Some(2.0));
        assert_eq!(m(Ok(6.0), Some(4.0)).ratio(), Some(3.0));
        assert_eq!(m(Err("x".into()), None).ratio(), None);
        let s = render(&[m(Ok(5.0), None), m(Err("x".into()), Some(4.0))]);
        assert!(
            s.contains("| n | u | 5.00 | 10.0 | – | 2.00 | 3 |")
                && s.contains("| n | u | – | 10.0 | 4.00 | – | 3 |"),
            "{s}"
        );
    }
}
