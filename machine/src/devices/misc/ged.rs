//! `acpi-ged-x86`: Generic Event Device (ACPI 6, section 5.6.9) with sleep and reset registers, the power management
//! of hardware-reduced boards.
//!
//! Left out: memory and CPU hotplug events.

use std::any::Any;

use rqemu_derive::Device as DeriveDevice;

use crate::device::{Cx, DevId, Device, DeviceTree, IoHandler, RealizeCx};
use crate::irq::{IrqLine, IrqSink};
use crate::machine::{Cause, Machine};
use crate::memory::{IoSpec, RegionKind, Space};
use crate::qom::DeviceClass;
use crate::QResult;

/// Pending events: 4 bytes, reading clears them.
const EVENTS: u64 = 0xfea0_0000;
/// Sleep control, sleep status, reset.
const REGS: u64 = 0xfea0_0200;
/// Global interrupt.
const IRQ: u32 = 9;
/// Power button event.
const POWER_BUTTON: u32 = 2;
const SLEEP_CONTROL: u64 = 0;
const RESET: u64 = 2;
const RESET_VALUE: u64 = 0x42;
/// SLP_EN with SLP_TYP 5.
const SLEEP_S5: u64 = 1 << 5 | 5 << 2;

const TAG_EVENTS: u32 = 0;
const TAG_REGS: u32 = 1;

/// Properties.
#[derive(DeriveDevice, Debug)]
#[class(name = "acpi-ged-x86", parent = "acpi-ged", bus = System, category = Misc, internal)]
pub struct GedProps {
    /// Events that the device knows, as bits
    #[prop(name = "ged-event")]
    pub ged_event: u32,
}

impl DeviceClass for GedProps {
    fn realize(&mut self, cx: &mut RealizeCx<'_>) -> QResult<Box<dyn Device>> {
        let spec = IoSpec { valid: (1, 4), imp: (4, 4), unaligned: false };
        let events = cx.io_region("acpi-ged", 4, TAG_EVENTS, spec);
        cx.map(Space::Memory, events, EVENTS, 0);
        let regs = cx.io_region("acpi-ged-regs", 3, TAG_REGS, IoSpec::BYTES);
        cx.map(Space::Memory, regs, REGS, 0);
        // Memory hotplug, which no board that has this device uses.
        let dev = cx.id();
        let memhp = cx.m().mem.add("memhp container", 0x18, RegionKind::Container, Some(dev));
        for r in [events, memhp, regs] {
            cx.mmio(r);
        }
        cx.gpio("sysbus-irq", false, 1);
        let irq = cx.irq_line(IrqSink::Gsi(IRQ));
        Ok(Box::new(Ged { known: self.ged_event, pending: 0, irq }))
    }
}

/// The device at run time.
pub struct Ged {
    known: u32,
    pending: u32,
    irq: IrqLine,
}

/// Adds the device to a board.
///
/// # Errors
/// Bad global properties.
pub fn create(m: &mut Machine) -> QResult<DevId> {
    let events = POWER_BUTTON.to_string();
    let props = [("ged-event", crate::qom::PropInput::Str(&events))];
    m.add_board_device("acpi-ged-x86", Some(DeviceTree::SYSTEM), &props)
}

impl Device for Ged {
    fn reset(&mut self, _cx: &mut Cx<'_>) {
        self.pending = 0;
    }
    fn io(&mut self) -> Option<&mut dyn IoHandler> {
        Some(self)
    }
    fn power_button(&mut self, cx: &mut Cx<'_>) {
        self.pending |= POWER_BUTTON & self.known;
        cx.pulse_irq(self.irq);
    }
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

impl IoHandler for Ged {
    fn read(&mut self, _cx: &mut Cx<'_>, region: u32, _offset: u64, _size: u8) -> u64 {
        match region {
            TAG_EVENTS => u64::from(std::mem::take(&mut self.pending)),
            _ => 0,
        }
    }
    fn write(&mut self, cx: &mut Cx<'_>, region: u32, offset: u64, _size: u8, value: u64) {
        match (region, offset) {
            (TAG_REGS, SLEEP_CONTROL) if value & 0x3c == SLEEP_S5 => {
                cx.request_shutdown(Cause::GuestShutdown);
            }
            (TAG_REGS, RESET) if value == RESET_VALUE => cx.request_reset(Cause::GuestReset),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::testing::machine;

    #[test]
    fn button_sleep_and_reset() {
        let mut m = machine();
        let dev = create(&mut m).unwrap();
        m.settle();
        m.with_dev(dev, |d, cx| d.power_button(cx));
        assert_eq!(m.guest_read(Space::Memory, EVENTS, 4), 2);
        assert_eq!(m.guest_read(Space::Memory, EVENTS, 4), 0);
        m.guest_write(Space::Memory, REGS, 1, 0x28);
        assert!(m.run.requests.shutdown.is_none());
        m.guest_write(Space::Memory, REGS + 2, 1, 0x41);
        assert!(m.run.requests.reset.is_none());
        m.guest_write(Space::Memory, REGS + 2, 1, 0x42);
        assert!(m.run.requests.reset.is_some());
        m.guest_write(Space::Memory, REGS, 1, 0x34);
        assert!(m.run.requests.shutdown.is_some());
    }
}
