//! The half of a queue that gives requests back.

use std::sync::atomic::{fence, AtomicU32, Ordering};

use super::{Layout, MapCache, Mapped, QueueError, RingFeatures};
use crate::memory::Maps;

const NO_INTERRUPT: u16 = 1;

/// Fills the used ring and decides about interrupts.
pub struct Used {
    map: MapCache,
    next: u16,
    /// Index up to which the guest was told.
    told: u16,
    told_valid: bool,
    pub(super) features: RingFeatures,
}

impl Used {
    pub(super) fn new(layout: Layout, features: RingFeatures, maps: &Maps) -> Self {
        let map = MapCache { layout, maps: maps.clone(), mapped: None };
        Self { map, next: 0, told: 0, told_valid: false, features }
    }

    /// Ring features.
    pub fn features(&self) -> RingFeatures {
        self.features
    }

    /// Index of the next entry to fill.
    pub fn next(&self) -> u16 {
        self.next
    }

    /// Continues at `next` (after a restore).
    pub fn set_next(&mut self, next: u16) {
        self.next = next;
        self.told_valid = false;
    }

    /// Forgets the mapping, so that the memory behind it can go away.
    pub fn release(&mut self) {
        self.map.mapped = None;
    }

    /// Gives the request that began at descriptor `head` back, `len` bytes of it written.
    ///
    /// # Errors
    /// The ring is not in memory (any more).
    pub fn push(&mut self, head: u16, len: u32) -> Result<(), QueueError> {
        let (size, next) = (self.map.layout.size, self.next);
        let m = self.map.get()?;
        let at = 4 + 8 * usize::from(next % size);
        m.used_dword(at).store(u32::from(head).to_le(), Ordering::Relaxed);
        m.used_dword(at + 4).store(len.to_le(), Ordering::Relaxed);
        self.next = next.wrapping_add(1);
        m.used_word(2).store(self.next.to_le(), Ordering::Release);
        Ok(())
    }

    /// Gives several requests back at once: the guest sees all of them or none.
    ///
    /// # Errors
    /// The ring is not in memory (any more).
    pub fn push_many(&mut self, list: &[(u16, u32)]) -> Result<(), QueueError> {
        let (size, mut next) = (self.map.layout.size, self.next);
        let m = self.map.get()?;
        for (head, len) in list {
            let at = 4 + 8 * usize::from(next % size);
            m.used_dword(at).store(u32::from(*head).to_le(), Ordering::Relaxed);
            m.used_dword(at + 4).store(len.to_le(), Ordering::Relaxed);
            next = next.wrapping_add(1);
        }
        self.next = next;
        m.used_word(2).store(next.to_le(), Ordering::Release);
        Ok(())
    }

    /// Whether the guest wants an interrupt for what was given back since it was last told. `drained`: no request is
    /// waiting or in flight.
    pub fn should_interrupt(&mut self, drained: bool) -> bool {
        let (size, next, f) = (self.map.layout.size, self.next, self.features);
        let (told, valid) = (self.told, self.told_valid);
        let Ok(m) = self.map.get() else { return false };
        // The index must be visible before the guest's wish is read.
        fence(Ordering::SeqCst);
        if f.notify_on_empty && drained {
            return true;
        }
        if !f.event_idx {
            return u16::from_le(m.avail_word(0).load(Ordering::Relaxed)) & NO_INTERRUPT == 0;
        }
        let event = u16::from_le(m.avail_word(4 + 2 * usize::from(size)).load(Ordering::Relaxed));
        (self.told, self.told_valid) = (next, true);
        !valid || next.wrapping_sub(event).wrapping_sub(1) < next.wrapping_sub(told)
    }
}

impl Mapped {
    fn used_dword(&self, at: usize) -> &AtomicU32 {
        // SAFETY: offsets up to `8 * size`, inside the mapped ring, whose address is a multiple of four; the guest
        // accesses it at the same time, so all accesses are atomic.
        unsafe { AtomicU32::from_ptr(self.used.add(at).cast()) }
    }
}
