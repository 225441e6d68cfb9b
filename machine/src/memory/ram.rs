//! Blocks of host memory that guests see as RAM or ROM.

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd};

use thiserror::Error;
use vm_memory::mmap::{MmapRegion, MmapRegionBuilder};
use vm_memory::FileOffset;

/// Where the memory comes from.
#[derive(Debug)]
pub enum RamSource {
    /// Private anonymous memory.
    Anonymous,
    /// Anonymous memory that child processes share.
    Shared,
    /// An anonymous file (`memfd_create`), shared if `share`.
    Memfd {
        /// Map shared, so that other processes that get the descriptor see writes.
        share: bool,
        /// Use huge pages of this size in bytes.
        hugetlb: Option<u64>,
        /// Seal against resizing.
        seal: bool,
    },
    /// A file.
    File {
        /// The open file, at least as long as the block.
        file: File,
        /// Map shared.
        share: bool,
        /// Map read-only.
        readonly: bool,
    },
}

/// How a block is mapped.
#[derive(Clone, Copy, Debug)]
pub struct RamOptions {
    /// Page size in bytes, a power of two; the block is rounded up to it.
    pub page: u64,
    /// Fail now rather than later if the host has not enough memory.
    pub reserve: bool,
}

/// Why a block could not be made.
#[derive(Debug, Error)]
pub enum RamError {
    /// The mapping failed.
    #[error("cannot set up guest memory '{name}': {err}")]
    Map {
        /// Block name.
        name: String,
        /// Reason.
        err: String,
    },
}

/// A named block of host memory.
pub struct RamBlock {
    name: String,
    map: MmapRegion<()>,
}

impl RamBlock {
    /// Maps `size` bytes (rounded up to whole pages) from `source`.
    pub fn new(name: &str, size: u64, source: RamSource) -> Result<Self, RamError> {
        Self::with(name, size, source, RamOptions { page: 4096, reserve: false })
    }

    /// Maps `size` bytes from `source` as `options` say.
    ///
    /// # Errors
    /// The host has not enough memory, or the file cannot be mapped.
    pub fn with(name: &str, size: u64, source: RamSource, options: RamOptions) -> Result<Self, RamError> {
        let fail = |err: String| RamError::Map { name: name.to_string(), err };
        let too_large = || fail("Cannot allocate memory".to_string());
        let len = size.checked_next_multiple_of(options.page).ok_or_else(too_large)?;
        let len = usize::try_from(len).map_err(|_| too_large())?;
        let builder = MmapRegionBuilder::new(len);
        let (file, share, readonly) = match source {
            RamSource::Anonymous => (None, false, false),
            RamSource::Shared => (None, true, false),
            RamSource::Memfd { share, hugetlb, seal } => (
                Some(memfd(name, len as u64, hugetlb, seal).map_err(|e| fail(crate::error::strerror(&e)))?),
                share,
                false,
            ),
            RamSource::File { file, share, readonly } => (Some(file), share, readonly),
        };
        let prot = if readonly { libc::PROT_READ } else { libc::PROT_READ | libc::PROT_WRITE };
        let mut flags = if share { libc::MAP_SHARED } else { libc::MAP_PRIVATE };
        let builder = match file {
            Some(f) => builder.with_file_offset(FileOffset::new(f, 0)),
            None => {
                flags |= libc::MAP_ANONYMOUS;
                builder
            }
        };
        if !options.reserve {
            flags |= libc::MAP_NORESERVE;
        }
        let map = builder.with_mmap_prot(prot).with_mmap_flags(flags).build().map_err(|e| {
            fail(match e {
                vm_memory::mmap::MmapRegionError::Mmap(e) => crate::error::strerror(&e),
                e => e.to_string(),
            })
        })?;
        // Large pages make first touches by natively running guest code much cheaper; advice only.
        if len >= 2 << 20 {
            // SAFETY: the range is the mapping just made; the advice does not change its contents.
            unsafe { libc::madvise(map.as_ptr().cast(), len, libc::MADV_HUGEPAGE) };
        }
        Ok(Self { name: name.to_string(), map })
    }

    /// Name (`pc.ram`).
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.map.size() as u64
    }

    /// Whether it is empty (never, in practice).
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Host address of the first byte.
    pub fn host(&self) -> *mut u8 {
        self.map.as_ptr()
    }

    /// Descriptor behind it, if any.
    pub fn file(&self) -> Option<&FileOffset> {
        self.map.file_offset()
    }

    /// Copies out of the block. `false` if the range is outside.
    pub fn read(&self, offset: u64, buf: &mut [u8]) -> bool {
        let Some(end) = offset.checked_add(buf.len() as u64) else { return false };
        if end > self.len() {
            return false;
        }
        // SAFETY: the range was checked against the mapping, which lives as long as `self`; the guest may write
        // at the same time, which can only tear the copied bytes.
        unsafe {
            std::ptr::copy_nonoverlapping(self.host().add(offset as usize), buf.as_mut_ptr(), buf.len())
        };
        true
    }

    /// Copies into the block. `false` if the range is outside.
    pub fn write(&self, offset: u64, buf: &[u8]) -> bool {
        let Some(end) = offset.checked_add(buf.len() as u64) else { return false };
        if end > self.len() {
            return false;
        }
        // SAFETY: as in `read`; `buf` is ordinary Rust memory and cannot overlap guest memory.
        unsafe { std::ptr::copy_nonoverlapping(buf.as_ptr(), self.host().add(offset as usize), buf.len()) };
        true
    }

    /// Reads `len` bytes at `at` of a file straight into the block.
    ///
    /// # Errors
    /// The range is outside the block, the file is shorter, or it cannot be read.
    pub fn load(&self, offset: u64, file: &File, at: u64, len: usize) -> std::io::Result<()> {
        let inside = offset.checked_add(len as u64).is_some_and(|end| end <= self.len());
        if !inside {
            return Err(std::io::ErrorKind::InvalidInput.into());
        }
        let mut done = 0;
        while done < len {
            // SAFETY: the range was checked against the mapping, which lives as long as `self`.
            let n = unsafe {
                let to = self.host().add(offset as usize + done).cast();
                libc::pread(file.as_raw_fd(), to, len - done, (at + done as u64) as i64)
            };
            match n {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                n if n > 0 => done += n as usize,
                _ => match std::io::Error::last_os_error() {
                    e if e.kind() == std::io::ErrorKind::Interrupted => {}
                    e => return Err(e),
                },
            }
        }
        Ok(())
    }

    /// Makes the host provide all pages now, with `threads` threads.
    ///
    /// # Errors
    /// The host has not enough (huge) pages.
    pub fn prealloc(&self, threads: usize) -> std::io::Result<()> {
        let pages = self.len().div_ceil(4096);
        let step = pages.div_ceil(threads.max(1) as u64).max(1) * 4096;
        let starts = (0..self.len()).step_by(step as usize);
        if threads <= 1 {
            return self.populate(0, self.len());
        }
        std::thread::scope(|s| {
            let jobs: Vec<_> =
                starts.map(|at| s.spawn(move || self.populate(at, step.min(self.len() - at)))).collect();
            jobs.into_iter().try_for_each(|j| j.join().unwrap_or(Ok(())))
        })
    }

    fn populate(&self, offset: u64, len: u64) -> std::io::Result<()> {
        let Some(len) = len.min(self.len().saturating_sub(offset)).try_into().ok() else { return Ok(()) };
        // SAFETY: the range lies within the mapping; the advice does not change its contents.
        let r =
            unsafe { libc::madvise(self.host().add(offset as usize).cast(), len, libc::MADV_POPULATE_WRITE) };
        match std::io::Error::last_os_error() {
            // Old kernels do not know the advice; then pages come on first touch.
            e if r != 0 && e.raw_os_error() != Some(libc::EINVAL) => Err(e),
            _ => Ok(()),
        }
    }

    /// Gives the kernel advice (`MADV_*`) about the whole block. `MADV_DONTNEED` and `MADV_REMOVE` drop contents.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn advise(&self, advice: i32) -> std::io::Result<()> {
        // SAFETY: the range is exactly the mapping; guest memory may change at any time anyway.
        match unsafe { libc::madvise(self.host().cast(), self.len() as usize, advice) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    }

    /// Fills the whole block with zeroes, giving anonymous pages back to the host.
    pub fn clear(&self) {
        if self.file().is_none() {
            // SAFETY: the whole private anonymous mapping of this block; dropped pages read as zero.
            let r = unsafe { libc::madvise(self.host().cast(), self.len() as usize, libc::MADV_DONTNEED) };
            if r == 0 {
                return;
            }
        }
        // SAFETY: the range is exactly the mapping.
        unsafe { std::ptr::write_bytes(self.host(), 0, self.len() as usize) };
    }
}

fn memfd(name: &str, len: u64, hugetlb: Option<u64>, seal: bool) -> std::io::Result<File> {
    let cname = std::ffi::CString::new(name).unwrap_or_default();
    let mut flags = libc::MFD_CLOEXEC;
    if seal {
        flags |= libc::MFD_ALLOW_SEALING;
    }
    if let Some(size) = hugetlb {
        flags |= libc::MFD_HUGETLB;
        if size > 0 {
            flags |= size.trailing_zeros() << libc::MFD_HUGE_SHIFT;
        }
    }
    // SAFETY: `cname` is a valid C string; the call returns a new descriptor or -1.
    let fd = unsafe { libc::memfd_create(cname.as_ptr(), flags) };
    if fd < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: `fd` is new and owned by nobody else.
    let file = unsafe { File::from_raw_fd(fd) };
    file.set_len(len)?;
    if seal {
        let seals = libc::F_SEAL_GROW | libc::F_SEAL_SHRINK | libc::F_SEAL_SEAL;
        // SAFETY: plain fcntl on a descriptor that we own.
        if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) } < 0 {
            return Err(std::io::Error::last_os_error());
        }
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_checked() {
        let b = RamBlock::new("t", 5000, RamSource::Anonymous).unwrap();
        assert_eq!(b.len(), 8192);
        assert!(b.write(8190, &[1, 2]));
        assert!(!b.write(8191, &[1, 2]));
        assert!(!b.read(u64::MAX, &mut [0; 2]));
        let mut x = [0; 2];
        assert!(b.read(8190, &mut x));
        assert_eq!(x, [1, 2]);
        b.clear();
        assert!(b.read(8190, &mut x));
        assert_eq!(x, [0, 0]);
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, b"0123456789").unwrap();
        b.load(8190, &file, 3, 2).unwrap();
        assert!(b.read(8190, &mut x));
        assert_eq!(&x, b"34");
        assert!(b.load(8190, &file, 0, 3).is_err(), "outside the block");
        assert!(b.load(0, &file, 5, 6).is_err(), "the file is shorter");
    }
}
