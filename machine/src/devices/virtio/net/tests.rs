//! Guests with a card each, on a hub and over sockets and taps.

use super::super::testing::*;
use crate::machine::Machine;
use crate::net::{Announce, NetId};
use crate::spec::visit::Mode;
use crate::spec::Value;

const RX: u64 = DATA;
const TX: u64 = DATA + 0x20_000;
const CTRL: u64 = DATA + 0x30_000;
const PEER: [u8; 6] = [2, 0, 0, 0, 0, 9];

struct Guest {
    d: Driver,
    rx: DriverQueue,
    tx: DriverQueue,
    control: DriverQueue,
    header: usize,
    rx_size: u32,
    next_rx: u16,
}

fn netdev(m: &mut Machine, json: &str) {
    let Value::Dict(d) = Value::from_json(serde_json::from_str(json).unwrap()) else { panic!("{json}") };
    m.netdev_add(d, Mode::Json).unwrap();
}

/// A machine with a card, and the client at the other end of its link.
fn machine(props: &[(&str, &str)]) -> (Driver, NetId) {
    let mut m = pci_machine();
    netdev(&mut m, r#"{"type":"hubport","id":"h","hubid":0}"#);
    let probe = m.net_id("h").unwrap();
    let mut all = vec![("netdev", "h")];
    all.extend(props);
    let dev = plug(&mut m, "virtio-net-pci", &all).unwrap();
    (Driver::new(m, dev), probe)
}

impl Guest {
    fn start(mut d: Driver, mask: u64, rx_size: u32) -> Self {
        d.negotiate(mask);
        d.write(0x1_0000, &[0; 0x3_0000]);
        let rx = d.modern_queue(0, 0x1_0000);
        let tx = d.modern_queue(1, 0x2_0000);
        let control = d.modern_queue(2, 0x3_0000);
        d.driver_ok();
        Self { d, rx, tx, control, header: 12, rx_size, next_rx: 0 }
    }

    /// Offers `n` more receive buffers.
    fn refill(&mut self, n: u16) {
        for _ in 0..n {
            let i = self.next_rx % 128;
            self.next_rx += 1;
            self.d.chain(&self.rx, i, &[(RX + u64::from(i) * 0x400, self.rx_size, true)]);
            self.d.offer(&mut self.rx, i);
        }
        self.d.kick(&self.rx);
        self.d.m.net_continue();
    }

    /// The next frame that came in, put together from its buffers, with its header.
    fn frame(&mut self) -> Option<(Vec<u8>, Vec<u8>)> {
        let (head, len) = self.d.finished(&mut self.rx)?;
        let mut data = self.d.bytes(RX + u64::from(head) * 0x400, len as usize);
        let body = data.split_off(self.header);
        let mut all = body;
        let n = u16::from_le_bytes([data[10], data[11]]);
        for _ in 1..n {
            let (head, len) = self.d.finished(&mut self.rx).expect("all buffers of a frame at once");
            all.extend(self.d.bytes(RX + u64::from(head) * 0x400, len as usize));
        }
        Some((data, all))
    }

    fn send(&mut self, body: &[u8]) {
        self.d.write(TX, &[0; 12]);
        self.d.write(TX + 0x100, body);
        self.d.chain(&self.tx, 0, &[(TX, 12, false), (TX + 0x100, body.len() as u32, false)]);
        self.d.offer(&mut self.tx, 0);
        self.d.kick(&self.tx);
    }

    fn control(&mut self, class: u8, cmd: u8, data: &[u8]) -> u8 {
        self.d.write(CTRL, &[class, cmd]);
        self.d.write(CTRL + 0x10, data);
        self.d.write(CTRL + 0x1000, &[0xee]);
        let mut parts = vec![(CTRL, 2, false)];
        if !data.is_empty() {
            parts.push((CTRL + 0x10, data.len() as u32, false));
        }
        parts.push((CTRL + 0x1000, 1, true));
        self.d.chain(&self.control, 0, &parts);
        self.d.offer(&mut self.control, 0);
        self.d.kick(&self.control);
        assert_eq!(self.d.finished(&mut self.control), Some((0, 1)));
        self.d.bytes(CTRL + 0x1000, 1)[0]
    }

    fn mac(&mut self) -> Vec<u8> {
        (0..6).map(|i| self.d.common_read(0x2000 + i, 1) as u8).collect()
    }

    /// Plays the other end: a frame for `dst`; `false` if it has to wait.
    fn arrives(&mut self, probe: NetId, dst: &[u8], body: &[u8]) -> bool {
        let mut f = dst.to_vec();
        f.extend(PEER);
        f.extend([8, 0]);
        f.extend(body);
        self.d.m.net_send(probe, &f)
    }
}

/// Frames that reach a plain socket on the other side.
struct Wire {
    sock: std::net::UdpSocket,
    peer: std::net::SocketAddr,
}

impl Wire {
    /// A UDP socket back end `s` and its other end.
    fn new(m: &mut Machine) -> Self {
        let sock = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        sock.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
        let local = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let json = format!(
            r#"{{"type":"socket","id":"s","udp":"{}","localaddr":"{local}"}}"#,
            sock.local_addr().unwrap()
        );
        netdev(m, &json);
        Self { sock, peer: local }
    }

    fn recv(&self) -> Vec<u8> {
        let mut b = vec![0; 70_000];
        let n = self.sock.recv(&mut b).unwrap();
        b.truncate(n);
        b
    }
}

#[test]
fn offers_what_the_peer_allows() {
    let (mut d, _) = machine(&[("mac", "52:54:00:00:00:42")]);
    // CTRL_GUEST_OFFLOADS, MAC, MRG_RXBUF, STATUS, CTRL_*, ANNOUNCE, ring features, as QEMU 7.2 without a tap.
    assert_eq!(d.negotiate(u64::MAX), 0x101_30bf_8024);
    assert_eq!(d.legacy_read(0, 4), 0x79bf_8064);
    assert_eq!(d.common_read(0x12, 2), 3, "queues");
    assert_eq!(d.common_read(0x2000, 4), 0x0000_5452);
    assert_eq!(d.common_read(0x2006, 2), 1, "link up");
    assert_eq!(d.common_read(0x2008, 2), 0xffff, "no further fields");
    let (mut d, _) = machine(&[("speed", "1000"), ("duplex", "full"), ("host_mtu", "9000"), ("mq", "on")]);
    assert_eq!(d.common_read(0x2008, 4), 9000 << 16 | 1);
    assert_eq!((d.common_read(0x200c, 4), d.common_read(0x2010, 1)), (1000, 1));
}

#[test]
fn refuses_what_it_cannot_do() {
    for (prop, value, text) in [
        ("rss", "on", "virtio-net: 'rss' is not supported"),
        ("hash", "on", "virtio-net: 'hash' is not supported"),
        ("guest_rsc_ext", "on", "virtio-net: 'guest_rsc_ext' is not supported"),
        ("failover", "on", "virtio-net: 'failover' is not supported"),
        ("duplex", "foo", "'duplex' must be 'half' or 'full'"),
        ("speed", "-2", "'speed' must be between 0 and INT_MAX"),
        ("rx_queue_size", "100", "Invalid rx_queue_size (= 100), must be a power of 2 between 256 and 1024."),
        ("netdev", "nope", "Property 'virtio-net-device.netdev' can't find value 'nope'"),
    ] {
        let mut m = pci_machine();
        assert_eq!(plug(&mut m, "virtio-net-pci", &[(prop, value)]).unwrap_err().desc, text);
        assert_eq!(m.net_info(), "", "nothing stays behind");
    }
}

#[test]
fn frames_over_a_socket() {
    let mut m = pci_machine();
    let wire = Wire::new(&mut m);
    let dev = plug(&mut m, "virtio-net-pci", &[("netdev", "s")]).unwrap();
    let mut g = Guest::start(Driver::new(m, dev), u64::MAX, 0x400);
    g.send(b"to the world");
    assert_eq!(wire.recv(), b"to the world", "without a header");
    assert!(g.d.finished(&mut g.tx).is_some());
    // A frame that spans three buffers, sent before there are any.
    let long: Vec<u8> = (0..2500u32).map(|i| i as u8).collect();
    let mut f = g.mac();
    f.extend(&long);
    wire.sock.send_to(&f, wire.peer).unwrap();
    g.d.m.net_serve();
    g.refill(2);
    g.d.m.net_serve();
    assert_eq!(g.frame(), None, "two buffers are not enough, and neither is used");
    g.refill(2);
    let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
    let (header, body) = loop {
        g.d.m.net_serve();
        if let Some(f) = g.frame() {
            break f;
        }
        assert!(std::time::Instant::now() < end, "frame never came");
    };
    assert_eq!(header, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0]);
    assert_eq!(body, f);
    assert_ne!(g.d.isr() & 1, 0);
}

#[test]
fn two_cards_on_a_hub() {
    let mut m = pci_machine();
    netdev(&mut m, r#"{"type":"hubport","id":"h","hubid":0}"#);
    let wire = Wire::new(&mut m);
    m.net_plug_into_hub("s", 0);
    let dev = plug(&mut m, "virtio-net-pci", &[("netdev", "h")]).unwrap();
    let mut g = Guest::start(Driver::new(m, dev), u64::MAX, 0x400);
    g.send(b"through the hub");
    assert_eq!(wire.recv(), b"through the hub");
}

#[test]
fn filters_as_told() {
    let (d, probe) = machine(&[]);
    let mut g = Guest::start(d, u64::MAX, 0x400);
    g.refill(64);
    let mac = g.mac();
    assert!(g.arrives(probe, &[2, 0, 0, 0, 0, 1], b"promiscuous at first"));
    assert!(g.frame().is_some());
    assert_eq!(g.control(0, 0, &[0]), 0, "promiscuous off");
    g.arrives(probe, &[2, 0, 0, 0, 0, 1], b"no");
    assert_eq!(g.frame(), None);
    g.arrives(probe, &mac, b"mine");
    assert_eq!(g.frame().unwrap().1[14..], *b"mine");
    // A new address, tables, and commands that are malformed.
    assert_eq!(g.control(1, 1, &[2, 0, 0, 0, 0, 7]), 0);
    assert_eq!(g.mac(), [2, 0, 0, 0, 0, 7]);
    let mut tables = vec![1, 0, 0, 0, 2, 0, 0, 0, 0, 8, 1, 0, 0, 0];
    assert_eq!(g.control(1, 0, &tables), 1, "too short");
    tables.extend([1, 0, 0x5e, 0, 0, 1]);
    assert_eq!(g.control(1, 0, &tables), 0);
    g.arrives(probe, &[2, 0, 0, 0, 0, 8], b"second");
    assert!(g.frame().is_some());
    assert_eq!(g.control(1, 1, &[1, 2]), 1);
    assert_eq!(g.control(2, 0, &[0, 0x10]), 1, "VLAN 4096");
    assert_eq!(g.control(9, 0, &[]), 1);
    assert_eq!(g.control(4, 0, &[1, 0]), 1, "no multi-queue here");
    assert_eq!(g.control(5, 0, &[1, 0, 0, 0, 0, 0, 0, 0]), 1, "no offload to switch on");
    assert_eq!(g.control(5, 0, &[0; 8]), 0);
    assert_eq!(g.control(2, 0, &[7, 0]), 0);
    let f = &g.d.m.rx_filters(None).unwrap()[0];
    assert_eq!((f.0.as_str(), f.1.vlan_table.as_slice()), ("virtio-net-pci.0", [7u16].as_slice()));
    assert_eq!(f.1.unicast_table.len(), 1);
    // One event until somebody asked.
    let events: Vec<_> = g.d.m.events.drain(..).map(|e| e.name).collect();
    assert_eq!(events, ["NIC_RX_FILTER_CHANGED"]);
    g.control(0, 0, &[1]);
    assert_eq!(g.d.m.events.drain(..).count(), 1);
    // Back to the built-in address with a reset.
    g.d.common_write(0x14, 1, 0);
    assert_eq!(g.mac(), mac);
}

#[test]
fn link_and_announcements() {
    let mut m = pci_machine();
    let wire = Wire::new(&mut m);
    let dev = plug(&mut m, "virtio-net-pci", &[("netdev", "s")]).unwrap();
    let mut g = Guest::start(Driver::new(m, dev), u64::MAX, 0x400);
    g.d.isr();
    g.d.m.set_link("s", false).unwrap();
    assert_eq!(g.d.common_read(0x2006, 2), 0);
    assert_eq!(g.d.isr() & 2, 2);
    g.d.m.set_link("s", true).unwrap();
    assert_eq!(g.d.common_read(0x2006, 2), 1);
    g.d.m.announce_self(Announce { rounds: 1, ..Announce::default() });
    let rarp = wire.recv();
    assert_eq!((rarp.len(), &rarp[12..14], &rarp[6..12]), (60, &[0x80, 0x35][..], &g.mac()[..]));
    assert_eq!(g.d.common_read(0x2006, 2), 3, "the guest is asked, too");
    assert_eq!(g.control(3, 0, &[]), 0);
    assert_eq!(g.d.common_read(0x2006, 2), 1);
    assert_eq!(g.control(3, 0, &[]), 1, "nothing to acknowledge");
}

#[test]
fn delayed_transmission() {
    let mut m = pci_machine();
    let wire = Wire::new(&mut m);
    wire.sock.set_nonblocking(true).unwrap();
    let props = [("netdev", "s"), ("tx", "timer"), ("x-txtimer", "1000")];
    let dev = plug(&mut m, "virtio-net-pci", &props).unwrap();
    let mut g = Guest::start(Driver::new(m, dev), u64::MAX, 0x400);
    g.send(b"later");
    assert!(g.d.finished(&mut g.tx).is_none());
    g.d.m.advance(1000);
    assert!(g.d.finished(&mut g.tx).is_some());
    g.send(b"one");
    g.send(b"the second kick does not wait");
    assert!(g.d.finished(&mut g.tx).is_some());
}

#[test]
fn small_buffers_without_merging_drop_long_frames() {
    let (d, probe) = machine(&[("mrg_rxbuf", "off")]);
    let mut g = Guest::start(d, u64::MAX, 64);
    g.refill(4);
    assert!(g.arrives(probe, &[0xff; 6], &[1; 200]), "dropped");
    assert!(g.arrives(probe, &[0xff; 6], &[1; 20]));
    let (header, body) = g.frame().unwrap();
    assert_eq!((header[10], body.len()), (1, 34));
    assert_eq!(g.frame(), None);
}

#[test]
fn malformed_rings_break_the_device() {
    // A header that is too short.
    let (d, probe) = machine(&[]);
    let mut g = Guest::start(d, u64::MAX, 0x400);
    g.d.chain(&g.tx, 0, &[(TX, 5, false)]);
    g.d.offer(&mut g.tx, 0);
    g.d.kick(&g.tx);
    assert_eq!(g.d.status() & 0x40, 0x40);
    assert!(!g.arrives(probe, &[0xff; 6], b"x"), "a broken device takes nothing");
    // Receive buffers that cannot be written.
    let (d, probe) = machine(&[]);
    let mut g = Guest::start(d, u64::MAX, 0x400);
    g.d.chain(&g.rx, 0, &[(RX, 64, false)]);
    g.d.offer(&mut g.rx, 0);
    g.arrives(probe, &[0xff; 6], b"x");
    assert_eq!(g.d.status() & 0x40, 0x40);
    // A command without room for the answer.
    let (d, _) = machine(&[]);
    let mut g = Guest::start(d, u64::MAX, 0x400);
    g.d.chain(&g.control, 0, &[(CTRL, 2, false)]);
    g.d.offer(&mut g.control, 0);
    g.d.kick(&g.control);
    assert_eq!(g.d.status() & 0x40, 0x40);
    // A reset repairs it.
    g.d.common_write(0x14, 1, 0);
    let mut g = Guest::start(g.d, u64::MAX, 0x400);
    g.refill(1);
    assert_eq!(g.control(0, 1, &[1]), 0);
    // Frames beyond any size are dropped, not gathered: the same megabyte many times.
    let parts = vec![(DATA, 0x10_0000, false); 200];
    g.d.chain(&g.tx, 0, &parts);
    g.d.offer(&mut g.tx, 0);
    g.d.kick(&g.tx);
    assert!(g.d.finished(&mut g.tx).is_some());
    assert!(g.d.status() & 0x40 == 0);
}

#[test]
fn legacy_driver_with_a_short_header() {
    let (mut d, probe) = machine(&[]);
    d.legacy_write(18, 1, 3);
    d.legacy_write(4, 4, 0);
    let mut rx = d.legacy_queue(0, 0x1_0000);
    d.legacy_write(18, 1, 7);
    d.chain(&rx, 0, &[(RX, 0x400, true)]);
    d.offer(&mut rx, 0);
    d.kick(&rx);
    // The address is in the configuration space, and may be written there.
    assert_eq!(d.legacy_read(20, 1), 0x52);
    d.legacy_write(25, 1, 0x99);
    assert_eq!(d.legacy_read(25, 1), 0x99);
    assert!(d.m.net_info().contains("macaddr=52:54:00:12:34:99"));
    assert!(d.m.net_send(probe, b"\xff\xff\xff\xff\xff\xff123456\x08\0hi"));
    assert_eq!(d.finished(&mut rx), Some((0, 10 + 16)));
    assert_eq!(d.bytes(RX + 10 + 14, 2), b"hi");
}
