//! Configuration space of one function.

use super::msix::Msix;
use super::reg;
use crate::device::{BusId, Cx};
use crate::memory::RegionId;

/// Identity of a function.
#[derive(Clone, Copy, Debug, Default)]
pub struct PciIds {
    /// Vendor.
    pub vendor: u16,
    /// Device.
    pub device: u16,
    /// Revision.
    pub revision: u8,
    /// Class and subclass.
    pub class: u16,
    /// Programming interface.
    pub prog_if: u8,
    /// Subsystem vendor and device; `None` for QEMU's default (1af4:1100).
    pub subsystem: Option<(u16, u16)>,
}

/// Kind of a base address register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarKind {
    /// I/O ports.
    Io,
    /// 32-bit memory.
    Mem32,
    /// 32-bit prefetchable memory.
    Mem32Prefetch,
    /// 64-bit memory (takes two registers).
    Mem64,
    /// 64-bit prefetchable memory (takes two registers).
    Mem64Prefetch,
    /// Expansion ROM (register 6).
    Rom,
}

impl BarKind {
    fn low_bits(self) -> u32 {
        match self {
            Self::Io => 1,
            Self::Mem32 | Self::Rom => 0,
            Self::Mem32Prefetch => 8,
            Self::Mem64 => 4,
            Self::Mem64Prefetch => 0xc,
        }
    }

    /// Whether it takes two registers.
    pub fn is_64(self) -> bool {
        matches!(self, Self::Mem64 | Self::Mem64Prefetch)
    }
}

/// A base address register.
#[derive(Clone, Debug)]
pub struct Bar {
    /// Region that it shows.
    pub region: RegionId,
    /// Size in bytes, a power of two.
    pub size: u64,
    /// Kind.
    pub kind: BarKind,
    /// Where it is mapped now.
    pub mapped: Option<u64>,
}

/// Configuration space with its write masks, BARs and MSI-X.
pub struct PciState {
    config: Box<[u8]>,
    wmask: Box<[u8]>,
    w1cmask: Box<[u8]>,
    initial: Box<[u8]>,
    bars: [Option<Bar>; 7],
    next_cap: u8,
    /// MSI-X, if the function has it.
    pub msix: Option<Msix>,
    /// Slot and function; set when the function is put on its bus.
    pub devfn: u8,
    /// Its bus.
    pub bus: BusId,
    /// What the function can reach: a container, and in it all of memory while it is bus master.
    pub(super) master: Option<(RegionId, RegionId)>,
    /// Level of its INTx pin as the device drives it.
    pub(super) intx: bool,
    /// Level as its bus sees it (after the disable bit).
    pub(super) intx_seen: bool,
}

impl PciState {
    /// A conventional function with a type 0 header.
    pub fn new(ids: PciIds) -> Self {
        Self::with_size(ids, 256)
    }

    /// A function with `size` bytes of configuration space (256 or 4096).
    pub fn with_size(ids: PciIds, size: usize) -> Self {
        let size = size.max(256);
        let mut s = Self {
            config: vec![0; size].into(),
            wmask: vec![0; size].into(),
            w1cmask: vec![0; size].into(),
            initial: Box::default(),
            bars: Default::default(),
            next_cap: 0x40,
            msix: None,
            devfn: 0,
            bus: BusId(0),
            master: None,
            intx: false,
            intx_seen: false,
        };
        s.set_word(reg::VENDOR_ID, ids.vendor);
        s.set_word(reg::DEVICE_ID, ids.device);
        s.config[reg::REVISION] = ids.revision;
        s.config[reg::CLASS_PROG] = ids.prog_if;
        s.set_word(reg::CLASS_DEVICE, ids.class);
        let (sv, sd) = ids.subsystem.unwrap_or((0x1af4, 0x1100));
        s.set_word(reg::SUBSYSTEM_VENDOR_ID, sv);
        s.set_word(reg::SUBSYSTEM_ID, sd);
        s.wmask[reg::CACHE_LINE] = 0xff;
        s.wmask[reg::INTERRUPT_LINE] = 0xff;
        let cmd = reg::CMD_IO | reg::CMD_MEMORY | reg::CMD_MASTER | reg::CMD_INTX_DISABLE | reg::CMD_SERR;
        s.wmask[reg::COMMAND..reg::COMMAND + 2].copy_from_slice(&cmd.to_le_bytes());
        // What lies behind the header is the device's; unless it says otherwise the guest may write it. Capabilities
        // are read-only until they say otherwise.
        s.wmask[0x40..].fill(0xff);
        // Error bits of the status register are write-1-to-clear.
        s.w1cmask[reg::STATUS + 1] = 0xf9;
        s
    }

    /// Takes the present contents as the reset values. Called when the function is put on its bus.
    pub fn seal(&mut self) {
        self.initial = self.config.clone();
    }

    /// Back to the reset values; BARs are unmapped by the machine afterwards.
    pub fn reset(&mut self) {
        if self.initial.len() == self.config.len() {
            // Writable bits go back; read-only bits that a device maintains are the device's to reset.
            for i in 0..self.config.len() {
                let w = self.wmask[i] | self.w1cmask[i];
                self.config[i] = (self.config[i] & !w) | (self.initial[i] & w);
            }
        }
        if let Some(m) = &mut self.msix {
            m.reset();
        }
        self.intx = false;
    }

    /// Raw configuration space.
    pub fn config(&self) -> &[u8] {
        &self.config
    }

    /// Raw configuration space, for registers that the device maintains itself.
    pub fn config_mut(&mut self) -> &mut [u8] {
        &mut self.config
    }

    /// Bits that the guest may write.
    pub fn wmask_mut(&mut self) -> &mut [u8] {
        &mut self.wmask
    }

    /// Bits that the guest clears by writing one.
    pub fn w1cmask_mut(&mut self) -> &mut [u8] {
        &mut self.w1cmask
    }

    /// 16-bit register.
    pub fn word(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.config[at], self.config[at + 1]])
    }

    /// Sets a 16-bit register.
    pub fn set_word(&mut self, at: usize, v: u16) {
        self.config[at..at + 2].copy_from_slice(&v.to_le_bytes());
    }

    /// 32-bit register.
    pub fn dword(&self, at: usize) -> u32 {
        u32::from_le_bytes([self.config[at], self.config[at + 1], self.config[at + 2], self.config[at + 3]])
    }

    /// Sets a 32-bit register.
    pub fn set_dword(&mut self, at: usize, v: u32) {
        self.config[at..at + 4].copy_from_slice(&v.to_le_bytes());
    }

    /// Sets the interrupt pin (1 = INTA).
    pub fn set_interrupt_pin(&mut self, pin: u8) {
        self.config[reg::INTERRUPT_PIN] = pin;
    }

    /// Adds a base address register (0-5, or 6 for the ROM). `size` is rounded up to a power of two.
    pub fn add_bar(&mut self, index: usize, region: RegionId, size: u64, kind: BarKind) {
        let size = size.max(if kind == BarKind::Io { 4 } else { 16 }).next_power_of_two();
        let at = bar_offset(index);
        self.set_dword(at, kind.low_bits());
        let keep = match kind {
            BarKind::Io => 3,
            BarKind::Rom => 0x7ff,
            _ => 0xf,
        };
        let m = !(size - 1);
        let low = (m as u32) & !keep | u32::from(kind == BarKind::Rom);
        self.wmask[at..at + 4].copy_from_slice(&low.to_le_bytes());
        if kind.is_64() && index < 5 {
            self.wmask[at + 4..at + 8].copy_from_slice(&((m >> 32) as u32).to_le_bytes());
        }
        if let Some(b) = self.bars.get_mut(index) {
            *b = Some(Bar { region, size, kind, mapped: None });
        }
    }

    /// The base address registers.
    pub fn bars(&self) -> &[Option<Bar>; 7] {
        &self.bars
    }

    pub(super) fn bars_mut(&mut self) -> &mut [Option<Bar>; 7] {
        &mut self.bars
    }

    /// Adds a capability of `len` bytes (with its two header bytes); returns its offset.
    /// `at` = 0 takes the next free place.
    pub fn add_capability(&mut self, id: u8, at: u8, len: u8) -> usize {
        let at = if at == 0 { self.next_cap } else { at };
        self.next_cap = self.next_cap.max(at.saturating_add(len.div_ceil(4) * 4));
        let end = (usize::from(at) + usize::from(len)).min(self.wmask.len());
        self.wmask[usize::from(at)..end].fill(0);
        self.config[usize::from(at)] = id;
        self.config[usize::from(at) + 1] = self.config[reg::CAP_LIST];
        self.config[reg::CAP_LIST] = at;
        self.config[reg::STATUS] |= reg::STATUS_CAP_LIST as u8;
        usize::from(at)
    }

    /// Where a BAR points now, or `None` if it is switched off or points nowhere sensible.
    pub fn bar_address(&self, index: usize) -> Option<u64> {
        let bar = self.bars.get(index)?.as_ref()?;
        let at = bar_offset(index);
        let cmd = self.word(reg::COMMAND);
        let low = self.dword(at);
        if bar.kind == BarKind::Io {
            let addr = u64::from(low) & !(bar.size - 1);
            let last = addr + bar.size - 1;
            return (cmd & reg::CMD_IO != 0 && addr != 0 && last <= 0xffff_ffff).then_some(addr);
        }
        if cmd & reg::CMD_MEMORY == 0 || (bar.kind == BarKind::Rom && low & 1 == 0) {
            return None;
        }
        let mut addr = u64::from(low);
        if bar.kind.is_64() {
            addr |= u64::from(self.dword(at + 4)) << 32;
        }
        let addr = addr & !(bar.size - 1);
        let last = addr.checked_add(bar.size - 1)?;
        let fits = bar.kind.is_64() || last < 0xffff_ffff;
        // The top of the 64-bit space is where sizing leaves a BAR for a moment.
        (addr != 0 && last != u64::MAX && fits).then_some(addr)
    }

    /// Guest read; bytes beyond the end read as ones.
    pub fn read(&self, addr: usize, len: u8) -> u32 {
        (0..usize::from(len))
            .fold(0, |v, i| v | u32::from(self.config.get(addr + i).copied().unwrap_or(0xff)) << (8 * i))
    }

    /// Guest write under the masks.
    pub fn write(&mut self, addr: usize, len: u8, value: u32) {
        for i in 0..usize::from(len) {
            let Some(old) = self.config.get(addr + i).copied() else { return };
            let b = (value >> (8 * i)) as u8;
            let (w, c) = (self.wmask[addr + i], self.w1cmask[addr + i]);
            self.config[addr + i] = ((old & !w) | (b & w)) & !(b & c);
        }
    }

    /// Drives the function's INTx pin.
    pub fn set_intx(&mut self, cx: &mut Cx<'_>, level: bool) {
        self.intx = level;
        self.update_intx(cx.m);
    }

    /// Re-evaluates INTx after a change of level or of the disable bit.
    pub(crate) fn update_intx(&mut self, m: &mut crate::machine::Machine) {
        let status = self.word(reg::STATUS) & !reg::STATUS_INTERRUPT;
        self.set_word(reg::STATUS, status | if self.intx { reg::STATUS_INTERRUPT } else { 0 });
        let seen = self.intx && self.word(reg::COMMAND) & reg::CMD_INTX_DISABLE == 0;
        if seen != self.intx_seen {
            self.intx_seen = seen;
            let pin = self.config[reg::INTERRUPT_PIN].wrapping_sub(1) & 3;
            m.pci_intx(self.bus, self.devfn, pin, seen);
        }
    }

    /// Root of what the function can reach, once it is on its bus.
    pub fn bus_master_root(&self) -> Option<RegionId> {
        self.master.map(|(root, _)| root)
    }

    /// Whether the function may access memory by itself.
    pub fn bus_master(&self) -> bool {
        self.word(reg::COMMAND) & reg::CMD_MASTER != 0
    }

    /// Sends MSI-X vector `vector` (or pends it if masked). `false` if MSI-X is off or the vector does not exist.
    pub fn msix_notify(&mut self, cx: &mut Cx<'_>, vector: u16) -> bool {
        let Some(m) = &mut self.msix else { return false };
        if !m.enabled(&self.config) {
            return false;
        }
        if let Some(msg) = m.take_message(&self.config, vector) {
            cx.m.accel.msi(msg);
        }
        true
    }

    /// Whether MSI-X is switched on.
    pub fn msix_enabled(&self) -> bool {
        self.msix.as_ref().is_some_and(|m| m.enabled(&self.config))
    }
}

/// Offset of BAR register `index` (6 = ROM) in a type 0 header.
pub fn bar_offset(index: usize) -> usize {
    if index >= 6 {
        reg::ROM
    } else {
        reg::BAR0 + index * 4
    }
}
