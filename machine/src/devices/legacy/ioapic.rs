//! `ioapic`: 82093AA I/O APIC (Intel 82093AA data sheet; the EOI register of version 0x20 as in the ICH).
//!
//! Interrupts leave as MSI messages. Pin 0 of the ISA interrupts arrives at pin 2, as on every PC. A local APIC that
//! broadcasts the end of a level interrupt calls [`end_of_interrupt`].
//! Tested: unit tests here; register scripts against real QEMU.

use std::any::Any;

use rqemu_derive::Device as DeriveDevice;
use serde::{Deserialize, Serialize};

use super::part::save_field;
use crate::accel::{IrqChip, MsiMessage};
use crate::device::{Cx, DevId, Device, IoHandler, IrqInputs, RealizeCx};
use crate::machine::Machine;
use crate::memory::{IoSpec, RegionId, Space};
use crate::qom::DeviceClass;
use crate::{qerr, QResult};

/// Inputs.
pub const PINS: usize = 24;
/// Where the first one lies in memory.
pub const BASE: u64 = 0xfec0_0000;

/// Bits of a redirection entry.
mod entry {
    pub const VECTOR: u64 = 0xff;
    pub const DELIVERY: u32 = 8;
    pub const LOGICAL: u64 = 1 << 11;
    pub const STATUS: u64 = 1 << 12;
    pub const REMOTE_IRR: u64 = 1 << 14;
    pub const LEVEL: u64 = 1 << 15;
    pub const MASKED: u64 = 1 << 16;
    pub const READ_ONLY: u64 = STATUS | REMOTE_IRR;
}
/// Delivery mode: the vector comes from the 8259.
const EXT_INT: u64 = 7;

/// Properties of `ioapic`.
#[derive(DeriveDevice, Debug)]
#[class(name = "ioapic", parent = "ioapic-common", bus = System, internal)]
pub struct IoapicProps {
    /// Version register: 0x11, or 0x20 with an EOI register
    #[prop(default = 0x20u8)]
    pub version: u8,
}

impl DeviceClass for IoapicProps {
    fn realize(&mut self, cx: &mut RealizeCx<'_>) -> QResult<Box<dyn Device>> {
        if self.version != 0x11 && self.version != 0x20 {
            return Err(qerr!("IOAPIC only supports version 0x11 or 0x20 (default: 0x20)."));
        }
        let region = cx.io_region("ioapic", 0x1000, 0, IoSpec::ANY);
        cx.map(Space::Memory, region, BASE, 0);
        cx.mmio(region);
        cx.gpio("", true, PINS as u32);
        Ok(Box::new(Ioapic {
            s: IoapicState::default(),
            version: self.version,
            region,
            pic: None,
            gsi_base: 0,
        }))
    }
}

/// Saved state.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IoapicState {
    id: u8,
    select: u8,
    /// Requested inputs.
    irr: u32,
    redirection: [u64; PINS],
}

impl Default for IoapicState {
    fn default() -> Self {
        Self { id: 0, select: 0, irr: 0, redirection: [entry::MASKED; PINS] }
    }
}

/// The I/O APIC.
pub struct Ioapic {
    s: IoapicState,
    version: u8,
    region: RegionId,
    pic: Option<DevId>,
    /// Global number of input 0.
    gsi_base: u32,
}

impl Ioapic {
    /// The register page, for boards that move it.
    pub fn region(&self) -> RegionId {
        self.region
    }

    /// The master 8259 that gives the vector of ExtINT entries.
    pub fn set_pic(&mut self, master: DevId) {
        self.pic = Some(master);
    }

    /// Gives input 0 a global number other than 0 (boards with several).
    pub fn set_gsi_base(&mut self, base: u32) {
        self.gsi_base = base;
    }

    /// The message that an entry sends.
    fn message(&self, cx: &mut Cx<'_>, e: u64) -> MsiMessage {
        let delivery = e >> entry::DELIVERY & 7;
        let vector = match (delivery, self.pic) {
            (EXT_INT, Some(pic)) => u64::from(super::i8259::acknowledge(cx.m, pic)),
            _ => e & entry::VECTOR,
        };
        route(e, vector)
    }

    /// Sends every requested interrupt that is not masked.
    fn service(&mut self, cx: &mut Cx<'_>) {
        let mut left = self.s.irr;
        while left != 0 {
            let pin = left.trailing_zeros() as usize;
            left &= left - 1;
            let Some(e) = self.s.redirection.get_mut(pin) else { break };
            if *e & entry::MASKED != 0 {
                continue;
            }
            if *e & entry::LEVEL == 0 {
                self.s.irr &= !(1 << pin);
            } else if *e & entry::REMOTE_IRR != 0 {
                // Still being served; it is sent again after the end of interrupt.
                continue;
            } else {
                *e |= entry::REMOTE_IRR;
            }
            let e = *e;
            let msg = self.message(cx, e);
            cx.m.accel.msi(msg);
        }
    }

    /// Tells the accelerator where the interrupts go.
    fn tell(&self, cx: &mut Cx<'_>) {
        if cx.m.accel.irqchip() == IrqChip::Split && cx.m.irq_chips.ioapics.first() == Some(&cx.dev) {
            let route = |e: &u64| (*e & entry::MASKED == 0).then(|| route(*e, *e & entry::VECTOR));
            let routes: Vec<_> = self.s.redirection.iter().map(route).collect();
            cx.m.accel.ioapic_changed(self.gsi_base, &routes);
        }
    }

    /// Ends level interrupts of `vector`.
    fn eoi(&mut self, cx: &mut Cx<'_>, vector: u8) {
        let mut again = false;
        for e in &mut self.s.redirection {
            let same = *e & entry::VECTOR == u64::from(vector);
            if same && *e & entry::LEVEL != 0 && *e & entry::REMOTE_IRR != 0 {
                *e &= !entry::REMOTE_IRR;
                again = true;
            }
        }
        if again {
            self.service(cx);
        }
    }

    fn read_selected(&self) -> u32 {
        match self.s.select {
            0 | 2 => u32::from(self.s.id) << 24,
            1 => u32::from(self.version) | (PINS as u32 - 1) << 16,
            n => {
                let e = self.s.redirection.get(usize::from(n.wrapping_sub(0x10) >> 1)).copied();
                match e {
                    Some(e) if n & 1 != 0 => (e >> 32) as u32,
                    Some(e) => e as u32,
                    None => 0,
                }
            }
        }
    }

    fn write_selected(&mut self, cx: &mut Cx<'_>, v: u32) {
        let n = self.s.select;
        if n == 0 {
            self.s.id = (v >> 24 & 0xf) as u8;
        }
        if n < 0x10 {
            return;
        }
        let Some(e) = self.s.redirection.get_mut(usize::from((n - 0x10) >> 1)) else { return };
        let kept = *e & entry::READ_ONLY;
        if n & 1 != 0 {
            *e = *e & 0xffff_ffff | u64::from(v) << 32;
        } else {
            *e = *e & !0xffff_ffff | u64::from(v) & !entry::READ_ONLY | kept;
        }
        // Turning an entry to edges and back is how some systems end an interrupt.
        if *e & entry::LEVEL == 0 {
            *e &= !entry::REMOTE_IRR;
        }
        self.tell(cx);
        self.service(cx);
    }
}

/// The message of a redirection entry with this vector.
fn route(e: u64, vector: u64) -> MsiMessage {
    let logical = if e & entry::LOGICAL != 0 { 1 << 2 } else { 0 };
    let level = if e & entry::LEVEL != 0 { 1 << 15 } else { 0 };
    let delivery = e >> entry::DELIVERY & 7;
    MsiMessage { addr: 0xfee0_0000 | (e >> 48) << 4 | logical, data: (vector | delivery << 8 | level) as u32 }
}

/// A local APIC broadcasts the end of a level-triggered interrupt.
pub fn end_of_interrupt(m: &mut Machine, ioapic: DevId, vector: u8) {
    m.with::<Ioapic, _>(ioapic, |i, cx| i.eoi(cx, vector));
}

impl IoHandler for Ioapic {
    fn read(&mut self, _cx: &mut Cx<'_>, _region: u32, offset: u64, size: u8) -> u64 {
        match offset & 0xff {
            0x00 => u64::from(self.s.select),
            0x10 if size == 4 => u64::from(self.read_selected()),
            _ => 0,
        }
    }

    fn write(&mut self, cx: &mut Cx<'_>, _region: u32, offset: u64, size: u8, value: u64) {
        match offset & 0xff {
            0x00 => self.s.select = value as u8,
            0x10 if size == 4 => self.write_selected(cx, value as u32),
            0x40 if size == 4 && self.version == 0x20 => self.eoi(cx, value as u8),
            _ => {}
        }
    }
}

impl IrqInputs for Ioapic {
    fn set_input(&mut self, cx: &mut Cx<'_>, pin: u32, level: bool) {
        let pin = if pin == 0 { 2 } else { pin };
        let Some(e) = self.s.redirection.get(pin as usize) else { return };
        let bit = 1u32 << pin;
        if *e & entry::LEVEL != 0 {
            if level {
                self.s.irr |= bit;
                self.service(cx);
            } else {
                self.s.irr &= !bit;
            }
        } else if level && *e & entry::MASKED == 0 {
            // A masked edge is lost (82093AA, section 3.4.2).
            self.s.irr |= bit;
            self.service(cx);
        }
    }
}

impl Device for Ioapic {
    fn reset(&mut self, cx: &mut Cx<'_>) {
        self.s = IoapicState::default();
        self.tell(cx);
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

save_field!(Ioapic, "ioapic", 3, s, |_, _| {});

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::super::oracle::{compare, Lcg, Op, Qemu};
    use super::*;
    use crate::accel::Accel;
    use crate::device::testing::machine;
    use crate::irq::IrqSink;

    struct Lapic(Arc<Mutex<Vec<MsiMessage>>>);

    impl Accel for Lapic {
        fn name(&self) -> &'static str {
            "test"
        }
        fn msi(&mut self, msg: MsiMessage) {
            self.0.lock().unwrap().push(msg);
        }
        fn as_any(&mut self) -> &mut dyn Any {
            self
        }
    }

    fn set(m: &mut Machine, n: u32, v: u32) {
        m.guest_write(Space::Memory, BASE, 4, u64::from(n));
        m.guest_write(Space::Memory, BASE + 0x10, 4, u64::from(v));
    }

    #[test]
    fn edges_and_levels() {
        let mut m = machine();
        let d = m.add::<IoapicProps>(&[]);
        m.reset_devices();
        let sent = Arc::new(Mutex::new(Vec::new()));
        m.accel = Box::new(Lapic(sent.clone()));
        m.gsi_sinks = (0..24).map(|n| vec![IrqSink::Device(d, n)]).collect();
        let pulse = |m: &mut Machine, n: u32, level: bool| {
            m.set_gsi(n, level);
            m.settle();
        };
        let take = || std::mem::take(&mut *sent.lock().unwrap());
        pulse(&mut m, 4, true);
        pulse(&mut m, 4, false);
        set(&mut m, 0x10 + 8, 0x31);
        set(&mut m, 0x11 + 8, 1 << 24);
        assert!(take().is_empty(), "a masked edge is lost");
        pulse(&mut m, 4, true);
        assert_eq!(take(), [MsiMessage { addr: 0xfee0_1000, data: 0x31 }]);
        set(&mut m, 0x14, 0x20);
        pulse(&mut m, 0, true);
        assert_eq!(take(), [MsiMessage { addr: 0xfee0_0000, data: 0x20 }], "IRQ 0 is pin 2");

        set(&mut m, 0x10 + 2 * 11, 0x8831);
        pulse(&mut m, 11, true);
        pulse(&mut m, 11, true);
        assert_eq!(take(), [MsiMessage { addr: 0xfee0_0004, data: 0x8031 }]);
        end_of_interrupt(&mut m, d, 0x31);
        assert_eq!(take().len(), 1, "the level is still there");
        pulse(&mut m, 11, false);
        end_of_interrupt(&mut m, d, 0x31);
        assert!(take().is_empty());
    }

    #[test]
    fn same_as_qemu() {
        let Some(mut q) = Qemu::start(&["-M", "pc"]) else { return };
        let mut m = machine();
        m.add::<IoapicProps>(&[]);
        m.reset_devices();
        let mut r = Lcg(2);
        let mut script = Vec::new();
        for _ in 0..3000 {
            script.push(Op::WriteL(BASE, r.below(0x48) as u32));
            let at = BASE + [0, 0x10, 0x10, 0x10, 0x20, 0x110][r.below(6) as usize];
            script.push(if r.below(2) == 0 {
                Op::ReadL(at)
            } else {
                // Masked: QEMU's processor would take the interrupts otherwise.
                Op::WriteL(at, (r.below(1 << 31) as u32) << 1 | 1 << 16)
            });
        }
        compare(&mut q, &mut m, &script);
    }
}
