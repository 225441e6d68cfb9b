//! Virtual addresses of a CPU, translated by its page tables (Intel SDM volume 3, chapter 4).

use super::memory::{read_physical, read_ram};
use crate::monitors::MonitorCx;
use rqemu_machine::cpu::CpuRegs;

const PRESENT: u64 = 1;
const LARGE: u64 = 1 << 7;
/// Bits of an entry of the wide formats that are the address.
const FRAME: u64 = 0x000F_FFFF_FFFF_F000;

/// No page is mapped there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotMapped;

fn entry(cx: &MonitorCx<'_, '_>, addr: u64, wide: bool) -> u64 {
    let mut buf = [0; 8];
    let n = if wide { 8 } else { 4 };
    read_ram(cx, addr, &mut buf[..n]);
    u64::from_le_bytes(buf)
}

/// Physical address of `addr`.
pub(crate) fn translate(cx: &MonitorCx<'_, '_>, regs: &CpuRegs, addr: u64) -> Result<u64, NotMapped> {
    let (cr0, cr3, cr4) = (regs.cr[0], regs.cr[2], regs.cr[3]);
    if cr0 >> 31 & 1 == 0 {
        return Ok(addr);
    }
    let long = regs.efer & 0x400 != 0;
    if !long && cr4 >> 5 & 1 == 0 {
        return two_level(cx, cr3, cr4 >> 4 & 1 != 0, addr as u32);
    }
    let (mut table, mut level) = match (long, cr4 >> 12 & 1 != 0) {
        (true, true) => (cr3 & FRAME, 5),
        (true, false) => (cr3 & FRAME, 4),
        (false, _) => (cr3 & 0xFFFF_FFE0, 3),
    };
    let addr = if long { addr } else { addr & 0xFFFF_FFFF };
    loop {
        let shift = 12 + 9 * (level - 1);
        let e = entry(cx, table + (addr >> shift & 0x1FF) * 8, true);
        if e & PRESENT == 0 {
            return Err(NotMapped);
        }
        if level == 1 || (e & LARGE != 0 && level <= 3 && (long || level == 2)) {
            let mask = (1u64 << shift) - 1;
            return Ok(e & FRAME & !mask | addr & mask);
        }
        table = e & FRAME;
        level -= 1;
    }
}

/// 32-bit paging without PAE.
fn two_level(cx: &MonitorCx<'_, '_>, cr3: u64, pse: bool, addr: u32) -> Result<u64, NotMapped> {
    let addr = u64::from(addr);
    let pde = entry(cx, (cr3 & 0xFFFF_F000) + (addr >> 22) * 4, false);
    if pde & PRESENT == 0 {
        return Err(NotMapped);
    }
    if pse && pde & LARGE != 0 {
        // Bits 20:13 are bits 39:32 of the address.
        return Ok((pde & 0xFFC0_0000) | (pde & 0x1F_E000) << 19 | addr & 0x3F_FFFF);
    }
    let pte = entry(cx, (pde & 0xFFFF_F000) + (addr >> 12 & 0x3FF) * 4, false);
    if pte & PRESENT == 0 {
        return Err(NotMapped);
    }
    Ok(pte & 0xFFFF_F000 | addr & 0xFFF)
}

/// Reads memory by virtual address.
pub(crate) fn read_virtual(
    cx: &mut MonitorCx<'_, '_>,
    regs: &CpuRegs,
    mut addr: u64,
    mut buf: &mut [u8],
) -> Result<(), NotMapped> {
    while !buf.is_empty() {
        let n = buf.len().min((4096 - addr % 4096) as usize);
        let (part, rest) = buf.split_at_mut(n);
        let at = translate(cx, regs, addr)?;
        read_physical(cx, at, part);
        buf = rest;
        addr = addr.wrapping_add(n as u64);
    }
    Ok(())
}

/// A page that the tables map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    /// Virtual address, not sign-extended.
    pub addr: u64,
    /// Bytes.
    pub size: u64,
    /// The entry that maps it.
    pub entry: u64,
    /// Physical address, with whatever of the entry the format shows beside it.
    pub frame: u64,
    /// Bits 1 (writable) and 2 (user) that all levels grant.
    pub rights: u64,
    /// Bits of a virtual address.
    width: u32,
}

impl Page {
    /// Physical address alone.
    pub fn physical(&self) -> u64 {
        self.frame & FRAME
    }

    /// Virtual address as programs write it.
    pub fn shown(&self) -> u64 {
        self.shown_at(self.addr)
    }

    /// `addr`, an address of the same address space, as programs write it.
    pub fn shown_at(&self, addr: u64) -> u64 {
        let upper_half = self.width > 32 && addr >> (self.width - 1) & 1 != 0;
        if upper_half {
            addr | u64::MAX << self.width
        } else {
            addr
        }
    }
}

/// The tables map more than [`walk`] visits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Truncated;

/// Entries that are looked at: tables that contain themselves map more than anybody can read.
const MAX_ENTRIES: usize = 4 << 20;

/// Visits all mapped pages by ascending address; `read` fetches physical memory.
pub(crate) fn walk(
    read: &mut dyn FnMut(u64, &mut [u8]),
    regs: &CpuRegs,
    visit: &mut dyn FnMut(Page),
) -> Result<(), Truncated> {
    let (cr3, cr4) = (regs.cr[2], regs.cr[3]);
    let (long, pae, la57) = (regs.efer & 0x400 != 0, cr4 >> 5 & 1 != 0, cr4 >> 12 & 1 != 0);
    let (root, levels, mode) = match (long, pae) {
        (true, _) => (cr3 & FRAME, if la57 { 5 } else { 4 }, Mode::Long),
        (false, true) => (cr3 & 0xFFFF_FFE0, 3, Mode::Pae),
        (false, false) => (cr3 & 0xFFFF_F000, 2, Mode::Plain { large: cr4 >> 4 & 1 != 0 }),
    };
    let mut w = Walk { read, mode, levels, left: MAX_ENTRIES, visit };
    w.table(root, levels, 0, 6)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// 32-bit entries; pages of 4 MiB if `large`.
    Plain { large: bool },
    /// 64-bit entries below a table of four.
    Pae,
    /// 64-bit mode.
    Long,
}

struct Walk<'a> {
    read: &'a mut dyn FnMut(u64, &mut [u8]),
    mode: Mode,
    levels: u32,
    left: usize,
    visit: &'a mut dyn FnMut(Page),
}

impl Walk<'_> {
    fn wide(&self) -> bool {
        !matches!(self.mode, Mode::Plain { .. })
    }

    fn table(&mut self, at: u64, level: u32, base: u64, rights: u64) -> Result<(), Truncated> {
        let mut raw = [0; 4096];
        let bits = if self.wide() { 9 } else { 10 };
        let shift = 12 + bits * (level - 1);
        let top_of_pae = self.mode == Mode::Pae && level == 3;
        let (entry_size, count) = match (self.wide(), top_of_pae) {
            (true, true) => (8, 4),
            (true, false) => (8, 512),
            (false, _) => (4, 1024),
        };
        (self.read)(at, &mut raw[..entry_size * count]);
        for (i, bytes) in raw[..entry_size * count].chunks_exact(entry_size).enumerate() {
            self.left = self.left.checked_sub(1).ok_or(Truncated)?;
            let mut le = [0; 8];
            le[..entry_size].copy_from_slice(bytes);
            let entry = u64::from_le_bytes(le);
            if entry & PRESENT == 0 {
                continue;
            }
            let addr = base + ((i as u64) << shift);
            // The four entries at the top of PAE tables carry no rights.
            let rights = if top_of_pae { rights } else { rights & entry };
            if level == 1 || (entry & LARGE != 0 && self.large_at(level)) {
                self.leaf(addr, entry, shift, rights);
            } else {
                let next = if self.wide() { entry & FRAME } else { entry & 0xFFFF_F000 };
                self.table(next, level - 1, addr, rights)?;
            }
        }
        Ok(())
    }

    fn large_at(&self, level: u32) -> bool {
        match self.mode {
            Mode::Plain { large } => large && level == 2,
            Mode::Pae => level == 2,
            Mode::Long => level == 2 || level == 3,
        }
    }

    fn leaf(&mut self, addr: u64, entry: u64, shift: u32, rights: u64) {
        let inside = (1u64 << shift) - 1;
        let frame = match self.mode {
            Mode::Plain { .. } if shift > 12 => (entry & 0xFFC0_0000) | (entry & 0x1F_E000) << 19,
            Mode::Plain { .. } | Mode::Pae => entry & !inside,
            Mode::Long => entry & FRAME & !inside,
        };
        let width = if self.mode == Mode::Long { 12 + 9 * self.levels } else { 32 };
        (self.visit)(Page { addr, size: 1 << shift, entry, frame, rights: rights & 6, width });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Memory with tables at 0x10000, 0x11000, ...
    struct Memory(Vec<u8>);

    impl Memory {
        fn new() -> Self {
            Self(vec![0; 0x20000])
        }
        fn set(&mut self, at: usize, value: u64, wide: bool) {
            let n = if wide { 8 } else { 4 };
            self.0[at..at + n].copy_from_slice(&value.to_le_bytes()[..n]);
        }
        fn pages(&self, regs: &CpuRegs) -> Result<Vec<(u64, u64, u64, u64)>, Truncated> {
            let mut read =
                |at: u64, buf: &mut [u8]| buf.copy_from_slice(&self.0[at as usize..at as usize + buf.len()]);
            let mut list = Vec::new();
            walk(&mut read, regs, &mut |p| list.push((p.shown(), p.frame, p.size, p.rights)))?;
            Ok(list)
        }
    }

    fn regs(cr3: u64, cr4: u64, efer: u64) -> CpuRegs {
        CpuRegs { cr: [0x8000_0001, 0, cr3, cr4, 0], efer, ..CpuRegs::default() }
    }

    #[test]
    fn plain_tables() {
        let mut m = Memory::new();
        m.set(0x10000, 0x11007, false);
        m.set(0x10004, 0x40_0087, false);
        m.set(0x10ffc, 0x80_0183, false);
        m.set(0x11014, 0x5001, false);
        let pages = m.pages(&regs(0x10000, 0x10, 0)).unwrap();
        let want = [
            (0x5000, 0x5000, 0x1000, 0),
            (0x40_0000, 0x40_0000, 0x40_0000, 6),
            (0xffc0_0000, 0x80_0000, 0x40_0000, 2),
        ];
        assert_eq!(pages, want);
    }

    #[test]
    fn pae_tables() {
        let mut m = Memory::new();
        m.set(0x10000, 0x11001, true);
        m.set(0x11008, 0x20_0087, true);
        m.set(0x11010, 0x8000_0000_0040_0183, true);
        let pages = m.pages(&regs(0x10000, 0x20, 0x800)).unwrap();
        let want = [(0x20_0000, 0x20_0000, 0x20_0000, 6), (0x40_0000, 0x8000_0000_0040_0000, 0x20_0000, 2)];
        assert_eq!(pages, want);
    }

    #[test]
    fn long_mode_tables() {
        let mut m = Memory::new();
        m.set(0x10ff8, 0x11003, true);
        m.set(0x11000, 0x12007, true);
        m.set(0x11008, 0x83, true);
        m.set(0x12000, 0x13007, true);
        m.set(0x13028, 0x8000_0000_0000_5005, true);
        let pages = m.pages(&regs(0x10000, 0x20, 0x500)).unwrap();
        let want = [(0xffff_ff80_0000_5000, 0x5000, 0x1000, 0), (0xffff_ff80_4000_0000, 0, 0x4000_0000, 2)];
        assert_eq!(pages, want);
    }

    #[test]
    fn tables_that_contain_themselves_end() {
        let mut m = Memory::new();
        for i in 0..512 {
            m.set(0x10000 + i * 8, 0x10003, true);
        }
        assert_eq!(m.pages(&regs(0x10000, 0x20, 0x500)), Err(Truncated));
    }
}
