//! Tests of the VGA: alone, and against a real QEMU that runs the same script.

mod oracle;
mod unit;

use crate::device::testing::machine;
use crate::device::{BusKind, DevId};
use crate::machine::Machine;
use crate::memory::RegionKind;
use crate::qom::{Classed, PropInput};

use super::pci::{VgaPci, VgaPciProps};
use crate::ui::Picture;

/// A machine with a PCI bus and the card.
struct Board {
    m: Machine,
    vga: DevId,
}

impl Board {
    fn new(props: &[(&str, PropInput<'_>)]) -> Self {
        Self::of::<VgaPciProps>(props)
    }

    /// With a card of another class.
    fn of<P: Classed>(props: &[(&str, PropInput<'_>)]) -> Self {
        let mut m = machine();
        let bus = m.tree.add_bus("pci.0".into(), BusKind::Pci, None);
        let pci = m.mem.add("pci", 1 << 64, RegionKind::Container, None);
        let system = m.mem.system;
        m.mem.map(system, pci, 0, -1);
        let io = m.mem.io;
        m.pci.add(bus, pci, io, Vec::new(), |_, p| usize::from(p));
        let vga = m.add::<P>(props);
        m.reset_devices();
        let mut b = Self { m, vga };
        b.config(0x10, 0xfd00_0000);
        b.config(0x18, 0xfebf_0000);
        b.config(4, 7);
        b
    }

    fn config(&mut self, at: u16, value: u32) {
        self.m.pci_config_write(Some(self.vga), at, 4, value);
    }

    fn picture(&mut self) -> Picture {
        self.m.with::<VgaPci, _>(self.vga, |v, cx| v.vga.snapshot(cx)).unwrap()
    }
}
