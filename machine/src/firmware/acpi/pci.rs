//! PCI parts of the DSDT: interrupt links and routing, the buses with their slots, and ACPI PCI hotplug.
//!
//! Hotplug registers at 0xae00: PCIU (dword 0, slots with a new device), PCID (dword 4, slots to be ejected),
//! B0EJ (dword 8, write a slot bit to eject), BNUM (dword 0x10, selects a bus by its BSEL number), PIDX
//! (dword 0x14, write a slot bit, read the device's `acpi-index`). `\_GPE._E01` walks the buses.
//!
//! Which functions get a node: every function 0 that is present; other functions only if they bring
//! something of their own (VGA, bridge); every empty slot of a bus with hotplug. A bridge that was plugged at run
//! time counts as any other device: the bus behind it has no node (QEMU calls its `PCNT` all the same, which does
//! not exist; that call is left out here). BSEL numbers go down the
//! tree before they go sideways, and from the newest bridge of a bus to the oldest.

use super::aml::*;
use super::config::{AcpiConfig, PciBus, PciFunction, PciKind};
use super::dsdt::PCIHP_BASE;
use super::isa;
use super::resource::*;

/// `_DSM` interface of "device labeling" (PCI firmware specification 3.1, 4.6.7).
const LABEL_DSM: &str = "e5c937d0-3553-4d7a-9117-ea4d19c3434d";
/// Its function that returns a device's index and name.
const LABEL_FUNCTION: u64 = 7;

/// Appends the hotplug registers and the methods that use them.
pub fn hotplug_methods(out: &mut Vec<u8>) {
    let base = u64::from(PCIHP_BASE);
    let eject = (
        Acquire("BLCK"),
        Store(Arg(0), N("BNUM")),
        Store(ShiftLeft(1u64, Arg(1), NoTarget), N("B0EJ")),
        Release("BLCK"),
        Return(0u64),
    );
    let index = (
        Acquire("BLCK"),
        Store(Arg(0), N("BNUM")),
        Store(ShiftLeft(1u64, Arg(1), NoTarget), N("PIDX")),
        Store(N("PIDX"), Local(0)),
        Release("BLCK"),
        Return(Local(0)),
    );
    Scope(
        "_SB.PCI0",
        (
            OpRegion("PCST", Space::Io, base, 8),
            Field("PCST", Acc::DWord, false, Update::Zeros, &[("PCIU", 32), ("PCID", 32)]),
            OpRegion("SEJ", Space::Io, base + 8, 4),
            Field("SEJ", Acc::DWord, false, Update::Zeros, &[("B0EJ", 32)]),
            OpRegion("BNMR", Space::Io, base + 0x10, 8),
            Field("BNMR", Acc::DWord, false, Update::Zeros, &[("BNUM", 32), ("PIDX", 32)]),
            Mutex("BLCK"),
            Method("PCEJ", 2, false, eject),
            Method("AIDX", 2, false, index),
            With(label_method),
        ),
    )
    .emit(out);
}

/// `PDSM (uuid, revision, function, arguments, {bsel, slot})`: the `_DSM` of every slot.
fn label_method(out: &mut Vec<u8>) {
    let bus = || DerefOf(Index(Arg(4), 0u64));
    let slot = || DerefOf(Index(Arg(4), 1u64));
    let lookup = || Store(Call("AIDX", (bus(), slot())), Local(2));
    let none = || LEqual(Local(2), 0u64);
    let absent = || LEqual(Local(2), 0xffff_ffffu64);
    let query = (
        Store(Buffer(&[0]), Local(0)),
        Store(0u64, Local(1)),
        If(LNot(LEqual(Arg(0), Uuid(LABEL_DSM))), Return(Local(0))),
        If(LLess(Arg(1), 2u64), Return(Local(0))),
        lookup(),
        If(
            LNot(Or(none(), absent(), NoTarget)),
            (Or(Local(1), 1u64, Local(1)), Or(Local(1), ShiftLeft(1u64, LABEL_FUNCTION, NoTarget), Local(1))),
        ),
        Store(Local(1), Index(Local(0), 0u64)),
        Return(Local(0)),
    );
    let label = (
        lookup(),
        Store(Package(2, ()), Local(0)),
        If(
            LNot(LOr(none(), absent())),
            (Store(Local(2), Index(Local(0), 0u64)), Store(Str(""), Index(Local(0), 1u64))),
        ),
        Return(Local(0)),
    );
    Method("PDSM", 5, true, (If(LEqual(Arg(2), 0u64), query), If(LEqual(Arg(2), LABEL_FUNCTION), label)))
        .emit(out);
}

/// `\_GPE._E01`: hotplug event.
pub fn hotplug_event(out: &mut Vec<u8>) {
    let lock = "\\_SB.PCI0.BLCK";
    let handler = (Acquire(lock), Call("\\_SB.PCI0.PCNT", ()), Release(lock));
    Scope("_GPE", Method("_E01", 0, false, handler)).emit(out);
}

/// Appends `_PRT` of the root bus and the interrupt link devices.
pub fn interrupt_routing(out: &mut Vec<u8>) {
    let links = |out: &mut Vec<u8>| {
        for (uid, (link, register)) in
            [("LNKA", "PRQ0"), ("LNKB", "PRQ1"), ("LNKC", "PRQ2"), ("LNKD", "PRQ3")].into_iter().enumerate()
        {
            link_device(link, uid as u64, register, out);
        }
        fixed_link(out);
    };
    Scope("_SB", (Scope("PCI0", With(routing_table)), With(link_helpers), With(links))).emit(out);
}

/// `_PRT`: pin p of slot s goes to link (s + p - 1) mod 4, except that the PM function (slot 1, pin A) has
/// the link that is fixed to the SCI.
fn routing_table(out: &mut Vec<u8>) {
    let (table, n, slot, link, entry) = (Local(0), Local(1), Local(2), Local(3), Local(4));
    let to = |name| Store(Package(4, (0u64, 0u64, N(name), 0u64)), entry);
    let body = (
        ShiftRightTo(n, slot),
        Store(And(Add(n, slot, NoTarget), 3u64, NoTarget), link),
        If(LEqual(link, 0u64), to("LNKD")),
        If(LEqual(link, 1u64), (If(LEqual(n, 4u64), to("LNKS")), Else(to("LNKA")))),
        If(LEqual(link, 2u64), to("LNKB")),
        If(LEqual(link, 3u64), to("LNKC")),
        Store(Or(ShiftLeft(slot, 16u64, NoTarget), 0xffffu64, NoTarget), Index(entry, 0u64)),
        Store(And(n, 3u64, NoTarget), Index(entry, 1u64)),
        Store(entry, Index(table, n)),
        Increment(n),
    );
    Method(
        "_PRT",
        0,
        false,
        (Store(Package(128, ()), table), Store(0u64, n), While(LLess(n, 128u64), body), Return(table)),
    )
    .emit(out);
}

/// `slot = n >> 2`.
struct ShiftRightTo(Local, Local);

impl Term for ShiftRightTo {
    fn emit(&self, out: &mut Vec<u8>) {
        Store(ShiftRight(self.0, 2u64, NoTarget), self.1).emit(out);
    }
}

/// Offset of the interrupt number in an extended interrupt descriptor.
const IRQ_OFFSET: u64 = 5;
/// Bit of a PIRQ route register that switches the link off.
const PIRQ_OFF: u64 = 0x80;

/// `IQST` (status from a route register) and `IQCR` (resources from a route register).
fn link_helpers(out: &mut Vec<u8>) {
    let status = (If(And(PIRQ_OFF, Arg(0), NoTarget), Return(0x09u64)), Return(0x0bu64));
    Method("IQST", 1, false, status).emit(out);
    let current = (
        Name("PRR0", Resources(Interrupts(Interrupts::LEVEL_SHARED, &[0]))),
        CreateDWordField(N("PRR0"), IRQ_OFFSET, N("PRRI")),
        If(LLess(Arg(0), PIRQ_OFF), Store(Arg(0), N("PRRI"))),
        Return(N("PRR0")),
    );
    Method("IQCR", 1, true, current).emit(out);
}

/// A link whose line is in a PIRQ route register of the ISA bridge.
fn link_device(name: &str, uid: u64, register: &str, out: &mut Vec<u8>) {
    let set = (CreateDWordField(Arg(0), IRQ_OFFSET, N("PRRI")), Store(N("PRRI"), N(register)));
    let body = (
        Name("_HID", EisaId("PNP0C0F")),
        Name("_UID", uid),
        Name("_PRS", Resources(Interrupts(Interrupts::LEVEL_SHARED, &[5, 10, 11]))),
        Method("_STA", 0, false, Return(Call("IQST", N(register)))),
        Method("_DIS", 0, false, Or(N(register), PIRQ_OFF, N(register))),
        Method("_CRS", 0, false, Return(Call("IQCR", N(register)))),
        Method("_SRS", 1, false, set),
    );
    Device(name, body).emit(out);
}

/// `LNKS`: the link that is wired to the SCI.
fn fixed_link(out: &mut Vec<u8>) {
    let body = (
        Name("_HID", EisaId("PNP0C0F")),
        Name("_UID", 4u64),
        Name("_PRS", Resources(Interrupts(Interrupts::LEVEL_SHARED, &[9]))),
        Method("_STA", 0, false, Return(0x0bu64)),
        Method("_DIS", 0, false, ()),
        Method("_CRS", 0, false, Return(N("_PRS"))),
        Method("_SRS", 1, false, ()),
    );
    Device("LNKS", body).emit(out);
}

/// Appends the contents of the root bus.
pub fn root_bus(cfg: &AcpiConfig, out: &mut Vec<u8>) {
    let mut next = 0;
    let tree = BusNode::number(&cfg.pci, cfg, cfg.pcihp_root, &mut next);
    emit_bus(&tree, cfg, out);
    if cfg.pcihp() {
        count_method(&tree, out);
    }
}

/// A bus with its hotplug number.
struct BusNode<'a> {
    bus: &'a PciBus,
    bsel: Option<u64>,
    /// Bridges with the node of the bus behind each, newest first.
    children: Vec<(u8, BusNode<'a>)>,
}

impl<'a> BusNode<'a> {
    /// Numbers the buses of a tree; see the module comment for the order.
    fn number(bus: &'a PciBus, cfg: &AcpiConfig, hotplug: bool, next: &mut u64) -> Self {
        let bsel = hotplug.then(|| {
            *next += 1;
            *next - 1
        });
        let mut children = Vec::new();
        for function in bus.functions.iter().rev() {
            if let (PciKind::Bridge(behind), false) = (&function.kind, function.hotplugged) {
                children.push((function.devfn, Self::number(behind, cfg, cfg.pcihp_bridges, next)));
            }
        }
        Self { bus, bsel, children }
    }

    /// The bus behind the bridge at `devfn`.
    fn child(&self, devfn: u8) -> Option<&BusNode<'a>> {
        self.children.iter().find(|(at, _)| *at == devfn).map(|(_, node)| node)
    }

    /// The function at `devfn`.
    fn function(&self, devfn: u8) -> Option<&'a PciFunction> {
        self.bus.functions.iter().find(|f| f.devfn == devfn)
    }
}

/// Name of a function's node.
fn slot_name(devfn: u8) -> String {
    format!("S{devfn:02X}")
}

/// Appends BSEL, the functions and slots, and the notification method of a bus.
fn emit_bus(node: &BusNode, cfg: &AcpiConfig, out: &mut Vec<u8>) {
    if let Some(bsel) = node.bsel {
        Name("BSEL", bsel).emit(out);
    }
    let mut notify = Vec::new();
    for devfn in 0..=255u8 {
        let function = node.function(devfn);
        let described = match function {
            Some(f) => devfn & 7 == 0 || f.kind == PciKind::Vga || f.cold_bridge(),
            None => node.bsel.is_some() && devfn & 7 == 0,
        };
        if !described {
            continue;
        }
        let pluggable = node.bsel.is_some() && function.is_none_or(|f| f.hotpluggable && !f.cold_bridge());
        let body = |out: &mut Vec<u8>| slot(node, devfn, function, pluggable, cfg, out);
        Device(&slot_name(devfn), With(body)).emit(out);
        if pluggable {
            notify.push(devfn);
        }
    }
    if node.bsel.is_some() {
        let body = |out: &mut Vec<u8>| {
            for devfn in &notify {
                // The event is for the slot, so its function 0 hears of it for every function.
                let bit = 1u64 << (devfn >> 3);
                If(And(Arg(0), bit, NoTarget), Notify(N(&slot_name(devfn & !7)), Arg(1))).emit(out);
            }
        };
        Method("DVNT", 2, false, With(body)).emit(out);
    }
}

/// Appends the contents of one slot's or function's node.
fn slot(
    node: &BusNode,
    devfn: u8,
    function: Option<&PciFunction>,
    pluggable: bool,
    cfg: &AcpiConfig,
    out: &mut Vec<u8>,
) {
    let (slot, func) = (u64::from(devfn >> 3), u64::from(devfn & 7));
    Name("_ADR", slot << 16 | func).emit(out);
    if node.bsel.is_some() {
        let dsm = (
            Store(Package(2, (N("BSEL"), N("ASUN"))), Local(0)),
            Return(Call("PDSM", (Arg(0), Arg(1), Arg(2), Arg(3), Local(0)))),
        );
        (Name("ASUN", slot), Method("_DSM", 4, true, dsm)).emit(out);
    }
    match function.map(|f| &f.kind) {
        Some(PciKind::Vga) => {
            for state in ["_S1D", "_S2D", "_S3D"] {
                Method(state, 0, false, Return(0u64)).emit(out);
            }
        }
        Some(PciKind::IsaBridge) => isa::bridge(&slot_name(devfn), &cfg.isa, out),
        Some(PciKind::Bridge(_)) if cfg.pcihp_bridges => {
            if let Some(child) = node.child(devfn) {
                emit_bus(child, cfg, out);
                count_method(child, out);
            }
        }
        _ => {}
    }
    if pluggable {
        (Name("_SUN", slot), Method("_EJ0", 1, false, Call("PCEJ", (N("BSEL"), N("_SUN"))))).emit(out);
    }
}

/// `PCNT`: reads the events of this bus, then asks the buses below.
fn count_method(node: &BusNode, out: &mut Vec<u8>) {
    let body = |out: &mut Vec<u8>| {
        if let Some(bsel) = node.bsel {
            Store(bsel, N("BNUM")).emit(out);
            Call("DVNT", (N("PCIU"), 1u64)).emit(out);
            Call("DVNT", (N("PCID"), 3u64)).emit(out);
        }
        for (devfn, child) in &node.children {
            if child.bsel.is_some() {
                Call(&format!("^{}.PCNT", slot_name(*devfn)), ()).emit(out);
            }
        }
    };
    Method("PCNT", 0, false, With(body)).emit(out);
}
