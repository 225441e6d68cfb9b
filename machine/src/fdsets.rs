//! Sets of descriptors (`-add-fd`, `add-fd`): a file named `/dev/fdset/N` is opened by duplicating the descriptor of
//! set N that was opened for the wanted access.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use parking_lot::Mutex;
use rqemu_block::FdOpener;

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
struct FdSet {
    id: i64,
    fds: Vec<SetFd>,
}

/// What `query-fdsets` shows of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FdSetInfo {
    /// Number.
    pub id: i64,
    /// Descriptors and notes.
    pub fds: Vec<(RawFd, Option<String>)>,
}

/// All sets, ordered by number. Clones share everything.
#[derive(Clone, Debug, Default)]
pub struct FdSets(Arc<Mutex<Vec<FdSet>>>);

const PREFIX: &str = "/dev/fdset/";

impl FdSets {
    /// Adds a descriptor to a set, or to a new one; returns the set's number. The lowest free number is taken for a new
    /// set.
    pub fn add(&self, id: Option<i64>, fd: SetFd) -> i64 {
        let mut sets = self.0.lock();
        let id =
            id.unwrap_or_else(|| sets.iter().fold(0, |free, s| if s.id == free { free + 1 } else { free }));
        match sets.binary_search_by_key(&id, |s| s.id) {
            Ok(at) => sets[at].fds.push(fd),
            Err(at) => sets.insert(at, FdSet { id, fds: vec![fd] }),
        }
        id
    }

    /// Adds a duplicate of an inherited descriptor (`-add-fd`).
    ///
    /// # Errors
    /// The descriptor is not open.
    pub fn add_inherited(&self, id: i64, fd: RawFd, opaque: Option<String>) -> io::Result<()> {
        let fd = duplicate(fd)?;
        self.add(Some(id), SetFd { fd, opaque });
        Ok(())
    }

    /// Closes one descriptor of a set, or the whole set; false if there is no such thing.
    pub fn remove(&self, id: i64, fd: Option<i64>) -> bool {
        let mut sets = self.0.lock();
        let Ok(at) = sets.binary_search_by_key(&id, |s| s.id) else { return false };
        let set = &mut sets[at];
        let before = set.fds.len();
        set.fds.retain(|f| fd.is_some_and(|fd| fd != i64::from(f.fd.as_raw_fd())));
        let found = set.fds.len() < before || fd.is_none();
        if set.fds.is_empty() {
            sets.remove(at);
        }
        found
    }

    /// All sets, by number.
    pub fn info(&self) -> Vec<FdSetInfo> {
        let fds = |s: &FdSet| s.fds.iter().map(|f| (f.fd.as_raw_fd(), f.opaque.clone())).collect();
        self.0.lock().iter().map(|s| FdSetInfo { id: s.id, fds: fds(s) }).collect()
    }

    /// Opens a file that may be in a set. `flags` are those of `open(2)`; new files get mode 0666 less the umask.
    ///
    /// # Errors
    /// As `open(2)`; `EACCES` if no descriptor of the set has the wanted access.
    pub fn open_path(&self, path: &str, flags: i32) -> io::Result<OwnedFd> {
        if let Some(found) = self.open(path, flags) {
            return found;
        }
        let path = std::ffi::CString::new(path).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
        // SAFETY: the path is a valid C string.
        let fd = unsafe { libc::open(path.as_ptr(), flags | libc::O_CLOEXEC, 0o666) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was opened here and nobody else has it.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }
}

impl FdOpener for FdSets {
    fn open(&self, path: &str, flags: i32) -> Option<io::Result<OwnedFd>> {
        let id: i64 = path.strip_prefix(PREFIX)?.parse().ok()?;
        let sets = self.0.lock();
        let Ok(at) = sets.binary_search_by_key(&id, |s| s.id) else {
            return Some(Err(io::Error::from_raw_os_error(libc::ENOENT)));
        };
        let fits = |f: &&SetFd| {
            // SAFETY: plain fcntl.
            let have = unsafe { libc::fcntl(f.fd.as_raw_fd(), libc::F_GETFL) };
            have >= 0 && have & libc::O_ACCMODE == flags & libc::O_ACCMODE
        };
        Some(match sets[at].fds.iter().find(fits) {
            Some(f) => duplicate(f.fd.as_raw_fd()),
            None => Err(io::Error::from_raw_os_error(libc::EACCES)),
        })
    }
}

fn duplicate(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: plain fcntl.
    let new = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) };
    if new < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was made here and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(new) })
}

/// Closes a descriptor that this process inherited and that [`FdSets::add_inherited`] has duplicated.
pub fn close_inherited(fd: RawFd) {
    // SAFETY: the user gave the descriptor away by number; no object of this program owns it.
    unsafe { libc::close(fd) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Read, Write};

    #[test]
    fn the_descriptor_with_the_wanted_access_is_duplicated() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, "abc").unwrap();
        let sets = FdSets::default();
        let add = |id, f: File| sets.add(id, SetFd { fd: f.into(), opaque: None });
        assert_eq!(add(None, File::open(&path).unwrap()), 0);
        assert_eq!(add(None, File::open(&path).unwrap()), 1);
        let error = |n: &str, flags| sets.open(n, flags).unwrap().unwrap_err().raw_os_error();
        assert_eq!(error("/dev/fdset/0", libc::O_WRONLY), Some(libc::EACCES));
        assert_eq!(error("/dev/fdset/7", libc::O_RDONLY), Some(libc::ENOENT));
        assert!(sets.open("/dev/null", libc::O_RDONLY).is_none());
        assert_eq!(add(Some(0), File::options().write(true).open(&path).unwrap()), 0);
        let mut w = File::from(sets.open_path("/dev/fdset/0", libc::O_WRONLY).unwrap());
        w.write_all(b"xyz").unwrap();
        let mut text = String::new();
        File::from(sets.open_path("/dev/fdset/0", libc::O_RDONLY).unwrap())
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "xyz");
        assert!(sets.remove(0, None) && !sets.remove(0, None));
        assert_eq!(sets.info().iter().map(|s| s.id).collect::<Vec<_>>(), [1]);
    }
}
