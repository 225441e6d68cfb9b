//! Two- and one-operand arithmetic and logic, exchanges.

use super::{Int, Next, Op};
use crate::cpu::Cpu;
use crate::fault::R;
use crate::flags::Flags;
use crate::state::gpr;
use crate::{handler, reads};

/// A two-operand operation.
pub trait Alu: 'static {
    /// Whether the destination is written (not for CMP and TEST).
    const WRITES: bool = true;
    /// Result and flags.
    fn calc<T: Int>(fl: Flags, a: T, b: T) -> (T, Flags);
}

#[inline(always)]
pub fn add_carry<T: Int>(a: T, b: T, c: u64) -> (T, Flags) {
    let (a, b) = (a.to_u64(), b.to_u64());
    let r = T::from_u64(a.wrapping_add(b).wrapping_add(c));
    let z = r.to_u64();
    (r, Flags::carries(r.sext(), (a & b) | ((a | b) & !z), T::BITS))
}

#[inline(always)]
pub fn sub_borrow<T: Int>(a: T, b: T, c: u64) -> (T, Flags) {
    let (a, b) = (a.to_u64(), b.to_u64());
    let r = T::from_u64(a.wrapping_sub(b).wrapping_sub(c));
    let z = r.to_u64();
    (r, Flags::carries(r.sext(), (!a & b) | ((!a | b) & z), T::BITS))
}

macro_rules! alu {
    ($($name:ident $writes:literal |$fl:ident, $a:ident, $b:ident| $e:expr;)*) => {$(
        #[allow(missing_docs)]
        pub struct $name;
        impl Alu for $name {
            const WRITES: bool = $writes;
            #[inline(always)]
            fn calc<T: Int>($fl: Flags, $a: T, $b: T) -> (T, Flags) {
                let _ = $fl;
                $e
            }
        }
    )*};
}

#[inline(always)]
fn logic<T: Int>(v: u64) -> (T, Flags) {
    let r = T::from_u64(v);
    (r, Flags::logic(r.sext()))
}

alu! {
    Add true |fl, a, b| add_carry(a, b, 0);
    Or true |fl, a, b| logic(a.to_u64() | b.to_u64());
    Adc true |fl, a, b| add_carry(a, b, fl.cf() as u64);
    Sbb true |fl, a, b| sub_borrow(a, b, fl.cf() as u64);
    And true |fl, a, b| logic(a.to_u64() & b.to_u64());
    Sub true |fl, a, b| sub_borrow(a, b, 0);
    Xor true |fl, a, b| logic(a.to_u64() ^ b.to_u64());
    Cmp false |fl, a, b| sub_borrow(a, b, 0);
    Test false |fl, a, b| logic(a.to_u64() & b.to_u64());
}

handler! {
    pub fn rr_quiet<O: Alu, T: Int>(cpu, op) {
        let (r, _) = O::calc(cpu.fl, cpu.reg::<T>(op.r[0]), cpu.reg::<T>(op.r[1]));
        cpu.set_reg(op.r[0], r);
        Ok(())
    }
    pub fn ri_quiet<O: Alu, T: Int>(cpu, op) {
        let (r, _) = O::calc(cpu.fl, cpu.reg::<T>(op.r[0]), T::from_u64(op.imm));
        cpu.set_reg(op.r[0], r);
        Ok(())
    }
    pub fn un_r_quiet<O: Unary, T: Int>(cpu, op) {
        let (r, _) = O::calc(cpu.fl, cpu.reg::<T>(op.r[0]));
        cpu.set_reg(op.r[0], r);
        Ok(())
    }
    pub fn rr<O: Alu, T: Int>(cpu, op) {
        let (r, f) = O::calc(cpu.fl, cpu.reg::<T>(op.r[0]), cpu.reg::<T>(op.r[1]));
        cpu.fl = f;
        if O::WRITES {
            cpu.set_reg(op.r[0], r);
        }
        Ok(())
    }
    pub fn ri<O: Alu, T: Int>(cpu, op) {
        let (r, f) = O::calc(cpu.fl, cpu.reg::<T>(op.r[0]), T::from_u64(op.imm));
        cpu.fl = f;
        if O::WRITES {
            cpu.set_reg(op.r[0], r);
        }
        Ok(())
    }
    pub fn mr<O: Alu, T: Int>(cpu, op) {
        let b = cpu.reg::<T>(op.r[1]);
        to_mem::<O, T>(cpu, op, b)
    }
    pub fn mi<O: Alu, T: Int>(cpu, op) {
        to_mem::<O, T>(cpu, op, T::from_u64(op.imm))
    }
    pub fn mr_lock<O: Alu, T: Int>(cpu, op) {
        let b = cpu.reg::<T>(op.r[1]);
        to_mem_lock::<O, T>(cpu, op, b)
    }
    pub fn mi_lock<O: Alu, T: Int>(cpu, op) {
        to_mem_lock::<O, T>(cpu, op, T::from_u64(op.imm))
    }
}

#[inline(always)]
fn to_mem<O: Alu, T: Int>(cpu: &mut Cpu, op: &Op, b: T) -> R<()> {
    if O::WRITES {
        cpu.rmw::<T>(op, |cpu, a| {
            let (r, f) = O::calc(cpu.fl, a, b);
            cpu.fl = f;
            r
        })
    } else {
        let a = cpu.read::<T>(op)?;
        cpu.fl = O::calc(cpu.fl, a, b).1;
        Ok(())
    }
}

#[inline(always)]
fn to_mem_lock<O: Alu, T: Int>(cpu: &mut Cpu, op: &Op, b: T) -> R<()> {
    let fl = cpu.fl;
    let (old, _) = cpu.rmw_lock::<T>(op, |a| O::calc(fl, a, b).0)?;
    cpu.fl = O::calc(fl, old, b).1;
    Ok(())
}

/// A one-operand operation.
pub trait Unary: 'static {
    /// Result and flags.
    fn calc<T: Int>(fl: Flags, a: T) -> (T, Flags);
}
/// INC.
pub struct Inc;
/// DEC.
pub struct Dec;
/// NEG.
pub struct Neg;
/// NOT.
pub struct Not;

fn keep_cf(f: Flags, cf: bool) -> Flags {
    let of = f.of();
    Flags { res: f.res, aux: (f.aux & !(3 << 62)) | (cf as u64) << 63 | ((cf ^ of) as u64) << 62 }
}

impl Unary for Inc {
    #[inline(always)]
    fn calc<T: Int>(fl: Flags, a: T) -> (T, Flags) {
        let (r, f) = add_carry(a, T::from_u64(1), 0);
        (r, keep_cf(f, fl.cf()))
    }
}
impl Unary for Dec {
    #[inline(always)]
    fn calc<T: Int>(fl: Flags, a: T) -> (T, Flags) {
        let (r, f) = sub_borrow(a, T::from_u64(1), 0);
        (r, keep_cf(f, fl.cf()))
    }
}
impl Unary for Neg {
    #[inline(always)]
    fn calc<T: Int>(_: Flags, a: T) -> (T, Flags) {
        sub_borrow(T::from_u64(0), a, 0)
    }
}
impl Unary for Not {
    #[inline(always)]
    fn calc<T: Int>(fl: Flags, a: T) -> (T, Flags) {
        (T::from_u64(!a.to_u64()), fl)
    }
}

handler! {
    pub fn un_r<O: Unary, T: Int>(cpu, op) {
        let (r, f) = O::calc(cpu.fl, cpu.reg::<T>(op.r[0]));
        cpu.fl = f;
        cpu.set_reg(op.r[0], r);
        Ok(())
    }
    pub fn un_m<O: Unary, T: Int>(cpu, op) {
        cpu.rmw::<T>(op, |cpu, a| {
            let (r, f) = O::calc(cpu.fl, a);
            cpu.fl = f;
            r
        })
    }
    pub fn un_m_lock<O: Unary, T: Int>(cpu, op) {
        let fl = cpu.fl;
        let (old, _) = cpu.rmw_lock::<T>(op, |a| O::calc(fl, a).0)?;
        cpu.fl = O::calc(fl, old).1;
        Ok(())
    }
    pub fn xchg_rr<T: Int>(cpu, op) {
        let (a, b) = (cpu.reg::<T>(op.r[0]), cpu.reg::<T>(op.r[1]));
        cpu.set_reg(op.r[0], b);
        cpu.set_reg(op.r[1], a);
        Ok(())
    }
    /// The register is operand 1.
    pub fn xchg_mr<T: Int>(cpu, op) {
        let b = cpu.reg::<T>(op.r[1]);
        let (old, _) = cpu.rmw_lock::<T>(op, |_| b)?;
        cpu.set_reg(op.r[1], old);
        Ok(())
    }
    pub fn xadd_rr<T: Int>(cpu, op) {
        let (a, b) = (cpu.reg::<T>(op.r[0]), cpu.reg::<T>(op.r[1]));
        let (r, f) = add_carry(a, b, 0);
        cpu.fl = f;
        cpu.set_reg(op.r[1], a);
        cpu.set_reg(op.r[0], r);
        Ok(())
    }
    pub fn xadd_mr<T: Int>(cpu, op) {
        let b = cpu.reg::<T>(op.r[1]);
        if op.has(Op::LOCK) {
            let (old, _) = cpu.rmw_lock::<T>(op, |a| add_carry(a, b, 0).0)?;
            cpu.fl = add_carry(old, b, 0).1;
            cpu.set_reg(op.r[1], old);
            return Ok(());
        }
        let mut old = b;
        cpu.rmw::<T>(op, |cpu, a| {
            old = a;
            let (r, f) = add_carry(a, b, 0);
            cpu.fl = f;
            r
        })?;
        cpu.set_reg(op.r[1], old);
        Ok(())
    }
    pub fn cmpxchg_rr<T: Int>(cpu, op) {
        let acc = cpu.reg::<T>(0);
        let (d, s) = (cpu.reg::<T>(op.r[0]), cpu.reg::<T>(op.r[1]));
        cpu.fl = sub_borrow(acc, d, 0).1;
        if acc == d {
            cpu.set_reg(op.r[0], s);
        } else {
            cpu.set_reg(0, d);
        }
        Ok(())
    }
    pub fn cmpxchg_mr<T: Int>(cpu, op) {
        let acc = cpu.reg::<T>(0);
        let s = cpu.reg::<T>(op.r[1]);
        let mut old = acc;
        if op.has(Op::LOCK) {
            old = cpu.rmw_lock::<T>(op, |d| if d == acc { s } else { d })?.0;
        } else {
            cpu.rmw::<T>(op, |_, d| {
                old = d;
                if d == acc { s } else { d }
            })?;
        }
        cpu.fl = sub_borrow(acc, old, 0).1;
        if old != acc {
            cpu.set_reg(0, old);
        }
        Ok(())
    }
    pub fn cmpxchg8b(cpu, op) {
        let old = cpu.reg::<u32>(0) as u64 | (cpu.regs[gpr::RDX] << 32);
        let new = cpu.regs[gpr::RBX] as u32 as u64 | (cpu.regs[gpr::RCX] << 32);
        let (found, _) = cpu.rmw_lock::<u64>(op, |d| if d == old { new } else { d })?;
        let f = (cpu.fl.bits() & !0x40) | ((found == old) as u64) << 6;
        cpu.fl = Flags::from_bits(f);
        if found != old {
            cpu.regs[gpr::RAX] = found as u32 as u64;
            cpu.regs[gpr::RDX] = found >> 32;
        }
        Ok(())
    }
    pub fn cmpxchg16b(cpu, op) {
        let lin = cpu.lin_w(op, 16)?;
        if lin & 15 != 0 {
            return cpu.gp(0);
        }
        let old = cpu.regs[gpr::RAX] as u128 | (cpu.regs[gpr::RDX] as u128) << 64;
        let new = cpu.regs[gpr::RBX] as u128 | (cpu.regs[gpr::RCX] as u128) << 64;
        cpu.probe_w(lin, 16, op.seg)?;
        let found = match cpu.ram_ptr_slow(lin, 16) {
            // SAFETY: the pointer is RAM, 16-byte aligned because the linear address is.
            Some(p) => unsafe { super::int::cas128(p, old, new) },
            None => {
                let found = u128::from_le_bytes(cpu.read_bytes_lin::<16>(lin, op.seg)?);
                cpu.write_bytes_lin::<16>(lin, (if found == old { new } else { found }).to_le_bytes(), op.seg)?;
                found
            }
        };
        let f = (cpu.fl.bits() & !0x40) | ((found == old) as u64) << 6;
        cpu.fl = Flags::from_bits(f);
        if found != old {
            cpu.regs[gpr::RAX] = found as u64;
            cpu.regs[gpr::RDX] = (found >> 64) as u64;
        }
        Ok(())
    }
}

reads! {
    pub fn rm / rm_slow<O: Alu, T: Int>(cpu, op, b: T) {
        let (r, f) = O::calc(cpu.fl, cpu.reg::<T>(op.r[0]), b);
        cpu.fl = f;
        if O::WRITES {
            cpu.set_reg(op.r[0], r);
        }
    }
}

/// MOV reg, reg and an operation of that register with another one. `QUIET`: without flags.
pub fn mov_then_rr<O: Alu, T: Int, const QUIET: bool>(cpu: &mut Cpu, op: &Op) -> Next {
    let n = super::following(op);
    let (r, f) = O::calc(cpu.fl, cpu.reg::<T>(op.r[1]), cpu.reg::<T>(n.r[1]));
    if !QUIET {
        cpu.fl = f;
    }
    cpu.set_reg(op.r[0], r);
    super::next(cpu, n)
}

/// MOV reg, reg and an operation of that register with an immediate.
pub fn mov_then_ri<O: Alu, T: Int, const QUIET: bool>(cpu: &mut Cpu, op: &Op) -> Next {
    let n = super::following(op);
    let (r, f) = O::calc(cpu.fl, cpu.reg::<T>(op.r[1]), T::from_u64(n.imm));
    if !QUIET {
        cpu.fl = f;
    }
    cpu.set_reg(op.r[0], r);
    super::next(cpu, n)
}

#[inline(always)]
fn to_mem_fast<O: Alu, T: Int>(cpu: &mut Cpu, op: &Op, b: T, slow: super::Handler) -> Next {
    let lin = cpu.ea_raw(op);
    let p = if O::WRITES { cpu.host_w(lin, T::BYTES) } else { cpu.host_r(lin, T::BYTES) };
    let Some(p) = p else {
        return slow(cpu, op);
    };
    // SAFETY: the TLB entry vouches for the page.
    let (r, f) = O::calc(cpu.fl, unsafe { super::mem::load::<T>(p) }, b);
    cpu.fl = f;
    if O::WRITES {
        // SAFETY: as above.
        unsafe { super::mem::store(p, r) };
    }
    super::next(cpu, op)
}

/// `op mem, reg` with a plain address.
pub fn mr_fast<O: Alu, T: Int>(cpu: &mut Cpu, op: &Op) -> Next {
    let b = cpu.reg::<T>(op.r[1]);
    to_mem_fast::<O, T>(cpu, op, b, mr::<O, T>)
}

/// `op mem, imm` with a plain address.
pub fn mi_fast<O: Alu, T: Int>(cpu: &mut Cpu, op: &Op) -> Next {
    to_mem_fast::<O, T>(cpu, op, T::from_u64(op.imm), mi::<O, T>)
}
