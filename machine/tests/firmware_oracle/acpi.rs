//! ACPI tables against QEMU's.

use rqemu_machine::firmware::acpi::*;

use crate::first_difference;
use crate::qtest::{file, skip_without_qemu, Qtest, QEMU};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// `count` CPUs with consecutive APIC ids, the first `present` of them plugged.
fn cpus(present: usize, count: u32) -> Vec<CpuEntry> {
    (0..count).map(|i| CpuEntry { apic_id: i, present: (i as usize) < present, node: None }).collect()
}

fn ram(below: u64, above: u64) -> RamLayout {
    RamLayout { below_4g: below, above_4g: above, above_4g_start: 4 * GIB }
}

fn function(slot: u8, func: u8, kind: PciKind, hotpluggable: bool) -> PciFunction {
    PciFunction { devfn: slot << 3 | func, kind, hotpluggable, hotplugged: false }
}

fn plain(slot: u8) -> PciFunction {
    function(slot, 0, PciKind::Plain, true)
}

fn bridge(slot: u8, func: u8, behind: Vec<PciFunction>) -> PciFunction {
    function(slot, func, PciKind::Bridge(PciBus { functions: behind }), true)
}

/// What the board itself puts on the root bus.
fn board() -> Vec<PciFunction> {
    vec![
        function(0, 0, PciKind::Plain, false),
        function(1, 0, PciKind::IsaBridge, false),
        function(1, 1, PciKind::Plain, false),
        function(1, 3, PciKind::Plain, false),
    ]
}

/// `-nodefaults` with 128 MiB and one CPU.
fn bare() -> AcpiConfig {
    let isa = vec![IsaDevice::Rtc, IsaDevice::Floppy([None, None]), IsaDevice::I8042];
    let mut cfg = AcpiConfig::pc(cpus(1, 1), ram(128 * MIB, 0), PciBus { functions: board() }, isa);
    cfg.pm_base = 0;
    cfg
}

/// The default machine: VGA, e1000, serial, parallel, floppy.
fn default_machine() -> AcpiConfig {
    let mut cfg = bare();
    cfg.pci.functions.push(function(2, 0, PciKind::Vga, false));
    cfg.pci.functions.push(plain(3));
    cfg.isa = vec![
        IsaDevice::Rtc,
        IsaDevice::Serial { uid: 1, iobase: 0x3f8, irq: 4 },
        IsaDevice::Parallel { uid: 1, iobase: 0x378, irq: 7 },
        IsaDevice::Floppy([Some(FloppyType::Inch3M288), None]),
        IsaDevice::I8042,
    ];
    cfg
}

fn set_ram(cfg: &mut AcpiConfig, layout: RamLayout) {
    let fresh = AcpiConfig::pc(Vec::new(), layout, PciBus::default(), Vec::new());
    cfg.ram = layout;
    cfg.pci_hole32 = fresh.pci_hole32;
    cfg.pci_hole64 = fresh.pci_hole64;
}

/// Compares all three files; `prepare` runs before the tables are read (firmware's part).
fn compare_after(args: &[&str], cfg: &AcpiConfig, prepare: impl FnOnce(&mut Qtest)) {
    if skip_without_qemu() {
        return;
    }
    let mut q = Qtest::start(QEMU, args).unwrap_or_else(|e| panic!("QEMU with {args:?}: {e}"));
    prepare(&mut q);
    let files = q.fw_cfg_files();
    let ours = build(cfg);
    for (name, bytes) in [(TABLES_FILE, &ours.tables), (LOADER_FILE, &ours.loader), (RSDP_FILE, &ours.rsdp)] {
        let theirs = file(&files, name).unwrap_or_else(|| panic!("QEMU has no {name}"));
        assert!(bytes == theirs, "{name} with {args:?}: {}", first_difference(bytes, theirs));
    }
}

fn compare(args: &[&str], cfg: &AcpiConfig) {
    compare_after(args, cfg, |_| {});
}

#[test]
fn default_options() {
    compare(&[], &default_machine());
}

#[test]
fn nodefaults() {
    compare(&["-nodefaults"], &bare());
}

#[test]
fn four_gib_of_ram() {
    let mut cfg = default_machine();
    set_ram(&mut cfg, ram(3 * GIB, GIB));
    compare(&["-m", "4G"], &cfg);
}

#[test]
fn ram_just_below_the_split() {
    let mut cfg = bare();
    set_ram(&mut cfg, ram(3500 * MIB, 0));
    compare(&["-nodefaults", "-m", "3500M"], &cfg);
}

#[test]
fn four_cpus() {
    let mut cfg = bare();
    cfg.cpus = cpus(4, 4);
    compare(&["-nodefaults", "-smp", "4"], &cfg);
}

#[test]
fn one_cpu_of_eight() {
    let mut cfg = bare();
    cfg.cpus = cpus(1, 8);
    compare(&["-nodefaults", "-smp", "1,maxcpus=8"], &cfg);
}

#[test]
fn nine_cpus_use_clustered_mode() {
    let mut cfg = bare();
    cfg.cpus = cpus(9, 9);
    compare(&["-nodefaults", "-smp", "9"], &cfg);
}

#[test]
fn apic_ids_with_gaps() {
    let mut cfg = bare();
    cfg.cpus = cpus(6, 6);
    for (cpu, id) in cfg.cpus.iter_mut().zip([0, 1, 2, 4, 5, 6]) {
        cpu.apic_id = id;
    }
    compare(&["-nodefaults", "-smp", "6,sockets=2,cores=3"], &cfg);
}

#[test]
fn as_many_cpus_as_the_machine_takes() {
    let mut cfg = bare();
    cfg.cpus = cpus(1, 255);
    compare(&["-nodefaults", "-smp", "1,maxcpus=255"], &cfg);
}

#[test]
fn no_hpet() {
    let mut cfg = bare();
    cfg.hpet = false;
    compare(&["-nodefaults", "-no-hpet"], &cfg);
}

#[test]
fn sleep_states_switched_off() {
    let mut cfg = bare();
    cfg.disable_s3 = true;
    compare(&["-nodefaults", "-global", "PIIX4_PM.disable_s3=1"], &cfg);
    cfg.disable_s4 = true;
    compare(&["-nodefaults", "-global", "PIIX4_PM.disable_s3=1", "-global", "PIIX4_PM.disable_s4=1"], &cfg);
}

#[test]
fn another_s4_value() {
    let mut cfg = bare();
    cfg.s4_val = 1;
    compare(&["-nodefaults", "-global", "PIIX4_PM.s4_val=1"], &cfg);
}

#[test]
fn no_smm() {
    let mut cfg = bare();
    cfg.smm = false;
    compare(&["-nodefaults", "-machine", "smm=off"], &cfg);
}

#[test]
fn oem_ids() {
    let mut cfg = bare();
    cfg.oem.id = *b"ABC\0\0\0";
    cfg.oem.table_id = *b"DEFGH\0\0\0";
    compare(&["-nodefaults", "-machine", "x-oem-id=ABC,x-oem-table-id=DEFGH"], &cfg);
}

#[test]
fn no_fw_cfg_dma() {
    let mut cfg = bare();
    cfg.fw_cfg_dma = false;
    compare(&["-nodefaults", "-global", "fw_cfg.dma_enabled=false"], &cfg);
}

#[test]
fn no_i8042() {
    let mut cfg = bare();
    cfg.isa.pop();
    compare(&["-nodefaults", "-machine", "i8042=off"], &cfg);
}

#[test]
fn pm_base_as_firmware_programs_it() {
    let mut cfg = bare();
    cfg.pm_base = 0x600;
    compare_after(&["-nodefaults"], &cfg, |q| {
        q.pci_write(0, 1 << 3 | 3, 0x40, 0x601);
        q.pci_write(0, 1 << 3 | 3, 0x80, 1);
    });
}

#[test]
fn serial_ports_and_pvpanic() {
    let mut cfg = bare();
    cfg.isa = vec![IsaDevice::Rtc];
    for (uid, iobase, irq) in [(1, 0x3f8, 4), (2, 0x2f8, 3), (3, 0x3e8, 4), (4, 0x2e8, 3)] {
        cfg.isa.push(IsaDevice::Serial { uid, iobase, irq });
    }
    cfg.isa.push(IsaDevice::Parallel { uid: 1, iobase: 0x378, irq: 7 });
    cfg.isa.push(IsaDevice::Floppy([None, None]));
    cfg.isa.push(IsaDevice::I8042);
    cfg.isa.push(IsaDevice::Pvpanic { iobase: 0x505 });
    let nul =
        ["-serial", "null", "-serial", "null", "-serial", "null", "-serial", "null", "-parallel", "null"];
    let args = [&["-nodefaults"], &nul[..], &["-device", "pvpanic"]].concat();
    compare(&args, &cfg);
}

#[test]
fn floppy_drive_types() {
    for (option, typ) in
        [("120", FloppyType::Inch5M12), ("144", FloppyType::Inch3M144), ("288", FloppyType::Inch3M288)]
    {
        let mut cfg = bare();
        cfg.isa[1] = IsaDevice::Floppy([Some(typ), Some(typ)]);
        let a = format!("floppy,unit=0,drive-type={option}");
        let b = format!("floppy,unit=1,drive-type={option}");
        compare(&["-nodefaults", "-device", &a, "-device", &b], &cfg);
    }
}

#[test]
fn vmgenid() {
    let mut cfg = bare();
    cfg.vmgenid = true;
    compare(&["-nodefaults", "-device", "vmgenid,guid=324e6eaf-d1d1-4bf6-bf41-b9bb6c91fb87"], &cfg);
}

#[test]
fn devices_in_slots() {
    let mut cfg = bare();
    let functions = &mut cfg.pci.functions;
    functions.push(plain(5));
    functions.push(plain(6));
    functions.push(function(6, 1, PciKind::Plain, true));
    functions.push(function(7, 0, PciKind::Plain, false));
    functions.push(function(8, 2, PciKind::Vga, true));
    functions.push(function(9, 0, PciKind::Plain, false));
    let args = [
        "-nodefaults",
        "-device",
        "e1000,addr=5,acpi-index=7",
        "-device",
        "virtio-net-pci,addr=6.0,multifunction=on",
        "-device",
        "e1000,addr=6.1,acpi-index=9",
        "-device",
        "cirrus-vga,addr=7",
        "-device",
        "secondary-vga,addr=8.2",
        "-device",
        "piix3-usb-uhci,addr=9",
    ];
    // The USB controller is unpluggable in name only.
    cfg.pci.functions.pop();
    cfg.pci.functions.push(plain(9));
    compare(&args, &cfg);
}

#[test]
fn bridges_number_their_buses_from_the_newest() {
    let mut cfg = bare();
    let b2 = bridge(7, 0, vec![function(4, 0, PciKind::Vga, false)]);
    let b4 = bridge(5, 0, vec![plain(1)]);
    cfg.pci.functions.push(bridge(3, 0, vec![b2]));
    cfg.pci.functions.push(bridge(4, 1, vec![b4]));
    let args = [
        "-nodefaults",
        "-device",
        "pci-bridge,chassis_nr=1,id=b1,addr=3",
        "-device",
        "pci-bridge,chassis_nr=3,id=b3,addr=4.1",
        "-device",
        "pci-bridge,chassis_nr=2,id=b2,bus=b1,addr=7",
        "-device",
        "pci-bridge,chassis_nr=4,id=b4,bus=b3,addr=5",
        "-device",
        "VGA,bus=b2,addr=4",
        "-device",
        "e1000,bus=b4,addr=1",
    ];
    compare(&args, &cfg);
}

#[test]
fn pci_hotplug_switches() {
    let args = |root: &'static str, bridges: &'static str| {
        vec![
            "-nodefaults",
            "-global",
            root,
            "-global",
            bridges,
            "-device",
            "pci-bridge,chassis_nr=1,id=b1,addr=4",
            "-device",
            "e1000,bus=b1,addr=3",
            "-device",
            "VGA,addr=6",
            "-device",
            "e1000,addr=9",
        ]
    };
    const ROOT: [&str; 2] = ["PIIX4_PM.acpi-root-pci-hotplug=off", "PIIX4_PM.acpi-root-pci-hotplug=on"];
    const BRIDGES: [&str; 2] = [
        "PIIX4_PM.acpi-pci-hotplug-with-bridge-support=off",
        "PIIX4_PM.acpi-pci-hotplug-with-bridge-support=on",
    ];
    for (root, bridges) in [(0, 0), (0, 1), (1, 0)] {
        let mut cfg = bare();
        cfg.pci.functions.push(bridge(4, 0, vec![plain(3)]));
        cfg.pci.functions.push(function(6, 0, PciKind::Vga, false));
        cfg.pci.functions.push(plain(9));
        cfg.pcihp_root = root == 1;
        cfg.pcihp_bridges = bridges == 1;
        compare(&args(ROOT[root], BRIDGES[bridges]), &cfg);
    }
}

#[test]
fn numa_nodes_with_distances() {
    let mut cfg = bare();
    cfg.cpus = cpus(2, 2);
    cfg.cpus[0].node = Some(0);
    cfg.cpus[1].node = Some(1);
    set_ram(&mut cfg, ram(3 * GIB, 2 * GIB));
    let mut numa = Numa { node_memory: vec![4 * GIB, GIB], distances: None };
    cfg.numa = Some(numa.clone());
    let mut args = vec![
        "-nodefaults",
        "-m",
        "5G",
        "-smp",
        "2",
        "-object",
        "memory-backend-ram,id=m0,size=4G",
        "-object",
        "memory-backend-ram,id=m1,size=1G",
        "-numa",
        "node,nodeid=0,memdev=m0,cpus=0",
        "-numa",
        "node,nodeid=1,memdev=m1,cpus=1",
    ];
    compare(&args, &cfg);
    args.extend(["-numa", "dist,src=0,dst=1,val=30"]);
    numa.distances = Some(vec![10, 30, 30, 10]);
    cfg.numa = Some(numa);
    compare(&args, &cfg);
}

#[test]
fn memory_hotplug() {
    let mut cfg = bare();
    set_ram(&mut cfg, ram(GIB, 0));
    cfg.cpus[0].node = Some(0);
    cfg.numa = Some(Numa { node_memory: vec![GIB], distances: None });
    // Three slots of up to a GiB of alignment each around 3 GiB of memory.
    let area = MemoryHotplug { slots: 3, base: 4 * GIB, len: 6 * GIB };
    cfg.memory_hotplug = Some(area);
    cfg.pci_hole64 = Some(default_hole64(area.base + area.len));
    compare(&["-nodefaults", "-m", "1G,slots=3,maxmem=4G"], &cfg);
}

#[test]
fn apple_smc() {
    let mut cfg = bare();
    cfg.isa.push(IsaDevice::AppleSmc { iobase: 0x300 });
    compare(&["-nodefaults", "-device", "isa-applesmc,osk=none"], &cfg);
}

#[test]
fn user_tables_and_a_licence_table() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("table");
    std::fs::write(
        &path,
        [&b"OEM1\x3c\0\0\0\x01\0OEMIDXOEMTABLE\x07\0\0\0CRTR\x09\0\0\0"[..], &[7; 24]].concat(),
    )
    .unwrap();
    let path = path.display();
    let options = [
        format!("file={path}"),
        format!("sig=SLIC,file={path}"),
        format!("sig=ABCD,data={path}:{path},oem_id=FOO,oem_table_id=BARBARBARB,oem_rev=0x12345678,rev=3"),
        format!("data={path},asl_compiler_id=XY,asl_compiler_rev=9"),
        format!("data={path}"),
    ];
    let mut args = vec!["-nodefaults"];
    let mut cfg = bare();
    for option in &options {
        args.extend(["-acpitable", option.as_str()]);
        let pairs: Vec<_> =
            option.split(',').filter_map(|p| p.split_once('=')).map(|(k, v)| (k.into(), v.into())).collect();
        cfg.user_tables.push(user::user_table(&pairs).unwrap().table);
    }
    compare(&args, &cfg);
    if !skip_without_qemu() {
        let ours = user::legacy_item(&cfg.user_tables);
        assert_eq!(Qtest::start(QEMU, &args).unwrap().fw_cfg(0x8000, ours.len()), ours);
    }
}

/// The guest places a 64-bit BAR (BAR 4 of a modern virtio function) above 4 GiB.
#[test]
fn programmed_bars_move_the_64_bit_window() {
    const DEVFN: u8 = 5 << 3;
    for base in [0x1_4000_0000u64, 0x1_5555_0000, 0x80_0000_0000] {
        let mut cfg = bare();
        cfg.pci.functions.push(plain(5));
        cfg.pci_hole64 = Some(hole64(4 * GIB, 2 * GIB, Some((base, base + 0x3fff))));
        let args = ["-nodefaults", "-device", "virtio-rng-pci,disable-legacy=on,addr=5"];
        compare_after(&args, &cfg, |q| {
            q.pci_write(0, DEVFN, 0x20, base as u32);
            q.pci_write(0, DEVFN, 0x24, (base >> 32) as u32);
            q.pci_write(0, DEVFN, 0x04, 0x6);
        });
    }
}

#[test]
fn size_of_the_64_bit_window() {
    let mut cfg = bare();
    cfg.pci_hole64 = Some(hole64(4 * GIB, 5 * GIB / 2, None));
    compare(&["-nodefaults", "-global", "i440FX-pcihost.pci-hole64-size=2560M"], &cfg);
}

/// Sends QMP commands over a socket; each must succeed.
fn qmp(path: &std::path::Path, commands: &[&str]) {
    use std::io::{BufRead, BufReader, Write};
    let mut socket = std::os::unix::net::UnixStream::connect(path).unwrap();
    let mut lines = BufReader::new(socket.try_clone().unwrap()).lines();
    lines.next().unwrap().unwrap();
    for command in [r#"{"execute":"qmp_capabilities"}"#].iter().chain(commands) {
        socket.write_all(command.as_bytes()).unwrap();
        let answer = lines.by_ref().map(Result::unwrap).find(|line| !line.contains("\"event\"")).unwrap();
        assert!(answer.contains("\"return\""), "{command}: {answer}");
    }
}

#[test]
fn devices_plugged_at_run_time() {
    let mut cfg = bare();
    for (slot, kind) in [(5, PciKind::Plain), (6, PciKind::Vga)] {
        cfg.pci.functions.push(PciFunction { hotplugged: true, ..function(slot, 0, kind, true) });
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("qmp");
    let chardev = format!("unix:{},server=on,wait=off", path.display());
    compare_after(&["-nodefaults", "-qmp", &chardev], &cfg, |_| {
        let add = |driver: &str, slot: u8| {
            format!(r#"{{"execute":"device_add","arguments":{{"driver":"{driver}","addr":"{slot}"}}}}"#)
        };
        qmp(&path, &[&add("e1000", 5), &add("secondary-vga", 6)]);
    });
}

/// A bridge plugged at run time is an ordinary device with an unknown bus behind it.
#[test]
fn bridge_plugged_at_run_time() {
    let mut cold = bare();
    cold.pci.functions.push(plain(7));
    let mut hot = bare();
    hot.pci.functions.push(PciFunction { hotplugged: true, ..bridge(7, 0, vec![plain(1)]) });
    assert_eq!(build(&hot), build(&cold));
}
