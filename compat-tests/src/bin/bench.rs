//! Benchmarks against QEMU; writes `docs/performance.md`. Arguments: `--repeats N` (default 7), `--stdout` (print the
//! table only), and words that restrict the run to cases whose group or name contains one of them (implies `--stdout`).

use rqemu_compat::bench;
use rqemu_compat::bins::{crate_dir, Bin};
use rqemu_compat::Res;
use std::process::ExitCode;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("bench: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Res<()> {
    let (mut repeats, mut print, mut words) = (7, false, vec![]);
    let mut args = std::env::args().skip(1);
    while let Some(a) = args.next() {
        match a.as_str() {
            "--stdout" => print = true,
            "--repeats" => {
                repeats = args.next().and_then(|n| n.parse().ok()).ok_or("--repeats needs a number")?
            }
            _ => words.push(a),
        }
    }
    let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
    let (ours, qemu) = (Bin::ours(), Bin::qemu());
    let mut rows = vec![];
    for c in bench::cases(dir.path())? {
        if !words.is_empty()
            && !words.iter().any(|w| c.group.contains(w.as_str()) || c.name.contains(w.as_str()))
        {
            continue;
        }
        let m = bench::run(&c, &ours, &qemu, repeats);
        let show = |r: &Res<f64>| {
            r.as_ref().map_or_else(
                |e| format!("({})", e.chars().take(100).collect::<String>()),
                |v| format!("{v:.2}"),
            )
        };
        eprintln!("{} / {}: {} against {} {}", m.group, m.name, show(&m.ours), show(&m.qemu), m.unit);
        rows.push(m);
    }
    let table = bench::render(&rows);
    if print || !words.is_empty() {
        print!("{table}");
        return Ok(());
    }
    let path = crate_dir().parent().unwrap_or(crate_dir()).join("docs/performance.md");
    std::fs::create_dir_all(path.parent().unwrap_or(crate_dir())).map_err(|e| e.to_string())?;
    std::fs::write(&path, table).map_err(|e| format!("{}: {e}", path.display()))?;
    println!("wrote {}", path.display());
    Ok(())
}
