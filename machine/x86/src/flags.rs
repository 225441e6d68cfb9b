//! Lazy arithmetic flags: every producer leaves its result and a carry vector; flags are computed when read.

use crate::state::rflags;

const AUX_TOP: u64 = 3 << 62;

/// The six arithmetic flags in unevaluated form.
///
/// `res`: the result, sign-extended to 64 bits. `aux`: bit 63 = CF, bit 63 ^ bit 62 = OF, bit 3 = AF, bit 0 flips SF,
/// bits 8..=15 are xored into the byte whose parity is PF. Other bits mean nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flags {
    /// See the type.
    pub res: u64,
    /// See the type.
    pub aux: u64,
}

impl Flags {
    #[inline(always)]
    pub fn cf(self) -> bool {
        self.aux >> 63 != 0
    }
    #[inline(always)]
    pub fn of(self) -> bool {
        (self.aux ^ (self.aux << 1)) >> 63 != 0
    }
    #[inline(always)]
    pub fn af(self) -> bool {
        self.aux & 8 != 0
    }
    #[inline(always)]
    pub fn zf(self) -> bool {
        self.res == 0
    }
    #[inline(always)]
    pub fn sf(self) -> bool {
        (self.res >> 63) ^ (self.aux & 1) != 0
    }
    #[inline(always)]
    pub fn pf(self) -> bool {
        ((self.res as u8) ^ (self.aux >> 8) as u8).count_ones() & 1 == 0
    }
    /// The flags as RFLAGS bits.
    pub fn bits(self) -> u64 {
        (self.cf() as u64)
            | (self.pf() as u64) << 2
            | (self.af() as u64) << 4
            | (self.zf() as u64) << 6
            | (self.sf() as u64) << 7
            | (self.of() as u64) << 11
    }
    /// From RFLAGS bits.
    pub fn from_bits(f: u64) -> Self {
        let zf = f & rflags::ZF != 0;
        let res = !zf as u64;
        let sfd = f >> 7 & 1;
        // The parity byte of `res` is even for 0, odd for 1.
        let want_odd = f & rflags::PF == 0;
        let pdb = (want_odd != (res == 1)) as u64;
        let cf = f & 1;
        let of = f >> 11 & 1;
        Self { res, aux: cf << 63 | (cf ^ of) << 62 | (f >> 4 & 1) << 3 | sfd | pdb << 8 }
    }
    /// Result of a logic instruction: CF, OF and AF clear. `res` sign-extended.
    #[inline(always)]
    pub fn logic(res: u64) -> Self {
        Self { res, aux: 0 }
    }
    /// From a carry (or borrow) vector of a `bits`-bit operation.
    #[inline(always)]
    pub fn carries(res: u64, cv: u64, bits: u32) -> Self {
        let aux = if bits == 64 { cv & (AUX_TOP | 8) } else { cv << (64 - bits) | (cv & 8) };
        Self { res, aux }
    }
    /// With CF and OF given explicitly, AF clear.
    #[inline(always)]
    pub fn with_cf_of(res: u64, cf: bool, of: bool) -> Self {
        Self { res, aux: (cf as u64) << 63 | ((cf ^ of) as u64) << 62 }
    }
    /// Replaces CF only.
    pub fn set_cf(&mut self, cf: bool) {
        let of = self.of();
        self.aux = self.aux & !AUX_TOP | (cf as u64) << 63 | ((cf ^ of) as u64) << 62;
    }
    /// Condition code `cc` (0..=15 as in Jcc's opcode).
    #[inline(always)]
    pub fn cond(self, cc: u8) -> bool {
        let v = match cc >> 1 {
            0 => self.of(),
            1 => self.cf(),
            2 => self.zf(),
            3 => self.cf() | self.zf(),
            4 => self.sf(),
            5 => self.pf(),
            6 => self.sf() != self.of(),
            _ => self.zf() | (self.sf() != self.of()),
        };
        v != (cc & 1 != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination_survives() {
        for i in 0..64u64 {
            let f = (i & 1)
                | (i >> 1 & 1) << 2
                | (i >> 2 & 1) << 4
                | (i >> 3 & 1) << 6
                | (i >> 4 & 1) << 7
                | (i >> 5 & 1) << 11;
            assert_eq!(Flags::from_bits(f).bits(), f);
            for c in [false, true] {
                let mut g = Flags::from_bits(f);
                g.set_cf(c);
                assert_eq!(g.bits(), f & !1 | c as u64);
            }
        }
    }
}
