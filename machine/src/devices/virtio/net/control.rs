//! The control queue (VIRTIO 1.2, section 5.1.6.5).

use super::filter::TABLE;
use super::{feature as f, Net, ANNOUNCE, LINK_UP};
use crate::device::Cx;
use crate::devices::virtio::queue::QueueError;
use crate::devices::virtio::Raise;
use crate::qom::MacAddr;

const CLASS_RX: u8 = 0;
const CLASS_MAC: u8 = 1;
const CLASS_VLAN: u8 = 2;
const CLASS_ANNOUNCE: u8 = 3;
const CLASS_MQ: u8 = 4;
const CLASS_OFFLOADS: u8 = 5;

const OK: u8 = 0;
const ERR: u8 = 1;

/// Largest command that is looked at: two full address tables are much smaller, larger ones only overflow them.
const MAX_COMMAND: usize = 64 * 1024;

impl Net {
    /// Serves the control queue.
    pub(super) fn control(&mut self, cx: &mut Cx<'_>, raise: &mut Raise) {
        let q = self.control_queue();
        if self.queues.queue(q).is_none() {
            return;
        }
        let mut chain = std::mem::take(&mut self.chain);
        while self.queues.pop(raise, q, &mut chain) {
            if chain.readable.total() < 2 || chain.writable.total() < 1 {
                raise.broken(QueueError::Header);
                break;
            }
            let command = chain.readable.to_vec(MAX_COMMAND);
            let ack = match command.split_first_chunk::<2>() {
                Some(([class, cmd], data)) if self.command(cx, raise, *class, *cmd, data) => OK,
                _ => ERR,
            };
            chain.writable.write(0, &[ack]);
            self.queues.push(raise, q, chain.head, 1);
            self.queues.notify(raise, q);
        }
        self.chain = chain;
    }

    fn command(&mut self, cx: &mut Cx<'_>, raise: &mut Raise, class: u8, cmd: u8, data: &[u8]) -> bool {
        match class {
            CLASS_RX => self.rx_mode(cx, cmd, data),
            CLASS_MAC => self.mac_command(cx, cmd, data),
            CLASS_VLAN => self.vlan(cx, cmd, data),
            CLASS_ANNOUNCE => self.announced(cmd),
            CLASS_MQ => self.set_pairs(cx, raise, cmd, data),
            CLASS_OFFLOADS => self.set_offloads(cx, cmd, data),
            _ => false,
        }
    }

    fn rx_mode(&mut self, cx: &mut Cx<'_>, cmd: u8, data: &[u8]) -> bool {
        let Some(on) = data.first().map(|v| *v != 0) else { return false };
        let r = &mut self.filter;
        let field = match cmd {
            0 => &mut r.promiscuous,
            1 => &mut r.all_multi,
            2 => &mut r.all_uni,
            3 => &mut r.no_multi,
            4 => &mut r.no_uni,
            5 => &mut r.no_broadcast,
            _ => return false,
        };
        *field = on;
        self.filter_changed(cx);
        true
    }

    fn mac_command(&mut self, cx: &mut Cx<'_>, cmd: u8, data: &[u8]) -> bool {
        match cmd {
            0 => {
                let Some((unicast, rest)) = table(data) else { return false };
                let Some((multicast, [])) = table(rest) else { return false };
                self.filter.unicast.set(unicast);
                self.filter.multicast.set(multicast);
            }
            1 => {
                let Ok(mac) = data.try_into() else { return false };
                self.mac = mac;
                self.tell_mac(cx);
            }
            _ => return false,
        }
        self.filter_changed(cx);
        true
    }

    /// The address changed: monitors show the new one.
    pub(super) fn tell_mac(&self, cx: &mut Cx<'_>) {
        for nic in &self.nics {
            cx.m.net_set_mac(*nic, MacAddr(self.mac));
        }
    }

    fn vlan(&mut self, cx: &mut Cx<'_>, cmd: u8, data: &[u8]) -> bool {
        let (Some([lo, hi]), true) = (data.first_chunk::<2>(), cmd <= 1) else { return false };
        let done = self.filter.set_vlan(u16::from_le_bytes([*lo, *hi]), cmd == 0);
        if done {
            self.filter_changed(cx);
        }
        done
    }

    fn announced(&mut self, cmd: u8) -> bool {
        if cmd != 0 || self.status & ANNOUNCE == 0 {
            return false;
        }
        self.status &= LINK_UP;
        true
    }

    fn set_pairs(&mut self, cx: &mut Cx<'_>, raise: &mut Raise, cmd: u8, data: &[u8]) -> bool {
        let (Some([lo, hi]), 0) = (data.first_chunk::<2>(), cmd) else { return false };
        let n = u16::from_le_bytes([*lo, *hi]);
        if n == 0 || usize::from(n) > self.nics.len() || !self.has(f::MQ) {
            return false;
        }
        self.pairs = n;
        self.set_up_backend(cx);
        for pair in 0..usize::from(n) {
            cx.m.net_flush(self.nics[pair]);
            self.send(cx, raise, pair);
        }
        true
    }

    fn set_offloads(&mut self, cx: &mut Cx<'_>, cmd: u8, data: &[u8]) -> bool {
        let (Some(bits), 0) = (data.first_chunk::<8>(), cmd) else { return false };
        let bits = u64::from_le_bytes(*bits);
        if !self.has(f::CTRL_GUEST_OFFLOADS) || bits & !(self.accepted & f::GUEST_OFFLOADS) != 0 {
            return false;
        }
        self.guest_offloads = bits;
        self.set_up_backend(cx);
        true
    }
}

/// One half of an address table and what follows it. More entries than fit are counted only.
fn table(data: &[u8]) -> Option<(Vec<[u8; 6]>, &[u8])> {
    let (n, rest) = data.split_first_chunk::<4>()?;
    let n = u32::from_le_bytes(*n) as usize;
    let (entries, rest) = rest.split_at_checked(n.checked_mul(6)?)?;
    let list = entries.chunks_exact(6).filter_map(|c| c.try_into().ok()).take(TABLE + 1).collect();
    Some((list, rest))
}
