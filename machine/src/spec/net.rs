//! Network backends and NICs.

use super::loc::Loc;
use super::value::Dict;

/// `-netdev` / `netdev_add`, and the backend half of `-nic` and `-net`.
#[derive(Clone, Debug, PartialEq)]
pub struct NetdevSpec {
    /// `user`, `tap`, …
    pub kind: String,
    /// Id. `-nic`/`-net` backends without one get it from the net layer (`#net123` style names).
    pub id: Option<String>,
    /// Other options in order (lists as lists: `hostfwd`, `guestfwd`, `dnssearch`).
    pub props: Dict,
    /// Where it is plugged in.
    pub peer: NetPeer,
    /// Error prefix.
    pub loc: Loc,
}

/// What the other end of a backend or NIC is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetPeer {
    /// Decided later (`netdev=` of a device), or nothing.
    None,
    /// `-net`: a port of this hub.
    Hub(i32),
    /// `-nic`: for a NIC, the backend at this index of `VmSpec::netdevs`; for a backend, the NIC at this index of
    /// `VmSpec::nics`.
    Index(usize),
    /// `-net nic,netdev=ID`.
    Netdev(String),
}

/// A NIC of the board: `-net nic`, the device half of `-nic`, or the default NIC.
#[derive(Clone, Debug, PartialEq)]
pub struct NicSpec {
    /// Device model; `None` = the machine's default.
    pub model: Option<String>,
    /// MAC address; `None` = 52:54:00:12:34:56 and up.
    pub mac: Option<[u8; 6]>,
    /// `id=` or the deprecated `name=`.
    pub name: Option<String>,
    /// PCI address.
    pub addr: Option<String>,
    /// MSI-X vectors.
    pub vectors: Option<u32>,
    /// Other end.
    pub peer: NetPeer,
    /// Error prefix.
    pub loc: Loc,
}
