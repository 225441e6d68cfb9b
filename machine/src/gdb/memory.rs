//! The guest's memory as gdb sees it: through a vCPU's page tables, ROM writable.

use crate::machine::Machine;
use crate::memory::Space;

const PAGE: u64 = 4096;

/// Calls `f(machine, physical address, range of the buffer)` for each piece within a page; `false` if one is not mapped or
/// `f` fails.
fn pieces(
    m: &mut Machine,
    cpu: usize,
    physical: bool,
    addr: u64,
    len: usize,
    mut f: impl FnMut(&mut Machine, u64, std::ops::Range<usize>) -> bool,
) -> bool {
    let mut pos = 0;
    while pos < len {
        let at = addr.wrapping_add(pos as u64);
        let n = ((PAGE - at % PAGE) as usize).min(len - pos);
        let gpa = if physical { Some(at) } else { m.accel.translate(cpu, at) };
        let Some(gpa) = gpa else { return false };
        if !f(m, gpa, pos..pos + n) {
            return false;
        }
        pos += n;
    }
    true
}

/// Reads; what is no memory is read as the processor would.
pub fn read(m: &mut Machine, cpu: usize, physical: bool, addr: u64, buf: &mut [u8]) -> bool {
    let len = buf.len();
    pieces(m, cpu, physical, addr, len, |m, gpa, range| {
        let part = &mut buf[range];
        if m.flat().mem.read(gpa, part).is_err() {
            m.bus_read(Space::Memory, gpa, part);
        }
        true
    })
}

/// Writes, into ROM too; what is no memory is written as the processor would.
pub fn write(m: &mut Machine, cpu: usize, physical: bool, addr: u64, data: &[u8]) -> bool {
    pieces(m, cpu, physical, addr, data.len(), |m, gpa, range| {
        let part = &data[range];
        if m.flat().mem.write_rom(gpa, part).is_err() {
            m.bus_write(Space::Memory, gpa, part);
        }
        true
    })
}
