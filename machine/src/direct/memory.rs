//! Guest memory as a boot loader fills it.

use std::fs::File;
use std::os::unix::fs::FileExt;

use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{GuestAddress, GuestMemoryMmap, GuestRegionMmap};

use crate::boards::RamLayout;
use crate::machine::Machine;
use crate::memory::RamBlock;
use crate::{qerr, QResult};

/// Limit of the table that [`gdt`] makes.
pub const GDT_LIMIT: u16 = 0x1f;

/// Flat 32-bit code at 0x10 (64-bit capable entries use the hidden parts) and data at 0x18.
pub fn gdt() -> [u8; 32] {
    let mut t = [0u8; 32];
    for (at, d) in [(0x10, 0x00cf_9b00_0000_ffffu64), (0x18, 0x00cf_9300_0000_ffff)] {
        t[at..at + 8].copy_from_slice(&d.to_le_bytes());
    }
    t
}

/// Writes bytes.
pub fn write(m: &Machine, gpa: u64, data: &[u8]) -> QResult<()> {
    m.flat().mem.write(gpa, data).map_err(|e| qerr!("kernel does not fit into guest memory: {e}"))
}

/// Writes a string with its terminating zero.
pub fn write_cstring(m: &Machine, gpa: u64, text: &str) -> QResult<()> {
    let mut b = text.as_bytes().to_vec();
    b.push(0);
    write(m, gpa, &b)
}

/// Reads part of a file straight into guest memory.
pub fn load_file(m: &Machine, gpa: u64, file: &File, offset: u64, len: u64) -> QResult<()> {
    if len == 0 {
        return Ok(());
    }
    let fail = |e: std::io::Error| qerr!("cannot read file: {}", crate::error::strerror(&e));
    match m.flat().mem.host_ptr(gpa, len, true) {
        Some(p) => {
            // SAFETY: `host_ptr` checked that `len` writable bytes of a RAM block lie there; no CPU runs yet.
            let buf = unsafe { std::slice::from_raw_parts_mut(p, len as usize) };
            file.read_exact_at(buf, offset).map_err(fail)
        }
        None => Err(qerr!("file of {len} bytes does not fit into guest memory at {gpa:#x}")),
    }
}

/// Page tables for 64-bit mode that map the first 4 GiB to themselves with 2 MiB pages; `at` is the top table.
pub fn identity_map(m: &Machine, at: u64) -> QResult<()> {
    const PRESENT_WRITE: u64 = 3;
    const LARGE: u64 = 0x80;
    write(m, at, &((at + 0x1000) | PRESENT_WRITE).to_le_bytes())?;
    for i in 0..4u64 {
        write(m, at + 0x1000 + 8 * i, &((at + 0x2000 + 0x1000 * i) | PRESENT_WRITE).to_le_bytes())?;
    }
    let entries: Vec<u8> =
        (0..2048u64).flat_map(|i| (i << 21 | PRESENT_WRITE | LARGE).to_le_bytes()).collect();
    write(m, at + 0x2000, &entries)
}

/// RAM as the loader crate sees it. The value borrows the RAM block's mapping and must not outlive the machine.
pub fn guest_memory(m: &Machine, layout: &RamLayout) -> QResult<GuestMemoryMmap<()>> {
    if m.main_ram.is_empty() {
        return Err(qerr!("machine has no RAM"));
    }
    let mut regions = Vec::new();
    let mut start = 0;
    for ram in &m.main_ram {
        for (gpa, first, len) in
            [(0, 0, layout.below_4g), (layout.above_4g_start, layout.below_4g, layout.above_4g)]
        {
            // The part of this block that lies in this part of the layout, as RAM offsets.
            let (from, to) = (start.max(first), (start + ram.len()).min(first + len));
            if from < to {
                regions.push(region(ram, from - start, to - from, gpa + from - first)?);
            }
        }
        start += ram.len();
    }
    GuestMemoryMmap::from_regions(regions).map_err(|e| qerr!("cannot describe guest memory: {e}"))
}

fn region(ram: &RamBlock, offset: u64, len: u64, gpa: u64) -> QResult<GuestRegionMmap<()>> {
    // SAFETY: the range lies within the block, whose mapping the machine keeps for its whole life; the region built
    // here does not own it.
    let map = unsafe {
        MmapRegionBuilder::new(len as usize)
            .with_raw_mmap_pointer(ram.host().add(offset as usize))
            .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
            .with_mmap_flags(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE)
            .build()
    };
    let map = map.map_err(|e| qerr!("cannot describe guest memory: {e}"))?;
    GuestRegionMmap::new(map, GuestAddress(gpa)).ok_or_else(|| qerr!("cannot describe guest memory"))
}
