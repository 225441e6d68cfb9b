//! Realtek RTL8139C+ (RTL8139C(L)+ data sheet): the classic interface with four transmit slots and a receive ring of
//! bytes, and the C+ interface with descriptor rings, VLAN tags, checksums and segmentation.
//!
//! Reset values and writable bits are QEMU 7.2's; the tests hold them. Left out, as in QEMU: high priority rings,
//! wake-up, flow control, writes to the EEPROM.

mod regs;
mod rx;
#[cfg(test)]
mod tests;
mod tx;

use rqemu_derive::Device as DeriveDevice;

use self::regs::{isr, State};
use super::microwire::{Microwire, WORDS};
use crate::device::{Cx, Device, IoHandler, PciFunction, RealizeCx, TimerHandler};
use crate::devices::storage::blk::BootIndex;
use crate::memory::IoSpec;
use crate::net::{NetFrontend, NetId};
use crate::pci::{BarKind, PciIds, PciProps, PciState};
use crate::qom::{DeviceClass, MacAddr, NetdevRef};
use crate::QResult;

const SIZE: u64 = 0x100;
/// Rate of the timer register.
const TIMER_HZ: i128 = 33_000_000;

/// Properties of `rtl8139`.
#[derive(DeriveDevice, Debug)]
#[class(name = "rtl8139", parent = "pci-device", bus = Pci, category = Network, hotplug)]
pub struct Rtl8139Props {
    /// Ethernet address, for example 52:54:00:12:34:56
    #[prop]
    pub mac: MacAddr,
    /// ID of a netdev to use as a backend
    #[prop]
    pub netdev: NetdevRef,
    #[prop(object)]
    pub bootindex: BootIndex,
    /// Properties of every PCI device.
    #[base]
    pub pci: PciProps,
}

impl DeviceClass for Rtl8139Props {
    fn realize(&mut self, cx: &mut RealizeCx<'_>) -> QResult<Box<dyn Device>> {
        let mut pci = PciState::new(PciIds {
            vendor: 0x10ec,
            device: 0x8139,
            revision: 0x20,
            class: 0x0200,
            prog_if: 0,
            subsystem: None,
        });
        pci.set_interrupt_pin(1);
        // A capability pointer without a capability behind it: drivers of this card expect no list.
        pci.config_mut()[0x34] = 0xdc;
        let bar = cx.io_region("rtl8139", SIZE, 0, IoSpec::ANY);
        pci.add_bar(0, bar, SIZE, BarKind::Io);
        let bar = cx.io_region("rtl8139-mem", SIZE, 0, IoSpec::ANY);
        pci.add_bar(1, bar, SIZE, BarKind::Mem32);
        super::boot_rom(cx, &mut pci, &mut self.pci, "rtl8139", "efi-rtl8139.rom")?;
        cx.pci_attach(&mut pci, self.pci.addr.0, self.pci.multifunction)?;
        self.pci.addr.0 = i32::from(pci.devfn);
        let nic = super::connect(cx, "rtl8139", &self.netdev, &mut self.mac)?;
        let mut words = [0; WORDS];
        words[..3].copy_from_slice(&[0x8129, 0x10ec, 0x8139]);
        for (w, pair) in words[7..10].iter_mut().zip(self.mac.0.chunks_exact(2)) {
            *w = u16::from_le_bytes([pair[0], pair[1]]);
        }
        let mut d = Rtl8139 {
            pci,
            nic,
            mac: self.mac.0,
            eeprom: Microwire::new(words),
            s: State::default(),
            frame: Vec::new(),
        };
        d.s.power_on(d.mac);
        d.s.command = regs::CR_RST;
        Ok(Box::new(d))
    }
}

/// A card.
pub struct Rtl8139 {
    pci: PciState,
    nic: NetId,
    /// Address in the EEPROM.
    mac: [u8; 6],
    eeprom: Microwire,
    s: State,
    /// Frame that C+ descriptors build up.
    frame: Vec<u8>,
}

impl Rtl8139 {
    fn raise(&mut self, cx: &mut Cx<'_>, causes: u16) {
        self.s.isr |= causes;
        self.update_irq(cx);
    }

    fn update_irq(&mut self, cx: &mut Cx<'_>) {
        let level = self.s.isr & self.s.imr & regs::IMR_MASK != 0;
        self.pci.set_intx(cx, level);
    }

    /// Value of the timer register.
    fn timer(&self, cx: &Cx<'_>) -> u32 {
        let ns = i128::from(cx.now() - self.s.timer_base);
        (ns * TIMER_HZ / 1_000_000_000) as u32
    }

    /// Arms the timer for the moment when the timer register reaches its limit.
    fn set_timer(&mut self, cx: &mut Cx<'_>) {
        if self.s.timer_limit == 0 {
            return cx.timer_set(0, None);
        }
        let left = self.s.timer_limit.wrapping_sub(self.timer(cx));
        let left = if left == 0 { 1 << 32 } else { i128::from(left) };
        // The first nanosecond at which the register shows the limit.
        let ns = (left * 1_000_000_000 + TIMER_HZ - 1) / TIMER_HZ;
        let at = cx.now().saturating_add(ns as i64);
        cx.timer_set(0, Some(at));
    }

    fn software_reset(&mut self, cx: &mut Cx<'_>) {
        self.s.power_on(self.mac);
        self.frame.clear();
        self.s.timer_base = cx.now();
        cx.timer_set(0, None);
        self.update_irq(cx);
    }
}

impl IoHandler for Rtl8139 {
    fn read(&mut self, cx: &mut Cx<'_>, _region: u32, offset: u64, size: u8) -> u64 {
        let at = offset as u8;
        match size {
            1 => u64::from(self.read8(at)),
            2 => u64::from(self.read16(at)),
            _ => u64::from(self.read32(cx, at)),
        }
    }

    fn write(&mut self, cx: &mut Cx<'_>, _region: u32, offset: u64, size: u8, value: u64) {
        let at = offset as u8;
        match size {
            1 => self.write8(cx, at, value as u8),
            2 => self.write16(cx, at, value as u16),
            _ => self.write32(cx, at, value as u32),
        }
    }
}

impl PciFunction for Rtl8139 {
    fn state(&mut self) -> &mut PciState {
        &mut self.pci
    }

    fn config_written(&mut self, cx: &mut Cx<'_>, addr: u16, _len: u8) {
        if usize::from(addr) == crate::pci::reg::COMMAND && self.pci.bus_master() {
            cx.m.net_flush(self.nic);
        }
    }
}

impl TimerHandler for Rtl8139 {
    fn expired(&mut self, cx: &mut Cx<'_>, _id: u32) {
        self.raise(cx, isr::TIMER);
        self.set_timer(cx);
    }
}

impl NetFrontend for Rtl8139 {
    fn can_receive(&mut self, _queue: u32) -> bool {
        self.has_room()
    }

    fn receive(&mut self, cx: &mut Cx<'_>, _queue: u32, frame: &[u8]) -> bool {
        self.take_frame(cx, frame)
    }
}

impl Device for Rtl8139 {
    fn reset(&mut self, cx: &mut Cx<'_>) {
        self.eeprom.reset();
        self.software_reset(cx);
        self.s.command = regs::CR_RST;
        cx.m.net_set_mac(self.nic, MacAddr(self.mac));
    }
    fn io(&mut self) -> Option<&mut dyn IoHandler> {
        Some(self)
    }
    fn pci(&mut self) -> Option<&mut dyn PciFunction> {
        Some(self)
    }
    fn timers(&mut self) -> Option<&mut dyn TimerHandler> {
        Some(self)
    }
    fn net(&mut self) -> Option<&mut dyn NetFrontend> {
        Some(self)
    }
    fn as_any(&mut self) -> &mut dyn std::any::Any {
        self
    }
}
