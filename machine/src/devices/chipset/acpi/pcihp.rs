//! PCI hot-plug registers (QEMU's `docs/specs/acpi_pci_hotplug`): per bus, bitmaps of slots that were filled and
//! that shall be freed; the guest ejects a slot when it has let go of it.

use std::collections::BTreeMap;

use crate::device::{BusId, Cx, DevId};
use crate::machine::Machine;
use crate::pci::reg;
use crate::{qerr, QResult};

/// Length of the window.
pub const LEN: u32 = 0x18;

const UP: u64 = 0x00;
const DOWN: u64 = 0x04;
const EJECT: u64 = 0x08;
const REMOVABLE: u64 = 0x0c;
const SELECT: u64 = 0x10;
const ACPI_INDEX: u64 = 0x14;

/// Largest number of buses that can be selected.
const MAX_BUSES: u32 = 256;

/// State of one bus.
#[derive(Clone, Copy, Debug, Default)]
struct Slots {
    up: u32,
    down: u32,
}

/// The registers.
#[derive(Default)]
pub struct PciHotplug {
    /// Buses that take part, by the number with which the guest selects them.
    buses: Vec<BusId>,
    slots: BTreeMap<u32, Slots>,
    select: u32,
    acpi_index: u32,
    /// Without bridge support (machines before 1.7): reading `UP` does not clear it.
    legacy: bool,
}

impl PciHotplug {
    /// Power-on state. `legacy`: without support for bridges, only the first bus can be selected.
    pub fn new(legacy: bool) -> Self {
        Self { legacy, ..Self::default() }
    }

    /// Adds a bus; returns its number.
    pub fn add_bus(&mut self, bus: BusId) -> u32 {
        self.buses.push(bus);
        self.buses.len() as u32 - 1
    }

    /// Adds the buses behind bridges, in the order in which the tables number them: a bridge's own bus before its
    /// neighbours, the newest bridge first.
    pub fn add_bridges(&mut self, m: &Machine) {
        let mut at = 0;
        // Buses whose bridges are still to be looked at; what is found goes right behind its parent.
        while let Some(bus) = self.buses.get(at).copied() {
            at += 1;
            let children = m.tree.bus(bus).map(|b| b.children.clone()).unwrap_or_default();
            let behind = children.iter().rev().filter_map(|d| m.pci.iter().find(|b| b.bridge == Some(*d)));
            let behind: Vec<BusId> = behind.map(|b| b.bus).filter(|b| !self.buses.contains(b)).collect();
            self.buses.splice(at..at, behind);
        }
    }

    /// Number of a bus.
    pub fn number_of(&self, bus: BusId) -> Option<u32> {
        self.buses.iter().position(|b| *b == bus).map(|i| i as u32)
    }

    /// Power-on state. Devices that the guest was asked to release are released now; the caller removes them.
    pub fn reset(&mut self, m: &mut Machine) -> Vec<DevId> {
        let mut gone = Vec::new();
        for (bsel, s) in std::mem::take(&mut self.slots) {
            for slot in (0..32).filter(|i| s.down & (1 << i) != 0) {
                gone.extend(self.ejectable(m, bsel, slot));
            }
        }
        self.select = 0;
        self.acpi_index = 0;
        gone
    }

    /// `dev` was plugged into one of the buses; `true` if the guest has to be told.
    pub fn plugged(&mut self, m: &Machine, dev: DevId) -> bool {
        let Some((bus, devfn)) = m.pci_place(dev) else { return false };
        let Some(bsel) = self.number_of(bus) else { return false };
        // Only function 0 makes the guest scan the slot.
        if devfn & 7 != 0 {
            return false;
        }
        self.slots.entry(bsel).or_default().up |= 1 << (devfn >> 3);
        true
    }

    /// The guest is to release `dev`.
    ///
    /// # Errors
    /// Its bus has no hot plug, or the request was made before.
    pub fn unplug_request(&mut self, m: &Machine, dev: DevId) -> QResult<()> {
        let place = m.pci_place(dev).and_then(|(bus, devfn)| Some((self.number_of(bus)?, devfn)));
        let Some((bsel, devfn)) = place else {
            return Err(qerr!("Unsupported bus. Bus doesn't have property 'acpi-pcihp-bsel' set"));
        };
        self.slots.entry(bsel).or_default().down |= 1 << (devfn >> 3);
        Ok(())
    }

    fn bus(&self, bsel: u32) -> Option<BusId> {
        self.buses.get(bsel as usize).copied()
    }

    /// Devices in a slot that may be removed.
    fn ejectable(&self, m: &Machine, bsel: u32, slot: u8) -> Vec<DevId> {
        let Some(b) = self.bus(bsel).and_then(|b| m.pci.get(b)) else { return Vec::new() };
        let fns = (0..8).filter_map(|f| b.functions[usize::from(slot << 3 | f)]);
        fns.filter(|d| m.tree.get(*d).is_some_and(|n| n.class.hotpluggable)).collect()
    }

    /// Slots that are empty or hold something that can be unplugged.
    fn removable(&self, m: &mut Machine, bsel: u32) -> u32 {
        let Some(b) = self.bus(bsel).and_then(|b| m.pci.get(b)) else { return u32::MAX };
        let there: Vec<_> =
            b.functions.iter().enumerate().filter_map(|(i, d)| Some((i as u32 >> 3, (*d)?))).collect();
        let mut out = u32::MAX;
        for (slot, dev) in there {
            let fixed = !m.tree.get(dev).is_some_and(|n| n.class.hotpluggable);
            let bridge = m
                .with_dev(dev, |d, _| d.pci().map(|p| p.state().word(reg::CLASS_DEVICE) == 0x0604))
                .flatten()
                .unwrap_or(false);
            let added = m.tree.get(dev).is_some_and(|n| n.hotplugged);
            if fixed || (bridge && !added) {
                out &= !(1 << slot);
            }
        }
        out
    }

    /// 32-bit read.
    pub fn read(&mut self, cx: &mut Cx<'_>, offset: u64) -> u32 {
        let bsel = self.select;
        if bsel >= MAX_BUSES {
            return 0;
        }
        let s = self.slots.get(&bsel).copied().unwrap_or_default();
        match offset {
            UP => {
                if let Some(s) = self.slots.get_mut(&bsel).filter(|_| !self.legacy) {
                    s.up = 0;
                }
                s.up
            }
            DOWN => s.down,
            REMOVABLE => self.removable(cx.m, bsel),
            SELECT => self.select,
            ACPI_INDEX => std::mem::take(&mut self.acpi_index),
            _ => 0,
        }
    }

    /// 32-bit write; returns devices to remove.
    pub fn write(&mut self, cx: &mut Cx<'_>, offset: u64, v: u32) -> Vec<DevId> {
        match offset {
            EJECT if self.select < MAX_BUSES && v != 0 => return self.eject(cx.m, v),
            ACPI_INDEX if v != 0 => self.acpi_index = self.index_of(cx.m, v.trailing_zeros() as u8),
            SELECT => self.select = if self.legacy { 0 } else { v },
            _ => {}
        }
        Vec::new()
    }

    fn eject(&mut self, m: &Machine, v: u32) -> Vec<DevId> {
        let (bsel, slot) = (self.select, v.trailing_zeros() as u8);
        if let Some(s) = self.slots.get_mut(&bsel) {
            // The lowest slot only, as QEMU does; one eject method call names one slot.
            s.down &= !(1 << slot);
            s.up &= !(1 << slot);
        }
        self.ejectable(m, bsel, slot)
    }

    /// `acpi-index` of the device in a slot of the selected bus.
    fn index_of(&self, m: &Machine, slot: u8) -> u32 {
        let dev = self.bus(self.select).and_then(|b| m.pci.get(b)?.functions[usize::from(slot << 3)]);
        let value = dev.and_then(|d| m.tree.get(d)?.props.get_prop("acpi-index"));
        value.and_then(|p| p.value.as_u64()).unwrap_or(0) as u32
    }
}
