//! Memory, ports, expressions.

use crate::commands::{cpu, memory, paging};
use crate::hmp::{Args, Format, HmpCx};
use rqemu_machine::memory::{FlatKind, Space};
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
        ('c', _) => character(value as u8),
        (_, true) => format!("{signed:dec$}"),
        (_, false) => signed.to_string(),
    }
}

/// A byte as a C character constant.
fn character(b: u8) -> String {
    match b {
        b'\'' => "'\\''".into(),
        b'\\' => "'\\\\'".into(),
        b'\n' => "'\\n'".into(),
        b'\r' => "'\\r'".into(),
        32..=126 => format!("'{}'", b as char),
        _ => format!("'\\x{b:02x}'"),
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
