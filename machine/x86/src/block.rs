//! Decoded blocks: storage, lookup by host page + RIP + mode, revalidation, invalidation.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::cpu::{mode, Cpu};
use crate::exec::decode::{decode_block, Decoded};
use crate::exec::Op;
use crate::fault::R;
use crate::state::sreg;
use crate::tlb::PAGE;

/// Most operations of one block.
pub const MAX_OPS: usize = 48;
const JUMP: usize = 8192;
/// Most bytes of decoded code of one processor, unless the embedder says otherwise.
const DEFAULT_LIMIT: usize = 192 << 20;

/// A decoded block. Never moves; dropped only with the whole cache.
pub struct Block {
    /// Linear address of the first instruction.
    pub lin: u64,
    /// RIP of the first instruction.
    pub rip: u64,
    /// First operation.
    pub ops: *const Op,
    /// Host address of the first byte.
    pub host: *const u8,
    /// Host page of the second part, if the (only) instruction crosses a page.
    pub host2: *const u8,
    pub mode: u32,
    /// Number of instructions.
    pub count: u16,
    /// Bytes.
    pub len: u16,
    ver: u32,
    ver2: u32,
    /// Of the bytes, while helping another engine out; else 0.
    sum: u64,
    verp: *const AtomicU32,
    verp2: *const AtomicU32,
    /// Value of `Cpu::gens` for which the translation of `lin` was last checked.
    pub gen: Cell<u64>,
    /// Which of `Cpu::gens` counts: 1 if the page is global, that is, survives a load of CR3.
    pub class: Cell<u8>,
    /// Blocks at the direct target and the fall-through.
    pub chain: [Cell<*const Block>; 2],
}

impl Block {
    /// The code has not been overwritten since it was decoded.
    #[inline(always)]
    pub fn fresh(&self) -> bool {
        // SAFETY: version words live as long as the code map, which the CPU holds.
        unsafe {
            (*self.verp).load(Ordering::Relaxed) == self.ver
                && (*self.verp2).load(Ordering::Relaxed) == self.ver2
        }
    }
}

/// Storage and indexes.
pub struct BlockCache {
    jump: Box<[*const Block; JUMP]>,
    table: Vec<Vec<*const Block>>,
    // Boxed: handlers, chains and indexes hold addresses of blocks.
    #[allow(clippy::vec_box)]
    blocks: Vec<Box<Block>>,
    arenas: Vec<Vec<Op>>,
    bytes: usize,
    /// Decoded code beyond this many bytes: everything is dropped and decoded anew.
    limit: usize,
    /// The block of `step`.
    pub(crate) single: Option<Box<(Block, [Op; 2])>>,
}

const TABLE: usize = 1 << 16;

impl Default for BlockCache {
    fn default() -> Self {
        Self {
            jump: Box::new([std::ptr::null(); JUMP]),
            table: Vec::new(),
            blocks: Vec::new(),
            arenas: Vec::new(),
            bytes: 0,
            limit: DEFAULT_LIMIT,
            single: None,
        }
    }
}

#[inline(always)]
fn jump_slot(lin: u64) -> usize {
    (lin ^ lin >> 13) as usize & (JUMP - 1)
}

fn table_slot(host: u64, rip: u64) -> usize {
    ((host ^ host >> 17 ^ rip >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48) as usize & (TABLE - 1)
}

static ALWAYS: AtomicU32 = AtomicU32::new(0);

impl BlockCache {
    fn clear(&mut self) {
        self.jump.fill(std::ptr::null());
        self.table.clear();
        self.blocks.clear();
        self.arenas.clear();
        self.bytes = 0;
    }

    /// Number of blocks held.
    pub fn count(&self) -> usize {
        self.blocks.len()
    }

    fn store_ops(&mut self, ops: &[Op]) -> *const Op {
        const CHUNK: usize = 4096;
        let room = self.arenas.last().map_or(0, |a| a.capacity() - a.len());
        if room < ops.len() {
            self.arenas.push(Vec::with_capacity(CHUNK.max(ops.len())));
        }
        match self.arenas.last_mut() {
            Some(a) => {
                let at = a.len();
                a.extend_from_slice(ops);
                self.bytes += size_of_val(ops);
                a[at..].as_ptr()
            }
            None => std::ptr::null(),
        }
    }
}

impl Cpu {
    /// Linear address of the next instruction.
    #[inline(always)]
    pub(crate) fn fetch_lin(&self) -> u64 {
        if self.long_code {
            self.rip
        } else {
            (self.segs[sreg::CS].base.wrapping_add(self.rip)) & 0xffff_ffff
        }
    }

    /// Follows the chain slot of the current block, or looks the target up and links it.
    #[inline(always)]
    pub(crate) fn chained(&mut self, slot: usize) -> R<*const Block> {
        // SAFETY: `blk` is the current block, alive until the cache is cleared (which resets `blk`'s chain too).
        let n = unsafe { (*self.blk).chain[slot].get() };
        if !n.is_null() {
            // SAFETY: chained blocks are dropped together.
            let nb = unsafe { &*n };
            if nb.gen.get() == self.gens[nb.class.get() as usize & 1] {
                return Ok(n);
            }
        }
        let from = self.blk;
        // SAFETY: as above.
        let scratch = unsafe { (*from).gen.get() == 0 };
        let epoch = self.cache.blocks.len();
        let n = self.find_block()?;
        // SAFETY: `n` was just found. The scratch block (generation 0) neither links nor is linked to, and if the
        // cache was not cleared (its size did not shrink) `from` is alive.
        unsafe {
            if !scratch && self.cache.blocks.len() >= epoch && (*n).gen.get() != 0 {
                (*from).chain[slot].set(n);
            }
        }
        Ok(n)
    }

    /// The block at RIP if the jump cache has it.
    #[inline(always)]
    pub(crate) fn cached_block(&self) -> Option<*const Block> {
        let lin = self.fetch_lin();
        let b = self.cache.jump[jump_slot(lin)];
        if !b.is_null() {
            // SAFETY: the jump table only holds live blocks.
            let r = unsafe { &*b };
            if r.lin == lin
                && r.rip == self.rip
                && r.mode == self.mode
                && r.gen.get() == self.gens[r.class.get() as usize & 1]
            {
                return Some(b);
            }
        }
        None
    }

    /// The block at RIP in the current mode.
    #[inline(always)]
    pub(crate) fn find_block(&mut self) -> R<*const Block> {
        let lin = self.fetch_lin();
        let b = self.cache.jump[jump_slot(lin)];
        if !b.is_null() {
            // SAFETY: the jump table only holds live blocks.
            let r = unsafe { &*b };
            if r.lin == lin
                && r.rip == self.rip
                && r.mode == self.mode
                && r.gen.get() == self.gens[r.class.get() as usize & 1]
                && r.fresh()
            {
                return Ok(b);
            }
        }
        self.find_block_slow(lin)
    }

    #[inline(never)]
    fn find_block_slow(&mut self, lin: u64) -> R<*const Block> {
        if !self.long_code {
            let limit = self.segs[sreg::CS].limit as u64;
            if self.rip > limit {
                return self.gp(0);
            }
        }
        let (host, _, class) = self.fetch_page(lin)?;
        if host.is_null() {
            return self.decode_single();
        }
        // The usual case after a TLB flush: the block is right, its translation only has to be checked again.
        let b = self.cache.jump[jump_slot(lin)];
        if !b.is_null() {
            // SAFETY: the jump table only holds live blocks.
            let r = unsafe { &*b };
            let here = host.wrapping_add((lin & (PAGE - 1)) as usize) as *const u8;
            if r.lin == lin
                && r.rip == self.rip
                && r.mode == self.mode
                && r.host == here
                && r.host2.is_null()
                && r.fresh()
                && self.unchanged(r)
            {
                r.class.set(class);
                r.gen.set(self.gens[class as usize]);
                return Ok(b);
            }
        }
        let host = host.wrapping_add((lin & (PAGE - 1)) as usize) as *const u8;
        if self.cache.table.is_empty() {
            self.cache.table = vec![Vec::new(); TABLE];
        }
        let slot = table_slot(host as u64, self.rip);
        let mut i = 0;
        while i < self.cache.table[slot].len() {
            let b = self.cache.table[slot][i];
            // SAFETY: the table only holds live blocks.
            let r = unsafe { &*b };
            if !r.fresh() {
                self.cache.table[slot].swap_remove(i);
                continue;
            }
            if r.host == host && r.rip == self.rip && r.lin == lin && r.mode == self.mode {
                if !self.unchanged(r) {
                    self.cache.table[slot].swap_remove(i);
                    continue;
                }
                let mut class = class;
                if !r.host2.is_null() {
                    let (h2, _, c2) = self.fetch_page(self.lin_add(lin, r.len as u64 - 1))?;
                    class &= c2;
                    if !std::ptr::eq(h2, r.host2) {
                        i += 1;
                        continue;
                    }
                }
                r.class.set(class);
                r.gen.set(self.gens[class as usize]);
                self.cache.jump[jump_slot(lin)] = b;
                return Ok(b);
            }
            i += 1;
        }
        self.make_block(lin, host, slot, class)
    }

    /// While another engine may write as well: the bytes are those that were decoded.
    #[inline(always)]
    fn unchanged(&self, b: &Block) -> bool {
        !self.assisting || sum_of(b.host, b.host2, b.lin, b.len) == b.sum
    }

    pub(crate) fn lin_add(&self, lin: u64, n: u64) -> u64 {
        let l = lin.wrapping_add(n);
        if self.long_code {
            l
        } else {
            l & 0xffff_ffff
        }
    }

    fn make_block(&mut self, lin: u64, host: *const u8, slot: usize, class: u8) -> R<*const Block> {
        if self.cache.bytes + self.cache.blocks.len() * size_of::<Block>() > self.cache.limit {
            self.cache.clear();
            self.cache.table = vec![Vec::new(); TABLE];
        }
        let code = self.code.clone();
        let page = code.page_or_new(host);
        loop {
            let ver = page.version.load(Ordering::SeqCst);
            let in_page = (PAGE - (lin & (PAGE - 1))) as usize;
            let mut buf = [0u8; MAX_OPS * 15];
            let n = in_page.min(buf.len());
            copy_guest(host, &mut buf[..n]);
            let most = if self.mode & mode::SINGLE != 0 { 1 } else { MAX_OPS };
            let d = match decode_block(self, &buf[..n], most) {
                Decoded::Ops(d) => d,
                // The first instruction runs over the page's end.
                Decoded::Short => return self.crossing_block(lin, host, n, slot, class),
                Decoded::Bad(e) => return self.raise(e),
            };
            let bits = crate::code::granules(lin as usize, d.len);
            if page.granules.fetch_or(bits, Ordering::SeqCst) == 0 {
                self.xlat.protect(host as u64 & !(PAGE - 1));
                code.announce(&self.ctl);
            }
            let mut again = [0u8; MAX_OPS * 15];
            copy_guest(host, &mut again[..d.len]);
            if again[..d.len] != buf[..d.len] || page.version.load(Ordering::SeqCst) != ver {
                continue;
            }
            let ops = self.cache.store_ops(&d.ops);
            return Ok(self.install(
                Block {
                    lin,
                    rip: self.rip,
                    ops,
                    host,
                    host2: std::ptr::null(),
                    mode: self.mode,
                    count: d.count,
                    len: d.len as u16,
                    ver,
                    ver2: 0,
                    sum: 0,
                    verp: &page.version,
                    verp2: &ALWAYS,
                    gen: Cell::new(self.gens[class as usize]),
                    class: Cell::new(class),
                    chain: Default::default(),
                },
                slot,
            ));
        }
    }

    fn crossing_block(
        &mut self,
        lin: u64,
        host: *const u8,
        first: usize,
        slot: usize,
        class: u8,
    ) -> R<*const Block> {
        let second = self.lin_add(lin, first as u64);
        let (h2, _, c2) = self.fetch_page(second)?;
        let class = class & c2;
        if h2.is_null() {
            return self.decode_single();
        }
        let code = self.code.clone();
        let (p1, p2) = (code.page_or_new(host), code.page_or_new(h2));
        loop {
            let (ver, ver2) = (p1.version.load(Ordering::SeqCst), p2.version.load(Ordering::SeqCst));
            let mut buf = [0u8; 15];
            copy_guest(host, &mut buf[..first]);
            copy_guest(h2, &mut buf[first..]);
            let d = match decode_block(self, &buf, 1) {
                Decoded::Ops(d) => d,
                Decoded::Short => return self.gp(0),
                Decoded::Bad(e) => return self.raise(e),
            };
            let a = p1.granules.fetch_or(crate::code::granules(lin as usize, first), Ordering::SeqCst);
            let rest = d.len.saturating_sub(first).max(1);
            let b = p2.granules.fetch_or(crate::code::granules(0, rest), Ordering::SeqCst);
            if a == 0 {
                self.xlat.protect(host as u64 & !(PAGE - 1));
            }
            if b == 0 {
                self.xlat.protect(h2 as u64);
            }
            if a == 0 || b == 0 {
                code.announce(&self.ctl);
            }
            let mut again = [0u8; 15];
            copy_guest(host, &mut again[..first]);
            copy_guest(h2, &mut again[first..]);
            if again != buf
                || p1.version.load(Ordering::SeqCst) != ver
                || p2.version.load(Ordering::SeqCst) != ver2
            {
                continue;
            }
            let ops = self.cache.store_ops(&d.ops);
            return Ok(self.install(
                Block {
                    lin,
                    rip: self.rip,
                    ops,
                    host,
                    host2: h2,
                    mode: self.mode,
                    count: d.count,
                    len: d.len as u16,
                    ver,
                    ver2,
                    sum: 0,
                    verp: &p1.version,
                    verp2: &p2.version,
                    gen: Cell::new(self.gens[class as usize]),
                    class: Cell::new(class),
                    chain: Default::default(),
                },
                slot,
            ));
        }
    }

    fn install(&mut self, mut b: Block, slot: usize) -> *const Block {
        let lin = b.lin;
        if self.assisting {
            b.sum = sum_of(b.host, b.host2, lin, b.len);
        }
        let b = Box::new(b);
        let p: *const Block = &*b;
        self.cache.blocks.push(b);
        self.cache.table[slot].push(p);
        self.cache.jump[jump_slot(lin)] = p;
        p
    }

    /// Decodes just the instruction at RIP into the scratch block (not cached): single step, device memory, and
    /// instructions that rewrite their own block.
    pub(crate) fn decode_single(&mut self) -> R<*const Block> {
        if !self.long_code && self.rip > self.segs[sreg::CS].limit as u64 {
            return self.gp(0);
        }
        let lin = self.fetch_lin();
        let mut buf = [0u8; 15];
        let mut have = 0;
        let d = loop {
            // Bytes are fetched only as far as the instruction goes: the next page may be absent.
            let l = self.lin_add(lin, have as u64);
            let (host, phys, _) = self.fetch_page(l)?;
            let n = (15 - have).min((PAGE - (l & (PAGE - 1))) as usize);
            if host.is_null() {
                for i in 0..n {
                    let a = (phys | (l & (PAGE - 1))) + i as u64;
                    buf[have + i] = self.bus().mmio_read(a & self.bus().a20_mask(), 1) as u8;
                }
            } else {
                copy_guest(host.wrapping_add((l & (PAGE - 1)) as usize), &mut buf[have..have + n]);
            }
            have += n;
            match decode_block(self, &buf[..have], 1) {
                Decoded::Ops(d) => break d,
                Decoded::Short if have < 15 => continue,
                Decoded::Short => return self.gp(0),
                Decoded::Bad(e) => return self.raise(e),
            }
        };
        let block = Block {
            lin,
            rip: self.rip,
            ops: std::ptr::null(),
            host: std::ptr::null(),
            host2: std::ptr::null(),
            mode: self.mode,
            count: 1,
            len: d.len as u16,
            // Never fresh: not to be chained to.
            ver: 1,
            ver2: 0,
            sum: 0,
            verp: &ALWAYS,
            verp2: &ALWAYS,
            gen: Cell::new(0),
            class: Cell::new(0),
            chain: Default::default(),
        };
        let second = *d.ops.get(1).unwrap_or(&d.ops[0]);
        let mut s = Box::new((block, [d.ops[0], second]));
        s.0.ops = s.1.as_ptr();
        let p: *const Block = &s.0;
        self.cache.single = Some(s);
        Ok(p)
    }

    /// Whether `size` bytes at host address `host` overlap the running block.
    pub(crate) fn in_current_block(&self, host: u64, size: usize) -> bool {
        if self.blk.is_null() {
            return false;
        }
        // SAFETY: `blk` is the current block.
        let b = unsafe { &*self.blk };
        let start = b.host as u64;
        let first = if b.host2.is_null() { b.len as u64 } else { PAGE - (start & (PAGE - 1)) };
        let overlaps = |s: u64, l: u64| host < s + l && s < host + size as u64;
        (start != 0 && overlaps(start, first))
            || (!b.host2.is_null() && overlaps(b.host2 as u64, b.len as u64 - first))
    }

    /// The bytes at RIP as far as they can be fetched, for messages. Inside [`Cpu::run`] only.
    pub fn code_bytes(&self) -> Vec<u8> {
        let lin = self.fetch_lin();
        let Some(e) = self.xlat.lookup_fetch(lin, self.cpl == 3) else {
            return Vec::new();
        };
        let n = (PAGE - (lin & (PAGE - 1))).min(15) as usize;
        let mut b = vec![0; n];
        if !e.host.is_null() {
            copy_guest(e.host.wrapping_add((lin & (PAGE - 1)) as usize), &mut b);
        }
        b
    }

    /// Keeps at most about `bytes` of decoded code.
    pub fn set_code_limit(&mut self, bytes: usize) {
        self.cache.limit = bytes;
    }

    /// Drops all decoded code (the mode of decoding changed, e.g. the CPU model).
    pub fn flush_code(&mut self) {
        self.cache.clear();
        self.blk = std::ptr::null();
    }
}

/// Checksum of a block's bytes: `len` at `host`, those past the page's end at `host2`.
fn sum_of(host: *const u8, host2: *const u8, lin: u64, len: u16) -> u64 {
    let len = usize::from(len);
    let first = if host2.is_null() { len } else { len.min((PAGE - (lin & (PAGE - 1))) as usize) };
    let mut sum = len as u64;
    let mut add = |p: *const u8, n: usize| {
        let mix = |sum: u64, w: u64| (sum ^ w).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        let mut at = 0;
        while at + 8 <= n {
            // SAFETY: the caller's pages are guest RAM, and the bytes lie within them.
            sum = mix(sum, unsafe { crate::exec::mem::load::<u64>(p.wrapping_add(at)) });
            at += 8;
        }
        while at < n {
            // SAFETY: as above.
            sum = mix(sum, u64::from(unsafe { crate::exec::mem::load::<u8>(p.wrapping_add(at)) }));
            at += 1;
        }
    };
    add(host, first);
    if first < len {
        add(host2, len - first);
    }
    sum
}

fn copy_guest(p: *const u8, buf: &mut [u8]) {
    for (i, b) in buf.iter_mut().enumerate() {
        // SAFETY: callers pass pages of guest RAM and stay inside them.
        *b = unsafe { crate::exec::mem::load(p.wrapping_add(i)) };
    }
}
