//! What a request asks for: header, checks, and the block operation that it becomes.

use rqemu_block::Op;

use super::super::queue::Chain;

/// Length of the header in front of each request.
pub const HEADER: usize = 16;
/// Longest serial number that `GET_ID` returns.
const ID_LEN: usize = 20;
/// Largest transfer in bytes.
const MAX_TRANSFER: usize = i32::MAX as usize & !511;

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;
/// Legacy flag without meaning.
const BARRIER: u32 = 0x8000_0000;

/// Result byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Done.
    Ok = 0,
    /// Failed.
    IoErr = 1,
    /// Unknown request.
    Unsupported = 2,
}

/// What the device allows.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Logical block size.
    pub logical: u32,
    /// Discards are offered.
    pub discard: bool,
    /// Zero writes are offered.
    pub write_zeroes: bool,
    /// Largest discard in sectors.
    pub max_discard: u32,
    /// Largest zero write in sectors.
    pub max_write_zeroes: u32,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// A block operation on `[offset, offset + len)`; the data are in the chain.
    Io {
        /// Operation.
        op: Op,
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
    },
    /// Return the serial number.
    GetId,
    /// Finished already.
    Done(Status),
}

fn u32_at(b: &[u8], at: usize) -> u32 {
    b.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn u64_at(b: &[u8], at: usize) -> u64 {
    u64::from(u32_at(b, at)) | u64::from(u32_at(b, at + 4)) << 32
}

/// Understands a chain; `None` if it lacks a header or a status byte (the guest broke the queue).
pub fn parse(chain: &Chain, limits: &Limits, disk_len: u64) -> Option<Task> {
    let mut h = [0; HEADER];
    if chain.readable.read(0, &mut h) < HEADER || chain.writable.total() == 0 {
        return None;
    }
    let sector = u64_at(&h, 8);
    let task = match u32_at(&h, 0) & !BARRIER {
        IN => transfer(Op::Read, sector, chain.writable.total() - 1, limits, disk_len),
        OUT => {
            let len = chain.readable.total() - HEADER;
            transfer(Op::Write { fua: false }, sector, len, limits, disk_len)
        }
        FLUSH => Task::Io { op: Op::Flush, offset: 0, len: 0 },
        GET_ID => Task::GetId,
        DISCARD if limits.discard => return range(chain, false, limits, disk_len),
        WRITE_ZEROES if limits.write_zeroes => return range(chain, true, limits, disk_len),
        _ => Task::Done(Status::Unsupported),
    };
    Some(task)
}

/// Byte range of sectors, if it is aligned and on the disk.
fn place(sector: u64, len: u64, limits: &Limits, disk_len: u64) -> Option<u64> {
    let offset = sector.checked_mul(512)?;
    let block = u64::from(limits.logical);
    // A power of two.
    let aligned = (offset | len) & (block - 1) == 0;
    let fits = offset.checked_add(len)? <= disk_len;
    (fits && aligned).then_some(offset)
}

fn transfer(op: Op, sector: u64, len: usize, limits: &Limits, disk_len: u64) -> Task {
    if len > MAX_TRANSFER {
        return Task::Done(Status::IoErr);
    }
    match place(sector, len as u64, limits, disk_len) {
        Some(_) if len == 0 => Task::Done(Status::Ok),
        Some(offset) => Task::Io { op, offset, len: len as u64 },
        None => Task::Done(Status::IoErr),
    }
}

/// Discard and zero writes carry one range as data.
fn range(chain: &Chain, zeroes: bool, limits: &Limits, disk_len: u64) -> Option<Task> {
    const UNMAP: u32 = 1;
    let mut r = [0; 16];
    if chain.readable.read(HEADER, &mut r) < r.len() {
        return None;
    }
    let (sector, n, flags) = (u64_at(&r, 0), u32_at(&r, 8), u32_at(&r, 12));
    let max = if zeroes { limits.max_write_zeroes } else { limits.max_discard };
    let len = u64::from(n) * 512;
    if n > max {
        return Some(Task::Done(Status::IoErr));
    }
    let Some(offset) = place(sector, len, limits, disk_len) else {
        return Some(Task::Done(Status::IoErr));
    };
    // More than one range, or flags that mean nothing.
    if flags & !UNMAP != 0 || (!zeroes && flags & UNMAP != 0) || chain.readable.total() > HEADER + r.len() {
        return Some(Task::Done(Status::Unsupported));
    }
    if len == 0 {
        return Some(Task::Done(Status::Ok));
    }
    let op = if zeroes { Op::WriteZeroes { unmap: flags & UNMAP != 0, fua: false } } else { Op::Discard };
    Some(Task::Io { op, offset, len })
}

/// Writes the serial number as `GET_ID` wants it: zero-terminated if it is short.
pub fn write_id(chain: &Chain, serial: &[u8]) {
    let mut id = [0; ID_LEN];
    let n = serial.len().min(ID_LEN);
    id[..n].copy_from_slice(&serial[..n]);
    let room = (chain.writable.total() - 1).min((serial.len() + 1).min(ID_LEN));
    chain.writable.write(0, &id[..room]);
}
