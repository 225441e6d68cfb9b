//! One human monitor on a character device, without I/O.

use super::complete::{candidates, layout};
use super::readline::{KeyResult, Readline};
use super::{table, HmpCx};
use crate::monitors::MonitorCx;
use rqemu_machine::chardev::CharEvent;
use std::collections::VecDeque;

/// Bytes of waiting output above which no further key is taken.
const OUTPUT_HIGH: usize = 1 << 20;

/// Something that needs the machine.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Run this line.
    Line(Vec<u8>),
    /// Complete this text.
    Complete(Vec<u8>),
}

/// A human monitor.
#[derive(Debug, Default)]
pub struct HmpSession {
    editor: Readline,
    pending: VecDeque<u8>,
    out: Vec<u8>,
    /// A client has been seen.
    seen: bool,
    /// Another front end of the multiplexer has the terminal: output waits.
    away: bool,
    /// Bytes of output from before that, which do not wait.
    parting: usize,
    /// The prompt stands at the end of the output.
    prompted: bool,
}

impl HmpSession {
    /// A monitor without a client.
    pub fn new() -> Self {
        Self::default()
    }

    /// Something happened to the character device.
    pub fn event(&mut self, event: CharEvent) {
        match event {
            CharEvent::Opened => {
                self.pending.clear();
                self.out.clear();
                self.parting = 0;
                self.seen = true;
                let version = crate::version::QEMU.text();
                self.text(&format!("QEMU {version} monitor - type 'help' for more information\n"));
                if !self.away {
                    self.prompt();
                }
            }
            CharEvent::Closed => {
                self.pending.clear();
                self.out.clear();
                self.parting = 0;
            }
            CharEvent::MuxIn => {
                // The first front end of a multiplexer is told that it has the terminal after it was opened.
                if self.away || !self.prompted {
                    self.away = false;
                    if self.seen {
                        self.prompt();
                    }
                }
            }
            CharEvent::MuxOut => {
                if self.prompted && self.out.ends_with(Readline::PROMPT) {
                    self.out.truncate(self.out.len() - Readline::PROMPT.len());
                } else if self.prompted {
                    self.text("\n");
                    self.parting = self.out.len();
                }
                self.prompted = false;
                self.away = true;
            }
            CharEvent::Break => {}
        }
    }

    fn prompt(&mut self) {
        self.editor.restart();
        self.editor.prompt();
        self.take_editor_output();
        self.prompted = true;
    }

    fn take_editor_output(&mut self) {
        self.out.append(&mut self.editor.out);
    }

    /// Appends text with line ends for a terminal.
    fn text(&mut self, text: &str) {
        append_crlf(&mut self.out, text);
    }

    /// Takes keys.
    pub fn input(&mut self, data: &[u8]) {
        self.pending.extend(data);
    }

    /// Whether there are keys that have not been looked at.
    pub fn has_input(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Whether the owner should not read more input for now.
    pub fn suspended(&self) -> bool {
        self.out.len() > OUTPUT_HIGH
    }

    /// What waits to be sent.
    pub fn output(&self) -> &[u8] {
        if self.away {
            &self.out[..self.parting.min(self.out.len())]
        } else {
            &self.out
        }
    }

    /// The first `n` bytes of [`HmpSession::output`] have been sent.
    pub fn sent(&mut self, n: usize) {
        self.out.drain(..n.min(self.out.len()));
        self.parting = self.parting.saturating_sub(n);
        self.out.shrink_to(64 << 10);
    }

    /// Handles keys up to the next one that needs the machine.
    pub(crate) fn next_work(&mut self) -> Option<Work> {
        while !self.suspended() {
            let key = self.editor.key(self.pending.pop_front()?);
            self.take_editor_output();
            match key {
                KeyResult::None => {}
                KeyResult::Line(line) => return Some(Work::Line(line)),
                KeyResult::Complete(text) => return Some(Work::Complete(text)),
            }
        }
        None
    }

    /// Does what [`HmpSession::next_work`] found.
    pub(crate) fn run(&mut self, cx: &mut MonitorCx<'_, '_>, work: Work) {
        match work {
            Work::Line(line) => {
                self.prompted = false;
                let line = String::from_utf8_lossy(&line).into_owned();
                let mut hcx = HmpCx { cx, out: String::new() };
                hcx.cx.mon.history = self.history();
                table::run_line(&mut hcx, &line);
                let out = hcx.out;
                self.text(&out);
                self.prompt();
            }
            Work::Complete(text) => self.complete(cx, &text),
        }
    }

    fn history(&self) -> Vec<String> {
        self.editor.history().iter().map(|l| String::from_utf8_lossy(l).into_owned()).collect()
    }

    /// Inserts what all candidates agree on; lists them if there are several.
    fn complete(&mut self, cx: &mut MonitorCx<'_, '_>, text: &[u8]) {
        let text = String::from_utf8_lossy(text).into_owned();
        let (typed, mut found) = candidates(cx, &text);
        found.sort();
        found.dedup();
        match found.as_slice() {
            [] => {}
            [only] => {
                self.editor.insert_all(only.as_bytes().get(typed..).unwrap_or_default());
                if !only.ends_with('/') {
                    self.editor.insert_all(b" ");
                }
            }
            [first, ..] => {
                let common = found.iter().map(|f| common_prefix(first, f)).min().unwrap_or(0);
                self.editor.insert_all(first.as_bytes().get(typed..common).unwrap_or_default());
                let list = layout(&found);
                self.text(&list);
                self.editor.prompt();
            }
        }
        self.editor.update();
        self.take_editor_output();
    }
}

fn common_prefix(a: &str, b: &str) -> usize {
    a.bytes().zip(b.bytes()).take_while(|(x, y)| x == y).count()
}

/// Appends text with `\r\n` for `\n`.
pub(crate) fn append_crlf(out: &mut Vec<u8>, text: &str) {
    for (i, line) in text.split('\n').enumerate() {
        if i > 0 {
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(line.as_bytes());
    }
}
