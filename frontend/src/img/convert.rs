//! `convert` and `compare`.

use super::args::{self, Args, Spec};
use super::{complain, open, say, size, Done, Failure, Progress};
use rqemu_block::{BlockGraph, Image, ImageOpts};

const CHUNK: u64 = 2 << 20;

struct Plan {
    sparse: u64,
    compress: bool,
    /// The target shows zeroes where nothing was written.
    fresh: bool,
    /// What the source's top image does not hold comes from the target's backing image.
    top_only: bool,
    threads: usize,
}

pub(super) fn convert(a: Args) -> Done {
    let p = a.parse(&Spec {
        short: "hf:O:B:CcF:o:l:S:pt:T:qnm:WUr:",
        long: &[
            ("target-is-zero", false, None),
            ("salvage", false, None),
            ("bitmaps", false, None),
            ("object", true, None),
            ("image-opts", false, None),
            ("target-image-opts", false, None),
            ("force-share", false, Some('U')),
            ("quiet", false, Some('q')),
        ],
    })?;
    for absent in ["salvage", "bitmaps", "image-opts", "target-image-opts", "object"] {
        if p.has(absent) {
            return Err(Failure::new(format!("Option '--{absent}' is not supported")));
        }
    }
    if p.operands.len() < 2 {
        return Err(Failure::new("Must specify image file name"));
    }
    let (target, sources) = match p.operands.split_last() {
        Some((t, s)) => (t, s),
        None => return Err(Failure::usage("Not enough arguments")),
    };
    let format = p.get("O").unwrap_or("raw");
    let options: Vec<(String, String)> = p.all("o").flat_map(args::list).collect();
    if p.has("n") && !options.is_empty() {
        complain("warning: -o has no effect when skipping image creation");
    }
    if p.has("target-is-zero") && !p.has("n") {
        return Err(Failure::new("--target-is-zero requires use of -n flag"));
    }
    if p.has("c") && format != "qcow2" {
        return Err(Failure::new("Compression not supported for this file format"));
    }
    if p.has("c") && p.get("S") == Some("0") {
        return Err(Failure::new("Cannot compress and use -S 0"));
    }
    let src = BlockGraph::new();
    let mut images = Vec::new();
    for name in sources {
        let o = ImageOpts {
            format: p.own("f"),
            force_share: p.has("U"),
            cache: p.own("T"),
            ..ImageOpts::default()
        };
        let image = open(&src, name, &o)?;
        if let Some(param) = p.get("l") {
            view_snapshot(&image, param)?;
        }
        images.push(image);
    }
    let total: u64 = images.iter().map(|i| i.len().div_ceil(512) * 512).sum();
    let find = |k: &str| options.iter().rev().find(|o| o.0 == k).map(|o| o.1.clone());
    let backing = p.own("B").or_else(|| find("backing_file"));
    let backing_fmt = p.own("F").or_else(|| find("backing_fmt"));
    if backing.is_some() && sources.len() > 1 {
        return Err(Failure::new(
            "Having a backing file for the target makes no sense when concatenating multiple input images",
        ));
    }
    if backing.is_some() && backing_fmt.is_none() && !p.has("n") {
        return Err(Failure::new(format!("{target}: Backing file specified without backing format")));
    }
    let dst = BlockGraph::new();
    if !p.has("n") {
        let mut o = options.clone();
        o.retain(|o| !matches!(o.0.as_str(), "backing_file" | "backing_fmt"));
        let want = find("size").map(|s| size(&s)).transpose()?.unwrap_or(total);
        o.retain(|o| o.0 != "size");
        let b = backing.clone().map(|b| (b, backing_fmt));
        let fail = |e| Failure::new(format!("{target}: error while converting {format}: {e}"));
        let plan = dst.plan_image(target, format, Some(want), b, &o).map_err(fail)?;
        dst.create_image(&plan).map_err(fail)?;
    }
    let o = ImageOpts {
        format: Some(format.to_owned()),
        write: true,
        cache: Some(p.own("t").unwrap_or_else(|| "unsafe".into())),
        ..ImageOpts::default()
    };
    let out = open(&dst, target, &o)?;
    if out.len() < total {
        return Err(Failure::new("output file is smaller than input file"));
    }
    let prealloc = matches!(find("preallocation").as_deref(), Some("full" | "falloc"));
    let threads = p
        .get("m")
        .and_then(|m| m.parse().ok())
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get()));
    let plan = Plan {
        sparse: p.get("S").map(size).transpose()?.unwrap_or(4096),
        compress: p.has("c"),
        fresh: (!p.has("n") && backing.is_none() && !prealloc) || p.has("target-is-zero"),
        top_only: backing.is_some(),
        threads: threads.clamp(1, 16),
    };
    let mut progress = Progress::new(p.has("p") && !p.has("q"));
    let mut base = 0;
    for image in &images {
        copy(image, &out, base, &plan, &mut |done| progress.set(base + done, total))?;
        base += image.len().div_ceil(512) * 512;
    }
    out.flush().map_err(|e| Failure::new(format!("error while flushing the image: {e}")))?;
    progress.end();
    drop(out);
    drop(images);
    dst.shutdown();
    src.shutdown();
    Ok(0)
}

fn view_snapshot(image: &Image, param: &str) -> Result<(), Failure> {
    let wanted = args::list(param);
    let member = |k: &str| wanted.iter().find(|o| o.0 == k).map(|o| o.1.clone());
    let (id, name) = (member("snapshot.id"), member("snapshot.name"));
    let fits = |s: &rqemu_block::SnapshotInfo| match (&id, &name) {
        (None, None) => s.id == param || s.name == param,
        _ => id.as_ref().is_none_or(|i| *i == s.id) && name.as_ref().is_none_or(|n| *n == s.name),
    };
    let fail = |e: String| Failure::new(format!("Failed to load snapshot: {e}"));
    let snapshots = image.snapshots().ok_or_else(|| fail("Operation not supported".into()))?;
    let at = snapshots.list().iter().position(fits).ok_or_else(|| fail("Can't find snapshot".into()))?;
    snapshots.view(at).map_err(|e| fail(e.to_string()))
}

fn read_error(at: u64, e: impl std::fmt::Display) -> Failure {
    Failure::new(format!("error while reading at byte {at}: {e}"))
}

fn write_error(at: u64, e: impl std::fmt::Display) -> Failure {
    Failure::new(format!("error while writing at byte {at}: {e}"))
}

/// Copies an image to `base` of another.
fn copy(
    src: &Image,
    dst: &Image,
    base: u64,
    plan: &Plan,
    progress: &mut dyn FnMut(u64),
) -> Result<(), Failure> {
    let len = src.len().min(dst.len() - base);
    let cluster = dst.cluster_size().unwrap_or(65536);
    let mut buf = vec![0u8; CHUNK as usize];
    let mut packer = Packer { dst, cluster, jobs: Vec::new(), threads: plan.threads };
    let mut at = 0;
    while at < len {
        let most = len - at;
        let (data, skip, n) = if plan.top_only {
            let (s, n) = src.status(at, most).map_err(|e| read_error(at, e))?;
            (s.data && !s.zero, !s.allocated, n.max(1))
        } else {
            let (has, n) = src.has_data(at, most).map_err(|e| read_error(at, e))?;
            (has || plan.sparse == 0, false, n)
        };
        if plan.compress && base.is_multiple_of(cluster) {
            // Whole clusters, whatever they hold.
            let n = if skip || !data { n / cluster * cluster } else { 0 };
            if n > 0 && (skip || plan.fresh) {
                at += n;
            } else {
                let n = cluster.min(len - at) as usize;
                src.read(at, &mut buf[..n]).map_err(|e| read_error(at, e))?;
                packer.add(base + at, &buf[..n], plan.fresh)?;
                at += n as u64;
            }
            progress(at);
            continue;
        }
        let n = n.min(if data { CHUNK - at % CHUNK } else { 1 << 30 });
        if data {
            let part = &mut buf[..n as usize];
            src.read(at, part).map_err(|e| read_error(at, e))?;
            write_sparse(dst, base + at, part, plan)?;
        } else if skip || (plan.fresh && plan.sparse != 0) || dst.is_zero(base + at, n) {
            // It reads right as it is.
        } else {
            dst.write_zeroes(base + at, n, plan.sparse != 0).map_err(|e| write_error(at, e))?;
        }
        at += n;
        progress(at);
    }
    packer.finish()
}

/// Writes what is not zero, in pieces of the sparse size.
fn write_sparse(dst: &Image, off: u64, part: &[u8], plan: &Plan) -> Result<(), Failure> {
    let unit = if plan.sparse == 0 { part.len() } else { plan.sparse.clamp(512, CHUNK) as usize };
    let zero = |b: &[u8]| plan.sparse != 0 && is_zero(b);
    let mut at = 0;
    while at < part.len() {
        let end = |from: usize| (from + unit - (off as usize + from) % unit).min(part.len());
        let mut to = end(at);
        let empty = zero(&part[at..to]);
        while to < part.len() && zero(&part[to..end(to)]) == empty {
            to = end(to);
        }
        let (pos, n) = (off + at as u64, (to - at) as u64);
        if !empty {
            dst.write(pos, &part[at..to]).map_err(|e| write_error(pos, e))?;
        } else if !plan.fresh && !dst.is_zero(pos, n) {
            dst.write_zeroes(pos, n, true).map_err(|e| write_error(pos, e))?;
        }
        at = to;
    }
    Ok(())
}

fn is_zero(b: &[u8]) -> bool {
    let (words, rest) = b.as_chunks::<16>();
    words.iter().all(|w| u128::from_ne_bytes(*w) == 0) && rest.iter().all(|b| *b == 0)
}

/// Compresses clusters on several threads and writes them in order.
struct Packer<'a> {
    dst: &'a Image,
    cluster: u64,
    jobs: Vec<(u64, Vec<u8>)>,
    threads: usize,
}

impl Packer<'_> {
    fn add(&mut self, off: u64, data: &[u8], fresh: bool) -> Result<(), Failure> {
        if is_zero(data) {
            if !fresh && !self.dst.is_zero(off, data.len() as u64) {
                self.dst.write_zeroes(off, data.len() as u64, true).map_err(|e| write_error(off, e))?;
            }
            return Ok(());
        }
        let mut full = data.to_vec();
        full.resize(self.cluster as usize, 0);
        self.jobs.push((off, full));
        if self.jobs.len() >= self.threads * 16 {
            self.run()?;
        }
        Ok(())
    }

    fn run(&mut self) -> Result<(), Failure> {
        let jobs = std::mem::take(&mut self.jobs);
        let per = jobs.len().div_ceil(self.threads).max(1);
        let dst = self.dst;
        let pack = |part: &[(u64, Vec<u8>)]| part.iter().map(|(_, d)| dst.pack(d)).collect::<Vec<_>>();
        let packed: Vec<Option<Vec<u8>>> = std::thread::scope(|scope| {
            let handles: Vec<_> = jobs.chunks(per).map(|c| scope.spawn(move || pack(c))).collect();
            handles.into_iter().flat_map(|h| h.join().unwrap_or_default()).collect()
        });
        if packed.len() != jobs.len() {
            return Err(Failure::new("error while compressing"));
        }
        for ((off, plain), packed) in jobs.iter().zip(packed) {
            let r = match packed {
                Some(p) => dst.write_packed(*off, &p),
                None => dst.write(*off, &plain[..(dst.len() - off).min(self.cluster) as usize]),
            };
            r.map_err(|e| write_error(*off, e))?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<(), Failure> {
        self.run()
    }
}

pub(super) fn compare(a: Args) -> Done {
    let p = a
        .parse(&Spec {
            short: "f:F:T:pqsU",
            long: &[("force-share", false, Some('U')), ("image-opts", false, None), ("object", true, None)],
        })
        .map_err(|f| f.with_status(2))?;
    if p.has("image-opts") || p.has("object") {
        return Err(Failure::new("Option '--image-opts' is not supported").with_status(2));
    }
    let [one, two] = p.operands.as_slice() else {
        return Err(Failure::usage("Expecting two image file names").with_status(2));
    };
    let graphs = (BlockGraph::new(), BlockGraph::new());
    let opts = |f: &str| ImageOpts {
        format: p.own(f),
        force_share: p.has("U"),
        cache: p.own("T"),
        ..ImageOpts::default()
    };
    let a = open(&graphs.0, one, &opts("f")).map_err(|f| f.with_status(2))?;
    let b = open(&graphs.1, two, &opts("F")).map_err(|f| f.with_status(2))?;
    let tell = |t: &str| {
        if !p.has("q") {
            say(t);
        }
    };
    if p.has("s") && a.len() != b.len() {
        tell("Strict mode: Image size mismatch!\n");
        return Ok(1);
    }
    let total = a.len().max(b.len());
    let mut progress = Progress::new(p.has("p") && !p.has("q"));
    let (mut x, mut y) = (vec![0u8; CHUNK as usize], vec![0u8; CHUNK as usize]);
    let mut at = 0;
    while at < total {
        let fail = |e| Failure::new(format!("Error while reading offset {at}: {e}")).with_status(4);
        let look = |i: &Image, n: u64| match i.len().saturating_sub(at) {
            0 => Ok((false, n)),
            have => i.has_data(at, n.min(have)),
        };
        if p.has("s") {
            let (s, n) = a.status(at, total - at).map_err(fail)?;
            let (t, m) = b.status(at, n).map_err(fail)?;
            if s.allocated != t.allocated && m > 0 {
                tell(&format!("Strict mode: Offset {at} allocation mismatch!\n"));
                return Ok(1);
            }
        }
        let (d, n) = look(&a, total - at).map_err(fail)?;
        let (e, n) = look(&b, n).map_err(fail).map(|(e, m)| (e, m.min(n)))?;
        if !d && !e {
            at += n;
        } else {
            let n = n.min(CHUNK) as usize;
            a.read(at, &mut x[..n]).map_err(fail)?;
            b.read(at, &mut y[..n]).map_err(fail)?;
            if let Some(i) = (0..n).find(|i| x[*i] != y[*i]) {
                let pos = at + i as u64 / 512 * 512;
                progress.end();
                tell(&format!("Content mismatch at offset {pos}!\n"));
                return Ok(1);
            }
            at += n as u64;
        }
        progress.set(at, total);
    }
    progress.end();
    if a.len() != b.len() {
        tell("Warning: Image size mismatch!\n");
    }
    tell("Images are identical.\n");
    Ok(0)
}
