//! The feature words: every CPUID register and capability MSR whose bits have names, and the names.
//!
//! Sources: Intel SDM volume 2 (CPUID) and 3 (VMX capability MSRs), AMD APM volume 3, KVM's CPUID documentation.

/// Register of a CPUID leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reg {
    /// EAX.
    Eax,
    /// EBX.
    Ebx,
    /// ECX.
    Ecx,
    /// EDX.
    Edx,
}

impl Reg {
    /// Name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Eax => "EAX",
            Self::Ebx => "EBX",
            Self::Ecx => "ECX",
            Self::Edx => "EDX",
        }
    }
}

/// Where a feature word lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// Leaf, subleaf (if the leaf has any), register.
    Cpuid(u32, Option<u32>, Reg),
    /// Model-specific register.
    Msr(u32),
}

/// One feature word.
pub struct Word {
    /// Place.
    pub at: At,
    /// Names by bit. A name may stand for two bits.
    pub names: &'static [(u32, &'static str)],
}

/// Indices into [`WORDS`].
#[allow(missing_docs, dead_code)] // every word has an index, used or not
pub mod w {
    pub const L1_EDX: usize = 0;
    pub const L1_ECX: usize = 1;
    pub const L7_EBX: usize = 2;
    pub const L7_ECX: usize = 3;
    pub const L7_EDX: usize = 4;
    pub const L7_1_EAX: usize = 5;
    pub const X1_EDX: usize = 6;
    pub const X1_ECX: usize = 7;
    pub const X7_EDX: usize = 8;
    pub const X8_EBX: usize = 9;
    pub const C1_EDX: usize = 10;
    pub const KVM: usize = 11;
    pub const KVM_HINTS: usize = 12;
    pub const SVM: usize = 13;
    pub const XSAVE: usize = 14;
    pub const L6_EAX: usize = 15;
    pub const XCR0_LO: usize = 16;
    pub const XCR0_HI: usize = 17;
    pub const ARCH_CAPS: usize = 18;
    pub const CORE_CAPS: usize = 19;
    pub const PERF_CAPS: usize = 20;
    pub const VMX_PROC: usize = 21;
    pub const VMX_PROC2: usize = 22;
    pub const VMX_PIN: usize = 23;
    pub const VMX_EXIT: usize = 24;
    pub const VMX_ENTRY: usize = 25;
    pub const VMX_MISC: usize = 26;
    pub const VMX_EPT_VPID: usize = 27;
    pub const VMX_BASIC: usize = 28;
    pub const VMX_VMFUNC: usize = 29;
    pub const PT_ECX: usize = 30;
    pub const SGX_EAX: usize = 31;
    pub const SGX_EBX: usize = 32;
    pub const SGX1_EAX: usize = 33;
    pub const XSS_LO: usize = 34;
    pub const XSS_HI: usize = 35;
    /// Number of words.
    pub const COUNT: usize = 36;
}

use At::{Cpuid, Msr};
use Reg::{Eax, Ebx, Ecx, Edx};

/// All words, in the order in which missing features are reported.
pub static WORDS: [Word; w::COUNT] = WORD_TABLE;

/// [`WORDS`], for constant expressions.
pub const WORD_TABLE: [Word; w::COUNT] = [
    Word {
        at: Cpuid(1, None, Edx),
        names: &[
            (0, "fpu"),
            (1, "vme"),
            (2, "de"),
            (3, "pse"),
            (4, "tsc"),
            (5, "msr"),
            (6, "pae"),
            (7, "mce"),
            (8, "cx8"),
            (9, "apic"),
            (11, "sep"),
            (12, "mtrr"),
            (13, "pge"),
            (14, "mca"),
            (15, "cmov"),
            (16, "pat"),
            (17, "pse36"),
            (18, "pn"),
            (19, "clflush"),
            (21, "ds"),
            (22, "acpi"),
            (23, "mmx"),
            (24, "fxsr"),
            (25, "sse"),
            (26, "sse2"),
            (27, "ss"),
            (28, "ht"),
            (29, "tm"),
            (30, "ia64"),
            (31, "pbe"),
        ],
    },
    Word {
        at: Cpuid(1, None, Ecx),
        names: &[
            (0, "pni"),
            (1, "pclmulqdq"),
            (2, "dtes64"),
            (3, "monitor"),
            (4, "ds-cpl"),
            (5, "vmx"),
            (6, "smx"),
            (7, "est"),
            (8, "tm2"),
            (9, "ssse3"),
            (10, "cid"),
            (12, "fma"),
            (13, "cx16"),
            (14, "xtpr"),
            (15, "pdcm"),
            (17, "pcid"),
            (18, "dca"),
            (19, "sse4.1"),
            (20, "sse4.2"),
            (21, "x2apic"),
            (22, "movbe"),
            (23, "popcnt"),
            (24, "tsc-deadline"),
            (25, "aes"),
            (26, "xsave"),
            (28, "avx"),
            (29, "f16c"),
            (30, "rdrand"),
            (31, "hypervisor"),
        ],
    },
    Word {
        at: Cpuid(7, Some(0), Ebx),
        names: &[
            (0, "fsgsbase"),
            (1, "tsc-adjust"),
            (2, "sgx"),
            (3, "bmi1"),
            (4, "hle"),
            (5, "avx2"),
            (7, "smep"),
            (8, "bmi2"),
            (9, "erms"),
            (10, "invpcid"),
            (11, "rtm"),
            (14, "mpx"),
            (16, "avx512f"),
            (17, "avx512dq"),
            (18, "rdseed"),
            (19, "adx"),
            (20, "smap"),
            (21, "avx512ifma"),
            (22, "pcommit"),
            (23, "clflushopt"),
            (24, "clwb"),
            (25, "intel-pt"),
            (26, "avx512pf"),
            (27, "avx512er"),
            (28, "avx512cd"),
            (29, "sha-ni"),
            (30, "avx512bw"),
            (31, "avx512vl"),
        ],
    },
    Word {
        at: Cpuid(7, Some(0), Ecx),
        names: &[
            (1, "avx512vbmi"),
            (2, "umip"),
            (3, "pku"),
            (5, "waitpkg"),
            (6, "avx512vbmi2"),
            (8, "gfni"),
            (9, "vaes"),
            (10, "vpclmulqdq"),
            (11, "avx512vnni"),
            (12, "avx512bitalg"),
            (14, "avx512-vpopcntdq"),
            (16, "la57"),
            (22, "rdpid"),
            (24, "bus-lock-detect"),
            (25, "cldemote"),
            (27, "movdiri"),
            (28, "movdir64b"),
            (30, "sgxlc"),
            (31, "pks"),
        ],
    },
    Word {
        at: Cpuid(7, Some(0), Edx),
        names: &[
            (2, "avx512-4vnniw"),
            (3, "avx512-4fmaps"),
            (4, "fsrm"),
            (8, "avx512-vp2intersect"),
            (10, "md-clear"),
            (14, "serialize"),
            (16, "tsx-ldtrk"),
            (19, "arch-lbr"),
            (22, "amx-bf16"),
            (23, "avx512-fp16"),
            (24, "amx-tile"),
            (25, "amx-int8"),
            (26, "spec-ctrl"),
            (27, "stibp"),
            (29, "arch-capabilities"),
            (30, "core-capability"),
            (31, "ssbd"),
        ],
    },
    Word { at: Cpuid(7, Some(1), Eax), names: &[(4, "avx-vnni"), (5, "avx512-bf16")] },
    Word {
        at: Cpuid(0x8000_0001, None, Edx),
        names: &[
            (11, "syscall"),
            (20, "nx"),
            (22, "mmxext"),
            (25, "fxsr-opt"),
            (26, "pdpe1gb"),
            (27, "rdtscp"),
            (29, "lm"),
            (30, "3dnowext"),
            (31, "3dnow"),
        ],
    },
    Word {
        at: Cpuid(0x8000_0001, None, Ecx),
        names: &[
            (0, "lahf-lm"),
            (1, "cmp-legacy"),
            (2, "svm"),
            (3, "extapic"),
            (4, "cr8legacy"),
            (5, "abm"),
            (6, "sse4a"),
            (7, "misalignsse"),
            (8, "3dnowprefetch"),
            (9, "osvw"),
            (10, "ibs"),
            (11, "xop"),
            (12, "skinit"),
            (13, "wdt"),
            (15, "lwp"),
            (16, "fma4"),
            (17, "tce"),
            (19, "nodeid-msr"),
            (21, "tbm"),
            (22, "topoext"),
            (23, "perfctr-core"),
            (24, "perfctr-nb"),
        ],
    },
    Word { at: Cpuid(0x8000_0007, None, Edx), names: &[(8, "invtsc")] },
    Word {
        at: Cpuid(0x8000_0008, None, Ebx),
        names: &[
            (0, "clzero"),
            (2, "xsaveerptr"),
            (9, "wbnoinvd"),
            (12, "ibpb"),
            (14, "ibrs"),
            (15, "amd-stibp"),
            (24, "amd-ssbd"),
            (25, "virt-ssbd"),
            (26, "amd-no-ssb"),
        ],
    },
    Word {
        at: Cpuid(0xc000_0001, None, Edx),
        names: &[
            (2, "xstore"),
            (3, "xstore-en"),
            (6, "xcrypt"),
            (7, "xcrypt-en"),
            (8, "ace2"),
            (9, "ace2-en"),
            (10, "phe"),
            (11, "phe-en"),
            (12, "pmm"),
            (13, "pmm-en"),
        ],
    },
    Word {
        at: Cpuid(0x4000_0001, None, Eax),
        names: &[
            (0, "kvmclock"),
            (1, "kvm-nopiodelay"),
            (2, "kvm-mmu"),
            (3, "kvmclock"),
            (4, "kvm-asyncpf"),
            (5, "kvm-steal-time"),
            (6, "kvm-pv-eoi"),
            (7, "kvm-pv-unhalt"),
            (9, "kvm-pv-tlb-flush"),
            (11, "kvm-pv-ipi"),
            (12, "kvm-poll-control"),
            (13, "kvm-pv-sched-yield"),
            (14, "kvm-asyncpf-int"),
            (15, "kvm-msi-ext-dest-id"),
            (24, "kvmclock-stable-bit"),
        ],
    },
    Word { at: Cpuid(0x4000_0001, None, Edx), names: &[(0, "kvm-hint-dedicated")] },
    Word {
        at: Cpuid(0x8000_000a, None, Edx),
        names: &[
            (0, "npt"),
            (1, "lbrv"),
            (2, "svm-lock"),
            (3, "nrip-save"),
            (4, "tsc-scale"),
            (5, "vmcb-clean"),
            (6, "flushbyasid"),
            (7, "decodeassists"),
            (10, "pause-filter"),
            (12, "pfthreshold"),
            (13, "avic"),
            (15, "v-vmsave-vmload"),
            (16, "vgif"),
            (28, "svme-addr-chk"),
        ],
    },
    Word {
        at: Cpuid(0xd, Some(1), Eax),
        names: &[(0, "xsaveopt"), (1, "xsavec"), (2, "xgetbv1"), (3, "xsaves"), (4, "xfd")],
    },
    Word { at: Cpuid(6, None, Eax), names: &[(2, "arat")] },
    Word { at: Cpuid(0xd, Some(0), Eax), names: &[] },
    Word { at: Cpuid(0xd, Some(0), Edx), names: &[] },
    Word {
        at: Msr(0x10a),
        names: &[
            (0, "rdctl-no"),
            (1, "ibrs-all"),
            (2, "rsba"),
            (3, "skip-l1dfl-vmentry"),
            (4, "ssb-no"),
            (5, "mds-no"),
            (6, "pschange-mc-no"),
            (7, "tsx-ctrl"),
            (8, "taa-no"),
        ],
    },
    Word { at: Msr(0xcf), names: &[(5, "split-lock-detect")] },
    Word { at: Msr(0x345), names: &[(13, "full-width-write")] },
    Word {
        at: Msr(0x48e),
        names: &[
            (2, "vmx-vintr-pending"),
            (3, "vmx-tsc-offset"),
            (7, "vmx-hlt-exit"),
            (9, "vmx-invlpg-exit"),
            (10, "vmx-mwait-exit"),
            (11, "vmx-rdpmc-exit"),
            (12, "vmx-rdtsc-exit"),
            (15, "vmx-cr3-load-noexit"),
            (16, "vmx-cr3-store-noexit"),
            (19, "vmx-cr8-load-exit"),
            (20, "vmx-cr8-store-exit"),
            (21, "vmx-flexpriority"),
            (22, "vmx-vnmi-pending"),
            (23, "vmx-movdr-exit"),
            (24, "vmx-io-exit"),
            (25, "vmx-io-bitmap"),
            (27, "vmx-mtf"),
            (28, "vmx-msr-bitmap"),
            (29, "vmx-monitor-exit"),
            (30, "vmx-pause-exit"),
            (31, "vmx-secondary-ctls"),
        ],
    },
    Word {
        at: Msr(0x48b),
        names: &[
            (0, "vmx-apicv-xapic"),
            (1, "vmx-ept"),
            (2, "vmx-desc-exit"),
            (3, "vmx-rdtscp-exit"),
            (4, "vmx-apicv-x2apic"),
            (5, "vmx-vpid"),
            (6, "vmx-wbinvd-exit"),
            (7, "vmx-unrestricted-guest"),
            (8, "vmx-apicv-register"),
            (9, "vmx-apicv-vid"),
            (10, "vmx-ple"),
            (11, "vmx-rdrand-exit"),
            (12, "vmx-invpcid-exit"),
            (13, "vmx-vmfunc"),
            (14, "vmx-shadow-vmcs"),
            (15, "vmx-encls-exit"),
            (16, "vmx-rdseed-exit"),
            (17, "vmx-pml"),
            (20, "vmx-xsaves"),
            (25, "vmx-tsc-scaling"),
        ],
    },
    Word {
        at: Msr(0x48d),
        names: &[
            (0, "vmx-intr-exit"),
            (3, "vmx-nmi-exit"),
            (5, "vmx-vnmi"),
            (6, "vmx-preemption-timer"),
            (7, "vmx-posted-intr"),
        ],
    },
    Word {
        at: Msr(0x48f),
        names: &[
            (2, "vmx-exit-nosave-debugctl"),
            (12, "vmx-exit-load-perf-global-ctrl"),
            (15, "vmx-exit-ack-intr"),
            (18, "vmx-exit-save-pat"),
            (19, "vmx-exit-load-pat"),
            (20, "vmx-exit-save-efer"),
            (21, "vmx-exit-load-efer"),
            (22, "vmx-exit-save-preemption-timer"),
            (23, "vmx-exit-clear-bndcfgs"),
            (25, "vmx-exit-clear-rtit-ctl"),
            (29, "vmx-exit-load-pkrs"),
        ],
    },
    Word {
        at: Msr(0x490),
        names: &[
            (2, "vmx-entry-noload-debugctl"),
            (9, "vmx-entry-ia32e-mode"),
            (13, "vmx-entry-load-perf-global-ctrl"),
            (14, "vmx-entry-load-pat"),
            (15, "vmx-entry-load-efer"),
            (16, "vmx-entry-load-bndcfgs"),
            (18, "vmx-entry-load-rtit-ctl"),
            (22, "vmx-entry-load-pkrs"),
        ],
    },
    Word {
        at: Msr(0x485),
        names: &[
            (5, "vmx-store-lma"),
            (6, "vmx-activity-hlt"),
            (7, "vmx-activity-shutdown"),
            (8, "vmx-activity-wait-sipi"),
            (29, "vmx-vmwrite-vmexit-fields"),
            (30, "vmx-zero-len-inject"),
        ],
    },
    Word {
        at: Msr(0x48c),
        names: &[
            (0, "vmx-ept-execonly"),
            (6, "vmx-page-walk-4"),
            (7, "vmx-page-walk-5"),
            (16, "vmx-ept-2mb"),
            (17, "vmx-ept-1gb"),
            (20, "vmx-invept"),
            (21, "vmx-eptad"),
            (22, "vmx-ept-advanced-exitinfo"),
            (25, "vmx-invept-single-context"),
            (26, "vmx-invept-all-context"),
            (32, "vmx-invvpid"),
            (40, "vmx-invvpid-single-addr"),
            (41, "vmx-invept-single-context"),
            (42, "vmx-invvpid-all-context"),
            (43, "vmx-invept-single-context-noglobals"),
        ],
    },
    Word { at: Msr(0x480), names: &[(54, "vmx-ins-outs"), (55, "vmx-true-ctls")] },
    Word { at: Msr(0x491), names: &[(0, "vmx-eptp-switching")] },
    Word { at: Cpuid(0x14, Some(0), Ecx), names: &[(31, "intel-pt-lip")] },
    Word { at: Cpuid(0x12, Some(0), Eax), names: &[(0, "sgx1"), (1, "sgx2")] },
    Word { at: Cpuid(0x12, Some(0), Ebx), names: &[(0, "sgx-exinfo")] },
    Word {
        at: Cpuid(0x12, Some(1), Eax),
        names: &[
            (1, "sgx-debug"),
            (2, "sgx-mode64"),
            (4, "sgx-provisionkey"),
            (5, "sgx-tokenkey"),
            (7, "sgx-kss"),
        ],
    },
    Word { at: Cpuid(0xd, Some(1), Ecx), names: &[] },
    Word { at: Cpuid(0xd, Some(1), Edx), names: &[] },
];
