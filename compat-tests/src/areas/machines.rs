//! What a started machine says of itself: query commands, object and device trees, memory map, PCI functions.

use super::{trees, Sides};
use crate::bins::Bin;
use crate::compare;
use crate::qmp::Failure;
use crate::score::{keyed, Row};
use crate::vm::Vm;
use crate::Res;
use serde_json::{json, Value};
use std::collections::BTreeMap;

/// (name, arguments) of the machines whose replies are compared.
const MACHINES: &[(&str, &str)] = &[
    ("none", "-machine none -nodefaults -display none"),
    ("pc", "-machine pc,accel=kvm -m 128 -S -display none -serial null -monitor none"),
    ("microvm", "-machine microvm,accel=kvm -m 128 -S -display none -serial null -monitor none"),
];

/// Query commands that need arguments, and control commands with a visible answer.
const WITH_ARGUMENTS: &[(&str, &str)] = &[
    ("qom-list", r#"{"path":"/machine"}"#),
    ("qom-list", r#"{"path":"/objects"}"#),
    ("qom-list", r#"{"path":"/nope"}"#),
    ("qom-get", r#"{"path":"/machine","property":"type"}"#),
    ("qom-get", r#"{"path":"/machine","property":"nope"}"#),
    ("qom-list-types", r#"{"implements":"machine","abstract":false}"#),
    ("qom-list-types", r#"{"implements":"device","abstract":false}"#),
    ("qom-list-types", r#"{"implements":"user-creatable"}"#),
    ("qom-list-properties", r#"{"typename":"pc-i440fx-7.2-machine"}"#),
    ("device-list-properties", r#"{"typename":"virtio-blk-pci"}"#),
    ("device-list-properties", r#"{"typename":"e1000"}"#),
    ("device-list-properties", r#"{"typename":"nope"}"#),
    ("query-command-line-options", r#"{"option":"drive"}"#),
    ("query-command-line-options", r#"{"option":"nope"}"#),
    ("human-monitor-command", r#"{"command-line":"info status"}"#),
    ("human-monitor-command", r#"{"command-line":"info cpus"}"#),
    ("human-monitor-command", r#"{"command-line":"info block"}"#),
    ("human-monitor-command", r#"{"command-line":"info name"}"#),
    ("human-monitor-command", r#"{"command-line":"info uuid"}"#),
    ("human-monitor-command", r#"{"command-line":"info kvm"}"#),
    ("human-monitor-command", r#"{"command-line":"info pci"}"#),
    ("human-monitor-command", r#"{"command-line":"info network"}"#),
    ("human-monitor-command", r#"{"command-line":"info chardev"}"#),
    ("human-monitor-command", r#"{"command-line":"info mice"}"#),
    ("human-monitor-command", r#"{"command-line":"info usb"}"#),
    ("human-monitor-command", r#"{"command-line":"info roms"}"#),
    ("human-monitor-command", r#"{"command-line":"info irq"}"#),
    ("human-monitor-command", r#"{"command-line":"info snapshots"}"#),
    ("human-monitor-command", r#"{"command-line":"info nope"}"#),
    ("human-monitor-command", r#"{"command-line":"nope"}"#),
    ("human-monitor-command", r#"{"command-line":"help quit"}"#),
    ("device_add", r#"{"driver":"nope"}"#),
    ("device_add", r#"{"driver":"e1000","bus":"nope"}"#),
    ("device_add", r#"{}"#),
    ("device_del", r#"{"id":"nope"}"#),
    ("netdev_add", r#"{"type":"nope","id":"x"}"#),
    ("netdev_del", r#"{"id":"nope"}"#),
    ("object-add", r#"{"qom-type":"nope","id":"x"}"#),
    ("object-del", r#"{"id":"nope"}"#),
    ("chardev-remove", r#"{"id":"nope"}"#),
    ("chardev-add", r#"{"id":"c0","backend":{"type":"null","data":{}}}"#),
    ("blockdev-del", r#"{"node-name":"nope"}"#),
    ("blockdev-add", r#"{"driver":"nope"}"#),
    ("blockdev-add", r#"{"driver":"null-co","node-name":"n0","size":1048576}"#),
    ("system_wakeup", r#"{}"#),
    ("nope", r#"{}"#),
    ("query-status", r#"{"bogus":1}"#),
    ("qmp_capabilities", r#"{}"#),
    ("balloon", r#"{"value":1}"#),
    ("eject", r#"{"id":"nope"}"#),
    ("set_link", r#"{"name":"nope","up":true}"#),
    ("stop", r#"{}"#),
    ("send-key", r#"{"keys":[{"type":"qcode","data":"nope"}]}"#),
];

/// Commands that are not asked in the sweep over all `query-` commands, and why.
const SKIPPED: &[&str] = &[
    // Compared entry by entry in the `schema` area.
    "query-qmp-schema",
    "query-commands",
    "query-command-line-options",
];

type Answers = BTreeMap<String, Result<Value, String>>;

/// Rows of the `qmp` area.
pub fn qmp(sides: &Sides) -> Vec<Row> {
    let mut rows = vec![];
    for (name, args) in MACHINES {
        let (ours, qemu) = sides.both(|b| answers(b, args));
        rows.extend(compare_sets(&format!("{name}/"), ours, qemu, |key, a, b| {
            let cmd = key.split(' ').next().unwrap_or(key);
            match (a, b) {
                (Ok(a), Ok(b)) => compare::first(cmd, &ordered(cmd, a), &ordered(cmd, b)),
                (Err(a), Err(b)) if a == b => None,
                (a, b) => Some(format!("{} | qemu {}", show(a), show(b))),
            }
        }));
    }
    rows
}

fn show(r: &Result<Value, String>) -> String {
    match r {
        Ok(v) => compare::short(v),
        Err(e) => format!("error {e}"),
    }
}

/// Replies whose order means nothing (QEMU takes it from a hash table) are compared sorted.
fn ordered(cmd: &str, v: &Value) -> Value {
    const UNORDERED: &[&str] = &[
        "qom-list-types",
        "qom-list",
        "qom-list-properties",
        "device-list-properties",
        "query-chardev",
        "query-chardev-backends",
        "query-cpu-definitions",
        "query-machines",
        "query-events",
    ];
    match v {
        Value::Array(a) if UNORDERED.contains(&cmd) => {
            let mut a = a.clone();
            a.sort_by_key(Value::to_string);
            Value::Array(a)
        }
        v => v.clone(),
    }
}

/// Turns two attempts at a keyed set into rows; a side that failed has none of them.
fn compare_sets<T>(
    prefix: &str,
    ours: Res<BTreeMap<String, T>>,
    qemu: Res<BTreeMap<String, T>>,
    diff: impl FnMut(&str, &T, &T) -> Option<String>,
) -> Vec<Row> {
    let qemu = match qemu {
        Ok(q) => q,
        Err(e) => return vec![Row::of(prefix, Ok(()), Err(e), |_, _| None)],
    };
    match ours {
        Ok(o) => keyed(prefix, &o, &qemu, diff),
        Err(e) => qemu
            .keys()
            .map(|k| Row::of(format!("{prefix}{k}"), Err::<(), _>(e.clone()), Ok(()), |_, _| None))
            .collect(),
    }
}

fn answers(bin: &Bin, args: &str) -> Res<Answers> {
    let mut vm = Vm::start(bin, args)?;
    let mut out = Answers::new();
    out.insert("greeting".into(), Ok(vm.qmp.greeting().clone()));
    for cmd in query_commands()? {
        ask(&mut vm, bin, args, &cmd, Value::Null, &mut out)?;
    }
    for (cmd, text) in WITH_ARGUMENTS {
        let value = serde_json::from_str(text).map_err(|e| format!("{text}: {e}"))?;
        ask(&mut vm, bin, args, cmd, value, &mut out)?;
    }
    let bad = vm.qmp.bad_lines();
    out.insert(
        "lines end in CR LF".into(),
        if bad == 0 { Ok(json!(true)) } else { Err(format!("{bad} do not")) },
    );
    Ok(out)
}

/// Asks; when the program dies or hangs of it, that is the answer, and a new one is started for the next question.
fn ask(vm: &mut Vm, bin: &Bin, args: &str, cmd: &str, value: Value, out: &mut Answers) -> Res<()> {
    let key = if value.is_null() { cmd.to_owned() } else { format!("{cmd} {value}") };
    let answer = vm.qmp.cmd(cmd, value);
    if let Err(Failure::Io(_)) = &answer {
        *vm = Vm::start(bin, args)?;
    }
    out.insert(key, answer.map_err(|e| e.to_string()));
    Ok(())
}

/// The `query-` commands of QEMU 7.2, from the reference itself.
fn query_commands() -> Res<Vec<String>> {
    let mut vm = Vm::start(&Bin::qemu(), "-machine none -nodefaults -display none")?;
    let v = vm.query("query-commands").map_err(|e| e.to_string())?;
    let mut names: Vec<String> = v
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|c| c["name"].as_str())
        .filter(|n| n.starts_with("query-") && !SKIPPED.contains(n))
        .map(str::to_owned)
        .collect();
    names.sort();
    Ok(names)
}

/// Rows of the `qom` area.
pub fn qom(sides: &Sides) -> Vec<Row> {
    let mut rows = vec![];
    let machines = [
        MACHINES[0],
        MACHINES[1],
        ("pc-devices", "-machine pc,accel=kvm -m 128 -S -display none -serial null -monitor none -device virtio-blk-pci,drive=d0,id=b0 -blockdev {\"driver\":\"null-co\",\"node-name\":\"d0\",\"size\":1048576} -device virtio-rng-pci -device virtio-balloon-pci -device virtio-serial-pci -device virtio-net-pci -device pvpanic -device isa-debug-exit -device isa-debugcon,chardev=c0 -chardev null,id=c0"),
        MACHINES[2],
    ];
    for (name, args) in machines {
        let (ours, qemu) = sides.both(|b| monitor_texts(b, args));
        let pick = |r: &Res<Texts>, f: fn(&Texts) -> BTreeMap<String, String>| match r {
            Ok(t) => Ok(f(t)),
            Err(e) => Err(e.clone()),
        };
        for (what, f) in [
            ("qom-tree", (|t| trees::qom_tree(&t.qom)) as fn(&Texts) -> BTreeMap<String, String>),
            ("qtree", |t| qtree_rows(&t.qtree)),
            ("mtree", |t| mtree_rows(&t.mtree)),
            ("mtree-f", |t| trees::flat_views(&t.flat)),
        ] {
            rows.extend(compare_sets(
                &format!("{name} {what}: "),
                pick(&ours, f),
                pick(&qemu, f),
                |_, a, b| compare::first_line(a, b),
            ));
        }
    }
    rows
}

struct Texts {
    qom: String,
    qtree: String,
    mtree: String,
    flat: String,
}

fn monitor_texts(bin: &Bin, args: &str) -> Res<Texts> {
    let mut vm = Vm::start(bin, args)?;
    let mut get = |c: &str| vm.qmp.hmp(c).map_err(|e| format!("{c}: {e}"));
    Ok(Texts {
        qom: get("info qom-tree")?,
        qtree: get("info qtree")?,
        mtree: get("info mtree")?,
        flat: get("info mtree -f")?,
    })
}

fn qtree_rows(text: &str) -> BTreeMap<String, String> {
    let lines = |d: &trees::QtreeDevice| {
        let props = d.props.iter().map(|(k, v)| format!("{k} = {v}"));
        props.chain(d.facts.iter().cloned()).collect::<Vec<_>>().join("\n")
    };
    trees::qtree(text).iter().map(|d| (d.path.clone(), lines(d))).collect()
}

fn mtree_rows(text: &str) -> BTreeMap<String, String> {
    trees::mtree(text).into_iter().map(|(k, v)| (k, v.join("\n"))).collect()
}

/// Configurations whose PCI functions are compared.
const PCI: &[(&str, &str)] = &[
    ("pc", "-machine pc,accel=kvm"),
    ("pc -nodefaults", "-machine pc,accel=kvm -nodefaults"),
    ("pc virtio", "-machine pc,accel=kvm -nodefaults -device virtio-net-pci -device virtio-rng-pci -device virtio-balloon-pci,addr=0x10 -device virtio-serial-pci,id=s0"),
    ("pc virtio modern", "-machine pc,accel=kvm -nodefaults -device virtio-rng-pci,disable-legacy=on -device virtio-rng-pci,disable-modern=on -device virtio-rng-pci-non-transitional"),
    ("pc multifunction", "-machine pc,accel=kvm -nodefaults -device virtio-rng-pci,addr=5.0,multifunction=on -device virtio-rng-pci,addr=5.1"),
    ("pc usb", "-machine pc,accel=kvm,usb=on -nodefaults"),
    ("pc nics", "-machine pc,accel=kvm -nodefaults -device e1000 -device rtl8139 -device ne2k_pci"),
    ("pc vga std", "-machine pc,accel=kvm -vga std -net none"),
    ("pc vga none", "-machine pc,accel=kvm -vga none -net none"),
    ("pc vga virtio", "-machine pc,accel=kvm -vga virtio -net none"),
    ("pc bridge", "-machine pc,accel=kvm -nodefaults -device pci-bridge,chassis_nr=1,id=b1 -device virtio-rng-pci,bus=b1,addr=1"),
    ("q35", "-machine q35,accel=kvm"),
    ("q35 root port", "-machine q35,accel=kvm -nodefaults -device pcie-root-port,id=r1,chassis=1 -device virtio-rng-pci,bus=r1"),
    ("microvm", "-machine microvm,accel=kvm"),
];

/// Rows of the `pci` area: one a function.
pub fn pci(sides: &Sides) -> Vec<Row> {
    let mut rows = vec![];
    for (name, args) in PCI {
        let args = format!("{args} -m 128 -S -display none -serial null -monitor none");
        let (ours, qemu) = sides.both(|b| functions(b, &args));
        rows.extend(compare_sets(&format!("{name}: "), ours, qemu, |_, a, b| {
            compare::first("query-pci", a, b)
        }));
    }
    rows
}

fn functions(bin: &Bin, args: &str) -> Res<BTreeMap<String, Value>> {
    let mut vm = Vm::start(bin, args)?;
    let v = vm.query("query-pci").map_err(|e| format!("query-pci: {e}"))?;
    let mut out = BTreeMap::new();
    out.insert("buses".to_owned(), json!(v.as_array().map(Vec::len)));
    let mut buses: Vec<Value> = v.as_array().cloned().unwrap_or_default();
    while let Some(bus) = buses.pop() {
        for d in bus["devices"].as_array().into_iter().flatten() {
            let n = |k: &str| d[k].as_i64().unwrap_or(-1);
            out.insert(format!("{:02x}:{:02x}.{}", n("bus"), n("slot"), n("function")), d.clone());
            if let Some(b) = d.get("pci_bridge") {
                buses.push(b.clone());
            }
        }
    }
    Ok(out)
}
