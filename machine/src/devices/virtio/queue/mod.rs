//! Split virtqueues (VIRTIO 1.2, section 2.7) on lock-free snapshots of the memory map.
//!
//! A queue has two halves with a lock each: [`Avail`] takes requests (one thread at a time: an I/O thread, or a vCPU
//! thread under the machine lock), [`Used`] gives them back (any thread, for example a block worker that finished a
//! read). Neither needs the machine lock, and neither allocates once its buffers have grown to the guest's habits.
//!
//! The `virtio-queue` crate is not used: see `docs/adr/0004-virtqueue.md`.
//!
//! Everything that the guest wrote is checked: a bad ring or descriptor gives a [`QueueError`], after which the
//! device is broken until its driver resets it. The work for one chain is bounded by [`MAX_SEGMENTS`].

mod avail;
mod chain;
#[cfg(test)]
mod tests;
mod used;

pub use avail::Avail;
pub use chain::{Chain, Span, Spans};
pub use used::Used;

use std::sync::Arc;

use parking_lot::Mutex;
use thiserror::Error;

use crate::memory::{FlatMaps, Maps};

/// Largest number of entries of a queue.
pub const MAX_SIZE: u16 = 1024;
/// Largest number of host segments of one request.
pub const MAX_SEGMENTS: usize = 1024;

/// What a guest did wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum QueueError {
    /// A ring does not lie in one piece of RAM.
    #[error("ring at {0:#x} is not in memory")]
    Ring(u64),
    /// More new entries than the ring has.
    #[error("available index moved from {old} to {new}")]
    AvailIndex {
        /// What had been taken.
        old: u16,
        /// What the guest says now.
        new: u16,
    },
    /// A head or `next` beyond the descriptor table.
    #[error("descriptor {0} does not exist")]
    Index(u16),
    /// More requests in flight than entries.
    #[error("queue size exceeded")]
    InUse,
    /// A chain that is longer than its table.
    #[error("looped descriptor")]
    Loop,
    /// An indirect table inside an indirect table, or not announced, or of a bad size.
    #[error("invalid indirect table")]
    Indirect,
    /// A descriptor of length 0.
    #[error("zero sized buffers are not allowed")]
    Empty,
    /// A device-readable descriptor after a device-writable one.
    #[error("incorrect order for descriptors")]
    Order,
    /// An address that is not RAM.
    #[error("bogus descriptor at {0:#x}")]
    Address(u64),
    /// A request without header or status byte, or a header that is too short.
    #[error("missing headers")]
    Header,
    /// Too many segments.
    #[error("too many segments")]
    Segments,
}

/// Most chains that a device takes from a queue at one go: the largest queue. A driver cannot have more on offer, but a
/// hostile one can lay its rings over each other so that every chain given back offers a new one.
pub const MAX_BURST: u32 = 32768;

/// Where a queue lies in guest memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Entries.
    pub size: u16,
    /// Descriptor table.
    pub desc: u64,
    /// Available (driver) ring.
    pub avail: u64,
    /// Used (device) ring.
    pub used: u64,
}

impl Layout {
    /// The layout of the legacy interface: everything from `base` on, the used ring on the next `align` boundary.
    pub fn legacy(base: u64, size: u16, align: u32) -> Self {
        let avail = base.wrapping_add(16 * u64::from(size));
        let end = avail.wrapping_add(4 + 2 * u64::from(size) + 2);
        let mask = u64::from(align.max(1)) - 1;
        Self { size, desc: base, avail, used: end.wrapping_add(mask) & !mask }
    }
}

/// Ring features that the driver accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingFeatures {
    /// `VIRTIO_F_EVENT_IDX`.
    pub event_idx: bool,
    /// `VIRTIO_F_INDIRECT_DESC`.
    pub indirect: bool,
    /// `VIRTIO_F_NOTIFY_ON_EMPTY`.
    pub notify_on_empty: bool,
}

impl RingFeatures {
    /// From the negotiated feature bits.
    pub fn from_bits(f: u64) -> Self {
        let has = |bit: u32| f >> bit & 1 != 0;
        Self {
            event_idx: has(super::F_EVENT_IDX),
            indirect: has(super::F_INDIRECT_DESC),
            notify_on_empty: has(super::F_NOTIFY_ON_EMPTY),
        }
    }
}

/// A live queue.
pub struct Queue {
    /// Its number.
    pub index: u16,
    /// Where it lies.
    pub layout: Layout,
    /// The half that takes requests.
    pub avail: Mutex<Avail>,
    /// The half that gives them back.
    pub used: Mutex<Used>,
}

impl Queue {
    /// A queue that starts at index 0 of both rings.
    pub fn new(index: u16, layout: Layout, features: RingFeatures, maps: &Maps) -> Self {
        Self {
            index,
            layout,
            avail: Mutex::new(Avail::new(layout, features, maps)),
            used: Mutex::new(Used::new(layout, features, maps)),
        }
    }

    /// Takes over negotiated features (the driver may set up rings before it settles features).
    pub fn set_features(&self, features: RingFeatures) {
        self.avail.lock().features = features;
        self.used.lock().features = features;
    }
}

/// Host addresses of the three parts of a ring in one snapshot of the memory map.
struct Mapped {
    snapshot: Arc<FlatMaps>,
    desc: *mut u8,
    avail: *mut u8,
    used: *mut u8,
}

// SAFETY: the addresses lie in RAM blocks that `snapshot` keeps mapped; they are only used for volatile and atomic
// accesses of memory that the guest shares anyway.
unsafe impl Send for Mapped {}

impl Mapped {
    fn new(l: &Layout, snapshot: Arc<FlatMaps>) -> Result<Self, QueueError> {
        let n = u64::from(l.size);
        let mem = &snapshot.mem;
        // The specification wants 16, 2 and 4 byte alignment; the accesses below rely on 2 and 4.
        let aligned = l.avail & 1 == 0 && l.used & 3 == 0;
        let at = |addr: u64, len: u64, write| {
            mem.host_ptr(addr, len, write).filter(|_| aligned).ok_or(QueueError::Ring(addr))
        };
        let (desc, avail, used) =
            (at(l.desc, 16 * n, false)?, at(l.avail, 6 + 2 * n, false)?, at(l.used, 6 + 8 * n, true)?);
        Ok(Self { desc, avail, used, snapshot })
    }
}

/// The mapping of a ring, renewed when the memory map changed.
struct MapCache {
    layout: Layout,
    maps: Maps,
    mapped: Option<Mapped>,
}

impl MapCache {
    fn get(&mut self) -> Result<&Mapped, QueueError> {
        let now = self.maps.load();
        if self.mapped.as_ref().is_none_or(|m| !Arc::ptr_eq(&m.snapshot, &now)) {
            self.mapped = None;
            self.mapped = Some(Mapped::new(&self.layout, Arc::clone(&now))?);
        }
        self.mapped.as_ref().ok_or(QueueError::Ring(self.layout.desc))
    }
}
