//! Guest memory.

use crate::monitors::MonitorCx;
use crate::types::Empty;
use crate::{qapi_enum, qapi_struct, qapi_union};
use rqemu_machine::error::strerror;
use rqemu_machine::memory::Space;
use rqemu_machine::{qerr, QResult};
use std::fs::File;
use std::io::Write;

/// Bytes copied at a time.
const CHUNK: u64 = 64 << 10;

qapi_struct! {
    /// Reply of `query-memory-size-summary`.
    pub struct MemoryInfo {
        /// RAM at start.
        base_memory: u64,
        /// RAM plugged since.
        plugged_memory: Option<u64>,
    }
    /// Element of `query-memdev`.
    pub struct Memdev {
        /// Id.
        id: Option<String>,
        /// Bytes.
        size: u64,
        /// Pages may be merged with equal ones.
        merge: bool,
        /// It goes into core dumps.
        dump: bool,
        /// All of it was touched at start.
        prealloc: bool,
        /// Other processes can map it.
        share: bool,
        /// Swap space is reserved.
        reserve: Option<bool>,
        /// Host nodes that it may come from.
        host_nodes: Vec<u16>,
        /// How they are used.
        policy: HostMemPolicy,
    }
    /// A memory module.
    pub struct PCDIMMDeviceInfo {
        /// Id.
        id: Option<String>,
        /// Address.
        addr: i64,
        /// Bytes.
        size: i64,
        /// Slot.
        slot: i64,
        /// NUMA node.
        node: i64,
        /// Backend.
        memdev: String,
        /// Plugged after start.
        hotplugged: bool,
        /// It can be unplugged.
        hotpluggable: bool,
    }
    /// Wrapped.
    pub struct PCDIMMDeviceData {
        /// The module.
        data: PCDIMMDeviceInfo,
    }
    /// Arguments of `memsave`.
    pub struct Memsave {
        /// Virtual address.
        val: i64,
        /// Bytes.
        size: i64,
        /// File.
        filename: String,
        /// CPU whose address space it is.
        cpu_index: Option<i64>,
    }
    /// Arguments of `pmemsave`.
    pub struct Pmemsave {
        /// Physical address.
        val: i64,
        /// Bytes.
        size: i64,
        /// File.
        filename: String,
    }
}

qapi_enum! {
    /// How memory is spread over host nodes.
    pub enum HostMemPolicy {
        Default = "default",
        Preferred = "preferred",
        Bind = "bind",
        Interleave = "interleave",
    }
}

qapi_union! {
    /// Element of `query-memory-devices`.
    pub union MemoryDeviceInfo("type") {
        "dimm" => Dimm(PCDIMMDeviceData),
        "nvdimm" => Nvdimm(PCDIMMDeviceData),
    }
}

pub(crate) fn query_memory_size_summary(cx: &mut MonitorCx<'_, '_>, _: Empty) -> QResult<MemoryInfo> {
    Ok(MemoryInfo { base_memory: cx.m.info.ram_size, plugged_memory: Some(0) })
}

/// Cuts `buf` where pages end and gives `f` the address of each part.
fn pages(mut addr: u64, mut buf: &mut [u8], mut f: impl FnMut(u64, &mut [u8])) {
    while !buf.is_empty() {
        let n = buf.len().min((4096 - addr % 4096) as usize);
        let (part, rest) = buf.split_at_mut(n);
        f(addr, part);
        buf = rest;
        addr = addr.wrapping_add(n as u64);
    }
}

/// Reads guest-physical memory without disturbing devices: RAM and ROM as they are, everything else as zero bytes.
pub(crate) fn read_ram(cx: &MonitorCx<'_, '_>, addr: u64, buf: &mut [u8]) {
    let flat = cx.m.flat();
    // Page by page, so that one page without RAM does not spoil its neighbours.
    pages(addr, buf, |addr, page| {
        if flat.mem.read(addr, page).is_err() {
            page.fill(0);
        }
    });
}

/// Reads guest-physical memory as a processor does; zero bytes where nothing answers.
pub(crate) fn read_physical(cx: &mut MonitorCx<'_, '_>, addr: u64, buf: &mut [u8]) {
    pages(addr, buf, |addr, page| {
        let flat = cx.m.flat();
        if flat.mem.read(addr, page).is_ok() {
            return;
        }
        let end = addr.saturating_add(page.len() as u64 - 1);
        let ranges = flat.mem.ranges();
        let next = ranges.get(ranges.partition_point(|r| r.last < addr));
        let some = next.is_some_and(|r| r.start <= end);
        if some {
            cx.m.bus_read(Space::Memory, addr, page);
        } else {
            page.fill(0);
        }
    });
}

/// Writes `size` bytes that `read` fills to a file.
fn save(
    filename: &str,
    start: u64,
    size: u64,
    mut read: impl FnMut(u64, &mut [u8]) -> QResult<()>,
) -> QResult<()> {
    let mut file =
        File::create(filename).map_err(|e| qerr!("Could not open '{filename}': {}", strerror(&e)))?;
    let mut done = 0;
    let mut buf = vec![0; CHUNK as usize];
    while done < size {
        let part = &mut buf[..(size - done).min(CHUNK) as usize];
        read(start.wrapping_add(done), part)?;
        file.write_all(part).map_err(|_| qerr!("An IO error has occurred"))?;
        done += part.len() as u64;
    }
    Ok(())
}

pub(crate) fn pmemsave(cx: &mut MonitorCx<'_, '_>, args: Pmemsave) -> QResult<()> {
    save(&args.filename, args.val as u64, args.size as u64, |addr, buf| {
        read_physical(cx, addr, buf);
        Ok(())
    })
}

pub(crate) fn memsave(cx: &mut MonitorCx<'_, '_>, args: Memsave) -> QResult<()> {
    let cpu = args.cpu_index.map_or(Some(cx.mon.cpu), |i| usize::try_from(i).ok());
    let regs = cpu.and_then(|cpu| super::cpu::registers(cx, cpu));
    let regs = regs.ok_or_else(|| qerr!("Parameter 'cpu-index' expects a CPU number"))?;
    let (val, size) = (args.val, args.size);
    save(&args.filename, val as u64, size as u64, |addr, buf| {
        super::paging::read_virtual(cx, &regs, addr, buf)
            .map_err(|_| qerr!("Invalid addr 0x{:016x}/size {size} specified", addr))
    })
}

/// Memory modules cannot be plugged, so there are none.
pub(super) fn query_memory_devices(_: &mut MonitorCx<'_, '_>, _: Empty) -> QResult<Vec<MemoryDeviceInfo>> {
    Ok(Vec::new())
}

pub(crate) fn query_memdev(cx: &mut MonitorCx<'_, '_>, _: Empty) -> QResult<Vec<Memdev>> {
    let objects = cx.m.memdev_info();
    let known: Vec<String> = objects.iter().map(|m| m.id.clone()).collect();
    // Main memory without a backend of the user's is one that the board makes.
    let board = cx.m.main_ram.iter().filter(|ram| !known.iter().any(|id| id == ram.name()));
    let board = board.map(|ram| Memdev {
        id: Some(ram.name().into()),
        size: ram.len(),
        merge: true,
        dump: true,
        prealloc: false,
        share: false,
        reserve: Some(true),
        host_nodes: Vec::new(),
        policy: HostMemPolicy::Default,
    });
    let user = objects.into_iter().map(|m| Memdev {
        id: Some(m.id),
        size: m.size,
        merge: m.merge,
        dump: m.dump,
        prealloc: m.prealloc,
        share: m.share,
        reserve: Some(m.reserve),
        host_nodes: m.host_nodes.into_iter().filter_map(|n| u16::try_from(n).ok()).collect(),
        policy: policy(m.policy),
    });
    Ok(user.chain(board).collect())
}

fn policy(p: rqemu_machine::objects::HostMemPolicy) -> HostMemPolicy {
    use rqemu_machine::objects::HostMemPolicy as P;
    match p {
        P::Default => HostMemPolicy::Default,
        P::Preferred => HostMemPolicy::Preferred,
        P::Bind => HostMemPolicy::Bind,
        P::Interleave => HostMemPolicy::Interleave,
    }
}
