//! Character devices: `-chardev`, the older strings, serial and parallel ports, monitors.

use rqemu_machine::spec::{
    CharPort, ChardevBackend, ChardevSpec, DeviceSpec, Dict, InetAddress, Loc, MonitorMode, MonitorSpec,
    SocketAddress, SocketChardev, Value,
};
use rqemu_machine::{qerr, QResult};

use super::{at, is_help, Arg, Cx, Res, Stop, Text};
use crate::grammar::{self, VcSize};
use crate::groups;
use crate::opts::Opts;
use crate::HelpRequest;

/// `-serial`.
pub fn serial(cx: &mut Cx, arg: &Arg<'_>) -> Res {
    cx.spec.defaults.serial = false;
    port(cx, arg, |cx| &mut cx.late.serial)
}

/// `-parallel`.
pub fn parallel(cx: &mut Cx, arg: &Arg<'_>) -> Res {
    cx.spec.defaults.parallel = false;
    port(cx, arg, |cx| &mut cx.late.parallel)
}

/// `-debugcon`.
pub fn debugcon(cx: &mut Cx, arg: &Arg<'_>) -> Res {
    port(cx, arg, |cx| &mut cx.late.debugcon)
}

fn port(cx: &mut Cx, arg: &Arg<'_>, list: fn(&mut Cx) -> &mut Vec<Text>) -> Res {
    if arg.value.starts_with("mon:") {
        cx.spec.defaults.monitor = false;
    }
    list(cx).push(Text::of(arg));
    Ok(())
}

/// `-monitor`.
pub fn monitor(cx: &mut Cx, arg: &Arg<'_>) -> Res {
    cx.spec.defaults.monitor = false;
    if arg.value == "none" {
        return Ok(());
    }
    old_monitor(cx, arg, "readline", false)
}

/// `-qmp`.
pub fn qmp(cx: &mut Cx, arg: &Arg<'_>) -> Res {
    cx.spec.defaults.monitor = false;
    old_monitor(cx, arg, "control", false)
}

/// `-qmp-pretty`.
pub fn qmp_pretty(cx: &mut Cx, arg: &Arg<'_>) -> Res {
    cx.spec.defaults.monitor = false;
    old_monitor(cx, arg, "control", true)
}

/// A monitor on an older chardev string, which becomes the chardev `compat_monitorN`.
fn old_monitor(cx: &mut Cx, arg: &Arg<'_>, mode: &str, pretty: bool) -> Res {
    let mut opts = Opts::new(&groups::MON, arg.loc.clone());
    if let Some(id) = arg.value.strip_prefix("chardev:") {
        opts.items.push(("chardev".into(), id.into()));
    } else {
        let is_compat = |o: &&Opts| o.id.as_deref().is_some_and(|id| id.starts_with("compat_monitor"));
        let label = format!(
            "compat_monitor{}",
            cx.sets.iter().filter(|o| o.group.name == "mon").filter(is_compat).count()
        );
        let chardev = old_string(cx, &label, arg.value, &arg.loc, true)
            .map_err(|s| s.and(&arg.loc, qerr!("parse error: {}", arg.value)))?;
        cx.add(chardev)?;
        opts.items.push(("chardev".into(), label.clone()));
        opts.id = Some(label);
    }
    opts.items.push(("mode".into(), mode.into()));
    if mode == "control" {
        opts.items.push(("pretty".into(), if pretty { "on" } else { "off" }.into()));
    }
    cx.add(opts)
}

/// `-gdb`.
pub fn gdb(cx: &mut Cx, arg: &Arg<'_>) -> Res {
    cx.late.gdb = Some(Text::of(arg));
    Ok(())
}

/// `-s`.
pub fn gdb_default(cx: &mut Cx, arg: &Arg<'_>) -> Res {
    cx.late.gdb = Some(Text { text: "tcp::1234".to_string(), loc: arg.loc.clone() });
    Ok(())
}

/// `-qtest`.
pub fn qtest(cx: &mut Cx, arg: &Arg<'_>) -> Res {
    cx.late.qtest = Some(Text::of(arg));
    Ok(())
}

/// Chardevs of the gdb stub and of the qtest protocol.
pub fn stubs(cx: &mut Cx) -> Res {
    if let Some(mut port) = cx.late.qtest.take() {
        // Messages about it carry no location.
        port.loc = Loc::NONE;
        let failed = qerr!("Failed to initialize device for qtest: \"{}\"", port.text);
        let chardev = connect(cx, "qtest", &port, false).map_err(|s| s.and(&Loc::NONE, failed))?;
        cx.spec.run.qtest = Some(CharPort { chardev: Some(chardev), loc: port.loc });
    }
    if let Some(mut port) = cx.late.gdb.take().filter(|p| p.text != "none") {
        if port.text.starts_with("tcp:") {
            // The stub listens, and the guest does not wait for gdb.
            port.text += ",wait=off,nodelay=on,server=on";
        }
        let chardev = connect(cx, "gdb", &port, true)?;
        cx.spec.run.gdb = Some(CharPort { chardev: Some(chardev), loc: port.loc });
    }
    Ok(())
}

/// An older chardev string as options of the chardev group.
///
/// An error without a report of its own comes back as `Stop::Fail` with an empty list: the caller names the string.
fn old_string(cx: &mut Cx, label: &str, text: &str, loc: &Loc, mux_allowed: bool) -> Res<Opts> {
    let mut opts = Opts::new(&groups::CHARDEV, loc.clone());
    opts.id = Some(label.to_string());
    let mut text = text;
    if let Some(rest) = text.strip_prefix("mon:").filter(|_| mux_allowed) {
        text = rest;
        opts.items.push(("mux".into(), "on".into()));
        if text == "stdio" {
            // Ctrl-C belongs to the guest.
            opts.items.push(("signal".into(), "off".into()));
        }
    }
    let mut set = |key: &str, value: &str| opts.items.push((key.into(), value.into()));
    let mut rest = None;
    match text {
        "null" | "pty" | "msmouse" | "wctablet" | "braille" | "testdev" | "stdio" => set("backend", text),
        "vc" => set("backend", "vc"),
        _ => rest = old_prefixed(text, &mut set, loc)?,
    }
    if let Some(rest) = rest {
        // Flags without a value are the custom here: no warning.
        let warned = cx.warnings.len();
        let text = format!("backend={},{rest}", opts.get("backend").unwrap_or_default());
        let more = cx.opts(&groups::CHARDEV, &text, loc);
        cx.warnings.truncate(warned);
        let more = more?;
        // The backend is there already.
        opts.items.extend(more.items.into_iter().skip(1));
    }
    Ok(opts)
}

/// The `kind:…` strings; returns options that follow.
fn old_prefixed<'a>(text: &'a str, set: &mut dyn FnMut(&str, &str), loc: &Loc) -> Res<Option<&'a str>> {
    let silent = || Stop::Fail(Vec::new());
    let kind = text.split(':').next().unwrap_or_default();
    let tail = text.get(kind.len() + 1..).unwrap_or_default();
    match kind {
        _ if text.starts_with("/dev/parport") || text.starts_with("/dev/ppi") => {
            set("backend", "parallel");
            set("path", text);
        }
        _ if text.starts_with("/dev/") => {
            set("backend", "serial");
            set("path", text);
        }
        "vc" if text.starts_with("vc:") => {
            set("backend", "vc");
            let (keys, w, h) = match grammar::vc(tail).ok_or_else(silent)? {
                VcSize::Pixels(w, h) => (["width", "height"], w, h),
                VcSize::Chars(w, h) => (["cols", "rows"], w, h),
            };
            set(keys[0], &w.to_string());
            set(keys[1], &h.to_string());
        }
        "con" if text == "con:" => {
            set("backend", "console");
        }
        "file" | "pipe" if text.len() > kind.len() => {
            set("backend", kind);
            set("path", tail);
        }
        "tcp" | "telnet" | "tn3270" | "websocket" if text.len() > kind.len() => {
            let (host, port, rest) = grammar::inet(tail).ok_or_else(silent)?;
            set("backend", "socket");
            set("host", host);
            set("port", port);
            if kind != "tcp" {
                set(kind, "on");
            }
            return Ok(rest);
        }
        "udp" if text.len() > kind.len() => {
            let ((host, port), local) = grammar::udp(tail).ok_or_else(silent)?;
            set("backend", "udp");
            set("host", host);
            set("port", port);
            if let Some((host, port)) = local {
                set("localaddr", host);
                set("localport", port);
            }
        }
        "unix" if text.len() > kind.len() => {
            set("backend", "socket");
            let (path, rest) = grammar::path(tail);
            if !path.is_empty() {
                set("path", &path);
            }
            return Ok(rest);
        }
        _ => return Err(Stop::error(loc, qerr!("'{text}' is not a valid char driver"))),
    }
    Ok(None)
}

/// Adds a chardev to the spec; `mux=on` makes two.
pub fn add(cx: &mut Cx, mut opts: Opts) -> Res {
    let loc = opts.loc.clone();
    let backend_name = opts.take("backend");
    if backend_name.as_deref().is_some_and(is_help) {
        return Err(Stop::Help(HelpRequest::Chardev));
    }
    let Some(id) = opts.id.take() else { return Err(Stop::error(&loc, qerr!("chardev: no id specified"))) };
    let Some(name) = backend_name else {
        return Err(Stop::error(&loc, qerr!("chardev: \"{id}\" missing backend")));
    };
    let name = match name.as_str() {
        "tty" => {
            cx.warn(&loc, "The alias 'tty' is deprecated, use 'serial' instead");
            "serial"
        }
        "parport" => {
            cx.warn(&loc, "The alias 'parport' is deprecated, use 'parallel' instead");
            "parallel"
        }
        "memory" => "ringbuf",
        other => other,
    };
    let backend = at(&loc, backend(name, &opts))?;
    let logfile = opts.string("logfile");
    let logappend = at(&loc, opts.bool("logappend"))?.unwrap_or(false);
    let mux = at(&loc, opts.bool("mux"))?.unwrap_or(false);
    if cx.spec.chardevs.iter().any(|c| c.id == id) {
        return Err(Stop::error(&loc, qerr!("Duplicate ID '{id}' for chardev")));
    }
    let base = if mux { format!("{id}-base") } else { id.clone() };
    let mut push = |id, backend, logfile, logappend| {
        cx.spec.chardevs.push(ChardevSpec { id, backend, logfile, logappend, loc: loc.clone() });
    };
    push(base.clone(), backend, logfile, logappend);
    if mux {
        push(id, ChardevBackend::Mux { chardev: base }, None, false);
    }
    Ok(())
}

/// A backend from its options.
fn backend(name: &str, opts: &Opts) -> QResult<ChardevBackend> {
    let path = |what: &str| {
        opts.string("path").filter(|p| !p.is_empty() || what == "filename").ok_or_else(|| {
            if what == "filename" {
                qerr!("chardev: file: no filename given")
            } else {
                qerr!("chardev: {what}: no device path given")
            }
        })
    };
    let named = |what: &str| opts.string("name").ok_or_else(|| qerr!("chardev: spice {what}: no name given"));
    Ok(match name {
        "null" => ChardevBackend::Null,
        "socket" => ChardevBackend::Socket(socket(opts)?),
        "udp" => udp(opts)?,
        "file" => ChardevBackend::File { out: path("filename")?, input: None, append: opts.bool("append")? },
        "pipe" => ChardevBackend::Pipe { path: path("pipe")? },
        "pty" => ChardevBackend::Pty,
        "stdio" => ChardevBackend::Stdio { signal: opts.bool("signal")? },
        "serial" => ChardevBackend::Serial { device: path("serial/tty")? },
        "parallel" => ChardevBackend::Parallel { device: path("parallel")? },
        "vc" => ChardevBackend::Vc {
            width: opts.number("width")?,
            height: opts.number("height")?,
            cols: opts.number("cols")?,
            rows: opts.number("rows")?,
        },
        "ringbuf" => ChardevBackend::Ringbuf { size: opts.size("size")? },
        "mux" => match opts.string("chardev") {
            Some(chardev) => ChardevBackend::Mux { chardev },
            None => return Err(qerr!("chardev: mux: no chardev given")),
        },
        "msmouse" => ChardevBackend::Msmouse,
        "wctablet" => ChardevBackend::Wctablet,
        "testdev" => ChardevBackend::Testdev,
        "braille" => ChardevBackend::Braille,
        "spicevmc" => ChardevBackend::SpiceVmc { name: named("channel")? },
        "spiceport" => ChardevBackend::SpicePort { name: named("port")? },
        "qemu-vdagent" => {
            ChardevBackend::QemuVdagent { mouse: opts.bool("mouse")?, clipboard: opts.bool("clipboard")? }
        }
        "dbus" => match opts.string("name") {
            Some(name) => ChardevBackend::Dbus { name },
            None => return Err(qerr!("chardev: dbus: no name given")),
        },
        other => return Err(qerr!("'{other}' is not a valid char driver name")),
    })
}

fn socket(opts: &Opts) -> QResult<SocketChardev> {
    let (path, host, fd) = (opts.string("path"), opts.string("host"), opts.string("fd"));
    if [&path, &host, &fd].iter().filter(|v| v.is_some()).count() > 1 {
        return Err(qerr!("None or one of 'path', 'fd' or 'host' option required."));
    }
    let addr = match (path, host) {
        (Some(path), _) => {
            SocketAddress::Unix { path, abstract_: opts.bool("abstract")?, tight: opts.bool("tight")? }
        }
        (_, Some(host)) => {
            let Some(port) = opts.string("port") else {
                return Err(qerr!("chardev: socket: no port given"));
            };
            SocketAddress::Inet(InetAddress {
                host,
                port,
                // As in QEMU, the upper bits of a number that is too large are lost.
                to: opts.number("to")?.map(|v| v as u16),
                ipv4: opts.bool("ipv4")?,
                ipv6: opts.bool("ipv6")?,
                ..InetAddress::default()
            })
        }
        _ => SocketAddress::Fd { str: fd.unwrap_or_default() },
    };
    let nodelay = match (opts.bool("nodelay")?, opts.bool("delay")?) {
        (Some(nodelay), _) => Some(nodelay),
        (None, delay) => delay.map(|d| !d),
    };
    let socket = SocketChardev {
        server: Some(opts.bool("server")?.unwrap_or(false)),
        wait: opts.bool("wait")?,
        nodelay,
        telnet: opts.bool("telnet")?,
        tn3270: opts.bool("tn3270")?,
        websocket: opts.bool("websocket")?,
        reconnect: opts.number("reconnect")?.map(|v| v as i64),
        tls_creds: opts.string("tls-creds"),
        tls_authz: opts.string("tls-authz"),
        ..SocketChardev::new(addr)
    };
    socket.check()?;
    Ok(socket)
}

fn udp(opts: &Opts) -> QResult<ChardevBackend> {
    let full = |key| opts.string(key).filter(|v| !v.is_empty());
    let Some(port) = full("port") else { return Err(qerr!("chardev: udp: remote port not specified")) };
    let (ipv4, ipv6) = (opts.bool("ipv4")?, opts.bool("ipv6")?);
    let inet =
        |host, port| SocketAddress::Inet(InetAddress { host, port, ipv4, ipv6, ..InetAddress::default() });
    let host = full("host").unwrap_or_else(|| "localhost".to_string());
    let local = (opts.get("localaddr").is_some() || opts.get("localport").is_some()).then(|| {
        let port = full("localport").unwrap_or_else(|| "0".to_string());
        let host = full("localaddr").unwrap_or_default();
        SocketAddress::Inet(InetAddress { host, port, ..InetAddress::default() })
    });
    Ok(ChardevBackend::Udp { remote: inet(host, port), local })
}

/// Monitors, after all chardevs that they may name.
pub fn monitors(cx: &mut Cx) -> Res {
    for opts in cx.take(&groups::MON) {
        let loc = opts.loc.clone();
        let mode = match opts.get("mode") {
            None | Some("readline") => MonitorMode::Readline,
            Some("control") => MonitorMode::Control,
            Some(other) => {
                return Err(Stop::error(&loc, qerr!("Parameter 'mode' does not accept value '{other}'")));
            }
        };
        let Some(chardev) = opts.string("chardev") else {
            return Err(Stop::error(&loc, qerr!("Parameter 'chardev' is missing")));
        };
        let pretty = at(&loc, opts.bool("pretty"))?.unwrap_or(false);
        if !cx.spec.chardevs.iter().any(|c| c.id == chardev) {
            return Err(Stop::error(&loc, qerr!("chardev \"{chardev}\" not found")));
        }
        if pretty && mode == MonitorMode::Readline {
            return Err(Stop::error(&loc, qerr!("'pretty' is not compatible with HMP monitors")));
        }
        cx.spec.monitors.push(MonitorSpec { id: opts.id, chardev, mode, pretty, loc });
    }
    Ok(())
}

/// A port's chardev: one that exists, or a new one called `label`.
fn connect(cx: &mut Cx, label: &str, port: &Text, mux_allowed: bool) -> Res<String> {
    if let Some(id) = port.text.strip_prefix("chardev:") {
        return match cx.spec.chardevs.iter().any(|c| c.id == id) {
            true => Ok(id.to_string()),
            false => Err(Stop::Fail(Vec::new())),
        };
    }
    if cx.spec.chardevs.iter().any(|c| c.id == label) {
        let err = qerr!("attempt to add duplicate property '{label}' to object (type 'container')");
        return Err(Stop::error(&port.loc, err));
    }
    let opts = old_string(cx, label, &port.text, &port.loc, mux_allowed)?;
    add(cx, opts)?;
    if port.text.starts_with("mon:") {
        cx.spec.monitors.push(MonitorSpec {
            id: None,
            chardev: label.to_string(),
            mode: MonitorMode::Readline,
            pretty: false,
            loc: port.loc.clone(),
        });
    }
    Ok(label.to_string())
}

/// Serial and parallel ports, debug console.
pub fn ports(cx: &mut Cx) -> Res {
    for port in std::mem::take(&mut cx.late.serial) {
        let chardev = match port.text.as_str() {
            "none" => None,
            _ => {
                let label = format!("serial{}", cx.spec.serials.len());
                Some(connect(cx, &label, &port, true).map_err(|s| no_connection(s, "serial", &port))?)
            }
        };
        cx.spec.serials.push(CharPort { chardev, loc: port.loc });
    }
    for port in std::mem::take(&mut cx.late.parallel) {
        if port.text == "none" {
            continue;
        }
        let n = cx.spec.parallels.len();
        if n == 3 {
            return Err(Stop::error(&port.loc, qerr!("too many parallel ports")));
        }
        let chardev = connect(cx, &format!("parallel{n}"), &port, true)
            .map_err(|s| no_connection(s, "parallel", &port))?;
        cx.spec.parallels.push(CharPort { chardev: Some(chardev), loc: port.loc });
    }
    for port in std::mem::take(&mut cx.late.debugcon) {
        let chardev = connect(cx, "debugcon", &port, true)
            .map_err(|s| s.and(&port.loc, qerr!("invalid character backend '{}'", port.text)))?;
        let props = Dict::from_iter([("chardev".to_string(), Value::Text(chardev))]);
        cx.late.devices.push(DeviceSpec {
            driver: "isa-debugcon".into(),
            id: Some("debugcon".into()),
            props,
            json: false,
            loc: port.loc,
        });
    }
    Ok(())
}

fn no_connection(stop: Stop, kind: &str, port: &Text) -> Stop {
    stop.and(&port.loc, qerr!("could not connect {kind} device to character backend '{}'", port.text))
}
