//! Dependencies between the workspace's crates point one way: block <- machine <- qmp <- frontend; compat-tests uses
//! none of them.

use serde_json::Value;
use std::collections::BTreeMap;

/// Crate -> the crates of ours that it may depend on (also for tests and build scripts).
const ALLOWED: &[(&str, &[&str])] = &[
    ("rqemu-block", &[]),
    ("rqemu-x86", &[]),
    ("rqemu-derive", &[]),
    ("rqemu-machine", &["rqemu-block", "rqemu-derive", "rqemu-x86"]),
    ("rqemu-qmp", &["rqemu-machine", "rqemu-block"]),
    ("rqemu-frontend", &["rqemu-qmp", "rqemu-machine", "rqemu-block"]),
    ("rqemu-compat", &[]),
];

fn violations(deps: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    let mut out = vec![];
    for (name, list) in deps {
        match ALLOWED.iter().find(|(n, _)| n == name) {
            None => out.push(format!("{name}: a new crate; say in this test what it may use")),
            Some((_, may)) => out.extend(
                list.iter()
                    .filter(|d| !may.contains(&d.as_str()))
                    .map(|d| format!("{name} must not depend on {d}")),
            ),
        }
    }
    out
}

/// Workspace crates and which of each other they name, from `cargo metadata`.
fn workspace() -> BTreeMap<String, Vec<String>> {
    let out = std::process::Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1", "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .output()
        .expect("cargo metadata runs");
    let v: Value = serde_json::from_slice(&out.stdout).expect("cargo metadata prints JSON");
    let packages = v["packages"].as_array().expect("packages");
    let names: Vec<&str> = packages.iter().filter_map(|p| p["name"].as_str()).collect();
    let ours = |p: &Value| {
        let deps = p["dependencies"].as_array().into_iter().flatten().filter_map(|d| d["name"].as_str());
        deps.filter(|d| names.contains(d)).map(str::to_owned).collect::<Vec<_>>()
    };
    packages.iter().map(|p| (p["name"].as_str().unwrap_or("?").to_owned(), ours(p))).collect()
}

#[test]
fn arrows_point_one_way() {
    let deps = workspace();
    assert!(
        deps.contains_key("rqemu-frontend") && deps["rqemu-machine"].contains(&"rqemu-block".to_owned()),
        "{deps:?}"
    );
    let bad = violations(&deps);
    assert!(bad.is_empty(), "{bad:#?}");
}

#[test]
fn a_wrong_arrow_is_found() {
    let deps = BTreeMap::from([("rqemu-block".to_owned(), vec!["rqemu-machine".to_owned()])]);
    assert_eq!(violations(&deps).len(), 1);
    assert_eq!(violations(&BTreeMap::from([("rqemu-new".to_owned(), vec![])])).len(), 1);
}
