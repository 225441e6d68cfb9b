//! The four integer operand sizes.

/// An unsigned integer of an operand size.
pub trait Int: Copy + Eq + 'static + std::fmt::Debug {
    /// Width in bits.
    const BITS: u32;
    /// Width in bytes.
    const BYTES: usize = (Self::BITS / 8) as usize;
    /// Truncates.
    fn from_u64(v: u64) -> Self;
    /// Zero-extends.
    fn to_u64(self) -> u64;
    /// Sign-extends.
    fn sext(self) -> u64;
    /// Atomic compare-exchange on guest memory: the value found.
    ///
    /// # Safety
    /// `p` must be valid host memory for the size; any alignment.
    unsafe fn cas(p: *mut u8, old: Self, new: Self) -> Self;
}

macro_rules! int {
    ($t:ty, $s:ty, $bits:expr, $asm:literal, $reg:ident, $acc:tt) => {
        impl Int for $t {
            const BITS: u32 = $bits;
            #[inline(always)]
            fn from_u64(v: u64) -> Self {
                v as $t
            }
            #[inline(always)]
            fn to_u64(self) -> u64 {
                self as u64
            }
            #[inline(always)]
            fn sext(self) -> u64 {
                self as $s as i64 as u64
            }
            #[cfg(target_arch = "x86_64")]
            #[inline(always)]
            unsafe fn cas(p: *mut u8, old: Self, new: Self) -> Self {
                let found: Self;
                // SAFETY: `p` is valid by the caller's promise; a misaligned `lock cmpxchg` is allowed on x86.
                unsafe {
                    std::arch::asm!($asm, p = in(reg) p, n = in($reg) new, inout($acc) old => found, options(nostack));
                }
                found
            }
            #[cfg(not(target_arch = "x86_64"))]
            unsafe fn cas(p: *mut u8, old: Self, new: Self) -> Self {
                let _g = crate::exec::mem::SPLIT_LOCK.lock();
                // SAFETY: by the caller's promise.
                unsafe {
                    let found = p.cast::<Self>().read_unaligned();
                    if found == old {
                        p.cast::<Self>().write_unaligned(new);
                    }
                    found
                }
            }
        }
    };
}
int!(u8, i8, 8, "lock cmpxchg byte ptr [{p}], {n}", reg_byte, "al");
int!(u16, i16, 16, "lock cmpxchg word ptr [{p}], {n:x}", reg, "ax");
int!(u32, i32, 32, "lock cmpxchg dword ptr [{p}], {n:e}", reg, "eax");
int!(u64, i64, 64, "lock cmpxchg qword ptr [{p}], {n:r}", reg, "rax");

/// Atomic 16-byte compare-exchange (`p` 16-byte aligned): the value found.
///
/// # Safety
/// `p` must be valid for 16 bytes and aligned.
pub unsafe fn cas128(p: *mut u8, old: u128, new: u128) -> u128 {
    #[cfg(target_arch = "x86_64")]
    {
        let (lo, hi): (u64, u64);
        // SAFETY: by the caller's promise. RBX cannot be named as an operand, hence the exchange; the others are named
        // so that the compiler does not choose RBX for them.
        unsafe {
            std::arch::asm!(
                "xchg rsi, rbx",
                "lock cmpxchg16b xmmword ptr [rdi]",
                "mov rbx, rsi",
                in("rdi") p,
                inout("rsi") new as u64 => _,
                in("rcx") (new >> 64) as u64,
                inout("rax") old as u64 => lo,
                inout("rdx") (old >> 64) as u64 => hi,
                options(nostack)
            );
        }
        (hi as u128) << 64 | lo as u128
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _g = crate::exec::mem::SPLIT_LOCK.lock();
        // SAFETY: by the caller's promise.
        unsafe {
            let found = p.cast::<u128>().read_unaligned();
            if found == old {
                p.cast::<u128>().write_unaligned(new);
            }
            found
        }
    }
}
