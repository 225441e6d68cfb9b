//! Driver `nbd`: a medium served by another program.
//!
//! One connection; requests take turns on it. When it breaks, requests fail with EIO; with `reconnect-delay` a new
//! connection is tried for that many seconds first.

use super::*;
use crate::driver::{Driver, Op};
use crate::error::{BlockError, Errno, IoResult, Result};
use crate::iov::{self, Iov};
use parking_lot::Mutex;
use std::time::{Duration, Instant};

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    Unix(String),
    Inet(String, String),
}

struct Link {
    stream: Option<Stream>,
    next: u64,
}

pub(crate) struct NbdDriver {
    server: Server,
    export: String,
    link: Mutex<Link>,
    size: u64,
    flags: u16,
    reconnect: Duration,
}

fn connect(server: &Server) -> std::io::Result<Stream> {
    match server {
        Server::Unix(p) => UnixStream::connect(p).map(Stream::Unix),
        Server::Inet(host, port) => {
            let port: u16 = port.parse().map_err(|_| broken("port"))?;
            let s = TcpStream::connect((host.as_str(), port))?;
            s.set_nodelay(true)?;
            Ok(Stream::Tcp(s))
        }
    }
}

/// Size and flags of the export, or what the server said.
fn handshake(s: &mut Stream, export: &str) -> std::io::Result<std::result::Result<(u64, u16), String>> {
    if get64(s)? != MAGIC || get64(s)? != OPT_MAGIC {
        return Ok(Err("Bad magic received".into()));
    }
    let flags = u16::from_be_bytes(get(s)?);
    if flags & 1 == 0 {
        return Ok(Err("Server does not support fixed newstyle negotiation".into()));
    }
    s.write_all(&u32::from(flags & 3).to_be_bytes())?;
    let mut m = Vec::new();
    m.extend(OPT_MAGIC.to_be_bytes());
    m.extend(opt::GO.to_be_bytes());
    m.extend((export.len() as u32 + 6).to_be_bytes());
    m.extend((export.len() as u32).to_be_bytes());
    m.extend(export.as_bytes());
    m.extend(0u16.to_be_bytes());
    s.write_all(&m)?;
    let mut found = None;
    loop {
        if get64(s)? != OPT_REPLY || get32(s)? != opt::GO {
            return Ok(Err("Unexpected reply to option".into()));
        }
        let (kind, len) = (get32(s)?, get32(s)?);
        if len > 1 << 16 {
            return Err(broken("reply too long"));
        }
        let mut data = vec![0; len as usize];
        s.read_exact(&mut data)?;
        match kind {
            rep::ACK => return Ok(found.ok_or_else(|| "broken server omitted NBD_INFO_EXPORT".into())),
            rep::INFO => {
                let mut p = Pieces(&data);
                if let (Some(0), Some(size), Some(flags)) = (p.u16(), p.u64(), p.u16()) {
                    found = Some((size, flags));
                }
            }
            rep::ERR_UNSUP => return export_name(s, export, flags & 2 != 0).map(Ok),
            rep::ERR_UNKNOWN => {
                return Ok(Err(format!(
                    "Requested export not available\nserver reported: {}",
                    String::from_utf8_lossy(&data)
                )));
            }
            _ => {
                return Ok(Err(format!("Server refused: {}", String::from_utf8_lossy(&data))));
            }
        }
    }
}

fn export_name(s: &mut Stream, export: &str, no_zeroes: bool) -> std::io::Result<(u64, u16)> {
    let mut m = Vec::new();
    m.extend(OPT_MAGIC.to_be_bytes());
    m.extend(opt::EXPORT_NAME.to_be_bytes());
    m.extend((export.len() as u32).to_be_bytes());
    m.extend(export.as_bytes());
    s.write_all(&m)?;
    let size = get64(s)?;
    let flags = u16::from_be_bytes(get(s)?);
    if !no_zeroes {
        get::<124>(s)?;
    }
    Ok((size, flags))
}

/// Connects and learns about the export.
pub(crate) fn open(server: Server, export: &str, reconnect: u64) -> Result<(NbdDriver, bool)> {
    let what = match &server {
        Server::Unix(p) => format!("Failed to connect to '{p}'"),
        Server::Inet(h, p) => format!("Failed to connect to '{h}:{p}'"),
    };
    let mut stream = connect(&server).map_err(|e| BlockError::io(what, e))?;
    let (size, flags) = handshake(&mut stream, export)
        .map_err(|e| BlockError::io("Failed to negotiate with the NBD server", e))?
        .map_err(BlockError::text)?;
    let driver = NbdDriver {
        server,
        export: export.into(),
        link: Mutex::new(Link { stream: Some(stream), next: 0 }),
        size,
        flags,
        reconnect: Duration::from_secs(reconnect),
    };
    Ok((driver, flags & flag::READ_ONLY != 0))
}

/// `nbd://host[:port]/export`, `nbd+unix:///export?socket=path`, `nbd:host:port[:exportname=…]`, `nbd:unix:path[:exportname=…]`.
pub(crate) fn parse_name(name: &str) -> Option<(Server, String)> {
    if let Some(rest) = name.strip_prefix("nbd+unix://") {
        let (path, query) = rest.split_once('?')?;
        let socket = query.split('&').find_map(|q| q.strip_prefix("socket="))?;
        return Some((Server::Unix(decode(socket)?), decode(path.trim_start_matches('/'))?));
    }
    if let Some(rest) = name.strip_prefix("nbd://").or_else(|| name.strip_prefix("nbd+tcp://")) {
        let (place, export) = rest.split_once('/').unwrap_or((rest, ""));
        let (host, port) = place.rsplit_once(':').unwrap_or((place, "10809"));
        return Some((Server::Inet(host.trim_matches(['[', ']']).into(), port.into()), decode(export)?));
    }
    let rest = name.strip_prefix("nbd:")?;
    let (rest, export) = match rest.split_once(":exportname=") {
        Some((r, e)) => (r, e.to_owned()),
        None => (rest, String::new()),
    };
    if let Some(path) = rest.strip_prefix("unix:") {
        return Some((Server::Unix(path.into()), export));
    }
    let (host, port) = rest.rsplit_once(':')?;
    Some((Server::Inet(host.into(), port.into()), export))
}

/// Percent escapes.
fn decode(s: &str) -> Option<String> {
    let mut out = Vec::new();
    let b = s.as_bytes();
    let mut i = 0;
    while i < b.len() {
        if b[i] == b'%' {
            out.push(u8::from_str_radix(s.get(i + 1..i + 3)?, 16).ok()?);
            i += 3;
        } else {
            out.push(b[i]);
            i += 1;
        }
    }
    String::from_utf8(out).ok()
}

impl NbdDriver {
    pub(crate) fn filename(&self) -> String {
        match &self.server {
            Server::Unix(p) if self.export.is_empty() => format!("nbd+unix://?socket={p}"),
            Server::Unix(p) => format!("nbd+unix:///{}?socket={p}", self.export),
            Server::Inet(h, p) if self.export.is_empty() => format!("nbd://{h}:{p}"),
            Server::Inet(h, p) => format!("nbd://{h}:{p}/{}", self.export),
        }
    }

    fn again(&self) -> Option<Stream> {
        let end = Instant::now() + self.reconnect;
        loop {
            if let Ok(mut s) = connect(&self.server) {
                if let Ok(Ok((size, _))) = handshake(&mut s, &self.export) {
                    if size == self.size {
                        return Some(s);
                    }
                }
            }
            if Instant::now() >= end {
                return None;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// One request and its reply.
    fn call(
        &self,
        kind: u16,
        flags: u16,
        off: u64,
        len: u32,
        out: &[u8],
        into: Option<&mut [u8]>,
    ) -> IoResult {
        let mut link = self.link.lock();
        let mut into = into;
        for turn in 0..2 {
            if link.stream.is_none() && !self.reconnect.is_zero() {
                link.stream = self.again();
            }
            link.next += 1;
            let handle = link.next;
            let Some(s) = &mut link.stream else { return Err(Errno::EIO) };
            match exchange(s, kind, flags, handle, (off, len), out, into.as_deref_mut()) {
                Ok(0) => return Ok(()),
                Ok(code) => return Err(errno(code)),
                Err(_) => link.stream = None,
            }
            if turn == 0 && self.reconnect.is_zero() {
                break;
            }
        }
        Err(Errno::EIO)
    }

    fn pieces(&self, kind: u16, flags: u16, off: u64, len: u64) -> IoResult {
        let mut at = 0;
        while at < len {
            let n = (len - at).min(1 << 30) as u32;
            self.call(kind, flags, off + at, n, &[], None)?;
            at += u64::from(n);
        }
        Ok(())
    }
}

fn exchange(
    s: &mut Stream,
    kind: u16,
    flags: u16,
    handle: u64,
    (off, len): (u64, u32),
    out: &[u8],
    into: Option<&mut [u8]>,
) -> std::io::Result<u32> {
    let mut m = Vec::with_capacity(28 + out.len());
    m.extend(REQUEST.to_be_bytes());
    m.extend(flags.to_be_bytes());
    m.extend(kind.to_be_bytes());
    m.extend(handle.to_be_bytes());
    m.extend(off.to_be_bytes());
    m.extend(len.to_be_bytes());
    m.extend(out);
    s.write_all(&m)?;
    if get32(s)? != SIMPLE {
        return Err(broken("reply magic"));
    }
    let code = get32(s)?;
    if get64(s)? != handle {
        return Err(broken("reply to another request"));
    }
    if let (0, Some(buf)) = (code, into) {
        s.read_exact(buf)?;
    }
    Ok(code)
}

fn errno(code: u32) -> Errno {
    Errno(match code {
        1 => libc::EPERM,
        12 => libc::ENOMEM,
        22 => libc::EINVAL,
        28 => libc::ENOSPC,
        75 => libc::EOVERFLOW,
        95 => libc::ENOTSUP,
        108 => libc::ESHUTDOWN,
        _ => libc::EIO,
    })
}

impl Driver for NbdDriver {
    fn name(&self) -> &'static str {
        "nbd"
    }

    fn len(&self) -> u64 {
        self.size
    }

    fn readv(&self, off: u64, iov: Iov<'_>) -> IoResult {
        let len = iov::total(iov).ok_or(Errno::EINVAL)?;
        let mut buf = vec![0; len.min(MAX_TRANSFER as usize)];
        let mut at = 0;
        while at < len {
            let n = (len - at).min(buf.len());
            self.call(cmd::READ, 0, off + at as u64, n as u32, &[], Some(&mut buf[..n]))?;
            iov::scatter(iov, at, &buf[..n]);
            at += n;
        }
        Ok(())
    }

    fn writev(&self, off: u64, iov: Iov<'_>, fua: bool) -> IoResult {
        let len = iov::total(iov).ok_or(Errno::EINVAL)?;
        let has_fua = self.flags & flag::FUA != 0;
        let flags = if fua && has_fua { cmd::FLAG_FUA } else { 0 };
        let mut buf = vec![0; len.min(MAX_TRANSFER as usize)];
        let mut at = 0;
        while at < len {
            let n = (len - at).min(buf.len());
            iov::gather(iov, at, &mut buf[..n]);
            self.call(cmd::WRITE, flags, off + at as u64, n as u32, &buf[..n], None)?;
            at += n;
        }
        if fua && !has_fua {
            return self.flush();
        }
        Ok(())
    }

    fn flush(&self) -> IoResult {
        match self.flags & flag::FLUSH != 0 && self.flags & flag::READ_ONLY == 0 {
            true => self.call(cmd::FLUSH, 0, 0, 0, &[], None),
            false => Ok(()),
        }
    }

    fn discard(&self, off: u64, len: u64) -> IoResult {
        match self.flags & flag::TRIM != 0 {
            true => self.pieces(cmd::TRIM, 0, off, len),
            false => Ok(()),
        }
    }

    fn write_zeroes(&self, off: u64, len: u64, unmap: bool) -> IoResult {
        if self.flags & flag::WRITE_ZEROES != 0 {
            return self.pieces(cmd::WRITE_ZEROES, if unmap { 0 } else { cmd::FLAG_NO_HOLE }, off, len);
        }
        let zero = vec![0; len.min(1 << 20) as usize];
        let mut at = 0;
        while at < len {
            let n = (len - at).min(zero.len() as u64);
            self.writev(off + at, &[iov::own_ro(&zero[..n as usize])], false)?;
            at += n;
        }
        Ok(())
    }

    fn reopen(&self, read_only: bool) -> Result<()> {
        match !read_only && self.flags & flag::READ_ONLY != 0 {
            true => Err(BlockError::text("request on write denied without write permission")),
            false => Ok(()),
        }
    }

    fn try_inline(&self, op: Op, _off: u64, _iov: Iov<'_>) -> crate::driver::Inline {
        let _ = op;
        crate::driver::Inline::Punt
    }

    fn close(&self) -> IoResult {
        let mut link = self.link.lock();
        if let Some(mut s) = link.stream.take() {
            let mut m = Vec::new();
            m.extend(REQUEST.to_be_bytes());
            m.extend(0u16.to_be_bytes());
            m.extend(cmd::DISC.to_be_bytes());
            m.extend([0; 20]);
            // The server ends without an answer.
            let _ = s.write_all(&m);
            s.shutdown();
        }
        Ok(())
    }
}
