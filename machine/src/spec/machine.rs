//! Machine type, accelerators, CPU model, global property values.

use super::loc::Loc;
use super::value::Dict;

/// `-machine`, all occurrences merged (a later key overrides).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MachineSpec {
    /// Type name or alias; `None` = the default machine.
    pub kind: Option<String>,
    /// Machine properties in order, including those that other options set (`-usb`, `-no-acpi`, `-no-hpet`,
    /// `-no-fd-bootchk`). Values nest (`cxl-fmw.0.size`). What has its own place in
    /// [`VmSpec`](super::VmSpec) is not here: `smp`, `memory`, `boot`, `kernel`, `initrd`, `append`, `dtb`, `firmware`.
    pub props: Dict,
}

/// Where the wish for an accelerator came from; QEMU words errors by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccelOrigin {
    /// `-accel X`: an unknown name is an error prefixed with the option.
    Option,
    /// `-machine accel=a:b` or `-enable-kvm`: each unknown name gives a line `invalid accelerator a`, without a prefix, and is skipped.
    Machine,
    /// Nothing was asked for.
    Default,
}

/// One accelerator to try. The list in [`VmSpec`](super::VmSpec) is tried in order until one starts.
#[derive(Clone, Debug, PartialEq)]
pub struct AccelSpec {
    /// `kvm`, `tcg`, `qtest`, …: any text, checked by the builder.
    pub name: String,
    /// Accelerator properties.
    pub props: Dict,
    /// Where it came from.
    pub origin: AccelOrigin,
    /// Error prefix.
    pub loc: Loc,
}

/// `-cpu`.
#[derive(Clone, Debug, PartialEq)]
pub struct CpuSpec {
    /// Model name before the first comma.
    pub model: String,
    /// Features and properties in order.
    pub features: Vec<CpuFeature>,
}

/// One item after the CPU model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CpuFeature {
    /// `+name`: applied after all `Prop` items.
    Plus(String),
    /// `-name`: applied after every `Plus`, so it wins.
    Minus(String),
    /// `name=value`; a bare `name` means `on`.
    Prop(String, String),
}

/// `-global driver.property=value`.
#[derive(Clone, Debug, PartialEq)]
pub struct GlobalSpec {
    /// Device class.
    pub driver: String,
    /// Property name.
    pub property: String,
    /// Value as text.
    pub value: String,
    /// Error prefix.
    pub loc: Loc,
}

/// `-object` / `object-add`.
#[derive(Clone, Debug, PartialEq)]
pub struct ObjectSpec {
    /// Class name.
    pub qom_type: String,
    /// Name under `/objects`.
    pub id: String,
    /// Properties in order, without `qom-type` and `id`.
    pub props: Dict,
    /// Error prefix.
    pub loc: Loc,
}

/// `-device` / `device_add`.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceSpec {
    /// Class name or alias.
    pub driver: String,
    /// `id=`, checked to be well-formed.
    pub id: Option<String>,
    /// Properties in order, without `driver` and `id`; `bus` and `addr` are here.
    pub props: Dict,
    /// True when it was given as a JSON object, whose values are strictly typed.
    pub json: bool,
    /// Error prefix.
    pub loc: Loc,
}
