//! fw_cfg items, memory map and Linux boot items against QEMU's.

use rqemu_machine::firmware::acpi::tables::HPET_BLOCK_ID;
use rqemu_machine::firmware::fw_cfg_files::*;
use rqemu_machine::firmware::linux_boot;

use crate::qtest::{file, skip_without_qemu, Qtest, QEMU};
use crate::{first_difference, real_files};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Reads the items from QEMU and compares; bytes after an item's end must read as zero.
fn compare_items(args: &[&str], items: &[(u16, Vec<u8>)]) {
    const BEHIND: usize = 64;
    if skip_without_qemu() {
        return;
    }
    let mut q = Qtest::start(QEMU, args).unwrap_or_else(|e| panic!("QEMU with {args:?}: {e}"));
    for (key, ours) in items {
        let theirs = q.fw_cfg(*key, ours.len() + BEHIND);
        let mut ours = ours.clone();
        ours.resize(theirs.len(), 0);
        assert!(ours == theirs, "item {key:#x} with {args:?}: {}", first_difference(&ours, &theirs));
    }
}

fn default_items() -> FixedItems {
    FixedItems {
        dma: true,
        ram_size: 128 * MIB,
        cpus: 1,
        apic_id_limit: 1,
        hpet: Some(HPET_BLOCK_ID),
        ..FixedItems::default()
    }
}

#[test]
fn fixed_items_of_a_plain_machine() {
    compare_items(&["-nodefaults"], &fixed_items(&default_items()));
}

#[test]
fn fixed_items_with_everything_set() {
    let cfg = FixedItems {
        dma: false,
        uuid: *b"\x12\x34\x56\x78\x9a\xbc\xde\xf0\x11\x22\x33\x44\x55\x66\x77\x88",
        ram_size: GIB,
        nographic: true,
        cpus: 6,
        apic_id_limit: 7,
        boot_menu: true,
        numa: Some(NumaItem {
            cpu_nodes: vec![(0, 0), (1, 0), (2, 0), (4, 1), (5, 1), (6, 1)],
            node_memory: vec![256 * MIB, 768 * MIB],
        }),
        hpet: None,
    };
    let args = [
        "-nodefaults",
        "-nographic",
        "-no-hpet",
        "-global",
        "fw_cfg.dma_enabled=false",
        "-uuid",
        "12345678-9abc-def0-1122-334455667788",
        "-m",
        "1G",
        "-smp",
        "6,sockets=2,cores=3",
        "-boot",
        "menu=on",
        "-object",
        "memory-backend-ram,id=m0,size=256M",
        "-object",
        "memory-backend-ram,id=m1,size=768M",
        "-numa",
        "node,memdev=m0,cpus=0-2",
        "-numa",
        "node,memdev=m1,cpus=3-5",
    ];
    compare_items(&args, &fixed_items(&cfg));
}

/// The directory built from QEMU's own file names and sizes, in another order, equals QEMU's.
#[test]
fn directory_order_and_selectors() {
    if skip_without_qemu() {
        return;
    }
    let args =
        ["-boot", "splash-time=3000", "-fw_cfg", "name=opt/b,string=hello", "-fw_cfg", "name=opt/a,string=x"];
    let theirs = real_files(&args);
    let mut ours: Vec<_> = theirs.iter().rev().map(|f| (f.name.clone(), f.data.len())).collect();
    let built = directory(&mut ours, |len| *len);
    for (i, f) in theirs.iter().enumerate() {
        assert_eq!((ours[i].0.as_str(), key::FILE_FIRST + i as u16), (f.name.as_str(), f.key));
    }
    let mut q = Qtest::start(QEMU, &args).unwrap();
    let raw = q.fw_cfg(key::FILE_DIR, built.len());
    assert!(raw == built, "{}", first_difference(&built, &raw));
}

fn compare_file(args: &[&str], name: &str, ours: Option<&[u8]>) {
    if skip_without_qemu() {
        return;
    }
    let files = real_files(args);
    assert_eq!(file(&files, name), ours, "{name} with {args:?}");
}

#[test]
fn small_files() {
    let states = |args: &[&str], want: [u8; 6]| compare_file(args, "etc/system-states", Some(&want));
    states(&["-nodefaults"], system_states(false, false, 2));
    let off = ["-nodefaults", "-global", "PIIX4_PM.disable_s3=1", "-global", "PIIX4_PM.disable_s4=1"];
    states(&off, system_states(true, true, 2));
    let boot = ["-nodefaults", "-boot", "reboot-timeout=5,splash-time=3000"];
    compare_file(&boot, "etc/boot-fail-wait", Some(&boot_fail_wait(Some(5))));
    compare_file(&boot, "etc/boot-menu-wait", Some(&boot_menu_wait(3000)));
    compare_file(&["-nodefaults"], "etc/boot-fail-wait", Some(&boot_fail_wait(None)));
    compare_file(&["-nodefaults"], "etc/boot-menu-wait", None);
    let uuid = *b"\x32\x4e\x6e\xaf\xd1\xd1\x4b\xf6\xbf\x41\xb9\xbb\x6c\x91\xfb\x87";
    let vmgenid = ["-nodefaults", "-device", "vmgenid,guid=324e6eaf-d1d1-4bf6-bf41-b9bb6c91fb87"];
    compare_file(&vmgenid, "etc/vmgenid_guid", Some(&vmgenid_guid(&uuid)));
}

#[test]
fn boot_order_and_geometry() {
    let args = [
        "-nodefaults",
        "-boot",
        "strict=on",
        "-device",
        "e1000,bootindex=1,addr=6,romfile=",
        "-device",
        "e1000,bootindex=0,addr=7,romfile=",
        "-drive",
        "id=d,if=none,driver=null-co,size=100M",
        "-device",
        "ide-hd,drive=d,lcyls=100,lheads=16,lsecs=63",
    ];
    let order = ["/pci@i0cf8/ethernet@7/ethernet-phy@0", "/pci@i0cf8/ethernet@6/ethernet-phy@0"];
    compare_file(&args, "bootorder", Some(&lines(&order.map(String::from), true)));
    let geometry = geometry_line("/pci@i0cf8/ide@1,1/drive@1/disk@0", 100, 16, 63);
    compare_file(&args, "bios-geometry", Some(&lines(&[geometry], false)));
    compare_file(&["-nodefaults", "-boot", "strict=on"], "bootorder", Some(&lines(&[], true)));
}

#[test]
fn memory_maps() {
    let amd = |phys_bits| E820Config { amd_cpu: true, phys_bits, kvm: false };
    let pc = |size: u64, cfg: &E820Config| e820_file(&pc_e820(&pc_ram_layout(size, None), cfg));
    let check = |args: &[&str], want: Vec<u8>| compare_file(args, "etc/e820", Some(&want));
    check(&["-nodefaults"], pc(128 * MIB, &amd(40)));
    for size in [3500u64, 3583, 3584, 4096, 8192] {
        check(&["-nodefaults", "-m", &format!("{size}M")], pc(size * MIB, &amd(40)));
    }
    check(&["-nodefaults", "-cpu", "qemu64,phys-bits=36"], pc(128 * MIB, &amd(36)));
    check(
        &["-nodefaults", "-cpu", "Haswell"],
        pc(128 * MIB, &E820Config { phys_bits: 40, ..Default::default() }),
    );
    let low = pc_ram_layout(4 * GIB, Some(2 * GIB));
    let args = ["-nodefaults", "-m", "4G", "-machine", "max-ram-below-4g=2G"];
    check(&args, e820_file(&pc_e820(&low, &amd(40))));
    for size in [128u64, 3500, 4096] {
        let want = e820_file(&ram_ranges(&microvm_ram_layout(size * MIB)));
        check(&["-M", "microvm", "-m", &format!("{size}M")], want);
    }
}

/// A kernel image with the given boot protocol, load flags and extended load flags.
fn kernel(protocol: u16, loadflags: u8, xloadflags: u16) -> Vec<u8> {
    let mut image = vec![0u8; 5 * 512];
    image[0x1f1] = 4;
    image[0x1fe..0x202].copy_from_slice(&[0x55, 0xaa, 0xeb, 0x66]);
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x206..0x208].copy_from_slice(&protocol.to_le_bytes());
    image[0x211] = loadflags;
    image[0x22c..0x230].copy_from_slice(&0x37ff_ffffu32.to_le_bytes());
    image[0x236..0x238].copy_from_slice(&xloadflags.to_le_bytes());
    image.extend((0..8192u32).map(|i| (i * 7) as u8));
    image
}

#[test]
fn linux_images() {
    let dir = tempfile::tempdir().unwrap();
    let kernel_path = dir.path().join("kernel").display().to_string();
    let initrd_path = dir.path().join("initrd").display().to_string();
    let initrd = b"initrd!".repeat(1000);
    std::fs::write(&initrd_path, &initrd).unwrap();
    let cases = [
        (0x20c, 1, 0, "console=ttyS0", 128),
        (0x20f, 1, 2, "", 2048),
        (0x20f, 1, 0, "a vga=0x317 b", 2048),
        (0x201, 1, 0, "", 128),
        (0x204, 0, 0, "a vga=3", 128),
        (0x200, 0, 0, "x", 1024),
    ];
    for (protocol, flags, xflags, cmdline, mib) in cases {
        let image = kernel(protocol, flags, xflags);
        std::fs::write(&kernel_path, &image).unwrap();
        let memory = format!("{mib}M");
        let args = [
            "-nodefaults",
            "-m",
            &memory,
            "-kernel",
            &kernel_path,
            "-initrd",
            &initrd_path,
            "-append",
            cmdline,
        ];
        let ours = linux_boot::prepare(&image, cmdline, Some(initrd.clone()), mib * MIB).unwrap();
        compare_items(&args, &ours.into_items());
    }
}
