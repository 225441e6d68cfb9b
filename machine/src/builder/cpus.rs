//! CPUs of the board.

use super::Build;
use crate::accel::kvm::{KvmAccel, VcpuConfig};
use crate::accel::IrqChip;
use crate::QResult;

impl Build<'_> {
    /// Whether the interrupt controllers are the kernel's.
    pub fn kernel_irqchip(&self) -> bool {
        self.m.accel.irqchip() == IrqChip::Kernel
    }

    /// Creates the CPUs that are present at start.
    pub fn create_cpus(&mut self) -> QResult<()> {
        let n = self.topo.cpus;
        let Some(kvm) = self.m.accel.as_any().downcast_mut::<KvmAccel>() else { return Ok(()) };
        let supported = kvm.supported_cpuid()?;
        let configs = (0..n)
            .map(|i| {
                let mut cpuid = supported.clone();
                for e in cpuid.as_mut_slice() {
                    match e.function {
                        1 => e.ebx = (e.ebx & 0x00ff_ffff) | i << 24,
                        0xb | 0x1f => e.edx = i,
                        _ => {}
                    }
                }
                VcpuConfig { apic_id: i, cpuid }
            })
            .collect();
        self.m.cpu_configs = Some(configs);
        Ok(())
    }
}
