//! The PCI Standard Hot-Plug Controller (SHPC specification 1.0) of a bridge: the registers through which a guest's
//! driver powers slots and takes devices out.
//!
//! Register values and which commands are refused are QEMU 7.2's. Left out: events that the user causes (devices come and
//! go through the board's ACPI controller), so the attention button is never pressed.

use crate::device::{DevId, RealizeCx};
use crate::machine::{Effect, Machine};
use crate::memory::{RegionId, RegionKind};
use crate::pci::PciState;

/// Size of the BAR that holds the registers.
pub const BAR_SIZE: u64 = 256;
const CAP: u8 = 0x0c;
const CAP_LEN: u8 = 8;
/// Slots, which have the device numbers from 1 on.
const SLOTS: usize = 31;
const LEN: usize = 0x24 + SLOTS * 4;

/// Registers.
mod r {
    pub const SLOTS_33: usize = 0x04;
    pub const CONFIG: usize = 0x0c;
    pub const PROG_IF: usize = 0x13;
    pub const COMMAND: usize = 0x14;
    pub const TARGET: usize = 0x15;
    pub const STATUS: usize = 0x16;
    pub const INT_LOCATOR: usize = 0x18;
    pub const INT_MASK: usize = 0x20;
    pub const INT_DETECT: usize = 0x22;
    pub const SLOT: usize = 0x24;
}

/// States of a slot (bits 0-1), and of its indicators.
const POWER_ONLY: u8 = 1;
const ENABLED: u8 = 2;
const DISABLED: u8 = 3;
const STATE: u8 = 3;
const POWER_LED: u8 = 0xc;
const POWER_LED_OFF: u8 = 0xc;
const ATTENTION_LED: u8 = 0x30;
/// Latch open (in the second byte), and no card (bits 2-3 of it).
const LATCH_OPEN: u8 = 1;
const NO_CARD: u8 = 0xc;
const INVALID: u8 = 4;
/// All events of a slot are masked.
const SLOT_MASK: u8 = 0x7f;
const MASK_GLOBAL: u8 = 1;
const MASK_COMMAND: u8 = 4;
const COMMAND_DONE: u8 = 1;

/// The controller.
pub struct Shpc {
    regs: [u8; LEN],
    /// Bits that the guest may write, and that writing clears.
    wmask: [u8; LEN],
    w1c: [u8; LEN],
    cap: usize,
    level: bool,
}

impl Shpc {
    /// Makes the controller, its capability and the region of its registers.
    pub fn new(cx: &mut RealizeCx<'_>, pci: &mut PciState) -> (Self, RegionId) {
        let dev = cx.id();
        let bar = cx.m().mem.add("shpc-bar", u128::from(BAR_SIZE), RegionKind::Container, Some(dev));
        let regs = cx.io_region("shpc-mmio", LEN as u64, 0, super::REGISTERS);
        cx.m().mem.map(bar, regs, 0, 0);
        let cap = pci.add_capability(CAP, 0, CAP_LEN);
        pci.wmask_mut()[cap + 2] = 0xff;
        pci.wmask_mut()[cap + 4..cap + 8].fill(0xff);
        let mut s = Self { regs: [0; LEN], wmask: [0; LEN], w1c: [0; LEN], cap, level: false };
        s.wmask[r::COMMAND] = 0xff;
        s.wmask[r::TARGET] = 0x1f;
        s.wmask[r::INT_MASK] = 0x0f;
        s.w1c[r::INT_DETECT] = 3;
        for slot in 0..SLOTS {
            s.wmask[r::SLOT + slot * 4 + 3] = SLOT_MASK;
            s.w1c[r::SLOT + slot * 4 + 2] = 0x1f;
        }
        (s, bar)
    }

    /// Power-on state: slots with a device are on.
    pub fn reset(&mut self, m: &Machine, bridge: DevId) {
        self.regs = [0; LEN];
        self.regs[r::SLOTS_33] = SLOTS as u8;
        // Number of slots, first device number, first number on the case (counting up, with attention buttons and
        // latch sensors).
        self.regs[r::CONFIG..r::CONFIG + 4].copy_from_slice(&[SLOTS as u8, 1, 1, 0xe0]);
        self.regs[r::PROG_IF] = 1;
        self.regs[r::INT_MASK] = 0x0f;
        for slot in 0..SLOTS {
            let here = !devices(m, bridge, slot).is_empty();
            let status = if here { [0x06, 0] } else { [0x0f, NO_CARD | LATCH_OPEN] };
            self.regs[r::SLOT + slot * 4..][..2].copy_from_slice(&status);
            self.regs[r::SLOT + slot * 4 + 3] = SLOT_MASK;
        }
        self.level = false;
    }

    /// Reads a register.
    pub fn read(&self, offset: u64, size: u8) -> u64 {
        (0..usize::from(size))
            .filter_map(|i| Some((i, self.regs.get(offset as usize + i)?)))
            .fold(0, |v, (i, b)| v | u64::from(*b) << (8 * i))
    }

    /// Writes a register.
    pub fn write(&mut self, m: &mut Machine, bridge: DevId, offset: u64, size: u8, value: u64) {
        let offset = offset as usize;
        for i in 0..usize::from(size) {
            let (Some(reg), Some(w), Some(c)) =
                (self.regs.get_mut(offset + i), self.wmask.get(offset + i), self.w1c.get(offset + i))
            else {
                continue;
            };
            let v = (value >> (8 * i)) as u8;
            *reg = ((*reg & !w) | (v & w)) & !(v & c);
        }
        if offset <= r::COMMAND && offset + usize::from(size) > r::COMMAND {
            self.command(m, bridge);
        }
    }

    /// Carries out the command in the register.
    fn command(&mut self, m: &mut Machine, bridge: DevId) {
        let (code, target) = (self.regs[r::COMMAND], self.regs[r::TARGET] & 0x1f);
        self.regs[r::STATUS] = 0;
        let done = match code {
            0x00..=0x3f => self.set_slot(m, bridge, target, code),
            // Bus speed: there is only one.
            0x40..=0x47 => code & 7 == 0,
            0x48 => self.set_all(m, bridge, POWER_ONLY),
            0x49 => self.set_all(m, bridge, ENABLED),
            _ => false,
        };
        if !done {
            self.regs[r::STATUS] |= INVALID;
        }
        self.regs[r::INT_DETECT] |= COMMAND_DONE;
    }

    fn set_slot(&mut self, m: &mut Machine, bridge: DevId, target: u8, code: u8) -> bool {
        let Some(slot) = usize::from(target).checked_sub(1).filter(|s| *s < SLOTS) else { return false };
        let old = self.regs[r::SLOT + slot * 4];
        let state = code & STATE;
        // What is on can only be switched off.
        if old & STATE == ENABLED && state == POWER_ONLY {
            return false;
        }
        let pick = |mask: u8| if code & mask == 0 { old & mask } else { code & mask };
        let new = pick(STATE) | pick(POWER_LED) | pick(ATTENTION_LED) | old & 0xc0;
        self.regs[r::SLOT + slot * 4] = new;
        let was_on = old & STATE != DISABLED || old & POWER_LED != POWER_LED_OFF;
        if was_on && new & STATE == DISABLED && new & POWER_LED == POWER_LED_OFF {
            let gone = devices(m, bridge, slot);
            if !gone.is_empty() {
                self.regs[r::SLOT + slot * 4 + 1] = NO_CARD | LATCH_OPEN;
            }
            gone.into_iter().for_each(|d| m.push_effect(Effect::Unplug(d)));
        }
        true
    }

    /// Powers or enables every slot that has a card, unless one is on already.
    fn set_all(&mut self, m: &mut Machine, bridge: DevId, state: u8) -> bool {
        let on = |s: usize| {
            self.regs[r::SLOT + s * 4] & STATE == state || self.regs[r::SLOT + s * 4] & STATE == ENABLED
        };
        if (0..SLOTS).any(on) {
            return false;
        }
        for slot in 0..SLOTS {
            if self.regs[r::SLOT + slot * 4 + 1] & LATCH_OPEN == 0 {
                self.set_slot(m, bridge, slot as u8 + 1, state | 4);
            }
        }
        true
    }

    /// Level of the interrupt, and whether it has just been raised.
    pub fn interrupt(&mut self) -> (bool, bool) {
        let done = self.regs[r::INT_DETECT] & COMMAND_DONE != 0 && self.regs[r::INT_MASK] & MASK_COMMAND == 0;
        self.regs[r::INT_LOCATOR] = u8::from(done);
        let level = done && self.regs[r::INT_MASK] & MASK_GLOBAL == 0;
        let rose = level && !self.level;
        self.level = level;
        (level, rose)
    }

    /// Shows the selected register, and whether an interrupt waits, in configuration space.
    pub fn write_cap(&self, pci: &mut PciState) {
        let at = usize::from(pci.config()[self.cap + 2]) * 4;
        let value = self.read(at as u64, 4) as u32;
        pci.set_dword(self.cap + 4, value);
        pci.config_mut()[self.cap + 3] = u8::from(self.level);
    }

    /// Configuration space was written: an access through the capability. `false` if it was something else.
    pub fn cap_written(
        &mut self,
        m: &mut Machine,
        bridge: DevId,
        pci: &mut PciState,
        from: usize,
        to: usize,
    ) -> bool {
        let cap = self.cap;
        if from >= cap + 8 || to <= cap + 2 {
            return false;
        }
        let at = u64::from(pci.config()[cap + 2]) * 4;
        let first = from.max(cap + 4);
        let len = to.min(cap + 8).saturating_sub(first);
        if len > 0 {
            let value = u64::from(pci.dword(cap + 4)) >> (8 * (first - cap - 4));
            self.write(m, bridge, at + (first - cap - 4) as u64, len as u8, value);
        }
        self.write_cap(pci);
        true
    }
}

/// Devices in a slot behind the bridge.
fn devices(m: &Machine, bridge: DevId, slot: usize) -> Vec<DevId> {
    let Some(bus) = m.pci.iter().find(|b| b.bridge == Some(bridge)) else { return Vec::new() };
    let first = (slot + 1) * 8;
    bus.functions.get(first..first + 8).into_iter().flatten().flatten().copied().collect()
}
