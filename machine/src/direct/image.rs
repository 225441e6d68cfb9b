//! Kernel images: Linux (bzImage), ELF with a PVH note, multiboot.
//!
//! Specifications: "The Linux/x86 Boot Protocol", Xen's PVH boot ABI, Multiboot 0.6.96. Linux and 64-bit ELF images
//! are loaded by `linux-loader`.

use std::fs::File;
use std::os::unix::fs::FileExt;

use linux_loader::loader::elf::PvhBootCapability;
use linux_loader::loader::{BzImage, Elf, KernelLoader};
use vm_memory::{GuestAddress, GuestMemoryMmap};

use super::{elf32, multiboot};
use crate::machine::Machine;
use crate::{qerr, QResult};

/// How an image is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageKind {
    /// Linux, 64-bit entry.
    Linux64,
    /// Linux, 32-bit entry.
    Linux32,
    /// ELF with a PVH entry.
    Pvh,
    /// Multiboot.
    Multiboot,
}

/// An open kernel image.
pub struct Image {
    file: File,
    name: String,
    kind: ImageKind,
    /// First bytes of the file: setup part of Linux, headers of the others.
    head: Vec<u8>,
    /// Multiboot header, if it is one.
    pub(super) multiboot: Option<multiboot::Header>,
}

/// A loaded image.
pub struct Loaded {
    /// Where to start.
    pub entry: u64,
    /// First address behind it.
    pub end: u64,
}

const HEAD: usize = 32 << 10;
const XLF_KERNEL_64: u16 = 1;
const LOADED_HIGH: u8 = 1;

impl Image {
    /// Opens and classifies. `Ok(None)`: a kernel that needs firmware (old Linux protocols, real-mode images).
    pub fn open(path: &str) -> QResult<Option<Self>> {
        let fail = |e: std::io::Error| {
            qerr!("qemu: could not open kernel file '{path}': {}", crate::error::strerror(&e)).bare()
        };
        let file = File::open(path).map_err(fail)?;
        let unreadable = |why: &str| qerr!("qemu: could not load kernel '{path}': {why}").bare();
        let len = file.metadata().map_err(fail)?.len();
        if len == 0 {
            return Err(unreadable("the file is empty"));
        }
        let mut head = vec![0; HEAD.min(usize::try_from(len).unwrap_or(HEAD))];
        file.read_exact_at(&mut head, 0).map_err(|e| unreadable(&crate::error::strerror(&e)))?;
        let multiboot = multiboot::Header::find(&head);
        let kind = match classify(&head, multiboot.is_some())? {
            Some(k) => k,
            None => return Ok(None),
        };
        if matches!(kind, ImageKind::Linux32 | ImageKind::Linux64) && setup_len(&head) > len {
            return Err(qerr!("qemu: invalid kernel header").bare());
        }
        Ok(Some(Self { file, name: path.to_string(), kind, head, multiboot }))
    }

    /// How it is started.
    pub fn kind(&self) -> ImageKind {
        self.kind
    }

    /// The file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Name for messages and boot protocols.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// First bytes of the file.
    pub fn setup(&self) -> &[u8] {
        &self.head
    }

    /// Highest address for an initrd.
    pub fn initrd_max(&self) -> u32 {
        match self.head.get(0x22c..0x230) {
            Some(b) if self.protocol() >= 0x203 => u32::from_le_bytes([b[0], b[1], b[2], b[3]]),
            _ => 0x37ff_ffff,
        }
    }

    fn protocol(&self) -> u16 {
        protocol(&self.head)
    }

    /// Loads a Linux image; the entry is that of the 32-bit protocol.
    pub fn load_linux(&mut self, guest: &GuestMemoryMmap<()>) -> QResult<Loaded> {
        let mut f = self.file.try_clone().map_err(|e| qerr!("{}", crate::error::strerror(&e)))?;
        let r = BzImage::load(guest, None, &mut f, Some(GuestAddress(0x10_0000)))
            .map_err(|e| qerr!("could not load kernel '{}': {e}", self.name))?;
        // The kernel unpacks itself behind its image; leave it what it says it needs.
        let init_size = match self.head.get(0x260..0x264) {
            Some(b) if self.protocol() >= 0x20a => u64::from(u32::from_le_bytes([b[0], b[1], b[2], b[3]])),
            _ => 0,
        };
        let end = r.kernel_end.max(r.kernel_load.0 + init_size);
        Ok(Loaded { entry: r.kernel_load.0, end })
    }

    /// Loads an ELF image with a PVH entry.
    pub fn load_pvh(&mut self, m: &Machine, guest: &GuestMemoryMmap<()>) -> QResult<Loaded> {
        if self.head.get(4) == Some(&1) {
            let e = elf32::load(m, &self.file)?;
            let entry = elf32::pvh_entry(&self.file)?.ok_or_else(|| no_pvh(&self.name))?;
            return Ok(Loaded { entry, end: e.end });
        }
        let mut f = self.file.try_clone().map_err(|e| qerr!("{}", crate::error::strerror(&e)))?;
        let r = Elf::load(guest, None, &mut f, Some(GuestAddress(0)))
            .map_err(|_| qerr!("Error while loading elf kernel"))?;
        match r.pvh_boot_cap {
            PvhBootCapability::PvhEntryPresent(a) => Ok(Loaded { entry: a.0, end: r.kernel_end }),
            _ => Err(no_pvh(&self.name)),
        }
    }
}

fn no_pvh(_name: &str) -> crate::QError {
    qerr!("Error loading uncompressed kernel without PVH ELF Note")
}

fn protocol(head: &[u8]) -> u16 {
    match head.get(0x202..0x208) {
        Some(b) if &b[..4] == b"HdrS" => u16::from_le_bytes([b[4], b[5]]),
        _ => 0,
    }
}

/// Bytes of the real-mode part.
fn setup_len(head: &[u8]) -> u64 {
    match head.get(0x1f1) {
        Some(0) | None => 5 * 512,
        Some(n) => (u64::from(*n) + 1) * 512,
    }
}

fn classify(head: &[u8], multiboot: bool) -> QResult<Option<ImageKind>> {
    let version = protocol(head);
    if version > 0 {
        let high = head.get(0x211).is_some_and(|f| f & LOADED_HIGH != 0);
        // One that starts elsewhere than where boot loaders put it has code of its own that firmware must run.
        let start = head.get(0x214..0x218).is_some_and(|b| *b == 0x10_0000u32.to_le_bytes());
        if !high || version < 0x205 || !start {
            return Ok(None);
        }
        let xload = head.get(0x236..0x238).map_or(0, |b| u16::from_le_bytes([b[0], b[1]]));
        if version >= 0x20c && xload & XLF_KERNEL_64 != 0 {
            return Ok(Some(ImageKind::Linux64));
        }
        // The 32-bit entry is documented from 2.02 on, but images that are not Linux (iPXE) rely on real mode; they
        // do not say how large they become.
        let init_size = head.get(0x260..0x264).is_some_and(|b| b != [0; 4]);
        return Ok((version >= 0x20a && init_size).then_some(ImageKind::Linux32));
    }
    if multiboot {
        if head.starts_with(b"\x7fELF\x02") {
            return Err(qerr!("Cannot load x86-64 image, give a 32bit one."));
        }
        return Ok(Some(ImageKind::Multiboot));
    }
    if head.starts_with(b"\x7fELF") {
        return Ok(Some(ImageKind::Pvh));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn linux(version: u16, flags: u8, xload: u16, init_size: u32) -> Vec<u8> {
        let mut h = vec![0; 1024];
        h[0x202..0x206].copy_from_slice(b"HdrS");
        h[0x206..0x208].copy_from_slice(&version.to_le_bytes());
        h[0x211] = flags;
        h[0x214..0x218].copy_from_slice(&0x10_0000u32.to_le_bytes());
        h[0x236..0x238].copy_from_slice(&xload.to_le_bytes());
        h[0x260..0x264].copy_from_slice(&init_size.to_le_bytes());
        h
    }

    #[test]
    fn kinds() {
        let k = |h: &[u8]| classify(h, false).unwrap();
        assert_eq!(k(&linux(0x20f, 1, 1, 5)), Some(ImageKind::Linux64));
        assert_eq!(k(&linux(0x20f, 1, 0, 5)), Some(ImageKind::Linux32));
        assert_eq!(k(&linux(0x203, 1, 0, 0)), None);
        assert_eq!(k(&linux(0x20f, 0, 1, 5)), None);
        assert_eq!(k(b"\x7fELF\x02"), Some(ImageKind::Pvh));
        assert!(classify(b"\x7fELF\x02", true).is_err());
        assert_eq!(k(b"MZ"), None);
        assert_eq!(k(b""), None);
    }
}
