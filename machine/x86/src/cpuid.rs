//! CPUID by table, and which instructions the model has.

use iced_x86::{CpuidFeature, Instruction};

/// One leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// EAX input.
    pub leaf: u32,
    /// ECX input, if the leaf has subleaves.
    pub sub: Option<u32>,
    /// EAX, EBX, ECX, EDX.
    pub regs: [u32; 4],
}

/// A processor model: its CPUID table. Made by [`Model::new`] from whatever the embedder wants to show.
#[derive(Clone, Debug)]
pub struct Model {
    leaves: Vec<Leaf>,
    f1c: u32,
    f1d: u32,
    f7b: u32,
    f7c: u32,
    x1c: u32,
    x1d: u32,
    xsave1: u32,
    phys_bits: u8,
}

impl Model {
    /// From a table of leaves. Basic leaves above the highest read as the highest basic leaf, as on Intel.
    pub fn new(leaves: Vec<Leaf>) -> Self {
        let find = |l: u32| {
            leaves.iter().find(|x| x.leaf == l && x.sub.unwrap_or(0) == 0).map_or([0; 4], |x| x.regs)
        };
        let (f1, f7, x1) = (find(1), find(7), find(0x8000_0001));
        let bits = find(0x8000_0008)[0] as u8;
        let xsave1 = leaves.iter().find(|x| x.leaf == 0xd && x.sub == Some(1)).map_or(0, |x| x.regs[0]);
        Self {
            f1c: f1[2],
            f1d: f1[3],
            f7b: f7[1],
            f7c: f7[2],
            x1c: x1[2],
            x1d: x1[3],
            xsave1,
            phys_bits: if (32..=52).contains(&bits) { bits } else { 40 },
            leaves,
        }
    }

    /// The default model `qemu64` as TCG shows it.
    pub fn qemu64() -> Self {
        let l = |leaf, sub, regs| Leaf { leaf, sub, regs };
        Self::new(vec![
            l(0, None, [0xd, 0x6874_7541, 0x444d_4163, 0x6974_6e65]),
            l(1, None, [0x0006_0fb1, 0x800, 0x8000_2001, 0x078b_fbfd]),
            l(2, None, [1, 0, 0x4d, 0x002c_307d]),
            l(4, Some(0), [0x121, 0x01c0_003f, 0x3f, 1]),
            l(4, Some(1), [0x122, 0x01c0_003f, 0x3f, 1]),
            l(4, Some(2), [0x143, 0x03c0_003f, 0xfff, 1]),
            l(4, Some(3), [0x163, 0x03c0_003f, 0x3fff, 6]),
            l(7, Some(0), [0, 0, 0, 0]),
            l(0x8000_0000, None, [0x8000_000a, 0x6874_7541, 0x444d_4163, 0x6974_6e65]),
            l(0x8000_0001, None, [0x0006_0fb1, 0, 5, 0x2191_abfd]),
            name(0x8000_0002, b"QEMU Virtual CPU"),
            name(0x8000_0003, b" version 2.5+\0\0\0"),
            l(0x8000_0004, None, [0; 4]),
            l(0x8000_0005, None, [0x01ff_01ff, 0x01ff_01ff, 0x4002_0140, 0x4002_0140]),
            l(0x8000_0006, None, [0, 0x4200_4200, 0x0200_8140, 0x0080_8140]),
            l(0x8000_0008, None, [0x3028, 0, 0, 0]),
            l(0x8000_000a, None, [1, 0x10, 0, 0]),
        ])
    }

    /// The same table, but every instruction of the engine is executed: for a processor beside another one that shows the
    /// guest features of its own.
    pub fn permissive(self) -> Self {
        let all = !0;
        Self { f1c: all, f1d: all, f7b: all, f7c: all, x1c: all, x1d: all, xsave1: all, ..self }
    }

    /// CPUID.
    pub fn cpuid(&self, leaf: u32, sub: u32) -> [u32; 4] {
        let exact = |leaf: u32| self.leaves.iter().find(|x| x.leaf == leaf && x.sub.is_none_or(|s| s == sub));
        if let Some(l) = exact(leaf) {
            return l.regs;
        }
        match leaf {
            // A level of the topology that does not exist still has its number and the APIC id.
            0xb | 0x1f => {
                let first = self.leaves.iter().find(|x| x.leaf == leaf);
                if let Some(l) = first {
                    return [0, 0, sub & 0xff, l.regs[3]];
                }
            }
            0x4000_0000 | 0x4000_0001 => return [0; 4],
            _ => {}
        }
        let max = self.leaves.iter().find(|x| x.leaf == leaf & 0xc000_0000).map_or(0, |x| x.regs[0]);
        if leaf <= max {
            return [0; 4];
        }
        let top = self.leaves.iter().find(|x| x.leaf == 0).map_or(0, |x| x.regs[0]);
        exact(top).map_or([0; 4], |l| l.regs)
    }

    /// The value of RDX at reset and CPUID.1:EAX.
    pub fn signature(&self) -> u32 {
        self.cpuid(1, 0)[0]
    }
    /// Mask of implemented physical address bits.
    pub fn phys_mask(&self) -> u64 {
        (1u64 << self.phys_bits) - 1
    }
    /// 1 GiB pages.
    pub fn has_1g_pages(&self) -> bool {
        self.x1d & 1 << 26 != 0
    }
    /// CPUID.1:ECX.
    pub fn f1_ecx(&self) -> u32 {
        self.f1c
    }
    /// CPUID.1:EDX.
    pub fn f1_edx(&self) -> u32 {
        self.f1d
    }
    /// CPUID.7.0:EBX.
    pub fn f7_ebx(&self) -> u32 {
        self.f7b
    }
    /// CPUID.7.0:ECX.
    pub fn f7_ecx(&self) -> u32 {
        self.f7c
    }
    /// CPUID.80000001:EDX.
    pub fn x1_edx(&self) -> u32 {
        self.x1d
    }
    /// CPUID.80000001:ECX.
    pub fn x1_ecx(&self) -> u32 {
        self.x1c
    }

    /// Whether the model has the instruction (all its CPUID features).
    pub fn allows(&self, insn: &Instruction) -> bool {
        insn.cpuid_features().iter().all(|f| self.has(*f))
    }

    fn has(&self, f: CpuidFeature) -> bool {
        use CpuidFeature as F;
        let (c, d, b7, c7, xc, xd) = (self.f1c, self.f1d, self.f7b, self.f7c, self.x1c, self.x1d);
        let bit = |r: u32, n: u32| r >> n & 1 != 0;
        match f {
            F::INTEL8086
            | F::INTEL8086_ONLY
            | F::INTEL186
            | F::INTEL286
            | F::INTEL286_ONLY
            | F::INTEL386
            | F::INTEL386_ONLY
            | F::INTEL486
            | F::MULTIBYTENOP
            | F::PAUSE => true,
            F::SMM | F::CPUID | F::WBNOINVD => true,
            F::X64 => bit(xd, 29),
            F::FPU | F::FPU287 | F::FPU387 | F::FPU287XL_ONLY | F::FPU387SL_ONLY => bit(d, 0),
            F::RDPMC => true,
            F::TSC => bit(d, 4),
            F::MSR => bit(d, 5),
            F::CX8 => bit(d, 8),
            F::SEP => bit(d, 11),
            F::CMOV => bit(d, 15),
            F::CLFSH => bit(d, 19),
            F::MMX => bit(d, 23),
            F::FXSR => bit(d, 24),
            F::SSE => bit(d, 25),
            F::SSE2 => bit(d, 26),
            F::SSE3 => bit(c, 0),
            F::PCLMULQDQ => bit(c, 1),
            F::MONITOR => bit(c, 3),
            F::VMX => false,
            F::SSSE3 => bit(c, 9),
            F::FMA => bit(c, 12),
            F::CMPXCHG16B => bit(c, 13),
            F::SSE4_1 => bit(c, 19),
            F::SSE4_2 => bit(c, 20),
            F::MOVBE => bit(c, 22),
            F::POPCNT => bit(c, 23),
            F::AES => bit(c, 25),
            F::XSAVE => bit(c, 26),
            F::AVX => bit(c, 28),
            F::F16C => bit(c, 29),
            F::RDRAND => bit(c, 30),
            F::FSGSBASE => bit(b7, 0),
            F::BMI1 => bit(b7, 3),
            F::AVX2 => bit(b7, 5),
            F::SMAP => bit(b7, 20),
            F::BMI2 => bit(b7, 8),
            F::INVPCID => bit(b7, 10),
            F::RTM | F::HLE_or_RTM => false,
            F::MPX => bit(b7, 14),
            F::RDSEED => bit(b7, 18),
            F::ADX => bit(b7, 19),
            F::CLFLUSHOPT => bit(b7, 23),
            F::CLWB => bit(b7, 24),
            F::SHA => bit(b7, 29),
            F::VAES => bit(c7, 9),
            F::VPCLMULQDQ => bit(c7, 10),
            F::RDPID => bit(c7, 22),
            F::GFNI => bit(c7, 8),
            F::SYSCALL => bit(xd, 11),
            F::RDTSCP => bit(xd, 27),
            F::D3NOW => bit(xd, 31),
            F::D3NOWEXT => bit(xd, 30),
            F::LZCNT => bit(xc, 5),
            F::SSE4A => bit(xc, 6),
            F::PREFETCHW | F::PREFETCHWT1 | F::PREFETCHITI => true,
            F::SVM => bit(xc, 2),
            F::XSAVEOPT => bit(self.xsave1, 0),
            F::XSAVEC => bit(self.xsave1, 1),
            F::XSAVES => bit(self.xsave1, 3),
            F::CET_SS | F::CET_IBT => true,
            _ => false,
        }
    }
}

/// A leaf of the processor name string.
fn name(leaf: u32, text: &[u8; 16]) -> Leaf {
    let mut regs = [0; 4];
    for (r, b) in regs.iter_mut().zip(text.chunks_exact(4)) {
        *r = u32::from_le_bytes([b[0], b[1], b[2], b[3]]);
    }
    Leaf { leaf, sub: None, regs }
}
