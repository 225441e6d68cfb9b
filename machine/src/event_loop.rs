//! The main loop: file descriptors, timers, signals and requests, on one thread.

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token, Waker};

use crate::chardev::{CharEvent, MonId};
use crate::device::DevId;
use crate::machine::Machine;
use crate::run::{Cause, RunState, ShutdownAction};
use crate::shared::{MachineLock, Shared};

const WAKER: Token = Token(0);
const TIMER: Token = Token(1);
const SIGNAL: Token = Token(2);
const FIRST: usize = 3;

/// What happened on a descriptor. Readiness is edge-triggered: handlers read or write until the descriptor would block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// Data can be read.
    pub readable: bool,
    /// Data can be written.
    pub writable: bool,
    /// The other end is gone.
    pub hangup: bool,
}

/// Handles a descriptor's events.
pub trait FdHandler: Send {
    /// The descriptor is ready.
    fn ready(&mut self, m: &mut Machine, ready: Ready);
}

/// Handle of a registered descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FdToken(usize);

struct FdEntry {
    fd: RawFd,
    handler: Option<Box<dyn FdHandler>>,
}

/// Descriptors that the main loop watches.
#[derive(Default)]
pub struct FdTable {
    registry: Option<Registry>,
    entries: Vec<Option<FdEntry>>,
    /// Descriptors that cannot be polled (regular files): always ready for reading, served once per `kick`.
    always: VecDeque<FdToken>,
}

impl FdTable {
    /// Watches `fd` (which the caller keeps open until [`Self::remove`]).
    pub fn add(&mut self, fd: RawFd, write: bool, handler: Box<dyn FdHandler>) -> std::io::Result<FdToken> {
        let slot = self.entries.iter().position(Option::is_none).unwrap_or_else(|| {
            self.entries.push(None);
            self.entries.len() - 1
        });
        let token = FdToken(slot + FIRST);
        if let Some(r) = &self.registry {
            let interest = if write { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
            match r.register(&mut SourceFd(&fd), Token(token.0), interest) {
                Err(e) if e.raw_os_error() == Some(libc::EPERM) => self.always.push_back(token),
                other => other?,
            }
        }
        self.entries[slot] = Some(FdEntry { fd, handler: Some(handler) });
        Ok(token)
    }

    /// Stops watching. The descriptor must still be open.
    pub fn remove(&mut self, token: FdToken) {
        self.always.retain(|t| *t != token);
        let Some(e) = self.entries.get_mut(token.0.wrapping_sub(FIRST)).and_then(Option::take) else {
            return;
        };
        if let Some(r) = &self.registry {
            // It may have failed to register (regular file); nothing to do then.
            let _ = r.deregister(&mut SourceFd(&e.fd));
        }
    }

    /// Serves a descriptor that cannot be polled once more.
    pub fn kick(&mut self, token: FdToken) {
        if !self.always.contains(&token) {
            self.always.push_back(token);
        }
    }
}

/// Input for a monitor.
#[derive(Debug)]
pub enum MonInput {
    /// Bytes from its character device.
    Data(Vec<u8>),
    /// Connection event.
    Event(CharEvent),
    /// Its character device takes output again.
    Writable,
}

/// The monitors, as the main loop sees them (implemented by the QMP crate).
pub trait MonitorHost {
    /// Something arrived for monitor `mon`.
    fn input(&mut self, m: &mut MachineLock<'_>, mon: MonId, input: MonInput);
    /// Sends queued events (called after each round and by the host itself after each command).
    fn flush_events(&mut self, m: &mut MachineLock<'_>);
    /// Runs a command of the human monitor and returns what it prints.
    fn monitor_command(&mut self, _m: &mut MachineLock<'_>, _line: &str) -> String {
        String::new()
    }
}

/// How a run of the loop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitStatus(pub i32);

/// The main loop.
pub struct EventLoop {
    poll: Poll,
    events: Events,
    timer: OwnedFd,
    timer_at: Option<u64>,
    signals: OwnedFd,
}

impl EventLoop {
    /// Makes the loop and connects `m` to it; blocks the signals that it handles (do this before starting threads).
    pub fn new(m: &mut Machine) -> std::io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        m.run.set_waker(Arc::new(waker));
        let timer = timer_fd()?;
        poll.registry().register(&mut SourceFd(&timer.as_raw_fd()), TIMER, Interest::READABLE)?;
        let signals = signal_fd()?;
        poll.registry().register(&mut SourceFd(&signals.as_raw_fd()), SIGNAL, Interest::READABLE)?;
        m.fds.registry = Some(poll.registry().try_clone()?);
        Ok(Self { poll, events: Events::with_capacity(64), timer, timer_at: None, signals })
    }

    /// Runs until the machine is to exit.
    pub fn run(&mut self, shared: &Shared, host: &mut dyn MonitorHost) -> std::io::Result<ExitStatus> {
        let mut m = shared.lock();
        loop {
            if let Some(status) = self.round(&mut m, host)? {
                m.net_close();
                return Ok(status);
            }
        }
    }

    /// One turn: everything that is due, then one wait for more.
    pub(crate) fn round(
        &mut self,
        m: &mut MachineLock<'_>,
        host: &mut dyn MonitorHost,
    ) -> std::io::Result<Option<ExitStatus>> {
        m.run_timers();
        pump_monitors(m, host);
        m.pump_qtest();
        m.chr_continue();
        m.net_continue();
        if let Some(status) = carry_out_requests(m, host) {
            host.flush_events(m);
            return Ok(Some(status));
        }
        crate::gdb::pump(m, host);
        host.flush_events(m);
        let busy = m.has_pending_work();
        self.arm_timer(m.next_timer_in());
        let timeout = if busy { Some(Duration::ZERO) } else { None };
        let (poll, events) = (&mut self.poll, &mut self.events);
        match m.unlocked(|| poll.poll(events, timeout)) {
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => return Ok(None),
            r => r?,
        }
        for ev in self.events.iter() {
            match ev.token() {
                WAKER => {}
                TIMER => {
                    drain(self.timer.as_raw_fd());
                    self.timer_at = None;
                }
                SIGNAL => take_signals(&self.signals, m),
                Token(t) => {
                    let ready = Ready {
                        readable: ev.is_readable(),
                        writable: ev.is_writable(),
                        hangup: ev.is_read_closed() || ev.is_error(),
                    };
                    m.fd_ready(FdToken(t), ready);
                }
            }
        }
        for t in std::mem::take(&mut m.fds.always) {
            m.fd_ready(t, Ready { readable: true, ..Ready::default() });
        }
        Ok(None)
    }

    /// Sets the timer descriptor; epoll's own timeout has only millisecond resolution.
    fn arm_timer(&mut self, due_in: Option<u64>) {
        if due_in.is_none() && self.timer_at.is_none() {
            return;
        }
        self.timer_at = due_in;
        let ns = due_in.map_or(0, |d| d.max(1));
        let spec = libc::itimerspec {
            it_interval: libc::timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: libc::timespec {
                tv_sec: (ns / 1_000_000_000) as i64,
                tv_nsec: (ns % 1_000_000_000) as i64,
            },
        };
        // SAFETY: the descriptor is a timerfd that we own; `spec` outlives the call.
        unsafe { libc::timerfd_settime(self.timer.as_raw_fd(), 0, &spec, std::ptr::null_mut()) };
    }
}

/// Hands monitors their input until there is none left.
fn pump_monitors(m: &mut MachineLock<'_>, host: &mut dyn MonitorHost) {
    while let Some((mon, input)) = m.monitor_inbox.pop_front() {
        host.input(m, mon, input);
    }
}

/// Carries out what devices, vCPUs, signals and monitors asked for.
fn carry_out_requests(m: &mut MachineLock<'_>, host: &mut dyn MonitorHost) -> Option<ExitStatus> {
    if let Some(status) = m.run.requests.exit.take() {
        return Some(ExitStatus(status));
    }
    if m.run.requests.suspend {
        m.run.requests.suspend = false;
        m.pause_vcpus();
        if m.run.state() == RunState::Running {
            m.run.set_state(RunState::Suspended);
            m.emit("SUSPEND", None);
        }
    }
    if let Some(cause) = m.run.requests.shutdown.take() {
        let data = serde_json::json!({"guest": cause.by_guest(), "reason": cause.as_str()});
        m.emit("SHUTDOWN", Some(data));
        host.flush_events(m);
        if m.run.actions.shutdown == ShutdownAction::Pause
            && cause != Cause::HostSignal
            && cause != Cause::HostQmpQuit
        {
            m.vm_stop(RunState::Shutdown);
        } else {
            return Some(ExitStatus(m.run.exit_code));
        }
    }
    if let Some(cause) = m.run.requests.reset.take() {
        m.system_reset(cause);
    }
    if m.run.requests.wakeup {
        m.run.requests.wakeup = false;
        wake_up(m);
    }
    if std::mem::take(&mut m.run.requests.powerdown) {
        m.emit("POWERDOWN", None);
        m.power_button();
    }
    if let Some(state) = m.run.requests.stop.take() {
        m.vm_stop(state);
    }
    // A request that paused the vCPUs and left the machine running lets them go on.
    if m.run.state() == RunState::Running && m.run.vcpus.pausing() {
        m.resume_vcpus();
    }
    None
}

fn wake_up(m: &mut MachineLock<'_>) {
    if m.run.state() != RunState::Suspended {
        return;
    }
    m.pause_vcpus();
    m.wakeup_reset();
    m.emit("WAKEUP", None);
    m.run.set_state(RunState::Running);
    m.resume_vcpus();
}

impl Machine {
    /// Calls the handler of a ready descriptor.
    fn fd_ready(&mut self, token: FdToken, ready: Ready) {
        let i = token.0.wrapping_sub(FIRST);
        let Some(mut h) = self.fds.entries.get_mut(i).and_then(|e| e.as_mut()?.handler.take()) else {
            return;
        };
        h.ready(self, ready);
        if let Some(Some(e)) = self.fds.entries.get_mut(i) {
            // The slot may have been given to another descriptor meanwhile; then this handler is gone.
            if e.handler.is_none() {
                e.handler = Some(h);
            }
        }
        self.settle_if_idle();
    }

    /// Watches an event descriptor for device `dev`; `EventFds::signalled(id)` is called after it was drained.
    pub fn watch_device_fd(&mut self, fd: RawFd, dev: DevId, id: u32) -> std::io::Result<FdToken> {
        self.fds.add(fd, false, Box::new(DeviceFd { fd, dev, id }))
    }
}

struct DeviceFd {
    fd: RawFd,
    dev: DevId,
    id: u32,
}

impl FdHandler for DeviceFd {
    fn ready(&mut self, m: &mut Machine, _ready: Ready) {
        drain(self.fd);
        let id = self.id;
        m.with_dev(self.dev, |d, cx| {
            if let Some(e) = d.event_fds() {
                e.signalled(cx, id);
            }
        });
    }
}

/// Empties an eventfd, timerfd or the like.
pub fn drain(fd: RawFd) {
    let mut buf = 0u64;
    // SAFETY: reads at most eight bytes into a local of eight bytes.
    unsafe { libc::read(fd, (&raw mut buf).cast(), 8) };
}

fn timer_fd() -> std::io::Result<OwnedFd> {
    // SAFETY: creates a new descriptor.
    let fd = unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_NONBLOCK | libc::TFD_CLOEXEC) };
    own(fd)
}

fn own(fd: RawFd) -> std::io::Result<OwnedFd> {
    if fd < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just created and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn signal_fd() -> std::io::Result<OwnedFd> {
    // SAFETY: the set is initialised by sigemptyset before use; all calls get valid pointers.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        for s in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            libc::sigaddset(&mut set, s);
        }
        libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
        own(libc::signalfd(-1, &set, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC))
    }
}

fn take_signals(fd: &OwnedFd, m: &mut Machine) {
    loop {
        // SAFETY: an all-zero signalfd_siginfo is valid; the read writes at most its size.
        let (n, info) = unsafe {
            let mut info: libc::signalfd_siginfo = std::mem::zeroed();
            let n = libc::read(fd.as_raw_fd(), (&raw mut info).cast(), size_of_val(&info));
            (n, info)
        };
        if n <= 0 {
            return;
        }
        m.run.killed_by = Some((info.ssi_signo as i32, info.ssi_pid as i32));
        m.request_shutdown(Cause::HostSignal);
    }
}
