//! What a PC's firmware leaves for the system that it boots, besides PCI and tables: interrupt controllers, timer, keyboard
//! controller, power management, BIOS data area, memory types. Compared with what SeaBIOS leaves by the test guest's
//! probe (`what=left`).

use super::memory;
use crate::cpu::{pc_chips, Handover};
use crate::devices::legacy::i8042::I8042;
use crate::machine::Machine;
use crate::memory::Space;
use crate::QResult;

/// Start of the extended BIOS data area; it ends at 640 KiB.
const EBDA: u64 = 0x9_fc00;
/// Local APIC registers.
mod apic {
    pub const SPURIOUS: u32 = 0xf0;
    pub const LINT0: u32 = 0x350;
    pub const LINT1: u32 = 0x360;
}
/// Interrupts of the 8259 reach the processor, NMIs too.
const PC_APIC: &[(u32, u32)] = &[(apic::SPURIOUS, 0x1ff), (apic::LINT0, 0x8700), (apic::LINT1, 0x8400)];
/// Nothing sets up the 8259 of a microvm: it must not reach the processor.
const MICROVM_APIC: &[(u32, u32)] = &[(apic::LINT0, 0x1_0000)];

/// State of the processors.
pub fn processors(m: &Machine, below_4g: u64, pc: bool) -> Handover {
    if !pc {
        return Handover { lapic: MICROVM_APIC, ..Handover::default() };
    }
    // The range for PCI memory starts at the first of these that RAM leaves free.
    let hole = [0x8000_0000u64, 0xc000_0000].into_iter().find(|h| below_4g <= *h).unwrap_or(0xe000_0000);
    Handover { mtrr: Some((hole, u32::from(m.info.cpu.phys_bits))), lapic: PC_APIC, pc_chips: true }
}

/// Programs the controllers that user space runs (the others' state is in [`Handover`]).
pub fn chips(m: &mut Machine) {
    let mut out = |port: u64, v: u8| m.bus_write(Space::Io, port, &[v]);
    for (i, (base, mask, level)) in (0u64..).zip(pc_chips::PIC) {
        let (command, data) = (0x20 + 0x80 * i, 0x21 + 0x80 * i);
        // Initialization words: edges, vectors, where the second controller is wired, 8086 mode.
        out(command, 0x11);
        out(data, base);
        out(data, if i == 0 { 4 } else { 2 });
        out(data, 1);
        out(data, mask);
        out(0x4d0 + i, level);
    }
    // First counter: both bytes, rate generator, longest period.
    out(0x43, 0x30 | pc_chips::PIT_MODE << 1);
    out(0x40, 0);
    out(0x40, 0);
    // A20 on.
    out(0x92, 2);
    let keyboard = m.tree.by_class("i8042").map(|n| n.id);
    if let Some(id) = keyboard {
        m.with::<I8042, _>(id, |k, cx| k.firmware_mode(cx));
    }
    // Power management: events raise the ACPI interrupt.
    m.bus_write(Space::Io, 0x604, &1u16.to_le_bytes());
}

fn present(m: &mut Machine, port: u64) -> bool {
    let mut b = [0xff];
    m.bus_read(Space::Io, port, &mut b);
    b[0] != 0xff
}

/// Fills the BIOS data area in: ports, installed hardware, memory size, video mode, keyboard buffer.
pub fn bios_data(m: &mut Machine) -> QResult<()> {
    const COM: [u16; 4] = [0x3f8, 0x2f8, 0x3e8, 0x2e8];
    const LPT: [u16; 3] = [0x378, 0x278, 0x3bc];
    let mut area = [0u8; 0x100];
    let mut put = |at: usize, bytes: &[u8]| area[at..at + bytes.len()].copy_from_slice(bytes);
    let com: Vec<u16> = COM.into_iter().filter(|p| present(m, u64::from(*p) + 5)).collect();
    let lpt: Vec<u16> = LPT.into_iter().filter(|p| present(m, u64::from(*p) + 2)).collect();
    for (i, p) in com.iter().enumerate() {
        put(2 * i, &p.to_le_bytes());
        put(0x7c + i, &[10]);
    }
    for (i, p) in lpt.iter().enumerate() {
        put(8 + 2 * i, &p.to_le_bytes());
        put(0x78 + i, &[20]);
    }
    put(0x0e, &((EBDA >> 4) as u16).to_le_bytes());
    let vga = m.tree.by_class("VGA").is_some();
    put(0x10, &equipment(m, com.len() as u16, lpt.len() as u16, vga).to_le_bytes());
    put(0x13, &((EBDA >> 10) as u16).to_le_bytes());
    // Keyboard buffer: head, tail, start, end; an enhanced keyboard.
    put(0x1a, &[0x1e, 0, 0x1e, 0]);
    put(0x80, &[0x1e, 0, 0x3e, 0]);
    put(0x96, &[0x10]);
    put(0x76, &[0xc0]);
    if vga {
        // Mode 3, 80 columns, 4 KiB a page; cursor lines 6 and 7; CRTC at 0x3d4; 25 rows of 16 lines.
        put(0x49, &[3, 80, 0, 0, 0x10]);
        put(0x60, &[7, 6]);
        put(0x63, &[0xd4, 3]);
        put(0x84, &[24, 16, 0, 0x60, 0xf9, 0x51, 8]);
    }
    memory::write(m, 0x400, &area)?;
    memory::write(m, EBDA, &[1])
}

/// The word at 0x410: diskette drives, coprocessor, mouse, video mode, ports.
fn equipment(m: &mut Machine, com: u16, lpt: u16, vga: bool) -> u16 {
    const DRIVES_IN_CMOS: u8 = 0x10;
    m.bus_write(Space::Io, 0x70, &[DRIVES_IN_CMOS]);
    let mut types = [0];
    m.bus_read(Space::Io, 0x71, &mut types);
    let drives = u16::from(types[0] & 0xf0 != 0) + u16::from(types[0] & 0x0f != 0);
    let diskettes = if drives == 0 { 0 } else { 1 | (drives - 1) << 6 };
    // 0x06: coprocessor and mouse.
    diskettes | 0x06 | u16::from(vga) << 5 | com << 9 | lpt << 14
}

/// Write-protects the area of the firmware and of option ROMs, as it is once nothing more is put there.
pub fn protect_roms(m: &mut Machine) {
    let host = m.tree.by_class("i440FX").map(|n| n.id);
    for (r, v) in [(0x59, 0x10), (0x5a, 0x11), (0x5b, 0x11), (0x5c, 0x11), (0x5d, 0x11), (0x5e, 0x11)] {
        m.pci_config_write(host, r, 1, v);
    }
    m.settle();
}
