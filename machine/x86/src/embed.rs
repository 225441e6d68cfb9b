//! What an embedder asks of a processor that does not run.

use crate::bus::Bus;
use crate::cpu::Cpu;
use crate::fp::MXCSR_MASK;
use crate::mmu::Access;
use crate::tlb::PAGE;

impl Cpu {
    /// Physical address of a linear one by the page tables in use, as a supervisor reads it.
    pub fn translate(&mut self, bus: &dyn Bus, linear: u64) -> Option<u64> {
        self.with_bus(bus, |cpu| {
            let m = cpu.walk(linear, Access::Read, false).ok()?;
            Some(m.phys | linear & (PAGE - 1))
        })
    }

    /// x87 and SSE state as 64-bit `FXSAVE` stores it (Intel SDM volume 1, section 10.5.1).
    pub fn fxsave_image(&self) -> [u8; 512] {
        let mut out = [0u8; 512];
        self.put_x87(&mut out, true);
        out[24..28].copy_from_slice(&self.mxcsr.to_le_bytes());
        out[28..32].copy_from_slice(&MXCSR_MASK.to_le_bytes());
        self.put_xmms(self.ymm.len(), &mut out);
        out
    }
}
