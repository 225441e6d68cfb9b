//! Memory, ports, expressions.

use crate::commands::{cpu, memory, paging};
use crate::hmp::{Args, Format, HmpCx};
use rqemu_machine::error::strerror;
use rqemu_machine::memory::{FlatKind, RamBlock, Space};
use rqemu_machine::{qerr, QResult};
use std::fmt::Write;

/// An item in the notation of a format letter; padded as a column of a dump if `column`.
fn item(value: u64, size: u8, letter: char, column: bool) -> String {
    let bits = u32::from(size) * 8;
    let value = if bits < 64 { value & ((1 << bits) - 1) } else { value };
    let signed = (value << (64 - bits)) as i64 >> (64 - bits);
    let (hex, oct, dec) = match size {
        1 => (2, 3, 3),
        2 => (4, 6, 5),
        4 => (8, 11, 10),
        _ => (16, 22, 20),
    };
    match (letter, column) {
        ('x' | 'o', false) if value == 0 => "0".into(),
        ('x', true) => format!("0x{value:0hex$x}"),
        ('x', false) => format!("0x{value:x}"),
        ('o', true) => format!("0{value:0oct$o}"),
        ('o', false) => format!("0{value:o}"),
        ('u', true) => format!("{value:dec$}"),
        ('u', false) => value.to_string(),
        ('c', _) => character(value as u32),
        (_, true) => format!("{signed:dec$}"),
        (_, false) => signed.to_string(),
    }
}

/// A number as a C character constant.
fn character(value: u32) -> String {
    match u8::try_from(value) {
        Ok(b'\'') => "'\\''".into(),
        Ok(b'\\') => "'\\\\'".into(),
        Ok(b'\n') => "'\\n'".into(),
        Ok(b'\r') => "'\\r'".into(),
        Ok(b @ 32..=126) => format!("'{}'", b as char),
        _ => format!("'\\x{value:02x}'"),
    }
}

pub(super) fn print(h: &mut HmpCx<'_, '_, '_>, args: &Args) {
    let letter = match args.format().letter {
        'i' => 'd',
        l => l,
    };
    h.line(item(args.int("val") as u64, 8, letter, false));
}

fn dump(h: &mut HmpCx<'_, '_, '_>, args: &Args, physical: bool) {
    let Format { count, letter, size } = args.format();
    if letter == 'i' {
        h.line("Asm output not supported on this arch");
        return;
    }
    let per_line = if size == 1 { 8 } else { 16 };
    let (mut addr, mut left) = (args.int("addr") as u64, count.max(0) as u64 * u64::from(size));
    let size = if letter == 'c' { 1 } else { size };
    let regs = if physical { None } else { cpu::registers(h.cx, h.cx.mon.cpu) };
    while left > 0 {
        let n = left.min(per_line);
        let mut buf = [0; 16];
        let line = &mut buf[..n as usize];
        let _ = write!(h, "{addr:016x}:");
        let readable = match &regs {
            None => read_any(h, addr, line),
            Some(regs) => paging::read_virtual(h.cx, regs, addr, line).is_ok(),
        };
        if !readable {
            h.line(" Cannot access memory");
            return;
        }
        for chunk in line.chunks(usize::from(size)) {
            let mut le = [0; 8];
            le[..chunk.len()].copy_from_slice(chunk);
            let _ = write!(h, " {}", item(u64::from_le_bytes(le), size, letter, true));
        }
        h.line("");
        addr = addr.wrapping_add(n);
        left -= n;
    }
}

/// Reads physical memory, RAM or a device's; false if nothing answers.
fn read_any(h: &mut HmpCx<'_, '_, '_>, addr: u64, buf: &mut [u8]) -> bool {
    let found = h.cx.m.flat().mem.find(addr).is_some();
    if found {
        h.cx.m.bus_read(Space::Memory, addr, buf);
    }
    found
}

pub(super) fn x(h: &mut HmpCx<'_, '_, '_>, args: &Args) {
    if h.cx.m.run.vcpus.tids().is_empty() {
        h.line("No CPU");
        return;
    }
    dump(h, args, false);
}

pub(super) fn xp(h: &mut HmpCx<'_, '_, '_>, args: &Args) {
    dump(h, args, true);
}

/// Owner of the port and offset in its region.
fn port(h: &HmpCx<'_, '_, '_>, addr: u16) -> Option<(FlatKind, u64)> {
    let range = h.cx.m.flat().io.find(addr.into())?;
    Some((range.kind.clone(), u64::from(addr) - range.start + range.offset))
}

pub(super) fn port_in(h: &mut HmpCx<'_, '_, '_>, args: &Args) {
    let size = args.format().size;
    let mut addr = args.int("addr") as u16;
    if let Some(index) = args.opt_int("index") {
        write_port(h, addr, 1, index as u64);
        addr = addr.wrapping_add(1);
    }
    // Sizes that a port cannot have are taken as a byte.
    let (suffix, bytes) = match size {
        2 => ('w', 2),
        4 => ('l', 4),
        _ => ('b', 1),
    };
    let value = match port(h, addr) {
        Some((FlatKind::Io { owner, spec }, offset)) => h.cx.m.io_read(owner, spec, offset, bytes),
        _ => u64::MAX,
    };
    let value = value & ((1 << (8 * bytes)) - 1);
    let digits = usize::from(size) * 2;
    h.line(format!("port{suffix}[0x{addr:04x}] = 0x{value:0digits$x}"));
}

fn write_port(h: &mut HmpCx<'_, '_, '_>, addr: u16, size: u8, value: u64) {
    if let Some((FlatKind::Io { owner, spec }, offset)) = port(h, addr) {
        h.cx.m.io_write(owner, spec, offset, size, value);
    }
}

pub(super) fn port_out(h: &mut HmpCx<'_, '_, '_>, args: &Args) {
    let size = match args.format().size {
        2 => 2,
        4 => 4,
        _ => 1,
    };
    write_port(h, args.int("addr") as u16, size, args.int("val") as u64);
}

pub(super) fn gva2gpa(h: &mut HmpCx<'_, '_, '_>, args: &Args) {
    let index = h.cx.mon.cpu;
    let Some(regs) = cpu::registers(h.cx, index) else {
        h.line("No cpu");
        return;
    };
    match paging::translate(h.cx, &regs, args.int("addr") as u64) {
        Ok(0) => h.line("gpa: 0"),
        Ok(addr) => h.line(format!("gpa: {addr:#x}")),
        Err(_) => h.line("Unmapped"),
    }
}

pub(super) fn memsave(h: &mut HmpCx<'_, '_, '_>, args: &Args) {
    let a = memory::Memsave {
        val: args.int("val"),
        size: args.int("size"),
        filename: args.str("filename").into(),
        cpu_index: None,
    };
    let result = memory::memsave(h.cx, a);
    h.report(result);
}

pub(super) fn pmemsave(h: &mut HmpCx<'_, '_, '_>, args: &Args) {
    let a = memory::Pmemsave {
        val: args.int("val"),
        size: args.int("size"),
        filename: args.str("filename").into(),
    };
    let result = memory::pmemsave(h.cx, a);
    h.report(result);
}

/// The RAM block that answers at a physical address, and the offset in it; prints what else is there.
fn ram_at(h: &mut HmpCx<'_, '_, '_>, addr: u64) -> Option<(std::sync::Arc<RamBlock>, u64)> {
    let range = h.cx.m.flat().mem.find(addr).map(|r| (r.kind.clone(), addr - r.start + r.offset));
    match range {
        Some((FlatKind::Ram { block, .. } | FlatKind::RomDevice { block, .. }, offset)) => {
            Some((block, offset))
        }
        Some(_) => {
            h.line(format!("Memory at address {addr:#x} is not RAM"));
            None
        }
        None => {
            h.line(format!("No memory is mapped at address {addr:#x}"));
            None
        }
    }
}

pub(super) fn gpa2hva(h: &mut HmpCx<'_, '_, '_>, args: &Args) {
    let addr = args.int("addr") as u64;
    let Some((block, offset)) = ram_at(h, addr) else { return };
    let host = block.host() as u64 + offset;
    h.line(format!("Host virtual address for {addr:#x} ({}) is {host:#x}", block.name()));
}

pub(super) fn gpa2hpa(h: &mut HmpCx<'_, '_, '_>, args: &Args) {
    let addr = args.int("addr") as u64;
    let Some((block, offset)) = ram_at(h, addr) else { return };
    let host = block.host() as u64 + offset;
    let result = host_physical(host);
    if let Some(physical) = h.report(result) {
        h.line(format!("Host physical address for {addr:#x} ({}) is {physical:#x}", block.name()));
    }
}

/// Physical address of memory of this process (`/proc/self/pagemap`, see the kernel's admin-guide/mm/pagemap.rst).
fn host_physical(addr: u64) -> QResult<u64> {
    use std::os::unix::fs::FileExt;
    const PRESENT: u64 = 1 << 63;
    const FRAME: u64 = (1 << 55) - 1;
    let map = std::fs::File::open("/proc/self/pagemap")
        .map_err(|e| qerr!("Cannot open /proc/self/pagemap: {}", strerror(&e)))?;
    let mut entry = [0; 8];
    map.read_exact_at(&mut entry, addr / 4096 * 8)
        .map_err(|e| qerr!("Cannot read pagemap: {}", strerror(&e)))?;
    let entry = u64::from_le_bytes(entry);
    if entry & PRESENT == 0 {
        return Err(qerr!("Page not present"));
    }
    Ok((entry & FRAME) * 4096 + addr % 4096)
}

/// The 16-bit checksum of BSD's `sum` over physical memory.
pub(super) fn sum(h: &mut HmpCx<'_, '_, '_>, args: &Args) {
    let (mut addr, mut left) = (args.int("start") as u64, args.int("size") as u32);
    let (mut sum, mut buf) = (0u16, [0; 4096]);
    while left > 0 {
        let part = &mut buf[..left.min(4096) as usize];
        memory::read_physical(h.cx, addr, part);
        for b in part.iter() {
            sum = sum.rotate_right(1).wrapping_add(u16::from(*b));
        }
        addr = addr.wrapping_add(part.len() as u64);
        left -= part.len() as u32;
    }
    h.line(format!("{sum:05}"));
}
