//! Control transfers inside a code segment.

use super::{Next, Op};
use crate::cpu::Cpu;

/// Ends a block that was cut for other reasons than a branch.
pub fn end_block(cpu: &mut Cpu, op: &Op) -> Next {
    cpu.rip = op.imm;
    Next::Through
}
