//! JSON as QMP speaks it: an incremental reader with QEMU's framing, limits and error texts, and a writer in
//! QEMU's style.
//!
//! The dialect differs from plain JSON: strings may stand in single quotes, values may follow one another
//! without a separator, a byte `0xFF` outside of a token is an error that brings the reader back to a known
//! state, and after any error the reader resynchronises at the next structural character, line end or control
//! character. Left out: QEMU's infinities (a number beyond the range of a double becomes the largest double).
//!
//! Checked by transcripts recorded from QEMU 7.2 in [`tests`] and, where the binary is installed, against it.

mod format;
mod lexer;
mod number;
mod parser;
mod text;

pub use format::{to_string, write_string, write_value, Style};
pub use parser::{Item, Parser};

#[cfg(test)]
mod tests;
