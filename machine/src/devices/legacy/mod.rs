//! PC legacy devices: interrupt controllers, timers, RTC, keyboard, serial, parallel.

pub mod hpet;
pub mod i8042;
pub mod i8259;
pub mod ioapic;
pub mod keys;
pub mod kvm;
pub mod kvm_clock;
#[cfg(test)]
mod oracle;
pub mod parallel;
pub mod part;
pub mod pit;
pub mod rtc;
pub mod serial;
pub mod vapic;

use crate::device::DevId;
use crate::irq::{IrqChips, IrqSink};
use crate::machine::Machine;

/// Leads the global system interrupts to user-space controllers: 0-15 to the 8259 pair (master, slave), 0-23 to the
/// I/O APIC. Not for interrupt controllers in the kernel.
pub fn connect_gsis(m: &mut Machine, pics: Option<(DevId, DevId)>, ioapic: Option<DevId>) {
    m.irq_chips = IrqChips { pic: pics.map(|p| p.0), ioapics: ioapic.into_iter().collect() };
    m.gsi_sinks = (0..ioapic::PINS as u32)
        .map(|n| {
            let pic = pics.filter(|_| n < 16).map(|(master, slave)| match n {
                0..=7 => IrqSink::Device(master, n),
                _ => IrqSink::Device(slave, n - 8),
            });
            pic.into_iter().chain(ioapic.map(|io| IrqSink::Device(io, n))).collect()
        })
        .collect();
}
