//! The ISA bridge's node: PIRQ route registers and the devices on the ISA bus.

use super::aml::*;
use super::config::{FloppyType, IsaDevice};
use super::resource::*;

/// Offset of PIRQRCA in the bridge's configuration space; B to D follow.
const PIRQ_ROUTES: u64 = 0x60;

/// Appends the contents of the bridge's node called `name`.
pub fn bridge(name: &str, devices: &[IsaDevice], out: &mut Vec<u8>) {
    OpRegion("P40C", Space::PciConfig, PIRQ_ROUTES, 4).emit(out);
    let routes = [("PRQ0", 8), ("PRQ1", 8), ("PRQ2", 8), ("PRQ3", 8)];
    let region = format!("PCI0.{name}.P40C");
    Scope("\\_SB", Field(&region, Acc::Byte, false, Update::Preserve, &routes)).emit(out);
    emit_all(devices, out);
}

/// Appends the devices, newest first.
pub fn emit_all(devices: &[IsaDevice], out: &mut Vec<u8>) {
    devices.iter().rev().for_each(|device| emit(device, out));
}

/// Appends one ISA device.
fn emit(device: &IsaDevice, out: &mut Vec<u8>) {
    match device {
        IsaDevice::Rtc => Device(
            "RTC",
            (Name("_HID", EisaId("PNP0B00")), Name("_CRS", Resources((Io(0x70, 1, 8), IrqNoFlags(8))))),
        )
        .emit(out),
        IsaDevice::I8042 => i8042(out),
        IsaDevice::Serial { uid, iobase, irq } => {
            port_device(&format!("COM{uid}"), EisaId("PNP0501"), *uid, Io(*iobase, 0, 8), *irq, out);
        }
        IsaDevice::Parallel { uid, iobase, irq } => {
            port_device(&format!("LPT{uid}"), EisaId("PNP0400"), *uid, Io(*iobase, 8, 8), *irq, out);
        }
        IsaDevice::Floppy(drives) => floppy(drives, out),
        IsaDevice::AppleSmc { iobase } => apple_smc(*iobase, out),
        IsaDevice::Pvpanic { iobase } => pvpanic(*iobase, out),
    }
}

/// Serial or parallel port.
fn port_device(name: &str, hid: EisaId, uid: u8, ports: Io, irq: u8, out: &mut Vec<u8>) {
    let body = (
        Name("_HID", hid),
        Name("_UID", u64::from(uid)),
        Name("_STA", 0x0fu64),
        Name("_CRS", Resources((ports, IrqNoFlags(irq)))),
    );
    Device(name, body).emit(out);
}

/// Keyboard and mouse.
fn i8042(out: &mut Vec<u8>) {
    let keyboard = (
        Name("_HID", EisaId("PNP0303")),
        Name("_STA", 0x0fu64),
        Name("_CRS", Resources((Io(0x60, 1, 1), Io(0x64, 1, 1), IrqNoFlags(1)))),
    );
    let mouse =
        (Name("_HID", EisaId("PNP0F13")), Name("_STA", 0x0fu64), Name("_CRS", Resources(IrqNoFlags(12))));
    (Device("KBD", keyboard), Device("MOU", mouse)).emit(out);
}

/// Floppy controller with its drives.
fn floppy(drives: &[Option<FloppyType>; 2], out: &mut Vec<u8>) {
    // One dword each for drives 0 to 3, then "tape: never" (ACPI 6.4, 9.9.1).
    let mut enumerate = [0u8; 20];
    enumerate[16] = 2;
    for (i, drive) in drives.iter().enumerate() {
        enumerate[4 * i] = drive.is_some().into();
    }
    let units = |out: &mut Vec<u8>| {
        for (unit, name) in ["FLPA", "FLPB"].into_iter().enumerate() {
            if let Some(typ) = drives[unit] {
                let info = |out: &mut Vec<u8>| drive_info(unit as u64, typ, out);
                Device(name, (Name("_ADR", unit as u64), Name("_FDI", Package(16, With(info))))).emit(out);
            }
        }
    };
    let resources = (Io(0x3f2, 0, 4), Io(0x3f7, 0, 1), IrqNoFlags(6), Dma8(2));
    let body = (
        Name("_HID", EisaId("PNP0700")),
        Name("_CRS", Resources(resources)),
        With(units),
        Name("_FDE", Buffer(&enumerate)),
    );
    Device("FDC0", body).emit(out);
}

/// `_FDI` of a drive: what INT 13h function 8 returns, then the eleven bytes of its parameter table.
fn drive_info(unit: u64, typ: FloppyType, out: &mut Vec<u8>) {
    let (code, max_cylinder, max_sector) = match typ {
        FloppyType::Inch5M12 => (2, 0x52, 0x14),
        FloppyType::Inch3M144 => (4, 0x52, 0x18),
        FloppyType::Inch3M288 => (5, 0x4f, 0x30),
    };
    for value in [unit, code, max_cylinder, max_sector, 1] {
        int(out, value);
    }
    for value in [0xaf, 0x02, 0x25, 0x02, 0x12, 0x1b, 0xff, 0x6c, 0xf6, 0x0f, 0x08] {
        int(out, value);
    }
}

/// AppleSMC, as macOS looks for it.
fn apple_smc(iobase: u16, out: &mut Vec<u8>) {
    let body = (
        Name("_HID", EisaId("APP0001")),
        Name("_STA", 0x0bu64),
        Name("_CRS", Resources((Io(iobase, 1, 0x20), IrqNoFlags(6)))),
    );
    Device("SMC", body).emit(out);
}

/// pvpanic: one port, read for the supported events, written to raise one.
fn pvpanic(iobase: u16, out: &mut Vec<u8>) {
    let body = (
        Name("_HID", Str("QEMU0001")),
        Name("_CRS", Resources(Io(iobase, 1, 1))),
        OpRegion("PEOR", Space::Io, iobase.into(), 1),
        Field("PEOR", Acc::Byte, false, Update::Preserve, &[("PEPT", 8)]),
        Name("_STA", 0x0fu64),
        Method("RDPT", 0, false, (Store(N("PEPT"), Local(0)), Return(Local(0)))),
        Method("WRPT", 1, false, Store(Arg(0), N("PEPT"))),
    );
    Device("PEVT", body).emit(out);
}
