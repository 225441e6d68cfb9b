//! Machine model of rqemu: objects, accelerators, memory, devices, boards.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

// The derive macro names this crate's items by `crate::`, so it works only inside it.
pub mod accel;
pub mod boards;
pub mod builder;
pub mod chardev;
pub mod clock;
mod completion;
pub mod cpu;
pub mod device;
pub mod devices;
pub mod direct;
pub mod error;
pub mod event_loop;
pub mod fdsets;
pub mod firmware;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
pub mod gdb;
pub mod irq;
pub mod log;
pub mod machine;
pub mod memory;
pub mod net;
pub mod objects;
pub mod pci;
pub mod process;
pub mod qom;
pub mod qtest;
pub mod run;
pub mod sandbox;
pub mod shared;
pub mod spec;
pub mod state;
pub mod ui;
pub mod vcpu;

pub use error::{ErrorClass, QError, QResult};
pub use machine::Machine;
