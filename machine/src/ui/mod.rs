//! Input and pictures.

pub mod font;
pub mod input;
pub mod screendump;

use crate::device::Cx;
use crate::machine::Machine;

/// A key or pointer event on its way into the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputEvent {
    /// A key by its number (QEMU's `number` key code: AT scan code set 1, with 0x80 set for the E0 keys).
    Key {
        /// Number.
        code: u16,
        /// Pressed or released.
        down: bool,
    },
    /// A pointer button (0 left, 1 middle, 2 right, 3 wheel up, 4 wheel down, 5 side, 6 extra).
    Button {
        /// Which.
        button: u8,
        /// Pressed or released.
        down: bool,
    },
    /// Relative motion.
    Rel {
        /// 0 = x, 1 = y.
        axis: u8,
        /// Distance.
        value: i32,
    },
    /// Absolute position, 0 to 0x7fff.
    Abs {
        /// 0 = x, 1 = y.
        axis: u8,
        /// Position.
        value: i32,
    },
}

/// A device that takes input.
pub trait InputSink {
    /// Name for `query-mice`.
    fn name(&self) -> &'static str {
        "Input device"
    }
    /// Whether it takes keys / relative / absolute events.
    fn takes(&self) -> InputKinds;
    /// One event.
    fn event(&mut self, cx: &mut Cx<'_>, event: InputEvent);
    /// End of a group of events that belong together.
    fn sync(&mut self, cx: &mut Cx<'_>);
}

/// Kinds of input that a device takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InputKinds {
    /// Keys.
    pub keys: bool,
    /// Relative motion.
    pub rel: bool,
    /// Absolute positions.
    pub abs: bool,
}

/// A picture: 8-bit RGB, rows top to bottom without padding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Picture {
    /// Pixels across.
    pub width: u32,
    /// Pixels down.
    pub height: u32,
    /// `width * height * 3` bytes.
    pub rgb: Vec<u8>,
}

impl Picture {
    /// All black.
    pub fn black(width: u32, height: u32) -> Self {
        Self { width, height, rgb: vec![0; width as usize * height as usize * 3] }
    }
}

/// What a screen shows until the guest first draws on it.
pub fn placeholder(m: &Machine) -> Picture {
    const TEXT: &[u8] = b"Guest has not initialized the display (yet).";
    let mut p = Picture::black(640, 480);
    let font = font::font(m);
    let (left, top) = ((640 / 8 - TEXT.len()) / 2 * 8, (480 / 16 - 1) / 2 * 16);
    for (i, ch) in TEXT.iter().enumerate() {
        for (y, bits) in font.iter().skip(usize::from(*ch) * 16).take(16).enumerate() {
            for x in (0..8).filter(|x| bits >> (7 - x) & 1 != 0) {
                let at = ((top + y) * 640 + left + i * 8 + x) * 3;
                p.rgb[at..at + 3].fill(0xaa);
            }
        }
    }
    p
}

/// A device that shows a picture.
pub trait DisplaySource {
    /// Draws the current picture.
    fn snapshot(&mut self, cx: &mut Cx<'_>) -> Picture;
}
