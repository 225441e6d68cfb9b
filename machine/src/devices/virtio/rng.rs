//! virtio-rng (VIRTIO 1.2, section 5.4): random bytes, at most `max-bytes` every `period` milliseconds.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use rqemu_derive::Device as DeriveDevice;

use super::pci::{OwnProps, PciClass};
use super::queue::Chain;
use super::served::MainQueues;
use super::{BuildEnv, Raise, Start, VirtioClass, VirtioDevice, VirtioProps};
use crate::device::{Cx, Device, RealizeCx};
use crate::qom::{ClassInfo, Classed, DeviceClass, RngRef};
use crate::{qerr, QError, QResult};

/// Where random bytes come from (`rng-builtin`, `rng-random`).
pub trait RngSource: Send {
    /// Fills as much of `buf` as it can without waiting; returns how much.
    fn fill(&mut self, buf: &mut [u8]) -> usize;
}

/// The host kernel's generator.
struct Builtin;

impl RngSource for Builtin {
    fn fill(&mut self, buf: &mut [u8]) -> usize {
        // SAFETY: writes at most `buf.len()` bytes into `buf`.
        let n = unsafe { libc::getrandom(buf.as_mut_ptr().cast(), buf.len(), 0) };
        usize::try_from(n).unwrap_or(0)
    }
}

/// Sources made by `-object`.
#[derive(Default)]
pub struct RngSources {
    named: BTreeMap<String, Arc<Mutex<dyn RngSource>>>,
}

impl RngSources {
    /// Registers the source of an object.
    pub fn add(&mut self, id: &str, source: Arc<Mutex<dyn RngSource>>) {
        self.named.insert(id.to_string(), source);
    }

    /// The source of an object.
    pub fn get(&self, id: &str) -> Option<Arc<Mutex<dyn RngSource>>> {
        self.named.get(id).cloned()
    }

    /// Forgets an object.
    pub fn remove(&mut self, id: &str) {
        self.named.remove(id);
    }
}

/// Properties of `virtio-rng-device`.
#[derive(DeriveDevice, Clone, Debug)]
#[class(name = "virtio-rng-device", parent = "virtio-device", bus = Virtio, category = Misc)]
pub struct VirtioRngProps {
    #[prop(default = i64::MAX as u64)]
    pub max_bytes: u64,
    #[prop(default = 65_536u32)]
    pub period: u32,
    #[prop(object)]
    pub rng: RngRef,
    /// Those of every virtio device.
    #[base]
    pub virtio: VirtioProps,
}

/// Transport properties on PCI.
#[derive(DeriveDevice)]
pub struct RngPciProps {
    /// on/off
    #[prop(default = true)]
    pub ioeventfd: bool,
    #[prop(default = u32::MAX)]
    pub vectors: u32,
}

impl OwnProps for RngPciProps {
    fn ioeventfd(&self) -> bool {
        self.ioeventfd
    }
    fn vectors(&mut self) -> Option<&mut u32> {
        Some(&mut self.vectors)
    }
}

impl PciClass for VirtioRngProps {
    type Own = RngPciProps;
    const LEGACY_ID: u16 = 0x1005;
    const PCI_CLASS: u16 = 0x00ff;
    fn default_vectors(_queues: usize) -> u32 {
        2
    }
    fn class_info() -> &'static ClassInfo {
        Self::CLASS
    }
}

crate::virtio_pci_classes! {
    device: super::rng::VirtioRngProps, own: super::rng::RngPciProps, category: Misc,
    parent: "virtio-rng-pci-base", alias: "virtio-rng", backend: "virtio-rng-device",
    generic: "virtio-rng-pci", transitional: "virtio-rng-pci-transitional",
    non_transitional: "virtio-rng-pci-non-transitional",
}

impl DeviceClass for VirtioRngProps {
    fn realize(&mut self, cx: &mut RealizeCx<'_>) -> QResult<Box<dyn Device>> {
        super::part::realize_on_bus(self, cx, false)
    }
}

impl VirtioClass for VirtioRngProps {
    fn build(&mut self, cx: &mut RealizeCx<'_>, _env: &BuildEnv) -> QResult<Box<dyn VirtioDevice>> {
        if self.period == 0 {
            return Err(qerr!("'period' parameter expects a positive integer"));
        }
        if self.max_bytes > i64::MAX as u64 {
            return Err(qerr!("'max-bytes' parameter must be non-negative, and less than 2^63"));
        }
        let source = match self.rng.0.as_deref() {
            None => Arc::new(Mutex::new(Builtin)) as Arc<Mutex<dyn RngSource>>,
            Some(id) => {
                let s = cx.m().rngs.named.get(id).cloned();
                s.ok_or_else(|| QError::device_not_found(id))?
            }
        };
        Ok(Box::new(Rng {
            source,
            max_bytes: self.max_bytes,
            period_ns: i64::from(self.period) * 1_000_000,
            left: self.max_bytes,
            timer: false,
            queues: MainQueues::default(),
        }))
    }

    fn common(&self) -> &VirtioProps {
        &self.virtio
    }
}

/// Most bytes for one request: a guest may offer gigabytes, and is content with less.
const MAX_REQUEST: usize = 64 << 10;

struct Rng {
    source: Arc<Mutex<dyn RngSource>>,
    max_bytes: u64,
    period_ns: i64,
    /// Bytes left in this period.
    left: u64,
    timer: bool,
    queues: MainQueues,
}

impl Rng {
    fn serve(&mut self, cx: &mut Cx<'_>, raise: &mut Raise) {
        let mut chain = Chain::default();
        while self.left > 0 && self.queues.pop(raise, 0, &mut chain) {
            let room = u64::try_from(chain.writable.total()).unwrap_or(u64::MAX);
            let n = room.min(self.left).min(MAX_REQUEST as u64) as usize;
            let mut buf = vec![0; n];
            let got = self.source.lock().fill(&mut buf);
            chain.writable.write(0, &buf[..got.min(n)]);
            self.left -= got as u64;
            self.queues.push(raise, 0, chain.head, got);
            self.queues.notify(raise, 0);
            if !self.timer && self.max_bytes != i64::MAX as u64 {
                self.timer = true;
                let at = cx.now() + self.period_ns;
                cx.timer_set(0, Some(at));
            }
        }
    }
}

impl VirtioDevice for Rng {
    fn id(&self) -> u16 {
        4
    }
    fn features(&self, _modern: bool) -> u64 {
        0
    }
    fn queue_sizes(&self) -> Vec<u16> {
        vec![8]
    }
    fn config_len(&self) -> usize {
        0
    }
    fn config(&self, _out: &mut [u8]) {}
    fn start(&mut self, cx: &mut Cx<'_>, raise: &mut Raise, s: &Start<'_>) {
        self.queues.start(s);
        self.serve(cx, raise);
    }
    fn stop(&mut self, _cx: &mut Cx<'_>) {
        self.queues.stop();
    }
    fn reset(&mut self, _cx: &mut Cx<'_>) {}
    fn kick(&mut self, cx: &mut Cx<'_>, raise: &mut Raise, _q: u16) {
        self.serve(cx, raise);
    }
    fn timer(&mut self, cx: &mut Cx<'_>, raise: &mut Raise, _id: u32) {
        self.timer = false;
        self.left = self.max_bytes;
        self.serve(cx, raise);
    }
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}
