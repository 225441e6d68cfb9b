//! Dumps of guest memory as ELF core files, laid out as QEMU's: file header, section headers, program headers, notes,
//! memory, section names.
//!
//! The notes are those that crash tools look for: `NT_PRSTATUS` of Linux for every CPU, and QEMU's CPU state. A dump is
//! written while its command runs, with `detach` too; the guest stands still meanwhile.

mod elf;

use super::paging;
use crate::monitors::MonitorCx;
use crate::types::Empty;
use crate::{qapi_enum, qapi_struct};
use elf::{Core, Segment};
use rqemu_machine::cpu::CpuRegs;
use rqemu_machine::error::strerror;
use rqemu_machine::memory::FlatKind;
use rqemu_machine::run::RunState;
use rqemu_machine::{qerr, QResult};
use serde_json::json;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;

qapi_enum! {
    /// Formats of dumps.
    pub enum DumpGuestMemoryFormat {
        Elf = "elf",
        KdumpZlib = "kdump-zlib",
        KdumpLzo = "kdump-lzo",
        KdumpSnappy = "kdump-snappy",
        WinDmp = "win-dmp",
    }
    /// States of a dump.
    pub enum DumpStatus {
        None = "none",
        Active = "active",
        Completed = "completed",
        Failed = "failed",
    }
}

qapi_struct! {
    /// Arguments of `dump-guest-memory`.
    pub struct DumpGuestMemory {
        /// Addresses are those that the guest's page tables give.
        paging: bool,
        /// `file:PATH` or `fd:NAME`.
        protocol: String,
        /// Do not wait.
        detach: Option<bool>,
        /// First physical address.
        begin: Option<i64>,
        /// Bytes.
        length: Option<i64>,
        /// Format.
        format: Option<DumpGuestMemoryFormat>,
    }
    /// Reply of `query-dump`.
    pub struct DumpQueryResult {
        /// State.
        status: DumpStatus,
        /// Bytes written.
        completed: i64,
        /// Bytes in all.
        total: i64,
    }
    /// Data of `DUMP_COMPLETED`.
    pub struct DumpCompleted {
        /// How it ended.
        result: DumpQueryResult,
        /// Why it failed.
        error: Option<String>,
    }
    /// Reply of `query-dump-guest-memory-capability`.
    pub struct DumpGuestMemoryCapability {
        /// Formats.
        formats: Vec<DumpGuestMemoryFormat>,
    }
}

pub(crate) fn query_dump(cx: &mut MonitorCx<'_, '_>, _: Empty) -> QResult<DumpQueryResult> {
    let none = DumpQueryResult { status: DumpStatus::None, completed: 0, total: 0 };
    Ok(cx.m.dump.map_or(none, |(written, completed, total)| DumpQueryResult {
        status: if written { DumpStatus::Completed } else { DumpStatus::Failed },
        completed,
        total,
    }))
}

pub(super) fn query_dump_guest_memory_capability(
    _: &mut MonitorCx<'_, '_>,
    _: Empty,
) -> QResult<DumpGuestMemoryCapability> {
    Ok(DumpGuestMemoryCapability { formats: vec![DumpGuestMemoryFormat::Elf] })
}

/// Where the dump goes.
fn open(cx: &mut MonitorCx<'_, '_>, protocol: &str) -> QResult<File> {
    if let Some(name) = protocol.strip_prefix("fd:") {
        let fd = cx.fds.take(name);
        return fd.map(File::from).ok_or_else(|| qerr!("File descriptor named '{name}' has not been found"));
    }
    let Some(path) = protocol.strip_prefix("file:") else {
        return Err(qerr!("Invalid parameter 'protocol'"));
    };
    let file = File::options().write(true).create(true).truncate(true).mode(0o400).open(path);
    file.map_err(|e| qerr!("Could not open '{path}': {}", strerror(&e)))
}

pub(crate) fn dump_guest_memory(cx: &mut MonitorCx<'_, '_>, args: DumpGuestMemory) -> QResult<()> {
    use DumpGuestMemoryFormat as F;
    let format = args.format.unwrap_or(F::Elf);
    if format != F::Elf && (args.paging || args.begin.is_some() || args.length.is_some()) {
        return Err(qerr!("kdump-compressed format doesn't support paging or filter"));
    }
    let window = match (args.begin, args.length) {
        (None, None) => None,
        (Some(_), None) => return Err(qerr!("Parameter 'length' is missing")),
        (None, Some(_)) => return Err(qerr!("Parameter 'begin' is missing")),
        (Some(begin), Some(length)) => Some((begin as u64, length as u64)),
    };
    if format != F::Elf {
        return Err(qerr!("{} is not available now", format.as_str()));
    }
    let file = open(cx, &args.protocol)?;
    let running = cx.m.run.state() == RunState::Running;
    cx.m.vm_stop(RunState::SaveVm);
    let result = write_dump(cx, file, args.paging, window);
    if running {
        cx.m.vm_start();
    }
    result
}

/// Writes the dump and tells how it ended. The guest stands still.
fn write_dump(
    cx: &mut MonitorCx<'_, '_>,
    file: File,
    paging: bool,
    window: Option<(u64, u64)>,
) -> QResult<()> {
    let mut memory = physical(cx);
    if let Some(window) = window {
        memory = elf::clip(&memory, window);
    }
    if memory.is_empty() {
        return Err(qerr!("dump: no guest memory to dump"));
    }
    let count = cx.m.run.vcpus.tids().len();
    let cpus: Vec<CpuRegs> = (0..count).filter_map(|i| cx.m.accel.cpu_regs(i)).collect();
    let pages = if paging { mapped(cx, &cpus)? } else { Vec::new() };
    // Without page tables, memory is where it is.
    let segments = if pages.is_empty() { memory.clone() } else { elf::intersect(&pages, &memory) };
    let core = Core::new(&cpus, segments, memory);
    let total = i64::try_from(core.bytes()).unwrap_or(i64::MAX);
    let mut done = 0i64;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    let written = core.write(&mut out, &mut |addr, buf| {
        super::memory::read_physical(cx, addr, buf);
        done += buf.len() as i64;
    });
    let written = written.and_then(|()| out.flush());
    let error = written.err().map(|e| format!("dump: failed to save memory: {}", strerror(&e)));
    cx.m.dump = Some((error.is_none(), done, total));
    let status = if error.is_none() { DumpStatus::Completed } else { DumpStatus::Failed };
    let mut data = json!({"result": {"total": total, "status": status.as_str(), "completed": done}});
    if let Some(text) = &error {
        data["error"] = text.as_str().into();
    }
    cx.m.emit("DUMP_COMPLETED", Some(data));
    error.map_or(Ok(()), |text| Err(qerr!("{text}")))
}

/// RAM and ROM of the guest.
fn physical(cx: &MonitorCx<'_, '_>) -> Vec<Segment> {
    let mut list: Vec<Segment> = Vec::new();
    let mut host_end = 0;
    for r in cx.m.flat().mem.ranges() {
        let FlatKind::Ram { block, .. } = &r.kind else { continue };
        let (host, size) = (block.host() as u64 + r.offset, r.last - r.start + 1);
        match list.last_mut() {
            // Neighbours in the guest that are neighbours in the program are one.
            Some(last) if last.physical + last.size == r.start && host_end == host => last.size += size,
            _ => list.push(Segment { physical: r.start, address: r.start, size }),
        }
        host_end = host + size;
    }
    list
}

/// What the page tables of the CPUs map.
fn mapped(cx: &mut MonitorCx<'_, '_>, cpus: &[CpuRegs]) -> QResult<Vec<Segment>> {
    let mut list: Vec<Segment> = Vec::new();
    let mut roots = Vec::new();
    for regs in cpus.iter().filter(|r| r.cr[0] >> 31 & 1 != 0) {
        if roots.contains(&regs.cr[2]) {
            continue;
        }
        roots.push(regs.cr[2]);
        let mut read = |addr: u64, buf: &mut [u8]| super::memory::read_physical(cx, addr, buf);
        let walked = paging::walk(&mut read, regs, &mut |page| {
            let (address, physical) = (page.shown(), page.physical());
            match list.last_mut() {
                Some(l) if l.address + l.size == address && l.physical + l.size == physical => {
                    l.size += page.size
                }
                _ => list.push(Segment { physical, address, size: page.size }),
            }
        });
        walked.map_err(|_| qerr!("dump: the guest's page tables map too much"))?;
    }
    Ok(list)
}
