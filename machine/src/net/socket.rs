//! Socket back ends: frames over a TCP connection (each with its length in front), or one a datagram over UDP.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use super::create::inherited;
use super::{NetBackend, Received};
use crate::error::strerror;
use crate::{qerr, QResult};

/// Largest frame that a stream may announce.
const MAX_STREAM_FRAME: usize = 69 * 1024;

/// Splits `host:port` and resolves it (IPv4; an empty host is any address).
fn resolve(text: &str) -> QResult<SocketAddrV4> {
    let (host, port) = text
        .split_once(':')
        .ok_or_else(|| qerr!("host address '{text}' doesn't contain ':' separating host from port"))?;
    let port = port.parse::<i64>().map_err(|_| qerr!("port number '{port}' is invalid"))? as u16;
    if host.is_empty() {
        return Ok(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port));
    }
    let all = (host, port).to_socket_addrs().ok();
    let v4 = all.into_iter().flatten().find_map(|a| match a {
        std::net::SocketAddr::V4(a) => Some(a),
        std::net::SocketAddr::V6(_) => None,
    });
    v4.ok_or_else(|| qerr!("can't resolve host address '{host}'"))
}

/// A new IPv4 socket.
fn socket(kind: i32) -> QResult<OwnedFd> {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: creates a descriptor.
    let fd = unsafe { libc::socket(libc::AF_INET, kind | flags, 0) };
    if fd < 0 {
        return Err(qerr!("can't create socket: {}", strerror(&io::Error::last_os_error())));
    }
    // SAFETY: the descriptor is new and ours.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn reuse_address(fd: &OwnedFd) -> QResult<()> {
    let on = 1i32;
    // SAFETY: `on` is a valid option value of the given size.
    let r = unsafe {
        libc::setsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_REUSEADDR, (&raw const on).cast(), 4)
    };
    if r < 0 {
        let e = strerror(&io::Error::last_os_error());
        return Err(qerr!("can't set socket option SO_REUSEADDR: {e}"));
    }
    Ok(())
}

fn sockaddr(a: SocketAddrV4) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: a.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(*a.ip()).to_be() },
        sin_zero: [0; 8],
    }
}

fn call(
    fd: &OwnedFd,
    a: SocketAddrV4,
    f: unsafe extern "C" fn(i32, *const libc::sockaddr, u32) -> i32,
) -> io::Result<()> {
    let sa = sockaddr(a);
    // SAFETY: `f` is bind or connect; the address is valid and has the given size.
    match unsafe { f(fd.as_raw_fd(), (&raw const sa).cast(), size_of_val(&sa) as u32) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn bind(fd: &OwnedFd, a: SocketAddrV4) -> QResult<()> {
    call(fd, a, libc::bind).map_err(|e| qerr!("can't bind ip={} to socket: {}", a.ip(), strerror(&e)))
}

/// Frames over TCP.
pub(super) struct Stream {
    listener: Option<TcpListener>,
    conn: Option<TcpStream>,
    info: String,
    /// Bytes that came in, from `start` on.
    input: Vec<u8>,
    start: usize,
    /// The rest of a frame that did not fit.
    output: Vec<u8>,
}

impl Stream {
    fn new(listener: Option<TcpListener>, conn: Option<TcpStream>, info: String) -> Self {
        Self { listener, conn, info, input: Vec::new(), start: 0, output: Vec::new() }
    }

    /// Waits for a peer.
    pub fn listen(addr: &str) -> QResult<Self> {
        let a = resolve(addr)?;
        let fd = socket(libc::SOCK_STREAM)?;
        reuse_address(&fd)?;
        bind(&fd, a)?;
        // SAFETY: plain listen on our socket.
        if unsafe { libc::listen(fd.as_raw_fd(), 0) } < 0 {
            return Err(qerr!("can't listen on socket: {}", strerror(&io::Error::last_os_error())));
        }
        Ok(Self::new(Some(TcpListener::from(fd)), None, String::new()))
    }

    /// Connects to a peer; a peer that is not there only shows later.
    pub fn connect(addr: &str) -> QResult<Self> {
        let a = resolve(addr)?;
        let fd = socket(libc::SOCK_STREAM)?;
        let quiet = [libc::EINPROGRESS, libc::EINTR, libc::ECONNREFUSED];
        match call(&fd, a, libc::connect) {
            Err(e) if !e.raw_os_error().is_some_and(|n| quiet.contains(&n)) => {
                return Err(qerr!("can't connect socket: {}", strerror(&e)))
            }
            _ => {}
        }
        let info = format!("socket: connect to {}:{}", a.ip(), a.port());
        let conn = TcpStream::from(fd);
        let _ = conn.set_nodelay(true);
        Ok(Self::new(None, Some(conn), info))
    }

    /// A whole frame at the front of the input.
    fn frame(&mut self, buf: &mut [u8]) -> Option<Received> {
        let have = self.input.get(self.start..)?;
        let len = u32::from_be_bytes(have.get(..4)?.try_into().ok()?) as usize;
        if len > MAX_STREAM_FRAME.min(buf.len()) {
            return Some(Received::Closed);
        }
        let data = have.get(4..4 + len)?;
        buf.get_mut(..len)?.copy_from_slice(data);
        self.start += 4 + len;
        Some(Received::Frame(len))
    }

    fn push_output(&mut self) -> bool {
        let Some(conn) = &mut self.conn else {
            self.output.clear();
            return true;
        };
        while !self.output.is_empty() {
            match conn.write(&self.output) {
                Ok(n) => drop(self.output.drain(..n)),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected) => {
                    return false
                }
                // The reader notices that the connection is gone.
                Err(_) => self.output.clear(),
            }
        }
        true
    }
}

impl NetBackend for Stream {
    fn kind(&self) -> &'static str {
        "socket"
    }
    fn info(&self) -> String {
        self.info.clone()
    }
    fn fd(&self) -> Option<RawFd> {
        self.conn.as_ref().map(AsRawFd::as_raw_fd)
    }
    fn listen_fd(&self) -> Option<RawFd> {
        match self.conn {
            None => self.listener.as_ref().map(AsRawFd::as_raw_fd),
            Some(_) => None,
        }
    }
    fn accept(&mut self) -> bool {
        let Some(Ok((conn, from))) = self.listener.as_ref().map(TcpListener::accept) else { return false };
        if conn.set_nonblocking(true).is_err() {
            return false;
        }
        let _ = conn.set_nodelay(true);
        self.info = format!("socket: connection from {}:{}", from.ip(), from.port());
        self.conn = Some(conn);
        true
    }
    fn read(&mut self, buf: &mut [u8]) -> Received {
        loop {
            if let Some(r) = self.frame(buf) {
                return r;
            }
            self.input.drain(..self.start);
            self.start = 0;
            let Some(conn) = &mut self.conn else { return Received::Nothing };
            let have = self.input.len();
            self.input.resize(have + 16384, 0);
            let r = conn.read(&mut self.input[have..]);
            self.input.truncate(have + r.as_ref().map_or(0, |n| *n));
            match r {
                Ok(0) => return Received::Closed,
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected) => {
                    return Received::Nothing
                }
                Err(_) => return Received::Closed,
            }
        }
    }
    fn write(&mut self, frame: &[u8]) -> bool {
        if self.conn.is_none() {
            return true;
        }
        if !self.output.is_empty() && !self.push_output() {
            return false;
        }
        self.output.extend((frame.len() as u32).to_be_bytes());
        self.output.extend(frame);
        // What does not fit goes out before the next frame.
        self.push_output();
        true
    }
    fn writable(&mut self) -> bool {
        self.push_output()
    }
    fn disconnect(&mut self) {
        self.conn = None;
        self.info.clear();
        self.input.clear();
        self.start = 0;
        self.output.clear();
    }
}

/// Frames as datagrams.
pub(super) struct Datagram {
    sock: UdpSocket,
    /// Where frames go; `None`: the socket is connected.
    to: Option<SocketAddrV4>,
    info: String,
}

impl Datagram {
    /// A multicast group: everybody in it hears everybody else.
    pub fn multicast(addr: &str, local: Option<&str>) -> QResult<Self> {
        let a = resolve(addr)?;
        if !a.ip().is_multicast() {
            return Err(qerr!(
                "specified mcastaddr {} (0x{:08x}) does not contain a multicast address",
                a.ip(),
                u32::from(*a.ip())
            ));
        }
        let local = match local {
            Some(l) => {
                l.parse::<Ipv4Addr>().map_err(|_| qerr!("localaddr '{l}' is not a valid IPv4 address"))?
            }
            None => Ipv4Addr::UNSPECIFIED,
        };
        let fd = socket(libc::SOCK_DGRAM)?;
        reuse_address(&fd)?;
        bind(&fd, a)?;
        let sock = UdpSocket::from(fd);
        sock.join_multicast_v4(a.ip(), &local)
            .map_err(|e| qerr!("can't add socket to multicast group {}: {}", a.ip(), strerror(&e)))?;
        sock.set_multicast_loop_v4(true)
            .map_err(|e| qerr!("can't force multicast message to loopback: {}", strerror(&e)))?;
        if !local.is_unspecified() {
            let addr = libc::in_addr { s_addr: u32::from(local).to_be() };
            // SAFETY: `addr` is a valid option value of the given size.
            let r = unsafe {
                libc::setsockopt(
                    sock.as_raw_fd(),
                    libc::IPPROTO_IP,
                    libc::IP_MULTICAST_IF,
                    (&raw const addr).cast(),
                    size_of_val(&addr) as u32,
                )
            };
            if r < 0 {
                let e = strerror(&io::Error::last_os_error());
                return Err(qerr!("can't set the default network send interface: {e}"));
            }
        }
        let info = format!("socket: mcast={}:{}", a.ip(), a.port());
        Ok(Self { sock, to: Some(a), info })
    }

    /// One peer.
    pub fn unicast(remote: &str, local: &str) -> QResult<Self> {
        let l = resolve(local)?;
        let r = resolve(remote)?;
        let fd = socket(libc::SOCK_DGRAM)?;
        reuse_address(&fd)?;
        bind(&fd, l)?;
        let info = format!("socket: udp={}:{}", r.ip(), r.port());
        Ok(Self { sock: UdpSocket::from(fd), to: Some(r), info })
    }
}

impl NetBackend for Datagram {
    fn kind(&self) -> &'static str {
        "socket"
    }
    fn info(&self) -> String {
        self.info.clone()
    }
    fn fd(&self) -> Option<RawFd> {
        Some(self.sock.as_raw_fd())
    }
    fn read(&mut self, buf: &mut [u8]) -> Received {
        loop {
            match self.sock.recv(buf) {
                Ok(0) => {}
                Ok(n) => return Received::Frame(n),
                // A peer that is not there yet, or a signal.
                Err(e)
                    if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionRefused) => {}
                Err(_) => return Received::Nothing,
            }
        }
    }
    fn write(&mut self, frame: &[u8]) -> bool {
        let r = match self.to {
            Some(to) => self.sock.send_to(frame, to),
            None => self.sock.send(frame),
        };
        !matches!(r, Err(e) if e.kind() == io::ErrorKind::WouldBlock)
    }
}

/// A socket that was passed to this program.
pub(super) fn from_fd(id: &str, text: &str) -> QResult<Box<dyn NetBackend>> {
    let fd = inherited(id, text)?;
    let mut kind = 0i32;
    let mut len = 4u32;
    // SAFETY: the option value fits into `kind`.
    let r = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_TYPE,
            (&raw mut kind).cast(),
            &raw mut len,
        )
    };
    if r < 0 {
        // The descriptor stays the user's.
        std::mem::forget(fd);
        return Err(qerr!("can't get socket option SO_TYPE"));
    }
    let info = format!("fd={text}");
    Ok(match kind {
        libc::SOCK_STREAM => Box::new(Stream::new(None, Some(TcpStream::from(fd)), info)),
        _ => Box::new(Datagram { sock: UdpSocket::from(fd), to: None, info }),
    })
}
