//! A started emulator with a QMP connection and, if asked for, a serial line.

use crate::bins::Bin;
use crate::proc::{Cmd, Exit, Proc, Usage};
use crate::qmp::{Failure, Qmp};
use crate::stream::Stream;
use crate::Res;
use serde_json::Value;
use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

/// Time within which a start or an answer must come.
pub const SOON: Duration = Duration::from_secs(20);

/// The other end of a character device.
pub struct Line {
    sock: UnixStream,
    /// What came in.
    pub input: Stream,
}

impl Line {
    /// Sends text.
    pub fn send(&mut self, text: &str) -> Res<()> {
        self.sock.write_all(text.as_bytes()).map_err(|e| format!("serial line: {e}"))
    }

    /// Waits for text; see [`Stream::expect`].
    pub fn expect(&self, pattern: &str, timeout: Duration) -> Res<String> {
        self.input.expect(pattern, timeout)
    }
}

/// Where a guest's console is: a serial line on a socket, or the emulator's standard input and output.
pub trait Terminal {
    /// Types.
    fn send(&mut self, text: &str) -> Res<()>;
    /// What it shows.
    fn output(&self) -> &Stream;
}

impl Terminal for Line {
    fn send(&mut self, text: &str) -> Res<()> {
        Line::send(self, text)
    }
    fn output(&self) -> &Stream {
        &self.input
    }
}

impl Terminal for Proc {
    fn send(&mut self, text: &str) -> Res<()> {
        self.write(text.as_bytes())
    }
    fn output(&self) -> &Stream {
        &self.stdout
    }
}

/// A running emulator. Dropping it kills the process and removes its folder.
pub struct Vm {
    /// The process.
    pub proc: Proc,
    /// Negotiated QMP connection.
    pub qmp: Qmp,
    /// The first serial line, when asked for.
    pub serial: Option<Line>,
    dir: tempfile::TempDir,
}

/// How to start a [`Vm`].
#[derive(Default)]
pub struct VmOpts {
    serial: bool,
}

impl VmOpts {
    /// With `-serial` on a socket.
    pub fn serial(mut self) -> VmOpts {
        self.serial = true;
        self
    }

    /// Starts `bin args… -qmp unix:…`.
    pub fn start(self, bin: &Bin, args: &[String]) -> Res<Vm> {
        let dir =
            tempfile::Builder::new().prefix("rqc").tempdir().map_err(|e| format!("temporary folder: {e}"))?;
        let sock = dir.path().join("qmp");
        let mut cmd = Cmd::new(bin).args(args).dir(dir.path()).pipe_stdin();
        cmd = cmd.arg("-qmp").arg(format!("unix:{},server=on,wait=off", sock.display()));
        let mut listener = None;
        if self.serial {
            let path = dir.path().join("serial");
            listener = Some(UnixListener::bind(&path).map_err(|e| format!("{}: {e}", path.display()))?);
            cmd = cmd.arg("-serial").arg(format!("unix:{}", path.display()));
        }
        let mut proc = cmd.spawn()?;
        let qmp = connect(&sock, &mut proc)?;
        let serial = match listener {
            Some(l) => Some(accept(l)?),
            None => None,
        };
        Ok(Vm { proc, qmp, serial, dir })
    }
}

/// Connects to the QMP socket of `proc` and negotiates.
pub fn connect(sock: &Path, proc: &mut Proc) -> Res<Qmp> {
    let r = Qmp::connect(sock, SOON, || proc.wait(Duration::ZERO).is_none());
    // The socket is there before the devices are: a start may still fail after the greeting.
    let r = r.and_then(|mut q| q.negotiate().map(|_| q).map_err(|e| format!("qmp_capabilities: {e}")));
    r.map_err(|e| match proc.wait(Duration::from_secs(3)) {
        Some((exit, _)) => {
            let _ = proc.stderr.to_end(Duration::from_secs(1));
            format!("{exit:?} at start: {}", proc.stderr.text().trim())
        }
        None => format!("{e}; stderr {:?}", proc.stderr.text()),
    })
}

fn accept(l: UnixListener) -> Res<Line> {
    // The QMP greeting has come, so the connection is already in the backlog.
    l.set_nonblocking(true).map_err(|e| e.to_string())?;
    let (sock, _) = l.accept().map_err(|e| format!("the serial line was not connected: {e}"))?;
    sock.set_nonblocking(false).map_err(|e| e.to_string())?;
    let input = Stream::reading(sock.try_clone().map_err(|e| e.to_string())?);
    Ok(Line { sock, input })
}

impl Vm {
    /// Starts with the words of `args`, no serial line.
    pub fn start(bin: &Bin, args: &str) -> Res<Vm> {
        let list: Vec<String> = args.split_whitespace().map(str::to_owned).collect();
        VmOpts::default().start(bin, &list)
    }

    /// Its folder, for files that live as long as it does.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A QMP command without arguments.
    pub fn query(&mut self, name: &str) -> Result<Value, Failure> {
        self.qmp.cmd(name, Value::Null)
    }

    /// The first serial line.
    pub fn serial(&mut self) -> Res<&mut Line> {
        self.serial.as_mut().ok_or_else(|| "started without a serial line".into())
    }

    /// QMP `quit`, then waits for the end.
    pub fn quit(mut self) -> Res<(Exit, Usage)> {
        self.qmp.cmd("quit", Value::Null).map_err(|e| format!("quit: {e}"))?;
        self.proc.wait(SOON).ok_or_else(|| "still running after quit".into())
    }
}
