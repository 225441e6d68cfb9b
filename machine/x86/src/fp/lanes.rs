//! Shuffles, blends, shifts by an immediate, inserts and extracts: instructions that only move lanes about. Each is a
//! function on 128-bit lanes; 256-bit forms apply it to both.

use std::arch::asm;

use iced_x86::Code;

use crate::cpu::Cpu;
use crate::exec::{finish, Handler, Next, Op};
use crate::fault::R;
use crate::handler;
use crate::state::Ymm;

type Lane = [u64; 2];

fn bytes(v: Lane) -> [u8; 16] {
    (u128::from(v[0]) | u128::from(v[1]) << 64).to_le_bytes()
}

fn from_bytes(b: [u8; 16]) -> Lane {
    let v = u128::from_le_bytes(b);
    [v as u64, (v >> 64) as u64]
}

fn dwords(v: Lane) -> [u32; 4] {
    [v[0] as u32, (v[0] >> 32) as u32, v[1] as u32, (v[1] >> 32) as u32]
}

fn from_dwords(d: [u32; 4]) -> Lane {
    [u64::from(d[0]) | u64::from(d[1]) << 32, u64::from(d[2]) | u64::from(d[3]) << 32]
}

fn words(v: u64) -> [u16; 4] {
    [v as u16, (v >> 16) as u16, (v >> 32) as u16, (v >> 48) as u16]
}

fn from_words(w: [u16; 4]) -> u64 {
    (0..4).fold(0, |v, i| v | u64::from(w[i]) << (16 * i))
}

fn pick(imm: u8, i: usize) -> usize {
    usize::from(imm >> (2 * i) & 3)
}

fn shuffle_words(v: u64, imm: u8) -> u64 {
    let w = words(v);
    from_words(std::array::from_fn(|i| w[pick(imm, i)]))
}

// ---- functions of (first source, second source, immediate); one-source forms ignore the first -----------------------

fn pshufd(_: Lane, b: Lane, imm: u8) -> Lane {
    let d = dwords(b);
    from_dwords(std::array::from_fn(|i| d[pick(imm, i)]))
}

fn pshuflw(_: Lane, b: Lane, imm: u8) -> Lane {
    [shuffle_words(b[0], imm), b[1]]
}

fn pshufhw(_: Lane, b: Lane, imm: u8) -> Lane {
    [b[0], shuffle_words(b[1], imm)]
}

fn shufps(a: Lane, b: Lane, imm: u8) -> Lane {
    let (a, b) = (dwords(a), dwords(b));
    from_dwords([a[pick(imm, 0)], a[pick(imm, 1)], b[pick(imm, 2)], b[pick(imm, 3)]])
}

fn shufpd(a: Lane, b: Lane, imm: u8) -> Lane {
    [a[usize::from(imm & 1)], b[usize::from(imm >> 1 & 1)]]
}

fn permilpd(_: Lane, b: Lane, imm: u8) -> Lane {
    shufpd(b, b, imm)
}

fn palignr(a: Lane, b: Lane, imm: u8) -> Lane {
    let (hi, lo) = (bytes(a), bytes(b));
    let at = |i: usize| match i {
        0..=15 => lo[i],
        16..=31 => hi[i - 16],
        _ => 0,
    };
    from_bytes(std::array::from_fn(|i| at(i + usize::from(imm))))
}

fn blend(a: Lane, b: Lane, imm: u8, width: usize) -> Lane {
    let (a, b) = (bytes(a), bytes(b));
    from_bytes(std::array::from_fn(|i| if imm >> (i / width) & 1 != 0 { b[i] } else { a[i] }))
}

fn blendps(a: Lane, b: Lane, imm: u8) -> Lane {
    blend(a, b, imm, 4)
}

fn blendpd(a: Lane, b: Lane, imm: u8) -> Lane {
    blend(a, b, imm, 8)
}

fn pblendw(a: Lane, b: Lane, imm: u8) -> Lane {
    blend(a, b, imm, 2)
}

fn pclmulqdq(a: Lane, b: Lane, imm: u8) -> Lane {
    let a = Ymm([a[usize::from(imm & 1)], 0, 0, 0]);
    let b = Ymm([b[usize::from(imm >> 4 & 1)], 0, 0, 0]);
    let mut d = a;
    // SAFETY: pointers to aligned registers; offered only where the host has the instruction.
    unsafe {
        asm!("movaps xmm0, [{d}]", "pclmulqdq xmm0, [{b}], 0", "movaps [{d}], xmm0",
            d = in(reg) &raw mut d, b = in(reg) &raw const b, out("xmm0") _, options(nostack, preserves_flags));
    }
    [d.0[0], d.0[1]]
}

fn aeskeygenassist(_: Lane, b: Lane, imm: u8) -> Lane {
    let mut d = Ymm([b[0], b[1], 0, 0]);
    // SAFETY: as above.
    unsafe {
        asm!("aeskeygenassist xmm0, [{d}], 0", "movaps [{d}], xmm0",
            d = in(reg) &raw mut d, out("xmm0") _, options(nostack, preserves_flags));
    }
    // The round constant is only added to two of the words.
    let rcon = u64::from(imm) << 32;
    [d.0[0] ^ rcon, d.0[1] ^ rcon]
}

fn mpsadbw(a: Lane, b: Lane, imm: u8) -> Lane {
    let (a, b) = (bytes(a), bytes(b));
    let (from, block) = (usize::from(imm >> 2 & 1) * 4, usize::from(imm & 3) * 4);
    let sum = |i: usize| (0..4).map(|k| u16::from(a[from + i + k].abs_diff(b[block + k]))).sum::<u16>();
    [from_words(std::array::from_fn(sum)), from_words(std::array::from_fn(|i| sum(i + 4)))]
}

fn sha1rnds4(a: Lane, b: Lane, imm: u8) -> Lane {
    let mut d = Ymm([a[0], a[1], 0, 0]);
    let s = Ymm([b[0], b[1], 0, 0]);
    macro_rules! round {
        ($i:literal) => {
            // SAFETY: as above.
            unsafe {
                asm!("movaps xmm0, [{d}]", concat!("sha1rnds4 xmm0, [{s}], ", $i), "movaps [{d}], xmm0",
                    d = in(reg) &raw mut d, s = in(reg) &raw const s, out("xmm0") _, options(nostack, preserves_flags));
            }
        };
    }
    match imm & 3 {
        0 => round!("0"),
        1 => round!("1"),
        2 => round!("2"),
        _ => round!("3"),
    }
    [d.0[0], d.0[1]]
}

// ---- shifts by an immediate ---------------------------------------------------------------------------------------

/// Shifts each element of `bits` bits; counts past the width give zero (or the sign).
fn shift(v: Lane, bits: u32, n: u8, f: impl Fn(u64, u32) -> u64) -> Lane {
    let mask = if bits == 64 { u64::MAX } else { (1 << bits) - 1 };
    let one = |q: u64| {
        (0..64 / bits).fold(0, |r, i| r | (f(q >> (i * bits) & mask, u32::from(n)) & mask) << (i * bits))
    };
    [one(v[0]), one(v[1])]
}

macro_rules! shifts {
    ($($name:ident $bits:literal $kind:ident;)*) => {$(
        fn $name(_: Lane, v: Lane, n: u8) -> Lane {
            shift(v, $bits, n, |x, n| $kind(x, n, $bits))
        }
    )*};
}

fn left(x: u64, n: u32, bits: u32) -> u64 {
    if n < bits {
        x << n
    } else {
        0
    }
}

fn right(x: u64, n: u32, bits: u32) -> u64 {
    if n < bits {
        x >> n
    } else {
        0
    }
}

fn arithmetic(x: u64, n: u32, bits: u32) -> u64 {
    ((x << (64 - bits)) as i64 >> (64 - bits) >> n.min(bits - 1)) as u64
}

shifts! {
    psllw 16 left; pslld 32 left; psllq 64 left;
    psrlw 16 right; psrld 32 right; psrlq 64 right;
    psraw 16 arithmetic; psrad 32 arithmetic;
}

fn pslldq(_: Lane, v: Lane, n: u8) -> Lane {
    palignr(v, [0; 2], 16 - n.min(16))
}

fn psrldq(_: Lane, v: Lane, n: u8) -> Lane {
    palignr([0; 2], v, n.min(16))
}

// ---- shapes -------------------------------------------------------------------------------------------------------

/// A lane function as a type, so that each gets a handler of its own.
trait LaneFn {
    /// Sources in registers or memory: one or two.
    const SOURCES: usize;
    /// How far the immediate moves for the upper half.
    const STEP: u32;
    fn lane(a: Lane, b: Lane, imm: u8) -> Lane;
}

fn lane_body<T: LaneFn>(cpu: &mut Cpu, op: &Op) -> R<()> {
    let (vex, wide) = (op.has(Op::VEX), op.has(Op::L256));
    let last = if vex { T::SOURCES } else { 1 };
    let b = cpu.vector_rm(op, last, if wide { 32 } else { 16 }, !vex)?.0;
    let a = cpu.ymm[op.r[usize::from(vex && T::SOURCES == 2)] as usize & 15].0;
    let imm = op.imm8();
    let low = T::lane([a[0], a[1]], [b[0], b[1]], imm);
    if wide {
        let high = T::lane([a[2], a[3]], [b[2], b[3]], imm >> T::STEP);
        cpu.ymm[op.r[0] as usize & 15] = Ymm([low[0], low[1], high[0], high[1]]);
    } else {
        cpu.put_xmm(op, op.r[0], low);
    }
    Ok(())
}

fn lanes<T: LaneFn>(cpu: &mut Cpu, op: &Op) -> Next {
    let r = lane_body::<T>(cpu, op);
    finish(cpu, op, r)
}

/// Shift groups: the only register operand of the legacy form is source and destination; the VEX form names both.
fn shift_body<T: LaneFn>(cpu: &mut Cpu, op: &Op) -> R<()> {
    let s = cpu.ymm[op.r[usize::from(op.has(Op::VEX))] as usize & 15].0;
    let low = T::lane([0; 2], [s[0], s[1]], op.imm8());
    if op.has(Op::L256) {
        let high = T::lane([0; 2], [s[2], s[3]], op.imm8());
        cpu.ymm[op.r[0] as usize & 15] = Ymm([low[0], low[1], high[0], high[1]]);
    } else {
        cpu.put_xmm(op, op.r[0], low);
    }
    Ok(())
}

fn shifted<T: LaneFn>(cpu: &mut Cpu, op: &Op) -> Next {
    let r = shift_body::<T>(cpu, op);
    finish(cpu, op, r)
}

/// The 64-bit MMX form, in the low half of a lane.
fn mmx_body<T: LaneFn>(cpu: &mut Cpu, op: &Op, shift: bool) -> R<()> {
    cpu.fpu_check()?;
    let a = cpu.mm(op.r[0]);
    let b = match () {
        _ if shift => a,
        _ if op.has(Op::MEM) => cpu.read::<u64>(op)?,
        _ => cpu.mm(op.r[1]),
    };
    let v = T::lane([a, 0], [b, 0], op.imm8())[0];
    cpu.set_mm(op.r[0], v);
    Ok(())
}

fn mmx_lanes<T: LaneFn>(cpu: &mut Cpu, op: &Op) -> Next {
    let r = mmx_body::<T>(cpu, op, false);
    finish(cpu, op, r)
}

fn mmx_shifted<T: LaneFn>(cpu: &mut Cpu, op: &Op) -> Next {
    let r = mmx_body::<T>(cpu, op, true);
    finish(cpu, op, r)
}

fn mmx_palignr(a: Lane, b: Lane, imm: u8) -> Lane {
    // Sixteen bytes: the destination above the source.
    palignr([0; 2], [b[0], a[0]], imm)
}

macro_rules! lane_rows {
    ($code:expr; $($shape:ident $f:ident $sources:literal $step:literal: $($c:ident)|+;)*) => {
        match $code {
            $($(Code::$c)|+ => {
                struct Row;
                impl LaneFn for Row {
                    const SOURCES: usize = $sources;
                    const STEP: u32 = $step;
                    #[inline(always)]
                    fn lane(a: Lane, b: Lane, imm: u8) -> Lane {
                        $f(a, b, imm)
                    }
                }
                Some($shape::<Row> as Handler)
            })*
            _ => None,
        }
    };
}

fn table(code: Code) -> Option<Handler> {
    lane_rows! { code;
        lanes pshufd 1 0: Pshufd_xmm_xmmm128_imm8 | VEX_Vpshufd_xmm_xmmm128_imm8 | VEX_Vpshufd_ymm_ymmm256_imm8
            | VEX_Vpermilps_xmm_xmmm128_imm8 | VEX_Vpermilps_ymm_ymmm256_imm8;
        lanes pshuflw 1 0: Pshuflw_xmm_xmmm128_imm8 | VEX_Vpshuflw_xmm_xmmm128_imm8 | VEX_Vpshuflw_ymm_ymmm256_imm8;
        lanes pshufhw 1 0: Pshufhw_xmm_xmmm128_imm8 | VEX_Vpshufhw_xmm_xmmm128_imm8 | VEX_Vpshufhw_ymm_ymmm256_imm8;
        lanes shufps 2 0: Shufps_xmm_xmmm128_imm8 | VEX_Vshufps_xmm_xmm_xmmm128_imm8 | VEX_Vshufps_ymm_ymm_ymmm256_imm8;
        lanes shufpd 2 2: Shufpd_xmm_xmmm128_imm8 | VEX_Vshufpd_xmm_xmm_xmmm128_imm8 | VEX_Vshufpd_ymm_ymm_ymmm256_imm8;
        lanes permilpd 1 2: VEX_Vpermilpd_xmm_xmmm128_imm8 | VEX_Vpermilpd_ymm_ymmm256_imm8;
        lanes palignr 2 0: Palignr_xmm_xmmm128_imm8 | VEX_Vpalignr_xmm_xmm_xmmm128_imm8 | VEX_Vpalignr_ymm_ymm_ymmm256_imm8;
        lanes blendps 2 4: Blendps_xmm_xmmm128_imm8 | VEX_Vblendps_xmm_xmm_xmmm128_imm8 | VEX_Vblendps_ymm_ymm_ymmm256_imm8
            | VEX_Vpblendd_xmm_xmm_xmmm128_imm8 | VEX_Vpblendd_ymm_ymm_ymmm256_imm8;
        lanes blendpd 2 2: Blendpd_xmm_xmmm128_imm8 | VEX_Vblendpd_xmm_xmm_xmmm128_imm8 | VEX_Vblendpd_ymm_ymm_ymmm256_imm8;
        lanes pblendw 2 0: Pblendw_xmm_xmmm128_imm8 | VEX_Vpblendw_xmm_xmm_xmmm128_imm8 | VEX_Vpblendw_ymm_ymm_ymmm256_imm8;
        lanes pclmulqdq 2 0: Pclmulqdq_xmm_xmmm128_imm8 | VEX_Vpclmulqdq_xmm_xmm_xmmm128_imm8
            | VEX_Vpclmulqdq_ymm_ymm_ymmm256_imm8;
        lanes aeskeygenassist 1 0: Aeskeygenassist_xmm_xmmm128_imm8 | VEX_Vaeskeygenassist_xmm_xmmm128_imm8;
        lanes mpsadbw 2 3: Mpsadbw_xmm_xmmm128_imm8 | VEX_Vmpsadbw_xmm_xmm_xmmm128_imm8 | VEX_Vmpsadbw_ymm_ymm_ymmm256_imm8;
        lanes sha1rnds4 2 0: Sha1rnds4_xmm_xmmm128_imm8;
        shifted psllw 1 0: Psllw_xmm_imm8 | VEX_Vpsllw_xmm_xmm_imm8 | VEX_Vpsllw_ymm_ymm_imm8;
        shifted pslld 1 0: Pslld_xmm_imm8 | VEX_Vpslld_xmm_xmm_imm8 | VEX_Vpslld_ymm_ymm_imm8;
        shifted psllq 1 0: Psllq_xmm_imm8 | VEX_Vpsllq_xmm_xmm_imm8 | VEX_Vpsllq_ymm_ymm_imm8;
        shifted psrlw 1 0: Psrlw_xmm_imm8 | VEX_Vpsrlw_xmm_xmm_imm8 | VEX_Vpsrlw_ymm_ymm_imm8;
        shifted psrld 1 0: Psrld_xmm_imm8 | VEX_Vpsrld_xmm_xmm_imm8 | VEX_Vpsrld_ymm_ymm_imm8;
        shifted psrlq 1 0: Psrlq_xmm_imm8 | VEX_Vpsrlq_xmm_xmm_imm8 | VEX_Vpsrlq_ymm_ymm_imm8;
        shifted psraw 1 0: Psraw_xmm_imm8 | VEX_Vpsraw_xmm_xmm_imm8 | VEX_Vpsraw_ymm_ymm_imm8;
        shifted psrad 1 0: Psrad_xmm_imm8 | VEX_Vpsrad_xmm_xmm_imm8 | VEX_Vpsrad_ymm_ymm_imm8;
        shifted pslldq 1 0: Pslldq_xmm_imm8 | VEX_Vpslldq_xmm_xmm_imm8 | VEX_Vpslldq_ymm_ymm_imm8;
        shifted psrldq 1 0: Psrldq_xmm_imm8 | VEX_Vpsrldq_xmm_xmm_imm8 | VEX_Vpsrldq_ymm_ymm_imm8;
        mmx_lanes pshuflw 1 0: Pshufw_mm_mmm64_imm8;
        mmx_lanes mmx_palignr 2 0: Palignr_mm_mmm64_imm8;
        mmx_shifted psllw 1 0: Psllw_mm_imm8;
        mmx_shifted pslld 1 0: Pslld_mm_imm8;
        mmx_shifted psllq 1 0: Psllq_mm_imm8;
        mmx_shifted psrlw 1 0: Psrlw_mm_imm8;
        mmx_shifted psrld 1 0: Psrld_mm_imm8;
        mmx_shifted psrlq 1 0: Psrlq_mm_imm8;
        mmx_shifted psraw 1 0: Psraw_mm_imm8;
        mmx_shifted psrad 1 0: Psrad_mm_imm8;
    }
}

// ---- inserts, extracts, permutations across lanes, blends by a register ----------------------------------------------

impl Cpu {
    /// Stores or returns an extracted element of `T`; a register gets it zero-extended.
    fn put_element(&mut self, op: &Op, v: u64, size: usize) -> R<()> {
        if !op.has(Op::MEM) {
            self.set_reg::<u64>(op.r[0], v);
            return Ok(());
        }
        match size {
            1 => self.write(op, v as u8),
            2 => self.write(op, v as u16),
            4 => self.write(op, v as u32),
            _ => self.write(op, v),
        }
    }

    /// Inserts element `i` of `bits` bits into the first source and writes the destination.
    fn insert(&mut self, op: &Op, bits: u32, read: impl Fn(&mut Self, u8) -> R<u64>) -> R<()> {
        let n = usize::from(op.has(Op::VEX));
        let e = read(self, op.r[1 + n])?;
        let a = self.xmm(op.r[n]);
        let i = u32::from(op.imm8()) % (128 / bits);
        let mask = if bits == 64 { u128::from(u64::MAX) } else { (1 << bits) - 1 };
        let v = u128::from(a[0]) | u128::from(a[1]) << 64;
        let v = v & !(mask << (i * bits)) | (u128::from(e) & mask) << (i * bits);
        self.put_xmm(op, op.r[0], [v as u64, (v >> 64) as u64]);
        Ok(())
    }

    fn element(&self, op: &Op, bits: u32) -> u64 {
        let [a, b] = self.xmm(op.r[1]);
        let v = u128::from(a) | u128::from(b) << 64;
        let mask = if bits == 64 { u64::MAX } else { (1 << bits) - 1 };
        (v >> (u32::from(op.imm8()) % (128 / bits) * bits)) as u64 & mask
    }

    /// Takes bytes of the second source where the sign of the mask's element is set.
    fn blend_by(&mut self, op: &Op, mask: Ymm, width: usize) -> R<()> {
        let (vex, wide) = (op.has(Op::VEX), op.has(Op::L256));
        let b = self.vector_rm(op, 1 + usize::from(vex), if wide { 32 } else { 16 }, !vex)?.0;
        let a = self.ymm[op.r[usize::from(vex)] as usize & 15].0;
        let mut out = [0u64; 4];
        for (i, o) in out.iter_mut().enumerate() {
            for k in 0..8 {
                let top = (k / width + 1) * width * 8 - 1;
                let from = if mask.0[i] >> top & 1 != 0 { b[i] } else { a[i] };
                *o |= from & 0xff << (8 * k);
            }
        }
        if wide {
            self.ymm[op.r[0] as usize & 15] = Ymm(out);
        } else {
            self.put_xmm(op, op.r[0], [out[0], out[1]]);
        }
        Ok(())
    }

    /// Register of the fourth operand.
    fn mask_register(&self, op: &Op) -> Ymm {
        self.ymm[op.r[3] as usize & 15]
    }
}

handler! {
    fn pextrb(cpu, op) { let v = cpu.element(op, 8); cpu.put_element(op, v, 1) }
    fn pextrw(cpu, op) { let v = cpu.element(op, 16); cpu.put_element(op, v, 2) }
    fn pextrd(cpu, op) { let v = cpu.element(op, 32); cpu.put_element(op, v, 4) }
    fn pextrq(cpu, op) { let v = cpu.element(op, 64); cpu.put_element(op, v, 8) }
    fn mmx_pextrw(cpu, op) {
        cpu.fpu_check()?;
        let v = cpu.mm(op.r[1]) >> (16 * (op.imm8() & 3)) & 0xffff;
        cpu.mmx_touch();
        cpu.set_reg::<u64>(op.r[0], v);
        Ok(())
    }
    fn pinsrb(cpu, op) {
        cpu.insert(op, 8, |c, r| Ok(u64::from(if op.has(Op::MEM) { c.read::<u8>(op)? } else { c.reg::<u8>(r) })))
    }
    fn pinsrw(cpu, op) {
        cpu.insert(op, 16, |c, r| Ok(u64::from(if op.has(Op::MEM) { c.read::<u16>(op)? } else { c.reg::<u16>(r) })))
    }
    fn pinsrd(cpu, op) {
        cpu.insert(op, 32, |c, r| Ok(u64::from(if op.has(Op::MEM) { c.read::<u32>(op)? } else { c.reg::<u32>(r) })))
    }
    fn pinsrq(cpu, op) {
        cpu.insert(op, 64, |c, r| if op.has(Op::MEM) { c.read::<u64>(op) } else { Ok(c.reg::<u64>(r)) })
    }
    fn mmx_pinsrw(cpu, op) {
        cpu.fpu_check()?;
        let e = if op.has(Op::MEM) { cpu.read::<u16>(op)? } else { cpu.reg::<u16>(op.r[1]) };
        let at = 16 * (op.imm8() & 3);
        let v = cpu.mm(op.r[0]) & !(0xffff << at) | u64::from(e) << at;
        cpu.set_mm(op.r[0], v);
        Ok(())
    }
    fn insertps(cpu, op) {
        let n = usize::from(op.has(Op::VEX));
        let imm = op.imm8();
        let e = if op.has(Op::MEM) {
            cpu.read::<u32>(op)?
        } else {
            dwords(cpu.xmm(op.r[1 + n]))[usize::from(imm >> 6)]
        };
        let mut d = dwords(cpu.xmm(op.r[n]));
        d[usize::from(imm >> 4 & 3)] = e;
        for (i, x) in d.iter_mut().enumerate() {
            if imm >> i & 1 != 0 {
                *x = 0;
            }
        }
        cpu.put_xmm(op, op.r[0], from_dwords(d));
        Ok(())
    }
    fn insert128(cpu, op) {
        let b = cpu.vector_rm(op, 2, 16, false)?.0;
        let mut d = cpu.ymm[op.r[1] as usize & 15];
        let at = usize::from(op.imm8() & 1) * 2;
        d.0[at..at + 2].copy_from_slice(&b[..2]);
        cpu.ymm[op.r[0] as usize & 15] = d;
        Ok(())
    }
    fn extract128(cpu, op) {
        let s = cpu.ymm[op.r[1] as usize & 15].0;
        let at = usize::from(op.imm8() & 1) * 2;
        let v = [s[at], s[at + 1]];
        if op.has(Op::MEM) {
            return cpu.write128(op, v);
        }
        cpu.set_xmm_vex(op.r[0], v);
        Ok(())
    }
    fn perm2x128(cpu, op) {
        let b = cpu.vector_rm(op, 2, 32, false)?.0;
        let a = cpu.ymm[op.r[1] as usize & 15].0;
        let half = |c: u8| match (c & 8, c & 3) {
            (0, 0) => [a[0], a[1]],
            (0, 1) => [a[2], a[3]],
            (0, 2) => [b[0], b[1]],
            (0, _) => [b[2], b[3]],
            _ => [0; 2],
        };
        let (l, h) = (half(op.imm8()), half(op.imm8() >> 4));
        cpu.ymm[op.r[0] as usize & 15] = Ymm([l[0], l[1], h[0], h[1]]);
        Ok(())
    }
    fn permq(cpu, op) {
        let s = cpu.vector_rm(op, 1, 32, false)?.0;
        cpu.ymm[op.r[0] as usize & 15] = Ymm(std::array::from_fn(|i| s[pick(op.imm8(), i)]));
        Ok(())
    }
    fn pblendvb(cpu, op) { let m = cpu.ymm[0]; cpu.blend_by(op, m, 1) }
    fn blendvps(cpu, op) { let m = cpu.ymm[0]; cpu.blend_by(op, m, 4) }
    fn blendvpd(cpu, op) { let m = cpu.ymm[0]; cpu.blend_by(op, m, 8) }
    fn vpblendvb(cpu, op) { let m = cpu.mask_register(op); cpu.blend_by(op, m, 1) }
    fn vblendvps(cpu, op) { let m = cpu.mask_register(op); cpu.blend_by(op, m, 4) }
    fn vblendvpd(cpu, op) { let m = cpu.mask_register(op); cpu.blend_by(op, m, 8) }
    fn sha256rnds2(cpu, op) {
        let s = cpu.vector_rm(op, 1, 16, true)?;
        let wk = cpu.ymm[0];
        let d = &raw mut cpu.ymm[op.r[0] as usize & 15];
        // SAFETY: pointers to aligned registers; offered only where the host has the instruction.
        unsafe {
            asm!("movaps xmm1, [{d}]", "movaps xmm0, [{k}]", "sha256rnds2 xmm1, [{s}]", "movaps [{d}], xmm1",
                d = in(reg) d, s = in(reg) &raw const s, k = in(reg) &raw const wk,
                out("xmm0") _, out("xmm1") _, options(nostack, preserves_flags));
        }
        Ok(())
    }
}

/// The handler of a lane instruction.
pub fn lookup(code: Code) -> Option<Handler> {
    use Code::*;
    if let Some(h) = table(code) {
        return Some(h);
    }
    Some(match code {
        Pextrb_r32m8_xmm_imm8
        | Pextrb_r64m8_xmm_imm8
        | VEX_Vpextrb_r32m8_xmm_imm8
        | VEX_Vpextrb_r64m8_xmm_imm8 => pextrb,
        Pextrw_r32_xmm_imm8
        | Pextrw_r64_xmm_imm8
        | Pextrw_r32m16_xmm_imm8
        | Pextrw_r64m16_xmm_imm8
        | VEX_Vpextrw_r32_xmm_imm8
        | VEX_Vpextrw_r64_xmm_imm8
        | VEX_Vpextrw_r32m16_xmm_imm8
        | VEX_Vpextrw_r64m16_xmm_imm8 => pextrw,
        Pextrd_rm32_xmm_imm8
        | Extractps_rm32_xmm_imm8
        | Extractps_r64m32_xmm_imm8
        | VEX_Vpextrd_rm32_xmm_imm8
        | VEX_Vextractps_rm32_xmm_imm8
        | VEX_Vextractps_r64m32_xmm_imm8 => pextrd,
        Pextrq_rm64_xmm_imm8 | VEX_Vpextrq_rm64_xmm_imm8 => pextrq,
        Pextrw_r32_mm_imm8 | Pextrw_r64_mm_imm8 => mmx_pextrw,
        Pinsrb_xmm_r32m8_imm8
        | Pinsrb_xmm_r64m8_imm8
        | VEX_Vpinsrb_xmm_xmm_r32m8_imm8
        | VEX_Vpinsrb_xmm_xmm_r64m8_imm8 => pinsrb,
        Pinsrw_xmm_r32m16_imm8
        | Pinsrw_xmm_r64m16_imm8
        | VEX_Vpinsrw_xmm_xmm_r32m16_imm8
        | VEX_Vpinsrw_xmm_xmm_r64m16_imm8 => pinsrw,
        Pinsrd_xmm_rm32_imm8 | VEX_Vpinsrd_xmm_xmm_rm32_imm8 => pinsrd,
        Pinsrq_xmm_rm64_imm8 | VEX_Vpinsrq_xmm_xmm_rm64_imm8 => pinsrq,
        Pinsrw_mm_r32m16_imm8 | Pinsrw_mm_r64m16_imm8 => mmx_pinsrw,
        Insertps_xmm_xmmm32_imm8 | VEX_Vinsertps_xmm_xmm_xmmm32_imm8 => insertps,
        VEX_Vinsertf128_ymm_ymm_xmmm128_imm8 | VEX_Vinserti128_ymm_ymm_xmmm128_imm8 => insert128,
        VEX_Vextractf128_xmmm128_ymm_imm8 | VEX_Vextracti128_xmmm128_ymm_imm8 => extract128,
        VEX_Vperm2f128_ymm_ymm_ymmm256_imm8 | VEX_Vperm2i128_ymm_ymm_ymmm256_imm8 => perm2x128,
        VEX_Vpermq_ymm_ymmm256_imm8 | VEX_Vpermpd_ymm_ymmm256_imm8 => permq,
        Pblendvb_xmm_xmmm128 => pblendvb,
        Blendvps_xmm_xmmm128 => blendvps,
        Blendvpd_xmm_xmmm128 => blendvpd,
        VEX_Vpblendvb_xmm_xmm_xmmm128_xmm | VEX_Vpblendvb_ymm_ymm_ymmm256_ymm => vpblendvb,
        VEX_Vblendvps_xmm_xmm_xmmm128_xmm | VEX_Vblendvps_ymm_ymm_ymmm256_ymm => vblendvps,
        VEX_Vblendvpd_xmm_xmm_xmmm128_xmm | VEX_Vblendvpd_ymm_ymm_ymmm256_ymm => vblendvpd,
        Sha256rnds2_xmm_xmmm128 => sha256rnds2,
        _ => return None,
    })
}
