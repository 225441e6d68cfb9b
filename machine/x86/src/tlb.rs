//! The software TLB: data entries with host addresses, instruction-fetch entries, and their invalidation.
//!
//! A load of CR3 drops only what was filled since the last one (the fill lists), so its cost is bounded by the fills.

/// Page size in bytes.
pub const PAGE: u64 = 4096;
/// Mask of the page number.
pub const PAGE_MASK: u64 = !(PAGE - 1);
/// Entries of one data table.
pub const SIZE: usize = 1024;
/// Entries of the fetch table.
pub const FETCH: usize = 256;
/// A tag that matches no address.
pub const INVALID: u64 = 1;
/// Tag bit: mapped with this permission, but every access takes the slow path.
pub const SLOW: u64 = 2;

/// Flags in the low bits of [`TlbEntry::phys`].
pub mod flag {
    #![allow(missing_docs)]
    pub const IO: u64 = 1;
    pub const ROM: u64 = 2;
    pub const CODE: u64 = 4;
    pub const GLOBAL: u64 = 8;
    pub const LARGE: u64 = 16;
    /// A data breakpoint lies in the page: every access takes the slow path.
    pub const WATCH: u64 = 32;
}

/// One data entry. Tags hold the page's linear address when the access is allowed and plain RAM.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct TlbEntry {
    pub read: u64,
    pub write: u64,
    /// Host address minus linear address.
    pub addend: u64,
    /// Physical page and [`flag`]s.
    pub phys: u64,
}

const EMPTY: TlbEntry = TlbEntry { read: INVALID, write: INVALID, addend: 0, phys: 0 };

/// One fetch entry.
#[derive(Clone, Copy)]
pub struct FetchEntry {
    /// Linear page, bit 0 = user, bit 1 = invalid.
    pub tag: u64,
    /// Host address of the page, null for device memory.
    pub host: *mut u8,
    /// Physical page and [`flag`]s.
    pub phys: u64,
}

const FETCH_EMPTY: FetchEntry = FetchEntry { tag: 2, host: std::ptr::null_mut(), phys: 0 };

/// Which data table: supervisor, user, supervisor with access to user pages (SMAP and AC), user with alignment checks.
pub const TABLES: usize = 4;
/// Index of the table for accesses that must be aligned: all its entries take the slow path.
pub const ALIGNED: usize = 3;

/// All translations of a CPU.
pub struct Tlb {
    pub data: Box<[[TlbEntry; SIZE]; TABLES]>,
    pub fetch: Box<[FetchEntry; FETCH]>,
    local: Vec<(u8, u16)>,
    global: Vec<(u8, u16)>,
    /// Bloom of `lin >> 30` for which large pages were filled.
    large: u64,
}

impl Default for Tlb {
    fn default() -> Self {
        Self {
            data: Box::new([[EMPTY; SIZE]; TABLES]),
            fetch: Box::new([FETCH_EMPTY; FETCH]),
            local: Vec::new(),
            global: Vec::new(),
            large: 0,
        }
    }
}

impl Tlb {
    /// Index of `lin` in a data table.
    pub fn index(lin: u64) -> usize {
        (lin >> 12) as usize & (SIZE - 1)
    }

    /// Installs a data entry.
    pub fn fill(&mut self, table: usize, lin: u64, e: TlbEntry) {
        let i = Self::index(lin);
        if e.phys & flag::LARGE != 0 {
            self.large |= 1 << (lin >> 30 & 63);
        }
        self.data[table][i] = e;
        let list = if e.phys & flag::GLOBAL != 0 { &mut self.global } else { &mut self.local };
        list.push((table as u8, i as u16));
        if list.len() > 2 * TABLES * SIZE {
            self.flush_all();
        }
    }

    /// Installs a fetch entry.
    pub fn fill_fetch(&mut self, lin: u64, user: bool, host: *mut u8, phys: u64) {
        if phys & flag::LARGE != 0 {
            self.large |= 1 << (lin >> 30 & 63);
        }
        let i = (lin >> 12) as usize & (FETCH - 1);
        self.fetch[i] = FetchEntry { tag: (lin & super::tlb::PAGE_MASK) | user as u64, host, phys };
    }

    /// The fetch entry for `lin`.
    #[inline(always)]
    pub fn lookup_fetch(&self, lin: u64, user: bool) -> Option<&FetchEntry> {
        let e = &self.fetch[(lin >> 12) as usize & (FETCH - 1)];
        (e.tag == (lin & PAGE_MASK) | user as u64).then_some(e)
    }

    /// Drops everything that is not global.
    pub fn flush_local(&mut self) {
        for &(t, i) in &self.local {
            let e = &mut self.data[t as usize][i as usize];
            if e.phys & flag::GLOBAL == 0 {
                *e = EMPTY;
            }
        }
        self.local.clear();
        for e in self.fetch.iter_mut() {
            if e.phys & flag::GLOBAL == 0 {
                *e = FETCH_EMPTY;
            }
        }
    }

    /// Drops everything.
    pub fn flush_all(&mut self) {
        if self.local.len() + self.global.len() > SIZE {
            for t in self.data.iter_mut() {
                t.fill(EMPTY);
            }
        } else {
            for &(t, i) in self.local.iter().chain(&self.global) {
                self.data[t as usize][i as usize] = EMPTY;
            }
        }
        self.local.clear();
        self.global.clear();
        self.fetch.fill(FETCH_EMPTY);
        self.large = 0;
    }

    /// Drops the page of `lin`, global or not; large pages whole.
    pub fn flush_page(&mut self, lin: u64) {
        let page = lin & PAGE_MASK;
        let i = Self::index(lin);
        for t in self.data.iter_mut() {
            let e = &mut t[i];
            if (e.read & PAGE_MASK) == page || (e.write & PAGE_MASK) == page {
                *e = EMPTY;
            }
        }
        let f = &mut self.fetch[(lin >> 12) as usize & (FETCH - 1)];
        if f.tag & PAGE_MASK == page {
            *f = FETCH_EMPTY;
        }
        if self.large & 1 << (lin >> 30 & 63) != 0 {
            for e in self.data.iter_mut().flatten() {
                if e.phys & flag::LARGE != 0 && (e.read ^ lin) >> 30 == 0 {
                    *e = EMPTY;
                }
            }
            for e in self.fetch.iter_mut() {
                if e.phys & flag::LARGE != 0 && (e.tag ^ lin) >> 30 == 0 {
                    *e = FETCH_EMPTY;
                }
            }
        }
    }

    /// Sends writes to the page at host address `host` down the slow path.
    pub fn protect(&mut self, host: u64) {
        self.protect_if(|h| h == host);
    }

    /// Likewise for every page that has code by now.
    pub fn protect_coded(&mut self, code: &crate::code::CodeMap) {
        use std::sync::atomic::Ordering::SeqCst;
        self.protect_if(|h| code.page(h as *const u8).is_some_and(|p| p.granules.load(SeqCst) != 0));
    }

    fn protect_if(&mut self, f: impl Fn(u64) -> bool) {
        for e in self.data.iter_mut().flatten() {
            let page = e.write & PAGE_MASK;
            if e.write & (INVALID | SLOW) == 0 && f(page.wrapping_add(e.addend)) {
                e.write = page | SLOW;
                e.phys |= flag::CODE;
            }
        }
    }
}
