//! The qtest server: drives devices over a text protocol, without a CPU or beside stopped ones.
//!
//! One command a line, one reply a line (`OK ...`, `FAIL ...`, `ERR ...`); `IRQ raise n` lines come unasked for
//! intercepted interrupts. The commands are those of QEMU's qtest protocol.

use std::fs::File;
use std::io::Write;

use crate::chardev::{CharId, FrontendRef};
use crate::clock::ClockKind;
use crate::machine::Machine;
use crate::memory::Space;
use crate::{qerr, QResult};

/// Longest line; more is answered with an error and dropped.
const MAX_LINE: usize = 16 << 20;

/// State of the server.
pub struct Qtest {
    chr: CharId,
    line: Vec<u8>,
    log: Option<Box<dyn Write + Send>>,
    /// Levels of the interrupts that are watched, if any are.
    irqs: Option<Vec<bool>>,
}

impl Machine {
    /// Starts the server on a character device. `log` is a file name, `none`, or `None` for standard error.
    pub fn start_qtest(&mut self, chr: CharId, log: Option<&str>) -> QResult<()> {
        let log: Option<Box<dyn Write + Send>> = match log {
            None => Some(Box::new(std::io::stderr())),
            Some("none") => None,
            Some(path) => Some(Box::new(
                File::create(path)
                    .map_err(|e| qerr!("cannot open {path}: {}", crate::error::strerror(&e)))?,
            )),
        };
        self.qtest = Some(Box::new(Qtest { chr, line: Vec::new(), log, irqs: None }));
        self.chr_connect(chr, FrontendRef::Qtest)
    }

    /// Serves what has arrived.
    pub fn pump_qtest(&mut self) {
        if self.qtest_inbox.is_empty() {
            return;
        }
        let input = std::mem::take(&mut self.qtest_inbox);
        let Some(mut q) = self.qtest.take() else { return };
        for b in input {
            if b != b'\n' {
                if q.line.len() < MAX_LINE {
                    q.line.push(b);
                }
                continue;
            }
            let line =
                String::from_utf8_lossy(&std::mem::take(&mut q.line)).trim_end_matches('\r').to_string();
            q.log("R", &line);
            let before = q.irqs.is_some().then(|| self.gsi_levels());
            let reply = self.qtest_command(&mut q, &line);
            self.settle();
            if let Some(old) = before {
                q.report_irqs(self, &old);
            }
            q.send(self, &reply);
        }
        self.qtest = Some(q);
    }

    fn gsi_levels(&mut self) -> Vec<bool> {
        (0..16)
            .map(|i| {
                let line = self.isa_irq(i);
                self.irqs.level(line)
            })
            .collect()
    }

    fn qtest_command(&mut self, q: &mut Qtest, line: &str) -> String {
        let words: Vec<&str> = line.split(' ').filter(|w| !w.is_empty()).collect();
        let Some((cmd, args)) = words.split_first() else { return "FAIL Unknown command ''".into() };
        self.qtest_access(cmd, args)
            .or_else(|| self.qtest_bulk(cmd, args))
            .or_else(|| self.qtest_control(q, cmd, args))
            .unwrap_or_else(|| format!("FAIL Unknown command '{cmd}'"))
    }

    /// `inb`, `outl`, `readq`, ...
    fn qtest_access(&mut self, cmd: &str, args: &[&str]) -> Option<String> {
        let (base, width) = cmd.split_at_checked(cmd.len().checked_sub(1)?)?;
        let (space, write) = match base {
            "in" => (Space::Io, false),
            "out" => (Space::Io, true),
            "read" => (Space::Memory, false),
            "write" => (Space::Memory, true),
            _ => return None,
        };
        let size = match (width, space) {
            ("b", _) => 1,
            ("w", _) => 2,
            ("l", _) => 4,
            ("q", Space::Memory) => 8,
            _ => return None,
        };
        let Some(addr) = args.first().and_then(|a| number(a)) else { return Some("ERR bad address".into()) };
        if write {
            let Some(v) = args.get(1).and_then(|a| number(a)) else { return Some("ERR bad value".into()) };
            self.bus_write(space, addr, &v.to_le_bytes()[..size]);
            return Some("OK".into());
        }
        let mut b = [0u8; 8];
        self.bus_read(space, addr, &mut b[..size]);
        let v = u64::from_le_bytes(b);
        Some(match space {
            Space::Io => format!("OK 0x{v:04x}"),
            Space::Memory => format!("OK 0x{v:016x}"),
        })
    }

    /// `read`, `write`, `memset`: many bytes.
    fn qtest_bulk(&mut self, cmd: &str, args: &[&str]) -> Option<String> {
        if !matches!(cmd, "read" | "write" | "memset") {
            return None;
        }
        let (Some(addr), Some(len)) =
            (args.first().and_then(|a| number(a)), args.get(1).and_then(|a| number(a)))
        else {
            return Some("ERR bad arguments".into());
        };
        let Some(len) = usize::try_from(len).ok().filter(|l| (1..=MAX_LINE).contains(l)) else {
            return Some("ERR bad length".into());
        };
        let mut data = vec![0u8; len];
        match cmd {
            "read" => {
                self.bus_read(Space::Memory, addr, &mut data);
                let hex: String = data.iter().map(|b| format!("{b:02x}")).collect();
                return Some(format!("OK 0x{hex}"));
            }
            "write" => {
                let hex = args.get(2).and_then(|h| h.strip_prefix("0x")).unwrap_or("");
                for (i, d) in data.iter_mut().enumerate() {
                    *d = hex.get(2 * i..2 * i + 2).and_then(|h| u8::from_str_radix(h, 16).ok()).unwrap_or(0);
                }
            }
            _ => data.fill(args.get(2).and_then(|a| number(a)).unwrap_or(0) as u8),
        }
        self.bus_write(Space::Memory, addr, &data);
        Some("OK".into())
    }

    fn qtest_control(&mut self, q: &mut Qtest, cmd: &str, args: &[&str]) -> Option<String> {
        match cmd {
            "endianness" => Some("OK little".into()),
            "irq_intercept_in" | "irq_intercept_out" => {
                q.irqs = Some(vec![false; 16]);
                Some("OK".into())
            }
            "clock_step" | "clock_set" if !self.clock.is_manual() => None,
            "clock_step" => {
                let now = self.clock.virtual_ns();
                let target = match args.first().and_then(|a| number(a)) {
                    Some(ns) => now.saturating_add(i64::try_from(ns).unwrap_or(i64::MAX)),
                    None => self.timers.next(ClockKind::Virtual).unwrap_or(now).max(now),
                };
                self.warp(target);
                Some(format!("OK {}", self.clock.virtual_ns()))
            }
            "clock_set" => {
                let ns = args.first().and_then(|a| number(a))?;
                self.warp(i64::try_from(ns).unwrap_or(i64::MAX));
                Some(format!("OK {}", self.clock.virtual_ns()))
            }
            _ => None,
        }
    }

    /// Moves a manual clock forward, firing timers on the way in order.
    pub fn warp(&mut self, target: i64) {
        while let Some(at) = self.timers.next(ClockKind::Virtual).filter(|t| *t <= target) {
            self.clock.set_virtual(at.max(self.clock.virtual_ns()));
            self.run_timers();
        }
        self.clock.set_virtual(target.max(self.clock.virtual_ns()));
    }
}

impl Qtest {
    fn log(&mut self, dir: &str, line: &str) {
        if let Some(l) = &mut self.log {
            // The log is for people; losing it must not stop the server.
            let _ = writeln!(l, "[{dir}] {line}");
        }
    }

    fn send(&mut self, m: &mut Machine, line: &str) {
        self.log("S", line);
        let text = format!("{line}\n");
        let mut rest = text.as_bytes();
        // A client that never reads loses replies rather than stopping the machine.
        while !rest.is_empty() {
            let n = m.chr_write(self.chr, rest);
            if n == 0 {
                return;
            }
            rest = &rest[n..];
        }
    }

    fn report_irqs(&mut self, m: &mut Machine, old: &[bool]) {
        for (i, (was, is)) in old.iter().zip(m.gsi_levels()).enumerate() {
            if *was != is {
                self.send(m, &format!("IRQ {} {i}", if is { "raise" } else { "lower" }));
            }
        }
    }
}

fn number(text: &str) -> Option<u64> {
    crate::qom::parse_int(text).map(|v| v as u64)
}

#[cfg(test)]
mod tests {
    use crate::device::testing::machine;
    use crate::devices::misc::debug_exit::DebugExitProps;

    #[test]
    fn commands_and_replies() {
        let mut m = machine();
        m.add::<DebugExitProps>(&[]);
        let chr = m.add_test_char("q");
        m.start_qtest(chr, Some("none")).unwrap();
        let mut run = |line: &str| {
            m.qtest_inbox.extend_from_slice(line.as_bytes());
            m.pump_qtest();
            m.test_char("q", |t| String::from_utf8(std::mem::take(&mut t.out)).unwrap())
        };
        assert_eq!(run("inb 0x80\n"), "OK 0x00ff\n");
        assert_eq!(run("readl 0x1000\nendian"), "OK 0x0000000000000000\n");
        assert_eq!(run("ness\n"), "OK little\n");
        assert_eq!(run("read 0 0\n"), "ERR bad length\n");
        assert_eq!(run("inb\n"), "ERR bad address\n");
        assert_eq!(run("clock_step 5\n"), "OK 5\n");
        assert_eq!(run("nonsense 1\n"), "FAIL Unknown command 'nonsense'\n");
        assert_eq!(run("\n"), "FAIL Unknown command ''\n");
    }
}
