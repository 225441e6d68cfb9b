//! Machine types: one table from which `-machine help`, `query-machines` and the builder work.

mod flash;
mod memory;
pub mod microvm;
pub mod microvm_dt;
mod none;
mod pc;
mod props;
mod values;
mod versions;

pub use memory::RamLayout;
pub use microvm::MicrovmProps;
pub use props::{KernelIrqchip, PcProps, SmbiosEntryPoint, X86Props};

use crate::builder::Build;
use crate::qom::{PropAccess, PropGet, PropInput, PropTable};
use crate::spec::{MachineDefaults, SmpTraits};
use crate::QResult;

/// One `driver.property=value` that an older machine version changes.
pub type Compat = (&'static str, &'static str, &'static str);

/// A machine type.
pub struct MachineType {
    /// Name (`pc-i440fx-7.2`).
    pub name: &'static str,
    /// Other name (`pc`).
    pub alias: Option<&'static str>,
    /// Description.
    pub desc: &'static str,
    /// Used when no `-machine` is given.
    pub is_default: bool,
    /// Largest number of CPUs.
    pub max_cpus: u32,
    /// CPUs can be plugged.
    pub hotpluggable_cpus: bool,
    /// Default CPU model.
    pub default_cpu: Option<&'static str>,
    /// Id of the RAM block.
    pub default_ram_id: Option<&'static str>,
    /// RAM when `-m` is not given, in bytes.
    pub default_ram: u64,
    /// `-numa node,mem=` is accepted.
    pub numa_mem_supported: bool,
    /// ACPI can be switched on.
    pub acpi: bool,
    /// Default devices.
    pub defaults: fn() -> MachineDefaults,
    /// Values that this version and the ones after it changed, the latest version's first.
    pub compat: &'static [&'static [Compat]],
    /// `-smp N` makes sockets rather than cores.
    pub prefer_sockets: bool,
    /// AMD's HyperTransport range below 1 TiB is reserved for guests with AMD processors.
    pub keeps_amd_hole: bool,
    /// `_UID` of the PCI root in the ACPI tables.
    pub pci_root_uid: u8,
    /// Its properties.
    pub props: fn() -> Box<dyn MachineProps>,
    /// Builds the board.
    pub init: fn(&mut Build<'_>) -> QResult<()>,
}

/// Properties of a machine type.
pub trait MachineProps: PropAccess {
    /// Table for introspection.
    fn table(&self) -> &'static PropTable;
    /// The concrete properties.
    fn as_any(&self) -> &dyn std::any::Any;
}

impl MachineType {
    /// QOM type name.
    pub fn type_name(&self) -> String {
        format!("{}-machine", self.name)
    }

    /// What `-smp` may ask for.
    pub fn smp_traits(&self) -> SmpTraits<'static> {
        SmpTraits {
            machine: self.name,
            min_cpus: u32::from(self.max_cpus > 0).min(1),
            max_cpus: self.max_cpus.max(1),
            dies: self.max_cpus > 1,
            clusters: false,
            prefer_sockets: self.prefer_sockets,
        }
    }
}

/// All machine types, in the order of `-machine help`.
pub static MACHINES: &[&MachineType] = &[
    &microvm::MICROVM,
    &pc::PC_7_2,
    &versions::PC_7_1,
    &versions::PC_7_0,
    &versions::PC_6_2,
    &versions::PC_6_1,
    &versions::PC_6_0,
    &versions::PC_5_2,
    &versions::PC_5_1,
    &versions::PC_5_0,
    &versions::PC_4_2,
    &versions::PC_4_1,
    &none::NONE,
];

/// By name or alias.
pub fn find(name: &str) -> Option<&'static MachineType> {
    MACHINES.iter().copied().find(|m| m.name == name || m.alias == Some(name))
}

/// The default type.
pub fn default_type() -> &'static MachineType {
    MACHINES.iter().copied().find(|m| m.is_default).unwrap_or(&pc::PC_7_2)
}

/// `/machine` itself is not a device, but `qom-get` on it works the same way.
pub struct MachineObject {
    /// Type.
    pub kind: &'static MachineType,
    /// Properties.
    pub props: Box<dyn MachineProps>,
}

impl MachineObject {
    /// Sets a property by name.
    pub fn set(&mut self, name: &str, input: &PropInput<'_>) -> QResult<()> {
        let owner = self.kind.type_name();
        if self.props.set_prop(&owner, name, input)? {
            Ok(())
        } else {
            Err(crate::qerr!("Property '{owner}.{name}' not found"))
        }
    }

    /// Reads a property.
    pub fn get(&self, name: &str) -> Option<PropGet> {
        self.props.get_prop(name)
    }
}
