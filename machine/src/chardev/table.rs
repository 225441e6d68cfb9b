//! All character devices of a machine, and the traffic between back ends and front ends.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;

use super::backend::Backend;
use super::mux::{Key, Mux, MAX_FRONTENDS};
use super::open::open;
use super::{CharEvent, CharId, ConnectError, FrontendRef};
use crate::clock::ClockKind;
use crate::device::DevId;
use crate::event_loop::{FdHandler, FdToken, MonInput, Ready};
use crate::machine::Machine;
use crate::run::Cause;
use crate::spec::{ChardevBackend, ChardevSpec};
use crate::{qerr, QResult};

/// Timers of character devices are filed under this device number.
pub const TIMER_DEV: DevId = DevId::CHARDEV_TIMERS;

enum Kind {
    Plain(Box<dyn Backend>),
    Mux(Mux),
}

struct Chardev {
    label: String,
    kind: Kind,
    frontend: Option<FrontendRef>,
    /// The device that uses it has it open (as `query-chardev` shows).
    frontend_open: bool,
    open: bool,
    /// Input may be there (edge-triggered notification seen, not yet drained).
    readable: bool,
    /// A write was refused; the front end waits to be told.
    blocked: bool,
    conn: Option<FdToken>,
    listen: Option<FdToken>,
    log: Option<File>,
}

impl Chardev {
    fn new(label: &str, kind: Kind) -> Self {
        Self {
            label: label.to_string(),
            open: match &kind {
                Kind::Plain(b) => b.open_at_start(),
                Kind::Mux(_) => true,
            },
            kind,
            frontend: None,
            frontend_open: false,
            readable: false,
            blocked: false,
            conn: None,
            listen: None,
            log: None,
        }
    }
}

/// A character device as `query-chardev` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CharInfo {
    /// Id.
    pub label: String,
    /// Description.
    pub filename: String,
    /// Front end is open.
    pub frontend_open: bool,
}

/// The table.
#[derive(Default)]
pub struct CharTable {
    list: Vec<Option<Chardev>>,
    /// Escape character of multiplexers (Ctrl-A unless `-echr` says otherwise).
    pub escape_char: Option<u8>,
}

impl CharTable {
    fn get(&mut self, id: CharId) -> Option<&mut Chardev> {
        self.list.get_mut(id.0 as usize)?.as_mut()
    }

    /// Whether there is a back end of this kind.
    fn has_kind(&self, kind: &str) -> bool {
        self.list.iter().flatten().any(|c| matches!(&c.kind, Kind::Plain(b) if b.kind() == kind))
    }

    /// By id.
    pub fn find(&self, label: &str) -> Option<CharId> {
        let i = self.list.iter().position(|c| c.as_ref().is_some_and(|c| c.label == label))?;
        Some(CharId(i as u32))
    }

    /// Name of a device.
    pub fn label(&self, id: CharId) -> Option<&str> {
        self.list.get(id.0 as usize)?.as_ref().map(|c| c.label.as_str())
    }

    /// All devices, newest first as QEMU lists them.
    pub fn info(&self) -> Vec<CharInfo> {
        let one = |c: &Chardev| CharInfo {
            label: c.label.clone(),
            filename: match &c.kind {
                Kind::Plain(b) => b.filename(),
                Kind::Mux(_) => "mux".into(),
            },
            frontend_open: c.frontend_open,
        };
        self.list.iter().flatten().map(one).collect()
    }

    /// Whether a device is in use by a front end.
    pub fn busy(&self, id: CharId) -> bool {
        match self.list.get(id.0 as usize) {
            Some(Some(Chardev { kind: Kind::Mux(m), .. })) => m.frontends.len() >= MAX_FRONTENDS,
            Some(Some(c)) => c.frontend.is_some(),
            _ => false,
        }
    }

    /// Disconnects the ports of a device.
    pub fn remove_device(&mut self, dev: DevId) {
        let is = |f: &FrontendRef| matches!(f, FrontendRef::Device(d, _) if *d == dev);
        for c in self.list.iter_mut().flatten() {
            if let Kind::Mux(m) = &mut c.kind {
                m.frontends.retain(|(f, _)| !is(f));
                m.focus = m.focus.min(m.frontends.len().saturating_sub(1));
            }
            if c.frontend.as_ref().is_some_and(is) {
                c.frontend = None;
                c.frontend_open = false;
            }
        }
    }

    /// Puts terminals back.
    pub fn restore_terminals(&mut self) {
        for c in self.list.iter_mut().flatten() {
            if let Kind::Plain(b) = &mut c.kind {
                b.restore();
            }
        }
    }

    /// Runs `f` on the back end of `id`, if it is of type `T`.
    pub fn with_backend<T: 'static, R>(&mut self, id: CharId, f: impl FnOnce(&mut T) -> R) -> Option<R> {
        match &mut self.get(id)?.kind {
            Kind::Plain(b) => b.as_any().downcast_mut().map(f),
            Kind::Mux(_) => None,
        }
    }

    /// Takes up to `n` bytes out of a ring buffer; `None` if `id` is none.
    pub fn ringbuf_take(&mut self, id: CharId, n: usize) -> Option<Vec<u8>> {
        self.with_backend(id, |r: &mut super::files::Ringbuf| r.take(n))
    }

    /// Puts bytes into a ring buffer; `None` if `id` is none.
    pub fn ringbuf_put(&mut self, id: CharId, data: &[u8]) -> Option<()> {
        // A ring buffer takes everything and never fails.
        self.with_backend(id, |r: &mut super::files::Ringbuf| drop(r.write(data)))
    }

    /// Class of a device (`chardev-socket`).
    pub fn class(&self, id: CharId) -> Option<String> {
        let kind = match &self.list.get(id.0 as usize)?.as_ref()?.kind {
            Kind::Plain(b) => b.kind(),
            Kind::Mux(_) => "mux",
        };
        Some(format!("chardev-{kind}"))
    }

    /// Devices whose connection `yank` can cut: sockets, in order of creation.
    pub fn sockets(&self) -> Vec<String> {
        let is = |c: &&Chardev| matches!(&c.kind, Kind::Plain(b) if b.kind() == "socket");
        self.list.iter().flatten().filter(is).map(|c| c.label.clone()).collect()
    }

    /// Path of the other side of a pseudo-terminal.
    pub fn pty_path(&mut self, id: CharId) -> Option<String> {
        self.with_backend(id, |p: &mut super::files::Pty| p.path.clone())
    }

    fn log(c: &mut Chardev, data: &[u8]) {
        if let Some(l) = &mut c.log {
            // A full disk must not stop the guest's console.
            let _ = l.write_all(data);
        }
    }
}

/// Which of a device's descriptors.
#[derive(Clone, Copy)]
enum Role {
    Conn,
    Listen,
}

struct CharFd {
    id: CharId,
    role: Role,
}

impl FdHandler for CharFd {
    fn ready(&mut self, m: &mut Machine, ready: Ready) {
        match self.role {
            Role::Listen => m.chr_accept(self.id),
            Role::Conn => {
                if ready.readable || ready.hangup {
                    if let Some(c) = m.chardevs.get(self.id) {
                        c.readable = true;
                    }
                    m.chr_pump(self.id);
                }
                if ready.writable {
                    m.chr_unblock(self.id);
                }
            }
        }
    }
}

impl Machine {
    /// Makes a character device. `warn` gets informational lines (waiting servers).
    pub fn add_chardev(&mut self, spec: &ChardevSpec, warn: &mut dyn FnMut(String)) -> QResult<CharId> {
        if self.chardevs.find(&spec.id).is_some() {
            return Err(qerr!("Chardev with id '{}' already exists", spec.id));
        }
        let kind = match &spec.backend {
            ChardevBackend::Mux { chardev } => {
                let base = self
                    .chardevs
                    .find(chardev)
                    .ok_or_else(|| qerr!("mux: base chardev {chardev} not found"))?;
                Kind::Mux(Mux::new(base, self.chardevs.escape_char.unwrap_or(1)))
            }
            ChardevBackend::Stdio { .. } if self.chardevs.has_kind("stdio") => {
                return Err(qerr!("cannot use stdio by multiple character devices"));
            }
            _ => Kind::Plain(open(spec, &self.fdsets, warn)?),
        };
        let log = spec.logfile.as_ref().map(|p| {
            let how = if spec.logappend { libc::O_APPEND } else { libc::O_TRUNC };
            let o = self.fdsets.open_path(p, libc::O_WRONLY | libc::O_CREAT | how).map(File::from);
            o.map_err(|e| qerr!("Unable to open logfile {p}: {}", crate::error::strerror(&e)))
        });
        let mut c = Chardev::new(&spec.id, kind);
        c.log = log.transpose()?;
        let slot = self.chardevs.list.iter().position(Option::is_none).unwrap_or(self.chardevs.list.len());
        let id = CharId(slot as u32);
        if slot == self.chardevs.list.len() {
            self.chardevs.list.push(None);
        }
        let base = match &c.kind {
            Kind::Mux(m) => Some(m.base),
            Kind::Plain(_) => None,
        };
        self.chardevs.list[slot] = Some(c);
        if let Some(base) = base {
            self.chr_connect(base, FrontendRef::Mux(id))?;
        }
        self.chr_watch(id)?;
        Ok(id)
    }

    /// Registers the descriptors of a device that are not watched yet.
    fn chr_watch(&mut self, id: CharId) -> QResult<()> {
        let Some(c) = self.chardevs.get(id) else { return Ok(()) };
        let Kind::Plain(b) = &c.kind else { return Ok(()) };
        let (fd, lfd) = (b.fd().filter(|_| c.conn.is_none()), b.listen_fd().filter(|_| c.listen.is_none()));
        let io = |e: io::Error| qerr!("cannot watch character device: {}", crate::error::strerror(&e));
        let listen = lfd
            .map(|fd| self.fds.add(fd, false, Box::new(CharFd { id, role: Role::Listen })))
            .transpose()
            .map_err(io)?;
        let conn = fd
            .map(|fd| self.fds.add(fd, true, Box::new(CharFd { id, role: Role::Conn })))
            .transpose()
            .map_err(io)?;
        if let Some(c) = self.chardevs.get(id) {
            c.listen = listen.or(c.listen);
            c.readable |= conn.is_some();
            c.conn = conn.or(c.conn);
        }
        Ok(())
    }

    /// Registers descriptors of devices made before the main loop existed.
    pub fn chr_rewatch(&mut self) {
        for i in 0..self.chardevs.list.len() {
            let id = CharId(i as u32);
            // Already watched ones are skipped.
            let _ = self.chr_watch(id);
        }
    }

    /// Removes a character device that nobody uses.
    pub fn remove_chardev(&mut self, label: &str) -> QResult<()> {
        let id = self.chardevs.find(label).ok_or_else(|| qerr!("Chardev '{label}' not found"))?;
        let used = match self.chardevs.get(id) {
            Some(Chardev { kind: Kind::Mux(m), .. }) => !m.frontends.is_empty(),
            Some(c) => c.frontend.is_some(),
            None => false,
        };
        if used {
            return Err(qerr!("Chardev '{label}' is busy"));
        }
        self.chr_unwatch(id);
        self.timers.set((TIMER_DEV, id.0), None);
        let gone = self.chardevs.list[id.0 as usize].take();
        if let Some(Chardev { kind: Kind::Mux(m), .. }) = gone {
            if let Some(b) = self.chardevs.get(m.base) {
                b.frontend = None;
            }
        }
        Ok(())
    }

    /// Puts another back end in the place of a device's (`chardev-change`); its front end stays.
    ///
    /// # Errors
    /// There is no such device, it or its front end cannot do that, or the new back end does not open.
    pub fn change_chardev(&mut self, spec: &ChardevSpec, warn: &mut dyn FnMut(String)) -> QResult<CharId> {
        let label = &spec.id;
        let id = self.chardevs.find(label).ok_or_else(|| qerr!("Chardev '{label}' does not exist"))?;
        let frontend = match self.chardevs.get(id) {
            Some(Chardev { kind: Kind::Plain(_), frontend, .. }) => *frontend,
            _ => return Err(qerr!("Mux device hotswap not supported yet")),
        };
        if matches!(spec.backend, ChardevBackend::Mux { .. }) {
            return Err(qerr!("Mux device hotswap not supported yet"));
        }
        if frontend.is_some_and(|f| !matches!(f, FrontendRef::Device(..))) {
            return Err(qerr!("Chardev user does not support chardev hotswap"));
        }
        let mut new = Chardev::new(label, Kind::Plain(open(spec, &self.fdsets, warn)?));
        self.chr_unwatch(id);
        self.timers.set((TIMER_DEV, id.0), None);
        let Some(c) = self.chardevs.get(id) else { return Ok(id) };
        (new.frontend, new.frontend_open) = (c.frontend, c.frontend_open);
        let (was, is) = (c.open, new.open);
        *c = new;
        self.chr_watch(id)?;
        if let Some(f) = frontend.filter(|_| was != is) {
            self.chr_event_to(f, if is { CharEvent::Opened } else { CharEvent::Closed });
        }
        self.chr_pump(id);
        Ok(id)
    }

    fn chr_unwatch(&mut self, id: CharId) {
        let Some(c) = self.chardevs.get(id) else { return };
        for t in [c.conn.take(), c.listen.take()].into_iter().flatten() {
            self.fds.remove(t);
        }
    }

    /// Connects a front end. It is told `Opened` at once if the back end is open.
    pub fn chr_connect(&mut self, id: CharId, frontend: FrontendRef) -> QResult<()> {
        let Some(c) = self.chardevs.get(id) else { return Err(qerr!("no such character device")) };
        let label = c.label.clone();
        match &mut c.kind {
            Kind::Mux(m) => {
                if m.frontends.len() >= MAX_FRONTENDS {
                    return Err(qerr!("too many frontends on multiplexer '{label}'"));
                }
                let (at, old) = m.connect(frontend);
                let focus = m.focus;
                c.frontend_open = true;
                if focus != at {
                    self.chr_later_call(move |m| {
                        m.chr_mux_event(id, at, CharEvent::MuxOut);
                        m.chr_event_to(frontend, CharEvent::Opened);
                    });
                } else {
                    if let Some(old) = old {
                        self.chr_mux_event(id, old, CharEvent::MuxOut);
                    }
                    self.chr_later_call(move |m| {
                        m.chr_event_to(frontend, CharEvent::Opened);
                        m.chr_mux_event(id, at, CharEvent::MuxIn);
                    });
                }
            }
            Kind::Plain(_) => {
                if c.frontend.is_some() {
                    return Err(qerr!("Device '{label}' is in use"));
                }
                c.frontend = Some(frontend);
                c.frontend_open = true;
                if c.open {
                    self.chr_later_call(move |m| m.chr_event_to(frontend, CharEvent::Opened));
                }
            }
        }
        self.chr_later_call(move |m| m.chr_pump(id));
        Ok(())
    }

    /// Runs `f` when no device is being called: a front end that connects while it is realized is not in its slot yet.
    fn chr_later_call(&mut self, f: impl FnOnce(&mut Machine) + Send + 'static) {
        self.push_effect(crate::machine::Effect::Call(Box::new(f)));
        self.settle_if_idle();
    }

    /// Connects a front end to the character device of that name.
    pub fn chr_connect_name(&mut self, name: &str, frontend: FrontendRef) -> Result<CharId, ConnectError> {
        let id = self.chardevs.find(name).ok_or(ConnectError::NotFound)?;
        self.chr_connect(id, frontend).map_err(|_| ConnectError::InUse)?;
        Ok(id)
    }

    /// Adds a back end of unit tests that takes everything.
    #[cfg(test)]
    pub fn add_test_char(&mut self, name: &str) -> CharId {
        let backend = super::files::TestChar { out: Vec::new(), room: usize::MAX };
        self.chardevs.list.push(Some(Chardev::new(name, Kind::Plain(Box::new(backend)))));
        CharId(self.chardevs.list.len() as u32 - 1)
    }

    /// The back end of unit tests of that name.
    #[cfg(test)]
    pub fn test_char<R>(&mut self, name: &str, f: impl FnOnce(&mut super::files::TestChar) -> R) -> R {
        let id = self.chardevs.find(name).unwrap();
        self.chardevs.with_backend(id, f).unwrap()
    }

    /// Sets whether the front end of `id` counts as open (virtio-serial ports open and close).
    pub fn chr_set_frontend_open(&mut self, id: CharId, open: bool) {
        if let Some(c) = self.chardevs.get(id) {
            c.frontend_open = open;
        }
    }

    /// Disconnects the front end of `id`.
    pub fn chr_disconnect(&mut self, id: CharId, frontend: FrontendRef) {
        let Some(c) = self.chardevs.get(id) else { return };
        match &mut c.kind {
            Kind::Mux(m) => m.frontends.retain(|(f, _)| *f != frontend),
            Kind::Plain(_) => c.frontend = None,
        }
        c.frontend_open = false;
    }

    /// Writes; returns how much was taken.
    pub fn chr_write(&mut self, id: CharId, data: &[u8]) -> usize {
        let Some(c) = self.chardevs.get(id) else { return data.len() };
        let n = match &mut c.kind {
            Kind::Mux(m) => {
                let (base, stamps) = (m.base, m.timestamps);
                return if stamps {
                    self.chr_write_stamped(id, base, data)
                } else {
                    self.chr_write(base, data)
                };
            }
            Kind::Plain(b) => match b.write(data) {
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => 0,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => 0,
                // A broken line swallows output; the hang-up is seen by the reader.
                Err(_) => data.len(),
            },
        };
        CharTable::log(c, &data[..n]);
        if n < data.len() {
            c.blocked = true;
        }
        n
    }

    fn chr_write_stamped(&mut self, id: CharId, base: CharId, data: &[u8]) -> usize {
        let ms = self.clock.realtime_ns() / 1_000_000;
        let stamp = format!(
            "[{:02}:{:02}:{:02}.{:03}] ",
            ms / 3_600_000,
            ms / 60_000 % 60,
            ms / 1000 % 60,
            ms % 1000
        );
        for b in data {
            let start = match self.chardevs.get(id).map(|c| &mut c.kind) {
                Some(Kind::Mux(m)) => std::mem::replace(&mut m.line_start, *b == b'\n'),
                _ => false,
            };
            if start {
                self.chr_write(base, stamp.as_bytes());
            }
            self.chr_write(base, &[*b]);
        }
        data.len()
    }

    /// The front end can take input again.
    pub fn chr_accept_input(&mut self, id: CharId) {
        // Not from within the front end's own handler: it is out of its slot there.
        self.push_effect(crate::machine::Effect::Call(Box::new(move |m| m.chr_pump(id))));
        self.settle_if_idle();
    }

    fn chr_unblock(&mut self, id: CharId) {
        let Some(c) = self.chardevs.get(id) else { return };
        if !std::mem::take(&mut c.blocked) {
            return;
        }
        if let Some(f) = c.frontend {
            self.chr_writable_to(f);
        }
    }

    fn chr_writable_to(&mut self, f: FrontendRef) {
        match f {
            FrontendRef::Device(dev, port) => {
                self.with_dev(dev, |d, cx| {
                    if let Some(c) = d.chardev() {
                        c.writable(cx, port);
                    }
                });
            }
            FrontendRef::Monitor(mon) => self.monitor_inbox.push_back((mon, MonInput::Writable)),
            FrontendRef::Qtest | FrontendRef::Gdb => {}
            FrontendRef::Mux(mux) => {
                let all: Vec<_> = match self.chardevs.get(mux).map(|c| &c.kind) {
                    Some(Kind::Mux(m)) => m.frontends.iter().map(|f| f.0).collect(),
                    _ => Vec::new(),
                };
                for f in all {
                    self.chr_writable_to(f);
                }
            }
        }
    }

    fn chr_can_receive(&mut self, f: FrontendRef) -> usize {
        match f {
            FrontendRef::Device(dev, port) => {
                self.with_dev(dev, |d, _| d.chardev().map_or(0, |c| c.can_receive(port))).unwrap_or(0)
            }
            FrontendRef::Monitor(mon) => {
                // One round's worth; the rest stays in the socket.
                if self.suspended_monitors.contains(&mon) {
                    0
                } else {
                    16384
                }
            }
            FrontendRef::Qtest | FrontendRef::Gdb => 4096,
            FrontendRef::Mux(id) => match self.chardevs.get(id).map(|c| &c.kind) {
                Some(Kind::Mux(m)) => usize::from(m.has_room()),
                _ => 0,
            },
        }
    }

    fn chr_deliver(&mut self, f: FrontendRef, data: &[u8]) {
        match f {
            FrontendRef::Device(dev, port) => {
                self.with_dev(dev, |d, cx| {
                    if let Some(c) = d.chardev() {
                        c.receive(cx, port, data);
                    }
                });
            }
            FrontendRef::Monitor(mon) => self.monitor_inbox.push_back((mon, MonInput::Data(data.to_vec()))),
            FrontendRef::Qtest => self.qtest_inbox.extend_from_slice(data),
            FrontendRef::Gdb => self.gdb_inbox.push_back(MonInput::Data(data.to_vec())),
            FrontendRef::Mux(id) => {
                for b in data {
                    self.chr_mux_key(id, *b);
                }
            }
        }
    }

    fn chr_event_to(&mut self, f: FrontendRef, ev: CharEvent) {
        match f {
            FrontendRef::Device(dev, port) => {
                self.with_dev(dev, |d, cx| {
                    if let Some(c) = d.chardev() {
                        c.event(cx, port, ev);
                    }
                });
            }
            FrontendRef::Monitor(mon) => {
                self.monitor_inbox.push_back((mon, MonInput::Event(ev)));
                self.wake_loop();
            }
            FrontendRef::Gdb => {
                self.gdb_inbox.push_back(MonInput::Event(ev));
                self.wake_loop();
            }
            FrontendRef::Qtest => {}
            FrontendRef::Mux(id) => {
                let all: Vec<_> = match self.chardevs.get(id).map(|c| &c.kind) {
                    Some(Kind::Mux(m)) => m.frontends.iter().map(|f| f.0).collect(),
                    _ => Vec::new(),
                };
                for f in all {
                    self.chr_event_to(f, ev);
                }
            }
        }
    }

    fn chr_mux_event(&mut self, id: CharId, index: usize, ev: CharEvent) {
        let f = match self.chardevs.get(id).map(|c| &c.kind) {
            Some(Kind::Mux(m)) => m.frontends.get(index).map(|f| f.0),
            _ => None,
        };
        if let Some(f) = f {
            self.chr_event_to(f, ev);
        }
    }

    pub(super) fn chr_mux_key(&mut self, id: CharId, b: u8) {
        let Some(Kind::Mux(m)) = self.chardevs.get(id).map(|c| &mut c.kind) else { return };
        let (focus, base) = (m.focus, m.base);
        match m.key(b) {
            Key::Nothing => {}
            Key::Data(b) => {
                m.keep(focus, b);
                self.chr_mux_flush(id);
            }
            Key::Help => {
                let help = m.help();
                self.chr_write(base, help.as_bytes());
            }
            Key::Quit => {
                self.chr_write(base, b"QEMU: Terminated\n\r");
                self.run.requests.exit.get_or_insert(0);
                self.wake_loop();
            }
            Key::Commit => self.block_commit_all(),
            Key::Break => self.chr_mux_event(id, focus, CharEvent::Break),
            Key::Timestamps => m.timestamps = !m.timestamps,
            Key::Next => {
                let n = m.frontends.len().max(1);
                m.focus = (focus + 1) % n;
                let next = m.focus;
                self.chr_mux_event(id, focus, CharEvent::MuxOut);
                self.chr_mux_event(id, next, CharEvent::MuxIn);
                self.chr_mux_flush(id);
            }
        }
    }

    /// Gives the focused front end what its buffer holds.
    fn chr_mux_flush(&mut self, id: CharId) {
        loop {
            let Some(Kind::Mux(m)) = self.chardevs.get(id).map(|c| &mut c.kind) else { return };
            let Some((f, q)) = m.frontends.get(m.focus) else { return };
            if q.is_empty() {
                return;
            }
            let f = *f;
            if self.chr_can_receive(f) == 0 {
                return;
            }
            let Some(Kind::Mux(m)) = self.chardevs.get(id).map(|c| &mut c.kind) else { return };
            let focus = m.focus;
            let Some(b) = m.frontends.get_mut(focus).and_then(|(_, q)| q.pop_front()) else { return };
            self.chr_deliver(f, &[b]);
        }
    }

    /// Moves input from the back end to the front end as long as both can.
    pub fn chr_pump(&mut self, id: CharId) {
        let mut buf = [0u8; 4096];
        loop {
            let Some(c) = self.chardevs.get(id) else { return };
            if let Kind::Mux(m) = &c.kind {
                let base = m.base;
                self.chr_mux_flush(id);
                return self.chr_pump(base);
            }
            if !c.readable || (c.conn.is_none() && !c.open) {
                return;
            }
            let room = match c.frontend {
                Some(f) => self.chr_can_receive(f).min(buf.len()),
                None => return self.chr_discard(id),
            };
            if room == 0 {
                return;
            }
            let Some(c) = self.chardevs.get(id) else { return };
            let (f, Kind::Plain(b)) = (c.frontend, &mut c.kind) else { return };
            match b.read(&mut buf[..room]) {
                Ok(0) => {
                    c.readable = false;
                    if b.closes_on_eof() {
                        self.chr_closed(id);
                    }
                    return;
                }
                Ok(n) => {
                    // The first byte from a pty tells that somebody is there.
                    if !c.open {
                        c.open = true;
                        if let Some(f) = f {
                            self.chr_event_to(f, CharEvent::Opened);
                        }
                    }
                    if let Some(f) = f {
                        self.chr_deliver(f, &buf[..n]);
                    }
                    // Monitors are served before more is read, so that the inbox stays small.
                    if matches!(f, Some(FrontendRef::Monitor(_) | FrontendRef::Qtest | FrontendRef::Gdb)) {
                        self.push_effect(crate::machine::Effect::Call(Box::new(move |m| m.chr_later(id))));
                        return;
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    c.readable = false;
                    return;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    c.readable = false;
                    if b.closes_on_eof() {
                        self.chr_closed(id);
                    }
                    return;
                }
            }
        }
    }

    /// Reads on in the next round of the main loop.
    fn chr_later(&mut self, id: CharId) {
        if !self.chr_again.contains(&id) {
            self.chr_again.push(id);
        }
    }

    /// Called once a round: continues reading that was put off.
    pub fn chr_continue(&mut self) {
        for id in std::mem::take(&mut self.chr_again) {
            self.chr_pump(id);
        }
        self.settle_if_idle();
    }

    /// Nobody listens yet: input stays where it is, but a hang-up must be seen.
    fn chr_discard(&mut self, _id: CharId) {}

    fn chr_accept(&mut self, id: CharId) {
        let Some(Kind::Plain(b)) = self.chardevs.get(id).map(|c| &mut c.kind) else { return };
        // Otherwise connected already (the client waits in the backlog), or the client went away again.
        if let Ok(true) = b.accept() {
            self.chr_opened(id);
        }
    }

    fn chr_opened(&mut self, id: CharId) {
        // Cannot fail for a fresh socket; if it does, the connection is simply deaf.
        let _ = self.chr_watch(id);
        let Some(c) = self.chardevs.get(id) else { return };
        c.open = true;
        if let Some(f) = c.frontend {
            self.chr_event_to(f, CharEvent::Opened);
        }
        self.chr_pump(id);
    }

    fn chr_closed(&mut self, id: CharId) {
        let Some(c) = self.chardevs.get(id) else { return };
        c.open = false;
        c.blocked = false;
        if let Some(t) = c.conn.take() {
            self.fds.remove(t);
        }
        let Some(c) = self.chardevs.get(id) else { return };
        let f = c.frontend;
        let Kind::Plain(b) = &mut c.kind else { return };
        let retry = b.disconnected();
        if let Some(f) = f {
            self.chr_event_to(f, CharEvent::Closed);
        }
        if let Some(ns) = retry {
            let at = self.clock.realtime_ns().saturating_add(ns);
            self.timers.set((TIMER_DEV, id.0), Some((ClockKind::Realtime, at)));
        }
        // Somebody may already wait in the backlog; the edge for it was seen while connected.
        self.chr_accept(id);
    }

    /// A timer of a character device: reconnect.
    pub(crate) fn chr_timer(&mut self, id: u32) {
        let id = CharId(id);
        let Some(Kind::Plain(b)) = self.chardevs.get(id).map(|c| &mut c.kind) else { return };
        match b.reconnect() {
            Ok(true) => self.chr_opened(id),
            Ok(false) => {}
            Err(_) => {
                if let Some(ns) = b.disconnected() {
                    let at = self.clock.realtime_ns().saturating_add(ns);
                    self.timers.set((TIMER_DEV, id.0), Some((ClockKind::Realtime, at)));
                }
            }
        }
    }

    /// Takes a descriptor that came with the data of a monitor's character device.
    pub fn chr_take_fd(&mut self, id: CharId) -> Option<OwnedFd> {
        match &mut self.chardevs.get(id)?.kind {
            Kind::Plain(b) => b.take_fd(),
            Kind::Mux(_) => None,
        }
    }

    /// Sends a break to the front end of `id`.
    pub fn chr_send_break(&mut self, id: CharId) {
        let f = self.chardevs.get(id).and_then(|c| match &c.kind {
            Kind::Mux(m) => m.frontends.get(m.focus).map(|f| f.0),
            Kind::Plain(_) => c.frontend,
        });
        if let Some(f) = f {
            self.chr_event_to(f, CharEvent::Break);
        }
    }

    /// Asks for the end of the program, as the multiplexer's escape does.
    pub fn quit_by_user(&mut self) {
        self.request_shutdown(Cause::HostUi);
    }
}
