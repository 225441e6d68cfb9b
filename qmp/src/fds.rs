//! Descriptors that clients handed over by name (`getfd`). Sets of descriptors are the machine's
//! ([`FdSets`](rqemu_machine::fdsets::FdSets)).

use std::os::fd::OwnedFd;

/// Descriptors by name.
#[derive(Debug, Default)]
pub struct FdStore {
    named: Vec<(String, OwnedFd)>,
}

impl FdStore {
    /// Keeps `fd` under a name; one of that name is closed.
    pub fn put(&mut self, name: String, fd: OwnedFd) {
        self.named.retain(|(n, _)| *n != name);
        self.named.push((name, fd));
    }

    /// Takes the descriptor of that name out.
    pub fn take(&mut self, name: &str) -> Option<OwnedFd> {
        let at = self.named.iter().position(|(n, _)| n == name)?;
        Some(self.named.swap_remove(at).1)
    }
}
