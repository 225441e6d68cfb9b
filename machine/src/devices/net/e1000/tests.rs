//! A driver that sends and receives over registers and rings, and the values that QEMU 7.2 shows.

use super::*;
use crate::device::DevId;
use crate::devices::virtio::testing::{pci_machine, plug, DATA};
use crate::machine::Machine;
use crate::memory::Space;
use crate::spec::visit::Mode;
use crate::spec::Value;

/// Where the test's `plug` puts BAR 0.
const BAR: u64 = 0xc000 << 16;
const TX_RING: u64 = DATA;
const RX_RING: u64 = DATA + 0x1000;
const BUF: u64 = DATA + 0x2000;
const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

struct Guest {
    m: Machine,
    dev: DevId,
    /// The other end of the link.
    wire: NetId,
    /// A second card on the hub that shows what was sent.
    sock: std::net::UdpSocket,
    peer: std::net::SocketAddr,
}

impl Guest {
    fn new(props: &[(&str, &str)]) -> Self {
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
        let mut all = vec![("netdev", "s")];
        all.extend(props);
        let dev = plug(&mut m, "e1000", &all).unwrap();
        m.pci_config_write(Some(dev), 0x10, 4, BAR as u32);
        m.settle();
        let mut g = Self { m, dev, wire, sock, peer };
        g.w(reg::TDBAL, TX_RING as u32);
        g.w(reg::TDLEN, 0x100);
        g.w(reg::RDBAL, RX_RING as u32);
        g.w(reg::RDLEN, 0x80);
        for i in 0..8 {
            g.mem(RX_RING + 16 * i, &(BUF + 0x10_000 + 0x800 * i).to_le_bytes());
        }
        g
    }

    fn r(&mut self, at: u32) -> u32 {
        self.m.guest_read(Space::Memory, BAR + u64::from(at), 4) as u32
    }
    fn w(&mut self, at: u32, v: u32) {
        self.m.guest_write(Space::Memory, BAR + u64::from(at), 4, u64::from(v));
    }
    fn mem(&mut self, at: u64, data: &[u8]) {
        self.m.flat().mem.write(at, data).unwrap();
    }
    fn bytes(&mut self, at: u64, n: usize) -> Vec<u8> {
        let mut b = vec![0; n];
        self.m.flat().mem.read(at, &mut b).unwrap();
        b
    }
    fn desc(&mut self, i: u64, addr: u64, low: u32, high: u32) {
        let mut d = addr.to_le_bytes().to_vec();
        d.extend(low.to_le_bytes());
        d.extend(high.to_le_bytes());
        self.mem(TX_RING + 16 * i, &d);
    }
    fn send(&mut self, tail: u32) {
        self.w(reg::TCTL, 0x3_f00a);
        self.w(reg::TDT, tail);
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
    }
    fn phy(&mut self, r: u32) -> u32 {
        self.w(reg::MDIC, 2 << 26 | 1 << 21 | r << 16);
        self.r(reg::MDIC)
    }
    fn intx(&mut self) -> bool {
        self.m.irqs.level(crate::irq::IrqLine(0))
    }
    /// A frame comes in; returns length, status and tag in the descriptor that it got.
    fn arrives(&mut self, frame: &[u8]) -> Option<(u16, u8, u16)> {
        let head = self.r(reg::RDH);
        self.m.net_send(self.wire, frame);
        if self.r(reg::RDH) == head {
            return None;
        }
        let d = self.bytes(RX_RING + 16 * u64::from(head), 16);
        Some((u16::from_le_bytes([d[8], d[9]]), d[12], u16::from_le_bytes([d[14], d[15]])))
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
    let mut g = Guest::new(&[]);
    for (at, v) in [
        (reg::CTRL, 0x14_0240),
        (reg::STATUS, 0x8008_0783),
        (reg::EECD, 0x188),
        (reg::VET, 0x8100),
        (reg::LEDCTL, 0x602),
        (reg::PBA, 0x10_0030),
        (reg::RAL0, 0x1200_5452),
        (reg::RAH0, 0x8000_5634),
        (reg::MANC, 0x22_2300),
        (reg::ICR, 0),
        (0x18, 0),
        (0x7000, 0),
        (0x1_fffc, 0),
    ] {
        assert_eq!(g.r(at), v, "{at:#x}");
    }
    // Through EERD: address, device id, checksum, and a word that is not there.
    for (word, v) in [(0, 0x5452), (0xd, 0x100e), (0x3f, 0x79ad), (0x47, 0)] {
        g.w(reg::EERD, word << 8 | 1);
        assert_eq!(g.r(reg::EERD), v << 16 | word << 8 | 0x10);
    }
    for (r, v) in [
        (0, 0x1820_1140),
        (1, 0x1821_794d),
        (3, 0x1823_0c20),
        (7, 0x5827_0000),
        (0x11, 0x1831_ac00),
        (0x1f, 0x583f_0000),
    ] {
        assert_eq!(g.phy(r), v);
    }
    let pci = |g: &mut Guest, at| g.m.pci_config_read(Some(g.dev), at, 4);
    assert_eq!((pci(&mut g, 0), pci(&mut g, 8)), (0x100e_8086, 0x0200_0003));
}

#[test]
fn writable_bits_and_missing_registers() {
    let mut g = Guest::new(&[]);
    for (at, v) in [
        (reg::STATUS, 0x8008_0783),
        (reg::RDLEN, 0xf_ff80),
        (reg::TDH, 0xffff),
        (0x2410, 0x1fff),
        (0x3418, 0x7ff),
        (0x18, 0),
    ] {
        g.w(at, u32::MAX);
        assert_eq!(g.r(at), v, "{at:#x}");
    }
    let mut g = Guest::new(&[("mitigation", "off"), ("extra_mac_registers", "off"), ("init-vet", "off")]);
    for at in [reg::ITR, reg::RADV, reg::TADV, reg::RDTR, 0x2410, 0x5810] {
        g.w(at, u32::MAX);
        assert_eq!(g.r(at), 0, "{at:#x}");
    }
    assert_eq!(g.r(reg::VET), 0);
}

#[test]
fn microwire_read() {
    let mut g = Guest::new(&[]);
    let bit = |g: &mut Guest, on: bool| {
        let d = 2 | u32::from(on) << 2;
        for v in [d, d | 1, d] {
            g.w(reg::EECD, v);
        }
    };
    g.w(reg::EECD, 2);
    for i in (0..9).rev() {
        bit(&mut g, (6u32 << 6 | 0x0d) >> i & 1 != 0);
    }
    let mut words = [0u16; 2];
    for w in &mut words {
        for _ in 0..16 {
            g.w(reg::EECD, 3);
            *w = *w << 1 | u16::from(g.r(reg::EECD) & 8 != 0);
            g.w(reg::EECD, 2);
        }
    }
    assert_eq!(words, [0x100e, 0x8086], "the next word follows");
}

#[test]
fn interrupts() {
    let mut g = Guest::new(&[]);
    g.w(reg::ICS, 4);
    assert!(!g.intx());
    g.w(reg::IMS, 4);
    assert!(g.intx());
    assert_eq!(g.r(reg::ICR), 4);
    assert!(!g.intx() && g.r(reg::ICR) == 0);
    g.w(reg::ICS, 0x14);
    g.w(reg::ICR, 4);
    assert!(!g.intx());
    assert_eq!(g.r(reg::ICS), 0x10);
    // With a throttle the second interrupt waits for 1000 units of 256 ns.
    g.w(reg::ITR, 1000);
    g.w(reg::ICS, 4);
    assert!(g.intx());
    g.r(reg::ICR);
    g.w(reg::ICS, 4);
    assert!(!g.intx());
    g.m.advance(255_999);
    assert!(!g.intx());
    g.m.advance(1);
    assert!(g.intx());
    g.w(reg::IMC, 4);
    assert!(!g.intx());
}

#[test]
fn link() {
    let mut g = Guest::new(&[]);
    g.w(reg::IMS, 4);
    g.w(reg::MDIC, 1 << 26 | 1 << 21 | 0x1340);
    assert_eq!((g.r(reg::STATUS) & 2, g.phy(1) & 0xffff), (0, 0x7949));
    g.m.advance(500_000_000);
    assert!(g.intx());
    assert_eq!((g.r(reg::STATUS) & 2, g.phy(1) & 0xffff, g.phy(5) & 0xffff), (2, 0x796d, 0x41e0));
    assert_eq!(g.r(reg::ICR), 4);
    g.m.set_link("s", false).unwrap();
    assert_eq!((g.r(reg::STATUS) & 2, g.r(reg::ICR)), (0, 4));
    g.m.set_link("s", true).unwrap();
    g.m.advance(500_000_000);
    assert_eq!((g.r(reg::STATUS) & 2, g.r(reg::ICR)), (2, 4));
}

#[test]
fn legacy_transmission() {
    let mut g = Guest::new(&[]);
    let f = frame([0, 1, 2, 3, 4, 5], 50);
    g.mem(BUF, &f);
    g.desc(0, BUF, 64 | 0x0b << 24, 0);
    g.send(1);
    assert_eq!(g.sent(), f);
    assert_eq!((g.r(reg::TDH), g.r(reg::ICR)), (1, 3));
    assert_eq!(g.bytes(TX_RING + 12, 1), [1], "done");
    assert_eq!([reg::GPTC, 0x4090, 0x40c8, 0x40d4, 0x40dc].map(|c| g.r(c)), [1, 68, 68, 1, 1]);
    assert_eq!(g.r(reg::GPTC), 0, "counters are cleared by reading");
    // Two descriptors for one frame, with a tag to be inserted.
    g.w(reg::CTRL, CTRL_VME_BIT);
    g.desc(1, BUF, 32, 0);
    g.desc(2, BUF + 32, 32 | 0x49 << 24, 0x0123_0000);
    g.send(3);
    let tagged = g.sent();
    assert_eq!((tagged.len(), &tagged[12..18]), (68, &[0x81, 0, 1, 0x23, 8, 0][..]));
    assert_eq!(g.r(reg::ICR), 3);
}

const CTRL_VME_BIT: u32 = 1 << 30;

/// Sum over a TCP segment with its pseudo header: 0 if it is right.
fn tcp_sum(f: &[u8]) -> u16 {
    use crate::net::checksum::{add, finish};
    let tcp = &f[34..];
    let mut pseudo = f[26..34].to_vec();
    pseudo.extend([0, 6]);
    pseudo.extend((tcp.len() as u16).to_be_bytes());
    finish(add(add(0, &pseudo), tcp))
}

#[test]
fn segmentation() {
    use crate::net::checksum::{add, finish};
    let mut g = Guest::new(&[]);
    let mut f = frame([2; 6], 0);
    f.extend([0x45, 0, 0, 0, 0x12, 0x34, 0x40, 0, 0x40, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    let mut pseudo = f[26..34].to_vec();
    pseudo.extend([0, 6]);
    let partial = !finish(add(0, &pseudo));
    f.extend([0x03, 0xe8, 0x07, 0xd0, 0x11, 0x22, 0x33, 0x44, 0, 0, 0, 0, 0x50, 0x1b, 0, 100]);
    f.extend(partial.to_be_bytes());
    f.extend([0, 0]);
    let payload: Vec<u8> = (0..3000u32).map(|i| i as u8).collect();
    f.extend(&payload);
    g.mem(BUF, &f);
    let context = u64::from_le_bytes([14, 24, 33, 0, 34, 50, 0, 0]);
    g.desc(0, context, 3000 | 0x27 << 24, 1400 << 16 | 54 << 8);
    // In two pieces, the first one shorter than the headers.
    g.desc(1, BUF, 20 | 1 << 20 | 0x24 << 24, 0x300);
    g.desc(2, BUF + 20, (f.len() as u32 - 20) | 1 << 20 | 0x2d << 24, 0x300);
    g.send(3);
    let mut got: Vec<u8> = Vec::new();
    for (i, len) in [1454, 1454, 254].into_iter().enumerate() {
        let s = g.sent();
        assert_eq!(s.len(), len);
        assert_eq!(u16::from_be_bytes([s[16], s[17]]), len as u16 - 14);
        assert_eq!(finish(add(0, &s[14..34])), 0, "IP checksum");
        assert_eq!(tcp_sum(&s), 0);
        assert_eq!(u16::from_be_bytes([s[18], s[19]]), 0x1234 + i as u16);
        assert_eq!(u32::from_be_bytes([s[38], s[39], s[40], s[41]]), 0x1122_3344 + 1400 * i as u32);
        assert_eq!(s[47], if i == 2 { 0x1b } else { 0x12 });
        got.extend(&s[54..]);
    }
    assert_eq!(got, payload);
    assert_eq!(g.r(reg::TSCTC), 1);
}

#[test]
fn hostile_rings_and_contexts() {
    let mut g = Guest::new(&[]);
    // No payload per segment, headers longer than the frame, checksums outside it.
    g.desc(0, u64::MAX, 0xf_ffff | 0x27 << 24, 255 << 8);
    g.desc(1, BUF, 0x1000 | 1 << 20 | 0x2d << 24, 0x300);
    g.desc(2, u64::MAX, 0x27 << 24, u32::MAX);
    g.desc(3, BUF, 10 | 1 << 20 | 0x2d << 24, 0x300);
    g.desc(4, u64::MAX, 0xf_ffff | 1 << 20 | 0x2d << 24, 0x300);
    // More than any frame holds.
    for i in 5..15 {
        g.desc(i, 0, 0xf_ffff | 1 << 20 | 0x20 << 24, 0);
    }
    g.send(15);
    assert_eq!(g.r(reg::TDH), 15);
    // Tails and heads outside the ring, an empty ring.
    g.w(reg::TDT, 0x777);
    assert_eq!(g.r(reg::ICR) & 2, 2);
    g.w(reg::TDH, 0xfff0);
    g.w(reg::TDT, 1);
    g.w(reg::TDLEN, 0);
    g.w(reg::TDT, 5);
    g.w(reg::RDT, 0xffff);
    g.w(reg::RCTL, 0x8002);
    for _ in 0..20 {
        g.arrives(&frame(MAC, 1400));
    }
    g.w(reg::RDLEN, 0);
    g.w(reg::RDT, 7);
    g.arrives(&frame(MAC, 100));
    g.w(reg::RDLEN, 0x80);
    g.w(reg::RDH, 0xffff);
    g.w(reg::RDT, 0);
    g.arrives(&frame(MAC, 100));
    // A ring that is not in memory.
    g.w(reg::RDBAH, 0xffff_ffff);
    g.w(reg::RDH, 0);
    g.w(reg::RDT, 7);
    g.arrives(&frame(MAC, 100));
}

#[test]
fn reception() {
    let mut g = Guest::new(&[]);
    g.w(reg::IMS, 0x80);
    g.w(reg::RDT, 7);
    g.w(reg::RCTL, 0x8002);
    let f = frame(MAC, 86);
    assert_eq!(g.arrives(&f), Some((104, 7, 0)));
    assert_eq!(g.bytes(BUF + 0x10_000, 100), f);
    assert_eq!(g.bytes(BUF + 0x10_000 + 100, 4), [0; 4], "no checksum bytes");
    assert!(g.intx());
    assert_eq!(g.r(reg::ICR), 0x80);
    assert_eq!(g.arrives(&f[..30]), Some((64, 7, 0)), "padded");
    assert_eq!(g.arrives(&frame([0xff; 6], 86)), Some((104, 7, 0)));
    assert_eq!(g.r(reg::ICR), 0x90, "few buffers left");
    assert_eq!(g.arrives(&frame([2; 6], 86)), None);
    assert_eq!(g.arrives(&frame([1, 0, 0x5e, 0, 0, 1], 86)), None);
    g.w(reg::MTA, 1 << 16);
    assert_eq!(g.arrives(&frame([1, 0, 0x5e, 0, 0, 1], 86)), Some((104, 7, 0)));
    g.w(reg::RDT, 3);
    assert_eq!(g.arrives(&frame(MAC, 1600)), None, "too long");
    g.w(reg::RCTL, 0x8022);
    assert_eq!(g.arrives(&frame(MAC, 3086)), Some((2048, 1, 0)), "first of two buffers");
    assert_eq!(
        [0x405c, 0x4060, 0x4070, reg::GPRC, reg::BPRC, reg::MPRC, reg::ROC].map(|c| g.r(c)),
        [1, 3, 1, 5, 1, 1, 1]
    );
}

#[test]
fn vlan_reception() {
    let mut g = Guest::new(&[]);
    g.w(reg::RDT, 7);
    g.w(reg::CTRL, CTRL_VME_BIT);
    g.w(reg::RCTL, 0x4_8002);
    let mut f = frame(MAC, 86);
    f.splice(12..12, [0x81, 0, 1, 0x23]);
    assert_eq!(g.arrives(&f), None, "not in the table");
    g.w(reg::VFTA + 4 * (0x123 >> 5), 1 << (0x123 & 31));
    assert_eq!(g.arrives(&f), Some((104, 15, 0x123)));
    assert_eq!(g.bytes(BUF + 0x10_000 + 12, 2), [8, 0], "the tag is taken out");
}

#[test]
fn frames_wait_for_buffers() {
    let mut g = Guest::new(&[]);
    g.w(reg::RCTL, 0x8002);
    assert_eq!(g.arrives(&frame(MAC, 86)), None);
    g.w(reg::RDT, 7);
    g.m.net_continue();
    assert_eq!(g.r(reg::RDH), 1);
    // Over the socket, as in life.
    g.sock.send_to(&frame(MAC, 50), g.peer).unwrap();
    let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while g.r(reg::RDH) != 2 {
        assert!(std::time::Instant::now() < end);
        g.m.net_serve();
    }
    // Loopback.
    g.w(reg::MDIC, 1 << 26 | 1 << 21 | 0x5140);
    g.mem(BUF, &frame(MAC, 50));
    g.desc(0, BUF, 64 | 0x0b << 24, 0);
    g.send(1);
    assert_eq!(g.r(reg::RDH), 3);
    g.nothing_sent();
}
