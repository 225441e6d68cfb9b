//! PCI buses: who sits where, configuration cycles, BAR mapping, INTx routing.

use super::config::PciState;
use super::reg;
use crate::device::{BusId, DevId, Device, RealizeCx};
use crate::irq::IrqLine;
use crate::machine::Machine;
use crate::memory::{RegionId, RegionKind};
use crate::{qerr, QResult};

/// A PCI bus.
pub struct PciBus {
    /// Its place in the device tree.
    pub bus: BusId,
    /// Container of memory BARs.
    pub mem: RegionId,
    /// Container of I/O BARs.
    pub io: RegionId,
    /// Functions by slot and function.
    pub functions: Box<[Option<DevId>; 256]>,
    /// Root bus: lines by PIRQ. Empty behind a bridge.
    pub pirqs: Vec<IrqLine>,
    counts: Vec<i32>,
    /// Root bus: PIRQ of (slot, pin).
    pub route: fn(u8, u8) -> usize,
    /// Behind a bridge: the bridge.
    pub bridge: Option<DevId>,
    /// First slot handed out automatically.
    pub first_slot: u8,
}

/// All PCI buses.
#[derive(Default)]
pub struct PciBuses {
    buses: Vec<PciBus>,
}

impl PciBuses {
    /// Registers a bus; root buses give their interrupt lines and routing.
    pub fn add(
        &mut self,
        bus: BusId,
        mem: RegionId,
        io: RegionId,
        pirqs: Vec<IrqLine>,
        route: fn(u8, u8) -> usize,
    ) {
        let counts = vec![0; pirqs.len()];
        self.buses.push(PciBus {
            bus,
            mem,
            io,
            functions: Box::new([None; 256]),
            pirqs,
            counts,
            route,
            bridge: None,
            first_slot: 0,
        });
    }

    /// Registers the bus behind a bridge.
    pub fn add_secondary(&mut self, bus: BusId, mem: RegionId, io: RegionId, bridge: DevId) {
        self.add(bus, mem, io, Vec::new(), |_, pin| usize::from(pin));
        if let Some(b) = self.buses.last_mut() {
            b.bridge = Some(bridge);
        }
    }

    /// A bus.
    pub fn get(&self, bus: BusId) -> Option<&PciBus> {
        self.buses.iter().find(|b| b.bus == bus)
    }

    /// A bus.
    pub fn get_mut(&mut self, bus: BusId) -> Option<&mut PciBus> {
        self.buses.iter_mut().find(|b| b.bus == bus)
    }

    /// All buses, roots first.
    pub fn iter(&self) -> impl Iterator<Item = &PciBus> {
        self.buses.iter()
    }
}

impl RealizeCx<'_> {
    /// Puts a function on its bus at `addr` (negative: first free slot) and fixes its reset values. Call it when the
    /// configuration space is complete, before the device is returned from `realize`.
    pub fn pci_attach(&mut self, state: &mut PciState, addr: i32, multifunction: bool) -> QResult<()> {
        let bus = self.parent_bus().ok_or_else(|| qerr!("PCI device without a bus"))?;
        let dev = self.id();
        let devfn = self.pci_pick(bus, addr)?;
        state.devfn = devfn;
        state.bus = bus;
        if multifunction {
            state.config_mut()[reg::HEADER_TYPE] |= 0x80;
        }
        self.pci_check_multifunction(bus, devfn, multifunction)?;
        state.seal();
        let mem = &mut self.cx.m.mem;
        let root = mem.add("bus master container", 1 << 64, RegionKind::Container, Some(dev));
        let all = RegionKind::Alias { target: mem.system, offset: 0, readonly: false };
        let master = mem.add("bus master", 1 << 64, all, Some(dev));
        mem.map(root, master, 0, 0);
        mem.set_enabled_outside(master, false);
        state.master = Some((root, master));
        if let Some(b) = self.cx.m.pci.get_mut(bus) {
            b.functions[usize::from(devfn)] = Some(dev);
        }
        Ok(())
    }

    fn pci_pick(&mut self, bus: BusId, addr: i32) -> QResult<u8> {
        let dev = self.id();
        let class = self.cx.m.tree.get(dev).map_or("", |n| n.class.name);
        let b = self.cx.m.pci.get(bus).ok_or_else(|| qerr!("no PCI bus"))?;
        if addr < 0 {
            let free = (b.first_slot..32).map(|s| s << 3).find(|d| b.functions[usize::from(*d)].is_none());
            return free
                .ok_or_else(|| qerr!("PCI: no slot/function available for {class}, all in use or reserved"));
        }
        let devfn = addr as u8;
        if let Some(other) = b.functions[usize::from(devfn)] {
            let n = self.cx.m.tree.get(other);
            return Err(qerr!(
                "PCI: slot {} function {} not available for {class}, in use by {},id={}",
                devfn >> 3,
                devfn & 7,
                n.map_or("", |n| n.class.name),
                n.and_then(|n| n.user_id()).unwrap_or("(null)")
            ));
        }
        Ok(devfn)
    }

    fn pci_check_multifunction(&mut self, bus: BusId, devfn: u8, multifunction: bool) -> QResult<()> {
        let Some(b) = self.cx.m.pci.get(bus) else { return Ok(()) };
        let slot = devfn & !7;
        if devfn & 7 != 0 {
            let Some(f0) = b.functions[usize::from(slot)] else { return Ok(()) };
            let multi = self
                .cx
                .call(f0, |d, _| d.pci().map(|p| p.state().config()[reg::HEADER_TYPE] & 0x80 != 0))
                .flatten()
                .unwrap_or(true);
            if !multi {
                return Err(qerr!(
                    "PCI: single function device can't be populated in function {:x}.{:x}",
                    devfn >> 3,
                    devfn & 7
                )
                .prepend(""));
            }
            return Ok(());
        }
        if !multifunction {
            if let Some(f) = (1..8).find(|f| b.functions[usize::from(slot | f)].is_some()) {
                return Err(qerr!(
                    "PCI: {:x}.0 indicates single function, but {:x}.{f:x} is already populated.",
                    slot >> 3,
                    slot >> 3
                ));
            }
        }
        Ok(())
    }
}

impl Machine {
    /// Function at bus number `bus_no`, slot/function `devfn`, as seen from the root `root`.
    pub fn pci_find(&mut self, root: BusId, bus_no: u8, devfn: u8) -> Option<DevId> {
        let bus = if bus_no == 0 { root } else { self.pci_bus_by_number(bus_no)? };
        self.pci.get(bus)?.functions[usize::from(devfn)]
    }

    fn pci_bus_by_number(&mut self, no: u8) -> Option<BusId> {
        let secondary: Vec<_> = self.pci.iter().filter(|b| b.bridge.is_some()).map(|b| b.bus).collect();
        secondary.into_iter().find(|bus| self.pci_bus_number(*bus) == no)
    }

    /// Number of a bus: 0 for a root, else what its bridge was told.
    pub fn pci_bus_number(&mut self, bus: BusId) -> u8 {
        let Some(bridge) = self.pci.get(bus).and_then(|b| b.bridge) else { return 0 };
        let number = |d: &mut dyn Device| d.pci().map(|p| p.state().config()[reg::SECONDARY_BUS]);
        self.with_dev(bridge, |d, _| number(d)).flatten().unwrap_or(0)
    }

    /// Configuration read; all ones if nobody answers.
    pub fn pci_config_read(&mut self, dev: Option<DevId>, addr: u16, len: u8) -> u32 {
        let all = crate::machine::mask(len) as u32;
        let Some(dev) = dev else { return all };
        self.with_dev(dev, |d, cx| {
            let p = d.pci()?;
            p.config_reading(cx, addr);
            Some(p.state().read(usize::from(addr), len))
        })
        .flatten()
        .unwrap_or(all)
    }

    /// Configuration write.
    pub fn pci_config_write(&mut self, dev: Option<DevId>, addr: u16, len: u8, value: u32) {
        let Some(dev) = dev else { return };
        self.with_dev(dev, |d, cx| {
            let Some(p) = d.pci() else { return };
            let s = p.state();
            let cap = s.msix.as_ref().map(|_| (s.msix_enabled(), s.config().to_vec()));
            s.write(usize::from(addr), len, value);
            let touches = |from: usize, to: usize| {
                usize::from(addr) < to && usize::from(addr) + usize::from(len) > from
            };
            if touches(reg::COMMAND, reg::COMMAND + 2) {
                s.update_intx(cx.m);
                s.update_master(cx.m);
            }
            if touches(reg::COMMAND, reg::COMMAND + 2) || touches(reg::BAR0, 0x28) || touches(reg::ROM, 0x34)
            {
                s.update_mappings(cx.m);
            }
            if cap.is_some_and(|(_, old)| touches(0x40, 0x100) && old != s.config()) {
                s.msix_sync(cx.m, cx.dev);
            }
            p.config_written(cx, addr, len);
        });
    }

    /// Maps and unmaps a function's BARs as its registers say.
    pub fn pci_update_mappings(&mut self, dev: DevId) {
        self.with_dev(dev, |d, cx| {
            if let Some(p) = d.pci() {
                let s = p.state();
                s.update_intx(cx.m);
                s.update_master(cx.m);
                s.update_mappings(cx.m);
                s.msix_sync(cx.m, cx.dev);
            }
        });
    }

    /// Level of pin `pin` (0 = INTA) of the function at `devfn` on `bus` changed.
    pub(crate) fn pci_intx(&mut self, bus: BusId, devfn: u8, pin: u8, level: bool) {
        let (mut bus, mut devfn, mut pin) = (bus, devfn, pin);
        for _ in 0..32 {
            let Some(b) = self.pci.get_mut(bus) else { return };
            let Some(bridge) = b.bridge else {
                let pirq = (b.route)(devfn >> 3, pin);
                let Some(count) = b.counts.get_mut(pirq) else { return };
                *count = (*count + if level { 1 } else { -1 }).max(0);
                let (line, on) = (b.pirqs[pirq], *count > 0);
                if self.irqs.level(line) != on {
                    self.set_irq(line, on);
                }
                return;
            };
            pin = (pin + (devfn >> 3)) & 3;
            let Some((bb, bf)) = self.pci_place(bridge) else { return };
            (bus, devfn) = (bb, bf);
        }
    }

    /// Bus and slot/function of a device.
    pub fn pci_place(&self, dev: DevId) -> Option<(BusId, u8)> {
        self.pci.iter().find_map(|b| {
            let i = b.functions.iter().position(|f| *f == Some(dev))?;
            Some((b.bus, i as u8))
        })
    }

    /// Takes a function that never came to life off its bus.
    pub(crate) fn pci_forget(&mut self, dev: DevId) {
        let Some((bus, devfn)) = self.pci_place(dev) else { return };
        if let Some(b) = self.pci.get_mut(bus) {
            b.functions[usize::from(devfn)] = None;
        }
    }

    /// Takes a function off its bus.
    pub(crate) fn pci_unplug(&mut self, dev: DevId) {
        self.with_dev(dev, |d, cx| {
            if let Some(p) = d.pci() {
                p.state().set_intx(cx, false);
            }
        });
        self.pci_forget(dev);
    }
}

impl PciState {
    /// Shows in the memory tree whether the function is bus master.
    fn update_master(&mut self, m: &mut Machine) {
        if let Some((_, master)) = self.master {
            m.mem.set_enabled_outside(master, self.bus_master());
        }
    }

    fn update_mappings(&mut self, m: &mut Machine) {
        let Some((mem, io)) = m.pci.get(self.bus).map(|b| (b.mem, b.io)) else { return };
        for i in 0..7 {
            let want = self.bar_address(i);
            let Some(bar) = self.bars_mut()[i].as_mut() else { continue };
            if bar.mapped == want {
                continue;
            }
            bar.mapped = want;
            let root = if bar.kind == super::BarKind::Io { io } else { mem };
            match want {
                Some(addr) => m.mem.map(root, bar.region, addr, 1),
                None => m.mem.unmap(bar.region),
            }
        }
    }
}
