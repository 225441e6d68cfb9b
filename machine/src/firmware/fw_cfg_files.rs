//! Contents of fw_cfg: fixed items, files and their directory, the memory map, and Linux boot items.
//!
//! Names and formats follow QEMU's fw_cfg documentation (docs/specs/fw_cfg) and the values of QEMU 7.2. All
//! functions are pure; the fw_cfg device serves what they return.

use super::acpi::RamLayout;

/// Selectors of fixed items.
pub mod key {
    /// "QEMU".
    pub const SIGNATURE: u16 = 0x00;
    /// Interface features.
    pub const ID: u16 = 0x01;
    /// Machine UUID.
    pub const UUID: u16 = 0x02;
    /// RAM size, 64 bits.
    pub const RAM_SIZE: u16 = 0x03;
    /// 1 with `-nographic`, 16 bits.
    pub const NOGRAPHIC: u16 = 0x04;
    /// CPUs at start, 16 bits.
    pub const NB_CPUS: u16 = 0x05;
    /// Where to load the kernel, 32 bits.
    pub const KERNEL_ADDR: u16 = 0x07;
    /// Kernel size, 32 bits.
    pub const KERNEL_SIZE: u16 = 0x08;
    /// Where to load the initrd, 32 bits.
    pub const INITRD_ADDR: u16 = 0x0a;
    /// Initrd size, 32 bits.
    pub const INITRD_SIZE: u16 = 0x0b;
    /// NUMA nodes and memory.
    pub const NUMA: u16 = 0x0d;
    /// Boot menu wanted, 16 bits.
    pub const BOOT_MENU: u16 = 0x0e;
    /// Highest APIC id plus one, 16 bits.
    pub const MAX_CPUS: u16 = 0x0f;
    /// Entry point of a multiboot or PVH kernel, 32 bits.
    pub const KERNEL_ENTRY: u16 = 0x10;
    /// Kernel without its setup part.
    pub const KERNEL_DATA: u16 = 0x11;
    /// Initrd.
    pub const INITRD_DATA: u16 = 0x12;
    /// Where to load the command line, 32 bits.
    pub const CMDLINE_ADDR: u16 = 0x13;
    /// Size of the command line with its terminator, 32 bits.
    pub const CMDLINE_SIZE: u16 = 0x14;
    /// Command line.
    pub const CMDLINE_DATA: u16 = 0x15;
    /// Where to load the setup part, 32 bits.
    pub const SETUP_ADDR: u16 = 0x16;
    /// Size of the setup part, 32 bits.
    pub const SETUP_SIZE: u16 = 0x17;
    /// Setup part.
    pub const SETUP_DATA: u16 = 0x18;
    /// Directory of files.
    pub const FILE_DIR: u16 = 0x19;
    /// First selector of a file.
    pub const FILE_FIRST: u16 = 0x20;
    /// Tables from `-acpitable` ([`super::super::acpi::user::legacy_item`]).
    pub const ACPI_TABLES: u16 = 0x8000;
    /// 1: interrupt 0 is on I/O APIC input 2, 32 bits.
    pub const IRQ0_OVERRIDE: u16 = 0x8002;
    /// HPETs.
    pub const HPET: u16 = 0x8004;
}

/// Longest file name, without the terminating zero.
pub const MAX_NAME: usize = 55;

/// What the fixed items depend on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FixedItems {
    /// The DMA interface exists.
    pub dma: bool,
    /// UUID as bytes in text order; zero when there is none.
    pub uuid: [u8; 16],
    /// RAM in bytes.
    pub ram_size: u64,
    /// `-nographic`.
    pub nographic: bool,
    /// CPUs plugged at start.
    pub cpus: u16,
    /// Highest possible APIC id plus one.
    pub apic_id_limit: u16,
    /// `-boot menu=on`.
    pub boot_menu: bool,
    /// NUMA nodes: node of each possible CPU by APIC id, and memory of each node.
    pub numa: Option<NumaItem>,
    /// HPET present (block id of its capability register).
    pub hpet: Option<u32>,
}

/// NUMA part of [`FixedItems`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NumaItem {
    /// (APIC id, node) of every possible CPU.
    pub cpu_nodes: Vec<(u32, u32)>,
    /// Memory of each node in bytes.
    pub node_memory: Vec<u64>,
}

/// The fixed items, in the order of their selectors.
pub fn fixed_items(cfg: &FixedItems) -> Vec<(u16, Vec<u8>)> {
    const TRADITIONAL: u32 = 1;
    const DMA: u32 = 2;
    let word = |v: u16| v.to_le_bytes().to_vec();
    let mut items = vec![
        (key::SIGNATURE, b"QEMU".to_vec()),
        (key::ID, (TRADITIONAL | if cfg.dma { DMA } else { 0 }).to_le_bytes().to_vec()),
        (key::UUID, cfg.uuid.to_vec()),
        (key::RAM_SIZE, cfg.ram_size.to_le_bytes().to_vec()),
        (key::NOGRAPHIC, word(cfg.nographic.into())),
        (key::NB_CPUS, word(cfg.cpus)),
        (key::NUMA, numa(cfg)),
        (key::BOOT_MENU, word(cfg.boot_menu.into())),
        (key::MAX_CPUS, word(cfg.apic_id_limit)),
        (key::IRQ0_OVERRIDE, 1u32.to_le_bytes().to_vec()),
    ];
    if let Some(block_id) = cfg.hpet {
        items.push((key::HPET, hpet(block_id)));
    }
    items
}

/// Number of nodes, node of each APIC id, memory of each node; all 64 bits.
fn numa(cfg: &FixedItems) -> Vec<u8> {
    let none = NumaItem::default();
    let numa = cfg.numa.as_ref().unwrap_or(&none);
    let mut item = (numa.node_memory.len() as u64).to_le_bytes().to_vec();
    for apic_id in 0..u32::from(cfg.apic_id_limit) {
        let node = numa.cpu_nodes.iter().find(|(id, _)| *id == apic_id).map_or(0, |(_, node)| *node);
        item.extend(u64::from(node).to_le_bytes());
    }
    numa.node_memory.iter().for_each(|size| item.extend(size.to_le_bytes()));
    item
}

/// Count and eight packed entries: block id, address, minimum tick, page protection.
fn hpet(block_id: u32) -> Vec<u8> {
    const ENTRIES: usize = 8;
    const ENTRY_LEN: usize = 15;
    let mut item = vec![1];
    item.extend(block_id.to_le_bytes());
    item.extend(0xfed0_0000u64.to_le_bytes());
    item.resize(1 + ENTRIES * ENTRY_LEN, 0);
    item
}

/// Sorts files by name and gives each its selector; returns the directory item. A name longer than
/// [`MAX_NAME`] is cut.
pub fn directory<T>(files: &mut [(String, T)], len: impl Fn(&T) -> usize) -> Vec<u8> {
    files.sort_by(|a, b| a.0.as_bytes().cmp(b.0.as_bytes()));
    let mut dir = (files.len() as u32).to_be_bytes().to_vec();
    for (i, (name, data)) in files.iter().enumerate() {
        dir.extend((len(data) as u32).to_be_bytes());
        dir.extend((key::FILE_FIRST + i as u16).to_be_bytes());
        dir.extend([0; 2]);
        let mut field = [0u8; MAX_NAME + 1];
        let n = name.len().min(MAX_NAME);
        field[..n].copy_from_slice(&name.as_bytes()[..n]);
        dir.extend(field);
    }
    dir
}

/// `etc/system-states`: for S3, S4, S5 the SLP_TYP value, bit 7 set where the state is offered.
pub fn system_states(disable_s3: bool, disable_s4: bool, s4_val: u8) -> [u8; 6] {
    const ON: u8 = 0x80;
    let offer = |off: bool| if off { 0 } else { ON };
    [ON, 0, 0, 1 | offer(disable_s3), s4_val | offer(disable_s4), ON]
}

/// `bootorder` and `bios-geometry`: lines without a final newline, then a zero; empty without lines. `strict`
/// adds the line that ends booting (`-boot strict=on`).
pub fn lines(lines: &[String], strict: bool) -> Vec<u8> {
    if lines.is_empty() {
        return Vec::new();
    }
    let mut text = lines.join("\n");
    if strict {
        text.push_str("\nHALT");
    }
    text.push('\0');
    text.into_bytes()
}

/// One line of `bios-geometry`.
pub fn geometry_line(path: &str, cylinders: u32, heads: u32, sectors: u32) -> String {
    format!("{path} {cylinders} {heads} {sectors}")
}

/// `etc/boot-fail-wait`: ms until a reboot when nothing boots, -1 for never (`-boot reboot-timeout=`).
pub fn boot_fail_wait(reboot_timeout: Option<u16>) -> [u8; 4] {
    reboot_timeout.map_or(-1, i32::from).to_le_bytes()
}

/// `etc/boot-menu-wait`: ms (`-boot splash-time=`).
pub fn boot_menu_wait(splash_time: u16) -> [u8; 2] {
    splash_time.to_le_bytes()
}

/// `etc/msr_feature_control`: lock bit with VMX and LMCE; `None` when the CPU has neither.
pub fn msr_feature_control(vmx: bool, lmce: bool) -> Option<[u8; 8]> {
    const LOCKED: u64 = 1;
    const VMX_OUTSIDE_SMX: u64 = 1 << 2;
    const LMCE: u64 = 1 << 20;
    let bits = if vmx { VMX_OUTSIDE_SMX } else { 0 } | if lmce { LMCE } else { 0 };
    (bits != 0).then(|| (bits | LOCKED).to_le_bytes())
}

/// `etc/vmgenid_guid`: a page with the id (text order bytes) at [`super::acpi::tables::VMGENID_OFFSET`].
pub fn vmgenid_guid(uuid: &[u8; 16]) -> Vec<u8> {
    let u = uuid;
    let wire = [
        u[3], u[2], u[1], u[0], u[5], u[4], u[7], u[6], u[8], u[9], u[10], u[11], u[12], u[13], u[14], u[15],
    ];
    let at = super::acpi::tables::VMGENID_OFFSET as usize;
    let mut page = vec![0; 4096];
    page[at..at + 16].copy_from_slice(&wire);
    page
}

/// A range of the memory map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct E820Entry {
    /// First address.
    pub base: u64,
    /// Length.
    pub len: u64,
    /// [`E820_RAM`] or [`E820_RESERVED`].
    pub kind: u32,
}

/// Usable RAM.
pub const E820_RAM: u32 = 1;
/// Not for the guest's use.
pub const E820_RESERVED: u32 = 2;

/// HyperTransport range of AMD CPUs, up to 1 TiB.
const AMD_HT_START: u64 = 0xfd_0000_0000;
const AMD_HT_END: u64 = 0x100_0000_0000;
/// Pages that KVM on Intel takes for real mode (TSS and identity map).
const KVM_RESERVED: (u64, u64) = (0xfeff_c000, 0x4000);

/// What the memory map of `pc` depends on besides RAM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct E820Config {
    /// Guest CPUs say AuthenticAMD or HygonGenuine.
    pub amd_cpu: bool,
    /// Physical address bits of the guest's CPUs.
    pub phys_bits: u8,
    /// KVM.
    pub kvm: bool,
}

/// Memory map of machine `pc`, in QEMU's order: reservations, then RAM.
pub fn pc_e820(ram: &RamLayout, cfg: &E820Config) -> Vec<E820Entry> {
    let mut map = Vec::new();
    if cfg.kvm {
        map.push(E820Entry { base: KVM_RESERVED.0, len: KVM_RESERVED.1, kind: E820_RESERVED });
    }
    if cfg.amd_cpu && 1u64.checked_shl(cfg.phys_bits.into()).is_none_or(|end| end > AMD_HT_START) {
        map.push(E820Entry { base: AMD_HT_START, len: AMD_HT_END - AMD_HT_START, kind: E820_RESERVED });
    }
    map.extend(ram_ranges(ram));
    map
}

/// RAM ranges below and above 4 GiB.
pub fn ram_ranges(ram: &RamLayout) -> Vec<E820Entry> {
    [(0, ram.below_4g), (ram.above_4g_start, ram.above_4g)]
        .into_iter()
        .filter(|(_, len)| *len != 0)
        .map(|(base, len)| E820Entry { base, len, kind: E820_RAM })
        .collect()
}

/// `etc/e820`.
pub fn e820_file(map: &[E820Entry]) -> Vec<u8> {
    let mut file = Vec::with_capacity(20 * map.len());
    for entry in map {
        file.extend(entry.base.to_le_bytes());
        file.extend(entry.len.to_le_bytes());
        file.extend(entry.kind.to_le_bytes());
    }
    file
}

/// Splits RAM around the PCI hole for machine `pc`: up to `max_below_4g` (3.5 GiB unless
/// `max-ram-below-4g` says less) stays below when it fits entirely, else the hole starts at 3 GiB.
pub fn pc_ram_layout(ram_size: u64, max_below_4g: Option<u64>) -> RamLayout {
    const DEFAULT: u64 = 0xe000_0000;
    const SPLIT: u64 = 0xc000_0000;
    let limit = max_below_4g.unwrap_or(DEFAULT);
    split(ram_size, if ram_size >= limit { limit.min(SPLIT) } else { limit })
}

/// Splits RAM for machine `microvm`: at most 3 GiB below.
pub fn microvm_ram_layout(ram_size: u64) -> RamLayout {
    split(ram_size, 0xc000_0000)
}

fn split(ram_size: u64, limit: u64) -> RamLayout {
    let below_4g = ram_size.min(limit);
    RamLayout { below_4g, above_4g: ram_size - below_4g, above_4g_start: 1 << 32 }
}

/// Moves the upper RAM (and what follows it) above 1 TiB when `used_end`, the end of everything that is
/// addressed above 4 GiB (RAM, hotplug area, 64-bit PCI window), would touch AMD's HyperTransport range.
pub fn avoid_amd_hole(ram: &mut RamLayout, used_end: u64) {
    if used_end > AMD_HT_START {
        ram.above_4g_start = AMD_HT_END;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ram_splits() {
        const GIB: u64 = 1 << 30;
        let parts = |l: RamLayout| (l.below_4g, l.above_4g);
        assert_eq!(parts(pc_ram_layout(GIB, None)), (GIB, 0));
        assert_eq!(parts(pc_ram_layout(3584 << 20, None)), (3 * GIB, 512 << 20));
        assert_eq!(parts(pc_ram_layout((3584 << 20) - 4096, None)), ((3584 << 20) - 4096, 0));
        assert_eq!(parts(pc_ram_layout(4 * GIB, Some(2 * GIB))), (2 * GIB, 2 * GIB));
        assert_eq!(parts(microvm_ram_layout(3500 << 20)), (3 * GIB, (3500 << 20) - 3 * GIB));
    }

    #[test]
    fn msr_feature_control_is_locked_when_present() {
        assert_eq!(msr_feature_control(false, false), None);
        assert_eq!(msr_feature_control(true, false), Some(5u64.to_le_bytes()));
        assert_eq!(msr_feature_control(true, true), Some(0x10_0005u64.to_le_bytes()));
    }

    #[test]
    fn long_names_are_cut_and_files_sorted() {
        let mut files = vec![("z".repeat(80), 3usize), ("a".to_string(), 7)];
        let dir = directory(&mut files, |len| *len);
        assert_eq!(dir.len(), 4 + 2 * 64);
        assert_eq!(dir[4..10], [0, 0, 0, 7, 0, 0x20]);
        assert_eq!(dir[12..14], [b'a', 0]);
        assert_eq!(dir[4 + 64 + 6..][..2], [0, 0]);
        assert_eq!(dir.last(), Some(&0));
    }
}
