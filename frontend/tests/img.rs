//! `rqemu-img` against images made and read by the real tool.

use std::path::Path;
use std::process::{Command, Output};

fn run(program: &str, dir: &Path, args: &[&str]) -> Output {
    Command::new(program).args(args).current_dir(dir).output().unwrap()
}

fn ours(dir: &Path, args: &[&str]) -> Output {
    run(env!("CARGO_BIN_EXE_rqemu-img"), dir, args)
}

/// Our output, which must come with this status.
fn text(dir: &Path, args: &[&str], status: i32) -> String {
    let o = ours(dir, args);
    let (out, err) = (String::from_utf8_lossy(&o.stdout), String::from_utf8_lossy(&o.stderr));
    assert_eq!(o.status.code(), Some(status), "{args:?}\n{out}{err}");
    format!("{out}{}", err.replace("rqemu-img: ", "qemu-img: "))
}

fn have_tools() -> bool {
    let found = Command::new("qemu-img").arg("--version").output().is_ok();
    assert!(
        found || std::env::var("CI").as_deref() != Ok("true"),
        "qemu-img is missing, and CI must not skip"
    );
    found
}

/// A raw image with some data and holes.
fn raw(dir: &Path) {
    let mut data = vec![0u8; 5 << 20];
    for (i, b) in data[100_000..1_500_000].iter_mut().enumerate() {
        *b = (i / 500) as u8;
    }
    data[4_000_000..4_100_000].fill(0xa5);
    std::fs::write(dir.join("d.raw"), data).unwrap();
}

#[test]
fn the_same_words() {
    if !have_tools() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    raw(d);
    let theirs = run("qemu-img", d, &["convert", "-f", "raw", "-O", "qcow2", "d.raw", "t.qcow2"]);
    assert!(theirs.status.success());
    run("qemu-img", d, &["create", "-q", "-f", "qcow2", "-b", "t.qcow2", "-F", "qcow2", "o.qcow2"]);
    let commands: &[&[&str]] = &[
        &["info", "--backing-chain", "o.qcow2"],
        &["map", "o.qcow2"],
        &["map", "--output=json", "o.qcow2"],
        &["check", "t.qcow2"],
        &["measure", "-O", "qcow2", "--size", "3G"],
        &["measure", "-O", "qcow2", "t.qcow2"],
        &["compare", "t.qcow2", "o.qcow2"],
        &["snapshot", "-d", "none", "t.qcow2"],
        &["check", "-f", "raw", "d.raw"],
        &["info", "missing"],
        &["resize", "t.qcow2", "1M"],
        &["create", "-f", "qcow2", "-o", "cluster_size=3", "x", "1M"],
        &["create", "-f", "nonsense", "x", "1M"],
        &["create", "-f", "qcow2", "-o", "nonsense=1", "x", "1M"],
        &["nonsense"],
    ];
    for c in commands {
        let want = run("qemu-img", d, c);
        let expected =
            format!("{}{}", String::from_utf8_lossy(&want.stdout), String::from_utf8_lossy(&want.stderr));
        assert_eq!(text(d, c, want.status.code().unwrap()), expected, "{c:?}");
    }
}

#[test]
fn round_trips() {
    if !have_tools() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    raw(d);
    let options: &[&[&str]] = &[
        &["-O", "qcow2"],
        &["-O", "qcow2", "-c"],
        &["-O", "qcow2", "-c", "-o", "compression_type=zstd"],
        &["-O", "qcow2", "-o", "cluster_size=4k,refcount_bits=1"],
        &["-O", "qcow2", "-c", "-o", "compat=0.10,cluster_size=512"],
        &["-O", "qcow2", "-o", "preallocation=full"],
        &["-O", "raw"],
    ];
    for o in options {
        let mut args = vec!["convert", "-f", "raw"];
        args.extend(*o);
        args.extend(["d.raw", "c.img"]);
        text(d, &args, 0);
        let same = run("qemu-img", d, &["compare", "-f", "raw", "d.raw", "c.img"]);
        assert_eq!(same.status.code(), Some(0), "{o:?}");
        text(d, &["compare", "-f", "raw", "d.raw", "c.img"], 0);
        if o[1] == "qcow2" {
            let check = run("qemu-img", d, &["check", "c.img"]);
            assert_eq!(check.status.code(), Some(0), "{o:?}: {}", String::from_utf8_lossy(&check.stdout));
        }
        std::fs::remove_file(d.join("c.img")).unwrap();
    }
}

#[test]
fn repairs_and_moves() {
    if !have_tools() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    raw(d);
    text(d, &["convert", "-f", "raw", "-O", "qcow2", "d.raw", "a.qcow2"], 0);
    // A refcount too many is a leak.
    let mut bytes = std::fs::read(d.join("a.qcow2")).unwrap();
    bytes[0x20000 + 2 * 200 + 1] = 1;
    bytes.resize(bytes.len().max(201 << 16), 0);
    std::fs::write(d.join("a.qcow2"), bytes).unwrap();
    text(d, &["check", "a.qcow2"], 3);
    text(d, &["check", "-r", "leaks", "a.qcow2"], 0);
    assert_eq!(run("qemu-img", d, &["check", "a.qcow2"]).status.code(), Some(0));
    // Snapshots by the one, read by the other.
    text(d, &["snapshot", "-c", "s", "a.qcow2"], 0);
    let o = run("qemu-img", d, &["convert", "-l", "s", "-O", "raw", "a.qcow2", "s.raw"]);
    assert!(o.status.success());
    text(d, &["compare", "-f", "raw", "-F", "raw", "d.raw", "s.raw"], 0);
    text(d, &["snapshot", "-d", "s", "a.qcow2"], 0);
    // Another base.
    text(d, &["create", "-f", "qcow2", "-b", "a.qcow2", "-F", "qcow2", "o.qcow2"], 0);
    text(d, &["create", "-f", "qcow2", "empty.qcow2", "5M"], 0);
    text(d, &["rebase", "-b", "empty.qcow2", "-F", "qcow2", "o.qcow2"], 0);
    text(d, &["compare", "-F", "raw", "o.qcow2", "d.raw"], 0);
    text(d, &["commit", "o.qcow2"], 0);
    text(d, &["compare", "-F", "raw", "empty.qcow2", "d.raw"], 0);
    for f in ["a.qcow2", "o.qcow2", "empty.qcow2"] {
        assert_eq!(run("qemu-img", d, &["check", f]).status.code(), Some(0), "{f}");
    }
}
