//! String instructions. Repeated ones work in bulk, a page at a time.

use super::mem::{load, store};
use super::{fail, finish, Int, Next, Op};
use crate::cpu::Cpu;
use crate::fault::R;
use crate::state::{gpr, rflags, sreg};

const ES: u8 = sreg::ES as u8;

impl Cpu {
    #[inline(always)]
    fn addr_mask(op: &Op) -> u64 {
        if op.has(Op::A16) {
            0xffff
        } else if op.has(Op::A32) {
            0xffff_ffff
        } else {
            u64::MAX
        }
    }

    /// Adds to rSI or rDI in the address size.
    #[inline(always)]
    fn advance(&mut self, reg: usize, mask: u64, delta: i64) {
        let old = self.regs[reg];
        let v = old.wrapping_add(delta as u64);
        self.regs[reg] = if mask == 0xffff { old & !mask | v & mask } else { v & mask };
    }

    #[inline(always)]
    fn src_lin<T: Int>(&mut self, op: &Op, mask: u64) -> R<u64> {
        let off = self.regs[gpr::RSI] & mask;
        self.seg_lin(op.seg as usize, off, T::BYTES, false)
    }

    #[inline(always)]
    fn dst_lin<T: Int>(&mut self, mask: u64, write: bool) -> R<u64> {
        let off = self.regs[gpr::RDI] & mask;
        self.seg_lin(sreg::ES, off, T::BYTES, write)
    }

    /// How many elements may be processed in bulk going up from `off` in segment `seg`: bounded so that no wrap of the
    /// address size and no limit violation happens inside. Zero: go element by element.
    fn bulk_room<T: Int>(&self, seg: usize, off: u64, mask: u64, write: bool) -> u64 {
        let size = T::BYTES as u64;
        let mut end = mask;
        if !self.long_code {
            let s = &self.segs[seg];
            let ok = if write { s.writable() } else { s.readable() };
            if s.expand_down() || (self.protected() && !self.vm86() && !(ok && s.present())) {
                return 0;
            }
            end = end.min(s.limit as u64);
            // Linear addresses wrap at 4 GiB.
            end = end.min(0xffff_ffff_u64.saturating_sub(s.base).max(off));
        }
        if off > end {
            return 0;
        }
        ((end - off) / size).saturating_add(((end - off) % size == size - 1) as u64)
    }
}

/// One string instruction: how one element is processed, and optionally many.
pub trait StrOp: 'static {
    /// Compares: REPE/REPNE look at ZF.
    const COMPARES: bool = false;
    /// Uses rSI and/or rDI.
    const SI: bool;
    /// Uses rDI.
    const DI: bool;
    /// One element; pointers are advanced by the caller.
    fn one<T: Int>(cpu: &mut Cpu, op: &Op, mask: u64) -> R<()>;
    /// Up to `n` elements going up, within a page; how many were done (0: use `one`).
    fn bulk<T: Int>(_cpu: &mut Cpu, _op: &Op, _mask: u64, _n: u64) -> R<u64> {
        Ok(0)
    }
}

/// MOVS.
pub struct Movs;
/// STOS.
pub struct Stos;
/// LODS.
pub struct Lods;
/// CMPS.
pub struct Cmps;
/// SCAS.
pub struct Scas;
/// INS.
pub struct Ins;
/// OUTS.
pub struct Outs;

impl StrOp for Movs {
    const SI: bool = true;
    const DI: bool = true;
    #[inline(always)]
    fn one<T: Int>(cpu: &mut Cpu, op: &Op, mask: u64) -> R<()> {
        let s = cpu.src_lin::<T>(op, mask)?;
        let d = cpu.dst_lin::<T>(mask, true)?;
        let v = cpu.read_lin::<T>(s, op.seg)?;
        cpu.write_lin(d, v, ES)
    }
    fn bulk<T: Int>(cpu: &mut Cpu, op: &Op, mask: u64, n: u64) -> R<u64> {
        let (so, dof) = (cpu.regs[gpr::RSI] & mask, cpu.regs[gpr::RDI] & mask);
        let n = n.min(cpu.bulk_room::<T>(op.seg as usize, so, mask, false)).min(cpu.bulk_room::<T>(
            sreg::ES,
            dof,
            mask,
            true,
        ));
        if n == 0 {
            return Ok(0);
        }
        let (s, d) = (cpu.src_lin::<T>(op, mask)?, cpu.dst_lin::<T>(mask, true)?);
        let want = (n as usize).saturating_mul(T::BYTES);
        let Some((sp, sn)) = cpu.bulk_r(s, want, op.seg)? else {
            return Ok(0);
        };
        let Some((dp, dn)) = cpu.bulk_w(d, sn, ES)? else {
            return Ok(0);
        };
        let bytes = dn.min(sn) / T::BYTES * T::BYTES;
        // Forward copies that overlap closely repeat a pattern: element order matters.
        let gap = (dp as usize).wrapping_sub(sp as usize);
        if gap < bytes {
            if gap < T::BYTES {
                return Ok(0);
            }
            let mut at = 0;
            while at < bytes {
                // SAFETY: both ranges were vouched for by `bulk_r` and `bulk_w`.
                unsafe { store(dp.add(at), load::<T>(sp.add(at))) };
                at += T::BYTES;
            }
        } else {
            // SAFETY: as above.
            unsafe { std::ptr::copy(sp, dp, bytes) };
        }
        Ok((bytes / T::BYTES) as u64)
    }
}

impl StrOp for Stos {
    const SI: bool = false;
    const DI: bool = true;
    #[inline(always)]
    fn one<T: Int>(cpu: &mut Cpu, _op: &Op, mask: u64) -> R<()> {
        let d = cpu.dst_lin::<T>(mask, true)?;
        let v = cpu.reg::<T>(0);
        cpu.write_lin(d, v, ES)
    }
    fn bulk<T: Int>(cpu: &mut Cpu, _op: &Op, mask: u64, n: u64) -> R<u64> {
        let off = cpu.regs[gpr::RDI] & mask;
        let n = n.min(cpu.bulk_room::<T>(sreg::ES, off, mask, true));
        if n == 0 {
            return Ok(0);
        }
        let d = cpu.dst_lin::<T>(mask, true)?;
        let Some((dp, dn)) = cpu.bulk_w(d, (n as usize).saturating_mul(T::BYTES), ES)? else {
            return Ok(0);
        };
        let count = dn / T::BYTES;
        let v = cpu.reg::<T>(0);
        if v.to_u64() == 0 || T::BYTES == 1 {
            // SAFETY: `bulk_w` vouches for the range.
            unsafe { std::ptr::write_bytes(dp, v.to_u64() as u8, count * T::BYTES) };
        } else {
            for i in 0..count {
                // SAFETY: as above.
                unsafe { store(dp.add(i * T::BYTES), v) };
            }
        }
        Ok(count as u64)
    }
}

impl StrOp for Lods {
    const SI: bool = true;
    const DI: bool = false;
    #[inline(always)]
    fn one<T: Int>(cpu: &mut Cpu, op: &Op, mask: u64) -> R<()> {
        let s = cpu.src_lin::<T>(op, mask)?;
        let v = cpu.read_lin::<T>(s, op.seg)?;
        cpu.set_reg(0, v);
        Ok(())
    }
}

impl StrOp for Cmps {
    const COMPARES: bool = true;
    const SI: bool = true;
    const DI: bool = true;
    #[inline(always)]
    fn one<T: Int>(cpu: &mut Cpu, op: &Op, mask: u64) -> R<()> {
        let s = cpu.src_lin::<T>(op, mask)?;
        let d = cpu.dst_lin::<T>(mask, false)?;
        let a = cpu.read_lin::<T>(s, op.seg)?;
        let b = cpu.read_lin::<T>(d, ES)?;
        cpu.fl = super::alu::sub_borrow(a, b, 0).1;
        Ok(())
    }
}

impl StrOp for Scas {
    const COMPARES: bool = true;
    const SI: bool = false;
    const DI: bool = true;
    #[inline(always)]
    fn one<T: Int>(cpu: &mut Cpu, _op: &Op, mask: u64) -> R<()> {
        let d = cpu.dst_lin::<T>(mask, false)?;
        let b = cpu.read_lin::<T>(d, ES)?;
        cpu.fl = super::alu::sub_borrow(cpu.reg::<T>(0), b, 0).1;
        Ok(())
    }
}

impl StrOp for Ins {
    const SI: bool = false;
    const DI: bool = true;
    fn one<T: Int>(cpu: &mut Cpu, _op: &Op, mask: u64) -> R<()> {
        let port = cpu.regs[gpr::RDX] as u16;
        cpu.check_io(port, T::BYTES as u8)?;
        let d = cpu.dst_lin::<T>(mask, true)?;
        cpu.probe_w(d, T::BYTES, ES)?;
        let v = cpu.bus().port_in(port, T::BYTES as u8);
        cpu.write_lin(d, T::from_u64(v as u64), ES)
    }
}

impl StrOp for Outs {
    const SI: bool = true;
    const DI: bool = false;
    fn one<T: Int>(cpu: &mut Cpu, op: &Op, mask: u64) -> R<()> {
        let port = cpu.regs[gpr::RDX] as u16;
        cpu.check_io(port, T::BYTES as u8)?;
        let s = cpu.src_lin::<T>(op, mask)?;
        let v = cpu.read_lin::<T>(s, op.seg)?;
        cpu.bus().port_out(port, T::BYTES as u8, v.to_u64() as u32);
        Ok(())
    }
}

#[inline(always)]
fn step_pointers<O: StrOp, T: Int>(cpu: &mut Cpu, mask: u64, n: u64) {
    let size = T::BYTES as i64 * n as i64;
    let delta = if cpu.rf & rflags::DF != 0 { -size } else { size };
    if O::SI {
        cpu.advance(gpr::RSI, mask, delta);
    }
    if O::DI {
        cpu.advance(gpr::RDI, mask, delta);
    }
}

/// Without a repeat prefix.
pub fn single<O: StrOp, T: Int>(cpu: &mut Cpu, op: &Op) -> Next {
    let mask = Cpu::addr_mask(op);
    let r = O::one::<T>(cpu, op, mask);
    if r.is_ok() {
        step_pointers::<O, T>(cpu, mask, 1);
    }
    finish(cpu, op, r)
}

/// With REP, REPE or REPNE. Ends the block, so that a long run can be interrupted.
pub fn repeated<O: StrOp, T: Int>(cpu: &mut Cpu, op: &Op) -> Next {
    let mask = Cpu::addr_mask(op);
    let mut budget = 1u32 << 16;
    loop {
        let count = cpu.regs[gpr::RCX] & mask;
        if count == 0 {
            break;
        }
        let mut done = 0;
        // Single step traps after each element.
        if !O::COMPARES && cpu.rf & (rflags::DF | rflags::TF) == 0 && count > 1 {
            match O::bulk::<T>(cpu, op, mask, count) {
                Ok(n) => done = n,
                Err(_) => return fail(cpu, op),
            }
        }
        if done == 0 {
            if O::one::<T>(cpu, op, mask).is_err() {
                return fail(cpu, op);
            }
            done = 1;
        }
        step_pointers::<O, T>(cpu, mask, done);
        cpu.set_count(mask, count - done);
        if O::COMPARES {
            let stop = if op.has(Op::REPNE) { cpu.fl.zf() } else { !cpu.fl.zf() };
            if stop {
                break;
            }
        }
        budget = budget.saturating_sub(1 + (done / 8) as u32);
        if budget == 0 || cpu.ctl.any() || cpu.stepping {
            if cpu.regs[gpr::RCX] & mask == 0 {
                break;
            }
            // Interrupted between elements: RIP stays on the instruction.
            cpu.rip = cpu.op_rip(op);
            return Next::Recheck;
        }
    }
    cpu.rip = cpu.op_next_rip(op);
    super::chain(cpu, 1)
}
