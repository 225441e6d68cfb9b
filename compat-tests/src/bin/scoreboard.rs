//! Runs every area and writes `scoreboard.md`. `--ratchet` raises the committed floor. Names of areas restrict the run; the
//! result is then only printed, unless `--write` asks for the page, with the other areas as they were last.

use rqemu_compat::areas::{area, Area, Sides, AREAS};
use rqemu_compat::score;
use std::process::ExitCode;

fn main() -> ExitCode {
    let (flags, names): (Vec<String>, Vec<String>) =
        std::env::args().skip(1).partition(|a| a.starts_with("--"));
    let sides = Sides::from_env();
    let picked: Vec<&Area> = if names.is_empty() {
        AREAS.iter().collect()
    } else {
        names.iter().filter_map(|n| area(n)).collect()
    };
    let mut reports = vec![];
    for a in picked {
        let r = a.report(&sides);
        let (e, d, m) = r.counts();
        eprintln!("{}: {e} equal, {d} different, {m} missing", a.name);
        reports.push(r);
    }
    if !names.is_empty() {
        if !flags.iter().any(|f| f == "--write") {
            print!("{}", score::render(&reports));
            return ExitCode::SUCCESS;
        }
        reports = AREAS
            .iter()
            .filter_map(|a| {
                reports.iter().find(|r| r.area == a.name).cloned().or_else(|| score::last(a.name))
            })
            .collect();
    }
    let mut result = score::write_scoreboard(&reports).map(|p| println!("wrote {}", p.display()));
    if flags.iter().any(|f| f == "--ratchet") {
        result = result.and_then(|()| score::raise_ratchet(&reports));
    }
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("scoreboard: {e}");
            ExitCode::FAILURE
        }
    }
}
