//! The DSDT of machine `pc`: assembles the parts in QEMU's order.
//!
//! The object names, ports and semantics are the interface that guests, and QEMU's own device models, agree
//! on; the byte stream equals QEMU 7.2's for the same machine, which `tests/firmware_oracle.rs` checks.

use super::aml::*;
use super::config::AcpiConfig;
use super::resource::*;
use super::{cpu, memhp, pci};

/// First port of the GPE block.
pub const GPE_BASE: u16 = 0xafe0;
/// First port of the PCI hotplug block.
pub const PCIHP_BASE: u16 = 0xae00;
/// First port of the CPU hotplug block.
pub const CPUHP_BASE: u16 = 0xaf00;
/// First port of fw_cfg.
const FW_CFG_BASE: u16 = 0x510;
/// Physical address of the HPET.
pub const HPET_BASE: u32 = 0xfed0_0000;

/// Appends the DSDT's term list (without the table header).
pub fn emit(cfg: &AcpiConfig, out: &mut Vec<u8>) {
    debug_port(out);
    Scope(
        "_SB",
        Device(
            "PCI0",
            (Name("_HID", EisaId("PNP0A03")), Name("_ADR", 0u64), Name("_UID", u64::from(cfg.pci_root_uid))),
        ),
    )
    .emit(out);
    if cfg.pcihp() {
        pci::hotplug_methods(out);
    }
    pci::interrupt_routing(out);
    if cfg.hpet {
        hpet(out);
    }
    Scope("_GPE", Name("_HID", Str("ACPI0006"))).emit(out);
    cpu::emit(&cfg.cpus, out);
    if let Some(memory) = &cfg.memory_hotplug {
        memhp::emit(memory.slots, out);
    }
    root_resources(cfg, out);
    sleep_states(cfg, out);
    fw_cfg(cfg, out);
    Scope("\\_SB", Scope("PCI0", With(|out: &mut Vec<u8>| pci::root_bus(cfg, out)))).emit(out);
    if cfg.pcihp() {
        pci::hotplug_event(out);
    }
}

/// `\DBUG (x)`: prints a number in hex on the debug console (port 0x402).
fn debug_port(out: &mut Vec<u8>) {
    let print = (
        ToHexString(Arg(0), Local(0)),
        ToBuffer(Local(0), Local(0)),
        Subtract(SizeOf(Local(0)), 1u64, Local(1)),
        Store(0u64, Local(2)),
        While(
            LLess(Local(2), Local(1)),
            (Store(DerefOf(Index(Local(0), Local(2))), N("DBGB")), Increment(Local(2))),
        ),
        Store(0x0au64, N("DBGB")),
    );
    Scope(
        "\\",
        (
            OpRegion("DBG", Space::Io, 0x402, 1),
            Field("DBG", Acc::Byte, false, Update::Preserve, &[("DBGB", 8)]),
            Method("DBUG", 1, false, print),
        ),
    )
    .emit(out);
}

/// The HPET, present if its registers look like one (a machine without it reads as all ones).
fn hpet(out: &mut Vec<u8>) {
    let status = (
        Store(N("VEND"), Local(0)),
        Store(N("PRD"), Local(1)),
        ShiftRight(Local(0), 16u64, Local(0)),
        If(LOr(LEqual(Local(0), 0u64), LEqual(Local(0), 0xffffu64)), Return(0u64)),
        If(LOr(LEqual(Local(1), 0u64), LGreater(Local(1), 100_000_000u64)), Return(0u64)),
        Return(0x0fu64),
    );
    let device = (
        Name("_HID", EisaId("PNP0103")),
        Name("_UID", 0u64),
        OpRegion("HPTM", Space::Memory, HPET_BASE.into(), 0x400),
        Field("HPTM", Acc::DWord, true, Update::Preserve, &[("VEND", 32), ("PRD", 32)]),
        Method("_STA", 0, false, status),
        Name("_CRS", Resources(Memory32Fixed(false, HPET_BASE, 0x400))),
    );
    Scope("_SB", Device("HPET", device)).emit(out);
}

/// Windows of the root bus, and the port ranges that belong to the board.
fn root_resources(cfg: &AcpiConfig, out: &mut Vec<u8>) {
    let (lo, hi) = cfg.pci_hole32;
    let windows = (
        WordWindow(Window::Bus, 0, 0xff),
        Io(0xcf8, 1, 8),
        WordWindow(Window::Io, 0, 0xcf7),
        WordWindow(Window::Io, 0xd00, 0xffff),
        DWordWindow(Window::MemoryCacheable, 0xa_0000, 0xb_ffff),
        (lo <= hi).then_some(DWordWindow(Window::MemoryUncached, lo, hi)),
        cfg.pci_hole64.map(|(first, last)| QWordWindow(Window::MemoryCacheable, first, last)),
    );
    let ports = |name, uid, first, count| {
        Device(
            name,
            (
                Name("_HID", Str("PNP0A06")),
                Name("_UID", Str(uid)),
                Name("_STA", 0x0bu64),
                Name("_CRS", Resources(Io(first, 1, count))),
            ),
        )
    };
    Scope(
        "\\_SB.PCI0",
        (
            Name("_CRS", Resources(windows)),
            ports("GPE0", "GPE0 resources", GPE_BASE, 4),
            cfg.pcihp().then(|| ports("PHPR", "PCI Hotplug resources", PCIHP_BASE, 0x18)),
        ),
    )
    .emit(out);
}

/// `_S3`, `_S4`, `_S5` as far as the power management function offers them.
fn sleep_states(cfg: &AcpiConfig, out: &mut Vec<u8>) {
    let state = |typ: u64| Package(4, (typ, typ, 0u64, 0u64));
    Scope(
        "\\",
        (
            (!cfg.disable_s3).then(|| Name("_S3", state(1))),
            (!cfg.disable_s4).then(|| Name("_S4", state(cfg.s4_val.into()))),
            Name("_S5", state(0)),
        ),
    )
    .emit(out);
}

/// The fw_cfg device, so that guest drivers find its ports.
fn fw_cfg(cfg: &AcpiConfig, out: &mut Vec<u8>) {
    let device = |out: &mut Vec<u8>| fw_cfg_device(cfg.fw_cfg_dma, out);
    Scope("\\_SB.PCI0", With(device)).emit(out);
}

/// fw_cfg with or without its DMA register.
pub fn fw_cfg_device(dma: bool, out: &mut Vec<u8>) {
    let ports = if dma { 12 } else { 2 };
    let body = (
        Name("_HID", Str("QEMU0002")),
        Name("_STA", 0x0bu64),
        Name("_CRS", Resources(Io(FW_CFG_BASE, 1, ports))),
    );
    Device("FWCF", body).emit(out);
}
