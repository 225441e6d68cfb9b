//! Multiboot kernels (Multiboot Specification 0.6.96).

use std::fs::File;

use super::image::Image;
use super::{elf32, memory};
use crate::firmware::fw_cfg_files::E820Entry;
use crate::machine::Machine;
use crate::{qerr, QResult};

const HEADER_MAGIC: u32 = 0x1bad_b002;
/// EAX at the kernel's entry.
pub const BOOT_MAGIC: u64 = 0x2bad_b002;
/// The header carries load addresses.
const HAS_ADDRESSES: u32 = 1 << 16;

/// Multiboot header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    offset: u32,
    flags: u32,
    /// header, load, load end, bss end, entry.
    addresses: [u32; 5],
}

impl Header {
    /// Searches the first 8 KiB at multiples of four.
    pub fn find(head: &[u8]) -> Option<Self> {
        let w = |at: usize| Some(u32::from_le_bytes(head.get(at..at + 4)?.try_into().ok()?));
        for at in (0..8192.min(head.len().saturating_sub(11))).step_by(4) {
            let (magic, flags, sum) = (w(at)?, w(at + 4)?, w(at + 8)?);
            if magic == HEADER_MAGIC && magic.wrapping_add(flags).wrapping_add(sum) == 0 {
                let mut addresses = [0; 5];
                for (i, a) in addresses.iter_mut().enumerate() {
                    *a = w(at + 12 + 4 * i).unwrap_or(0);
                }
                return Some(Self { offset: at as u32, flags, addresses });
            }
        }
        None
    }
}

/// A module: file, length and its argument string.
pub struct Module {
    file: File,
    len: u64,
    text: String,
}

impl Module {
    /// Parses `file args,file args` (`,,` is a comma).
    pub fn open_list(list: &str) -> QResult<Vec<Self>> {
        let mut out = Vec::new();
        for item in list.replace(",,", "\0").split(',') {
            let text = item.replace('\0', ",");
            let path = text.split(' ').next().unwrap_or("").to_string();
            let fail = |_| qerr!("Failed to open file '{path}'");
            let file = File::open(&path).map_err(fail)?;
            let len = file.metadata().map_err(fail)?.len();
            out.push(Self { file, len, text });
        }
        Ok(out)
    }
}

/// Loads kernel and modules and writes the information structure to `info`; returns the entry point.
pub fn load(
    m: &Machine,
    image: &mut Image,
    modules: &[Module],
    cmdline: &str,
    map: &[E820Entry],
    info: u64,
) -> QResult<u64> {
    let header = image.multiboot.ok_or_else(|| qerr!("invalid kernel header"))?;
    let (entry, end) = if image.setup().starts_with(b"\x7fELF") {
        let e = elf32::load(m, image.file())?;
        (e.entry, e.end)
    } else {
        load_flat(m, image, &header)?
    };
    let mut strings = Strings { base: info + 0x1000, bytes: Vec::new() };
    let mut next = end.next_multiple_of(4096);
    let mut list = Vec::new();
    for module in modules {
        memory::load_file(m, next, &module.file, 0, module.len)?;
        let text = strings.add(&module.text);
        for w in [next as u32, (next + module.len) as u32, text, 0] {
            list.extend(w.to_le_bytes());
        }
        next = (next + module.len).next_multiple_of(4096);
    }
    let full =
        if cmdline.is_empty() { image.name().to_string() } else { format!("{} {cmdline}", image.name()) };
    let cmdline = strings.add(&full);
    let loader = strings.add("qemu");
    write_info(m, info, &list, modules.len() as u32, cmdline, loader, map)?;
    memory::write(m, strings.base, &strings.bytes)?;
    Ok(entry)
}

/// An image that is not ELF: the header says what goes where.
fn load_flat(m: &Machine, image: &Image, h: &Header) -> QResult<(u64, u64)> {
    if h.flags & HAS_ADDRESSES == 0 {
        return Err(qerr!("Error while loading elf kernel"));
    }
    let [header, load, load_end, bss_end, entry] = h.addresses;
    let bad = || qerr!("invalid load_addr address");
    let skip = header.checked_sub(load).ok_or_else(bad)?;
    let start = h.offset.checked_sub(skip).ok_or_else(bad)?;
    let file_len = image.file().metadata().map_err(|_| bad())?.len();
    let len = if load_end == 0 {
        file_len.saturating_sub(start.into())
    } else {
        u64::from(load_end.checked_sub(load).ok_or_else(|| qerr!("invalid load_end_addr address"))?)
    };
    if u64::from(start) + len > file_len {
        return Err(qerr!("fread() failed"));
    }
    memory::load_file(m, load.into(), image.file(), start.into(), len)?;
    let mut end = u64::from(load) + len;
    if u64::from(bss_end) > end {
        let n = u64::from(bss_end) - end;
        if m.flat().mem.host_ptr(end, n, true).is_none() {
            return Err(qerr!("invalid bss_end_addr address"));
        }
        memory::write(m, end, &vec![0; n as usize])?;
        end = bss_end.into();
    }
    Ok((entry.into(), end))
}

struct Strings {
    base: u64,
    bytes: Vec<u8>,
}

impl Strings {
    fn add(&mut self, s: &str) -> u32 {
        let at = self.base + self.bytes.len() as u64;
        self.bytes.extend(s.as_bytes());
        self.bytes.push(0);
        at as u32
    }
}

fn write_info(
    m: &Machine,
    at: u64,
    modules: &[u8],
    module_count: u32,
    cmdline: u32,
    loader: u32,
    map: &[E820Entry],
) -> QResult<()> {
    const FLAGS: u32 = 1 | 2 | 4 | 8 | 0x40 | 0x200;
    const BOOT_DEVICE: u32 = 0x8000_ffff;
    const LEN: u64 = 0x78;
    let (mods_at, map_at) = (at + LEN, at + LEN + modules.len() as u64);
    let mut mmap = Vec::new();
    for e in map {
        mmap.extend(20u32.to_le_bytes());
        mmap.extend(e.base.to_le_bytes());
        mmap.extend(e.len.to_le_bytes());
        mmap.extend(e.kind.to_le_bytes());
    }
    let upper = map.iter().find(|e| e.base == 0x10_0000 && e.kind == 1).map_or(0, |e| (e.len / 1024) as u32);
    let mut info = vec![0u8; LEN as usize];
    let mut put = |i: usize, v: u32| info[i..i + 4].copy_from_slice(&v.to_le_bytes());
    put(0, FLAGS);
    put(4, 640);
    put(8, upper);
    put(12, BOOT_DEVICE);
    put(16, cmdline);
    put(20, module_count);
    put(24, mods_at as u32);
    put(44, mmap.len() as u32);
    put(48, map_at as u32);
    put(64, loader);
    memory::write(m, at, &info)?;
    memory::write(m, mods_at, modules)?;
    memory::write(m, map_at, &mmap)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_search() {
        let mut h = vec![0u8; 256];
        for (i, w) in [HEADER_MAGIC, 3, 0u32.wrapping_sub(HEADER_MAGIC + 3)].iter().enumerate() {
            h[64 + 4 * i..68 + 4 * i].copy_from_slice(&w.to_le_bytes());
        }
        assert_eq!(Header::find(&h).map(|h| (h.offset, h.flags)), Some((64, 3)));
        h[72] ^= 1;
        assert_eq!(Header::find(&h), None);
        assert_eq!(Header::find(&[]), None);
    }

    #[test]
    fn module_lists() {
        let dir = tempfile::tempdir().unwrap();
        let p = dir.path().join("a,b");
        std::fs::write(&p, b"xy").unwrap();
        let arg = format!("{} x=1", p.to_str().unwrap().replace(',', ",,"));
        let l = Module::open_list(&arg).unwrap();
        assert_eq!((l.len(), l[0].len), (1, 2));
        assert!(l[0].text.ends_with("a,b x=1"));
        assert!(Module::open_list("/nonexistent").is_err());
    }
}
