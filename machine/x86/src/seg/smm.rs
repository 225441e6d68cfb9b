//! System management mode: the AMD64 state save area (as QEMU's 64-bit targets lay it out).

use crate::cpu::Cpu;
use crate::flags::Flags;
use crate::state::{cr0, gpr, rflags, sreg, Segment};

const REVISION: u32 = 0x0002_0064;

/// Offsets (from SMBASE + 0x8000) of ES..GS, GDTR, LDTR, IDTR, TR in the save area.
const SEG0: u64 = 0x7e00;

/// Attributes are kept where a descriptor has them (as QEMU does; AMD's manual packs them).
const ATTR: u16 = 0xf0ff;

impl Cpu {
    fn smram_w(&mut self, off: u64, size: usize, v: u64) {
        let at = self.msrs.smbase + 0x8000 + off;
        match size {
            2 => self.phys_write(at, (v as u16).to_le_bytes()),
            4 => self.phys_write(at, (v as u32).to_le_bytes()),
            _ => self.phys_write(at, v.to_le_bytes()),
        }
    }

    fn smram_r(&mut self, off: u64, size: usize) -> u64 {
        let at = self.msrs.smbase + 0x8000 + off;
        match size {
            2 => u16::from_le_bytes(self.phys_read(at)) as u64,
            4 => u32::from_le_bytes(self.phys_read(at)) as u64,
            _ => u64::from_le_bytes(self.phys_read(at)),
        }
    }

    fn save_seg(&mut self, off: u64, s: Segment) {
        self.smram_w(off, 2, s.sel as u64);
        self.smram_w(off + 2, 2, (s.attr & ATTR) as u64);
        self.smram_w(off + 4, 4, s.limit as u64);
        self.smram_w(off + 8, 8, s.base);
    }

    fn load_seg_smm(&mut self, off: u64) -> Segment {
        let attr = self.smram_r(off + 2, 2) as u16;
        Segment {
            sel: self.smram_r(off, 2) as u16,
            attr: attr & ATTR,
            limit: self.smram_r(off + 4, 4) as u32,
            base: self.smram_r(off + 8, 8),
        }
    }

    /// Takes an SMI.
    pub(crate) fn enter_smm(&mut self) {
        self.smm = true;
        self.nmi_before_smm = self.nmi_masked;
        self.nmi_masked = true;
        self.bus().smm(self.id, true);
        self.flush_tlb_all();
        for i in 0..6 {
            let s = self.segs[i];
            self.save_seg(SEG0 + 16 * i as u64, s);
        }
        let (g, l, d, t) = (self.gdtr, self.ldtr, self.idtr, self.tr);
        self.save_seg(0x7e60, Segment { base: g.base, limit: g.limit as u32, sel: 0, attr: 0 });
        self.save_seg(0x7e70, l);
        self.save_seg(0x7e80, Segment { base: d.base, limit: d.limit as u32, sel: 0, attr: 0 });
        self.save_seg(0x7e90, t);
        self.smram_w(0x7ed0, 8, self.efer);
        for i in 0..16 {
            // RAX is at the highest address of the register area.
            let v = self.regs[i];
            self.smram_w(0x7ff8 - 8 * i as u64, 8, v);
        }
        self.smram_w(0x7f78, 8, self.rip);
        let fl = self.rflags();
        self.smram_w(0x7f70, 4, fl);
        self.smram_w(0x7f68, 4, self.dr[6]);
        self.smram_w(0x7f60, 4, self.dr[7]);
        self.smram_w(0x7f58, 4, self.cr0);
        self.smram_w(0x7f50, 8, self.cr3);
        self.smram_w(0x7f48, 4, self.cr4);
        self.smram_w(0x7efc, 4, REVISION as u64);
        self.smram_w(0x7f00, 4, self.msrs.smbase);
        self.efer = 0;
        self.fl = Flags::from_bits(0);
        self.rf = rflags::ONE;
        self.rip = 0x8000;
        self.cr0 &= !(cr0::PE | cr0::EM | cr0::TS | cr0::PG);
        self.cr4 = 0;
        self.dr[7] = 0x400;
        self.cpl = 0;
        let base = self.msrs.smbase;
        self.segs[sreg::CS] = Segment { sel: (base >> 4) as u16, base, limit: u32::MAX, attr: 0x8093 };
        for i in [sreg::ES, sreg::SS, sreg::DS, sreg::FS, sreg::GS] {
            self.segs[i] = Segment { sel: 0, base: 0, limit: u32::MAX, attr: 0x8093 };
        }
        self.update_mode();
    }

    /// RSM (in SMM).
    pub(crate) fn leave_smm(&mut self) {
        self.efer = self.smram_r(0x7ed0, 8);
        for i in 0..6 {
            self.segs[i] = self.load_seg_smm(SEG0 + 16 * i as u64);
        }
        let g = self.load_seg_smm(0x7e60);
        self.gdtr.base = g.base;
        self.gdtr.limit = g.limit as u16;
        self.ldtr = self.load_seg_smm(0x7e70);
        let d = self.load_seg_smm(0x7e80);
        self.idtr.base = d.base;
        self.idtr.limit = d.limit as u16;
        self.tr = self.load_seg_smm(0x7e90);
        for i in 0..16 {
            self.regs[i] = self.smram_r(0x7ff8 - 8 * i as u64, 8);
        }
        self.regs[gpr::ZERO] = 0;
        self.rip = self.smram_r(0x7f78, 8);
        let fl = self.smram_r(0x7f70, 4);
        self.set_rflags(fl);
        self.dr[6] = self.smram_r(0x7f68, 4);
        self.dr[7] = self.smram_r(0x7f60, 4);
        self.cr0 = self.smram_r(0x7f58, 4);
        self.cr3 = self.smram_r(0x7f50, 8);
        self.cr4 = self.smram_r(0x7f48, 4);
        let base = self.smram_r(0x7f00, 4);
        self.msrs.smbase = base;
        self.cpl = if self.cr0 & cr0::PE == 0 {
            0
        } else if fl & rflags::VM != 0 {
            3
        } else {
            self.segs[sreg::SS].dpl()
        };
        self.smm = false;
        self.nmi_masked = self.nmi_before_smm;
        self.bus().smm(self.id, false);
        self.flush_tlb_all();
        self.update_mode();
    }
}
