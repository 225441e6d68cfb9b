//! Boots Debian's kernel from a qcow2 disk with GRUB, shows its console, talks QMP, powers the machine off.
//!
//! `RQEMU` picks the binary. KVM is tried first where it can be opened; a guest that it cannot run, or not in reasonable
//! time, is started again on the software CPU.

use rqemu_compat::bins::{crate_dir, have_kvm, out_dir, Bin};
use rqemu_compat::proc::Exit;
use rqemu_compat::vm::{Vm, VmOpts, SOON};
use rqemu_compat::Res;
use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// To GRUB's first words, and from there to the shell.
const LOADER: Duration = Duration::from_secs(8);
const KERNEL: Duration = Duration::from_secs(12);
/// The software CPU has nothing to fall back to.
const PATIENCE: u32 = 8;
const PROMPT: &str = "demo# ";

fn main() -> ExitCode {
    match demo() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("\ndemo: {e}");
            ExitCode::FAILURE
        }
    }
}

fn say(text: &str) {
    println!("\n\x1b[1m== {text}\x1b[0m");
}

/// The disk; made once.
fn disk() -> Res<PathBuf> {
    let dir = out_dir().join("demo");
    let script = crate_dir().join("../scripts/demo-disk.sh");
    let status =
        Command::new(&script).arg(&dir).status().map_err(|e| format!("{}: {e}", script.display()))?;
    if !status.success() {
        return Err("no disk to boot from".into());
    }
    Ok(dir.join("disk.qcow2"))
}

fn demo() -> Res<()> {
    let disk = disk()?;
    let start = Instant::now();
    let engines: &[(&str, u32)] =
        if have_kvm() { &[("kvm", 1), ("tcg", PATIENCE)] } else { &[("tcg", PATIENCE)] };
    let mut failed = String::new();
    for (engine, patience) in engines {
        match boot(&disk, engine, *patience) {
            Ok(vm) => return show(vm, engine, start),
            Err(e) => {
                failed = format!("{engine}: {e}");
                say(&format!("the guest did not come up on {failed}"));
            }
        }
    }
    Err(failed)
}

/// Starts the guest and shows its console up to the shell.
fn boot(disk: &Path, engine: &str, patience: u32) -> Res<Vm> {
    let bin = Bin::ours();
    let text = format!("-machine pc,graphics=off -accel {engine} -m 256 -nodefaults -display none -snapshot");
    let drive = format!("file={},format=qcow2,if=virtio", disk.display());
    let args: Vec<String> = text.split(' ').map(str::to_owned).chain(["-drive".into(), drive]).collect();
    say(&format!("{} {} -serial unix:… -qmp unix:…", bin.path.display(), args.join(" ")));
    let mut vm = VmOpts::default().serial().start(&bin, &args)?;
    for (mark, time) in [("GRUB: loading", LOADER * patience), (PROMPT, KERNEL * patience)] {
        let text = vm.serial()?.input.expect_shown(mark, time)?;
        print!("{}", printable(&text));
        let _ = std::io::stdout().flush();
    }
    Ok(vm)
}

/// Types a command into the guest's shell and shows what it says.
fn command(vm: &mut Vm, line: &str) -> Res<()> {
    let tty = vm.serial()?;
    tty.send(&format!("{line}\r"))?;
    print!("{}", printable(&tty.input.expect_shown(PROMPT, SOON)?));
    let _ = std::io::stdout().flush();
    Ok(())
}

fn show(mut vm: Vm, engine: &str, start: Instant) -> Res<()> {
    command(&mut vm, "uname -a")?;
    command(&mut vm, "ls -l /mnt/boot; dmesg | tail -n 3")?;
    let name = if engine == "kvm" {
        let info = vm.qmp.hmp("info kvm").map_err(|e| format!("info kvm: {e}"))?;
        let helped = info.lines().find_map(|l| l.strip_prefix("instructions executed for it: "));
        match helped {
            Some(n) => format!("KVM (/dev/kvm), helped by the software CPU ({} instructions)", n.trim()),
            None => "KVM (/dev/kvm)".to_owned(),
        }
    } else {
        "software CPU (tcg)".to_owned()
    };
    let version = vm.qmp.greeting()["QMP"]["version"]["qemu"].clone();
    say(&format!("QMP greeting: version {version}; engine: {name}"));
    for q in ["query-status", "query-block", "query-cpus-fast"] {
        let v = vm.query(q).map_err(|e| format!("{q}: {e}"))?;
        say(&format!("QMP {q}: {}", v.to_string().chars().take(300).collect::<String>()));
    }
    say("guest command: poweroff -f (ACPI soft-off)");
    vm.serial()?.send("poweroff -f\r")?;
    let event = vm.qmp.event("SHUTDOWN", SOON)?;
    println!("event {}: {}", event["event"], event.get("data").unwrap_or(&Value::Null));
    let (exit, usage) = vm.proc.wait(SOON).ok_or("still running after the guest powered off")?;
    let (took, cpu) = (start.elapsed().as_secs_f64(), usage.cpu_us() as f64 / 1e6);
    say(&format!("powered off, {exit:?}; {took:.1} s in all, {cpu:.1} s of CPU; engine: {name}"));
    if exit != Exit::Code(0) {
        return Err(format!("ended with {exit:?}"));
    }
    Ok(())
}

/// Text with the terminal's control sequences taken out, so that the console does not move the user's cursor.
fn printable(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => {
                if chars.next_if_eq(&'[').is_some() {
                    while chars.next_if(|c| !c.is_ascii_alphabetic()).is_some() {}
                    let end = chars.next();
                    if matches!(end, Some('H' | 'f')) && !out.ends_with('\n') {
                        out.push('\n');
                    }
                }
            }
            '\r' => {}
            c => out.push(c),
        }
    }
    out
}
