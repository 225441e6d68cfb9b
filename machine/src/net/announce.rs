//! `announce-self`: tells the network which way the machine's cards are, by sending a frame from each address several
//! times (a reverse ARP request, as it is short and every host has one).

use super::{Kind, NetId};
use crate::clock::ClockKind;
use crate::device::DevId;
use crate::machine::Machine;
use crate::qom::MacAddr;

/// Device number of the timers of announcements.
pub const TIMER_DEV: DevId = DevId::ANNOUNCE_TIMERS;

/// Most announcements under way at a time; one more replaces the oldest.
const MAX_RUNNING: usize = 64;

/// How to announce.
#[derive(Clone, Debug)]
pub struct Announce {
    /// Milliseconds before the second round.
    pub initial: i64,
    /// Most milliseconds between two rounds.
    pub max: i64,
    /// Rounds.
    pub rounds: i64,
    /// Milliseconds by which the time between rounds grows.
    pub step: i64,
    /// Names of cards; `None`: all.
    pub interfaces: Option<Vec<String>>,
    /// Name of this announcement; a new one of the same name replaces it.
    pub id: String,
}

impl Default for Announce {
    fn default() -> Self {
        Self { initial: 50, max: 550, rounds: 5, step: 100, interfaces: None, id: String::new() }
    }
}

/// An announcement under way.
pub(super) struct Running {
    timer: u32,
    left: i64,
    how: Announce,
}

/// A reverse ARP request for one's own address, padded to the shortest frame.
fn frame(mac: MacAddr) -> [u8; 60] {
    let mut f = [0; 60];
    f[..6].fill(0xff);
    f[6..12].copy_from_slice(&mac.0);
    // EtherType RARP; Ethernet, IPv4, address lengths, "request reverse".
    f[12..22].copy_from_slice(&[0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3]);
    f[22..28].copy_from_slice(&mac.0);
    f[32..38].copy_from_slice(&mac.0);
    f
}

impl Machine {
    /// Announces the machine's cards, now and in further rounds.
    pub fn announce_self(&mut self, how: Announce) {
        let list = &mut self.net.announcing;
        if let Some(i) = list.iter().position(|r| r.how.id == how.id) {
            let old = list.remove(i);
            self.timers.set((TIMER_DEV, old.timer), None);
        } else if list.len() >= MAX_RUNNING {
            let old = list.remove(0);
            self.timers.set((TIMER_DEV, old.timer), None);
        }
        let list = &self.net.announcing;
        let timer = (0..).find(|t| list.iter().all(|r| r.timer != *t)).unwrap_or(0);
        if how.rounds > 0 {
            self.net.announcing.push(Running { timer, left: how.rounds, how });
            self.announce_again(timer);
        }
    }

    /// One round.
    pub(crate) fn announce_again(&mut self, timer: u32) {
        let Some(i) = self.net.announcing.iter().position(|r| r.timer == timer) else { return };
        let mut r = self.net.announcing.remove(i);
        self.announce_once(r.how.interfaces.as_deref());
        r.left -= 1;
        if r.left <= 0 {
            return;
        }
        let a = &r.how;
        let round = a.rounds.saturating_sub(r.left).saturating_sub(1);
        let wait = a.initial.saturating_add(a.step.saturating_mul(round)).min(a.max).max(0);
        let now = self.clock.now(ClockKind::Realtime);
        let at = now.saturating_add(wait.saturating_mul(1_000_000));
        self.net.announcing.push(r);
        if self.timers.set((TIMER_DEV, timer), Some((ClockKind::Realtime, at))) {
            self.wake_loop();
        }
    }

    fn announce_once(&mut self, only: Option<&[String]>) {
        let nics = self.net.iter().filter_map(|(id, c)| match c.kind {
            Kind::Nic { dev, mac } if c.queue_index == 0 => {
                only.is_none_or(|o| o.contains(&c.name)).then_some((id, dev, mac))
            }
            _ => None,
        });
        let nics: Vec<(NetId, DevId, MacAddr)> = nics.collect();
        for (id, dev, mac) in nics {
            let header = self.net_peer_header(id);
            let mut data = vec![0; header];
            data.extend(frame(mac));
            self.net_send(id, &data);
            self.with_dev(dev, |d, cx| {
                if let Some(n) = d.net() {
                    n.announce(cx);
                }
            });
        }
    }

    /// Length of the header that the back end of a card expects.
    fn net_peer_header(&self, nic: NetId) -> usize {
        let peer = self.net.get(nic).and_then(|c| self.net.get(c.peer?));
        match peer.map(|p| &p.kind) {
            Some(Kind::Backend(b)) => b.header(),
            _ => 0,
        }
    }
}
