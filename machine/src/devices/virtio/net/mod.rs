//! virtio-net (VIRTIO 1.2, section 5.1): pairs of receive and transmit queues and a control queue.
//!
//! Queues are served under the machine lock: transmit queues in the kick, receive queues when the back end has a
//! frame. What the back end can do decides about offloads: behind a tap with virtio-net headers they are the kernel's
//! work, behind anything else none is offered. Frames are filtered as the control queue says ([`filter`]).
//!
//! Left out (refused): receive side scaling, hash reports, segment coalescing, failover.

mod control;
mod filter;
mod props;
mod rx;
#[cfg(test)]
mod tests;
mod tx;

pub use props::{NetPciProps, VirtioNetProps};

use std::any::Any;
use std::sync::Arc;

use self::filter::Filter;
use super::queue::Chain;
use super::served::MainQueues;
use super::shared::Shared;
use super::{Raise, Start, VirtioDevice, VirtioNic, F_VERSION_1};
use crate::device::Cx;
use crate::net::{NetId, Offloads, RxFilter};

/// Feature bits.
mod feature {
    pub const CSUM: u64 = 1;
    pub const GUEST_CSUM: u64 = 1 << 1;
    pub const CTRL_GUEST_OFFLOADS: u64 = 1 << 2;
    pub const MTU: u64 = 1 << 3;
    pub const MAC: u64 = 1 << 5;
    pub const GSO: u64 = 1 << 6;
    pub const GUEST_TSO4: u64 = 1 << 7;
    pub const GUEST_TSO6: u64 = 1 << 8;
    pub const GUEST_ECN: u64 = 1 << 9;
    pub const GUEST_UFO: u64 = 1 << 10;
    pub const HOST_TSO4: u64 = 1 << 11;
    pub const HOST_TSO6: u64 = 1 << 12;
    pub const HOST_ECN: u64 = 1 << 13;
    pub const HOST_UFO: u64 = 1 << 14;
    pub const MRG_RXBUF: u64 = 1 << 15;
    pub const STATUS: u64 = 1 << 16;
    pub const CTRL_VQ: u64 = 1 << 17;
    pub const CTRL_RX: u64 = 1 << 18;
    pub const CTRL_VLAN: u64 = 1 << 19;
    pub const CTRL_RX_EXTRA: u64 = 1 << 20;
    pub const GUEST_ANNOUNCE: u64 = 1 << 21;
    pub const MQ: u64 = 1 << 22;
    pub const CTRL_MAC_ADDR: u64 = 1 << 23;
    pub const SPEED_DUPLEX: u64 = 1 << 63;

    /// Work that the guest may leave to the back end.
    pub const HOST_OFFLOADS: u64 = CSUM | HOST_TSO4 | HOST_TSO6 | HOST_ECN | HOST_UFO;
    /// Work that the back end may leave to the guest.
    pub const GUEST_OFFLOADS: u64 = GUEST_CSUM | GUEST_TSO4 | GUEST_TSO6 | GUEST_ECN | GUEST_UFO;
}

/// Status bits in the configuration space.
const LINK_UP: u16 = 1;
const ANNOUNCE: u16 = 2;

/// virtio-net header without, and with the buffer count.
const SHORT_HEADER: usize = 10;
const LONG_HEADER: usize = 12;
const CONTROL_SIZE: u16 = 64;
/// Largest frame with its header: a 64 KiB segment with Ethernet and IP headers.
const MAX_FRAME: usize = 68 * 1024;

/// What does not change over a device's life.
struct Config {
    mtu: Option<u16>,
    /// Speed in Mb/s and duplex mode.
    line: Option<(u32, u8)>,
    permanent_mac: [u8; 6],
    rx_size: u16,
    tx_size: u16,
    /// Nanoseconds that frames wait for more of them.
    tx_delay: Option<i64>,
    /// Frames that one call may send.
    tx_burst: u32,
    /// QOM path.
    path: String,
    /// Id that the user gave.
    name: Option<String>,
}

/// A transmit queue.
#[derive(Default)]
struct TxQueue {
    /// The back end has a frame of this queue waiting.
    blocked: bool,
    /// Its timer runs.
    timer: bool,
    /// It was stopped by its burst limit.
    more: bool,
}

/// A virtio network card.
pub struct Net {
    config: Config,
    /// Offered features of its own.
    features: u64,
    offloads: Option<Offloads>,
    /// Its ends, by queue pair.
    nics: Vec<NetId>,
    mac: [u8; 6],
    status: u16,
    filter: Filter,
    /// Pairs in use.
    pairs: u16,
    accepted: u64,
    /// Receive offloads that the driver has switched on.
    guest_offloads: u64,
    /// The header that the back end was told to use.
    backend_header: Option<(usize, u64)>,
    queues: MainQueues,
    shared: Option<Arc<Shared>>,
    tx: Vec<TxQueue>,
    /// Receive queues whose driver was asked for kicks.
    rx_kicks: Vec<bool>,
    chain: Chain,
    scratch: Vec<u8>,
    /// An event tells about the next change of the filter.
    filter_event: bool,
}

impl Net {
    fn new(config: Config, features: u64, offloads: Option<Offloads>, nics: Vec<NetId>, up: bool) -> Self {
        use feature as f;
        let missing = match offloads {
            None => f::HOST_OFFLOADS | f::GUEST_OFFLOADS,
            Some(o) if !o.ufo => f::HOST_UFO | f::GUEST_UFO,
            Some(_) => 0,
        };
        let n = nics.len();
        Self {
            mac: config.permanent_mac,
            config,
            features: features & !missing,
            offloads,
            nics,
            status: if up { LINK_UP } else { 0 },
            filter: Filter::default(),
            pairs: 1,
            accepted: 0,
            guest_offloads: 0,
            backend_header: None,
            queues: MainQueues::default(),
            shared: None,
            tx: (0..n).map(|_| TxQueue::default()).collect(),
            rx_kicks: vec![true; n],
            chain: Chain::default(),
            scratch: Vec::new(),
            filter_event: true,
        }
    }

    fn has(&self, feature: u64) -> bool {
        self.accepted & feature != 0
    }

    /// Length of the header in front of each frame in guest memory.
    fn header(&self) -> usize {
        if self.has(feature::MRG_RXBUF | 1 << F_VERSION_1) {
            LONG_HEADER
        } else {
            SHORT_HEADER
        }
    }

    /// Number of the control queue.
    fn control_queue(&self) -> u16 {
        if self.has(feature::MQ) {
            self.nics.len() as u16 * 2
        } else {
            2
        }
    }

    /// Tells the back end which headers and offloads the driver wants, and which of its queues are in use.
    fn set_up_backend(&mut self, cx: &mut Cx<'_>) {
        if self.offloads.is_none() {
            return;
        }
        let (len, on) = (self.header(), self.guest_offloads);
        let changed = self.backend_header != Some((len, on));
        self.backend_header = Some((len, on));
        let has = |bit| on & bit != 0;
        let guest = Offloads {
            csum: has(feature::GUEST_CSUM),
            tso4: has(feature::GUEST_TSO4),
            tso6: has(feature::GUEST_TSO6),
            ecn: has(feature::GUEST_ECN),
            ufo: has(feature::GUEST_UFO),
        };
        for (i, nic) in self.nics.iter().enumerate() {
            if changed {
                cx.m.net_set_header(*nic, Some(len), guest);
            }
            cx.m.net_use_queue(*nic, i < usize::from(self.pairs));
        }
    }

    /// The filter changed: a listener may ask for the new one.
    fn filter_changed(&mut self, cx: &mut Cx<'_>) {
        if !std::mem::take(&mut self.filter_event) {
            return;
        }
        let mut data = serde_json::Map::new();
        if let Some(name) = &self.config.name {
            data.insert("name".into(), name.clone().into());
        }
        data.insert("path".into(), self.config.path.clone().into());
        cx.event("NIC_RX_FILTER_CHANGED", Some(data.into()));
    }
}

impl VirtioDevice for Net {
    fn id(&self) -> u16 {
        1
    }

    fn features(&self, _modern: bool) -> u64 {
        self.features
    }

    fn legacy_only(&self) -> u64 {
        feature::GSO
    }

    fn queue_sizes(&self) -> Vec<u16> {
        let pair = [self.config.rx_size, self.config.tx_size];
        let mut sizes = pair.repeat(self.nics.len());
        sizes.push(CONTROL_SIZE);
        sizes
    }

    fn queue_sizes_with(&self, accepted: u64) -> Vec<u16> {
        if accepted & feature::MQ != 0 {
            return self.queue_sizes();
        }
        let mut sizes = vec![0; self.nics.len() * 2 + 1];
        sizes[..3].copy_from_slice(&[self.config.rx_size, self.config.tx_size, CONTROL_SIZE]);
        sizes
    }

    fn config_len(&self) -> usize {
        // The last field of an offered feature decides.
        [(feature::SPEED_DUPLEX, 17), (feature::MTU, 12), (feature::MQ, 10), (feature::STATUS, 8)]
            .into_iter()
            .find(|(bit, _)| self.features & bit != 0)
            .map_or(6, |(_, len)| len)
    }

    fn config(&self, out: &mut [u8]) {
        let mut put = |at: usize, bytes: &[u8]| {
            if let Some(d) = out.get_mut(at..at + bytes.len()) {
                d.copy_from_slice(bytes);
            }
        };
        put(0, &self.mac);
        put(6, &self.status.to_le_bytes());
        put(8, &(self.nics.len() as u16).to_le_bytes());
        put(10, &self.config.mtu.unwrap_or(0).to_le_bytes());
        if let Some((speed, duplex)) = self.config.line {
            put(12, &speed.to_le_bytes());
            put(16, &[duplex]);
        }
    }

    fn set_config(&mut self, cx: &mut Cx<'_>, _raise: &mut Raise, offset: usize, data: &[u8]) {
        // Only old drivers without another way set the address here.
        if self.has(feature::CTRL_MAC_ADDR | 1 << F_VERSION_1) {
            return;
        }
        for (i, b) in data.iter().enumerate() {
            if let Some(m) = self.mac.get_mut(offset + i) {
                *m = *b;
            }
        }
        self.tell_mac(cx);
    }

    fn start(&mut self, cx: &mut Cx<'_>, raise: &mut Raise, s: &Start<'_>) {
        if self.accepted != s.features {
            self.accepted = s.features;
            self.guest_offloads = s.features & feature::GUEST_OFFLOADS;
            self.filter.vlans_filtered(self.has(feature::CTRL_VLAN));
        }
        self.queues.start(s);
        self.shared = Some(s.shared.clone());
        self.rx_kicks.fill(true);
        self.set_up_backend(cx);
        for (pair, nic) in self.nics.clone().into_iter().enumerate() {
            cx.m.net_flush(nic);
            self.tx[pair].blocked = false;
            self.send(cx, raise, pair);
        }
        self.control(cx, raise);
    }

    fn stop(&mut self, cx: &mut Cx<'_>) {
        self.queues.stop();
        self.shared = None;
        for (pair, q) in self.tx.iter_mut().enumerate() {
            *q = TxQueue::default();
            cx.timer_set(pair as u32, None);
        }
    }

    fn reset(&mut self, cx: &mut Cx<'_>) {
        self.filter = Filter::default();
        self.pairs = 1;
        self.accepted = 0;
        self.guest_offloads = 0;
        self.status &= LINK_UP;
        if self.mac != self.config.permanent_mac {
            self.mac = self.config.permanent_mac;
            self.tell_mac(cx);
        }
    }

    fn kick(&mut self, cx: &mut Cx<'_>, raise: &mut Raise, q: u16) {
        if q == self.control_queue() {
            return self.control(cx, raise);
        }
        let pair = usize::from(q / 2);
        let Some(nic) = self.nics.get(pair).copied() else { return };
        if q.is_multiple_of(2) {
            cx.m.net_flush(nic);
        } else {
            self.transmit(cx, raise, pair);
        }
    }

    fn attend(&mut self, cx: &mut Cx<'_>, raise: &mut Raise) {
        for pair in 0..self.tx.len() {
            if std::mem::take(&mut self.tx[pair].more) {
                self.send(cx, raise, pair);
            }
        }
    }

    fn timer(&mut self, cx: &mut Cx<'_>, raise: &mut Raise, id: u32) {
        if let Some(q) = self.tx.get_mut(id as usize) {
            q.timer = false;
            self.send(cx, raise, id as usize);
        }
    }

    fn net(&mut self) -> Option<&mut dyn VirtioNic> {
        Some(self)
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

impl VirtioNic for Net {
    fn receive(&mut self, cx: &mut Cx<'_>, raise: &mut Raise, queue: u32, frame: &[u8]) -> bool {
        self.take_frame(cx, raise, queue as usize, frame)
    }

    fn sent(&mut self, cx: &mut Cx<'_>, raise: &mut Raise, queue: u32) {
        let pair = queue as usize;
        if let Some(q) = self.tx.get_mut(pair) {
            q.blocked = false;
            self.send(cx, raise, pair);
        }
    }

    fn link_changed(&mut self, raise: &mut Raise, up: bool) {
        let old = self.status;
        self.status = if up { old | LINK_UP } else { old & !LINK_UP };
        if self.status != old {
            raise.config();
        }
    }

    fn announce(&mut self, raise: &mut Raise) {
        if self.has(feature::GUEST_ANNOUNCE) && self.has(feature::CTRL_VQ) && self.status & LINK_UP != 0 {
            self.status |= ANNOUNCE;
            raise.config();
        }
    }

    fn rx_filter(&mut self) -> RxFilter {
        self.filter_event = true;
        self.filter.describe(self.mac, self.has(feature::CTRL_VLAN))
    }
}
