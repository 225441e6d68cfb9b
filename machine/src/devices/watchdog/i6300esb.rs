//! `i6300esb`: the watchdog of the Intel 6300ESB I/O controller hub (datasheet 300641, chapter 16). Two timers run one
//! after the other; the second one expiring is what `-action watchdog=` is about.
//!
//! Left out: the interrupt of the first timer, as in QEMU. Register values are those of QEMU 7.2.

use std::any::Any;

use rqemu_derive::Device as DeriveDevice;
use serde::{Deserialize, Serialize};

use crate::device::{Cx, Device, IoHandler, PciFunction, RealizeCx, TimerHandler};
use crate::devices::legacy::part::save_field;
use crate::memory::IoSpec;
use crate::pci::{BarKind, PciIds, PciProps, PciState};
use crate::qom::DeviceClass;
use crate::state::SaveState;
use crate::QResult;

/// Configuration registers.
const CONFIG: usize = 0x60;
const LOCK: usize = 0x68;
/// Bits of the first: no reboot, fast clock, kind of interrupt.
const NO_REBOOT: u16 = 0x20;
const FAST: u16 = 4;
const INTERRUPT: u16 = 0x11;
/// Bits of the second.
const LOCKED: u8 = 1;
const ENABLED: u8 = 2;
const FREE_RUN: u8 = 4;

/// Memory registers.
const PRELOAD1: u64 = 0;
const PRELOAD2: u64 = 4;
const RELOAD: u64 = 0xc;
const DO_RELOAD: u64 = 0x100;
const TIMED_OUT: u64 = 0x200;
/// What a read shows after the watchdog struck: bit 9, and bit 12 where Linux looks for it.
const STRUCK: u64 = 0x1200;
const UNLOCK: [u64; 2] = [0x80, 0x86];
const MAX_PRELOAD: u32 = 0xf_ffff;
/// The PCI clock.
const HZ: u128 = 33_000_000;

/// Intel 6300ESB
#[derive(DeriveDevice, Debug)]
#[class(
    name = "i6300esb",
    parent = "pci-device",
    bus = Pci,
    category = Watchdog,
    desc = "Intel 6300ESB",
    hotplug
)]
pub struct I6300esbProps {
    /// Properties of every PCI device.
    #[base]
    pub pci: PciProps,
}

impl DeviceClass for I6300esbProps {
    fn realize(&mut self, cx: &mut RealizeCx<'_>) -> QResult<Box<dyn Device>> {
        let mut pci =
            PciState::new(PciIds { vendor: 0x8086, device: 0x25ab, class: 0x0880, ..PciIds::default() });
        let r = cx.io_region("i6300esb", 0x10, 0, IoSpec::ANY);
        pci.add_bar(0, r, 0x10, BarKind::Mem32);
        // Both registers are kept below, with bits that do not exist reading as zero.
        pci.wmask_mut()[CONFIG..CONFIG + 2].copy_from_slice(&(NO_REBOOT | FAST | INTERRUPT).to_le_bytes());
        pci.wmask_mut()[LOCK] = LOCKED | ENABLED | FREE_RUN;
        cx.pci_attach(&mut pci, self.pci.addr.0, self.pci.multifunction)?;
        Ok(Box::new(I6300esb { pci, s: State::default() }))
    }
}

/// Saved state.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    no_reboot: bool,
    fast: bool,
    interrupt: u16,
    locked: bool,
    enabled: bool,
    free_run: bool,
    preload: [u32; 2],
    /// Which of the two timers runs.
    second: bool,
    /// When it expires, in virtual time.
    due: Option<i64>,
    /// Steps of the unlock sequence that were done.
    unlock: u8,
    struck: bool,
}

impl Default for State {
    fn default() -> Self {
        Self {
            no_reboot: false,
            fast: false,
            interrupt: 0,
            locked: false,
            enabled: false,
            free_run: false,
            preload: [MAX_PRELOAD; 2],
            second: false,
            due: None,
            unlock: 0,
            struck: false,
        }
    }
}

/// The watchdog at run time.
pub struct I6300esb {
    pci: PciState,
    s: State,
}

impl I6300esb {
    /// Starts one of the timers.
    fn start(&mut self, cx: &mut Cx<'_>, second: bool) {
        if !self.s.enabled {
            return;
        }
        self.s.second = second;
        let clocks = u128::from(self.s.preload[usize::from(second)]) << if self.s.fast { 5 } else { 15 };
        let due = cx.now() + (clocks * 1_000_000_000 / HZ) as i64;
        self.s.due = Some(due);
        cx.timer_set(0, Some(due));
    }

    fn stop(&mut self, cx: &mut Cx<'_>) {
        self.s.due = None;
        cx.timer_set(0, None);
    }

    /// Everything but the memory of having struck goes back to its first value.
    fn restart(&mut self, cx: &mut Cx<'_>) {
        self.stop(cx);
        self.s = State { struck: self.s.struck, ..State::default() };
        self.show();
    }

    /// Shows the two registers in configuration space.
    fn show(&mut self) {
        let s = &self.s;
        let bit = |on: bool, b: u16| if on { b } else { 0 };
        let config = bit(s.no_reboot, NO_REBOOT) | bit(s.fast, FAST) | s.interrupt;
        let lock =
            bit(s.locked, LOCKED.into()) | bit(s.enabled, ENABLED.into()) | bit(s.free_run, FREE_RUN.into());
        self.pci.set_word(CONFIG, config);
        self.pci.config_mut()[LOCK] = lock as u8;
    }

    fn write_lock(&mut self, cx: &mut Cx<'_>, v: u8) {
        if self.s.locked {
            return;
        }
        let was = self.s.enabled;
        self.s.locked = v & LOCKED != 0;
        self.s.free_run = v & FREE_RUN != 0;
        self.s.enabled = v & ENABLED != 0;
        if self.s.enabled && !was {
            self.start(cx, false);
        } else if !self.s.enabled {
            self.stop(cx);
        }
    }

    fn write_reload(&mut self, cx: &mut Cx<'_>, size: u8, v: u64) {
        match self.s.unlock {
            0 if v == UNLOCK[0] => self.s.unlock = 1,
            1 if v == UNLOCK[1] => self.s.unlock = 2,
            2 if size == 2 => {
                if v & DO_RELOAD != 0 {
                    self.start(cx, false);
                }
                if v & TIMED_OUT != 0 {
                    self.s.struck = false;
                }
                self.s.unlock = 0;
            }
            _ => {}
        }
    }
}

impl Device for I6300esb {
    fn reset(&mut self, cx: &mut Cx<'_>) {
        self.restart(cx);
    }
    fn io(&mut self) -> Option<&mut dyn IoHandler> {
        Some(self)
    }
    fn pci(&mut self) -> Option<&mut dyn PciFunction> {
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

save_field!(I6300esb, "i6300esb_wdt", 10000, s, |d, cx| {
    cx.timer_set(0, d.s.due);
    d.show();
});

impl PciFunction for I6300esb {
    fn state(&mut self) -> &mut PciState {
        &mut self.pci
    }
    fn config_written(&mut self, cx: &mut Cx<'_>, addr: u16, len: u8) {
        let (from, to) = (usize::from(addr), usize::from(addr) + usize::from(len));
        if from <= CONFIG && to > CONFIG {
            let v = self.pci.word(CONFIG);
            self.s.no_reboot = v & NO_REBOOT != 0;
            self.s.fast = v & FAST != 0;
            self.s.interrupt = v & INTERRUPT;
        }
        if from <= LOCK && to > LOCK {
            let v = self.pci.config()[LOCK];
            self.write_lock(cx, v);
        }
        self.show();
    }
}

impl IoHandler for I6300esb {
    fn read(&mut self, _cx: &mut Cx<'_>, _region: u32, offset: u64, size: u8) -> u64 {
        if offset == RELOAD && size == 2 && self.s.struck {
            STRUCK
        } else {
            0
        }
    }
    fn write(&mut self, cx: &mut Cx<'_>, _region: u32, offset: u64, size: u8, value: u64) {
        match offset {
            RELOAD => self.write_reload(cx, size, value),
            PRELOAD1 | PRELOAD2 if size == 4 && self.s.unlock == 2 => {
                self.s.preload[usize::from(offset == PRELOAD2)] = value as u32 & MAX_PRELOAD;
                self.s.unlock = 0;
            }
            _ => {}
        }
    }
}

impl TimerHandler for I6300esb {
    fn expired(&mut self, cx: &mut Cx<'_>, _id: u32) {
        self.s.due = None;
        if !self.s.second {
            self.start(cx, true);
            return;
        }
        if !self.s.no_reboot {
            self.s.struck = true;
            cx.m.watchdog_expired();
            self.restart(cx);
        }
        if self.s.free_run {
            self.start(cx, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{BusKind, DevId, Place};
    use crate::machine::Machine;
    use crate::memory::Space;
    use crate::qom::Classed;

    const BASE: u64 = 0xe000_0000;

    fn set_up() -> (Machine, DevId) {
        let mut m = crate::device::testing::machine();
        let root = m.tree.add_bus("pci.0".into(), BusKind::Pci, None);
        let (mem, io) = (m.mem.system, m.mem.io);
        m.pci.add(root, mem, io, Vec::new(), |_, pin| usize::from(pin));
        let d = m.add_device(I6300esbProps::CLASS, Some(root), Place::Anon(0), &[]).unwrap();
        m.reset_device(d);
        m.pci_config_write(Some(d), 0x10, 4, BASE as u32);
        m.pci_config_write(Some(d), 4, 2, 2);
        (m, d)
    }

    fn unlocked(m: &mut Machine, at: u64, size: u8, v: u64) {
        m.guest_write(Space::Memory, BASE + RELOAD, 2, 0x80);
        m.guest_write(Space::Memory, BASE + RELOAD, 2, 0x86);
        m.guest_write(Space::Memory, BASE + at, size, v);
    }

    #[test]
    fn registers_are_qemus() {
        let (mut m, d) = set_up();
        for (v, want) in [(0, 0), (0xff, 0x35), (0x24, 0x24), (0x23, 0x21)] {
            m.pci_config_write(Some(d), 0x60, 2, v);
            assert_eq!(m.pci_config_read(Some(d), 0x60, 2), want);
        }
        for v in [4, 2, 6, 0, 3] {
            m.pci_config_write(Some(d), 0x68, 1, v);
            assert_eq!(m.pci_config_read(Some(d), 0x68, 1), v);
        }
        m.pci_config_write(Some(d), 0x68, 1, 0);
        assert_eq!(m.pci_config_read(Some(d), 0x68, 1), 3, "locked");
    }

    #[test]
    fn strikes_after_both_timers() {
        let (mut m, d) = set_up();
        m.pci_config_write(Some(d), 0x60, 2, 4);
        // 4096 ticks of 32 clocks: 3.97 ms for each timer.
        unlocked(&mut m, PRELOAD1, 4, 0x1000);
        unlocked(&mut m, PRELOAD2, 4, 0x1000);
        m.pci_config_write(Some(d), 0x68, 1, 2);
        m.advance(7_900_000);
        assert!(m.events.is_empty());
        unlocked(&mut m, RELOAD, 2, DO_RELOAD);
        m.advance(7_900_000);
        assert!(m.events.is_empty(), "kept quiet in time");
        m.advance(100_000);
        assert_eq!(m.events.len(), 1);
        assert_eq!(m.guest_read(Space::Memory, BASE + RELOAD, 2), 0x1200);
        assert_eq!(m.guest_read(Space::Memory, BASE + RELOAD, 4), 0);
        assert_eq!((m.pci_config_read(Some(d), 0x60, 2), m.pci_config_read(Some(d), 0x68, 1)), (0, 0));
        unlocked(&mut m, RELOAD, 2, TIMED_OUT);
        assert_eq!(m.guest_read(Space::Memory, BASE + RELOAD, 2), 0);
        m.advance(1_000_000_000);
        assert_eq!(m.events.len(), 1, "once");
    }
}
