//! What QEMU's own engine lacks, so that there is nothing to compare with: alignment checks, virtual-8086 extensions;
//! and what must hold with several processors or with junk as code.

mod board;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use board::*;
use rqemu_x86::state::{gpr, rflags, sreg, Segment};
use rqemu_x86::{CodeMap, Cpu, Exit, Model, Request};

fn user(c: &mut Cpu) {
    c.segs[sreg::CS] = Segment { sel: 0x1b, base: 0, limit: u32::MAX, attr: 0xa0fb };
    c.segs[sreg::SS] = Segment { sel: 0x23, base: 0, limit: u32::MAX, attr: 0xc0f3 };
    c.cpl = 3;
    c.update_mode();
}

/// Error code and RIP that the handler found on its stack.
fn frame(b: &Board, c: &Cpu) -> (u64, u64) {
    let sp = c.regs[gpr::RSP] as usize;
    (b.get64(sp), b.get64(sp + 8))
}

#[test]
fn unaligned_accesses_of_user_code_are_checked_when_asked_for() {
    // mov eax,[0x40000]; mov al,[0x40001]; mov eax,[0x40002]
    let code =
        [0x8b, 0x04, 0x25, 0, 0, 4, 0, 0x8a, 0x04, 0x25, 1, 0, 4, 0, 0x8b, 0x04, 0x25, 2, 0, 4, 0, 0xf4];
    let store = [0x48, 0x89, 0x04, 0x25, 4, 0, 4, 0, 0xf4];
    let repeated = [0xf3, 0x48, 0xa5, 0xf4];
    for (code, at) in [(&code[..], 14), (&store[..], 0), (&repeated[..], 0)] {
        for (am, ac, cpl) in [(true, true, 3), (false, true, 3), (true, false, 3), (true, true, 0)] {
            let b = Board::new();
            let mut c = long(&b, code);
            gate64(&b, 17, 0x11000);
            gate64(&b, 13, 0x11100);
            b.put(0x11000, &[0xf4]);
            b.put(0x11100, &[0xf4]);
            if cpl == 3 {
                user(&mut c);
            }
            if am {
                c.cr0 |= 1 << 18;
            }
            (c.regs[gpr::RSI], c.regs[gpr::RDI], c.regs[gpr::RCX]) = (0x50000, 0x40004, 2);
            c.set_rflags(if ac { rflags::AC } else { 0 });
            c.update_mode();
            assert_eq!(c.run(&b), Exit::Hlt);
            if am && ac && cpl == 3 {
                assert_eq!((c.rip, frame(&b, &c)), (0x11001, (0, (CODE + at) as u64)), "{code:x?}");
            } else {
                assert_ne!(c.rip, 0x11001, "{code:x?} {am} {ac} {cpl}");
            }
        }
    }
}

#[test]
fn data_breakpoints_trap_after_the_instruction_and_only_for_their_bytes() {
    // (DR7, code, RIP after the trap or none, DR6)
    let write4 = [0x89, 0x04, 0x25, 0, 0, 4, 0, 0xf4];
    let read1 = [0x90, 0x8a, 0x04, 0x25, 3, 0, 4, 0, 0xf4];
    let beyond = [0x89, 0x04, 0x25, 4, 0, 4, 0, 0xf4];
    let movs = [0xf3, 0xa4, 0x90, 0xf4];
    let cases: [(u64, &[u8], Option<u64>); 7] = [
        (0xd_0001, &write4, Some(7)),
        (0xf_0001, &write4, Some(7)),
        (0xd_0001, &read1, None),
        (0xf_0001, &read1, Some(8)),
        (0xf_0001, &beyond, None),
        (0xd_0000, &write4, None),
        // The repetition is interrupted after the iteration that hits.
        (0xd_0001, &movs, Some(0)),
    ];
    for (dr7, code, rip) in cases {
        let b = Board::new();
        let mut c = long(&b, code);
        gate64(&b, 1, 0x11000);
        b.put(0x11000, &[0xf4]);
        c.dr[0] = 0x40000;
        c.dr[7] = dr7 | 0x400;
        (c.regs[gpr::RSI], c.regs[gpr::RDI], c.regs[gpr::RCX]) = (0x50000, 0x3fffe, 8);
        c.flush_tlb_all();
        assert_eq!(c.run(&b), Exit::Hlt);
        match rip {
            Some(at) => {
                let sp = c.regs[gpr::RSP] as usize;
                assert_eq!(
                    (c.rip, b.get64(sp), c.dr[6] & 15),
                    (0x11001, CODE as u64 + at, 1),
                    "{dr7:x} {code:x?}"
                );
                if code == movs {
                    assert_eq!((c.regs[gpr::RDI], c.regs[gpr::RCX]), (0x40001, 5));
                }
            }
            None => assert_eq!((c.rip, c.dr[6] & 15), ((CODE + code.len()) as u64, 0), "{dr7:x} {code:x?}"),
        }
    }
}

#[test]
fn accesses_to_debug_registers_can_be_detected() {
    let b = Board::new();
    // mov rax, dr0; hlt
    let mut c = long(&b, &[0x0f, 0x21, 0xc0, 0xf4]);
    gate64(&b, 1, 0x11000);
    b.put(0x11000, &[0xf4]);
    c.dr[7] = 0x2400;
    assert_eq!(c.run(&b), Exit::Hlt);
    assert_eq!((c.rip, c.dr[6] & 0x2000, c.dr[7]), (0x11001, 0x2000, 0x400));
}

#[test]
fn segment_limits_hold() {
    // (attributes, limit, offset, faults): reads of four bytes
    for (attr, limit, off, faults) in [
        (0x4093u16, 0x7f, 0x7c, false),
        (0x4093, 0x7f, 0x7d, true),
        (0x4097, 0x7f, 0x7f, true),
        (0x4097, 0x7f, 0x80, false),
        (0x0097, 0x7f, 0xfffd, true),
        (0x4099, 0x7f, 0, true),
        (0x4013, 0x7f, 0, true),
    ] {
        let b = Board::new();
        gdt(&b, false);
        // mov eax, es:[off]; hlt
        let mut code = vec![0x26, 0xa1];
        code.extend(u32::to_le_bytes(off));
        code.push(0xf4);
        b.put(CODE, &code);
        let mut c = cpu();
        c.cr0 = 0x11;
        c.idtr.base = IDT as u64;
        c.idtr.limit = 0x7ff;
        c.gdtr.base = GDT as u64;
        c.gdtr.limit = 0x3f;
        b.put64(IDT + 13 * 8, 0x0001_ee00_0008_1000);
        b.put(0x11000, &[0xf4]);
        c.segs = [Segment { sel: 0x10, base: 0, limit: u32::MAX, attr: 0xc093 }; 6];
        c.segs[sreg::CS] = Segment { sel: 8, base: 0, limit: u32::MAX, attr: 0xc09b };
        c.segs[sreg::ES] = Segment { sel: 0x40, base: 0x50000, limit, attr };
        c.regs[gpr::RSP] = STACK;
        c.rip = CODE as u64;
        c.update_mode();
        assert_eq!(c.run(&b), Exit::Hlt);
        assert_eq!(c.rip == 0x11001, faults, "{attr:x} {off:x}");
    }
}

/// Virtual-8086 mode with CR4.VME at 1000:0000, the redirection bitmap all zero (interrupts go to the guest's own table);
/// #GP goes to HLT at 0x11000.
fn v86(b: &Board, code: &[u8]) -> Cpu {
    gdt(b, false);
    let mut c = cpu();
    c.cr0 = 0x11;
    c.cr4 = 1;
    c.gdtr.base = GDT as u64;
    c.gdtr.limit = 0x3f;
    c.idtr.base = IDT as u64;
    c.idtr.limit = 0x7ff;
    b.put64(TSS + 4, 0x10_0003_0000);
    b.put(TSS + 102, &[136, 0]);
    c.tr = Segment { sel: 0x28, base: TSS as u64, limit: 0x3ff, attr: 0x8b };
    b.put64(IDT + 13 * 8, 0x0001_ee00_0008_1000);
    b.put(0x11000, &[0xf4]);
    b.put(0x10000, code);
    c.set_rflags(rflags::VM | 2);
    c.cpl = 3;
    for s in &mut c.segs {
        *s = Segment { sel: 0x700, base: 0x7000, limit: 0xffff, attr: 0xf3 };
    }
    c.segs[sreg::CS] = Segment { sel: 0x1000, base: 0x10000, limit: 0xffff, attr: 0xfb };
    c.regs[gpr::RSP] = 0x100;
    c.rip = 0;
    c.update_mode();
    c
}

#[test]
fn vme_has_an_interrupt_flag_of_its_own() {
    let b = Board::new();
    // sti; pushf; pop ax; cli; pushf; pop bx; hlt
    let mut c = v86(&b, &[0xfb, 0x9c, 0x58, 0xfa, 0x9c, 0x5b, 0xf4]);
    assert_eq!(c.run(&b), Exit::Hlt);
    assert_eq!((c.regs[gpr::RAX] & 0x3200, c.regs[gpr::RBX] & 0x3200), (0x3200, 0x3000));
    // The real one never changed: the handler's frame has IF clear.
    let sp = c.regs[gpr::RSP] as usize;
    assert_eq!(b.get64(sp + 12) as u32 & 0x200, 0);
    // With an interrupt pending, STI and POPF of IF are for the monitor.
    for code in [&[0xfb, 0xf4][..], &[0x68, 0x00, 0x02, 0x9d, 0xf4]] {
        let b = Board::new();
        let mut c = v86(&b, code);
        c.rf |= rflags::VIP;
        assert_eq!(c.run(&b), Exit::Hlt);
        let at = if code.len() == 2 { 0 } else { 3 };
        assert_eq!((c.rip, frame(&b, &c).0 >> 32), (0x11001, at));
    }
}

#[test]
fn vme_redirects_interrupts_by_the_bitmap() {
    // int 0x21; mov dl, 5; hlt      handler at 7000:0040 (linear 0x70040): mov bl, 9; iret
    let code = [0xcd, 0x21, 0xb2, 5, 0xf4];
    let b = Board::new();
    b.put(0x21 * 4, &[0x40, 0, 0, 0x70]);
    b.put(0x70040, &[0xb3, 9, 0xcf]);
    let mut c = v86(&b, &code);
    c.rf |= rflags::VIF;
    assert_eq!(c.run(&b), Exit::Hlt);
    assert_eq!((c.regs[gpr::RBX] & 0xff, c.regs[gpr::RDX] & 0xff), (9, 5));
    // The flags that it pushed had IF (from VIF) and IOPL 3; IRET brought VIF back.
    let sp = c.regs[gpr::RSP] as usize;
    assert_eq!(b.get64(0x7000 + 0xfe) as u16 & 0x3200, 0x3200);
    assert_eq!(b.get64(sp + 12) as u32 & 0x8_0200, 0x8_0000);
    // Not redirected: #GP for the monitor.
    let b = Board::new();
    b.put(TSS + 136 - 32 + 4, &[2]);
    let mut c = v86(&b, &code);
    assert_eq!(c.run(&b), Exit::Hlt);
    assert_eq!((c.rip, frame(&b, &c).0), (0x11001, 0));
}

/// Several processors in 64-bit mode at `CODE` + 0x1000 * n, each with a stack of its own.
fn pair(b: &Arc<Board>, code: [&[u8]; 2]) -> [Cpu; 2] {
    let map = Arc::new(CodeMap::default());
    let template = long(b, &[0xf4]);
    std::array::from_fn(|n| {
        b.put(CODE + 0x1000 * n, code[n]);
        let mut c = Cpu::new(n as u32, Model::qemu64(), map.clone());
        (c.cr0, c.cr3, c.cr4, c.efer) = (template.cr0, template.cr3, template.cr4, template.efer);
        c.segs = template.segs;
        c.regs[gpr::RSP] = 0x30000 + 0x1000 * n as u64;
        c.rip = (CODE + 0x1000 * n) as u64;
        c.update_mode();
        c.flush_tlb_all();
        c
    })
}

fn together(b: &Arc<Board>, cpus: [Cpu; 2]) -> Vec<Cpu> {
    let threads = cpus.map(|mut c| {
        let b = b.clone();
        std::thread::spawn(move || {
            assert_eq!(c.run(&*b), Exit::Hlt);
            c
        })
    });
    threads.into_iter().map(|t| t.join().unwrap()).collect()
}

#[test]
fn stores_are_seen_in_order() {
    let b = Arc::new(Board::new());
    // One counts up A, then B; the other reads B, then A: A is never behind.
    // l: inc eax; mov [0x60000],eax; mov [0x61000],eax; dec ecx; jnz l; hlt
    let writer = [
        0xff, 0xc0, 0x89, 0x04, 0x25, 0, 0, 6, 0, 0x89, 0x04, 0x25, 0, 0x10, 6, 0, 0xff, 0xc9, 0x75, 0xec,
        0xf4,
    ];
    // l: mov eax,[0x61000]; mov edx,[0x60000]; cmp edx,eax; jae +2; inc ebx; dec ecx; jnz l; hlt
    let reader = [
        0x8b, 0x04, 0x25, 0, 0x10, 6, 0, 0x8b, 0x14, 0x25, 0, 0, 6, 0, 0x39, 0xc2, 0x73, 2, 0xff, 0xc3, 0xff,
        0xc9, 0x75, 0xe8, 0xf4,
    ];
    let mut cpus = pair(&b, [&writer, &reader]);
    for c in &mut cpus {
        c.regs[gpr::RCX] = 2_000_000;
    }
    let done = together(&b, cpus);
    assert_eq!(done[1].regs[gpr::RBX], 0);
    assert_eq!(b.get64(0x60000), 2_000_000);
}

#[test]
fn fences_order_a_store_before_a_load() {
    // Both: mov [own],1; mfence; mov eax,[other]. Not both may read 0.
    let code = |own: u8, other: u8| {
        vec![
            0xc7, 0x04, 0x25, 0, own, 6, 0, 1, 0, 0, 0, 0x0f, 0xae, 0xf0, 0x8b, 0x04, 0x25, 0, other, 6, 0,
            0xf4,
        ]
    };
    for _ in 0..200 {
        let b = Arc::new(Board::new());
        let (x, y) = (code(0, 0x10), code(0x10, 0));
        let done = together(&b, pair(&b, [&x, &y]));
        assert_ne!((done[0].regs[gpr::RAX], done[1].regs[gpr::RAX]), (0, 0));
        // SAFETY: both processors are done with the board that `new` leaked on purpose.
        unsafe { std::alloc::dealloc(b.ram, std::alloc::Layout::from_size_align(RAM, 4096).unwrap()) };
    }
}

#[test]
fn code_patched_by_another_processor_is_noticed() {
    let b = Arc::new(Board::new());
    // One runs f until it returns 1; the other patches f after a while.
    // l: call f (0x12000); test eax,eax; jz l; hlt
    let runner = [0xe8, 0xfb, 0x1f, 0, 0, 0x85, 0xc0, 0x74, 0xf7, 0xf4];
    // l: dec ecx; jnz l; mov byte [0x12001],1; hlt
    let patcher = [0xff, 0xc9, 0x75, 0xfc, 0xc6, 0x04, 0x25, 1, 0x20, 1, 0, 1, 0xf4];
    b.put(0x12000, &[0xb8, 0, 0, 0, 0, 0xc3]);
    let mut cpus = pair(&b, [&runner, &patcher]);
    cpus[1].regs[gpr::RCX] = 3_000_000;
    let done = together(&b, cpus);
    assert_eq!(done[0].regs[gpr::RAX], 1);
}

#[test]
fn junk_as_code_ends_in_an_exit_at_worst() {
    // xorshift: the same junk in every run.
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    for round in 0..150 {
        let b = Board::new();
        let mut c = if round % 3 == 0 { real(&b, &[]) } else { long(&b, &[]) };
        if round % 3 == 2 {
            user(&mut c);
        }
        // Everything but the tables (or, in real mode, everything).
        let from = if round % 3 == 0 { 0 } else { 0x9000 };
        for at in (from..RAM).step_by(8) {
            b.put64(at, random());
        }
        let gates = (0..32).filter(|_| round % 3 != 0);
        gates.for_each(|v| gate64(&b, v, CODE + 0x1000 * (v + 1)));
        for i in (0..16).filter(|i| *i != gpr::RSP) {
            c.regs[i] = random() >> (random() & 63);
        }
        let (ctl, stop) = (c.control(), Arc::new(AtomicBool::new(false)));
        let until = stop.clone();
        let watchdog = std::thread::spawn(move || {
            while !until.load(Ordering::SeqCst) {
                std::thread::sleep(std::time::Duration::from_millis(1));
                ctl.request(Request::EXIT);
            }
        });
        for _ in 0..20 {
            if c.run(&b) == Exit::Shutdown {
                break;
            }
            c.halted = false;
        }
        stop.store(true, Ordering::SeqCst);
        watchdog.join().unwrap();
        // SAFETY: the processor is done with the board that `new` leaked on purpose.
        unsafe { std::alloc::dealloc(b.ram, std::alloc::Layout::from_size_align(RAM, 4096).unwrap()) };
    }
}
