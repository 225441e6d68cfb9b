//! CPU hot-plug registers (QEMU's `docs/specs/acpi_cpu_hotplug`): the old bitmap of present processors, and the
//! selector interface that the guest switches to by writing zero to the first byte.

use crate::device::{Cx, DevId};

/// Length of the old interface's window.
pub const LEGACY_LEN: u32 = 0x20;
/// Length of the new interface's window.
pub const MODERN_LEN: u32 = 12;

const ENABLED: u8 = 1;
const INSERTING: u8 = 1 << 1;
const REMOVING: u8 = 1 << 2;
const EJECT: u8 = 1 << 3;
const FW_REMOVE: u8 = 1 << 4;

const CMD_NEXT_EVENT: u8 = 0;
const CMD_OST_EVENT: u8 = 1;
const CMD_OST_STATUS: u8 = 2;
const CMD_ARCH_ID: u8 = 3;

/// One possible processor.
#[derive(Clone, Debug, Default)]
pub struct CpuSlot {
    /// APIC id.
    pub arch_id: u64,
    /// The processor, if it is plugged.
    pub present: bool,
    /// Its device, for unplugging.
    pub dev: Option<DevId>,
    inserting: bool,
    removing: bool,
    fw_remove: bool,
    ost_event: u32,
    ost_status: u32,
}

impl CpuSlot {
    /// A possible processor.
    pub fn new(arch_id: u64, present: bool, dev: Option<DevId>) -> Self {
        Self { arch_id, present, dev, ..Self::default() }
    }
}

/// The registers.
#[derive(Default)]
pub struct CpuHotplug {
    slots: Vec<CpuSlot>,
    selector: u32,
    command: u8,
    modern: bool,
}

impl CpuHotplug {
    /// All possible processors, in the order of their indices.
    pub fn set_slots(&mut self, slots: Vec<CpuSlot>) {
        self.slots = slots;
    }

    /// Possible processors.
    pub fn slots(&self) -> &[CpuSlot] {
        &self.slots
    }

    /// Whether the guest switched to the selector interface.
    pub fn is_modern(&self) -> bool {
        self.modern
    }

    /// Power-on state; `modern` if the machine offers the new interface only.
    pub fn reset(&mut self) {
        self.selector = 0;
        self.command = 0;
    }

    /// A processor was plugged; `true` if there is a slot for it.
    pub fn plugged(&mut self, arch_id: u64, dev: DevId, hotplugged: bool) -> bool {
        let Some(s) = self.slots.iter_mut().find(|s| s.arch_id == arch_id) else { return false };
        s.present = true;
        s.dev = Some(dev);
        s.inserting |= hotplugged;
        true
    }

    /// The guest is to release a processor; `true` if there is such a one.
    pub fn unplug_request(&mut self, dev: DevId) -> bool {
        let Some(s) = self.slots.iter_mut().find(|s| s.dev == Some(dev)) else { return false };
        s.removing = true;
        true
    }

    /// A processor is gone.
    pub fn unplugged(&mut self, dev: DevId) {
        if let Some(s) = self.slots.iter_mut().find(|s| s.dev == Some(dev)) {
            *s = CpuSlot { arch_id: s.arch_id, ..CpuSlot::default() };
        }
    }

    /// Old interface: bitmap of present processors by APIC id.
    fn read_bitmap(&self, offset: u64) -> u8 {
        self.slots
            .iter()
            .filter(|s| s.present && s.arch_id / 8 == offset && s.arch_id < u64::from(LEGACY_LEN) * 8)
            .fold(0, |v, s| v | 1 << (s.arch_id % 8))
    }

    fn current(&self) -> Option<&CpuSlot> {
        self.slots.get(self.selector as usize)
    }

    /// Read of 1, 2 or 4 bytes.
    pub fn read(&self, offset: u64, size: u8) -> u64 {
        if !self.modern {
            return u64::from(self.read_bitmap(offset));
        }
        let Some(s) = self.current() else { return 0 };
        match (offset, size) {
            (0, 4) if self.command == CMD_ARCH_ID => s.arch_id >> 32,
            (4, _) => {
                let bit = |on, b| if on { b } else { 0 };
                u64::from(
                    bit(s.present, ENABLED)
                        | bit(s.inserting, INSERTING)
                        | bit(s.removing, REMOVING)
                        | bit(s.fw_remove, FW_REMOVE),
                )
            }
            (8, 4) => match self.command {
                CMD_NEXT_EVENT => u64::from(self.selector),
                CMD_ARCH_ID => s.arch_id & 0xffff_ffff,
                _ => 0,
            },
            _ => 0,
        }
    }

    /// Write. Returns a processor to remove now, if the guest ejected one. `true` in the second place: the window
    /// has to shrink because the guest switched to the new interface.
    pub fn write(&mut self, cx: &mut Cx<'_>, offset: u64, size: u8, v: u64) -> (Option<DevId>, bool) {
        if !self.modern {
            let switch = offset == 0 && v & 0xff == 0;
            self.modern |= switch;
            return (None, switch);
        }
        match (offset, size) {
            (0, 4) => self.selector = v as u32,
            (4, 1) => return (self.control(v as u8), false),
            (5, 1) => self.run_command(v as u8),
            (8, 4) => self.ost(cx, v as u32),
            _ => {}
        }
        (None, false)
    }

    fn control(&mut self, v: u8) -> Option<DevId> {
        let s = self.slots.get_mut(self.selector as usize)?;
        if v & INSERTING != 0 {
            s.inserting = false;
        } else if v & REMOVING != 0 {
            s.removing = false;
        } else if v & EJECT != 0 {
            return s.dev.filter(|_| s.present);
        } else if v & FW_REMOVE != 0 {
            s.fw_remove = !s.fw_remove;
        }
        None
    }

    fn run_command(&mut self, v: u8) {
        self.command = v;
        if v != CMD_NEXT_EVENT {
            return;
        }
        // The search begins with the selected processor and wraps around.
        let n = self.slots.len();
        let start = self.selector as usize;
        let next = (0..n)
            .map(|i| (start + i) % n)
            .find(|i| self.slots.get(*i).is_some_and(|s| s.inserting || s.removing || s.fw_remove));
        if let Some(i) = next.filter(|_| start < n) {
            self.selector = i as u32;
        }
    }

    fn ost(&mut self, cx: &mut Cx<'_>, v: u32) {
        let (sel, command) = (self.selector, self.command);
        let Some(s) = self.slots.get_mut(sel as usize) else { return };
        match command {
            CMD_OST_EVENT => s.ost_event = v,
            CMD_OST_STATUS => {
                s.ost_status = v;
                let mut info = serde_json::json!({
                    "slot": sel.to_string(), "slot-type": "CPU", "source": s.ost_event, "status": v,
                });
                let id = s.dev.and_then(|d| cx.m.tree.get(d)).and_then(|n| n.user_id());
                if let (Some(id), Some(o)) = (id, info.as_object_mut()) {
                    o.insert("device".into(), id.into());
                }
                cx.event("ACPI_DEVICE_OST", Some(serde_json::json!({ "info": info })));
            }
            _ => {}
        }
    }

    /// `query-acpi-ospm-status`: (slot, device, source, status) of every possible processor.
    pub fn ospm_status(&self) -> impl Iterator<Item = (usize, Option<DevId>, u32, u32)> + '_ {
        self.slots.iter().enumerate().map(|(i, s)| (i, s.dev, s.ost_event, s.ost_status))
    }
}
