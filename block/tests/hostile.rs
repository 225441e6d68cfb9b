//! Damaged and hostile images: any answer is fine, but no panic, no runaway memory, no endless work.

mod common;
use common::*;
use proptest::prelude::*;
use rqemu_block::*;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

struct Seeds {
    _dir: tempfile::TempDir,
    dir: PathBuf,
    images: Vec<Vec<u8>>,
}

/// Small images with everything in them: data, zero clusters, compressed clusters, a snapshot.
fn seeds() -> Option<&'static Seeds> {
    static SEEDS: OnceLock<Option<Seeds>> = OnceLock::new();
    SEEDS
        .get_or_init(|| {
            if !have_tools() {
                return None;
            }
            let tmp = tempfile::tempdir().unwrap();
            let dir = tmp.path().to_owned();
            let mut images = Vec::new();
            for opt in ["cluster_size=512", "cluster_size=4k,refcount_bits=1", "compat=0.10,cluster_size=1k"]
            {
                let (raw, q) = (dir.join("a.raw"), dir.join("a.qcow2"));
                let data: Vec<u8> = (0..128 << 10).map(|i| (i / 300) as u8).collect();
                std::fs::write(&raw, data).unwrap();
                img(&["convert", "-f", "raw", "-O", "qcow2", "-c", "-o", opt, s(&raw), s(&q)]);
                let mut io = vec!["-f", "qcow2", "-c", "write -P 5 10k 20k"];
                if !opt.contains("0.10") {
                    io.extend(["-c", "write -z 40k 8k"]);
                }
                io.push(s(&q));
                assert!(run("qemu-io", &io).status.success());
                if !opt.contains("refcount_bits=1") {
                    img(&["snapshot", "-c", "one", s(&q)]);
                }
                images.push(std::fs::read(&q).unwrap());
            }
            Some(Seeds { _dir: tmp, dir, images })
        })
        .as_ref()
}

fn exercise(image: &[u8], dir: &std::path::Path) {
    let start = Instant::now();
    let file = tempfile::Builder::new().suffix(".qcow2").tempfile_in(dir).unwrap();
    std::fs::write(file.path(), image).unwrap();
    for ro in ["on", "off"] {
        let graph = BlockGraph::new();
        let opts = [("format", "qcow2"), ("readonly", ro), ("discard", "unmap"), ("file.locking", "off")];
        if let Ok(b) = drive(&graph, "d", file.path(), &opts) {
            let mut buf = vec![0u8; 64 << 10];
            let len = b.len();
            for off in [0, 40 << 10, 100 << 10, len.saturating_sub(64 << 10)] {
                let n = len.saturating_sub(off).min(64 << 10) as usize;
                let _ = b.read_at(off, &mut buf[..n]);
                let _ = b.write_at(off, &buf[..n.min(5000)]);
            }
            let _ = b.write_zeroes(1000, 30_000, true);
            let _ = b.discard(0, 64 << 10);
            let _ = b.flush();
            let _ = b.resize(300 << 10);
            let _ = b.write_at(200 << 10, &buf);
            let _ = query::backend_stats(&b);
            let _ = graph.query_named_nodes(false);
        }
        graph.shutdown();
    }
    assert!(start.elapsed() < Duration::from_secs(20), "took {:?}", start.elapsed());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, rng_seed: proptest::test_runner::RngSeed::Fixed(2024), ..ProptestConfig::default() })]

    #[test]
    fn damaged_images_do_no_harm(
        which in 0usize..3,
        hits in prop::collection::vec((any::<u32>(), any::<u8>(), any::<u64>()), 1..8),
        cut in prop::option::of(any::<u32>()),
    ) {
        let Some(seeds) = seeds() else { return Ok(()) };
        let mut image = seeds.images[which].clone();
        for (at, how, value) in hits {
            // Mostly metadata: header, then aligned words anywhere.
            let at = match how % 4 {
                0 => at as usize % 112,
                _ => at as usize % image.len() / 8 * 8,
            };
            let word = match how % 5 {
                0 => value,
                1 => value % 4096,
                2 => (value % 512) << 9,
                3 => (value % 512) << 9 | 1 << 63,
                _ => u64::MAX << (value % 64),
            };
            for (i, b) in word.to_be_bytes().into_iter().enumerate() {
                if let Some(x) = image.get_mut(at + i) {
                    *x = b;
                }
            }
        }
        if let Some(c) = cut {
            image.truncate(c as usize % image.len());
        }
        exercise(&image, &seeds.dir);
    }
}

#[test]
fn a_backing_chain_that_bites_its_tail_ends_in_an_error() {
    if !have_tools() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a.qcow2"), dir.path().join("b.qcow2"));
    img(&["create", "-q", "-f", "qcow2", "-u", "-b", "b.qcow2", "-F", "qcow2", s(&a), "1M"]);
    img(&["create", "-q", "-f", "qcow2", "-u", "-b", "a.qcow2", "-F", "qcow2", s(&b), "1M"]);
    let e = drive(&BlockGraph::new(), "d", &a, &[("readonly", "on"), ("format", "qcow2")]).unwrap_err();
    assert!(e.to_string().starts_with("Could not open backing file"), "{e}");
}

#[test]
fn long_chains_open() {
    if !have_tools() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let name = |i: usize| dir.path().join(format!("{i}.qcow2"));
    img(&["create", "-q", "-f", "qcow2", s(&name(0)), "1M"]);
    let image = std::fs::read({
        img(&["create", "-q", "-f", "qcow2", "-u", "-b", "000.qcow2", "-F", "qcow2", s(&name(1)), "1M"]);
        name(1)
    })
    .unwrap();
    let at = image.windows(9).position(|w| w == b"000.qcow2").unwrap();
    for i in 1..150 {
        let mut copy = image.clone();
        let below = format!("{}.qcow2\0\0", i - 1);
        copy[at..at + 9].copy_from_slice(&below.as_bytes()[..9]);
        std::fs::write(name(i), copy).unwrap();
    }
    let graph = BlockGraph::new();
    let b = drive(&graph, "d", &name(149), &[("format", "qcow2")]).unwrap();
    b.write_at(0, &[1; 100]).unwrap();
    assert_eq!(query::depth(&b.root().unwrap()), 149);
    let mut buf = [9; 512];
    b.read_at(65536, &mut buf).unwrap();
    assert_eq!(buf, [0; 512]);
}
