//! A guest driver for unit tests: sets up a device over its registers and sends requests, in a machine without CPUs.

use super::pci::VirtioPciDevice;
use crate::device::testing::machine;
use crate::device::{BusKind, DevId};
use crate::machine::Machine;
use crate::memory::Space;
use crate::qom::PropInput;

pub const RAM: u64 = 4 << 20;
const BAR0: u64 = 0xc000;
const BAR1: u64 = 0xfebf_0000;
const BAR4: u64 = 0xfe00_0000;
/// First address that tests may use for data.
pub const DATA: u64 = 0x10_0000;

/// A machine with 4 MiB of RAM and a PCI bus.
pub fn pci_machine() -> Machine {
    let mut m = machine();
    let ram = m.new_ram("ram", RAM, false, None).unwrap();
    let (mem, io) = (m.mem.system, m.mem.io);
    m.mem.map(mem, ram, 0, 0);
    let bus = m.tree.add_bus("pci.0".into(), BusKind::Pci, None);
    let line = m.irqs.add(crate::irq::IrqSink::None);
    m.pci.add(bus, mem, io, vec![line], |_, _| 0);
    m.settle();
    m
}

/// Adds a device of class `class` and maps its BARs.
pub fn plug(m: &mut Machine, class: &str, props: &[(&str, &str)]) -> crate::QResult<DevId> {
    let bus = m.tree.find_bus("pci.0").unwrap().id;
    let props: Vec<_> = props.iter().map(|(k, v)| (*k, PropInput::Str(v))).collect();
    let dev = m.add_board_device(class, Some(bus), &props)?;
    m.reset_device(dev);
    for (reg, v) in [(0x10, BAR0), (0x14, BAR1), (0x20, BAR4), (0x24, 0), (4, 7)] {
        m.pci_config_write(Some(dev), reg, 4, v as u32);
    }
    m.settle();
    Ok(dev)
}

/// A queue as the driver sees it.
pub struct DriverQueue {
    pub index: u16,
    pub size: u16,
    pub desc: u64,
    pub avail: u64,
    pub used: u64,
    next: u16,
    seen: u16,
    legacy: bool,
}

/// Driver of one device.
pub struct Driver {
    pub m: Machine,
    pub dev: DevId,
}

impl Driver {
    pub fn new(m: Machine, dev: DevId) -> Self {
        Self { m, dev }
    }

    pub fn w16(&mut self, a: u64, v: u16) {
        self.m.flat().mem.write(a, &v.to_le_bytes()).unwrap();
    }
    pub fn r16(&mut self, a: u64) -> u16 {
        let mut b = [0; 2];
        self.m.flat().mem.read(a, &mut b).unwrap();
        u16::from_le_bytes(b)
    }
    pub fn write(&mut self, a: u64, data: &[u8]) {
        self.m.flat().mem.write(a, data).unwrap();
    }
    pub fn bytes(&mut self, a: u64, n: usize) -> Vec<u8> {
        let mut b = vec![0; n];
        self.m.flat().mem.read(a, &mut b).unwrap();
        b
    }
    pub fn common_read(&mut self, at: u64, size: u8) -> u64 {
        self.m.guest_read(Space::Memory, BAR4 + at, size)
    }
    pub fn common_write(&mut self, at: u64, size: u8, v: u64) {
        self.m.guest_write(Space::Memory, BAR4 + at, size, v);
    }
    pub fn legacy_read(&mut self, at: u64, size: u8) -> u64 {
        self.m.guest_read(Space::Io, BAR0 + at, size)
    }
    pub fn legacy_write(&mut self, at: u64, size: u8, v: u64) {
        self.m.guest_write(Space::Io, BAR0 + at, size, v);
    }
    pub fn status(&mut self) -> u8 {
        self.common_read(0x14, 1) as u8
    }
    pub fn intx(&mut self) -> bool {
        self.m.irqs.level(crate::irq::IrqLine(0))
    }
    pub fn isr(&mut self) -> u8 {
        self.common_read(0x1000, 1) as u8
    }

    /// Negotiates features over the modern interface (all offered ones and-ed with `mask`), no queue yet.
    pub fn negotiate(&mut self, mask: u64) -> u64 {
        self.common_write(0x14, 1, 0);
        self.common_write(0x14, 1, 3);
        let mut f = 0;
        for i in 0..2 {
            self.common_write(0, 4, i);
            f |= self.common_read(4, 4) << (32 * i);
        }
        let f = f & (mask | 1 << 32);
        for i in 0..2 {
            self.common_write(8, 4, i);
            self.common_write(0xc, 4, f >> (32 * i) & 0xffff_ffff);
        }
        self.common_write(0x14, 1, 0xb);
        assert_eq!(self.status(), 0xb, "features accepted");
        f
    }

    pub fn modern_queue(&mut self, index: u16, at: u64) -> DriverQueue {
        self.common_write(0x16, 2, u64::from(index));
        let size = self.common_read(0x18, 2) as u16;
        let avail = at + 16 * u64::from(size);
        let used = (avail + 6 + 2 * u64::from(size) + 4095) & !4095;
        for (reg, v) in [(0x20, at), (0x28, avail), (0x30, used)] {
            self.common_write(reg, 4, v & 0xffff_ffff);
            self.common_write(reg + 4, 4, v >> 32);
        }
        self.common_write(0x1c, 2, 1);
        DriverQueue { index, size, desc: at, avail, used, next: 0, seen: 0, legacy: false }
    }

    pub fn legacy_queue(&mut self, index: u16, at: u64) -> DriverQueue {
        self.legacy_write(14, 2, u64::from(index));
        let size = self.legacy_read(12, 2) as u16;
        self.legacy_write(8, 4, at >> 12);
        let avail = at + 16 * u64::from(size);
        let used = (avail + 6 + 2 * u64::from(size) + 4095) & !4095;
        DriverQueue { index, size, desc: at, avail, used, next: 0, seen: 0, legacy: true }
    }

    pub fn driver_ok(&mut self) {
        self.common_write(0x14, 1, 0xf);
    }

    /// Writes descriptor `i`.
    pub fn desc(&mut self, q: &DriverQueue, i: u16, addr: u64, len: u32, flags: u16, next: u16) {
        let mut d = Vec::new();
        d.extend(addr.to_le_bytes());
        d.extend(len.to_le_bytes());
        d.extend(flags.to_le_bytes());
        d.extend(next.to_le_bytes());
        self.write(q.desc + 16 * u64::from(i), &d);
    }

    /// Makes a chain available that starts at `head`, without a kick.
    pub fn offer(&mut self, q: &mut DriverQueue, head: u16) {
        let at = q.avail + 4 + 2 * u64::from(q.next % q.size);
        self.w16(at, head);
        q.next = q.next.wrapping_add(1);
        self.w16(q.avail + 2, q.next);
    }

    pub fn kick(&mut self, q: &DriverQueue) {
        if q.legacy {
            self.legacy_write(16, 2, u64::from(q.index));
        } else {
            self.common_write(0x3000 + 4 * u64::from(q.index), 2, u64::from(q.index));
        }
    }

    /// Builds a chain from (address, length, writable) at descriptors from `first` on.
    pub fn chain(&mut self, q: &DriverQueue, first: u16, parts: &[(u64, u32, bool)]) {
        for (i, (addr, len, w)) in parts.iter().enumerate() {
            let i = i as u16;
            let last = usize::from(i) + 1 == parts.len();
            let flags = u16::from(!last) | u16::from(*w) << 1;
            self.desc(q, first + i, *addr, *len, flags, first + i + 1);
        }
    }

    /// The next finished request: (head, written).
    pub fn finished(&mut self, q: &mut DriverQueue) -> Option<(u32, u32)> {
        if self.r16(q.used + 2) == q.seen {
            return None;
        }
        let at = q.used + 4 + 8 * u64::from(q.seen % q.size);
        q.seen = q.seen.wrapping_add(1);
        let b = self.bytes(at, 8);
        let word = |i: usize| u32::from_le_bytes(b[i..i + 4].try_into().unwrap());
        Some((word(0), word(4)))
    }

    /// Waits for the next finished request, delivering what worker threads left meanwhile.
    pub fn wait(&mut self, q: &mut DriverQueue) -> (u32, u32) {
        let end = std::time::Instant::now() + std::time::Duration::from_secs(30);
        loop {
            if let Some(f) = self.finished(q) {
                self.attend();
                return f;
            }
            assert!(std::time::Instant::now() < end, "request never finished");
            self.attend();
            std::thread::yield_now();
        }
    }

    /// What the main loop does when the device wants its attention.
    pub fn attend(&mut self) {
        self.m.with::<VirtioPciDevice, _>(self.dev, |d, cx| super::core::attend(d, cx));
    }
}
