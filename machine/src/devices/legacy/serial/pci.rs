//! `pci-serial`: a 16550A behind a PCI function (1b36:0002), registers in BAR 0, interrupt pin A.

use rqemu_derive::Device as DeriveDevice;

use super::{one_uart, AnyMut, SerialProps, Uart, UartState};
use crate::device::{Cx, Device, IoHandler, PciFunction, RealizeCx, TimerHandler};
use crate::devices::legacy::part::{load_state, save_state};
use crate::memory::IoSpec;
use crate::pci::{BarKind, PciIds, PciProps, PciState};
use crate::qom::{ChardevRef, DeviceClass};
use crate::state::SaveState;
use crate::QResult;

/// Properties of `pci-serial`.
#[derive(DeriveDevice, Debug)]
#[class(name = "pci-serial", parent = "pci-device", bus = Pci, category = Input, hotplug, extra("serial", "child<serial>"))]
pub struct PciSerialProps {
    /// Programming interface in the class code
    #[prop(name = "prog_if", default = 2u8)]
    pub prog_if: u8,
    /// ID of a chardev to use as a backend
    #[prop(object)]
    pub chardev: ChardevRef,
    /// Rate at divisor 1
    #[prop(object, default = 115_200u32)]
    pub baudbase: u32,
    /// Input wakes the machine from suspend
    #[prop(object)]
    pub wakeup: bool,
    /// Properties of every PCI device.
    #[base]
    pub pci: PciProps,
}

impl DeviceClass for PciSerialProps {
    fn realize(&mut self, cx: &mut RealizeCx<'_>) -> QResult<Box<dyn Device>> {
        let p = SerialProps { chardev: self.chardev.clone(), baudbase: self.baudbase, wakeup: self.wakeup };
        let uart = Uart::realize(cx, "serial", &p, 0, 0)?;
        let mut pci = PciState::new(PciIds {
            vendor: 0x1b36,
            device: 0x0002,
            revision: 1,
            class: 0x0700,
            prog_if: self.prog_if,
            subsystem: None,
        });
        pci.set_interrupt_pin(1);
        let bar = cx.io_region("serial", 8, 0, IoSpec::BYTES);
        pci.add_bar(0, bar, 8, BarKind::Io);
        cx.pci_attach(&mut pci, self.pci.addr.0, self.pci.multifunction)?;
        Ok(Box::new(PciSerial { uart, pci, level: false }))
    }
}

/// A PCI serial port.
pub struct PciSerial {
    uart: Uart,
    pci: PciState,
    level: bool,
}

impl PciSerial {
    fn sync(&mut self, cx: &mut Cx<'_>) {
        let level = self.uart.irq_level();
        if level != self.level {
            self.level = level;
            self.pci.set_intx(cx, level);
        }
    }
}

one_uart!(PciSerial);

impl PciFunction for PciSerial {
    fn state(&mut self) -> &mut PciState {
        &mut self.pci
    }
}

impl Device for PciSerial {
    fn reset(&mut self, cx: &mut Cx<'_>) {
        self.uart.reset(cx);
        self.level = false;
        self.pci.set_intx(cx, false);
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
    fn chardev(&mut self) -> Option<&mut dyn crate::chardev::CharFrontend> {
        Some(self)
    }
    fn state(&mut self) -> Option<&mut dyn SaveState> {
        Some(self)
    }
    fn as_any(&mut self) -> AnyMut<'_> {
        self
    }
}

impl SaveState for PciSerial {
    fn section(&self) -> (&'static str, u32) {
        ("pci-serial", 1)
    }
    fn save(&mut self, _cx: &mut Cx<'_>) -> QResult<serde_json::Value> {
        save_state("pci-serial", self.uart.state())
    }
    fn load(&mut self, cx: &mut Cx<'_>, _version: u32, state: &serde_json::Value) -> QResult<()> {
        self.uart.set_state(cx, load_state::<UartState>("pci-serial", state)?);
        self.sync(cx);
        Ok(())
    }
}
