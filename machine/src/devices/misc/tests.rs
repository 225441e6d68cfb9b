use crate::device::testing::machine;
use crate::device::BusKind;
use crate::devices::chipset::fw_cfg::{self, FwCfg};
use crate::machine::{Cause, Machine};
use crate::memory::Space;
use crate::qom::PropInput::Str;
use crate::run::{PanicAction, RunState, ShutdownAction};

use super::vmcoreinfo::Note;
use super::*;

fn isa() -> Machine {
    let mut m = machine();
    m.tree.add_bus("isa.0".into(), BusKind::Isa, None);
    m
}

#[test]
fn debugcon_prints() {
    let mut m = isa();
    m.add_test_char("c");
    let class = crate::qom::class_by_name("isa-debugcon").unwrap();
    let place = m.tree.next_anon();
    let e = m.add_device(class, None, place, &[]).unwrap_err();
    assert_eq!(e.desc, "Can't create debugcon device, empty char device");
    m.add::<debugcon::DebugconProps>(&[("chardev", Str("c")), ("iobase", Str("0x402"))]);
    assert_eq!(m.inb(0x402), 0xe9);
    for b in b"hi" {
        m.outb(0x402, *b);
    }
    m.test_char("c", |c| assert_eq!(c.out, b"hi"));
}

#[test]
fn debug_exit_status() {
    let mut m = isa();
    m.add::<debug_exit::DebugExitProps>(&[("iobase", Str("0xf4")), ("iosize", Str("4"))]);
    assert_eq!(m.guest_read(Space::Io, 0xf4, 4), 0);
    m.guest_write(Space::Io, 0xf4, 4, 0x10);
    assert_eq!(m.run.requests.exit, Some(33));
    // Odd sizes and places are accepted, as QEMU does, and do no harm.
    m.add::<debug_exit::DebugExitProps>(&[("iobase", Str("0xffffffff")), ("iosize", Str("0xffffffff"))]);
    m.add::<debug_exit::DebugExitProps>(&[("iosize", Str("0"))]);
    assert_eq!(m.inb(0x501), 0xff);
}

#[test]
fn port92_reset_and_a20() {
    let mut m = isa();
    let id = m.add::<port92::Port92Props>(&[]);
    let a20 = m.with::<port92::Port92, _>(id, |p, _| p.a20_line()).unwrap();
    m.outb(0x92, 2);
    assert!(m.irqs.level(a20) && m.run.requests.reset.is_none());
    assert_eq!(m.inb(0x92), 2);
    m.outb(0x92, 1);
    assert!(!m.irqs.level(a20));
    assert_eq!(m.run.requests.reset.take(), Some(Cause::GuestReset));
    m.outb(0x92, 1);
    assert_eq!(m.run.requests.reset, None, "only the edge counts");
}

#[test]
fn stub_ports_read_ones() {
    let mut m = isa();
    ports::create(&mut m);
    m.settle();
    m.outb(0x80, 5);
    assert_eq!((m.inb(0x80), m.inb(0xf0)), (0xff, 0xff));
}

fn panic_with(panic: PanicAction, shutdown: ShutdownAction) -> (Machine, String) {
    let mut m = isa();
    m.run.actions.panic = panic;
    m.run.actions.shutdown = shutdown;
    m.add::<pvpanic::PvpanicProps>(&[]);
    assert_eq!(m.inb(0x505), 3);
    m.outb(0x505, 1);
    let e = m.events.pop_front().unwrap();
    assert_eq!(e.name, "GUEST_PANICKED");
    let action = e.data.unwrap()["action"].as_str().unwrap().to_string();
    (m, action)
}

#[test]
fn panic_actions() {
    use {PanicAction as P, ShutdownAction as S};
    let (m, a) = panic_with(P::Shutdown, S::Poweroff);
    assert_eq!((a.as_str(), m.run.requests.shutdown), ("poweroff", Some(Cause::GuestPanic)));
    let (m, a) = panic_with(P::Shutdown, S::Pause);
    assert_eq!((a.as_str(), m.run.requests.shutdown), ("pause", None));
    assert_eq!(m.run.requests.stop, Some(RunState::GuestPanicked));
    let (m, _) = panic_with(P::ExitFailure, S::Poweroff);
    assert_eq!(m.run.exit_code, 1);
    let (mut m, a) = panic_with(P::None, S::Poweroff);
    assert_eq!((a.as_str(), m.run.requests.stop), ("run", None));
    m.outb(0x505, 2);
    assert_eq!(m.events.pop_front().map(|e| e.name), Some("GUEST_CRASHLOADED"));
    m.outb(0x505, 0x80);
    assert!(m.events.is_empty());
}

#[test]
fn files_in_fw_cfg() {
    let mut m = isa();
    let fw = fw_cfg::create(&mut m, &[]).unwrap();
    m.add::<pvpanic::PvpanicProps>(&[("ioport", Str("0x606"))]);
    let guid = "324e6eaf-d1d1-4bf6-bf41-b9bb6c91fb87";
    let gen = m.add::<vmgenid::VmgenidProps>(&[("guid", Str(guid))]);
    m.add::<vmcoreinfo::VmcoreinfoProps>(&[]);
    let file = |m: &mut Machine, name: &str| {
        m.with::<FwCfg, _>(fw, |f, cx| f.file_contents(cx.m, name)).unwrap().unwrap().to_vec()
    };
    assert_eq!(file(&mut m, "etc/pvpanic-port"), [6, 6]);
    let blob = file(&mut m, "etc/vmgenid_guid");
    assert_eq!(blob[40..48], [0xaf, 0x6e, 0x4e, 0x32, 0xd1, 0xd1, 0xf6, 0x4b]);
    assert_eq!(m.with::<vmgenid::Vmgenid, _>(gen, |v, _| v.guid()).as_deref(), Some(guid));
    assert_eq!(file(&mut m, "etc/vmcoreinfo")[..3], [1, 0, 0]);
    let class = crate::qom::class_by_name("vmgenid").unwrap();
    let place = m.tree.next_anon();
    let e = m.add_device(class, None, place, &[]).unwrap_err();
    assert_eq!(e.desc, "at most one vmgenid device is permitted");
}

#[test]
fn guest_tells_addresses() {
    let mut m = isa();
    let ram = m.new_ram("ram", 1 << 16, false, None).unwrap();
    let system = m.mem.system;
    m.mem.map(system, ram, 0, 0);
    fw_cfg::create(&mut m, &[]).unwrap();
    let gen = m.add::<vmgenid::VmgenidProps>(&[]);
    let core = m.add::<vmcoreinfo::VmcoreinfoProps>(&[]);
    m.reset_devices();
    let mut write = |key: u32, data: &[u8]| {
        let mut cmd = (key << 16 | 0x18).to_be_bytes().to_vec();
        cmd.extend((data.len() as u32).to_be_bytes());
        cmd.extend(0x2000u64.to_be_bytes());
        m.flat().mem.write(0x1000, &cmd).unwrap();
        m.flat().mem.write(0x2000, data).unwrap();
        m.guest_write(Space::Io, 0x518, 4, u64::from(0x1000u32.swap_bytes()));
        assert_eq!(m.guest_read(Space::Memory, 0x1000, 4), 0);
    };
    // Sorted: etc/vmcoreinfo, etc/vmgenid_addr, etc/vmgenid_guid.
    write(0x20, &[1, 0, 1, 0, 8, 0, 0, 0, 0, 0x30, 0, 0, 0, 0, 0, 0]);
    write(0x21, &0x4000u64.to_le_bytes());
    let note = m.with::<vmcoreinfo::Vmcoreinfo, _>(core, |v, _| v.note()).unwrap();
    assert_eq!(note, Some(Note { host_format: 1, guest_format: 1, size: 8, addr: 0x3000 }));
    assert_eq!(m.with::<vmgenid::Vmgenid, _>(gen, |v, cx| v.update_guest(cx)), Some(true));
    assert_ne!(m.guest_read(Space::Memory, 0x4028, 8), 0);
}
