//! NUMA nodes of the guest: `-numa node`, `-numa dist`, `-numa cpu`.
//!
//! Left out: `hmat-lb` and `hmat-cache` (refused, as QEMU does without `hmat=on`), `initiator=`.

use super::Build;
use crate::firmware::acpi::Numa;
use crate::firmware::fw_cfg_files::NumaItem;
use crate::spec::{Dict, NumaKind, Topology};
use crate::{qerr, QResult};

/// Most nodes of a guest.
const MAX_NODES: u16 = 128;
/// Distance of a node to itself.
const LOCAL: u8 = 10;

/// One node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NumaNode {
    /// Its memory backend.
    pub memdev: Option<String>,
    /// Bytes.
    pub size: u64,
}

/// The nodes of a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NumaState {
    /// Nodes by number.
    pub nodes: Vec<NumaNode>,
    /// Row-major distance matrix, if distances were given.
    pub distances: Option<Vec<u8>>,
    /// Node of each possible CPU, by CPU index.
    pub cpu_nodes: Vec<u32>,
}

impl NumaState {
    /// What ACPI tables need.
    pub fn acpi(&self) -> Numa {
        Numa { node_memory: self.nodes.iter().map(|n| n.size).collect(), distances: self.distances.clone() }
    }

    /// What fw_cfg needs; APIC ids equal CPU indexes.
    pub fn fw_cfg(&self) -> NumaItem {
        NumaItem {
            cpu_nodes: (0u32..).zip(self.cpu_nodes.iter().copied()).collect(),
            node_memory: self.nodes.iter().map(|n| n.size).collect(),
        }
    }
}

/// Place of a CPU in the topology.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct CpuPlace {
    socket: u32,
    die: u32,
    core: u32,
    thread: u32,
}

impl CpuPlace {
    fn of(index: u32, t: &Topology) -> Self {
        let (threads, cores, dies) = (t.threads.max(1), t.cores.max(1), t.dies.max(1));
        Self {
            thread: index % threads,
            core: index / threads % cores,
            die: index / threads / cores % dies,
            socket: index / threads / cores / dies,
        }
    }
}

/// Options as they come in.
struct Parser {
    topo: Topology,
    /// Nodes by number; `None` = not declared.
    nodes: Vec<Option<NumaNode>>,
    /// Distances by (from, to).
    distances: Vec<((u16, u16), u8)>,
    cpus: Vec<Option<u32>>,
    /// A node has its memory from a backend.
    has_memdev: bool,
}

impl Parser {
    fn assign(&mut self, cpu: usize, node: u32) -> QResult<()> {
        match self.cpus.get_mut(cpu) {
            Some(Some(old)) => Err(qerr!("CPU is already assigned to node-id: {old}")),
            Some(slot) => {
                *slot = Some(node);
                Ok(())
            }
            None => Err(qerr!("CPU index ({cpu}) should be smaller than maxcpus ({})", self.topo.maxcpus)),
        }
    }

    fn node(&mut self, id: Option<u16>, cpus: &[u16], node: NumaNode) -> QResult<()> {
        let next = self.nodes.iter().position(Option::is_none).unwrap_or(self.nodes.len()) as u16;
        let id = id.unwrap_or(next);
        if id >= MAX_NODES {
            return Err(qerr!("Max number of NUMA nodes reached: {id}"));
        }
        let at = usize::from(id);
        if self.nodes.len() <= at {
            self.nodes.resize(at + 1, None);
        }
        if self.nodes.get(at).is_some_and(Option::is_some) {
            return Err(qerr!("Duplicate NUMA nodeid: {id}"));
        }
        for cpu in cpus {
            self.assign(usize::from(*cpu), id.into())?;
        }
        if let Some(slot) = self.nodes.get_mut(at) {
            *slot = Some(node);
        }
        Ok(())
    }

    fn declared(&self, id: u16) -> bool {
        self.nodes.get(usize::from(id)).is_some_and(Option::is_some)
    }

    fn distance(&mut self, src: u16, dst: u16, val: u8) -> QResult<()> {
        for (name, id) in [("src", src), ("dst", dst)] {
            if id >= MAX_NODES {
                return Err(qerr!("Parameter '{name}' expects an integer between 0 and {}", MAX_NODES - 1));
            }
        }
        if !self.declared(src) || !self.declared(dst) {
            return Err(qerr!(
                "Source/Destination NUMA node is missing. Please use '-numa node' option to declare it first."
            ));
        }
        if val < LOCAL {
            return Err(qerr!("NUMA distance ({val}) is invalid, it shouldn't be less than {LOCAL}."));
        }
        if src == dst && val != LOCAL {
            return Err(qerr!("Local distance of node {src} should be {LOCAL}."));
        }
        self.distances.retain(|(k, _)| *k != (src, dst));
        self.distances.push(((src, dst), val));
        Ok(())
    }

    fn cpu(&mut self, d: &Dict) -> QResult<()> {
        let node = d.get_i64("node-id")?.ok_or_else(|| qerr!("Missing mandatory node-id property"))?;
        if !u16::try_from(node).is_ok_and(|n| self.declared(n)) {
            return Err(qerr!(
                "Invalid node-id={node}, NUMA node must be defined with -numa node,nodeid=ID before it's used with \
                 -numa cpu,node-id=ID"
            ));
        }
        if d.contains("cluster-id") {
            return Err(qerr!("cluster-id is not supported"));
        }
        if d.contains("die-id") && self.topo.dies <= 1 {
            return Err(qerr!("die-id is not supported"));
        }
        let (socket, die) = (d.get_i64("socket-id")?, d.get_i64("die-id")?);
        let (core, thread) = (d.get_i64("core-id")?, d.get_i64("thread-id")?);
        let fits = |want: Option<i64>, is: u32| want.is_none_or(|w| w == i64::from(is));
        let mut any = false;
        for cpu in 0..self.cpus.len() {
            let p = CpuPlace::of(cpu as u32, &self.topo);
            if fits(socket, p.socket) && fits(die, p.die) && fits(core, p.core) && fits(thread, p.thread) {
                self.assign(cpu, node as u32)?;
                any = true;
            }
        }
        if any {
            Ok(())
        } else {
            Err(qerr!("no match found"))
        }
    }

    /// The full distance matrix.
    fn matrix(&self) -> QResult<Option<Vec<u8>>> {
        if self.distances.is_empty() {
            return Ok(None);
        }
        let n = self.nodes.len() as u16;
        let get = |a: u16, b: u16| self.distances.iter().find(|(k, _)| *k == (a, b)).map(|(_, v)| *v);
        let one_way = |a: u16, b: u16| get(a, b).is_none() || get(b, a).is_none();
        let asymmetric = self.distances.iter().any(|((a, b), v)| get(*b, *a).is_some_and(|w| w != *v));
        let mut out = Vec::new();
        for a in 0..n {
            for b in 0..n {
                if a == b {
                    out.push(LOCAL);
                    continue;
                }
                let v = match get(a, b).or_else(|| get(b, a)) {
                    Some(v) => v,
                    None => {
                        return Err(qerr!(
                            "The distance between node {a} and {b} is missing, at least one distance value between each \
                             nodes should be provided."
                        ))
                    }
                };
                if asymmetric && one_way(a, b) {
                    return Err(qerr!(
                        "At least one asymmetrical pair of distances is given, please provide distances for both \
                         directions of all node pairs."
                    ));
                }
                out.push(v);
            }
        }
        Ok(Some(out))
    }
}

impl Build<'_> {
    /// Works the `-numa` options out.
    ///
    /// # Errors
    /// With QEMU's texts.
    pub fn configure_numa(&mut self) -> QResult<()> {
        if self.spec.numa.is_empty() {
            return Ok(());
        }
        let mut p = Parser {
            topo: self.topo,
            nodes: Vec::new(),
            distances: Vec::new(),
            cpus: vec![None; self.topo.maxcpus as usize],
            has_memdev: false,
        };
        for n in &self.spec.numa {
            if self.kind.default_cpu.is_none() {
                return Err(n.loc.locate(qerr!("NUMA is not supported by this machine-type")));
            }
            self.numa_step(&mut p, &n.kind).map_err(|e| n.loc.locate(e))?;
        }
        self.m.numa = Some(self.finish_numa(p)?);
        Ok(())
    }

    fn numa_step(&self, p: &mut Parser, kind: &NumaKind) -> QResult<()> {
        match kind {
            NumaKind::Node { nodeid, cpus, mem, memdev, initiator } => {
                if initiator.is_some() {
                    return Err(hmat_off());
                }
                if mem.is_some() && (memdev.is_some() || p.has_memdev) {
                    return Err(qerr!(
                        "numa configuration should use either mem= or memdev=,mixing both is not allowed"
                    ));
                }
                if mem.is_some() {
                    return Err(qerr!("Parameter -numa node,mem is not supported by this machine type")
                        .with_hint("Use -numa node,memdev instead"));
                }
                let mut node = NumaNode { memdev: memdev.clone(), size: 0 };
                if let Some(id) = memdev {
                    let info = |n: &crate::objects::ObjectNode| Some(n.object()?.memory()?.info(id).size);
                    let size = self.m.objects.get(id).and_then(info);
                    node.size = size.ok_or_else(|| qerr!("memdev={id} is ambiguous"))?;
                    p.has_memdev = true;
                }
                p.node(*nodeid, cpus, node)
            }
            NumaKind::Dist { src, dst, val } => p.distance(*src, *dst, *val),
            NumaKind::Cpu(d) => p.cpu(d),
            NumaKind::HmatLb(_) | NumaKind::HmatCache(_) => Err(hmat_off()),
        }
    }

    fn finish_numa(&mut self, p: Parser) -> QResult<NumaState> {
        let missing = p.nodes.iter().rposition(Option::is_none);
        if let Some(i) = missing {
            return Err(qerr!("numa: Node ID missing: {i}"));
        }
        let distances = p.matrix()?;
        let nodes: Vec<NumaNode> = p.nodes.iter().flatten().cloned().collect();
        let total = nodes.iter().fold(0u64, |sum, n| sum.saturating_add(n.size));
        if total != self.ram_size {
            return Err(qerr!(
                "total memory for NUMA nodes (0x{total:x}) should equal RAM size (0x{:x})",
                self.ram_size
            ));
        }
        let count = nodes.len().max(1) as u32;
        let none = p.cpus.iter().all(Option::is_none);
        let mut loose = Vec::new();
        let mut cpu_nodes = Vec::new();
        for (i, node) in p.cpus.iter().enumerate() {
            let place = CpuPlace::of(i as u32, &p.topo);
            cpu_nodes.push(match node {
                Some(n) => *n,
                None if none => place.socket % count,
                None => {
                    let die =
                        if p.topo.dies > 1 { format!("die-id: {}, ", place.die) } else { String::new() };
                    loose.push(format!(
                        "CPU {i} [socket-id: {}, {die}core-id: {}, thread-id: {}]",
                        place.socket, place.core, place.thread
                    ));
                    0
                }
            });
        }
        if !loose.is_empty() {
            self.messages.warning(&format!("CPU(s) not present in any NUMA nodes: {}", loose.join(", ")));
            self.messages.warning(
                "All CPU(s) up to maxcpus should be described in NUMA config, ability to start up with partial NUMA \
                 mappings is obsoleted and will be removed in future",
            );
        }
        Ok(NumaState { nodes, distances, cpu_nodes })
    }
}

fn hmat_off() -> crate::QError {
    qerr!(
        "ACPI Heterogeneous Memory Attribute Table (HMAT) is disabled, enable it with -machine hmat=on before using any \
         of hmat specific options"
    )
}
