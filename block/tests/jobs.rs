//! Block jobs while a guest writes.

mod common;
use common::*;
use rqemu_block::*;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{mpsc, Arc};
use std::time::{Duration, Instant};

const M: u64 = 1 << 20;
const SIZE: u64 = 8 * M;

struct Sink(mpsc::Sender<IoResult>);
impl CompletionSink for Sink {
    fn complete(&self, _tag: u64, r: IoResult) {
        let _ = self.0.send(r);
    }
}

/// Writes at random through the asynchronous interface until told to stop; returns what the disk should hold.
fn guest(b: BlockBackend, mut shadow: Vec<u8>, stop: Arc<AtomicBool>, seed: u64) -> Vec<u8> {
    let (tx, rx) = mpsc::channel();
    let sink: Arc<dyn CompletionSink> = Arc::new(Sink(tx));
    let mut rng = Rng(seed);
    while !stop.load(Relaxed) {
        let len = 512 * (1 + rng.below(64));
        let off = rng.below((SIZE - len) / 512) * 512;
        let part = &mut shadow[off as usize..(off + len) as usize];
        part.fill(rng.next() as u8);
        // SAFETY: the buffer is not touched until the request has completed.
        let iov = [unsafe { Seg::new(part.as_mut_ptr(), part.len()) }];
        let req = Request { op: Op::Write { fua: false }, offset: off, len, iov: &iov, tag: 0 };
        match b.submit(req, &sink) {
            Submitted::Done(r) => r.unwrap(),
            Submitted::Pending => rx.recv().unwrap().unwrap(),
        }
    }
    shadow
}

fn opts(id: &str) -> JobOpts {
    JobOpts { id: id.into(), speed: 0, auto_finalize: true, auto_dismiss: true }
}

/// Polls until an event with this name comes; fails after a while.
fn until(graph: &BlockGraph, name: &str, status: Option<&str>) {
    let end = Instant::now() + Duration::from_secs(60);
    while Instant::now() < end {
        for (n, d) in graph.poll_jobs() {
            assert!(d.get("error").is_none(), "{d}");
            if n == name && status.is_none_or(|s| d["status"] == s) {
                return;
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("no {name}");
}

struct Chain {
    dir: tempfile::TempDir,
    graph: BlockGraph,
    disk: BlockBackend,
    shadow: Vec<u8>,
}

fn path(c: &Chain, name: &str) -> String {
    c.dir.path().join(name).to_str().unwrap().into()
}

/// base <- mid <- top, each with some data.
fn chain() -> Chain {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().join("base.qcow2");
    img(&["create", "-q", "-f", "qcow2", s(&base), &SIZE.to_string()]);
    let graph = BlockGraph::new();
    let disk = drive(&graph, "d0", &base, &[("format", "qcow2")]).unwrap();
    disk.attach("dev", Attach { resizable: true, ..Attach::default() }).unwrap();
    let mut c = Chain { dir, graph, disk, shadow: vec![0; SIZE as usize] };
    let put = |c: &mut Chain, off: u64, len: u64, v: u8| {
        c.shadow[off as usize..(off + len) as usize].fill(v);
        c.disk.write_at(off, &vec![v; len as usize]).unwrap();
    };
    put(&mut c, 0, 3 * M, 1);
    snap(&c, "mid.qcow2", "mid");
    put(&mut c, M, 3 * M + 1000, 2);
    snap(&c, "top.qcow2", "top");
    put(&mut c, 2 * M + 512, M / 2, 3);
    c
}

fn snap(c: &Chain, file: &str, node: &str) {
    let o = SnapshotSync {
        device: Some("d0".into()),
        snapshot_file: path(c, file),
        snapshot_node_name: Some(node.into()),
        ..Default::default()
    };
    drop(c.graph.blockdev_snapshot_sync(&o).unwrap());
}

fn backing(p: &str) -> Option<String> {
    let text = img(&["info", "-U", p]);
    text.lines().find_map(|l| l.strip_prefix("backing file: ")).map(str::to_owned)
}

/// Runs a job while the guest writes; afterwards the drive must show what the guest wrote.
fn under_load(c: &mut Chain, seed: u64, f: impl FnOnce(&Chain)) {
    let stop = Arc::new(AtomicBool::new(false));
    let (b, shadow, flag) = (c.disk.clone(), std::mem::take(&mut c.shadow), stop.clone());
    let t = std::thread::spawn(move || guest(b, shadow, flag, seed));
    f(c);
    stop.store(true, Relaxed);
    c.shadow = t.join().unwrap();
    let mut got = vec![0; SIZE as usize];
    c.disk.read_at(0, &mut got).unwrap();
    assert!(got == c.shadow);
}

fn end(c: Chain, active: &str) {
    let Chain { dir, graph, disk, shadow } = c;
    disk.detach();
    drop(disk);
    graph.shutdown();
    drop(graph);
    for f in std::fs::read_dir(dir.path()).unwrap() {
        let p = f.unwrap().path();
        if p.extension().is_some_and(|e| e == "qcow2") {
            check(&p);
        }
    }
    assert!(contents(&dir.path().join(active), dir.path()) == shadow);
}

#[test]
fn stream_under_load() {
    if !have_tools() {
        return;
    }
    let mut c = chain();
    under_load(&mut c, 1, |c| {
        let o = StreamOpts { device: "d0".into(), base: None, base_node: None, backing_file: None };
        c.graph.block_stream(&o, &opts("j")).unwrap();
        until(&c.graph, "JOB_STATUS_CHANGE", Some("null"));
    });
    assert_eq!(backing(&path(&c, "top.qcow2")), None);
    end(c, "top.qcow2");
}

#[test]
fn stream_to_base_under_load() {
    if !have_tools() {
        return;
    }
    let mut c = chain();
    let base = path(&c, "base.qcow2");
    under_load(&mut c, 2, |c| {
        let o =
            StreamOpts { device: "d0".into(), base: Some(base.clone()), base_node: None, backing_file: None };
        c.graph.block_stream(&o, &opts("j")).unwrap();
        until(&c.graph, "JOB_STATUS_CHANGE", Some("null"));
    });
    assert_eq!(backing(&path(&c, "top.qcow2")), Some(base));
    end(c, "top.qcow2");
}

#[test]
fn commit_middle_under_load() {
    if !have_tools() {
        return;
    }
    let mut c = chain();
    let base = path(&c, "base.qcow2");
    under_load(&mut c, 3, |c| {
        let o = CommitOpts { device: "d0".into(), top_node: Some("mid".into()), ..Default::default() };
        c.graph.block_commit(&o, &opts("j")).unwrap();
        until(&c.graph, "JOB_STATUS_CHANGE", Some("null"));
    });
    assert_eq!(backing(&path(&c, "top.qcow2")), Some(base));
    end(c, "top.qcow2");
}

#[test]
fn commit_active_under_load() {
    if !have_tools() {
        return;
    }
    let mut c = chain();
    under_load(&mut c, 4, |c| {
        let o = CommitOpts { device: "d0".into(), ..Default::default() };
        c.graph.block_commit(&o, &opts("j")).unwrap();
        until(&c.graph, "BLOCK_JOB_READY", None);
        c.graph.job_command("j", Verb::Complete, true).unwrap();
        until(&c.graph, "JOB_STATUS_CHANGE", Some("null"));
    });
    end(c, "base.qcow2");
}

fn target(c: &Chain, name: &str) -> Arc<Node> {
    let p = path(c, name);
    img(&["create", "-q", "-f", "qcow2", &p, &SIZE.to_string()]);
    c.graph
        .blockdev_add(serde_json::json!({"driver": "qcow2", "node-name": "t", "file": {"driver": "file",
            "filename": p}}))
        .unwrap()
}

#[test]
fn mirror_under_load() {
    if !have_tools() {
        return;
    }
    let mut c = chain();
    drop(target(&c, "t.qcow2"));
    under_load(&mut c, 5, |c| {
        let o = MirrorOpts { device: "d0".into(), target: "t".into(), ..Default::default() };
        c.graph.blockdev_mirror(&o, &opts("j")).unwrap();
        until(&c.graph, "BLOCK_JOB_READY", None);
        c.graph.job_command("j", Verb::Complete, true).unwrap();
        until(&c.graph, "JOB_STATUS_CHANGE", Some("null"));
        assert_eq!(c.disk.root().unwrap().name(), "t");
    });
    end(c, "t.qcow2");
}

fn backup(compress: bool, seed: u64) {
    let mut c = chain();
    drop(target(&c, "t.qcow2"));
    let before = c.shadow.clone();
    under_load(&mut c, seed, |c| {
        let o = BackupOpts {
            device: "d0".into(),
            target: "t".into(),
            sync: "full".into(),
            compress,
            ..Default::default()
        };
        c.graph.blockdev_backup(&o, &opts("j")).unwrap();
        until(&c.graph, "JOB_STATUS_CHANGE", Some("null"));
    });
    let dir = tempfile::tempdir().unwrap();
    let copy = path(&c, "t.qcow2");
    c.graph.blockdev_del("t").unwrap();
    // The guest had written before the job began; compare with what no write touched only if there was none.
    let got = contents(Path::new(&copy), dir.path());
    assert_eq!(got.len(), before.len());
    end(c, "top.qcow2");
}

#[test]
fn backup_under_load() {
    if !have_tools() {
        return;
    }
    backup(false, 6);
    backup(true, 7);
}

#[test]
fn backup_is_of_the_moment() {
    if !have_tools() {
        return;
    }
    for compress in [false, true] {
        let mut c = chain();
        drop(target(&c, "t.qcow2"));
        let before = c.shadow.clone();
        let o = BackupOpts {
            device: "d0".into(),
            target: "t".into(),
            sync: "full".into(),
            compress,
            ..Default::default()
        };
        // Slow, so that most writes come before the job does.
        c.graph.blockdev_backup(&o, &JobOpts { speed: 2 * M, ..opts("j") }).unwrap();
        let mut rng = Rng(9);
        for _ in 0..60 {
            let off = rng.below(SIZE - 5000);
            c.shadow[off as usize..off as usize + 5000].fill(0xee);
            c.disk.write_at(off, &[0xee; 5000]).unwrap();
        }
        c.graph.job_command("j", Verb::SetSpeed(0), true).unwrap();
        until(&c.graph, "JOB_STATUS_CHANGE", Some("null"));
        c.graph.blockdev_del("t").unwrap();
        let dir = tempfile::tempdir().unwrap();
        assert!(contents(Path::new(&path(&c, "t.qcow2")), dir.path()) == before, "compress {compress}");
        end(c, "top.qcow2");
    }
}

#[test]
fn incremental_backup() {
    if !have_tools() {
        return;
    }
    let mut c = chain();
    drop(c.graph.bitmap_add("d0", "b", None, false, false).unwrap());
    drop(target(&c, "t.qcow2"));
    c.shadow[5 * M as usize..5 * M as usize + 70_000].fill(9);
    c.disk.write_at(5 * M, &[9; 70_000]).unwrap();
    let o = BackupOpts {
        device: "d0".into(),
        target: "t".into(),
        sync: "incremental".into(),
        bitmap: Some("b".into()),
        ..Default::default()
    };
    c.graph.blockdev_backup(&o, &opts("j")).unwrap();
    until(&c.graph, "JOB_STATUS_CHANGE", Some("null"));
    c.graph.blockdev_del("t").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let got = contents(Path::new(&path(&c, "t.qcow2")), dir.path());
    assert!(
        got[5 * M as usize..5 * M as usize + 70_000] == c.shadow[5 * M as usize..5 * M as usize + 70_000]
    );
    assert!(got[..M as usize].iter().all(|b| *b == 0), "only what changed");
    end(c, "top.qcow2");
}

#[test]
fn cancelled_jobs_leave_the_drive_alone() {
    if !have_tools() {
        return;
    }
    let mut c = chain();
    drop(target(&c, "t.qcow2"));
    under_load(&mut c, 8, |c| {
        let o = MirrorOpts { device: "d0".into(), target: "t".into(), ..Default::default() };
        c.graph.blockdev_mirror(&o, &JobOpts { speed: M, ..opts("j") }).unwrap();
        assert!(c.graph.blockdev_del("t").is_err());
        c.graph.job_command("j", Verb::Cancel { force: false }, true).unwrap();
        until(&c.graph, "BLOCK_JOB_CANCELLED", None);
        let o = CommitOpts { device: "d0".into(), ..Default::default() };
        c.graph.block_commit(&o, &JobOpts { speed: M, ..opts("j") }).unwrap();
        c.graph.job_command("j", Verb::Cancel { force: true }, true).unwrap();
        until(&c.graph, "BLOCK_JOB_CANCELLED", None);
    });
    end(c, "top.qcow2");
}

#[test]
fn bitmaps_persist() {
    if !have_tools() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let p = dir.path().join("d.qcow2");
    img(&["create", "-q", "-f", "qcow2", s(&p), &SIZE.to_string()]);
    img(&["bitmap", "--add", s(&p), "theirs"]);
    for turn in 0..3u64 {
        let graph = BlockGraph::new();
        let disk = drive(&graph, "d0", &p, &[("format", "qcow2")]).unwrap();
        disk.attach("dev", Attach { resizable: true, ..Attach::default() }).unwrap();
        if turn == 0 {
            drop(graph.bitmap_add("d0", "ours", None, true, false).unwrap());
        }
        disk.write_at(turn * M, &[1; 1000]).unwrap();
        let info = query::device_info(&disk.root().unwrap(), true, true);
        let counts: Vec<u64> = ["theirs", "ours"]
            .iter()
            .map(|n| {
                let list = info["dirty-bitmaps"].as_array().unwrap();
                list.iter().find(|b| b["name"] == *n).unwrap()["count"].as_u64().unwrap()
            })
            .collect();
        assert_eq!(counts, [(turn + 1) * 65536; 2]);
        if turn == 2 {
            drop(graph.bitmap_remove("d0", "ours").unwrap());
        }
        disk.detach();
        drop(disk);
        graph.shutdown();
        drop(graph);
        check(&p);
        let text = img(&["info", s(&p)]);
        assert!(text.contains("name: theirs") && text.contains("name: ours") == (turn < 2), "{text}");
        assert!(!text.contains("in-use"), "{text}");
    }
    // The real tool reads what we marked.
    img(&["bitmap", "--add", s(&p), "sum"]);
    img(&["bitmap", "--merge", "theirs", s(&p), "sum"]);
    check(&p);
}
