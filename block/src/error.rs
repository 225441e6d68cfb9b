//! Errors of the block layer, worded as QEMU words them, because scripts and people match on the text.

use std::fmt;

/// An `errno` value as the result of a guest request. `Copy`, so that completing a request never allocates.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub i32);

impl Errno {
    /// Input/output error: the catch-all for a request that is outside the medium or failed in a format driver.
    pub const EIO: Errno = Errno(libc::EIO);
    /// No medium in the drive.
    pub const ENOMEDIUM: Errno = Errno(libc::ENOMEDIUM);
    /// The node is read-only.
    pub const EPERM: Errno = Errno(libc::EPERM);
    /// Malformed request.
    pub const EINVAL: Errno = Errno(libc::EINVAL);
    /// The operation is not supported by this node.
    pub const ENOTSUP: Errno = Errno(libc::ENOTSUP);
    /// No space left on the host.
    pub const ENOSPC: Errno = Errno(libc::ENOSPC);

    /// The calling thread's last `errno`.
    pub fn last() -> Errno {
        Errno(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut buf = [0u8; 128];
        // SAFETY: `buf` is writable for its whole length and strerror_r terminates the text inside it.
        let rc = unsafe { libc::strerror_r(self.0, buf.as_mut_ptr().cast(), buf.len()) };
        let text = std::ffi::CStr::from_bytes_until_nul(&buf).ok().and_then(|c| c.to_str().ok());
        match text {
            Some(t) if rc == 0 && !t.is_empty() => f.write_str(t),
            _ => write!(f, "Unknown error {}", self.0),
        }
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Errno({}: {self})", self.0)
    }
}

impl std::error::Error for Errno {}

impl From<std::io::Error> for Errno {
    fn from(e: std::io::Error) -> Errno {
        Errno(e.raw_os_error().unwrap_or(libc::EIO))
    }
}

/// Result of one I/O operation.
pub type IoResult = Result<(), Errno>;

/// Why a node could not be opened, changed or removed. `Display` is QEMU's wording.
#[derive(Debug, thiserror::Error)]
pub enum BlockError {
    /// The host file could not be opened.
    #[error("Could not open '{file}': {errno}")]
    Open {
        /// File name as the user gave it.
        file: String,
        /// What the host said.
        errno: Errno,
    },
    /// Another program (or another node here) uses the image in a way that excludes ours.
    #[error("Failed to get {}\"{perm}\" lock", if *.shared { "shared " } else { "" })]
    Lock {
        /// Permission in QEMU's words: `write`, `resize`, `consistent read`, `write unchanged`.
        perm: &'static str,
        /// We wanted to exclude others from `perm` rather than use it ourselves.
        shared: bool,
        /// Image, for the hint.
        file: String,
    },
    /// The graph itself does not allow a second use of a node.
    #[error(
        "Permission conflict on node '{node}': permissions '{perms}' are both required by {needs} and unshared by \
         {denies}."
    )]
    Conflict {
        /// Node name.
        node: String,
        /// Permissions in QEMU's words, separated by `, `.
        perms: String,
        /// Who uses them.
        needs: String,
        /// Who excludes them.
        denies: String,
    },
    /// Writing was asked of a read-only node.
    #[error("Block node is read-only")]
    NodeReadOnly,
    /// `driver=`/`format=` names nothing that exists.
    #[error("Unknown driver '{0}'")]
    UnknownDriver(String),
    /// `foo:` in front of a file name.
    #[error("Unknown protocol '{0}'")]
    UnknownProtocol(String),
    /// The image does not carry the format's magic.
    #[error("Image is not in {0} format")]
    NotInFormat(&'static str),
    /// Opening the image below failed.
    #[error("Could not open backing file: {0}")]
    Backing(Box<BlockError>),
    /// A reference to a node or drive that does not exist.
    #[error("Cannot find device='{0}' nor node-name='{0}'")]
    NoSuchNode(String),
    /// `blockdev-del` and friends.
    #[error("Failed to find node with node-name='{0}'")]
    NodeNotFound(String),
    /// Names are unique.
    #[error("Duplicate nodes with node-name='{0}'")]
    DuplicateNode(String),
    /// A required member is absent.
    #[error("Parameter '{0}' is missing")]
    Missing(String),
    /// A member nobody takes.
    #[error("Parameter '{0}' is unexpected")]
    Unexpected(String),
    /// A member of the wrong type.
    #[error("Invalid parameter type for '{name}', expected: {expected}")]
    BadType {
        /// Member, with its path.
        name: String,
        /// JSON type.
        expected: &'static str,
    },
    /// A member whose value is not one of the enumeration.
    #[error("Parameter '{name}' does not accept value '{value}'")]
    BadEnum {
        /// Member, with its path.
        name: String,
        /// What was given.
        value: String,
    },
    /// A `key=value` member that should have been `on` or `off`.
    #[error("Parameter '{0}' expects 'on' or 'off'")]
    BadBool(String),
    /// A number that is negative or too large.
    #[error("Parameter '{0}' expects a non-negative number below 2^64")]
    BadSize(String),
    /// `-drive` option that the driver does not know.
    #[error("Block {kind} '{driver}' {} support the option '{option}'", if *.kind == "format" { "does not" } else { "doesn't" })]
    UnknownOption {
        /// `format` or `protocol`.
        kind: &'static str,
        /// Driver.
        driver: String,
        /// Option.
        option: String,
    },
    /// Something QEMU can do and this program cannot yet; never silently ignored.
    #[error("{0} is not supported")]
    Unsupported(String),
    /// A text with QMP's error class.
    #[error("{1}")]
    Class(&'static str, String),
    /// Any other text, given in QEMU's words by the place that raises it.
    #[error("{0}")]
    Text(String),
    /// An operation failed on the host; `what` is QEMU's prefix.
    #[error("{what}: {errno}")]
    Io {
        /// Prefix.
        what: String,
        /// Cause.
        errno: Errno,
    },
}

impl BlockError {
    /// Second line that QEMU prints below some errors (without the newline).
    pub fn hint(&self) -> Option<String> {
        match self {
            BlockError::Lock { file, .. } => Some(format!("Is another process using the image [{file}]?")),
            BlockError::BadSize(_) => Some(
                "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\nand exabytes, respectively."
                    .into(),
            ),
            BlockError::Backing(e) => e.hint(),
            _ => None,
        }
    }

    pub(crate) fn text(s: impl Into<String>) -> BlockError {
        BlockError::Text(s.into())
    }

    pub(crate) fn io(what: impl Into<String>, e: impl Into<Errno>) -> BlockError {
        BlockError::Io { what: what.into(), errno: e.into() }
    }

    /// True if the cause is that the host file does not exist or cannot be opened.
    pub fn is_open_failure(&self) -> bool {
        matches!(self, BlockError::Open { .. })
    }
}

/// Result of a graph operation.
pub type Result<T, E = BlockError> = std::result::Result<T, E>;
