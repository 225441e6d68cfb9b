//! The version that clients are told: that of the QEMU whose behaviour this program has.

use serde_json::Value;

/// A version triple.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Triple {
    /// First number.
    pub major: u32,
    /// Second number.
    pub minor: u32,
    /// Third number.
    pub micro: u32,
}

impl Triple {
    /// As QMP shows it.
    pub fn to_value(self) -> Value {
        serde_json::json!({"micro": self.micro, "minor": self.minor, "major": self.major})
    }

    /// `7.2.22`.
    pub fn text(self) -> String {
        format!("{}.{}.{}", self.major, self.minor, self.micro)
    }
}

/// Version of QEMU.
pub const QEMU: Triple = Triple { major: 7, minor: 2, micro: 22 };

/// The package string: name and version of this program.
pub const PACKAGE: &str = concat!("rqemu ", env!("CARGO_PKG_VERSION"));
