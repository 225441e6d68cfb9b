use super::super::oracle::{compare, Lcg, Op, Qemu};
use super::*;
use crate::device::testing::machine;
use crate::device::DevId;
use crate::machine::Machine;
use crate::qom::PropInput;

const T: i64 = 1_582_934_398; // 2020-02-28T23:59:58Z, a Friday

fn rtc() -> (Machine, DevId) {
    let mut m = machine();
    m.rtc.base = RtcBase::At(T);
    m.rtc.clock = RtcClock::Vm;
    let d = m.add::<Mc146818Props>(&[("base_year", PropInput::Str("0"))]);
    m.reset_devices();
    (m, d)
}

fn get(m: &mut Machine, i: u8) -> u8 {
    m.outb(0x70, i);
    m.inb(0x71)
}

fn set(m: &mut Machine, i: u8, v: u8) {
    m.outb(0x70, i);
    m.outb(0x71, v);
}

#[test]
fn time_runs_and_carries() {
    let (mut m, _) = rtc();
    assert_eq!(get(&mut m, 0), 0x58);
    m.advance(2 * SECOND - UPDATE_NS - 1);
    assert_eq!(get(&mut m, 10), 0x26);
    m.advance(1);
    assert_eq!(get(&mut m, 10), 0xa6);
    m.advance(UPDATE_NS);
    assert_eq!(get(&mut m, 10), 0x26);
    let now: Vec<u8> = [0, 2, 4, 6, 7, 8, 9, 0x32].map(|i| get(&mut m, i)).into();
    assert_eq!(now, [0, 0, 0, 7, 0x29, 2, 0x20, 0x20]);
    set(&mut m, 11, 4); // binary, 12 hours
    m.advance(13 * 3600 * SECOND);
    assert_eq!(get(&mut m, 4), 0x81);
    assert_eq!(get(&mut m, 7), 29);
    assert_eq!(get(&mut m, 9), 20);
}

#[test]
fn update_alarm_and_idle() {
    let (mut m, _) = rtc();
    assert!(m.timers.next(ClockKind::Virtual).is_none(), "idle clock has no timer");
    set(&mut m, 11, 0x12);
    let rtc_irq = |m: &mut Machine| {
        let d = m.tree.by_class("mc146818rtc").unwrap().id;
        let line = m.with::<Mc146818, _>(d, |r, _| r.irq_line()).unwrap();
        m.irqs.level(line)
    };
    m.advance(SECOND);
    assert!(rtc_irq(&mut m));
    assert_eq!(get(&mut m, 12), 0x90);
    assert!(!rtc_irq(&mut m));
    assert_eq!(get(&mut m, 12), 0);
    // Alarm at any hour, minute 1, second 0.
    set(&mut m, 5, 0xff);
    set(&mut m, 3, 1);
    set(&mut m, 1, 0);
    set(&mut m, 11, 0x22);
    m.advance(60 * SECOND);
    assert!(!rtc_irq(&mut m));
    m.advance(SECOND);
    assert!(rtc_irq(&mut m));
    assert_eq!(get(&mut m, 12), 0xb0);
    m.advance(3600 * SECOND);
    assert!(rtc_irq(&mut m));
}

#[test]
fn periodic_rate() {
    let (mut m, d) = rtc();
    set(&mut m, 11, 0x42);
    let mut ticks = 0;
    for _ in 0..1000 {
        m.advance(SECOND / 1000);
        if get(&mut m, 12) & 0xc0 == 0xc0 {
            ticks += 1;
        }
    }
    assert!((1000..=1024).contains(&ticks), "{ticks}");
    set(&mut m, 10, 0x2f);
    m.advance(SECOND);
    get(&mut m, 12);
    m.advance(SECOND);
    assert_eq!(get(&mut m, 12) & 0xc0, 0xc0);
    m.reset_device(d);
    m.advance(SECOND);
    assert_eq!(get(&mut m, 12), 0x10);
}

#[test]
fn slew_gives_lost_ticks_back() {
    let mut m = machine();
    m.rtc.clock = RtcClock::Vm;
    m.add::<Mc146818Props>(&[("lost_tick_policy", PropInput::Str("slew"))]);
    set(&mut m, 11, 0x42);
    m.advance(SECOND * 10 / 1024 + 1000);
    let seen = (0..30).filter(|_| get(&mut m, 12) & 0x40 != 0).count();
    assert_eq!(seen, 10);
}

#[test]
fn setting_the_time_is_reported() {
    let (mut m, _) = rtc();
    m.advance(5 * SECOND);
    m.events.clear();
    set(&mut m, 11, 0x82);
    set(&mut m, 2, 0x30);
    assert!(m.events.is_empty());
    set(&mut m, 11, 0x02);
    let e = m.events.pop_front().unwrap();
    assert_eq!(e.name, "RTC_CHANGE");
    // 00:00:03 became 00:30:03.
    assert_eq!(
        e.data.unwrap(),
        serde_json::json!({ "offset": 1800, "qom-path": "/machine/unattached/device[0]" })
    );
}

#[test]
fn state_round_trip() {
    let (mut m, d) = rtc();
    m.advance(3 * SECOND);
    set(&mut m, 0x40, 0x77);
    let v = m.with_dev(d, |d, cx| d.state().unwrap().save(cx)).unwrap().unwrap();
    let (mut n, d) = rtc();
    n.clock.set_virtual(4 * SECOND);
    n.with_dev(d, |d, cx| d.state().unwrap().load(cx, 3, &v)).unwrap().unwrap();
    assert_eq!((get(&mut n, 0), get(&mut n, 0x40)), (2, 0x77));
}

fn same_contents(args: &[&str], cfg: &CmosConfig) {
    let mut all = vec!["-M", "pc", "-rtc", "base=2020-02-28T23:59:58,clock=vm"];
    all.extend(args);
    let Some(mut q) = Qemu::start(&all) else { return };
    let (mut m, d) = rtc();
    let bytes = pc_cmos_init(cfg).unwrap();
    m.with::<Mc146818, _>(d, |r, _| r.set_cmos(&bytes)).unwrap();
    let script: Vec<Op> = (0..128).flat_map(|i| [Op::Out(0x70, i), Op::In(0x71)]).collect();
    compare(&mut q, &mut m, &script);
}

#[test]
fn cmos_contents_as_qemu() {
    let base = CmosConfig {
        below_4g: 128 << 20,
        boot_order: "cad".into(),
        fd_bootchk: true,
        cpus: 1,
        ..CmosConfig::default()
    };
    same_contents(&[], &base);
    let big = CmosConfig {
        below_4g: 3 << 30,
        above_4g: (16_000 << 20) - (3 << 30),
        cpus: 3,
        boot_order: "nca".into(),
        ..base.clone()
    };
    same_contents(&["-m", "16000", "-smp", "3", "-boot", "nca"], &big);
    let tiny = CmosConfig { below_4g: 1 << 20, fd_bootchk: false, ..base.clone() };
    same_contents(&["-m", "1", "-no-fd-bootchk"], &tiny);

    let dir = tempfile::tempdir().unwrap();
    let (small, large) = (dir.path().join("small"), dir.path().join("large"));
    std::fs::File::create(&small).unwrap().set_len(40 << 20).unwrap();
    std::fs::File::create(&large).unwrap().set_len(10 << 30).unwrap();
    let floppy = dir.path().join("floppy");
    std::fs::File::create(&floppy).unwrap().set_len(2880 << 10).unwrap();
    let drive = |i: u32, p: &std::path::Path| format!("if=ide,index={i},format=raw,file={}", p.display());
    let disks = CmosConfig {
        disks: [
            Some(CmosDisk { chs: (81, 16, 63), translation: DiskTranslation::None }),
            Some(CmosDisk { chs: (16_383, 16, 63), translation: DiskTranslation::Lba }),
            None,
            Some(CmosDisk { chs: (16_383, 16, 63), translation: DiskTranslation::Lba }),
        ],
        floppies: [FloppyKind::F288, FloppyKind::F288],
        ..base
    };
    // The same image may be read by two drives if none writes.
    let args = [
        "-drive".into(),
        drive(0, &small),
        "-drive".into(),
        drive(1, &large) + ",snapshot=on",
        "-drive".into(),
        drive(3, &large) + ",snapshot=on",
        "-drive".into(),
        "if=floppy,index=0,format=raw,file=/dev/null".to_string(),
        "-drive".into(),
        format!("if=floppy,index=1,format=raw,file={}", floppy.display()),
    ];
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    same_contents(&args, &disks);
}

#[test]
fn boot_order_errors() {
    assert_eq!(boot_order_bytes("x", true).unwrap_err().desc, "Invalid boot device for PC: 'x'");
    assert_eq!(boot_order_bytes("cadn", true).unwrap_err().desc, "Too many boot devices for PC");
}

#[test]
fn registers_as_qemu() {
    let Some(mut q) = Qemu::start(&["-M", "pc", "-rtc", "base=2020-02-28T23:59:58,clock=vm"]) else { return };
    let (mut m, _) = rtc();
    let mut r = Lcg(3);
    let mut script = Vec::new();
    for _ in 0..1200 {
        let i = match r.below(20) {
            0 => 0x32,
            1 => 0x37,
            2 => 0x40 + r.below(16) as u8,
            n => (n % 14) as u8,
        };
        script.push(Op::Out(0x70, i | (r.below(2) as u8 * 0x80)));
        script.push(Op::In(0x70));
        // Months and days in range: what others mean is nobody's business.
        let v = match i {
            8 => 1 + r.below(9) as u8,
            7 => 1 + r.below(9) as u8,
            0x32 | 0x37 => 0x20 + r.below(2) as u8,
            _ => r.below(256) as u8,
        };
        // The interrupt enables stay off: the two machines' clocks stand at different moments.
        let v = match i {
            10 => [0x00, 0x10, 0x20, 0x60, 0x70][r.below(5) as usize] | v & 0x0f,
            11 => v & 0x8f,
            _ => v,
        };
        script.push(if r.below(3) == 0 { Op::Out(0x71, v) } else { Op::In(0x71) });
    }
    compare(&mut q, &mut m, &script);
}
