//! The network seen from the guest: frames in, frames out. Host sockets are real, on the loopback interface.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use super::packet::{be32, frame, head_len, ip4_at, udp, Head, Mac, ICMP, ICMP6, IP4, IP6, TCP, UDP};
use super::*;
use crate::net::checksum;
use crate::spec::value::Value;

const MAC: Mac = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
const GATEWAY: Mac = [0x52, 0x55, 10, 0, 2, 2];
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;
const FIN: u8 = 1;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn options(list: &[(&str, &str)]) -> Dict {
    let mut d = Dict::new();
    for (k, v) in list {
        match *k {
            "hostfwd" | "guestfwd" | "dnssearch" => {
                let mut s = Dict::new();
                s.push("str", Value::text(*v));
                d.push(*k, Value::List(vec![Value::Dict(s)]));
            }
            _ => d.push(*k, Value::text(*v)),
        }
    }
    d
}

fn user(list: &[(&str, &str)]) -> User {
    User::new("u", &options(list)).unwrap()
}

fn head(src: IpAddr, dst: IpAddr, protocol: u8) -> Head {
    Head { src, dst, protocol, tos: 0, ttl: 64, id: 1, fragment: 0 }
}

/// A segment of the guest.
#[derive(Clone, Copy)]
struct Seg<'a> {
    from: SocketAddr,
    to: SocketAddr,
    seq: u32,
    ack: u32,
    flags: u8,
    window: u16,
    options: &'a [u8],
    data: &'a [u8],
}

impl Seg<'_> {
    fn frame(&self) -> Vec<u8> {
        let mut b = Vec::new();
        b.extend(self.from.port().to_be_bytes());
        b.extend(self.to.port().to_be_bytes());
        b.extend(self.seq.to_be_bytes());
        b.extend(self.ack.to_be_bytes());
        b.extend([(5 + self.options.len() as u8 / 4) << 4, self.flags]);
        b.extend(self.window.to_be_bytes());
        b.extend([0; 4]);
        b.extend(self.options);
        b.extend(self.data);
        let sum = packet::pseudo(self.from.ip(), self.to.ip(), TCP, b.len());
        let sum = checksum::finish(checksum::add(sum, &b));
        b[16..18].copy_from_slice(&sum.to_be_bytes());
        frame(GATEWAY, MAC, &head(self.from.ip(), self.to.ip(), TCP), &b)
    }
}

/// A frame to the guest, taken apart.
#[derive(Clone, Debug, Default)]
struct Got {
    from: Option<SocketAddr>,
    seq: u32,
    ack: u32,
    flags: u8,
    data: Vec<u8>,
}

fn parse(f: &[u8]) -> Got {
    let v4 = be16(f, 12) == Some(ETHERTYPE_IP4);
    let (body, src): (&[u8], IpAddr) = if v4 {
        let total = usize::from(be16(f, 16).unwrap());
        assert_eq!(checksum::finish(checksum::add(0, &f[ETH..ETH + IP4])), 0);
        (&f[ETH + IP4..ETH + total], ip4_at(f, 26).unwrap().into())
    } else {
        let len = usize::from(be16(f, 18).unwrap());
        (&f[ETH + IP6..ETH + IP6 + len], packet::ip6_at(f, 22).unwrap().into())
    };
    let protocol = if v4 { f[23] } else { f[20] };
    match protocol {
        TCP => {
            let offset = usize::from(body[12] >> 4) * 4;
            Got {
                from: Some(SocketAddr::new(src, be16(body, 0).unwrap())),
                seq: be32(body, 4).unwrap(),
                ack: be32(body, 8).unwrap(),
                flags: body[13],
                data: body[offset..].to_vec(),
            }
        }
        UDP => Got {
            from: Some(SocketAddr::new(src, be16(body, 0).unwrap())),
            data: body[8..].to_vec(),
            ..Got::default()
        },
        _ => Got { from: Some(SocketAddr::new(src, 0)), data: body.to_vec(), ..Got::default() },
    }
}

fn next(u: &mut User) -> Option<Vec<u8>> {
    let mut buf = vec![0; 69 * 1024];
    match u.read(&mut buf) {
        Received::Frame(n) => Some(buf[..n].to_vec()),
        _ => None,
    }
}

fn all(u: &mut User) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| next(u)).collect()
}

/// Waits for a frame that fits.
fn wait(u: &mut User, fits: impl Fn(&Got) -> bool) -> Got {
    let end = Instant::now() + Duration::from_secs(10);
    while Instant::now() < end {
        match next(u) {
            Some(f) if be16(&f, 12) == Some(ETHERTYPE_ARP) => {}
            Some(f) => {
                let g = parse(&f);
                if fits(&g) {
                    return g;
                }
            }
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    }
    panic!("the frame did not come");
}

/// A guest's end of a connection.
struct Tcp {
    s: Seg<'static>,
    next: u32,
}

/// Opens a connection from the guest.
fn open(u: &mut User, from: &str, to: SocketAddr) -> Tcp {
    let s = Seg {
        from: at(from),
        to,
        seq: 1000,
        ack: 0,
        flags: SYN,
        window: 64240,
        options: &[2, 4, 5, 0xb4, 1, 3, 3, 4],
        data: &[],
    };
    u.write(&s.frame());
    let g = wait(u, |g| g.flags == SYN | ACK);
    assert_eq!((g.from, g.ack), (Some(to), 1001));
    let mut t = Tcp { s, next: g.seq.wrapping_add(1) };
    t.s.seq = 1001;
    t.s.options = &[];
    t.ack(u);
    t
}

impl Tcp {
    fn ack(&mut self, u: &mut User) {
        let s = Seg { ack: self.next, flags: ACK, ..self.s };
        u.write(&s.frame());
    }

    fn send(&mut self, u: &mut User, data: &[u8], flags: u8) {
        let s = Seg { ack: self.next, flags: ACK | flags, data, ..self.s };
        u.write(&s.frame());
        self.s.seq = self.s.seq.wrapping_add(data.len() as u32 + u32::from(flags & FIN != 0));
    }

    /// Receives until `n` bytes are there.
    fn receive(&mut self, u: &mut User, n: usize) -> Vec<u8> {
        let mut out = Vec::new();
        while out.len() < n {
            let g = wait(u, |g| !g.data.is_empty());
            if g.seq == self.next {
                self.next = self.next.wrapping_add(g.data.len() as u32);
                out.extend(g.data);
            }
            self.ack(u);
        }
        out
    }
}

fn listener() -> (TcpListener, u16) {
    let l = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = l.local_addr().unwrap().port();
    (l, port)
}

fn gateway(port: u16) -> SocketAddr {
    SocketAddr::new(ip("10.0.2.2"), port)
}

#[test]
fn connection_both_ways_and_its_end() {
    let mut u = user(&[]);
    let (l, port) = listener();
    let mut t = open(&mut u, "10.0.2.15:4000", gateway(port));
    let (mut host, _) = l.accept().unwrap();
    t.send(&mut u, b"to the host", 0);
    let mut b = [0; 11];
    host.read_exact(&mut b).unwrap();
    assert_eq!(&b, b"to the host");
    let g = wait(&mut u, |g| g.flags & ACK != 0);
    assert_eq!(g.ack, t.s.seq);
    host.write_all(b"to the guest").unwrap();
    assert_eq!(t.receive(&mut u, 12), b"to the guest");
    assert!(u.connections().contains("TCP[ESTABLISHED]"), "{}", u.connections());
    t.send(&mut u, b"last", FIN);
    let mut rest = Vec::new();
    host.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"last");
    drop(host);
    let g = wait(&mut u, |g| g.flags & FIN != 0);
    assert_eq!(g.ack, t.s.seq);
    t.next = g.seq.wrapping_add(1);
    t.ack(&mut u);
    assert_eq!(u.connections().lines().count(), 1, "{}", u.connections());
}

#[test]
fn large_transfer_with_losses() {
    let mut u = user(&[]);
    let (l, port) = listener();
    let mut t = open(&mut u, "10.0.2.15:4000", gateway(port));
    let (mut host, _) = l.accept().unwrap();
    let data: Vec<u8> = (0..3_000_000u32).map(|i| (i / 7) as u8).collect();
    let copy = data.clone();
    let writer = std::thread::spawn(move || host.write_all(&copy).map(|()| host));
    let (mut out, mut count) = (Vec::new(), 0);
    while out.len() < data.len() {
        let g = wait(&mut u, |g| !g.data.is_empty());
        count += 1;
        if count % 97 == 0 {
            // Lost on the wire.
            continue;
        }
        assert!(g.data.len() <= 1460);
        if g.seq == t.next {
            t.next = t.next.wrapping_add(g.data.len() as u32);
            out.extend(g.data);
        }
        t.ack(&mut u);
    }
    assert!(out == data);
    let _ = writer.join().unwrap();
}

#[test]
fn host_that_does_not_read_closes_the_window() {
    let mut u = user(&[]);
    let (l, port) = listener();
    let mut t = open(&mut u, "10.0.2.15:4000", gateway(port));
    let (mut host, _) = l.accept().unwrap();
    let block = [7; 1400];
    let (mut sent, mut edge) = (0usize, t.s.seq.wrapping_add(65535));
    let window = |f: &[u8]| {
        let shift = 7;
        let ack = be32(f, ETH + IP4 + 8).unwrap();
        ack.wrapping_add(u32::from(be16(f, ETH + IP4 + 14).unwrap()) << shift)
    };
    // As much as the windows allow: the socket's buffer and ours.
    let end = Instant::now() + Duration::from_secs(20);
    let mut quiet = 0;
    while quiet < 50 && Instant::now() < end {
        while (edge.wrapping_sub(t.s.seq) as i32) >= 1400 {
            t.send(&mut u, &block, 0);
            sent += 1400;
        }
        quiet += 1;
        for f in all(&mut u) {
            let e = window(&f);
            if edge != e {
                quiet = 0;
            }
            edge = e;
        }
    }
    assert!(sent > 256 * 1024);
    assert!((edge.wrapping_sub(t.s.seq) as i32) < 1400, "the window closed");
    let read = std::thread::spawn(move || {
        let mut b = vec![0; sent];
        host.read_exact(&mut b).map(|()| b)
    });
    let before = edge;
    while edge == before {
        assert!(Instant::now() < end + Duration::from_secs(10));
        for f in all(&mut u) {
            edge = window(&f);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(read.join().unwrap().unwrap().iter().all(|b| *b == 7));
}

#[test]
fn refused_connections() {
    let mut u = user(&[]);
    let closed = {
        let (_l, port) = listener();
        port
    };
    for to in [gateway(closed), at("10.0.2.77:80")] {
        let s = Seg {
            from: at("10.0.2.15:4000"),
            to,
            seq: 1000,
            ack: 0,
            flags: SYN,
            window: 1000,
            options: &[],
            data: &[],
        };
        u.write(&s.frame());
        let g = wait(&mut u, |g| g.flags & RST != 0);
        assert_eq!((g.from, g.ack, g.flags), (Some(to), 1001, RST | ACK));
    }
    assert_eq!(u.connections().lines().count(), 1);
}

#[test]
fn forwarded_port() {
    let mut u = user(&[("hostfwd", "tcp:127.0.0.1:0-:22")]);
    let to = u.host_forwards[0].as_ref().unwrap().listener.local_addr().unwrap();
    let mut host = TcpStream::connect(to).unwrap();
    let end = Instant::now() + Duration::from_secs(10);
    // The guest is not known yet: it is asked for.
    let arp = loop {
        match next(&mut u) {
            Some(f) => break f,
            None => assert!(Instant::now() < end),
        }
    };
    assert_eq!(be16(&arp, 12), Some(ETHERTYPE_ARP));
    assert_eq!(ip4_at(&arp, 38), Some(Ipv4Addr::new(10, 0, 2, 15)));
    let mut reply = vec![0; 60];
    packet::put_eth(&mut reply, GATEWAY, MAC, ETHERTYPE_ARP);
    reply[14..22].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, 2]);
    reply[22..28].copy_from_slice(&MAC);
    reply[28..32].copy_from_slice(&[10, 0, 2, 15]);
    reply[38..42].copy_from_slice(&[10, 0, 2, 2]);
    u.write(&reply);
    let g = wait(&mut u, |g| g.flags == SYN);
    assert_eq!(g.from, Some(gateway(host.local_addr().unwrap().port())));
    let s = Seg {
        from: at("10.0.2.15:22"),
        to: g.from.unwrap(),
        seq: 500,
        ack: g.seq.wrapping_add(1),
        flags: SYN | ACK,
        window: 1000,
        options: &[],
        data: &[],
    };
    u.write(&s.frame());
    let mut t = Tcp { s, next: s.ack };
    t.s.seq = 501;
    t.send(&mut u, b"SSH-2.0", 0);
    let mut b = [0; 7];
    host.read_exact(&mut b).unwrap();
    assert_eq!(&b, b"SSH-2.0");
    let rule = format!("tcp:127.0.0.1:{}", to.port());
    assert!(u.connections().contains("HOST_FORWARD"));
    assert_eq!(u.remove_host_forward("tcp:127.0.0.1:0"), Some(true));
    assert_eq!(u.remove_host_forward(&rule), Some(false));
    assert_eq!(u.remove_host_forward("tcp::x"), None);
}

#[test]
fn datagrams_come_back_from_where_they_went() {
    let mut u = user(&[]);
    let host = UdpSocket::bind("127.0.0.1:0").unwrap();
    let guest = at("10.0.2.15:999");
    let to = gateway(host.local_addr().unwrap().port());
    for size in [3, 3000] {
        let body = udp(guest, to, &vec![1; size]);
        // In fragments, as a guest sends long ones.
        for (i, part) in body.chunks(1480).enumerate() {
            let more = if (i + 1) * 1480 < body.len() { 0x2000 } else { 0 };
            let mut h = head(guest.ip(), to.ip(), UDP);
            h.fragment = more | (i * 1480 / 8) as u16;
            u.write(&frame(GATEWAY, MAC, &h, part));
        }
        let mut b = [0; 4000];
        let (n, from) = host.recv_from(&mut b).unwrap();
        assert_eq!(n, size);
        host.send_to(&b[..n.min(1000)], from).unwrap();
        let g = wait(&mut u, |_| true);
        assert_eq!((g.from, g.data.len()), (Some(to), n.min(1000)));
    }
    // Nobody there: the guest hears so.
    let port = to.port();
    drop(host);
    u.write(&frame(GATEWAY, MAC, &head(guest.ip(), to.ip(), UDP), &udp(guest, to, b"x")));
    let g = wait(&mut u, |g| g.data[0] == 3);
    assert_eq!(&g.data[..2], [3, 3]);
    assert_eq!(be16(&g.data, 8 + IP4 + 2), Some(port));
}

#[test]
fn restricted_guest_stays_inside() {
    let mut u = user(&[("restrict", "on")]);
    let (l, port) = listener();
    l.set_nonblocking(true).unwrap();
    let host = UdpSocket::bind("127.0.0.1:0").unwrap();
    host.set_nonblocking(true).unwrap();
    let from = at("10.0.2.15:999");
    let to = gateway(port);
    let s = Seg { from, to, seq: 1, ack: 0, flags: SYN, window: 9, options: &[], data: &[] };
    u.write(&s.frame());
    assert_eq!(wait(&mut u, |_| true).flags, RST | ACK);
    let to = gateway(host.local_addr().unwrap().port());
    u.write(&frame(GATEWAY, MAC, &head(from.ip(), to.ip(), UDP), &udp(from, to, b"x")));
    assert!(all(&mut u).is_empty());
    assert!(l.accept().is_err() && host.recv(&mut [0]).is_err());
    // The gateway itself answers.
    let ping = ping_frame("10.0.2.15", "10.0.2.2");
    u.write(&ping);
    assert_eq!(wait(&mut u, |_| true).data[0], 0);
}

fn ping_frame(from: &str, to: &str) -> Vec<u8> {
    let v4 = ip(to).is_ipv4();
    let mut b = vec![if v4 { 8 } else { 128 }, 0, 0, 0, 0, 1, 0, 1];
    b.extend(b"data");
    let protocol = if v4 { ICMP } else { ICMP6 };
    let sum = if v4 { 0 } else { packet::pseudo(ip(from), ip(to), ICMP6, b.len()) };
    let sum = checksum::finish(checksum::add(sum, &b));
    b[2..4].copy_from_slice(&sum.to_be_bytes());
    frame(GATEWAY, MAC, &head(ip(from), ip(to), protocol), &b)
}

#[test]
fn guest_forward_starts_a_program() {
    let mut u = user(&[("guestfwd", "tcp:10.0.2.100:7-cmd:cat")]);
    let mut t = open(&mut u, "10.0.2.15:4000", at("10.0.2.100:7"));
    t.send(&mut u, b"meow", 0);
    assert_eq!(t.receive(&mut u, 4), b"meow");
    t.send(&mut u, b"", FIN);
    wait(&mut u, |g| g.flags & FIN != 0);
}

#[test]
fn boot_file_by_tftp() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("f"), vec![5; 1000]).unwrap();
    let mut u = user(&[("tftp", dir.path().to_str().unwrap())]);
    let (client, server) = (at("10.0.2.15:2000"), gateway(69));
    let mut ask = |b: &[u8]| {
        u.write(&frame(GATEWAY, MAC, &head(client.ip(), server.ip(), UDP), &udp(client, server, b)));
        next(&mut u).map(|f| parse(&f).data)
    };
    assert_eq!(ask(b"\0\x01f\0octet\0tsize\x000\0").unwrap(), b"\0\x06tsize\x001000\0");
    assert_eq!(ask(b"\0\x04\0\0").unwrap(), [&[0, 3, 0, 1][..], &[5; 512]].concat());
    assert_eq!(ask(b"\0\x04\0\0").unwrap().len(), 516, "again");
    assert_eq!(ask(b"\0\x04\0\x01").unwrap(), [&[0, 3, 0, 2][..], &[5; 488]].concat());
    assert_eq!(ask(b"\0\x04\0\x02"), None);
    assert_eq!(ask(b"\0\x01../f\0octet\0").unwrap()[..4], [0, 5, 0, 2]);
    assert_eq!(ask(b"\0\x01g\0octet\0").unwrap()[..4], [0, 5, 0, 1]);
}

#[test]
fn ipv6_router() {
    let mut u = user(&[]);
    let me = "fec0::5054:ff:fe12:3456";
    u.write(&ping_frame(me, "fec0::2"));
    let g = wait(&mut u, |_| true);
    assert_eq!((g.from.unwrap().ip(), g.data[0]), (ip("fec0::2"), 129));
    let Ok(l) = TcpListener::bind("[::1]:0") else { return };
    let to = SocketAddr::new(ip("fec0::2"), l.local_addr().unwrap().port());
    let mut t = open(&mut u, &format!("[{me}]:4000"), to);
    let (mut host, _) = l.accept().unwrap();
    host.write_all(&[3; 10_000]).unwrap();
    assert_eq!(t.receive(&mut u, 10_000), [3; 10_000]);
}

#[test]
fn segmentation_is_left_to_a_guest_that_can() {
    let mut u = user(&[]);
    let (l, port) = listener();
    let mut t = open(&mut u, "10.0.2.15:4000", gateway(port));
    all(&mut u);
    u.set_header(Some(12), Offloads { csum: true, tso4: true, ..Offloads::default() });
    let (mut host, _) = l.accept().unwrap();
    host.write_all(&[9; 40_000]).unwrap();
    let mut got = 0;
    let mut largest = 0;
    let end = Instant::now() + Duration::from_secs(10);
    while got < 40_000 && Instant::now() < end {
        let Some(f) = next(&mut u) else { continue };
        let (vnet, f) = f.split_at(12);
        let len = usize::from(be16(f, 16).unwrap()) - IP4 - 20;
        got += len;
        largest = largest.max(len);
        assert_eq!(vnet[0], 1);
        if len > 1460 {
            assert_eq!(vnet[1], 1);
            assert_eq!(u16::from_le_bytes([vnet[4], vnet[5]]), 1460);
        }
        assert_eq!(u16::from_le_bytes([vnet[6], vnet[7]]), 34);
        // What the guest's hardware would fill in makes the checksum right.
        let sum = checksum::finish(checksum::add(0, &f[34..34 + 20 + len]));
        let mut done = f[34..34 + 20 + len].to_vec();
        done[16..18].copy_from_slice(&sum.to_be_bytes());
        let pseudo = packet::pseudo(ip("10.0.2.2"), ip("10.0.2.15"), TCP, done.len());
        assert_eq!(checksum::finish(checksum::add(pseudo, &done)), 0);
        t.next = t.next.wrapping_add(len as u32);
        let s = Seg { ack: t.next, flags: ACK, ..t.s };
        u.write(&[&[0; 12][..], &s.frame()].concat());
    }
    assert!(largest > 1460, "{largest}");
}

/// Small, fast, the same each time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

#[test]
fn hostile_frames_do_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("f"), [1; 600]).unwrap();
    let mut u = user(&[("tftp", dir.path().to_str().unwrap()), ("guestfwd", "tcp:10.0.2.100:7-cmd:cat")]);
    let (_l, port) = listener();
    let host = UdpSocket::bind("127.0.0.1:0").unwrap();
    let guest = at("10.0.2.15:999");
    let datagram =
        |to: SocketAddr, b: &[u8]| frame(GATEWAY, MAC, &head(guest.ip(), to.ip(), UDP), &udp(guest, to, b));
    let mut dhcp = vec![0; 300];
    dhcp[..3].copy_from_slice(&[1, 1, 6]);
    dhcp[236..244].copy_from_slice(&[0x63, 0x82, 0x53, 0x63, 53, 1, 1, 255]);
    let syn = Seg {
        from: guest,
        to: gateway(port),
        seq: 1,
        ack: 0,
        flags: SYN,
        window: 99,
        options: &[2, 4, 5, 0xb4],
        data: b"x",
    };
    let mut solicit = vec![135, 0, 0, 0, 0, 0, 0, 0];
    solicit.extend([0xfe, 0xc0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    let me6 = ip("fec0::15");
    let seeds = [
        datagram(gateway(host.local_addr().unwrap().port()), b"hello"),
        datagram(gateway(67), &dhcp),
        datagram(gateway(69), b"\0\x01f\0octet\0blksize\x00100\0"),
        datagram(gateway(69), b"\0\x04\0\x01"),
        syn.frame(),
        Seg { flags: ACK, ..syn }.frame(),
        Seg { to: at("10.0.2.100:7"), ..syn }.frame(),
        ping_frame("10.0.2.15", "10.0.2.2"),
        ping_frame("fec0::15", "fec0::2"),
        frame(GATEWAY, MAC, &head(me6, ip("fec0::2"), ICMP6), &solicit),
    ];
    let mut r = Random(0x9e37_79b9_7f4a_7c15);
    let mut buf = vec![0; 69 * 1024];
    for round in 0..30_000u32 {
        let mut f = seeds[r.below(seeds.len())].clone();
        for _ in 0..r.below(6) {
            let i = r.below(f.len());
            f[i] = r.next() as u8;
        }
        if r.below(4) == 0 {
            f.truncate(r.below(f.len() + 1));
        }
        // Right checksums let mistakes further in.
        if r.below(2) == 0 && f.len() > ETH + IP4 + 20 && f[12..14] == [8, 0] {
            f[24..26].fill(0);
            let sum = checksum::finish(checksum::add(0, &f[ETH..ETH + IP4]));
            f[24..26].copy_from_slice(&sum.to_be_bytes());
        }
        if round % 1000 == 0 {
            u.set_header([None, Some(10), Some(12)][r.below(3)], Offloads::default());
        }
        u.write(&f);
        for _ in 0..r.below(4) {
            u.read(&mut buf);
        }
    }
    while let Received::Frame(_) = u.read(&mut buf) {}
    assert!(u.fragments.len() <= 16);
}

#[test]
fn floods_are_bounded() {
    let mut u = user(&[]);
    let host = UdpSocket::bind("127.0.0.1:0").unwrap();
    let to = gateway(host.local_addr().unwrap().port());
    for i in 0..3000u32 {
        let guest = SocketAddr::new(ip("10.0.2.15"), 1000 + i as u16);
        u.write(&frame(GATEWAY, MAC, &head(guest.ip(), to.ip(), UDP), &udp(guest, to, b"x")));
    }
    assert!(u.udp.flows.len() <= 1024);
    // Answers that nobody fetches.
    for _ in 0..20_000 {
        u.write(&ping_frame("10.0.2.15", "10.0.2.2"));
    }
    assert_eq!(all(&mut u).len(), 4096);
    // Requests from many addresses.
    for i in 0..1000u16 {
        let from = format!("10.0.2.{}", 16 + i % 200);
        u.write(&ping_frame(&from, "10.0.2.2"));
        next(&mut u);
    }
    let _ = head_len(ip("10.0.2.2"));
}
