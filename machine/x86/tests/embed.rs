//! What an embedder uses: a debugger's points, and helping another engine out.

use rqemu_x86::points::{Points, Watch};
use rqemu_x86::state::{gpr, sreg, Segment};
use rqemu_x86::{Bus, Cpu, Exit, Model, Page};
use std::sync::Arc;

const RAM: usize = 1 << 20;
const CODE: u64 = 0x1000;
const DATA: u64 = 0x8000;
/// A page of another engine.
const FOREIGN: u64 = 0x20000;

struct Board(*mut u8);
// SAFETY: one test thread uses it.
unsafe impl Sync for Board {}

impl Board {
    fn new() -> Self {
        let layout = std::alloc::Layout::from_size_align(RAM, 4096).unwrap();
        // SAFETY: the layout is not empty; the test leaks it.
        Self(unsafe { std::alloc::alloc_zeroed(layout) })
    }
    fn put(&self, at: u64, b: &[u8]) {
        assert!(at as usize + b.len() <= RAM);
        // SAFETY: checked.
        unsafe { std::ptr::copy_nonoverlapping(b.as_ptr(), self.0.add(at as usize), b.len()) };
    }
    fn get(&self, at: u64) -> u8 {
        assert!((at as usize) < RAM);
        // SAFETY: checked.
        unsafe { *self.0.add(at as usize) }
    }
}

impl Bus for Board {
    fn page(&self, addr: u64, _write: bool) -> Page {
        match addr as usize {
            a if a < RAM => Page::Ram(self.0.wrapping_add(a)),
            _ => Page::Mmio,
        }
    }
    fn mmio_read(&self, _addr: u64, _size: u8) -> u64 {
        !0
    }
    fn mmio_write(&self, _addr: u64, _size: u8, _value: u64) {}
    fn port_in(&self, _port: u16, _size: u8) -> u32 {
        !0
    }
    fn port_out(&self, _port: u16, _size: u8, _value: u32) {}
    fn take_interrupt(&self, _cpu: u32) -> Option<u8> {
        None
    }
    fn tsc(&self) -> u64 {
        0
    }
    fn elsewhere(&self, addr: u64) -> bool {
        addr == FOREIGN
    }
    fn msr_read(&self, _cpu: u32, index: u32) -> Option<u64> {
        (index == 0x1234).then_some(0x55)
    }
}

/// A processor in real mode with flat segments, about to execute `code`.
fn cpu(board: &Board, code: &[u8]) -> Cpu {
    board.put(CODE, code);
    let mut c = Cpu::new(0, Model::qemu64(), Arc::default());
    for s in [sreg::CS, sreg::DS, sreg::ES, sreg::SS] {
        c.segs[s] = Segment { limit: 0xf_ffff, ..Segment::real(0) };
    }
    c.rip = CODE;
    c.regs[gpr::RSP] = 0x7000;
    c.update_mode();
    c
}

/// inc byte [0x8000]; mov al,[0x8000]; int3; hlt
const PROGRAM: &[u8] = &[0xfe, 0x06, 0x00, 0x80, 0xa0, 0x00, 0x80, 0xcc, 0xf4];

#[test]
fn breakpoints_stop_before_instructions() {
    let b = Board::new();
    let mut c = cpu(&b, PROGRAM);
    c.set_points(Points { int3: true, code: vec![CODE + 4], data: vec![] });
    assert_eq!((c.run(&b), c.rip, c.take_hit()), (Exit::Debug, CODE + 4, None));
    assert_eq!(b.get(DATA), 1);
    assert_eq!(c.step_one(&b), None, "a step is not stopped by the point it starts at");
    assert_eq!((c.run(&b), c.rip), (Exit::Debug, CODE + 7), "int3");
    c.set_points(Points::default());
    // Its handler, at 0: hlt.
    b.put(0, &[0xf4]);
    assert_eq!(c.run(&b), Exit::Hlt);
}

#[test]
fn watchpoints_stop_behind_instructions() {
    let b = Board::new();
    let mut c = cpu(&b, PROGRAM);
    let watch = |read| Watch { addr: DATA, len: 1, read, id: 2 };
    c.set_points(Points { int3: true, code: vec![], data: vec![watch(true)] });
    assert_eq!((c.run(&b), c.rip, c.take_hit()), (Exit::Debug, CODE + 4, Some(2)), "written");
    assert_eq!((c.run(&b), c.rip, c.take_hit()), (Exit::Debug, CODE + 7, Some(2)), "read");
    let mut c = cpu(&b, PROGRAM);
    c.set_points(Points { int3: true, code: vec![], data: vec![watch(false)] });
    assert_eq!((c.run(&b), c.rip, c.take_hit()), (Exit::Debug, CODE + 4, Some(2)));
    assert_eq!((c.run(&b), c.rip, c.take_hit()), (Exit::Debug, CODE + 7, None), "reads do not count");
    assert_eq!(b.get(DATA), 2);
}

#[test]
fn a_helper_leaves_what_is_not_its_own() {
    let b = Board::new();
    // mov ax,0x2000; mov ds,ax; inc byte [0]; hlt
    let code = [0xb8, 0x00, 0x20, 0x8e, 0xd8, 0xfe, 0x06, 0x00, 0x00, 0xf4];
    let mut c = cpu(&b, &code);
    c.assist();
    assert_eq!((c.run(&b), c.rip), (Exit::Leave, CODE + 5));
    assert_eq!(b.get(FOREIGN), 0, "nothing has changed");
    c.rip = CODE + 9;
    assert_eq!(c.run(&b), Exit::Hlt);
}

#[test]
fn a_helper_notices_new_code() {
    let b = Board::new();
    // mov al,1; hlt
    let mut c = cpu(&b, &[0xb0, 1, 0xf4]);
    c.assist();
    assert_eq!((c.run(&b), c.regs[gpr::RAX] & 0xff), (Exit::Hlt, 1));
    b.put(CODE + 1, &[7]);
    (c.rip, c.halted) = (CODE, false);
    c.resync();
    assert_eq!((c.run(&b), c.regs[gpr::RAX] & 0xff), (Exit::Hlt, 7));
}

#[test]
fn a_helper_uses_the_bus_for_other_msrs() {
    let b = Board::new();
    // mov ecx,0x1234; rdmsr; hlt (32-bit immediate)
    let mut c = cpu(&b, &[0x66, 0xb9, 0x34, 0x12, 0, 0, 0x0f, 0x32, 0xf4]);
    c.assist();
    assert_eq!((c.run(&b), c.regs[gpr::RAX]), (Exit::Hlt, 0x55));
}
