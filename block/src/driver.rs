//! What every protocol and format driver provides to the graph.

use crate::error::{Errno, IoResult, Result};
use crate::iov::Iov;
use crate::request::Completion;
use serde_json::Value;
use std::sync::Arc;

/// Permissions on a node, as bits; the numbers are those of the lock bytes 100+n and 200+n in the image file.
pub mod perm {
    /// Consistent read.
    pub const READ: u8 = 1;
    /// Write.
    pub const WRITE: u8 = 2;
    /// Write without changing what a reader sees (copy on read).
    pub const WRITE_UNCHANGED: u8 = 4;
    /// Change the length.
    pub const RESIZE: u8 = 8;
    /// Everything.
    pub const ALL: u8 = 15;

    /// The names of all set bits.
    pub fn names(bits: u8) -> String {
        (0..4).map(|n| 1u8 << n).filter(|b| bits & b != 0).map(name).collect::<Vec<_>>().join(", ")
    }

    /// The name that error texts use for the lowest set bit.
    pub fn name(bit: u8) -> &'static str {
        match bit.trailing_zeros() {
            0 => "consistent read",
            1 => "write",
            2 => "write unchanged",
            _ => "resize",
        }
    }
}

/// What is asked of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Read into the list.
    Read,
    /// Write from the list. With `fua` the data are stable when it completes.
    Write {
        /// Force unit access.
        fua: bool,
    },
    /// Make all completed writes stable.
    Flush,
    /// The range's content is no longer needed.
    Discard,
    /// The range shall read as zeroes.
    WriteZeroes {
        /// The host space may be given back.
        unmap: bool,
        /// Force unit access.
        fua: bool,
    },
}

/// Outcome of an attempt to serve a request without waiting.
pub enum Inline {
    /// Served.
    Done(IoResult),
    /// It would have to wait (or be complicated): give it to a worker.
    Punt,
}

/// A protocol or format driver: blocking calls that any thread may make at the same time.
///
/// Offsets and lengths are bytes and are inside `len()` unless stated; the caller ([`crate::node::Node`]) checks.
/// Reads beyond the end of a shorter lower layer give zeroes. Any alignment is accepted.
#[allow(clippy::len_without_is_empty)]
pub trait Driver: Send + Sync {
    /// QEMU's driver name (`raw`, `qcow2`, `file` …).
    fn name(&self) -> &'static str;
    /// Size of the medium in bytes. May change (`truncate`).
    fn len(&self) -> u64;
    /// Fills `iov` from `off`.
    fn readv(&self, off: u64, iov: Iov<'_>) -> IoResult;
    /// Writes `iov` at `off`.
    fn writev(&self, off: u64, iov: Iov<'_>, fua: bool) -> IoResult;
    /// Makes completed writes stable (no-op with `cache.no-flush`).
    fn flush(&self) -> IoResult;
    /// Gives `len` bytes at `off` back. Advisory: success without effect is fine.
    fn discard(&self, _off: u64, _len: u64) -> IoResult {
        Ok(())
    }
    /// Makes `len` bytes at `off` read as zeroes.
    fn write_zeroes(&self, off: u64, len: u64, unmap: bool) -> IoResult;
    /// Changes the length.
    fn truncate(&self, _len: u64) -> Result<()> {
        Err(crate::BlockError::text("Image format driver does not support resize"))
    }
    /// Serves the request now if that needs no waiting.
    fn try_inline(&self, _op: Op, _off: u64, _iov: Iov<'_>) -> Inline {
        Inline::Punt
    }
    /// Hands the request (`c`, at this driver's offset) to an asynchronous host engine. On `Err` the caller gives the completion to a worker.
    fn try_queue(&self, _off: u64, c: Completion) -> std::result::Result<(), Completion> {
        Err(c)
    }
    /// Holds back (`true`) or releases (`false`) submissions to the asynchronous engine, so that a batch costs one
    /// system call.
    fn plug(&self, _on: bool) {}
    /// True if `[off, off+len)` is known to read as zeroes, without I/O on data. `false` is always a correct answer.
    fn is_zero(&self, _off: u64, _len: u64) -> bool {
        false
    }
    /// Takes or releases host locks so that exactly `perm` is held and exactly `shared` is left to others.
    /// Drivers with children pass on what they need.
    fn set_perm(&self, _perm: u8, _shared: u8) -> Result<()> {
        Ok(())
    }
    /// Ends all work and leaves the image consistent on the host; called once before drop, on the way down.
    fn close(&self) -> IoResult {
        Ok(())
    }
    /// Reads from another backing image from now on.
    fn set_backing(&self, _edge: Option<crate::node::Edge>) -> Result<()> {
        Err(crate::BlockError::text("The driver does not support a backing image"))
    }
    /// Lets others write to the backing image (`true`), or not any more.
    fn share_backing(&self, _on: bool) -> Result<()> {
        Ok(())
    }
    /// Makes the host allocate the first `len` bytes.
    fn preallocate(&self, _len: u64) -> IoResult {
        Err(Errno::ENOTSUP)
    }
    /// Gives every cluster of `[from, to)` its place in the image.
    fn preallocate_range(&self, _from: u64, _to: u64) -> IoResult {
        Err(Errno::ENOTSUP)
    }
    /// Switches between read-only and writable.
    fn reopen(&self, _read_only: bool) -> Result<()> {
        Err(crate::BlockError::text(format!(
            "Block format '{}' does not support reopening files",
            self.name()
        )))
    }
    /// How the range `[off, off+len)` starts, and for how many bytes it stays so.
    fn block_status(&self, _off: u64, len: u64) -> Result<(Status, u64), Errno> {
        Ok((Status { data: true, zero: false, allocated: true, host: None, compressed: false }, len))
    }
    /// Copies what the backing image shows in the range into this image where it is not allocated.
    fn populate(&self, _off: u64, _len: u64) -> IoResult {
        Err(Errno::ENOTSUP)
    }
    /// Writes whole clusters compressed. `buf` covers one cluster, or less at the end of the medium.
    fn write_compressed(&self, _off: u64, _buf: &[u8]) -> IoResult {
        Err(Errno::ENOTSUP)
    }
    /// Compresses a cluster for [`Self::write_packed`].
    fn pack(&self, _plain: &[u8]) -> Option<Vec<u8>> {
        None
    }
    /// Writes a cluster that was compressed by [`Self::pack`].
    fn write_packed(&self, _off: u64, _packed: &[u8]) -> IoResult {
        Err(Errno::ENOTSUP)
    }
    /// Bitmaps that are stored in the image.
    fn bitmaps(&self) -> Vec<Arc<crate::bitmap::DirtyBitmap>> {
        Vec::new()
    }
    /// Stores a bitmap in the image from now on, or no longer.
    fn keep_bitmap(&self, _b: &Arc<crate::bitmap::DirtyBitmap>, _keep: bool) -> Result<()> {
        Err(crate::BlockError::text(format!("Cannot store dirty bitmaps in format '{}'", self.name())))
    }
    /// Forgets all data of this layer.
    fn make_empty(&self) -> IoResult {
        Err(Errno::ENOTSUP)
    }
    /// Checks the image's metadata.
    fn check(&self, _fix: Repair) -> Result<CheckReport> {
        Err(crate::BlockError::text("This image format does not support checks"))
    }
    /// Changes the backing image that the header names.
    fn change_backing_name(&self, _name: Option<(&str, &str)>) -> Result<()> {
        Err(crate::BlockError::text("The driver cannot change its backing file name"))
    }
    /// Internal snapshots, where the format has them.
    fn snapshots(&self) -> Option<&dyn Snapshots> {
        None
    }
    /// Bytes the host has allocated for the image, if it is a file itself.
    fn allocated(&self) -> Option<u64> {
        None
    }
    /// Format-specific part of `ImageInfo`, `{"type":…,"data":…}`.
    fn format_specific(&self) -> Option<Value> {
        None
    }
    /// `driver-specific` part of `query-blockstats`.
    fn driver_stats(&self) -> Option<Value> {
        None
    }
    /// What else `ImageInfo` shows.
    fn image_facts(&self) -> ImageFacts {
        ImageFacts::default()
    }
}

/// Where a range of a medium comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Bytes are stored.
    pub data: bool,
    /// Reads as zeroes.
    pub zero: bool,
    /// This layer decides, not the backing image.
    pub allocated: bool,
    /// Offset in the file below, if the bytes stand there as they are.
    pub host: Option<u64>,
    /// Stored compressed.
    pub compressed: bool,
}

/// What a check may change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Repair {
    /// Nothing.
    #[default]
    None,
    /// Lost clusters only.
    Leaks,
    /// Everything.
    All,
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct CheckReport {
    /// One line for each finding, as QEMU prints them.
    pub messages: Vec<String>,
    pub corruptions: u64,
    pub leaks: u64,
    pub corruptions_fixed: u64,
    pub leaks_fixed: u64,
    pub check_errors: u64,
    /// Guest clusters in all, with data, not next to the one before, and compressed.
    pub total: u64,
    pub allocated: u64,
    pub fragmented: u64,
    pub compressed: u64,
    /// End of the last cluster in use.
    pub image_end: u64,
}

impl CheckReport {
    pub(crate) fn say(&mut self, line: String) {
        // A ruined image has millions of findings; the counts tell the rest.
        if self.messages.len() < 10_000 {
            self.messages.push(line);
        }
    }
}

/// Internal snapshots of an image. Requests to the image are stopped during these calls.
pub trait Snapshots {
    /// All of them, in the order in which they were made.
    fn list(&self) -> Vec<SnapshotInfo>;
    /// Makes one; `id` is chosen by the image.
    fn create(&self, info: SnapshotInfo) -> Result<()>;
    /// Goes back to the one at this place of the list.
    fn apply(&self, nth: usize) -> Result<()>;
    /// Shows the one at this place of the list to readers of an image that is open read-only.
    fn view(&self, nth: usize) -> Result<()>;
    /// Removes the one at this place of the list.
    fn delete(&self, nth: usize) -> Result<()>;
    /// Writes VM state (behind the medium), to be kept by the next snapshot.
    fn write_vmstate(&self, off: u64, buf: &[u8]) -> IoResult;
    /// Reads VM state of the snapshot that was applied last.
    fn read_vmstate(&self, off: u64, buf: &mut [u8]) -> IoResult;
}

/// Facts about an image that only its format driver knows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ImageFacts {
    /// Allocation unit.
    pub cluster_size: Option<u64>,
    /// `dirty-flag`.
    pub dirty: bool,
    /// Name of the backing image as it stands in the header.
    pub backing_file: Option<String>,
    /// Format of the backing image as it stands in the header.
    pub backing_format: Option<String>,
    /// Encrypted image.
    pub encrypted: bool,
    /// Internal snapshots: (id, name, vm-state-size, date-sec, date-nsec, vm-clock-ns, icount).
    pub snapshots: Vec<SnapshotInfo>,
}

/// One internal snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// Unique id.
    pub id: String,
    /// Name.
    pub name: String,
    /// Bytes of VM state.
    pub vm_state_size: u64,
    /// Host date, seconds.
    pub date_sec: u32,
    /// Host date, nanoseconds.
    pub date_nsec: u32,
    /// Guest clock in nanoseconds.
    pub vm_clock_ns: u64,
    /// Instruction count, if recorded.
    pub icount: Option<u64>,
}

/// Something that must stay alive while a data transfer into an image file is under way.
pub trait DataGuard: Send + Sync {
    /// The transfer that was registered under `token` has ended.
    fn release(&self, token: u32);
}

/// A registered transfer; releases itself on drop.
pub struct GuardRef {
    pub(crate) guard: Arc<dyn DataGuard>,
    pub(crate) token: u32,
}

impl Drop for GuardRef {
    fn drop(&mut self) {
        self.guard.release(self.token);
    }
}

/// Convenience for drivers: an error for something outside the medium.
pub(crate) fn check_range(off: u64, len: u64, size: u64) -> IoResult {
    match off.checked_add(len) {
        Some(end) if end <= size => Ok(()),
        _ => Err(Errno::EIO),
    }
}
