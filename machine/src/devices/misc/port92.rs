//! System control port A (port 0x92): fast processor reset and the A20 gate.

use rqemu_derive::Device;

use crate::device::{Cx, Device, IoHandler, RealizeCx};
use crate::irq::{IrqLine, IrqSink};
use crate::machine::Cause;
use crate::memory::IoSpec;
use crate::qom::DeviceClass;
use crate::QResult;

const RESET: u8 = 1;
const A20: u8 = 2;

/// System control port A.
#[derive(Device)]
#[class(name = "port92", parent = "isa-device", bus = Isa, internal)]
pub struct Port92Props {}

impl DeviceClass for Port92Props {
    fn realize(&mut self, cx: &mut RealizeCx<'_>) -> QResult<Box<dyn Device>> {
        cx.map_ports("port92", 0x92, 1, 0, IoSpec::BYTE);
        cx.gpio("a20", false, 1);
        let a20 = cx.irq_line(IrqSink::None);
        Ok(Box::new(Port92 { a20, value: 0 }))
    }
}

/// The port at run time.
pub struct Port92 {
    a20: IrqLine,
    value: u8,
}

impl Port92 {
    /// The A20 line, for the board to connect (not connected by default).
    pub fn a20_line(&self) -> IrqLine {
        self.a20
    }
}

impl Device for Port92 {
    fn reset(&mut self, _cx: &mut Cx<'_>) {
        self.value &= !RESET;
    }
    fn io(&mut self) -> Option<&mut dyn IoHandler> {
        Some(self)
    }
    fn as_any(&mut self) -> &mut dyn std::any::Any {
        self
    }
}

impl IoHandler for Port92 {
    fn read(&mut self, _cx: &mut Cx<'_>, _region: u32, _offset: u64, _size: u8) -> u64 {
        u64::from(self.value)
    }
    fn write(&mut self, cx: &mut Cx<'_>, _region: u32, _offset: u64, _size: u8, value: u64) {
        let old = std::mem::replace(&mut self.value, value as u8);
        cx.set_irq(self.a20, self.value & A20 != 0);
        // Only the change from 0 to 1 resets.
        if self.value & RESET != 0 && old & RESET == 0 {
            cx.request_reset(Cause::GuestReset);
        }
    }
}
