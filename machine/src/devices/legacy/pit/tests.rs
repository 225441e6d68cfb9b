use super::super::oracle::{compare, Lcg, Op, Qemu};
use super::pcspk::PcspkProps;
use super::*;
use crate::device::testing::machine;
use crate::machine::Machine;
use crate::qom::PropInput;

fn pit() -> Machine {
    let mut m = machine();
    m.add::<IsaPitProps>(&[("iobase", PropInput::Str("0x40"))]);
    m.add::<PcspkProps>(&[]);
    m.reset_devices();
    m
}

fn program(m: &mut Machine, control: u8, count: u16) {
    m.outb(0x43, control);
    let port = 0x40 + u16::from(control >> 6);
    m.outb(port, count as u8);
    m.outb(port, (count >> 8) as u8);
}

/// Rising edges of IRQ 0 during `ns`, in steps of 10 us.
fn edges(m: &mut Machine, ns: i64) -> u32 {
    // The unit under test pulses the line inside one timer call, so count timer calls.
    let end = m.clock.virtual_ns() + ns;
    let mut n = 0;
    while let Some(at) = m.timers.next(crate::clock::ClockKind::Virtual).filter(|t| *t <= end) {
        m.clock.set_virtual(at);
        m.run_timers();
        n += 1;
    }
    m.clock.set_virtual(end);
    n
}

fn level(m: &mut Machine) -> bool {
    let d = m.tree.by_class("isa-pit").unwrap().id;
    let line = m.with::<Pit, _>(d, |p, _| p.irq_line()).unwrap();
    m.irqs.level(line)
}

#[test]
fn rate_generator() {
    let mut m = pit();
    program(&mut m, 0x34, 1193);
    assert_eq!(edges(&mut m, SECOND), 1000);
    program(&mut m, 0x36, 0);
    assert_eq!(edges(&mut m, SECOND), 18);
}

#[test]
fn one_shot() {
    let mut m = pit();
    program(&mut m, 0x30, 1193);
    assert!(!level(&mut m));
    m.advance(999_000);
    assert!(!level(&mut m));
    m.advance(2000);
    assert!(level(&mut m), "stays high");
    assert_eq!(edges(&mut m, SECOND), 0);
    program(&mut m, 0x30, 1193);
    assert!(!level(&mut m));
}

#[test]
fn counting_and_latch() {
    let mut m = pit();
    program(&mut m, 0xb4, 1000);
    m.advance(100 * SECOND / FREQUENCY + 1);
    m.outb(0x43, 0x80);
    m.advance(SECOND);
    assert_eq!((m.inb(0x42), m.inb(0x42)), (0x84, 3));
}

#[test]
fn speaker_port_calibrates() {
    let mut m = pit();
    m.outb(0x61, 0);
    program(&mut m, 0xb0, 11_932);
    m.outb(0x61, 1);
    assert_eq!(m.inb(0x61) & 0x2f, 1);
    m.advance(10_001_000);
    assert_eq!(m.inb(0x61) & 0x2f, 0x21);
}

#[test]
fn same_as_qemu() {
    let Some(mut q) = Qemu::start(&["-M", "pc"]) else { return };
    let mut m = pit();
    let mut r = Lcg(5);
    let mut script = Vec::new();
    for _ in 0..6000 {
        let port = 0x40 + r.below(4) as u16;
        script.push(match r.below(6) {
            0..=2 => Op::In(port),
            3 => Op::Out(port, r.below(256) as u8),
            4 => Op::In(0x61),
            _ => Op::Out(0x61, r.below(256) as u8),
        });
    }
    compare(&mut q, &mut m, &script);
}
