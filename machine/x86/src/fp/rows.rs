//! Instructions that are one host instruction on their operands: what a row of a table becomes.

use crate::cpu::Cpu;
use crate::exec::{finish, Next, Op};
use crate::fault::R;
use crate::state::Ymm;

/// A two-operand SSE instruction: the first operand is changed.
pub trait Sse {
    /// Bytes of a memory operand; 16 must be aligned.
    const MEM: usize;
    /// May set exception flags.
    const FP: bool;
    /// Executes it.
    ///
    /// # Safety
    /// Both point to registers (32 bytes, aligned).
    unsafe fn run(d: *mut Ymm, s: *const Ymm);
}

/// A VEX instruction: the result replaces the whole destination.
pub trait Vex {
    /// Bytes of a memory operand.
    const MEM: usize;
    /// May set exception flags.
    const FP: bool;
    /// Operands with the destination: 2 or 3. With three, the first source is the second operand.
    const OPERANDS: usize;
    /// Executes it. `d` holds the old destination (fused multiply-add reads it).
    ///
    /// # Safety
    /// All point to registers (32 bytes, aligned).
    unsafe fn run(d: *mut Ymm, a: *const Ymm, b: *const Ymm);
}

/// A two-operand MMX instruction.
pub trait Mmx {
    /// Bytes of a memory operand.
    const MEM: usize;
    /// Executes it.
    ///
    /// # Safety
    /// Both point to eight bytes.
    unsafe fn run(d: *mut u64, s: *const u64);
}

impl Cpu {
    /// A memory operand of `n` bytes as the low bytes of a register.
    #[inline(always)]
    pub(crate) fn vector_mem(&mut self, op: &Op, n: usize, aligned: bool) -> R<Ymm> {
        Ok(match n {
            1 => Ymm([u64::from(self.read::<u8>(op)?), 0, 0, 0]),
            2 => Ymm([u64::from(self.read::<u16>(op)?), 0, 0, 0]),
            4 => Ymm([u64::from(self.read::<u32>(op)?), 0, 0, 0]),
            8 => Ymm([self.read::<u64>(op)?, 0, 0, 0]),
            32 => self.read256(op)?,
            _ => {
                let [a, b] = if aligned { self.read128_aligned(op)? } else { self.read128(op)? };
                Ymm([a, b, 0, 0])
            }
        })
    }

    /// Register or memory operand number `i`.
    #[inline(always)]
    pub(crate) fn vector_rm(&mut self, op: &Op, i: usize, n: usize, aligned: bool) -> R<Ymm> {
        if op.has(Op::MEM) {
            self.vector_mem(op, n, aligned)
        } else {
            Ok(self.ymm[op.r[i] as usize & 15])
        }
    }

    /// Writes a vector register as a VEX instruction of 128 bits does: the upper half is cleared.
    #[inline(always)]
    pub(crate) fn set_xmm_vex(&mut self, i: u8, v: [u64; 2]) {
        self.ymm[i as usize & 15] = Ymm([v[0], v[1], 0, 0]);
    }

    /// Writes the low 128 bits, as legacy SSE does.
    #[inline(always)]
    pub(crate) fn set_xmm(&mut self, i: u8, v: [u64; 2]) {
        let r = &mut self.ymm[i as usize & 15].0;
        (r[0], r[1]) = (v[0], v[1]);
    }
}

fn sse_body<T: Sse>(cpu: &mut Cpu, op: &Op) -> R<()> {
    let mem;
    let s: *const Ymm = if op.has(Op::MEM) {
        mem = cpu.vector_mem(op, T::MEM, true)?;
        &mem
    } else {
        &cpu.ymm[op.r[1] as usize & 15]
    };
    let d = op.r[0] as usize & 15;
    if T::FP && !cpu.fp_in_place() {
        // SAFETY: both are registers.
        return cpu.fp_vector(d, |d| unsafe { T::run(d, s) });
    }
    // SAFETY: both are registers.
    unsafe { T::run(cpu.ymm.as_mut_ptr().add(d), s) };
    Ok(())
}

/// Handler of an SSE row.
pub fn sse<T: Sse>(cpu: &mut Cpu, op: &Op) -> Next {
    let r = sse_body::<T>(cpu, op);
    finish(cpu, op, r)
}

fn vex_body<T: Vex>(cpu: &mut Cpu, op: &Op) -> R<()> {
    let b = cpu.vector_rm(op, T::OPERANDS - 1, T::MEM, false)?;
    let a = cpu.ymm[op.r[1] as usize & 15];
    let d = op.r[0] as usize & 15;
    if T::FP && !cpu.fp_in_place() {
        // SAFETY: all are registers.
        return cpu.fp_vector(d, |d| unsafe { T::run(d, &a, &b) });
    }
    // SAFETY: all are registers.
    unsafe { T::run(&mut cpu.ymm[d], &a, &b) };
    Ok(())
}

/// Handler of a VEX row.
pub fn vex<T: Vex>(cpu: &mut Cpu, op: &Op) -> Next {
    let r = vex_body::<T>(cpu, op);
    finish(cpu, op, r)
}

fn mmx_body<T: Mmx>(cpu: &mut Cpu, op: &Op) -> R<()> {
    cpu.fpu_check()?;
    let s = if op.has(Op::MEM) {
        if T::MEM == 4 {
            u64::from(cpu.read::<u32>(op)?)
        } else {
            cpu.read::<u64>(op)?
        }
    } else {
        cpu.mm(op.r[1])
    };
    let mut d = cpu.mm(op.r[0]);
    // SAFETY: both are eight bytes.
    unsafe { T::run(&mut d, &s) };
    cpu.set_mm(op.r[0], d);
    Ok(())
}

/// Handler of an MMX row.
pub fn mmx<T: Mmx>(cpu: &mut Cpu, op: &Op) -> Next {
    let r = mmx_body::<T>(cpu, op);
    finish(cpu, op, r)
}

/// A table of SSE instructions: `Code => "instruction", bytes in memory, sets flags;`.
#[macro_export]
macro_rules! sse_rows {
    ($code:expr; $($c:ident => $insn:literal, $mem:literal, $fp:literal;)*) => {
        match $code {
            $(iced_x86::Code::$c => {
                struct Row;
                impl $crate::fp::rows::Sse for Row {
                    const MEM: usize = $mem;
                    const FP: bool = $fp;
                    #[inline(always)]
                    unsafe fn run(d: *mut Ymm, s: *const Ymm) {
                        // SAFETY: the caller's pointers are valid registers; only xmm0 is changed, and said so.
                        unsafe {
                            asm!("movaps xmm0, [{d}]", concat!($insn, " xmm0, [{s}]"), "movaps [{d}], xmm0",
                                d = in(reg) d, s = in(reg) s, out("xmm0") _, options(nostack, preserves_flags));
                        }
                    }
                }
                Some($crate::fp::rows::sse::<Row> as $crate::exec::Handler)
            })*
            _ => None,
        }
    };
}

/// A table of MMX instructions: `Code => "instruction", bytes in memory;`.
#[macro_export]
macro_rules! mmx_rows {
    ($code:expr; $($c:ident => $insn:literal, $mem:literal;)*) => {
        match $code {
            $(iced_x86::Code::$c => {
                struct Row;
                impl $crate::fp::rows::Mmx for Row {
                    const MEM: usize = $mem;
                    #[inline(always)]
                    unsafe fn run(d: *mut u64, s: *const u64) {
                        // SAFETY: the caller's pointers are valid; EMMS leaves the x87 stack empty, as it was.
                        unsafe {
                            asm!("movq mm0, [{d}]", concat!($insn, " mm0, [{s}]"), "movq [{d}], mm0", "emms",
                                d = in(reg) d, s = in(reg) s, out("mm0") _, out("st(0)") _, options(nostack, preserves_flags));
                        }
                    }
                }
                Some($crate::fp::rows::mmx::<Row> as $crate::exec::Handler)
            })*
            _ => None,
        }
    };
}

/// A table of VEX instructions: `Code => "instruction" destination source1? source2, bytes in memory, sets flags;` where
/// the registers are written as the width they have (`x`, `y`).
#[macro_export]
macro_rules! vex_rows {
    ($code:expr; $($c:ident => $insn:literal $regs:tt, $mem:literal, $fp:literal;)*) => {
        match $code {
            $(iced_x86::Code::$c => {
                struct Row;
                impl $crate::fp::rows::Vex for Row {
                    const MEM: usize = $mem;
                    const FP: bool = $fp;
                    const OPERANDS: usize = $crate::vex_row!(count $regs);
                    #[inline(always)]
                    unsafe fn run(d: *mut Ymm, a: *const Ymm, b: *const Ymm) {
                        $crate::vex_row!(run $regs, $insn, d, a, b)
                    }
                }
                Some($crate::fp::rows::vex::<Row> as $crate::exec::Handler)
            })*
            _ => None,
        }
    };
}

/// The assembly of one row of [`vex_rows`].
#[macro_export]
macro_rules! vex_row {
    (count (x)) => { 2 };
    (count (y)) => { 2 };
    (count (yx)) => { 2 };
    (count (xy)) => { 2 };
    (count (xx)) => { 3 };
    (count (yy)) => { 3 };
    (count (yyx)) => { 3 };
    (run (x), $i:literal, $d:ident, $a:ident, $b:ident) => { $crate::vex_row!(two $i, " xmm0, xmm1", $d, $a, $b) };
    (run (y), $i:literal, $d:ident, $a:ident, $b:ident) => { $crate::vex_row!(two $i, " ymm0, ymm1", $d, $a, $b) };
    (run (yx), $i:literal, $d:ident, $a:ident, $b:ident) => { $crate::vex_row!(two $i, " ymm0, xmm1", $d, $a, $b) };
    (run (xy), $i:literal, $d:ident, $a:ident, $b:ident) => { $crate::vex_row!(two $i, " xmm0, ymm1", $d, $a, $b) };
    (run (xx), $i:literal, $d:ident, $a:ident, $b:ident) => { $crate::vex_row!(three $i, " xmm0, xmm1, [{b}]", $d, $a, $b) };
    (run (yy), $i:literal, $d:ident, $a:ident, $b:ident) => { $crate::vex_row!(three $i, " ymm0, ymm1, [{b}]", $d, $a, $b) };
    (run (yyx), $i:literal, $d:ident, $a:ident, $b:ident) => { $crate::vex_row!(three $i, " ymm0, ymm1, [{b}]", $d, $a, $b) };
    (two $i:literal, $r:literal, $d:ident, $a:ident, $b:ident) => {{
        let _ = $a;
        // SAFETY: the caller's pointers are valid registers; the clobbers are named. The upper halves are cleared so that
        // later SSE code runs at full speed.
        unsafe {
            asm!("vmovdqa ymm1, [{b}]", concat!($i, $r), "vmovdqa [{d}], ymm0", "vzeroupper",
                d = in(reg) $d, b = in(reg) $b, out("xmm0") _, out("xmm1") _, options(nostack, preserves_flags));
        }
    }};
    (three $i:literal, $r:literal, $d:ident, $a:ident, $b:ident) => {{
        // SAFETY: as above.
        unsafe {
            asm!("vmovdqa ymm0, [{d}]", "vmovdqa ymm1, [{a}]", concat!($i, $r), "vmovdqa [{d}], ymm0", "vzeroupper",
                d = in(reg) $d, a = in(reg) $a, b = in(reg) $b, out("xmm0") _, out("xmm1") _,
                options(nostack, preserves_flags));
        }
    }};
}
