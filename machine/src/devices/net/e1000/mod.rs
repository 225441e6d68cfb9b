//! Intel 8254x Gigabit Ethernet (PCI/PCI-X Family of Gigabit Ethernet Controllers Software Developer's Manual,
//! 317453): 82540EM, 82544GC, 82545EM with an M88E1000 PHY and a 64-word Microwire EEPROM.
//!
//! Registers ([`regs`]), EEPROM ([`eeprom`]), PHY ([`phy`]), interrupts with moderation ([`irq`]), receive ([`rx`])
//! and transmit ([`tx`]) with VLAN tags, checksums and segmentation. Reset values and which registers exist are
//! QEMU 7.2's; the tests hold them.
//!
//! Left out, as in QEMU: the I/O port window (reads as zero), wake-up, flow control, receive checksums (drivers are
//! told so in each descriptor), and the effect of `CTRL.RST`.

mod eeprom;
mod irq;
mod phy;
mod regs;
mod rx;
#[cfg(test)]
mod tests;
mod tx;

use rqemu_derive::Device as DeriveDevice;

use self::eeprom::Eeprom;
use self::phy::Phy;
use self::regs::{reg, Regs};
use crate::device::{Cx, Device, IoHandler, PciFunction, RealizeCx, TimerHandler};
use crate::devices::storage::blk::BootIndex;
use crate::memory::IoSpec;
use crate::net::{NetFrontend, NetId};
use crate::pci::{BarKind, PciIds, PciProps, PciState};
use crate::qom::{DeviceClass, MacAddr, NetdevRef};
use crate::QResult;

const MMIO: u32 = 0;
const IO: u32 = 1;
const MMIO_SIZE: u64 = 0x20000;
const IO_SIZE: u64 = 64;

/// Timers.
const LINK_TIMER: u32 = 0;
const IRQ_TIMER: u32 = 1;

/// Switches among the properties.
#[derive(Clone, Copy, Debug)]
struct Options {
    autonegotiation: bool,
    mitigation: bool,
    extra_registers: bool,
    init_vet: bool,
}

macro_rules! e1000_class {
    ($(#[$m:meta])* $name:ident, $class:literal $(, alias = $alias:literal)?; $device:literal, $phy:literal) => {
        $(#[$m])*
        #[derive(DeriveDevice, Debug)]
        #[class(name = $class, parent = "e1000-base", bus = Pci, category = Network, $(alias = $alias,)?
                desc = "Intel Gigabit Ethernet", hotplug)]
        pub struct $name {
            /// Ethernet address, for example 52:54:00:12:34:56
            #[prop]
            pub mac: MacAddr,
            /// ID of a netdev to use as a backend
            #[prop]
            pub netdev: NetdevRef,
            /// on/off
            #[prop(default = true)]
            pub autonegotiation: bool,
            /// on/off
            #[prop(default = true)]
            pub mitigation: bool,
            /// on/off
            #[prop(name = "extra_mac_registers", default = true)]
            pub extra_mac_registers: bool,
            /// on/off
            #[prop(name = "migrate_tso_props", default = true)]
            pub migrate_tso_props: bool,
            /// on/off
            #[prop(default = true)]
            pub init_vet: bool,
            #[prop(object)]
            pub bootindex: BootIndex,
            /// Properties of every PCI device.
            #[base]
            pub pci: PciProps,
        }

        impl DeviceClass for $name {
            fn realize(&mut self, cx: &mut RealizeCx<'_>) -> QResult<Box<dyn Device>> {
                let options = Options {
                    autonegotiation: self.autonegotiation,
                    mitigation: self.mitigation,
                    extra_registers: self.extra_mac_registers,
                    init_vet: self.init_vet,
                };
                let model = Model { class: $class, device: $device, phy_id2: $phy };
                realize(cx, model, options, &mut self.mac, &self.netdev, &mut self.pci)
            }
        }
    };
}

e1000_class!(
    /// 82540EM.
    E1000Props, "e1000", alias = "e1000-82540em"; 0x100e, 0x0c20
);
e1000_class!(
    /// 82544GC.
    E1000Gc82544Props, "e1000-82544gc"; 0x100c, 0x0c30
);
e1000_class!(
    /// 82545EM.
    E1000Em82545Props, "e1000-82545em"; 0x100f, 0x0c20
);

/// What differs between the models.
struct Model {
    class: &'static str,
    device: u16,
    phy_id2: u16,
}

fn realize(
    cx: &mut RealizeCx<'_>,
    model: Model,
    options: Options,
    mac: &mut MacAddr,
    netdev: &NetdevRef,
    props: &mut PciProps,
) -> QResult<Box<dyn Device>> {
    let mut pci = PciState::new(PciIds {
        vendor: 0x8086,
        device: model.device,
        revision: 3,
        class: 0x0200,
        prog_if: 0,
        subsystem: None,
    });
    pci.set_interrupt_pin(1);
    let spec = IoSpec { valid: (1, 8), imp: (4, 4), unaligned: false };
    let bar = cx.io_region("e1000-mmio", MMIO_SIZE, MMIO, spec);
    pci.add_bar(0, bar, MMIO_SIZE, BarKind::Mem32);
    let bar = cx.io_region("e1000-io", IO_SIZE, IO, IoSpec::ANY);
    pci.add_bar(1, bar, IO_SIZE, BarKind::Io);
    super::boot_rom(cx, &mut pci, props, model.class, "efi-e1000.rom")?;
    cx.pci_attach(&mut pci, props.addr.0, props.multifunction)?;
    props.addr.0 = i32::from(pci.devfn);
    let nic = super::connect(cx, model.class, netdev, mac)?;
    let mut d = E1000 {
        pci,
        nic,
        mac: mac.0,
        options,
        regs: Regs::new(options.extra_registers),
        eeprom: Eeprom::new(mac.0, model.device),
        phy: Phy::new(model.phy_id2),
        tx: tx::Transmitter::default(),
        irq: irq::Moderation::default(),
        link_down: false,
        buf: Vec::new(),
    };
    d.power_on();
    Ok(Box::new(d))
}

/// A card.
pub struct E1000 {
    pci: PciState,
    nic: NetId,
    /// Its built-in address.
    mac: [u8; 6],
    options: Options,
    regs: Regs,
    eeprom: Eeprom,
    phy: Phy,
    tx: tx::Transmitter,
    irq: irq::Moderation,
    link_down: bool,
    /// Frame being received.
    buf: Vec<u8>,
}

impl E1000 {
    /// Registers as after power-on.
    fn power_on(&mut self) {
        self.regs.power_on(self.mac, self.options.init_vet);
        self.eeprom.power_on();
        self.phy.power_on();
        self.tx = tx::Transmitter::default();
        self.irq = irq::Moderation::default();
    }

    fn read_register(&mut self, cx: &mut Cx<'_>, at: u32) -> u32 {
        match at {
            reg::EECD => self.eeprom.control(),
            reg::EERD => self.eeprom.read_result(),
            reg::ICR => self.read_icr(cx),
            reg::ICS => self.regs.get(reg::ICR),
            reg::IMC => 0,
            _ => self.regs.read(at),
        }
    }

    fn write_register(&mut self, cx: &mut Cx<'_>, at: u32, v: u32) {
        match at {
            reg::CTRL => self.regs.set(at, v & !regs::CTRL_RST),
            reg::EECD => self.eeprom.set_control(v),
            reg::EERD => self.eeprom.start_read(v),
            reg::MDIC => self.mdic(cx, v),
            reg::ICR => self.clear_causes(cx, v),
            reg::ICS => self.raise(cx, v),
            reg::IMS => self.set_mask(cx, self.regs.get(reg::IMS) | v),
            reg::IMC => self.set_mask(cx, self.regs.get(reg::IMS) & !v),
            reg::ITR | reg::RDTR | reg::RADV | reg::TADV if !self.options.mitigation => {}
            reg::RCTL => {
                self.regs.set(at, v);
                cx.m.net_flush(self.nic);
            }
            reg::RDT => {
                self.regs.set(at, v & 0xffff);
                cx.m.net_flush(self.nic);
            }
            reg::TCTL => {
                self.regs.set(at, v);
                self.transmit(cx);
            }
            reg::TDT => {
                self.regs.set(at, v & 0xffff);
                self.transmit(cx);
            }
            _ => {
                self.regs.write(at, v);
                if at == reg::RAH0 {
                    cx.m.net_set_mac(self.nic, MacAddr(self.regs.address(0)));
                }
            }
        }
    }
}

impl IoHandler for E1000 {
    fn read(&mut self, cx: &mut Cx<'_>, region: u32, offset: u64, _size: u8) -> u64 {
        match region {
            MMIO => u64::from(self.read_register(cx, offset as u32)),
            _ => 0,
        }
    }

    fn write(&mut self, cx: &mut Cx<'_>, region: u32, offset: u64, _size: u8, value: u64) {
        if region == MMIO {
            self.write_register(cx, offset as u32, value as u32);
        }
    }
}

impl PciFunction for E1000 {
    fn state(&mut self) -> &mut PciState {
        &mut self.pci
    }

    fn config_written(&mut self, cx: &mut Cx<'_>, addr: u16, _len: u8) {
        if usize::from(addr) == crate::pci::reg::COMMAND && self.pci.bus_master() {
            cx.m.net_flush(self.nic);
        }
    }
}

impl TimerHandler for E1000 {
    fn expired(&mut self, cx: &mut Cx<'_>, id: u32) {
        match id {
            LINK_TIMER => self.negotiated(cx),
            _ => self.moderation_over(cx),
        }
    }
}

impl NetFrontend for E1000 {
    fn can_receive(&mut self, _queue: u32) -> bool {
        self.rx_ready() && self.has_buffers(1)
    }

    fn receive(&mut self, cx: &mut Cx<'_>, _queue: u32, frame: &[u8]) -> bool {
        self.take_frame(cx, frame);
        true
    }

    fn link_changed(&mut self, cx: &mut Cx<'_>, up: bool) {
        self.set_link(cx, up);
    }
}

impl Device for E1000 {
    fn reset(&mut self, cx: &mut Cx<'_>) {
        cx.timer_set(LINK_TIMER, None);
        cx.timer_set(IRQ_TIMER, None);
        self.power_on();
        self.pci.set_intx(cx, false);
        if self.link_down {
            self.link_lost();
        }
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
