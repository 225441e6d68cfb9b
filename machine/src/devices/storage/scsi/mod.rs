//! SCSI disks and CD drives: commands of SPC-3, SBC-3 and MMC-4, apart from the host adapter that carries them.
//!
//! A [`Unit`] understands command blocks and says what is to be moved ([`Outcome`]); the adapter owns it, does the block
//! requests and moves the data. The devices `scsi-hd` and `scsi-cd` ([`props`]) make units and hand them over.
//! Left out: tagged command queueing attributes, persistent reservations, protection information, pass-through.
//! Tested with every command on both kinds, by comparison with a real QEMU (`tests`).

mod cd;
mod cdb;
mod inquiry;
mod modes;
mod props;
mod sense;
pub mod target;
#[cfg(test)]
mod tests;
mod transfer;
mod unit;

pub use cdb::{Cdb, Dir};
pub use props::{ScsiCdProps, ScsiHdProps};
pub use sense::Sense;
pub use unit::{Identity, Unit, UnitKind};

use rqemu_block::Op;

use crate::device::{Cx, DevId};
use crate::QResult;

/// Where the data of a block request come from or go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data {
    /// The host's buffer, from this byte on.
    Host(usize),
    /// The pattern that the command came with, from its start.
    Pattern,
    /// There are none.
    None,
}

/// One block request of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Operation.
    pub op: Op,
    /// First byte on the medium.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
    /// Data.
    pub data: Data,
}

/// What becomes of a command.
#[derive(Debug)]
pub enum Outcome {
    /// Done, without data.
    Good,
    /// Done; data for the host, cut or padded with zeros to what it allows.
    Data(Vec<u8>),
    /// Done; data for the host, which are all there are.
    Exactly(Vec<u8>),
    /// Failed.
    Check(Sense),
    /// These requests, one after the other.
    Io {
        /// The requests.
        steps: Vec<Step>,
        /// Bytes that [`Data::Pattern`] stands for.
        pattern: Vec<u8>,
    },
}

impl Outcome {
    /// One request on the host's buffer.
    fn io(op: Op, offset: u64, len: u64) -> Self {
        Self::Io { steps: vec![Step { op, offset, len, data: Data::Host(0) }], pattern: Vec::new() }
    }
}

/// What a device hands to its host adapter.
pub struct NewUnit {
    /// Position wished for: target and unit on it; `None` takes the first free one.
    pub id: Option<u32>,
    /// See `id`.
    pub lun: Option<u32>,
    /// The unit.
    pub unit: Box<Unit>,
}

/// The side of a host adapter that its devices use.
pub trait ScsiAdapter {
    /// Takes a unit; returns its target and unit number.
    ///
    /// # Errors
    /// With QEMU's texts: the place is taken, does not exist, or there is none left.
    fn attach(&mut self, cx: &mut Cx<'_>, dev: DevId, new: NewUnit) -> QResult<(u32, u32)>;
    /// A device goes away.
    fn detach(&mut self, cx: &mut Cx<'_>, dev: DevId);
    /// The unit of a device.
    fn unit(&mut self, dev: DevId) -> Option<&mut Unit>;
    /// The unit has something to tell its host (it has the sense in [`Unit::attention`]).
    fn changed(&mut self, cx: &mut Cx<'_>, dev: DevId, sense: Sense);
}
