//! Transport tests that need no particular device.

use super::testing::*;

fn disk() -> Driver {
    let mut m = pci_machine();
    let options = vec![
        ("driver".into(), "null-co".into()),
        ("size".into(), "64M".into()),
        ("read-zeroes".into(), "on".into()),
    ];
    m.block.open_drive(&rqemu_block::DriveOpts { id: "d".into(), options, ..Default::default() }).unwrap();
    let dev = plug(&mut m, "virtio-blk-pci", &[("drive", "d")]).unwrap();
    Driver::new(m, dev)
}

#[test]
fn configuration_space_matches() {
    let mut d = disk();
    let cfg: Vec<u8> = (0..0xa4).map(|i| d.m.pci_config_read(Some(d.dev), i, 1) as u8).collect();
    assert_eq!(cfg[0..4], [0xf4, 0x1a, 0x01, 0x10]);
    assert_eq!(cfg[8..12], [0, 0, 0, 1]);
    assert_eq!(cfg[0x2c..0x30], [0xf4, 0x1a, 2, 0]);
    assert_eq!(cfg[0x34], 0x98);
    assert_eq!(cfg[0x40..0x50], [9, 0, 0x10, 1, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0]);
    assert_eq!(
        cfg[0x70..0x88],
        [9, 0x60, 0x14, 2, 4, 0, 0, 0, 0, 0x30, 0, 0, 0, 0x10, 0, 0, 4, 0, 0, 0, 9, 0x70, 0x14, 5]
    );
    assert_eq!(cfg[0x98..0xa4], [0x11, 0x84, 1, 0, 1, 0, 0, 0, 1, 8, 0, 0]);
}

#[test]
fn legacy_registers() {
    let mut d = disk();
    assert_eq!(d.legacy_read(0, 4), 0x7900_6e54);
    assert_eq!(d.legacy_read(12, 2), 256);
    assert_eq!(d.legacy_read(18, 1), 0);
    // Capacity, low word.
    assert_eq!(d.legacy_read(20, 4), 0x2_0000);
    assert_eq!(d.legacy_read(20 + 60, 1), 0xff);
    // A driver that acknowledges everything gets nothing.
    d.legacy_write(4, 4, 0xffff_ffff);
    assert_eq!(d.legacy_read(4, 4), 0);
    d.legacy_write(4, 4, 0x3000_0000);
    assert_eq!(d.legacy_read(4, 4), 0x3000_0000);
}

#[test]
fn modern_features_and_refusal() {
    let mut d = disk();
    let f = d.negotiate(u64::MAX);
    assert_eq!(f, 0x101_3000_6e54);
    // Without VERSION_1 the modern interface does not work.
    d.common_write(0x14, 1, 0);
    d.common_write(0x14, 1, 3);
    d.common_write(0x14, 1, 0xb);
    assert_eq!(d.status(), 3);
}

#[test]
fn window_in_configuration_space() {
    let mut d = disk();
    let dev = Some(d.dev);
    d.m.pci_config_write(dev, 0x84 + 4, 1, 4);
    d.m.pci_config_write(dev, 0x84 + 8, 4, 0);
    d.m.pci_config_write(dev, 0x84 + 12, 4, 4);
    d.m.pci_config_write(dev, 0x84 + 16, 4, 1);
    assert_eq!(d.common_read(0, 4), 1);
    d.m.pci_config_write(dev, 0x84 + 8, 4, 4);
    assert_eq!(d.m.pci_config_read(dev, 0x84 + 16, 4), 0x101);
    // Junk is ignored.
    for (at, v) in [(12, 3), (12, 0x8000_0000), (8, 0xffff_fffc), (4, 9)] {
        d.m.pci_config_write(dev, 0x84 + at, 4, v);
        d.m.pci_config_write(dev, 0x84 + 16, 4, 0);
        d.m.pci_config_read(dev, 0x84 + 16, 4);
    }
}

#[test]
fn tree_has_the_backend() {
    let d = disk();
    let part = d.m.tree.by_class("virtio-blk-device").unwrap();
    assert!(d.m.tree.path(part.id).ends_with("/virtio-backend"));
    let bus = d.m.tree.find_bus("virtio-bus").unwrap();
    assert_eq!(bus.type_name, "virtio-pci-bus");
    assert_eq!(part.props.get_prop("num-queues").unwrap().text, "1 (0x1)");
}

#[test]
fn random_bytes_within_the_quota() {
    let mut m = pci_machine();
    let dev = plug(&mut m, "virtio-rng-pci", &[("max-bytes", "24"), ("period", "1000")]).unwrap();
    let mut d = Driver::new(m, dev);
    d.negotiate(u64::MAX);
    let mut q = d.modern_queue(0, 0x1000);
    d.driver_ok();
    for i in 0..3u16 {
        d.chain(&q, i, &[(DATA + 64 * u64::from(i), 16, true)]);
        d.offer(&mut q, i);
    }
    d.kick(&q);
    assert_eq!(d.finished(&mut q), Some((0, 16)));
    assert_eq!(d.finished(&mut q), Some((1, 8)));
    assert_eq!(d.finished(&mut q), None);
    assert_ne!(d.bytes(DATA, 16), [0; 16]);
    d.m.advance(1_000_000_000);
    assert_eq!(d.finished(&mut q), Some((2, 16)));
}

#[test]
fn balloon_takes_pages_and_reports() {
    let mut m = pci_machine();
    m.info.ram_size = RAM;
    assert!(m.balloon_set(0).is_err());
    let dev = plug(&mut m, "virtio-balloon-pci", &[]).unwrap();
    let mut d = Driver::new(m, dev);
    assert_eq!(d.negotiate(u64::MAX), 0x101_3000_0012);
    let mut inflate = d.modern_queue(0, 0x1000);
    let mut stats = d.modern_queue(2, 0x4000);
    d.driver_ok();
    d.m.balloon_set(RAM - 3 * 4096).unwrap();
    assert_eq!(d.common_read(0x2000, 4), 3);
    assert_eq!(d.isr(), 3);
    d.write(0x20_0000, &[7; 8192]);
    // One page of RAM, one that does not exist.
    let pages: Vec<u8> = [0x200u32, 0xfff_0000].iter().flat_map(|p| p.to_le_bytes()).collect();
    d.write(DATA, &pages);
    d.chain(&inflate, 0, &[(DATA, 8, false)]);
    d.offer(&mut inflate, 0);
    d.kick(&inflate);
    assert_eq!(d.finished(&mut inflate), Some((0, 0)));
    assert_eq!(d.bytes(0x20_0000, 2), [0, 0]);
    assert_eq!(d.bytes(0x20_1000, 2), [7, 7]);
    d.common_write(0x2004, 4, 1);
    assert_eq!(d.m.balloon_actual().unwrap(), RAM - 4096);
    let e = d.m.events.pop_back().unwrap();
    assert_eq!((e.name, e.data.unwrap()["actual"].as_u64()), ("BALLOON_CHANGE", Some(RAM - 4096)));
    // Statistics: the buffer comes back when new ones are wanted.
    let mut s = 4u16.to_le_bytes().to_vec();
    s.extend(1234u64.to_le_bytes());
    d.write(DATA, &s);
    d.m.balloon_set_polling_interval(2).unwrap();
    d.chain(&stats, 0, &[(DATA, 10, false)]);
    d.offer(&mut stats, 0);
    d.kick(&stats);
    assert_eq!(d.m.balloon_stats().unwrap()["stats"]["stat-free-memory"], 1234);
    assert_eq!(d.finished(&mut stats), None);
    d.m.advance(2_000_000_000);
    assert_eq!(d.finished(&mut stats), Some((0, 0)));
    let mut m = d.m;
    assert_eq!(
        plug(&mut m, "virtio-balloon-pci", &[]).unwrap_err().to_string(),
        "Only one balloon device is supported"
    );
}

#[test]
fn mmio_transport_serves_a_disk() {
    use crate::memory::Space;
    use crate::qom::PropInput;
    const AT: u64 = 0xfeb0_0000;
    for legacy in [true, false] {
        let mut m = pci_machine();
        let options = vec![
            ("driver".into(), "null-co".into()),
            ("size".into(), "1M".into()),
            ("read-zeroes".into(), "on".into()),
        ];
        m.block
            .open_drive(&rqemu_block::DriveOpts { id: "d".into(), options, ..Default::default() })
            .unwrap();
        m.globals.push(crate::device::GlobalProp {
            driver: "virtio-mmio".into(),
            property: "force-legacy".into(),
            value: if legacy { "on" } else { "off" }.into(),
            strict: true,
        });
        let line = m.irqs.add(crate::irq::IrqSink::None);
        super::mmio::create(&mut m, AT, line).unwrap();
        m.settle();
        let read = |m: &mut crate::Machine, at| m.guest_read(Space::Memory, AT + at, 4);
        assert_eq!(read(&mut m, 0), 0x7472_6976);
        assert_eq!(read(&mut m, 8), 0, "no device yet");
        let bus = m.tree.find_bus("virtio-mmio-bus.0").unwrap().id;
        m.add_board_device("virtio-blk-device", Some(bus), &[("drive", PropInput::Str("d"))]).unwrap();
        assert_eq!(read(&mut m, 4), if legacy { 1 } else { 2 });
        assert_eq!(read(&mut m, 8), 2);
        assert_eq!(read(&mut m, 0x34), 1024);
        assert_eq!(read(&mut m, 0x100), 2048);
        let mut write = |at: u64, v: u64| m.guest_write(Space::Memory, AT + at, 4, v);
        write(0x70, 3);
        write(0x14, 0);
        write(0x24, 0);
        write(0x20, 0);
        let (desc, avail) = (0x1000u64, 0x1000 + 16 * 8);
        let used = 0x2000u64;
        write(0x30, 0);
        if legacy {
            write(0x28, 4096);
            write(0x38, 8);
            write(0x3c, 4096);
            write(0x40, 1);
        } else {
            write(0x24, 1);
            write(0x20, 1);
            write(0x70, 0xb);
            write(0x38, 8);
            for (reg, v) in [(0x80, desc), (0x90, avail), (0xa0, used)] {
                write(reg, v);
                write(reg + 4, 0);
            }
            write(0x44, 1);
        }
        write(0x70, 0xf);
        let mem = &m.flat().mem;
        mem.write(DATA, &[0; 16]).unwrap();
        mem.write(DATA + 0x1000, &[0xee; 513]).unwrap();
        for (i, (addr, len, flags)) in
            [(DATA, 16u32, 1u16), (DATA + 0x1000, 512, 3), (DATA + 0x1200, 1, 2)].into_iter().enumerate()
        {
            let mut t = addr.to_le_bytes().to_vec();
            t.extend(len.to_le_bytes());
            t.extend(flags.to_le_bytes());
            t.extend((i as u16 + 1).to_le_bytes());
            mem.write(desc + 16 * i as u64, &t).unwrap();
        }
        mem.write(avail + 2, &[1, 0, 0, 0]).unwrap();
        m.guest_write(Space::Memory, AT + 0x50, 4, 0);
        let mut b = [0; 513];
        m.flat().mem.read(DATA + 0x1000, &mut b).unwrap();
        assert_eq!(b, [0; 513], "legacy {legacy}");
        assert!(m.irqs.level(line));
        assert_eq!(read(&mut m, 0x60), 1);
        m.guest_write(Space::Memory, AT + 0x64, 4, 1);
        assert!(!m.irqs.level(line));
    }
}
