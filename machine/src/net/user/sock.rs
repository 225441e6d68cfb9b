//! System calls on host sockets that the standard library lacks. All sockets are non-blocking.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// A host socket address in the kernel's form.
union RawAddr {
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

fn raw(a: SocketAddr) -> (RawAddr, u32) {
    match a {
        SocketAddr::V4(a) => {
            let v4 = libc::sockaddr_in {
                sin_family: libc::AF_INET as u16,
                sin_port: a.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(a.ip().octets()) },
                sin_zero: [0; 8],
            };
            (RawAddr { v4 }, size_of::<libc::sockaddr_in>() as u32)
        }
        SocketAddr::V6(a) => {
            let v6 = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as u16,
                sin6_port: a.port().to_be(),
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr { s6_addr: a.ip().octets() },
                sin6_scope_id: a.scope_id(),
            };
            (RawAddr { v6 }, size_of::<libc::sockaddr_in6>() as u32)
        }
    }
}

/// A new socket of a kind (`SOCK_STREAM` …) and protocol (0: the usual one).
pub(super) fn new(v6: bool, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    let family = if v6 { libc::AF_INET6 } else { libc::AF_INET };
    // SAFETY: creates a descriptor.
    let fd = unsafe { libc::socket(family, kind | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, protocol) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and ours.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Starts to connect; `true`: it is connected already.
pub(super) fn connect(fd: &impl AsRawFd, to: SocketAddr) -> io::Result<bool> {
    let (addr, len) = raw(to);
    // SAFETY: the address is valid and has the given size.
    match unsafe { libc::connect(fd.as_raw_fd(), (&raw const addr).cast(), len) } {
        0 => Ok(true),
        _ => match io::Error::last_os_error() {
            e if e.raw_os_error() == Some(libc::EINPROGRESS) => Ok(false),
            e => Err(e),
        },
    }
}

/// Binds to an address.
pub(super) fn bind(fd: &impl AsRawFd, to: SocketAddr) -> io::Result<()> {
    let (addr, len) = raw(to);
    // SAFETY: the address is valid and has the given size.
    match unsafe { libc::bind(fd.as_raw_fd(), (&raw const addr).cast(), len) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether an error is pending on a socket (takes it).
pub(super) fn failed(fd: &impl AsRawFd) -> bool {
    let (mut error, mut len) = (0i32, 4u32);
    let (fd, value) = (fd.as_raw_fd(), (&raw mut error).cast());
    // SAFETY: the option value fits into `error`.
    let r = unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_ERROR, value, &raw mut len) };
    r != 0 || error != 0
}

/// Lets connections arrive.
pub(super) fn listen(fd: &impl AsRawFd, backlog: i32) -> io::Result<()> {
    // SAFETY: plain listen on an open socket.
    match unsafe { libc::listen(fd.as_raw_fd(), backlog) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn set<T>(fd: &impl AsRawFd, level: i32, name: i32, value: &T) -> bool {
    let len = size_of::<T>() as u32;
    // SAFETY: `value` is a valid option value of the given size.
    unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, std::ptr::from_ref(value).cast(), len) == 0 }
}

/// Lets an address be bound while old connections to it linger.
pub(super) fn reuse_address(fd: &impl AsRawFd) -> bool {
    set(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, &1i32)
}

/// Errors that the network reports are kept for [`take_error`].
pub(super) fn report_errors(fd: &impl AsRawFd, v6: bool) -> bool {
    match v6 {
        false => set(fd, libc::IPPROTO_IP, libc::IP_RECVERR, &1i32),
        true => set(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVERR, &1i32),
    }
}

/// The other end gets a reset when the socket is closed.
pub(super) fn reset_on_close(fd: &impl AsRawFd) {
    let hard = libc::linger { l_onoff: 1, l_linger: 0 };
    set(fd, libc::SOL_SOCKET, libc::SO_LINGER, &hard);
}

/// Only echo replies come in on a raw ICMP socket.
pub(super) fn only_echo_replies(fd: &impl AsRawFd) -> bool {
    const ICMP_FILTER: i32 = 1;
    const SOL_RAW: i32 = 255;
    set(fd, SOL_RAW, ICMP_FILTER, &!1u32)
}

/// Where the next peek reads, counted from the first byte that was not taken; `false`: this kernel cannot.
pub(super) fn set_peek_offset(fd: &impl AsRawFd, offset: u32) -> bool {
    let offset = i32::try_from(offset).unwrap_or(i32::MAX);
    set(fd, libc::SOL_SOCKET, libc::SO_PEEK_OFF, &offset)
}

fn count(n: isize) -> io::Result<usize> {
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}

/// Reads without taking.
pub(super) fn peek(fd: &impl AsRawFd, buf: &mut [u8]) -> io::Result<usize> {
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
    // SAFETY: writes at most `buf.len()` bytes into `buf`.
    count(unsafe { libc::recv(fd.as_raw_fd(), buf.as_mut_ptr().cast(), buf.len(), flags) })
}

/// Reads without taking what lies behind the first `skip.len()` bytes, which go to `skip`; the number of bytes in `buf`.
/// For kernels without [`set_peek_offset`].
pub(super) fn peek_behind(fd: &impl AsRawFd, skip: &mut [u8], buf: &mut [u8]) -> io::Result<usize> {
    let mut iov = [
        libc::iovec { iov_base: skip.as_mut_ptr().cast(), iov_len: skip.len() },
        libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() },
    ];
    // SAFETY: an all-zero msghdr is valid.
    let mut msg: libc::msghdr = unsafe { std::mem::zeroed() };
    msg.msg_iov = iov.as_mut_ptr();
    msg.msg_iovlen = 2;
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
    // SAFETY: both pieces are valid for writes of their lengths.
    let n = count(unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut msg, flags) })?;
    Ok(n.saturating_sub(skip.len()))
}

/// Takes bytes that were peeked at before.
pub(super) fn discard(fd: &impl AsRawFd, mut len: usize, tcp: bool) {
    if tcp {
        // SAFETY: with MSG_TRUNC a TCP socket drops the bytes and writes to no buffer.
        unsafe {
            libc::recv(fd.as_raw_fd(), std::ptr::null_mut(), len, libc::MSG_TRUNC | libc::MSG_DONTWAIT)
        };
        return;
    }
    let mut waste = [0u8; 16384];
    while len > 0 {
        let n = len.min(waste.len());
        // SAFETY: writes at most `n` bytes into `waste`.
        let r = unsafe { libc::recv(fd.as_raw_fd(), waste.as_mut_ptr().cast(), n, libc::MSG_DONTWAIT) };
        match usize::try_from(r) {
            Ok(n) if n > 0 => len -= n.min(len),
            _ => return,
        }
    }
}

/// Sends; never raises a signal.
pub(super) fn send(fd: &impl AsRawFd, buf: &[u8]) -> io::Result<usize> {
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    // SAFETY: reads at most `buf.len()` bytes of `buf`.
    count(unsafe { libc::send(fd.as_raw_fd(), buf.as_ptr().cast(), buf.len(), flags) })
}

/// No more bytes will be sent.
pub(super) fn end_of_output(fd: &impl AsRawFd) {
    // SAFETY: plain shutdown on an open socket; one that is not connected any more needs none.
    unsafe { libc::shutdown(fd.as_raw_fd(), libc::SHUT_WR) };
}

/// An error that the network reported about a datagram.
pub(super) struct NetError {
    /// ICMP type and code; `None`: it did not come from the network.
    pub icmp: Option<(u8, u8)>,
    /// Where the datagram had been sent.
    pub to: Option<SocketAddr>,
    /// How much of its contents is in the buffer.
    pub len: usize,
}

/// Takes the next error of a datagram socket; the datagram's contents go to `buf`.
pub(super) fn take_error(fd: &impl AsRawFd, buf: &mut [u8]) -> Option<NetError> {
    #[repr(C, align(8))]
    struct Control([u8; 256]);
    // SAFETY: all-zero values of these plain C types are valid.
    let (mut name, mut msg): (libc::sockaddr_in6, libc::msghdr) = unsafe { std::mem::zeroed() };
    let mut control = Control([0; 256]);
    let mut iov = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
    msg.msg_name = (&raw mut name).cast();
    msg.msg_namelen = size_of::<libc::sockaddr_in6>() as u32;
    msg.msg_iov = &raw mut iov;
    msg.msg_iovlen = 1;
    msg.msg_control = control.0.as_mut_ptr().cast();
    msg.msg_controllen = control.0.len();
    let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
    // SAFETY: name, buffer and control area are valid for writes of the given lengths.
    let len = count(unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut msg, flags) }).ok()?;
    let mut out = NetError { icmp: None, to: None, len };
    out.to = match i32::from(name.sin6_family) {
        libc::AF_INET6 => {
            let ip = std::net::Ipv6Addr::from(name.sin6_addr.s6_addr);
            Some(SocketAddr::new(ip.into(), u16::from_be(name.sin6_port)))
        }
        libc::AF_INET => {
            // SAFETY: the kernel wrote a sockaddr_in, which is smaller than `name` and has its alignment or less.
            let v4 = unsafe { std::ptr::from_ref(&name).cast::<libc::sockaddr_in>().read() };
            let ip = std::net::Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddr::new(ip.into(), u16::from_be(v4.sin_port)))
        }
        _ => None,
    };
    // SAFETY: `msg` was filled by recvmsg; the macro functions stay inside its control area.
    unsafe {
        let mut c = libc::CMSG_FIRSTHDR(&raw const msg);
        while !c.is_null() {
            let kind = ((*c).cmsg_level, (*c).cmsg_type);
            if kind == (libc::IPPROTO_IP, libc::IP_RECVERR)
                || kind == (libc::IPPROTO_IPV6, libc::IPV6_RECVERR)
            {
                let e = libc::CMSG_DATA(c).cast::<libc::sock_extended_err>().read_unaligned();
                if matches!(e.ee_origin, libc::SO_EE_ORIGIN_ICMP | libc::SO_EE_ORIGIN_ICMP6) {
                    out.icmp = Some((e.ee_type, e.ee_code));
                }
            }
            c = libc::CMSG_NXTHDR(&raw const msg, c);
        }
    }
    Some(out)
}
