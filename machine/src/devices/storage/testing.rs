//! Test benches for storage devices: the machine model here, or a real QEMU behind its qtest protocol, with the same
//! port and memory accesses. Tests that need the real one are ignored by default; run them with
//! `cargo test -p rqemu-machine -- --ignored oracle` where `qemu-system-x86_64` 7.2 is installed.

use std::path::{Path, PathBuf};

use crate::device::testing::machine;
use crate::device::testing::oracle::{Qtest, QEMU};
use crate::device::{BusKind, DevId};
use crate::machine::Machine;
use crate::memory::Space;
use crate::qom::PropInput;

/// Accesses as a guest makes them.
pub trait Guest {
    fn read_io(&mut self, port: u16, size: u8) -> u32;
    fn write_io(&mut self, port: u16, size: u8, v: u32);
    fn read_mem(&mut self, addr: u64, len: usize) -> Vec<u8>;
    fn write_mem(&mut self, addr: u64, data: &[u8]);
    /// Writes a PCI configuration register of the IDE function.
    fn write_config(&mut self, reg: u16, v: u32);
    fn read_config(&mut self, reg: u16) -> u32;

    fn inb(&mut self, port: u16) -> u8 {
        self.read_io(port, 1) as u8
    }
    fn inw(&mut self, port: u16) -> u16 {
        self.read_io(port, 2) as u16
    }
    fn outb(&mut self, port: u16, v: u8) {
        self.write_io(port, 1, u32::from(v));
    }
    fn outw(&mut self, port: u16, v: u16) {
        self.write_io(port, 2, u32::from(v));
    }
    /// Waits until the drive at `base` is not busy.
    fn wait(&mut self, base: u16) -> u8 {
        loop {
            let s = self.inb(base + 0x206);
            if s & 0x80 == 0 {
                return s;
            }
        }
    }
    /// Task file registers 1 to 7 and alternate status (read first, so that it is before the interrupt is taken).
    fn task_file(&mut self, base: u16) -> [u8; 8] {
        let mut t = [0; 8];
        t[7] = self.inb(base + 0x206);
        for i in 1..8 {
            t[i as usize - 1] = self.inb(base + i);
        }
        t
    }
    fn soft_reset(&mut self, base: u16) {
        self.outb(base + 0x206, 4);
        self.outb(base + 0x206, 0);
        self.wait(base);
    }
    /// Writes registers (number, value) and waits.
    fn command(&mut self, base: u16, regs: &[(u16, u8)]) -> [u8; 8] {
        for (r, v) in regs {
            self.outb(base + r, *v);
        }
        self.wait(base);
        self.task_file(base)
    }
    /// Reads PIO data while there are any, at most `max` words.
    fn drain(&mut self, base: u16, max: usize) -> Vec<u16> {
        let mut out = Vec::new();
        while out.len() < max && self.wait(base) & 8 != 0 {
            out.push(self.inw(base));
        }
        out
    }
}

/// A drive to plug in: `(bus, unit, class, image, extra properties)`.
pub struct Plug<'a> {
    pub bus: u8,
    pub unit: u8,
    pub class: &'static str,
    pub image: Option<&'a Path>,
    pub props: &'a [(&'static str, &'static str)],
}

/// An image file of `len` bytes in which every sector differs.
pub fn image(dir: &Path, name: &str, len: u64, fill: bool) -> PathBuf {
    let path = dir.join(name);
    let f = std::fs::File::create(&path).unwrap();
    f.set_len(len).unwrap();
    if fill {
        let data: Vec<u8> = (0..len).map(|i| (i / 512 * 7 + i % 251) as u8).collect();
        std::fs::write(&path, data).unwrap();
    }
    path
}

/// The model here.
pub struct Ours {
    pub m: Machine,
    pub ide: DevId,
    pub drives: Vec<DevId>,
}

impl Ours {
    pub fn new(plugs: &[Plug<'_>]) -> Self {
        let mut m = machine();
        let ram = m.new_ram("ram", 1 << 20, false, None).unwrap();
        let (mem, io) = (m.mem.system, m.mem.io);
        m.mem.map(mem, ram, 0, 0);
        let bus = m.tree.add_bus("pci.0".into(), BusKind::Pci, None);
        m.pci.add(bus, mem, io, Vec::new(), |_, _| 0);
        let ide = m.add_board_device("piix3-ide", Some(bus), &[("addr", PropInput::Str("01.1"))]).unwrap();
        m.reset_devices();
        let mut ours = Self { m, ide, drives: Vec::new() };
        for p in plugs {
            let d = ours.plug(p).unwrap();
            ours.drives.push(d);
        }
        ours.m.reset_devices();
        ours
    }

    pub fn plug(&mut self, p: &Plug<'_>) -> crate::QResult<DevId> {
        let name = format!("ide{}-u{}", p.bus, p.unit);
        if let Some(path) = p.image {
            let options =
                vec![("file".into(), path.to_str().unwrap().into()), ("format".into(), "raw".into())];
            self.m
                .block
                .open_drive(&rqemu_block::DriveOpts { id: name.clone(), options, ..Default::default() })
                .unwrap();
        }
        let bus = self.m.tree.find_bus(&format!("ide.{}", p.bus)).unwrap().id;
        let unit = p.unit.to_string();
        let mut props = vec![("unit", PropInput::Str(&unit))];
        if p.image.is_some() {
            props.push(("drive", PropInput::Str(&name)));
        }
        props.extend(p.props.iter().map(|(k, v)| (*k, PropInput::Str(v))));
        self.m.add_board_device(p.class, Some(bus), &props)
    }
}

impl Ours {
    /// Does what the main loop would do until no request is pending.
    fn settle(&mut self) {
        loop {
            let drives = self.m.block.drives();
            drives.iter().for_each(|d| d.drain());
            self.m.deliver_completions();
            if drives.iter().all(|d| d.in_flight() == 0) {
                return;
            }
        }
    }
}

impl Guest for Ours {
    fn read_io(&mut self, port: u16, size: u8) -> u32 {
        self.settle();
        self.m.guest_read(Space::Io, u64::from(port), size) as u32
    }
    fn write_io(&mut self, port: u16, size: u8, v: u32) {
        self.m.guest_write(Space::Io, u64::from(port), size, u64::from(v));
        self.settle();
    }
    fn read_mem(&mut self, addr: u64, len: usize) -> Vec<u8> {
        let mut b = vec![0; len];
        self.m.flat().mem.read(addr, &mut b).unwrap();
        b
    }
    fn write_mem(&mut self, addr: u64, data: &[u8]) {
        self.m.flat().mem.write(addr, data).unwrap();
    }
    fn write_config(&mut self, reg: u16, v: u32) {
        self.m.pci_config_write(Some(self.ide), reg, 4, v);
    }
    fn read_config(&mut self, reg: u16) -> u32 {
        self.m.pci_config_read(Some(self.ide), reg, 4)
    }
}

/// A real QEMU.
pub struct Real(Qtest);

impl Real {
    pub fn new(plugs: &[Plug<'_>], extra: &[&str]) -> Self {
        let mut args: Vec<String> = ["-M", "pc", "-m", "16", "-nodefaults"].map(String::from).to_vec();
        for p in plugs {
            let id = format!("ide{}-u{}", p.bus, p.unit);
            let mut dev = format!("{},bus=ide.{},unit={}", p.class, p.bus, p.unit);
            if let Some(path) = p.image {
                let ro = if p.class == "ide-cd" { ",media=cdrom" } else { "" };
                let drive = format!("if=none,id={id},format=raw,file={}{ro}", path.display());
                args.extend(["-drive".into(), drive]);
                dev.push_str(&format!(",drive={id}"));
            }
            for (k, v) in p.props {
                dev.push_str(&format!(",{k}={v}"));
            }
            args.extend(["-device".into(), dev]);
        }
        args.extend(extra.iter().map(|a| a.to_string()));
        Self(Qtest::start(QEMU, &args).unwrap())
    }

    /// Sends a command; returns what follows `OK`.
    pub fn ask(&mut self, line: &str) -> String {
        self.0.command(line).unwrap().join(" ")
    }
}

const SUFFIX: [&str; 5] = ["", "b", "w", "", "l"];

impl Guest for Real {
    fn read_io(&mut self, port: u16, size: u8) -> u32 {
        let r = self.ask(&format!("in{} {port:#x}", SUFFIX[usize::from(size)]));
        u32::from_str_radix(r.trim_start_matches("0x"), 16).unwrap()
    }
    fn write_io(&mut self, port: u16, size: u8, v: u32) {
        self.ask(&format!("out{} {port:#x} {v:#x}", SUFFIX[usize::from(size)]));
    }
    fn read_mem(&mut self, addr: u64, len: usize) -> Vec<u8> {
        self.0.read(addr, len)
    }
    fn write_mem(&mut self, addr: u64, data: &[u8]) {
        self.0.write(addr, data);
    }
    fn write_config(&mut self, reg: u16, v: u32) {
        self.write_io(0xcf8, 4, 0x8000_0900 | u32::from(reg));
        self.write_io(0xcfc, 4, v);
    }
    fn read_config(&mut self, reg: u16) -> u32 {
        self.write_io(0xcf8, 4, 0x8000_0900 | u32::from(reg));
        self.read_io(0xcfc, 4)
    }
}
