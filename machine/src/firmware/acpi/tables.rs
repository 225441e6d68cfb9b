//! The static tables: FACS, FADT, MADT, HPET, SRAT, SLIT, WAET, and the vmgenid SSDT.
//!
//! Field layouts are those of ACPI 6.4, chapter 5; revisions and values are those that QEMU 7.2 gives to
//! machine `pc`.

use super::aml::*;
use super::blob::TableBlob;
use super::config::{AcpiConfig, CpuEntry, NodeMemory, Numa, Oem, RamLayout};
use super::cpu::madt_entry;
use super::dsdt::{GPE_BASE, HPET_BASE};

/// Low half of the HPET's capability register: Intel, three 64-bit timers, legacy replacement.
pub const HPET_BLOCK_ID: u32 = 0x8086_a201;
/// Local APIC of every CPU.
pub const LAPIC_BASE: u32 = 0xfee0_0000;
/// I/O APIC 0.
pub const IOAPIC_BASE: u32 = 0xfec0_0000;

/// Appends the FACS: 64 bytes, no standard header.
pub fn facs(blob: &mut TableBlob) {
    blob.data.extend_from_slice(b"FACS");
    blob.data.extend_from_slice(&64u32.to_le_bytes());
    blob.data.extend_from_slice(&[0; 56]);
}

/// Appends the FADT (revision 1) that points to the FACS and the DSDT.
pub fn fadt(cfg: &AcpiConfig, oem: &Oem, facs: usize, dsdt: usize, blob: &mut TableBlob) {
    const ACPI_ENABLE: u8 = 0xf1;
    const ACPI_DISABLE: u8 = 0xf0;
    const CMOS_CENTURY: u8 = 0x32;
    // WBINVD, PROC_C1, SLP_BUTTON (no control method), RTC_S4, USE_PLATFORM_CLOCK.
    const FLAGS: u32 = 1 << 0 | 1 << 2 | 1 << 5 | 1 << 7 | 1 << 15;
    // Clustered logical mode is needed from nine CPUs on.
    const FORCE_APIC_CLUSTER: u32 = 1 << 18;
    blob.table(b"FACP", 1, oem, |blob| {
        blob.pointer(facs);
        blob.pointer(dsdt);
        let out = &mut blob.data;
        out.extend([1, 0]);
        out.extend(cfg.sci_irq.to_le_bytes());
        let (port, enable, disable) = if cfg.smm { (0xb2u32, ACPI_ENABLE, ACPI_DISABLE) } else { (0, 0, 0) };
        out.extend(port.to_le_bytes());
        out.extend([enable, disable, 0, 0]);
        let pm = u32::from(cfg.pm_base);
        for block in [pm, 0, pm + 4, 0, 0, pm + 8, GPE_BASE.into(), 0] {
            out.extend(block.to_le_bytes());
        }
        // Lengths: PM1 event, PM1 control, PM2, timer, GPE0, GPE1; GPE1 base; _CST.
        out.extend([4, 2, 0, 4, 4, 0, 0, 0]);
        // Latencies that say "no C2, no C3"; flush size and stride.
        for word in [0xfffu16, 0xfff, 0, 0] {
            out.extend(word.to_le_bytes());
        }
        out.extend([0, 0, 0, 0, CMOS_CENTURY, 0, 0, 0]);
        let cluster = if cfg.cpus.len() > 8 { FORCE_APIC_CLUSTER } else { 0 };
        out.extend((FLAGS | cluster).to_le_bytes());
    });
}

/// Interrupt source override in the MADT: ISA line, global interrupt, MPS flags.
pub type IrqOverride = (u8, u32, u16);

/// Overrides of machine `pc`: the PIT is on input 2; the lines that PCI links can take are level triggered,
/// active high.
pub const PC_OVERRIDES: [IrqOverride; 5] =
    [(0, 2, 0), (5, 5, 0xd), (9, 9, 0xd), (10, 10, 0xd), (11, 11, 0xd)];

/// Appends the MADT. Each I/O APIC is an address and its first global interrupt.
pub fn madt(
    oem: &Oem,
    cpus: &[CpuEntry],
    ioapics: &[(u32, u32)],
    overrides: &[IrqOverride],
    blob: &mut TableBlob,
) {
    const PCAT_COMPAT: u32 = 1;
    blob.table(b"APIC", 1, oem, |blob| {
        let out = &mut blob.data;
        out.extend(LAPIC_BASE.to_le_bytes());
        out.extend(PCAT_COMPAT.to_le_bytes());
        for (index, cpu) in cpus.iter().enumerate() {
            out.extend(madt_entry(index, cpu.apic_id, cpu.present));
        }
        for (id, (base, gsi)) in ioapics.iter().enumerate() {
            out.extend([1, 12, id as u8, 0]);
            out.extend(base.to_le_bytes());
            out.extend(gsi.to_le_bytes());
        }
        for (irq, gsi, flags) in overrides {
            out.extend([2, 10, 0, *irq]);
            out.extend(gsi.to_le_bytes());
            out.extend(flags.to_le_bytes());
        }
        // NMI on LINT1 of every CPU.
        if cpus.iter().any(|cpu| cpu.apic_id >= 255) {
            out.extend([10, 12, 0, 0]);
            out.extend(u32::MAX.to_le_bytes());
            out.extend([1, 0, 0, 0]);
        } else {
            out.extend([4, 6, 0xff, 0, 0, 1]);
        }
    });
}

/// Appends the HPET table.
pub fn hpet(cfg: &AcpiConfig, blob: &mut TableBlob) {
    blob.table(b"HPET", 1, &cfg.oem, |blob| {
        let out = &mut blob.data;
        out.extend(HPET_BLOCK_ID.to_le_bytes());
        // Generic address: system memory, widths left open.
        out.extend([0, 0, 0, 0]);
        out.extend(u64::from(HPET_BASE).to_le_bytes());
        out.extend([0; 4]);
    });
}

/// Appends the WAET: reading the PM timer once is enough.
pub fn waet(cfg: &AcpiConfig, blob: &mut TableBlob) {
    blob.table(b"WAET", 1, &cfg.oem, |blob| blob.data.extend(2u32.to_le_bytes()));
}

/// Appends the SRAT.
pub fn srat(cfg: &AcpiConfig, numa: &Numa, blob: &mut TableBlob) {
    const ENABLED: u32 = 1;
    const HOTPLUGGABLE: u32 = 2;
    blob.table(b"SRAT", 1, &cfg.oem, |blob| {
        let out = &mut blob.data;
        out.extend(1u32.to_le_bytes());
        out.extend([0; 8]);
        for cpu in &cfg.cpus {
            let node = cpu.node.unwrap_or(0);
            if cpu.apic_id < 255 {
                out.extend([0, 16, node as u8, cpu.apic_id as u8]);
                out.extend(ENABLED.to_le_bytes());
                out.extend([0; 8]);
            } else {
                out.extend([2, 24, 0, 0]);
                out.extend(node.to_le_bytes());
                out.extend(cpu.apic_id.to_le_bytes());
                out.extend(ENABLED.to_le_bytes());
                out.extend([0; 8]);
            }
        }
        let ranges = node_ranges(&cfg.ram, &numa.node_memory);
        for range in &ranges {
            memory_affinity(out, range, ENABLED);
        }
        // The number of entries does not depend on where the nodes meet the holes.
        for _ in ranges.len()..numa.node_memory.len() + 2 {
            memory_affinity(out, &NodeMemory { base: 0, len: 0, node: 0 }, 0);
        }
        if let Some(hotplug) = &cfg.memory_hotplug {
            let node = numa.node_memory.len().saturating_sub(1) as u32;
            let range = NodeMemory { base: hotplug.base, len: hotplug.len, node };
            memory_affinity(out, &range, ENABLED | HOTPLUGGABLE);
        }
    });
}

/// One memory affinity structure.
fn memory_affinity(out: &mut Vec<u8>, range: &NodeMemory, flags: u32) {
    out.extend([1, 40]);
    out.extend(range.node.to_le_bytes());
    out.extend([0; 2]);
    out.extend(range.base.to_le_bytes());
    out.extend(range.len.to_le_bytes());
    out.extend([0; 4]);
    out.extend(flags.to_le_bytes());
    out.extend([0; 8]);
}

/// Guest physical ranges of the nodes: the nodes share RAM in order, minus the legacy hole (640 KiB to 1 MiB)
/// and the PCI hole below 4 GiB.
pub fn node_ranges(ram: &RamLayout, sizes: &[u64]) -> Vec<NodeMemory> {
    const LEGACY: (u64, u64) = (0xa_0000, 0x10_0000);
    // (first RAM offset, end, what to add to get the address)
    let parts = [
        (0, LEGACY.0.min(ram.below_4g), 0),
        (LEGACY.1, ram.below_4g, 0),
        (ram.below_4g, ram.below_4g + ram.above_4g, ram.above_4g_start.wrapping_sub(ram.below_4g)),
    ];
    let mut ranges = Vec::new();
    let mut start = 0;
    for (node, size) in sizes.iter().enumerate() {
        let end = start + size;
        for (first, last, shift) in parts {
            let (lo, hi) = (start.max(first), end.min(last));
            if lo < hi {
                ranges.push(NodeMemory { base: lo.wrapping_add(shift), len: hi - lo, node: node as u32 });
            }
        }
        start = end;
    }
    ranges
}

/// Appends the SLIT: a row-major matrix of distances.
pub fn slit(cfg: &AcpiConfig, nodes: usize, distances: &[u8], blob: &mut TableBlob) {
    blob.table(b"SLIT", 1, &cfg.oem, |blob| {
        blob.data.extend((nodes as u64).to_le_bytes());
        blob.data.extend_from_slice(distances);
    });
}

/// fw_cfg file with the generation id.
pub const VMGENID_GUID_FILE: &str = "etc/vmgenid_guid";
/// fw_cfg file into which firmware writes the id's address.
pub const VMGENID_ADDR_FILE: &str = "etc/vmgenid_addr";
/// Offset of the id in its file.
pub const VMGENID_OFFSET: u32 = 40;

/// Appends the SSDT of the vmgenid device.
pub fn vmgenid(cfg: &AcpiConfig, blob: &mut TableBlob) {
    let status =
        (Store(0x0fu64, Local(0)), If(LEqual(N("VGIA"), 0u64), Store(0u64, Local(0))), Return(Local(0)));
    let address = (
        Store(Package(2, ()), Local(0)),
        Store(Add(N("VGIA"), u64::from(VMGENID_OFFSET), NoTarget), Index(Local(0), 0u64)),
        Store(0u64, Index(Local(0), 1u64)),
        Return(Local(0)),
    );
    let device = (
        Name("_HID", Str("QEMUVGID")),
        Name("_CID", Str("VM_Gen_Counter")),
        Name("_DDN", Str("VM_Gen_Counter")),
        Method("_STA", 0, false, status),
        Method("ADDR", 0, false, address),
    );
    let oem = Oem { id: cfg.oem.id, table_id: *b"VMGENID\0" };
    blob.table(b"SSDT", 1, &oem, |blob| {
        Name("VGIA", DWordConst(0)).emit(&mut blob.data);
        let patched = blob.data.len() - 4;
        Scope("\\_SB", Device("VGEN", device)).emit(&mut blob.data);
        Method("\\_GPE._E05", 0, false, Notify(N("\\_SB.VGEN"), 0x80u64)).emit(&mut blob.data);
        blob.link_vmgenid(patched);
    });
}
