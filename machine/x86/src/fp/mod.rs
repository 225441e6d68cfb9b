//! x87, MMX, SSE..AVX handlers.

use crate::exec::Handler;

/// The handler for a floating-point or vector instruction; `None` makes it #UD.
pub fn lookup(code: iced_x86::Code) -> Option<Handler> {
    let _ = code;
    None
}
