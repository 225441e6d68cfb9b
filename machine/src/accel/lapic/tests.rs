use super::regs::reg;
use super::*;

/// A bus whose clock is set by hand.
fn bus(n: u32) -> (Arc<ApicBus>, Arc<VirtualClock>) {
    let clock = Arc::new(VirtualClock::default());
    let ids: Vec<u32> = (0..n).collect();
    let b = ApicBus::new(&ids, clock.clone());
    for i in 0..n as usize {
        assert_eq!(b.write(i, reg::SVR, 0x1ff), None);
    }
    (b, clock)
}

fn icr(b: &ApicBus, from: usize, dest: u32, low: u32) {
    assert_eq!(b.write(from, reg::ICR_HIGH, dest << 24), None);
    assert_eq!(b.write(from, reg::ICR, low), None);
}

#[test]
fn priorities_and_end_of_interrupt() {
    let (b, _) = bus(1);
    b.msi(MsiMessage { addr: 0xfee0_0000, data: 0x8051 });
    b.msi(MsiMessage { addr: 0xfee0_0000, data: 0x62 });
    assert_eq!(b.pending(0), pending::APIC);
    assert_eq!(b.acknowledge(0), Some(0x62));
    assert_eq!(b.pending(0), 0, "a lower class waits");
    assert_eq!(b.write(0, reg::EOI, 0), None, "an edge needs no broadcast");
    b.set_cr8(0, 5);
    assert_eq!(b.acknowledge(0), None, "the task priority holds it back");
    b.set_cr8(0, 4);
    assert_eq!(b.acknowledge(0), Some(0x51));
    assert_eq!(b.read(0, reg::PPR), 0x50);
    assert_eq!(b.read(0, reg::TMR + 0x20), 1 << 0x11);
    assert_eq!(b.write(0, reg::EOI, 0), Some(0x51));
}

#[test]
fn software_disabled_apics_deliver_nothing() {
    let (b, _) = bus(1);
    assert_eq!(b.write(0, reg::SVR, 0xff), None);
    b.msi(MsiMessage { addr: 0xfee0_0000, data: 0x40 });
    assert_eq!(b.pending(0), 0);
    assert_eq!(b.write(0, reg::LVT_TIMER, 0x40), None);
    assert_eq!(b.read(0, reg::LVT_TIMER), 0x1_0040, "entries stay masked");
    assert_eq!(b.write(0, reg::SVR, 0x1ff), None);
    assert_eq!(b.acknowledge(0), Some(0x40));
}

#[test]
fn destinations() {
    let (b, _) = bus(4);
    for i in 0..4 {
        assert_eq!(b.write(i, reg::LDR, 1 << (24 + i)), None);
    }
    let got = |v: u8| (0..4).filter(|i| b.acknowledge(*i) == Some(v)).collect::<Vec<_>>();
    icr(&b, 0, 2, 0x4030);
    assert_eq!(got(0x30), [2], "physical");
    icr(&b, 0, 0xff, 0x4041);
    assert_eq!(got(0x41), [0, 1, 2, 3], "broadcast");
    icr(&b, 0, 0b1010, 0x4851);
    assert_eq!(got(0x51), [1, 3], "logical, flat");
    icr(&b, 1, 0, 0x4_0060);
    assert_eq!(got(0x60), [1], "self");
    icr(&b, 1, 0, 0xc_0070);
    assert_eq!(got(0x70), [0, 2, 3], "all but self");
    // By now 0 and 2 serve class 7, 1 class 6, 3 class 7: the lowest priority is the second's.
    icr(&b, 0, 0b1111, 0x4980);
    assert_eq!(got(0x80), [1]);
}

#[test]
fn lowest_priority_takes_turns() {
    let (b, _) = bus(2);
    for i in 0..2 {
        assert_eq!(b.write(i, reg::LDR, 1 << (24 + i)), None);
    }
    let mut who = Vec::new();
    for _ in 0..4 {
        b.msi(MsiMessage { addr: 0xfee0_3004, data: 0x141 });
        let i = (0..2).find(|i| b.acknowledge(*i).is_some()).unwrap();
        assert_eq!(b.write(i, reg::EOI, 0), None);
        who.push(i);
    }
    who[..2].sort_unstable();
    assert_eq!(who[..2], [0, 1]);
}

#[test]
fn start_up_messages() {
    let (b, _) = bus(2);
    icr(&b, 0, 1, 0x4500);
    assert_eq!(b.pending(1), pending::INIT);
    b.init(1);
    icr(&b, 0, 1, 0x8500);
    assert_eq!(b.pending(1), 0, "the end of an INIT does nothing");
    icr(&b, 0, 1, 0x46_9a);
    assert_eq!(b.pending(1), pending::SIPI | 0x9a << pending::SIPI_VECTOR);
    icr(&b, 0, 1, 0x44_00);
    assert_eq!(b.take(1, pending::NMI), pending::NMI);
}

#[test]
fn the_8259_comes_through_lint0() {
    let (b, _) = bus(2);
    b.set_pic(true);
    assert_eq!(b.pending(0), 0, "masked at reset");
    assert_eq!(b.write(0, 0x350, 0x700), None);
    assert_eq!(b.pending(0), pending::PIC);
    assert_eq!(b.pending(1), 0);
    assert_eq!(b.write(0, 0x350, 0x1_0700), None);
    assert_eq!(b.pending(0), 0, "masked");
    assert!(b.set_base(0, 0xfee0_0000, false));
    assert_eq!(b.pending(0), pending::PIC, "an APIC that is off lets it through");
    assert_eq!(b.page(0), u64::MAX);
}

#[test]
fn timer_modes() {
    let (b, clock) = bus(1);
    assert_eq!(b.write(0, reg::TIMER_DIVIDE, 0xb), None);
    assert_eq!(b.write(0, reg::LVT_TIMER, 0x2_0040), None);
    assert_eq!(b.write(0, reg::TIMER_INITIAL, 1000), None);
    clock.set(400);
    assert_eq!(b.read(0, reg::TIMER_CURRENT), 600);
    clock.set(2500);
    assert_eq!(b.read(0, reg::TIMER_CURRENT), 500);
    let fire = |t: i64| {
        clock.set(t);
        b.cells[0].apic.lock().expire(t);
        b.refresh(0);
        let v = b.acknowledge(0);
        let _ = b.write(0, reg::EOI, 0);
        v
    };
    assert_eq!(fire(2500), Some(0x40));
    assert_eq!(fire(2900), None);
    assert_eq!(fire(3000), Some(0x40));
    assert_eq!(b.write(0, reg::LVT_TIMER, 0x4_0041), None);
    assert_eq!(b.read(0, reg::TIMER_CURRENT), 0);
    b.set_tsc_deadline(0, 12345, 500);
    assert_eq!(b.tsc_deadline(0), 12345);
    assert_eq!(fire(3499), None);
    assert_eq!(fire(3500), Some(0x41));
    assert_eq!(b.tsc_deadline(0), 0);
}

#[test]
fn the_timer_thread_wakes_a_sleeper() {
    let (b, clock) = bus(1);
    clock.start();
    assert_eq!(b.write(0, reg::LVT_TIMER, 0x40), None);
    assert_eq!(b.write(0, reg::TIMER_INITIAL, 100_000), None);
    let b2 = b.clone();
    let t = std::thread::spawn(move || b2.run_timers());
    b.halt(0, pending::APIC, || false);
    assert_eq!(b.acknowledge(0), Some(0x40));
    b.stop_timers();
    t.join().unwrap();
}

#[test]
fn x2apic() {
    let (b, _) = bus(2);
    assert!(!b.set_base(1, 0xfee0_0c00, false), "only where CPUID has it");
    assert_eq!(b.msr_read(1, 0x802), None, "not in this mode yet");
    assert!(b.set_base(1, 0xfee0_0c00, true));
    assert!(!b.set_base(1, 0xfee0_0800, true), "no way back but off");
    assert_eq!(b.msr_read(1, 0x802), Some(1));
    assert_eq!(b.msr_read(1, 0x80d), Some(2));
    assert_eq!(b.msr_write(1, 0x80e, 0), None, "no destination format here");
    assert_eq!(b.msr_write(1, 0x83f, 0x55), Some(None));
    assert_eq!(b.acknowledge(1), Some(0x55));
    assert_eq!(b.msr_write(1, 0x830, 0x4044), Some(None));
    assert_eq!(b.acknowledge(0), Some(0x44));
}
