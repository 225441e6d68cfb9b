//! The user-mode network: both binaries get the same Ethernet frames and must answer the same.
//!
//! A datagram socket is the guest: a hub joins it to the network under test.

use super::wire::{self, arp, dhcp, icmp, tcp, udp};
use super::Sides;
use crate::bins::Bin;
use crate::compare::first_line;
use crate::score::Row;
use crate::vm::Vm;
use crate::Res;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::time::{Duration, Instant};

const GUEST: &str = "10.0.2.15";
const GUEST6: &str = "fec0::5054:ff:fe12:3456";
const LOCAL6: &str = "fe80::5054:ff:fe12:3456";
const SYN: u8 = 2;
const ACK: u8 = 16;
const FIN: u8 = 1;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap_or(IpAddr::from([0, 0, 0, 0]))
}

fn at(text: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip(text), port)
}

/// An emulator and the guest's end of the wire.
struct Net {
    vm: Vm,
    sock: UdpSocket,
    to: SocketAddr,
    probe: u16,
}

impl Net {
    fn start(bin: &Bin, options: &str) -> Res<Net> {
        let bind = || UdpSocket::bind("127.0.0.1:0").map_err(|e| e.to_string());
        let (sock, other) = (bind()?, bind()?);
        let name = |s: &UdpSocket| s.local_addr().map_err(|e| e.to_string());
        let (mine, to) = (name(&sock)?, name(&other)?);
        drop(other);
        let dir = std::env::temp_dir();
        let options = options.replace("{dir}", &dir.display().to_string());
        let args = format!(
            "-M none -nodefaults -display none -netdev user,id=u{options} -netdev hubport,id=h1,hubid=0,netdev=u \
             -netdev socket,id=s,udp={mine},localaddr={to} -netdev hubport,id=h2,hubid=0,netdev=s"
        );
        let vm = Vm::start(bin, &args)?;
        let mut n = Net { vm, sock, to, probe: 0 };
        n.send(&arp(ip(GUEST), ip("10.0.2.2")))?;
        for (own, to) in [(GUEST6, "fec0::2"), (LOCAL6, "fe80::2")] {
            let IpAddr::V6(a) = ip(own) else { continue };
            let rest = [&[0x60, 0, 0, 0][..], &a.octets(), &[2, 1], &wire::GUEST].concat();
            n.send(&icmp(a.into(), ip(to), 255, 136, &rest))?;
        }
        n.answers(0)?;
        Ok(n)
    }

    fn send(&self, frame: &[u8]) -> Res<()> {
        self.sock.send_to(frame, self.to).map(|_| ()).map_err(|e| e.to_string())
    }

    fn receive(&self, wait: Duration) -> Option<Vec<u8>> {
        let mut buf = vec![0; 70_000];
        self.sock.set_read_timeout(Some(wait)).ok()?;
        let n = self.sock.recv(&mut buf).ok()?;
        buf.truncate(n);
        Some(buf)
    }

    /// What was sent since the last call: at least `least` frames, and all before the answer to a marker.
    fn answers(&mut self, least: usize) -> Res<Vec<Vec<u8>>> {
        let mut out = Vec::new();
        let end = Instant::now() + Duration::from_secs(3);
        while out.len() < least && Instant::now() < end {
            out.extend(self.receive(Duration::from_millis(100)).filter(|f| !wire::is_solicitation(f)));
        }
        self.probe += 1;
        let mark = [&[0x77, 0x77][..], &self.probe.to_be_bytes(), b"mark"].concat();
        let v4 = icmp(ip(GUEST), ip("10.0.2.2"), 64, 8, &mark);
        let v6 = icmp(ip(GUEST6), ip("fec0::2"), 255, 128, &mark);
        for f in [v4, v6] {
            self.send(&f)?;
        }
        // A network without one of the protocols answers only one of them.
        while let Some(f) = self.receive(Duration::from_secs(2)) {
            if f.windows(mark.len()).any(|w| w == mark) {
                while let Some(f) = self.receive(Duration::from_millis(20)) {
                    if !wire::is_solicitation(&f) && !f.windows(mark.len()).any(|w| w == mark) {
                        out.push(f);
                    }
                }
                return Ok(out);
            }
            if !wire::is_solicitation(&f) {
                out.push(f);
            }
        }
        Err("the network does not answer any more".into())
    }

    fn ask(&mut self, frames: &[Vec<u8>], least: usize, port: u16) -> Res<String> {
        for f in frames {
            self.send(f)?;
        }
        let list = self.answers(least)?;
        Ok(list.iter().map(|f| wire::describe(f, port, 0) + "\n").collect())
    }
}

/// Name, options of the network, frames, number of answers to wait for.
type Case = (&'static str, &'static str, Vec<Vec<u8>>, usize);

fn v4_cases() -> Vec<Case> {
    let none = ip("0.0.0.0");
    let ping = |to: &str, ttl| vec![icmp(ip(GUEST), ip(to), ttl, 8, b"\0\x01\0\x01data")];
    let syn = |to: &str| vec![tcp(at(GUEST, 6000), at(to, 1), (1000, 0, SYN), &[2, 4, 5, 0xb4], &[])];
    let to = |to: &str, port| vec![udp(at(GUEST, 5000), at(to, port), b"data")];
    let names = ",hostname=h,dnssearch=a.example,dnssearch=b.example,domainname=d.example,tftp-server-name=t,bootfile=b";
    let other = ",net=192.168.7.0/24,host=192.168.7.1,dns=192.168.7.9,dhcpstart=192.168.7.40";
    let lost = wire::udp_body(at(GUEST, 5000), at("192.0.2.9", 9), b"data");
    let mut c: Vec<Case> = Vec::new();
    for (name, who) in
        [("gateway", "10.0.2.2"), ("name server", "10.0.2.3"), ("nobody", "10.0.2.4"), ("itself", GUEST)]
    {
        c.push((name, "", vec![arp(ip(GUEST), ip(who))], 0));
    }
    let request = |a: [u8; 4]| vec![dhcp(3, none, &[&[50, 4][..], &a].concat())];
    c.extend([
        ("discover", "", vec![dhcp(1, none, &[])], 1),
        ("discover with names", names, vec![dhcp(1, none, &[])], 1),
        ("discover in another network", other, vec![dhcp(1, none, &[])], 1),
        ("discover, restricted", ",restrict=on", vec![dhcp(1, none, &[])], 1),
        ("request", "", request([10, 0, 2, 15]), 1),
        ("request another address", "", request([10, 0, 2, 20]), 1),
        ("request what is not there", "", request([10, 0, 2, 99]), 1),
        ("request from another network", "", request([10, 1, 2, 15]), 1),
        ("renew", "", vec![dhcp(1, none, &[]), dhcp(3, ip(GUEST), &[])], 2),
        ("bootp", "", vec![dhcp(0, none, &[])], 1),
        ("inform", "", vec![dhcp(8, ip(GUEST), &[])], 0),
        ("release", "", vec![dhcp(7, ip(GUEST), &[])], 0),
        ("decline", "", vec![dhcp(4, none, &[])], 0),
        ("ping gateway", "", ping("10.0.2.2", 64), 1),
        ("ping name server", "", ping("10.0.2.3", 64), 1),
        ("ping with the last hop", "", ping("10.0.2.2", 1), 1),
        ("datagram with the last hop", "", vec![wire::ip(17, ip(GUEST), ip("192.0.2.9"), 1, 0, &lost)], 1),
        ("syn to a closed port", "", syn("10.0.2.2"), 1),
        ("syn to nobody", "", syn("10.0.2.9"), 1),
        ("syn, restricted", ",restrict=on", syn("10.0.2.2"), 0),
        ("datagram, restricted", ",restrict=on", to("10.0.2.2", 9), 0),
        ("ping, restricted", ",restrict=on", ping("10.0.2.2", 64), 1),
        ("datagram to a closed port", "", to("10.0.2.2", 1), 1),
        ("datagram to nobody", "", to("10.0.2.9", 1), 1),
        ("stray ack", "", vec![tcp(at(GUEST, 6000), at("10.0.2.2", 1), (5, 9, ACK), &[], &[])], 1),
        ("unknown protocol", "", vec![wire::ip(99, ip(GUEST), ip("10.0.2.2"), 64, 0, b"xxxxxxxx")], 0),
        ("igmp", "", vec![wire::ip(2, ip(GUEST), ip("224.0.0.1"), 1, 0, &[0x16, 0, 9, 4, 0xe0, 0, 0, 1])], 0),
        ("no IPv4", ",ipv4=off", vec![arp(ip(GUEST), ip("10.0.2.2"))], 0),
    ]);
    let tftp = |b: &[u8]| vec![udp(at(GUEST, 2000), at("10.0.2.2", 69), b)];
    let folder = ",tftp={dir}/rqc-tftp";
    c.extend([
        ("tftp", folder, tftp(b"\0\x01file\0octet\0"), 1),
        ("tftp, leading slash", folder, tftp(b"\0\x01/file\0octet\0"), 1),
        ("tftp, options", folder, tftp(b"\0\x01file\0octet\0tsize\x000\0blksize\x001024\0"), 1),
        ("tftp, no file", folder, tftp(b"\0\x01nope\0octet\0"), 1),
        ("tftp, out of the folder", folder, tftp(b"\0\x01../x\0octet\0"), 1),
        ("tftp, text mode", folder, tftp(b"\0\x01file\0netascii\0"), 1),
        ("tftp, write", folder, tftp(b"\0\x02file\0octet\0"), 0),
        ("no tftp", "", tftp(b"\0\x01file\0octet\0"), 1),
    ]);
    c
}

fn v6_cases() -> Vec<Case> {
    let local = LOCAL6;
    let solicit = |t: &str| {
        let target = match ip(t) {
            IpAddr::V6(a) => a.octets(),
            IpAddr::V4(_) => [0; 16],
        };
        let rest = [&[0; 4][..], &target, &[1, 1], &wire::GUEST].concat();
        vec![icmp(ip(GUEST6), ip("ff02::1:ff00:2"), 255, 135, &rest)]
    };
    let rs =
        || vec![icmp(ip(local), ip("ff02::2"), 255, 133, &[&[0, 0, 0, 0, 1, 1][..], &wire::GUEST].concat())];
    let ping = |to: &str| vec![icmp(ip(GUEST6), ip(to), 64, 128, b"\0\x01\0\x01data")];
    let info = [&[11, 1, 2, 3, 0, 1, 0, 10, 0, 3, 0, 1][..], &wire::GUEST, &[0, 6, 0, 2, 0, 23]].concat();
    vec![
        ("router solicitation", "", rs(), 1),
        ("router solicitation, other prefix", ",ipv6-net=fd00:1::/48", rs(), 1),
        ("who is the gateway", "", solicit("fec0::2"), 1),
        ("who is the gateway, link-local", "", solicit("fe80::2"), 1),
        ("who is the name server", "", solicit("fec0::3"), 1),
        ("who is nobody", "", solicit("fec0::9"), 0),
        ("ping6 gateway", "", ping("fec0::2"), 1),
        ("ping6 link-local", "", ping("fe80::2"), 1),
        (
            "syn6 to a closed port",
            "",
            vec![tcp(at(GUEST6, 6000), at("fec0::2", 1), (1000, 0, SYN), &[], &[])],
            1,
        ),
        ("datagram6 to a closed port", "", vec![udp(at(GUEST6, 5000), at("fec0::2", 1), b"data")], 1),
        ("information request", "", vec![udp(at(local, 546), at("ff02::1:2", 547), &info)], 1),
        ("no IPv6", ",ipv6=off", rs(), 0),
    ]
}

fn case(bin: &Bin, c: &Case) -> Res<String> {
    Net::start(bin, c.1)?.ask(&c.2, c.3, 0)
}

/// A connection from SYN to FIN with data both ways, to `to`, which leads to a listener on `host`.
fn connection(bin: &Bin, from: &str, to: &str, host: &str) -> Res<String> {
    let l = TcpListener::bind((host, 0)).map_err(|e| e.to_string())?;
    let port = l.local_addr().map_err(|e| e.to_string())?.port();
    let (from, to) = (at(from, 7000), at(to, port));
    let mut n = Net::start(bin, "")?;
    let mut out = String::new();
    let mut first = 0;
    let mut step = |n: &mut Net, frame: Option<Vec<u8>>, least: usize| -> Res<u32> {
        if let Some(f) = frame {
            n.send(&f)?;
        }
        for f in n.answers(least)? {
            let seq = wire::numbers(&f).map_or(0, |n| n.0);
            if f.get(if from.is_ipv4() { 47 } else { 67 }).is_some_and(|flags| flags & SYN != 0) {
                first = seq;
            }
            out.push_str(&(wire::describe(&f, port, first) + "\n"));
        }
        Ok(first)
    };
    let iss = step(&mut n, Some(tcp(from, to, (1000, 0, SYN), &[2, 4, 5, 0xb4], &[])), 1)?;
    let (mut c, _) = l.accept().map_err(|e| e.to_string())?;
    step(&mut n, Some(tcp(from, to, (1001, iss.wrapping_add(1), ACK), &[], &[])), 0)?;
    step(&mut n, Some(tcp(from, to, (1001, iss.wrapping_add(1), ACK), &[], b"hello")), 1)?;
    let mut b = [0; 5];
    c.read_exact(&mut b).map_err(|e| e.to_string())?;
    c.write_all(b"world").map_err(|e| e.to_string())?;
    step(&mut n, None, 1)?;
    step(&mut n, Some(tcp(from, to, (1006, iss.wrapping_add(6), ACK), &[], &[])), 0)?;
    let table = n.vm.qmp.hmp("info usernet").map_err(|e| e.to_string())?;
    let state = table.contains("TCP[ESTABLISHED]");
    c.shutdown(std::net::Shutdown::Write).map_err(|e| e.to_string())?;
    step(&mut n, None, 1)?;
    step(&mut n, Some(tcp(from, to, (1006, iss.wrapping_add(7), ACK | FIN), &[], &[])), 1)?;
    Ok(format!("{out}received {b:?}, established {state}\n"))
}

/// Datagrams to and from a socket of the host, short, long and in fragments.
fn echo(bin: &Bin, to: &str, size: usize, answer: usize) -> Res<String> {
    let host = UdpSocket::bind("127.0.0.1:0").map_err(|e| e.to_string())?;
    host.set_read_timeout(Some(Duration::from_secs(3))).map_err(|e| e.to_string())?;
    let port = host.local_addr().map_err(|e| e.to_string())?.port();
    let mut n = Net::start(bin, "")?;
    let body = wire::udp_body(at(GUEST, 5000), at(to, port), &vec![7; size]);
    for (i, part) in body.chunks(1480).enumerate() {
        let more = if (i + 1) * 1480 < body.len() { 0x2000 } else { 0 };
        n.send(&wire::ip(17, ip(GUEST), ip(to), 64, more | (i * 185) as u16, part))?;
    }
    let mut b = vec![0; 9000];
    let (len, from) = host.recv_from(&mut b).map_err(|e| e.to_string())?;
    host.send_to(&vec![9; answer], from).map_err(|e| e.to_string())?;
    Ok(format!("{len} from {}\n{}", from.ip(), n.ask(&[], answer.div_ceil(1480), port)?))
}

/// What the monitor says of rules and connections.
fn monitor(bin: &Bin, lines: &[&str]) -> Res<String> {
    let mut n = Net::start(bin, "")?;
    let mut out = String::new();
    for l in lines {
        let text = n.vm.qmp.hmp(l).map_err(|e| e.to_string())?;
        // The number of a descriptor is nobody's business.
        let hide = |l: &str| match l.find("HOST_FORWARD]") {
            Some(i) => format!("{}    {}", l.get(..i + 13).unwrap_or(l), l.get(i + 18..).unwrap_or_default()),
            None => l.to_string(),
        };
        let text: Vec<String> = text.lines().map(hide).collect();
        out.push_str(&format!("> {l}\n{}\n", text.join("\n")));
    }
    Ok(out)
}

const MONITOR: &[&str] = &[
    "hostfwd_add tcp:127.0.0.1:0-:22",
    "hostfwd_add foo",
    "hostfwd_add nope tcp::1-:2",
    "hostfwd_add s tcp::1-:2",
    "hostfwd_add u udp:127.0.0.1:0-10.0.2.20:53",
    "hostfwd_add tcp:192.0.2.99:5000-:22",
    "hostfwd_remove tcp::x",
    "hostfwd_remove foo",
    "hostfwd_remove s tcp::5599",
    "hostfwd_remove nope tcp::5599",
    "hostfwd_remove u tcp::5599",
];

/// All rows.
pub fn run(sides: &Sides) -> Vec<Row> {
    let folder = std::env::temp_dir().join("rqc-tftp");
    let file = folder.join("file");
    if let Err(e) = std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(file, [3; 700])) {
        eprintln!("{}: {e}", folder.display());
    }
    let mut rows: Vec<Row> = Vec::new();
    let mut row = |name: &str, f: &dyn Fn(&Bin) -> Res<String>| {
        let (a, b) = sides.both(f);
        rows.push(Row::of(name, a, b, |a, b| first_line(a, b)));
    };
    for c in v4_cases().iter().chain(&v6_cases()) {
        row(c.0, &|bin| case(bin, c));
    }
    row("connection", &|bin| connection(bin, GUEST, "10.0.2.2", "127.0.0.1"));
    row("connection6", &|bin| connection(bin, GUEST6, "fec0::2", "::1"));
    for (name, to, size, answer) in [
        ("echo", "10.0.2.2", 5, 5),
        ("echo, loopback address", "127.0.0.1", 5, 5),
        ("echo, long", "10.0.2.2", 3000, 5),
        ("echo, long answer", "10.0.2.2", 5, 4000),
    ] {
        row(name, &|bin| echo(bin, to, size, answer));
    }
    row("monitor", &|bin| monitor(bin, MONITOR));
    let _ = std::fs::remove_dir_all(folder);
    rows
}
