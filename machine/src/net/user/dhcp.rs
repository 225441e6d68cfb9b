//! DHCP (RFC 2131) and BOOTP: gives the guest its address, the gateway and the name server.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::config::{Config, Net4};
use super::packet::{be32, ip4_at, Mac};
use super::User;

pub(super) const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;
/// Addresses that are given away.
const LEASES: usize = 16;
/// Seconds that an address is good for.
const LEASE_TIME: u32 = 86400;
const COOKIE: [u8; 4] = [0x63, 0x82, 0x53, 0x63];
/// Length of a reply without IP and UDP headers (what fits into the smallest datagram that everybody must take).
const REPLY_LEN: usize = 548;
/// Type of service of the gateway's own answers.
pub(super) const LOW_DELAY: u8 = 0x10;
/// Where options start: fixed fields and cookie.
const OPTIONS: usize = 240;

const DISCOVER: u8 = 1;
const OFFER: u8 = 2;
const REQUEST: u8 = 3;
const ACK: u8 = 5;
const NAK: u8 = 6;

/// Who has which address.
#[derive(Default)]
pub(super) struct Leases {
    macs: [Option<Mac>; LEASES],
}

impl Leases {
    /// Slot of an address, if it is one of ours.
    fn slot(net: &Net4, ip: Ipv4Addr) -> Option<usize> {
        let n = u32::from(ip).checked_sub(u32::from(net.dhcp))? as usize;
        (n < LEASES && usable(net, ip)).then_some(n)
    }

    /// The address asked for, if it is free or the client's own.
    fn asked(&mut self, net: &Net4, mac: Mac, ip: Ipv4Addr) -> Option<Ipv4Addr> {
        let slot = self.macs.get_mut(Self::slot(net, ip)?)?;
        if slot.is_some_and(|m| m != mac) {
            return None;
        }
        self.release(mac);
        *self.macs.get_mut(Self::slot(net, ip)?)? = Some(mac);
        Some(ip)
    }

    /// The client's address, or a free one.
    fn any(&mut self, net: &Net4, mac: Mac) -> Option<Ipv4Addr> {
        let address = |n: usize| Ipv4Addr::from(u32::from(net.dhcp).wrapping_add(n as u32));
        let has = self.macs.iter().position(|m| *m == Some(mac));
        let slot =
            has.or_else(|| (0..LEASES).find(|n| self.macs[*n].is_none() && usable(net, address(*n))))?;
        *self.macs.get_mut(slot)? = Some(mac);
        Some(address(slot))
    }

    fn release(&mut self, mac: Mac) {
        for m in self.macs.iter_mut().filter(|m| **m == Some(mac)) {
            *m = None;
        }
    }
}

fn usable(net: &Net4, ip: Ipv4Addr) -> bool {
    net.contains(ip) && ip != net.host && ip != net.dns && ip != net.broadcast()
}

/// What a client's message says.
#[derive(Default)]
struct Asked {
    kind: Option<u8>,
    address: Option<Ipv4Addr>,
}

fn options(mut b: &[u8]) -> Asked {
    let mut out = Asked::default();
    while let [code, rest @ ..] = b {
        match code {
            0 => b = rest,
            255 => break,
            _ => {
                let Some((len, rest)) = rest.split_first() else { break };
                let Some((value, rest)) = rest.split_at_checked(usize::from(*len)) else { break };
                match code {
                    50 => out.address = ip4_at(value, 0),
                    53 => out.kind = value.first().copied(),
                    _ => {}
                }
                b = rest;
            }
        }
    }
    out
}

fn option(out: &mut Vec<u8>, code: u8, value: &[u8]) {
    let Ok(len) = u8::try_from(value.len()) else { return };
    // The end mark must fit too.
    if out.len() + 2 + value.len() < REPLY_LEN {
        out.extend([code, len]);
        out.extend(value);
    }
}

/// Options of a lease.
fn lease_options(out: &mut Vec<u8>, cfg: &Config, net: &Net4) {
    option(out, 1, &net.mask.octets());
    if !cfg.restrict {
        option(out, 3, &net.host.octets());
        option(out, 6, &net.dns.octets());
    }
    option(out, 51, &LEASE_TIME.to_be_bytes());
    for (code, text) in [(12, &cfg.hostname), (15, &cfg.domain), (66, &cfg.tftp_name)] {
        if let Some(t) = text.as_ref().filter(|t| !t.is_empty()) {
            option(out, code, t.as_bytes());
        }
    }
    if !cfg.search.is_empty() {
        // RFC 3396: a value longer than an option continues in the next one of the same code.
        for part in cfg.search.chunks(255) {
            option(out, 119, part);
        }
    }
}

impl User {
    /// A message to the DHCP server.
    pub(super) fn dhcp_input(&mut self, b: &[u8]) {
        let Some(net) = self.cfg.v4.clone() else { return };
        let (Some(xid), Some(ciaddr)) = (b.get(4..8), ip4_at(b, 12)) else { return };
        let Some(Ok(mac)) = b.get(28..34).map(Mac::try_from) else { return };
        // A request, over Ethernet.
        if b.get(..3) != Some(&[1, 1, 6]) || b.len() < OPTIONS - 4 {
            return;
        }
        let asked = match be32(b, 236) {
            Some(c) if c.to_be_bytes() == COOKIE => options(b.get(OPTIONS..).unwrap_or_default()),
            _ => Asked::default(),
        };
        // A client without message types speaks BOOTP, and takes what it gets.
        let kind = asked.kind.unwrap_or(REQUEST);
        let wanted = asked.address.or(Some(ciaddr).filter(|a| !a.is_unspecified()));
        let given = match (kind, wanted) {
            (DISCOVER, Some(ip)) => {
                self.leases.asked(&net, mac, ip).or_else(|| self.leases.any(&net, mac)).ok_or(())
            }
            (REQUEST, Some(ip)) if asked.kind.is_some() => self.leases.asked(&net, mac, ip).ok_or(()),
            (DISCOVER | REQUEST, _) => self.leases.any(&net, mac).ok_or(()),
            _ => return,
        };
        if given.is_err() && kind == DISCOVER {
            return;
        }
        if let Ok(ip) = given {
            self.guest_is_at(IpAddr::V4(ip), mac);
        }
        let reply = self.dhcp_reply(&net, xid, mac, kind, given.ok());
        let from = SocketAddr::new(net.host.into(), SERVER_PORT);
        let to = SocketAddr::new(Ipv4Addr::BROADCAST.into(), CLIENT_PORT);
        self.link.send_udp(from, to, LOW_DELAY, &reply);
    }

    fn dhcp_reply(&self, net: &Net4, xid: &[u8], mac: Mac, kind: u8, given: Option<Ipv4Addr>) -> Vec<u8> {
        let mut r = vec![0; OPTIONS];
        r[..3].copy_from_slice(&[2, 1, 6]);
        r[4..8].copy_from_slice(xid);
        r[16..20].copy_from_slice(&given.unwrap_or(Ipv4Addr::BROADCAST).octets());
        r[20..24].copy_from_slice(&net.host.octets());
        r[28..34].copy_from_slice(&mac);
        r[236..].copy_from_slice(&COOKIE);
        match given {
            None => {
                option(&mut r, 53, &[NAK]);
                option(&mut r, 56, b"requested address not available");
            }
            Some(_) => {
                if let Some(file) = &self.cfg.bootfile {
                    let n = file.len().min(127);
                    r[108..108 + n].copy_from_slice(&file.as_bytes()[..n]);
                }
                option(&mut r, 53, &[if kind == DISCOVER { OFFER } else { ACK }]);
                option(&mut r, 54, &net.host.octets());
                lease_options(&mut r, &self.cfg, net);
            }
        }
        r.push(255);
        r.resize(REPLY_LEN, 0);
        r
    }
}
