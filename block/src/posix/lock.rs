//! QEMU's image locks: open-file-description locks on single bytes of the image.
//!
//! Byte 100+n is read-locked by whoever uses permission n; byte 200+n by whoever forbids it to others. Both are
//! shared locks, so that any number of processes can hold them; a conflict is found by asking whether somebody holds
//! the opposite byte.

use crate::driver::perm;
use crate::error::{BlockError, Errno, Result};
use std::os::fd::RawFd;

const USED: i64 = 100;
const FORBIDDEN: i64 = 200;

/// Which lock bytes a file description holds.
#[derive(Debug, Default)]
pub(crate) struct ImageLock {
    used: u8,
    forbidden: u8,
}

fn flock(kind: i32, at: i64) -> libc::flock {
    libc::flock { l_type: kind as i16, l_whence: libc::SEEK_SET as i16, l_start: at, l_len: 1, l_pid: 0 }
}

fn set(fd: RawFd, kind: i32, at: i64) -> std::result::Result<(), Errno> {
    let fl = flock(kind, at);
    // SAFETY: `fl` is a valid flock that outlives the call.
    if unsafe { libc::fcntl(fd, libc::F_OFD_SETLK, &fl) } == 0 {
        Ok(())
    } else {
        Err(Errno::last())
    }
}

/// True if another description holds any lock on the byte.
fn held_elsewhere(fd: RawFd, at: i64) -> std::result::Result<bool, Errno> {
    let mut fl = flock(libc::F_WRLCK, at);
    // SAFETY: `fl` is a valid flock that the kernel may write to during the call.
    if unsafe { libc::fcntl(fd, libc::F_OFD_GETLK, &mut fl) } != 0 {
        return Err(Errno::last());
    }
    Ok(fl.l_type != libc::F_UNLCK as i16)
}

/// True if the host can lock this way on this file.
pub(crate) fn supported(fd: RawFd) -> bool {
    held_elsewhere(fd, USED).is_ok()
}

impl ImageLock {
    /// Holds exactly `used` and forbids exactly what is not in `shared`; on failure nothing has changed.
    pub(crate) fn apply(&mut self, fd: RawFd, file: &str, used: u8, shared: u8) -> Result<()> {
        let forbidden = perm::ALL & !shared;
        let before = (self.used, self.forbidden);
        let got = self.acquire(fd, used, forbidden).map_err(|(bit, is_shared, errno)| match errno {
            None | Some(Errno(libc::EAGAIN | libc::EACCES)) => {
                BlockError::Lock { perm: perm::name(bit), shared: is_shared, file: file.into() }
            }
            Some(e) => BlockError::io("Failed to lock byte", e),
        });
        let keep = if got.is_ok() { (used, forbidden) } else { before };
        self.release_all_but(fd, keep);
        got
    }

    /// Moves all locks from one description of the file to another, `switch` in between making the new one ours; on
    /// failure the old one has them again.
    pub(crate) fn move_to(
        &mut self,
        old: RawFd,
        new: RawFd,
        file: &str,
        switch: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let (used, forbidden) = (self.used, self.forbidden);
        self.release_all_but(old, (0, 0));
        let moved = self.apply(new, file, used, perm::ALL & !forbidden).and_then(|()| switch());
        if moved.is_err() {
            self.release_all_but(new, (0, 0));
            // Nobody else could take more than a shared lock in between.
            let _ = self.apply(old, file, used, perm::ALL & !forbidden);
        }
        moved
    }

    fn acquire(
        &mut self,
        fd: RawFd,
        used: u8,
        forbidden: u8,
    ) -> std::result::Result<(), (u8, bool, Option<Errno>)> {
        for bit in bits(used & !self.used) {
            set(fd, libc::F_RDLCK, USED + i64::from(bit.trailing_zeros()))
                .map_err(|e| (bit, false, Some(e)))?;
            self.used |= bit;
        }
        for bit in bits(forbidden & !self.forbidden) {
            set(fd, libc::F_RDLCK, FORBIDDEN + i64::from(bit.trailing_zeros()))
                .map_err(|e| (bit, true, Some(e)))?;
            self.forbidden |= bit;
        }
        for bit in bits(used) {
            match held_elsewhere(fd, FORBIDDEN + i64::from(bit.trailing_zeros())) {
                Ok(false) => {}
                Ok(true) => return Err((bit, false, None)),
                Err(e) => return Err((bit, false, Some(e))),
            }
        }
        for bit in bits(forbidden) {
            match held_elsewhere(fd, USED + i64::from(bit.trailing_zeros())) {
                Ok(false) => {}
                Ok(true) => return Err((bit, true, None)),
                Err(e) => return Err((bit, true, Some(e))),
            }
        }
        Ok(())
    }

    fn release_all_but(&mut self, fd: RawFd, (used, forbidden): (u8, u8)) {
        for bit in bits(self.used & !used) {
            let _ = set(fd, libc::F_UNLCK, USED + i64::from(bit.trailing_zeros()));
        }
        for bit in bits(self.forbidden & !forbidden) {
            let _ = set(fd, libc::F_UNLCK, FORBIDDEN + i64::from(bit.trailing_zeros()));
        }
        self.used &= used;
        self.forbidden &= forbidden;
    }
}

fn bits(mask: u8) -> impl Iterator<Item = u8> {
    (0..4).map(|n| 1u8 << n).filter(move |b| mask & b != 0)
}
