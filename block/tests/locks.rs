//! Image locks, both ways, with the real tools as the other party.

mod common;
use common::*;
use rqemu_block::*;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

/// Lock bytes that this process holds on a file. `fdinfo` shows the locks of one descriptor at one moment, which
/// `/proc/locks`, read in pieces while other programs lock and unlock, does not.
fn held(path: &Path) -> Vec<u64> {
    use std::os::unix::fs::MetadataExt;
    let want = std::fs::metadata(path).unwrap();
    let mut bytes: Vec<u64> = Vec::new();
    for fd in std::fs::read_dir("/proc/self/fd").unwrap() {
        let fd = fd.unwrap();
        // The folder's own descriptor is gone by now, and other tests of this process close theirs.
        let Ok(m) = std::fs::metadata(fd.path()) else { continue };
        if (m.dev(), m.ino()) != (want.dev(), want.ino()) {
            continue;
        }
        let info = Path::new("/proc/self/fdinfo").join(fd.file_name());
        for l in std::fs::read_to_string(info).unwrap().lines().filter(|l| l.starts_with("lock:")) {
            let mut f = l.split_whitespace().rev();
            let (last, first) = (f.next().unwrap(), f.next().unwrap());
            bytes.extend(first.parse::<u64>().unwrap()..=last.parse::<u64>().unwrap());
        }
    }
    bytes.sort_unstable();
    bytes
}

/// A real program that holds an image open until its standard input ends.
struct Holder(Child, Option<ChildStdin>);

impl Holder {
    fn new(args: &[&str]) -> Holder {
        let mut child = Command::new("qemu-system-x86_64")
            .args(["-display", "none", "-nodefaults", "-S", "-monitor", "none", "-qmp", "stdio"])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        // The greeting may come before the devices; an answer comes after them.
        stdin.write_all(b"{\"execute\":\"qmp_capabilities\"}").unwrap();
        let mut line = String::new();
        while !line.contains("return") {
            line.clear();
            assert!(out.read_line(&mut line).unwrap() > 0, "did not start");
        }
        Holder(child, Some(stdin))
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        if let Some(mut i) = self.1.take() {
            let _ = i.write_all(b"{\"execute\":\"quit\"}");
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const DISK: Attach = Attach { read_only: false, share_rw: false, resizable: true };

#[test]
fn bytes_are_qemus() {
    if !have_tools() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (raw, base, top) = (dir.path().join("r.img"), dir.path().join("q.qcow2"), dir.path().join("o.qcow2"));
    std::fs::write(&raw, vec![0; 65536]).unwrap();
    img(&["create", "-q", "-f", "qcow2", s(&base), "1M"]);
    img(&["create", "-q", "-f", "qcow2", "-b", "q.qcow2", "-F", "qcow2", s(&top)]);
    // (options, attach, bytes on raw, on top, on base), as the real program holds them.
    type Row<'a> = (&'a Path, &'a [(&'a str, &'a str)], Option<Attach>, &'a [u64], &'a [u64], &'a [u64]);
    let rows: Vec<Row> = vec![
        (&raw, &[("format", "raw")], None, &[100], &[], &[]),
        (&raw, &[("format", "raw")], Some(DISK), &[100, 101, 201], &[], &[]),
        (&raw, &[("format", "raw")], Some(Attach { share_rw: true, ..DISK }), &[100, 101], &[], &[]),
        (
            &raw,
            &[("format", "raw")],
            Some(Attach { resizable: false, ..DISK }),
            &[100, 101, 201, 203],
            &[],
            &[],
        ),
        (
            &raw,
            &[("format", "raw"), ("readonly", "on")],
            Some(Attach { read_only: true, ..DISK }),
            &[100, 201],
            &[],
            &[],
        ),
        (&raw, &[("format", "raw"), ("snapshot", "on")], Some(DISK), &[100, 201, 203], &[], &[]),
        (&top, &[], None, &[], &[100, 101, 103, 201, 203], &[100, 201, 203]),
        (&top, &[("readonly", "on")], None, &[], &[100, 201, 203], &[100, 201, 203]),
        (&top, &[], Some(DISK), &[], &[100, 101, 103, 201, 203], &[100, 201, 203]),
        (&top, &[("snapshot", "on")], Some(DISK), &[], &[100, 201, 203], &[100, 201, 203]),
        (&raw, &[("format", "raw"), ("file.locking", "off")], Some(DISK), &[], &[], &[]),
    ];
    for (i, (path, opts, attach, a, b, c)) in rows.into_iter().enumerate() {
        let graph = BlockGraph::new();
        let d = drive(&graph, "d", path, opts).unwrap();
        if let Some(at) = attach {
            d.attach("dev", at).unwrap();
        }
        assert_eq!((held(&raw), held(&top), held(&base)), (a.into(), b.into(), c.into()), "row {i}");
        if attach.is_some() {
            d.detach();
        }
        graph.shutdown();
        drop((d, graph));
        assert!(held(&raw).is_empty() && held(&top).is_empty() && held(&base).is_empty(), "row {i}");
    }
}

#[test]
fn we_refuse_what_qemu_holds() {
    if !have_tools() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (raw, q) = (dir.path().join("r.img"), dir.path().join("q.qcow2"));
    std::fs::write(&raw, vec![0; 65536]).unwrap();
    img(&["create", "-q", "-f", "qcow2", s(&q), "1M"]);
    let spec = format!("file={},if=none,id=d", s(&q));
    let holder = Holder::new(&["-M", "none", "-drive", &spec]);
    let graph = BlockGraph::new();
    let e = drive(&graph, "a", &q, &[]).unwrap_err();
    assert_eq!(e.to_string(), "Failed to get \"write\" lock");
    assert_eq!(e.hint().unwrap(), format!("Is another process using the image [{}]?", s(&q)));
    let e = drive(&graph, "b", &q, &[("readonly", "on")]).unwrap_err();
    assert_eq!(e.to_string(), "Failed to get shared \"write\" lock");
    drive(&graph, "c", &q, &[("readonly", "on"), ("force-share", "on")]).unwrap();
    drop(holder);
    drive(&graph, "e", &q, &[("readonly", "on")]).unwrap();

    let spec = format!("file={},if=virtio,format=raw", s(&raw));
    let holder = Holder::new(&["-M", "pc", "-accel", "tcg", "-drive", &spec]);
    let graph = BlockGraph::new();
    let d = drive(&graph, "a", &raw, &[("format", "raw")]).unwrap();
    assert_eq!(d.attach("dev", DISK).unwrap_err().to_string(), "Failed to get \"write\" lock");
    assert_eq!(held(&raw), [100], "a refusal leaves our locks as they were");
    drop(holder);
    d.attach("dev", DISK).unwrap();
}

#[test]
fn qemu_refuses_what_we_hold() {
    if !have_tools() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (raw, q) = (dir.path().join("r.img"), dir.path().join("q.qcow2"));
    std::fs::write(&raw, vec![0; 65536]).unwrap();
    img(&["create", "-q", "-f", "qcow2", s(&q), "1M"]);
    let graph = BlockGraph::new();
    let a = drive(&graph, "a", &q, &[]).unwrap();
    let b = drive(&graph, "b", &raw, &[("format", "raw")]).unwrap();
    b.attach("dev", DISK).unwrap();
    let write = |fmt: &str, p: &Path| run("qemu-io", &["-f", fmt, "-c", "write 0 512", s(p)]);
    let failed = |o: std::process::Output| {
        let text = String::from_utf8_lossy(&o.stderr).into_owned();
        !o.status.success() && text.contains("Failed to get \"write\" lock")
    };
    assert!(failed(write("qcow2", &q)));
    assert!(failed(write("raw", &raw)));
    let info = run("qemu-img", &["info", s(&q)]);
    assert!(String::from_utf8_lossy(&info.stderr).contains("Failed to get shared \"write\" lock"));
    drop((a, b));
    graph.shutdown();
    drop(graph);
    assert!(write("qcow2", &q).status.success());
    assert!(write("raw", &raw).status.success());
}

#[test]
fn two_drives_in_one_process_conflict() {
    let dir = tempfile::tempdir().unwrap();
    let raw = dir.path().join("r.img");
    std::fs::write(&raw, vec![0; 65536]).unwrap();
    let graph = BlockGraph::new();
    let a = drive(&graph, "a", &raw, &[("format", "raw")]).unwrap();
    let b = drive(&graph, "b", &raw, &[("format", "raw")]).unwrap();
    a.attach("one", DISK).unwrap();
    assert!(b.attach("two", DISK).is_err());
    a.detach();
    b.attach("two", DISK).unwrap();
}
