//! Small devices: debug ports, panic notifier, A20 and fast reset port, port stubs of the board.

pub mod debug_exit;
pub mod debugcon;
pub mod ged;
pub mod isabus_bridge;
pub mod pc_testdev;
pub mod port92;
pub mod ports;
pub mod pvpanic;
pub mod vmcoreinfo;
pub mod vmgenid;
pub mod vmport;

#[cfg(test)]
mod tests;
