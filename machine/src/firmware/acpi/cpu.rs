//! CPU objects and the CPU hotplug interface at port 0xaf00.
//!
//! Register block (12 bytes): CSEL (dword 0, selects a CPU by index), flags (byte 4: CPEN enabled, CINS insert
//! event, CRMV remove event, CEJ0 eject, CEJF eject by firmware), CCMD (byte 5: 0 next CPU with an event,
//! 1 OST event, 2 OST status), CDAT (dword 8). `\_GPE._E02` scans the CPUs for events.

use super::aml::*;
use super::config::CpuEntry;
use super::dsdt::CPUHP_BASE;
use super::resource::*;

const CPLK: &str = "\\_SB.PCI0.PRES.CPLK";
const CSEL: N = N("\\_SB.PCI0.PRES.CSEL");
const CCMD: N = N("\\_SB.PCI0.PRES.CCMD");
const CDAT: N = N("\\_SB.PCI0.PRES.CDAT");
const CPEN: N = N("\\_SB.PCI0.PRES.CPEN");
const CINS: N = N("\\_SB.PCI0.PRES.CINS");
const CRMV: N = N("\\_SB.PCI0.PRES.CRMV");
const CEJ0: N = N("\\_SB.PCI0.PRES.CEJ0");

/// `Notify` values.
const DEVICE_CHECK: u64 = 1;
const EJECT_REQUEST: u64 = 3;

/// CPUs that one pass of the scan collects before it notifies.
const BATCH: u8 = 255;

/// Appends the container of the registers, the CPU container and the event handler.
pub fn emit(cpus: &[CpuEntry], out: &mut Vec<u8>) {
    Scope("_SB", (With(registers), Device("\\_SB.CPUS", With(|out: &mut Vec<u8>| container(cpus, out)))))
        .emit(out);
    Method("\\_GPE._E02", 0, false, Call("\\_SB.CPUS.CSCN", ())).emit(out);
}

/// The device that owns the register block.
fn registers(out: &mut Vec<u8>) {
    let flags =
        [("", 32), ("CPEN", 1), ("CINS", 1), ("CRMV", 1), ("CEJ0", 1), ("CEJF", 1), ("", 3), ("CCMD", 8)];
    let body = (
        Name("_HID", EisaId("PNP0A06")),
        Name("_UID", Str("CPU Hotplug resources")),
        Mutex("CPLK"),
        Name("_CRS", Resources(Io(CPUHP_BASE, 1, 12))),
        OpRegion("PRST", Space::Io, CPUHP_BASE.into(), 12),
        Field("PRST", Acc::Byte, false, Update::Zeros, &flags),
        Field("PRST", Acc::DWord, false, Update::Preserve, &[("CSEL", 32), ("", 32), ("CDAT", 32)]),
        Method("_INI", 0, true, Store(0u64, N("CSEL"))),
    );
    Device("\\_SB.PCI0.PRES", body).emit(out);
}

/// Contents of `\_SB.CPUS`.
fn container(cpus: &[CpuEntry], out: &mut Vec<u8>) {
    (Name("_HID", Str("ACPI0010")), Name("_CID", EisaId("PNP0A05"))).emit(out);
    let notify = |out: &mut Vec<u8>| {
        for index in 0..cpus.len() {
            If(LEqual(Arg(0), index as u64), Notify(N(&name(index)), Arg(1))).emit(out);
        }
    };
    Method("CTFY", 2, false, With(notify)).emit(out);
    let status = (
        Acquire(CPLK),
        Store(Arg(0), CSEL),
        Store(0u64, Local(0)),
        If(LEqual(CPEN, 1u64), Store(0x0fu64, Local(0))),
        Release(CPLK),
        Return(Local(0)),
    );
    Method("CSTA", 1, true, status).emit(out);
    Method("CEJ0", 1, true, (Acquire(CPLK), Store(Arg(0), CSEL), Store(1u64, CEJ0), Release(CPLK))).emit(out);
    scan(cpus.len(), out);
    let ost = (
        Acquire(CPLK),
        Store(Arg(0), CSEL),
        Store(1u64, CCMD),
        Store(Arg(1), CDAT),
        Store(2u64, CCMD),
        Store(Arg(2), CDAT),
        Release(CPLK),
    );
    Method("COST", 4, true, ost).emit(out);
    for (index, cpu) in cpus.iter().enumerate() {
        processor(index, cpu, out);
    }
}

/// `CSCN`: walks the CPUs with events. Inserted ones are collected and notified in batches, so that the
/// selector stays usable while a handler runs; removals are passed on at once.
fn scan(count: usize, out: &mut Vec<u8>) {
    let (more, uid, found, index, again) = (Local(0), Local(3), Local(1), Local(2), Local(4));
    let inserted =
        If(LEqual(CINS, 1u64), (Store(uid, Index(N("CNEW"), found)), Increment(found), Store(1u64, more)));
    let removed = Else(If(
        LEqual(CRMV, 1u64),
        (Call("CTFY", (uid, EJECT_REQUEST)), Store(1u64, CRMV), Store(1u64, more)),
    ));
    let collect = (
        Store(0u64, more),
        Store(uid, CSEL),
        Store(0u64, CCMD),
        If(LLess(CDAT, uid), Break),
        If(LEqual(found, u64::from(BATCH)), (Store(1u64, again), Break)),
        Store(CDAT, uid),
        inserted,
        removed,
        Increment(uid),
    );
    let announce = (
        Store(DerefOf(Index(N("CNEW"), index)), uid),
        Call("CTFY", (uid, DEVICE_CHECK)),
        Store(uid, Debug),
        Store(uid, CSEL),
        Store(1u64, CINS),
        Increment(index),
    );
    let pass = (
        Store(0u64, again),
        Store(1u64, more),
        Store(0u64, found),
        While(LAnd(LEqual(more, 1u64), LLess(uid, count as u64)), collect),
        Store(0u64, index),
        While(LLess(index, found), announce),
    );
    let body = (
        Acquire(CPLK),
        Name("CNEW", Package(BATCH, ())),
        Store(0u64, uid),
        Store(1u64, again),
        While(LEqual(again, 1u64), pass),
        Release(CPLK),
    );
    Method("CSCN", 0, true, body).emit(out);
}

/// One CPU. Those with an APIC id below 255 use the `Processor` object that old guests know.
fn processor(index: usize, cpu: &CpuEntry, out: &mut Vec<u8>) {
    let uid = index as u64;
    // Whatever is in MADT, the entry that `_MAT` gives out is for a CPU that runs by then.
    let madt = madt_entry(index, cpu.apic_id, true);
    let body = (
        Method("_STA", 0, true, Return(Call("CSTA", uid))),
        Name("_MAT", Buffer(&madt)),
        // The boot CPU stays.
        (index != 0).then_some(Method("_EJ0", 1, false, Call("CEJ0", uid))),
        Method("_OST", 3, true, Call("COST", (uid, Arg(0), Arg(1), Arg(2)))),
        cpu.node.map(|node| Name("_PXM", u64::from(node))),
    );
    if cpu.apic_id < 255 {
        Processor(&name(index), index as u8, body).emit(out);
    } else {
        Device(&name(index), (Name("_HID", Str("ACPI0007")), Name("_UID", uid), body)).emit(out);
    }
}

/// Name of a CPU object.
fn name(index: usize) -> String {
    format!("C{index:03X}")
}

/// The MADT entry of a CPU: local APIC, or local x2APIC when the id does not fit.
pub fn madt_entry(index: usize, apic_id: u32, enabled: bool) -> Vec<u8> {
    let flags = u32::from(enabled).to_le_bytes();
    let mut entry = Vec::with_capacity(16);
    if apic_id < 255 {
        entry.extend([0, 8, index as u8, apic_id as u8]);
        entry.extend(flags);
    } else {
        entry.extend([9, 16, 0, 0]);
        entry.extend(apic_id.to_le_bytes());
        entry.extend(flags);
        entry.extend((index as u32).to_le_bytes());
    }
    entry
}
