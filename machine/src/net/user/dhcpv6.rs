//! DHCPv6 without addresses (RFC 8415, "information request"): name server and boot file.

use std::net::{Ipv6Addr, SocketAddr};

use super::packet::be16;
use super::User;

pub(super) const SERVER_PORT: u16 = 547;
/// All relays and servers.
pub(super) const ALL_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
const CLIENT_PORT: u16 = 546;
const REPLY: u8 = 7;
const INFORMATION_REQUEST: u8 = 11;
const CLIENT_ID: u16 = 1;
const OPTION_REQUEST: u16 = 6;
const DNS_SERVERS: u16 = 23;
const BOOTFILE_URL: u16 = 59;
/// Longest client id that is repeated in the answer.
const MAX_ID: usize = 256;

fn option(out: &mut Vec<u8>, code: u16, value: &[u8]) {
    out.extend(code.to_be_bytes());
    out.extend((value.len() as u16).to_be_bytes());
    out.extend(value);
}

/// Client id and the options asked for.
fn parse(mut b: &[u8]) -> Option<(Vec<u8>, Vec<u16>)> {
    let (mut id, mut wanted) = (Vec::new(), Vec::new());
    while !b.is_empty() {
        let (code, len) = (be16(b, 0)?, usize::from(be16(b, 2)?));
        let value = b.get(4..4 + len)?;
        match code {
            CLIENT_ID => id = value.get(..len.min(MAX_ID))?.to_vec(),
            OPTION_REQUEST => wanted = value.chunks_exact(2).filter_map(|c| be16(c, 0)).collect(),
            _ => {}
        }
        b = b.get(4 + len..)?;
    }
    Some((id, wanted))
}

impl User {
    /// A message to all DHCPv6 servers.
    pub(super) fn dhcpv6_input(&mut self, from: SocketAddr, b: &[u8]) {
        let Some(net) = &self.cfg.v6 else { return };
        let ([INFORMATION_REQUEST, x, y, z, ..], Some(options)) = (b, b.get(4..)) else { return };
        let Some((id, wanted)) = parse(options) else { return };
        let mut r = vec![REPLY, *x, *y, *z];
        if !id.is_empty() {
            option(&mut r, CLIENT_ID, &id);
        }
        if wanted.contains(&DNS_SERVERS) {
            option(&mut r, DNS_SERVERS, &net.dns.octets());
        }
        if let Some(file) = self.cfg.bootfile.as_ref().filter(|_| wanted.contains(&BOOTFILE_URL)) {
            option(&mut r, BOOTFILE_URL, format!("tftp://[{}]/{file}", net.host).as_bytes());
        }
        let server = SocketAddr::new(net.host.into(), SERVER_PORT);
        self.link.send_udp(server, SocketAddr::new(from.ip(), CLIENT_PORT), 0, &r);
    }
}
