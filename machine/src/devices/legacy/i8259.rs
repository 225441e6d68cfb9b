//! `isa-i8259`: 8259A programmable interrupt controller (Intel 8259A data sheet), with the edge/level register of
//! the PIIX. Two of them make a PC's pair; [`add_pair`] wires them.
//!
//! Tested: unit tests here; random register scripts with interrupts against real QEMU.

use std::any::Any;

use rqemu_derive::Device as DeriveDevice;
use serde::{Deserialize, Serialize};

use super::part::save_field;
use crate::device::{BusId, Cx, DevId, Device, IoHandler, IrqInputs, RealizeCx};
use crate::irq::{IrqLine, IrqSink};
use crate::machine::Machine;
use crate::memory::IoSpec;
use crate::qom::{DeviceClass, PropInput};
use crate::{qerr, QResult};

const REGION_ELCR: u32 = 1;

/// Properties of `isa-i8259` and `kvm-i8259`.
#[derive(DeriveDevice, Debug)]
pub struct PicProps {
    /// First port
    #[prop(default = u32::MAX)]
    pub iobase: u32,
    /// Port of the edge/level register
    #[prop(name = "elcr_addr", default = u32::MAX)]
    pub elcr_addr: u32,
    /// Inputs that can be level-triggered
    #[prop(name = "elcr_mask", default = 0xffu8)]
    pub elcr_mask: u8,
    /// The one that is connected to the processor
    #[prop]
    pub master: bool,
}

impl PicProps {
    /// Checked ports.
    pub(super) fn ports(&self) -> QResult<(u16, u16)> {
        let port = |p: u32| u16::try_from(p).map_err(|_| qerr!("Invalid I/O base {p:#x}"));
        Ok((port(self.iobase)?, port(self.elcr_addr)?))
    }
}

/// Properties of `isa-i8259`.
#[derive(DeriveDevice, Debug)]
#[class(name = "isa-i8259", parent = "pic-common", bus = Isa, internal)]
pub struct IsaPicProps {
    /// Properties of every such controller.
    #[base]
    pub pic: PicProps,
}

impl DeviceClass for IsaPicProps {
    fn realize(&mut self, cx: &mut RealizeCx<'_>) -> QResult<Box<dyn Device>> {
        let (base, elcr) = self.pic.ports()?;
        cx.map_ports("pic", base, 2, 0, IoSpec::BYTES);
        cx.map_ports("elcr", elcr, 1, REGION_ELCR, IoSpec::BYTES);
        cx.gpio("", true, 8);
        cx.gpio("", false, 1);
        let out = cx.irq_line(IrqSink::None);
        let (master, elcr_mask) = (self.pic.master, self.pic.elcr_mask);
        Ok(Box::new(Pic { s: PicState::default(), out, master, elcr_mask, slave: None, level: false }))
    }
}

/// Which initialization word comes next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Init {
    #[default]
    Done,
    Icw2,
    Icw3,
    Icw4,
}

/// Saved state.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PicState {
    /// Levels of the inputs at the last change, for edges.
    last_irr: u8,
    irr: u8,
    imr: u8,
    isr: u8,
    /// Input of highest priority.
    first: u8,
    irq_base: u8,
    read_isr: bool,
    poll: bool,
    special_mask: bool,
    init: Init,
    auto_eoi: bool,
    rotate_on_auto_eoi: bool,
    fully_nested: bool,
    wants_icw4: bool,
    single: bool,
    elcr: u8,
}

impl PicState {
    /// Distance of the highest-priority set bit from the top, 8 if none is set.
    fn priority(&self, bits: u8) -> u8 {
        bits.rotate_right(u32::from(self.first)).trailing_zeros() as u8
    }

    fn input_at(&self, priority: u8) -> u8 {
        priority.wrapping_add(self.first) & 7
    }

    /// The interrupt to deliver, if any.
    fn pending(&self, master: bool) -> Option<u8> {
        let p = self.priority(self.irr & !self.imr);
        if p == 8 {
            return None;
        }
        let mut busy = self.isr;
        if self.special_mask {
            busy &= !self.imr;
        }
        if self.fully_nested && master {
            busy &= !(1 << 2);
        }
        (p < self.priority(busy)).then(|| self.input_at(p))
    }

    /// The processor takes input `irq`.
    fn acknowledge(&mut self, irq: u8) {
        let bit = 1 << (irq & 7);
        if !self.auto_eoi {
            self.isr |= bit;
        } else if self.rotate_on_auto_eoi {
            self.first = (irq + 1) & 7;
        }
        // A level stays requested until its source is quiet.
        if self.elcr & bit == 0 {
            self.irr &= !bit;
        }
    }

    fn set_input(&mut self, pin: u8, level: bool) {
        let bit = 1 << (pin & 7);
        if self.elcr & bit != 0 {
            self.irr = self.irr & !bit | if level { bit } else { 0 };
        } else if level && self.last_irr & bit == 0 {
            self.irr |= bit;
        }
        self.last_irr = self.last_irr & !bit | if level { bit } else { 0 };
    }

    fn icw1(&mut self, v: u8) {
        *self = Self {
            // Edges are forgotten, levels are not.
            irr: self.irr & self.elcr,
            elcr: self.elcr,
            init: Init::Icw2,
            wants_icw4: v & 1 != 0,
            single: v & 2 != 0,
            ..Self::default()
        };
    }

    fn ocw2(&mut self, v: u8) {
        let named = v & 7;
        let mut ended = None;
        match v >> 5 {
            0 | 4 => self.rotate_on_auto_eoi = v & 0x80 != 0,
            1 | 5 => {
                let p = self.priority(self.isr);
                if p != 8 {
                    ended = Some(self.input_at(p));
                }
            }
            3 | 7 => ended = Some(named),
            6 => self.first = (named + 1) & 7,
            _ => {}
        }
        if let Some(irq) = ended {
            self.isr &= !(1 << irq);
            if v & 0x80 != 0 {
                self.first = (irq + 1) & 7;
            }
        }
    }

    fn ocw3(&mut self, v: u8) {
        if v & 4 != 0 {
            self.poll = true;
        }
        if v & 2 != 0 {
            self.read_isr = v & 1 != 0;
        }
        if v & 0x40 != 0 {
            self.special_mask = v & 0x20 != 0;
        }
    }

    /// Writes a register; `true` if the output has to be computed again.
    fn write(&mut self, offset: u64, v: u8) -> bool {
        if offset & 1 == 0 {
            if v & 0x10 != 0 {
                self.icw1(v);
            } else if v & 0x08 != 0 {
                self.ocw3(v);
                return false;
            } else {
                self.ocw2(v);
                return !matches!(v >> 5, 0 | 2 | 4);
            }
            return true;
        }
        match self.init {
            Init::Done => {
                self.imr = v;
                return true;
            }
            Init::Icw2 => {
                self.irq_base = v & 0xf8;
                self.init = match (self.single, self.wants_icw4) {
                    (false, _) => Init::Icw3,
                    (true, true) => Init::Icw4,
                    (true, false) => Init::Done,
                };
            }
            Init::Icw3 => self.init = if self.wants_icw4 { Init::Icw4 } else { Init::Done },
            Init::Icw4 => {
                self.fully_nested = v & 0x10 != 0;
                self.auto_eoi = v & 2 != 0;
                self.init = Init::Done;
            }
        }
        false
    }

    fn read(&mut self, offset: u64, master: bool) -> u8 {
        if std::mem::take(&mut self.poll) {
            let Some(irq) = self.pending(master) else { return 0 };
            self.acknowledge(irq);
            return irq | 0x80;
        }
        match (offset & 1, self.read_isr) {
            (1, _) => self.imr,
            (_, true) => self.isr,
            (_, false) => self.irr,
        }
    }
}

/// One controller.
pub struct Pic {
    s: PicState,
    out: IrqLine,
    master: bool,
    elcr_mask: u8,
    slave: Option<DevId>,
    level: bool,
}

impl Pic {
    /// Passes the output on: to the processor, or to the master.
    fn sync(&mut self, cx: &mut Cx<'_>) {
        let level = self.s.pending(self.master).is_some();
        let changed = self.level != level;
        self.level = level;
        if !self.master {
            // Told again even without a change: a master that was initialized in between sees it as an edge.
            cx.set_irq(self.out, level);
        } else if changed {
            cx.m.accel.set_intr(level);
        }
    }

    /// The processor acknowledges an interrupt; returns the vector.
    fn ack(&mut self, cx: &mut Cx<'_>) -> u8 {
        let Some(irq) = self.s.pending(self.master) else {
            // Gone in the meantime: the spurious interrupt.
            return self.s.irq_base.wrapping_add(7);
        };
        let slave = self.slave.filter(|_| irq == 2);
        let vector = match slave {
            Some(s) => cx.m.with::<Pic, _>(s, |p, cx| p.ack(cx)).unwrap_or(0),
            None => self.s.irq_base.wrapping_add(irq),
        };
        self.s.acknowledge(irq);
        self.sync(cx);
        vector
    }
}

/// The processor acknowledges the pair's interrupt: takes it from `master` (and the slave behind it) and returns the
/// vector. The caller settles the machine afterwards by itself, as any device call does.
pub fn acknowledge(m: &mut Machine, master: DevId) -> u8 {
    m.with::<Pic, _>(master, |p, cx| p.ack(cx)).unwrap_or(0)
}

/// Adds the two controllers of a PC on `bus` and connects the slave to the master's input 2. Returns both.
pub fn add_pair(m: &mut Machine, bus: Option<BusId>) -> QResult<(DevId, DevId)> {
    let props = |base, elcr, mask, master| {
        [
            ("iobase", PropInput::Str(base)),
            ("elcr_addr", PropInput::Str(elcr)),
            ("elcr_mask", PropInput::Str(mask)),
            ("master", PropInput::Str(master)),
        ]
    };
    let master = m.add_board_device("isa-i8259", bus, &props("0x20", "0x4d0", "0xf8", "on"))?;
    let slave = m.add_board_device("isa-i8259", bus, &props("0xa0", "0x4d1", "0xde", "off"))?;
    if let Some(out) = m.with::<Pic, _>(slave, |p, _| p.out) {
        m.irqs.connect(out, IrqSink::Device(master, 2));
    }
    m.with::<Pic, _>(master, |p, _| p.slave = Some(slave));
    Ok((master, slave))
}

impl IoHandler for Pic {
    fn read(&mut self, cx: &mut Cx<'_>, region: u32, offset: u64, _size: u8) -> u64 {
        if region == REGION_ELCR {
            return u64::from(self.s.elcr);
        }
        let polled = self.s.poll;
        let v = self.s.read(offset, self.master);
        if polled {
            self.sync(cx);
        }
        u64::from(v)
    }

    fn write(&mut self, cx: &mut Cx<'_>, region: u32, offset: u64, _size: u8, value: u64) {
        if region == REGION_ELCR {
            self.s.elcr = value as u8 & self.elcr_mask;
            return;
        }
        if self.s.write(offset, value as u8) {
            self.sync(cx);
        }
    }
}

impl IrqInputs for Pic {
    fn set_input(&mut self, cx: &mut Cx<'_>, pin: u32, level: bool) {
        self.s.set_input((pin & 7) as u8, level);
        self.sync(cx);
    }
}

impl Device for Pic {
    fn reset(&mut self, cx: &mut Cx<'_>) {
        self.s = PicState::default();
        self.level = true;
        self.sync(cx);
    }
    fn io(&mut self) -> Option<&mut dyn IoHandler> {
        Some(self)
    }
    fn irq_inputs(&mut self) -> Option<&mut dyn IrqInputs> {
        Some(self)
    }
    fn state(&mut self) -> Option<&mut dyn crate::state::SaveState> {
        Some(self)
    }
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

save_field!(Pic, "i8259", 1, s, |d, cx| {
    d.s.first &= 7;
    d.sync(cx);
});

#[cfg(test)]
mod tests {
    use super::super::oracle::{compare, Lcg, Op, Qemu};
    use super::*;
    use crate::device::testing::machine;

    fn pair() -> (Machine, DevId) {
        let mut m = machine();
        let (master, slave) = add_pair(&mut m, None).unwrap();
        crate::devices::legacy::connect_gsis(&mut m, Some((master, slave)), None);
        m.reset_devices();
        (m, master)
    }

    fn init(m: &mut Machine) {
        for (base, vector, cascade) in [(0x20, 0x08, 4), (0xa0, 0x70, 2)] {
            m.outb(base, 0x11);
            m.outb(base + 1, vector);
            m.outb(base + 1, cascade);
            m.outb(base + 1, 1);
        }
    }

    fn irq(m: &mut Machine, n: u32, level: bool) {
        let l = m.isa_irq(n);
        m.set_irq(l, level);
        m.settle();
    }

    #[test]
    fn priorities_and_cascade() {
        let (mut m, pic) = pair();
        init(&mut m);
        irq(&mut m, 4, true);
        irq(&mut m, 12, true);
        irq(&mut m, 1, true);
        assert_eq!(acknowledge(&mut m, pic), 0x09);
        m.outb(0x20, 0x20);
        assert_eq!(acknowledge(&mut m, pic), 0x74);
        // IRQ 4 waits for the end of the slave's interrupt.
        assert_eq!(acknowledge(&mut m, pic), 0x0f, "spurious");
        m.outb(0xa0, 0x20);
        m.outb(0x20, 0x20);
        assert_eq!(acknowledge(&mut m, pic), 0x0c);
        m.outb(0x20, 0x20);
        assert_eq!(acknowledge(&mut m, pic), 0x0f, "edges count once");
    }

    #[test]
    fn levels_repeat() {
        let (mut m, pic) = pair();
        init(&mut m);
        m.outb(0x4d1, 0xff);
        assert_eq!(m.inb(0x4d1), 0xde);
        irq(&mut m, 11, true);
        for _ in 0..3 {
            assert_eq!(acknowledge(&mut m, pic), 0x73);
            m.outb(0xa0, 0x20);
            m.outb(0x20, 0x20);
        }
        irq(&mut m, 11, false);
        assert_eq!(acknowledge(&mut m, pic), 0x77, "the master saw an edge, the slave has nothing any more");
        m.outb(0x20, 0x20);
        assert_eq!(acknowledge(&mut m, pic), 0x0f);
    }

    #[test]
    fn same_as_qemu() {
        let Some(mut q) = Qemu::start(&["-M", "pc", "-serial", "null"]) else { return };
        let (mut m, _) = pair();
        m.add::<crate::devices::legacy::i8042::I8042Props>(&[]);
        m.add::<crate::devices::legacy::serial::IsaSerialProps>(&[]);
        let mut r = Lcg(9);
        let mut script = vec![Op::Out(0x43, 0x30), Op::Out(0x20, 0x11), Op::Out(0xa0, 0x11)];
        for _ in 0..6000 {
            let port = [0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1, 0x20, 0xa0][r.below(8) as usize];
            match r.below(8) {
                0..=2 => script.push(Op::In(port)),
                // Edges come from the keyboard (1), mouse (12) and serial port (4).
                3 => script.extend([Op::Out(0x64, 0xd2 + r.below(2) as u8), Op::Out(0x60, 1)]),
                4 => script.push(Op::In(0x60)),
                5 => script.push(Op::Out(0x3f9, r.below(2) as u8 * 2)),
                // No rearming of edges by a change of the trigger mode: whose level is it then?
                _ if port >= 0x4d0 => {}
                // Initialization with all lines low: QEMU's devices repeat levels, ours tell changes only.
                _ if r.below(10) == 0 => {
                    script.extend([Op::In(0x60), Op::In(0x60), Op::In(0x60), Op::Out(0x3f9, 0)]);
                    script.push(Op::Out(0xa0, 0x10 | r.below(8) as u8));
                    script.push(Op::Out(0x20, 0x10 | r.below(8) as u8));
                }
                _ if port & 1 == 0 => script.push(Op::Out(port, r.below(256) as u8 & 0xef)),
                _ => script.push(Op::Out(port, r.below(256) as u8)),
            }
        }
        compare(&mut q, &mut m, &script);
    }
}
