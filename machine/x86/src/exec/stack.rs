//! Stack instructions and the stack primitives.

use super::{next, Int, Next, Op};
use crate::cpu::Cpu;
use crate::fault::{Exception, R};
use crate::state::{gpr, rflags, sreg};
use crate::{handler, handler_recheck};

const SS: u8 = sreg::SS as u8;

impl Cpu {
    /// Mask of the stack pointer for `op`'s stack width.
    #[inline(always)]
    fn sp_mask_op(op: &Op) -> u64 {
        if op.has(Op::SP64) {
            u64::MAX
        } else if op.has(Op::SP32) {
            0xffff_ffff
        } else {
            0xffff
        }
    }

    /// Mask of the stack pointer in the current mode.
    pub(crate) fn sp_mask(&self) -> u64 {
        if self.long_code {
            u64::MAX
        } else if self.segs[sreg::SS].db() {
            0xffff_ffff
        } else {
            0xffff
        }
    }

    /// Replaces the stack pointer under a mask.
    #[inline(always)]
    pub(crate) fn set_sp(&mut self, mask: u64, sp: u64) {
        let old = self.regs[gpr::RSP];
        self.regs[gpr::RSP] = if mask == 0xffff { old & !mask | sp & mask } else { sp & mask };
    }

    /// Adds to the stack pointer.
    #[inline(always)]
    pub(crate) fn add_sp(&mut self, op: &Op, n: u64) {
        let sp = self.regs[gpr::RSP].wrapping_add(n);
        self.set_sp(Self::sp_mask_op(op), sp);
    }

    /// Pushes `v`.
    #[inline(always)]
    pub(crate) fn push<T: Int>(&mut self, op: &Op, v: T) -> R<()> {
        if op.has(Op::SP64) {
            let sp = self.regs[gpr::RSP].wrapping_sub(T::BYTES as u64);
            self.write_lin(sp, v, SS)?;
            self.regs[gpr::RSP] = sp;
            return Ok(());
        }
        let mask = Self::sp_mask_op(op);
        let sp = self.regs[gpr::RSP].wrapping_sub(T::BYTES as u64) & mask;
        let lin = self.seg_lin(sreg::SS, sp, T::BYTES, true)?;
        self.write_lin(lin, v, SS)?;
        self.set_sp(mask, sp);
        Ok(())
    }

    /// Reads the stack at `off` bytes above the stack pointer, which stays.
    #[inline(always)]
    pub(crate) fn stack_read<T: Int>(&mut self, op: &Op, off: u64) -> R<T> {
        if op.has(Op::SP64) {
            return self.read_lin(self.regs[gpr::RSP].wrapping_add(off), SS);
        }
        let sp = self.regs[gpr::RSP].wrapping_add(off) & Self::sp_mask_op(op);
        let lin = self.seg_lin(sreg::SS, sp, T::BYTES, false)?;
        self.read_lin(lin, SS)
    }

    /// Pops.
    #[inline(always)]
    pub(crate) fn pop<T: Int>(&mut self, op: &Op) -> R<T> {
        let v = self.stack_read::<T>(op, 0)?;
        self.add_sp(op, T::BYTES as u64);
        Ok(v)
    }
}

handler! {
    pub fn push_r<T: Int>(cpu, op) {
        let v = cpu.reg::<T>(op.r[0]);
        cpu.push(op, v)
    }
    pub fn push_i<T: Int>(cpu, op) {
        cpu.push(op, T::from_u64(op.imm))
    }
    pub fn push_m<T: Int>(cpu, op) {
        let v = cpu.read::<T>(op)?;
        cpu.push(op, v)
    }
    /// A 16-bit selector; wider pushes are zero-extended.
    pub fn push_seg<T: Int>(cpu, op) {
        let v = cpu.segs[op.r[0] as usize].sel;
        cpu.push(op, T::from_u64(v as u64))
    }
    pub fn pop_r<T: Int>(cpu, op) {
        let v = cpu.pop::<T>(op)?;
        cpu.set_reg(op.r[0], v);
        Ok(())
    }
    pub fn pop_m<T: Int>(cpu, op) {
        // The address is computed with the stack pointer already incremented.
        let v = cpu.stack_read::<T>(op, 0)?;
        let old = cpu.regs[gpr::RSP];
        cpu.add_sp(op, T::BYTES as u64);
        let r = cpu.write(op, v);
        if r.is_err() {
            cpu.regs[gpr::RSP] = old;
        }
        r
    }
    pub fn pusha<T: Int>(cpu, op) {
        let old = cpu.regs[gpr::RSP];
        for i in 0..8u8 {
            let v = if i as usize == gpr::RSP { T::from_u64(old) } else { cpu.reg::<T>(i * 8) };
            if let Err(e) = cpu.push(op, v) {
                cpu.regs[gpr::RSP] = old;
                return Err(e);
            }
        }
        Ok(())
    }
    pub fn popa<T: Int>(cpu, op) {
        let mut v = [T::from_u64(0); 8];
        for (i, v) in v.iter_mut().enumerate() {
            *v = cpu.stack_read::<T>(op, (i * T::BYTES) as u64)?;
        }
        for (i, v) in v.iter().enumerate() {
            if 7 - i != gpr::RSP {
                cpu.set_reg((7 - i as u8) * 8, *v);
            }
        }
        cpu.add_sp(op, 8 * T::BYTES as u64);
        Ok(())
    }
    pub fn pushf<T: Int>(cpu, op) {
        if cpu.vm86() && cpu.iopl() < 3 {
            if T::BITS > 16 || !cpu.has_virtual_if() {
                return cpu.gp(0);
            }
            let v = cpu.flags_with_virtual_if();
            return cpu.push(op, T::from_u64(v));
        }
        let v = cpu.rflags() & !(rflags::VM | rflags::RF);
        cpu.push(op, T::from_u64(v))
    }
    pub fn enter<T: Int>(cpu, op) {
        let size = op.imm as u16 as u64;
        let level = (op.imm >> 32) as u8 & 31;
        let (old_sp, old_bp) = (cpu.regs[gpr::RSP], cpu.regs[gpr::RBP]);
        let r = enter_body::<T>(cpu, op, size, level);
        if r.is_err() {
            cpu.regs[gpr::RSP] = old_sp;
            cpu.regs[gpr::RBP] = old_bp;
        }
        r
    }
    pub fn leave<T: Int>(cpu, op) {
        let mask = Cpu::sp_mask_op(op);
        let bp = cpu.regs[gpr::RBP] & mask;
        let lin = if op.has(Op::SP64) { bp } else { cpu.seg_lin(sreg::SS, bp, T::BYTES, false)? };
        let v = cpu.read_lin::<T>(lin, SS)?;
        cpu.set_sp(mask, bp.wrapping_add(T::BYTES as u64));
        cpu.set_reg(gpr::RBP as u8 * 8, v);
        Ok(())
    }
}

fn enter_body<T: Int>(cpu: &mut Cpu, op: &Op, size: u64, level: u8) -> R<()> {
    let mask = Cpu::sp_mask_op(op);
    let bp0 = cpu.reg::<T>(gpr::RBP as u8 * 8);
    cpu.push(op, bp0)?;
    let frame = cpu.regs[gpr::RSP];
    if level > 0 {
        let mut bp = cpu.regs[gpr::RBP];
        for _ in 1..level {
            bp = bp.wrapping_sub(T::BYTES as u64);
            let lin = if op.has(Op::SP64) { bp } else { cpu.seg_lin(sreg::SS, bp & mask, T::BYTES, false)? };
            let v = cpu.read_lin::<T>(lin, SS)?;
            cpu.push(op, v)?;
        }
        cpu.push(op, T::from_u64(frame))?;
    }
    let sp = cpu.regs[gpr::RSP].wrapping_sub(size) & mask;
    // The new top must be writable.
    let lin = if op.has(Op::SP64) { sp } else { cpu.seg_lin(sreg::SS, sp, T::BYTES, true)? };
    cpu.probe_w(lin, T::BYTES, SS)?;
    cpu.set_sp(mask, sp);
    cpu.set_reg(gpr::RBP as u8 * 8, T::from_u64(frame));
    Ok(())
}

handler_recheck! {
    pub fn popf<T: Int>(cpu, op) {
        if cpu.vm86() && cpu.iopl() < 3 {
            if T::BITS > 16 || !cpu.has_virtual_if() {
                return cpu.gp(0);
            }
            let v = cpu.stack_read::<T>(op, 0)?.to_u64();
            cpu.load_flags_with_virtual_if(v)?;
            cpu.add_sp(op, T::BYTES as u64);
            return Ok(());
        }
        let v = cpu.pop::<T>(op)?.to_u64();
        let mut writable = rflags::ARITH | rflags::TF | rflags::DF | rflags::NT;
        if T::BITS > 16 {
            writable |= rflags::AC | rflags::ID;
        }
        if cpu.cpl == 0 && !cpu.vm86() {
            writable |= rflags::IOPL | rflags::IF;
        } else if cpu.cpl <= cpu.iopl() {
            writable |= rflags::IF;
        }
        let old = cpu.rflags();
        let keep = if T::BITS > 16 { old & !rflags::RF } else { old };
        cpu.set_rflags(keep & !writable | v & writable);
        cpu.update_tlb_table();
        Ok(())
    }
    pub fn pop_seg<T: Int>(cpu, op) {
        let v = cpu.stack_read::<T>(op, 0)?.to_u64() as u16;
        let mask = Cpu::sp_mask_op(op);
        let seg = op.r[0] as usize;
        cpu.load_seg(seg, v)?;
        // The width of the stack pointer is the one before the load.
        let sp = cpu.regs[gpr::RSP].wrapping_add(T::BYTES as u64);
        cpu.set_sp(mask, sp);
        if seg == sreg::SS {
            cpu.inhibit = true;
            cpu.skip_trap = true;
        }
        Ok(())
    }
    /// MOV Sreg, r/m16.
    pub fn mov_to_seg(cpu, op) {
        let v = if op.has(Op::MEM) { cpu.read::<u16>(op)? } else { cpu.reg::<u16>(op.r[1]) };
        let seg = op.r[0] as usize;
        if seg == sreg::CS {
            return cpu.ud();
        }
        cpu.load_seg(seg, v)?;
        if seg == sreg::SS {
            cpu.inhibit = true;
            cpu.skip_trap = true;
        }
        Ok(())
    }
    /// LDS, LES, LSS, LFS, LGS with offset size `T`; `imm` = segment register.
    pub fn load_far<T: Int>(cpu, op) {
        let lin = cpu.lin_r(op, T::BYTES + 2)?;
        let off = cpu.read_lin::<T>(lin, op.seg)?;
        let sel = cpu.read_lin::<u16>(cpu.lin_add(lin, T::BYTES as u64), op.seg)?;
        let seg = match op.code().mnemonic() {
            iced_x86::Mnemonic::Les => sreg::ES,
            iced_x86::Mnemonic::Lds => sreg::DS,
            iced_x86::Mnemonic::Lss => sreg::SS,
            iced_x86::Mnemonic::Lfs => sreg::FS,
            _ => sreg::GS,
        };
        cpu.load_seg(seg, sel)?;
        cpu.set_reg(op.r[0], off);
        Ok(())
    }
}

handler! {
    /// MOV r/m, Sreg: a register destination is zero-extended to its size.
    pub fn mov_from_seg<T: Int>(cpu, op) {
        let v = cpu.segs[op.r[1] as usize].sel;
        if op.has(Op::MEM) {
            return cpu.write(op, v);
        }
        cpu.set_reg(op.r[0], T::from_u64(v as u64));
        Ok(())
    }
    pub fn bound<T: Int>(cpu, op) {
        let lin = cpu.lin_r(op, 2 * T::BYTES)?;
        let lo = cpu.read_lin::<T>(lin, op.seg)?.sext() as i64;
        let hi = cpu.read_lin::<T>(cpu.lin_add(lin, T::BYTES as u64), op.seg)?.sext() as i64;
        let i = cpu.reg::<T>(op.r[0]).sext() as i64;
        if i < lo || i > hi {
            return cpu.raise(Exception::new(Exception::BR));
        }
        Ok(())
    }
}

/// PUSH r64 in 64-bit code.
pub fn push_r64(cpu: &mut Cpu, op: &Op) -> Next {
    let sp = cpu.regs[gpr::RSP].wrapping_sub(8);
    let Some(p) = cpu.host_w(sp, 8) else {
        return push_r::<u64>(cpu, op);
    };
    // SAFETY: the TLB entry vouches for the page.
    unsafe { super::mem::store(p, cpu.reg::<u64>(op.r[0])) };
    cpu.regs[gpr::RSP] = sp;
    next(cpu, op)
}

/// PUSH r32 with a flat 32-bit stack.
pub fn push_r32(cpu: &mut Cpu, op: &Op) -> Next {
    let sp = u64::from((cpu.regs[gpr::RSP] as u32).wrapping_sub(4));
    let Some(p) = cpu.host_w(sp, 4) else {
        return push_r::<u32>(cpu, op);
    };
    // SAFETY: the TLB entry vouches for the page.
    unsafe { super::mem::store(p, cpu.reg::<u32>(op.r[0])) };
    cpu.regs[gpr::RSP] = sp;
    next(cpu, op)
}

/// POP r32 with a flat 32-bit stack.
pub fn pop_r32(cpu: &mut Cpu, op: &Op) -> Next {
    let sp = cpu.regs[gpr::RSP] as u32;
    let Some(p) = cpu.host_r(u64::from(sp), 4) else {
        return pop_r::<u32>(cpu, op);
    };
    // SAFETY: the TLB entry vouches for the page.
    let v: u32 = unsafe { super::mem::load(p) };
    cpu.regs[gpr::RSP] = u64::from(sp.wrapping_add(4));
    cpu.set_reg(op.r[0], v);
    next(cpu, op)
}

/// POP r64 in 64-bit code.
pub fn pop_r64(cpu: &mut Cpu, op: &Op) -> Next {
    let sp = cpu.regs[gpr::RSP];
    let Some(p) = cpu.host_r(sp, 8) else {
        return pop_r::<u64>(cpu, op);
    };
    // SAFETY: the TLB entry vouches for the page.
    let v: u64 = unsafe { super::mem::load(p) };
    cpu.regs[gpr::RSP] = sp.wrapping_add(8);
    cpu.set_reg(op.r[0], v);
    next(cpu, op)
}
