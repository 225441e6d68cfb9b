//! Character devices: back ends (stdio, file, pty, socket, ...) and the contract with their front ends.
//!
//! A back end never blocks: it takes what it can of a write and says when it can take more; input is read only when
//! the front end has room for it.

mod backend;
mod files;
mod mux;
mod open;
mod socket;
mod table;
mod telnet;

pub use backend::Backend;
#[cfg(test)]
pub use files::TestChar;
pub use open::BackendInfo;
pub(crate) use table::TIMER_DEV;
pub use table::{CharInfo, CharTable};

use crate::device::{Cx, DevId};

/// Handle of a character device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CharId(pub u32);

/// Handle of a monitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MonId(pub u32);

/// Who uses a character device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrontendRef {
    /// A device; the number is the device's own name for the port.
    Device(DevId, u32),
    /// A monitor.
    Monitor(MonId),
    /// The qtest server.
    Qtest,
    /// The gdb stub.
    Gdb,
    /// A multiplexer on top of this device.
    Mux(CharId),
}

/// Why a front end did not get its character device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectError {
    /// There is none of that name.
    NotFound,
    /// Another front end has it.
    InUse,
}

/// Things that happen to a character device besides data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CharEvent {
    /// Connected.
    Opened,
    /// Disconnected.
    Closed,
    /// Break condition.
    Break,
    /// The multiplexer gave input focus to this front end.
    MuxIn,
    /// The multiplexer took input focus away.
    MuxOut,
}

/// A device that uses character devices. `port` is the number given when it was connected.
pub trait CharFrontend {
    /// How many bytes it can take now.
    fn can_receive(&mut self, port: u32) -> usize;
    /// Takes input, never more than it said it can.
    fn receive(&mut self, cx: &mut Cx<'_>, port: u32, data: &[u8]);
    /// Something happened.
    fn event(&mut self, _cx: &mut Cx<'_>, _port: u32, _event: CharEvent) {}
    /// The back end takes output again after it refused some.
    fn writable(&mut self, _cx: &mut Cx<'_>, _port: u32) {}
}

#[cfg(test)]
mod tests;
