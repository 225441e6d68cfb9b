//! Which host pages hold decoded code, shared by all CPUs of a guest; this is how self- and cross-modifying code
//! and DMA into code are noticed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use crate::bus::{Request, RunControl};

/// Code state of one 4 KiB page of guest RAM.
#[derive(Default)]
pub struct PageCode {
    /// Bumped by every write that hits code; blocks remember the value they were decoded at.
    pub version: AtomicU32,
    /// Bit i: bytes 64*i..64*i+63 were decoded.
    pub granules: AtomicU64,
}

const CHUNK: usize = 512;
type Chunk = [PageCode; CHUNK];

/// The map from host pages to [`PageCode`], and the CPUs to tell.
#[derive(Default)]
pub struct CodeMap {
    chunks: RwLock<HashMap<usize, Box<Chunk>>>,
    cpus: Mutex<Vec<Arc<RunControl>>>,
}

/// Granule bits for `len` bytes at page offset `off`.
pub fn granules(off: usize, len: usize) -> u64 {
    let first = (off & 4095) >> 6;
    let last = ((off & 4095) + len.max(1) - 1).min(4095) >> 6;
    let n = last - first + 1;
    if n >= 64 {
        u64::MAX
    } else {
        ((1u64 << n) - 1) << first
    }
}

impl CodeMap {
    /// Registers a CPU's control word, to be told when a page gets its first code.
    pub fn register(&self, ctl: Arc<RunControl>) {
        if let Ok(mut c) = self.cpus.lock() {
            c.push(ctl);
        }
    }

    /// The state of the page at host address `host`. Lives as long as the map.
    pub fn page(&self, host: *const u8) -> Option<&PageCode> {
        let n = host as usize >> 12;
        let map = self.chunks.read().ok()?;
        let chunk: *const Chunk = &**map.get(&(n / CHUNK))?;
        // SAFETY: chunks are boxed and never removed, so the reference outlives the lock guard but not `self`.
        Some(unsafe { &(*chunk)[n % CHUNK] })
    }

    /// As [`CodeMap::page`], made if it does not exist.
    pub fn page_or_new(&self, host: *const u8) -> &PageCode {
        loop {
            if let Some(p) = self.page(host) {
                return p;
            }
            let n = host as usize >> 12;
            let mut map = self.chunks.write().unwrap_or_else(|e| e.into_inner());
            map.entry(n / CHUNK).or_insert_with(|| Box::new(std::array::from_fn(|_| PageCode::default())));
        }
    }

    /// Tells the other CPUs that some page has code now.
    pub fn announce(&self, own: &RunControl) {
        self.tell(Some(own), Request::FLUSH_WRITES);
    }

    fn tell(&self, own: Option<&RunControl>, bits: u32) {
        if let Ok(cpus) = self.cpus.lock() {
            for c in cpus.iter().filter(|c| !own.is_some_and(|o| std::ptr::eq(&***c, o))) {
                c.request(bits);
            }
        }
    }

    /// To be called after device DMA (or anything else that is not a CPU) wrote `len` bytes at host address `host`.
    pub fn note_write(&self, host: *const u8, len: usize) {
        if len == 0 {
            return;
        }
        let start = host as usize;
        let mut page = start & !4095;
        while page < start + len {
            if let Some(p) = self.page(page as *const u8) {
                let from = start.max(page);
                let to = (start + len).min(page + 4096);
                self.hit(p, from & 4095, to - from, None);
            }
            page += 4096;
        }
    }

    /// Invalidates all code (a reset wrote firmware anew).
    pub fn forget_all(&self) {
        let map = self.chunks.read().unwrap_or_else(|e| e.into_inner());
        for p in map.values().flat_map(|c| c.iter()) {
            self.hit(p, 0, 4096, None);
        }
    }

    /// Invalidates a page's code if the bytes overlap it; true if so.
    pub fn hit(&self, p: &PageCode, off: usize, len: usize, own: Option<&RunControl>) -> bool {
        if p.granules.load(Ordering::SeqCst) & granules(off, len) == 0 {
            return false;
        }
        p.version.fetch_add(1, Ordering::SeqCst);
        p.granules.store(0, Ordering::SeqCst);
        self.tell(own, Request::CODE_CHANGED);
        true
    }
}
