//! Sockets: TCP and UNIX, server and client, telnet, reconnect, inherited descriptors; UDP.

use std::any::Any;
use std::io;
use std::net::{TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};

use super::backend::{set_nonblocking, write_fd, Backend};
use super::telnet;
use crate::spec::{InetAddress, SocketAddress, SocketChardev};

enum Listener {
    Unix(UnixListener, Option<String>),
    Tcp(TcpListener),
    Fd(OwnedFd),
}

impl Listener {
    fn fd(&self) -> RawFd {
        match self {
            Self::Unix(l, _) => l.as_raw_fd(),
            Self::Tcp(l) => l.as_raw_fd(),
            Self::Fd(f) => f.as_raw_fd(),
        }
    }
}

/// A stream socket.
pub struct Socket {
    spec: SocketChardev,
    listener: Option<Listener>,
    conn: Option<OwnedFd>,
    telnet: Option<telnet::Filter>,
    /// `host:port` really bound.
    bound: Option<String>,
    peer: String,
    fds: Vec<OwnedFd>,
}

/// Numbers of an address as a range of what QEMU writes.
fn inet_text(a: &InetAddress) -> String {
    format!("{}:{}", a.host, a.port)
}

impl Socket {
    /// Binds (server) or connects (client). A server with `wait` blocks until a client is there.
    pub fn open(spec: &SocketChardev, label: &str, warn: &mut dyn FnMut(String)) -> io::Result<Self> {
        let mut s = Self {
            spec: spec.clone(),
            listener: None,
            conn: None,
            telnet: None,
            bound: None,
            peer: String::new(),
            fds: Vec::new(),
        };
        let server = spec.server.unwrap_or(true);
        if server {
            s.listen()?;
            // A telnet or plain server waits for its client unless told otherwise.
            if spec.wait.unwrap_or(true) && spec.reconnect.unwrap_or(0) == 0 {
                warn(format!("info: QEMU waiting for connection on: {}", s.filename()));
                if let Some(l) = &s.listener {
                    set_nonblocking(l.fd(), false)?;
                }
                s.accept()?;
            }
            if let Some(l) = &s.listener {
                set_nonblocking(l.fd(), true)?;
            }
        } else if spec.reconnect.unwrap_or(0) > 0 {
            if let Err(e) = s.connect() {
                warn(format!("Unable to connect character device {label}: {}", crate::error::strerror(&e)));
            }
        } else {
            s.connect()?;
        }
        Ok(s)
    }

    fn listen(&mut self) -> io::Result<()> {
        let l = match &self.spec.addr {
            SocketAddress::Unix { path, abstract_: Some(true), .. } => {
                use std::os::linux::net::SocketAddrExt;
                let a = std::os::unix::net::SocketAddr::from_abstract_name(path.as_bytes())?;
                Listener::Unix(UnixListener::bind_addr(&a)?, None)
            }
            SocketAddress::Unix { path, .. } => {
                // A socket left by an earlier run is in the way; anything else is not ours to remove.
                use std::os::unix::fs::FileTypeExt;
                if std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket()) {
                    std::fs::remove_file(path)?;
                }
                Listener::Unix(UnixListener::bind(path)?, Some(path.clone()))
            }
            SocketAddress::Inet(a) => {
                let l = bind_tcp(a)?;
                let at = l.local_addr()?;
                self.bound = Some(if at.is_ipv6() {
                    format!("[{}]:{}", at.ip(), at.port())
                } else {
                    format!("{}:{}", at.ip(), at.port())
                });
                Listener::Tcp(l)
            }
            SocketAddress::Fd { str } => Listener::Fd(inherited(str)?),
            SocketAddress::Vsock { .. } => return Err(io::Error::from_raw_os_error(libc::EAFNOSUPPORT)),
        };
        self.listener = Some(l);
        Ok(())
    }

    fn connect(&mut self) -> io::Result<()> {
        let fd: OwnedFd = match &self.spec.addr {
            SocketAddress::Unix { path, abstract_: Some(true), .. } => {
                use std::os::linux::net::SocketAddrExt;
                let a = std::os::unix::net::SocketAddr::from_abstract_name(path.as_bytes())?;
                UnixStream::connect_addr(&a)?.into()
            }
            SocketAddress::Unix { path, .. } => UnixStream::connect(path)?.into(),
            SocketAddress::Inet(a) => {
                let host = if a.host.is_empty() { "localhost" } else { &a.host };
                let port = a.port.parse::<u16>().map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
                let s = TcpStream::connect((host, port))?;
                let _ = s.set_nodelay(self.spec.nodelay.unwrap_or(true));
                s.into()
            }
            SocketAddress::Fd { str } => inherited(str)?,
            SocketAddress::Vsock { .. } => return Err(io::Error::from_raw_os_error(libc::EAFNOSUPPORT)),
        };
        self.connected(fd)
    }

    fn connected(&mut self, fd: OwnedFd) -> io::Result<()> {
        set_nonblocking(fd.as_raw_fd(), true)?;
        if self.spec.telnet == Some(true) {
            self.telnet = Some(telnet::Filter::default());
            if self.spec.server.unwrap_or(true) {
                // Twelve bytes into an empty socket buffer.
                let _ = write_fd(fd.as_raw_fd(), &telnet::GREETING);
            }
        }
        self.peer = peer_text(&fd);
        self.conn = Some(fd);
        Ok(())
    }

    /// `127.0.0.1:4444,server=on` and the like, without state.
    fn address_text(&self) -> String {
        let server = if self.spec.server.unwrap_or(true) { ",server=on" } else { "" };
        match &self.spec.addr {
            SocketAddress::Unix { path, .. } => format!("unix:{path}{server}"),
            SocketAddress::Inet(a) => {
                let proto = if self.spec.telnet == Some(true) { "telnet" } else { "tcp" };
                let at = self.bound.clone().unwrap_or_else(|| inet_text(a));
                format!("{proto}:{at}{server}")
            }
            SocketAddress::Fd { str } => match unix_name(self.listener.as_ref().map(Listener::fd)) {
                Some(path) => format!("unix:{path}{server}"),
                None => format!("fd:{str}{server}"),
            },
            SocketAddress::Vsock { cid, port } => format!("vsock:{cid}:{port}"),
        }
    }
}

fn bind_tcp(a: &InetAddress) -> io::Result<TcpListener> {
    let host = if a.host.is_empty() {
        if a.ipv4 == Some(true) {
            "0.0.0.0"
        } else {
            "::"
        }
    } else {
        &a.host
    };
    let first = a.port.parse::<u16>().map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let last = a.to.unwrap_or(first).max(first);
    let mut err = io::Error::from_raw_os_error(libc::EADDRINUSE);
    for port in first..=last {
        let addrs = match (host, port).to_socket_addrs() {
            Ok(a) => a,
            // No IPv6 on this host: fall back to IPv4.
            Err(_) if host == "::" => ("0.0.0.0", port).to_socket_addrs()?,
            Err(e) => return Err(e),
        };
        for addr in addrs {
            match TcpListener::bind(addr) {
                Ok(l) => return Ok(l),
                Err(e) if host == "::" && e.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
                    match TcpListener::bind(("0.0.0.0", port)) {
                        Ok(l) => return Ok(l),
                        Err(e) => err = e,
                    }
                }
                Err(e) => err = e,
            }
        }
    }
    Err(err)
}

fn inherited(text: &str) -> io::Result<OwnedFd> {
    let fd: RawFd = text.parse().map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
    // SAFETY: plain fcntl, which also tells whether the descriptor is open.
    if fd <= 2 || unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: the user hands this descriptor over to this device, which owns it from now on.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn unix_name(fd: Option<RawFd>) -> Option<String> {
    let fd = fd?;
    // SAFETY: the borrowed listener is forgotten again, so the descriptor stays with its owner.
    let l = std::mem::ManuallyDrop::new(unsafe { UnixListener::from_raw_fd(fd) });
    Some(l.local_addr().ok()?.as_pathname()?.to_string_lossy().into_owned())
}

fn peer_text(fd: &OwnedFd) -> String {
    // SAFETY: as in `unix_name`: borrowed, never dropped.
    let s = std::mem::ManuallyDrop::new(unsafe { TcpStream::from_raw_fd(fd.as_raw_fd()) });
    s.peer_addr().map(|a| a.to_string()).unwrap_or_default()
}

impl Socket {
    /// Ends the connection, whatever state it is in; the other side and the main loop see a hang-up.
    fn cut(&mut self) {
        if let Some(conn) = &self.conn {
            // SAFETY: plain shutdown of a descriptor that is open.
            unsafe { libc::shutdown(conn.as_raw_fd(), libc::SHUT_RDWR) };
        }
    }
}

impl crate::machine::Machine {
    /// Cuts the connection of a socket (`yank`).
    pub fn chr_yank(&mut self, label: &str) {
        if let Some(id) = self.chardevs.find(label) {
            self.chardevs.with_backend(id, Socket::cut);
        }
    }
}

impl Backend for Socket {
    fn kind(&self) -> &'static str {
        "socket"
    }

    fn filename(&self) -> String {
        match (&self.conn, self.peer.is_empty()) {
            (None, _) => format!("disconnected:{}", self.address_text()),
            (Some(_), true) => self.address_text(),
            (Some(_), false) => format!("{} <-> {}", self.address_text(), self.peer),
        }
    }

    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let Some(fd) = &self.conn else { return Ok(data.len()) };
        if self.telnet.is_none() || !data.contains(&255) {
            return send(fd.as_raw_fd(), data);
        }
        // 0xff is doubled in telnet; send up to and including the first one.
        let at = data.iter().position(|b| *b == 255).unwrap_or(0);
        if at > 0 {
            return send(fd.as_raw_fd(), &data[..at]);
        }
        send(fd.as_raw_fd(), &[255, 255]).map(|n| n / 2)
    }

    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let Some(fd) = self.conn.as_ref().map(AsRawFd::as_raw_fd) else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        loop {
            let n = recv(fd, buf, &mut self.fds)?;
            if n == 0 {
                return Ok(0);
            }
            let Some(t) = &mut self.telnet else { return Ok(n) };
            let (n, _brk) = t.filter(buf, n);
            if n > 0 {
                return Ok(n);
            }
        }
    }

    fn fd(&self) -> Option<RawFd> {
        self.conn.as_ref().map(AsRawFd::as_raw_fd)
    }

    fn listen_fd(&self) -> Option<RawFd> {
        self.listener.as_ref().map(Listener::fd)
    }

    fn accept(&mut self) -> io::Result<bool> {
        if self.conn.is_some() {
            return Ok(false);
        }
        let Some(l) = &self.listener else { return Ok(false) };
        // SAFETY: accepts without asking for the peer's address; the result is a new descriptor or -1.
        let fd =
            unsafe { libc::accept4(l.fd(), std::ptr::null_mut(), std::ptr::null_mut(), libc::SOCK_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just created, owned by nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        if let SocketAddress::Inet(_) = &self.spec.addr {
            // SAFETY: borrowed, never dropped.
            let s = std::mem::ManuallyDrop::new(unsafe { TcpStream::from_raw_fd(fd.as_raw_fd()) });
            let _ = s.set_nodelay(self.spec.nodelay.unwrap_or(true));
        }
        self.connected(fd)?;
        Ok(true)
    }

    fn disconnected(&mut self) -> Option<i64> {
        self.conn = None;
        self.telnet = None;
        self.fds.clear();
        let secs = self.spec.reconnect.filter(|r| *r > 0)?;
        Some(secs.saturating_mul(1_000_000_000))
    }

    fn reconnect(&mut self) -> io::Result<bool> {
        self.connect()?;
        Ok(true)
    }

    fn open_at_start(&self) -> bool {
        self.conn.is_some()
    }

    fn closes_on_eof(&self) -> bool {
        true
    }

    fn take_fd(&mut self) -> Option<OwnedFd> {
        if self.fds.is_empty() {
            None
        } else {
            Some(self.fds.remove(0))
        }
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Some(Listener::Unix(_, Some(path))) = &self.listener {
            // Somebody may have removed it already.
            let _ = std::fs::remove_file(path);
        }
    }
}

fn send(fd: RawFd, data: &[u8]) -> io::Result<usize> {
    // SAFETY: the buffer is valid for its length.
    let n = unsafe { libc::send(fd, data.as_ptr().cast(), data.len(), libc::MSG_NOSIGNAL) };
    if n < 0 {
        let e = io::Error::last_os_error();
        if e.raw_os_error() == Some(libc::ENOTSOCK) {
            return write_fd(fd, data);
        }
        return Err(e);
    }
    Ok(n as usize)
}

/// Receives data and, on UNIX sockets, descriptors.
fn recv(fd: RawFd, buf: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<usize> {
    const MAX_FDS: usize = 16;
    let mut iov = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
    let mut control = [0u64; 16];
    // SAFETY: an all-zero msghdr is valid; its pointers are set to live buffers with their true lengths below.
    let mut msg: libc::msghdr = unsafe { std::mem::zeroed() };
    msg.msg_iov = &mut iov;
    msg.msg_iovlen = 1;
    msg.msg_control = control.as_mut_ptr().cast();
    msg.msg_controllen = size_of_val(&control);
    // SAFETY: see above.
    let n = unsafe { libc::recvmsg(fd, &mut msg, libc::MSG_CMSG_CLOEXEC | libc::MSG_DONTWAIT) };
    if n < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel filled the control buffer; the CMSG functions stay within `msg_controllen`, and each descriptor
    // in an SCM_RIGHTS message is new and ours.
    unsafe {
        let mut c = libc::CMSG_FIRSTHDR(&msg);
        while !c.is_null() {
            if (*c).cmsg_level == libc::SOL_SOCKET && (*c).cmsg_type == libc::SCM_RIGHTS {
                let count = ((*c).cmsg_len - libc::CMSG_LEN(0) as usize) / size_of::<RawFd>();
                let data = libc::CMSG_DATA(c).cast::<RawFd>();
                for i in 0..count {
                    let owned = OwnedFd::from_raw_fd(std::ptr::read_unaligned(data.add(i)));
                    if fds.len() < MAX_FDS {
                        fds.push(owned);
                    }
                }
            }
            c = libc::CMSG_NXTHDR(&msg, c);
        }
    }
    Ok(n as usize)
}

/// Datagrams.
pub struct Udp {
    socket: UdpSocket,
    remote: String,
}

impl Udp {
    /// Bound to `local`, sends to `remote`.
    pub fn open(remote: &InetAddress, local: Option<&InetAddress>) -> io::Result<Self> {
        let host = |h: &str, d: &'static str| if h.is_empty() { d.to_string() } else { h.to_string() };
        let num = |p: &str| {
            if p.is_empty() {
                Ok(0)
            } else {
                p.parse::<u16>().map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
            }
        };
        let (lh, lp) = match local {
            Some(l) => (host(&l.host, "0.0.0.0"), num(&l.port)?),
            None => ("0.0.0.0".to_string(), 0),
        };
        let socket = UdpSocket::bind((lh.as_str(), lp))?;
        let rh = host(&remote.host, "localhost");
        let rp = num(&remote.port)?;
        let to = (rh.as_str(), rp).to_socket_addrs()?.find(std::net::SocketAddr::is_ipv4);
        socket.connect(to.ok_or_else(|| io::Error::from_raw_os_error(libc::EADDRNOTAVAIL))?)?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, remote: format!("{rh}:{rp}") })
    }
}

impl Backend for Udp {
    fn kind(&self) -> &'static str {
        "udp"
    }
    fn filename(&self) -> String {
        format!("udp:{}", self.remote)
    }
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.socket.send(data)
    }
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self.socket.recv(buf) {
            Ok(0) => Err(io::ErrorKind::WouldBlock.into()),
            r => r,
        }
    }
    fn fd(&self) -> Option<RawFd> {
        Some(self.socket.as_raw_fd())
    }
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}
