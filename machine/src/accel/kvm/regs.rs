//! Registers of a KVM vCPU.

use kvm_bindings::{kvm_msr_entry, kvm_regs, kvm_segment, Msrs, KVM_MP_STATE_HALTED};
use kvm_ioctls::{Error, VcpuFd};

use crate::cpu::{BootRegs, CpuRegs, Handover, SegmentReg};

fn segment(s: &kvm_segment) -> SegmentReg {
    let flags = u32::from(s.type_) << 8
        | u32::from(s.s) << 12
        | u32::from(s.dpl) << 13
        | u32::from(s.present) << 15
        | u32::from(s.avl) << 20
        | u32::from(s.l) << 21
        | u32::from(s.db) << 22
        | u32::from(s.g) << 23;
    SegmentReg { selector: s.selector, base: s.base, limit: s.limit, flags }
}

/// Reads the registers; what cannot be read stays zero.
pub fn read(fd: &VcpuFd) -> CpuRegs {
    let r = fd.get_regs().unwrap_or_default();
    let s = fd.get_sregs().unwrap_or_default();
    let d = fd.get_debug_regs().unwrap_or_default();
    let mut out = CpuRegs {
        gpr: [
            r.rax, r.rbx, r.rcx, r.rdx, r.rsi, r.rdi, r.rbp, r.rsp, r.r8, r.r9, r.r10, r.r11, r.r12, r.r13,
            r.r14, r.r15,
        ],
        rip: r.rip,
        rflags: r.rflags,
        segments: [&s.es, &s.cs, &s.ss, &s.ds, &s.fs, &s.gs, &s.ldt, &s.tr].map(segment),
        gdt: (s.gdt.base, s.gdt.limit),
        idt: (s.idt.base, s.idt.limit),
        cr: [s.cr0, s.cr2, s.cr3, s.cr4, s.cr8],
        efer: s.efer,
        smm: false,
        halted: fd.get_mp_state().is_ok_and(|m| m.mp_state == KVM_MP_STATE_HALTED),
        dr: [d.db[0], d.db[1], d.db[2], d.db[3], d.dr6, d.dr7],
        ..CpuRegs::default()
    };
    if let Ok(x) = fd.get_xsave() {
        let mut area = Box::new([0u8; 512]);
        for (chunk, word) in area.chunks_exact_mut(4).zip(x.region) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        out.fxsave = Some(area);
    }
    out
}

/// Linear address of the next instruction; 0 if it cannot be read.
pub fn linear_pc(fd: &VcpuFd) -> u64 {
    match (fd.get_regs(), fd.get_sregs()) {
        (Ok(r), Ok(s)) if s.cs.l != 0 => r.rip,
        (Ok(r), Ok(s)) => s.cs.base.wrapping_add(r.rip) & 0xffff_ffff,
        _ => 0,
    }
}

/// The general registers in KVM's form.
pub fn general(r: &CpuRegs) -> kvm_regs {
    let [rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp, r8, r9, r10, r11, r12, r13, r14, r15] = r.gpr;
    let (rip, rflags) = (r.rip, r.rflags);
    kvm_regs { rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8, r9, r10, r11, r12, r13, r14, r15, rip, rflags }
}

/// Memory types as firmware sets them. A KVM without them leaves them off.
pub fn set_handover_msrs(fd: &VcpuFd, h: &Handover) {
    let entry = |(index, data)| kvm_msr_entry { index, data, ..Default::default() };
    let entries: Vec<kvm_msr_entry> = h.msrs().into_iter().map(entry).collect();
    if let Ok(m) = Msrs::from_entries(&entries) {
        let _ = fd.set_msrs(&m);
    }
}

/// The local APIC as firmware leaves it, if the kernel runs it.
pub fn set_handover_lapic(fd: &VcpuFd, h: &Handover) {
    if h.lapic.is_empty() {
        return;
    }
    let Ok(mut state) = fd.get_lapic() else { return };
    for (offset, value) in h.lapic {
        let at = *offset as usize;
        for (to, from) in state.regs.iter_mut().skip(at).zip(value.to_le_bytes()) {
            *to = from as _;
        }
    }
    let _ = fd.set_lapic(&state);
}

/// Sets the boot processor up for a direct kernel boot.
pub fn set_boot_regs(fd: &VcpuFd, b: &BootRegs) -> Result<(), Error> {
    let mut s = fd.get_sregs()?;
    let long = b.long_mode_cr3.is_some();
    let flat = |selector: u16, type_: u8, code: bool| kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector,
        type_,
        present: 1,
        dpl: 0,
        db: u8::from(!(code && long)),
        s: 1,
        l: u8::from(code && long),
        g: 1,
        avl: 0,
        unusable: 0,
        padding: 0,
    };
    s.cs = flat(0x10, 0xb, true);
    let data = flat(0x18, 0x3, false);
    (s.ds, s.es, s.ss, s.fs, s.gs) = (data, data, data, data, data);
    s.gdt.base = b.gdt.0;
    s.gdt.limit = b.gdt.1;
    s.idt.base = 0;
    s.idt.limit = 0;
    s.cr0 = 0x11;
    s.cr4 = 0;
    if let Some(cr3) = b.long_mode_cr3 {
        s.cr3 = cr3;
        s.cr4 = 0x20;
        s.cr0 = 0x8000_0011;
        s.efer = 0x500;
    }
    fd.set_sregs(&s)?;
    fd.set_regs(&kvm_regs {
        rip: b.rip,
        rsp: b.rsp,
        rax: b.rax,
        rbx: b.rbx,
        rsi: b.rsi,
        rflags: 2,
        ..Default::default()
    })
}
