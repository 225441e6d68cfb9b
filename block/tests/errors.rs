//! Error texts: ours against the real program's, for the same options.

mod common;
use common::*;
use rqemu_block::*;
use serde_json::{json, Value};
use std::path::Path;
use std::process::{Command, Stdio};

/// The real program's complaint about `opt` (`-drive` or `-blockdev`) without its prefixes, or `None` if it accepts.
fn qemu(opt: &str, value: &str, dir: &Path) -> Option<String> {
    let mut child = Command::new("qemu-system-x86_64")
        .args(["-M", "none", "-display", "none", "-nodefaults", "-S", "-monitor", "none", "-qmp", "stdio"])
        .args([opt, value])
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    use std::io::Write;
    let mut stdin = child.stdin.take().unwrap();
    let _ = stdin.write_all(b"{\"execute\":\"qmp_capabilities\"}{\"execute\":\"quit\"}");
    let out = child.wait_with_output().unwrap();
    if out.status.success() {
        return None;
    }
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    let prefix = format!("qemu-system-x86_64: {opt} {value}: ");
    let line = text.lines().find(|l| l.starts_with(&prefix)).unwrap_or_else(|| panic!("{text}"));
    let at = text.find(line).unwrap();
    Some(text[at + prefix.len()..].trim_end().to_owned())
}

fn ours(e: BlockError) -> String {
    match e.hint() {
        Some(h) => format!("{e}\n{h}"),
        None => e.to_string(),
    }
}

fn images(dir: &Path) {
    let p = |n: &str| dir.join(n).to_str().unwrap().to_owned();
    std::fs::write(p("r.img"), vec![0u8; 65536]).unwrap();
    img(&["create", "-q", "-f", "qcow2", &p("q.qcow2"), "1M"]);
    img(&["create", "-q", "-f", "qcow2", "-b", "q.qcow2", "-F", "qcow2", &p("o.qcow2")]);
    img(&["create", "-q", "-f", "qcow2", "-b", "nope.img", "-F", "raw", "-u", &p("miss.qcow2"), "1M"]);
}

/// Copies q.qcow2 and overwrites some bytes.
fn mutant(dir: &Path, name: &str, at: usize, bytes: &[u8]) {
    let mut b = std::fs::read(dir.join("q.qcow2")).unwrap();
    b[at..at + bytes.len()].copy_from_slice(bytes);
    std::fs::write(dir.join(name), b).unwrap();
}

#[test]
fn drive_errors_are_qemus() {
    if !have_tools() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    images(dir.path());
    std::env::set_current_dir(dir.path()).unwrap();
    let rows = [
        "file=nonexist",
        "file=nonexist,format=raw",
        "file=r.img,format=qcow2",
        "file=r.img,format=foo",
        "file=miss.qcow2",
        "file=/tmp,format=raw",
        "file=/dev,format=raw",
        "file=r.img,format=raw,bogus=1",
        "file=r.img,format=raw,file.bogus=1",
        "file=q.qcow2,bogus=1",
        "file=r.img,format=raw,cache=foo",
        "file=r.img,format=raw,aio=foo",
        "file=r.img,format=raw,aio=native",
        "file=r.img,format=raw,discard=foo",
        "file=r.img,format=raw,detect-zeroes=foo",
        "file=r.img,format=raw,werror=foo",
        "file=r.img,format=raw,rerror=enospc",
        "format=raw",
        "format=qcow2",
        "file=json:bogus",
        "file=json:[]",
        "file=foo:bar",
        "file=r.img,format=raw,readonly=foo",
        "file=r.img,format=raw,snapshot=foo",
        "file=r.img,format=raw,force-share=on",
        "file=r.img,format=raw,node-name=1a",
        "file.driver=file,file.filename=nonexist,format=raw",
        "file.driver=foo,file.filename=r.img,format=raw",
        "driver=file",
        "driver=qcow2,file.driver=file,file.filename=r.img",
        "file=r.img,format=raw,offset=1048576",
        "file=r.img,format=raw,size=1048576",
        "file=r.img,format=raw,size=513",
        "file=r.img,format=raw,file.locking=foo",
        "file=q.qcow2,l2-cache-size=2M,cache-size=1M",
        "file=q.qcow2,backing=nonode",
    ];
    let mut bad = Vec::new();
    for row in rows {
        let value = format!("{row},if=none,id=d");
        let want = qemu("-drive", &value, dir.path());
        let graph = BlockGraph::new();
        let options = row.split(',').map(|kv| kv.split_once('=').unwrap()).map(|(k, v)| (k.into(), v.into()));
        let got =
            graph.open_drive(&DriveOpts { id: "d".into(), options: options.collect(), ..Default::default() });
        let got = got.err().map(ours);
        if got != want {
            bad.push(format!("{row}\n  qemu: {want:?}\n  ours: {got:?}"));
        }
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

#[test]
fn blockdev_errors_are_qemus() {
    if !have_tools() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    images(dir.path());
    std::env::set_current_dir(dir.path()).unwrap();
    let f = |n: &str| json!({"driver": "file", "filename": n});
    let rows: Vec<Value> = vec![
        json!({"driver": "file"}),
        json!({"driver": "foo", "node-name": "a"}),
        json!({"node-name": "a"}),
        json!({"driver": "file", "node-name": "a"}),
        json!({"driver": "file", "node-name": "a", "filename": 3}),
        json!({"driver": "file", "node-name": "a", "filename": "nonexist"}),
        json!({"driver": "file", "filename": "r.img"}),
        json!({"driver": "file", "filename": "r.img", "node-name": "1a"}),
        json!({"driver": "file", "filename": "r.img", "node-name": "a", "bogus": 1}),
        json!({"driver": "file", "filename": "r.img", "node-name": "a", "read-only": "on"}),
        json!({"driver": "file", "filename": "r.img", "node-name": "a", "cache": {"direct": 1}}),
        json!({"driver": "file", "filename": "r.img", "node-name": "a", "cache": {"bogus": true}}),
        json!({"driver": "file", "filename": "r.img", "node-name": "a", "discard": "foo"}),
        json!({"driver": "file", "filename": "r.img", "node-name": "a", "aio": "foo"}),
        json!({"driver": "file", "filename": "r.img", "node-name": "a", "aio": "native"}),
        json!({"driver": "file", "filename": "r.img", "node-name": "a", "detect-zeroes": "unmap"}),
        json!({"driver": "raw", "node-name": "a"}),
        json!({"driver": "raw", "node-name": "a", "file": "nonode"}),
        json!({"driver": "raw", "node-name": "a", "file": f("nonexist")}),
        json!({"driver": "qcow2", "node-name": "a", "file": f("r.img")}),
        json!({"driver": "qcow2", "node-name": "a", "file": f("o.qcow2"), "backing": "nonode"}),
        json!({"driver": "raw", "node-name": "a", "offset": 1048576, "file": f("r.img")}),
        json!({"driver": "raw", "node-name": "a", "offset": -1, "file": f("r.img")}),
        json!({"driver": "host_device", "node-name": "a", "filename": "r.img"}),
        json!({"driver": "file", "node-name": "a", "filename": "/dev/null"}),
        json!({"driver": "null-co", "node-name": "a", "size": "foo"}),
        json!({"driver": "qcow2", "node-name": "a", "file": f("q.qcow2"), "backing": 3}),
        json!({"driver": "raw", "node-name": "a", "file": {"filename": "r.img"}}),
        json!({"driver": "raw", "node-name": "a", "file": {"driver": "file"}}),
        json!({"driver": "raw", "node-name": "a", "file": {"driver": "file", "filename": "r.img", "x": 1}}),
    ];
    let mut bad = Vec::new();
    for row in rows {
        let want = qemu("-blockdev", &row.to_string(), dir.path());
        let got = BlockGraph::new().blockdev_add(row.clone()).err().map(ours);
        if got != want {
            bad.push(format!("{row}\n  qemu: {want:?}\n  ours: {got:?}"));
        }
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

#[test]
fn damaged_headers_are_refused_as_by_qemu() {
    if !have_tools() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    images(dir.path());
    std::env::set_current_dir(dir.path()).unwrap();
    let max = &u64::MAX.to_be_bytes()[..];
    let rows: Vec<(&str, usize, Vec<u8>)> = vec![
        ("version", 4, vec![0, 0, 0, 9]),
        ("backing offset", 8, max.to_vec()),
        ("backing length", 8, [0x200u64.to_be_bytes().to_vec(), vec![0, 1, 0, 0]].concat()),
        ("cluster bits low", 20, vec![0, 0, 0, 8]),
        ("cluster bits high", 20, vec![0, 0, 0, 22]),
        ("size huge", 24, max.to_vec()),
        ("size beyond l1", 24, (1u64 << 40).to_be_bytes().to_vec()),
        ("crypt", 32, vec![0, 0, 0, 7]),
        ("l1 size", 36, vec![0xff; 4]),
        ("l1 size 0", 36, vec![0; 4]),
        ("l1 unaligned", 40, 0x30001u64.to_be_bytes().to_vec()),
        ("l1 huge", 40, max.to_vec()),
        ("reftable unaligned", 48, 0x10001u64.to_be_bytes().to_vec()),
        ("reftable huge", 48, max.to_vec()),
        ("reftable clusters 0", 56, vec![0; 4]),
        ("reftable clusters huge", 56, vec![0xff; 4]),
        ("snapshots many", 60, vec![0xff; 4]),
        ("snapshot offset", 60, [vec![0, 0, 0, 1], 3u64.to_be_bytes().to_vec()].concat()),
        ("unknown incompatible", 72, (1u64 << 40).to_be_bytes().to_vec()),
        ("corrupt", 72, 2u64.to_be_bytes().to_vec()),
        ("refcount order", 96, vec![0, 0, 0, 7]),
        ("header short", 100, vec![0, 0, 0, 72]),
        ("header long", 100, vec![0xff; 4]),
        ("compression bit", 72, 8u64.to_be_bytes().to_vec()),
        ("compression type", 104, vec![1]),
        ("extension length", 112, [vec![1, 2, 3, 4], vec![0xff; 4]].concat()),
    ];
    let mut bad = Vec::new();
    for (what, at, bytes) in rows {
        mutant(dir.path(), "m.qcow2", at, &bytes);
        let want = qemu("-drive", "file=m.qcow2,format=qcow2,if=none,id=d", dir.path());
        let before = std::fs::read("m.qcow2").unwrap();
        let got =
            drive(&BlockGraph::new(), "d", Path::new("m.qcow2"), &[("format", "qcow2")]).err().map(ours);
        if got != want {
            bad.push(format!("{what}\n  qemu: {want:?}\n  ours: {got:?}"));
        }
        if got.is_some() && want.is_some() {
            assert!(std::fs::read("m.qcow2").unwrap() == before, "{what}: a refused image was changed");
        }
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

#[test]
fn graph_rules_are_qemus() {
    let dir = tempfile::tempdir().unwrap();
    let p = |n: &str| dir.path().join(n).to_str().unwrap().to_owned();
    std::fs::write(p("r.img"), vec![0u8; 65536]).unwrap();
    std::fs::write(p("w.img"), vec![0u8; 65536]).unwrap();
    let graph = BlockGraph::new();
    graph.blockdev_add(json!({"driver": "file", "node-name": "f", "filename": p("r.img")})).unwrap();
    graph.blockdev_add(json!({"driver": "raw", "node-name": "r", "file": "f"})).unwrap();
    assert_eq!(graph.blockdev_del("f").unwrap_err().to_string(), "Block device f is in use");
    assert_eq!(graph.blockdev_del("zz").unwrap_err().to_string(), "Failed to find node with node-name='zz'");
    let inner = json!({"driver": "file", "node-name": "inner", "filename": p("w.img")});
    graph.blockdev_add(json!({"driver": "raw", "node-name": "r2", "file": inner})).unwrap();
    assert_eq!(
        graph.blockdev_del("inner").unwrap_err().to_string(),
        "Node inner is not owned by the monitor"
    );
    let disk = Attach { resizable: true, ..Default::default() };
    let (one, two) = (graph.backend_for("r").unwrap(), graph.backend_for("r").unwrap());
    one.attach("/machine/peripheral-anon/device[0]/virtio-backend", disk).unwrap();
    assert_eq!(
        two.attach("/machine/peripheral/two/virtio-backend", disk).unwrap_err().to_string(),
        "Permission conflict on node 'r': permissions 'write' are both required by block device \
         '/machine/peripheral-anon/device[0]/virtio-backend' (uses node 'r' as 'root' child) and unshared by block \
         device '/machine/peripheral/two/virtio-backend' (uses node 'r' as 'root' child)."
    );
    assert_eq!(graph.blockdev_del("r").unwrap_err().to_string(), "Block device r is in use");
    one.resize(131072).unwrap();
    assert_eq!(one.len(), 131072);
    one.detach();
    drop((one, two));
    graph.blockdev_del("r").unwrap();
    graph.blockdev_del("f").unwrap();
    graph.blockdev_del("r2").unwrap();
    assert!(graph.nodes().is_empty());
}
