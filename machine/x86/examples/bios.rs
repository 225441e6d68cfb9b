//! Runs a firmware image from the reset vector; port 0x402 goes to standard error.
//! `cargo run --release -p rqemu-x86 --example bios -- bios.bin [seconds]`

mod mini;

use std::sync::Arc;
use std::time::Duration;

use mini::Mini;
use rqemu_x86::{CodeMap, Cpu, Exit, Model, Request};

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let image = std::fs::read(&args[1]).expect("firmware image");
    let seconds = args.get(2).and_then(|s| s.parse().ok()).unwrap_or(5);
    let low = image[image.len().saturating_sub(128 << 10)..].to_vec();
    let m = Arc::new(Mini::new(128 << 20, image));
    m.write(0x100000 - low.len() as u64, &low);
    let mut cpu = Cpu::new(0, Model::qemu64(), Arc::new(CodeMap::default()));
    *m.ctl.lock().unwrap() = Some(cpu.control());
    if std::env::var_os("TRACE").is_some() {
        cpu.on_event = Some(|c, e| {
            eprintln!(
                "event {:#x} {:x?} at {:#x}:{:#x} cr0={:#x} {:02x?}",
                e.vector,
                e.error,
                c.segs[1].sel,
                c.rip,
                c.cr0,
                c.code_bytes()
            );
        });
    }
    let t = m.clone();
    std::thread::spawn(move || t.timer());
    let ctl = cpu.control();
    let t = m.clone();
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(seconds));
        t.off.store(true, std::sync::atomic::Ordering::SeqCst);
        ctl.request(Request::EXIT);
    });
    loop {
        match cpu.run(&*m) {
            Exit::Hlt => m.wait(),
            Exit::Interrupted | Exit::Leave | Exit::Debug => {}
            Exit::Shutdown => {
                eprintln!("triple fault at {:#x}: {:?}", cpu.rip, cpu.exc);
                break;
            }
        }
        if m.off.load(std::sync::atomic::Ordering::SeqCst) {
            break;
        }
    }
    eprintln!(
        "\n{} instructions, cs:ip {:#x}:{:#x} cr0 {:#x}",
        cpu.icount, cpu.segs[1].sel, cpu.rip, cpu.cr0
    );
}
