//! KVM assist: instructions that KVM stops at because its emulator lacks them run on the software CPU.
//!
//! KVM emulates guests in places: real mode on old processors, device accesses, and on some hosts all kernel code. Where its
//! emulator gives up (`KVM_EXIT_INTERNAL_ERROR`, suberror 1) the guest's state is intact, so another engine can execute the
//! instruction and KVM goes on behind it. Failures that follow each other closely come from code that KVM can make
//! nothing of; then the runs get longer. `-accel kvm,x-assist=off` turns it off; the guest stops then, as under QEMU.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use kvm_bindings::{
    kvm_debugregs, kvm_dtable, kvm_mp_state, kvm_msr_entry, kvm_regs, kvm_segment, kvm_sregs, kvm_xcrs,
    kvm_xsave, Msrs, KVM_MP_STATE_HALTED,
};
use kvm_ioctls::VcpuFd;
use rqemu_x86::bus::{Bus, Page};
use rqemu_x86::state::{gpr, sreg, Segment, TableReg};
use rqemu_x86::{Cpu, Exit, Model};

use super::vcpu::KvmVcpu;
use crate::accel::tcg::memory_page;
use crate::accel::Activity;
use crate::memory::{access, FlatMaps, Space};
use crate::run::Cause;
use crate::shared::Shared;

/// Instructions that KVM could not execute, of all guests of this process.
static HELPED: AtomicU64 = AtomicU64::new(0);

/// How many instructions the software CPU has executed for KVM.
pub fn helped() -> u64 {
    HELPED.load(Ordering::Relaxed)
}

/// Longest run of instructions before KVM is tried again.
const LONGEST: u32 = 20_000;
/// Failures closer together than this belong to the same code.
const CLOSE: Duration = Duration::from_millis(1);

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

/// The software CPU beside a vCPU.
pub struct Assist {
    cpu: Box<Cpu>,
    bus: Arc<AssistBus>,
    /// Instructions of the next run.
    run: u32,
    last: Option<Instant>,
}

/// The machine as the helper sees it. What belongs to KVM's local APIC stays with KVM.
struct AssistBus {
    shared: Arc<Shared>,
    maps: ArcSwap<FlatMaps>,
}

impl Bus for AssistBus {
    fn page(&self, addr: u64, _write: bool) -> Page {
        memory_page(&self.maps.load(), addr)
    }
    fn mmio_read(&self, addr: u64, size: u8) -> u64 {
        let mut buf = [0u8; 8];
        let data = &mut buf[..usize::from(size.min(8))];
        access::read(&self.maps.load(), Space::Memory, addr, data, &mut &*self.shared);
        u64::from_le_bytes(buf)
    }
    fn mmio_write(&self, addr: u64, size: u8, value: u64) {
        let data = &value.to_le_bytes()[..usize::from(size.min(8))];
        access::write(&self.maps.load(), Space::Memory, addr, data, &mut &*self.shared);
    }
    fn port_in(&self, port: u16, size: u8) -> u32 {
        let mut buf = [0u8; 4];
        let data = &mut buf[..usize::from(size.min(4))];
        access::read(&self.maps.load(), Space::Io, u64::from(port), data, &mut &*self.shared);
        u32::from_le_bytes(buf)
    }
    fn port_out(&self, port: u16, size: u8, value: u32) {
        let data = &value.to_le_bytes()[..usize::from(size.min(4))];
        access::write(&self.maps.load(), Space::Io, u64::from(port), data, &mut &*self.shared);
    }
    fn take_interrupt(&self, _cpu: u32) -> Option<u8> {
        None
    }
    fn tsc(&self) -> u64 {
        // SAFETY: every x86-64 processor has the instruction.
        unsafe { core::arch::x86_64::_rdtsc() }
    }
}

impl Assist {
    /// A helper for a vCPU with this CPUID table. It executes whatever this engine can: KVM may show the guest more than
    /// the table does.
    pub fn new(index: usize, leaves: &[kvm_bindings::kvm_cpuid_entry2], shared: Arc<Shared>) -> Self {
        let leaves = leaves.iter().map(|e| rqemu_x86::cpuid::Leaf {
            leaf: e.function,
            sub: (e.flags & 1 != 0).then_some(e.index),
            regs: [e.eax, e.ebx, e.ecx, e.edx],
        });
        let model = Model::new(leaves.collect()).permissive();
        let maps = ArcSwap::new(shared.maps.load_full());
        Self {
            cpu: Box::new(Cpu::new(index as u32, model, Arc::default())),
            bus: Arc::new(AssistBus { shared, maps }),
            run: 1,
            last: None,
        }
    }

    /// Executes some instructions on the vCPU's state. `None`: it cannot.
    fn help(&mut self, fd: &VcpuFd) -> Option<Exit> {
        let now = Instant::now();
        let close = self.last.is_some_and(|t| now - t < CLOSE);
        self.run = if close { (self.run * 4).min(LONGEST) } else { 1 };
        self.bus.maps.store(self.bus.shared.maps.load_full());
        self.cpu.flush_tlb_all();
        self.cpu.forget_code();
        load(&mut self.cpu, fd)?;
        let mut exit = Exit::Interrupted;
        let mut done = 0;
        while done < self.run {
            done += 1;
            if let Some(e) = self.cpu.step_one(&*self.bus) {
                exit = e;
                break;
            }
            if self.bus.shared.vcpus.pausing() {
                break;
            }
        }
        HELPED.fetch_add(u64::from(done), Ordering::Relaxed);
        store(&mut self.cpu, fd)?;
        self.last = Some(Instant::now());
        Some(exit)
    }
}

impl KvmVcpu {
    /// Tries to get past an instruction that KVM cannot emulate.
    pub(super) fn assist(&mut self) -> bool {
        let Some(leaves) = &self.helper else { return false };
        let (index, shared) = (self.index, &self.shared);
        let assist = self.assist.get_or_insert_with(|| Assist::new(index, leaves, shared.clone()));
        let first = helped() == 0;
        let Some(exit) = assist.help(&self.fd) else { return false };
        if first {
            eprintln!(
                "rqemu-system-x86_64: warning: KVM cannot execute all of the guest's instructions; the software CPU helps"
            );
        }
        match exit {
            Exit::Interrupted => {}
            Exit::Hlt => {
                self.activity = Activity::Halted;
                // Where KVM keeps track of it; where it does not, the call fails and the line above counts.
                let _ = self.fd.set_mp_state(kvm_mp_state { mp_state: KVM_MP_STATE_HALTED });
            }
            Exit::Shutdown => self.shared.lock().request_reset(Cause::GuestReset),
        }
        true
    }
}

// ---- the state, both ways -----------------------------------------------------------------------------------------

/// Where the parts of the XSAVE area lie.
const HEADER: usize = 512;
const YMM_HIGH: usize = 576;

fn load(c: &mut Cpu, fd: &VcpuFd) -> Option<()> {
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
    if let Ok(e) = fd.get_vcpu_events() {
        c.inhibit = e.interrupt.shadow != 0;
        c.nmi_masked = e.nmi.masked != 0;
    }
    load_fpu(c, &bytes(&fd.get_xsave().ok()?));
    load_msrs(c, fd);
    c.update_mode();
    Some(())
}

fn store(c: &mut Cpu, fd: &VcpuFd) -> Option<()> {
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
        ss: kvm_seg(&c.segs[sreg::SS]),
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
    if let Ok(mut e) = fd.get_vcpu_events() {
        e.interrupt.shadow = u8::from(c.inhibit);
        e.nmi.masked = u8::from(c.nmi_masked);
        fd.set_vcpu_events(&e).ok()?;
    }
    let area = store_fpu(c, fd.get_xsave().ok()?);
    // SAFETY: the area is the one that was read, of its size, with other contents.
    unsafe { fd.set_xsave(&area) }.ok()?;
    store_msrs(c, fd);
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

fn bytes(x: &kvm_xsave) -> Vec<u8> {
    x.region.iter().flat_map(|w| w.to_le_bytes()).collect()
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

fn store_fpu(c: &mut Cpu, mut x: kvm_xsave) -> kvm_xsave {
    let mut b = bytes(&x);
    let image = c.fxsave_image();
    b[..416].copy_from_slice(&image[..416]);
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
    x
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

fn load_msrs(c: &mut Cpu, fd: &VcpuFd) {
    for e in msr_values(fd).unwrap_or_default() {
        if e.index == MSR_TSC {
            // SAFETY: every x86-64 processor has the instruction.
            let host = unsafe { core::arch::x86_64::_rdtsc() };
            c.tsc_offset = e.data.wrapping_sub(host);
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
