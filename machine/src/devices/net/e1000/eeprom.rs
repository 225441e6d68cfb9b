//! The EEPROM: 64 words behind a Microwire interface (EECD) and a register that reads a word (EERD).

use crate::devices::net::microwire::{Microwire, WORDS};

/// EECD bits.
mod eecd {
    pub const SK: u32 = 1;
    pub const CS: u32 = 2;
    pub const DI: u32 = 4;
    pub const DO: u32 = 8;
    pub const FWE: u32 = 0x30;
    pub const REQ: u32 = 0x40;
    pub const GNT: u32 = 0x80;
    pub const PRES: u32 = 0x100;
}

const EERD_START: u32 = 1;
const EERD_DONE: u32 = 0x10;

const CHECKSUM: usize = WORDS - 1;
/// Sum of all words.
const SUM: u16 = 0xbaba;

/// What the words are besides address, device id and checksum.
#[rustfmt::skip]
const CONTENT: [u16; WORDS] = [
    0x0000, 0x0000, 0x0000, 0x0000, 0xffff, 0x0000, 0x0000, 0x0000,
    0x3000, 0x1000, 0x6403, 0x0000, 0x8086, 0x0000, 0x8086, 0x3040,
    0x0008, 0x2000, 0x7e14, 0x0048, 0x1000, 0x00d8, 0x0000, 0x2700,
    0x6cc9, 0x3150, 0x0722, 0x040b, 0x0984, 0x0000, 0xc000, 0x0706,
    0x1008, 0x0000, 0x0f04, 0x7fff, 0x4d01, 0xffff, 0xffff, 0xffff,
    0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff,
    0x0100, 0x4000, 0x121c, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff,
    0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0x0000,
];

/// The EEPROM and its interface.
pub struct Eeprom {
    chip: Microwire,
    /// EECD as written.
    lines: u32,
    eerd: u32,
}

impl Eeprom {
    /// Holds `mac` and the PCI device id.
    pub fn new(mac: [u8; 6], device: u16) -> Self {
        let mut words = CONTENT;
        for (w, pair) in words.iter_mut().zip(mac.chunks_exact(2)) {
            *w = u16::from_le_bytes([pair[0], pair[1]]);
        }
        words[0x0b] = device;
        words[0x0d] = device;
        let sum = words[..CHECKSUM].iter().fold(0u16, |s, w| s.wrapping_add(*w));
        words[CHECKSUM] = SUM.wrapping_sub(sum);
        Self { chip: Microwire::new(words), lines: 0, eerd: 0 }
    }

    /// Idle interface.
    pub fn power_on(&mut self) {
        (self.lines, self.eerd) = (0, 0);
        self.chip.reset();
    }

    /// Reads EECD.
    pub fn control(&self) -> u32 {
        let data = if self.chip.output().unwrap_or(true) { eecd::DO } else { 0 };
        eecd::PRES | eecd::GNT | data | self.lines
    }

    /// Writes EECD.
    pub fn set_control(&mut self, v: u32) {
        self.lines = v & (eecd::SK | eecd::CS | eecd::DI | eecd::FWE | eecd::REQ);
        self.chip.set(v & eecd::CS != 0, v & eecd::SK != 0, v & eecd::DI != 0);
    }

    /// Writes EERD: starts a read.
    pub fn start_read(&mut self, v: u32) {
        self.eerd = v;
    }

    /// Reads EERD: the read is done at once.
    pub fn read_result(&self) -> u32 {
        if self.eerd & EERD_START == 0 {
            return self.eerd;
        }
        let v = self.eerd & !EERD_START & 0xffff;
        u32::from(self.chip.word(self.eerd >> 8 & 0xff)) << 16 | v | EERD_DONE
    }
}
