//! Drives binaries: rqemu and QEMU side by side.

pub mod qtest;
