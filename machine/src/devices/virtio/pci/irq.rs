//! Eventfds of the PCI transport: kicks from the guest, interrupts to it.

use std::os::fd::AsRawFd;
use std::sync::Arc;

use vmm_sys_util::eventfd::{EventFd, EFD_CLOEXEC, EFD_NONBLOCK};

use super::super::shared::Shared;
use super::super::NO_VECTOR;
use super::{notify_space, VirtioPciDevice, MODERN_BAR, NOTIFY_AT};
use crate::device::Cx;
use crate::memory::Space;
use crate::pci::PciState;

/// Legacy: the register that takes queue numbers.
const LEGACY_NOTIFY: u64 = 16;

/// One queue's kick descriptor and where the accelerator listens for it.
struct Kick {
    fd: Arc<EventFd>,
    at: Option<(Space, u64)>,
}

/// Descriptors of one device.
#[derive(Default)]
pub(super) struct Irqs {
    kicks: Vec<Kick>,
    /// By vector.
    calls: Vec<Option<Arc<EventFd>>>,
}

fn register(cx: &mut Cx<'_>, add: bool, (space, addr): (Space, u64), q: usize, fd: &EventFd) -> bool {
    // Ports are shared by all queues and tell them apart by the value; each queue has its own memory address, where
    // any write counts.
    let (len, value) = if space == Space::Io { (2, Some(q as u64)) } else { (0, None) };
    cx.m.accel.ioeventfd(add, space, addr, len, value, fd.as_raw_fd())
}

impl Irqs {
    /// Stops listening for kicks.
    pub(super) fn release_kicks(&mut self, cx: &mut Cx<'_>) {
        for (q, k) in self.kicks.iter_mut().enumerate() {
            if let Some(at) = k.at.take() {
                register(cx, false, at, q, &k.fd);
            }
        }
    }

    /// Takes interrupt descriptors back.
    pub(super) fn release_calls(&mut self, cx: &mut Cx<'_>, pci: &mut PciState, shared: &Shared) {
        if self.calls.is_empty() {
            return;
        }
        for q in 0..self.kicks.len() {
            shared.set_call(q, None);
        }
        for (v, fd) in self.calls.iter_mut().enumerate() {
            if fd.take().is_some() {
                pci.msix_bind_fd(cx, v as u16, None);
            }
        }
        self.calls.clear();
    }
}

impl VirtioPciDevice {
    /// Where queue `q` is kicked; `None` while its BAR is not mapped.
    fn kick_address(&self, q: usize) -> Option<(Space, u64)> {
        let config = self.core.queues.get(q)?;
        config.live.as_ref()?;
        let space = notify_space(config.legacy);
        let at = if config.legacy {
            self.pci.bar_address(0)? + LEGACY_NOTIFY
        } else {
            self.pci.bar_address(MODERN_BAR)? + NOTIFY_AT + u64::from(self.multiplier) * q as u64
        };
        Some((space, at))
    }

    /// Listens for kicks of all live queues. `None` if the accelerator cannot do that.
    pub(super) fn bind_kicks(&mut self, cx: &mut Cx<'_>) -> Option<Vec<Arc<EventFd>>> {
        while self.irq.kicks.len() < self.core.queues.len() {
            let fd = Arc::new(EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).ok()?);
            self.irq.kicks.push(Kick { fd, at: None });
        }
        if !self.rebind_kicks(cx) {
            self.irq.release_kicks(cx);
            return None;
        }
        Some(self.irq.kicks.iter().map(|k| k.fd.clone()).collect())
    }

    /// Moves the listeners to where the BARs are now. Listeners stay over device resets: taking one away is slow.
    pub(super) fn rebind_kicks(&mut self, cx: &mut Cx<'_>) -> bool {
        let mut ok = true;
        for q in 0..self.irq.kicks.len() {
            let live = self.core.queues.get(q).is_some_and(|c| c.live.is_some());
            let want = self.kick_address(q);
            let k = &mut self.irq.kicks[q];
            let mapped = match k.at {
                // An idle queue keeps its listener while the address still belongs to it.
                Some((Space::Io, a)) if !live => {
                    self.pci.bar_address(0).is_some_and(|b| a == b + LEGACY_NOTIFY)
                }
                Some((Space::Memory, a)) if !live => self
                    .pci
                    .bar_address(MODERN_BAR)
                    .is_some_and(|b| a == b + NOTIFY_AT + u64::from(self.multiplier) * q as u64),
                other => other == want,
            };
            if mapped {
                continue;
            }
            if let Some(at) = k.at.take() {
                register(cx, false, at, q, &k.fd);
            }
            if let Some(at) = want {
                if register(cx, true, at, q, &k.fd) {
                    k.at = Some(at);
                } else {
                    ok = false;
                }
            }
        }
        ok
    }

    /// Gives every queue the descriptor of its vector, where the accelerator can deliver from one.
    pub(super) fn bind_calls(&mut self, cx: &mut Cx<'_>) {
        if !self.pci.msix_enabled() {
            self.irq.release_calls(cx, &mut self.pci, &self.core.shared);
            return;
        }
        for q in 0..self.core.queues.len() {
            let vector = self.core.queues[q].vector;
            let fd = if vector == NO_VECTOR { None } else { self.call_fd(cx, vector) };
            self.core.shared.set_call(q, fd);
        }
    }

    fn call_fd(&mut self, cx: &mut Cx<'_>, vector: u16) -> Option<Arc<EventFd>> {
        let i = usize::from(vector);
        if let Some(Some(fd)) = self.irq.calls.get(i) {
            return Some(fd.clone());
        }
        let fd = Arc::new(EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).ok()?);
        if !self.pci.msix_bind_fd(cx, vector, Some(fd.as_raw_fd())) {
            self.pci.msix_bind_fd(cx, vector, None);
            return None;
        }
        while self.irq.calls.len() <= i {
            self.irq.calls.push(None);
        }
        self.irq.calls[i] = Some(fd.clone());
        Some(fd)
    }

    /// Delivers an interrupt from here: by MSI-X if it is on, else over the pin.
    pub(super) fn raise(&mut self, cx: &mut Cx<'_>, isr: u8, vector: u16) {
        use std::sync::atomic::Ordering;
        self.core.shared.isr.fetch_or(isr, Ordering::AcqRel);
        if self.pci.msix_enabled() {
            if vector != NO_VECTOR {
                self.pci.msix_notify(cx, vector);
            }
        } else {
            self.pci.set_intx(cx, true);
        }
    }
}
