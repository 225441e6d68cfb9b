//! What an embedder asks of a processor that does not run.

use crate::bus::Bus;
use crate::cpu::Cpu;
use crate::fault::Exception;
use crate::fp::MXCSR_MASK;
use crate::mmu::Access;
use crate::seg::intr::Source;
use crate::tlb::PAGE;

impl Cpu {
    /// Physical address of a linear one by the page tables in use, as a supervisor reads it.
    pub fn translate(&mut self, bus: &dyn Bus, linear: u64) -> Option<u64> {
        self.with_bus(bus, |cpu| {
            let m = cpu.walk(linear, Access::Read, false).ok()?;
            Some(m.phys | linear & (PAGE - 1))
        })
    }

    /// Makes this CPU the helper of another engine that runs the same vCPU: accesses to what [`Bus::elsewhere`] names and
    /// unknown instructions end [`Cpu::run`] with [`crate::Exit::Leave`] before anything
    /// has changed. MSRs that are not carried over are the bus's.
    pub fn assist(&mut self) {
        self.assisting = true;
    }

    /// The state was replaced, or memory may have changed: translations go; code is looked at again before it is used.
    pub fn resync(&mut self) {
        self.exit = None;
        self.intr = false;
        self.flush_tlb_all();
    }

    /// Code may have changed behind the processor's back: it is looked at again before it is used.
    pub fn recheck_code(&mut self) {
        self.bump();
    }

    /// Delivers an event that the other engine had begun to. `false`: triple fault.
    pub fn inject(&mut self, bus: &dyn Bus, vector: u8, error: Option<u32>, interrupt: bool) -> bool {
        let source = if interrupt { Source::Interrupt } else { Source::Fault };
        self.with_bus(bus, |cpu| cpu.deliver(source, Exception { vector, error }))
    }

    /// Reads `size` (1, 2, 4, 8) bytes of memory at a linear address, as a supervisor.
    pub fn peek(&mut self, bus: &dyn Bus, linear: u64, size: usize) -> Option<u64> {
        self.with_bus(bus, |cpu| cpu.as_supervisor(|c| c.read_slow(linear, size, 0))).ok()
    }

    /// Writes likewise; `false` if it cannot.
    pub fn poke(&mut self, bus: &dyn Bus, linear: u64, size: usize, value: u64) -> bool {
        self.with_bus(bus, |cpu| cpu.as_supervisor(|c| c.write_slow(linear, size, value, 0))).is_ok()
    }

    /// Forgets all decoded code: memory may have changed behind the processor's back.
    pub fn forget_code(&mut self) {
        self.code.forget_all();
    }

    /// Sets x87 and SSE state from what 64-bit `FXSAVE` stores.
    pub fn set_fxsave_image(&mut self, b: &[u8; 512]) {
        let u64_at = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| b[at + i]));
        let u16_at = |at: usize| u16::from_le_bytes([b[at], b[at + 1]]);
        self.set_control(u16_at(0));
        self.fpu.tag = b[4];
        self.fpu.fop = u16_at(6) & 0x7ff;
        (self.fpu.fip, self.fpu.fdp) = (u64_at(8), u64_at(16));
        self.set_fpu_status(u16_at(2));
        self.set_mxcsr(u64_at(24) as u32 & 0xffff);
        for i in 0..8 {
            let at = 32 + 16 * i;
            self.fpu.r[(usize::from(self.fpu.top) + i) & 7] = [u64_at(at), u64::from(u16_at(at + 8))];
        }
        for (i, v) in self.ymm.iter_mut().enumerate() {
            let at = 160 + 16 * i;
            (v.0[0], v.0[1]) = (u64_at(at), u64_at(at + 8));
        }
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
