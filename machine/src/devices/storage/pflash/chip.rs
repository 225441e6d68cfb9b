//! One flash chip: its modes and commands.

use std::ops::Range;
use std::sync::Arc;

use super::cfi;
use crate::memory::RamBlock;

/// Status: ready.
const READY: u8 = 0x80;
/// Status: an erase failed.
const ERASE_ERROR: u8 = 0x20;
/// Status: a program failed.
const PROGRAM_ERROR: u8 = 0x10;

/// Bytes of the buffer.
const BUFFER: usize = 1 << cfi::BUFFER_BITS;

/// What reads show, and what the next write means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// The array; a command comes next.
    Array,
    /// The status register; a command comes next.
    Status,
    /// The identifiers; a command comes next.
    Id,
    /// The query structure; only "read array" leads out.
    Query,
    /// Waits for the data of a program.
    Program,
    /// Waits for the confirmation of an erase (which is done already).
    Erase,
    /// Waits for what to do with a block's lock.
    Lock,
    /// Waits for the number of writes of a buffered program.
    Count,
    /// Waits for this many writes more, and then some.
    Fill(u32),
    /// Waits for the confirmation of a buffered program.
    Confirm,
}

/// What a read gives.
pub enum Read {
    /// Bytes of the array.
    Array(u32),
    /// A register.
    Register(u32),
}

/// A chip.
pub struct Chip {
    block: Arc<RamBlock>,
    size: u64,
    sector: u64,
    ids: [u16; 4],
    read_only: bool,
    query: [u8; 0x52],
    mode: Mode,
    status: u8,
    buffer: [u8; BUFFER],
    /// The part of the array that the buffer stands for; `None`: a write of the running program went wrong.
    window: Option<u64>,
}

impl Chip {
    /// A chip whose array is the first `size` bytes of `block`.
    pub fn new(block: Arc<RamBlock>, size: u64, sector: u64, ids: [u16; 4], read_only: bool) -> Self {
        let query = cfi::table(size / sector, sector);
        Self {
            block,
            size,
            sector,
            ids,
            read_only,
            query,
            mode: Mode::Array,
            status: READY,
            buffer: [0; BUFFER],
            window: None,
        }
    }

    /// Power-on state.
    pub fn reset(&mut self) {
        self.mode = Mode::Array;
        self.status = READY;
    }

    /// The array.
    pub fn block(&self) -> &RamBlock {
        &self.block
    }

    /// Whether reads show the array.
    pub fn shows_array(&self) -> bool {
        self.mode == Mode::Array
    }

    /// Bytes of the array, little-endian.
    pub fn array(&self, offset: u64, size: u8) -> u32 {
        let mut b = [0; 4];
        self.block.read(offset, &mut b[..usize::from(size.min(4))]);
        u32::from_le_bytes(b)
    }

    /// A read of 1, 2 or 4 bytes.
    pub fn read(&self, offset: u64, size: u8) -> Read {
        let at = (offset & 0xff) as usize;
        let v = match self.mode {
            Mode::Array => return Read::Array(self.array(offset, size)),
            Mode::Id => match at {
                0 => u32::from(self.ids[0]) << 8 | u32::from(self.ids[1]),
                1 => u32::from(self.ids[2]) << 8 | u32::from(self.ids[3]),
                _ => 0,
            },
            Mode::Query => self.query.get(at).copied().unwrap_or(0).into(),
            _ if size > 2 => u32::from(self.status) << 16 | u32::from(self.status),
            _ => u32::from(self.status),
        };
        Read::Register(v)
    }

    /// A write of 1, 2 or 4 bytes; `data` is `value` in the order of the array. Returns which bytes of it changed.
    pub fn write(&mut self, offset: u64, size: u8, value: u32, data: u32) -> Range<u64> {
        const NOTHING: Range<u64> = 0..0;
        let command = value as u8;
        match self.mode {
            Mode::Array | Mode::Status | Mode::Id => return self.command(offset, command),
            Mode::Query if command == 0xff => self.mode = Mode::Array,
            Mode::Query => {}
            Mode::Program => {
                self.mode = Mode::Status;
                self.status |= READY;
                if self.read_only {
                    self.status |= PROGRAM_ERROR;
                } else {
                    let len = usize::from(size.min(4));
                    self.block.write(offset, &data.to_le_bytes()[..len]);
                    return offset..offset + len as u64;
                }
            }
            Mode::Erase => self.mode = if command == 0xd0 { Mode::Status } else { Mode::Array },
            Mode::Lock if matches!(command, 0x01 | 0xd0) => {
                self.status |= READY;
                self.mode = Mode::Status;
            }
            Mode::Lock => self.mode = Mode::Array,
            Mode::Count => self.begin(offset, command),
            Mode::Fill(left) => {
                self.fill(offset, size, data);
                self.mode = left.checked_sub(1).map_or(Mode::Confirm, Mode::Fill);
            }
            Mode::Confirm => {
                let window = self.window.take().filter(|_| command == 0xd0);
                self.mode = if window.is_some() { Mode::Status } else { Mode::Array };
                if let Some(start) = window {
                    self.block.write(start, &self.buffer);
                    self.status |= READY;
                    return start..start + BUFFER as u64;
                }
            }
        }
        NOTHING
    }

    /// The first write of a command.
    fn command(&mut self, offset: u64, command: u8) -> Range<u64> {
        self.mode = match command {
            0x10 | 0x40 => Mode::Program,
            0x20 => {
                self.mode = Mode::Erase;
                return self.erase(offset);
            }
            0x50 => {
                self.status = 0;
                Mode::Array
            }
            0x60 => Mode::Lock,
            0x70 => Mode::Status,
            0x90 => Mode::Id,
            0x98 => Mode::Query,
            0xe8 => {
                self.status |= READY;
                Mode::Count
            }
            // 0x00, 0xf0 and 0xff are "read array"; what the chip does not know ends there, too.
            _ => Mode::Array,
        };
        0..0
    }

    fn erase(&mut self, offset: u64) -> Range<u64> {
        self.status |= READY;
        if self.read_only {
            self.status |= ERASE_ERROR;
            return 0..0;
        }
        let start = offset & !(self.sector - 1);
        let end = (start + self.sector).min(self.size);
        let ones = vec![0xff; (end - start) as usize];
        self.block.write(start, &ones);
        start..end
    }

    /// The number of writes (less one) of a buffered program to the part of the array around `offset`.
    fn begin(&mut self, offset: u64, count: u8) {
        let start = offset & !(BUFFER as u64 - 1);
        self.mode = Mode::Fill(count.into());
        self.window = None;
        if self.read_only {
            return;
        }
        self.buffer.fill(0);
        self.block.read(start, &mut self.buffer);
        self.window = Some(start);
    }

    fn fill(&mut self, offset: u64, size: u8, data: u32) {
        let bytes = data.to_le_bytes();
        let at =
            self.window.and_then(|start| offset.checked_sub(start)).and_then(|o| usize::try_from(o).ok());
        let len = usize::from(size.min(4));
        match at.and_then(|at| self.buffer.get_mut(at..at + len)) {
            Some(to) => to.copy_from_slice(&bytes[..len]),
            None => {
                self.window = None;
                self.status |= PROGRAM_ERROR;
            }
        }
    }
}
