//! The file format: the System V ABI's core files, Linux's `prstatus`, and the note that QEMU adds for each CPU.

use rqemu_machine::cpu::{CpuRegs, SegmentReg};
use std::io::{self, Write};

/// A stretch of memory in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// Physical address.
    pub physical: u64,
    /// Address that the file gives it.
    pub address: u64,
    /// Bytes.
    pub size: u64,
}

/// The parts of `segments` inside the window (start, length) of physical addresses.
pub(super) fn clip(segments: &[Segment], (start, length): (u64, u64)) -> Vec<Segment> {
    let window = Segment { physical: start, address: start, size: length };
    segments.iter().filter_map(|s| common(s, &window)).collect()
}

/// The parts of `pages` that are memory, by physical address.
pub(super) fn intersect(pages: &[Segment], memory: &[Segment]) -> Vec<Segment> {
    let parts = pages.iter().flat_map(|p| memory.iter().filter_map(|m| common(p, m)));
    let mut list: Vec<Segment> = parts.collect();
    list.sort_by_key(|s| (s.physical, s.address));
    list.dedup();
    list
}

/// What of `a` lies in `b`.
fn common(a: &Segment, b: &Segment) -> Option<Segment> {
    let start = a.physical.max(b.physical);
    let end = a.physical.saturating_add(a.size).min(b.physical.saturating_add(b.size));
    (start < end).then(|| Segment {
        physical: start,
        address: a.address + (start - a.physical),
        size: end - start,
    })
}

/// Program headers that the 16-bit count can say; more are counted in a section header.
const PN_XNUM: usize = 0xffff;
const EM_386: u16 = 3;
const EM_X86_64: u16 = 62;
const NAMES: &[u8] = b"\0.shstrtab\0";

/// Words of a file, in one of the two classes.
struct Out {
    data: Vec<u8>,
    wide: bool,
}

impl Out {
    fn u16(&mut self, v: u16) {
        self.data.extend(v.to_le_bytes());
    }
    fn u32(&mut self, v: u32) {
        self.data.extend(v.to_le_bytes());
    }
    fn u64(&mut self, v: u64) {
        self.data.extend(v.to_le_bytes());
    }
    /// An address or offset.
    fn word(&mut self, v: u64) {
        match self.wide {
            true => self.u64(v),
            false => self.u32(v as u32),
        }
    }
    fn zeroes(&mut self, n: usize) {
        self.data.resize(self.data.len() + n, 0);
    }
}

/// A core file to be written.
pub(super) struct Core {
    /// What the program headers name; parts of `memory`.
    segments: Vec<Segment>,
    /// What the file holds.
    memory: Vec<Segment>,
    notes: Vec<u8>,
    wide: bool,
    machine: u16,
}

impl Core {
    /// A file with the state of `cpus` and all of `memory`, which program headers name by `segments` of it.
    pub fn new(cpus: &[CpuRegs], segments: Vec<Segment>, memory: Vec<Segment>) -> Self {
        // The first CPU decides, as it does for a debugger.
        let long = cpus.first().is_some_and(|c| c.efer & 0x400 != 0);
        let high = memory.iter().any(|s| s.physical + s.size > u64::from(u32::MAX));
        let mut notes = Vec::new();
        for (i, cpu) in (1..).zip(cpus) {
            let status = if long { status64(cpu, i) } else { status32(cpu, i) };
            note(&mut notes, b"CORE\0", 1, &status);
        }
        for cpu in cpus {
            note(&mut notes, b"QEMU\0", 0, &state(cpu));
        }
        let machine = if long { EM_X86_64 } else { EM_386 };
        Self { segments, memory, notes, wide: long || high, machine }
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> u64 {
        self.memory.iter().map(|s| s.size).sum()
    }

    /// How far behind the notes an address is in the file.
    fn offset(&self, physical: u64) -> u64 {
        let mut at = 0;
        for m in &self.memory {
            if (m.physical..m.physical + m.size).contains(&physical) {
                return at + (physical - m.physical);
            }
            at += m.size;
        }
        at
    }

    /// Sizes of the file header, a section header and a program header.
    fn sizes(&self) -> (u64, u64, u64) {
        match self.wide {
            true => (64, 64, 56),
            false => (52, 40, 32),
        }
    }

    /// Everything before the notes.
    fn headers(&self) -> Vec<u8> {
        let (file, section, program) = self.sizes();
        let count = self.segments.len() + 1;
        let table = file + 2 * section;
        let notes_at = table + program * count as u64;
        let memory_at = notes_at + self.notes.len() as u64;
        let mut o = Out { data: Vec::new(), wide: self.wide };
        o.data.extend(b"\x7fELF");
        o.data.extend([if self.wide { 2 } else { 1 }, 1, 1]);
        o.zeroes(9);
        o.u16(4); // ET_CORE
        o.u16(self.machine);
        o.u32(1);
        o.word(0);
        o.word(table);
        o.word(file);
        o.u32(0);
        o.u16(file as u16);
        o.u16(program as u16);
        o.u16(count.min(PN_XNUM) as u16);
        o.u16(section as u16);
        o.u16(2);
        o.u16(1);
        // Sections: the empty one, which holds a large count of program headers, and the names.
        let extra = if count >= PN_XNUM { count as u32 } else { 0 };
        section_header(&mut o, [0, 0], 0, 0, extra);
        section_header(&mut o, [1, 3], memory_at + self.bytes(), NAMES.len() as u64, 0);
        program_header(&mut o, 4, notes_at, 0, 0, self.notes.len() as u64);
        for s in &self.segments {
            program_header(&mut o, 1, memory_at + self.offset(s.physical), s.address, s.physical, s.size);
        }
        o.data
    }

    /// Writes the file from front to back; `read` fetches physical memory.
    pub fn write(&self, out: &mut dyn Write, read: &mut dyn FnMut(u64, &mut [u8])) -> io::Result<()> {
        out.write_all(&self.headers())?;
        out.write_all(&self.notes)?;
        let mut buf = vec![0; 1 << 20];
        for s in &self.memory {
            let mut done = 0;
            while done < s.size {
                let part = &mut buf[..(s.size - done).min(1 << 20) as usize];
                read(s.physical + done, part);
                out.write_all(part)?;
                done += part.len() as u64;
            }
        }
        out.write_all(NAMES)
    }
}

fn section_header(o: &mut Out, [name, kind]: [u32; 2], at: u64, size: u64, info: u32) {
    o.u32(name);
    o.u32(kind);
    o.word(0);
    o.word(0);
    o.word(at);
    o.word(size);
    o.u32(0);
    o.u32(info);
    o.word(0);
    o.word(0);
}

fn program_header(o: &mut Out, kind: u32, at: u64, address: u64, physical: u64, size: u64) {
    o.u32(kind);
    if o.wide {
        o.u32(0);
    }
    for v in [at, address, physical, size, size] {
        o.word(v);
    }
    if !o.wide {
        o.u32(0);
    }
    o.word(0);
}

/// Appends a note; name and content are padded to four bytes.
fn note(out: &mut Vec<u8>, name: &[u8], kind: u32, content: &[u8]) {
    for v in [name.len() as u32, content.len() as u32, kind] {
        out.extend(v.to_le_bytes());
    }
    for part in [name, content] {
        out.extend_from_slice(part);
        out.resize(out.len().next_multiple_of(4), 0);
    }
}

// Places in `CpuRegs::gpr` and `CpuRegs::segments`.
const RAX: usize = 0;
const RCX: usize = 1;
const RDX: usize = 2;
const RBX: usize = 3;
const RSI: usize = 4;
const RDI: usize = 5;
const RBP: usize = 6;
const RSP: usize = 7;
const ES: usize = 0;
const CS: usize = 1;
const SS: usize = 2;
const DS: usize = 3;
const FS: usize = 4;
const GS: usize = 5;
const LDT: usize = 6;
const TR: usize = 7;

/// `struct elf_prstatus` of 64-bit Linux, with the CPU's number (from 1) as the process id.
fn status64(c: &CpuRegs, id: u32) -> Vec<u8> {
    let mut o = Out { data: vec![0; 32], wide: true };
    o.u32(id);
    o.zeroes(112 - 36);
    for i in [15, 14, 13, 12, RBP, RBX, 11, 10, 9, 8, RAX, RCX, RDX, RSI, RDI] {
        o.u64(c.gpr[i]);
    }
    o.u64(0);
    o.u64(c.rip);
    o.u64(c.segments[CS].selector.into());
    o.u64(c.rflags);
    o.u64(c.gpr[RSP]);
    o.u64(c.segments[SS].selector.into());
    o.u64(c.segments[FS].base);
    o.u64(c.segments[GS].base);
    for s in [DS, ES, FS, GS] {
        o.u64(c.segments[s].selector.into());
    }
    o.u64(0);
    o.data
}

/// The same of 32-bit Linux.
fn status32(c: &CpuRegs, id: u32) -> Vec<u8> {
    let mut o = Out { data: vec![0; 24], wide: false };
    o.u32(id);
    o.zeroes(72 - 28);
    for i in [RBX, RCX, RDX, RSI, RDI, RBP, RAX] {
        o.u32(c.gpr[i] as u32);
    }
    for s in [DS, ES, FS, GS] {
        o.u32(c.segments[s].selector.into());
    }
    o.u32(0);
    o.u32(c.rip as u32);
    o.u32(c.segments[CS].selector.into());
    o.u32(c.rflags as u32);
    o.u32(c.gpr[RSP] as u32);
    o.u32(c.segments[SS].selector.into());
    o.u32(0);
    o.data
}

/// QEMU's own note, version 1.
fn state(c: &CpuRegs) -> Vec<u8> {
    const SIZE: u32 = 440;
    let mut o = Out { data: Vec::with_capacity(SIZE as usize), wide: true };
    o.u32(1);
    o.u32(SIZE);
    for i in [RAX, RBX, RCX, RDX, RSI, RDI, RSP, RBP, 8, 9, 10, 11, 12, 13, 14, 15] {
        o.u64(c.gpr[i]);
    }
    o.u64(c.rip);
    o.u64(c.rflags);
    let table = |(base, limit): (u64, u16)| SegmentReg { base, limit: limit.into(), selector: 0, flags: 0 };
    let s = &c.segments;
    for seg in [s[CS], s[DS], s[ES], s[FS], s[GS], s[SS], s[LDT], s[TR], table(c.gdt), table(c.idt)] {
        o.u32(seg.selector.into());
        o.u32(seg.limit);
        o.u32(seg.flags);
        o.u32(0);
        o.u64(seg.base);
    }
    // CR0 to CR4; there is no CR1.
    for v in [c.cr[0], 0, c.cr[1], c.cr[2], c.cr[3]] {
        o.u64(v);
    }
    // The inactive base of GS is not known here.
    o.u64(0);
    o.data
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_have_their_sizes() {
        let c = CpuRegs::default();
        assert_eq!((status64(&c, 1).len(), status32(&c, 1).len(), state(&c).len()), (336, 144, 440));
        let mut n = Vec::new();
        note(&mut n, b"CORE\0", 1, &[1, 2, 3]);
        assert_eq!(n, *b"\x05\0\0\0\x03\0\0\0\x01\0\0\0CORE\0\0\0\0\x01\x02\x03\0");
    }

    #[test]
    fn layout() {
        let seg = |physical, size| Segment { physical, address: physical, size };
        let memory = vec![seg(0, 3), seg(0x1000, 2)];
        let core = Core::new(&[CpuRegs::default()], memory.clone(), memory);
        let mut file = Vec::new();
        core.write(&mut file, &mut |addr, buf| buf.fill(if addr == 0 { b'a' } else { b'b' })).unwrap();
        assert!(!core.wide);
        let notes = (12 + 8 + 144) + (12 + 8 + 440);
        assert_eq!(file.len(), 52 + 2 * 40 + 3 * 32 + notes + 5 + NAMES.len());
        assert!(file.ends_with(b"aaabb\0.shstrtab\0"));
        // Offsets of the program headers point where the parts are.
        let word = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap()) as usize;
        let first = word(28);
        let (note, one, two) = (word(first + 4), word(first + 36), word(first + 68));
        assert_eq!(&file[note + 12..note + 16], b"CORE");
        assert_eq!((&file[one..one + 3], &file[two..two + 2]), (&b"aaa"[..], &b"bb"[..]));
        assert_eq!(word(first + 68 + 4), 0x1000);
    }

    #[test]
    fn windows_and_pages() {
        let seg = |physical, address, size| Segment { physical, address, size };
        let memory = [seg(0, 0, 0x1000), seg(0x3000, 0x3000, 0x1000)];
        assert_eq!(clip(&memory, (0x800, 0x2c00)), [seg(0x800, 0x800, 0x800), seg(0x3000, 0x3000, 0x400)]);
        assert!(clip(&memory, (0x1000, 0x2000)).is_empty());
        let pages = [seg(0x3000, 0x8000, 0x1000), seg(0, 0xf000, 0x2000), seg(0, 0xf000, 0x2000)];
        assert_eq!(intersect(&pages, &memory), [seg(0, 0xf000, 0x1000), seg(0x3000, 0x8000, 0x1000)]);
    }
}
