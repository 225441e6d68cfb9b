//! SMBIOS structures against QEMU's.

use rqemu_machine::firmware::smbios::*;

use crate::qtest::{file, skip_without_qemu};
use crate::{first_difference, real_files};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// 128 MiB, one CPU of QEMU's default model.
fn default_config() -> SmbiosConfig {
    SmbiosConfig {
        cpu_signature: 0x60fb1,
        cpu_features: 0x078b_fbfd,
        ram_size: 128 * MIB,
        ram_ranges: vec![(0, 128 * MIB)],
        ..SmbiosConfig::pc()
    }
}

/// Compares; `options` are the values of `-smbios`, which go to both.
fn compare(args: &[&str], options: &[&str], mut cfg: SmbiosConfig) {
    if skip_without_qemu() {
        return;
    }
    let mut all = vec!["-nodefaults"];
    all.extend(args);
    for option in options {
        all.extend(["-smbios", option]);
        let pairs: Vec<_> =
            option.split(',').filter_map(|p| p.split_once('=')).map(|(k, v)| (k.into(), v.into())).collect();
        cfg.options.add(&pairs).unwrap();
    }
    cfg.options.resolve_onboard(|id| (id == "nic").then_some((0, 7 << 3))).unwrap();
    let files = real_files(&all);
    let ours = build(&cfg);
    for (name, bytes) in [(TABLES_FILE, &ours.tables), (ANCHOR_FILE, &ours.anchor)] {
        let theirs = file(&files, name).unwrap_or_else(|| panic!("QEMU has no {name}"));
        assert!(bytes == theirs, "{name} with {all:?}: {}", first_difference(bytes, theirs));
    }
}

#[test]
fn defaults() {
    compare(&[], &[], default_config());
}

#[test]
fn entry_point_of_64_bits() {
    let cfg = SmbiosConfig { entry_point: EntryPoint::Bits64, ..default_config() };
    compare(&["-machine", "smbios-entry-point-type=64"], &[], cfg);
}

#[test]
fn machine_uuid() {
    let uuid = *b"\x12\x34\x56\x78\x9a\xbc\xde\xf0\x11\x22\x33\x44\x55\x66\x77\x88";
    compare(
        &["-uuid", "12345678-9abc-def0-1122-334455667788"],
        &[],
        SmbiosConfig { uuid, ..default_config() },
    );
}

#[test]
fn memory_and_cpus() {
    let cfg = SmbiosConfig {
        sockets: 2,
        cores: 4,
        threads: 8,
        ram_size: 20 * GIB,
        ram_ranges: vec![(0, 3 * GIB), (4 * GIB, 17 * GIB)],
        ..default_config()
    };
    compare(&["-m", "20G", "-smp", "8,maxcpus=16,sockets=2,cores=4,threads=2"], &[], cfg);
    let cfg = SmbiosConfig { sockets: 2, cores: 6, threads: 6, ..default_config() };
    compare(&["-smp", "12,sockets=2,dies=2,cores=3,threads=1"], &[], cfg);
}

#[test]
fn every_field() {
    let options = [
        "type=0,vendor=V,version=1.2,date=01/02/2020,release=3.4,uefi=on",
        "type=1,manufacturer=M1,product=P1,version=V1,serial=S1,uuid=00112233-4455-6677-8899-aabbccddeeff,\
         sku=K1,family=F1",
        "type=2,manufacturer=M2,product=P2,version=V2,serial=S2,asset=A2,location=L2",
        "type=3,manufacturer=M3,version=V3,serial=S3,asset=A3,sku=K3",
        "type=4,sock_pfx=SP,manufacturer=M4,version=V4,serial=S4,asset=A4,part=P4,max-speed=3000,\
         current-speed=2500,processor-id=0x1234567890",
        "type=11,value=hello,value=world",
        "type=17,loc_pfx=LP,bank=B,manufacturer=M17,serial=S17,asset=A17,part=P17,speed=2666",
        "type=8,internal_reference=ir,external_reference=er,connector_type=1,port_type=2",
        "type=8,external_reference=second",
        "type=41,designation=d1,kind=ethernet,instance=2",
        "type=41,designation=d2,kind=sas,pcidev=nic",
    ];
    compare(&["-device", "e1000,id=nic,addr=7"], &options, default_config());
}

#[test]
fn types_named_without_fields() {
    compare(&[], &["type=0", "type=2", "type=11"], default_config());
}

#[test]
fn empty_and_repeated_fields() {
    compare(&[], &["type=1,serial=,family=a", "type=1,family=b", "type=3,version="], default_config());
}

#[test]
fn strings_and_structures_from_files() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, data: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, data).unwrap();
        path.display().to_string()
    };
    let text = format!("type=11,path={}", write("text", b"one line\n"));
    let oem = format!("file={}", write("oem", b"\xdd\x05\x34\x12\x07abc\0\0"));
    let system = format!("file={}", write("system", &[&[1, 27, 0x34, 0x12][..], &[0; 25]].concat()));
    let module = format!("file={}", write("module", &[17, 5, 0x34, 0x12, 7, 0, 0]));
    compare(&[], &[&text, &oem, &system, &module], default_config());
}
