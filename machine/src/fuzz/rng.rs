//! A small seeded generator (SplitMix64), and the values that registers dislike.

/// The generator.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed ^ 0x6a09_e667_f3bc_c909)
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`; 0 if `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        if n == 0 {
            0
        } else {
            self.next_u64() % n
        }
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// One of a list; the default of an empty one.
    pub fn pick<T: Copy + Default>(&mut self, list: &[T]) -> T {
        list.get(self.below(list.len() as u64) as usize).copied().unwrap_or_default()
    }

    /// A value for a register: extremes, single bits, small numbers, addresses in the first `ram` bytes, anything.
    pub fn value(&mut self, ram: u64) -> u64 {
        match self.below(8) {
            0 => self.pick(&[0, u64::MAX, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 0x7fff, 0x8000, 0xffff]),
            1 => 1 << self.below(64),
            2 | 3 => self.below(256),
            4 => self.below(ram) & !0xf,
            5 => self.below(ram) & !0xfff,
            6 => self.next_u64() & 0xffff,
            _ => self.next_u64(),
        }
    }

    /// Fills a buffer: noise, or few different bytes.
    pub fn fill(&mut self, buf: &mut [u8]) {
        let narrow = self.one_in(3);
        for chunk in buf.chunks_mut(8) {
            let mut v = self.next_u64();
            if narrow {
                v &= 0x0303_0000_0f00_0001;
            }
            chunk.copy_from_slice(&v.to_le_bytes()[..chunk.len()]);
        }
    }
}
