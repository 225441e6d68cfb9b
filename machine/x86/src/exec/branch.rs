//! Control transfers inside a code segment.

use super::alu::Alu;
use super::mov::Cond;
use super::{chain, fail, Int, Next, Op};
use crate::cpu::Cpu;
use crate::fault::R;
use crate::state::gpr;

/// Ends a block that was cut for other reasons than a branch.
pub fn end_block(cpu: &mut Cpu, op: &Op) -> Next {
    cpu.rip = op.imm;
    chain(cpu, 1)
}

/// JMP rel.
pub fn jmp(cpu: &mut Cpu, op: &Op) -> Next {
    cpu.rip = op.imm;
    chain(cpu, 0)
}

/// What a Jcc does once its condition is known.
#[inline(always)]
fn jump_if(cpu: &mut Cpu, op: &Op, taken: bool) -> Next {
    if taken {
        cpu.rip = op.imm;
        chain(cpu, 0)
    } else {
        cpu.rip = op.disp;
        chain(cpu, 1)
    }
}

/// CMP/TEST of two registers and Jcc.
pub fn cmp_rr_jcc<O: Alu, T: Int, C: Cond>(cpu: &mut Cpu, op: &Op) -> Next {
    let f = O::calc(cpu.fl, cpu.reg::<T>(op.r[0]), cpu.reg::<T>(op.r[1])).1;
    cpu.fl = f;
    jump_if(cpu, super::following(op), f.cond(C::CC))
}

/// CMP/TEST of a register with an immediate and Jcc.
pub fn cmp_ri_jcc<O: Alu, T: Int, C: Cond>(cpu: &mut Cpu, op: &Op) -> Next {
    let f = O::calc(cpu.fl, cpu.reg::<T>(op.r[0]), T::from_u64(op.imm)).1;
    cpu.fl = f;
    jump_if(cpu, super::following(op), f.cond(C::CC))
}

/// CMP/TEST of plain memory with an immediate and Jcc.
pub fn cmp_mi_jcc<O: Alu, T: Int, C: Cond>(cpu: &mut Cpu, op: &Op) -> Next {
    let lin = cpu.ea_raw(op);
    let Some(p) = cpu.host_r(lin, T::BYTES) else {
        return super::alu::mi::<O, T>(cpu, op);
    };
    // SAFETY: the TLB entry vouches for the page.
    let f = O::calc(cpu.fl, unsafe { super::mem::load::<T>(p) }, T::from_u64(op.imm)).1;
    cpu.fl = f;
    jump_if(cpu, super::following(op), f.cond(C::CC))
}

/// Jcc.
pub fn jcc<C: Cond>(cpu: &mut Cpu, op: &Op) -> Next {
    if cpu.fl.cond(C::CC) {
        cpu.rip = op.imm;
        chain(cpu, 0)
    } else {
        cpu.rip = op.disp;
        chain(cpu, 1)
    }
}

/// CALL rel in 64-bit code.
pub fn call64(cpu: &mut Cpu, op: &Op) -> Next {
    let sp = cpu.regs[gpr::RSP].wrapping_sub(8);
    let Some(p) = cpu.host_w(sp, 8) else {
        return call::<u64>(cpu, op);
    };
    let ret = op.disp;
    // SAFETY: the TLB entry vouches for the page.
    unsafe { super::mem::store(p, ret) };
    cpu.regs[gpr::RSP] = sp;
    cpu.rip = op.imm;
    chain(cpu, 0)
}

/// CALL rel with flat 32-bit segments.
pub fn call32(cpu: &mut Cpu, op: &Op) -> Next {
    let sp = u64::from((cpu.regs[gpr::RSP] as u32).wrapping_sub(4));
    let Some(p) = cpu.host_w(sp, 4) else {
        return call::<u32>(cpu, op);
    };
    let ret = op.disp as u32;
    // SAFETY: the TLB entry vouches for the page.
    unsafe { super::mem::store(p, ret) };
    cpu.regs[gpr::RSP] = sp;
    cpu.rip = op.imm;
    chain(cpu, 0)
}

/// RET with flat 32-bit segments.
pub fn ret32(cpu: &mut Cpu, op: &Op) -> Next {
    let sp = cpu.regs[gpr::RSP] as u32;
    let Some(p) = cpu.host_r(u64::from(sp), 4) else {
        return ret::<u32>(cpu, op);
    };
    // SAFETY: the TLB entry vouches for the page.
    let t: u32 = unsafe { super::mem::load(p) };
    cpu.regs[gpr::RSP] = u64::from(sp.wrapping_add(4 + u32::from(op.imm as u16)));
    cpu.rip = u64::from(t);
    super::indirect(cpu)
}

/// RET in 64-bit code.
pub fn ret64(cpu: &mut Cpu, op: &Op) -> Next {
    let sp = cpu.regs[gpr::RSP];
    let Some(p) = cpu.host_r(sp, 8) else {
        return ret::<u64>(cpu, op);
    };
    // SAFETY: the TLB entry vouches for the page.
    let t: u64 = unsafe { super::mem::load(p) };
    if !Cpu::canonical(t) {
        return ret::<u64>(cpu, op);
    }
    cpu.regs[gpr::RSP] = sp.wrapping_add(8 + op.imm as u16 as u64);
    cpu.rip = t;
    super::indirect(cpu)
}

/// CALL rel with operand size `T`.
#[inline(never)]
pub fn call<T: Int>(cpu: &mut Cpu, op: &Op) -> Next {
    let ret = T::from_u64(cpu.op_next_rip(op));
    match cpu.push::<T>(op, ret) {
        Ok(()) => {
            cpu.rip = op.imm;
            chain(cpu, 0)
        }
        Err(_) => fail(cpu, op),
    }
}

fn indirect(cpu: &mut Cpu, op: &Op, r: R<u64>) -> Next {
    match r {
        Ok(t) => {
            cpu.rip = t;
            super::indirect(cpu)
        }
        Err(_) => fail(cpu, op),
    }
}

fn target<T: Int>(cpu: &mut Cpu, op: &Op) -> R<T> {
    if op.has(Op::MEM) {
        cpu.read::<T>(op)
    } else {
        Ok(cpu.reg::<T>(op.r[0]))
    }
}

/// JMP r/m.
pub fn jmp_rm<T: Int>(cpu: &mut Cpu, op: &Op) -> Next {
    let r = target::<T>(cpu, op).map(T::to_u64).and_then(|t| cpu.check_target(t).map(|()| t));
    indirect(cpu, op, r)
}

/// CALL r/m.
pub fn call_rm<T: Int>(cpu: &mut Cpu, op: &Op) -> Next {
    let r = target::<T>(cpu, op).and_then(|t| {
        cpu.check_target(t.to_u64())?;
        let ret = T::from_u64(cpu.op_next_rip(op));
        cpu.push::<T>(op, ret)?;
        Ok(t.to_u64())
    });
    indirect(cpu, op, r)
}

/// RET, with the optional immediate.
#[inline(never)]
pub fn ret<T: Int>(cpu: &mut Cpu, op: &Op) -> Next {
    let r = cpu.stack_read::<T>(op, 0).map(T::to_u64).and_then(|t| cpu.check_target(t).map(|()| t));
    if r.is_ok() {
        cpu.add_sp(op, T::BYTES as u64 + op.imm as u16 as u64);
    }
    indirect(cpu, op, r)
}

impl Cpu {
    /// #GP(0) for a target outside the code segment or not canonical.
    #[inline(always)]
    pub(crate) fn check_target(&mut self, t: u64) -> R<()> {
        let ok = if self.long_code { Self::canonical(t) } else { t <= self.segs[1].limit as u64 };
        if ok {
            Ok(())
        } else {
            self.gp(0)
        }
    }

    fn count_width(op: &Op) -> u64 {
        if op.has(Op::A16) {
            0xffff
        } else if op.has(Op::A32) {
            0xffff_ffff
        } else {
            u64::MAX
        }
    }

    /// Decrements rCX as wide as the address size; returns the new value.
    fn dec_count(&mut self, op: &Op) -> u64 {
        let m = Self::count_width(op);
        let v = self.regs[gpr::RCX].wrapping_sub(1) & m;
        self.set_count(m, v);
        v
    }

    /// Writes rCX as wide as mask `m` says.
    pub(crate) fn set_count(&mut self, m: u64, v: u64) {
        let old = self.regs[gpr::RCX];
        self.regs[gpr::RCX] = if m == 0xffff { old & !m | v & m } else { v & m };
    }
}

/// Which LOOP.
pub trait LoopKind: 'static {
    /// Whether to branch, from rCX (after) and ZF.
    fn go(count: u64, zf: bool) -> bool;
}
/// LOOP.
pub struct Loop;
/// LOOPE.
pub struct Loope;
/// LOOPNE.
pub struct Loopne;
impl LoopKind for Loop {
    fn go(count: u64, _: bool) -> bool {
        count != 0
    }
}
impl LoopKind for Loope {
    fn go(count: u64, zf: bool) -> bool {
        count != 0 && zf
    }
}
impl LoopKind for Loopne {
    fn go(count: u64, zf: bool) -> bool {
        count != 0 && !zf
    }
}

fn two_way(cpu: &mut Cpu, op: &Op, taken: bool) -> Next {
    if taken {
        cpu.rip = op.imm;
        chain(cpu, 0)
    } else {
        cpu.rip = cpu.op_next_rip(op);
        chain(cpu, 1)
    }
}

/// LOOP, LOOPE, LOOPNE.
pub fn loop_<K: LoopKind>(cpu: &mut Cpu, op: &Op) -> Next {
    let n = cpu.dec_count(op);
    let go = K::go(n, cpu.fl.zf());
    two_way(cpu, op, go)
}

/// JCXZ, JECXZ, JRCXZ.
pub fn jcxz(cpu: &mut Cpu, op: &Op) -> Next {
    let zero = cpu.regs[gpr::RCX] & Cpu::count_width(op) == 0;
    two_way(cpu, op, zero)
}
