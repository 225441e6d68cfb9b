//! Scatter/gather lists of guest memory.
//!
//! A [`Seg`] is a bare pointer and length. The guest may write the memory behind it at any time, so it is never
//! turned into a Rust reference; the kernel copies to and from it, and the few places here that touch it (zero
//! fill, bounce buffers) use raw copies.

use crate::error::Errno;

/// One piece of memory of a request.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Seg(pub(crate) libc::iovec);

// SAFETY: a `Seg` is an address, not an ownership; the contract of `Seg::new` makes the memory valid from any thread
// until the request completes.
unsafe impl Send for Seg {}
// SAFETY: as above; `&Seg` gives out only the address.
unsafe impl Sync for Seg {}

impl Seg {
    /// Describes `len` bytes at `ptr`.
    ///
    /// # Safety
    /// The memory must stay mapped, readable and (for reads) writable until the request that carries this segment
    /// has completed: [`crate::Submitted::Done`] was returned or the sink was called. No Rust reference to it may be
    /// used meanwhile. Guest RAM qualifies as long as its mapping is kept alive.
    pub unsafe fn new(ptr: *mut u8, len: usize) -> Seg {
        Seg(libc::iovec { iov_base: ptr.cast(), iov_len: len })
    }

    /// Bytes described.
    pub fn len(&self) -> usize {
        self.0.iov_len
    }

    /// True if it describes no bytes.
    pub fn is_empty(&self) -> bool {
        self.0.iov_len == 0
    }

    pub(crate) fn ptr(&self) -> *mut u8 {
        self.0.iov_base.cast()
    }
}

/// A borrowed scatter/gather list.
pub type Iov<'a> = &'a [Seg];

/// Total bytes; `None` if the sum overflows.
pub(crate) fn total(iov: Iov<'_>) -> Option<usize> {
    iov.iter().try_fold(0usize, |a, s| a.checked_add(s.len()))
}

/// The part `[from, from+len)` of a list, as a list of its own. The caller has checked the bounds.
pub(crate) fn slice(iov: Iov<'_>, mut from: usize, mut len: usize) -> Vec<Seg> {
    let mut out = Vec::with_capacity(iov.len().min(8));
    for s in iov {
        if len == 0 {
            break;
        }
        if from >= s.len() {
            from -= s.len();
            continue;
        }
        let n = (s.len() - from).min(len);
        // SAFETY: inside the segment that the caller vouched for.
        out.push(unsafe { Seg::new(s.ptr().add(from), n) });
        from = 0;
        len -= n;
    }
    out
}

/// Fills `[from, from+len)` with zeroes.
pub(crate) fn zero(iov: Iov<'_>, from: usize, len: usize) {
    for_each(iov, from, len, |p, n, _| {
        // SAFETY: `for_each` hands out pieces inside the segments, which are valid for writes by `Seg::new`.
        unsafe { std::ptr::write_bytes(p, 0, n) }
    });
}

/// Copies `src` into the list at byte `from`.
pub(crate) fn scatter(iov: Iov<'_>, from: usize, src: &[u8]) {
    for_each(iov, from, src.len(), |p, n, at| {
        // SAFETY: valid piece as above; `src` is ours, so it does not overlap guest memory.
        unsafe { std::ptr::copy_nonoverlapping(src[at..at + n].as_ptr(), p, n) }
    });
}

/// Copies from the list at byte `from` into `dst`.
pub(crate) fn gather(iov: Iov<'_>, from: usize, dst: &mut [u8]) {
    let len = dst.len();
    for_each(iov, from, len, |p, n, at| {
        // SAFETY: valid piece as above; `dst` is ours, so it does not overlap guest memory.
        unsafe { std::ptr::copy_nonoverlapping(p, dst[at..at + n].as_mut_ptr(), n) }
    });
}

/// True if every byte is zero (checked on a copy, since the guest may change the memory).
pub(crate) fn is_zero(iov: Iov<'_>) -> bool {
    let mut buf = [0u8; 4096];
    let mut at = 0;
    let len = total(iov).unwrap_or(0);
    while at < len {
        let n = (len - at).min(buf.len());
        gather(iov, at, &mut buf[..n]);
        if buf[..n].iter().any(|b| *b != 0) {
            return false;
        }
        at += n;
    }
    len > 0
}

fn for_each(iov: Iov<'_>, mut from: usize, mut len: usize, mut f: impl FnMut(*mut u8, usize, usize)) {
    let mut at = 0;
    for s in iov {
        if len == 0 {
            return;
        }
        if from >= s.len() {
            from -= s.len();
            continue;
        }
        let n = (s.len() - from).min(len);
        // SAFETY: `from < s.len()`, so the address is inside the segment.
        f(unsafe { s.ptr().add(from) }, n, at);
        from = 0;
        len -= n;
        at += n;
    }
}

/// A segment over our own buffer, for the blocking calls.
pub(crate) fn own(buf: &mut [u8]) -> Seg {
    // SAFETY: used only by blocking calls, which return before the borrow ends.
    unsafe { Seg::new(buf.as_mut_ptr(), buf.len()) }
}

/// A read-only segment over our own buffer; used for writes only.
pub(crate) fn own_ro(buf: &[u8]) -> Seg {
    // SAFETY: used only as the source of blocking writes, which do not modify it.
    unsafe { Seg::new(buf.as_ptr().cast_mut(), buf.len()) }
}

/// Repeats a vectored transfer until all of `iov` is done. `f(iov, done)` returns bytes moved; 0 ends the loop.
/// Returns the bytes moved in all.
pub(crate) fn drive(
    iov: Iov<'_>,
    mut f: impl FnMut(Iov<'_>, u64) -> Result<usize, Errno>,
) -> Result<usize, Errno> {
    let len = total(iov).ok_or(Errno::EINVAL)?;
    let mut done = 0usize;
    let mut part: Vec<Seg>;
    let mut cur: Iov<'_> = iov;
    while done < len {
        let n = f(&cur[..cur.len().min(libc::UIO_MAXIOV as usize)], done as u64)?;
        if n == 0 {
            break;
        }
        done += n;
        if done < len {
            part = slice(iov, done, len - done);
            cur = &part;
        }
    }
    Ok(done)
}
