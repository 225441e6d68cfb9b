//! muldiv
