//! Internal snapshots, against flat copies and the real tool.

mod common;
use common::*;
use rqemu_block::*;

const M: u64 = 1 << 20;

fn fill(b: &BlockBackend, shadow: &mut [u8], rng: &mut Rng) {
    for _ in 0..12 {
        let len = 1 + rng.below(200_000);
        let off = rng.below(shadow.len() as u64 - len);
        let part = &mut shadow[off as usize..(off + len) as usize];
        match rng.below(4) {
            0 => {
                part.fill(0);
                b.write_zeroes(off, len, rng.below(2) == 0).unwrap();
            }
            _ => {
                let v = rng.next() as u8;
                part.fill(v);
                b.write_at(off, part).unwrap();
            }
        }
    }
}

fn info(name: &str) -> SnapshotInfo {
    SnapshotInfo { name: name.into(), date_sec: 1_700_000_000, vm_clock_ns: 5, ..Default::default() }
}

fn round(create: &[&str], seed: u64) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d.qcow2");
    let mut args = vec!["create", "-q", "-f", "qcow2"];
    args.extend(create);
    args.extend([s(&path), "6M"]);
    img(&args);
    let mut rng = Rng(seed);
    let mut shadow = vec![0u8; 6 * M as usize];
    let mut saved: Vec<(String, Vec<u8>)> = Vec::new();
    for turn in 0..8 {
        let graph = BlockGraph::new();
        let b = drive(&graph, "d0", &path, &[("format", "qcow2"), ("discard", "unmap")]).unwrap();
        b.attach("dev", Attach::default()).unwrap();
        for _ in 0..3 {
            fill(&b, &mut shadow, &mut rng);
            match rng.below(4) {
                0 | 1 => {
                    let name = format!("s{turn}-{}", rng.next() % 10_000);
                    drop(graph.snapshot_internal("d0", info(&name)).unwrap());
                    saved.push((name, shadow.clone()));
                }
                2 if !saved.is_empty() => {
                    let i = rng.below(saved.len() as u64) as usize;
                    let (name, _) = saved.remove(i);
                    graph.snapshot_delete_internal("d0", None, Some(&name)).unwrap();
                }
                _ if !saved.is_empty() => {
                    let i = rng.below(saved.len() as u64) as usize;
                    graph.with_snapshots(&b.root().unwrap(), |s| s.apply(i)).unwrap().unwrap();
                    shadow.clone_from(&saved[i].1);
                }
                _ => {}
            }
            let mut got = vec![1u8; shadow.len()];
            b.read_at(0, &mut got).unwrap();
            assert!(got == shadow, "active contents, turn {turn}");
        }
        b.detach();
        drop(b);
        graph.shutdown();
        drop(graph);
        check(&path);
        assert!(contents(&path, dir.path()) == shadow);
        for (name, data) in &saved {
            let out = dir.path().join("snap.raw");
            img(&["convert", "-q", "-O", "raw", "-l", name, s(&path), s(&out)]);
            assert!(std::fs::read(&out).unwrap() == *data, "snapshot {name}");
        }
    }
}

#[test]
fn random_snapshots() {
    if !have_tools() {
        return;
    }
    for (i, create) in [
        &[][..],
        &["-o", "cluster_size=4k"],
        &["-o", "compat=0.10"],
        &["-o", "cluster_size=512,refcount_bits=32"],
    ]
    .iter()
    .enumerate()
    {
        round(create, 77 + i as u64);
    }
}

#[test]
fn one_reference_only() {
    if !have_tools() {
        return;
    }
    // With one bit per refcount nothing can be shared: the attempt fails and harms nothing.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d.qcow2");
    img(&["create", "-q", "-f", "qcow2", "-o", "refcount_bits=1", s(&path), "6M"]);
    let graph = BlockGraph::new();
    let b = drive(&graph, "d0", &path, &[("format", "qcow2")]).unwrap();
    b.attach("dev", Attach::default()).unwrap();
    b.write_at(0, &[1; 4096]).unwrap();
    assert!(graph.snapshot_internal("d0", info("x")).is_err());
    b.write_at(100_000, &[2; 4096]).unwrap();
    b.detach();
    drop(b);
    graph.shutdown();
    check(&path);
}

#[test]
fn vm_state_is_kept() {
    if !have_tools() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d.qcow2");
    img(&["create", "-q", "-f", "qcow2", s(&path), "6M"]);
    let graph = BlockGraph::new();
    let b = drive(&graph, "d0", &path, &[("format", "qcow2")]).unwrap();
    b.attach("dev", Attach::default()).unwrap();
    b.write_at(0, &[1; 4096]).unwrap();
    let state: Vec<u8> = (0..3_000_000u32).map(|i| (i % 251) as u8).collect();
    let node = b.root().unwrap();
    graph
        .with_snapshots(&node, |s| {
            for (i, part) in state.chunks(700_000).enumerate() {
                s.write_vmstate(i as u64 * 700_000, part).unwrap();
            }
            s.create(SnapshotInfo { vm_state_size: state.len() as u64, ..info("vm") }).unwrap();
        })
        .unwrap();
    b.write_at(0, &[9; 4096]).unwrap();
    let mut back = vec![0; state.len()];
    graph
        .with_snapshots(&node, |s| {
            s.read_vmstate(0, &mut back).unwrap();
            assert!(back.iter().all(|b| *b == 0), "the active image has no state");
            s.apply(0).unwrap();
            s.read_vmstate(0, &mut back).unwrap();
        })
        .unwrap();
    assert!(back == state);
    drop(node);
    b.detach();
    drop(b);
    graph.shutdown();
    check(&path);
    assert!(img(&["snapshot", "-l", s(&path)]).contains("2.86 MiB"));
}
