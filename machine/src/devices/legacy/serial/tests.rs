use super::super::oracle::{compare, Lcg, Op, Qemu};
use super::*;
use crate::device::testing::machine;
use crate::device::DevId;
use crate::machine::Machine;
use crate::qom::PropInput;

const COM1: u16 = 0x3f8;

fn port() -> (Machine, DevId) {
    let mut m = machine();
    m.add_test_char("c");
    let d = m.add::<IsaSerialProps>(&[("chardev", PropInput::Str("c"))]);
    (m, d)
}

fn feed(m: &mut Machine, d: DevId, data: &[u8]) -> usize {
    m.with_dev(d, |d, cx| {
        let f = d.chardev().unwrap();
        let n = f.can_receive(0).min(data.len());
        f.receive(cx, 0, &data[..n]);
        n
    })
    .unwrap()
}

#[test]
fn output_is_immediate() {
    let (mut m, _) = port();
    for b in b"hello" {
        m.outb(COM1, *b);
        assert_eq!(m.inb(COM1 + 5), 0x60);
    }
    assert_eq!(m.test_char("c", |t| t.out.clone()), b"hello");
    assert!(m.timers.next(crate::clock::ClockKind::Virtual).is_none(), "output needs no timer");
}

#[test]
fn full_back_end_holds_output_back() {
    let (mut m, d) = port();
    m.test_char("c", |t| t.room = 1);
    m.outb(COM1 + 2, 1);
    m.outb(COM1 + 1, 2);
    for b in b"abcd" {
        m.outb(COM1, *b);
    }
    assert_eq!(m.inb(COM1 + 5) & 0x60, 0);
    m.test_char("c", |t| t.room = 100);
    m.with_dev(d, |d, cx| d.chardev().unwrap().writable(cx, 0));
    assert_eq!(m.test_char("c", |t| t.out.clone()), b"abcd");
    assert_eq!(m.inb(COM1 + 5), 0x60);
    assert!(m.isa_level(4));
    assert_eq!(m.inb(COM1 + 2), 0xc2);
    assert!(!m.isa_level(4));
}

#[test]
fn receive_trigger_and_timeout() {
    let (mut m, d) = port();
    m.outb(COM1 + 2, 0x81);
    m.outb(COM1 + 1, 1);
    assert_eq!(feed(&mut m, d, b"0123456789"), 8);
    assert!(m.isa_level(4));
    assert_eq!(m.inb(COM1 + 2), 0xc4);
    assert_eq!(m.inb(COM1), b'0');
    assert!(!m.isa_level(4), "below the trigger level");
    // 9600 baud, 5N1 after reset: 7 bits a character, 4 characters.
    m.advance(4 * 7 * 104_166);
    assert!(m.isa_level(4));
    assert_eq!(m.inb(COM1 + 2), 0xcc);
    assert_eq!(m.inb(COM1), b'1');
    assert!(!m.isa_level(4));
}

#[test]
fn overrun_and_break() {
    let (mut m, d) = port();
    m.with_dev(d, |d, cx| {
        let f = d.chardev().unwrap();
        f.receive(cx, 0, b"a");
        assert_eq!(f.can_receive(0), 0);
        f.receive(cx, 0, b"b");
    });
    assert_eq!(m.inb(COM1 + 5), 0x63);
    assert_eq!(m.inb(COM1 + 5), 0x61);
    assert_eq!(m.inb(COM1), b'b');
    m.outb(COM1 + 1, 4);
    m.with_dev(d, |d, cx| d.chardev().unwrap().event(cx, 0, CharEvent::Break));
    assert!(m.isa_level(4));
    assert_eq!(m.inb(COM1 + 2), 0x06);
    assert_eq!(m.inb(COM1 + 5), 0x71);
    assert!(!m.isa_level(4));
}

#[test]
fn indexes_and_errors() {
    let mut m = machine();
    m.add_test_char("c");
    for port in [0x3f8, 0x2f8, 0x3e8, 0x2e8] {
        m.add::<IsaSerialProps>(&[]);
        m.outb(port + 7, 0x5a);
        assert_eq!(m.inb(port + 7), 0x5a);
    }
    let e = m.add_device(IsaSerialProps::CLASS, None, crate::device::Place::Anon(0), &[]).unwrap_err();
    assert_eq!(e.desc, "Max. supported number of ISA serial ports is 4.");
    let e = |chr: &str, m: &mut Machine| {
        let props = [("chardev", PropInput::Str(chr)), ("index", PropInput::Str("0"))];
        let place = crate::device::Place::Anon(1);
        m.add_device(IsaSerialProps::CLASS, None, place, &props).map_err(|e| e.desc)
    };
    assert_eq!(e("x", &mut m).unwrap_err(), "Property 'serial.chardev' can't find value 'x'");
    e("c", &mut m).unwrap();
    assert_eq!(
        e("c", &mut m).unwrap_err(),
        "Property 'serial.chardev' can't take value 'c': Device 'c' is in use"
    );
}

#[test]
fn state_round_trip() {
    let (mut m, d) = port();
    m.outb(COM1 + 2, 0x81);
    m.outb(COM1 + 1, 1);
    feed(&mut m, d, b"abc");
    let v = m.with_dev(d, |d, cx| d.state().unwrap().save(cx)).unwrap().unwrap();
    let (mut n, d) = port();
    n.with_dev(d, |d, cx| d.state().unwrap().load(cx, 3, &v)).unwrap().unwrap();
    assert_eq!(n.inb(COM1), b'a');
    n.advance(10_000_000);
    assert!(n.isa_level(4), "the timeout came along");
    let mut bad = v.clone();
    bad["junk"] = 1.into();
    assert!(n.with_dev(d, |d, cx| d.state().unwrap().load(cx, 3, &bad)).unwrap().is_err());
}

#[test]
fn same_as_qemu() {
    let Some(mut q) = Qemu::start(&["-M", "pc", "-serial", "null"]) else { return };
    let (mut m, _) = port();
    let mut r = Lcg(7);
    let mut script = Vec::new();
    for _ in 0..6000 {
        let port = COM1 + r.below(8) as u16;
        script.push(match r.below(2) {
            0 => Op::In(port),
            // Loopback often, so that bytes come in.
            _ if port == COM1 + 4 => Op::Out(port, (r.below(2) as u8 * 0x10) | r.below(256) as u8),
            _ if port == COM1 + 3 => Op::Out(port, (r.below(4) as u8 / 3 * 0x80) | r.below(128) as u8),
            _ => Op::Out(port, r.below(256) as u8),
        });
    }
    compare(&mut q, &mut m, &script);
}
