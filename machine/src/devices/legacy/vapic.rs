//! `kvmvapic`: the two ports of the option ROM that speeds up guests' accesses to the task priority register.
//!
//! The ROM (`kvmvapic.bin`, see the firmware files of the board) tells at port 0x7e where it lies; a hypervisor may then
//! patch instructions of 32-bit guests to call it instead of trapping. No guest is patched here: each access goes to the
//! local APIC, which a guest cannot tell apart. So the ports take what the ROM says and read as nobody does.

use std::any::Any;

use rqemu_derive::Device as DeriveDevice;

use crate::device::{Cx, Device, IoHandler, RealizeCx};
use crate::memory::{IoSpec, Owner, RegionKind};
use crate::qom::DeviceClass;
use crate::QResult;

const PORT: u64 = 0x7e;

/// Properties of `kvmvapic`.
#[derive(DeriveDevice, Debug)]
#[class(name = "kvmvapic", parent = "sys-bus-device", bus = System, internal)]
pub struct KvmVapicProps {}

impl DeviceClass for KvmVapicProps {
    fn realize(&mut self, cx: &mut RealizeCx<'_>) -> QResult<Box<dyn Device>> {
        let dev = cx.id();
        let mem = &mut cx.m().mem;
        let kind = RegionKind::Io { owner: Owner::Nobody, spec: IoSpec::ANY };
        let ports = mem.add("kvmvapic", 2, kind, Some(dev));
        mem.map(mem.io, ports, PORT, 0);
        Ok(Box::new(KvmVapic))
    }
}

/// The ports at run time.
struct KvmVapic;

impl Device for KvmVapic {
    fn reset(&mut self, _cx: &mut Cx<'_>) {}
    fn io(&mut self) -> Option<&mut dyn IoHandler> {
        None
    }
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

#[cfg(test)]
mod tests {
    use crate::device::testing::machine;

    #[test]
    fn the_ports_read_as_ones_and_take_writes() {
        let mut m = machine();
        m.add::<super::KvmVapicProps>(&[]);
        m.outb(0x7e, 1);
        assert_eq!((m.inb(0x7e), m.inb(0x7f)), (0xff, 0xff));
    }
}
