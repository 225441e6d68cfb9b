//! Chooses and starts the accelerator.

use std::sync::Arc;

use super::Messages;
use crate::accel::kvm::{KvmAccel, KvmOptions};
use crate::accel::tcg::{TcgAccel, TcgOptions};
use crate::accel::{CpuConfigs, IrqChip, NoCpu, BUILT};
use crate::boards::PcProps;
use crate::cpu::BootRegs;
use crate::machine::Machine;
use crate::qom::{parse_bool, parse_int};
use crate::shared::Shared;
use crate::spec::{AccelOrigin, AccelSpec, Topology, VmSpec};
use crate::{qerr, QError, QResult};

/// Tries the accelerators in order.
pub fn select(m: &mut Machine, spec: &VmSpec, topo: Topology, messages: &mut dyn Messages) -> QResult<()> {
    let mut failed = None;
    for a in &candidates(spec) {
        match one(m, a, spec, topo) {
            Ok(()) => {
                if a.name == "kvm" {
                    warn_cpus(m, a, topo, messages);
                }
                if failed.is_some() {
                    messages.info(&format!("falling back to {}", title(&a.name)));
                }
                return Ok(());
            }
            Err(e) => {
                if a.origin != AccelOrigin::Default || spec.accels.len() <= 1 {
                    if let Some(h) = &e.hint {
                        messages.plain(h.trim_end());
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

/// Warns of more CPUs than the host has.
fn warn_cpus(m: &mut Machine, a: &AccelSpec, topo: Topology, messages: &mut dyn Messages) {
    let Some(kvm) = m.accel.as_any().downcast_ref::<KvmAccel>() else { return };
    let limit = kvm.recommended_vcpus();
    for (what, n) in [("SMP", topo.cpus), ("hotpluggable", topo.maxcpus)] {
        if n as usize > limit {
            messages.warning_at(
                &a.loc,
                &format!(
                    "Number of {what} cpus requested ({n}) exceeds the recommended cpus supported by KVM ({limit})"
                ),
            );
        }
    }
}

fn one(m: &mut Machine, a: &AccelSpec, spec: &VmSpec, topo: Topology) -> QResult<()> {
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
                    // This board has I/O APICs that the kernel lacks.
                    _ if micro.is_some() => IrqChip::Split,
                    _ => IrqChip::Kernel,
                };
            }
            for (k, v) in a.props.iter() {
                match (k, v.as_str()) {
                    ("x-assist", Some("on")) => opts.assist = true,
                    ("x-assist", Some("off")) => opts.assist = false,
                    ("kernel-irqchip", Some("on")) => opts.irqchip = IrqChip::Kernel,
                    ("kernel-irqchip", Some("off")) => opts.irqchip = IrqChip::User,
                    ("kernel-irqchip", Some("split")) => opts.irqchip = IrqChip::Split,
                    _ => return Err(qerr!("Property 'kvm-accel.{k}' not found")),
                }
            }
            if spec.run.icount.is_some() {
                return Err(qerr!("-icount is not allowed with hardware virtualization"));
            }
            let kvm = KvmAccel::new(&opts)?;
            let max = kvm.max_vcpus();
            if topo.maxcpus as usize > max {
                return Err(qerr!(
                    "Number of SMP cpus requested ({}) exceeds the maximum cpus supported by KVM ({max})",
                    topo.maxcpus
                ));
            }
            if spec.run.cpu_pm {
                kvm.keep_idle_in_guest()?;
            }
            m.accel = Box::new(kvm);
            Ok(())
        }
        "tcg" => {
            m.accel = Box::new(TcgAccel::new(tcg_props(a)?));
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

/// `-accel tcg,...`: only what means something to this engine.
fn tcg_props(a: &AccelSpec) -> QResult<TcgOptions> {
    let mut o = TcgOptions::default();
    for (k, v) in a.props.iter() {
        match (k, v.as_str()) {
            ("thread", Some("multi")) => o.single = false,
            ("thread", Some("single")) => o.single = true,
            ("thread", _) => {
                return Err(qerr!("Invalid 'thread' setting {}", v.as_str().unwrap_or_default()))
            }
            ("tb-size", v) => {
                let n = v.and_then(parse_int).ok_or_else(|| qerr!("Parameter 'tb-size' expects uint64"))?;
                o.code_mib = n.try_into().map_err(|_| qerr!("Parameter 'tb-size' expects uint32_t"))?;
            }
            ("split-wx", v) => match v.and_then(parse_bool) {
                // Nothing is ever both writable and executable here.
                Some(false) => {}
                Some(true) => return Err(qerr!("split-wx=on is not supported: there is no code buffer")),
                None => return Err(qerr!("Parameter 'split-wx' expects 'on' or 'off'")),
            },
            _ => return Err(qerr!("Property 'tcg-accel.{k}' not found")),
        }
    }
    Ok(o)
}

/// Creates the vCPUs (parked).
pub fn start(shared: &Arc<Shared>, boot: Option<BootRegs>) -> QResult<()> {
    let mut m = shared.lock();
    let maps = shared.maps.load_full();
    let m = &mut *m;
    let (models, clock) = (m.cpu_configs.take(), m.clock.shared());
    if let Some(tcg) = m.accel.as_any().downcast_mut::<TcgAccel>() {
        let Some(CpuConfigs::Tcg(cpus)) = models else { return Ok(()) };
        return tcg.start(shared, cpus, boot, clock);
    }
    let Some(kvm) = m.accel.as_any().downcast_mut::<KvmAccel>() else { return Ok(()) };
    let Some(CpuConfigs::Kvm(cpus)) = models else { return Ok(()) };
    kvm.start(&maps, shared, &cpus, boot, clock)
}
