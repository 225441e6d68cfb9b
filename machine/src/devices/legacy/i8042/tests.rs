use super::super::oracle::{compare, Lcg, Op, Qemu};
use super::*;
use crate::device::testing::machine;
use crate::machine::Machine;

fn pc() -> (Machine, DevId) {
    let mut m = machine();
    let d = m.add::<I8042Props>(&[]);
    m.reset_devices();
    (m, d)
}

fn drain(m: &mut Machine) -> Vec<u8> {
    let mut out = Vec::new();
    while m.inb(0x64) & 1 != 0 && out.len() < 100 {
        out.push(m.inb(0x60));
    }
    out
}

fn input(m: &mut Machine, class: &str, events: &[InputEvent]) {
    let id = m.tree.by_class(class).unwrap().id;
    m.with_dev(id, |d, cx| {
        let i = d.input().unwrap();
        for e in events {
            i.event(cx, *e);
        }
        i.sync(cx);
    });
}

fn key(m: &mut Machine, code: u16) {
    input(m, "ps2-kbd", &[InputEvent::Key { code, down: true }, InputEvent::Key { code, down: false }]);
}

fn mouse_cmd(m: &mut Machine, bytes: &[u8]) -> Vec<u8> {
    for b in bytes {
        m.outb(0x64, 0xd4);
        m.outb(0x60, *b);
    }
    drain(m)
}

#[test]
fn keys_interrupt_in_each_set() {
    let (mut m, _) = pc();
    key(&mut m, 0x1e);
    assert!(m.isa_level(1));
    assert_eq!(drain(&mut m), [0x1c, 0xf0, 0x1c]);
    assert!(!m.isa_level(1));
    m.outb(0x64, 0x60);
    m.outb(0x60, 0x41);
    key(&mut m, 0x9d);
    assert_eq!(drain(&mut m), [0xe0, 0x1d, 0xe0, 0x9d]);
    key(&mut m, 0xc6);
    assert_eq!(drain(&mut m), [0xe1, 0x1d, 0x45, 0xe1, 0x9d, 0xc5]);
    m.outb(0x60, 0xf0);
    m.outb(0x60, 3);
    assert_eq!(drain(&mut m), [0xfa]);
    key(&mut m, 0x9d);
    assert_eq!(drain(&mut m), [0x3a, 0xba]);
}

#[test]
fn queue_is_bounded_and_replies_overtake() {
    let (mut m, _) = pc();
    m.outb(0x64, 0x60);
    m.outb(0x60, 0x41);
    for code in 0x10..0x30 {
        key(&mut m, code);
    }
    m.outb(0x60, 0xee);
    let got = drain(&mut m);
    assert_eq!(got.len(), 17);
    assert_eq!(got[..3], [0xee, 0x10, 0x90]);
}

#[test]
fn mouse_packets() {
    use InputEvent::{Button, Rel};
    let (mut m, _) = pc();
    input(&mut m, "ps2-mouse", &[Rel { axis: 0, value: 5 }]);
    assert!(drain(&mut m).is_empty(), "disabled");
    assert_eq!(mouse_cmd(&mut m, &[0xf4]), [0xfa]);
    input(&mut m, "ps2-mouse", &[Rel { axis: 0, value: 300 }, Rel { axis: 1, value: -200 }]);
    assert!(m.isa_level(12));
    assert_eq!(drain(&mut m), [8, 0x7f, 0x7f, 8, 0x7f, 0x49, 8, 0x2e, 0]);
    input(&mut m, "ps2-mouse", &[Button { button: 2, down: true }]);
    assert_eq!(drain(&mut m), [0x0a, 0, 0]);
    assert_eq!(mouse_cmd(&mut m, &[0xf3, 200, 0xf3, 200, 0xf3, 80, 0xf2])[6..], [0xfa, 4]);
    input(&mut m, "ps2-mouse", &[Button { button: 3, down: true }, Button { button: 6, down: true }]);
    assert_eq!(drain(&mut m), [0x0a, 0, 0, 0x2f]);
}

#[test]
fn keyboard_and_mouse_take_turns() {
    let (mut m, _) = pc();
    mouse_cmd(&mut m, &[0xf4]);
    input(&mut m, "ps2-kbd", &[InputEvent::Key { code: 0x1e, down: true }]);
    input(&mut m, "ps2-mouse", &[InputEvent::Rel { axis: 0, value: 1 }]);
    input(&mut m, "ps2-kbd", &[InputEvent::Key { code: 0x30, down: true }]);
    let mut got = Vec::new();
    while m.inb(0x64) & 1 != 0 {
        got.push((m.inb(0x64), m.inb(0x60)));
    }
    assert_eq!(got, [(0x19, 0x1c), (0x39, 8), (0x19, 0x32), (0x39, 1), (0x39, 0)]);
}

#[test]
fn a20_and_reset() {
    let (mut m, d) = pc();
    let line = m.with::<I8042, _>(d, |k, _| k.a20_line()).unwrap();
    assert!(m.irqs.level(line));
    m.outb(0x64, 0xdd);
    assert!(!m.irqs.level(line));
    m.outb(0x64, 0xd1);
    m.outb(0x60, 0xcf);
    assert!(m.irqs.level(line));
    assert!(m.run.requests.reset.is_none());
    m.outb(0x64, 0xfe);
    assert_eq!(m.run.requests.reset, Some(Cause::GuestReset));
}

#[test]
fn throttled_keyboard() {
    let mut m = machine();
    m.add::<I8042Props>(&[("kbd-throttle", crate::qom::PropInput::Str("on"))]);
    key(&mut m, 0x1e);
    assert_eq!(drain(&mut m), [0x1c]);
    m.advance(THROTTLE_NS);
    assert_eq!(drain(&mut m), [0xf0]);
}

#[test]
fn state_round_trip() {
    let (mut m, _) = pc();
    key(&mut m, 0x1e);
    mouse_cmd(&mut m, &[]);
    let (mut n, _) = pc();
    for class in ["ps2-kbd", "ps2-mouse", "i8042"] {
        let (a, b) = (m.tree.by_class(class).unwrap().id, n.tree.by_class(class).unwrap().id);
        let v = m.with_dev(a, |d, cx| d.state().unwrap().save(cx)).unwrap().unwrap();
        n.with_dev(b, |d, cx| d.state().unwrap().load(cx, 3, &v)).unwrap().unwrap();
    }
    key(&mut m, 0x30);
    key(&mut n, 0x30);
    assert_eq!(drain(&mut m), drain(&mut n));
}

#[test]
fn same_as_qemu() {
    let Some(mut q) = Qemu::start(&["-M", "pc"]) else { return };
    let (mut m, _) = pc();
    let mut r = Lcg(11);
    let mut script = Vec::new();
    for _ in 0..6000 {
        let op = match r.below(8) {
            0..=2 => Op::In(0x60),
            3 => Op::In(0x64),
            4 => Op::Out(0x60, r.below(256) as u8),
            5 => Op::Out(0x60, 0xe6 + r.below(26) as u8),
            // Bit 0 of the output port and of a pulse resets the machine.
            6 => Op::Out(0x64, 0x20 + r.below(0xd0) as u8),
            _ => {
                script.push(Op::Out(0x64, 0xd4));
                Op::Out(0x60, 0xe6 + r.below(26) as u8)
            }
        };
        script.push(op);
        if script.last().is_some_and(|o| matches!(o, Op::Out(0x64, 0xd1))) {
            script.push(Op::Out(0x60, r.below(256) as u8 | 1));
        }
    }
    compare(&mut q, &mut m, &script);
}
