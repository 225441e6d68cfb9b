//! A QMP client that also checks the wire format: every line must end in CR LF.

use crate::Res;
use serde_json::{json, Map, Value};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// A command's failure.
#[derive(Clone, Debug, PartialEq)]
pub enum Failure {
    /// The server's answer.
    Qmp { class: String, desc: String },
    /// The connection broke, the answer took too long or is malformed.
    Io(String),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Qmp { class, desc } => write!(f, "{class}: {desc}"),
            Failure::Io(e) => write!(f, "QMP connection: {e}"),
        }
    }
}

/// A connection after the greeting.
pub struct Qmp {
    reader: BufReader<UnixStream>,
    timeout: Duration,
    greeting: Value,
    greeting_line: String,
    events: Vec<Value>,
    /// Lines that did not end in CR LF.
    bad_lines: usize,
}

impl Qmp {
    /// Connects to a listening socket, retrying until it is there, `alive` says no, or time is up; reads the greeting.
    pub fn connect(path: &Path, timeout: Duration, mut alive: impl FnMut() -> bool) -> Res<Qmp> {
        let end = Instant::now() + timeout;
        loop {
            match UnixStream::connect(path) {
                Ok(s) => return Qmp::over(s, timeout),
                Err(e) if Instant::now() > end => return Err(format!("connect {}: {e}", path.display())),
                Err(_) if !alive() => return Err("process ended before its QMP socket was there".into()),
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    /// Reads the greeting on a connected socket.
    pub fn over(sock: UnixStream, timeout: Duration) -> Res<Qmp> {
        let mut q = Qmp {
            reader: BufReader::new(sock),
            timeout,
            greeting: Value::Null,
            greeting_line: String::new(),
            events: vec![],
            bad_lines: 0,
        };
        let (line, value) = q.read_line(Instant::now() + timeout)?;
        if value.get("QMP").is_none() {
            return Err(format!("no greeting but {line:?}"));
        }
        q.greeting = value;
        q.greeting_line = line;
        Ok(q)
    }

    /// The greeting.
    pub fn greeting(&self) -> &Value {
        &self.greeting
    }

    /// The greeting as sent.
    pub fn greeting_line(&self) -> &str {
        &self.greeting_line
    }

    /// How many lines broke the rule that lines end in CR LF.
    pub fn bad_lines(&self) -> usize {
        self.bad_lines
    }

    /// Time limit of each command from now on.
    pub fn set_timeout(&mut self, t: Duration) {
        self.timeout = t;
    }

    /// Leaves negotiation mode.
    pub fn negotiate(&mut self) -> Result<Value, Failure> {
        self.cmd("qmp_capabilities", Value::Null)
    }

    /// Runs a command; `args` is an object, or null for none.
    pub fn cmd(&mut self, name: &str, args: Value) -> Result<Value, Failure> {
        let mut m = Map::new();
        m.insert("execute".into(), json!(name));
        if !args.is_null() {
            m.insert("arguments".into(), args);
        }
        self.send(&Value::Object(m).to_string())?;
        self.answer()
    }

    /// Runs an HMP command and returns its text.
    pub fn hmp(&mut self, line: &str) -> Result<String, Failure> {
        let v = self.cmd("human-monitor-command", json!({ "command-line": line }))?;
        v.as_str().map(str::to_owned).ok_or_else(|| Failure::Io(format!("HMP answer is no string: {v}")))
    }

    /// Sends raw text and a newline.
    pub fn send(&mut self, text: &str) -> Result<(), Failure> {
        let mut line = text.to_owned();
        line.push('\n');
        self.reader.get_mut().write_all(line.as_bytes()).map_err(|e| Failure::Io(e.to_string()))
    }

    /// Reads up to the next answer; events on the way are kept.
    pub fn answer(&mut self) -> Result<Value, Failure> {
        let end = Instant::now() + self.timeout;
        loop {
            let (line, v) = self.read_line(end).map_err(Failure::Io)?;
            if v.get("event").is_some() {
                self.events.push(v);
            } else if let Some(e) = v.get("error") {
                let get = |k| e.get(k).and_then(Value::as_str).unwrap_or("?").to_owned();
                return Err(Failure::Qmp { class: get("class"), desc: get("desc") });
            } else if let Some(r) = v.get("return") {
                return Ok(r.clone());
            } else {
                return Err(Failure::Io(format!("neither answer nor event: {line:?}")));
            }
        }
    }

    /// Waits for an event of this name, among those seen before too; removes and returns it.
    pub fn event(&mut self, name: &str, timeout: Duration) -> Res<Value> {
        let end = Instant::now() + timeout;
        loop {
            if let Some(i) = self.events.iter().position(|e| e["event"] == name) {
                return Ok(self.events.remove(i));
            }
            let (_, v) = self.read_line(end).map_err(|e| format!("{e} waiting for event {name}"))?;
            if v.get("event").is_some() {
                self.events.push(v);
            }
        }
    }

    fn read_line(&mut self, end: Instant) -> Res<(String, Value)> {
        let mut buf = vec![];
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err("time out".into());
            }
            self.reader.get_ref().set_read_timeout(Some(left)).map_err(|e| e.to_string())?;
            match self.reader.read_until(b'\n', &mut buf) {
                Ok(_) if buf.last() == Some(&b'\n') => break,
                Ok(_) => return Err("connection closed".into()),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Err("time out".into());
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e.to_string()),
            }
        }
        if !buf.ends_with(b"\r\n") {
            self.bad_lines += 1;
        }
        let text = String::from_utf8_lossy(&buf).trim_end().to_owned();
        let v = serde_json::from_str(&text).map_err(|e| format!("bad JSON {text:?}: {e}"))?;
        Ok((text, v))
    }
}
