//! Far jumps, calls and returns, IRET.

use super::task::Reason;
use super::Desc;
use crate::cpu::Cpu;
use crate::fault::{Exception, R};
use crate::seg::intr::Frame;
use crate::state::{rflags, sreg, Segment};

impl Cpu {
    fn real_like(&self) -> bool {
        !self.protected() || self.vm86()
    }

    /// Whether `rip` is valid in the code segment `d`.
    fn check_code_target(&mut self, d: &Desc, rip: u64) -> R<()> {
        let ok =
            if self.lma() && d.long() { Self::canonical(rip) } else { rip <= d.segment(d.sel).limit as u64 };
        if ok {
            Ok(())
        } else {
            self.gp(0)
        }
    }

    /// Checks for a direct jump or call to a code segment.
    fn check_direct(&mut self, d: &Desc) -> R<()> {
        let sel = d.sel;
        let rpl = (sel & 3) as u8;
        let ok = if d.conforming() { d.dpl() <= self.cpl } else { rpl <= self.cpl && d.dpl() == self.cpl };
        if !ok || (self.lma() && d.long() && d.db()) {
            return self.gp_sel(sel);
        }
        if !d.present() {
            return self.np(sel);
        }
        Ok(())
    }

    /// JMP far. RIP is set on success.
    pub(crate) fn far_jump(&mut self, sel: u16, off: u64) -> R<()> {
        if self.real_like() {
            if off > self.segs[sreg::CS].limit as u64 {
                return self.gp(0);
            }
            self.set_cs_real(sel);
            self.rip = off;
            self.update_mode();
            return Ok(());
        }
        if sel & 0xfffc == 0 {
            return self.gp(0);
        }
        let mut d = self.descriptor(sel, Exception::GP)?;
        if d.is_code() {
            self.check_direct(&d)?;
            self.check_code_target(&d, off)?;
            self.set_accessed(&mut d)?;
            let cpl = self.cpl;
            self.set_cs(&d, cpl);
            self.rip = off;
            self.update_mode();
            return Ok(());
        }
        if d.user() {
            return self.gp_sel(sel);
        }
        match (d.kind(), self.lma()) {
            (1 | 9, false) => {
                self.check_system(&d)?;
                self.switch_task(d, Reason::Jump, false)
            }
            (5, false) => {
                self.check_system(&d)?;
                let t = self.task_of_gate(d)?;
                self.switch_task(t, Reason::Jump, false)
            }
            (4, false) | (12, _) => {
                self.check_system(&d)?;
                let (mut cs, rip) = self.gate_target(&d)?;
                let ok = if cs.conforming() { cs.dpl() <= self.cpl } else { cs.dpl() == self.cpl };
                if !ok {
                    return self.gp_sel(cs.sel);
                }
                self.check_code_target(&cs, rip)?;
                self.set_accessed(&mut cs)?;
                let cpl = self.cpl;
                self.set_cs(&cs, cpl);
                self.rip = rip;
                self.update_mode();
                Ok(())
            }
            _ => self.gp_sel(sel),
        }
    }

    /// DPL and P of a gate or TSS that is jumped to or called.
    fn check_system(&mut self, d: &Desc) -> R<()> {
        let rpl = (d.sel & 3) as u8;
        if d.dpl() < self.cpl || d.dpl() < rpl {
            return self.gp_sel(d.sel);
        }
        if !d.present() {
            return self.np(d.sel);
        }
        Ok(())
    }

    pub(crate) fn task_of_gate(&mut self, d: Desc) -> R<Desc> {
        let sel = d.gate_sel();
        if sel & 4 != 0 {
            return self.gp_sel(sel);
        }
        let t = self.descriptor(sel, Exception::GP)?;
        if t.user() || !matches!(t.kind(), 1 | 9) {
            return self.gp_sel(sel);
        }
        if !t.present() {
            return self.np(sel);
        }
        Ok(t)
    }

    /// Code segment and offset that a call gate leads to; the DPL rules are the caller's.
    fn gate_target(&mut self, g: &Desc) -> R<(Desc, u64)> {
        let sel = g.gate_sel();
        if sel & 0xfffc == 0 {
            return self.gp(0);
        }
        let mut off = g.gate_off() as u64;
        if g.kind() == 4 {
            off &= 0xffff;
        }
        if self.lma() {
            let at = g.at.wrapping_add(8);
            let high = self.as_supervisor(|c| c.read_lin::<u64>(at, 3))?;
            if high >> 40 & 0x1f != 0 {
                return self.gp_sel(g.sel);
            }
            off |= high << 32;
        }
        let cs = self.descriptor(sel, Exception::GP)?;
        if !cs.is_code() || cs.dpl() > self.cpl || (self.lma() && (!cs.long() || cs.db())) {
            return self.gp_sel(sel);
        }
        if !cs.present() {
            return self.np(sel);
        }
        Ok((cs, off))
    }

    /// CALL far with operand size `size` (2, 4, 8); `ret` is the return address.
    pub(crate) fn far_call(&mut self, sel: u16, off: u64, size: usize, ret: u64) -> R<()> {
        let old_cs = self.segs[sreg::CS].sel as u64;
        if self.real_like() {
            let mut f = self.frame();
            f.push(self, old_cs, size)?;
            f.push(self, ret, size)?;
            if off > self.segs[sreg::CS].limit as u64 {
                return self.gp(0);
            }
            self.set_sp(f.mask, f.sp);
            self.set_cs_real(sel);
            self.rip = off;
            self.update_mode();
            return Ok(());
        }
        if sel & 0xfffc == 0 {
            return self.gp(0);
        }
        let mut d = self.descriptor(sel, Exception::GP)?;
        if d.is_code() {
            self.check_direct(&d)?;
            let mut f = self.frame();
            f.push(self, old_cs, size)?;
            f.push(self, ret, size)?;
            self.check_code_target(&d, off)?;
            self.set_accessed(&mut d)?;
            let mask = f.mask;
            let cpl = self.cpl;
            self.set_cs(&d, cpl);
            self.set_sp(mask, f.sp);
            self.rip = off;
            self.update_mode();
            return Ok(());
        }
        if d.user() {
            return self.gp_sel(sel);
        }
        match (d.kind(), self.lma()) {
            (1 | 9, false) => {
                self.check_system(&d)?;
                self.switch_task(d, Reason::Call, false)
            }
            (5, false) => {
                self.check_system(&d)?;
                let t = self.task_of_gate(d)?;
                self.switch_task(t, Reason::Call, false)
            }
            (4, false) | (12, _) => {
                self.check_system(&d)?;
                self.call_gate(&d, ret)
            }
            _ => self.gp_sel(sel),
        }
    }

    fn call_gate(&mut self, g: &Desc, ret: u64) -> R<()> {
        let (mut cs, rip) = self.gate_target(g)?;
        let size = match (self.lma(), g.kind()) {
            (true, _) => 8,
            (_, 12) => 4,
            _ => 2,
        };
        let old_cs = self.segs[sreg::CS].sel as u64;
        let inner = !cs.conforming() && cs.dpl() < self.cpl;
        let mut f = if !inner {
            self.frame()
        } else if self.lma() {
            let sp = self.long_stack(cs.dpl(), 0)?;
            let ss = Segment { sel: cs.dpl() as u16, base: 0, limit: 0, attr: (cs.dpl() as u16) << 5 };
            Frame { ss, sp, mask: u64::MAX, long: true, cpl: cs.dpl() }
        } else {
            self.ring_stack(cs.dpl(), 0)?
        };
        if inner {
            let (old_ss, old_sp) = (self.segs[sreg::SS].sel as u64, self.regs[4]);
            f.push(self, old_ss, size)?;
            f.push(self, old_sp, size)?;
            if !self.lma() {
                // Parameters are copied from the old stack.
                let count = (g.raw >> 32 & 31) as usize;
                let mut old = self.frame();
                old.sp = old.sp.wrapping_add((count * size) as u64) & old.mask;
                for _ in 0..count {
                    let mut at = Frame { sp: old.sp.wrapping_sub(size as u64) & old.mask, ..old };
                    old.sp = at.sp;
                    let v = at.pop(self, size)?;
                    f.push(self, v, size)?;
                }
            }
        }
        f.push(self, old_cs, size)?;
        f.push(self, ret, size)?;
        self.check_code_target(&cs, rip)?;
        self.set_accessed(&mut cs)?;
        let cpl = f.cpl;
        if inner {
            self.segs[sreg::SS] = f.ss;
        }
        self.set_cs(&cs, cpl);
        self.set_sp(f.mask, f.sp);
        self.rip = rip;
        self.update_mode();
        Ok(())
    }

    /// RET far with operand size `size`, releasing `release` bytes.
    pub(crate) fn far_ret(&mut self, size: usize, release: u64) -> R<()> {
        let mut f = self.frame();
        let rip = f.pop(self, size)?;
        let sel = f.pop(self, size)? as u16;
        if self.real_like() {
            if rip > self.segs[sreg::CS].limit as u64 {
                return self.gp(0);
            }
            self.set_sp(f.mask, f.sp.wrapping_add(release));
            self.set_cs_real(sel);
            self.rip = rip;
            self.update_mode();
            return Ok(());
        }
        f.sp = f.sp.wrapping_add(release) & f.mask;
        self.return_to(sel, rip, f, size, None, release)
    }

    /// The protected-mode end of RETF and IRET: `flags` are the popped ones for IRET.
    fn return_to(
        &mut self,
        sel: u16,
        rip: u64,
        mut f: Frame,
        size: usize,
        flags: Option<u64>,
        release: u64,
    ) -> R<()> {
        if sel & 0xfffc == 0 {
            return self.gp(0);
        }
        let mut d = self.descriptor(sel, Exception::GP)?;
        let rpl = (sel & 3) as u8;
        let ok =
            d.is_code() && rpl >= self.cpl && if d.conforming() { d.dpl() <= rpl } else { d.dpl() == rpl };
        if !ok || (self.lma() && d.long() && d.db()) {
            return self.gp_sel(sel);
        }
        if !d.present() {
            return self.np(sel);
        }
        let outer = rpl > self.cpl;
        let long_iret = flags.is_some() && self.long_code;
        if !outer && !long_iret {
            self.check_code_target(&d, rip)?;
            self.set_accessed(&mut d)?;
            if let Some(fl) = flags {
                self.load_iret_flags(fl, size);
            }
            self.set_cs(&d, rpl);
            self.set_sp(f.mask, f.sp);
            self.rip = rip;
            self.update_mode();
            return Ok(());
        }
        let sp = f.pop(self, size)?;
        let ss_sel = f.pop(self, size)? as u16;
        let mut ss_desc = None;
        let ss = if ss_sel & 0xfffc == 0 {
            let null_ok = self.lma() && d.long() && rpl != 3;
            if !null_ok {
                return self.gp(0);
            }
            Segment { sel: ss_sel, base: 0, limit: 0, attr: (rpl as u16) << 5 }
        } else {
            let s = self.descriptor(ss_sel, Exception::GP)?;
            if (ss_sel & 3) as u8 != rpl || !s.user() || s.kind() & 0xa != 2 || s.dpl() != rpl {
                return self.gp_sel(ss_sel);
            }
            if !s.present() {
                return self.ss_fault(ss_sel);
            }
            ss_desc = Some(s);
            s.segment(ss_sel)
        };
        self.check_code_target(&d, rip)?;
        self.set_accessed(&mut d)?;
        let mut ss = ss;
        if let Some(mut s) = ss_desc {
            self.set_accessed(&mut s)?;
            ss = s.segment(ss_sel);
        }
        if let Some(fl) = flags {
            self.load_iret_flags(fl, size);
        }
        self.set_cs(&d, rpl);
        self.segs[sreg::SS] = ss;
        self.update_mode();
        let mask = self.sp_mask();
        // A 16-bit stack keeps the upper half of ESP.
        let sp = sp.wrapping_add(release);
        if self.long_code || size == 8 {
            self.regs[4] = if self.long_code { sp } else { sp & 0xffff_ffff };
        } else {
            self.set_sp(mask, sp);
        }
        if outer {
            self.null_inner_segments(rpl);
        }
        self.rip = rip;
        self.update_mode();
        Ok(())
    }

    fn load_iret_flags(&mut self, fl: u64, size: usize) {
        let mut w = rflags::ARITH | rflags::TF | rflags::DF | rflags::NT;
        if size > 2 {
            w |= rflags::RF | rflags::AC | rflags::ID;
        }
        if self.cpl <= self.iopl() {
            w |= rflags::IF;
        }
        if self.cpl == 0 {
            w |= rflags::IOPL;
            if size > 2 {
                w |= rflags::VIF | rflags::VIP;
            }
        }
        let old = self.rflags();
        self.set_rflags(old & !w | fl & w);
    }

    /// IRET with operand size `size`.
    pub(crate) fn iret(&mut self, size: usize) -> R<()> {
        if !self.protected() || (self.vm86() && self.iopl() == 3) {
            return self.iret_real(size);
        }
        if self.vm86() {
            if size == 2 && self.has_virtual_if() {
                return self.iret_virtual_if();
            }
            return self.gp(0);
        }
        if self.rf & rflags::NT != 0 {
            if self.lma() {
                return self.gp(0);
            }
            return self.iret_task();
        }
        let mut f = self.frame();
        let rip = f.pop(self, size)?;
        let sel = f.pop(self, size)? as u16;
        let fl = f.pop(self, size)?;
        if fl & rflags::VM != 0 && size == 4 && self.cpl == 0 && !self.lma() {
            return self.iret_to_vm86(rip, sel, fl, f);
        }
        self.nmi_masked = false;
        self.return_to(sel, rip, f, size, Some(fl), 0)
    }

    fn iret_real(&mut self, size: usize) -> R<()> {
        let mut f = self.frame();
        let rip = f.pop(self, size)?;
        let sel = f.pop(self, size)? as u16;
        let fl = f.pop(self, size)?;
        if rip > self.segs[sreg::CS].limit as u64 {
            return self.gp(0);
        }
        let mut w = rflags::ARITH | rflags::TF | rflags::IF | rflags::DF | rflags::NT;
        if !self.vm86() {
            w |= rflags::IOPL;
        }
        if size == 4 {
            w |= rflags::RF | rflags::AC | rflags::ID;
        }
        self.nmi_masked = false;
        let old = self.rflags();
        self.set_rflags(old & !w | fl & w);
        self.set_sp(f.mask, f.sp);
        self.set_cs_real(sel);
        self.rip = rip;
        self.update_mode();
        Ok(())
    }

    fn iret_to_vm86(&mut self, rip: u64, cs: u16, fl: u64, mut f: Frame) -> R<()> {
        let sp = f.pop(self, 4)?;
        let ss = f.pop(self, 4)? as u16;
        let mut segs = [0u16; 4];
        for s in &mut segs {
            *s = f.pop(self, 4)? as u16;
        }
        self.set_rflags(fl);
        self.cpl = 3;
        let vm = |sel: u16| Segment { sel, base: (sel as u64) << 4, limit: 0xffff, attr: 0xf3 };
        self.segs[sreg::SS] = vm(ss);
        for (i, s) in [sreg::ES, sreg::DS, sreg::FS, sreg::GS].into_iter().zip(segs) {
            self.segs[i] = vm(s);
        }
        self.set_cs_real(cs);
        self.regs[4] = sp;
        self.rip = rip & 0xffff;
        self.update_mode();
        Ok(())
    }
}
