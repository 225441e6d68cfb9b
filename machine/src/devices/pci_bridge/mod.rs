//! `pci-bridge`: a PCI-to-PCI bridge (PCI-to-PCI Bridge Architecture Specification 1.2) with a Standard Hot-Plug
//! Controller ([`shpc`]).
//!
//! Devices behind it appear in three windows of the primary bus: I/O, memory, prefetchable memory. Left out: the VGA
//! bits of the bridge control register (the card of the machine sits on bus 0), secondary-bus reset. Tests beside it.

pub mod shpc;

use std::any::Any;

use rqemu_derive::Device as DeriveDevice;

use crate::device::{BusKind, Cx, DevId, Device, IoHandler, PciFunction, RealizeCx};
use crate::memory::{IoSpec, RegionId, RegionKind};
use crate::pci::{reg, BarKind, Msi, PciIds, PciProps, PciState};
use crate::qom::{DeviceClass, OnOffAuto, Size};
use crate::{qerr, QResult};
use shpc::Shpc;

/// Registers of a type 1 header.
mod at {
    pub const IO_BASE: usize = 0x1c;
    pub const IO_LIMIT: usize = 0x1d;
    pub const SECONDARY_STATUS: usize = 0x1e;
    pub const MEM_BASE: usize = 0x20;
    pub const MEM_LIMIT: usize = 0x22;
    pub const PREF_BASE: usize = 0x24;
    pub const PREF_LIMIT: usize = 0x26;
    pub const PREF_BASE_UPPER: usize = 0x28;
    pub const PREF_LIMIT_UPPER: usize = 0x2c;
    pub const CONTROL: usize = 0x3e;
}

/// Slot numbering capability.
const SLOT_ID_CAP: u8 = 4;
const FIRST_IN_CHASSIS: u8 = 0x20;
/// Vendor capability with hints for firmware (QEMU's `docs/pcie_pci_bridge.txt`).
const VENDOR_CAP: u8 = 9;
const RESERVE: u8 = 1;
const UNSET: Size = Size(u64::MAX);

/// Standard PCI Bridge
#[derive(DeriveDevice, Debug)]
#[class(
    name = "pci-bridge",
    parent = "base-pci-bridge",
    bus = Pci,
    category = Bridge,
    desc = "Standard PCI Bridge",
    hotplug
)]
pub struct PciBridgeProps {
    /// Number of the chassis; each bridge has its own
    #[prop(name = "chassis_nr")]
    pub chassis_nr: u8,
    /// Interrupts by messages
    #[prop]
    pub msi: OnOffAuto,
    /// Hot-plug controller
    #[prop(default = true)]
    pub shpc: bool,
    /// Bus numbers that firmware keeps free behind it
    #[prop(default = u32::MAX)]
    pub bus_reserve: u32,
    /// I/O ports that firmware keeps free behind it
    #[prop(default = UNSET)]
    pub io_reserve: Size,
    /// Memory that firmware keeps free behind it
    #[prop(default = UNSET)]
    pub mem_reserve: Size,
    /// 32-bit prefetchable memory that firmware keeps free behind it
    #[prop(name = "pref32-reserve", default = UNSET)]
    pub pref32_reserve: Size,
    /// 64-bit prefetchable memory that firmware keeps free behind it
    #[prop(name = "pref64-reserve", default = UNSET)]
    pub pref64_reserve: Size,
    /// Properties of every PCI device.
    #[base]
    pub pci: PciProps,
}

impl PciBridgeProps {
    /// Adds the capability that tells firmware what to reserve, if anything is.
    fn add_reserve(&self, pci: &mut PciState) -> QResult<()> {
        let sizes = [self.io_reserve, self.mem_reserve, self.pref32_reserve, self.pref64_reserve];
        if self.bus_reserve == u32::MAX && sizes == [UNSET; 4] {
            return Ok(());
        }
        let (p32, p64) = (self.pref32_reserve, self.pref64_reserve);
        if p32 != UNSET && p64 != UNSET {
            return Err(qerr!("PCI resource reserve cap: PREF32 and PREF64 conflict"));
        }
        let small = |s: Size, what: &str| match s {
            UNSET => Ok(u32::MAX),
            Size(v) => u32::try_from(v)
                .ok()
                .filter(|v| *v != u32::MAX)
                .ok_or_else(|| qerr!("PCI resource reserve cap: {what} must be less than 4G")),
        };
        let (mem, pref32) = (small(self.mem_reserve, "mem-reserve")?, small(p32, "pref32-reserve")?);
        let c = pci.add_capability(VENDOR_CAP, 0, 0x20);
        pci.config_mut()[c + 2] = 0x20;
        pci.config_mut()[c + 3] = RESERVE;
        pci.set_dword(c + 4, self.bus_reserve);
        pci.set_dword(c + 8, self.io_reserve.0 as u32);
        pci.set_dword(c + 12, (self.io_reserve.0 >> 32) as u32);
        pci.set_dword(c + 16, mem);
        pci.set_dword(c + 20, pref32);
        pci.set_dword(c + 24, p64.0 as u32);
        pci.set_dword(c + 28, (p64.0 >> 32) as u32);
        Ok(())
    }
}

impl DeviceClass for PciBridgeProps {
    fn realize(&mut self, cx: &mut RealizeCx<'_>) -> QResult<Box<dyn Device>> {
        if self.chassis_nr == 0 {
            return Err(qerr!(
                "Bridge chassis not specified. Each bridge is required to be assigned a unique chassis id > 0."
            ));
        }
        let mut pci = PciState::new(PciIds { vendor: 0x1b36, device: 1, class: 0x0604, ..PciIds::default() });
        bridge_header(&mut pci);
        let mut bridge = PciBridge {
            pci: PciState::new(PciIds::default()),
            windows: Windows::default(),
            shpc: None,
            msi: None,
            dev: cx.id(),
        };
        if self.shpc {
            pci.set_interrupt_pin(1);
            let (shpc, region) = Shpc::new(cx, &mut pci);
            pci.add_bar(0, region, shpc::BAR_SIZE, BarKind::Mem64);
            bridge.shpc = Some(shpc);
        }
        let c = pci.add_capability(SLOT_ID_CAP, 0, 4);
        pci.config_mut()[c + 2] = FIRST_IN_CHASSIS;
        pci.config_mut()[c + 3] = self.chassis_nr;
        pci.wmask_mut()[c + 3] = 0xff;
        if self.shpc && self.msi != OnOffAuto::Off {
            bridge.msi = Some(Msi::add(&mut pci, 0));
        }
        self.add_reserve(&mut pci)?;
        let parent = cx.parent_bus().ok_or_else(|| qerr!("PCI device without a bus"))?;
        cx.pci_attach(&mut pci, self.pci.addr.0, self.pci.multifunction)?;
        bridge.pci = pci;
        bridge.add_secondary(cx, parent)?;
        Ok(Box::new(bridge))
    }
}

/// The header that makes it a bridge: fixed bits and what may be written.
fn bridge_header(pci: &mut PciState) {
    pci.config_mut()[reg::HEADER_TYPE] = 1;
    pci.set_word(reg::STATUS, 0x00a0);
    pci.set_word(at::SECONDARY_STATUS, 0x00a0);
    // No subsystem ids in this header; there are windows in their place.
    pci.set_dword(reg::SUBSYSTEM_VENDOR_ID, 0);
    // 64-bit addresses.
    pci.set_word(at::PREF_BASE, 1);
    pci.set_word(at::PREF_LIMIT, 1);
    let w = pci.wmask_mut();
    w[0x18..0x1c].fill(0xff);
    (w[at::IO_BASE], w[at::IO_LIMIT]) = (0xf0, 0xf0);
    for r in [at::MEM_BASE, at::MEM_LIMIT, at::PREF_BASE, at::PREF_LIMIT] {
        w[r..r + 2].copy_from_slice(&[0xf0, 0xff]);
    }
    w[at::PREF_BASE_UPPER..0x30].fill(0xff);
    w[at::CONTROL..at::CONTROL + 2].copy_from_slice(&[0xff, 0x0b]);
}

/// What the bridge shows of its secondary bus on the primary one.
#[derive(Clone, Copy, Debug, Default)]
struct Windows {
    pref: RegionId,
    mem: RegionId,
    io: RegionId,
}

/// First address and size of a window; empty if it is closed.
type Range = (u64, u128);

/// The bridge at run time.
pub struct PciBridge {
    pci: PciState,
    windows: Windows,
    shpc: Option<Shpc>,
    msi: Option<Msi>,
    dev: DevId,
}

impl PciBridge {
    /// Makes the secondary bus and its (closed) windows.
    fn add_secondary(&mut self, cx: &mut RealizeCx<'_>, parent: crate::device::BusId) -> QResult<()> {
        let dev = cx.id();
        let m = cx.m();
        let (up_mem, up_io) = m.pci.get(parent).map(|b| (b.mem, b.io)).ok_or_else(|| qerr!("no PCI bus"))?;
        let tree = &m.tree;
        let name = match tree.get(dev).and_then(|n| n.user_id()) {
            Some(id) => id.to_string(),
            None => format!("pci.{}", tree.buses().filter(|b| b.kind == BusKind::Pci).count()),
        };
        let (handler, plug) = tree.bus(parent).map_or((None, false), |b| (b.hotplug_handler, b.hotpluggable));
        let mem = m.mem.add("pci_bridge_pci", 1 << 64, RegionKind::Container, Some(dev));
        let io = m.mem.add("pci_bridge_io", 1 << 32, RegionKind::Container, Some(dev));
        let mut window = |name, target, root| {
            let alias = RegionKind::Alias { target, offset: 0, readonly: false };
            let r = m.mem.add(name, 0, alias, Some(dev));
            m.mem.map(root, r, 0, 1);
            r
        };
        self.windows = Windows {
            pref: window("pci_bridge_pref_mem", mem, up_mem),
            mem: window("pci_bridge_mem", mem, up_mem),
            io: window("pci_bridge_io", io, up_io),
        };
        // Never shown: see the module comment.
        for (name, target, size) in [
            ("pci_bridge_vga_io_lo", io, 12),
            ("pci_bridge_vga_io_hi", io, 32),
            ("pci_bridge_vga_mem", mem, 0x2_0000),
        ] {
            let alias = RegionKind::Alias { target, offset: 0, readonly: false };
            m.mem.add(name, size, alias, Some(dev));
        }
        let bus = m.tree.add_bus(name, BusKind::Pci, Some(dev));
        if let Some(b) = m.tree.bus_mut(bus) {
            b.hotpluggable = plug || self.shpc.is_some();
            b.hotplug_handler = handler;
        }
        m.pci.add_secondary(bus, mem, io, dev);
        Ok(())
    }

    fn io_window(&self) -> Range {
        let c = self.pci.config();
        let (base, limit) = (u64::from(c[at::IO_BASE] & 0xf0) << 8, u64::from(c[at::IO_LIMIT] & 0xf0) << 8);
        range(self.pci.word(reg::COMMAND) & reg::CMD_IO != 0, base, limit | 0xfff)
    }

    fn mem_window(&self) -> Range {
        let part = |r| u64::from(self.pci.word(r) & 0xfff0) << 16;
        range(self.memory_on(), part(at::MEM_BASE), part(at::MEM_LIMIT) | 0xf_ffff)
    }

    fn pref_window(&self) -> Range {
        let part =
            |low, high| u64::from(self.pci.word(low) & 0xfff0) << 16 | u64::from(self.pci.dword(high)) << 32;
        let limit = part(at::PREF_LIMIT, at::PREF_LIMIT_UPPER) | 0xf_ffff;
        range(self.memory_on(), part(at::PREF_BASE, at::PREF_BASE_UPPER), limit)
    }

    fn memory_on(&self) -> bool {
        self.pci.word(reg::COMMAND) & reg::CMD_MEMORY != 0
    }

    /// Opens and closes the windows as the registers say.
    fn update_windows(&mut self, cx: &mut Cx<'_>) {
        let w = self.windows;
        let all = [(w.pref, self.pref_window()), (w.mem, self.mem_window()), (w.io, self.io_window())];
        for (region, (base, size)) in all {
            let mem = &mut cx.m.mem;
            mem.set_size(region, size);
            mem.set_addr(region, base);
            mem.set_alias_offset(region, base);
        }
    }

    /// Brings the interrupt in step with the hot-plug controller.
    fn update_interrupt(&mut self, cx: &mut Cx<'_>) {
        let Some(shpc) = &mut self.shpc else { return };
        let (level, rose) = shpc.interrupt();
        match self.msi.as_mut().filter(|m| m.enabled(&self.pci)) {
            Some(msi) => {
                if rose {
                    msi.notify(&mut self.pci, cx);
                }
            }
            None => self.pci.set_intx(cx, level),
        }
    }
}

fn range(on: bool, base: u64, last: u64) -> Range {
    if on && base <= last {
        (base, u128::from(last - base) + 1)
    } else {
        (0, 0)
    }
}

impl Device for PciBridge {
    fn reset(&mut self, cx: &mut Cx<'_>) {
        self.update_windows(cx);
        if let Some(s) = &mut self.shpc {
            s.reset(cx.m, self.dev);
            s.write_cap(&mut self.pci);
        }
    }
    fn io(&mut self) -> Option<&mut dyn IoHandler> {
        Some(self)
    }
    fn pci(&mut self) -> Option<&mut dyn PciFunction> {
        Some(self)
    }
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

impl PciFunction for PciBridge {
    fn state(&mut self) -> &mut PciState {
        &mut self.pci
    }
    fn config_written(&mut self, cx: &mut Cx<'_>, addr: u16, len: u8) {
        let (from, to) = (usize::from(addr), usize::from(addr) + usize::from(len));
        let touches = |a: usize, b: usize| from < b && to > a;
        if touches(reg::COMMAND, reg::COMMAND + 2) || touches(at::IO_BASE, 0x34) {
            self.update_windows(cx);
        }
        if let Some(msi) = &mut self.msi {
            msi.written(&mut self.pci, cx);
        }
        if let Some(s) = &mut self.shpc {
            if s.cap_written(cx.m, self.dev, &mut self.pci, from, to) {
                self.update_interrupt(cx);
            }
        }
    }
}

impl IoHandler for PciBridge {
    fn read(&mut self, _cx: &mut Cx<'_>, _region: u32, offset: u64, size: u8) -> u64 {
        self.shpc.as_ref().map_or(0, |s| s.read(offset, size))
    }
    fn write(&mut self, cx: &mut Cx<'_>, _region: u32, offset: u64, size: u8, value: u64) {
        if let Some(s) = &mut self.shpc {
            s.write(cx.m, self.dev, offset, size, value);
            s.write_cap(&mut self.pci);
        }
        self.update_interrupt(cx);
    }
}

/// How the registers of the hot-plug controller are accessed.
const REGISTERS: IoSpec = IoSpec { valid: (1, 4), imp: (1, 4), unaligned: false };

#[cfg(test)]
mod tests;
