//! Storage: ATA drives and their IDE host adapter, floppy drives and their controller, parallel flash.

pub mod ata;
pub mod blk;
pub mod fdc;
pub mod geometry;
pub mod ide;
pub mod pflash;
pub mod scsi;
#[cfg(test)]
pub mod testing;
