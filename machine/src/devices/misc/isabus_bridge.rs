//! `isabus-bridge`: an ISA bus on a board without PCI.

use std::any::Any;

use rqemu_derive::Device as DeriveDevice;

use crate::device::{BusId, BusKind, Cx, Device, RealizeCx};
use crate::qom::DeviceClass;
use crate::QResult;

/// It has no properties.
#[derive(DeriveDevice, Debug)]
#[class(name = "isabus-bridge", parent = "sys-bus-device", bus = System, category = Bridge, internal)]
pub struct IsaBridgeProps {}

impl DeviceClass for IsaBridgeProps {
    fn realize(&mut self, cx: &mut RealizeCx<'_>) -> QResult<Box<dyn Device>> {
        Ok(Box::new(IsaBridge { bus: cx.add_bus("isa.0".into(), BusKind::Isa) }))
    }
}

/// The bridge at run time.
pub struct IsaBridge {
    bus: BusId,
}

impl IsaBridge {
    /// Its bus.
    pub fn bus(&self) -> BusId {
        self.bus
    }
}

impl Device for IsaBridge {
    fn reset(&mut self, _cx: &mut Cx<'_>) {}
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}
