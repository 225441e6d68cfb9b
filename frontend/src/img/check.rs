//! `check`.

use super::args::{Args, Spec};
use super::{open, pretty, say, Done, Failure};
use rqemu_block::{BlockGraph, CheckReport, ImageOpts, Repair};
use serde_json::{json, Value};

pub(super) fn check(a: Args) -> Done {
    let p = a.parse(&Spec {
        short: "f:r:T:qU",
        long: &[
            ("format", true, Some('f')),
            ("repair", true, Some('r')),
            ("output", true, None),
            ("force-share", false, Some('U')),
        ],
    })?;
    let json = p.json()?;
    let fix = match p.get("r") {
        None => Repair::None,
        Some("leaks") => Repair::Leaks,
        Some("all") => Repair::All,
        Some(_) => return Err(Failure::usage("--repair expects 'leaks' or 'all' as argument")),
    };
    let name = match p.operands.as_slice() {
        [n] => n,
        _ => return Err(Failure::usage("Expecting one image file name")),
    };
    let graph = BlockGraph::new();
    let o = ImageOpts {
        format: p.own("f"),
        write: fix != Repair::None,
        no_backing: true,
        force_share: p.has("U"),
        cache: p.own("T"),
        ..ImageOpts::default()
    };
    let image = open(&graph, name, &o)?;
    if image.format() != "qcow2" {
        return Err(Failure::new("This image format does not support checks").with_status(63));
    }
    let mut r = image.check(fix)?;
    let quiet = p.has("q") || json;
    let tell = |t: &str| {
        if !quiet {
            say(t);
        }
    };
    findings(&r);
    let fixed = (r.leaks_fixed, r.corruptions_fixed);
    if fixed != (0, 0) {
        tell(&format!(
            "The following inconsistencies were found and repaired:\n\n    {} leaked clusters\n    {} corruptions\n\n\
             Double checking the fixed image now...\n",
            fixed.0, fixed.1
        ));
        r = CheckReport { leaks_fixed: fixed.0, corruptions_fixed: fixed.1, ..image.check(Repair::None)? };
        findings(&r);
    }
    if json {
        say(&pretty(&as_json(&r, name, image.format())));
    } else {
        tell(&as_text(&r));
    }
    drop(image);
    graph.shutdown();
    Ok(match (r.check_errors, r.corruptions, r.leaks) {
        (0, 0, 0) => 0,
        (0, 0, _) => 3,
        (0, ..) => 2,
        _ => 1,
    })
}

/// Each finding goes to stderr, whatever the form of the report.
fn findings(r: &CheckReport) {
    for m in &r.messages {
        eprintln!("{m}");
    }
}

fn as_json(r: &CheckReport, name: &str, format: &str) -> Value {
    let mut v = json!({});
    let Some(m) = v.as_object_mut() else { return v };
    m.insert("image-end-offset".into(), r.image_end.into());
    let mut put = |k: &str, n: u64| {
        if n != 0 {
            m.insert(k.into(), n.into());
        }
    };
    put("corruptions", r.corruptions);
    put("leaks", r.leaks);
    put("corruptions-fixed", r.corruptions_fixed);
    put("leaks-fixed", r.leaks_fixed);
    put("total-clusters", r.total);
    m.insert("check-errors".into(), r.check_errors.into());
    let mut put = |k: &str, n: u64| {
        if n != 0 {
            m.insert(k.into(), n.into());
        }
    };
    put("compressed-clusters", r.compressed);
    put("fragmented-clusters", r.fragmented);
    put("allocated-clusters", r.allocated);
    m.insert("filename".into(), name.into());
    m.insert("format".into(), format.into());
    v
}

fn as_text(r: &CheckReport) -> String {
    let mut s = String::new();
    if (r.corruptions, r.leaks, r.check_errors) == (0, 0, 0) {
        s.push_str("No errors were found on the image.\n");
    } else {
        if r.corruptions > 0 {
            s.push_str(&format!(
                "\n{} errors were found on the image.\nData may be corrupted, or further writes to the image may \
                 corrupt it.\n",
                r.corruptions
            ));
        }
        if r.leaks > 0 {
            s.push_str(&format!(
                "\n{} leaked clusters were found on the image.\nThis means waste of disk space, but no harm to data.\n",
                r.leaks
            ));
        }
        if r.check_errors > 0 {
            s.push_str(&format!("\n{} internal errors have occurred during the check.\n", r.check_errors));
        }
    }
    if r.total != 0 && r.allocated != 0 {
        let part = |a: u64, b: u64| a as f64 * 100.0 / b as f64;
        s.push_str(&format!(
            "{}/{} = {:.2}% allocated, {:.2}% fragmented, {:.2}% compressed clusters\n",
            r.allocated,
            r.total,
            part(r.allocated, r.total),
            part(r.fragmented, r.allocated),
            part(r.compressed, r.allocated)
        ));
    }
    if r.image_end > 0 {
        s.push_str(&format!("Image end offset: {}\n", r.image_end));
    }
    s
}
