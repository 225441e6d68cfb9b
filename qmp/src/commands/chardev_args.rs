//! Arguments of `chardev-add` and `chardev-change`.

use crate::types::SpecType;
use rqemu_machine::spec::schema::Kind::{self, Bool, Str};
use rqemu_machine::spec::schema::{Field, Struct, Tag};
use rqemu_machine::spec::visit::Int;
use rqemu_machine::spec::{
    ChardevBackend, ChardevSpec, Dict, InetAddress, Loc, SocketAddress, SocketChardev, Value,
};
use rqemu_machine::{qerr, QResult};

static I64: Int = Int { name: "int64", min: i64::MIN, max: i64::MAX as u64 };
static U16: Int = Int { name: "uint16_t", min: 0, max: u16::MAX as u64 };

const fn need(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, required: true }
}

const fn opt(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, required: false }
}

/// Declares `{data: {members}}`, as QAPI wraps the branches of its older unions.
macro_rules! wrapped {
    ($($name:ident = $fields:expr;)*) => {$(
        static $name: [Field; 1] = {
            static INNER: Struct = Struct { fields: &$fields, tag: None };
            [need("data", Kind::Struct(&INNER))]
        };
    )*};
}

const LOG: [Field; 2] = [opt("logfile", Str), opt("logappend", Bool)];

wrapped! {
    INET = [
        need("host", Str),
        need("port", Str),
        opt("numeric", Bool),
        opt("to", Kind::Int(&U16)),
        opt("ipv4", Bool),
        opt("ipv6", Bool),
        opt("keep-alive", Bool),
        opt("mptcp", Bool),
    ];
    UNIX = [need("path", Str), opt("abstract", Bool), opt("tight", Bool)];
    VSOCK = [need("cid", Str), need("port", Str)];
    FD = [need("str", Str)];
    PLAIN = [LOG[0], LOG[1]];
    FILE = [LOG[0], LOG[1], opt("in", Str), need("out", Str), opt("append", Bool)];
    PIPE = [LOG[0], LOG[1], need("device", Str)];
    SOCKET = [
        LOG[0],
        LOG[1],
        need("addr", Kind::Struct(&ADDRESS)),
        opt("tls-creds", Str),
        opt("tls-authz", Str),
        opt("server", Bool),
        opt("wait", Bool),
        opt("nodelay", Bool),
        opt("telnet", Bool),
        opt("tn3270", Bool),
        opt("websocket", Bool),
        opt("reconnect", Kind::Int(&I64)),
    ];
    UDP = [LOG[0], LOG[1], need("remote", Kind::Struct(&ADDRESS)), opt("local", Kind::Struct(&ADDRESS))];
    MUX = [LOG[0], LOG[1], need("chardev", Str)];
    STDIO = [LOG[0], LOG[1], opt("signal", Bool)];
    VC = [
        LOG[0],
        LOG[1],
        opt("width", Kind::Int(&I64)),
        opt("height", Kind::Int(&I64)),
        opt("cols", Kind::Int(&I64)),
        opt("rows", Kind::Int(&I64)),
    ];
    RINGBUF = [LOG[0], LOG[1], opt("size", Kind::Int(&I64))];
}

static ADDRESS: Struct = Struct {
    fields: &[need("type", Kind::Enum(&["inet", "unix", "vsock", "fd"]))],
    tag: Some(&Tag {
        name: "type",
        branches: &[("inet", &INET), ("unix", &UNIX), ("vsock", &VSOCK), ("fd", &FD)],
    }),
};

static BACKEND: Struct = Struct {
    fields: &[need(
        "type",
        Kind::Enum(&[
            "file", "pipe", "socket", "udp", "pty", "null", "mux", "stdio", "vc", "ringbuf", "memory",
        ]),
    )],
    tag: Some(&Tag {
        name: "type",
        branches: &[
            ("file", &FILE),
            ("pipe", &PIPE),
            ("socket", &SOCKET),
            ("udp", &UDP),
            ("pty", &PLAIN),
            ("null", &PLAIN),
            ("mux", &MUX),
            ("stdio", &STDIO),
            ("vc", &VC),
            ("ringbuf", &RINGBUF),
            ("memory", &RINGBUF),
        ],
    }),
};

static ARGUMENTS: Struct =
    Struct { fields: &[need("id", Str), need("backend", Kind::Struct(&BACKEND))], tag: None };

/// The arguments.
#[derive(Clone, Copy, Debug)]
pub struct ChardevArguments;

impl SpecType for ChardevArguments {
    const STRUCT: &'static Struct = &ARGUMENTS;
}

fn nested<'a>(dict: &'a Dict, name: &str) -> QResult<&'a Dict> {
    match dict.get(name) {
        Some(Value::Dict(d)) => Ok(d),
        _ => Err(qerr!("Parameter '{name}' is missing")),
    }
}

fn text(dict: &Dict, name: &str) -> String {
    dict.get_str(name).unwrap_or_default().into()
}

fn opt_text(dict: &Dict, name: &str) -> Option<String> {
    dict.get_str(name).map(Into::into)
}

fn address(dict: &Dict) -> QResult<SocketAddress> {
    let d = nested(dict, "data")?;
    Ok(match dict.get_str("type").unwrap_or_default() {
        "inet" => SocketAddress::Inet(InetAddress {
            host: text(d, "host"),
            port: text(d, "port"),
            to: d.get_u64("to")?.and_then(|v| u16::try_from(v).ok()),
            ipv4: d.get_bool("ipv4")?,
            ipv6: d.get_bool("ipv6")?,
            numeric: d.get_bool("numeric")?,
            keep_alive: d.get_bool("keep-alive")?,
            mptcp: d.get_bool("mptcp")?,
        }),
        "unix" => SocketAddress::Unix {
            path: text(d, "path"),
            abstract_: d.get_bool("abstract")?,
            tight: d.get_bool("tight")?,
        },
        "vsock" => SocketAddress::Vsock { cid: text(d, "cid"), port: text(d, "port") },
        _ => SocketAddress::Fd { str: text(d, "str") },
    })
}

fn socket(d: &Dict) -> QResult<SocketChardev> {
    let s = SocketChardev {
        addr: address(nested(d, "addr")?)?,
        server: d.get_bool("server")?,
        wait: d.get_bool("wait")?,
        nodelay: d.get_bool("nodelay")?,
        telnet: d.get_bool("telnet")?,
        tn3270: d.get_bool("tn3270")?,
        websocket: d.get_bool("websocket")?,
        reconnect: d.get_i64("reconnect")?,
        tls_creds: opt_text(d, "tls-creds"),
        tls_authz: opt_text(d, "tls-authz"),
    };
    s.check()?;
    Ok(s)
}

/// The character device that checked arguments describe.
///
/// # Errors
/// Options of a socket that exclude each other.
pub(super) fn spec_of(args: &Dict) -> QResult<ChardevSpec> {
    let id = text(args, "id");
    let b = nested(args, "backend")?;
    let d = nested(b, "data")?;
    let backend = match b.get_str("type").unwrap_or_default() {
        "file" => ChardevBackend::File {
            out: text(d, "out"),
            input: opt_text(d, "in"),
            append: d.get_bool("append")?,
        },
        "pipe" => ChardevBackend::Pipe { path: text(d, "device") },
        "socket" => {
            ChardevBackend::Socket(socket(d).map_err(|e| qerr!("Failed to add chardev '{id}': {}", e.desc))?)
        }
        "udp" => ChardevBackend::Udp {
            remote: address(nested(d, "remote")?)?,
            local: match d.contains("local") {
                true => Some(address(nested(d, "local")?)?),
                false => None,
            },
        },
        "pty" => ChardevBackend::Pty,
        "mux" => ChardevBackend::Mux { chardev: text(d, "chardev") },
        "stdio" => ChardevBackend::Stdio { signal: d.get_bool("signal")? },
        "vc" => ChardevBackend::Vc {
            width: d.get_u64("width")?,
            height: d.get_u64("height")?,
            cols: d.get_u64("cols")?,
            rows: d.get_u64("rows")?,
        },
        "ringbuf" | "memory" => ChardevBackend::Ringbuf { size: d.get_u64("size")? },
        _ => ChardevBackend::Null,
    };
    Ok(ChardevSpec {
        id,
        backend,
        logfile: opt_text(d, "logfile"),
        logappend: d.get_bool("logappend")?.unwrap_or(false),
        loc: Loc::NONE,
    })
}
