//! What this KVM can give a guest's CPU.

use kvm_bindings::{kvm_cpuid_entry2, kvm_msr_entry, CpuId, Msrs};
use kvm_ioctls::Cap;

use super::KvmAccel;
use crate::accel::IrqChip;
use crate::cpu::{Caps, HostCpu, KvmFacts, Leaf};
use crate::{qerr, QResult};

impl KvmAccel {
    /// Features, leaves and the host's identity.
    pub fn cpu_caps(&self) -> QResult<Caps> {
        let table = self.supported_cpuid()?;
        let leaves = table.as_slice().iter().map(from_entry).collect();
        let facts = KvmFacts {
            kernel_lapic: self.irqchip != IrqChip::User,
            tsc_deadline: self.kvm.check_extension(Cap::TscDeadlineTimer),
            mwait: false,
        };
        Ok(Caps::kvm(leaves, |index| self.feature_msr(index), facts, HostCpu::detect()))
    }

    /// A feature MSR, if KVM has it.
    fn feature_msr(&self, index: u32) -> Option<u64> {
        let mut m = Msrs::from_entries(&[kvm_msr_entry { index, ..Default::default() }]).ok()?;
        let n = self.kvm.get_msrs(&mut m).ok()?;
        m.as_slice().get(..n)?.first().map(|e| e.data)
    }
}

fn from_entry(e: &kvm_cpuid_entry2) -> Leaf {
    Leaf { function: e.function, index: e.index, flags: e.flags, regs: [e.eax, e.ebx, e.ecx, e.edx] }
}

/// Leaves in the form that KVM takes.
pub fn to_cpuid(leaves: &[Leaf]) -> QResult<CpuId> {
    let entries: Vec<kvm_cpuid_entry2> = leaves
        .iter()
        .map(|l| kvm_cpuid_entry2 {
            function: l.function,
            index: l.index,
            flags: l.flags,
            eax: l.regs[0],
            ebx: l.regs[1],
            ecx: l.regs[2],
            edx: l.regs[3],
            ..Default::default()
        })
        .collect();
    CpuId::from_entries(&entries).map_err(|_| qerr!("too many CPUID leaves"))
}
