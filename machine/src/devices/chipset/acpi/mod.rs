//! ACPI fixed hardware and hot-plug interfaces that the PIIX4 and ICH9 power management functions share
//! (ACPI Specification 5.0, chapter 4; QEMU's `docs/specs/acpi_*` for hot plug).

pub mod cpuhp;
pub mod gpe;
pub mod pcihp;
pub mod pm1;

pub use cpuhp::CpuHotplug;
pub use gpe::Gpe;
pub use pcihp::PciHotplug;
pub use pm1::Pm1;

use crate::device::Cx;
use crate::irq::IrqLine;

/// Bits of general-purpose event block 0 that hot plug uses.
pub mod event {
    /// PCI hot plug.
    pub const PCI: u8 = 1 << 1;
    /// CPU hot plug.
    pub const CPU: u8 = 1 << 2;
    /// Memory hot plug.
    pub const MEMORY: u8 = 1 << 3;
}

/// The registers that drive the system control interrupt.
pub struct AcpiRegs {
    /// Power management event, control and timer registers.
    pub pm1: Pm1,
    /// General-purpose events.
    pub gpe: Gpe,
    /// System control interrupt.
    pub sci: IrqLine,
    /// Timer number (of the device) for the overflow of the power management timer.
    pub timer: u32,
}

impl AcpiRegs {
    /// Recomputes the interrupt, and arms the timer for the next overflow if its interrupt is enabled.
    pub fn update_sci(&mut self, cx: &mut Cx<'_>) {
        let level = self.pm1.active(cx.now()) || self.gpe.active();
        cx.set_irq(self.sci, level);
        let at = self.pm1.next_interrupt(cx.now());
        cx.timer_set(self.timer, at);
    }

    /// Raises general-purpose events.
    pub fn raise(&mut self, cx: &mut Cx<'_>, bits: u8) {
        self.gpe.raise(bits);
        self.update_sci(cx);
    }

    /// The power button: noticed only if the guest enabled it.
    pub fn power_button(&mut self, cx: &mut Cx<'_>) {
        if self.pm1.press_power_button() {
            self.update_sci(cx);
        }
    }

    /// Power-on state.
    pub fn reset(&mut self, cx: &mut Cx<'_>) {
        self.pm1.reset();
        self.gpe.reset();
        self.update_sci(cx);
    }
}
