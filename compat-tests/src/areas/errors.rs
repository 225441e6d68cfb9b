//! Bad command lines: exit status, standard output and standard error must be QEMU's, up to the program's name.
//!
//! The lines stand in `data/errors.txt`, one a line, words split at blanks. `{raw}`, `{qcow2}`, `{corrupt}` (a qcow2
//! image with a broken header), `{nobacking}` (its backing file is gone), `{dir}`, `{missing}`, `{config}` (a file
//! for -readconfig with a syntax error) are replaced.

use super::{with_accel, Sides};
use crate::bins::Bin;
use crate::compare::first_line;
use crate::proc::{Cmd, Exit};
use crate::score::Row;
use crate::Res;
use std::path::Path;
use std::time::Duration;

const LINES: &str = include_str!("../../data/errors.txt");

/// What is compared.
#[derive(Debug, PartialEq)]
pub struct Seen {
    exit: Exit,
    stdout: String,
    stderr: String,
}

/// All rows.
pub fn run(sides: &Sides) -> Vec<Row> {
    let lines = LINES.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'));
    lines
        .map(|line| {
            let (a, b) = sides.both(|bin| seen(bin, line));
            Row::of(line, a, b, difference)
        })
        .collect()
}

fn seen(bin: &Bin, line: &str) -> Res<Seen> {
    let dir = tempfile::Builder::new().prefix("rqc").tempdir().map_err(|e| e.to_string())?;
    let words = with_accel(fill(line, dir.path())?);
    let out = Cmd::new(bin).args(&words).dir(dir.path()).run(Duration::from_secs(5))?;
    Ok(Seen {
        exit: out.exit,
        stdout: normalise(&out.stdout, bin, dir.path()),
        stderr: normalise(&out.stderr, bin, dir.path()),
    })
}

/// First difference of two runs.
pub fn difference(a: &Seen, b: &Seen) -> Option<String> {
    if a.exit != b.exit {
        return Some(format!("{:?} {:?} | qemu {:?} {:?}", a.exit, a.stderr, b.exit, b.stderr));
    }
    let failed = a.exit == Exit::Code(1);
    let text = |s: &Seen| if failed { refusal(&s.stderr) } else { s.stderr.clone() };
    first_line(&text(a), &text(b))
        .map(|l| format!("stderr {l}"))
        .or_else(|| first_line(&a.stdout, &b.stdout).map(|l| format!("stdout {l}")))
}

/// QEMU tells of missing CPU features before it looks at devices, fw_cfg items and the like, rqemu after it: whether
/// the warning comes is not compared when both refuse the line.
pub fn refusal(text: &str) -> String {
    let lines = text.lines().filter(|l| !l.contains("host doesn't support requested feature"));
    lines.map(|l| format!("{l}\n")).collect()
}

/// Makes texts of two runs comparable: program name, temporary folder, process ids; a distribution's hints about
/// modules that are not installed go.
pub fn normalise(text: &str, bin: &Bin, dir: &Path) -> String {
    let dir = dir.to_string_lossy();
    let named =
        text.replace(&bin.path.to_string_lossy().into_owned(), "PROGRAM").replace(&bin.name(), "PROGRAM");
    let mut out = String::new();
    for l in named.replace(&*dir, "DIR").lines().filter(|l| !l.contains("do you want to install")) {
        out.push_str(without_time(l).trim_end());
        out.push('\n');
    }
    out
}

/// Without the time that `-msg timestamp=on` puts before a message (`2026-01-02T03:04:05.678901Z `).
fn without_time(line: &str) -> &str {
    match line.split_once("Z ") {
        Some((t, rest)) if t.len() == 26 && t.as_bytes().get(10) == Some(&b'T') => rest,
        _ => line,
    }
}

fn fill(line: &str, dir: &Path) -> Res<Vec<String>> {
    let path = |n: &str| dir.join(n).to_string_lossy().into_owned();
    let write = |n: &str, data: &[u8]| std::fs::write(dir.join(n), data).map_err(|e| e.to_string());
    if line.contains("{raw}") {
        write("disk.img", &vec![0; 1 << 20])?;
    }
    if line.contains("{config}") {
        write("bad.cfg", b"[device \"x\"]\n  driver = \n")?;
    }
    for (key, name) in
        [("{qcow2}", "disk.qcow2"), ("{corrupt}", "corrupt.qcow2"), ("{nobacking}", "nobacking.qcow2")]
    {
        if line.contains(key) {
            super::rewrite::make_image(&dir.join(name), "qcow2", 1 << 20)?;
        }
    }
    if line.contains("{corrupt}") {
        let mut d = std::fs::read(dir.join("corrupt.qcow2")).map_err(|e| e.to_string())?;
        // cluster_bits of 63
        d[20..24].copy_from_slice(&63u32.to_be_bytes());
        write("corrupt.qcow2", &d)?;
    }
    if line.contains("{nobacking}") {
        let mut d = std::fs::read(dir.join("nobacking.qcow2")).map_err(|e| e.to_string())?;
        // A backing file name at offset 0x400 of the header cluster.
        let name = b"gone.qcow2";
        d[0x400..0x400 + name.len()].copy_from_slice(name);
        d[8..16].copy_from_slice(&0x400u64.to_be_bytes());
        d[16..20].copy_from_slice(&(name.len() as u32).to_be_bytes());
        write("nobacking.qcow2", &d)?;
    }
    Ok(line
        .split_whitespace()
        .map(|w| {
            w.replace("{raw}", &path("disk.img"))
                .replace("{qcow2}", &path("disk.qcow2"))
                .replace("{corrupt}", &path("corrupt.qcow2"))
                .replace("{nobacking}", &path("nobacking.qcow2"))
                .replace("{missing}", &path("missing"))
                .replace("{config}", &path("bad.cfg"))
                .replace("{dir}", &dir.to_string_lossy())
        })
        .collect())
}
