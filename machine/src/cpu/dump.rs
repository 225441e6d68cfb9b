//! Text form of a CPU's registers, in the layout that people and scripts know from QEMU.

use std::fmt::Write;

use super::CpuRegs;

const SEGMENT_NAMES: [&str; 6] = ["ES", "CS", "SS", "DS", "FS", "GS"];

/// Registers as `info registers` prints them.
pub fn dump(r: &CpuRegs) -> String {
    let mut out = String::new();
    let long = r.efer & 0x400 != 0;
    let f = |bit: u32, c: char| if r.rflags >> bit & 1 != 0 { c } else { '-' };
    let flags: String =
        [f(10, 'D'), f(11, 'O'), f(7, 'S'), f(6, 'Z'), f(4, 'A'), f(2, 'P'), f(0, 'C')].iter().collect();
    let (smm, halted) = (u8::from(r.smm), u8::from(r.halted));
    let tail = format!("[{flags}] CPL={} II=0 A20=1 SMM={smm} HLT={halted}", r.cpl());
    // Writing to a String cannot fail.
    let w = &mut out;
    let g = &r.gpr;
    if long {
        const N: [&str; 16] = [
            "RAX", "RBX", "RCX", "RDX", "RSI", "RDI", "RBP", "RSP", "R8 ", "R9 ", "R10", "R11", "R12", "R13",
            "R14", "R15",
        ];
        for (i, n) in N.iter().enumerate() {
            let end = if i % 4 == 3 { '\n' } else { ' ' };
            let _ = write!(w, "{n}={:016x}{end}", g[i]);
        }
        let _ = writeln!(w, "RIP={:016x} RFL={:08x} {tail}", r.rip, r.rflags as u32);
    } else {
        const N: [&str; 8] = ["EAX", "EBX", "ECX", "EDX", "ESI", "EDI", "EBP", "ESP"];
        for (i, n) in N.iter().enumerate() {
            let end = if i % 4 == 3 { '\n' } else { ' ' };
            let _ = write!(w, "{n}={:08x}{end}", g[i] as u32);
        }
        let _ = writeln!(w, "EIP={:08x} EFL={:08x} {tail}", r.rip as u32, r.rflags as u32);
    }
    let width = if long { 16 } else { 8 };
    for (i, s) in r.segments.iter().enumerate() {
        let name = SEGMENT_NAMES.get(i).map_or(if i == 6 { "LDT" } else { "TR " }, |n| n);
        let pad = if i < 6 { " " } else { "" };
        let _ =
            write!(w, "{name}{pad}={:04x} {:0width$x} {:08x} {:08x}", s.selector, s.base, s.limit, s.flags);
        let _ = writeln!(w, "{}", describe(s.flags));
    }
    let _ = writeln!(w, "GDT=     {:0width$x} {:08x}", r.gdt.0, r.gdt.1);
    let _ = writeln!(w, "IDT=     {:0width$x} {:08x}", r.idt.0, r.idt.1);
    let _ = writeln!(
        w,
        "CR0={:08x} CR2={:0width$x} CR3={:0width$x} CR4={:08x}",
        r.cr[0] as u32, r.cr[1], r.cr[2], r.cr[3] as u32
    );
    let _ =
        writeln!(w, "DR0={:016x} DR1={:016x} DR2={:016x} DR3={:016x} ", r.dr[0], r.dr[1], r.dr[2], r.dr[3]);
    let _ = writeln!(w, "DR6={:016x} DR7={:016x}", r.dr[4], r.dr[5]);
    let _ = writeln!(w, "EFER={:016x}", r.efer);
    fpu(r, w);
    out
}

/// ` DPL=0 CS64 [-RA]` and the like.
fn describe(flags: u32) -> String {
    if flags & 0x8000 == 0 {
        return String::new();
    }
    let dpl = flags >> 13 & 3;
    let bit = |n: u32, c: char| if flags >> n & 1 != 0 { c } else { '-' };
    if flags & 0x1000 != 0 {
        let (name, a, b) = if flags & 0x800 != 0 {
            let n = if flags >> 21 & 1 != 0 {
                "CS64"
            } else if flags >> 22 & 1 != 0 {
                "CS32"
            } else {
                "CS16"
            };
            (n, bit(10, 'C'), bit(9, 'R'))
        } else {
            let n = if flags >> 22 & 1 != 0 { "DS  " } else { "DS16" };
            (n, bit(10, 'E'), bit(9, 'W'))
        };
        return format!(" DPL={dpl} {name} [{a}{b}{}]", bit(8, 'A'));
    }
    const SYSTEM: [&str; 16] = [
        "Reserved",
        "TSS16-avl",
        "LDT",
        "TSS16-busy",
        "CallGate16",
        "TaskGate",
        "IntGate16",
        "TrapGate16",
        "Reserved",
        "TSS32-avl",
        "Reserved",
        "TSS32-busy",
        "CallGate32",
        "Reserved",
        "IntGate32",
        "TrapGate32",
    ];
    format!(" DPL={dpl} {}", SYSTEM[(flags >> 8 & 15) as usize])
}

fn fpu(r: &CpuRegs, w: &mut String) {
    let Some(x) = &r.fxsave else { return };
    let u16_at = |o: usize| u16::from_le_bytes([x[o], x[o + 1]]);
    let u64_at = |o: usize| x[o..o + 8].iter().rev().fold(0u64, |v, b| v << 8 | u64::from(*b));
    let mxcsr = x[24..28].iter().rev().fold(0u32, |v, b| v << 8 | u32::from(*b));
    let fsw = u16_at(2);
    let _ = writeln!(
        w,
        "FCW={:04x} FSW={:04x} [ST={}] FTW={:02x} MXCSR={mxcsr:08x}",
        u16_at(0),
        fsw,
        fsw >> 11 & 7,
        x[4]
    );
    for i in 0..8 {
        let o = 32 + i * 16;
        let end = if i % 2 == 1 { '\n' } else { ' ' };
        let _ = write!(w, "FPR{i}={:016x} {:04x}{end}", u64_at(o), u16_at(o + 8));
    }
    let n = if r.efer & 0x400 != 0 { 16 } else { 8 };
    for i in 0..n {
        let o = 160 + i * 16;
        let end = if i % 2 == 1 { '\n' } else { ' ' };
        let _ = write!(w, "XMM{i:02}={:016x} {:016x}{end}", u64_at(o + 8), u64_at(o));
    }
}
