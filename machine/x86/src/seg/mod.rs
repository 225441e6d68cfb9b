//! Segments, gates, tasks, interrupts.

pub mod far;
pub mod intr;
pub mod smm;
pub mod task;
mod vme;

use crate::cpu::Cpu;
use crate::fault::{Exception, R};
use crate::state::{sreg, Segment};

/// A descriptor as read from a table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Desc {
    /// The selector it was read for.
    pub sel: u16,
    /// Linear address of the descriptor.
    pub at: u64,
    /// The eight bytes.
    pub raw: u64,
}

impl Desc {
    /// P.
    pub fn present(&self) -> bool {
        self.raw >> 47 & 1 != 0
    }
    /// DPL.
    pub fn dpl(&self) -> u8 {
        (self.raw >> 45 & 3) as u8
    }
    /// S: code or data.
    pub fn user(&self) -> bool {
        self.raw >> 44 & 1 != 0
    }
    /// The four type bits.
    pub fn kind(&self) -> u8 {
        (self.raw >> 40 & 15) as u8
    }
    /// L.
    pub fn long(&self) -> bool {
        self.raw >> 53 & 1 != 0
    }
    /// D/B.
    pub fn db(&self) -> bool {
        self.raw >> 54 & 1 != 0
    }
    /// Code segment.
    pub fn is_code(&self) -> bool {
        self.user() && self.kind() & 8 != 0
    }
    /// Conforming code segment.
    pub fn conforming(&self) -> bool {
        self.kind() & 4 != 0
    }
    /// Gate: target selector.
    pub fn gate_sel(&self) -> u16 {
        (self.raw >> 16) as u16
    }
    /// Gate: target offset (low 32 bits).
    pub fn gate_off(&self) -> u32 {
        (self.raw & 0xffff) as u32 | (self.raw >> 32) as u32 & 0xffff_0000
    }
    /// As a segment register with selector `sel`.
    pub fn segment(&self, sel: u16) -> Segment {
        let r = self.raw;
        let base = (r >> 16 & 0xff_ffff) | (r >> 56) << 24;
        let mut limit = (r & 0xffff) as u32 | (r >> 32) as u32 & 0xf_0000;
        if r >> 55 & 1 != 0 {
            limit = limit << 12 | 0xfff;
        }
        let attr = (r >> 40) as u16 & 0xf0ff;
        Segment { sel, base, limit, attr }
    }
}

/// Selector without RPL, as error codes have it.
pub(crate) fn err_sel(sel: u16) -> u32 {
    (sel & 0xfffc) as u32
}

impl Cpu {
    /// #NP(sel).
    pub(crate) fn np<T>(&mut self, sel: u16) -> R<T> {
        self.raise(Exception::with(Exception::NP, err_sel(sel)))
    }
    /// #GP(sel).
    pub(crate) fn gp_sel<T>(&mut self, sel: u16) -> R<T> {
        self.raise(Exception::with(Exception::GP, err_sel(sel)))
    }
    /// #TS(sel).
    pub(crate) fn ts<T>(&mut self, sel: u16) -> R<T> {
        self.raise(Exception::with(Exception::TS, err_sel(sel)))
    }
    /// #SS(sel).
    pub(crate) fn ss_fault<T>(&mut self, sel: u16) -> R<T> {
        self.raise(Exception::with(Exception::SS, err_sel(sel)))
    }

    /// Reads the descriptor of `sel`; `None` if it is outside its table.
    pub(crate) fn descriptor_opt(&mut self, sel: u16) -> R<Option<Desc>> {
        let (base, limit) = if sel & 4 != 0 {
            if !self.ldtr.present() {
                return Ok(None);
            }
            (self.ldtr.base, self.ldtr.limit)
        } else {
            (self.gdtr.base, self.gdtr.limit as u32)
        };
        let off = (sel & 0xfff8) as u32;
        if off + 7 > limit {
            return Ok(None);
        }
        let at = base.wrapping_add(off as u64);
        let raw = self.as_supervisor(|c| c.read_lin::<u64>(at, sreg::DS as u8))?;
        Ok(Some(Desc { sel, at, raw }))
    }

    /// Reads the descriptor of `sel`; raises `vector`(sel) if it is outside its table.
    pub(crate) fn descriptor(&mut self, sel: u16, vector: u8) -> R<Desc> {
        match self.descriptor_opt(sel)? {
            Some(d) => Ok(d),
            None => self.raise(Exception::with(vector, err_sel(sel))),
        }
    }

    /// Sets the accessed bit of a code or data descriptor.
    pub(crate) fn set_accessed(&mut self, d: &mut Desc) -> R<()> {
        if d.raw >> 40 & 1 == 0 {
            d.raw |= 1 << 40;
            let byte = (d.raw >> 40) as u8;
            let at = d.at.wrapping_add(5);
            self.as_supervisor(|c| c.write_lin(at, byte, sreg::DS as u8))?;
        }
        Ok(())
    }

    /// Loads a segment register other than CS as MOV and POP do. Nothing changes on failure.
    pub fn load_seg(&mut self, seg: usize, sel: u16) -> R<()> {
        if !self.protected() {
            let s = &mut self.segs[seg];
            s.sel = sel;
            s.base = (sel as u64) << 4;
            // The limit stays what protected mode left there ("unreal mode").
            s.attr |= 0x93;
            return Ok(());
        }
        if self.vm86() {
            self.segs[seg] = Segment { sel, base: (sel as u64) << 4, limit: 0xffff, attr: 0xf3 };
            return Ok(());
        }
        if sel & 0xfffc == 0 {
            if seg == sreg::SS {
                if !self.long_code || self.cpl == 3 || (sel & 3) as u8 != self.cpl {
                    return self.gp(0);
                }
                // A null SS in 64-bit mode still holds the privilege level.
                self.segs[seg] = Segment { sel, base: 0, limit: 0, attr: (self.cpl as u16) << 5 };
            } else {
                self.segs[seg] = Segment { sel, base: 0, limit: 0, attr: 0 };
            }
            self.update_mode();
            return Ok(());
        }
        let mut d = self.descriptor(sel, Exception::GP)?;
        let rpl = (sel & 3) as u8;
        if seg == sreg::SS {
            if rpl != self.cpl || d.dpl() != self.cpl || !d.user() || d.kind() & 0xa != 2 {
                return self.gp_sel(sel);
            }
            if !d.present() {
                return self.ss_fault(sel);
            }
        } else {
            let readable = d.user() && d.kind() & 0xa != 8;
            if !readable {
                return self.gp_sel(sel);
            }
            if !(d.is_code() && d.conforming()) && (rpl > d.dpl() || self.cpl > d.dpl()) {
                return self.gp_sel(sel);
            }
            if !d.present() {
                return self.np(sel);
            }
        }
        self.set_accessed(&mut d)?;
        self.segs[seg] = d.segment(sel);
        self.update_mode();
        Ok(())
    }

    /// After a return to an outer ring: data segments that the ring may not use become null.
    pub(crate) fn null_inner_segments(&mut self, cpl: u8) {
        for i in [sreg::ES, sreg::DS, sreg::FS, sreg::GS] {
            let s = self.segs[i];
            let conforming = s.attr & 0x1c == 0x1c;
            if s.present() && s.attr & 0x10 != 0 && !conforming && s.dpl() < cpl {
                self.segs[i] = Segment { sel: 0, base: 0, limit: 0, attr: 0 };
            }
        }
    }

    /// Runs `f` with another privilege level (for stack accesses of a ring being entered), restoring it.
    pub(crate) fn with_cpl<T>(&mut self, cpl: u8, f: impl FnOnce(&mut Self) -> T) -> T {
        let saved = self.cpl;
        self.cpl = cpl;
        self.update_tlb_table();
        let r = f(self);
        self.cpl = saved;
        self.update_tlb_table();
        r
    }

    /// LLDT.
    pub(crate) fn load_ldt(&mut self, sel: u16) -> R<()> {
        if sel & 0xfffc == 0 {
            self.ldtr = Segment { sel, base: 0, limit: 0, attr: 0 };
            return Ok(());
        }
        if sel & 4 != 0 {
            return self.gp_sel(sel);
        }
        let d = self.descriptor(sel, Exception::GP)?;
        if d.user() || d.kind() != 2 {
            return self.gp_sel(sel);
        }
        if !d.present() {
            return self.np(sel);
        }
        let mut s = d.segment(sel);
        if self.lma() {
            s.base |= self.upper_base(&d)?;
        }
        self.ldtr = s;
        Ok(())
    }

    /// Bits 32..=63 of a 16-byte system descriptor's base.
    pub(crate) fn upper_base(&mut self, d: &Desc) -> R<u64> {
        let at = d.at.wrapping_add(8);
        Ok((self.as_supervisor(|c| c.read_lin::<u32>(at, sreg::DS as u8))? as u64) << 32)
    }

    /// LTR.
    pub(crate) fn load_tr(&mut self, sel: u16) -> R<()> {
        if sel & 0xfffc == 0 {
            return self.gp(0);
        }
        if sel & 4 != 0 {
            return self.gp_sel(sel);
        }
        let d = self.descriptor(sel, Exception::GP)?;
        if d.user() || !(d.kind() == 9 || d.kind() == 1 && !self.lma()) {
            return self.gp_sel(sel);
        }
        if !d.present() {
            return self.np(sel);
        }
        let mut s = d.segment(sel);
        if self.lma() {
            s.base |= self.upper_base(&d)?;
        }
        s.attr |= 2;
        let at = d.at.wrapping_add(5);
        let byte = (d.raw >> 40) as u8 | 2;
        self.as_supervisor(|c| c.write_lin(at, byte, sreg::DS as u8))?;
        self.tr = s;
        Ok(())
    }

    /// Sets CS from a checked code descriptor; the RPL becomes `cpl`. RIP and the mode are the caller's.
    pub(crate) fn set_cs(&mut self, d: &Desc, cpl: u8) {
        self.segs[sreg::CS] = d.segment(d.sel & 0xfffc | cpl as u16);
        self.cpl = cpl;
    }

    /// A real-mode or virtual-8086 CS.
    pub(crate) fn set_cs_real(&mut self, sel: u16) {
        if self.vm86() {
            self.segs[sreg::CS] = Segment { sel, base: (sel as u64) << 4, limit: 0xffff, attr: 0xfb };
        } else {
            let s = &mut self.segs[sreg::CS];
            s.sel = sel;
            s.base = (sel as u64) << 4;
        }
    }
}
