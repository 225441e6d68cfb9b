//! The gdb stub (`-gdb`, `-s`): GDB's remote serial protocol on a character device.
//!
//! One thread a vCPU, numbered from 1. Breakpoints go into the code, or into debug registers (`hbreak`, watchpoints). While
//! gdb steps one vCPU the others run too, with interrupts held back on the stepped one where the accelerator can.
//! Writable registers: the general ones, rip, eflags. `monitor ...` runs monitor commands.
//!
//! Specification: "Debugging with GDB", appendix "GDB Remote Serial Protocol". Left out: tracepoints, extended and
//! non-stop mode, multiprocess names.

mod memory;
mod packet;
mod points;
mod query;
mod regs;
#[cfg(test)]
mod tests;

use crate::accel::DebugStop;
use crate::chardev::{CharEvent, CharId, FrontendRef};
use crate::event_loop::{MonInput, MonitorHost};
use crate::machine::Machine;
use crate::run::RunState;
use crate::shared::MachineLock;
use crate::QResult;

use packet::{frame, from_hex, to_hex, Event, Receiver};
use points::{Points, Software};

/// Error replies; gdb only tells the user the number.
const BAD_REQUEST: &str = "E22";
const BAD_MEMORY: &str = "E14";

/// The stub's state.
pub struct Gdb {
    chr: CharId,
    receiver: Receiver,
    /// gdb wants no acknowledgements.
    no_ack: bool,
    /// For `-`.
    last: Vec<u8>,
    /// vCPU of register and memory commands.
    cpu: usize,
    /// Addresses are physical.
    physical: bool,
    points: Points,
    /// gdb waits for the next stop.
    waiting: bool,
    attached: bool,
}

impl Machine {
    /// Starts the stub on a character device.
    ///
    /// # Errors
    /// Something else uses the device.
    pub fn start_gdb(&mut self, chr: CharId) -> QResult<()> {
        self.gdb = Some(Box::new(Gdb {
            chr,
            receiver: Receiver::default(),
            no_ack: false,
            last: Vec::new(),
            cpu: 0,
            physical: false,
            points: Points::default(),
            waiting: false,
            attached: false,
        }));
        self.chr_connect(chr, FrontendRef::Gdb)
    }

    /// Tells gdb that the program ends with `status`.
    pub fn gdb_exit(&mut self, status: i32) {
        let Some(mut g) = self.gdb.take().filter(|g| g.attached) else { return };
        g.send(self, format!("W{:02x}", status as u8).as_bytes());
    }
}

/// Serves gdb: tells of a stop, and does what has arrived.
pub fn pump(m: &mut MachineLock<'_>, host: &mut dyn MonitorHost) {
    let Some(mut g) = m.gdb.take() else { return };
    g.report_stop(m);
    while let Some(input) = m.gdb_inbox.pop_front() {
        match input {
            MonInput::Data(data) => g.input(m, host, &data),
            MonInput::Event(CharEvent::Opened) => g.attach(m),
            MonInput::Event(CharEvent::Closed) => g.closed(m),
            MonInput::Event(_) | MonInput::Writable => {}
        }
    }
    m.gdb = Some(g);
}

/// Signal number that a run state is told as.
fn signal(state: RunState) -> u8 {
    match state {
        RunState::Debug => 5,
        RunState::Shutdown => 3,
        RunState::InternalError | RunState::GuestPanicked => 6,
        RunState::IoError => 23,
        RunState::Watchdog => 14,
        _ => 2,
    }
}

impl Gdb {
    fn attach(&mut self, m: &mut MachineLock<'_>) {
        self.attached = true;
        self.no_ack = false;
        self.waiting = false;
        self.cpu = 0;
        m.vm_stop(RunState::Paused);
    }

    /// gdb went away without a word: its points must not stay in the guest.
    fn closed(&mut self, m: &mut MachineLock<'_>) {
        self.attached = false;
        self.waiting = false;
        if !self.points.software.is_empty() || !self.points.hardware.is_empty() {
            m.vm_stop(RunState::Paused);
            self.remove_all(m);
        }
    }

    fn input(&mut self, m: &mut MachineLock<'_>, host: &mut dyn MonitorHost, data: &[u8]) {
        if !self.attached {
            self.attach(m);
        }
        for b in data {
            match self.receiver.byte(*b) {
                Some(Event::Packet(p)) => {
                    if !self.no_ack {
                        self.write(m, b"+");
                    }
                    self.command(m, host, &p);
                }
                Some(Event::Damaged) => self.write(m, b"-"),
                Some(Event::Nack) => {
                    let last = self.last.clone();
                    self.write(m, &last);
                }
                Some(Event::Interrupt) => {
                    m.vm_stop(RunState::Paused);
                    self.report_stop(m);
                }
                Some(Event::Ack) | None => {}
            }
        }
    }

    fn write(&self, m: &mut Machine, mut data: &[u8]) {
        // A client that never reads loses replies rather than stopping the machine.
        while !data.is_empty() {
            let n = m.chr_write(self.chr, data);
            if n == 0 {
                return;
            }
            data = data.get(n..).unwrap_or(&[]);
        }
    }

    fn send(&mut self, m: &mut Machine, reply: &[u8]) {
        self.last = frame(reply);
        let last = std::mem::take(&mut self.last);
        self.write(m, &last);
        self.last = last;
    }

    /// Tells gdb that the machine has stopped, if it waits for that.
    fn report_stop(&mut self, m: &mut MachineLock<'_>) {
        let state = m.run.state();
        if !self.waiting || state == RunState::Running {
            return;
        }
        let stop = m.debug_stop.take().filter(|_| state == RunState::Debug);
        if let Some(s) = stop {
            if s.is_breakpoint() && !self.points.breaks_at(s.pc) {
                // The guest's own breakpoint instruction: its exception is the guest's.
                let mut debug = self.points.guest_debug(false);
                debug.inject_breakpoint = true;
                if m.accel.set_debug(s.cpu, &debug) {
                    m.vm_start();
                    return;
                }
            }
            self.cpu = s.cpu;
        }
        self.waiting = false;
        let text = self.stop_text(state, stop);
        self.send(m, text.as_bytes());
    }

    fn stop_text(&self, state: RunState, stop: Option<DebugStop>) -> String {
        let mut text = format!("T{:02x}thread:{:02x};", signal(state), self.cpu + 1);
        if let Some((word, addr)) = stop.and_then(|s| self.points.watch_hit(s.dr6)) {
            text += &format!("{word}:{addr:x};");
        }
        text
    }

    fn command(&mut self, m: &mut MachineLock<'_>, host: &mut dyn MonitorHost, p: &[u8]) {
        let Some((first, rest)) = p.split_first() else { return self.send(m, b"") };
        let args = String::from_utf8_lossy(rest).into_owned();
        let args = args.as_str();
        let reply = match first {
            b'?' => self.stop_text(RunState::Debug, None),
            b'c' | b'C' | b's' | b'S' => return self.resume(m, first.eq_ignore_ascii_case(&b's'), self.cpu),
            b'D' => {
                self.remove_all(m);
                self.waiting = false;
                self.send(m, b"OK");
                m.vm_start();
                return;
            }
            b'k' => return self.kill(m),
            b'g' => m.accel.cpu_regs(self.cpu).map_or(BAD_REQUEST.into(), |r| to_hex(&regs::all(&r))),
            b'G' => self.write_all(m, args),
            b'p' => self.read_one(m, args),
            b'P' => self.write_one(m, args),
            b'm' => self.read_memory(m, args),
            b'M' => self.write_memory(m, args),
            b'H' => self.select(m, args),
            b'T' => thread(args).filter(|t| *t < cpus(m)).map_or(BAD_REQUEST, |_| "OK").into(),
            b'Z' => self.insert(m, args),
            b'z' => self.remove(m, args),
            b'v' => return self.verbose(m, args),
            b'q' | b'Q' => query::answer(self, m, host, &String::from_utf8_lossy(p)),
            _ => String::new(),
        };
        self.send(m, reply.as_bytes());
    }

    /// Lets the machine go on; with `step`, the vCPU `cpu` for one instruction.
    fn resume(&mut self, m: &mut MachineLock<'_>, step: bool, cpu: usize) {
        for i in 0..cpus(m) {
            let debug = self.points.guest_debug(step && i == cpu);
            if !m.accel.set_debug(i, &debug) && (debug.single_step || debug.software) {
                return self.send(m, BAD_REQUEST.as_bytes());
            }
        }
        m.debug_stop = None;
        self.waiting = true;
        m.vm_start();
    }

    fn kill(&mut self, m: &mut MachineLock<'_>) {
        eprintln!("QEMU: Terminated via GDBstub");
        m.run.request_exit(0);
    }

    /// `vCont`, `vCont?`, `vKill`.
    fn verbose(&mut self, m: &mut MachineLock<'_>, args: &str) {
        if args == "Cont?" {
            return self.send(m, b"vCont;c;C;s;S");
        }
        if args.starts_with("Kill") {
            self.send(m, b"OK");
            return self.kill(m);
        }
        let Some(actions) = args.strip_prefix("Cont;") else { return self.send(m, b"") };
        let mut step = None;
        for action in actions.split(';') {
            let (what, who) = action.split_once(':').unwrap_or((action, ""));
            match what.bytes().next() {
                Some(b'c' | b'C') => {}
                // The first action that fits a thread counts.
                Some(b's' | b'S') => step = step.or(Some(thread(who).unwrap_or(self.cpu))),
                _ => return self.send(m, BAD_REQUEST.as_bytes()),
            }
        }
        self.resume(m, step.is_some(), step.unwrap_or(self.cpu));
    }

    fn select(&mut self, m: &mut Machine, args: &str) -> String {
        let Some(kind) = args.bytes().next() else { return BAD_REQUEST.into() };
        // All threads, or any.
        let who = args.get(1..).unwrap_or("");
        let cpu = match who {
            "-1" | "0" | "" => self.cpu,
            id => match thread(id).filter(|t| *t < cpus(m)) {
                Some(t) => t,
                None => return BAD_REQUEST.into(),
            },
        };
        if kind == b'g' {
            self.cpu = cpu;
        }
        "OK".into()
    }

    fn write_all(&mut self, m: &mut Machine, args: &str) -> String {
        let (Some(block), Some(mut r)) = (from_hex(args), m.accel.cpu_regs(self.cpu)) else {
            return BAD_REQUEST.into();
        };
        regs::set_all(&mut r, &block);
        done(m.accel.set_cpu_regs(self.cpu, &r))
    }

    fn read_one(&mut self, m: &mut Machine, args: &str) -> String {
        let index = usize::from_str_radix(args, 16).ok();
        let value = index.zip(m.accel.cpu_regs(self.cpu)).and_then(|(i, r)| regs::get(&r, i));
        value.map_or(BAD_REQUEST.into(), |v| to_hex(&v))
    }

    fn write_one(&mut self, m: &mut Machine, args: &str) -> String {
        let parts =
            args.split_once('=').and_then(|(i, v)| Some((usize::from_str_radix(i, 16).ok()?, from_hex(v)?)));
        let (Some((index, value)), Some(mut r)) = (parts, m.accel.cpu_regs(self.cpu)) else {
            return BAD_REQUEST.into();
        };
        done(regs::set(&mut r, index, &value) && m.accel.set_cpu_regs(self.cpu, &r))
    }

    fn read_memory(&mut self, m: &mut Machine, args: &str) -> String {
        let Some((addr, len)) = address_and_length(args).filter(|(_, n)| *n <= packet::MAX_PACKET as u64 / 2)
        else {
            return BAD_REQUEST.into();
        };
        let mut buf = vec![0; len as usize];
        match memory::read(m, self.cpu, self.physical, addr, &mut buf) {
            true => to_hex(&buf),
            false => BAD_MEMORY.into(),
        }
    }

    fn write_memory(&mut self, m: &mut Machine, args: &str) -> String {
        let parts = args.split_once(':').and_then(|(a, d)| Some((address_and_length(a)?, from_hex(d)?)));
        let Some(((addr, len), data)) = parts.filter(|((_, len), d)| *len == d.len() as u64) else {
            return BAD_REQUEST.into();
        };
        match len == 0 || memory::write(m, self.cpu, self.physical, addr, &data) {
            true => "OK".into(),
            false => BAD_MEMORY.into(),
        }
    }

    /// `Z kind,addr,len`.
    fn insert(&mut self, m: &mut Machine, args: &str) -> String {
        const INT3: u8 = 0xcc;
        let Some((kind, addr, len)) = point(args) else { return BAD_REQUEST.into() };
        match kind {
            0 if self.points.breaks_at(addr) => "OK".into(),
            0 => {
                let mut old = [0];
                let ok = memory::read(m, self.cpu, self.physical, addr, &mut old)
                    && memory::write(m, self.cpu, self.physical, addr, &[INT3]);
                if ok {
                    self.points.software.push(Software { addr, old: old[0] });
                }
                done(ok)
            }
            1..=4 => done(self.points.add_hardware(kind, addr, len)),
            _ => String::new(),
        }
    }

    /// `z kind,addr,len`.
    fn remove(&mut self, m: &mut Machine, args: &str) -> String {
        let Some((kind, addr, _)) = point(args) else { return BAD_REQUEST.into() };
        match kind {
            0 => {
                let Some(i) = self.points.software.iter().position(|p| p.addr == addr) else {
                    return BAD_REQUEST.into();
                };
                let p = self.points.software.remove(i);
                done(memory::write(m, self.cpu, self.physical, addr, &[p.old]))
            }
            1..=4 => done(self.points.remove_hardware(kind, addr)),
            _ => String::new(),
        }
    }

    fn remove_all(&mut self, m: &mut Machine) {
        for p in std::mem::take(&mut self.points).software {
            memory::write(m, self.cpu, self.physical, p.addr, &[p.old]);
        }
        for i in 0..cpus(m) {
            m.accel.set_debug(i, &self.points.guest_debug(false));
        }
    }
}

fn done(ok: bool) -> String {
    if ok { "OK" } else { BAD_REQUEST }.into()
}

fn cpus(m: &Machine) -> usize {
    m.info.cpus.len().max(1)
}

/// A thread id (from 1, hexadecimal) as a vCPU index.
fn thread(id: &str) -> Option<usize> {
    usize::from_str_radix(id, 16).ok()?.checked_sub(1)
}

fn address_and_length(args: &str) -> Option<(u64, u64)> {
    let (addr, len) = args.split_once(',')?;
    Some((u64::from_str_radix(addr, 16).ok()?, u64::from_str_radix(len, 16).ok()?))
}

fn point(args: &str) -> Option<(u8, u64, u64)> {
    let (kind, place) = args.split_once(',')?;
    // Conditions and commands may follow; gdb evaluates them itself.
    let (addr, len) = address_and_length(place.split(';').next()?)?;
    Some((kind.parse().ok()?, addr, len))
}
