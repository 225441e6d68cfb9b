//! PM1a event and control registers and the power management timer (ACPI 4.8.3).

use crate::device::Cx;
use crate::machine::Cause;

/// Ticks of the power management timer in a second.
pub const PM_TIMER_HZ: i64 = 3_579_545;

const TMR_STS: u16 = 1;
const GBL_STS: u16 = 1 << 5;
const PWRBTN_STS: u16 = 1 << 8;
const RTC_STS: u16 = 1 << 10;
const WAK_STS: u16 = 1 << 15;
/// Status bits that can raise the interrupt.
const SOURCES: u16 = TMR_STS | GBL_STS | PWRBTN_STS | RTC_STS;

const SCI_EN: u16 = 1;
const SLP_EN: u16 = 1 << 13;

/// The timer's status bit is set whenever bit 23 of the counter changes.
const HALF_PERIOD: i64 = 1 << 23;

/// The registers.
pub struct Pm1 {
    status: u16,
    enable: u16,
    control: u16,
    /// Tick at which the timer's status bit is set next.
    overflow: i64,
    /// Sleep type that means "suspend to disk".
    s4_val: u8,
}

fn ticks(ns: i64) -> i64 {
    (i128::from(ns) * i128::from(PM_TIMER_HZ) / 1_000_000_000) as i64
}

/// First nanosecond at which `ticks` has reached `t`.
fn ns_of(t: i64) -> i64 {
    ((i128::from(t) * 1_000_000_000 + i128::from(PM_TIMER_HZ) - 1) / i128::from(PM_TIMER_HZ)) as i64
}

impl Pm1 {
    /// Power-on state.
    pub fn new(s4_val: u8) -> Self {
        Self { status: 0, enable: 0, control: 0, overflow: 0, s4_val }
    }

    /// Power-on state.
    pub fn reset(&mut self) {
        *self = Self::new(self.s4_val);
    }

    /// Status register at virtual time `now`.
    pub fn status(&mut self, now: i64) -> u16 {
        if ticks(now) >= self.overflow {
            self.status |= TMR_STS;
        }
        self.status
    }

    /// Clears status bits.
    fn write_status(&mut self, now: i64, v: u16) {
        if self.status(now) & v & TMR_STS != 0 {
            self.overflow = (ticks(now) + HALF_PERIOD) & !(HALF_PERIOD - 1);
        }
        self.status &= !v;
    }

    /// Whether an enabled event is pending.
    pub fn active(&mut self, now: i64) -> bool {
        self.status(now) & self.enable & SOURCES != 0
    }

    /// When the timer will raise the interrupt, if it will.
    pub fn next_interrupt(&mut self, now: i64) -> Option<i64> {
        (self.enable & TMR_STS != 0 && self.status(now) & TMR_STS == 0).then(|| ns_of(self.overflow))
    }

    /// `true` if the press was noticed.
    pub fn press_power_button(&mut self) -> bool {
        let noticed = self.enable & PWRBTN_STS != 0;
        if noticed {
            self.status |= PWRBTN_STS;
        }
        noticed
    }

    /// The real-time clock's alarm, a source of wake-ups.
    pub fn rtc_alarm(&mut self) {
        self.status |= RTC_STS;
    }

    /// The machine left the suspended state.
    pub fn woken(&mut self) {
        self.status |= WAK_STS;
    }

    /// Event block, 16-bit accesses: status at 0, enable at 2.
    pub fn read_event(&mut self, now: i64, offset: u64) -> u16 {
        match offset {
            0 => self.status(now),
            2 => self.enable,
            _ => 0,
        }
    }

    /// Event block; the caller updates the interrupt afterwards.
    pub fn write_event(&mut self, now: i64, offset: u64, v: u16) {
        match offset {
            0 => self.write_status(now, v),
            2 => self.enable = v,
            _ => {}
        }
    }

    /// Control register.
    pub fn control(&self) -> u16 {
        self.control
    }

    /// Switches between ACPI and legacy mode (writes to the APM control port).
    pub fn set_acpi_mode(&mut self, on: bool) {
        self.control = (self.control & !SCI_EN) | if on { SCI_EN } else { 0 };
    }

    /// Write to the control register; carries out the sleep request that it may contain.
    pub fn write_control(&mut self, cx: &mut Cx<'_>, v: u16) {
        self.control = v & !SLP_EN;
        if v & SLP_EN == 0 {
            return;
        }
        match (v >> 10 & 7) as u8 {
            0 => cx.request_shutdown(Cause::GuestShutdown),
            1 => cx.m.run.request_suspend(),
            t if t == self.s4_val => {
                cx.event("SUSPEND_DISK", None);
                cx.request_shutdown(Cause::GuestShutdown);
            }
            _ => {}
        }
    }

    /// The 24-bit counter.
    pub fn timer(now: i64) -> u32 {
        (ticks(now) & 0xff_ffff) as u32
    }
}
