//! What a kernel started without firmware is handed: Linux's zero page or PVH's start info.
//!
//! Specifications: the kernel's "Linux/x86 boot protocol" (zero page) and Xen's `hvm_start_info` version 1 ("PVH
//! boot"). Both return bytes; the board chooses the addresses and sets the registers: RSI (64-bit and 32-bit
//! Linux entry) or EBX (PVH) holds the address of the structure.

use super::fw_cfg_files::E820Entry;

/// Size of the zero page.
pub const ZERO_PAGE_LEN: usize = 0x1000;
/// Entries that fit into it; the rest of the map is cut off.
pub const ZERO_PAGE_E820_MAX: usize = 128;

/// Addresses that Linux is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinuxParams {
    /// Command line (with terminating zero).
    pub cmdline: u64,
    /// Initrd: address and size; zero without one.
    pub initrd: (u64, u64),
    /// RSDP; zero makes the kernel search for it.
    pub rsdp: u64,
    /// There is a VGA, in text mode.
    pub vga: bool,
}

/// The zero page: the image's setup header with the loader's fields, memory map, VGA text mode 3.
///
/// `setup` is the image's setup part from its first byte on (see [`super::linux_boot`]); `None` if it has no
/// setup header of protocol 2.00 or later.
pub fn zero_page(setup: &[u8], params: &LinuxParams, map: &[E820Entry]) -> Option<Vec<u8>> {
    const HEADER: usize = 0x1f1;
    /// What QEMU's loader calls itself; guests ask for it.
    const LOADER_QEMU: u8 = 0xb0;
    const CAN_USE_HEAP: u8 = 0x80;
    /// End of the heap after the real-mode part, as QEMU's loader places both.
    const HEAP_END: u16 = 0xfe00;
    if setup.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    // The byte at 0x201 is the length of the jump over the header, and so says where the header ends.
    let end = (0x202 + usize::from(*setup.get(0x201)?)).min(0x290);
    let mut page = vec![0; ZERO_PAGE_LEN];
    page[HEADER..end].copy_from_slice(setup.get(HEADER..end)?);
    screen_info(&mut page, params.vga);
    page[0x210] = LOADER_QEMU;
    page[0x211] |= CAN_USE_HEAP;
    let mut put = |at: usize, bytes: &[u8]| page[at..at + bytes.len()].copy_from_slice(bytes);
    // Low halves, then the ext_ fields with the high halves.
    for (low, high, value) in
        [(0x228, 0xc8, params.cmdline), (0x218, 0xc0, params.initrd.0), (0x21c, 0xc4, params.initrd.1)]
    {
        put(low, &(value as u32).to_le_bytes());
        put(high, &((value >> 32) as u32).to_le_bytes());
    }
    put(0x224, &HEAP_END.to_le_bytes());
    put(0x70, &params.rsdp.to_le_bytes());
    let map = &map[..map.len().min(ZERO_PAGE_E820_MAX)];
    put(0x1e8, &[map.len() as u8]);
    for (i, entry) in map.iter().enumerate() {
        let at = 0x2d0 + 20 * i;
        put(at, &entry.base.to_le_bytes());
        put(at + 8, &entry.len.to_le_bytes());
        put(at + 16, &entry.kind.to_le_bytes());
    }
    Some(page)
}

/// `screen_info`: 80x25 colour text; without a VGA as the kernel's own real-mode part finds it.
fn screen_info(page: &mut [u8], vga: bool) {
    const MODE: u8 = 3;
    const VGA: u8 = 1;
    page[0x06] = MODE;
    page[0x07] = 80;
    page[0x0e] = 25;
    // BX of the EGA's information call: what it was before the call, if nothing answers.
    page[0x0a] = if vga { 3 } else { 0x10 };
    page[0x0f] = if vga { VGA } else { 0 };
    page[0x10] = 16;
}

/// Addresses that a PVH kernel is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PvhParams {
    /// Command line (with terminating zero); zero without one.
    pub cmdline: u64,
    /// First module: address and size; size zero without one.
    pub module: (u64, u64),
    /// RSDP; zero when there is none.
    pub rsdp: u64,
}

/// `hvm_start_info` to be placed at `gpa`, followed by its module list and memory map.
pub fn pvh_start_info(params: &PvhParams, map: &[E820Entry], gpa: u64) -> Vec<u8> {
    const MAGIC: u32 = 0x336e_c578;
    const VERSION: u32 = 1;
    const LEN: u64 = 56;
    const MODULE_LEN: u64 = 32;
    let modules = u32::from(params.module.1 != 0);
    let modules_at = gpa + LEN;
    let map_at = modules_at + MODULE_LEN * u64::from(modules);
    let mut out = Vec::new();
    for word in [MAGIC, VERSION, 0, modules] {
        out.extend(word.to_le_bytes());
    }
    for word in [if modules == 0 { 0 } else { modules_at }, params.cmdline, params.rsdp, map_at] {
        out.extend(word.to_le_bytes());
    }
    out.extend((map.len() as u32).to_le_bytes());
    out.extend(0u32.to_le_bytes());
    if modules != 0 {
        for word in [params.module.0, params.module.1, 0, 0] {
            out.extend(word.to_le_bytes());
        }
    }
    for entry in map {
        out.extend(entry.base.to_le_bytes());
        out.extend(entry.len.to_le_bytes());
        out.extend(entry.kind.to_le_bytes());
        out.extend(0u32.to_le_bytes());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map() -> Vec<E820Entry> {
        vec![
            E820Entry { base: 0, len: 0x9_fc00, kind: 1 },
            E820Entry { base: 0x10_0000, len: 1 << 27, kind: 1 },
        ]
    }

    fn dword(bytes: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    #[test]
    fn zero_page_keeps_the_header_and_adds_the_loader_fields() {
        let mut setup = vec![0u8; 5 * 512];
        setup[0x201] = 0x66;
        setup[0x202..0x206].copy_from_slice(b"HdrS");
        setup[0x1f1] = 4;
        setup[0x260] = 0x77;
        let params =
            LinuxParams { cmdline: 0x2_0000, initrd: (0x1_2345_6000, 0x5000), rsdp: 0xf_0000, vga: true };
        let page = zero_page(&setup, &params, &map()).unwrap();
        assert_eq!(page.len(), ZERO_PAGE_LEN);
        assert_eq!((page[0x1f1], page[0x210], page[0x260], page[0x268]), (4, 0xb0, 0x77, 0));
        assert_eq!(dword(&page, 0x228), 0x2_0000);
        assert_eq!((dword(&page, 0x218), dword(&page, 0xc0), dword(&page, 0x21c)), (0x2345_6000, 1, 0x5000));
        assert_eq!(dword(&page, 0x70), 0xf_0000);
        assert_eq!(page[0x1e8], 2);
        assert_eq!(dword(&page, 0x2d0 + 20), 0x10_0000);
        assert_eq!(zero_page(&[0; 4096], &params, &map()), None);
        let many = vec![map()[0]; 200];
        assert_eq!(usize::from(zero_page(&setup, &params, &many).unwrap()[0x1e8]), ZERO_PAGE_E820_MAX);
    }

    #[test]
    fn start_info_points_at_its_parts() {
        let params = PvhParams { cmdline: 0x2_0000, module: (0x400_0000, 0x1000), rsdp: 0xf_0000 };
        let out = pvh_start_info(&params, &map(), 0x6000);
        assert_eq!((dword(&out, 0), dword(&out, 4), dword(&out, 12)), (0x336e_c578, 1, 1));
        let modules = dword(&out, 16) as usize - 0x6000;
        assert_eq!((dword(&out, modules), dword(&out, modules + 8)), (0x400_0000, 0x1000));
        let map_at = dword(&out, 40) as usize - 0x6000;
        assert_eq!(dword(&out, 48), 2);
        assert_eq!(dword(&out, map_at + 24), 0x10_0000);
        assert_eq!(out.len(), map_at + 48);
        let bare = pvh_start_info(&PvhParams::default(), &map(), 0x6000);
        assert_eq!((dword(&bare, 12), dword(&bare, 16), dword(&bare, 40)), (0, 0, 0x6000 + 56));
    }
}
