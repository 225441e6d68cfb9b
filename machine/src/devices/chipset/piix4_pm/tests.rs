use super::super::tests::board;
use crate::machine::Cause;
use crate::memory::Space;

const PM: u16 = 0x600;

fn with_pm() -> super::super::tests::Board {
    let mut b = board();
    b.cfg_write(0x0b, 0x40, 4, u32::from(PM) | 1);
    b.cfg_write(0x0b, 0x80, 1, 1);
    b
}

fn outw(b: &mut super::super::tests::Board, port: u16, v: u16) {
    b.m.guest_write(Space::Io, u64::from(port), 2, u64::from(v));
}

fn inw(b: &mut super::super::tests::Board, port: u16) -> u16 {
    b.m.guest_read(Space::Io, u64::from(port), 2) as u16
}

#[test]
fn timer_counts_and_interrupts() {
    let mut b = with_pm();
    assert_eq!(b.inl(PM + 8), 0);
    b.m.advance(1_000_000_000);
    assert_eq!(b.inl(PM + 8), 3_579_545);
    // Acknowledge the initial status, enable: the next change of bit 23 interrupts.
    outw(&mut b, PM, 1);
    outw(&mut b, PM + 2, 1);
    assert!(!b.m.isa_level(9));
    b.m.advance(1_343_487_000 - 1_000_000);
    assert!(!b.m.isa_level(9), "2^23 ticks are 2.3435 s");
    b.m.advance(2_000_000);
    assert!(b.m.isa_level(9));
    assert_eq!(b.inl(PM + 8) >> 23, 1);
    outw(&mut b, PM, 1);
    assert!(!b.m.isa_level(9));
    b.m.advance(3_000_000_000);
    assert!(b.m.isa_level(9));
    assert!(b.inl(PM + 8) < 1 << 24, "24 bits");
}

#[test]
fn sleep_requests() {
    let mut b = with_pm();
    outw(&mut b, PM + 4, 0x2000);
    assert_eq!(b.m.run.requests.shutdown.take(), Some(Cause::GuestShutdown));
    assert_eq!(inw(&mut b, PM + 4), 0, "the enable bit reads as zero");
    outw(&mut b, PM + 4, 0x2400);
    assert!(std::mem::take(&mut b.m.run.requests.suspend));
    assert_eq!(b.m.run.requests.shutdown, None);
    outw(&mut b, PM + 4, 0x2800);
    assert_eq!(b.m.run.requests.shutdown.take(), Some(Cause::GuestShutdown));
    assert_eq!(b.m.events.pop_front().map(|e| e.name), Some("SUSPEND_DISK"));
    outw(&mut b, PM + 4, 0x3000);
    assert_eq!(b.m.run.requests.shutdown, None, "no such sleep type");
    b.m.wakeup_reset();
    b.cfg_write(0x0b, 0x80, 1, 1);
    b.cfg_write(0x0b, 0x40, 4, u32::from(PM) | 1);
    assert_eq!(inw(&mut b, PM) & 0x8000, 0x8000, "wake status");
}

#[test]
fn power_button() {
    let mut b = with_pm();
    b.m.power_button();
    assert_eq!(inw(&mut b, PM) & 0x100, 0, "not enabled, not noticed");
    outw(&mut b, PM + 2, 0x100);
    b.m.power_button();
    assert_eq!(inw(&mut b, PM) & 0x100, 0x100);
    assert!(b.m.isa_level(9));
    outw(&mut b, PM, 0x100);
    assert!(!b.m.isa_level(9));
}

#[test]
fn hotplug_handshake() {
    let mut b = board();
    let pm = b.pm;
    // Any function will do: the ISA bridge's slot.
    let dev = b.piix3.dev;
    b.m.outb(0xafe2, 0x02);
    b.m.with_dev(pm, |d, cx| d.hotplug().unwrap().plugged(cx, dev));
    assert!(b.m.isa_level(9));
    assert_eq!(b.m.inb(0xafe0), 2);
    b.m.outb(0xafe0, 2);
    assert!(!b.m.isa_level(9));
    assert_eq!(b.inl(0xae00), 2, "slot 1");
    assert_eq!(b.inl(0xae00), 0, "cleared by reading");
    b.m.with_dev(pm, |d, cx| d.hotplug().unwrap().unplug_request(cx, dev).unwrap());
    assert_eq!(b.inl(0xae04), 2);
    b.outl(0xae08, 2);
    assert_eq!(b.inl(0xae04), 0);
    assert!(b.m.tree.get(dev).is_some(), "a device that cannot be unplugged stays");
    let host = b.host.host;
    assert!(b.m.with_dev(pm, |d, cx| d.hotplug().unwrap().unplug_request(cx, host)).unwrap().is_err());
}

#[test]
fn cpu_hotplug_handshake() {
    let mut b = board();
    b.set_cpus(1, 3);
    let (pm, cpu) = (b.pm, b.host.host);
    b.m.outb(0xaf00, 0);
    b.m.with::<super::Piix4Pm, _>(pm, |d, cx| d.cpu_plugged(cx, 2, cpu));
    assert_eq!(b.m.inb(0xafe0), 4);
    b.m.outb(0xaf05, 0);
    assert_eq!(b.inl(0xaf08), 2, "processor with an event");
    b.outl(0xaf00, 2);
    assert_eq!(b.m.inb(0xaf04), 3);
    b.m.outb(0xaf04, 2);
    assert_eq!(b.m.inb(0xaf04), 1);
    b.m.outb(0xaf05, 1);
    b.outl(0xaf08, 0x103);
    b.m.outb(0xaf05, 2);
    b.outl(0xaf08, 0);
    let e = b.m.events.pop_front().unwrap();
    assert_eq!(e.name, "ACPI_DEVICE_OST");
    assert_eq!(e.data.unwrap()["info"]["source"], 0x103);
}
