//! Network: back ends, hubs, and the contract with network cards.
//!
//! Every end of a link is a *client* ([`NetId`]): a queue of a card, a queue of a back end, or a port of a hub. Two
//! clients that are peers exchange frames. All calls here are made under the machine lock. A card that wants to move
//! frames on a thread of its own takes the descriptor of a tap with [`Machine::net_take_tap`]; the main loop leaves
//! that tap alone from then on.
//!
//! A frame that its receiver cannot take waits in the receiver's queue; the sender reads no more frames until the
//! receiver was flushed.

mod announce;
pub mod checksum;
pub mod crc;
mod create;
mod filter;
mod info;
mod io;
mod socket;
mod tap;
#[cfg(test)]
mod tests;
mod user;

use std::collections::VecDeque;
use std::os::fd::RawFd;

use crate::device::{Cx, DevId};
use crate::event_loop::FdToken;
use crate::machine::Machine;
use crate::qom::{MacAddr, NetdevRef};
use crate::{qerr, QError, QResult};

pub use announce::{Announce, TIMER_DEV};
pub use create::NET_KINDS;
pub use filter::{RxFilter, RxState};
pub use tap::{Offloads, TapFd};

/// Handle of a network client (one end of a link).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetId(pub u32);

/// A card that takes frames.
pub trait NetFrontend {
    /// Whether it can take a frame on `queue` now.
    fn can_receive(&mut self, queue: u32) -> bool;
    /// Takes one Ethernet frame (with its virtio-net header in front, if the card switched that on); `false` if it
    /// could not (it is kept until the card calls [`Machine::net_flush`]).
    fn receive(&mut self, cx: &mut Cx<'_>, queue: u32, frame: &[u8]) -> bool;
    /// A frame for which [`Machine::net_send`] said `false` is gone: the card may send on.
    fn sent(&mut self, _cx: &mut Cx<'_>, _queue: u32) {}
    /// The link went up or down.
    fn link_changed(&mut self, _cx: &mut Cx<'_>, _up: bool) {}
    /// The guest is to tell the network where it is ([`Machine::announce_self`]).
    fn announce(&mut self, _cx: &mut Cx<'_>) {}
    /// What it lets in, for cards that say so.
    fn rx_filter(&mut self, _cx: &mut Cx<'_>) -> Option<RxFilter> {
        None
    }
}

/// What came of reading from a back end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// A frame of this length is in the buffer.
    Frame(usize),
    /// Nothing for now.
    Nothing,
    /// The connection is gone.
    Closed,
}

/// A back end: moves frames between its descriptor and its peer. Never blocks.
pub(crate) trait NetBackend: Send {
    /// Type as `info network` shows it.
    fn kind(&self) -> &'static str;
    /// Details for `info network`.
    fn info(&self) -> String;
    /// Descriptor of the connection.
    fn fd(&self) -> Option<RawFd>;
    /// Descriptor on which connections arrive, while it waits for one.
    fn listen_fd(&self) -> Option<RawFd> {
        None
    }
    /// Takes a connection; `true` if there is one now.
    fn accept(&mut self) -> bool {
        false
    }
    /// Reads one frame into `buf`.
    fn read(&mut self, buf: &mut [u8]) -> Received;
    /// Writes a frame; `false` if it must be tried again when the descriptor is writable.
    fn write(&mut self, frame: &[u8]) -> bool;
    /// The descriptor is writable: finishes what is half done. `false`: not yet.
    fn writable(&mut self) -> bool {
        true
    }
    /// The connection was lost and its descriptor deregistered: closes it.
    fn disconnect(&mut self) {}
    /// Whether it expects a virtio-net header in front of frames: its length.
    fn header(&self) -> usize {
        0
    }
    /// The tap behind it.
    fn tap(&mut self) -> Option<&mut tap::Tap> {
        None
    }
    /// What it can do with virtio-net headers; `None`: it takes none.
    fn offloads(&mut self) -> Option<Offloads> {
        None
    }
    /// Switches the virtio-net header on or off and says which offloads the guest takes.
    fn set_header(&mut self, _len: Option<usize>, _guest: Offloads) {}
    /// Frames can be read although nothing happened on its descriptor.
    fn pending(&self) -> bool {
        false
    }
    /// The user-mode network behind it.
    fn user(&mut self) -> Option<&mut user::User> {
        None
    }
}

/// What a client is.
enum Kind {
    /// Queue of a card.
    Nic { dev: DevId, mac: MacAddr },
    /// Port of a hub.
    Port { hub: i32 },
    /// Back end.
    Backend(Box<dyn NetBackend>),
    /// What is left of a back end that was deleted while a card uses it: what `info network` said.
    Gone { kind: &'static str, info: String },
}

/// One end of a link.
struct Client {
    name: String,
    /// Model of a card, else the type.
    model: String,
    queue_index: u32,
    kind: Kind,
    peer: Option<NetId>,
    link_down: bool,
    /// Made by `-netdev`, `-nic` or `netdev_add`.
    netdev: bool,
    /// Frames on their way to this client, with their senders.
    queue: VecDeque<(NetId, Box<[u8]>)>,
    data: Option<FdToken>,
    listen: Option<FdToken>,
    /// Its peer has frames waiting: it reads no more.
    stopped: bool,
    /// A card moves its frames itself.
    taken: bool,
}

/// All network clients of a machine.
#[derive(Default)]
pub struct NetTable {
    list: Vec<Option<Client>>,
    /// Hubs, oldest first.
    hubs: Vec<Hub>,
    /// Back ends that have more to read.
    pub(crate) again: Vec<NetId>,
    scratch: Vec<u8>,
    /// Announcements under way.
    announcing: Vec<announce::Running>,
    /// Default MAC addresses in use, by last byte.
    macs: Vec<u8>,
    /// Counter of generated names.
    next_name: u32,
    /// What was odd about options, for the user to see.
    warnings: Vec<String>,
}

struct Hub {
    id: i32,
    ports: u32,
}

/// Most frames that wait for one receiver.
const MAX_QUEUE: usize = 10_000;

impl NetTable {
    fn get(&self, id: NetId) -> Option<&Client> {
        self.list.get(id.0 as usize)?.as_ref()
    }

    fn get_mut(&mut self, id: NetId) -> Option<&mut Client> {
        self.list.get_mut(id.0 as usize)?.as_mut()
    }

    /// Clients in order of creation.
    fn iter(&self) -> impl Iterator<Item = (NetId, &Client)> {
        self.list.iter().enumerate().filter_map(|(i, c)| Some((NetId(i as u32), c.as_ref()?)))
    }

    fn ids(&self, pred: impl Fn(&Client) -> bool) -> Vec<NetId> {
        self.iter().filter(|(_, c)| pred(c)).map(|(i, _)| i).collect()
    }

    fn add(&mut self, name: String, model: &str, queue_index: u32, kind: Kind) -> NetId {
        self.list.push(Some(Client {
            name,
            model: model.to_string(),
            queue_index,
            kind,
            peer: None,
            link_down: false,
            netdev: false,
            queue: VecDeque::new(),
            data: None,
            listen: None,
            stopped: false,
            taken: false,
        }));
        NetId(self.list.len() as u32 - 1)
    }

    fn connect(&mut self, a: NetId, b: NetId) {
        for (x, y) in [(a, b), (b, a)] {
            if let Some(c) = self.get_mut(x) {
                c.peer = Some(y);
            }
        }
    }

    /// Forgets the card `dev`.
    pub fn remove_device(&mut self, dev: DevId) {
        for id in self.ids(|c| matches!(c.kind, Kind::Nic { dev: d, .. } if d == dev)) {
            let Some(c) = self.list.get_mut(id.0 as usize).and_then(Option::take) else { continue };
            if let Kind::Nic { mac, .. } = c.kind {
                if c.queue_index == 0 {
                    self.release_mac(mac);
                }
            }
            let Some(peer) = c.peer else { continue };
            let Some(p) = self.get_mut(peer) else { continue };
            p.peer = None;
            p.queue.clear();
            p.stopped = false;
            p.taken = false;
            if matches!(p.kind, Kind::Gone { .. }) {
                self.list[peer.0 as usize] = None;
            }
        }
    }

    /// Which default address a MAC is.
    fn mac_index(mac: MacAddr) -> Option<u8> {
        let m = mac.0;
        (m[..5] == [0x52, 0x54, 0, 0x12, 0x34]).then_some(m[5]).filter(|b| *b >= 0x56)
    }

    fn claim_mac(&mut self, mac: &mut MacAddr) {
        if mac.0 == [0; 6] {
            let last = (0x56..=0xfe).find(|b| !self.macs.contains(b)).unwrap_or(0xff);
            *mac = MacAddr([0x52, 0x54, 0, 0x12, 0x34, last]);
        }
        self.macs.extend(Self::mac_index(*mac));
    }

    fn release_mac(&mut self, mac: MacAddr) {
        let at = Self::mac_index(mac).and_then(|b| self.macs.iter().position(|m| *m == b));
        if let Some(i) = at {
            self.macs.swap_remove(i);
        }
    }
}

/// A new card, for [`Machine::net_new_nic`].
pub struct NicArgs<'a> {
    /// The device.
    pub dev: DevId,
    /// Class that has the `netdev` property (`virtio-net-device`), for messages.
    pub owner: &'a str,
    /// Model as `info network` shows it (`virtio-net-pci`).
    pub model: &'a str,
    /// Id of the device.
    pub id: Option<&'a str>,
    /// Value of `netdev`.
    pub netdev: &'a NetdevRef,
}

impl Machine {
    /// Makes the clients of a card: one for each queue of its back end (one if it has none). An all-zero `mac` gets the
    /// next default address.
    ///
    /// # Errors
    /// There is no such back end, or another card has it.
    pub fn net_new_nic(&mut self, a: &NicArgs<'_>, mac: &mut MacAddr) -> QResult<Vec<NetId>> {
        let peers = match a.netdev.0.as_deref() {
            Some(name) => self.net_peers(a.owner, name)?,
            None => Vec::new(),
        };
        self.net.claim_mac(mac);
        let same =
            |c: &Client| matches!(c.kind, Kind::Nic { .. }) && c.model == a.model && c.queue_index == 0;
        let name = match a.id {
            Some(id) => id.to_string(),
            None => format!("{}.{}", a.model, self.net.iter().filter(|(_, c)| same(c)).count()),
        };
        let mut ids = Vec::new();
        for q in 0..peers.len().max(1) {
            let kind = Kind::Nic { dev: a.dev, mac: *mac };
            let id = self.net.add(name.clone(), a.model, q as u32, kind);
            if let Some(peer) = peers.get(q) {
                self.net.connect(id, *peer);
                self.net.again.push(*peer);
            }
            ids.push(id);
        }
        Ok(ids)
    }

    fn net_peers(&self, owner: &str, name: &str) -> QResult<Vec<NetId>> {
        let nic = |c: &Client| matches!(c.kind, Kind::Nic { .. } | Kind::Gone { .. });
        let ids = self.net.ids(|c| !nic(c) && c.name == name);
        if ids.is_empty() {
            return Err(qerr!("Property '{owner}.netdev' can't find value '{name}'"));
        }
        if ids.iter().any(|i| self.net.get(*i).is_some_and(|c| c.peer.is_some())) {
            return Err(qerr!("Property '{owner}.netdev' can't take value '{name}', it's in use"));
        }
        Ok(ids)
    }

    /// The card's address changed (the guest wrote it): `info network` shows it.
    pub fn net_set_mac(&mut self, nic: NetId, new: MacAddr) {
        if let Some(Client { kind: Kind::Nic { mac, .. }, .. }) = self.net.get_mut(nic) {
            *mac = new;
        }
    }

    /// Whether the link of a card is up (both ends).
    pub fn net_link_up(&self, nic: NetId) -> bool {
        let up = |id| self.net.get(id).is_some_and(|c| !c.link_down);
        up(nic) && self.net.get(nic).and_then(|c| c.peer).is_none_or(up)
    }

    /// `set_link`: takes a link down or up, by name of a card or back end.
    ///
    /// # Errors
    /// There is no such client.
    pub fn set_link(&mut self, name: &str, up: bool) -> QResult<()> {
        let ids = self.net.ids(|c| c.name == name);
        if ids.is_empty() {
            return Err(QError::device_not_found(name));
        }
        for id in ids {
            let Some(c) = self.net.get_mut(id) else { continue };
            c.link_down = !up;
            let peer = c.peer;
            self.net_tell_link(id);
            if let Some(p) = peer {
                // A card sees the link of the back end that it hangs on.
                self.net_tell_link(p);
            }
        }
        Ok(())
    }

    fn net_tell_link(&mut self, id: NetId) {
        let Some(&Client { kind: Kind::Nic { dev, .. }, queue_index: 0, .. }) = self.net.get(id) else {
            return;
        };
        let up = self.net_link_up(id);
        self.with_dev(dev, |d, cx| {
            if let Some(n) = d.net() {
                n.link_changed(cx, up);
            }
        });
    }

    /// `netdev_del`.
    ///
    /// # Errors
    /// There is no such back end.
    pub fn netdev_del(&mut self, id: &str) -> QResult<()> {
        let ids = self.net.ids(|c| c.name == id && !matches!(c.kind, Kind::Nic { .. } | Kind::Gone { .. }));
        if ids.is_empty() {
            return Err(QError::device_not_found(id));
        }
        if ids.iter().any(|i| self.net.get(*i).is_some_and(|c| !c.netdev)) {
            return Err(qerr!("Device '{id}' is not a netdev"));
        }
        for id in ids {
            self.net_delete(id);
        }
        Ok(())
    }

    fn net_delete(&mut self, id: NetId) {
        self.net_unwatch(id);
        let Some(c) = self.net.get_mut(id) else { return };
        let peer = c.peer;
        let (kind, info) = match &c.kind {
            Kind::Backend(b) => (b.kind(), b.info()),
            _ => ("hubport", String::new()),
        };
        let port = matches!(c.kind, Kind::Port { .. });
        // The back end is dropped here, which closes it.
        c.kind = Kind::Gone { kind, info };
        c.queue.clear();
        let nic = peer.filter(|p| self.net.get(*p).is_some_and(|c| matches!(c.kind, Kind::Nic { .. })));
        match (nic, peer) {
            (Some(nic), _) => {
                if let Some(n) = self.net.get_mut(nic) {
                    n.link_down = true;
                    n.queue.clear();
                }
                if let (true, Some(c)) = (port, self.net.get_mut(id)) {
                    // A card on a port of a hub disappears from the list with it.
                    c.name.clear();
                }
                self.net_tell_link(nic);
            }
            (None, peer) => {
                if let Some(p) = peer.and_then(|p| self.net.get_mut(p)) {
                    p.peer = None;
                    p.queue.clear();
                    p.stopped = false;
                }
                self.net.list[id.0 as usize] = None;
            }
        }
    }

    /// Closes all back ends (down scripts run).
    pub fn net_close(&mut self) {
        for id in self.net.ids(|c| matches!(c.kind, Kind::Backend(_))) {
            self.net_unwatch(id);
            self.net.list[id.0 as usize] = None;
        }
    }
}
