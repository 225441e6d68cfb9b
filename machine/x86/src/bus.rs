//! What the CPU needs from the machine.

use std::sync::atomic::{AtomicU32, Ordering};

/// What is behind one 4 KiB page of guest-physical memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// RAM: host address of the page (4 KiB aligned). Must stay valid until the embedder has asked for
    /// [`Request::FLUSH_TLB`] on every CPU and each has acknowledged by returning to its run loop.
    Ram(*mut u8),
    /// Readable and executable in place; writes go to [`Bus::mmio_write`].
    Rom(*mut u8),
    /// Everything goes to [`Bus::mmio_read`] and [`Bus::mmio_write`].
    Mmio,
}

/// The machine as a CPU sees it. Shared by all CPUs of a guest, hence `Sync`.
///
/// Addresses are guest-physical, A20 already applied by the CPU (see [`Bus::a20_mask`]).
pub trait Bus: Sync {
    /// Resolves the page at `addr` (4 KiB aligned). `write` is true when the CPU will write it without telling
    /// again: the place to mark it dirty.
    fn page(&self, addr: u64, write: bool) -> Page;
    /// Reads 1, 2, 4 or 8 bytes of device memory, zero-extended.
    fn mmio_read(&self, addr: u64, size: u8) -> u64;
    /// Writes 1, 2, 4 or 8 bytes of device memory.
    fn mmio_write(&self, addr: u64, size: u8, value: u64);
    /// Reads 1, 2 or 4 bytes from a port.
    fn port_in(&self, port: u16, size: u8) -> u32;
    /// Writes 1, 2 or 4 bytes to a port.
    fn port_out(&self, port: u16, size: u8, value: u32);
    /// Interrupt acknowledge: the vector to deliver to CPU `cpu` now, if one is still pending (after
    /// [`Request::INTR`], with interrupts enabled).
    fn take_interrupt(&self, cpu: u32) -> Option<u8>;
    /// Whether the page at `addr` belongs to another engine that has to execute whatever accesses it; looked at only
    /// while the CPU helps one out ([`crate::Cpu::assist`]).
    fn elsewhere(&self, _addr: u64) -> bool {
        false
    }
    /// Likewise for ports.
    fn port_elsewhere(&self, _port: u16) -> bool {
        false
    }
    /// AND-mask for physical addresses; all ones when A20 is enabled.
    fn a20_mask(&self) -> u64 {
        u64::MAX
    }
    /// Time stamp counter (before the guest's own offset).
    fn tsc(&self) -> u64;
    /// A model-specific register that the CPU does not keep itself (APIC base, x2APIC, TSC deadline, ...). `None`
    /// raises #GP.
    fn msr_read(&self, _cpu: u32, _index: u32) -> Option<u64> {
        None
    }
    /// See [`Bus::msr_read`]; false raises #GP.
    fn msr_write(&self, _cpu: u32, _index: u32, _value: u64) -> bool {
        false
    }
    /// CR8: bits 7:4 of the local APIC's task priority.
    fn cr8(&self, _cpu: u32) -> u64 {
        0
    }
    /// See [`Bus::cr8`].
    fn set_cr8(&self, _cpu: u32, _value: u64) {}
    /// FERR#: an unmasked x87 exception with CR0.NE clear (IRQ 13 on a PC).
    fn ferr(&self) {}
    /// Asked after a write to a device: whether that write changed what [`Bus::page`] says, so that all translations
    /// must go before the next access.
    fn map_changed(&self) -> bool {
        false
    }
    /// The CPU enters (true) or leaves SMM.
    fn smm(&self, _cpu: u32, _enter: bool) {}
}

/// Bits of [`RunControl`].
pub struct Request;

#[allow(missing_docs)]
impl Request {
    /// Return from `run` with `Exit::Interrupted`.
    pub const EXIT: u32 = 1 << 0;
    /// The interrupt input rose: call `take_interrupt` when interrupts are enabled.
    pub const INTR: u32 = 1 << 1;
    pub const NMI: u32 = 1 << 2;
    pub const SMI: u32 = 1 << 3;
    /// The physical memory map or A20 changed.
    pub const FLUSH_TLB: u32 = 1 << 4;
    /// A page got its first code on another CPU: drop fast write mappings.
    pub const FLUSH_WRITES: u32 = 1 << 5;
    /// Decoded code was overwritten by someone else: check blocks again before using them.
    pub const CODE_CHANGED: u32 = 1 << 6;
}

/// The one word that other threads use to get a running CPU's attention. It is looked at between blocks.
#[derive(Default)]
pub struct RunControl {
    bits: AtomicU32,
}

impl RunControl {
    /// Nothing requested.
    pub const fn new() -> Self {
        Self { bits: AtomicU32::new(0) }
    }
    /// Requests `bits` (see [`Request`]); from any thread.
    pub fn request(&self, bits: u32) {
        self.bits.fetch_or(bits, Ordering::SeqCst);
    }
    /// Withdraws a request.
    pub fn clear(&self, bits: u32) {
        self.bits.fetch_and(!bits, Ordering::SeqCst);
    }
    /// Whether anything is requested.
    #[inline(always)]
    pub fn any(&self) -> bool {
        self.bits.load(Ordering::Relaxed) != 0
    }
    /// The requested bits.
    pub fn peek(&self) -> u32 {
        self.bits.load(Ordering::SeqCst)
    }
    /// Takes all requests.
    pub fn take(&self) -> u32 {
        self.bits.swap(0, Ordering::SeqCst)
    }
}
