//! The flat map: sorted, disjoint ranges, looked up by binary search.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use thiserror::Error;

use super::ram::RamBlock;
use super::tree::{IoSpec, Owner, RegionId};

/// What lies in a range.
#[derive(Clone)]
pub enum FlatKind {
    /// Host memory.
    Ram {
        /// The block.
        block: Arc<RamBlock>,
        /// Guest writes are dropped.
        readonly: bool,
    },
    /// Handled by code.
    Io {
        /// Who.
        owner: Owner,
        /// Access sizes.
        spec: IoSpec,
    },
    /// Host memory to read; writes are handled by code.
    RomDevice {
        /// The block.
        block: Arc<RamBlock>,
        /// Who.
        owner: Owner,
        /// Sizes of writes.
        spec: IoSpec,
    },
}

impl FlatKind {
    /// The memory that reads come from, and whether writes go elsewhere or nowhere.
    pub fn memory(&self) -> Option<(&Arc<RamBlock>, bool)> {
        match self {
            Self::Ram { block, readonly } => Some((block, *readonly)),
            Self::RomDevice { block, .. } => Some((block, true)),
            Self::Io { .. } => None,
        }
    }
}

/// One range; `last` is inclusive so that the end of the space can be expressed.
#[derive(Clone)]
pub struct FlatRange {
    /// First address.
    pub start: u64,
    /// Last address.
    pub last: u64,
    /// Offset of `start` in the region (for RAM: in the block).
    pub offset: u64,
    /// The region.
    pub region: RegionId,
    /// What it is.
    pub kind: FlatKind,
}

impl FlatRange {
    /// RAM of the same block that continues `self` without a gap, with the same rights.
    fn continues(&self, next: &Self) -> bool {
        match (&self.kind, &next.kind) {
            (FlatKind::Ram { block: a, readonly: ra }, FlatKind::Ram { block: b, readonly: rb }) => {
                Arc::ptr_eq(a, b)
                    && ra == rb
                    && self.last.wrapping_add(1) == next.start
                    && self.offset + (self.last - self.start) + 1 == next.offset
            }
            _ => false,
        }
    }
}

/// Why a memory access failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum MemError {
    /// Nothing is mapped there, or not memory.
    #[error("no memory at {0:#x}")]
    Unmapped(u64),
}

/// Is told what devices write into guest memory, as the software CPU must be for the sake of code it has decoded.
pub trait WriteObserver: Send + Sync {
    /// `len` bytes at `host` are being written, or will be.
    fn written(&self, host: *mut u8, len: usize);
}

/// Sorted, disjoint ranges.
#[derive(Default)]
pub struct FlatView {
    ranges: Vec<FlatRange>,
    observer: Option<Arc<dyn WriteObserver>>,
    /// Where the last look-up ended: guests mostly use one device at a time. Only a hint, any value will do.
    hint: AtomicUsize,
}

impl FlatView {
    /// From sorted disjoint ranges; joins RAM that continues.
    pub fn new(sorted: Vec<FlatRange>) -> Self {
        let mut ranges: Vec<FlatRange> = Vec::with_capacity(sorted.len());
        for r in sorted {
            match ranges.last_mut() {
                Some(l) if l.continues(&r) => l.last = r.last,
                _ => ranges.push(r),
            }
        }
        Self { ranges, observer: None, hint: AtomicUsize::new(0) }
    }

    /// Reports all writes through this view.
    pub fn observed(mut self, observer: Option<Arc<dyn WriteObserver>>) -> Self {
        self.observer = observer;
        self
    }

    fn report(&self, host: *mut u8, len: usize) {
        if let Some(o) = &self.observer {
            o.written(host, len);
        }
    }

    /// The ranges.
    pub fn ranges(&self) -> &[FlatRange] {
        &self.ranges
    }

    /// The range that holds `addr`.
    pub fn find(&self, addr: u64) -> Option<&FlatRange> {
        let last = self.ranges.get(self.hint.load(Ordering::Relaxed));
        if let Some(r) = last.filter(|r| r.start <= addr && addr <= r.last) {
            return Some(r);
        }
        let i = self.ranges.partition_point(|r| r.last < addr);
        let found = self.ranges.get(i).filter(|r| r.start <= addr)?;
        self.hint.store(i, Ordering::Relaxed);
        Some(found)
    }

    /// Host address of `len` bytes at `addr` if they lie in one RAM range (and may be written, if `write`).
    pub fn host_ptr(&self, addr: u64, len: u64, write: bool) -> Option<*mut u8> {
        let r = self.find(addr)?;
        let (block, readonly) = r.kind.memory()?;
        if (write && readonly) || len > r.last - addr + 1 || len == 0 {
            return None;
        }
        let off = r.offset + (addr - r.start);
        if off.checked_add(len)? > block.len() {
            return None;
        }
        // SAFETY: `off + len` was checked against the block's length.
        let host = unsafe { block.host().add(off as usize) };
        if write {
            self.report(host, len as usize);
        }
        Some(host)
    }

    /// Calls `f(block, offset, pos, len)` for each piece of RAM in `[addr, addr + len)`.
    fn pieces(
        &self,
        addr: u64,
        len: usize,
        mut f: impl FnMut(&RamBlock, bool, u64, std::ops::Range<usize>) -> bool,
    ) -> Result<(), MemError> {
        let mut pos = 0;
        while pos < len {
            let at = addr.checked_add(pos as u64).ok_or(MemError::Unmapped(addr))?;
            let r = self.find(at).ok_or(MemError::Unmapped(at))?;
            let (block, readonly) = r.kind.memory().ok_or(MemError::Unmapped(at))?;
            let n = ((r.last - at).saturating_add(1)).min((len - pos) as u64) as usize;
            if !f(block, readonly, r.offset + (at - r.start), pos..pos + n) {
                return Err(MemError::Unmapped(at));
            }
            pos += n;
        }
        Ok(())
    }

    /// Reads RAM or ROM.
    pub fn read(&self, addr: u64, buf: &mut [u8]) -> Result<(), MemError> {
        self.pieces(addr, buf.len(), |b, _, off, range| b.read(off, &mut buf[range]))
    }

    /// Writes RAM and ROM, as a debugger does.
    pub fn write_rom(&self, addr: u64, buf: &[u8]) -> Result<(), MemError> {
        self.pieces(addr, buf.len(), |b, _, off, range| b.write(off, &buf[range]))
    }

    /// Writes RAM; bytes for ROM are dropped.
    pub fn write(&self, addr: u64, buf: &[u8]) -> Result<(), MemError> {
        self.pieces(addr, buf.len(), |b, ro, off, range| {
            if ro {
                return true;
            }
            let len = range.len();
            let done = b.write(off, &buf[range]);
            if done && self.observer.is_some() {
                self.report(b.host().wrapping_add(off as usize), len);
            }
            done
        })
    }
}
