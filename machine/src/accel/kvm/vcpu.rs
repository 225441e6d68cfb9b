//! A vCPU thread: guest mode, exits, reset.

use std::sync::Arc;

use kvm_bindings::{
    kvm_debugregs, kvm_lapic_state, kvm_mp_state, kvm_regs, kvm_run, kvm_sregs, kvm_vcpu_events, kvm_xcrs,
    kvm_xsave, MsrList, Msrs, KVM_EXIT_DEBUG, KVM_EXIT_FAIL_ENTRY, KVM_EXIT_HLT, KVM_EXIT_INTERNAL_ERROR,
    KVM_EXIT_INTR, KVM_EXIT_IO, KVM_EXIT_IOAPIC_EOI, KVM_EXIT_IO_OUT, KVM_EXIT_IRQ_WINDOW_OPEN,
    KVM_EXIT_MMIO, KVM_EXIT_SET_TPR, KVM_EXIT_SHUTDOWN, KVM_EXIT_SYSTEM_EVENT, KVM_INTERNAL_ERROR_EMULATION,
    KVM_SYSTEM_EVENT_RESET, KVM_SYSTEM_EVENT_SHUTDOWN,
};
use kvm_ioctls::VcpuFd;

use super::assist::{self, Assist, Helper};
use super::regs;
use super::user_irq::UserIrqs;
use crate::accel::{Activity, DebugStop, GuestDebug};
use crate::cpu::{BackdoorRegs, BootRegs};
use crate::devices::misc::vmport;
use crate::memory::{access, MapsReader, Space};
use crate::run::{Cause, RunState};
use crate::shared::Shared;

/// State right after creation, which is the architectural reset state.
pub struct ResetState {
    regs: kvm_regs,
    sregs: kvm_sregs,
    xsave: Option<kvm_xsave>,
    xcrs: Option<kvm_xcrs>,
    debug: Option<kvm_debugregs>,
    events: Option<kvm_vcpu_events>,
    lapic: Option<kvm_lapic_state>,
    mp: Option<kvm_mp_state>,
    msrs: Option<Msrs>,
}

/// MSRs that must not be written back on reset: time stamps go on, and write-only or read-only ones fail.
const KEEP_MSRS: [u32; 4] = [0x10, 0x6e0, 0x3b, 0x8b];

impl ResetState {
    /// Reads everything that a reset puts back.
    pub fn capture(fd: &VcpuFd, list: Option<&MsrList>) -> Self {
        let msrs = list.and_then(|l| {
            let entries: Vec<_> = l
                .as_slice()
                .iter()
                .filter(|i| !KEEP_MSRS.contains(i))
                .map(|i| kvm_bindings::kvm_msr_entry { index: *i, ..Default::default() })
                .collect();
            let mut m = Msrs::from_entries(&entries).ok()?;
            let n = fd.get_msrs(&mut m).ok()?;
            Msrs::from_entries(&m.as_slice()[..n]).ok()
        });
        Self {
            regs: fd.get_regs().unwrap_or_default(),
            sregs: fd.get_sregs().unwrap_or_default(),
            xsave: fd.get_xsave().ok(),
            xcrs: fd.get_xcrs().ok(),
            debug: fd.get_debug_regs().ok(),
            events: fd.get_vcpu_events().ok(),
            lapic: fd.get_lapic().ok(),
            mp: fd.get_mp_state().ok(),
            msrs,
        }
    }

    /// Puts it back. What this KVM could not read it need not write.
    fn restore(&self, fd: &VcpuFd) {
        let _ = fd.set_sregs(&self.sregs);
        let _ = fd.set_regs(&self.regs);
        if let Some(x) = &self.xsave {
            // SAFETY: the area was filled by KVM_GET_XSAVE of the same vCPU and has its size.
            let _ = unsafe { fd.set_xsave(x) };
        }
        if let Some(x) = &self.xcrs {
            let _ = fd.set_xcrs(x);
        }
        if let Some(d) = &self.debug {
            let _ = fd.set_debug_regs(d);
        }
        if let Some(m) = &self.msrs {
            // One by one: KVM stops at the first that it refuses.
            for e in m.as_slice() {
                if let Ok(one) = Msrs::from_entries(&[*e]) {
                    let _ = fd.set_msrs(&one);
                }
            }
        }
        if let Some(l) = &self.lapic {
            let _ = fd.set_lapic(l);
        }
        if let Some(e) = &self.events {
            let _ = fd.set_vcpu_events(e);
        }
        if let Some(m) = self.mp {
            let _ = fd.set_mp_state(m);
        }
    }
}

/// A vCPU as its thread owns it.
pub struct KvmVcpu {
    pub(super) index: usize,
    /// The vCPU.
    pub fd: VcpuFd,
    pub(super) shared: Arc<Shared>,
    maps: MapsReader,
    /// Reset state.
    pub reset: Option<ResetState>,
    /// Interrupts that come from user space.
    pub(super) irqs: UserIrqs,
    /// What this vCPU does, where KVM does not keep track of it.
    pub(super) activity: Activity,
    /// The software CPU beside this one, once it was needed.
    pub(super) assist: Option<Box<Assist>>,
    /// What it needs; `None`: it must not be used.
    pub(super) helper: Option<Helper>,
    /// What the debugger wants KVM to stop at.
    pub(super) debug: GuestDebug,
    /// The last exit's effect on registers is not complete yet (KVM completes it on the next entry).
    pending: bool,
}

/// The run page, shared with whoever kicks the vCPU.
struct RunPage(*mut kvm_run);
// SAFETY: only the one-byte `immediate_exit` field is written through this pointer, with a volatile store, which is how
// the KVM API defines it; the page lives until the vCPU unregisters its kick.
unsafe impl Send for RunPage {}
// SAFETY: as above.
unsafe impl Sync for RunPage {}

impl RunPage {
    fn set_immediate_exit(&self) {
        // SAFETY: see the type.
        unsafe { std::ptr::write_volatile(&raw mut (*self.0).immediate_exit, 1) };
    }
}

impl KvmVcpu {
    /// Wraps a new vCPU.
    pub fn new(index: usize, fd: VcpuFd, shared: Arc<Shared>, irqs: UserIrqs) -> Self {
        let maps = shared.maps.reader();
        Self {
            index,
            fd,
            shared,
            maps,
            reset: None,
            irqs,
            activity: Activity::at_reset(index),
            assist: None,
            helper: None,
            debug: GuestDebug::default(),
            pending: false,
        }
    }

    /// The thread: parks until resumed, runs the guest, handles exits.
    pub fn run(mut self) {
        let shared = self.shared.clone();
        let page = RunPage(std::ptr::from_mut(self.fd.get_kvm_run()));
        let (irqs, index) = (self.irqs.clone(), self.index);
        let word = self.helper.as_ref().map(|h| h.word.clone());
        let kick = move || {
            page.set_immediate_exit();
            word.iter().for_each(|w| assist::kick(w));
            irqs.wake(index);
        };
        shared.vcpus.enter(self.index, Arc::new(kick));
        while shared.vcpus.park(self.index, &mut self) {
            // The guest's watchdogs learn that it did not run; without a paravirtual clock there is nobody to tell.
            let _ = self.fd.kvmclock_ctrl();
            while !shared.vcpus.pausing() {
                if self.prepare_irqs() {
                    self.enter_guest();
                    self.finish_irqs();
                }
            }
            self.complete_exit();
            self.assist_parks();
            // A parked vCPU keeps no old map, and the memory in it, alive.
            self.maps.load();
        }
        shared.vcpus.leave(self.index);
    }

    /// Lets KVM finish the last I/O exit, so that the registers are those after the instruction.
    fn complete_exit(&mut self) {
        if std::mem::take(&mut self.pending) {
            self.fd.set_kvm_immediate_exit(1);
            let _ = self.fd.run();
        }
        self.fd.set_kvm_immediate_exit(0);
    }

    fn enter_guest(&mut self) {
        match self.fd.run() {
            Ok(_) => self.handle_exit(),
            Err(e) if e.errno() == libc::EINTR || e.errno() == libc::EAGAIN => {
                self.pending = false;
                self.fd.set_kvm_immediate_exit(0);
            }
            Err(e) => self
                .fail(&format!("error: kvm run failed {}", crate::error::strerror(&std::io::Error::from(e)))),
        }
    }

    fn handle_exit(&mut self) {
        self.pending = false;
        let run = self.fd.get_kvm_run();
        match run.exit_reason {
            KVM_EXIT_IO => {
                self.pending = true;
                self.port_io();
            }
            KVM_EXIT_MMIO => {
                self.pending = true;
                self.mmio();
            }
            KVM_EXIT_HLT => self.activity = Activity::Halted,
            KVM_EXIT_INTR | KVM_EXIT_IRQ_WINDOW_OPEN | KVM_EXIT_SET_TPR => {}
            KVM_EXIT_IOAPIC_EOI => {
                // SAFETY: the exit reason says which member of the union is valid.
                let vector = unsafe { run.__bindgen_anon_1.eoi.vector };
                self.shared.lock().end_of_interrupt(vector);
            }
            KVM_EXIT_SHUTDOWN => self.shared.lock().request_reset(Cause::GuestReset),
            KVM_EXIT_SYSTEM_EVENT => {
                // SAFETY: the exit reason says which member of the union is valid.
                let kind = unsafe { run.__bindgen_anon_1.system_event.type_ };
                match kind {
                    KVM_SYSTEM_EVENT_SHUTDOWN => self.shared.lock().request_shutdown(Cause::GuestShutdown),
                    KVM_SYSTEM_EVENT_RESET => self.shared.lock().request_reset(Cause::GuestReset),
                    _ => {}
                }
            }
            KVM_EXIT_DEBUG => {
                // SAFETY: the exit reason says which member of the union is valid.
                let d = unsafe { run.__bindgen_anon_1.debug.arch };
                if !self.assist_stepped() {
                    self.debug_stop(d.exception, d.pc, d.dr6);
                } else if !self.assist(false) {
                    self.fail("the software CPU cannot take the vCPU's state over");
                }
            }
            KVM_EXIT_INTERNAL_ERROR => self.internal_error(),
            KVM_EXIT_FAIL_ENTRY => {
                // SAFETY: the exit reason says which member of the union is valid.
                let why = unsafe { run.__bindgen_anon_1.fail_entry.hardware_entry_failure_reason };
                self.fail(&format!("KVM: entry failed, hardware error 0x{why:x}"));
            }
            other => self.fail(&format!("KVM: unknown exit reason {other}")),
        }
    }

    /// Stops the machine for the debugger.
    pub(super) fn debug_stop(&self, exception: u32, pc: u64, dr6: u64) {
        let mut m = self.shared.lock();
        m.debug_stop = Some(DebugStop { cpu: self.index, exception, pc, dr6 });
        m.run.request_stop(RunState::Debug);
    }

    /// Says what the debugger wants KVM to stop at; `false`: it cannot.
    pub(super) fn set_debug(&mut self, debug: &GuestDebug) -> bool {
        let ok = super::debug::set(&self.fd, debug);
        self.debug = *debug;
        self.assist_debugged();
        ok
    }

    /// Port access: `count` elements of `size` bytes, all at the same port.
    fn port_io(&mut self) {
        let Self { fd, index, shared, maps, .. } = self;
        let run = fd.get_kvm_run();
        // SAFETY: the exit reason is KVM_EXIT_IO, so `io` is the valid member.
        let io = unsafe { run.__bindgen_anon_1.io };
        let base = std::ptr::from_mut(run).cast::<u8>();
        let (size, count) = (usize::from(io.size), io.count as usize);
        // SAFETY: KVM puts `size * count` bytes of data at `data_offset` within the vCPU's shared mapping.
        let data = unsafe { std::slice::from_raw_parts_mut(base.add(io.data_offset as usize), size * count) };
        let out = u32::from(io.direction) == KVM_EXIT_IO_OUT;
        if io.port == vmport::PORT && count == 1 && Self::backdoor(fd, *index, shared, out, data) {
            return;
        }
        let maps = maps.load();
        for item in data.chunks_exact_mut(size) {
            let (port, mut target) = (u64::from(io.port), &**shared);
            if out {
                access::write(maps, Space::Io, port, item, &mut target);
            } else {
                access::read(maps, Space::Io, port, item, &mut target);
            }
        }
    }

    /// An access to the VMware port, which works on the processor's registers. `false`: nobody answers there.
    fn backdoor(fd: &VcpuFd, cpu: usize, shared: &Shared, out: bool, data: &mut [u8]) -> bool {
        let Ok(mut r) = fd.get_regs() else { return false };
        let mut b = BackdoorRegs {
            cpu,
            eax: r.rax as u32,
            ebx: r.rbx as u32,
            ecx: r.rcx as u32,
            edx: r.rdx as u32,
            esi: r.rsi as u32,
            edi: r.rdi as u32,
        };
        let before = b;
        let Some(answer) = shared.lock().vmport_access(&mut b) else { return false };
        if !out {
            let n = data.len().min(4);
            data[..n].copy_from_slice(&answer.to_le_bytes()[..n]);
        }
        if b != before {
            for (reg, old, new) in [
                (&mut r.rax, before.eax, b.eax),
                (&mut r.rbx, before.ebx, b.ebx),
                (&mut r.rcx, before.ecx, b.ecx),
                (&mut r.rdx, before.edx, b.edx),
                (&mut r.rsi, before.esi, b.esi),
                (&mut r.rdi, before.edi, b.edi),
            ] {
                if old != new {
                    *reg = new.into();
                }
            }
            let _ = fd.set_regs(&r);
        }
        true
    }

    fn mmio(&mut self) {
        let Self { fd, index, shared, maps, irqs, .. } = self;
        let run = fd.get_kvm_run();
        // SAFETY: the exit reason is KVM_EXIT_MMIO, so `mmio` is the valid member.
        let mmio = unsafe { &mut run.__bindgen_anon_1.mmio };
        let len = (mmio.len as usize).min(8);
        if let UserIrqs::User(bus) = irqs {
            if mmio.phys_addr & !0xfff == bus.page(*index) {
                let (offset, data) = (mmio.phys_addr as u32 & 0xfff, &mut mmio.data);
                if let Some(v) = bus.access(*index, offset, &mut data[..len], mmio.is_write != 0) {
                    shared.lock().end_of_interrupt(v);
                }
                return;
            }
        }
        let maps = maps.load();
        let (addr, mut target) = (mmio.phys_addr, &**shared);
        if mmio.is_write != 0 {
            access::write(maps, Space::Memory, addr, &mmio.data[..len], &mut target);
        } else {
            access::read(maps, Space::Memory, addr, &mut mmio.data[..len], &mut target);
        }
    }

    fn internal_error(&mut self) {
        let run = self.fd.get_kvm_run();
        // SAFETY: the exit reason says which member of the union is valid.
        let (sub, n, data) = unsafe {
            let i = &run.__bindgen_anon_1.internal;
            (i.suberror, i.ndata, i.data)
        };
        if sub == KVM_INTERNAL_ERROR_EMULATION {
            // Its flags, then the length and the bytes of the instruction.
            const INT3: u64 = 0xcc;
            if self.debug.software && n > 1 && data[0] & 1 != 0 && data[1] >> 8 & 0xff == INT3 {
                let pc = regs::linear_pc(&self.fd);
                return self.debug_stop(3, pc, 0);
            }
            if self.assist(true) {
                return;
            }
        }
        let mut text = format!("KVM internal error. Suberror: {sub}\n");
        for (i, d) in data.iter().take(n as usize).enumerate() {
            text.push_str(&format!("extra data[{i}]: 0x{d:016x}\n"));
        }
        if sub == 1 {
            text.push_str("emulation failure\n");
        }
        eprint!("{text}{}", crate::cpu::dump(&regs::read(&self.fd)));
        self.shared.lock().run.request_stop(RunState::InternalError);
    }

    fn fail(&mut self, text: &str) {
        eprint!("{text}\n{}", crate::cpu::dump(&regs::read(&self.fd)));
        self.shared.lock().run.request_stop(RunState::InternalError);
    }

    /// Back to the reset state (or the direct boot entry).
    pub fn reset(&mut self, boot: Option<&BootRegs>) {
        self.pending = false;
        self.activity = Activity::at_reset(self.index);
        self.assist_reset();
        self.restore_registers();
        if let Some(b) = boot {
            let _ = self.boot(b);
        }
    }

    /// Puts the processor where a boot without firmware starts it.
    pub(super) fn boot(&self, b: &BootRegs) -> Result<(), kvm_ioctls::Error> {
        regs::set_handover_msrs(&self.fd, &b.handover);
        if self.index != 0 {
            return Ok(());
        }
        regs::set_handover_lapic(&self.fd, &b.handover);
        regs::set_boot_regs(&self.fd, b)
    }

    /// Registers as they were right after creation.
    pub(super) fn restore_registers(&self) {
        if let Some(r) = &self.reset {
            r.restore(&self.fd);
        }
    }
}
