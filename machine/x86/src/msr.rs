//! Model-specific registers and control registers.

use crate::cpu::Cpu;
use crate::fault::R;
use crate::state::{cr0, cr4, efer, sreg};

impl Cpu {
    /// Time stamp counter as the guest sees it.
    pub fn guest_tsc(&self) -> u64 {
        self.bus().tsc().wrapping_add(self.tsc_offset)
    }

    /// Registers that are carried over between this engine and the one that it helps out.
    fn carried(i: u32) -> bool {
        matches!(i, 0x174..=0x176 | 0x277 | 0xc000_0080..=0xc000_0084 | 0xc000_0100..=0xc000_0103)
    }

    /// RDMSR. Unknown registers read as zero, as under TCG.
    pub fn read_msr(&mut self, i: u32) -> R<u64> {
        if self.assisting && i != 0x10 && !Self::carried(i) {
            return match self.bus().msr_read(self.id, i) {
                Some(v) => Ok(v),
                None => self.gp(0),
            };
        }
        let m = &self.msrs;
        Ok(match i {
            0x10 => self.guest_tsc(),
            0x1b | 0x6e0 | 0x800..=0x8ff => match self.bus().msr_read(self.id, i) {
                Some(v) => v,
                None => return self.gp(0),
            },
            0x3a => m.feature_control,
            0x3b => m.tsc_adjust,
            0x48 => m.spec_ctrl,
            0x9e => m.smbase,
            0xfe => 0x508,
            0x174 => m.sysenter_cs,
            0x175 => m.sysenter_esp,
            0x176 => m.sysenter_eip,
            0x179 => 0x0100_0109 + 1,
            0x17a => m.mcg_status,
            0x17b => m.mcg_ctl,
            0x1a0 => m.misc_enable,
            0x198 => 1000 << 40 | 1000,
            0x200..=0x20f => m.mtrr_var[(i - 0x200) as usize],
            0x250 => m.mtrr_fixed[0],
            0x258 | 0x259 => m.mtrr_fixed[(i - 0x257) as usize],
            0x268..=0x26f => m.mtrr_fixed[(i - 0x265) as usize],
            0x277 => m.pat,
            0x2ff => m.mtrr_def_type,
            0x400..=0x427 => m.mc_banks[(i - 0x400) as usize],
            0xda0 => m.xss,
            0xd90 => m.bndcfgs,
            0xc000_0080 => self.efer,
            0xc000_0081 => m.star,
            0xc000_0082 => m.lstar,
            0xc000_0083 => m.cstar,
            0xc000_0084 => m.fmask,
            0xc000_0100 => self.segs[sreg::FS].base,
            0xc000_0101 => self.segs[sreg::GS].base,
            0xc000_0102 => m.kernel_gs_base,
            0xc000_0103 => m.tsc_aux,
            0xc001_0117 => m.vm_hsave_pa,
            _ => self.bus().msr_read(self.id, i).unwrap_or(0),
        })
    }

    /// WRMSR. Unknown registers ignore writes, as under TCG.
    pub fn write_msr(&mut self, i: u32, v: u64) -> R<()> {
        if self.assisting && !Self::carried(i) {
            return if self.bus().msr_write(self.id, i, v) { Ok(()) } else { self.gp(0) };
        }
        let canonical_needed =
            matches!(i, 0x175 | 0x176 | 0xc000_0082 | 0xc000_0083 | 0xc000_0100 | 0xc000_0101 | 0xc000_0102);
        if canonical_needed && !Self::canonical(v) {
            return self.gp(0);
        }
        let m = &mut self.msrs;
        match i {
            0x10 => self.tsc_offset = v.wrapping_sub(self.bus().tsc()),
            0x1b | 0x6e0 | 0x800..=0x8ff => {
                if !self.bus().msr_write(self.id, i, v) {
                    return self.gp(0);
                }
            }
            0x3a => m.feature_control = v,
            0x3b => {
                let d = v.wrapping_sub(m.tsc_adjust);
                m.tsc_adjust = v;
                self.tsc_offset = self.tsc_offset.wrapping_add(d);
            }
            0x48 => m.spec_ctrl = v,
            0x174 => m.sysenter_cs = v & 0xffff,
            0x175 => m.sysenter_esp = v,
            0x176 => m.sysenter_eip = v,
            0x17a => m.mcg_status = v,
            0x17b => m.mcg_ctl = v,
            0x1a0 => m.misc_enable = v,
            0x200..=0x20f => m.mtrr_var[(i - 0x200) as usize] = v,
            0x250 => m.mtrr_fixed[0] = v,
            0x258 | 0x259 => m.mtrr_fixed[(i - 0x257) as usize] = v,
            0x268..=0x26f => m.mtrr_fixed[(i - 0x265) as usize] = v,
            0x277 => {
                if v.to_le_bytes().iter().any(|t| !matches!(t, 0 | 1 | 4..=7)) {
                    return self.gp(0);
                }
                m.pat = v;
            }
            0x2ff => m.mtrr_def_type = v,
            0x400..=0x427 => m.mc_banks[(i - 0x400) as usize] = v,
            0xda0 => m.xss = v,
            0xd90 => m.bndcfgs = v,
            0xc000_0080 => {
                let mut ok = 0;
                let (xd, xc) = (self.model.x1_edx(), self.model.x1_ecx());
                for (bit, have) in [
                    (efer::SCE, xd >> 11 & 1 != 0),
                    (efer::LME, xd >> 29 & 1 != 0),
                    (efer::NXE, xd >> 20 & 1 != 0),
                    (efer::FFXSR, xd >> 25 & 1 != 0),
                    (efer::SVME, xc >> 2 & 1 != 0),
                ] {
                    if have {
                        ok |= bit;
                    }
                }
                if (v ^ self.efer) & efer::LME != 0 && self.cr0 & cr0::PG != 0 {
                    return self.gp(0);
                }
                self.efer = self.efer & !ok | v & ok;
                self.flush_tlb_all();
                self.update_mode();
            }
            0xc000_0081 => m.star = v,
            0xc000_0082 => m.lstar = v,
            0xc000_0083 => m.cstar = v,
            0xc000_0084 => m.fmask = v & 0xffff_ffff,
            0xc000_0100 => self.segs[sreg::FS].base = v,
            0xc000_0101 => self.segs[sreg::GS].base = v,
            0xc000_0102 => m.kernel_gs_base = v,
            0xc000_0103 => m.tsc_aux = v & 0xffff_ffff,
            0xc001_0117 => m.vm_hsave_pa = v,
            _ => {
                self.bus().msr_write(self.id, i, v);
            }
        }
        Ok(())
    }

    /// MOV to CR0.
    pub(crate) fn set_cr0(&mut self, v: u64) -> R<()> {
        let v = v & 0xe005_003f | cr0::ET;
        if v & cr0::PG != 0 && v & cr0::PE == 0 || v & cr0::NW != 0 && v & cr0::CD == 0 {
            return self.gp(0);
        }
        let changed = v ^ self.cr0;
        if changed & cr0::PG != 0 {
            if v & cr0::PG != 0 && self.efer & efer::LME != 0 {
                if self.cr4 & cr4::PAE == 0 || self.segs[sreg::CS].attr & crate::state::Segment::L != 0 {
                    return self.gp(0);
                }
                self.efer |= efer::LMA;
            } else if v & cr0::PG == 0 {
                if self.long_code {
                    return self.gp(0);
                }
                self.efer &= !efer::LMA;
            }
        }
        self.cr0 = v;
        if changed & (cr0::PG | cr0::WP | cr0::PE) != 0 {
            self.flush_tlb_all();
        }
        if changed & cr0::PE != 0 && v & cr0::PE == 0 {
            self.cpl = 0;
        }
        self.update_mode();
        Ok(())
    }

    /// Loads CR3 (the page-table base), dropping what is not global.
    pub(crate) fn set_cr3(&mut self, v: u64) {
        self.cr3 = if self.lma() { v & !(1 << 63) } else { v & 0xffff_ffff };
        if self.cr0 & cr0::PG != 0 {
            self.xlat.flush_local();
            self.gens[0] += 1;
        }
    }

    /// Bits of CR4 that the model has.
    fn cr4_allowed(&self) -> u64 {
        let (d, c, b7, c7) =
            (self.model.f1_edx(), self.model.f1_ecx(), self.model.f7_ebx(), self.model.f7_ecx());
        let mut ok = cr4::TSD | cr4::DE | cr4::PCE;
        for (bit, have) in [
            (cr4::VME | cr4::PVI, d >> 1 & 1),
            (cr4::PSE, d >> 3 & 1),
            (cr4::PAE, d >> 6 & 1),
            (cr4::MCE, d >> 7 & 1),
            (cr4::PGE, d >> 13 & 1),
            (cr4::OSFXSR, d >> 24 & 1),
            (cr4::OSXMMEXCPT, d >> 25 & 1),
            (cr4::UMIP, c7 >> 2 & 1),
            (cr4::FSGSBASE, b7 & 1),
            (cr4::PCIDE, c >> 17 & 1),
            (cr4::OSXSAVE, c >> 26 & 1),
            (cr4::SMEP, b7 >> 7 & 1),
            (cr4::SMAP, b7 >> 20 & 1),
        ] {
            if have != 0 {
                ok |= bit;
            }
        }
        ok
    }

    /// MOV to CR4.
    pub(crate) fn set_cr4(&mut self, v: u64) -> R<()> {
        if v & !self.cr4_allowed() != 0
            || self.lma() && v & cr4::PAE == 0
            || v & cr4::PCIDE != 0 && (!self.lma() || self.cr4 & cr4::PCIDE == 0 && self.cr3 & 0xfff != 0)
        {
            return self.gp(0);
        }
        let changed = v ^ self.cr4;
        self.cr4 = v;
        if changed & (cr4::PAE | cr4::PGE | cr4::PSE | cr4::SMEP | cr4::SMAP | cr4::PCIDE) != 0 {
            self.flush_tlb_all();
        }
        self.update_mode();
        Ok(())
    }

    /// CPUID with the bits that follow the CPU's state.
    pub fn cpuid(&self, leaf: u32, sub: u32) -> [u32; 4] {
        let mut r = self.model.cpuid(leaf, sub);
        match (leaf, sub) {
            (1, _) => {
                r[2] &= !(1 << 27);
                if self.cr4 & cr4::OSXSAVE != 0 {
                    r[2] |= 1 << 27;
                }
            }
            (0xd, 0) if r[2] != 0 => r[1] = if self.xcr0 & 4 != 0 { 0x340 } else { 0x240 },
            _ => {}
        }
        r
    }
}
