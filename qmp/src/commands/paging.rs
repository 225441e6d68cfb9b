//! Virtual addresses of a CPU, translated by its page tables (Intel SDM volume 3, chapter 4).

use super::memory::{read_physical, read_ram};
use crate::monitors::MonitorCx;
use rqemu_machine::cpu::CpuRegs;

const PRESENT: u64 = 1;
const LARGE: u64 = 1 << 7;
/// Bits of an entry of the wide formats that are the address.
const FRAME: u64 = 0x000F_FFFF_FFFF_F000;

/// No page is mapped there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotMapped;

fn entry(cx: &MonitorCx<'_, '_>, addr: u64, wide: bool) -> u64 {
    let mut buf = [0; 8];
    let n = if wide { 8 } else { 4 };
    read_ram(cx, addr, &mut buf[..n]);
    u64::from_le_bytes(buf)
}

/// Physical address of `addr`.
pub(crate) fn translate(cx: &MonitorCx<'_, '_>, regs: &CpuRegs, addr: u64) -> Result<u64, NotMapped> {
    let (cr0, cr3, cr4) = (regs.cr[0], regs.cr[3], regs.cr[4]);
    if cr0 >> 31 & 1 == 0 {
        return Ok(addr);
    }
    let long = regs.efer & 0x400 != 0;
    if !long && cr4 >> 5 & 1 == 0 {
        return two_level(cx, cr3, cr4 >> 4 & 1 != 0, addr as u32);
    }
    let (mut table, mut level) = match (long, cr4 >> 12 & 1 != 0) {
        (true, true) => (cr3 & FRAME, 5),
        (true, false) => (cr3 & FRAME, 4),
        (false, _) => (cr3 & 0xFFFF_FFE0, 3),
    };
    let addr = if long { addr } else { addr & 0xFFFF_FFFF };
    loop {
        let shift = 12 + 9 * (level - 1);
        let e = entry(cx, table + (addr >> shift & 0x1FF) * 8, true);
        if e & PRESENT == 0 {
            return Err(NotMapped);
        }
        if level == 1 || (e & LARGE != 0 && level <= 3 && (long || level == 2)) {
            let mask = (1u64 << shift) - 1;
            return Ok(e & FRAME & !mask | addr & mask);
        }
        table = e & FRAME;
        level -= 1;
    }
}

/// 32-bit paging without PAE.
fn two_level(cx: &MonitorCx<'_, '_>, cr3: u64, pse: bool, addr: u32) -> Result<u64, NotMapped> {
    let addr = u64::from(addr);
    let pde = entry(cx, (cr3 & 0xFFFF_F000) + (addr >> 22) * 4, false);
    if pde & PRESENT == 0 {
        return Err(NotMapped);
    }
    if pse && pde & LARGE != 0 {
        // Bits 20:13 are bits 39:32 of the address.
        return Ok((pde & 0xFFC0_0000) | (pde & 0x1F_E000) << 19 | addr & 0x3F_FFFF);
    }
    let pte = entry(cx, (pde & 0xFFFF_F000) + (addr >> 12 & 0x3FF) * 4, false);
    if pte & PRESENT == 0 {
        return Err(NotMapped);
    }
    Ok(pte & 0xFFFF_F000 | addr & 0xFFF)
}

/// Reads memory by virtual address.
pub(crate) fn read_virtual(
    cx: &mut MonitorCx<'_, '_>,
    regs: &CpuRegs,
    mut addr: u64,
    mut buf: &mut [u8],
) -> Result<(), NotMapped> {
    while !buf.is_empty() {
        let n = buf.len().min((4096 - addr % 4096) as usize);
        let (part, rest) = buf.split_at_mut(n);
        let at = translate(cx, regs, addr)?;
        read_physical(cx, at, part);
        buf = rest;
        addr = addr.wrapping_add(n as u64);
    }
    Ok(())
}
