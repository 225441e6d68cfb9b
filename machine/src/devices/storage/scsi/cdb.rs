//! Command descriptor blocks: fields, and how much data a command moves.

/// Operation codes.
#[allow(missing_docs)]
pub mod op {
    pub const TEST_UNIT_READY: u8 = 0x00;
    pub const REQUEST_SENSE: u8 = 0x03;
    pub const FORMAT_UNIT: u8 = 0x04;
    pub const READ_6: u8 = 0x08;
    pub const WRITE_6: u8 = 0x0a;
    pub const INQUIRY: u8 = 0x12;
    pub const MODE_SELECT_6: u8 = 0x15;
    pub const RESERVE: u8 = 0x16;
    pub const RELEASE: u8 = 0x17;
    pub const MODE_SENSE_6: u8 = 0x1a;
    pub const START_STOP: u8 = 0x1b;
    pub const PREVENT_ALLOW: u8 = 0x1e;
    pub const READ_CAPACITY: u8 = 0x25;
    pub const READ_10: u8 = 0x28;
    pub const WRITE_10: u8 = 0x2a;
    pub const SEEK_10: u8 = 0x2b;
    pub const WRITE_VERIFY_10: u8 = 0x2e;
    pub const VERIFY_10: u8 = 0x2f;
    pub const SYNC_CACHE_10: u8 = 0x35;
    pub const WRITE_SAME_10: u8 = 0x41;
    pub const UNMAP: u8 = 0x42;
    pub const READ_TOC: u8 = 0x43;
    pub const GET_CONFIGURATION: u8 = 0x46;
    pub const GET_EVENT_STATUS: u8 = 0x4a;
    pub const READ_DISC_INFO: u8 = 0x51;
    pub const MODE_SELECT_10: u8 = 0x55;
    pub const RESERVE_10: u8 = 0x56;
    pub const RELEASE_10: u8 = 0x57;
    pub const MODE_SENSE_10: u8 = 0x5a;
    pub const READ_16: u8 = 0x88;
    pub const WRITE_16: u8 = 0x8a;
    pub const WRITE_VERIFY_16: u8 = 0x8e;
    pub const VERIFY_16: u8 = 0x8f;
    pub const WRITE_SAME_16: u8 = 0x93;
    pub const SERVICE_ACTION_IN_16: u8 = 0x9e;
    pub const REPORT_LUNS: u8 = 0xa0;
    pub const READ_12: u8 = 0xa8;
    pub const WRITE_12: u8 = 0xaa;
    pub const READ_DVD_STRUCTURE: u8 = 0xad;
    pub const WRITE_VERIFY_12: u8 = 0xae;
    pub const VERIFY_12: u8 = 0xaf;
    pub const MECHANISM_STATUS: u8 = 0xbd;
}

/// Which way data go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dir {
    /// To the host.
    In,
    /// From the host.
    Out,
    /// Nowhere.
    None,
}

/// A command block, padded with zeros.
#[derive(Clone, Copy, Debug)]
pub struct Cdb(pub [u8; 16]);

impl Cdb {
    /// From the bytes that the host sent.
    pub fn new(bytes: &[u8]) -> Self {
        let mut b = [0; 16];
        b.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        Self(b)
    }

    /// Operation code.
    pub fn op(&self) -> u8 {
        self.0[0]
    }

    /// A byte.
    pub fn at(&self, i: usize) -> u8 {
        self.0.get(i).copied().unwrap_or(0)
    }

    /// Big-endian fields.
    pub fn be16(&self, i: usize) -> u16 {
        u16::from(self.at(i)) << 8 | u16::from(self.at(i + 1))
    }
    #[allow(missing_docs)]
    pub fn be32(&self, i: usize) -> u32 {
        u32::from(self.be16(i)) << 16 | u32::from(self.be16(i + 2))
    }
    #[allow(missing_docs)]
    pub fn be64(&self, i: usize) -> u64 {
        u64::from(self.be32(i)) << 32 | u64::from(self.be32(i + 4))
    }

    /// The length field at its usual place.
    pub fn len_field(&self) -> u64 {
        match self.op() >> 5 {
            0 => self.at(4).into(),
            1 | 2 => self.be16(7).into(),
            4 => self.be32(10).into(),
            5 => self.be32(6).into(),
            _ => 0,
        }
    }

    /// First block of a reading or writing command.
    pub fn lba(&self) -> u64 {
        match self.op() >> 5 {
            0 => u64::from(self.be32(0) & 0x1f_ffff),
            4 => self.be64(2),
            _ => self.be32(2).into(),
        }
    }

    /// Blocks of a reading or writing command.
    pub fn blocks(&self) -> u64 {
        match self.len_field() {
            // Only the shortest form has no way to move nothing.
            0 if self.op() >> 5 == 0 => 256,
            n => n,
        }
    }

    /// Bytes that the command moves on a unit with blocks of `block` bytes, and which way.
    pub fn transfer(&self, block: u64) -> (u64, Dir) {
        match self.op() {
            op::READ_6 | op::READ_10 | op::READ_12 | op::READ_16 => (self.blocks() * block, Dir::In),
            op::WRITE_6
            | op::WRITE_10
            | op::WRITE_12
            | op::WRITE_16
            | op::WRITE_VERIFY_10
            | op::WRITE_VERIFY_12
            | op::WRITE_VERIFY_16 => (self.blocks() * block, Dir::Out),
            // With "no data-out buffer" the blocks are zeros.
            op::WRITE_SAME_10 | op::WRITE_SAME_16 if self.at(1) & 1 != 0 => (0, Dir::None),
            op::WRITE_SAME_10 | op::WRITE_SAME_16 => (block, Dir::Out),
            op::VERIFY_10 | op::VERIFY_12 | op::VERIFY_16 if self.at(1) & 2 != 0 => {
                (if self.at(1) & 4 != 0 { block } else { self.blocks() * block }, Dir::Out)
            }
            op::MODE_SELECT_6 | op::MODE_SELECT_10 | op::UNMAP => (self.len_field(), Dir::Out),
            op::READ_CAPACITY => (8, Dir::In),
            op::READ_DVD_STRUCTURE | op::MECHANISM_STATUS => (self.be16(8).into(), Dir::In),
            op::REQUEST_SENSE
            | op::INQUIRY
            | op::MODE_SENSE_6
            | op::MODE_SENSE_10
            | op::READ_TOC
            | op::GET_CONFIGURATION
            | op::GET_EVENT_STATUS
            | op::READ_DISC_INFO
            | op::SERVICE_ACTION_IN_16
            | op::REPORT_LUNS => (self.len_field(), Dir::In),
            _ => (0, Dir::None),
        }
    }
}
