//! One request: the host segments that its descriptors name.

use std::sync::Arc;

use crate::memory::FlatMaps;

/// A piece of guest memory in this process.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    ptr: *mut u8,
    len: usize,
}

// SAFETY: an address, not an ownership; the memory stays mapped as long as the snapshot in the `Chain` that the span
// came from (see `Chain::snapshot`).
unsafe impl Send for Span {}
// SAFETY: as above.
unsafe impl Sync for Span {}

impl Span {
    /// Host address.
    pub fn ptr(&self) -> *mut u8 {
        self.ptr
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Writes one byte at the start.
    pub fn write_u8(&self, v: u8) {
        if self.len > 0 {
            // SAFETY: the span has at least one byte of mapped RAM; the guest may race, which only changes data.
            unsafe { self.ptr.write_volatile(v) };
        }
    }
}

/// The readable or writable half of a request.
#[derive(Debug, Default)]
pub struct Spans {
    list: Vec<Span>,
    total: usize,
}

impl Spans {
    pub(super) fn clear(&mut self) {
        self.list.clear();
        self.total = 0;
    }

    /// Adds `len` bytes of guest memory at `ptr`; joins pieces that touch.
    pub(super) fn push(&mut self, ptr: *mut u8, len: usize) {
        self.total = self.total.saturating_add(len);
        self.list.push(Span { ptr, len });
    }

    pub(super) fn count(&self) -> usize {
        self.list.len()
    }

    /// Bytes in all.
    pub fn total(&self) -> usize {
        self.total
    }

    /// The pieces.
    pub fn list(&self) -> &[Span] {
        &self.list
    }

    /// Copies from byte `from` on into `buf`; returns how much there was.
    pub fn read(&self, from: usize, buf: &mut [u8]) -> usize {
        let mut done = 0;
        self.pieces(from, buf.len(), |p, n| {
            // SAFETY: `pieces` hands out parts of the spans; `buf` is ours and has room for `done + n` bytes.
            unsafe { std::ptr::copy_nonoverlapping(p, buf[done..done + n].as_mut_ptr(), n) };
            done += n;
        });
        done
    }

    /// Copies `data` to byte `from` on; returns how much fitted.
    pub fn write(&self, from: usize, data: &[u8]) -> usize {
        let mut done = 0;
        self.pieces(from, data.len(), |p, n| {
            // SAFETY: `pieces` hands out parts of the spans, which are writable RAM for the writable half.
            unsafe { std::ptr::copy_nonoverlapping(data[done..done + n].as_ptr(), p, n) };
            done += n;
        });
        done
    }

    /// Everything in a vector (small control messages), at most `max` bytes.
    pub fn to_vec(&self, max: usize) -> Vec<u8> {
        let mut v = vec![0; self.total.min(max)];
        let n = self.read(0, &mut v);
        v.truncate(n);
        v
    }

    /// Calls `f(address, length)` for the pieces of `[from, from + len)`.
    pub fn pieces(&self, mut from: usize, mut len: usize, mut f: impl FnMut(*mut u8, usize)) {
        for s in &self.list {
            if len == 0 {
                return;
            }
            if from >= s.len {
                from -= s.len;
                continue;
            }
            let n = (s.len - from).min(len);
            // SAFETY: `from < s.len`.
            f(unsafe { s.ptr.add(from) }, n);
            from = 0;
            len -= n;
        }
    }

    /// The last byte as a span of its own.
    pub fn last_byte(&self) -> Option<Span> {
        let s = self.list.last().filter(|s| s.len > 0)?;
        // SAFETY: the span is not empty.
        Some(Span { ptr: unsafe { s.ptr.add(s.len - 1) }, len: 1 })
    }
}

/// A request taken from a queue. Reused from one request to the next.
#[derive(Default)]
pub struct Chain {
    /// Number of its first descriptor, to give it back.
    pub head: u16,
    /// What the device reads.
    pub readable: Spans,
    /// What the device writes.
    pub writable: Spans,
    /// Keeps the memory behind the spans mapped.
    pub snapshot: Option<Arc<FlatMaps>>,
}
