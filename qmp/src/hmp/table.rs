//! The command table and how a line finds its command.

use super::args::{parse, Args};
use super::{help, HmpCx};
use crate::monitors::MonitorCx;

pub use super::cmds::COMMANDS;

/// An argument of a command; the text is its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arg {
    /// `-f`.
    Flag(&'static str),
    /// `-f value`.
    FlagStr(&'static str),
    /// `/fmt`, under the name `fmt`.
    Format,
    /// A word.
    Str(&'static str),
    /// A word that may be left out.
    OptStr(&'static str),
    /// A file name.
    File(&'static str),
    /// A file name that may be left out.
    OptFile(&'static str),
    /// A block device.
    Block(&'static str),
    /// A block device that may be left out.
    OptBlock(&'static str),
    /// The rest of the line.
    Rest(&'static str),
    /// A 32-bit integer expression.
    Int(&'static str),
    /// A 32-bit integer expression that may be left out.
    OptInt(&'static str),
    /// A 32-bit integer expression after a full stop, may be left out.
    OptDot(&'static str),
    /// A 64-bit integer expression.
    Long(&'static str),
    /// A 64-bit integer expression that may be left out.
    OptLong(&'static str),
    /// An integer expression in MiB.
    Mega(&'static str),
    /// A size with suffix, MiB without.
    Size(&'static str),
    /// A size that may be left out.
    OptSize(&'static str),
    /// `on` or `off`.
    Bool(&'static str),
    /// `on` or `off`, may be left out.
    OptBool(&'static str),
}

impl Arg {
    /// Name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Flag(n)
            | Self::FlagStr(n)
            | Self::Str(n)
            | Self::OptStr(n)
            | Self::File(n)
            | Self::OptFile(n)
            | Self::Block(n)
            | Self::OptBlock(n)
            | Self::Rest(n)
            | Self::Int(n)
            | Self::OptInt(n)
            | Self::OptDot(n)
            | Self::Long(n)
            | Self::OptLong(n)
            | Self::Mega(n)
            | Self::Size(n)
            | Self::OptSize(n)
            | Self::Bool(n)
            | Self::OptBool(n) => n,
            Self::Format => "fmt",
        }
    }

    /// May be left out.
    pub fn optional(&self) -> bool {
        matches!(
            self,
            Self::Flag(_)
                | Self::FlagStr(_)
                | Self::OptStr(_)
                | Self::OptFile(_)
                | Self::OptBlock(_)
                | Self::Rest(_)
                | Self::OptInt(_)
                | Self::OptDot(_)
                | Self::OptLong(_)
                | Self::OptSize(_)
                | Self::OptBool(_)
        )
    }
}

/// Completion of the words behind a command, of which the last is being typed: how many bytes at its end are looked at,
/// and what they may become.
pub type Complete = fn(&mut MonitorCx<'_, '_>, &[&str]) -> (usize, Vec<String>);

/// An HMP command.
pub struct HmpCommand {
    /// Name and aliases, separated by `|`.
    pub name: &'static str,
    /// Arguments.
    pub args: &'static [Arg],
    /// Arguments as `help` shows them.
    pub params: &'static str,
    /// One line of help.
    pub help: &'static str,
    /// The handler.
    pub run: fn(&mut HmpCx<'_, '_, '_>, &Args),
    /// Completion of its arguments.
    pub complete: Option<Complete>,
    /// Commands below it (`info`).
    pub sub: Option<&'static [HmpCommand]>,
}

/// Finds a command by name or alias.
pub(super) fn find_in(table: &'static [HmpCommand], name: &str) -> Option<&'static HmpCommand> {
    table.iter().find(|c| c.name.split('|').any(|n| n == name))
}

/// Runs a line.
pub(super) fn run_line(hcx: &mut HmpCx<'_, '_, '_>, line: &str) {
    let line = line.trim_start();
    if line.is_empty() {
        return;
    }
    let (table, mut rest) = (COMMANDS, line);
    let Some(mut command) = step(table, &mut rest) else {
        let end = line.find(|c: char| c.is_ascii_whitespace() || c == '/').unwrap_or(line.len());
        hcx.line(format!("unknown command: '{}'", &line[..end]));
        return;
    };
    if let Some(sub) = command.sub {
        if rest.trim_start().is_empty() {
            help::list(hcx, sub, &format!("{} ", first_name(command)));
            return;
        }
        match step(sub, &mut rest) {
            Some(c) => command = c,
            None => {
                // QEMU names the line up to the word that it does not know.
                let word = rest.trim_start();
                let end = word.find(|c: char| c.is_ascii_whitespace() || c == '/').unwrap_or(word.len());
                let upto = line.len() - word.len() + end;
                hcx.line(format!("unknown command: '{}'", &line[..upto]));
                return;
            }
        }
    }
    let words = line[..line.len() - rest.len()].trim_end();
    let mut defaults = hcx.cx.mon.format;
    let parsed = parse(command, rest, &mut defaults, &mut |name| register(hcx.cx, name));
    hcx.cx.mon.format = defaults;
    match parsed {
        Ok(args) => (command.run)(hcx, &args),
        Err(message) => {
            hcx.line(message);
            hcx.line(format!("Try \"help {words}\" for more information"));
        }
    }
}

/// Takes a command name off the front of `rest` and looks it up; `rest` stays if it is unknown.
fn step(table: &'static [HmpCommand], rest: &mut &str) -> Option<&'static HmpCommand> {
    let text = rest.trim_start();
    let end = text.find(|c: char| c.is_ascii_whitespace() || c == '/').unwrap_or(text.len());
    let command = find_in(table, &text[..end])?;
    *rest = &text[end..];
    Some(command)
}

pub(super) fn first_name(command: &HmpCommand) -> &'static str {
    command.name.split('|').next().unwrap_or_default()
}

/// Value of a CPU register for an expression.
fn register(cx: &mut MonitorCx<'_, '_>, name: &str) -> Option<u64> {
    crate::commands::cpu::register(cx, name)
}
