//! One timer for everything that is due later, made when it is first needed.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::{Source, Watch};

/// The timer. Times are milliseconds of the network's clock.
#[derive(Default)]
pub(super) struct Timer {
    fd: Option<OwnedFd>,
    /// When it is to fire.
    wanted: Option<u64>,
    /// When the kernel thinks it fires.
    armed: Option<u64>,
}

impl Timer {
    /// It has to fire at `at` or before.
    pub fn at_most(&mut self, at: u64) {
        self.wanted = Some(self.wanted.map_or(at, |w| w.min(at)));
    }

    /// The kernel does not know yet.
    pub fn must_arm(&self) -> bool {
        self.wanted.is_some() && self.wanted != self.armed
    }

    /// Tells the kernel.
    pub fn arm(&mut self, now: u64, watch: &Watch) {
        let Some(at) = self.wanted.filter(|_| self.must_arm()) else { return };
        if self.fd.is_none() {
            self.fd = create(watch);
        }
        let Some(fd) = &self.fd else { return };
        let ms = at.saturating_sub(now).max(1);
        let spec = libc::itimerspec {
            it_interval: libc::timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: libc::timespec { tv_sec: (ms / 1000) as i64, tv_nsec: (ms % 1000 * 1_000_000) as i64 },
        };
        // SAFETY: the descriptor is a timerfd that we own; `spec` outlives the call.
        unsafe { libc::timerfd_settime(fd.as_raw_fd(), 0, &spec, std::ptr::null_mut()) };
        self.armed = Some(at);
    }

    /// It fired.
    pub fn drain(&mut self) {
        if let Some(fd) = &self.fd {
            crate::event_loop::drain(fd.as_raw_fd());
        }
        self.wanted = None;
        self.armed = None;
    }
}

fn create(watch: &Watch) -> Option<OwnedFd> {
    // SAFETY: creates a new descriptor.
    let fd = unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_NONBLOCK | libc::TFD_CLOEXEC) };
    if fd < 0 {
        return None;
    }
    // SAFETY: the descriptor is new and ours.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    watch.add(fd.as_raw_fd(), Source::Timer, 0).ok()?;
    Some(fd)
}
