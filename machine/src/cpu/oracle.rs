//! Compares with what QEMU 7.2 hands to KVM. `testdata/*.txt` holds recorded `KVM_GET_SUPPORTED_CPUID` tables,
//! command lines, warnings and `KVM_SET_CPUID2` tables; in `full.txt` KVM seemed to support nearly everything.

use std::fmt::Write;

use super::caps::{Caps, HostCpu, KvmFacts, Leaf};
use super::cpuid::{leaves, CpuidInput, TIMING_LEAF};
use super::device::CpuSetup;
use super::parse::apply_spec;
use super::props::CpuProps;
use super::topology::ApicLayout;
use super::words::w;
use crate::spec::{CpuFeature, CpuSpec};

fn leaf(line: &str) -> Leaf {
    let f: Vec<u32> = line.split(' ').map(|x| u32::from_str_radix(x, 16).unwrap()).collect();
    Leaf { function: f[0], index: f[1], flags: f[2], regs: [f[3], f[4], f[5], f[6]] }
}

/// The machine that the tables were recorded on.
fn host() -> HostCpu {
    let caches = [
        "2 0 0 feff01 f0 0 0",
        "4 0 0 4000121 2c0003f 3f 0",
        "4 1 0 4000122 1c0003f 3f 0",
        "4 2 0 4000143 3c0003f 7ff 0",
        "4 3 0 4004163 4c0003f 33fff 0",
        "80000006 0 0 0 0 8007040 0",
    ];
    HostCpu {
        vendor: "GenuineIntel".into(),
        signature: 0xc06f2,
        model_id: "Intel(R) Xeon(R) Processor".into(),
        phys_bits: 48,
        caches: Some(caches.map(leaf).to_vec()),
    }
}

pub fn recorded_caps(supported: &[&str]) -> Caps {
    let table = supported.iter().map(|l| leaf(l)).collect();
    let msr = |i| match i {
        0x10a => Some(0xc00_006d),
        0x345 => Some(0),
        0x8b => Some(1 << 32),
        _ => None,
    };
    Caps::kvm(table, msr, KvmFacts { kernel_lapic: true, tsc_deadline: true, mwait: false }, host())
}

fn spec(text: &str) -> CpuSpec {
    let mut parts = text.split(',');
    let model = parts.next().unwrap().to_string();
    let one = |p: &str| match (p.split_at(1), p.split_once('=')) {
        (_, Some((n, v))) => CpuFeature::Prop(n.into(), v.into()),
        (("+", n), _) => CpuFeature::Plus(n.into()),
        (("-", n), _) => CpuFeature::Minus(n.into()),
        _ => CpuFeature::Prop(p.into(), "on".into()),
    };
    CpuSpec { model, features: parts.map(one).collect() }
}

/// What we would do for a `-cpu` text: the lines as in the recording.
fn ours(cpu: &str, shape: [u32; 4], apic_ids: &[u32], caps: &Caps) -> String {
    let (name, flags) = apply_spec(&spec(cpu)).unwrap();
    let [_, dies, cores, threads] = shape;
    let layout = ApicLayout { threads, cores, dies };
    let setup = CpuSetup { caps: caps.clone(), flags: flags.flags, layout };
    let mut p = CpuProps::new(name);
    let class = crate::qom::class_by_name(name.type_name).unwrap();
    for g in &flags.globals {
        g.apply(class, &mut p).unwrap();
    }
    let (warnings, result) = p.resolve(&setup);
    result.unwrap();
    let mut out = String::new();
    for x in warnings.iter().filter_map(|x| x.lines().next()) {
        writeln!(out, "! {x}").unwrap();
    }
    let r = p.resolved.clone().unwrap();
    for id in apic_ids {
        writeln!(out, "cpu {id:x}").unwrap();
        for mut l in leaves(&CpuidInput { props: &p, cpu: &r, caps, layout, apic_id: *id }) {
            if l.function == TIMING_LEAF {
                l.regs[0] = 2_300_000;
            }
            let [a, b, c, d] = l.regs;
            writeln!(out, "{:x} {:x} {:x} {a:x} {b:x} {c:x} {d:x}", l.function, l.index, l.flags).unwrap();
        }
        writeln!(out, "msr 10a={:x} 8b={:x}", r.features.0[w::ARCH_CAPS], r.ucode_rev).unwrap();
    }
    out
}

fn compare(text: &str) {
    let mut blocks = text.split("\n= ");
    let supported: Vec<&str> = blocks.next().unwrap().lines().skip(1).collect();
    let caps = recorded_caps(&supported);
    let mut bad = String::new();
    let mut n = 0;
    for block in blocks {
        let (head, want) = block.split_once('\n').unwrap();
        let mut f = head.split(' ');
        let cpu = f.next().unwrap();
        let shape: Vec<u32> = f.map(|x| x.parse().unwrap()).collect();
        let ids: Vec<u32> = want
            .lines()
            .filter_map(|l| l.strip_prefix("cpu "))
            .map(|x| u32::from_str_radix(x, 16).unwrap())
            .collect();
        let got = ours(cpu, shape.try_into().unwrap(), &ids, &caps);
        // QEMU repeats some warnings for each CPU.
        let mut seen = std::collections::HashSet::new();
        let want: Vec<&str> =
            want.trim_end().lines().filter(|l| !l.starts_with('!') || seen.insert(*l)).collect();
        let want = want.join("\n");
        if got.trim_end() != want {
            writeln!(bad, "== {head}").unwrap();
            for l in want.lines().filter(|l| !got.lines().any(|g| g == *l)) {
                writeln!(bad, "QEMU {l}").unwrap();
            }
            for l in got.lines().filter(|l| !want.lines().any(|g| g == *l)) {
                writeln!(bad, "ours {l}").unwrap();
            }
        }
        n += 1;
    }
    assert!(bad.is_empty(), "{bad}");
    assert!(n > 10, "few recordings");
}

#[test]
fn tables_equal_those_of_qemu() {
    compare(include_str!("testdata/kvm.txt"));
}

#[test]
fn tables_equal_those_of_qemu_with_all_features() {
    compare(include_str!("testdata/full.txt"));
}

/// The KVM that all recordings but `full.txt` come from.
fn kvm_caps() -> Caps {
    let text = include_str!("testdata/kvm.txt");
    let table: Vec<&str> = text.split("\n= ").next().unwrap().lines().skip(1).collect();
    recorded_caps(&table)
}

#[test]
fn definitions_equal_those_of_qemu() {
    let got: Vec<String> = super::definitions(&kvm_caps())
        .iter()
        .map(|d| {
            let flag = |b: bool| u8::from(b);
            format!(
                "{} {} {} {}{}{} {}",
                d.name,
                d.typename,
                d.alias_of.as_deref().unwrap_or("-"),
                flag(d.is_static),
                flag(d.migration_safe),
                flag(d.deprecated),
                d.unavailable_features.join(",")
            )
        })
        .collect();
    let want: Vec<&str> = include_str!("testdata/definitions.txt").lines().collect();
    let bad: Vec<_> = got.iter().zip(&want).filter(|(g, w)| g != *w).collect();
    assert!(bad.is_empty(), "{bad:#?}");
    assert_eq!(got.len(), want.len());
}

#[test]
fn expansions_equal_those_of_qemu() {
    let caps = kvm_caps();
    for line in include_str!("testdata/static.txt").lines() {
        let f: Vec<&str> = line.split('|').collect();
        let (_, p) = super::expand(super::Expansion::Static, f[0], None, &caps).unwrap();
        let n = |k: &str| p[k].as_u64().unwrap();
        let numbers = ["family", "model", "stepping", "min-level", "min-xlevel"].map(n);
        assert_eq!(numbers.map(|n| n.to_string()).join(" "), f[1], "{}", f[0]);
        assert_eq!((p["vendor"].as_str(), p["model-id"].as_str()), (Some(f[2]), Some(f[3])), "{}", f[0]);
        let mut on: Vec<&str> = p.iter().filter(|(_, v)| **v == true).map(|(k, _)| k.as_str()).collect();
        on.sort_unstable();
        assert_eq!(on.join(" "), f[4], "{}", f[0]);
    }
}
