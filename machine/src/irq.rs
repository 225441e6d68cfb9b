//! Interrupt lines.
//!
//! A line is a handle that a board connects to a sink: a global system interrupt (GSI) of the interrupt
//! controllers, or an input of a device. Changes that lead to a device are queued and delivered after the current
//! handler returned; GSIs reach an in-kernel controller at once.

use crate::device::DevId;

/// Handle of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct IrqLine(pub u32);

/// Where a line leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum IrqSink {
    /// Nowhere.
    #[default]
    None,
    /// A global system interrupt (ISA interrupts are GSIs 0-15).
    Gsi(u32),
    /// Address line 20 of the boot processor.
    A20,
    /// System management interrupt of the boot processor.
    Smi,
    /// An input of a device.
    Device(DevId, u32),
}

/// Interrupt controllers in user space.
#[derive(Clone, Debug, Default)]
pub struct IrqChips {
    /// The master 8259.
    pub pic: Option<DevId>,
    /// The I/O APICs, by their first global system interrupt.
    pub ioapics: Vec<DevId>,
}

/// All lines of a machine.
#[derive(Default)]
pub struct IrqLines {
    sinks: Vec<(IrqSink, bool)>,
}

impl IrqLines {
    /// A new line that leads to `sink`.
    pub fn add(&mut self, sink: IrqSink) -> IrqLine {
        self.sinks.push((sink, false));
        IrqLine(self.sinks.len() as u32 - 1)
    }

    /// Reconnects a line.
    pub fn connect(&mut self, line: IrqLine, sink: IrqSink) {
        if let Some(s) = self.sinks.get_mut(line.0 as usize) {
            s.0 = sink;
        }
    }

    /// Records a level; returns the sink.
    pub fn set(&mut self, line: IrqLine, level: bool) -> IrqSink {
        match self.sinks.get_mut(line.0 as usize) {
            Some(s) => {
                s.1 = level;
                s.0
            }
            None => IrqSink::None,
        }
    }

    /// Last level of a line.
    pub fn level(&self, line: IrqLine) -> bool {
        self.sinks.get(line.0 as usize).is_some_and(|s| s.1)
    }
}
