//! SSE4.2 string compares, by the specification of the aggregation (Intel SDM volume 2, section 4.1).

use iced_x86::Code;

use crate::cpu::Cpu;
use crate::exec::{Handler, Op};
use crate::fault::R;
use crate::flags::Flags;
use crate::handler;
use crate::state::{gpr, rflags};

/// What the immediate asks for.
#[derive(Clone, Copy)]
struct Control(u8);

impl Control {
    fn words(self) -> bool {
        self.0 & 1 != 0
    }
    fn elements(self) -> usize {
        if self.words() {
            8
        } else {
            16
        }
    }
}

fn element(v: &[u8; 16], i: usize, c: Control) -> i32 {
    match (c.words(), c.0 & 2 != 0) {
        (false, false) => i32::from(v[i]),
        (false, true) => i32::from(v[i] as i8),
        (true, signed) => {
            let w = u16::from_le_bytes([v[2 * i], v[2 * i + 1]]);
            if signed {
                i32::from(w as i16)
            } else {
                i32::from(w)
            }
        }
    }
}

/// Length up to the first null element.
fn implicit_length(v: &[u8; 16], c: Control) -> usize {
    (0..c.elements()).find(|i| element(v, *i, c) == 0).unwrap_or(c.elements())
}

/// Result bits of the comparison before the polarity is applied.
fn aggregate(a: &[u8; 16], la: usize, b: &[u8; 16], lb: usize, c: Control) -> u32 {
    let n = c.elements();
    let set = |f: &dyn Fn(usize) -> bool| (0..n).fold(0, |m, j| m | u32::from(f(j)) << j);
    let (x, y) = (|i: usize| element(a, i, c), |j: usize| element(b, j, c));
    match c.0 >> 2 & 3 {
        // Any of the set; any range; the same at the same place; the substring from here on.
        0 => set(&|j| j < lb && (0..la).any(|i| x(i) == y(j))),
        1 => set(&|j| j < lb && (0..la / 2).any(|i| x(2 * i) <= y(j) && y(j) <= x(2 * i + 1))),
        2 => set(&|j| match (j < la, j < lb) {
            (true, true) => x(j) == y(j),
            (false, false) => true,
            _ => false,
        }),
        _ => set(&|j| (0..n - j).all(|i| i >= la || i + j < lb && x(i) == y(i + j))),
    }
}

/// Compares; sets the flags; returns the result bits.
fn compare(cpu: &mut Cpu, op: &Op, lengths: Option<(u64, u64)>) -> R<u32> {
    let b = cpu.vector_rm(op, 1, 16, false)?;
    let bytes = |v: [u64; 2]| (u128::from(v[0]) | u128::from(v[1]) << 64).to_le_bytes();
    let (a, b) = (bytes(cpu.xmm(op.r[0])), bytes([b.0[0], b.0[1]]));
    let c = Control(op.imm8());
    let n = c.elements();
    let limit = |v: u64| (v as i64).unsigned_abs().min(n as u64) as usize;
    let (la, lb) = match lengths {
        Some((x, y)) => (limit(x), limit(y)),
        None => (implicit_length(&a, c), implicit_length(&b, c)),
    };
    let raw = aggregate(&a, la, &b, lb, c);
    let all = (1u32 << n) - 1;
    let result = match c.0 >> 4 & 3 {
        1 => !raw & all,
        3 => raw ^ ((1 << lb) - 1),
        _ => raw,
    };
    let bit = |on: bool, f: u64| if on { f } else { 0 };
    cpu.fl = Flags::from_bits(
        bit(result != 0, rflags::CF)
            | bit(lb < n, rflags::ZF)
            | bit(la < n, rflags::SF)
            | bit(result & 1 != 0, rflags::OF),
    );
    Ok(result)
}

fn index(cpu: &mut Cpu, op: &Op, result: u32) {
    let c = Control(op.imm8());
    let i = match (result, c.0 & 0x40 != 0) {
        (0, _) => c.elements() as u32,
        (r, true) => 31 - r.leading_zeros(),
        (r, false) => r.trailing_zeros(),
    };
    cpu.set_reg::<u32>(gpr::RCX as u8 * 8, i);
}

fn mask(cpu: &mut Cpu, op: &Op, result: u32) {
    let c = Control(op.imm8());
    let mut v = u128::from(result);
    if c.0 & 0x40 != 0 {
        let width = if c.words() { 16 } else { 8 };
        let ones = (1u128 << width) - 1;
        v = (0..c.elements()).filter(|i| result >> i & 1 != 0).fold(0, |m, i| m | ones << (i * width));
    }
    cpu.put_xmm(op, 0, [v as u64, (v >> 64) as u64]);
}

impl Cpu {
    fn explicit_lengths(&self, wide: bool) -> (u64, u64) {
        let (a, d) = (self.regs[gpr::RAX], self.regs[gpr::RDX]);
        if wide {
            (a, d)
        } else {
            (a as i32 as i64 as u64, d as i32 as i64 as u64)
        }
    }
}

handler! {
    fn istri(cpu, op) { let r = compare(cpu, op, None)?; index(cpu, op, r); Ok(()) }
    fn istrm(cpu, op) { let r = compare(cpu, op, None)?; mask(cpu, op, r); Ok(()) }
    fn estri(cpu, op) { let l = cpu.explicit_lengths(false); let r = compare(cpu, op, Some(l))?; index(cpu, op, r); Ok(()) }
    fn estrm(cpu, op) { let l = cpu.explicit_lengths(false); let r = compare(cpu, op, Some(l))?; mask(cpu, op, r); Ok(()) }
    fn estri64(cpu, op) { let l = cpu.explicit_lengths(true); let r = compare(cpu, op, Some(l))?; index(cpu, op, r); Ok(()) }
    fn estrm64(cpu, op) { let l = cpu.explicit_lengths(true); let r = compare(cpu, op, Some(l))?; mask(cpu, op, r); Ok(()) }
}

/// The handler of a string compare.
pub fn lookup(code: Code) -> Option<Handler> {
    use Code::*;
    Some(match code {
        Pcmpistri_xmm_xmmm128_imm8 | VEX_Vpcmpistri_xmm_xmmm128_imm8 => istri,
        Pcmpistrm_xmm_xmmm128_imm8 | VEX_Vpcmpistrm_xmm_xmmm128_imm8 => istrm,
        Pcmpestri_xmm_xmmm128_imm8 | VEX_Vpcmpestri_xmm_xmmm128_imm8 => estri,
        Pcmpestrm_xmm_xmmm128_imm8 | VEX_Vpcmpestrm_xmm_xmmm128_imm8 => estrm,
        Pcmpestri64_xmm_xmmm128_imm8 | VEX_Vpcmpestri64_xmm_xmmm128_imm8 => estri64,
        Pcmpestrm64_xmm_xmmm128_imm8 | VEX_Vpcmpestrm64_xmm_xmmm128_imm8 => estrm64,
        _ => return None,
    })
}
