//! From a CPU's properties to what the guest gets: accelerator defaults, dependencies, levels, and the filter of
//! what the accelerator lacks.

use super::caches::CacheModel;
use super::caps::{Caps, CapsKind, AMD_ALIASES};
use super::features::{bit_title, lookup, w, Features, Reg, DEPENDENCIES, WORDS, XSAVE_PARTS};
use super::models::Vendor;
use super::names::Kind;
use super::props::CpuProps;
use crate::{qerr, QResult};

/// A CPU as the guest gets it.
#[derive(Clone, Debug, Default)]
pub struct Resolved {
    /// Features.
    pub features: Features,
    /// Features that were wanted but cannot be had.
    pub filtered: Features,
    /// Vendor string.
    pub vendor: String,
    /// Family, model, stepping.
    pub signature: [u32; 3],
    /// Model name.
    pub model_id: String,
    /// Highest basic leaf.
    pub level: u32,
    /// Highest subleaf of leaf 7.
    pub level_func7: u32,
    /// Highest extended leaf.
    pub xlevel: u32,
    /// Highest leaf of the 0xC0000000 range.
    pub xlevel2: u32,
    /// Lower bounds of the levels after the features raised them.
    pub min_level: u32,
    /// See `min_level`.
    pub min_xlevel: u32,
    /// See `min_level`.
    pub min_xlevel2: u32,
    /// Physical address bits; 0: not decided yet.
    pub phys_bits: u32,
    /// Caches.
    pub caches: Option<CacheModel>,
    /// Microcode revision.
    pub ucode_rev: u64,
    /// Ready to run on KVM.
    pub running_on_kvm: bool,
    /// Lines for the user.
    pub warnings: Vec<String>,
}

/// What the machine contributes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Board<'a> {
    /// `+name` and `-name` of `-cpu`: (name, on), `+` before `-`.
    pub flags: &'a [(String, bool)],
    /// Dies in a package.
    pub dies: u32,
    /// Threads in a core.
    pub threads: u32,
}

/// On by default under KVM, for models with a name.
const KVM_ON: [&str; 7] = [
    "kvmclock",
    "kvm-nopiodelay",
    "kvm-asyncpf",
    "kvm-steal-time",
    "kvm-pv-eoi",
    "kvmclock-stable-bit",
    "x2apic",
];
/// Off by default under KVM, for models with a name.
const KVM_OFF: [&str; 3] = ["acpi", "monitor", "svm"];
/// Off by default on the software CPU, for models with a name. Virtualization inside the guest is not there.
const TCG_OFF: [&str; 2] = ["vme", "svm"];

/// Invariant TSC, which a guest cannot keep when it moves to another host.
const INVTSC: u64 = 1 << 8;

/// Features that even `max` and `host` have only if the user asks for them: `kvm-hint-dedicated`, `topoext`.
const ON_REQUEST: [u64; w::COUNT] = {
    let mut m = [0; w::COUNT];
    m[w::KVM_HINTS] = 1;
    m[w::X1_ECX] = 1 << 22;
    m
};

/// Component of the architectural last-branch records, which supervisors save.
const XSS_ARCH_LBR: u64 = 1 << 15;

impl CpuProps {
    /// Decides everything but availability.
    ///
    /// # Errors
    /// A `+name` or `-name` that is no property.
    pub fn expand(&mut self, caps: &Caps, board: Board<'_>) -> QResult<Resolved> {
        let mut r = Resolved { caches: Some(self.caches), ..Resolved::default() };
        self.accel_defaults(caps);
        if self.int("host-phys-bits") < 0 {
            self.set_int("host-phys-bits", i64::from(caps.kind == CapsKind::Kvm));
        }
        let auto = matches!(self.name.kind, Kind::Max | Kind::Host);
        for (name, on) in board.flags {
            if !self.set_feature(name, *on) {
                self.set_flag(name, *on)?;
            }
        }
        let mut f = self.want;
        if auto {
            for (i, word) in WORDS.iter().enumerate() {
                let named = word.names.iter().fold(0, |m, (bit, _)| m | 1u64 << bit);
                let keep = match (self.migratable, i) {
                    (false, _) => !0,
                    (true, w::X7_EDX) => named & !INVTSC,
                    (true, _) => named,
                };
                f.0[i] |= caps.features.0[i] & keep & !self.user.0[i] & !ON_REQUEST[i];
            }
        }
        self.dependencies(&mut f, &mut r.warnings);
        if !self.on("kvm") || caps.kind != CapsKind::Kvm {
            f.0[w::KVM] = 0;
        }
        self.identity(caps, &mut r);
        xsave_parts(&mut f);
        r.features = f;
        self.levels(caps, board, &mut r);
        if self.legacy_cache {
            r.caches = Some(CacheModel::Legacy);
        }
        Ok(r)
    }

    /// Takes away what the accelerator lacks; then `phys-bits` and what follows from the vendor.
    ///
    /// # Errors
    /// Something is missing and `enforce` is on, or a property cannot be honoured.
    pub fn finish(&self, caps: &Caps, board: Board<'_>, r: &mut Resolved) -> QResult<()> {
        if caps.kind != CapsKind::Kvm && self.name.kind == Kind::Host {
            return Err(qerr!("CPU model 'host' requires KVM or HVF"));
        }
        let verbose = self.on("check") || self.on("enforce");
        filter(caps, self.on("x-force-features"), verbose, r);
        if self.on("enforce") && !r.filtered.is_empty() {
            let who = if caps.kind == CapsKind::Tcg { "TCG" } else { "Host" };
            return Err(qerr!("{who} doesn't support requested features"));
        }
        self.unsupported()?;
        if is_amd(&r.vendor) {
            let common = r.features.0[w::L1_EDX] & AMD_ALIASES;
            r.features.0[w::X1_EDX] = r.features.0[w::X1_EDX] & !AMD_ALIASES | common;
        }
        self.phys_bits(caps, r)?;
        if r.vendor == Vendor::Amd.id() && board.threads > 1 && !r.features.has("topoext") {
            r.warnings.push(format!(
                "This family of AMD CPU doesn't support hyperthreading({})\nChange -smp, or switch topoext on.",
                board.threads
            ));
        }
        r.ucode_rev = match self.int("ucode-rev") as u64 {
            0 if self.model_id.is_none() && caps.ucode_rev.is_some() => caps.ucode_rev.unwrap_or(0),
            0 if is_amd(&r.vendor) => 0x0100_0065,
            0 => 1 << 32,
            v => v,
        };
        Ok(())
    }

    fn set_flag(&mut self, name: &str, on: bool) -> QResult<()> {
        use crate::qom::{PropAccess, PropInput};
        let owner = self.name.type_name;
        if self.set_prop(owner, name, &PropInput::Str(if on { "on" } else { "off" }))? {
            return Ok(());
        }
        Err(qerr!("Property '{owner}.{name}' not found"))
    }

    fn accel_defaults(&mut self, caps: &Caps) {
        if !self.is_named_model() {
            return;
        }
        let (on, off): (&[&str], &[&str]) = match caps.kind {
            CapsKind::Kvm => (&KVM_ON, &KVM_OFF),
            CapsKind::Tcg => (&[], &TCG_OFF),
            CapsKind::Any => (&[], &[]),
        };
        for (list, value) in [(on, true), (off, false)] {
            for name in list {
                let Some((word, mask)) = lookup(name) else { continue };
                if self.user.0[word] & mask == 0 {
                    // The one default that depends on where the local APIC is.
                    let value = value && (*name != "x2apic" || caps.features.has(name));
                    self.want.set(name, value);
                }
            }
        }
    }

    fn dependencies(&self, f: &mut Features, warnings: &mut Vec<String>) {
        for (needed, word, mask) in DEPENDENCIES {
            if f.has(needed) {
                continue;
            }
            let lost = f.0[*word] & mask;
            f.0[*word] &= !mask;
            for bit in (0..64).filter(|b| (lost & self.user.0[*word]) >> b & 1 != 0) {
                let title = bit_title(*word, bit);
                warnings
                    .push(format!("This feature depends on other features that were not requested: {title}"));
            }
        }
    }

    fn identity(&self, caps: &Caps, r: &mut Resolved) {
        let kvm = caps.kind == CapsKind::Kvm;
        let host = &caps.host;
        let raw = host.signature;
        let family = raw >> 8 & 15;
        let host_signature = if kvm {
            [
                family + if family == 15 { raw >> 20 & 0xff } else { 0 },
                raw >> 4 & 15 | raw >> 12 & 0xf0,
                raw & 15,
            ]
        } else {
            [15, 107, 1]
        };
        for (out, (own, host)) in r.signature.iter_mut().zip(self.signature.iter().zip(host_signature)) {
            *out = own.unwrap_or(host);
        }
        r.vendor = match (&self.vendor, self.model_vendor) {
            (Some(v), _) => v.clone(),
            (None, _) if kvm => host.vendor.clone(),
            (None, Some(v)) => v.id().into(),
            (None, None) => Vendor::Amd.id().into(),
        };
        r.model_id = match &self.model_id {
            Some(id) => id.clone(),
            None if kvm => host.model_id.clone(),
            None => "QEMU TCG CPU version 2.5+".into(),
        };
    }

    fn levels(&self, caps: &Caps, board: Board<'_>, r: &mut Resolved) {
        let (mut level, mut xlevel, mut xlevel2, mut func7) =
            (self.int("min-level") as u32, self.int("min-xlevel") as u32, self.int("min-xlevel2") as u32, 0);
        if matches!(self.name.kind, Kind::Max | Kind::Host) {
            let (a, b) = match caps.kind {
                CapsKind::Kvm => (caps.reg(0, 0, Reg::Eax), caps.reg(0x8000_0000, 0, Reg::Eax)),
                _ => (0xd, 0x8000_000a),
            };
            (level, xlevel) = (level.max(a), xlevel.max(b));
            xlevel2 = xlevel2.max(caps.reg(0xc000_0000, 0, Reg::Eax));
        }
        let f = &r.features;
        let used = |word: usize| f.0[word] != 0;
        let mut raise = |word: usize, to: u32| {
            if used(word) {
                level = level.max(to);
            }
        };
        raise(w::L7_EBX, 7);
        if self.on("full-cpuid-auto-level") {
            raise(w::L1_EDX, 1);
            raise(w::L1_ECX, 1);
            raise(w::L6_EAX, 6);
            raise(w::L7_ECX, 7);
            raise(w::L7_1_EAX, 7);
            raise(w::XSAVE, 0xd);
            if used(w::L7_1_EAX) {
                func7 = 1;
            }
            let ext = [(w::X1_EDX, 1), (w::X1_ECX, 1), (w::X7_EDX, 7), (w::X8_EBX, 8), (w::SVM, 10)];
            for (_, to) in ext.iter().filter(|(word, _)| used(*word)) {
                xlevel = xlevel.max(0x8000_0000 + to);
            }
            if used(w::C1_EDX) {
                xlevel2 = xlevel2.max(0xc000_0001);
            }
            if f.has("intel-pt") && self.on("x-intel-pt-auto-level") {
                level = level.max(0x14);
            }
            if board.dies > 1 && r.vendor == Vendor::Intel.id() {
                level = level.max(0x1f);
            }
            if f.has("svm") {
                xlevel = xlevel.max(0x8000_000a);
            }
            if f.has("sgx") {
                level = level.max(0x12);
            }
        }
        let chosen = |name: &str, auto: u32| match self.int(name) as u32 {
            u32::MAX => auto,
            v => v,
        };
        (r.min_level, r.min_xlevel, r.min_xlevel2) = (level, xlevel, xlevel2);
        r.level = chosen("level", level);
        r.level_func7 = chosen("level-func7", func7);
        r.xlevel = chosen("xlevel", xlevel);
        r.xlevel2 = chosen("xlevel2", xlevel2);
    }

    fn phys_bits(&self, caps: &Caps, r: &mut Resolved) -> QResult<()> {
        let kvm = caps.kind == CapsKind::Kvm;
        r.running_on_kvm = kvm;
        let host_bits = caps.host.phys_bits;
        let own = self.int("phys-bits") as u32;
        let auto = self.on("host-phys-bits");
        r.phys_bits = if !r.features.has("lm") {
            match own {
                0 => 32 + if r.features.has("pse36") { 4 } else { 0 },
                v => v,
            }
        } else if kvm && auto && own == 0 {
            match self.int("host-phys-bits-limit") as u32 {
                0 => host_bits,
                limit => host_bits.min(limit),
            }
        } else if own == 0 {
            40
        } else {
            if kvm && own != host_bits {
                r.warnings.push(format!(
                    "Host physical bits ({host_bits}) does not match phys-bits property ({own})"
                ));
            }
            own
        };
        if r.features.has("lm") && !(32..=52).contains(&r.phys_bits) {
            return Err(qerr!("phys-bits should be between 32 and 52  (but is {})", r.phys_bits));
        }
        Ok(())
    }
}

/// AMD and those who license from it.
pub fn is_amd(vendor: &str) -> bool {
    vendor == Vendor::Amd.id() || vendor == Vendor::Hygon.id()
}

fn xsave_parts(f: &mut Features) {
    let (mut xcr0, mut xss) = (0u64, 0u64);
    if f.has("xsave") {
        xcr0 = 3;
        for (part, name) in XSAVE_PARTS {
            if f.has(name) {
                xcr0 |= 1 << part;
            }
        }
        if f.has("xsaves") && f.has("arch-lbr") {
            xss = XSS_ARCH_LBR;
        }
    }
    f.0[w::XCR0_LO] = xcr0 & 0xffff_ffff;
    f.0[w::XCR0_HI] = xcr0 >> 32;
    f.0[w::XSS_LO] = xss;
    f.0[w::XSS_HI] = 0;
}

fn filter(caps: &Caps, force: bool, verbose: bool, r: &mut Resolved) {
    let who = if caps.kind == CapsKind::Tcg { "TCG" } else { "host" };
    for i in 0..w::COUNT {
        let missing = r.features.0[i] & !caps.features.0[i];
        r.filtered.0[i] |= missing;
        if !force {
            r.features.0[i] &= !missing;
        }
        if verbose {
            for bit in (0..64).filter(|b| missing >> b & 1 != 0) {
                let title = bit_title(i, bit);
                r.warnings.push(format!("{who} doesn't support requested feature: {title}"));
            }
        }
    }
}
