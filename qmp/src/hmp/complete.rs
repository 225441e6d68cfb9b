//! What the Tab key offers.

use super::table::{find_in, Arg, HmpCommand, COMMANDS};
use crate::monitors::MonitorCx;

/// Width of the terminal that the list is laid out for.
const COLUMNS: usize = 80;
/// Narrowest column without its gap.
const MIN_WIDTH: usize = 8;

/// Candidates for the end of `text`, and how many bytes of them have been typed.
pub(super) fn candidates(cx: &mut MonitorCx<'_, '_>, text: &str) -> (usize, Vec<String>) {
    let mut words: Vec<&str> = text.split_ascii_whitespace().collect();
    if text.is_empty() || text.ends_with(' ') {
        words.push("");
    }
    complete_in(cx, COMMANDS, &words)
}

fn complete_in(
    cx: &mut MonitorCx<'_, '_>,
    table: &'static [HmpCommand],
    words: &[&str],
) -> (usize, Vec<String>) {
    let typed = words.last().map_or(0, |w| w.len());
    match words {
        [] => (0, Vec::new()),
        [name] => (typed, names(table, name)),
        [name, rest @ ..] => {
            let Some(command) = find_in(table, name) else { return (typed, Vec::new()) };
            match (command.sub, command.complete) {
                (Some(sub), _) => complete_in(cx, sub, rest),
                (None, Some(complete)) => complete(cx, rest),
                (None, None) => (typed, argument(cx, command, rest)),
            }
        }
    }
}

/// Names in `table` that begin with `typed`.
pub(super) fn names(table: &[HmpCommand], typed: &str) -> Vec<String> {
    let all = table.iter().flat_map(|c| c.name.split('|'));
    all.filter(|n| n.starts_with(typed)).map(String::from).collect()
}

/// Completion by the type of the argument.
fn argument(cx: &mut MonitorCx<'_, '_>, command: &HmpCommand, words: &[&str]) -> Vec<String> {
    let Some((typed, before)) = words.split_last() else { return Vec::new() };
    let place = before.iter().filter(|w| !w.starts_with('-')).count();
    let plain = |a: &&Arg| !matches!(a, Arg::Flag(_) | Arg::Format);
    match command.args.iter().filter(plain).nth(place) {
        Some(Arg::File(_) | Arg::OptFile(_)) => files(typed),
        Some(Arg::Block(_) | Arg::OptBlock(_)) => {
            let drives = cx.m.block.drives();
            drives.iter().map(|d| d.name().to_string()).filter(|n| n.starts_with(typed)).collect()
        }
        _ => Vec::new(),
    }
}

/// Files whose path begins with `typed`; folders end in a slash.
fn files(typed: &str) -> Vec<String> {
    let (folder, part) = typed.split_at(typed.rfind('/').map_or(0, |at| at + 1));
    let Ok(entries) = std::fs::read_dir(if folder.is_empty() { "." } else { folder }) else {
        return Vec::new();
    };
    let mut out = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|n| n.starts_with(part)) else { continue };
        let slash = if entry.path().is_dir() { "/" } else { "" };
        out.push(format!("{folder}{name}{slash}"));
    }
    out
}

/// The list of several candidates in columns, with a line end before and after.
pub(super) fn layout(found: &[String]) -> String {
    let longest = found.iter().map(String::len).max().unwrap_or(0).max(MIN_WIDTH);
    let width = (longest + 2).min(COLUMNS);
    let per_line = (COLUMNS / width).max(1);
    let mut out = String::from("\n");
    for (i, name) in found.iter().enumerate() {
        out.push_str(&format!("{name:width$}"));
        if (i + 1) % per_line == 0 || i + 1 == found.len() {
            out.push('\n');
        }
    }
    out
}
