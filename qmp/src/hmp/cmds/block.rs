//! Drives and images.

use crate::commands::{block, medium};
use crate::hmp::{Args, HmpCx};
use crate::types::{Empty, ToQapi};
use rqemu_machine::machine::Machine;
use rqemu_machine::qerr;
use serde_json::Value;

pub(super) fn block_resize(h: &mut HmpCx<'_, '_, '_>, args: &Args) {
    let a = block::BlockResize {
        device: Some(args.str("device").into()),
        node_name: None,
        size: args.int("size"),
    };
    let result = block::block_resize(h.cx, a);
    h.report(result);
}

pub(super) fn eject(h: &mut HmpCx<'_, '_, '_>, args: &Args) {
    let a = block::Eject { device: Some(args.str("device").into()), id: None, force: Some(args.flag("-f")) };
    let result = medium::eject(h.cx, a);
    h.report(result);
}

pub(super) fn change(h: &mut HmpCx<'_, '_, '_>, args: &Args) {
    let mode = match args.opt_str("read-only-mode") {
        None => None,
        Some(name) => match medium::ChangeReadOnly::by_name(name) {
            Some(mode) => Some(mode),
            None => {
                h.report::<()>(Err(qerr!("invalid parameter value: {name}")));
                return;
            }
        },
    };
    let a = medium::ChangeMedium {
        device: Some(args.str("device").into()),
        id: None,
        filename: args.str("target").into(),
        format: args.opt_str("format").map(Into::into),
        force: Some(args.flag("-f")),
        read_only_mode: mode,
    };
    let result = medium::blockdev_change_medium(h.cx, a);
    h.report(result);
}

pub(super) fn commit(h: &mut HmpCx<'_, '_, '_>, args: &Args) {
    let device = args.str("device");
    if device == "all" {
        Machine::block_commit_all(h.cx.m);
    } else if h.cx.m.block.find_drive(device).is_none() {
        h.line(format!("Device '{device}' not found"));
    } else {
        h.line(format!("'commit' error for '{device}': Operation not supported"));
    }
}

fn text<'a>(v: &'a Value, name: &str) -> &'a str {
    v.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn yes(v: &Value, name: &str) -> bool {
    v.get(name).and_then(Value::as_bool).unwrap_or_default()
}

pub(super) fn info_block(h: &mut HmpCx<'_, '_, '_>, args: &Args) {
    let verbose = args.flag("-v");
    let wanted = args.opt_str("device");
    let mut printed = false;
    if !args.flag("-n") {
        let drives = block::query_block(h.cx, Empty).ok().and_then(ToQapi::to_qapi).unwrap_or_default();
        for (nth, drive) in drives.as_array().into_iter().flatten().enumerate() {
            if wanted.is_some_and(|w| w != text(drive, "device")) {
                continue;
            }
            // A line parts a drive from the one before it, shown or not.
            if nth > 0 {
                h.line("");
            }
            printed = true;
            one(h, Some(drive), drive.get("inserted"), verbose);
        }
    }
    if printed || (wanted.is_none() && !args.flag("-n")) {
        return;
    }
    let nodes = h.cx.m.block.query_named_nodes(false);
    for node in nodes.as_array().into_iter().flatten() {
        if wanted.is_some_and(|w| w != text(node, "node-name")) {
            continue;
        }
        if printed {
            h.line("");
        }
        printed = true;
        one(h, None, Some(node), verbose);
    }
}

/// A drive, a node, or both.
fn one(h: &mut HmpCx<'_, '_, '_>, drive: Option<&Value>, node: Option<&Value>, verbose: bool) {
    let mut head = match drive.map(|d| text(d, "device")) {
        Some("") | None => String::new(),
        Some(name) => name.to_string(),
    };
    if head.is_empty() && node.is_none() {
        head = drive.map_or(String::new(), |d| text(d, "qdev").to_string());
    }
    if let Some(node) = node {
        let name = text(node, "node-name");
        head = match head.is_empty() {
            true => name.to_string(),
            false => format!("{head} ({name})"),
        };
        let mut kind = text(node, "drv").to_string();
        if yes(node, "ro") {
            kind.push_str(", read-only");
        }
        if yes(node, "encrypted") {
            kind.push_str(", encrypted");
        }
        h.line(format!("{head}: {} ({kind})", text(node, "file")));
    } else {
        h.line(format!("{head}: [not inserted]"));
    }
    if let Some(drive) = drive {
        if let Some(qdev) = drive.get("qdev").and_then(Value::as_str) {
            h.line(format!("    Attached to:      {qdev}"));
        }
        if yes(drive, "removable") {
            let locked = if yes(drive, "locked") { "" } else { "not " };
            let tray = if yes(drive, "tray_open") { "open" } else { "closed" };
            h.line(format!("    Removable device: {locked}locked, tray {tray}"));
        }
    }
    let Some(node) = node else { return };
    let cache = &node["cache"];
    let mode = if yes(cache, "writeback") { "writeback" } else { "writethrough" };
    let direct = if yes(cache, "direct") { ", direct" } else { "" };
    let no_flush = if yes(cache, "no-flush") { ", ignore flushes" } else { "" };
    h.line(format!("    Cache mode:       {mode}{direct}{no_flush}"));
    if let Some(backing) = node.get("backing_file").and_then(Value::as_str) {
        let depth = node["backing_file_depth"].as_u64().unwrap_or(0);
        h.line(format!("    Backing file:     {backing} (chain depth: {depth})"));
    }
    let zeroes = text(node, "detect_zeroes");
    if zeroes != "off" {
        h.line(format!("    Detect zeroes:    {zeroes}"));
    }
    let n = |k: &str| node.get(k).and_then(Value::as_u64).unwrap_or(0);
    if ["bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr"].iter().any(|k| n(k) != 0) {
        let all = [
            "bps",
            "bps_rd",
            "bps_wr",
            "bps_max",
            "bps_rd_max",
            "bps_wr_max",
            "iops",
            "iops_rd",
            "iops_wr",
            "iops_max",
            "iops_rd_max",
            "iops_wr_max",
            "iops_size",
        ];
        let list: Vec<String> = all.iter().map(|k| format!("{k}={}", n(k))).collect();
        h.line(format!("    I/O throttling:   {} group={}", list.join(" "), text(node, "group")));
    }
    if verbose {
        image(h, &node["image"]);
    }
}

/// Facts about an image.
fn image(h: &mut HmpCx<'_, '_, '_>, image: &Value) {
    h.line("");
    h.line("Images:");
    h.out.push_str(&rqemu_block::text::image_text(image));
}

pub(super) fn info_blockstats(h: &mut HmpCx<'_, '_, '_>, _: &Args) {
    let all = block::query_blockstats(h.cx, block::QueryStats { query_nodes: None });
    let all = all.ok().and_then(ToQapi::to_qapi).unwrap_or_default();
    const COUNTERS: [&str; 11] = [
        "rd_bytes",
        "wr_bytes",
        "rd_operations",
        "wr_operations",
        "flush_operations",
        "wr_total_time_ns",
        "rd_total_time_ns",
        "flush_total_time_ns",
        "rd_merged",
        "wr_merged",
        "idle_time_ns",
    ];
    for drive in all.as_array().into_iter().flatten() {
        let name = text(drive, "device");
        if name.is_empty() {
            continue;
        }
        let one = |c: &&str| format!("{c}={}", drive["stats"][*c].as_i64().unwrap_or(0));
        let counters: Vec<String> = COUNTERS.iter().map(one).collect();
        h.line(format!("{name}: {}", counters.join(" ")));
    }
}
