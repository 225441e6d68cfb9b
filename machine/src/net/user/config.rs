//! Options of the user network.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use crate::spec::value::Value;
use crate::spec::Dict;
use crate::{qerr, QResult};

/// The virtual IPv4 network.
#[derive(Clone, Debug)]
pub(super) struct Net4 {
    pub net: Ipv4Addr,
    pub mask: Ipv4Addr,
    /// The host as the guest sees it.
    pub host: Ipv4Addr,
    /// The name server as the guest sees it.
    pub dns: Ipv4Addr,
    /// First address that DHCP gives away.
    pub dhcp: Ipv4Addr,
}

impl Net4 {
    /// Whether an address is in the network.
    pub fn contains(&self, a: Ipv4Addr) -> bool {
        same(a, self.net, self.mask)
    }

    /// The network's broadcast address.
    pub fn broadcast(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.net) | !u32::from(self.mask))
    }
}

fn same(a: Ipv4Addr, b: Ipv4Addr, mask: Ipv4Addr) -> bool {
    (u32::from(a) ^ u32::from(b)) & u32::from(mask) == 0
}

/// The virtual IPv6 network.
#[derive(Clone, Debug)]
pub(super) struct Net6 {
    pub prefix: Ipv6Addr,
    /// Bits of the prefix, 0 to 126.
    pub len: u8,
    pub host: Ipv6Addr,
    pub dns: Ipv6Addr,
}

impl Net6 {
    /// Whether an address has the network's prefix.
    pub fn contains(&self, a: Ipv6Addr) -> bool {
        (u128::from(a) ^ u128::from(self.prefix)) & mask6(self.len) == 0
    }
}

fn mask6(len: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0)
}

/// All options but the forwarding rules.
#[derive(Clone, Debug)]
pub(super) struct Config {
    pub v4: Option<Net4>,
    /// The IPv4 network for `info network`, also if it is switched off.
    shown: Ipv4Addr,
    pub v6: Option<Net6>,
    /// The guest reaches nothing outside.
    pub restrict: bool,
    pub hostname: Option<String>,
    pub domain: Option<String>,
    /// Contents of DHCP's option 119 (RFC 3397); empty: none.
    pub search: Vec<u8>,
    /// Folder of the TFTP server.
    pub tftp: Option<PathBuf>,
    pub tftp_name: Option<String>,
    pub bootfile: Option<String>,
}

/// As C's `inet_aton`: one to four numbers, the last one filling what is left; decimal, octal or hexadecimal.
pub(super) fn aton(text: &str) -> Option<Ipv4Addr> {
    let parts: Vec<&str> = text.split('.').collect();
    let (last, front) = parts.split_last()?;
    if front.len() > 3 {
        return None;
    }
    let number = |t: &str| {
        let (digits, radix) = match t.strip_prefix("0x").or(t.strip_prefix("0X")) {
            Some(hex) => (hex, 16),
            None if t.len() > 1 && t.starts_with('0') => (&t[1..], 8),
            None => (t, 10),
        };
        if digits.starts_with('+') {
            return None;
        }
        u32::from_str_radix(digits, radix).ok()
    };
    let mut addr = 0u32;
    for (i, t) in front.iter().enumerate() {
        addr |= u32::from(u8::try_from(number(t)?).ok()?) << (24 - 8 * i);
    }
    let rest = number(last)?;
    let room = 32 - 8 * front.len() as u32;
    (u64::from(rest) < 1 << room).then(|| Ipv4Addr::from(addr | rest))
}

/// Mask of a network given without one, by its class.
fn class_mask(net: u32) -> u32 {
    match net {
        n if n & 0x8000_0000 == 0 => 0xff00_0000,
        n if n & 0xfff0_0000 == 0xac10_0000 => 0xfff0_0000,
        n if n & 0xc000_0000 == 0x8000_0000 => 0xffff_0000,
        n if n & 0xffff_0000 == 0xc0a8_0000 => 0xffff_0000,
        n if n & 0xffff_0000 == 0xc612_0000 => 0xfffe_0000,
        n if n & 0xe000_0000 == 0xe000_0000 => 0xffff_fff0,
        _ => 0xffff_ff00,
    }
}

fn network(text: &str) -> QResult<(u32, u32)> {
    let bad = || qerr!("Failed to parse netmask");
    let Some((net, mask)) = text.split_once('/') else {
        let net = u32::from(aton(text).ok_or_else(bad)?);
        return Ok((net, class_mask(net)));
    };
    let net = u32::from(aton(net).ok_or_else(bad)?);
    let mask = match mask.parse::<u32>() {
        Ok(n @ 4..=32) => u32::MAX << (32 - n),
        Ok(_) => return Err(qerr!("Invalid netmask provided (must be in range 4-32)")),
        Err(_) => u32::from(aton(mask).ok_or_else(bad)?),
    };
    Ok((net, mask))
}

fn net4(p: &Dict) -> QResult<Net4> {
    let (net, mask) = match p.get_str("net") {
        Some(text) => network(text)?,
        None => (0x0a00_0200, 0xffff_ff00),
    };
    let at = |n: u32| Ipv4Addr::from(net & mask | n & !mask);
    let address = |key: &str, what: &str, n: u32| match p.get_str(key) {
        Some(text) => aton(text).ok_or_else(|| qerr!("Failed to parse {what}")),
        None => Ok(at(n)),
    };
    let (mask4, host) = (Ipv4Addr::from(mask), address("host", "host", 0x202)?);
    let net = Ipv4Addr::from(net & mask);
    if !same(host, net, mask4) {
        return Err(qerr!("Host doesn't belong to network"));
    }
    let dhcp = address("dhcpstart", "DHCP start address", 0x20f)?;
    if !same(dhcp, net, mask4) {
        return Err(qerr!("DHCP doesn't belong to network"));
    }
    let dns = address("dns", "DNS", 0x203)?;
    if dns == host {
        return Err(qerr!("DNS must be different from host"));
    }
    if dhcp == host || dhcp == dns {
        return Err(qerr!("DHCP must be different from host and DNS"));
    }
    Ok(Net4 { net, mask: mask4, host, dns, dhcp })
}

fn net6(p: &Dict) -> QResult<Net6> {
    let address = |key: &str, what: &str| match p.get_str(key) {
        Some(text) => text.parse::<Ipv6Addr>().map(Some).map_err(|_| qerr!("Failed to parse IPv6 {what}")),
        None => Ok(None),
    };
    let prefix = address("ipv6-prefix", "prefix")?.unwrap_or(Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 0));
    let len = match p.get_i64("ipv6-prefixlen")? {
        None => 64,
        Some(n @ 0..=126) => n as u8,
        Some(_) => {
            return Err(qerr!("Invalid IPv6 prefix provided (IPv6 prefix length must be between 0 and 126)"))
        }
    };
    let at = |n: u128| Ipv6Addr::from(u128::from(prefix) & mask6(len) | n);
    let (host, dns) = (address("ipv6-host", "host")?, address("ipv6-dns", "DNS")?);
    let net = Net6 { prefix: at(0), len, host: host.unwrap_or(at(2)), dns: dns.unwrap_or(at(3)) };
    if !net.contains(net.host) {
        return Err(qerr!("IPv6 Host doesn't belong to network"));
    }
    if !net.contains(net.dns) && dns.is_none() {
        return Err(qerr!("IPv6 DNS doesn't belong to network"));
    }
    if net.dns == net.host {
        return Err(qerr!("IPv6 DNS must be different from IPv6 host"));
    }
    Ok(net)
}

/// A domain name as DNS writes it; `None`: it is none.
fn labels(name: &str) -> Option<Vec<u8>> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let mut out = Vec::new();
    for label in name.split('.') {
        let len = u8::try_from(label.len()).ok().filter(|n| (1..=63).contains(n))?;
        out.push(len);
        out.extend(label.as_bytes());
    }
    out.push(0);
    (out.len() <= 255).then_some(out)
}

/// Search list in the form of RFC 3397: endings that came before are pointers to them.
fn search_list(names: &[String], warn: &mut Vec<String>) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::new();
    // Places in `out` where a name or an ending of one begins.
    let mut known: Vec<(Vec<u8>, usize)> = Vec::new();
    for name in names {
        let Some(wire) = labels(name) else {
            warn.push(format!("Slirp: failed to parse domain name '{name}'\n"));
            continue;
        };
        let mut at = 0;
        while let Some(len) = wire.get(at).map(|n| usize::from(*n)) {
            let rest = wire.get(at..).unwrap_or_default();
            if len == 0 {
                out.push(0);
                break;
            }
            if let Some((_, place)) = known.iter().find(|(k, _)| k == rest) {
                out.extend((0xc000 | *place as u16).to_be_bytes());
                break;
            }
            known.push((rest.to_vec(), out.len()));
            out.extend(wire.get(at..=at + len).unwrap_or_default());
            at += len + 1;
        }
    }
    out
}

fn short(p: &Dict, key: &str, shown: &str) -> QResult<Option<String>> {
    let text = p.get_str(key).map(str::to_string);
    match text {
        Some(t) if t.len() > 255 => Err(qerr!("'{shown}' parameter cannot exceed 255 bytes")),
        t => Ok(t),
    }
}

/// Strings of a list option.
pub(super) fn strings(p: &Dict, key: &str) -> Vec<String> {
    let Some(Value::List(list)) = p.get(key) else { return Vec::new() };
    let text = |v: &Value| match v {
        Value::Dict(d) => d.get_str("str").map(str::to_string),
        other => other.as_str().map(str::to_string),
    };
    list.iter().filter_map(text).collect()
}

impl Config {
    /// Checks options; warnings go to `warn`.
    ///
    /// # Errors
    /// In the words that QEMU has for them.
    pub fn new(p: &Dict, warn: &mut Vec<String>) -> QResult<Self> {
        let has = |keys: &[&str]| keys.iter().any(|k| p.contains(k));
        let (v4, v6) = match (p.get_bool("ipv4")?, p.get_bool("ipv6")?) {
            (None, None) => (true, true),
            (Some(a), None) => (a, !a),
            (None, Some(b)) => (!b, b),
            (Some(a), Some(b)) => (a, b),
        };
        if !v4 && has(&["net", "host", "dns"]) {
            return Err(qerr!("IPv4 disabled but netmask/host/dns provided"));
        }
        if !v6 && has(&["ipv6-prefix", "ipv6-host", "ipv6-dns"]) {
            return Err(qerr!("IPv6 disabled but prefix/host6/dns6 provided"));
        }
        if !v4 && !v6 {
            return Err(qerr!("IPv4 and IPv6 disabled"));
        }
        let (net4, net6) = (net4(p)?, net6(p)?);
        let bootfile = p.get_str("bootfile").map(str::to_string);
        if bootfile.as_ref().is_some_and(|b| b.len() > 127) {
            return Err(qerr!("'bootfile' parameter cannot exceed 127 bytes"));
        }
        Ok(Self {
            shown: net4.net,
            v4: v4.then_some(net4),
            v6: v6.then_some(net6),
            restrict: p.get_bool("restrict")?.unwrap_or(false),
            hostname: short(p, "hostname", "vhostname")?,
            domain: short(p, "domainname", "domainname")?,
            tftp_name: short(p, "tftp-server-name", "tftp-server-name")?,
            search: search_list(&strings(p, "dnssearch"), warn),
            tftp: p.get_str("tftp").filter(|t| !t.is_empty()).map(PathBuf::from),
            bootfile,
        })
    }

    /// Text of `info network`.
    pub fn describe(&self) -> String {
        format!("net={},restrict={}", self.shown, if self.restrict { "on" } else { "off" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_as_the_c_library_reads_them() {
        for (text, addr) in [
            ("10.0.2.15", Some([10, 0, 2, 15])),
            ("172.16", Some([172, 0, 0, 16])),
            ("10", Some([0, 0, 0, 10])),
            ("0x7f.1", Some([127, 0, 0, 1])),
            ("1.2.3.256", None),
            ("1.2.3.4.5", None),
            ("", None),
            ("a", None),
            ("1..2", None),
            ("256.1", None),
        ] {
            assert_eq!(aton(text), addr.map(Ipv4Addr::from), "{text}");
        }
    }

    #[test]
    fn search_names_share_their_endings() {
        let mut warn = Vec::new();
        let names = ["a.example", "b.example", "x..y", "example"].map(String::from);
        let list = search_list(&names, &mut warn);
        assert_eq!(list, b"\x01a\x07example\0\x01b\xc0\x02\xc0\x02");
        assert_eq!(warn, ["Slirp: failed to parse domain name 'x..y'\n"]);
    }
}
