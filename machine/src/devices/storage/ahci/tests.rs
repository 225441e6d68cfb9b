use super::*;
use crate::device::testing::machine;
use crate::device::Place;
use crate::devices::storage::testing::image;
use crate::machine::Machine;
use crate::memory::Space;
use crate::qom::{Classed, PropInput};

const BAR: u64 = 0x1000_0000;
const LIST: u64 = 0x1000;
const AREA: u64 = 0x2000;
const TABLE: u64 = 0x3000;
const DATA: u64 = 0x8000;

struct Bench {
    m: Machine,
    path: std::path::PathBuf,
    _dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = image(dir.path(), "d.img", 1 << 20, true);
        let mut m = machine();
        let ram = m.new_ram("ram", 1 << 20, false, None).unwrap();
        let (mem, io) = (m.mem.system, m.mem.io);
        m.mem.map(mem, ram, 0, 0);
        let bus = m.tree.add_bus("pci.0".into(), BusKind::Pci, None);
        m.pci.add(bus, mem, io, Vec::new(), |_, _| 0);
        let ahci = m.add_device(Ich9AhciProps::CLASS, Some(bus), Place::Peripheral("a".into()), &[]).unwrap();
        let options = vec![("file".into(), path.to_str().unwrap().into()), ("format".into(), "raw".into())];
        m.block
            .open_drive(&rqemu_block::DriveOpts { id: "d".into(), options, ..Default::default() })
            .unwrap();
        let port = m.tree.find_bus("a.0").unwrap().id;
        m.add_board_device("ide-hd", Some(port), &[("drive", PropInput::Str("d"))]).unwrap();
        m.reset_devices();
        m.pci_config_write(Some(ahci), 0x24, 4, BAR as u32);
        m.pci_config_write(Some(ahci), 4, 2, 7);
        let mut b = Self { m, path, _dir: dir };
        b.put(4, 2);
        for (at, v) in [(0x100, LIST as u32), (0x108, AREA as u32), (0x114, u32::MAX), (0x118, 0x17)] {
            b.put(at, v);
        }
        b
    }

    fn put(&mut self, at: u64, v: u32) {
        self.m.guest_write(Space::Memory, BAR + at, 4, v.into());
    }

    fn get(&mut self, at: u64) -> u32 {
        self.m.guest_read(Space::Memory, BAR + at, 4) as u32
    }

    /// Issues a command in `slot` with one data block, and waits for its end.
    fn command(&mut self, slot: u8, fis: &[u8], len: u32, write: bool) {
        let mut table = fis.to_vec();
        table.resize(0x80, 0);
        table.extend(DATA.to_le_bytes());
        table.extend([0; 4]);
        table.extend((len - 1).to_le_bytes());
        let header = [5 | u32::from(write) << 6 | 1 << 16, 0, TABLE as u32, 0];
        let header: Vec<u8> = header.iter().flat_map(|w| w.to_le_bytes()).collect();
        self.m.flat().mem.write(TABLE, &table).unwrap();
        self.m.flat().mem.write(LIST + 32 * u64::from(slot), &header).unwrap();
        self.put(0x110, u32::MAX);
        if is_ncq(fis[2]) {
            self.put(0x134, 1 << slot);
        }
        self.put(0x138, 1 << slot);
        let drive = self.m.block.drives().remove(0);
        for _ in 0..1000 {
            drive.drain();
            self.m.deliver_completions();
            if self.get(0x138) | self.get(0x134) == 0 || self.get(0x110) & 1 << 30 != 0 {
                return;
            }
        }
        panic!("command {:02x} does not end", fis[2]);
    }

    fn data(&self, len: usize) -> Vec<u8> {
        let mut d = vec![0; len];
        self.m.flat().mem.read(DATA, &mut d).unwrap();
        d
    }
}

fn is_ncq(code: u8) -> bool {
    ncq::is_queued(code)
}

fn fis(code: u8, lba: u32, count: u8, feature: u8) -> Vec<u8> {
    let l = lba.to_le_bytes();
    vec![0x27, 0x80, code, feature, l[0], l[1], l[2], 0x40, l[3], 0, 0, 0, count, 0, 0, 0]
}

#[test]
fn a_drive_greets_and_identifies_itself() {
    let mut b = Bench::new();
    assert_eq!((b.get(0x120), b.get(0x124), b.get(0x128)), (0x130, 0x101, 0x113));
    assert_eq!((b.get(0x1a0), b.get(0x1a4), b.get(0x1a8)), (0x7f, u32::MAX, 0));
    b.command(0, &fis(0xec, 0, 0, 0), 512, false);
    // PIO set-up and result; the sectors, and 32 queued commands.
    assert_eq!((b.get(0x110), b.get(0x120)), (3, 0x50));
    let d = b.data(512);
    assert_eq!((&d[120..124], &d[150..154]), (&[0, 8, 0, 0][..], &[31, 0, 0, 1][..]));
}

#[test]
fn data_move_by_dma_pio_and_from_the_queue() {
    let mut b = Bench::new();
    let file = std::fs::read(&b.path).unwrap();
    for (code, lba, count, feature) in [(0x25, 10, 4, 0), (0x24, 20, 4, 0), (0x60, 30, 3 << 3, 4)] {
        b.command(3, &fis(code, lba, count, feature), 2048, false);
        let at = lba as usize * 512;
        assert_eq!(b.data(2048), file[at..at + 2048], "{code:02x}");
    }
    // The queue's end is told by bits, not by a register FIS.
    assert_eq!(b.get(0x110), 8);
    b.m.flat().mem.write(DATA, &[0xa5; 512]).unwrap();
    b.command(1, &fis(0x61, 40, 1 << 3, 1), 512, true);
    b.m.flat().mem.write(DATA, &[0x5a; 512]).unwrap();
    b.command(0, &fis(0x35, 41, 1, 0), 512, true);
    let file = std::fs::read(&b.path).unwrap();
    assert_eq!((file[40 * 512], file[41 * 512 - 1], file[41 * 512]), (0xa5, 0xa5, 0x5a));
}

#[test]
fn what_fails_stops_the_port_until_it_is_started_again() {
    let mut b = Bench::new();
    for bad in [fis(0xff, 0, 0, 0), fis(0x25, 0xff_ffff, 1, 0), fis(0x60, 0xff_ffff, 0, 1)] {
        b.command(0, &bad, 512, false);
        assert_eq!((b.get(0x110) & 1 << 30, b.get(0x120)), (1 << 30, 0x441), "{:02x}", bad[2]);
        b.put(0x118, 0x16);
        b.put(0x118, 0x17);
        assert_eq!((b.get(0x134), b.get(0x138)), (0, 0));
        b.command(0, &fis(0x25, 0, 1, 0), 512, false);
        assert_eq!((b.get(0x110), b.get(0x120)), (1, 0x50));
    }
}

#[test]
fn resets() {
    let mut b = Bench::new();
    b.put(0x12c, 1);
    b.put(0x12c, 0);
    assert_eq!((b.get(0x120), b.get(0x124)), (0x130, 0x101));
    b.put(4, 1);
    assert_eq!((b.get(4), b.get(0x100), b.get(0x118), b.get(0x120)), (1 << 31, 0, 6, 0x7f));
}

#[test]
fn the_index_and_data_ports_reach_the_registers() {
    let mut b = Bench::new();
    let dev = b.m.tree.by_user_id("a").unwrap().id;
    b.m.pci_config_write(Some(dev), 0x20, 4, 0xc000);
    b.m.guest_write(Space::Io, 0xc010, 4, 0x10);
    assert_eq!(b.m.guest_read(Space::Io, 0xc014, 4), 0x1_0000);
}
