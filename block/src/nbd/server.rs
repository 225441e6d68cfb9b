//! The server: one listener thread, one thread for each client.

use super::*;
use crate::backend::{Attach, BlockBackend};
use crate::bitmap::DirtyBitmap;
use crate::driver::Op;
use crate::error::{BlockError, Errno, Result};
use crate::graph::BlockGraph;
use crate::iov;
use crate::jobs::{status_above, Holds};
use parking_lot::Mutex;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Weak};
use std::thread;

/// Where the server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NbdAddr {
    /// A UNIX socket.
    Unix(String),
    /// Host and port.
    Inet(String, String),
}

/// What is exported.
#[derive(Clone, Debug, Default)]
pub struct ExportOpts {
    /// Unique id.
    pub id: String,
    /// Node or drive.
    pub node: String,
    /// Name that clients ask for; the node's if left out.
    pub name: Option<String>,
    /// Clients may write.
    pub writable: bool,
    /// Text for clients.
    pub description: Option<String>,
    /// Dirty bitmaps that clients may read: node and name.
    pub bitmaps: Vec<(String, String)>,
    /// Offer `qemu:allocation-depth`.
    pub allocation_depth: bool,
}

/// An element of `query-block-exports`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportInfo {
    /// Id.
    pub id: String,
    /// Node.
    pub node: String,
    /// It ends when its last client goes.
    pub shutting_down: bool,
}

struct Export {
    o: ExportOpts,
    name: String,
    backend: BlockBackend,
    bitmaps: Vec<(String, Arc<DirtyBitmap>)>,
}

struct Client {
    stream: Stream,
    export: Option<Arc<Export>>,
}

#[derive(Default)]
struct State {
    exports: Vec<Arc<Export>>,
    clients: Vec<(u64, Client)>,
    next: u64,
}

struct Running {
    state: Mutex<State>,
    max: u32,
}

struct Listening {
    shared: Arc<Running>,
    wake: std::os::unix::net::UnixStream,
    thread: Option<thread::JoinHandle<()>>,
    path: Option<String>,
}

/// The server of a graph.
#[derive(Default)]
pub(crate) struct Exports {
    server: Option<Listening>,
}

enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Listener {
    fn fd(&self) -> i32 {
        match self {
            Listener::Unix(l) => l.as_raw_fd(),
            Listener::Tcp(l) => l.as_raw_fd(),
        }
    }
    fn accept(&self) -> std::io::Result<Stream> {
        match self {
            Listener::Unix(l) => l.accept().map(|(s, _)| Stream::Unix(s)),
            Listener::Tcp(l) => l.accept().map(|(s, _)| {
                // Replies are whole messages; delaying them only adds latency.
                let _ = s.set_nodelay(true);
                Stream::Tcp(s)
            }),
        }
    }
}

impl BlockGraph {
    /// `nbd-server-start`.
    pub fn nbd_start(&self, addr: &NbdAddr, max: u32) -> Result<()> {
        let mut e = self.exports().lock();
        if e.server.is_some() {
            return Err(BlockError::text("NBD server already running"));
        }
        let (listener, path) = match addr {
            NbdAddr::Unix(p) => {
                // A socket that a former run left behind.
                let stale = std::fs::symlink_metadata(p)
                    .is_ok_and(|m| std::os::unix::fs::FileTypeExt::is_socket(&m.file_type()));
                if stale && UnixStream::connect(p).is_err() {
                    let _ = std::fs::remove_file(p);
                }
                let l = UnixListener::bind(p)
                    .map_err(|e| BlockError::io(format!("Failed to bind socket to {p}"), e))?;
                (Listener::Unix(l), Some(p.clone()))
            }
            NbdAddr::Inet(host, port) => {
                let host = if host.is_empty() { "0.0.0.0" } else { host };
                let l = TcpListener::bind(format!("{host}:{port}"))
                    .map_err(|e| BlockError::io("Failed to bind socket", e))?;
                (Listener::Tcp(l), None)
            }
        };
        let io = |e| BlockError::io("Failed to start NBD server", Errno::from(e));
        let (wake, sleeper) = std::os::unix::net::UnixStream::pair().map_err(io)?;
        let shared = Arc::new(Running { state: Mutex::default(), max });
        let weak = Arc::downgrade(&shared);
        let thread = thread::Builder::new()
            .name("nbd-listen".into())
            .spawn(move || listen(&listener, &sleeper, &weak))
            .map_err(io)?;
        e.server = Some(Listening { shared, wake, thread: Some(thread), path });
        Ok(())
    }

    /// Port that the server listens on, for tests and port 0.
    pub fn nbd_running(&self) -> bool {
        self.exports().lock().server.is_some()
    }

    /// `block-export-add` of type `nbd`.
    pub fn export_add(&self, o: ExportOpts) -> Result<()> {
        let shared = self.exports().lock().server.as_ref().map(|s| s.shared.clone());
        let shared = shared.ok_or_else(|| BlockError::text("NBD server not running"))?;
        if shared.state.lock().exports.iter().any(|e| e.o.id == o.id) {
            return Err(BlockError::text(format!("Block export id '{}' is already in use", o.id)));
        }
        let node = match self.find_drive(&o.node) {
            Some(_) => self.device_or_node(&o.node)?,
            None => self.node_only(&o.node)?,
        };
        let name = o.name.clone().unwrap_or_else(|| o.node.clone());
        if name.len() > 4096 {
            return Err(BlockError::text("export name '' too long"));
        }
        if shared.state.lock().exports.iter().any(|e| e.name == name) {
            return Err(BlockError::text(format!("NBD server already has export named '{name}'")));
        }
        if o.writable && node.read_only() {
            return Err(BlockError::text("Cannot export read-only node as writable"));
        }
        let mut bitmaps = Vec::new();
        for (n, b) in &o.bitmaps {
            let from = self.device_or_node(n)?;
            let found = self
                .bitmap_of(&from, b)
                .map_err(|_| BlockError::text(format!("Bitmap '{b}' is not found")))?;
            bitmaps.push((b.clone(), found));
        }
        let backend = self.anonymous_backend();
        backend.insert(&node)?;
        // Clients of an export see what the guest writes at the same time.
        backend.attach(&o.id, Attach { read_only: !o.writable, share_rw: true, resizable: true })?;
        let export = Arc::new(Export { name, backend, bitmaps, o });
        shared.state.lock().exports.push(export);
        Ok(())
    }

    /// `block-export-del`; `hard`: clients are cut off.
    pub fn export_del(&self, id: &str, by_name: bool, hard: bool) -> Result<String> {
        let missing = || BlockError::text(format!("Export '{id}' is not found"));
        let shared =
            self.exports().lock().server.as_ref().map(|s| s.shared.clone()).ok_or_else(|| match by_name {
                true => BlockError::text("NBD server not running"),
                false => missing(),
            })?;
        let mut st = shared.state.lock();
        let at = st.exports.iter().position(|e| if by_name { e.name == id } else { e.o.id == id });
        let export = at.map(|at| st.exports[at].clone()).ok_or_else(missing)?;
        let mine = |c: &Client| c.export.as_ref().is_some_and(|e| Arc::ptr_eq(e, &export));
        // A client that has just said goodbye may take a moment to go.
        for _ in 0..50 {
            if hard || !st.clients.iter().any(|(_, c)| mine(c)) {
                break;
            }
            parking_lot::MutexGuard::unlocked(&mut st, || thread::sleep(std::time::Duration::from_millis(1)));
        }
        if !hard && st.clients.iter().any(|(_, c)| mine(c)) {
            return Err(BlockError::text(format!("export '{}' still in use", export.name)));
        }
        st.clients.iter().filter(|(_, c)| mine(c)).for_each(|(_, c)| c.stream.shutdown());
        st.exports.retain(|e| !Arc::ptr_eq(e, &export));
        drop(st);
        export.backend.detach();
        Ok(export.o.id.clone())
    }

    /// `query-block-exports`.
    pub fn query_exports(&self) -> Vec<ExportInfo> {
        let shared = self.exports().lock().server.as_ref().map(|s| s.shared.clone());
        let Some(shared) = shared else { return Vec::new() };
        let st = shared.state.lock();
        st.exports
            .iter()
            .map(|e| ExportInfo {
                id: e.o.id.clone(),
                node: e.backend.root().map_or(e.o.node.clone(), |n| n.name().to_owned()),
                shutting_down: false,
            })
            .collect()
    }

    /// `nbd-server-stop`: all exports go, clients are cut off. Returns the ids of the exports.
    pub fn nbd_stop(&self) -> Result<Vec<String>> {
        let server = self.exports().lock().server.take();
        let Some(mut s) = server else { return Err(BlockError::text("NBD server not running")) };
        // The listener sees the end of the pair and leaves.
        drop(s.wake);
        if let Some(t) = s.thread.take() {
            let _ = t.join();
        }
        let (exports, clients) = {
            let mut st = s.shared.state.lock();
            (std::mem::take(&mut st.exports), std::mem::take(&mut st.clients))
        };
        clients.iter().for_each(|(_, c)| c.stream.shutdown());
        drop(clients);
        let ids = exports.iter().map(|e| e.o.id.clone()).collect();
        exports.iter().for_each(|e| e.backend.detach());
        if let Some(p) = s.path {
            let _ = std::fs::remove_file(p);
        }
        Ok(ids)
    }
}

fn listen(l: &Listener, sleeper: &std::os::unix::net::UnixStream, shared: &Weak<Running>) {
    crate::pool::block_signals();
    let poll = |fd: i32| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    loop {
        let mut fds = [poll(l.fd()), poll(sleeper.as_raw_fd())];
        // SAFETY: `fds` is an array of two valid entries that outlives the call.
        let n = unsafe { libc::poll(fds.as_mut_ptr(), 2, -1) };
        if n < 0 && Errno::last() == Errno(libc::EINTR) {
            continue;
        }
        if n < 0 || fds[1].revents != 0 {
            return;
        }
        let (Ok(stream), Some(s)) = (l.accept(), shared.upgrade()) else { continue };
        let Ok(copy) = stream.try_clone() else { continue };
        let id = {
            let mut st = s.state.lock();
            if s.max != 0 && st.clients.len() >= s.max as usize {
                continue;
            }
            st.next += 1;
            let id = st.next;
            st.clients.push((id, Client { stream: copy, export: None }));
            id
        };
        let mine = s.clone();
        let spawned = thread::Builder::new().name("nbd-client".into()).stack_size(crate::pool::STACK).spawn(
            move || {
                crate::pool::block_signals();
                let mut c = Conn {
                    stream,
                    shared: mine,
                    id,
                    no_zeroes: false,
                    structured: false,
                    contexts: Vec::new(),
                };
                // A client that breaks the protocol or goes away just ends.
                let _ = c.serve();
                let me = c.id;
                c.shared.state.lock().clients.retain(|(i, _)| *i != me);
            },
        );
        if spawned.is_err() {
            s.state.lock().clients.retain(|(i, _)| *i != id);
        }
    }
}

#[derive(Clone)]
enum Context {
    Allocation,
    Depth,
    Bitmap(Arc<DirtyBitmap>),
}

struct Conn {
    stream: Stream,
    shared: Arc<Running>,
    id: u64,
    no_zeroes: bool,
    structured: bool,
    /// Negotiated contexts with the export that they belong to.
    contexts: Vec<(String, Context)>,
}

type Io<T> = std::io::Result<T>;

impl Conn {
    fn serve(&mut self) -> Io<()> {
        let mut hello = Vec::new();
        hello.extend(MAGIC.to_be_bytes());
        hello.extend(OPT_MAGIC.to_be_bytes());
        hello.extend(3u16.to_be_bytes());
        self.stream.write_all(&hello)?;
        let flags = get32(&mut self.stream)?;
        if flags & !3 != 0 {
            return Err(broken("client flags"));
        }
        self.no_zeroes = flags & 2 != 0;
        while let Some(export) = self.option(flags & 1 != 0)? {
            if let Some(e) = export {
                let mut st = self.shared.state.lock();
                if let Some((_, c)) = st.clients.iter_mut().find(|(i, _)| *i == self.id) {
                    c.export = Some(e.clone());
                }
                drop(st);
                return self.transmit(&e);
            }
        }
        Ok(())
    }

    fn find(&self, name: &str) -> Option<Arc<Export>> {
        self.shared.state.lock().exports.iter().find(|e| e.name == name).cloned()
    }

    fn reply(&mut self, option: u32, kind: u32, data: &[u8]) -> Io<()> {
        let mut m = Vec::with_capacity(20 + data.len());
        m.extend(OPT_REPLY.to_be_bytes());
        m.extend(option.to_be_bytes());
        m.extend(kind.to_be_bytes());
        m.extend((data.len() as u32).to_be_bytes());
        m.extend(data);
        self.stream.write_all(&m)
    }

    /// One option. `None`: the client has had enough; `Some(Some)`: transmission begins.
    fn option(&mut self, fixed: bool) -> Io<Option<Option<Arc<Export>>>> {
        if get64(&mut self.stream)? != OPT_MAGIC {
            return Err(broken("option magic"));
        }
        let (option, len) = (get32(&mut self.stream)?, get32(&mut self.stream)?);
        if len > 1 << 20 {
            return Err(broken("option too long"));
        }
        let mut data = vec![0; len as usize];
        self.stream.read_exact(&mut data)?;
        match option {
            opt::EXPORT_NAME => {
                let name = std::str::from_utf8(&data).map_err(|_| broken("name"))?;
                let e = self.find(name).ok_or_else(|| broken("no such export"))?;
                let mut m = Vec::new();
                m.extend(e.backend.len().to_be_bytes());
                m.extend(self.flags(&e).to_be_bytes());
                if !self.no_zeroes {
                    m.extend([0; 124]);
                }
                self.stream.write_all(&m)?;
                return Ok(Some(Some(e)));
            }
            _ if !fixed => return Err(broken("option before fixed newstyle")),
            opt::ABORT => {
                self.reply(option, rep::ACK, &[])?;
                return Ok(None);
            }
            opt::LIST => {
                let list = self.shared.state.lock().exports.clone();
                for e in list {
                    let mut d = (e.name.len() as u32).to_be_bytes().to_vec();
                    d.extend(e.name.as_bytes());
                    d.extend(e.o.description.as_deref().unwrap_or("").as_bytes());
                    self.reply(option, rep::SERVER, &d)?;
                }
                self.reply(option, rep::ACK, &[])?;
            }
            opt::STRUCTURED if data.is_empty() => {
                self.structured = true;
                self.reply(option, rep::ACK, &[])?;
            }
            opt::STRUCTURED => self.reply(option, rep::ERR_INVALID, &[])?,
            opt::INFO | opt::GO => {
                if let (Some(e), opt::GO) = (self.info(option, &data)?, option) {
                    return Ok(Some(Some(e)));
                }
            }
            opt::LIST_META | opt::SET_META => self.meta(option, &data)?,
            opt::STARTTLS => self.reply(option, rep::ERR_POLICY, b"TLS not configured")?,
            _ => self.reply(option, rep::ERR_UNSUP, &[])?,
        }
        Ok(Some(None))
    }

    fn flags(&self, e: &Export) -> u16 {
        let write = match e.o.writable {
            true => flag::TRIM | flag::WRITE_ZEROES,
            false => flag::READ_ONLY,
        };
        let df = if self.structured { flag::DF } else { 0 };
        // Connections see each other's writes; caches are shared.
        flag::HAS_FLAGS | flag::FLUSH | flag::FUA | flag::CACHE | flag::MULTI_CONN | write | df
    }

    fn info(&mut self, option: u32, data: &[u8]) -> Io<Option<Arc<Export>>> {
        let mut p = Pieces(data);
        let parsed = p.u32().and_then(|n| p.text(n as usize)).map(str::to_owned);
        let wanted = p.u16().and_then(|n| (0..n).map(|_| p.u16()).collect::<Option<Vec<u16>>>());
        let (Some(name), Some(wanted), true) = (parsed, wanted, p.0.is_empty()) else {
            self.reply(option, rep::ERR_INVALID, &[])?;
            return Ok(None);
        };
        let Some(e) = self.find(&name) else {
            self.reply(option, rep::ERR_UNKNOWN, format!("export '{name}' not present").as_bytes())?;
            return Ok(None);
        };
        if wanted.contains(&1) {
            let mut d = 1u16.to_be_bytes().to_vec();
            d.extend(e.name.as_bytes());
            self.reply(option, rep::INFO, &d)?;
        }
        if let (true, Some(text)) = (wanted.contains(&2), &e.o.description) {
            let mut d = 2u16.to_be_bytes().to_vec();
            d.extend(text.as_bytes());
            self.reply(option, rep::INFO, &d)?;
        }
        let mut d = 3u16.to_be_bytes().to_vec();
        [1u32, 4096, MAX_TRANSFER].iter().for_each(|v| d.extend(v.to_be_bytes()));
        self.reply(option, rep::INFO, &d)?;
        let mut d = 0u16.to_be_bytes().to_vec();
        d.extend(e.backend.len().to_be_bytes());
        d.extend(self.flags(&e).to_be_bytes());
        self.reply(option, rep::INFO, &d)?;
        self.reply(option, rep::ACK, &[])?;
        Ok(Some(e))
    }

    fn meta(&mut self, option: u32, data: &[u8]) -> Io<()> {
        let mut p = Pieces(data);
        let name = p.u32().and_then(|n| p.text(n as usize)).map(str::to_owned);
        let queries = p.u32().and_then(|n| {
            (0..n).map(|_| p.u32().and_then(|n| p.text(n as usize))).collect::<Option<Vec<&str>>>()
        });
        let (Some(name), Some(queries), true) = (name, queries, p.0.is_empty()) else {
            return self.reply(option, rep::ERR_INVALID, &[]);
        };
        if !self.structured && option == opt::SET_META {
            return self.reply(option, rep::ERR_INVALID, b"structured replies not negotiated");
        }
        let Some(e) = self.find(&name) else {
            return self.reply(option, rep::ERR_UNKNOWN, format!("export '{name}' not present").as_bytes());
        };
        let mut all = vec![("base:allocation".to_owned(), Context::Allocation)];
        if e.o.allocation_depth {
            all.push(("qemu:allocation-depth".to_owned(), Context::Depth));
        }
        for (n, b) in &e.bitmaps {
            all.push((format!("qemu:dirty-bitmap:{n}"), Context::Bitmap(b.clone())));
        }
        let set = option == opt::SET_META;
        let wanted = |c: &str| {
            (queries.is_empty() && !set)
                || queries.iter().any(|q| *q == c || (!set && (q.ends_with(':') && c.starts_with(*q))))
        };
        all.retain(|(c, _)| wanted(c));
        if set {
            self.contexts.clear();
        }
        for (i, (c, context)) in all.into_iter().enumerate() {
            let mut d = (if set { i as u32 } else { 0 }).to_be_bytes().to_vec();
            d.extend(c.as_bytes());
            self.reply(option, rep::META, &d)?;
            if set {
                self.contexts.push((name.clone(), context));
            }
        }
        self.reply(option, rep::ACK, &[])
    }

    fn transmit(&mut self, e: &Arc<Export>) -> Io<()> {
        self.contexts.retain(|(n, _)| *n == e.name);
        let mut buf = Vec::new();
        loop {
            let head: [u8; 28] = get(&mut self.stream)?;
            let mut p = Pieces(&head);
            let (Some(magic), Some(flags), Some(kind), Some(handle), Some(off), Some(len)) =
                (p.u32(), p.u16(), p.u16(), p.u64(), p.u64(), p.u32())
            else {
                return Err(broken("request"));
            };
            if magic != REQUEST {
                return Err(broken("request magic"));
            }
            if kind == cmd::DISC {
                return Ok(());
            }
            if matches!(kind, cmd::READ | cmd::WRITE) && len > MAX_TRANSFER {
                if kind == cmd::WRITE {
                    return Err(broken("request too long"));
                }
                self.error(handle, Errno::EINVAL)?;
                continue;
            }
            if kind == cmd::WRITE {
                buf.resize(len as usize, 0);
                self.stream.read_exact(&mut buf)?;
            }
            self.command(e, flags, kind, handle, off, len, &mut buf)?;
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn command(
        &mut self,
        e: &Arc<Export>,
        flags: u16,
        kind: u16,
        handle: u64,
        off: u64,
        len: u32,
        buf: &mut Vec<u8>,
    ) -> Io<()> {
        let n = u64::from(len);
        let fua = flags & cmd::FLAG_FUA != 0;
        let size = e.backend.len();
        if kind != cmd::FLUSH && off.checked_add(n).is_none_or(|end| end > size) {
            let error = if kind == cmd::WRITE { Errno::ENOSPC } else { Errno::EINVAL };
            return self.error(handle, error);
        }
        if matches!(kind, cmd::WRITE | cmd::TRIM | cmd::WRITE_ZEROES) && !e.o.writable {
            return self.error(handle, Errno::EPERM);
        }
        let b = &e.backend;
        let r = match kind {
            cmd::READ => {
                buf.resize(len as usize, 0);
                match b.wait(Op::Read, off, n, &[iov::own(buf)]) {
                    Ok(()) => return self.data(handle, off, &buf[..len as usize]),
                    Err(e) => Err(e),
                }
            }
            cmd::WRITE => b.wait(Op::Write { fua }, off, n, &[iov::own_ro(buf)]),
            cmd::FLUSH => b.wait(Op::Flush, 0, 0, &[]),
            cmd::TRIM => {
                let r = b.wait(Op::Discard, off, n, &[]);
                if fua {
                    r.and_then(|()| b.wait(Op::Flush, 0, 0, &[]))
                } else {
                    r
                }
            }
            cmd::WRITE_ZEROES => {
                let unmap = flags & cmd::FLAG_NO_HOLE == 0;
                b.wait(Op::WriteZeroes { unmap, fua }, off, n, &[])
            }
            cmd::CACHE => Ok(()),
            cmd::BLOCK_STATUS => return self.block_status(e, flags, handle, off, n),
            _ => Err(Errno::EINVAL),
        };
        match r {
            Ok(()) => self.good(handle),
            Err(e) => self.error(handle, e),
        }
    }

    fn chunk(&mut self, last: bool, kind: u16, handle: u64, data: &[&[u8]]) -> Io<()> {
        let len: usize = data.iter().map(|d| d.len()).sum();
        let mut m = Vec::with_capacity(20 + len.min(4096));
        m.extend(CHUNK.to_be_bytes());
        m.extend(u16::from(last).to_be_bytes());
        m.extend(kind.to_be_bytes());
        m.extend(handle.to_be_bytes());
        m.extend((len as u32).to_be_bytes());
        for d in data {
            m.extend(*d);
        }
        self.stream.write_all(&m)
    }

    fn simple(&mut self, handle: u64, error: u32, data: &[u8]) -> Io<()> {
        let mut m = Vec::with_capacity(16 + data.len());
        m.extend(SIMPLE.to_be_bytes());
        m.extend(error.to_be_bytes());
        m.extend(handle.to_be_bytes());
        m.extend(data);
        self.stream.write_all(&m)
    }

    fn good(&mut self, handle: u64) -> Io<()> {
        if self.structured {
            self.chunk(true, 0, handle, &[])
        } else {
            self.simple(handle, 0, &[])
        }
    }

    fn data(&mut self, handle: u64, off: u64, data: &[u8]) -> Io<()> {
        match (self.structured, data.is_empty()) {
            (true, true) => self.chunk(true, 0, handle, &[]),
            (true, false) => self.chunk(true, 1, handle, &[&off.to_be_bytes(), data]),
            (false, _) => self.simple(handle, 0, data),
        }
    }

    fn error(&mut self, handle: u64, e: Errno) -> Io<()> {
        let code: u32 = match e.0 {
            libc::EPERM | libc::EROFS => 1,
            libc::ENOMEM => 12,
            libc::ENOSPC | libc::EFBIG | libc::EDQUOT => 28,
            libc::EOVERFLOW => 75,
            libc::ENOTSUP => 95,
            libc::ESHUTDOWN => 108,
            libc::EINVAL => 22,
            _ => 5,
        };
        if self.structured {
            let text = e.to_string();
            let len = text.len() as u16;
            self.chunk(true, 0x8001, handle, &[&code.to_be_bytes(), &len.to_be_bytes(), text.as_bytes()])
        } else {
            self.simple(handle, code, &[])
        }
    }

    fn block_status(&mut self, e: &Arc<Export>, flags: u16, handle: u64, off: u64, len: u64) -> Io<()> {
        if len == 0 || self.contexts.is_empty() {
            return self.error(handle, Errno::EINVAL);
        }
        let one = flags & cmd::FLAG_REQ_ONE != 0;
        let contexts: Vec<Context> = self.contexts.iter().map(|c| c.1.clone()).collect();
        let mut chunks = Vec::new();
        for (i, c) in contexts.iter().enumerate() {
            match extents(e, c, off, len, one) {
                Ok(list) => {
                    let mut d = (i as u32).to_be_bytes().to_vec();
                    for (n, f) in list {
                        d.extend(n.to_be_bytes());
                        d.extend(f.to_be_bytes());
                    }
                    chunks.push(d);
                }
                Err(e) => return self.error(handle, e),
            }
        }
        let last = chunks.len() - 1;
        for (i, d) in chunks.iter().enumerate() {
            self.chunk(i == last, 5, handle, &[d])?;
        }
        Ok(())
    }
}

/// Extents of a context: (length, flags), neighbours joined.
fn extents(e: &Export, c: &Context, off: u64, len: u64, one: bool) -> Result<Vec<(u32, u32)>, Errno> {
    const MOST: usize = 4096;
    let Some(node) = e.backend.root() else { return Err(Errno::ENOMEDIUM) };
    let end = off + len;
    let mut list: Vec<(u32, u32)> = Vec::new();
    let mut at = off;
    while at < end {
        let (n, flags) = match c {
            Context::Allocation => {
                let (h, n) = status_above(&node, None, at, end - at)?;
                // Hole and zero.
                (n, if h == Holds::Data { 0 } else { 3 })
            }
            Context::Depth => {
                let (mut layer, mut depth, mut n) = (Some(node.clone()), 1, end - at);
                loop {
                    let Some(l) = layer else { break (n, 0) };
                    let (s, m) = l.driver().block_status(at, n)?;
                    n = m;
                    if s.allocated {
                        break (n, depth);
                    }
                    layer = l.backing();
                    depth += 1;
                }
            }
            Context::Bitmap(b) => match b.next(at / b.granularity() * b.granularity(), u64::MAX) {
                Some((a, n)) if a <= at => ((a + n).min(end) - at, 1),
                Some((a, _)) if a < end => (a - at, 0),
                _ => (end - at, 0),
            },
        };
        let n = n.max(1);
        let full = (one && !list.is_empty()) || list.len() >= MOST;
        match list.last_mut() {
            Some((m, f)) if *f == flags => *m += n as u32,
            _ if full => break,
            _ => list.push((n as u32, flags)),
        }
        at += n;
    }
    Ok(list)
}
