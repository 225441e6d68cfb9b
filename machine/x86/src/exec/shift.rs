//! Shifts and rotates.

use super::{Int, Next, Op};
use crate::cpu::Cpu;
use crate::fault::R;
use crate::flags::Flags;
use crate::handler;
use crate::state::gpr;

/// A shift or rotate. `n` is masked to 5 or 6 bits and not zero.
pub trait Shift: 'static {
    /// Result and flags.
    fn calc<T: Int>(fl: Flags, a: T, n: u32) -> (T, Flags);
}

fn msb<T: Int>(v: u64) -> bool {
    v >> (T::BITS - 1) & 1 != 0
}

fn cf_of(fl: Flags, cf: bool, of: bool) -> Flags {
    Flags { res: fl.res, aux: (fl.aux & !(3 << 62)) | (cf as u64) << 63 | ((cf ^ of) as u64) << 62 }
}

macro_rules! shifts {
    ($($name:ident <$t:ident> |$fl:ident, $a:ident, $n:ident| $e:block)*) => {$(
        #[allow(missing_docs)]
        pub struct $name;
        impl Shift for $name {
            #[inline(always)]
            fn calc<$t: Int>($fl: Flags, $a: $t, $n: u32) -> ($t, Flags) $e
        }
    )*};
}

shifts! {
    Shl<T> |_fl, a, n| {
        let a = a.to_u64();
        let r = T::from_u64(if n < 64 { a << n } else { 0 });
        let cf = n <= T::BITS && a >> (T::BITS - n) & 1 != 0;
        (r, Flags::with_cf_of(r.sext(), cf, msb::<T>(r.to_u64()) != cf))
    }
    Shr<T> |_fl, a, n| {
        let a = a.to_u64();
        let r = T::from_u64(a >> n);
        let cf = a >> (n - 1) & 1 != 0;
        (r, Flags::with_cf_of(r.sext(), cf, msb::<T>(a)))
    }
    Sar<T> |_fl, a, n| {
        let s = a.sext() as i64;
        let r = T::from_u64((s >> n) as u64);
        let cf = s >> (n - 1) & 1 != 0;
        (r, Flags::with_cf_of(r.sext(), cf, false))
    }
    Rol<T> |fl, a, n| {
        let k = n % T::BITS;
        let v = a.to_u64();
        let r = T::from_u64(if k == 0 { v } else { v << k | v >> (T::BITS - k) });
        let cf = r.to_u64() & 1 != 0;
        (r, cf_of(fl, cf, msb::<T>(r.to_u64()) != cf))
    }
    Ror<T> |fl, a, n| {
        let k = n % T::BITS;
        let v = a.to_u64();
        let r = T::from_u64(if k == 0 { v } else { v >> k | v << (T::BITS - k) });
        let top = r.to_u64() >> (T::BITS - 2);
        (r, cf_of(fl, top & 2 != 0, (top & 1 != 0) != (top & 2 != 0)))
    }
    Rcl<T> |fl, a, n| {
        let w = T::BITS + 1;
        let k = n % w;
        if k == 0 {
            // A full turn; flags as if nothing moved.
            return (a, cf_of(fl, fl.cf(), msb::<T>(a.to_u64()) != fl.cf()));
        }
        let v = a.to_u64() as u128 | (fl.cf() as u128) << T::BITS;
        let r = (v << k | v >> (w - k)) & ((1u128 << w) - 1);
        let cf = r >> T::BITS & 1 != 0;
        let t = T::from_u64(r as u64);
        (t, cf_of(fl, cf, msb::<T>(t.to_u64()) != cf))
    }
    Rcr<T> |fl, a, n| {
        let w = T::BITS + 1;
        let k = n % w;
        let of = msb::<T>(a.to_u64()) != fl.cf();
        if k == 0 {
            return (a, cf_of(fl, fl.cf(), of));
        }
        let v = a.to_u64() as u128 | (fl.cf() as u128) << T::BITS;
        let r = (v >> k | v << (w - k)) & ((1u128 << w) - 1);
        let cf = r >> T::BITS & 1 != 0;
        let t = T::from_u64(r as u64);
        let top = t.to_u64() >> (T::BITS - 2);
        (t, cf_of(fl, cf, (top & 1) != (top >> 1 & 1)))
    }
}

#[inline(always)]
fn mask<T: Int>(n: u8) -> u32 {
    n as u32 & if T::BITS == 64 { 63 } else { 31 }
}

#[inline(always)]
fn reg<O: Shift, T: Int>(cpu: &mut Cpu, op: &Op, n: u32) -> R<()> {
    let a = cpu.reg::<T>(op.r[0]);
    if n == 0 {
        // A 32-bit destination is still zero-extended.
        cpu.set_reg(op.r[0], a);
        return Ok(());
    }
    let (r, f) = O::calc(cpu.fl, a, n);
    cpu.fl = f;
    cpu.set_reg(op.r[0], r);
    Ok(())
}

#[inline(always)]
fn mem<O: Shift, T: Int>(cpu: &mut Cpu, op: &Op, n: u32) -> R<()> {
    cpu.rmw::<T>(op, |cpu, a| {
        if n == 0 {
            return a;
        }
        let (r, f) = O::calc(cpu.fl, a, n);
        cpu.fl = f;
        r
    })
}

handler! {
    pub fn r_imm<O: Shift, T: Int>(cpu, op) {
        reg::<O, T>(cpu, op, mask::<T>(op.imm8()))
    }
    /// The count is not zero.
    pub fn r_imm_quiet<O: Shift, T: Int>(cpu, op) {
        let (r, _) = O::calc(cpu.fl, cpu.reg::<T>(op.r[0]), mask::<T>(op.imm8()));
        cpu.set_reg(op.r[0], r);
        Ok(())
    }
    pub fn r_cl<O: Shift, T: Int>(cpu, op) {
        let n = cpu.regs[gpr::RCX] as u8;
        reg::<O, T>(cpu, op, mask::<T>(n))
    }
    pub fn m_imm<O: Shift, T: Int>(cpu, op) {
        mem::<O, T>(cpu, op, mask::<T>(op.imm8()))
    }
    pub fn m_cl<O: Shift, T: Int>(cpu, op) {
        let n = cpu.regs[gpr::RCX] as u8;
        mem::<O, T>(cpu, op, mask::<T>(n))
    }
    pub fn shld<T: Int>(cpu, op) {
        double::<T>(cpu, op, true)
    }
    pub fn shrd<T: Int>(cpu, op) {
        double::<T>(cpu, op, false)
    }
}

/// SHLD and SHRD; the count is an immediate unless operand 2 is CL.
fn double<T: Int>(cpu: &mut Cpu, op: &Op, left: bool) -> R<()> {
    let by_cl = op.code().op_code().op2_kind() == iced_x86::OpCodeOperandKind::cl;
    let n = mask::<T>(if by_cl { cpu.regs[gpr::RCX] as u8 } else { op.imm8() });
    let b = cpu.reg::<T>(op.r[1]);
    if op.has(Op::MEM) {
        return cpu.rmw::<T>(op, |cpu, a| if n == 0 { a } else { double_calc(cpu, a, b, n, left) });
    }
    let a = cpu.reg::<T>(op.r[0]);
    let r = if n == 0 { a } else { double_calc(cpu, a, b, n, left) };
    cpu.set_reg(op.r[0], r);
    Ok(())
}

fn double_calc<T: Int>(cpu: &mut Cpu, a: T, b: T, n: u32, left: bool) -> T {
    let w = T::BITS;
    let (av, bv) = (a.to_u64() as u128, b.to_u64() as u128);
    // Counts above the width (16-bit operands only) rotate the pair a:b:a.
    let (r, cf);
    if left {
        if w == 16 {
            let v = av << 32 | bv << 16 | av;
            r = (v << n) >> 32;
            cf = (v << n) >> 48 & 1 != 0;
        } else {
            r = av << n | bv >> (w - n);
            cf = av >> (w - n) & 1 != 0;
        }
    } else if w == 16 {
        let v = av | bv << 16 | av << 32;
        r = v >> n;
        cf = v >> (n - 1) & 1 != 0;
    } else {
        r = av >> n | bv << (w - n);
        cf = av >> (n - 1) & 1 != 0;
    }
    let t = T::from_u64(r as u64);
    let of = msb::<T>(t.to_u64()) != msb::<T>(a.to_u64());
    cpu.fl = Flags::with_cf_of(t.sext(), cf, of);
    t
}

/// MOV reg, reg and a shift of that register by an immediate that is not zero. `QUIET`: without flags.
pub fn mov_then_imm<O: Shift, T: Int, const QUIET: bool>(cpu: &mut Cpu, op: &Op) -> Next {
    let n = super::following(op);
    let (r, f) = O::calc(cpu.fl, cpu.reg::<T>(op.r[1]), mask::<T>(n.imm8()));
    if !QUIET {
        cpu.fl = f;
    }
    cpu.set_reg(op.r[0], r);
    super::next(cpu, n)
}
