//! What this KVM can give a guest's CPU.

use kvm_bindings::{kvm_cpuid_entry2, kvm_msr_entry, CpuId, Msrs, KVMIO};
use kvm_ioctls::{Cap, VcpuFd};
use vmm_sys_util::ioctl::{ioctl_with_mut_ref, ioctl_with_ref};
use vmm_sys_util::{ioctl_ior_nr, ioctl_iow_nr};

use super::KvmAccel;
use crate::accel::IrqChip;
use crate::cpu::{Caps, HostCpu, KvmFacts, Leaf};
use crate::{qerr, QResult};

ioctl_iow_nr!(KVM_X86_SETUP_MCE, KVMIO, 0x9c, u64);
ioctl_ior_nr!(KVM_X86_GET_MCE_CAP_SUPPORTED, KVMIO, 0x9d, u64);

/// Machine-check capabilities that guests get, as far as KVM has them: `MCG_CTL`, software error recovery.
const MCE_WANTED: u64 = 1 << 8 | 1 << 24;
/// Machine-check banks.
const MCE_BANKS: u64 = 10;

impl KvmAccel {
    /// Gives a vCPU the machine-check registers that QEMU's CPUs have.
    pub fn set_up_mce(&self, fd: &VcpuFd) -> QResult<()> {
        let mut supported = 0u64;
        // SAFETY: the request writes one 64-bit value to where the reference points.
        if unsafe { ioctl_with_mut_ref(&self.kvm, KVM_X86_GET_MCE_CAP_SUPPORTED(), &mut supported) } < 0 {
            return Ok(());
        }
        let cap = supported & MCE_WANTED | MCE_BANKS;
        // SAFETY: the request reads one 64-bit value.
        if unsafe { ioctl_with_ref(fd, KVM_X86_SETUP_MCE(), &cap) } < 0 {
            let e = std::io::Error::last_os_error();
            return Err(qerr!("KVM_X86_SETUP_MCE failed: {}", crate::error::strerror(&e)));
        }
        Ok(())
    }

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
