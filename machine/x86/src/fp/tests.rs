//! Every instruction form of this module, with random operands, natively and here.

use std::arch::asm;

use iced_x86::{Code, Encoder, Instruction, MemoryOperand, OpCodeOperandKind as K, Register};

use super::*;
use crate::bus::{Bus, Page};
use crate::cpuid::{Leaf, Model};
use crate::state::{cr0, efer, gpr, rflags, sreg, Segment};
use crate::{Cpu, Exit};

/// Two megabytes of memory, identity-mapped by one large page.
struct Ram(Box<Region>);

#[repr(C, align(4096))]
struct Region([u8; 1 << 21]);

impl Bus for Ram {
    fn page(&self, addr: u64, _write: bool) -> Page {
        if addr < 1 << 21 {
            Page::Ram((&raw const self.0 .0).cast::<u8>().wrapping_add(addr as usize).cast_mut())
        } else {
            Page::Mmio
        }
    }
    fn mmio_read(&self, _addr: u64, _size: u8) -> u64 {
        0
    }
    fn mmio_write(&self, _addr: u64, _size: u8, _value: u64) {}
    fn port_in(&self, _port: u16, _size: u8) -> u32 {
        0
    }
    fn port_out(&self, _port: u16, _size: u8, _value: u32) {}
    fn take_interrupt(&self, _cpu: u32) -> Option<u8> {
        None
    }
    fn tsc(&self) -> u64 {
        0
    }
}

const CODE: usize = 0x8000;
const DATA: usize = 0xa000;

/// A processor in 64-bit mode with all vector features, and its memory.
fn guest() -> (Cpu, Ram) {
    // SAFETY: all-zero bytes are a value of the type, which is plain memory.
    let mut ram: Box<Region> = unsafe { Box::new_zeroed().assume_init() };
    for (at, v) in [(0x1000, 0x2003u64), (0x2000, 0x3003), (0x3000, 0x83)] {
        ram.0[at..at + 8].copy_from_slice(&v.to_le_bytes());
    }
    let leaf = |leaf, sub, regs| Leaf { leaf, sub, regs };
    let model = Model::new(vec![
        leaf(0, None, [0xd, 0, 0, 0]),
        leaf(1, None, [0x600, 0, !0, !0]),
        leaf(7, Some(0), [0, !0, !0, 0]),
        leaf(0xd, Some(0), [7, 832, 832, 0]),
        leaf(0xd, Some(1), [0xf, 0, 0, 0]),
        leaf(0x8000_0000, None, [0x8000_0008, 0, 0, 0]),
        leaf(0x8000_0001, None, [0, 0, !0, !0]),
    ]);
    let mut c = Cpu::new(0, model, Default::default());
    c.cr0 = cr0::PE | cr0::PG | cr0::NE | cr0::MP;
    c.cr3 = 0x1000;
    c.cr4 = crate::state::cr4::PAE | cr4::OSFXSR | cr4::OSXMMEXCPT | crate::state::cr4::OSXSAVE;
    c.efer = efer::LME | efer::LMA;
    c.xcr0 = 7;
    for s in &mut c.segs {
        *s = Segment { sel: 0x18, base: 0, limit: !0, attr: 0xc093 };
    }
    c.segs[sreg::CS] = Segment { sel: 0x10, base: 0, limit: !0, attr: 0xa09b };
    c.update_mode();
    c.flush_tlb_all();
    (c, Ram(ram))
}

/// What goes in and comes out, as the native stub wants it.
#[repr(C, align(64))]
#[derive(Clone)]
struct State {
    xsave: [u8; 832],
    rax: u64,
    rcx: u64,
    rdx: u64,
    flags: u64,
    mem: [u8; 64],
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }
    /// Numbers that matter to floating point: specials, small integers, noise.
    fn lane(&mut self) -> u64 {
        const D: [u64; 10] = [
            0,
            1 << 63,
            0x3ff0_0000_0000_0000,
            0xbff8_0000_0000_0000,
            0x7ff0_0000_0000_0000,
            0xfff0_0000_0000_0000,
            0x7ff8_0000_0000_0001,
            0x7ff0_0000_0000_0001,
            1,
            0x7fef_ffff_ffff_ffff,
        ];
        const S: [u32; 10] = [
            0,
            1 << 31,
            0x3f80_0000,
            0xbfc0_0000,
            0x7f80_0000,
            0xff80_0000,
            0x7fc0_0001,
            0x7f80_0001,
            1,
            0x7f7f_ffff,
        ];
        let r = self.next();
        let pick = |n: u64| S[n as usize % 10];
        match r % 6 {
            0 => D[(r >> 8) as usize % 10],
            1 => u64::from(pick(r >> 8)) | u64::from(pick(r >> 16)) << 32,
            2 => ((r >> 20 & 0xfff) as f64 - 2000.0).to_bits(),
            3 => {
                u64::from(((r >> 20 & 0xfff) as f32 / 7.0).to_bits())
                    | u64::from(((r >> 40 & 0xff) as f32).to_bits()) << 32
            }
            4 => r >> 8 & 0x0f0f_0f0f_0f0f_0f0f,
            _ => self.next(),
        }
    }
    /// An 80-bit register.
    fn f80(&mut self) -> [u8; 10] {
        let (m, e) = (self.next(), self.next());
        let (m, e) = match e >> 32 & 7 {
            0 => (0, e & 0x8000),
            1 => (1 << 63, 0x7fff | e & 0x8000),
            2 => (m | 3 << 62, 0x7fff),
            3 => (m >> 1, e & 0x8000),
            4 => (m | 1 << 63, (0x3fff + (e & 63)) | e & 0x8000),
            5 => (1 << 63, 0x4000 | e & 0x8000),
            _ => (m | 1 << 63, (0x3fff - 40 + (e & 127)) | e & 0x8000),
        };
        let mut b = [0; 10];
        b[..8].copy_from_slice(&m.to_le_bytes());
        b[8..].copy_from_slice(&(e as u16).to_le_bytes());
        b
    }
    fn state(&mut self) -> State {
        let mut s = State {
            xsave: [0; 832],
            rax: self.next(),
            rcx: self.next(),
            rdx: self.next(),
            flags: 2,
            mem: [0; 64],
        };
        let r = self.next();
        // All exceptions masked; every precision and rounding.
        let cw = 0x7f | [0, 2, 3][(r % 3) as usize] << 8 | (r >> 4 & 3) << 10;
        s.xsave[..2].copy_from_slice(&(cw as u16).to_le_bytes());
        s.xsave[2..4].copy_from_slice(&(((r >> 8 & 7) << 11 | r >> 16 & 0x4700) as u16).to_le_bytes());
        s.xsave[4] = if r >> 20 & 7 == 0 { (r >> 24) as u8 } else { 0xff };
        let control = if r >> 40 & 3 == 0 { (r >> 44 & 7) << 13 | r >> 47 & 1 << 6 } else { 0 };
        s.xsave[24..28].copy_from_slice(&(0x1f80 | control as u32).to_le_bytes());
        for i in 0..8 {
            let v = self.f80();
            s.xsave[32 + 16 * i..42 + 16 * i].copy_from_slice(&v);
        }
        for at in (160..416).chain(576..832).step_by(8) {
            s.xsave[at..at + 8].copy_from_slice(&self.lane().to_le_bytes());
        }
        s.xsave[512] = 7;
        for at in (0..64).step_by(8) {
            let v = self.lane();
            s.mem[at..at + 8].copy_from_slice(&v.to_le_bytes());
        }
        s
    }
}

/// Executable memory for one instruction between two halves of a stub.
struct Native(*mut u8);

impl Native {
    fn new() -> Self {
        // SAFETY: a plain anonymous mapping.
        let p = unsafe {
            libc::mmap(std::ptr::null_mut(), 4096, 7, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
        };
        assert_ne!(p, libc::MAP_FAILED);
        Self(p.cast())
    }

    /// Runs `insn` on `s`. The instruction may use rax, rcx, rdx, flags, [rdi] and the vector and x87 registers.
    fn run(&self, insn: &[u8], s: &mut State) {
        // SAFETY: the mapping has room; `ret` ends the code.
        unsafe {
            std::ptr::copy_nonoverlapping(insn.as_ptr(), self.0, insn.len());
            *self.0.add(insn.len()) = 0xc3;
        }
        let host: u32 = DEFAULT;
        // SAFETY: everything that the instruction can change is saved, restored or named.
        unsafe {
            asm!(
                "push rbx", "push rbp",
                "mov rbp, rdi", "mov rbx, rsi",
                "mov eax, 7", "xor edx, edx", "xrstor64 [rbp]",
                "push qword ptr [rbp + 856]", "popfq",
                "mov rax, [rbp + 832]", "mov rcx, [rbp + 840]", "mov rdx, [rbp + 848]",
                "lea rdi, [rbp + 864]",
                "call rbx",
                "pushfq", "pop qword ptr [rbp + 856]",
                "mov [rbp + 832], rax", "mov [rbp + 840], rcx", "mov [rbp + 848], rdx",
                "mov eax, 7", "xor edx, edx", "xsave64 [rbp]",
                "fninit", "vzeroupper", "ldmxcsr [r12]",
                "pop rbp", "pop rbx",
                inout("rdi") s => _, inout("rsi") self.0 => _, in("r12") &raw const host,
                out("rax") _, out("rcx") _, out("rdx") _, out("r8") _, out("r9") _, out("r10") _, out("r11") _,
                out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _, out("xmm5") _,
                out("xmm6") _, out("xmm7") _, out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
                out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _, out("st(0)") _,
            );
        }
    }
}

fn interpret(c: &mut Cpu, ram: &mut Ram, insn: &[u8], s: &mut State) -> Option<Exit> {
    let load = |at: usize, ram: &mut Ram, b: &[u8]| ram.0 .0[at..at + b.len()].copy_from_slice(b);
    // The state goes in by XRSTOR and comes out by XSAVE, which are under test too.
    let area = DATA + 0x400;
    load(area, ram, &s.xsave);
    load(DATA, ram, &s.mem);
    let restore = [0x48, 0x0f, 0xae, 0x2e];
    let save = [0x48, 0x0f, 0xae, 0x26];
    let step = |c: &mut Cpu, ram: &mut Ram, code: &[u8]| {
        load(CODE, ram, code);
        c.rip = CODE as u64;
        c.step_one(ram)
    };
    c.regs[gpr::RSI] = area as u64;
    (c.regs[gpr::RAX], c.regs[gpr::RDX]) = (7, 0);
    assert_eq!(step(c, ram, &restore), None);
    c.set_rflags(s.flags);
    (c.regs[gpr::RAX], c.regs[gpr::RCX], c.regs[gpr::RDX]) = (s.rax, s.rcx, s.rdx);
    c.regs[gpr::RDI] = DATA as u64;
    let r = step(c, ram, insn);
    if c.rip != (CODE + insn.len()) as u64 || r.is_some() {
        return Some(r.unwrap_or(Exit::Shutdown));
    }
    (s.rax, s.rcx, s.rdx) = (c.regs[gpr::RAX], c.regs[gpr::RCX], c.regs[gpr::RDX]);
    s.flags = c.rflags();
    (c.regs[gpr::RAX], c.regs[gpr::RDX]) = (7, 0);
    assert_eq!(step(c, ram, &save), None);
    s.xsave.copy_from_slice(&ram.0 .0[area..area + 832]);
    s.mem.copy_from_slice(&ram.0 .0[DATA..DATA + 64]);
    None
}

/// The instruction of `code` with fixed registers; a memory operand where `mem` and it can be one.
fn instruction(code: Code, mem: bool, imm: u8) -> Option<Instruction> {
    let info = code.op_code();
    let mut i = Instruction::default();
    i.set_code(code);
    let address = MemoryOperand::with_base(Register::RDI);
    let mut has_mem = false;
    for n in 0..info.op_count() {
        let set = |i: &mut Instruction, r: Register| i.set_op_register(n, r);
        i.set_op_kind(n, iced_x86::OpKind::Register);
        let r = |base: Register| base + n;
        match info.op_kind(n) {
            K::xmm_or_mem | K::ymm_or_mem | K::mm_or_mem | K::r32_or_mem | K::r64_or_mem if mem => {
                has_mem = true
            }
            K::mem => has_mem = true,
            K::xmm_or_mem | K::xmm_reg | K::xmm_rm | K::xmm_vvvv | K::xmm_is4 => {
                set(&mut i, r(Register::XMM1))
            }
            K::ymm_or_mem | K::ymm_reg | K::ymm_rm | K::ymm_vvvv | K::ymm_is4 => {
                set(&mut i, r(Register::YMM1))
            }
            K::mm_or_mem | K::mm_reg | K::mm_rm => set(&mut i, r(Register::MM1)),
            K::r32_or_mem | K::r32_reg | K::r32_rm => set(&mut i, Register::EAX),
            K::r64_or_mem | K::r64_reg | K::r64_rm => set(&mut i, Register::RAX),
            K::st0 => set(&mut i, Register::ST0),
            K::sti_opcode => set(&mut i, Register::ST0 + (imm & 7) as u32),
            K::imm8 => {
                i.set_op_kind(n, iced_x86::OpKind::Immediate8);
                i.set_immediate8(imm);
                continue;
            }
            K::ax => set(&mut i, Register::AX),
            _ => return None,
        }
        if has_mem
            && matches!(
                info.op_kind(n),
                K::mem | K::xmm_or_mem | K::ymm_or_mem | K::mm_or_mem | K::r32_or_mem | K::r64_or_mem
            )
        {
            i.set_op_kind(n, iced_x86::OpKind::Memory);
            i.set_memory_base(address.base);
            i.set_memory_displ_size(0);
        }
    }
    (has_mem == mem).then_some(i)
}

/// Instructions whose effects the harness does not compare.
fn left_out(code: Code) -> bool {
    let name = format!("{code:?}");
    let skip = [
        "Xsave",
        "Xrstor",
        "Xgetbv",
        "Xsetbv",
        "Fxsave",
        "Fxrstor",
        "Fnstenv",
        "Fldenv",
        "Fnsave",
        "Frstor",
        "Ldmxcsr",
        "Vldmxcsr",
        "Fldcw",
        "Movnti",
        "Prefetch",
        "Rsqrt",
        "Rcp",
        "Vrsqrt",
        "Vrcp",
        "Loadiwkey",
        "Femms",
        "Fnsetpm",
        "Fneni",
        "Fndisi",
        "Fstpnce",
    ];
    skip.iter().any(|s| name.trim_start_matches("VEX_").starts_with(s))
        || host_lacks(code)
        || code.op_code().op_count() > 0 && name.contains("384")
}

fn host_lacks(code: Code) -> bool {
    use iced_x86::CpuidFeature as F;
    code.cpuid_features().iter().any(|f| match f {
        F::AVX2 => !host_has("avx2"),
        F::FMA => !host_has("fma"),
        F::SHA => !host_has("sha"),
        F::F16C => !host_has("f16c"),
        F::AES => !host_has("aes"),
        F::PCLMULQDQ => !host_has("pclmulqdq"),
        F::VAES => !std::arch::is_x86_feature_detected!("vaes"),
        F::VPCLMULQDQ => !std::arch::is_x86_feature_detected!("vpclmulqdq"),
        F::SSE4A | F::D3NOW | F::CYRIX_EMMI => true,
        _ => false,
    })
}

fn undefined_bits(s: &mut State, code: Code) {
    s.flags &= rflags::ARITH;
    // Instruction and operand pointers, opcode, reserved bytes.
    s.xsave[6..24].fill(0);
    s.xsave[28..32].fill(0);
    s.xsave[416..512].fill(0);
    s.xsave[520..576].fill(0);
    s.xsave[512] = 0;
    let x87 = format!("{code:?}").starts_with('F');
    if x87 {
        // Condition codes that the specification leaves undefined.
        s.xsave[3] &= !0x43 | keep_conditions(code);
    }
    // Empty registers hold nothing.
    let (tag, top) = (s.xsave[4], s.xsave[3] >> 3 & 7);
    for i in 0..8u8 {
        if tag >> ((top + i) & 7) & 1 == 0 {
            let at = 32 + 16 * usize::from(i);
            s.xsave[at..at + 16].fill(0);
        }
    }
}

fn keep_conditions(code: Code) -> u8 {
    let n = format!("{code:?}");
    let all = ["Fcom", "Fucom", "Ficom", "Ftst", "Fxam", "Fprem"];
    // Those with results in EFLAGS do not write them.
    if all.iter().any(|a| n.starts_with(a)) && !n.starts_with("Fcomi") && !n.starts_with("Fucomi") {
        return 0x43;
    }
    0
}

fn check(codes: impl Iterator<Item = Code>, rounds: usize, seed: u64) -> (usize, Vec<String>) {
    let native = Native::new();
    let (mut c, mut ram) = guest();
    let mut r = Random(seed);
    let mut bad = Vec::new();
    let mut forms = 0;
    for code in codes.filter(|c| lookup(*c).is_some() && !left_out(*c)) {
        for mem in [false, true] {
            for round in 0..rounds {
                let imm = if round < 4 { round as u8 } else { r.next() as u8 };
                let Some(i) = instruction(code, mem, imm) else { break };
                let mut e = Encoder::new(64);
                let Ok(_) = e.encode(&i, 0x1000) else { break };
                let bytes = e.take_buffer();
                forms += usize::from(round == 0);
                let start = r.state();
                let (mut a, mut b) = (start.clone(), start.clone());
                native.run(&bytes, &mut a);
                let exit = interpret(&mut c, &mut ram, &bytes, &mut b);
                undefined_bits(&mut a, code);
                undefined_bits(&mut b, code);
                let same = exit.is_none() && a.xsave == b.xsave && a.mem == b.mem && a.flags == b.flags;
                if !same || (a.rax, a.rcx, a.rdx) != (b.rax, b.rcx, b.rdx) {
                    bad.push(format!(
                        "{code:?} mem={mem} imm={imm:#x} {exit:?}: {}",
                        difference(&start, &a, &b)
                    ));
                    break;
                }
            }
        }
    }
    (forms, bad)
}

fn difference(start: &State, a: &State, b: &State) -> String {
    let at = |x: &[u8], y: &[u8]| x.iter().zip(y).position(|(p, q)| p != q);
    let hex = |s: &State, i: usize| {
        s.xsave[i & !15..(i & !15) + 16].iter().rev().map(|b| format!("{b:02x}")).collect::<String>()
    };
    match (at(&a.xsave, &b.xsave), at(&a.mem, &b.mem)) {
        (Some(i), _) => {
            format!("state byte {i}: in {} native {} here {}", hex(start, i), hex(a, i), hex(b, i))
        }
        (_, Some(i)) => format!("memory byte {i}: native {:02x?} here {:02x?}", &a.mem[..16], &b.mem[..16]),
        _ => format!(
            "flags {:x} {:x}, rax {:x} {:x}, rcx {:x} {:x}",
            a.flags, b.flags, a.rax, b.rax, a.rcx, b.rcx
        ),
    }
}

#[test]
fn same_as_the_processor() {
    if !host_has("avx") {
        println!("skipped: the host has no AVX");
        return;
    }
    let rounds = std::env::var("ROUNDS").ok().and_then(|v| v.parse().ok()).unwrap_or(24);
    let (forms, bad) = check(Code::values(), rounds, 7);
    assert!(bad.is_empty(), "{} of {forms} forms differ:\n{}", bad.len(), bad.join("\n"));
    assert!(forms > 900, "only {forms} forms were tried");
}
