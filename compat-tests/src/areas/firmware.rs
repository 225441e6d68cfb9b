//! fw_cfg as firmware reads it, byte for byte, through the qtest protocol (no processor runs): ACPI tables and loader
//! script, SMBIOS, e820, boot order.

use super::Sides;
use crate::bins::Bin;
use crate::qtest::Qtest;
use crate::score::{keyed, Row};
use crate::Res;
use std::collections::BTreeMap;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::mpsc;
use std::time::Duration;

const CONFIGS: &[(&str, &str)] = &[
    ("pc", ""),
    ("pc -nodefaults", "-nodefaults"),
    ("pc smp, hotplug memory", "-nodefaults -smp 2,maxcpus=4 -m 256,slots=4,maxmem=1G"),
    ("pc 4 GiB", "-nodefaults -m 4G"),
    ("pc disks", "-nodefaults -device virtio-rng-pci -device virtio-serial-pci -device e1000,bootindex=1"),
    ("pc bridge", "-nodefaults -device pci-bridge,chassis_nr=1,id=b -device virtio-rng-pci,bus=b,addr=1"),
    ("pc options", "-nodefaults -boot menu=on,reboot-timeout=7 -uuid 11223344-5566-7788-99aa-bbccddeeff00 -smbios type=0,vendor=v,version=1 -smbios type=1,serial=s -smbios type=3,asset=a -fw_cfg name=opt/a,string=b"),
    ("pc acpi=off", "-machine pc,acpi=off -nodefaults"),
    ("pc hpet=off", "-machine pc,hpet=off -nodefaults"),
    ("pc numa", "-nodefaults -m 256 -smp 2 -object memory-backend-ram,id=m0,size=128M -object memory-backend-ram,id=m1,size=128M -numa node,memdev=m0,cpus=0 -numa node,memdev=m1,cpus=1"),
    ("pc vmgenid, pvpanic", "-nodefaults -device vmgenid,guid=11223344-5566-7788-99aa-bbccddeeff00 -device pvpanic"),
    ("pc-i440fx-6.1 4 GiB, smp", "-machine pc-i440fx-6.1 -nodefaults -m 4G -smp 2"),
    ("pc-i440fx-4.1", "-machine pc-i440fx-4.1 -nodefaults -smp 2"),
    ("pc-i440fx-2.0", "-machine pc-i440fx-2.0 -nodefaults"),
    ("q35", "-machine q35 -nodefaults"),
    ("microvm", "-machine microvm -nodefaults"),
];

/// All rows: one a file.
pub fn run(sides: &Sides) -> Vec<Row> {
    let mut rows = vec![];
    for (name, args) in CONFIGS {
        let (ours, qemu) = sides.both(|b| bounded(b, args));
        let prefix = format!("{name}: ");
        match (ours, qemu) {
            (_, Err(e)) => rows.push(Row::of(prefix, Ok(()), Err(e), |_, _| None)),
            (Err(e), Ok(q)) => {
                let missing = |k: &String| {
                    Row::of(format!("{prefix}{k}"), Err::<(), _>(e.clone()), Ok(()), |_, _| None)
                };
                rows.extend(q.keys().map(missing));
            }
            (Ok(o), Ok(q)) => rows.extend(keyed(&prefix, &o, &q, |_, a, b| difference(a, b))),
        }
    }
    rows
}

type Files = BTreeMap<String, Vec<u8>>;

/// The files; an error when the binary dies, answers nonsense or takes too long.
fn bounded(bin: &Bin, args: &str) -> Res<Files> {
    let (send, receive) = mpsc::channel();
    let (path, args) = (bin.path.to_string_lossy().into_owned(), args.to_owned());
    std::thread::spawn(move || {
        // The client panics when the other side goes away.
        let r = catch_unwind(AssertUnwindSafe(|| files(&path, &args)));
        let _ = send.send(r.unwrap_or_else(|_| Err("the qtest connection broke".into())));
    });
    receive
        .recv_timeout(Duration::from_secs(20))
        .unwrap_or_else(|_| Err("no answer on qtest within 20 s".into()))
}

fn files(path: &str, args: &str) -> Res<Files> {
    let words: Vec<&str> = args.split_whitespace().collect();
    let mut q = Qtest::start(path, &words).map_err(|e| format!("qtest: {e}"))?;
    let list = q.fw_cfg_files();
    let order = list.iter().map(|f| f.name.as_str()).collect::<Vec<_>>().join("\n");
    let mut out: Files = list.iter().map(|f| (f.name.clone(), f.data.clone())).collect();
    out.insert("order of the files".into(), order.into_bytes());
    Ok(out)
}

fn difference(a: &[u8], b: &[u8]) -> Option<String> {
    if a == b {
        return None;
    }
    if a.len() != b.len() {
        return Some(format!("{} bytes | qemu {}", a.len(), b.len()));
    }
    let at = a.iter().zip(b).position(|(x, y)| x != y)?;
    let show = |s: &[u8]| s.iter().skip(at).take(8).map(|b| format!("{b:02x}")).collect::<String>();
    Some(format!("at byte {at:#x}: {} | qemu {}", show(a), show(b)))
}
