//! Decoded operations and what handlers are made of.

use crate::cpu::Cpu;
use crate::fault::{Exception, Fault, R};

pub mod alu;
pub mod bcd;
pub mod bits;
pub mod branch;
pub mod decode;
pub mod int;
pub mod io;
pub mod mem;
pub mod misc;
pub mod mov;
pub mod muldiv;
pub mod select;
pub mod shift;
pub mod stack;
pub mod string;
pub mod system;

pub use int::Int;

/// What a handler tells the block loop. Handlers that fall through return what the next handler returned.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// `cpu.rip` is the block's direct target (chain slot 0).
    Taken,
    /// `cpu.rip` is the fall-through (chain slot 1).
    Through,
    /// `cpu.rip` may be anything.
    Indirect,
    /// As `Indirect`, and state that the loop caches (mode, interrupt flag, TLB, ...) may have changed.
    Recheck,
    /// The instruction failed; `cpu.exc` says why and `cpu.rip` is the failing instruction.
    Fault,
}

/// Executes one decoded operation, then (unless it ends the block) the following ones.
pub type Handler = fn(&mut Cpu, &Op) -> Next;

/// One decoded instruction. In a block the operations are consecutive; the last one ends the block.
///
/// Operand convention (all instructions, in the order of iced's operands, at most one of them memory):
/// - `r[i]` describes operand i if it is a register: general registers are a *byte offset* into `cpu.regs`
///   (number * 8, AH..BH number * 8 + 1), everything else (XMM/YMM, MMX, x87, segment, CR, DR, K) the register number.
/// - a memory operand is described by `base`, `index`, `scale`, `disp`, `seg` and [`Op::MEM`] is set.
/// - an immediate or near branch target is in `imm` (sign-extended to 64 bits as the instruction does);
///   a second immediate (ENTER, EXTRQ) or VEX is4 register number is in `imm >> 32`... only for those.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Op {
    /// The handler.
    pub f: Handler,
    /// Immediate, or branch target (absolute RIP).
    pub imm: u64,
    /// Displacement, sign-extended; absolute for RIP-relative operands.
    pub disp: u64,
    /// Register operands.
    pub r: [u8; 4],
    /// Base register as byte offset into `cpu.regs`.
    pub base: u8,
    /// Index register as byte offset into `cpu.regs`.
    pub index: u8,
    /// log2 of the index scale.
    pub scale: u8,
    /// Segment register number ([`crate::state::sreg`]) of the memory operand, overrides applied.
    pub seg: u8,
    /// [`Op::MEM`]...
    pub flags: u16,
    /// Offset of the instruction from the block's start.
    pub off: u16,
    /// Instruction length.
    pub len: u8,
    /// Effective operand size in bytes for general instructions (1, 2, 4, 8); size of the memory operand otherwise.
    pub size: u8,
    /// iced's `Code` as a number, for handlers that serve several instructions.
    pub code: u16,
}

impl Op {
    /// There is a memory operand.
    pub const MEM: u16 = 1;
    /// Its address is linear already: 64-bit address size, no FS/GS base.
    pub const PLAIN: u16 = 2;
    /// 32-bit address size.
    pub const A32: u16 = 4;
    /// 16-bit address size.
    pub const A16: u16 = 8;
    /// LOCK prefix.
    pub const LOCK: u16 = 16;
    /// REP/REPE prefix.
    pub const REP: u16 = 32;
    /// REPNE prefix.
    pub const REPNE: u16 = 64;
    /// The code segment is 64-bit.
    pub const LONG: u16 = 128;
    /// VEX.L = 1: 256-bit operation.
    pub const L256: u16 = 256;
    /// VEX-encoded (the destination's upper bits are zeroed).
    pub const VEX: u16 = 512;
    /// The stack pointer is 64 bits wide.
    pub const SP64: u16 = 1024;
    /// The stack pointer is 32 bits wide (neither: 16).
    pub const SP32: u16 = 2048;

    /// The low 8 bits of the immediate.
    #[inline(always)]
    pub fn imm8(&self) -> u8 {
        self.imm as u8
    }
    /// Whether a flag is set.
    #[inline(always)]
    pub fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }
    /// iced's name for the instruction.
    pub fn code(&self) -> iced_x86::Code {
        iced_x86::Code::try_from(self.code as usize).unwrap_or(iced_x86::Code::INVALID)
    }
}

/// Continues with the operation after `op`.
#[inline(always)]
pub fn next(cpu: &mut Cpu, op: &Op) -> Next {
    // SAFETY: every block ends with an operation that does not call `next`, so one follows this one in the same
    // allocation.
    let n = unsafe { &*(op as *const Op).add(1) };
    (n.f)(cpu, n)
}

/// The operation after `op`, for handlers that do the work of two.
#[inline(always)]
pub fn following(op: &Op) -> &Op {
    // SAFETY: the decoder only fuses an operation that has its partner right after it.
    unsafe { &*(op as *const Op).add(1) }
}

/// Goes to the block in chain slot `slot` of the current one if that is known to be right and nothing is requested;
/// else leaves it to the loop. `cpu.rip` is its start.
#[inline(always)]
pub fn chain(cpu: &mut Cpu, slot: usize) -> Next {
    // SAFETY: the current block and what it is chained to are alive (the cache is only cleared as a whole, in the loop).
    unsafe {
        let b = (*cpu.blk).chain[slot].get();
        if !b.is_null()
            && (*b).gen.get() == cpu.gens[(*b).class.get() as usize & 1]
            && cpu.budget != 0
            && !cpu.ctl.any()
        {
            return enter(cpu, b);
        }
    }
    if slot == 0 {
        Next::Taken
    } else {
        Next::Through
    }
}

/// Likewise for a computed target.
#[inline(always)]
pub fn indirect(cpu: &mut Cpu) -> Next {
    if cpu.budget != 0 && !cpu.ctl.any() {
        if let Some(b) = cpu.cached_block() {
            // SAFETY: the jump cache only has live blocks.
            return unsafe { enter(cpu, b) };
        }
    }
    Next::Indirect
}

/// # Safety
/// `b` must be a live block that is valid at `cpu.rip`.
#[inline(always)]
unsafe fn enter(cpu: &mut Cpu, b: *const crate::block::Block) -> Next {
    cpu.budget -= 1;
    cpu.blk = b;
    // SAFETY: by the caller's promise; a block has at least one operation.
    let op = unsafe {
        cpu.icount += (*b).count as u64;
        &*(*b).ops
    };
    (op.f)(cpu, op)
}

/// Ends the block because `op` raised `cpu.exc`.
#[cold]
#[inline(never)]
pub fn fail(cpu: &mut Cpu, op: &Op) -> Next {
    cpu.rip = cpu.op_rip(op);
    Next::Fault
}

/// Finishes a handler that falls through.
#[inline(always)]
pub fn finish(cpu: &mut Cpu, op: &Op, r: R<()>) -> Next {
    match r {
        Ok(()) => next(cpu, op),
        Err(Fault) => fail(cpu, op),
    }
}

/// Finishes a handler that must end the block: the next instruction is looked up afresh, with all cached state
/// (mode, interrupts, TLB) re-examined.
#[inline(always)]
pub fn finish_recheck(cpu: &mut Cpu, op: &Op, r: R<()>) -> Next {
    match r {
        Ok(()) => {
            cpu.rip = cpu.op_next_rip(op);
            Next::Recheck
        }
        Err(Fault) => fail(cpu, op),
    }
}

/// Defines fall-through handlers: `handler! { pub fn name<T: Int>(cpu, op) { ...; Ok(()) } }`; the body may use `?`.
#[macro_export]
macro_rules! handler {
    ($($(#[$m:meta])* $v:vis fn $name:ident $(<$($g:ident : $b:ident),+>)? ($cpu:ident, $op:ident) $body:block)*) => {$(
        $(#[$m])*
        #[allow(missing_docs)]
        $v fn $name $(<$($g: $b),+>)? ($cpu: &mut $crate::Cpu, $op: &$crate::exec::Op) -> $crate::exec::Next {
            #[inline(always)]
            fn body $(<$($g: $b),+>)? ($cpu: &mut $crate::Cpu, $op: &$crate::exec::Op) -> $crate::fault::R<()> $body
            let r = body $(::<$($g),+>)? ($cpu, $op);
            $crate::exec::finish($cpu, $op, r)
        }
    )*};
}

/// Handlers that read a memory operand of type `T` first: `reads! { pub fn name / name_slow <..., T: Int> (cpu, op, v) { ... } }`.
/// The first one is for addresses that need no segmentation ([`Op::PLAIN`]); what it cannot do at once goes to the second.
#[macro_export]
macro_rules! reads {
    ($($(#[$m:meta])* $v:vis fn $name:ident / $slow:ident <$($g:ident : $b:ident),+> ($cpu:ident, $op:ident, $val:ident: $t:ident) $body:block)*) => {$(
        $(#[$m])*
        #[allow(missing_docs)]
        #[inline(never)]
        $v fn $slow <$($g: $b),+> ($cpu: &mut $crate::Cpu, $op: &$crate::exec::Op) -> $crate::exec::Next {
            match $cpu.read::<$t>($op) {
                Ok($val) => {
                    $body
                    $crate::exec::next($cpu, $op)
                }
                Err(_) => $crate::exec::fail($cpu, $op),
            }
        }
        $(#[$m])*
        #[allow(missing_docs)]
        $v fn $name <$($g: $b),+> ($cpu: &mut $crate::Cpu, $op: &$crate::exec::Op) -> $crate::exec::Next {
            let lin = $cpu.ea_raw($op);
            let Some(p) = $cpu.host_r(lin, <$t>::BYTES) else {
                return $slow::<$($g),+>($cpu, $op);
            };
            // SAFETY: the TLB entry vouches for the page.
            let $val: $t = unsafe { $crate::exec::mem::load(p) };
            $body
            $crate::exec::next($cpu, $op)
        }
    )*};
}

/// Like `handler!`, for instructions after which the block ends and everything is looked at again.
#[macro_export]
macro_rules! handler_recheck {
    ($($(#[$m:meta])* $v:vis fn $name:ident $(<$($g:ident : $b:ident),+>)? ($cpu:ident, $op:ident) $body:block)*) => {$(
        $(#[$m])*
        #[allow(missing_docs)]
        $v fn $name $(<$($g: $b),+>)? ($cpu: &mut $crate::Cpu, $op: &$crate::exec::Op) -> $crate::exec::Next {
            fn body $(<$($g: $b),+>)? ($cpu: &mut $crate::Cpu, $op: &$crate::exec::Op) -> $crate::fault::R<()> $body
            let r = body $(::<$($g),+>)? ($cpu, $op);
            $crate::exec::finish_recheck($cpu, $op, r)
        }
    )*};
}

impl Cpu {
    /// RIP of `op`.
    #[inline(always)]
    pub fn op_rip(&self, op: &Op) -> u64 {
        (self.block_rip() + op.off as u64) & self.ip_mask
    }
    /// RIP of the instruction after `op`.
    #[inline(always)]
    pub fn op_next_rip(&self, op: &Op) -> u64 {
        (self.block_rip().wrapping_add(op.off as u64 + op.len as u64)) & self.ip_mask
    }
    /// Raises an exception: `return cpu.raise(Exception::new(Exception::UD))`.
    #[cold]
    #[inline(never)]
    pub fn raise<T>(&mut self, exc: Exception) -> R<T> {
        self.exc = exc;
        Err(Fault)
    }
    /// Raises #UD.
    #[cold]
    pub fn ud<T>(&mut self) -> R<T> {
        self.raise(Exception::new(Exception::UD))
    }
    /// Raises #GP with an error code.
    #[cold]
    pub fn gp<T>(&mut self, error: u32) -> R<T> {
        self.raise(Exception::with(Exception::GP, error))
    }

    /// Reads a general register operand (byte offset).
    #[inline(always)]
    pub fn reg<T: Int>(&self, r: u8) -> T {
        debug_assert!(r as usize + size_of::<T>() <= size_of_val(&self.regs));
        // SAFETY: the decoder only makes offsets inside `regs`; every bit pattern is a value.
        unsafe { (self.regs.as_ptr() as *const u8).add(r as usize).cast::<T>().read_unaligned() }
    }
    /// Writes a general register operand; 32-bit writes clear the upper half.
    #[inline(always)]
    pub fn set_reg<T: Int>(&mut self, r: u8, v: T) {
        debug_assert!((r as usize) < 128);
        // SAFETY: the decoder only makes offsets inside `regs`.
        unsafe {
            let p = (self.regs.as_mut_ptr() as *mut u8).add(r as usize);
            if T::BITS == 32 {
                p.cast::<u64>().write_unaligned(v.to_u64());
            } else {
                p.cast::<T>().write_unaligned(v);
            }
        }
    }
    /// The immediate operand.
    #[inline(always)]
    pub fn imm<T: Int>(&self, op: &Op) -> T {
        T::from_u64(op.imm)
    }
}
