//! The half of a queue that takes requests.

use std::sync::atomic::{fence, AtomicU16, Ordering};
use std::sync::Arc;

use super::{Chain, Layout, MapCache, Mapped, QueueError, RingFeatures, Spans, MAX_SEGMENTS};
use crate::memory::{FlatView, Maps};

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
const NO_NOTIFY: u16 = 1;

/// One descriptor as the guest wrote it.
#[derive(Clone, Copy)]
struct Desc {
    addr: u64,
    len: u32,
    flags: u16,
    next: u16,
}

impl Desc {
    fn from_bytes(b: [u8; 16]) -> Self {
        let [a0, a1, a2, a3, a4, a5, a6, a7, l0, l1, l2, l3, f0, f1, n0, n1] = b;
        Self {
            addr: u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]),
            len: u32::from_le_bytes([l0, l1, l2, l3]),
            flags: u16::from_le_bytes([f0, f1]),
            next: u16::from_le_bytes([n0, n1]),
        }
    }
}

/// Takes requests from the available ring.
pub struct Avail {
    map: MapCache,
    next: u16,
    /// The guest's index when it was last looked at.
    seen: u16,
    pub(super) features: RingFeatures,
}

impl Avail {
    pub(super) fn new(layout: Layout, features: RingFeatures, maps: &Maps) -> Self {
        Self { map: MapCache { layout, maps: maps.clone(), mapped: None }, next: 0, seen: 0, features }
    }

    fn size(&self) -> u16 {
        self.map.layout.size
    }

    /// Index of the next entry to take.
    pub fn next(&self) -> u16 {
        self.next
    }

    /// Continues at `next` (after a restore, or to take requests again that were not finished).
    pub fn set_next(&mut self, next: u16) {
        self.next = next;
        self.seen = next;
    }

    /// Forgets the mapping, so that the memory behind it can go away.
    pub fn release(&mut self) {
        self.map.mapped = None;
    }

    /// Whether requests wait. A broken ring counts, so that [`Self::pop`] reports it.
    pub fn has_work(&mut self) -> bool {
        if self.seen != self.next {
            return true;
        }
        match self.map.get() {
            Ok(m) => {
                self.seen = m.avail_idx();
                self.seen != self.next
            }
            Err(_) => true,
        }
    }

    /// How many requests wait, as far as was seen.
    pub fn seen(&self) -> u16 {
        self.seen.wrapping_sub(self.next)
    }

    /// Takes the next request into `chain`; `false` if there is none.
    ///
    /// # Errors
    /// The ring or the chain is malformed.
    pub fn pop(&mut self, chain: &mut Chain) -> Result<bool, QueueError> {
        let (size, next) = (self.size(), self.next);
        let m = self.map.get()?;
        if self.seen == next {
            self.seen = m.avail_idx();
            if self.seen == next {
                return Ok(false);
            }
        }
        if self.seen.wrapping_sub(next) > size {
            return Err(QueueError::AvailIndex { old: next, new: self.seen });
        }
        let head = m.avail_entry(next, size);
        if head >= size {
            return Err(QueueError::Index(head));
        }
        chain.load(m, head, size, self.features.indirect)?;
        self.next = next.wrapping_add(1);
        Ok(true)
    }

    /// Reads the chain at `head` once more (a request that was taken but could not be served yet).
    ///
    /// # Errors
    /// The chain is malformed.
    pub fn again(&mut self, head: u16, chain: &mut Chain) -> Result<(), QueueError> {
        let (size, indirect) = (self.size(), self.features.indirect);
        let m = self.map.get()?;
        if head >= size {
            return Err(QueueError::Index(head));
        }
        chain.load(m, head, size, indirect)
    }

    /// Asks the guest to notify about new requests, or not to. When it asks, a request that came in between is not
    /// missed if the caller then looks with [`Self::has_work`].
    pub fn set_notify(&mut self, on: bool) {
        let (size, next, event_idx) = (self.size(), self.next, self.features.event_idx);
        let Ok(m) = self.map.get() else { return };
        if event_idx {
            if on {
                m.used_word(4 + 8 * usize::from(size)).store(next.to_le(), Ordering::Relaxed);
            }
        } else {
            let flags = if on { 0 } else { NO_NOTIFY };
            m.used_word(0).store(flags.to_le(), Ordering::Relaxed);
        }
        if on {
            fence(Ordering::SeqCst);
        }
    }
}

impl Mapped {
    fn avail_idx(&self) -> u16 {
        u16::from_le(self.avail_word(2).load(Ordering::Acquire))
    }

    fn avail_entry(&self, index: u16, size: u16) -> u16 {
        // Sizes need not be powers of two as far as memory safety goes.
        let i = usize::from(index % size);
        u16::from_le(self.avail_word(4 + 2 * i).load(Ordering::Relaxed))
    }

    pub(super) fn avail_word(&self, at: usize) -> &AtomicU16 {
        // SAFETY: callers pass offsets up to `4 + 2 * size`, inside the mapped and aligned ring; the guest accesses
        // it at the same time, so all accesses are atomic.
        unsafe { AtomicU16::from_ptr(self.avail.add(at).cast()) }
    }

    pub(super) fn used_word(&self, at: usize) -> &AtomicU16 {
        // SAFETY: as above, offsets up to `4 + 8 * size`.
        unsafe { AtomicU16::from_ptr(self.used.add(at).cast()) }
    }

    fn desc(&self, i: u16) -> Desc {
        // SAFETY: the caller checked `i` against the size of the mapped table; bytes have no alignment.
        Desc::from_bytes(unsafe { self.desc.add(16 * usize::from(i)).cast::<[u8; 16]>().read_volatile() })
    }
}

/// Where descriptors come from.
enum Table<'a> {
    Ring(&'a Mapped),
    Host(*const u8),
    Guest(&'a FlatView, u64),
}

impl Table<'_> {
    fn get(&self, i: u32) -> Result<Desc, QueueError> {
        let at = 16 * u64::from(i);
        match self {
            Self::Ring(m) => Ok(m.desc(i as u16)),
            Self::Host(p) => {
                // SAFETY: the whole table was translated as one piece and `i` checked against its length.
                Ok(Desc::from_bytes(unsafe { p.add(at as usize).cast::<[u8; 16]>().read_volatile() }))
            }
            Self::Guest(mem, addr) => {
                let (addr, mut b) = (addr.wrapping_add(at), [0; 16]);
                mem.read(addr, &mut b).map_err(|_| QueueError::Address(addr))?;
                Ok(Desc::from_bytes(b))
            }
        }
    }
}

impl Chain {
    fn load(&mut self, m: &Mapped, head: u16, size: u16, indirect: bool) -> Result<(), QueueError> {
        self.head = head;
        self.readable.clear();
        self.writable.clear();
        Walk { m, indirect, chain: self }.run(head, size)?;
        if self.snapshot.as_ref().is_none_or(|s| !Arc::ptr_eq(s, &m.snapshot)) {
            self.snapshot = Some(Arc::clone(&m.snapshot));
        }
        Ok(())
    }
}

struct Walk<'a> {
    m: &'a Mapped,
    indirect: bool,
    chain: &'a mut Chain,
}

impl Walk<'_> {
    fn run(&mut self, head: u16, size: u16) -> Result<(), QueueError> {
        let mem = &self.m.snapshot.mem;
        let first = self.m.desc(head);
        if first.flags & INDIRECT == 0 {
            return self.follow(&Table::Ring(self.m), u32::from(head), u32::from(size));
        }
        let len = u64::from(first.len);
        if !self.indirect || len == 0 || len % 16 != 0 || first.flags & NEXT != 0 {
            return Err(QueueError::Indirect);
        }
        let table = match mem.host_ptr(first.addr, len, false) {
            Some(p) => Table::Host(p),
            None => Table::Guest(mem, first.addr),
        };
        self.follow(&table, 0, first.len / 16)
    }

    /// Follows a chain from descriptor `i` of a table of `count`.
    fn follow(&mut self, table: &Table<'_>, mut i: u32, count: u32) -> Result<(), QueueError> {
        for _ in 0..count {
            let d = table.get(i)?;
            if d.flags & INDIRECT != 0 {
                return Err(QueueError::Indirect);
            }
            self.add(&d)?;
            if d.flags & NEXT == 0 {
                return Ok(());
            }
            i = u32::from(d.next);
            if i >= count {
                return Err(QueueError::Index(d.next));
            }
        }
        Err(QueueError::Loop)
    }

    fn add(&mut self, d: &Desc) -> Result<(), QueueError> {
        let write = d.flags & WRITE != 0;
        if !write && self.chain.writable.count() > 0 {
            return Err(QueueError::Order);
        }
        if d.len == 0 {
            return Err(QueueError::Empty);
        }
        let used = self.chain.readable.count() + self.chain.writable.count();
        let to = if write { &mut self.chain.writable } else { &mut self.chain.readable };
        translate(&self.m.snapshot.mem, d, write, to, MAX_SEGMENTS - used.min(MAX_SEGMENTS))
    }
}

/// Adds the host pieces of a descriptor's range to `to`, at most `room` of them.
fn translate(mem: &FlatView, d: &Desc, write: bool, to: &mut Spans, room: usize) -> Result<(), QueueError> {
    let len = u64::from(d.len);
    if room == 0 {
        return Err(QueueError::Segments);
    }
    if let Some(p) = mem.host_ptr(d.addr, len, write) {
        to.push(p, d.len as usize);
        return Ok(());
    }
    // It crosses from one range into another, or is wrong.
    let mut done = 0;
    for _ in 0..room {
        let at = d.addr.checked_add(done).ok_or(QueueError::Address(d.addr))?;
        let r = mem.find(at).ok_or(QueueError::Address(at))?;
        let n = (r.last - at).saturating_add(1).min(len - done);
        let p = mem.host_ptr(at, n, write).ok_or(QueueError::Address(at))?;
        to.push(p, n as usize);
        done += n;
        if done == len {
            return Ok(());
        }
    }
    Err(QueueError::Segments)
}
