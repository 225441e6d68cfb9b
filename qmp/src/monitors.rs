//! All monitors of a machine: the main loop hands them input, they run commands and send replies and events.
//!
//! Order on the wire is QEMU's: events that a command causes go out before its reply. A command whose effect is carried
//! out by the main loop afterwards (`quit`, `system_reset`) is answered after that, and until then no further request
//! of its client is taken.

use crate::event::{self, Throttle};
use crate::fds::FdStore;
use crate::hmp::{FormatDefaults, HmpSession};
use crate::session::{ReplyTo, Session};
use crate::table;
use crate::wire::Style;
use rqemu_machine::chardev::{CharEvent, CharId, FrontendRef, MonId};
use rqemu_machine::clock::ClockKind;
use rqemu_machine::device::DevId;
use rqemu_machine::event_loop::{MonInput, MonitorHost};
use rqemu_machine::shared::MachineLock;
use rqemu_machine::spec::ChardevSpec;
use rqemu_machine::{qerr, Machine, QResult};
use serde_json::Value;
use std::time::Instant;

/// Timer that wakes the main loop for held events; it belongs to no device.
const WAKE_TIMER: (DevId, u32) = (DevId::MONITOR_TIMERS, 0);

/// What commands need that the machine does not know.
pub trait Env: Send {
    /// Options for `query-command-line-options`, with their parameters.
    fn command_line_options(&self) -> Vec<CommandLineOption>;

    /// Character devices that `text` describes as `-chardev` does; `id` stands for an `id=` in it.
    ///
    /// # Errors
    /// What `-chardev` would say.
    fn chardevs(&self, text: &str, id: Option<&str>) -> QResult<Vec<ChardevSpec>>;
}

/// An option for `query-command-line-options`.
#[derive(Clone, Debug, Default)]
pub struct CommandLineOption {
    /// Name without the dash.
    pub option: String,
    /// Parameters: name, type (`string`, `boolean`, `number`, `size`), help, default.
    pub parameters: Vec<CommandLineParameter>,
}

/// A parameter of an option.
#[derive(Clone, Debug, Default)]
pub struct CommandLineParameter {
    /// Name.
    pub name: String,
    /// `string`, `boolean`, `number` or `size`.
    pub ty: &'static str,
    /// One line of help.
    pub help: Option<String>,
    /// Default value as text.
    pub default: Option<String>,
}

/// An environment without command line.
#[derive(Debug, Default)]
pub struct NoEnv;

impl Env for NoEnv {
    fn command_line_options(&self) -> Vec<CommandLineOption> {
        Vec::new()
    }

    fn chardevs(&self, _: &str, _: Option<&str>) -> QResult<Vec<ChardevSpec>> {
        Err(qerr!("chardev: not available"))
    }
}

/// What a command may touch.
pub struct MonitorCx<'a, 'm> {
    /// The machine.
    pub m: &'a mut MachineLock<'m>,
    /// Monitor that runs the command.
    pub mon: &'a mut MonState,
    /// The rest of the program.
    pub env: &'a mut dyn Env,
    /// Descriptors by name.
    pub fds: &'a mut FdStore,
    /// Effects on the session, applied after the command.
    pub after: After,
}

/// Effects of a command on its session.
#[derive(Clone, Copy, Debug, Default)]
pub struct After {
    /// Negotiation is over; the value says whether OOB is on.
    pub negotiated: Option<bool>,
    /// Answer only when the main loop has carried out what was asked for.
    pub defer: bool,
    /// Take no further request: the program ends.
    pub last: bool,
}

/// State of one monitor that commands may change.
#[derive(Debug, Default)]
pub struct MonState {
    /// Its character device; `None` for the inside of `human-monitor-command`.
    pub chr: Option<CharId>,
    /// Capabilities negotiation is over.
    pub negotiated: bool,
    /// CPU that HMP commands look at.
    pub cpu: usize,
    /// What the next `/fmt` of an HMP command leaves out.
    pub format: FormatDefaults,
    /// Lines that were typed, oldest first.
    pub history: Vec<String>,
}

enum Kind {
    Qmp(Box<Session>),
    Hmp(HmpSession),
}

struct Monitor {
    chr: CharId,
    kind: Kind,
    state: MonState,
    /// Reply that waits for the main loop.
    deferred: Option<(ReplyTo, QResult<Value>)>,
    /// The program is about to end.
    ended: bool,
}

impl Monitor {
    /// There is input that can be worked on.
    fn has_work(&self) -> bool {
        self.deferred.is_none()
            && !self.ended
            && match &self.kind {
                Kind::Qmp(s) => s.has_input() && !s.suspended(),
                Kind::Hmp(s) => s.has_input() && !s.suspended(),
            }
    }
}

/// All monitors.
pub struct Monitors {
    list: Vec<Monitor>,
    throttle: Throttle,
    fds: FdStore,
    /// What the wake-up timer is set to.
    armed: Option<Instant>,
    env: Box<dyn Env>,
}

impl Monitors {
    /// No monitors yet.
    pub fn new(env: Box<dyn Env>) -> Self {
        Self { list: Vec::new(), throttle: Throttle::default(), fds: FdStore::default(), armed: None, env }
    }

    /// Adds a QMP monitor on a character device.
    ///
    /// # Errors
    /// The device is in use.
    pub fn add_qmp(&mut self, m: &mut Machine, chr: CharId, pretty: bool) -> QResult<MonId> {
        let style = if pretty { Style::Pretty } else { Style::Compact };
        self.add(m, chr, Kind::Qmp(Box::new(Session::new(style))))
    }

    /// Adds a human monitor on a character device.
    ///
    /// # Errors
    /// The device is in use.
    pub fn add_hmp(&mut self, m: &mut Machine, chr: CharId) -> QResult<MonId> {
        self.add(m, chr, Kind::Hmp(HmpSession::new()))
    }

    fn add(&mut self, m: &mut Machine, chr: CharId, kind: Kind) -> QResult<MonId> {
        let id = u32::try_from(self.list.len()).map_err(|_| qerr!("too many monitors"))?;
        self.list.push(Monitor {
            chr,
            kind,
            state: MonState { chr: Some(chr), ..Default::default() },
            deferred: None,
            ended: false,
        });
        let id = MonId(id);
        m.chr_connect(chr, FrontendRef::Monitor(id)).inspect_err(|_| {
            self.list.pop();
        })?;
        Ok(id)
    }

    /// Greets the clients that are connected already, while the machine is still being built: they need not wait for it
    /// to send their first commands.
    pub fn greet(&mut self, m: &mut Machine) {
        for i in 0..self.list.len() {
            let Kind::Qmp(session) = &mut self.list[i].kind else { continue };
            let opened = |(id, input): &(MonId, MonInput)| {
                id.0 as usize == i && matches!(input, MonInput::Event(CharEvent::Opened))
            };
            let Some(at) = m.monitor_inbox.iter().position(opened) else { continue };
            m.monitor_inbox.remove(at);
            session.opened();
            self.send(m, i);
        }
    }

    /// Runs what monitor `i` has received.
    fn work(&mut self, m: &mut MachineLock<'_>, i: usize) {
        loop {
            let Some(mon) = self.list.get_mut(i) else { return };
            if mon.deferred.is_some() || mon.ended {
                break;
            }
            match &mut mon.kind {
                Kind::Qmp(session) => {
                    let Some(mut request) = session.next_request() else { break };
                    let to = request.reply_to();
                    mon.state.negotiated = session.negotiated();
                    let mut cx = MonitorCx {
                        m,
                        mon: &mut mon.state,
                        env: &mut *self.env,
                        fds: &mut self.fds,
                        after: After::default(),
                    };
                    let result = table::dispatch(&mut cx, &request.command, request.arguments, request.oob);
                    let after = cx.after;
                    self.events(m);
                    self.answer(i, to, result, after);
                }
                Kind::Hmp(session) => {
                    let Some(line) = session.next_work() else { break };
                    let mut cx = MonitorCx {
                        m,
                        mon: &mut mon.state,
                        env: &mut *self.env,
                        fds: &mut self.fds,
                        after: After::default(),
                    };
                    session.run(&mut cx, line);
                    self.events(m);
                }
            }
        }
        // The output of a human monitor waits until all that has arrived for it is seen: then it is known which front
        // end of a multiplexer has the terminal.
        let human = matches!(self.list.get(i), Some(Monitor { kind: Kind::Hmp(_), .. }));
        if !human || m.monitor_inbox.iter().all(|(id, _)| id.0 as usize != i) {
            self.send(m, i);
        }
    }

    fn answer(&mut self, i: usize, to: ReplyTo, result: QResult<Value>, after: After) {
        let Some(mon) = self.list.get_mut(i) else { return };
        let Kind::Qmp(session) = &mut mon.kind else { return };
        if let Some(oob) = after.negotiated {
            session.negotiate(oob);
        }
        mon.ended |= after.last;
        if after.defer && result.is_ok() {
            mon.deferred = Some((to, result));
        } else {
            session.reply(to, result);
        }
    }

    /// Moves the machine's queued events to the sessions.
    fn events(&mut self, m: &mut MachineLock<'_>) {
        if m.events.is_empty() && self.throttle.deadline().is_none() {
            return;
        }
        let now = Instant::now();
        let mut ready = self.throttle.due(now);
        while let Some(event) = m.events.pop_front() {
            ready.extend(self.throttle.pass(event, now));
        }
        for event in ready {
            let value = event::to_value(&event);
            for mon in &mut self.list {
                if let Kind::Qmp(session) = &mut mon.kind {
                    session.event(&value);
                }
            }
        }
    }

    /// Wakes the main loop when a held event is due.
    fn arm(&mut self, m: &mut MachineLock<'_>) {
        let due = self.throttle.deadline();
        // A timer that fired a moment too early is set again.
        if due == self.armed && due.is_some() == m.timers.deadline(WAKE_TIMER).is_some() {
            return;
        }
        self.armed = due;
        let wait = due.map(|d| d.saturating_duration_since(Instant::now()).as_nanos() as i64);
        let at = wait.map(|w| (ClockKind::Realtime, m.clock.now(ClockKind::Realtime).saturating_add(w)));
        m.timers.set(WAKE_TIMER, at);
    }

    /// Sends what waits, and tells the character device whether to go on reading.
    fn send(&mut self, m: &mut Machine, i: usize) {
        let Some(mon) = self.list.get_mut(i) else { return };
        let chr = mon.chr;
        let id = MonId(i as u32);
        let out = match &mon.kind {
            Kind::Qmp(s) => s.output(),
            Kind::Hmp(s) => s.output(),
        };
        if !out.is_empty() {
            let n = m.chr_write(chr, out);
            match &mut mon.kind {
                Kind::Qmp(s) => s.sent(n),
                Kind::Hmp(s) => s.sent(n),
            }
        }
        let stop = mon.deferred.is_some()
            || match &mon.kind {
                Kind::Qmp(s) => s.suspended(),
                Kind::Hmp(s) => s.suspended(),
            };
        let stopped = m.suspended_monitors.iter().position(|x| *x == id);
        match (stop, stopped) {
            (true, None) => m.suspended_monitors.push(id),
            (false, Some(at)) => {
                m.suspended_monitors.swap_remove(at);
                m.chr_accept_input(chr);
            }
            _ => {}
        }
    }
}

impl MonitorHost for Monitors {
    fn monitor_command(&mut self, m: &mut MachineLock<'_>, line: &str) -> String {
        let mut state = MonState::default();
        let mut cx = MonitorCx {
            m,
            mon: &mut state,
            env: &mut *self.env,
            fds: &mut self.fds,
            after: After::default(),
        };
        crate::hmp::execute(&mut cx, line)
    }

    fn input(&mut self, m: &mut MachineLock<'_>, mon: MonId, input: MonInput) {
        let i = mon.0 as usize;
        let Some(entry) = self.list.get_mut(i) else { return };
        match (input, &mut entry.kind) {
            (MonInput::Data(data), Kind::Qmp(s)) => s.input(&data),
            (MonInput::Data(data), Kind::Hmp(s)) => s.input(&data),
            (MonInput::Writable, _) => {}
            (MonInput::Event(CharEvent::Opened), Kind::Qmp(s)) => {
                entry.deferred = None;
                s.opened();
            }
            (MonInput::Event(CharEvent::Closed), Kind::Qmp(s)) => {
                entry.deferred = None;
                s.closed();
            }
            (MonInput::Event(e), Kind::Hmp(s)) => s.event(e),
            (MonInput::Event(_), Kind::Qmp(_)) => {}
        }
        self.work(m, i);
    }

    fn flush_events(&mut self, m: &mut MachineLock<'_>) {
        self.events(m);
        for i in 0..self.list.len() {
            let mon = &mut self.list[i];
            if let Some((to, result)) = mon.deferred.take() {
                if let Kind::Qmp(session) = &mut mon.kind {
                    session.reply(to, result);
                }
            }
            self.send(m, i);
            while self.list[i].has_work() {
                self.work(m, i);
                self.send(m, i);
            }
        }
        self.arm(m);
    }
}
