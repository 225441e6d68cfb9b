//! Page walks, TLB fills and the slow paths of memory accesses.

use crate::bus::{Bus, Page};
use crate::cpu::Cpu;
use crate::exec::mem::{load, store};
use crate::fault::{Exception, R};
use crate::state::{cr0, cr4, efer, rflags, sreg};
use crate::tlb::{flag, TlbEntry, ALIGNED, INVALID, PAGE, PAGE_MASK, SLOW};

/// What an access wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Data read.
    Read,
    /// Data write.
    Write,
    /// Instruction fetch.
    Exec,
}

/// Result of a walk.
#[derive(Clone, Copy, Debug)]
pub struct Mapping {
    /// Physical page address.
    pub phys: u64,
    /// Writable at the walk's privilege, and the dirty bit is set.
    pub write: bool,
    /// G bit.
    pub global: bool,
    /// Part of a large page.
    pub large: bool,
}

const P: u64 = 1;
const W: u64 = 2;
const U: u64 = 4;
const A: u64 = 0x20;
const D: u64 = 0x40;
const PS: u64 = 0x80;
const G: u64 = 0x100;
const NX: u64 = 1 << 63;
const ADDR: u64 = 0x000f_ffff_ffff_f000;

impl Cpu {
    /// Whether a 64-bit linear address is canonical (48 bits).
    #[inline(always)]
    pub fn canonical(lin: u64) -> bool {
        ((lin << 16) as i64 >> 16) as u64 == lin
    }

    /// Looks up a physical page through the small cache.
    pub(crate) fn phys_page(&mut self, addr: u64, write: bool) -> Page {
        let addr = addr & PAGE_MASK & self.bus().a20_mask();
        let i = (addr >> 12) as usize & 63;
        let key = addr | (write as u64) << 1;
        if let (k, Some(p)) = self.pages[i] {
            if k == key {
                return p;
            }
        }
        let p = self.bus().page(addr, write);
        self.pages[i] = (key, Some(p));
        p
    }

    /// Reads physical memory (page tables, SMRAM); `addr` must not cross a page for `N` bytes.
    pub(crate) fn phys_read<const N: usize>(&mut self, addr: u64) -> [u8; N] {
        match self.phys_page(addr, false) {
            // SAFETY: the page is RAM and the access stays inside it (callers pass aligned addresses).
            Page::Ram(h) | Page::Rom(h) => unsafe { load(h.add((addr & (PAGE - 1)) as usize)) },
            Page::Mmio => {
                let a = addr & self.bus().a20_mask();
                let v = self.bus().mmio_read(a, N as u8).to_le_bytes();
                let mut o = [0; N];
                o.copy_from_slice(&v[..N]);
                o
            }
        }
    }

    /// Writes physical memory, likewise.
    pub(crate) fn phys_write<const N: usize>(&mut self, addr: u64, v: [u8; N]) {
        match self.phys_page(addr, true) {
            // SAFETY: as in `phys_read`.
            Page::Ram(h) => unsafe { store(h.add((addr & (PAGE - 1)) as usize), v) },
            Page::Rom(_) | Page::Mmio => {
                let mut b = [0; 8];
                b[..N].copy_from_slice(&v);
                self.bus().mmio_write(addr & self.bus().a20_mask(), N as u8, u64::from_le_bytes(b));
            }
        }
    }

    fn entry(&mut self, addr: u64, wide: bool) -> u64 {
        if wide {
            u64::from_le_bytes(self.phys_read::<8>(addr))
        } else {
            u32::from_le_bytes(self.phys_read::<4>(addr)) as u64
        }
    }

    /// Sets accessed/dirty bits unless the entry changed meanwhile (then the walk is repeated).
    fn set_bits(&mut self, addr: u64, wide: bool, old: u64, bits: u64) -> bool {
        let Page::Ram(h) = self.phys_page(addr, true) else {
            return true;
        };
        let p = h.wrapping_add((addr & (PAGE - 1)) as usize);
        use crate::exec::Int;
        // SAFETY: a page table entry is naturally aligned inside a RAM page.
        unsafe {
            if wide {
                u64::cas(p, old, old | bits) == old
            } else {
                u32::cas(p, old as u32, (old | bits) as u32) == old as u32
            }
        }
    }

    /// Translates `lin` for `access` as user or supervisor; `Err` holds the page-fault error code.
    pub fn walk(&mut self, lin: u64, access: Access, user: bool) -> Result<Mapping, u32> {
        if self.cr0 & cr0::PG == 0 {
            return Ok(Mapping { phys: lin & PAGE_MASK, write: true, global: false, large: false });
        }
        loop {
            if let Some(r) = self.walk_once(lin, access, user) {
                return r;
            }
        }
    }

    fn walk_once(&mut self, lin: u64, access: Access, user: bool) -> Option<Result<Mapping, u32>> {
        let pae = self.cr4 & cr4::PAE != 0;
        let long = self.lma();
        let nxe = self.efer & efer::NXE != 0 && pae;
        let reserved = if pae {
            // The ignored bits of long mode are reserved without it.
            (ADDR & !self.model.phys_mask()) | if nxe { 0 } else { NX } | if long { 0 } else { 0x7ff << 52 }
        } else {
            0
        };
        let base_err = ((access == Access::Write) as u32) << 1
            | (user as u32) << 2
            | if access == Access::Exec && (nxe || self.cr4 & cr4::SMEP != 0) { 16 } else { 0 };
        let (mut level, mut table) = if long {
            (4, self.cr3 & ADDR)
        } else if pae {
            (3, self.cr3 & 0xffff_ffe0)
        } else {
            (2, self.cr3 & 0xffff_f000)
        };
        let bits = if pae { 9 } else { 10 };
        let mut perm = W | U;
        let mut nx = 0;
        let mut path = [(0u64, 0u64); 4];
        let mut depth = 0;
        let (pte, shift, large) = loop {
            let shift = 12 + bits * (level - 1);
            let idx = lin >> shift & ((1 << bits) - 1);
            let idx = if level == 3 && !long { idx & 3 } else { idx };
            let addr = table + idx * if pae { 8 } else { 4 };
            let e = self.entry(addr, pae);
            if e & P == 0 {
                return Some(Err(base_err));
            }
            if level == 3 && !long {
                // A PDPTE of PAE paging has no permission bits.
                if e & (reserved | NX | 0x1e6) != 0 {
                    return Some(Err(base_err | 9));
                }
                table = e & ADDR;
                level = 2;
                continue;
            }
            if e & reserved != 0 {
                return Some(Err(base_err | 9));
            }
            perm &= e;
            nx |= e & NX;
            path[depth] = (addr, e);
            depth += 1;
            if level == 1 {
                break (e, shift, false);
            }
            let ps = e & PS != 0 && (level == 2 || level == 3) && (pae || self.cr4 & cr4::PSE != 0);
            if ps {
                let low = if pae { ((1u64 << shift) - 1) & !0x1fff & ADDR } else { 1 << 21 };
                if e & low != 0 || (level == 3 && !self.model.has_1g_pages()) {
                    return Some(Err(base_err | 9));
                }
                break (e, shift, true);
            }
            if level == 4 && e & PS != 0 {
                return Some(Err(base_err | 9));
            }
            table = e & if pae { ADDR } else { 0xffff_f000 };
            level -= 1;
        };
        let wp = self.cr0 & cr0::WP != 0;
        let user_page = perm & U != 0;
        let writable = perm & W != 0 || (!user && !wp);
        let denied = match access {
            Access::Exec => {
                (nxe && nx != 0) || (user && !user_page) || (!user && user_page && self.cr4 & cr4::SMEP != 0)
            }
            _ => {
                (user && !user_page)
                    || (access == Access::Write && !writable)
                    || (!user && user_page && self.cr4 & cr4::SMAP != 0 && self.smap_enforced())
            }
        };
        if denied {
            return Some(Err(base_err | 1));
        }
        for (i, &(addr, e)) in path[..depth].iter().enumerate() {
            let want = if i + 1 == depth && access == Access::Write { A | D } else { A };
            if e & want != want && !self.set_bits(addr, pae, e, want) {
                return None;
            }
        }
        let mask = (1u64 << shift) - 1;
        let frame = if !pae && large {
            // PSE-36: bits 13..=20 are physical bits 32..=39.
            (pte & 0xffc0_0000) | (pte >> 13 & 0xff) << 32
        } else {
            pte & ADDR & !mask
        };
        let phys = (frame | (lin & mask)) & PAGE_MASK;
        let dirty = access == Access::Write || pte & D != 0;
        Some(Ok(Mapping {
            phys,
            write: writable && dirty,
            global: pte & G != 0 && self.cr4 & cr4::PGE != 0,
            large,
        }))
    }

    /// SMAP applies: not an explicit access with AC set.
    fn smap_enforced(&self) -> bool {
        self.rf & rflags::AC == 0 || self.cpl == 3
    }

    #[cold]
    fn page_fault<T>(&mut self, lin: u64, code: u32) -> R<T> {
        self.cr2 = lin;
        self.raise(Exception::with(Exception::PF, code))
    }

    #[cold]
    fn non_canonical<T>(&mut self, seg: u8) -> R<T> {
        let v = if seg as usize == sreg::SS { Exception::SS } else { Exception::GP };
        self.raise(Exception::with(v, 0))
    }

    /// Makes sure the TLB has `lin` for `access` (Read or Write) and returns a copy of the entry.
    fn entry_for(&mut self, lin: u64, access: Access, seg: u8) -> R<TlbEntry> {
        let page = lin & PAGE_MASK;
        let e = *self.tlb_entry(lin);
        let tag = if access == Access::Write { e.write } else { e.read };
        if tag & !SLOW == page {
            return Ok(e);
        }
        if self.lma() && !Self::canonical(lin) {
            return self.non_canonical(seg);
        }
        let t = self.tlb_index();
        let m = match self.walk(lin, access, t == 1 || t == ALIGNED) {
            Ok(m) => m,
            Err(code) => return self.page_fault(lin, code),
        };
        if self.assisting && self.bus().elsewhere(m.phys) {
            return self.raise(Exception::new(Exception::LEAVE));
        }
        // A page that is only read so far must not be marked dirty by a write mapping.
        let mut e = self.make_entry(page, m, access == Access::Write || m.write);
        let watched = self.page_watched(page);
        if watched {
            e.phys |= flag::WATCH;
        }
        if watched || t == ALIGNED {
            // An invalid tag stays one.
            e.read |= SLOW;
            e.write |= SLOW;
        }
        self.xlat.fill(t, page, e);
        Ok(e)
    }

    fn make_entry(&mut self, page: u64, m: Mapping, write: bool) -> TlbEntry {
        let mut phys = m.phys;
        if m.global {
            phys |= flag::GLOBAL;
        }
        if m.large {
            phys |= flag::LARGE;
        }
        let slow_w = if m.write { page | SLOW } else { INVALID };
        match self.phys_page(m.phys, write) {
            Page::Ram(h) => {
                let code = self
                    .code
                    .page(h)
                    .is_some_and(|p| p.granules.load(std::sync::atomic::Ordering::SeqCst) != 0);
                let w = match (write && m.write, code) {
                    (false, _) => INVALID,
                    (true, true) => {
                        phys |= flag::CODE;
                        slow_w
                    }
                    (true, false) => page,
                };
                TlbEntry { read: page, write: w, addend: (h as u64).wrapping_sub(page), phys }
            }
            Page::Rom(h) => TlbEntry {
                read: page,
                write: slow_w,
                addend: (h as u64).wrapping_sub(page),
                phys: phys | flag::ROM,
            },
            Page::Mmio => TlbEntry { read: page | SLOW, write: slow_w, addend: 0, phys: phys | flag::IO },
        }
    }

    /// Splits an access at the page boundary: (bytes in the first page).
    fn split(lin: u64, size: usize) -> usize {
        size.min((PAGE - (lin & (PAGE - 1))) as usize)
    }

    fn next_page(&self, lin: u64, n: usize) -> u64 {
        let l = lin.wrapping_add(n as u64);
        if self.long_code || self.lma() {
            l
        } else {
            l as u32 as u64
        }
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn read_slow(&mut self, lin: u64, size: usize, seg: u8) -> R<u64> {
        self.check_alignment(lin, size)?;
        self.read_parts(lin, size, seg)
    }

    fn read_parts(&mut self, lin: u64, size: usize, seg: u8) -> R<u64> {
        let n = Self::split(lin, size);
        if n == size {
            let e = self.entry_for(lin, Access::Read, seg)?;
            self.check_watch(&e, lin, size, false)?;
            let phys = e.phys & PAGE_MASK | lin & (PAGE - 1);
            if e.phys & flag::IO != 0 {
                return Ok(self.mmio_r(phys, size));
            }
            let p = lin.wrapping_add(e.addend) as *const u8;
            // SAFETY: the entry vouches for the page and the access stays inside it.
            return Ok(unsafe {
                match size {
                    1 => load::<u8>(p) as u64,
                    2 => load::<u16>(p) as u64,
                    4 => load::<u32>(p) as u64,
                    8 => load::<u64>(p),
                    _ => {
                        let mut b = [0u8; 8];
                        for (i, b) in b.iter_mut().enumerate().take(size) {
                            *b = load(p.add(i));
                        }
                        u64::from_le_bytes(b)
                    }
                }
            });
        }
        let second = self.next_page(lin, n);
        if self.lma() && !Self::canonical(second) {
            return self.non_canonical(seg);
        }
        let lo = self.read_parts(lin, n, seg)?;
        let hi = self.read_parts(second, size - n, seg)?;
        Ok(lo | hi << (8 * n))
    }

    fn mmio_r(&mut self, phys: u64, size: usize) -> u64 {
        let phys = phys & self.bus().a20_mask();
        if matches!(size, 1 | 2 | 4 | 8) {
            self.bus().mmio_read(phys, size as u8)
        } else {
            (0..size)
                .map(|i| (self.bus().mmio_read(phys + i as u64, 1) & 0xff) << (8 * i))
                .fold(0, |a, b| a | b)
        }
    }

    fn mmio_w(&mut self, phys: u64, size: usize, v: u64) {
        let phys = phys & self.bus().a20_mask();
        if matches!(size, 1 | 2 | 4 | 8) {
            self.bus().mmio_write(phys, size as u8, v);
        } else {
            for i in 0..size {
                self.bus().mmio_write(phys + i as u64, 1, v >> (8 * i) & 0xff);
            }
        }
        self.device_written();
    }

    /// A device was written to: it may have moved memory (flash does with every command).
    #[inline]
    pub(crate) fn device_written(&mut self) {
        if self.bus().map_changed() {
            self.flush_tlb_all();
        }
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn write_slow(&mut self, lin: u64, size: usize, v: u64, seg: u8) -> R<()> {
        self.check_alignment(lin, size)?;
        self.write_parts(lin, size, v, seg)
    }

    fn write_parts(&mut self, lin: u64, size: usize, v: u64, seg: u8) -> R<()> {
        let n = Self::split(lin, size);
        if n < size {
            let second = self.next_page(lin, n);
            // Both pages are checked before either is written.
            self.probe_parts(lin, size, seg)?;
            self.write_parts(lin, n, v, seg)?;
            return self.write_parts(second, size - n, v >> (8 * n), seg);
        }
        let e = self.entry_for(lin, Access::Write, seg)?;
        self.check_watch(&e, lin, size, true)?;
        if e.phys & (flag::IO | flag::ROM) != 0 {
            self.mmio_w(e.phys & PAGE_MASK | lin & (PAGE - 1), size, v);
            return Ok(());
        }
        if e.write & SLOW != 0 {
            self.code_write(lin, e, size)?;
        }
        let p = lin.wrapping_add(e.addend) as *mut u8;
        // SAFETY: the entry vouches for the page and the access stays inside it.
        unsafe {
            match size {
                1 => store(p, v as u8),
                2 => store(p, v as u16),
                4 => store(p, v as u32),
                8 => store(p, v),
                _ => {
                    for (i, b) in v.to_le_bytes().iter().enumerate().take(size) {
                        store(p.add(i), *b);
                    }
                }
            }
        }
        Ok(())
    }

    /// A write goes to a page with code: invalidates what it overlaps; aborts with RETRY if that is the running block.
    fn code_write(&mut self, lin: u64, e: TlbEntry, size: usize) -> R<()> {
        let host = (lin & PAGE_MASK).wrapping_add(e.addend);
        let Some(p) = self.code.clone().page(host as *const u8).map(|p| p as *const crate::code::PageCode)
        else {
            return Ok(());
        };
        // SAFETY: pages of the map live as long as the map, which `self.code` holds.
        let p = unsafe { &*p };
        if p.granules.load(std::sync::atomic::Ordering::SeqCst) & crate::code::granules(lin as usize, size)
            != 0
        {
            if !self.stepping && self.in_current_block(host + (lin & (PAGE - 1)), size) {
                return self.raise(Exception::new(Exception::RETRY));
            }
            let ctl = self.ctl.clone();
            self.code.hit(p, lin as usize & 4095, size, Some(&ctl));
            self.bump();
        }
        if p.granules.load(std::sync::atomic::Ordering::SeqCst) == 0 {
            // No code left: the fast path again.
            let t = self.tlb_index();
            let i = crate::tlb::Tlb::index(lin);
            let slot = &mut self.xlat.data[t][i];
            if t != ALIGNED && slot.phys & flag::WATCH == 0 && slot.write == (lin & PAGE_MASK) | SLOW {
                slot.write = lin & PAGE_MASK;
                slot.phys &= !flag::CODE;
            }
        }
        Ok(())
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn probe_write_slow(&mut self, lin: u64, size: usize, seg: u8) -> R<()> {
        self.check_alignment(lin, size)?;
        self.probe_parts(lin, size, seg)
    }

    fn probe_parts(&mut self, lin: u64, size: usize, seg: u8) -> R<()> {
        let n = Self::split(lin, size);
        if n < size {
            let second = self.next_page(lin, n);
            if self.lma() && !Self::canonical(second) {
                return self.non_canonical(seg);
            }
            self.probe_parts(lin, n, seg)?;
            return self.probe_parts(second, size - n, seg);
        }
        let e = self.entry_for(lin, Access::Write, seg)?;
        self.check_watch(&e, lin, size, true)?;
        if e.phys & (flag::IO | flag::ROM) == 0 && e.write & SLOW != 0 {
            let host = lin.wrapping_add(e.addend);
            if !self.stepping && self.in_current_block(host, size) {
                return self.raise(Exception::new(Exception::RETRY));
            }
        }
        Ok(())
    }

    /// After `probe_write_slow`: the host address if the bytes are RAM in one page (invalidating code there).
    pub(crate) fn ram_ptr_slow(&mut self, lin: u64, size: usize) -> Option<*mut u8> {
        if Self::split(lin, size) < size {
            return None;
        }
        let e = self.entry_for(lin, Access::Write, sreg::DS as u8).ok()?;
        // (A data breakpoint was noted by the probe.)
        if e.phys & (flag::IO | flag::ROM) != 0 {
            return None;
        }
        if e.write & SLOW != 0 {
            self.code_write(lin, e, size).ok()?;
        }
        Some(lin.wrapping_add(e.addend) as *mut u8)
    }

    /// Host address and number of contiguous bytes (within the page, at most `len`) for a bulk read at `lin`;
    /// `None` for device memory.
    pub(crate) fn bulk_r(&mut self, lin: u64, len: usize, seg: u8) -> R<Option<(*const u8, usize)>> {
        let e = self.entry_for(lin, Access::Read, seg)?;
        if e.phys & (flag::IO | flag::WATCH) != 0 || self.tlb_index() == ALIGNED {
            return Ok(None);
        }
        Ok(Some((lin.wrapping_add(e.addend) as *const u8, Self::split(lin, len))))
    }

    /// Likewise for a bulk write; code there is invalidated.
    pub(crate) fn bulk_w(&mut self, lin: u64, len: usize, seg: u8) -> R<Option<(*mut u8, usize)>> {
        let e = self.entry_for(lin, Access::Write, seg)?;
        if e.phys & (flag::IO | flag::ROM | flag::WATCH) != 0 || self.tlb_index() == ALIGNED {
            return Ok(None);
        }
        let n = Self::split(lin, len);
        if e.write & SLOW != 0 {
            self.code_write(lin, e, n)?;
        }
        Ok(Some((lin.wrapping_add(e.addend) as *mut u8, n)))
    }

    /// Reads any number of bytes at a linear address.
    pub fn read_buf(&mut self, lin: u64, buf: &mut [u8], seg: u8) -> R<()> {
        let mut at = 0;
        while at < buf.len() {
            let l = self.next_page(lin, at);
            let want = buf.len() - at;
            match self.bulk_r(l, want, seg)? {
                Some((p, n)) => {
                    for (i, b) in buf[at..at + n].iter_mut().enumerate() {
                        // SAFETY: `bulk_r` vouches for `n` bytes.
                        *b = unsafe { load(p.add(i)) };
                    }
                    at += n;
                }
                None => {
                    let n = want.min(8).min(Self::split(l, 8));
                    let n = if n == 8 { 8 } else { 1 };
                    let v = self.read_slow(l, n, seg)?;
                    buf[at..at + n].copy_from_slice(&v.to_le_bytes()[..n]);
                    at += n;
                }
            }
        }
        Ok(())
    }

    /// Writes any number of bytes at a linear address; checks all before writing.
    pub fn write_buf(&mut self, lin: u64, buf: &[u8], seg: u8) -> R<()> {
        let mut at = 0;
        while at < buf.len() {
            let l = self.next_page(lin, at);
            let n = Self::split(l, buf.len() - at);
            self.probe_write_slow(l, n, seg)?;
            at += n;
        }
        at = 0;
        while at < buf.len() {
            let l = self.next_page(lin, at);
            let want = buf.len() - at;
            match self.bulk_w(l, want, seg)? {
                Some((p, n)) => {
                    for (i, b) in buf[at..at + n].iter().enumerate() {
                        // SAFETY: `bulk_w` vouches for `n` bytes.
                        unsafe { store(p.add(i), *b) };
                    }
                    at += n;
                }
                None => {
                    let n = want.min(Self::split(l, 8));
                    let n = if n == 8 { 8 } else { 1 };
                    let mut v = [0u8; 8];
                    v[..n].copy_from_slice(&buf[at..at + n]);
                    self.write_slow(l, n, u64::from_le_bytes(v), seg)?;
                    at += n;
                }
            }
        }
        Ok(())
    }

    /// Runs `f` with supervisor rights (descriptor tables, TSS, stacks of inner rings).
    pub(crate) fn as_supervisor<T>(&mut self, f: impl FnOnce(&mut Self) -> T) -> T {
        let saved = (self.cpl, self.rf);
        self.cpl = 0;
        self.rf &= !rflags::AC;
        self.update_tlb_table();
        let r = f(self);
        self.cpl = saved.0;
        self.rf = (self.rf & !rflags::AC) | (saved.1 & rflags::AC);
        self.update_tlb_table();
        r
    }

    /// Host page for instruction fetch at `lin` (null host: device memory).
    /// Third: 1 if the page is global, else 0.
    pub(crate) fn fetch_page(&mut self, lin: u64) -> R<(*mut u8, u64, u8)> {
        let user = self.cpl == 3;
        if let Some(e) = self.xlat.lookup_fetch(lin, user) {
            return Ok((e.host, e.phys & PAGE_MASK, (e.phys & flag::GLOBAL != 0) as u8));
        }
        if self.lma() && !Self::canonical(lin) {
            return self.non_canonical(sreg::CS as u8);
        }
        let m = match self.walk(lin, Access::Exec, user) {
            Ok(m) => m,
            Err(code) => return self.page_fault(lin, code),
        };
        let host = match self.phys_page(m.phys, false) {
            Page::Ram(h) | Page::Rom(h) => h,
            Page::Mmio => std::ptr::null_mut(),
        };
        let fl = if m.global { flag::GLOBAL } else { 0 } | if m.large { flag::LARGE } else { 0 };
        self.xlat.fill_fetch(lin, user, host, m.phys | fl);
        Ok((host, m.phys, m.global as u8))
    }
}

#[allow(unused)]
fn assert_object_safe(_: &dyn Bus) {}
