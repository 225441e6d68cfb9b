//! Names, types and defaults of the properties that every CPU class has.

use serde_json::Value;

use super::features::{ALIASES, NAME_COUNT};
use super::words::{w, WORD_TABLE};
use crate::qom::{PropInfo, PropTable};

/// A switch or number.
pub struct Scalar {
    /// Name.
    pub name: &'static str,
    /// Type name in introspection.
    pub ty: &'static str,
    /// Default.
    pub default: i64,
    desc: &'static str,
    shown: fn() -> Option<Value>,
}

macro_rules! flag {
    ($name:literal, $default:literal) => {
        Scalar {
            name: $name,
            ty: "bool",
            default: $default as i64,
            desc: "",
            shown: || Some(Value::Bool($default)),
        }
    };
}

/// A Hyper-V enlightenment.
macro_rules! hv {
    ($name:literal) => {
        Scalar { name: $name, ty: "bool", default: 0, desc: "on/off", shown: || Some(Value::Bool(false)) }
    };
}

macro_rules! int {
    ($name:literal, $ty:literal, $default:literal) => {
        Scalar {
            name: $name,
            ty: $ty,
            default: $default,
            desc: "",
            shown: || Some(Value::from($default as i64)),
        }
    };
}

/// Switches and numbers, sorted by name.
pub const SCALARS: &[Scalar] = &[
    int!("apic-id", "uint32", 4294967295),
    flag!("check", true),
    int!("core-id", "int32", -1),
    flag!("cpuid-0xb", true),
    int!("die-id", "int32", -1),
    flag!("enforce", false),
    flag!("fill-mtrr-mask", true),
    flag!("full-cpuid-auto-level", true),
    flag!("host-phys-bits", false),
    int!("host-phys-bits-limit", "uint8", 0),
    hv!("hv-apicv"),
    hv!("hv-avic"),
    hv!("hv-crash"),
    hv!("hv-emsr-bitmap"),
    flag!("hv-enforce-cpuid", false),
    hv!("hv-evmcs"),
    hv!("hv-frequencies"),
    hv!("hv-ipi"),
    flag!("hv-passthrough", false),
    hv!("hv-reenlightenment"),
    hv!("hv-relaxed"),
    hv!("hv-reset"),
    hv!("hv-runtime"),
    int!("hv-spinlocks", "uint32", 4294967295),
    hv!("hv-stimer"),
    hv!("hv-stimer-direct"),
    hv!("hv-syndbg"),
    hv!("hv-synic"),
    hv!("hv-time"),
    hv!("hv-tlbflush"),
    hv!("hv-tlbflush-direct"),
    hv!("hv-tlbflush-ext"),
    hv!("hv-vapic"),
    int!("hv-version-id-build", "uint32", 14393),
    int!("hv-version-id-major", "uint16", 10),
    int!("hv-version-id-minor", "uint16", 0),
    int!("hv-version-id-sbranch", "uint8", 0),
    int!("hv-version-id-snumber", "uint32", 0),
    int!("hv-version-id-spack", "uint32", 0),
    hv!("hv-vpindex"),
    hv!("hv-xmm-input"),
    flag!("kvm", true),
    flag!("kvm-no-smi-migration", false),
    flag!("kvm-pv-enforce-cpuid", false),
    flag!("l3-cache", true),
    int!("level", "uint32", 4294967295),
    int!("level-func7", "uint32", 4294967295),
    flag!("lmce", false),
    int!("min-level", "uint32", 0),
    int!("min-xlevel", "uint32", 0),
    int!("min-xlevel2", "uint32", 0),
    int!("node-id", "int32", -1),
    int!("phys-bits", "uint32", 0),
    flag!("pmu", false),
    int!("socket-id", "int32", -1),
    flag!("tcg-cpuid", true),
    int!("thread-id", "int32", -1),
    int!("ucode-rev", "uint64", 0),
    flag!("vmware-cpuid-freq", true),
    flag!("x-force-features", false),
    int!("x-hv-max-vps", "int32", -1),
    flag!("x-hv-synic-kvm-only", false),
    flag!("x-intel-pt-auto-level", true),
    flag!("x-migrate-smi-count", true),
    flag!("x-vendor-cpuid-only", true),
    int!("xlevel", "uint32", 4294967295),
    int!("xlevel2", "uint32", 4294967295),
];

const fn none() -> Option<Value> {
    None
}

const fn row(name: &'static str, ty: &'static str) -> PropInfo {
    PropInfo { name, ty, desc: "", qdev: true, default: none }
}

/// Everything that is no feature, switch or number.
const OTHERS: [PropInfo; 18] = [
    row("crash-information", "GuestPanicInformation"),
    row("family", "int"),
    row("feature-words", "X86CPUFeatureWordInfo"),
    row("filtered-features", "X86CPUFeatureWordInfo"),
    PropInfo {
        name: "hv-no-nonarch-coresharing",
        ty: "OnOffAuto",
        desc: "on/off/auto",
        qdev: true,
        default: || Some(Value::from("off")),
    },
    row("hv-vendor-id", "str"),
    row("lbr-fmt", "uint64"),
    row("lbr_fmt", "uint64"),
    row("legacy-cache", "bool"),
    row("legacy-memory", "str"),
    row("memory", "link<memory-region>"),
    row("model", "int"),
    row("model-id", "string"),
    row("start-powered-off", "bool"),
    row("stepping", "int"),
    row("tsc-frequency", "int"),
    row("unavailable-features", "strList"),
    row("vendor", "string"),
];

const COUNT: usize = NAME_COUNT + ALIASES.len() + SCALARS.len() + OTHERS.len();

static ROWS: [PropInfo; COUNT] = {
    let mut out = [const { row("", "bool") }; COUNT];
    let mut n = 0;
    let mut word = 0;
    while word < w::COUNT {
        let names = WORD_TABLE[word].names;
        let mut i = 0;
        while i < names.len() {
            let (bit, name) = names[i];
            // The second bit of a name that stands for two.
            let again = word == w::KVM && bit == 3 || word == w::VMX_EPT_VPID && bit == 41;
            if !again {
                out[n] = row(name, "bool");
                n += 1;
            }
            i += 1;
        }
        word += 1;
    }
    let mut i = 0;
    while i < ALIASES.len() {
        out[n] = row(ALIASES[i].0, "bool");
        n += 1;
        i += 1;
    }
    let mut i = 0;
    while i < SCALARS.len() {
        let s = &SCALARS[i];
        out[n] = PropInfo { name: s.name, ty: s.ty, desc: s.desc, qdev: true, default: s.shown };
        n += 1;
        i += 1;
    }
    let mut i = 0;
    while i < OTHERS.len() {
        let o = &OTHERS[i];
        out[n] = PropInfo { name: o.name, ty: o.ty, desc: o.desc, qdev: o.qdev, default: o.default };
        n += 1;
        i += 1;
    }
    assert!(n == COUNT);
    out
};

/// Properties of every CPU class.
pub static TABLE: PropTable = PropTable { own: &ROWS, base: None };

static MAX_ROWS: [PropInfo; 2] = [
    PropInfo { name: "migratable", ty: "bool", desc: "", qdev: true, default: || Some(Value::Bool(true)) },
    PropInfo {
        name: "host-cache-info",
        ty: "bool",
        desc: "",
        qdev: true,
        default: || Some(Value::Bool(false)),
    },
];

/// Properties of `max` and `host`.
pub static MAX_TABLE: PropTable = PropTable { own: &MAX_ROWS, base: Some(&TABLE) };

/// Position in [`SCALARS`].
pub fn scalar(name: &str) -> Option<usize> {
    SCALARS.binary_search_by(|s| s.name.cmp(name)).ok()
}
