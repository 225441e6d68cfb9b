//! `info`, `map`, `measure`, `create`.

use super::args::{self, Args, Parsed, Spec};
use super::{open, pretty, say, size, Done, Failure};
use rqemu_block::{query, text, BlockGraph, ImageOpts, MapEntry};
use serde_json::{json, Value};

const COMMON: &[(&str, bool, Option<char>)] = &[
    ("output", true, None),
    ("backing-chain", false, None),
    ("force-share", false, Some('U')),
    ("start-offset", true, None),
    ("max-length", true, None),
    ("size", true, None),
    ("quiet", false, Some('q')),
    ("format", true, Some('f')),
];

fn image_opts(p: &Parsed) -> ImageOpts {
    ImageOpts { format: p.own("f"), force_share: p.has("U"), ..ImageOpts::default() }
}

pub(super) fn info(a: Args) -> Done {
    let p = a.parse(&Spec { short: "f:U", long: COMMON })?;
    let json = p.json()?;
    let mut name = p.one_file()?.to_owned();
    let mut o = ImageOpts { no_backing: true, ..image_opts(&p) };
    let chain = p.has("backing-chain");
    let (mut all, mut seen) = (Vec::new(), Vec::new());
    loop {
        if seen.contains(&name) {
            return Err(Failure::new(format!("Backing file '{name}' creates an infinite loop.")));
        }
        seen.push(name.clone());
        let graph = BlockGraph::new();
        let image = open(&graph, &name, &o)?;
        let mut v = query::image_info(image.node(), true);
        let next =
            v.get("backing-filename").and_then(Value::as_str).map(|b| rqemu_block::backing_path(&name, b));
        if let (Some(full), Some(m)) = (&next, v.as_object_mut()) {
            m.insert("full-backing-filename".into(), full.as_str().into());
        }
        let format = v.get("backing-filename-format").and_then(Value::as_str).map(str::to_owned);
        all.push(v);
        drop(image);
        graph.shutdown();
        match next {
            Some(n) if chain => {
                name = n;
                o.format = format;
            }
            _ => break,
        }
    }
    match (json, chain) {
        (true, true) => say(&pretty(&Value::Array(all))),
        (true, false) => say(&pretty(&all.remove(0))),
        _ => {
            let texts: Vec<String> = all.iter().map(text::image_text).collect();
            say(&texts.join("\n"));
        }
    }
    Ok(0)
}

pub(super) fn map(a: Args) -> Done {
    let p = a.parse(&Spec { short: "f:s:l:U", long: COMMON })?;
    let json = p.json()?;
    let number = |n: &str| p.get(n).map(size).transpose();
    let (start, max) = (number("start-offset")?.unwrap_or(0), number("max-length")?);
    let graph = BlockGraph::new();
    let name = p.one_file()?;
    let image = open(&graph, name, &image_opts(&p))?;
    let end = image.len().min(start.saturating_add(max.unwrap_or(u64::MAX)));
    if !json {
        say(&format!("{:<16}{:<16}{:<16}{}\n", "Offset", "Length", "Mapped to", "File"));
    }
    let mut current: Option<MapEntry> = None;
    let mut first = true;
    let mut flush = |e: &MapEntry, last: bool| -> Result<(), Failure> {
        if json {
            say(if first { "[" } else { "" });
            first = false;
            let offset = e.offset.map_or(String::new(), |o| format!(", \"offset\": {o}"));
            say(&format!(
                "{{ \"start\": {}, \"length\": {}, \"depth\": {}, \"present\": {}, \"zero\": {}, \"data\": {}{offset}}}{}",
                e.start, e.length, e.depth, e.present, e.zero, e.data, if last { "]\n" } else { ",\n" }
            ));
        } else if e.data && !e.zero {
            let Some(at) = e.offset else {
                return Err(Failure::new("File contains external, encrypted or compressed clusters."));
            };
            say(&format!("{:<16}{:<16}{:<16}{}\n", hex(e.start), hex(e.length), hex(at), e.filename));
        }
        Ok(())
    };
    let mut at = start;
    while at < end {
        let e = image
            .map(at, end - at)
            .map_err(|e| Failure::new(format!("Failed to read image metadata: {e}")))?;
        at += e.length.max(1);
        current = match current.take() {
            Some(mut c) if joins(&c, &e) => {
                c.length += e.length;
                Some(c)
            }
            Some(c) => {
                flush(&c, false)?;
                Some(e)
            }
            None => Some(e),
        };
    }
    match current {
        Some(c) => flush(&c, true)?,
        None if json => say("[]\n"),
        None => {}
    }
    Ok(0)
}

fn hex(v: u64) -> String {
    if v == 0 {
        "0".into()
    } else {
        format!("{v:#x}")
    }
}

fn joins(a: &MapEntry, b: &MapEntry) -> bool {
    (a.zero, a.data, a.present, a.depth) == (b.zero, b.data, b.present, b.depth)
        && a.offset.is_some() == b.offset.is_some()
        && (!a.data || a.filename == b.filename)
        && a.offset.is_none_or(|o| b.offset == Some(o + a.length))
}

pub(super) fn create(a: Args) -> Done {
    let p = a.parse(&Spec {
        short: "F:b:f:o:qu6e",
        long: &[("object", true, None), ("quiet", false, Some('q'))],
    })?;
    let (name, sized) = match p.operands.as_slice() {
        [] => return Err(Failure::usage("Expecting image file name")),
        [n] => (n, None),
        [n, s] => (n, Some(size(s)?)),
        _ => return Err(Failure::usage(format!("Unexpected argument: {}", p.operands[2]))),
    };
    let format = p.get("f").unwrap_or("raw");
    let mut options: Vec<(String, String)> = p.all("o").flat_map(args::list).collect();
    let fail = |e: rqemu_block::BlockError| Failure::new(format!("{name}: {e}"));
    let take = |options: &mut Vec<(String, String)>, k: &str| {
        let v = options.iter().rev().find(|o| o.0 == k).map(|o| o.1.clone());
        options.retain(|o| o.0 != k);
        v
    };
    let backing = p.own("b").or_else(|| take(&mut options, "backing_file"));
    let backing_fmt = p.own("F").or_else(|| take(&mut options, "backing_fmt"));
    let sized = match (sized, take(&mut options, "size")) {
        (Some(s), _) => Some(s),
        (None, Some(v)) => Some(size(&v)?),
        (None, None) => None,
    };
    let graph = BlockGraph::new();
    let sized = match (&backing, sized) {
        (Some(b), None) => {
            // The size is the backing image's.
            let full = rqemu_block::backing_path(name, b);
            let o = ImageOpts { format: backing_fmt.clone(), force_share: true, ..ImageOpts::default() };
            let image = graph
                .open_tool(&full, &o)
                .map_err(|e| Failure::new(format!("{name}: {e}\nCould not open backing image.")))?;
            Some(image.len())
        }
        (Some(b), s) if !p.has("u") => {
            let full = rqemu_block::backing_path(name, b);
            let o = ImageOpts { format: backing_fmt.clone(), force_share: true, ..ImageOpts::default() };
            drop(
                graph
                    .open_tool(&full, &o)
                    .map_err(|e| Failure::new(format!("{name}: {e}\nCould not open backing image.")))?,
            );
            s
        }
        (_, s) => s,
    };
    if let (Some(b), None) = (&backing, &backing_fmt) {
        let full = rqemu_block::backing_path(name, b);
        let found = graph.probe_format(&full).unwrap_or_else(|_| "raw".into());
        return Err(Failure::new(format!(
            "{name}: Backing file specified without backing format\nDetected format of {found}."
        )));
    }
    let plan =
        graph.plan_image(name, format, sized, backing.map(|b| (b, backing_fmt)), &options).map_err(fail)?;
    if !p.has("q") {
        say(&format!("{}\n", plan.describe()));
    }
    graph.create_image(&plan).map_err(fail)?;
    graph.shutdown();
    Ok(0)
}

pub(super) fn measure(a: Args) -> Done {
    let p = a.parse(&Spec { short: "f:l:o:O:U", long: COMMON })?;
    let json = p.json()?;
    let format = p.get("O").unwrap_or("raw");
    let options: Vec<(String, String)> = p.all("o").flat_map(args::list).collect();
    let opt = |k: &str| options.iter().rev().find(|o| o.0 == k).map(|o| o.1.as_str());
    let mut bitmaps = None;
    let (virt, data) = match (p.get("size"), p.operands.as_slice()) {
        (Some(_), [_, ..]) => return Err(Failure::new("--size N cannot be used together with a filename.")),
        (Some(s), []) => (size(s)?, None),
        (None, [name]) => {
            let graph = BlockGraph::new();
            let image = open(&graph, name, &image_opts(&p))?;
            let cluster = opt("cluster_size").map(size).transpose()?.unwrap_or(65536);
            let (mut at, len, mut used) = (0, image.len(), 0);
            while at < len {
                let (has, n) = image
                    .has_data(at, len - at)
                    .map_err(|e| Failure::new(format!("Unable to get block status: {e}")))?;
                if has {
                    let (a, b) = (at / cluster * cluster, (at + n).div_ceil(cluster) * cluster);
                    used += b - a;
                }
                at += n;
            }
            if image.format() == "qcow2" {
                bitmaps = Some(0);
            }
            (len, Some(used))
        }
        _ => return Err(Failure::new("Either --size N or one filename must be specified.")),
    };
    let (required, full) = match format {
        "raw" => (virt, virt),
        "qcow2" => {
            let cluster = opt("cluster_size").map(size).transpose()?.unwrap_or(65536);
            let bits = opt("refcount_bits").map_or(Ok(16), str::parse::<u64>);
            let bits = bits.map_err(|_| Failure::new("Invalid refcount_bits"))?;
            if !cluster.is_power_of_two()
                || !(512..=2 << 20).contains(&cluster)
                || !bits.is_power_of_two()
                || bits > 64
            {
                return Err(Failure::new("Cluster size must be a power of two between 512 and 2048k"));
            }
            let aligned = virt.div_ceil(cluster) * cluster;
            let full = qcow2_size(aligned, cluster, bits);
            let data = match opt("preallocation") {
                Some("falloc" | "full") => aligned,
                _ => data.unwrap_or(0),
            };
            (full - aligned + data, full)
        }
        f => return Err(Failure::new(format!("Format driver '{f}' does not support size measurement"))),
    };
    if json {
        let mut v = json!({"required": required, "fully-allocated": full});
        if let (Some(b), Some(m), "qcow2") = (bitmaps, v.as_object_mut(), format) {
            m.insert("bitmaps".into(), b.into());
        }
        say(&pretty(&v));
    } else {
        say(&format!("required size: {required}\nfully allocated size: {full}\n"));
        if let (Some(b), "qcow2") = (bitmaps, format) {
            say(&format!("bitmaps size: {b}\n"));
        }
    }
    Ok(0)
}

/// Bytes of a qcow2 image with every cluster allocated.
fn qcow2_size(aligned: u64, cluster: u64, refcount_bits: u64) -> u64 {
    let per = cluster / 8;
    let l2 = (aligned / cluster).div_ceil(per) * per * 8;
    let l1 = (l2 / cluster).div_ceil(per) * per * 8;
    let meta = cluster + l2 + l1;
    let clusters = (meta + aligned) / cluster;
    let per_block = cluster * 8 / refcount_bits;
    let (mut table, mut blocks) = (0u64, 0u64);
    loop {
        let b = (clusters + table + blocks).div_ceil(per_block);
        let t = b.div_ceil(per);
        if (t, b) == (table, blocks) {
            break;
        }
        (table, blocks) = (t, b);
    }
    meta + aligned + (table + blocks) * cluster
}

#[cfg(test)]
mod tests {
    #[test]
    fn qcow2_sizes() {
        assert_eq!(super::qcow2_size(1 << 30, 65536, 16), 1_074_135_040);
        assert_eq!(super::qcow2_size(16 << 20, 65536, 16), 17_104_896);
    }
}
