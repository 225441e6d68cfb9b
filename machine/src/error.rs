//! The one error type at the boundary to people, scripts and QMP clients.
//!
//! Modules inside use their own `thiserror` enums; whatever reaches a user becomes a [`QError`], whose
//! `desc` carries the wording that scripts read.

use std::fmt;

/// Error class of the QMP protocol (`"class"` of an error reply).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorClass {
    /// Anything without a class of its own.
    GenericError,
    /// The requested command does not exist.
    CommandNotFound,
    /// The device is not in a state to do this (for example no guest driver).
    DeviceNotActive,
    /// The named device or class does not exist.
    DeviceNotFound,
    /// KVM lacks a capability that the request needs.
    KvmMissingCap,
}

impl ErrorClass {
    /// Name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::GenericError => "GenericError",
            Self::CommandNotFound => "CommandNotFound",
            Self::DeviceNotActive => "DeviceNotActive",
            Self::DeviceNotFound => "DeviceNotFound",
            Self::KvmMissingCap => "KVMMissingCap",
        }
    }
}

/// What stands before an error's description on a terminal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Prefix {
    /// The program's name and a blank.
    #[default]
    Program,
    /// The program's name; the description begins with a file and line.
    File,
    /// Nothing; the description names QEMU, as scripts expect.
    Bare,
}

/// An error as a user sees it: class, one-line description, optional hint lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QError {
    /// Class for QMP replies.
    pub class: ErrorClass,
    /// One line without a full stop or newline.
    pub desc: String,
    /// Further lines for people (printed on the command line only), each ending in a newline.
    pub hint: Option<String>,
    /// What comes before it.
    pub prefix: Prefix,
}

/// Result with a [`QError`].
pub type QResult<T> = Result<T, QError>;

impl QError {
    /// A `GenericError`.
    pub fn generic(desc: impl Into<String>) -> Self {
        Self::new(ErrorClass::GenericError, desc)
    }

    /// An error of the given class.
    pub fn new(class: ErrorClass, desc: impl Into<String>) -> Self {
        Self { class, desc: desc.into(), hint: None, prefix: Prefix::Program }
    }

    /// `DeviceNotFound` for a device id or path.
    pub fn device_not_found(name: &str) -> Self {
        Self::new(ErrorClass::DeviceNotFound, format!("Device '{name}' not found"))
    }

    /// Adds a hint (a newline is appended if it lacks one).
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        let mut hint = hint.into();
        if !hint.ends_with('\n') {
            hint.push('\n');
        }
        self.hint = Some(hint);
        self
    }

    /// Without the program's name in front.
    pub fn bare(mut self) -> Self {
        self.prefix = Prefix::Bare;
        self
    }

    /// Puts `prefix` in front of the description.
    pub fn prepend(mut self, prefix: &str) -> Self {
        self.desc.insert_str(0, prefix);
        self
    }
}

impl fmt::Display for QError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.desc)
    }
}

impl std::error::Error for QError {}

/// Shorthand for `QError::generic(format!(..))`.
#[macro_export]
macro_rules! qerr {
    ($($arg:tt)*) => { $crate::error::QError::generic(format!($($arg)*)) };
}

/// Text of an OS error as C's `strerror` gives it ("No such file or directory").
pub fn strerror(err: &std::io::Error) -> String {
    let text = err.to_string();
    match text.rfind(" (os error ") {
        Some(at) => text[..at].to_string(),
        None => text,
    }
}
