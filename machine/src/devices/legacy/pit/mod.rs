//! `isa-pit`: 8254 programmable interval timer at ports 0x40 to 0x43 (Intel 8254 data sheet).
//!
//! Counters are computed from the virtual clock when they are read. Channel 0's output is the interrupt: its rising
//! edges are told as pulses, one timer expiry each; nothing runs while channel 0 is idle. Channel 2 feeds the
//! speaker. Left out: BCD counting (counted in binary, as QEMU does) and the null-count flag.
//! Tested: unit tests here; register scripts against real QEMU.

pub mod pcspk;
#[cfg(test)]
mod tests;

use std::any::Any;

use rqemu_derive::Device as DeriveDevice;
use serde::{Deserialize, Serialize};

use super::part::save_field;
use crate::device::{Cx, Device, IoHandler, IrqInputs, RealizeCx, TimerHandler};
use crate::irq::{IrqLine, IrqSink};
use crate::memory::IoSpec;
use crate::qom::DeviceClass;
use crate::{qerr, QResult};

/// Input clock in hertz.
pub const FREQUENCY: i64 = 1_193_182;
const SECOND: i64 = 1_000_000_000;

/// Properties of `isa-pit`.
#[derive(DeriveDevice, Debug)]
#[class(name = "isa-pit", parent = "pit-common", bus = Isa, internal)]
pub struct IsaPitProps {
    /// First port
    #[prop(default = u32::MAX)]
    pub iobase: u32,
}

impl DeviceClass for IsaPitProps {
    fn realize(&mut self, cx: &mut RealizeCx<'_>) -> QResult<Box<dyn Device>> {
        let base = u16::try_from(self.iobase).map_err(|_| qerr!("Invalid I/O base {:#x}", self.iobase))?;
        let irq = cx.irq_line(IrqSink::Gsi(0));
        cx.map_ports("pit", base, 4, 0, IoSpec::BYTES);
        cx.gpio("", true, 1);
        cx.gpio("", false, 1);
        Ok(Box::new(Pit { s: PitState::default(), irq }))
    }
}

/// How a two-byte counter is read or written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Access {
    /// Low byte only, or nothing chosen yet.
    #[default]
    Low,
    /// High byte only.
    High,
    /// Low, then high: low comes next.
    WordLow,
    /// Low, then high: high comes next.
    WordHigh,
}

impl Access {
    fn of(rw: u8) -> Self {
        match rw & 3 {
            2 => Self::High,
            3 => Self::WordLow,
            _ => Self::Low,
        }
    }
}

/// Saved state of a channel.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Channel {
    /// Divisor, 1 to 0x10000.
    count: i64,
    /// When counting began (virtual time).
    loaded: i64,
    mode: u8,
    /// Access bits of the control word.
    rw: u8,
    bcd: bool,
    gate: bool,
    read: Access,
    write: Access,
    /// First byte of a two-byte write.
    low: u8,
    latched: Option<(u16, Access)>,
    latched_status: Option<u8>,
    /// When the next edge is due (channel 0).
    due: Option<i64>,
}

impl Channel {
    fn ticks(&self, now: i64) -> i64 {
        (i128::from(now - self.loaded) * i128::from(FREQUENCY) / i128::from(SECOND)) as i64
    }

    /// Current value of the counter.
    fn value(&self, now: i64) -> u16 {
        let d = self.ticks(now);
        let n = self.count.max(1);
        let v = match self.mode {
            0 | 1 | 4 | 5 => self.count - d,
            3 => self.count - (2 * d) % n,
            _ => self.count - d % n,
        };
        v as u16
    }

    /// Level of the output.
    fn out(&self, now: i64) -> bool {
        let d = self.ticks(now);
        let n = self.count.max(1);
        match self.mode {
            0 => d >= n,
            1 => d < n,
            2 => d % n == 0 && d != 0,
            3 => d % n < (n + 1) / 2,
            _ => d == n,
        }
    }

    /// Virtual time of the first rising edge of the output after `now`.
    fn next_edge(&self, now: i64) -> Option<i64> {
        let d = self.ticks(now);
        let n = self.count.max(1);
        let tick = match self.mode {
            2 | 3 => (d / n + 1) * n,
            0 | 4 | 5 if d < n => n,
            _ => return None,
        };
        // Rounded up, so that the tick has come when the timer expires.
        let ns = (i128::from(tick) * i128::from(SECOND) + i128::from(FREQUENCY) - 1) / i128::from(FREQUENCY);
        Some(self.loaded + ns as i64)
    }

    fn load(&mut self, v: u16, now: i64) {
        self.count = if v == 0 { 0x1_0000 } else { i64::from(v) };
        self.loaded = now;
    }

    fn latch(&mut self, now: i64) {
        // A channel that was never programmed latches nothing.
        if self.latched.is_none() && self.rw != 0 {
            self.latched = Some((self.value(now), Access::of(self.rw)));
        }
    }

    fn read(&mut self, now: i64) -> u8 {
        if let Some(s) = self.latched_status.take() {
            return s;
        }
        if let Some((v, how)) = self.latched {
            let [lo, hi] = v.to_le_bytes();
            self.latched = match how {
                Access::WordLow => Some((v, Access::WordHigh)),
                _ => None,
            };
            return if matches!(how, Access::Low | Access::WordLow) { lo } else { hi };
        }
        let [lo, hi] = self.value(now).to_le_bytes();
        match self.read {
            Access::Low => lo,
            Access::High => hi,
            Access::WordLow => {
                self.read = Access::WordHigh;
                lo
            }
            Access::WordHigh => {
                self.read = Access::WordLow;
                hi
            }
        }
    }

    /// Writes a byte of the counter; `true` when the counter was loaded.
    fn write(&mut self, v: u8, now: i64) -> bool {
        match self.write {
            Access::Low => self.load(u16::from(v), now),
            Access::High => self.load(u16::from(v) << 8, now),
            Access::WordLow => {
                self.low = v;
                self.write = Access::WordHigh;
                return false;
            }
            Access::WordHigh => {
                self.load(u16::from_le_bytes([self.low, v]), now);
                self.write = Access::WordLow;
            }
        }
        true
    }

    fn control(&mut self, v: u8) {
        self.rw = v >> 4 & 3;
        self.read = Access::of(self.rw);
        self.write = self.read;
        self.mode = v >> 1 & 7;
        self.bcd = v & 1 != 0;
    }
}

/// Saved state.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PitState {
    channels: [Channel; 3],
    /// Channel 0's interrupt is given to somebody else (HPET's legacy replacement).
    irq_disabled: bool,
}

impl Default for PitState {
    fn default() -> Self {
        let ch = |gate| Channel { mode: 3, gate, count: 0x1_0000, ..Channel::default() };
        Self { channels: [ch(true), ch(true), ch(false)], irq_disabled: false }
    }
}

/// The timer.
pub struct Pit {
    s: PitState,
    irq: IrqLine,
}

impl Pit {
    /// Interrupt output, for boards that lead it through another device (HPET's legacy replacement).
    pub fn irq_line(&self) -> IrqLine {
        self.irq
    }

    /// Output of a channel (2 for the speaker).
    pub fn output(&self, channel: usize, now: i64) -> bool {
        self.s.channels.get(channel).is_some_and(|c| c.out(now))
    }

    /// Gate input of channel 2.
    pub fn set_gate2(&mut self, on: bool, now: i64) {
        let c = &mut self.s.channels[2];
        // Modes 0 and 4 are not restarted by the gate.
        if on && !c.gate && matches!(c.mode, 1 | 2 | 3 | 5) {
            c.loaded = now;
        }
        c.gate = on;
    }

    /// Gate of channel 2 as set last.
    pub fn gate2(&self) -> bool {
        self.s.channels[2].gate
    }

    /// Restarts the interrupt timer from `from`.
    fn rearm(&mut self, cx: &mut Cx<'_>, from: i64) {
        let c = &mut self.s.channels[0];
        let due = if self.s.irq_disabled { None } else { c.next_edge(from) };
        if due.is_some() || c.due.is_some() {
            c.due = due;
            cx.timer_set(0, due);
        }
    }

    /// The output of channel 0 after a write. Mode 0 stays high once it has counted down.
    fn sync(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now();
        let c = &self.s.channels[0];
        let level = !self.s.irq_disabled && c.out(now) && matches!(c.mode, 0 | 1 | 3);
        if cx.m.irqs.level(self.irq) != level {
            cx.set_irq(self.irq, level);
        }
        self.rearm(cx, now);
    }

    fn read_back(&mut self, v: u8, now: i64) {
        for (i, c) in self.s.channels.iter_mut().enumerate() {
            if v & 2 << i == 0 {
                continue;
            }
            if v & 0x20 == 0 {
                c.latch(now);
            }
            if v & 0x10 == 0 && c.latched_status.is_none() {
                let out = if c.out(now) { 0x80 } else { 0 };
                c.latched_status = Some(out | c.rw << 4 | c.mode << 1 | u8::from(c.bcd));
            }
        }
    }
}

impl IoHandler for Pit {
    fn read(&mut self, cx: &mut Cx<'_>, _region: u32, offset: u64, _size: u8) -> u64 {
        let now = cx.now();
        // The control word cannot be read.
        self.s.channels.get_mut((offset & 3) as usize).map_or(0, |c| u64::from(c.read(now)))
    }

    fn write(&mut self, cx: &mut Cx<'_>, _region: u32, offset: u64, _size: u8, value: u64) {
        let (now, v) = (cx.now(), value as u8);
        let channel = (offset & 3) as usize;
        if let Some(c) = self.s.channels.get_mut(channel) {
            if c.write(v, now) && channel == 0 {
                self.sync(cx);
            }
            return;
        }
        let channel = usize::from(v >> 6);
        match self.s.channels.get_mut(channel) {
            None => self.read_back(v, now),
            Some(c) if v & 0x30 == 0 => c.latch(now),
            Some(c) => {
                c.control(v);
                if channel == 0 {
                    self.sync(cx);
                }
            }
        }
    }
}

impl TimerHandler for Pit {
    fn expired(&mut self, cx: &mut Cx<'_>, _id: u32) {
        // Late expiries are made up for one by one: ticks are not lost.
        let due = self.s.channels[0].due.take().unwrap_or_else(|| cx.now());
        cx.set_irq(self.irq, false);
        cx.set_irq(self.irq, true);
        if !matches!(self.s.channels[0].mode, 0 | 3) {
            cx.set_irq(self.irq, false);
        }
        self.rearm(cx, due);
    }
}

impl IrqInputs for Pit {
    /// Pin 0: high lets channel 0 interrupt, low hands its interrupt to somebody else.
    fn set_input(&mut self, cx: &mut Cx<'_>, _pin: u32, level: bool) {
        self.s.irq_disabled = !level;
        if level {
            self.rearm(cx, cx.now());
        } else {
            self.rearm(cx, 0);
        }
    }
}

impl Device for Pit {
    fn reset(&mut self, cx: &mut Cx<'_>) {
        let disabled = self.s.irq_disabled;
        self.s = PitState { irq_disabled: disabled, ..PitState::default() };
        let now = cx.now();
        for c in &mut self.s.channels {
            c.loaded = now;
        }
        // Channel 0 interrupts from power-on, 18.2 times a second.
        self.rearm(cx, now);
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

save_field!(Pit, "i8254", 3, s, |d, cx| {
    for c in &mut d.s.channels {
        c.count = c.count.clamp(1, 0x1_0000);
        c.mode &= 7;
    }
    let due = d.s.channels[0].due;
    cx.timer_set(0, due);
});
