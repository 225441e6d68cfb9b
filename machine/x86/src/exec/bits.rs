//! Bit tests and scans, BMI, ADX, POPCNT, CRC32, RDRAND.

use super::{Int, Op};
use crate::cpu::Cpu;
use crate::fault::R;
use crate::flags::Flags;
use crate::handler;
use crate::state::rflags::{CF, OF, ZF};

/// What a bit-test instruction does to the bit.
pub trait BitOp: 'static {
    /// Whether the operand is written.
    const WRITES: bool = true;
    /// New value of the operand; `m` has the bit.
    fn apply(v: u64, m: u64) -> u64;
}
macro_rules! bitops {
    ($($n:ident $w:literal |$v:ident, $m:ident| $e:expr;)*) => {$(
        #[allow(missing_docs)]
        pub struct $n;
        impl BitOp for $n {
            const WRITES: bool = $w;
            #[inline(always)]
            fn apply($v: u64, $m: u64) -> u64 {
                $e
            }
        }
    )*};
}
bitops! {
    Bt false |v, _m| v;
    Bts true |v, m| v | m;
    Btr true |v, m| v & !m;
    Btc true |v, m| v ^ m;
}

fn bit_in_mem<O: BitOp, T: Int>(cpu: &mut Cpu, op: &Op, bit: u64) -> R<()> {
    let m = 1u64 << (bit & (T::BITS as u64 - 1));
    let old = if !O::WRITES {
        cpu.read::<T>(op)?
    } else if op.has(Op::LOCK) {
        cpu.rmw_lock::<T>(op, |v| T::from_u64(O::apply(v.to_u64(), m)))?.0
    } else {
        let mut old = T::from_u64(0);
        cpu.rmw::<T>(op, |_, v| {
            old = v;
            T::from_u64(O::apply(v.to_u64(), m))
        })?;
        old
    };
    cpu.fl.set_cf(old.to_u64() & m != 0);
    Ok(())
}

fn bit_in_reg<O: BitOp, T: Int>(cpu: &mut Cpu, op: &Op, bit: u64) {
    let m = 1u64 << (bit & (T::BITS as u64 - 1));
    let v = cpu.reg::<T>(op.r[0]).to_u64();
    cpu.fl.set_cf(v & m != 0);
    if O::WRITES {
        cpu.set_reg(op.r[0], T::from_u64(O::apply(v, m)));
    }
}

fn rm<T: Int>(cpu: &mut Cpu, op: &Op, i: usize) -> R<T> {
    if op.has(Op::MEM) {
        cpu.read::<T>(op)
    } else {
        Ok(cpu.reg::<T>(op.r[i]))
    }
}

fn set_bits(cpu: &mut Cpu, clear: u64, set: u64) {
    cpu.fl = Flags::from_bits(cpu.fl.bits() & !clear | set);
}

handler! {
    pub fn bt_r<O: BitOp, T: Int>(cpu, op) {
        let bit = cpu.reg::<T>(op.r[1]).to_u64();
        if !op.has(Op::MEM) {
            bit_in_reg::<O, T>(cpu, op, bit);
            return Ok(());
        }
        // The bit offset is signed and selects the word.
        let words = (cpu.reg::<T>(op.r[1]).sext() as i64) >> T::BITS.trailing_zeros();
        let mut o = *op;
        o.disp = op.disp.wrapping_add((words * T::BYTES as i64) as u64);
        bit_in_mem::<O, T>(cpu, &o, bit)
    }
    pub fn bt_i<O: BitOp, T: Int>(cpu, op) {
        if op.has(Op::MEM) {
            return bit_in_mem::<O, T>(cpu, op, op.imm);
        }
        bit_in_reg::<O, T>(cpu, op, op.imm);
        Ok(())
    }
    pub fn bsf<T: Int>(cpu, op) {
        let v = rm::<T>(cpu, op, 1)?.to_u64();
        // With a zero source the destination keeps its value (and a 32-bit one its upper half, as AMD documents).
        if v != 0 {
            cpu.set_reg(op.r[0], T::from_u64(v.trailing_zeros() as u64));
        }
        cpu.fl = Flags::logic((v != 0) as u64);
        Ok(())
    }
    pub fn bsr<T: Int>(cpu, op) {
        let v = rm::<T>(cpu, op, 1)?.to_u64();
        if v != 0 {
            cpu.set_reg(op.r[0], T::from_u64(63 - v.leading_zeros() as u64));
        }
        cpu.fl = Flags::logic((v != 0) as u64);
        Ok(())
    }
    pub fn tzcnt<T: Int>(cpu, op) {
        let v = rm::<T>(cpu, op, 1)?.to_u64();
        let n = v.trailing_zeros().min(T::BITS) as u64;
        cpu.set_reg(op.r[0], T::from_u64(n));
        cpu.fl = Flags::from_bits(if v == 0 { CF } else { 0 } | if n == 0 { ZF } else { 0 });
        Ok(())
    }
    pub fn lzcnt<T: Int>(cpu, op) {
        let v = rm::<T>(cpu, op, 1)?.to_u64();
        let n = (v.leading_zeros() - (64 - T::BITS)) as u64;
        cpu.set_reg(op.r[0], T::from_u64(n));
        cpu.fl = Flags::from_bits(if v == 0 { CF } else { 0 } | if n == 0 { ZF } else { 0 });
        Ok(())
    }
    pub fn popcnt<T: Int>(cpu, op) {
        let v = rm::<T>(cpu, op, 1)?.to_u64();
        cpu.set_reg(op.r[0], T::from_u64(v.count_ones() as u64));
        cpu.fl = Flags::from_bits(if v == 0 { ZF } else { 0 });
        Ok(())
    }
    pub fn andn<T: Int>(cpu, op) {
        let b = rm::<T>(cpu, op, 2)?.to_u64();
        let r = T::from_u64(!cpu.reg::<T>(op.r[1]).to_u64() & b);
        cpu.set_reg(op.r[0], r);
        cpu.fl = Flags::logic(r.sext());
        Ok(())
    }
    pub fn bextr<T: Int>(cpu, op) {
        let v = rm::<T>(cpu, op, 1)?.to_u64();
        let c = cpu.reg::<T>(op.r[2]).to_u64();
        let (start, len) = (c as u8 as u32, (c >> 8) as u8 as u32);
        let s = if start < 64 { v >> start } else { 0 };
        let r = if len < 64 { s & ((1 << len) - 1) } else { s };
        let r = T::from_u64(r);
        cpu.set_reg(op.r[0], r);
        cpu.fl = Flags::logic(r.sext());
        Ok(())
    }
    pub fn blsi<T: Int>(cpu, op) {
        let v = rm::<T>(cpu, op, 1)?.to_u64();
        let r = T::from_u64(v & v.wrapping_neg());
        cpu.set_reg(op.r[0], r);
        cpu.fl = Flags::with_cf_of(r.sext(), v != 0, false);
        Ok(())
    }
    pub fn blsmsk<T: Int>(cpu, op) {
        let v = rm::<T>(cpu, op, 1)?.to_u64();
        let r = T::from_u64(v ^ v.wrapping_sub(1));
        cpu.set_reg(op.r[0], r);
        cpu.fl = Flags::with_cf_of(r.sext(), v == 0, false);
        Ok(())
    }
    pub fn blsr<T: Int>(cpu, op) {
        let v = rm::<T>(cpu, op, 1)?.to_u64();
        let r = T::from_u64(v & v.wrapping_sub(1));
        cpu.set_reg(op.r[0], r);
        cpu.fl = Flags::with_cf_of(r.sext(), v == 0, false);
        Ok(())
    }
    pub fn bzhi<T: Int>(cpu, op) {
        let v = rm::<T>(cpu, op, 1)?.to_u64();
        let n = cpu.reg::<u64>(op.r[2]) as u8 as u32;
        let r = T::from_u64(if n < T::BITS { v & ((1 << n) - 1) } else { v });
        cpu.set_reg(op.r[0], r);
        cpu.fl = Flags::with_cf_of(r.sext(), n >= T::BITS, false);
        Ok(())
    }
    pub fn pdep<T: Int>(cpu, op) {
        let mut mask = rm::<T>(cpu, op, 2)?.to_u64();
        let mut v = cpu.reg::<T>(op.r[1]).to_u64();
        let mut r = 0;
        while mask != 0 {
            let low = mask & mask.wrapping_neg();
            if v & 1 != 0 {
                r |= low;
            }
            v >>= 1;
            mask &= mask - 1;
        }
        cpu.set_reg(op.r[0], T::from_u64(r));
        Ok(())
    }
    pub fn pext<T: Int>(cpu, op) {
        let mut mask = rm::<T>(cpu, op, 2)?.to_u64();
        let v = cpu.reg::<T>(op.r[1]).to_u64();
        let (mut r, mut at) = (0u64, 0);
        while mask != 0 {
            let low = mask & mask.wrapping_neg();
            r |= ((v & low != 0) as u64) << at;
            at += 1;
            mask &= mask - 1;
        }
        cpu.set_reg(op.r[0], T::from_u64(r));
        Ok(())
    }
    pub fn rorx<T: Int>(cpu, op) {
        let v = rm::<T>(cpu, op, 1)?.to_u64();
        let n = op.imm8() as u32 & (T::BITS - 1);
        let r = if n == 0 { v } else { v >> n | v << (T::BITS - n) };
        cpu.set_reg(op.r[0], T::from_u64(r));
        Ok(())
    }
    pub fn sarx<T: Int>(cpu, op) {
        let v = rm::<T>(cpu, op, 1)?.sext() as i64;
        let n = cpu.reg::<u64>(op.r[2]) as u32 & (T::BITS - 1);
        cpu.set_reg(op.r[0], T::from_u64((v >> n) as u64));
        Ok(())
    }
    pub fn shlx<T: Int>(cpu, op) {
        let v = rm::<T>(cpu, op, 1)?.to_u64();
        let n = cpu.reg::<u64>(op.r[2]) as u32 & (T::BITS - 1);
        cpu.set_reg(op.r[0], T::from_u64(v << n));
        Ok(())
    }
    pub fn shrx<T: Int>(cpu, op) {
        let v = rm::<T>(cpu, op, 1)?.to_u64();
        let n = cpu.reg::<u64>(op.r[2]) as u32 & (T::BITS - 1);
        cpu.set_reg(op.r[0], T::from_u64(v >> n));
        Ok(())
    }
    pub fn adcx<T: Int>(cpu, op) {
        let b = rm::<T>(cpu, op, 1)?.to_u64() as u128;
        let s = cpu.reg::<T>(op.r[0]).to_u64() as u128 + b + cpu.fl.cf() as u128;
        cpu.set_reg(op.r[0], T::from_u64(s as u64));
        set_bits(cpu, CF, (s >> T::BITS) as u64 & 1);
        Ok(())
    }
    pub fn adox<T: Int>(cpu, op) {
        let b = rm::<T>(cpu, op, 1)?.to_u64() as u128;
        let s = cpu.reg::<T>(op.r[0]).to_u64() as u128 + b + cpu.fl.of() as u128;
        cpu.set_reg(op.r[0], T::from_u64(s as u64));
        set_bits(cpu, OF, ((s >> T::BITS) as u64 & 1) << 11);
        Ok(())
    }
    /// Source size T; the destination is 32 or 64 bits, zero-extended either way.
    pub fn crc32<T: Int>(cpu, op) {
        let v = rm::<T>(cpu, op, 1)?.to_u64();
        let mut crc = cpu.reg::<u32>(op.r[0]);
        for i in 0..T::BYTES {
            crc ^= (v >> (8 * i)) as u8 as u32;
            for _ in 0..8 {
                crc = crc >> 1 ^ if crc & 1 != 0 { 0x82f6_3b78 } else { 0 };
            }
        }
        cpu.set_reg(op.r[0], crc);
        Ok(())
    }
    pub fn rdrand<T: Int>(cpu, op) {
        let v = random();
        cpu.set_reg(op.r[0], T::from_u64(v));
        cpu.fl = Flags::from_bits(CF);
        Ok(())
    }
}

/// Random bits from the standard library's seeded hasher and the clock: good enough to seed a guest that mixes its own
/// entropy; not certified.
fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    let mut h = std::collections::hash_map::RandomState::new().build_hasher();
    h.write_u128(
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_nanos()),
    );
    h.finish()
}
