//! Chooses and starts the accelerator.

use std::sync::Arc;

use super::Messages;
use crate::accel::kvm::{KvmAccel, KvmOptions, VcpuConfig};
use crate::accel::{IrqChip, NoCpu, BUILT};
use crate::boards::{MachineType, PcProps};
use crate::cpu::BootRegs;
use crate::machine::Machine;
use crate::shared::Shared;
use crate::spec::{AccelOrigin, AccelSpec, Topology, VmSpec};
use crate::{qerr, QError, QResult};

/// Tries the accelerators in order.
pub fn select(
    m: &mut Machine,
    spec: &VmSpec,
    kind: &MachineType,
    topo: Topology,
    messages: &mut dyn Messages,
) -> QResult<()> {
    let mut failed = None;
    for a in &candidates(spec) {
        match one(m, a, kind, topo) {
            Ok(()) => {
                if failed.is_some() {
                    messages.info(&format!("falling back to {}", title(&a.name)));
                }
                return Ok(());
            }
            Err(e) => {
                if a.origin != AccelOrigin::Default || spec.accels.len() <= 1 {
                    if let Some(h) = &e.hint {
                        messages.err(h.trim_end());
                    }
                    messages.info(&a.loc.locate(QError { hint: None, ..e.clone() }).desc);
                }
                failed = Some(e);
            }
        }
    }
    Err(QError::generic("").with_hint(""))
}

/// The accelerators to try. A default that this build lacks gives way to one that it has, as in a QEMU without TCG; what
/// the user named is tried as named.
fn candidates(spec: &VmSpec) -> Vec<AccelSpec> {
    let wanted = |a: &&AccelSpec| a.origin != AccelOrigin::Default || BUILT.contains(&a.name.as_str());
    let mut list: Vec<AccelSpec> = spec.accels.iter().filter(wanted).cloned().collect();
    if list.is_empty() {
        list.extend(spec.accels.first().map(|a| AccelSpec { name: BUILT[0].into(), ..a.clone() }));
    }
    list
}

fn title(name: &str) -> String {
    name.to_uppercase()
}

fn one(m: &mut Machine, a: &AccelSpec, kind: &MachineType, topo: Topology) -> QResult<()> {
    match a.name.as_str() {
        "kvm" => {
            let mut opts = KvmOptions::default();
            let props = m.board.as_ref().map(|b| b.props.as_any());
            let pc = props.and_then(|p| p.downcast_ref::<PcProps>()).map(|p| &p.x86);
            let micro = props.and_then(|p| p.downcast_ref::<crate::boards::MicrovmProps>()).map(|p| &p.x86);
            if let Some(p) = pc.or(micro) {
                use crate::boards::KernelIrqchip as K;
                opts.irqchip = match (p.kernel_irqchip, p.kernel_irqchip_old) {
                    (K::Off, _) | (_, K::Off) => IrqChip::User,
                    (K::Split, _) | (_, K::Split) => IrqChip::Split,
                    _ => IrqChip::Kernel,
                };
            }
            for (k, v) in a.props.iter() {
                match (k, v.as_str()) {
                    ("kernel-irqchip", Some("on")) => opts.irqchip = IrqChip::Kernel,
                    ("kernel-irqchip", Some("off")) => opts.irqchip = IrqChip::User,
                    ("kernel-irqchip", Some("split")) => opts.irqchip = IrqChip::Split,
                    _ => return Err(qerr!("Property 'kvm-accel.{k}' not found")),
                }
            }
            let kvm = KvmAccel::new(&opts)?;
            let max = kvm.max_vcpus();
            if topo.maxcpus as usize > max {
                return Err(qerr!(
                    "Number of SMP cpus requested ({}) exceeds the maximum cpus supported by KVM ({max})",
                    topo.maxcpus
                ));
            }
            let _ = kind;
            m.accel = Box::new(kvm);
            Ok(())
        }
        "qtest" => {
            m.accel = Box::new(NoCpu);
            m.clock.set_manual();
            Ok(())
        }
        name => Err(qerr!("invalid accelerator {name}")),
    }
}

/// Creates the vCPUs (parked).
pub fn start(shared: &Arc<Shared>, topo: Topology, boot: Option<BootRegs>) -> QResult<()> {
    let mut m = shared.lock();
    let maps = shared.maps.load_full();
    let m = &mut *m;
    let models = m.cpu_configs.take();
    let Some(kvm) = m.accel.as_any().downcast_mut::<KvmAccel>() else { return Ok(()) };
    let cpus: Vec<VcpuConfig> = models.unwrap_or_default();
    let _ = topo;
    kvm.start(&maps, shared, &cpus, boot)
}
