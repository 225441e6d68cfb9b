//! Which handler executes an instruction.

use iced_x86::Instruction;

use super::Handler;
use crate::cpu::Cpu;

/// A handler and whether it ends its block.
pub struct Select {
    /// The handler.
    pub f: Handler,
    /// It does not call the next operation.
    pub ends: bool,
}

impl Select {
    /// A handler that falls through.
    pub fn go(f: Handler) -> Self {
        Self { f, ends: false }
    }
    /// A handler that ends the block.
    pub fn end(f: Handler) -> Self {
        Self { f, ends: true }
    }
}

/// The handler of a general instruction, `None` if it is not one.
pub fn select(cpu: &Cpu, insn: &Instruction) -> Option<Select> {
    let _ = (cpu, insn);
    None
}
