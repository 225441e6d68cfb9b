//! Storage: ATA drives and their IDE host adapter, floppy drives and their controller.

pub mod ata;
pub mod blk;
pub mod fdc;
pub mod geometry;
pub mod ide;
#[cfg(test)]
pub mod testing;
