//! `resize`, `snapshot`, `commit`, `rebase`.

use super::args::{Args, Spec};
use super::{complain, open, say, size, Done, Failure, Progress};
use rqemu_block::{backing_path, text, BlockGraph, Image, ImageOpts, SnapshotInfo};
use serde_json::json;

const LONG: &[(&str, bool, Option<char>)] = &[
    ("shrink", false, None),
    ("preallocation", true, None),
    ("force-share", false, Some('U')),
    ("quiet", false, Some('q')),
];

pub(super) fn resize(mut a: Args) -> Done {
    let (change, rest) = a.split_size()?;
    let p = rest.parse(&Spec { short: "f:q", long: LONG })?;
    let name = p.one_file()?;
    match p.get("preallocation") {
        None | Some("off") => {}
        Some(m) => {
            return Err(Failure::new(format!("Preallocation mode '{m}' is not supported for resizing")))
        }
    }
    let graph = BlockGraph::new();
    let image = open(&graph, name, &ImageOpts { format: p.own("f"), write: true, ..ImageOpts::default() })?;
    let old = image.len();
    let amount = size(change.trim_start_matches(['+', '-']))?;
    let new = match change.as_bytes().first() {
        Some(b'+') => old.checked_add(amount),
        Some(b'-') => old.checked_sub(amount),
        _ => Some(amount),
    };
    let new = new.ok_or_else(|| Failure::new("New image size must be positive"))?;
    if new < old && !p.has("shrink") {
        complain("Use the --shrink option to perform a shrink operation.");
        complain(
            "warning: Shrinking an image will delete all data beyond the shrunken image's end. Before performing such an \
             operation, make sure there is no important data there.",
        );
        return Ok(1);
    }
    image.resize(new)?;
    if !p.has("q") {
        say("Image resized.\n");
    }
    drop(image);
    graph.shutdown();
    Ok(0)
}

pub(super) fn snapshot(a: Args) -> Done {
    let p = a.parse(&Spec { short: "la:c:d:qU", long: LONG })?;
    let name = p.one_file()?;
    let actions = ["l", "a", "c", "d"];
    if actions.iter().filter(|a| p.has(a)).count() > 1 {
        return Err(Failure::usage("Cannot mix '-l', '-a', '-c', '-d'"));
    }
    let (action, snap) = p.last_of(&actions).unwrap_or(("l", None));
    let snap = snap.unwrap_or("");
    let graph = BlockGraph::new();
    let o = ImageOpts { write: action != "l", force_share: p.has("U"), ..ImageOpts::default() };
    let image = open(&graph, name, &o)?;
    let list = image.snapshots().map(|s| s.list()).unwrap_or_default();
    // A name counts before an id.
    let at = list.iter().position(|s| s.name == snap).or_else(|| list.iter().position(|s| s.id == snap));
    let fail = |verb: &str, e: String| Failure::new(format!("Could not {verb} snapshot '{snap}': {e}"));
    let unsupported = || "Operation not supported".to_owned();
    match (action, image.snapshots()) {
        ("l", _) => {
            if !list.is_empty() {
                let rows: Vec<_> = list.iter().map(row).collect();
                say("Snapshot list:\n");
                say(&text::snapshot_lines(&rows));
            }
        }
        ("c", Some(s)) => {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            let info = SnapshotInfo {
                name: snap.into(),
                date_sec: now.as_secs() as u32,
                date_nsec: now.subsec_nanos(),
                icount: Some(0),
                ..SnapshotInfo::default()
            };
            s.create(info).map_err(|e| fail("create", e.to_string()))?;
        }
        ("a", Some(s)) => {
            let at = at.ok_or_else(|| fail("apply", "snapshot not found".into()))?;
            s.apply(at).map_err(|e| fail("apply", e.to_string()))?;
        }
        ("d", Some(s)) => {
            let at = at.ok_or_else(|| fail("delete", "snapshot not found".into()))?;
            s.delete(at).map_err(|e| fail("delete", e.to_string()))?;
        }
        ("c", None) => return Err(fail("create", unsupported())),
        ("a", None) => return Err(fail("apply", unsupported())),
        _ => return Err(fail("delete", "snapshot not found".into())),
    }
    drop(image);
    graph.shutdown();
    Ok(0)
}

fn row(s: &SnapshotInfo) -> serde_json::Value {
    json!({"id": s.id, "name": s.name, "vm-state-size": s.vm_state_size, "date-sec": s.date_sec,
        "vm-clock-sec": s.vm_clock_ns / 1_000_000_000, "vm-clock-nsec": s.vm_clock_ns % 1_000_000_000,
        "icount": s.icount})
}

pub(super) fn commit(a: Args) -> Done {
    let p = a.parse(&Spec { short: "f:ht:b:dpqr:", long: LONG })?;
    let name = p.one_file()?;
    if p.has("b") {
        return Err(Failure::new("Option '-b' is not supported"));
    }
    let graph = BlockGraph::new();
    let o = ImageOpts { format: p.own("f"), write: true, cache: p.own("t"), ..ImageOpts::default() };
    let image = open(&graph, name, &o)?;
    let mut progress = Progress::new(p.has("p") && !p.has("q"));
    image.commit(&mut |done, total| progress.set(done, total))?;
    progress.end();
    if !p.has("d") {
        image.make_empty().map_err(|e| Failure::new(format!("Could not empty {name}: {e}")))?;
    }
    if !p.has("q") {
        say("Image committed.\n");
    }
    drop(image);
    graph.shutdown();
    Ok(0)
}

pub(super) fn rebase(a: Args) -> Done {
    let p = a.parse(&Spec { short: "hf:F:b:upt:T:qU", long: LONG })?;
    let name = p.one_file()?;
    let Some(new) = p.get("b") else { return Err(Failure::usage("Use backing file (-b) option")) };
    if new.is_empty() && p.has("F") {
        return Err(Failure::new("The backing format cannot be specified without a backing file"));
    }
    let (unsafe_mode, format) = (p.has("u"), p.own("F"));
    let graph = BlockGraph::new();
    let o = ImageOpts {
        format: p.own("f"),
        write: true,
        no_backing: unsafe_mode,
        cache: p.own("t"),
        ..ImageOpts::default()
    };
    let image = open(&graph, name, &o)?;
    if !unsafe_mode {
        let other = BlockGraph::new();
        let below = match new {
            "" => None,
            b => {
                let o = ImageOpts { format: format.clone(), ..ImageOpts::default() };
                let full = backing_path(name, b);
                Some(
                    other
                        .open_tool(&full, &o)
                        .map_err(|e| Failure::new(format!("Could not open new backing file '{b}': {e}")))?,
                )
            }
        };
        let mut progress = Progress::new(p.has("p") && !p.has("q"));
        keep_contents(&image, below.as_ref(), &mut progress)?;
        progress.end();
    }
    let target = match new {
        "" => None,
        b => Some((b, format.as_deref().unwrap_or(""))),
    };
    if target.is_some_and(|t| t.1.is_empty()) {
        return Err(Failure::new(format!(
            "Could not change the backing file to '{new}': backing format must be specified"
        )));
    }
    image
        .set_backing_name(target)
        .map_err(|e| Failure::new(format!("Could not change the backing file to '{new}': {e}")))?;
    drop(image);
    graph.shutdown();
    Ok(0)
}

/// Copies into the image what it would show differently over another backing image.
fn keep_contents(image: &Image, below: Option<&Image>, progress: &mut Progress) -> Result<(), Failure> {
    let fail = |e| Failure::new(format!("error while reading from old backing file: {e}"));
    let cluster = image.cluster_size().unwrap_or(65536);
    let len = image.len();
    let (mut x, mut y) = (vec![0u8; cluster as usize], vec![0u8; cluster as usize]);
    let mut at = 0;
    while at < len {
        let (s, n) = image.status(at, len - at).map_err(fail)?;
        let n = n.max(1);
        if s.allocated {
            at += n;
        } else {
            let n = n.min(cluster - at % cluster) as usize;
            image.read(at, &mut x[..n]).map_err(fail)?;
            y[..n].fill(0);
            if let Some(b) = below {
                b.read(at, &mut y[..n]).map_err(fail)?;
            }
            if x[..n] != y[..n] {
                let r = match x[..n].iter().all(|b| *b == 0) {
                    true => image.write_zeroes(at, n as u64, true),
                    false => image.write(at, &x[..n]),
                };
                r.map_err(|e| Failure::new(format!("Error while writing to COW image: {e}")))?;
            }
            at += n as u64;
        }
        progress.set(at, len);
    }
    image.flush().map_err(fail)
}

impl Args {
    /// The size stands last, and may begin with a dash.
    fn split_size(&mut self) -> Result<(String, Args), Failure> {
        let mut raw = self.take();
        match raw.pop() {
            Some(s) if raw.iter().any(|a| !a.starts_with('-')) => Ok((s, Args::new(&raw))),
            _ => Err(Failure::usage("Not enough arguments")),
        }
    }
}
