//! Protocol drivers `null-co` and `null-aio`: accept everything, keep nothing.

use crate::driver::{Driver, Inline, Op, Status};
use crate::error::{IoResult, Result};
use crate::iov::{self, Iov};
use std::sync::atomic::{AtomicU64, Ordering::*};
use std::time::Duration;

pub(crate) struct NullDriver {
    pub name: &'static str,
    pub size: AtomicU64,
    pub read_zeroes: bool,
    pub latency: Duration,
}

/// Size when none is given.
pub(crate) const DEFAULT_SIZE: u64 = 1 << 30;

impl NullDriver {
    fn fill(&self, iov: Iov<'_>) {
        if self.read_zeroes {
            iov::zero(iov, 0, iov::total(iov).unwrap_or(0));
        }
    }

    fn wait(&self) {
        if !self.latency.is_zero() {
            std::thread::sleep(self.latency);
        }
    }
}

impl Driver for NullDriver {
    fn name(&self) -> &'static str {
        self.name
    }

    fn len(&self) -> u64 {
        self.size.load(Relaxed)
    }

    fn readv(&self, _off: u64, iov: Iov<'_>) -> IoResult {
        self.wait();
        self.fill(iov);
        Ok(())
    }

    fn writev(&self, _off: u64, _iov: Iov<'_>, _fua: bool) -> IoResult {
        self.wait();
        Ok(())
    }

    fn flush(&self) -> IoResult {
        self.wait();
        Ok(())
    }

    fn write_zeroes(&self, _off: u64, _len: u64, _unmap: bool) -> IoResult {
        self.wait();
        Ok(())
    }

    fn truncate(&self, _len: u64) -> Result<()> {
        Err(crate::BlockError::text("Image format driver does not support resize"))
    }

    fn try_inline(&self, op: Op, _off: u64, iov: Iov<'_>) -> Inline {
        if !self.latency.is_zero() {
            return Inline::Punt;
        }
        if op == Op::Read {
            self.fill(iov);
        }
        Inline::Done(Ok(()))
    }

    fn is_zero(&self, _off: u64, _len: u64) -> bool {
        self.read_zeroes
    }

    fn reopen(&self, _read_only: bool) -> Result<()> {
        Ok(())
    }

    fn block_status(&self, off: u64, len: u64) -> Result<(Status, u64), crate::Errno> {
        let zero = self.read_zeroes;
        Ok((Status { data: !zero, zero, allocated: true, host: Some(off), compressed: false }, len))
    }

    fn allocated(&self) -> Option<u64> {
        Some(0)
    }
}
