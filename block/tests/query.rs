//! What is reported about nodes, against the real program's answers.

mod common;
use common::*;
use rqemu_block::*;
use serde_json::Value;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

fn qemu(args: &[&str], commands: &[&str], dir: &Path) -> Vec<Value> {
    let mut child = Command::new("qemu-system-x86_64")
        .args(["-M", "none", "-display", "none", "-nodefaults", "-S", "-monitor", "none", "-qmp", "stdio"])
        .args(args)
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut text = String::from("{\"execute\":\"qmp_capabilities\"}");
    commands.iter().for_each(|c| text.push_str(&format!("{{\"execute\":\"{c}\"}}")));
    text.push_str("{\"execute\":\"quit\"}");
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    let lines = String::from_utf8_lossy(&out.stdout).into_owned();
    let all: Vec<Value> = lines.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    all.into_iter().filter_map(|v| v.get("return").cloned()).skip(1).take(commands.len()).collect()
}

/// Generated node names differ in two digits; the idle time is a clock; block counts are the host's.
fn normalise(v: &mut Value) {
    match v {
        Value::Object(m) => {
            m.remove("idle_time_ns");
            if let Some(Value::String(s)) = m.get_mut("node-name") {
                if s.starts_with("#block") {
                    s.truncate(s.len() - 2);
                }
            }
            m.values_mut().for_each(normalise);
        }
        Value::Array(a) => a.iter_mut().for_each(normalise),
        _ => {}
    }
}

#[test]
fn nodes_and_statistics_look_like_qemus() {
    if !have_tools() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    std::env::set_current_dir(d).unwrap();
    std::fs::write("r.img", vec![0u8; 65536]).unwrap();
    img(&["create", "-q", "-f", "qcow2", "q.qcow2", "1M"]);
    img(&["snapshot", "-c", "snap", "q.qcow2"]);
    img(&[
        "create",
        "-q",
        "-f",
        "qcow2",
        "-o",
        "lazy_refcounts=on",
        "-b",
        "q.qcow2",
        "-F",
        "qcow2",
        "o.qcow2",
    ]);
    img(&["create", "-q", "-f", "qcow2", "-o", "compat=0.10", "v2.qcow2", "1M"]);
    let rows: &[(&str, &[(&str, &str)])] = &[
        ("r.img", &[("format", "raw")]),
        ("o.qcow2", &[]),
        ("v2.qcow2", &[("cache", "none"), ("detect-zeroes", "on")]),
        ("q.qcow2", &[("readonly", "on"), ("format", "qcow2")]),
    ];
    for (file, opts) in rows {
        let mut spec = format!("file={file},if=none,id=d");
        opts.iter().for_each(|(k, v)| spec.push_str(&format!(",{k}={v}")));
        let mut theirs = qemu(&["-drive", &spec], &["query-named-block-nodes", "query-blockstats"], d);
        let graph = BlockGraph::new();
        let b = drive(&graph, "d", Path::new(file), opts).unwrap();
        let mut nodes = graph.query_named_nodes(false);
        let mut stats = Value::Array(vec![query::backend_stats(&b)]);
        for v in [&mut nodes, &mut stats].into_iter().chain(theirs.iter_mut()) {
            normalise(v);
        }
        assert_eq!(nodes, theirs[0], "{file}");
        assert_eq!(stats, theirs[1], "{file}");
        graph.shutdown();
    }
}
