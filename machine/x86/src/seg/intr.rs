//! Interrupt and exception delivery.
use crate::cpu::Cpu;
use crate::fault::Exception;

/// Where an event comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// An exception that restarts the instruction.
    Fault,
    /// An exception after the instruction (#DB of single step).
    Trap,
    /// An external interrupt or NMI.
    Interrupt,
    /// INT n; RIP to push is in `Cpu::rip` already.
    Software,
}
impl Cpu {
    pub(crate) fn deliver(&mut self, _s: Source, _e: Exception) -> bool {
        false
    }
    pub(crate) fn enter_smm(&mut self) {}
}
