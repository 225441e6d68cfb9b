//! Segments, gates, tasks, interrupts.
pub mod intr;
