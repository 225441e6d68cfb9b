//! The same script of port accesses on this chipset and on a real QEMU (driven over its qtest protocol, without a
//! running CPU). Skipped with a note where that program is not installed.

use super::{board, Board};
use crate::device::testing::oracle::{skip_without_qemu, Qtest, QEMU};
use crate::memory::Space;

/// A real QEMU.
pub struct Real(Qtest);

impl Real {
    /// `None` if there is no QEMU.
    pub fn start(extra: &[&str]) -> Option<Self> {
        if skip_without_qemu() {
            return None;
        }
        let args = [&["-M", "pc", "-m", "128", "-nodefaults", "-monitor", "none"], extra].concat();
        Some(Self(Qtest::start(QEMU, &args).unwrap()))
    }

    /// One command; returns what follows `OK`.
    pub fn command(&mut self, line: &str) -> String {
        self.0.command(line).unwrap().join(" ")
    }

    fn read(&mut self, port: u16, size: u8) -> u64 {
        let reply = self.command(&format!("in{} 0x{port:x}", letter(size)));
        u64::from_str_radix(reply.trim_start_matches("0x"), 16).unwrap()
    }

    fn write(&mut self, port: u16, size: u8, v: u32) {
        self.command(&format!("out{} 0x{port:x} 0x{v:x}", letter(size)));
    }
}

fn letter(size: u8) -> char {
    match size {
        1 => 'b',
        2 => 'w',
        _ => 'l',
    }
}

/// Both machines; every read is compared.
pub struct Pair {
    pub ours: Board,
    pub real: Real,
}

impl Pair {
    pub fn start(extra: &[&str]) -> Option<Self> {
        Some(Self { real: Real::start(extra)?, ours: board() })
    }

    pub fn w(&mut self, port: u16, size: u8, v: u32) {
        self.real.write(port, size, v);
        self.ours.m.guest_write(Space::Io, u64::from(port), size, u64::from(v));
    }

    /// Compares a read.
    #[track_caller]
    pub fn r(&mut self, port: u16, size: u8) {
        let real = self.real.read(port, size);
        let ours = self.ours.m.guest_read(Space::Io, u64::from(port), size);
        assert_eq!(ours, real, "ours {ours:#x}, QEMU {real:#x} at port {port:#x}, {size} bytes");
    }

    /// Runs a script: `port<size`, `port>size=value`, numbers in hex.
    #[track_caller]
    pub fn script(&mut self, text: &str) {
        for op in text.split_whitespace() {
            let hex = |s: &str| u32::from_str_radix(s, 16).unwrap();
            if let Some((port, rest)) = op.split_once('>') {
                let (size, v) = rest.split_once('=').unwrap();
                self.w(hex(port) as u16, hex(size) as u8, hex(v));
            } else {
                let (port, size) = op.split_once('<').unwrap();
                self.r(hex(port) as u16, hex(size) as u8);
            }
        }
    }

    #[track_caller]
    fn config_space(&mut self, devfn: u32) {
        for at in (0..256).step_by(4) {
            self.w(0xcf8, 4, 0x8000_0000 | devfn << 8 | at);
            self.r(0xcfc, 4);
        }
    }
}

/// The functions of the chipset that this folder has.
const FUNCTIONS: [u32; 3] = [0x00, 0x08, 0x0b];

#[test]
fn config_space_as_qemu() {
    let Some(mut p) = Pair::start(&[]) else { return };
    for f in FUNCTIONS {
        p.config_space(f);
    }
    for v in [0xffff_ffff, 0, 0x5aa5_a55a] {
        for f in FUNCTIONS {
            for at in (0..256).step_by(4).filter(|at| !(0x10..0x28).contains(at)) {
                p.w(0xcf8, 4, 0x8000_0000 | f << 8 | at);
                p.w(0xcfc, 4, v);
            }
            p.config_space(f);
        }
    }
}

#[test]
fn config_and_reset_ports_as_qemu() {
    let Some(mut p) = Pair::start(&[]) else { return };
    p.script("cf8>4=80000850 cf8<4 cf8<1 cf8<2 cfa<2 cfb<1 cf8>1=12 cf8>2=1234 cfa>1=12 cf8<4");
    p.script("cf8>4=800 cfc<4 cfe<2 cf8>4=80000803 cf8<4 cfc<4 cfc<1 cfd<1 cfe<2 cf8>4=80010000 cfc<4");
    p.script("cf8>4=ff000000 cf8<4 cfc<4 cf9>1=0b cf9<1 cf8<4 cf9>1=2 cf9<1");
}

#[test]
fn acpi_registers_as_qemu() {
    let Some(mut p) = Pair::start(&[]) else { return };
    // PMBASE 0x600, switched on.
    p.script("cf8>4=80000b40 cfc>4=601 600<2 cf8>4=80000b80 cfc>1=1 600<2 602<2 604<2 608<4 600<1 601<1");
    p.script("602>2=121 602<2 600<4 602>1=20 602<2 603>1=1 602<2 600>4=ffff0001 600<4 604>2=dfff 604<2");
    p.script("b2>1=f1 b2<1 b3<1 b3>1=77 b3<1 b2<2 604<2 b2>1=f0 604<2 b2>1=55 604<2 604>1=3 605>1=4");
    p.script("604<2 605<1 60c<4 afe0<4 afe0<1 afe2>1=ff afe2<1 afe2<2 afe2>2=1234 afe2<2 afe0<4");
    p.script("afe0>4=ffffffff afe0<4");
    // Moved and switched off.
    p.script("cf8>4=80000b40 cfc>4=701 600<2 702<2 cf8>4=80000b80 cfc>1=0 702<2");
}

#[test]
fn pci_hotplug_registers_as_qemu() {
    let Some(mut p) = Pair::start(&[]) else { return };
    p.script("ae00<4 ae04<4 ae08<4 ae0c<4 ae10<4 ae14<4 ae10>4=5 ae10<4 ae0c<4 ae10>4=100 ae10<4 ae0c<4");
    p.script("ae10>4=0 ae0c<1 ae0c<2 ae14>4=2 ae14<4 ae08>4=20 ae04<4");
}

#[test]
fn cpu_hotplug_registers_as_qemu() {
    let Some(mut p) = Pair::start(&["-smp", "2,maxcpus=4"]) else { return };
    p.ours.set_cpus(2, 4);
    p.script("af00<1 af01<1 af1f<1 af04>1=0 af00>1=0 af00<4 af04<4 af04<1 af05<1 af08<4 af10<1 af05>1=0");
    p.script("af08<4 af05>1=3 af08<4 af00<4 af00>4=1 af00<4 af04<1 af08<4 af00>4=7 af04<4 af08<4 af05>1=0");
    p.script("af08<4 af05>1=3 af08<4 af00>4=3 af04<4 af08<4 af04>1=2 af04<1");
}

#[test]
fn smbus_as_qemu() {
    let Some(mut p) = Pair::start(&[]) else { return };
    for reg in (0..0x40).filter(|r| *r != 7) {
        p.r(0xb100 + reg, 1);
    }
    // Byte write, byte read, word write, word read, receive byte.
    p.script("b104>1=a0 b103>1=80 b105>1=5a b102>1=48 b100<1 b100<1 b100>1=ff b100<1");
    p.script("b104>1=a1 b105>1=0 b102>1=48 b102<1 b100<1 b100<1 b105<1 b100>1=ff");
    p.script("b104>1=ac b105>1=11 b106>1=22 b102>1=4c b100<1 b100<1 b100>1=ff");
    p.script("b104>1=ad b105>1=0 b106>1=0 b102>1=4c b100<1 b100<1 b105<1 b106<1 b100>1=ff");
    p.script("b103>1=81 b102>1=48 b100<1 b100<1 b105<1 b100>1=ff b102>1=44 b100<1 b100<1 b105<1 b100>1=ff");
    // Nobody at 0x20; a quick command.
    p.script(
        "b104>1=41 b102>1=48 b100<1 b100<1 b105<1 b100>1=ff b104>1=a1 b102>1=40 b100<1 b100<1 b100>1=ff",
    );
    // Block write and read back.
    p.script("b104>1=a8 b103>1=10 b105>1=3 b107>1=7 b107>1=8 b107>1=9 b102>1=54 b100<1 b100<1 b100>1=ff");
    p.script(
        "b104>1=a9 b105>1=0 b102>1=54 b100<1 b100<1 b105<1 b102<1 b107<1 b107<1 b107<1 b107<1 b100>1=ff",
    );
    // Four bytes in the buffer, three announced.
    p.script("b104>1=a8 b107>1=7 b107>1=8 b107>1=9 b102>1=54 b100<1 b100<1 b100>1=ff");
    // Moved by its base register.
    p.script("cf8>4=80000b90 cfc>2=c101 b100<1 c100<1 c10d<1");
}

#[test]
fn fw_cfg_as_qemu() {
    let Some(mut p) = Pair::start(&[]) else { return };
    p.script("510>2=0 511<1 511<1 510<1 510<2 511<1 511<1 510>2=1 511<1 511<1 510>2=1ff 511<1 510>2=0");
    p.script("510>1=1 511<1 511>1=9 511<1 514<4 518<4 514<2 514<1 515<1 51b<1 51a<2");
    // Sleep states, found through the directory.
    let file = |p: &mut Pair, real: bool| {
        let b = |p: &mut Pair, port| if real { p.real.read(port, 1) as u8 } else { p.ours.m.inb(port) };
        let sel = |p: &mut Pair, v: u16| match real {
            true => p.real.write(0x510, 2, u32::from(v)),
            false => p.ours.m.guest_write(Space::Io, 0x510, 2, u64::from(v)),
        };
        sel(p, 0x19);
        let n = (0..4).fold(0u32, |v, _| v << 8 | u32::from(b(p, 0x511)));
        for _ in 0..n {
            let e: Vec<u8> = (0..64).map(|_| b(p, 0x511)).collect();
            if e[8..].starts_with(b"etc/system-states\0") {
                sel(p, u16::from_be_bytes([e[4], e[5]]));
                return (0..e[3]).map(|_| b(p, 0x511)).collect::<Vec<_>>();
            }
        }
        Vec::new()
    };
    let real = file(&mut p, true);
    assert_eq!(real.len(), 6);
    assert_eq!(file(&mut p, false), real);
}

#[test]
fn dma_registers_as_qemu() {
    let Some(mut p) = Pair::start(&[]) else { return };
    p.script("0<1 1<1 2<1 8<1 9<1 d<1 f<1 81<1 82<1 83<1 87<1 8f<1 84<1 88<1 4>1=34 4>1=12 4<1 4<1 4<1");
    p.script(
        "5>1=ff 5>1=1 5<1 5<1 4>1=78 c>1=0 4<1 4<1 81>1=55 81<1 b>1=46 b<1 a>1=6 9<1 a>1=2 9<1 e>1=0 9<1",
    );
    p.script("f>1=a 9<1 f>1=f5 9<1 9>1=6 8<1 9>1=2 8<1 8>1=10 8<1 d>1=0 9<1 4<1 5<1 81<1 c<1 d<1");
    p.script("c4>1=34 c4>1=12 c4<1 c4<1 c5<1 d4>1=1 d2<1 d0<1 d3<1 c4<2 8b>1=12 8b<1 89>1=34 89<1 8a<1 81<2");
    p.script("0>1=11 0>1=22 2>1=33 0<1 2<1 0<1 2<1 c0<1 c1<1 c2<1 ce<1 cf<1 da>1=0 d2<1 ");
}
