//! `pc-testdev`: ports and memory for test programs that run in place of an operating system (kvm-unit-tests).
//!
//! Ports 0xe0-0xe3 and 0xe8-0xeb are four bytes that keep what is written; a port from 0x2000 on sets the level of an
//! interrupt; 64 KiB at 0xff000000 are memory behind a handler. Writing a page's address to 0xe4 asks the host to drop
//! its mapping, which a guest cannot see.

use std::any::Any;

use rqemu_derive::Device as DeriveDevice;

use crate::device::{Cx, Device, IoHandler, RealizeCx};
use crate::irq::{IrqLine, IrqSink};
use crate::memory::{IoSpec, Owner, RegionKind, Space};
use crate::qom::DeviceClass;
use crate::QResult;

const MEMORY: u64 = 0xff00_0000;
const MEMORY_LEN: usize = 0x1_0000;
/// Global interrupts that can be set.
const LINES: u32 = 24;

/// Region tags.
const BYTES: u32 = 0;
const IRQS: u32 = 1;
const BUFFER: u32 = 2;

/// Properties of `pc-testdev`.
#[derive(DeriveDevice, Debug)]
#[class(name = "pc-testdev", parent = "isa-device", bus = Isa, category = Misc)]
pub struct PcTestdevProps {}

impl DeviceClass for PcTestdevProps {
    fn realize(&mut self, cx: &mut RealizeCx<'_>) -> QResult<Box<dyn Device>> {
        cx.map_ports("pc-testdev-ioport", 0xe0, 4, BYTES, IoSpec::ANY);
        cx.map_ports("pc-testdev-ioport-byte", 0xe8, 4, BYTES, IoSpec::BYTES);
        let dev = cx.id();
        let flush = RegionKind::Io { owner: Owner::Kernel, spec: IoSpec::ANY };
        let mem = &mut cx.m().mem;
        let flush = mem.add("pc-testdev-flush-page", 4, flush, Some(dev));
        mem.map(mem.io, flush, 0xe4, 0);
        cx.map_ports("pc-testdev-irq-line", 0x2000, LINES, IRQS, IoSpec::BYTES);
        let buffer = cx.io_region("pc-testdev-iomem", MEMORY_LEN as u64, BUFFER, IoSpec::ANY8);
        cx.map(Space::Memory, buffer, MEMORY, 0);
        let lines = (0..LINES).map(|n| cx.irq_line(IrqSink::Gsi(n))).collect();
        let buffer = vec![0; MEMORY_LEN].into_boxed_slice();
        Ok(Box::new(PcTestdev { bytes: [0; 4], buffer, lines }))
    }
}

/// The device at run time.
pub struct PcTestdev {
    bytes: [u8; 4],
    buffer: Box<[u8]>,
    lines: Vec<IrqLine>,
}

impl PcTestdev {
    fn store(&mut self, region: u32) -> &mut [u8] {
        if region == BUFFER {
            &mut self.buffer
        } else {
            &mut self.bytes
        }
    }
}

impl Device for PcTestdev {
    fn reset(&mut self, _cx: &mut Cx<'_>) {}
    fn io(&mut self) -> Option<&mut dyn IoHandler> {
        Some(self)
    }
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

impl IoHandler for PcTestdev {
    fn read(&mut self, _cx: &mut Cx<'_>, region: u32, offset: u64, size: u8) -> u64 {
        if region == IRQS {
            return 0;
        }
        let store = self.store(region);
        (0..usize::from(size))
            .filter_map(|i| Some((i, store.get(offset as usize + i)?)))
            .fold(0, |v, (i, b)| v | u64::from(*b) << (8 * i))
    }

    fn write(&mut self, cx: &mut Cx<'_>, region: u32, offset: u64, size: u8, value: u64) {
        if region == IRQS {
            if let Some(line) = self.lines.get(offset as usize) {
                cx.set_irq(*line, value & 0xff != 0);
            }
            return;
        }
        let store = self.store(region);
        for i in 0..usize::from(size) {
            if let Some(b) = store.get_mut(offset as usize + i) {
                *b = (value >> (8 * i)) as u8;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::testing::machine;

    #[test]
    fn same_as_qemu() {
        let mut m = machine();
        m.add::<PcTestdevProps>(&[]);
        let io = Space::Io;
        m.guest_write(io, 0xe0, 4, 0x1122_3344);
        assert_eq!((m.guest_read(io, 0xe0, 2), m.guest_read(io, 0xe2, 2)), (0x3344, 0x1122));
        m.outb(0xe1, 0x99);
        assert_eq!(m.guest_read(io, 0xe8, 4), 0x1122_9944);
        m.guest_write(io, 0xe8, 2, 0x1234);
        m.outb(0xea, 0x42);
        assert_eq!(m.guest_read(io, 0xe0, 4), 0x1142_1234);
        m.guest_write(io, 0xe4, 4, 0x1000);
        assert_eq!((m.inb(0xe4), m.inb(0x2000)), (0, 0));
        let mem = Space::Memory;
        m.guest_write(mem, MEMORY, 4, 0x1234_5678);
        m.guest_write(mem, MEMORY + 2, 1, 0x99);
        assert_eq!((m.guest_read(mem, MEMORY, 8), m.guest_read(mem, MEMORY + 3, 2)), (0x1299_5678, 0x12));
        m.guest_write(mem, MEMORY + 0xfff8, 8, 0x1122_3344_5566_7788);
        assert_eq!(m.guest_read(mem, MEMORY + 0xfff8, 8), 0x1122_3344_5566_7788);
    }
}
