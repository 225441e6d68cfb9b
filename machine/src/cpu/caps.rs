//! What an accelerator on this host can give a guest.

use super::features::{w, At, Features, Reg, WORDS};

/// One CPUID leaf.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leaf {
    /// Input EAX.
    pub function: u32,
    /// Input ECX.
    pub index: u32,
    /// KVM's flags (1: `index` counts).
    pub flags: u32,
    /// EAX, EBX, ECX, EDX.
    pub regs: [u32; 4],
}

/// Accelerator as far as CPU models care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CapsKind {
    /// KVM.
    Kvm,
    /// The software CPU.
    Tcg,
    /// None (devices are driven over qtest): everything counts as available.
    Any,
}

/// Who the host's CPU is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostCpu {
    /// Vendor string of 12 bytes.
    pub vendor: String,
    /// Leaf 1 EAX.
    pub signature: u32,
    /// Leaves 0x80000002 to 4.
    pub model_id: String,
    /// Physical address bits.
    pub phys_bits: u32,
    /// Leaves 2, 4, 0x80000005, 0x80000006 and 0x8000001D, if they differ from those of this processor.
    pub caches: Option<Vec<Leaf>>,
}

/// What an accelerator on this host can give a guest.
#[derive(Clone, Debug)]
pub struct Caps {
    /// Accelerator.
    pub kind: CapsKind,
    /// Available features.
    pub features: Features,
    /// The accelerator's own leaves (sizes of the XSAVE areas, performance counters).
    pub leaves: Vec<Leaf>,
    /// Host.
    pub host: HostCpu,
    /// Default microcode revision (MSR 0x8b) of the host's own model.
    pub ucode_rev: Option<u64>,
}

/// Facts about a KVM that are not in its CPUID table.
#[derive(Clone, Copy, Debug, Default)]
pub struct KvmFacts {
    /// The local APICs are KVM's.
    pub kernel_lapic: bool,
    /// `KVM_CAP_TSC_DEADLINE_TIMER`.
    pub tsc_deadline: bool,
    /// Guests may run MWAIT without an exit (`-overcommit cpu-pm=on` and KVM allows it).
    pub mwait: bool,
}

/// Bits of leaf 1 EDX that leaf 0x80000001 EDX repeats on AMD processors.
pub const AMD_ALIASES: u64 = 0x0183_f3ff;

/// What the software CPU executes, or keeps for the guest to see as QEMU's engine does.
const TCG_FEATURES: &str = "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush acpi mmx fxsr \
    sse sse2 ss pni pclmulqdq monitor ssse3 cx16 sse4.1 sse4.2 movbe popcnt aes xsave avx f16c rdrand fma hypervisor \
    syscall mmxext nx pdpe1gb rdtscp lm lahf-lm cr8legacy abm \
    fsgsbase bmi1 avx2 smep bmi2 erms adx smap clflushopt clwb umip rdpid \
    xsaveopt xgetbv1 arat";

impl Caps {
    /// No accelerator.
    pub fn any() -> Self {
        Self {
            kind: CapsKind::Any,
            features: Features([!0; w::COUNT]),
            leaves: Vec::new(),
            host: HostCpu { phys_bits: 40, ..HostCpu::default() },
            ucode_rev: None,
        }
    }

    /// The software CPU: what its engine executes.
    pub fn tcg() -> Self {
        let mut features = Features::default();
        let executes = |name: &&str| rqemu_x86::fp::host_has(name);
        TCG_FEATURES.split_ascii_whitespace().filter(executes).for_each(|name| features.apply(name));
        let avx = features.has("avx");
        features.0[w::XCR0_LO] = if avx { 7 } else { 3 };
        features.0[w::X1_EDX] |= features.0[w::L1_EDX] & AMD_ALIASES;
        // Where XSAVE puts the upper halves of the vector registers: 256 bytes at 576.
        let ymm = Leaf { function: 0xd, index: 2, flags: 1, regs: [256, 576, 0, 0] };
        Self {
            kind: CapsKind::Tcg,
            features,
            leaves: if avx { vec![ymm] } else { Vec::new() },
            host: HostCpu { phys_bits: 40, ..HostCpu::default() },
            ucode_rev: None,
        }
    }

    /// KVM with the table of `KVM_GET_SUPPORTED_CPUID` and its feature MSRs.
    pub fn kvm(leaves: Vec<Leaf>, msr: impl Fn(u32) -> Option<u64>, facts: KvmFacts, host: HostCpu) -> Self {
        let mut c = Self {
            kind: CapsKind::Kvm,
            features: Features::default(),
            leaves,
            host,
            ucode_rev: msr(0x8b).filter(|v| *v != 0),
        };
        for (i, x) in WORDS.iter().enumerate() {
            c.features.0[i] = match x.at {
                At::Cpuid(leaf, index, reg) => u64::from(c.reg(leaf, index.unwrap_or(0), reg)),
                At::Msr(_) => 0,
            };
        }
        c.adjust(facts);
        // A component of the XSAVE area that KVM does not describe has no place in it.
        let described = |i: u32| i < 2 || c.reg(0xd, i, Reg::Eax) != 0;
        let parts = (0..32).filter(|i| described(*i)).fold(0, |m, i| m | 1u64 << i);
        c.features.0[w::XCR0_LO] &= parts;
        let vmx = c.features.has("vmx");
        for (i, x) in WORDS.iter().enumerate() {
            if let At::Msr(index) = x.at {
                if !(0x480..=0x491).contains(&index) || vmx {
                    c.features.0[i] = vmx_allowed(index, msr(index).unwrap_or(0));
                }
            }
        }
        c
    }

    fn adjust(&mut self, facts: KvmFacts) {
        let f = &mut self.features;
        f.set("hypervisor", true);
        f.set("arat", true);
        f.set("topoext", true);
        f.set("tsc-deadline", facts.tsc_deadline && facts.kernel_lapic);
        f.set("x2apic", facts.kernel_lapic);
        if facts.mwait {
            f.set("monitor", true);
        }
        f.0[w::X1_EDX] |= f.0[w::L1_EDX] & AMD_ALIASES;
        f.0[w::KVM_HINTS] |= 1;
        if !facts.kernel_lapic {
            f.set("kvm-pv-unhalt", false);
        }
    }

    /// One of the accelerator's registers; 0 if it has no such leaf.
    pub fn reg(&self, function: u32, index: u32, reg: Reg) -> u32 {
        self.leaf(function, index).map_or(0, |l| {
            l.regs[match reg {
                Reg::Eax => 0,
                Reg::Ebx => 1,
                Reg::Ecx => 2,
                Reg::Edx => 3,
            }]
        })
    }

    /// One of the accelerator's leaves.
    pub fn leaf(&self, function: u32, index: u32) -> Option<&Leaf> {
        self.leaves.iter().find(|l| l.function == function && l.index == index)
    }
}

/// Features from a VMX capability MSR: for the `TRUE` control MSRs the high half says what may be 1.
fn vmx_allowed(index: u32, value: u64) -> u64 {
    match index {
        0x48b | 0x48d..=0x490 => value >> 32,
        _ => value,
    }
}

impl HostCpu {
    /// Asks the processor that this program runs on.
    pub fn detect() -> Self {
        let text = |words: &[u32]| {
            let bytes: Vec<u8> = words.iter().flat_map(|x| x.to_le_bytes()).take_while(|b| *b != 0).collect();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let [_, b, c, d] = cpuid(0, 0);
        let ext = cpuid(0x8000_0000, 0)[0];
        let brand: Vec<u32> = if ext >= 0x8000_0004 {
            (2..5).flat_map(|i| cpuid(0x8000_0000 + i, 0)).collect()
        } else {
            Vec::new()
        };
        Self {
            vendor: text(&[b, d, c]),
            signature: cpuid(1, 0)[0],
            model_id: text(&brand),
            phys_bits: if ext >= 0x8000_0008 { cpuid(0x8000_0008, 0)[0] & 0xff } else { 36 },
            caches: None,
        }
    }

    /// Leaves that describe the host's caches. Each `CPUID` may take microseconds (it can trap to a hypervisor), so they
    /// are read only when `host-cache-info` asks for them.
    pub fn cache_leaves(&self) -> Vec<Leaf> {
        self.caches.clone().unwrap_or_else(read_caches)
    }
}

/// Runs `CPUID`.
#[cfg(target_arch = "x86_64")]
#[allow(unused_unsafe)] // the function became safe in a later release than the oldest that we support
fn cpuid(function: u32, index: u32) -> [u32; 4] {
    // SAFETY: `CPUID` exists on every x86-64 processor and has no side effects.
    let r = unsafe { std::arch::x86_64::__cpuid_count(function, index) };
    [r.eax, r.ebx, r.ecx, r.edx]
}

/// Nothing is known elsewhere.
#[cfg(not(target_arch = "x86_64"))]
fn cpuid(_function: u32, _index: u32) -> [u32; 4] {
    [0; 4]
}

fn read_caches() -> Vec<Leaf> {
    let (max, ext) = (cpuid(0, 0)[0], cpuid(0x8000_0000, 0)[0]);
    let mut caches = Vec::new();
    let mut add = |function: u32, index: u32| {
        let present = if function >= 0x8000_0000 { function <= ext } else { function <= max };
        let regs = if present { cpuid(function, index) } else { [0; 4] };
        caches.push(Leaf { function, index, flags: 0, regs });
        regs[0] & 31 != 0
    };
    add(2, 0);
    add(0x8000_0005, 0);
    add(0x8000_0006, 0);
    for function in [4, 0x8000_001d] {
        // A processor has at most a handful of caches.
        for index in 0..16 {
            if !add(function, index) {
                break;
            }
        }
    }
    caches
}
