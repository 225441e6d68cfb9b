//! PIIX3 PCI-to-ISA bridge (82371SB, datasheet 290550): bus `isa.0`, routing of PIRQA-D to ISA interrupts, reset
//! control register.
//!
//! Left out, as in QEMU: X-bus chip selects, distributed DMA and the APM registers of this function (the
//! power management function has them). Tested by unit tests and against a real QEMU (`chipset::tests`).

use rqemu_derive::Device;

use crate::device::{BusId, BusKind, Cx, DevId, Device, IoHandler, IrqInputs, PciFunction, RealizeCx};
use crate::irq::IrqSink;
use crate::machine::{Cause, Machine};
use crate::memory::{IoSpec, Space};
use crate::pci::{PciIds, PciProps, PciState};
use crate::qom::{DeviceClass, PropInput};
use crate::{qerr, QResult};

/// PIRQ route control A; B-D follow.
const PIRQRCA: usize = 0x60;
/// Number of PIRQ lines.
const PIRQS: usize = 4;

/// Registers with reset values other than zero (QEMU's, observed).
const RESET: [(usize, u8); 13] = [
    (0x4c, 0x4d),
    (0x4e, 0x03),
    (0x60, 0x80),
    (0x61, 0x80),
    (0x62, 0x80),
    (0x63, 0x80),
    (0x69, 0x02),
    (0x70, 0x80),
    (0x76, 0x0c),
    (0x77, 0x0c),
    (0x78, 0x02),
    (0xa0, 0x08),
    (0xa8, 0x0f),
];

/// PIRQ that pin `pin` (0 = INTA) of slot `slot` on the root bus leads to.
pub fn route(slot: u8, pin: u8) -> usize {
    usize::from(slot.wrapping_sub(1).wrapping_add(pin) & 3)
}

/// ISA bridge.
#[derive(Device)]
#[class(name = "PIIX3", parent = "pci-piix3", bus = Pci, category = Bridge, desc = "ISA bridge", internal)]
pub struct Piix3Props {
    /// PCI properties
    #[base]
    pub pci: PciProps,
}

impl DeviceClass for Piix3Props {
    fn realize(&mut self, cx: &mut RealizeCx<'_>) -> QResult<Box<dyn Device>> {
        let mut pci =
            PciState::new(PciIds { vendor: 0x8086, device: 0x7000, class: 0x0601, ..PciIds::default() });
        // Medium DEVSEL timing.
        pci.set_word(crate::pci::reg::STATUS, 0x0200);
        for (at, v) in RESET {
            pci.config_mut()[at] = v;
        }
        cx.pci_attach(&mut pci, self.pci.addr.0, self.pci.multifunction)?;
        // It lies over the configuration address port, byte accesses to which have no other meaning.
        let rcr = cx.io_region("piix3-reset-control", 1, 0, IoSpec::BYTES);
        cx.map(Space::Io, rcr, 0xcf9, 1);
        let isa = cx.add_bus("isa.0".into(), BusKind::Isa);
        Ok(Box::new(Piix3 { pci, isa, rcr: 0, pirq_levels: [false; PIRQS], isa_levels: 0 }))
    }
}

/// The bridge at run time.
pub struct Piix3 {
    pci: PciState,
    isa: BusId,
    rcr: u8,
    pirq_levels: [bool; PIRQS],
    /// ISA interrupts that are raised on behalf of PIRQs.
    isa_levels: u16,
}

impl Piix3 {
    /// Bus `isa.0`.
    pub fn isa_bus(&self) -> BusId {
        self.isa
    }

    /// ISA interrupt that PIRQ `pirq` (0-3) leads to, if it is routed.
    pub fn pirq_irq(&self, pirq: usize) -> Option<u32> {
        let r = *self.pci.config().get(PIRQRCA + (pirq & 3))?;
        // Bit 7 switches the route off; like QEMU, reserved bits make a route that leads nowhere.
        (r < 16).then_some(u32::from(r))
    }

    /// Recomputes the levels of ISA interrupts from PIRQs: all PIRQs routed to an interrupt are ORed.
    fn update(&mut self, cx: &mut Cx<'_>) {
        let want = (0..PIRQS)
            .filter(|p| self.pirq_levels[*p])
            .filter_map(|p| self.pirq_irq(p))
            .fold(0u16, |m, irq| m | 1 << irq);
        let changed = want ^ self.isa_levels;
        self.isa_levels = want;
        for irq in (0..16).filter(|i| changed & (1 << i) != 0) {
            let line = cx.m.isa_irq(irq);
            cx.set_irq(line, want & (1 << irq) != 0);
        }
    }
}

impl Device for Piix3 {
    fn reset(&mut self, cx: &mut Cx<'_>) {
        self.rcr = 0;
        self.pirq_levels = [false; PIRQS];
        self.update(cx);
    }
    fn io(&mut self) -> Option<&mut dyn IoHandler> {
        Some(self)
    }
    fn pci(&mut self) -> Option<&mut dyn PciFunction> {
        Some(self)
    }
    fn irq_inputs(&mut self) -> Option<&mut dyn IrqInputs> {
        Some(self)
    }
    fn as_any(&mut self) -> &mut dyn std::any::Any {
        self
    }
}

impl PciFunction for Piix3 {
    fn state(&mut self) -> &mut PciState {
        &mut self.pci
    }
    fn config_written(&mut self, cx: &mut Cx<'_>, addr: u16, len: u8) {
        let (from, to) = (usize::from(addr), usize::from(addr) + usize::from(len));
        if from < PIRQRCA + PIRQS && to > PIRQRCA {
            self.update(cx);
        }
    }
}

impl IrqInputs for Piix3 {
    fn set_input(&mut self, cx: &mut Cx<'_>, pin: u32, level: bool) {
        if let Some(l) = self.pirq_levels.get_mut(pin as usize) {
            *l = level;
            self.update(cx);
        }
    }
}

impl IoHandler for Piix3 {
    fn read(&mut self, _cx: &mut Cx<'_>, _region: u32, _offset: u64, _size: u8) -> u64 {
        u64::from(self.rcr)
    }
    fn write(&mut self, cx: &mut Cx<'_>, _region: u32, _offset: u64, _size: u8, value: u64) {
        // Bit 2 resets the processor, bit 1 only selects what kind of reset that will be.
        if value & 4 != 0 {
            cx.request_reset(Cause::GuestReset);
        } else {
            self.rcr = value as u8 & 2;
        }
    }
}

/// What came into being.
#[derive(Clone, Copy, Debug)]
pub struct Piix3Parts {
    /// The bridge.
    pub dev: DevId,
    /// Bus `isa.0`.
    pub isa: BusId,
}

/// Puts the bridge at 01.0 of the root bus and connects the PIRQs of the host bridge to it.
///
/// # Errors
/// Only those of device creation.
pub fn create(m: &mut Machine, host: &super::i440fx::I440fxParts) -> QResult<Piix3Parts> {
    let props = [("addr", PropInput::Str("1.0")), ("multifunction", PropInput::Str("on"))];
    let dev = m.add_board_device("PIIX3", Some(host.bus), &props)?;
    for (i, line) in host.pirqs.iter().enumerate() {
        m.irqs.connect(*line, IrqSink::Device(dev, i as u32));
    }
    let isa = m.with::<Piix3, _>(dev, |p, _| p.isa).ok_or_else(|| qerr!("no ISA bridge"))?;
    Ok(Piix3Parts { dev, isa })
}
