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
