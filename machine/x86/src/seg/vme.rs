//! Virtual-8086 mode extensions and protected-mode virtual interrupts (CR4.VME, CR4.PVI; Intel SDM volume 3,
//! sections 20.3 and 20.4).

use crate::cpu::Cpu;
use crate::fault::R;
use crate::state::{cr4, rflags, sreg};

impl Cpu {
    /// Where IOPL forbids to change IF, VIF takes its place.
    pub(crate) fn has_virtual_if(&self) -> bool {
        let bit = if self.vm86() { cr4::VME } else { cr4::PVI };
        self.cpl == 3 && self.cr4 & bit != 0
    }

    /// What PUSHF and INT n push when IOPL is less than 3: IF shows VIF, IOPL shows 3.
    pub(crate) fn flags_with_virtual_if(&self) -> u64 {
        let f = self.rflags() & !(rflags::VM | rflags::RF | rflags::IF) | rflags::IOPL;
        if self.rf & rflags::VIF != 0 {
            f | rflags::IF
        } else {
            f
        }
    }

    /// What 16-bit POPF and IRET load when IOPL is less than 3.
    pub(crate) fn load_flags_with_virtual_if(&mut self, v: u64) -> R<()> {
        let pending = v & rflags::IF != 0 && self.rf & rflags::VIP != 0;
        if pending || v & rflags::TF != 0 {
            return self.gp(0);
        }
        let w = rflags::ARITH | rflags::TF | rflags::DF | rflags::NT;
        let vif = if v & rflags::IF != 0 { rflags::VIF } else { 0 };
        let old = self.rflags() & !rflags::VIF;
        self.set_rflags(old & !w | v & w | vif);
        Ok(())
    }

    /// Whether INT `vector` in virtual-8086 mode goes to the guest's own real-mode vector: by the bitmap below the
    /// I/O permission bitmap of the TSS.
    pub(crate) fn redirects(&mut self, vector: u8) -> R<bool> {
        if self.cr4 & cr4::VME == 0 {
            return Ok(false);
        }
        let tr = self.tr;
        if !tr.present() || tr.attr & 0xd != 9 || tr.limit < 103 {
            return self.gp(0);
        }
        let map = self.as_supervisor(|c| c.read_lin::<u16>(tr.base.wrapping_add(102), 3))?;
        let at = u32::from(map).wrapping_sub(32).wrapping_add(u32::from(vector) / 8);
        if at > tr.limit {
            return self.gp(0);
        }
        let bits = self.as_supervisor(|c| c.read_lin::<u8>(tr.base.wrapping_add(u64::from(at)), 3))?;
        Ok(bits >> (vector & 7) & 1 == 0)
    }

    /// Delivers INT `vector` through the real-mode vector table at linear address 0. RIP is the one to push.
    pub(crate) fn redirected_interrupt(&mut self, vector: u8) -> R<()> {
        let virt = self.iopl() < 3;
        let flags = if virt { self.flags_with_virtual_if() } else { self.rflags() };
        let entry = self.read_lin::<u32>(u64::from(vector) * 4, sreg::DS as u8)?;
        let mut f = self.frame();
        f.push(self, flags, 2)?;
        let cs = u64::from(self.segs[sreg::CS].sel);
        f.push(self, cs, 2)?;
        let rip = self.rip;
        f.push(self, rip, 2)?;
        self.set_sp(f.mask, f.sp);
        self.rf &= !(rflags::TF | rflags::RF | if virt { rflags::VIF } else { rflags::IF });
        self.set_cs_real((entry >> 16) as u16);
        self.rip = u64::from(entry & 0xffff);
        self.update_mode();
        Ok(())
    }

    /// IRET with a 16-bit operand in virtual-8086 mode when IOPL is less than 3.
    pub(crate) fn iret_virtual_if(&mut self) -> R<()> {
        let mut f = self.frame();
        let rip = f.pop(self, 2)?;
        let sel = f.pop(self, 2)? as u16;
        let fl = f.pop(self, 2)?;
        if rip > u64::from(self.segs[sreg::CS].limit) {
            return self.gp(0);
        }
        self.load_flags_with_virtual_if(fl)?;
        self.set_sp(f.mask, f.sp);
        self.set_cs_real(sel);
        self.rip = rip;
        self.update_mode();
        Ok(())
    }
}
