//! Short `info` commands.

use crate::commands::{chardev as chardevs, cpu, machine, memory, pci as pcis};
use crate::hmp::{Args, HmpCx};
use crate::types::Empty;
use crate::version;
use rqemu_machine::run::RunState;
use std::fmt::Write;

pub(super) fn status(h: &mut HmpCx<'_, '_, '_>, _: &Args) {
    let state = h.cx.m.run.state();
    match state {
        RunState::Running => h.line("VM status: running"),
        RunState::Paused => h.line("VM status: paused"),
        other => h.line(format!("VM status: paused ({})", other.as_str())),
    }
}

pub(super) fn version(h: &mut HmpCx<'_, '_, '_>, _: &Args) {
    h.line(format!("{}{}", version::QEMU.text(), version::PACKAGE));
}

pub(super) fn name(h: &mut HmpCx<'_, '_, '_>, _: &Args) {
    if let Some(name) = h.cx.m.info.name.clone() {
        h.line(name);
    }
}

pub(super) fn uuid(h: &mut HmpCx<'_, '_, '_>, _: &Args) {
    let text = machine::uuid_text(h.cx);
    h.line(text);
}

pub(super) fn kvm(h: &mut HmpCx<'_, '_, '_>, _: &Args) {
    if let Ok(info) = machine::query_kvm(h.cx, Empty) {
        let text = match info {
            machine::KvmInfo { present: false, .. } => "not compiled",
            machine::KvmInfo { enabled: true, .. } => "enabled",
            _ => "disabled",
        };
        h.line(format!("kvm support: {text}"));
        let helped = rqemu_machine::accel::kvm::helped();
        if helped != 0 {
            h.line(format!("instructions executed for it: {helped}"));
        }
    }
}

pub(super) fn cpus(h: &mut HmpCx<'_, '_, '_>, _: &Args) {
    for (i, tid) in cpu::threads(h.cx).into_iter().enumerate() {
        let mark = if i == h.cx.mon.cpu { '*' } else { ' ' };
        h.line(format!("{mark} CPU #{i}: thread_id={tid}"));
    }
}

pub(super) fn chardev(h: &mut HmpCx<'_, '_, '_>, _: &Args) {
    for c in chardevs::query_chardev(h.cx, Empty).unwrap_or_default() {
        h.line(format!("{}: filename={}", c.label, c.filename));
    }
}

pub(super) fn history(h: &mut HmpCx<'_, '_, '_>, _: &Args) {
    for (i, line) in h.cx.mon.history.clone().iter().enumerate() {
        h.line(format!("{i}: '{line}'"));
    }
}

pub(super) fn memory_size_summary(h: &mut HmpCx<'_, '_, '_>, _: &Args) {
    if let Ok(info) = memory::query_memory_size_summary(h.cx, Empty) {
        h.line(format!("base memory: {}", info.base_memory));
        if let Some(plugged) = info.plugged_memory {
            h.line(format!("plugged memory: {plugged}"));
        }
    }
}

pub(super) fn hotpluggable_cpus(h: &mut HmpCx<'_, '_, '_>, _: &Args) {
    let result = cpu::query_hotpluggable_cpus(h.cx, Empty);
    let Some(list) = h.report(result) else { return };
    h.line("Hotpluggable CPUs:");
    for c in list {
        h.line(format!("  type: \"{}\"", c.type_));
        h.line(format!("  vcpus_count: \"{}\"", c.vcpus_count));
        if let Some(path) = c.qom_path {
            h.line(format!("  qom_path: \"{path}\""));
        }
        h.line("  CPUInstance Properties:");
        let p = c.props;
        let ids = [
            ("node-id", p.node_id),
            ("socket-id", p.socket_id),
            ("die-id", p.die_id),
            ("cluster-id", p.cluster_id),
            ("core-id", p.core_id),
            ("thread-id", p.thread_id),
        ];
        for (name, id) in ids {
            if let Some(id) = id {
                h.line(format!("    {name}: \"{id}\""));
            }
        }
    }
}

pub(super) fn registers(h: &mut HmpCx<'_, '_, '_>, args: &Args) {
    let count = cpu::threads(h.cx).len();
    if count == 0 {
        h.line("No CPU available");
        return;
    }
    let which = match (args.flag("-a"), args.opt_int("vcpu")) {
        (true, _) => 0..count,
        (_, Some(i)) => match usize::try_from(i).ok().filter(|i| *i < count) {
            Some(i) => i..i + 1,
            None => {
                h.line("CPU#%d not available".replace("%d", &i.to_string()));
                return;
            }
        },
        _ => h.cx.mon.cpu..h.cx.mon.cpu + 1,
    };
    for i in which {
        match cpu::registers(h.cx, i) {
            Some(regs) => {
                let text = rqemu_machine::cpu::dump(&regs);
                let _ = write!(h, "\nCPU#{i}\n{text}");
                if !text.ends_with('\n') {
                    h.line("");
                }
            }
            None => h.line(format!("CPU#{i} not available")),
        }
    }
}

pub(super) fn pci(h: &mut HmpCx<'_, '_, '_>, _: &Args) {
    for bus in pcis::query_pci(h.cx, Empty).unwrap_or_default() {
        for d in bus.devices {
            h.line(format!("  Bus {:2}, device {:3}, function {}:", d.bus, d.slot, d.function));
            let class = match d.class_info.desc {
                Some(desc) => desc,
                None => format!("Class {:04}", d.class_info.class),
            };
            h.line(format!("    {class}: PCI device {:04x}:{:04x}", d.id.vendor, d.id.device));
            if let (Some(vendor), Some(subsystem)) = (d.id.subsystem_vendor, d.id.subsystem) {
                h.line(format!("      PCI subsystem {vendor:04x}:{subsystem:04x}"));
            }
            if let Some(irq) = d.irq {
                let pin = (b'A' + (d.irq_pin - 1).clamp(0, 3) as u8) as char;
                h.line(format!("      IRQ {irq}, pin {pin}"));
            }
            for r in &d.regions {
                region(h, r);
            }
            h.line(format!("      id \"{}\"", d.qdev_id));
        }
    }
}

fn region(h: &mut HmpCx<'_, '_, '_>, r: &pcis::PciMemoryRegion) {
    let (first, last) = (r.address, r.address.wrapping_add(r.size - 1));
    if r.type_ == "io" {
        h.line(format!("      BAR{}: I/O at 0x{first:04x} [0x{last:04x}].", r.bar));
        return;
    }
    let bits = if r.mem_type_64 == Some(true) { 64 } else { 32 };
    let prefetch = if r.prefetch == Some(true) { " prefetchable" } else { "" };
    h.line(format!("      BAR{}: {bits} bit{prefetch} memory at 0x{first:08x} [0x{last:08x}].", r.bar));
}

pub(super) fn mice(h: &mut HmpCx<'_, '_, '_>, _: &Args) {
    for line in h.cx.m.info_mice().lines() {
        h.line(line);
    }
}

pub(super) fn memdev(h: &mut HmpCx<'_, '_, '_>, _: &Args) {
    for m in memory::query_memdev(h.cx, Empty).unwrap_or_default() {
        h.line(format!("memory backend: {}", m.id.unwrap_or_default()));
        h.line(format!("  size:  {}", m.size));
        h.line(format!("  merge: {}", m.merge));
        h.line(format!("  dump: {}", m.dump));
        h.line(format!("  prealloc: {}", m.prealloc));
        h.line(format!("  share: {}", m.share));
        if let Some(reserve) = m.reserve {
            h.line(format!("  reserve: {reserve}"));
        }
        h.line(format!("  policy: {}", m.policy.as_str()));
        let nodes: Vec<String> = m.host_nodes.iter().map(u16::to_string).collect();
        h.line(format!("  host nodes: {}", nodes.join(" ")));
    }
    h.line("");
}
