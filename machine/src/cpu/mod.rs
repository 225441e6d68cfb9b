//! Guest processors, independent of the engine that runs them.

mod caches;
mod caps;
mod cpuid;
mod device;
mod dump;
mod features;
mod models;
mod names;
#[cfg(test)]
mod oracle;
mod parse;
mod props;
mod query;
mod resolve;
mod table;
mod topology;
mod words;

pub use caps::{Caps, CapsKind, HostCpu, KvmFacts, Leaf};
pub use cpuid::TIMING_LEAF;
pub use device::{CpuDevice, CpuFacts, CpuSetup, KvmApicProps, SharedSetup, UserApicProps};
pub use dump::dump;
pub use features::{names as feature_names, Reg};
pub use names::{class_by_name, classes, find as find_name, Kind, Name, NAMES};
pub use parse::{apply_spec, CpuFlags};
pub use props::CpuProps;
pub use query::{definitions, expand, help, CpuDefinition, Expansion};
pub use resolve::{is_amd, Board, Resolved};
pub use topology::{ApicLayout, CpuPlace};
pub use words::w::ARCH_CAPS;

use serde_json::Value;

/// What a processor that uses the hypervisor's back door has in its registers (low halves).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct BackdoorRegs {
    /// Index of the processor.
    pub cpu: usize,
    pub eax: u32,
    pub ebx: u32,
    pub ecx: u32,
    pub edx: u32,
    pub esi: u32,
    pub edi: u32,
}

/// Where the boot processor starts when no firmware sets it up (direct kernel boot). Segments are flat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BootRegs {
    /// Instruction pointer.
    pub rip: u64,
    /// Stack pointer.
    pub rsp: u64,
    /// `rax`, `rbx`, `rsi`: where boot protocols pass their arguments.
    pub rax: u64,
    /// See `rax`.
    pub rbx: u64,
    /// See `rax`.
    pub rsi: u64,
    /// Start in 64-bit mode with the page tables at this address; otherwise 32-bit protected mode without paging.
    pub long_mode_cr3: Option<u64>,
    /// Base and limit of a global descriptor table that holds flat code at selector 0x10 and data at 0x18.
    pub gdt: (u64, u16),
    /// What else firmware would have set up.
    pub handover: Handover,
}

/// What firmware leaves in the processors and in interrupt controllers that the accelerator runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Handover {
    /// Memory types: start of the uncached range that ends at 4 GiB, and number of physical address bits. Without it
    /// the MTRRs stay off.
    pub mtrr: Option<(u64, u32)>,
    /// The boot processor's local APIC: (register offset, value), in the order of writing.
    pub lapic: &'static [(u32, u32)],
    /// The 8259s and the timer are programmed as a PC's BIOS does ([`pc_chips`]).
    pub pc_chips: bool,
}

/// How a PC's BIOS programs the interrupt controllers and the timer.
pub mod pc_chips {
    /// Of each 8259: first vector, mask, level-triggered inputs.
    pub const PIC: [(u8, u8, u8); 2] = [(0x08, 0xb8, 0x00), (0x70, 0x8e, 0x0c)];
    /// Mode of the timer's first counter: rate generator, at the longest period.
    pub const PIT_MODE: u8 = 2;
}

impl Handover {
    /// Model-specific registers to set on every processor, the enabling one last.
    pub fn msrs(&self) -> Vec<(u32, u64)> {
        const WRITE_BACK: u64 = 0x0606_0606_0606_0606;
        const WRITE_PROTECTED: u64 = 0x0505_0505_0505_0505;
        const VALID: u64 = 1 << 11;
        const ENABLED_WITH_FIXED: u64 = 0xc00;
        let Some((hole, phys_bits)) = self.mtrr else { return Vec::new() };
        let mask = (1u64 << phys_bits.min(52)) - 1;
        let mut list = vec![(0x250, WRITE_BACK), (0x258, WRITE_BACK), (0x259, 0)];
        list.extend((0x268..=0x26f).map(|n| (n, WRITE_PROTECTED)));
        list.push((0x200, hole));
        list.push((0x201, !((1u64 << 32) - 1 - hole) & mask | VALID));
        list.push((0x2ff, ENABLED_WITH_FIXED | 6));
        list
    }
}

/// General registers of a CPU, for `info registers` and debuggers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CpuRegs {
    /// rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp, r8-r15.
    pub gpr: [u64; 16],
    /// Instruction pointer.
    pub rip: u64,
    /// Flags.
    pub rflags: u64,
    /// es, cs, ss, ds, fs, gs, ldt, tr.
    pub segments: [SegmentReg; 8],
    /// GDT base, limit.
    pub gdt: (u64, u16),
    /// IDT base, limit.
    pub idt: (u64, u16),
    /// cr0, cr2, cr3, cr4, cr8.
    pub cr: [u64; 5],
    /// EFER.
    pub efer: u64,
    /// Halted.
    pub halted: bool,
    /// In system management mode.
    pub smm: bool,
    /// x87/SSE state as `FXSAVE` stores it, if read.
    pub fxsave: Option<Box<[u8; 512]>>,
    /// Debug registers 0-3, 6, 7.
    pub dr: [u64; 6],
    /// Anything else an engine wants to show.
    pub extra: Option<Value>,
}

/// A segment register with its hidden part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentReg {
    /// Selector.
    pub selector: u16,
    /// Base.
    pub base: u64,
    /// Limit in bytes.
    pub limit: u32,
    /// Attribute word as in the descriptor's high half (bits 8-23).
    pub flags: u32,
}

impl CpuRegs {
    /// Current privilege level.
    pub fn cpl(&self) -> u32 {
        self.segments[2].flags >> 13 & 3
    }
}
