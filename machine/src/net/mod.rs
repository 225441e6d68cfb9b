//! Network backends and the contract with network cards.

use crate::device::{Cx, DevId};

/// Handle of a network client (one end of a link).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetId(pub u32);

/// A card that takes frames.
pub trait NetFrontend {
    /// Whether it can take a frame on `queue` now.
    fn can_receive(&mut self, queue: u32) -> bool;
    /// Takes one Ethernet frame; `false` if it could not (the backend keeps it and waits for a flush).
    fn receive(&mut self, cx: &mut Cx<'_>, queue: u32, frame: &[u8]) -> bool;
    /// The link went up or down.
    fn link_changed(&mut self, _cx: &mut Cx<'_>, _up: bool) {}
}

/// All network clients of a machine.
#[derive(Default)]
pub struct NetTable {}

impl NetTable {
    /// Forgets the card `dev`.
    pub fn remove_device(&mut self, _dev: DevId) {}
}
