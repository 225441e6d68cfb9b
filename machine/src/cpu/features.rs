//! Sets of CPU features, by name and by feature word.

use std::sync::OnceLock;

pub use super::words::{w, At, Reg, WORDS};

/// Other names that users and scripts write for a feature.
pub const ALIASES: [(&str, &str); 30] = [
    ("cmp_legacy", "cmp-legacy"),
    ("ds_cpl", "ds-cpl"),
    ("ffxsr", "fxsr-opt"),
    ("fxsr_opt", "fxsr-opt"),
    ("i64", "lm"),
    ("kvm_asyncpf", "kvm-asyncpf"),
    ("kvm_asyncpf_int", "kvm-asyncpf-int"),
    ("kvm_mmu", "kvm-mmu"),
    ("kvm_nopiodelay", "kvm-nopiodelay"),
    ("kvm_poll_control", "kvm-poll-control"),
    ("kvm_pv_eoi", "kvm-pv-eoi"),
    ("kvm_pv_unhalt", "kvm-pv-unhalt"),
    ("kvm_steal_time", "kvm-steal-time"),
    ("lahf_lm", "lahf-lm"),
    ("nodeid_msr", "nodeid-msr"),
    ("nrip_save", "nrip-save"),
    ("pause_filter", "pause-filter"),
    ("pclmuldq", "pclmulqdq"),
    ("perfctr_core", "perfctr-core"),
    ("perfctr_nb", "perfctr-nb"),
    ("sse3", "pni"),
    ("sse4-1", "sse4.1"),
    ("sse4-2", "sse4.2"),
    ("sse4_1", "sse4.1"),
    ("sse4_2", "sse4.2"),
    ("svm_lock", "svm-lock"),
    ("tsc_adjust", "tsc-adjust"),
    ("tsc_scale", "tsc-scale"),
    ("vmcb_clean", "vmcb-clean"),
    ("xd", "nx"),
];

/// Number of distinct feature names.
pub const NAME_COUNT: usize = 319;

/// A bit of a feature word: (name, word, bit).
type Entry = (&'static str, usize, u32);

/// All named bits, sorted by name. Built on first use (some ten microseconds).
fn index() -> &'static [Entry] {
    static INDEX: OnceLock<Vec<Entry>> = OnceLock::new();
    INDEX.get_or_init(|| {
        let mut v: Vec<Entry> = WORDS
            .iter()
            .enumerate()
            .flat_map(|(word, x)| x.names.iter().map(move |(bit, name)| (*name, word, *bit)))
            .collect();
        v.sort_unstable();
        v
    })
}

/// All feature names in order, each once.
pub fn names() -> impl Iterator<Item = &'static str> {
    let all = index();
    all.iter().enumerate().filter(|(i, e)| *i == 0 || all[i - 1].0 != e.0).map(|(_, e)| e.0)
}

/// Word and mask of a feature, by name or alias.
pub fn lookup(name: &str) -> Option<(usize, u64)> {
    let all = index();
    let find = |name: &str| {
        let start = all.partition_point(|e| e.0 < name);
        let first = all.get(start).filter(|e| e.0 == name)?;
        let mask = all[start..].iter().take_while(|e| e.0 == name).fold(0, |m, e| m | 1 << e.2);
        Some((first.1, mask))
    };
    find(name).or_else(|| {
        let at = ALIASES.binary_search_by(|a| a.0.cmp(name)).ok()?;
        find(ALIASES[at].1)
    })
}

/// A set of features: the feature words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features(pub [u64; w::COUNT]);

impl Default for Features {
    fn default() -> Self {
        Self([0; w::COUNT])
    }
}

impl Features {
    /// Whether all bits of the named feature are set. `false` for unknown names.
    pub fn has(&self, name: &str) -> bool {
        lookup(name).is_some_and(|(word, mask)| self.0[word] & mask == mask)
    }

    /// Sets or clears a feature; `false` if there is none of that name.
    pub fn set(&mut self, name: &str, on: bool) -> bool {
        let Some((word, mask)) = lookup(name) else { return false };
        if on {
            self.0[word] |= mask;
        } else {
            self.0[word] &= !mask;
        }
        true
    }

    /// Applies a list of `name`, `+name` and `-name`, separated by blanks.
    pub fn apply(&mut self, list: &str) {
        for item in list.split_ascii_whitespace() {
            let known = match item.strip_prefix('-') {
                Some(name) => self.set(name, false),
                None => self.set(item.trim_start_matches('+'), true),
            };
            debug_assert!(known, "model table names unknown feature {item}");
        }
    }

    /// Names of the features of which any bit is set, in the order of the words. A component of the XSAVE area has the
    /// name of the feature that owns it.
    pub fn to_names(self) -> Vec<&'static str> {
        let named = |(i, x): (usize, &'static super::words::Word)| {
            let v = self.0[i];
            let names: &[(u32, &'static str)] = match i {
                w::XCR0_LO => &XSAVE_PARTS,
                w::XSS_LO => &[(15, "arch-lbr")],
                _ => x.names,
            };
            names.iter().filter(move |(bit, _)| v >> bit & 1 != 0).map(|(_, n)| *n)
        };
        WORDS.iter().enumerate().flat_map(named).collect()
    }

    /// Whether no bit is set.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|v| *v == 0)
    }
}

/// Features that own a part of the XSAVE area: (component, feature).
pub const XSAVE_PARTS: [(u32, &str); 9] = [
    (2, "avx"),
    (3, "mpx"),
    (4, "mpx"),
    (5, "avx512f"),
    (6, "avx512f"),
    (7, "avx512f"),
    (9, "pku"),
    (17, "amx-tile"),
    (18, "amx-tile"),
];
/// `CPUID.01H:ECX.pni [bit 0]`: how messages name a bit.
pub fn bit_title(word: usize, bit: u32) -> String {
    let x = &WORDS[word];
    let place = match x.at {
        At::Cpuid(leaf, _, reg) => format!("CPUID.{leaf:02X}H:{}", reg.name()),
        At::Msr(index) => format!("MSR({index:X}H)"),
    };
    match x.names.iter().find(|(b, _)| *b == bit) {
        Some((_, name)) => format!("{place}.{name} [bit {bit}]"),
        None => format!("{place} [bit {bit}]"),
    }
}

/// What a feature needs: without the named feature, these bits mean nothing.
pub static DEPENDENCIES: &[(&str, usize, u64)] = &[
    ("arch-capabilities", w::ARCH_CAPS, !0),
    ("core-capability", w::CORE_CAPS, !0),
    ("pdcm", w::PERF_CAPS, !0),
    ("intel-pt", w::PT_ECX, !0),
    ("invpcid", w::VMX_PROC2, 1 << 12),
    ("rdtscp", w::VMX_PROC2, 1 << 3),
    ("rdrand", w::VMX_PROC2, 1 << 11),
    ("rdseed", w::VMX_PROC2, 1 << 16),
    ("xsaves", w::VMX_PROC2, 1 << 20),
    ("lm", w::VMX_ENTRY, 1 << 9),
    ("mpx", w::VMX_EXIT, 1 << 23),
    ("mpx", w::VMX_ENTRY, 1 << 16),
    ("vmx", w::VMX_PROC, !0),
    ("vmx", w::VMX_PROC2, !0),
    ("vmx", w::VMX_PIN, !0),
    ("vmx", w::VMX_EXIT, !0),
    ("vmx", w::VMX_ENTRY, !0),
    ("vmx", w::VMX_MISC, !0),
    ("vmx", w::VMX_EPT_VPID, !0),
    ("vmx", w::VMX_BASIC, !0),
    ("vmx", w::VMX_VMFUNC, !0),
    ("vmx-secondary-ctls", w::VMX_PROC2, !0),
    ("vmx-ept", w::VMX_PROC2, 1 << 7),
    ("vmx-ept", w::VMX_EPT_VPID, 0xffff_ffff),
    ("vmx-vpid", w::VMX_EPT_VPID, 0xffff_ffff << 32),
    ("vmx-vmfunc", w::VMX_VMFUNC, !0),
    ("svm", w::SVM, !0),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_aliases() {
        assert_eq!(names().count(), NAME_COUNT);
        assert!(ALIASES.windows(2).all(|p| p[0].0 < p[1].0));
        for (alias, name) in ALIASES {
            assert_eq!(lookup(alias), lookup(name), "{alias}");
            assert!(lookup(name).is_some(), "{name}");
        }
        assert_eq!(lookup("kvmclock"), Some((w::KVM, 9)));
        assert_eq!(lookup("nosuch"), None);
        assert!(DEPENDENCIES.iter().all(|d| lookup(d.0).is_some()));
    }

    #[test]
    fn no_bit_has_two_names() {
        for x in &WORDS {
            assert!(x.names.windows(2).all(|p| p[0].0 < p[1].0), "{:?}", x.at);
        }
    }

    #[test]
    fn titles() {
        assert_eq!(bit_title(w::L1_ECX, 0), "CPUID.01H:ECX.pni [bit 0]");
        assert_eq!(bit_title(w::ARCH_CAPS, 1), "MSR(10AH).ibrs-all [bit 1]");
        assert_eq!(bit_title(w::XCR0_LO, 9), "CPUID.0DH:EAX [bit 9]");
    }
}
