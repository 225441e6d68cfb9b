//! Machine model of rqemu: objects, accelerators, memory, devices, boards.

pub mod error;
pub mod firmware;

pub use error::{ErrorClass, QError, QResult};
