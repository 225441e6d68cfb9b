//! QMP and HMP monitors.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic))]
#![warn(missing_docs)]

pub mod commands;
pub mod event;
pub mod fds;
pub mod hmp;
pub mod monitors;
mod qom_tree;
pub mod session;
pub mod table;
pub mod types;
pub mod version;
pub mod wire;
