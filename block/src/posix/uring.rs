//! io_uring engine (`aio=io_uring`, and `aio=native`, which promises the same: asynchronous direct I/O).

use super::{Aio, FileDriver};
use crate::error::{BlockError, Result};
use crate::request::Completion;
use std::os::fd::RawFd;

pub(crate) struct Engine;

impl Engine {
    pub(crate) fn new(_fd: RawFd, _aio: Aio) -> Result<Engine> {
        Err(BlockError::Unsupported("aio=io_uring".into()))
    }
    pub(crate) fn queue(
        &self,
        _f: &FileDriver,
        _off: u64,
        c: Completion,
    ) -> std::result::Result<(), Completion> {
        Err(c)
    }
    pub(crate) fn plug(&self, _on: bool) {}
    pub(crate) fn stop(&self) {}
}
