//! Random general instructions, run natively and in the interpreter: registers, flags, memory and faults agree.
//!
//! `RQEMU_X86_DIFF=cases[,seed]` runs more than the slice that is part of the tests.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use std::cell::Cell;
use std::sync::Arc;

use iced_x86::{Decoder, DecoderOptions, Instruction, InstructionInfoFactory, Mnemonic, OpKind, Register};
use rqemu_x86::cpuid::Leaf;
use rqemu_x86::state::{rflags, sreg, Segment};
use rqemu_x86::{Bus, CodeMap, Cpu, Exit, Model, Page};

/// Fixed low addresses, so that 32-bit displacements reach them.
const BASE: u64 = 0x1000_0000;
const CODE: u64 = BASE;
const STATE: u64 = BASE + 0x1000;
const DATA: u64 = BASE + 0x2000;
const DATA_LEN: usize = 0x4000;
const SIZE: usize = 0x2000 + DATA_LEN;

const IN: u64 = STATE;
const IN_FL: u64 = STATE + 0x80;
const OUT: u64 = STATE + 0x100;
const OUT_FL: u64 = STATE + 0x180;
const HOST_SP: u64 = STATE + 0x200;
const FAULT: u64 = STATE + 0x208;
const RESUME: u64 = STATE + 0x210;

struct Rng(u64);
impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }
    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
    /// A value with interesting bit patterns.
    fn value(&mut self) -> u64 {
        match self.below(8) {
            0 => self.below(4),
            1 => (self.below(4) as i64 - 2) as u64,
            2 => 1 << self.below(64),
            3 => (1u64 << self.below(64)).wrapping_sub(1),
            4 => self.next() as u32 as u64,
            5 => self.next() as i32 as i64 as u64,
            _ => self.next(),
        }
    }
}

fn w64(at: u64, v: u64) {
    // SAFETY: the test's own mapping.
    unsafe { (at as *mut u64).write_volatile(v) }
}
fn r64(at: u64) -> u64 {
    // SAFETY: the test's own mapping.
    unsafe { (at as *const u64).read_volatile() }
}

extern "C" fn on_signal(sig: i32, _: *mut libc::siginfo_t, ctx: *mut libc::c_void) {
    // SAFETY: the kernel passes a ucontext; only the test's mapping is written.
    unsafe {
        let u = &mut *(ctx as *mut libc::ucontext_t);
        let g = &mut u.uc_mcontext.gregs;
        let order = [
            libc::REG_RAX,
            libc::REG_RCX,
            libc::REG_RDX,
            libc::REG_RBX,
            libc::REG_RSP,
            libc::REG_RBP,
            libc::REG_RSI,
            libc::REG_RDI,
            libc::REG_R8,
            libc::REG_R9,
            libc::REG_R10,
            libc::REG_R11,
            libc::REG_R12,
            libc::REG_R13,
            libc::REG_R14,
            libc::REG_R15,
        ];
        for (i, r) in order.into_iter().enumerate() {
            w64(OUT + 8 * i as u64, g[r as usize] as u64);
        }
        w64(OUT_FL, g[libc::REG_EFL as usize] as u64);
        w64(FAULT, sig as u64);
        g[libc::REG_RIP as usize] = r64(RESUME) as i64;
        g[libc::REG_RSP as usize] = r64(HOST_SP) as i64;
        g[libc::REG_EFL as usize] = 0x202;
    }
}

/// Writes the trampoline around `insn`; returns the address of the instruction.
fn emit(insn: &[u8]) -> u64 {
    let mut c: Vec<u8> = vec![0x53, 0x55, 0x41, 0x54, 0x41, 0x55, 0x41, 0x56, 0x41, 0x57];
    let mov = |c: &mut Vec<u8>, op: u8, reg: u8, at: u64| {
        c.extend([0x48 | (reg >> 3) << 2, op, 0x04 | (reg & 7) << 3, 0x25]);
        c.extend((at as u32).to_le_bytes());
    };
    mov(&mut c, 0x89, 4, HOST_SP);
    c.extend([0xff, 0x34, 0x25]);
    c.extend((IN_FL as u32).to_le_bytes());
    c.push(0x9d);
    for i in (0..16).filter(|i| *i != 4).chain([4]) {
        mov(&mut c, 0x8b, i, IN + 8 * i as u64);
    }
    let at = CODE + c.len() as u64;
    c.extend(insn);
    for i in 0..16 {
        mov(&mut c, 0x89, i, OUT + 8 * i as u64);
    }
    mov(&mut c, 0x8b, 4, HOST_SP);
    c.push(0x9c);
    c.extend([0x8f, 0x04, 0x25]);
    c.extend((OUT_FL as u32).to_le_bytes());
    w64(RESUME, CODE + c.len() as u64);
    c.push(0xfc);
    c.extend([0x41, 0x5f, 0x41, 0x5e, 0x41, 0x5d, 0x41, 0x5c, 0x5d, 0x5b, 0xc3]);
    // SAFETY: the test's own writable and executable mapping.
    unsafe { std::ptr::copy_nonoverlapping(c.as_ptr(), CODE as *mut u8, c.len()) };
    at
}

struct Window {
    low: Vec<u8>,
}
// SAFETY: used by one thread.
unsafe impl Sync for Window {}

impl Bus for Window {
    fn page(&self, addr: u64, _: bool) -> Page {
        if addr < 0x10000 {
            // SAFETY: inside the buffer, which is page aligned below.
            return Page::Ram(unsafe {
                self.low.as_ptr().add(self.low.as_ptr().align_offset(4096)).add(addr as usize) as *mut u8
            });
        }
        if (BASE..BASE + SIZE as u64).contains(&addr) {
            return Page::Ram(addr as *mut u8);
        }
        Page::Mmio
    }
    fn mmio_read(&self, _: u64, _: u8) -> u64 {
        0
    }
    fn mmio_write(&self, _: u64, _: u8, _: u64) {}
    fn port_in(&self, _: u16, _: u8) -> u32 {
        0
    }
    fn port_out(&self, _: u16, _: u8, _: u32) {}
    fn take_interrupt(&self, _: u32) -> Option<u8> {
        None
    }
    fn tsc(&self) -> u64 {
        0
    }
}

thread_local!(static VECTOR: Cell<Option<u8>> = const { Cell::new(None) });

fn model() -> Model {
    let l = |leaf, sub, regs| Leaf { leaf, sub, regs };
    let b7 = std::arch::x86_64::__cpuid_count(7, 0);
    Model::new(vec![
        l(0, None, [7, 0, 0, 0]),
        l(1, None, [0x600, 0, 0x7ed8_220b & !(1 << 27), 0x078b_fbfd]),
        l(7, Some(0), [0, b7.ebx, 0, 0]),
        l(0x8000_0000, None, [0x8000_0008, 0, 0, 0]),
        l(0x8000_0001, None, [0, 0, 0x21, 0x2c10_0800]),
        l(0x8000_0008, None, [0x3028, 0, 0, 0]),
    ])
}

fn new_cpu() -> (Cpu, Window) {
    let mut low = vec![0u8; 0x11000];
    let o = low.as_ptr().align_offset(4096);
    let mut put = |at: usize, v: u64| low[o + at..o + at + 8].copy_from_slice(&v.to_le_bytes());
    put(0x1000, 0x2007);
    put(0x2000, 0x3007);
    put(0x3000 + (BASE >> 21 & 511) as usize * 8, 0x4007);
    for i in 0..SIZE as u64 / 4096 {
        put(0x4000 + ((BASE >> 12 & 511) + i) as usize * 8, (BASE + i * 4096) | 7);
    }
    let mut cpu = Cpu::new(0, model(), Arc::new(CodeMap::default()));
    cpu.cr0 = 0x8005_0033;
    cpu.cr4 = 0x620;
    cpu.cr3 = 0x1000;
    cpu.efer = 0xd01;
    cpu.segs = [Segment { sel: 0x2b, base: 0, limit: u32::MAX, attr: 0xc0f3 }; 6];
    cpu.segs[sreg::CS] = Segment { sel: 0x33, base: 0, limit: u32::MAX, attr: 0xa0fb };
    cpu.cpl = 3;
    cpu.idtr.limit = 0;
    cpu.update_mode();
    cpu.flush_tlb_all();
    cpu.on_event = Some(|_, e| VECTOR.with(|v| v.set(v.get().or(Some(e.vector)))));
    (cpu, Window { low })
}

/// Not comparable: privileged, control flow, environment-dependent, or undefined results.
fn excluded(i: &Instruction) -> bool {
    use Mnemonic as M;
    if i.is_privileged() || i.flow_control() != iced_x86::FlowControl::Next || i.is_save_restore_instruction()
    {
        return true;
    }
    let vector = (0..i.op_count()).any(|k| {
        i.op_kind(k) == OpKind::Register
            && (i.op_register(k).is_vector_register()
                || i.op_register(k).is_mm()
                || i.op_register(k).is_st()
                || i.op_register(k).is_segment_register()
                || i.op_register(k).is_k()
                || i.op_register(k).is_bnd())
    });
    vector
        || matches!(
            i.mnemonic(),
            M::Cpuid
                | M::Rdtsc
                | M::Rdtscp
                | M::Rdrand
                | M::Rdseed
                | M::Rdpid
                | M::Xgetbv
                | M::Rdpmc
                | M::Sgdt
                | M::Sidt
                | M::Sldt
                | M::Str
                | M::Smsw
                | M::Lar
                | M::Lsl
                | M::Verr
                | M::Verw
                | M::Popf
                | M::Popfd
                | M::Popfq
                | M::Rdfsbase
                | M::Rdgsbase
                | M::Wrfsbase
                | M::Wrgsbase
                | M::Lss
                | M::Lfs
                | M::Lgs
                | M::Enter
                | M::Xlatb
                | M::Wait
                | M::Clzero
                | M::Monitor
                | M::Mwait
                | M::Ptwrite
                | M::Serialize
                | M::Movdiri
                | M::Movdir64b
                | M::Bndldx
                | M::Bndstx
                | M::Bndmk
                | M::Rdsspd
                | M::Rdsspq
                | M::Umonitor
                | M::Cldemote
                | M::Pushf
                | M::Pushfq
                | M::Enclu
                | M::Enclv
                | M::Xtest
                | M::Xresldtrk
                | M::Xsusldtrk
        )
        || i.segment_prefix() == Register::FS
        || i.segment_prefix() == Register::GS
        || is_float(i)
}

fn is_float(i: &Instruction) -> bool {
    i.cpuid_features().iter().any(|f| {
        let n = format!("{f:?}");
        n.starts_with("FPU")
            || n.starts_with("SSE")
            || n.starts_with("AVX")
            || n.starts_with("D3NOW")
            || n.starts_with("CYRIX")
            || n.starts_with("PADLOCK")
            || matches!(
                n.as_str(),
                "MMX" | "FXSR" | "XSAVE" | "RTM" | "HLE" | "CET_SS" | "PKU" | "KNC" | "WAITPKG" | "UINTR"
            )
    }) && !matches!(
        i.mnemonic(),
        Mnemonic::Movnti | Mnemonic::Crc32 | Mnemonic::Lfence | Mnemonic::Sfence | Mnemonic::Mfence
    )
}

/// Random bytes likely to be an instruction.
fn bytes(r: &mut Rng) -> Vec<u8> {
    let mut b = Vec::new();
    match r.below(10) {
        0 | 1 => b.push(0x66),
        2 => b.push(0xf3),
        3 => b.push(0xf2),
        4 => b.push(0xf0),
        _ => {}
    }
    let vex = r.below(12) == 0;
    if vex {
        b.clear();
        b.push(0xc4);
        let map = 2 + r.below(2) as u8;
        b.push(0xe0 & (r.next() as u8 | 0x40) | map);
        b.push(r.next() as u8 & 0x80 | (r.next() as u8 & 0x78) | r.below(4) as u8);
        b.push([0xf0, 0xf2, 0xf3, 0xf5, 0xf6, 0xf7][r.below(6) as usize]);
    } else {
        if r.below(2) == 0 {
            b.push(0x40 | r.below(16) as u8);
        }
        match r.below(8) {
            0..=2 => {
                b.push(0x0f);
                b.push(r.next() as u8);
            }
            3 => b.extend([0x0f, 0x38, 0xf0 | r.below(8) as u8]),
            _ => b.push(r.next() as u8),
        }
    }
    for _ in 0..12 {
        b.push(r.next() as u8);
    }
    b
}

struct Case {
    insn: Instruction,
    code: Vec<u8>,
    regs: [u64; 16],
    flags: u64,
}

fn make_case(r: &mut Rng) -> Option<Case> {
    let b = bytes(r);
    let insn = Decoder::with_ip(64, &b, 0, DecoderOptions::NONE).decode();
    if insn.is_invalid() || excluded(&insn) || insn.is_ip_rel_memory_operand() {
        return None;
    }
    let mut regs = [0u64; 16];
    for x in &mut regs {
        *x = r.value();
    }
    // Keep the stack and string pointers inside the data; leave room for overlaps.
    let place = |r: &mut Rng| DATA + 0x1000 + r.below(0x2000);
    regs[4] = place(r);
    if insn.is_string_instruction() {
        regs[6] = place(r);
        regs[7] = place(r);
        regs[1] = r.below(40);
    }
    let mem = (0..insn.op_count()).any(|k| insn.op_kind(k) == OpKind::Memory);
    if mem && insn.mnemonic() != Mnemonic::Lea && insn.mnemonic() != Mnemonic::Nop {
        let (base, index) = (insn.memory_base(), insn.memory_index());
        if base == Register::None || base.size() != 8 || base.full_register() == index.full_register() {
            return None;
        }
        if index == Register::RSP || base == Register::RSP {
            return None;
        }
        let idx = if index == Register::None {
            0
        } else {
            regs[index.number()].wrapping_mul(insn.memory_index_scale() as u64)
        };
        let target = if r.below(20) == 0 { r.next() >> 20 } else { place(r) };
        regs[base.number()] = target.wrapping_sub(idx).wrapping_sub(insn.memory_displacement64());
        // Bit tests reach far by their register operand.
        if matches!(insn.mnemonic(), Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc)
            && insn.op1_kind() == OpKind::Register
        {
            let n = insn.op1_register().number();
            if n == base.number() || Some(n) == (index != Register::None).then(|| index.number()) || n == 4 {
                return None;
            }
            regs[n] = (r.below(0x4000) as i64 - 0x2000) as u64;
        }
        if matches!(insn.mnemonic(), Mnemonic::Cmpxchg16b) {
            regs[base.number()] = regs[base.number()].wrapping_sub(target & 15);
        }
    }
    let flags =
        r.next() & (rflags::ARITH | rflags::DF) & if r.below(4) == 0 { !0 } else { !rflags::DF } | 0x202;
    Some(Case { insn, code: b[..insn.len()].to_vec(), regs, flags })
}

/// Flags that the architecture leaves undefined for this case.
fn undefined_flags(c: &Case, f: &mut InstructionInfoFactory) -> u64 {
    use Mnemonic as M;
    let _ = f;
    let bits = c.insn.rflags_undefined();
    let mut m = 0;
    for (b, v) in [
        (iced_x86::RflagsBits::OF, rflags::OF),
        (iced_x86::RflagsBits::SF, rflags::SF),
        (iced_x86::RflagsBits::ZF, rflags::ZF),
        (iced_x86::RflagsBits::AF, rflags::AF),
        (iced_x86::RflagsBits::CF, rflags::CF),
        (iced_x86::RflagsBits::PF, rflags::PF),
    ] {
        if bits & b != 0 {
            m |= v;
        }
    }
    match c.insn.mnemonic() {
        M::Rol | M::Ror | M::Rcl | M::Rcr | M::Shl | M::Shr | M::Sar | M::Shld | M::Shrd | M::Sal => {
            m |= rflags::OF;
            if !matches!(c.insn.mnemonic(), M::Rol | M::Ror | M::Rcl | M::Rcr) {
                m |= rflags::AF | rflags::CF;
            }
        }
        _ => {}
    }
    m
}

fn count_of(c: &Case) -> u64 {
    let k = c.insn.op_count() - 1;
    let n = if c.insn.op_kind(k) == OpKind::Register { c.regs[1] } else { c.insn.immediate(k) };
    n & if c.insn.op0_register().size() == 8 || c.insn.memory_size().size() == 8 { 63 } else { 31 }
}

/// One test at a time: they share the mapping and the signal handlers.
fn set_up() -> std::sync::MutexGuard<'static, ()> {
    static LOCK: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let guard = LOCK.lock().unwrap_or_else(|e| e.into_inner());
    // SAFETY: maps a fixed range that nothing else uses and installs handlers on an own stack.
    unsafe {
        let p = libc::mmap(
            BASE as *mut libc::c_void,
            SIZE,
            libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
            -1,
            0,
        );
        assert_eq!(p as u64, BASE);
        let stack = Box::leak(vec![0u8; 1 << 16].into_boxed_slice());
        let ss = libc::stack_t { ss_sp: stack.as_mut_ptr().cast(), ss_flags: 0, ss_size: stack.len() };
        assert_eq!(libc::sigaltstack(&ss, std::ptr::null_mut()), 0);
        let mut sa: libc::sigaction = std::mem::zeroed();
        sa.sa_sigaction = on_signal as *const () as usize;
        sa.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
        for s in [libc::SIGSEGV, libc::SIGILL, libc::SIGFPE, libc::SIGBUS, libc::SIGTRAP] {
            libc::sigaction(s, &sa, std::ptr::null_mut());
        }
    }
    guard
}

#[test]
fn random_instructions_agree_with_the_processor() {
    let arg = std::env::var("RQEMU_X86_DIFF").unwrap_or_default();
    let mut parts = arg.split(',');
    let cases: u64 = parts.next().and_then(|s| s.parse().ok()).unwrap_or(60_000);
    let seed: u64 = parts.next().and_then(|s| s.parse().ok()).unwrap_or(1);
    let _guard = set_up();
    let (mut cpu, bus) = new_cpu();
    let mut info = InstructionInfoFactory::new();
    let mut rng = Rng(seed);
    let mut done = 0;
    let mut before = vec![0u8; DATA_LEN];
    let mut bad = std::collections::BTreeMap::<String, (u32, String)>::new();
    while done < cases {
        let Some(c) = make_case(&mut rng) else { continue };
        if done % 64 == 0 {
            for ch in before.chunks_exact_mut(8) {
                ch.copy_from_slice(&rng.value().to_le_bytes());
            }
        }
        done += 1;
        if std::env::var_os("RQEMU_X86_DIFF_TRACE").is_some() {
            eprintln!("{} {:02x?} {:x?}", c.insn, c.code, c.regs);
        }
        if let Some(e) = run_case(&c, &before, &mut cpu, &bus, &mut rng, &mut info) {
            let n = bad.entry(format!("{:?}", c.insn.code())).or_insert((0, e));
            n.0 += 1;
        }
    }
    for (k, (n, e)) in &bad {
        println!("{k}: {n} mismatches, e.g. {e}");
    }
    assert!(bad.is_empty(), "{} instruction forms disagree", bad.len());
}

fn run_case(
    c: &Case,
    before: &[u8],
    cpu: &mut Cpu,
    bus: &Window,
    rng: &mut Rng,
    info: &mut InstructionInfoFactory,
) -> Option<String> {
    use Mnemonic as M;
    let _ = rng;
    let data = DATA as *mut u8;
    let at = emit(&c.code);
    let put = |v: &[u8]| {
        // SAFETY: the test's own mapping.
        unsafe { std::ptr::copy_nonoverlapping(v.as_ptr(), data, v.len()) }
    };
    let get = || {
        let mut v = vec![0u8; DATA_LEN];
        // SAFETY: the test's own mapping.
        unsafe { std::ptr::copy_nonoverlapping(data, v.as_mut_ptr(), DATA_LEN) };
        v
    };
    put(before);
    for (i, r) in c.regs.iter().enumerate() {
        w64(IN + 8 * i as u64, *r);
    }
    w64(IN_FL, c.flags);
    w64(FAULT, 0);
    // SAFETY: the trampoline keeps the C ABI; faults come back through `on_signal`.
    unsafe {
        let f: extern "C" fn() = std::mem::transmute(CODE);
        f();
    }
    let native_regs: Vec<u64> = (0..16).map(|i| r64(OUT + 8 * i)).collect();
    let native_flags = r64(OUT_FL);
    let fault = r64(FAULT);
    let native_mem = get();
    put(before);
    cpu.regs[..16].copy_from_slice(&c.regs);
    cpu.set_rflags(c.flags);
    cpu.rip = at;
    VECTOR.with(|v| v.set(None));
    let mut steps = 0;
    while cpu.rip == at && steps < 100 {
        if cpu.step_one(bus) == Some(Exit::Shutdown) {
            break;
        }
        steps += 1;
    }
    let vector = VECTOR.with(|v| v.get());
    let mem = get();
    let show = |what: String| Some(format!("{} {:02x?} flags {:#x}: {what}", c.insn, c.code, c.flags));
    let kind = match vector {
        None => 0,
        Some(0) => libc::SIGFPE as u64,
        Some(6) => libc::SIGILL as u64,
        Some(12) => libc::SIGBUS as u64,
        Some(13 | 14) => libc::SIGSEGV as u64,
        Some(v) => v as u64 + 1000,
    };
    if kind != fault {
        return show(format!("native signal {fault}, vector {vector:?}"));
    }
    if fault != 0 && !c.insn.is_string_instruction() {
        return None;
    }
    let shift = matches!(
        c.insn.mnemonic(),
        M::Shld | M::Shrd | M::Shl | M::Shr | M::Sar | M::Rcl | M::Rcr | M::Rol | M::Ror
    );
    let width = c.insn.op0_register().size().max(c.insn.memory_size().size()) as u64 * 8;
    if matches!(c.insn.mnemonic(), M::Shld | M::Shrd) && count_of(c) > width {
        return None;
    }
    for (i, native) in native_regs.iter().enumerate().take(16) {
        if cpu.regs[i] != *native {
            return show(format!(
                "reg {i}: native {:#x} ours {:#x} (was {:#x})",
                native, cpu.regs[i], c.regs[i]
            ));
        }
    }
    if mem != native_mem {
        let i = (0..DATA_LEN).find(|i| mem[*i] != native_mem[*i]).unwrap_or(0);
        return show(format!("memory +{i:#x}: native {:#x} ours {:#x}", native_mem[i], mem[i]));
    }
    let mut mask = rflags::ARITH | rflags::DF;
    let n = if shift { count_of(c) } else { 1 };
    if !shift {
        mask &= !undefined_flags(c, info);
    } else if n != 0 {
        mask &= !(rflags::AF & undefined_flags(c, info));
        if n != 1 {
            mask &= !rflags::OF;
        }
        if n > width {
            mask &= !rflags::CF;
        }
    }
    let ours = cpu.rflags();
    if (ours ^ native_flags) & mask != 0 {
        return show(format!(
            "flags: native {:#x} ours {:#x} differ {:#x}",
            native_flags & mask,
            ours & mask,
            (ours ^ native_flags) & mask
        ));
    }
    None
}

/// A run of register instructions, optionally a compare, and a conditional jump over one more: decoded as one block, so
/// that left-out flags, fused jumps and chaining are what is compared.
fn make_run(r: &mut Rng) -> Option<(Vec<u8>, [u64; 16], u64, String)> {
    use iced_x86::RflagsBits as B;
    let mut code = Vec::new();
    let mut text = String::new();
    let mut shifted = false;
    let (mut regs, mut flags) = ([0; 16], 0);
    let len = 2 + r.below(5);
    let mut n = 0;
    while n < len {
        let Some(c) = make_case(r) else { continue };
        let i = &c.insn;
        let mem = (0..i.op_count()).any(|k| {
            !matches!(
                i.op_kind(k),
                OpKind::Register
                    | OpKind::Immediate8
                    | OpKind::Immediate16
                    | OpKind::Immediate32
                    | OpKind::Immediate64
                    | OpKind::Immediate8to16
                    | OpKind::Immediate8to32
                    | OpKind::Immediate8to64
                    | OpKind::Immediate32to64
            )
        });
        use Mnemonic as M;
        let shift = matches!(i.mnemonic(), M::Shl | M::Shr | M::Sar | M::Rol | M::Ror | M::Sal);
        let af_only = matches!(i.mnemonic(), M::And | M::Or | M::Xor | M::Test);
        if mem || i.is_stack_instruction() || i.is_string_instruction() || i.op_count() == 0 {
            continue;
        }
        if i.rflags_undefined() != 0 && !shift && !af_only {
            continue;
        }
        if shift
            && (i.op1_kind() == OpKind::Register || i.immediate(1) & 31 >= i.op0_register().size() as u64 * 8)
        {
            continue;
        }
        if matches!(
            i.mnemonic(),
            M::Lahf | M::Sahf | M::Rcl | M::Rcr | M::Bsf | M::Bsr | M::Cld | M::Std | M::Xlatb
        ) {
            continue;
        }
        if shifted && i.rflags_read() & B::OF != 0 {
            continue;
        }
        // A register count may be zero, and then an undefined OF survives.
        shifted |= shift;
        (regs, flags) = (c.regs, c.flags & !rflags::DF);
        text += &format!("{i}; ");
        code.extend(&c.code);
        n += 1;
    }
    if r.below(2) == 0 {
        let modrm = 0xc0 | r.below(64) as u8;
        match r.below(3) {
            0 => code.extend([0x48, 0x39, modrm]),
            1 => code.extend([0x85, modrm]),
            _ => code.extend([0x83, modrm | 0x38, r.next() as u8]),
        }
        shifted = false;
    }
    let cc = if shifted { [2, 3, 4, 5, 8, 9, 10, 11][r.below(8) as usize] } else { r.below(16) as u8 };
    code.extend([0x70 | cc, 3, 0x48, 0xf7, 0xd1]);
    text += &format!("j{cc}");
    Some((code, regs, flags, text))
}

#[test]
fn runs_of_instructions_agree_with_the_processor() {
    let arg = std::env::var("RQEMU_X86_DIFF").unwrap_or_default();
    let mut parts = arg.split(',');
    let cases: u64 = parts.next().and_then(|s| s.parse().ok()).unwrap_or(20_000);
    let mut rng = Rng(parts.next().and_then(|s| s.parse().ok()).unwrap_or(7));
    let _guard = set_up();
    let (mut cpu, bus) = new_cpu();
    let code_map = cpu.code_map();
    for _ in 0..cases {
        let Some((code, regs, flags, text)) = make_run(&mut rng) else { continue };
        let at = emit(&code);
        for (i, r) in regs.iter().enumerate() {
            w64(IN + 8 * i as u64, *r);
        }
        w64(IN_FL, flags);
        w64(FAULT, 0);
        // SAFETY: as in the other test.
        unsafe {
            let f: extern "C" fn() = std::mem::transmute(CODE);
            f();
        }
        // Something this processor lacks: the other test compares that.
        if r64(FAULT) != 0 {
            continue;
        }
        // The interpreter gets HLT after the run, which faults in user mode and with that ends it.
        let end = at + code.len() as u64;
        // SAFETY: the test's own mapping.
        unsafe { (end as *mut u8).write_volatile(0xf4) };
        code_map.note_write(CODE as *const u8, 4096);
        cpu.regs[..16].copy_from_slice(&regs);
        cpu.set_rflags(flags);
        cpu.rip = at;
        assert_eq!(cpu.run(&bus), Exit::Shutdown);
        assert_eq!(cpu.rip, end, "{text} {code:02x?}");
        for i in 0..16 {
            assert_eq!(
                cpu.regs[i],
                r64(OUT + 8 * i as u64),
                "register {i} after {text} {code:02x?} {regs:x?} {flags:x}"
            );
        }
        let mask = rflags::ARITH & !rflags::AF & !rflags::OF;
        assert_eq!(
            cpu.rflags() & mask,
            r64(OUT_FL) & mask,
            "flags after {text} {code:02x?} {regs:x?} {flags:x}"
        );
    }
}
