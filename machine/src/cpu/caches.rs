//! Caches that guests see, and their encodings in CPUID leaves 2, 4, 0x80000005, 0x80000006 and 0x8000001D
//! (Intel SDM volume 2, AMD APM volume 3).

/// Which caches a model shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheModel {
    /// One set in the leaves of Intel, another in those of AMD.
    Legacy,
    /// EPYC (Naples).
    Epyc,
    /// EPYC (Rome).
    Rome,
    /// EPYC (Milan).
    Milan,
}

/// A cache. Lines are 64 bytes.
#[derive(Clone, Copy, Debug)]
pub struct Cache {
    /// 1 data, 2 instructions, 3 both.
    pub kind: u32,
    /// Level.
    pub level: u32,
    /// Ways.
    pub ways: u32,
    /// Sets.
    pub sets: u32,
    /// Needs no initialisation by software.
    pub self_init: bool,
    /// EDX of leaf 4: bit 0 WBINVD does not reach lower levels, bit 1 inclusive, bit 2 complex indexing.
    pub flags: u32,
}

/// First-level data, first-level instruction, second-level, third-level.
pub type CacheSet = [Cache; 4];

const fn cache(kind: u32, level: u32, ways: u32, sets: u32, self_init: bool, flags: u32) -> Cache {
    Cache { kind, level, ways, sets, self_init, flags }
}

const L3_16M: Cache = cache(3, 3, 16, 16384, true, 6);

static INTEL: CacheSet =
    [cache(1, 1, 8, 64, true, 1), cache(2, 1, 8, 64, true, 1), cache(3, 2, 16, 4096, true, 1), L3_16M];
static AMD: CacheSet =
    [cache(1, 1, 2, 512, true, 1), cache(2, 1, 2, 512, true, 1), cache(3, 2, 16, 512, false, 0), L3_16M];
static EPYC: CacheSet = [
    cache(1, 1, 8, 64, true, 1),
    cache(2, 1, 4, 256, true, 1),
    cache(3, 2, 8, 1024, false, 0),
    cache(3, 3, 16, 8192, true, 6),
];
static ROME: CacheSet =
    [cache(1, 1, 8, 64, true, 1), cache(2, 1, 8, 64, true, 1), cache(3, 2, 8, 1024, false, 0), L3_16M];
static MILAN: CacheSet = [
    cache(1, 1, 8, 64, true, 1),
    cache(2, 1, 8, 64, true, 1),
    cache(3, 2, 8, 1024, false, 0),
    cache(3, 3, 16, 32768, true, 6),
];

impl CacheModel {
    /// What Intel's leaves show.
    pub fn intel(self) -> &'static CacheSet {
        match self {
            Self::Legacy => &INTEL,
            Self::Epyc => &EPYC,
            Self::Rome => &ROME,
            Self::Milan => &MILAN,
        }
    }

    /// What AMD's leaves show.
    pub fn amd(self) -> &'static CacheSet {
        match self {
            Self::Legacy => &AMD,
            other => other.intel(),
        }
    }

    /// Leaf 2: ECX and EDX.
    pub fn descriptors(self, l3: bool) -> (u32, u32) {
        let [d, i, l2, third] = self.intel();
        // The legacy second-level cache is listed with half its size, for compatibility with older guests.
        let second = if self == Self::Legacy { 0x7d } else { l2.descriptor() };
        (if l3 { third.descriptor() } else { 0 }, d.descriptor() << 16 | i.descriptor() << 8 | second)
    }
}

/// How a cache is shared.
#[derive(Clone, Copy, Debug)]
pub struct Sharing {
    /// Logical processors that share it.
    pub cpus: u32,
    /// Cores in the package.
    pub cores: u32,
}

impl Cache {
    fn kib(&self) -> u32 {
        self.ways * self.sets * 64 / 1024
    }

    /// Registers of leaf 4 or 0x8000001D (`cores` is 1 there).
    pub fn leaf(&self, s: Sharing) -> [u32; 4] {
        let eax = self.kind
            | self.level << 5
            | u32::from(self.self_init) << 8
            | s.cpus.saturating_sub(1) << 14
            | s.cores.saturating_sub(1) << 26;
        [eax, 63 | (self.ways - 1) << 22, self.sets - 1, self.flags]
    }

    /// Register of leaf 0x80000005.
    pub fn amd_l1(&self) -> u32 {
        self.kib() << 24 | self.ways << 16 | 1 << 8 | 64
    }

    /// ECX of leaf 0x80000006.
    pub fn amd_l2(&self) -> u32 {
        self.kib() << 16 | self.amd_ways() << 12 | 1 << 8 | 64
    }

    /// EDX of leaf 0x80000006.
    pub fn amd_l3(&self) -> u32 {
        (self.kib() / 512) << 18 | self.amd_ways() << 12 | 1 << 8 | 64
    }

    fn amd_ways(&self) -> u32 {
        match self.ways {
            1 => 1,
            2 => 2,
            4 => 4,
            8 => 6,
            16 => 8,
            32 => 10,
            48 => 11,
            64 => 12,
            96 => 13,
            128 => 14,
            _ => 0,
        }
    }

    /// Descriptor byte of leaf 2; 0xff if there is none (leaf 4 tells).
    fn descriptor(&self) -> u32 {
        match (self.kind, self.level, self.kib(), self.ways) {
            (1, 1, 32, 8) => 0x2c,
            (2, 1, 32, 8) => 0x30,
            (3, 2, 512, 8) => 0x80,
            (3, 3, 8192, 16) => 0x4b,
            (3, 3, 16384, 16) => 0x4d,
            _ => 0xff,
        }
    }
}
