//! What firmware does to the chipset and to PCI devices before it boots anything.

use crate::device::DevId;
use crate::machine::Machine;
use crate::pci::{reg, BarKind};

/// Top of the range for 32-bit memory BARs (the I/O APIC lies above).
const MEM_END: u64 = 0xfec0_0000;
/// First port for I/O BARs.
const IO_START: u64 = 0xc000;
/// ISA interrupts of PIRQA-D.
const PIRQ: [u8; 4] = [10, 10, 11, 11];
/// Interrupt of ACPI events.
const SCI: u32 = 9;

/// Opens the ROM area as RAM, routes PCI interrupts, switches power management on.
pub fn program_chipset(m: &mut Machine) {
    let host = m.tree.by_class("i440FX").map(|n| n.id);
    for r in 0x59..=0x5f {
        m.pci_config_write(host, r, 1, 0x33);
    }
    let bridge = m.tree.by_class("PIIX3").map(|n| n.id);
    for (i, irq) in PIRQ.iter().enumerate() {
        m.pci_config_write(bridge, 0x60 + i as u16, 1, u32::from(*irq));
    }
    let ide = m.tree.by_class("piix3-ide").map(|n| n.id);
    m.pci_config_write(ide, 0x40, 2, 0x8000);
    m.pci_config_write(ide, 0x42, 2, 0x8000);
    let pm = m.tree.by_class("PIIX4_PM").map(|n| n.id);
    m.pci_config_write(pm, 0x40, 4, 0x601);
    m.pci_config_write(pm, 0x80, 1, 1);
    m.pci_config_write(pm, 0x90, 4, 0x701);
    m.pci_config_write(pm, 0xd2, 1, 9);
}

struct Bar {
    dev: DevId,
    index: usize,
    size: u64,
    wide: bool,
}

/// Gives every BAR of the root bus an address and every function its interrupt line.
///
/// Like the firmware, each kind (ports, memory, prefetchable memory) is laid out by falling size; memory fills the
/// range below [`MEM_END`] from the top, the kind with the smaller alignment last.
pub fn assign(m: &mut Machine, below_4g: u64) {
    let Some(root) = m.pci.iter().find(|b| b.bridge.is_none()).map(|b| b.bus) else { return };
    let devs: Vec<(u8, DevId)> = m.pci.get(root).map_or_else(Vec::new, |b| {
        b.functions.iter().enumerate().filter_map(|(i, d)| d.map(|d| (i as u8, d))).collect()
    });
    let (mut io, mut mem, mut pref) = (Vec::new(), Vec::new(), Vec::new());
    for (_, dev) in &devs {
        for (index, kind, size) in bars(m, *dev) {
            let list = match kind {
                BarKind::Io => &mut io,
                BarKind::Mem32Prefetch | BarKind::Mem64Prefetch => &mut pref,
                _ => &mut mem,
            };
            list.push(Bar { dev: *dev, index, size, wide: kind.is_64() });
        }
    }
    place(m, &mut io, IO_START);
    let align = |l: &[Bar]| l.iter().map(|b| b.size).max().unwrap_or(1);
    let sum = |l: &[Bar]| l.iter().map(|b| b.size).sum::<u64>();
    let (mut upper, mut lower) = (pref, mem);
    if align(&lower) < align(&upper) {
        std::mem::swap(&mut upper, &mut lower);
    }
    let upper_at = (MEM_END - sum(&upper)) & !(align(&upper) - 1);
    let lower_at = upper_at.saturating_sub(sum(&lower)) & !(align(&lower) - 1);
    if lower_at >= below_4g {
        place(m, &mut upper, upper_at);
        place(m, &mut lower, lower_at);
    }
    for (devfn, dev) in devs {
        enable(m, devfn, dev);
    }
    // The power management function has the interrupt of ACPI events, not that of its pin.
    let pm = m.tree.by_class("PIIX4_PM").map(|n| n.id);
    m.pci_config_write(pm, reg::INTERRUPT_LINE as u16, 1, SCI);
}

fn bars(m: &mut Machine, dev: DevId) -> Vec<(usize, BarKind, u64)> {
    m.with_dev(dev, |d, _| {
        let s = d.pci().map(|p| p.state());
        s.map_or_else(Vec::new, |s| {
            s.bars().iter().enumerate().filter_map(|(i, b)| b.as_ref().map(|b| (i, b.kind, b.size))).collect()
        })
    })
    .unwrap_or_default()
}

fn place(m: &mut Machine, list: &mut [Bar], start: u64) {
    list.sort_by_key(|b| std::cmp::Reverse(b.size));
    let mut at = start;
    for b in list.iter() {
        at = at.next_multiple_of(b.size);
        let r = if b.index == 6 { reg::ROM } else { reg::BAR0 + 4 * b.index } as u16;
        m.pci_config_write(Some(b.dev), r, 4, at as u32);
        if b.wide {
            m.pci_config_write(Some(b.dev), r + 4, 4, (at >> 32) as u32);
        }
        at += b.size;
    }
}

fn enable(m: &mut Machine, devfn: u8, dev: DevId) {
    let pin = m.pci_config_read(Some(dev), reg::INTERRUPT_PIN as u16, 1) as u8;
    if pin != 0 {
        let pirq = (u32::from(pin) - 1 + u32::from(devfn >> 3) + 3) & 3;
        m.pci_config_write(Some(dev), reg::INTERRUPT_LINE as u16, 1, u32::from(PIRQ[pirq as usize]));
    }
    let command = u32::from(reg::CMD_IO | reg::CMD_MEMORY | reg::CMD_SERR);
    let old = m.pci_config_read(Some(dev), reg::COMMAND as u16, 2);
    m.pci_config_write(Some(dev), reg::COMMAND as u16, 2, old | command);
}
