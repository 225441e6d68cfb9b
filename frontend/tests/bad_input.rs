//! Wrong command lines: the words and the status are those of QEMU 7.2.
//!
//! `data/bad-input.jsonl` holds what QEMU printed, with its name replaced by `qemu`. The ignored test runs both
//! programs again.

use std::ffi::OsString;
use std::process::Command;

use rqemu_frontend::parse;

struct Case {
    argv: Vec<String>,
    stderr: String,
}

fn cases() -> Vec<Case> {
    include_str!("data/bad-input.jsonl")
        .lines()
        .map(|line| {
            let entry: serde_json::Value = serde_json::from_str(line).unwrap();
            Case {
                argv: entry["argv"].as_array().unwrap().iter().map(|a| a.as_str().unwrap().into()).collect(),
                stderr: entry["stderr"].as_str().unwrap().into(),
            }
        })
        .collect()
}

#[test]
fn messages() {
    let cases = cases();
    assert!(cases.len() >= 500, "only {} cases", cases.len());
    let mut bad = Vec::new();
    for case in &cases {
        let argv: Vec<OsString> =
            ["qemu"].into_iter().chain(case.argv.iter().map(String::as_str)).map(Into::into).collect();
        let outcome = parse(&argv);
        let mut text: String = outcome.warnings.iter().map(|w| w.render("qemu")).collect();
        match outcome.result {
            Err(err) => text.extend(err.0.iter().map(|r| r.render("qemu"))),
            Ok(other) => text += &format!("{other:?}"),
        }
        if text.trim_end() != case.stderr.trim_end() {
            bad.push(format!("{:?}\n  QEMU's: {}\n  ours: {text}", case.argv, case.stderr));
        }
    }
    assert!(bad.is_empty(), "{} differ:\n{}", bad.len(), bad.join("\n"));
}

/// Lines that the Debian package adds when parts of it are not installed.
fn is_noise(line: &str) -> bool {
    line.contains("do you want to install")
}

fn run(program: &str, argv: &[String], dir: &std::path::Path) -> (Option<i32>, String) {
    // Without a display QEMU would start a VNC server on a fixed port before it fails.
    let display = ["-display", "-nographic", "-vnc", "-spice"];
    let quiet = !argv.iter().any(|a| display.contains(&a.as_str()));
    let output = Command::new(program)
        .args(if quiet { &["-display", "none"][..] } else { &[] })
        .args(argv)
        .current_dir(dir)
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    let name = program.rsplit('/').next().unwrap();
    let lines: Vec<String> = stderr
        .lines()
        .filter(|l| !is_noise(l))
        .map(|l| match l.strip_prefix(name) {
            Some(rest) => format!("qemu{rest}"),
            None => l.to_string(),
        })
        .collect();
    (output.status.code(), lines.join("\n"))
}

#[test]
#[ignore = "runs the real QEMU 7.2 some hundred times"]
fn messages_of_both_programs() {
    let qemu = "/usr/bin/qemu-system-x86_64";
    if !std::path::Path::new(qemu).exists() {
        panic!("{qemu} is not installed");
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.img"), vec![0; 1 << 20]).unwrap();
    let mut bad = Vec::new();
    for case in cases() {
        let theirs = run(qemu, &case.argv, dir.path());
        let ours = run(env!("CARGO_BIN_EXE_rqemu-system-x86_64"), &case.argv, dir.path());
        if theirs != ours {
            bad.push(format!("{:?}\n  QEMU's: {theirs:?}\n  ours: {ours:?}", case.argv));
        }
    }
    assert!(bad.is_empty(), "{} differ:\n{}", bad.len(), bad.join("\n"));
}
