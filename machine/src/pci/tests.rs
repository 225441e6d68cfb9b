use super::*;
use crate::memory::RegionId;

fn state() -> PciState {
    PciState::new(PciIds { vendor: 0x1af4, device: 0x1000, class: 0x0100, ..PciIds::default() })
}

#[test]
fn bar_sizing_and_address() {
    let mut s = state();
    s.add_bar(0, RegionId(9), 0x1000, BarKind::Mem32);
    s.add_bar(2, RegionId(8), 0x40, BarKind::Io);
    s.add_bar(4, RegionId(7), 0x4000, BarKind::Mem64Prefetch);
    s.write(0x10, 4, 0xffff_ffff);
    assert_eq!(s.read(0x10, 4), 0xffff_f000);
    s.write(0x18, 4, 0xffff_ffff);
    assert_eq!(s.read(0x18, 4), 0xffff_ffc1);
    s.write(0x20, 4, 0xffff_ffff);
    s.write(0x24, 4, 0xffff_ffff);
    assert_eq!(s.read(0x20, 4), 0xffff_c00c);
    assert_eq!(s.read(0x24, 4), 0xffff_ffff);
    assert_eq!(s.bar_address(0), None);
    s.write(0x04, 2, 7);
    // All ones is what sizing leaves behind, not an address.
    assert_eq!(s.bar_address(0), None);
    s.write(0x10, 4, 0xfebf_0000);
    s.write(0x18, 4, 0xc040);
    s.write(0x24, 4, 1);
    s.write(0x20, 4, 0);
    assert_eq!(s.bar_address(0), Some(0xfebf_0000));
    assert_eq!(s.bar_address(2), Some(0xc040));
    assert_eq!(s.bar_address(4), Some(0x1_0000_0000));
}

#[test]
fn read_only_and_bounds() {
    let mut s = state();
    s.write(0, 4, 0);
    assert_eq!(s.read(0, 4), 0x1000_1af4);
    s.write(255, 4, 0xffff_ffff);
    assert_eq!(s.read(255, 4) >> 8, 0xff_ffff);
}

#[test]
fn capabilities_chain() {
    let mut s = state();
    let a = s.add_capability(9, 0, 20);
    let b = s.add_capability(0x11, 0, 12);
    assert_eq!((a, b), (0x40, 0x54));
    assert_eq!(s.config()[reg::CAP_LIST], 0x54);
    assert_eq!(s.config()[0x55], 0x40);
    assert_eq!(s.word(reg::STATUS) & reg::STATUS_CAP_LIST, reg::STATUS_CAP_LIST);
}

#[test]
fn device_specific_area_is_writable_but_capabilities_are_not() {
    let mut s = state();
    let cap = s.add_capability(5, 0, 14);
    s.write(cap, 4, 0xffff_ffff);
    assert_eq!(s.read(cap, 2), 5);
    s.write(0x80, 4, 0x1234_5678);
    assert_eq!(s.read(0x80, 4), 0x1234_5678);
}
