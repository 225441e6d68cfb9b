//! The architectural state, plain data.

/// Index of RAX..R15 in [`crate::Cpu::regs`].
pub mod gpr {
    #![allow(missing_docs)]
    pub const RAX: usize = 0;
    pub const RCX: usize = 1;
    pub const RDX: usize = 2;
    pub const RBX: usize = 3;
    pub const RSP: usize = 4;
    pub const RBP: usize = 5;
    pub const RSI: usize = 6;
    pub const RDI: usize = 7;
    pub const R11: usize = 11;
    /// Not a register: always zero, stands for "no base" and "no index".
    pub const ZERO: usize = 16;
}

/// Index of the segment registers in [`crate::Cpu::segs`].
pub mod sreg {
    #![allow(missing_docs)]
    pub const ES: usize = 0;
    pub const CS: usize = 1;
    pub const SS: usize = 2;
    pub const DS: usize = 3;
    pub const FS: usize = 4;
    pub const GS: usize = 5;
}

/// Bits of RFLAGS.
pub mod rflags {
    #![allow(missing_docs)]
    pub const CF: u64 = 1 << 0;
    pub const ONE: u64 = 1 << 1;
    pub const PF: u64 = 1 << 2;
    pub const AF: u64 = 1 << 4;
    pub const ZF: u64 = 1 << 6;
    pub const SF: u64 = 1 << 7;
    pub const TF: u64 = 1 << 8;
    pub const IF: u64 = 1 << 9;
    pub const DF: u64 = 1 << 10;
    pub const OF: u64 = 1 << 11;
    pub const IOPL: u64 = 3 << 12;
    pub const NT: u64 = 1 << 14;
    pub const RF: u64 = 1 << 16;
    pub const VM: u64 = 1 << 17;
    pub const AC: u64 = 1 << 18;
    pub const VIF: u64 = 1 << 19;
    pub const VIP: u64 = 1 << 20;
    pub const ID: u64 = 1 << 21;
    /// The six arithmetic flags, kept lazily.
    pub const ARITH: u64 = CF | PF | AF | ZF | SF | OF;
}

/// Bits of CR0.
pub mod cr0 {
    #![allow(missing_docs)]
    pub const PE: u64 = 1 << 0;
    pub const MP: u64 = 1 << 1;
    pub const EM: u64 = 1 << 2;
    pub const TS: u64 = 1 << 3;
    pub const ET: u64 = 1 << 4;
    pub const NE: u64 = 1 << 5;
    pub const WP: u64 = 1 << 16;
    pub const AM: u64 = 1 << 18;
    pub const NW: u64 = 1 << 29;
    pub const CD: u64 = 1 << 30;
    pub const PG: u64 = 1 << 31;
}

/// Bits of CR4.
pub mod cr4 {
    #![allow(missing_docs)]
    pub const VME: u64 = 1 << 0;
    pub const PVI: u64 = 1 << 1;
    pub const TSD: u64 = 1 << 2;
    pub const DE: u64 = 1 << 3;
    pub const PSE: u64 = 1 << 4;
    pub const PAE: u64 = 1 << 5;
    pub const MCE: u64 = 1 << 6;
    pub const PGE: u64 = 1 << 7;
    pub const PCE: u64 = 1 << 8;
    pub const OSFXSR: u64 = 1 << 9;
    pub const OSXMMEXCPT: u64 = 1 << 10;
    pub const UMIP: u64 = 1 << 11;
    pub const FSGSBASE: u64 = 1 << 16;
    pub const PCIDE: u64 = 1 << 17;
    pub const OSXSAVE: u64 = 1 << 18;
    pub const SMEP: u64 = 1 << 20;
    pub const SMAP: u64 = 1 << 21;
}

/// Bits of IA32_EFER.
pub mod efer {
    #![allow(missing_docs)]
    pub const SCE: u64 = 1 << 0;
    pub const LME: u64 = 1 << 8;
    pub const LMA: u64 = 1 << 10;
    pub const NXE: u64 = 1 << 11;
    pub const SVME: u64 = 1 << 12;
    pub const FFXSR: u64 = 1 << 14;
}

/// A segment register with its hidden part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Linear base address.
    pub base: u64,
    /// Limit in bytes (granularity applied), inclusive.
    pub limit: u32,
    /// The visible selector.
    pub sel: u16,
    /// Bits 8..=15 and 20..=23 of the descriptor's high half, as bits 0..=7 and 12..=15: type 0..=3, S 4, DPL 5..=6,
    /// P 7, AVL 12, L 13, D/B 14, G 15.
    pub attr: u16,
}

impl Segment {
    /// D/B: 32-bit default size.
    pub const DB: u16 = 1 << 14;
    /// L: 64-bit code.
    pub const L: u16 = 1 << 13;
    /// Granularity.
    pub const G: u16 = 1 << 15;
    /// Present.
    pub const P: u16 = 1 << 7;
    /// Code or data (not system).
    pub const S: u16 = 1 << 4;

    /// A real-mode segment.
    pub const fn real(sel: u16) -> Self {
        Self { sel, base: (sel as u64) << 4, limit: 0xffff, attr: 0x93 }
    }
    /// Descriptor privilege level.
    pub const fn dpl(&self) -> u8 {
        (self.attr >> 5 & 3) as u8
    }
    /// Present.
    pub const fn present(&self) -> bool {
        self.attr & Self::P != 0
    }
    /// Code segment (S=1, type bit 3).
    pub const fn is_code(&self) -> bool {
        self.attr & 0x18 == 0x18
    }
    /// Writable data segment.
    pub const fn writable(&self) -> bool {
        self.attr & 0x1a == 0x12
    }
    /// Data, or readable code.
    pub const fn readable(&self) -> bool {
        self.attr & 0x10 != 0 && (self.attr & 8 == 0 || self.attr & 2 != 0)
    }
    /// Conforming code.
    pub const fn conforming(&self) -> bool {
        self.attr & 0x1c == 0x1c
    }
    /// Expand-down data.
    pub const fn expand_down(&self) -> bool {
        self.attr & 0x1c == 0x14
    }
    /// 32-bit default size.
    pub const fn db(&self) -> bool {
        self.attr & Self::DB != 0
    }
}

/// GDTR or IDTR.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableReg {
    /// Linear address of the table.
    pub base: u64,
    /// Last valid byte.
    pub limit: u16,
}

/// One vector register: 256 bits, little-endian lanes (lane 0 and 1 are the XMM part).
#[repr(C, align(32))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ymm(pub [u64; 4]);

/// x87 and MMX state. Registers are stored by *physical* number (R0..R7): ST(i) is `r[(top + i) & 7]`, MMi is the
/// low half of `r[i]`.
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug)]
pub struct X87 {
    /// 80-bit values in the low ten bytes: mantissa in `[0]`, sign and exponent in the low 16 bits of `[1]`.
    pub r: [[u64; 2]; 8],
    /// Control word.
    pub cw: u16,
    /// Status word without TOP (bits 11..=13 are zero here).
    pub sw: u16,
    /// TOP, 0..=7.
    pub top: u8,
    /// Abridged tag word as in FXSAVE: bit i set = Ri is not empty.
    pub tag: u8,
    /// Last opcode, 11 bits.
    pub fop: u16,
    /// Last instruction: selector and offset.
    pub fcs: u16,
    /// Last instruction's offset.
    pub fip: u64,
    /// Last operand's selector.
    pub fds: u16,
    /// Last operand's offset.
    pub fdp: u64,
}

impl Default for X87 {
    fn default() -> Self {
        Self { r: [[0; 2]; 8], cw: 0x40, sw: 0, top: 0, tag: 0xff, fop: 0, fcs: 0, fip: 0, fds: 0, fdp: 0 }
    }
}

/// Model-specific registers kept by the CPU itself (the local APIC's are the embedder's, through the bus).
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Msrs {
    pub star: u64,
    pub lstar: u64,
    pub cstar: u64,
    pub fmask: u64,
    pub kernel_gs_base: u64,
    pub sysenter_cs: u64,
    pub sysenter_esp: u64,
    pub sysenter_eip: u64,
    pub tsc_aux: u64,
    pub tsc_adjust: u64,
    pub pat: u64,
    pub mtrr_def_type: u64,
    pub mtrr_fixed: [u64; 11],
    pub mtrr_var: [u64; 16],
    pub misc_enable: u64,
    pub feature_control: u64,
    pub smbase: u64,
    pub spec_ctrl: u64,
    pub mcg_status: u64,
    pub mcg_ctl: u64,
    pub mc_banks: [u64; 40],
    pub vm_hsave_pa: u64,
    pub xss: u64,
    pub bndcfgs: u64,
}

impl Default for Msrs {
    fn default() -> Self {
        Self {
            star: 0,
            lstar: 0,
            cstar: 0,
            fmask: 0,
            kernel_gs_base: 0,
            sysenter_cs: 0,
            sysenter_esp: 0,
            sysenter_eip: 0,
            tsc_aux: 0,
            tsc_adjust: 0,
            pat: 0x0007_0406_0007_0406,
            mtrr_def_type: 0,
            mtrr_fixed: [0; 11],
            mtrr_var: [0; 16],
            misc_enable: 1,
            feature_control: 0,
            smbase: 0x30000,
            spec_ctrl: 0,
            mcg_status: 0,
            mcg_ctl: 0,
            mc_banks: [0; 40],
            vm_hsave_pa: 0,
            xss: 0,
            bndcfgs: 0,
        }
    }
}
