//! One QMP client: greeting, negotiation, requests and replies, without any I/O.
//!
//! The owner feeds input with [`Session::input`], takes requests out with [`Session::next_request`], carries each out, answers
//! it with [`Session::reply`] before taking the next, and sends what [`Session::output`] holds. Requests are carried out
//! in the order in which they arrive, so `exec-oob` overtakes nothing here; it is checked by the same rules as in QEMU.
//!
//! Back-pressure: while more than [`OUTPUT_HIGH`] bytes wait to be sent, `next_request` holds the next request back, and
//! [`Session::suspended`] asks the owner to stop reading. Errors that answer no request (junk) are dropped then, so that
//! a client which writes a lot of junk before it reads does not lock itself up. Events still go out up to
//! [`OUTPUT_LIMIT`]; a client that does not read them by then is not sent any more of them.

use crate::wire::{self, Parser, Style};
use rqemu_machine::{qerr, ErrorClass, QError, QResult};
use serde_json::{Map, Value};

/// Bytes of waiting output above which no further request is taken.
pub const OUTPUT_HIGH: usize = 4 << 20;
/// Bytes of waiting output above which events are dropped.
pub const OUTPUT_LIMIT: usize = 16 << 20;

/// Command that ends negotiation.
const NEGOTIATE: &str = "qmp_capabilities";

/// A well-formed request.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Command.
    pub command: String,
    /// Arguments.
    pub arguments: Map<String, Value>,
    /// Given with `exec-oob`.
    pub oob: bool,
    id: Option<Value>,
}

/// What to answer to a request besides its result.
#[derive(Debug)]
pub struct ReplyTo(Option<Value>);

impl Request {
    /// Splits off what [`Session::reply`] needs.
    pub fn reply_to(&mut self) -> ReplyTo {
        ReplyTo(self.id.take())
    }
}

/// One QMP client.
#[derive(Debug)]
pub struct Session {
    style: Style,
    connected: bool,
    negotiated: bool,
    oob: bool,
    parser: Parser,
    /// Input not yet parsed, from `at`.
    pending: Vec<u8>,
    at: usize,
    /// Request that waits for the client to read.
    held: Option<Request>,
    out: Vec<u8>,
}

impl Session {
    /// A session without a client.
    pub fn new(style: Style) -> Self {
        Self {
            style,
            connected: false,
            negotiated: false,
            oob: false,
            parser: Parser::new(),
            pending: Vec::new(),
            at: 0,
            held: None,
            out: Vec::new(),
        }
    }

    /// A client connected: it gets the greeting.
    pub fn opened(&mut self) {
        self.closed();
        self.connected = true;
        let qemu = crate::version::QEMU.to_value();
        let greeting = serde_json::json!({
            "QMP": {"version": {"qemu": qemu, "package": crate::version::PACKAGE}, "capabilities": ["oob"]}
        });
        self.send(&greeting);
    }

    /// The client is gone; whatever was on its way is dropped.
    pub fn closed(&mut self) {
        *self = Self::new(self.style);
    }

    /// Takes input.
    pub fn input(&mut self, data: &[u8]) {
        if self.at == self.pending.len() {
            self.pending.clear();
            self.at = 0;
        }
        self.pending.extend_from_slice(data);
    }

    /// Whether there is input that has not been looked at.
    pub fn has_input(&self) -> bool {
        self.held.is_some() || self.at < self.pending.len()
    }

    /// Whether the owner should not read more input for now.
    pub fn suspended(&self) -> bool {
        self.held.is_some() && self.full()
    }

    fn full(&self) -> bool {
        self.out.len() > OUTPUT_HIGH
    }

    /// The next request. Errors of the protocol are answered on the way.
    pub fn next_request(&mut self) -> Option<Request> {
        if self.suspended() {
            return None;
        }
        if let Some(request) = self.held.take() {
            return Some(request);
        }
        loop {
            let mut rest = &self.pending[self.at..];
            let item = self.parser.next(&mut rest);
            self.at = self.pending.len() - rest.len();
            let (id, request) = match item? {
                Ok(value) => self.check(value),
                Err(message) => (None, Err(QError::generic(message))),
            };
            match request {
                Ok(request) if self.full() => {
                    self.held = Some(Request { id, ..request });
                    return None;
                }
                Ok(request) => return Some(Request { id, ..request }),
                Err(_) if self.full() && id.is_none() => {}
                Err(error) => self.reply(ReplyTo(id), Err(error)),
            }
        }
    }

    /// Checks the frame of a request. QEMU looks at it in two steps: members and their types first, then whether the
    /// command may run in this state.
    fn check(&self, value: Value) -> (Option<Value>, QResult<Request>) {
        let Value::Object(mut members) = value else {
            return (None, Err(qerr!("QMP input must be a JSON object")));
        };
        let id = members.swap_remove("id");
        (id, self.frame(members))
    }

    fn frame(&self, members: Map<String, Value>) -> QResult<Request> {
        let (mut execute, mut exec_oob, mut arguments) = (None, None, None);
        for (name, value) in members {
            let slot = match name.as_str() {
                "execute" => &mut execute,
                "exec-oob" if self.oob => &mut exec_oob,
                "arguments" => &mut arguments,
                _ => return Err(qerr!("QMP input member '{name}' is unexpected")),
            };
            *slot = Some(value);
        }
        let (name, command, oob) = match (execute, exec_oob) {
            (Some(_), Some(_)) => return Err(qerr!("QMP input member 'execute' clashes with 'exec-oob'")),
            (Some(v), None) => ("execute", Some(v), false),
            (None, v) => ("exec-oob", v, true),
        };
        let command = match command {
            Some(Value::String(s)) => Some(s),
            Some(_) => return Err(qerr!("QMP input member '{name}' must be a string")),
            None => None,
        };
        let arguments = match arguments {
            None => Map::new(),
            Some(Value::Object(map)) => map,
            Some(_) => return Err(qerr!("QMP input member 'arguments' must be an object")),
        };
        let command = command.ok_or_else(|| qerr!("QMP input lacks member 'execute'"))?;
        if !self.negotiated && command != NEGOTIATE {
            let text = "Expecting capabilities negotiation with 'qmp_capabilities'";
            return Err(QError::new(ErrorClass::CommandNotFound, text));
        }
        Ok(Request { command, arguments, oob, id: None })
    }

    /// Negotiation is over.
    pub fn negotiated(&self) -> bool {
        self.negotiated
    }

    /// Ends negotiation (called by the handler of `qmp_capabilities`).
    pub fn negotiate(&mut self, oob: bool) {
        self.negotiated = true;
        self.oob = oob;
    }

    /// Answers a request.
    pub fn reply(&mut self, to: ReplyTo, result: QResult<Value>) {
        let mut reply = Map::new();
        match result {
            Ok(value) => {
                reply.insert("return".into(), value);
                if let Some(id) = to.0 {
                    reply.insert("id".into(), id);
                }
            }
            Err(error) => {
                if let Some(id) = to.0 {
                    reply.insert("id".into(), id);
                }
                let error = serde_json::json!({"class": error.class.as_str(), "desc": error.desc});
                reply.insert("error".into(), error);
            }
        }
        self.send(&reply.into());
    }

    /// Sends an event, if the client is past negotiation.
    pub fn event(&mut self, event: &Value) {
        if self.negotiated && self.out.len() < OUTPUT_LIMIT {
            self.send(event);
        }
    }

    fn send(&mut self, value: &Value) {
        if self.connected {
            wire::write_value(&mut self.out, value, self.style);
            self.out.extend_from_slice(b"\r\n");
        }
    }

    /// What waits to be sent.
    pub fn output(&self) -> &[u8] {
        &self.out
    }

    /// The first `n` bytes of [`Session::output`] have been sent.
    pub fn sent(&mut self, n: usize) {
        if n >= self.out.len() {
            self.out.clear();
            self.out.shrink_to(64 << 10);
        } else {
            self.out.drain(..n);
        }
    }
}
