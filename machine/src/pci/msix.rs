//! MSI-X (PCI Local Bus Specification 3.0, section 6.8).

use std::os::fd::RawFd;

use super::config::PciState;
use crate::accel::MsiMessage;
use crate::device::{Cx, DevId};
use crate::machine::Machine;

const CAP_ID: u8 = 0x11;
const ENABLE: u8 = 0x80;
const FUNCTION_MASK: u8 = 0x40;

/// Table, pending bits and bound event descriptors.
pub struct Msix {
    cap: usize,
    table: Vec<[u32; 4]>,
    pending: Vec<u64>,
    /// Descriptors that fire a vector from outside the machine lock.
    fds: Vec<Option<RawFd>>,
}

impl Msix {
    /// Adds the capability with `vectors` vectors to `state`. Table and PBA lie in BARs `table.0`/`pba.0` at the given
    /// offsets; the caller maps regions with owners `MsixTable`/`MsixPba` there.
    pub fn add(state: &mut PciState, vectors: u16, table: (u8, u32), pba: (u8, u32), cap_at: u8) {
        let cap = state.add_capability(CAP_ID, cap_at, 12);
        state.set_word(cap + 2, vectors.max(1) - 1);
        state.wmask_mut()[cap + 3] = ENABLE | FUNCTION_MASK;
        state.set_dword(cap + 4, table.1 | u32::from(table.0));
        state.set_dword(cap + 8, pba.1 | u32::from(pba.0));
        let n = usize::from(vectors.max(1));
        state.msix = Some(Self {
            cap,
            table: vec![[0, 0, 0, 1]; n],
            pending: vec![0; n.div_ceil(64)],
            fds: vec![None; n],
        });
    }

    /// Number of vectors.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Never: a function with MSI-X has at least one vector.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    pub(super) fn reset(&mut self) {
        self.table.fill([0, 0, 0, 1]);
        self.pending.fill(0);
    }

    /// Whether the guest switched MSI-X on.
    pub fn enabled(&self, config: &[u8]) -> bool {
        config[self.cap + 3] & ENABLE != 0
    }

    /// Whether a vector is masked (by itself or with the whole function).
    pub fn masked(&self, config: &[u8], vector: u16) -> bool {
        config[self.cap + 3] & FUNCTION_MASK != 0
            || self.table.get(usize::from(vector)).is_none_or(|e| e[3] & 1 != 0)
    }

    fn message(&self, vector: u16) -> Option<MsiMessage> {
        let e = self.table.get(usize::from(vector))?;
        Some(MsiMessage { addr: u64::from(e[0]) | u64::from(e[1]) << 32, data: e[2] })
    }

    /// The message to send now; pends the vector if it is masked.
    pub(super) fn take_message(&mut self, config: &[u8], vector: u16) -> Option<MsiMessage> {
        let i = usize::from(vector);
        if i >= self.table.len() {
            return None;
        }
        if self.masked(config, vector) {
            self.pending[i / 64] |= 1 << (i % 64);
            return None;
        }
        self.message(vector)
    }

    fn read(&self, offset: u64) -> u32 {
        let (i, w) = ((offset / 16) as usize, (offset / 4 % 4) as usize);
        self.table.get(i).map_or(0, |e| e[w])
    }

    fn pba(&self, offset: u64) -> u32 {
        let q = self.pending.get((offset / 8) as usize).copied().unwrap_or(0);
        (q >> ((offset & 4) * 8)) as u32
    }
}

impl PciState {
    /// Re-evaluates routes and pending bits after a change of masks. Called by the machine.
    pub(super) fn msix_sync(&mut self, m: &mut Machine, dev: DevId) {
        let n = self.msix.as_ref().map_or(0, Msix::len);
        for v in 0..n {
            self.msix_sync_vector(m, dev, v as u16);
        }
    }

    fn msix_sync_vector(&mut self, m: &mut Machine, dev: DevId, vector: u16) {
        let (config, Some(msix)) = (&self.config()[..].to_vec(), &mut self.msix) else { return };
        let i = usize::from(vector);
        let live = msix.enabled(config) && !msix.masked(config, vector);
        let msg = msix.message(vector).filter(|_| live);
        if let Some(fd) = msix.fds.get(i).copied().flatten() {
            m.accel.irqfd((dev, u32::from(vector)), fd, msg);
        }
        if let (Some(msg), true) = (msg, msix.pending.get(i / 64).is_some_and(|p| p >> (i % 64) & 1 != 0)) {
            msix.pending[i / 64] &= !(1 << (i % 64));
            m.accel.msi(msg);
        }
    }

    /// Binds (or with `None` releases) a descriptor whose signals fire `vector`. `false` if the accelerator cannot do
    /// that; then the caller polls the descriptor and calls [`PciState::msix_notify`].
    pub fn msix_bind_fd(&mut self, cx: &mut Cx<'_>, vector: u16, fd: Option<RawFd>) -> bool {
        let dev = cx.dev;
        let Some(slot) = self.msix.as_mut().and_then(|m| m.fds.get_mut(usize::from(vector))) else {
            return false;
        };
        let old = std::mem::replace(slot, fd);
        if let Some(old) = old {
            cx.m.accel.irqfd((dev, u32::from(vector)), old, None);
        }
        let Some(fd) = fd else { return true };
        let Some(msix) = &self.msix else { return false };
        let live = msix.enabled(self.config()) && !msix.masked(self.config(), vector);
        let msg = msix.message(vector).filter(|_| live);
        cx.m.accel.irqfd((dev, u32::from(vector)), fd, msg)
    }
}

impl Machine {
    pub(crate) fn msix_table_read(&mut self, dev: DevId, offset: u64, size: u8) -> u64 {
        let word = |m: &Msix, o| u64::from(m.read(o));
        self.with_dev(dev, |d, _| {
            let m = d.pci()?.state().msix.as_ref()?;
            let lo = word(m, offset & !3) >> ((offset & 3) * 8);
            Some(if size == 8 { lo | word(m, offset + 4) << 32 } else { lo })
        })
        .flatten()
        .unwrap_or(0)
    }

    pub(crate) fn msix_pba_read(&mut self, dev: DevId, offset: u64, size: u8) -> u64 {
        self.with_dev(dev, |d, _| {
            let m = d.pci()?.state().msix.as_ref()?;
            let lo = u64::from(m.pba(offset & !3)) >> ((offset & 3) * 8);
            Some(if size == 8 { lo | u64::from(m.pba(offset + 4)) << 32 } else { lo })
        })
        .flatten()
        .unwrap_or(0)
    }

    pub(crate) fn msix_table_write(&mut self, dev: DevId, offset: u64, size: u8, value: u64) {
        self.with_dev(dev, |d, cx| {
            let Some(state) = d.pci().map(|p| p.state()) else { return };
            let first = (offset / 16) as u16;
            if let Some(m) = &mut state.msix {
                for i in 0..u64::from(size.max(4) / 4) {
                    let o = offset + i * 4;
                    let (e, w) = ((o / 16) as usize, (o / 4 % 4) as usize);
                    if let Some(e) = m.table.get_mut(e) {
                        e[w] = (value >> (32 * i)) as u32;
                    }
                }
            }
            state.msix_sync_vector(cx.m, cx.dev, first);
        });
    }
}
