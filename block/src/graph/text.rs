//! `ImageInfo` as text, as `info block -v` and `qemu-img info` print it.

use serde_json::Value;
use std::fmt::Write;

/// A size with three significant digits and a binary prefix.
pub fn human_size(size: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let (mut value, mut unit) = (size as f64, 0);
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = match value {
        v if v >= 99.95 || v.fract() == 0.0 => 0,
        v if v >= 9.995 => 1,
        _ => 2,
    };
    let text = format!("{value:.digits$}");
    let text = match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.'),
        false => &text,
    };
    format!("{text} {}", UNITS[unit])
}

fn text<'a>(v: &'a Value, key: &str) -> Option<&'a str> {
    v.get(key).and_then(Value::as_str)
}

/// Lines about an image.
pub fn image_text(image: &Value) -> String {
    let mut s = String::new();
    let size = image["virtual-size"].as_u64().unwrap_or(0);
    let _ = writeln!(s, "image: {}", text(image, "filename").unwrap_or(""));
    let _ = writeln!(s, "file format: {}", text(image, "format").unwrap_or(""));
    let _ = writeln!(s, "virtual size: {} ({size} bytes)", human_size(size));
    let disk = image.get("actual-size").and_then(Value::as_u64);
    let _ = writeln!(s, "disk size: {}", disk.map_or("unavailable".into(), human_size));
    if image["encrypted"] == true {
        s.push_str("encrypted: yes\n");
    }
    if let Some(c) = image.get("cluster-size").and_then(Value::as_u64) {
        let _ = writeln!(s, "cluster_size: {c}");
    }
    if image["dirty-flag"] == true {
        s.push_str("cleanly shut down: no\n");
    }
    if let Some(b) = text(image, "backing-filename") {
        let _ = write!(s, "backing file: {b}");
        match text(image, "full-backing-filename") {
            None => s.push_str(" (cannot determine actual path)"),
            Some(full) if full != b => {
                let _ = write!(s, " (actual path: {full})");
            }
            Some(_) => {}
        }
        s.push('\n');
        if let Some(f) = text(image, "backing-filename-format") {
            let _ = writeln!(s, "backing file format: {f}");
        }
    }
    if let Some(list) = image.get("snapshots").and_then(Value::as_array) {
        s.push_str("Snapshot list:\n");
        s.push_str(&snapshot_lines(list));
    }
    if let Some(data) = image.get("format-specific").and_then(|f| f.get("data")) {
        if data.as_object().is_some_and(|m| !m.is_empty()) {
            s.push_str("Format specific information:\n");
            members(&mut s, data, 1);
        }
    }
    s
}

fn members(s: &mut String, v: &Value, depth: usize) {
    for (k, v) in v.as_object().into_iter().flatten() {
        let name = k.replace('-', " ");
        let pad = "    ".repeat(depth);
        match v {
            Value::Object(_) => {
                let _ = writeln!(s, "{pad}{name}:");
                members(s, v, depth + 1);
            }
            Value::Array(list) => {
                let _ = writeln!(s, "{pad}{name}:");
                for (i, e) in list.iter().enumerate() {
                    match e {
                        Value::Object(_) => {
                            let _ = writeln!(s, "{pad}    [{i}]:");
                            members(s, e, depth + 2);
                        }
                        e => {
                            let _ = writeln!(s, "{pad}    [{i}]: {}", plain(e));
                        }
                    }
                }
            }
            v => {
                let _ = writeln!(s, "{pad}{name}: {}", plain(v));
            }
        }
    }
}

fn plain(v: &Value) -> String {
    v.as_str().map_or_else(|| v.to_string(), str::to_owned)
}

/// A table of internal snapshots (QAPI `SnapshotInfo`), with its heading.
pub fn snapshot_lines(list: &[Value]) -> String {
    let mut s = format!(
        "{:<10}{:<17}{:>8}{:>20}{:>13}{:>11}\n",
        "ID", "TAG", "VM SIZE", "DATE", "VM CLOCK", "ICOUNT"
    );
    for v in list {
        let n = |k: &str| v[k].as_u64().unwrap_or(0);
        let secs = n("vm-clock-sec");
        let clock = format!(
            "{:02}:{:02}:{:02}.{:03}",
            secs / 3600,
            secs / 60 % 60,
            secs % 60,
            n("vm-clock-nsec") / 1_000_000
        );
        let icount = v.get("icount").and_then(Value::as_u64).map_or(String::new(), |i| i.to_string());
        let _ = writeln!(
            s,
            "{:<10}{:<17}{:>8}{:>20}{:>13}{:>11}",
            text(v, "id").unwrap_or(""),
            text(v, "name").unwrap_or(""),
            human_size(n("vm-state-size")),
            local_time(n("date-sec") as i64),
            clock,
            icount
        );
    }
    s
}

/// `2023-11-14 22:13:20` in the local time zone.
fn local_time(t: i64) -> String {
    // SAFETY: `tm` is plain data that localtime_r fills; on failure it stays zero.
    let tm = unsafe {
        let mut tm: libc::tm = std::mem::zeroed();
        libc::localtime_r(&t, &mut tm);
        tm
    };
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02}",
        tm.tm_year + 1900,
        tm.tm_mon + 1,
        tm.tm_mday,
        tm.tm_hour,
        tm.tm_min,
        tm.tm_sec
    )
}
