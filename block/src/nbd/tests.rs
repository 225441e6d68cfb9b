use super::client::{parse_name, Server};
use super::*;
use crate::{Attach, BlockGraph, DriveOpts};
use std::process::Command;

#[test]
fn names() {
    let unix = |p: &str, e: &str| Some((Server::Unix(p.into()), e.into()));
    let inet = |h: &str, p: &str, e: &str| Some((Server::Inet(h.into(), p.into()), e.into()));
    assert_eq!(parse_name("nbd://h:1/x%20y"), inet("h", "1", "x y"));
    assert_eq!(parse_name("nbd://h"), inet("h", "10809", ""));
    assert_eq!(parse_name("nbd+unix:///e?socket=/s"), unix("/s", "e"));
    assert_eq!(parse_name("nbd:unix:/s:exportname=e"), unix("/s", "e"));
    assert_eq!(parse_name("nbd:h:2"), inet("h", "2", ""));
    assert_eq!(parse_name("nbd:"), None);
}

fn disk(graph: &BlockGraph, file: &str) -> crate::BlockBackend {
    let options = [("file", file), ("format", "raw"), ("discard", "unmap")];
    let options = options.map(|(a, b)| (a.to_owned(), b.to_owned())).to_vec();
    let b = graph.open_drive(&DriveOpts { id: "d0".into(), options, ..Default::default() }).unwrap().backend;
    b.attach("dev", Attach { share_rw: true, resizable: true, ..Default::default() }).unwrap();
    b
}

/// Our client on our server, and the real tools on it.
#[test]
fn served_and_used() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d.img");
    std::fs::write(&path, vec![7u8; 1 << 20]).unwrap();
    let graph = BlockGraph::new();
    let d = disk(&graph, path.to_str().unwrap());
    let sock = dir.path().join("s").to_str().unwrap().to_owned();
    graph.nbd_start(&NbdAddr::Unix(sock.clone()), 0).unwrap();
    let export = |name: &str, writable| ExportOpts {
        id: format!("id-{name}"),
        node: "d0".into(),
        name: Some(name.into()),
        writable,
        ..Default::default()
    };
    drop(graph.bitmap_add("d0", "b", None, false, false).unwrap());
    graph.export_add(ExportOpts { bitmaps: vec![("d0".into(), "b".into())], ..export("rw", true) }).unwrap();
    graph.export_add(export("ro", false)).unwrap();
    assert!(graph.export_add(export("rw", true)).is_err());
    let (server, name) = parse_name(&format!("nbd+unix:///rw?socket={sock}")).unwrap();
    let (c, ro) = client::open(server.clone(), &name, 0).unwrap();
    use crate::Driver;
    assert!(!ro && c.len() == 1 << 20);
    let mut buf = [0; 5000];
    c.writev(100_000, &[crate::iov::own_ro(&[3; 5000])], true).unwrap();
    c.readv(100_000, &[crate::iov::own(&mut buf)]).unwrap();
    assert_eq!(buf, [3; 5000]);
    c.write_zeroes(200_000, 100_000, true).unwrap();
    c.discard(400_000, 4096).unwrap();
    d.read_at(200_000, &mut buf).unwrap();
    assert_eq!(buf, [0; 5000]);
    c.close().unwrap();
    let (c, ro) = client::open(server.clone(), "ro", 0).unwrap();
    assert!(ro);
    assert!(c.writev(0, &[crate::iov::own_ro(&[3; 512])], false).is_err());
    drop(c);
    assert!(client::open(server, "none", 0).is_err());
    if Command::new("qemu-img").arg("--version").output().is_ok_and(|o| o.status.success()) {
        let url = format!("nbd+unix:///rw?socket={sock}");
        let copy = dir.path().join("copy.img");
        let run = |args: &[&str]| {
            let o = Command::new("qemu-img").args(args).output().unwrap();
            assert!(o.status.success(), "{args:?}: {}", String::from_utf8_lossy(&o.stderr));
            String::from_utf8_lossy(&o.stdout).into_owned()
        };
        run(&["convert", "-f", "raw", "-O", "raw", &url, copy.to_str().unwrap()]);
        assert!(std::fs::read(&copy).unwrap() == std::fs::read(&path).unwrap());
        let map = format!(
            "driver=nbd,export=rw,server.type=unix,server.path={sock},x-dirty-bitmap=qemu:dirty-bitmap:b"
        );
        let text = run(&["map", "--output=json", "--image-opts", &map]);
        // Dirty parts show as not allocated in this way of looking.
        assert!(text.contains("\"start\": 65536, \"length\": 65536"), "{text}");
    }
    graph.export_del("id-ro", false, true).unwrap();
    assert_eq!(graph.query_exports().len(), 1);
    assert_eq!(graph.nbd_stop().unwrap(), ["id-rw"]);
    assert!(graph.nbd_stop().is_err());
    d.detach();
}
