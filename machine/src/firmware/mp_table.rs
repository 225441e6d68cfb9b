//! MP table (Intel MultiProcessor Specification 1.4) for guests without ACPI, in a boot without firmware.
//!
//! With firmware, SeaBIOS builds its own. The table lists the plugged CPUs, the ISA bus, one I/O APIC and the ISA
//! interrupts; PCI interrupts are left to what firmware-less guests can do (virtio-mmio, ISA).

/// One CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MpCpu {
    /// Local APIC id.
    pub apic_id: u8,
    /// First CPU.
    pub bootstrap: bool,
}

/// What the table describes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MpConfig {
    /// Plugged CPUs with APIC ids below 255.
    pub cpus: Vec<MpCpu>,
    /// CPUID leaf 1 EAX of the boot CPU.
    pub cpu_signature: u32,
    /// CPUID leaf 1 EDX of the boot CPU.
    pub cpu_features: u32,
    /// Interrupt 0 is on I/O APIC input 2.
    pub irq0_override: bool,
}

const LAPIC_BASE: u32 = 0xfee0_0000;
const IOAPIC_BASE: u32 = 0xfec0_0000;
const APIC_VERSION: u8 = 0x14;
const IOAPIC_VERSION: u8 = 0x11;
const BUS_ISA: u8 = 0;
const ALL_LAPICS: u8 = 0xff;

/// Interrupt types.
const INT: u8 = 0;
const NMI: u8 = 1;
const EXT_INT: u8 = 3;

/// Floating pointer structure followed by the configuration table, to be placed at `gpa` (16-byte aligned, in
/// the last KiB of low memory or the F segment). The I/O APIC's id is the first free one after the CPUs.
pub fn build(cfg: &MpConfig, gpa: u32) -> Vec<u8> {
    const FLOATING_LEN: usize = 16;
    let table = config_table(cfg);
    let mut out = Vec::with_capacity(FLOATING_LEN + table.len());
    out.extend_from_slice(b"_MP_");
    out.extend((gpa + FLOATING_LEN as u32).to_le_bytes());
    out.extend([1, 4, 0, 0, 0, 0, 0, 0]);
    out[10] = checksum(&out);
    out.extend(table);
    out
}

/// The configuration table.
fn config_table(cfg: &MpConfig) -> Vec<u8> {
    const HEADER_LEN: usize = 44;
    let ioapic_id = cfg.cpus.iter().map(|cpu| cpu.apic_id).max().map_or(0, |id| id.saturating_add(1));
    let mut entries = Vec::new();
    let mut count = 0u16;
    let mut add = |entry: &[u8]| {
        entries.extend_from_slice(entry);
        count += 1;
    };
    for cpu in &cfg.cpus {
        add(&processor(cfg, cpu));
    }
    add(b"\x01\0ISA   ");
    let mut ioapic = [2, ioapic_id, IOAPIC_VERSION, 1, 0, 0, 0, 0];
    ioapic[4..].copy_from_slice(&IOAPIC_BASE.to_le_bytes());
    add(&ioapic);
    for irq in 0..16u8 {
        match irq {
            0 if cfg.irq0_override => add(&[3, INT, 0, 0, BUS_ISA, 0, ioapic_id, 2]),
            // The cascade takes no interrupts, and its input is the timer's.
            2 => {}
            _ => add(&[3, INT, 0, 0, BUS_ISA, irq, ioapic_id, irq]),
        }
    }
    add(&[4, EXT_INT, 0, 0, BUS_ISA, 0, 0, 0]);
    add(&[4, NMI, 0, 0, BUS_ISA, 0, ALL_LAPICS, 1]);

    let mut table = b"PCMP\0\0\x04\0BOCHSCPU0.1         ".to_vec();
    table[4..6].copy_from_slice(&((HEADER_LEN + entries.len()) as u16).to_le_bytes());
    table.extend([0; 6]);
    table.extend(count.to_le_bytes());
    table.extend(LAPIC_BASE.to_le_bytes());
    table.extend([0; 4]);
    debug_assert_eq!(table.len(), HEADER_LEN);
    table.extend(entries);
    table[7] = checksum(&table);
    table
}

/// Processor entry.
fn processor(cfg: &MpConfig, cpu: &MpCpu) -> [u8; 20] {
    const ENABLED: u8 = 1;
    const BOOTSTRAP: u8 = 2;
    let mut entry = [0; 20];
    entry[1] = cpu.apic_id;
    entry[2] = APIC_VERSION;
    entry[3] = ENABLED | if cpu.bootstrap { BOOTSTRAP } else { 0 };
    entry[4..8].copy_from_slice(&cfg.cpu_signature.to_le_bytes());
    entry[8..12].copy_from_slice(&cfg.cpu_features.to_le_bytes());
    entry
}

/// The byte that makes `bytes` add up to zero.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0u8, |sum, b| sum.wrapping_sub(*b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_match_the_header() {
        let cpus = vec![MpCpu { apic_id: 0, bootstrap: true }, MpCpu { apic_id: 1, bootstrap: false }];
        let cfg = MpConfig { cpus, cpu_signature: 0x60fb1, cpu_features: 0x78b_fbfd, irq0_override: true };
        let out = build(&cfg, 0xf_1000);
        assert_eq!(checksum(&out[..16]), 0);
        assert_eq!(out[4..8], 0xf_1010u32.to_le_bytes());
        let table = &out[16..];
        assert_eq!(checksum(table), 0);
        assert_eq!(usize::from(u16::from_le_bytes([table[4], table[5]])), table.len());
        let mut at = 44;
        let mut kinds = Vec::new();
        while at < table.len() {
            kinds.push(table[at]);
            at += if table[at] == 0 { 20 } else { 8 };
        }
        assert_eq!(at, table.len());
        assert_eq!(usize::from(u16::from_le_bytes([table[34], table[35]])), kinds.len());
        let number = |kind| kinds.iter().filter(|k| **k == kind).count();
        assert_eq!((number(0), number(1), number(2), number(3), number(4)), (2, 1, 1, 15, 2));
        assert!(kinds.is_sorted());
    }
}
