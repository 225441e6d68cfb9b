//! PS/2 keyboard: commands, scan code sets 1 to 3.

use serde::{Deserialize, Serialize};

use super::ps2::Queue;

const ACK: u8 = 0xfa;
const RESEND: u8 = 0xfe;

/// Modifier keys that change what Print Screen and Pause send.
mod modifier {
    pub const ALT_L: u8 = 1;
    pub const ALT_R: u8 = 2;
    pub const CTRL: u8 = 4 | 8;
    pub const SHIFT: u8 = 16 | 32;

    /// Bit of a key, by number.
    pub fn of(number: u8) -> u8 {
        match number {
            0x38 => ALT_L,
            0xb8 => ALT_R,
            0x1d => 4,
            0x9d => 8,
            0x2a => 16,
            0x36 => 32,
            _ => 0,
        }
    }
}

/// Saved state of the keyboard.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keyboard {
    pub(super) queue: Queue,
    /// The command whose parameter comes next.
    command: Option<u8>,
    scanning: bool,
    /// Scan code set, 1-3.
    set: u8,
    /// The controller wants set 1 codes whatever the set is.
    translate: bool,
    /// A break prefix (F0) was swallowed by the translation.
    release: bool,
    /// Lights: scroll lock, num lock, caps lock.
    leds: u8,
    modifiers: u8,
}

impl Default for Keyboard {
    fn default() -> Self {
        Self {
            queue: Queue::default(),
            command: None,
            scanning: true,
            set: 2,
            translate: false,
            release: false,
            leds: 0,
            modifiers: 0,
        }
    }
}

impl Keyboard {
    /// Power-on state.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Lights: bit 0 scroll lock, 1 num lock, 2 caps lock.
    pub fn leds(&self) -> u8 {
        self.leds
    }

    pub(super) fn set_translation(&mut self, on: bool) {
        self.translate = on;
    }

    /// Whether a loaded state is within the limits.
    pub(super) fn is_sane(&self) -> bool {
        self.queue.is_sane() && (1..=3).contains(&self.set)
    }

    fn defaults(&mut self) {
        self.scanning = true;
        self.set = 2;
        self.leds = 0;
        self.queue.clear();
    }

    /// A byte from the controller.
    pub fn write(&mut self, v: u8) {
        if let Some(command) = self.command.take() {
            self.parameter(command, v);
            return;
        }
        match v {
            0x00 => self.queue.reply(&[ACK]),
            0xee => self.queue.reply(&[0xee]),
            0xf2 => self.queue.reply(&[ACK, 0xab, if self.translate { 0x41 } else { 0x83 }]),
            0xed | 0xf0 | 0xf3 | 0xfc => {
                self.command = Some(v);
                self.queue.reply(&[ACK]);
            }
            0xf4 => {
                self.scanning = true;
                self.queue.reply(&[ACK]);
            }
            0xf5 | 0xf6 => {
                self.defaults();
                self.scanning = v == 0xf6;
                self.queue.reply(&[ACK]);
            }
            0xfa => self.queue.reply(&[ACK]),
            0xff => {
                self.defaults();
                self.queue.reply(&[ACK, 0xaa]);
            }
            _ => self.queue.reply(&[RESEND]),
        }
    }

    fn parameter(&mut self, command: u8, v: u8) {
        match (command, v) {
            (0xf0, 0) => {
                let set = if self.translate { translated(self.set) } else { self.set };
                self.queue.reply(&[ACK, set]);
            }
            (0xf0, 1..=3) => {
                self.set = v;
                self.queue.reply(&[ACK]);
            }
            (0xf0, _) => self.queue.reply(&[RESEND]),
            (0xed, _) => {
                self.leds = v;
                self.queue.reply(&[ACK]);
            }
            // The host repeats keys, not the keyboard.
            _ => self.queue.reply(&[ACK]),
        }
    }

    /// A key, by QEMU's key number.
    pub fn key(&mut self, number: u8, down: bool) {
        if !self.scanning {
            return;
        }
        let m = modifier::of(number);
        if down {
            self.modifiers |= m;
        } else {
            self.modifiers &= !m;
        }
        match (self.set, number) {
            (1 | 2, 0x54 | 0xb7) => self.print_screen(down),
            (1 | 2, 0xc6) => self.pause(down),
            (3, _) => {
                let code = SET3[usize::from(number)];
                if code != 0 {
                    self.send(if down { &[] } else { &[0xf0] });
                    self.send(&[code]);
                }
            }
            _ => {
                let code = SET2[usize::from(number)];
                if code == 0 {
                    return;
                }
                if number & 0x80 != 0 {
                    self.send(&[0xe0]);
                }
                match (self.set, down) {
                    (1, true) => self.send(&[number & 0x7f]),
                    (1, false) => self.send(&[number | 0x80]),
                    (_, true) => self.send(&[code]),
                    (_, false) => self.send(&[0xf0, code]),
                }
            }
        }
    }

    fn print_screen(&mut self, down: bool) {
        let m = self.modifiers;
        let bytes: &[u8] = match (self.set, down) {
            (1, true) if m & modifier::ALT_L != 0 => &[0xb8, 0x38, 0x54],
            (1, false) if m & modifier::ALT_L != 0 => &[0xd4, 0xb8, 0x38],
            (1, true) if m & modifier::ALT_R != 0 => &[0xe0, 0xb8, 0xe0, 0x38, 0x54],
            (1, false) if m & modifier::ALT_R != 0 => &[0xd4, 0xe0, 0xb8, 0xe0, 0x38],
            (1, true) if m & (modifier::SHIFT | modifier::CTRL) != 0 => &[0xe0, 0x37],
            (1, false) if m & (modifier::SHIFT | modifier::CTRL) != 0 => &[0xe0, 0xb7],
            (1, true) => &[0xe0, 0x2a, 0xe0, 0x37],
            (1, false) => &[0xe0, 0xb7, 0xe0, 0xaa],
            (_, true) if m & modifier::ALT_L != 0 => &[0xf0, 0x11, 0x11, 0x84],
            (_, false) if m & modifier::ALT_L != 0 => &[0xf0, 0x84, 0xf0, 0x11, 0x11],
            (_, true) if m & modifier::ALT_R != 0 => &[0xe0, 0xf0, 0x11, 0xe0, 0x11, 0x84],
            (_, false) if m & modifier::ALT_R != 0 => &[0xf0, 0x84, 0xe0, 0xf0, 0x11, 0xe0, 0x11],
            (_, true) if m & (modifier::SHIFT | modifier::CTRL) != 0 => &[0xe0, 0x7c],
            (_, false) if m & (modifier::SHIFT | modifier::CTRL) != 0 => &[0xe0, 0xf0, 0x7c],
            (_, true) => &[0xe0, 0x12, 0xe0, 0x7c],
            (_, false) => &[0xe0, 0xf0, 0x7c, 0xe0, 0xf0, 0x12],
        };
        self.send(bytes);
    }

    /// Pause has no release code.
    fn pause(&mut self, down: bool) {
        let ctrl = self.modifiers & modifier::CTRL != 0;
        let bytes: &[u8] = match (self.set, ctrl) {
            _ if !down => &[],
            (1, true) => &[0xe0, 0x46, 0xe0, 0xc6],
            (1, false) => &[0xe1, 0x1d, 0x45, 0xe1, 0x9d, 0xc5],
            (_, true) => &[0xe0, 0x7e, 0xe0, 0xf0, 0x7e],
            (_, false) => &[0xe1, 0x14, 0x77, 0xe1, 0xf0, 0x14, 0xf0, 0x77],
        };
        self.send(bytes);
    }

    /// Queues scan codes, through the translation if it is on.
    fn send(&mut self, bytes: &[u8]) {
        for b in bytes {
            if !self.translate {
                self.queue.push(*b);
            } else if *b == 0xf0 {
                self.release = true;
            } else {
                let high = if std::mem::take(&mut self.release) { 0x80 } else { 0 };
                self.queue.push(translated(*b) | high);
            }
        }
    }
}

/// A byte of set 2 as the controller translates it to set 1.
fn translated(b: u8) -> u8 {
    match (b, TRANSLATION.get(usize::from(b))) {
        (_, Some(t)) => *t,
        (0x83, _) => 0x41,
        (0x84, _) => 0x54,
        _ => b,
    }
}

/// The controller's translation of set 2 to set 1.
#[rustfmt::skip]
static TRANSLATION: [u8; 128] = [
    0xff, 0x43, 0x41, 0x3f, 0x3d, 0x3b, 0x3c, 0x58, 0x64, 0x44, 0x42, 0x40, 0x3e, 0x0f, 0x29, 0x59,
    0x65, 0x38, 0x2a, 0x70, 0x1d, 0x10, 0x02, 0x5a, 0x66, 0x71, 0x2c, 0x1f, 0x1e, 0x11, 0x03, 0x5b,
    0x67, 0x2e, 0x2d, 0x20, 0x12, 0x05, 0x04, 0x5c, 0x68, 0x39, 0x2f, 0x21, 0x14, 0x13, 0x06, 0x5d,
    0x69, 0x31, 0x30, 0x23, 0x22, 0x15, 0x07, 0x5e, 0x6a, 0x72, 0x32, 0x24, 0x16, 0x08, 0x09, 0x5f,
    0x6b, 0x33, 0x25, 0x17, 0x18, 0x0b, 0x0a, 0x60, 0x6c, 0x34, 0x35, 0x26, 0x27, 0x19, 0x0c, 0x61,
    0x6d, 0x73, 0x28, 0x74, 0x1a, 0x0d, 0x62, 0x6e, 0x3a, 0x36, 0x1c, 0x1b, 0x75, 0x2b, 0x63, 0x76,
    0x55, 0x56, 0x77, 0x78, 0x79, 0x7a, 0x0e, 0x7b, 0x7c, 0x4f, 0x7d, 0x4b, 0x47, 0x7e, 0x7f, 0x6f,
    0x52, 0x53, 0x50, 0x4c, 0x4d, 0x48, 0x01, 0x45, 0x57, 0x4e, 0x51, 0x4a, 0x37, 0x49, 0x46, 0x54,
];

/// Set 2 code by key number (E0 in front when the number has its top bit set); 0: the key sends nothing.
#[rustfmt::skip]
static SET2: [u8; 256] = [
    0, 0x76, 0x16, 0x1e, 0x26, 0x25, 0x2e, 0x36, 0x3d, 0x3e, 0x46, 0x45, 0x4e, 0x55, 0x66, 0x0d,
    0x15, 0x1d, 0x24, 0x2d, 0x2c, 0x35, 0x3c, 0x43, 0x44, 0x4d, 0x54, 0x5b, 0x5a, 0x14, 0x1c, 0x1b,
    0x23, 0x2b, 0x34, 0x33, 0x3b, 0x42, 0x4b, 0x4c, 0x52, 0x0e, 0x12, 0x5d, 0x1a, 0x22, 0x21, 0x2a,
    0x32, 0x31, 0x3a, 0x41, 0x49, 0x4a, 0x59, 0x7c, 0x11, 0x29, 0x58, 0x05, 0x06, 0x04, 0x0c, 0x03,
    0x0b, 0x83, 0x0a, 0x01, 0x09, 0x77, 0x7e, 0x6c, 0x75, 0x7d, 0x7b, 0x6b, 0x73, 0x74, 0x79, 0x69,
    0x72, 0x7a, 0x70, 0x71, 0, 0, 0x61, 0x78, 0x07, 0x0f, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0x13, 0, 0, 0x51, 0, 0, 0, 0x62, 0, 0x64, 0, 0x67, 0, 0x6a, 0x6d, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0x15, 0, 0, 0, 0, 0, 0, 0, 0, 0x4d, 0, 0, 0x5a, 0x14, 0, 0,
    0x23, 0x2b, 0x34, 0, 0x3b, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x21, 0,
    0x32, 0, 0x3a, 0, 0, 0x4a, 0, 0, 0x11, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0x6c, 0x75, 0x7d, 0, 0x6b, 0, 0x74, 0, 0x69,
    0x72, 0x7a, 0x70, 0x71, 0, 0, 0, 0, 0, 0, 0, 0x1f, 0x27, 0x2f, 0x37, 0x3f,
    0, 0, 0, 0x5e, 0, 0, 0x18, 0x20, 0x28, 0x30, 0x38, 0x40, 0x48, 0x50, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
];

/// Set 3 code by key number; 0: the key sends nothing.
#[rustfmt::skip]
static SET3: [u8; 256] = [
    0, 0x08, 0x16, 0x1e, 0x26, 0x25, 0x2e, 0x36, 0x3d, 0x3e, 0x46, 0x45, 0x4e, 0x55, 0x66, 0x0d,
    0x15, 0x1d, 0x24, 0x2d, 0x2c, 0x35, 0x3c, 0x43, 0x44, 0x4d, 0x54, 0x5b, 0x5a, 0x11, 0x1c, 0x1b,
    0x23, 0x2b, 0x34, 0x33, 0x3b, 0x42, 0x4b, 0x4c, 0x52, 0x0e, 0x12, 0x5c, 0x1a, 0x22, 0x21, 0x2a,
    0x32, 0x31, 0x3a, 0x41, 0x49, 0x4a, 0x59, 0x7e, 0x19, 0x29, 0x14, 0x07, 0x0f, 0x17, 0x1f, 0x27,
    0x2f, 0x37, 0x3f, 0x47, 0x4f, 0x76, 0x5f, 0x6c, 0x75, 0x7d, 0x4e, 0x6b, 0x73, 0x74, 0x7c, 0x69,
    0x72, 0x7a, 0x70, 0x71, 0x57, 0, 0x13, 0x56, 0x5e, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0x20, 0x28, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0x87, 0, 0, 0, 0, 0, 0, 0x87, 0, 0x86, 0, 0x85, 0, 0x5d, 0, 0,
    0, 0, 0, 0, 0, 0x0b, 0x0c, 0x10, 0, 0, 0, 0, 0, 0, 0, 0,
    0x94, 0, 0, 0, 0, 0, 0, 0, 0, 0x93, 0, 0, 0x79, 0x58, 0x91, 0,
    0x9c, 0xa3, 0, 0, 0x98, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x9d, 0,
    0x95, 0, 0x97, 0, 0, 0x4a, 0, 0x57, 0x39, 0, 0, 0, 0x38, 0, 0, 0,
    0, 0x30, 0, 0, 0, 0, 0x62, 0x6e, 0x63, 0x6f, 0, 0x61, 0, 0x6a, 0, 0x65,
    0x60, 0x6d, 0x67, 0x64, 0, 0, 0, 0, 0, 0, 0, 0x8b, 0x8c, 0x8d, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0x0a, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0x09, 0, 0, 0x18, 0, 0, 0, 0, 0, 0, 0,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn translation_gives_set_1() {
        for (number, code) in SET2.iter().enumerate().filter(|(_, c)| **c != 0) {
            assert_eq!(usize::from(translated(*code)), number & 0x7f, "key {number:#x}");
        }
    }
}
