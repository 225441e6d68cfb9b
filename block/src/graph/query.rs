//! What `query-block`, `query-named-block-nodes` and `query-blockstats` report about nodes.

use super::BlockGraph;
use crate::backend::BlockBackend;
use crate::node::Node;
use crate::stats::Stats;
use serde_json::{json, Map, Value};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::Arc;

/// `ImageInfo` of a node, with its backing chain unless `flat`.
pub fn image_info(node: &Arc<Node>, flat: bool) -> Value {
    let facts = node.driver().image_facts();
    let mut m = Map::new();
    if let Some(b) = node.backing().filter(|_| !flat) {
        m.insert("backing-image".into(), image_info(&b, false));
    }
    if let Some(f) = &facts.backing_format {
        m.insert("backing-filename-format".into(), f.as_str().into());
    }
    // Sizes are shown in whole sectors.
    m.insert("virtual-size".into(), (node.len().div_ceil(512) * 512).into());
    m.insert("filename".into(), node.info.filename.as_str().into());
    if let Some(c) = facts.cluster_size {
        m.insert("cluster-size".into(), c.into());
    }
    m.insert("format".into(), node.driver().name().into());
    if let Some(n) = allocated(node) {
        m.insert("actual-size".into(), n.into());
    }
    if !facts.snapshots.is_empty() {
        let list = facts.snapshots.iter().map(|s| {
            let mut v = json!({"id": s.id, "name": s.name, "vm-state-size": s.vm_state_size, "date-sec": s.date_sec,
                "date-nsec": s.date_nsec, "vm-clock-sec": s.vm_clock_ns / 1_000_000_000,
                "vm-clock-nsec": s.vm_clock_ns % 1_000_000_000});
            if let (Some(i), Some(o)) = (s.icount, v.as_object_mut()) {
                o.insert("icount".into(), i.into());
            }
            v
        });
        m.insert("snapshots".into(), list.collect());
    }
    if let Some(f) = node.driver().format_specific() {
        m.insert("format-specific".into(), f);
    }
    if let Some(b) = &facts.backing_file {
        let full = node.backing().map_or_else(|| b.clone(), |n| n.info.filename.clone());
        m.insert("full-backing-filename".into(), full.into());
        m.insert("backing-filename".into(), b.as_str().into());
    }
    if facts.encrypted {
        m.insert("encrypted".into(), true.into());
    }
    m.insert("dirty-flag".into(), facts.dirty.into());
    Value::Object(m)
}

fn allocated(node: &Arc<Node>) -> Option<u64> {
    node.driver().allocated().or_else(|| node.file().and_then(allocated))
}

/// `BlockDeviceInfo` of a node: an element of `query-named-block-nodes`, and `inserted` of `query-block`.
/// `writeback` is the write-cache state of the drive (true for a bare node).
pub fn device_info(node: &Arc<Node>, writeback: bool, flat: bool) -> Value {
    let mut m = object(json!({
        "iops_rd": 0,
        "detect_zeroes": node.info.detect_zeroes.as_str(),
        "image": image_info(node, flat),
        "iops_wr": 0,
        "ro": node.read_only(),
        "node-name": node.name(),
        "backing_file_depth": depth(node),
        "drv": node.driver().name(),
        "iops": 0,
        "bps_wr": 0,
        "write_threshold": 0,
    }));
    let bitmaps = node.hooks.bitmaps();
    let shown: Vec<Value> = bitmaps
        .iter()
        .rev()
        .filter_map(|b| {
            let f = b.facts();
            let mut v = json!({"name": b.name.as_deref()?, "recording": f.recording, "persistent": f.persistent,
                "busy": f.busy, "granularity": f.granularity, "count": f.count});
            if let (true, Some(m)) = (f.inconsistent, v.as_object_mut()) {
                m.insert("inconsistent".into(), true.into());
            }
            Some(v)
        })
        .collect();
    if !shown.is_empty() {
        m.insert("dirty-bitmaps".into(), shown.into());
    }
    if let Some(b) = node.backing() {
        m.insert("backing_file".into(), b.info.filename.as_str().into());
    }
    m.insert("encrypted".into(), node.driver().image_facts().encrypted.into());
    m.insert("bps".into(), 0.into());
    m.insert("bps_rd".into(), 0.into());
    m.insert(
        "cache".into(),
        json!({"no-flush": node.info.cache.no_flush, "direct": node.info.cache.direct, "writeback": writeback}),
    );
    m.insert("file".into(), node.info.filename.as_str().into());
    Value::Object(m)
}

/// Adds a drive's limits to [`device_info`].
pub fn add_limits(info: &mut Value, drive: &BlockBackend) {
    let (Some(t), Some(m)) = (drive.throttle(), info.as_object_mut()) else { return };
    let l = t.limits();
    let names = ["bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr"];
    for (name, b) in names.iter().zip(&l.buckets) {
        m.insert((*name).into(), b.avg.into());
        if b.max != 0 {
            m.insert(format!("{name}_max"), b.max.into());
            m.insert(format!("{name}_max_length"), b.length.into());
        }
    }
    if l.iops_size != 0 {
        m.insert("iops_size".into(), l.iops_size.into());
    }
    m.insert("group".into(), t.group.as_str().into());
}

fn object(v: Value) -> Map<String, Value> {
    super::object(v)
}

/// Images below `node` in its backing chain.
pub fn depth(node: &Arc<Node>) -> u64 {
    std::iter::successors(node.backing(), |n| n.backing()).count() as u64
}

fn counters(s: Option<&Stats>, highest: u64) -> Value {
    let z = Stats::default();
    let account = s.is_some();
    let t = s.unwrap_or(&z);
    let mut m = object(json!({
        "unmap_operations": t.unmap.ops.load(Relaxed), "unmap_merged": 0,
        "flush_total_time_ns": t.flush.time_ns.load(Relaxed), "wr_highest_offset": highest,
        "wr_total_time_ns": t.wr.time_ns.load(Relaxed), "failed_wr_operations": t.wr.failed.load(Relaxed),
        "failed_rd_operations": t.rd.failed.load(Relaxed), "wr_merged": 0, "wr_bytes": t.wr.bytes.load(Relaxed),
        "timed_stats": [], "failed_unmap_operations": t.unmap.failed.load(Relaxed),
        "failed_flush_operations": t.flush.failed.load(Relaxed), "account_invalid": account,
        "rd_total_time_ns": t.rd.time_ns.load(Relaxed),
        "invalid_unmap_operations": t.unmap.invalid.load(Relaxed), "flush_operations": t.flush.ops.load(Relaxed),
        "wr_operations": t.wr.ops.load(Relaxed), "unmap_bytes": t.unmap.bytes.load(Relaxed), "rd_merged": 0,
        "rd_bytes": t.rd.bytes.load(Relaxed), "unmap_total_time_ns": t.unmap.time_ns.load(Relaxed),
        "invalid_flush_operations": t.flush.invalid.load(Relaxed), "account_failed": account,
        "rd_operations": t.rd.ops.load(Relaxed), "invalid_wr_operations": t.wr.invalid.load(Relaxed),
        "invalid_rd_operations": t.rd.invalid.load(Relaxed),
    }));
    if let Some(ns) = t.idle_ns() {
        m.insert("idle_time_ns".into(), ns.into());
    }
    Value::Object(m)
}

/// `BlockStats` of a node, with `parent` (the file below) and `backing`.
pub fn node_stats(node: &Arc<Node>, stats: Option<&Stats>) -> Value {
    let mut m = Map::new();
    if let Some(f) = node.file() {
        m.insert("parent".into(), node_stats(f, None));
    }
    m.insert("stats".into(), counters(stats, node.wr_highest_offset()));
    if let Some(b) = node.backing() {
        m.insert("backing".into(), node_stats(&b, None));
    }
    m.insert("node-name".into(), node.name().into());
    if let Some(d) = node.driver().driver_stats() {
        m.insert("driver-specific".into(), d);
    }
    Value::Object(m)
}

/// `BlockStats` of a drive, without the members that the device adds (`qdev`).
pub fn backend_stats(b: &BlockBackend) -> Value {
    match b.root() {
        Some(n) => {
            let mut m = Map::new();
            m.insert("device".into(), b.name().into());
            m.extend(object(node_stats(&n, Some(b.stats()))));
            Value::Object(m)
        }
        None => json!({"device": b.name(), "stats": counters(Some(b.stats()), 0)}),
    }
}

impl BlockGraph {
    /// `query-named-block-nodes`.
    pub fn query_named_nodes(&self, flat: bool) -> Value {
        self.nodes().iter().map(|n| device_info(n, true, flat)).collect()
    }

    /// `query-blockstats` with `query-nodes=true`.
    pub fn query_node_stats(&self) -> Value {
        self.nodes().iter().map(|n| node_stats(n, None)).collect()
    }
}
