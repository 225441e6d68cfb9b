//! Our monitors and QEMU's, on a unix socket each.
#![allow(dead_code)]

use rqemu_machine::builder;
use rqemu_machine::event_loop::EventLoop;
use rqemu_machine::shared::Shared;
use rqemu_machine::spec::{AccelOrigin, AccelSpec, ChardevBackend, ChardevSpec, Dict, Loc};
use rqemu_machine::spec::{SocketAddress, SocketChardev, VmSpec};
use rqemu_machine::Machine;
use rqemu_qmp::monitors::{Monitors, NoEnv};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(20);

pub enum Kind {
    Qmp,
    Pretty,
    Hmp,
}

struct Quiet;

impl builder::Messages for Quiet {
    fn warning(&mut self, _: &str) {}
    fn warning_at(&mut self, _: &rqemu_machine::spec::Loc, _: &str) {}
    fn plain(&mut self, _: &str) {}
    fn info(&mut self, _: &str) {}
    fn out(&mut self, _: &str) {}
}

enum Running {
    Ours(Option<JoinHandle<()>>),
    Qemu(Child),
}

/// A monitor that listens on a socket.
pub struct Server {
    path: PathBuf,
    running: Running,
    _dir: tempfile::TempDir,
}

impl Server {
    /// Our own, on a machine without devices.
    pub fn ours(kind: Kind) -> Self {
        let mut m = Machine::new();
        let event_loop = EventLoop::new(&mut m).unwrap();
        Self::start(Shared::new(m), event_loop, kind)
    }

    /// Our own, on a stopped `pc` with two CPUs under KVM.
    pub fn pc(kind: Kind) -> Self {
        let mut spec = VmSpec::default();
        spec.machine.kind = Some("pc".into());
        spec.name.guest = Some("foo".into());
        spec.smp.cpus = Some(2);
        spec.memory.size = Some(64 << 20);
        spec.accels.push(AccelSpec {
            name: "kvm".into(),
            props: Dict::new(),
            origin: AccelOrigin::Option,
            loc: Loc::NONE,
        });
        spec.run.start_stopped = true;
        let built = builder::build(&mut spec, &mut Quiet).unwrap();
        Self::start(built.shared, built.event_loop, kind)
    }

    fn start(shared: Arc<Shared>, mut event_loop: EventLoop, kind: Kind) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m");
        let addr = SocketAddress::Unix { path: path.to_str().unwrap().into(), abstract_: None, tight: None };
        let mut socket = SocketChardev::new(addr);
        socket.server = Some(true);
        socket.wait = Some(false);
        let spec = ChardevSpec {
            id: "mon".into(),
            backend: ChardevBackend::Socket(socket),
            logfile: None,
            logappend: false,
            loc: Loc::default(),
        };
        let mut monitors = Monitors::new(Box::new(NoEnv));
        let mut lock = shared.lock();
        let chr = lock.add_chardev(&spec, &mut |_| {}).unwrap();
        match kind {
            Kind::Qmp => monitors.add_qmp(&mut lock, chr, false),
            Kind::Pretty => monitors.add_qmp(&mut lock, chr, true),
            Kind::Hmp => monitors.add_hmp(&mut lock, chr),
        }
        .unwrap();
        lock.ready = true;
        drop(lock);
        let thread = std::thread::spawn(move || {
            event_loop.run(&shared, &mut monitors).unwrap();
        });
        Self { path, running: Running::Ours(Some(thread)), _dir: dir }
    }

    /// QEMU 7.2's, if it is installed.
    pub fn qemu(kind: Kind) -> Option<Self> {
        let version = Command::new("qemu-system-x86_64").arg("-version").output().ok()?;
        if !String::from_utf8_lossy(&version.stdout).contains("version 7.2.") {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m");
        let option = match kind {
            Kind::Qmp => "-qmp",
            Kind::Pretty => "-qmp-pretty",
            Kind::Hmp => "-monitor",
        };
        let child = Command::new("qemu-system-x86_64")
            .args(["-machine", "none", "-display", "none", "-S", option])
            .arg(format!("unix:{},server=on,wait=off", path.display()))
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Some(Self { path, running: Running::Qemu(child), _dir: dir })
    }

    pub fn connect(&self) -> UnixStream {
        let start = Instant::now();
        loop {
            match connect(&self.path) {
                Some(stream) => return stream,
                None => assert!(start.elapsed() < PATIENCE, "nobody listens"),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// A QMP client that is past negotiation.
    pub fn client(&self) -> Client {
        let mut client = Client::new(self.connect());
        assert!(client.line().contains("\"QMP\""));
        client.send(b"{'execute': 'qmp_capabilities'}");
        assert_eq!(client.line(), "{\"return\": {}}\r\n");
        client
    }
}

fn connect(path: &Path) -> Option<UnixStream> {
    let stream = UnixStream::connect(path).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    Some(stream)
}

impl Drop for Server {
    fn drop(&mut self) {
        match &mut self.running {
            Running::Qemu(child) => {
                let _ = child.kill();
                let _ = child.wait();
            }
            Running::Ours(thread) => {
                // An abandoned loop would only outlive a failed test.
                if std::thread::panicking() {
                    return;
                }
                let stream = connect(&self.path).map(|mut stream| {
                    let _ = stream.write_all(b"{'execute': 'qmp_capabilities'}{'execute': 'quit'}\nquit\n");
                    stream
                });
                if let Some(thread) = thread.take() {
                    thread.join().unwrap();
                }
                drop(stream);
            }
        }
    }
}

pub struct Client {
    reader: BufReader<UnixStream>,
    writer: UnixStream,
}

impl Client {
    pub fn new(stream: UnixStream) -> Self {
        Self { reader: BufReader::new(stream.try_clone().unwrap()), writer: stream }
    }

    pub fn send(&mut self, data: &[u8]) {
        self.writer.write_all(data).unwrap();
    }

    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        line
    }

    /// Everything that comes back for `data`: a marker behind it shows the end.
    pub fn talk(&mut self, data: &[u8]) -> Vec<String> {
        self.send(data);
        // Brings the reader back to its first state, whatever `data` left behind.
        self.send(b"\xff{'execute': 'query-name', 'id': 'end of test'}");
        let mut lines = Vec::new();
        loop {
            let line = self.line();
            assert!(!line.is_empty(), "connection closed after {lines:?}");
            if line.contains("\"id\": \"end of test\"") {
                return lines;
            }
            lines.push(line);
        }
    }

    /// Reads until what was read ends in `end`.
    pub fn until(&mut self, end: &str) -> String {
        let mut out = Vec::new();
        let mut byte = [0];
        while !out.ends_with(end.as_bytes()) {
            self.reader.read_exact(&mut byte).unwrap_or_else(|e| {
                panic!("{e}; waiting for {end:?}, got {:?}", String::from_utf8_lossy(&out))
            });
            out.push(byte[0]);
        }
        String::from_utf8_lossy(&out).into_owned()
    }
}
