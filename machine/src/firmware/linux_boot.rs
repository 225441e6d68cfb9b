//! Linux kernel image (bzImage and older) for fw_cfg: splits it, patches the setup header, chooses addresses.
//!
//! Specification: the kernel's "Linux/x86 boot protocol". The option ROM loads the items where they say; the
//! values equal QEMU 7.2's, checked by `tests/firmware_oracle`.

use super::fw_cfg_files::key;

/// Where and what to load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinuxImage {
    /// Real-mode setup part with the patched header.
    pub setup: Vec<u8>,
    /// Address of the setup part.
    pub setup_addr: u32,
    /// Protected-mode part.
    pub kernel: Vec<u8>,
    /// Its address.
    pub kernel_addr: u32,
    /// Command line with the terminating zero.
    pub cmdline: Vec<u8>,
    /// Its address.
    pub cmdline_addr: u32,
    /// Initrd.
    pub initrd: Option<Vec<u8>>,
    /// Its address.
    pub initrd_addr: u32,
}

/// Why an image cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinuxError {
    /// Not a kernel, or cut short.
    #[error("invalid kernel header")]
    InvalidHeader,
    /// Too old for an initrd.
    #[error("linux kernel too old to load a ram disk")]
    TooOldForInitrd,
    /// Initrd does not fit.
    #[error("initrd is too large, cannot support.(max: {max}, need {need})")]
    InitrdTooLarge {
        /// Highest address that it may use.
        max: u32,
        /// Its size.
        need: u64,
    },
    /// `vga=` in the command line is not a number.
    #[error("invalid 'vga=' kernel parameter.")]
    InvalidVga,
}

/// Offsets in the setup header.
mod hdr {
    pub const CMD_LINE_MAGIC: usize = 0x20;
    pub const CMD_LINE_OFFSET: usize = 0x22;
    pub const SETUP_SECTS: usize = 0x1f1;
    pub const VID_MODE: usize = 0x1fa;
    pub const MAGIC: usize = 0x202;
    pub const VERSION: usize = 0x206;
    pub const TYPE_OF_LOADER: usize = 0x210;
    pub const LOADFLAGS: usize = 0x211;
    pub const RAMDISK_IMAGE: usize = 0x218;
    pub const RAMDISK_SIZE: usize = 0x21c;
    pub const HEAP_END: usize = 0x224;
    pub const CMD_LINE_PTR: usize = 0x228;
    pub const INITRD_ADDR_MAX: usize = 0x22c;
    pub const XLOADFLAGS: usize = 0x236;
    /// End of the part that is read.
    pub const END: usize = 0x268;
}

const LOADED_HIGH: u8 = 0x01;
const CAN_USE_HEAP: u8 = 0x80;
const ABOVE_4G: u16 = 0x02;
/// Loader id of QEMU.
const LOADER_QEMU: u8 = 0xb0;
/// Top of low RAM that the firmware keeps for tables.
const FIRMWARE_DATA: u32 = 0x2_8000;

/// Prepares a kernel for a machine with `below_4g` bytes of RAM under the PCI hole.
///
/// # Errors
/// See [`LinuxError`].
pub fn prepare(
    image: &[u8],
    cmdline: &str,
    initrd: Option<Vec<u8>>,
    below_4g: u64,
) -> Result<LinuxImage, LinuxError> {
    if image.len() < hdr::END {
        return Err(LinuxError::InvalidHeader);
    }
    let protocol = if &image[hdr::MAGIC..hdr::MAGIC + 4] == b"HdrS" { get16(image, hdr::VERSION) } else { 0 };
    let setup_len = match image[hdr::SETUP_SECTS] {
        0 => 5 * 512,
        sectors => (usize::from(sectors) + 1) * 512,
    };
    if setup_len > image.len() {
        return Err(LinuxError::InvalidHeader);
    }
    let cmdline_len = cmdline.len() + 1;
    let place = Placement::choose(protocol, image[hdr::LOADFLAGS], cmdline_len);
    let mut setup = image[..setup_len].to_vec();
    patch_header(&mut setup, protocol, &place);
    if let Some(mode) = video_mode(cmdline)? {
        put16(&mut setup, hdr::VID_MODE, mode);
    }
    let mut initrd_addr = 0;
    if let Some(data) = &initrd {
        if protocol < 0x200 {
            return Err(LinuxError::TooOldForInitrd);
        }
        initrd_addr = place_initrd(image, protocol, data.len() as u64, below_4g)?;
        put32(&mut setup, hdr::RAMDISK_IMAGE, initrd_addr);
        put32(&mut setup, hdr::RAMDISK_SIZE, data.len() as u32);
    }
    let mut text = cmdline.as_bytes().to_vec();
    text.push(0);
    Ok(LinuxImage {
        setup,
        setup_addr: place.setup,
        kernel: image[setup_len..].to_vec(),
        kernel_addr: place.kernel,
        cmdline: text,
        cmdline_addr: place.cmdline,
        initrd,
        initrd_addr,
    })
}

/// Addresses of the three parts.
struct Placement {
    setup: u32,
    cmdline: u32,
    kernel: u32,
}

impl Placement {
    fn choose(protocol: u16, loadflags: u8, cmdline_len: usize) -> Self {
        let high = protocol >= 0x200 && loadflags & LOADED_HIGH != 0;
        if high && protocol >= 0x202 {
            return Self { setup: 0x1_0000, cmdline: 0x2_0000, kernel: 0x10_0000 };
        }
        // Old kernels: the command line is in the setup part's segment, below 0x9a000.
        let cmdline = 0x9_a000 - (cmdline_len as u32).next_multiple_of(16);
        Self { setup: 0x9_0000, cmdline, kernel: if high { 0x10_0000 } else { 0x1_0000 } }
    }
}

/// Fills in the loader's fields.
fn patch_header(setup: &mut [u8], protocol: u16, place: &Placement) {
    const OLD_MAGIC: u16 = 0xa33f;
    const HEAP_RESERVE: u32 = 0x200;
    if protocol >= 0x202 {
        put32(setup, hdr::CMD_LINE_PTR, place.cmdline);
    } else {
        put16(setup, hdr::CMD_LINE_MAGIC, OLD_MAGIC);
        put16(setup, hdr::CMD_LINE_OFFSET, (place.cmdline - place.setup) as u16);
    }
    if protocol >= 0x200 {
        setup[hdr::TYPE_OF_LOADER] = LOADER_QEMU;
    }
    if protocol >= 0x201 {
        setup[hdr::LOADFLAGS] |= CAN_USE_HEAP;
        put16(setup, hdr::HEAP_END, (place.cmdline - place.setup - HEAP_RESERVE) as u16);
    }
}

/// The initrd goes as high as the kernel and low RAM allow, on a page.
fn place_initrd(image: &[u8], protocol: u16, size: u64, below_4g: u64) -> Result<u32, LinuxError> {
    let limit = if protocol >= 0x20c && get16(image, hdr::XLOADFLAGS) & ABOVE_4G != 0 {
        u32::MAX
    } else if protocol >= 0x203 {
        get32(image, hdr::INITRD_ADDR_MAX)
    } else {
        0x37ff_ffff
    };
    let top = u32::try_from(below_4g).unwrap_or(u32::MAX).saturating_sub(FIRMWARE_DATA);
    let max = if limit >= top { top.saturating_sub(1) } else { limit };
    if size >= u64::from(max) {
        return Err(LinuxError::InitrdTooLarge { max, need: size });
    }
    Ok((max - size as u32) & !4095)
}

/// `vga=` in the command line.
///
/// # Errors
/// The value is not a mode.
pub fn video_mode(cmdline: &str) -> Result<Option<u16>, LinuxError> {
    let Some(at) = cmdline.find("vga=") else { return Ok(None) };
    let value = &cmdline[at + 4..];
    for (name, mode) in [("normal", 0xffff), ("ext", 0xfffe), ("ask", 0xfffd)] {
        if value.starts_with(name) {
            return Ok(Some(mode));
        }
    }
    let (digits, radix) = match value.strip_prefix("0x") {
        Some(hex) => (hex, 16),
        None if value.starts_with('0') => (value, 8),
        None => (value, 10),
    };
    let end = digits.find(|c: char| !c.is_digit(radix)).unwrap_or(digits.len());
    let terminated = digits[end..].chars().next().is_none_or(|c| c == ' ');
    match u32::from_str_radix(&digits[..end], radix) {
        Ok(mode) if terminated => Ok(Some(mode as u16)),
        _ => Err(LinuxError::InvalidVga),
    }
}

impl LinuxImage {
    /// The fw_cfg items.
    pub fn into_items(self) -> Vec<(u16, Vec<u8>)> {
        let dword = |v: u32| v.to_le_bytes().to_vec();
        let size = |data: &[u8]| dword(data.len() as u32);
        let mut items = vec![
            (key::KERNEL_ADDR, dword(self.kernel_addr)),
            (key::KERNEL_SIZE, size(&self.kernel)),
            (key::KERNEL_DATA, self.kernel),
            (key::CMDLINE_ADDR, dword(self.cmdline_addr)),
            (key::CMDLINE_SIZE, size(&self.cmdline)),
            (key::CMDLINE_DATA, self.cmdline),
            (key::SETUP_ADDR, dword(self.setup_addr)),
            (key::SETUP_SIZE, size(&self.setup)),
            (key::SETUP_DATA, self.setup),
        ];
        if let Some(initrd) = self.initrd {
            items.push((key::INITRD_ADDR, dword(self.initrd_addr)));
            items.push((key::INITRD_SIZE, size(&initrd)));
            items.push((key::INITRD_DATA, initrd));
        }
        items
    }
}

fn get16(image: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([image[at], image[at + 1]])
}

fn get32(image: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([image[at], image[at + 1], image[at + 2], image[at + 3]])
}

fn put16(setup: &mut [u8], at: usize, value: u16) {
    setup[at..at + 2].copy_from_slice(&value.to_le_bytes());
}

fn put32(setup: &mut [u8], at: usize, value: u32) {
    setup[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn junk_is_refused() {
        assert_eq!(prepare(b"junk", "", None, 1 << 27), Err(LinuxError::InvalidHeader));
        let mut image = vec![0u8; 4096];
        image[hdr::SETUP_SECTS] = 100;
        assert_eq!(prepare(&image, "", None, 1 << 27), Err(LinuxError::InvalidHeader));
    }

    #[test]
    fn video_modes() {
        assert_eq!(video_mode("quiet"), Ok(None));
        assert_eq!(video_mode("a vga=normal b"), Ok(Some(0xffff)));
        assert_eq!(video_mode("vga=0x317 b"), Ok(Some(0x317)));
        assert_eq!(video_mode("vga=791"), Ok(Some(791)));
        assert_eq!(video_mode("vga=foo"), Err(LinuxError::InvalidVga));
    }
}
