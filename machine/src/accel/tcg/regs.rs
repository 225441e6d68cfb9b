//! Registers of a software processor in the machine's terms.

use rqemu_x86::state::{cr0, cr4, efer, gpr, sreg, Segment, TableReg};
use rqemu_x86::Cpu;

use crate::cpu::{BootRegs, CpuRegs, SegmentReg};

fn segment(s: &Segment) -> SegmentReg {
    let attr = u32::from(s.attr);
    SegmentReg {
        selector: s.sel,
        base: s.base,
        limit: s.limit,
        flags: (attr & 0xff) << 8 | (attr & 0xf000) << 8,
    }
}

/// Numbers that instructions have for rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp; the others have their own.
const ORDER: [usize; 8] = [gpr::RAX, gpr::RBX, gpr::RCX, gpr::RDX, gpr::RSI, gpr::RDI, gpr::RBP, gpr::RSP];

/// Sets the general registers, rip and rflags.
pub fn set_general(c: &mut Cpu, r: &CpuRegs) {
    for (i, v) in r.gpr.iter().enumerate() {
        c.regs[ORDER.get(i).copied().unwrap_or(i)] = *v;
    }
    c.rip = r.rip;
    c.set_rflags(r.rflags);
    c.update_mode();
}

/// Reads the registers.
pub fn read(c: &Cpu, cr8: u64, halted: bool) -> CpuRegs {
    let mut gpr_values = [0; 16];
    for (i, v) in gpr_values.iter_mut().enumerate() {
        *v = c.regs[ORDER.get(i).copied().unwrap_or(i)];
    }
    let s = &c.segs;
    CpuRegs {
        gpr: gpr_values,
        rip: c.rip,
        rflags: c.rflags(),
        segments: [
            &s[sreg::ES],
            &s[sreg::CS],
            &s[sreg::SS],
            &s[sreg::DS],
            &s[sreg::FS],
            &s[sreg::GS],
            &c.ldtr,
            &c.tr,
        ]
        .map(segment),
        gdt: (c.gdtr.base, c.gdtr.limit),
        idt: (c.idtr.base, c.idtr.limit),
        cr: [c.cr0, c.cr2, c.cr3, c.cr4, cr8],
        efer: c.efer,
        halted,
        smm: c.smm,
        fxsave: Some(Box::new(c.fxsave_image())),
        dr: [c.dr[0], c.dr[1], c.dr[2], c.dr[3], c.dr[6], c.dr[7]],
        ..CpuRegs::default()
    }
}

/// Sets the boot processor up for a direct kernel boot.
pub fn set_boot_regs(c: &mut Cpu, b: &BootRegs) {
    let long = b.long_mode_cr3.is_some();
    let flat = |sel: u16, kind: u16, size: u16| Segment {
        sel,
        base: 0,
        limit: u32::MAX,
        attr: kind | Segment::S | Segment::P | Segment::G | size,
    };
    c.segs[sreg::CS] = flat(0x10, 0xb, if long { Segment::L } else { Segment::DB });
    for n in [sreg::ES, sreg::SS, sreg::DS, sreg::FS, sreg::GS] {
        c.segs[n] = flat(0x18, 0x3, Segment::DB);
    }
    c.gdtr = TableReg { base: b.gdt.0, limit: b.gdt.1 };
    c.idtr = TableReg::default();
    c.cr0 = cr0::PE | cr0::ET;
    if let Some(cr3) = b.long_mode_cr3 {
        c.cr3 = cr3;
        c.cr4 = cr4::PAE;
        c.cr0 |= cr0::PG;
        c.efer = efer::LME | efer::LMA;
    }
    c.rip = b.rip;
    for (n, v) in [(gpr::RSP, b.rsp), (gpr::RAX, b.rax), (gpr::RBX, b.rbx), (gpr::RSI, b.rsi)] {
        c.regs[n] = v;
    }
    c.regs[gpr::RDX] = 0;
    c.update_mode();
    c.flush_tlb_all();
}
