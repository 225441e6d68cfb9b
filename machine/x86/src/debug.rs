//! Debug registers: what the breakpoints match, and alignment checks (both make data accesses take the slow path).

use crate::cpu::Cpu;
use crate::fault::{Exception, R};
use crate::tlb::{flag, TlbEntry, ALIGNED, PAGE, PAGE_MASK};

/// What a breakpoint waits for (R/W field of DR7).
mod kind {
    pub const EXECUTE: u64 = 0;
    pub const WRITE: u64 = 1;
    pub const IO: u64 = 2;
    pub const ACCESS: u64 = 3;
}

impl Cpu {
    /// The enabled breakpoints: number, kind, address, length.
    fn breakpoints(&self) -> impl Iterator<Item = (usize, u64, u64, u64)> {
        let (dr, dr7) = ([self.dr[0], self.dr[1], self.dr[2], self.dr[3]], self.dr[7]);
        dr.into_iter().enumerate().filter_map(move |(i, at)| {
            // I/O breakpoints work without CR4.DE too (their kind is undefined then), as on QEMU.
            let kind = dr7 >> (16 + 4 * i) & 3;
            if dr7 >> (2 * i) & 3 == 0 {
                return None;
            }
            let len = [1, 2, 8, 4][(dr7 >> (18 + 4 * i) & 3) as usize];
            Some((i, kind, at & !(len - 1), len))
        })
    }

    /// Instructions must be looked at one by one.
    #[inline]
    pub(crate) fn breaks_on_code(&self) -> bool {
        self.dr[7] & 0xff != 0 && self.breakpoints().any(|b| b.1 == kind::EXECUTE)
    }

    /// A breakpoint at the next instruction; notes it in DR6.
    pub(crate) fn code_breakpoint(&mut self) -> bool {
        if self.dr[7] & 0xff == 0 {
            return false;
        }
        let lin = self.fetch_lin();
        let hits = self.breakpoints().filter(|b| b.1 == kind::EXECUTE && self.dr[b.0] == lin);
        let hits = hits.fold(0, |m, b| m | 1 << b.0);
        self.dr[6] |= hits;
        hits != 0
    }

    /// Whether a data breakpoint or a debugger's watchpoint lies in the page at `page`.
    pub(crate) fn page_watched(&self, page: u64) -> bool {
        let data = |k| matches!(k, kind::WRITE | kind::ACCESS);
        self.dr[7] & 0xff != 0 && self.breakpoints().any(|(_, k, at, _)| data(k) && at & PAGE_MASK == page)
            || self.watched_page(page)
    }

    /// Before a data access through `e` (inside one page): notes the breakpoints that it hits, for the trap after the
    /// instruction. An instruction inside a block is tried again alone, so that the block ends after it.
    #[inline]
    pub(crate) fn check_watch(&mut self, e: &TlbEntry, lin: u64, size: usize, write: bool) -> R<()> {
        if e.phys & flag::WATCH == 0 {
            return Ok(());
        }
        debug_assert!(size as u64 <= PAGE);
        let hits = self.breakpoints().filter(|&(_, k, at, len)| {
            (k == kind::ACCESS || k == kind::WRITE && write) && lin < at + len && at < lin + size as u64
        });
        let hits = hits.fold(0, |m, b| m | 1 << b.0);
        if hits != 0 && !self.stepping && !self.blk.is_null() {
            return self.raise(Exception::new(Exception::RETRY));
        }
        self.watch_hits |= hits;
        self.note_watched(lin, size, write)
    }

    /// Notes the I/O breakpoints that an access to `port` hits.
    pub(crate) fn note_io(&mut self, port: u16, size: u8) {
        let (from, to) = (u64::from(port), u64::from(port) + u64::from(size));
        let hits = self.breakpoints().filter(|&(_, k, at, len)| k == kind::IO && from < at + len && at < to);
        self.watch_hits |= hits.fold(0, |m, b| m | 1 << b.0);
    }

    /// #AC(0) for an unaligned access where alignment is checked.
    #[inline]
    pub(crate) fn check_alignment(&mut self, lin: u64, size: usize) -> R<()> {
        if self.tlb_index() == ALIGNED && size.is_power_of_two() && lin & (size as u64 - 1) != 0 {
            return self.raise(Exception::with(Exception::AC, 0));
        }
        Ok(())
    }
}
