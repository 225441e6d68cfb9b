//! `hpet`: high precision event timers (IA-PC HPET specification 1.0a) at 0xfed00000, 64-bit main counter of 10 ns.
//!
//! The counter is computed from the virtual clock; a comparator costs one timer while it is armed. In legacy
//! replacement mode timers 0 and 1 take the places of the PIT and the RTC: their lines come in here ([`connect`])
//! and go on to interrupts 0 and 8 in the other mode.
//! Tested: unit tests here; register scripts against real QEMU.

use std::any::Any;

use rqemu_derive::Device as DeriveDevice;
use serde::{Deserialize, Serialize};

use super::part::save_field;
use super::pit::Pit;
use super::rtc::Mc146818;
use crate::accel::MsiMessage;
use crate::device::{Cx, DevId, Device, IoHandler, IrqInputs, RealizeCx, TimerHandler};
use crate::irq::{IrqLine, IrqSink};
use crate::machine::Machine;
use crate::memory::{IoSpec, Space};
use crate::qom::DeviceClass;
use crate::{qerr, QResult};

/// Where it lies in memory.
pub const BASE: u64 = 0xfed0_0000;
/// Length of a tick in nanoseconds.
const TICK: i64 = 10;
const FEMTOSECONDS: u64 = 10_000_000;
const MAX_TIMERS: usize = 32;
const INPUT_RTC: u32 = 1;

/// Configuration register of the block.
mod cfg {
    pub const ENABLE: u64 = 1;
    pub const LEGACY: u64 = 2;
}
/// Configuration register of a timer.
mod tn {
    pub const LEVEL: u64 = 1 << 1;
    pub const ENABLE: u64 = 1 << 2;
    pub const PERIODIC: u64 = 1 << 3;
    pub const CAN_PERIODIC: u64 = 1 << 4;
    pub const CAN_64: u64 = 1 << 5;
    pub const SET_VALUE: u64 = 1 << 6;
    pub const MODE_32: u64 = 1 << 8;
    pub const FSB: u64 = 1 << 14;
    pub const CAN_FSB: u64 = 1 << 15;
    pub const WRITABLE: u64 = 0x7f4e;
}

/// Properties of `hpet`.
#[derive(DeriveDevice, Debug)]
#[class(name = "hpet", parent = "sys-bus-device", bus = System, internal,
    extra("hpet[0]", "child<memory-region>"))]
pub struct HpetProps {
    /// Number of timers, 3 to 32
    #[prop(default = 3u8)]
    pub timers: u8,
    /// Timers can send messages
    #[prop]
    pub msi: bool,
    /// Interrupts that timers may use, as a bit set
    #[prop]
    pub hpet_intcap: u32,
    /// Save the offset of the counter
    #[prop(default = true)]
    pub hpet_offset_saved: bool,
}

impl DeviceClass for HpetProps {
    fn realize(&mut self, cx: &mut RealizeCx<'_>) -> QResult<Box<dyn Device>> {
        if self.hpet_intcap == 0 {
            return Err(qerr!("hpet.hpet-intcap not initialized"));
        }
        self.timers = self.timers.clamp(3, MAX_TIMERS as u8);
        let region = cx.io_region("hpet", 0x400, 0, IoSpec { valid: (4, 8), imp: (4, 4), unaligned: false });
        cx.map(Space::Memory, region, BASE, 0);
        cx.mmio(region);
        cx.gpio("", true, 2);
        cx.gpio("", false, 1);
        cx.gpio("sysbus-irq", false, 32);
        let pit_enable = cx.irq_line(IrqSink::None);
        let fixed = tn::CAN_PERIODIC
            | tn::CAN_64
            | if self.msi { tn::CAN_FSB } else { 0 }
            | u64::from(self.hpet_intcap) << 32;
        Ok(Box::new(Hpet { s: HpetState::new(usize::from(self.timers), fixed), fixed, pit_enable }))
    }
}

/// Saved state of a timer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HpetTimer {
    config: u64,
    comparator: u64,
    period: u64,
    /// Message: value in the low half, address in the high half.
    fsb: u64,
    due: Option<i64>,
}

/// Saved state.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HpetState {
    config: u64,
    isr: u64,
    /// The counter while it stands.
    counter: u64,
    /// Counter less virtual time, in nanoseconds, while it runs.
    offset: i64,
    rtc_level: bool,
    timers: Vec<HpetTimer>,
}

impl HpetState {
    fn new(timers: usize, fixed: u64) -> Self {
        let t = HpetTimer { config: fixed, comparator: u64::MAX, period: 0, fsb: 0, due: None };
        Self { config: 0, isr: 0, counter: 0, offset: 0, rtc_level: false, timers: vec![t; timers] }
    }
}

/// The event timer block.
pub struct Hpet {
    s: HpetState,
    /// Read-only bits of every timer's configuration.
    fixed: u64,
    pit_enable: IrqLine,
}

/// Writes half of a 64-bit register.
fn set_half(reg: &mut u64, high: bool, v: u64) {
    *reg = if high { *reg & 0xffff_ffff | v << 32 } else { *reg & !0xffff_ffff | v & 0xffff_ffff };
}

impl Hpet {
    /// Capabilities and identity (also what fw_cfg tells the firmware).
    pub fn capabilities(&self) -> u64 {
        FEMTOSECONDS << 32 | 0x8086_a001 | (self.s.timers.len() as u64 - 1) << 8
    }

    fn enabled(&self) -> bool {
        self.s.config & cfg::ENABLE != 0
    }

    fn legacy(&self) -> bool {
        self.s.config & cfg::LEGACY != 0
    }

    fn counter(&self, cx: &Cx<'_>) -> u64 {
        if self.enabled() {
            (cx.now().wrapping_add(self.s.offset) / TICK) as u64
        } else {
            self.s.counter
        }
    }

    fn route(&self, n: usize) -> u32 {
        match (self.legacy(), n) {
            (true, 0) => 0,
            (true, 1) => 8,
            _ => (self.s.timers[n].config >> 9 & 0x1f) as u32,
        }
    }

    /// Raises (or with `false` ends) the interrupt of timer `n`.
    fn interrupt(&mut self, cx: &mut Cx<'_>, n: usize, on: bool) {
        let (route, bit) = (self.route(n), 1u64 << n);
        let t = &self.s.timers[n];
        let by_message = t.config & tn::FSB != 0 && t.config & tn::CAN_FSB != 0;
        if !on || t.config & tn::ENABLE == 0 || !self.enabled() {
            self.s.isr &= !bit;
            if !by_message {
                cx.m.set_gsi(route, false);
            }
        } else if by_message {
            cx.m.accel.msi(MsiMessage { addr: t.fsb >> 32, data: t.fsb as u32 });
        } else if t.config & tn::LEVEL != 0 {
            self.s.isr |= bit;
            // PCI interrupts are active low on the chip; the inversion is folded in here.
            cx.m.set_gsi(route, route < 16);
        } else {
            self.s.isr &= !bit;
            cx.m.set_gsi(route, true);
            cx.m.set_gsi(route, false);
        }
    }

    /// Arms timer `n` for its comparator.
    fn arm(&mut self, cx: &mut Cx<'_>, n: usize) {
        let now = self.counter(cx);
        let t = &mut self.s.timers[n];
        let ticks = if t.config & tn::MODE_32 != 0 {
            let d = (t.comparator as u32).wrapping_sub(now as u32) as i32;
            // A one-shot comparator that is behind matches after the counter wrapped.
            if d > 0 || t.config & tn::PERIODIC != 0 {
                i64::from(d.max(0))
            } else {
                i64::from(d as u32)
            }
        } else {
            (t.comparator.wrapping_sub(now) as i64).max(0)
        };
        t.due = Some(cx.now().saturating_add(ticks.saturating_mul(TICK)));
        cx.timer_set(n as u32, t.due);
    }

    fn disarm(&mut self, cx: &mut Cx<'_>, n: usize) {
        if self.s.timers[n].due.take().is_some() {
            cx.timer_set(n as u32, None);
        }
        self.interrupt(cx, n, false);
    }

    fn fire(&mut self, cx: &mut Cx<'_>, n: usize) {
        let now = self.counter(cx);
        let t = &mut self.s.timers[n];
        t.due = None;
        if t.config & tn::PERIODIC != 0 && t.period != 0 {
            if t.config & tn::MODE_32 != 0 {
                let behind = (now as u32).wrapping_sub(t.comparator as u32);
                let steps = if (behind as i32) < 0 { 0 } else { u64::from(behind) / t.period + 1 };
                t.comparator = u64::from((t.comparator.wrapping_add(steps.wrapping_mul(t.period))) as u32);
            } else {
                let behind = now.wrapping_sub(t.comparator);
                let steps = if (behind as i64) < 0 { 0 } else { behind / t.period + 1 };
                t.comparator = t.comparator.wrapping_add(steps.wrapping_mul(t.period));
            }
            self.arm(cx, n);
        }
        self.interrupt(cx, n, true);
    }

    fn write_config(&mut self, cx: &mut Cx<'_>, v: u64) {
        let old = self.s.config;
        let new = v & (cfg::ENABLE | cfg::LEGACY);
        let turned = old ^ new;
        if turned & cfg::ENABLE != 0 && new & cfg::ENABLE != 0 {
            self.s.offset = (self.s.counter as i64).wrapping_mul(TICK).wrapping_sub(cx.now());
            self.s.config = new;
            for n in 0..self.s.timers.len() {
                let t = &self.s.timers[n];
                if t.config & tn::ENABLE != 0 && t.comparator != u64::MAX {
                    self.arm(cx, n);
                }
            }
        } else if turned & cfg::ENABLE != 0 {
            self.s.counter = self.counter(cx);
            self.s.config = new;
            for n in 0..self.s.timers.len() {
                self.disarm(cx, n);
            }
        }
        self.s.config = new;
        if turned & cfg::LEGACY != 0 {
            let on = new & cfg::LEGACY != 0;
            cx.m.set_gsi(0, false);
            cx.set_irq(self.pit_enable, !on);
            cx.m.set_gsi(8, !on && self.s.rtc_level);
        }
    }

    fn write_timer(&mut self, cx: &mut Cx<'_>, n: usize, reg: u64, v: u64) {
        let enabled = self.enabled();
        let t = &mut self.s.timers[n];
        match reg {
            0x00 => {
                let old = t.config;
                t.config = old & !tn::WRITABLE | v & tn::WRITABLE;
                if t.config & tn::MODE_32 != 0 {
                    t.comparator &= 0xffff_ffff;
                    t.period &= 0xffff_ffff;
                }
                let turned = old ^ t.config;
                let (on, fsb) = (t.config & tn::ENABLE != 0, t.config & tn::FSB != 0);
                if turned & tn::FSB != 0 && fsb {
                    self.interrupt(cx, n, false);
                }
                if turned & tn::ENABLE != 0 && enabled {
                    if on {
                        self.arm(cx, n);
                    } else {
                        self.disarm(cx, n);
                    }
                }
            }
            0x08 | 0x0c => {
                let high = reg == 0x0c;
                let narrow = t.config & tn::MODE_32 != 0;
                let periodic = t.config & tn::PERIODIC != 0;
                if !periodic || t.config & tn::SET_VALUE != 0 {
                    set_half(&mut t.comparator, high, v);
                }
                if periodic {
                    // Bounded, so that a period is never longer than half the counter's range.
                    let v = if high || narrow { v & 0x7fff_ffff } else { v };
                    set_half(&mut t.period, high, v);
                }
                t.config &= !tn::SET_VALUE;
                if enabled {
                    self.arm(cx, n);
                }
            }
            0x10 => set_half(&mut t.fsb, false, v),
            0x14 => set_half(&mut t.fsb, true, v),
            _ => {}
        }
    }
}

/// Leads the lines of the PIT and the RTC through the HPET, as on a PC. `pit` is `None` when it is in the kernel.
pub fn connect(m: &mut Machine, hpet: DevId, pit: Option<DevId>, rtc: DevId) {
    let enable = m.with::<Hpet, _>(hpet, |h, _| h.pit_enable);
    if let Some(pit) = pit {
        if let Some(line) = m.with::<Pit, _>(pit, |p, _| p.irq_line()) {
            m.irqs.connect(line, IrqSink::Device(hpet, 0));
        }
        if let Some(enable) = enable {
            m.irqs.connect(enable, IrqSink::Device(pit, 0));
        }
    }
    if let Some(line) = m.with::<Mc146818, _>(rtc, |r, _| r.irq_line()) {
        m.irqs.connect(line, IrqSink::Device(hpet, INPUT_RTC));
    }
}

impl IoHandler for Hpet {
    fn read(&mut self, cx: &mut Cx<'_>, _region: u32, offset: u64, _size: u8) -> u64 {
        let high = offset & 4 != 0;
        let reg = match offset & !4 {
            0x00 => self.capabilities(),
            0x10 => self.s.config,
            0x20 => self.s.isr,
            0xf0 => self.counter(cx),
            n if n >= 0x100 => match self.s.timers.get(((n - 0x100) / 0x20) as usize) {
                Some(t) => match n & 0x18 {
                    0x00 => t.config,
                    0x08 => t.comparator,
                    0x10 => t.fsb,
                    _ => 0,
                },
                None => 0,
            },
            _ => 0,
        };
        if high {
            reg >> 32
        } else {
            reg & 0xffff_ffff
        }
    }

    fn write(&mut self, cx: &mut Cx<'_>, _region: u32, offset: u64, _size: u8, value: u64) {
        match offset {
            0x10 => self.write_config(cx, value),
            0x20 => {
                for n in 0..self.s.timers.len() {
                    if value & self.s.isr & 1 << n != 0 {
                        self.interrupt(cx, n, false);
                    }
                }
            }
            // Without effect while the counter runs.
            0xf0 | 0xf4 => set_half(&mut self.s.counter, offset == 0xf4, value),
            _ if offset >= 0x100 => {
                let n = ((offset - 0x100) / 0x20) as usize;
                if n < self.s.timers.len() {
                    self.write_timer(cx, n, offset & 0x1c, value);
                }
            }
            _ => {}
        }
    }
}

impl TimerHandler for Hpet {
    fn expired(&mut self, cx: &mut Cx<'_>, id: u32) {
        if (id as usize) < self.s.timers.len() {
            self.fire(cx, id as usize);
        }
    }
}

impl IrqInputs for Hpet {
    fn set_input(&mut self, cx: &mut Cx<'_>, pin: u32, level: bool) {
        let irq = if pin == INPUT_RTC { 8 } else { 0 };
        if pin == INPUT_RTC {
            self.s.rtc_level = level;
        }
        if !self.legacy() {
            cx.m.set_gsi(irq, level);
        }
    }
}

impl Device for Hpet {
    fn reset(&mut self, cx: &mut Cx<'_>) {
        for n in 0..self.s.timers.len() {
            self.disarm(cx, n);
        }
        let rtc_level = self.s.rtc_level;
        self.s = HpetState { rtc_level, ..HpetState::new(self.s.timers.len(), self.fixed) };
        cx.set_irq(self.pit_enable, true);
    }
    fn io(&mut self) -> Option<&mut dyn IoHandler> {
        Some(self)
    }
    fn irq_inputs(&mut self) -> Option<&mut dyn IrqInputs> {
        Some(self)
    }
    fn timers(&mut self) -> Option<&mut dyn TimerHandler> {
        Some(self)
    }
    fn state(&mut self) -> Option<&mut dyn crate::state::SaveState> {
        Some(self)
    }
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

save_field!(Hpet, "hpet", 2, s, |d, cx| {
    if !(3..=MAX_TIMERS).contains(&d.s.timers.len()) {
        d.s = HpetState::new(3, d.fixed);
    }
    for (n, t) in d.s.timers.iter().enumerate() {
        cx.timer_set(n as u32, t.due);
    }
});

#[cfg(test)]
mod tests {
    use super::super::oracle::{compare, Lcg, Op, Qemu};
    use super::*;
    use crate::device::testing::machine;
    use crate::qom::PropInput;

    fn hpet() -> (Machine, DevId) {
        let mut m = machine();
        let d = m.add::<HpetProps>(&[("hpet-intcap", PropInput::Str("4"))]);
        m.reset_devices();
        (m, d)
    }

    fn w(m: &mut Machine, at: u64, v: u64) {
        m.guest_write(Space::Memory, BASE + at, 4, v);
    }

    fn r(m: &mut Machine, at: u64) -> u64 {
        m.guest_read(Space::Memory, BASE + at, 8)
    }

    #[test]
    fn counts_and_interrupts() {
        let (mut m, _) = hpet();
        w(&mut m, 0xf0, 100);
        w(&mut m, 0x108, 1100);
        w(&mut m, 0x10c, 0);
        w(&mut m, 0x100, tn::ENABLE | tn::LEVEL | 2 << 9);
        w(&mut m, 0x10, 1);
        m.advance(9_990);
        assert_eq!((r(&mut m, 0xf0), r(&mut m, 0x20)), (1099, 0));
        m.advance(10);
        assert_eq!((r(&mut m, 0xf0), r(&mut m, 0x20)), (1100, 1));
        w(&mut m, 0x20, 1);
        assert_eq!(r(&mut m, 0x20), 0);
        w(&mut m, 0x10, 0);
        m.advance(1000);
        assert_eq!(r(&mut m, 0xf0), 1100);
    }

    #[test]
    fn periodic_does_not_drift() {
        let (mut m, _) = hpet();
        w(&mut m, 0x100, tn::ENABLE | tn::PERIODIC | tn::SET_VALUE | tn::LEVEL | 2 << 9);
        w(&mut m, 0x108, 1000);
        w(&mut m, 0x100, tn::ENABLE | tn::PERIODIC | tn::SET_VALUE | tn::LEVEL | 2 << 9);
        w(&mut m, 0x10c, 0);
        w(&mut m, 0x108, 1000);
        w(&mut m, 0x10, 1);
        for i in 1..=5 {
            m.advance(10_000);
            assert_eq!((r(&mut m, 0x20), r(&mut m, 0x108)), (1, (i + 1) * 1000));
            w(&mut m, 0x20, 1);
        }
    }

    #[test]
    fn legacy_replacement_takes_the_pit_off() {
        let mut m = machine();
        let pit = m.add::<crate::devices::legacy::pit::IsaPitProps>(&[("iobase", PropInput::Str("0x40"))]);
        let rtc = m.add::<crate::devices::legacy::rtc::Mc146818Props>(&[]);
        let hpet = m.add::<HpetProps>(&[("hpet-intcap", PropInput::Str("4"))]);
        connect(&mut m, hpet, Some(pit), rtc);
        m.reset_devices();
        assert!(m.timers.deadline((pit, 0)).is_some());
        w(&mut m, 0x10, 3);
        assert!(m.timers.deadline((pit, 0)).is_none());
        w(&mut m, 0x10, 1);
        assert!(m.timers.deadline((pit, 0)).is_some());
    }

    #[test]
    fn same_as_qemu() {
        let Some(mut q) = Qemu::start(&["-M", "pc"]) else { return };
        let (mut m, _) = hpet();
        let mut r = Lcg(4);
        let mut script = Vec::new();
        for _ in 0..4000 {
            let at = match r.below(4) {
                0 => r.below(0x40),
                1 => 0xf0 + r.below(2) * 4,
                // QEMU has a fourth, half-alive timer behind its three.
                _ => 0x100 + r.below(0x60),
            } & !3;
            let v = (r.below(1 << 31) << 1) as u32;
            script.push(match r.below(3) {
                0 => Op::ReadL(BASE + at),
                1 => Op::ReadQ(BASE + (at & !7)),
                // Clocks stand still on both sides; armed comparators in the past would fire only here.
                _ if at == 0x10 => Op::WriteL(BASE + at, v & 0xffff_fffe),
                _ => Op::WriteL(BASE + at, v),
            });
        }
        compare(&mut q, &mut m, &script);
    }
}
