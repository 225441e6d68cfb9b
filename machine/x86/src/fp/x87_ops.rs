//! x87 arithmetic, by the host's x87: operands are loaded with the guest's precision and rounding, all exceptions
//! masked; the status word says what would have happened.

use std::arch::asm;

use iced_x86::Code;

use super::x87::{sw, F80, INDEFINITE};
use crate::cpu::Cpu;
use crate::exec::{finish, Handler, Next, Op};
use crate::fault::R;
use crate::flags::Flags;
use crate::handler;
use crate::state::rflags;

/// The control word that the host must have again afterwards.
const HOST: u16 = 0x37f;

fn masked(cw: u16) -> u16 {
    cw & 0x0f7f | 0x7f
}

/// Runs x87 instructions between the guest's control word and the host's. The stack is empty before and after; the
/// status word is taken where `fnstsw ax` stands.
macro_rules! host {
    ($cw:expr, [$($line:expr),+], $($name:ident = $p:expr),+) => {{
        let (guest, host, status): (u16, u16, u16);
        (guest, host) = (masked($cw), HOST);
        // SAFETY: the pointers are to locals of sufficient size; the control word is restored and the stack left empty.
        unsafe {
            asm!("fninit", "fldcw [{guest}]", $($line),+, "fninit", "fldcw [{host}]",
                guest = in(reg) &raw const guest, host = in(reg) &raw const host, $($name = in(reg) $p,)+
                out("ax") status, out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
                out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _, options(nostack));
        }
        status
    }};
}

/// As `host!`, cheaper where the guest's control word is the host's: then the host's state needs no more than its flags
/// cleared. The stack must be left empty.
macro_rules! quick {
    ($cw:expr, [$($line:expr),+], $($name:ident = $p:expr),+) => {{
        if masked($cw) == HOST {
            let status: u16;
            // SAFETY: the pointers are to locals of sufficient size; the stack is left empty and the flags clear.
            unsafe {
                asm!($($line),+, "test al, 0x7f", "jz 2f", "fnclex", "2:", $($name = in(reg) $p,)+
                    out("ax") status, out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
                    out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _, options(nostack));
            }
            status
        } else {
            host!($cw, [$($line),+], $($name = $p),+)
        }
    }};
}

/// Puts the host's x87 into the state that `quick!` starts from, whatever ran before.
pub fn clean_host() {
    // SAFETY: nothing else in this program keeps anything in the x87 registers.
    unsafe { asm!("fninit", options(nostack, nomem, preserves_flags)) };
}

/// A two-operand operation: control word, destination, address of the source.
type Binary = fn(u16, &F80, *const u8) -> (F80, u16);

macro_rules! binary {
    ($($name:ident $insn:literal;)*) => {$(
        fn $name(cw: u16, a: &F80, b: *const u8) -> (F80, u16) {
            let mut r: F80 = [0; 2];
            let s = quick!(cw, ["fld tbyte ptr [{a}]", $insn, "fnstsw ax", "fstp tbyte ptr [{r}]"],
                a = a, b = b, r = &raw mut r);
            (r, s)
        }
    )*};
}

/// Operations whose source is a register: it is loaded below the destination.
macro_rules! binary_st {
    ($($name:ident $insn:literal;)*) => {$(
        fn $name(cw: u16, a: &F80, b: *const u8) -> (F80, u16) {
            let mut r: F80 = [0; 2];
            let s = quick!(cw, ["fld tbyte ptr [{b}]", "fld tbyte ptr [{a}]", $insn, "fnstsw ax", "fstp tbyte ptr [{r}]", "fstp st(0)"],
                a = a, b = b, r = &raw mut r);
            (r, s)
        }
    )*};
}

binary_st! {
    add_st "fadd st(0), st(1)"; mul_st "fmul st(0), st(1)"; sub_st "fsub st(0), st(1)"; subr_st "fsubr st(0), st(1)";
    div_st "fdiv st(0), st(1)"; divr_st "fdivr st(0), st(1)";
    com_st "fcom st(1)"; ucom_st "fucom st(1)"; scale "fscale"; rem "fprem"; rem1 "fprem1";
}

binary! {
    add_32 "fadd dword ptr [{b}]"; mul_32 "fmul dword ptr [{b}]"; sub_32 "fsub dword ptr [{b}]";
    subr_32 "fsubr dword ptr [{b}]"; div_32 "fdiv dword ptr [{b}]"; divr_32 "fdivr dword ptr [{b}]";
    com_32 "fcom dword ptr [{b}]";
    add_64 "fadd qword ptr [{b}]"; mul_64 "fmul qword ptr [{b}]"; sub_64 "fsub qword ptr [{b}]";
    subr_64 "fsubr qword ptr [{b}]"; div_64 "fdiv qword ptr [{b}]"; divr_64 "fdivr qword ptr [{b}]";
    com_64 "fcom qword ptr [{b}]";
    add_i16 "fiadd word ptr [{b}]"; mul_i16 "fimul word ptr [{b}]"; sub_i16 "fisub word ptr [{b}]";
    subr_i16 "fisubr word ptr [{b}]"; div_i16 "fidiv word ptr [{b}]"; divr_i16 "fidivr word ptr [{b}]";
    com_i16 "ficom word ptr [{b}]";
    add_i32 "fiadd dword ptr [{b}]"; mul_i32 "fimul dword ptr [{b}]"; sub_i32 "fisub dword ptr [{b}]";
    subr_i32 "fisubr dword ptr [{b}]"; div_i32 "fidiv dword ptr [{b}]"; divr_i32 "fidivr dword ptr [{b}]";
    com_i32 "ficom dword ptr [{b}]";
}

/// The same with C0 and C3 set before, as FXAM does on an empty stack.
macro_rules! binary_marked {
    ($($name:ident $insn:literal;)*) => {$(
        fn $name(cw: u16, a: &F80, b: *const u8) -> u16 {
            host!(cw, ["fxam", "fld tbyte ptr [{b}]", "fld tbyte ptr [{a}]", $insn, "fnstsw ax"], a = a, b = b)
        }
    )*};
}

binary_marked! { rem_marked "fprem"; rem1_marked "fprem1"; }

/// Operations on ST(1) and ST(0) that pop: the destination is ST(1).
macro_rules! popping {
    ($($name:ident $insn:literal;)*) => {$(
        fn $name(cw: u16, st0: &F80, st1: *const u8) -> (F80, u16) {
            let mut r: F80 = [0; 2];
            let s = host!(cw, ["fld tbyte ptr [{b}]", "fld tbyte ptr [{a}]", $insn, "fnstsw ax", "fstp tbyte ptr [{r}]"],
                a = st0, b = st1, r = &raw mut r);
            (r, s)
        }
    )*};
}

popping! { patan "fpatan"; yl2x "fyl2x"; yl2xp1 "fyl2xp1"; }

macro_rules! unary {
    ($($name:ident $insn:literal;)*) => {$(
        fn $name(cw: u16, a: &F80) -> (F80, u16) {
            let mut r: F80 = [0; 2];
            let s = host!(cw, ["fld tbyte ptr [{a}]", $insn, "fnstsw ax", "fstp tbyte ptr [{r}]"],
                a = a, r = &raw mut r);
            (r, s)
        }
    )*};
}

unary! { sqrt "fsqrt"; rndint "frndint"; two_xm1 "f2xm1"; sin "fsin"; cos "fcos"; tst "ftst"; xam "fxam"; }

/// Operations that replace ST(0) and push: (lower, pushed or the only value, status).
macro_rules! pushing {
    ($($name:ident $insn:literal;)*) => {$(
        fn $name(cw: u16, a: &F80) -> (F80, F80, u16) {
            let (mut low, mut high): (F80, F80) = ([0; 2], [0; 2]);
            let s = host!(cw, ["fld tbyte ptr [{a}]", $insn, "fnstsw ax", "fstp tbyte ptr [{h}]", "fstp tbyte ptr [{l}]"],
                a = a, h = &raw mut high, l = &raw mut low);
            (low, high, s)
        }
    )*};
}

pushing! { ptan "fptan"; sincos "fsincos"; xtract "fxtract"; }

macro_rules! constants {
    ($($name:ident $insn:literal;)*) => {$(
        fn $name(cw: u16) -> F80 {
            let mut r: F80 = [0; 2];
            let _ = host!(cw, [$insn, "fnstsw ax", "fstp tbyte ptr [{r}]"], r = &raw mut r);
            r
        }
    )*};
}

constants! { one "fld1"; l2t "fldl2t"; l2e "fldl2e"; pi "fldpi"; lg2 "fldlg2"; ln2 "fldln2"; zero "fldz"; }

macro_rules! loads {
    ($($name:ident $insn:literal;)*) => {$(
        /// A conversion to 80 bits.
        pub fn $name(cw: u16, v: u64) -> (F80, u16) {
            let mut r: F80 = [0; 2];
            let s = quick!(cw, [$insn, "fnstsw ax", "fstp tbyte ptr [{r}]"], v = &raw const v, r = &raw mut r);
            (r, s)
        }
    )*};
}

loads! {
    from_f32 "fld dword ptr [{v}]"; from_f64 "fld qword ptr [{v}]"; from_i16 "fild word ptr [{v}]";
    from_i32 "fild dword ptr [{v}]"; from_i64 "fild qword ptr [{v}]";
}

macro_rules! stores {
    ($($name:ident $insn:literal;)*) => {$(
        /// A conversion from 80 bits.
        pub fn $name(cw: u16, a: F80) -> (u64, u16) {
            let mut v = 0u64;
            let s = quick!(cw, ["fld tbyte ptr [{a}]", $insn, "fnstsw ax"], a = &raw const a, v = &raw mut v);
            (v, s)
        }
    )*};
}

stores! {
    to_f32 "fstp dword ptr [{v}]"; to_f64 "fstp qword ptr [{v}]"; to_i16 "fistp word ptr [{v}]";
    to_i32 "fistp dword ptr [{v}]"; to_i64 "fistp qword ptr [{v}]"; to_i16_chop "fisttp word ptr [{v}]";
    to_i32_chop "fisttp dword ptr [{v}]"; to_i64_chop "fisttp qword ptr [{v}]";
}

/// From packed decimal.
pub fn from_bcd(b: [u8; 10]) -> F80 {
    let mut r: F80 = [0; 2];
    let _ = host!(
        HOST,
        ["fbld tbyte ptr [{b}]", "fnstsw ax", "fstp tbyte ptr [{r}]"],
        b = &raw const b,
        r = &raw mut r
    );
    r
}

/// To packed decimal.
pub fn to_bcd(cw: u16, a: F80) -> ([u8; 10], u16) {
    let mut b = [0; 10];
    let s = host!(
        cw,
        ["fld tbyte ptr [{a}]", "fbstp tbyte ptr [{b}]", "fnstsw ax"],
        a = &raw const a,
        b = &raw mut b
    );
    (b, s)
}

// ---- handlers -----------------------------------------------------------------------------------------------------

/// Bytes of a memory operand, as the instruction names them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Size {
    Two,
    Four,
    Eight,
}

fn source(cpu: &mut Cpu, op: &Op, size: Size) -> R<u64> {
    Ok(match size {
        Size::Two => u64::from(cpu.read::<u16>(op)?),
        Size::Four => u64::from(cpu.read::<u32>(op)?),
        Size::Eight => cpu.read::<u64>(op)?,
    })
}

/// ST(0) and a value from memory.
#[inline(always)]
fn with_memory(cpu: &mut Cpu, op: &Op, size: Size, f: Binary) -> R<()> {
    cpu.fpu_check()?;
    let m = source(cpu, op, size)?;
    cpu.fpu_note(op);
    if cpu.st_empty(0) {
        if cpu.stack_fault(false) {
            cpu.set_st(0, INDEFINITE);
        }
        return Ok(());
    }
    let (v, s) = f(cpu.fpu.cw, &cpu.st(0), (&raw const m).cast());
    if cpu.fpu_flags(s) {
        cpu.set_st(0, v);
    }
    Ok(())
}

/// Two registers; the first operand is the destination.
#[inline(always)]
fn with_register(cpu: &mut Cpu, op: &Op, pop: bool, f: Binary) -> R<()> {
    cpu.fpu_check()?;
    cpu.fpu_note(op);
    let (d, s) = (op.r[0], op.r[1]);
    let ok = if cpu.st_empty(d) || cpu.st_empty(s) {
        let ok = cpu.stack_fault(false);
        if ok {
            cpu.set_st(d, INDEFINITE);
        }
        ok
    } else {
        let (v, flags) = f(cpu.fpu.cw, &cpu.st(d), (&cpu.st(s) as *const F80).cast());
        let ok = cpu.fpu_flags(flags);
        if ok {
            cpu.set_st(d, v);
        }
        ok
    };
    if ok && pop {
        cpu.fpu_pop();
    }
    Ok(())
}

/// Where the outcome of a compare goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Conditions,
    Eflags,
}

fn compared(cpu: &mut Cpu, status: Option<u16>, to: Outcome, pops: u8) {
    let (ok, c) = match status {
        Some(s) => (cpu.fpu_flags(s & !sw::C1), s & (sw::C0 | sw::C2 | sw::C3)),
        None => (cpu.stack_fault(false), sw::C0 | sw::C2 | sw::C3),
    };
    if !ok {
        return;
    }
    if to == Outcome::Conditions {
        cpu.fpu.sw = cpu.fpu.sw & !(sw::C0 | sw::C2 | sw::C3) | c;
    } else {
        let bit = |on: u16, f: u64| if c & on != 0 { f } else { 0 };
        cpu.fl =
            Flags::from_bits(bit(sw::C0, rflags::CF) | bit(sw::C2, rflags::PF) | bit(sw::C3, rflags::ZF));
    }
    for _ in 0..pops {
        cpu.fpu_pop();
    }
}

#[inline(always)]
fn compare_memory(cpu: &mut Cpu, op: &Op, size: Size, pops: u8, f: Binary) -> R<()> {
    cpu.fpu_check()?;
    let m = source(cpu, op, size)?;
    cpu.fpu_note(op);
    let s = (!cpu.st_empty(0)).then(|| f(cpu.fpu.cw, &cpu.st(0), (&raw const m).cast()).1);
    compared(cpu, s, Outcome::Conditions, pops);
    Ok(())
}

#[inline(always)]
fn compare_register(cpu: &mut Cpu, op: &Op, i: u8, to: Outcome, pops: u8, f: Binary) -> R<()> {
    cpu.fpu_check()?;
    cpu.fpu_note(op);
    let full = !cpu.st_empty(0) && !cpu.st_empty(i);
    let s = full.then(|| f(cpu.fpu.cw, &cpu.st(0), (&cpu.st(i) as *const F80).cast()).1);
    compared(cpu, s, to, pops);
    Ok(())
}

/// One register; condition bits that `keep` names come from the host.
#[inline(always)]
fn with_one(cpu: &mut Cpu, op: &Op, keep: u16, f: fn(u16, &F80) -> (F80, u16)) -> R<()> {
    cpu.fpu_check()?;
    cpu.fpu_note(op);
    if cpu.st_empty(0) {
        if cpu.stack_fault(false) {
            cpu.set_st(0, INDEFINITE);
        }
        cpu.fpu.sw &= !(keep & sw::C2);
        return Ok(());
    }
    let (v, s) = f(cpu.fpu.cw, &cpu.st(0));
    if cpu.fpu_flags(s) {
        cpu.fpu.sw = cpu.fpu.sw & !keep | s & keep;
        cpu.set_st(0, v);
    }
    Ok(())
}

/// ST(0) with ST(1), result in ST(0).
#[inline(always)]
fn with_next(cpu: &mut Cpu, op: &Op, keep: u16, f: Binary) -> R<()> {
    cpu.fpu_check()?;
    cpu.fpu_note(op);
    if cpu.st_empty(0) || cpu.st_empty(1) {
        if cpu.stack_fault(false) {
            cpu.set_st(0, INDEFINITE);
        }
        return Ok(());
    }
    let (v, s) = f(cpu.fpu.cw, &cpu.st(0), (&cpu.st(1) as *const F80).cast());
    if cpu.fpu_flags(s) {
        cpu.fpu.sw = cpu.fpu.sw & !keep | s & keep;
        cpu.set_st(0, v);
    }
    Ok(())
}

/// FPREM and FPREM1. With some operands they leave C0 and C3 as they were: those that a run with both set and one with
/// both clear do not agree on.
fn remainder(cpu: &mut Cpu, op: &Op, f: Binary, marked: fn(u16, &F80, *const u8) -> u16) -> R<()> {
    let mut keep = sw::CONDITIONS;
    if !cpu.st_empty(0) && !cpu.st_empty(1) {
        let (a, b) = (cpu.st(0), cpu.st(1));
        let b = (&raw const b).cast();
        let differ = f(cpu.fpu.cw, &a, b).1 ^ marked(cpu.fpu.cw, &a, b);
        keep &= !(differ & (sw::C0 | sw::C3));
    } else {
        cpu.fpu.sw &= !sw::C2;
    }
    with_next(cpu, op, keep, f)
}

/// ST(1) with ST(0), result in ST(1), which becomes the top.
#[inline(always)]
fn into_next(cpu: &mut Cpu, op: &Op, f: Binary) -> R<()> {
    cpu.fpu_check()?;
    cpu.fpu_note(op);
    if cpu.st_empty(0) || cpu.st_empty(1) {
        if cpu.stack_fault(false) {
            cpu.set_st(1, INDEFINITE);
            cpu.fpu_pop();
        }
        return Ok(());
    }
    let (v, s) = f(cpu.fpu.cw, &cpu.st(0), (&cpu.st(1) as *const F80).cast());
    if cpu.fpu_flags(s) {
        cpu.set_st(1, v);
        cpu.fpu_pop();
    }
    Ok(())
}

#[inline(always)]
fn with_push(cpu: &mut Cpu, op: &Op, keep: u16, f: fn(u16, &F80) -> (F80, F80, u16)) -> R<()> {
    cpu.fpu_check()?;
    cpu.fpu_note(op);
    let overflow = !cpu.st_empty(7);
    if cpu.st_empty(0) || overflow {
        cpu.fpu.sw &= !keep;
        if cpu.stack_fault(overflow && !cpu.st_empty(0)) {
            cpu.set_st(0, INDEFINITE);
            cpu.fpu.top = cpu.fpu.top.wrapping_sub(1) & 7;
            cpu.set_st(0, INDEFINITE);
        }
        return Ok(());
    }
    let (low, high, s) = f(cpu.fpu.cw, &cpu.st(0));
    if !cpu.fpu_flags(s) {
        return Ok(());
    }
    cpu.fpu.sw = cpu.fpu.sw & !keep | s & keep;
    // The host started with TOP 0: after the load it is 7, after a push 6.
    if s >> 11 & 7 == 6 {
        cpu.set_st(0, low);
        cpu.fpu.top = cpu.fpu.top.wrapping_sub(1) & 7;
    }
    cpu.set_st(0, high);
    Ok(())
}

#[inline(always)]
fn constant(cpu: &mut Cpu, op: &Op, f: fn(u16) -> F80) -> R<()> {
    cpu.fpu_check()?;
    cpu.fpu_note(op);
    let v = f(cpu.fpu.cw);
    cpu.fpu_push(v, 0);
    Ok(())
}

handler! {
    fn fxam(cpu, op) {
        cpu.fpu_note(op);
        let v = cpu.st(0);
        let c = if cpu.st_empty(0) {
            sw::C3 | sw::C0 | if v[1] >> 15 & 1 != 0 { sw::C1 } else { 0 }
        } else {
            xam(cpu.fpu.cw, &v).1 & sw::CONDITIONS
        };
        cpu.fpu.sw = cpu.fpu.sw & !sw::CONDITIONS | c;
        Ok(())
    }
    fn ftst(cpu, op) {
        cpu.fpu_check()?;
        cpu.fpu_note(op);
        let s = (!cpu.st_empty(0)).then(|| tst(cpu.fpu.cw, &cpu.st(0)).1);
        compared(cpu, s, Outcome::Conditions, 0);
        Ok(())
    }
    fn fcompp(cpu, op) { compare_register(cpu, op, 1, Outcome::Conditions, 2, com_st) }
    fn fucompp(cpu, op) { compare_register(cpu, op, 1, Outcome::Conditions, 2, ucom_st) }
    fn fscale(cpu, op) { with_next(cpu, op, 0, scale) }
    fn fprem(cpu, op) { remainder(cpu, op, rem, rem_marked) }
    fn fprem1(cpu, op) { remainder(cpu, op, rem1, rem1_marked) }
    fn fpatan(cpu, op) { into_next(cpu, op, patan) }
    fn fyl2x(cpu, op) { into_next(cpu, op, yl2x) }
    fn fyl2xp1(cpu, op) { into_next(cpu, op, yl2xp1) }
    fn fsqrt(cpu, op) { with_one(cpu, op, 0, sqrt) }
    fn frndint(cpu, op) { with_one(cpu, op, 0, rndint) }
    fn f2xm1(cpu, op) { with_one(cpu, op, 0, two_xm1) }
    fn fsin(cpu, op) { with_one(cpu, op, sw::C2, sin) }
    fn fcos(cpu, op) { with_one(cpu, op, sw::C2, cos) }
    fn fptan(cpu, op) { with_push(cpu, op, sw::C2, ptan) }
    fn fsincos(cpu, op) { with_push(cpu, op, sw::C2, sincos) }
    fn fxtract(cpu, op) { with_push(cpu, op, 0, xtract) }
    fn fld1(cpu, op) { constant(cpu, op, one) }
    fn fldl2t(cpu, op) { constant(cpu, op, l2t) }
    fn fldl2e(cpu, op) { constant(cpu, op, l2e) }
    fn fldpi(cpu, op) { constant(cpu, op, pi) }
    fn fldlg2(cpu, op) { constant(cpu, op, lg2) }
    fn fldln2(cpu, op) { constant(cpu, op, ln2) }
    fn fldz(cpu, op) { constant(cpu, op, zero) }
}

/// Rows of instructions with the same shape: `Code | ... => shape(arguments)`.
macro_rules! shaped {
    ($code:expr; $($($c:ident)|+ => $shape:ident($($arg:expr),*);)*) => {
        match $code {
            $($(Code::$c)|+ => {
                fn handler(cpu: &mut Cpu, op: &Op) -> Next {
                    let r = $shape(cpu, op, $($arg),*);
                    finish(cpu, op, r)
                }
                Some(handler as Handler)
            })*
            _ => None,
        }
    };
}

#[inline(always)]
fn compare_operand(cpu: &mut Cpu, op: &Op, to: Outcome, pops: u8, f: Binary) -> R<()> {
    compare_register(cpu, op, op.r[1], to, pops, f)
}

fn table(code: Code) -> Option<Handler> {
    use Outcome::{Conditions, Eflags};
    use Size::{Eight, Four, Two};
    shaped! { code;
        Fadd_m32fp => with_memory(Four, add_32);
        Fmul_m32fp => with_memory(Four, mul_32);
        Fsub_m32fp => with_memory(Four, sub_32);
        Fsubr_m32fp => with_memory(Four, subr_32);
        Fdiv_m32fp => with_memory(Four, div_32);
        Fdivr_m32fp => with_memory(Four, divr_32);
        Fadd_m64fp => with_memory(Eight, add_64);
        Fmul_m64fp => with_memory(Eight, mul_64);
        Fsub_m64fp => with_memory(Eight, sub_64);
        Fsubr_m64fp => with_memory(Eight, subr_64);
        Fdiv_m64fp => with_memory(Eight, div_64);
        Fdivr_m64fp => with_memory(Eight, divr_64);
        Fiadd_m16int => with_memory(Two, add_i16);
        Fimul_m16int => with_memory(Two, mul_i16);
        Fisub_m16int => with_memory(Two, sub_i16);
        Fisubr_m16int => with_memory(Two, subr_i16);
        Fidiv_m16int => with_memory(Two, div_i16);
        Fidivr_m16int => with_memory(Two, divr_i16);
        Fiadd_m32int => with_memory(Four, add_i32);
        Fimul_m32int => with_memory(Four, mul_i32);
        Fisub_m32int => with_memory(Four, sub_i32);
        Fisubr_m32int => with_memory(Four, subr_i32);
        Fidiv_m32int => with_memory(Four, div_i32);
        Fidivr_m32int => with_memory(Four, divr_i32);
        Fadd_st0_sti | Fadd_sti_st0 => with_register(false, add_st);
        Fmul_st0_sti | Fmul_sti_st0 => with_register(false, mul_st);
        Fsub_st0_sti | Fsub_sti_st0 => with_register(false, sub_st);
        Fsubr_st0_sti | Fsubr_sti_st0 => with_register(false, subr_st);
        Fdiv_st0_sti | Fdiv_sti_st0 => with_register(false, div_st);
        Fdivr_st0_sti | Fdivr_sti_st0 => with_register(false, divr_st);
        Faddp_sti_st0 => with_register(true, add_st);
        Fmulp_sti_st0 => with_register(true, mul_st);
        Fsubp_sti_st0 => with_register(true, sub_st);
        Fsubrp_sti_st0 => with_register(true, subr_st);
        Fdivp_sti_st0 => with_register(true, div_st);
        Fdivrp_sti_st0 => with_register(true, divr_st);
        Fcom_m32fp => compare_memory(Four, 0, com_32);
        Fcomp_m32fp => compare_memory(Four, 1, com_32);
        Fcom_m64fp => compare_memory(Eight, 0, com_64);
        Fcomp_m64fp => compare_memory(Eight, 1, com_64);
        Ficom_m16int => compare_memory(Two, 0, com_i16);
        Ficomp_m16int => compare_memory(Two, 1, com_i16);
        Ficom_m32int => compare_memory(Four, 0, com_i32);
        Ficomp_m32int => compare_memory(Four, 1, com_i32);
        Fcom_st0_sti | Fcom_st0_sti_DCD0 => compare_operand(Conditions, 0, com_st);
        Fcomp_st0_sti | Fcomp_st0_sti_DCD8 | Fcomp_st0_sti_DED0 => compare_operand(Conditions, 1, com_st);
        Fucom_st0_sti => compare_operand(Conditions, 0, ucom_st);
        Fucomp_st0_sti => compare_operand(Conditions, 1, ucom_st);
        Fcomi_st0_sti => compare_operand(Eflags, 0, com_st);
        Fcomip_st0_sti => compare_operand(Eflags, 1, com_st);
        Fucomi_st0_sti => compare_operand(Eflags, 0, ucom_st);
        Fucomip_st0_sti => compare_operand(Eflags, 1, ucom_st);
    }
}

/// The handler of an arithmetic instruction.
pub fn lookup(code: Code) -> Option<Handler> {
    use Code::*;
    if let Some(h) = table(code) {
        return Some(h);
    }
    Some(match code {
        Fxam => fxam,
        Ftst => ftst,
        Fcompp => fcompp,
        Fucompp => fucompp,
        Fscale => fscale,
        Fprem => fprem,
        Fprem1 => fprem1,
        Fpatan => fpatan,
        Fyl2x => fyl2x,
        Fyl2xp1 => fyl2xp1,
        Fsqrt => fsqrt,
        Frndint => frndint,
        F2xm1 => f2xm1,
        Fsin => fsin,
        Fcos => fcos,
        Fptan => fptan,
        Fsincos => fsincos,
        Fxtract => fxtract,
        Fld1 => fld1,
        Fldl2t => fldl2t,
        Fldl2e => fldl2e,
        Fldpi => fldpi,
        Fldlg2 => fldlg2,
        Fldln2 => fldln2,
        Fldz => fldz,
        _ => return None,
    })
}
