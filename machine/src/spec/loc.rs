//! Where a part of the specification came from: the prefix of error messages.

use std::fmt;
use std::sync::Arc;

use crate::error::{Prefix, QError};

/// Origin of a spec item.
///
/// Two items that differ only in their origin are equal: a machine described by QMP calls compares equal to
/// the same machine described on a command line.
#[derive(Clone, Default)]
pub struct Loc {
    text: Option<Arc<str>>,
    file: bool,
}

impl Loc {
    /// Made up by the program itself (default devices) or by QMP: errors carry no prefix.
    pub const NONE: Loc = Loc { text: None, file: false };

    /// An option as typed, for example `-drive file=x` or `--m`.
    pub fn option(words: &[&str]) -> Self {
        Self { text: Some(Arc::from(words.join(" "))), file: false }
    }

    /// A line of a configuration file; lines count from 1.
    pub fn file(name: &str, line: u32) -> Self {
        Self { text: Some(Arc::from(format!("{name}:{line}"))), file: true }
    }

    /// The prefix without its colon.
    pub fn as_str(&self) -> Option<&str> {
        self.text.as_deref()
    }

    /// True for a place in a file: its prefix follows the program's name without a blank.
    pub fn is_file(&self) -> bool {
        self.file
    }

    /// Puts `-option argument: ` in front of an error's description.
    pub fn locate(&self, err: QError) -> QError {
        match self.as_str() {
            Some(text) => {
                let mut err = err.prepend(&format!("{text}: "));
                if self.file {
                    err.prefix = Prefix::File;
                }
                err
            }
            None => err,
        }
    }
}

/// Text of an option that is read later, with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// The option's argument.
    pub text: String,
    /// Error prefix.
    pub loc: Loc,
}

impl PartialEq for Loc {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Loc {}

impl fmt::Debug for Loc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str().unwrap_or("-"))
    }
}
