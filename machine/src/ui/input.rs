//! Where key presses and pointer motion go.
//!
//! Devices that take input form a list; an event goes to the first that takes its kind. A new device joins at the end;
//! one that the guest begins to use, or that `mouse_set` names, moves to the front.

use std::collections::VecDeque;

use super::screendump::find_console;
use super::{InputEvent, InputKinds};
use crate::clock::ClockKind;
use crate::device::DevId;
use crate::devices::legacy::keys;
use crate::machine::Machine;
use crate::run::RunState;
use crate::{qerr, QResult};

/// Stands for the key queue in the list of timers.
pub(crate) const TIMER_DEV: DevId = DevId::KEY_TIMERS;
/// How long `send-key` holds keys unless told otherwise, in milliseconds.
const DEFAULT_HOLD_MS: u32 = 10;
/// Most entries of the key queue; more are dropped.
const QUEUE_LIMIT: usize = 1024;

/// Input devices and keys that wait.
#[derive(Default)]
pub struct InputRouter {
    /// First choice first.
    handlers: Vec<Handler>,
    /// Number given last.
    last_index: u32,
    queue: VecDeque<Queued>,
    /// Buttons held by `mouse_button`.
    buttons: u8,
}

#[derive(Clone, Copy)]
struct Handler {
    dev: DevId,
    index: u32,
    kinds: InputKinds,
    name: &'static str,
}

#[derive(Clone, Copy, Debug)]
enum Queued {
    Key { code: u16, down: bool },
    DelayMs(u32),
}

/// A pointer device, for `query-mice`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MouseInfo {
    /// Number for `mouse_set`.
    pub index: u32,
    /// Name.
    pub name: &'static str,
    /// Gets the events.
    pub current: bool,
    /// Takes absolute positions.
    pub absolute: bool,
}

impl InputEvent {
    /// Kind as QMP calls it.
    fn kind(&self) -> &'static str {
        match self {
            Self::Key { .. } => "key",
            Self::Button { .. } => "btn",
            Self::Rel { .. } => "rel",
            Self::Abs { .. } => "abs",
        }
    }

    fn fits(&self, k: InputKinds) -> bool {
        match self {
            Self::Key { .. } => k.keys,
            Self::Button { .. } => k.rel || k.abs,
            Self::Rel { .. } => k.rel,
            Self::Abs { .. } => k.abs,
        }
    }
}

impl Handler {
    fn is_mouse(&self) -> bool {
        self.kinds.rel || self.kinds.abs
    }
}

impl Machine {
    /// Takes up devices that came and drops those that went. Devices are numbered in the order of their creation.
    fn refresh_input(&mut self) {
        let ids = self.tree.ids();
        self.input.handlers.retain(|h| ids.contains(&h.dev));
        for dev in ids {
            let Some(Some((kinds, name))) =
                self.with_dev(dev, |d, _| d.input().map(|i| (i.takes(), i.name())))
            else {
                continue;
            };
            if let Some(h) = self.input.handlers.iter_mut().find(|h| h.dev == dev) {
                h.kinds = kinds;
                continue;
            }
            self.input.last_index += 1;
            self.input.handlers.push(Handler { dev, index: self.input.last_index, kinds, name });
        }
    }

    fn takes_input(&self) -> bool {
        matches!(self.run.state(), RunState::Running | RunState::Suspended)
    }

    /// Makes `dev` the first choice for the events that it takes (its driver in the guest started).
    pub fn input_activate(&mut self, dev: DevId) {
        self.refresh_input();
        let list = &mut self.input.handlers;
        if let Some(i) = list.iter().position(|h| h.dev == dev) {
            let h = list.remove(i);
            list.insert(0, h);
        }
    }

    /// Delivers events that belong together. Nothing happens unless the guest runs; events that no device takes are
    /// dropped.
    pub fn input_events(&mut self, events: &[InputEvent]) {
        if !self.takes_input() {
            return;
        }
        self.refresh_input();
        let mut touched: Vec<DevId> = Vec::new();
        for e in events {
            let Some(dev) = self.input_sink(e) else { continue };
            self.with_dev(dev, |d, cx| {
                if let Some(i) = d.input() {
                    i.event(cx, *e);
                }
            });
            if !touched.contains(&dev) {
                touched.push(dev);
            }
        }
        for dev in touched {
            self.with_dev(dev, |d, cx| {
                if let Some(i) = d.input() {
                    i.sync(cx);
                }
            });
        }
    }

    fn input_sink(&self, e: &InputEvent) -> Option<DevId> {
        self.input.handlers.iter().find(|h| e.fits(h.kinds)).map(|h| h.dev)
    }

    /// `input-send-event`.
    ///
    /// # Errors
    /// The named screen does not exist, the guest does not run, or no device takes one of the events.
    pub fn input_send_event(
        &mut self,
        device: Option<&str>,
        head: Option<i64>,
        events: &[InputEvent],
    ) -> QResult<()> {
        find_console(self, device, head)?;
        if !self.takes_input() {
            return Err(qerr!("VM not running"));
        }
        self.refresh_input();
        if let Some(e) = events.iter().find(|e| self.input_sink(e).is_none()) {
            return Err(qerr!("Input handler not found for event type {}", e.kind()));
        }
        self.input_events(events);
        Ok(())
    }

    /// `send-key`: presses the keys one after the other, then releases them in reverse order, `hold_ms` between all
    /// steps. Keys are numbers as in [`InputEvent::Key`].
    pub fn send_keys(&mut self, codes: &[u16], hold_ms: Option<i64>) {
        // As QEMU: 0 means the default, and only 32 bits count.
        let hold = match hold_ms.unwrap_or(0) as u32 {
            0 => DEFAULT_HOLD_MS,
            ms => ms,
        };
        let presses = codes.iter().map(|c| (*c, true));
        let releases = codes.iter().rev().map(|c| (*c, false));
        for (code, down) in presses.chain(releases) {
            self.queue_key(code, down);
            self.queue_delay(hold);
        }
    }

    /// HMP's `sendkey`.
    ///
    /// # Errors
    /// A part is no key.
    pub fn sendkey(&mut self, keys: &str, hold_ms: Option<i64>) -> QResult<()> {
        let codes = keys::parse_sendkey(keys).map_err(|k| qerr!("invalid parameter: {k}"))?;
        let codes: Vec<u16> = codes.into_iter().map(u16::from).collect();
        self.send_keys(&codes, hold_ms);
        Ok(())
    }

    fn queue_key(&mut self, code: u16, down: bool) {
        if self.input.queue.is_empty() {
            self.input_events(&[InputEvent::Key { code, down }]);
        } else if self.input.queue.len() < QUEUE_LIMIT {
            self.input.queue.push_back(Queued::Key { code, down });
        }
    }

    fn queue_delay(&mut self, ms: u32) {
        if !self.takes_input() || self.input.queue.len() >= QUEUE_LIMIT {
            return;
        }
        let first = self.input.queue.is_empty();
        self.input.queue.push_back(Queued::DelayMs(ms));
        if first {
            self.arm_key_timer(ms);
        }
    }

    fn arm_key_timer(&mut self, ms: u32) {
        let at = self.clock.virtual_ns() + i64::from(ms) * 1_000_000;
        self.timers.set((TIMER_DEV, 0), Some((ClockKind::Virtual, at)));
        self.wake_loop();
    }

    /// The pause at the head of the key queue is over.
    pub(crate) fn key_timer(&mut self) {
        self.input.queue.pop_front();
        while let Some(q) = self.input.queue.front().copied() {
            match q {
                Queued::DelayMs(ms) => return self.arm_key_timer(ms),
                Queued::Key { code, down } => {
                    self.input.queue.pop_front();
                    self.input_events(&[InputEvent::Key { code, down }]);
                }
            }
        }
    }

    /// Pointer devices as `query-mice` lists them.
    pub fn query_mice(&mut self) -> Vec<MouseInfo> {
        self.refresh_input();
        let mice: Vec<&Handler> = self.input.handlers.iter().filter(|h| h.is_mouse()).collect();
        let info = |(i, h): (usize, &&Handler)| MouseInfo {
            index: h.index,
            name: h.name,
            current: i == 0,
            absolute: h.kinds.abs,
        };
        let mut out: Vec<_> = mice.iter().enumerate().map(info).collect();
        out.reverse();
        out
    }

    /// Text of `info mice`.
    pub fn info_mice(&mut self) -> String {
        let mice = self.query_mice();
        if mice.is_empty() {
            return "No mouse devices connected\n".into();
        }
        let line = |m: &MouseInfo| {
            let mark = if m.current { '*' } else { ' ' };
            let kind = if m.absolute { " (absolute)" } else { "" };
            format!("{mark} Mouse #{}: {}{kind}\n", m.index, m.name)
        };
        mice.iter().map(line).collect()
    }

    /// HMP's `mouse_set`.
    ///
    /// # Errors
    /// There is no such device, or it is no pointer.
    pub fn mouse_set(&mut self, index: i64) -> QResult<()> {
        self.refresh_input();
        let h = self.input.handlers.iter().find(|h| i64::from(h.index) == index).copied();
        let h = h.ok_or_else(|| qerr!("Mouse at index '{index}' not found"))?;
        if !h.is_mouse() {
            return Err(qerr!("Input device '{}' is not a mouse", h.name));
        }
        self.input_activate(h.dev);
        Ok(())
    }

    /// HMP's `mouse_move`; `dz` turns the wheel (positive: up).
    pub fn mouse_move(&mut self, dx: i32, dy: i32, dz: i32) {
        let mut events = vec![InputEvent::Rel { axis: 0, value: dx }, InputEvent::Rel { axis: 1, value: dy }];
        if dz != 0 {
            let button = if dz > 0 { 3 } else { 4 };
            events.push(InputEvent::Button { button, down: true });
            self.input_events(&events);
            events = vec![InputEvent::Button { button, down: false }];
        }
        self.input_events(&events);
    }

    /// HMP's `mouse_button`: 1 = left, 2 = right, 4 = middle.
    pub fn mouse_button(&mut self, state: u8) {
        let old = std::mem::replace(&mut self.input.buttons, state);
        let events: Vec<_> = [(1, 0), (4, 1), (2, 2)]
            .into_iter()
            .filter(|(bit, _)| (old ^ state) & bit != 0)
            .map(|(bit, button)| InputEvent::Button { button, down: state & bit != 0 })
            .collect();
        self.input_events(&events);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::testing::machine;
    use crate::devices::legacy::i8042::I8042Props;

    fn pc() -> Machine {
        let mut m = machine();
        m.add::<I8042Props>(&[]);
        m.reset_devices();
        m.run.set_state(RunState::Running);
        m
    }

    fn bytes(m: &mut Machine) -> Vec<u8> {
        let mut out = Vec::new();
        while m.inb(0x64) & 1 != 0 {
            out.push(m.inb(0x60));
        }
        out
    }

    #[test]
    fn keys_are_held_and_released_in_reverse() {
        let mut m = pc();
        m.sendkey("a-b", None).unwrap();
        assert_eq!(bytes(&mut m), [0x1c]);
        m.advance(9_000_000);
        assert!(bytes(&mut m).is_empty());
        m.advance(1_000_000);
        assert_eq!(bytes(&mut m), [0x32]);
        m.advance(10_000_000);
        assert_eq!(bytes(&mut m), [0xf0, 0x32]);
        m.advance(10_000_000);
        assert_eq!(bytes(&mut m), [0xf0, 0x1c]);
        // The last pause keeps the next key back.
        m.send_keys(&[0x1e], Some(100));
        assert!(bytes(&mut m).is_empty());
        m.advance(10_000_000);
        assert_eq!(bytes(&mut m), [0x1c]);
        m.advance(99_000_000);
        assert!(bytes(&mut m).is_empty());
        m.advance(1_000_000);
        assert_eq!(bytes(&mut m), [0xf0, 0x1c]);
        assert_eq!(m.sendkey("foo", None).unwrap_err().desc, "invalid parameter: foo");
    }

    #[test]
    fn a_stopped_guest_gets_nothing() {
        let mut m = pc();
        m.run.set_state(RunState::Paused);
        m.send_keys(&[0x1e], None);
        assert!(bytes(&mut m).is_empty());
        assert_eq!(m.input_send_event(None, None, &[]).unwrap_err().desc, "VM not running");
        m.run.set_state(RunState::Running);
        m.send_keys(&[0x1e], None);
        assert_eq!(bytes(&mut m), [0x1c]);
        m.send_keys(&[0x1e; 2000], None);
        assert!(m.input.queue.len() <= QUEUE_LIMIT);
    }

    #[test]
    fn mice() {
        let mut m = pc();
        assert_eq!(m.info_mice(), "* Mouse #2: QEMU PS/2 Mouse\n");
        assert_eq!(m.mouse_set(9).unwrap_err().desc, "Mouse at index '9' not found");
        assert_eq!(m.mouse_set(1).unwrap_err().desc, "Input device 'QEMU PS/2 Keyboard' is not a mouse");
        m.mouse_set(2).unwrap();
        let abs = [InputEvent::Abs { axis: 0, value: 1 }];
        let e = m.input_send_event(None, None, &abs).unwrap_err();
        assert_eq!(e.desc, "Input handler not found for event type abs");
        assert_eq!(machine().info_mice(), "No mouse devices connected\n");
        // Switch reporting on.
        m.outb(0x64, 0xd4);
        m.outb(0x60, 0xf4);
        bytes(&mut m);
        m.mouse_button(2);
        m.mouse_move(3, 0, 0);
        m.mouse_button(0);
        assert_eq!(bytes(&mut m), [0x0a, 0, 0, 0x0a, 3, 0, 0x08, 0, 0]);
    }
}
