//! The adapter: units on its bus, configuration space, and events for the driver.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::Arc;

use super::super::queue::Chain;
use super::super::served::MainQueues;
use super::super::{ChildBus, Raise, Start, VirtioDevice};
use super::requests::Requests;
use super::{VirtioScsiProps, FIXED_QUEUES};
use crate::device::{BusKind, Cx, DevId};
use crate::devices::storage::scsi::{NewUnit, ScsiAdapter, Sense, Unit};
use crate::{qerr, QResult};

/// Feature bits.
mod feature {
    pub const HOTPLUG: u64 = 1 << 1;
    pub const CHANGE: u64 = 1 << 2;
}

/// Events for the driver.
mod event {
    pub const TRANSPORT_RESET: u32 = 1;
    pub const PARAM_CHANGE: u32 = 3;
    pub const MISSED: u32 = 0x8000_0000;
    pub const RESCAN: u32 = 1;
    pub const REMOVED: u32 = 2;
}

/// Queue numbers.
pub(super) const CONTROL: u16 = 0;
const EVENTS: u16 = 1;

const MAX_TARGET: u32 = 255;
const MAX_LUN: u32 = 16383;
/// Offsets of what the driver may change.
const SENSE_SIZE: usize = 20;
const CDB_SIZE: usize = 24;

/// Where a unit sits.
pub(super) struct Slot {
    pub dev: DevId,
    pub id: u32,
    pub lun: u32,
    pub unit: Box<Unit>,
    /// The user's name of it.
    pub name: Option<String>,
}

/// The adapter.
pub struct Hba {
    num_queues: u32,
    queue_size: u16,
    seg_max: u32,
    max_sectors: u32,
    cmd_per_lun: u32,
    offered: u64,
    accepted: u64,
    /// Lengths of sense data and command blocks in requests.
    pub(super) sense_size: u32,
    pub(super) cdb_size: u32,
    pub(super) slots: Vec<Slot>,
    pub(super) queues: MainQueues,
    pub(super) requests: Requests,
    /// Events that wait for buffers: event, place, reason.
    events: VecDeque<(u32, u32, u32, u32)>,
    missed: bool,
}

impl Hba {
    pub(super) fn new(p: &VirtioScsiProps) -> Self {
        let on = |c: bool, f: u64| if c { f } else { 0 };
        Self {
            num_queues: p.num_queues,
            queue_size: p.virtqueue_size as u16,
            seg_max: if p.seg_max_adjust { p.virtqueue_size - 2 } else { 126 },
            max_sectors: p.max_sectors,
            cmd_per_lun: p.cmd_per_lun,
            offered: on(p.hotplug, feature::HOTPLUG) | on(p.param_change, feature::CHANGE),
            accepted: 0,
            sense_size: 96,
            cdb_size: 32,
            slots: Vec::new(),
            queues: MainQueues::default(),
            requests: Requests::default(),
            events: VecDeque::new(),
            missed: false,
        }
    }

    /// The unit at a place.
    pub(super) fn at(&mut self, id: u32, lun: u32) -> Option<&mut Slot> {
        self.slots.iter_mut().find(|s| (s.id, s.lun) == (id, lun))
    }

    fn free_place(&self, wanted: (Option<u32>, Option<u32>)) -> QResult<(u32, u32)> {
        let taken = |id: u32, lun: u32| self.slots.iter().any(|s| (s.id, s.lun) == (id, lun));
        match wanted {
            (Some(id), _) if id > MAX_TARGET => Err(qerr!("bad scsi device id: {id}")),
            (_, Some(lun)) if lun > MAX_LUN => Err(qerr!("bad scsi device lun: {lun}")),
            (None, lun) => {
                let lun = lun.unwrap_or(0);
                let id = (0..=MAX_TARGET).find(|id| !taken(*id, lun));
                id.map(|id| (id, lun)).ok_or_else(|| qerr!("no free target"))
            }
            (Some(id), None) => {
                let lun = (0..=MAX_LUN).find(|lun| !taken(id, *lun));
                lun.map(|lun| (id, lun)).ok_or_else(|| qerr!("no free lun"))
            }
            (Some(id), Some(lun)) => match self.slots.iter().find(|s| (s.id, s.lun) == (id, lun)) {
                Some(s) => Err(qerr!("lun already used by '{}'", s.name.as_deref().unwrap_or("(null)"))),
                None => Ok((id, lun)),
            },
        }
    }

    /// Keeps an event for the driver, if it wants to hear of such.
    fn event(&mut self, wanted: u64, event: u32, id: u32, lun: u32, reason: u32) {
        const MOST: usize = 64;
        if self.accepted & wanted == 0 {
            return;
        }
        if self.events.len() >= MOST {
            self.missed = true;
        } else {
            self.events.push_back((event, id, lun, reason));
        }
    }

    /// Delivers events as far as the driver has given buffers.
    pub(super) fn send_events(&mut self, raise: &mut Raise) {
        let mut chain = Chain::default();
        let mut any = false;
        while (self.missed || !self.events.is_empty()) && self.queues.pop(raise, EVENTS, &mut chain) {
            let (mut what, id, lun, reason) = self.events.pop_front().unwrap_or((0, 0, 0, 0));
            if std::mem::take(&mut self.missed) {
                what |= event::MISSED;
            }
            let mut d = what.to_le_bytes().to_vec();
            d.extend([1, id as u8, 0x40 | (lun >> 8) as u8, lun as u8, 0, 0, 0, 0]);
            d.extend(reason.to_le_bytes());
            let n = chain.writable.write(0, &d);
            self.queues.push(raise, EVENTS, chain.head, n);
            any = true;
        }
        if any {
            self.queues.notify(raise, EVENTS);
        }
    }
}

impl ScsiAdapter for Hba {
    fn attach(&mut self, cx: &mut Cx<'_>, dev: DevId, new: NewUnit) -> QResult<(u32, u32)> {
        let (id, lun) = self.free_place((new.id, new.lun))?;
        let name = cx.m.tree.get(dev).and_then(|n| n.user_id().map(str::to_string));
        self.slots.push(Slot { dev, id, lun, unit: new.unit, name });
        if cx.m.ready {
            self.event(feature::HOTPLUG, event::TRANSPORT_RESET, id, lun, event::RESCAN);
        }
        Ok((id, lun))
    }

    fn detach(&mut self, cx: &mut Cx<'_>, dev: DevId) {
        let Some(i) = self.slots.iter().position(|s| s.dev == dev) else { return };
        let s = &self.slots[i];
        let (id, lun) = (s.id, s.lun);
        self.requests.cancel(&s.unit, dev);
        self.slots.remove(i);
        if cx.m.ready {
            self.event(feature::HOTPLUG, event::TRANSPORT_RESET, id, lun, event::REMOVED);
        }
    }

    fn unit(&mut self, dev: DevId) -> Option<&mut Unit> {
        self.slots.iter_mut().find(|s| s.dev == dev).map(|s| &mut *s.unit)
    }

    fn changed(&mut self, _cx: &mut Cx<'_>, dev: DevId, sense: Sense) {
        let Some(s) = self.slots.iter_mut().find(|s| s.dev == dev) else { return };
        if sense == Sense::CAPACITY_CHANGED {
            s.unit.attention(sense);
        }
        let (id, lun) = (s.id, s.lun);
        let reason = u32::from(sense.asc) | u32::from(sense.ascq) << 8;
        self.event(feature::CHANGE, event::PARAM_CHANGE, id, lun, reason);
    }
}

impl VirtioDevice for Hba {
    fn id(&self) -> u16 {
        8
    }

    fn features(&self, _modern: bool) -> u64 {
        self.offered
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![self.queue_size; (FIXED_QUEUES + self.num_queues) as usize]
    }

    fn config_len(&self) -> usize {
        36
    }

    fn config(&self, out: &mut [u8]) {
        let words = [
            self.num_queues,
            self.seg_max,
            self.max_sectors,
            self.cmd_per_lun,
            // Length of an event.
            16,
            self.sense_size,
            self.cdb_size,
            // No channels besides the first; targets.
            MAX_TARGET << 16,
            MAX_LUN,
        ];
        for (to, w) in out.chunks_exact_mut(4).zip(words) {
            to.copy_from_slice(&w.to_le_bytes());
        }
    }

    fn set_config(&mut self, _cx: &mut Cx<'_>, _raise: &mut Raise, offset: usize, data: &[u8]) {
        const MAX_SENSE: u32 = 65536;
        const MAX_CDB: u32 = 256;
        for (at, field, max) in
            [(SENSE_SIZE, &mut self.sense_size, MAX_SENSE), (CDB_SIZE, &mut self.cdb_size, MAX_CDB)]
        {
            let mut b = field.to_le_bytes();
            for (i, v) in data.iter().enumerate() {
                if let Some(to) = (offset + i).checked_sub(at).and_then(|i| b.get_mut(i)) {
                    *to = *v;
                }
            }
            let v = u32::from_le_bytes(b);
            if v < max {
                *field = v;
            }
        }
    }

    fn start(&mut self, cx: &mut Cx<'_>, raise: &mut Raise, s: &Start<'_>) {
        self.accepted = s.features;
        self.queues.start(s);
        self.requests.start(s.shared.clone());
        self.retry(cx, raise);
        for q in 0..(FIXED_QUEUES + self.num_queues) as u16 {
            self.kick(cx, raise, q);
        }
    }

    fn stop(&mut self, cx: &mut Cx<'_>) {
        self.drain(cx);
        self.queues.stop();
    }

    fn reset(&mut self, _cx: &mut Cx<'_>) {
        self.requests.forget();
        self.events.clear();
        self.missed = false;
        self.accepted = 0;
        (self.sense_size, self.cdb_size) = (96, 32);
        self.slots.iter_mut().for_each(|s| s.unit.reset());
    }

    fn kick(&mut self, cx: &mut Cx<'_>, raise: &mut Raise, q: u16) {
        match q {
            CONTROL => self.serve_control(cx, raise),
            EVENTS => self.send_events(raise),
            _ => self.serve_requests(cx, raise, q),
        }
    }

    fn attend(&mut self, cx: &mut Cx<'_>, raise: &mut Raise) {
        self.finish_arrived(cx, raise);
    }

    fn child_bus(&self) -> Option<ChildBus> {
        Some(ChildBus { kind: BusKind::Scsi, max: u32::MAX })
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

/// For whoever keeps the arrived completions.
pub(super) type SharedRef = Arc<super::super::shared::Shared>;
