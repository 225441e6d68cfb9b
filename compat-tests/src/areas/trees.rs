//! Readers for the indented texts of the human monitor: `info qtree`, `info qom-tree`, `info mtree`.

use std::collections::BTreeMap;

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// One device of `info qtree`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QtreeDevice {
    /// `bus/type[id]/bus/type[id]`, with `#n` for the n-th of the same name.
    pub path: String,
    /// `name = value` lines.
    pub props: BTreeMap<String, String>,
    /// Other lines (bar, mmio, gpio-out, class …) in order.
    pub facts: Vec<String>,
}

/// The devices of `info qtree`, parents first.
pub fn qtree(text: &str) -> Vec<QtreeDevice> {
    let mut out: Vec<QtreeDevice> = vec![];
    // (indentation, path so far) of the open buses and devices.
    let mut stack: Vec<(usize, String)> = vec![];
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut current: Option<usize> = None;
    for line in text.lines().filter(|l| !l.trim().is_empty()) {
        let (at, body) = (indent(line), line.trim());
        let bus = body.strip_prefix("bus: ");
        let dev = body.strip_prefix("dev: ");
        if let Some(name) = bus.or(dev) {
            while stack.last().is_some_and(|(i, _)| *i >= at) {
                stack.pop();
            }
            let name = match name.split_once(", id ") {
                Some((t, id)) => format!("{t}[{}]", id.trim_matches('"')),
                None => name.to_owned(),
            };
            let parent = stack.last().map(|(_, p)| p.as_str()).unwrap_or_default();
            let mut path = if parent.is_empty() { name } else { format!("{parent}/{name}") };
            let n = seen.entry(path.clone()).or_default();
            *n += 1;
            if *n > 1 {
                path = format!("{path}#{n}");
            }
            stack.push((at, path.clone()));
            current = None;
            if dev.is_some() {
                out.push(QtreeDevice { path, props: BTreeMap::new(), facts: vec![] });
                current = Some(out.len() - 1);
            }
        } else if let Some(d) = current.and_then(|i| out.get_mut(i)) {
            match body.split_once(" = ") {
                Some((k, v)) => drop(d.props.insert(k.to_owned(), v.to_owned())),
                None => d.facts.push(body.to_owned()),
            }
        }
    }
    out
}

/// Only the places of the devices.
pub fn qtree_devices(text: &str) -> Vec<String> {
    let mut v: Vec<String> = qtree(text).into_iter().map(|d| d.path).collect();
    v.sort();
    v
}

/// `info qom-tree`: path -> type.
pub fn qom_tree(text: &str) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    let mut stack: Vec<(usize, String)> = vec![];
    for line in text.lines().filter(|l| !l.trim().is_empty()) {
        let (at, body) = (indent(line), line.trim());
        while stack.last().is_some_and(|(i, _)| *i >= at) {
            stack.pop();
        }
        let (name, ty) = body.rsplit_once(" (").unwrap_or((body, ""));
        let parent = stack.last().map(|(_, p)| p.as_str()).unwrap_or_default();
        let path = if at == 0 { String::new() } else { format!("{parent}{name}") };
        out.insert(
            if path.is_empty() { "/".to_owned() } else { path.clone() },
            ty.trim_end_matches(')').to_owned(),
        );
        stack.push((at, path));
    }
    out
}

/// `info mtree` (or `-f`): heading -> its lines. A heading is a line without indentation; views that list several
/// headings share the lines that follow.
pub fn mtree(text: &str) -> BTreeMap<String, Vec<String>> {
    let mut out: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut heading = String::new();
    for line in text.lines().filter(|l| !l.trim().is_empty()) {
        if indent(line) == 0 {
            let base = line.trim().to_owned();
            heading = base.clone();
            let mut n = 1;
            while out.contains_key(&heading) {
                n += 1;
                heading = format!("{base}#{n}");
            }
            out.insert(heading.clone(), vec![]);
        } else if let Some(l) = out.get_mut(&heading) {
            l.push(line.trim_end().to_owned());
        }
    }
    out
}

/// `info mtree -f`: the address spaces that share a view (sorted) -> the view's lines. QEMU numbers views in the order of
/// a hash table, so the number says nothing.
pub fn flat_views(text: &str) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    for lines in mtree(text).into_values() {
        let (mut spaces, rest): (Vec<String>, Vec<String>) =
            lines.into_iter().partition(|l| l.starts_with(" AS "));
        spaces.sort();
        spaces.dedup();
        out.insert(spaces.join(";").replace(" AS ", ""), rest.join("\n"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const QTREE: &str = "bus: main-system-bus\n  type System\n  dev: i440FX-pcihost, id \"\"\n    pci-hole64-size = 2147483648 (2 GiB)\n    bus: pci.0\n      type PCI\n      dev: e1000, id \"n\"\n        mac = \"x\"\n        class Ethernet controller, addr 00:03.0\n      dev: e1000, id \"n\"\n  dev: hpet, id \"\"\n";

    #[test]
    fn reads_qtree() {
        let d = qtree(QTREE);
        let p: Vec<&str> = d.iter().map(|d| d.path.as_str()).collect();
        assert_eq!(
            p,
            [
                "main-system-bus/i440FX-pcihost[]",
                "main-system-bus/i440FX-pcihost[]/pci.0/e1000[n]",
                "main-system-bus/i440FX-pcihost[]/pci.0/e1000[n]#2",
                "main-system-bus/hpet[]"
            ]
        );
        assert_eq!(d[1].props["mac"], "\"x\"");
        assert_eq!(d[1].facts, ["class Ethernet controller, addr 00:03.0"]);
    }

    #[test]
    fn reads_qom_tree() {
        let t = qom_tree(
            "/ (container)\n  /machine (pc-machine)\n    /fw_cfg (fw_cfg_io)\n  /objects (container)\n",
        );
        assert_eq!(t["/"], "container");
        assert_eq!(t["/machine/fw_cfg"], "fw_cfg_io");
        assert_eq!(t["/objects"], "container");
    }

    #[test]
    fn reads_mtree() {
        let t = mtree("address-space: I/O\n  0-1: x\n\naddress-space: memory\n  a\n  b\n");
        assert_eq!(t["address-space: memory"], ["  a", "  b"]);
        assert_eq!(t.len(), 2);
    }
}
