//! Odds and ends.

use super::{fail, Next, Op};
use crate::cpu::Cpu;
use crate::fault::Exception;

/// Raises #UD. What this engine does not know is left to the one that it helps out, if any.
pub fn undefined(cpu: &mut Cpu, op: &Op) -> Next {
    let unknown = cpu.assisting && op.code().op_code().encoding() == iced_x86::EncodingKind::EVEX;
    cpu.exc = Exception::new(if unknown { Exception::LEAVE } else { Exception::UD });
    fail(cpu, op)
}

/// A debugger's breakpoint is before the next instruction.
pub fn breakpoint(cpu: &mut Cpu, op: &Op) -> Next {
    cpu.exc = Exception::new(Exception::STOP);
    fail(cpu, op)
}

/// Raises #NM.
pub fn device_not_available(cpu: &mut Cpu, op: &Op) -> Next {
    cpu.exc = Exception::new(Exception::NM);
    fail(cpu, op)
}
