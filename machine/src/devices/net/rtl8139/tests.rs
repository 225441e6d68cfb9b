//! A driver of both interfaces, and the values that QEMU 7.2 shows.

use super::*;
use crate::devices::virtio::testing::{pci_machine, plug, DATA};
use crate::machine::Machine;
use crate::memory::Space;
use crate::net::crc;
use crate::spec::visit::Mode;
use crate::spec::Value;

/// Where the test's `plug` puts BAR 0.
const IO: u64 = 0xc000;
const RING: u64 = DATA;
const BUF: u64 = DATA + 0x4000;
const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

struct Guest {
    m: Machine,
    /// The other end of the link.
    wire: NetId,
    sock: std::net::UdpSocket,
}

impl Guest {
    fn new() -> Self {
        let mut m = pci_machine();
        let sock = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        sock.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
        let peer = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let json = format!(
            r#"{{"type":"socket","id":"s","udp":"{}","localaddr":"{peer}"}}"#,
            sock.local_addr().unwrap()
        );
        let Value::Dict(d) = Value::from_json(serde_json::from_str(&json).unwrap()) else { panic!() };
        m.netdev_add(d, Mode::Json).unwrap();
        let wire = m.net_id("s").unwrap();
        plug(&mut m, "rtl8139", &[("netdev", "s")]).unwrap();
        Self { m, wire, sock }
    }

    fn r(&mut self, at: u64, size: u8) -> u64 {
        self.m.guest_read(Space::Io, IO + at, size)
    }
    fn w(&mut self, at: u64, size: u8, v: u64) {
        self.m.guest_write(Space::Io, IO + at, size, v);
    }
    fn mem(&mut self, at: u64, data: &[u8]) {
        self.m.flat().mem.write(at, data).unwrap();
    }
    fn bytes(&mut self, at: u64, n: usize) -> Vec<u8> {
        let mut b = vec![0; n];
        self.m.flat().mem.read(at, &mut b).unwrap();
        b
    }
    fn desc(&mut self, at: u64, w0: u32, w1: u32, addr: u64) {
        let mut d = w0.to_le_bytes().to_vec();
        d.extend(w1.to_le_bytes());
        d.extend(addr.to_le_bytes());
        self.mem(at, &d);
    }
    fn sent(&mut self) -> Vec<u8> {
        let mut b = vec![0; 70_000];
        let n = self.sock.recv(&mut b).unwrap();
        b.truncate(n);
        b
    }
    fn nothing_sent(&mut self) {
        self.sock.set_nonblocking(true).unwrap();
        assert!(self.sock.recv(&mut [0; 64]).is_err());
        self.sock.set_nonblocking(false).unwrap();
    }
}

fn frame(dst: [u8; 6], n: usize) -> Vec<u8> {
    let mut f = dst.to_vec();
    f.extend([2; 6]);
    f.extend([8, 0]);
    f.extend(vec![b'y'; n]);
    f
}

#[test]
fn power_on_values() {
    let mut g = Guest::new();
    for (at, size, v) in [
        (0, 4, 0x1200_5452),
        (4, 4, 0x5634),
        (0x10, 4, 0x2000),
        (0x11, 1, 0x20),
        (0x34, 4, 0x1100_0000),
        (0x38, 2, 0xfff0),
        (0x40, 4, 0x7480_0000),
        (0x42, 2, 0x7400),
        (0x50, 4, 0x000c_0000),
        (0x58, 4, 0x0100_01d0),
        (0x5e, 1, 0x20),
        (0x60, 2, 0xf),
        (0x62, 2, 0x1000),
        (0x64, 2, 0x782d),
        (0x66, 2, 0x5e1),
        (0x6a, 2, 1),
        (0x74, 2, 0x340),
    ] {
        assert_eq!(g.r(at, size), v, "{at:#x}");
    }
    g.w(0x37, 1, 0x10);
    assert_eq!(g.r(0x37, 1), 1, "a reset is done at once");
    // Configuration registers are locked at first.
    g.w(0x59, 1, 0xff);
    assert_eq!(g.r(0x59, 1), 1);
    g.w(0x50, 1, 0xc0);
    g.w(0x59, 1, 0xff);
    assert_eq!(g.r(0x59, 1), 0x71);
    g.w(0x50, 1, 0xff);
    assert_eq!(g.r(0x50, 1), 0xce);
}

#[test]
fn slots_are_sent_in_turn() {
    let mut g = Guest::new();
    g.w(0x37, 1, 0xc);
    g.w(0x3c, 2, 4);
    for i in 0..4u64 {
        g.mem(BUF + 0x100 * i, &[i as u8; 64]);
        g.w(0x20 + 4 * i, 4, BUF + 0x100 * i);
    }
    g.w(0x14, 4, 64);
    g.nothing_sent();
    assert_eq!(g.r(0x60, 2), 0xd);
    g.w(0x10, 4, 64);
    assert_eq!((g.sent(), g.r(0x60, 2), g.r(0x10, 4)), (vec![0; 64], 0x100d, 0xa040));
    assert!(g.m.irqs.level(crate::irq::IrqLine(0)));
    g.w(0x3e, 2, 4);
    assert_eq!(g.r(0x3e, 2), 0);
    assert!(!g.m.irqs.level(crate::irq::IrqLine(0)));
    g.w(0x1c, 4, 64);
    assert_eq!(g.sent(), vec![1; 64]);
}

#[test]
fn receive_ring() {
    let mut g = Guest::new();
    g.w(0x30, 4, RING);
    g.w(0x37, 1, 0xc);
    g.w(0x44, 4, 0xa);
    assert_eq!(g.r(0x37, 1), 0xd, "empty");
    let f = frame(MAC, 86);
    assert!(g.m.net_send(g.wire, &f));
    assert_eq!((g.r(0x3a, 2), g.r(0x37, 1), g.r(0x3e, 2)), (0x6c, 0xc, 1));
    let mut expected = vec![1, 0x40, 0x68, 0];
    expected.extend(&f);
    expected.extend(crc::crc32(&f).to_le_bytes());
    assert_eq!(g.bytes(RING, 108), expected);
    g.m.net_send(g.wire, &f[..30]);
    g.m.net_send(g.wire, &frame([0xff; 6], 86));
    assert_eq!(g.bytes(RING + 0x6c, 4), [1, 0x40, 0x40, 0]);
    assert_eq!(g.bytes(RING + 0xb0, 4), [1, 0x20, 0x68, 0]);
    g.m.net_send(g.wire, &frame([2; 6], 86));
    g.m.net_send(g.wire, &frame([1, 0, 0x5e, 0, 0, 1], 86));
    assert_eq!(g.r(0x3a, 2), 0x11c, "neither is for this card");
    g.w(0x38, 2, 0x10c);
    assert_eq!((g.r(0x37, 1), g.r(0x38, 2)), (0xd, 0x10c));
    // It fills up: a frame waits until the driver has read some.
    g.w(0x3c, 2, 0x10);
    for _ in 0..7 {
        assert!(g.m.net_send(g.wire, &frame(MAC, 1086)));
    }
    g.w(0x3e, 2, 0xffff);
    assert!(!g.m.net_send(g.wire, &frame(MAC, 1086)));
    assert_eq!((g.r(0x3e, 2), g.r(0x4c, 4)), (0x10, 1));
    let at = g.r(0x3a, 2);
    g.w(0x38, 2, at - 0x10);
    g.m.net_continue();
    assert_eq!(g.r(0x3a, 2), (at + 0x454) % 0x2000, "it wrapped around");
    // A ring in no man's land.
    g.w(0x30, 4, 0xffff_fff0);
    assert!(g.m.net_send(g.wire, &f));
}

#[test]
fn multicast_hash() {
    let mut g = Guest::new();
    g.w(0x30, 4, RING);
    g.w(0x37, 1, 0xc);
    g.w(0x44, 4, 0xe);
    let group = [1, 0, 0x5e, 0, 0, 1];
    let i = u64::from(crc::hash6(&group));
    g.w(8 + i / 8, 1, 1 << (i % 8));
    g.m.net_send(g.wire, &frame(group, 86));
    assert_eq!(g.bytes(RING, 4), [1, 0x80, 0x68, 0]);
    g.m.net_send(g.wire, &frame([1, 0, 0x5e, 0, 0, 2], 86));
    assert_eq!(g.r(0x3a, 2), 0x6c);
}

#[test]
fn timer() {
    let mut g = Guest::new();
    g.m.advance(1_000_000);
    assert_eq!(g.r(0x48, 4), 33_000);
    g.w(0x48, 4, 1);
    assert_eq!(g.r(0x48, 4), 0);
    g.w(0x54, 4, 33_000);
    g.m.advance(999_999);
    assert_eq!(g.r(0x3e, 2), 0);
    g.m.advance(1);
    assert_eq!(g.r(0x3e, 2), 0x4000);
}

/// A card in C+ mode with its rings.
fn cplus() -> Guest {
    let mut g = Guest::new();
    g.w(0x37, 1, 0xc);
    g.w(0xe0, 2, 0x63);
    assert_eq!(g.r(0xe0, 2), 0x63);
    g.w(0x20, 4, RING);
    g.w(0x24, 4, 0);
    g.w(0xe4, 4, RING + 0x1000);
    g.w(0xe8, 4, 0);
    g.w(0x44, 4, 0xa);
    g
}

#[test]
fn descriptor_rings() {
    let mut g = cplus();
    let f = frame([2; 6], 50);
    g.mem(BUF, &f);
    g.desc(RING, 0xb000_0040, 0, BUF);
    g.desc(RING + 16, 0xa000_0020, 0, BUF);
    g.desc(RING + 32, 0xd000_0020, 0x2_2301, BUF + 32);
    g.w(0xd9, 1, 0x40);
    assert_eq!(g.sent(), f);
    let tagged = g.sent();
    assert_eq!(
        (&tagged[..12], &tagged[12..16], &tagged[16..]),
        (&f[..12], &[0x81, 0, 1, 0x23][..], &f[12..])
    );
    assert_eq!((g.bytes(RING + 3, 1), g.bytes(RING + 35, 1), g.r(0x3e, 2)), (vec![0x30], vec![0x50], 4));
    g.w(0x3e, 2, 0xffff);
    // Reception with a tag, then without a descriptor.
    g.desc(RING + 0x1000, 0xc000_0800, 0, BUF + 0x1000);
    let mut f = frame(MAC, 86);
    f.splice(12..12, [0x81, 0, 1, 0x23]);
    g.m.net_send(g.wire, &f);
    assert_eq!(g.bytes(RING + 0x1000, 8), [0x68, 0, 0, 0x74, 1, 0x23, 1, 0]);
    assert_eq!(g.bytes(BUF + 0x1000 + 12, 3), [8, 0, b'y']);
    assert_eq!(g.r(0x3e, 2), 1);
    g.m.net_send(g.wire, &f);
    assert_eq!(g.r(0x3e, 2), 0x11);
    // Counters.
    g.w(0x14, 4, 0);
    g.w(0x10, 4, (DATA + 0x8000) | 8);
    let t = g.bytes(DATA + 0x8000, 48);
    assert_eq!((t[0], t[8], t[28], t[40]), (2, 1, 1, 2));
    assert_eq!(g.r(0x10, 4), DATA + 0x8000);
}

#[test]
fn segments_and_checksums() {
    use crate::net::checksum::{add, finish};
    let mut g = cplus();
    let mut f = frame([2; 6], 0);
    f.extend([0x45, 0, 0x0b, 0xe0, 0x12, 0x34, 0x40, 0, 0x40, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    f.extend([0x03, 0xe8, 0x07, 0xd0, 0x11, 0x22, 0x33, 0x44, 0, 0, 0, 0, 0x50, 0x1b, 0, 100, 0, 0, 0, 0]);
    f.extend((0..3000u32).map(|i| i as u8));
    g.mem(BUF, &f);
    g.desc(RING, 0xf800_0000 | 1400 << 16 | f.len() as u32, 0, BUF);
    g.w(0xd9, 1, 0x40);
    for (i, len) in [1454, 1454, 254].into_iter().enumerate() {
        let s = g.sent();
        assert_eq!(s.len(), len);
        assert_eq!(finish(add(0, &s[14..34])), 0, "IP checksum");
        let mut pseudo = s[26..34].to_vec();
        pseudo.extend([0, 6]);
        pseudo.extend((len as u16 - 34).to_be_bytes());
        assert_eq!(finish(add(add(0, &pseudo), &s[34..])), 0, "TCP checksum");
        assert_eq!(u32::from_be_bytes([s[38], s[39], s[40], s[41]]), 0x1122_3344 + 1400 * i as u32);
        assert_eq!(s[47], if i == 2 { 0x1b } else { 0x12 });
    }
    // Lengths that are wrong: sent as they are.
    g.desc(RING, 0xf007_0000 | 154, 0, BUF);
    g.w(0xd9, 1, 0x40);
    assert_eq!(g.sent(), f[..154]);
    g.mem(BUF + 14, &[0x4f, 0, 0, 5]);
    g.desc(RING, 0xf80f_8000, 0x2_0000, u64::MAX - 5);
    g.w(0xd9, 1, 0x40);
    assert_eq!(g.sent().len(), 0x8000 + 4);
}

#[test]
fn hostile_rings() {
    let mut g = cplus();
    // A ring without end whose frames never end.
    for i in 0..256 {
        g.desc(RING + 16 * i, 0x8000_ffff, 0, 0);
    }
    g.w(0xd9, 1, 0x40);
    assert_eq!(g.bytes(RING + 16 * 64 + 3, 1), [0x80], "a ring has 64 descriptors");
    g.w(0x24, 4, 0xffff_ffff);
    g.w(0xe8, 4, 0xffff_ffff);
    g.w(0xd9, 1, 0x40);
    g.m.net_send(g.wire, &frame(MAC, 86));
    assert_eq!(g.r(0x3e, 2) & 0x10, 0x10);
    g.nothing_sent();
    for at in 0..0xffu64 {
        for size in [1, 2, 4] {
            g.w(at, size, 0xffff_ffff);
            g.r(at, size);
        }
    }
}
