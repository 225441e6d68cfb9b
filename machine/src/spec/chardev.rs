//! Character devices and what is connected to them.

use super::loc::Loc;
use crate::error::QResult;
use crate::qerr;

/// `-chardev` / `chardev-add`. `mux=on` and `mon:` are lowered to two entries: the backend under the label
/// `ID-base`, and a [`ChardevBackend::Mux`] under `ID`.
#[derive(Clone, Debug, PartialEq)]
pub struct ChardevSpec {
    /// Label.
    pub id: String,
    /// What it is.
    pub backend: ChardevBackend,
    /// Copy of the output.
    pub logfile: Option<String>,
    /// Append to `logfile` instead of truncating it.
    pub logappend: bool,
    /// Error prefix.
    pub loc: Loc,
}

/// Kinds of backends; the names are QAPI's.
#[derive(Clone, Debug, PartialEq)]
pub enum ChardevBackend {
    /// Discards output, gives no input.
    Null,
    /// A stream socket.
    Socket(SocketChardev),
    /// Datagrams.
    Udp {
        /// Where to send.
        remote: SocketAddress,
        /// Where to listen.
        local: Option<SocketAddress>,
    },
    /// Output to a file.
    File {
        /// Path.
        out: String,
        /// Input from this path.
        input: Option<String>,
        /// Append instead of truncating.
        append: Option<bool>,
    },
    /// A FIFO pair `path.in`/`path.out`, or one FIFO.
    Pipe {
        /// Path.
        path: String,
    },
    /// A new pseudo-terminal.
    Pty,
    /// The program's standard input and output.
    Stdio {
        /// Whether Ctrl-C and friends raise signals; `None` = the default (yes; no under `-nographic`/`mon:`).
        signal: Option<bool>,
    },
    /// A host serial line (tty).
    Serial {
        /// Device path.
        device: String,
    },
    /// A host parallel port.
    Parallel {
        /// Device path.
        device: String,
    },
    /// A text console on the display.
    Vc {
        /// Pixels.
        width: Option<u64>,
        /// Pixels.
        height: Option<u64>,
        /// Characters.
        cols: Option<u64>,
        /// Characters.
        rows: Option<u64>,
    },
    /// A buffer read through QMP (`ringbuf-read`).
    Ringbuf {
        /// Bytes, a power of two (checked by the backend); default 65536.
        size: Option<u64>,
    },
    /// Shares another chardev between several frontends.
    Mux {
        /// The other's id.
        chardev: String,
    },
    /// Microsoft serial mouse.
    Msmouse,
    /// Wacom serial tablet.
    Wctablet,
    /// Test device that ends the program.
    Testdev,
    /// Braille terminal.
    Braille,
    /// SPICE channel.
    SpiceVmc {
        /// Channel type.
        name: String,
    },
    /// SPICE port.
    SpicePort {
        /// Port name.
        name: String,
    },
    /// Built-in spice agent.
    QemuVdagent {
        /// Mouse messages.
        mouse: Option<bool>,
        /// Clipboard sharing.
        clipboard: Option<bool>,
    },
    /// D-Bus display channel.
    Dbus {
        /// Name.
        name: String,
    },
}

/// Options of a socket chardev; `None` = not given (QAPI's defaults apply).
#[derive(Clone, Debug, PartialEq)]
pub struct SocketChardev {
    /// Where.
    pub addr: SocketAddress,
    /// Listen (default true in QAPI; the command line always says it).
    pub server: Option<bool>,
    /// Block at start until a client connects (server only).
    pub wait: Option<bool>,
    /// TCP_NODELAY.
    pub nodelay: Option<bool>,
    /// Telnet negotiation.
    pub telnet: Option<bool>,
    /// TN3270 negotiation.
    pub tn3270: Option<bool>,
    /// Websocket framing.
    pub websocket: Option<bool>,
    /// Seconds between attempts (client only).
    pub reconnect: Option<i64>,
    /// TLS credentials object.
    pub tls_creds: Option<String>,
    /// TLS authorization object.
    pub tls_authz: Option<String>,
}

impl SocketChardev {
    /// Only an address.
    pub fn new(addr: SocketAddress) -> Self {
        Self {
            addr,
            server: None,
            wait: None,
            nodelay: None,
            telnet: None,
            tn3270: None,
            websocket: None,
            reconnect: None,
            tls_creds: None,
            tls_authz: None,
        }
    }

    /// Options that exclude each other.
    pub fn check(&self) -> QResult<()> {
        let on = |v: Option<bool>| v == Some(true);
        let server = self.server.unwrap_or(true);
        let reconnect = self.reconnect.is_some_and(|r| r != 0);
        if reconnect && matches!(self.addr, SocketAddress::Fd { .. }) {
            return Err(qerr!("'reconnect' option is incompatible with 'fd' address type"));
        }
        if self.tls_authz.is_some() && self.tls_creds.is_none() {
            return Err(qerr!("'tls_authz' option requires 'tls_creds' option"));
        }
        if server && reconnect {
            return Err(qerr!("'reconnect' option is incompatible with socket in server listen mode"));
        }
        if !server && on(self.websocket) {
            return Err(qerr!("Websocket client is not implemented"));
        }
        if !server && self.wait.is_some() {
            return Err(qerr!("'wait' option is incompatible with socket in client connect mode"));
        }
        Ok(())
    }
}

/// QAPI's `SocketAddress`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketAddress {
    /// TCP or UDP.
    Inet(InetAddress),
    /// A UNIX socket.
    Unix {
        /// Path, or the abstract name.
        path: String,
        /// Linux abstract name space.
        abstract_: Option<bool>,
        /// Abstract: do not pad with zero bytes (default true).
        tight: Option<bool>,
    },
    /// AF_VSOCK.
    Vsock {
        /// Context id.
        cid: String,
        /// Port.
        port: String,
    },
    /// A descriptor: a number, or a name given by `getfd`.
    Fd {
        /// Number or name.
        str: String,
    },
}

/// Host and port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InetAddress {
    /// Host name or address; empty = any.
    pub host: String,
    /// Port number or service name.
    pub port: String,
    /// Listen on the first free port from `port` to this.
    pub to: Option<u16>,
    /// Allow IPv4.
    pub ipv4: Option<bool>,
    /// Allow IPv6.
    pub ipv6: Option<bool>,
    /// `host` and `port` are numbers: look nothing up.
    pub numeric: Option<bool>,
    /// SO_KEEPALIVE.
    pub keep_alive: Option<bool>,
    /// Multipath TCP.
    pub mptcp: Option<bool>,
}

/// One `-serial`, `-parallel` or `-debugcon`: `None` is a hole (`none`: the port does not exist).
#[derive(Clone, Debug, PartialEq)]
pub struct CharPort {
    /// Chardev id (`serial0`, `parallel0`, `debugcon`, or the user's for `chardev:ID`).
    pub chardev: Option<String>,
    /// Error prefix.
    pub loc: Loc,
}

/// How a monitor speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MonitorMode {
    /// HMP with line editing.
    Readline,
    /// QMP.
    Control,
}

/// `-mon`, `-monitor`, `-qmp`, `-qmp-pretty`.
#[derive(Clone, Debug, PartialEq)]
pub struct MonitorSpec {
    /// `id=`, or the label QEMU makes up (`compat_monitor0`).
    pub id: Option<String>,
    /// Chardev id.
    pub chardev: String,
    /// Protocol.
    pub mode: MonitorMode,
    /// Indented JSON (control mode only).
    pub pretty: bool,
    /// Error prefix.
    pub loc: Loc,
}
