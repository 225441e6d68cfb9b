//! `help`, and the list behind `info`.

use super::args::Args;
use super::table::{find_in, HmpCommand, COMMANDS};
use super::HmpCx;

/// One line of help for a command; `prefix` stands before its name.
fn one(hcx: &mut HmpCx<'_, '_, '_>, command: &HmpCommand, prefix: &str) {
    hcx.line(format!("{prefix}{} {} -- {}", command.name, command.params, command.help));
}

/// Help for all commands of a table.
pub(super) fn list(hcx: &mut HmpCx<'_, '_, '_>, table: &'static [HmpCommand], prefix: &str) {
    for command in table {
        one(hcx, command, prefix);
    }
}

/// `help [name ...]`.
pub(super) fn help(hcx: &mut HmpCx<'_, '_, '_>, args: &Args) {
    let text = args.str("name");
    let (mut table, mut prefix) = (COMMANDS, String::new());
    let mut words = text.split_ascii_whitespace().peekable();
    if words.peek().is_none() {
        list(hcx, table, "");
        return;
    }
    for word in words {
        let Some(command) = find_in(table, word) else {
            hcx.line(format!("unknown command: '{prefix}{word}'"));
            return;
        };
        match command.sub {
            Some(sub) => {
                prefix.push_str(&format!("{word} "));
                table = sub;
            }
            None => {
                one(hcx, command, &prefix);
                return;
            }
        }
    }
    list(hcx, table, &prefix);
}

/// Completion for `help`: commands, and what stands below `info`.
pub(super) fn complete(_: &mut crate::monitors::MonitorCx<'_, '_>, words: &[&str]) -> (usize, Vec<String>) {
    match words {
        [typed] => (typed.len(), super::complete::names(COMMANDS, typed)),
        [name, typed] => {
            let sub = find_in(COMMANDS, name).and_then(|c| c.sub).unwrap_or_default();
            (typed.len(), super::complete::names(sub, typed))
        }
        _ => (0, Vec::new()),
    }
}
