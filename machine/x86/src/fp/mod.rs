//! x87, MMX and SSE to AVX2: the host's own instructions do the arithmetic.
//!
//! A guest runs on the same instruction set, so every operation is executed by the instruction itself on copies of
//! the operands; results, rounding and NaNs are the processor's. What is left to write is how operands are fetched, how
//! exceptions are raised, and the instructions that only move data.
//!
//! **MXCSR.** As long as the guest's control bits are the defaults, which are also the host's, operations run as they
//! are and the exception flags gather in the host's register ([`Cpu::mxcsr_now`] fetches them). Otherwise each operation is bracketed
//! by loads of MXCSR, with all exceptions masked; a flag that the guest has unmasked becomes #XM before anything is
//! stored.
//!
//! Tested: `tests.rs` runs random operands natively and here.

use std::arch::asm;

use iced_x86::Code;

use crate::cpu::Cpu;
use crate::exec::Handler;
use crate::fault::{Exception, R};
use crate::state::{cr4, Ymm};

mod avx;
mod compare;
mod convert;
mod lanes;
mod mmx;
mod moves;
mod rows;
mod sse;
mod state;
mod strings;
mod x87;
mod x87_ops;

pub(crate) use x87_ops::clean_host;

#[cfg(test)]
mod tests;

/// The handler for a floating-point or vector instruction; `None` makes it #UD.
pub fn lookup(code: Code) -> Option<Handler> {
    moves::lookup(code)
        .or_else(|| sse::lookup(code))
        .or_else(|| x87::lookup(code))
        .or_else(|| mmx::lookup(code))
        .or_else(|| avx::lookup(code))
        .or_else(|| avx::lookup_fma(code))
        .or_else(|| lanes::lookup(code))
        .or_else(|| compare::lookup(code))
        .or_else(|| convert::lookup(code))
        .or_else(|| strings::lookup(code))
        .or_else(|| state::lookup(code))
}

/// MXCSR: everything but the exception flags.
const CONTROL: u32 = 0xffc0;
/// Its value after reset and on the host: all exceptions masked, round to nearest.
pub(crate) const DEFAULT: u32 = 0x1f80;
/// The exception flags.
const FLAGS: u32 = 0x3f;
/// Bits that exist.
pub(crate) const MXCSR_MASK: u32 = 0xffff;

#[inline(always)]
fn host_mxcsr() -> u32 {
    let mut v = 0u32;
    // SAFETY: stores four bytes.
    unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut v, options(nostack, preserves_flags)) };
    v
}

#[inline(always)]
fn set_host_mxcsr(v: u32) {
    // SAFETY: callers pass valid bits with all exceptions masked, and restore the control bits.
    unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const v, options(nostack, preserves_flags, readonly)) };
}

impl Cpu {
    /// Runs an SSE operation that may set exception flags.
    #[inline(always)]
    pub(crate) fn fp_value<T>(&mut self, f: impl Fn() -> T) -> R<T> {
        if self.mxcsr & CONTROL == DEFAULT {
            if !self.mxcsr_live {
                set_host_mxcsr(self.mxcsr);
                self.mxcsr_live = true;
            }
            return Ok(f());
        }
        set_host_mxcsr(self.mxcsr & !FLAGS | DEFAULT);
        let v = f();
        let flags = host_mxcsr() & FLAGS;
        set_host_mxcsr(DEFAULT);
        self.fp_flags(flags)?;
        Ok(v)
    }

    /// Whether an operation that may set exception flags can run on the registers themselves: nothing is unmasked and the
    /// host's control bits are the guest's.
    #[inline(always)]
    pub(crate) fn fp_in_place(&mut self) -> bool {
        if self.mxcsr & CONTROL != DEFAULT {
            return false;
        }
        if !self.mxcsr_live {
            set_host_mxcsr(self.mxcsr);
            self.mxcsr_live = true;
        }
        true
    }

    /// As [`Cpu::fp_value`], for one that changes register `d`.
    #[inline(always)]
    pub(crate) fn fp_vector(&mut self, d: usize, f: impl Fn(*mut Ymm)) -> R<()> {
        let old = self.ymm[d];
        let new = self.fp_value(|| {
            let mut t = old;
            f(&mut t);
            t
        })?;
        self.ymm[d] = new;
        Ok(())
    }

    #[cold]
    fn fp_flags(&mut self, mut flags: u32) -> R<()> {
        let unmasked = flags & !(self.mxcsr >> 7) & FLAGS;
        if unmasked & 7 != 0 {
            // Invalid, denormal and divide by zero stop the operation before it rounds.
            flags &= 7;
        }
        self.mxcsr |= flags;
        if unmasked == 0 {
            return Ok(());
        }
        if self.cr4 & cr4::OSXMMEXCPT == 0 {
            return self.ud();
        }
        self.raise(Exception::new(Exception::XM))
    }

    /// The guest's MXCSR with all flags up to now.
    pub fn mxcsr_now(&mut self) -> u32 {
        if self.mxcsr_live {
            self.mxcsr |= host_mxcsr() & FLAGS;
            self.mxcsr_live = false;
        }
        self.mxcsr
    }

    /// Replaces MXCSR.
    pub(crate) fn set_mxcsr(&mut self, v: u32) {
        self.mxcsr_live = false;
        self.mxcsr = v;
    }
}

/// Whether the host has what this module needs for the features that depend on it.
pub fn host_has(feature: &str) -> bool {
    match feature {
        "sse3" => std::arch::is_x86_feature_detected!("sse3"),
        "ssse3" => std::arch::is_x86_feature_detected!("ssse3"),
        "sse4.1" => std::arch::is_x86_feature_detected!("sse4.1"),
        "sse4.2" => std::arch::is_x86_feature_detected!("sse4.2"),
        "aes" => std::arch::is_x86_feature_detected!("aes"),
        "pclmulqdq" => std::arch::is_x86_feature_detected!("pclmulqdq"),
        "sha" => std::arch::is_x86_feature_detected!("sha"),
        "avx" => std::arch::is_x86_feature_detected!("avx"),
        "avx2" => std::arch::is_x86_feature_detected!("avx2"),
        "fma" => std::arch::is_x86_feature_detected!("fma"),
        "f16c" => std::arch::is_x86_feature_detected!("f16c"),
        _ => true,
    }
}
