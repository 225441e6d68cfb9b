//! `i8042`: keyboard controller of the PC/AT and PS/2 at ports 0x60 and 0x64, with its keyboard and mouse
//! (`ps2-kbd`, `ps2-mouse`, which are parts of it in the QOM tree).
//!
//! Models the command set of the IBM PS/2 Technical Reference as far as QEMU answers it. Each of keyboard and mouse
//! has a queue of its own; the controller's own answers go before both. Tested: unit tests here; random command
//! scripts against real QEMU; scan codes of every key were recorded from it.

mod keyboard;
mod mouse;
mod ps2;
#[cfg(test)]
mod tests;

use std::any::Any;

use rqemu_derive::Device as DeriveDevice;
use serde::{Deserialize, Serialize};

use self::keyboard::Keyboard;
use self::mouse::Mouse;
use super::part::{load_state, save_state};
use crate::device::{Cx, DevId, Device, DeviceTree, IoHandler, RealizeCx, TimerHandler};
use crate::irq::{IrqLine, IrqSink};
use crate::machine::Cause;
use crate::memory::IoSpec;
use crate::qom::{Classed, DeviceClass};
use crate::run::RunState;
use crate::ui::{InputEvent, InputKinds, InputSink};
use crate::{qerr, QResult};

/// Status register.
mod status {
    pub const OBF: u8 = 0x01;
    pub const SELF_TEST: u8 = 0x04;
    pub const COMMAND: u8 = 0x08;
    pub const UNLOCKED: u8 = 0x10;
    pub const MOUSE_OBF: u8 = 0x20;
}
/// Controller command byte.
mod mode {
    pub const KBD_INT: u8 = 0x01;
    pub const MOUSE_INT: u8 = 0x02;
    pub const DISABLE_KBD: u8 = 0x10;
    pub const DISABLE_MOUSE: u8 = 0x20;
    pub const TRANSLATE: u8 = 0x40;
}
/// Output port.
mod outport {
    pub const NOT_RESET: u8 = 0x01;
    pub const A20: u8 = 0x02;
    pub const OBF: u8 = 0x10;
    pub const MOUSE_OBF: u8 = 0x20;
    pub const ONES: u8 = 0xcc;
}
/// Time between two keyboard bytes with `kbd-throttle`.
const THROTTLE_NS: i64 = 1_000_000;
const REGION_DATA: u32 = 0;

/// Properties of `i8042`.
#[derive(DeriveDevice, Debug)]
#[class(name = "i8042", parent = "isa-device", bus = Isa, category = Input, extra("a20[0]", "link<irq>"),
    extra("i8042-cmd[0]", "child<memory-region>"), extra("i8042-data[0]", "child<memory-region>"),
    extra("ps2-kbd-input-irq[0]", "child<irq>"), extra("ps2-mouse-input-irq[0]", "child<irq>"),
    extra("ps2kbd", "child<ps2-kbd>"), extra("ps2mouse", "child<ps2-mouse>"),
    extra("unnamed-gpio-out[0]", "link<irq>"), extra("unnamed-gpio-out[1]", "link<irq>"))]
pub struct I8042Props {
    /// The controller keeps its own answers apart from the keyboard's queue
    #[prop(default = true)]
    pub extended_state: bool,
    /// At most one keyboard byte a millisecond
    #[prop]
    pub kbd_throttle: bool,
    /// Interrupt of the keyboard
    #[prop(default = 1u8)]
    pub kbd_irq: u8,
    /// Interrupt of the mouse
    #[prop(default = 12u8)]
    pub mouse_irq: u8,
}

/// Properties of `ps2-kbd`.
#[derive(DeriveDevice, Debug)]
#[class(name = "ps2-kbd", parent = "ps2-device", bus = System, internal, extra("unnamed-gpio-out[0]", "link<irq>"))]
pub struct Ps2KbdProps {}

/// Properties of `ps2-mouse`.
#[derive(DeriveDevice, Debug)]
#[class(name = "ps2-mouse", parent = "ps2-device", bus = System, internal, extra("unnamed-gpio-out[0]", "link<irq>"))]
pub struct Ps2MouseProps {}

macro_rules! only_with_controller {
    ($($t:ty),*) => {$(
        impl DeviceClass for $t {
            fn realize(&mut self, _cx: &mut RealizeCx<'_>) -> QResult<Box<dyn Device>> {
                Err(qerr!("Device '{}' needs a controller", <$t>::CLASS.name))
            }
        }
    )*};
}
only_with_controller!(Ps2KbdProps, Ps2MouseProps);

impl DeviceClass for I8042Props {
    fn realize(&mut self, cx: &mut RealizeCx<'_>) -> QResult<Box<dyn Device>> {
        for (name, irq) in [("kbd-irq", self.kbd_irq), ("mouse-irq", self.mouse_irq)] {
            if irq > 15 {
                return Err(qerr!("Maximum value for \"{name}\" is: 15"));
            }
        }
        let me = cx.id();
        let system = Some(DeviceTree::SYSTEM);
        let kbd = Box::new(InputPart { controller: me, what: Input::Keyboard });
        let mouse = Box::new(InputPart { controller: me, what: Input::Mouse });
        for id in [
            cx.add_part("ps2kbd", Ps2KbdProps::CLASS, Box::new(Ps2KbdProps {}), system, kbd),
            cx.add_part("ps2mouse", Ps2MouseProps::CLASS, Box::new(Ps2MouseProps {}), system, mouse),
        ] {
            if let Some(n) = cx.m().tree.get_mut(id) {
                n.gpios.push(("", false, 1));
            }
        }
        let kbd_irq = cx.isa_irq(u32::from(self.kbd_irq));
        let mouse_irq = cx.isa_irq(u32::from(self.mouse_irq));
        let a20 = cx.irq_line(IrqSink::None);
        cx.map_ports("i8042-data", 0x60, 1, REGION_DATA, IoSpec::BYTES);
        cx.map_ports("i8042-cmd", 0x64, 1, REGION_DATA + 1, IoSpec::BYTES);
        for (name, input, count) in [
            ("ps2-mouse-input-irq", true, 1),
            ("ps2-kbd-input-irq", true, 1),
            ("", false, 2),
            ("a20", false, 1),
        ] {
            cx.gpio(name, input, count);
        }
        Ok(Box::new(I8042 {
            s: Controller::default(),
            kbd: Keyboard::default(),
            mouse: Mouse::default(),
            extended: self.extended_state,
            throttle: self.kbd_throttle,
            kbd_irq,
            mouse_irq,
            a20,
            lines: (false, false),
        }))
    }
}

/// Where the byte in the output buffer comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Source {
    Keyboard,
    Mouse,
    Controller,
}

/// Saved state of the controller.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Controller {
    status: u8,
    mode: u8,
    outport: u8,
    /// The command whose parameter comes next.
    command: Option<u8>,
    /// An answer of the controller, and whether it poses as the mouse's.
    answer: Option<(u8, bool)>,
    /// Source of the byte in the output buffer, if there is one.
    source: Option<Source>,
    /// What the last read of the data port gave.
    last: u8,
    /// Keyboard bytes wait until this moment (virtual time).
    hold_until: Option<i64>,
}

impl Default for Controller {
    fn default() -> Self {
        Self {
            status: status::COMMAND | status::UNLOCKED,
            mode: mode::KBD_INT | mode::MOUSE_INT,
            outport: outport::NOT_RESET | outport::A20 | outport::ONES,
            command: None,
            answer: None,
            source: None,
            last: 0,
            hold_until: None,
        }
    }
}

/// The keyboard controller.
pub struct I8042 {
    s: Controller,
    kbd: Keyboard,
    mouse: Mouse,
    extended: bool,
    throttle: bool,
    kbd_irq: IrqLine,
    mouse_irq: IrqLine,
    a20: IrqLine,
    /// Levels of the two interrupt lines.
    lines: (bool, bool),
}

impl I8042 {
    /// The A20 gate output, for the board to connect.
    pub fn a20_line(&self) -> IrqLine {
        self.a20
    }

    /// As a BIOS leaves it: self-test passed, keyboard codes translated, both interrupts on but the mouse off.
    pub fn firmware_mode(&mut self, cx: &mut Cx<'_>) {
        self.s.status |= status::SELF_TEST;
        self.kbd.set_translation(true);
        self.set_mode(cx, mode::TRANSLATE | mode::DISABLE_MOUSE | mode::KBD_INT);
    }

    /// Keyboard lights: bit 0 scroll lock, 1 num lock, 2 caps lock.
    pub fn leds(&self) -> u8 {
        self.kbd.leds()
    }

    /// The keyboard sends a key, by QEMU's key number.
    pub fn key(&mut self, cx: &mut Cx<'_>, number: u8, down: bool) {
        self.kbd.key(number, down);
        self.fill(cx, None);
    }

    /// The mouse moves; positive is right, down, and towards the user.
    pub fn mouse_motion(&mut self, dx: i32, dy: i32, dz: i32) {
        self.mouse.motion(dx, dy, dz);
    }

    /// End of a group of mouse events.
    pub fn mouse_sync(&mut self, cx: &mut Cx<'_>) {
        self.mouse.sync();
        self.fill(cx, None);
    }

    // ---- output buffer and interrupts ------------------------------------------------------------------------

    fn set_lines(&mut self, cx: &mut Cx<'_>) {
        let mut want = (false, false);
        if self.s.status & status::OBF != 0 {
            if self.s.status & status::MOUSE_OBF != 0 {
                want.1 = self.s.mode & mode::MOUSE_INT != 0;
            } else {
                want.0 = self.s.mode & mode::KBD_INT != 0 && self.s.mode & mode::DISABLE_KBD == 0;
            }
        }
        if want.0 != self.lines.0 {
            cx.set_irq(self.kbd_irq, want.0);
        }
        if want.1 != self.lines.1 {
            cx.set_irq(self.mouse_irq, want.1);
        }
        self.lines = want;
    }

    /// Puts the next byte into the output buffer if that is empty. `after` is the device that was just read: the
    /// other one comes first then.
    fn fill(&mut self, cx: &mut Cx<'_>, after: Option<Source>) {
        if self.s.status & status::OBF != 0 {
            return;
        }
        let held = self.s.hold_until.is_some() && !self.kbd.queue.replying();
        let kbd = self.kbd.queue.len() > 0 && self.s.mode & mode::DISABLE_KBD == 0 && !held;
        let mouse = self.mouse.queue.len() > 0 && self.s.mode & mode::DISABLE_MOUSE == 0;
        let source = match self.s.answer {
            Some((_, as_mouse)) => Some((Source::Controller, as_mouse)),
            None if mouse && (!kbd || after == Some(Source::Keyboard)) => Some((Source::Mouse, true)),
            None if kbd => Some((Source::Keyboard, false)),
            None => None,
        };
        self.s.source = source.map(|s| s.0);
        if let Some((_, as_mouse)) = source {
            self.s.status |= status::OBF | if as_mouse { status::MOUSE_OBF } else { 0 };
            self.s.outport |= outport::OBF | if as_mouse { outport::MOUSE_OBF } else { 0 };
        }
        self.set_lines(cx);
    }

    fn read_data(&mut self, cx: &mut Cx<'_>) -> u8 {
        let Some(source) = self.s.source.take() else { return self.s.last };
        self.s.status &= !(status::OBF | status::MOUSE_OBF);
        self.s.outport &= !(outport::OBF | outport::MOUSE_OBF);
        self.set_lines(cx);
        self.s.last = match source {
            Source::Controller => self.s.answer.take().map_or(0, |a| a.0),
            Source::Mouse => self.mouse.queue.pop(),
            Source::Keyboard => {
                let v = self.kbd.queue.pop();
                if self.throttle && self.kbd.queue.len() > 0 {
                    let at = cx.now() + THROTTLE_NS;
                    self.s.hold_until = Some(at);
                    cx.timer_set(0, Some(at));
                }
                v
            }
        };
        self.fill(cx, Some(source));
        self.s.last
    }

    /// An answer of the controller itself.
    fn answer(&mut self, cx: &mut Cx<'_>, v: u8, as_mouse: bool) {
        if self.extended {
            self.s.answer = Some((v, as_mouse));
        } else if as_mouse {
            self.mouse.queue.push(v);
        } else {
            self.kbd.queue.push(v);
        }
        self.fill(cx, None);
    }

    // ---- registers -------------------------------------------------------------------------------------------

    fn set_mode(&mut self, cx: &mut Cx<'_>, m: u8) {
        self.s.mode = m;
        self.set_lines(cx);
        self.fill(cx, None);
    }

    fn set_outport(&mut self, cx: &mut Cx<'_>, v: u8) {
        self.s.outport = v;
        cx.set_irq(self.a20, v & outport::A20 != 0);
        if v & outport::NOT_RESET == 0 {
            cx.request_reset(Cause::GuestReset);
        }
    }

    fn write_data(&mut self, cx: &mut Cx<'_>, v: u8) {
        match self.s.command.take() {
            Some(0x60) => {
                self.kbd.set_translation(v & mode::TRANSLATE != 0);
                self.set_mode(cx, v);
            }
            Some(0xd1) => self.set_outport(cx, v),
            Some(0xd2) => self.answer(cx, v, false),
            Some(0xd3) => self.answer(cx, v, true),
            Some(0xd4) => {
                self.mouse.write(v);
                let m = self.s.mode & !mode::DISABLE_MOUSE;
                self.set_mode(cx, m);
            }
            _ => {
                self.kbd.write(v);
                let m = self.s.mode & !mode::DISABLE_KBD;
                self.set_mode(cx, m);
            }
        }
    }

    fn command(&mut self, cx: &mut Cx<'_>, v: u8) {
        let m = self.s.mode;
        match v {
            0x20 => self.answer(cx, m, false),
            0x60 | 0xd1..=0xd4 => self.s.command = Some(v),
            0xa7 => self.set_mode(cx, m | mode::DISABLE_MOUSE),
            0xa8 => self.set_mode(cx, m & !mode::DISABLE_MOUSE),
            0xa9 | 0xab => self.answer(cx, 0, false),
            0xaa => {
                self.s.status |= status::SELF_TEST;
                self.answer(cx, 0x55, false);
            }
            0xad => self.set_mode(cx, m | mode::DISABLE_KBD),
            0xae => self.set_mode(cx, m & !mode::DISABLE_KBD),
            0xc0 => self.answer(cx, 0x80, false),
            0xd0 => self.answer(cx, self.s.outport, false),
            0xdd => {
                self.s.outport &= !outport::A20;
                cx.set_irq(self.a20, false);
            }
            0xdf => {
                self.s.outport |= outport::A20;
                cx.set_irq(self.a20, true);
            }
            // Pulses output lines low; bit 0 is the processor's reset.
            0xf0..=0xff if v & 1 == 0 => cx.request_reset(Cause::GuestReset),
            _ => {}
        }
    }
}

impl IoHandler for I8042 {
    fn read(&mut self, cx: &mut Cx<'_>, region: u32, _offset: u64, _size: u8) -> u64 {
        u64::from(if region == REGION_DATA { self.read_data(cx) } else { self.s.status })
    }

    fn write(&mut self, cx: &mut Cx<'_>, region: u32, _offset: u64, _size: u8, value: u64) {
        if region == REGION_DATA {
            self.write_data(cx, value as u8);
        } else {
            self.command(cx, value as u8);
        }
    }
}

impl TimerHandler for I8042 {
    fn expired(&mut self, cx: &mut Cx<'_>, _id: u32) {
        self.s.hold_until = None;
        self.fill(cx, None);
    }
}

impl Device for I8042 {
    fn reset(&mut self, cx: &mut Cx<'_>) {
        self.s = Controller::default();
        self.kbd.reset();
        self.mouse.reset();
        self.lines = (false, false);
        cx.set_irq(self.kbd_irq, false);
        cx.set_irq(self.mouse_irq, false);
        cx.set_irq(self.a20, true);
        cx.timer_set(0, None);
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

impl crate::state::SaveState for I8042 {
    fn section(&self) -> (&'static str, u32) {
        ("pckbd", 3)
    }
    fn save(&mut self, _cx: &mut Cx<'_>) -> QResult<serde_json::Value> {
        save_state("pckbd", &self.s)
    }
    fn load(&mut self, cx: &mut Cx<'_>, _version: u32, state: &serde_json::Value) -> QResult<()> {
        self.s = load_state("pckbd", state)?;
        cx.timer_set(0, self.s.hold_until);
        cx.set_irq(self.a20, self.s.outport & outport::A20 != 0);
        self.set_lines(cx);
        Ok(())
    }
}

/// Which of the two input devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Input {
    Keyboard,
    Mouse,
}

/// `ps2-kbd` or `ps2-mouse`: takes input and keeps the saved state apart; the rest is in the controller.
struct InputPart {
    controller: DevId,
    what: Input,
}

impl InputPart {
    fn with<R>(&self, cx: &mut Cx<'_>, f: impl FnOnce(&mut I8042, &mut Cx<'_>) -> R) -> Option<R> {
        cx.m.with::<I8042, _>(self.controller, f)
    }
}

impl InputSink for InputPart {
    fn name(&self) -> &'static str {
        match self.what {
            Input::Keyboard => "QEMU PS/2 Keyboard",
            Input::Mouse => "QEMU PS/2 Mouse",
        }
    }

    fn takes(&self) -> InputKinds {
        InputKinds {
            keys: self.what == Input::Keyboard,
            rel: self.what == Input::Mouse,
            ..InputKinds::default()
        }
    }

    fn event(&mut self, cx: &mut Cx<'_>, event: InputEvent) {
        if cx.m.run.state() == RunState::Suspended {
            cx.m.run.requests.wakeup = true;
            cx.m.wake_loop();
        }
        let what = self.what;
        self.with(cx, |c, cx| match (what, event) {
            (Input::Keyboard, InputEvent::Key { code, down }) => {
                if let Ok(number) = u8::try_from(code) {
                    c.key(cx, number, down);
                }
            }
            (Input::Mouse, InputEvent::Rel { axis: 0, value }) => c.mouse.motion(value, 0, 0),
            (Input::Mouse, InputEvent::Rel { axis: 1, value }) => c.mouse.motion(0, value, 0),
            (Input::Mouse, InputEvent::Button { button, down }) => match button {
                0 => c.mouse.button(0, down),
                1 => c.mouse.button(2, down),
                2 => c.mouse.button(1, down),
                3 if down => c.mouse.motion(0, 0, -1),
                4 if down => c.mouse.motion(0, 0, 1),
                5 => c.mouse.button(3, down),
                6 => c.mouse.button(4, down),
                _ => {}
            },
            _ => {}
        });
    }

    fn sync(&mut self, cx: &mut Cx<'_>) {
        if self.what == Input::Mouse {
            self.with(cx, |c, cx| c.mouse_sync(cx));
        }
    }
}

impl Device for InputPart {
    /// Done by the controller.
    fn reset(&mut self, _cx: &mut Cx<'_>) {}
    fn input(&mut self) -> Option<&mut dyn InputSink> {
        Some(self)
    }
    fn state(&mut self) -> Option<&mut dyn crate::state::SaveState> {
        Some(self)
    }
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

impl crate::state::SaveState for InputPart {
    fn section(&self) -> (&'static str, u32) {
        match self.what {
            Input::Keyboard => ("ps2kbd", 3),
            Input::Mouse => ("ps2mouse", 2),
        }
    }

    fn save(&mut self, cx: &mut Cx<'_>) -> QResult<serde_json::Value> {
        let (name, what) = (self.section().0, self.what);
        self.with(cx, |c, _| match what {
            Input::Keyboard => save_state(name, &c.kbd),
            Input::Mouse => save_state(name, &c.mouse),
        })
        .unwrap_or_else(|| Err(qerr!("Section '{name}' has no controller")))
    }

    fn load(&mut self, cx: &mut Cx<'_>, _version: u32, state: &serde_json::Value) -> QResult<()> {
        let (name, what) = (self.section().0, self.what);
        self.with(cx, |c, _| {
            match what {
                Input::Keyboard => c.kbd = load_state(name, state)?,
                Input::Mouse => c.mouse = load_state(name, state)?,
            }
            if c.kbd.is_sane() && c.mouse.is_sane() {
                Ok(())
            } else {
                c.kbd.reset();
                c.mouse.reset();
                Err(qerr!("Bad state of section '{name}': value out of range"))
            }
        })
        .unwrap_or_else(|| Err(qerr!("Section '{name}' has no controller")))
    }
}
