//! Boots GRUB from a qcow2 disk, shows its serial console, talks QMP, powers the machine off.
//!
//! `RQEMU` picks the binary; `/dev/kvm` is used when it can be opened, the software CPU otherwise.

use rqemu_compat::areas::boot::{grub_command, grub_prompt, grub_qcow2};
use rqemu_compat::bins::{have_kvm, Bin};
use rqemu_compat::proc::Exit;
use rqemu_compat::vm::{VmOpts, SOON};
use rqemu_compat::Res;
use serde_json::{json, Value};
use std::io::Write;
use std::process::ExitCode;
use std::time::Instant;

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

fn demo() -> Res<()> {
    let start = Instant::now();
    let bin = Bin::ours();
    let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
    let disk = dir.path().join("disk.qcow2");
    grub_qcow2(&disk)?;
    let accel = if have_kvm() { "kvm" } else { "tcg" };
    let args: Vec<String> =
        ["-machine", "pc,graphics=off", "-accel", accel, "-m", "256", "-nodefaults", "-display", "none"]
            .into_iter()
            .map(str::to_owned)
            .chain(["-drive".into(), format!("file={},format=qcow2,if=virtio", disk.display())])
            .collect();
    say(&format!("{} {} -serial unix:… -qmp unix:…", bin.path.display(), args.join(" ")));
    let mut vm = VmOpts::default().serial().start(&bin, &args)?;
    let version = vm.qmp.greeting()["QMP"]["version"].clone();
    let kvm = vm.query("query-kvm").map_err(|e| e.to_string())?;
    let engine = if kvm["enabled"] == json!(true) { "KVM (/dev/kvm)" } else { "software CPU (tcg)" };
    say(&format!("QMP greeting: version {}; engine: {engine}", version["qemu"]));
    say("serial console of the guest");
    let mut show = |text: &str| {
        print!("{}", printable(text));
        let _ = std::io::stdout().flush();
    };
    let tty = vm.serial()?;
    grub_prompt(tty, &mut show)?;
    let devices = grub_command(tty, "ls", &mut show)?;
    say(&format!("GRUB sees: {}", devices.replace('\n', " ")));
    for q in ["query-status", "query-block", "query-cpus-fast"] {
        let v = vm.query(q).map_err(|e| format!("{q}: {e}"))?;
        let text = v.to_string();
        say(&format!("QMP {q}: {}", text.chars().take(300).collect::<String>()));
    }
    say("guest command: halt (ACPI soft-off)");
    vm.serial()?.send("halt\r")?;
    let event = vm.qmp.event("SHUTDOWN", SOON)?;
    println!("event {}: {}", event["event"], event.get("data").unwrap_or(&Value::Null));
    let (exit, usage) = vm.proc.wait(SOON).ok_or("still running after the guest powered off")?;
    let took = start.elapsed().as_secs_f64();
    say(&format!(
        "powered off, {exit:?}; {took:.1} s in all, {:.1} s of CPU; engine: {engine}",
        usage.cpu_us() as f64 / 1e6
    ));
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
