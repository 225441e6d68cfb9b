//! What the choice of a handler tells the decoder.

use super::Handler;

/// A handler and whether it ends its block.
pub struct Select {
    /// The handler.
    pub f: Handler,
    /// It does not call the next operation.
    pub ends: bool,
    /// The same without computing flags, for when the next instructions overwrite them unseen.
    pub quiet: Option<Handler>,
    /// For CMP and TEST: the same and the conditional jump after it in one, by condition code.
    pub fused: Option<fn(u8) -> Handler>,
    /// MOV reg, reg to the destination and then this, in one: with and (if it exists) without flags.
    pub after_mov: Option<AfterMov>,
}

/// See the field of [`Select`] of this name.
#[derive(Clone, Copy)]
pub struct AfterMov {
    /// Operand size in bytes.
    pub size: u8,
    /// Operand 1 is a register.
    pub reg: bool,
    /// With flags.
    pub full: Option<Handler>,
    /// Flags unseen.
    pub quiet: Handler,
}

impl Select {
    /// A handler that falls through.
    pub fn go(f: Handler) -> Self {
        Self { f, ends: false, quiet: None, fused: None, after_mov: None }
    }
    /// A handler that ends the block.
    pub fn end(f: Handler) -> Self {
        Self { f, ends: true, quiet: None, fused: None, after_mov: None }
    }

    /// With a form that computes no flags.
    pub(super) fn quiet(self, q: Option<Handler>) -> Self {
        Self { quiet: q, ..self }
    }
    /// With a form that takes a move before it along.
    pub(super) fn after_mov(self, m: Option<AfterMov>) -> Self {
        Self { after_mov: m, ..self }
    }
}
