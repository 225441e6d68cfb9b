//! Compares, rounding, dot products, tests: instructions with an immediate that changes what is computed, or with flags
//! or masks as their result.

use std::arch::asm;

use iced_x86::Code;

use crate::cpu::Cpu;
use crate::exec::{finish, Handler, Next, Op};
use crate::fault::R;
use crate::flags::Flags;
use crate::handler;
use crate::state::{rflags, Ymm};

/// Runs one of the listed variants of an instruction, chosen by a small immediate.
macro_rules! variants {
    ($imm:expr, $insn:literal, $d:expr, $a:expr, $b:expr; $($n:literal)*) => {{
        let _ = $a;
        match $imm {
            $($n => asm!("movaps xmm0, [{d}]", concat!($insn, ", ", stringify!($n)), "movaps [{d}], xmm0",
                d = in(reg) $d, b = in(reg) $b, out("xmm0") _, options(nostack, preserves_flags)),)*
            _ => {}
        }
    }};
}

/// As [`variants`], for VEX instructions, which write whole registers.
macro_rules! vex_variants {
    ($imm:expr, $insn:literal, $d:expr, $a:expr, $b:expr; $($n:literal)*) => {
        match $imm {
            $($n => asm!("vmovdqa ymm1, [{a}]", "vmovdqa ymm2, [{b}]", concat!($insn, ", ", stringify!($n)),
                "vmovdqa [{d}], ymm0", "vzeroupper",
                d = in(reg) $d, a = in(reg) $a, b = in(reg) $b, out("xmm0") _, out("xmm1") _, out("xmm2") _,
                options(nostack, preserves_flags)),)*
            _ => {}
        }
    };
}

/// An instruction with an immediate and possible exception flags.
trait ImmFp {
    /// Bytes in memory.
    const MEM: usize;
    /// Operands of the VEX form without the immediate.
    const OPERANDS: usize;
    /// # Safety
    /// All point to registers.
    unsafe fn run(imm: u8, d: *mut Ymm, a: *const Ymm, b: *const Ymm);
}

fn imm_body<T: ImmFp>(cpu: &mut Cpu, op: &Op) -> R<()> {
    let vex = op.has(Op::VEX);
    let last = if vex { T::OPERANDS - 1 } else { 1 };
    let b = cpu.vector_rm(op, last, T::MEM, !vex)?;
    let a = cpu.ymm[op.r[1] as usize & 15];
    // SAFETY: all are registers.
    cpu.fp_vector(op.r[0] as usize & 15, |d| unsafe { T::run(op.imm8(), d, &a, &b) })
}

fn imm_fp<T: ImmFp>(cpu: &mut Cpu, op: &Op) -> Next {
    let r = imm_body::<T>(cpu, op);
    finish(cpu, op, r)
}

macro_rules! imm_rows {
    ($code:expr; $($c:ident $mem:literal $operands:literal $kind:ident $mask:literal $insn:literal;)*) => {
        match $code {
            $(Code::$c => {
                struct Row;
                impl ImmFp for Row {
                    const MEM: usize = $mem;
                    const OPERANDS: usize = $operands;
                    unsafe fn run(imm: u8, d: *mut Ymm, a: *const Ymm, b: *const Ymm) {
                        // SAFETY: the caller's pointers are valid registers; clobbers are named.
                        unsafe { imm_rows!(@ $kind $insn, imm & $mask, d, a, b) }
                    }
                }
                Some(imm_fp::<Row> as Handler)
            })*
            _ => None,
        }
    };
    (@ sse8 $insn:literal, $imm:expr, $d:ident, $a:ident, $b:ident) => {
        variants!($imm, $insn, $d, $a, $b; 0 1 2 3 4 5 6 7)
    };
    (@ sse16 $insn:literal, $imm:expr, $d:ident, $a:ident, $b:ident) => {
        variants!($imm, $insn, $d, $a, $b; 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
    };
    (@ vex16 $insn:literal, $imm:expr, $d:ident, $a:ident, $b:ident) => {
        vex_variants!($imm, $insn, $d, $a, $b; 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
    };
    (@ vex32 $insn:literal, $imm:expr, $d:ident, $a:ident, $b:ident) => {
        vex_variants!($imm, $insn, $d, $a, $b; 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28
            29 30 31)
    };
}

fn table(code: Code) -> Option<Handler> {
    imm_rows! { code;
        Cmpps_xmm_xmmm128_imm8 16 2 sse8 7 "cmpps xmm0, [{b}]";
        Cmppd_xmm_xmmm128_imm8 16 2 sse8 7 "cmppd xmm0, [{b}]";
        Cmpss_xmm_xmmm32_imm8 4 2 sse8 7 "cmpss xmm0, dword ptr [{b}]";
        Cmpsd_xmm_xmmm64_imm8 8 2 sse8 7 "cmpsd xmm0, qword ptr [{b}]";
        Roundps_xmm_xmmm128_imm8 16 2 sse16 15 "roundps xmm0, [{b}]";
        Roundpd_xmm_xmmm128_imm8 16 2 sse16 15 "roundpd xmm0, [{b}]";
        Roundss_xmm_xmmm32_imm8 4 2 sse16 15 "roundss xmm0, dword ptr [{b}]";
        Roundsd_xmm_xmmm64_imm8 8 2 sse16 15 "roundsd xmm0, qword ptr [{b}]";
        VEX_Vcmpps_xmm_xmm_xmmm128_imm8 16 3 vex32 31 "vcmpps xmm0, xmm1, xmm2";
        VEX_Vcmpps_ymm_ymm_ymmm256_imm8 32 3 vex32 31 "vcmpps ymm0, ymm1, ymm2";
        VEX_Vcmppd_xmm_xmm_xmmm128_imm8 16 3 vex32 31 "vcmppd xmm0, xmm1, xmm2";
        VEX_Vcmppd_ymm_ymm_ymmm256_imm8 32 3 vex32 31 "vcmppd ymm0, ymm1, ymm2";
        VEX_Vcmpss_xmm_xmm_xmmm32_imm8 4 3 vex32 31 "vcmpss xmm0, xmm1, xmm2";
        VEX_Vcmpsd_xmm_xmm_xmmm64_imm8 8 3 vex32 31 "vcmpsd xmm0, xmm1, xmm2";
        VEX_Vroundps_xmm_xmmm128_imm8 16 2 vex16 15 "vroundps xmm0, xmm2";
        VEX_Vroundps_ymm_ymmm256_imm8 32 2 vex16 15 "vroundps ymm0, ymm2";
        VEX_Vroundpd_xmm_xmmm128_imm8 16 2 vex16 15 "vroundpd xmm0, xmm2";
        VEX_Vroundpd_ymm_ymmm256_imm8 32 2 vex16 15 "vroundpd ymm0, ymm2";
        VEX_Vroundss_xmm_xmm_xmmm32_imm8 4 3 vex16 15 "vroundss xmm0, xmm1, xmm2";
        VEX_Vroundsd_xmm_xmm_xmmm64_imm8 8 3 vex16 15 "vroundsd xmm0, xmm1, xmm2";
    }
}

// ---- dot products: elements that the immediate leaves out count as zero -----------------------------------------------

fn dot_lane(d: &mut [u64], a: &[u64], b: &[u64], imm: u8, single: bool) {
    let (bits, n) = if single { (32, 4) } else { (64, 2) };
    let element = if single { 0xffff_ffffu64 } else { u64::MAX };
    let mask = |m: u8| -> [u64; 2] {
        let mut v = [0; 2];
        for i in (0..n).filter(|i| m >> i & 1 != 0) {
            v[i * bits / 64] |= element << (i * bits % 64);
        }
        v
    };
    let take = mask(imm >> 4);
    let mut x = Ymm([a[0] & take[0], a[1] & take[1], 0, 0]);
    let y = Ymm([b[0] & take[0], b[1] & take[1], 0, 0]);
    // SAFETY: pointers to aligned registers; offered only where the host has the instructions.
    unsafe {
        if single {
            asm!("movaps xmm0, [{x}]", "dpps xmm0, [{y}], 0xff", "movaps [{x}], xmm0",
                x = in(reg) &raw mut x, y = in(reg) &raw const y, out("xmm0") _, options(nostack, preserves_flags));
        } else {
            asm!("movaps xmm0, [{x}]", "dppd xmm0, [{y}], 0xff", "movaps [{x}], xmm0",
                x = in(reg) &raw mut x, y = in(reg) &raw const y, out("xmm0") _, options(nostack, preserves_flags));
        }
    }
    let put = mask(imm & 15);
    (d[0], d[1]) = (x.0[0] & put[0], x.0[1] & put[1]);
}

fn dot(cpu: &mut Cpu, op: &Op, single: bool) -> R<()> {
    let (vex, wide) = (op.has(Op::VEX), op.has(Op::L256));
    let b = cpu.vector_rm(op, 1 + usize::from(vex), if wide { 32 } else { 16 }, !vex)?.0;
    let a = cpu.ymm[op.r[usize::from(vex)] as usize & 15].0;
    let imm = op.imm8();
    cpu.fp_vector(op.r[0] as usize & 15, |d| {
        // SAFETY: `d` is a register.
        let d = unsafe { &mut (*d).0 };
        let (low, high) = d.split_at_mut(2);
        dot_lane(low, &a[..2], &b[..2], imm, single);
        if wide {
            dot_lane(high, &a[2..], &b[2..], imm, single);
        } else if vex {
            high.fill(0);
        }
    })
}

// ---- results in the flags -----------------------------------------------------------------------------------------

fn set_flags(cpu: &mut Cpu, host: u64) {
    cpu.fl = Flags::from_bits(host & (rflags::ZF | rflags::PF | rflags::CF));
}

macro_rules! flag_compare {
    ($($name:ident $mem:literal $load:literal $insn:literal;)*) => {
        handler! {$(
            fn $name(cpu, op) {
                let b = cpu.vector_rm(op, 1, $mem, false)?;
                let a = cpu.ymm[op.r[0] as usize & 15];
                let f = cpu.fp_value(|| {
                    let f: u64;
                    // SAFETY: pointers to registers; the flags are taken from the stack at once.
                    unsafe {
                        asm!(concat!($load, " xmm0, [{a}]"), concat!($insn, " xmm0, [{b}]"), "pushfq", "pop {f}",
                            a = in(reg) &raw const a, b = in(reg) &raw const b, f = out(reg) f, out("xmm0") _);
                    }
                    f
                })?;
                set_flags(cpu, f);
                Ok(())
            }
        )*}
    };
}

flag_compare! {
    comiss 4 "movss" "comiss";
    comisd 8 "movsd" "comisd";
    ucomiss 4 "movss" "ucomiss";
    ucomisd 8 "movsd" "ucomisd";
}

/// ZF: nothing in common; CF: nothing of the second outside the first. `keep` selects the bits that count.
fn test_bits(cpu: &mut Cpu, op: &Op, keep: u64) -> R<()> {
    let wide = op.has(Op::L256);
    let b = cpu.vector_rm(op, 1, if wide { 32 } else { 16 }, !op.has(Op::VEX))?.0;
    let a = cpu.ymm[op.r[0] as usize & 15].0;
    let n = if wide { 4 } else { 2 };
    let (mut both, mut outside) = (0, 0);
    for i in 0..n {
        both |= a[i] & b[i] & keep;
        outside |= !a[i] & b[i] & keep;
    }
    let zf = if both == 0 { rflags::ZF } else { 0 };
    let cf = if outside == 0 { rflags::CF } else { 0 };
    cpu.fl = Flags::from_bits(zf | cf);
    Ok(())
}

// ---- masked moves and gathers -------------------------------------------------------------------------------------

/// Loads the elements whose mask has its sign set; the others are not touched and read as zero.
fn masked_load(cpu: &mut Cpu, op: &Op, width: usize) -> R<()> {
    let n = if op.has(Op::L256) { 32 } else { 16 };
    let mask = cpu.ymm[op.r[1] as usize & 15];
    let lin = cpu.lin_r(op, n)?;
    let mut out = Ymm::default();
    for i in (0..n / width).filter(|i| element_sign(&mask, *i, width)) {
        let at = lin.wrapping_add((i * width) as u64);
        let v = if width == 4 {
            u64::from(cpu.read_lin::<u32>(at, op.seg)?)
        } else {
            cpu.read_lin::<u64>(at, op.seg)?
        };
        out.0[i * width / 8] |= v << (i * width % 8 * 8);
    }
    cpu.ymm[op.r[0] as usize & 15] = out;
    Ok(())
}

fn masked_write(cpu: &mut Cpu, op: &Op, width: usize) -> R<()> {
    let n = if op.has(Op::L256) { 32 } else { 16 };
    let (mask, v) = (cpu.ymm[op.r[1] as usize & 15], cpu.ymm[op.r[2] as usize & 15]);
    let lin = cpu.lin_w(op, n)?;
    let at = |i: usize| lin.wrapping_add((i * width) as u64);
    for i in (0..n / width).filter(|i| element_sign(&mask, *i, width)) {
        cpu.probe_w(at(i), width, op.seg)?;
    }
    for i in (0..n / width).filter(|i| element_sign(&mask, *i, width)) {
        let e = v.0[i * width / 8] >> (i * width % 8 * 8);
        if width == 4 {
            cpu.write_lin(at(i), e as u32, op.seg)?;
        } else {
            cpu.write_lin(at(i), e, op.seg)?;
        }
    }
    Ok(())
}

fn element_sign(v: &Ymm, i: usize, width: usize) -> bool {
    v.0[i * width / 8] >> (i * width % 8 * 8 + width * 8 - 1) & 1 != 0
}

/// Gathers: `index` and `width` are the sizes of an index and of an element. What was loaded before a fault stays, with
/// its mask cleared, so that the instruction can go on.
fn gather(cpu: &mut Cpu, op: &Op, index: usize, width: usize) -> R<()> {
    let bytes = if op.has(Op::L256) { 32 } else { 16 };
    let n = bytes / width.max(index);
    let (d, m, x) = (op.r[0] as usize & 15, op.r[2] as usize & 15, op.index as usize & 15);
    if d == m || d == x || m == x {
        return cpu.ud();
    }
    let indices = cpu.ymm[x];
    let base = cpu.reg::<u64>(op.base).wrapping_add(op.disp);
    for i in 0..n {
        if element_sign(&cpu.ymm[m], i, width) {
            let raw = indices.0[i * index / 8] >> (i * index % 8 * 8);
            let k = if index == 4 { raw as i32 as i64 as u64 } else { raw };
            let ea = base.wrapping_add(k << op.scale);
            let ea = if op.has(Op::A32) { u64::from(ea as u32) } else { ea };
            let lin = cpu.seg_lin(op.seg as usize, ea, width, false)?;
            let v = if width == 4 {
                u64::from(cpu.read_lin::<u32>(lin, op.seg)?)
            } else {
                cpu.read_lin::<u64>(lin, op.seg)?
            };
            set_element(&mut cpu.ymm[d], i, width, v);
        }
        set_element(&mut cpu.ymm[m], i, width, 0);
    }
    // The rest of both registers is cleared.
    let used = n * width;
    for r in [d, m] {
        for (i, q) in cpu.ymm[r].0.iter_mut().enumerate() {
            if i * 8 >= used {
                *q = 0;
            }
        }
    }
    Ok(())
}

fn set_element(r: &mut Ymm, i: usize, width: usize, v: u64) {
    let (q, at) = (i * width / 8, i * width % 8 * 8);
    let mask = if width == 8 { u64::MAX } else { 0xffff_ffff << at };
    r.0[q] = r.0[q] & !mask | v << at & mask;
}

handler! {
    fn dpps(cpu, op) { dot(cpu, op, true) }
    fn dppd(cpu, op) { dot(cpu, op, false) }
    fn ptest(cpu, op) { test_bits(cpu, op, u64::MAX) }
    fn vtestps(cpu, op) { test_bits(cpu, op, 0x8000_0000_8000_0000) }
    fn vtestpd(cpu, op) { test_bits(cpu, op, 1 << 63) }
    fn maskload32(cpu, op) { masked_load(cpu, op, 4) }
    fn maskload64(cpu, op) { masked_load(cpu, op, 8) }
    fn maskstore32(cpu, op) { masked_write(cpu, op, 4) }
    fn maskstore64(cpu, op) { masked_write(cpu, op, 8) }
    fn gather_dd(cpu, op) { gather(cpu, op, 4, 4) }
    fn gather_dq(cpu, op) { gather(cpu, op, 4, 8) }
    fn gather_qd(cpu, op) { gather(cpu, op, 8, 4) }
    fn gather_qq(cpu, op) { gather(cpu, op, 8, 8) }
}

/// The handler of such an instruction.
pub fn lookup(code: Code) -> Option<Handler> {
    use Code::*;
    if let Some(h) = table(code) {
        return Some(h);
    }
    Some(match code {
        Dpps_xmm_xmmm128_imm8 | VEX_Vdpps_xmm_xmm_xmmm128_imm8 | VEX_Vdpps_ymm_ymm_ymmm256_imm8 => dpps,
        Dppd_xmm_xmmm128_imm8 | VEX_Vdppd_xmm_xmm_xmmm128_imm8 => dppd,
        Comiss_xmm_xmmm32 | VEX_Vcomiss_xmm_xmmm32 => comiss,
        Comisd_xmm_xmmm64 | VEX_Vcomisd_xmm_xmmm64 => comisd,
        Ucomiss_xmm_xmmm32 | VEX_Vucomiss_xmm_xmmm32 => ucomiss,
        Ucomisd_xmm_xmmm64 | VEX_Vucomisd_xmm_xmmm64 => ucomisd,
        Ptest_xmm_xmmm128 | VEX_Vptest_xmm_xmmm128 | VEX_Vptest_ymm_ymmm256 => ptest,
        VEX_Vtestps_xmm_xmmm128 | VEX_Vtestps_ymm_ymmm256 => vtestps,
        VEX_Vtestpd_xmm_xmmm128 | VEX_Vtestpd_ymm_ymmm256 => vtestpd,
        VEX_Vmaskmovps_xmm_xmm_m128
        | VEX_Vmaskmovps_ymm_ymm_m256
        | VEX_Vpmaskmovd_xmm_xmm_m128
        | VEX_Vpmaskmovd_ymm_ymm_m256 => maskload32,
        VEX_Vmaskmovpd_xmm_xmm_m128
        | VEX_Vmaskmovpd_ymm_ymm_m256
        | VEX_Vpmaskmovq_xmm_xmm_m128
        | VEX_Vpmaskmovq_ymm_ymm_m256 => maskload64,
        VEX_Vmaskmovps_m128_xmm_xmm
        | VEX_Vmaskmovps_m256_ymm_ymm
        | VEX_Vpmaskmovd_m128_xmm_xmm
        | VEX_Vpmaskmovd_m256_ymm_ymm => maskstore32,
        VEX_Vmaskmovpd_m128_xmm_xmm
        | VEX_Vmaskmovpd_m256_ymm_ymm
        | VEX_Vpmaskmovq_m128_xmm_xmm
        | VEX_Vpmaskmovq_m256_ymm_ymm => maskstore64,
        VEX_Vpgatherdd_xmm_vm32x_xmm
        | VEX_Vpgatherdd_ymm_vm32y_ymm
        | VEX_Vgatherdps_xmm_vm32x_xmm
        | VEX_Vgatherdps_ymm_vm32y_ymm => gather_dd,
        VEX_Vpgatherdq_xmm_vm32x_xmm
        | VEX_Vpgatherdq_ymm_vm32x_ymm
        | VEX_Vgatherdpd_xmm_vm32x_xmm
        | VEX_Vgatherdpd_ymm_vm32x_ymm => gather_dq,
        VEX_Vpgatherqd_xmm_vm64x_xmm
        | VEX_Vpgatherqd_xmm_vm64y_xmm
        | VEX_Vgatherqps_xmm_vm64x_xmm
        | VEX_Vgatherqps_xmm_vm64y_xmm => gather_qd,
        VEX_Vpgatherqq_xmm_vm64x_xmm
        | VEX_Vpgatherqq_ymm_vm64y_ymm
        | VEX_Vgatherqpd_xmm_vm64x_xmm
        | VEX_Vgatherqpd_ymm_vm64y_ymm => gather_qq,
        _ => return None,
    })
}
