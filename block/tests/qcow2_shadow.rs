//! Random work on images made by the real tool, against a flat shadow, checked by the real tool.

mod common;
use common::*;
use rqemu_block::*;
use std::path::Path;

struct Case {
    name: &'static str,
    create: &'static [&'static str],
    size: u64,
}

const K: u64 = 1 << 10;
const M: u64 = 1 << 20;

const CASES: &[Case] = &[
    Case { name: "plain", create: &[], size: 8 * M },
    Case { name: "v2", create: &["-o", "compat=0.10"], size: 4 * M },
    Case { name: "c512", create: &["-o", "cluster_size=512"], size: 2 * M + 512 },
    Case { name: "c512rb1", create: &["-o", "cluster_size=512,refcount_bits=1"], size: M },
    Case { name: "c512rb64", create: &["-o", "cluster_size=512,refcount_bits=64"], size: M },
    Case { name: "c1k", create: &["-o", "cluster_size=1k,refcount_bits=2"], size: M },
    Case { name: "c4k", create: &["-o", "cluster_size=4k,refcount_bits=8"], size: 4 * M + 512 },
    Case { name: "c2m", create: &["-o", "cluster_size=2M,refcount_bits=4"], size: 20 * M },
    Case { name: "lazy", create: &["-o", "lazy_refcounts=on,refcount_bits=32"], size: 4 * M },
    Case { name: "prealloc", create: &["-o", "preallocation=metadata"], size: 4 * M },
    Case { name: "v2c1k", create: &["-o", "compat=0.10,cluster_size=1k"], size: M + 1536 },
];

fn fill(buf: &mut [u8], rng: &mut Rng) {
    for c in buf.chunks_mut(8) {
        let v = rng.next().to_le_bytes();
        c.copy_from_slice(&v[..c.len()]);
    }
}

fn step(b: &BlockBackend, shadow: &mut [u8], rng: &mut Rng, v3_or_no_backing: bool) {
    let size = shadow.len() as u64;
    let max = [512, 4 * K, 64 * K, 300 * K][rng.below(4) as usize];
    let unit = [1, 512, 4096][rng.below(3) as usize];
    let off = rng.below(size) / unit * unit;
    let len = (1 + rng.below(max)).min(size - off);
    let (o, e) = (off as usize, (off + len) as usize);
    match rng.below(10) {
        0..=4 => {
            fill(&mut shadow[o..e], rng);
            b.write_at(off, &shadow[o..e]).unwrap();
        }
        5 | 6 => {
            let mut got = vec![0x5a; len as usize];
            b.read_at(off, &mut got).unwrap();
            assert!(got == shadow[o..e], "read {off}+{len}");
        }
        7 => {
            b.write_zeroes(off, len, rng.below(2) == 0).unwrap();
            shadow[o..e].fill(0);
        }
        8 => {
            b.discard(off, len).unwrap();
            // Whatever it reads as now is right, if it is old or zero.
            let mut got = vec![0x5a; len as usize];
            b.read_at(off, &mut got).unwrap();
            for (g, s) in got.iter().zip(&shadow[o..e]) {
                assert!(g == s || *g == 0 || !v3_or_no_backing);
            }
            shadow[o..e].copy_from_slice(&got);
        }
        _ => b.flush().unwrap(),
    }
}

fn work(
    path: &Path,
    dir: &Path,
    mut shadow: Vec<u8>,
    seed: u64,
    steps: u32,
    extra: &[(&str, &str)],
) -> Vec<u8> {
    let mut rng = Rng(seed | 1);
    for _ in 0..2 {
        let graph = BlockGraph::new();
        let b = drive(&graph, "d", path, extra).unwrap();
        assert_eq!(b.len(), shadow.len() as u64);
        for _ in 0..steps {
            step(&b, &mut shadow, &mut rng, true);
        }
        let mut all = vec![0; shadow.len()];
        b.read_at(0, &mut all).unwrap();
        assert!(all == shadow);
        drop(b);
        graph.shutdown();
        drop(graph);
        check(path);
        assert!(contents(path, dir) == shadow);
    }
    shadow
}

const OPTS: &[(&str, &str)] = &[("format", "qcow2"), ("discard", "unmap")];

#[test]
fn every_layout() {
    if !have_tools() {
        return;
    }
    for c in CASES {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.qcow2");
        let mut args = vec!["create", "-q", "-f", "qcow2"];
        args.extend(c.create);
        let size = c.size.to_string();
        args.extend([s(&path), &size]);
        img(&args);
        for seed in 1..3 {
            eprintln!("{} seed {seed}", c.name);
            let now = contents(&path, dir.path());
            work(&path, dir.path(), now, seed * 7919, 120, OPTS);
        }
        // A tiny cache must change nothing.
        let now = contents(&path, dir.path());
        let small = [OPTS, &[("l2-cache-size", "512")]].concat();
        work(&path, dir.path(), now, 31, 80, &small);
    }
}

#[test]
fn over_backing_images() {
    if !have_tools() {
        return;
    }
    for (fmt, size, opt) in [
        ("raw", 3 * M + 512, "compat=1.1"),
        ("qcow2", M, "compat=1.1,cluster_size=4k"),
        ("qcow2", 8 * M, "compat=0.10"),
        ("raw", 6 * M, "compat=1.1,cluster_size=512"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (base, path) = (dir.path().join("base.img"), dir.path().join("top.qcow2"));
        let raw = dir.path().join("base.raw");
        let mut data = vec![0u8; size as usize];
        fill(&mut data, &mut Rng(5));
        data[100_000..200_000].fill(0);
        std::fs::write(&raw, &data).unwrap();
        img(&["convert", "-f", "raw", "-O", fmt, s(&raw), s(&base)]);
        // A relative name, resolved against the directory of the overlay.
        let top = 4 * M;
        img(&[
            "create",
            "-q",
            "-f",
            "qcow2",
            "-o",
            opt,
            "-b",
            "base.img",
            "-F",
            fmt,
            s(&path),
            &top.to_string(),
        ]);
        let before = std::fs::read(&base).unwrap();
        let now = contents(&path, dir.path());
        work(&path, dir.path(), now, 99, 150, OPTS);
        assert!(std::fs::read(&base).unwrap() == before, "the backing image was written to");
    }
}

#[test]
fn over_compressed_clusters() {
    if !have_tools() {
        return;
    }
    for cluster in ["512", "4k", "64k", "2M"] {
        let dir = tempfile::tempdir().unwrap();
        let (raw, path) = (dir.path().join("a.raw"), dir.path().join("c.qcow2"));
        let mut data = vec![0u8; 6 << 20];
        for (i, c) in data.chunks_mut(64).enumerate() {
            c.fill((i % 251) as u8);
        }
        std::fs::write(&raw, &data).unwrap();
        let o = format!("cluster_size={cluster}");
        img(&["convert", "-f", "raw", "-O", "qcow2", "-c", "-o", &o, s(&raw), s(&path)]);
        work(&path, dir.path(), data, 4242, 120, OPTS);
    }
}

#[test]
fn snapshots_stay_intact() {
    if !have_tools() {
        return;
    }
    for opt in ["compat=1.1", "compat=1.1,cluster_size=512,refcount_bits=4", "compat=0.10,cluster_size=4k"] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.qcow2");
        img(&["create", "-q", "-f", "qcow2", "-o", opt, s(&path), "2M"]);
        let now = contents(&path, dir.path());
        let first = work(&path, dir.path(), now, 17, 60, OPTS);
        img(&["snapshot", "-c", "one", s(&path)]);
        let second = work(&path, dir.path(), first.clone(), 18, 60, OPTS);
        img(&["snapshot", "-c", "two", s(&path)]);
        work(&path, dir.path(), second.clone(), 19, 60, OPTS);
        img(&["snapshot", "-a", "one", s(&path)]);
        assert!(contents(&path, dir.path()) == first);
        img(&["snapshot", "-a", "two", s(&path)]);
        assert!(contents(&path, dir.path()) == second);
        img(&["snapshot", "-d", "one", s(&path)]);
        work(&path, dir.path(), second, 20, 60, OPTS);
    }
}

#[test]
fn resize_grows_and_shrinks() {
    if !have_tools() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("r.qcow2");
    img(&["create", "-q", "-f", "qcow2", "-o", "cluster_size=512", s(&path), "1M"]);
    let shadow = work(&path, dir.path(), vec![0; 1 << 20], 3, 60, OPTS);
    let graph = BlockGraph::new();
    let b = drive(&graph, "d", &path, OPTS).unwrap();
    b.resize(9 << 20).unwrap();
    b.write_at(8 << 20, &[7; 5000]).unwrap();
    b.resize(700 * 512).unwrap();
    b.resize(2 << 20).unwrap();
    assert_eq!(b.len(), 2 << 20);
    drop(b);
    graph.shutdown();
    check(&path);
    let mut want = shadow[..700 * 512].to_vec();
    want.resize(2 << 20, 0);
    assert!(contents(&path, dir.path()) == want);
}

#[test]
fn snapshot_on_leaves_the_image_alone() {
    if !have_tools() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let raw = dir.path().join("a.raw");
    std::fs::write(&raw, vec![3u8; 1 << 20]).unwrap();
    let graph = BlockGraph::new();
    let b = drive(&graph, "d", &raw, &[("format", "raw"), ("snapshot", "on")]).unwrap();
    b.attach("dev", Attach { resizable: true, ..Default::default() }).unwrap();
    b.write_at(1000, &[9; 3000]).unwrap();
    let mut got = [0u8; 4096];
    b.read_at(0, &mut got).unwrap();
    assert!(got[..1000].iter().all(|x| *x == 3) && got[1000..4000].iter().all(|x| *x == 9));
    graph.shutdown();
    assert!(std::fs::read(&raw).unwrap().iter().all(|x| *x == 3));
}

#[test]
fn many_threads_share_clusters() {
    if !have_tools() {
        return;
    }
    for opt in ["cluster_size=64k", "cluster_size=4k,refcount_bits=1", "cluster_size=512", "cluster_size=2M"]
    {
        let dir = tempfile::tempdir().unwrap();
        let (base, path) = (dir.path().join("b.raw"), dir.path().join("t.qcow2"));
        let size = 4 * M;
        let mut data = vec![0u8; size as usize];
        fill(&mut data, &mut Rng(77));
        std::fs::write(&base, &data).unwrap();
        img(&["create", "-q", "-f", "qcow2", "-o", opt, "-b", "b.raw", "-F", "raw", s(&path)]);
        let graph = BlockGraph::new();
        let b = drive(&graph, "d", &path, OPTS).unwrap();
        // Thread t owns the blocks of 3 KiB whose number is t mod 4: neighbours share clusters.
        let shadow = std::thread::scope(|sc| {
            let threads: Vec<_> = (0..4u64)
                .map(|t| {
                    let (b, data) = (b.clone(), &data);
                    sc.spawn(move || {
                        let mut rng = Rng(1000 + t);
                        let mut mine: Vec<(usize, Vec<u8>)> = Vec::new();
                        for _ in 0..300 {
                            let n = rng.below(size / (3 * K) / 4) * 4 + t;
                            let off = (n * 3 * K) as usize;
                            let mut block = vec![0u8; 3 * K as usize];
                            match rng.below(4) {
                                0 => b.write_zeroes(off as u64, 3 * K, rng.below(2) == 0).unwrap(),
                                1 => {
                                    b.read_at(off as u64, &mut block).unwrap();
                                    let want =
                                        mine.iter().rev().find(|(o, _)| *o == off).map(|(_, d)| &d[..]);
                                    assert!(block == want.unwrap_or(&data[off..off + 3 * K as usize]));
                                    continue;
                                }
                                2 if rng.below(4) == 0 => {
                                    b.flush().unwrap();
                                    continue;
                                }
                                _ => {
                                    fill(&mut block, &mut rng);
                                    b.write_at(off as u64, &block).unwrap();
                                }
                            }
                            mine.push((off, block));
                        }
                        mine
                    })
                })
                .collect();
            let mut shadow = data.clone();
            for t in threads {
                for (o, d) in t.join().unwrap() {
                    shadow[o..o + d.len()].copy_from_slice(&d);
                }
            }
            shadow
        });
        drop(b);
        graph.shutdown();
        check(&path);
        assert!(contents(&path, dir.path()) == shadow);
    }
}

#[test]
fn dirty_lazy_images_are_repaired() {
    if !have_tools() {
        return;
    }
    for opt in ["lazy_refcounts=on", "lazy_refcounts=on,cluster_size=4k"] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("l.qcow2");
        img(&["create", "-q", "-f", "qcow2", "-o", opt, s(&path), "4M"]);
        // The real program flushes and dies: refcounts were never written.
        let o = run(
            "qemu-io",
            &["-f", "qcow2", "-c", "write -P 7 64k 300k", "-c", "flush", "-c", "sigraise 9", s(&path)],
        );
        assert!(!o.status.success());
        let o = run("qemu-img", &["check", s(&path)]);
        assert_ne!(o.status.code(), Some(0), "the image should be in need of repair");
        let graph = BlockGraph::new();
        let ro = drive(&graph, "r", &path, &[("readonly", "on")]).unwrap();
        let mut got = vec![0; 300 << 10];
        ro.read_at(64 << 10, &mut got).unwrap();
        assert!(got.iter().all(|x| *x == 7));
        graph.shutdown();
        drop((ro, graph));
        let now = contents(&path, dir.path());
        work(&path, dir.path(), now, 55, 40, OPTS);
    }
}
