//! Hardware task switches (protected mode without LMA).

use super::Desc;
use crate::cpu::Cpu;
use crate::fault::{Exception, R};
use crate::state::{cr0, rflags, sreg, Segment};

/// What caused the switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// JMP.
    Jump,
    /// CALL, interrupt or exception through a task gate.
    Call,
    /// IRET with NT.
    Iret,
}

const BUSY: u64 = 1 << 41;

impl Cpu {
    fn tss_read(&mut self, base: u64, off: u64, size: usize) -> R<u64> {
        let at = base.wrapping_add(off) & 0xffff_ffff;
        self.as_supervisor(|c| {
            Ok(if size == 2 { c.read_lin::<u16>(at, 3)? as u64 } else { c.read_lin::<u32>(at, 3)? as u64 })
        })
    }

    fn tss_write(&mut self, base: u64, off: u64, size: usize, v: u64) -> R<()> {
        let at = base.wrapping_add(off) & 0xffff_ffff;
        self.as_supervisor(|c| {
            if size == 2 {
                c.write_lin(at, v as u16, 3)
            } else {
                c.write_lin(at, v as u32, 3)
            }
        })
    }

    fn set_busy(&mut self, at: u64, busy: bool) -> R<()> {
        let at = at.wrapping_add(5);
        self.as_supervisor(|c| {
            let b = c.read_lin::<u8>(at, 3)?;
            c.write_lin(at, if busy { b | 2 } else { b & !2 }, 3)
        })
    }

    /// IRET with NT set: back to the task in the link field.
    pub(crate) fn iret_task(&mut self) -> R<()> {
        let base = self.tr.base;
        let sel = self.tss_read(base, 0, 2)? as u16;
        if sel & 4 != 0 {
            return self.ts(sel);
        }
        let d = self.descriptor(sel, Exception::TS)?;
        if d.user() || d.raw & BUSY == 0 || !matches!(d.kind() & !2, 1 | 9) {
            return self.ts(sel);
        }
        if !d.present() {
            return self.np(sel);
        }
        self.switch_task(d, Reason::Iret, false)
    }

    /// Switches to the task of TSS descriptor `d`. RIP must be the one to save.
    pub(crate) fn switch_task(&mut self, d: Desc, why: Reason, fault: bool) -> R<()> {
        let wide = d.kind() & 8 != 0;
        let new = d.segment(d.sel);
        if new.limit < if wide { 103 } else { 43 } {
            return self.ts(d.sel);
        }
        let old = self.tr;
        let old_wide = old.attr & 8 != 0;
        let old_at = self.gdtr.base.wrapping_add((old.sel & 0xfff8) as u64);
        // Everything is read before anything is written.
        let size = if wide { 4 } else { 2 };
        let (reg0, seg0, nseg) = if wide { (32, 72, 6) } else { (14, 34, 4) };
        let cr3 = if wide { self.tss_read(new.base, 28, 4)? } else { self.cr3 };
        let rip = self.tss_read(new.base, reg0, size)?;
        let mut fl = self.tss_read(new.base, reg0 + size as u64, size)?;
        let mut regs = [0u64; 8];
        for (i, r) in regs.iter_mut().enumerate() {
            *r = self.tss_read(new.base, reg0 + (2 + i as u64) * size as u64, size)?;
        }
        let mut sels = [0u16; 6];
        for (i, s) in sels.iter_mut().enumerate().take(nseg) {
            *s = self.tss_read(new.base, seg0 + i as u64 * size as u64, 2)? as u16;
        }
        let ldt = self.tss_read(new.base, if wide { 96 } else { 42 }, 2)? as u16;
        let trap = wide && self.tss_read(new.base, 100, 2)? & 1 != 0;

        if why != Reason::Call {
            self.set_busy(old_at, false)?;
        }
        let mut out_fl = self.rflags();
        if why == Reason::Iret {
            out_fl &= !rflags::NT;
        }
        if fault {
            out_fl |= rflags::RF;
        }
        let (osize, oreg, oseg, onseg) = if old_wide { (4, 32, 72, 6) } else { (2, 14, 34, 4) };
        let cur = self.rip;
        self.tss_write(old.base, oreg, osize, cur)?;
        self.tss_write(old.base, oreg + osize as u64, osize, out_fl)?;
        for i in 0..8 {
            let v = self.regs[i];
            self.tss_write(old.base, oreg + (2 + i as u64) * osize as u64, osize, v)?;
        }
        for i in 0..onseg {
            let v = self.segs[i].sel as u64;
            self.tss_write(old.base, oseg + i as u64 * osize as u64, 2, v)?;
        }
        if why == Reason::Call {
            self.tss_write(new.base, 0, 2, old.sel as u64)?;
            fl |= rflags::NT;
        }
        if why != Reason::Iret {
            self.set_busy(d.at, true)?;
        }
        let mut tr = new;
        tr.attr |= 2;
        self.tr = tr;
        self.cr0 |= cr0::TS;
        // The local breakpoints were the old task's.
        if self.dr[7] & 0x55 != 0 {
            self.flush_tlb_all();
        }
        self.dr[7] &= !0x155;
        if wide && self.cr0 & cr0::PG != 0 {
            self.set_cr3(cr3);
        }
        for (i, r) in regs.iter().enumerate() {
            self.regs[i] = if wide { *r } else { self.regs[i] & !0xffff | r & 0xffff };
        }
        self.rip = rip;
        self.set_rflags(fl);
        self.load_task_segments(sels, nseg, ldt)?;
        if self.rip > self.segs[sreg::CS].limit as u64 {
            return self.gp(0);
        }
        if trap {
            self.dr[6] |= 1 << 15;
            return self.raise(Exception::new(Exception::DB));
        }
        Ok(())
    }

    /// Loads the selectors in the context of the new task; failures are the new task's.
    fn load_task_segments(&mut self, sels: [u16; 6], n: usize, ldt: u16) -> R<()> {
        for (i, sel) in sels.iter().enumerate() {
            self.segs[i] = Segment { sel: *sel, ..Segment::default() };
        }
        if self.vm86() {
            self.cpl = 3;
            for (s, sel) in self.segs.iter_mut().zip(sels) {
                *s = Segment { sel, base: (sel as u64) << 4, limit: 0xffff, attr: 0xf3 };
            }
            self.set_cs_real(sels[sreg::CS]);
        }
        self.ldtr = Segment { sel: ldt, ..Segment::default() };
        if ldt & 0xfffc != 0 {
            let l = self.descriptor(ldt, Exception::TS)?;
            if ldt & 4 != 0 || l.user() || l.kind() != 2 || !l.present() {
                return self.ts(ldt);
            }
            self.ldtr = l.segment(ldt);
        }
        if self.vm86() {
            self.update_mode();
            return Ok(());
        }
        let cs_sel = sels[sreg::CS];
        let rpl = (cs_sel & 3) as u8;
        self.cpl = rpl;
        let cs = self.descriptor(cs_sel, Exception::TS)?;
        let dpl_ok = if cs.conforming() { cs.dpl() <= rpl } else { cs.dpl() == rpl };
        if cs_sel & 0xfffc == 0 || !cs.is_code() || !dpl_ok {
            return self.ts(cs_sel);
        }
        if !cs.present() {
            return self.np(cs_sel);
        }
        self.set_cs(&cs, rpl);
        self.update_mode();
        for i in [sreg::SS, sreg::ES, sreg::DS, sreg::FS, sreg::GS] {
            if i >= n {
                self.segs[i] = Segment::default();
                continue;
            }
            if let Err(e) = self.load_seg(i, sels[i]) {
                if self.exc.vector == Exception::GP {
                    self.exc.vector = Exception::TS;
                }
                return Err(e);
            }
        }
        self.update_mode();
        Ok(())
    }
}
