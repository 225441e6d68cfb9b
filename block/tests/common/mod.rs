//! Helpers for tests that compare with the real tools.
#![allow(dead_code)]

use rqemu_block::*;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// True if QEMU's tools are here. Without them the test says so and ends; in CI that is a failure.
pub fn have_tools() -> bool {
    let ok = Command::new("qemu-img").arg("--version").output().is_ok();
    if !ok {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "qemu-img is missing, and CI must not skip");
        eprintln!("SKIPPED: qemu-img is not installed");
    }
    ok
}

pub fn run(prog: &str, args: &[&str]) -> Output {
    Command::new(prog).args(args).output().unwrap()
}

pub fn img(args: &[&str]) -> String {
    let o = run("qemu-img", args);
    assert!(
        o.status.success(),
        "qemu-img {args:?}: {}{}",
        String::from_utf8_lossy(&o.stdout),
        String::from_utf8_lossy(&o.stderr)
    );
    String::from_utf8_lossy(&o.stdout).into_owned()
}

/// `qemu-img check`: no error and no leak.
pub fn check(path: &Path) {
    let o = run("qemu-img", &["check", "-U", s(path)]);
    assert!(
        o.status.code() == Some(0),
        "check {}: {:?}\n{}{}",
        path.display(),
        o.status.code(),
        String::from_utf8_lossy(&o.stdout),
        String::from_utf8_lossy(&o.stderr)
    );
}

pub fn s(p: &Path) -> &str {
    p.to_str().unwrap()
}

pub fn drive(graph: &BlockGraph, id: &str, path: &Path, extra: &[(&str, &str)]) -> Result<BlockBackend> {
    let mut options = vec![("file".to_owned(), s(path).to_owned())];
    options.extend(extra.iter().map(|(a, b)| (a.to_string(), b.to_string())));
    Ok(graph.open_drive(&DriveOpts { id: id.into(), options, ..Default::default() })?.backend)
}

/// What the real tools read from an image.
pub fn contents(path: &Path, dir: &Path) -> Vec<u8> {
    let raw: PathBuf = dir.join("contents.raw");
    img(&["convert", "-U", "-O", "raw", s(path), s(&raw)]);
    std::fs::read(&raw).unwrap()
}

/// A small deterministic generator.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }
}
