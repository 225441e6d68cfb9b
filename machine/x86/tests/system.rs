//! Small bare-metal programs in every mode: faults, gates, interrupts, self-modifying code, several CPUs.

mod board;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::Arc;

use board::*;
use rqemu_x86::bus::{Bus, Page};
use rqemu_x86::state::{gpr, sreg, Segment};
use rqemu_x86::{CodeMap, Cpu, Exit, Model, Request};

#[test]
fn real_mode_interrupt_and_return() {
    let b = Board::new();
    // int 0x21; mov al,2; out 0x80,al; hlt        handler: mov al,1; out 0x80,al; iret
    let mut c = real(&b, &[0xcd, 0x21, 0xb0, 2, 0xe6, 0x80, 0xf4]);
    b.put(0x500, &[0xb0, 1, 0xe6, 0x80, 0xcf]);
    b.put(0x21 * 4, &[0x00, 0x05, 0x00, 0x00]);
    assert_eq!(c.run(&b), Exit::Hlt);
    assert_eq!(b.out(), [1, 2]);
    assert_eq!((c.rip, c.regs[gpr::RSP]), (0x7c07, 0x7c00));
}

#[test]
fn real_mode_segment_wrap_and_limit() {
    let b = Board::new();
    b.put(0x500, &[0xb0, 9, 0xe6, 0x80, 0xf4]);
    b.put(13 * 4, &[0x00, 0x05, 0x00, 0x00]);
    // mov ax,[0xffff]: the second byte is beyond the limit.
    let mut c = real(&b, &[0xa1, 0xff, 0xff, 0xf4]);
    assert_eq!(c.run(&b), Exit::Hlt);
    assert_eq!(b.out(), [9]);
    // The frame has the failing instruction.
    assert_eq!(b.get64(0x7c00 - 6) & 0xffff, 0x7c00);
}

#[test]
fn from_real_to_protected_to_long_by_the_guest() {
    let b = Board::new();
    gdt(&b, true);
    b.put64(GDT + 8, 0x00cf_9b00_0000_ffff);
    b.put64(GDT + 0x18, 0x00af_9b00_0000_ffff);
    b.put(0x600, &[0x1f, 0, 0x00, 0x10, 0, 0]);
    let mut c = real(
        &b,
        &[
            0x0f, 0x01, 0x16, 0x00, 0x06, // lgdt [0x600]
            0x66, 0xb8, 0x11, 0, 0, 0, // mov eax, 0x11
            0x0f, 0x22, 0xc0, // mov cr0, eax
            0xea, 0x00, 0x7d, 0x08, 0x00, // jmp 8:7d00
        ],
    );
    b.put(
        0x7d00,
        &[
            0x66, 0xb8, 0x10, 0, 0x8e, 0xd8, 0x8e, 0xd0, // mov ax,0x10; mov ds,ax; mov ss,ax
            0xb8, 0x20, 0, 0, 0, 0x0f, 0x22, 0xe0, // mov cr4, 0x20
            0xb8, 0x00, 0x40, 0, 0, 0x0f, 0x22, 0xd8, // mov cr3, 0x4000
            0xb9, 0x80, 0, 0, 0xc0, 0x31, 0xd2, 0xb8, 0, 1, 0, 0, 0x0f, 0x30, // wrmsr(EFER, LME)
            0xb8, 0x11, 0, 0, 0x80, 0x0f, 0x22, 0xc0, // mov cr0, PG|ET|PE
            0xea, 0x00, 0x7e, 0, 0, 0x18, 0, // jmp 0x18:0x7e00
        ],
    );
    b.put64(PML4, PML4 as u64 + 0x1007);
    b.put64(PML4 + 0x1000, PML4 as u64 + 0x2007);
    b.put64(PML4 + 0x2000, 0x87);
    // mov rax, 0x123456789abcdef0; mov [0x8000], rax; hlt
    b.put(
        0x7e00,
        &[
            0x48, 0xb8, 0xf0, 0xde, 0xbc, 0x9a, 0x78, 0x56, 0x34, 0x12, 0x48, 0x89, 0x04, 0x25, 0, 0x80, 0,
            0, 0xf4,
        ],
    );
    assert_eq!(c.run(&b), Exit::Hlt);
    assert_eq!(b.get64(0x8000), 0x1234_5678_9abc_def0);
    assert!(c.long_code && c.lma());
    // Accessed and dirty bits of the 2 MiB page.
    assert_eq!(b.get64(PML4 + 0x2000), 0xe7);
}

#[test]
fn page_fault_has_address_code_and_instruction() {
    let b = Board::new();
    // mov [0x40000], eax with the page absent
    let mut c = long(&b, &[0x90, 0x89, 0x04, 0x25, 0, 0, 4, 0, 0xf4]);
    b.put64(PML4 + 0x3000 + 8 * 0x40, 0);
    gate64(&b, 14, 0x11000);
    b.put(0x11000, &[0xf4]);
    assert_eq!(c.run(&b), Exit::Hlt);
    let sp = c.regs[gpr::RSP] as usize;
    assert_eq!(c.cr2, 0x40000);
    assert_eq!((b.get64(sp), b.get64(sp + 8), b.get64(sp + 16)), (2, CODE as u64 + 1, 8));
    assert_eq!(b.get64(sp + 32), STACK);
}

#[test]
fn a_repeated_move_stops_precisely_at_a_fault() {
    let b = Board::new();
    let mut c = long(&b, &[0xf3, 0xa4, 0xf4]);
    gate64(&b, 14, 0x11000);
    b.put(0x11000, &[0xf4]);
    b.put64(PML4 + 0x3000 + 8 * 0x42, 0);
    c.regs[gpr::RSI] = 0x50ff0;
    c.regs[gpr::RDI] = 0x40ff8;
    c.regs[gpr::RCX] = 0x3000;
    assert_eq!(c.run(&b), Exit::Hlt);
    assert_eq!((c.cr2, c.regs[gpr::RDI]), (0x42000, 0x42000));
    assert_eq!((c.regs[gpr::RSI], c.regs[gpr::RCX]), (0x50ff0 + 0x1008, 0x3000 - 0x1008));
}

#[test]
fn a_ring_3_software_interrupt_switches_stacks() {
    let b = Board::new();
    // int 0x80 from ring 3, then a privileged instruction: #GP
    let mut c = long(&b, &[0xcd, 0x80, 0xf4]);
    gate64(&b, 0x80, 0x11000);
    gate64(&b, 13, 0x11100);
    b.put(0x11000, &[0xb0, 7, 0xe6, 0x80, 0x48, 0xcf]);
    b.put(0x11100, &[0xf4]);
    c.segs[sreg::CS] = Segment { sel: 0x1b, base: 0, limit: u32::MAX, attr: 0xa0fb };
    c.segs[sreg::SS] = Segment { sel: 0x23, base: 0, limit: u32::MAX, attr: 0xc0f3 };
    c.cpl = 3;
    c.update_mode();
    assert_eq!(c.run(&b), Exit::Hlt);
    assert_eq!((b.out(), c.cpl), (vec![7], 0));
    // The #GP frame on the ring-0 stack of the TSS: error 0, RIP of HLT, user CS, RSP, SS.
    let sp = c.regs[gpr::RSP] as usize;
    assert_eq!(sp, 0x30000 - 48);
    assert_eq!((b.get64(sp), b.get64(sp + 8), b.get64(sp + 16)), (0, CODE as u64 + 2, 0x1b));
    assert_eq!((b.get64(sp + 32), b.get64(sp + 40)), (STACK, 0x23));
}

#[test]
fn hlt_waits_for_an_interrupt_and_sti_holds_it_off_once() {
    let b = Board::new();
    // sti; hlt; mov al,2; out 0x80,al; cli; hlt
    let mut c = long(&b, &[0xfb, 0xf4, 0xb0, 2, 0xe6, 0x80, 0xfa, 0xf4]);
    gate64(&b, 0x30, 0x11000);
    b.put(0x11000, &[0xb0, 1, 0xe6, 0x80, 0x48, 0xcf]);
    assert_eq!(c.run(&b), Exit::Hlt);
    assert_eq!(c.run(&b), Exit::Hlt);
    assert!(b.out().is_empty());
    b.vector.store(0x30, Ordering::SeqCst);
    c.control().request(Request::INTR);
    assert_eq!(c.run(&b), Exit::Hlt);
    assert_eq!(b.out(), [1, 2]);
    // With interrupts disabled nothing is acknowledged.
    b.vector.store(0x30, Ordering::SeqCst);
    c.control().request(Request::INTR);
    assert_eq!(c.run(&b), Exit::Hlt);
    assert_eq!(b.vector.load(Ordering::SeqCst), 0x30);
}

#[test]
fn an_endless_loop_obeys_an_exit_request() {
    let b = Board::new();
    let mut c = long(&b, &[0xeb, 0xfe]);
    let ctl = c.control();
    let t = std::thread::spawn(move || ctl.request(Request::EXIT));
    assert_eq!(c.run(&b), Exit::Interrupted);
    t.join().unwrap();
}

#[test]
fn single_step_traps_after_each_instruction() {
    let b = Board::new();
    // pushf; or qword [rsp],0x100; popf; nop; nop; hlt     #DB handler: inc ebx; test ebx... returns
    let mut c = long(&b, &[0x9c, 0x48, 0x81, 0x0c, 0x24, 0, 1, 0, 0, 0x9d, 0x90, 0x90, 0xf4]);
    gate64(&b, 1, 0x11000);
    // inc ebx; iretq
    b.put(0x11000, &[0xff, 0xc3, 0x48, 0xcf]);
    assert_eq!(c.run(&b), Exit::Hlt);
    // After each NOP; HLT itself stops first.
    assert_eq!(c.regs[gpr::RBX], 2);
    assert_eq!(c.dr[6] & 1 << 14, 1 << 14);
}

#[test]
fn code_that_rewrites_itself_runs_as_rewritten() {
    let b = Board::new();
    // mov byte [rip+1], 7 (the immediate of the next instruction); mov al, 1; out 0x80, al; hlt
    let mut c = long(&b, &[0xc6, 0x05, 1, 0, 0, 0, 7, 0xb0, 1, 0xe6, 0x80, 0xf4]);
    assert_eq!(c.run(&b), Exit::Hlt);
    assert_eq!(b.out(), [7]);
    // Another block, called before and after being patched.
    let b = Board::new();
    // call f; mov byte [f+1], 9; call f; hlt;  f (0x10100): mov al,3; out 0x80,al; ret
    let mut c =
        long(&b, &[0xe8, 0xfb, 0, 0, 0, 0xc6, 0x04, 0x25, 0x01, 0x01, 0x01, 0, 9, 0xe8, 0xee, 0, 0, 0, 0xf4]);
    b.put(0x10100, &[0xb0, 3, 0xe6, 0x80, 0xc3]);
    assert_eq!(c.run(&b), Exit::Hlt);
    assert_eq!(b.out(), [3, 9]);
}

#[test]
fn dma_into_code_is_noticed() {
    let b = Board::new();
    let mut c = long(&b, &[0xb0, 3, 0xe6, 0x80, 0xf4]);
    assert_eq!(c.run(&b), Exit::Hlt);
    b.put(CODE + 1, &[5]);
    c.code_map().note_write(b.ram.wrapping_add(CODE + 1), 1);
    c.rip = CODE as u64;
    c.halted = false;
    assert_eq!(c.run(&b), Exit::Hlt);
    assert_eq!(b.out(), [3, 5]);
}

#[test]
fn without_usable_tables_a_fault_is_a_shutdown() {
    let b = Board::new();
    let mut c = long(&b, &[0x0f, 0x0b]);
    c.idtr.limit = 0;
    assert_eq!(c.run(&b), Exit::Shutdown);
    assert_eq!(c.rip, CODE as u64);
}

#[test]
fn device_memory_is_read_and_written_once_with_its_size() {
    let b = Board::new();
    // mov eax,[0x300000 -> mapped to 0x10000000]; mov [same], ax; hlt
    let mut c = long(&b, &[0x8b, 0x04, 0x25, 0, 0, 6, 0, 0x66, 0x89, 0x04, 0x25, 2, 0, 6, 0, 0xf4]);
    b.put64(PML4 + 0x3000 + 8 * 0x60, 0x1000_0007);
    assert_eq!(c.run(&b), Exit::Hlt);
    assert_eq!(c.regs[gpr::RAX], 0x1000_0000);
    assert_eq!(b.out(), [0x1000_0002, 2, 0]);
}

#[test]
fn two_cpus_increment_one_counter() {
    let b = Arc::new(Board::new());
    let map = Arc::new(CodeMap::default());
    // l: lock inc qword [0x60000]; dec ecx; jnz l; hlt
    let code = [0xf0, 0x48, 0xff, 0x04, 0x25, 0, 0, 6, 0, 0xff, 0xc9, 0x75, 0xf3, 0xf4];
    let template = long(&b, &code);
    let run = |id: u32| {
        let mut c = Cpu::new(id, Model::qemu64(), map.clone());
        c.cr0 = template.cr0;
        c.cr4 = template.cr4;
        c.cr3 = template.cr3;
        c.efer = template.efer;
        c.segs = template.segs;
        c.rip = template.rip;
        c.regs[gpr::RCX] = 100_000;
        c.update_mode();
        c.flush_tlb_all();
        let b = b.clone();
        std::thread::spawn(move || assert_eq!(c.run(&*b), Exit::Hlt))
    };
    let (x, y) = (run(0), run(1));
    x.join().unwrap();
    y.join().unwrap();
    assert_eq!(b.get64(0x60000), 200_000);
}

#[test]
fn virtual_8086_mode_and_a_protected_handler() {
    let b = Board::new();
    gdt(&b, false);
    let mut c = cpu();
    c.cr0 = 0x11;
    c.gdtr.base = GDT as u64;
    c.gdtr.limit = 0x3f;
    c.idtr.base = IDT as u64;
    c.idtr.limit = 0x7ff;
    // TSS: ESP0, SS0.
    b.put64(TSS + 4, 0x10_0003_0000);
    c.tr = Segment { sel: 0x28, base: TSS as u64, limit: 103, attr: 0x8b };
    // #GP handler (32-bit): hlt
    b.put64(IDT + 13 * 8, 0x0001_ee00_0008_1000);
    b.put(0x11000, &[0xf4]);
    // v86 code at 1000:0000: mov ax, 0x55; hlt (privileged: #GP)
    b.put(0x10000, &[0xb8, 0x55, 0, 0xf4]);
    c.set_rflags(0x2_0002);
    c.cpl = 3;
    for s in &mut c.segs {
        *s = Segment { sel: 0x700, base: 0x7000, limit: 0xffff, attr: 0xf3 };
    }
    c.segs[sreg::CS] = Segment { sel: 0x1000, base: 0x10000, limit: 0xffff, attr: 0xfb };
    c.regs[gpr::RSP] = 0x100;
    c.rip = 0;
    c.update_mode();
    assert_eq!(c.run(&b), Exit::Hlt);
    assert_eq!((c.regs[gpr::RAX], c.cpl, c.vm86()), (0x55, 0, false));
    let sp = c.regs[gpr::RSP] as usize;
    // error, EIP, CS, EFLAGS, ESP, SS, ES, DS, FS, GS
    let frame: Vec<u32> = (0..10).map(|i| b.get64(sp + 4 * i) as u32).collect();
    assert_eq!(frame, [0, 3, 0x1000, 0x3_0002, 0x100, 0x700, 0x700, 0x700, 0x700, 0x700]);
}

#[test]
fn system_management_mode_saves_moves_and_restores() {
    let b = Board::new();
    // mov al,1; out 0x80,al; hlt
    let mut c = long(&b, &[0xb0, 1, 0xe6, 0x80, 0xf4]);
    // mov dword cs:[0xff00],0x40000; mov al,2; out 0x80,al; rsm
    b.put(0x38000, &[0x2e, 0x66, 0xc7, 0x06, 0x00, 0xff, 0, 0, 4, 0, 0xb0, 2, 0xe6, 0x80, 0x0f, 0xaa]);
    c.regs[gpr::RAX] = 0x1122_3344_5566_7788;
    c.regs[15] = 0x99;
    c.nmi_masked = false;
    c.control().request(Request::SMI);
    assert_eq!(c.run(&b), Exit::Hlt);
    assert_eq!(b.out(), [2, 1]);
    assert_eq!((c.smm, c.nmi_masked, c.msrs.smbase), (false, false, 0x40000));
    // RAX at the top, R15 at the bottom, RIP; CS with its attributes where a descriptor has them; revision.
    assert_eq!((b.get64(0x3fff8), b.get64(0x3ff80)), (0x1122_3344_5566_7788, 0x99));
    assert_eq!(b.get64(0x3ff78), CODE as u64);
    assert_eq!(b.get64(0x3fe10) & 0xffff_ffff, 0xa09b_0008);
    assert_eq!(b.get64(0x3fefc) as u32, 0x2_0064);
    assert_eq!((c.regs[15], c.rip, c.cr0), (0x99, CODE as u64 + 5, 0x8001_0031));
    // The next one goes to the new place: inc byte cs:[0x9000]; rsm
    b.put(0x48000, &[0x2e, 0xfe, 0x06, 0x00, 0x90, 0x0f, 0xaa]);
    c.control().request(Request::SMI);
    c.halted = false;
    c.rip = CODE as u64;
    assert_eq!(c.run(&b), Exit::Hlt);
    assert_eq!(b.get64(0x49000) & 0xff, 1);
}

#[test]
fn outside_of_system_management_mode_rsm_is_undefined() {
    let b = Board::new();
    b.put(6 * 4, &[0x00, 0x05, 0x00, 0x00]);
    b.put(0x500, &[0xb0, 7, 0xe6, 0x80, 0xf4]);
    let mut c = real(&b, &[0x0f, 0xaa, 0xf4]);
    assert_eq!(c.run(&b), Exit::Hlt);
    assert_eq!(b.out(), [7]);
}

/// A page that reads as memory until the first write to it, as flash does.
struct Flash {
    board: Board,
    device: AtomicU32,
    changed: AtomicU32,
}

impl Bus for Flash {
    fn page(&self, addr: u64, w: bool) -> Page {
        match addr & !0xfff {
            0x8000 if self.device.load(Ordering::SeqCst) != 0 => Page::Mmio,
            0x8000 => Page::Rom(self.board.ram.wrapping_add(addr as usize)),
            _ => self.board.page(addr, w),
        }
    }
    fn mmio_read(&self, _: u64, _: u8) -> u64 {
        0x80
    }
    fn mmio_write(&self, _: u64, _: u8, v: u64) {
        self.device.store(u32::from(v != 0xff), Ordering::SeqCst);
        self.changed.store(1, Ordering::SeqCst);
    }
    fn map_changed(&self) -> bool {
        self.changed.swap(0, Ordering::SeqCst) != 0
    }
    fn port_in(&self, _: u16, _: u8) -> u32 {
        0
    }
    fn port_out(&self, p: u16, s: u8, v: u32) {
        self.board.port_out(p, s, v);
    }
    fn take_interrupt(&self, _: u32) -> Option<u8> {
        None
    }
    fn tsc(&self) -> u64 {
        0
    }
}

#[test]
fn a_write_that_changes_the_map_is_seen_by_the_next_instruction() {
    let b = Board::new();
    b.put(0x8000, &[0x11]);
    // mov bl,[0x8000]; mov byte [0x8000],0x70; mov bh,[0x8000]; mov byte [0x8000],0xff; mov cl,[0x8000]; hlt
    let code = [
        0x8a, 0x1e, 0x00, 0x80, 0xc6, 0x06, 0x00, 0x80, 0x70, 0x8a, 0x3e, 0x00, 0x80, 0xc6, 0x06, 0x00, 0x80,
        0xff, 0x8a, 0x0e, 0x00, 0x80, 0xf4,
    ];
    let mut c = real(&b, &code);
    let bus = Flash { board: b, device: AtomicU32::new(0), changed: AtomicU32::new(0) };
    assert_eq!(c.run(&bus), Exit::Hlt);
    assert_eq!((c.regs[gpr::RBX] & 0xffff, c.regs[gpr::RCX] & 0xff), (0x8011, 0x11));
}
