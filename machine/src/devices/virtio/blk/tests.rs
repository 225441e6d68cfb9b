//! Disk tests: a driver over the legacy and the modern interface, errors, hostile rings.

use std::path::PathBuf;

use super::super::testing::*;

const SECTORS: usize = 128;

fn image(dir: &tempfile::TempDir) -> PathBuf {
    let path = dir.path().join("disk.img");
    let data: Vec<u8> = (0..SECTORS * 512).map(|i| (i / 512 * 7 + i % 251) as u8).collect();
    std::fs::write(&path, data).unwrap();
    path
}

struct Bench {
    d: Driver,
    path: PathBuf,
    _dir: tempfile::TempDir,
}

fn bench(props: &[(&str, &str)]) -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let path = image(&dir);
    let mut m = pci_machine();
    let options = vec![("file".into(), path.to_str().unwrap().into()), ("format".into(), "raw".into())];
    m.block.open_drive(&rqemu_block::DriveOpts { id: "d".into(), options, ..Default::default() }).unwrap();
    let mut all = vec![("drive", "d")];
    all.extend_from_slice(props);
    let dev = plug(&mut m, "virtio-blk-pci", &all).unwrap();
    Bench { d: Driver::new(m, dev), path, _dir: dir }
}

fn header(kind: u32, sector: u64) -> Vec<u8> {
    let mut h = kind.to_le_bytes().to_vec();
    h.extend([0; 4]);
    h.extend(sector.to_le_bytes());
    h
}

const STATUS: u64 = DATA + 0x8000;

/// One request with `data` bytes at `DATA + 0x1000`; returns status and the length in the used ring.
fn request(d: &mut Driver, q: &mut DriverQueue, kind: u32, sector: u64, len: u32) -> (u8, u32) {
    d.write(DATA, &header(kind, sector));
    d.write(STATUS, &[0xee]);
    let read = matches!(kind, 0 | 8);
    let mut parts = vec![(DATA, 16, false)];
    if len > 0 {
        parts.push((DATA + 0x1000, len, read));
    }
    parts.push((STATUS, 1, true));
    d.chain(q, 0, &parts);
    d.offer(q, 0);
    d.kick(q);
    let (head, written) = d.wait(q);
    assert_eq!(head, 0);
    (d.bytes(STATUS, 1)[0], written)
}

fn exercise(b: &mut Bench, q: &mut DriverQueue) {
    let image = std::fs::read(&b.path).unwrap();
    let d = &mut b.d;
    assert_eq!(request(d, q, 0, 3, 1024), (0, 1025));
    assert_eq!(d.bytes(DATA + 0x1000, 1024), image[3 * 512..5 * 512]);
    d.write(DATA + 0x1000, &[0x5a; 512]);
    assert_eq!(request(d, q, 1, 7, 512), (0, 1));
    assert_eq!(request(d, q, 4, 0, 0), (0, 1));
    assert_eq!(std::fs::read(&b.path).unwrap()[7 * 512..8 * 512], [0x5a; 512]);
    // Serial number, zero-terminated.
    assert_eq!(request(d, q, 8, 0, 20).0, 0);
    assert_eq!(d.bytes(DATA + 0x1000, 5), *b"ser1\0");
    // Past the end, half a sector, unknown.
    assert_eq!(request(d, q, 0, SECTORS as u64, 512).0, 1);
    assert_eq!(request(d, q, 0, u64::MAX, 512).0, 1);
    assert_eq!(request(d, q, 0, 0, 100).0, 1);
    assert_eq!(request(d, q, 99, 0, 0).0, 2);
}

#[test]
fn modern_driver() {
    let mut b = bench(&[("serial", "ser1")]);
    b.d.negotiate(u64::MAX);
    let mut q = b.d.modern_queue(0, 0x1000);
    b.d.driver_ok();
    exercise(&mut b, &mut q);
    assert!(b.d.intx());
    assert_eq!(b.d.isr(), 1);
    assert!(!b.d.intx());
}

#[test]
fn legacy_driver() {
    let mut b = bench(&[("serial", "ser1")]);
    b.d.legacy_write(18, 1, 3);
    b.d.legacy_write(4, 4, 0);
    let mut q = b.d.legacy_queue(0, 0x1000);
    b.d.legacy_write(18, 1, 7);
    exercise(&mut b, &mut q);
    assert!(b.d.intx());
    assert_eq!(b.d.legacy_read(19, 1), 1);
    assert!(!b.d.intx());
}

#[test]
fn discard_and_write_zeroes() {
    let mut b = bench(&[]);
    b.d.negotiate(u64::MAX);
    let mut q = b.d.modern_queue(0, 0x1000);
    b.d.driver_ok();
    let range = |sector: u64, n: u32, flags: u32| {
        let mut r = sector.to_le_bytes().to_vec();
        r.extend(n.to_le_bytes());
        r.extend(flags.to_le_bytes());
        r
    };
    for (kind, sector, n, flags, want) in [
        (13, 2, 3, 0, 0),
        (13, 9, 1, 1, 0),
        (11, 20, 1, 0, 0),
        (11, 20, 1, 1, 2),
        (13, 2, 1, 2, 2),
        (13, 127, 2, 0, 1),
    ] {
        b.d.write(DATA + 0x1000, &range(sector, n, flags));
        assert_eq!(request(&mut b.d, &mut q, kind, 0, 16).0, want, "{kind} {sector} {n} {flags}");
    }
    let after = std::fs::read(&b.path).unwrap();
    assert!(after[2 * 512..5 * 512].iter().all(|x| *x == 0));
    assert!(after[9 * 512..10 * 512].iter().all(|x| *x == 0));
    assert_ne!(after[5 * 512..6 * 512], [0; 512]);
}

#[test]
fn write_cache_follows_the_driver() {
    let mut b = bench(&[]);
    let backend = b.d.m.block.backend_for("d").unwrap();
    assert!(backend.write_cache());
    // Neither FLUSH nor CONFIG_WCE.
    b.d.negotiate(0);
    b.d.driver_ok();
    assert!(!backend.write_cache());
    b.d.common_write(0x14, 1, 0);
    assert!(backend.write_cache());
    b.d.negotiate(u64::MAX);
    b.d.driver_ok();
    assert!(backend.write_cache());
    b.d.common_write(0x2020, 1, 0);
    assert!(!backend.write_cache());
    assert_eq!(b.d.common_read(0x2020, 1), 0);
}

#[test]
fn indirect_and_event_index() {
    let mut b = bench(&[]);
    let image = std::fs::read(&b.path).unwrap();
    let d = &mut b.d;
    d.negotiate(u64::MAX);
    let mut q = d.modern_queue(0, 0x1000);
    d.driver_ok();
    let table = sector_table(d);
    d.write(DATA, &header(0, 5));
    d.desc(&q, 9, table, 48, 4, 0);
    d.offer(&mut q, 9);
    // Ask for an interrupt only after the second one.
    let at = q.avail + 4 + 2 * u64::from(q.size);
    d.w16(at, 1);
    d.kick(&q);
    assert_eq!(d.wait(&mut q), (9, 513));
    assert_eq!(d.bytes(DATA + 0x1000, 512), image[5 * 512..6 * 512]);
    // The first interrupt after the start always comes.
    d.isr();
    d.offer(&mut q, 9);
    d.kick(&q);
    d.wait(&mut q);
    assert_eq!(d.isr(), 1, "event index reached");
    d.offer(&mut q, 9);
    d.kick(&q);
    d.wait(&mut q);
    assert_eq!(d.isr(), 0, "event index passed already");
}

/// An indirect table for a read of one sector.
fn sector_table(d: &mut Driver) -> u64 {
    let at = DATA + 0x4000;
    let mut t = Vec::new();
    for (addr, len, flags, next) in [(DATA, 16u32, 1u16, 1u16), (DATA + 0x1000, 512, 3, 2), (STATUS, 1, 2, 0)]
    {
        t.extend(addr.to_le_bytes());
        t.extend(len.to_le_bytes());
        t.extend(flags.to_le_bytes());
        t.extend(next.to_le_bytes());
    }
    d.write(at, &t);
    at
}

#[test]
fn hostile_rings_break_the_device_until_reset() {
    type Spoil = fn(&mut Driver, &mut DriverQueue);
    let cases: &[(&str, Spoil)] = &[
        ("loop", |d, q| {
            d.desc(q, 0, DATA, 16, 1, 1);
            d.desc(q, 1, DATA, 16, 1, 0);
            d.offer(q, 0);
        }),
        ("head", |d, q| d.offer(q, 0x7fff)),
        ("next", |d, q| {
            d.desc(q, 0, DATA, 16, 1, 0x4000);
            d.offer(q, 0);
        }),
        ("address", |d, q| {
            d.chain(q, 0, &[(0xffff_ffff_ffff_fff0, 64, false), (STATUS, 1, true)]);
            d.offer(q, 0);
        }),
        ("length", |d, q| {
            d.chain(q, 0, &[(DATA, u32::MAX, false), (STATUS, 1, true)]);
            d.offer(q, 0);
        }),
        ("zero", |d, q| {
            d.chain(q, 0, &[(DATA, 0, false), (STATUS, 1, true)]);
            d.offer(q, 0);
        }),
        ("order", |d, q| {
            d.chain(q, 0, &[(STATUS, 1, true), (DATA, 16, false)]);
            d.offer(q, 0);
        }),
        ("indirect size", |d, q| {
            d.desc(q, 0, DATA, 17, 4, 0);
            d.offer(q, 0);
        }),
        ("header", |d, q| {
            d.chain(q, 0, &[(DATA, 8, false), (STATUS, 1, true)]);
            d.offer(q, 0);
        }),
        ("no status", |d, q| {
            d.chain(q, 0, &[(DATA, 16, false)]);
            d.offer(q, 0);
        }),
        ("index", |d, q| d.w16(q.avail + 2, 1000)),
    ];
    for (name, spoil) in cases {
        let mut b = bench(&[("serial", "ser1")]);
        b.d.negotiate(u64::MAX);
        let mut q = b.d.modern_queue(0, 0x1000);
        b.d.driver_ok();
        spoil(&mut b.d, &mut q);
        b.d.kick(&q);
        b.d.attend();
        assert_eq!(b.d.status(), 0x4f, "{name}");
        assert_eq!(b.d.finished(&mut q), None, "{name}");
        // It works again after a reset.
        b.d.write(0x1000, &[0; 0x4000]);
        b.d.negotiate(u64::MAX);
        let mut q = b.d.modern_queue(0, 0x1000);
        b.d.driver_ok();
        exercise(&mut b, &mut q);
    }
}

#[test]
fn nonsense_registers_are_harmless() {
    let mut b = bench(&[]);
    let d = &mut b.d;
    d.common_write(0x16, 2, 77);
    assert_eq!(d.common_read(0x18, 2), 0);
    d.common_write(0x18, 2, 0xffff);
    d.common_write(0x1c, 2, 1);
    d.common_write(0x3000 + 4 * 900, 2, 900);
    d.common_write(0x16, 2, 0);
    d.common_write(0x18, 2, 0);
    assert_eq!(d.common_read(0x18, 2), 256);
    // Rings outside of memory: found out at the first kick.
    d.negotiate(u64::MAX);
    d.common_write(0x16, 2, 0);
    d.common_write(0x20, 4, 0xf000_0000);
    d.common_write(0x1c, 2, 1);
    d.driver_ok();
    d.common_write(0x3000, 2, 0);
    d.attend();
    assert_eq!(d.status(), 0x4f);
    d.legacy_write(16, 2, 0xffff);
    d.legacy_write(8, 4, 0);
    assert_eq!(d.status(), 0);
}

#[test]
fn queue_reset_starts_over() {
    let mut b = bench(&[("serial", "ser1")]);
    b.d.negotiate(u64::MAX);
    let mut q = b.d.modern_queue(0, 0x1000);
    b.d.driver_ok();
    exercise(&mut b, &mut q);
    b.d.common_write(0x3a, 2, 1);
    assert_eq!(b.d.common_read(0x1c, 2), 0);
    assert_eq!(b.d.common_read(0x3a, 2), 0);
    b.d.write(0x1000, &[0; 0x4000]);
    let mut q = b.d.modern_queue(0, 0x1000);
    exercise(&mut b, &mut q);
}

#[test]
fn stop_and_continue() {
    let mut b = bench(&[("serial", "ser1")]);
    b.d.negotiate(u64::MAX);
    let mut q = b.d.modern_queue(0, 0x1000);
    b.d.driver_ok();
    let dev = b.d.dev;
    b.d.m.with_dev(dev, |d, cx| d.run_state_changed(cx, false));
    b.d.write(DATA, &header(4, 0));
    b.d.chain(&q, 0, &[(DATA, 16, false), (STATUS, 1, true)]);
    b.d.offer(&mut q, 0);
    b.d.kick(&q);
    assert_eq!(b.d.finished(&mut q), None, "stopped");
    b.d.m.with_dev(dev, |d, cx| d.run_state_changed(cx, true));
    assert_eq!(b.d.wait(&mut q), (0, 1), "served on continue");
    exercise(&mut b, &mut q);
}

#[test]
fn property_errors() {
    for (props, want) in [
        (&[("num-queues", "0")][..], "num-queues property must be larger than 0"),
        (&[("queue-size", "100")], "invalid queue-size property (100), must be a power of 2 (max 1024)"),
        (&[("packed", "on")], "packed virtqueues are not supported"),
        (
            &[("logical_block_size", "4096"), ("physical_block_size", "512")],
            "logical_block_size > physical_block_size not supported",
        ),
    ] {
        let mut m = pci_machine();
        let options = vec![("driver".into(), "null-co".into()), ("size".into(), "1M".into())];
        m.block
            .open_drive(&rqemu_block::DriveOpts { id: "d".into(), options, ..Default::default() })
            .unwrap();
        let mut all = vec![("drive", "d")];
        all.extend_from_slice(props);
        assert_eq!(plug(&mut m, "virtio-blk-pci", &all).unwrap_err().to_string(), want);
        assert!(m.tree.by_class("virtio-blk-pci").is_none());
    }
    let mut m = pci_machine();
    assert_eq!(plug(&mut m, "virtio-blk-pci", &[]).unwrap_err().to_string(), "drive property not set");
}

/// An accelerator that takes event descriptors, so that disks are served by their I/O thread. Kicks still arrive as
/// accesses and are passed on.
struct EventFds;

impl crate::accel::Accel for EventFds {
    fn name(&self) -> &'static str {
        "eventfds"
    }
    fn ioeventfd(
        &mut self,
        _add: bool,
        _space: crate::memory::Space,
        _addr: u64,
        _len: u32,
        _value: Option<u64>,
        _fd: std::os::fd::RawFd,
    ) -> bool {
        true
    }
    fn as_any(&mut self) -> &mut dyn std::any::Any {
        self
    }
}

#[test]
fn served_by_an_io_thread() {
    let mut b = bench(&[("serial", "ser1")]);
    b.d.m.accel = Box::new(EventFds);
    b.d.negotiate(u64::MAX);
    let mut q = b.d.modern_queue(0, 0x1000);
    b.d.driver_ok();
    exercise(&mut b, &mut q);
    assert_eq!(b.d.isr(), 1);
    // A mistake of the guest is found there and reported here.
    b.d.offer(&mut q, 0x4000);
    b.d.kick(&q);
    let end = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while b.d.status() != 0x4f {
        b.d.attend();
        assert!(std::time::Instant::now() < end, "never noticed");
        std::thread::yield_now();
    }
}

#[test]
fn nothing_is_written_after_a_reset() {
    let mut b = bench(&[("serial", "ser1")]);
    b.d.m.accel = Box::new(EventFds);
    for round in 0..100u64 {
        b.d.negotiate(u64::MAX);
        // Each round has its rings and data elsewhere, so that late writes would show.
        let at = 0x1000 + (round & 1) * 0x8000;
        b.d.write(at, &[0; 0x8000]);
        let mut q = b.d.modern_queue(0, at);
        b.d.driver_ok();
        let data = DATA + 0x10_0000 + (round & 1) * 0x4_0000;
        b.d.write(data, &[0; 0x1_0000]);
        b.d.write(DATA, &header(0, 1));
        for i in 0..16u16 {
            let buf = data + 0x400 * u64::from(i);
            b.d.chain(&q, 3 * i, &[(DATA, 16, false), (buf, 512, true), (buf + 512, 1, true)]);
            b.d.offer(&mut q, 3 * i);
        }
        b.d.kick(&q);
        for _ in 0..round * 20 {
            std::hint::spin_loop();
        }
        b.d.common_write(0x14, 1, 0);
        let (ring, bufs) = (b.d.bytes(at, 0x8000), b.d.bytes(data, 0x4000));
        // Requests of another round pass through the same thread meanwhile.
        b.d.negotiate(u64::MAX);
        b.d.write(0x1_2000, &[0; 0x4000]);
        let mut q = b.d.modern_queue(0, 0x1_2000);
        b.d.driver_ok();
        assert_eq!(request(&mut b.d, &mut q, 4, 0, 0).0, 0);
        b.d.common_write(0x14, 1, 0);
        assert_eq!(b.d.bytes(at, 0x8000), ring);
        assert_eq!(b.d.bytes(data, 0x4000), bufs);
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 64, ..Default::default() })]

    /// Whatever lies in the rings, the device survives, and works after a reset.
    #[test]
    fn junk_in_the_rings(
        table in proptest::collection::vec((0u64..RAM * 2, 0u32..0x2_0000, 0u16..8, 0u16..40), 1..32),
        ring in proptest::collection::vec(0u16..40, 1..16),
        index in 0u16..300,
    ) {
        let mut b = bench(&[("serial", "ser1")]);
        b.d.negotiate(u64::MAX);
        let q = b.d.modern_queue(0, 0x1000);
        b.d.driver_ok();
        for (i, (addr, len, flags, next)) in table.iter().enumerate() {
            // Not into the rings themselves, so that the test knows where it stands.
            let addr = if *addr < 0x10_000 { addr + 0x10_000 } else { *addr };
            b.d.desc(&q, i as u16, addr, *len, *flags, *next);
        }
        for (i, head) in ring.iter().enumerate() {
            b.d.w16(q.avail + 4 + 2 * i as u64, *head);
        }
        b.d.w16(q.avail + 2, index);
        b.d.kick(&q);
        b.d.attend();
        b.d.common_write(0x14, 1, 0);
        b.d.write(0x1000, &[0; 0x4000]);
        std::fs::write(&b.path, (0..SECTORS * 512).map(|i| i as u8).collect::<Vec<_>>()).unwrap();
        b.d.negotiate(u64::MAX);
        let mut q = b.d.modern_queue(0, 0x1000);
        b.d.driver_ok();
        exercise(&mut b, &mut q);
    }
}
