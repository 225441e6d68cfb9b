//! Format driver `raw`: a window (`offset`, `size`) on the file below.

use crate::driver::{perm, Driver, Inline, Op, Status};
use crate::error::{BlockError, Errno, IoResult, Result};
use crate::iov::{self, Iov};
use crate::node::Edge;
use crate::request::Completion;

/// Bytes at the start that decide how an image is probed.
const PROBE_GUARD: u64 = 512;

pub(crate) struct RawDriver {
    file: Edge,
    offset: u64,
    size: Option<u64>,
    /// The format was guessed: the guest must not turn the image into something that is guessed differently.
    probed: bool,
}

impl RawDriver {
    pub(crate) fn new(file: Edge, offset: u64, size: Option<u64>, probed: bool) -> Result<RawDriver> {
        let real = file.node().len();
        if offset > real {
            return Err(BlockError::text(format!(
                "Offset ({offset}) cannot be greater than size of the containing file ({real})"
            )));
        }
        if let Some(size) = size {
            if size > real - offset {
                return Err(BlockError::text(format!(
                    "The sum of offset ({offset}) and size ({size}) has to be smaller or equal to the  actual size \
                     of the containing file ({real})"
                )));
            }
            if size % 512 != 0 {
                return Err(BlockError::text("Specified size is not multiple of 512"));
            }
        }
        Ok(RawDriver { file, offset, size, probed })
    }

    fn below(&self) -> &dyn Driver {
        self.file.node().driver()
    }

    /// Refuses a write that would make a guessed raw image look like another format.
    fn guard(&self, off: u64, iov: Iov<'_>) -> IoResult {
        if !self.probed || off >= PROBE_GUARD {
            return Ok(());
        }
        let mut head = [0u8; PROBE_GUARD as usize];
        if off != 0 || iov::total(iov).unwrap_or(0) < head.len() {
            return Err(Errno::EINVAL);
        }
        iov::gather(iov, 0, &mut head);
        if crate::graph::probe::guess(&head, "") == "raw" {
            Ok(())
        } else {
            Err(Errno::EPERM)
        }
    }
}

impl Driver for RawDriver {
    fn name(&self) -> &'static str {
        "raw"
    }

    fn len(&self) -> u64 {
        let avail = self.below().len().saturating_sub(self.offset);
        // A guest sees whole sectors.
        self.size.unwrap_or_else(|| avail.div_ceil(512) * 512)
    }

    fn readv(&self, off: u64, iov: Iov<'_>) -> IoResult {
        self.below().readv(self.offset + off, iov)
    }

    fn writev(&self, off: u64, iov: Iov<'_>, fua: bool) -> IoResult {
        self.guard(off, iov)?;
        self.file.node().wrote(Op::Write { fua }, self.offset + off, iov::total(iov).unwrap_or(0) as u64);
        self.below().writev(self.offset + off, iov, fua)
    }

    fn flush(&self) -> IoResult {
        self.below().flush()
    }

    fn discard(&self, off: u64, len: u64) -> IoResult {
        self.file.node().run(Op::Discard, self.offset + off, len, &[])
    }

    fn write_zeroes(&self, off: u64, len: u64, unmap: bool) -> IoResult {
        let node = self.file.node();
        let op = Op::WriteZeroes { unmap: unmap && node.info.unmap, fua: false };
        node.run(op, self.offset + off, len, &[])
    }

    fn truncate(&self, len: u64) -> Result<()> {
        if self.size.is_some() {
            return Err(BlockError::text("Cannot resize fixed-size raw disks"));
        }
        let end = len
            .checked_add(self.offset)
            .filter(|e| i64::try_from(*e).is_ok())
            .ok_or_else(|| BlockError::text("Disk size too large for the chosen offset"))?;
        self.below().truncate(end)
    }

    fn try_inline(&self, op: Op, off: u64, iov: Iov<'_>) -> Inline {
        if matches!(op, Op::Write { .. }) {
            if let Err(e) = self.guard(off, iov) {
                return Inline::Done(Err(e));
            }
        }
        let r = self.below().try_inline(op, self.offset + off, iov);
        if let (Op::Write { .. }, Inline::Done(Ok(()))) = (op, &r) {
            self.file.node().wrote(op, self.offset + off, iov::total(iov).unwrap_or(0) as u64);
        }
        r
    }

    fn try_queue(&self, off: u64, c: Completion) -> std::result::Result<(), Completion> {
        self.below().try_queue(self.offset + off, c)
    }

    fn plug(&self, on: bool) {
        self.below().plug(on);
    }

    fn set_perm(&self, used: u8, shared: u8) -> Result<()> {
        self.file.set(used, shared)
    }

    fn reopen(&self, _read_only: bool) -> Result<()> {
        Ok(())
    }

    fn block_status(&self, off: u64, len: u64) -> std::result::Result<(Status, u64), Errno> {
        let have = self.below().len().saturating_sub(self.offset + off);
        if have == 0 {
            return Ok((Status { zero: true, allocated: true, ..Status::default() }, len));
        }
        let (s, n) = self.below().block_status(self.offset + off, len.min(have))?;
        let whole = n == have && have < len && s.zero;
        Ok((s, if whole { len } else { n }))
    }

    fn format_specific(&self) -> Option<serde_json::Value> {
        None
    }
}

/// Permissions a format driver takes on its file: nobody else may write or resize what it interprets.
pub(crate) fn format_perms(read_only: bool) -> (u8, u8) {
    let want = if read_only { perm::READ } else { perm::READ | perm::WRITE | perm::RESIZE };
    (want, perm::ALL & !(perm::WRITE | perm::RESIZE))
}
