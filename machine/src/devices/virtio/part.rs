//! `virtio-backend`: the device as the QOM tree shows it, on the `virtio-bus` of its transport. The transport holds the
//! real thing; this part forwards what the machine addresses to it.

use std::any::Any;

use rqemu_block::BlockBackend;

use super::core::Transport;
use super::mmio::VirtioMmio;
use super::pci::VirtioPciDevice;
use super::{BuildEnv, ChildBus, VirtioClass, VirtioDevice};
use crate::device::{BlockFrontend, Cx, DevId, Device, RealizeCx};
use crate::machine::Machine;
use crate::net::{NetFrontend, RxFilter};
use crate::{qerr, QResult};

/// The transport in a device, if it is one.
pub fn transport(d: &mut dyn Device) -> Option<&mut dyn Transport> {
    let any = d.as_any();
    if any.is::<VirtioMmio>() {
        return any.downcast_mut::<VirtioMmio>().map(|t| t as &mut dyn Transport);
    }
    any.downcast_mut::<VirtioPciDevice>().map(|t| t as &mut dyn Transport)
}

/// The transport of the device that `part` stands for.
pub fn transport_of(m: &mut Machine, part: DevId) -> Option<DevId> {
    m.with::<BackendPart, _>(part, |p, _| p.transport)
}

/// Gives a device the bus for its children, named after `owner` if the user named that.
pub fn add_child_bus(m: &mut Machine, part: DevId, owner: DevId, b: &ChildBus) {
    let kind = b.kind.type_name().to_ascii_lowercase();
    let of_kind = m.tree.buses().filter(|x| x.kind == b.kind && x.name.starts_with(&kind)).count();
    let name = match m.tree.get(owner).and_then(|n| n.user_id()) {
        Some(id) => format!("{id}.0"),
        None => format!("{kind}.{of_kind}"),
    };
    let bus = m.tree.add_bus(name, b.kind, Some(part));
    if let Some(x) = m.tree.bus_mut(bus) {
        x.hotpluggable = true;
        x.max_devices = Some(b.max);
    }
}

/// The forwarding part.
pub struct BackendPart {
    transport: DevId,
    block: bool,
    backend: Option<BlockBackend>,
}

impl BackendPart {
    /// Forwards to `transport`, which will hold `device`.
    pub fn new(transport: DevId, block: bool, device: &mut dyn VirtioDevice) -> Self {
        Self { transport, block, backend: device.block().and_then(|b| b.backend()) }
    }
}

/// Realizes a device that the user (or a board) puts on the bus of a transport that exists already.
///
/// # Errors
/// What the device or the transport says.
pub fn realize_on_bus<P: VirtioClass>(
    props: &mut P,
    cx: &mut RealizeCx<'_>,
    block: bool,
) -> QResult<Box<dyn Device>> {
    let dev = cx.id();
    let parent = cx.parent_dev().ok_or_else(|| qerr!("device has no parent bus"))?;
    let who = cx.m().tree.path(dev);
    let features = props.common().features()?;
    let mut device = props.build(cx, &BuildEnv { who, cpus: 1 })?;
    let child_bus = device.child_bus();
    let part = BackendPart::new(parent, block, &mut *device);
    cx.attach_to_parent(Box::new(NewVirtio { device, features }))?;
    if let Some(b) = child_bus {
        add_child_bus(cx.m(), dev, dev, &b);
    }
    Ok(Box::new(part))
}

/// What a device hands to its transport.
pub struct NewVirtio {
    /// The device.
    pub device: Box<dyn VirtioDevice>,
    /// Features that its properties switch on.
    pub features: u64,
}

impl Device for BackendPart {
    // The transport resets its device.
    fn reset(&mut self, _cx: &mut Cx<'_>) {}
    fn block(&mut self) -> Option<&mut dyn BlockFrontend> {
        if self.block {
            Some(self)
        } else {
            None
        }
    }
    fn net(&mut self) -> Option<&mut dyn NetFrontend> {
        Some(self)
    }
    fn unrealize(&mut self, cx: &mut Cx<'_>) {
        // On PCI the transport goes away with it; on MMIO it stays and is told.
        let (dev, bus) = (cx.dev, cx.m.tree.get(cx.dev).and_then(|n| n.parent_bus));
        cx.call(self.transport, |d, cx| {
            if let (Some(h), Some(bus)) = (d.bus_host(), bus) {
                h.detach(cx, bus, dev);
            }
        });
    }
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

impl BlockFrontend for BackendPart {
    fn backend(&self) -> Option<BlockBackend> {
        self.backend.clone()
    }
    fn resized(&mut self, cx: &mut Cx<'_>) {
        cx.call(self.transport, |d, cx| {
            if let Some(t) = transport(d) {
                if let Some(b) = t.core().dev.block() {
                    b.resized(cx);
                }
                super::core::config_changed(t, cx);
            }
        });
    }
}

impl BackendPart {
    fn on_net<R>(
        &self,
        cx: &mut Cx<'_>,
        f: impl FnOnce(&mut dyn NetFrontend, &mut Cx<'_>) -> R,
    ) -> Option<R> {
        cx.call(self.transport, |d, cx| d.net().map(|n| f(n, cx)))?
    }
}

/// Over MMIO the back end knows the card by this part.
impl NetFrontend for BackendPart {
    fn can_receive(&mut self, _queue: u32) -> bool {
        true
    }
    fn receive(&mut self, cx: &mut Cx<'_>, queue: u32, frame: &[u8]) -> bool {
        self.on_net(cx, |n, cx| n.receive(cx, queue, frame)).unwrap_or(false)
    }
    fn sent(&mut self, cx: &mut Cx<'_>, queue: u32) {
        self.on_net(cx, |n, cx| n.sent(cx, queue));
    }
    fn link_changed(&mut self, cx: &mut Cx<'_>, up: bool) {
        self.on_net(cx, |n, cx| n.link_changed(cx, up));
    }
    fn announce(&mut self, cx: &mut Cx<'_>) {
        self.on_net(cx, |n, cx| n.announce(cx));
    }
    fn rx_filter(&mut self, cx: &mut Cx<'_>) -> Option<RxFilter> {
        self.on_net(cx, |n, cx| n.rx_filter(cx))?
    }
}
