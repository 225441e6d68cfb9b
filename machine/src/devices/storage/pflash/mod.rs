//! `cfi.pflash01`: parallel NOR flash with Intel's extended command set (Intel "Common Flash Interface and Command
//! Sets", AP-646; JEDEC JESD68.01), as boards hold their firmware in.
//!
//! While it shows its array, reads come straight from host memory and only writes reach the device; every other mode
//! makes the whole chip a device. What is written goes to the image at once.
//! Left out: banks wider than one device (`device-width`), block locking (accepted without effect, as in QEMU), busy times.
//! Tested by unit tests and, command by command, by comparison with a real QEMU.

mod cfi;
mod chip;
#[cfg(test)]
mod tests;

use rqemu_block::BlockBackend;
use rqemu_derive::Device;

use self::chip::Chip;
use super::blk;
use crate::device::{Cx, Device, IoHandler, RealizeCx};
use crate::memory::{IoSpec, RegionId};
use crate::qom::{DeviceClass, DriveRef};
use crate::{qerr, QResult};

/// Parallel flash.
#[derive(Device)]
#[class(name = "cfi.pflash01", parent = "sys-bus-device", bus = System, category = Storage, internal)]
pub struct PflashProps {
    /// Node name or ID of a block device to use as a backend
    #[prop]
    pub drive: DriveRef,
    /// Number of erase blocks
    #[prop]
    pub num_blocks: u32,
    /// Size of an erase block in bytes
    #[prop]
    pub sector_length: u64,
    /// Width of the bank in bytes
    #[prop]
    pub width: u8,
    /// Width of one chip of the bank
    #[prop]
    pub device_width: u8,
    /// Largest width of one chip of the bank
    #[prop]
    pub max_device_width: u8,
    /// Byte order of the bank
    #[prop]
    pub big_endian: bool,
    /// Only system management mode may use commands
    #[prop]
    pub secure: bool,
    /// First identifier
    #[prop]
    pub id0: u16,
    /// Second identifier
    #[prop]
    pub id1: u16,
    /// Third identifier
    #[prop]
    pub id2: u16,
    /// Fourth identifier
    #[prop]
    pub id3: u16,
    /// Name of the memory
    #[prop]
    pub name: Option<String>,
    /// How several chips side by side answered before QEMU 2.2
    #[prop(name = "old-multiple-chip-handling")]
    pub old_multiple_chip_handling: bool,
}

impl PflashProps {
    fn check(&self) -> QResult<(String, u64)> {
        let name = self.name.clone().ok_or_else(|| qerr!("attribute \"name\" not specified."))?;
        if self.sector_length == 0 {
            return Err(qerr!("attribute \"sector-length\" not specified or zero."));
        }
        if self.num_blocks == 0 {
            return Err(qerr!("attribute \"num-blocks\" not specified or zero."));
        }
        if self.width != 1 || self.device_width != 0 {
            return Err(qerr!("cfi.pflash01: banks of several chips are not supported"));
        }
        let size = u64::from(self.num_blocks).checked_mul(self.sector_length);
        let size = size.filter(|s| self.sector_length.is_power_of_two() && *s <= 1 << 32);
        Ok((name, size.ok_or_else(|| qerr!("cfi.pflash01: bad geometry"))?))
    }
}

impl DeviceClass for PflashProps {
    fn realize(&mut self, cx: &mut RealizeCx<'_>) -> QResult<Box<dyn Device>> {
        let (name, size) = self.check()?;
        let backend = blk::resolve(cx, &self.drive)?;
        let read_only = backend.as_ref().is_some_and(|b| b.read_only());
        let region = cx.rom_device(&name, size, 0, IoSpec::ANY)?;
        let block = cx.m().ram_of(region).ok_or_else(|| qerr!("flash has no memory"))?;
        if let Some(b) = &backend {
            if b.len() < size {
                return Err(qerr!("device requires {size} bytes, block backend provides {} bytes", b.len()));
            }
            let how = rqemu_block::Attach { read_only, share_rw: true, resizable: true };
            blk::attach(b, &blk::device_name(cx), how)?;
            load(b, &block, size).inspect_err(|_| b.detach())?;
        }
        cx.mmio(region);
        let ids = [self.id0, self.id1, self.id2, self.id3];
        let chip = Chip::new(block, size, self.sector_length, ids, read_only);
        Ok(Box::new(Pflash { chip, region, backend, big_endian: self.big_endian, secure: self.secure }))
    }
}

/// Fills the array from the image.
fn load(b: &BlockBackend, block: &crate::memory::RamBlock, size: u64) -> QResult<()> {
    const STEP: u64 = 256 << 10;
    let mut buf = vec![0; STEP.min(size) as usize];
    for at in (0..size).step_by(STEP as usize) {
        let part = &mut buf[..STEP.min(size - at) as usize];
        b.read_at(at, part).map_err(|e| qerr!("can't read block backend: {e}"))?;
        // Erased parts and holes stay untouched memory.
        if part.iter().any(|v| *v != 0) {
            block.write(at, part);
        }
    }
    Ok(())
}

/// A chip in the machine.
pub struct Pflash {
    chip: Chip,
    region: RegionId,
    backend: Option<BlockBackend>,
    big_endian: bool,
    secure: bool,
}

impl Pflash {
    /// The memory.
    pub fn region(&self) -> RegionId {
        self.region
    }

    /// Whether commands from the processor as it is now go through.
    fn allowed(&self, cx: &Cx<'_>) -> bool {
        !self.secure || cx.m.smm_access
    }

    fn turn(&self, value: u32, size: u8) -> u32 {
        match size {
            2 if self.big_endian => u32::from((value as u16).swap_bytes()),
            4 if self.big_endian => value.swap_bytes(),
            _ => value,
        }
    }

    /// Writes what changed to the image, whole sectors.
    fn store(&self, cx: &Cx<'_>, range: std::ops::Range<u64>) {
        const SECTOR: u64 = 512;
        if range.is_empty() {
            return;
        }
        if let Some(o) = cx.m.accel.write_observer() {
            let len = (range.end - range.start) as usize;
            o.written(self.chip.block().host().wrapping_add(range.start as usize), len);
        }
        let Some(b) = &self.backend else { return };
        let start = range.start / SECTOR * SECTOR;
        let end = range.end.next_multiple_of(SECTOR);
        let mut data = vec![0; (end - start) as usize];
        self.chip.block().read(start, &mut data);
        if let Err(e) = b.write_at(start, &data) {
            eprintln!("rqemu-system-x86_64: Could not update PFLASH: {e}");
        }
    }
}

impl IoHandler for Pflash {
    fn read(&mut self, cx: &mut Cx<'_>, _region: u32, offset: u64, size: u8) -> u64 {
        if !self.allowed(cx) {
            return u64::from(self.turn(self.chip.array(offset, size), size));
        }
        match self.chip.read(offset, size) {
            chip::Read::Array(v) => u64::from(self.turn(v, size)),
            chip::Read::Register(v) => u64::from(v),
        }
    }

    fn write(&mut self, cx: &mut Cx<'_>, _region: u32, offset: u64, size: u8, value: u64) {
        if !self.allowed(cx) {
            return;
        }
        let value = value as u32;
        let turned = self.turn(value, size);
        let changed = self.chip.write(offset, size, value, turned);
        self.store(cx, changed);
        // With `secure`, who is not allowed in must see the array in every mode: then all reads are ours.
        cx.m.mem.set_direct(self.region, self.chip.shows_array());
    }
}

impl Device for Pflash {
    fn reset(&mut self, cx: &mut Cx<'_>) {
        self.chip.reset();
        cx.m.mem.set_direct(self.region, true);
    }
    fn io(&mut self) -> Option<&mut dyn IoHandler> {
        Some(self)
    }
    fn unrealize(&mut self, _cx: &mut Cx<'_>) {
        if let Some(b) = &self.backend {
            b.detach();
        }
    }
    fn as_any(&mut self) -> &mut dyn std::any::Any {
        self
    }
}
