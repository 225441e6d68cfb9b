//! Commands whose reply is text for people (`x-query-…`); HMP prints the same.

use crate::monitors::MonitorCx;
use crate::qapi_struct;
use crate::types::Empty;
use rqemu_machine::accel::IrqChip;
use rqemu_machine::{qerr, QResult};
use std::fmt::Write;

qapi_struct! {
    /// Text for people.
    pub struct HumanReadableText {
        /// The text.
        human_readable_text: String,
    }
}

fn text(human_readable_text: String) -> QResult<HumanReadableText> {
    Ok(HumanReadableText { human_readable_text })
}

pub(crate) fn irq(cx: &mut MonitorCx<'_, '_>, _: Empty) -> QResult<HumanReadableText> {
    let in_kernel = cx.m.accel.irqchip() == IrqChip::Kernel;
    let mut out = String::new();
    let pics = cx.m.tree.iter().filter(|d| matches!(d.class.name, "isa-i8259" | "kvm-i8259")).count();
    let ioapics = cx.m.tree.iter().filter(|d| matches!(d.class.name, "ioapic" | "kvm-ioapic")).count();
    // Controllers in the kernel do not count.
    if in_kernel && pics + ioapics > 0 {
        out.push_str("IRQ statistics for kvm-ioapic:\nIRQ statistics for kvm-i8259:\n");
    } else if pics + ioapics > 0 {
        return Err(qerr!("interrupt statistics of controllers outside the kernel are not supported"));
    }
    text(out)
}

pub(crate) fn jit(_: &mut MonitorCx<'_, '_>, _: Empty) -> QResult<HumanReadableText> {
    Err(qerr!("JIT information is only available with accel=tcg"))
}

pub(crate) fn opcount(_: &mut MonitorCx<'_, '_>, _: Empty) -> QResult<HumanReadableText> {
    Err(qerr!("Opcode count information is only available with accel=tcg"))
}

pub(crate) fn profile(_: &mut MonitorCx<'_, '_>, _: Empty) -> QResult<HumanReadableText> {
    Err(qerr!("Internal profiler not compiled"))
}

/// No device uses RDMA.
pub(crate) fn rdma(_: &mut MonitorCx<'_, '_>, _: Empty) -> QResult<HumanReadableText> {
    text(String::new())
}

pub(crate) fn usb(cx: &mut MonitorCx<'_, '_>, _: Empty) -> QResult<HumanReadableText> {
    match cx.m.tree.buses().any(|b| b.type_name == "usb-bus") {
        false => Err(qerr!("USB support not enabled")),
        true => text(String::new()),
    }
}

pub(crate) fn numa(cx: &mut MonitorCx<'_, '_>, _: Empty) -> QResult<HumanReadableText> {
    let Some(numa) = &cx.m.numa else { return text("0 nodes\n".into()) };
    let mut out = format!("{} nodes\n", numa.nodes.len());
    let online = cx.m.run.vcpus.tids().len();
    for (i, node) in numa.nodes.iter().enumerate() {
        let _ = write!(out, "node {i} cpus:");
        for (cpu, at) in numa.cpu_nodes.iter().enumerate().take(online) {
            if *at as usize == i {
                let _ = write!(out, " {cpu}");
            }
        }
        let _ = write!(out, "\nnode {i} size: {} MB\nnode {i} plugged: 0 MB\n", node.size >> 20);
    }
    text(out)
}

pub(crate) fn ramblock(cx: &mut MonitorCx<'_, '_>, _: Empty) -> QResult<HumanReadableText> {
    let mut out =
        format!("{:>24} {:>8}  {:>18} {:>18} {:>18}\n", "Block Name", "PSize", "Offset", "Used", "Total");
    let mut offset = 0;
    for ram in &cx.m.rams {
        let (name, len) = (ram.name(), ram.len());
        let _ = writeln!(out, "{name:>24} {:>8}  0x{offset:016x} 0x{len:016x} 0x{len:016x}", "4 KiB");
        offset += len;
    }
    text(out)
}
