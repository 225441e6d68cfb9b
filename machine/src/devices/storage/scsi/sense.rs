//! Sense data (SPC-3, section 4.5).

/// Sense key, additional code and qualifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sense {
    /// Key.
    pub key: u8,
    /// Additional sense code.
    pub asc: u8,
    /// Qualifier.
    pub ascq: u8,
}

macro_rules! senses {
    ($($(#[$m:meta])* $name:ident: $k:literal $a:literal $q:literal;)*) => {
        impl Sense {
            $($(#[$m])* pub const $name: Self = Self { key: $k, asc: $a, ascq: $q };)*
        }
    };
}

senses! {
    /// Nothing to report.
    NONE: 0x00 0x00 0x00;
    /// Not ready, no medium.
    NO_MEDIUM: 0x02 0x3a 0x00;
    /// Not ready: the medium may not be removed.
    NOT_READY_LOCKED: 0x02 0x53 0x02;
    /// No such command.
    INVALID_OPCODE: 0x05 0x20 0x00;
    /// Beyond the end of the medium.
    OUT_OF_RANGE: 0x05 0x21 0x00;
    /// A field of the command has a value that is not supported.
    INVALID_FIELD: 0x05 0x24 0x00;
    /// There is no unit of that number.
    NO_UNIT: 0x05 0x25 0x00;
    /// A field of the parameter list has a value that is not supported.
    INVALID_PARAM: 0x05 0x26 0x00;
    /// The parameter list is too short.
    INVALID_PARAM_LEN: 0x05 0x1a 0x00;
    /// Media of this kind do not have it.
    INCOMPATIBLE_FORMAT: 0x05 0x30 0x00;
    /// Parameters cannot be saved.
    NO_SAVING: 0x05 0x39 0x00;
    /// The medium may not be removed.
    LOCKED: 0x05 0x53 0x02;
    /// The medium has been taken out.
    ATTENTION_NO_MEDIUM: 0x06 0x3a 0x00;
    /// Another medium.
    MEDIUM_CHANGED: 0x06 0x28 0x00;
    /// Switched on or reset.
    RESET: 0x06 0x29 0x00;
    /// The size changed.
    CAPACITY_CHANGED: 0x06 0x2a 0x09;
    /// Units came or went.
    LUNS_CHANGED: 0x06 0x3f 0x0e;
    /// Write protected.
    WRITE_PROTECTED: 0x07 0x27 0x00;
    /// The host's disk is full.
    SPACE_ALLOC_FAILED: 0x07 0x27 0x07;
    /// The transfer failed.
    IO_ERROR: 0x0b 0x00 0x06;
}

impl Sense {
    /// Fixed format, 18 bytes.
    pub fn fixed(self) -> [u8; 18] {
        let mut d = [0; 18];
        d[0] = 0x70;
        d[2] = self.key;
        d[7] = 10;
        d[12] = self.asc;
        d[13] = self.ascq;
        d
    }

    /// Descriptor format, 8 bytes.
    pub fn descriptor(self) -> [u8; 8] {
        [0x72, self.key, self.asc, self.ascq, 0, 0, 0, 0]
    }

    /// What a failed block request becomes.
    pub fn of_error(e: rqemu_block::Errno) -> Self {
        use rqemu_block::Errno;
        match e {
            Errno::ENOMEDIUM => Self::NO_MEDIUM,
            Errno::EINVAL => Self::INVALID_FIELD,
            Errno::ENOSPC => Self::SPACE_ALLOC_FAILED,
            _ => Self::IO_ERROR,
        }
    }
}
