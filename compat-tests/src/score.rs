//! Rows, areas, the scoreboard and its ratchet.

use crate::bins::{crate_dir, out_dir};
use crate::compare::cut;
use crate::Res;
use serde_json::{json, Map, Value};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

/// What a row came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The same on both sides.
    Equal,
    /// Both answered, differently; the first difference.
    Different(String),
    /// The binary under test has it not, crashed, or hung; what happened.
    Missing(String),
}

/// One comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub name: String,
    pub verdict: Verdict,
}

impl Row {
    /// A row from two results: no answer of ours is `Missing`, none of the reference `Different`; two answers are
    /// compared by `diff`, which returns the first difference.
    pub fn of<T>(
        name: impl Into<String>,
        ours: Res<T>,
        qemu: Res<T>,
        diff: impl FnOnce(&T, &T) -> Option<String>,
    ) -> Row {
        let verdict = match (ours, qemu) {
            (_, Err(e)) => Verdict::Different(format!("the reference failed: {e}")),
            (Err(e), _) => Verdict::Missing(e),
            (Ok(a), Ok(b)) => diff(&a, &b).map_or(Verdict::Equal, Verdict::Different),
        };
        Row { name: name.into(), verdict }
    }

    /// Whether it is equal.
    pub fn is_equal(&self) -> bool {
        self.verdict == Verdict::Equal
    }
}

/// Rows from two keyed sets: one row a key, absent keys are missing, extra ones different.
pub fn keyed<T>(
    prefix: &str,
    ours: &BTreeMap<String, T>,
    qemu: &BTreeMap<String, T>,
    mut diff: impl FnMut(&str, &T, &T) -> Option<String>,
) -> Vec<Row> {
    let row = |k: &str, verdict| Row { name: format!("{prefix}{k}"), verdict };
    let mut rows: Vec<Row> = qemu
        .iter()
        .map(|(k, q)| match ours.get(k) {
            None => row(k, Verdict::Missing("absent".into())),
            Some(o) => row(k, diff(k, o, q).map_or(Verdict::Equal, Verdict::Different)),
        })
        .collect();
    for k in ours.keys().filter(|k| !qemu.contains_key(*k)) {
        rows.push(row(k, Verdict::Different("the reference has no such entry".into())));
    }
    rows
}

/// All rows of one area.
#[derive(Clone, Debug)]
pub struct Report {
    pub area: String,
    pub rows: Vec<Row>,
}

impl Report {
    /// Rows in the order of their names.
    pub fn new(area: &str, mut rows: Vec<Row>) -> Report {
        rows.sort_by(|a, b| a.name.cmp(&b.name));
        Report { area: area.to_owned(), rows }
    }

    /// (equal, different, missing).
    pub fn counts(&self) -> (usize, usize, usize) {
        self.rows.iter().fold((0, 0, 0), |(e, d, m), r| match r.verdict {
            Verdict::Equal => (e + 1, d, m),
            Verdict::Different(_) => (e, d + 1, m),
            Verdict::Missing(_) => (e, d, m + 1),
        })
    }

    /// Writes `out/areas/<area>.json`.
    pub fn save(&self) -> Res<()> {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|r| match &r.verdict {
                Verdict::Equal => json!([r.name, "equal"]),
                Verdict::Different(d) => json!([r.name, "different", d]),
                Verdict::Missing(d) => json!([r.name, "missing", d]),
            })
            .collect();
        let dir = areas_dir();
        std::fs::create_dir_all(&dir).map_err(|e| e.to_string())?;
        let p = dir.join(format!("{}.json", self.area));
        let text = serde_json::to_string_pretty(&json!({ "area": self.area, "rows": rows }))
            .map_err(|e| e.to_string())?;
        std::fs::write(&p, text + "\n").map_err(|e| format!("{}: {e}", p.display()))
    }
}

/// The last saved report of an area; `None` if there is none that can be read.
pub fn last(area: &str) -> Option<Report> {
    let text = std::fs::read_to_string(areas_dir().join(format!("{area}.json"))).ok()?;
    let v: Value = serde_json::from_str(&text).ok()?;
    let row = |r: &Value| {
        let name = r[0].as_str()?.to_owned();
        let why = r[2].as_str().unwrap_or_default().to_owned();
        let verdict = match r[1].as_str()? {
            "equal" => Verdict::Equal,
            "different" => Verdict::Different(why),
            _ => Verdict::Missing(why),
        };
        Some(Row { name, verdict })
    };
    Some(Report::new(area, v["rows"].as_array()?.iter().map(row).collect::<Option<_>>()?))
}

fn areas_dir() -> PathBuf {
    out_dir().join("areas")
}

fn ratchet_path() -> PathBuf {
    crate_dir().join("ratchet.json")
}

/// The committed floor: area -> number of equal rows.
pub fn ratchet() -> Res<BTreeMap<String, usize>> {
    let p = ratchet_path();
    let text = std::fs::read_to_string(&p).map_err(|e| format!("{}: {e}", p.display()))?;
    serde_json::from_str(&text).map_err(|e| format!("{}: {e}", p.display()))
}

/// Raises the floor of each reported area to what it reached. Lowering one is a decision: edit the file.
pub fn raise_ratchet(reports: &[Report]) -> Res<()> {
    let mut floor = ratchet()?;
    for r in reports {
        let f = floor.entry(r.area.clone()).or_default();
        *f = (*f).max(r.counts().0);
    }
    let map: Map<String, Value> = floor.into_iter().map(|(k, v)| (k, json!(v))).collect();
    let text = serde_json::to_string_pretty(&map).map_err(|e| e.to_string())?;
    std::fs::write(ratchet_path(), text + "\n").map_err(|e| e.to_string())
}

/// Fails when the area fell below its floor, naming what is not equal.
pub fn check(report: &Report) -> Res<()> {
    let floor = ratchet()?.get(&report.area).copied().unwrap_or(0);
    let (equal, different, missing) = report.counts();
    println!("{}: {equal} equal, {different} different, {missing} missing (floor {floor})", report.area);
    if equal >= floor {
        return Ok(());
    }
    let mut s = format!("{}: {equal} rows are equal, {floor} were before. Not equal now:\n", report.area);
    for r in report.rows.iter().filter(|r| !r.is_equal()).take(60) {
        let _ = writeln!(s, "  {}", line(r));
    }
    Err(s)
}

fn line(r: &Row) -> String {
    let one = |s: &str| cut(&s.split_whitespace().collect::<Vec<_>>().join(" "), 200).replace('|', "\\|");
    match &r.verdict {
        Verdict::Equal => format!("{}: equal", r.name),
        Verdict::Different(d) => format!("{}: different: {}", r.name, one(d)),
        Verdict::Missing(d) => format!("{}: missing: {}", r.name, one(d)),
    }
}

/// How many rows that are not equal are listed for each area and verdict; the rest are in `out/areas/`.
const LISTED: usize = 25;

/// The scoreboard as Markdown. Depends on the rows only.
pub fn render(reports: &[Report]) -> String {
    let mut s = String::from(
        "# Scoreboard\n\nrqemu against QEMU 7.2, the same command line on both sides. Written by `make scoreboard`; \
         not by hand.\n\n| area | rows | equal | different | missing |\n|---|---:|---:|---:|---:|\n",
    );
    let mut total = (0, 0, 0, 0);
    for r in reports {
        let (e, d, m) = r.counts();
        total = (total.0 + r.rows.len(), total.1 + e, total.2 + d, total.3 + m);
        let _ = writeln!(s, "| {} | {} | {e} | {d} | {m} |", r.area, r.rows.len());
    }
    let _ =
        writeln!(s, "| **all** | **{}** | **{}** | **{}** | **{}** |", total.0, total.1, total.2, total.3);
    for r in reports {
        let (_, d, m) = r.counts();
        if d + m == 0 {
            continue;
        }
        let _ = writeln!(s, "\n## {}\n", r.area);
        list(&mut s, r, d, |v| matches!(v, Verdict::Different(_)));
        list(&mut s, r, m, |v| matches!(v, Verdict::Missing(_)));
    }
    s
}

fn list(s: &mut String, r: &Report, n: usize, pick: impl Fn(&Verdict) -> bool) {
    for row in r.rows.iter().filter(|row| pick(&row.verdict)).take(LISTED) {
        let _ = writeln!(s, "- {}", line(row));
    }
    if n > LISTED {
        let _ = writeln!(s, "- and {} more", n - LISTED);
    }
}

/// Writes `scoreboard.md`.
pub fn write_scoreboard(reports: &[Report]) -> Res<PathBuf> {
    let p = crate_dir().join("scoreboard.md");
    std::fs::write(&p, render(reports)).map_err(|e| format!("{}: {e}", p.display()))?;
    Ok(p)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, verdict: Verdict) -> Row {
        Row { name: name.into(), verdict }
    }

    #[test]
    fn verdicts_from_results() {
        let ne = |a: &i32, b: &i32| (a != b).then(|| format!("{a} {b}"));
        assert!(Row::of("a", Ok(1), Ok(1), ne).is_equal());
        assert_eq!(Row::of("a", Ok(1), Ok(2), ne).verdict, Verdict::Different("1 2".into()));
        assert!(matches!(Row::of("a", Err("x".into()), Ok(2), ne).verdict, Verdict::Missing(_)));
        assert!(matches!(Row::of("a", Ok(1), Err("x".into()), ne).verdict, Verdict::Different(_)));
    }

    #[test]
    fn keyed_sets() {
        let map = |l: &[(&str, i32)]| l.iter().map(|(k, v)| (k.to_string(), *v)).collect::<BTreeMap<_, _>>();
        let rows = keyed(
            "p/",
            &map(&[("a", 1), ("b", 2), ("x", 0)]),
            &map(&[("a", 1), ("b", 3), ("c", 4)]),
            |_, a, b| (a != b).then(|| "ne".to_owned()),
        );
        let report = Report::new("t", rows);
        assert_eq!(report.counts(), (1, 2, 1));
    }

    #[test]
    fn rendering_is_sorted_and_counts() {
        let r = Report::new("z", vec![row("b", Verdict::Equal), row("a", Verdict::Missing("x\ny".into()))]);
        let s = render(&[r]);
        assert!(s.contains("| z | 2 | 1 | 0 | 1 |"), "{s}");
        assert!(s.contains("- a: missing: x y"), "{s}");
    }
}
