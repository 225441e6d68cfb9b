//! fw_cfg: a guest's accesses to its ports and DMA descriptors anywhere. Each 12 bytes of input are one access.
#![cfg_attr(fuzzing, no_main)]

use rqemu_fuzz::Bytes;
use rqemu_machine::builder::{build, Built};
use rqemu_machine::fuzz::Silent;
use rqemu_machine::memory::Space;
use rqemu_machine::spec::{AccelOrigin, AccelSpec, Dict, Loc, VmSpec};
use std::cell::RefCell;

fn machine() -> Built {
    let mut s = VmSpec::default();
    s.machine.kind = Some("pc".into());
    let origin = AccelOrigin::Option;
    s.accels.push(AccelSpec { name: "qtest".into(), props: Dict::new(), origin, loc: Loc::NONE });
    s.memory.size = Some(16 << 20);
    build(&mut s, &mut Silent).unwrap_or_else(|e| panic!("{}", e.desc))
}

thread_local! {
    static MACHINE: RefCell<Built> = RefCell::new(machine());
}

fn check(data: &[u8]) {
    MACHINE.with_borrow_mut(|b| {
        let mut m = b.shared.lock();
        let mut i = Bytes(data);
        while i.more() {
            let (op, port, v) = (i.take(1) as u8, i.take(1), i.take(8));
            let at = 0x510 + port % 12;
            let size = 1usize << (op & 1);
            match op % 4 {
                0 => m.bus_read(Space::Io, at, &mut [0; 8][..size]),
                1 => m.bus_write(Space::Io, at, &v.to_le_bytes()[..size]),
                // A DMA descriptor in memory, then its address.
                2 => {
                    let mut d = [0; 16];
                    d[..4].copy_from_slice(&(v as u32 & 0xffff_001f).to_be_bytes());
                    d[4..8].copy_from_slice(&i.take(4).to_be_bytes()[4..]);
                    d[8..].copy_from_slice(&(i.take(4) & 0x1ff_ffff).to_be_bytes());
                    m.bus_write(Space::Memory, 0x1000, &d);
                    m.bus_write(Space::Io, 0x514, &0u32.to_be_bytes());
                    m.bus_write(Space::Io, 0x518, &0x1000u32.to_be_bytes());
                }
                _ => m.bus_write(Space::Memory, v & 0xff_fff0, &v.to_le_bytes()),
            }
        }
    });
}

rqemu_fuzz::target!(
    vec![
        vec![1, 0, 0x19, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0],
        vec![
            2, 0, 0x0a, 0, 0x19, 0, 0, 0, 0, 0, 0x40, 0, 0, 0, 0, 0x20, 0, 0, 3, 0, 0, 0x10, 0, 0, 0, 0, 0, 0
        ],
        vec![2, 0, 0x12, 0, 0x20, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0x20, 0, 0],
    ],
    check
);
