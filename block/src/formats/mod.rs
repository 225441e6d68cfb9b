//! Foreign formats, read only: `vdi`, `vpc`, `vhdx`, `vmdk`.
//!
//! Each format only says where a piece of the medium stands ([`Layout`]); reading is done here. Every number in such an
//! image is checked before it is used, and tables are bounded before they are read.

mod vdi;
mod vhdx;
mod vmdk;
mod vpc;

pub(crate) use vmdk::{descriptor, Extent};

use crate::driver::{perm, Driver, ImageFacts, Op, Status};
use crate::error::{BlockError, Errno, IoResult, Result};
use crate::iov::{self, Iov};
use crate::node::{Edge, Node};
use crate::Inline;
use serde_json::Value;
use std::sync::Arc;

/// Largest table that is read into memory.
const MAX_TABLE: u64 = 64 << 20;

/// Where a piece of the medium stands.
pub(crate) enum Place {
    /// Nowhere: zeroes.
    Zero,
    /// As it is, in file number `.0` at byte `.1`.
    Plain(usize, u64),
    /// In a compressed grain: file, host offset of the packed bytes, and where in the unpacked grain.
    Packed { file: usize, at: u64, len: u32, grain: u64, inside: u64 },
}

/// A format's map of its medium.
pub(crate) trait Layout: Send + Sync {
    /// QEMU's name.
    fn name(&self) -> &'static str;
    /// Size of the medium in bytes.
    fn size(&self) -> u64;
    /// Where byte `off` stands, and for how many bytes that goes on (at least one).
    fn place(&self, files: &[Edge], off: u64) -> Result<(Place, u64), Errno>;
    /// Allocation unit, where `ImageInfo` shows one.
    fn cluster(&self) -> Option<u64> {
        None
    }
    /// Format-specific part of `ImageInfo`.
    fn specific(&self) -> Option<Value> {
        None
    }
}

/// The driver for such an image.
pub(crate) struct Foreign {
    files: Vec<Edge>,
    layout: Box<dyn Layout>,
}

/// Opens an image of one of the formats; `files`: the image itself, and what its descriptor names.
pub(crate) fn open(format: &str, files: &[Arc<Node>], user: &str, extents: Vec<Extent>) -> Result<Foreign> {
    let edge =
        |n: &Arc<Node>| Edge::new(n, user, "file", perm::READ, perm::ALL & !(perm::WRITE | perm::RESIZE));
    let edges = files.iter().map(edge).collect::<Result<Vec<_>>>()?;
    let main = edges.first().ok_or_else(|| BlockError::text("no file"))?.node().clone();
    let layout: Box<dyn Layout> = match format {
        "vdi" => Box::new(vdi::Vdi::open(&main)?),
        "vpc" => Box::new(vpc::Vpc::open(&main)?),
        "vhdx" => Box::new(vhdx::Vhdx::open(&main)?),
        _ => Box::new(vmdk::Vmdk::open(&edges, extents)?),
    };
    Ok(Foreign { files: edges, layout })
}

/// Reads `len` bytes of a header or table.
fn read(node: &Node, off: u64, len: u64, what: &str) -> Result<Vec<u8>> {
    if len > MAX_TABLE {
        return Err(BlockError::text(format!("{what} is too large")));
    }
    let mut buf = vec![0; len as usize];
    node.read_padded(off, &[iov::own(&mut buf)])
        .map_err(|e| BlockError::io(format!("Could not read {what}"), e))?;
    Ok(buf)
}

fn le32(b: &[u8], at: usize) -> u32 {
    b.get(at..at + 4).map_or(0, |s| u32::from_le_bytes([s[0], s[1], s[2], s[3]]))
}

fn le64(b: &[u8], at: usize) -> u64 {
    u64::from(le32(b, at)) | u64::from(le32(b, at + 4)) << 32
}

fn le32s(b: &[u8]) -> Vec<u32> {
    b.chunks_exact(4).map(|c| le32(c, 0)).collect()
}

impl Foreign {
    fn unpack(&self, file: usize, at: u64, len: u32, grain: u64) -> Result<Vec<u8>, Errno> {
        let node = self.files.get(file).ok_or(Errno::EIO)?.node();
        if u64::from(len) > 2 * grain + 4096 {
            return Err(Errno::EIO);
        }
        let mut packed = vec![0; len as usize];
        node.read_padded(at, &[iov::own(&mut packed)])?;
        let mut plain = vec![0; grain as usize];
        let mut z = flate2::Decompress::new(true);
        z.decompress(&packed, &mut plain, flate2::FlushDecompress::Finish).map_err(|_| Errno::EIO)?;
        Ok(plain)
    }
}

impl Driver for Foreign {
    fn name(&self) -> &'static str {
        self.layout.name()
    }

    fn len(&self) -> u64 {
        self.layout.size()
    }

    fn readv(&self, off: u64, iov: Iov<'_>) -> IoResult {
        let len = iov::total(iov).ok_or(Errno::EINVAL)? as u64;
        let mut done = 0;
        while done < len {
            let (place, n) = self.layout.place(&self.files, off + done)?;
            let n = n.max(1).min(len - done);
            let (from, count) = (done as usize, n as usize);
            match place {
                Place::Zero => iov::zero(iov, from, count),
                Place::Plain(file, at) => {
                    let node = self.files.get(file).ok_or(Errno::EIO)?.node();
                    node.read_padded(at, &iov::slice(iov, from, count))?;
                }
                Place::Packed { file, at, len, grain, inside } => {
                    let plain = self.unpack(file, at, len, grain)?;
                    let part = plain.get(inside as usize..(inside + n) as usize).ok_or(Errno::EIO)?;
                    iov::scatter(iov, from, part);
                }
            }
            done += n;
        }
        Ok(())
    }

    fn writev(&self, _off: u64, _iov: Iov<'_>, _fua: bool) -> IoResult {
        Err(Errno::EPERM)
    }

    fn flush(&self) -> IoResult {
        Ok(())
    }

    fn write_zeroes(&self, _off: u64, _len: u64, _unmap: bool) -> IoResult {
        Err(Errno::EPERM)
    }

    fn try_inline(&self, op: Op, _off: u64, _iov: Iov<'_>) -> Inline {
        match op {
            Op::Flush => Inline::Done(Ok(())),
            _ => Inline::Punt,
        }
    }

    fn block_status(&self, off: u64, len: u64) -> Result<(Status, u64), Errno> {
        let (place, n) = self.layout.place(&self.files, off)?;
        let s = match place {
            Place::Zero => Status { zero: true, ..Status::default() },
            Place::Plain(_, at) => {
                Status { data: true, allocated: true, host: Some(at), ..Status::default() }
            }
            Place::Packed { .. } => {
                Status { data: true, allocated: true, compressed: true, ..Status::default() }
            }
        };
        Ok((s, n.max(1).min(len)))
    }

    fn is_zero(&self, off: u64, len: u64) -> bool {
        let mut at = off;
        while at < off + len {
            match self.layout.place(&self.files, at) {
                Ok((Place::Zero, n)) => at += n.max(1),
                _ => return false,
            }
        }
        true
    }

    fn image_facts(&self) -> ImageFacts {
        ImageFacts { cluster_size: self.layout.cluster(), ..ImageFacts::default() }
    }

    fn format_specific(&self) -> Option<Value> {
        self.layout.specific()
    }
}
