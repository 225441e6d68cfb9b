//! Descriptors that clients handed over: by name (`getfd`) and in sets (`add-fd`, `/dev/fdset/N`).

use std::os::fd::{AsRawFd, OwnedFd};

/// One descriptor of a set.
#[derive(Debug)]
pub struct SetFd {
    /// The descriptor.
    pub fd: OwnedFd,
    /// The client's note.
    pub opaque: Option<String>,
}

/// A set of descriptors to one file.
#[derive(Debug)]
pub struct FdSet {
    /// Number.
    pub id: i64,
    /// Its descriptors.
    pub fds: Vec<SetFd>,
}

/// All descriptors.
#[derive(Debug, Default)]
pub struct FdStore {
    named: Vec<(String, OwnedFd)>,
    /// Sets, ordered by number.
    pub sets: Vec<FdSet>,
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

    /// Adds a descriptor to a set, or to a new one; returns the set's number. The lowest free number is taken for a new
    /// set.
    pub fn add_to_set(&mut self, id: Option<i64>, fd: SetFd) -> i64 {
        let id = id.unwrap_or_else(|| {
            let mut free = 0;
            for set in &self.sets {
                if set.id == free {
                    free += 1;
                }
            }
            free
        });
        let at = match self.sets.binary_search_by_key(&id, |s| s.id) {
            Ok(at) => at,
            Err(at) => {
                self.sets.insert(at, FdSet { id, fds: Vec::new() });
                at
            }
        };
        self.sets[at].fds.push(fd);
        id
    }

    /// Closes one descriptor of a set, or the whole set; false if there is no such thing.
    pub fn remove(&mut self, id: i64, fd: Option<i64>) -> bool {
        let Ok(at) = self.sets.binary_search_by_key(&id, |s| s.id) else { return false };
        let set = &mut self.sets[at];
        let before = set.fds.len();
        set.fds.retain(|f| fd.is_some_and(|fd| fd != i64::from(f.fd.as_raw_fd())));
        let found = set.fds.len() < before || fd.is_none();
        if set.fds.is_empty() {
            self.sets.remove(at);
        }
        found
    }
}
