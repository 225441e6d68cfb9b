//! Moves, conversions, LEA, conditional moves and sets.

use super::{Int, Next, Op};
use crate::cpu::Cpu;
use crate::flags::Flags;
use crate::state::{gpr, rflags};
use crate::{handler, reads};

/// A condition code as a type.
pub trait Cond: 'static {
    /// 0..=15.
    const CC: u8;
}
macro_rules! conds {
    ($($n:ident $v:literal),*) => {$(
        #[allow(missing_docs)]
        pub struct $n;
        impl Cond for $n {
            const CC: u8 = $v;
        }
    )*};
}
conds!(C0 0, C1 1, C2 2, C3 3, C4 4, C5 5, C6 6, C7 7, C8 8, C9 9, C10 10, C11 11, C12 12, C13 13, C14 14, C15 15);

handler! {
    pub fn rr<T: Int>(cpu, op) {
        let v = cpu.reg::<T>(op.r[1]);
        cpu.set_reg(op.r[0], v);
        Ok(())
    }
    pub fn ri<T: Int>(cpu, op) {
        cpu.set_reg(op.r[0], T::from_u64(op.imm));
        Ok(())
    }
    pub fn mr<T: Int>(cpu, op) {
        let v = cpu.reg::<T>(op.r[1]);
        cpu.write(op, v)
    }
    pub fn mi<T: Int>(cpu, op) {
        cpu.write(op, T::from_u64(op.imm))
    }
    pub fn movzx_r<D: Int, S: Int>(cpu, op) {
        let v = cpu.reg::<S>(op.r[1]).to_u64();
        cpu.set_reg(op.r[0], D::from_u64(v));
        Ok(())
    }
    pub fn movsx_r<D: Int, S: Int>(cpu, op) {
        let v = cpu.reg::<S>(op.r[1]).sext();
        cpu.set_reg(op.r[0], D::from_u64(v));
        Ok(())
    }
    pub fn lea<T: Int>(cpu, op) {
        let v = cpu.ea(op);
        cpu.set_reg(op.r[0], T::from_u64(v));
        Ok(())
    }
    pub fn cmov_r<C: Cond, T: Int>(cpu, op) {
        let v = if cpu.fl.cond(C::CC) { cpu.reg::<T>(op.r[1]) } else { cpu.reg::<T>(op.r[0]) };
        cpu.set_reg(op.r[0], v);
        Ok(())
    }
    pub fn set_r<C: Cond>(cpu, op) {
        let v = cpu.fl.cond(C::CC) as u8;
        cpu.set_reg(op.r[0], v);
        Ok(())
    }
    pub fn set_m<C: Cond>(cpu, op) {
        let v = cpu.fl.cond(C::CC) as u8;
        cpu.write(op, v)
    }
    pub fn bswap16(cpu, op) {
        // Undefined by the manuals; processors clear the register.
        cpu.set_reg(op.r[0], 0u16);
        Ok(())
    }
    pub fn bswap32(cpu, op) {
        let v = cpu.reg::<u32>(op.r[0]).swap_bytes();
        cpu.set_reg(op.r[0], v);
        Ok(())
    }
    pub fn bswap64(cpu, op) {
        let v = cpu.reg::<u64>(op.r[0]).swap_bytes();
        cpu.set_reg(op.r[0], v);
        Ok(())
    }
    pub fn movbe_rm<T: Int>(cpu, op) {
        let v = cpu.read::<T>(op)?.to_u64().swap_bytes() >> (64 - T::BITS);
        cpu.set_reg(op.r[0], T::from_u64(v));
        Ok(())
    }
    pub fn movbe_mr<T: Int>(cpu, op) {
        let v = cpu.reg::<T>(op.r[1]).to_u64().swap_bytes() >> (64 - T::BITS);
        cpu.write(op, T::from_u64(v))
    }
    pub fn xlat(cpu, op) {
        let mut o = *op;
        // [rBX + AL]: AL is added here because index registers are read whole.
        o.index = gpr::ZERO as u8 * 8;
        o.disp = cpu.reg::<u8>(0) as u64;
        let v = cpu.read::<u8>(&o)?;
        cpu.set_reg(0, v);
        Ok(())
    }
    pub fn cbw(cpu, _op) {
        let v = cpu.reg::<u8>(0).sext() as u16;
        cpu.set_reg(0, v);
        Ok(())
    }
    pub fn cwde(cpu, _op) {
        let v = cpu.reg::<u16>(0).sext() as u32;
        cpu.set_reg(0, v);
        Ok(())
    }
    pub fn cdqe(cpu, _op) {
        let v = cpu.reg::<u32>(0).sext();
        cpu.set_reg(0, v);
        Ok(())
    }
    pub fn cwd<T: Int>(cpu, _op) {
        let s = (cpu.reg::<T>(0).sext() as i64 >> 63) as u64;
        cpu.set_reg(gpr::RDX as u8 * 8, T::from_u64(s));
        Ok(())
    }
    pub fn lahf(cpu, _op) {
        let v = cpu.rflags() as u8;
        cpu.set_reg(1, v);
        Ok(())
    }
    pub fn sahf(cpu, _op) {
        let ah = cpu.reg::<u8>(1) as u64;
        let of = cpu.fl.bits() & rflags::OF;
        cpu.fl = Flags::from_bits(ah & 0xd5 | of);
        Ok(())
    }
    pub fn cmc(cpu, _op) {
        let c = cpu.fl.cf();
        cpu.fl.set_cf(!c);
        Ok(())
    }
    pub fn clc(cpu, _op) {
        cpu.fl.set_cf(false);
        Ok(())
    }
    pub fn stc(cpu, _op) {
        cpu.fl.set_cf(true);
        Ok(())
    }
    pub fn cld(cpu, _op) {
        cpu.rf &= !rflags::DF;
        Ok(())
    }
    pub fn std(cpu, _op) {
        cpu.rf |= rflags::DF;
        Ok(())
    }
    pub fn salc(cpu, _op) {
        let v = if cpu.fl.cf() { 0xffu8 } else { 0 };
        cpu.set_reg(0, v);
        Ok(())
    }
    /// CLFLUSH and its kin: only the access rights matter.
    pub fn touch(cpu, op) {
        cpu.read::<u8>(op).map(|_| ())
    }
    pub fn nop(_cpu, _op) {
        Ok(())
    }
}

reads! {
    pub fn rm / rm_slow<T: Int>(cpu, op, v: T) {
        cpu.set_reg(op.r[0], v);
    }
    pub fn movzx_m / movzx_m_slow<D: Int, S: Int>(cpu, op, v: S) {
        cpu.set_reg(op.r[0], D::from_u64(v.to_u64()));
    }
    pub fn movsx_m / movsx_m_slow<D: Int, S: Int>(cpu, op, v: S) {
        cpu.set_reg(op.r[0], D::from_u64(v.sext()));
    }
    pub fn cmov_m / cmov_m_slow<C: Cond, T: Int>(cpu, op, m: T) {
        let v = if cpu.fl.cond(C::CC) { m } else { cpu.reg::<T>(op.r[0]) };
        cpu.set_reg(op.r[0], v);
    }
}

#[inline(always)]
fn write_fast<T: Int>(cpu: &mut Cpu, op: &Op, v: T, slow: super::Handler) -> Next {
    let lin = cpu.ea_raw(op);
    let Some(p) = cpu.host_w(lin, T::BYTES) else {
        return slow(cpu, op);
    };
    // SAFETY: the TLB entry vouches for the page.
    unsafe { super::mem::store(p, v) };
    super::next(cpu, op)
}

/// MOV mem, reg with a plain address.
pub fn mr_fast<T: Int>(cpu: &mut Cpu, op: &Op) -> Next {
    let v = cpu.reg::<T>(op.r[1]);
    write_fast::<T>(cpu, op, v, mr::<T>)
}

/// MOV mem, imm with a plain address.
pub fn mi_fast<T: Int>(cpu: &mut Cpu, op: &Op) -> Next {
    write_fast::<T>(cpu, op, T::from_u64(op.imm), mi::<T>)
}

/// LEA with 64-bit addresses.
pub fn lea_plain<T: Int>(cpu: &mut Cpu, op: &Op) -> Next {
    let v = cpu.ea_raw(op);
    cpu.set_reg(op.r[0], T::from_u64(v));
    super::next(cpu, op)
}
