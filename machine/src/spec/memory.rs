//! Guest RAM and NUMA.

use super::loc::Loc;
use super::value::Dict;
use crate::error::QResult;
use crate::qerr;

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

/// Sizes after the rules of the machine: see [`MemorySpec::resolve`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemorySize {
    /// RAM at start in bytes, a multiple of 8 KiB.
    pub ram: u64,
    /// Limit in bytes, at least `ram`.
    pub max: u64,
    /// Hot-plug slots.
    pub slots: u64,
}

impl MemorySpec {
    /// Fills in `default_ram` bytes and checks the three sizes against each other.
    pub fn resolve(&self, default_ram: u64) -> QResult<MemorySize> {
        let ram = match self.size {
            None | Some(0) => default_ram,
            Some(size) => size.checked_next_multiple_of(8192).ok_or_else(|| qerr!("ram size too large"))?,
        };
        let slots = self.slots.unwrap_or(0);
        let Some(max) = self.maxmem else {
            if slots > 0 {
                return Err(qerr!("slots specified but no max-size"));
            }
            return Ok(MemorySize { ram, max: ram, slots });
        };
        if max < ram {
            return Err(qerr!(
                "invalid value of maxmem: maximum memory size (0x{max:x}) must be at least the initial memory \
                 size (0x{ram:x})"
            ));
        }
        if slots > 0 && max == ram {
            return Err(qerr!(
                "invalid value of maxmem: memory slots were specified but maximum memory size (0x{max:x}) is \
                 equal to the initial memory size (0x{ram:x})"
            ));
        }
        Ok(MemorySize { ram, max, slots })
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULT: u64 = 128 << 20;

    #[test]
    fn sizes() {
        let m = MemorySpec { size: Some(1000), ..MemorySpec::default() };
        assert_eq!(m.resolve(DEFAULT).unwrap().ram, 8192);
        let m = MemorySpec { size: Some(0), maxmem: Some(1 << 30), slots: Some(2), ..MemorySpec::default() };
        assert_eq!(m.resolve(DEFAULT).unwrap(), MemorySize { ram: DEFAULT, max: 1 << 30, slots: 2 });
    }

    #[test]
    fn refusals() {
        let err = |size, slots, maxmem| {
            MemorySpec { size, slots, maxmem, ..MemorySpec::default() }.resolve(DEFAULT).unwrap_err().desc
        };
        assert_eq!(err(None, Some(2), None), "slots specified but no max-size");
        assert_eq!(
            err(None, None, Some(64 << 20)),
            "invalid value of maxmem: maximum memory size (0x4000000) must be at least the initial memory size \
             (0x8000000)"
        );
        assert!(err(None, Some(1), Some(DEFAULT)).contains("is equal to the initial memory size (0x8000000)"));
        assert_eq!(err(Some(u64::MAX), None, None), "ram size too large");
    }
}
