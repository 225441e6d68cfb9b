//! `mc146818rtc`: real-time clock and CMOS RAM (Motorola MC146818A data sheet; century byte as in the IBM PS/2 and
//! ACPI) at ports 0x70 and 0x71.
//!
//! Time is kept as a base and a moment of the driving clock (`-rtc clock=`), and computed when it is read. The
//! update-ended and alarm flags are computed when the guest looks at them; a timer runs only while one of their
//! interrupts, or the periodic one, is enabled. An idle guest costs nothing.
//!
//! Left out: the square wave output; daylight saving. Tested: unit tests here; contents and register scripts
//! against real QEMU.

pub mod cmos;
#[cfg(test)]
mod tests;
mod time;

pub use cmos::{boot_order_bytes, pc_cmos_init, CmosConfig, CmosDisk, DiskTranslation, FloppyKind};
pub use time::{utc_offset, Date};

use std::any::Any;

use rqemu_derive::Device as DeriveDevice;
use serde::{Deserialize, Serialize};

use super::part::save_field;
use crate::clock::ClockKind;
use crate::device::{Cx, Device, IoHandler, RealizeCx, TimerHandler};
use crate::irq::{IrqLine, IrqSink};
use crate::memory::IoSpec;
use crate::qom::DeviceClass;
use crate::run::RunState;
use crate::spec::{RtcBase, RtcClock};
use crate::{enum_prop, qerr, QResult};

const SECOND: i64 = 1_000_000_000;
/// The update-in-progress flag rises this long before the second ends (8 cycles of the 32,768 Hz crystal).
const UPDATE_NS: i64 = 8 * SECOND / 32_768;

/// Registers.
mod reg {
    pub const SECONDS: usize = 0;
    pub const SECONDS_ALARM: usize = 1;
    pub const MINUTES: usize = 2;
    pub const MINUTES_ALARM: usize = 3;
    pub const HOURS: usize = 4;
    pub const HOURS_ALARM: usize = 5;
    pub const WEEKDAY: usize = 6;
    pub const DAY: usize = 7;
    pub const MONTH: usize = 8;
    pub const YEAR: usize = 9;
    pub const A: usize = 10;
    pub const B: usize = 11;
    pub const C: usize = 12;
    pub const D: usize = 13;
    pub const CENTURY: usize = 0x32;
    /// Another place of the century.
    pub const CENTURY_PS2: usize = 0x37;
}
/// Register A: update in progress.
const A_UIP: u8 = 0x80;
/// Register B.
mod b {
    pub const SET: u8 = 0x80;
    pub const PERIODIC: u8 = 0x40;
    pub const ALARM: u8 = 0x20;
    pub const UPDATE: u8 = 0x10;
    pub const SQUARE_WAVE: u8 = 0x08;
    pub const BINARY: u8 = 0x04;
    pub const HOURS24: u8 = 0x02;
}
/// Register C.
mod c {
    pub const IRQ: u8 = 0x80;
    pub const PERIODIC: u8 = 0x40;
    pub const ALARM: u8 = 0x20;
    pub const UPDATE: u8 = 0x10;
    pub const SOURCES: u8 = 0x70;
}
const TIMER_PERIODIC: u32 = 0;
const TIMER_SECOND: u32 = 1;
/// With `slew`, at most so many lost ticks are given at once when the guest acknowledges one.
const REINJECT_LIMIT: u32 = 20;

/// What happens to periodic interrupts that the guest missed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LostTickPolicy {
    /// They are gone.
    #[default]
    Discard,
    /// They are delivered late, at the normal rate.
    Delay,
    /// They are delivered at a higher rate until the guest caught up.
    Slew,
}
enum_prop!(LostTickPolicy, "LostTickPolicy",
    "discard" => LostTickPolicy::Discard, "delay" => LostTickPolicy::Delay, "slew" => LostTickPolicy::Slew);

/// Properties of `mc146818rtc`.
#[derive(DeriveDevice, Debug)]
#[class(name = "mc146818rtc", parent = "isa-device", bus = Isa, category = Misc)]
pub struct Mc146818Props {
    /// Year that year 0 of the registers stands for
    #[prop(name = "base_year", default = 1980)]
    pub base_year: i32,
    /// First port
    #[prop(default = 0x70u16)]
    pub iobase: u16,
    /// Interrupt
    #[prop(default = 8u8)]
    pub irq: u8,
    /// What happens to periodic interrupts that the guest missed
    #[prop(name = "lost_tick_policy", default = LostTickPolicy::Discard)]
    pub lost_tick_policy: LostTickPolicy,
}

impl DeviceClass for Mc146818Props {
    fn realize(&mut self, cx: &mut RealizeCx<'_>) -> QResult<Box<dyn Device>> {
        if self.irq > 15 {
            return Err(qerr!("Maximum value for \"irq\" is: 15"));
        }
        if self.lost_tick_policy == LostTickPolicy::Delay {
            return Err(qerr!("Invalid lost tick policy."));
        }
        let irq = cx.irq_line(IrqSink::Gsi(u32::from(self.irq)));
        let ports = cx.map_ports("rtc", self.iobase, 2, 0, IoSpec::BYTES);
        // The first port once more, so that an accelerator can merge writes of the index.
        let index = cx.io_region("rtc-index", 1, 0, IoSpec::BYTES);
        cx.m().mem.map(ports, index, 0, 0);
        cx.gpio("", false, 1);
        let mut rtc = Mc146818 {
            s: RtcState::new(),
            irq,
            base_year: i64::from(self.base_year),
            slew: self.lost_tick_policy == LostTickPolicy::Slew,
            started: cx.cx.m.clock.host_ns() / SECOND,
            start: 0,
        };
        rtc.set_from_host(&mut cx.cx);
        Ok(Box::new(rtc))
    }
}

/// Saved state.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RtcState {
    cmos: Vec<u8>,
    index: u8,
    /// Guest time in seconds since 1970 at `base_at`, without the fraction in `offset`.
    base: i64,
    /// Moment of the driving clock at which `base` held.
    base_at: i64,
    /// Fraction of a second, in nanoseconds.
    offset: i64,
    /// Guest time in nanoseconds up to which the update and alarm flags are known.
    checked: i64,
    /// When the next periodic interrupt is due, on the driving clock.
    next_periodic: Option<i64>,
    /// Periodic interrupts still owed to the guest (`slew`).
    lost: u32,
    /// How many of them were given in a row.
    reinjected: u32,
}

impl RtcState {
    fn new() -> Self {
        let mut cmos = vec![0; 128];
        cmos[reg::A] = 0x26;
        cmos[reg::B] = b::HOURS24;
        cmos[reg::D] = 0x80;
        Self {
            cmos,
            index: 0,
            base: 0,
            base_at: 0,
            offset: 0,
            checked: 0,
            next_periodic: None,
            lost: 0,
            reinjected: 0,
        }
    }
}

/// The real-time clock.
pub struct Mc146818 {
    s: RtcState,
    irq: IrqLine,
    base_year: i64,
    slew: bool,
    /// Host time when the clock was made, seconds.
    started: i64,
    /// Driving clock then, nanoseconds.
    start: i64,
}

impl Mc146818 {
    // ---- for the board and commands --------------------------------------------------------------------------

    /// Interrupt output, for boards that lead it through another device (HPET's legacy replacement).
    pub fn irq_line(&self) -> IrqLine {
        self.irq
    }

    /// Sets bytes of the CMOS RAM without side effects; an index above 127 is ignored.
    pub fn set_cmos(&mut self, bytes: &[(u8, u8)]) {
        for (i, v) in bytes {
            if let Some(c) = self.s.cmos.get_mut(usize::from(*i)) {
                *c = *v;
            }
        }
    }

    /// A byte of the CMOS RAM (0 for an index above 127).
    pub fn cmos(&self, index: u8) -> u8 {
        self.at(usize::from(index))
    }

    /// Date as the guest sees it (property `date`, the machine's `rtc-time`).
    pub fn date(&mut self, cx: &mut Cx<'_>) -> Date {
        self.show_time(cx);
        self.decode()
    }

    /// Forgets periodic interrupts that are owed to the guest (`rtc-reset-reinjection`).
    pub fn reset_reinjection(&mut self) {
        self.s.lost = 0;
    }

    // ---- time ------------------------------------------------------------------------------------------------

    fn at(&self, i: usize) -> u8 {
        self.s.cmos.get(i).copied().unwrap_or(0)
    }

    fn put(&mut self, i: usize, v: u8) {
        if let Some(c) = self.s.cmos.get_mut(i) {
            *c = v;
        }
    }

    /// The driving clock.
    fn clock_ns(cx: &Cx<'_>) -> i64 {
        match cx.m.rtc.clock {
            RtcClock::Host => cx.m.clock.host_ns(),
            RtcClock::Rt => cx.m.clock.realtime_ns(),
            RtcClock::Vm => cx.m.clock.virtual_ns(),
        }
    }

    /// Arms a timer for a moment of the driving clock.
    fn arm(cx: &mut Cx<'_>, id: u32, at: Option<i64>) {
        let (kind, shift) = match cx.m.rtc.clock {
            RtcClock::Host => (ClockKind::Realtime, cx.m.clock.realtime_ns() - cx.m.clock.host_ns()),
            RtcClock::Rt => (ClockKind::Realtime, 0),
            RtcClock::Vm => (ClockKind::Virtual, 0),
        };
        cx.timer_set_on(kind, id, at.map(|t| t.saturating_add(shift)));
    }

    /// Seconds since 1970 that a clock started with `-rtc base=` would show now if the guest had not set it.
    fn reference(&self, cx: &Cx<'_>) -> i64 {
        let first = match cx.m.rtc.base {
            RtcBase::At(t) => t,
            _ => self.started,
        };
        if cx.m.rtc.clock == RtcClock::Host && !matches!(cx.m.rtc.base, RtcBase::At(_)) {
            return cx.m.clock.host_ns() / SECOND;
        }
        first + (Self::clock_ns(cx) - self.start).div_euclid(SECOND)
    }

    fn set_from_host(&mut self, cx: &mut Cx<'_>) {
        self.start = Self::clock_ns(cx);
        let mut t = self.reference(cx);
        if cx.m.rtc.base == RtcBase::Localtime {
            t += utc_offset(t);
        }
        self.s.base = t;
        self.s.base_at = self.start;
        self.s.offset = 0;
        self.encode(Date::from_seconds(t));
        self.s.checked = self.guest_ns(cx);
    }

    /// Counts (neither set mode nor dividers held in reset).
    fn running(&self) -> bool {
        self.at(reg::B) & b::SET == 0 && self.at(reg::A) & 0x70 <= 0x20
    }

    /// Guest time in nanoseconds. Wraps for years far away, as 64 bits do.
    fn guest_ns(&self, cx: &Cx<'_>) -> i64 {
        self.s
            .base
            .wrapping_mul(SECOND)
            .wrapping_add(Self::clock_ns(cx).wrapping_sub(self.s.base_at))
            .wrapping_add(self.s.offset)
    }

    fn encode_reg(&self, v: i64) -> u8 {
        let v = v.rem_euclid(256) as u8;
        if self.at(reg::B) & b::BINARY != 0 {
            v
        } else {
            (v / 10) << 4 | (v % 10)
        }
    }

    fn decode_reg(&self, v: u8) -> i64 {
        // Only alarms may have both top bits set ("any"); elsewhere they make no number.
        if v & 0xc0 == 0xc0 {
            return -1;
        }
        i64::from(if self.at(reg::B) & b::BINARY != 0 { v } else { (v >> 4) * 10 + (v & 15) })
    }

    fn decode_hour(&self, v: u8) -> i64 {
        let h = self.decode_reg(v & 0x7f);
        if self.at(reg::B) & b::HOURS24 != 0 {
            h
        } else {
            h % 12 + if v & 0x80 != 0 { 12 } else { 0 }
        }
    }

    /// Puts a date into the registers.
    fn encode(&mut self, d: Date) {
        let hour = if self.at(reg::B) & b::HOURS24 != 0 {
            self.encode_reg(d.hour)
        } else {
            let h = if d.hour % 12 == 0 { 12 } else { d.hour % 12 };
            self.encode_reg(h) | if d.hour >= 12 { 0x80 } else { 0 }
        };
        let year = d.year - self.base_year;
        for (i, v) in [
            (reg::SECONDS, self.encode_reg(d.second)),
            (reg::MINUTES, self.encode_reg(d.minute)),
            (reg::HOURS, hour),
            (reg::WEEKDAY, self.encode_reg(d.weekday() + 1)),
            (reg::DAY, self.encode_reg(d.day)),
            (reg::MONTH, self.encode_reg(d.month)),
            (reg::YEAR, self.encode_reg(year.rem_euclid(100))),
            (reg::CENTURY, self.encode_reg(year.div_euclid(100))),
        ] {
            self.put(i, v);
        }
    }

    /// Takes the date from the registers.
    fn decode(&self) -> Date {
        let r = |i| self.decode_reg(self.at(i));
        Date {
            year: r(reg::YEAR) + r(reg::CENTURY) * 100 + self.base_year,
            month: r(reg::MONTH),
            day: r(reg::DAY),
            hour: self.decode_hour(self.at(reg::HOURS)),
            minute: r(reg::MINUTES),
            second: r(reg::SECONDS),
        }
    }

    /// Brings the time registers up to date.
    fn show_time(&mut self, cx: &Cx<'_>) {
        if self.running() {
            let t = self.guest_ns(cx).div_euclid(SECOND);
            self.encode(Date::from_seconds(t));
        }
    }

    /// The guest has set the time: the registers are the new base. Tells the user how far it is off.
    fn set_time(&mut self, cx: &mut Cx<'_>) {
        let t = self.decode().to_seconds();
        self.s.base = t;
        self.s.base_at = Self::clock_ns(cx);
        self.s.checked = self.guest_ns(cx);
        let mut utc = t;
        if cx.m.rtc.base == RtcBase::Localtime {
            utc -= utc_offset(t - utc_offset(t));
        }
        let path = cx.m.tree.path(cx.dev);
        let offset = utc - self.reference(cx);
        cx.event("RTC_CHANGE", Some(serde_json::json!({ "offset": offset, "qom-path": path })));
    }

    // ---- flags, interrupts, timers ---------------------------------------------------------------------------

    /// Sets the flags for seconds that ended and alarms that matched since the last call.
    fn check_flags(&mut self, cx: &Cx<'_>) {
        if !self.running() {
            return;
        }
        let (old, new) = (self.s.checked, self.guest_ns(cx));
        let (old_s, new_s) = (old.div_euclid(SECOND), new.div_euclid(SECOND));
        self.s.checked = new;
        if new_s <= old_s {
            return;
        }
        let mut flags = c::UPDATE;
        if self.next_alarm(old_s).is_some_and(|t| t <= new_s) {
            flags |= c::ALARM;
        }
        let all = self.at(reg::C) | flags;
        self.put(reg::C, all);
    }

    /// First second after `t` at which the alarm matches.
    fn next_alarm(&self, t: i64) -> Option<i64> {
        let field = |i: usize, decode: &dyn Fn(u8) -> i64| {
            let v = self.at(i);
            // The two top bits mean "any".
            if v & 0xc0 == 0xc0 {
                None
            } else {
                Some(decode(v))
            }
        };
        let second = field(reg::SECONDS_ALARM, &|v| self.decode_reg(v));
        let minute = field(reg::MINUTES_ALARM, &|v| self.decode_reg(v));
        let hour = field(reg::HOURS_ALARM, &|v| self.decode_hour(v));
        let fits = |want: Option<i64>, is: i64| want.is_none_or(|w| w == is);
        let mut t = t + 1;
        let end = t + 86_400;
        while t < end {
            if !fits(hour, t.rem_euclid(86_400) / 3600) {
                t += 3600 - t.rem_euclid(3600);
            } else if !fits(minute, t.rem_euclid(3600) / 60) {
                t += 60 - t.rem_euclid(60);
            } else if !fits(second, t.rem_euclid(60)) {
                t += 1;
            } else {
                return Some(t);
            }
        }
        None
    }

    /// Sets the interrupt line from the flags, and the timer for the next flag whose interrupt is enabled.
    fn update(&mut self, cx: &mut Cx<'_>) {
        let on = self.at(reg::B) & self.at(reg::C) & c::SOURCES != 0;
        let flags = self.at(reg::C) & !c::IRQ | if on { c::IRQ } else { 0 };
        self.put(reg::C, flags);
        if cx.m.irqs.level(self.irq) != on {
            cx.set_irq(self.irq, on);
        }
        let enabled = self.at(reg::B);
        let mut at = None;
        if self.running() && enabled & (b::UPDATE | b::ALARM) != 0 {
            let now_s = self.s.checked.div_euclid(SECOND);
            if enabled & b::UPDATE != 0 && flags & c::UPDATE == 0 {
                at = Some(now_s + 1);
            } else if enabled & b::ALARM != 0 && flags & c::ALARM == 0 {
                at = self.next_alarm(now_s);
            }
        }
        // Guest second -> driving clock.
        let at = at.map(|t| t.wrapping_sub(self.s.base).saturating_mul(SECOND).saturating_sub(self.s.offset));
        let at = at.map(|ns| ns.saturating_add(self.s.base_at));
        Self::arm(cx, TIMER_SECOND, at);
    }

    /// Length of the periodic interrupt's period in cycles of the 32,768 Hz crystal.
    fn period(&self) -> Option<i64> {
        if self.at(reg::B) & b::PERIODIC == 0 {
            return None;
        }
        match self.at(reg::A) & 15 {
            0 => None,
            code @ 1..=2 => Some(1 << (code + 6)),
            code => Some(1 << (code - 1)),
        }
    }

    fn cycles_to_ns(cycles: i64) -> i64 {
        (i128::from(cycles) * i128::from(SECOND) / 32_768) as i64 + 1
    }

    /// Starts, changes or stops the periodic interrupt. Ticks fall on multiples of the period.
    fn update_periodic(&mut self, cx: &mut Cx<'_>) {
        let next = self.period().map(|period| {
            let now = (i128::from(Self::clock_ns(cx)) * 32_768 / i128::from(SECOND)) as i64;
            Self::cycles_to_ns((now / period + 1) * period)
        });
        if next.is_none() {
            self.s.lost = 0;
        }
        if next != self.s.next_periodic {
            self.s.next_periodic = next;
            Self::arm(cx, TIMER_PERIODIC, next);
        }
    }

    fn periodic_tick(&mut self, cx: &mut Cx<'_>) {
        let due = self.s.next_periodic.take();
        if self.slew {
            if let (Some(due), Some(period)) = (due, self.period()) {
                let late = (Self::clock_ns(cx) - due).max(0) / Self::cycles_to_ns(period);
                let unseen = i64::from(self.at(reg::C) & c::PERIODIC != 0);
                self.s.lost = self.s.lost.saturating_add(u32::try_from(late + unseen).unwrap_or(u32::MAX));
            }
        }
        self.update_periodic(cx);
        let flags = self.at(reg::C) | c::PERIODIC;
        self.put(reg::C, flags);
        self.update(cx);
    }

    // ---- registers -------------------------------------------------------------------------------------------

    fn read_data(&mut self, cx: &mut Cx<'_>) -> u8 {
        let index = match usize::from(self.s.index) {
            reg::CENTURY_PS2 => reg::CENTURY,
            i => i,
        };
        match index {
            reg::SECONDS | reg::MINUTES | reg::HOURS | reg::WEEKDAY..=reg::YEAR | reg::CENTURY => {
                self.show_time(cx);
                self.at(index)
            }
            reg::A => {
                let left = SECOND - self.guest_ns(cx).rem_euclid(SECOND);
                let uip = self.running() && left <= UPDATE_NS;
                self.at(reg::A) & !A_UIP | if uip { A_UIP } else { 0 }
            }
            reg::C => self.read_flags(cx),
            _ => self.at(index),
        }
    }

    fn read_flags(&mut self, cx: &mut Cx<'_>) -> u8 {
        self.check_flags(cx);
        self.update(cx);
        let v = self.at(reg::C);
        let mut left = 0;
        if v & c::PERIODIC != 0 && self.s.lost > 0 && self.s.reinjected < REINJECT_LIMIT {
            self.s.lost -= 1;
            self.s.reinjected += 1;
            left = c::PERIODIC;
            cx.set_irq(self.irq, false);
        } else {
            self.s.reinjected = 0;
        }
        if v != left {
            self.put(reg::C, left);
            self.update(cx);
        }
        v
    }

    fn write_data(&mut self, cx: &mut Cx<'_>, v: u8) {
        let index = match usize::from(self.s.index) {
            reg::CENTURY_PS2 => reg::CENTURY,
            i => i,
        };
        match index {
            reg::SECONDS_ALARM | reg::MINUTES_ALARM | reg::HOURS_ALARM => {
                self.check_flags(cx);
                self.put(index, v);
                self.update(cx);
            }
            reg::SECONDS | reg::MINUTES | reg::HOURS | reg::WEEKDAY..=reg::YEAR | reg::CENTURY => {
                self.check_flags(cx);
                self.show_time(cx);
                self.put(index, v);
                if self.running() {
                    self.set_time(cx);
                    self.update(cx);
                }
            }
            reg::A => self.write_a(cx, v),
            reg::B => self.write_b(cx, v),
            reg::C | reg::D => {}
            _ => self.put(index, v),
        }
    }

    fn write_a(&mut self, cx: &mut Cx<'_>, v: u8) {
        self.check_flags(cx);
        self.show_time(cx);
        let was_reset = self.at(reg::A) & 0x60 == 0x60;
        self.put(reg::A, v & !A_UIP);
        if was_reset && v & 0x70 <= 0x20 {
            // The first update comes half a second after the dividers were let go.
            self.s.offset = SECOND / 2;
            if self.running() {
                self.set_time(cx);
            }
        }
        self.update_periodic(cx);
        self.update(cx);
    }

    fn write_b(&mut self, cx: &mut Cx<'_>, v: u8) {
        self.check_flags(cx);
        self.show_time(cx);
        let was_set = self.at(reg::B) & b::SET != 0;
        let v = if v & b::SET != 0 { v & !b::UPDATE } else { v };
        let fraction = self.guest_ns(cx).rem_euclid(SECOND);
        if was_set && v & b::SET == 0 && self.at(reg::A) & 0x70 <= 0x20 {
            // What was written is read in the mode that held when it was written.
            self.s.offset = fraction;
            self.set_time(cx);
        }
        self.put(reg::B, v);
        self.update_periodic(cx);
        self.update(cx);
    }

    /// After a load: lines and timers.
    fn resync(&mut self, cx: &mut Cx<'_>) {
        self.s.cmos.resize(128, 0);
        self.s.index &= 0x7f;
        let next = self.s.next_periodic;
        Self::arm(cx, TIMER_PERIODIC, next);
        self.update(cx);
    }
}

impl IoHandler for Mc146818 {
    fn read(&mut self, cx: &mut Cx<'_>, _region: u32, offset: u64, _size: u8) -> u64 {
        if offset & 1 == 0 {
            return 0xff;
        }
        u64::from(self.read_data(cx))
    }

    fn write(&mut self, cx: &mut Cx<'_>, _region: u32, offset: u64, _size: u8, value: u64) {
        if offset & 1 == 0 {
            self.s.index = value as u8 & 0x7f;
        } else {
            self.write_data(cx, value as u8);
        }
    }
}

impl TimerHandler for Mc146818 {
    fn expired(&mut self, cx: &mut Cx<'_>, id: u32) {
        if id == TIMER_PERIODIC {
            self.periodic_tick(cx);
            return;
        }
        self.check_flags(cx);
        self.update(cx);
        let alarm = self.at(reg::B) & self.at(reg::C) & c::ALARM != 0;
        if alarm && cx.m.run.state() == RunState::Suspended {
            cx.m.run.requests.wakeup = true;
            cx.m.wake_loop();
        }
    }
}

impl Device for Mc146818 {
    fn reset(&mut self, cx: &mut Cx<'_>) {
        let enabled = self.at(reg::B) & !(b::PERIODIC | b::ALARM | b::SQUARE_WAVE);
        self.put(reg::B, enabled);
        self.put(reg::C, 0);
        self.s.lost = 0;
        self.s.reinjected = 0;
        self.s.checked = self.guest_ns(cx);
        cx.set_irq(self.irq, false);
        self.update_periodic(cx);
        self.update(cx);
    }
    fn io(&mut self) -> Option<&mut dyn IoHandler> {
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

save_field!(Mc146818, "mc146818rtc", 3, s, |d, cx| d.resync(cx));
