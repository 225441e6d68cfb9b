//! Where a value stands among the arguments.

use std::fmt;

/// A place among the arguments, written `keys[0].data`.
#[derive(Clone, Copy, Debug)]
pub enum Path<'a> {
    /// The arguments themselves.
    Root,
    /// A member of an object.
    Member(&'a Path<'a>, &'a str),
    /// An element of a list.
    Index(&'a Path<'a>, usize),
}

impl Path<'_> {
    /// Name of the member alone. QEMU prints `null` where there is none.
    pub fn leaf(&self) -> &str {
        match self {
            Self::Member(_, name) => name,
            _ => "null",
        }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Member(Path::Root, name) => f.write_str(name),
            Self::Member(parent, name) => write!(f, "{parent}.{name}"),
            Self::Index(parent, i) => write!(f, "{parent}[{i}]"),
        }
    }
}
