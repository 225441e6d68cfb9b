//! Guest RAM and NUMA.

use super::loc::Loc;
use super::value::Dict;

/// `-m`, `-mem-path`, `-mem-prealloc`, `-overcommit mem-lock`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemorySpec {
    /// Bytes at start; `None` or 0 = the machine's default (128 MiB). Rounded up to 8 KiB by the parser.
    pub size: Option<u64>,
    /// Hot-plug slots.
    pub slots: Option<u64>,
    /// Upper limit in bytes for RAM plus hot-plugged memory.
    pub maxmem: Option<u64>,
    /// Directory (huge pages) or file that holds the RAM.
    pub mem_path: Option<String>,
    /// Touch all pages at start.
    pub prealloc: bool,
}

/// One `-numa` option, in order: NUMA is configured step by step.
#[derive(Clone, Debug, PartialEq)]
pub struct NumaSpec {
    /// What it says.
    pub kind: NumaKind,
    /// Error prefix.
    pub loc: Loc,
}

/// The forms of `-numa`.
#[derive(Clone, Debug, PartialEq)]
pub enum NumaKind {
    /// `node`: a memory node.
    Node {
        /// Number; `None` = next free.
        nodeid: Option<u16>,
        /// CPU indexes.
        cpus: Vec<u16>,
        /// RAM in bytes (legacy form).
        mem: Option<u64>,
        /// Backend id.
        memdev: Option<String>,
        /// Initiator node (HMAT).
        initiator: Option<u16>,
    },
    /// `dist`: distance between two nodes, 10..=255.
    Dist {
        /// From.
        src: u16,
        /// To.
        dst: u16,
        /// Distance.
        val: u8,
    },
    /// `cpu`: binds CPUs to a node; keys `node-id`, `socket-id`, `die-id`, `core-id`, `thread-id`.
    Cpu(Dict),
    /// `hmat-lb`: latency or bandwidth.
    HmatLb(Dict),
    /// `hmat-cache`: a memory-side cache.
    HmatCache(Dict),
}
