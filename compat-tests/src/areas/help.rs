//! Help lists: one row an entry. What scripts parse is compared (names, types, defaults), prose is not.

use super::Sides;
use crate::bins::Bin;
use crate::proc::{Cmd, Exit, Output};
use crate::score::{keyed, Row};
use crate::Res;
use std::collections::BTreeMap;
use std::time::Duration;

type Entries = BTreeMap<String, String>;

/// How a list's text is cut into entries.
#[derive(Clone, Copy)]
enum Shape {
    /// Every line (after a heading that ends in a colon or `are:`) is an entry; its first word is the name.
    Names,
    /// As `Names`, and the whole line counts.
    Lines,
    /// `name=<type> - text (default: x)`.
    Props,
    /// `name "x", bus y, alias "z", desc "..."` under category headings.
    Devices,
    /// `-option syntax`.
    Options,
    /// `x86 model` lines and the flag list.
    Cpus,
    /// `Key: word word word`.
    Words,
}

const LISTS: &[(&str, Shape)] = &[
    ("-help", Shape::Options),
    ("-machine help", Shape::Lines),
    ("-M ?", Shape::Lines),
    ("-cpu help", Shape::Cpus),
    ("-device help", Shape::Devices),
    ("-device ?", Shape::Devices),
    ("-accel help", Shape::Names),
    ("-object help", Shape::Names),
    ("-chardev help", Shape::Names),
    ("-netdev help", Shape::Names),
    ("-nic model=help", Shape::Names),
    ("-display help", Shape::Names),
    ("-audiodev help", Shape::Names),
    ("-vga help", Shape::Names),
    ("-d help", Shape::Names),
    ("-drive format=help", Shape::Words),
    ("-smp help", Shape::Props),
    ("-boot help", Shape::Props),
    ("-machine pc,help", Shape::Props),
    ("-machine q35,help", Shape::Props),
    ("-machine microvm,help", Shape::Props),
    ("-machine none,help", Shape::Props),
];

/// All rows.
pub fn run(sides: &Sides) -> Vec<Row> {
    let mut rows = vec![version(sides)];
    for (args, shape) in LISTS {
        let (ours, qemu) = sides.both(|b| list(b, args, *shape));
        rows.extend(list_rows(args, ours, qemu));
    }
    let (ours, qemu) = sides.both(|b| names(b, "-device help", Shape::Devices));
    rows.extend(per_name(sides, "-device", &ours, &qemu));
    let (ours, qemu) = sides.both(|b| names(b, "-object help", Shape::Names));
    rows.extend(per_name(sides, "-object", &ours, &qemu));
    rows
}

/// `-version`: scripts cut the number out of the first line.
fn version(sides: &Sides) -> Row {
    let get = |b: &Bin| {
        let o = text(b, "-version")?;
        let v = o
            .stdout
            .strip_prefix("QEMU emulator version ")
            .ok_or("does not start with 'QEMU emulator version '")?;
        let v = v.split([' ', ',', '\n']).next().unwrap_or_default().to_owned();
        Ok((o.exit, v))
    };
    let (a, b) = sides.both(get);
    Row::of("-version", a, b, |a, b| (a != b).then(|| format!("{a:?} | qemu {b:?}")))
}

fn text(bin: &Bin, args: &str) -> Res<Output> {
    Cmd::new(bin).words(args).run(Duration::from_secs(20))
}

/// Exit status and entries of one list.
fn list(bin: &Bin, args: &str, shape: Shape) -> Res<(Exit, Entries)> {
    let o = text(bin, args)?;
    Ok((o.exit, parse(&o.stdout, shape)))
}

fn names(bin: &Bin, args: &str, shape: Shape) -> Vec<String> {
    list(bin, args, shape).map(|(_, e)| e.into_keys().collect()).unwrap_or_default()
}

fn list_rows(args: &str, ours: Res<(Exit, Entries)>, qemu: Res<(Exit, Entries)>) -> Vec<Row> {
    let split = |r: Res<(Exit, Entries)>| match r {
        Ok((x, e)) => (Ok(x), e),
        Err(e) => (Err(e), Entries::new()),
    };
    let ((ox, oe), (qx, qe)) = (split(ours), split(qemu));
    let status = |a: &Exit, b: &Exit| (a != b).then(|| format!("{a:?} | qemu {b:?}"));
    let mut rows = vec![Row::of(format!("{args}: exit status"), ox, qx, status)];
    rows.extend(keyed(&format!("{args}: "), &oe, &qe, |_, a, b| {
        (a != b).then(|| format!("{} | qemu {}", a.trim(), b.trim()))
    }));
    rows
}

/// `-device X,help` or `-object X,help` for every X: one row, its properties compared with types and defaults.
fn per_name(sides: &Sides, opt: &str, ours: &[String], qemu: &[String]) -> Vec<Row> {
    qemu.iter()
        .map(|n| {
            let args = format!("{opt} {n},help");
            let get = |b: &Bin, known: &[String]| {
                if !known.contains(n) {
                    return Err("absent from the list".to_owned());
                }
                list(b, &args, Shape::Props)
            };
            Row::of(args.clone(), get(&sides.ours, ours), get(&sides.qemu, qemu), |(ax, a), (bx, b)| {
                if ax != bx {
                    return Some(format!("{ax:?} | qemu {bx:?}"));
                }
                keyed("", a, b, |_, x, y| (x != y).then(|| format!("{} | qemu {}", x.trim(), y.trim())))
                    .into_iter()
                    .find(|r| !r.is_equal())
                    .map(|r| format!("{}: {:?}", r.name, r.verdict))
            })
        })
        .collect()
}

fn parse(text: &str, shape: Shape) -> Entries {
    let mut out = Entries::new();
    let mut heading = String::new();
    for line in text.lines() {
        let body = line.trim_end();
        let word = body.split_whitespace().next().unwrap_or_default().to_owned();
        match shape {
            _ if body.is_empty() => {}
            Shape::Props => prop(body, &mut out),
            Shape::Options => {
                if body.starts_with('-') {
                    // Alternatives (`-h or -help`) and syntax forms of one option are entries of their own.
                    let syntax = body.split("  ").next().unwrap_or(body).split('\t').next().unwrap_or(body);
                    out.insert(syntax.trim().to_owned(), String::new());
                }
            }
            Shape::Words => {
                if let Some((key, words)) = body.split_once(": ") {
                    out.extend(words.split_whitespace().map(|w| (format!("{key}: {w}"), String::new())));
                }
            }
            Shape::Devices => device(body, &mut heading, &mut out),
            Shape::Cpus => cpu(body, &mut heading, &mut out),
            Shape::Names | Shape::Lines if body.trim_end().ends_with(':') || body.ends_with("are:") => {}
            Shape::Names => drop(out.insert(word, String::new())),
            Shape::Lines => drop(out.insert(word, body.to_owned())),
        }
    }
    out
}

/// `  name=<type>  - text (default: x)` -> name: `<type> (default: x)`.
fn prop(body: &str, out: &mut Entries) {
    let Some((name, rest)) = body.trim_start().split_once('=') else { return };
    let ty = rest.split_inclusive('>').next().unwrap_or_default();
    let default = rest.rfind("(default: ").map(|i| &rest[i..]).unwrap_or_default();
    out.insert(name.to_owned(), format!("{ty} {default}"));
}

fn device(body: &str, heading: &mut String, out: &mut Entries) {
    let Some(rest) = body.strip_prefix("name \"") else {
        *heading = body.trim_end_matches(':').to_owned();
        return;
    };
    let Some((name, rest)) = rest.split_once('"') else { return };
    let facts = rest.split(", desc \"").next().unwrap_or_default();
    let e: &mut String = out.entry(name.to_owned()).or_default();
    // A device may stand under several headings.
    e.push_str(&format!("{heading}{facts}; "));
}

fn cpu(body: &str, heading: &mut String, out: &mut Entries) {
    if body.ends_with(':') {
        *heading = body.to_owned();
    } else if let Some(rest) = body.strip_prefix("x86 ") {
        let name = rest.split_whitespace().next().unwrap_or_default();
        out.insert(name.to_owned(), String::new());
    } else {
        out.extend(body.split_whitespace().map(|f| (format!("flag {f}"), String::new())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_each_shape() {
        let e = parse("e1000 options:\n  mac=<str>   - x (default: 1)\n  y=<bool> - on/off\n", Shape::Props);
        assert_eq!(e["mac"], "<str> (default: 1)");
        assert_eq!(e["y"], "<bool> ");
        let e = parse(
            "Net devices:\nname \"a\", bus PCI, alias \"b\", desc \"c\"\n\nUSB devices:\nname \"a\"\n",
            Shape::Devices,
        );
        assert_eq!(e["a"], "Net devices, bus PCI, alias \"b\"; USB devices; ");
        let e = parse("Available CPUs:\nx86 486    (alias)\n\nRecognized CPUID flags:\n  a b\n", Shape::Cpus);
        assert_eq!(e.keys().collect::<Vec<_>>(), ["486", "flag a", "flag b"]);
        let e = parse("Supported machines are:\npc   Standard (default)\n", Shape::Lines);
        assert_eq!(e["pc"], "pc   Standard (default)");
        let e = parse("-m size   text\n                more\n-h or -help     x\n", Shape::Options);
        assert_eq!(e.keys().collect::<Vec<_>>(), ["-h or -help", "-m size"]);
    }
}
