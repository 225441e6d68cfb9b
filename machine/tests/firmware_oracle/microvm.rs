//! `microvm` tables against QEMU's.

use rqemu_machine::firmware::acpi::microvm::{build, MicrovmConfig, VirtioMmio};
use rqemu_machine::firmware::acpi::{CpuEntry, IsaDevice, LOADER_FILE, RSDP_FILE, TABLES_FILE};

use crate::qtest::{file, skip_without_qemu};
use crate::{first_difference, real_files};

fn default_config() -> MicrovmConfig {
    MicrovmConfig {
        cpus: vec![CpuEntry { apic_id: 0, present: true, node: None }],
        ioapic2: true,
        isa: vec![IsaDevice::Rtc, IsaDevice::Serial { uid: 1, iobase: 0x3f8, irq: 4 }],
        ..MicrovmConfig::default()
    }
}

fn compare(args: &[&str], cfg: &MicrovmConfig) {
    if skip_without_qemu() {
        return;
    }
    let files = real_files(args);
    let ours = build(cfg);
    for (name, bytes) in [(TABLES_FILE, &ours.tables), (LOADER_FILE, &ours.loader), (RSDP_FILE, &ours.rsdp)] {
        let theirs = file(&files, name).unwrap_or_else(|| panic!("QEMU has no {name}"));
        assert!(bytes == theirs, "{name} with {args:?}: {}", first_difference(bytes, theirs));
    }
}

#[test]
fn defaults() {
    compare(&["-M", "microvm"], &default_config());
}

#[test]
fn virtio_transports() {
    let mut cfg = default_config();
    cfg.virtio = vec![
        VirtioMmio { index: 23, base: 0xfeb0_2e00, irq: 47 },
        VirtioMmio { index: 22, base: 0xfeb0_2c00, irq: 46 },
    ];
    let devices = ["-device", "virtio-net-device", "-device", "virtio-rng-device"];
    compare(&[&["-M", "microvm"], &devices[..]].concat(), &cfg);
    cfg.ioapic2 = false;
    cfg.virtio = vec![
        VirtioMmio { index: 7, base: 0xfeb0_0e00, irq: 23 },
        VirtioMmio { index: 6, base: 0xfeb0_0c00, irq: 22 },
    ];
    compare(&[&["-M", "microvm,ioapic2=off"], &devices[..]].concat(), &cfg);
}

#[test]
fn cpus_usb_and_fewer_devices() {
    let mut cfg = default_config();
    cfg.cpus.push(CpuEntry { apic_id: 1, present: true, node: None });
    cfg.cpus.push(CpuEntry { apic_id: 2, present: false, node: None });
    cfg.usb = true;
    cfg.isa.pop();
    compare(&["-M", "microvm,usb=on,isa-serial=off", "-smp", "2,maxcpus=3"], &cfg);
}
