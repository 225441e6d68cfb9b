//! System instructions.

use iced_x86::Code;

use super::{fail, Int, Next, Op};
use crate::cpu::Cpu;
use crate::fault::{Exception, R};
use crate::flags::Flags;
use crate::seg::intr::Source;
use crate::state::{cr0, cr4, efer, gpr, rflags, sreg, Segment};
use crate::{handler, handler_recheck};

impl Cpu {
    #[inline(always)]
    pub(crate) fn need_cpl0(&mut self) -> R<()> {
        if self.cpl != 0 {
            return self.gp(0);
        }
        Ok(())
    }

    /// #UD in real and virtual-8086 mode.
    fn need_protected(&mut self) -> R<()> {
        if !self.protected() || self.vm86() {
            return self.ud();
        }
        Ok(())
    }

    fn need_umip(&mut self) -> R<()> {
        if self.cr4 & cr4::UMIP != 0 && self.cpl > 0 && self.protected() {
            return self.gp(0);
        }
        Ok(())
    }
}

fn rm16(cpu: &mut Cpu, op: &Op, i: usize) -> R<u16> {
    if op.has(Op::MEM) {
        cpu.read::<u16>(op)
    } else {
        Ok(cpu.reg::<u16>(op.r[i]))
    }
}

fn zf(cpu: &mut Cpu, set: bool) {
    let f = cpu.fl.bits() & !rflags::ZF | if set { rflags::ZF } else { 0 };
    cpu.fl = Flags::from_bits(f);
}

fn table_size(op: &Op) -> usize {
    if op.has(Op::LONG) {
        10
    } else {
        6
    }
}

/// Finishes a control transfer that has set RIP itself.
fn transfer(cpu: &mut Cpu, op: &Op, r: R<()>) -> Next {
    match r {
        Ok(()) => Next::Recheck,
        Err(_) => fail(cpu, op),
    }
}

fn raise_software(cpu: &mut Cpu, op: &Op, vector: u8, source: Source) -> Next {
    cpu.rip = cpu.op_next_rip(op);
    let saved = cpu.blk;
    cpu.blk = std::ptr::null();
    let r = cpu.interrupt(vector, source, None);
    cpu.blk = saved;
    cpu.skip_trap = true;
    transfer(cpu, op, r)
}

/// INT n.
pub fn int_n(cpu: &mut Cpu, op: &Op) -> Next {
    if cpu.vm86() {
        match cpu.redirects(op.imm8()) {
            Ok(true) => {
                cpu.rip = cpu.op_next_rip(op);
                let r = cpu.redirected_interrupt(op.imm8());
                return transfer(cpu, op, r);
            }
            Ok(false) if cpu.iopl() == 3 => {}
            Ok(false) => {
                cpu.exc = Exception::with(Exception::GP, 0);
                return fail(cpu, op);
            }
            Err(_) => return fail(cpu, op),
        }
    }
    raise_software(cpu, op, op.imm8(), Source::Software)
}

/// INT3.
pub fn int3(cpu: &mut Cpu, op: &Op) -> Next {
    if cpu.stops_at_int3() {
        return super::misc::breakpoint(cpu, op);
    }
    raise_software(cpu, op, Exception::BP, Source::Software)
}

/// INT1 (ICEBP).
pub fn int1(cpu: &mut Cpu, op: &Op) -> Next {
    raise_software(cpu, op, Exception::DB, Source::Trap)
}

/// INTO.
pub fn into(cpu: &mut Cpu, op: &Op) -> Next {
    if cpu.fl.of() {
        return raise_software(cpu, op, Exception::OF, Source::Software);
    }
    cpu.rip = cpu.op_next_rip(op);
    Next::Through
}

/// IRET with operand size `T`.
pub fn iret<T: Int>(cpu: &mut Cpu, op: &Op) -> Next {
    cpu.rip = cpu.op_next_rip(op);
    let r = cpu.iret(T::BYTES);
    transfer(cpu, op, r)
}

/// JMP ptr16:16/32.
pub fn jmp_far_imm(cpu: &mut Cpu, op: &Op) -> Next {
    cpu.rip = cpu.op_next_rip(op);
    let r = cpu.far_jump((op.imm >> 32) as u16, op.imm as u32 as u64);
    transfer(cpu, op, r)
}

/// CALL ptr16:16/32.
pub fn call_far_imm<T: Int>(cpu: &mut Cpu, op: &Op) -> Next {
    let ret = cpu.op_next_rip(op);
    cpu.rip = ret;
    let r = cpu.far_call((op.imm >> 32) as u16, op.imm as u32 as u64, T::BYTES, ret);
    transfer(cpu, op, r)
}

fn far_pointer<T: Int>(cpu: &mut Cpu, op: &Op) -> R<(u16, u64)> {
    let lin = cpu.lin_r(op, T::BYTES + 2)?;
    let off = cpu.read_lin::<T>(lin, op.seg)?.to_u64();
    let sel = cpu.read_lin::<u16>(cpu.lin_add(lin, T::BYTES as u64), op.seg)?;
    Ok((sel, off))
}

/// JMP m16:16/32/64.
pub fn jmp_far_mem<T: Int>(cpu: &mut Cpu, op: &Op) -> Next {
    cpu.rip = cpu.op_next_rip(op);
    let r = far_pointer::<T>(cpu, op).and_then(|(s, o)| cpu.far_jump(s, o));
    transfer(cpu, op, r)
}

/// CALL m16:16/32/64.
pub fn call_far_mem<T: Int>(cpu: &mut Cpu, op: &Op) -> Next {
    let ret = cpu.op_next_rip(op);
    cpu.rip = ret;
    let r = far_pointer::<T>(cpu, op).and_then(|(s, o)| cpu.far_call(s, o, T::BYTES, ret));
    transfer(cpu, op, r)
}

/// RETF.
pub fn ret_far<T: Int>(cpu: &mut Cpu, op: &Op) -> Next {
    let r = cpu.far_ret(T::BYTES, op.imm as u16 as u64);
    transfer(cpu, op, r)
}

fn flat(sel: u16, attr: u16) -> Segment {
    Segment { sel, base: 0, limit: u32::MAX, attr }
}

/// SYSCALL.
pub fn syscall(cpu: &mut Cpu, op: &Op) -> Next {
    if cpu.efer & efer::SCE == 0 || !cpu.protected() {
        cpu.exc = Exception::new(Exception::UD);
        return fail(cpu, op);
    }
    let next = cpu.op_next_rip(op);
    let sel = (cpu.msrs.star >> 32) as u16 & 0xfffc;
    cpu.regs[gpr::RCX] = next;
    if cpu.lma() {
        cpu.regs[gpr::R11] = cpu.rflags() & !rflags::RF;
        cpu.rip = if cpu.long_code { cpu.msrs.lstar } else { cpu.msrs.cstar };
        let f = cpu.rflags() & !cpu.msrs.fmask & !rflags::RF;
        cpu.set_rflags(f);
        cpu.segs[sreg::CS] = flat(sel, 0xa09b);
    } else {
        cpu.rip = cpu.msrs.star as u32 as u64;
        cpu.rf &= !(rflags::IF | rflags::VM | rflags::RF);
        cpu.segs[sreg::CS] = flat(sel, 0xc09b);
    }
    cpu.segs[sreg::SS] = flat(sel + 8, 0xc093);
    cpu.cpl = 0;
    cpu.update_mode();
    Next::Indirect
}

/// SYSRET with operand size `T`.
pub fn sysret<T: Int>(cpu: &mut Cpu, op: &Op) -> Next {
    if cpu.efer & efer::SCE == 0 {
        cpu.exc = Exception::new(Exception::UD);
        return fail(cpu, op);
    }
    if cpu.cpl != 0 || !cpu.protected() {
        cpu.exc = Exception::with(Exception::GP, 0);
        return fail(cpu, op);
    }
    let base = (cpu.msrs.star >> 48) as u16;
    if cpu.lma() {
        let rcx = cpu.regs[gpr::RCX];
        let mut f = cpu.regs[gpr::R11] & 0x3c_7fd7;
        f &= !rflags::RF;
        cpu.set_rflags(f);
        if T::BITS == 64 {
            cpu.segs[sreg::CS] = flat((base + 16) | 3, 0xa0fb);
            cpu.rip = rcx;
        } else {
            cpu.segs[sreg::CS] = flat(base | 3, 0xc0fb);
            cpu.rip = rcx as u32 as u64;
        }
    } else {
        cpu.rf |= rflags::IF;
        cpu.segs[sreg::CS] = flat(base | 3, 0xc0fb);
        cpu.rip = cpu.regs[gpr::RCX] as u32 as u64;
    }
    cpu.segs[sreg::SS] = flat((base + 8) | 3, 0xc0f3);
    cpu.cpl = 3;
    cpu.update_mode();
    Next::Recheck
}

/// SYSENTER.
pub fn sysenter(cpu: &mut Cpu, op: &Op) -> Next {
    let cs = cpu.msrs.sysenter_cs as u16;
    if cs & 0xfffc == 0 || !cpu.protected() {
        cpu.exc = Exception::with(Exception::GP, 0);
        return fail(cpu, op);
    }
    cpu.rf &= !(rflags::VM | rflags::IF | rflags::RF);
    let long = cpu.lma();
    cpu.segs[sreg::CS] = flat(cs & 0xfffc, if long { 0xa09b } else { 0xc09b });
    cpu.segs[sreg::SS] = flat((cs & 0xfffc) + 8, 0xc093);
    cpu.regs[gpr::RSP] = cpu.msrs.sysenter_esp;
    cpu.rip = cpu.msrs.sysenter_eip;
    cpu.cpl = 0;
    cpu.update_mode();
    Next::Recheck
}

/// SYSEXIT with operand size `T`.
pub fn sysexit<T: Int>(cpu: &mut Cpu, op: &Op) -> Next {
    let cs = cpu.msrs.sysenter_cs as u16 & 0xfffc;
    if cs == 0 || cpu.cpl != 0 || !cpu.protected() {
        cpu.exc = Exception::with(Exception::GP, 0);
        return fail(cpu, op);
    }
    let (rcx, rdx) = (cpu.regs[gpr::RCX], cpu.regs[gpr::RDX]);
    if T::BITS == 64 {
        cpu.segs[sreg::CS] = flat((cs + 32) | 3, 0xa0fb);
        cpu.segs[sreg::SS] = flat((cs + 40) | 3, 0xc0f3);
        cpu.regs[gpr::RSP] = rcx;
        cpu.rip = rdx;
    } else {
        cpu.segs[sreg::CS] = flat((cs + 16) | 3, 0xc0fb);
        cpu.segs[sreg::SS] = flat((cs + 24) | 3, 0xc0f3);
        cpu.regs[gpr::RSP] = rcx as u32 as u64;
        cpu.rip = rdx as u32 as u64;
    }
    cpu.cpl = 3;
    cpu.update_mode();
    Next::Recheck
}

/// RSM.
pub fn rsm(cpu: &mut Cpu, op: &Op) -> Next {
    if !cpu.smm {
        cpu.exc = Exception::new(Exception::UD);
        return fail(cpu, op);
    }
    cpu.leave_smm();
    Next::Recheck
}

/// A named control register index that exists.
fn cr_valid(n: u8) -> bool {
    matches!(n, 0 | 2 | 3 | 4 | 8)
}

handler_recheck! {
    pub fn cli(cpu, _op) {
        if cpu.protected() && cpu.cpl > cpu.iopl() {
            if cpu.has_virtual_if() {
                cpu.rf &= !rflags::VIF;
                return Ok(());
            }
            return cpu.gp(0);
        }
        cpu.rf &= !rflags::IF;
        Ok(())
    }
    pub fn sti(cpu, _op) {
        if cpu.protected() && cpu.cpl > cpu.iopl() {
            if cpu.has_virtual_if() && cpu.rf & rflags::VIP == 0 {
                cpu.rf |= rflags::VIF;
                return Ok(());
            }
            return cpu.gp(0);
        }
        if cpu.rf & rflags::IF == 0 {
            cpu.rf |= rflags::IF;
            cpu.inhibit = true;
        }
        Ok(())
    }
    pub fn hlt(cpu, _op) {
        cpu.need_cpl0()?;
        cpu.halted = true;
        Ok(())
    }
    /// MOV CRn, r: operand 0 is the control register.
    pub fn mov_to_cr(cpu, op) {
        cpu.need_cpl0()?;
        let n = op.r[0];
        if !cr_valid(n) {
            return cpu.ud();
        }
        let v = if op.has(Op::LONG) { cpu.reg::<u64>(op.r[1]) } else { cpu.reg::<u32>(op.r[1]) as u64 };
        match n {
            0 => {
                if v >> 32 != 0 {
                    return cpu.gp(0);
                }
                cpu.set_cr0(v)?;
            }
            2 => cpu.cr2 = v,
            3 => {
                if cpu.lma() && v & !(1 << 63) & !cpu.model.phys_mask() != 0 {
                    return cpu.gp(0);
                }
                cpu.set_cr3(v);
            }
            4 => cpu.set_cr4(v)?,
            _ => {
                if v & !15 != 0 {
                    return cpu.gp(0);
                }
                cpu.bus().set_cr8(cpu.id, v);
                // A lower task priority may let an interrupt in.
                cpu.intr = true;
            }
        }
        Ok(())
    }
    pub fn mov_to_dr(cpu, op) {
        cpu.need_cpl0()?;
        let n = dr_number(cpu, op.r[0])?;
        let old = cpu.dr[7];
        let v = if op.has(Op::LONG) { cpu.reg::<u64>(op.r[1]) } else { cpu.reg::<u32>(op.r[1]) as u64 };
        match n {
            6 => {
                if v >> 32 != 0 {
                    return cpu.gp(0);
                }
                cpu.dr[6] = v & 0xe00f | 0xffff_0ff0;
            }
            7 => {
                if v >> 32 != 0 {
                    return cpu.gp(0);
                }
                cpu.dr[7] = v & 0xffff_2bff | 0x400;
            }
            _ => cpu.dr[n] = v,
        }
        if (cpu.dr[7] | old) & 0xff != 0 {
            // Which pages are watched is part of the translations.
            cpu.flush_tlb_all();
        }
        Ok(())
    }
    pub fn lgdt(cpu, op) {
        let (base, limit) = read_table(cpu, op)?;
        cpu.gdtr.base = base;
        cpu.gdtr.limit = limit;
        Ok(())
    }
    pub fn lidt(cpu, op) {
        let (base, limit) = read_table(cpu, op)?;
        cpu.idtr.base = base;
        cpu.idtr.limit = limit;
        Ok(())
    }
    pub fn lldt(cpu, op) {
        cpu.need_protected()?;
        cpu.need_cpl0()?;
        let sel = rm16(cpu, op, 0)?;
        cpu.load_ldt(sel)
    }
    pub fn ltr(cpu, op) {
        cpu.need_protected()?;
        cpu.need_cpl0()?;
        let sel = rm16(cpu, op, 0)?;
        cpu.load_tr(sel)
    }
    pub fn lmsw(cpu, op) {
        cpu.need_cpl0()?;
        let v = rm16(cpu, op, 0)? as u64 & 15;
        // PE can be set but not cleared.
        let v = cpu.cr0 & !0xe | v | cpu.cr0 & cr0::PE;
        cpu.set_cr0(v)
    }
    pub fn clts(cpu, _op) {
        cpu.need_cpl0()?;
        cpu.cr0 &= !cr0::TS;
        cpu.update_mode();
        Ok(())
    }
    pub fn invlpg(cpu, op) {
        cpu.need_cpl0()?;
        let lin = if op.has(Op::PLAIN) { cpu.ea(op) } else { cpu.segs[op.seg as usize].base.wrapping_add(cpu.ea(op)) };
        let lin = if cpu.long_code { lin } else { lin & 0xffff_ffff };
        cpu.xlat.flush_page(lin);
        cpu.bump();
        Ok(())
    }
    pub fn invpcid(cpu, op) {
        cpu.need_cpl0()?;
        let kind = if op.has(Op::LONG) { cpu.reg::<u64>(op.r[0]) } else { cpu.reg::<u32>(op.r[0]) as u64 };
        let d = cpu.read128(op)?;
        match kind {
            0 => {
                if !Cpu::canonical(d[1]) {
                    return cpu.gp(0);
                }
                cpu.xlat.flush_page(d[1]);
                cpu.bump();
            }
            1 | 3 => {
                cpu.xlat.flush_local();
                cpu.bump();
            }
            2 => {
                cpu.xlat.flush_all();
                cpu.bump();
            }
            _ => return cpu.gp(0),
        }
        Ok(())
    }
    pub fn wrmsr(cpu, _op) {
        cpu.need_cpl0()?;
        let v = cpu.reg::<u32>(0) as u64 | (cpu.reg::<u32>(16) as u64) << 32;
        let i = cpu.reg::<u32>(8);
        cpu.write_msr(i, v)
    }
    pub fn swapgs(cpu, _op) {
        cpu.need_cpl0()?;
        std::mem::swap(&mut cpu.segs[sreg::GS].base, &mut cpu.msrs.kernel_gs_base);
        Ok(())
    }
    pub fn clac(cpu, _op) {
        if cpu.cpl != 0 {
            return cpu.ud();
        }
        cpu.rf &= !rflags::AC;
        cpu.update_tlb_table();
        Ok(())
    }
    pub fn stac(cpu, _op) {
        if cpu.cpl != 0 {
            return cpu.ud();
        }
        cpu.rf |= rflags::AC;
        cpu.update_tlb_table();
        Ok(())
    }
    pub fn xsetbv(cpu, _op) {
        if cpu.cr4 & cr4::OSXSAVE == 0 {
            return cpu.ud();
        }
        cpu.need_cpl0()?;
        let v = cpu.reg::<u32>(0) as u64 | (cpu.reg::<u32>(16) as u64) << 32;
        let l = cpu.model.cpuid(0xd, 0);
        let allowed = l[0] as u64 | (l[3] as u64) << 32;
        if cpu.reg::<u32>(8) != 0 || v & 1 == 0 || v & !allowed != 0 || v & 6 == 4 {
            return cpu.gp(0);
        }
        cpu.xcr0 = v;
        cpu.update_mode();
        Ok(())
    }
    pub fn mwait(cpu, _op) {
        cpu.need_cpl0()?;
        Ok(())
    }
}

fn dr_number(cpu: &mut Cpu, n: u8) -> R<usize> {
    if cpu.dr[7] & 1 << 13 != 0 {
        cpu.dr[6] |= 1 << 13;
        return cpu.raise(Exception::new(Exception::DB));
    }
    match n {
        4 | 5 if cpu.cr4 & cr4::DE != 0 => cpu.ud(),
        4 | 5 => Ok(n as usize + 2),
        0..=7 => Ok(n as usize),
        _ => cpu.ud(),
    }
}

fn read_table(cpu: &mut Cpu, op: &Op) -> R<(u64, u16)> {
    cpu.need_cpl0()?;
    let lin = cpu.lin_r(op, table_size(op))?;
    let limit = cpu.read_lin::<u16>(lin, op.seg)?;
    let at = cpu.lin_add(lin, 2);
    let base = if op.has(Op::LONG) {
        cpu.read_lin::<u64>(at, op.seg)?
    } else {
        let b = cpu.read_lin::<u32>(at, op.seg)? as u64;
        // With a 16-bit operand size only 24 bits are loaded.
        if matches!(op.code(), Code::Lgdt_m1632_16 | Code::Lidt_m1632_16) {
            b & 0xff_ffff
        } else {
            b
        }
    };
    if !Cpu::canonical(base) {
        return cpu.gp(0);
    }
    Ok((base, limit))
}

fn write_table(cpu: &mut Cpu, op: &Op, base: u64, limit: u16) -> R<()> {
    cpu.need_umip()?;
    let n = table_size(op);
    let lin = cpu.lin_w(op, n)?;
    let mut b = [0u8; 10];
    b[..2].copy_from_slice(&limit.to_le_bytes());
    b[2..].copy_from_slice(&base.to_le_bytes());
    cpu.write_buf(lin, &b[..n], op.seg)
}

handler! {
    pub fn sgdt(cpu, op) {
        let t = cpu.gdtr;
        write_table(cpu, op, t.base, t.limit)
    }
    pub fn sidt(cpu, op) {
        let t = cpu.idtr;
        write_table(cpu, op, t.base, t.limit)
    }
    pub fn sldt(cpu, op) {
        cpu.need_protected()?;
        cpu.need_umip()?;
        let v = cpu.ldtr.sel;
        store_sel(cpu, op, v as u64)
    }
    pub fn str_(cpu, op) {
        cpu.need_protected()?;
        cpu.need_umip()?;
        let v = cpu.tr.sel;
        store_sel(cpu, op, v as u64)
    }
    pub fn smsw(cpu, op) {
        cpu.need_umip()?;
        let v = cpu.cr0;
        store_sel(cpu, op, v)
    }
    pub fn mov_from_cr(cpu, op) {
        cpu.need_cpl0()?;
        let v = match op.r[1] {
            0 => cpu.cr0,
            2 => cpu.cr2,
            3 => cpu.cr3,
            4 => cpu.cr4,
            8 => cpu.bus().cr8(cpu.id),
            _ => return cpu.ud(),
        };
        if op.has(Op::LONG) {
            cpu.set_reg(op.r[0], v);
        } else {
            cpu.set_reg(op.r[0], v as u32);
        }
        Ok(())
    }
    pub fn mov_from_dr(cpu, op) {
        cpu.need_cpl0()?;
        let n = dr_number(cpu, op.r[1])?;
        let v = cpu.dr[n];
        if op.has(Op::LONG) {
            cpu.set_reg(op.r[0], v);
        } else {
            cpu.set_reg(op.r[0], v as u32);
        }
        Ok(())
    }
    pub fn rdmsr(cpu, _op) {
        cpu.need_cpl0()?;
        let i = cpu.reg::<u32>(8);
        let v = cpu.read_msr(i)?;
        cpu.set_reg(0, v as u32);
        cpu.set_reg(16, (v >> 32) as u32);
        Ok(())
    }
    pub fn rdtsc(cpu, _op) {
        if cpu.cr4 & cr4::TSD != 0 && cpu.cpl != 0 {
            return cpu.gp(0);
        }
        let v = cpu.guest_tsc();
        cpu.set_reg(0, v as u32);
        cpu.set_reg(16, (v >> 32) as u32);
        Ok(())
    }
    pub fn rdtscp(cpu, _op) {
        if cpu.cr4 & cr4::TSD != 0 && cpu.cpl != 0 {
            return cpu.gp(0);
        }
        let v = cpu.guest_tsc();
        cpu.set_reg(0, v as u32);
        cpu.set_reg(16, (v >> 32) as u32);
        let aux = cpu.msrs.tsc_aux as u32;
        cpu.set_reg(8, aux);
        Ok(())
    }
    pub fn rdpmc(cpu, _op) {
        if cpu.cr4 & cr4::PCE == 0 && cpu.cpl != 0 {
            return cpu.gp(0);
        }
        cpu.gp(0)
    }
    pub fn rdpid(cpu, op) {
        let aux = cpu.msrs.tsc_aux;
        cpu.set_reg(op.r[0], aux);
        Ok(())
    }
    pub fn cpuid(cpu, _op) {
        let r = cpu.cpuid(cpu.reg::<u32>(0), cpu.reg::<u32>(8));
        cpu.set_reg(0, r[0]);
        cpu.set_reg(24, r[1]);
        cpu.set_reg(8, r[2]);
        cpu.set_reg(16, r[3]);
        Ok(())
    }
    pub fn wbinvd(cpu, _op) {
        cpu.need_cpl0()
    }
    pub fn monitor(cpu, _op) {
        cpu.need_cpl0()
    }
    pub fn mfence(_cpu, _op) {
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        Ok(())
    }
    pub fn xgetbv(cpu, _op) {
        if cpu.cr4 & cr4::OSXSAVE == 0 {
            return cpu.ud();
        }
        if cpu.reg::<u32>(8) != 0 {
            return cpu.gp(0);
        }
        let v = cpu.xcr0;
        cpu.set_reg(0, v as u32);
        cpu.set_reg(16, (v >> 32) as u32);
        Ok(())
    }
    pub fn rdbase<T: Int>(cpu, op) {
        if cpu.cr4 & cr4::FSGSBASE == 0 {
            return cpu.ud();
        }
        let v = cpu.segs[base_seg(op)].base;
        cpu.set_reg(op.r[0], T::from_u64(v));
        Ok(())
    }
    pub fn wrbase<T: Int>(cpu, op) {
        if cpu.cr4 & cr4::FSGSBASE == 0 {
            return cpu.ud();
        }
        let v = cpu.reg::<T>(op.r[0]).to_u64();
        if !Cpu::canonical(v) {
            return cpu.gp(0);
        }
        cpu.segs[base_seg(op)].base = v;
        Ok(())
    }
    pub fn arpl(cpu, op) {
        cpu.need_protected()?;
        let rpl = cpu.reg::<u16>(op.r[1]) & 3;
        let mut less = false;
        let mut adjust = |v: u16| {
            less = v & 3 < rpl;
            if less { v & !3 | rpl } else { v }
        };
        if op.has(Op::MEM) {
            cpu.rmw::<u16>(op, |_, v| adjust(v))?;
        } else {
            let v = adjust(cpu.reg::<u16>(op.r[0]));
            cpu.set_reg(op.r[0], v);
        }
        zf(cpu, less);
        Ok(())
    }
    pub fn verr(cpu, op) {
        verify(cpu, op, false)
    }
    pub fn verw(cpu, op) {
        verify(cpu, op, true)
    }
    pub fn lar<T: Int>(cpu, op) {
        cpu.need_protected()?;
        let sel = rm16(cpu, op, 1)?;
        let r = visible(cpu, sel, true)?;
        if let Some(d) = r {
            cpu.set_reg(op.r[0], T::from_u64((d >> 32) & 0xff_ff00));
        }
        zf(cpu, r.is_some());
        Ok(())
    }
    pub fn lsl<T: Int>(cpu, op) {
        cpu.need_protected()?;
        let sel = rm16(cpu, op, 1)?;
        let r = visible(cpu, sel, false)?;
        if let Some(d) = r {
            let mut limit = d & 0xffff | d >> 32 & 0xf_0000;
            if d >> 55 & 1 != 0 {
                limit = limit << 12 | 0xfff;
            }
            cpu.set_reg(op.r[0], T::from_u64(limit));
        }
        zf(cpu, r.is_some());
        Ok(())
    }
}

fn base_seg(op: &Op) -> usize {
    use iced_x86::Mnemonic::{Rdfsbase, Wrfsbase};
    if matches!(op.code().mnemonic(), Rdfsbase | Wrfsbase) {
        sreg::FS
    } else {
        sreg::GS
    }
}

/// Stores a system register: 16 bits to memory, the operand size to a register.
fn store_sel(cpu: &mut Cpu, op: &Op, v: u64) -> R<()> {
    if op.has(Op::MEM) {
        return cpu.write(op, v as u16);
    }
    match op.size {
        2 => cpu.set_reg(op.r[0], v as u16),
        4 => cpu.set_reg(op.r[0], v as u32),
        _ => cpu.set_reg(op.r[0], v),
    }
    Ok(())
}

fn verify(cpu: &mut Cpu, op: &Op, write: bool) -> R<()> {
    cpu.need_protected()?;
    let sel = rm16(cpu, op, 0)?;
    let mut ok = false;
    if sel & 0xfffc != 0 {
        if let Some(d) = cpu.descriptor_opt(sel)? {
            let rpl = (sel & 3) as u8;
            let privileged = (d.is_code() && d.conforming()) || (d.dpl() >= cpu.cpl && d.dpl() >= rpl);
            let kind = if write { d.kind() & 0xa == 2 } else { d.kind() & 0xa != 8 };
            ok = d.user() && kind && privileged;
        }
    }
    zf(cpu, ok);
    Ok(())
}

/// The descriptor of `sel` if LAR (`gates` true) or LSL may look at it.
fn visible(cpu: &mut Cpu, sel: u16, gates: bool) -> R<Option<u64>> {
    if sel & 0xfffc == 0 {
        return Ok(None);
    }
    let Some(d) = cpu.descriptor_opt(sel)? else {
        return Ok(None);
    };
    let long = cpu.lma();
    let type_ok = d.user()
        || match d.kind() {
            1 | 3 => !long,
            2 | 9 | 11 => true,
            4 | 5 => gates && !long,
            12 => gates,
            _ => false,
        };
    let rpl = (sel & 3) as u8;
    let privileged = (d.is_code() && d.conforming()) || (d.dpl() >= cpu.cpl && d.dpl() >= rpl);
    Ok((type_ok && privileged).then_some(d.raw))
}
