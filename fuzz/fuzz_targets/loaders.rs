//! Kernel images (`-kernel`): bzImage, ELF with a PVH note, multiboot, each with hostile headers.
#![cfg_attr(fuzzing, no_main)]

use rqemu_machine::builder::build;
use rqemu_machine::fuzz::Silent;
use rqemu_machine::spec::{AccelOrigin, AccelSpec, Dict, Loc, VmSpec};

fn check(data: &[u8]) {
    let file = tempfile::NamedTempFile::new().expect("temporary file");
    std::fs::write(file.path(), data).expect("temporary file");
    let path = file.path().display().to_string();
    let mut s = VmSpec::default();
    s.machine.kind = Some("pc".into());
    let origin = AccelOrigin::Option;
    s.accels.push(AccelSpec { name: "qtest".into(), props: Dict::new(), origin, loc: Loc::NONE });
    s.memory.size = Some(32 << 20);
    s.firmware.kernel = Some(path.clone());
    s.firmware.append = Some("console=ttyS0".into());
    if data.len() % 2 == 0 {
        s.firmware.initrd = Some(path);
    }
    // Refusing is fine.
    drop(build(&mut s, &mut Silent));
}

fn elf(class: u8) -> Vec<u8> {
    let mut v = vec![0u8; 0x400];
    let mut put = |at: usize, d: &[u8]| v[at..at + d.len()].copy_from_slice(d);
    put(0, &[0x7f, b'E', b'L', b'F', class, 1, 1]);
    put(16, &[2, 0, if class == 2 { 62 } else { 3 }, 0, 1]);
    let note = [4u32, 4, 18].map(u32::to_le_bytes).concat();
    if class == 2 {
        put(24, &0x10_0000u64.to_le_bytes());
        put(32, &64u64.to_le_bytes());
        put(52, &[64, 0, 56, 0, 2, 0]);
        for (i, kind, off, len) in [(0usize, 1u32, 0x200u64, 0x100u64), (1, 4, 0x300, 20)] {
            let at = 64 + 56 * i;
            put(at, &kind.to_le_bytes());
            put(at + 8, &off.to_le_bytes());
            put(at + 16, &0x10_0000u64.to_le_bytes());
            put(at + 24, &0x10_0000u64.to_le_bytes());
            put(at + 32, &len.to_le_bytes());
            put(at + 40, &len.to_le_bytes());
        }
    } else {
        put(24, &0x10_0000u32.to_le_bytes());
        put(28, &52u32.to_le_bytes());
        put(40, &[52, 0, 32, 0, 1, 0]);
        let ph = [1u32, 0x200, 0x10_0000, 0x10_0000, 0x100, 0x100, 7, 0].map(u32::to_le_bytes).concat();
        put(52, &ph);
    }
    put(0x300, &note);
    put(0x30c, b"Xen\0");
    put(0x310, &0x10_0000u32.to_le_bytes());
    v
}

fn multiboot(flags: u32) -> Vec<u8> {
    let mut v = vec![0u8; 0x400];
    let sum = 0u32.wrapping_sub(0x1bad_b002).wrapping_sub(flags);
    let head = [0x1bad_b002, flags, sum, 0x10_0000, 0x10_0000, 0x10_0400, 0x10_1000, 0x10_0020];
    v[..32].copy_from_slice(&head.map(u32::to_le_bytes).concat());
    v
}

fn bzimage() -> Vec<u8> {
    let mut v = vec![0u8; 0x1000];
    let mut put = |at: usize, d: &[u8]| v[at..at + d.len()].copy_from_slice(d);
    put(0x1f1, &[4]);
    put(0x1f4, &0x40u32.to_le_bytes());
    put(0x1fe, &[0x55, 0xaa, 0xeb, 0x66]);
    put(0x202, b"HdrS");
    put(0x206, &0x20cu16.to_le_bytes());
    put(0x211, &[1]);
    put(0x214, &0x10_0000u32.to_le_bytes());
    put(0x22c, &0x7fff_ffffu32.to_le_bytes());
    put(0x230, &0x20_0000u32.to_le_bytes());
    put(0x234, &[1, 21, 1, 0]);
    put(0x238, &2047u32.to_le_bytes());
    put(0x258, &0x100_0000u64.to_le_bytes());
    put(0x260, &0x10_0000u32.to_le_bytes());
    v
}

rqemu_fuzz::target!(
    vec![elf(2), elf(1), multiboot(0x10003), multiboot(3), bzimage(), [multiboot(2), elf(1)].concat()],
    check
);
