//! The human monitor: line editing, command table, argument parsing, completion.
//!
//! [`HmpSession`] is one client on a character device; [`execute`] runs a line for `human-monitor-command`. What the
//! line editor writes is QEMU's, byte for byte, because scripts wait for it.

mod args;
mod cmds;
mod complete;
mod expr;
mod help;
mod readline;
mod session;
mod table;

pub use args::{Args, Format, FormatDefaults};
pub use session::HmpSession;
pub use table::{Arg, HmpCommand};

use crate::monitors::MonitorCx;
use rqemu_machine::QError;
use std::fmt::Write;

/// What an HMP command works with: a monitor's context, and the text that it prints (lines end in `\n` here).
pub struct HmpCx<'c, 'a, 'm> {
    /// As QMP commands have it.
    pub cx: &'c mut MonitorCx<'a, 'm>,
    /// Output.
    pub out: String,
}

impl HmpCx<'_, '_, '_> {
    /// Prints a line.
    pub fn line(&mut self, text: impl AsRef<str>) {
        self.out.push_str(text.as_ref());
        self.out.push('\n');
    }

    /// Prints an error, if there is one, as commands that stand on QMP do.
    pub fn report<T>(&mut self, result: Result<T, QError>) -> Option<T> {
        match result {
            Ok(v) => Some(v),
            Err(e) => {
                self.line(format!("Error: {}", e.desc));
                if let Some(hint) = &e.hint {
                    self.out.push_str(hint);
                }
                None
            }
        }
    }
}

impl Write for HmpCx<'_, '_, '_> {
    fn write_str(&mut self, s: &str) -> std::fmt::Result {
        self.out.push_str(s);
        Ok(())
    }
}

/// Runs one line and returns what it printed.
pub fn execute(cx: &mut MonitorCx<'_, '_>, line: &str) -> String {
    let mut hcx = HmpCx { cx, out: String::new() };
    table::run_line(&mut hcx, line);
    hcx.out
}

#[cfg(test)]
mod tests;
