//! Sets of interrupt vectors.

use serde::{Deserialize, Serialize};

/// 256 vectors, as the ISR, TMR and IRR registers hold them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VectorSet([u32; 8]);

impl VectorSet {
    /// The highest member.
    pub fn highest(&self) -> Option<u8> {
        let (i, w) = self.0.iter().enumerate().rfind(|(_, w)| **w != 0)?;
        Some((i as u32 * 32 + 31 - w.leading_zeros()) as u8)
    }

    /// Adds or removes a vector.
    pub fn set(&mut self, v: u8, on: bool) {
        let (word, bit) = (&mut self.0[usize::from(v >> 5)], 1 << (v & 31));
        *word = if on { *word | bit } else { *word & !bit };
    }

    /// Whether a vector is a member.
    pub fn get(&self, v: u8) -> bool {
        self.0[usize::from(v >> 5)] >> (v & 31) & 1 != 0
    }

    /// The register at `offset` (16 bytes each) into the set.
    pub fn word(&self, offset: u32) -> u32 {
        self.0[offset as usize >> 4 & 7]
    }
}
