//! CPU models: what each promises a guest. The rows were measured from QEMU 7.2 (expansion of every model).

use super::caches::CacheModel;

/// Vendor of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vendor {
    /// `GenuineIntel`.
    Intel,
    /// `AuthenticAMD`.
    Amd,
    /// `HygonGenuine`.
    Hygon,
}

impl Vendor {
    /// The string that CPUID shows.
    pub fn id(self) -> &'static str {
        match self {
            Self::Intel => "GenuineIntel",
            Self::Amd => "AuthenticAMD",
            Self::Hygon => "HygonGenuine",
        }
    }
}

/// VMX capabilities, in the order of the words `VMX_PROC` to `VMX_VMFUNC`. They count only if `vmx` is on.
pub type Vmx = [u64; 9];

/// A CPU model.
pub struct Model {
    /// Name without version.
    pub name: &'static str,
    /// Vendor.
    pub vendor: Vendor,
    /// Family, model, stepping.
    pub signature: (u32, u32, u32),
    /// Highest basic CPUID leaf, before features raise it.
    pub level: u32,
    /// Highest extended CPUID leaf, before features raise it.
    pub xlevel: u32,
    /// Model name that guests see.
    pub id: &'static str,
    /// Features of the first version.
    pub features: &'static str,
    /// VMX capabilities of the first version.
    pub vmx: &'static Vmx,
    /// Caches.
    pub caches: CacheModel,
    /// Versions; each starts from the one before.
    pub versions: &'static [Version],
}

/// What a version changes.
pub struct Version {
    /// `+feature` and `-feature`.
    pub change: &'static str,
    /// New model name, empty: unchanged.
    pub id: &'static str,
    /// Remark in the list of models.
    pub note: &'static str,
    /// New model and stepping numbers.
    pub cpu: Option<(u32, u32)>,
}

impl Version {
    const fn cpu(mut self, model: u32, stepping: u32) -> Self {
        self.cpu = Some((model, stepping));
        self
    }
}

const FIRST: Version = next("", "", "");

const fn next(change: &'static str, id: &'static str, note: &'static str) -> Version {
    Version { change, id, note, cpu: None }
}

/// Model by name without version.
pub fn find(name: &str) -> Option<&'static Model> {
    MODELS.binary_search_by(|m| m.name.cmp(name)).ok().and_then(|i| MODELS.get(i))
}

const NO_VMX: Vmx = [0; 9];
const VMX_BROADWELL: Vmx =
    [0xfbf99e8c, 0x37bff, 0xe9, 0x7c9004, 0xe204, 0x20000060, 0xf0106330041, 0xc0000000000000, 0x1];
const VMX_CASCADELAKE_SERVER: Vmx =
    [0xfbf99e8c, 0x37bff, 0xe9, 0x7c9004, 0xe204, 0x20000060, 0xf0106330041, 0xc0000000000000, 0x0];
const VMX_CONROE: Vmx = [0xf3f81e8c, 0x1, 0x29, 0x8000, 0x200, 0x40, 0x0, 0x40000000000000, 0x0];
const VMX_HASWELL: Vmx =
    [0xfbf99e8c, 0x7bff, 0xe9, 0x7c9004, 0xe204, 0x20000060, 0xf0106330041, 0xc0000000000000, 0x1];
const VMX_ICELAKE_SERVER: Vmx =
    [0xfbf99e8c, 0x7bff, 0xe9, 0x7c9004, 0xe204, 0x20000060, 0xf0106330041, 0xc0000000000000, 0x0];
const VMX_IVYBRIDGE: Vmx =
    [0xfbf99e8c, 0xbff, 0xe9, 0x7c9004, 0xe204, 0x60, 0xf0106130041, 0xc0000000000000, 0x0];
const VMX_NEHALEM: Vmx =
    [0xfbf99e8c, 0x7f, 0x69, 0x7c9004, 0xe204, 0x40, 0xf0106130041, 0xc0000000000000, 0x0];
const VMX_PENRYN: Vmx = [0xf3f81e8c, 0x41, 0x29, 0x9000, 0x2200, 0x40, 0x0, 0x40000000000000, 0x0];
const VMX_SANDYBRIDGE: Vmx =
    [0xfbf99e8c, 0xff, 0x69, 0x7c9004, 0xe204, 0x60, 0xf0106130041, 0xc0000000000000, 0x0];
const VMX_SKYLAKE_CLIENT: Vmx =
    [0xfbf99e8c, 0x378ef, 0x69, 0x7c9004, 0xe204, 0x20000060, 0xf0106330041, 0xc0000000000000, 0x1];
const VMX_COREDUO: Vmx = [0x73801e8c, 0x0, 0x9, 0x8000, 0x200, 0x40, 0x0, 0x0, 0x0];
const VMX_KVM64: Vmx = [0x63b81e8c, 0x0, 0x9, 0x8000, 0x200, 0x40, 0x0, 0x0, 0x0];

/// All models, sorted by name.
pub static MODELS: &[Model] = &[
    Model {
        name: "486",
        vendor: Vendor::Intel,
        signature: (4, 8, 0),
        level: 0x1,
        xlevel: 0x0,
        id: "",
        features: "fpu vme pse",
        vmx: &NO_VMX,
        caches: CacheModel::Legacy,
        versions: &[FIRST],
    },
    Model {
        name: "Broadwell",
        vendor: Vendor::Intel,
        signature: (6, 61, 2),
        level: 0xd,
        xlevel: 0x80000008,
        id: "Intel Core Processor (Broadwell)",
        features: "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr \
            sse sse2 pni pclmulqdq ssse3 fma cx16 pcid sse4.1 sse4.2 x2apic movbe popcnt tsc-deadline \
            aes xsave avx f16c rdrand fsgsbase bmi1 hle avx2 smep bmi2 erms invpcid rtm rdseed adx \
            smap syscall nx rdtscp lm lahf-lm abm 3dnowprefetch xsaveopt arat",
        vmx: &VMX_BROADWELL,
        caches: CacheModel::Legacy,
        versions: &[
            FIRST,
            next("-hle -rtm", "Intel Core Processor (Broadwell, no TSX)", ""),
            next("+hle +rtm +spec-ctrl", "Intel Core Processor (Broadwell, IBRS)", ""),
            next("-hle -rtm", "Intel Core Processor (Broadwell, no TSX, IBRS)", ""),
        ],
    },
    Model {
        name: "Cascadelake-Server",
        vendor: Vendor::Intel,
        signature: (6, 85, 6),
        level: 0xd,
        xlevel: 0x80000008,
        id: "Intel Xeon Processor (Cascadelake)",
        features: "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr \
            sse sse2 pni pclmulqdq ssse3 fma cx16 pcid sse4.1 sse4.2 x2apic movbe popcnt tsc-deadline \
            aes xsave avx f16c rdrand fsgsbase bmi1 hle avx2 smep bmi2 erms invpcid rtm avx512f \
            avx512dq rdseed adx smap clflushopt clwb avx512cd avx512bw avx512vl pku avx512vnni \
            spec-ctrl ssbd syscall nx pdpe1gb rdtscp lm lahf-lm abm 3dnowprefetch xsaveopt xsavec \
            xgetbv1 arat",
        vmx: &VMX_CASCADELAKE_SERVER,
        caches: CacheModel::Legacy,
        versions: &[
            FIRST,
            next(
                "+arch-capabilities +rdctl-no +ibrs-all +skip-l1dfl-vmentry +mds-no",
                "",
                "ARCH_CAPABILITIES",
            ),
            next("-hle -rtm", "", "ARCH_CAPABILITIES, no TSX"),
            next("+vmx-eptp-switching", "", "ARCH_CAPABILITIES, EPT switching, no TSX"),
            next("+xsaves +vmx-xsaves", "", "ARCH_CAPABILITIES, EPT switching, XSAVES, no TSX"),
        ],
    },
    Model {
        name: "Conroe",
        vendor: Vendor::Intel,
        signature: (6, 15, 3),
        level: 0xa,
        xlevel: 0x80000008,
        id: "Intel Celeron_4x0 (Conroe/Merom Class Core 2)",
        features: "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr \
            sse sse2 pni ssse3 syscall nx lm lahf-lm",
        vmx: &VMX_CONROE,
        caches: CacheModel::Legacy,
        versions: &[FIRST],
    },
    Model {
        name: "Cooperlake",
        vendor: Vendor::Intel,
        signature: (6, 85, 10),
        level: 0xd,
        xlevel: 0x80000008,
        id: "Intel Xeon Processor (Cooperlake)",
        features: "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr \
            sse sse2 pni pclmulqdq ssse3 fma cx16 pcid sse4.1 sse4.2 x2apic movbe popcnt tsc-deadline \
            aes xsave avx f16c rdrand fsgsbase bmi1 hle avx2 smep bmi2 erms invpcid rtm avx512f \
            avx512dq rdseed adx smap clflushopt clwb avx512cd avx512bw avx512vl pku avx512vnni \
            spec-ctrl stibp arch-capabilities ssbd avx512-bf16 syscall nx pdpe1gb rdtscp lm lahf-lm \
            abm 3dnowprefetch xsaveopt xsavec xgetbv1 arat rdctl-no ibrs-all skip-l1dfl-vmentry mds-no \
            pschange-mc-no taa-no",
        vmx: &VMX_BROADWELL,
        caches: CacheModel::Legacy,
        versions: &[FIRST, next("+xsaves +vmx-xsaves", "", "XSAVES")],
    },
    Model {
        name: "Denverton",
        vendor: Vendor::Intel,
        signature: (6, 95, 1),
        level: 0x15,
        xlevel: 0x80000008,
        id: "Intel Atom Processor (Denverton)",
        features: "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr \
            sse sse2 pni pclmulqdq monitor ssse3 cx16 sse4.1 sse4.2 x2apic movbe popcnt tsc-deadline \
            aes xsave rdrand fsgsbase smep erms mpx rdseed smap clflushopt sha-ni spec-ctrl \
            arch-capabilities ssbd syscall nx pdpe1gb rdtscp lm lahf-lm 3dnowprefetch xsaveopt xsavec \
            xgetbv1 arat rdctl-no skip-l1dfl-vmentry",
        vmx: &VMX_BROADWELL,
        caches: CacheModel::Legacy,
        versions: &[
            FIRST,
            next("-monitor -mpx", "", "no MPX, no MONITOR"),
            next("+xsaves +vmx-xsaves", "", "XSAVES, no MPX, no MONITOR"),
        ],
    },
    Model {
        name: "Dhyana",
        vendor: Vendor::Hygon,
        signature: (24, 0, 1),
        level: 0xd,
        xlevel: 0x8000001e,
        id: "Hygon Dhyana Processor",
        features: "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr \
            sse sse2 pni monitor ssse3 fma cx16 sse4.1 sse4.2 movbe popcnt xsave avx f16c rdrand \
            fsgsbase bmi1 avx2 smep bmi2 rdseed adx smap clflushopt syscall nx mmxext fxsr-opt pdpe1gb \
            rdtscp lm lahf-lm svm cr8legacy abm sse4a misalignsse 3dnowprefetch osvw topoext ibpb npt \
            nrip-save xsaveopt xsavec xgetbv1 arat",
        vmx: &NO_VMX,
        caches: CacheModel::Epyc,
        versions: &[FIRST, next("+xsaves", "", "XSAVES")],
    },
    Model {
        name: "EPYC",
        vendor: Vendor::Amd,
        signature: (23, 1, 2),
        level: 0xd,
        xlevel: 0x8000001e,
        id: "AMD EPYC Processor",
        features: "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr \
            sse sse2 pni pclmulqdq monitor ssse3 fma cx16 sse4.1 sse4.2 movbe popcnt aes xsave avx \
            f16c rdrand fsgsbase bmi1 avx2 smep bmi2 rdseed adx smap clflushopt sha-ni syscall nx \
            mmxext fxsr-opt pdpe1gb rdtscp lm lahf-lm svm cr8legacy abm sse4a misalignsse \
            3dnowprefetch osvw topoext npt nrip-save xsaveopt xsavec xgetbv1 arat",
        vmx: &NO_VMX,
        caches: CacheModel::Epyc,
        versions: &[
            FIRST,
            next("+ibpb", "AMD EPYC Processor (with IBPB)", ""),
            next("+perfctr-core +clzero +xsaveerptr +xsaves", "AMD EPYC Processor", ""),
        ],
    },
    Model {
        name: "EPYC-Milan",
        vendor: Vendor::Amd,
        signature: (25, 1, 1),
        level: 0xd,
        xlevel: 0x8000001e,
        id: "AMD EPYC-Milan Processor",
        features: "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr \
            sse sse2 pni pclmulqdq monitor ssse3 fma cx16 pcid sse4.1 sse4.2 movbe popcnt aes xsave \
            avx f16c rdrand fsgsbase bmi1 avx2 smep bmi2 erms invpcid rdseed adx smap clflushopt clwb \
            sha-ni umip pku rdpid fsrm syscall nx mmxext fxsr-opt pdpe1gb rdtscp lm lahf-lm svm \
            cr8legacy abm sse4a misalignsse 3dnowprefetch osvw topoext perfctr-core clzero xsaveerptr \
            wbnoinvd ibpb ibrs amd-stibp amd-ssbd npt nrip-save svme-addr-chk xsaveopt xsavec xgetbv1 \
            xsaves arat",
        vmx: &NO_VMX,
        caches: CacheModel::Milan,
        versions: &[FIRST],
    },
    Model {
        name: "EPYC-Rome",
        vendor: Vendor::Amd,
        signature: (23, 49, 0),
        level: 0xd,
        xlevel: 0x8000001e,
        id: "AMD EPYC-Rome Processor",
        features: "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr \
            sse sse2 pni pclmulqdq monitor ssse3 fma cx16 sse4.1 sse4.2 movbe popcnt aes xsave avx \
            f16c rdrand fsgsbase bmi1 avx2 smep bmi2 rdseed adx smap clflushopt clwb sha-ni umip rdpid \
            syscall nx mmxext fxsr-opt pdpe1gb rdtscp lm lahf-lm svm cr8legacy abm sse4a misalignsse \
            3dnowprefetch osvw topoext perfctr-core clzero xsaveerptr wbnoinvd ibpb amd-stibp npt \
            nrip-save xsaveopt xsavec xgetbv1 xsaves arat",
        vmx: &NO_VMX,
        caches: CacheModel::Rome,
        versions: &[FIRST, next("+ibrs +amd-ssbd", "", "")],
    },
    Model {
        name: "Haswell",
        vendor: Vendor::Intel,
        signature: (6, 60, 4),
        level: 0xd,
        xlevel: 0x80000008,
        id: "Intel Core Processor (Haswell)",
        features: "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr \
            sse sse2 pni pclmulqdq ssse3 fma cx16 pcid sse4.1 sse4.2 x2apic movbe popcnt tsc-deadline \
            aes xsave avx f16c rdrand fsgsbase bmi1 hle avx2 smep bmi2 erms invpcid rtm syscall nx \
            rdtscp lm lahf-lm abm xsaveopt arat",
        vmx: &VMX_HASWELL,
        caches: CacheModel::Legacy,
        versions: &[
            FIRST,
            next("-hle -rtm", "Intel Core Processor (Haswell, no TSX)", "").cpu(60, 1),
            next("+hle +rtm +spec-ctrl", "Intel Core Processor (Haswell, IBRS)", "").cpu(60, 4),
            next("-hle -rtm", "Intel Core Processor (Haswell, no TSX, IBRS)", "").cpu(60, 1),
        ],
    },
    Model {
        name: "Icelake-Server",
        vendor: Vendor::Intel,
        signature: (6, 134, 0),
        level: 0xd,
        xlevel: 0x80000008,
        id: "Intel Xeon Processor (Icelake)",
        features: "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr \
            sse sse2 pni pclmulqdq ssse3 fma cx16 pcid sse4.1 sse4.2 x2apic movbe popcnt tsc-deadline \
            aes xsave avx f16c rdrand fsgsbase bmi1 hle avx2 smep bmi2 erms invpcid rtm avx512f \
            avx512dq rdseed adx smap clflushopt clwb avx512cd avx512bw avx512vl avx512vbmi umip pku \
            avx512vbmi2 gfni vaes vpclmulqdq avx512vnni avx512bitalg avx512-vpopcntdq la57 spec-ctrl \
            ssbd syscall nx pdpe1gb rdtscp lm lahf-lm abm 3dnowprefetch wbnoinvd xsaveopt xsavec \
            xgetbv1 arat",
        vmx: &VMX_ICELAKE_SERVER,
        caches: CacheModel::Legacy,
        versions: &[
            FIRST,
            next("-hle -rtm", "", "no TSX"),
            next(
                "+arch-capabilities +rdctl-no +ibrs-all +skip-l1dfl-vmentry +mds-no +pschange-mc-no +taa-no",
                "",
                "",
            ),
            next("+avx512ifma +sha-ni +rdpid +fsrm +vmx-rdseed-exit +vmx-pml +vmx-eptp-switching", "", "")
                .cpu(106, 0),
            next("+xsaves +vmx-xsaves", "", "XSAVES"),
            next("+vmx-page-walk-5", "", "5-level EPT"),
        ],
    },
    Model {
        name: "IvyBridge",
        vendor: Vendor::Intel,
        signature: (6, 58, 9),
        level: 0xd,
        xlevel: 0x80000008,
        id: "Intel Xeon E3-12xx v2 (Ivy Bridge)",
        features: "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr \
            sse sse2 pni pclmulqdq ssse3 cx16 sse4.1 sse4.2 x2apic popcnt tsc-deadline aes xsave avx \
            f16c rdrand fsgsbase smep erms syscall nx rdtscp lm lahf-lm xsaveopt arat",
        vmx: &VMX_IVYBRIDGE,
        caches: CacheModel::Legacy,
        versions: &[FIRST, next("+spec-ctrl", "Intel Xeon E3-12xx v2 (Ivy Bridge, IBRS)", "")],
    },
    Model {
        name: "KnightsMill",
        vendor: Vendor::Intel,
        signature: (6, 133, 0),
        level: 0xd,
        xlevel: 0x80000008,
        id: "Intel Xeon Phi Processor (Knights Mill)",
        features: "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr \
            sse sse2 ss pni pclmulqdq ssse3 fma cx16 sse4.1 sse4.2 x2apic movbe popcnt tsc-deadline \
            aes xsave avx f16c rdrand fsgsbase bmi1 avx2 smep bmi2 erms avx512f rdseed adx avx512pf \
            avx512er avx512cd avx512-vpopcntdq avx512-4vnniw avx512-4fmaps syscall nx pdpe1gb rdtscp \
            lm lahf-lm abm 3dnowprefetch xsaveopt arat",
        vmx: &NO_VMX,
        caches: CacheModel::Legacy,
        versions: &[FIRST],
    },
    Model {
        name: "Nehalem",
        vendor: Vendor::Intel,
        signature: (6, 26, 3),
        level: 0xb,
        xlevel: 0x80000008,
        id: "Intel Core i7 9xx (Nehalem Class Core i7)",
        features: "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr \
            sse sse2 pni ssse3 cx16 sse4.1 sse4.2 popcnt syscall nx lm lahf-lm",
        vmx: &VMX_NEHALEM,
        caches: CacheModel::Legacy,
        versions: &[FIRST, next("+spec-ctrl", "Intel Core i7 9xx (Nehalem Core i7, IBRS update)", "")],
    },
    Model {
        name: "Opteron_G1",
        vendor: Vendor::Amd,
        signature: (15, 6, 1),
        level: 0x5,
        xlevel: 0x80000008,
        id: "AMD Opteron 240 (Gen 1 Class Opteron)",
        features: "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr \
            sse sse2 pni syscall nx lm",
        vmx: &NO_VMX,
        caches: CacheModel::Legacy,
        versions: &[FIRST],
    },
    Model {
        name: "Opteron_G2",
        vendor: Vendor::Amd,
        signature: (15, 6, 1),
        level: 0x5,
        xlevel: 0x80000008,
        id: "AMD Opteron 22xx (Gen 2 Class Opteron)",
        features: "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr \
            sse sse2 pni cx16 syscall nx lm lahf-lm svm",
        vmx: &NO_VMX,
        caches: CacheModel::Legacy,
        versions: &[FIRST],
    },
    Model {
        name: "Opteron_G3",
        vendor: Vendor::Amd,
        signature: (16, 2, 3),
        level: 0x5,
        xlevel: 0x80000008,
        id: "AMD Opteron 23xx (Gen 3 Class Opteron)",
        features: "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr \
            sse sse2 pni monitor cx16 popcnt syscall nx rdtscp lm lahf-lm svm abm sse4a misalignsse",
        vmx: &NO_VMX,
        caches: CacheModel::Legacy,
        versions: &[FIRST],
    },
    Model {
        name: "Opteron_G4",
        vendor: Vendor::Amd,
        signature: (21, 1, 2),
        level: 0xd,
        xlevel: 0x8000001a,
        id: "AMD Opteron 62xx class CPU",
        features: "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr \
            sse sse2 pni pclmulqdq ssse3 cx16 sse4.1 sse4.2 popcnt aes xsave avx syscall nx pdpe1gb \
            rdtscp lm lahf-lm svm abm sse4a misalignsse 3dnowprefetch xop fma4 npt nrip-save",
        vmx: &NO_VMX,
        caches: CacheModel::Legacy,
        versions: &[FIRST],
    },
    Model {
        name: "Opteron_G5",
        vendor: Vendor::Amd,
        signature: (21, 2, 0),
        level: 0xd,
        xlevel: 0x8000001a,
        id: "AMD Opteron 63xx class CPU",
        features: "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr \
            sse sse2 pni pclmulqdq ssse3 fma cx16 sse4.1 sse4.2 popcnt aes xsave avx f16c syscall nx \
            pdpe1gb rdtscp lm lahf-lm svm abm sse4a misalignsse 3dnowprefetch xop fma4 tbm npt \
            nrip-save",
        vmx: &NO_VMX,
        caches: CacheModel::Legacy,
        versions: &[FIRST],
    },
    Model {
        name: "Penryn",
        vendor: Vendor::Intel,
        signature: (6, 23, 3),
        level: 0xa,
        xlevel: 0x80000008,
        id: "Intel Core 2 Duo P9xxx (Penryn Class Core 2)",
        features: "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr \
            sse sse2 pni ssse3 cx16 sse4.1 syscall nx lm lahf-lm",
        vmx: &VMX_PENRYN,
        caches: CacheModel::Legacy,
        versions: &[FIRST],
    },
    Model {
        name: "SandyBridge",
        vendor: Vendor::Intel,
        signature: (6, 42, 1),
        level: 0xd,
        xlevel: 0x80000008,
        id: "Intel Xeon E312xx (Sandy Bridge)",
        features: "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr \
            sse sse2 pni pclmulqdq ssse3 cx16 sse4.1 sse4.2 x2apic popcnt tsc-deadline aes xsave avx \
            syscall nx rdtscp lm lahf-lm xsaveopt arat",
        vmx: &VMX_SANDYBRIDGE,
        caches: CacheModel::Legacy,
        versions: &[FIRST, next("+spec-ctrl", "Intel Xeon E312xx (Sandy Bridge, IBRS update)", "")],
    },
    Model {
        name: "Skylake-Client",
        vendor: Vendor::Intel,
        signature: (6, 94, 3),
        level: 0xd,
        xlevel: 0x80000008,
        id: "Intel Core Processor (Skylake)",
        features: "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr \
            sse sse2 pni pclmulqdq ssse3 fma cx16 pcid sse4.1 sse4.2 x2apic movbe popcnt tsc-deadline \
            aes xsave avx f16c rdrand fsgsbase bmi1 hle avx2 smep bmi2 erms invpcid rtm rdseed adx \
            smap syscall nx rdtscp lm lahf-lm abm 3dnowprefetch xsaveopt xsavec xgetbv1 arat",
        vmx: &VMX_SKYLAKE_CLIENT,
        caches: CacheModel::Legacy,
        versions: &[
            FIRST,
            next("+spec-ctrl", "Intel Core Processor (Skylake, IBRS)", ""),
            next("-hle -rtm", "Intel Core Processor (Skylake, IBRS, no TSX)", ""),
            next("+xsaves +vmx-xsaves", "", "IBRS, XSAVES, no TSX"),
        ],
    },
    Model {
        name: "Skylake-Server",
        vendor: Vendor::Intel,
        signature: (6, 85, 4),
        level: 0xd,
        xlevel: 0x80000008,
        id: "Intel Xeon Processor (Skylake)",
        features: "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr \
            sse sse2 pni pclmulqdq ssse3 fma cx16 pcid sse4.1 sse4.2 x2apic movbe popcnt tsc-deadline \
            aes xsave avx f16c rdrand fsgsbase bmi1 hle avx2 smep bmi2 erms invpcid rtm avx512f \
            avx512dq rdseed adx smap clflushopt clwb avx512cd avx512bw avx512vl pku syscall nx pdpe1gb \
            rdtscp lm lahf-lm abm 3dnowprefetch xsaveopt xsavec xgetbv1 arat",
        vmx: &VMX_CASCADELAKE_SERVER,
        caches: CacheModel::Legacy,
        versions: &[
            FIRST,
            next("+spec-ctrl -clflushopt", "Intel Xeon Processor (Skylake, IBRS)", ""),
            next("-hle -rtm", "Intel Xeon Processor (Skylake, IBRS, no TSX)", ""),
            next("+vmx-eptp-switching", "", "IBRS, EPT switching, no TSX"),
            next("+xsaves +vmx-xsaves", "", "IBRS, XSAVES, EPT switching, no TSX"),
        ],
    },
    Model {
        name: "Snowridge",
        vendor: Vendor::Intel,
        signature: (6, 134, 1),
        level: 0x1b,
        xlevel: 0x80000008,
        id: "Intel Atom Processor (SnowRidge)",
        features: "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr \
            sse sse2 pni pclmulqdq monitor ssse3 cx16 sse4.1 sse4.2 x2apic movbe popcnt tsc-deadline \
            aes xsave rdrand fsgsbase smep erms mpx rdseed smap clflushopt clwb sha-ni umip gfni \
            cldemote movdiri movdir64b spec-ctrl arch-capabilities core-capability ssbd syscall nx \
            pdpe1gb rdtscp lm lahf-lm 3dnowprefetch xsaveopt xsavec xgetbv1 arat split-lock-detect",
        vmx: &VMX_BROADWELL,
        caches: CacheModel::Legacy,
        versions: &[
            FIRST,
            next("-mpx", "Intel Atom Processor (Snowridge, no MPX)", ""),
            next("+xsaves +vmx-xsaves", "", "XSAVES, no MPX"),
            next("-core-capability -split-lock-detect", "", "no split lock detect, no core-capability"),
        ],
    },
    Model {
        name: "Westmere",
        vendor: Vendor::Intel,
        signature: (6, 44, 1),
        level: 0xb,
        xlevel: 0x80000008,
        id: "Westmere E56xx/L56xx/X56xx (Nehalem-C)",
        features: "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr \
            sse sse2 pni pclmulqdq ssse3 cx16 sse4.1 sse4.2 popcnt aes syscall nx lm lahf-lm arat",
        vmx: &VMX_SANDYBRIDGE,
        caches: CacheModel::Legacy,
        versions: &[FIRST, next("+spec-ctrl", "Westmere E56xx/L56xx/X56xx (IBRS update)", "")],
    },
    Model {
        name: "athlon",
        vendor: Vendor::Amd,
        signature: (6, 2, 3),
        level: 0x2,
        xlevel: 0x80000008,
        id: "QEMU Virtual CPU version 2.5+",
        features:
            "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 mmx fxsr sse sse2 \
            mmxext 3dnowext 3dnow",
        vmx: &NO_VMX,
        caches: CacheModel::Legacy,
        versions: &[FIRST],
    },
    Model {
        name: "core2duo",
        vendor: Vendor::Intel,
        signature: (6, 15, 11),
        level: 0xa,
        xlevel: 0x80000008,
        id: "Intel(R) Core(TM)2 Duo CPU     T7700  @ 2.40GHz",
        features: "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush acpi mmx \
            fxsr sse sse2 ss pni monitor ssse3 cx16 syscall nx lm lahf-lm",
        vmx: &VMX_CONROE,
        caches: CacheModel::Legacy,
        versions: &[FIRST],
    },
    Model {
        name: "coreduo",
        vendor: Vendor::Intel,
        signature: (6, 14, 8),
        level: 0xa,
        xlevel: 0x80000008,
        id: "Genuine Intel(R) CPU           T2600  @ 2.16GHz",
        features: "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat clflush acpi mmx fxsr \
            sse sse2 ss pni monitor nx",
        vmx: &VMX_COREDUO,
        caches: CacheModel::Legacy,
        versions: &[FIRST],
    },
    Model {
        name: "kvm32",
        vendor: Vendor::Intel,
        signature: (15, 6, 1),
        level: 0x5,
        xlevel: 0x80000008,
        id: "Common 32-bit KVM processor",
        features: "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr \
            sse sse2 pni",
        vmx: &VMX_COREDUO,
        caches: CacheModel::Legacy,
        versions: &[FIRST],
    },
    Model {
        name: "kvm64",
        vendor: Vendor::Intel,
        signature: (15, 6, 1),
        level: 0xd,
        xlevel: 0x80000008,
        id: "Common KVM processor",
        features: "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr \
            sse sse2 pni cx16 syscall nx lm",
        vmx: &VMX_KVM64,
        caches: CacheModel::Legacy,
        versions: &[FIRST],
    },
    Model {
        name: "n270",
        vendor: Vendor::Intel,
        signature: (6, 28, 2),
        level: 0xa,
        xlevel: 0x80000008,
        id: "Intel(R) Atom(TM) CPU N270   @ 1.60GHz",
        features: "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat clflush acpi mmx fxsr \
            sse sse2 ss pni monitor ssse3 movbe nx lahf-lm",
        vmx: &NO_VMX,
        caches: CacheModel::Legacy,
        versions: &[FIRST],
    },
    Model {
        name: "pentium",
        vendor: Vendor::Intel,
        signature: (5, 4, 3),
        level: 0x1,
        xlevel: 0x0,
        id: "",
        features: "fpu vme de pse tsc msr mce cx8 apic mmx",
        vmx: &NO_VMX,
        caches: CacheModel::Legacy,
        versions: &[FIRST],
    },
    Model {
        name: "pentium2",
        vendor: Vendor::Intel,
        signature: (6, 5, 2),
        level: 0x2,
        xlevel: 0x0,
        id: "",
        features: "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 mmx fxsr",
        vmx: &NO_VMX,
        caches: CacheModel::Legacy,
        versions: &[FIRST],
    },
    Model {
        name: "pentium3",
        vendor: Vendor::Intel,
        signature: (6, 7, 3),
        level: 0x3,
        xlevel: 0x0,
        id: "",
        features: "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 mmx fxsr sse",
        vmx: &NO_VMX,
        caches: CacheModel::Legacy,
        versions: &[FIRST],
    },
    Model {
        name: "phenom",
        vendor: Vendor::Amd,
        signature: (16, 2, 3),
        level: 0x5,
        xlevel: 0x8000001a,
        id: "AMD Phenom(tm) 9550 Quad-Core Processor",
        features: "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr \
            sse sse2 pni monitor cx16 popcnt syscall nx mmxext fxsr-opt pdpe1gb rdtscp lm 3dnowext \
            3dnow lahf-lm svm abm sse4a npt",
        vmx: &NO_VMX,
        caches: CacheModel::Legacy,
        versions: &[FIRST],
    },
    Model {
        name: "qemu32",
        vendor: Vendor::Intel,
        signature: (6, 6, 3),
        level: 0x4,
        xlevel: 0x80000004,
        id: "QEMU Virtual CPU version 2.5+",
        features: "fpu de pse tsc msr pae mce cx8 apic sep pge cmov pat mmx fxsr sse sse2 pni",
        vmx: &NO_VMX,
        caches: CacheModel::Legacy,
        versions: &[FIRST],
    },
    Model {
        name: "qemu64",
        vendor: Vendor::Amd,
        signature: (15, 107, 1),
        level: 0xd,
        xlevel: 0x8000000a,
        id: "QEMU Virtual CPU version 2.5+",
        features: "fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse \
            sse2 pni cx16 syscall nx lm lahf-lm svm",
        vmx: &NO_VMX,
        caches: CacheModel::Legacy,
        versions: &[FIRST],
    },
];
