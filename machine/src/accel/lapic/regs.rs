//! One local APIC: registers, priorities and the timer, without the bus between them.

use serde::{Deserialize, Serialize};

use super::vector::VectorSet;

/// Register offsets of the memory page; x2APIC registers are MSR `0x800 + offset / 16`.
pub mod reg {
    pub const ID: u32 = 0x20;
    pub const VERSION: u32 = 0x30;
    pub const TPR: u32 = 0x80;
    pub const APR: u32 = 0x90;
    pub const PPR: u32 = 0xa0;
    pub const EOI: u32 = 0xb0;
    pub const LDR: u32 = 0xd0;
    pub const DFR: u32 = 0xe0;
    pub const SVR: u32 = 0xf0;
    pub const ISR: u32 = 0x100;
    pub const TMR: u32 = 0x180;
    pub const IRR: u32 = 0x200;
    pub const ESR: u32 = 0x280;
    pub const ICR: u32 = 0x300;
    pub const ICR_HIGH: u32 = 0x310;
    pub const LVT_TIMER: u32 = 0x320;
    pub const LVT_ERROR: u32 = 0x370;
    pub const TIMER_INITIAL: u32 = 0x380;
    pub const TIMER_CURRENT: u32 = 0x390;
    pub const TIMER_DIVIDE: u32 = 0x3e0;
    pub const SELF_IPI: u32 = 0x3f0;
}

/// Bits of `IA32_APIC_BASE`.
pub mod base {
    pub const BSP: u64 = 1 << 8;
    pub const X2APIC: u64 = 1 << 10;
    pub const ENABLE: u64 = 1 << 11;
    pub const ADDR: u64 = 0x000f_ffff_ffff_f000;
    pub const RESET: u64 = 0xfee0_0000 | ENABLE;
}

/// Entries of the local vector table, in register order.
pub mod lvt {
    pub const TIMER: usize = 0;
    pub const LINT0: usize = 3;
    pub const LINT1: usize = 4;
    pub const ERROR: usize = 5;
    pub const COUNT: usize = 6;
    pub const MASKED: u32 = 1 << 16;
    pub const PERIODIC: u32 = 1 << 17;
    pub const DEADLINE: u32 = 1 << 18;
    /// Bits that software can write.
    pub const WRITABLE: [u32; COUNT] = [0x7_00ff, 0x1_07ff, 0x1_07ff, 0x1_a7ff, 0x1_a7ff, 0x1_00ff];
}

/// Delivery modes.
pub mod delivery {
    pub const FIXED: u32 = 0;
    pub const LOWEST: u32 = 1;
    pub const SMI: u32 = 2;
    pub const NMI: u32 = 4;
    pub const INIT: u32 = 5;
    pub const SIPI: u32 = 6;
    pub const EXT_INT: u32 = 7;
}

/// Software enable, in the spurious vector register.
const SVR_ENABLE: u32 = 1 << 8;
/// No broadcast of the end of level interrupts.
const SVR_NO_EOI_BROADCAST: u32 = 1 << 12;
/// Errors: illegal vector sent or received, illegal register.
const ESR_SEND_ILLEGAL: u32 = 1 << 5;
const ESR_RECEIVE_ILLEGAL: u32 = 1 << 6;
const ESR_ILLEGAL_REGISTER: u32 = 1 << 7;

/// What a register write asks the outside to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    None,
    /// Send what the interrupt command register holds.
    Ipi(u64),
    /// A level interrupt of this vector ended.
    Eoi(u8),
    /// The timer's next expiry changed.
    Timer,
}

/// State of one local APIC (Intel SDM volume 3, chapter "Advanced Programmable Interrupt Controller").
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lapic {
    /// `IA32_APIC_BASE`.
    pub base: u64,
    /// APIC id.
    pub id: u32,
    pub(super) tpr: u32,
    ldr: u32,
    dfr: u32,
    svr: u32,
    isr: VectorSet,
    tmr: VectorSet,
    irr: VectorSet,
    esr: u32,
    esr_latched: u32,
    icr: u64,
    lvt: [u32; lvt::COUNT],
    divide: u32,
    initial: u32,
    /// Virtual time at which the count started, in nanoseconds.
    start: i64,
    /// Next expiry in virtual nanoseconds.
    pub(super) expiry: Option<i64>,
    /// `IA32_TSC_DEADLINE`.
    tsc_deadline: u64,
}

impl Lapic {
    /// The state after power-on.
    pub fn new(id: u32, boot_processor: bool) -> Self {
        Self {
            base: base::RESET | if boot_processor { base::BSP } else { 0 },
            id,
            tpr: 0,
            ldr: 0,
            dfr: u32::MAX,
            svr: 0xff,
            isr: VectorSet::default(),
            tmr: VectorSet::default(),
            irr: VectorSet::default(),
            esr: 0,
            esr_latched: 0,
            icr: 0,
            // LINT0 too, as on QEMU: the 8259 is heard once firmware has set up the APIC or turned it off.
            lvt: [lvt::MASKED; lvt::COUNT],
            divide: 0,
            initial: 0,
            start: 0,
            expiry: None,
            tsc_deadline: 0,
        }
    }

    /// What an INIT leaves: everything but the id and the base register is reset.
    pub fn init(&mut self) {
        let fresh = Self::new(self.id, self.is_boot_processor());
        *self = Self { base: self.base, ..fresh };
    }

    fn is_boot_processor(&self) -> bool {
        self.base & base::BSP != 0
    }

    /// Not turned off in the base register.
    pub fn enabled(&self) -> bool {
        self.base & base::ENABLE != 0
    }

    /// In x2APIC mode.
    pub fn x2apic(&self) -> bool {
        self.base & (base::ENABLE | base::X2APIC) == base::ENABLE | base::X2APIC
    }

    fn software_enabled(&self) -> bool {
        self.enabled() && self.svr & SVR_ENABLE != 0
    }

    /// Processor priority.
    pub fn ppr(&self) -> u32 {
        let served = self.isr.highest().map_or(0, |v| u32::from(v) & 0xf0);
        if self.tpr & 0xf0 >= served {
            self.tpr
        } else {
            served
        }
    }

    /// The vector that would be served now.
    pub fn deliverable(&self) -> Option<u8> {
        let v = self.irr.highest()?;
        (self.software_enabled() && u32::from(v) >> 4 > self.ppr() >> 4).then_some(v)
    }

    /// Whether a request of the 8259 reaches the processor.
    pub fn accepts_pic(&self) -> bool {
        let l = self.lvt[lvt::LINT0];
        !self.enabled() || l & lvt::MASKED == 0 && l >> 8 & 7 == delivery::EXT_INT
    }

    /// Whether and how LINT1 (NMI on PCs) reaches the processor.
    pub fn accepts_nmi(&self) -> bool {
        let l = self.lvt[lvt::LINT1];
        !self.enabled() || l & lvt::MASKED == 0 && l >> 8 & 7 == delivery::NMI
    }

    /// The processor takes the interrupt.
    pub fn acknowledge(&mut self) -> Option<u8> {
        let v = self.deliverable()?;
        self.irr.set(v, false);
        self.isr.set(v, true);
        Some(v)
    }

    /// A message for this APIC arrives.
    pub fn accept(&mut self, vector: u8, level: bool) {
        if vector < 16 {
            self.error(ESR_RECEIVE_ILLEGAL);
            return;
        }
        self.irr.set(vector, true);
        self.tmr.set(vector, level);
    }

    /// Records an error and tells software of it if it asked for that.
    fn error(&mut self, bit: u32) {
        self.esr |= bit;
        let l = self.lvt[lvt::ERROR];
        if l & lvt::MASKED == 0 && l & 0xff >= 16 {
            self.accept(l as u8, false);
        }
    }

    /// Whether a message to `dest` is for this APIC.
    pub fn matches(&self, dest: u32, logical: bool, from_x2apic: bool) -> bool {
        let all = if from_x2apic { u32::MAX } else { 0xff };
        if dest == all {
            return true;
        }
        if !logical {
            return dest == self.id;
        }
        if self.x2apic() {
            let ldr = self.x2apic_ldr();
            return ldr >> 16 == dest >> 16 && ldr & dest & 0xffff != 0;
        }
        let mine = self.ldr >> 24;
        match self.dfr >> 28 {
            0xf => mine & dest != 0,
            0 => mine >> 4 == dest >> 4 & 0xf && mine & dest & 0xf != 0,
            _ => false,
        }
    }

    fn x2apic_ldr(&self) -> u32 {
        (self.id >> 4) << 16 | 1 << (self.id & 0xf)
    }

    // ---- registers -------------------------------------------------------------------------------------------

    /// Reads a register at virtual time `now`.
    pub fn read(&mut self, offset: u32, now: i64) -> u32 {
        match offset {
            reg::ID if self.x2apic() => self.id,
            reg::ID => self.id << 24,
            reg::VERSION => 0x14 | (lvt::COUNT as u32 - 1) << 16,
            reg::TPR => self.tpr,
            reg::APR => 0,
            reg::PPR => self.ppr(),
            reg::EOI => 0,
            reg::LDR if self.x2apic() => self.x2apic_ldr(),
            reg::LDR => self.ldr,
            reg::DFR => self.dfr,
            reg::SVR => self.svr,
            reg::ISR..reg::TMR => self.isr.word(offset - reg::ISR),
            reg::TMR..reg::IRR => self.tmr.word(offset - reg::TMR),
            reg::IRR..reg::ESR => self.irr.word(offset - reg::IRR),
            reg::ESR => self.esr_latched,
            reg::ICR => self.icr as u32,
            reg::ICR_HIGH => (self.icr >> 32) as u32,
            reg::LVT_TIMER..=reg::LVT_ERROR => self.lvt[(offset - reg::LVT_TIMER) as usize >> 4],
            reg::TIMER_INITIAL => self.initial,
            reg::TIMER_CURRENT => self.current(now),
            reg::TIMER_DIVIDE => self.divide,
            _ => {
                self.error(ESR_ILLEGAL_REGISTER);
                0
            }
        }
    }

    /// Writes a register at virtual time `now`.
    pub fn write(&mut self, offset: u32, value: u32, now: i64) -> Action {
        match offset {
            reg::ID if !self.x2apic() => self.id = value >> 24,
            reg::TPR => self.tpr = value & 0xff,
            reg::EOI => return self.end_of_interrupt(),
            reg::LDR => self.ldr = value & 0xff00_0000,
            reg::DFR => self.dfr = value | 0x0fff_ffff,
            reg::SVR => self.write_svr(value),
            reg::ESR => {
                self.esr_latched = self.esr;
                self.esr = 0;
            }
            reg::ICR => {
                // The delivery status always reads as idle: messages arrive at once.
                self.icr = self.icr & !0xffff_ffff | u64::from(value & !(1 << 12));
                return self.command();
            }
            reg::ICR_HIGH => self.icr = self.icr & 0xffff_ffff | u64::from(value) << 32,
            reg::LVT_TIMER..=reg::LVT_ERROR => {
                let n = (offset - reg::LVT_TIMER) as usize >> 4;
                let off = if self.software_enabled() { 0 } else { lvt::MASKED };
                let was = self.lvt[n];
                self.lvt[n] = value & lvt::WRITABLE[n] | off;
                if n == lvt::TIMER && (was ^ self.lvt[n]) & (lvt::PERIODIC | lvt::DEADLINE) != 0 {
                    return self.timer_mode_changed(was, now);
                }
            }
            reg::TIMER_INITIAL if self.lvt[lvt::TIMER] & lvt::DEADLINE == 0 => {
                self.initial = value;
                self.start = now;
                self.arm();
                return Action::Timer;
            }
            reg::TIMER_DIVIDE => {
                let left = self.current(now);
                self.divide = value & 0xb;
                self.rebase(left, now);
                return Action::Timer;
            }
            reg::SELF_IPI if self.x2apic() => self.accept(value as u8, false),
            reg::VERSION | reg::APR | reg::PPR | reg::TIMER_INITIAL | reg::TIMER_CURRENT => {}
            _ => self.error(ESR_ILLEGAL_REGISTER),
        }
        Action::None
    }

    /// The whole interrupt command register at once (x2APIC).
    pub fn write_icr(&mut self, value: u64) -> Action {
        self.icr = value & !(1 << 12);
        self.command()
    }

    /// The whole interrupt command register (x2APIC).
    pub fn icr(&self) -> u64 {
        self.icr
    }

    fn command(&mut self) -> Action {
        let mode = self.icr as u32 >> 8 & 7;
        if self.icr & 0xff < 16 && matches!(mode, delivery::FIXED | delivery::LOWEST) {
            self.error(ESR_SEND_ILLEGAL);
            return Action::None;
        }
        Action::Ipi(self.icr)
    }

    fn write_svr(&mut self, value: u32) {
        self.svr = value & 0x11ff;
        if self.svr & SVR_ENABLE == 0 {
            for l in &mut self.lvt {
                *l |= lvt::MASKED;
            }
        }
    }

    fn end_of_interrupt(&mut self) -> Action {
        let Some(v) = self.isr.highest() else { return Action::None };
        self.isr.set(v, false);
        if self.tmr.get(v) && self.svr & SVR_NO_EOI_BROADCAST == 0 {
            return Action::Eoi(v);
        }
        Action::None
    }

    // ---- timer: one tick is a nanosecond of virtual time times the divisor -------------------------------------

    fn divisor(&self) -> i64 {
        let n = self.divide & 3 | self.divide >> 1 & 4;
        1 << ((n + 1) & 7)
    }

    fn period(&self) -> i64 {
        i64::from(self.initial) * self.divisor()
    }

    fn current(&self, now: i64) -> u32 {
        let timer = self.lvt[lvt::TIMER];
        if self.initial == 0 || timer & lvt::DEADLINE != 0 {
            return 0;
        }
        let ticks = (now - self.start).max(0) / self.divisor();
        if timer & lvt::PERIODIC != 0 {
            let whole = i64::from(self.initial);
            (whole - ticks % whole) as u32
        } else {
            u32::try_from(i64::from(self.initial) - ticks).unwrap_or(0)
        }
    }

    fn arm(&mut self) {
        self.expiry = (self.initial != 0).then(|| self.start + self.period());
    }

    /// Goes on from `left` ticks with another divisor.
    fn rebase(&mut self, left: u32, now: i64) {
        if self.initial != 0 && self.lvt[lvt::TIMER] & lvt::DEADLINE == 0 {
            self.start = now - (i64::from(self.initial) - i64::from(left)) * self.divisor();
            self.expiry = (left != 0).then(|| self.start + self.period());
        }
    }

    fn timer_mode_changed(&mut self, was: u32, now: i64) -> Action {
        let is = self.lvt[lvt::TIMER];
        if (was ^ is) & lvt::DEADLINE != 0 {
            self.initial = 0;
            self.tsc_deadline = 0;
            self.expiry = None;
        } else if self.initial != 0 && is & lvt::PERIODIC != 0 {
            let period = self.period();
            let passed = (now - self.start) / period;
            self.expiry = Some(self.start + (passed + 1) * period);
        }
        Action::Timer
    }

    /// Reads `IA32_TSC_DEADLINE`.
    pub fn tsc_deadline(&self) -> u64 {
        self.tsc_deadline
    }

    /// Writes `IA32_TSC_DEADLINE`; `at` is the virtual time of that time stamp.
    pub fn set_tsc_deadline(&mut self, tsc: u64, at: i64) -> Action {
        if self.lvt[lvt::TIMER] & lvt::DEADLINE == 0 {
            return Action::None;
        }
        self.tsc_deadline = tsc;
        self.expiry = (tsc != 0).then_some(at);
        Action::Timer
    }

    /// The timer's expiry has passed.
    pub fn expire(&mut self, now: i64) {
        let Some(at) = self.expiry.filter(|at| *at <= now) else { return };
        let timer = self.lvt[lvt::TIMER];
        self.expiry = None;
        if timer & lvt::DEADLINE != 0 {
            self.tsc_deadline = 0;
        } else if timer & lvt::PERIODIC != 0 && self.initial != 0 {
            // Ticks that nobody could take are lost, not queued.
            let period = self.period().max(1);
            self.expiry = Some(at + ((now - at) / period + 1) * period);
        }
        if timer & lvt::MASKED == 0 {
            self.accept(timer as u8, false);
        }
    }
}
