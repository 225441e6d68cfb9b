//! The pointer behind the VMware port: absolute positions that the guest fetches by commands.
//!
//! A driver asks for the pointer's id, switches it on and chooses absolute or relative reports; each event is four
//! words in a queue, and an interrupt of the PS/2 mouse tells that there is one.

use std::any::Any;
use std::collections::VecDeque;

use rqemu_derive::Device as DeriveDevice;
use serde::{Deserialize, Serialize};

use super::Vmport;
use crate::cpu::BackdoorRegs;
use crate::device::{Cx, DevId, Device, RealizeCx};
use crate::devices::legacy::i8042::I8042;
use crate::devices::legacy::part::save_field;
use crate::qom::DeviceClass;
use crate::state::SaveState;
use crate::ui::{InputEvent, InputKinds, InputSink};
use crate::{qerr, QResult};

/// Commands in EBX.
mod cmd {
    pub const READ_ID: u32 = 0x4541_4552;
    pub const DISABLE: u32 = 0xf5;
    pub const RELATIVE: u32 = 0x4c45_5252;
    pub const ABSOLUTE: u32 = 0x5342_4152;
}

const ID: u32 = 0x3442_554a;
/// The status while it is switched off.
const OFF: u16 = 0xffff;
/// Most words in the queue.
const QUEUE: usize = 1024;
/// Words of one event, and the most that one command fetches.
const EVENT: usize = 4;
const MOST: u32 = 6;
/// A report with motion in place of a position.
const RELATIVE: u32 = 0x1_0000;

/// Properties of `vmmouse`.
#[derive(DeriveDevice, Debug)]
#[class(name = "vmmouse", parent = "isa-device", bus = Isa, category = Input, extra("i8042", "link<i8042>"))]
pub struct VmMouseProps {}

impl DeviceClass for VmMouseProps {
    fn realize(&mut self, cx: &mut RealizeCx<'_>) -> QResult<Box<dyn Device>> {
        let i8042 = cx.m().tree.by_class("i8042").map(|n| n.id);
        let i8042 = i8042.ok_or_else(|| qerr!("'i8042' link is not set"))?;
        let port = cx.m().vmport.ok_or_else(|| qerr!("vmmouse needs vmport"))?;
        let me = cx.id();
        cx.m().with::<Vmport, _>(port, |p, _| p.set_mouse(me));
        Ok(Box::new(VmMouse { s: State::default(), i8042, at: (0, 0), wheel: 0, buttons: 0 }))
    }
}

/// Saved state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    status: u16,
    absolute: bool,
    queue: VecDeque<u32>,
}

impl Default for State {
    fn default() -> Self {
        Self { status: OFF, absolute: false, queue: VecDeque::new() }
    }
}

/// The pointer at run time.
pub struct VmMouse {
    s: State,
    i8042: DevId,
    /// Position, or motion since the last report.
    at: (i32, i32),
    wheel: i32,
    buttons: u32,
}

impl VmMouse {
    /// Status in the high half, number of words that wait in the low one.
    pub(super) fn status(&self) -> u32 {
        u32::from(self.s.status) << 16 | self.s.queue.len() as u32
    }

    /// Fetches as many words as EBX says into the registers; asking for more than there are switches it off.
    pub(super) fn data(&mut self, _cx: &mut Cx<'_>, r: &mut BackdoorRegs) {
        let n = r.ebx;
        if n == 0 || n > MOST || n as usize > self.s.queue.len() {
            self.switch_off();
            return;
        }
        for reg in [&mut r.eax, &mut r.ebx, &mut r.ecx, &mut r.edx, &mut r.esi, &mut r.edi]
            .into_iter()
            .take(n as usize)
        {
            *reg = self.s.queue.pop_front().unwrap_or(0);
        }
    }

    /// Carries out a command; unknown ones do nothing.
    pub(super) fn command(&mut self, _cx: &mut Cx<'_>, command: u32) {
        match command {
            cmd::READ_ID => {
                self.s.queue.clear();
                self.s.queue.push_back(ID);
                self.s.status = 0;
            }
            cmd::DISABLE => self.switch_off(),
            cmd::RELATIVE => self.s.absolute = false,
            cmd::ABSOLUTE => self.s.absolute = true,
            _ => {}
        }
    }

    fn switch_off(&mut self) {
        self.s = State::default();
        self.wheel = 0;
    }
}

impl Device for VmMouse {
    fn reset(&mut self, _cx: &mut Cx<'_>) {
        self.switch_off();
        (self.at, self.buttons) = ((0, 0), 0);
    }
    fn input(&mut self) -> Option<&mut dyn InputSink> {
        Some(self)
    }
    fn state(&mut self) -> Option<&mut dyn SaveState> {
        Some(self)
    }
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

save_field!(VmMouse, "vmmouse", 0, s, |_, _| {});

impl InputSink for VmMouse {
    fn takes(&self) -> InputKinds {
        let on = self.s.status != OFF;
        InputKinds { keys: false, rel: on && !self.s.absolute, abs: on && self.s.absolute }
    }

    fn event(&mut self, _cx: &mut Cx<'_>, event: InputEvent) {
        match event {
            InputEvent::Button { button: 3, down } => self.wheel -= i32::from(down),
            InputEvent::Button { button: 4, down } => self.wheel += i32::from(down),
            InputEvent::Button { button, down } => {
                let bit = match button {
                    0 => 0x20,
                    1 => 0x08,
                    2 => 0x10,
                    _ => 0,
                };
                self.buttons = if down { self.buttons | bit } else { self.buttons & !bit };
            }
            InputEvent::Rel { axis, value } => {
                let at = if axis == 0 { &mut self.at.0 } else { &mut self.at.1 };
                *at = at.saturating_add(value);
            }
            // Guests see 16 bits.
            InputEvent::Abs { axis, value } => {
                *(if axis == 0 { &mut self.at.0 } else { &mut self.at.1 }) = value.saturating_mul(2);
            }
            InputEvent::Key { .. } => {}
        }
    }

    fn sync(&mut self, cx: &mut Cx<'_>) {
        if self.s.status == OFF || self.s.queue.len() > QUEUE - EVENT {
            return;
        }
        let kind = if self.s.absolute { 0 } else { RELATIVE };
        let words = [self.buttons | kind, self.at.0 as u32, self.at.1 as u32, self.wheel as u32];
        self.s.queue.extend(words);
        self.wheel = 0;
        if !self.s.absolute {
            self.at = (0, 0);
        }
        // The PS/2 mouse interrupts; what it has to say means nothing.
        cx.m.with::<I8042, _>(self.i8042, |c, cx| {
            c.mouse_motion(1, 0, 0);
            c.mouse_sync(cx);
        });
    }
}
