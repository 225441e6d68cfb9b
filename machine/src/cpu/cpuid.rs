//! The CPUID leaves that a guest reads (Intel SDM volume 2 "CPUID", AMD APM volume 3 appendix E, KVM's
//! `Documentation/virt/kvm/x86/cpuid.rst`).

use super::caches::{CacheModel, CacheSet, Sharing};
use super::caps::{Caps, CapsKind, Leaf};
use super::features::{w, Reg};
use super::props::CpuProps;
use super::resolve::{is_amd, Resolved};
use super::topology::ApicLayout;

/// The subleaf number counts.
const INDEXED: u32 = 1;
/// Leaf 2 keeps state (KVM's flags for it).
const STATEFUL: u32 = 6;
/// Leaf with the frequencies of time stamp counter and local APIC timer; its EAX is filled in by the accelerator.
pub const TIMING_LEAF: u32 = 0x4000_0010;
/// Frequency of the local APIC timer in kHz.
const APIC_KHZ: u32 = 1_000_000;

/// Size of the XSAVE component of the architectural last-branch records.
const ARCH_LBR_BYTES: u32 = 808;

/// Everything that the leaves depend on.
pub struct CpuidInput<'a> {
    /// Properties.
    pub props: &'a CpuProps,
    /// What came of them.
    pub cpu: &'a Resolved,
    /// Accelerator.
    pub caps: &'a Caps,
    /// Shape of the machine.
    pub layout: ApicLayout,
    /// This CPU.
    pub apic_id: u32,
}

/// Builds all leaves.
pub fn leaves(input: &CpuidInput<'_>) -> Vec<Leaf> {
    let host_caches = if input.props.host_cache_info { input.caps.host.cache_leaves() } else { Vec::new() };
    let mut b = Builder { i: input, host_caches, out: Vec::with_capacity(48) };
    b.kvm();
    b.basic();
    b.extended();
    b.centaur();
    b.timing();
    b.out
}

struct Builder<'a> {
    i: &'a CpuidInput<'a>,
    host_caches: Vec<Leaf>,
    out: Vec<Leaf>,
}

impl Builder<'_> {
    /// A leaf without subleaves; all zero is the same as absent.
    fn plain(&mut self, function: u32, regs: [u32; 4]) {
        if regs != [0; 4] {
            self.out.push(Leaf { function, index: 0, flags: 0, regs });
        }
    }

    fn sub(&mut self, function: u32, index: u32, regs: [u32; 4]) {
        self.out.push(Leaf { function, index, flags: INDEXED, regs });
    }

    fn word(&self, word: usize) -> u32 {
        self.i.cpu.features.0[word] as u32
    }

    fn has(&self, name: &str) -> bool {
        self.i.cpu.features.has(name)
    }

    fn amd(&self) -> bool {
        is_amd(&self.i.cpu.vendor)
    }

    /// Logical processors of a die.
    fn die_cpus(&self) -> u32 {
        self.i.layout.cores * self.i.layout.threads
    }

    fn kvm_exposed(&self) -> bool {
        self.i.caps.kind == CapsKind::Kvm && self.i.props.on("kvm")
    }

    fn timing_exposed(&self) -> bool {
        let known = self.has("invtsc") || self.i.props.tsc_frequency != 0;
        self.kvm_exposed() && known && self.i.props.on("vmware-cpuid-freq")
    }

    fn kvm(&mut self) {
        if self.kvm_exposed() {
            let max = if self.timing_exposed() { TIMING_LEAF } else { 0x4000_0001 };
            let [b, c, d] = words12(*b"KVMKVMKVM\0\0\0");
            self.plain(0x4000_0000, [max, b, c, d]);
            let regs = [self.word(w::KVM), 0, 0, self.word(w::KVM_HINTS)];
            self.out.push(Leaf { function: 0x4000_0001, index: 0, flags: 0, regs });
        }
        if self.i.caps.kind == CapsKind::Tcg && self.i.props.on("tcg-cpuid") {
            let [b, c, d] = words12(*b"TCGTCGTCGTCG");
            self.plain(0x4000_0000, [0x4000_0001, b, c, d]);
        }
    }

    fn timing(&mut self) {
        if self.timing_exposed() {
            self.plain(TIMING_LEAF, [0, APIC_KHZ, 0, 0]);
        }
    }

    fn vendor(&self) -> [u32; 3] {
        let mut text = [0; 12];
        for (to, from) in text.iter_mut().zip(self.i.cpu.vendor.bytes()) {
            *to = from;
        }
        words12(text)
    }

    fn signature(&self) -> u32 {
        let [family, model, stepping] = self.i.cpu.signature;
        let family = if family > 15 { 0xf00 | (family - 15) << 20 } else { family << 8 };
        family | (model & 15) << 4 | (model >> 4) << 16 | stepping
    }

    fn basic(&mut self) {
        let level = self.i.cpu.level;
        let [b, d, c] = self.vendor();
        self.plain(0, [level, b, c, d]);
        // A guest can ask for a higher level than there are leaves.
        for function in 1..=level.min(0x1f) {
            match function {
                1 => self.features(),
                2 => self.descriptors(),
                4 => self.cache_leaves(),
                5 => self.plain(5, [0, 0, 3, 0]),
                6 => self.plain(6, [self.word(w::L6_EAX), 0, 0, 0]),
                7 => self.structured(),
                0xa => self.performance(),
                0xb => self.topology(),
                0xd => self.xsave(),
                0x12 => self.sgx(),
                0x14 => self.processor_trace(),
                0x1d => self.tiles(),
                0x1e => self.tile_multiply(),
                0x1f if self.i.layout.dies > 1 => self.topology_with_dies(),
                _ => {}
            }
        }
    }

    fn features(&mut self) {
        let n = self.die_cpus();
        let mut ebx = self.i.apic_id << 24 | 8 << 8;
        let mut edx = self.word(w::L1_EDX);
        if n > 1 {
            ebx |= (n & 0xff) << 16;
            edx |= 1 << 28;
        }
        self.plain(1, [self.signature(), ebx, self.word(w::L1_ECX), edx]);
    }

    /// Intel's cache leaves are empty on AMD.
    fn no_intel_caches(&self) -> bool {
        self.i.props.on("x-vendor-cpuid-only") && self.amd()
    }

    fn cache_model(&self) -> CacheModel {
        self.i.cpu.caches.unwrap_or(CacheModel::Legacy)
    }

    fn host_cache(&self, function: u32, index: u32) -> [u32; 4] {
        self.host_caches
            .iter()
            .find(|l| l.function == function && l.index == index)
            .map_or([0; 4], |l| l.regs)
    }

    fn descriptors(&mut self) {
        let regs = if self.i.props.host_cache_info {
            self.host_cache(2, 0)
        } else if self.no_intel_caches() {
            [0; 4]
        } else {
            let (ecx, edx) = self.cache_model().descriptors(self.i.props.on("l3-cache"));
            [1, 0, ecx, edx]
        };
        self.out.push(Leaf { function: 2, index: 0, flags: STATEFUL, regs });
    }

    /// Caches of a set; `cpus` share one of each level.
    fn shared(&self, set: &CacheSet, cpus: [u32; 3], cores: u32) -> Vec<[u32; 4]> {
        let n = if self.i.props.on("l3-cache") { 4 } else { 3 };
        let at = |level: u32| cpus.get(level as usize - 1).copied().unwrap_or(1);
        set.iter().take(n).map(|c| c.leaf(Sharing { cpus: at(c.level), cores })).collect()
    }

    fn cache_leaves(&mut self) {
        let cores = self.i.layout.cores;
        let list = if self.i.props.host_cache_info {
            let fix = |mut r: [u32; 4]| {
                if r[0] & 31 != 0 && cores > 1 {
                    r[0] = r[0] & 0x03ff_ffff | (cores - 1) << 26;
                }
                r
            };
            (0..16).map(|i| fix(self.host_cache(4, i))).take_while(|r| r[0] & 31 != 0).collect()
        } else if self.no_intel_caches() {
            Vec::new()
        } else {
            {
                let l = self.i.layout;
                self.shared(self.cache_model().intel(), [1, l.threads, 1 << l.die_shift()], cores)
            }
        };
        self.list(4, list);
    }

    /// A list of caches with the null entry that ends it.
    fn list(&mut self, function: u32, list: Vec<[u32; 4]>) {
        let n = list.len() as u32;
        for (index, regs) in (0..).zip(list) {
            self.sub(function, index, regs);
        }
        self.sub(function, n, [0; 4]);
    }

    fn structured(&mut self) {
        let last = self.i.cpu.level_func7;
        self.sub(7, 0, [last, self.word(w::L7_EBX), self.word(w::L7_ECX), self.word(w::L7_EDX)]);
        if last >= 1 {
            self.sub(7, 1, [self.word(w::L7_1_EAX), 0, 0, 0]);
        }
    }

    fn performance(&mut self) {
        if self.i.props.on("pmu") {
            let r = self.i.caps.leaf(0xa, 0).map_or([0; 4], |l| l.regs);
            self.plain(0xa, r);
        }
    }

    fn topology(&mut self) {
        let (l, id) = (self.i.layout, self.i.apic_id);
        if !self.i.props.on("cpuid-0xb") {
            self.sub(0xb, 0, [0; 4]);
            return;
        }
        self.sub(0xb, 0, [l.core_shift(), l.threads, 0x100, id]);
        self.sub(0xb, 1, [l.package_shift(), self.die_cpus(), 0x201, id]);
        self.sub(0xb, 2, [0, 0, 2, id]);
    }

    fn topology_with_dies(&mut self) {
        let (l, id) = (self.i.layout, self.i.apic_id);
        self.sub(0x1f, 0, [l.core_shift(), l.threads, 0x100, id]);
        self.sub(0x1f, 1, [l.die_shift(), self.die_cpus(), 0x201, id]);
        self.sub(0x1f, 2, [l.package_shift(), self.die_cpus() * l.dies, 0x502, id]);
        self.sub(0x1f, 3, [0, 0, 3, id]);
    }

    fn xsave(&mut self) {
        if self.has("xsave") {
            let (lo, hi) = (self.word(w::XCR0_LO), self.word(w::XCR0_HI));
            let (xss_lo, xss_hi) = (self.word(w::XSS_LO), self.word(w::XSS_HI));
            let parts = self.xsave_parts(u64::from(hi) << 32 | u64::from(lo));
            let standard = parts.iter().map(|(_, r)| r[0] + r[1]).fold(576, u32::max);
            self.sub(0xd, 0, [lo, standard, standard, hi]);
            let features = self.word(w::XSAVE);
            let supervisor = self.xsave_parts(u64::from(xss_hi) << 32 | u64::from(xss_lo));
            if features != 0 {
                let compact = parts.iter().fold(576, |at, (_, r)| align(at, r[2]) + r[0]);
                let lbr = if xss_lo & 1 << 15 != 0 { ARCH_LBR_BYTES } else { 0 };
                let compact = if features & 0xa != 0 { compact + lbr } else { 0 };
                self.sub(0xd, 1, [features, compact, xss_lo, xss_hi]);
            }
            for (index, regs) in parts.into_iter().chain(supervisor) {
                self.sub(0xd, index, regs);
            }
        }
        self.sub(0xd, 63, [0; 4]);
    }

    /// Components of the XSAVE area above the legacy part, as leaf 0xD describes them: size, offset, flags.
    fn xsave_parts(&self, mask: u64) -> Vec<(u32, [u32; 4])> {
        (2..63)
            .filter(|i| mask >> i & 1 != 0)
            .filter_map(|i| Some((i, self.i.caps.leaf(0xd, i)?.regs)))
            .filter(|(_, r)| r[0] != 0)
            .map(|(i, r)| (i, [r[0], r[1], r[2], 0]))
            .collect()
    }

    fn sgx(&mut self) {
        let on = self.has("sgx");
        // There is no enclave page cache, so there are no enclaves.
        self.sub(0x12, 0, [0; 4]);
        let xfrm = if on { 3 } else { 0 };
        self.sub(0x12, 1, [0, 0, xfrm, 0]);
        self.sub(0x12, 2, [0; 4]);
    }

    fn processor_trace(&mut self) {
        if !self.has("intel-pt") {
            self.sub(0x14, 0, [0; 4]);
            return;
        }
        // A fixed minimum, so that guests can move between hosts.
        self.sub(0x14, 0, [1, 0xf, 7 | self.word(w::PT_ECX), 0]);
        self.sub(0x14, 1, [0x249 << 16 | 2, 0x3f << 16 | 0x1fff, 0, 0]);
    }

    fn tiles(&mut self) {
        if self.has("amx-tile") {
            self.sub(0x1d, 0, [1, 0, 0, 0]);
            self.sub(0x1d, 1, [1024 << 16 | 8192, 8 << 16 | 64, 16, 0]);
        } else {
            self.sub(0x1d, 0, [0; 4]);
        }
    }

    fn tile_multiply(&mut self) {
        let ebx = if self.has("amx-tile") { 64 << 8 | 16 } else { 0 };
        self.sub(0x1e, 0, [0, ebx, 0, 0]);
    }

    fn extended(&mut self) {
        let xlevel = self.i.cpu.xlevel;
        if xlevel < 0x8000_0000 {
            return;
        }
        let [b, d, c] = self.vendor();
        self.plain(0x8000_0000, [xlevel, b, c, d]);
        for function in 0x8000_0001..=xlevel.min(0x8000_001f) {
            match function & 0xff {
                1 => self.extended_features(),
                2..=4 => self.model_name(function),
                5 => self.amd_l1(),
                6 => self.amd_l2(),
                7 => self.plain(function, [0, 0, 0, self.word(w::X7_EDX)]),
                8 => self.address_sizes(),
                0xa if self.has("svm") => self.plain(function, [1, 16, 0, self.word(w::SVM)]),
                0x1d => self.amd_cache_leaves(),
                0x1e => self.amd_topology(),
                _ => {}
            }
        }
    }

    fn extended_features(&mut self) {
        let mut ecx = self.word(w::X1_ECX);
        if self.die_cpus() > 1 && self.amd() {
            ecx |= 2;
        }
        self.plain(0x8000_0001, [self.signature(), 0, ecx, self.word(w::X1_EDX)]);
    }

    fn model_name(&mut self, function: u32) {
        let mut text = [0u8; 48];
        for (to, from) in text.iter_mut().zip(self.i.cpu.model_id.bytes()) {
            *to = from;
        }
        let at = (function - 0x8000_0002) as usize * 16;
        let mut regs = [0; 4];
        for (r, chunk) in regs.iter_mut().zip(text[at..at + 16].chunks_exact(4)) {
            *r = u32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]);
        }
        self.plain(function, regs);
    }

    fn amd_l1(&mut self) {
        if self.i.props.host_cache_info {
            let r = self.host_cache(0x8000_0005, 0);
            return self.plain(0x8000_0005, r);
        }
        let [d, i, ..] = self.cache_model().amd();
        self.plain(0x8000_0005, [0x01ff_01ff, 0x01ff_01ff, d.amd_l1(), i.amd_l1()]);
    }

    fn amd_l2(&mut self) {
        if self.i.props.host_cache_info {
            let r = self.host_cache(0x8000_0006, 0);
            return self.plain(0x8000_0006, r);
        }
        let [.., l2, l3] = self.cache_model().amd();
        let third = if self.i.props.on("l3-cache") { l3.amd_l3() } else { 0 };
        self.plain(0x8000_0006, [0, 0x4200_4200, l2.amd_l2(), third]);
    }

    fn address_sizes(&mut self) {
        let phys = self.i.cpu.phys_bits;
        let virt = match (self.has("lm"), self.has("la57")) {
            (false, _) => 0,
            (true, false) => 48,
            (true, true) => 57,
        };
        let n = self.die_cpus();
        let ecx = if n > 1 { self.i.layout.package_shift() << 12 | (n - 1) } else { 0 };
        self.plain(0x8000_0008, [virt << 8 | phys, self.word(w::X8_EBX), ecx, 0]);
    }

    fn amd_cache_leaves(&mut self) {
        let list = if self.i.props.host_cache_info {
            (0..16).map(|i| self.host_cache(0x8000_001d, i)).take_while(|r| r[0] & 31 != 0).collect()
        } else {
            {
                let threads = self.i.layout.threads;
                self.shared(self.cache_model().amd(), [threads, threads, self.die_cpus()], 1)
            }
        };
        self.list(0x8000_001d, list);
    }

    fn amd_topology(&mut self) {
        let l = self.i.layout;
        let p = l.place_of(self.i.apic_id);
        let ebx = p.core | (l.threads - 1) << 8;
        let node = p.socket << (l.package_shift() - l.die_shift()) | p.die;
        self.plain(0x8000_001e, [self.i.apic_id, ebx, (l.dies - 1) << 8 | node & 0xff, 0]);
    }

    fn centaur(&mut self) {
        let max = self.i.cpu.xlevel2;
        if max >= 0xc000_0000 {
            self.plain(0xc000_0000, [max, 0, 0, 0]);
        }
        if max >= 0xc000_0001 {
            let r = [self.signature(), 0, 0, self.word(w::C1_EDX)];
            self.plain(0xc000_0001, r);
        }
    }
}

fn align(at: u32, flags: u32) -> u32 {
    if flags & 2 != 0 {
        at.next_multiple_of(64)
    } else {
        at
    }
}

/// Twelve characters as three registers.
fn words12(t: [u8; 12]) -> [u32; 3] {
    [0, 4, 8].map(|i| u32::from_le_bytes([t[i], t[i + 1], t[i + 2], t[i + 3]]))
}

/// Register of a leaf list.
pub fn find(leaves: &[Leaf], function: u32, reg: Reg) -> u32 {
    let at = match reg {
        Reg::Eax => 0,
        Reg::Ebx => 1,
        Reg::Ecx => 2,
        Reg::Edx => 3,
    };
    leaves.iter().find(|l| l.function == function && l.index == 0).map_or(0, |l| l.regs[at])
}
