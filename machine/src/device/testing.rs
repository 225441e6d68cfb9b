//! A small machine for unit tests of devices: port and memory access as a guest would do, a manual clock, and
//! inspection of interrupt lines.

use super::{DevId, Place};
use crate::machine::Machine;
use crate::memory::Space;
use crate::qom::{Classed, PropInput};

/// Real QEMU behind its qtest protocol, to compare with.
#[path = "../../../compat-tests/src/qtest.rs"]
pub mod oracle;

/// A machine without CPUs, with a manual clock that stands at 0.
pub fn machine() -> Machine {
    let mut m = Machine::new();
    m.clock.set_manual();
    m
}

impl Machine {
    /// Adds a device of type `T` on the first bus of its kind (if any).
    pub fn add<T: Classed>(&mut self, props: &[(&str, PropInput<'_>)]) -> DevId {
        let class = T::CLASS;
        let bus = class.bus.and_then(|k| self.tree.first_bus(k)).map(|b| b.id);
        let place: Place = self.tree.next_unattached();
        self.add_device(class, bus, place, props).unwrap()
    }

    /// Guest read of `size` bytes.
    pub fn guest_read(&mut self, space: Space, addr: u64, size: u8) -> u64 {
        let mut b = [0; 8];
        self.bus_read(space, addr, &mut b[..usize::from(size)]);
        u64::from_le_bytes(b)
    }

    /// Guest write of `size` bytes.
    pub fn guest_write(&mut self, space: Space, addr: u64, size: u8, value: u64) {
        self.bus_write(space, addr, &value.to_le_bytes()[..usize::from(size)]);
    }

    /// `inb`.
    pub fn inb(&mut self, port: u16) -> u8 {
        self.guest_read(Space::Io, u64::from(port), 1) as u8
    }

    /// `outb`.
    pub fn outb(&mut self, port: u16, value: u8) {
        self.guest_write(Space::Io, u64::from(port), 1, u64::from(value));
    }

    /// Advances the manual clock, firing timers on the way in order.
    pub fn advance(&mut self, ns: i64) {
        let end = self.clock.virtual_ns() + ns;
        while let Some(at) = self.timers.next(crate::clock::ClockKind::Virtual).filter(|t| *t <= end) {
            self.clock.set_virtual(at.max(self.clock.virtual_ns()));
            self.run_timers();
        }
        self.clock.set_virtual(end);
    }

    /// Level of an ISA interrupt line.
    pub fn isa_level(&mut self, irq: u32) -> bool {
        let line = self.isa_irq(irq);
        self.irqs.level(line)
    }
}
