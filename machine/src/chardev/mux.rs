//! The multiplexer: several front ends share one back end; Ctrl-A (by default) switches.

use std::collections::VecDeque;

use super::{CharId, FrontendRef};

/// At most this many front ends share a multiplexer.
pub const MAX_FRONTENDS: usize = 4;
const BUFFER: usize = 32;

/// A multiplexer.
pub struct Mux {
    /// The back end below.
    pub base: CharId,
    /// Front ends in order of connection.
    pub frontends: Vec<(FrontendRef, VecDeque<u8>)>,
    /// Which has the input.
    pub focus: usize,
    escape: bool,
    /// Escape character; 0 = none.
    pub escape_char: u8,
    /// Time stamps on output lines.
    pub timestamps: bool,
    /// The next output byte starts a line.
    pub line_start: bool,
}

/// What a byte of input means.
#[derive(Debug, PartialEq, Eq)]
pub enum Key {
    /// For the front end with the focus.
    Data(u8),
    /// Nothing (first half of an escape).
    Nothing,
    /// Show help.
    Help,
    /// End the program.
    Quit,
    /// Write disk buffers back.
    Commit,
    /// Send a break.
    Break,
    /// Switch to the next front end.
    Next,
    /// Toggle time stamps.
    Timestamps,
}

impl Mux {
    /// A multiplexer over `base`.
    pub fn new(base: CharId, escape_char: u8) -> Self {
        Self {
            base,
            frontends: Vec::new(),
            focus: 0,
            escape: false,
            escape_char,
            timestamps: false,
            line_start: true,
        }
    }

    /// Adds a front end, which gets the input. Monitors stand before devices, and those that connect after a device do
    /// not get the input: so it is when all monitors connect before the first device, as in QEMU.
    ///
    /// Returns its place, and which had the input before.
    pub fn connect(&mut self, frontend: FrontendRef) -> (usize, Option<usize>) {
        let old = (!self.frontends.is_empty()).then_some(self.focus);
        let device = |f: &(FrontendRef, VecDeque<u8>)| matches!(f.0, FrontendRef::Device(..));
        let first_device = self.frontends.iter().position(device);
        match first_device.filter(|_| matches!(frontend, FrontendRef::Monitor(_))) {
            Some(at) => {
                self.frontends.insert(at, (frontend, VecDeque::new()));
                self.focus += usize::from(self.focus >= at);
                (at, old)
            }
            None => {
                self.frontends.push((frontend, VecDeque::new()));
                self.focus = self.frontends.len() - 1;
                (self.focus, old)
            }
        }
    }

    /// Interprets one byte of input.
    pub fn key(&mut self, b: u8) -> Key {
        if self.escape {
            self.escape = false;
            if b == self.escape_char {
                return Key::Data(b);
            }
            return match b {
                b'?' | b'h' => Key::Help,
                b'x' => Key::Quit,
                b's' => Key::Commit,
                b'b' => Key::Break,
                b'c' => Key::Next,
                b't' => Key::Timestamps,
                _ => Key::Nothing,
            };
        }
        if b == self.escape_char && b != 0 {
            self.escape = true;
            return Key::Nothing;
        }
        Key::Data(b)
    }

    /// Keeps a byte for a front end that cannot take it now; dropped when its buffer is full.
    pub fn keep(&mut self, index: usize, b: u8) {
        if let Some((_, q)) = self.frontends.get_mut(index) {
            if q.len() < BUFFER {
                q.push_back(b);
            }
        }
    }

    /// Whether the front end with the focus has room in its buffer.
    pub fn has_room(&self) -> bool {
        self.frontends.get(self.focus).is_none_or(|(_, q)| q.len() < BUFFER)
    }

    /// Help text for the escape character.
    pub fn help(&self) -> String {
        let c = (self.escape_char + b'a' - 1) as char;
        let mut t = String::from("\n\r");
        for (k, what) in [
            ("h", "print this help"),
            ("x", "exit emulator"),
            ("s", "save disk data back to file (if -snapshot)"),
            ("t", "toggle console timestamps"),
            ("b", "send break (magic sysrq)"),
            ("c", "switch between console and monitor"),
        ] {
            t.push_str(&format!("C-{c} {k}    {what}\n\r"));
        }
        t.push_str(&format!("C-{c} C-{c}  sends C-{c}\n\r"));
        t
    }
}
