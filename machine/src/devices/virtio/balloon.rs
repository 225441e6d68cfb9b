//! virtio-balloon (VIRTIO 1.2, section 5.5): pages that the guest gives back, its memory statistics, and free page
//! reporting.
//!
//! Left out: free page hints (they serve migration only).

use std::any::Any;
use std::time::{SystemTime, UNIX_EPOCH};

use rqemu_derive::Device as DeriveDevice;
use serde_json::{json, Map, Value};

use super::core::{self, Transport};
use super::pci::{OwnProps, PciClass};
use super::queue::{Chain, MAX_BURST};
use super::served::MainQueues;
use super::{BuildEnv, Raise, Start, VirtioClass, VirtioDevice, VirtioProps};
use crate::clock::ClockKind;
use crate::device::{Cx, DevId, Device, Place, RealizeCx};
use crate::machine::Machine;
use crate::memory::FlatKind;
use crate::qom::{ClassInfo, Classed, DeviceClass, IothreadRef};
use crate::{qerr, QError, QResult};

const PAGE: u64 = 4096;
const STATS_VQ: u64 = 1 << 1;
const DEFLATE_ON_OOM: u64 = 1 << 2;
const PAGE_POISON: u64 = 1 << 4;
const REPORTING: u64 = 1 << 5;

const INFLATE: u16 = 0;
const DEFLATE: u16 = 1;
const STATS: u16 = 2;
const REPORT: u16 = 3;

/// Names of statistics by tag.
const STAT_NAMES: [&str; 10] = [
    "stat-swap-in",
    "stat-swap-out",
    "stat-major-faults",
    "stat-minor-faults",
    "stat-free-memory",
    "stat-total-memory",
    "stat-available-memory",
    "stat-disk-caches",
    "stat-htlb-pgalloc",
    "stat-htlb-pgfail",
];

/// Properties of `virtio-balloon-device`.
#[derive(DeriveDevice, Clone, Debug)]
#[class(name = "virtio-balloon-device", parent = "virtio-device", bus = Virtio, category = Misc,
    extra("guest-stats-polling-interval", "int"), extra("guest-stats", "guest statistics"))]
pub struct VirtioBalloonProps {
    /// on/off
    #[prop]
    pub deflate_on_oom: bool,
    /// on/off
    #[prop]
    pub free_page_hint: bool,
    /// on/off
    #[prop(default = true)]
    pub page_poison: bool,
    /// on/off
    #[prop]
    pub free_page_reporting: bool,
    #[prop(name = "qemu-4-0-config-size")]
    pub qemu_4_0_config_size: bool,
    #[prop(object)]
    pub iothread: IothreadRef,
    /// Those of every virtio device.
    #[base]
    pub virtio: VirtioProps,
}

/// The balloon has no transport properties of its own, and no MSI-X.
#[derive(DeriveDevice)]
pub struct BalloonPciProps {}

impl OwnProps for BalloonPciProps {}

impl PciClass for VirtioBalloonProps {
    type Own = BalloonPciProps;
    const LEGACY_ID: u16 = 0x1002;
    const PCI_CLASS: u16 = 0x00ff;
    fn class_info() -> &'static ClassInfo {
        Self::CLASS
    }
}

crate::virtio_pci_classes! {
    device: super::balloon::VirtioBalloonProps, own: super::balloon::BalloonPciProps, category: Misc,
    parent: "virtio-balloon-pci-base", alias: "virtio-balloon", backend: "virtio-balloon-device",
    generic: "virtio-balloon-pci", transitional: "virtio-balloon-pci-transitional",
    non_transitional: "virtio-balloon-pci-non-transitional",
    extra: ("guest-stats-polling-interval", "int"),
    extra: ("guest-stats", "guest statistics"),
}

impl DeviceClass for VirtioBalloonProps {
    fn realize(&mut self, cx: &mut RealizeCx<'_>) -> QResult<Box<dyn Device>> {
        super::part::realize_on_bus(self, cx, false)
    }
}

impl VirtioClass for VirtioBalloonProps {
    fn build(&mut self, cx: &mut RealizeCx<'_>, _env: &BuildEnv) -> QResult<Box<dyn VirtioDevice>> {
        let me = cx.id();
        if cx.m().tree.iter().any(|n| n.class.name == "virtio-balloon-device" && n.id != me) {
            return Err(qerr!("Only one balloon device is supported"));
        }
        if self.free_page_hint {
            return Err(match self.iothread.0 {
                None => qerr!("'free-page-hint' requires 'iothread' to be set"),
                Some(_) => qerr!("free page hints are not supported"),
            });
        }
        Ok(Box::new(Balloon {
            deflate_on_oom: self.deflate_on_oom,
            page_poison: self.page_poison,
            reporting: self.free_page_reporting,
            long_config: self.page_poison || self.qemu_4_0_config_size,
            num_pages: 0,
            actual: 0,
            poison: 0,
            poison_negotiated: false,
            stats: [u64::MAX; STAT_NAMES.len()],
            last_update: 0,
            interval: 0,
            held: None,
            queues: MainQueues::default(),
        }))
    }

    fn common(&self) -> &VirtioProps {
        &self.virtio
    }
}

/// The balloon.
pub struct Balloon {
    deflate_on_oom: bool,
    page_poison: bool,
    reporting: bool,
    long_config: bool,
    /// Pages that the host wants.
    num_pages: u32,
    /// Pages that the guest has given.
    actual: u32,
    /// What the guest fills free pages with.
    poison: u32,
    poison_negotiated: bool,
    stats: [u64; STAT_NAMES.len()],
    /// Seconds since 1970.
    last_update: u64,
    /// Seconds between statistics; 0 for none.
    interval: u32,
    /// The guest's buffer for statistics, kept until new ones are wanted.
    held: Option<u16>,
    queues: MainQueues,
}

/// Gives the host the memory of `[ptr, ptr + len)`.
///
/// # Safety
/// The range must be mapped guest RAM, on page boundaries; its contents are lost.
unsafe fn discard(ptr: *mut u8, len: usize) {
    // SAFETY: as promised by the caller. A hole in a shared file is what frees its memory; private memory refuses that.
    unsafe {
        if libc::madvise(ptr.cast(), len, libc::MADV_REMOVE) != 0 {
            libc::madvise(ptr.cast(), len, libc::MADV_DONTNEED);
        }
    }
}

impl Balloon {
    fn inflate(&mut self, cx: &mut Cx<'_>, raise: &mut Raise, q: u16) {
        let mut chain = Chain::default();
        let mut burst = 0..MAX_BURST;
        while burst.next().is_some() && self.queues.pop(raise, q, &mut chain) {
            // A driver sends 256 at a time; more than a queue of these only costs time.
            let pages = chain.readable.to_vec(1 << 20);
            if q == INFLATE {
                for p in pages.chunks_exact(4) {
                    let pfn = u32::from_le_bytes([p[0], p[1], p[2], p[3]]);
                    give_page(cx, u64::from(pfn) * PAGE);
                }
            }
            self.queues.push(raise, q, chain.head, 0);
            self.queues.notify(raise, q);
        }
    }

    fn take_stats(&mut self, cx: &mut Cx<'_>, raise: &mut Raise) {
        let mut chain = Chain::default();
        let mut burst = 0..MAX_BURST;
        while burst.next().is_some() && self.queues.pop(raise, STATS, &mut chain) {
            if let Some(old) = self.held.replace(chain.head) {
                // A driver that sends two at once gets one back.
                self.queues.push(raise, STATS, old, 0);
                self.queues.notify(raise, STATS);
            }
            for s in chain.readable.to_vec(4096).chunks_exact(10) {
                let tag = usize::from(u16::from_le_bytes([s[0], s[1]]));
                let value = u64::from_le_bytes([s[2], s[3], s[4], s[5], s[6], s[7], s[8], s[9]]);
                if let Some(v) = self.stats.get_mut(tag) {
                    *v = value;
                }
            }
            self.last_update = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
            self.arm(cx);
        }
    }

    fn arm(&self, cx: &mut Cx<'_>) {
        let at = (self.interval > 0)
            .then(|| cx.m.clock.now(ClockKind::Virtual) + i64::from(self.interval) * 1_000_000_000);
        cx.timer_set(0, at);
    }

    fn report(&mut self, raise: &mut Raise) {
        let mut chain = Chain::default();
        let mut burst = 0..MAX_BURST;
        while burst.next().is_some() && self.queues.pop(raise, REPORT, &mut chain) {
            // A page that must read as a pattern cannot be dropped.
            if !(self.poison_negotiated && self.poison != 0) {
                for s in chain.writable.list() {
                    let (start, len) = (s.ptr() as usize, s.len());
                    if (start | len) & (PAGE as usize - 1) == 0 {
                        // SAFETY: the span is mapped, writable guest RAM, which the guest declares free.
                        unsafe { discard(s.ptr(), len) };
                    }
                }
            }
            self.queues.push(raise, REPORT, chain.head, 0);
            self.queues.notify(raise, REPORT);
        }
    }
}

/// Gives the page at a guest address back to the host, if it is RAM.
fn give_page(cx: &Cx<'_>, addr: u64) {
    let mem = &cx.m.flat().mem;
    let is_ram = mem.find(addr).is_some_and(|r| matches!(r.kind, FlatKind::Ram { readonly: false, .. }));
    if let Some(p) =
        mem.host_ptr(addr, PAGE, true).filter(|p| is_ram && *p as usize & (PAGE as usize - 1) == 0)
    {
        // SAFETY: one page of mapped guest RAM, which the guest gives away.
        unsafe { discard(p, PAGE as usize) };
    }
}

impl VirtioDevice for Balloon {
    fn id(&self) -> u16 {
        5
    }
    fn features(&self, _modern: bool) -> u64 {
        let on = |c: bool, f: u64| if c { f } else { 0 };
        STATS_VQ
            | on(self.deflate_on_oom, DEFLATE_ON_OOM)
            | on(self.page_poison, PAGE_POISON)
            | on(self.reporting, REPORTING)
    }
    fn queue_sizes(&self) -> Vec<u16> {
        let mut v = vec![128; 3];
        if self.reporting {
            v.push(32);
        }
        v
    }
    fn config_len(&self) -> usize {
        if self.long_config {
            16
        } else {
            8
        }
    }
    fn config(&self, out: &mut [u8]) {
        for (i, v) in [self.num_pages, self.actual, 0, self.poison].into_iter().enumerate() {
            if let Some(d) = out.get_mut(4 * i..4 * i + 4) {
                d.copy_from_slice(&v.to_le_bytes());
            }
        }
    }
    fn set_config(&mut self, cx: &mut Cx<'_>, _raise: &mut Raise, offset: usize, data: &[u8]) {
        let merge = |old: u32, at: usize| {
            let mut b = old.to_le_bytes();
            for (i, d) in data.iter().enumerate() {
                if let Some(x) = (offset + i).checked_sub(at).and_then(|i| b.get_mut(i)) {
                    *x = *d;
                }
            }
            u32::from_le_bytes(b)
        };
        let actual = merge(self.actual, 4);
        if self.poison_negotiated {
            self.poison = merge(self.poison, 12);
        }
        if actual != self.actual {
            self.actual = actual;
            let left = cx.m.info.ram_size.saturating_sub(u64::from(actual) * PAGE);
            cx.event("BALLOON_CHANGE", Some(json!({"actual": left})));
        }
    }
    fn start(&mut self, cx: &mut Cx<'_>, raise: &mut Raise, s: &Start<'_>) {
        self.poison_negotiated = s.features & PAGE_POISON != 0;
        self.queues.start(s);
        for q in 0..4 {
            self.kick(cx, raise, q);
        }
    }
    fn stop(&mut self, _cx: &mut Cx<'_>) {
        self.queues.stop();
    }
    fn reset(&mut self, _cx: &mut Cx<'_>) {
        self.held = None;
        self.poison = 0;
        self.poison_negotiated = false;
    }
    fn kick(&mut self, cx: &mut Cx<'_>, raise: &mut Raise, q: u16) {
        match q {
            INFLATE | DEFLATE => self.inflate(cx, raise, q),
            STATS => self.take_stats(cx, raise),
            _ => self.report(raise),
        }
    }
    fn timer(&mut self, cx: &mut Cx<'_>, raise: &mut Raise, _id: u32) {
        match self.held.take() {
            // The buffer coming back is the wish for new numbers.
            Some(head) => {
                self.queues.push(raise, STATS, head, 0);
                self.queues.notify(raise, STATS);
            }
            None => self.arm(cx),
        }
    }
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

/// `guest-stats`, `guest-stats-polling-interval`, and the commands behind `balloon` and `query-balloon`.
impl Machine {
    fn balloon_transport(&self) -> Option<DevId> {
        let n = self.tree.by_class("virtio-balloon-device")?;
        match n.place {
            Place::Child(p, _) => Some(p),
            _ => self.tree.bus(n.parent_bus?)?.owner,
        }
    }

    fn with_balloon<R>(
        &mut self,
        f: impl FnOnce(&mut dyn Transport, &mut Cx<'_>) -> QResult<R>,
    ) -> QResult<R> {
        let inactive =
            || QError::new(crate::ErrorClass::DeviceNotActive, "No balloon device has been activated");
        let dev = self.balloon_transport().ok_or_else(inactive)?;
        let r = self.with_dev(dev, |d, cx| super::part::transport(d).map(|t| f(t, cx)));
        r.flatten().unwrap_or_else(|| Err(inactive()))
    }

    /// Asks the guest to keep only `bytes` of its memory.
    ///
    /// # Errors
    /// There is no balloon.
    pub fn balloon_set(&mut self, bytes: u64) -> QResult<()> {
        let ram = self.info.ram_size;
        self.with_balloon(|t, cx| {
            if let Some(b) = balloon(t) {
                b.num_pages = u32::try_from((ram - bytes.min(ram)) / PAGE).unwrap_or(u32::MAX);
            }
            core::config_changed(t, cx);
            Ok(())
        })
    }

    /// Memory that the guest has now, in bytes.
    ///
    /// # Errors
    /// There is no balloon.
    pub fn balloon_actual(&mut self) -> QResult<u64> {
        let ram = self.info.ram_size;
        self.with_balloon(|t, _| {
            let pages = balloon(t).map_or(0, |b| b.actual);
            Ok(ram.saturating_sub(u64::from(pages) * PAGE))
        })
    }

    /// Property `guest-stats`.
    ///
    /// # Errors
    /// There is no balloon.
    pub fn balloon_stats(&mut self) -> QResult<Value> {
        self.with_balloon(|t, _| {
            let Some(b) = balloon(t) else { return Ok(Value::Null) };
            let stats: Map<String, Value> =
                STAT_NAMES.iter().zip(b.stats).map(|(n, v)| ((*n).to_string(), v.into())).collect();
            Ok(json!({"stats": stats, "last-update": b.last_update}))
        })
    }

    /// Property `guest-stats-polling-interval`, in seconds.
    ///
    /// # Errors
    /// There is no balloon.
    pub fn balloon_polling_interval(&mut self) -> QResult<u32> {
        self.with_balloon(|t, _| Ok(balloon(t).map_or(0, |b| b.interval)))
    }

    /// Sets property `guest-stats-polling-interval`; 0 switches polling off.
    ///
    /// # Errors
    /// There is no balloon, or the value is out of range.
    pub fn balloon_set_polling_interval(&mut self, seconds: i64) -> QResult<()> {
        if seconds < 0 {
            return Err(qerr!("timer value must be greater than zero"));
        }
        let seconds = u32::try_from(seconds).map_err(|_| qerr!("timer value is too big"))?;
        self.with_balloon(|t, cx| {
            if let Some(b) = balloon(t) {
                b.interval = seconds;
                b.arm(cx);
            }
            Ok(())
        })
    }
}

fn balloon(t: &mut dyn Transport) -> Option<&mut Balloon> {
    t.core().dev.as_any().downcast_mut()
}
