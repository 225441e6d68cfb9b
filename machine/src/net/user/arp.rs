//! ARP (RFC 826): the gateway, the name server and forwarded services have hardware addresses.

use std::net::Ipv4Addr;

use super::link::mac_of;
use super::packet::{be16, ip4_at, put_eth, Mac, BROADCAST, ETH, ETHERTYPE_ARP};
use super::User;

const REQUEST: u16 = 1;
const REPLY: u16 = 2;
/// Ethernet and IPv4, and the lengths of their addresses.
const KIND: [u8; 6] = [0, 1, 8, 0, 6, 4];

fn message(op: u16, from: (Mac, Ipv4Addr), to: (Mac, Ipv4Addr), dst: Mac) -> Vec<u8> {
    let mut f = vec![0; 60];
    put_eth(&mut f, dst, from.0, ETHERTYPE_ARP);
    f[ETH..ETH + 6].copy_from_slice(&KIND);
    f[20..22].copy_from_slice(&op.to_be_bytes());
    f[22..28].copy_from_slice(&from.0);
    f[28..32].copy_from_slice(&from.1.octets());
    f[32..38].copy_from_slice(&to.0);
    f[38..42].copy_from_slice(&to.1.octets());
    f
}

/// Asks who has an address.
pub(super) fn request(mac: Mac, from: Ipv4Addr, ip: Ipv4Addr) -> Vec<u8> {
    message(REQUEST, (mac, from), ([0; 6], ip), BROADCAST)
}

impl User {
    /// An ARP message of the guest.
    pub(super) fn arp_input(&mut self, b: &[u8]) {
        let Some(net) = &self.cfg.v4 else { return };
        let (Some(op), Some(sender), Some(target)) = (be16(b, 6), ip4_at(b, 14), ip4_at(b, 24)) else {
            return;
        };
        let Some(Ok(mac)) = b.get(8..14).map(Mac::try_from) else { return };
        if b.get(..6) != Some(&KIND) {
            return;
        }
        let ours = target == net.host || target == net.dns || self.is_guest_forward(target.into());
        if net.contains(sender) && sender != net.host && sender != net.dns {
            self.guest_is_at(sender.into(), mac);
        }
        if op == REQUEST && ours && sender != target {
            self.link.push(message(REPLY, (mac_of(target.into()), target), (mac, sender), mac));
        }
    }
}
