//! The line editor: keys in, terminal output and finished lines out.

/// Longest line in bytes.
const MAX_LINE: usize = 4095;
/// Lines that the history keeps.
const MAX_HISTORY: usize = 64;

/// What a key did.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum KeyResult {
    /// Nothing beyond the screen.
    None,
    /// The line is finished.
    Line(Vec<u8>),
    /// Completion is asked for the text before the cursor.
    Complete(Vec<u8>),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Escape {
    #[default]
    None,
    /// After ESC.
    Esc,
    /// In a control sequence.
    Csi,
    /// After ESC O.
    Ss3,
}

/// Line editor of one monitor. It outlives the clients, and with it the history.
#[derive(Debug, Default)]
pub(super) struct Readline {
    line: Vec<u8>,
    cursor: usize,
    /// What the terminal shows behind the prompt, and where its cursor is.
    shown: Vec<u8>,
    shown_cursor: usize,
    escape: Escape,
    /// Parameter of the control sequence. The one-byte introducer does not reset it, as in QEMU.
    param: u32,
    history: Vec<Vec<u8>>,
    /// Place in the history while moving through it.
    place: Option<usize>,
    /// Output, drained by the owner.
    pub(super) out: Vec<u8>,
}

impl Readline {
    /// Text of the prompt.
    pub(super) const PROMPT: &'static [u8] = b"(qemu) ";

    /// Throws the line away.
    pub(super) fn restart(&mut self) {
        self.line.clear();
        self.cursor = 0;
        self.escape = Escape::None;
    }

    /// Shows the prompt on a fresh line.
    pub(super) fn prompt(&mut self) {
        self.out.extend_from_slice(Self::PROMPT);
        self.shown.clear();
        self.shown_cursor = 0;
        self.escape = Escape::None;
    }

    /// Earlier lines, oldest first.
    pub(super) fn history(&self) -> &[Vec<u8>] {
        &self.history
    }

    /// Takes one byte.
    pub(super) fn key(&mut self, b: u8) -> KeyResult {
        match self.escape {
            Escape::None => return self.plain(b),
            Escape::Esc => {
                self.escape = match b {
                    b'[' => {
                        self.param = 0;
                        Escape::Csi
                    }
                    b'O' => Escape::Ss3,
                    _ => Escape::None,
                };
            }
            Escape::Csi => self.csi(b),
            Escape::Ss3 => {
                self.escape = Escape::None;
                match b {
                    b'F' => self.cursor = self.line.len(),
                    b'H' => self.cursor = 0,
                    _ => {}
                }
            }
        }
        self.update();
        KeyResult::None
    }

    fn plain(&mut self, b: u8) -> KeyResult {
        match b {
            0x01 => self.cursor = 0,
            0x04 if self.cursor < self.line.len() => {
                self.line.remove(self.cursor);
            }
            0x05 => self.cursor = self.line.len(),
            b'\t' => {
                self.update();
                return KeyResult::Complete(self.line[..self.cursor].to_vec());
            }
            0x0C => {
                self.out.extend_from_slice(b"\x1b[2J\x1b[1;1H");
                self.prompt();
            }
            b'\n' | b'\r' => {
                let line = std::mem::take(&mut self.line);
                self.remember(&line);
                self.cursor = 0;
                self.place = None;
                self.out.extend_from_slice(b"\r\n");
                self.shown.clear();
                self.shown_cursor = 0;
                return KeyResult::Line(line);
            }
            0x17 => self.kill_word(),
            0x1B => self.escape = Escape::Esc,
            0x7F | 0x08 if self.cursor > 0 => {
                self.cursor -= 1;
                self.line.remove(self.cursor);
            }
            0x9B => self.escape = Escape::Csi,
            0x7F => {}
            b' '.. => self.insert(b),
            _ => {}
        }
        self.update();
        KeyResult::None
    }

    fn csi(&mut self, b: u8) {
        self.escape = Escape::None;
        match b {
            b'A' | b'F' => self.older(),
            b'B' | b'E' => self.newer(),
            b'D' => self.cursor = self.cursor.saturating_sub(1),
            b'C' => self.cursor = (self.cursor + 1).min(self.line.len()),
            b'0'..=b'9' => {
                self.escape = Escape::Csi;
                self.param = self.param.wrapping_mul(10).wrapping_add(u32::from(b - b'0'));
            }
            b'~' => match self.param {
                1 => self.cursor = 0,
                3 if self.cursor < self.line.len() => {
                    self.line.remove(self.cursor);
                }
                4 => self.cursor = self.line.len(),
                _ => {}
            },
            _ => {}
        }
    }

    fn insert(&mut self, b: u8) {
        if self.line.len() < MAX_LINE {
            self.line.insert(self.cursor, b);
            self.cursor += 1;
        }
    }

    /// Inserts completed text at the cursor.
    pub(super) fn insert_all(&mut self, text: &[u8]) {
        text.iter().for_each(|&b| self.insert(b));
    }

    /// Deletes the word before the cursor and the blanks behind it.
    fn kill_word(&mut self) {
        let before = &self.line[..self.cursor];
        let word = before.iter().rposition(|b| *b != b' ').map_or(0, |at| at + 1);
        let from = before[..word].iter().rposition(|b| *b == b' ').map_or(0, |at| at + 1);
        self.line.drain(from..self.cursor);
        self.cursor = from;
    }

    fn remember(&mut self, line: &[u8]) {
        if line.is_empty() {
            return;
        }
        if let Some(at) = self.history.iter().position(|l| l == line) {
            self.history.remove(at);
        } else if self.history.len() == MAX_HISTORY {
            self.history.remove(0);
        }
        self.history.push(line.to_vec());
    }

    fn older(&mut self) {
        let place = match self.place {
            Some(0) => return,
            Some(at) => at - 1,
            None => match self.history.len().checked_sub(1) {
                Some(last) => last,
                None => return,
            },
        };
        self.recall(place);
    }

    fn newer(&mut self) {
        let Some(at) = self.place else { return };
        if at + 1 < self.history.len() {
            self.recall(at + 1);
        } else {
            self.place = None;
            self.line.clear();
            self.cursor = 0;
        }
    }

    fn recall(&mut self, place: usize) {
        if let Some(line) = self.history.get(place) {
            self.line.clone_from(line);
            self.cursor = self.line.len();
            self.place = Some(place);
        }
    }

    /// Brings the terminal up to date.
    pub(super) fn update(&mut self) {
        if self.line != self.shown {
            self.steps(self.shown_cursor, b'D');
            self.out.extend_from_slice(&self.line);
            self.out.extend_from_slice(b"\x1b[K");
            self.shown.clone_from(&self.line);
            self.shown_cursor = self.line.len();
        }
        if self.cursor < self.shown_cursor {
            self.steps(self.shown_cursor - self.cursor, b'D');
        } else {
            self.steps(self.cursor - self.shown_cursor, b'C');
        }
        self.shown_cursor = self.cursor;
    }

    fn steps(&mut self, n: usize, dir: u8) {
        for _ in 0..n {
            self.out.extend_from_slice(&[0x1B, b'[', dir]);
        }
    }
}
