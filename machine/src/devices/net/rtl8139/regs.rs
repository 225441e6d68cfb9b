//! Registers (section 6 of the data sheet).

use super::Rtl8139;
use crate::device::Cx;
use crate::qom::MacAddr;

/// Interrupt causes.
#[allow(missing_docs)]
pub mod isr {
    pub const ROK: u16 = 1;
    pub const TOK: u16 = 1 << 2;
    pub const RX_OVERFLOW: u16 = 1 << 4;
    pub const TIMER: u16 = 1 << 14;
}

/// Causes that exist.
pub const IMR_MASK: u16 = 0xe1ff;

pub const CR_RST: u8 = 1 << 4;
pub const CR_RE: u8 = 1 << 3;
pub const CR_TE: u8 = 1 << 2;
/// The receive ring is empty.
const CR_BUFE: u8 = 1;

/// The driver, not the card, has this transmit slot.
pub const TSD_OWN: u32 = 1 << 13;
pub const TSD_TUN: u32 = 1 << 14;
pub const TSD_TOK: u32 = 1 << 15;
pub const TSD_TABT: u32 = 1 << 30;

pub const RCR_ALL: u32 = 1;
pub const RCR_MATCH: u32 = 1 << 1;
pub const RCR_MULTICAST: u32 = 1 << 2;
pub const RCR_BROADCAST: u32 = 1 << 3;
/// Frames go on beyond the end of the ring.
pub const RCR_WRAP: u32 = 1 << 7;
const RCR_WRITABLE: u32 = 0x0f03_ffbf;

/// Transmitted frames come back.
pub const TCR_LOOPBACK: u32 = 3 << 17;
/// Hardware version in TCR, which cannot be written.
const TCR_VERSION: u32 = 0x7480_0000;
const TCR_WRITABLE: u32 = 0x7f07_0ff0 & !TCR_VERSION;

pub const CPCR_RX_VLAN: u16 = 1 << 6;
pub const CPCR_RX: u16 = 1 << 1;
pub const CPCR_TX: u16 = 1;
const CPCR_WRITABLE: u16 = 0x7b;

const BMCR_AUTO: u16 = 0x1000;
const BMCR_RESTART: u16 = 0x0200;
const BMSR: u16 = 0x782d;
const ABILITIES: u16 = 0x05e1;

/// 93C46 command register.
mod cr9346 {
    pub const DI: u8 = 2;
    pub const SK: u8 = 4;
    pub const CS: u8 = 8;
    pub const LINES: u8 = DI | SK | CS;
    pub const MODE: u8 = 0xc0;
    pub const AUTOLOAD: u8 = 0x40;
    pub const PROGRAM: u8 = 0x80;
    pub const UNLOCK: u8 = 0xc0;
}

/// Counters that a driver can have dumped.
#[derive(Clone, Copy, Default)]
pub struct Tally {
    pub tx_ok: u64,
    pub rx_ok: u64,
    pub missed: u16,
    pub rx_ok_phys: u64,
    pub rx_ok_broadcast: u64,
    pub rx_ok_multicast: u32,
}

impl Tally {
    /// Layout in memory.
    fn bytes(&self) -> [u8; 64] {
        let mut b = [0; 64];
        b[..8].copy_from_slice(&self.tx_ok.to_le_bytes());
        b[8..16].copy_from_slice(&self.rx_ok.to_le_bytes());
        b[28..30].copy_from_slice(&self.missed.to_le_bytes());
        b[40..48].copy_from_slice(&self.rx_ok_phys.to_le_bytes());
        b[48..56].copy_from_slice(&self.rx_ok_broadcast.to_le_bytes());
        b[56..60].copy_from_slice(&self.rx_ok_multicast.to_le_bytes());
        b
    }
}

/// The registers.
#[derive(Default)]
pub struct State {
    pub id: [u8; 6],
    pub multicast: [u8; 8],
    /// Transmit slots: status and address.
    pub slots: [(u32, u32); 4],
    /// Next slot to be sent.
    pub slot: usize,
    /// Receive ring: base, size, where the card writes, where the driver reads.
    pub ring: u32,
    pub ring_size: u32,
    pub write_at: u32,
    pub read_at: u32,
    pub command: u8,
    pub imr: u16,
    pub isr: u16,
    tcr: u32,
    pub rcr: u32,
    pub missed: u32,
    pub timer_base: i64,
    pub timer_limit: u32,
    cr9346: u8,
    config: [u8; 4],
    config5: u8,
    multi_interrupt: u16,
    bmcr: u16,
    bmsr: u16,
    advertise: u16,
    expansion: u16,
    cpcr: u16,
    /// The driver wrote the C+ command register since the last reset.
    pub cplus: bool,
    early_tx: u8,
    pub rx_ring: [u32; 2],
    /// Next C+ descriptors.
    pub rx_next: u32,
    pub tx_next: u32,
    pub tally: Tally,
}

impl State {
    /// Values after a reset by software.
    pub fn power_on(&mut self, mac: [u8; 6]) {
        *self = Self {
            id: mac,
            slots: [(TSD_OWN, 0); 4],
            ring_size: 8192,
            tcr: TCR_VERSION,
            // CONFIG0, CONFIG1, CONFIG3, CONFIG4.
            config: [0, 0x0c, 0x01, 0],
            bmcr: BMCR_AUTO,
            bmsr: BMSR,
            advertise: ABILITIES,
            expansion: 1,
            ..Self::default()
        };
    }

    /// Whether C+ rings are in use for a direction.
    pub fn cplus_on(&self, direction: u16) -> bool {
        self.cplus && self.cpcr & direction != 0
    }

    pub fn strips_tags(&self) -> bool {
        self.cpcr & CPCR_RX_VLAN != 0
    }

    pub fn loopback(&self) -> bool {
        self.tcr & TCR_LOOPBACK == TCR_LOOPBACK
    }

    fn unlocked(&self) -> bool {
        self.cr9346 & cr9346::MODE == cr9346::UNLOCK
    }

    /// Status bits of all transmit slots.
    fn slot_summary(&self) -> u16 {
        self.slots.iter().enumerate().fold(0, |v, (i, (s, _))| {
            let bit = |on: bool, at: usize| u16::from(on) << (at + i);
            v | bit(s & TSD_OWN != 0, 0)
                | bit(s & TSD_TUN != 0, 4)
                | bit(s & TSD_TABT != 0, 8)
                | bit(s & TSD_TOK != 0, 12)
        })
    }
}

fn byte(v: u32, at: u8) -> u8 {
    (v >> (8 * (at & 3))) as u8
}

impl Rtl8139 {
    pub(super) fn read8(&mut self, at: u8) -> u8 {
        let s = &self.s;
        match at {
            0x00..=0x05 => s.id[usize::from(at)],
            0x08..=0x0f => s.multicast[usize::from(at - 8)],
            0x10..=0x1f => byte(s.slots[usize::from((at - 0x10) / 4)].0, at),
            0x37 => s.command | if s.read_at == s.write_at { CR_BUFE } else { 0 },
            0x43 => (s.tcr >> 24) as u8,
            0x50 => s.cr9346 | u8::from(self.eeprom.output() == Some(true)),
            0x51 => s.config[0],
            0x52 => s.config[1],
            // Link at 100 Mb/s.
            0x58 => 0xd0,
            0x59 => s.config[2],
            0x5a => s.config[3],
            0x5b => 1,
            0x5e => 0x20,
            0xd8 => s.config5,
            0xec => s.early_tx,
            _ => 0,
        }
    }

    pub(super) fn read16(&mut self, at: u8) -> u16 {
        let s = &self.s;
        match at {
            0x38 => (s.read_at as u16).wrapping_sub(0x10),
            0x3a => s.write_at as u16,
            0x3c => s.imr,
            0x3e => s.isr,
            0x5c => s.multi_interrupt,
            0x60 => s.slot_summary(),
            0x62 => s.bmcr,
            0x64 => s.bmsr,
            0x66 => s.advertise,
            0x68 => ABILITIES,
            0x6a => s.expansion,
            0x74 => 0x340,
            0xe0 => s.cpcr,
            _ => u16::from_le_bytes([self.read8(at), self.read8(at.wrapping_add(1))]),
        }
    }

    pub(super) fn read32(&mut self, cx: &mut Cx<'_>, at: u8) -> u32 {
        let s = &self.s;
        match at {
            0x20..=0x2f => s.slots[usize::from((at - 0x20) / 4)].1,
            0x30 => s.ring,
            0x40 => s.tcr,
            0x44 => s.rcr,
            0x48 => self.timer(cx),
            0x4c => s.missed,
            0x54 => s.timer_limit,
            0xe4 => s.rx_ring[0],
            0xe8 => s.rx_ring[1],
            _ => {
                let mut b = [0; 4];
                for (i, b) in b.iter_mut().enumerate() {
                    *b = self.read8(at.wrapping_add(i as u8));
                }
                u32::from_le_bytes(b)
            }
        }
    }

    pub(super) fn write8(&mut self, cx: &mut Cx<'_>, at: u8, v: u8) {
        let unlocked = self.s.unlocked();
        let s = &mut self.s;
        let masked = |old: u8, mask: u8| old & !mask | v & mask;
        match at {
            0x00..=0x05 => {
                s.id[usize::from(at)] = v;
                if at == 5 {
                    let id = s.id;
                    cx.m.net_set_mac(self.nic, MacAddr(id));
                }
            }
            0x08..=0x0f => s.multicast[usize::from(at - 8)] = v,
            0x37 => self.write_command(cx, v),
            0x50 => self.write_9346(cx, v),
            0x51 if unlocked => s.config[0] = masked(s.config[0], 7),
            0x52 if unlocked => s.config[1] = v,
            0x59 if unlocked => s.config[2] = masked(s.config[2], 0x70),
            0x5a if unlocked => s.config[3] = masked(s.config[3], 0xf5),
            0xd8 => s.config5 = v & 0x7f,
            // Normal priority polling.
            0xd9 if v & 0x40 != 0 => self.poll_ring(cx),
            0xec => s.early_tx = v,
            _ => {}
        }
    }

    fn write_command(&mut self, cx: &mut Cx<'_>, v: u8) {
        if v & CR_RST != 0 {
            self.software_reset(cx);
        }
        if v & CR_RE != 0 && self.s.command & CR_RE == 0 {
            self.s.rx_next = 0;
        }
        if v & CR_TE != 0 && self.s.command & CR_TE == 0 {
            self.s.tx_next = 0;
        }
        self.s.command = v & (CR_RE | CR_TE);
        cx.m.net_flush(self.nic);
    }

    fn write_9346(&mut self, cx: &mut Cx<'_>, v: u8) {
        self.s.cr9346 = v & (cr9346::MODE | cr9346::LINES);
        match v & cr9346::MODE {
            cr9346::AUTOLOAD => {
                self.software_reset(cx);
                self.s.cr9346 = 0;
            }
            cr9346::PROGRAM => {
                self.eeprom.set(v & cr9346::CS != 0, v & cr9346::SK != 0, v & cr9346::DI != 0);
            }
            _ => self.eeprom.set(false, false, false),
        }
    }

    pub(super) fn write16(&mut self, cx: &mut Cx<'_>, at: u8, v: u16) {
        let s = &mut self.s;
        match at {
            0x38 => {
                s.read_at = u32::from(v).wrapping_add(0x10) % s.ring_size.max(1);
                cx.m.net_flush(self.nic);
            }
            0x3c => {
                s.imr = v & IMR_MASK;
                self.update_irq(cx);
                cx.m.net_flush(self.nic);
            }
            0x3e => {
                s.isr &= !v;
                self.update_irq(cx);
            }
            0x5c => s.multi_interrupt = v & 0xfff,
            0x62 => s.bmcr = BMCR_AUTO | v & BMCR_RESTART,
            0x64 => s.bmsr = BMSR | v & 0xc0,
            0x66 => s.advertise = v,
            0x6a => s.expansion = v,
            0xe0 => {
                s.cplus = true;
                s.cpcr = v & CPCR_WRITABLE;
            }
            _ => {
                let [low, high] = v.to_le_bytes();
                self.write8(cx, at, low);
                self.write8(cx, at.wrapping_add(1), high);
            }
        }
    }

    pub(super) fn write32(&mut self, cx: &mut Cx<'_>, at: u8, v: u32) {
        let s = &mut self.s;
        match at {
            0x10..=0x1f => self.write_slot(cx, usize::from((at - 0x10) / 4), v),
            0x20..=0x2f => s.slots[usize::from((at - 0x20) / 4)].1 = v,
            0x30 => {
                s.ring = v;
                (s.write_at, s.read_at) = (0, 0);
            }
            0x40 => {
                if s.command & CR_TE != 0 {
                    s.tcr = s.tcr & !TCR_WRITABLE | v & TCR_WRITABLE;
                }
            }
            0x44 => {
                s.rcr = v & RCR_WRITABLE;
                s.ring_size = 8192 << (v >> 11 & 3);
                (s.write_at, s.read_at) = (0, 0);
                cx.m.net_flush(self.nic);
            }
            0x48 => {
                s.timer_base = cx.now();
                self.set_timer(cx);
            }
            0x4c => s.missed = 0,
            0x54 => {
                s.timer_limit = v;
                self.set_timer(cx);
            }
            0xe4 => s.rx_ring[0] = v,
            0xe8 => s.rx_ring[1] = v,
            _ => {
                for (i, b) in v.to_le_bytes().into_iter().enumerate() {
                    self.write8(cx, at.wrapping_add(i as u8), b);
                }
            }
        }
    }

    /// A write to a transmit slot's status starts it; in C+ mode the first two are the command to dump counters.
    fn write_slot(&mut self, cx: &mut Cx<'_>, i: usize, v: u32) {
        const DUMP: u32 = 8;
        if !self.s.cplus {
            self.s.slots[i].0 = v & !(TSD_OWN | TSD_TUN | TSD_TOK | 0xff00_0000);
            return self.send_slot(cx);
        }
        if i > 1 {
            return;
        }
        self.s.slots[i].0 = v;
        if i == 0 && v & DUMP != 0 {
            let addr = u64::from(self.s.slots[1].0) << 32 | u64::from(v & !0x3f);
            // Counters for nowhere are lost.
            let _ = cx.dma_write(addr, &self.s.tally.bytes());
            self.s.tally = Tally::default();
            self.s.slots[0].0 = v & !DUMP;
        }
    }
}
