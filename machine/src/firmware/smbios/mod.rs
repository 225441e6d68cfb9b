//! SMBIOS structures: `etc/smbios/smbios-tables` and `etc/smbios/smbios-anchor`.
//!
//! Specification: DMTF DSP0134 3.6. Types 0 (when asked for), 1, 2 (when asked for), 3, 4, 8, 11, 16, 17, 19,
//! 32, 41 and 127, with QEMU 7.2's values and order; blobs from `-smbios file=` come first and replace the
//! built-in structures of their type. Checksums and the table address in the anchor are zero, firmware fills
//! them in ([`Smbios::anchor_at`] does it for a boot without firmware).

mod options;
mod structure;

pub use options::{OnboardDevice, Port, SmbiosOptions};

use structure::Structure;

/// fw_cfg file with the anchor.
pub const ANCHOR_FILE: &str = "etc/smbios/smbios-anchor";
/// fw_cfg file with the structures.
pub const TABLES_FILE: &str = "etc/smbios/smbios-tables";

/// Anchor and structure version (`smbios-entry-point-type`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EntryPoint {
    /// 2.1 anchor, SMBIOS 2.8.
    #[default]
    Bits32,
    /// 3.0 anchor, SMBIOS 3.0.
    Bits64,
}

/// What the structures say about the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SmbiosConfig {
    /// Anchor.
    pub entry_point: EntryPoint,
    /// Default manufacturer ("QEMU").
    pub manufacturer: String,
    /// Default product ("Standard PC (i440FX + PIIX, 1996)").
    pub product: String,
    /// Default version (the machine type's full name, "pc-i440fx-7.2").
    pub version: String,
    /// Machine UUID as text order bytes; zero when there is none.
    pub uuid: [u8; 16],
    /// Sockets that can hold a CPU.
    pub sockets: u32,
    /// Cores of a socket (all dies).
    pub cores: u32,
    /// Threads of a socket.
    pub threads: u32,
    /// CPUID leaf 1 EAX of the boot CPU.
    pub cpu_signature: u32,
    /// CPUID leaf 1 EDX of the boot CPU.
    pub cpu_features: u32,
    /// RAM size in bytes.
    pub ram_size: u64,
    /// RAM ranges of the memory map: first address, length.
    pub ram_ranges: Vec<(u64, u64)>,
    /// What the user gave.
    pub options: SmbiosOptions,
}

impl SmbiosConfig {
    /// Defaults of `pc-i440fx-7.2` with one CPU and no RAM.
    pub fn pc() -> Self {
        Self {
            manufacturer: "QEMU".into(),
            product: "Standard PC (i440FX + PIIX, 1996)".into(),
            version: "pc-i440fx-7.2".into(),
            sockets: 1,
            cores: 1,
            threads: 1,
            ..Self::default()
        }
    }
}

/// Built structures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Smbios {
    /// Contents of [`TABLES_FILE`].
    pub tables: Vec<u8>,
    /// Contents of [`ANCHOR_FILE`].
    pub anchor: Vec<u8>,
}

/// Largest module in a slot (16 GiB).
const DIMM_MAX: u64 = 16 << 30;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// Handles.
const T3_HANDLE: u16 = 0x300;
const T16_HANDLE: u16 = 0x1000;
const NO_ERROR_INFO: u16 = 0xfffe;
const UNKNOWN: u8 = 0x02;

/// Structures under construction.
#[derive(Default)]
struct Builder {
    tables: Vec<u8>,
    count: u16,
    max_len: u16,
}

impl Builder {
    fn push(&mut self, structure: Structure) {
        self.push_raw(&structure.finish());
    }

    fn push_raw(&mut self, raw: &[u8]) {
        self.tables.extend_from_slice(raw);
        self.count = self.count.saturating_add(1);
        self.max_len = self.max_len.max(u16::try_from(raw.len()).unwrap_or(u16::MAX));
    }
}

/// Builds structures and anchor.
pub fn build(cfg: &SmbiosConfig) -> Smbios {
    let mut b = Builder::default();
    for blob in cfg.options.blobs() {
        b.push_raw(blob);
    }
    let opts = &cfg.options;
    let wanted = |typ: u8| !opts.has_blob(typ);
    if wanted(0) && opts.has_fields(0) {
        b.push(bios(opts));
    }
    if wanted(1) {
        b.push(system(cfg));
    }
    if wanted(2) && opts.has_fields(2) {
        b.push(baseboard(cfg));
    }
    if wanted(3) {
        b.push(chassis(cfg));
    }
    if wanted(4) {
        (0..cfg.sockets).for_each(|i| b.push(processor(cfg, i)));
    }
    if wanted(8) {
        opts.ports.iter().enumerate().for_each(|(i, port)| b.push(port_connector(i, port)));
    }
    if wanted(11) && !opts.oem_strings.is_empty() {
        b.push(oem_strings(&opts.oem_strings));
    }
    let modules = cfg.ram_size.div_ceil(DIMM_MAX);
    if wanted(16) {
        b.push(memory_array(cfg.ram_size, modules));
    }
    if wanted(17) {
        (0..modules).for_each(|i| b.push(memory_device(cfg, i)));
    }
    if wanted(19) {
        cfg.ram_ranges
            .iter()
            .filter(|(_, len)| *len != 0)
            .enumerate()
            .for_each(|(i, range)| b.push(memory_range(i, *range)));
    }
    if wanted(32) {
        b.push(Structure::new(32, 0x2000).bytes(&[0; 7]));
    }
    if wanted(41) {
        opts.onboard.iter().enumerate().for_each(|(i, device)| b.push(onboard_device(i, device)));
    }
    if wanted(127) {
        b.push(Structure::new(127, 0x7f00));
    }
    let anchor = anchor(cfg.entry_point, &b);
    Smbios { tables: b.tables, anchor }
}

/// The structures for a boot without firmware, which would add a BIOS structure of its own: the SMBIOS specification
/// requires one.
pub fn build_with_bios(cfg: &SmbiosConfig) -> Smbios {
    let mut cfg = cfg.clone();
    cfg.options.default_bios(&[
        ("vendor", "rqemu"),
        ("version", env!("CARGO_PKG_VERSION")),
        ("date", "04/01/2014"),
    ]);
    build(&cfg)
}

/// Type 0: BIOS.
fn bios(opts: &SmbiosOptions) -> Structure {
    const START_SEGMENT: u16 = 0xe800;
    const CHARACTERISTICS_NOT_SUPPORTED: u64 = 1 << 3;
    // Targeted content distribution, virtual machine; UEFI.
    const EXTENSION: u8 = 1 << 2 | 1 << 4;
    const EXTENSION_UEFI: u8 = 1 << 3;
    let (major, minor) = opts.bios_release;
    let mut s = Structure::new(0, 0).string(opts.get(0, "vendor")).string(opts.get(0, "version"));
    s = s.word(START_SEGMENT).string(opts.get(0, "date")).byte(0);
    s = s.qword(CHARACTERISTICS_NOT_SUPPORTED);
    let uefi = if opts.bios_uefi { EXTENSION_UEFI } else { 0 };
    s.bytes(&[0, EXTENSION | uefi, major, minor, 0xff, 0xff])
}

/// Type 1: system.
fn system(cfg: &SmbiosConfig) -> Structure {
    const WAKE_UP_POWER_SWITCH: u8 = 6;
    let o = &cfg.options;
    let u = o.system_uuid.unwrap_or(cfg.uuid);
    // The first three fields are little endian on the wire since SMBIOS 2.6.
    let wire = [
        u[3], u[2], u[1], u[0], u[5], u[4], u[7], u[6], u[8], u[9], u[10], u[11], u[12], u[13], u[14], u[15],
    ];
    Structure::new(1, 0x100)
        .string(o.get_or(1, "manufacturer", &cfg.manufacturer))
        .string(o.get_or(1, "product", &cfg.product))
        .string(o.get_or(1, "version", &cfg.version))
        .string(o.get(1, "serial"))
        .bytes(&wire)
        .byte(WAKE_UP_POWER_SWITCH)
        .string(o.get(1, "sku"))
        .string(o.get(1, "family"))
}

/// Type 2: baseboard.
fn baseboard(cfg: &SmbiosConfig) -> Structure {
    const HOSTING_BOARD: u8 = 1;
    const MOTHERBOARD: u8 = 10;
    let o = &cfg.options;
    Structure::new(2, 0x200)
        .string(o.get_or(2, "manufacturer", &cfg.manufacturer))
        .string(o.get_or(2, "product", &cfg.product))
        .string(o.get_or(2, "version", &cfg.version))
        .string(o.get(2, "serial"))
        .string(o.get(2, "asset"))
        .byte(HOSTING_BOARD)
        .string(o.get(2, "location"))
        .word(T3_HANDLE)
        .bytes(&[MOTHERBOARD, 0])
}

/// Type 3: chassis.
fn chassis(cfg: &SmbiosConfig) -> Structure {
    const OTHER: u8 = 1;
    const SAFE: u8 = 3;
    let o = &cfg.options;
    Structure::new(3, T3_HANDLE)
        .string(o.get_or(3, "manufacturer", &cfg.manufacturer))
        .byte(OTHER)
        .string(o.get_or(3, "version", &cfg.version))
        .string(o.get(3, "serial"))
        .string(o.get(3, "asset"))
        .bytes(&[SAFE, SAFE, SAFE, UNKNOWN])
        .bytes(&[0; 8])
        .string(o.get(3, "sku"))
}

/// Type 4: one socket.
fn processor(cfg: &SmbiosConfig, index: u32) -> Structure {
    const CENTRAL: u8 = 3;
    const OTHER: u8 = 1;
    const POPULATED_ENABLED: u8 = 0x41;
    const NO_CACHE: u16 = 0xffff;
    let o = &cfg.options;
    let socket = format!("{} {index}", o.get(4, "sock_pfx").unwrap_or("CPU"));
    let id = o.processor_id.unwrap_or(u64::from(cfg.cpu_features) << 32 | u64::from(cfg.cpu_signature));
    let small = |n: u32| u8::try_from(n).unwrap_or(0xff);
    let s = Structure::new(4, 0x400 + index as u16)
        .string(Some(&socket))
        .bytes(&[CENTRAL, OTHER])
        .string(o.get_or(4, "manufacturer", &cfg.manufacturer))
        .qword(id)
        .string(o.get_or(4, "version", &cfg.version))
        .byte(0)
        .word(0)
        .word(o.cpu_max_speed)
        .word(o.cpu_current_speed)
        .bytes(&[POPULATED_ENABLED, OTHER])
        .word(NO_CACHE)
        .word(NO_CACHE)
        .word(NO_CACHE)
        .string(o.get(4, "serial"))
        .string(o.get(4, "asset"))
        .string(o.get(4, "part"))
        .bytes(&[small(cfg.cores), small(cfg.cores), small(cfg.threads)])
        .word(UNKNOWN.into())
        .word(OTHER.into());
    if cfg.entry_point == EntryPoint::Bits32 {
        return s;
    }
    let wide = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
    s.word(wide(cfg.cores)).word(wide(cfg.cores)).word(wide(cfg.threads))
}

/// Type 8: port connector.
fn port_connector(index: usize, port: &Port) -> Structure {
    Structure::new(8, index as u16)
        .string(port.internal_reference.as_deref())
        .byte(0)
        .string(port.external_reference.as_deref())
        .bytes(&[port.connector_type, port.port_type])
}

/// Type 11: free strings.
fn oem_strings(strings: &[Vec<u8>]) -> Structure {
    let s = Structure::new(11, 0xe00).byte(strings.len() as u8);
    strings.iter().fold(s, |s, text| s.plain_string(text))
}

/// Type 16: memory array.
fn memory_array(ram: u64, modules: u64) -> Structure {
    const MOTHERBOARD: u8 = 1;
    const SYSTEM_MEMORY: u8 = 3;
    const MULTI_BIT_ECC: u8 = 6;
    const USE_EXTENDED: u32 = 0x8000_0000;
    let s = Structure::new(16, T16_HANDLE).bytes(&[MOTHERBOARD, SYSTEM_MEMORY, MULTI_BIT_ECC]);
    let kib = ram.div_ceil(KIB);
    let (small, extended) = if kib < u64::from(USE_EXTENDED) { (kib as u32, 0) } else { (USE_EXTENDED, ram) };
    s.dword(small).word(NO_ERROR_INFO).word(modules as u16).qword(extended)
}

/// Type 17: one module.
fn memory_device(cfg: &SmbiosConfig, index: u64) -> Structure {
    const DIMM: u8 = 9;
    const RAM: u8 = 7;
    const DETAIL_OTHER: u16 = 1 << 1;
    const USE_EXTENDED: u16 = 0x7fff;
    let o = &cfg.options;
    let size = (cfg.ram_size - index * DIMM_MAX).min(DIMM_MAX).div_ceil(MIB);
    let (small, extended) = match u16::try_from(size) {
        Ok(mib) if mib < USE_EXTENDED => (mib, 0),
        _ => (USE_EXTENDED, size as u32),
    };
    let locator = format!("{} {index}", o.get(17, "loc_pfx").unwrap_or("DIMM"));
    Structure::new(17, 0x1100 + index as u16)
        .word(T16_HANDLE)
        .word(NO_ERROR_INFO)
        .word(0xffff)
        .word(0xffff)
        .word(small)
        .bytes(&[DIMM, 0])
        .string(Some(&locator))
        .string(o.get(17, "bank"))
        .byte(RAM)
        .word(DETAIL_OTHER)
        .word(o.memory_speed)
        .string(o.get_or(17, "manufacturer", &cfg.manufacturer))
        .string(o.get(17, "serial"))
        .string(o.get(17, "asset"))
        .string(o.get(17, "part"))
        .byte(0)
        .dword(extended)
        .word(o.memory_speed)
        .bytes(&[0; 6])
}

/// Type 19: one range of RAM.
fn memory_range(index: usize, (base, len): (u64, u64)) -> Structure {
    let last = base + len - 1;
    let s = Structure::new(19, 0x1300 + index as u16);
    match (u32::try_from(base / KIB), u32::try_from(last / KIB)) {
        (Ok(first), Ok(end)) if end < u32::MAX => {
            s.dword(first).dword(end).word(T16_HANDLE).byte(1).qword(0).qword(0)
        }
        _ => s.dword(u32::MAX).dword(u32::MAX).word(T16_HANDLE).byte(1).qword(base).qword(last),
    }
}

/// Type 41: onboard device.
fn onboard_device(index: usize, device: &OnboardDevice) -> Structure {
    const ENABLED: u8 = 0x80;
    let (bus, devfn) = device.address.unwrap_or((0, 0));
    Structure::new(41, 0x2900 + index as u16)
        .string(device.designation.as_deref())
        .bytes(&[device.kind | ENABLED, device.instance])
        .word(0)
        .bytes(&[bus, devfn])
}

/// The anchor without its checksums and the address.
fn anchor(entry_point: EntryPoint, b: &Builder) -> Vec<u8> {
    let mut a = Vec::with_capacity(32);
    match entry_point {
        EntryPoint::Bits32 => {
            a.extend_from_slice(b"_SM_\0");
            a.extend([0x1f, 2, 8]);
            a.extend(b.max_len.to_le_bytes());
            a.extend([0; 6]);
            a.extend_from_slice(b"_DMI_\0");
            a.extend((b.tables.len() as u16).to_le_bytes());
            a.extend([0; 4]);
            a.extend(b.count.to_le_bytes());
            a.push(0x28);
        }
        EntryPoint::Bits64 => {
            a.extend_from_slice(b"_SM3_\0");
            a.extend([0x18, 3, 0, 0, 1, 0]);
            a.extend((b.tables.len() as u32).to_le_bytes());
            a.extend([0; 8]);
        }
    }
    a
}

impl Smbios {
    /// The anchor for structures at `address`, with its checksums (what firmware does).
    pub fn anchor_at(&self, address: u32) -> Vec<u8> {
        let mut a = self.anchor.clone();
        if a.starts_with(b"_SM3_") {
            a[16..24].copy_from_slice(&u64::from(address).to_le_bytes());
            a[5] = checksum(&a);
        } else {
            a[24..28].copy_from_slice(&address.to_le_bytes());
            a[21] = checksum(&a[16..]);
            a[4] = checksum(&a);
        }
        a
    }
}

/// The byte that makes `bytes` add up to zero.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0u8, |sum, b| sum.wrapping_add(*b)).wrapping_neg()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anchors_add_up() {
        let mut cfg = SmbiosConfig::pc();
        let smbios = build(&cfg);
        let anchor = smbios.anchor_at(0xf_5000);
        assert_eq!(checksum(&anchor), 0);
        assert_eq!(checksum(&anchor[16..]), 0);
        assert_eq!(anchor[24..28], 0xf_5000u32.to_le_bytes());
        cfg.entry_point = EntryPoint::Bits64;
        let anchor = build(&cfg).anchor_at(0xf_5000);
        assert_eq!(anchor.len(), 0x18);
        assert_eq!(checksum(&anchor), 0);
    }

    #[test]
    fn large_values_move_to_extended_fields() {
        let mut cfg = SmbiosConfig::pc();
        cfg.ram_size = 3 << 40;
        cfg.ram_ranges = vec![(1 << 32, 5 << 40)];
        let tables = build(&cfg).tables;
        let find = |typ: u8| tables.windows(2).position(|w| w == [typ, structure_len(typ)]).unwrap();
        assert_eq!(tables[find(16) + 7..][..4], 0x8000_0000u32.to_le_bytes());
        assert_eq!(tables[find(16) + 15..][..8], (3u64 << 40).to_le_bytes());
        assert_eq!(tables[find(19) + 4..][..8], [0xff; 8]);
        assert_eq!(tables[find(19) + 15..][..8], (1u64 << 32).to_le_bytes());
    }

    fn structure_len(typ: u8) -> u8 {
        if typ == 16 {
            23
        } else {
            31
        }
    }
}
