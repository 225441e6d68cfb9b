//! The memory tree and its flat form.

use crate::hmp::{Args, HmpCx};
use rqemu_machine::device::DevId;
use rqemu_machine::memory::{FlatKind, FlatView, Region, RegionId, RegionKind};
use rqemu_machine::Machine;

pub(super) fn mtree(h: &mut HmpCx<'_, '_, '_>, args: &Args) {
    if let Some(flag) = ["-d", "-o"].into_iter().find(|f| args.flag(f)) {
        h.line(format!("info mtree: {flag} is not supported"));
        return;
    }
    let text = if args.flag("-f") { flat_views(h.cx.m) } else { trees(h.cx.m, args.flag("-D")) };
    h.out.push_str(&text);
}

/// Names of the address spaces that show physical memory: one per processor, and what devices see.
fn memory_spaces(m: &Machine) -> Vec<String> {
    let cpus = m.tree.iter().filter(|n| rqemu_machine::qom::is_a(n.class, "cpu"));
    let mut list: Vec<String> = cpus.enumerate().map(|(i, _)| format!("cpu-memory-{i}")).collect();
    list.push("memory".into());
    list
}

/// PCI functions: name of the class, and the region that is the root of what it can reach.
fn bus_masters(m: &mut Machine) -> Vec<(&'static str, RegionId)> {
    let one = |m: &mut Machine, id: DevId| {
        let name = m.tree.get(id)?.class.name;
        Some((name, m.with_dev(id, |d, _| d.pci()?.state().bus_master_root())??))
    };
    m.tree.ids().into_iter().filter_map(|id| one(m, id)).collect()
}

/// Writes trees, and remembers what aliases lead to.
struct Printer<'a> {
    m: &'a Machine,
    out: String,
    disabled_too: bool,
    targets: Vec<RegionId>,
}

fn trees(m: &mut Machine, disabled_too: bool) -> String {
    let masters = bus_masters(m);
    let mut p = Printer { m, out: String::new(), disabled_too, targets: Vec::new() };
    let mut spaces = vec![(memory_spaces(p.m), p.m.mem.system), (vec!["I/O".to_string()], p.m.mem.io)];
    if let Some((root, _)) = p.m.smm_memory {
        let names =
            memory_spaces(p.m).into_iter().filter_map(|n| Some(n.strip_prefix("cpu-memory-")?.to_string()));
        spaces.extend(names.map(|n| (vec![format!("cpu-smm-{n}")], root)));
    }
    spaces.extend(masters.into_iter().map(|(name, root)| (vec![name.to_string()], root)));
    for (names, root) in spaces {
        for name in names {
            p.out.push_str(&format!("address-space: {name}\n"));
        }
        p.region(root, 0, 1);
        p.out.push('\n');
    }
    let mut at = 0;
    while let Some(target) = p.targets.get(at).copied() {
        at += 1;
        let name = p.m.mem.get(target).map_or(String::new(), |r| r.name.to_string());
        p.out.push_str(&format!("memory-region: {name}\n"));
        p.region(target, 0, 1);
        p.out.push('\n');
    }
    p.out
}

impl Printer<'_> {
    fn region(&mut self, id: RegionId, base: u64, level: usize) {
        let Some(r) = self.m.mem.get(id) else { return };
        let first = base.wrapping_add(r.addr);
        let last = first.wrapping_add(r.size.saturating_sub(1) as u64);
        let mut line = format!(
            "{:1$}{first:016x}-{last:016x} (prio {2}, {3}): ",
            "",
            level * 2,
            r.priority,
            kind(self.m, r, 0)
        );
        if let RegionKind::Alias { target, offset, .. } = &r.kind {
            if !self.targets.contains(target) {
                self.targets.push(*target);
            }
            let to = self.m.mem.get(*target).map_or("", |t| &t.name);
            let end = offset.wrapping_add(r.size.saturating_sub(1) as u64);
            line.push_str(&format!("alias {} @{to} {offset:016x}-{end:016x}", r.name));
        } else {
            line.push_str(&r.name);
        }
        if r.enabled || self.disabled_too {
            self.out.push_str(&line);
            self.out.push_str(if r.enabled { "\n" } else { " [disabled]\n" });
        }
        let mut children: Vec<(RegionId, u64, i32)> = r
            .children
            .iter()
            .filter_map(|c| self.m.mem.get(*c).map(|child| (*c, child.addr, child.priority)))
            .collect();
        children.sort_by_key(|(_, addr, priority)| (*addr, -i64::from(*priority)));
        for (child, ..) in children {
            self.region(child, first, level + 1);
        }
    }
}

/// Kind of a region in the words of the memory tree; an alias is of the kind of what it shows.
fn kind(m: &Machine, r: &Region, depth: u32) -> &'static str {
    match &r.kind {
        RegionKind::Ram { readonly: false, .. } => "ram",
        RegionKind::Ram { .. } => "rom",
        RegionKind::RomDevice { direct: true, .. } => "romd",
        RegionKind::Alias { target, readonly, .. } if depth < 32 => {
            match m.mem.get(*target).map_or("i/o", |t| kind(m, t, depth + 1)) {
                "ram" if *readonly => "rom",
                kind => kind,
            }
        }
        _ => "i/o",
    }
}

/// One flat view: the address spaces that share it, what it is made from, and its ranges.
struct View<'a> {
    spaces: Vec<(String, &'a str)>,
    root: &'a str,
    ranges: Option<&'a FlatView>,
}

fn flat_views(m: &mut Machine) -> String {
    let masters = bus_masters(m);
    let maps = m.maps.load_full();
    // The last one made stands behind the board's, as all that come later.
    let mut names = memory_spaces(m);
    names.rotate_right(1);
    let spaces = |names: Vec<String>, root| names.into_iter().map(|n| (n, root)).collect::<Vec<_>>();
    let mut memory = View { spaces: spaces(names, "system"), root: "system", ranges: Some(&maps.mem) };
    let mut idle = View { spaces: Vec::new(), root: "(none)", ranges: None };
    for (name, root) in masters {
        let on = m
            .mem
            .get(root)
            .is_some_and(|r| r.children.iter().any(|c| m.mem.get(*c).is_some_and(|c| c.enabled)));
        let view = if on { &mut memory } else { &mut idle };
        view.spaces.push((name.to_string(), "bus master container"));
    }
    if maps.mem.ranges().is_empty() {
        (memory.root, memory.ranges) = ("(none)", None);
    }
    let io = View { spaces: vec![("I/O".into(), "io")], root: "io", ranges: Some(&maps.io) };
    let mut smm = View { spaces: Vec::new(), root: "memory", ranges: Some(maps.memory(true)) };
    if m.smm_memory.is_some() {
        let cpus =
            memory_spaces(m).into_iter().filter_map(|n| Some(n.strip_prefix("cpu-memory-")?.to_string()));
        smm.spaces = cpus.map(|n| (format!("cpu-smm-{n}"), "memory")).collect();
    }
    let views = [memory, idle, io, smm];
    let used = views.iter().filter(|v| !v.spaces.is_empty());
    used.enumerate().map(|(i, v)| flat_view(m, i, v)).collect()
}

fn flat_view(m: &Machine, number: usize, v: &View<'_>) -> String {
    let mut out = format!("FlatView #{number}\n");
    for (name, root) in &v.spaces {
        out.push_str(&format!(" AS \"{name}\", root: {root}\n"));
    }
    out.push_str(&format!(" Root memory region: {}\n", v.root));
    match v.ranges {
        Some(ranges) => out.push_str(&flat_ranges(m, ranges, v.root == "io")),
        None => out.push_str("  No rendered FlatView\n"),
    }
    out.push('\n');
    out
}

/// Ranges of a view. The root of the port space answers where nothing else does.
fn flat_ranges(m: &Machine, view: &FlatView, ports: bool) -> String {
    let kvm = m.accel.name() == "kvm";
    let mut out = String::new();
    let mut at = 0u64;
    let gap = |from: u64, to: u64| {
        let offset = if from == 0 { String::new() } else { format!(" @{from:016x}") };
        format!("  {from:016x}-{to:016x} (prio 0, i/o): io{offset}\n")
    };
    for r in view.ranges() {
        if ports && r.start > at {
            out.push_str(&gap(at, r.start - 1));
        }
        at = r.last.wrapping_add(1);
        let (what, mapped) = match &r.kind {
            FlatKind::Io { .. } => ("i/o", false),
            FlatKind::RomDevice { .. } => ("romd", kvm),
            FlatKind::Ram { readonly: true, .. } => ("rom", kvm),
            FlatKind::Ram { .. } => ("ram", kvm),
        };
        let (name, priority) = m.mem.get(r.region).map_or(("", 0), |r| (&*r.name, r.priority));
        let offset = if r.offset == 0 { String::new() } else { format!(" @{:016x}", r.offset) };
        let mapped = if mapped { " KVM" } else { "" };
        let (start, last) = (r.start, r.last);
        out.push_str(&format!(
            "  {start:016x}-{last:016x} (prio {priority}, {what}): {name}{offset}{mapped}\n"
        ));
    }
    if ports && at < 0x1_0000 {
        out.push_str(&gap(at, 0xffff));
    }
    out
}
