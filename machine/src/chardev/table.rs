//! All character devices of a machine.

use super::CharId;
use crate::device::DevId;

/// The table.
#[derive(Default)]
pub struct CharTable {}

impl CharTable {
    /// Writes; returns how much was taken.
    pub fn write(&mut self, _chr: CharId, _data: &[u8]) -> usize {
        0
    }

    /// The front end of `chr` can take input again.
    pub fn accept_input(&mut self, _chr: CharId) {}

    /// Disconnects the ports of a device.
    pub fn remove_device(&mut self, _dev: DevId) {}
}
