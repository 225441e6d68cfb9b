//! `isa-parallel`: parallel port with data, status and control registers (IBM PC/AT Technical Reference), a printer
//! on its other side: each strobed byte goes to the character device.
//!
//! Left out: EPP and ECP, and passing register accesses on to a host parallel port. When the back end is full the
//! printer stays busy until it took the byte. Tested: unit tests here; random register scripts against real QEMU.

use std::any::Any;

use rqemu_derive::Device as DeriveDevice;
use serde::{Deserialize, Serialize};

use super::part::save_field;
use crate::chardev::{CharFrontend, CharId};
use crate::device::{Cx, Device, IoHandler, RealizeCx};
use crate::irq::IrqLine;
use crate::memory::IoSpec;
use crate::qom::{ChardevRef, DeviceClass};
use crate::{qerr, QResult};

const PORTS: [u16; 3] = [0x378, 0x278, 0x3bc];

mod status {
    pub const TIMEOUT: u8 = 0x01;
    pub const NO_ERROR: u8 = 0x08;
    pub const ONLINE: u8 = 0x10;
    pub const NOT_ACK: u8 = 0x40;
    pub const NOT_BUSY: u8 = 0x80;
    pub const READY: u8 = NOT_BUSY | NOT_ACK | ONLINE | NO_ERROR;
}
mod control {
    pub const STROBE: u8 = 0x01;
    pub const NOT_INIT: u8 = 0x04;
    pub const SELECT: u8 = 0x08;
    pub const INTERRUPT: u8 = 0x10;
    pub const INPUT: u8 = 0x20;
    /// Bits that are always set.
    pub const ONES: u8 = 0xc0;
}

/// Properties of `isa-parallel`.
#[derive(DeriveDevice, Debug)]
#[class(name = "isa-parallel", parent = "isa-device", bus = Isa, category = Input)]
pub struct IsaParallelProps {
    /// Which of LPT1 to LPT3 (0-2); all ones takes the next
    #[prop(default = u32::MAX)]
    pub index: u32,
    /// First port; all ones takes the usual one for the index
    #[prop(default = u32::MAX)]
    pub iobase: u32,
    /// Interrupt
    #[prop(default = 7u32)]
    pub irq: u32,
    /// ID of a chardev to use as a backend
    #[prop]
    pub chardev: ChardevRef,
}

impl DeviceClass for IsaParallelProps {
    fn realize(&mut self, cx: &mut RealizeCx<'_>) -> QResult<Box<dyn Device>> {
        let Some(chr) = cx.connect_chardev("isa-parallel", "chardev", &self.chardev, 0)? else {
            return Err(qerr!("Can't create parallel device, empty char device"));
        };
        if self.index == u32::MAX {
            let n = cx.m().tree.iter().filter(|n| n.class.name == "isa-parallel" && n.realized).count();
            self.index = n as u32;
        }
        let Some(&port) = PORTS.get(self.index as usize) else {
            return Err(qerr!("Max. supported number of parallel ports is {}.", PORTS.len()));
        };
        if self.iobase == u32::MAX {
            self.iobase = u32::from(port);
        }
        if self.irq > 15 {
            return Err(qerr!("Invalid IRQ {} for an ISA device", self.irq));
        }
        let base = u16::try_from(self.iobase).map_err(|_| qerr!("Invalid I/O base {:#x}", self.iobase))?;
        let irq = cx.isa_irq(self.irq);
        cx.map_ports("parallel", base, 8, 0, IoSpec::BYTES);
        Ok(Box::new(Parallel { s: ParallelState::default(), chr, irq }))
    }
}

/// Saved state.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParallelState {
    data: u8,
    status: u8,
    control: u8,
    irq: bool,
    /// A byte that the back end has not taken yet.
    unsent: Option<u8>,
}

impl Default for ParallelState {
    fn default() -> Self {
        Self {
            data: 0xff,
            status: status::READY | status::TIMEOUT,
            control: control::ONES | control::SELECT | control::NOT_INIT,
            irq: false,
            unsent: None,
        }
    }
}

/// A parallel port.
pub struct Parallel {
    s: ParallelState,
    chr: CharId,
    irq: IrqLine,
}

impl Parallel {
    fn set_irq(&mut self, cx: &mut Cx<'_>, level: bool) {
        if self.s.irq != level {
            self.s.irq = level;
            cx.set_irq(self.irq, level);
        }
    }

    fn send(&mut self, cx: &mut Cx<'_>, byte: u8) {
        let taken = cx.chr_write(self.chr, &[byte]) > 0;
        self.s.unsent = if taken { None } else { Some(byte) };
    }

    fn read_status(&mut self, cx: &mut Cx<'_>) -> u8 {
        let v = self.s.status;
        self.set_irq(cx, false);
        let printing = v & status::NOT_BUSY == 0 && self.s.control & control::STROBE == 0;
        if printing && self.s.unsent.is_none() {
            // The acknowledge pulse is stretched over two reads, so that every guest sees it.
            self.s.status ^= status::NOT_ACK;
            if v & status::NOT_ACK == 0 {
                self.s.status |= status::NOT_BUSY;
            }
        }
        v
    }

    fn write_control(&mut self, cx: &mut Cx<'_>, v: u8) {
        let (old, v) = (self.s.control, v | control::ONES);
        self.s.control = v;
        if v & control::NOT_INIT == 0 {
            self.s.status = status::READY;
        } else if v & control::SELECT != 0 {
            if v & control::STROBE != 0 {
                self.s.status &= !status::NOT_BUSY;
                if old & control::STROBE == 0 {
                    let byte = self.s.data;
                    self.send(cx, byte);
                }
            } else if old & control::INTERRUPT != 0 {
                self.set_irq(cx, true);
            }
        }
    }
}

impl IoHandler for Parallel {
    fn read(&mut self, cx: &mut Cx<'_>, _region: u32, offset: u64, _size: u8) -> u64 {
        u64::from(match offset {
            0 if self.s.control & control::INPUT == 0 => self.s.data,
            1 => self.read_status(cx),
            2 => self.s.control,
            _ => 0xff,
        })
    }

    fn write(&mut self, cx: &mut Cx<'_>, _region: u32, offset: u64, _size: u8, value: u64) {
        match offset {
            0 => self.s.data = value as u8,
            2 => self.write_control(cx, value as u8),
            _ => {}
        }
    }
}

impl CharFrontend for Parallel {
    fn can_receive(&mut self, _port: u32) -> usize {
        0
    }
    fn receive(&mut self, _cx: &mut Cx<'_>, _port: u32, _data: &[u8]) {}
    fn writable(&mut self, cx: &mut Cx<'_>, _port: u32) {
        if let Some(b) = self.s.unsent {
            self.send(cx, b);
        }
    }
}

impl Device for Parallel {
    fn reset(&mut self, cx: &mut Cx<'_>) {
        self.s = ParallelState::default();
        cx.set_irq(self.irq, false);
    }
    fn io(&mut self) -> Option<&mut dyn IoHandler> {
        Some(self)
    }
    fn chardev(&mut self) -> Option<&mut dyn CharFrontend> {
        Some(self)
    }
    fn state(&mut self) -> Option<&mut dyn crate::state::SaveState> {
        Some(self)
    }
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

save_field!(Parallel, "parallel_isa", 1, s, |d, cx| cx.set_irq(d.irq, d.s.irq));

#[cfg(test)]
mod tests {
    use super::super::oracle::{compare, Lcg, Op, Qemu};
    use super::*;
    use crate::device::testing::machine;
    use crate::device::{DevId, Place};
    use crate::machine::Machine;
    use crate::qom::{Classed, PropInput};

    fn lpt() -> (Machine, DevId) {
        let mut m = machine();
        m.add_test_char("p");
        let d = m.add::<IsaParallelProps>(&[("chardev", PropInput::Str("p"))]);
        m.reset_devices();
        (m, d)
    }

    #[test]
    fn prints_with_interrupt_and_back_pressure() {
        let (mut m, d) = lpt();
        m.outb(0x378, b'x');
        m.outb(0x37a, 0x1d);
        assert_eq!(m.test_char("p", |c| c.out.clone()), b"x");
        m.outb(0x37a, 0x1c);
        assert!(m.isa_level(7));
        assert_eq!(m.inb(0x379) & 0xc0, 0x40);
        assert!(!m.isa_level(7));
        assert_eq!([m.inb(0x379) & 0xc0, m.inb(0x379) & 0xc0], [0, 0xc0]);

        m.test_char("p", |c| c.room = 0);
        m.outb(0x37a, 0x0d);
        m.outb(0x37a, 0x0c);
        for _ in 0..5 {
            assert_eq!(m.inb(0x379) & 0x80, 0, "busy");
        }
        m.test_char("p", |c| c.room = 1);
        m.with_dev(d, |d, cx| d.chardev().unwrap().writable(cx, 0));
        m.inb(0x379);
        m.inb(0x379);
        assert_eq!(m.inb(0x379) & 0x80, 0x80);
        assert_eq!(m.test_char("p", |c| c.out.clone()), b"xx");
    }

    #[test]
    fn needs_a_character_device() {
        let mut m = machine();
        let e = m.add_device(IsaParallelProps::CLASS, None, Place::Anon(0), &[]).unwrap_err();
        assert_eq!(e.desc, "Can't create parallel device, empty char device");
    }

    #[test]
    fn same_as_qemu() {
        let Some(mut q) = Qemu::start(&["-M", "pc", "-parallel", "null"]) else { return };
        let (mut m, _) = lpt();
        let mut r = Lcg(8);
        let script: Vec<Op> = (0..4000)
            .map(|_| {
                let port = 0x378 + r.below(8).min(3) as u16;
                match r.below(2) {
                    0 => Op::In(port),
                    _ => Op::Out(port, r.below(256) as u8 | (r.below(3).min(1) as u8 * 0x0c)),
                }
            })
            .collect();
        compare(&mut q, &mut m, &script);
    }
}
