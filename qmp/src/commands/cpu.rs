//! CPUs.

use crate::monitors::MonitorCx;
use crate::qapi_struct;
use crate::types::Empty;
use rqemu_machine::cpu::CpuRegs;
use rqemu_machine::QResult;

use super::machine::SysEmuTarget;

qapi_struct! {
    /// Where a CPU sits.
    pub struct CpuInstanceProperties {
        /// NUMA node.
        node_id: Option<i64>,
        /// Socket.
        socket_id: Option<i64>,
        /// Die in the socket.
        die_id: Option<i64>,
        /// Cluster in the die.
        cluster_id: Option<i64>,
        /// Core in the die.
        core_id: Option<i64>,
        /// Thread in the core.
        thread_id: Option<i64>,
    }
    /// Element of `query-cpus-fast`.
    pub struct CpuInfoFast {
        /// Number.
        cpu_index: i64,
        /// QOM path.
        qom_path: String,
        /// Host thread.
        thread_id: i64,
        /// Place.
        props: Option<CpuInstanceProperties>,
        /// Architecture.
        target: SysEmuTarget,
    }
    /// Element of `query-hotpluggable-cpus`.
    pub struct HotpluggableCpu {
        /// Class.
        type_ as "type": String,
        /// Threads that one of them brings.
        vcpus_count: i64,
        /// Place.
        props: CpuInstanceProperties,
        /// QOM path, if it is plugged.
        qom_path: Option<String>,
    }
}

/// Place of CPU `index` in the topology.
fn place(cx: &MonitorCx<'_, '_>, index: u32) -> CpuInstanceProperties {
    let Some(t) = cx.m.info.topology else {
        return CpuInstanceProperties {
            node_id: None,
            socket_id: Some(index.into()),
            die_id: None,
            cluster_id: None,
            core_id: Some(0),
            thread_id: Some(0),
        };
    };
    let node = cx.m.numa.as_ref().and_then(|n| n.cpu_nodes.get(index as usize));
    let (threads, cores, dies) = (t.threads.max(1), t.cores.max(1), t.dies.max(1));
    let die = index / (threads * cores);
    CpuInstanceProperties {
        node_id: node.copied().map(i64::from),
        socket_id: Some((die / dies).into()),
        die_id: (dies > 1).then(|| (die % dies).into()),
        cluster_id: None,
        core_id: Some((index / threads % cores).into()),
        thread_id: Some((index % threads).into()),
    }
}

/// QOM path of CPU `index`.
pub(super) fn path(cx: &MonitorCx<'_, '_>, index: usize) -> String {
    match cx.m.info.cpus.get(index) {
        Some(dev) => cx.m.tree.path(*dev),
        None => format!("/machine/unattached/device[{index}]"),
    }
}

/// Numbers of the CPUs and their host threads.
pub(crate) fn threads(cx: &MonitorCx<'_, '_>) -> Vec<i64> {
    cx.m.run.vcpus.tids().into_iter().map(i64::from).collect()
}

pub(super) fn query_cpus_fast(cx: &mut MonitorCx<'_, '_>, _: Empty) -> QResult<Vec<CpuInfoFast>> {
    let one = |(i, tid): (usize, i64)| CpuInfoFast {
        cpu_index: i as i64,
        qom_path: path(cx, i),
        thread_id: tid,
        props: Some(place(cx, i as u32)),
        target: SysEmuTarget::X8664,
    };
    Ok(threads(cx).into_iter().enumerate().map(one).collect())
}

pub(crate) fn query_hotpluggable_cpus(cx: &mut MonitorCx<'_, '_>, _: Empty) -> QResult<Vec<HotpluggableCpu>> {
    if !cx.m.board.as_ref().is_some_and(|b| b.kind.hotpluggable_cpus) {
        return Err(rqemu_machine::qerr!("The feature 'query-hotpluggable-cpus' is not enabled"));
    }
    let online = cx.m.run.vcpus.tids().len();
    let max = cx.m.info.topology.map_or(online, |t| t.maxcpus as usize);
    let model = match cx.m.info.cpu_model.as_str() {
        "" => "qemu64",
        model => model,
    };
    let one = |i: usize| HotpluggableCpu {
        type_: format!("{model}-x86_64-cpu"),
        vcpus_count: 1,
        props: place(cx, i as u32),
        qom_path: (i < online).then(|| path(cx, i)),
    };
    Ok((0..max).rev().map(one).collect())
}

/// Registers of CPU `index`, stopped for the moment of reading.
pub(crate) fn registers(cx: &mut MonitorCx<'_, '_>, index: usize) -> Option<CpuRegs> {
    cx.m.pause_vcpus();
    let regs = cx.m.accel.cpu_regs(index);
    cx.m.resume_vcpus();
    regs
}

/// A register by the name that HMP expressions use.
pub(crate) fn register(cx: &mut MonitorCx<'_, '_>, name: &str) -> Option<u64> {
    const GPR: [&str; 8] = ["ax", "cx", "dx", "bx", "sp", "bp", "si", "di"];
    let index = cx.mon.cpu;
    let regs = registers(cx, index)?;
    let narrow = name.starts_with('e');
    let value = match name {
        "rip" | "eip" | "pc" => regs.rip.wrapping_add(if name == "pc" { regs.segments[1].base } else { 0 }),
        "eflags" => regs.rflags,
        "cs" => regs.segments[1].selector.into(),
        "ds" => regs.segments[3].selector.into(),
        "es" => regs.segments[0].selector.into(),
        "ss" => regs.segments[2].selector.into(),
        "fs" => regs.segments[4].selector.into(),
        "gs" => regs.segments[5].selector.into(),
        _ => {
            let at = match name.strip_prefix(['r', 'e']) {
                Some(rest) if rest.chars().next().is_some_and(|c| c.is_ascii_digit()) => {
                    rest.parse::<usize>().ok().filter(|n| (8..16).contains(n) && !narrow)?
                }
                Some(rest) => GPR.iter().position(|g| *g == rest)?,
                None => return None,
            };
            *regs.gpr.get(at)?
        }
    };
    // In 32-bit names the value is sign-extended from 32 bits.
    Some(if narrow { value as u32 as i32 as i64 as u64 } else { value })
}
