//! Memory hotplug: the register block at port 0xa00, the DIMM slots and the event handler.
//!
//! Registers (24 bytes) of the selected slot: address (MRBL, MRBH), length (MRLL, MRLH), node (MPX), flags
//! (byte 0x14: MES enabled, MINS insert event, MRMV remove event, MEJ eject); writing selects a slot (MSEL) and
//! reports an OST event and status (MOEV, MOSC).

use super::aml::*;
use super::resource::*;

/// First port of the block.
pub const MEMHP_BASE: u16 = 0xa00;
const MEMHP_LEN: u8 = 0x18;
const REGION: &str = "\\_SB.PCI0.MHPD.HPMR";

/// `Notify` values.
const DEVICE_CHECK: u64 = 1;
const EJECT_REQUEST: u64 = 3;

/// Appends everything for `slots` slots (at most 256).
pub fn emit(slots: u16, out: &mut Vec<u8>) {
    let registers = (
        Name("_HID", Str("PNP0A06")),
        Name("_UID", Str("Memory hotplug resources")),
        Name("_CRS", Resources(Io(MEMHP_BASE, 0, MEMHP_LEN))),
        OpRegion("HPMR", Space::Io, MEMHP_BASE.into(), MEMHP_LEN.into()),
    );
    Device("\\_SB.PCI0.MHPD", registers).emit(out);
    Device("\\_SB.MHPC", With(|out: &mut Vec<u8>| container(slots, out))).emit(out);
    Method("\\_GPE._E03", 0, false, Call("\\_SB.MHPC.MSCN", ())).emit(out);
}

/// Contents of `\_SB.MHPC`.
fn container(slots: u16, out: &mut Vec<u8>) {
    let ranges = [("MRBL", 32), ("MRBH", 32), ("MRLL", 32), ("MRLH", 32), ("MPX", 32)];
    let flags = [("", 160), ("MES", 1), ("MINS", 1), ("MRMV", 1), ("MEJ", 1)];
    (
        Name("_HID", Str("PNP0A06")),
        Name("_UID", Str("DIMM devices")),
        Name("MDNR", u64::from(slots)),
        Field(REGION, Acc::DWord, false, Update::Preserve, &ranges),
        Field(REGION, Acc::Byte, false, Update::Zeros, &flags),
        Field(REGION, Acc::DWord, false, Update::Preserve, &[("MSEL", 32), ("MOEV", 32), ("MOSC", 32)]),
        Method("_STA", 0, false, (If(LEqual(N("MDNR"), 0u64), Return(0u64)), Return(0x0bu64))),
        Mutex("MLCK"),
    )
        .emit(out);
    scan(out);
    let present = If(LEqual(N("MES"), 1u64), Store(0x0fu64, Local(0)));
    let status =
        (Store(0u64, Local(0)), Acquire("MLCK"), select(), present, Release("MLCK"), Return(Local(0)));
    Method("MRST", 1, false, status).emit(out);
    resources(out);
    let node = (Acquire("MLCK"), select(), Store(N("MPX"), Local(0)), Release("MLCK"), Return(Local(0)));
    Method("MPXM", 1, false, node).emit(out);
    let ost =
        (Acquire("MLCK"), select(), Store(Arg(1), N("MOEV")), Store(Arg(2), N("MOSC")), Release("MLCK"));
    Method("MOST", 4, false, ost).emit(out);
    Method("MEJ0", 2, false, (Acquire("MLCK"), select(), Store(1u64, N("MEJ")), Release("MLCK"))).emit(out);
    for slot in 0..slots {
        dimm(slot, out);
    }
    let notify = |out: &mut Vec<u8>| {
        for slot in 0..slots {
            If(LEqual(Arg(0), u64::from(slot)), Notify(N(&name(slot)), Arg(1))).emit(out);
        }
    };
    Method("MTFY", 2, false, With(notify)).emit(out);
}

/// Selects the slot whose `_UID` string is argument 0.
fn select() -> impl Term {
    Store(ToInteger(Arg(0), NoTarget), N("MSEL"))
}

/// `MSCN`: looks for events in all slots.
fn scan(out: &mut Vec<u8>) {
    let slot = Local(0);
    let inserted = If(LEqual(N("MINS"), 1u64), (Call("MTFY", (slot, DEVICE_CHECK)), Store(1u64, N("MINS"))));
    let removed =
        Else(If(LEqual(N("MRMV"), 1u64), (Call("MTFY", (slot, EJECT_REQUEST)), Store(1u64, N("MRMV")))));
    let body = (
        If(LEqual(N("MDNR"), 0u64), Return(0u64)),
        Store(0u64, slot),
        Acquire("MLCK"),
        While(LLess(slot, N("MDNR")), (Store(slot, N("MSEL")), inserted, removed, Add(slot, 1u64, slot))),
        Release("MLCK"),
        Return(1u64),
    );
    Method("MSCN", 0, false, body).emit(out);
}

/// `MCRS`: the slot's address range, as a 32-bit descriptor when it lies below 4 GiB.
fn resources(out: &mut Vec<u8>) {
    // Byte offsets of minimum, maximum and length in the descriptors.
    let fields64 = |out: &mut Vec<u8>| {
        for (offset, name) in
            [(0x0e, "MINL"), (0x12, "MINH"), (0x26, "LENL"), (0x2a, "LENH"), (0x16, "MAXL"), (0x1a, "MAXH")]
        {
            CreateDWordField(N("MR64"), offset as u64, N(name)).emit(out);
        }
        for (from, to) in [("MRBH", "MINH"), ("MRBL", "MINL"), ("MRLH", "LENH"), ("MRLL", "LENL")] {
            Store(N(from), N(to)).emit(out);
        }
    };
    // Last address = start + length - 1 on two dwords.
    let last = (
        Add(N("MINL"), N("LENL"), N("MAXL")),
        Add(N("MINH"), N("LENH"), N("MAXH")),
        If(LLess(N("MAXL"), N("MINL")), Add(N("MAXH"), 1u64, N("MAXH"))),
        If(LLess(N("MAXL"), 1u64), Subtract(N("MAXH"), 1u64, N("MAXH"))),
        Subtract(N("MAXL"), 1u64, N("MAXL")),
    );
    let small = |out: &mut Vec<u8>| {
        Name("MR32", Resources(DWordWindow(Window::MemoryCacheable, 0, u32::MAX - 1))).emit(out);
        for (offset, name) in [(0x0a, "MIN"), (0x0e, "MAX"), (0x16, "LEN")] {
            CreateDWordField(N("MR32"), offset as u64, N(name)).emit(out);
        }
        for (from, to) in [("MINL", "MIN"), ("MAXL", "MAX"), ("LENL", "LEN")] {
            Store(N(from), N(to)).emit(out);
        }
        (Release("MLCK"), Return(N("MR32"))).emit(out);
    };
    let body = (
        Acquire("MLCK"),
        select(),
        Name("MR64", Resources(QWordWindow(Window::MemoryCacheable, 0, u64::MAX - 1))),
        With(fields64),
        last,
        If(LEqual(N("MAXH"), 0u64), With(small)),
        Release("MLCK"),
        Return(N("MR64")),
    );
    Method("MCRS", 1, true, body).emit(out);
}

/// Name of a slot's device.
fn name(slot: u16) -> String {
    format!("MP{slot:02X}")
}

/// One slot.
fn dimm(slot: u16, out: &mut Vec<u8>) {
    let uid = format!("0x{slot:02X}");
    let body = (
        Name("_UID", Str(&uid)),
        Name("_HID", EisaId("PNP0C80")),
        Method("_CRS", 0, false, Return(Call("MCRS", N("_UID")))),
        Method("_STA", 0, false, Return(Call("MRST", N("_UID")))),
        Method("_PXM", 0, false, Return(Call("MPXM", N("_UID")))),
        Method("_OST", 3, false, Call("MOST", (N("_UID"), Arg(0), Arg(1), Arg(2)))),
        Method("_EJ0", 1, false, Call("MEJ0", (N("_UID"), Arg(0)))),
    );
    Device(&name(slot), body).emit(out);
}
