//! 32-bit ELF images (multiboot and PVH kernels): program headers only.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::memory;
use crate::machine::Machine;
use crate::{qerr, QResult};

const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
const MAX_NOTE: u32 = 1 << 20;

struct Segment {
    kind: u32,
    offset: u32,
    paddr: u32,
    filesz: u32,
    memsz: u32,
}

/// A loaded image.
pub struct LoadedElf {
    /// Entry point.
    pub entry: u64,
    /// First address behind it.
    pub end: u64,
}

fn bad() -> crate::QError {
    qerr!("Error while loading elf kernel")
}

fn u32_at(b: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(b.get(at..at + 4)?.try_into().ok()?))
}

fn headers(f: &File) -> QResult<(u64, Vec<Segment>)> {
    let mut h = [0u8; 52];
    f.read_exact_at(&mut h, 0).map_err(|_| bad())?;
    if !h.starts_with(b"\x7fELF\x01\x01") {
        return Err(bad());
    }
    let entry = u32_at(&h, 24).ok_or_else(bad)?;
    let phoff = u64::from(u32_at(&h, 28).ok_or_else(bad)?);
    let (size, count) = (u16::from_le_bytes([h[42], h[43]]), u16::from_le_bytes([h[44], h[45]]));
    if size < 32 || count > 128 {
        return Err(bad());
    }
    let mut out = Vec::new();
    for i in 0..u64::from(count) {
        let mut p = [0u8; 32];
        f.read_exact_at(&mut p, phoff + i * u64::from(size)).map_err(|_| bad())?;
        let w = |i: usize| u32_at(&p, i * 4).unwrap_or(0);
        out.push(Segment { kind: w(0), offset: w(1), paddr: w(3), filesz: w(4), memsz: w(5) });
    }
    Ok((u64::from(entry), out))
}

/// Loads all segments to their physical addresses.
pub fn load(m: &Machine, f: &File) -> QResult<LoadedElf> {
    let (entry, segments) = headers(f)?;
    let mut end = 0;
    for s in segments.iter().filter(|s| s.kind == PT_LOAD) {
        let len = s.filesz.min(s.memsz);
        memory::load_file(m, s.paddr.into(), f, s.offset.into(), len.into())?;
        // The rest is zero already after a reset of RAM, but not after a reset of a used machine.
        let mut at = u64::from(s.paddr) + u64::from(len);
        let stop = u64::from(s.paddr) + u64::from(s.memsz);
        while at < stop {
            let n = (stop - at).min(65536);
            memory::write(m, at, &vec![0; n as usize])?;
            at += n;
        }
        end = end.max(stop);
    }
    Ok(LoadedElf { entry, end })
}

/// Entry of the PVH note (name "Xen", type 18), if there is one.
pub fn pvh_entry(f: &File) -> QResult<Option<u64>> {
    let (_, segments) = headers(f)?;
    for s in segments.iter().filter(|s| s.kind == PT_NOTE && s.filesz <= MAX_NOTE) {
        let mut note = vec![0; s.filesz as usize];
        f.read_exact_at(&mut note, s.offset.into()).map_err(|_| bad())?;
        if let Some(e) = find_note(&note) {
            return Ok(Some(e));
        }
    }
    Ok(None)
}

fn find_note(mut n: &[u8]) -> Option<u64> {
    const PHYS32_ENTRY: u32 = 18;
    loop {
        let (name_len, desc_len, kind) = (u32_at(n, 0)? as usize, u32_at(n, 4)? as usize, u32_at(n, 8)?);
        let desc_at = 12 + name_len.next_multiple_of(4);
        if kind == PHYS32_ENTRY && n.get(12..16)? == b"Xen\0" && desc_len >= 4 {
            return Some(u64::from(u32_at(n, desc_at)?));
        }
        n = n.get(desc_at.checked_add(desc_len.next_multiple_of(4))?..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes() {
        let mut n = Vec::new();
        for (name, kind, desc) in [(&b"GNU\0"[..], 3u32, &[9u8; 20][..]), (b"Xen\0", 18, &[0, 0, 0x10, 0])] {
            n.extend((name.len() as u32).to_le_bytes());
            n.extend((desc.len() as u32).to_le_bytes());
            n.extend(kind.to_le_bytes());
            n.extend(name);
            n.extend(desc);
        }
        assert_eq!(find_note(&n), Some(0x10_0000));
        assert_eq!(find_note(&n[..n.len() - 1]), None);
        assert_eq!(find_note(&[0xff; 64]), None);
    }
}
