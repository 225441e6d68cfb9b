//! A machine of RAM, one port and one interrupt for small bare-metal programs.
#![allow(dead_code)]

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use rqemu_x86::state::{gpr, sreg, Segment};
use rqemu_x86::{Bus, CodeMap, Cpu, Model, Page};

pub const RAM: usize = 2 << 20;

pub struct Board {
    pub ram: *mut u8,
    pub out: Mutex<Vec<u32>>,
    pub vector: AtomicU32,
}
// SAFETY: guest RAM is shared by design.
unsafe impl Sync for Board {}
// SAFETY: likewise.
unsafe impl Send for Board {}

impl Board {
    pub fn new() -> Self {
        let layout = std::alloc::Layout::from_size_align(RAM, 4096).unwrap();
        // SAFETY: the layout is not empty; the test leaks it.
        let ram = unsafe { std::alloc::alloc_zeroed(layout) };
        Self { ram, out: Mutex::default(), vector: AtomicU32::new(0) }
    }
    pub fn put(&self, at: usize, b: &[u8]) {
        assert!(at + b.len() <= RAM);
        // SAFETY: checked.
        unsafe { std::ptr::copy_nonoverlapping(b.as_ptr(), self.ram.add(at), b.len()) };
    }
    pub fn put64(&self, at: usize, v: u64) {
        self.put(at, &v.to_le_bytes());
    }
    pub fn get64(&self, at: usize) -> u64 {
        assert!(at + 8 <= RAM);
        // SAFETY: checked.
        unsafe { self.ram.add(at).cast::<u64>().read_unaligned() }
    }
    pub fn out(&self) -> Vec<u32> {
        self.out.lock().unwrap().clone()
    }
}

impl Bus for Board {
    fn page(&self, addr: u64, _: bool) -> Page {
        if addr < RAM as u64 {
            Page::Ram(self.ram.wrapping_add(addr as usize))
        } else {
            Page::Mmio
        }
    }
    fn mmio_read(&self, addr: u64, _: u8) -> u64 {
        addr
    }
    fn mmio_write(&self, addr: u64, size: u8, v: u64) {
        self.out.lock().unwrap().extend([addr as u32, size as u32, v as u32]);
    }
    fn port_in(&self, port: u16, _: u8) -> u32 {
        port as u32 + 1
    }
    fn port_out(&self, _: u16, _: u8, v: u32) {
        self.out.lock().unwrap().push(v);
    }
    fn take_interrupt(&self, _: u32) -> Option<u8> {
        match self.vector.swap(0, Ordering::SeqCst) {
            0 => None,
            v => Some(v as u8),
        }
    }
    fn tsc(&self) -> u64 {
        0
    }
}

pub fn cpu() -> Cpu {
    Cpu::new(0, Model::qemu64(), Arc::new(CodeMap::default()))
}

/// Real mode at 0:7c00, stack below.
pub fn real(b: &Board, code: &[u8]) -> Cpu {
    b.put(0x7c00, code);
    let mut c = cpu();
    c.segs[sreg::CS] = Segment::real(0);
    c.regs[gpr::RSP] = 0x7c00;
    c.rip = 0x7c00;
    c.update_mode();
    c
}

pub const GDT: usize = 0x1000;
pub const IDT: usize = 0x2000;
pub const TSS: usize = 0x3000;
pub const PML4: usize = 0x4000;
pub const CODE: usize = 0x10000;
pub const STACK: u64 = 0x20000;

pub fn gdt(b: &Board, long: bool) {
    let code = if long { 0x00af_9b00_0000_ffff } else { 0x00cf_9b00_0000_ffff };
    let ucode = if long { 0x00af_fb00_0000_ffff } else { 0x00cf_fb00_0000_ffff };
    for (i, d) in [0, code, 0x00cf_9300_0000_ffff, ucode, 0x00cf_f300_0000_ffffu64].iter().enumerate() {
        b.put64(GDT + 8 * i, *d);
    }
}

/// 64-bit mode at CPL 0, the first 2 MiB mapped with 4 KiB pages (user, writable), interrupt gates to `handler`.
pub fn long(b: &Board, code: &[u8]) -> Cpu {
    b.put(CODE, code);
    gdt(b, true);
    b.put64(PML4, PML4 as u64 + 0x1007);
    b.put64(PML4 + 0x1000, PML4 as u64 + 0x2007);
    b.put64(PML4 + 0x2000, PML4 as u64 + 0x3007);
    for i in 0..512 {
        b.put64(PML4 + 0x3000 + 8 * i, (i as u64) << 12 | 7);
    }
    b.put64(TSS + 4, 0x30000);
    let mut c = cpu();
    c.cr0 = 0x8001_0031;
    c.cr4 = 0x20;
    c.cr3 = PML4 as u64;
    c.efer = 0xd01;
    c.gdtr.base = GDT as u64;
    c.gdtr.limit = 0x3f;
    c.idtr.base = IDT as u64;
    c.idtr.limit = 0xfff;
    c.segs = [Segment { sel: 0x10, base: 0, limit: u32::MAX, attr: 0xc093 }; 6];
    c.segs[sreg::CS] = Segment { sel: 8, base: 0, limit: u32::MAX, attr: 0xa09b };
    c.tr = Segment { sel: 0x28, base: TSS as u64, limit: 103, attr: 0x8b };
    c.regs[gpr::RSP] = STACK;
    c.rip = CODE as u64;
    c.update_mode();
    c.flush_tlb_all();
    c
}

pub fn gate64(b: &Board, vector: usize, handler: usize) {
    let h = handler as u64;
    b.put64(IDT + 16 * vector, (h & 0xffff) | 8 << 16 | 0xee00 << 32 | (h >> 16 & 0xffff) << 48);
    b.put64(IDT + 16 * vector + 8, h >> 32);
}
