//! The host's name servers, as `/etc/resolv.conf` names them. Questions to the virtual name server go to the first one.

use std::net::IpAddr;
use std::time::SystemTime;

const FILE: &str = "/etc/resolv.conf";
/// Milliseconds before the file is looked at again.
const FRESH: u64 = 1000;

/// Name servers of the host.
#[derive(Default)]
pub(super) struct Dns {
    servers: Vec<IpAddr>,
    checked: Option<u64>,
    changed: Option<SystemTime>,
}

/// Addresses behind `nameserver` lines.
fn parse(text: &str) -> Vec<IpAddr> {
    text.lines()
        .filter_map(|l| {
            let mut words = l.split_whitespace();
            (words.next()? == "nameserver").then(|| words.next()?.split('%').next()?.parse().ok())?
        })
        .collect()
}

impl Dns {
    /// The server for questions over IPv6 (`v6`) or IPv4: the first of that protocol, else the first at all.
    pub fn server(&mut self, now: u64, v6: bool) -> Option<IpAddr> {
        if self.checked.is_none_or(|at| now.saturating_sub(at) >= FRESH) {
            self.checked = Some(now);
            let changed = std::fs::metadata(FILE).and_then(|m| m.modified()).ok();
            if changed.is_none() || changed != self.changed {
                self.changed = changed;
                self.servers = std::fs::read_to_string(FILE).map(|t| parse(&t)).unwrap_or_default();
            }
        }
        let same = self.servers.iter().find(|s| s.is_ipv6() == v6);
        same.or(self.servers.first()).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_format() {
        let text = "# x\nnameserver 192.0.2.1\nsearch a\n nameserver\tfe80::1%eth0 \nnameserver x\n";
        assert_eq!(parse(text), ["192.0.2.1".parse::<IpAddr>().unwrap(), "fe80::1".parse().unwrap()]);
    }
}
