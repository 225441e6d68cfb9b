//! Opening host files: flags, checks, alignment, engine.

use super::{lock, uring, AlignedBuf, FileDriver, Progress};
use crate::error::{BlockError, Errno, Result};
use parking_lot::Mutex;
use std::ffi::CString;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::Arc;

/// Opens names that are not host paths, such as `/dev/fdset/N`. The machine installs one in the graph.
pub trait FdOpener: Send + Sync {
    /// `None`: not mine, open the path. `flags` are `open(2)` flags.
    fn open(&self, path: &str, flags: i32) -> Option<std::io::Result<OwnedFd>>;
}

/// Which of the drivers for host files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    HostDevice,
    HostCdrom,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::File => "file",
            Kind::HostDevice => "host_device",
            Kind::HostCdrom => "host_cdrom",
        }
    }
}

/// `aio=`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Aio {
    #[default]
    Threads,
    Native,
    IoUring,
}

/// What the options say.
pub(crate) struct FileOpts<'a> {
    pub kind: Kind,
    pub filename: &'a str,
    pub read_only: bool,
    /// Fall back to read-only if the host does not let us write.
    pub auto_read_only: bool,
    pub direct: bool,
    pub no_flush: bool,
    pub aio: Aio,
    /// `locking`: `None` = auto.
    pub locking: Option<bool>,
    pub opener: Option<Arc<dyn FdOpener>>,
}

pub(super) fn open_fd(opener: Option<&dyn FdOpener>, path: &str, flags: i32) -> Result<OwnedFd, Errno> {
    if let Some(r) = opener.and_then(|h| h.open(path, flags)) {
        return r.map_err(Errno::from);
    }
    let c = CString::new(path).map_err(|_| Errno::EINVAL)?;
    // SAFETY: `c` is a terminated string; a non-negative result is a fresh descriptor that nobody else owns.
    unsafe {
        match libc::open(c.as_ptr(), flags | libc::O_CLOEXEC) {
            fd if fd >= 0 => Ok(OwnedFd::from_raw_fd(fd)),
            _ => Err(Errno::last()),
        }
    }
}

fn stat(fd: RawFd) -> Result<libc::stat, Errno> {
    // SAFETY: `st` is plain data that fstat fills.
    unsafe {
        let mut st: libc::stat = std::mem::zeroed();
        if libc::fstat(fd, &mut st) == 0 {
            Ok(st)
        } else {
            Err(Errno::last())
        }
    }
}

/// Opens a host file; the second member tells whether it ended up read-only.
pub(crate) fn open_file(o: &FileOpts<'_>) -> Result<(FileDriver, bool)> {
    let path = strip_protocol(o.filename, o.kind);
    if o.aio == Aio::Native && !o.direct {
        return Err(BlockError::text(
            "aio=native was specified, but it requires cache.direct=on, which was not specified.",
        ));
    }
    let fail = |errno| BlockError::Open { file: path.into(), errno };
    let base = if o.direct { libc::O_DIRECT } else { 0 }
        | if o.kind == Kind::HostCdrom { libc::O_NONBLOCK } else { 0 };
    let mut read_only = o.read_only;
    let fd = match open_fd(
        o.opener.as_deref(),
        path,
        base | if read_only { libc::O_RDONLY } else { libc::O_RDWR },
    ) {
        Err(Errno(libc::EACCES | libc::EROFS | libc::EPERM | libc::ETXTBSY))
            if !read_only && o.auto_read_only =>
        {
            read_only = true;
            open_fd(o.opener.as_deref(), path, base | libc::O_RDONLY).map_err(fail)?
        }
        // A directory cannot be opened for writing; say what is wrong with it rather than that.
        Err(Errno(libc::EISDIR)) if o.kind == Kind::File => return Err(not_regular(path)),
        other => other.map_err(fail)?,
    };
    let st = stat(fd.as_raw_fd()).map_err(fail)?;
    check_kind(o.kind, path, st.st_mode)?;
    let size = size_of(fd.as_raw_fd(), &st)
        .map_err(|e| BlockError::io("Could not refresh total sector count", e))?;
    let align = if o.direct { dio_align(fd.as_raw_fd()) } else { 1 };
    let lock = lock_for(o.locking, &fd)?;
    let progress = Arc::new(Progress {
        size: AtomicU64::new(size),
        write_gen: AtomicU64::new(0),
        flushed_gen: AtomicU64::new(0),
    });
    let ring = match o.aio {
        Aio::Threads => None,
        Aio::Native | Aio::IoUring => Some(uring::Engine::new(o.aio, progress.clone())?),
    };
    let driver = FileDriver {
        fd,
        path: path.into(),
        opener: o.opener.clone(),
        kind: o.kind,
        direct: o.direct,
        no_flush: o.no_flush,
        align,
        progress,
        lock,
        nowait: AtomicBool::new(true),
        rmw: Mutex::new(()),
        ring,
        discard_ok: AtomicU64::new(0),
        discard_failed: AtomicU64::new(0),
        discard_bytes: AtomicU64::new(0),
    };
    Ok((driver, read_only))
}

fn lock_for(locking: Option<bool>, fd: &OwnedFd) -> Result<Option<Mutex<lock::ImageLock>>> {
    let supported = locking != Some(false) && lock::supported(fd.as_raw_fd());
    if locking == Some(true) && !supported {
        return Err(BlockError::text("File locking is not supported by the file system"));
    }
    Ok(supported.then(Mutex::default))
}

fn strip_protocol(name: &str, kind: Kind) -> &str {
    let prefix = match kind {
        Kind::File => "file:",
        Kind::HostDevice => "host_device:",
        Kind::HostCdrom => "host_cdrom:",
    };
    name.strip_prefix(prefix).unwrap_or(name)
}

fn not_regular(path: &str) -> BlockError {
    BlockError::text(format!("'file' driver requires '{path}' to be a regular file"))
}

fn check_kind(kind: Kind, path: &str, mode: u32) -> Result<()> {
    let is_device = matches!(mode & libc::S_IFMT, libc::S_IFBLK | libc::S_IFCHR);
    match kind {
        Kind::File if mode & libc::S_IFMT != libc::S_IFREG => Err(not_regular(path)),
        Kind::HostDevice | Kind::HostCdrom if !is_device => Err(BlockError::text(format!(
            "'{}' driver requires '{path}' to be either a character or block device",
            kind.name()
        ))),
        _ => Ok(()),
    }
}

fn size_of(fd: RawFd, st: &libc::stat) -> Result<u64, Errno> {
    match st.st_mode & libc::S_IFMT {
        libc::S_IFREG => Ok(st.st_size as u64),
        libc::S_IFBLK => {
            // SAFETY: lseek on our descriptor, which nobody uses with an implicit offset.
            match unsafe { libc::lseek(fd, 0, libc::SEEK_END) } {
                n if n >= 0 => Ok(n as u64),
                _ => Err(Errno::last()),
            }
        }
        _ => Ok(0),
    }
}

/// Smallest transfer that the host takes with `O_DIRECT`, found by trying.
fn dio_align(fd: RawFd) -> u64 {
    for align in [512usize, 1024, 2048] {
        let mut buf = AlignedBuf::new(2 * align, 2 * align);
        // Aligned to `align` and to no more, so that a stricter host refuses.
        let part = &mut buf.bytes()[align..];
        // SAFETY: `part` is writable for `align` bytes.
        if unsafe { libc::pread(fd, part.as_mut_ptr().cast(), align, 0) } >= 0 {
            return align as u64;
        }
    }
    4096
}
