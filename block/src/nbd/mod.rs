//! Network block device protocol (<https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md>): server with
//! structured replies and metadata contexts, and a client driver. No TLS.

mod client;
mod server;
#[cfg(test)]
mod tests;

pub(crate) use client::{open, parse_name, Server};
pub(crate) use server::Exports;
pub use server::{ExportInfo, ExportOpts, NbdAddr};

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

const MAGIC: u64 = 0x4e42_444d_4147_4943;
const OPT_MAGIC: u64 = 0x4948_4156_454f_5054;
const OPT_REPLY: u64 = 0x0003_e889_0455_65a9;
const REQUEST: u32 = 0x2560_9513;
const SIMPLE: u32 = 0x6744_6698;
const CHUNK: u32 = 0x668e_33ef;

/// Options.
mod opt {
    pub const EXPORT_NAME: u32 = 1;
    pub const ABORT: u32 = 2;
    pub const LIST: u32 = 3;
    pub const STARTTLS: u32 = 5;
    pub const INFO: u32 = 6;
    pub const GO: u32 = 7;
    pub const STRUCTURED: u32 = 8;
    pub const LIST_META: u32 = 9;
    pub const SET_META: u32 = 10;
}

/// Replies to options.
mod rep {
    pub const ACK: u32 = 1;
    pub const SERVER: u32 = 2;
    pub const INFO: u32 = 3;
    pub const META: u32 = 4;
    pub const ERR_UNSUP: u32 = 0x8000_0001;
    pub const ERR_POLICY: u32 = 0x8000_0002;
    pub const ERR_INVALID: u32 = 0x8000_0003;
    pub const ERR_UNKNOWN: u32 = 0x8000_0006;
}

/// Transmission flags.
mod flag {
    pub const HAS_FLAGS: u16 = 1;
    pub const READ_ONLY: u16 = 2;
    pub const FLUSH: u16 = 4;
    pub const FUA: u16 = 8;
    pub const TRIM: u16 = 32;
    pub const WRITE_ZEROES: u16 = 64;
    pub const DF: u16 = 128;
    pub const MULTI_CONN: u16 = 256;
    pub const CACHE: u16 = 1024;
}

/// Commands.
mod cmd {
    pub const READ: u16 = 0;
    pub const WRITE: u16 = 1;
    pub const DISC: u16 = 2;
    pub const FLUSH: u16 = 3;
    pub const TRIM: u16 = 4;
    pub const CACHE: u16 = 5;
    pub const WRITE_ZEROES: u16 = 6;
    pub const BLOCK_STATUS: u16 = 7;
    pub const FLAG_FUA: u16 = 1;
    pub const FLAG_NO_HOLE: u16 = 2;
    pub const FLAG_REQ_ONE: u16 = 8;
}

/// Largest transfer, as QEMU's.
const MAX_TRANSFER: u32 = 32 << 20;

/// A connection.
pub(crate) enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Stream {
    fn try_clone(&self) -> std::io::Result<Stream> {
        Ok(match self {
            Stream::Unix(s) => Stream::Unix(s.try_clone()?),
            Stream::Tcp(s) => Stream::Tcp(s.try_clone()?),
        })
    }

    fn shutdown(&self) {
        let how = std::net::Shutdown::Both;
        // Already gone is fine.
        let _ = match self {
            Stream::Unix(s) => s.shutdown(how),
            Stream::Tcp(s) => s.shutdown(how),
        };
    }
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Stream::Unix(s) => s.read(buf),
            Stream::Tcp(s) => s.read(buf),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        match self {
            Stream::Unix(s) => s.write(buf),
            Stream::Tcp(s) => s.write(buf),
        }
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn get<const N: usize>(s: &mut impl Read) -> std::io::Result<[u8; N]> {
    let mut b = [0; N];
    s.read_exact(&mut b)?;
    Ok(b)
}

fn get32(s: &mut impl Read) -> std::io::Result<u32> {
    get(s).map(u32::from_be_bytes)
}

fn get64(s: &mut impl Read) -> std::io::Result<u64> {
    get(s).map(u64::from_be_bytes)
}

fn broken(what: &str) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, what.to_owned())
}

/// A piece of a message that carries its own lengths.
struct Pieces<'a>(&'a [u8]);

impl<'a> Pieces<'a> {
    fn u16(&mut self) -> Option<u16> {
        let (a, b) = self.0.split_at_checked(2)?;
        self.0 = b;
        Some(u16::from_be_bytes([a[0], a[1]]))
    }
    fn u32(&mut self) -> Option<u32> {
        let (a, b) = self.0.split_at_checked(4)?;
        self.0 = b;
        Some(u32::from_be_bytes([a[0], a[1], a[2], a[3]]))
    }
    fn u64(&mut self) -> Option<u64> {
        Some(u64::from(self.u32()?) << 32 | u64::from(self.u32()?))
    }
    fn text(&mut self, len: usize) -> Option<&'a str> {
        let (a, b) = self.0.split_at_checked(len)?;
        self.0 = b;
        std::str::from_utf8(a).ok()
    }
}
