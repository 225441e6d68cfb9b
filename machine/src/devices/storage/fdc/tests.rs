use super::super::testing::{image, Guest, Ours, Real};
use crate::qom::PropInput;

const BASE: u16 = 0x3f0;

fn ours(path: Option<&std::path::Path>) -> Ours {
    let mut o = Ours::new(&[]);
    let isa = o.m.tree.add_bus("isa.0".into(), crate::device::BusKind::Isa, None);
    crate::devices::chipset::dma::create(&mut o.m, isa).unwrap();
    o.m.add_board_device("isa-fdc", Some(isa), &[]).unwrap();
    if let Some(p) = path {
        let options = vec![("file".into(), p.to_str().unwrap().into()), ("format".into(), "raw".into())];
        o.m.block
            .open_drive(&rqemu_block::DriveOpts { id: "floppy0".into(), options, ..Default::default() })
            .unwrap();
        let bus = o.m.tree.find_bus("floppy-bus.0").unwrap().id;
        o.m.add_board_device("floppy", Some(bus), &[("drive", PropInput::Str("floppy0"))]).unwrap();
    }
    o.m.reset_devices();
    o
}

/// Sends command bytes and fetches the results there are.
fn command(g: &mut dyn Guest, bytes: &[u8]) -> Vec<u8> {
    for b in bytes {
        g.outb(BASE + 5, *b);
    }
    let mut out = Vec::new();
    while out.len() < 40 && g.inb(BASE + 4) & 0xf0 == 0xd0 {
        out.push(g.inb(BASE + 5));
    }
    out
}

fn program_dma(g: &mut dyn Guest, mode: u8, addr: u32, len: u32) {
    let [a, b, c, _] = addr.to_le_bytes();
    let [d, e, ..] = (len - 1).to_le_bytes();
    for (p, v) in [(0xc, 0), (0xb, mode), (4, a), (4, b), (0x81, c), (5, d), (5, e), (0xa, 2)] {
        g.outb(p, v);
    }
}

fn power_up(g: &mut dyn Guest) {
    g.outb(BASE + 2, 0);
    g.outb(BASE + 2, 0x1c);
    for _ in 0..4 {
        command(g, &[8]);
    }
    command(g, &[3, 0xaf, 2]);
    g.outb(BASE + 7, 0);
}

fn sector(lba: u64) -> Vec<u8> {
    (lba * 512..(lba + 1) * 512).map(|i| (i / 512 * 7 + i % 251) as u8).collect()
}

#[test]
fn reset_reports_four_drives() {
    let mut o = ours(None);
    o.outb(BASE + 2, 0);
    o.outb(BASE + 2, 0x0c);
    assert!(o.m.isa_level(6));
    let got: Vec<_> = (0..5).map(|_| command(&mut o, &[8])).collect();
    assert_eq!(got, [vec![0xc0, 0], vec![0xc1, 0], vec![0xc2, 0], vec![0xc3, 0], vec![0x80]]);
    assert!(!o.m.isa_level(6));
}

#[test]
fn read_write_by_dma_and_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path(), "f", 1440 << 10, true);
    let mut o = ours(Some(&path));
    power_up(&mut o);
    // Sectors 17 and 18 of side 0 and 1 and 2 of side 1: the command crosses the head.
    program_dma(&mut o, 0x46, 0x10000, 2048);
    let r = command(&mut o, &[0xe6, 0, 0, 0, 17, 2, 18, 0x1b, 0xff]);
    assert_eq!(r, [4, 0, 0, 0, 1, 3, 2]);
    assert_eq!(o.read_mem(0x10000, 2048), (16..20).flat_map(sector).collect::<Vec<_>>());
    program_dma(&mut o, 0x4a, 0x10000, 512);
    command(&mut o, &[0xc5, 0, 0, 0, 5, 2, 18, 0x1b, 0xff]);
    // The same sector without DMA.
    command(&mut o, &[3, 0xaf, 3]);
    for b in [0xe6, 0, 0, 0, 5, 2, 5, 0x1b, 0xff] {
        o.outb(BASE + 5, b);
    }
    let mut got = Vec::new();
    while o.inb(BASE + 4) & 0xf0 == 0xf0 && got.len() < 512 {
        got.push(o.inb(BASE + 5));
    }
    assert_eq!(got, sector(16));
}

#[test]
fn read_id_takes_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path(), "f", 1440 << 10, false);
    let mut o = ours(Some(&path));
    power_up(&mut o);
    assert!(command(&mut o, &[0x4a, 0]).is_empty());
    assert!(!o.m.isa_level(6));
    o.m.advance(super::READ_ID_DELAY);
    assert!(o.m.isa_level(6));
    assert_eq!(command(&mut o, &[]), [0, 0, 0, 0, 0, 2, 2]);
}

#[test]
fn properties_and_errors() {
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path(), "f", 720 << 10, false);
    let mut o = ours(Some(&path));
    let bus = o.m.tree.find_bus("floppy-bus.0").unwrap().id;
    let mut err =
        |props: &[(&str, PropInput<'_>)]| o.m.add_board_device("floppy", Some(bus), props).unwrap_err().desc;
    assert_eq!(err(&[("unit", PropInput::Str("0"))]), "Floppy unit 0 is in use");
    assert_eq!(
        err(&[("unit", PropInput::Str("7"))]),
        "Can't create floppy unit 7, bus supports only 2 units"
    );
    let node = o.m.tree.by_class("floppy").unwrap();
    assert_eq!(node.props.get_prop("drive-type").unwrap().text, "\"144\"");
    assert_eq!(node.props.get_prop("unit").unwrap().text, "0 (0x0)");
}

/// Commands that need no virtual time (READ ID waits for a timer that stands still here).
fn script(g: &mut dyn Guest, log: &mut Vec<String>) {
    let mut note = |what: &str, g: &mut dyn Guest, v: Vec<u8>| {
        let regs: Vec<u8> = [1u16, 2, 3, 4, 7].map(|r| g.inb(BASE + r)).to_vec();
        log.push(format!("{what}: {v:02x?} {regs:02x?}"));
    };
    let simple: &[&[u8]] = &[
        &[8],
        &[0x10],
        &[0x0e],
        &[0x18],
        &[0x94],
        &[0x14],
        &[0x13, 0, 0x57, 0],
        &[0x0e],
        &[3, 0xaf, 2],
        &[4, 0],
        &[4, 1],
        &[4, 4],
        &[7, 0],
        &[8],
        &[0xf, 0, 3],
        &[8],
        &[4, 0],
        &[0xf, 0, 100],
        &[8],
        &[0xf, 1, 3],
        &[8],
        &[0x12, 0],
        &[0x17, 0, 0],
        &[0x1f],
        &[0xff],
        &[0x2e],
        &[0x33, 0],
        &[0x4e, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x57, 0, 0, 0, 0, 0, 0],
        &[0x0e],
        &[0x18],
        &[0x8f, 0, 2],
        &[8],
        &[0xcf, 0, 1],
        &[8],
        &[0xf, 0, 0],
        &[8],
        &[0x0e],
        &[0x12, 0x84],
        &[0x0e],
    ];
    note("start", g, Vec::new());
    power_up(g);
    note("up", g, Vec::new());
    for c in simple {
        let r = command(g, c);
        note(&format!("{c:02x?}"), g, r);
    }
    let data: &[(&[u8], u32, u8)] = &[
        (&[0xe6, 0, 0, 0, 1, 2, 18, 0x1b, 0xff], 512, 0x46),
        (&[0xe6, 0, 0, 0, 17, 2, 18, 0x1b, 0xff], 2048, 0x46),
        (&[0x46, 0, 0, 0, 17, 2, 18, 0x1b, 0xff], 2048, 0x46),
        (&[0x46, 0, 0, 0, 17, 2, 17, 0x1b, 0xff], 512, 0x46),
        (&[0xe6, 0, 5, 0, 1, 2, 18, 0x1b, 0xff], 512, 0x46),
        (&[0xe6, 0, 90, 0, 1, 2, 18, 0x1b, 0xff], 512, 0x46),
        (&[0xe6, 0, 0, 0, 19, 2, 18, 0x1b, 0xff], 512, 0x46),
        (&[0xe6, 4, 0, 1, 1, 2, 18, 0x1b, 0xff], 512, 0x46),
        (&[0xe6, 1, 0, 0, 1, 2, 18, 0x1b, 0xff], 512, 0x46),
        (&[0xc5, 0, 0, 0, 1, 2, 18, 0x1b, 0xff], 512, 0x4a),
        (&[0xc5, 0, 0, 0, 4, 2, 18, 0x1b, 0xff], 1024, 0x4a),
        (&[0xd1, 0, 0, 0, 1, 2, 18, 0x1b, 0xff], 512, 0x4a),
        (&[0x16, 0, 0, 0, 1, 2, 18, 0x1b, 0xff], 512, 0x46),
        (&[0x42, 0, 0, 0, 1, 2, 18, 0x1b, 0xff], 512, 0x46),
        (&[0xcc, 0, 0, 0, 1, 2, 18, 0x1b, 0xff], 512, 0x46),
        (&[0xc9, 0, 0, 0, 1, 2, 18, 0x1b, 0xff], 512, 0x4a),
        (&[0xe6, 0, 0, 0, 1, 0, 18, 0x1b, 0x80], 128, 0x46),
        (&[0xe6, 0, 0, 0, 1, 3, 18, 0x1b, 0x80], 1024, 0x46),
        (&[0xe6, 0, 79, 1, 17, 2, 18, 0x1b, 0xff], 2048, 0x46),
        (&[0xe6, 0, 3, 1, 17, 2, 18, 0x1b, 0xff], 2048, 0x46),
        (&[0xe6, 0, 3, 0, 1, 2, 18, 0x1b, 0xff], 18432, 0x46),
    ];
    for (c, len, mode) in data {
        program_dma(g, *mode, 0x10000, *len);
        let mut r = command(g, c);
        // The real one transfers in its main loop.
        for _ in 0..1000 {
            if !r.is_empty() {
                break;
            }
            r = command(g, &[]);
        }
        let tc = g.inb(8);
        r.push(tc);
        note(&format!("{c:02x?} {len}"), g, r);
    }
    let sum: u64 = g.read_mem(0x10000, 18432).iter().fold(0, |s, b| s * 31 % 1_000_003 + u64::from(*b));
    note(&format!("data {sum}"), g, Vec::new());
    g.outb(BASE + 4, 0x80);
    for _ in 0..5 {
        let r = command(g, &[8]);
        note("sense", g, r);
    }
    for v in [0x1d, 0xdc, 0x0c, 0x3c] {
        g.outb(BASE + 2, v);
        note(&format!("dor {v:x}"), g, Vec::new());
    }
    g.outb(BASE + 3, 0x27);
    note("tdr", g, Vec::new());
}

#[test]
#[ignore = "needs qemu-system-x86_64 7.2"]
fn oracle_floppy() {
    let dir = tempfile::tempdir().unwrap();
    let [a, b] = ["a", "b"].map(|n| image(dir.path(), n, 1440 << 10, true));
    let mut o = ours(Some(&a));
    let file = format!("if=floppy,format=raw,file={}", b.display());
    let mut r = Real::new(&[], &["-drive", &file]);
    let (mut lo, mut lr) = (Vec::new(), Vec::new());
    script(&mut o, &mut lo);
    script(&mut r, &mut lr);
    let mut bad = Vec::new();
    for (x, y) in lo.iter().zip(&lr) {
        if x != y {
            bad.push(format!("ours {x}\nreal {y}"));
        }
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
    drop(r);
    assert!(std::fs::read(a).unwrap() == std::fs::read(b).unwrap());
}
