use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::Arc;

use parking_lot::Mutex;

use super::*;
use crate::device::testing::machine;
use crate::memory::Space;

fn setup() -> (Machine, DevId) {
    let mut m = machine();
    let ram = m.new_ram("ram", 1 << 20, false, None).unwrap();
    let system = m.mem.system;
    m.mem.map(system, ram, 0, 0);
    let id = create(&mut m, &[]).unwrap();
    m.reset_devices();
    (m, id)
}

fn edit<R>(m: &mut Machine, id: DevId, f: impl FnOnce(&mut FwCfg) -> R) -> R {
    m.with::<FwCfg, _>(id, |d, _| f(d)).unwrap()
}

fn select(m: &mut Machine, key: u16) {
    m.guest_write(Space::Io, 0x510, 2, u64::from(key));
}

fn bytes(m: &mut Machine, n: usize) -> Vec<u8> {
    (0..n).map(|_| m.inb(0x511)).collect()
}

/// Runs a DMA command at 0x1000; returns the control word afterwards.
fn dma(m: &mut Machine, control: u32, len: u32, addr: u64) -> u32 {
    let mut cmd = control.to_be_bytes().to_vec();
    cmd.extend(len.to_be_bytes());
    cmd.extend(addr.to_be_bytes());
    m.flat().mem.write(0x1000, &cmd).unwrap();
    m.guest_write(Space::Io, 0x514, 4, 0);
    m.guest_write(Space::Io, 0x518, 4, u64::from(0x1000u32.swap_bytes()));
    (m.guest_read(Space::Memory, 0x1000, 4) as u32).swap_bytes()
}

fn guest(m: &Machine, addr: u64, n: usize) -> Vec<u8> {
    let mut b = vec![0; n];
    m.flat().mem.read(addr, &mut b).unwrap();
    b
}

#[test]
fn signature_and_id() {
    let (mut m, _) = setup();
    assert_eq!(bytes(&mut m, 6), b"QEMU\0\0");
    select(&mut m, key::ID);
    assert_eq!(bytes(&mut m, 4), [3, 0, 0, 0]);
    select(&mut m, 0x1ff);
    assert_eq!(bytes(&mut m, 2), [0, 0]);
    assert_eq!(m.guest_read(Space::Io, 0x514, 4), 0x554d_4551);
    assert_eq!(m.guest_read(Space::Io, 0x518, 4), 0x4746_4320);
    assert_eq!(m.inb(0x51b), b'G');
    assert_eq!(m.guest_read(Space::Io, 0x510, 2), 0, "the selector cannot be read");
}

#[test]
fn directory_is_sorted_and_full_size() {
    let (mut m, id) = setup();
    edit(&mut m, id, |f| {
        f.add_file("opt/b", b"bb".as_slice()).unwrap();
        f.add_file("etc/z", vec![1, 2, 3]).unwrap();
        assert_eq!(f.add_file("etc/z", vec![]).unwrap_err().desc, "duplicate fw_cfg file name: etc/z");
        assert!(f.add_file(&"x".repeat(56), vec![]).is_err());
    });
    assert_eq!(dma(&mut m, 0x0019_000a, 4 + 64 * 32 + 8, 0x2000), 0);
    let d = guest(&m, 0x2000, 4 + 64 * 3);
    assert_eq!(d[..12], [0, 0, 0, 2, 0, 0, 0, 3, 0, 0x20, 0, 0]);
    assert_eq!(&d[12..18], b"etc/z\0");
    assert_eq!(d[68..76], [0, 0, 0, 2, 0, 0x21, 0, 0]);
    select(&mut m, 0x21);
    assert_eq!(bytes(&mut m, 3), b"bb\0");
    edit(&mut m, id, |f| {
        for i in 0..30 {
            f.add_file(&format!("opt/n{i}"), vec![]).unwrap();
        }
        assert!(f.add_file("opt/one-too-many", vec![]).is_err());
    });
}

#[test]
fn dma_read_skip_and_errors() {
    let (mut m, id) = setup();
    edit(&mut m, id, |f| f.add_bytes(0x30, b"0123456789".as_slice()));
    m.flat().mem.write(0x2000, &[0xff; 16]).unwrap();
    assert_eq!(dma(&mut m, 0x0030_000c, 4, 0), 0, "select and skip");
    assert_eq!(dma(&mut m, 2, 8, 0x2000), 0);
    assert_eq!(guest(&m, 0x2000, 9), b"456789\0\0\xff", "zeroes after the end");
    assert_eq!(dma(&mut m, 2, 4, 0x9000_0000), 1, "nothing is there");
    assert_eq!(dma(&mut m, 1, 4, 0x2000), 0, "no operation");
}

#[test]
fn writable_files() {
    let (mut m, id) = setup();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let s = seen.clone();
    edit(&mut m, id, |f| {
        let told: OnWrite = Arc::new(move |_, d| *s.lock() = d.to_vec());
        f.add_writable_file("etc/w", vec![0; 4], Some(told)).unwrap();
        f.add_file("etc/r", vec![0; 4]).unwrap();
    });
    m.flat().mem.write(0x2000, &[1, 2, 3, 4, 5]).unwrap();
    assert_eq!(dma(&mut m, 0x0020_0018, 4, 0x2000), 1, "read-only");
    assert_eq!(dma(&mut m, 0x0021_0018, 5, 0x2000), 1, "too long");
    assert_eq!(dma(&mut m, 0x4021_000c, 1, 0), 0);
    assert_eq!(dma(&mut m, 0x10, 2, 0x2000), 0);
    assert_eq!(*seen.lock(), [0, 1, 2, 0]);
    select(&mut m, 0x21);
    assert_eq!(bytes(&mut m, 4), [0, 1, 2, 0]);
}

#[test]
fn builders_run_once_per_reset() {
    let (mut m, id) = setup();
    let n = Arc::new(AtomicU32::new(0));
    let n2 = n.clone();
    edit(&mut m, id, |f| {
        let d =
            FwCfgData::built(6, move |m| vec![n2.fetch_add(1, Ordering::SeqCst) as u8, m.rams.len() as u8]);
        f.add_file("etc/acpi/tables", d).unwrap();
    });
    assert_eq!(dma(&mut m, 0x0019_000a, 12, 0x2000), 0);
    assert_eq!(guest(&m, 0x2004, 4), [0, 0, 0, 6], "size is known before");
    assert_eq!(n.load(Ordering::SeqCst), 0);
    for _ in 0..2 {
        select(&mut m, 0x20);
        assert_eq!(bytes(&mut m, 3), [0, 1, 0]);
    }
    m.reset_devices();
    select(&mut m, 0x20);
    assert_eq!(bytes(&mut m, 1), [1]);
}
