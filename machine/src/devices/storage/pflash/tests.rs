use super::*;
use crate::device::testing::machine;
use crate::device::{DevId, Place};
use crate::devices::storage::testing::{image, Real};
use crate::machine::Machine;
use crate::memory::Space;
use crate::qom::{Classed, PropInput};

const LEN: u64 = 64 << 10;
const BASE: u64 = (1 << 32) - LEN;

/// A chip with the image `path` at the top of 4 GiB.
fn chip(path: &std::path::Path, options: &[(&str, &str)]) -> (Machine, DevId) {
    let mut m = machine();
    let mut opts: Vec<(String, String)> =
        vec![("file".into(), path.to_str().unwrap().into()), ("format".into(), "raw".into())];
    opts.extend(options.iter().map(|(k, v)| (k.to_string(), v.to_string())));
    m.block
        .open_drive(&rqemu_block::DriveOpts { id: "f".into(), options: opts, ..Default::default() })
        .unwrap();
    let props = [
        ("drive", "f"),
        ("num-blocks", "16"),
        ("sector-length", "4096"),
        ("width", "1"),
        ("name", "system.flash0"),
    ]
    .map(|(k, v)| (k, PropInput::Str(v)));
    let dev = m.add_device(PflashProps::CLASS, None, Place::Machine("system.flash0"), &props).unwrap();
    let region = m.with::<Pflash, _>(dev, |p, _| p.region()).unwrap();
    let system = m.mem.system;
    m.mem.map(system, region, BASE, 0);
    m.settle();
    m.reset_device(dev);
    (m, dev)
}

fn put(m: &mut Machine, at: u64, v: u8) {
    m.guest_write(Space::Memory, BASE + at, 1, v.into());
}

fn get(m: &mut Machine, at: u64) -> u8 {
    m.guest_read(Space::Memory, BASE + at, 1) as u8
}

#[test]
fn what_is_written_reaches_the_image_and_the_map_follows() {
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path(), "f.img", LEN, true);
    let (mut m, dev) = chip(&path, &[]);
    let direct = |m: &Machine| m.flat().mem.host_ptr(BASE, 1, false).is_some();
    assert!(direct(&m) && m.flat().mem.host_ptr(BASE, 1, true).is_none());
    put(&mut m, 0x10, 0x40);
    assert!(!direct(&m));
    put(&mut m, 0x10, 0x5a);
    put(&mut m, 0x3000, 0x20);
    put(&mut m, 0x3000, 0xd0);
    assert_eq!(get(&mut m, 0), 0x80);
    put(&mut m, 0, 0xff);
    assert!(direct(&m));
    assert_eq!((get(&mut m, 0x10), get(&mut m, 0x3fff)), (0x5a, 0xff));
    let file = std::fs::read(&path).unwrap();
    assert_eq!((file[0x10], file[0x3000], file[0x3fff], file.len() as u64), (0x5a, 0xff, 0xff, LEN));
    // A reset in the middle of a command shows the array, which keeps what it had.
    put(&mut m, 0x20, 0xe8);
    m.reset_device(dev);
    assert!(direct(&m));
    assert_eq!(get(&mut m, 0x10), 0x5a);
}

#[test]
fn a_read_only_image_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = image(dir.path(), "f.img", LEN, true);
    let before = std::fs::read(&path).unwrap();
    let (mut m, _) = chip(&path, &[("read-only", "on")]);
    put(&mut m, 0, 0x40);
    put(&mut m, 0, 0);
    assert_eq!(get(&mut m, 0), 0x90);
    put(&mut m, 0, 0x50);
    put(&mut m, 0, 0x20);
    assert_eq!(get(&mut m, 0), 0xa0);
    put(&mut m, 0, 0xff);
    assert_eq!(get(&mut m, 0), before[0]);
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn geometry_is_checked() {
    let mut m = machine();
    let mut add = |props: &[(&str, &str)]| {
        let props: Vec<_> = props.iter().map(|(k, v)| (*k, PropInput::Str(v))).collect();
        m.add_device(PflashProps::CLASS, None, Place::Machine("x"), &props).unwrap_err().desc
    };
    assert_eq!(add(&[]), "attribute \"name\" not specified.");
    assert_eq!(add(&[("name", "n")]), "attribute \"sector-length\" not specified or zero.");
    let huge = [("name", "n"), ("sector-length", "4096"), ("num-blocks", "4294967295"), ("width", "1")];
    assert_eq!(add(&huge), "cfi.pflash01: bad geometry");
}

/// Long random sequences of commands do the same as on a real QEMU, read by read, and leave the same image.
#[test]
fn as_a_real_one() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, theirs) = (image(dir.path(), "a.img", LEN, true), image(dir.path(), "b.img", LEN, true));
    let drive = format!("if=pflash,format=raw,file={}", theirs.display());
    let mut real = Real::new(&[], &["-drive", &drive]);
    let (mut m, _) = chip(&ours, &[]);
    let mut seed = 1u32;
    let mut random = move |n: u32| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 8) % n
    };
    const COMMANDS: [u8; 16] =
        [0x10, 0x20, 0x40, 0x50, 0x60, 0x70, 0x90, 0x98, 0xd0, 0xd0, 0xe8, 0xe8, 0xff, 0xff, 1, 0];
    const SIZES: [(u8, &str); 3] = [(1, "b"), (2, "w"), (4, "l")];
    for i in 0..3000 {
        let (size, letter) = SIZES[random(3) as usize];
        let at = BASE + u64::from(random(3) * 0x1000 + random(0x140)) / u64::from(size) * u64::from(size);
        if random(3) == 0 {
            let a = m.guest_read(Space::Memory, at, size);
            let r = real.ask(&format!("read{letter} {at:#x}"));
            let b = u64::from_str_radix(r.trim_start_matches("0x"), 16).unwrap();
            assert_eq!(a, b, "step {i}: read of {size} at {at:#x}");
        } else {
            let low = COMMANDS[random(16) as usize];
            let v = u64::from(if random(4) == 0 { random(0x100_0000) } else { low.into() });
            let v = v & crate::machine::mask(size);
            m.guest_write(Space::Memory, at, size, v);
            real.ask(&format!("write{letter} {at:#x} {v:#x}"));
        }
    }
    drop(real);
    assert!(std::fs::read(ours).unwrap() == std::fs::read(theirs).unwrap(), "the images differ");
}
