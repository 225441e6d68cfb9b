//! Protocol drivers `file`, `host_device` and `host_cdrom`: an image on the host.
//!
//! Buffered reads are tried with `RWF_NOWAIT` on the calling thread, buffered aligned writes go to the page cache on
//! the calling thread; everything else waits on a worker thread or in an io_uring.

mod lock;
mod open;
pub(crate) mod uring;

pub use open::FdOpener;
pub(crate) use open::{open_file, Aio, FileOpts, Kind};

use crate::driver::{Driver, Inline, Op, Status};
use crate::error::{BlockError, Errno, IoResult, Result};
use crate::iov::{self, Iov, Seg};
use crate::request::Completion;
use parking_lot::Mutex;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::*};
use std::sync::Arc;

/// Largest buffered write that is copied into the page cache on the calling thread.
const INLINE_WRITE_MAX: usize = 256 << 10;
const PAGE: u64 = 4096;

/// An open host file or device.
pub(crate) struct FileDriver {
    fd: OwnedFd,
    path: String,
    opener: Option<Arc<dyn FdOpener>>,
    kind: Kind,
    direct: bool,
    no_flush: bool,
    /// Alignment of offset, length and memory with `O_DIRECT`; 1 otherwise.
    align: u64,
    progress: Arc<Progress>,
    lock: Option<Mutex<lock::ImageLock>>,
    /// The host's file system answers RWF_NOWAIT.
    nowait: AtomicBool,
    /// Serialises read-modify-write cycles of unaligned direct writes.
    rmw: Mutex<()>,
    ring: Option<uring::Engine>,
    discard_ok: AtomicU64,
    discard_failed: AtomicU64,
    discard_bytes: AtomicU64,
}

/// What completed writes and flushes have reached; shared with the ring's thread.
pub(crate) struct Progress {
    size: AtomicU64,
    /// Counts completed writes, and the count that the last finished flush covered.
    write_gen: AtomicU64,
    flushed_gen: AtomicU64,
}

impl Progress {
    /// A write up to `end` has completed.
    fn wrote(&self, end: u64) {
        if end > self.size.load(Relaxed) {
            self.size.fetch_max(end, AcqRel);
        }
        self.write_gen.fetch_add(1, Release);
    }
}

impl FileDriver {
    fn raw(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    fn aligned(&self, off: u64, iov: Iov<'_>) -> bool {
        let m = self.align - 1;
        off & m == 0 && iov.iter().all(|s| s.ptr() as u64 & m == 0 && s.len() as u64 & m == 0)
    }

    fn preadv(&self, off: u64, iov: Iov<'_>, flags: i32) -> Result<usize, Errno> {
        loop {
            // SAFETY: `Seg` is a transparent iovec; each segment is valid for writes by the contract of `Seg::new`.
            let n = unsafe {
                libc::preadv2(self.raw(), iov.as_ptr().cast(), iov.len() as i32, off as i64, flags)
            };
            if n >= 0 {
                return Ok(n as usize);
            }
            match Errno::last() {
                Errno(libc::EINTR) => {}
                e => return Err(e),
            }
        }
    }

    fn pwritev(&self, off: u64, iov: Iov<'_>, flags: i32) -> Result<usize, Errno> {
        loop {
            // SAFETY: as in `preadv`; the segments are valid for reads.
            let n = unsafe {
                libc::pwritev2(self.raw(), iov.as_ptr().cast(), iov.len() as i32, off as i64, flags)
            };
            if n >= 0 {
                return Ok(n as usize);
            }
            match Errno::last() {
                Errno(libc::EINTR) => {}
                e => return Err(e),
            }
        }
    }

    fn wrote(&self, end: u64) {
        self.progress.wrote(end);
    }

    fn read_all(&self, off: u64, iov: Iov<'_>) -> IoResult {
        let len = iov::total(iov).ok_or(Errno::EINVAL)?;
        let n = iov::drive(iov, |v, done| self.preadv(off + done, v, 0))?;
        iov::zero(iov, n, len - n);
        Ok(())
    }

    fn write_all(&self, off: u64, iov: Iov<'_>) -> IoResult {
        let len = iov::total(iov).ok_or(Errno::EINVAL)?;
        let n = iov::drive(iov, |v, done| self.pwritev(off + done, v, 0))?;
        self.wrote(off + n as u64);
        if n == len {
            Ok(())
        } else {
            Err(Errno::ENOSPC)
        }
    }

    /// Direct transfer through an aligned buffer of our own.
    fn bounce(&self, off: u64, iov: Iov<'_>, write: bool) -> IoResult {
        let len = iov::total(iov).ok_or(Errno::EINVAL)?;
        let m = self.align - 1;
        let start = off & !m;
        let end = off.checked_add(len as u64 + m).ok_or(Errno::EINVAL)? & !m;
        let mut buf = AlignedBuf::new((end - start) as usize, self.align as usize);
        let head = (off - start) as usize;
        let seg = [iov::own(buf.bytes())];
        let _g = write.then(|| self.rmw.lock());
        if !write || head != 0 || end != off + len as u64 {
            self.read_all(start, &seg)?;
        }
        if write {
            iov::gather(iov, 0, &mut buf.bytes()[head..head + len]);
            self.write_all(start, &seg)
        } else {
            iov::scatter(iov, 0, &buf.bytes()[head..head + len]);
            Ok(())
        }
    }

    fn fdatasync(&self) -> IoResult {
        // SAFETY: plain system call on our descriptor.
        if unsafe { libc::fdatasync(self.raw()) } == 0 {
            Ok(())
        } else {
            Err(Errno::last())
        }
    }

    fn flush_needed(&self) -> Option<u64> {
        let now = self.progress.write_gen.load(Acquire);
        (!self.no_flush && self.progress.flushed_gen.load(Acquire) < now).then_some(now)
    }

    fn fallocate(&self, mode: i32, off: u64, len: u64) -> IoResult {
        loop {
            // SAFETY: plain system call on our descriptor.
            if unsafe { libc::fallocate(self.raw(), mode, off as i64, len as i64) } == 0 {
                return Ok(());
            }
            match Errno::last() {
                Errno(libc::EINTR) => {}
                e => return Err(e),
            }
        }
    }

    fn zero_by_writing(&self, off: u64, len: u64) -> IoResult {
        let chunk = len.min(1 << 20) as usize;
        let mut buf = AlignedBuf::new(chunk, self.align.max(PAGE) as usize);
        let mut at = 0;
        while at < len {
            let n = (len - at).min(chunk as u64) as usize;
            self.writev(off + at, &[iov::own(&mut buf.bytes()[..n])], false)?;
            at += n as u64;
        }
        Ok(())
    }
}

impl Driver for FileDriver {
    fn name(&self) -> &'static str {
        self.kind.name()
    }

    fn len(&self) -> u64 {
        self.progress.size.load(Acquire)
    }

    fn readv(&self, off: u64, iov: Iov<'_>) -> IoResult {
        if self.direct && !self.aligned(off, iov) {
            return self.bounce(off, iov, false);
        }
        self.read_all(off, iov)
    }

    fn writev(&self, off: u64, iov: Iov<'_>, fua: bool) -> IoResult {
        if self.direct && !self.aligned(off, iov) {
            self.bounce(off, iov, true)?;
        } else {
            self.write_all(off, iov)?;
        }
        if fua {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&self) -> IoResult {
        let Some(generation) = self.flush_needed() else { return Ok(()) };
        self.fdatasync()?;
        self.progress.flushed_gen.fetch_max(generation, AcqRel);
        Ok(())
    }

    fn discard(&self, off: u64, len: u64) -> IoResult {
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        match self.fallocate(mode, off, len) {
            Ok(()) => {
                self.discard_ok.fetch_add(1, Relaxed);
                self.discard_bytes.fetch_add(len, Relaxed);
                self.progress.write_gen.fetch_add(1, Release);
            }
            Err(_) => {
                // Advisory: a host that cannot is no error.
                self.discard_failed.fetch_add(1, Relaxed);
            }
        }
        Ok(())
    }

    fn write_zeroes(&self, off: u64, len: u64, unmap: bool) -> IoResult {
        if len == 0 {
            return Ok(());
        }
        let end = off.checked_add(len).ok_or(Errno::EINVAL)?;
        let m = self.align - 1;
        if off & m == 0 && len & m == 0 {
            // Zero range keeps the blocks; punching a hole gives them back. Neither extends a file with KEEP_SIZE.
            let mode = if unmap { libc::FALLOC_FL_PUNCH_HOLE } else { libc::FALLOC_FL_ZERO_RANGE };
            let inside = end <= self.len();
            let keep = if inside || unmap { libc::FALLOC_FL_KEEP_SIZE } else { 0 };
            if (inside || !unmap) && self.fallocate(mode | keep, off, len).is_ok() {
                self.wrote(end);
                return Ok(());
            }
        }
        self.zero_by_writing(off, len)
    }

    fn truncate(&self, len: u64) -> Result<()> {
        if self.kind != Kind::File {
            return if len == self.len() {
                Ok(())
            } else {
                Err(BlockError::text("Cannot resize device files"))
            };
        }
        // SAFETY: plain system call on our descriptor.
        if unsafe { libc::ftruncate(self.raw(), len as i64) } != 0 {
            return Err(BlockError::io("Failed to resize the file", Errno::last()));
        }
        self.progress.size.store(len, Release);
        self.progress.write_gen.fetch_add(1, Release);
        Ok(())
    }

    fn try_inline(&self, op: Op, off: u64, iov: Iov<'_>) -> Inline {
        match op {
            Op::Read
                if !self.direct && self.nowait.load(Relaxed) && iov.len() <= libc::UIO_MAXIOV as usize =>
            {
                match self.preadv(off, iov, libc::RWF_NOWAIT) {
                    Ok(n) if Some(n) == iov::total(iov) => Inline::Done(Ok(())),
                    Ok(_) => Inline::Punt,
                    Err(Errno(libc::EAGAIN)) => Inline::Punt,
                    Err(_) => {
                        // Unknown to this file system; real errors come again from the worker.
                        self.nowait.store(false, Relaxed);
                        Inline::Punt
                    }
                }
            }
            Op::Write { fua: false } if !self.direct && iov.len() <= libc::UIO_MAXIOV as usize => {
                let len = iov::total(iov).unwrap_or(usize::MAX);
                if len > INLINE_WRITE_MAX || (off | len as u64) & (PAGE - 1) != 0 {
                    return Inline::Punt;
                }
                match self.pwritev(off, iov, 0) {
                    Ok(n) if n == len => {
                        self.wrote(off + n as u64);
                        Inline::Done(Ok(()))
                    }
                    _ => Inline::Punt,
                }
            }
            Op::Flush if self.flush_needed().is_none() => Inline::Done(Ok(())),
            _ => Inline::Punt,
        }
    }

    fn try_queue(&self, off: u64, c: Completion) -> std::result::Result<(), Completion> {
        match &self.ring {
            Some(ring) if !self.direct || self.aligned(off, &c.iov) => ring.queue(self, self.raw(), off, c),
            _ => Err(c),
        }
    }

    fn plug(&self, on: bool) {
        if let Some(ring) = &self.ring {
            ring.plug(on);
        }
    }

    fn set_perm(&self, used: u8, shared: u8) -> Result<()> {
        match &self.lock {
            Some(l) => l.lock().apply(self.raw(), &self.path, used, shared),
            None => Ok(()),
        }
    }

    fn close(&self) -> IoResult {
        if let Some(ring) = &self.ring {
            ring.stop();
        }
        Ok(())
    }

    fn preallocate(&self, len: u64) -> IoResult {
        self.fallocate(0, 0, len)?;
        self.wrote(len);
        Ok(())
    }

    fn reopen(&self, read_only: bool) -> Result<()> {
        let fail = |errno| BlockError::Open { file: self.path.clone(), errno };
        let base = if self.direct { libc::O_DIRECT } else { 0 };
        let mode = if read_only { libc::O_RDONLY } else { libc::O_RDWR };
        let new = open::open_fd(self.opener.as_deref(), &self.path, base | mode).map_err(fail)?;
        let dup = || {
            // SAFETY: both descriptors are ours and open; the old description is replaced in one step, so that a
            // transfer under way on another thread uses the one or the other.
            match unsafe { libc::dup3(new.as_raw_fd(), self.raw(), libc::O_CLOEXEC) } {
                -1 => Err(fail(Errno::last())),
                _ => Ok(()),
            }
        };
        // Locks belong to the description: they move along.
        match &self.lock {
            Some(l) => l.lock().move_to(self.raw(), new.as_raw_fd(), &self.path, dup),
            None => dup(),
        }
    }

    fn block_status(&self, off: u64, len: u64) -> Result<(Status, u64), Errno> {
        let whole =
            |zero: bool| Status { data: !zero, zero, allocated: true, host: Some(off), compressed: false };
        if self.kind != Kind::File {
            return Ok((whole(false), len));
        }
        let seek = |whence| {
            // SAFETY: nobody uses the descriptor's own position.
            match unsafe { libc::lseek(self.raw(), off as i64, whence) } {
                n if n >= 0 => Ok(n as u64),
                _ => Err(Errno::last()),
            }
        };
        match seek(libc::SEEK_DATA) {
            Err(Errno(libc::ENXIO)) => Ok((whole(true), len)),
            Ok(n) if n > off => Ok((whole(true), len.min(n - off))),
            Ok(_) => match seek(libc::SEEK_HOLE) {
                Ok(n) if n > off => Ok((whole(false), len.min(n - off))),
                _ => Ok((whole(false), len)),
            },
            Err(_) => Ok((whole(false), len)),
        }
    }

    fn allocated(&self) -> Option<u64> {
        // SAFETY: `st` is written by fstat before it is read; zero is a valid value for all its members.
        unsafe {
            let mut st: libc::stat = std::mem::zeroed();
            (libc::fstat(self.raw(), &mut st) == 0).then_some(st.st_blocks as u64 * 512)
        }
    }

    fn driver_stats(&self) -> Option<serde_json::Value> {
        Some(serde_json::json!({
            "driver": self.kind.name(),
            "discard-nb-ok": self.discard_ok.load(Relaxed),
            "discard-nb-failed": self.discard_failed.load(Relaxed),
            "discard-bytes-ok": self.discard_bytes.load(Relaxed),
        }))
    }
}

/// A zeroed heap buffer whose address is a multiple of a power of two.
pub(crate) struct AlignedBuf {
    mem: Vec<u8>,
    start: usize,
    len: usize,
}

impl AlignedBuf {
    pub(crate) fn new(len: usize, align: usize) -> AlignedBuf {
        let mem = vec![0u8; len + align];
        let start = mem.as_ptr().align_offset(align).min(align);
        AlignedBuf { mem, start, len }
    }

    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        &mut self.mem[self.start..self.start + self.len]
    }
}

const _: () = assert!(std::mem::size_of::<Seg>() == std::mem::size_of::<libc::iovec>());
