//! What other threads may do to a virtio device without the machine lock: raise interrupts, report errors.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicU8, Ordering};
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use vmm_sys_util::eventfd::EventFd;

use super::queue::QueueError;

/// Shared between a device, its transport and its I/O thread.
pub struct Shared {
    /// Interrupt status: bit 0 a queue, bit 1 the configuration.
    pub isr: AtomicU8,
    /// The guest broke a queue; nothing is served until a reset.
    broken: AtomicBool,
    error: Mutex<Option<QueueError>>,
    /// Eventfds that deliver a queue's interrupt at once.
    calls: Box<[ArcSwapOption<EventFd>]>,
    /// Queues whose interrupt the main loop must deliver.
    pending: Box<[AtomicU64]>,
    attention: ArcSwapOption<EventFd>,
    /// Something waits for the main loop.
    wanted: AtomicBool,
}

impl Shared {
    /// For a device with `queues` queues.
    pub fn new(queues: usize) -> Arc<Self> {
        Arc::new(Self {
            isr: AtomicU8::new(0),
            broken: AtomicBool::new(false),
            error: Mutex::new(None),
            calls: (0..queues).map(|_| ArcSwapOption::empty()).collect(),
            pending: (0..queues.div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
            attention: ArcSwapOption::empty(),
            wanted: AtomicBool::new(false),
        })
    }

    /// Sets the descriptor that the main loop watches for this device.
    pub fn set_attention(&self, fd: Option<Arc<EventFd>>) {
        self.attention.store(fd);
    }

    /// Makes the main loop call [`super::VirtioDevice::attend`].
    pub fn attention(&self) {
        self.wanted.store(true, Ordering::Release);
        if let Some(fd) = &*self.attention.load() {
            // Cannot fail: the main loop drains the counter long before it is full.
            let _ = fd.write(1);
        }
    }

    /// Whether something waits for the main loop; taken by whoever is about to deliver it.
    pub fn take_attention(&self) -> bool {
        self.wanted.swap(false, Ordering::AcqRel)
    }

    /// Sets the eventfd of a queue's interrupt.
    pub fn set_call(&self, q: usize, fd: Option<Arc<EventFd>>) {
        if let Some(c) = self.calls.get(q) {
            c.store(fd);
        }
    }

    /// Interrupts the guest for queue `q`.
    pub fn interrupt(&self, q: u16) {
        if self.isr.load(Ordering::Relaxed) & 1 == 0 {
            self.isr.fetch_or(1, Ordering::AcqRel);
        }
        let Some(call) = self.calls.get(usize::from(q)) else { return };
        if let Some(fd) = &*call.load() {
            let _ = fd.write(1);
            return;
        }
        if let Some(p) = self.pending.get(usize::from(q) / 64) {
            p.fetch_or(1 << (q % 64), Ordering::AcqRel);
        }
        self.attention();
    }

    /// Takes the queues whose interrupts the main loop has to deliver.
    pub fn take_pending(&self) -> Vec<u16> {
        let mut out = Vec::new();
        for (i, p) in self.pending.iter().enumerate() {
            let mut bits = p.swap(0, Ordering::AcqRel);
            while bits != 0 {
                out.push((i * 64) as u16 + bits.trailing_zeros() as u16);
                bits &= bits - 1;
            }
        }
        out
    }

    /// Stops service because of a guest's mistake.
    pub fn fail(&self, e: QueueError) {
        self.error.lock().get_or_insert(e);
        self.broken.store(true, Ordering::Release);
        self.attention();
    }

    /// Whether the guest broke the device.
    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    /// The mistake, once.
    pub fn take_error(&self) -> Option<QueueError> {
        self.error.lock().take()
    }

    /// Back to power-on.
    pub fn reset(&self) {
        self.isr.store(0, Ordering::Release);
        self.broken.store(false, Ordering::Release);
        *self.error.lock() = None;
        self.take_pending();
    }
}
