//! `isa-serial`: a 16550A at I/O ports with an ISA interrupt (COM1 to COM4).

use rqemu_derive::Device as DeriveDevice;

use super::{one_uart, AnyMut, SerialProps, Uart, UartState};
use crate::device::{Cx, Device, IoHandler, RealizeCx, TimerHandler};
use crate::devices::legacy::part::{load_state, save_state};
use crate::irq::IrqLine;
use crate::memory::IoSpec;
use crate::qom::{ChardevRef, DeviceClass};
use crate::state::SaveState;
use crate::{qerr, QResult};

/// Ports and interrupts of COM1 to COM4.
const PORTS: [(u16, u32); 4] = [(0x3f8, 4), (0x2f8, 3), (0x3e8, 4), (0x2e8, 3)];

/// Properties of `isa-serial`.
#[derive(DeriveDevice, Debug)]
#[class(name = "isa-serial", parent = "isa-device", bus = Isa, category = Input, extra("serial", "child<serial>"))]
pub struct IsaSerialProps {
    /// Which of COM1 to COM4 (0-3); all ones takes the next
    #[prop(default = u32::MAX)]
    pub index: u32,
    /// First port; all ones takes the usual one for the index
    #[prop(default = u32::MAX)]
    pub iobase: u32,
    /// Interrupt; all ones takes the usual one for the index
    #[prop(default = u32::MAX)]
    pub irq: u32,
    /// ID of a chardev to use as a backend
    #[prop(object)]
    pub chardev: ChardevRef,
    /// Rate at divisor 1
    #[prop(object, default = 115_200u32)]
    pub baudbase: u32,
    /// Input wakes the machine from suspend
    #[prop(object)]
    pub wakeup: bool,
}

impl DeviceClass for IsaSerialProps {
    fn realize(&mut self, cx: &mut RealizeCx<'_>) -> QResult<Box<dyn Device>> {
        if self.index == u32::MAX {
            let n = cx.m().tree.iter().filter(|n| n.class.name == "isa-serial" && n.realized).count();
            self.index = n as u32;
        }
        let Some(&(port, irq)) = PORTS.get(self.index as usize) else {
            return Err(qerr!("Max. supported number of ISA serial ports is {}.", PORTS.len()));
        };
        if self.iobase == u32::MAX {
            self.iobase = u32::from(port);
        }
        if self.irq == u32::MAX {
            self.irq = irq;
        }
        if self.irq > 15 {
            return Err(qerr!("Invalid IRQ {} for an ISA device", self.irq));
        }
        let Ok(base) = u16::try_from(self.iobase) else {
            return Err(qerr!("Invalid I/O base {:#x}", self.iobase));
        };
        let p = SerialProps { chardev: self.chardev.clone(), baudbase: self.baudbase, wakeup: self.wakeup };
        let uart = Uart::realize(cx, "serial", &p, 0, 0)?;
        let irq = cx.isa_irq(self.irq);
        cx.map_ports("serial", base, 8, 0, IoSpec::BYTES);
        Ok(Box::new(IsaSerial { uart, irq, level: false }))
    }
}

/// An ISA serial port.
pub struct IsaSerial {
    uart: Uart,
    irq: IrqLine,
    level: bool,
}

impl IsaSerial {
    fn sync(&mut self, cx: &mut Cx<'_>) {
        let level = self.uart.irq_level();
        if level != self.level {
            self.level = level;
            cx.set_irq(self.irq, level);
        }
    }
}

one_uart!(IsaSerial);

impl Device for IsaSerial {
    fn reset(&mut self, cx: &mut Cx<'_>) {
        self.uart.reset(cx);
        self.level = false;
        cx.set_irq(self.irq, false);
    }
    fn io(&mut self) -> Option<&mut dyn IoHandler> {
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

impl SaveState for IsaSerial {
    fn section(&self) -> (&'static str, u32) {
        ("serial", 3)
    }
    fn save(&mut self, _cx: &mut Cx<'_>) -> QResult<serde_json::Value> {
        save_state("serial", self.uart.state())
    }
    fn load(&mut self, cx: &mut Cx<'_>, _version: u32, state: &serde_json::Value) -> QResult<()> {
        self.uart.set_state(cx, load_state::<UartState>("serial", state)?);
        self.sync(cx);
        Ok(())
    }
}
