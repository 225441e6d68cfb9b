//! virtio-blk (VIRTIO 1.2, section 5.2).
//!
//! Requests are served by [`queue::BlkQueue`] without the machine lock: on an I/O thread that kicks wake, or, where
//! the accelerator has no eventfds, in the kick itself. What the host can serve at once (data in the page cache)
//! completes inline; the rest completes on the block layer's threads, which put the result into the used ring
//! themselves. Only failed requests travel to the main loop, for `rerror`/`werror`.
//!
//! Left out: SCSI passthrough (`scsi=on`).

mod props;
mod queue;
mod request;
#[cfg(test)]
mod tests;

pub use props::{BlkPciProps, VirtioBlkProps};

use std::any::Any;
use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

use self::queue::{BlkQueue, Failed};
use self::request::{Limits, Status};
use super::iothread::{IoThread, SourceId};
use super::{Raise, Start, VirtioDevice};
use crate::device::{BlockFrontend, Cx};
use crate::devices::storage::blk::{Direction, Disk};
use crate::devices::storage::geometry::Chs;
use rqemu_block::ErrorAction;

/// Feature bits.
mod feature {
    pub const SEG_MAX: u64 = 1 << 2;
    pub const GEOMETRY: u64 = 1 << 4;
    pub const RO: u64 = 1 << 5;
    pub const BLK_SIZE: u64 = 1 << 6;
    pub const SCSI: u64 = 1 << 7;
    pub const FLUSH: u64 = 1 << 9;
    pub const TOPOLOGY: u64 = 1 << 10;
    pub const CONFIG_WCE: u64 = 1 << 11;
    pub const MQ: u64 = 1 << 12;
    pub const DISCARD: u64 = 1 << 13;
    pub const WRITE_ZEROES: u64 = 1 << 14;
}

/// Offset of the write cache switch in the configuration space.
const WCE: usize = 0x20;

/// What the configuration space shows besides the medium's size.
#[derive(Clone, Copy, Debug)]
pub(super) struct Geometry {
    chs: Chs,
    logical: u32,
    physical: u32,
    min_io: u32,
    opt_io: u32,
    discard_granularity: u32,
    seg_max: u32,
}

/// A virtio disk.
pub struct Blk {
    disk: Disk,
    geometry: Geometry,
    limits: Limits,
    serial: Arc<[u8]>,
    num_queues: u16,
    queue_size: u16,
    config_wce: bool,
    enable_wce: bool,
    /// Write cache of the backend before a driver changed it.
    original_wce: bool,
    thread: Option<Arc<IoThread>>,
    iothread: Option<String>,
    active: Vec<Active>,
    /// Failed requests that wait for `cont`.
    stalled: Vec<(u16, Failed)>,
}

/// A queue in service.
struct Active {
    queue: Arc<BlkQueue>,
    kick: Option<(Arc<EventFd>, SourceId)>,
}

impl Blk {
    fn new(p: &VirtioBlkProps, disk: Disk, geometry: Geometry, limits: Limits) -> Self {
        Self {
            original_wce: disk.backend.write_cache(),
            disk,
            geometry,
            limits,
            serial: p.serial.clone().unwrap_or_default().into_bytes().into(),
            num_queues: p.num_queues,
            queue_size: p.queue_size,
            config_wce: p.config_wce,
            enable_wce: p.x_enable_wce_if_config_wce,
            thread: None,
            iothread: p.iothread.0.clone(),
            active: Vec::new(),
            stalled: Vec::new(),
        }
    }

    fn queue(&self, q: u16) -> Option<&Active> {
        self.active.iter().find(|a| a.queue.index() == q)
    }

    /// The thread that serves the queues.
    fn thread(&mut self, cx: &mut Cx<'_>) -> Option<Arc<IoThread>> {
        if self.thread.is_none() {
            self.thread = match &self.iothread {
                Some(id) => cx.m.iothreads.get(id),
                None => cx.m.iothreads.default_thread().ok(),
            };
        }
        self.thread.clone()
    }

    /// Decides about failed requests.
    fn handle_failed(&mut self, cx: &mut Cx<'_>) {
        for a in &self.active {
            let q = &a.queue;
            for f in q.take_failed() {
                let dir = if f.is_read() { Direction::Read } else { Direction::Write };
                match self.disk.failed(cx, dir, f.error) {
                    ErrorAction::Ignore => q.finish(f, Status::Ok),
                    ErrorAction::Report => q.finish(f, Status::IoErr),
                    ErrorAction::Stop => self.stalled.push((q.index(), f)),
                }
            }
        }
    }
}

impl VirtioDevice for Blk {
    fn id(&self) -> u16 {
        2
    }

    fn features(&self, modern: bool) -> u64 {
        let on = |c: bool, f: u64| if c { f } else { 0 };
        feature::SEG_MAX
            | feature::GEOMETRY
            | feature::BLK_SIZE
            | feature::TOPOLOGY
            | on(!modern, feature::SCSI)
            | on(self.disk.backend.write_cache() || (self.config_wce && self.enable_wce), feature::FLUSH)
            | on(self.config_wce, feature::CONFIG_WCE)
            | on(self.disk.backend.read_only(), feature::RO)
            | on(self.num_queues > 1, feature::MQ)
            | on(self.limits.discard, feature::DISCARD)
            | on(self.limits.write_zeroes, feature::WRITE_ZEROES)
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![self.queue_size; usize::from(self.num_queues)]
    }

    fn config_len(&self) -> usize {
        match (self.limits.discard, self.limits.write_zeroes) {
            (_, true) => 60,
            (true, false) => 0x30,
            // Up to and with the number of queues.
            _ => 0x24,
        }
    }

    fn config(&self, out: &mut [u8]) {
        let mut put = |at: usize, bytes: &[u8]| {
            if let Some(d) = out.get_mut(at..at + bytes.len()) {
                d.copy_from_slice(bytes);
            }
        };
        let (g, l) = (&self.geometry, &self.limits);
        put(0, &self.disk.sectors().to_le_bytes());
        put(0x0c, &g.seg_max.to_le_bytes());
        put(0x10, &(g.chs.cyls as u16).to_le_bytes());
        put(0x12, &[g.chs.heads as u8, g.chs.secs as u8 & !((g.logical / 512 - 1) as u8)]);
        put(0x14, &g.logical.to_le_bytes());
        put(0x18, &[(g.physical / g.logical).trailing_zeros() as u8, 0]);
        put(0x1a, &((g.min_io / g.logical) as u16).to_le_bytes());
        put(0x1c, &(g.opt_io / g.logical).to_le_bytes());
        put(WCE, &[u8::from(self.disk.backend.write_cache()), 0]);
        put(0x22, &self.num_queues.to_le_bytes());
        if l.discard {
            put(0x24, &l.max_discard.to_le_bytes());
            put(0x28, &1u32.to_le_bytes());
            put(0x2c, &(g.discard_granularity >> 9).to_le_bytes());
        }
        if l.write_zeroes {
            put(0x30, &l.max_write_zeroes.to_le_bytes());
            put(0x34, &1u32.to_le_bytes());
            put(0x38, &[1]);
        }
    }

    fn set_config(&mut self, _cx: &mut Cx<'_>, _raise: &mut Raise, offset: usize, data: &[u8]) {
        let Some(wce) = WCE.checked_sub(offset).and_then(|i| data.get(i)) else { return };
        let on = *wce != 0;
        if !on && self.disk.backend.write_cache() {
            // What the cache holds must be stable before the guest believes that everything is.
            let _ = self.disk.backend.flush();
        }
        self.disk.backend.enable_write_cache(on);
    }

    fn wants_eventfds(&self) -> bool {
        true
    }

    fn start(&mut self, cx: &mut Cx<'_>, _raise: &mut Raise, s: &Start<'_>) {
        if s.features & feature::CONFIG_WCE == 0 {
            // Only a driver that flushes may have a write cache.
            self.disk.backend.enable_write_cache(s.features & feature::FLUSH != 0);
        }
        let thread = s.kicks.and_then(|_| self.thread(cx));
        for (i, q) in s.queues.iter().enumerate() {
            let Some(q) = q else { continue };
            let backend = self.disk.backend.clone();
            let queue = BlkQueue::new(q.clone(), backend, self.limits, self.serial.clone(), s.shared.clone());
            let kick = match (&thread, s.kicks.and_then(|k| k.get(i))) {
                (Some(t), Some(k)) => t.add(k, queue.clone()).ok().map(|id| (k.clone(), id)),
                _ => None,
            };
            self.active.push(Active { queue, kick });
        }
        for (index, f) in std::mem::take(&mut self.stalled) {
            if let Some(a) = self.queue(index) {
                a.queue.retry(&f);
            }
        }
        for a in &self.active {
            if a.kick.is_none() {
                a.queue.serve_all();
            }
        }
    }

    fn stop(&mut self, cx: &mut Cx<'_>) {
        for a in &self.active {
            a.queue.quiesce();
        }
        // Requests that failed on the way: finished now, or kept for the next start.
        self.handle_failed(cx);
        for a in self.active.drain(..) {
            if let (Some(t), Some((fd, id))) = (&self.thread, &a.kick) {
                t.remove(fd, *id);
            }
            a.queue.close();
        }
    }

    fn reset(&mut self, _cx: &mut Cx<'_>) {
        self.stalled.clear();
        self.disk.backend.enable_write_cache(self.original_wce);
    }

    fn kick(&mut self, _cx: &mut Cx<'_>, _raise: &mut Raise, q: u16) {
        let Some(a) = self.queue(q) else { return };
        match &a.kick {
            Some((fd, _)) => {
                // Cannot fill up: nobody writes 2^64 kicks.
                let _ = fd.write(1);
            }
            None => a.queue.serve_all(),
        }
    }

    fn attend(&mut self, cx: &mut Cx<'_>, _raise: &mut Raise) {
        self.handle_failed(cx);
    }

    fn block(&mut self) -> Option<&mut dyn BlockFrontend> {
        Some(self)
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

impl BlockFrontend for Blk {
    fn backend(&self) -> Option<rqemu_block::BlockBackend> {
        Some(self.disk.backend.clone())
    }
}

impl Drop for Blk {
    fn drop(&mut self) {
        self.disk.backend.detach();
    }
}
