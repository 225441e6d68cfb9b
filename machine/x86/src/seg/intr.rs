//! Interrupt and exception delivery.

use super::{err_sel, Desc};
use crate::cpu::Cpu;
use crate::fault::{Exception, R};
use crate::state::{rflags, sreg, Segment};

/// Where an event comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// An exception that restarts the instruction.
    Fault,
    /// An exception after the instruction (#DB of single step).
    Trap,
    /// An external interrupt or NMI.
    Interrupt,
    /// INT n, INT3, INTO; RIP to push is in `Cpu::rip` already.
    Software,
}

/// A stack being pushed to; committed by the caller.
pub(crate) struct Frame {
    /// The stack segment.
    pub ss: Segment,
    /// Stack pointer.
    pub sp: u64,
    /// Its width.
    pub mask: u64,
    /// Flat 64-bit addressing.
    pub long: bool,
    /// Privilege of the accesses.
    pub cpl: u8,
}

impl Frame {
    /// Pushes `size` bytes.
    pub fn push(&mut self, cpu: &mut Cpu, v: u64, size: usize) -> R<()> {
        let sp = self.sp.wrapping_sub(size as u64) & self.mask;
        let lin = self.lin(cpu, sp, size)?;
        let cpl = self.cpl;
        cpu.with_cpl(cpl, |c| match size {
            2 => c.write_lin(lin, v as u16, sreg::SS as u8),
            4 => c.write_lin(lin, v as u32, sreg::SS as u8),
            _ => c.write_lin(lin, v, sreg::SS as u8),
        })?;
        self.sp = sp;
        Ok(())
    }

    /// Pops `size` bytes.
    pub fn pop(&mut self, cpu: &mut Cpu, size: usize) -> R<u64> {
        let lin = self.lin(cpu, self.sp & self.mask, size)?;
        let cpl = self.cpl;
        let v = cpu.with_cpl(cpl, |c| {
            Ok(match size {
                2 => c.read_lin::<u16>(lin, sreg::SS as u8)? as u64,
                4 => c.read_lin::<u32>(lin, sreg::SS as u8)? as u64,
                _ => c.read_lin::<u64>(lin, sreg::SS as u8)?,
            })
        })?;
        self.sp = self.sp.wrapping_add(size as u64) & self.mask;
        Ok(v)
    }

    fn lin(&self, cpu: &mut Cpu, off: u64, size: usize) -> R<u64> {
        if self.long {
            return Ok(off);
        }
        let last = off + size as u64 - 1;
        let ok = if self.ss.expand_down() {
            off > self.ss.limit as u64 && last <= if self.ss.db() { 0xffff_ffff } else { 0xffff }
        } else {
            last <= self.ss.limit as u64
        };
        if !ok {
            let sel = self.ss.sel;
            // A fault on the current stack has error code 0.
            return if sel == cpu.segs[sreg::SS].sel {
                cpu.raise(Exception::with(Exception::SS, 0))
            } else {
                cpu.ss_fault(sel)
            };
        }
        Ok(self.ss.base.wrapping_add(off) & 0xffff_ffff)
    }
}

impl Cpu {
    /// The current stack as a frame.
    pub(crate) fn frame(&self) -> Frame {
        Frame {
            ss: self.segs[sreg::SS],
            sp: self.regs[4],
            mask: self.sp_mask(),
            long: self.long_code,
            cpl: self.cpl,
        }
    }

    /// Delivers an event, escalating to a double fault as needed. False: triple fault.
    pub(crate) fn deliver(&mut self, source: Source, exc: Exception) -> bool {
        self.blk = std::ptr::null();
        let (mut source, mut exc) = (source, exc);
        let start_rip = self.rip;
        let mut first = source != Source::Interrupt && source != Source::Software;
        loop {
            if let Some(f) = self.on_event {
                f(self, exc);
            }
            if source == Source::Fault && exc.vector == Exception::DB {
                self.dr[7] &= !(1 << 13);
            }
            match self.interrupt(exc.vector, source, exc.error) {
                Ok(()) => return true,
                Err(_) => {
                    self.rip = start_rip;
                    let second = self.exc;
                    if second.vector == Exception::LEAVE && source != Source::Interrupt {
                        self.exit = Some(crate::cpu::Exit::Leave);
                        return true;
                    }
                    if first && exc.vector == Exception::DF {
                        return false;
                    }
                    let double = first
                        && ((exc.is_contributory() && second.is_contributory())
                            || (exc.vector == Exception::PF
                                && (second.vector == Exception::PF || second.is_contributory())));
                    exc = if double { Exception::with(Exception::DF, 0) } else { second };
                    source = Source::Fault;
                    first = true;
                }
            }
        }
    }

    /// Delivers one event; nothing has changed if it fails (except memory below the stack pointer).
    pub(crate) fn interrupt(&mut self, vector: u8, source: Source, error: Option<u32>) -> R<()> {
        if !self.protected() {
            return self.interrupt_real(vector, source);
        }
        if self.lma() {
            return self.interrupt_long(vector, source, error);
        }
        self.interrupt_protected(vector, source, error)
    }

    fn pushed_flags(&self, source: Source, vector: u8) -> u64 {
        let mut f = self.rflags();
        if source == Source::Fault && vector != Exception::DF && vector != 18 {
            f |= rflags::RF;
        }
        f
    }

    fn interrupt_real(&mut self, vector: u8, source: Source) -> R<()> {
        let off = vector as u64 * 4;
        if off + 3 > self.idtr.limit as u64 {
            return self.gp(vector as u32 * 8 + 2);
        }
        let at = self.idtr.base.wrapping_add(off);
        let entry = self.read_lin::<u32>(at, sreg::DS as u8)?;
        let mut f = self.frame();
        let flags = self.rflags();
        let _ = source;
        f.push(self, flags, 2)?;
        let cs = self.segs[sreg::CS].sel as u64;
        f.push(self, cs, 2)?;
        let rip = self.rip;
        f.push(self, rip, 2)?;
        self.set_sp(f.mask, f.sp);
        self.rf &= !(rflags::IF | rflags::TF | rflags::RF | rflags::AC);
        self.set_cs_real((entry >> 16) as u16);
        self.rip = (entry & 0xffff) as u64;
        self.update_mode();
        Ok(())
    }

    fn ext(source: Source) -> u32 {
        (source != Source::Software) as u32
    }

    fn gate_error(vector: u8, source: Source) -> u32 {
        (vector as u32) << 3 | 2 | Self::ext(source)
    }

    fn interrupt_protected(&mut self, vector: u8, source: Source, error: Option<u32>) -> R<()> {
        let ge = Self::gate_error(vector, source);
        let off = vector as u64 * 8;
        if off + 7 > self.idtr.limit as u64 {
            return self.gp(ge);
        }
        let at = self.idtr.base.wrapping_add(off);
        let raw = self.as_supervisor(|c| c.read_lin::<u64>(at, sreg::DS as u8))?;
        let gate = Desc { sel: 0, at, raw };
        let kind = gate.kind();
        if gate.user() || !matches!(kind, 5 | 6 | 7 | 14 | 15) {
            return self.gp(ge);
        }
        if source == Source::Software && gate.dpl() < self.cpl {
            return self.gp(ge);
        }
        if !gate.present() {
            return self.raise(Exception::with(Exception::NP, ge));
        }
        if kind == 5 {
            return self.interrupt_task(gate.gate_sel(), source, error);
        }
        let size = if kind >= 14 { 4 } else { 2 };
        let ext = Self::ext(source);
        let sel = gate.gate_sel();
        let (mut cs, new_cpl, inner) = self.check_handler(sel, ext)?;
        let target = gate.gate_off() as u64 & if size == 4 { 0xffff_ffff } else { 0xffff };
        let was_vm86 = self.vm86();
        let flags = self.pushed_flags(source, vector);
        let mut f = if inner { self.ring_stack(new_cpl, ext)? } else { self.frame() };
        if target > cs.segment(sel).limit as u64 {
            return self.gp(ext);
        }
        if inner {
            let old_ss = self.segs[sreg::SS].sel as u64;
            let old_sp = self.regs[4];
            if was_vm86 {
                for s in [sreg::GS, sreg::FS, sreg::DS, sreg::ES] {
                    let v = self.segs[s].sel as u64;
                    f.push(self, v, size)?;
                }
            }
            f.push(self, old_ss, size)?;
            f.push(self, old_sp, size)?;
        }
        f.push(self, flags, size)?;
        let old_cs = self.segs[sreg::CS].sel as u64;
        f.push(self, old_cs, size)?;
        let rip = self.rip;
        f.push(self, rip, size)?;
        if let Some(e) = error {
            f.push(self, e as u64, size)?;
        }
        self.set_accessed(&mut cs)?;
        if was_vm86 {
            for s in [sreg::GS, sreg::FS, sreg::DS, sreg::ES] {
                self.segs[s] = Segment::default();
            }
        }
        self.rf &= !(rflags::TF | rflags::NT | rflags::VM | rflags::RF);
        if kind & 1 == 0 {
            self.rf &= !rflags::IF;
        }
        if inner {
            self.segs[sreg::SS] = f.ss;
        }
        self.set_cs(&cs, new_cpl);
        self.set_sp(f.mask, f.sp);
        self.rip = target;
        self.update_mode();
        Ok(())
    }

    /// Checks a gate's code segment: the descriptor, the new CPL, whether the ring changes.
    fn check_handler(&mut self, sel: u16, ext: u32) -> R<(Desc, u8, bool)> {
        if sel & 0xfffc == 0 {
            return self.gp(ext);
        }
        let Some(cs) = self.descriptor_opt(sel)? else {
            return self.gp(err_sel(sel) | ext);
        };
        if !cs.is_code() || cs.dpl() > self.cpl {
            return self.gp(err_sel(sel) | ext);
        }
        if !cs.present() {
            return self.raise(Exception::with(Exception::NP, err_sel(sel) | ext));
        }
        if self.lma() && (!cs.long() || cs.db()) {
            return self.gp(err_sel(sel) | ext);
        }
        let inner = !cs.conforming() && cs.dpl() < self.cpl;
        if self.vm86() && !(inner && cs.dpl() == 0) {
            return self.gp(err_sel(sel) | ext);
        }
        let new_cpl = if inner { cs.dpl() } else { self.cpl };
        Ok((cs, new_cpl, inner))
    }

    /// The stack of an inner ring from the 16- or 32-bit TSS.
    pub(crate) fn ring_stack(&mut self, cpl: u8, ext: u32) -> R<Frame> {
        let tr = self.tr;
        let wide = tr.attr & 8 != 0;
        let off = if wide { 4 + 8 * cpl as u64 } else { 2 + 4 * cpl as u64 };
        let need = if wide { 5 } else { 3 };
        if !tr.present() || off + need > tr.limit as u64 {
            return self.raise(Exception::with(Exception::TS, err_sel(tr.sel) | ext));
        }
        let at = tr.base.wrapping_add(off);
        let (sp, sel) = self.as_supervisor(|c| -> R<(u64, u16)> {
            Ok(if wide {
                (c.read_lin::<u32>(at, 3)? as u64, c.read_lin::<u16>(at.wrapping_add(4), 3)?)
            } else {
                (c.read_lin::<u16>(at, 3)? as u64, c.read_lin::<u16>(at.wrapping_add(2), 3)?)
            })
        })?;
        let bad = Exception::with(Exception::TS, err_sel(sel) | ext);
        if sel & 0xfffc == 0 || (sel & 3) as u8 != cpl {
            return self.raise(bad);
        }
        let Some(mut d) = self.descriptor_opt(sel)? else {
            return self.raise(bad);
        };
        if d.dpl() != cpl || !d.user() || d.kind() & 0xa != 2 {
            return self.raise(bad);
        }
        if !d.present() {
            return self.raise(Exception::with(Exception::SS, err_sel(sel) | ext));
        }
        self.set_accessed(&mut d)?;
        let ss = d.segment(sel);
        let mask = if ss.db() { 0xffff_ffff } else { 0xffff };
        Ok(Frame { ss, sp, mask, long: false, cpl })
    }

    /// A stack pointer from the 64-bit TSS: RSP0..RSP2 (`index` 0..=2) or IST1..IST7 (`ist` 1..=7).
    pub(crate) fn long_stack(&mut self, cpl: u8, ist: u8) -> R<u64> {
        let off = if ist != 0 { 36 + 8 * (ist as u64 - 1) } else { 4 + 8 * cpl as u64 };
        let tr = self.tr;
        if !tr.present() || off + 7 > tr.limit as u64 {
            return self.ts(tr.sel);
        }
        let at = tr.base.wrapping_add(off);
        let sp = self.as_supervisor(|c| c.read_lin::<u64>(at, 3))?;
        if !Self::canonical(sp) {
            return self.raise(Exception::with(Exception::SS, 0));
        }
        Ok(sp)
    }

    fn interrupt_long(&mut self, vector: u8, source: Source, error: Option<u32>) -> R<()> {
        let ge = Self::gate_error(vector, source);
        let off = vector as u64 * 16;
        if off + 15 > self.idtr.limit as u64 {
            return self.gp(ge);
        }
        let at = self.idtr.base.wrapping_add(off);
        let (raw, high) = self.as_supervisor(|c| -> R<(u64, u64)> {
            Ok((c.read_lin::<u64>(at, 3)?, c.read_lin::<u64>(at.wrapping_add(8), 3)?))
        })?;
        let gate = Desc { sel: 0, at, raw };
        if gate.user() || !matches!(gate.kind(), 14 | 15) {
            return self.gp(ge);
        }
        if source == Source::Software && gate.dpl() < self.cpl {
            return self.gp(ge);
        }
        if !gate.present() {
            return self.raise(Exception::with(Exception::NP, ge));
        }
        let ext = Self::ext(source);
        let (mut cs, new_cpl, inner) = self.check_handler(gate.gate_sel(), ext)?;
        let target = gate.gate_off() as u64 | high << 32;
        if !Self::canonical(target) {
            return self.gp(ext);
        }
        let ist = (raw >> 32 & 7) as u8;
        let sp = if inner || ist != 0 { self.long_stack(new_cpl, ist)? } else { self.regs[4] };
        let mut f = Frame { ss: self.segs[sreg::SS], sp: sp & !15, mask: u64::MAX, long: true, cpl: new_cpl };
        let flags = self.pushed_flags(source, vector);
        let (ss, rsp) = (self.segs[sreg::SS].sel as u64, self.regs[4]);
        f.push(self, ss, 8)?;
        f.push(self, rsp, 8)?;
        f.push(self, flags, 8)?;
        let old_cs = self.segs[sreg::CS].sel as u64;
        f.push(self, old_cs, 8)?;
        let rip = self.rip;
        f.push(self, rip, 8)?;
        if let Some(e) = error {
            f.push(self, e as u64, 8)?;
        }
        self.set_accessed(&mut cs)?;
        self.rf &= !(rflags::TF | rflags::NT | rflags::VM | rflags::RF);
        if gate.kind() & 1 == 0 {
            self.rf &= !rflags::IF;
        }
        if inner {
            // SS becomes null with RPL = new CPL.
            self.segs[sreg::SS] =
                Segment { sel: new_cpl as u16, base: 0, limit: 0, attr: (new_cpl as u16) << 5 };
        }
        self.regs[4] = f.sp;
        self.set_cs(&cs, new_cpl);
        self.rip = target;
        self.update_mode();
        Ok(())
    }

    fn interrupt_task(&mut self, sel: u16, source: Source, error: Option<u32>) -> R<()> {
        let ext = Self::ext(source);
        if sel & 4 != 0 {
            return self.gp(err_sel(sel) | ext);
        }
        let Some(d) = self.descriptor_opt(sel)? else {
            return self.gp(err_sel(sel) | ext);
        };
        if d.user() || !matches!(d.kind(), 1 | 9) {
            return self.gp(err_sel(sel) | ext);
        }
        if !d.present() {
            return self.raise(Exception::with(Exception::NP, err_sel(sel) | ext));
        }
        self.switch_task(d, super::task::Reason::Call, source == Source::Fault)?;
        if let Some(e) = error {
            let size = if self.tr.attr & 8 != 0 { 4 } else { 2 };
            let mut f = self.frame();
            f.push(self, e as u64, size)?;
            self.set_sp(f.mask, f.sp);
        }
        Ok(())
    }
}
