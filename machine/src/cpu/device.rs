//! CPUs as objects of the machine: `<model>-x86_64-cpu` and its local APIC.

use std::any::Any;
use std::sync::Arc;

use rqemu_derive::Device as DeriveDevice;

use super::caps::{Caps, Leaf};
use super::cpuid::{self, find, CpuidInput};
use super::features::Reg;
use super::props::CpuProps;
use super::resolve::{is_amd, Board, Resolved};
use super::topology::ApicLayout;
use crate::accel::IrqChip;
use crate::device::{Cx, Device, RealizeCx};
use crate::memory::{IoSpec, Owner, RegionKind};
use crate::qom::{Classed, DeviceClass};
use crate::{qerr, QResult};

/// What firmware tables say of the CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuFacts {
    /// CPUID leaf 1 EAX.
    pub signature: u32,
    /// CPUID leaf 1 EDX.
    pub features: u32,
    /// AMD or a licensee.
    pub amd: bool,
    /// Physical address bits.
    pub phys_bits: u8,
}

impl Default for CpuFacts {
    fn default() -> Self {
        Self { signature: 0, features: 0, amd: false, phys_bits: 40 }
    }
}

/// "ht" in CPUID leaf 1 EDX.
const HT: u32 = 1 << 28;

impl CpuDevice {
    /// Whether it has the machine-check architecture.
    pub fn has_machine_checks(&self) -> bool {
        let f = &self.cpu.features;
        self.cpu.signature[0].min(15) >= 6 && f.has("mce") && f.has("mca")
    }

    /// Facts for firmware tables.
    pub fn facts(&self) -> CpuFacts {
        CpuFacts {
            signature: find(&self.leaves, 1, Reg::Eax),
            // The multi-threading bit follows the topology; tables show the model.
            features: match self.cpu.features.has("ht") {
                true => find(&self.leaves, 1, Reg::Edx),
                false => find(&self.leaves, 1, Reg::Edx) & !HT,
            },
            amd: is_amd(&self.cpu.vendor),
            phys_bits: self.cpu.phys_bits.min(64) as u8,
        }
    }
}

/// What all CPUs of a machine have in common.
pub struct CpuSetup {
    /// What the accelerator offers.
    pub caps: Caps,
    /// `+name` and `-name` of `-cpu`.
    pub flags: Vec<(String, bool)>,
    /// Shape.
    pub layout: ApicLayout,
}

impl CpuSetup {
    fn board(&self) -> Board<'_> {
        Board { flags: &self.flags, dies: self.layout.dies, threads: self.layout.threads }
    }
}

impl CpuProps {
    /// Resolves everything. The warnings come out even if it fails.
    pub fn resolve(&mut self, setup: &CpuSetup) -> (Vec<String>, QResult<()>) {
        let mut r = match self.expand(&setup.caps, setup.board()) {
            Ok(r) => r,
            Err(e) => return (Vec::new(), Err(e)),
        };
        let result = self.finish(&setup.caps, setup.board(), &mut r);
        let warnings = std::mem::take(&mut r.warnings);
        self.resolved = Some(Box::new(r));
        (warnings, result)
    }
}

impl DeviceClass for CpuProps {
    fn realize(&mut self, cx: &mut RealizeCx<'_>) -> QResult<Box<dyn Device>> {
        let Some(setup) = cx.m().cpu_setup.clone() else {
            return Err(qerr!("this machine has no CPUs"));
        };
        let id = self.int("apic-id") as u32;
        if id == u32::MAX || cx.m().ready {
            return Err(qerr!("CPUs cannot be added with '-device' or 'device_add'"));
        }
        self.resolve(&setup).1?;
        let Some(cpu) = self.resolved.as_deref().cloned() else {
            return Err(qerr!("CPU model did not resolve"));
        };
        let input =
            CpuidInput { props: self, cpu: &cpu, caps: &setup.caps, layout: setup.layout, apic_id: id };
        let leaves = cpuid::leaves(&input);
        let tsc_khz = match self.tsc_frequency / 1000 {
            0 => None,
            khz => Some(u32::try_from(khz).map_err(|_| qerr!("tsc-frequency is too high"))?),
        };
        let has_apic = cpu.features.has("apic");
        if has_apic {
            add_apic(cx, id);
        }
        Ok(Box::new(CpuDevice { apic_id: id, leaves, tsc_khz, cpu }))
    }
}

/// Where messages to local APICs go; all of them share the window of the first.
const MSI_BASE: u64 = 0xfee0_0000;

fn add_apic(cx: &mut RealizeCx<'_>, id: u32) {
    let props = ApicProps { id, version: 0x14, ..ApicProps::default() };
    let face = Box::new(ApicFace);
    let (apic, name, owner) = match cx.m().accel.irqchip() {
        IrqChip::User => {
            let p = Box::new(UserApicProps { apic: props });
            (cx.add_part("lapic", UserApicProps::CLASS, p, None, face), "apic-msi", Owner::Nobody)
        }
        _ => {
            let p = Box::new(KvmApicProps { apic: props });
            (cx.add_part("lapic", KvmApicProps::CLASS, p, None, face), "kvm-apic-msi", Owner::Kernel)
        }
    };
    let m = cx.m();
    let first = !m.mem.iter().any(|(_, r)| r.name == name);
    let r = m.mem.add(name, 1 << 20, RegionKind::Io { owner, spec: IoSpec::ANY }, Some(apic));
    if first {
        let system = m.mem.system;
        m.mem.map(system, r, MSI_BASE, 0x1000);
    }
}

/// A CPU as the machine sees it. It runs in the accelerator.
pub struct CpuDevice {
    /// Local APIC id.
    pub apic_id: u32,
    /// What CPUID answers.
    pub leaves: Vec<Leaf>,
    /// Frequency of the time stamp counter, if the user chose one.
    pub tsc_khz: Option<u32>,
    /// Everything else.
    pub cpu: Resolved,
}

impl Device for CpuDevice {
    fn reset(&mut self, _cx: &mut Cx<'_>) {
        // The accelerator resets its vCPUs itself.
    }
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

/// Properties of every local APIC.
#[derive(DeriveDevice, Debug)]
pub struct ApicProps {
    /// APIC id
    #[prop]
    pub id: u32,
    /// Version register
    #[prop]
    pub version: u8,
    /// Patches guests' accesses to the task priority register
    #[prop(default = true)]
    pub vapic: bool,
    /// Instance number in migration streams is the APIC id as it was before machine version 2.9
    #[prop(name = "legacy-instance-id")]
    pub legacy_instance_id: bool,
}

/// Properties of `kvm-apic`.
#[derive(DeriveDevice, Debug)]
#[class(name = "kvm-apic", parent = "apic-common", internal, hotplug)]
pub struct KvmApicProps {
    /// Properties of every local APIC.
    #[base]
    pub apic: ApicProps,
}

impl DeviceClass for KvmApicProps {
    fn realize(&mut self, _cx: &mut RealizeCx<'_>) -> QResult<Box<dyn Device>> {
        Err(qerr!("a local APIC comes with its CPU"))
    }
}

/// Properties of `apic`, a local APIC in user space.
#[derive(DeriveDevice, Debug)]
#[class(name = "apic", parent = "apic-common", internal, hotplug)]
pub struct UserApicProps {
    /// Properties of every local APIC.
    #[base]
    pub apic: ApicProps,
}

impl DeviceClass for UserApicProps {
    fn realize(&mut self, _cx: &mut RealizeCx<'_>) -> QResult<Box<dyn Device>> {
        Err(qerr!("a local APIC comes with its CPU"))
    }
}

/// A local APIC that the accelerator runs.
struct ApicFace;

impl Device for ApicFace {
    fn reset(&mut self, _cx: &mut Cx<'_>) {}
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

/// Shared setup, as the machine keeps it.
pub type SharedSetup = Option<Arc<CpuSetup>>;
