//! The smallest machine that boots firmware and Linux: RAM, PICs, PIT, CMOS, a serial port, fw_cfg-less.

use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rqemu_x86::{Bus, Page, Request, RunControl};

#[derive(Default)]
struct Pic {
    irr: u8,
    isr: u8,
    imr: u8,
    base: u8,
    icw: u8,
    need4: bool,
    read_isr: bool,
    auto_eoi: bool,
}

impl Pic {
    fn pending(&self) -> Option<u8> {
        let p = self.irr & !self.imr;
        let n = p.trailing_zeros() as u8;
        let s = self.isr.trailing_zeros() as u8;
        (p != 0 && n < s).then_some(n)
    }
    fn write(&mut self, a: u16, v: u8) {
        if a & 1 == 0 {
            if v & 0x10 != 0 {
                *self = Pic { icw: 2, need4: v & 1 != 0, ..Pic::default() };
            } else if v & 8 != 0 {
                if v & 2 != 0 {
                    self.read_isr = v & 1 != 0;
                }
            } else if v & 0xe0 == 0x20 {
                self.isr &= self.isr.wrapping_sub(1);
            } else if v & 0xe0 == 0x60 {
                self.isr &= !(1 << (v & 7));
            }
            return;
        }
        match self.icw {
            2 => {
                self.base = v & 0xf8;
                self.icw = 3;
            }
            3 => self.icw = if self.need4 { 4 } else { 0 },
            4 => {
                self.auto_eoi = v & 2 != 0;
                self.icw = 0;
            }
            _ => self.imr = v,
        }
    }
    fn read(&self, a: u16) -> u8 {
        match (a & 1, self.read_isr) {
            (1, _) => self.imr,
            (_, true) => self.isr,
            _ => self.irr,
        }
    }
    fn ack(&mut self, n: u8) -> u8 {
        self.irr &= !(1 << n);
        if !self.auto_eoi {
            self.isr |= 1 << n;
        }
        self.base + n
    }
}

#[derive(Clone, Copy)]
struct Counter {
    reload: u32,
    start: Instant,
    mode: u8,
    rw: u8,
    low: Option<u8>,
    latch: Option<u16>,
    high_next: bool,
}

struct Devices {
    pic: [Pic; 2],
    pit: [Counter; 3],
    gate: u8,
    cmos: u8,
    lcr: u8,
    mcr: u8,
    scr: u8,
    ier: u8,
    thre: bool,
    generation: u64,
    line: Vec<u8>,
    pci: u32,
}

const PIT_HZ: u64 = 1_193_182;

/// The machine.
pub struct Mini {
    mem: *mut u8,
    pub size: u64,
    rom: Vec<u8>,
    rom_at: *mut u8,
    d: Mutex<Devices>,
    wake: Condvar,
    pub ctl: Mutex<Option<Arc<RunControl>>>,
    pub off: AtomicBool,
    pub ios: AtomicU64,
    start: Instant,
    pub quiet: bool,
}

// SAFETY: the raw pointer is guest RAM, shared by design.
unsafe impl Sync for Mini {}
// SAFETY: likewise.
unsafe impl Send for Mini {}

impl Mini {
    pub fn new(size: u64, rom: Vec<u8>) -> Self {
        let map = |n: usize| {
            // SAFETY: a fresh anonymous mapping.
            unsafe {
                libc::mmap(
                    std::ptr::null_mut(),
                    n,
                    libc::PROT_READ | libc::PROT_WRITE,
                    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                    -1,
                    0,
                ) as *mut u8
            }
        };
        let mem = map(size as usize);
        let rom_at = map(rom.len().max(4096));
        // SAFETY: the mapping is at least that long.
        unsafe { std::ptr::copy_nonoverlapping(rom.as_ptr(), rom_at, rom.len()) };
        let now = Instant::now();
        let c =
            Counter { reload: 65536, start: now, mode: 3, rw: 3, low: None, latch: None, high_next: false };
        Self {
            mem,
            size,
            rom,
            rom_at,
            d: Mutex::new(Devices {
                pic: Default::default(),
                pit: [c; 3],
                gate: 0,
                cmos: 0,
                lcr: 0,
                mcr: 0,
                scr: 0,
                ier: 0,
                thre: false,
                generation: 0,
                line: Vec::new(),
                pci: 0,
            }),
            wake: Condvar::new(),
            ctl: Mutex::new(None),
            off: AtomicBool::new(false),
            ios: AtomicU64::new(0),
            start: now,
            quiet: false,
        }
    }

    pub fn write(&self, at: u64, b: &[u8]) {
        assert!(at + b.len() as u64 <= self.size);
        // SAFETY: checked.
        unsafe { std::ptr::copy_nonoverlapping(b.as_ptr(), self.mem.add(at as usize), b.len()) };
    }

    fn kick(&self, bits: u32) {
        if let Some(c) = &*self.ctl.lock().unwrap() {
            c.request(bits);
        }
        self.wake.notify_all();
    }

    fn raise(&self, d: &mut Devices, irq: u8) {
        d.pic[(irq / 8) as usize].irr |= 1 << (irq % 8);
        if d.pic[1].pending().is_some() {
            d.pic[0].irr |= 4;
        }
        if d.pic[0].pending().is_some() {
            self.kick(Request::INTR);
        }
    }

    /// Blocks until an interrupt is pending.
    pub fn wait(&self) {
        let mut d = self.d.lock().unwrap();
        while d.pic[0].pending().is_none() && !self.off.load(Ordering::SeqCst) {
            d = self.wake.wait_timeout(d, Duration::from_millis(100)).unwrap().0;
        }
    }

    /// The timer thread.
    pub fn timer(&self) {
        let mut seen = 0;
        let mut next = Instant::now();
        while !self.off.load(Ordering::SeqCst) {
            let mut d = self.d.lock().unwrap();
            let c = d.pit[0];
            let period = Duration::from_nanos(c.reload as u64 * 1_000_000_000 / PIT_HZ);
            if d.generation != seen {
                seen = d.generation;
                next = c.start + period;
            }
            let now = Instant::now();
            if now >= next {
                self.raise(&mut d, 0);
                next += period;
                if next < now {
                    next = now + period;
                }
                if !matches!(c.mode, 2 | 3) {
                    next = now + Duration::from_secs(3600);
                }
            }
            let t = next.saturating_duration_since(Instant::now());
            let _ = self.wake.wait_timeout(d, t.min(Duration::from_millis(5))).unwrap();
        }
    }

    fn serial_irq(&self, d: &mut Devices) {
        if d.ier & 2 != 0 && d.thre {
            self.raise(d, 4);
        }
    }

    fn out8(&self, d: &mut Devices, p: u16, v: u8) {
        match p {
            0x20 | 0x21 => {
                d.pic[0].write(p, v);
                if d.pic[1].pending().is_some() {
                    d.pic[0].irr |= 4;
                }
                if d.pic[0].pending().is_some() {
                    self.kick(Request::INTR);
                }
            }
            0xa0 | 0xa1 => {
                d.pic[1].write(p, v);
                if d.pic[1].pending().is_some() {
                    d.pic[0].irr |= 4;
                    self.kick(Request::INTR);
                }
            }
            0x40..=0x42 => {
                let c = &mut d.pit[(p - 0x40) as usize];
                let full = match (c.rw, c.low) {
                    (1, _) => Some(v as u32),
                    (2, _) => Some((v as u32) << 8),
                    (_, None) => {
                        c.low = Some(v);
                        None
                    }
                    (_, Some(l)) => {
                        c.low = None;
                        Some((v as u32) << 8 | l as u32)
                    }
                };
                if let Some(n) = full {
                    c.reload = if n == 0 { 65536 } else { n };
                    c.start = Instant::now();
                    d.generation += 1;
                    self.wake.notify_all();
                }
            }
            0x43 => {
                let i = (v >> 6) as usize;
                if i < 3 {
                    let now = count(&d.pit[i]);
                    let c = &mut d.pit[i];
                    if v >> 4 & 3 == 0 {
                        c.latch = Some(now);
                    } else {
                        c.rw = v >> 4 & 3;
                        c.mode = v >> 1 & 7;
                        if c.mode > 5 {
                            c.mode -= 4;
                        }
                        c.low = None;
                        c.high_next = false;
                    }
                }
            }
            0x61 => {
                if v & 1 != 0 && d.gate & 1 == 0 {
                    d.pit[2].start = Instant::now();
                }
                d.gate = v & 3;
            }
            0x70 => d.cmos = v & 0x7f,
            0x3f8 if d.lcr & 0x80 == 0 => {
                if !self.quiet {
                    std::io::stdout().write_all(&[v]).ok();
                    std::io::stdout().flush().ok();
                }
                d.line.push(v);
                d.thre = true;
                self.serial_irq(d);
            }
            0x3f9 if d.lcr & 0x80 == 0 => {
                d.ier = v & 0xf;
                d.thre = true;
                self.serial_irq(d);
            }
            0x3fb => d.lcr = v,
            0x3fc => d.mcr = v & 0x1f,
            0x3ff => d.scr = v,
            0x402 => {
                std::io::stderr().write_all(&[v]).ok();
            }
            0x64 if v == 0xfe => self.power_off(),
            0xf4 | 0x604 | 0x501 => self.power_off(),
            _ => {}
        }
    }

    fn power_off(&self) {
        self.off.store(true, Ordering::SeqCst);
        self.kick(Request::EXIT);
    }

    fn in8(&self, d: &mut Devices, p: u16) -> u8 {
        match p {
            0x20 | 0x21 => d.pic[0].read(p),
            0xa0 | 0xa1 => d.pic[1].read(p),
            0x40..=0x42 => {
                let c = &mut d.pit[(p - 0x40) as usize];
                let v = c.latch.unwrap_or_else(|| count(c));
                match c.rw {
                    1 => {
                        c.latch = None;
                        v as u8
                    }
                    2 => {
                        c.latch = None;
                        (v >> 8) as u8
                    }
                    _ => {
                        c.high_next = !c.high_next;
                        if c.high_next {
                            c.latch = Some(v);
                            v as u8
                        } else {
                            c.latch = None;
                            (v >> 8) as u8
                        }
                    }
                }
            }
            0x61 => {
                let c = &d.pit[2];
                let t = ticks(c);
                let out = match c.mode {
                    0 | 1 => t >= c.reload as u64,
                    _ => t % c.reload as u64 * 2 < c.reload as u64,
                };
                d.gate | (out as u8) << 5 | (((self.start.elapsed().as_micros() / 15) & 1) as u8) << 4
            }
            0x71 => match d.cmos {
                0x0a => 0x26,
                0x0b => 2,
                0x0d => 0x80,
                0x0 | 2 | 4 => 0,
                0x06..=0x09 => 1,
                0x34 => ((self.size - (16 << 20)) >> 16) as u8,
                0x35 => ((self.size - (16 << 20)) >> 24) as u8,
                0x30 | 0x17 => 0x00,
                0x31 | 0x18 => 0x3c,
                _ => 0,
            },
            0x3f8 if d.lcr & 0x80 == 0 => 0,
            0x3fa => {
                if d.ier & 2 != 0 && d.thre {
                    d.thre = false;
                    0x02
                } else {
                    1
                }
            }
            0x3fb => d.lcr,
            0x3fd => 0x60,
            0x3fe if d.mcr & 0x10 != 0 => (d.mcr & 0xc) << 4 | (d.mcr & 2) << 3 | (d.mcr & 1) << 5,
            0x3fe => 0xb0,
            0x3ff => d.scr,
            0x3fc => d.mcr,
            0x3f9 if d.lcr & 0x80 == 0 => d.ier,
            0x402 => 0xe9,
            0x64 => 0,
            0x92 => 2,
            _ => 0xff,
        }
    }

    #[allow(unused)]
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&self.d.lock().unwrap().line).into_owned()
    }
}

fn ticks(c: &Counter) -> u64 {
    (c.start.elapsed().as_nanos() as u64) * PIT_HZ / 1_000_000_000
}

fn count(c: &Counter) -> u16 {
    let t = ticks(c);
    match c.mode {
        0 | 1 | 4 | 5 => (c.reload as u64).wrapping_sub(t) as u16,
        _ => (c.reload as u64 - t % c.reload as u64) as u16,
    }
}

impl Bus for Mini {
    fn page(&self, addr: u64, _write: bool) -> Page {
        let rom = self.rom.len() as u64;
        if rom != 0 && (addr >= (1 << 32) - rom && addr < 1 << 32) {
            return Page::Rom(self.rom_at.wrapping_add((addr - ((1 << 32) - rom)) as usize));
        }
        if addr >= self.size || (0xa0000..0xc0000).contains(&addr) {
            return Page::Mmio;
        }
        Page::Ram(self.mem.wrapping_add(addr as usize))
    }
    fn mmio_read(&self, _addr: u64, _size: u8) -> u64 {
        u64::MAX
    }
    fn mmio_write(&self, _: u64, _: u8, _: u64) {}
    fn port_in(&self, port: u16, size: u8) -> u32 {
        self.ios.fetch_add(1, Ordering::Relaxed);
        let mut d = self.d.lock().unwrap();
        if port == 0xcf8 && size == 4 {
            return d.pci;
        }
        if (0xcfc..0xd00).contains(&port) {
            return u32::MAX;
        }
        (0..size as u16).map(|i| (self.in8(&mut d, port + i) as u32) << (8 * i)).fold(0, |a, b| a | b)
    }
    fn port_out(&self, port: u16, size: u8, value: u32) {
        self.ios.fetch_add(1, Ordering::Relaxed);
        let mut d = self.d.lock().unwrap();
        if port == 0xcf8 && size == 4 {
            d.pci = value;
            return;
        }
        for i in 0..size as u16 {
            self.out8(&mut d, port + i, (value >> (8 * i)) as u8);
        }
    }
    fn take_interrupt(&self, _cpu: u32) -> Option<u8> {
        let mut d = self.d.lock().unwrap();
        let n = d.pic[0].pending()?;
        if n == 2 {
            let m = d.pic[1].pending();
            d.pic[0].ack(2);
            return m.map(|m| d.pic[1].ack(m));
        }
        Some(d.pic[0].ack(n))
    }
    fn tsc(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }
    fn msr_read(&self, _cpu: u32, index: u32) -> Option<u64> {
        match index {
            0x1b => Some(0xfee0_0900),
            _ => None,
        }
    }
    fn msr_write(&self, _: u32, index: u32, _: u64) -> bool {
        index == 0x1b
    }
}
