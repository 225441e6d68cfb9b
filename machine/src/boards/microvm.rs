//! `microvm`: a small board without PCI, with virtio-mmio transports and hardware-reduced ACPI.
//!
//! Left out: `pcie=on` and `usb=on` (refused). With KVM's own interrupt controllers there is no second I/O APIC, so the
//! board has 8 transports there; elsewhere 24.

use rqemu_derive::Device;

use super::memory::map_ram;
use super::props::X86Props;
use super::{MachineProps, MachineType};
use crate::builder::Build;
use crate::device::{BusId, DevId, DeviceTree, Place};
use crate::devices::chipset::fw_cfg;
use crate::devices::legacy::ioapic::Ioapic;
use crate::devices::legacy::{connect_gsis, i8259, ioapic};
use crate::devices::misc::ged;
use crate::devices::misc::isabus_bridge::IsaBridge;
use crate::devices::virtio::mmio;
use crate::firmware::acpi::microvm::{MicrovmConfig, VirtioMmio};
use crate::firmware::acpi::{AcpiBlobs, CpuEntry};
use crate::firmware::fw_cfg_files::microvm_ram_layout;
use crate::irq::IrqSink;
use crate::machine::Machine;
use crate::memory::RegionKind;
use crate::qom::{OnOffAuto, PropInput, PropStruct, PropTable};
use crate::spec::MachineDefaults;
use crate::{qerr, QResult};

/// `microvm`.
pub static MICROVM: MachineType = MachineType {
    name: "microvm",
    alias: None,
    desc: "microvm (i386)",
    is_default: false,
    max_cpus: 288,
    hotpluggable_cpus: false,
    default_cpu: Some("qemu64"),
    default_ram_id: Some("microvm.ram"),
    default_ram: 128 << 20,
    numa_mem_supported: false,
    acpi: true,
    defaults: || MachineDefaults {
        no_parallel: true,
        no_floppy: true,
        no_cdrom: true,
        no_sdcard: true,
        ..MachineDefaults::default()
    },
    compat: &[],
    prefer_sockets: false,
    keeps_amd_hole: false,
    pci_root_uid: 0,
    props: || Box::new(MicrovmProps::default()),
    init,
};

/// Properties of `microvm`.
#[derive(Device, Debug)]
pub struct MicrovmProps {
    /// All x86 machines'
    #[base]
    pub x86: X86Props,
    /// Enable MC146818 RTC
    #[prop]
    pub rtc: OnOffAuto,
    /// Enable PCIe
    #[prop]
    pub pcie: OnOffAuto,
    /// Enable second IO-APIC
    #[prop]
    pub ioapic2: OnOffAuto,
    /// Set off to disable the instantiation an ISA serial port
    #[prop(name = "isa-serial", default = true)]
    pub isa_serial: bool,
    /// Set off to disable loading option ROMs
    #[prop(name = "x-option-roms", default = true)]
    pub option_roms: bool,
    /// Set off to disable adding virtio-mmio devices to the kernel cmdline
    #[prop(name = "auto-kernel-cmdline", default = true)]
    pub auto_kernel_cmdline: bool,
}

impl MachineProps for MicrovmProps {
    fn table(&self) -> &'static PropTable {
        Self::PROPS
    }
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

const VIRTIO_BASE: u64 = 0xfeb0_0000;
pub(super) const IOAPIC2_BASE: u64 = 0xfec1_0000;
/// First interrupts of the transports: on the second I/O APIC, on free inputs of the first, on ISA interrupts.
pub(super) const IRQ_IOAPIC2: u32 = 24;
const IRQ_ACPI: u32 = 16;
const IRQ_ISA: u32 = 5;

/// The switches, worked out.
#[derive(Clone, Copy)]
struct Want {
    acpi: bool,
    pic: bool,
    pit: bool,
    rtc: bool,
    ioapic2: bool,
    serial: bool,
    kernel_chips: bool,
}

fn want(b: &Build<'_>) -> QResult<Want> {
    let kernel_chips = b.kernel_irqchip();
    let p = b.props::<MicrovmProps>().ok_or_else(|| qerr!("machine has no properties"))?;
    if p.pcie == OnOffAuto::On {
        return Err(qerr!("PCIe is not supported by this machine"));
    }
    if p.x86.common.usb {
        return Err(qerr!("USB is not supported by this machine"));
    }
    if p.ioapic2 == OnOffAuto::On && kernel_chips {
        return Err(qerr!("ioapic2=on needs kernel-irqchip=off"));
    }
    Ok(Want {
        acpi: p.x86.acpi.or(true),
        pic: p.x86.pic.or(true),
        pit: p.x86.pit.or(true),
        rtc: p.rtc.or(b.m.accel.name() != "kvm"),
        ioapic2: p.ioapic2.or(!kernel_chips),
        serial: p.isa_serial,
        kernel_chips,
    })
}

fn init(b: &mut Build<'_>) -> QResult<()> {
    let w = want(b)?;
    let fw_cfg = fw_cfg::create(b.m, &[])?;
    b.fw_cfg = Some(fw_cfg);
    b.create_cpus()?;
    b.layout = microvm_ram_layout(b.ram_size);
    let ram = b.main_ram()?;
    map_ram(b.m, ram, b.layout);
    let bridge = b.m.add_board_device("isabus-bridge", Some(DeviceTree::SYSTEM), &[])?;
    let isa = b.m.with::<IsaBridge, _>(bridge, |d, _| d.bus());
    let isa = isa.ok_or_else(|| qerr!("machine has no ISA bus"))?;
    b.isa_bus = Some(isa);
    let chips = ioapics(b, &w)?;
    b.create_guest_clock()?;
    transports(b, &w)?;
    if w.acpi {
        b.power_device = Some(ged::create(b.m)?);
    }
    let user = |chip: bool| u32::from(chip && !w.kernel_chips);
    b.m.tree.board_irqs =
        transport_irqs(&w).1 + u32::from(w.acpi) + u32::from(w.rtc) + user(w.pic) + user(w.pit);
    legacy_devices(b, &w, isa, chips)?;
    load_firmware(b, &w)
}

/// The I/O APICs; `None` where KVM has the first one.
fn ioapics(b: &mut Build<'_>, w: &Want) -> QResult<(Option<DevId>, Option<DevId>)> {
    let system = Some(DeviceTree::SYSTEM);
    if w.kernel_chips {
        b.m.add_board_device_at("kvm-ioapic", system, Place::Machine("ioapic"), &[])?;
        return Ok((None, None));
    }
    let first = b.m.add_board_device_at("ioapic", system, Place::Machine("ioapic"), &[])?;
    if !w.ioapic2 {
        return Ok((Some(first), None));
    }
    let second = b.m.add_board_device("ioapic", system, &[])?;
    let region = b.m.with::<Ioapic, _>(second, |i, _| {
        i.set_gsi_base(ioapic::PINS as u32);
        i.region()
    });
    if let Some(r) = region {
        let system = b.m.mem.system;
        b.m.mem.unmap(r);
        b.m.mem.map(system, r, IOAPIC2_BASE, 0);
    }
    Ok((Some(first), Some(second)))
}

/// First interrupt and number of transports.
fn transport_irqs(w: &Want) -> (u32, u32) {
    match (w.ioapic2, w.acpi) {
        (true, _) => (IRQ_IOAPIC2, 24),
        (false, true) => (IRQ_ACPI, 8),
        (false, false) => (IRQ_ISA, 8),
    }
}

fn transports(b: &mut Build<'_>, w: &Want) -> QResult<()> {
    let (irq, count) = transport_irqs(w);
    for i in 0..count {
        let line = match irq + i {
            n if n < 16 => b.m.isa_irq(n),
            n => b.m.irqs.add(IrqSink::Gsi(n)),
        };
        mmio::create(b.m, VIRTIO_BASE + u64::from(i) * mmio::SIZE, line)?;
    }
    Ok(())
}

fn legacy_devices(
    b: &mut Build<'_>,
    w: &Want,
    isa: BusId,
    (io1, io2): (Option<DevId>, Option<DevId>),
) -> QResult<()> {
    let mut pics = None;
    if w.pic && w.kernel_chips {
        for (iobase, elcr, mask, master) in
            [("0x20", "0x4d0", "0xf8", "true"), ("0xa0", "0x4d1", "0xde", "false")]
        {
            let props = [("iobase", iobase), ("elcr_addr", elcr), ("elcr_mask", mask), ("master", master)];
            b.m.add_board_device("kvm-i8259", Some(isa), &props.map(|(k, v)| (k, PropInput::Str(v))))?;
        }
    } else if w.pic {
        pics = Some(i8259::add_pair(b.m, Some(isa))?);
    }
    if !w.kernel_chips {
        connect_gsis(b.m, pics, io1);
        if let Some(io2) = io2 {
            b.m.irq_chips.ioapics.push(io2);
            b.m.gsi_sinks.extend((0..ioapic::PINS as u32).map(|pin| vec![IrqSink::Device(io2, pin)]));
        }
        if let (Some(io), Some((master, _))) = (io1, pics) {
            b.m.with::<Ioapic, _>(io, |i, _| i.set_pic(master));
        }
    }
    if w.pit {
        let class = if w.kernel_chips { "kvm-pit" } else { "isa-pit" };
        b.m.add_board_device(class, Some(isa), &[("iobase", PropInput::Str("0x40"))])?;
    }
    b.m.rtc = b.spec.rtc.clone();
    if w.rtc {
        b.m.add_board_device("mc146818rtc", Some(isa), &[("base_year", PropInput::Str("0"))])?;
    }
    if w.serial {
        if let Some(chr) = b.spec.serials.first().and_then(|p| p.chardev.as_deref()) {
            let props = [("index", PropInput::Str("0")), ("chardev", PropInput::Str(chr))];
            b.m.add_board_device("isa-serial", Some(isa), &props)?;
        }
    }
    Ok(())
}

/// The firmware at the top of 4 GiB, and what of it fits also below 1 MiB. It is plain RAM on this board.
fn load_firmware(b: &mut Build<'_>, w: &Want) -> QResult<()> {
    let default = if w.acpi { "bios-microvm.bin" } else { "qboot.rom" };
    let name = b.spec.firmware.bios.clone().unwrap_or_else(|| default.to_string());
    let path = b.m.find_firmware(&name);
    if path.is_none() && b.boots_directly() {
        return Ok(());
    }
    let (bios, size) = super::memory::load_bios(b.m, path.as_deref(), &name, false)?;
    b.firmware = Some((bios, size));
    let system = b.m.mem.system;
    let low = size.min(128 << 10);
    let alias = RegionKind::Alias { target: bios, offset: size - low, readonly: false };
    let isa_bios = b.m.mem.add("isa-bios", u128::from(low), alias, None);
    b.m.mem.map(system, isa_bios, 0x10_0000 - low, 1);
    b.m.mem.map(system, bios, (1 << 32) - size, 0);
    Ok(())
}

/// Transports that have a device, highest address first.
pub(super) fn used_transports(m: &Machine) -> Vec<VirtioMmio> {
    let Some(p) = m.board.as_ref().and_then(|b| b.props.as_any().downcast_ref::<MicrovmProps>()) else {
        return Vec::new();
    };
    let buses: Vec<bool> =
        m.tree.buses().filter(|b| b.type_name == "virtio-mmio-bus").map(|b| !b.children.is_empty()).collect();
    let irq = match (buses.len() > 8, p.x86.acpi.or(true)) {
        (true, _) => IRQ_IOAPIC2,
        (false, true) => IRQ_ACPI,
        (false, false) => IRQ_ISA,
    };
    let one = |i: usize| VirtioMmio {
        index: i as u8,
        base: VIRTIO_BASE as u32 + i as u32 * mmio::SIZE as u32,
        irq: irq + i as u32,
    };
    buses.iter().enumerate().rev().filter(|(_, used)| **used).map(|(i, _)| one(i)).collect()
}

/// Kernel arguments that announce the transports in use, if the guest does not learn of them from ACPI.
pub fn kernel_arguments(m: &Machine) -> String {
    let p = m.board.as_ref().and_then(|b| b.props.as_any().downcast_ref::<MicrovmProps>());
    if !p.is_some_and(|p| p.auto_kernel_cmdline && !p.x86.acpi.or(true)) {
        return String::new();
    }
    let mut list = used_transports(m);
    list.reverse();
    list.iter().map(|t| format!(" virtio_mmio.device={}@0x{:x}:{}", mmio::SIZE, t.base, t.irq)).collect()
}

/// ACPI tables; `None` on other boards.
pub fn acpi_tables(m: &Machine, cpus: u32, maxcpus: u32) -> Option<AcpiBlobs> {
    m.board.as_ref()?.props.as_any().downcast_ref::<MicrovmProps>()?;
    let node = |i: u32| m.numa.as_ref().and_then(|n| n.cpu_nodes.get(i as usize).copied());
    let cfg = MicrovmConfig {
        cpus: (0..maxcpus).map(|i| CpuEntry { apic_id: i, present: i < cpus, node: node(i) }).collect(),
        ioapic2: m.tree.iter().filter(|n| n.class.name == "ioapic").count() > 1,
        isa: crate::builder::isa_devices(m),
        virtio: used_transports(m),
        ..MicrovmConfig::default()
    };
    Some(crate::firmware::acpi::microvm::build(&cfg))
}
