//! The names that `-cpu` takes, and a class for each.

use super::props::CpuProps;
use super::table::{MAX_TABLE, TABLE};
use crate::device::BusKind;
use crate::qom::{Category, ClassInfo, DeviceClass};

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Everything that accelerator and host offer.
    Max,
    /// The host's CPU.
    Host,
    /// Nothing.
    Base,
    /// A version of a model.
    Version(&'static str, usize),
    /// Another name of a version.
    Alias(&'static str, usize),
    /// A model without version: the machine type chooses (all of them choose the first).
    Plain(&'static str),
}

/// One name.
#[derive(Debug)]
pub struct Name {
    /// As `-cpu` takes it.
    pub name: &'static str,
    /// Class name.
    pub type_name: &'static str,
    /// Meaning.
    pub kind: Kind,
}

const fn class(name: &'static str, kind: Kind, create: fn() -> Box<dyn DeviceClass>) -> ClassInfo {
    ClassInfo {
        name,
        parent: Some(match kind {
            Kind::Host => "max-x86_64-cpu",
            _ => "x86_64-cpu",
        }),
        is_abstract: false,
        desc: "",
        category: Category::Cpu,
        bus: None::<BusKind>,
        aliases: &[],
        user_creatable: true,
        hotpluggable: true,
        props: match kind {
            Kind::Max | Kind::Host => &MAX_TABLE,
            _ => &TABLE,
        },
        extra: &[],
        create: Some(create),
    }
}

fn create<const I: usize>() -> Box<dyn DeviceClass> {
    Box::new(CpuProps::new(&NAMES[I]))
}

macro_rules! names {
    ($($i:literal $name:literal $kind:expr;)*) => {
        use Kind::{Alias, Base, Host, Max, Plain, Version};
        /// All names, sorted.
        pub static NAMES: [Name; COUNT] =
            [$(Name { name: $name, type_name: concat!($name, "-x86_64-cpu"), kind: $kind }),*];
        static CLASSES: [ClassInfo; COUNT] = [$(class(concat!($name, "-x86_64-cpu"), $kind, create::<$i>)),*];
    };
}

/// Number of names.
pub const COUNT: usize = 132;

names! {
    0 "486" Plain("486");
    1 "486-v1" Version("486", 1);
    2 "Broadwell" Plain("Broadwell");
    3 "Broadwell-IBRS" Alias("Broadwell", 3);
    4 "Broadwell-noTSX" Alias("Broadwell", 2);
    5 "Broadwell-noTSX-IBRS" Alias("Broadwell", 4);
    6 "Broadwell-v1" Version("Broadwell", 1);
    7 "Broadwell-v2" Version("Broadwell", 2);
    8 "Broadwell-v3" Version("Broadwell", 3);
    9 "Broadwell-v4" Version("Broadwell", 4);
    10 "Cascadelake-Server" Plain("Cascadelake-Server");
    11 "Cascadelake-Server-noTSX" Alias("Cascadelake-Server", 3);
    12 "Cascadelake-Server-v1" Version("Cascadelake-Server", 1);
    13 "Cascadelake-Server-v2" Version("Cascadelake-Server", 2);
    14 "Cascadelake-Server-v3" Version("Cascadelake-Server", 3);
    15 "Cascadelake-Server-v4" Version("Cascadelake-Server", 4);
    16 "Cascadelake-Server-v5" Version("Cascadelake-Server", 5);
    17 "Conroe" Plain("Conroe");
    18 "Conroe-v1" Version("Conroe", 1);
    19 "Cooperlake" Plain("Cooperlake");
    20 "Cooperlake-v1" Version("Cooperlake", 1);
    21 "Cooperlake-v2" Version("Cooperlake", 2);
    22 "Denverton" Plain("Denverton");
    23 "Denverton-v1" Version("Denverton", 1);
    24 "Denverton-v2" Version("Denverton", 2);
    25 "Denverton-v3" Version("Denverton", 3);
    26 "Dhyana" Plain("Dhyana");
    27 "Dhyana-v1" Version("Dhyana", 1);
    28 "Dhyana-v2" Version("Dhyana", 2);
    29 "EPYC" Plain("EPYC");
    30 "EPYC-IBPB" Alias("EPYC", 2);
    31 "EPYC-Milan" Plain("EPYC-Milan");
    32 "EPYC-Milan-v1" Version("EPYC-Milan", 1);
    33 "EPYC-Rome" Plain("EPYC-Rome");
    34 "EPYC-Rome-v1" Version("EPYC-Rome", 1);
    35 "EPYC-Rome-v2" Version("EPYC-Rome", 2);
    36 "EPYC-v1" Version("EPYC", 1);
    37 "EPYC-v2" Version("EPYC", 2);
    38 "EPYC-v3" Version("EPYC", 3);
    39 "Haswell" Plain("Haswell");
    40 "Haswell-IBRS" Alias("Haswell", 3);
    41 "Haswell-noTSX" Alias("Haswell", 2);
    42 "Haswell-noTSX-IBRS" Alias("Haswell", 4);
    43 "Haswell-v1" Version("Haswell", 1);
    44 "Haswell-v2" Version("Haswell", 2);
    45 "Haswell-v3" Version("Haswell", 3);
    46 "Haswell-v4" Version("Haswell", 4);
    47 "Icelake-Server" Plain("Icelake-Server");
    48 "Icelake-Server-noTSX" Alias("Icelake-Server", 2);
    49 "Icelake-Server-v1" Version("Icelake-Server", 1);
    50 "Icelake-Server-v2" Version("Icelake-Server", 2);
    51 "Icelake-Server-v3" Version("Icelake-Server", 3);
    52 "Icelake-Server-v4" Version("Icelake-Server", 4);
    53 "Icelake-Server-v5" Version("Icelake-Server", 5);
    54 "Icelake-Server-v6" Version("Icelake-Server", 6);
    55 "IvyBridge" Plain("IvyBridge");
    56 "IvyBridge-IBRS" Alias("IvyBridge", 2);
    57 "IvyBridge-v1" Version("IvyBridge", 1);
    58 "IvyBridge-v2" Version("IvyBridge", 2);
    59 "KnightsMill" Plain("KnightsMill");
    60 "KnightsMill-v1" Version("KnightsMill", 1);
    61 "Nehalem" Plain("Nehalem");
    62 "Nehalem-IBRS" Alias("Nehalem", 2);
    63 "Nehalem-v1" Version("Nehalem", 1);
    64 "Nehalem-v2" Version("Nehalem", 2);
    65 "Opteron_G1" Plain("Opteron_G1");
    66 "Opteron_G1-v1" Version("Opteron_G1", 1);
    67 "Opteron_G2" Plain("Opteron_G2");
    68 "Opteron_G2-v1" Version("Opteron_G2", 1);
    69 "Opteron_G3" Plain("Opteron_G3");
    70 "Opteron_G3-v1" Version("Opteron_G3", 1);
    71 "Opteron_G4" Plain("Opteron_G4");
    72 "Opteron_G4-v1" Version("Opteron_G4", 1);
    73 "Opteron_G5" Plain("Opteron_G5");
    74 "Opteron_G5-v1" Version("Opteron_G5", 1);
    75 "Penryn" Plain("Penryn");
    76 "Penryn-v1" Version("Penryn", 1);
    77 "SandyBridge" Plain("SandyBridge");
    78 "SandyBridge-IBRS" Alias("SandyBridge", 2);
    79 "SandyBridge-v1" Version("SandyBridge", 1);
    80 "SandyBridge-v2" Version("SandyBridge", 2);
    81 "Skylake-Client" Plain("Skylake-Client");
    82 "Skylake-Client-IBRS" Alias("Skylake-Client", 2);
    83 "Skylake-Client-noTSX-IBRS" Alias("Skylake-Client", 3);
    84 "Skylake-Client-v1" Version("Skylake-Client", 1);
    85 "Skylake-Client-v2" Version("Skylake-Client", 2);
    86 "Skylake-Client-v3" Version("Skylake-Client", 3);
    87 "Skylake-Client-v4" Version("Skylake-Client", 4);
    88 "Skylake-Server" Plain("Skylake-Server");
    89 "Skylake-Server-IBRS" Alias("Skylake-Server", 2);
    90 "Skylake-Server-noTSX-IBRS" Alias("Skylake-Server", 3);
    91 "Skylake-Server-v1" Version("Skylake-Server", 1);
    92 "Skylake-Server-v2" Version("Skylake-Server", 2);
    93 "Skylake-Server-v3" Version("Skylake-Server", 3);
    94 "Skylake-Server-v4" Version("Skylake-Server", 4);
    95 "Skylake-Server-v5" Version("Skylake-Server", 5);
    96 "Snowridge" Plain("Snowridge");
    97 "Snowridge-v1" Version("Snowridge", 1);
    98 "Snowridge-v2" Version("Snowridge", 2);
    99 "Snowridge-v3" Version("Snowridge", 3);
    100 "Snowridge-v4" Version("Snowridge", 4);
    101 "Westmere" Plain("Westmere");
    102 "Westmere-IBRS" Alias("Westmere", 2);
    103 "Westmere-v1" Version("Westmere", 1);
    104 "Westmere-v2" Version("Westmere", 2);
    105 "athlon" Plain("athlon");
    106 "athlon-v1" Version("athlon", 1);
    107 "base" Base;
    108 "core2duo" Plain("core2duo");
    109 "core2duo-v1" Version("core2duo", 1);
    110 "coreduo" Plain("coreduo");
    111 "coreduo-v1" Version("coreduo", 1);
    112 "host" Host;
    113 "kvm32" Plain("kvm32");
    114 "kvm32-v1" Version("kvm32", 1);
    115 "kvm64" Plain("kvm64");
    116 "kvm64-v1" Version("kvm64", 1);
    117 "max" Max;
    118 "n270" Plain("n270");
    119 "n270-v1" Version("n270", 1);
    120 "pentium" Plain("pentium");
    121 "pentium-v1" Version("pentium", 1);
    122 "pentium2" Plain("pentium2");
    123 "pentium2-v1" Version("pentium2", 1);
    124 "pentium3" Plain("pentium3");
    125 "pentium3-v1" Version("pentium3", 1);
    126 "phenom" Plain("phenom");
    127 "phenom-v1" Version("phenom", 1);
    128 "qemu32" Plain("qemu32");
    129 "qemu32-v1" Version("qemu32", 1);
    130 "qemu64" Plain("qemu64");
    131 "qemu64-v1" Version("qemu64", 1);
}

/// Name record by name.
pub fn find(name: &str) -> Option<&'static Name> {
    NAMES.binary_search_by(|n| n.name.cmp(name)).ok().and_then(|i| NAMES.get(i))
}

/// CPU classes, sorted by the names of the models.
pub fn classes() -> impl Iterator<Item = &'static ClassInfo> {
    CLASSES.iter()
}

/// Class by its full name.
pub fn class_by_name(type_name: &str) -> Option<&'static ClassInfo> {
    let name = type_name.strip_suffix("-x86_64-cpu")?;
    NAMES.binary_search_by(|n| n.name.cmp(name)).ok().and_then(|i| CLASSES.get(i))
}
