use super::*;
use crate::device::testing::machine;
use crate::device::{BusId, DeviceTree, Place};
use crate::devices::virtio::pci::PciDeviceProps;
use crate::devices::virtio::rng::VirtioRngProps;
use crate::machine::Machine;
use crate::memory::Space;
use crate::qom::{Classed, PropInput};

/// A machine with a root bus, a bridge on it, and a device in slot 2 behind the bridge.
fn set_up() -> (Machine, DevId, DevId) {
    let mut m = machine();
    let root = m.tree.add_bus("pci.0".into(), BusKind::Pci, None);
    let (mem, io) = (m.mem.system, m.mem.io);
    m.pci.add(root, mem, io, Vec::new(), |_, pin| usize::from(pin));
    let props = [("chassis_nr", PropInput::Str("3")), ("addr", PropInput::Str("2"))];
    let bridge =
        m.add_device(PciBridgeProps::CLASS, Some(root), Place::Peripheral("b".into()), &props).unwrap();
    let behind: BusId = m.tree.find_bus("b").unwrap().id;
    type Rng = PciDeviceProps<VirtioRngProps, 0>;
    let at = [("addr", PropInput::Str("2"))];
    let rng = m.add_device(Rng::CLASS, Some(behind), Place::Anon(0), &at).unwrap();
    m.reset_device(bridge);
    m.reset_device(rng);
    assert_ne!(behind, DeviceTree::SYSTEM);
    (m, bridge, rng)
}

fn dword(m: &mut Machine, dev: DevId, at: u16) -> u32 {
    m.pci_config_read(Some(dev), at, 4)
}

#[test]
fn configuration_space_is_qemus() {
    let (mut m, b, _) = set_up();
    let want = [
        0x0001_1b36,
        0x00b0_0000,
        0x0604_0000,
        0x0001_0000,
        4,
        0,
        0,
        0x00a0_0000,
        0,
        0x0001_0001,
        0,
        0,
        0,
        0x4c,
        0,
        0x100,
        0x0c,
        0,
        0x0320_4004,
        0x0180_4805,
    ];
    for (i, want) in want.into_iter().enumerate() {
        // The second register of the hot-plug capability shows the register that is selected.
        assert_eq!(dword(&mut m, b, i as u16 * 4), want, "register {:#x}", i * 4);
    }
    m.pci_config_write(Some(b), 0x1c, 4, u32::MAX);
    m.pci_config_write(Some(b), 0x3c, 4, u32::MAX);
    assert_eq!((dword(&mut m, b, 0x1c), dword(&mut m, b, 0x3c)), (0x00a0_f0f0, 0x0bff_01ff));
}

#[test]
fn windows_lead_to_the_secondary_bus() {
    let (mut m, b, rng) = set_up();
    // The device's registers at 0xe0000000, seen only once the window is open.
    m.pci_config_write(Some(rng), 0x20, 4, 0xe000_0000);
    m.pci_config_write(Some(rng), 4, 2, 2);
    assert_eq!(m.guest_read(Space::Memory, 0xe000_0012, 2), 0);
    m.pci_config_write(Some(b), 0x24, 4, 0xe001_e001);
    assert_eq!(m.guest_read(Space::Memory, 0xe000_0012, 2), 0, "memory is off");
    m.pci_config_write(Some(b), 4, 2, 2);
    assert_eq!(m.guest_read(Space::Memory, 0xe000_0012, 2), 1, "one queue");
    m.pci_config_write(Some(b), 0x24, 4, 0xd001_e001);
    assert_eq!(m.guest_read(Space::Memory, 0xe000_0012, 2), 0, "limit below base");
}

#[test]
fn the_hotplug_controller_switches_slots() {
    let (mut m, b, rng) = set_up();
    m.pci_config_write(Some(b), 0x10, 4, 0xe100_0000);
    m.pci_config_write(Some(b), 4, 2, 2);
    let base = 0xe100_0000;
    let read = |m: &mut Machine, at: u64| m.guest_read(Space::Memory, base + at, 4);
    assert_eq!(read(&mut m, 0x0c), 0xe001_011f);
    assert_eq!((read(&mut m, 0x24), read(&mut m, 0x28)), (0x7f00_0d0f, 0x7f00_0006));
    let command = |m: &mut Machine, v: u64| {
        m.guest_write(Space::Memory, base + 0x14, 2, v);
        m.guest_read(Space::Memory, base + 0x16, 2)
    };
    assert_eq!(command(&mut m, 0x13d), 0);
    assert_eq!((read(&mut m, 0x24), read(&mut m, 0x20)), (0x7f00_0d3d, 0x0001_000f));
    // What is enabled cannot be only powered; speed 0 is the only one; some slot is on; unknown.
    for (code, status) in [(0x201, 4), (0x40, 0), (0x48, 4), (0xff, 4)] {
        assert_eq!(command(&mut m, code), status, "command {code:#x}");
    }
    assert_eq!(m.pci_config_read(Some(b), 0x42, 1), 0);
    // Off, with the power light off: the device is released.
    assert_eq!(command(&mut m, 0x23f), 0);
    assert!(m.tree.get(rng).is_none());
    assert_eq!(read(&mut m, 0x28), 0x7f00_0d3f);
}

#[test]
fn bad_properties_are_refused() {
    let mut m = machine();
    let root = m.tree.add_bus("pci.0".into(), BusKind::Pci, None);
    let (mem, io) = (m.mem.system, m.mem.io);
    m.pci.add(root, mem, io, Vec::new(), |_, pin| usize::from(pin));
    let mut refused = |props: &[(&str, PropInput<'_>)]| {
        m.add_device(PciBridgeProps::CLASS, Some(root), Place::Anon(0), props).unwrap_err().desc
    };
    let e = refused(&[]);
    assert!(e.starts_with("Bridge chassis not specified."), "{e}");
    let s = PropInput::Str;
    let e = refused(&[("chassis_nr", s("1")), ("pref32-reserve", s("1M")), ("pref64-reserve", s("1M"))]);
    assert_eq!(e, "PCI resource reserve cap: PREF32 and PREF64 conflict");
}
