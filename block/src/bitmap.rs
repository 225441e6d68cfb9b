//! Dirty bitmaps: which parts of a node have been written since some moment.

use parking_lot::Mutex;

/// A bitmap over a node.
pub struct DirtyBitmap {
    /// Name; none for those of jobs.
    pub(crate) name: Option<String>,
    /// log2 of the bytes that a bit stands for.
    pub(crate) shift: u32,
    state: Mutex<State>,
}

struct State {
    bits: Vec<u64>,
    /// Bits in use.
    len: u64,
    count: u64,
    enabled: bool,
    persistent: bool,
    busy: bool,
    inconsistent: bool,
}

/// What is shown of a bitmap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BitmapFacts {
    /// Bytes a bit stands for.
    pub granularity: u64,
    /// Bytes marked.
    pub count: u64,
    /// Writes are recorded.
    pub recording: bool,
    /// A job uses it.
    pub busy: bool,
    /// Saved in the image.
    pub persistent: bool,
    /// Was not saved properly: can only be removed.
    pub inconsistent: bool,
}

impl DirtyBitmap {
    /// A clear bitmap over `size` bytes; `granularity` is a power of two.
    pub(crate) fn new(name: Option<String>, size: u64, granularity: u64) -> DirtyBitmap {
        let shift = granularity.trailing_zeros();
        let len = size.div_ceil(granularity);
        let state = State {
            bits: vec![0; len.div_ceil(64) as usize],
            len,
            count: 0,
            enabled: true,
            persistent: false,
            busy: false,
            inconsistent: false,
        };
        DirtyBitmap { name, shift, state: Mutex::new(state) }
    }

    pub(crate) fn granularity(&self) -> u64 {
        1 << self.shift
    }

    /// Facts for queries.
    pub fn facts(&self) -> BitmapFacts {
        let s = self.state.lock();
        BitmapFacts {
            granularity: self.granularity(),
            count: s.count << self.shift,
            recording: s.enabled,
            busy: s.busy,
            persistent: s.persistent,
            inconsistent: s.inconsistent,
        }
    }

    pub(crate) fn set_flags(&self, f: impl FnOnce(&mut bool, &mut bool, &mut bool, &mut bool)) {
        let s = &mut *self.state.lock();
        f(&mut s.enabled, &mut s.persistent, &mut s.busy, &mut s.inconsistent);
    }

    /// Records a write.
    pub(crate) fn written(&self, off: u64, len: u64) {
        let mut s = self.state.lock();
        if s.enabled {
            s.fill(off >> self.shift, (off + len).div_ceil(1 << self.shift), true);
        }
    }

    /// Marks or clears bytes; a clear leaves partly covered bits alone.
    pub(crate) fn set(&self, off: u64, len: u64, on: bool) {
        let g = self.granularity();
        let (a, b) = if on { (off / g, (off + len).div_ceil(g)) } else { (off.div_ceil(g), (off + len) / g) };
        self.state.lock().fill(a, b, on);
    }

    /// Clears all bits.
    pub(crate) fn clear(&self) {
        let mut s = self.state.lock();
        let n = s.len;
        s.fill(0, n, false);
    }

    /// Marks everything.
    pub(crate) fn set_all(&self) {
        let mut s = self.state.lock();
        let n = s.len;
        s.fill(0, n, true);
    }

    /// The node has another size now.
    pub(crate) fn resize(&self, size: u64) {
        let mut s = self.state.lock();
        let len = size.div_ceil(self.granularity());
        if len < s.len {
            let old = s.len;
            s.fill(len, old, false);
        }
        s.bits.resize(len.div_ceil(64) as usize, 0);
        s.len = len;
    }

    /// Bytes marked.
    pub(crate) fn count(&self) -> u64 {
        self.state.lock().count << self.shift
    }

    /// The first marked range at or after `from`, at most `max` bytes: (offset, length). It may reach behind the end
    /// of the node.
    pub(crate) fn next(&self, from: u64, max: u64) -> Option<(u64, u64)> {
        let s = self.state.lock();
        let mut i = from.div_ceil(self.granularity());
        while i < s.len {
            let w = s.bits[(i / 64) as usize] >> (i % 64);
            if w == 0 {
                i = (i / 64 + 1) * 64;
                continue;
            }
            i += u64::from(w.trailing_zeros());
            let most = (max >> self.shift).max(1);
            let mut n = 1;
            while n < most && i + n < s.len && s.get(i + n) {
                n += 1;
            }
            return Some((i << self.shift, n << self.shift));
        }
        None
    }

    /// True if any byte of the range is marked.
    pub(crate) fn any(&self, off: u64, len: u64) -> bool {
        self.next(off >> self.shift << self.shift, 1).is_some_and(|(a, _)| a < off + len)
    }

    /// Adds the marks of another bitmap.
    pub(crate) fn merge(&self, from: &DirtyBitmap) {
        let mut at = 0;
        while let Some((off, n)) = from.next(at, u64::MAX) {
            self.set(off, n, true);
            at = off + n;
        }
    }

    /// The bits, least significant first, as the image stores them.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let s = self.state.lock();
        let mut v: Vec<u8> = s.bits.iter().flat_map(|w| w.to_le_bytes()).collect();
        v.truncate(s.len.div_ceil(8) as usize);
        v
    }

    /// Marks what is set in `bytes`, which start with bit `first` (a multiple of 8).
    pub(crate) fn load(&self, first: u64, bytes: &[u8]) {
        let mut s = self.state.lock();
        for (k, byte) in bytes.iter().enumerate() {
            for bit in 0..8 {
                let i = first + k as u64 * 8 + bit;
                if byte >> bit & 1 != 0 && i < s.len {
                    s.fill(i, i + 1, true);
                }
            }
        }
    }
}

impl State {
    fn get(&self, i: u64) -> bool {
        self.bits[(i / 64) as usize] >> (i % 64) & 1 != 0
    }

    fn fill(&mut self, a: u64, b: u64, on: bool) {
        let b = b.min(self.len);
        let mut i = a;
        while i < b {
            let n = (64 - i % 64).min(b - i);
            let mask = (u64::MAX >> (64 - n)) << (i % 64);
            let w = &mut self.bits[(i / 64) as usize];
            let before = w.count_ones();
            if on {
                *w |= mask;
            } else {
                *w &= !mask;
            }
            let after = w.count_ones();
            self.count = self.count + u64::from(after) - u64::from(before);
            i += n;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_and_ranges() {
        let b = DirtyBitmap::new(None, 1 << 20, 4096);
        b.written(5000, 1);
        b.written(64 * 4096 - 1, 2);
        assert_eq!(b.count(), 3 * 4096);
        assert_eq!(b.next(0, u64::MAX), Some((4096, 4096)));
        assert_eq!(b.next(8192, u64::MAX), Some((63 * 4096, 8192)));
        assert!(b.any(4100, 1) && !b.any(8192, 4096));
        b.set(4097, 4096, false);
        assert_eq!(b.count(), 3 * 4096, "a partly cleared bit stays");
        let c = DirtyBitmap::new(None, 1 << 20, 65536);
        c.merge(&b);
        assert_eq!(c.next(0, u64::MAX), Some((0, 65536)));
        assert_eq!(c.count(), 3 * 65536);
        let d = DirtyBitmap::new(None, 1 << 20, 4096);
        d.load(0, &b.to_bytes());
        assert_eq!(d.count(), b.count());
        d.resize(8192);
        assert_eq!(d.count(), 4096);
        d.clear();
        assert_eq!(d.next(0, 1), None);
    }
}
