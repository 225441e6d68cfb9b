//! A bare KVM program: memory, one processor, the run loop, nothing else. It runs the exit guest by its PVH entry; what
//! it takes per exit is KVM's part.

use crate::guests::images;
use crate::Res;
use kvm_bindings::{kvm_segment, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuExit};

const MEMORY: usize = 64 << 20;
/// Where the guest is linked.
const BASE: usize = 1 << 20;
/// hvm_start_info and the command line.
const INFO: usize = 0x1000;

/// Exits in a run.
pub const EXITS: u64 = 20_000;

/// Time stamp counter ticks per exit of `op` in the best stretch.
pub fn exit_ticks(op: &str) -> Res<f64> {
    let runs: Vec<f64> = (0..5).map(|_| run(op, EXITS)).collect::<Res<_>>()?;
    Ok(runs.into_iter().fold(f64::INFINITY, f64::min))
}

struct Memory(*mut u8);

impl Memory {
    fn new() -> Res<Memory> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a fresh anonymous mapping; the kernel chooses the address.
        let p = unsafe {
            libc::mmap(std::ptr::null_mut(), MEMORY, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0)
        };
        if p == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error().to_string());
        }
        Ok(Memory(p.cast()))
    }

    fn put(&self, at: usize, data: &[u8]) {
        assert!(at + data.len() <= MEMORY);
        // SAFETY: the range was just checked to lie inside the mapping; no processor runs yet.
        unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), self.0.add(at), data.len()) };
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`, unmapped once.
        unsafe { libc::munmap(self.0.cast(), MEMORY) };
    }
}

/// Ticks per exit of one run, as the guest measures them.
fn run(op: &str, count: u64) -> Res<f64> {
    let text = |e: kvm_ioctls::Error| format!("KVM: {e}");
    let memory = Memory::new()?;
    let kvm = Kvm::new().map_err(text)?;
    let vm = kvm.create_vm().map_err(text)?;
    let region = kvm_userspace_memory_region {
        slot: 0,
        guest_phys_addr: 0,
        memory_size: MEMORY as u64,
        userspace_addr: memory.0 as u64,
        flags: 0,
    };
    // SAFETY: the mapping is as large as said and outlives the VM (dropped after it, declared before).
    unsafe { vm.set_user_memory_region(region) }.map_err(text)?;
    let image = images()?.pvh.with_file_name("guest.bin");
    memory.put(BASE, &std::fs::read(&image).map_err(|e| format!("{}: {e}", image.display()))?);
    let mut info = [0u8; 56];
    info[0..4].copy_from_slice(&0x336e_c578u32.to_le_bytes());
    info[24..32].copy_from_slice(&(INFO as u64 + 64).to_le_bytes());
    memory.put(INFO, &info);
    memory.put(INFO + 64, format!("prog=exits op={op} count={count}\0").as_bytes());

    let mut cpu = vm.create_vcpu(0).map_err(text)?;
    // Without CPUID there is no long mode.
    let cpuid = kvm.get_supported_cpuid(kvm_bindings::KVM_MAX_CPUID_ENTRIES).map_err(text)?;
    cpu.set_cpuid2(&cpuid).map_err(text)?;
    let mut s = cpu.get_sregs().map_err(text)?;
    let flat = kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector: 0x10,
        type_: 3,
        present: 1,
        db: 1,
        s: 1,
        g: 1,
        ..Default::default()
    };
    s.cs = kvm_segment { selector: 8, type_: 11, ..flat };
    (s.ds, s.es, s.fs, s.gs, s.ss) = (flat, flat, flat, flat, flat);
    s.cr0 |= 1;
    cpu.set_sregs(&s).map_err(text)?;
    let mut r = cpu.get_regs().map_err(text)?;
    (r.rip, r.rbx, r.rflags) = (BASE as u64 + 0x80, INFO as u64, 2);
    cpu.set_regs(&r).map_err(text)?;

    let mut printed = Vec::new();
    loop {
        match cpu.run().map_err(text)? {
            VcpuExit::IoOut(0xf4, _) => break,
            VcpuExit::IoOut(0x3f8, data) => printed.extend_from_slice(data),
            VcpuExit::IoIn(0x3fd, data) => data.fill(0x20),
            VcpuExit::IoIn(_, data) | VcpuExit::MmioRead(_, data) => data.fill(0),
            VcpuExit::IoOut(..) | VcpuExit::MmioWrite(..) => {}
            e => return Err(format!("unexpected exit {e:?}")),
        }
    }
    let printed = String::from_utf8_lossy(&printed);
    super::best_of(&printed, "exits ").ok_or_else(|| format!("the guest printed {printed:?}"))
}
