//! CPUs of the board.

use std::sync::Arc;

use super::Build;
use crate::accel::kvm::{to_cpuid, KvmAccel, VcpuConfig};
use crate::accel::tcg::TcgCpuConfig;
use crate::accel::{CpuConfigs, IrqChip};
use crate::cpu::{self, ApicLayout, Caps, CpuDevice, CpuProps, CpuSetup, Name};
use crate::device::{DeviceNode, DeviceTree};
use crate::machine::Machine;
use crate::qom::{self, PropInput};
use crate::{qerr, QResult};

/// Model-specific registers that a model decides.
const MSR_ARCH_CAPABILITIES: u32 = 0x10a;
const MSR_UCODE_REV: u32 = 0x8b;

/// What the machine's accelerator can give a guest's CPU, on this host. Also for machines without CPUs.
pub fn cpu_caps(m: &mut Machine) -> QResult<Caps> {
    if let Some(setup) = &m.cpu_setup {
        return Ok(setup.caps.clone());
    }
    let software = m.accel.name() == "tcg";
    match m.accel.as_any().downcast_mut::<KvmAccel>() {
        Some(kvm) => kvm.cpu_caps(),
        None if software => Ok(Caps::tcg()),
        None => Ok(Caps::any()),
    }
}

impl Build<'_> {
    /// Whether the interrupt controllers are the kernel's.
    pub fn kernel_irqchip(&self) -> bool {
        self.m.accel.irqchip() == IrqChip::Kernel
    }

    /// Creates the CPUs that are present at start.
    pub fn create_cpus(&mut self) -> QResult<()> {
        let Some(default) = self.kind.default_cpu else { return Ok(()) };
        let (name, flags) = match &self.spec.cpu {
            Some(spec) => {
                let (name, parsed) = cpu::apply_spec(spec)?;
                for w in &parsed.warnings {
                    self.messages.warning(w);
                }
                self.m.globals.extend(parsed.globals);
                (name, parsed.flags)
            }
            None => {
                let name =
                    cpu::find_name(default).ok_or_else(|| qerr!("unable to find CPU model '{default}'"))?;
                (name, Vec::new())
            }
        };
        let layout = ApicLayout::new(&self.topo);
        if layout.apic_id_of(self.topo.maxcpus.saturating_sub(1)) >= 255 {
            return Err(qerr!("current -smp configuration requires kernel irqchip and X2APIC API support."));
        }
        let setup = Arc::new(CpuSetup { caps: cpu_caps(self.m)?, flags, layout });
        self.m.info.cpu_model = name.name.into();
        self.check_model(name, &setup)?;
        if self.m.accel.name() == "kvm" && self.m.accel.irqchip() == IrqChip::User {
            self.messages.warning("Userspace local APIC is deprecated for KVM.");
            self.messages.warning("Do not use kernel-irqchip except for the -M isapc machine type.");
        }
        self.m.cpu_setup = Some(setup);
        for index in 0..self.topo.cpus {
            self.create_cpu(name, layout, index)?;
            // The first local APIC brings the helper for guests' task priority accesses.
            if index == 0 && self.vapic_wanted() {
                self.m.add_board_device("kvmvapic", Some(DeviceTree::SYSTEM), &[])?;
            }
        }
        if let Some(first) = self.m.info.cpus.first().copied() {
            self.m.info.cpu = self.m.with::<CpuDevice, _>(first, |c, _| c.facts()).unwrap_or_default();
        }
        self.vcpu_configs()
    }

    /// Whether the CPUs have local APICs that want the helper, and there is room for its option ROM.
    fn vapic_wanted(&self) -> bool {
        let vapic = |n: &DeviceNode| n.props.get_prop("vapic").is_some_and(|p| p.value == true);
        self.ram_size >= 1 << 20 && self.m.tree.iter().any(|n| qom::is_a(n.class, "apic-common") && vapic(n))
    }

    /// Creates the clock of paravirtualized guests, if the accelerator has it.
    pub fn create_guest_clock(&mut self) -> QResult<()> {
        if self.m.accel.guest_clock().is_some() {
            self.m.add_board_device("kvmclock", Some(DeviceTree::SYSTEM), &[])?;
        }
        Ok(())
    }

    /// Tells the user what is wrong with the model, once for all CPUs.
    fn check_model(&mut self, name: &'static Name, setup: &CpuSetup) -> QResult<()> {
        let mut p = CpuProps::new(name);
        if let Some(class) = qom::class_by_name(name.type_name) {
            for g in self.m.globals.iter().filter(|g| qom::is_a(class, &g.driver)) {
                g.apply(class, &mut p)?;
            }
        }
        let (warnings, result) = p.resolve(setup);
        for w in &warnings {
            self.messages.warning(w);
        }
        result
    }

    fn create_cpu(&mut self, name: &Name, layout: ApicLayout, index: u32) -> QResult<()> {
        let place = layout.place(index);
        let text = [
            ("apic-id", layout.apic_id(place).to_string()),
            ("socket-id", place.socket.to_string()),
            ("die-id", place.die.to_string()),
            ("core-id", place.core.to_string()),
            ("thread-id", place.thread.to_string()),
        ];
        let props: Vec<(&str, PropInput<'_>)> = text.iter().map(|(n, v)| (*n, PropInput::Str(v))).collect();
        let id = self.m.add_board_device(name.type_name, None, &props)?;
        self.m.info.cpus.push(id);
        Ok(())
    }

    /// What the accelerator needs to know of each CPU.
    fn vcpu_configs(&mut self) -> QResult<()> {
        match self.m.accel.name() {
            "kvm" => self.kvm_configs(),
            "tcg" => {
                self.tcg_configs();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn tcg_configs(&mut self) {
        let mut configs = Vec::new();
        for id in self.m.info.cpus.clone() {
            configs.extend(self.m.with::<CpuDevice, _>(id, |c, _| TcgCpuConfig {
                apic_id: c.apic_id,
                leaves: c.leaves.clone(),
                msrs: vec![(MSR_UCODE_REV, c.cpu.ucode_rev)],
            }));
        }
        self.m.cpu_configs = Some(CpuConfigs::Tcg(configs));
    }

    fn kvm_configs(&mut self) -> QResult<()> {
        let mut configs = Vec::new();
        for id in self.m.info.cpus.clone() {
            let config = self.m.with::<CpuDevice, _>(id, |c, _| -> QResult<VcpuConfig> {
                let arch = c.cpu.features.0[cpu::ARCH_CAPS];
                Ok(VcpuConfig {
                    apic_id: c.apic_id,
                    cpuid: to_cpuid(&c.leaves)?,
                    msrs: vec![(MSR_ARCH_CAPABILITIES, arch), (MSR_UCODE_REV, c.cpu.ucode_rev)],
                    mce: c.has_machine_checks(),
                    tsc_khz: c.tsc_khz,
                })
            });
            configs.extend(config.transpose()?);
        }
        self.m.cpu_configs = Some(CpuConfigs::Kvm(configs));
        Ok(())
    }
}
