//! `pc`: Intel 440FX host bridge, PIIX3/PIIX4 south bridge.
//!
//! Devices are created in the order in which QEMU creates them, so that QOM paths and PCI slots agree.

use super::flash;
use super::memory::map_ram;
use super::props::PcProps;
use super::MachineType;
use crate::builder::Build;
use crate::device::{BusId, DevId, DeviceTree, Place};
use crate::devices::chipset::{dma, fw_cfg, i440fx, piix3, piix4_pm};
use crate::devices::legacy::i8042::I8042;
use crate::devices::legacy::ioapic::Ioapic;
use crate::devices::legacy::{connect_gsis, hpet, i8259};
use crate::devices::misc::port92::Port92;
use crate::devices::misc::ports;
use crate::firmware::fw_cfg_files::pc_ram_layout;
use crate::irq::{IrqLine, IrqSink};
use crate::machine::Machine;
use crate::memory::{RamSource, RegionId, RegionKind};
use crate::qom::{OnOffAuto, PropInput};
use crate::spec::MachineDefaults;
use crate::{qerr, QResult};

/// `pc-i440fx-7.2`; older versions are made from it.
pub(super) const PC: MachineType = MachineType {
    name: "pc-i440fx-7.2",
    alias: Some("pc"),
    desc: "Standard PC (i440FX + PIIX, 1996)",
    is_default: true,
    max_cpus: 255,
    hotpluggable_cpus: true,
    default_cpu: Some("qemu64"),
    default_ram_id: Some("pc.ram"),
    default_ram: 128 << 20,
    numa_mem_supported: false,
    acpi: true,
    defaults: MachineDefaults::default,
    compat: &[],
    prefer_sockets: false,
    keeps_amd_hole: true,
    pci_root_uid: 0,
    props: || Box::new(PcProps::default()),
    init,
};

/// The current version.
pub static PC_7_2: MachineType = PC;

/// More firmware gets in the way of the interrupt controllers.
const MAX_FIRMWARE: u64 = 16 << 20;

/// What the phases of the board hand on.
struct Pc {
    isa: BusId,
    pci: BusId,
    fw_cfg: DevId,
}

fn init(b: &mut Build<'_>) -> QResult<()> {
    refuse_undone(b)?;
    b.create_cpus()?;
    b.create_guest_clock()?;
    let kernel_chips = b.kernel_irqchip();
    let max_below = b.props::<PcProps>().map_or(0, |p| p.max_ram_below_4g.0);
    let layout = pc_ram_layout(b.ram_size, Some(max_below).filter(|m| *m > 0));
    b.layout = layout;
    let ram = b.main_ram()?;
    map_ram(b.m, ram, layout);
    let pci_mem = b.m.mem.add("pci", 1 << 64, RegionKind::Container, None);
    let system = b.m.mem.system;
    b.m.mem.map(system, pci_mem, 0, -1);
    load_firmware(b, pci_mem)?;
    let fw_cfg = fw_cfg::create(b.m, &[])?;
    let host = i440fx::create(
        b.m,
        &i440fx::PcMemory { ram, pci: pci_mem, ram_size: b.ram_size, pci_hole64_size: None },
    )?;
    if b.m.accel.name() == "tcg" {
        smm_memory(b.m, host.smram);
    }
    let bypass = b.props::<PcProps>().is_some_and(|p| p.default_bus_bypass_iommu);
    if let Some(n) = b.m.tree.get_mut(host.host).filter(|_| bypass) {
        // There is no IOMMU that anything could bypass.
        n.props.set_prop(n.class.name, "bypass-iommu", &PropInput::Str("on"))?;
    }
    let bridge = piix3::create(b.m, &host)?;
    let pc = Pc { isa: bridge.isa, pci: host.bus, fw_cfg };
    legacy_devices(b, &pc, &host, kernel_chips)?;
    south_bridge(b, &pc)?;
    b.fw_cfg = Some(pc.fw_cfg);
    b.pci_root = Some(pc.pci);
    b.isa_bus = Some(pc.isa);
    Ok(())
}

/// Properties that users may write but that ask for something this board does not have.
fn refuse_undone(b: &Build<'_>) -> QResult<()> {
    let Some(p) = b.props::<PcProps>() else { return Ok(()) };
    if p.x86.smm == OnOffAuto::On && !has_smm(b) {
        return Err(qerr!("System Management Mode not supported by this hypervisor."));
    }
    if p.max_fw_size.0 > MAX_FIRMWARE {
        return Err(qerr!(
            "User specified max allowed firmware size {} is greater than 16MiB. If combined firwmare size exceeds \
             16MiB the system may not boot, or experience intermittentstability issues.",
            p.max_fw_size.0
        ));
    }
    let undone = [
        ("usb=on", p.x86.common.usb),
        ("suppress-vmdesc=on", p.x86.common.suppress_vmdesc),
        ("pit=off", p.x86.pit == OnOffAuto::Off),
        ("pic=off", p.x86.pic == OnOffAuto::Off),
        ("pcspk-audiodev", p.pcspk_audiodev.0.is_some()),
    ];
    match undone.iter().find(|(_, wanted)| *wanted) {
        Some((what, _)) => Err(qerr!("machine property '{what}' is not supported")),
        None => Ok(()),
    }
}

fn legacy_devices(b: &mut Build<'_>, pc: &Pc, host: &i440fx::I440fxParts, kernel_chips: bool) -> QResult<()> {
    let isa = Some(pc.isa);
    dma::create(b.m, pc.isa)?;
    ports::create(b.m);
    let ioapic_at = Place::Child(host.host, "ioapic");
    let system = Some(DeviceTree::SYSTEM);
    if kernel_chips {
        for (iobase, elcr, mask, master) in
            [("0x20", "0x4d0", "0xf8", "true"), ("0xa0", "0x4d1", "0xde", "false")]
        {
            let props = [("iobase", iobase), ("elcr_addr", elcr), ("elcr_mask", mask), ("master", master)];
            b.m.add_board_device("kvm-i8259", isa, &props.map(|(k, v)| (k, PropInput::Str(v))))?;
        }
        b.m.add_board_device_at("kvm-ioapic", system, ioapic_at, &[])?;
    } else {
        let pics = i8259::add_pair(b.m, isa)?;
        let io = b.m.add_board_device_at("ioapic", system, ioapic_at, &[])?;
        connect_gsis(b.m, Some(pics), Some(io));
        b.m.with::<Ioapic, _>(io, |i, _| i.set_pic(pics.0));
    }
    b.create_vga(pc.pci)?;
    let want = b.props::<PcProps>().map(|p| (p.hpet, p.i8042));
    let (hpet, keyboard) = want.unwrap_or((true, true));
    let hpet = hpet
        .then(|| b.m.add_board_device("hpet", system, &[("hpet-intcap", PropInput::Str("4"))]))
        .transpose()?;
    b.m.rtc = b.spec.rtc.clone();
    let rtc = b.m.add_board_device("mc146818rtc", isa, &[("base_year", PropInput::Str("0"))])?;
    let base = [("iobase", PropInput::Str("0x40"))];
    let pit = b.m.add_board_device(if kernel_chips { "kvm-pit" } else { "isa-pit" }, isa, &base)?;
    if let Some(hpet) = hpet {
        hpet::connect(b.m, hpet, (!kernel_chips).then_some(pit), rtc);
    }
    b.m.add_board_device("isa-pcspk", isa, &[])?;
    b.create_serials(pc.isa)?;
    b.create_parallels(pc.isa)?;
    b.create_floppy(pc.isa)?;
    let lines = lines_of(hpet.is_some(), keyboard, b.acpi_enabled(), kernel_chips);
    b.m.tree.board_irqs = lines;
    if !keyboard {
        // The A20 gate and what else belongs to it go with the controller.
        return Ok(());
    }
    let keyboard = b.m.add_board_device("i8042", isa, &[])?;
    let line = b.m.with::<I8042, _>(keyboard, |k, _| k.a20_line());
    connect_a20(b, line);
    if b.props::<PcProps>().is_some_and(|p| p.vmport.or(true)) {
        b.m.add_board_device("vmport", isa, &[])?;
        b.m.add_board_device("vmmouse", isa, &[])?;
    }
    let port = b.m.add_board_device("port92", isa, &[])?;
    let line = b.m.with::<Port92, _>(port, |p, _| p.a20_line());
    connect_a20(b, line);
    Ok(())
}

/// Number of the board's own interrupt lines that an output of a device leads to: all global interrupts with a HPET,
/// else those of RTC, PIT, keyboard, mouse and ACPI; A20 from two places; SMI; the 8259's output.
fn lines_of(hpet: bool, keyboard: bool, acpi: bool, kernel_chips: bool) -> u32 {
    let shared =
        if hpet { 24 } else { 1 + u32::from(!kernel_chips) + 2 * u32::from(keyboard) + u32::from(acpi) };
    shared + 2 * u32::from(keyboard) + u32::from(acpi) + u32::from(!kernel_chips)
}

/// Both gates lead to the same line; the last one that moves decides.
fn connect_a20(b: &mut Build<'_>, line: Option<IrqLine>) {
    if let Some(line) = line {
        b.m.irqs.connect(line, IrqSink::A20);
    }
}

fn south_bridge(b: &mut Build<'_>, pc: &Pc) -> QResult<()> {
    b.create_nics(pc.pci, pc.isa)?;
    let addr = [("addr", PropInput::Str("1.1"))];
    b.m.add_board_device("piix3-ide", Some(pc.pci), &addr)?;
    b.create_ide_drives()?;
    if b.acpi_enabled() {
        b.power_device = Some(piix4_pm::create(b.m, pc.pci, Some(pc.fw_cfg), smm(b))?);
    }
    Ok(())
}

/// Whether processors can enter system management mode, or there are none.
fn has_smm(b: &Build<'_>) -> bool {
    matches!(b.m.accel.name(), "qtest" | "tcg")
}

/// System management mode, for the tables and the chipset.
fn smm(b: &Build<'_>) -> bool {
    has_smm(b) && b.props::<PcProps>().is_some_and(|p| p.x86.smm != OnOffAuto::Off)
}

/// What processors in system management mode see: its memory on top of everybody's.
fn smm_memory(m: &mut Machine, smram: RegionId) {
    let root = m.mem.add("memory", 1 << 64, RegionKind::Container, None);
    let system = m.mem.system;
    for (name, size, target, priority) in [("smram", 1 << 32, smram, 1), ("memory", 1 << 64, system, 0)] {
        let r = m.mem.add(name, size, RegionKind::Alias { target, offset: 0, readonly: false }, None);
        m.mem.map(root, r, 0, priority);
    }
    m.smm_memory = Some((root, smram));
}

/// The system firmware at the top of 4 GiB, its last 128 KiB also below 1 MiB, and RAM for option ROMs behind it.
fn load_firmware(b: &mut Build<'_>, pci_mem: RegionId) -> QResult<()> {
    if !flash::create(b, pci_mem)? {
        let wanted = b.wanted_firmware();
        let name = wanted.as_deref().unwrap_or("bios-256k.bin");
        let path = b.m.find_firmware(name);
        if path.is_none() && b.boots_directly() {
            return Ok(());
        }
        let (bios, size) = super::memory::load_bios(b.m, path.as_deref(), name, true)?;
        b.firmware = Some((bios, size));
        let isa_size = size.min(128 << 10);
        let alias = RegionKind::Alias { target: bios, offset: size - isa_size, readonly: true };
        let isa_bios = b.m.mem.add("isa-bios", u128::from(isa_size), alias, None);
        b.m.mem.map(pci_mem, isa_bios, 0x10_0000 - isa_size, 1);
        b.m.mem.map(pci_mem, bios, (1 << 32) - size, 0);
    }
    let rom = b.m.new_ram_from("pc.rom", 128 << 10, true, None, RamSource::Anonymous)?;
    b.m.mem.map(pci_mem, rom, 0xc_0000, 1);
    Ok(())
}
