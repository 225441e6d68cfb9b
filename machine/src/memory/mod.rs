//! Guest memory: RAM blocks, the tree of regions, and the flat map that accesses go through.
//!
//! Boards and devices build a tree of regions (containers, RAM, ROM, I/O, aliases, with priorities). The tree is
//! flattened into a sorted list of ranges whenever it changed; vCPUs and I/O threads read that list as a
//! lock-free snapshot ([`Maps`]), and accelerators are told the difference.

pub mod access;
mod flat;
mod ram;
mod tree;

pub use flat::{FlatKind, FlatRange, FlatView, MemError, WriteObserver};
pub use ram::{RamBlock, RamError, RamOptions, RamSource};
pub use tree::{IoSpec, Owner, Region, RegionId, RegionKind, RegionTree};

use std::sync::Arc;

use arc_swap::ArcSwap;

/// Which of a CPU's two address spaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Space {
    /// Physical memory.
    Memory,
    /// I/O ports.
    Io,
}

/// One consistent picture of both address spaces.
#[derive(Default)]
pub struct FlatMaps {
    /// Memory.
    pub mem: FlatView,
    /// Memory as system management mode sees it, where that differs.
    pub smm: Option<FlatView>,
    /// Ports.
    pub io: FlatView,
}

impl FlatMaps {
    /// Memory as a processor in (`smm`) or outside of system management mode sees it.
    pub fn memory(&self, smm: bool) -> &FlatView {
        match &self.smm {
            Some(v) if smm => v,
            _ => &self.mem,
        }
    }
}

/// The published flat maps; cheap to clone and to read from any thread.
#[derive(Clone)]
pub struct Maps(Arc<ArcSwap<FlatMaps>>);

/// A thread's own handle of the maps. It keeps the snapshot that it saw last alive.
pub struct MapsReader(arc_swap::Cache<Arc<ArcSwap<FlatMaps>>, Arc<FlatMaps>>);

impl MapsReader {
    /// The current snapshot.
    pub fn load(&mut self) -> &FlatMaps {
        self.0.load()
    }
}

impl Default for Maps {
    fn default() -> Self {
        Self(Arc::new(ArcSwap::from_pointee(FlatMaps::default())))
    }
}

impl Maps {
    /// The current snapshot. Keep the guard short: the old map lives as long as it.
    pub fn load(&self) -> arc_swap::Guard<Arc<FlatMaps>> {
        self.0.load()
    }

    /// A handle for one thread that looks often: as long as nothing changed a look costs one comparison.
    pub fn reader(&self) -> MapsReader {
        MapsReader(arc_swap::Cache::new(self.0.clone()))
    }

    /// The current snapshot as an owned handle.
    pub fn load_full(&self) -> Arc<FlatMaps> {
        self.0.load_full()
    }

    /// Publishes a new picture.
    pub fn store(&self, maps: FlatMaps) {
        self.0.store(Arc::new(maps));
    }
}

/// Reads bytes from guest memory through a snapshot.
impl Maps {
    /// Reads RAM/ROM at `addr`; I/O ranges and holes make it fail.
    pub fn read(&self, addr: u64, buf: &mut [u8]) -> Result<(), MemError> {
        self.load().mem.read(addr, buf)
    }

    /// Writes RAM at `addr`; ROM is left alone silently, I/O ranges and holes make it fail.
    pub fn write(&self, addr: u64, buf: &[u8]) -> Result<(), MemError> {
        self.load().mem.write(addr, buf)
    }
}
