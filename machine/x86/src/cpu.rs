//! The CPU: all state, construction, mode tracking.

use std::sync::Arc;

use crate::block::{Block, BlockCache};
use crate::bus::{Bus, Page, RunControl};
use crate::code::CodeMap;
use crate::cpuid::Model;
use crate::fault::Exception;
use crate::flags::Flags;
use crate::state::*;
use crate::tlb::{Tlb, TlbEntry};

/// Bits of [`Cpu::mode`]: everything that decoding or block reuse depends on.
pub mod mode {
    #![allow(missing_docs)]
    pub const CODE32: u32 = 1;
    pub const CODE64: u32 = 2;
    pub const STACK32: u32 = 4;
    pub const USER: u32 = 8;
    /// Protected mode, not virtual-8086.
    pub const PROT: u32 = 16;
    pub const EM: u32 = 32;
    pub const TS: u32 = 64;
    pub const MP: u32 = 128;
    pub const OSFXSR: u32 = 256;
    /// A block of one instruction: interrupts are looked at after it.
    pub const SINGLE: u32 = 2048;
    /// 32-bit code whose CS, SS, DS and ES are all of the 4 GiB from 0, without LMA.
    pub const FLAT: u32 = 1024;
    /// AVX state enabled in XCR0 and CR4.OSXSAVE set.
    pub const AVX: u32 = 512;
}

/// Why [`Cpu::run`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// HLT (or MWAIT): run again when an interrupt, NMI, SMI, INIT or SIPI is pending. `Cpu::halted` is set.
    Hlt,
    /// [`crate::bus::Request::EXIT`] was seen.
    Interrupted,
    /// Triple fault; RIP is where the first fault occurred.
    Shutdown,
    /// The other engine has to execute the instruction at RIP (only with [`Cpu::assist`]).
    Leave,
    /// A point of the debugger ([`crate::points::Points`]): RIP is at the breakpoint, or behind the instruction that hit a
    /// watchpoint.
    Debug,
}

/// One x86-64 processor.
#[repr(C)]
pub struct Cpu {
    // What nearly every handler touches comes first, within reach of an 8-bit displacement.
    /// Arithmetic flags (see [`Cpu::rflags`] for the whole register).
    pub fl: Flags,
    pub(crate) tlb: *const TlbEntry,
    pub(crate) blk: *const Block,
    /// Generations of translations: [0] changes with every flush, [1] with those that drop global pages too.
    pub(crate) gens: [u64; 2],
    pub(crate) ctl: Arc<RunControl>,
    /// Instructions entered (counted by block).
    pub icount: u64,
    /// Valid between blocks; inside a block see [`Cpu::op_rip`].
    pub rip: u64,
    /// RAX.. R15, then a constant zero ([`gpr::ZERO`]).
    pub regs: [u64; 17],
    pub(crate) budget: u32,
    /// Mask of the instruction pointer: 16, 32 or 64 bits.
    pub ip_mask: u64,
    /// CS is a 64-bit code segment (and LMA).
    pub long_code: bool,
    /// Current privilege level.
    pub cpl: u8,
    /// RFLAGS without the arithmetic bits.
    pub rf: u64,
    /// See [`mode`].
    pub mode: u32,
    /// ES, CS, SS, DS, FS, GS.
    pub segs: [Segment; 6],
    pub ldtr: Segment,
    pub tr: Segment,
    pub gdtr: TableReg,
    pub idtr: TableReg,
    pub cr0: u64,
    pub cr2: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub efer: u64,
    pub xcr0: u64,
    /// DR0..DR3, -, -, DR6, DR7.
    pub dr: [u64; 8],
    pub msrs: Msrs,
    /// XMM/YMM registers.
    pub ymm: [Ymm; 16],
    pub mxcsr: u32,
    /// The host's MXCSR holds exception flags that belong to the guest (see [`crate::fp`]).
    pub(crate) mxcsr_live: bool,
    pub fpu: X87,
    /// The exception of the last [`crate::fault::Fault`].
    pub exc: Exception,

    /// CPUID leaves and features.
    pub model: Model,
    /// Number of this CPU, passed to the bus.
    pub id: u32,
    /// In HLT.
    pub halted: bool,
    /// NMIs are blocked until IRET.
    pub nmi_masked: bool,
    pub nmi_pending: bool,
    pub smi_pending: bool,
    /// In system management mode.
    pub smm: bool,
    /// NMIs were blocked when it was entered.
    pub nmi_before_smm: bool,
    /// `take_interrupt` may have something.
    pub intr: bool,
    /// Interrupts are held off for one instruction (after STI, MOV SS).
    pub inhibit: bool,
    /// Added to the bus' time stamp counter.
    pub tsc_offset: u64,
    /// Called before an exception or interrupt is delivered (`-d int`).
    pub on_event: Option<fn(&Cpu, Exception)>,
    /// Helps another engine out: what only that one can do is left to it, and code is compared with what was decoded
    /// whenever the other one may have changed it. See [`Cpu::assist`].
    pub(crate) assisting: bool,
    /// [`Cpu::run`] returns when that many instructions were entered.
    pub stop_at: u64,
    pub(crate) points: Option<Box<crate::points::Points>>,
    /// The watchpoint that was hit.
    pub(crate) hit: Option<usize>,
    pub(crate) exit: Option<Exit>,
    /// Data and I/O breakpoints that the running instruction (or the delivery of an event) has hit: bits as in DR6.
    pub(crate) watch_hits: u8,
    pub(crate) stepping: bool,
    /// The instruction just executed suppresses the single-step trap (it loaded SS, or entered a handler).
    pub(crate) skip_trap: bool,
    pub(crate) xlat: Tlb,
    pub(crate) cache: BlockCache,
    pub(crate) code: Arc<CodeMap>,
    pub(crate) bus: Option<&'static dyn Bus>,
    pub(crate) pages: [(u64, Option<Page>); 64],
}

// SAFETY: the raw pointers point into what the CPU itself owns (TLB, blocks), or at guest RAM, which any thread may
// access; a CPU is used by one thread at a time because `run` takes `&mut self`.
unsafe impl Send for Cpu {}

impl Cpu {
    /// A CPU after power-on. `code` is shared by all CPUs of the guest.
    pub fn new(id: u32, model: Model, code: Arc<CodeMap>) -> Self {
        let ctl = Arc::new(RunControl::new());
        code.register(ctl.clone());
        let xlat = Tlb::default();
        let mut cpu = Self {
            regs: [0; 17],
            fl: Flags::from_bits(0),
            tlb: xlat.data[0].as_ptr(),
            blk: std::ptr::null(),
            budget: 0,
            rip: 0,
            ip_mask: 0xffff,
            long_code: false,
            cpl: 0,
            rf: rflags::ONE,
            mode: 0,
            segs: [Segment::default(); 6],
            ldtr: Segment::default(),
            tr: Segment::default(),
            gdtr: TableReg::default(),
            idtr: TableReg::default(),
            cr0: 0,
            cr2: 0,
            cr3: 0,
            cr4: 0,
            efer: 0,
            xcr0: 1,
            dr: [0; 8],
            msrs: Msrs::default(),
            ymm: [Ymm::default(); 16],
            mxcsr: 0x1f80,
            mxcsr_live: false,
            fpu: X87::default(),
            exc: Exception::new(0),
            model,
            id,
            halted: false,
            nmi_masked: false,
            nmi_pending: false,
            smi_pending: false,
            smm: false,
            nmi_before_smm: false,
            intr: false,
            inhibit: false,
            tsc_offset: 0,
            icount: 0,
            on_event: None,
            assisting: false,
            stop_at: u64::MAX,
            points: None,
            hit: None,
            exit: None,
            watch_hits: 0,
            stepping: false,
            skip_trap: false,
            gens: [1; 2],
            xlat,
            cache: BlockCache::default(),
            code,
            ctl,
            bus: None,
            pages: [(1, None); 64],
        };
        cpu.reset(true);
        cpu
    }

    /// Power-on reset, or INIT (`cold` false: keeps FPU, MSRs, caches and CR0.CD/NW).
    pub fn reset(&mut self, cold: bool) {
        self.regs = [0; 17];
        self.regs[gpr::RDX] = self.model.signature() as u64;
        self.fl = Flags::from_bits(0);
        self.rf = rflags::ONE;
        self.rip = 0xfff0;
        for s in &mut self.segs {
            *s = Segment::real(0);
        }
        self.segs[sreg::CS] = Segment { sel: 0xf000, base: 0xffff_0000, limit: 0xffff, attr: 0x9b };
        self.ldtr = Segment { sel: 0, base: 0, limit: 0xffff, attr: 0x82 };
        self.tr = Segment { sel: 0, base: 0, limit: 0xffff, attr: 0x8b };
        self.gdtr = TableReg { base: 0, limit: 0xffff };
        self.idtr = TableReg { base: 0, limit: 0xffff };
        self.cr0 = if cold { cr0::ET | cr0::NW | cr0::CD } else { cr0::ET | self.cr0 & (cr0::NW | cr0::CD) };
        self.cr2 = 0;
        self.cr3 = 0;
        self.cr4 = 0;
        self.efer = 0;
        self.dr = [0, 0, 0, 0, 0, 0, 0xffff_0ff0, 0x400];
        self.cpl = 0;
        self.halted = false;
        self.nmi_masked = false;
        self.nmi_pending = false;
        self.smi_pending = false;
        self.smm = false;
        self.intr = false;
        self.inhibit = false;
        self.watch_hits = 0;
        if cold {
            self.msrs = Msrs::default();
            self.xcr0 = 1;
            self.ymm = [Ymm::default(); 16];
            self.mxcsr = 0x1f80;
            self.fpu = X87::default();
            self.tsc_offset = 0;
        }
        self.update_mode();
        self.flush_tlb_all();
    }

    /// Start-up IPI: the CPU (in wait-for-SIPI, after INIT) starts in real mode at `vector` * 4 KiB.
    pub fn sipi(&mut self, vector: u8) {
        self.segs[sreg::CS] =
            Segment { sel: (vector as u16) << 8, base: (vector as u64) << 12, limit: 0xffff, attr: 0x9b };
        self.rip = 0;
        self.halted = false;
        self.update_mode();
    }

    /// The word through which other threads reach this CPU while it runs.
    pub fn control(&self) -> Arc<RunControl> {
        self.ctl.clone()
    }

    /// The map of decoded pages this CPU shares (to report DMA to, [`CodeMap::note_write`]).
    pub fn code_map(&self) -> Arc<CodeMap> {
        self.code.clone()
    }

    /// The bus, inside [`Cpu::run`].
    #[inline(always)]
    pub fn bus(&self) -> &'static dyn Bus {
        match self.bus {
            Some(b) => b,
            None => &crate::nobus::NOBUS,
        }
    }

    pub(crate) fn block_rip(&self) -> u64 {
        // SAFETY: handlers only run while `blk` is the current block, which the cache keeps alive.
        unsafe { (*self.blk).rip }
    }

    /// CR0.PE.
    #[inline(always)]
    pub fn protected(&self) -> bool {
        self.cr0 & cr0::PE != 0
    }
    /// EFLAGS.VM.
    #[inline(always)]
    pub fn vm86(&self) -> bool {
        self.rf & rflags::VM != 0
    }
    /// EFER.LMA: 64-bit or compatibility mode.
    #[inline(always)]
    pub fn lma(&self) -> bool {
        self.efer & efer::LMA != 0
    }
    /// IOPL.
    #[inline(always)]
    pub fn iopl(&self) -> u8 {
        (self.rf >> 12 & 3) as u8
    }

    /// The whole RFLAGS.
    pub fn rflags(&self) -> u64 {
        self.rf | self.fl.bits()
    }
    /// Sets the whole RFLAGS (no privilege rules; follow with [`Cpu::update_mode`] if VM or AC may change).
    pub fn set_rflags(&mut self, v: u64) {
        self.fl = Flags::from_bits(v);
        self.rf = v & 0x3f_7700 | rflags::ONE;
    }

    /// Recomputes everything derived from CS, SS, CR0, CR4, XCR0, EFER, RFLAGS and CPL. Call after changing them.
    pub fn update_mode(&mut self) {
        let cs = &self.segs[sreg::CS];
        let prot = self.protected() && !self.vm86();
        self.long_code = self.lma() && cs.attr & Segment::L != 0 && prot;
        let mut m = 0;
        if self.long_code {
            m |= mode::CODE64;
            self.ip_mask = u64::MAX;
        } else if cs.db() {
            m |= mode::CODE32;
            self.ip_mask = 0xffff_ffff;
        } else {
            self.ip_mask = 0xffff_ffff;
        }
        if self.segs[sreg::SS].db() {
            m |= mode::STACK32;
        }
        for (bit, on) in [
            (mode::USER, self.cpl == 3),
            (mode::PROT, prot),
            (mode::EM, self.cr0 & cr0::EM != 0),
            (mode::TS, self.cr0 & cr0::TS != 0),
            (mode::MP, self.cr0 & cr0::MP != 0),
            (mode::OSFXSR, self.cr4 & cr4::OSFXSR != 0),
            (mode::FLAT, prot && !self.lma() && self.flat()),
            (mode::AVX, self.cr4 & cr4::OSXSAVE != 0 && self.xcr0 & 6 == 6),
        ] {
            if on {
                m |= bit;
            }
        }
        self.mode = m;
        self.update_tlb_table();
    }

    /// Segmentation checks nothing and changes no address (but through FS and GS).
    fn flat(&self) -> bool {
        let whole = |n: usize| {
            let s = &self.segs[n];
            s.base == 0 && s.limit == u32::MAX && s.db() && s.present()
        };
        let data = |n: usize| whole(n) && self.segs[n].writable() && !self.segs[n].expand_down();
        whole(sreg::CS) && data(sreg::SS) && data(sreg::DS) && data(sreg::ES)
    }

    /// Selects the TLB table for the current privilege.
    pub fn update_tlb_table(&mut self) {
        let t = self.tlb_index();
        self.tlb = self.xlat.data[t].as_ptr();
    }

    pub(crate) fn tlb_index(&self) -> usize {
        if self.cpl == 3 {
            if self.cr0 & cr0::AM != 0 && self.rf & rflags::AC != 0 {
                crate::tlb::ALIGNED
            } else {
                1
            }
        } else if self.cr4 & cr4::SMAP != 0 && self.rf & rflags::AC != 0 {
            2
        } else {
            0
        }
    }

    /// All blocks have to be checked again before they are used.
    pub(crate) fn bump(&mut self) {
        self.gens[0] += 1;
        self.gens[1] += 1;
    }

    /// Drops all translations.
    pub fn flush_tlb_all(&mut self) {
        self.xlat.flush_all();
        self.bump();
        self.pages = [(1, None); 64];
    }
}
