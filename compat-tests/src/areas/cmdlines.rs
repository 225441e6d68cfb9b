//! Command lines from public scripts, CI and documentation (`data/cmdlines.jsonl`): each must end with the same
//! error, or start and show the same devices.
//!
//! The lines run with `-S`, so no guest code does; files are replaced by small ones ([`super::rewrite`]).

use super::rewrite::rewrite;
use super::{errors, trees, with_accel, Sides};
use crate::bins::Bin;
use crate::compare;
use crate::proc::{Cmd, Exit};
use crate::qmp::Qmp;
use crate::score::Row;
use crate::stream::find;
use crate::vm::connect;
use crate::Res;
use serde_json::{json, Value};
use std::path::{Path, PathBuf};
use std::time::Duration;

const LINES: &str = include_str!("../../data/cmdlines.jsonl");

/// What a line came to.
#[derive(Debug, PartialEq)]
enum Seen {
    /// Ended at once.
    Ended { exit: Exit, stderr: String },
    /// Started; devices of the tree, PCI functions, run state.
    Started { tree: Value, pci: Value, status: Value },
}

/// Lines that cannot be compared, by number: 14 waits for a vhost-user peer for ever.
const SKIPPED: &[u64] = &[14];

/// All rows.
pub fn run(sides: &Sides) -> Vec<Row> {
    let lines = LINES.lines().filter_map(|l| serde_json::from_str::<Value>(l).ok());
    lines
        .filter(|l| !l["id"].as_u64().is_some_and(|id| SKIPPED.contains(&id)))
        .map(|l| row(sides, &l))
        .collect()
}

/// Runs one line of the file on both sides.
fn row(sides: &Sides, line: &Value) -> Row {
    let argv: Vec<String> = line["argv"]
        .as_array()
        .into_iter()
        .flatten()
        .skip(1)
        .filter_map(|a| a.as_str().map(str::to_owned))
        .collect();
    let id = line["id"].as_u64().unwrap_or(0);
    let name = format!("{id:03} {}", line["kind"].as_str().unwrap_or_default());
    let (a, b) = sides.both(|bin| seen(bin, &argv));
    Row::of(name, a, b, difference)
}

fn seen(bin: &Bin, argv: &[String]) -> Res<Seen> {
    let dir = tempfile::Builder::new().prefix("rqc").tempdir().map_err(|e| e.to_string())?;
    let mut ready = rewrite(argv, dir.path())?;
    ready.argv = with_accel(ready.argv);
    let sock = dir.path().join("compat-qmp");
    let qmp = format!("unix:{},server=on,wait=off", sock.display());
    let mut cmd = Cmd::new(bin).args(&ready.argv).args(["-S", "-qmp", &qmp]).dir(dir.path()).pipe_stdin();
    if !ready.argv.iter().any(|a| a == "-nographic" || a.ends_with("display")) {
        cmd = cmd.args(["-display", "none"]);
    }
    let daemon = ready.argv.iter().any(|a| a == "-daemonize");
    let pidfile = dir.path().join("compat-pid");
    if daemon && !ready.argv.iter().any(|a| a == "-pidfile") {
        cmd = cmd.arg("-pidfile").arg(&pidfile);
    }
    let mut proc = cmd.spawn()?;
    let ended =
        |exit, stderr: &str| Ok(Seen::Ended { exit, stderr: errors::normalise(stderr, bin, dir.path()) });
    if daemon {
        match proc.wait(Duration::from_secs(10)) {
            Some((Exit::Code(0), _)) => {}
            Some((exit, _)) => {
                let _ = proc.stderr.to_end(Duration::from_secs(1));
                return ended(exit, &proc.stderr.text());
            }
            None => return Err("-daemonize: the parent does not end".into()),
        }
        // The daemon is no child of ours: only its socket tells.
        let seen = Qmp::connect(&sock, Duration::from_secs(5), || true).and_then(|mut q| {
            q.negotiate().map_err(|e| e.to_string())?;
            look(&mut q)
        });
        end_daemon(&ready.argv, &pidfile, dir.path());
        return seen;
    }
    let looked = connect(&sock, &mut proc).and_then(|mut q| look(&mut q));
    match looked {
        Ok(seen) => Ok(seen),
        Err(e) => match proc.wait(Duration::ZERO) {
            Some((exit, _)) => {
                let _ = proc.stderr.to_end(Duration::from_secs(1));
                ended(exit, &proc.stderr.text())
            }
            None => Err(e),
        },
    }
}

/// Ends a daemon that did not obey `quit`: the process that its pid file names, if it really is the one of `dir`.
fn end_daemon(argv: &[String], default: &Path, dir: &Path) {
    let given = argv.iter().position(|a| a == "-pidfile").and_then(|i| argv.get(i + 1));
    let file = given.map(PathBuf::from).unwrap_or_else(|| default.to_owned());
    let pid = std::fs::read_to_string(file).ok().and_then(|t| t.trim().parse::<i32>().ok());
    let Some(pid) = pid.filter(|p| *p > 1) else { return };
    let ours = |p: i32| {
        let line = std::fs::read(format!("/proc/{p}/cmdline")).unwrap_or_default();
        find(&line, dir.as_os_str().as_encoded_bytes()).is_some()
    };
    for _ in 0..100 {
        if !ours(pid) {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    // SAFETY: kill takes two integers; the process was just seen to be the daemon.
    unsafe { libc::kill(pid, libc::SIGKILL) };
}

fn look(q: &mut Qmp) -> Res<Seen> {
    let text = q.hmp("info qtree").map_err(|e| format!("info qtree: {e}"))?;
    let pci = q.cmd("query-pci", Value::Null).map_err(|e| format!("query-pci: {e}"))?;
    let status = q.cmd("query-status", Value::Null).map_err(|e| format!("query-status: {e}"))?;
    q.cmd("quit", Value::Null).map_err(|e| format!("quit: {e}"))?;
    Ok(Seen::Started { tree: json!(trees::qtree_devices(&text)), pci, status })
}

fn difference(a: &Seen, b: &Seen) -> Option<String> {
    match (a, b) {
        (Seen::Started { tree: t, pci: p, status: s }, Seen::Started { tree: u, pci: q, status: r }) => {
            compare::first("qtree", t, u)
                .map(|d| format!("devices: {d}"))
                .or_else(|| compare::first("query-pci", p, q).map(|d| format!("PCI: {d}")))
                .or_else(|| compare::first("query-status", s, r).map(|d| format!("status: {d}")))
        }
        (Seen::Ended { exit: x, stderr: e }, Seen::Ended { exit: y, stderr: f }) => (x != y)
            .then(|| format!("{x:?} | qemu {y:?}"))
            .or_else(|| compare::first_line(&errors::refusal(e), &errors::refusal(f))),
        (Seen::Ended { exit, stderr }, Seen::Started { .. }) => {
            Some(format!("does not start: {exit:?} {}", stderr.trim()))
        }
        (Seen::Started { .. }, Seen::Ended { exit, stderr }) => {
            Some(format!("starts, but qemu: {exit:?} {}", stderr.trim()))
        }
    }
}
