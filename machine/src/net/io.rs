//! Frames on their way.

use std::os::fd::RawFd;

use super::{Client, Kind, NetId, Offloads, Received, TapFd, MAX_QUEUE};
use crate::event_loop::{FdHandler, Ready};
use crate::machine::Machine;

/// Largest frame: a 64 KiB segment with its headers.
const MAX_FRAME: usize = 69 * 1024;
/// Frames that one back end may bring in at a time.
const BUDGET: u32 = 128;

/// Handles a back end's connection, or the socket on which it waits for one.
struct NetFd {
    id: NetId,
    listen: bool,
}

impl FdHandler for NetFd {
    fn ready(&mut self, m: &mut Machine, ready: Ready) {
        if self.listen {
            m.net_accept(self.id);
            return;
        }
        if ready.writable {
            m.net_writable(self.id);
        }
        if ready.readable || ready.hangup {
            m.net_pump(self.id);
        }
    }
}

impl Machine {
    /// Sends a frame from a client to its peer. `true`: it is on its way (or dropped, if the link is down). `false`: it
    /// waits for the receiver; the sender should stop until it is told ([`super::NetFrontend::sent`]).
    pub fn net_send(&mut self, from: NetId, frame: &[u8]) -> bool {
        let Some(c) = self.net.get(from) else { return true };
        let Some(to) = c.peer.filter(|_| !c.link_down) else { return true };
        let Some(p) = self.net.get(to) else { return true };
        if p.link_down {
            return true;
        }
        if p.queue.is_empty() && self.net_deliver(to, frame) {
            return true;
        }
        let Some(p) = self.net.get_mut(to) else { return true };
        if p.queue.len() >= MAX_QUEUE {
            return true;
        }
        p.queue.push_back((from, frame.into()));
        false
    }

    /// Hands a frame to a client; `false` if it cannot take it now.
    fn net_deliver(&mut self, to: NetId, frame: &[u8]) -> bool {
        let Some(c) = self.net.get_mut(to) else { return true };
        let queue = c.queue_index;
        match &mut c.kind {
            Kind::Nic { dev, .. } => {
                let dev = *dev;
                let taken = self.with_dev(dev, |d, cx| {
                    d.net().map(|n| n.can_receive(queue) && n.receive(cx, queue, frame))
                });
                // A card that is running (it sent this frame to a hub that leads back to it) takes it later.
                match taken {
                    Some(taken) => taken.unwrap_or(true),
                    None => {
                        self.net.again.push(to);
                        self.wake_loop();
                        false
                    }
                }
            }
            Kind::Port { hub } => {
                let hub = *hub;
                let others = self.net.ids(|c| matches!(c.kind, Kind::Port { hub: h } if h == hub));
                for port in others.into_iter().filter(|p| *p != to) {
                    self.net_send(port, frame);
                }
                true
            }
            Kind::Backend(b) => {
                let taken = b.write(frame);
                if b.pending() && !self.net.again.contains(&to) {
                    self.net.again.push(to);
                    self.wake_loop();
                }
                taken
            }
            Kind::Gone { .. } => true,
        }
    }

    /// A card can take frames again: delivers what waits and lets its back end read on.
    pub fn net_flush(&mut self, id: NetId) {
        while let Some((from, frame)) = self.net.get_mut(id).and_then(|c| c.queue.pop_front()) {
            if !self.net_deliver(id, &frame) {
                if let Some(c) = self.net.get_mut(id) {
                    c.queue.push_front((from, frame));
                }
                return;
            }
            self.net_sent(from);
        }
    }

    /// A frame of `from` that waited is gone.
    fn net_sent(&mut self, from: NetId) {
        let Some(c) = self.net.get_mut(from) else { return };
        let queue = c.queue_index;
        match &c.kind {
            Kind::Nic { dev, .. } => {
                let dev = *dev;
                self.with_dev(dev, |d, cx| {
                    if let Some(n) = d.net() {
                        n.sent(cx, queue);
                    }
                });
            }
            Kind::Backend(_) if c.stopped => {
                c.stopped = false;
                self.net.again.push(from);
                self.wake_loop();
            }
            _ => {}
        }
    }

    /// Serves clients that have more to do (called by the main loop each round).
    pub(crate) fn net_continue(&mut self) {
        for id in std::mem::take(&mut self.net.again) {
            match self.net.get(id).map(|c| matches!(c.kind, Kind::Backend(_))) {
                Some(true) => self.net_pump(id),
                Some(false) => self.net_flush(id),
                None => {}
            }
        }
    }

    /// Reads frames from a back end and passes them on.
    fn net_pump(&mut self, id: NetId) {
        let mut buf = std::mem::take(&mut self.net.scratch);
        buf.resize(MAX_FRAME, 0);
        let mut left = BUDGET;
        while let Some(Client { kind: Kind::Backend(b), stopped: false, taken: false, peer, .. }) =
            self.net.get_mut(id)
        {
            if peer.is_none() && b.tap().is_some() {
                // Nobody is there: the host keeps the frames until its queue is full.
                break;
            }
            if left == 0 {
                self.net.again.push(id);
                break;
            }
            left -= 1;
            match b.read(&mut buf) {
                Received::Frame(len) => {
                    let sent = self.net_send(id, buf.get(..len).unwrap_or_default());
                    if let (false, Some(c)) = (sent, self.net.get_mut(id)) {
                        c.stopped = true;
                    }
                }
                Received::Nothing => break,
                Received::Closed => {
                    self.net_lost(id);
                    break;
                }
            }
        }
        self.net.scratch = buf;
    }

    fn net_writable(&mut self, id: NetId) {
        if let Some(Client { kind: Kind::Backend(b), .. }) = self.net.get_mut(id) {
            if b.writable() {
                self.net_flush(id);
            }
        }
    }

    fn net_accept(&mut self, id: NetId) {
        let Some(Client { kind: Kind::Backend(b), .. }) = self.net.get_mut(id) else { return };
        if b.accept() {
            self.net_unwatch(id);
            self.net_watch(id);
        }
    }

    /// The connection of a back end is gone; a server waits for the next one.
    fn net_lost(&mut self, id: NetId) {
        self.net_unwatch(id);
        if let Some(c) = self.net.get_mut(id) {
            c.queue.clear();
            if let Kind::Backend(b) = &mut c.kind {
                b.disconnect();
            }
        }
        self.net_watch(id);
    }

    /// Watches what a back end has open now.
    pub(super) fn net_watch(&mut self, id: NetId) {
        let Some(Client { kind: Kind::Backend(b), .. }) = self.net.get(id) else { return };
        let (data, listen) = (b.fd(), b.listen_fd());
        let mut add = |fd: Option<RawFd>, listen: bool| {
            // A descriptor that cannot be watched brings no frames; nothing else is lost.
            fd.and_then(|fd| self.fds.add(fd, !listen, Box::new(NetFd { id, listen })).ok())
        };
        let tokens = (add(data, false), add(listen, true));
        if let Some(c) = self.net.get_mut(id) {
            (c.data, c.listen) = tokens;
        }
    }

    pub(super) fn net_unwatch(&mut self, id: NetId) {
        let Some(c) = self.net.get_mut(id) else { return };
        for t in [c.data.take(), c.listen.take()].into_iter().flatten() {
            self.fds.remove(t);
        }
    }

    fn net_peer_mut(&mut self, nic: NetId) -> Option<&mut Client> {
        let peer = self.net.get(nic)?.peer?;
        self.net.get_mut(peer)
    }

    /// What the back end behind a card can do with virtio-net headers; `None` if it takes none.
    pub fn net_offloads(&mut self, nic: NetId) -> Option<Offloads> {
        match &mut self.net_peer_mut(nic)?.kind {
            Kind::Backend(b) => b.offloads(),
            _ => None,
        }
    }

    /// Switches the virtio-net header (10 or 12 bytes, or none) in front of each frame on or off, and tells the tap
    /// which offloads the guest takes.
    pub fn net_set_header(&mut self, nic: NetId, len: Option<usize>, guest: Offloads) {
        if let Some(Client { kind: Kind::Backend(b), .. }) = self.net_peer_mut(nic) {
            b.set_header(len, guest);
        }
        // What waits has the header of before.
        if let Some(c) = self.net.get_mut(nic) {
            let senders: Vec<NetId> = c.queue.drain(..).map(|(from, _)| from).collect();
            for from in senders {
                self.net_sent(from);
            }
        }
    }

    /// Says whether a card serves this queue of the tap behind it (all do at first).
    pub fn net_use_queue(&mut self, nic: NetId, on: bool) {
        if let Some(Client { kind: Kind::Backend(b), .. }) = self.net_peer_mut(nic) {
            if let Some(t) = b.tap() {
                t.use_queue(on);
            }
        }
    }

    /// Takes the tap behind a card: from now on the card reads and writes it itself, on any thread, until
    /// [`Self::net_return_tap`]. The link state still counts ([`Self::net_link_up`]).
    pub fn net_take_tap(&mut self, nic: NetId) -> Option<TapFd> {
        let peer = self.net.get(nic)?.peer?;
        let Kind::Backend(b) = &mut self.net.get_mut(peer)?.kind else { return None };
        let tap = b.tap()?.take()?;
        self.net_unwatch(peer);
        if let Some(c) = self.net.get_mut(peer) {
            c.taken = true;
        }
        Some(tap)
    }

    /// Gives the tap back to the main loop.
    pub fn net_return_tap(&mut self, nic: NetId) {
        let Some(peer) = self.net.get(nic).and_then(|c| c.peer) else { return };
        let Some(c) = self.net.get_mut(peer).filter(|c| c.taken) else { return };
        c.taken = false;
        self.net_watch(peer);
        self.net.again.push(peer);
    }
}
