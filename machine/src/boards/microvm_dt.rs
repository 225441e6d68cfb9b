//! The device tree of `microvm`, for guests without ACPI.

use super::microvm::{used_transports, IOAPIC2_BASE, IRQ_IOAPIC2};
use crate::devices::legacy::ioapic;
use crate::devices::virtio::mmio;
use crate::firmware::fdt::{flatten, Node};
use crate::machine::Machine;

/// Size that the tree may grow to.
pub const SIZE: u32 = 1 << 20;
/// First number by which nodes refer to each other.
const FIRST_HANDLE: u32 = 0x8000;
const SERIAL: (u64, u32) = (0x3f8, 4);
const RTC: (u64, u32) = (0x70, 8);
const ISA_SIZE: u64 = 8;

fn io_apic(name: &str, base: u64, handle: u32) -> Node {
    Node::new(format!("{name}@{base:x}"))
        .text("compatible", "intel,ce4100-ioapic")
        .bytes("interrupt-controller", &[])
        .cells("#interrupt-cells", &[2])
        .cells("#address-cells", &[2])
        .reg(base, 0x1000)
        .cells("phandle", &[handle])
        .cells("linux,phandle", &[handle])
}

fn interrupts(node: Node, parent: u32, irq: u32) -> Node {
    node.cells("interrupt-parent", &[parent]).cells("interrupts", &[irq, 0])
}

/// Describes the machine.
pub fn build(m: &Machine) -> Vec<u8> {
    let has = |class: &str| m.tree.by_class(class).is_some();
    let second = m.tree.iter().filter(|n| n.class.name == "ioapic").count() > 1;
    let mut root = Node::new("")
        .text("compatible", "linux,microvm")
        .cells("#address-cells", &[2])
        .cells("#size-cells", &[2]);
    let chosen = Node::new("chosen");
    root.child(if has("isa-serial") { chosen.late_text("stdout-path", "/serial@3f8") } else { chosen });
    if second {
        root.child(io_apic("ioapic2", IOAPIC2_BASE, FIRST_HANDLE));
    }
    let first = FIRST_HANDLE + u32::from(second);
    root.child(io_apic("ioapic1", ioapic::BASE, first));
    for t in used_transports(m) {
        let node = Node::new(format!("virtio_mmio@{:x}", t.base))
            .text("compatible", "virtio,mmio")
            .reg(u64::from(t.base), mmio::SIZE)
            .bytes("dma-coherent", &[]);
        root.child(match t.irq.checked_sub(IRQ_IOAPIC2) {
            Some(irq) if second => interrupts(node, FIRST_HANDLE, irq),
            _ => interrupts(node, first, t.irq),
        });
    }
    for (class, name, compatible, (base, irq)) in
        [("isa-serial", "serial", "ns16550", SERIAL), ("mc146818rtc", "rtc", "motorola,mc146818", RTC)]
    {
        if has(class) {
            let node =
                Node::new(format!("{name}@{base:x}")).text("compatible", compatible).reg(base, ISA_SIZE);
            root.child(interrupts(node, first, irq));
        }
    }
    flatten(&root, SIZE)
}
