//! The software CPU against QEMU's: what our firmware of protected-mode corners (`guests/sys32.c`) prints, and CPUID with
//! the warnings of several models. Where QEMU is known to differ from the hardware manuals the guest does not print it.

use super::Sides;
use crate::bins::Bin;
use crate::compare::first_line;
use crate::guests::{images, rom_args};
use crate::proc::{Cmd, Exit};
use crate::score::Row;
use crate::Res;
use std::collections::BTreeMap;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

const MACHINE: &str = "-accel tcg -m 128 -nodefaults -display none -no-reboot -serial stdio \
    -device isa-debug-exit,iobase=0xf4,iosize=4";

/// Models whose features both engines have.
const MODELS: &[&str] =
    &["qemu64", "kvm64", "core2duo", "Conroe", "Penryn", "Nehalem", "Westmere", "Opteron_G1", "qemu64,-cx16"];

/// All rows.
pub fn run(sides: &Sides) -> Vec<Row> {
    let images = match images() {
        Ok(i) => i,
        Err(e) => return vec![Row::of("guests", Ok(()), Err(e), |_, _| None)],
    };
    let lines = |a: &String, b: &String| first_line(a, b);
    let mut rows = vec![];
    for cpu in ["max", "qemu64", "pentium3"] {
        let (a, b) = sides.both(|bin| sections(bin, cpu, &images.sys32.to_string_lossy()));
        match (a, b) {
            (Ok(a), Ok(b)) => {
                for (name, q) in &b {
                    let o = a.get(name).cloned().unwrap_or_default();
                    rows.push(Row::of(format!("{cpu}: {name}"), Ok(o), Ok(q.clone()), lines));
                }
            }
            (a, b) => rows.push(Row::of(cpu, a.map(|_| String::new()), b.map(|_| String::new()), lines)),
        }
    }
    for cpu in MODELS {
        let rom = images.rom.to_string_lossy();
        let (a, b) = sides.both(|bin| cpuid(bin, cpu, &rom));
        rows.push(Row::of(format!("CPUID, {cpu}"), a, b, lines));
    }
    rows
}

/// What the firmware prints, by section.
fn sections(bin: &Bin, cpu: &str, rom: &str) -> Res<BTreeMap<String, String>> {
    let out = Cmd::new(bin).words(MACHINE).args(["-cpu", cpu, "-bios", rom]).run(LIMIT)?;
    if out.exit != Exit::Code(33) || !out.stdout.ends_with("end\n") {
        return Err(format!(
            "{:?} {} {:?}",
            out.exit,
            out.stderr.trim(),
            crate::stream::tail(&out.stdout, 200)
        ));
    }
    let parts = out.stdout.split("== ").skip(1);
    Ok(parts.filter_map(|p| p.split_once('\n')).map(|(n, t)| (n.to_owned(), t.to_owned())).collect())
}

/// The warnings, then every leaf.
fn cpuid(bin: &Bin, cpu: &str, rom: &str) -> Res<String> {
    let guest = rom_args("prog=probe what=cpuid");
    let out = Cmd::new(bin).words(MACHINE).args(["-cpu", cpu, "-bios", rom]).args(guest).run(LIMIT)?;
    let warnings: Vec<&str> = out.stderr.lines().filter_map(|l| l.split_once(": ")).map(|(_, w)| w).collect();
    Ok(format!("{}\n{}", warnings.join("\n"), out.stdout.replace('\r', "")))
}
