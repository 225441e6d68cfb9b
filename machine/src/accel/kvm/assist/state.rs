//! The state of a vCPU, from KVM to the software CPU and back.

use std::sync::atomic::Ordering;

use kvm_bindings::{
    kvm_debugregs, kvm_dtable, kvm_msr_entry, kvm_regs, kvm_segment, kvm_sregs, kvm_vcpu_events, kvm_xcrs,
    kvm_xsave, Msrs, KVM_VCPUEVENT_VALID_SHADOW,
};
use kvm_ioctls::VcpuFd;
use rqemu_x86::state::{gpr, sreg, Segment, TableReg};
use rqemu_x86::Cpu;

use super::bus::AssistBus;

/// Registers that both engines keep: the model-specific ones.
const MSRS: [u32; 10] = [
    0x174,
    0x175,
    0x176,
    0x277,
    0xc000_0081,
    0xc000_0082,
    0xc000_0083,
    0xc000_0084,
    0xc000_0102,
    0xc000_0103,
];
const MSR_TSC: u32 = 0x10;

/// Page of the local APIC in the APIC base register.
const APIC_PAGE: u64 = 0x000f_ffff_ffff_f000;

/// An event that KVM had begun to deliver.
pub(super) struct Event {
    pub vector: u8,
    pub error: Option<u32>,
    /// From outside, that is, no exception.
    pub interrupt: bool,
}

/// The guest's time stamp counter relative to the host's, measured as exactly as it could be so far.
#[derive(Default)]
pub(super) struct TscOffset {
    value: u64,
    /// Ticks that the measurement took; 0: there is none yet.
    error: u64,
}

impl TscOffset {
    /// KVM read `guest` between the host's `before` and `after`.
    fn measured(&mut self, before: u64, guest: u64, after: u64) -> u64 {
        let error = after.wrapping_sub(before).max(1);
        let value = guest.wrapping_sub(before.wrapping_add(error / 2));
        let moved = value.wrapping_sub(self.value).cast_signed().unsigned_abs();
        if self.error == 0 || error < self.error || moved > error + self.error {
            (self.value, self.error) = (value, error);
        }
        self.value
    }
}

/// All that an instruction which made no progress leaves alone.
pub(super) fn place(c: &Cpu) -> ([u64; 16], u64) {
    let mut g = [0; 16];
    g.copy_from_slice(&c.regs[..16]);
    (g, c.rip)
}

/// Where the parts of the XSAVE area lie.
const HEADER: usize = 512;
const YMM_HIGH: usize = 576;

/// Loads the state. Returns what KVM had begun to deliver.
#[allow(clippy::option_option)]
pub(super) fn load(c: &mut Cpu, bus: &AssistBus, fd: &VcpuFd, tsc: &mut TscOffset) -> Option<Option<Event>> {
    let (r, s) = (fd.get_regs().ok()?, fd.get_sregs().ok()?);
    c.halted = false;
    let order = [
        r.rax, r.rcx, r.rdx, r.rbx, r.rsp, r.rbp, r.rsi, r.rdi, r.r8, r.r9, r.r10, r.r11, r.r12, r.r13,
        r.r14, r.r15,
    ];
    c.regs[..16].copy_from_slice(&order);
    c.rip = r.rip;
    for (n, seg) in [
        (sreg::ES, &s.es),
        (sreg::CS, &s.cs),
        (sreg::SS, &s.ss),
        (sreg::DS, &s.ds),
        (sreg::FS, &s.fs),
        (sreg::GS, &s.gs),
    ] {
        c.segs[n] = segment(seg);
    }
    (c.ldtr, c.tr) = (segment(&s.ldt), segment(&s.tr));
    c.gdtr = TableReg { base: s.gdt.base, limit: s.gdt.limit };
    c.idtr = TableReg { base: s.idt.base, limit: s.idt.limit };
    (c.cr0, c.cr2, c.cr3, c.cr4, c.efer) = (s.cr0, s.cr2, s.cr3, s.cr4, s.efer);
    c.set_rflags(r.rflags);
    c.cpl = if s.cr0 & 1 == 0 {
        0
    } else if r.rflags & 1 << 17 != 0 {
        3
    } else {
        s.ss.dpl & 3
    };
    c.xcr0 = fd
        .get_xcrs()
        .ok()
        .and_then(|x| x.xcrs.iter().take(x.nr_xcrs as usize).find(|e| e.xcr == 0).map(|e| e.value))
        .unwrap_or(1);
    let d = fd.get_debug_regs().unwrap_or_default();
    c.dr[..4].copy_from_slice(&d.db);
    (c.dr[6], c.dr[7]) = (d.dr6, d.dr7);
    let events = fd.get_vcpu_events().unwrap_or_default();
    c.inhibit = events.interrupt.shadow != 0;
    c.nmi_masked = events.nmi.masked != 0;
    load_fpu(c, &bytes(&fd.get_xsave().ok()?));
    load_msrs(c, fd, tsc);
    bus.set_apic(s.apic_base & APIC_PAGE, s.cr8);
    c.update_mode();
    Some(event(c, &events))
}

/// The event that KVM had begun to deliver; what else goes with it takes effect.
pub(super) fn event(c: &mut Cpu, e: &kvm_vcpu_events) -> Option<Event> {
    let x = &e.exception;
    if x.injected != 0 || x.pending != 0 {
        if x.pending != 0 && e.exception_has_payload != 0 {
            match x.nr {
                1 => c.dr[6] |= e.exception_payload,
                14 => c.cr2 = e.exception_payload,
                _ => {}
            }
        }
        let error = (x.has_error_code != 0).then_some(x.error_code);
        return Some(Event { vector: x.nr, error, interrupt: false });
    }
    if e.nmi.injected != 0 {
        c.nmi_masked = true;
        return Some(Event { vector: 2, error: None, interrupt: true });
    }
    // An INT instruction is executed anew.
    let outer = e.interrupt.injected != 0 && e.interrupt.soft == 0;
    outer.then_some(Event { vector: e.interrupt.nr, error: None, interrupt: true })
}

/// Stores the state. `None`: KVM refuses it.
pub(super) fn store(c: &mut Cpu, bus: &AssistBus, fd: &VcpuFd) -> Option<()> {
    let g = &c.regs;
    let regs = kvm_regs {
        rax: g[gpr::RAX],
        rcx: g[gpr::RCX],
        rdx: g[gpr::RDX],
        rbx: g[gpr::RBX],
        rsp: g[gpr::RSP],
        rbp: g[gpr::RBP],
        rsi: g[gpr::RSI],
        rdi: g[gpr::RDI],
        r8: g[8],
        r9: g[9],
        r10: g[10],
        r11: g[11],
        r12: g[12],
        r13: g[13],
        r14: g[14],
        r15: g[15],
        rip: c.rip,
        rflags: c.rflags(),
    };
    let old = fd.get_sregs().ok()?;
    let sregs = kvm_sregs {
        es: kvm_seg(&c.segs[sreg::ES]),
        cs: kvm_seg(&c.segs[sreg::CS]),
        ss: kvm_segment { dpl: c.cpl, ..kvm_seg(&c.segs[sreg::SS]) },
        ds: kvm_seg(&c.segs[sreg::DS]),
        fs: kvm_seg(&c.segs[sreg::FS]),
        gs: kvm_seg(&c.segs[sreg::GS]),
        ldt: kvm_seg(&c.ldtr),
        tr: kvm_seg(&c.tr),
        gdt: kvm_dtable { base: c.gdtr.base, limit: c.gdtr.limit, padding: [0; 3] },
        idt: kvm_dtable { base: c.idtr.base, limit: c.idtr.limit, padding: [0; 3] },
        cr0: c.cr0,
        cr2: c.cr2,
        cr3: c.cr3,
        cr4: c.cr4,
        efer: c.efer,
        cr8: bus.cr8.load(Ordering::Relaxed),
        interrupt_bitmap: [0; 4],
        ..old
    };
    if sregs != old {
        fd.set_sregs(&sregs).ok()?;
    }
    fd.set_regs(&regs).ok()?;
    let mut x = kvm_xcrs { nr_xcrs: 1, ..Default::default() };
    x.xcrs[0].value = c.xcr0;
    // Fails where the vCPU has no XSAVE; then the register cannot have changed.
    let _ = fd.set_xcrs(&x);
    let old = fd.get_debug_regs().unwrap_or_default();
    let d = kvm_debugregs { db: [c.dr[0], c.dr[1], c.dr[2], c.dr[3]], dr6: c.dr[6], dr7: c.dr[7], ..old };
    if d != old {
        fd.set_debug_regs(&d).ok()?;
    }
    store_events(c, fd)?;
    let mut area = fd.get_xsave().ok()?;
    if store_fpu(c, &mut area) {
        // SAFETY: the area is the one that was read, of its size, with other contents.
        unsafe { fd.set_xsave(&area) }.ok()?;
    }
    store_msrs(c, fd);
    Some(())
}

fn store_events(c: &Cpu, fd: &VcpuFd) -> Option<()> {
    let Ok(old) = fd.get_vcpu_events() else { return Some(()) };
    let mut e = old;
    e.interrupt.shadow = if c.inhibit { old.interrupt.shadow.max(1) } else { 0 };
    e.nmi.masked = u8::from(c.nmi_masked);
    e.nmi.injected = 0;
    (e.exception.injected, e.exception.pending, e.exception_has_payload) = (0, 0, 0);
    (e.interrupt.injected, e.interrupt.soft) = (0, 0);
    if e != old {
        // What may arrive from other threads meanwhile is not written.
        e.flags &= KVM_VCPUEVENT_VALID_SHADOW;
        fd.set_vcpu_events(&e).ok()?;
    }
    Some(())
}

fn segment(s: &kvm_segment) -> Segment {
    let attr = u16::from(s.type_)
        | u16::from(s.s) << 4
        | u16::from(s.dpl) << 5
        | u16::from(s.present) << 7
        | u16::from(s.avl) << 12
        | u16::from(s.l) << 13
        | u16::from(s.db) << 14
        | u16::from(s.g) << 15;
    Segment { base: s.base, limit: s.limit, sel: s.selector, attr: if s.unusable != 0 { 0 } else { attr } }
}

fn kvm_seg(s: &Segment) -> kvm_segment {
    let bit = |n: u16| (s.attr >> n & 1) as u8;
    kvm_segment {
        base: s.base,
        limit: s.limit,
        selector: s.sel,
        type_: (s.attr & 15) as u8,
        present: bit(7),
        dpl: (s.attr >> 5 & 3) as u8,
        db: bit(14),
        s: bit(4),
        l: bit(13),
        g: bit(15),
        avl: bit(12),
        unusable: u8::from(bit(7) == 0),
        padding: 0,
    }
}

/// The part of the area that both engines know: x87 and SSE, the header, upper halves of YMM registers.
fn bytes(x: &kvm_xsave) -> Vec<u8> {
    x.region.iter().take((YMM_HIGH + 256) / 4).flat_map(|w| w.to_le_bytes()).collect()
}

fn word(b: &[u8], at: usize) -> u64 {
    b.get(at..at + 8).and_then(|s| s.try_into().ok()).map_or(0, u64::from_le_bytes)
}

fn load_fpu(c: &mut Cpu, b: &[u8]) {
    let present = word(b, HEADER);
    // What is in its initial state need not be in the area.
    let mut image = [0u8; 512];
    image.copy_from_slice(&b[..512]);
    if present & 1 == 0 {
        image[..160].fill(0);
        image[..2].copy_from_slice(&0x37fu16.to_le_bytes());
        image[24..28].copy_from_slice(&b[24..28]);
    }
    if present & 2 == 0 {
        image[160..416].fill(0);
    }
    if present & 6 == 0 {
        image[24..28].copy_from_slice(&0x1f80u32.to_le_bytes());
    }
    c.set_fxsave_image(&image);
    for i in 0..16 {
        let at = YMM_HIGH + 16 * i;
        let high = if present & 4 != 0 { [word(b, at), word(b, at + 8)] } else { [0; 2] };
        (c.ymm[i].0[2], c.ymm[i].0[3]) = (high[0], high[1]);
    }
}

/// Puts x87, SSE and AVX state into the area; `false` if it is there already.
fn store_fpu(c: &mut Cpu, x: &mut kvm_xsave) -> bool {
    let old = bytes(x);
    let mut b = old.clone();
    let image = c.fxsave_image();
    b[..416].copy_from_slice(&image[..416]);
    // The mask is KVM's.
    b[28..32].copy_from_slice(&old[28..32]);
    let avx = c.xcr0 & 4 != 0;
    let present = word(&b, HEADER) | 3 | if avx { 4 } else { 0 };
    b[HEADER..HEADER + 8].copy_from_slice(&present.to_le_bytes());
    if avx {
        for (i, v) in c.ymm.iter().enumerate() {
            let at = YMM_HIGH + 16 * i;
            b[at..at + 8].copy_from_slice(&v.0[2].to_le_bytes());
            b[at + 8..at + 16].copy_from_slice(&v.0[3].to_le_bytes());
        }
    }
    for (w, chunk) in x.region.iter_mut().zip(b.chunks_exact(4)) {
        *w = u32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]);
    }
    b != old
}

fn msr_values(fd: &VcpuFd) -> Option<Vec<kvm_msr_entry>> {
    let entries: Vec<_> =
        MSRS.iter().chain([&MSR_TSC]).map(|i| kvm_msr_entry { index: *i, ..Default::default() }).collect();
    let mut m = Msrs::from_entries(&entries).ok()?;
    let n = fd.get_msrs(&mut m).ok()?;
    Some(m.as_slice().get(..n)?.to_vec())
}

fn slot(c: &mut Cpu, index: u32) -> Option<&mut u64> {
    let m = &mut c.msrs;
    Some(match index {
        0x174 => &mut m.sysenter_cs,
        0x175 => &mut m.sysenter_esp,
        0x176 => &mut m.sysenter_eip,
        0x277 => &mut m.pat,
        0xc000_0081 => &mut m.star,
        0xc000_0082 => &mut m.lstar,
        0xc000_0083 => &mut m.cstar,
        0xc000_0084 => &mut m.fmask,
        0xc000_0102 => &mut m.kernel_gs_base,
        0xc000_0103 => &mut m.tsc_aux,
        _ => return None,
    })
}

fn host_tsc() -> u64 {
    // SAFETY: every x86-64 processor has the instruction.
    unsafe { core::arch::x86_64::_rdtsc() }
}

fn load_msrs(c: &mut Cpu, fd: &VcpuFd, tsc: &mut TscOffset) {
    let before = host_tsc();
    let values = msr_values(fd).unwrap_or_default();
    let after = host_tsc();
    for e in values {
        if e.index == MSR_TSC {
            c.tsc_offset = tsc.measured(before, e.data, after);
        } else if let Some(v) = slot(c, e.index) {
            *v = e.data;
        }
    }
}

fn store_msrs(c: &mut Cpu, fd: &VcpuFd) {
    for mut e in msr_values(fd).unwrap_or_default() {
        let Some(v) = slot(c, e.index) else { continue };
        if *v != e.data {
            e.data = *v;
            if let Ok(m) = Msrs::from_entries(&[e]) {
                // KVM refuses what it refuses to the guest, too; the guest's own instruction was executed.
                let _ = fd.set_msrs(&m);
            }
        }
    }
}
