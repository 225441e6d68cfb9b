//! Makes a back end from its description.

use super::backend::Backend;
use super::files::{FdPair, Null, Pty, Ringbuf, Vc};
use super::socket::{Socket, Udp};
use crate::error::strerror;
use crate::fdsets::FdSets;
use crate::spec::{ChardevBackend, ChardevSpec, SocketAddress};
use crate::{qerr, QResult};

/// A kind of back end, for `-chardev help` and `query-chardev-backends`.
#[derive(Clone, Copy, Debug)]
pub struct BackendInfo {
    /// Name.
    pub name: &'static str,
}

impl BackendInfo {
    /// Every kind that can be made, in help order.
    pub const ALL: &'static [Self] = &[
        Self { name: "ringbuf" },
        Self { name: "mux" },
        Self { name: "udp" },
        Self { name: "pipe" },
        Self { name: "stdio" },
        Self { name: "file" },
        Self { name: "pty" },
        Self { name: "null" },
        Self { name: "socket" },
        Self { name: "vc" },
    ];
}

/// Opens a back end (not multiplexers, which the table makes itself). `warn` gets informational lines.
pub fn open(spec: &ChardevSpec, sets: &FdSets, warn: &mut dyn FnMut(String)) -> QResult<Box<dyn Backend>> {
    let io = |e: std::io::Error| qerr!("{}", strerror(&e));
    Ok(match &spec.backend {
        ChardevBackend::Null => Box::new(Null),
        ChardevBackend::Vc { .. } => Box::new(Vc),
        ChardevBackend::Stdio { signal } => Box::new(FdPair::stdio(signal.unwrap_or(true)).map_err(io)?),
        ChardevBackend::File { out, input, append } => Box::new(
            FdPair::file(sets, out, input.as_deref(), append.unwrap_or(false))
                .map_err(|e| qerr!("Could not open '{out}': {}", strerror(&e)))?,
        ),
        ChardevBackend::Pipe { path } => {
            Box::new(FdPair::pipe(path).map_err(|e| qerr!("Could not open '{path}': {}", strerror(&e)))?)
        }
        ChardevBackend::Serial { device } => Box::new(
            FdPair::serial(device).map_err(|e| qerr!("Could not open '{device}': {}", strerror(&e)))?,
        ),
        ChardevBackend::Pty => {
            Box::new(Pty::new().map_err(|e| qerr!("Failed to create PTY: {}", strerror(&e)))?)
        }
        ChardevBackend::Ringbuf { size } => {
            let size = size.unwrap_or(65536);
            if !size.is_power_of_two() || size > 1 << 30 {
                return Err(qerr!("size of ringbuf chardev must be power of two"));
            }
            Box::new(Ringbuf::new(size as usize))
        }
        ChardevBackend::Socket(s) => {
            if s.tls_creds.is_some() || s.websocket == Some(true) || s.tn3270 == Some(true) {
                return Err(qerr!("TLS, websocket and tn3270 sockets are not supported"));
            }
            Box::new(
                Socket::open(s, &spec.id, warn)
                    .map_err(|e| socket_error(&s.addr, s.server.unwrap_or(true), &e))?,
            )
        }
        ChardevBackend::Udp { remote: SocketAddress::Inet(r), local } => {
            let local = match local {
                Some(SocketAddress::Inet(l)) => Some(l),
                _ => None,
            };
            Box::new(Udp::open(r, local).map_err(io)?)
        }
        other => return Err(qerr!("'{}' is not a valid char driver name", kind_name(other))),
    })
}

/// Size of the path in a socket address, with its final zero.
const UNIX_PATH_MAX: usize = 108;

fn socket_error(addr: &SocketAddress, server: bool, e: &std::io::Error) -> crate::QError {
    let text = strerror(e);
    match addr {
        SocketAddress::Unix { path, .. } if path.len() >= UNIX_PATH_MAX => {
            qerr!("UNIX socket path '{path}' is too long")
                .with_hint(format!("Path must be less than {UNIX_PATH_MAX} bytes\n"))
        }
        SocketAddress::Unix { path, .. } if server => qerr!("Failed to bind socket to {path}: {text}"),
        SocketAddress::Unix { path, .. } => qerr!("Failed to connect to '{path}': {text}"),
        SocketAddress::Inet(_) if server => qerr!("Failed to find an available port: {text}"),
        SocketAddress::Inet(a) => qerr!("Failed to connect to '{}:{}': {text}", a.host, a.port),
        SocketAddress::Fd { str } if str.parse::<i32>().is_err() => qerr!("Unable to parse FD number {str}"),
        SocketAddress::Fd { str } => qerr!("File descriptor '{str}' is not a socket"),
        _ => qerr!("{text}"),
    }
}

fn kind_name(b: &ChardevBackend) -> &'static str {
    match b {
        ChardevBackend::Serial { .. } => "serial",
        ChardevBackend::Parallel { .. } => "parallel",
        ChardevBackend::Msmouse => "msmouse",
        ChardevBackend::Wctablet => "wctablet",
        ChardevBackend::Testdev => "testdev",
        ChardevBackend::Braille => "braille",
        ChardevBackend::SpiceVmc { .. } => "spicevmc",
        ChardevBackend::SpicePort { .. } => "spiceport",
        ChardevBackend::QemuVdagent { .. } => "qemu-vdagent",
        ChardevBackend::Dbus { .. } => "dbus",
        ChardevBackend::Udp { .. } => "udp",
        _ => "",
    }
}
