//! The chipset as a whole, as the `pc` board builds it.

mod oracle;

use super::acpi::cpuhp::CpuSlot;
use super::i440fx::{self, I440fxParts, PcMemory};
use super::piix3::{self, Piix3Parts};
use super::piix4_pm::{self, Piix4Pm};
use super::{dma, fw_cfg};
use crate::device::testing::machine;
use crate::device::DevId;
use crate::machine::Machine;
use crate::memory::{RegionKind, Space};

pub(super) struct Board {
    pub m: Machine,
    pub host: I440fxParts,
    pub piix3: Piix3Parts,
    pub pm: DevId,
}

/// RAM of 128 MiB, host bridge, ISA bridge, power management and fw_cfg.
pub(super) fn board() -> Board {
    let mut m = machine();
    let ram = m.new_ram("pc.ram", 128 << 20, false, None).unwrap();
    let alias = RegionKind::Alias { target: ram, offset: 0, readonly: false };
    let below = m.mem.add("ram-below-4g", 128 << 20, alias, None);
    let pci = m.mem.add("pci", 1 << 64, RegionKind::Container, None);
    let system = m.mem.system;
    m.mem.map(system, below, 0, 0);
    m.mem.map(system, pci, 0, -1);
    let mem = PcMemory { ram, pci, ram_size: 128 << 20, pci_hole64_size: None };
    let host = i440fx::create(&mut m, &mem).unwrap();
    let piix3 = piix3::create(&mut m, &host).unwrap();
    let fw = fw_cfg::create(&mut m, &[]).unwrap();
    // QEMU's -accel tcg has system management mode, hence the value.
    let pm = piix4_pm::create(&mut m, host.bus, Some(fw), true).unwrap();
    dma::create(&mut m, piix3.isa).unwrap();
    piix4_pm::machine_ready(&mut m, pm);
    m.reset_devices();
    Board { m, host, piix3, pm }
}

impl Board {
    /// `max` possible processors, the first `present` of them plugged.
    pub fn set_cpus(&mut self, present: u64, max: u64) {
        let slots = (0..max).map(|i| CpuSlot::new(i, i < present, None)).collect();
        self.m.with::<Piix4Pm, _>(self.pm, |d, _| d.cpu_hotplug().set_slots(slots)).unwrap();
    }
    pub fn outl(&mut self, port: u16, v: u32) {
        self.m.guest_write(Space::Io, u64::from(port), 4, u64::from(v));
    }
    pub fn inl(&mut self, port: u16) -> u32 {
        self.m.guest_read(Space::Io, u64::from(port), 4) as u32
    }
    pub fn cfg_read(&mut self, devfn: u8, at: u8, size: u8) -> u32 {
        self.outl(0xcf8, 0x8000_0000 | u32::from(devfn) << 8 | u32::from(at & 0xfc));
        self.m.guest_read(Space::Io, 0xcfc + u64::from(at & 3), size) as u32
    }
    pub fn cfg_write(&mut self, devfn: u8, at: u8, size: u8, v: u32) {
        self.outl(0xcf8, 0x8000_0000 | u32::from(devfn) << 8 | u32::from(at & 0xfc));
        self.m.guest_write(Space::Io, 0xcfc + u64::from(at & 3), size, u64::from(v));
    }
    /// A ROM of 64 KiB in PCI space that begins with `word`.
    fn pci_rom(&mut self, addr: u64, word: u32) {
        let rom = self.m.new_ram("rom", 0x10000, true, None).unwrap();
        self.m.ram_of(rom).unwrap().write(0, &word.to_le_bytes());
        let pci = self.m.mem.iter().find(|(_, r)| r.name == "pci").unwrap().0;
        self.m.mem.map(pci, rom, addr, 1);
        self.m.settle();
    }
    fn peek(&mut self, addr: u64) -> u64 {
        self.m.guest_read(Space::Memory, addr, 4)
    }
    fn poke(&mut self, addr: u64, v: u64) {
        self.m.guest_write(Space::Memory, addr, 4, v);
    }
}

#[test]
fn config_ports() {
    let mut b = board();
    b.outl(0xcf8, 0x8000_0850);
    assert_eq!(b.inl(0xcf8), 0x8000_0850);
    b.m.outb(0xcf8, 0x12);
    b.m.guest_write(Space::Io, 0xcf8, 2, 0x1234);
    assert_eq!(b.inl(0xcf8), 0x8000_0850);
    b.outl(0xcf8, 0x800);
    assert_eq!(b.inl(0xcfc), 0xffff_ffff);
    b.outl(0xcf8, 0x8001_0000);
    assert_eq!(b.inl(0xcfc), 0xffff_ffff, "no bus 1");
    b.outl(0xcf8, 0xff00_0000);
    assert_eq!(b.inl(0xcfc), 0x1237_8086, "bits 24-30 are not decoded");
    assert_eq!(b.cfg_read(8, 2, 2), 0x7000);
    assert_eq!(b.cfg_read(8, 0xe, 1), 0x80);
}

#[test]
fn pam_switches_between_pci_and_ram() {
    let mut b = board();
    b.pci_rom(0xf0000, 0x1234_5678);
    b.pci_rom(0xc0000, 0x1111_1111);
    assert_eq!(b.peek(0xf0000), 0x1234_5678);
    b.cfg_write(0, 0x59, 1, 0x33);
    assert_eq!(b.peek(0xf0000), 0);
    b.poke(0xf0000, 0x5555_5555);
    assert_eq!(b.peek(0xf0000), 0x5555_5555);
    b.cfg_write(0, 0x59, 1, 0x13);
    b.poke(0xf0000, 0x6666_6666);
    assert_eq!(b.peek(0xf0000), 0x5555_5555, "read-only");
    b.cfg_write(0, 0x59, 1, 0x23);
    assert_eq!(b.peek(0xf0000), 0x1234_5678, "write-only counts as off");
    // PAM1 high nibble: 0xc4000.
    b.cfg_write(0, 0x5a, 1, 0x30);
    b.poke(0xc4000, 1);
    b.poke(0xc0000, 2);
    assert_eq!((b.peek(0xc4000), b.peek(0xc0000)), (1, 0x1111_1111));
    b.m.reset_devices();
    assert_eq!(b.peek(0xc4000), 0);
}

#[test]
fn smram_opens() {
    let mut b = board();
    b.pci_rom(0xa0000, 0x2222_2222);
    assert_eq!(b.peek(0xa0000), 0x2222_2222);
    b.cfg_write(0, 0x72, 1, 0x4a);
    b.poke(0xa0000, 7);
    assert_eq!(b.peek(0xa0000), 7);
    assert!(b.m.mem.get(b.host.smram).unwrap().enabled);
    b.cfg_write(0, 0x72, 1, 0x02);
    assert_eq!(b.peek(0xa0000), 0x2222_2222);
    assert!(!b.m.mem.get(b.host.smram).unwrap().enabled);
}

#[test]
fn pirq_routing_ors_levels() {
    let mut b = board();
    let [a, _, c, _] = b.host.pirqs;
    b.m.set_irq(a, true);
    b.m.settle();
    assert!(!(0..16).any(|i| b.m.isa_level(i)), "not routed yet");
    b.cfg_write(8, 0x60, 4, 0x0b0a_0b0a);
    assert!(b.m.isa_level(10));
    b.m.set_irq(c, true);
    b.m.settle();
    b.m.set_irq(a, false);
    b.m.settle();
    assert!(b.m.isa_level(10), "PIRQC still holds it");
    b.cfg_write(8, 0x62, 1, 0x05);
    assert!(b.m.isa_level(5) && !b.m.isa_level(10));
    b.m.set_irq(c, false);
    b.m.settle();
    assert!(!b.m.isa_level(5));
    assert_eq!(
        (piix3::route(1, 0), piix3::route(3, 0), piix3::route(0, 0), piix3::route(3, 1)),
        (0, 2, 3, 3)
    );
}

#[test]
fn reset_control() {
    let mut b = board();
    b.m.outb(0xcf9, 0x0b);
    assert_eq!(b.m.inb(0xcf9), 2);
    assert!(b.m.run.requests.reset.is_none());
    b.m.outb(0xcf9, 0x06);
    assert_eq!(b.m.run.requests.reset, Some(crate::machine::Cause::GuestReset));
    assert!(b.m.tree.bus(b.piix3.isa).unwrap().name == "isa.0");
}
