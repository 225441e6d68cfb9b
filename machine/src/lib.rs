//! Machine model of rqemu: objects, accelerators, memory, devices, boards.

pub mod error;

pub use error::{ErrorClass, QError, QResult};
