use super::super::testing::{image, Guest, Ours, Plug, Real};
use crate::qom::PropInput;

const A: u16 = 0x1f0;
const B: u16 = 0x170;
/// Where tests put the bus master registers.
const BM: u16 = 0xc000;

struct Bench {
    _dir: tempfile::TempDir,
    ours: Ours,
}

const DISK_LEN: u64 = 4 << 20;
const CD_LEN: u64 = 1 << 20;

fn plugs<'a>(disk: &'a std::path::Path, cd: &'a std::path::Path) -> [Plug<'a>; 2] {
    [
        Plug { bus: 0, unit: 0, class: "ide-hd", image: Some(disk), props: &[] },
        Plug { bus: 1, unit: 0, class: "ide-cd", image: Some(cd), props: &[] },
    ]
}

fn bench() -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let disk = image(dir.path(), "disk", DISK_LEN, true);
    let cd = image(dir.path(), "cd", CD_LEN, true);
    let ours = Ours::new(&plugs(&disk, &cd));
    Bench { _dir: dir, ours }
}

fn sector(lba: u64) -> Vec<u8> {
    (lba * 512..(lba + 1) * 512).map(|i| (i / 512 * 7 + i % 251) as u8).collect()
}

fn bytes(words: &[u16]) -> Vec<u8> {
    words.iter().flat_map(|w| w.to_le_bytes()).collect()
}

fn packet(g: &mut dyn Guest, base: u16, limit: u16, dma: bool, cdb: &[u8]) -> [u8; 8] {
    let mut c = [0u8; 12];
    c[..cdb.len()].copy_from_slice(cdb);
    let [lo, hi] = limit.to_le_bytes();
    g.command(base, &[(6, 0xa0), (1, u8::from(dma)), (4, lo), (5, hi), (7, 0xa0)]);
    for w in c.chunks(2) {
        g.outw(base, u16::from_le_bytes([w[0], w[1]]));
    }
    g.wait(base);
    g.task_file(base)
}

fn start_dma(g: &mut dyn Guest, channel: u16, table: &[(u32, u32)], to_memory: bool) {
    let bm = BM + channel * 8;
    for (i, (addr, len)) in table.iter().enumerate() {
        let e = [addr.to_le_bytes(), len.to_le_bytes()].concat();
        g.write_mem(0x1000 + 8 * i as u64, &e);
    }
    g.outb(bm, 0);
    g.outb(bm + 2, 6);
    g.write_io(bm + 4, 4, 0x1000);
    g.outb(bm, 1 | u8::from(to_memory) << 3);
}

fn enable_bm(g: &mut dyn Guest) {
    g.write_config(0x20, u32::from(BM) | 1);
    g.write_config(4, 5);
}

const END: u32 = 0x8000_0000;

#[test]
fn pio_read_and_write() {
    let mut b = bench();
    let g = &mut b.ours;
    let t = g.command(A, &[(6, 0xe0), (2, 2), (3, 5), (4, 0), (5, 0), (7, 0x20)]);
    assert_eq!(t, [0, 1, 6, 0, 0, 0xe0, 0x58, 0x58]);
    let got = bytes(&g.drain(A, 1000));
    assert_eq!(got, [sector(5), sector(6)].concat());
    assert_eq!(g.inb(A + 7), 0x50);
    g.command(A, &[(6, 0xe0), (2, 1), (3, 9), (4, 0), (5, 0), (7, 0x30)]);
    for _ in 0..256 {
        g.outw(A, 0xabcd);
    }
    assert_eq!(g.inb(A + 7), 0x50);
    g.command(A, &[(6, 0xe0), (2, 1), (3, 9), (4, 0), (5, 0), (7, 0x20)]);
    assert!(g.drain(A, 1000).iter().all(|w| *w == 0xabcd));
}

#[test]
fn interrupt_follows_status_reads() {
    let mut b = bench();
    let g = &mut b.ours;
    g.inb(A + 7);
    for (r, v) in [(6, 0xe0), (2, 1), (3, 0), (4, 0), (5, 0), (7, 0x20)] {
        g.outb(A + r, v);
    }
    assert!(g.m.isa_level(14));
    g.inb(0x3f6);
    assert!(g.m.isa_level(14));
    g.inb(A + 7);
    assert!(!g.m.isa_level(14));
    g.drain(A, 1000);
    g.outb(0x3f6, 2);
    g.outb(A + 7, 0x10);
    assert!(!g.m.isa_level(14));
}

#[test]
fn dma_both_ways_and_short_table() {
    let mut b = bench();
    let g = &mut b.ours;
    enable_bm(g);
    g.command(A, &[(6, 0xe0), (2, 4), (3, 8), (4, 0), (5, 0), (7, 0xc8)]);
    start_dma(g, 0, &[(0x10000, 1000), (0x20000, END | 1048)], true);
    assert_eq!(g.inb(BM + 2), 4);
    let want: Vec<u8> = (8..12).flat_map(sector).collect();
    assert_eq!(g.read_mem(0x10000, 1000), want[..1000]);
    assert_eq!(g.read_mem(0x20000, 1048), want[1000..]);
    g.command(A, &[(6, 0xe0), (2, 4), (3, 100), (4, 0), (5, 0), (7, 0xca)]);
    start_dma(g, 0, &[(0x10000, 1000), (0x20000, END)], false);
    assert_eq!(g.inb(BM + 2), 5, "table longer than the transfer");
    g.outb(BM, 0);
    g.command(A, &[(6, 0xe0), (2, 4), (3, 100), (4, 0), (5, 0), (7, 0xc4)]);
    assert_eq!(bytes(&g.drain(A, 5000)), want);
    g.command(A, &[(6, 0xe0), (2, 4), (3, 8), (4, 0), (5, 0), (7, 0xc8)]);
    start_dma(g, 0, &[(0x10000, END | 512)], true);
    assert_eq!(g.inb(BM + 2), 0);
    assert_eq!(g.task_file(A), [0, 4, 8, 0, 0, 0xe0, 0x50, 0x50]);
}

#[test]
fn packet_read_by_pio_and_dma() {
    let mut b = bench();
    let g = &mut b.ours;
    enable_bm(g);
    let t = packet(g, B, 2048, false, &[0x28, 0, 0, 0, 0, 3, 0, 0, 2]);
    assert_eq!(t, [0, 2, 1, 0, 8, 0xa0, 0x58, 0x58]);
    let got = bytes(&g.drain(B, 5000));
    let want: Vec<u8> = (12..20).flat_map(sector).collect();
    assert_eq!(got, want);
    packet(g, B, 0, true, &[0x28, 0, 0, 0, 0, 3, 0, 0, 2]);
    start_dma(g, 1, &[(0x30000, END | 4096)], true);
    assert_eq!(g.inb(BM + 10), 4);
    assert_eq!(g.read_mem(0x30000, 4096), want);
    assert_eq!(g.inb(B + 2), 3);
}

#[test]
fn tray_lock_and_media_change() {
    let mut b = bench();
    let g = &mut b.ours;
    let (cd, front) = (g.drives[1], |g: &mut Ours, cd| {
        g.m.with_dev(cd, |d, _| d.block().map(|f| f.tray_open())).flatten().flatten()
    });
    assert_eq!(front(g, cd), Some(false));
    packet(g, B, 0, false, &[0x1e, 0, 0, 0, 1]);
    let t = packet(g, B, 0, false, &[0x1b, 0, 0, 0, 2]);
    assert_eq!((t[0], t[6]), (0x20, 0x41));
    packet(g, B, 0, false, &[0x1e, 0, 0, 0, 0]);
    packet(g, B, 0, false, &[0x1b, 0, 0, 0, 2]);
    assert_eq!(front(g, cd), Some(true));
    assert!(g.m.events.iter().any(|e| e.name == "DEVICE_TRAY_MOVED"));
    assert_eq!(packet(g, B, 0, false, &[0])[0], 0x20);
    // The user closes the tray: the guest is told of a change, in two steps, then all is well.
    g.m.with_dev(cd, |d, cx| d.block().map(|f| f.media_changed(cx, true)));
    assert_eq!(packet(g, B, 0, false, &[0])[0], 0x20);
    assert_eq!(packet(g, B, 0, false, &[0])[0], 0x60);
    assert_eq!(packet(g, B, 0, false, &[0])[0], 0x60);
    packet(g, B, 0xfffe, false, &[3, 0, 0, 0, 18]);
    assert_eq!(g.drain(B, 100)[6], 0x28);
    assert_eq!(packet(g, B, 0, false, &[0])[0], 0);
}

#[test]
fn properties_and_errors() {
    let mut b = bench();
    let g = &mut b.ours;
    let err = |g: &mut Ours, unit: u8, class, props: &[(&'static str, &'static str)]| {
        g.plug(&Plug { bus: 0, unit, class, image: None, props }).unwrap_err().desc
    };
    assert_eq!(err(g, 5, "ide-cd", &[]), "Can't create IDE unit 5, bus supports only 2 units");
    assert_eq!(err(g, 0, "ide-cd", &[]), "IDE unit 0 is in use");
    assert_eq!(err(g, 1, "ide-hd", &[]), "No drive specified");
    assert_eq!(
        err(g, 1, "ide-hd", &[("drive", "ide0-u0")]),
        "Drive 'ide0-u0' is already in use by another device"
    );
    assert_eq!(err(g, 1, "ide-hd", &[("drive", "none")]), "Property 'ide-hd.drive' can't find value 'none'");
    assert_eq!(
        err(g, 1, "ide-cd", &[("discard_granularity", "4096")]),
        "discard_granularity must be 512 for ide"
    );
    let node = g.m.tree.get(g.drives[1]).unwrap();
    assert_eq!(node.props.get_prop("serial").unwrap().text, "\"QM00003\"");
    let node = g.m.tree.get(g.drives[0]).unwrap();
    assert_eq!(node.props.get_prop("cyls").unwrap().text, "8 (0x8)");
    // A drive that is taken out gives its backend back.
    let cd = g.drives[1];
    g.m.remove_device(cd);
    let bus = g.m.tree.find_bus("ide.1").unwrap().id;
    g.m.add_board_device("ide-cd", Some(bus), &[("drive", PropInput::Str("ide1-u0"))]).unwrap();
}

#[test]
fn hostile_tables_and_addresses() {
    let mut b = bench();
    let g = &mut b.ours;
    enable_bm(g);
    g.command(A, &[(2, 0), (6, 0x40), (7, 0x91)]); // no sectors per track
    g.command(A, &[(6, 0xa0), (2, 0), (3, 0), (4, 0xff), (5, 0xff), (7, 0x20)]);
    g.command(A, &[(6, 0xa0), (2, 0), (3, 7), (4, 0), (5, 0), (7, 0x20)]);
    g.drain(A, 100_000);
    g.soft_reset(A);
    // 65536 sectors with a table that has no end, near the end of memory and of the address space.
    for table in [0xf_fff8u32, 0xffff_fffc, 0] {
        g.command(A, &[(6, 0xe0), (2, 0), (2, 0), (3, 0), (3, 0), (4, 0), (4, 0), (5, 0), (5, 0), (7, 0x25)]);
        g.outb(BM, 0);
        g.write_io(BM + 4, 4, table);
        g.outb(BM, 9);
        assert_eq!(g.inb(A + 7) & 0x88, 0);
        g.soft_reset(A);
    }
}

// ---- against the real one ------------------------------------------------------------------------------------------

/// A small deterministic random number generator (xorshift).
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }
}

fn both(props: &'static [(&'static str, &'static str)], cd_len: u64) -> (tempfile::TempDir, Ours, Real) {
    let dir = tempfile::tempdir().unwrap();
    let mut paths = Vec::new();
    for who in ["ours", "real"] {
        paths.push(image(dir.path(), &format!("disk-{who}"), DISK_LEN, true));
        paths.push(image(dir.path(), &format!("cd-{who}"), cd_len, cd_len <= CD_LEN));
    }
    let mut p = plugs(&paths[0], &paths[1]);
    p[0].props = props;
    let ours = Ours::new(&p);
    let mut p = plugs(&paths[2], &paths[3]);
    p[0].props = props;
    (dir, ours, Real::new(&p, &[]))
}

#[test]
#[ignore = "needs qemu-system-x86_64 7.2"]
fn oracle_identify() {
    for props in [
        &[][..],
        &[("serial", "ABC"), ("model", "some disk"), ("ver", "9"), ("wwn", "0x5000c50015ea71aa")],
        &[("physical_block_size", "4096"), ("rotation_rate", "1"), ("write-cache", "off")],
        &[("cyls", "10"), ("heads", "8"), ("secs", "32")],
    ] {
        let (_dir, mut ours, mut real) = both(props, CD_LEN);
        let run = |g: &mut dyn Guest| {
            let mut out = Vec::new();
            for (base, code) in [(A, 0xec), (B, 0xec), (B, 0xa1)] {
                let t = g.command(base, &[(6, 0xa0), (7, code)]);
                out.push((t, g.drain(base, 300)));
            }
            let cfg: Vec<u32> = (0..64).map(|r| g.read_config(r * 4)).collect();
            (out, cfg)
        };
        let (o, r) = (run(&mut ours), run(&mut real));
        for (a, b) in o.0.iter().zip(&r.0) {
            assert_eq!(a.0, b.0, "{props:?}");
            for (i, (x, y)) in a.1.iter().zip(&b.1).enumerate() {
                assert_eq!(x, y, "word {i} {props:?}");
            }
        }
        assert_eq!(o.1, r.1);
    }
}

/// One random step; returns what was seen.
fn fuzz_step(g: &mut dyn Guest, r: &mut Rng, log: &mut Vec<String>) -> Vec<u8> {
    let base = r.pick(&[A, A, B]);
    let mut out = Vec::new();
    match r.below(12) {
        0 => {
            log.push(format!("srst {base:x}"));
            g.soft_reset(base);
        }
        1 => {
            let v = r.pick(&[0u8, 2, 0x80]);
            log.push(format!("control {base:x} {v:x}"));
            g.outb(base + 0x206, v);
        }
        2 => {
            let (reg, v) = (r.below(6) as u16 + 1, r.next() as u8);
            let v = if reg == 6 { v & 0x50 | 0xa0 } else { v };
            log.push(format!("write {base:x} {reg} {v:x}"));
            g.outb(base + reg, v);
        }
        3..=8 => {
            let regs = random_command(r);
            log.push(format!("command {base:x} {regs:x?}"));
            out.extend(g.command(base, &regs));
        }
        _ => {
            log.push(format!("data {base:x}"));
        }
    }
    g.wait(base);
    let n = r.pick(&[1usize, 300, 300, 5000]);
    // Packets go in, data come out.
    if g.inb(base + 0x206) & 8 != 0 {
        let write = r.below(3) == 0;
        for _ in 0..n {
            if g.wait(base) & 8 == 0 {
                break;
            }
            if write {
                g.outw(base, 0x1234);
            } else {
                out.extend(g.inw(base).to_le_bytes());
            }
            if !write && out.len() > 600 {
                break;
            }
        }
    }
    g.wait(base);
    out.extend(g.task_file(base));
    out.push(g.inb(BM + 2));
    out.push(g.inb(BM + 10));
    if r.below(4) == 0 {
        g.outb(BM + 2, 6);
        g.outb(BM + 10, 6);
    }
    out
}

fn random_command(r: &mut Rng) -> Vec<(u16, u8)> {
    const CODES: &[u8] = &[
        0x20, 0x21, 0x24, 0x25, 0x27, 0x29, 0x30, 0x34, 0x35, 0x39, 0x40, 0x42, 0x70, 0x90, 0xa0, 0xa1, 0xb0,
        0xc4, 0xc5, 0xc6, 0xc8, 0xca, 0xe0, 0xe5, 0xe7, 0xea, 0xec, 0xef, 0xf8, 0x08, 0x10,
    ];
    let mut v = vec![(6, r.pick(&[0xa0, 0xe0, 0xe0, 0xe0, 0xb0, 0xe1]))];
    for reg in 1..6 {
        if r.below(2) == 0 {
            let small = r.below(3) as u8;
            let any = r.next() as u8;
            v.push((reg, r.pick(&[small, small, small, any, 0xff, 3, 0x4f, 0xc2, 0xd0])));
        }
    }
    let code = match if r.below(10) == 0 { r.next() as u8 } else { r.pick(CODES) } {
        // With a sector count of 0 this makes the real one divide by zero later.
        0x91 => 0x10,
        c => c,
    };
    v.push((7, code));
    v
}

#[test]
#[ignore = "needs qemu-system-x86_64 7.2"]
fn oracle_random_registers() {
    let (_dir, mut ours, mut real) = both(&[], CD_LEN);
    enable_bm(&mut ours);
    enable_bm(&mut real);
    let seed = std::env::var("SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
    let (mut ro, mut rr) = (Rng(seed), Rng(seed));
    let mut log = Vec::new();
    for step in 0..3000 {
        let o = fuzz_step(&mut ours, &mut ro, &mut log);
        let r = fuzz_step(&mut real, &mut rr, &mut Vec::new());
        let tail = log.len().saturating_sub(30);
        let chs = log.iter().rfind(|l| l.contains("(7, 91)"));
        assert_eq!(hex(&o), hex(&r), "step {step}: {:#?} {chs:?}", &log[tail..]);
    }
}

fn hex(b: &[u8]) -> String {
    b.iter().map(|x| format!("{x:02x} ")).collect()
}

#[test]
#[ignore = "needs qemu-system-x86_64 7.2"]
fn oracle_packets() {
    for cd_len in [CD_LEN, 2 << 30] {
        let (_dir, mut ours, mut real) = both(&[], cd_len);
        enable_bm(&mut ours);
        enable_bm(&mut real);
        let mut rng = Rng(7);
        let mut log = Vec::new();
        for _ in 0..1500 {
            let op = if rng.below(20) == 0 {
                rng.next() as u8
            } else {
                rng.pick(&[
                    0, 3, 0x12, 0x1b, 0x1e, 0x25, 0x28, 0x2b, 0x43, 0x46, 0x4a, 0x51, 0x5a, 0xa8, 0xad, 0xbb,
                    0xbd, 0xbe,
                ])
            };
            let mut cdb = [0u8; 12];
            cdb[0] = op;
            for b in &mut cdb[1..] {
                if rng.below(3) == 0 {
                    *b = rng.next() as u8 & rng.pick(&[0xff, 3, 1, 0x80]);
                }
            }
            if op == 0xad {
                cdb[6] = 0; // layer, which the real one looks at only if the allocation length is small
            }
            if rng.below(2) == 0 {
                // Sensible lengths in the places where commands have them; even, as odd ones stall the real one.
                cdb[4] &= 0xfe;
                cdb[7] = 0;
                cdb[8] = rng.below(100) as u8 & 0xfe;
                cdb[9] &= 0xf8;
            }
            let limit = rng.pick(&[0xfffeu16, 0xffff, 2048, 0x100, 0, 1000, 4096]);
            let run = |g: &mut dyn Guest| {
                let t = packet(g, B, limit, false, &cdb);
                let data = g.drain(B, 3000);
                let end = g.task_file(B);
                g.soft_reset(B);
                (t, data, end)
            };
            let (o, r) = (run(&mut ours), run(&mut real));
            log.push(format!("{} limit {limit:x} -> {}", hex(&cdb), hex(&r.0)));
            let tail = log.len().saturating_sub(8);
            let what = format!("{:#?}", &log[tail..]);
            if r.0[3] & 1 != 0 && r.0[6] & 8 != 0 {
                continue; // odd byte count
            }
            assert_eq!(hex(&o.0), hex(&r.0), "{what}");
            assert_eq!(o.1, r.1, "{what}");
            assert_eq!(hex(&o.2), hex(&r.2), "{what}");
        }
    }
}
