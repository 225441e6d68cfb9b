//! 16550A UART (National Semiconductor PC16550D data sheet), and the devices built on it.
//!
//! [`Uart`] is the chip without a bus: wrappers route register accesses, character input and timer expiry into it
//! and take its interrupt level from [`Uart::irq_level`] after each call. Output goes to the back end at once, as
//! in QEMU: there is no transmission delay; when the back end is full, the byte waits in the shift register and is
//! retried when the back end is writable. Receiving uses the real character time for the FIFO timeout interrupt.
//!
//! Left out: passing baud rate, break and modem lines on to a host serial port.
//! Tested: unit tests here; register scripts against real QEMU.

mod isa;
mod pci;
#[cfg(test)]
mod tests;

pub use isa::{IsaSerial, IsaSerialProps};
pub use pci::{PciSerial, PciSerialProps};

use std::any::Any;

use rqemu_derive::Device as DeriveDevice;
use serde::{Deserialize, Serialize};

use crate::chardev::{CharEvent, CharId};
use crate::device::{Cx, Device, RealizeCx};
use crate::qom::{ChardevRef, Classed, DeviceClass};
use crate::QResult;

use super::part::PassivePart;

const FIFO_LEN: usize = 16;

/// Interrupt enable register.
mod ier {
    pub const RX: u8 = 1;
    pub const THR: u8 = 2;
    pub const LINE: u8 = 4;
    pub const MODEM: u8 = 8;
}
/// FIFO control register.
mod fcr {
    pub const ENABLE: u8 = 1;
    pub const CLEAR_RX: u8 = 2;
    pub const CLEAR_TX: u8 = 4;
    /// Bits that are kept: enable, DMA mode, trigger level.
    pub const KEPT: u8 = 0xc9;
}
/// Interrupt identification register.
mod iir {
    pub const NONE: u8 = 0x01;
    pub const MODEM: u8 = 0x00;
    pub const THR: u8 = 0x02;
    pub const RX: u8 = 0x04;
    pub const LINE: u8 = 0x06;
    pub const TIMEOUT: u8 = 0x0c;
    pub const ID: u8 = 0x0f;
    pub const FIFOS: u8 = 0xc0;
}
/// Line status register.
mod lsr {
    pub const DATA: u8 = 0x01;
    pub const OVERRUN: u8 = 0x02;
    pub const BREAK: u8 = 0x10;
    pub const THR_EMPTY: u8 = 0x20;
    pub const TX_EMPTY: u8 = 0x40;
    /// Overrun, parity, framing, break.
    pub const ANY_ERROR: u8 = 0x1e;
}
const LCR_DLAB: u8 = 0x80;
const MCR_LOOP: u8 = 0x10;
const MSR_DELTA: u8 = 0x0f;

/// Saved state of a UART.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UartState {
    divider: u16,
    rbr: u8,
    ier: u8,
    iir: u8,
    fcr: u8,
    lcr: u8,
    mcr: u8,
    lsr: u8,
    msr: u8,
    scr: u8,
    thr: u8,
    thr_pending: bool,
    timeout_pending: bool,
    rx: Fifo,
    tx: Fifo,
    /// A byte in the shift register that the back end has not taken yet.
    unsent: Option<u8>,
    /// When the receive FIFO times out (virtual time).
    timeout_at: Option<i64>,
}

/// A 16-byte FIFO.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, try_from = "FifoBytes", into = "FifoBytes")]
struct Fifo {
    buf: [u8; FIFO_LEN],
    head: u8,
    len: u8,
}

/// A FIFO in a saved state: its bytes in order.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct FifoBytes(Vec<u8>);

impl TryFrom<FifoBytes> for Fifo {
    type Error = &'static str;
    fn try_from(v: FifoBytes) -> Result<Self, Self::Error> {
        if v.0.len() > FIFO_LEN {
            return Err("FIFO too long");
        }
        let mut f = Fifo::default();
        v.0.iter().for_each(|b| {
            f.push(*b);
        });
        Ok(f)
    }
}

impl From<Fifo> for FifoBytes {
    fn from(mut f: Fifo) -> Self {
        Self(std::iter::from_fn(|| f.pop()).collect())
    }
}

impl Fifo {
    /// Adds a byte; `false` if there is no room.
    fn push(&mut self, b: u8) -> bool {
        if usize::from(self.len) == FIFO_LEN {
            return false;
        }
        self.buf[usize::from(self.head + self.len) % FIFO_LEN] = b;
        self.len += 1;
        true
    }

    fn pop(&mut self) -> Option<u8> {
        let b = *self.buf.get(usize::from(self.head)).filter(|_| self.len > 0)?;
        self.head = (self.head + 1) % FIFO_LEN as u8;
        self.len -= 1;
        Some(b)
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

impl Default for UartState {
    fn default() -> Self {
        Self {
            divider: 12,
            rbr: 0,
            ier: 0,
            iir: iir::NONE,
            fcr: 0,
            lcr: 0,
            mcr: 0x08,
            lsr: lsr::TX_EMPTY | lsr::THR_EMPTY,
            msr: 0xb0,
            scr: 0,
            thr: 0,
            thr_pending: false,
            timeout_pending: false,
            rx: Fifo::default(),
            tx: Fifo::default(),
            unsent: None,
            timeout_at: None,
        }
    }
}

/// Properties of the chip itself; devices with one UART forward them.
#[derive(DeriveDevice, Debug)]
#[class(name = "serial", parent = "device", internal)]
pub struct SerialProps {
    /// Character device behind the port
    #[prop]
    pub chardev: ChardevRef,
    /// Input clock divided by 16: the rate at divisor 1
    #[prop(default = 115_200u32)]
    pub baudbase: u32,
    /// Input wakes the machine from suspend
    #[prop]
    pub wakeup: bool,
}

impl DeviceClass for SerialProps {
    fn realize(&mut self, _cx: &mut RealizeCx<'_>) -> QResult<Box<dyn Device>> {
        Ok(Box::new(PassivePart))
    }
}

/// A 16550A.
pub struct Uart {
    s: UartState,
    chr: Option<CharId>,
    baudbase: u32,
    wakeup: bool,
    timer: u32,
    irq: bool,
}

impl Uart {
    /// A chip in its power-on state. `timer` is the timer number that the wrapper hands to [`Self::timeout`].
    pub fn new(chr: Option<CharId>, baudbase: u32, wakeup: bool, timer: u32) -> Self {
        Self { s: UartState::default(), chr, baudbase, wakeup, timer, irq: false }
    }

    /// Makes the chip for a device: connects the character device as port `port` and adds the QOM part `name`.
    pub fn realize(
        cx: &mut RealizeCx<'_>,
        name: &'static str,
        p: &SerialProps,
        port: u32,
        timer: u32,
    ) -> QResult<Self> {
        let chr = cx.connect_chardev("serial", "chardev", &p.chardev, port)?;
        let shown = SerialProps { chardev: p.chardev.clone(), baudbase: p.baudbase, wakeup: p.wakeup };
        cx.add_part(name, SerialProps::CLASS, Box::new(shown), None, Box::new(PassivePart));
        Ok(Self::new(chr, p.baudbase, p.wakeup, timer))
    }

    /// Level of the interrupt output.
    pub fn irq_level(&self) -> bool {
        self.irq
    }

    /// State for saving.
    pub fn state(&self) -> &UartState {
        &self.s
    }

    /// Takes over a saved state.
    pub fn set_state(&mut self, cx: &mut Cx<'_>, s: UartState) {
        self.s = s;
        cx.timer_set(self.timer, self.s.timeout_at);
        self.update_irq();
    }

    /// Power-on state.
    pub fn reset(&mut self, cx: &mut Cx<'_>) {
        self.s = UartState::default();
        self.irq = false;
        cx.timer_set(self.timer, None);
    }

    fn fifos(&self) -> bool {
        self.s.fcr & fcr::ENABLE != 0
    }

    fn trigger_level(&self) -> u8 {
        [1, 4, 8, 14][usize::from(self.s.fcr >> 6)]
    }

    /// Time of one character on the line, in nanoseconds.
    fn char_time(&self) -> i64 {
        let divider = i64::from(self.s.divider);
        // A rate that the chip cannot make leaves the one of power-on, 9600 baud.
        let rate = if divider == 0 || divider > i64::from(self.baudbase) {
            9600
        } else {
            i64::from(self.baudbase) / divider
        };
        let parity = i64::from(self.s.lcr >> 3 & 1);
        let stop = if self.s.lcr & 4 != 0 { 2 } else { 1 };
        let bits = 1 + i64::from(self.s.lcr & 3) + 5 + parity + stop;
        1_000_000_000 / rate.max(1) * bits
    }

    fn update_irq(&mut self) {
        let s = &self.s;
        let rx_full = !self.fifos() || s.rx.len >= self.trigger_level();
        let id = if s.ier & ier::LINE != 0 && s.lsr & lsr::ANY_ERROR != 0 {
            iir::LINE
        } else if s.ier & ier::RX != 0 && s.timeout_pending {
            iir::TIMEOUT
        } else if s.ier & ier::RX != 0 && s.lsr & lsr::DATA != 0 && rx_full {
            iir::RX
        } else if s.ier & ier::THR != 0 && s.thr_pending {
            iir::THR
        } else if s.ier & ier::MODEM != 0 && s.msr & MSR_DELTA != 0 {
            iir::MODEM
        } else {
            iir::NONE
        };
        self.s.iir = id | self.s.iir & 0xf0;
        self.irq = id != iir::NONE;
    }

    fn arm_timeout(&mut self, cx: &mut Cx<'_>, on: bool) {
        let at = if on { Some(cx.now() + 4 * self.char_time()) } else { None };
        if at.is_some() || self.s.timeout_at.is_some() {
            self.s.timeout_at = at;
            cx.timer_set(self.timer, at);
        }
    }

    /// Guest read of register `offset` (0-7).
    pub fn read(&mut self, cx: &mut Cx<'_>, offset: u64) -> u8 {
        let dlab = self.s.lcr & LCR_DLAB != 0;
        match offset & 7 {
            0 if dlab => self.s.divider as u8,
            1 if dlab => (self.s.divider >> 8) as u8,
            0 => self.read_data(cx),
            1 => self.s.ier,
            2 => {
                let v = self.s.iir;
                if v & iir::ID == iir::THR {
                    self.s.thr_pending = false;
                    self.update_irq();
                }
                v
            }
            3 => self.s.lcr,
            4 => self.s.mcr,
            5 => {
                let v = self.s.lsr;
                if v & (lsr::BREAK | lsr::OVERRUN) != 0 {
                    self.s.lsr &= !(lsr::BREAK | lsr::OVERRUN);
                    self.update_irq();
                }
                v
            }
            6 => self.read_msr(),
            _ => self.s.scr,
        }
    }

    fn read_data(&mut self, cx: &mut Cx<'_>) -> u8 {
        let v;
        if self.fifos() {
            v = self.s.rx.pop().unwrap_or(0);
            if self.s.rx.len == 0 {
                self.s.lsr &= !(lsr::DATA | lsr::BREAK);
            } else {
                self.arm_timeout(cx, true);
            }
            self.s.timeout_pending = false;
        } else {
            v = self.s.rbr;
            self.s.lsr &= !(lsr::DATA | lsr::BREAK);
        }
        self.update_irq();
        if self.s.mcr & MCR_LOOP == 0 {
            if let Some(c) = self.chr {
                cx.chr_accept_input(c);
            }
        }
        v
    }

    fn read_msr(&mut self) -> u8 {
        let m = self.s.mcr;
        if m & MCR_LOOP != 0 {
            // OUT2, OUT1 -> DCD, RI; DTR -> DSR; RTS -> CTS.
            return (m & 0x0c) << 4 | (m & 0x02) << 3 | (m & 0x01) << 5;
        }
        let v = self.s.msr;
        if v & MSR_DELTA != 0 {
            self.s.msr &= !MSR_DELTA;
            self.update_irq();
        }
        v
    }

    /// Guest write of register `offset` (0-7).
    pub fn write(&mut self, cx: &mut Cx<'_>, offset: u64, v: u8) {
        let dlab = self.s.lcr & LCR_DLAB != 0;
        match offset & 7 {
            0 if dlab => self.s.divider = self.s.divider & 0xff00 | u16::from(v),
            1 if dlab => self.s.divider = self.s.divider & 0x00ff | u16::from(v) << 8,
            0 => self.write_data(cx, v),
            1 => self.write_ier(v),
            2 => self.write_fcr(cx, v),
            3 => self.s.lcr = v,
            4 => self.s.mcr = v & 0x1f,
            7 => self.s.scr = v,
            _ => {}
        }
    }

    fn write_data(&mut self, cx: &mut Cx<'_>, v: u8) {
        self.s.thr = v;
        if self.fifos() {
            if usize::from(self.s.tx.len) == FIFO_LEN {
                self.s.tx.pop();
            }
            self.s.tx.push(v);
        }
        self.s.lsr &= !(lsr::THR_EMPTY | lsr::TX_EMPTY);
        self.s.thr_pending = false;
        if self.s.unsent.is_none() {
            self.transmit(cx);
        }
        self.update_irq();
    }

    fn write_ier(&mut self, v: u8) {
        let changed = (self.s.ier ^ v) & 0x0f;
        self.s.ier = v & 0x0f;
        if changed & ier::THR != 0 {
            self.s.thr_pending = v & ier::THR != 0 && self.s.lsr & lsr::THR_EMPTY != 0;
        }
        if changed != 0 {
            self.update_irq();
        }
    }

    fn write_fcr(&mut self, cx: &mut Cx<'_>, v: u8) {
        let mut v = v;
        // Switching the FIFOs on or off empties both.
        if (v ^ self.s.fcr) & fcr::ENABLE != 0 {
            v |= fcr::CLEAR_RX | fcr::CLEAR_TX;
        }
        if v & fcr::CLEAR_RX != 0 {
            self.s.lsr &= !(lsr::DATA | lsr::BREAK);
            self.arm_timeout(cx, false);
            self.s.timeout_pending = false;
            self.s.rx.clear();
        }
        if v & fcr::CLEAR_TX != 0 {
            self.s.lsr |= lsr::THR_EMPTY;
            self.s.thr_pending = true;
            self.s.tx.clear();
        }
        self.s.fcr = v & fcr::KEPT;
        self.s.iir = self.s.iir & iir::ID | if self.fifos() { iir::FIFOS } else { 0 };
        self.update_irq();
        if v & fcr::CLEAR_RX != 0 {
            if let Some(c) = self.chr {
                cx.chr_accept_input(c);
            }
        }
    }

    /// Moves bytes from the holding register or FIFO to the back end until there are none or it is full.
    fn transmit(&mut self, cx: &mut Cx<'_>) {
        loop {
            let byte = match self.s.unsent {
                Some(b) => b,
                None => {
                    let b = if self.fifos() { self.s.tx.pop().unwrap_or(0) } else { self.s.thr };
                    if !self.fifos() || self.s.tx.len == 0 {
                        self.s.lsr |= lsr::THR_EMPTY;
                        self.s.thr_pending = true;
                    }
                    b
                }
            };
            if self.s.mcr & MCR_LOOP != 0 {
                self.take(cx, &[byte]);
            } else if let Some(c) = self.chr {
                if cx.chr_write(c, &[byte]) == 0 {
                    self.s.unsent = Some(byte);
                    return;
                }
            }
            self.s.unsent = None;
            if self.s.lsr & lsr::THR_EMPTY != 0 {
                break;
            }
        }
        self.s.lsr |= lsr::TX_EMPTY;
    }

    /// The back end takes output again.
    pub fn writable(&mut self, cx: &mut Cx<'_>) {
        if self.s.unsent.is_some() {
            self.transmit(cx);
            self.update_irq();
        }
    }

    /// How many bytes the chip can take from the line without loss; the trigger level is respected, so that the
    /// guest has a chance to react before the FIFO is full.
    pub fn can_receive(&self) -> usize {
        if !self.fifos() {
            return usize::from(self.s.lsr & lsr::DATA == 0);
        }
        let (len, level) = (self.s.rx.len, self.trigger_level());
        if usize::from(len) >= FIFO_LEN {
            0
        } else if len <= level {
            usize::from(level - len)
        } else {
            1
        }
    }

    /// Bytes from the line.
    pub fn receive(&mut self, cx: &mut Cx<'_>, data: &[u8]) {
        if self.wakeup && cx.m.run.state() == crate::run::RunState::Suspended {
            cx.m.run.requests.wakeup = true;
            cx.m.wake_loop();
        }
        self.take(cx, data);
        self.update_irq();
    }

    fn take(&mut self, cx: &mut Cx<'_>, data: &[u8]) {
        let Some(first) = data.first() else { return };
        if self.fifos() {
            for b in data {
                if !self.s.rx.push(*b) {
                    self.s.lsr |= lsr::OVERRUN;
                }
            }
            self.s.lsr |= lsr::DATA;
            self.arm_timeout(cx, true);
        } else {
            if self.s.lsr & lsr::DATA != 0 {
                self.s.lsr |= lsr::OVERRUN;
            }
            self.s.rbr = *first;
            self.s.lsr |= lsr::DATA;
        }
    }

    /// Something happened on the line.
    pub fn event(&mut self, event: CharEvent) {
        if event == CharEvent::Break {
            self.s.rbr = 0;
            // With the FIFOs off this byte is dropped when they are switched on.
            if !self.s.rx.push(0) {
                self.s.lsr |= lsr::OVERRUN;
            }
            self.s.lsr |= lsr::BREAK | lsr::DATA;
            self.update_irq();
        }
    }

    /// The receive FIFO's timer expired.
    pub fn timeout(&mut self) {
        self.s.timeout_at = None;
        if self.s.rx.len > 0 {
            self.s.timeout_pending = true;
            self.update_irq();
        }
    }
}

/// Implements the capabilities that every device with one UART shares; the type has the fields `uart` and a method
/// `sync(&mut self, &mut Cx)` that passes the interrupt level on.
macro_rules! one_uart {
    ($t:ty) => {
        impl crate::device::IoHandler for $t {
            fn read(&mut self, cx: &mut Cx<'_>, _region: u32, offset: u64, _size: u8) -> u64 {
                let v = self.uart.read(cx, offset);
                self.sync(cx);
                u64::from(v)
            }
            fn write(&mut self, cx: &mut Cx<'_>, _region: u32, offset: u64, _size: u8, value: u64) {
                self.uart.write(cx, offset, value as u8);
                self.sync(cx);
            }
        }
        impl crate::device::TimerHandler for $t {
            fn expired(&mut self, cx: &mut Cx<'_>, _id: u32) {
                self.uart.timeout();
                self.sync(cx);
            }
        }
        impl crate::chardev::CharFrontend for $t {
            fn can_receive(&mut self, _port: u32) -> usize {
                self.uart.can_receive()
            }
            fn receive(&mut self, cx: &mut Cx<'_>, _port: u32, data: &[u8]) {
                self.uart.receive(cx, data);
                self.sync(cx);
            }
            fn event(&mut self, cx: &mut Cx<'_>, _port: u32, event: crate::chardev::CharEvent) {
                self.uart.event(event);
                self.sync(cx);
            }
            fn writable(&mut self, cx: &mut Cx<'_>, _port: u32) {
                self.uart.writable(cx);
                self.sync(cx);
            }
        }
    };
}
use one_uart;

/// For [`Device::as_any`] of wrappers.
type AnyMut<'a> = &'a mut dyn Any;
