//! Which handler executes an instruction.

use iced_x86::{Instruction, Mnemonic as M, OpKind};

use super::alu::{self, Adc, Add, And, Cmp, Dec, Inc, Neg, Not, Or, Sbb, Sub, Test, Xor};
use super::bits::{self, Bt, Btc, Btr, Bts};
use super::selected::AfterMov;
pub use super::selected::Select;
use super::shift::{self, Rcl, Rcr, Rol, Ror, Sar, Shl, Shr};
use super::string::{self, Cmps, Ins, Lods, Movs, Outs, Scas, Stos};
use super::{bcd, branch, io, misc, mov, muldiv, stack, system, Handler};
use crate::cpu::{mode, Cpu};

/// Picks the instance for an operand size in bytes; `O` is an optional leading type argument.
macro_rules! sized {
    ($size:expr, $($p:ident)::+ $(, $o:ty)?) => {
        match $size {
            1 => $($p)::+::<$($o,)? u8> as Handler,
            2 => $($p)::+::<$($o,)? u16> as Handler,
            4 => $($p)::+::<$($o,)? u32> as Handler,
            _ => $($p)::+::<$($o,)? u64> as Handler,
        }
    };
}

/// Likewise for 2, 4 and 8 bytes.
macro_rules! wide {
    ($size:expr, $($p:ident)::+ $(, $o:ty)?) => {
        match $size {
            2 => $($p)::+::<$($o,)? u16> as Handler,
            4 => $($p)::+::<$($o,)? u32> as Handler,
            _ => $($p)::+::<$($o,)? u64> as Handler,
        }
    };
}

/// Picks the instance for a condition code 0..=15.
macro_rules! by_cond {
    ($cc:expr, $f:ident) => {
        match $cc {
            0 => $f!(C0),
            1 => $f!(C1),
            2 => $f!(C2),
            3 => $f!(C3),
            4 => $f!(C4),
            5 => $f!(C5),
            6 => $f!(C6),
            7 => $f!(C7),
            8 => $f!(C8),
            9 => $f!(C9),
            10 => $f!(C10),
            11 => $f!(C11),
            12 => $f!(C12),
            13 => $f!(C13),
            14 => $f!(C14),
            _ => $f!(C15),
        }
    };
}

fn is_imm(k: OpKind) -> bool {
    matches!(
        k,
        OpKind::Immediate8
            | OpKind::Immediate16
            | OpKind::Immediate32
            | OpKind::Immediate64
            | OpKind::Immediate8to16
            | OpKind::Immediate8to32
            | OpKind::Immediate8to64
            | OpKind::Immediate32to64
    )
}

/// Size of operand `i` in bytes, register or memory.
fn size_of_operand(insn: &Instruction, i: u32) -> usize {
    match insn.op_kind(i) {
        OpKind::Register => insn.op_register(i).size(),
        _ => insn.memory_size().size(),
    }
}

/// Operand size of a near or far transfer or stack instruction from iced's pointer adjustment or name.
fn branch_size(insn: &Instruction) -> usize {
    match insn.code().op_code().operand_size() {
        16 => 2,
        32 => 4,
        _ => 8,
    }
}

/// The memory operand's address is linear as computed: no FS or GS, in 64-bit code or with flat 32-bit segments. There it
/// may lack the wrap at 4 GiB: then the TLB does not have it, and the handler that is called instead wraps it.
fn plain(cpu: &Cpu, insn: &Instruction) -> bool {
    use iced_x86::Register as Reg;
    let wanted = match insn.memory_segment() {
        Reg::FS | Reg::GS => return false,
        _ if insn.code_size() == iced_x86::CodeSize::Code64 => 8,
        Reg::CS => return false,
        _ if cpu.mode & mode::FLAT != 0 => 4,
        _ => return false,
    };
    let (base, index) = (insn.memory_base(), insn.memory_index());
    if base != Reg::None {
        base.size() == wanted
    } else if index != Reg::None {
        index.size() == wanted
    } else {
        insn.memory_displ_size() == wanted as u32
    }
}

fn alu_select<O: alu::Alu>(cpu: &Cpu, insn: &Instruction) -> Handler {
    let size = size_of_operand(insn, 0);
    let lock = insn.has_lock_prefix();
    match (insn.op0_kind(), insn.op1_kind()) {
        (OpKind::Register, OpKind::Register) => sized!(size, alu::rr, O),
        (OpKind::Register, OpKind::Memory) if plain(cpu, insn) => sized!(size, alu::rm, O),
        (OpKind::Register, OpKind::Memory) => sized!(size, alu::rm_slow, O),
        (OpKind::Register, _) => sized!(size, alu::ri, O),
        (_, OpKind::Register) if lock => sized!(size, alu::mr_lock, O),
        (_, OpKind::Register) if plain(cpu, insn) => sized!(size, alu::mr_fast, O),
        (_, OpKind::Register) => sized!(size, alu::mr, O),
        (_, _) if lock => sized!(size, alu::mi_lock, O),
        (_, _) if plain(cpu, insn) => sized!(size, alu::mi_fast, O),
        (_, _) => sized!(size, alu::mi, O),
    }
}

fn alu_quiet<O: alu::Alu>(insn: &Instruction) -> Option<Handler> {
    let size = size_of_operand(insn, 0);
    match (insn.op0_kind(), insn.op1_kind()) {
        (OpKind::Register, OpKind::Register) => wide_or(size, || wide!(size, alu::rr_quiet, O)),
        (OpKind::Register, k) if is_imm(k) => wide_or(size, || wide!(size, alu::ri_quiet, O)),
        _ => None,
    }
}

macro_rules! after {
    ($size:expr, $reg:expr, $($p:ident)::+, $o:ident) => {
        if $size == 8 {
            AfterMov {
                size: 8,
                reg: $reg,
                full: Some($($p)::+::<$o, u64, false>),
                quiet: $($p)::+::<$o, u64, true>,
            }
        } else {
            AfterMov {
                size: 4,
                reg: $reg,
                full: Some($($p)::+::<$o, u32, false>),
                quiet: $($p)::+::<$o, u32, true>,
            }
        }
    };
}

fn alu_after_mov<O: alu::Alu>(insn: &Instruction) -> Option<AfterMov> {
    let size = size_of_operand(insn, 0);
    alu_quiet::<O>(insn)?;
    Some(if insn.op1_kind() == OpKind::Register {
        after!(size, true, alu::mov_then_rr, O)
    } else {
        after!(size, false, alu::mov_then_ri, O)
    })
}

fn shift_after_mov<O: shift::Shift>(insn: &Instruction) -> Option<AfterMov> {
    let size = size_of_operand(insn, 0);
    shift_quiet::<O>(insn)?;
    Some(after!(size, false, shift::mov_then_imm, O))
}

fn wide_or(size: usize, f: impl Fn() -> Handler) -> Option<Handler> {
    (size > 2).then(f)
}

fn unary_quiet<O: alu::Unary>(insn: &Instruction) -> Option<Handler> {
    let size = size_of_operand(insn, 0);
    if insn.op0_kind() != OpKind::Register {
        return None;
    }
    wide_or(size, || wide!(size, alu::un_r_quiet, O))
}

fn shift_quiet<O: shift::Shift>(insn: &Instruction) -> Option<Handler> {
    let size = size_of_operand(insn, 0);
    let mask = if size == 8 { 63 } else { 31 };
    if insn.op0_kind() != OpKind::Register || !is_imm(insn.op1_kind()) || insn.immediate(1) & mask == 0 {
        return None;
    }
    wide_or(size, || wide!(size, shift::r_imm_quiet, O))
}

/// CMP or TEST of registers, or of plain memory with an immediate, together with Jcc.
fn fused_select<O: alu::Alu>(cpu: &Cpu, insn: &Instruction) -> Option<fn(u8) -> Handler> {
    let size = size_of_operand(insn, 0);
    match (insn.op0_kind(), insn.op1_kind()) {
        (OpKind::Register, OpKind::Register) => Some(match size {
            1 => fused_rr::<O, u8>,
            2 => return None,
            4 => fused_rr::<O, u32>,
            _ => fused_rr::<O, u64>,
        }),
        (OpKind::Register, k) if is_imm(k) => Some(match size {
            1 => fused_ri::<O, u8>,
            2 => return None,
            4 => fused_ri::<O, u32>,
            _ => fused_ri::<O, u64>,
        }),
        (OpKind::Memory, k) if is_imm(k) && plain(cpu, insn) => Some(match size {
            1 => fused_mi::<O, u8>,
            2 => return None,
            4 => fused_mi::<O, u32>,
            _ => fused_mi::<O, u64>,
        }),
        _ => None,
    }
}

macro_rules! fused {
    ($($name:ident $handler:ident),*) => {$(
        fn $name<O: alu::Alu, T: super::Int>(cc: u8) -> Handler {
            use super::mov::*;
            macro_rules! pick {
                ($c:ident) => {
                    branch::$handler::<O, T, $c> as Handler
                };
            }
            by_cond!(cc, pick)
        }
    )*};
}
fused!(fused_rr cmp_rr_jcc, fused_ri cmp_ri_jcc, fused_mi cmp_mi_jcc);

fn unary_select<O: alu::Unary>(insn: &Instruction) -> Handler {
    let size = size_of_operand(insn, 0);
    match insn.op0_kind() {
        OpKind::Register => sized!(size, alu::un_r, O),
        _ if insn.has_lock_prefix() => sized!(size, alu::un_m_lock, O),
        _ => sized!(size, alu::un_m, O),
    }
}

fn shift_select<O: shift::Shift>(insn: &Instruction) -> Handler {
    let size = size_of_operand(insn, 0);
    let mem = insn.op0_kind() == OpKind::Memory;
    let cl = insn.op1_kind() == OpKind::Register;
    match (mem, cl) {
        (false, false) => sized!(size, shift::r_imm, O),
        (false, true) => sized!(size, shift::r_cl, O),
        (true, false) => sized!(size, shift::m_imm, O),
        (true, true) => sized!(size, shift::m_cl, O),
    }
}

fn bit_select<O: bits::BitOp>(insn: &Instruction) -> Handler {
    let size = size_of_operand(insn, 0);
    if insn.op1_kind() == OpKind::Register {
        wide!(size, bits::bt_r, O)
    } else {
        wide!(size, bits::bt_i, O)
    }
}

fn string_select<O: string::StrOp>(insn: &Instruction) -> Select {
    let size = insn.memory_size().size();
    if insn.has_rep_prefix() || insn.has_repne_prefix() {
        Select::end(sized!(size, string::repeated, O))
    } else {
        Select::go(sized!(size, string::single, O))
    }
}

fn mov_select(cpu: &Cpu, insn: &Instruction) -> Option<Select> {
    use iced_x86::Register;
    let (k0, k1) = (insn.op0_kind(), insn.op1_kind());
    let is = |i: u32, f: fn(Register) -> bool| insn.op_kind(i) == OpKind::Register && f(insn.op_register(i));
    if is(0, Register::is_segment_register) {
        return Some(Select::end(stack::mov_to_seg));
    }
    if is(1, Register::is_segment_register) {
        let size = if k0 == OpKind::Register { insn.op0_register().size() } else { 2 };
        return Some(Select::go(wide!(size, stack::mov_from_seg)));
    }
    if is(0, Register::is_cr) {
        return Some(Select::end(system::mov_to_cr));
    }
    if is(1, Register::is_cr) {
        return Some(Select::go(system::mov_from_cr));
    }
    if is(0, Register::is_dr) {
        return Some(Select::end(system::mov_to_dr));
    }
    if is(1, Register::is_dr) {
        return Some(Select::go(system::mov_from_dr));
    }
    if is(0, Register::is_tr) || is(1, Register::is_tr) {
        return None;
    }
    let size = size_of_operand(insn, 0);
    Some(Select::go(match (k0, k1) {
        (OpKind::Register, OpKind::Register) => sized!(size, mov::rr),
        (OpKind::Register, OpKind::Memory) if plain(cpu, insn) => sized!(size, mov::rm),
        (OpKind::Register, OpKind::Memory) => sized!(size, mov::rm_slow),
        (OpKind::Register, _) => sized!(size, mov::ri),
        (_, OpKind::Register) if plain(cpu, insn) => sized!(size, mov::mr_fast),
        (_, OpKind::Register) => sized!(size, mov::mr),
        _ if plain(cpu, insn) => sized!(size, mov::mi_fast),
        _ => sized!(size, mov::mi),
    }))
}

fn extend_select(cpu: &Cpu, insn: &Instruction, signed: bool) -> Handler {
    let (d, s) = (size_of_operand(insn, 0), size_of_operand(insn, 1));
    let mem = insn.op1_kind() == OpKind::Memory;
    macro_rules! pick {
        ($f:ident) => {
            match (d, s) {
                (2, 1) => mov::$f::<u16, u8> as Handler,
                (4, 1) => mov::$f::<u32, u8> as Handler,
                (8, 1) => mov::$f::<u64, u8> as Handler,
                (2, 2) => mov::$f::<u16, u16> as Handler,
                (4, 2) => mov::$f::<u32, u16> as Handler,
                (8, 2) => mov::$f::<u64, u16> as Handler,
                (2, _) => mov::$f::<u16, u16> as Handler,
                (4, _) => mov::$f::<u32, u32> as Handler,
                _ => mov::$f::<u64, u32> as Handler,
            }
        };
    }
    match (signed, mem) {
        (false, false) => pick!(movzx_r),
        (false, true) if plain(cpu, insn) => pick!(movzx_m),
        (false, true) => pick!(movzx_m_slow),
        (true, false) => pick!(movsx_r),
        (true, true) if plain(cpu, insn) => pick!(movsx_m),
        (true, true) => pick!(movsx_m_slow),
    }
}

pub(super) fn condition(insn: &Instruction) -> Option<u8> {
    use iced_x86::ConditionCode as C;
    Some(match insn.condition_code() {
        C::None => return None,
        C::o => 0,
        C::no => 1,
        C::b => 2,
        C::ae => 3,
        C::e => 4,
        C::ne => 5,
        C::be => 6,
        C::a => 7,
        C::s => 8,
        C::ns => 9,
        C::p => 10,
        C::np => 11,
        C::l => 12,
        C::ge => 13,
        C::le => 14,
        C::g => 15,
    })
}

fn conditional(cpu: &Cpu, insn: &Instruction) -> Option<Select> {
    use super::mov::*;
    let cc = condition(insn)?;
    let size = size_of_operand(insn, 0);
    if insn.is_jcc_short_or_near() {
        macro_rules! j {
            ($c:ident) => {
                branch::jcc::<$c> as Handler
            };
        }
        return Some(Select::end(by_cond!(cc, j)));
    }
    let mem = insn.op_count() > 0 && insn.op_kind(insn.op_count() - 1) == OpKind::Memory;
    if insn.op_count() == 1 {
        macro_rules! s {
            ($c:ident) => {
                if mem {
                    set_m::<$c> as Handler
                } else {
                    set_r::<$c> as Handler
                }
            };
        }
        if size != 1 {
            return None;
        }
        return Some(Select::go(by_cond!(cc, s)));
    }
    if insn.op_count() != 2 || !insn.op0_register().is_gpr() || insn.op0_kind() != OpKind::Register {
        return None;
    }
    macro_rules! c {
        ($c:ident) => {
            if mem && plain(cpu, insn) {
                wide!(size, cmov_m, $c)
            } else if mem {
                wide!(size, cmov_m_slow, $c)
            } else {
                wide!(size, cmov_r, $c)
            }
        };
    }
    Some(Select::go(by_cond!(cc, c)))
}

/// The handler of a general instruction, `None` if it is not one.
pub fn select(cpu: &Cpu, insn: &Instruction) -> Option<Select> {
    let go = |f: Handler| Some(Select::go(f));
    let m = insn.mnemonic();
    match m {
        M::Add => Some(
            Select::go(alu_select::<Add>(cpu, insn))
                .quiet(alu_quiet::<Add>(insn))
                .after_mov(alu_after_mov::<Add>(insn)),
        ),
        M::Or => Some(
            Select::go(alu_select::<Or>(cpu, insn))
                .quiet(alu_quiet::<Or>(insn))
                .after_mov(alu_after_mov::<Or>(insn)),
        ),
        M::Adc => go(alu_select::<Adc>(cpu, insn)),
        M::Sbb => go(alu_select::<Sbb>(cpu, insn)),
        M::And => Some(
            Select::go(alu_select::<And>(cpu, insn))
                .quiet(alu_quiet::<And>(insn))
                .after_mov(alu_after_mov::<And>(insn)),
        ),
        M::Sub => Some(
            Select::go(alu_select::<Sub>(cpu, insn))
                .quiet(alu_quiet::<Sub>(insn))
                .after_mov(alu_after_mov::<Sub>(insn)),
        ),
        M::Xor => Some(
            Select::go(alu_select::<Xor>(cpu, insn))
                .quiet(alu_quiet::<Xor>(insn))
                .after_mov(alu_after_mov::<Xor>(insn)),
        ),
        M::Cmp => {
            Some(Select { fused: fused_select::<Cmp>(cpu, insn), ..Select::go(alu_select::<Cmp>(cpu, insn)) })
        }
        M::Test => Some(Select {
            fused: fused_select::<Test>(cpu, insn),
            ..Select::go(alu_select::<Test>(cpu, insn))
        }),
        M::Inc => Some(Select::go(unary_select::<Inc>(insn)).quiet(unary_quiet::<Inc>(insn))),
        M::Dec => Some(Select::go(unary_select::<Dec>(insn)).quiet(unary_quiet::<Dec>(insn))),
        M::Neg => Some(Select::go(unary_select::<Neg>(insn)).quiet(unary_quiet::<Neg>(insn))),
        M::Not => go(unary_select::<Not>(insn)),
        M::Shl | M::Sal => Some(
            Select::go(shift_select::<Shl>(insn))
                .quiet(shift_quiet::<Shl>(insn))
                .after_mov(shift_after_mov::<Shl>(insn)),
        ),
        M::Shr => Some(
            Select::go(shift_select::<Shr>(insn))
                .quiet(shift_quiet::<Shr>(insn))
                .after_mov(shift_after_mov::<Shr>(insn)),
        ),
        M::Sar => Some(
            Select::go(shift_select::<Sar>(insn))
                .quiet(shift_quiet::<Sar>(insn))
                .after_mov(shift_after_mov::<Sar>(insn)),
        ),
        M::Rol => Some(
            Select::go(shift_select::<Rol>(insn))
                .quiet(shift_quiet::<Rol>(insn))
                .after_mov(shift_after_mov::<Rol>(insn)),
        ),
        M::Ror => Some(
            Select::go(shift_select::<Ror>(insn))
                .quiet(shift_quiet::<Ror>(insn))
                .after_mov(shift_after_mov::<Ror>(insn)),
        ),
        M::Rcl => go(shift_select::<Rcl>(insn)),
        M::Rcr => go(shift_select::<Rcr>(insn)),
        M::Shld => go(wide!(size_of_operand(insn, 0), shift::shld)),
        M::Shrd => go(wide!(size_of_operand(insn, 0), shift::shrd)),
        M::Bt => go(bit_select::<Bt>(insn)),
        M::Bts => go(bit_select::<Bts>(insn)),
        M::Btr => go(bit_select::<Btr>(insn)),
        M::Btc => go(bit_select::<Btc>(insn)),
        M::Mov => mov_select(cpu, insn),
        M::Movzx => go(extend_select(cpu, insn, false)),
        M::Movsx | M::Movsxd => go(extend_select(cpu, insn, true)),
        M::Lea if plain(cpu, insn) => go(wide!(insn.op0_register().size(), mov::lea_plain)),
        M::Lea => go(wide!(insn.op0_register().size(), mov::lea)),
        M::Xchg => {
            let size = size_of_operand(insn, 0);
            if insn.op0_kind() == OpKind::Memory {
                go(sized!(size, alu::xchg_mr))
            } else {
                go(sized!(size, alu::xchg_rr))
            }
        }
        M::Xadd => {
            let size = size_of_operand(insn, 0);
            if insn.op0_kind() == OpKind::Memory {
                go(sized!(size, alu::xadd_mr))
            } else {
                go(sized!(size, alu::xadd_rr))
            }
        }
        M::Cmpxchg => {
            let size = size_of_operand(insn, 0);
            if insn.op0_kind() == OpKind::Memory {
                go(sized!(size, alu::cmpxchg_mr))
            } else {
                go(sized!(size, alu::cmpxchg_rr))
            }
        }
        M::Cmpxchg8b => go(alu::cmpxchg8b),
        M::Cmpxchg16b => go(alu::cmpxchg16b),
        _ => select_more(cpu, insn, m),
    }
}

fn select_more(cpu: &Cpu, insn: &Instruction, m: M) -> Option<Select> {
    let go = |f: Handler| Some(Select::go(f));
    let end = |f: Handler| Some(Select::end(f));
    let s0 = || size_of_operand(insn, 0);
    match m {
        M::Mul => go(sized!(s0(), muldiv::mul)),
        M::Div => go(sized!(s0(), muldiv::div)),
        M::Idiv => go(sized!(s0(), muldiv::idiv)),
        M::Imul => match insn.op_count() {
            1 => go(sized!(s0(), muldiv::imul1)),
            2 => Some(
                imul_select(insn, wide!(s0(), muldiv::imul2), wide!(s0(), muldiv::imul2_quiet))
                    .after_mov(imul_after_mov(insn)),
            ),
            _ => Some(imul_select(insn, wide!(s0(), muldiv::imul3), wide!(s0(), muldiv::imul3_quiet))),
        },
        M::Mulx if s0() == 4 => go(muldiv::mulx32),
        M::Mulx => go(muldiv::mulx64),
        M::Aaa => go(bcd::aaa),
        M::Aas => go(bcd::aas),
        M::Daa => go(bcd::daa),
        M::Das => go(bcd::das),
        M::Aam => go(bcd::aam),
        M::Aad => go(bcd::aad),
        M::Bsf => go(wide!(s0(), bits::bsf)),
        M::Bsr => go(wide!(s0(), bits::bsr)),
        // Processors without the feature ignore the prefix.
        M::Tzcnt if cpu.model.f7_ebx() & 1 << 3 == 0 => go(wide!(s0(), bits::bsf)),
        M::Lzcnt if cpu.model.x1_ecx() & 1 << 5 == 0 => go(wide!(s0(), bits::bsr)),
        M::Tzcnt => go(wide!(s0(), bits::tzcnt)),
        M::Lzcnt => go(wide!(s0(), bits::lzcnt)),
        M::Popcnt => go(wide!(s0(), bits::popcnt)),
        M::Andn => go(wide!(s0(), bits::andn)),
        M::Bextr if insn.op_count() == 3 && insn.op2_kind() == OpKind::Register => {
            go(wide!(s0(), bits::bextr))
        }
        M::Blsi => go(wide!(s0(), bits::blsi)),
        M::Blsmsk => go(wide!(s0(), bits::blsmsk)),
        M::Blsr => go(wide!(s0(), bits::blsr)),
        M::Bzhi => go(wide!(s0(), bits::bzhi)),
        M::Pdep => go(wide!(s0(), bits::pdep)),
        M::Pext => go(wide!(s0(), bits::pext)),
        M::Rorx => go(wide!(s0(), bits::rorx)),
        M::Sarx => go(wide!(s0(), bits::sarx)),
        M::Shlx => go(wide!(s0(), bits::shlx)),
        M::Shrx => go(wide!(s0(), bits::shrx)),
        M::Adcx => go(wide!(s0(), bits::adcx)),
        M::Adox => go(wide!(s0(), bits::adox)),
        M::Crc32 => go(sized!(size_of_operand(insn, 1), bits::crc32)),
        M::Rdrand | M::Rdseed => go(wide!(s0(), bits::rdrand)),
        M::Bswap => go(match s0() {
            2 => mov::bswap16,
            4 => mov::bswap32,
            _ => mov::bswap64,
        }),
        M::Movbe if insn.op0_kind() == OpKind::Register => go(wide!(s0(), mov::movbe_rm)),
        M::Movbe => go(wide!(s0(), mov::movbe_mr)),
        M::Movnti => go(wide!(s0(), mov::mr)),
        M::Xlatb => go(mov::xlat),
        M::Cbw => go(mov::cbw),
        M::Cwde => go(mov::cwde),
        M::Cdqe => go(mov::cdqe),
        M::Cwd => go(mov::cwd::<u16>),
        M::Cdq => go(mov::cwd::<u32>),
        M::Cqo => go(mov::cwd::<u64>),
        M::Lahf => go(mov::lahf),
        M::Sahf => go(mov::sahf),
        M::Cmc => go(mov::cmc),
        M::Clc => go(mov::clc),
        M::Stc => go(mov::stc),
        M::Cld => go(mov::cld),
        M::Std => go(mov::std),
        M::Salc => go(mov::salc),
        M::Nop
        | M::Pause
        | M::Prefetchnta
        | M::Prefetcht0
        | M::Prefetcht1
        | M::Prefetcht2
        | M::Prefetchw
        | M::Prefetch
        | M::Prefetchwt1
        | M::Lfence
        | M::Sfence
        | M::Endbr64
        | M::Endbr32
        | M::Reservednop
        | M::Cldemote
        | M::Rdsspd
        | M::Rdsspq
        | M::Prefetchit0
        | M::Prefetchit1 => go(mov::nop),
        M::Clflush | M::Clflushopt | M::Clwb => go(mov::touch),
        M::Mfence => go(system::mfence),
        M::Movsb | M::Movsw | M::Movsq => Some(string_select::<Movs>(insn)),
        M::Movsd if insn.is_string_instruction() => Some(string_select::<Movs>(insn)),
        M::Cmpsb | M::Cmpsw | M::Cmpsq => Some(string_select::<Cmps>(insn)),
        M::Cmpsd if insn.is_string_instruction() => Some(string_select::<Cmps>(insn)),
        M::Stosb | M::Stosw | M::Stosd | M::Stosq => Some(string_select::<Stos>(insn)),
        M::Lodsb | M::Lodsw | M::Lodsd | M::Lodsq => Some(string_select::<Lods>(insn)),
        M::Scasb | M::Scasw | M::Scasd | M::Scasq => Some(string_select::<Scas>(insn)),
        M::Insb | M::Insw | M::Insd => Some(string_select::<Ins>(insn)),
        M::Outsb | M::Outsw | M::Outsd => Some(string_select::<Outs>(insn)),
        M::In => end(sized!(insn.op0_register().size(), io::input)),
        M::Out => end(sized!(insn.op1_register().size(), io::output)),
        M::Push => push_select(cpu, insn),
        M::Pop => pop_select(cpu, insn),
        M::Pusha => go(stack::pusha::<u16>),
        M::Pushad => go(stack::pusha::<u32>),
        M::Popa => go(stack::popa::<u16>),
        M::Popad => go(stack::popa::<u32>),
        M::Pushf => go(stack::pushf::<u16>),
        M::Pushfd => go(stack::pushf::<u32>),
        M::Pushfq => go(stack::pushf::<u64>),
        M::Popf => end(stack::popf::<u16>),
        M::Popfd => end(stack::popf::<u32>),
        M::Popfq => end(stack::popf::<u64>),
        M::Enter => go(wide!(branch_size(insn), stack::enter)),
        M::Leave => go(wide!(branch_size(insn), stack::leave)),
        M::Lds | M::Les | M::Lss | M::Lfs | M::Lgs => end(wide!(s0(), stack::load_far)),
        M::Bound => go(wide!(s0(), stack::bound)),
        _ => conditional(cpu, insn).or_else(|| select_control(cpu, insn, m)),
    }
}

fn imul_after_mov(insn: &Instruction) -> Option<AfterMov> {
    if insn.op1_kind() != OpKind::Register {
        return None;
    }
    match size_of_operand(insn, 0) {
        8 => Some(AfterMov { size: 8, reg: true, full: None, quiet: muldiv::mov_then_imul::<u64> }),
        4 => Some(AfterMov { size: 4, reg: true, full: None, quiet: muldiv::mov_then_imul::<u32> }),
        _ => None,
    }
}

fn imul_select(insn: &Instruction, f: Handler, quiet: Handler) -> Select {
    Select::go(f).quiet((insn.op1_kind() == OpKind::Register).then_some(quiet))
}

fn push_select(cpu: &Cpu, insn: &Instruction) -> Option<Select> {
    let size = insn.stack_pointer_increment().unsigned_abs() as usize;
    let f = match insn.op0_kind() {
        OpKind::Register if insn.op0_register().is_segment_register() => wide!(size, stack::push_seg),
        OpKind::Register if size == 8 => stack::push_r64,
        OpKind::Register if size == 4 && cpu.mode & mode::FLAT != 0 => stack::push_r32,
        OpKind::Register => wide!(size, stack::push_r),
        OpKind::Memory => wide!(size, stack::push_m),
        k if is_imm(k) => wide!(size, stack::push_i),
        _ => return None,
    };
    Some(Select::go(f))
}

fn pop_select(cpu: &Cpu, insn: &Instruction) -> Option<Select> {
    let size = insn.stack_pointer_increment().unsigned_abs() as usize;
    Some(match insn.op0_kind() {
        OpKind::Register if insn.op0_register().is_segment_register() => {
            Select::end(wide!(size, stack::pop_seg))
        }
        OpKind::Register if size == 8 => Select::go(stack::pop_r64),
        OpKind::Register if size == 4 && cpu.mode & mode::FLAT != 0 => Select::go(stack::pop_r32),
        OpKind::Register => Select::go(wide!(size, stack::pop_r)),
        _ => Select::go(wide!(size, stack::pop_m)),
    })
}

fn select_control(cpu: &Cpu, insn: &Instruction, m: M) -> Option<Select> {
    let go = |f: Handler| Some(Select::go(f));
    let end = |f: Handler| Some(Select::end(f));
    let s0 = || size_of_operand(insn, 0);
    let near = matches!(insn.op0_kind(), OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64);
    match m {
        M::Jmp if near => end(branch::jmp),
        M::Jmp => match insn.op0_kind() {
            OpKind::FarBranch16 | OpKind::FarBranch32 => end(system::jmp_far_imm),
            OpKind::Memory if insn.is_jmp_far_indirect() => end(wide!(s0() - 2, system::jmp_far_mem)),
            _ => end(wide!(s0(), branch::jmp_rm)),
        },
        M::Call if near => match insn.op0_kind() {
            OpKind::NearBranch64 => end(branch::call64),
            OpKind::NearBranch32 if cpu.mode & mode::FLAT != 0 => end(branch::call32),
            OpKind::NearBranch32 => end(branch::call::<u32>),
            _ => end(branch::call::<u16>),
        },
        M::Call => match insn.op0_kind() {
            OpKind::FarBranch16 => end(system::call_far_imm::<u16>),
            OpKind::FarBranch32 => end(system::call_far_imm::<u32>),
            OpKind::Memory if insn.is_call_far_indirect() => end(wide!(s0() - 2, system::call_far_mem)),
            _ => end(wide!(s0(), branch::call_rm)),
        },
        M::Ret if insn.code_size() == iced_x86::CodeSize::Code64 && branch_size(insn) == 8 => {
            end(branch::ret64)
        }
        M::Ret if branch_size(insn) == 4 && cpu.mode & mode::FLAT != 0 => end(branch::ret32),
        M::Ret => end(wide!(branch_size(insn), branch::ret)),
        M::Retf => end(wide!(branch_size(insn), system::ret_far)),
        M::Iret => end(system::iret::<u16>),
        M::Iretd => end(system::iret::<u32>),
        M::Iretq => end(system::iret::<u64>),
        M::Loop => end(branch::loop_::<branch::Loop>),
        M::Loope => end(branch::loop_::<branch::Loope>),
        M::Loopne => end(branch::loop_::<branch::Loopne>),
        M::Jcxz | M::Jecxz | M::Jrcxz => end(branch::jcxz),
        M::Int => end(system::int_n),
        M::Int3 => end(system::int3),
        M::Int1 => end(system::int1),
        M::Into => end(system::into),
        M::Syscall => end(system::syscall),
        M::Sysret => end(system::sysret::<u32>),
        M::Sysretq => end(system::sysret::<u64>),
        M::Sysenter => end(system::sysenter),
        M::Sysexit => end(system::sysexit::<u32>),
        M::Sysexitq => end(system::sysexit::<u64>),
        M::Rsm => end(system::rsm),
        M::Cli => end(system::cli),
        M::Sti => end(system::sti),
        M::Hlt => end(system::hlt),
        M::Lgdt => end(system::lgdt),
        M::Lidt => end(system::lidt),
        M::Sgdt => go(system::sgdt),
        M::Sidt => go(system::sidt),
        M::Lldt => end(system::lldt),
        M::Ltr => end(system::ltr),
        M::Sldt => go(system::sldt),
        M::Str => go(system::str_),
        M::Smsw => go(system::smsw),
        M::Lmsw => end(system::lmsw),
        M::Clts => end(system::clts),
        M::Invlpg => end(system::invlpg),
        M::Invpcid => end(system::invpcid),
        M::Wbinvd | M::Invd | M::Wbnoinvd => go(system::wbinvd),
        M::Rdmsr => go(system::rdmsr),
        M::Wrmsr => end(system::wrmsr),
        M::Rdtsc => go(system::rdtsc),
        M::Rdtscp => go(system::rdtscp),
        M::Rdpmc => go(system::rdpmc),
        M::Rdpid => go(system::rdpid),
        M::Cpuid => go(system::cpuid),
        M::Swapgs => end(system::swapgs),
        M::Clac => end(system::clac),
        M::Stac => end(system::stac),
        M::Monitor => go(system::monitor),
        M::Mwait => end(system::mwait),
        M::Arpl => go(system::arpl),
        M::Verr => go(system::verr),
        M::Verw => go(system::verw),
        M::Lar => go(wide!(s0(), system::lar)),
        M::Lsl => go(wide!(s0(), system::lsl)),
        M::Rdfsbase | M::Rdgsbase => go(wide!(s0(), system::rdbase)),
        M::Wrfsbase | M::Wrgsbase => go(wide!(s0(), system::wrbase)),
        M::Xgetbv => go(system::xgetbv),
        M::Xsetbv => end(system::xsetbv),
        M::Ud0 | M::Ud1 | M::Ud2 => end(misc::undefined),
        _ => None,
    }
}
