//! The same script of accesses on this card and on a real QEMU. Skipped, with a note, where QEMU 7.2 is missing.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;

use super::super::secondary::SecondaryVgaProps;
use super::Board;
use crate::device::testing::oracle::{skip_without_qemu, Qtest, QEMU};
use crate::memory::Space;
use crate::qom::PropInput;
use crate::ui::Picture;

/// A stopped QEMU machine with a VGA in slot 2.
struct Real {
    qtest: Qtest,
    qmp: BufReader<UnixStream>,
    dir: tempfile::TempDir,
}

impl Real {
    fn start(device: &str) -> Option<Self> {
        if skip_without_qemu() {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let sock = dir.path().join("qmp");
        let monitor = format!("unix:{},server=on,wait=off", sock.display());
        let args = ["-M", "pc", "-m", "16", "-nodefaults", "-device", device, "-qmp", &monitor];
        let qtest = Qtest::start(QEMU, &args).unwrap();
        let qmp = BufReader::new(UnixStream::connect(&sock).unwrap());
        let mut r = Self { qtest, qmp, dir };
        r.qmp.read_line(&mut String::new()).unwrap();
        r.qmp(r#"{"execute":"qmp_capabilities"}"#);
        for (at, v) in [(0x10, 0xfd00_0000u32), (0x18, 0xfebf_0000), (4, 7)] {
            r.cmd(&format!("outl 0xcf8 {:#x}", 0x8000_1000u32 | at));
            r.cmd(&format!("outl 0xcfc {v:#x}"));
        }
        Some(r)
    }

    fn qmp(&mut self, line: &str) -> String {
        writeln!(self.qmp.get_mut(), "{line}").unwrap();
        loop {
            let mut answer = String::new();
            assert!(self.qmp.read_line(&mut answer).unwrap() > 0, "QEMU went away");
            if !answer.contains("\"event\"") {
                return answer;
            }
        }
    }

    fn cmd(&mut self, line: &str) -> String {
        self.qtest.command(line).unwrap().join(" ")
    }

    fn value(&mut self, line: &str) -> u64 {
        let a = self.cmd(line);
        u64::from_str_radix(a.trim_start_matches("0x"), 16).unwrap()
    }

    fn screendump(&mut self) -> Picture {
        let path = self.dir.path().join("screen");
        let answer = self
            .qmp(&format!(r#"{{"execute":"screendump","arguments":{{"filename":"{}"}}}}"#, path.display()));
        assert!(answer.contains("return"), "{answer}");
        let mut all = Vec::new();
        std::fs::File::open(path).unwrap().read_to_end(&mut all).unwrap();
        let header_end = all.iter().enumerate().filter(|(_, b)| **b == b'\n').nth(2).unwrap().0 + 1;
        let header = String::from_utf8(all[..header_end].to_vec()).unwrap();
        let n: Vec<u32> = header.split_whitespace().skip(1).map(|n| n.parse().unwrap()).collect();
        Picture { width: n[0], height: n[1], rgb: all[header_end..].to_vec() }
    }
}

/// Both machines.
struct Pair {
    real: Real,
    ours: Board,
    log: Vec<String>,
}

fn letter(size: u8) -> char {
    match size {
        1 => 'b',
        2 => 'w',
        4 => 'l',
        _ => 'q',
    }
}

impl Pair {
    fn start() -> Option<Self> {
        Self::with("")
    }

    /// With properties `a=b,c=d`.
    fn with(props: &str) -> Option<Self> {
        let pairs: Vec<_> =
            props.split(',').filter_map(|p| p.split_once('=')).map(|(k, v)| (k, PropInput::Str(v))).collect();
        let real = Real::start(&format!("VGA,{props}"))?;
        Some(Self { real, ours: Board::new(&pairs), log: Vec::new() })
    }

    fn note(&mut self, line: String) {
        self.log.push(line);
    }

    fn tail(&self) -> String {
        self.log[self.log.len().saturating_sub(60)..].join("; ")
    }

    fn out(&mut self, port: u16, size: u8, v: u32) {
        let line = format!("out{} {port:#x} {v:#x}", letter(size));
        self.real.cmd(&line);
        self.note(line);
        self.ours.m.guest_write(Space::Io, u64::from(port), size, u64::from(v));
    }

    fn outb(&mut self, port: u16, v: u8) {
        self.out(port, 1, u32::from(v));
    }

    #[track_caller]
    fn check_in(&mut self, port: u16, size: u8) {
        let line = format!("in{} {port:#x}", letter(size));
        let real = self.real.value(&line);
        self.note(line);
        let ours = self.ours.m.guest_read(Space::Io, u64::from(port), size);
        assert_eq!(ours, real, "ours {ours:#x}, QEMU {real:#x} at port {port:#x}; {}", self.tail());
    }

    fn write(&mut self, addr: u64, size: u8, v: u64) {
        let line = format!("write{} {addr:#x} {v:#x}", letter(size));
        self.real.cmd(&line);
        self.note(line);
        self.ours.m.guest_write(Space::Memory, addr, size, v);
    }

    #[track_caller]
    fn check_read(&mut self, addr: u64, size: u8) {
        let line = format!("read{} {addr:#x}", letter(size));
        let real = self.real.value(&line);
        self.note(line);
        let ours = self.ours.m.guest_read(Space::Memory, addr, size);
        assert_eq!(ours, real, "ours {ours:#x}, QEMU {real:#x} at {addr:#x}; {}", self.tail());
    }

    fn index(&mut self, port: u16, i: u8, v: u8) {
        self.out(port, 2, u32::from(i) | u32::from(v) << 8);
    }

    fn attribute(&mut self, i: u8, v: u8) {
        self.check_in(0x3da, 1);
        self.outb(0x3c0, i);
        self.outb(0x3c0, v);
    }

    fn dispi(&mut self, i: u16, v: u16) {
        self.out(0x1ce, 2, u32::from(i));
        self.out(0x1d0, 2, u32::from(v));
    }

    /// Compares pictures. The screen is switched off for a moment, so that QEMU draws all of it.
    #[track_caller]
    fn screens(&mut self, what: &str) {
        self.check_in(0x3da, 1);
        self.outb(0x3c0, 0);
        self.real.screendump();
        self.ours.picture();
        self.check_in(0x3da, 1);
        self.outb(0x3c0, 0x20);
        let real = self.real.screendump();
        let ours = self.ours.picture();
        assert_eq!((ours.width, ours.height), (real.width, real.height), "{what}: size; {}", self.tail());
        let diff = ours.rgb.iter().zip(&real.rgb).position(|(a, b)| a != b);
        if let Some(at) = diff {
            let n = ours.rgb.iter().zip(&real.rgb).filter(|(a, b)| a != b).count();
            let (x, y) = (at / 3 % ours.width as usize, at / 3 / ours.width as usize);
            let p = at / 3 * 3;
            panic!(
                "{what}: {n} bytes differ of {}x{}, first at {x},{y}: ours {:?}, QEMU {:?}; {}",
                ours.width,
                ours.height,
                &ours.rgb[p..p + 3],
                &real.rgb[p..p + 3],
                self.tail()
            );
        }
        assert_eq!(ours.rgb.len(), real.rgb.len());
    }

    /// Fills video memory with noise.
    fn noise(&mut self, from: u64, len: u64) {
        let mut lcg = Lcg(7);
        let words: Vec<u64> = (0..len / 8).map(|_| lcg.next()).collect();
        let hex: String = words.iter().flat_map(|w| w.to_le_bytes()).map(|b| format!("{b:02x}")).collect();
        self.real.cmd(&format!("write {:#x} {len:#x} 0x{hex}", 0xfd00_0000 + from));
        for (i, w) in words.into_iter().enumerate() {
            self.ours.m.guest_write(Space::Memory, 0xfd00_0000 + from + i as u64 * 8, 8, w);
        }
    }

    fn palette(&mut self) {
        self.outb(0x3c8, 0);
        for i in 0..256u32 {
            for k in [3, 7, 11] {
                self.outb(0x3c9, (i * k + k) as u8);
            }
        }
    }

    /// The registers of text mode 3 (or another table of the same form).
    fn mode(&mut self, m: &Mode) {
        self.outb(0x3c2, m.misc);
        for (i, v) in m.sr.iter().enumerate() {
            self.index(0x3c4, i as u8, *v);
        }
        self.index(0x3d4, 0x11, 0);
        for (i, v) in m.cr.iter().enumerate().filter(|c| c.0 != 0x11) {
            self.index(0x3d4, i as u8, *v);
        }
        for (i, v) in m.gr.iter().enumerate() {
            self.index(0x3ce, i as u8, *v);
        }
        for (i, v) in m.ar.iter().enumerate() {
            self.attribute(i as u8, *v);
        }
        self.check_in(0x3da, 1);
        self.outb(0x3c0, 0x20);
    }
}

/// Register values of a mode.
#[derive(Clone, Copy)]
struct Mode {
    misc: u8,
    sr: [u8; 5],
    cr: [u8; 25],
    gr: [u8; 9],
    ar: [u8; 21],
}

const AR_16: [u8; 21] =
    [0, 1, 2, 3, 4, 5, 0x14, 7, 0x38, 0x39, 0x3a, 0x3b, 0x3c, 0x3d, 0x3e, 0x3f, 0x0c, 0, 0x0f, 8, 0];

const TEXT: Mode = Mode {
    misc: 0x67,
    sr: [3, 0, 3, 0, 2],
    cr: [
        0x5f, 0x4f, 0x50, 0x82, 0x55, 0x81, 0xbf, 0x1f, 0, 0x4f, 0x0d, 0x0e, 0, 0, 0, 0, 0x9c, 0x8e, 0x8f,
        0x28, 0x1f, 0x96, 0xb9, 0xa3, 0xff,
    ],
    gr: [0, 0, 0, 0, 0, 0x10, 0x0e, 0x0f, 0xff],
    ar: AR_16,
};

const PLANAR: Mode = Mode {
    misc: 0xe3,
    sr: [3, 1, 15, 0, 6],
    cr: [
        0x5f, 0x4f, 0x50, 0x82, 0x54, 0x80, 0x0b, 0x3e, 0, 0x40, 0, 0, 0, 0, 0, 0, 0xea, 0x8c, 0xdf, 0x28, 0,
        0xe7, 0x04, 0xe3, 0xff,
    ],
    gr: [0, 0, 0, 0, 0, 0, 5, 15, 0xff],
    ar: AR_16,
};

const BYTE: Mode = Mode {
    misc: 0x63,
    sr: [3, 1, 15, 0, 14],
    cr: [
        0x5f, 0x4f, 0x50, 0x82, 0x54, 0x80, 0xbf, 0x1f, 0, 0x41, 0, 0, 0, 0, 0, 0, 0x9c, 0x8e, 0x8f, 0x28,
        0x40, 0x96, 0xb9, 0xa3, 0xff,
    ],
    gr: [0, 0, 0, 0, 0, 0x40, 5, 15, 0xff],
    ar: AR_16,
};

const CGA: Mode = Mode {
    misc: 0x63,
    sr: [3, 9, 3, 0, 2],
    cr: [
        0x2d, 0x27, 0x28, 0x90, 0x2b, 0x80, 0xbf, 0x1f, 0, 0xc1, 0, 0, 0, 0, 0, 0, 0x9c, 0x8e, 0x8f, 0x14, 0,
        0x96, 0xb9, 0xa2, 0xff,
    ],
    gr: [0, 0, 0, 0, 0, 0x30, 0x0f, 15, 0xff],
    ar: AR_16,
};

/// A small deterministic source of numbers.
struct Lcg(u64);

impl Lcg {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let x = self.0 ^ self.0 >> 29;
        x.wrapping_mul(0xbf58_476d_1ce4_e5b9)
    }

    fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 24) % n
    }
}

#[test]
fn ports_as_qemu() {
    let Some(mut p) = Pair::start() else { return };
    let mut r = Lcg(1);
    let ports: Vec<u16> = (0x3b4..=0x3b5)
        .chain(0x3ba..=0x3ba)
        .chain(0x3c0..=0x3cf)
        .chain(0x3d4..=0x3d5)
        .chain([0x3da])
        .collect();
    for round in 0..6000 {
        let port = ports[r.below(ports.len() as u64) as usize];
        let v = r.next() as u8;
        match r.below(5) {
            // Mostly stay in colour mode.
            0 if port == 0x3c2 => p.outb(port, v | u8::from(round % 500 != 0)),
            0 | 1 => p.outb(port, v),
            2 => p.index([0x3c4, 0x3ce, 0x3d4][r.below(3) as usize], v & 0x1f, r.next() as u8),
            _ => p.check_in(port, 1),
        }
    }
    for i in 0..=255 {
        p.outb(0x3d4, i);
        p.check_in(0x3d5, 1);
    }
    p.outb(0x3c7, 0);
    for _ in 0..768 {
        p.check_in(0x3c9, 1);
    }
    for port in [0x3c4, 0x3d4, 0x3c0] {
        p.check_in(port, 2);
        p.check_in(port, 4);
    }
}

#[test]
fn dispi_as_qemu() {
    let Some(mut p) = Pair::start() else { return };
    p.outb(0x3c2, 1);
    let mut r = Lcg(2);
    for _ in 0..2500 {
        let i = r.below(13) as u16;
        let v = match i {
            4 => [0, 1, 2, 3, 0x20, 0x21, 0x40, 0x41, 0x81, 0xc1, 0xe1][r.below(11) as usize],
            3 => [4, 8, 15, 16, 24, 32, 0, 5, 64][r.below(9) as usize],
            0 => 0xb0c0 + r.below(8) as u16,
            _ if r.below(4) == 0 => r.next() as u16,
            _ => r.below(1300) as u16,
        };
        if r.below(4) > 0 {
            p.dispi(i, v);
        } else {
            p.write(0xfebf_0500 + u64::from(i.min(10)) * 2, 2, u64::from(v));
        }
        if r.below(3) == 0 {
            for i in 0..12 {
                p.out(0x1ce, 2, i);
                p.check_in(0x1d0, 2);
            }
            for (port, n) in [(0x3c4, 8), (0x3ce, 9), (0x3d4, 0x19)] {
                for i in 0..n {
                    p.outb(port, i);
                    p.check_in(port + 1, 1);
                }
            }
            p.check_in(0x3c0, 1);
            p.check_read(0xa_0000, 1);
        }
    }
    p.check_in(0x1ce, 1);
    p.check_in(0x1d1, 1);
}

#[test]
fn mmio_as_qemu() {
    let Some(mut p) = Pair::start() else { return };
    for at in (0..0x180).chain(0x3fc..0x420).chain(0x500..0x514).chain(0x600..0x608) {
        p.check_read(0xfebf_0000 + at, 1);
        if at % 2 == 0 {
            p.check_read(0xfebf_0000 + at, 2);
        }
        if at % 4 == 0 {
            p.check_read(0xfebf_0000 + at, 4);
        }
    }
    p.write(0xfebf_0604, 4, 0xbebe_bebe);
    p.check_read(0xfebf_0604, 4);
    p.write(0xfebf_0604, 4, 0x1234);
    p.check_read(0xfebf_0604, 4);
    p.write(0xfebf_0404, 2, 0x0f02);
    p.check_read(0xfebf_0404, 2);
    p.check_in(0x3c5, 1);
    p.write(0xfebf_0402, 1, 0x67);
    p.check_read(0xfebf_040c, 1);
}

#[test]
fn edid_as_qemu() {
    for props in [
        "xres=1024,yres=768",
        "xres=800,yres=600,xmax=1920,ymax=1200,refresh_rate=60000",
        "xres=5120,yres=2160",
        "xres=70000,yres=70000",
        "xres=1,yres=1",
        "xmax=1919,ymax=1500",
        "xmax=1920,ymax=1392",
        "xmax=2048,ymax=1400",
        "xmax=640,ymax=480",
        "xres=4095,yres=1000,refresh_rate=30000",
        "edid=off",
        "qemu-extended-regs=off",
        "vgamem_mb=3",
    ] {
        let Some(mut p) = Pair::with(props) else { return };
        p.note(props.into());
        for at in (0..0x180).step_by(4).chain([0x514, 0x600, 0x604]) {
            p.check_read(0xfebf_0000 + at, 4);
        }
    }
}

#[test]
fn secondary_as_qemu() {
    let Some(real) = Real::start("secondary-vga") else { return };
    let ours = Board::of::<SecondaryVgaProps>(&[]);
    let mut p = Pair { real, ours, log: Vec::new() };
    for at in (0..0x180).step_by(4).chain([0x514, 0x600, 0x604]) {
        p.check_read(0xfebf_0000 + at, 4);
    }
    // 320x200, 32 bits a pixel, linear.
    for (i, v) in [(1, 320), (2, 200), (3, 32), (4, 0x41)] {
        p.write(0xfebf_0500 + i * 2, 2, v);
    }
    for pixel in 0..320 * 3 {
        p.write(0xfd00_0000 + pixel * 4, 4, pixel * 0x01_0305);
    }
    p.screens("linear");
}

#[test]
fn first_screen_as_qemu() {
    let Some(mut p) = Pair::start() else { return };
    let real = p.real.screendump();
    assert!(p.ours.picture() == real);
    p.mode(&TEXT);
    p.screens("text");
}

#[test]
fn memory_window_as_qemu() {
    let Some(mut p) = Pair::start() else { return };
    p.outb(0x3c2, 0x67);
    p.noise(0, 0x80000);
    let mut r = Lcg(3);
    for _ in 0..400 {
        p.index(0x3c4, 2, if r.below(2) == 0 { 15 } else { r.below(16) as u8 });
        p.index(0x3c4, 4, [6, 2, 14, 0][r.below(4) as usize]);
        for i in 0..9 {
            let v = r.next() as u8;
            match i {
                5 => p.index(0x3ce, i, v & if r.below(2) == 0 { 0x1b } else { 0x0b }),
                _ => p.index(0x3ce, i, v),
            }
        }
        if r.below(8) == 0 {
            p.dispi(5, r.below(7) as u16);
        }
        for _ in 0..12 {
            let (base, size) =
                [(0xa_0000, 0x2_0000), (0xa_0000, 0x1_0000), (0xb_0000, 0x8000), (0xb_8000, 0x8000)]
                    [r.below(4) as usize];
            let at = base + r.below(size - 8);
            let size = [1, 1, 2, 4][r.below(4) as usize];
            let at = at & !(u64::from(size) - 1);
            if r.below(2) == 0 {
                p.write(at, size, r.next() & crate::machine::mask(size));
            } else {
                p.check_read(at, size);
            }
        }
    }
    for at in (0..0x20000).step_by(8 * 37) {
        p.check_read(0xfd00_0000 + at / 8 * 8, 8);
    }
}

#[test]
fn text_screens_as_qemu() {
    let Some(mut p) = Pair::start() else { return };
    p.noise(0, 0x40000);
    p.mode(&TEXT);
    p.palette();
    p.screens("plain");
    for (what, port, i, v) in [
        ("8 dots", 0x3c4, 1, 1),
        ("half clock", 0x3c4, 1, 8),
        ("half clock, 8 dots", 0x3c4, 1, 9),
        ("9 dots", 0x3c4, 1, 0),
        ("fonts", 0x3c4, 3, 0x2d),
        ("fonts", 0x3c4, 3, 0x36),
        ("cells of 8", 0x3d4, 9, 7),
        ("cells of 32", 0x3d4, 9, 0x9f),
        ("cells of 14", 0x3d4, 9, 0x4d),
        ("40 columns", 0x3d4, 1, 39),
        ("132 columns", 0x3d4, 1, 131),
        ("80 columns", 0x3d4, 1, 79),
        ("start", 0x3d4, 13, 77),
        ("start", 0x3d4, 12, 3),
        ("line offset", 0x3d4, 0x13, 0x51),
        ("split", 0x3d4, 0x18, 100),
        ("split", 0x3d4, 7, 0x0f),
        ("lines", 0x3d4, 7, 0x1d),
        ("100 lines", 0x3d4, 6, 100),
        ("mode control", 0x3d4, 0x17, 0),
        ("cursor", 0x3d4, 10, 3),
        ("cursor", 0x3d4, 11, 0x1f),
        ("cursor", 0x3d4, 15, 80),
        ("cursor", 0x3d4, 14, 4),
        ("no cursor", 0x3d4, 10, 0x23),
        ("lines", 0x3d4, 6, 0xbf),
        ("lines", 0x3d4, 7, 0x0f),
        ("cells of 16", 0x3d4, 9, 0x0f),
        ("split at 96", 0x3d4, 0x18, 96),
        ("split at 97", 0x3d4, 0x18, 97),
        ("split at 95", 0x3d4, 0x18, 95),
        ("split at 80", 0x3d4, 0x18, 80),
        ("split at 0", 0x3d4, 0x18, 0),
        ("split at 1", 0x3d4, 0x18, 1),
        ("split at 2", 0x3d4, 0x18, 143),
        ("split", 0x3d4, 7, 0x1f),
    ] {
        p.index(port, i, v);
        p.screens(what);
    }
    for (what, i, v) in [
        ("no line graphics", 0x10, 0),
        ("blink", 0x10, 8),
        ("palette size", 0x10, 0x8c),
        ("colour select", 0x14, 5),
        ("palette size", 0x10, 0x0c),
        ("panning", 0x13, 3),
        ("planes", 0x12, 3),
        ("overscan", 0x11, 3),
    ] {
        p.attribute(i, v);
        p.screens(what);
    }
    p.outb(0x3c6, 0x0f);
    p.screens("dac mask");
}

#[test]
fn graphics_screens_as_qemu() {
    let Some(mut p) = Pair::start() else { return };
    p.noise(0, 0x60000);
    for (name, mode) in [("planar", PLANAR), ("byte", BYTE), ("cga", CGA)] {
        p.mode(&mode);
        p.palette();
        p.screens(name);
        for (what, port, i, v) in [
            ("dot clock", 0x3c4, 1, mode.sr[1] ^ 8),
            ("dot clock", 0x3c4, 1, mode.sr[1]),
            ("scan", 0x3d4, 9, 0x40),
            ("scan", 0x3d4, 9, 0xc0),
            ("scan", 0x3d4, 9, 0x43),
            ("scan", 0x3d4, 9, mode.cr[9]),
            ("start", 0x3d4, 13, 77),
            ("split", 0x3d4, 0x18, 100),
            ("split", 0x3d4, 7, mode.cr[7] & !0x10),
            ("split", 0x3d4, 9, mode.cr[9] & !0x40),
            ("offset", 0x3d4, 0x13, 0x33),
            ("width", 0x3d4, 1, 0x33),
            ("mode", 0x3d4, 0x17, 0xe0),
            ("mode", 0x3d4, 0x17, 0xa1),
            ("mode", 0x3d4, 0x17, 0xa2),
            ("mode", 0x3d4, 0x17, 0xa3),
        ] {
            p.index(port, i, v);
            p.screens(&format!("{name}: {what}"));
        }
        for (what, i, v) in
            [("planes", 0x12, 5), ("palette", 0x10, 0x81), ("select", 0x14, 6), ("panning", 0x13, 3)]
        {
            p.attribute(i, v);
            p.screens(&format!("{name}: {what}"));
        }
    }
}

#[test]
fn dispi_screens_as_qemu() {
    let Some(mut p) = Pair::start() else { return };
    p.mode(&TEXT);
    p.palette();
    for bpp in [4, 8, 15, 16, 24, 32] {
        p.dispi(4, 0);
        p.noise(0, 0x40000);
        for (i, v) in [(1, 328), (2, 200), (3, bpp), (4, 0xc1)] {
            p.dispi(i, v);
        }
        p.screens(&format!("{bpp} bits"));
        p.dispi(6, 400);
        p.dispi(8, 5);
        p.dispi(9, 3);
        p.screens(&format!("{bpp} bits, offset"));
        p.write(0xfebf_0604, 4, 0xbebe_bebe);
        p.screens(&format!("{bpp} bits, big endian"));
        p.write(0xfebf_0604, 4, 0x1e1e_1e1e);
        p.dispi(4, 0xe1);
        p.screens(&format!("{bpp} bits, 8-bit DAC"));
    }
    p.dispi(4, 0);
    p.mode(&TEXT);
    p.screens("text again");
}
