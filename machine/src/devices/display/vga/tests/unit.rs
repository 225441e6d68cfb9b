use super::*;
use crate::memory::Space;

#[test]
fn starts_switched_off() {
    let mut b = Board::new(&[]);
    let p = b.picture();
    assert_eq!((p.width, p.height), (640, 480));
}

#[test]
fn placeholder_until_the_guest_draws() {
    let mut b = Board::new(&[]);
    let p = b.picture();
    assert!(p.rgb.contains(&0xaa));
}

#[test]
fn text_mode_without_firmware() {
    let mut b = Board::new(&[]);
    b.m.with::<VgaPci, _>(b.vga, |v, cx| v.firmware_text_mode(cx)).unwrap();
    b.m.guest_write(Space::Memory, 0xb8000, 2, 0x1f48);
    let p = b.picture();
    assert_eq!((p.width, p.height), (720, 400));
    let cell: Vec<&[u8]> = (0..16).flat_map(|y| p.rgb[y * 720 * 3..][..27].chunks(3)).collect();
    // White on blue, and nothing else.
    assert!(cell.contains(&[255, 255, 255].as_slice()) && cell.contains(&[0, 0, 168].as_slice()));
    assert!(cell.iter().all(|c| *c == [255, 255, 255] || *c == [0, 0, 168]));
    assert_eq!(b.m.guest_read(Space::Memory, 0xb8002, 2), 0x0720);
}

#[test]
fn option_rom_in_bar_6() {
    let mut b = Board::new(&[]);
    b.config(0x30, 0xffff_ffff);
    assert_eq!(b.m.pci_config_read(Some(b.vga), 0x30, 4), 0xffff_0001);
    b.config(0x30, 0xfeb0_0001);
    assert_eq!(b.m.guest_read(Space::Memory, 0xfeb0_0000, 2), 0xaa55);
    let rom = b.m.mem.iter().any(|(_, r)| r.name == "vga.rom");
    assert!(rom);
}

#[test]
fn rom_errors() {
    let err = |name: &str, value: &str| {
        let mut b = Board::new(&[]);
        let bus = b.m.tree.first_bus(BusKind::Pci).map(|b| b.id);
        let place = b.m.tree.next_unattached();
        let class = <VgaPciProps as crate::qom::Classed>::CLASS;
        b.m.add_device(class, bus, place, &[(name, PropInput::Str(value))]).unwrap_err().desc
    };
    assert_eq!(err("romfile", "foo"), "failed to find romfile \"foo\"");
    assert_eq!(err("romfile", "/dev/null"), "romfile \"/dev/null\" is empty");
    assert_eq!(err("romsize", "5000"), "ROM size 5000 is not a power of two");
    assert!(err("romsize", "4096").ends_with("is too large for ROM size 4096"));
}

#[test]
fn state_round_trip() {
    let mut b = Board::new(&[]);
    b.m.with::<VgaPci, _>(b.vga, |v, cx| v.firmware_text_mode(cx)).unwrap();
    let before = b.picture();
    let saved = b.m.with::<VgaPci, _>(b.vga, |v, _| v.vga.save()).unwrap().unwrap();
    b.m.reset_devices();
    b.m.with::<VgaPci, _>(b.vga, |v, cx| v.vga.load(cx, &saved)).unwrap().unwrap();
    assert_eq!(b.picture(), before);
    let mut bad = saved.clone();
    bad["regs"]["sr"] = serde_json::json!([1, 2]);
    assert!(b.m.with::<VgaPci, _>(b.vga, |v, cx| v.vga.load(cx, &bad)).unwrap().is_err());
    bad = saved;
    bad["extra"] = serde_json::json!(1);
    assert!(b.m.with::<VgaPci, _>(b.vga, |v, cx| v.vga.load(cx, &bad)).unwrap().is_err());
}

#[test]
fn memory_is_a_power_of_two() {
    assert_eq!([0, 1, 3, 16, 511, 512, 1000].map(super::super::vram_mb), [1, 1, 4, 16, 512, 512, 512]);
}

#[test]
fn the_word_register_at_an_odd_port_answers() {
    let mut b = Board::new(&[]);
    b.m.guest_write(Space::Io, 0x1ce, 2, 0);
    assert_eq!(b.m.guest_read(Space::Io, 0x1cf, 2), 0xb0c5);
    b.m.guest_write(Space::Io, 0x1cf, 2, 0xb0c0);
    assert_eq!(b.m.guest_read(Space::Io, 0x1cf, 2), 0xb0c0);
    b.m.guest_write(Space::Io, 0x1ce, 2, 1);
    b.m.guest_write(Space::Io, 0x1cf, 2, 1024);
    assert_eq!(b.m.guest_read(Space::Io, 0x1cf, 2), 1024);
}
