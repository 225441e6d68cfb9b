//! ACPI tables of machine `microvm`: hardware-reduced, events through a Generic Event Device.
//!
//! Left out: the PCIe host bridge (`pcie=on`) with its MCFG.

use super::aml::*;
use super::blob::TableBlob;
use super::config::{CpuEntry, IsaDevice, Oem};
use super::resource::*;
use super::{dsdt, isa, tables, AcpiBlobs};

/// Register of the Generic Event Device that tells which events are pending.
const GED_EVENTS: u32 = 0xfea0_0000;
/// Its reset and sleep registers.
const GED_REGS: u64 = 0xfea0_0200;
/// Its interrupt.
const GED_IRQ: u32 = 9;
/// Pending power button in the event register.
const EVENT_POWER_BUTTON: u64 = 2;
/// SLP_TYP of S5.
const SLEEP_S5: u64 = 5;
/// Value that resets the machine.
const RESET_VALUE: u8 = 0x42;

/// A virtio-mmio transport that has a device behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VirtioMmio {
    /// Index of the transport.
    pub index: u8,
    /// First address of its 512 bytes.
    pub base: u32,
    /// Global interrupt.
    pub irq: u32,
}

/// What the tables depend on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MicrovmConfig {
    /// Ids in the table headers.
    pub oem: Oem,
    /// All possible CPUs.
    pub cpus: Vec<CpuEntry>,
    /// Second I/O APIC (`ioapic2`).
    pub ioapic2: bool,
    /// ISA devices, oldest first.
    pub isa: Vec<IsaDevice>,
    /// Transports in use, in bus order (highest index first).
    pub virtio: Vec<VirtioMmio>,
    /// xHCI controller (`usb=on`).
    pub usb: bool,
}

/// Builds the tables; nothing is padded.
pub fn build(cfg: &MicrovmConfig) -> AcpiBlobs {
    const IOAPIC2_BASE: u32 = 0xfec1_0000;
    const IOAPIC_INPUTS: u32 = 24;
    let mut blob = TableBlob::new();
    let dsdt = blob.table(b"DSDT", 2, &cfg.oem, |blob| emit_dsdt(cfg, &mut blob.data));
    blob.list(|blob| fadt(&cfg.oem, dsdt, blob));
    let ioapics = [(tables::IOAPIC_BASE, 0), (IOAPIC2_BASE, IOAPIC_INPUTS)];
    let ioapics = &ioapics[..if cfg.ioapic2 { 2 } else { 1 }];
    blob.list(|blob| tables::madt(&cfg.oem, &cfg.cpus, ioapics, &[], blob));
    let xsdt = blob.xsdt(&cfg.oem);
    let rsdp = blob.rsdp2(&cfg.oem, xsdt);
    AcpiBlobs { tables: blob.data, rsdp, loader: blob.loader.bytes() }
}

/// The DSDT's term list.
fn emit_dsdt(cfg: &MicrovmConfig, out: &mut Vec<u8>) {
    let devices = |out: &mut Vec<u8>| {
        dsdt::fw_cfg_device(true, out);
        isa::emit_all(&cfg.isa, out);
        event_device(out);
        Device("PWRB", (Name("_HID", Str("PNP0C0C")), Name("_UID", 0u64))).emit(out);
        if cfg.usb {
            xhci(out);
        }
        cfg.virtio.iter().for_each(|transport| virtio(transport, out));
    };
    Scope("_SB", With(devices)).emit(out);
    Scope("\\", Name("_S5", Package(4, (SLEEP_S5, 0u64, 0u64, 0u64)))).emit(out);
}

/// The Generic Event Device: its interrupt says that the event register is not zero.
fn event_device(out: &mut Vec<u8>) {
    let pressed = LEqual(And(Local(0), EVENT_POWER_BUTTON, NoTarget), EVENT_POWER_BUTTON);
    let event = (Store(N("ESEL"), Local(0)), If(pressed, Notify(N("PWRB"), 0x80u64)));
    let body = (
        Name("_HID", Str("ACPI0013")),
        Name("_UID", Str("GED")),
        Name("_CRS", Resources(Interrupts(Interrupts::EDGE, &[GED_IRQ]))),
        OpRegion("EREG", Space::Memory, GED_EVENTS.into(), 4),
        Field("EREG", Acc::DWord, false, Update::Zeros, &[("ESEL", 32)]),
        Method("_EVT", 1, true, event),
    );
    Device("GED", body).emit(out);
}

/// The platform xHCI controller.
fn xhci(out: &mut Vec<u8>) {
    let resources = (Memory32Fixed(true, 0xfe90_0000, 0x4000), Interrupts(Interrupts::LEVEL, &[10]));
    Device("XHCI", (Name("_HID", EisaId("PNP0D10")), Name("_CRS", Resources(resources)))).emit(out);
}

/// One virtio-mmio transport.
fn virtio(transport: &VirtioMmio, out: &mut Vec<u8>) {
    const LEN: u32 = 0x200;
    let irq = [transport.irq];
    let resources = (Memory32Fixed(true, transport.base, LEN), Interrupts(Interrupts::LEVEL, &irq));
    let body = (
        Name("_HID", Str("LNRO0005")),
        Name("_UID", u64::from(transport.index)),
        Name("_CCA", 1u64),
        Name("_CRS", Resources(resources)),
    );
    Device(&format!("VR{:02}", transport.index), body).emit(out);
}

/// Appends the FADT (revision 5): no fixed hardware but the reset and sleep registers.
fn fadt(oem: &Oem, dsdt: usize, blob: &mut TableBlob) {
    const RESET_REG_SUPPORTED: u32 = 1 << 10;
    const HARDWARE_REDUCED: u32 = 1 << 20;
    /// Offsets in the table, from its header on.
    const DSDT: usize = 40;
    const FLAGS: usize = 112;
    const RESET_REG: usize = 116;
    const RESET_VALUE_AT: usize = 128;
    const X_DSDT: usize = 140;
    const SLEEP_CONTROL: usize = 244;
    const SLEEP_STATUS: usize = 256;
    const LEN: usize = 268;
    blob.table(b"FACP", 5, oem, |blob| {
        let start = blob.data.len() - 36;
        blob.data.resize(start + DSDT, 0);
        blob.pointer(dsdt);
        blob.data.resize(start + FLAGS, 0);
        blob.data.extend((RESET_REG_SUPPORTED | HARDWARE_REDUCED).to_le_bytes());
        blob.data.resize(start + RESET_REG, 0);
        register8(GED_REGS + 2, blob);
        blob.data.resize(start + RESET_VALUE_AT, 0);
        blob.data.push(RESET_VALUE);
        blob.data.resize(start + X_DSDT, 0);
        blob.pointer64(dsdt);
        blob.data.resize(start + SLEEP_CONTROL, 0);
        register8(GED_REGS, blob);
        blob.data.resize(start + SLEEP_STATUS, 0);
        register8(GED_REGS + 1, blob);
        blob.data.resize(start + LEN, 0);
    });
}

/// Generic address of an 8-bit register in memory.
fn register8(address: u64, blob: &mut TableBlob) {
    blob.data.extend([0, 8, 0, 0]);
    blob.data.extend(address.to_le_bytes());
}
