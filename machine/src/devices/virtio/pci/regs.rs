//! Registers of the PCI transport: the legacy block, the modern blocks, and the window to them in configuration space.

use std::sync::atomic::Ordering;

use super::super::core;
use super::super::queue::Layout;
use super::super::{status, F_BAD_FEATURE, F_VERSION_1, NO_VECTOR};
use super::{VirtioPciDevice, LEGACY, MODERN, MODERN_BAR, NOTIFY_AT, PIO_NOTIFY};
use crate::device::{Cx, IoHandler};
use crate::machine::mask;
use crate::pci::reg::{CMD_MASTER, COMMAND};

/// Legacy queues lie on pages.
const LEGACY_ALIGN: u32 = 4096;

/// Legacy registers (VIRTIO 1.2, 4.1.4.10).
mod legacy {
    pub const HOST_FEATURES: u64 = 0;
    pub const GUEST_FEATURES: u64 = 4;
    pub const QUEUE_PFN: u64 = 8;
    pub const QUEUE_NUM: u64 = 12;
    pub const QUEUE_SEL: u64 = 14;
    pub const QUEUE_NOTIFY: u64 = 16;
    pub const STATUS: u64 = 18;
    pub const ISR: u64 = 19;
    pub const CONFIG_VECTOR: u64 = 20;
    pub const QUEUE_VECTOR: u64 = 22;
}

/// Common configuration (VIRTIO 1.2, 4.1.4.3).
mod common {
    pub const DEVICE_FEATURE_SELECT: u64 = 0x00;
    pub const DEVICE_FEATURE: u64 = 0x04;
    pub const DRIVER_FEATURE_SELECT: u64 = 0x08;
    pub const DRIVER_FEATURE: u64 = 0x0c;
    pub const CONFIG_VECTOR: u64 = 0x10;
    pub const NUM_QUEUES: u64 = 0x12;
    pub const STATUS: u64 = 0x14;
    pub const GENERATION: u64 = 0x15;
    pub const QUEUE_SELECT: u64 = 0x16;
    pub const QUEUE_SIZE: u64 = 0x18;
    pub const QUEUE_VECTOR: u64 = 0x1a;
    pub const QUEUE_ENABLE: u64 = 0x1c;
    pub const QUEUE_NOTIFY_OFF: u64 = 0x1e;
    pub const QUEUE_DESC: u64 = 0x20;
    pub const QUEUE_DRIVER: u64 = 0x28;
    pub const QUEUE_DEVICE: u64 = 0x30;
    pub const QUEUE_RESET: u64 = 0x3a;
}

impl IoHandler for VirtioPciDevice {
    fn read(&mut self, cx: &mut Cx<'_>, region: u32, offset: u64, size: u8) -> u64 {
        match region {
            LEGACY => self.legacy_read(cx, offset, size),
            PIO_NOTIFY => 0,
            block => self.modern_read(cx, (u64::from(block - MODERN) << 12) + offset, size),
        }
    }

    fn write(&mut self, cx: &mut Cx<'_>, region: u32, offset: u64, size: u8, value: u64) {
        match region {
            LEGACY => self.legacy_write(cx, offset, size, value),
            PIO_NOTIFY => core::kick(self, cx, value as u16),
            block => self.modern_write(cx, (u64::from(block - MODERN) << 12) + offset, size, value),
        }
    }
}

impl VirtioPciDevice {
    /// Where device configuration begins in the legacy block.
    fn legacy_config(&self) -> u64 {
        if self.pci.msix_enabled() {
            24
        } else {
            20
        }
    }

    fn legacy_read(&mut self, cx: &mut Cx<'_>, offset: u64, size: u8) -> u64 {
        let config = self.legacy_config();
        if offset >= config {
            return self.core.read_config(offset - config, size);
        }
        let q = self.core.queues.get(usize::from(self.core.queue_sel));
        let v = match offset {
            legacy::HOST_FEATURES => self.core.host_features & 0xffff_ffff,
            legacy::GUEST_FEATURES => self.core.guest_features & 0xffff_ffff,
            legacy::QUEUE_PFN => {
                q.map_or(0, |q| if q.live.is_some() { q.layout.desc >> 12 & 0xffff_ffff } else { 0 })
            }
            legacy::QUEUE_NUM => q.map_or(0, |q| u64::from(q.layout.size)),
            legacy::QUEUE_SEL => u64::from(self.core.queue_sel),
            legacy::STATUS => u64::from(self.core.status),
            legacy::ISR => self.read_isr(cx),
            legacy::CONFIG_VECTOR => u64::from(self.core.config_vector),
            legacy::QUEUE_VECTOR => q.map_or(NO_VECTOR, |q| q.vector).into(),
            _ => u64::MAX,
        };
        v & mask(size)
    }

    fn legacy_write(&mut self, cx: &mut Cx<'_>, offset: u64, size: u8, value: u64) {
        let config = self.legacy_config();
        if offset >= config {
            return core::write_config(self, cx, offset - config, size, value);
        }
        match offset {
            legacy::GUEST_FEATURES => {
                // A driver that takes every bit it sees does not know what it does.
                let bad = value >> F_BAD_FEATURE & 1 != 0;
                self.core.set_features(if bad { 0 } else { value & 0xffff_ffff });
            }
            legacy::QUEUE_PFN => self.legacy_queue(cx, value & 0xffff_ffff),
            legacy::QUEUE_SEL => self.select(value),
            legacy::QUEUE_NOTIFY => core::kick(self, cx, value as u16),
            legacy::STATUS => {
                if value & u64::from(status::DRIVER_OK) != 0 && !self.pci.bus_master() {
                    // Old drivers forget it.
                    let cmd = self.pci.word(COMMAND);
                    self.pci.set_word(COMMAND, cmd | CMD_MASTER);
                }
                core::set_status(self, cx, value as u8);
            }
            legacy::CONFIG_VECTOR => self.core.config_vector = self.vector(value),
            legacy::QUEUE_VECTOR => self.set_queue_vector(cx, value),
            _ => {}
        }
    }

    fn legacy_queue(&mut self, cx: &mut Cx<'_>, pfn: u64) {
        if pfn == 0 {
            return core::reset(self, cx);
        }
        let Some(q) = self.core.selected() else { return };
        if q.max == 0 {
            return;
        }
        q.layout = Layout::legacy(pfn << 12, q.layout.size, LEGACY_ALIGN);
        core::enable_queue(self, cx, true);
    }

    fn select(&mut self, value: u64) {
        if value < super::MAX_QUEUES as u64 {
            self.core.queue_sel = value as u16;
        }
    }

    fn read_isr(&mut self, cx: &mut Cx<'_>) -> u64 {
        let isr = self.core.shared.isr.swap(0, Ordering::AcqRel);
        self.pci.set_intx(cx, false);
        u64::from(isr)
    }

    /// A vector number as the guest wrote it, or "none" if it does not exist.
    fn vector(&self, value: u64) -> u16 {
        let n = self.pci.msix.as_ref().map_or(0, |m| m.len() as u64);
        if value < n {
            value as u16
        } else {
            NO_VECTOR
        }
    }

    fn set_queue_vector(&mut self, cx: &mut Cx<'_>, value: u64) {
        let v = self.vector(value);
        if let Some(q) = self.core.selected() {
            q.vector = v;
        }
        if self.core.running {
            self.bind_calls(cx);
        }
    }

    fn modern_read(&mut self, cx: &mut Cx<'_>, offset: u64, size: u8) -> u64 {
        match offset >> 12 {
            0 => self.common_read(offset & 0xfff) & mask(size),
            1 if offset & 0xfff == 0 => self.read_isr(cx),
            2 => self.core.read_config(offset & 0xfff, size),
            _ => 0,
        }
    }

    fn modern_write(&mut self, cx: &mut Cx<'_>, offset: u64, size: u8, value: u64) {
        match offset >> 12 {
            0 => self.common_write(cx, offset & 0xfff, value),
            1 => {}
            2 => core::write_config(self, cx, offset & 0xfff, size, value),
            _ => {
                let at = offset - NOTIFY_AT;
                if at < self.notify_len() {
                    let q = at / u64::from(self.multiplier);
                    core::kick(self, cx, q as u16);
                }
            }
        }
    }

    fn common_read(&mut self, offset: u64) -> u64 {
        let c = &self.core;
        let word = |f: u64, sel: u32| match sel {
            0 => f & 0xffff_ffff,
            1 => f >> 32,
            _ => 0,
        };
        let q = c.queues.get(usize::from(c.queue_sel));
        let lo = |v: u64| v & 0xffff_ffff;
        match offset {
            common::DEVICE_FEATURE_SELECT => c.device_feature_sel.into(),
            common::DEVICE_FEATURE => word(c.modern_features(), c.device_feature_sel),
            common::DRIVER_FEATURE_SELECT => c.driver_feature_sel.into(),
            common::DRIVER_FEATURE => word(c.guest_features, c.driver_feature_sel),
            common::CONFIG_VECTOR => c.config_vector.into(),
            common::NUM_QUEUES => {
                c.queues.iter().rposition(|q| q.layout.size != 0).map_or(0, |i| i as u64 + 1)
            }
            common::STATUS => c.status.into(),
            common::GENERATION => c.generation.into(),
            common::QUEUE_SELECT => c.queue_sel.into(),
            common::QUEUE_SIZE => q.map_or(0, |q| q.layout.size.into()),
            common::QUEUE_VECTOR => q.map_or(NO_VECTOR, |q| q.vector).into(),
            common::QUEUE_ENABLE => q.map_or(0, |q| u64::from(q.live.is_some())),
            common::QUEUE_NOTIFY_OFF => c.queue_sel.into(),
            common::QUEUE_DESC => q.map_or(0, |q| lo(q.layout.desc)),
            0x24 => q.map_or(0, |q| q.layout.desc >> 32),
            common::QUEUE_DRIVER => q.map_or(0, |q| lo(q.layout.avail)),
            0x2c => q.map_or(0, |q| q.layout.avail >> 32),
            common::QUEUE_DEVICE => q.map_or(0, |q| lo(q.layout.used)),
            0x34 => q.map_or(0, |q| q.layout.used >> 32),
            _ => 0,
        }
    }

    fn common_write(&mut self, cx: &mut Cx<'_>, offset: u64, value: u64) {
        match offset {
            common::DEVICE_FEATURE_SELECT => self.core.device_feature_sel = value as u32,
            common::DRIVER_FEATURE_SELECT => self.core.driver_feature_sel = value as u32,
            common::DRIVER_FEATURE => self.driver_feature(value as u32),
            common::CONFIG_VECTOR => self.core.config_vector = self.vector(value),
            common::STATUS => self.modern_status(cx, value as u8),
            common::QUEUE_SELECT => self.select(value),
            common::QUEUE_SIZE => self.core.set_queue_size(value as u16),
            common::QUEUE_VECTOR => self.set_queue_vector(cx, value),
            common::QUEUE_ENABLE if value == 1 => core::enable_queue(self, cx, false),
            common::QUEUE_RESET if value == 1 => core::reset_queue(self, cx),
            common::QUEUE_DESC | 0x24 | common::QUEUE_DRIVER | 0x2c | common::QUEUE_DEVICE | 0x34 => {
                self.ring_address(offset, value as u32);
            }
            _ => {}
        }
    }

    fn driver_feature(&mut self, value: u32) {
        let sel = self.core.driver_feature_sel;
        if sel > 1 {
            return;
        }
        let shift = 32 * sel;
        let keep = self.core.guest_features & !(0xffff_ffff << shift);
        let legacy_bits = self.core.host_features & !self.core.modern_features();
        self.core.set_features((keep | u64::from(value) << shift) & !legacy_bits);
    }

    fn modern_status(&mut self, cx: &mut Cx<'_>, value: u8) {
        let accepts = value & status::FEATURES_OK != 0 && self.core.status & status::FEATURES_OK == 0;
        // A modern interface without the modern feature is refused.
        let value = if accepts && self.core.guest_features >> F_VERSION_1 & 1 == 0 {
            value & !status::FEATURES_OK
        } else {
            value
        };
        core::set_status(self, cx, value);
    }

    fn ring_address(&mut self, offset: u64, value: u32) {
        let Some(q) = self.core.selected().filter(|q| q.live.is_none()) else { return };
        let reg = match offset & !7 {
            common::QUEUE_DESC => &mut q.layout.desc,
            common::QUEUE_DRIVER => &mut q.layout.avail,
            _ => &mut q.layout.used,
        };
        *reg = if offset & 4 == 0 {
            *reg & !0xffff_ffff | u64::from(value)
        } else {
            *reg & 0xffff_ffff | u64::from(value) << 32
        };
    }

    /// An access to the modern BAR through the window in configuration space.
    pub(super) fn cfg_window(&mut self, cx: &mut Cx<'_>, write: bool) {
        let at = self.cfg_cap;
        let (bar, offset, len) =
            (self.pci.config()[at + 4], u64::from(self.pci.dword(at + 8)), self.pci.dword(at + 12));
        let size = match len {
            1 | 2 | 4 => len as u8,
            _ => return,
        };
        let end = NOTIFY_AT + self.notify_len();
        if usize::from(bar) != MODERN_BAR || offset % u64::from(len) != 0 || offset + u64::from(len) > end {
            return;
        }
        if write {
            let v = u64::from(self.pci.dword(at + 16)) & mask(size);
            self.modern_write(cx, offset, size, v);
        } else {
            let v = self.modern_read(cx, offset, size);
            let n = usize::from(size);
            self.pci.config_mut()[at + 16..at + 16 + n].copy_from_slice(&v.to_le_bytes()[..n]);
        }
    }
}
