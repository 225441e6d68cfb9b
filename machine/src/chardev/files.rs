//! Back ends on plain descriptors: null, stdio, file, pipe, pty, ringbuf.

use std::any::Any;
use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

use super::backend::{read_fd, set_nonblocking, write_fd, Backend};
use crate::fdsets::FdSets;

/// Throws output away.
pub struct Null;

impl Backend for Null {
    fn kind(&self) -> &'static str {
        "null"
    }
    fn filename(&self) -> String {
        "null".into()
    }
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        Ok(data.len())
    }
    fn read(&mut self, _buf: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }
    fn fd(&self) -> Option<RawFd> {
        None
    }
    fn open_at_start(&self) -> bool {
        false
    }
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

/// A virtual console without a display: output is dropped.
pub struct Vc;

impl Backend for Vc {
    fn kind(&self) -> &'static str {
        "vc"
    }
    fn filename(&self) -> String {
        "vc".into()
    }
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        Ok(data.len())
    }
    fn read(&mut self, _buf: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }
    fn fd(&self) -> Option<RawFd> {
        None
    }
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

/// Keeps the last bytes in memory (`ringbuf-read`).
pub struct Ringbuf {
    data: VecDeque<u8>,
    size: usize,
}

impl Ringbuf {
    /// `size` must be a power of two.
    pub fn new(size: usize) -> Self {
        Self { data: VecDeque::new(), size }
    }

    /// Takes up to `n` bytes out.
    pub fn take(&mut self, n: usize) -> Vec<u8> {
        let n = n.min(self.data.len());
        self.data.drain(..n).collect()
    }
}

impl Backend for Ringbuf {
    fn kind(&self) -> &'static str {
        "ringbuf"
    }
    fn filename(&self) -> String {
        "ringbuf".into()
    }
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        for b in data {
            if self.data.len() == self.size {
                self.data.pop_front();
            }
            self.data.push_back(*b);
        }
        Ok(data.len())
    }
    fn read(&mut self, _buf: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }
    fn fd(&self) -> Option<RawFd> {
        None
    }
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

/// A pair of descriptors, possibly the same one.
pub struct FdPair {
    kind: &'static str,
    filename: String,
    input: Option<OwnedFd>,
    output: OwnedFd,
    /// Terminal settings to put back, and the original file flags of both descriptors.
    saved: Option<(RawFd, Box<libc::termios>)>,
    flags: Vec<(RawFd, i32)>,
}

impl FdPair {
    /// Standard input and output. `signal` keeps Ctrl-C and friends working as signals.
    pub fn stdio(signal: bool) -> io::Result<Self> {
        let input = dup(0)?;
        let output = dup(1)?;
        let mut s = Self {
            kind: "stdio",
            filename: "stdio".into(),
            input: Some(input),
            output,
            saved: None,
            flags: Vec::new(),
        };
        for fd in [0, 1] {
            // SAFETY: plain fcntl.
            let old = unsafe { libc::fcntl(fd, libc::F_GETFL) };
            if old >= 0 {
                s.flags.push((fd, old));
            }
        }
        set_nonblocking(0, true)?;
        s.raw_terminal(0, signal);
        Ok(s)
    }

    /// A file for output (created; truncated unless `append`), with an optional one for input.
    pub fn file(sets: &FdSets, out: &str, input: Option<&str>, append: bool) -> io::Result<Self> {
        let how = if append { libc::O_APPEND } else { libc::O_TRUNC };
        let output = sets.open_path(out, libc::O_WRONLY | libc::O_CREAT | how)?;
        let input = input.map(|p| sets.open_path(p, libc::O_RDONLY)).transpose()?;
        Ok(Self { kind: "file", filename: "file".into(), input, output, saved: None, flags: Vec::new() })
    }

    /// `path.in` and `path.out`, or `path` itself for both directions.
    pub fn pipe(path: &str) -> io::Result<Self> {
        let open = |p: &str| OpenOptions::new().read(true).write(true).open(p);
        let (input, output) = match (open(&format!("{path}.in")), open(&format!("{path}.out"))) {
            (Ok(i), Ok(o)) => (i, o),
            _ => {
                let f = open(path)?;
                (f.try_clone()?, f)
            }
        };
        set_nonblocking(input.as_raw_fd(), true)?;
        set_nonblocking(output.as_raw_fd(), true)?;
        Ok(Self {
            kind: "pipe",
            filename: "pipe".into(),
            input: Some(input.into()),
            output: output.into(),
            saved: None,
            flags: Vec::new(),
        })
    }

    /// A serial line of the host: raw, 115200 baud, 8 data bits, no parity, 1 stop bit. Other devices go as well, as
    /// they are.
    pub fn serial(path: &str) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path)?;
        // SAFETY: an all-zero termios is valid for tcgetattr to fill; the descriptor is open.
        unsafe {
            let mut t: libc::termios = std::mem::zeroed();
            if libc::tcgetattr(file.as_raw_fd(), &mut t) == 0 {
                libc::cfmakeraw(&mut t);
                t.c_cflag |= libc::CLOCAL | libc::CREAD;
                t.c_cflag &= !libc::CSTOPB;
                libc::cfsetspeed(&mut t, libc::B115200);
                libc::tcsetattr(file.as_raw_fd(), libc::TCSANOW, &t);
            }
        }
        Ok(Self {
            kind: "serial",
            filename: "serial".into(),
            input: Some(file.try_clone()?.into()),
            output: file.into(),
            saved: None,
            flags: Vec::new(),
        })
    }

    fn raw_terminal(&mut self, fd: RawFd, signal: bool) {
        // SAFETY: an all-zero termios is valid for tcgetattr to fill; `fd` is open.
        unsafe {
            let mut t: libc::termios = std::mem::zeroed();
            if libc::tcgetattr(fd, &mut t) != 0 {
                return;
            }
            self.saved = Some((fd, Box::new(t)));
            t.c_iflag &= !(libc::IGNBRK
                | libc::BRKINT
                | libc::PARMRK
                | libc::ISTRIP
                | libc::INLCR
                | libc::IGNCR
                | libc::ICRNL
                | libc::IXON);
            t.c_oflag |= libc::OPOST;
            t.c_lflag &= !(libc::ECHO | libc::ECHONL | libc::ICANON | libc::IEXTEN);
            if !signal {
                t.c_lflag &= !libc::ISIG;
            }
            t.c_cflag &= !(libc::CSIZE | libc::PARENB);
            t.c_cflag |= libc::CS8;
            t.c_cc[libc::VMIN] = 1;
            t.c_cc[libc::VTIME] = 0;
            libc::tcsetattr(fd, libc::TCSANOW, &t);
        }
    }
}

fn dup(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: plain fcntl; the result is a new descriptor or -1.
    let new = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) };
    if new < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just created, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(new) })
}

impl Backend for FdPair {
    fn kind(&self) -> &'static str {
        self.kind
    }
    fn filename(&self) -> String {
        self.filename.clone()
    }
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        write_fd(self.output.as_raw_fd(), data)
    }
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match &self.input {
            Some(f) => read_fd(f.as_raw_fd(), buf),
            None => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
    fn fd(&self) -> Option<RawFd> {
        self.input.as_ref().map(AsRawFd::as_raw_fd)
    }
    fn restore(&mut self) {
        if let Some((fd, t)) = self.saved.take() {
            // SAFETY: the settings came from this terminal.
            unsafe { libc::tcsetattr(fd, libc::TCSANOW, &*t) };
        }
        for (fd, flags) in self.flags.drain(..) {
            // SAFETY: plain fcntl.
            unsafe { libc::fcntl(fd, libc::F_SETFL, flags) };
        }
    }
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

impl Drop for FdPair {
    fn drop(&mut self) {
        self.restore();
    }
}

/// A pseudo-terminal.
pub struct Pty {
    master: OwnedFd,
    /// Path of the other side.
    pub path: String,
    /// Whether somebody has the other side open, as far as we know.
    open: bool,
}

impl Pty {
    /// Opens a new pair; the other side is in raw mode.
    pub fn new() -> io::Result<Self> {
        let (mut master, mut slave) = (-1, -1);
        let mut name = [0u8; 128];
        // SAFETY: all pointers are valid; `name` is longer than any pty name on Linux.
        let r = unsafe {
            libc::openpty(
                &mut master,
                &mut slave,
                name.as_mut_ptr().cast(),
                std::ptr::null(),
                std::ptr::null(),
            )
        };
        if r < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: openpty succeeded, both descriptors are new; the termios calls get a valid structure.
        let master = unsafe {
            let mut t: libc::termios = std::mem::zeroed();
            if libc::tcgetattr(slave, &mut t) == 0 {
                libc::cfmakeraw(&mut t);
                libc::tcsetattr(slave, libc::TCSAFLUSH, &t);
            }
            libc::close(slave);
            libc::fcntl(master, libc::F_SETFD, libc::FD_CLOEXEC);
            OwnedFd::from_raw_fd(master)
        };
        set_nonblocking(master.as_raw_fd(), true)?;
        let end = name.iter().position(|b| *b == 0).unwrap_or(0);
        let path = String::from_utf8_lossy(&name[..end]).into_owned();
        Ok(Self { master, path, open: false })
    }
}

impl Backend for Pty {
    fn kind(&self) -> &'static str {
        "pty"
    }
    fn filename(&self) -> String {
        format!("pty:{}", self.path)
    }
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match write_fd(self.master.as_raw_fd(), data) {
            // Nobody reads: like a line with nobody at the other end.
            Err(e) if e.kind() == io::ErrorKind::WouldBlock && !self.open => Ok(data.len()),
            Err(e) if e.raw_os_error() == Some(libc::EIO) => Ok(data.len()),
            r => r,
        }
    }
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match read_fd(self.master.as_raw_fd(), buf) {
            // The other side is closed; it may be opened again.
            Err(e) if e.raw_os_error() == Some(libc::EIO) => {
                self.open = false;
                Err(io::ErrorKind::WouldBlock.into())
            }
            Ok(n) => {
                self.open = true;
                Ok(n)
            }
            e => e,
        }
    }
    fn fd(&self) -> Option<RawFd> {
        Some(self.master.as_raw_fd())
    }
    fn open_at_start(&self) -> bool {
        false
    }
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

/// A back end of unit tests: keeps what was written, takes as much as `room` says.
#[cfg(test)]
pub struct TestChar {
    /// What was written.
    pub out: Vec<u8>,
    /// How many more bytes it takes.
    pub room: usize,
}

#[cfg(test)]
impl Backend for TestChar {
    fn kind(&self) -> &'static str {
        "test"
    }
    fn filename(&self) -> String {
        "test".into()
    }
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let n = data.len().min(self.room);
        self.room -= n;
        self.out.extend_from_slice(&data[..n]);
        Ok(n)
    }
    fn read(&mut self, _buf: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }
    fn fd(&self) -> Option<RawFd> {
        None
    }
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}
