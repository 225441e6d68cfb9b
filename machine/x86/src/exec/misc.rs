//! Odds and ends.

use super::{fail, Next, Op};
use crate::cpu::Cpu;
use crate::fault::Exception;

/// Raises #UD.
pub fn undefined(cpu: &mut Cpu, op: &Op) -> Next {
    cpu.exc = Exception::new(Exception::UD);
    fail(cpu, op)
}

/// Raises #NM.
pub fn device_not_available(cpu: &mut Cpu, op: &Op) -> Next {
    cpu.exc = Exception::new(Exception::NM);
    fail(cpu, op)
}
