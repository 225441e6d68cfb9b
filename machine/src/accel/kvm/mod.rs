//! The KVM accelerator.
//!
//! Order of calls: the VM is created first, memory slots when the machine is complete, the in-kernel interrupt
//! controllers after them (each slot would otherwise wait for a grace period), vCPUs last.

mod assist;
mod caps;
mod debug;
mod irq;
mod regs;
mod slots;
mod stats;
mod user_irq;
mod vcpu;

use std::any::Any;
use std::collections::HashMap;
use std::mem::ManuallyDrop;
use std::os::fd::AsRawFd;
use std::os::fd::{FromRawFd, RawFd};
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::thread::JoinHandle;

use kvm_bindings::{
    kvm_clock_data, kvm_msi, kvm_msr_entry, kvm_pit_config, kvm_userspace_memory_region, CpuId, Msrs,
    KVM_PIT_SPEAKER_DUMMY,
};
use kvm_ioctls::{Cap, IoEventAddress, Kvm, NoDatamatch, VcpuFd, VmFd};
use vmm_sys_util::eventfd::EventFd;

use super::{Accel, GuestDebug, IrqChip, MsiMessage};
use crate::clock::VirtualClock;
use crate::cpu::{BootRegs, CpuRegs};
use crate::device::DevId;
use crate::memory::{FlatMaps, Space};
use crate::shared::Shared;
use crate::{qerr, QResult};

pub use assist::helped;
pub use caps::to_cpuid;
use irq::Routes;
use slots::Slots;
use user_irq::UserIrqs;
use vcpu::{KvmVcpu, ResetState};

/// The KVM interface that this is written for (and the only stable one).
const API_VERSION: i32 = 12;

/// Properties of `-accel kvm,...`.
#[derive(Clone, Debug)]
pub struct KvmOptions {
    /// Where the interrupt controllers live.
    pub irqchip: IrqChip,
    /// Device node.
    pub device: String,
    /// The software CPU executes what KVM cannot.
    pub assist: bool,
}

impl Default for KvmOptions {
    fn default() -> Self {
        Self { irqchip: IrqChip::Kernel, device: "/dev/kvm".into(), assist: true }
    }
}

/// KVM.
pub struct KvmAccel {
    vm: Arc<VmFd>,
    kvm: Kvm,
    irqchip: IrqChip,
    slots: Slots,
    routes: Routes,
    started: bool,
    /// Open statistics: of the VM, of CPUs by index.
    stats: HashMap<Option<usize>, std::fs::File>,
    /// State of all vCPUs and controllers right after creation = reset state.
    chips: Option<irq::ChipState>,
    threads: Vec<JoinHandle<()>>,
    control: Option<Arc<crate::vcpu::VcpuControl>>,
    boot: Option<BootRegs>,
    /// Bound descriptors: (device, vector) -> GSI.
    irqfds: HashMap<(DevId, u32), (RawFd, u32)>,
    /// Interrupt controllers in user space, as far as there are any.
    irqs: UserIrqs,
    /// Frequency of the boot processor's time stamp counter.
    tsc_khz: Option<u32>,
    /// The software CPU executes what KVM cannot.
    assist: bool,
    /// Which pages have code that the software CPUs decoded.
    code: Arc<rqemu_x86::CodeMap>,
}

impl KvmAccel {
    /// Opens the device and creates a VM.
    ///
    /// # Errors
    /// With the texts that QEMU gives; a missing capability is named.
    pub fn new(opts: &KvmOptions) -> QResult<Self> {
        let path = std::ffi::CString::new(opts.device.as_str()).map_err(|_| qerr!("bad device name"))?;
        let kvm = Kvm::new_with_path(path).map_err(|e| {
            let text = crate::error::strerror(&std::io::Error::from(e));
            qerr!("failed to initialize kvm: {text}")
                .with_hint(format!("Could not access KVM kernel module: {text}"))
        })?;
        let version = kvm.get_api_version();
        if version < API_VERSION {
            // A negative answer is the failure of the call: the device is something else.
            let e = std::io::Error::last_os_error();
            let e = if version < 0 { e } else { std::io::Error::from_raw_os_error(libc::EINVAL) };
            return Err(qerr!("failed to initialize kvm: {}", crate::error::strerror(&e))
                .with_hint("kvm version too old"));
        }
        if version > API_VERSION {
            return Err(
                qerr!("failed to initialize kvm: Invalid argument").with_hint("kvm version not supported")
            );
        }
        for cap in [
            Cap::UserMemory,
            Cap::SetTssAddr,
            Cap::ExtCpuid,
            Cap::MpState,
            Cap::ImmediateExit,
            Cap::Ioeventfd,
        ] {
            if !kvm.check_extension(cap) {
                return Err(qerr!("kvm does not support KVM_CAP_{cap:?}"));
            }
        }
        let vm = kvm.create_vm().map_err(|e| ioctl_error("KVM_CREATE_VM", e))?;
        if opts.irqchip == IrqChip::Split && !kvm.check_extension(Cap::SplitIrqchip) {
            return Err(qerr!("Split IRQ chip mode not supported."));
        }
        let max_slots = kvm.get_nr_memslots();
        Ok(Self {
            vm: Arc::new(vm),
            kvm,
            irqchip: opts.irqchip,
            slots: Slots::new(max_slots),
            routes: Routes::default(),
            started: false,
            stats: HashMap::new(),
            chips: None,
            threads: Vec::new(),
            control: None,
            boot: None,
            irqfds: HashMap::new(),
            irqs: UserIrqs::Kernel,
            tsc_khz: None,
            assist: opts.assist,
            code: Arc::default(),
        })
    }

    /// CPUID bits that KVM can give a guest.
    pub fn supported_cpuid(&self) -> QResult<CpuId> {
        self.kvm
            .get_supported_cpuid(kvm_bindings::KVM_MAX_CPUID_ENTRIES)
            .map_err(|e| ioctl_error("KVM_GET_SUPPORTED_CPUID", e))
    }

    /// More vCPUs than this do not run well on this host.
    pub fn recommended_vcpus(&self) -> usize {
        self.kvm.get_nr_vcpus()
    }

    /// Lets the guest keep the host's processors when it idles (`-overcommit cpu-pm=on`).
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn keep_idle_in_guest(&self) -> QResult<()> {
        let can = self.vm.check_extension_raw(libc::c_ulong::from(kvm_bindings::KVM_CAP_X86_DISABLE_EXITS));
        let all = kvm_bindings::KVM_X86_DISABLE_EXITS_MWAIT
            | kvm_bindings::KVM_X86_DISABLE_EXITS_HLT
            | kvm_bindings::KVM_X86_DISABLE_EXITS_PAUSE
            | kvm_bindings::KVM_X86_DISABLE_EXITS_CSTATE;
        let mut cap = kvm_bindings::kvm_enable_cap {
            cap: kvm_bindings::KVM_CAP_X86_DISABLE_EXITS,
            ..Default::default()
        };
        cap.args[0] = u64::from(can.max(0) as u32 & all);
        self.vm.enable_cap(&cap).map_err(|e| {
            let text = crate::error::strerror(&std::io::Error::from(e));
            qerr!("kvm: guest stopping CPU not supported: {text}")
        })
    }

    /// Largest number of vCPUs.
    pub fn max_vcpus(&self) -> usize {
        self.kvm.get_max_vcpus()
    }

    /// Builds slots, controllers and vCPU threads (parked). `cpuid` gives each vCPU's CPUID by index; `boot` is where
    /// the boot processor starts if not at the reset vector.
    pub fn start(
        &mut self,
        maps: &FlatMaps,
        shared: &Arc<Shared>,
        cpus: &[VcpuConfig],
        boot: Option<BootRegs>,
        clock: Arc<VirtualClock>,
    ) -> QResult<()> {
        self.started = true;
        self.boot = boot;
        self.apply_slots(maps)?;
        self.vm
            .set_identity_map_address(0xfeff_c000)
            .map_err(|e| ioctl_error("KVM_SET_IDENTITY_MAP_ADDR", e))?;
        self.vm.set_tss_address(0xfeff_d000).map_err(|e| ioctl_error("KVM_SET_TSS_ADDR", e))?;
        if self.irqchip == IrqChip::Kernel {
            self.vm.create_irq_chip().map_err(|e| ioctl_error("KVM_CREATE_IRQCHIP", e))?;
            let pit = kvm_pit_config { flags: KVM_PIT_SPEAKER_DUMMY, ..Default::default() };
            self.vm.create_pit2(pit).map_err(|e| ioctl_error("KVM_CREATE_PIT2", e))?;
            let chips = irq::ChipState::capture(&self.vm)?;
            chips.restore(&self.vm, self.boot.is_some_and(|b| b.handover.pc_chips));
            self.chips = Some(chips);
        }
        self.set_up_irqs(shared, cpus, clock)?;
        self.control = Some(shared.vcpus.clone());
        shared.vcpus.request_pause();
        for (index, c) in cpus.iter().enumerate() {
            self.spawn(index, c, shared)?;
        }
        let (vcpus, n) = (shared.vcpus.clone(), cpus.len());
        vcpus.wait_started(n);
        Ok(())
    }

    fn spawn(&mut self, index: usize, c: &VcpuConfig, shared: &Arc<Shared>) -> QResult<()> {
        let fd = self.vm.create_vcpu(u64::from(c.apic_id)).map_err(|e| ioctl_error("KVM_CREATE_VCPU", e))?;
        self.set_up_cpu(&fd, c)?;
        if let UserIrqs::User(bus) = &self.irqs {
            let mut s = fd.get_sregs().map_err(|e| ioctl_error("KVM_GET_SREGS", e))?;
            s.apic_base = bus.base(index);
            fd.set_sregs(&s).map_err(|e| ioctl_error("KVM_SET_SREGS", e))?;
        }
        let msrs = if index == 0 { self.kvm.get_msr_index_list().ok() } else { None };
        let mut v = KvmVcpu::new(index, fd, shared.clone(), self.irqs.clone());
        v.helper = self.assist.then(|| assist::Helper {
            vm: self.vm.clone(),
            code: self.code.clone(),
            kernel_chips: self.irqchip == IrqChip::Kernel,
            leaves: c.cpuid.as_slice().to_vec(),
            word: Arc::default(),
        });
        v.reset = Some(ResetState::capture(&v.fd, msrs.as_ref()));
        if let Some(b) = &self.boot {
            v.boot(b).map_err(|e| ioctl_error("KVM_SET_SREGS", e))?;
        }
        let t = std::thread::Builder::new()
            .name(format!("CPU {index}/KVM"))
            .stack_size(256 << 10)
            .spawn(move || v.run())
            .map_err(|e| qerr!("cannot start vCPU thread: {}", crate::error::strerror(&e)))?;
        self.threads.push(t);
        Ok(())
    }

    /// Time stamp counter, CPUID and model-specific registers of a new vCPU.
    fn set_up_cpu(&mut self, fd: &VcpuFd, c: &VcpuConfig) -> QResult<()> {
        let host_khz = fd.get_tsc_khz().unwrap_or(0);
        self.tsc_khz = c.tsc_khz.or(Some(host_khz)).filter(|khz| *khz != 0);
        if let Some(khz) = c.tsc_khz.filter(|k| *k != host_khz) {
            let scaling = self.kvm.check_extension(Cap::TscControl);
            if !scaling || fd.set_tsc_khz(khz).is_err() {
                return Err(qerr!(
                    "TSC frequency mismatch between VM ({khz} kHz) and host ({host_khz} kHz), \
                     and TSC scaling unavailable"
                ));
            }
        }
        // After a reset EDX says what kind of processor it is.
        if let (Some(id), Ok(mut r)) =
            (c.cpuid.as_slice().iter().find(|e| e.function == 1).map(|e| e.eax), fd.get_regs())
        {
            r.rdx = id.into();
            fd.set_regs(&r).map_err(|e| ioctl_error("KVM_SET_REGS", e))?;
        }
        let mut cpuid = c.cpuid.clone();
        for e in cpuid.as_mut_slice().iter_mut().filter(|e| e.function == crate::cpu::TIMING_LEAF) {
            e.eax = c.tsc_khz.unwrap_or(host_khz);
        }
        fd.set_cpuid2(&cpuid).map_err(|e| ioctl_error("KVM_SET_CPUID2", e))?;
        if c.mce {
            self.set_up_mce(fd)?;
        }
        for (index, data) in &c.msrs {
            let entry = kvm_msr_entry { index: *index, data: *data, ..Default::default() };
            // A KVM that lacks one of them has no use for it.
            if let Ok(m) = Msrs::from_entries(&[entry]) {
                let _ = fd.set_msrs(&m);
            }
        }
        Ok(())
    }

    fn apply_slots(&mut self, maps: &FlatMaps) -> QResult<()> {
        let vm = &self.vm;
        self.slots.update(maps, |r: kvm_userspace_memory_region| {
            // SAFETY: the host range belongs to a RAM block that the published map keeps alive; the block is dropped
            // only after its range left the map, and with it this slot.
            unsafe { vm.set_user_memory_region(r) }.map_err(|e| ioctl_error("KVM_SET_USER_MEMORY_REGION", e))
        })
    }

    /// Ends all vCPU threads.
    pub fn stop_threads(&mut self) {
        if let Some(c) = &self.control {
            c.quit();
        }
        self.irqs.stop();
        for t in self.threads.drain(..) {
            // A vCPU thread does not panic; if it did, the message was printed already.
            let _ = t.join();
        }
    }
}

/// One vCPU to create.
pub struct VcpuConfig {
    /// Local APIC id.
    pub apic_id: u32,
    /// CPUID as the guest sees it.
    pub cpuid: CpuId,
    /// Model-specific registers that depend on the model: (index, value).
    pub msrs: Vec<(u32, u64)>,
    /// Has machine-check registers.
    pub mce: bool,
    /// Frequency of the time stamp counter in kHz, if it must not be the host's.
    pub tsc_khz: Option<u32>,
}

pub(super) fn ioctl_error(what: &str, e: kvm_ioctls::Error) -> crate::QError {
    qerr!("{what} failed: {}", crate::error::strerror(&std::io::Error::from(e)))
}

/// A borrowed view of a descriptor as the wrapper type that the ioctl crate wants.
fn borrow_eventfd(fd: RawFd) -> ManuallyDrop<EventFd> {
    // SAFETY: the wrapper is never dropped, so the descriptor is not closed here; its owner keeps it open.
    ManuallyDrop::new(unsafe { EventFd::from_raw_fd(fd) })
}

impl Accel for KvmAccel {
    fn name(&self) -> &'static str {
        "kvm"
    }

    fn irqchip(&self) -> IrqChip {
        self.irqchip
    }

    fn set_gsi(&mut self, gsi: u32, level: bool) {
        if self.started {
            // Fails only for a GSI without route, which the boards do not use.
            let _ = self.vm.set_irq_line(gsi, level);
        }
    }

    fn ioapic_changed(&mut self, first: u32, entries: &[Option<MsiMessage>]) {
        let Some(pins) = &mut self.routes.pins else { return };
        let old = pins.clone();
        for (pin, entry) in pins.iter_mut().skip(first as usize).zip(entries) {
            *pin = *entry;
        }
        if self.started && *pins != old {
            // As with messages: what KVM cannot route is not delivered.
            let _ = self.routes.commit(&self.vm);
        }
    }

    fn clock_changed(&mut self) {
        if let UserIrqs::User(bus) = &self.irqs {
            bus.clock_changed();
        }
    }

    fn msi(&mut self, msg: MsiMessage) {
        if let UserIrqs::User(bus) = &self.irqs {
            return bus.msi(msg);
        }
        let m = kvm_msi {
            address_lo: msg.addr as u32,
            address_hi: (msg.addr >> 32) as u32,
            data: msg.data,
            ..Default::default()
        };
        // An MSI to nowhere is dropped, as on hardware.
        let _ = self.vm.signal_msi(m);
    }

    fn tsc_khz(&mut self) -> Option<u32> {
        self.tsc_khz
    }

    fn guest_clock(&mut self) -> Option<u64> {
        self.vm.get_clock().ok().map(|c| c.clock)
    }

    fn set_guest_clock(&mut self, ns: u64) {
        // A KVM without the clock has no guest that looks at it.
        let _ = self.vm.set_clock(&kvm_clock_data { clock: ns, ..Default::default() });
    }

    fn set_intr(&mut self, level: bool) {
        match &self.irqs {
            UserIrqs::Kernel => {}
            UserIrqs::Split(line) => {
                line.store(level, Ordering::SeqCst);
                if let (true, Some(c)) = (level, &self.control) {
                    c.kick(0);
                }
            }
            UserIrqs::User(bus) => bus.set_pic(level),
        }
    }

    fn memory_changed(&mut self, _old: &FlatMaps, new: &FlatMaps) -> QResult<()> {
        if self.started {
            self.apply_slots(new)?;
        }
        Ok(())
    }

    fn ioeventfd(
        &mut self,
        add: bool,
        space: Space,
        addr: u64,
        len: u32,
        value: Option<u64>,
        fd: RawFd,
    ) -> bool {
        let efd = borrow_eventfd(fd);
        let at = match space {
            Space::Memory => IoEventAddress::Mmio(addr),
            Space::Io => IoEventAddress::Pio(addr),
        };
        let vm = &self.vm;
        let r = match (add, value, len) {
            (true, None, _) => vm.register_ioevent(&efd, &at, NoDatamatch),
            (true, Some(v), 2) => vm.register_ioevent(&efd, &at, v as u16),
            (true, Some(v), 8) => vm.register_ioevent(&efd, &at, v),
            (true, Some(v), _) => vm.register_ioevent(&efd, &at, v as u32),
            (false, None, _) => vm.unregister_ioevent(&efd, &at, NoDatamatch),
            (false, Some(v), 2) => vm.unregister_ioevent(&efd, &at, v as u16),
            (false, Some(v), 8) => vm.unregister_ioevent(&efd, &at, v),
            (false, Some(v), _) => vm.unregister_ioevent(&efd, &at, v as u32),
        };
        r.is_ok()
    }

    fn irqfd(&mut self, slot: (DevId, u32), fd: RawFd, msg: Option<MsiMessage>) -> bool {
        let efd = borrow_eventfd(fd);
        if let Some((_, gsi)) = self.irqfds.remove(&slot) {
            let keep = msg.is_some_and(|m| self.routes.get(gsi) == Some(m));
            if keep {
                self.irqfds.insert(slot, (fd, gsi));
                return true;
            }
            let _ = self.vm.unregister_irqfd(&efd, gsi);
            self.routes.free(gsi);
        }
        let Some(msg) = msg else { return true };
        if self.irqchip == IrqChip::User {
            return false;
        }
        let Some(gsi) = self.routes.add(msg) else { return false };
        if self.routes.commit(&self.vm).is_err() || self.vm.register_irqfd(&efd, gsi).is_err() {
            self.routes.free(gsi);
            return false;
        }
        self.irqfds.insert(slot, (fd, gsi));
        true
    }

    fn set_boot(&mut self, boot: Option<BootRegs>) {
        self.boot = boot;
    }

    fn reset_cpus(&mut self) {
        let Some(control) = self.control.clone() else { return };
        if let UserIrqs::User(bus) = &self.irqs {
            bus.reset();
        }
        for index in 0..self.threads.len() {
            let boot = self.boot;
            control.run_on(index, move |v| {
                if let Some(v) = v.downcast_mut::<KvmVcpu>() {
                    v.reset(boot.as_ref());
                }
            });
        }
        if let Some(c) = &self.chips {
            c.restore(&self.vm, self.boot.is_some_and(|b| b.handover.pc_chips));
        }
    }

    fn cpu_regs(&mut self, index: usize) -> Option<CpuRegs> {
        let control = self.control.clone()?;
        control.run_on(index, |v| v.downcast_mut::<KvmVcpu>().map(|v| regs::read(&v.fd)))?
    }

    fn stats(&mut self, cpu: Option<usize>) -> Option<Vec<crate::accel::stats::Stat>> {
        stats::read(self.stats.get(&cpu)?).ok()
    }

    fn open_stats(&mut self, cpu: Option<usize>) {
        let opened = match (cpu, self.control.clone()) {
            (None, _) => stats::open(self.vm.as_raw_fd()).ok(),
            (Some(i), Some(control)) => control
                .run_on(i, |v| v.downcast_mut::<KvmVcpu>().and_then(|v| stats::open(v.fd.as_raw_fd()).ok()))
                .flatten(),
            _ => None,
        };
        if let Some(file) = opened {
            self.stats.insert(cpu, file);
        }
    }

    fn set_cpu_regs(&mut self, index: usize, r: &CpuRegs) -> bool {
        let Some(control) = self.control.clone() else { return false };
        let regs = regs::general(r);
        let set =
            move |v: &mut dyn Any| v.downcast_mut::<KvmVcpu>().is_some_and(|v| v.fd.set_regs(&regs).is_ok());
        control.run_on(index, set).unwrap_or(false)
    }

    fn set_debug(&mut self, index: usize, debug: &GuestDebug) -> bool {
        let Some(control) = self.control.clone() else { return false };
        let debug = *debug;
        let set = move |v: &mut dyn Any| v.downcast_mut::<KvmVcpu>().is_some_and(|v| v.set_debug(&debug));
        control.run_on(index, set).unwrap_or(false)
    }

    fn nmi(&mut self, index: usize) -> bool {
        if let UserIrqs::User(bus) = &self.irqs {
            return bus.nmi(index);
        }
        let Some(control) = self.control.clone() else { return false };
        control
            .run_on(index, |v| v.downcast_mut::<KvmVcpu>().is_some_and(|v| v.fd.nmi().is_ok()))
            .unwrap_or(false)
    }

    fn translate(&mut self, index: usize, addr: u64) -> Option<u64> {
        let control = self.control.clone()?;
        control.run_on(index, move |v| {
            let t = v.downcast_mut::<KvmVcpu>()?.fd.translate_gva(addr).ok()?;
            (t.valid != 0).then_some(t.physical_address)
        })?
    }

    fn stop(&mut self) {
        self.stop_threads();
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

impl Drop for KvmAccel {
    fn drop(&mut self) {
        self.stop_threads();
    }
}
