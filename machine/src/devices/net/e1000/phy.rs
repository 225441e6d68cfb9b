//! The PHY (M88E1000) behind MDIC, and the link.

use super::regs::{reg, STATUS_LU};
use super::{E1000, LINK_TIMER};
use crate::device::Cx;

/// PHY registers.
mod phy_reg {
    pub const CONTROL: usize = 0;
    pub const STATUS: usize = 1;
    pub const ID1: usize = 2;
    pub const ID2: usize = 3;
    pub const ADVERTISE: usize = 4;
    pub const PARTNER: usize = 5;
    pub const GIGABIT_CONTROL: usize = 9;
    pub const GIGABIT_STATUS: usize = 10;
    pub const VENDOR_CONTROL: usize = 16;
    pub const VENDOR_STATUS: usize = 17;
    pub const VENDOR_CONTROL2: usize = 20;
}

const CONTROL_RESET: u16 = 1 << 15;
const CONTROL_LOOPBACK: u16 = 1 << 14;
const CONTROL_AUTO: u16 = 1 << 12;
const CONTROL_RESTART: u16 = 1 << 9;
const CONTROL_RESERVED: u16 = 0x3f;
const STATUS_LINK: u16 = 1 << 2;
const STATUS_DONE: u16 = 1 << 5;
const PARTNER_ACK: u16 = 1 << 14;

/// Registers that can be read, and written.
const READABLE: u32 = 0x0033_067f;
const WRITABLE: u32 = 0x0011_0211;

/// MDIC fields.
const ADDRESS: u32 = 1;
const OP_WRITE: u32 = 1 << 26;
const OP_READ: u32 = 2 << 26;
const READY: u32 = 1 << 28;
const INTERRUPT: u32 = 1 << 29;
const ERROR: u32 = 1 << 30;

const ICR_LSC: u32 = 1 << 2;
const ICR_MDAC: u32 = 1 << 9;

/// Time that two ends need to agree.
const NEGOTIATION_NS: i64 = 500_000_000;

/// The PHY's registers.
pub struct Phy {
    regs: [u16; 32],
    id2: u16,
}

impl Phy {
    /// With the given model word.
    pub fn new(id2: u16) -> Self {
        Self { regs: [0; 32], id2 }
    }

    /// Values after power-on: 1000 Mb/s full duplex, link up.
    pub fn power_on(&mut self) {
        self.regs = [0; 32];
        for (r, v) in [
            (phy_reg::CONTROL, 0x1140),
            (phy_reg::STATUS, 0x794d),
            (phy_reg::ID1, 0x0141),
            (phy_reg::ID2, self.id2),
            (phy_reg::ADVERTISE, 0x0de1),
            (phy_reg::PARTNER, 0x01e0),
            (phy_reg::GIGABIT_CONTROL, 0x0e00),
            (phy_reg::GIGABIT_STATUS, 0x3c00),
            (phy_reg::VENDOR_CONTROL, 0x0360),
            (phy_reg::VENDOR_STATUS, 0xac00),
            (phy_reg::VENDOR_CONTROL2, 0x0d60),
        ] {
            self.regs[r] = v;
        }
    }

    /// Frames come back.
    pub fn loopback(&self) -> bool {
        self.regs[phy_reg::CONTROL] & CONTROL_LOOPBACK != 0
    }
}

impl E1000 {
    /// A write to MDIC reads or writes a PHY register.
    pub(super) fn mdic(&mut self, cx: &mut Cx<'_>, v: u32) {
        let r = v >> 16 & 0x1f;
        let mut result = v;
        if v >> 21 & 0x1f != ADDRESS {
            result = self.regs.get(reg::MDIC) | ERROR;
        } else if v & OP_READ != 0 {
            if READABLE >> r & 1 != 0 {
                result = v & !0xffff | u32::from(self.phy.regs[r as usize]);
            } else {
                result |= ERROR;
            }
        } else if v & OP_WRITE != 0 {
            if WRITABLE >> r & 1 != 0 {
                self.write_phy(cx, r as usize, v as u16);
            } else {
                result |= ERROR;
            }
        }
        self.regs.set(reg::MDIC, result | READY);
        if v & INTERRUPT != 0 {
            self.raise(cx, ICR_MDAC);
        }
    }

    fn write_phy(&mut self, cx: &mut Cx<'_>, r: usize, v: u16) {
        if r != phy_reg::CONTROL {
            self.phy.regs[r] = v;
            return;
        }
        self.phy.regs[r] = v & !(CONTROL_RESERVED | CONTROL_RESET | CONTROL_RESTART);
        if self.negotiates() && v & CONTROL_RESTART != 0 {
            self.negotiate(cx);
        }
    }

    fn negotiates(&self) -> bool {
        self.options.autonegotiation && self.phy.regs[phy_reg::CONTROL] & CONTROL_AUTO != 0
    }

    fn negotiate(&mut self, cx: &mut Cx<'_>) {
        self.link_lost();
        let at = cx.now() + NEGOTIATION_NS;
        cx.timer_set(LINK_TIMER, Some(at));
    }

    /// Status registers for a link that is down.
    pub(super) fn link_lost(&mut self) {
        let s = self.regs.get(reg::STATUS);
        self.regs.set(reg::STATUS, s & !STATUS_LU);
        self.phy.regs[phy_reg::STATUS] &= !(STATUS_LINK | STATUS_DONE);
        self.phy.regs[phy_reg::PARTNER] &= !PARTNER_ACK;
    }

    fn link_found(&mut self) {
        let s = self.regs.get(reg::STATUS);
        self.regs.set(reg::STATUS, s | STATUS_LU);
        self.phy.regs[phy_reg::STATUS] |= STATUS_LINK;
    }

    /// The two ends agreed.
    pub(super) fn negotiated(&mut self, cx: &mut Cx<'_>) {
        if self.link_down {
            return;
        }
        self.link_found();
        self.phy.regs[phy_reg::PARTNER] |= PARTNER_ACK;
        self.phy.regs[phy_reg::STATUS] |= STATUS_DONE;
        self.raise(cx, ICR_LSC);
        cx.m.net_flush(self.nic);
    }

    /// The back end's link changed.
    pub(super) fn set_link(&mut self, cx: &mut Cx<'_>, up: bool) {
        self.link_down = !up;
        let old = self.regs.get(reg::STATUS);
        if !up {
            self.link_lost();
        } else if self.negotiates() && self.phy.regs[phy_reg::STATUS] & STATUS_DONE == 0 {
            self.negotiate(cx);
        } else {
            self.link_found();
        }
        if self.regs.get(reg::STATUS) != old {
            self.raise(cx, ICR_LSC);
        }
        if self.regs.get(reg::STATUS) & STATUS_LU != 0 {
            cx.m.net_flush(self.nic);
        }
    }
}
