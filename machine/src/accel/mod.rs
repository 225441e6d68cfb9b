//! Accelerators: what runs the guest's processors.

pub mod kvm;
pub mod lapic;
mod none;
pub mod stats;
pub mod tcg;

pub use none::NoCpu;

use std::os::fd::RawFd;
use std::sync::Arc;

use crate::cpu::{BootRegs, CpuRegs};
use crate::device::DevId;
use crate::memory::{FlatMaps, Space, WriteObserver};
use crate::QResult;

/// Accelerators of this build, in the order of `-accel help`.
pub const BUILT: &[&str] = &["tcg", "kvm", "qtest"];

/// Where the interrupt controllers live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IrqChip {
    /// All of them are devices of ours.
    User,
    /// Only the local APICs are the accelerator's.
    Split,
    /// All of them (and the PIT) are the accelerator's.
    Kernel,
}

/// A message-signalled interrupt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MsiMessage {
    /// Address.
    pub addr: u64,
    /// Data.
    pub data: u32,
}

/// What a vCPU does, where the accelerator has to keep track of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// Runs.
    Running,
    /// Waits for an interrupt.
    Halted,
    /// An application processor before its start-up message.
    WaitForSipi,
}

impl Activity {
    /// After a reset only the boot processor runs.
    pub fn at_reset(index: usize) -> Self {
        if index == 0 {
            Activity::Running
        } else {
            Activity::WaitForSipi
        }
    }
}

/// The vCPUs to create, in their accelerator's terms.
pub enum CpuConfigs {
    /// For KVM.
    Kvm(Vec<kvm::VcpuConfig>),
    /// For the software CPU.
    Tcg(Vec<tcg::TcgCpuConfig>),
}

/// A point that the processor's debug registers watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HardwarePoint {
    /// Virtual address, a multiple of `len`.
    pub addr: u64,
    /// 1, 2, 4 or 8 bytes.
    pub len: u8,
    /// R/W bits of DR7: 0 execute, 1 write, 3 access.
    pub access: u8,
}

/// What a vCPU shall stop at for a debugger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GuestDebug {
    /// After one instruction.
    pub single_step: bool,
    /// At breakpoint instructions.
    pub software: bool,
    /// At these.
    pub hardware: [Option<HardwarePoint>; 4],
    /// Give the guest the breakpoint exception that it stopped at.
    pub inject_breakpoint: bool,
}

/// Why a vCPU stopped for the debugger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DebugStop {
    /// Index of the vCPU.
    pub cpu: usize,
    /// Vector of the exception: 1 or 3.
    pub exception: u32,
    /// Where.
    pub pc: u64,
    /// What DR6 said.
    pub dr6: u64,
}

impl DebugStop {
    /// Whether it was a breakpoint instruction.
    pub fn is_breakpoint(&self) -> bool {
        self.exception == 3
    }
}

/// An accelerator, as the machine under its lock sees it.
pub trait Accel: Send {
    /// Name (`kvm`, `tcg`, `qtest`).
    fn name(&self) -> &'static str;
    /// Where the interrupt controllers live.
    fn irqchip(&self) -> IrqChip {
        IrqChip::User
    }
    /// Sets a global system interrupt of in-kernel controllers.
    fn set_gsi(&mut self, _gsi: u32, _level: bool) {}
    /// Delivers an MSI.
    fn msi(&mut self, _msg: MsiMessage) {}
    /// The interrupt request line of the boot processor (user-space PIC).
    fn set_intr(&mut self, _level: bool) {}
    /// The redirection table of the I/O APIC whose first global interrupt is `_first` changed (split irqchip: the
    /// accelerator must know which vectors end level interrupts).
    fn ioapic_changed(&mut self, _first: u32, _entries: &[Option<MsiMessage>]) {}
    /// Frequency of the guest's time stamp counter in kHz, if it is known.
    fn tsc_khz(&mut self) -> Option<u32> {
        None
    }
    /// The clock that the accelerator keeps for paravirtualized guests, in nanoseconds, if it has one.
    fn guest_clock(&mut self) -> Option<u64> {
        None
    }
    /// Sets that clock.
    fn set_guest_clock(&mut self, _ns: u64) {}
    /// The virtual clock was stopped or goes on.
    fn clock_changed(&mut self) {}
    /// A system management interrupt for the boot processor.
    fn smi(&mut self) {}
    /// The boot processor's address line 20.
    fn set_a20(&mut self, _on: bool) {}
    /// Who wants to know what devices write into guest memory.
    fn write_observer(&self) -> Option<Arc<dyn WriteObserver>> {
        None
    }
    /// The memory map changed from `old` to `new`.
    fn memory_changed(&mut self, _old: &FlatMaps, _new: &FlatMaps) -> QResult<()> {
        Ok(())
    }
    /// Lets guest writes to `addr` signal `fd` without an exit (`value`: only this value). `false`: not possible.
    fn ioeventfd(
        &mut self,
        _add: bool,
        _space: Space,
        _addr: u64,
        _len: u32,
        _value: Option<u64>,
        _fd: RawFd,
    ) -> bool {
        false
    }
    /// Lets a signal on `fd` deliver the MSI (`None` stops it). `slot` names the pair (device, vector).
    /// `false`: not possible, the caller must poll `fd` itself.
    fn irqfd(&mut self, _slot: (DevId, u32), _fd: RawFd, _msg: Option<MsiMessage>) -> bool {
        false
    }
    /// Where the boot processor starts after the next reset (`None`: at the reset vector).
    fn set_boot(&mut self, _boot: Option<BootRegs>) {}
    /// Puts all CPUs into their reset state (they are parked).
    fn reset_cpus(&mut self) {}
    /// Registers of a (parked) CPU.
    fn cpu_regs(&mut self, _index: usize) -> Option<CpuRegs> {
        None
    }
    /// Changes the general registers, rip and rflags of a (parked) CPU; `false` if that is not possible.
    fn set_cpu_regs(&mut self, _index: usize, _regs: &CpuRegs) -> bool {
        false
    }
    /// Says what a (parked) CPU shall stop at; `false` if that is not possible.
    fn set_debug(&mut self, _index: usize, _debug: &GuestDebug) -> bool {
        false
    }
    /// Sends a non-maskable interrupt to a (parked) CPU; `false` if that is not possible.
    fn nmi(&mut self, _index: usize) -> bool {
        false
    }
    /// Physical address of a virtual one on a (parked) CPU.
    fn translate(&mut self, _index: usize, _addr: u64) -> Option<u64> {
        None
    }
    /// Statistics of the VM, or of a CPU; `None` if they are not open (see [`Self::open_stats`]).
    fn stats(&mut self, _cpu: Option<usize>) -> Option<Vec<stats::Stat>> {
        None
    }
    /// Opens statistics, if the accelerator has any. The CPUs are parked.
    fn open_stats(&mut self, _cpu: Option<usize>) {}
    /// Ends all CPU threads. Not with the machine lock held by the caller's own vCPU.
    fn stop(&mut self) {}
    /// For code that knows the concrete accelerator.
    fn as_any(&mut self) -> &mut dyn std::any::Any;
}
