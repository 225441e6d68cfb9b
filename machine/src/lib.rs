//! Machine model of rqemu: objects, accelerators, memory, devices, boards.

pub mod error;
pub mod spec;

pub use error::{ErrorClass, QError, QResult};
