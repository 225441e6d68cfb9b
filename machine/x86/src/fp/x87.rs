//! x87: the register stack, exceptions, loads, stores and control. The arithmetic itself is in `x87_ops`.
//!
//! Left out: after an *unmasked* overflow or underflow the result is the masked one, without the bias of the exponent
//! (Intel SDM volume 1, section 8.5.4).

use iced_x86::Code;

use crate::cpu::Cpu;
use crate::exec::{Handler, Op};
use crate::fault::{Exception, R};
use crate::handler;
use crate::state::cr0;

use super::x87_ops as ops;

/// An 80-bit value in the form of the register file.
pub type F80 = [u64; 2];

/// The default NaN, which masked invalid operations give.
pub const INDEFINITE: F80 = [0xc000_0000_0000_0000, 0xffff];

/// Status word.
pub mod sw {
    #![allow(missing_docs)]
    pub const IE: u16 = 1;
    pub const EXCEPTIONS: u16 = 0x3f;
    pub const SF: u16 = 0x40;
    pub const ES: u16 = 0x80;
    pub const C0: u16 = 0x100;
    pub const C1: u16 = 0x200;
    pub const C2: u16 = 0x400;
    pub const C3: u16 = 0x4000;
    pub const BUSY: u16 = 0x8000;
    pub const CONDITIONS: u16 = C0 | C1 | C2 | C3;
}

impl Cpu {
    /// What every waiting x87 and MMX instruction does first: reports an exception that is still pending.
    #[inline(always)]
    pub(crate) fn fpu_check(&mut self) -> R<()> {
        if self.fpu.sw & sw::ES != 0 {
            return self.fpu_pending();
        }
        Ok(())
    }

    #[cold]
    fn fpu_pending(&mut self) -> R<()> {
        if self.cr0 & cr0::NE != 0 {
            return self.raise(Exception::new(Exception::MF));
        }
        self.bus().ferr();
        Ok(())
    }

    #[inline(always)]
    pub(crate) fn st_index(&self, i: u8) -> usize {
        (self.fpu.top as usize + i as usize) & 7
    }

    #[inline(always)]
    pub(crate) fn st(&self, i: u8) -> F80 {
        self.fpu.r[self.st_index(i)]
    }

    #[inline(always)]
    pub(crate) fn set_st(&mut self, i: u8, v: F80) {
        let n = self.st_index(i);
        self.fpu.r[n] = [v[0], v[1] & 0xffff];
        self.fpu.tag |= 1 << n;
    }

    #[inline(always)]
    pub(crate) fn st_empty(&self, i: u8) -> bool {
        self.fpu.tag >> self.st_index(i) & 1 == 0
    }

    #[inline(always)]
    pub(crate) fn fpu_pop(&mut self) {
        let n = self.st_index(0);
        self.fpu.tag &= !(1 << n);
        self.fpu.top = (self.fpu.top + 1) & 7;
    }

    /// Adds exception flags and the C1 of a result; `false`: one of those that stop the operation is unmasked.
    #[inline(always)]
    pub(crate) fn fpu_flags(&mut self, host: u16) -> bool {
        let new = host & (sw::EXCEPTIONS | sw::SF);
        self.fpu.sw = self.fpu.sw & !sw::C1 | new | host & sw::C1;
        let unmasked = self.fpu.sw & !self.fpu.cw & sw::EXCEPTIONS;
        if unmasked == 0 {
            return true;
        }
        self.fpu.sw |= sw::ES | sw::BUSY;
        new & !self.fpu.cw & 7 == 0
    }

    /// Stack underflow (C1 = 0) or overflow (C1 = 1); `true`: masked, the default NaN is the result.
    #[cold]
    pub(crate) fn stack_fault(&mut self, overflow: bool) -> bool {
        self.fpu_flags(sw::IE | sw::SF | if overflow { sw::C1 } else { 0 })
    }

    /// Pushes a value with the flags that loading it raised.
    pub(crate) fn fpu_push(&mut self, v: F80, host: u16) {
        if !self.st_empty(7) {
            if self.stack_fault(true) {
                self.fpu.top = self.fpu.top.wrapping_sub(1) & 7;
                self.set_st(0, INDEFINITE);
            }
            return;
        }
        if self.fpu_flags(host) {
            self.fpu.top = self.fpu.top.wrapping_sub(1) & 7;
            self.set_st(0, v);
        }
    }

    /// Remembers the instruction for FSTENV and signal handlers.
    #[inline(always)]
    pub(crate) fn fpu_note(&mut self, op: &Op) {
        self.fpu.fip = self.op_rip(op);
        self.fpu.fcs = self.segs[crate::state::sreg::CS].sel;
        if op.has(Op::MEM) {
            self.fpu.fdp = self.ea(op);
            self.fpu.fds = self.segs[op.seg as usize].sel;
        }
    }

    /// FNINIT.
    pub(crate) fn fpu_init(&mut self) {
        let r = self.fpu.r;
        self.fpu = crate::state::X87 { r, cw: 0x37f, tag: 0, ..Default::default() };
    }

    /// The status word as the guest sees it.
    pub(crate) fn fpu_status(&self) -> u16 {
        self.fpu.sw & 0xc7ff | u16::from(self.fpu.top) << 11
    }

    /// Replaces the status word, TOP included; ES follows from the flags and the control word.
    pub(crate) fn set_fpu_status(&mut self, v: u16) {
        self.fpu.top = (v >> 11 & 7) as u8;
        self.fpu.sw = v & 0x477f;
        self.fpu_summary();
    }

    pub(crate) fn fpu_summary(&mut self) {
        let pending = self.fpu.sw & !self.fpu.cw & sw::EXCEPTIONS != 0;
        let es = sw::ES | sw::BUSY;
        self.fpu.sw = if pending { self.fpu.sw | es } else { self.fpu.sw & !es };
    }

    pub(crate) fn set_control(&mut self, v: u16) {
        self.fpu.cw = v & 0x1f7f | 0x40;
        self.fpu_summary();
    }

    // ---- MMX: the mantissas of the registers by their physical number ------------------------------------------

    #[inline(always)]
    pub(crate) fn mm(&self, r: u8) -> u64 {
        self.fpu.r[r as usize & 7][0]
    }

    /// Writes an MMX register.
    #[inline(always)]
    pub(crate) fn set_mm(&mut self, r: u8, v: u64) {
        self.fpu.r[r as usize & 7] = [v, 0xffff];
        self.mmx_touch();
    }

    /// What every MMX instruction does to the stack.
    #[inline(always)]
    pub(crate) fn mmx_touch(&mut self) {
        self.fpu.top = 0;
        self.fpu.tag = 0xff;
    }
}

/// Whether a condition of FCMOVcc holds: kinds as in the opcode.
fn condition(cpu: &Cpu, kind: u8) -> bool {
    let f = cpu.fl;
    match kind & 3 {
        0 => f.cf(),
        1 => f.zf(),
        2 => f.cf() || f.zf(),
        _ => f.pf(),
    }
}

fn cmov(cpu: &mut Cpu, op: &Op, kind: u8, wanted: bool) -> R<()> {
    cpu.fpu_check()?;
    cpu.fpu_note(op);
    if cpu.st_empty(0) || cpu.st_empty(op.r[1]) {
        if cpu.stack_fault(false) {
            cpu.set_st(0, INDEFINITE);
        }
        return Ok(());
    }
    if condition(cpu, kind) == wanted {
        let v = cpu.st(op.r[1]);
        cpu.set_st(0, v);
    }
    Ok(())
}

/// Loads from memory through the host, which knows the conversions.
fn load(
    cpu: &mut Cpu,
    op: &Op,
    read: impl Fn(&mut Cpu) -> R<u64>,
    convert: fn(u16, u64) -> (F80, u16),
) -> R<()> {
    cpu.fpu_check()?;
    let v = read(cpu)?;
    cpu.fpu_note(op);
    let (v, flags) = convert(cpu.fpu.cw, v);
    cpu.fpu_push(v, flags);
    Ok(())
}

/// Stores ST(0) converted to `size` bytes; `empty` is what a masked stack fault stores.
fn store(
    cpu: &mut Cpu,
    op: &Op,
    size: usize,
    pop: bool,
    empty: u64,
    convert: fn(u16, F80) -> (u64, u16),
) -> R<()> {
    cpu.fpu_check()?;
    let before = cpu.fpu.sw;
    let ok;
    let v = if cpu.st_empty(0) {
        ok = cpu.stack_fault(false);
        empty
    } else {
        let (v, flags) = convert(cpu.fpu.cw, cpu.st(0));
        ok = cpu.fpu_flags(flags);
        v
    };
    if ok {
        let r = match size {
            2 => cpu.write(op, v as u16),
            4 => cpu.write(op, v as u32),
            _ => cpu.write(op, v),
        };
        if r.is_err() {
            cpu.fpu.sw = before;
            return r;
        }
        if pop {
            cpu.fpu_pop();
        }
    }
    cpu.fpu_note(op);
    Ok(())
}

fn bytes(v: F80) -> [u8; 10] {
    let mut b = [0; 10];
    b[..8].copy_from_slice(&v[0].to_le_bytes());
    b[8..].copy_from_slice(&(v[1] as u16).to_le_bytes());
    b
}

/// From memory order.
pub(crate) fn from_bytes(b: [u8; 10]) -> F80 {
    let mut m = [0; 8];
    m.copy_from_slice(&b[..8]);
    [u64::from_le_bytes(m), u64::from(u16::from_le_bytes([b[8], b[9]]))]
}

macro_rules! stores {
    ($($name:ident $size:literal $pop:literal $empty:literal $convert:ident;)*) => {
        handler! {$(
            fn $name(cpu, op) { store(cpu, op, $size, $pop, $empty, ops::$convert) }
        )*}
    };
}

stores! {
    fst32 4 false 0xffc0_0000 to_f32;
    fstp32 4 true 0xffc0_0000 to_f32;
    fst64 8 false 0xfff8_0000_0000_0000 to_f64;
    fstp64 8 true 0xfff8_0000_0000_0000 to_f64;
    fist16 2 false 0x8000 to_i16;
    fistp16 2 true 0x8000 to_i16;
    fist32 4 false 0x8000_0000 to_i32;
    fistp32 4 true 0x8000_0000 to_i32;
    fistp64 8 true 0x8000_0000_0000_0000 to_i64;
    fisttp16 2 true 0x8000 to_i16_chop;
    fisttp32 4 true 0x8000_0000 to_i32_chop;
    fisttp64 8 true 0x8000_0000_0000_0000 to_i64_chop;
}

macro_rules! cmovs {
    ($($name:ident $kind:literal $wanted:literal;)*) => {
        handler! {$(
            fn $name(cpu, op) { cmov(cpu, op, $kind, $wanted) }
        )*}
    };
}

cmovs! {
    fcmovb 0 true; fcmove 1 true; fcmovbe 2 true; fcmovu 3 true;
    fcmovnb 0 false; fcmovne 1 false; fcmovnbe 2 false; fcmovnu 3 false;
}

handler! {
    fn fld32(cpu, op) { load(cpu, op, |c| Ok(u64::from(c.read::<u32>(op)?)), ops::from_f32) }
    fn fld64(cpu, op) { load(cpu, op, |c| c.read::<u64>(op), ops::from_f64) }
    fn fild16(cpu, op) { load(cpu, op, |c| Ok(u64::from(c.read::<u16>(op)?)), ops::from_i16) }
    fn fild32(cpu, op) { load(cpu, op, |c| Ok(u64::from(c.read::<u32>(op)?)), ops::from_i32) }
    fn fild64(cpu, op) { load(cpu, op, |c| c.read::<u64>(op), ops::from_i64) }
    fn fld80(cpu, op) {
        cpu.fpu_check()?;
        let v = cpu.read_bytes::<10>(op)?;
        cpu.fpu_note(op);
        cpu.fpu_push(from_bytes(v), 0);
        Ok(())
    }
    fn fbld(cpu, op) {
        cpu.fpu_check()?;
        let b = cpu.read_bytes::<10>(op)?;
        cpu.fpu_note(op);
        let v = ops::from_bcd(b);
        cpu.fpu_push(v, 0);
        Ok(())
    }
    fn fstp80(cpu, op) {
        cpu.fpu_check()?;
        if cpu.st_empty(0) {
            if cpu.fpu.cw & 1 != 0 {
                cpu.write_bytes::<10>(op, bytes(INDEFINITE))?;
            }
            if cpu.stack_fault(false) {
                cpu.fpu_pop();
            }
        } else {
            let v = cpu.st(0);
            cpu.write_bytes::<10>(op, bytes(v))?;
            cpu.fpu.sw &= !sw::C1;
            cpu.fpu_pop();
        }
        cpu.fpu_note(op);
        Ok(())
    }
    fn fbstp(cpu, op) {
        cpu.fpu_check()?;
        let before = cpu.fpu.sw;
        let empty = cpu.st_empty(0);
        let (v, flags) = if empty {
            ([0, 0, 0, 0, 0, 0, 0, 0xc0, 0xff, 0xff], sw::IE | sw::SF)
        } else {
            ops::to_bcd(cpu.fpu.cw, cpu.st(0))
        };
        if cpu.fpu_flags(flags) {
            if let Err(e) = cpu.write_bytes::<10>(op, v) {
                cpu.fpu.sw = before;
                return Err(e);
            }
            cpu.fpu_pop();
        }
        cpu.fpu_note(op);
        Ok(())
    }
    fn fld_sti(cpu, op) {
        cpu.fpu_check()?;
        cpu.fpu_note(op);
        let i = op.r[0];
        if cpu.st_empty(i) {
            if cpu.stack_fault(false) {
                cpu.fpu.top = cpu.fpu.top.wrapping_sub(1) & 7;
                cpu.set_st(0, INDEFINITE);
            }
            return Ok(());
        }
        let v = cpu.st(i);
        cpu.fpu_push(v, 0);
        Ok(())
    }
    fn fst_sti(cpu, op) { copy_down(cpu, op, false) }
    fn fstp_sti(cpu, op) { copy_down(cpu, op, true) }
    /// The undocumented form without a check for an empty register.
    fn fstpnce(cpu, op) {
        cpu.fpu_check()?;
        cpu.fpu_note(op);
        let (v, empty, tags) = (cpu.st(0), cpu.st_empty(0), cpu.fpu.tag);
        cpu.set_st(op.r[0], v);
        if empty {
            cpu.fpu.tag = tags;
        }
        cpu.fpu.sw &= !sw::C1;
        cpu.fpu_pop();
        Ok(())
    }
    fn fxch(cpu, op) {
        cpu.fpu_check()?;
        cpu.fpu_note(op);
        let i = op.r[1];
        for n in [0, i] {
            if cpu.st_empty(n) {
                if !cpu.stack_fault(false) {
                    return Ok(());
                }
                cpu.set_st(n, INDEFINITE);
            }
        }
        let (a, b) = (cpu.st(0), cpu.st(i));
        cpu.set_st(0, b);
        cpu.set_st(i, a);
        cpu.fpu.sw &= !sw::C1;
        Ok(())
    }
    fn ffree(cpu, op) {
        cpu.fpu_check()?;
        let n = cpu.st_index(op.r[0]);
        cpu.fpu.tag &= !(1 << n);
        Ok(())
    }
    fn ffreep(cpu, op) {
        cpu.fpu_check()?;
        let n = cpu.st_index(op.r[0]);
        cpu.fpu.tag &= !(1 << n);
        cpu.fpu_pop();
        Ok(())
    }
    fn fincstp(cpu, _op) {
        cpu.fpu_check()?;
        cpu.fpu.top = (cpu.fpu.top + 1) & 7;
        cpu.fpu.sw &= !sw::C1;
        Ok(())
    }
    fn fdecstp(cpu, _op) {
        cpu.fpu_check()?;
        cpu.fpu.top = cpu.fpu.top.wrapping_sub(1) & 7;
        cpu.fpu.sw &= !sw::C1;
        Ok(())
    }
    fn fnop(cpu, _op) { cpu.fpu_check() }
    fn fchs(cpu, op) { sign(cpu, op, |s| s ^ 0x8000) }
    fn fabs(cpu, op) { sign(cpu, op, |s| s & 0x7fff) }
    fn fldcw(cpu, op) {
        cpu.fpu_check()?;
        let v = cpu.read::<u16>(op)?;
        cpu.set_control(v);
        Ok(())
    }
    fn fnstcw(cpu, op) { let v = cpu.fpu.cw; cpu.write(op, v) }
    fn fnstsw(cpu, op) { let v = cpu.fpu_status(); cpu.write(op, v) }
    fn fnstsw_ax(cpu, _op) {
        let v = cpu.fpu_status();
        cpu.set_reg::<u16>(0, v);
        Ok(())
    }
    fn fnclex(cpu, _op) {
        cpu.fpu.sw &= sw::CONDITIONS;
        Ok(())
    }
    fn fninit(cpu, _op) {
        cpu.fpu_init();
        Ok(())
    }
    /// Instructions of the 8087 and 80287 that later units ignore.
    fn ignored(_cpu, _op) { Ok(()) }
}

fn copy_down(cpu: &mut Cpu, op: &Op, pop: bool) -> R<()> {
    cpu.fpu_check()?;
    cpu.fpu_note(op);
    let v = if cpu.st_empty(0) {
        if !cpu.stack_fault(false) {
            return Ok(());
        }
        INDEFINITE
    } else {
        cpu.fpu.sw &= !sw::C1;
        cpu.st(0)
    };
    cpu.set_st(op.r[0], v);
    if pop {
        cpu.fpu_pop();
    }
    Ok(())
}

fn sign(cpu: &mut Cpu, op: &Op, f: fn(u64) -> u64) -> R<()> {
    cpu.fpu_check()?;
    cpu.fpu_note(op);
    if cpu.st_empty(0) {
        if cpu.stack_fault(false) {
            cpu.set_st(0, INDEFINITE);
        }
        return Ok(());
    }
    let v = cpu.st(0);
    cpu.set_st(0, [v[0], f(v[1])]);
    cpu.fpu.sw &= !sw::C1;
    Ok(())
}

/// The handler of an x87 instruction.
pub fn lookup(code: Code) -> Option<Handler> {
    use Code::*;
    if let Some(h) = ops::lookup(code) {
        return Some(h);
    }
    Some(match code {
        Fld_m32fp => fld32,
        Fld_m64fp => fld64,
        Fld_m80fp => fld80,
        Fild_m16int => fild16,
        Fild_m32int => fild32,
        Fild_m64int => fild64,
        Fbld_m80bcd => fbld,
        Fst_m32fp => fst32,
        Fstp_m32fp => fstp32,
        Fst_m64fp => fst64,
        Fstp_m64fp => fstp64,
        Fstp_m80fp => fstp80,
        Fist_m16int => fist16,
        Fistp_m16int => fistp16,
        Fist_m32int => fist32,
        Fistp_m32int => fistp32,
        Fistp_m64int => fistp64,
        Fisttp_m16int => fisttp16,
        Fisttp_m32int => fisttp32,
        Fisttp_m64int => fisttp64,
        Fbstp_m80bcd => fbstp,
        Fld_sti => fld_sti,
        Fst_sti => fst_sti,
        Fstp_sti | Fstp_sti_DFD0 | Fstp_sti_DFD8 => fstp_sti,
        Fstpnce_sti => fstpnce,
        Fxch_st0_sti | Fxch_st0_sti_DDC8 | Fxch_st0_sti_DFC8 => fxch,
        Ffree_sti => ffree,
        Ffreep_sti => ffreep,
        Fincstp => fincstp,
        Fdecstp => fdecstp,
        Fnop | Wait => fnop,
        Fchs => fchs,
        Fabs => fabs,
        Fldcw_m2byte => fldcw,
        Fnstcw_m2byte => fnstcw,
        Fnstsw_m2byte => fnstsw,
        Fnstsw_AX => fnstsw_ax,
        Fnclex => fnclex,
        Fninit => fninit,
        Fneni | Fndisi | Fnsetpm => ignored,
        Fcmovb_st0_sti => fcmovb,
        Fcmove_st0_sti => fcmove,
        Fcmovbe_st0_sti => fcmovbe,
        Fcmovu_st0_sti => fcmovu,
        Fcmovnb_st0_sti => fcmovnb,
        Fcmovne_st0_sti => fcmovne,
        Fcmovnbe_st0_sti => fcmovnbe,
        Fcmovnu_st0_sti => fcmovnu,
        _ => return None,
    })
}
