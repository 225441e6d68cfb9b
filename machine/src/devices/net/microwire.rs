//! A 93C46 EEPROM: 64 words behind four wires (Microwire). Only reads are understood.

/// Words.
pub const WORDS: usize = 64;

/// Opcode of a read with its start bit: three bits, then six of the address.
const READ: u32 = 6;
const COMMAND_BITS: u32 = 9;

/// The chip.
pub struct Microwire {
    /// Content.
    pub words: [u16; WORDS],
    selected: bool,
    clock: bool,
    /// Bits that came in since chip select, newest lowest.
    input: u32,
    count: u32,
    /// Bits that went out of the word being read.
    out: u32,
    reading: bool,
}

impl Microwire {
    /// With the given content.
    pub fn new(words: [u16; WORDS]) -> Self {
        Self { words, selected: false, clock: false, input: 0, count: 0, out: 0, reading: false }
    }

    /// Deselected.
    pub fn reset(&mut self) {
        *self = Self::new(self.words);
    }

    /// A word; 0 beyond the end.
    pub fn word(&self, i: u32) -> u16 {
        self.words.get(i as usize).copied().unwrap_or(0)
    }

    /// Level of the data output while a word is read.
    pub fn output(&self) -> Option<bool> {
        let bit = 16u32.checked_sub(self.out).filter(|b| *b < 16);
        self.reading.then(|| bit.is_some_and(|b| self.word(self.input & 0x3f) >> b & 1 != 0))
    }

    /// Sets chip select, clock and data input.
    pub fn set(&mut self, select: bool, clock: bool, data: bool) {
        let rising = clock && !self.clock;
        let begins = select && !self.selected;
        (self.selected, self.clock) = (select, clock);
        if begins {
            (self.input, self.count, self.out, self.reading) = (0, 0, 0, false);
        }
        if !select || !rising {
            return;
        }
        if self.reading {
            self.out += 1;
            if self.out > 16 {
                // The next word follows.
                self.out = 1;
                self.input = self.input & !0x3f | (self.input + 1) & 0x3f;
            }
            return;
        }
        // Zeros before the start bit do not count.
        if self.count == 0 && !data {
            return;
        }
        self.input = self.input << 1 | u32::from(data);
        self.count += 1;
        if self.count >= COMMAND_BITS {
            self.reading = self.input >> 6 & 7 == READ;
            self.count = 0;
        }
    }
}
