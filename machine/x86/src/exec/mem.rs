//! Memory operands: effective address, segment checks, TLB, reads and writes with precise faults.

use super::{Int, Op};
use crate::cpu::{mode, Cpu};
use crate::fault::{Exception, R};
use crate::state::{sreg, Ymm};
use crate::tlb::{TlbEntry, PAGE, PAGE_MASK};

/// Reads guest memory that other threads may be writing.
///
/// # Safety
/// `p` must be valid for the size of `T`.
#[inline(always)]
pub unsafe fn load<T: Copy>(p: *const u8) -> T {
    #[repr(C, packed)]
    #[derive(Clone, Copy)]
    struct Packed<T>(T);
    // SAFETY: valid by the caller's promise; the packed wrapper has alignment 1; volatile keeps it one access.
    unsafe { std::ptr::read_volatile(p.cast::<Packed<T>>()).0 }
}

/// Writes guest memory that other threads may be reading.
///
/// # Safety
/// `p` must be valid for the size of `T`.
#[inline(always)]
pub unsafe fn store<T: Copy>(p: *mut u8, v: T) {
    #[repr(C, packed)]
    #[derive(Clone, Copy)]
    struct Packed<T>(T);
    // SAFETY: as for `load`.
    unsafe { std::ptr::write_volatile(p.cast::<Packed<T>>(), Packed(v)) }
}

impl Cpu {
    /// Effective address of the memory operand before segmentation (what LEA computes), not yet masked to the
    /// address size.
    #[inline(always)]
    pub fn ea_raw(&self, op: &Op) -> u64 {
        self.reg::<u64>(op.base).wrapping_add(self.reg::<u64>(op.index) << op.scale).wrapping_add(op.disp)
    }

    /// Offset of the memory operand in its segment.
    #[inline(always)]
    pub fn ea(&self, op: &Op) -> u64 {
        let ea = self.ea_raw(op);
        if op.has(Op::A32) {
            ea as u32 as u64
        } else if op.has(Op::A16) {
            ea as u16 as u64
        } else {
            ea
        }
    }

    /// Linear address of the memory operand after the segment checks for a read of `size` bytes.
    #[inline(always)]
    pub fn lin_r(&mut self, op: &Op, size: usize) -> R<u64> {
        let ea = self.ea_raw(op);
        if op.has(Op::PLAIN) {
            Ok(ea)
        } else {
            self.lin_slow(op, ea, size, false)
        }
    }

    /// As [`Cpu::lin_r`] for a write.
    #[inline(always)]
    pub fn lin_w(&mut self, op: &Op, size: usize) -> R<u64> {
        let ea = self.ea_raw(op);
        if op.has(Op::PLAIN) {
            Ok(ea)
        } else {
            self.lin_slow(op, ea, size, true)
        }
    }

    #[inline(never)]
    fn lin_slow(&mut self, op: &Op, ea: u64, size: usize, write: bool) -> R<u64> {
        let ea = if op.has(Op::A32) {
            ea as u32 as u64
        } else if op.has(Op::A16) {
            ea as u16 as u64
        } else {
            ea
        };
        self.seg_lin(op.seg as usize, ea, size, write)
    }

    /// Linear address of `off` in segment `seg`, checked for an access of `size` bytes.
    pub fn seg_lin(&mut self, seg: usize, off: u64, size: usize, write: bool) -> R<u64> {
        if self.long_code {
            return Ok(if seg >= sreg::FS { self.segs[seg].base.wrapping_add(off) } else { off });
        }
        let last = off + size as u64 - 1;
        if self.mode & mode::FLAT != 0 && seg < sreg::FS && seg != sreg::CS && last <= 0xffff_ffff {
            return Ok(off);
        }
        let s = &self.segs[seg];
        let limit = s.limit as u64;
        let type_ok = if write { s.writable() } else { s.readable() };
        let in_limit = if s.expand_down() {
            off > limit && last <= if s.db() { 0xffff_ffff } else { 0xffff }
        } else {
            last <= limit
        };
        let base = s.base;
        if !self.protected() || self.vm86() {
            // Real-mode segments have no type; the limit still counts.
            if last <= limit || in_limit {
                return Ok(base.wrapping_add(off) as u32 as u64);
            }
        } else if s.present() && type_ok && in_limit {
            return Ok(base.wrapping_add(off) as u32 as u64);
        }
        let v = if seg == sreg::SS { Exception::SS } else { Exception::GP };
        self.raise(Exception::with(v, 0))
    }

    #[inline(always)]
    pub(crate) fn tlb_entry(&self, lin: u64) -> &TlbEntry {
        // SAFETY: `tlb` points at a table of `tlb::SIZE` entries owned by this CPU.
        unsafe { &*self.tlb.add((lin >> 12) as usize & (crate::tlb::SIZE - 1)) }
    }

    /// Host address for a read, if the TLB has it and the access does not cross a page.
    #[inline(always)]
    pub(crate) fn host_r(&self, lin: u64, size: usize) -> Option<*mut u8> {
        let e = self.tlb_entry(lin);
        if e.read == lin.wrapping_add(size as u64 - 1) & PAGE_MASK {
            Some(lin.wrapping_add(e.addend) as *mut u8)
        } else {
            None
        }
    }

    /// Host address for a write, likewise.
    #[inline(always)]
    pub(crate) fn host_w(&self, lin: u64, size: usize) -> Option<*mut u8> {
        let e = self.tlb_entry(lin);
        if e.write == lin.wrapping_add(size as u64 - 1) & PAGE_MASK {
            Some(lin.wrapping_add(e.addend) as *mut u8)
        } else {
            None
        }
    }

    /// Reads `T` at a linear address with the current privilege. `seg` only decides between #SS and #GP for
    /// non-canonical addresses.
    #[inline(always)]
    pub fn read_lin<T: Int>(&mut self, lin: u64, seg: u8) -> R<T> {
        match self.host_r(lin, T::BYTES) {
            // SAFETY: the TLB entry vouches for the page.
            Some(p) => Ok(unsafe { load(p) }),
            None => self.read_slow(lin, T::BYTES, seg).map(T::from_u64),
        }
    }

    /// Writes `T` at a linear address with the current privilege.
    #[inline(always)]
    pub fn write_lin<T: Int>(&mut self, lin: u64, v: T, seg: u8) -> R<()> {
        match self.host_w(lin, T::BYTES) {
            Some(p) => {
                // SAFETY: the TLB entry vouches for the page.
                unsafe { store(p, v) };
                Ok(())
            }
            None => self.write_slow(lin, T::BYTES, v.to_u64(), seg),
        }
    }

    /// Reads the memory operand.
    #[inline(always)]
    pub fn read<T: Int>(&mut self, op: &Op) -> R<T> {
        let lin = self.lin_r(op, T::BYTES)?;
        self.read_lin(lin, op.seg)
    }

    /// Writes the memory operand.
    #[inline(always)]
    pub fn write<T: Int>(&mut self, op: &Op, v: T) -> R<()> {
        let lin = self.lin_w(op, T::BYTES)?;
        self.write_lin(lin, v, op.seg)
    }

    /// Reads `N` bytes of the memory operand (any N up to 64... larger ones work too).
    #[inline(always)]
    pub fn read_bytes<const N: usize>(&mut self, op: &Op) -> R<[u8; N]> {
        let lin = self.lin_r(op, N)?;
        self.read_bytes_lin(lin, op.seg)
    }

    /// Reads `N` bytes at a linear address.
    #[inline(always)]
    pub fn read_bytes_lin<const N: usize>(&mut self, lin: u64, seg: u8) -> R<[u8; N]> {
        match self.host_r(lin, N) {
            // SAFETY: the TLB entry vouches for the page.
            Some(p) => Ok(unsafe { load(p) }),
            None => {
                let mut buf = [0u8; N];
                self.read_buf(lin, &mut buf, seg)?;
                Ok(buf)
            }
        }
    }

    /// Writes `N` bytes of the memory operand; nothing is written if any byte faults.
    #[inline(always)]
    pub fn write_bytes<const N: usize>(&mut self, op: &Op, v: [u8; N]) -> R<()> {
        let lin = self.lin_w(op, N)?;
        self.write_bytes_lin(lin, v, op.seg)
    }

    /// Writes `N` bytes at a linear address; nothing is written if any byte faults.
    #[inline(always)]
    pub fn write_bytes_lin<const N: usize>(&mut self, lin: u64, v: [u8; N], seg: u8) -> R<()> {
        match self.host_w(lin, N) {
            Some(p) => {
                // SAFETY: the TLB entry vouches for the page.
                unsafe { store(p, v) };
                Ok(())
            }
            None => self.write_buf(lin, &v, seg),
        }
    }

    /// 128-bit memory operand as lanes, any alignment.
    #[inline(always)]
    pub fn read128(&mut self, op: &Op) -> R<[u64; 2]> {
        let b = self.read_bytes::<16>(op)?;
        Ok(lanes2(b))
    }

    /// 128-bit memory operand that must be 16-byte aligned (legacy SSE): #GP(0) otherwise.
    #[inline(always)]
    pub fn read128_aligned(&mut self, op: &Op) -> R<[u64; 2]> {
        let lin = self.lin_r(op, 16)?;
        if lin & 15 != 0 {
            return self.gp(0);
        }
        Ok(lanes2(self.read_bytes_lin::<16>(lin, op.seg)?))
    }

    /// 256-bit memory operand, any alignment.
    #[inline(always)]
    pub fn read256(&mut self, op: &Op) -> R<Ymm> {
        let b = self.read_bytes::<32>(op)?;
        let mut y = Ymm::default();
        for (d, s) in y.0.iter_mut().zip(b.chunks_exact(8)) {
            *d = u64::from_le_bytes(s.try_into().unwrap_or_default());
        }
        Ok(y)
    }

    /// Writes 128 bits, any alignment.
    #[inline(always)]
    pub fn write128(&mut self, op: &Op, v: [u64; 2]) -> R<()> {
        self.write_bytes::<16>(op, (v[0] as u128 | (v[1] as u128) << 64).to_le_bytes())
    }

    /// Writes 128 bits that must be 16-byte aligned: #GP(0) otherwise.
    #[inline(always)]
    pub fn write128_aligned(&mut self, op: &Op, v: [u64; 2]) -> R<()> {
        let lin = self.lin_w(op, 16)?;
        if lin & 15 != 0 {
            return self.gp(0);
        }
        self.write_bytes_lin::<16>(lin, (v[0] as u128 | (v[1] as u128) << 64).to_le_bytes(), op.seg)
    }

    /// Writes 256 bits, any alignment.
    #[inline(always)]
    pub fn write256(&mut self, op: &Op, v: Ymm) -> R<()> {
        let mut b = [0u8; 32];
        for (d, s) in b.chunks_exact_mut(8).zip(v.0) {
            d.copy_from_slice(&s.to_le_bytes());
        }
        self.write_bytes::<32>(op, b)
    }

    /// Checks that `size` bytes at `lin` can be written (raises otherwise), so that later writes cannot fail.
    pub fn probe_w(&mut self, lin: u64, size: usize, seg: u8) -> R<()> {
        if self.host_w(lin, size).is_some() {
            return Ok(());
        }
        self.probe_write_slow(lin, size, seg)
    }

    /// Read-modify-write of the memory operand, not atomic: the write check comes first.
    #[inline(always)]
    pub fn rmw<T: Int>(&mut self, op: &Op, f: impl FnOnce(&mut Cpu, T) -> T) -> R<()> {
        let lin = self.lin_w(op, T::BYTES)?;
        if let Some(p) = self.host_w(lin, T::BYTES) {
            // SAFETY: the TLB entry vouches for the page.
            let v = unsafe { load(p) };
            let n = f(self, v);
            // SAFETY: as above.
            unsafe { store(p, n) };
            return Ok(());
        }
        self.probe_write_slow(lin, T::BYTES, op.seg)?;
        let v = T::from_u64(self.read_slow(lin, T::BYTES, op.seg)?);
        let n = f(self, v);
        self.write_slow(lin, T::BYTES, n.to_u64(), op.seg)
    }

    /// Atomic read-modify-write (LOCK prefix): `f` maps the old value to the new one and may be called several
    /// times; the old and new values that were exchanged are returned.
    #[inline(always)]
    pub fn rmw_lock<T: Int>(&mut self, op: &Op, f: impl Fn(T) -> T) -> R<(T, T)> {
        let lin = self.lin_w(op, T::BYTES)?;
        if let Some(p) = self.host_w(lin, T::BYTES) {
            // SAFETY: the TLB entry vouches for the page.
            return Ok(unsafe { rmw_host(p, f) });
        }
        self.probe_write_slow(lin, T::BYTES, op.seg)?;
        if let Some(p) = self.ram_ptr_slow(lin, T::BYTES) {
            // SAFETY: `ram_ptr_slow` only returns RAM of this page.
            return Ok(unsafe { rmw_host(p, f) });
        }
        // Page-crossing or device memory: no atomicity beyond this CPU.
        let old = T::from_u64(self.read_slow(lin, T::BYTES, op.seg)?);
        let new = f(old);
        self.write_slow(lin, T::BYTES, new.to_u64(), op.seg)?;
        Ok((old, new))
    }
}

/// # Safety
/// `p` valid for `T`.
#[inline(always)]
unsafe fn rmw_host<T: Int>(p: *mut u8, f: impl Fn(T) -> T) -> (T, T) {
    // SAFETY: by the caller's promise.
    unsafe {
        let mut old: T = load(p);
        loop {
            let new = f(old);
            let found = T::cas(p, old, new);
            if found == old {
                return (old, new);
            }
            old = found;
        }
    }
}

#[inline(always)]
fn lanes2(b: [u8; 16]) -> [u64; 2] {
    let v = u128::from_le_bytes(b);
    [v as u64, (v >> 64) as u64]
}

// The page size is part of the tag arithmetic above.
const _: () = assert!(PAGE == 4096);
