//! KVM assist: guests whose instructions KVM lacks run on, and stop as under QEMU with `x-assist=off`.
//!
//! Where KVM lacks nothing, the same guests run without help: then only their output is looked at.

use rqemu_compat::bins::{have_kvm, require_qemu, Bin};
use rqemu_compat::guests::{images, rom_args};
use rqemu_compat::proc::{Cmd, Exit};
use rqemu_compat::vm::Vm;
use rqemu_compat::Res;
use std::path::Path;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(120);
const MEMTEST: &str = "/boot/memtest86+x64.bin";

/// The guest program `assist` on an accelerator: what it printed, and standard error.
fn assist(bin: &Bin, accel: &str, args: &str) -> Res<(Exit, String, String)> {
    let out = Cmd::new(bin)
        .words("-m 128 -display none -nodefaults -serial stdio -device isa-debug-exit,iobase=0xf4,iosize=4 -no-reboot")
        .args(["-accel", accel, "-cpu", if accel == "tcg" { "max" } else { "qemu64" }, "-bios", &images()?.rom.to_string_lossy()])
        .args(rom_args(args))
        .run(LIMIT)?;
    let line = out.stdout.lines().find(|l| l.starts_with("assist")).unwrap_or("").trim().to_owned();
    Ok((out.exit, line, out.stderr))
}

#[test]
fn instructions_that_kvm_lacks() {
    require_qemu();
    if !have_kvm() {
        eprintln!("no /dev/kvm: skipped");
        return;
    }
    for args in ["prog=assist", "prog=assist count=300"] {
        let (_, wanted, _) = assist(&Bin::qemu(), "tcg", args).unwrap();
        assert!(wanted.contains("popcnt"), "{wanted}");
        let (exit, line, err) = assist(&Bin::ours(), "kvm", args).unwrap();
        assert_eq!(line, wanted, "{err}");
        assert_eq!(exit, Exit::Code(0x21), "{err}");
        let warnings = err.matches("the software CPU helps").count();
        assert!(warnings <= 1, "{err}");
    }
}

/// Waits until `ready` says so.
fn wait(mut ready: impl FnMut() -> Res<bool>) -> Res<()> {
    let start = Instant::now();
    while start.elapsed() < LIMIT {
        if ready()? {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Err("nothing happened".into())
}

/// Text on the screen.
fn screen(vm: &mut Vm) -> Res<String> {
    let file = vm.dir().join("text");
    let args = serde_json::json!({ "val": 0xb8000, "size": 80 * 25 * 2, "filename": file });
    vm.qmp.cmd("pmemsave", args).map_err(|e| format!("pmemsave: {e}"))?;
    let cells = std::fs::read(&file).map_err(|e| e.to_string())?;
    Ok(cells.iter().step_by(2).map(|c| if (0x20..0x7f).contains(c) { char::from(*c) } else { ' ' }).collect())
}

#[test]
fn memtest_reaches_its_screen() {
    if !have_kvm() || !Path::new(MEMTEST).exists() {
        eprintln!("no /dev/kvm or no {MEMTEST} (Debian package memtest86+): skipped");
        return;
    }
    let args =
        |accel: &str| format!("-accel {accel} -m 64 -nodefaults -vga std -display none -kernel {MEMTEST}");
    let mut vm = Vm::start(&Bin::ours(), &args("kvm")).unwrap();
    wait(|| {
        let text = screen(&mut vm)?;
        Ok(text.contains("Memtest86+ v") && text.contains("to start testing") || text.contains("Testing:"))
    })
    .unwrap();
    let helped = vm.qmp.hmp("info kvm").unwrap().contains("instructions executed for it");
    vm.quit().unwrap();
    if !helped {
        return;
    }
    // This KVM needed help: without it the guest stops.
    let mut vm = Vm::start(&Bin::ours(), &args("kvm,x-assist=off")).unwrap();
    wait(|| Ok(vm.query("query-status").map_err(|e| e.to_string())?["status"] == "internal-error")).unwrap();
    vm.quit().unwrap();
}
