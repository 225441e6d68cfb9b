//! What all transports share: features, status, queue set-up, and the life of the device behind them.

use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

use super::queue::{Layout, Queue, QueueError, RingFeatures, MAX_SIZE};
use super::shared::Shared;
use super::{
    status, Raise, Start, VirtioDevice, F_ANY_LAYOUT, F_BAD_FEATURE, F_NOTIFY_ON_EMPTY, F_VERSION_1,
    NO_VECTOR,
};
use crate::device::Cx;

/// A queue as the driver set it up.
#[derive(Clone)]
pub struct VqConfig {
    /// Size after reset; 0 if there is no such queue.
    pub max: u16,
    /// Where it lies (with the size that the driver chose).
    pub layout: Layout,
    /// MSI-X vector.
    pub vector: u16,
    /// The live queue, if it is enabled.
    pub live: Option<Arc<Queue>>,
    /// It was set up through the legacy interface.
    pub legacy: bool,
}

impl VqConfig {
    fn new(max: u16) -> Self {
        let layout = Layout { size: max, ..Layout::default() };
        Self { max, layout, vector: NO_VECTOR, live: None, legacy: false }
    }
}

/// State between the registers of a transport and a device.
pub struct Core {
    /// The device.
    pub dev: Box<dyn VirtioDevice>,
    /// What other threads use.
    pub shared: Arc<Shared>,
    /// Device status.
    pub status: u8,
    /// Offered features.
    pub host_features: u64,
    /// Features that the driver accepted.
    pub guest_features: u64,
    /// Configuration generation.
    pub generation: u8,
    /// Selected 32-bit word of the offered features.
    pub device_feature_sel: u32,
    /// Selected word of the accepted features.
    pub driver_feature_sel: u32,
    /// Selected queue.
    pub queue_sel: u16,
    /// MSI-X vector of configuration changes.
    pub config_vector: u16,
    /// Queues.
    pub queues: Vec<VqConfig>,
    /// The device serves its queues.
    pub running: bool,
    /// The machine is stopped: the device must not run.
    paused: bool,
    /// Guest mistakes reported so far.
    complaints: u32,
    attention: Option<(Arc<EventFd>, crate::event_loop::FdToken)>,
}

/// What [`Core`] needs from a transport.
pub trait Transport {
    /// The shared part.
    fn core(&mut self) -> &mut Core;
    /// Delivers the interrupt of queue `q`.
    fn raise_queue(&mut self, cx: &mut Cx<'_>, q: u16);
    /// Delivers the configuration change interrupt.
    fn raise_config(&mut self, cx: &mut Cx<'_>);
    /// The device is about to serve its queues: prepares eventfds. Gives kick descriptors if kicks arrive there.
    fn starting(&mut self, cx: &mut Cx<'_>) -> Option<Vec<Arc<EventFd>>>;
    /// The device was reset: interrupt lines go down.
    fn was_reset(&mut self, cx: &mut Cx<'_>);
}

impl Core {
    /// For a device whose transport and properties offer `features` besides its own.
    pub fn new(dev: Box<dyn VirtioDevice>, features: u64) -> Self {
        let modern = features >> F_VERSION_1 & 1 != 0;
        let host_features = features | dev.features(modern);
        let queues: Vec<_> = dev.queue_sizes_with(0).into_iter().map(VqConfig::new).collect();
        Self {
            shared: Shared::new(queues.len()),
            dev,
            status: 0,
            host_features,
            guest_features: 0,
            generation: 0,
            device_feature_sel: 0,
            driver_feature_sel: 0,
            queue_sel: 0,
            config_vector: NO_VECTOR,
            queues,
            running: false,
            paused: false,
            complaints: 0,
            attention: None,
        }
    }

    /// Features that the modern interface shows.
    pub fn modern_features(&self) -> u64 {
        self.host_features
            & !(1 << F_NOTIFY_ON_EMPTY | 1 << F_ANY_LAYOUT | 1 << F_BAD_FEATURE | self.dev.legacy_only())
    }

    /// Whether the driver is a modern one.
    pub fn version_1(&self) -> bool {
        self.guest_features >> F_VERSION_1 & 1 != 0
    }

    /// The selected queue.
    pub fn selected(&mut self) -> Option<&mut VqConfig> {
        self.queues.get_mut(usize::from(self.queue_sel))
    }

    /// The driver accepts features (masked to what is offered); refused after it said they are settled.
    pub fn set_features(&mut self, f: u64) {
        if self.status & status::FEATURES_OK == 0 {
            self.guest_features = f & self.host_features;
            self.resize_queues();
        }
    }

    /// Which queues there are may depend on the accepted features.
    fn resize_queues(&mut self) {
        for (q, max) in self.queues.iter_mut().zip(self.dev.queue_sizes_with(self.guest_features)) {
            if q.max != max {
                *q = VqConfig { vector: q.vector, ..VqConfig::new(max) };
            }
        }
    }

    /// The driver sets the selected queue's size.
    pub fn set_queue_size(&mut self, size: u16) {
        if let Some(q) = self.selected() {
            if size != 0 && q.max != 0 && size <= MAX_SIZE && q.live.is_none() {
                q.layout.size = size;
            }
        }
    }

    /// Configuration space, little-endian, `size` bytes at `offset`; ones outside.
    pub fn read_config(&self, offset: u64, size: u8) -> u64 {
        let len = self.dev.config_len().min(256);
        let end = offset + u64::from(size);
        if end > len as u64 {
            return crate::machine::mask(size);
        }
        let mut buf = [0u8; 256];
        self.dev.config(&mut buf[..len]);
        buf[offset as usize..end as usize].iter().rev().fold(0, |v, b| v << 8 | u64::from(*b))
    }
}

/// Guest write to the configuration space.
pub fn write_config(t: &mut dyn Transport, cx: &mut Cx<'_>, offset: u64, size: u8, value: u64) {
    let core = t.core();
    if offset + u64::from(size) > core.dev.config_len().min(256) as u64 {
        return;
    }
    let mut raise = Raise::default();
    let bytes = value.to_le_bytes();
    core.dev.set_config(cx, &mut raise, offset as usize, &bytes[..usize::from(size).min(8)]);
    deliver(t, cx, raise);
}

/// Puts the selected queue into service with the layout in its configuration. `legacy`: by the legacy interface.
pub fn enable_queue(t: &mut dyn Transport, cx: &mut Cx<'_>, legacy: bool) {
    let core = t.core();
    let index = core.queue_sel;
    let features = RingFeatures::from_bits(core.guest_features);
    let Some(q) = core.selected() else { return };
    if q.max == 0 || q.layout.size == 0 {
        return;
    }
    let was_live = q.live.is_some();
    if was_live && q.live.as_ref().is_some_and(|l| l.layout == q.layout) {
        return;
    }
    q.live = Some(Arc::new(Queue::new(index, q.layout, features, &cx.m.maps)));
    q.legacy = legacy;
    if core.running {
        restart(t, cx);
    }
}

/// Takes the selected queue out of service.
pub fn reset_queue(t: &mut dyn Transport, cx: &mut Cx<'_>) {
    let core = t.core();
    let running = core.running;
    if running {
        stop(t, cx);
    }
    if let Some(q) = t.core().selected() {
        let (max, vector) = (q.max, q.vector);
        *q = VqConfig::new(max);
        q.vector = vector;
    }
    if running {
        start(t, cx);
    }
}

/// The driver writes the status register.
pub fn set_status(t: &mut dyn Transport, cx: &mut Cx<'_>, value: u8) {
    if value == 0 {
        return reset(t, cx);
    }
    let core = t.core();
    if value & status::DRIVER_OK != 0 && core.status & status::DRIVER_OK == 0 {
        core.status = value;
        start(t, cx);
    } else {
        let was = core.status;
        core.status = value | (was & status::NEEDS_RESET);
        if value & status::DRIVER_OK == 0 && core.running {
            stop(t, cx);
        }
    }
}

/// Back to power-on; nothing touches guest memory afterwards.
pub fn reset(t: &mut dyn Transport, cx: &mut Cx<'_>) {
    if t.core().running {
        stop(t, cx);
    }
    let core = t.core();
    core.dev.reset(cx);
    core.shared.reset();
    core.status = 0;
    core.guest_features = 0;
    core.queue_sel = 0;
    core.device_feature_sel = 0;
    core.driver_feature_sel = 0;
    core.config_vector = NO_VECTOR;
    for (q, max) in core.queues.iter_mut().zip(core.dev.queue_sizes_with(0)) {
        *q = VqConfig::new(max);
    }
    t.was_reset(cx);
}

/// Makes the device serve its queues.
pub fn start(t: &mut dyn Transport, cx: &mut Cx<'_>) {
    let core = t.core();
    if core.running || core.paused || core.shared.is_broken() {
        return;
    }
    let features = RingFeatures::from_bits(core.guest_features);
    for q in core.queues.iter().filter_map(|q| q.live.as_ref()) {
        q.set_features(features);
    }
    core.watch(cx);
    let kicks = if core.dev.wants_eventfds() { t.starting(cx) } else { None };
    let core = t.core();
    core.running = true;
    let live: Vec<_> = core.queues.iter().map(|q| q.live.clone()).collect();
    let mut raise = Raise::default();
    let s = Start {
        features: core.guest_features,
        queues: &live,
        kicks: kicks.as_deref(),
        shared: &core.shared.clone(),
    };
    core.dev.start(cx, &mut raise, &s);
    deliver(t, cx, raise);
    attend_pending(t, cx);
}

/// Makes the device stop serving its queues, in-flight requests included.
pub fn stop(t: &mut dyn Transport, cx: &mut Cx<'_>) {
    let core = t.core();
    if !core.running {
        return;
    }
    core.dev.stop(cx);
    core.running = false;
    // Interrupts that the main loop has not delivered yet.
    attend(t, cx);
    for q in t.core().queues.iter().filter_map(|q| q.live.as_ref()) {
        q.avail.lock().release();
        q.used.lock().release();
    }
}

/// The machine stops or goes on.
pub fn run_state_changed(t: &mut dyn Transport, cx: &mut Cx<'_>, running: bool) {
    t.core().paused = !running;
    if !running {
        stop(t, cx);
    } else if t.core().status & status::DRIVER_OK != 0 {
        start(t, cx);
    }
}

fn restart(t: &mut dyn Transport, cx: &mut Cx<'_>) {
    stop(t, cx);
    start(t, cx);
}

/// The guest kicked queue `q`.
pub fn kick(t: &mut dyn Transport, cx: &mut Cx<'_>, q: u16) {
    let core = t.core();
    let live = core.queues.get(usize::from(q)).is_some_and(|q| q.live.is_some());
    if !live || core.shared.is_broken() {
        return;
    }
    if !core.running {
        // A legacy driver may use its queues before it says that it is ready.
        if core.version_1() || core.paused {
            return;
        }
        start(t, cx);
    }
    let mut raise = Raise::default();
    t.core().dev.kick(cx, &mut raise, q);
    deliver(t, cx, raise);
    attend_pending(t, cx);
}

/// A timer of the device expired.
pub fn timer(t: &mut dyn Transport, cx: &mut Cx<'_>, id: u32) {
    let mut raise = Raise::default();
    t.core().dev.timer(cx, &mut raise, id);
    deliver(t, cx, raise);
}

/// Delivers what other threads left.
pub fn attend(t: &mut dyn Transport, cx: &mut Cx<'_>) {
    let mut raise = Raise::default();
    let core = t.core();
    core.shared.take_attention();
    if core.running {
        core.dev.attend(cx, &mut raise);
    }
    for q in core.shared.take_pending() {
        raise.queue(q);
    }
    if let Some(e) = core.shared.take_error() {
        raise.broken(e);
    }
    deliver(t, cx, raise);
}

/// Delivers at once what a call left behind, instead of waking the main loop for it.
fn attend_pending(t: &mut dyn Transport, cx: &mut Cx<'_>) {
    if t.core().shared.take_attention() {
        attend(t, cx);
    }
}

/// The configuration space changed by itself.
pub fn config_changed(t: &mut dyn Transport, cx: &mut Cx<'_>) {
    let core = t.core();
    if core.status & status::DRIVER_OK == 0 {
        return;
    }
    core.generation = core.generation.wrapping_add(1);
    t.raise_config(cx);
}

/// Delivers what a device call asked for.
pub fn deliver(t: &mut dyn Transport, cx: &mut Cx<'_>, raise: Raise) {
    for q in raise.queues {
        t.raise_queue(cx, q);
    }
    if raise.config {
        config_changed(t, cx);
    }
    if let Some(e) = raise.broken {
        broken(t, cx, e);
    }
}

/// The guest broke the device: it needs a reset.
pub fn broken(t: &mut dyn Transport, cx: &mut Cx<'_>, e: QueueError) {
    let core = t.core();
    core.shared.fail(e);
    core.shared.take_error();
    // A guest that does it again and again must not fill a disk with messages.
    if core.complaints < 10 {
        core.complaints += 1;
        eprintln!("rqemu-system-x86_64: virtio: {e}");
    }
    if core.version_1() {
        core.status |= status::NEEDS_RESET;
        config_changed(t, cx);
    }
}

impl Core {
    /// Lets the main loop hear from other threads (once).
    fn watch(&mut self, cx: &mut Cx<'_>) {
        if self.attention.is_some() {
            return;
        }
        let flags = vmm_sys_util::eventfd::EFD_NONBLOCK | vmm_sys_util::eventfd::EFD_CLOEXEC;
        let Ok(fd) = EventFd::new(flags) else { return };
        let fd = Arc::new(fd);
        let raw = std::os::fd::AsRawFd::as_raw_fd(&*fd);
        if let Ok(token) = cx.m.watch_device_fd(raw, cx.dev, 0) {
            self.shared.set_attention(Some(fd.clone()));
            self.attention = Some((fd, token));
        }
    }

    /// Undoes everything before the device is dropped (stopped before).
    pub fn unrealize(&mut self, cx: &mut Cx<'_>) {
        self.dev.unrealize(cx);
        self.shared.set_attention(None);
        if let Some((_, token)) = self.attention.take() {
            cx.m.fds.remove(token);
        }
    }
}

/// The network side of a transport, for its [`crate::net::NetFrontend`].
pub mod network {
    use super::{config_changed, deliver, Cx, Raise, Transport};
    use crate::net::RxFilter;

    /// A frame came in; `false` if it must wait.
    pub fn receive(t: &mut dyn Transport, cx: &mut Cx<'_>, queue: u32, frame: &[u8]) -> bool {
        let core = t.core();
        if !core.running || core.shared.is_broken() {
            return false;
        }
        let mut raise = Raise::default();
        let Some(n) = core.dev.net() else { return true };
        let taken = n.receive(cx, &mut raise, queue, frame);
        deliver(t, cx, raise);
        taken
    }

    /// A frame that waited is gone.
    pub fn sent(t: &mut dyn Transport, cx: &mut Cx<'_>, queue: u32) {
        let core = t.core();
        if !core.running || core.shared.is_broken() {
            return;
        }
        let mut raise = Raise::default();
        if let Some(n) = core.dev.net() {
            n.sent(cx, &mut raise, queue);
        }
        deliver(t, cx, raise);
    }

    /// The link went up or down.
    pub fn link_changed(t: &mut dyn Transport, cx: &mut Cx<'_>, up: bool) {
        let mut raise = Raise::default();
        if let Some(n) = t.core().dev.net() {
            n.link_changed(&mut raise, up);
        }
        if raise.config {
            config_changed(t, cx);
        }
    }

    /// The guest is to announce itself.
    pub fn announce(t: &mut dyn Transport, cx: &mut Cx<'_>) {
        let mut raise = Raise::default();
        if let Some(n) = t.core().dev.net() {
            n.announce(&mut raise);
        }
        if raise.config {
            config_changed(t, cx);
        }
    }

    /// What the device lets in.
    pub fn rx_filter(t: &mut dyn Transport) -> Option<RxFilter> {
        Some(t.core().dev.net()?.rx_filter())
    }
}

/// Implements [`crate::net::NetFrontend`] for a transport.
macro_rules! net_frontend {
    ($t:ty) => {
        impl $crate::net::NetFrontend for $t {
            fn can_receive(&mut self, _queue: u32) -> bool {
                self.core.running
            }
            fn receive(&mut self, cx: &mut $crate::device::Cx<'_>, queue: u32, frame: &[u8]) -> bool {
                $crate::devices::virtio::core::network::receive(self, cx, queue, frame)
            }
            fn sent(&mut self, cx: &mut $crate::device::Cx<'_>, queue: u32) {
                $crate::devices::virtio::core::network::sent(self, cx, queue);
            }
            fn link_changed(&mut self, cx: &mut $crate::device::Cx<'_>, up: bool) {
                $crate::devices::virtio::core::network::link_changed(self, cx, up);
            }
            fn announce(&mut self, cx: &mut $crate::device::Cx<'_>) {
                $crate::devices::virtio::core::network::announce(self, cx);
            }
            fn rx_filter(&mut self, _cx: &mut $crate::device::Cx<'_>) -> Option<$crate::net::RxFilter> {
                $crate::devices::virtio::core::network::rx_filter(self)
            }
        }
    };
}
pub(super) use net_frontend;
