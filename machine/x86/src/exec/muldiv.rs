//! Multiplication and division.

use super::{Int, Next, Op};
use crate::cpu::Cpu;
use crate::fault::{Exception, R};
use crate::flags::Flags;
use crate::handler;
use crate::state::gpr;

const DX: u8 = gpr::RDX as u8 * 8;

#[inline(always)]
fn src<T: Int>(cpu: &mut Cpu, op: &Op, i: usize) -> R<T> {
    if op.has(Op::MEM) {
        cpu.read::<T>(op)
    } else {
        Ok(cpu.reg::<T>(op.r[i]))
    }
}

fn set_wide<T: Int>(cpu: &mut Cpu, lo: u64, hi: u64) {
    if T::BITS == 8 {
        cpu.set_reg(0, (lo & 0xff | hi << 8) as u16);
    } else {
        cpu.set_reg(0, T::from_u64(lo));
        cpu.set_reg(DX, T::from_u64(hi));
    }
}

handler! {
    pub fn mul<T: Int>(cpu, op) {
        let b = src::<T>(cpu, op, 0)?.to_u64();
        let p = cpu.reg::<T>(0).to_u64() as u128 * b as u128;
        let hi = (p >> T::BITS) as u64;
        set_wide::<T>(cpu, p as u64, hi);
        let o = hi != 0;
        cpu.fl = Flags::with_cf_of(T::from_u64(p as u64).sext(), o, o);
        Ok(())
    }
    pub fn imul1<T: Int>(cpu, op) {
        let b = src::<T>(cpu, op, 0)?.sext() as i64;
        let p = (cpu.reg::<T>(0).sext() as i64) as i128 * b as i128;
        set_wide::<T>(cpu, p as u64, (p >> T::BITS) as u64);
        signed_flags::<T>(cpu, p);
        Ok(())
    }
    pub fn imul2<T: Int>(cpu, op) {
        let b = src::<T>(cpu, op, 1)?;
        let a = cpu.reg::<T>(op.r[0]);
        signed::<T>(cpu, op, a, b);
        Ok(())
    }
    pub fn imul3<T: Int>(cpu, op) {
        let a = src::<T>(cpu, op, 1)?;
        signed::<T>(cpu, op, a, T::from_u64(op.imm));
        Ok(())
    }
    /// Registers only.
    pub fn imul2_quiet<T: Int>(cpu, op) {
        let p = cpu.reg::<T>(op.r[0]).to_u64().wrapping_mul(cpu.reg::<T>(op.r[1]).to_u64());
        cpu.set_reg(op.r[0], T::from_u64(p));
        Ok(())
    }
    /// Registers only.
    pub fn imul3_quiet<T: Int>(cpu, op) {
        let p = cpu.reg::<T>(op.r[1]).to_u64().wrapping_mul(op.imm);
        cpu.set_reg(op.r[0], T::from_u64(p));
        Ok(())
    }
    pub fn div<T: Int>(cpu, op) {
        let d = src::<T>(cpu, op, 0)?.to_u64() as u128;
        let n = dividend::<T>(cpu);
        if d == 0 {
            return cpu.raise(Exception::new(Exception::DE));
        }
        let (q, r) = if n >> 64 == 0 {
            ((n as u64 / d as u64) as u128, n as u64 % d as u64)
        } else {
            (n / d, (n % d) as u64)
        };
        if q >> T::BITS != 0 {
            return cpu.raise(Exception::new(Exception::DE));
        }
        set_wide::<T>(cpu, q as u64, r);
        Ok(())
    }
    pub fn idiv<T: Int>(cpu, op) {
        let d = src::<T>(cpu, op, 0)?.sext() as i64 as i128;
        // The dividend is twice the operand size wide.
        let sh = 128 - 2 * T::BITS;
        let n = ((dividend::<T>(cpu) << sh) as i128) >> sh;
        if d == 0 {
            return cpu.raise(Exception::new(Exception::DE));
        }
        let q = n.wrapping_div(d);
        let r = n.wrapping_rem(d);
        let min = -(1i128 << (T::BITS - 1));
        if q < min || q >= -min {
            return cpu.raise(Exception::new(Exception::DE));
        }
        set_wide::<T>(cpu, q as u64, r as u64);
        Ok(())
    }
    pub fn mulx32(cpu, op) {
        let b = src::<u32>(cpu, op, 2)? as u64;
        let p = cpu.reg::<u32>(DX) as u64 * b;
        cpu.set_reg(op.r[1], p as u32);
        cpu.set_reg(op.r[0], (p >> 32) as u32);
        Ok(())
    }
    pub fn mulx64(cpu, op) {
        let b = src::<u64>(cpu, op, 2)? as u128;
        let p = cpu.reg::<u64>(DX) as u128 * b;
        cpu.set_reg(op.r[1], p as u64);
        cpu.set_reg(op.r[0], (p >> 64) as u64);
        Ok(())
    }
}

fn dividend<T: Int>(cpu: &Cpu) -> u128 {
    if T::BITS == 8 {
        cpu.reg::<u16>(0) as u128
    } else {
        cpu.reg::<T>(0).to_u64() as u128 | (cpu.reg::<T>(DX).to_u64() as u128) << T::BITS
    }
}

#[inline(always)]
fn signed_flags<T: Int>(cpu: &mut Cpu, p: i128) {
    let r = T::from_u64(p as u64);
    let o = (r.sext() as i64) as i128 != p;
    cpu.fl = Flags::with_cf_of(r.sext(), o, o);
}

/// The two- and three-operand IMUL.
#[inline(always)]
fn signed<T: Int>(cpu: &mut Cpu, op: &Op, a: T, b: T) {
    let (p, wide) = (a.sext() as i64).overflowing_mul(b.sext() as i64);
    let r = T::from_u64(p as u64);
    let o = wide || r.sext() as i64 != p;
    cpu.set_reg(op.r[0], r);
    cpu.fl = Flags::with_cf_of(r.sext(), o, o);
}

/// MOV reg, reg and IMUL of that register with another one, flags unseen.
pub fn mov_then_imul<T: Int>(cpu: &mut Cpu, op: &Op) -> Next {
    let n = super::following(op);
    let p = cpu.reg::<T>(op.r[1]).to_u64().wrapping_mul(cpu.reg::<T>(n.r[1]).to_u64());
    cpu.set_reg(op.r[0], T::from_u64(p));
    super::next(cpu, n)
}
