//! Firmware tables in guest memory for a boot without firmware.
//!
//! Does what firmware does with the `etc/table-loader` stream: places the files, adds up pointers and
//! checksums. The results are (address, bytes) pairs for the board to write before the first CPU runs. The
//! RSDP and the SMBIOS anchor go to the F segment, where a guest searches for them; the rest goes to a window
//! at the top of low RAM, which must then be reserved in the memory map ([`reserve`]).

use super::acpi::loader::{decode, Command, Zone};
use super::fw_cfg_files::{E820Entry, E820_RAM, E820_RESERVED};
use super::smbios::Smbios;

/// A file to be placed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoaderFile {
    /// Name, as commands use it.
    pub name: String,
    /// Contents.
    pub data: Vec<u8>,
}

/// Bytes for guest memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Name of the file.
    pub name: String,
    /// Guest physical address.
    pub gpa: u64,
    /// Contents with addresses and checksums.
    pub data: Vec<u8>,
}

/// What applying a stream gives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Placed files.
    pub placed: Vec<Placed>,
    /// Values to write back to fw_cfg files: name, offset, bytes.
    pub write_back: Vec<(String, u32, Vec<u8>)>,
}

/// Why a stream cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// A command names a file that does not exist or is not placed.
    #[error("no file '{0}' for the table loader")]
    NoFile(String),
    /// A command reaches outside its file.
    #[error("table loader command outside of file '{0}'")]
    OutOfFile(String),
    /// An area is full.
    #[error("no room for firmware file '{0}'")]
    NoRoom(String),
}

/// Ranges to place files in; each is filled from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Areas {
    /// For the F segment zone: next free address and end.
    pub fseg: (u64, u64),
    /// For the high zone.
    pub high: (u64, u64),
}

impl Areas {
    /// F segment from 0xf0000 up, and the top `len` bytes (rounded to pages) of low RAM.
    pub fn top_of_ram(below_4g: u64, len: u64) -> Self {
        let end = below_4g & !0xfff;
        Self { fseg: (0xf_0000, 0x10_0000), high: (end.saturating_sub(len.next_multiple_of(0x1000)), end) }
    }

    /// Takes `len` bytes from a zone.
    pub fn take(&mut self, zone: Zone, align: u64, len: u64) -> Option<u64> {
        let area = match zone {
            Zone::High => &mut self.high,
            Zone::FSegment => &mut self.fseg,
        };
        let at = area.0.checked_next_multiple_of(align.max(1))?;
        let end = at.checked_add(len)?;
        if end > area.1 {
            return None;
        }
        area.0 = end;
        Some(at)
    }
}

/// Applies a command stream to `files`.
///
/// # Errors
/// See [`ApplyError`].
pub fn apply(stream: &[u8], files: &[LoaderFile], areas: &mut Areas) -> Result<Applied, ApplyError> {
    let mut out = Applied::default();
    for command in decode(stream) {
        match command {
            Command::Allocate { file, align, zone } => {
                let source = files.iter().find(|f| f.name == file);
                let data = source.ok_or_else(|| ApplyError::NoFile(file.clone()))?.data.clone();
                let gpa = areas.take(zone, align.into(), data.len() as u64);
                let gpa = gpa.ok_or_else(|| ApplyError::NoRoom(file.clone()))?;
                out.placed.push(Placed { name: file, gpa, data });
            }
            Command::AddPointer { file, source, offset, size } => {
                let base = out.find(&source)?.gpa;
                let field = field(&mut out.find(&file)?.data, offset, size);
                let field = field.ok_or_else(|| ApplyError::OutOfFile(file.clone()))?;
                let mut value = [0; 8];
                value[..field.len()].copy_from_slice(field);
                let value = u64::from_le_bytes(value).wrapping_add(base).to_le_bytes();
                field.copy_from_slice(&value[..field.len()]);
            }
            Command::AddChecksum { file, offset, start, len } => {
                let data = &mut out.find(&file)?.data;
                let (start, end) = (start as usize, start as usize + len as usize);
                let sum = data.get(start..end).map(|part| part.iter().fold(0u8, |s, b| s.wrapping_add(*b)));
                match (sum, data.get_mut(offset as usize)) {
                    (Some(sum), Some(at)) => *at = at.wrapping_sub(sum),
                    _ => return Err(ApplyError::OutOfFile(file)),
                }
            }
            Command::WritePointer { file, source, offset, source_offset, size } => {
                let value = out.find(&source)?.gpa.wrapping_add(source_offset.into()).to_le_bytes();
                let size = usize::from(size).min(8);
                out.write_back.push((file, offset, value[..size].to_vec()));
            }
        }
    }
    Ok(out)
}

/// The bytes of a pointer field.
fn field(data: &mut [u8], offset: u32, size: u8) -> Option<&mut [u8]> {
    if !matches!(size, 1 | 2 | 4 | 8) {
        return None;
    }
    let at = offset as usize;
    data.get_mut(at..at.checked_add(size.into())?)
}

impl Applied {
    fn find(&mut self, name: &str) -> Result<&mut Placed, ApplyError> {
        self.placed.iter_mut().find(|f| f.name == name).ok_or_else(|| ApplyError::NoFile(name.into()))
    }

    /// Address of a placed file.
    pub fn address(&self, name: &str) -> Option<u64> {
        self.placed.iter().find(|f| f.name == name).map(|f| f.gpa)
    }
}

/// Places the SMBIOS structures and their anchor, both in the F segment if they fit, else the structures high.
///
/// # Errors
/// No room in either area.
pub fn place_smbios(smbios: &Smbios, areas: &mut Areas) -> Result<Vec<Placed>, ApplyError> {
    const NAME: &str = "etc/smbios/smbios-tables";
    const ANCHOR: &str = "etc/smbios/smbios-anchor";
    let no_room = |name: &str| ApplyError::NoRoom(name.into());
    let anchor_len = smbios.anchor.len() as u64;
    let anchor_at = areas.take(Zone::FSegment, 16, anchor_len).ok_or_else(|| no_room(ANCHOR))?;
    let len = smbios.tables.len() as u64;
    let tables_at = areas.take(Zone::FSegment, 16, len).or_else(|| areas.take(Zone::High, 16, len));
    let tables_at = tables_at.ok_or_else(|| no_room(NAME))?;
    let anchor = smbios.anchor_at(u32::try_from(tables_at).map_err(|_| no_room(NAME))?);
    Ok(vec![
        Placed { name: ANCHOR.into(), gpa: anchor_at, data: anchor },
        Placed { name: NAME.into(), gpa: tables_at, data: smbios.tables.clone() },
    ])
}

/// Memory map as firmware would report it: the legacy hole left out (its EBDA and ROM ranges reserved), and
/// `reserved` taken out of RAM. Entries stay sorted within RAM.
pub fn reserve(map: &[E820Entry], reserved: &[(u64, u64)]) -> Vec<E820Entry> {
    const LEGACY: [(u64, u64); 2] = [(0x9_fc00, 0x400), (0xf_0000, 0x1_0000)];
    /// Video memory and adapter ROMs: neither RAM nor reported.
    const HOLE: (u64, u64) = (0xa_0000, 0x5_0000);
    let taken: Vec<_> = LEGACY.iter().chain(reserved).copied().collect();
    let mut out = Vec::new();
    for entry in map {
        if entry.kind != E820_RAM {
            out.push(*entry);
            continue;
        }
        let mut cuts: Vec<_> = taken.iter().chain([&HOLE]).copied().collect();
        cuts.sort_unstable();
        let end = entry.base + entry.len;
        let mut at = entry.base;
        for (base, len) in cuts {
            let (lo, hi) = (base.clamp(at, end.max(at)), (base + len).clamp(at, end.max(at)));
            if lo < hi {
                push(&mut out, at, lo, E820_RAM);
                at = hi;
            }
        }
        push(&mut out, at, end, E820_RAM);
    }
    taken.iter().for_each(|(base, len)| push(&mut out, *base, base + len, E820_RESERVED));
    out.sort_unstable_by_key(|entry| entry.base);
    out
}

fn push(out: &mut Vec<E820Entry>, base: u64, end: u64, kind: u32) {
    if base < end {
        out.push(E820Entry { base, len: end - base, kind });
    }
}

#[cfg(test)]
mod tests {
    use super::super::acpi::*;
    use super::super::fw_cfg_files::{pc_ram_layout, ram_ranges};
    use super::super::smbios::{build as build_smbios, SmbiosConfig};
    use super::*;

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |s, b| s.wrapping_add(*b))
    }

    fn files(blobs: &AcpiBlobs) -> Vec<LoaderFile> {
        vec![
            LoaderFile { name: TABLES_FILE.into(), data: blobs.tables.clone() },
            LoaderFile { name: RSDP_FILE.into(), data: blobs.rsdp.clone() },
            LoaderFile { name: "etc/vmgenid_guid".into(), data: vec![0; 4096] },
        ]
    }

    fn config() -> AcpiConfig {
        let cpus = vec![CpuEntry { apic_id: 0, present: true, node: None }];
        AcpiConfig::pc(cpus, pc_ram_layout(1 << 28, None), PciBus::default(), vec![IsaDevice::Rtc])
    }

    fn read(applied: &Applied, gpa: u64, len: usize) -> &[u8] {
        let file =
            applied.placed.iter().find(|p| (p.gpa..p.gpa + p.data.len() as u64).contains(&gpa)).unwrap();
        &file.data[(gpa - file.gpa) as usize..][..len]
    }

    #[test]
    fn every_table_is_reachable_and_adds_up() {
        let mut cfg = config();
        cfg.vmgenid = true;
        let blobs = build(&cfg);
        let mut areas = Areas::top_of_ram(cfg.ram.below_4g, 0x4_0000);
        let applied = apply(&blobs.loader, &files(&blobs), &mut areas).unwrap();
        let rsdp_at = applied.address(RSDP_FILE).unwrap();
        assert!((0xe_0000..0x10_0000).contains(&rsdp_at) && rsdp_at.trailing_zeros() >= 4);
        let rsdp = read(&applied, rsdp_at, 20);
        assert_eq!(sum(rsdp), 0);
        let dword = |at: u64| u64::from(u32::from_le_bytes(read(&applied, at, 4).try_into().unwrap()));
        let rsdt = dword(rsdp_at + 16);
        assert_eq!(read(&applied, rsdt, 4), b"RSDT");
        let mut seen = Vec::new();
        for at in (rsdt + 36..rsdt + dword(rsdt + 4)).step_by(4) {
            let table = dword(at);
            let bytes = read(&applied, table, dword(table + 4) as usize);
            assert_eq!(sum(bytes), 0);
            seen.push(String::from_utf8_lossy(&bytes[..4]).into_owned());
            if &bytes[..4] == b"FACP" {
                assert_eq!(read(&applied, dword(table + 36), 4), b"FACS");
                let dsdt = dword(table + 40);
                let dsdt = read(&applied, dsdt, dword(dsdt + 4) as usize);
                assert_eq!((&dsdt[..4], sum(dsdt)), (&b"DSDT"[..], 0));
            }
        }
        assert_eq!(seen, ["FACP", "APIC", "SSDT", "HPET", "WAET"]);
        let guid = applied.address("etc/vmgenid_guid").unwrap();
        assert_eq!(
            applied.write_back,
            [("etc/vmgenid_addr".to_string(), 0, (guid + 40).to_le_bytes().to_vec())]
        );
    }

    #[test]
    fn streams_that_reach_outside_are_refused() {
        let blobs = build(&config());
        let mut areas = Areas::top_of_ram(1 << 28, 0x4_0000);
        let mut short = files(&blobs);
        short[0].data.truncate(100);
        assert_eq!(apply(&blobs.loader, &short, &mut areas), Err(ApplyError::OutOfFile(TABLES_FILE.into())));
        let mut areas = Areas::top_of_ram(1 << 28, 0x1000);
        assert_eq!(
            apply(&blobs.loader, &files(&blobs), &mut areas),
            Err(ApplyError::NoRoom(TABLES_FILE.into()))
        );
        let mut areas = Areas::top_of_ram(1 << 28, 0x4_0000);
        assert!(matches!(apply(&blobs.loader, &[], &mut areas), Err(ApplyError::NoFile(_))));
    }

    #[test]
    fn smbios_lands_in_the_f_segment() {
        let smbios = build_smbios(&SmbiosConfig::pc());
        let mut areas = Areas::top_of_ram(1 << 28, 0x1000);
        let placed = place_smbios(&smbios, &mut areas).unwrap();
        assert!(placed.iter().all(|p| (0xf_0000..0x10_0000).contains(&p.gpa)));
        assert_eq!(placed[0].data[24..28], (placed[1].gpa as u32).to_le_bytes());
        assert_eq!(sum(&placed[0].data), 0);
    }

    #[test]
    fn memory_map_without_firmware() {
        let map = ram_ranges(&pc_ram_layout(1 << 28, None));
        let top = (1 << 28) - 0x2_0000;
        let got: Vec<_> =
            reserve(&map, &[(top, 0x2_0000)]).iter().map(|e| (e.base, e.base + e.len, e.kind)).collect();
        assert_eq!(
            got,
            [
                (0, 0x9_fc00, E820_RAM),
                (0x9_fc00, 0xa_0000, E820_RESERVED),
                (0xf_0000, 0x10_0000, E820_RESERVED),
                (0x10_0000, top, E820_RAM),
                (top, 1 << 28, E820_RESERVED),
            ]
        );
    }
}
