//! Exceptions as values: what a handler returns when an instruction cannot complete.

/// An exception (or an engine-internal abort) raised by an instruction or by an event delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exception {
    /// Vector 0..=31 (Intel SDM vol. 3, table 6-1), or [`Exception::RETRY`].
    pub vector: u8,
    /// The error code, for the vectors that push one.
    pub error: Option<u32>,
}

impl Exception {
    /// Not an exception of the guest: the instruction writes into its own block; run it alone, then look the
    /// block up again.
    pub const RETRY: u8 = 0xff;

    /// Not an exception of the guest: another engine has to execute the instruction ([`crate::Cpu::assist`]).
    pub const LEAVE: u8 = 0xfe;

    /// Not an exception of the guest: a debugger wants to stop before the instruction.
    pub const STOP: u8 = 0xfd;

    /// #DE, divide error.
    pub const DE: u8 = 0;
    /// #DB, debug.
    pub const DB: u8 = 1;
    /// #BP, breakpoint.
    pub const BP: u8 = 3;
    /// #OF, overflow.
    pub const OF: u8 = 4;
    /// #BR, bound range.
    pub const BR: u8 = 5;
    /// #UD, undefined opcode.
    pub const UD: u8 = 6;
    /// #NM, device not available.
    pub const NM: u8 = 7;
    /// #DF, double fault.
    pub const DF: u8 = 8;
    /// #TS, invalid TSS.
    pub const TS: u8 = 10;
    /// #NP, segment not present.
    pub const NP: u8 = 11;
    /// #SS, stack fault.
    pub const SS: u8 = 12;
    /// #GP, general protection.
    pub const GP: u8 = 13;
    /// #PF, page fault.
    pub const PF: u8 = 14;
    /// #MF, x87 floating point.
    pub const MF: u8 = 16;
    /// #AC, alignment check.
    pub const AC: u8 = 17;
    /// #XM, SIMD floating point.
    pub const XM: u8 = 19;

    /// An exception without error code.
    pub const fn new(vector: u8) -> Self {
        Self { vector, error: None }
    }

    /// An exception with error code.
    pub const fn with(vector: u8, error: u32) -> Self {
        Self { vector, error: Some(error) }
    }

    /// Whether two of these in a row make a double fault (SDM vol. 3, 6.15, "contributory").
    pub const fn is_contributory(self) -> bool {
        matches!(self.vector, 0 | 10..=13)
    }
}

/// Marker of a failed instruction; the exception itself is in `Cpu::exc` (so that results stay in registers).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault;

/// Result of anything that may raise an exception.
pub type R<T> = Result<T, Fault>;
