//! From bytes to operations.

use iced_x86::{
    CpuidFeature, Decoder, DecoderError, DecoderOptions, Instruction, Mnemonic, OpKind, Register,
};

use super::select::{select, Select};
use super::{branch, misc, Op};
use crate::cpu::{mode, Cpu};
use crate::fault::Exception;
use crate::state::gpr;

/// A decoded run of instructions.
pub struct Run {
    /// The operations, the last one ends the block.
    pub ops: Vec<Op>,
    /// Bytes covered.
    pub len: usize,
    /// Instructions.
    pub count: u16,
}

/// Result of [`decode_block`].
pub enum Decoded {
    /// At least one instruction.
    Ops(Run),
    /// The first instruction needs more bytes.
    Short,
    /// It cannot be fetched or decoded.
    Bad(Exception),
}

/// Decodes instructions at the CPU's RIP until one ends the block, `max` is reached, or the bytes end.
pub fn decode_block(cpu: &Cpu, bytes: &[u8], max: usize) -> Decoded {
    let bits = if cpu.long_code {
        64
    } else if cpu.mode & mode::CODE32 != 0 {
        32
    } else {
        16
    };
    let mut decoder = Decoder::with_ip(bits, bytes, cpu.rip, DecoderOptions::NONE);
    let mut insn = Instruction::default();
    let mut ops = Vec::with_capacity(max.min(16) + 1);
    let mut len = 0;
    let mut ended = false;
    let mut sel: Vec<Select> = Vec::with_capacity(max.min(16));
    let mut facts: Vec<Facts> = Vec::with_capacity(max.min(16));
    while ops.len() < max && len < bytes.len() {
        if max > 1 && cpu.points.is_some() && cpu.breaks_at(cpu.lin_add(cpu.fetch_lin(), len as u64)) {
            let mut op = make(cpu, &Instruction::default(), len, misc::breakpoint);
            op.len = 1;
            ops.push(op);
            len += 1;
            ended = true;
            break;
        }
        decoder.decode_out(&mut insn);
        if insn.is_invalid() {
            if decoder.last_error() == DecoderError::NoMoreBytes && bytes.len() - len < 15 {
                if ops.is_empty() {
                    return Decoded::Short;
                }
                break;
            }
            let mut op = make(cpu, &insn, len, misc::undefined);
            op.len = 1;
            ops.push(op);
            len = (len + 1).min(bytes.len());
            ended = true;
            break;
        }
        let s = choose(cpu, &insn);
        ops.push(make(cpu, &insn, len, s.f));
        len += insn.len();
        let ends = s.ends;
        facts.push(Facts::of(&insn, &s));
        sel.push(s);
        if ends {
            ended = true;
            break;
        }
    }
    if max > 1 && ops.len() == sel.len() {
        improve(&mut ops, &sel, &facts);
    }
    let count = ops.len() as u16;
    if !ended {
        let mut end = make(cpu, &Instruction::default(), len, branch::end_block);
        end.imm = (cpu.rip + len as u64) & cpu.ip_mask;
        ops.push(end);
    }
    Decoded::Ops(Run { ops, len, count })
}

/// What the flags pass needs to know about an instruction.
struct Facts {
    /// It overwrites all arithmetic flags.
    kills: bool,
    /// It may fault, reads flags, or ends the block: the flags before it must be right.
    looks: bool,
    /// Condition code of a Jcc.
    jcc: Option<u8>,
    /// MOV between general registers: their size in bytes, else 0.
    mov: u8,
}

impl Facts {
    fn of(insn: &Instruction, s: &Select) -> Self {
        use iced_x86::RflagsBits as B;
        let all = B::OF | B::SF | B::ZF | B::AF | B::CF | B::PF;
        let jcc = if insn.is_jcc_short_or_near() { super::select::condition(insn) } else { None };
        // Only instructions with a `quiet` form and plain moves are known not to fault.
        let pure = s.quiet.is_some() || (s.fused.is_some() && !has_memory(insn)) || is_register_move(insn);
        let written = insn.rflags_modified();
        let mov = if insn.mnemonic() == Mnemonic::Mov
            && is_register_move(insn)
            && insn.op1_kind() == OpKind::Register
        {
            insn.op0_register().size() as u8
        } else {
            0
        };
        Self { mov, kills: pure && written & all == all, looks: !pure || insn.rflags_read() & all != 0, jcc }
    }
}

fn has_memory(insn: &Instruction) -> bool {
    (0..insn.op_count()).any(|i| insn.op_kind(i) == OpKind::Memory)
}

fn is_register_move(insn: &Instruction) -> bool {
    match insn.mnemonic() {
        Mnemonic::Lea => true,
        Mnemonic::Mov | Mnemonic::Movzx | Mnemonic::Movsx | Mnemonic::Movsxd => {
            !has_memory(insn)
                && (0..insn.op_count())
                    .all(|i| insn.op_kind(i) != OpKind::Register || insn.op_register(i).is_gpr())
        }
        Mnemonic::Bswap => true,
        _ => false,
    }
}

/// The handler that does MOV `a` and operation `b` at once, if they belong together.
fn after_mov(a: &Op, b: &Op, size: u8, sel: &Select, quiet: bool) -> Option<super::Handler> {
    let m = sel.after_mov?;
    if size != m.size || a.r[0] != b.r[0] || (m.reg && b.r[1] == a.r[0]) {
        return None;
    }
    if quiet {
        Some(m.quiet)
    } else {
        m.full
    }
}

/// Leaves out flags that nobody can see, and joins compares with their jumps.
fn improve(ops: &mut [Op], sel: &[Select], facts: &[Facts]) {
    let n = sel.len().min(ops.len());
    let mut live = true;
    let mut quiet = [false; crate::block::MAX_OPS];
    for i in (0..n).rev() {
        if !live {
            if let Some(q) = sel[i].quiet {
                ops[i].f = q;
                quiet[i] = true;
            }
        }
        if facts[i].looks {
            live = true;
        } else if facts[i].kills {
            live = false;
        }
    }
    let mut i = 0;
    while i + 1 < n {
        if let Some(h) = after_mov(&ops[i], &ops[i + 1], facts[i].mov, &sel[i + 1], quiet[i + 1]) {
            ops[i].f = h;
            // The second operation is done; it cannot start another pair.
            i += 1;
        }
        i += 1;
    }
    if n >= 2 {
        if let (Some(f), Some(cc)) = (sel[n - 2].fused, facts[n - 1].jcc) {
            ops[n - 2].f = f(cc);
        }
    }
}

fn choose(cpu: &Cpu, insn: &Instruction) -> Select {
    // TZCNT and LZCNT are BSF and BSR where the feature is absent.
    let prefix_ignored = matches!(insn.mnemonic(), Mnemonic::Tzcnt | Mnemonic::Lzcnt);
    if !prefix_ignored && !cpu.model.allows(insn) {
        return Select::end(misc::undefined);
    }
    if let Some(s) = select(cpu, insn) {
        return s;
    }
    match crate::fp::lookup(insn.code()) {
        Some(f) => match fp_gate(cpu, insn) {
            None => Select::go(f),
            Some(s) => s,
        },
        None => Select::end(misc::undefined),
    }
}

/// What CR0, CR4 and XCR0 say about floating point and vector instructions (SDM vol. 3, table 13-1).
fn fp_gate(cpu: &Cpu, insn: &Instruction) -> Option<Select> {
    let ud = Some(Select::end(misc::undefined));
    let nm = Some(Select::end(misc::device_not_available));
    let m = cpu.mode;
    match insn.mnemonic() {
        Mnemonic::Wait => return if m & mode::MP != 0 && m & mode::TS != 0 { nm } else { None },
        Mnemonic::Fxsave | Mnemonic::Fxrstor | Mnemonic::Fxsave64 | Mnemonic::Fxrstor64 => {
            return if m & (mode::EM | mode::TS) != 0 { nm } else { None }
        }
        Mnemonic::Emms | Mnemonic::Femms => {}
        Mnemonic::Prefetchnta
        | Mnemonic::Prefetcht0
        | Mnemonic::Prefetcht1
        | Mnemonic::Prefetcht2
        | Mnemonic::Prefetchw
        | Mnemonic::Prefetch
        | Mnemonic::Sfence
        | Mnemonic::Lfence
        | Mnemonic::Mfence
        | Mnemonic::Movnti => return None,
        Mnemonic::Xsave
        | Mnemonic::Xsave64
        | Mnemonic::Xrstor
        | Mnemonic::Xrstor64
        | Mnemonic::Xsaveopt
        | Mnemonic::Xsaveopt64
        | Mnemonic::Xsavec
        | Mnemonic::Xsavec64
        | Mnemonic::Xsaves
        | Mnemonic::Xsaves64
        | Mnemonic::Xrstors
        | Mnemonic::Xrstors64 => {
            return if cpu.cr4 & crate::state::cr4::OSXSAVE == 0 {
                ud
            } else if m & mode::TS != 0 {
                nm
            } else {
                None
            }
        }
        _ => {}
    }
    let x87 = insn.cpuid_features().iter().any(|f| {
        matches!(
            f,
            CpuidFeature::FPU
                | CpuidFeature::FPU287
                | CpuidFeature::FPU387
                | CpuidFeature::FPU287XL_ONLY
                | CpuidFeature::FPU387SL_ONLY
                | CpuidFeature::CMOV
        )
    });
    if x87 || insn.code().op_code().encoding() == iced_x86::EncodingKind::Legacy && is_x87(insn) {
        return if m & (mode::EM | mode::TS) != 0 { nm } else { None };
    }
    if insn.code().op_code().encoding() != iced_x86::EncodingKind::Legacy {
        return if m & mode::AVX == 0 || m & mode::PROT == 0 {
            ud
        } else if m & mode::TS != 0 {
            nm
        } else {
            None
        };
    }
    if m & mode::EM != 0 {
        return ud;
    }
    let mmx_only = !uses_xmm(insn) && insn.cpuid_features().iter().all(|f| !matches!(f, CpuidFeature::SSE));
    if !mmx_only && m & mode::OSFXSR == 0 {
        return ud;
    }
    if m & mode::TS != 0 {
        return nm;
    }
    None
}

fn is_x87(insn: &Instruction) -> bool {
    (0..insn.op_count()).any(|i| insn.op_kind(i) == OpKind::Register && insn.op_register(i).is_st())
}

fn uses_xmm(insn: &Instruction) -> bool {
    (0..insn.op_count()).any(|i| insn.op_kind(i) == OpKind::Register && insn.op_register(i).is_xmm())
}

/// Register operand in the form of [`Op::r`].
pub fn reg_code(r: Register) -> u8 {
    if r.is_gpr() {
        let high = matches!(r, Register::AH | Register::CH | Register::DH | Register::BH);
        return r.full_register().number() as u8 * 8 + high as u8;
    }
    r.number() as u8
}

fn base_code(r: Register) -> u8 {
    if r.is_gpr() {
        reg_code(r)
    } else if r.is_vector_register() {
        r.number() as u8
    } else {
        gpr::ZERO as u8 * 8
    }
}

/// Fills an operation from an instruction.
fn make(cpu: &Cpu, insn: &Instruction, off: usize, f: super::Handler) -> Op {
    const NONE: u8 = gpr::ZERO as u8 * 8;
    let mut op = Op {
        f,
        imm: 0,
        disp: 0,
        r: [0; 4],
        base: NONE,
        index: NONE,
        scale: 0,
        seg: 3,
        flags: 0,
        off: off as u16,
        len: insn.len() as u8,
        size: 0,
        code: insn.code() as u16,
    };
    if cpu.long_code {
        op.flags |= Op::LONG | Op::SP64;
    } else if cpu.mode & mode::STACK32 != 0 {
        op.flags |= Op::SP32;
    }
    if insn.has_lock_prefix() {
        op.flags |= Op::LOCK;
    }
    if insn.has_rep_prefix() {
        op.flags |= Op::REP;
    }
    if insn.has_repne_prefix() {
        op.flags |= Op::REPNE;
    }
    if matches!(
        insn.mnemonic(),
        Mnemonic::Loop
            | Mnemonic::Loope
            | Mnemonic::Loopne
            | Mnemonic::Jcxz
            | Mnemonic::Jecxz
            | Mnemonic::Jrcxz
    ) {
        // The counter is as wide as the address size.
        op.flags |= match insn.code().op_code().address_size() {
            16 => Op::A16,
            32 => Op::A32,
            _ => 0,
        };
    }
    let mut size = 0;
    let mut imms = 0;
    for i in 0..insn.op_count() {
        let kind = insn.op_kind(i);
        match kind {
            OpKind::Register => {
                let r = insn.op_register(i);
                if (i as usize) < 4 {
                    op.r[i as usize] = reg_code(r);
                } else {
                    op.imm |= (reg_code(r) as u64) << 32;
                }
                if size == 0 && r.is_gpr() {
                    size = r.size() as u8;
                }
                if r.is_ymm() {
                    op.flags |= Op::L256;
                }
            }
            OpKind::Memory => memory(&mut op, insn, cpu.mode & mode::FLAT != 0),
            OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64 => {
                op.imm = insn.near_branch_target()
            }
            OpKind::FarBranch16 => {
                op.imm = insn.far_branch16() as u64 | (insn.far_branch_selector() as u64) << 32
            }
            OpKind::FarBranch32 => {
                op.imm = insn.far_branch32() as u64 | (insn.far_branch_selector() as u64) << 32
            }
            OpKind::MemorySegSI | OpKind::MemorySegESI | OpKind::MemorySegRSI => {
                implicit(&mut op, gpr::RSI, kind_width(kind), segment(insn), cpu.long_code)
            }
            OpKind::MemorySegDI | OpKind::MemorySegEDI | OpKind::MemorySegRDI => {
                implicit(&mut op, gpr::RDI, kind_width(kind), segment(insn), cpu.long_code)
            }
            OpKind::MemoryESDI | OpKind::MemoryESEDI | OpKind::MemoryESRDI => {
                if op.flags & Op::MEM == 0 {
                    implicit(&mut op, gpr::RDI, kind_width(kind), 0, cpu.long_code);
                }
            }
            OpKind::Immediate8_2nd => op.imm |= (insn.immediate8_2nd() as u64) << 32,
            _ => {
                let v = insn.immediate(i);
                if imms == 0 {
                    op.imm |= v;
                }
                imms += 1;
            }
        }
    }
    let mem_size = insn.memory_size().size() as u8;
    if size == 0 || (mem_size != 0 && insn.op0_kind() != OpKind::Register) {
        size = mem_size;
    }
    op.size = size;
    if op.flags & Op::MEM == 0 {
        // Without memory operand the field holds the address of the next instruction.
        op.disp = (insn.next_ip()) & cpu.ip_mask;
    }
    if insn.code().op_code().encoding() != iced_x86::EncodingKind::Legacy {
        op.flags |= Op::VEX;
        if insn.code().op_code().l() == 1 || insn.memory_size().size() == 32 {
            op.flags |= Op::L256;
        }
    }
    op
}

fn kind_width(k: OpKind) -> u8 {
    match k {
        OpKind::MemorySegSI | OpKind::MemorySegDI | OpKind::MemoryESDI => 2,
        OpKind::MemorySegESI | OpKind::MemorySegEDI | OpKind::MemoryESEDI => 4,
        _ => 8,
    }
}

fn segment(insn: &Instruction) -> u8 {
    insn.memory_segment().number() as u8
}

fn implicit(op: &mut Op, reg: usize, width: u8, seg: u8, long: bool) {
    op.base = reg as u8 * 8;
    op.seg = seg;
    op.flags |= Op::MEM | width_flag(width, long, seg);
}

fn width_flag(width: u8, long: bool, seg: u8) -> u16 {
    match width {
        2 => Op::A16,
        4 => Op::A32,
        _ if long && seg < 4 => Op::PLAIN,
        _ => 0,
    }
}

fn memory(op: &mut Op, insn: &Instruction, flat: bool) {
    let (base, index) = (insn.memory_base(), insn.memory_index());
    let width = if base != Register::None {
        base.size() as u8
    } else if index != Register::None && index.is_gpr() {
        index.size() as u8
    } else {
        insn.memory_displ_size() as u8
    };
    let long = op.flags & Op::LONG != 0;
    let width = if width == 0 || (width == 1) {
        if long {
            8
        } else {
            4
        }
    } else {
        width
    };
    op.base = base_code(base);
    op.index = base_code(index);
    op.scale = insn.memory_index_scale().trailing_zeros() as u8;
    op.disp = insn.memory_displacement64();
    if width == 4 {
        // Modulo 4 GiB both are right. Where addresses are used as computed, the one that needs no wrap is better: the
        // upper half of the address space with a small register, or a small negative offset.
        let address =
            flat && (base == Register::None || (0x8000_0000..0xffff_0000).contains(&(op.disp as u32)));
        op.disp = if address { op.disp as u32 as u64 } else { op.disp as i32 as i64 as u64 };
    } else if width == 2 {
        op.disp = op.disp as i16 as i64 as u64;
    }
    op.seg = segment(insn);
    op.flags |= Op::MEM | width_flag(width, long, op.seg);
}
