//! Message-signalled interrupts (PCI Local Bus Specification 3.0, section 6.8.1): one vector, 64-bit address, masking.

use super::config::PciState;
use crate::accel::MsiMessage;
use crate::device::Cx;

const CAP: u8 = 5;
const LEN: u8 = 0x18;
/// Control: 64-bit addresses, masking for each vector.
const CONTROL: u16 = 0x0180;
const ENABLE: u8 = 1;

/// The capability.
pub struct Msi {
    cap: usize,
    /// The vector can be masked.
    masking: bool,
}

impl Msi {
    /// Adds it to `pci` at `at` (0: the next free place).
    pub fn add(pci: &mut PciState, at: u8) -> Self {
        let cap = pci.add_capability(CAP, at, LEN);
        pci.set_word(cap + 2, CONTROL);
        let w = pci.wmask_mut();
        w[cap + 2] = ENABLE;
        w[cap + 4] = 0xfc;
        w[cap + 5..cap + 14].fill(0xff);
        w[cap + 16] = 1;
        Self { cap, masking: true }
    }

    /// Like [`Self::add`], without masking.
    pub fn add_plain(pci: &mut PciState, at: u8) -> Self {
        const PLAIN_LEN: u8 = 0x0e;
        const PLAIN_CONTROL: u16 = 0x0080;
        let cap = pci.add_capability(CAP, at, PLAIN_LEN);
        pci.set_word(cap + 2, PLAIN_CONTROL);
        let w = pci.wmask_mut();
        w[cap + 2] = ENABLE;
        w[cap + 4] = 0xfc;
        w[cap + 5..cap + 14].fill(0xff);
        Self { cap, masking: false }
    }

    /// Whether the guest switched it on.
    pub fn enabled(&self, pci: &PciState) -> bool {
        pci.config()[self.cap + 2] & ENABLE != 0
    }

    /// Configuration space was written: sends what waited for the mask to go.
    pub fn written(&mut self, pci: &mut PciState, cx: &mut Cx<'_>) {
        let c = pci.config();
        if self.masking && self.enabled(pci) && c[self.cap + 16] & 1 == 0 && c[self.cap + 20] & 1 != 0 {
            pci.config_mut()[self.cap + 20] &= !1;
            self.notify(pci, cx);
        }
    }

    /// Sends the message, or marks it pending while it is masked.
    pub fn notify(&mut self, pci: &mut PciState, cx: &mut Cx<'_>) {
        if self.masking && pci.config()[self.cap + 16] & 1 != 0 {
            pci.config_mut()[self.cap + 20] |= 1;
            return;
        }
        let addr = u64::from(pci.dword(self.cap + 4)) | u64::from(pci.dword(self.cap + 8)) << 32;
        cx.m.accel.msi(MsiMessage { addr, data: u32::from(pci.word(self.cap + 12)) });
    }
}
