//! Runs one script of port accesses against real QEMU (through its qtest protocol) and against our machine, and
//! compares the answers. Without a QEMU binary the comparison is skipped, and says so.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::machine::Machine;
use crate::memory::Space;

const QEMU: &str = "/usr/bin/qemu-system-x86_64";

/// A stopped QEMU machine driven over qtest.
pub struct Qemu {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Qemu {
    /// Starts one; `None` when QEMU is not installed.
    pub fn start(args: &[&str]) -> Option<Self> {
        if !std::path::Path::new(QEMU).exists() {
            eprintln!("skipped: {QEMU} is not installed");
            return None;
        }
        let mut child = Command::new(QEMU)
            .args(["-accel", "tcg", "-S", "-display", "none", "-nodefaults"])
            .args(["-qtest", "stdio", "-qtest-log", "/dev/null"])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let to = child.stdin.take().unwrap();
        let from = BufReader::new(child.stdout.take().unwrap());
        Some(Self { child, to, from })
    }

    /// One qtest command; the answer without `OK `.
    pub fn cmd(&mut self, line: &str) -> String {
        writeln!(self.to, "{line}").unwrap();
        self.to.flush().unwrap();
        let mut answer = String::new();
        loop {
            answer.clear();
            assert!(self.from.read_line(&mut answer).unwrap() > 0, "QEMU went away at {line}");
            if let Some(rest) = answer.trim_end().strip_prefix("OK") {
                return rest.trim().to_string();
            }
            assert!(!answer.starts_with("FAIL"), "{line}: {answer}");
        }
    }

    /// `inb`.
    pub fn inb(&mut self, port: u16) -> u8 {
        let a = self.cmd(&format!("inb {port:#x}"));
        u64::from_str_radix(a.trim_start_matches("0x"), 16).unwrap() as u8
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One step of a script.
#[derive(Clone, Copy, Debug)]
pub enum Op {
    /// Read a port and compare.
    In(u16),
    /// Write a port.
    Out(u16, u8),
    /// Read 4 bytes of memory and compare.
    ReadL(u64),
    /// Write 4 bytes of memory.
    WriteL(u64, u32),
    /// Read 8 bytes of memory and compare.
    ReadQ(u64),
}

/// Runs a script on both; panics at the first difference, with the steps before it.
pub fn compare(q: &mut Qemu, m: &mut Machine, script: &[Op]) {
    for (i, op) in script.iter().enumerate() {
        let (theirs, ours) = match *op {
            Op::In(p) => (u64::from(q.inb(p)), u64::from(m.inb(p))),
            Op::Out(p, v) => {
                q.cmd(&format!("outb {p:#x} {v:#x}"));
                m.outb(p, v);
                continue;
            }
            Op::ReadL(a) => (hex(&q.cmd(&format!("readl {a:#x}"))), m.guest_read(Space::Memory, a, 4)),
            Op::ReadQ(a) => (hex(&q.cmd(&format!("readq {a:#x}"))), m.guest_read(Space::Memory, a, 8)),
            Op::WriteL(a, v) => {
                q.cmd(&format!("writel {a:#x} {v:#x}"));
                m.guest_write(Space::Memory, a, 4, u64::from(v));
                continue;
            }
        };
        let from = i.saturating_sub(120);
        assert_eq!(
            theirs,
            ours,
            "step {i} {op:x?}: QEMU {theirs:#x}, we {ours:#x}; before: {:x?}",
            &script[from..i]
        );
    }
}

fn hex(s: &str) -> u64 {
    u64::from_str_radix(s.trim_start_matches("0x"), 16).unwrap()
}

/// A small deterministic source of numbers for random scripts.
pub struct Lcg(pub u64);

impl Lcg {
    /// Next number below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}
