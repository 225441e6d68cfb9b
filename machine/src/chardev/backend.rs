//! What a back end can do.

use std::io;
use std::os::fd::RawFd;

/// A back end. Reads and writes do not block: they return `WouldBlock`.
pub trait Backend: Send {
    /// Kind (`socket`, `file`, ...), for messages and introspection.
    fn kind(&self) -> &'static str;
    /// Description as `query-chardev` shows it.
    fn filename(&self) -> String;
    /// Writes some bytes.
    fn write(&mut self, data: &[u8]) -> io::Result<usize>;
    /// Reads some bytes; `Ok(0)` is the end of input.
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize>;
    /// Descriptor to watch for input (and output space), if it is connected.
    fn fd(&self) -> Option<RawFd>;
    /// Descriptor on which connections arrive.
    fn listen_fd(&self) -> Option<RawFd> {
        None
    }
    /// Takes a connection that arrived. `true` if the device is connected now.
    fn accept(&mut self) -> io::Result<bool> {
        Ok(false)
    }
    /// The connection is gone; returns nanoseconds after which to try again, if it reconnects by itself.
    fn disconnected(&mut self) -> Option<i64> {
        None
    }
    /// Tries to connect again. `true` if connected now.
    fn reconnect(&mut self) -> io::Result<bool> {
        Ok(false)
    }
    /// Whether front ends see it as open right after creation.
    fn open_at_start(&self) -> bool {
        true
    }
    /// Whether end of input means that the device is closed (sockets) or only that nothing comes any more.
    fn closes_on_eof(&self) -> bool {
        false
    }
    /// Takes a descriptor that arrived with the data (`getfd`).
    fn take_fd(&mut self) -> Option<std::os::fd::OwnedFd> {
        None
    }
    /// Puts the terminal (or whatever it changed) back.
    fn restore(&mut self) {}
    /// For code that knows the kind.
    fn as_any(&mut self) -> &mut dyn std::any::Any;
}

/// Sets `O_NONBLOCK`.
pub fn set_nonblocking(fd: RawFd, on: bool) -> io::Result<()> {
    // SAFETY: plain fcntl calls on a descriptor; no memory is passed.
    unsafe {
        let flags = libc::fcntl(fd, libc::F_GETFL);
        if flags < 0 {
            return Err(io::Error::last_os_error());
        }
        let flags = if on { flags | libc::O_NONBLOCK } else { flags & !libc::O_NONBLOCK };
        if libc::fcntl(fd, libc::F_SETFL, flags) < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// `read(2)`.
pub fn read_fd(fd: RawFd, buf: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the buffer is valid for its length.
    let n = unsafe { libc::read(fd, buf.as_mut_ptr().cast(), buf.len()) };
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}

/// `write(2)`.
pub fn write_fd(fd: RawFd, data: &[u8]) -> io::Result<usize> {
    // SAFETY: the buffer is valid for its length.
    let n = unsafe { libc::write(fd, data.as_ptr().cast(), data.len()) };
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}
