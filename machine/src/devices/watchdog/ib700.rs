//! `ib700`: the watchdog of the iBASE 700 board. Writing a code to port 0x443 starts it for 30 - 2n seconds, writing to
//! port 0x441 stops it.

use std::any::Any;

use rqemu_derive::Device as DeriveDevice;
use serde::{Deserialize, Serialize};

use crate::device::{Cx, Device, IoHandler, RealizeCx, TimerHandler};
use crate::devices::legacy::part::save_field;
use crate::memory::IoSpec;
use crate::qom::DeviceClass;
use crate::state::SaveState;
use crate::QResult;

const BASE: u16 = 0x441;
const STOP: u64 = 0;
const START: u64 = 2;
const SECOND: i64 = 1_000_000_000;

/// Properties of `ib700`.
#[derive(DeriveDevice, Debug)]
#[class(name = "ib700", parent = "isa-device", bus = Isa, category = Watchdog, desc = "iBASE 700")]
pub struct Ib700Props {}

impl DeviceClass for Ib700Props {
    fn realize(&mut self, cx: &mut RealizeCx<'_>) -> QResult<Box<dyn Device>> {
        cx.map_ports("ib700", BASE, 4, 0, IoSpec::BYTES);
        Ok(Box::new(Ib700 { s: State::default() }))
    }
}

/// Saved state.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// When it expires, in virtual time.
    due: Option<i64>,
}

/// The watchdog at run time.
pub struct Ib700 {
    s: State,
}

impl Ib700 {
    fn set(&mut self, cx: &mut Cx<'_>, due: Option<i64>) {
        self.s.due = due;
        cx.timer_set(0, due);
    }
}

impl Device for Ib700 {
    fn reset(&mut self, cx: &mut Cx<'_>) {
        self.set(cx, None);
    }
    fn io(&mut self) -> Option<&mut dyn IoHandler> {
        Some(self)
    }
    fn timers(&mut self) -> Option<&mut dyn TimerHandler> {
        Some(self)
    }
    fn state(&mut self) -> Option<&mut dyn SaveState> {
        Some(self)
    }
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

save_field!(Ib700, "ib700_wdt", 0, s, |d, cx| cx.timer_set(0, d.s.due));

impl IoHandler for Ib700 {
    fn read(&mut self, _cx: &mut Cx<'_>, _region: u32, _offset: u64, _size: u8) -> u64 {
        0xff
    }
    fn write(&mut self, cx: &mut Cx<'_>, _region: u32, offset: u64, _size: u8, value: u64) {
        match offset {
            STOP => self.set(cx, None),
            START => {
                let seconds = 30 - 2 * (value & 0xf) as i64;
                self.set(cx, Some(cx.now() + seconds * SECOND));
            }
            _ => {}
        }
    }
}

impl TimerHandler for Ib700 {
    fn expired(&mut self, cx: &mut Cx<'_>, _id: u32) {
        self.s.due = None;
        cx.m.watchdog_expired();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::testing::machine;

    #[test]
    fn starts_stops_and_expires() {
        let mut m = machine();
        m.add::<Ib700Props>(&[]);
        m.outb(0x443, 0xe);
        m.advance(2 * SECOND - 1);
        assert!(m.events.is_empty());
        m.outb(0x443, 0xf0);
        m.advance(29 * SECOND);
        assert!(m.events.is_empty(), "started anew for 30 seconds");
        m.advance(SECOND);
        assert_eq!(m.events.len(), 1);
        m.outb(0x443, 0xf);
        m.outb(0x441, 0);
        m.advance(60 * SECOND);
        assert_eq!(m.events.len(), 1, "stopped");
    }
}
