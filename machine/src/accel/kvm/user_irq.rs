//! Interrupt controllers in user space under KVM: `kernel-irqchip=off` and the 8259 of `kernel-irqchip=split`.
//!
//! Without a local APIC in the kernel, KVM neither waits in HLT nor starts application processors, and interrupts are
//! injected one by one when the guest can take them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use kvm_bindings::{kvm_enable_cap, kvm_interrupt, KVMIO, KVM_CAP_SPLIT_IRQCHIP};
use vmm_sys_util::ioctl::ioctl_with_ref;
use vmm_sys_util::ioctl_iow_nr;

use super::irq::PINS;
use super::vcpu::KvmVcpu;
use super::{ioctl_error, KvmAccel, VcpuConfig};
use crate::accel::lapic::{pending, ApicBus};
use crate::accel::{Activity, IrqChip};
use crate::clock::VirtualClock;
use crate::shared::Shared;
use crate::QResult;

ioctl_iow_nr!(KVM_INTERRUPT, KVMIO, 0x86, kvm_interrupt);

/// Where a vCPU's interrupts come from.
#[derive(Clone)]
pub enum UserIrqs {
    /// The kernel has everything.
    Kernel,
    /// The request line of the 8259.
    Split(Arc<AtomicBool>),
    /// Everything is in user space.
    User(Arc<ApicBus>),
}

impl UserIrqs {
    /// Wakes a vCPU that sleeps in user space.
    pub fn wake(&self, index: usize) {
        if let UserIrqs::User(bus) = self {
            bus.wake(index);
        }
    }

    /// Ends the timer thread.
    pub fn stop(&self) {
        if let UserIrqs::User(bus) = self {
            bus.stop_timers();
        }
    }
}

impl KvmAccel {
    /// Makes the controllers that live in user space (before the vCPUs).
    pub(super) fn set_up_irqs(
        &mut self,
        shared: &Arc<Shared>,
        cpus: &[VcpuConfig],
        clock: Arc<VirtualClock>,
    ) -> QResult<()> {
        match self.irqchip {
            IrqChip::Kernel => {}
            IrqChip::Split => {
                let cap = kvm_enable_cap {
                    cap: KVM_CAP_SPLIT_IRQCHIP,
                    args: [u64::from(PINS), 0, 0, 0],
                    ..Default::default()
                };
                self.vm.enable_cap(&cap).map_err(|e| ioctl_error("KVM_ENABLE_CAP", e))?;
                self.routes.pins.get_or_insert_with(|| vec![None; PINS as usize]);
                self.routes.commit(&self.vm)?;
                self.irqs = UserIrqs::Split(Arc::default());
            }
            IrqChip::User => {
                let ids: Vec<u32> = cpus.iter().map(|c| c.apic_id).collect();
                let bus = ApicBus::new(&ids, clock);
                for index in 0..cpus.len() {
                    let vcpus = shared.vcpus.clone();
                    bus.set_kick(index, Box::new(move |_| vcpus.kick(index)));
                }
                self.threads.push(bus.spawn_timers()?);
                self.irqs = UserIrqs::User(bus);
            }
        }
        Ok(())
    }
}

impl KvmVcpu {
    /// Hands interrupts over before the guest runs. `false`: it does not run now.
    pub(super) fn prepare_irqs(&mut self) -> bool {
        match self.irqs.clone() {
            UserIrqs::Kernel => true,
            UserIrqs::Split(line) => {
                if self.index == 0 {
                    self.offer(line.load(Ordering::SeqCst), |v| Some(v.shared.lock().acknowledge_pic()));
                }
                true
            }
            UserIrqs::User(bus) => self.prepare_apic(&bus),
        }
    }

    fn prepare_apic(&mut self, bus: &Arc<ApicBus>) -> bool {
        let index = self.index;
        let waiting = bus.pending(index);
        if waiting & pending::INIT != 0 {
            bus.init(index);
            self.restore_registers();
            self.activity = Activity::at_reset(index);
        }
        let ints = pending::APIC | pending::PIC;
        let open = if self.interrupts_on() { ints } else { 0 };
        let wanted = match self.activity {
            Activity::Running => 0,
            Activity::Halted => open | pending::UNMASKABLE,
            Activity::WaitForSipi => pending::INIT | pending::SIPI,
        };
        if wanted != 0 && bus.pending(index) & wanted == 0 {
            let shared = &self.shared;
            bus.halt(index, wanted, || shared.vcpus.pausing());
            return false;
        }
        if self.activity == Activity::WaitForSipi {
            let sipi = bus.take(index, pending::SIPI | 0xff << pending::SIPI_VECTOR);
            if sipi & pending::SIPI == 0 {
                return false;
            }
            self.start_at((sipi >> pending::SIPI_VECTOR) as u8);
        }
        self.activity = Activity::Running;
        if bus.take(index, pending::NMI) != 0 {
            // Fails only for a vCPU that cannot run at all, which the run call reports.
            let _ = self.fd.nmi();
        }
        let acknowledge = |v: &mut Self| match bus.acknowledge(index) {
            Some(vector) => Some(vector),
            None if bus.pending(index) & pending::PIC != 0 => Some(v.shared.lock().acknowledge_pic()),
            None => None,
        };
        self.offer(bus.pending(index) & ints != 0, acknowledge);
        let more = bus.pending(index) & ints != 0;
        let run = self.fd.get_kvm_run();
        run.request_interrupt_window = u8::from(more);
        run.cr8 = bus.cr8(index);
        true
    }

    /// Injects an interrupt if there is one and the guest can take it, or asks KVM to say when it can.
    fn offer(&mut self, requested: bool, acknowledge: impl FnOnce(&mut Self) -> Option<u8>) {
        let run = self.fd.get_kvm_run();
        let ready = run.ready_for_interrupt_injection != 0 && run.if_flag != 0;
        run.request_interrupt_window = u8::from(requested && !ready);
        if !(requested && ready) {
            return;
        }
        if let Some(vector) = acknowledge(self) {
            let irq = kvm_interrupt { irq: u32::from(vector) };
            // SAFETY: the request reads one structure of this type.
            let _ = unsafe { ioctl_with_ref(&self.fd, KVM_INTERRUPT(), &irq) };
            // One at a time: KVM says when the next can be taken.
            self.fd.get_kvm_run().ready_for_interrupt_injection = 0;
        }
    }

    fn interrupts_on(&mut self) -> bool {
        self.fd.get_kvm_run().if_flag != 0
    }

    /// Takes over what the guest changed without an exit of its own.
    pub(super) fn finish_irqs(&mut self) {
        let UserIrqs::User(bus) = &self.irqs else { return };
        let run = self.fd.get_kvm_run();
        if run.cr8 != bus.cr8(self.index) {
            bus.set_cr8(self.index, run.cr8);
        }
        if run.apic_base != bus.base(self.index) {
            // KVM checked it already.
            let _ = bus.set_base(self.index, run.apic_base, false);
        }
    }

    /// Real-mode start of an application processor.
    fn start_at(&mut self, vector: u8) {
        if let Ok(mut s) = self.fd.get_sregs() {
            s.cs.selector = u16::from(vector) << 8;
            s.cs.base = u64::from(vector) << 12;
            let _ = self.fd.set_sregs(&s);
        }
        if let Ok(mut r) = self.fd.get_regs() {
            r.rip = 0;
            let _ = self.fd.set_regs(&r);
        }
    }
}
