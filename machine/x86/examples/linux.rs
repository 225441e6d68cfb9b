//! Boots a bzImage by its 64-bit entry point on the smallest machine, serial port on standard output.
//! `cargo run --release -p rqemu-x86 --example linux -- bzImage [initrd] [command line]`

mod mini;

use std::sync::Arc;
use std::time::Instant;

use mini::Mini;
use rqemu_x86::state::{gpr, sreg, Segment};
use rqemu_x86::{CodeMap, Cpu, Exit, Model};

const RAM: u64 = 512 << 20;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let image = std::fs::read(&args[1]).expect("bzImage");
    let initrd = args.get(2).filter(|a| !a.is_empty()).map(|a| std::fs::read(a).expect("initrd"));
    let cmdline = args.get(3).cloned().unwrap_or_else(|| {
        "console=ttyS0 earlyprintk=serial,ttyS0 nolapic noapic acpi=off pci=off reboot=k panic=-1".into()
    });
    let m = Arc::new(Mini::new(RAM, Vec::new()));
    load(&m, &image, initrd.as_deref(), &cmdline);
    let mut cpu = Cpu::new(0, Model::qemu64(), Arc::new(CodeMap::default()));
    *m.ctl.lock().unwrap() = Some(cpu.control());
    long_mode(&m, &mut cpu);
    if std::env::var_os("TRACE").is_some() {
        cpu.on_event = Some(|c, e| {
            eprintln!(
                "event {:#x} {:x?} at {:#x} cr2={:#x} cpl={} rsp={:#x}",
                e.vector, e.error, c.rip, c.cr2, c.cpl, c.regs[4]
            );
            if e.vector == 6 {
                eprintln!("{:02x?}", c.code_bytes());
            }
        });
    }
    let t = m.clone();
    std::thread::spawn(move || t.timer());
    let start = Instant::now();
    loop {
        match cpu.run(&*m) {
            Exit::Hlt => m.wait(),
            Exit::Interrupted if m.off.load(std::sync::atomic::Ordering::SeqCst) => break,
            Exit::Interrupted | Exit::Leave | Exit::Debug => {}
            Exit::Shutdown => {
                eprintln!("triple fault at {:#x}: {:?} cr2={:#x}", cpu.rip, cpu.exc, cpu.cr2);
                break;
            }
        }
    }
    // SAFETY: plain numbers, for which zero is a value.
    let mut ru: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: fills the structure that the pointer names.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &mut ru) };
    let user = ru.ru_utime.tv_sec as f64 + ru.ru_utime.tv_usec as f64 / 1e6;
    eprintln!(
        "{:.3} s wall, {:.3} s user, {:.1} M instructions, {} MIPS, {} I/O accesses",
        start.elapsed().as_secs_f64(),
        user,
        cpu.icount as f64 / 1e6,
        (cpu.icount as f64 / 1e6 / user) as u64,
        m.ios.load(std::sync::atomic::Ordering::Relaxed),
    );
}

fn load(m: &Mini, image: &[u8], initrd: Option<&[u8]>, cmdline: &str) {
    let mut zero = vec![0u8; 4096];
    let setup = image[0x1f1] as usize;
    let end = 0x202 + image[0x201] as usize;
    zero[0x1f1..end].copy_from_slice(&image[0x1f1..end]);
    let w32 = |z: &mut Vec<u8>, o: usize, v: u32| z[o..o + 4].copy_from_slice(&v.to_le_bytes());
    zero[0x210] = 0xff;
    zero[0x211] |= 0x01;
    w32(&mut zero, 0x228, 0x20000);
    m.write(0x20000, cmdline.as_bytes());
    m.write(0x20000 + cmdline.len() as u64, &[0]);
    if let Some(i) = initrd {
        let at = (RAM - i.len() as u64 - (1 << 20)) & !0xfff;
        m.write(at, i);
        w32(&mut zero, 0x218, at as u32);
        w32(&mut zero, 0x21c, i.len() as u32);
    }
    for (i, (a, n, t)) in
        [(0u64, 0x9fc00u64, 1u32), (0xf0000, 0x10000, 2), (0x100000, RAM - 0x100000, 1)].iter().enumerate()
    {
        let o = 0x2d0 + 20 * i;
        zero[o..o + 8].copy_from_slice(&a.to_le_bytes());
        zero[o + 8..o + 16].copy_from_slice(&n.to_le_bytes());
        zero[o + 16..o + 20].copy_from_slice(&t.to_le_bytes());
    }
    zero[0x1e8] = 3;
    m.write(0x10000, &zero);
    m.write(0x100_0000, &image[(setup + 1) * 512..]);
}

fn long_mode(m: &Mini, cpu: &mut Cpu) {
    // Identity map of 4 GiB with 2 MiB pages.
    m.write(0x9000, &0xa003u64.to_le_bytes());
    for i in 0..4u64 {
        m.write(0xa000 + 8 * i, &(0xb003 + 0x1000 * i).to_le_bytes());
        for j in 0..512u64 {
            m.write(0xb000 + 0x1000 * i + 8 * j, &(((i << 30) + (j << 21)) | 0x83).to_le_bytes());
        }
    }
    let gdt = [0u64, 0, 0x00af_9a00_0000_ffff, 0x00cf_9200_0000_ffff];
    for (i, g) in gdt.iter().enumerate() {
        m.write(0x8000 + 8 * i as u64, &g.to_le_bytes());
    }
    cpu.gdtr.base = 0x8000;
    cpu.gdtr.limit = 31;
    cpu.cr3 = 0x9000;
    cpu.cr4 = 0x20;
    cpu.cr0 = 0x8000_0011;
    cpu.efer = 0x500;
    cpu.segs = [Segment { sel: 0x18, base: 0, limit: u32::MAX, attr: 0xc093 }; 6];
    cpu.segs[sreg::CS] = Segment { sel: 0x10, base: 0, limit: u32::MAX, attr: 0xa09b };
    cpu.regs[gpr::RSI] = 0x10000;
    cpu.regs[gpr::RSP] = 0x7000;
    cpu.rip = 0x100_0200;
    cpu.update_mode();
    cpu.flush_tlb_all();
}
