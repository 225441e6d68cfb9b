//! PS/2 mouse: standard, IntelliMouse (wheel) and IntelliMouse Explorer (wheel, five buttons).

use serde::{Deserialize, Serialize};

use super::ps2::Queue;

const ACK: u8 = 0xfa;

/// Status byte.
mod status {
    pub const SCALE21: u8 = 0x10;
    pub const ENABLED: u8 = 0x20;
    pub const REMOTE: u8 = 0x40;
}

/// Saved state of the mouse.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mouse {
    pub(super) queue: Queue,
    command: Option<u8>,
    status: u8,
    resolution: u8,
    sample_rate: u8,
    /// Echoes what it gets.
    wrap: bool,
    /// Identity: 0 standard, 3 wheel, 4 wheel and five buttons.
    kind: u8,
    /// How far the host has come in the sample rates that unlock a better identity.
    knock: u8,
    dx: i32,
    dy: i32,
    dz: i32,
    buttons: u8,
}

impl Mouse {
    /// Power-on state.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Whether a loaded state is within the limits.
    pub(super) fn is_sane(&self) -> bool {
        self.queue.is_sane()
    }

    fn defaults(&mut self) {
        self.sample_rate = 100;
        self.resolution = 2;
        self.status = 0;
    }

    fn answer(&mut self, bytes: &[u8]) {
        for b in bytes {
            self.queue.push(*b);
        }
    }

    /// A byte from the controller.
    pub fn write(&mut self, v: u8) {
        if let Some(command) = self.command.take() {
            if command == 0xf3 {
                self.set_rate(v);
            } else {
                self.resolution = v;
            }
            self.answer(&[ACK]);
            return;
        }
        if self.wrap {
            match v {
                0xec => {
                    self.wrap = false;
                    self.answer(&[ACK]);
                    return;
                }
                0xff => {}
                _ => {
                    self.answer(&[v]);
                    return;
                }
            }
        }
        self.perform(v);
    }

    fn perform(&mut self, v: u8) {
        match v {
            0xe6 => self.status &= !status::SCALE21,
            0xe7 => self.status |= status::SCALE21,
            0xe8 | 0xf3 => self.command = Some(v),
            0xea => self.status &= !status::REMOTE,
            0xee => self.wrap = true,
            0xf0 => self.status |= status::REMOTE,
            0xf4 => self.status |= status::ENABLED,
            0xf5 => self.status &= !status::ENABLED,
            0xf6 => self.defaults(),
            0xe9 => {
                self.answer(&[ACK, self.status, self.resolution, self.sample_rate]);
                return;
            }
            0xeb => {
                self.answer(&[ACK]);
                self.packet();
                return;
            }
            0xf2 => {
                self.answer(&[ACK, self.kind]);
                return;
            }
            0xff => {
                self.defaults();
                self.kind = 0;
                self.queue.clear();
                self.answer(&[ACK, 0xaa, self.kind]);
                return;
            }
            _ => return,
        }
        self.answer(&[ACK]);
    }

    /// The sample rates 200, 100, 80 make it a wheel mouse; 200, 200, 80 one with five buttons.
    fn set_rate(&mut self, rate: u8) {
        self.sample_rate = rate;
        self.knock = match (self.knock, rate) {
            (0, 200) => 1,
            (1, 100) => 2,
            (1, 200) => 3,
            (2, 80) => {
                self.kind = 3;
                0
            }
            (3, 80) => {
                self.kind = 4;
                0
            }
            _ => 0,
        };
    }

    /// Motion; dropped while the mouse is disabled.
    pub fn motion(&mut self, dx: i32, dy: i32, dz: i32) {
        if self.status & status::ENABLED != 0 {
            self.dx = self.dx.saturating_add(dx);
            self.dy = self.dy.saturating_sub(dy);
            self.dz = self.dz.saturating_add(dz);
        }
    }

    /// A button: 0 left, 1 right, 2 middle, 3 side, 4 extra.
    pub fn button(&mut self, button: u8, down: bool) {
        if self.status & status::ENABLED != 0 {
            let bit = 1u8.checked_shl(u32::from(button)).unwrap_or(0);
            self.buttons = if down { self.buttons | bit } else { self.buttons & !bit };
        }
    }

    /// End of a group of events: sends packets until all motion is told or the queue is full.
    pub fn sync(&mut self) {
        if self.status & status::ENABLED == 0 || self.status & status::REMOTE != 0 {
            return;
        }
        while self.packet() {
            if self.dx == 0 && self.dy == 0 && self.dz == 0 {
                break;
            }
        }
    }

    /// Sends one packet with as much of the motion as it holds; `false` if there is no room for it.
    fn packet(&mut self) -> bool {
        let size = if self.kind == 0 { 3 } else { 4 };
        if self.queue.room() < size {
            return false;
        }
        let (dx, dy) = (self.dx.clamp(-127, 127), self.dy.clamp(-127, 127));
        let sign = |v: i32, bit: u8| if v < 0 { bit } else { 0 };
        let head = 0x08 | sign(dx, 0x10) | sign(dy, 0x20) | self.buttons & 7;
        self.answer(&[head, dx as u8, dy as u8]);
        let dz = match self.kind {
            3 => {
                let dz = self.dz.clamp(-127, 127);
                self.answer(&[dz as u8]);
                dz
            }
            4 => {
                let dz = self.dz.clamp(-7, 7);
                self.answer(&[dz as u8 & 0x0f | (self.buttons & 0x18) << 1]);
                dz
            }
            // No wheel: what it did is lost.
            _ => self.dz,
        };
        self.dx -= dx;
        self.dy -= dy;
        self.dz -= dz;
        true
    }
}
