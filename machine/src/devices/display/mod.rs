//! Graphics.

pub mod vga;
