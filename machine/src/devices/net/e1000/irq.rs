//! Interrupt causes, mask, and moderation: after an interrupt the next one waits as long as ITR, RADV and TADV say.

use super::regs::reg;
use super::{E1000, IRQ_TIMER};
use crate::device::Cx;

pub const ICR_TXDW: u32 = 1;
pub const ICR_TXQE: u32 = 1 << 1;
pub const ICR_RXDMT0: u32 = 1 << 4;
pub const ICR_RXO: u32 = 1 << 6;
pub const ICR_RXT0: u32 = 1 << 7;

/// Unit of ITR; RADV and TADV count in four of them.
const UNIT_NS: i64 = 256;
/// Least distance of two interrupts if there is any.
const MIN_UNITS: u32 = 500;

/// State of moderation.
#[derive(Default)]
pub struct Moderation {
    /// Interrupts wait for the timer.
    holding: bool,
    /// Level of the line.
    level: bool,
    /// A transmit descriptor asked for delay.
    pub delay_tx: bool,
}

impl E1000 {
    /// Adds interrupt causes.
    pub(super) fn raise(&mut self, cx: &mut Cx<'_>, causes: u32) {
        let icr = self.regs.get(reg::ICR) | causes;
        self.regs.set(reg::ICR, icr);
        self.update_irq(cx);
    }

    pub(super) fn read_icr(&mut self, cx: &mut Cx<'_>) -> u32 {
        let v = self.regs.get(reg::ICR);
        self.regs.set(reg::ICR, 0);
        self.update_irq(cx);
        v
    }

    pub(super) fn clear_causes(&mut self, cx: &mut Cx<'_>, causes: u32) {
        let icr = self.regs.get(reg::ICR) & !causes;
        self.regs.set(reg::ICR, icr);
        self.update_irq(cx);
    }

    pub(super) fn set_mask(&mut self, cx: &mut Cx<'_>, mask: u32) {
        self.regs.set(reg::IMS, mask);
        self.update_irq(cx);
    }

    /// The time between two interrupts is over.
    pub(super) fn moderation_over(&mut self, cx: &mut Cx<'_>) {
        self.irq.holding = false;
        self.update_irq(cx);
    }

    fn update_irq(&mut self, cx: &mut Cx<'_>) {
        let pending = self.regs.get(reg::ICR) & self.regs.get(reg::IMS);
        let level = pending != 0;
        if level && !self.irq.level {
            if self.irq.holding {
                return;
            }
            if self.options.mitigation {
                self.hold(cx, pending);
            }
        }
        self.irq.level = level;
        self.pci.set_intx(cx, level);
    }

    /// Starts the time in which no further interrupt comes.
    fn hold(&mut self, cx: &mut Cx<'_>, pending: u32) {
        let tadv = self.regs.get(reg::TADV);
        let radv = self.regs.get(reg::RADV);
        let tx = self.irq.delay_tx && pending & (ICR_TXQE | ICR_TXDW) != 0;
        let rx = self.regs.get(reg::RDTR) != 0 && pending & ICR_RXT0 != 0;
        self.irq.delay_tx = false;
        let delays = [if tx { tadv * 4 } else { 0 }, if rx { radv * 4 } else { 0 }, self.regs.get(reg::ITR)];
        let Some(units) = delays.into_iter().filter(|d| *d != 0).min() else { return };
        self.irq.holding = true;
        let at = cx.now() + i64::from(units.max(MIN_UNITS)) * UNIT_NS;
        cx.timer_set(IRQ_TIMER, Some(at));
    }
}
