//! Conversions between vector registers and general, MMX or half-precision values.

use std::arch::asm;

use iced_x86::Code;

use crate::exec::{Handler, Op};
use crate::handler;
use crate::state::Ymm;

/// Integer to float: the rest of the destination comes from the first source.
macro_rules! from_int {
    ($($name:ident $int:ty, $reg:literal, $insn:literal;)*) => {
        handler! {$(
            fn $name(cpu, op) {
                let n = usize::from(op.has(Op::VEX));
                let v = if op.has(Op::MEM) { cpu.read::<$int>(op)? } else { cpu.reg::<$int>(op.r[1 + n]) };
                let [a, b] = cpu.xmm(op.r[n]);
                let old = Ymm([a, b, 0, 0]);
                let r = cpu.fp_value(|| {
                    let mut t = old;
                    // SAFETY: `t` is an aligned register; xmm0 is named as changed.
                    unsafe {
                        asm!("movaps xmm0, [{t}]", concat!($insn, " xmm0, {v:", $reg, "}"), "movaps [{t}], xmm0",
                            t = in(reg) &raw mut t, v = in(reg) v, out("xmm0") _, options(nostack, preserves_flags));
                    }
                    t
                })?;
                cpu.put_xmm(op, op.r[0], [r.0[0], r.0[1]]);
                Ok(())
            }
        )*}
    };
}

from_int! {
    si2ss32 u32, "e", "cvtsi2ss";
    si2ss64 u64, "r", "cvtsi2ss";
    si2sd32 u32, "e", "cvtsi2sd";
    si2sd64 u64, "r", "cvtsi2sd";
}

/// Float to integer.
macro_rules! to_int {
    ($($name:ident $int:ty, $reg:literal, $mem:literal, $insn:literal;)*) => {
        handler! {$(
            fn $name(cpu, op) {
                let s = cpu.vector_rm(op, 1, $mem, false)?;
                let v = cpu.fp_value(|| {
                    let v: $int;
                    // SAFETY: `s` is a register.
                    unsafe {
                        asm!(concat!($insn, " {v:", $reg, "}, [{s}]"), s = in(reg) &raw const s, v = out(reg) v,
                            options(nostack, preserves_flags, readonly));
                    }
                    v
                })?;
                cpu.set_reg::<$int>(op.r[0], v);
                Ok(())
            }
        )*}
    };
}

to_int! {
    ss2si32 u32, "e", 4, "cvtss2si";
    ss2si64 u64, "r", 4, "cvtss2si";
    sd2si32 u32, "e", 8, "cvtsd2si";
    sd2si64 u64, "r", 8, "cvtsd2si";
    ss2si32t u32, "e", 4, "cvttss2si";
    ss2si64t u64, "r", 4, "cvttss2si";
    sd2si32t u32, "e", 8, "cvttsd2si";
    sd2si64t u64, "r", 8, "cvttsd2si";
}

/// Vector to MMX.
macro_rules! to_mmx {
    ($($name:ident $mem:literal, $insn:literal;)*) => {
        handler! {$(
            fn $name(cpu, op) {
                cpu.fpu_check()?;
                let s = cpu.vector_rm(op, 1, $mem, $mem == 16)?;
                let v = cpu.fp_value(|| {
                    let mut v = 0u64;
                    // SAFETY: `s` is a register, `v` eight bytes; EMMS leaves the x87 stack empty, as it was.
                    unsafe {
                        asm!(concat!($insn, " mm0, [{s}]"), "movq [{v}], mm0", "emms", s = in(reg) &raw const s,
                            v = in(reg) &raw mut v, out("mm0") _, out("st(0)") _, options(nostack, preserves_flags));
                    }
                    v
                })?;
                cpu.set_mm(op.r[0], v);
                Ok(())
            }
        )*}
    };
}

to_mmx! {
    ps2pi 8, "cvtps2pi";
    ps2pi_t 8, "cvttps2pi";
    pd2pi 16, "cvtpd2pi";
    pd2pi_t 16, "cvttpd2pi";
}

/// MMX to vector, by the conversion of two integers in a vector register, which does the same.
macro_rules! from_mmx {
    ($($name:ident $insn:literal;)*) => {
        handler! {$(
            fn $name(cpu, op) {
                let from_register = !op.has(Op::MEM);
                if from_register {
                    cpu.fpu_check()?;
                }
                let v = if from_register { cpu.mm(op.r[1]) } else { cpu.read::<u64>(op)? };
                let s = Ymm([v, 0, 0, 0]);
                let [_, high] = cpu.xmm(op.r[0]);
                let r = cpu.fp_value(|| {
                    let mut t = s;
                    // SAFETY: `t` is an aligned register.
                    unsafe {
                        asm!(concat!($insn, " xmm0, [{t}]"), "movaps [{t}], xmm0", t = in(reg) &raw mut t,
                            out("xmm0") _, options(nostack, preserves_flags));
                    }
                    t
                })?;
                if from_register {
                    cpu.mmx_touch();
                }
                let high = if $insn == "cvtdq2ps" { high } else { r.0[1] };
                cpu.set_xmm(op.r[0], [r.0[0], high]);
                Ok(())
            }
        )*}
    };
}

from_mmx! {
    pi2ps "cvtdq2ps";
    pi2pd "cvtdq2pd";
}

handler! {
    fn vcvtps2ph(cpu, op) {
        let s = cpu.ymm[op.r[1] as usize & 15];
        let (imm, wide) = (op.imm8() & 7, op.has(Op::L256));
        let r = cpu.fp_value(|| {
            let mut t = Ymm::default();
            macro_rules! by {
                ($reg:literal; $($n:literal)*) => {
                    match imm {
                        $($n => {
                            // SAFETY: `s` and `t` are aligned registers; offered only where the host has F16C.
                            unsafe {
                                asm!("vmovdqa ymm1, [{s}]", concat!("vcvtps2ph xmm0, ", $reg, ", ", stringify!($n)),
                                    "vmovdqa [{t}], ymm0", "vzeroupper", s = in(reg) &raw const s,
                                    t = in(reg) &raw mut t, out("xmm0") _, out("xmm1") _,
                                    options(nostack, preserves_flags));
                            }
                        })*
                        _ => {}
                    }
                };
            }
            if wide {
                by!("ymm1"; 0 1 2 3 4 5 6 7);
            } else {
                by!("xmm1"; 0 1 2 3 4 5 6 7);
            }
            t
        })?;
        match (op.has(Op::MEM), wide) {
            (true, true) => cpu.write128(op, [r.0[0], r.0[1]]),
            (true, false) => cpu.write(op, r.0[0]),
            (false, _) => {
                cpu.set_xmm_vex(op.r[0], [r.0[0], if wide { r.0[1] } else { 0 }]);
                Ok(())
            }
        }
    }
}

/// The handler of a conversion.
pub fn lookup(code: Code) -> Option<Handler> {
    use Code::*;
    Some(match code {
        Cvtsi2ss_xmm_rm32 | VEX_Vcvtsi2ss_xmm_xmm_rm32 => si2ss32,
        Cvtsi2ss_xmm_rm64 | VEX_Vcvtsi2ss_xmm_xmm_rm64 => si2ss64,
        Cvtsi2sd_xmm_rm32 | VEX_Vcvtsi2sd_xmm_xmm_rm32 => si2sd32,
        Cvtsi2sd_xmm_rm64 | VEX_Vcvtsi2sd_xmm_xmm_rm64 => si2sd64,
        Cvtss2si_r32_xmmm32 | VEX_Vcvtss2si_r32_xmmm32 => ss2si32,
        Cvtss2si_r64_xmmm32 | VEX_Vcvtss2si_r64_xmmm32 => ss2si64,
        Cvtsd2si_r32_xmmm64 | VEX_Vcvtsd2si_r32_xmmm64 => sd2si32,
        Cvtsd2si_r64_xmmm64 | VEX_Vcvtsd2si_r64_xmmm64 => sd2si64,
        Cvttss2si_r32_xmmm32 | VEX_Vcvttss2si_r32_xmmm32 => ss2si32t,
        Cvttss2si_r64_xmmm32 | VEX_Vcvttss2si_r64_xmmm32 => ss2si64t,
        Cvttsd2si_r32_xmmm64 | VEX_Vcvttsd2si_r32_xmmm64 => sd2si32t,
        Cvttsd2si_r64_xmmm64 | VEX_Vcvttsd2si_r64_xmmm64 => sd2si64t,
        Cvtps2pi_mm_xmmm64 => ps2pi,
        Cvttps2pi_mm_xmmm64 => ps2pi_t,
        Cvtpd2pi_mm_xmmm128 => pd2pi,
        Cvttpd2pi_mm_xmmm128 => pd2pi_t,
        Cvtpi2ps_xmm_mmm64 => pi2ps,
        Cvtpi2pd_xmm_mmm64 => pi2pd,
        VEX_Vcvtps2ph_xmmm64_xmm_imm8 | VEX_Vcvtps2ph_xmmm128_ymm_imm8 => vcvtps2ph,
        _ => return None,
    })
}
