//! The device interface: many requests in flight, every engine and cache mode, against a flat shadow.

mod common;
use common::*;
use rqemu_block::*;
use std::path::Path;
use std::sync::mpsc::{channel, Receiver, Sender};
use std::sync::{Arc, Mutex};

struct Sink(Mutex<Sender<(u64, IoResult)>>);

impl CompletionSink for Sink {
    fn complete(&self, tag: u64, result: IoResult) {
        let _ = self.0.lock().unwrap().send((tag, result));
    }
}

fn sink() -> (Arc<dyn CompletionSink>, Receiver<(u64, IoResult)>) {
    let (tx, rx) = channel();
    (Arc::new(Sink(Mutex::new(tx))), rx)
}

const DEPTH: u64 = 16;
const BLOCK: u64 = 24 << 10;

/// Keeps up to 16 requests in flight; no two of them overlap.
fn pound(b: &BlockBackend, shadow: &mut [u8], seed: u64, rounds: u32) {
    let (sink, rx) = sink();
    let mut rng = Rng(seed);
    for _ in 0..rounds {
        let base = rng.below((shadow.len() as u64 - DEPTH * BLOCK) / 512) * 512;
        let mut bufs: Vec<(Op, u64, Vec<u8>)> = Vec::new();
        for t in 0..DEPTH {
            let unit = [512, 4096][rng.below(2) as usize];
            let off = (base + t * BLOCK).div_ceil(unit) * unit;
            let len = unit * (1 + rng.below((base + (t + 1) * BLOCK - off) / unit));
            let len = len.min(base + (t + 1) * BLOCK - off) / 512 * 512;
            let op = [Op::Read, Op::Write { fua: false }, Op::Write { fua: true }][rng.below(3) as usize];
            let mut data = vec![0x5au8; len as usize];
            if op != Op::Read {
                data.iter_mut().for_each(|x| *x = rng.next() as u8);
                shadow[off as usize..(off + len) as usize].copy_from_slice(&data);
            }
            bufs.push((op, off, data));
        }
        b.plug();
        let mut pending = 0;
        for (tag, (op, off, data)) in bufs.iter_mut().enumerate() {
            let cut = (data.len() / 3) & !511;
            // SAFETY: the buffers are kept, untouched, until all completions have been received below.
            let iov = unsafe {
                [Seg::new(data.as_mut_ptr(), cut), Seg::new(data.as_mut_ptr().add(cut), data.len() - cut)]
            };
            let r = Request { op: *op, offset: *off, len: data.len() as u64, iov: &iov, tag: tag as u64 };
            match b.submit(r, &sink) {
                Submitted::Done(r) => r.unwrap(),
                Submitted::Pending => pending += 1,
            }
        }
        if let Submitted::Pending =
            b.submit(Request { op: Op::Flush, offset: 0, len: 0, iov: &[], tag: 99 }, &sink)
        {
            pending += 1;
        }
        b.unplug();
        for _ in 0..pending {
            rx.recv().unwrap().1.unwrap();
        }
        for (op, off, data) in &bufs {
            if *op == Op::Read {
                assert!(data[..] == shadow[*off as usize..*off as usize + data.len()], "read at {off}");
            }
        }
    }
    b.drain();
    assert_eq!(b.in_flight(), 0);
}

fn one(path: &Path, extra: &[(&str, &str)], shadow: &mut [u8]) {
    let graph = BlockGraph::new();
    let b = drive(&graph, "d", path, extra).unwrap();
    b.attach("dev", Attach { resizable: true, ..Default::default() }).unwrap();
    pound(&b, shadow, 12345, 25);
    b.enable_write_cache(false);
    pound(&b, shadow, 777, 3);
    drop(b);
    graph.shutdown();
}

#[test]
fn every_engine() {
    if !have_tools() {
        return;
    }
    let size = 2u64 << 20;
    for (i, extra) in [
        vec![("cache", "writeback")],
        vec![("cache", "none")],
        vec![("cache", "unsafe"), ("aio", "threads")],
        vec![("cache", "directsync"), ("aio", "native")],
        vec![("cache", "writethrough"), ("aio", "io_uring")],
        vec![("cache", "none"), ("aio", "io_uring")],
    ]
    .into_iter()
    .enumerate()
    {
        // On the disk, not in a tmpfs, so that O_DIRECT means something.
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let (raw, q) = (dir.path().join("r.img"), dir.path().join("q.qcow2"));
        std::fs::write(&raw, vec![0u8; size as usize]).unwrap();
        img(&["create", "-q", "-f", "qcow2", s(&q), &size.to_string()]);
        let mut shadow = vec![0u8; size as usize];
        one(&raw, &[&extra[..], &[("format", "raw")]].concat(), &mut shadow);
        assert!(std::fs::read(&raw).unwrap() == shadow, "raw {i}");
        let mut shadow = vec![0u8; size as usize];
        one(&q, &[&extra[..], &[("format", "qcow2")]].concat(), &mut shadow);
        check(&q);
        assert!(contents(&q, dir.path()) == shadow, "qcow2 {i}");
    }
}

#[test]
fn unaligned_direct_io() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let raw = dir.path().join("r.img");
    let mut shadow: Vec<u8> = (0..300_000u32).map(|x| (x / 7) as u8).collect();
    shadow.truncate(300_032);
    shadow.resize(300_032, 1);
    std::fs::write(&raw, &shadow).unwrap();
    let graph = BlockGraph::new();
    let b = drive(&graph, "d", &raw, &[("format", "raw"), ("cache", "none")]).unwrap();
    for (off, len) in [(1usize, 3usize), (511, 2), (5000, 70_001), (299_000, 1032), (0, 512)] {
        let data: Vec<u8> = (0..len).map(|x| (x * 3) as u8).collect();
        b.write_at(off as u64, &data).unwrap();
        shadow[off..off + len].copy_from_slice(&data);
        let mut got = vec![0; len];
        b.read_at(off as u64, &mut got).unwrap();
        assert!(got == data);
    }
    let mut got = vec![0; shadow.len()];
    b.read_at(0, &mut got).unwrap();
    assert!(got == shadow);
}

#[test]
fn bad_requests_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let raw = dir.path().join("r.img");
    std::fs::write(&raw, vec![0u8; 65536]).unwrap();
    let graph = BlockGraph::new();
    let b = drive(&graph, "d", &raw, &[("format", "raw"), ("readonly", "on")]).unwrap();
    let (sink, _rx) = sink();
    let mut mem = vec![0u8; 512];
    // SAFETY: `mem` outlives the refused requests.
    let iov = [unsafe { Seg::new(mem.as_mut_ptr(), 512) }];
    let req = |op, offset, len| Request { op, offset, len, iov: &iov, tag: 0 };
    let done = |e| Submitted::Done(Err(e));
    assert_eq!(b.submit(req(Op::Read, 65536, 512), &sink), done(Errno::EIO));
    assert_eq!(b.submit(req(Op::Read, u64::MAX, 512), &sink), done(Errno::EIO));
    assert_eq!(b.submit(req(Op::Read, 0, 1024), &sink), done(Errno::EINVAL));
    assert_eq!(b.submit(req(Op::Write { fua: false }, 0, 512), &sink), done(Errno::EPERM));
    let node = b.eject().unwrap();
    assert_eq!(b.submit(req(Op::Read, 0, 512), &sink), done(Errno::ENOMEDIUM));
    assert_eq!(b.len(), 0);
    b.insert(&node).unwrap();
    assert_eq!(b.len(), 65536);
    // A guessed raw image must not become something else.
    let w = drive(&graph, "w", &raw, &[]).unwrap();
    assert_eq!(graph.take_warnings().len(), 1);
    let mut evil = [0u8; 512];
    evil[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
    assert_eq!(w.write_at(0, &evil), Err(Errno::EPERM));
    w.write_at(0, &[1; 512]).unwrap();
    w.write_at(512, &evil).unwrap();
}

#[test]
fn counters_count() {
    let dir = tempfile::tempdir().unwrap();
    let raw = dir.path().join("r.img");
    std::fs::write(&raw, vec![0u8; 65536]).unwrap();
    let graph = BlockGraph::new();
    let b = drive(&graph, "d", &raw, &[("format", "raw")]).unwrap();
    b.write_at(4096, &[1; 1024]).unwrap();
    let mut buf = [0; 512];
    b.read_at(0, &mut buf).unwrap();
    b.read_at(70000, &mut buf).unwrap_err();
    b.flush().unwrap();
    let v = query::backend_stats(&b);
    let st = &v["stats"];
    assert_eq!((&st["wr_bytes"], &st["wr_operations"]), (&1024.into(), &1.into()));
    assert_eq!(
        (&st["rd_bytes"], &st["rd_operations"], &st["failed_rd_operations"]),
        (&512.into(), &1.into(), &1.into())
    );
    assert_eq!(st["flush_operations"], 1);
    assert_eq!(st["wr_highest_offset"], 5120);
    assert_eq!(v["parent"]["stats"]["wr_highest_offset"], 5120);
}

#[test]
fn discard_reaches_the_host_only_if_every_node_wants_it() {
    use serde_json::json;
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let raw = dir.path().join("r.img");
    for (file_discard, raw_discard, goes) in
        [("unmap", "unmap", true), ("ignore", "unmap", false), ("unmap", "ignore", false)]
    {
        std::fs::write(&raw, vec![1u8; 1 << 20]).unwrap();
        let graph = BlockGraph::new();
        let file = json!({"driver": "file", "filename": s(&raw), "discard": file_discard});
        graph
            .blockdev_add(json!({"driver": "raw", "node-name": "r", "discard": raw_discard, "file": file}))
            .unwrap();
        let b = graph.backend_for("r").unwrap();
        let before = std::fs::metadata(&raw).unwrap().blocks();
        b.discard(0, 1 << 20).unwrap();
        let after = std::fs::metadata(&raw).unwrap().blocks();
        assert_eq!(after < before, goes, "{file_discard} {raw_discard}");
        // Zeroes are zeroes, with the space given back or not.
        b.write_zeroes(4096, 8192, true).unwrap();
        let mut buf = vec![9; 8192];
        b.read_at(4096, &mut buf).unwrap();
        assert!(buf.iter().all(|x| *x == 0));
    }
}

#[test]
fn zero_writes_are_detected() {
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let raw = dir.path().join("r.img");
    std::fs::write(&raw, vec![1u8; 1 << 20]).unwrap();
    let graph = BlockGraph::new();
    let opts = [("format", "raw"), ("detect-zeroes", "unmap"), ("discard", "unmap")];
    let b = drive(&graph, "d", &raw, &opts).unwrap();
    let before = std::fs::metadata(&raw).unwrap().blocks();
    b.write_at(0, &vec![0; 512 << 10]).unwrap();
    assert!(std::fs::metadata(&raw).unwrap().blocks() < before);
    let mut buf = vec![9; 1 << 20];
    b.read_at(0, &mut buf).unwrap();
    assert!(buf[..512 << 10].iter().all(|x| *x == 0) && buf[512 << 10..].iter().all(|x| *x == 1));
}

#[test]
fn null_devices() {
    use serde_json::json;
    let graph = BlockGraph::new();
    graph
        .blockdev_add(json!({"driver": "null-co", "node-name": "n", "size": 65536, "read-zeroes": true}))
        .unwrap();
    graph.blockdev_add(json!({"driver": "null-aio", "node-name": "l", "latency-ns": 1000})).unwrap();
    let (n, l) = (graph.backend_for("n").unwrap(), graph.backend_for("l").unwrap());
    assert_eq!((n.len(), l.len()), (65536, 1 << 30));
    let mut buf = [9u8; 512];
    n.write_at(0, &buf).unwrap();
    n.read_at(0, &mut buf).unwrap();
    assert_eq!(buf, [0; 512]);
    let (sink, rx) = sink();
    // SAFETY: `buf` is not used until the completion has been received.
    let iov = [unsafe { Seg::new(buf.as_mut_ptr(), 512) }];
    let r = l.submit(Request { op: Op::Read, offset: 0, len: 512, iov: &iov, tag: 5 }, &sink);
    assert_eq!(r, Submitted::Pending);
    assert_eq!(rx.recv().unwrap(), (5, Ok(())));
}

#[test]
fn every_layout_through_the_device_interface() {
    if !have_tools() {
        return;
    }
    let size = 2u64 << 20;
    for opt in [
        "cluster_size=512,refcount_bits=1",
        "cluster_size=4k",
        "compat=0.10,cluster_size=1k",
        "cluster_size=2M",
    ] {
        let dir = tempfile::tempdir().unwrap();
        let q = dir.path().join("q.qcow2");
        img(&["create", "-q", "-f", "qcow2", "-o", opt, s(&q), &size.to_string()]);
        let mut shadow = vec![0u8; size as usize];
        for cache in ["16M", "2k"] {
            let extra = [("format", "qcow2"), ("cache", "unsafe"), ("l2-cache-size", cache)];
            one(&q, &extra, &mut shadow);
            check(&q);
            assert!(contents(&q, dir.path()) == shadow, "{opt} {cache}");
        }
    }
}
