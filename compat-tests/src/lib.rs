//! Drives binaries: the emulator under test and real QEMU, side by side.
//!
//! Nothing here links to the product's crates. A *side* is a path to a binary; every comparison runs the same
//! command line on both sides and turns what it saw into scoreboard rows ([`score`]). Environment:
//!
//! | variable | meaning | default |
//! |---|---|---|
//! | `RQEMU` | the binary under test | `rqemu-system-x86_64` beside the test program |
//! | `QEMU` | the reference, QEMU 7.2 | `qemu-system-x86_64` from `PATH` |

pub mod areas;
pub mod bench;
pub mod bins;
pub mod compare;
pub mod guests;
pub mod ppm;
pub mod proc;
pub mod qmp;
pub mod qtest;
pub mod score;
pub mod stream;
pub mod vm;

/// Result of a harness step. The error is text for a person; rows show it.
pub type Res<T> = Result<T, String>;
