//! Runs one script of port accesses against real QEMU (through its qtest protocol) and against our machine, and
//! compares the answers. Without a QEMU binary the comparison is skipped, and says so.

use crate::device::testing::oracle::{skip_without_qemu, Qtest, QEMU};
use crate::machine::Machine;
use crate::memory::Space;

/// A stopped QEMU machine driven over qtest.
pub struct Qemu(Qtest);

impl Qemu {
    /// Starts one; `None` when QEMU is not installed.
    pub fn start(args: &[&str]) -> Option<Self> {
        if skip_without_qemu() {
            return None;
        }
        Some(Self(Qtest::start(QEMU, &[&["-nodefaults"], args].concat()).unwrap()))
    }

    /// One qtest command; the answer without `OK `.
    pub fn cmd(&mut self, line: &str) -> String {
        self.0.command(line).unwrap().join(" ")
    }

    /// `inb`.
    pub fn inb(&mut self, port: u16) -> u8 {
        self.0.inb(port)
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
