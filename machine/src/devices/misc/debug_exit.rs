//! Debug exit port: a write ends the process with an odd status made from the value.

use rqemu_derive::Device;

use crate::device::{Cx, Device, IoHandler, RealizeCx};
use crate::memory::{IoSpec, Space};
use crate::qom::DeviceClass;
use crate::QResult;

/// Debug exit port.
#[derive(Device)]
#[class(name = "isa-debug-exit", parent = "isa-device", bus = Isa, category = Misc)]
pub struct DebugExitProps {
    /// First port
    #[prop(default = 0x501u32)]
    pub iobase: u32,
    /// Number of ports
    #[prop(default = 2u32)]
    pub iosize: u32,
}

impl DeviceClass for DebugExitProps {
    fn realize(&mut self, cx: &mut RealizeCx<'_>) -> QResult<Box<dyn Device>> {
        // Ports beyond 64 Ki are accepted and never reached.
        let r = cx.io_region("isa-debug-exit", u64::from(self.iosize), 0, IoSpec::ANY);
        cx.map(Space::Io, r, u64::from(self.iobase), 0);
        Ok(Box::new(DebugExit))
    }
}

/// The port at run time.
pub struct DebugExit;

impl Device for DebugExit {
    fn reset(&mut self, _cx: &mut Cx<'_>) {}
    fn io(&mut self) -> Option<&mut dyn IoHandler> {
        Some(self)
    }
    fn as_any(&mut self) -> &mut dyn std::any::Any {
        self
    }
}

impl IoHandler for DebugExit {
    fn read(&mut self, _cx: &mut Cx<'_>, _region: u32, _offset: u64, _size: u8) -> u64 {
        0
    }
    fn write(&mut self, cx: &mut Cx<'_>, _region: u32, _offset: u64, _size: u8, value: u64) {
        cx.m.run.request_exit((value << 1 | 1) as i32);
    }
}
