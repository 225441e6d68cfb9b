//! Whole machines without a CPU.

use super::*;
use crate::firmware::acpi::microvm::{build as microvm_tables, MicrovmConfig, VirtioMmio};
use crate::firmware::acpi::{CpuEntry, IsaDevice};
use crate::spec::*;

#[derive(Default)]
struct Lines(Vec<String>);

impl Messages for Lines {
    fn warning(&mut self, text: &str) {
        self.0.push(text.to_string());
    }
    fn warning_at(&mut self, _loc: &Loc, text: &str) {
        self.0.push(text.to_string());
    }
    fn info(&mut self, _text: &str) {}
    fn out(&mut self, _text: &str) {}
    fn plain(&mut self, _text: &str) {}
}

fn spec(machine: &str) -> VmSpec {
    let mut s = VmSpec::default();
    s.machine.kind = Some(machine.into());
    s.accels.push(AccelSpec {
        name: "qtest".into(),
        props: Dict::new(),
        origin: AccelOrigin::Option,
        loc: Loc::NONE,
    });
    s.memory.size = Some(64 << 20);
    s
}

fn object(ty: &str, id: &str, props: &[(&str, &str)]) -> ObjectSpec {
    let props = props.iter().map(|(k, v)| (k.to_string(), Value::text(*v))).collect();
    ObjectSpec { qom_type: ty.into(), id: id.into(), props, loc: Loc::option(&["-object", id]) }
}

fn memory_nodes(s: &mut VmSpec, ids: &[&str]) {
    for id in ids {
        s.objects.push(object("memory-backend-ram", id, &[("size", "32M")]));
        s.numa.push(numa(NumaKind::Node {
            nodeid: None,
            cpus: Vec::new(),
            mem: None,
            memdev: Some(id.to_string()),
            initiator: None,
        }));
    }
}

fn numa(kind: NumaKind) -> NumaSpec {
    NumaSpec { kind, loc: Loc::option(&["-numa"]) }
}

fn made(s: &mut VmSpec) -> (Built, Vec<String>) {
    let mut lines = Lines::default();
    let b = build(s, &mut lines).unwrap_or_else(|e| panic!("{e}"));
    (b, lines.0)
}

fn refused(s: &mut VmSpec) -> String {
    match build(s, &mut Lines::default()) {
        Ok(_) => panic!("was built"),
        Err(e) => e.desc,
    }
}

#[test]
fn default_ram_is_an_object() {
    let (b, _) = made(&mut spec("pc"));
    let m = b.shared.lock();
    let info = m.memdev_info();
    assert_eq!((info[0].id.as_str(), info[0].size, info[0].share), ("pc.ram", 64 << 20, false));
    assert!(m.objects.in_use("pc.ram"));
    let net = m.net_info();
    assert!(net.starts_with("hub 0\n \\ hub0port1: #net"), "{net}");
    let default =
        "index=0,type=user,net=10.0.2.0,restrict=off\n \\ hub0port0: e1000.0: index=0,type=nic,model=e1000,\
                   macaddr=52:54:00:12:34:56\n";
    assert!(net.ends_with(default), "{net}");
}

#[test]
fn ram_from_a_backend() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ram").display().to_string();
    let mut s = spec("pc");
    let props = [("size", "64M"), ("mem-path", path.as_str()), ("share", "on")];
    s.objects.push(object("memory-backend-file", "m0", &props));
    s.machine.props.push("memory-backend", Value::text("m0"));
    let (b, _) = made(&mut s);
    let mut m = b.shared.lock();
    m.bus_write(crate::memory::Space::Memory, 0x1000, b"guest");
    assert_eq!(&std::fs::read(&path).unwrap()[0x1000..0x1005], b"guest");
    assert_eq!(m.object_del("m0").unwrap_err().desc, "object 'm0' is in use, can not be deleted");
    drop(m);
    s.memory.size = Some(32 << 20);
    assert_eq!(refused(&mut s), "Machine memory size does not match the size of the memory backend");
    s.memory.mem_path = Some("/tmp".into());
    assert_eq!(refused(&mut s), "'-mem-path' can't be used together with'-machine memory-backend'");
    s.memory.mem_path = None;
    s.machine.props.set("memory-backend", Value::text("zz"));
    assert_eq!(refused(&mut s), "Memory backend 'zz' not found");
}

#[test]
fn numa_nodes_are_contiguous_ram() {
    let mut s = spec("pc");
    s.smp.cpus = Some(2);
    s.smp.sockets = Some(2);
    memory_nodes(&mut s, &["m0", "m1"]);
    s.numa.push(numa(NumaKind::Dist { src: 0, dst: 1, val: 20 }));
    let (b, warnings) = made(&mut s);
    assert!(warnings.is_empty(), "{warnings:?}");
    let mut m = b.shared.lock();
    m.bus_write(crate::memory::Space::Memory, 0x1ff_fffe, &[1, 2, 3, 4]);
    let mut low = [0; 2];
    let mut high = [0; 2];
    assert!(m.memdev_block("m0").unwrap().read((32 << 20) - 2, &mut low));
    assert!(m.memdev_block("m1").unwrap().read(0, &mut high));
    assert_eq!((low, high), ([1, 2], [3, 4]));
    let n = m.numa.clone().unwrap();
    assert_eq!(n.distances, Some(vec![10, 20, 20, 10]));
    assert_eq!(n.cpu_nodes, [0, 1]);
    let cfg = acpi_config(&mut m, RamLayout { below_4g: 64 << 20, ..RamLayout::default() }, 2, 2);
    assert_eq!(cfg.numa.unwrap().node_memory, [32 << 20, 32 << 20]);
}

#[test]
fn numa_errors_are_qemus() {
    let case = |ids: &[&str], more: Vec<NumaKind>| {
        let mut s = spec("pc");
        memory_nodes(&mut s, ids);
        s.numa.extend(more.into_iter().map(numa));
        refused(&mut s)
    };
    let node = |nodeid, cpus: &[u16], memdev: Option<&str>, mem| NumaKind::Node {
        nodeid,
        cpus: cpus.to_vec(),
        mem,
        memdev: memdev.map(str::to_string),
        initiator: None,
    };
    let two = ["m0", "m1"];
    assert_eq!(case(&two, vec![node(Some(0), &[], None, None)]), "-numa: Duplicate NUMA nodeid: 0");
    assert_eq!(
        case(&["m0"], vec![]),
        "total memory for NUMA nodes (0x2000000) should equal RAM size (0x4000000)"
    );
    assert_eq!(
        case(&two, vec![node(None, &[9], None, None)]),
        "-numa: CPU index (9) should be smaller than maxcpus (1)"
    );
    assert_eq!(case(&[], vec![node(None, &[], Some("zz"), None)]), "-numa: memdev=zz is ambiguous");
    assert_eq!(
        case(&[], vec![node(None, &[], None, Some(1))]),
        "-numa: Parameter -numa node,mem is not supported by this machine type"
    );
    assert_eq!(case(&[], vec![node(Some(1), &[], None, None)]), "numa: Node ID missing: 0");
    assert_eq!(
        case(&two, vec![NumaKind::Dist { src: 0, dst: 1, val: 5 }]),
        "-numa: NUMA distance (5) is invalid, it shouldn't be less than 10."
    );
    assert_eq!(
        case(&two, vec![NumaKind::Dist { src: 0, dst: 7, val: 20 }]),
        "-numa: Source/Destination NUMA node is missing. Please use '-numa node' option to declare it first."
    );
    let cpu: Dict =
        [("node-id".to_string(), Value::Int(1)), ("socket-id".into(), Value::Int(9))].into_iter().collect();
    assert_eq!(case(&two, vec![NumaKind::Cpu(cpu)]), "-numa: no match found");
}

#[test]
fn bad_objects_are_refused_before_anything_else() {
    let mut s = spec("no-such-machine");
    s.objects.push(object("foo", "a", &[]));
    assert_eq!(refused(&mut s), "-object a: Parameter 'qom-type' does not accept value 'foo'");
    s.objects[0] = object("iothread", "a", &[("bar", "1")]);
    assert_eq!(refused(&mut s), "-object a: Invalid parameter 'bar'");
    s.objects[0] = object("iothread", "a", &[("poll-max-ns", "x")]);
    assert_eq!(refused(&mut s), "-object a: Parameter 'poll-max-ns' expects an int64 value");
}

fn microvm(m: &mut crate::machine::Machine, ioapic2: bool, virtio: Vec<VirtioMmio>) {
    let want = microvm_tables(&MicrovmConfig {
        cpus: vec![CpuEntry { apic_id: 0, present: true, node: None }],
        ioapic2,
        isa: vec![IsaDevice::Rtc, IsaDevice::Serial { uid: 1, iobase: 0x3f8, irq: 4 }],
        virtio,
        ..MicrovmConfig::default()
    });
    // The oracle test compares these very tables with QEMU's.
    assert!(acpi_blobs(m, RamLayout::default(), 1, 1).tables == want.tables, "ACPI tables differ");
}

fn device(driver: &str) -> DeviceSpec {
    DeviceSpec { driver: driver.into(), id: None, props: Dict::new(), loc: Loc::NONE, json: false }
}

#[test]
fn microvm_board() {
    let mut s = spec("microvm");
    s.devices = vec![device("virtio-rng-device"), device("virtio-rng-device")];
    let (b, _) = made(&mut s);
    let mut m = b.shared.lock();
    microvm(
        &mut m,
        true,
        vec![
            VirtioMmio { index: 23, base: 0xfeb0_2e00, irq: 47 },
            VirtioMmio { index: 22, base: 0xfeb0_2c00, irq: 46 },
        ],
    );
    let read = |m: &mut crate::machine::Machine, at: u64| {
        let mut v = [0; 4];
        m.bus_read(crate::memory::Space::Memory, at, &mut v);
        u32::from_le_bytes(v)
    };
    assert_eq!(read(&mut m, 0xfeb0_0000), u32::from_le_bytes(*b"virt"));
    assert_eq!(read(&mut m, 0xfeb0_2e08), 4, "a random number device is on the last transport");
    assert_eq!(read(&mut m, 0xfeb0_0008), 0, "the first one is empty");
    // Version of the second I/O APIC.
    m.bus_write(crate::memory::Space::Memory, 0xfec1_0000, &1u32.to_le_bytes());
    assert_eq!(read(&mut m, 0xfec1_0010), 0x0017_0020);
    let order: Vec<&str> = m.tree.iter().map(|n| n.class.name).filter(|n| *n != "virtio-mmio").collect();
    let cpu = ["fw_cfg_io", "qemu64-x86_64-cpu", "apic", "kvmvapic"];
    assert_eq!((&order[..4], &order[4..7]), (&cpu[..], &["isabus-bridge", "ioapic", "ioapic"][..]));
    let io = m.tree.by_class("ioapic").map(|n| m.tree.path(n.id));
    assert_eq!(io.as_deref(), Some("/machine/ioapic"));
    m.power_button();
    assert_eq!(read(&mut m, 0xfea0_0000), 2);
}

#[test]
fn microvm_without_second_ioapic_or_acpi() {
    let mut s = spec("microvm");
    s.machine.props.push("ioapic2", Value::text("off"));
    s.devices = vec![device("virtio-rng-device")];
    let (b, _) = made(&mut s);
    microvm(&mut b.shared.lock(), false, vec![VirtioMmio { index: 7, base: 0xfeb0_0e00, irq: 23 }]);
    assert_eq!(crate::boards::microvm::kernel_arguments(&b.shared.lock()), "");
    s.machine.props.push("acpi", Value::text("off"));
    let (b, _) = made(&mut s);
    let m = b.shared.lock();
    assert_eq!(crate::boards::microvm::kernel_arguments(&m), " virtio_mmio.device=512@0xfeb00e00:12");
    assert!(m.tree.by_class("acpi-ged-x86").is_none());
    drop(m);
    s.machine.props.push("pcie", Value::text("on"));
    assert_eq!(refused(&mut s), "PCIe is not supported by this machine");
}

#[test]
fn back_ends_and_cards_of_the_command_line() {
    let netdev = |kind: &str, id: Option<&str>, peer, props: &[(&str, Value)]| NetdevSpec {
        kind: kind.into(),
        id: id.map(str::to_string),
        props: props.iter().map(|(k, v)| (k.to_string(), v.clone())).collect(),
        peer,
        loc: Loc::option(&["-net"]),
    };
    let mut s = spec("pc");
    s.defaults.net = false;
    s.netdevs = vec![netdev("hubport", Some("h"), NetPeer::None, &[("hubid", Value::Int(3))])];
    let (b, warnings) = made(&mut s);
    assert_eq!(warnings, ["hub port h has no peer", "netdev h has no peer"]);
    assert_eq!(b.shared.lock().net_info(), "hub 3\n \\ h\n");
    let nic = |model: &str, peer| NicSpec {
        model: Some(model.into()),
        mac: None,
        name: None,
        addr: None,
        vectors: None,
        peer,
        loc: Loc::option(&["-net"]),
    };
    s.netdevs.clear();
    s.nics = vec![nic("foo", NetPeer::Hub(0))];
    assert_eq!(refused(&mut s), "Unsupported NIC model: foo");
    s.nics = vec![nic("virtio", NetPeer::Netdev("zz".into()))];
    assert_eq!(refused(&mut s), "-net: netdev 'zz' not found");
    s.nics.clear();
    s.netdevs = vec![netdev("vde", Some("u"), NetPeer::None, &[])];
    assert_eq!(refused(&mut s), "-net: network backend 'vde' is not compiled into this binary");
}

#[test]
fn older_versions_start_with_their_values() {
    let value = |machine: &str, class: &str, prop: &str| {
        let mut s = spec(machine);
        s.smp.cpus = Some(2);
        let (b, _) = made(&mut s);
        let m = b.shared.lock();
        let n = m.tree.by_class(class).unwrap();
        let sockets = m.info.topology.unwrap().sockets;
        (n.props.get_prop(prop).unwrap().value, sockets)
    };
    assert_eq!(value("pc", "PIIX4_PM", "smm-compat"), (false.into(), 1));
    assert_eq!(value("pc-i440fx-6.0", "PIIX4_PM", "smm-compat"), (false.into(), 2));
    assert_eq!(value("pc-i440fx-5.2", "PIIX4_PM", "smm-compat"), (true.into(), 2));
    assert_eq!(value("pc-i440fx-4.1", "fw_cfg_io", "acpi-mr-restore"), (false.into(), 2));
}

#[test]
fn every_machine_is_listed_once() {
    let mut names: Vec<_> = crate::boards::MACHINES.iter().map(|m| m.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), crate::boards::MACHINES.len());
    assert_eq!(crate::boards::MACHINES.iter().filter(|m| m.is_default).count(), 1);
}

#[test]
fn nothing_is_taken_without_effect() {
    let mut s = spec("pc");
    s.accels[0].name = "tcg".into();
    s.run.icount = Some(Default::default());
    assert_eq!(refused(&mut s), "-icount: not supported yet");
    let mut s = spec("pc");
    s.devices.push(DeviceSpec {
        driver: "e1000".into(),
        id: None,
        props: [("failover_pair_id".to_string(), Value::text("x"))].into_iter().collect(),
        json: false,
        loc: Loc::option(&["-device", "e1000"]),
    });
    assert_eq!(refused(&mut s), "-device e1000: failover primary device must be on PCIExpress bus");
}
