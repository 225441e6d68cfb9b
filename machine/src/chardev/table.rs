//! All character devices of a machine.

use super::{CharId, ConnectError, FrontendRef};
use crate::device::DevId;

/// The table.
#[derive(Default)]
pub struct CharTable {
    /// Back ends of unit tests.
    #[cfg(test)]
    pub test: Vec<TestChar>,
}

/// A back end of unit tests: keeps what was written, takes as much as `room` says.
#[cfg(test)]
pub struct TestChar {
    /// Name.
    pub name: String,
    /// Who is connected.
    pub who: Option<FrontendRef>,
    /// What was written.
    pub out: Vec<u8>,
    /// How many more bytes it takes.
    pub room: usize,
}

#[cfg(test)]
impl CharTable {
    /// Adds a back end that takes everything.
    pub fn add_test(&mut self, name: &str) {
        self.test.push(TestChar { name: name.into(), who: None, out: Vec::new(), room: usize::MAX });
    }
}

impl CharTable {
    /// Gives the character device `name` to a front end.
    pub fn connect(&mut self, name: &str, who: FrontendRef) -> Result<CharId, ConnectError> {
        #[cfg(test)]
        if let Some(i) = self.test.iter().position(|t| t.name == name) {
            if self.test[i].who.is_some() {
                return Err(ConnectError::InUse);
            }
            self.test[i].who = Some(who);
            return Ok(CharId(i as u32));
        }
        let _ = (name, who);
        Err(ConnectError::NotFound)
    }

    /// Writes; returns how much was taken.
    pub fn write(&mut self, chr: CharId, data: &[u8]) -> usize {
        #[cfg(test)]
        if let Some(t) = self.test.get_mut(chr.0 as usize) {
            let n = data.len().min(t.room);
            t.room -= n;
            t.out.extend_from_slice(&data[..n]);
            return n;
        }
        let _ = (chr, data);
        0
    }

    /// The front end of `chr` can take input again.
    pub fn accept_input(&mut self, _chr: CharId) {}

    /// Disconnects the ports of a device.
    pub fn remove_device(&mut self, _dev: DevId) {}
}
